//! Requests of Redis and Dubbo that are sent again: redis-server and dubbo-py are killed, or stand still, while they
//! owe answers. Reads lose nothing, and what changes something reaches one server, once at most.

use crate::{
    in_cells,
    redis_or_dubbo::{Client, Fleet, Kind, SERVERS, answers, batch, upstream},
    support::{
        PATIENCE,
        matrix::cells_with,
        netra::Netra,
        programs::{run, tool},
        wait_until,
        world::World,
    },
    tries::{reasons, told},
};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

const READERS: usize = 16;
const WRITERS: usize = 6;
/// So many writes go by one connection, then its client comes anew: to another server.
const WRITES: u64 = 20;
const RESET: &str = "on: [reset]";
const BY_MESSAGE: &str = "netra.io/balance-by: message";

/// Clients of a fleet: how often each of them was answered, or told that it is not.
struct Load<'w> {
    world: &'w World,
    kind: Kind,
    is_over: AtomicBool,
    told: Vec<AtomicU64>,
    lost: AtomicU64,
}

impl<'w> Load<'w> {
    fn new(world: &'w World, kind: Kind) -> Self {
        let told = (0..READERS + WRITERS).map(|_| AtomicU64::new(0)).collect();
        Self { world, kind, is_over: AtomicBool::new(false), told, lost: AtomicU64::new(0) }
    }

    fn goes_on(&self, number: usize) -> bool {
        self.told[number].fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(1));
        !self.is_over.load(Relaxed)
    }

    /// One connection, on which nothing may fail.
    fn read(&self, number: usize) -> Result<(), String> {
        let name = number as u64;
        let mut client = Client::connect(self.world, self.kind).map_err(|it| it.to_string())?;
        for id in 0.. {
            client.reads(id, name).map_err(|what| format!("reader {number}: {what}"))?;
            if !self.goes_on(number) {
                break;
            }
        }
        Ok(())
    }

    /// A connection after the other; each write, and whether it was answered well.
    fn write(&self, number: usize) -> Vec<(String, bool)> {
        let (mut client, mut all) = (None, Vec::new());
        for id in 0.. {
            let name = format!("{number}-{id}");
            let mut ask = || {
                let client = match &mut client {
                    Some(client) if id % WRITES != 0 => client,
                    client => client.insert(Client::connect(self.world, self.kind).ok()?),
                };
                let answer = client.ask(&self.kind.write(id, &name)).ok()?;
                self.kind.is_written(&answer, id, &name).then_some(())
            };
            let is_written = ask().is_some();
            if !is_written {
                client = None;
                self.lost.fetch_add(1, Relaxed);
            }
            all.push((name, is_written));
            if !self.goes_on(number) {
                break;
            }
        }
        all
    }

    fn seen(&self) -> Vec<u64> {
        self.told.iter().map(|it| it.load(Relaxed)).collect()
    }

    /// Those who are told nothing for a while that is long for all of them: how many read, and write.
    fn waiting(&self) -> [usize; 2] {
        let before = self.seen();
        thread::sleep(Duration::from_millis(250));
        let after = self.seen();
        [0..READERS, READERS..READERS + WRITERS]
            .map(|of| of.filter(|it| before[*it] == after[*it]).count())
    }

    /// One server after the other is killed, and comes back: the first in the midst of what it does, the
    /// others when reads and writes wait there for certain.
    fn kill_each(&self, netra: &Netra<'_>, fleet: &mut Fleet<'_>) -> Result<(), String> {
        let first = self.kind.port();
        let is_going = || self.waiting() == [0, 0];
        for port in [first + 1, first + 2, first] {
            if !wait_until(PATIENCE, is_going) {
                return Err(format!("before {port}: {:?} wait", self.waiting()));
            }
            let counts = || {
                let again = netra.scrape().sum("netra_sent_again_total", &[]);
                (again, self.lost.load(Relaxed))
            };
            let before = counts();
            let is_certain = port != first + 1;
            if is_certain {
                fleet.servers[&port].stop();
                if !wait_until(PATIENCE, || self.waiting().iter().all(|count| *count > 0)) {
                    return Err(format!("{port} was asked nothing: {:?} wait", self.waiting()));
                }
            }
            fleet.kill(port);
            if !wait_until(PATIENCE, is_going) {
                return Err(format!("{port} is dead: {:?} wait", self.waiting()));
            }
            let after = counts();
            if is_certain && (after.0 == before.0 || after.1 == before.1) {
                let what = "what was sent again and what was lost";
                return Err(format!("{port} was killed: {what} went from {before:?} to {after:?}"));
            }
            fleet.revive(port);
        }
        Ok(())
    }
}

