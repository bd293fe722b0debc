//! Requests of Redis and Dubbo that are sent again: redis-server and dubbo-py are killed while they owe
//! answers. Reads lose nothing, and what changes something reaches one server, once at most.

use crate::{
    in_cells, peer,
    routes_of_others::redis,
    support::{
        PATIENCE,
        matrix::cells_with,
        netra::{ADMIN_PORT, Netra, Setup},
        programs::{Server, run, tool},
        scrape, script,
        spans::python_path,
        wait_until,
        world::{CLIENT_V4, World},
    },
    tries::{reasons, told},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::TcpStream,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

const SERVERS: u16 = 3;
const READERS: usize = 16;
const WRITERS: usize = 6;
/// So many writes go by one connection, then its client comes anew: to another server.
const WRITES: u64 = 20;
const INTERFACE: &str = "org.apache.dubbo.samples.basic.api.DemoService";

/// A protocol, as its clients and rules have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dubbo,
    Redis,
}

impl Kind {
    fn port(self) -> u16 {
        if self == Self::Redis { 6379 } else { 20880 }
    }

    fn name(self) -> &'static str {
        if self == Self::Redis { "redis" } else { "dubbo" }
    }

    /// Three servers of one host, of which a route lets reads be sent again.
    fn rules(self, annotations: &str) -> String {
        let (host, name, named) = match self {
            Self::Redis => ("cache".to_owned(), "tcp-redis", ""),
            Self::Dubbo => {
                let named = ", operations: [sayHello]";
                (INTERFACE.to_lowercase(), "tcp-metaprotocol-dubbo", named)
            }
        };
        let (first, protocol) = (self.port(), self.name());
        let endpoints: String = (first..first + SERVERS)
            .map(|port| format!("  - {{address: {CLIENT_V4}, ports: {{{name}: {port}}}}}\n"))
            .collect();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
             hosts: [{host}]\n  ports: [{{number: {first}, name: {name}}}]\n  resolution: STATIC\n  \
             endpoints:\n{endpoints}---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: it, \
             annotations: {{{annotations}}}}}\nspec:\n  host: {host}\n  trafficPolicy: \
             {{loadBalancer: {{simple: ROUND_ROBIN}}, \
             retryBudget: {{percent: 100, minRetryConcurrency: 50}}}}\n---\n\
             apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
             hosts: [{host}]\n  protocol: {protocol}\n  routes: [{{route: [{{destination: \
             {{host: {host}}}}}], retry: {{on: [reset], attempts: 2{named}}}}}]\n"
        )
    }

    fn setup(self, setup: Setup) -> Setup {
        setup.env("NETRA_PROTOCOLS", format!("{}={}", self.port(), self.name()))
    }

    /// What changes nothing, and is answered `hello` and the name.
    fn read(self, id: u64, name: u64) -> Vec<u8> {
        match self {
            Self::Redis => format!("GET read:{name}\r\n").into_bytes(),
            Self::Dubbo => call(id, "sayHello", &name.to_string()),
        }
    }

    fn is_read(self, answer: &[u8], id: u64, name: u64) -> bool {
        let said = format!("hello {name}");
        match self {
            Self::Redis => answer == format!("${}\r\n{said}\r\n", said.len()).as_bytes(),
            Self::Dubbo => is_answered(answer, id, &said),
        }
    }

    /// What is counted by the server that has it.
    fn write(self, id: u64, name: &str) -> Vec<u8> {
        match self {
            Self::Redis => format!("INCR write:{name}\r\n").into_bytes(),
            Self::Dubbo => call(id, "note", name),
        }
    }

    fn is_written(self, answer: &[u8], id: u64, name: &str) -> bool {
        match self {
            Self::Redis => answer == b":1\r\n",
            Self::Dubbo => is_answered(answer, id, name),
        }
    }

    /// The length of the answer that is there whole.
    fn whole(self, held: &[u8]) -> Option<usize> {
        let len = match self {
            Self::Redis => {
                let line = held.windows(2).position(|two| two == b"\r\n")? + 2;
                match std::str::from_utf8(&held[1..line - 2]).ok()?.parse::<usize>() {
                    Ok(len) if held[0] == b'$' => line + len + 2,
                    _ => line,
                }
            }
            Self::Dubbo => {
                16 + usize::try_from(u32::from_be_bytes(held.get(12..16)?.try_into().ok()?)).ok()?
            }
        };
        (held.len() >= len).then_some(len)
    }
}

/// A call of Dubbo 2 in Hessian 2, with one text.
fn call(id: u64, method: &str, value: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for text in ["2.0.2", INTERFACE, "0.0.0", method, "Ljava/lang/String;", value] {
        let len = u8::try_from(text.len()).expect("short");
        body.extend_from_slice(if len < 32 { &[] } else { b"\x30" });
        body.push(len);
        body.extend_from_slice(text.as_bytes());
    }
    body.extend_from_slice(b"HZ");
    let len = u32::try_from(body.len()).expect("short");
    [&b"\xda\xbb\xc2\0"[..], &id.to_be_bytes(), &len.to_be_bytes(), &body].concat()
}

fn is_answered(answer: &[u8], id: u64, said: &str) -> bool {
    // 20: OK.
    answer[3] == 20 && answer[4..12] == id.to_be_bytes() && answer.ends_with(said.as_bytes())
}

/// The servers of a host, and what they hold when they are killed.
struct Fleet<'w> {
    world: &'w World,
    kind: Kind,
    servers: BTreeMap<u16, Server>,
}

impl<'w> Fleet<'w> {
    fn start(world: &'w World, kind: Kind) -> Self {
        let mut fleet = Self { world, kind, servers: BTreeMap::new() };
        for port in kind.port()..kind.port() + SERVERS {
            drop(fs::remove_dir_all(fleet.folder(port)));
            fs::create_dir_all(fleet.folder(port)).expect("a folder");
            fleet.revive(port);
            if kind == Kind::Redis {
                let keys = "for i = 0, 63 do redis.call('SET', 'read:' .. i, 'hello ' .. i) end";
                redis(&world.client, port, &["EVAL", keys, "0"]);
            }
        }
        fleet
    }

    fn folder(&self, port: u16) -> PathBuf {
        self.world.dir().join(format!("fleet-{port}"))
    }

    /// A server that holds what the one before it on this port was told.
    fn revive(&mut self, port: u16) {
        let (world, text, folder) = (self.world, port.to_string(), self.folder(port));
        let server = match self.kind {
            Kind::Redis => {
                let mut command = world.client.command(tool("redis-server", "redis-server"));
                // What was answered is with the kernel, and outlives the process.
                command.args(["--port", &text, "--save", "", "--appendonly", "yes"]);
                command.args(["--appendfsync", "no", "--protected-mode", "no", "--dir"]);
                command.arg(folder).args(["--bind", "0.0.0.0"]);
                Server::start(world, &world.client, command, port)
            }
            Kind::Dubbo => {
                let mut command = world.client.command(python_path());
                command.args([&peer("dubbo_peer.py"), "server", &text, "hello"]);
                command.arg(folder.join("notes"));
                Server::start(world, &world.client, command, port)
            }
        };
        if self.kind == Kind::Redis {
            let is_up = || redis(&world.client, port, &["PING"]) == "PONG";
            assert!(wait_until(PATIENCE, is_up), "redis-server on port {port} still loads");
        }
        self.servers.insert(port, server);
    }

    fn kill(&mut self, port: u16) {
        drop(self.servers.remove(&port));
    }