/// Each write was done once where it was answered, and at most once where it was not.
fn once(held: &BTreeMap<String, u64>, writes: &[(String, bool)]) -> Result<(), String> {
    let times = |name: &String| held.get(name).copied().unwrap_or(0);
    let is_bad = |(name, is_written): &&(String, bool)| match is_written {
        true => times(name) != 1,
        false => times(name) > 1,
    };
    let bad: Vec<_> = writes.iter().filter(is_bad).map(|it| (it, times(&it.0))).collect();
    match (bad.is_empty(), writes.len()) {
        (true, 100..) => Ok(()),
        (_, count) => Err(format!("of {count} writes, done how often: {bad:?}")),
    }
}

/// Three servers are killed one after the other under load: no read fails, no write is done twice.
fn survived(kind: Kind) {
    let Some(world) = World::new() else { return };
    let setup = |setup| kind.setup(setup);
    in_cells(&world, &cells_with(2), &kind.rules(RESET, ""), setup, |netra, _| {
        let mut fleet = Fleet::start(&world, kind);
        let load = Load::new(&world, kind);
        let (found, read, writes) = thread::scope(|scope| {
            let load = &load;
            let readers: Vec<_> =
                (0..READERS).map(|it| scope.spawn(move || load.read(it))).collect();
            let writers: Vec<_> = (READERS..READERS + WRITERS)
                .map(|it| scope.spawn(move || load.write(it)))
                .collect();
            let found = load.kill_each(netra, &mut fleet);
            load.is_over.store(true, Relaxed);
            let read: Vec<_> =
                readers.into_iter().filter_map(|it| it.join().expect("no panic").err()).collect();
            let writes: Vec<_> =
                writers.into_iter().flat_map(|it| it.join().expect("no panic")).collect();
            (found, read, writes)
        });
        if !read.is_empty() {
            return Err(format!("reads failed: {read:?}; {found:?}"));
        }
        found?;
        once(&fleet.held(), &writes)
    });
}

#[test]
fn reads_of_redis_survive_servers_that_are_killed_and_writes_are_done_once() {
    survived(Kind::Redis);
}

#[test]
fn named_calls_of_dubbo_survive_servers_that_are_killed_and_others_are_done_once() {
    survived(Kind::Dubbo);
}

/// So many bytes of these requests wait at a server when it is killed.
fn lose(
    fleet: &mut Fleet<'_>,
    port: u16,
    client: &mut Client,
    requests: &[u8],
    least: usize,
) -> Result<(), String> {
    let world = fleet.world;
    fleet.servers[&port].stop();
    client.send(requests).map_err(|it| it.to_string())?;
    let from = format!("sport = :{port}");
    let mut came = 0;
    let waits = || {
        let said = run(&world.client, &tool("ss", "iproute2"), &["-Htn", &from]);
        let unread = |line: &str| line.split_whitespace().nth(1)?.parse::<usize>().ok();
        came = said.lines().filter_map(unread).sum();
        came >= least
    };
    if !wait_until(PATIENCE, waits) {
        return Err(format!("{came} of {least} bytes came to port {port}"));
    }
    fleet.kill(port);
    Ok(())
}