    /// How often each write was done, by all servers together.
    fn held(&self) -> BTreeMap<String, u64> {
        let list = "local r = {} for _, k in ipairs(redis.call('KEYS', 'write:*')) \
                    do r[#r + 1] = string.sub(k, 7) .. ' ' .. redis.call('GET', k) end return r";
        let mut held = BTreeMap::new();
        for port in self.servers.keys() {
            let text = match self.kind {
                Kind::Redis => redis(&self.world.client, *port, &["EVAL", list, "0"]),
                Kind::Dubbo => fs::read_to_string(self.folder(*port).join("notes")).expect("notes"),
            };
            for line in text.lines().filter(|line| !line.is_empty()) {
                let (name, count) = line.split_once(' ').unwrap_or((line, "1"));
                *held.entry(name.to_owned()).or_default() += count.parse::<u64>().expect("count");
            }
        }
        held
    }
}

/// A client that asks one thing at a time.
struct Client {
    kind: Kind,
    stream: TcpStream,
    held: Vec<u8>,
}

impl Client {
    fn connect(world: &World, kind: Kind) -> io::Result<Self> {
        let stream = script::connect(&world.pod, (CLIENT_V4, kind.port()).into())?;
        Ok(Self { kind, stream, held: Vec::new() })
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(len) = self.kind.whole(&self.held) {
                let rest = self.held.split_off(len);
                return Ok(std::mem::replace(&mut self.held, rest));
            }
            match script::read(&mut self.stream, &mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.held.extend_from_slice(&bytes[..len]),
            }
        }
    }

    fn ask(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.send(bytes)?;
        self.answer()
    }

    /// A read that has to be answered well.
    fn reads(&mut self, id: u64, name: u64) -> Result<(), String> {
        let answer = self.ask(&self.kind.read(id, name));
        self.expect(answer, id, name)
    }

    fn expect(&self, answer: io::Result<Vec<u8>>, id: u64, name: u64) -> Result<(), String> {
        match answer {
            Ok(answer) if self.kind.is_read(&answer, id, name) => Ok(()),
            Ok(answer) => Err(format!("{id}: {:?}", String::from_utf8_lossy(&answer))),
            Err(error) => Err(format!("{id}: {error}")),
        }
    }
}

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
    in_cells(&world, &cells_with(2), &kind.rules(""), setup, |netra, _| {
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

/// Where the only connection leads now.
fn upstream(world: &World) -> Result<u16, String> {
    let (_, page) =
        scrape::get(&world.pod, ADMIN_PORT, "/connections").map_err(|it| it.to_string())?;
    let page: serde_json::Value = serde_json::from_str(&page).map_err(|it| it.to_string())?;
    let shown = page["connections"][0]["upstream"].as_str();
    let port = shown.and_then(|it| it.rsplit_once(':')?.1.parse().ok());
    port.ok_or_else(|| format!("no upstream in {page:#}"))
}

/// Reads with these numbers, and a write behind those of one number where that is asked for.
fn batch(kind: Kind, ids: std::ops::Range<u64>, write: Option<(u64, &str)>) -> Vec<u8> {
    ids.flat_map(|id| match write {
        Some((at, name)) if at == id => kind.write(id, name),
        _ => kind.read(id, id % 64),
    })
    .collect()
}

/// Waits for the answers to reads of these numbers, in whatever order.
fn answers(client: &mut Client, ids: std::ops::Range<u64>) -> Result<(), String> {
    let mut left: Vec<_> = ids.collect();
    while !left.is_empty() {
        let answer = client.answer().map_err(|it| format!("{it} instead of {left:?}"))?;
        let is_it = |id: &u64| client.kind.is_read(&answer, *id, *id % 64);
        // Those of Redis say in no other way which request it was.
        let found = if client.kind == Kind::Redis {
            left.first().filter(|it| is_it(it)).map(|_| 0)
        } else {
            left.iter().position(is_it)
        };
        let place = found.ok_or_else(|| {
            format!("{:?} answers none of {left:?}", String::from_utf8_lossy(&answer))
        })?;
        left.remove(place);
    }
    Ok(())
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
    in_cells(&world, &cells_with(1), &kind.rules(""), setup, |netra, _| {
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
    let rules = kind.rules("netra.io/balance-by: message");
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