/// What one connection has in flight when its server is killed: all of it goes to another one, or, where
/// one of it may not, nothing does. In between, the connection outlives its server.
fn in_flight(kind: Kind) {
    let Some(world) = World::new() else { return };
    let setup = |setup| told(kind.setup(setup));
    in_cells(&world, &cells_with(1), &kind.rules(RESET, ""), setup, |netra, _| {
        let mut fleet = Fleet::start(&world, kind);
        let mut client = Client::connect(&world, kind).map_err(|it| it.to_string())?;
        let again = || netra.scrape().sum("netra_sent_again_total", &[]);
        let lose_all = |fleet: &mut Fleet<'_>, client: &mut Client, requests: Vec<u8>| {
            lose(fleet, upstream(&world)?, client, &requests, requests.len())
        };
        client.reads(1, 1)?;
        lose_all(&mut fleet, &mut client, batch(kind, 100..132, None))?;
        answers(&mut client, 100..132)?;
        if again() != 32 {
            return Err(format!("{} and not 32 were sent again", again()));
        }
        reasons(netra, &["reset"])?;
        lose_all(&mut fleet, &mut client, Vec::new())?;
        client.reads(2, 2)?;
        lose_all(&mut fleet, &mut client, batch(kind, 200..232, Some((216, "once"))))?;
        match client.answer() {
            Ok(answer) => return Err(format!("told {:?}", String::from_utf8_lossy(&answer))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err("the client is told nothing".into());
            }
            Err(_) => {}
        }
        (kind.port()..kind.port() + SERVERS).for_each(|port| fleet.revive(port));
        match (again(), fleet.held().get("once")) {
            (32, None) => Ok(()),
            other => Err(format!("sent again, and done: {other:?}")),
        }
    });
}

#[test]
fn what_redis_owes_one_connection_is_sent_again_all_or_nothing() {
    in_flight(Kind::Redis);
}

#[test]
fn what_dubbo_owes_one_connection_is_sent_again_all_or_nothing() {
    in_flight(Kind::Dubbo);
}

/// Reads of one connection that are with three servers at a time: whoever of them is killed, all are
/// answered, in their order.
#[test]
fn what_one_of_three_owes_a_connection_is_sent_again() {
    let Some(world) = World::new() else { return };
    let kind = Kind::Redis;
    let rules = kind.rules(RESET, BY_MESSAGE);
    in_cells(
        &world,
        &cells_with(1),
        &rules,
        |setup| kind.setup(setup),
        |netra, _| {
            let mut fleet = Fleet::start(&world, kind);
            let mut client = Client::connect(&world, kind).map_err(|it| it.to_string())?;
            let counts = || {
                let scrape = netra.scrape();
                ["netra_sent_again_total", "netra_legs_opened_total", "netra_legs_lost_total"]
                    .map(|name| scrape.sum(name, &[]))
            };
            (0..6).try_for_each(|id| client.reads(id, id))?;
            if counts()[1] != 2 {
                return Err(format!("{} legs beside the first upstream", counts()[1]));
            }
            for (round, port) in (1..).zip([kind.port() + 1, kind.port(), kind.port() + 2]) {
                let before = counts();
                let ids = round * 100..round * 100 + 32;
                // Each of them has ten at least.
                let least = 10 * "GET read:0\r\n".len();
                lose(&mut fleet, port, &mut client, &batch(kind, ids.clone(), None), least)?;
                answers(&mut client, ids).map_err(|what| format!("{port} was killed: {what}"))?;
                let after = counts();
                if after[0] < before[0] + 10 || after[2] == before[2] {
                    return Err(format!("{port}: sent again, legs, lost: {before:?}, {after:?}"));
                }
                fleet.revive(port);
                // It has its part again.
                (0..6).try_for_each(|id| client.reads(id, id))?;
            }
            Ok(())
        },
    );
}

/// A server stands still with reads of a connection. When a try has taken too long they go to another one, and are
/// answered, in their order; that the first comes back changes nothing.
fn stands_still(kind: Kind, annotations: &str) {
    let Some(world) = World::new() else { return };
    let rules = kind.rules("on: [reset, timeout], perTryTimeout: 300ms", annotations);
    let setup = |setup| told(kind.setup(setup));
    in_cells(&world, &cells_with(1), &rules, setup, |netra, _| {
        let fleet = Fleet::start(&world, kind);
        let mut client = Client::connect(&world, kind).map_err(|it| it.to_string())?;
        (0..6).try_for_each(|id| client.reads(id, id))?;
        let still = &fleet.servers[&upstream(&world)?];
        still.stop();
        client.send(&batch(kind, 100..132, None)).map_err(|it| it.to_string())?;
        answers(&mut client, 100..132)?;
        let again = netra.scrape().sum("netra_sent_again_total", &[]);
        // Where there are three at a time, that one had its part.
        let least = if annotations.is_empty() { 32 } else { 10 };
        if again < least {
            return Err(format!("{again} were sent again"));
        }
        reasons(netra, &["timeout"])?;
        still.signal(Signal::SIGCONT);
        (200..206).try_for_each(|id| client.reads(id, id % 64))
    });
}

#[test]
fn reads_of_redis_do_not_wait_for_a_server_that_stands_still() {
    stands_still(Kind::Redis, "");
}

#[test]
fn named_calls_of_dubbo_do_not_wait_for_a_server_that_stands_still() {
    stands_still(Kind::Dubbo, "");
}

#[test]
fn reads_of_redis_by_three_servers_do_not_wait_for_one_that_stands_still() {
    stands_still(Kind::Redis, BY_MESSAGE);
}

/// Reads go to servers that can serve, one alone or many in flight; where none can, their client gets what the last of
/// them says.
fn find_who_can_serve(kind: Kind, annotations: &str) {
    let Some(world) = World::new() else { return };
    let rules = kind.rules("on: [reset, gateway-error]", annotations);
    let setup = |setup| told(kind.setup(setup));
    in_cells(&world, &cells_with(1), &rules, setup, |netra, _| {
        let fleet = Fleet::start(&world, kind);
        let connect = || Client::connect(&world, kind).map_err(|it| it.to_string());
        let again = || netra.scrape().sum("netra_sent_again_total", &[]);
        let mut client = connect()?;
        client.reads(1, 1)?;
        let first = upstream(&world)?;
        fleet.close(first);
        // By one server or by three in turn: one of these comes to it, and nothing waits behind that.
        (2..5).try_for_each(|id| client.reads(id, id))?;
        let alone = again();
        if alone == 0 {
            return Err("nothing was sent again".into());
        }
        reasons(netra, &["gateway-error"])?;
        let others: Vec<_> =
            (kind.port()..kind.port() + SERVERS).filter(|port| *port != first).collect();
        fleet.close(others[0]);
        // Whichever of them a client comes to, the last one serves it.
        for round in 1..7 {
            let (mut client, ids) = (connect()?, round * 100..round * 100 + 32);
            client.send(&batch(kind, ids.clone(), None)).map_err(|it| it.to_string())?;
            answers(&mut client, ids).map_err(|what| format!("round {round}: {what}"))?;
            client.reads(1, 1)?;
        }
        if again() < alone + 32 {
            return Err(format!("{} were sent again, {alone} of them before", again()));
        }
        fleet.close(others[1]);
        let mut client = connect()?;
        for id in 1..4 {
            let answer = client.ask(&kind.read(id, id)).map_err(|it| it.to_string())?;
            if !kind.is_closed(&answer, id) {
                return Err(format!("told {:?}", String::from_utf8_lossy(&answer)));
            }
        }
        Ok(())
    });
}

#[test]
fn reads_of_redis_find_a_server_that_can_serve() {
    find_who_can_serve(Kind::Redis, "");
}

#[test]
fn reads_of_redis_by_three_servers_find_one_that_can_serve() {
    find_who_can_serve(Kind::Redis, BY_MESSAGE);
}

#[test]
fn named_calls_of_dubbo_find_a_server_that_can_serve() {
    find_who_can_serve(Kind::Dubbo, "");
}
