//! Bad days: no descriptors left, dead and slow peers, silence, and being restarted all the time.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use support::helper::{BLAST, Helper, Role};
use support::matrix::{self, Cell, Driver, Findings};
use support::netra::{Backend, METRICS_PORT, Netra, PORT, Setup, apply_rules, remove_rules};
use support::script::{self, End, Script, Step};
use support::stream::{KIB, MIB};
use support::world::{CLIENT_V4, POD_V4, World};
use support::{PATIENCE, procfs, setting, wait_until};

fn in_cells(cells: &[Cell], check: impl Fn(&World, Cell) -> Result<(), String>) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells {
        findings.check(cell, check(&world, *cell));
    }
    findings.conclude();
}

/// One byte there and back.
fn turn(peer: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = [0; 1];
    peer.write_all(b"x")?;
    peer.read_exact(&mut answer)?;
    if &answer == b"x" { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

fn calm(netra: &Netra<'_>, span: Duration) -> Result<(), String> {
    // What spins never comes to rest; what is only finishing its work on a loaded machine does.
    let mut used = f64::MAX;
    for _ in 0..10 {
        used = procfs::cpu_during(netra.pid(), span);
        if used <= span.as_secs_f64() * 0.05 {
            return Ok(());
        }
    }
    Err(format!("used {used:.2} s of CPU in {span:?} of nothing to do, ten times in a row"))
}

/// Ten thousand idle connections, or as many as the machine's limit of descriptors lets one
/// process relay (two each, and the headroom that netra keeps): all live, cheap and silent.
#[test]
fn heavy_ten_thousand_idle_connections() {
    const WANTED: u64 = 10_000;
    const BYTES_EACH: u64 = 2 * KIB;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit of descriptors");
    let nofile = hard.min(24_000);
    let count = WANTED.min((nofile - nofile / 20 - 200) / 2).min(hard - 500);
    eprintln!("{count} connections under a limit of {nofile} descriptors");
    assert!(count >= 9_000, "a limit of {hard} descriptors is too low for this test");
    in_cells(&matrix::cells_with(2), |world, cell| {
        let server = Helper::spawn(&world.pod, POD_V4, Role::Echo);
        let netra = Netra::start(world, &Setup::new(cell).nofile(nofile));
        let pid = netra.pid();
        let mut warm = script::connect(&world.client, server.address).expect("connect");
        turn(&mut warm).expect("an answer");
        drop(warm);
        netra.quiesce()?;
        let (memory, fds) = (procfs::rss_anon(pid), procfs::fds(pid).len());
        let mut peers = Vec::new();
        for number in 0..count {
            let dial = script::connect(&world.client, server.address);
            peers.push(dial.map_err(|error| format!("connection {number}: {error}"))?);
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            turn(peer).map_err(|error| format!("first byte of {number}: {error}"))?;
        }
        netra.scrape_until("all are active", |scrape| scrape.active() == count)?;
        calm(&netra, Duration::from_secs(2))?;
        let each = procfs::rss_anon(pid).saturating_sub(memory) / count;
        eprintln!("[{cell}] {each} bytes of memory for each of {count} connections");
        for (number, peer) in peers.iter_mut().enumerate() {
            turn(peer).map_err(|error| format!("second byte of {number}: {error}"))?;
        }
        drop(peers);
        netra.quiesce()?;
        let left = procfs::fds(pid).len().saturating_sub(fds);
        if each > BYTES_EACH || left > 64 {
            return Err(format!("{each} bytes a connection; {left} descriptors more than before"));
        }
        netra.finish()
    });
}

/// A thousand clients and 256 descriptors: netra takes what fits, pauses without spinning, and
/// goes on when there is room. Everybody is served in the end.
#[test]
fn heavy_descriptor_limit_under_a_thousand_clients() {
    const CLIENTS: usize = 1_000;
    in_cells(&matrix::cells(), |world, cell| {
        let server = Helper::spawn(&world.pod, POD_V4, Role::Echo);
        let netra = Netra::start(world, &Setup::new(cell).nofile(256));
        let mut peers = Vec::new();
        for number in 0..CLIENTS {
            let mut peer = script::connect(&world.client, server.address)
                .map_err(|error| format!("client {number}: {error}"))?;
            peer.write_all(b"x").map_err(|error| format!("client {number}: {error}"))?;
            peers.push(peer);
        }
        let paused = |scrape: &support::scrape::Scrape| {
            scrape.sum("netra_accept_paused_total", &[]) > 0 && scrape.active() > 50
        };
        netra.scrape_until("accepting is paused at the limit", paused)?;
        netra.scrape_until("it says so", |scrape| scrape.sum("netra_accept_full", &[]) > 0)?;
        thread::sleep(Duration::from_millis(500));
        calm(&netra, Duration::from_secs(2))?;
        if procfs::fds(netra.pid()).len() > 256 {
            return Err("more descriptors than the limit".to_owned());
        }
        say_so(&netra)?;
        let (served, failed) = serve_in_turn(peers);
        if served != CLIENTS {
            let errno = [("errno", "EMFILE")];
            let emfile = netra.scrape().sum("netra_upstream_connect_failures_total", &errno);
            return Err(format!(
                "of {CLIENTS} clients {served} were served and {failed} failed; {emfile} dials \
                 found no descriptor"
            ));
        }
        netra.quiesce()?;
        let mut again = script::connect(&world.client, server.address).expect("connect");
        turn(&mut again).map_err(|error| format!("after recovery: {error}"))?;
        drop(again);
        netra.finish()
    });
}

/// Who waits in the kernel's queue sees nothing, so netra tells others.
fn say_so(netra: &Netra<'_>) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while netra.ready() {
        if Instant::now() > deadline {
            return Err("full, and ready all the same".to_owned());
        }
        thread::sleep(Duration::from_millis(100));
    }
    match netra.log().matches("no room for further connections").count() {
        1 => Ok(()),
        n => Err(format!("said {n} times that there is no room:\n{}", netra.log())),
    }
}

/// Each client leaves when it has its answer, which makes room for the next. How many were served,
/// and how many were turned away.
fn serve_in_turn(mut waiting: Vec<TcpStream>) -> (usize, usize) {
    let (mut served, mut failed) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(30);
    for peer in &waiting {
        peer.set_nonblocking(true).expect("a socket option");
    }
    while !waiting.is_empty() && Instant::now() < deadline {
        waiting.retain_mut(|peer| {
            let mut answer = [0; 1];
            match script::read(peer, &mut answer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Ok(1) if answer == *b"x" => served += 1,
                _ => failed += 1,
            }
            false
        });
        thread::sleep(Duration::from_millis(10));
    }
    (served, failed)
}

/// Clients that are gone before netra has dialled for them, in every stage of it.
#[test]
fn clients_that_vanish_leave_nothing() {
    in_cells(&matrix::cells(), |world, cell| {
        let server = Helper::spawn(&world.pod, POD_V4, Role::Echo);
        let netra = Netra::start(world, &Setup::new(cell));
        for number in 0..600 {
            let mut peer = script::connect(&world.client, server.address)
                .map_err(|error| format!("client {number}: {error}"))?;
            match number % 4 {
                0 => script::abort(peer),
                1 => drop(peer),
                2 => {
                    peer.write_all(b"unread").expect("a fresh connection takes bytes");
                    script::abort(peer);
                }
                _ => turn(&mut peer).map_err(|error| format!("client {number}: {error}"))?,
            }
        }
        netra.finish()
    });
}

/// An upstream that dies in the middle looks the same with and without netra.
#[test]
fn upstream_killed_amid_a_transfer() {
    let Some(world) = World::new() else { return };
    let amid = |role, inbound| -> End {
        let (server, client, address) = if inbound {
            (&world.pod, &world.client, POD_V4)
        } else {
            (&world.client, &world.pod, CLIENT_V4)
        };
        let mut helper = Helper::spawn(server, address, role);
        let mut peer = script::connect(client, helper.address).expect("connect");
        if role == Role::Blast {
            let mut part = vec![0; 8 << 20];
            peer.read_exact(&mut part).expect("the transfer runs");
            helper.kill();
            let rest = peer.read_to_end(&mut part);
            return rest.map_or_else(|error| script::end_of(&error), |_| End::Eof);
        }
        let upload = |to: &TcpStream| BLAST.send(&mut &*to);
        thread::scope(|scope| {
            let sent = scope.spawn(|| upload(&peer));
            thread::sleep(Duration::from_millis(300));
            helper.kill();
            let sent = sent.join().expect("the writer's thread");
            script::end_of(&sent.expect_err("nobody reads any more"))
        })
    };
    let cases =
        [(Role::Blast, true), (Role::Blast, false), (Role::Stall, true), (Role::Stall, false)];
    let direct = cases.map(|(role, inbound)| amid(role, inbound));
    assert_eq!(direct[2], End::Reset, "directly, unread data makes a reset");
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells() {
        let netra = Netra::start(&world, &Setup::new(cell));
        for ((role, inbound), direct) in cases.iter().zip(&direct) {
            let end = amid(*role, *inbound);
            if end != *direct {
                let what = format!("{role:?}, inbound {inbound}: {end:?}, directly {direct:?}");
                findings.note(cell, what);
            }
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// Readers that hardly read, for `NETRA_TEST_SLOW_SECONDS` (60 in the issue): netra stops reading
/// from the sender instead of keeping what it sends, and then delivers every byte.
fn slow_readers(driver: Driver) {
    const READERS: usize = 16;
    const MEMORY: u64 = 8 * MIB;
    let span = Duration::from_secs(setting("NETRA_TEST_SLOW_SECONDS", 20));
    in_cells(&[Cell { driver, shards: 1 }], |world, cell| {
        let server = Helper::spawn(&world.pod, POD_V4, Role::Blast);
        let netra = Netra::start(world, &Setup::new(cell));
        let before = procfs::rss_anon(netra.pid());
        let peers: Vec<_> = (0..READERS)
            .map(|_| script::connect(&world.client, server.address).map_err(|e| e.to_string()))
            .collect::<Result<_, _>>()?;
        let most = thread::scope(|scope| {
            let readers: Vec<_> =
                peers.iter().map(|peer| scope.spawn(move || sip(peer, span))).collect();
            let (deadline, mut most) = (Instant::now() + span, 0);
            while Instant::now() < deadline {
                most = most.max(procfs::rss_anon(netra.pid()));
                thread::sleep(Duration::from_millis(100));
            }
            let ends = readers.into_iter().map(|reader| reader.join().expect("a reader's thread"));
            ends.collect::<Result<Vec<()>, String>>().map(|_| most)
        })?;
        let growth = most.saturating_sub(before);
        eprintln!("[{cell}] {READERS} slow readers: {} KiB more memory", growth / KIB);
        drop(peers);
        if growth > MEMORY {
            return Err(format!("{} KiB more memory for {READERS} readers", growth / KIB));
        }
        netra.finish()
    });
}

#[test]
fn slow_readers_cost_bounded_memory_epoll() {
    slow_readers(Driver::Epoll);
}

#[test]
fn slow_readers_cost_bounded_memory_io_uring() {
    slow_readers(Driver::IoUring);
}

/// Reads 64 KiB four times a second for `span`, then 16 MiB at full speed, comparing every byte.
fn sip(peer: &TcpStream, span: Duration) -> Result<(), String> {
    let deadline = Instant::now() + span;
    let fast_from = 64 * KIB * 4 * span.as_secs();
    let slow = |_| {
        if Instant::now() < deadline {
            thread::sleep(Duration::from_millis(250));
        }
    };
    beginning(peer, fast_from + 16 * MIB, slow)
}

/// Reads so many bytes of [`BLAST`], comparing each, and tells how far it is.
fn beginning(mut peer: &TcpStream, len: u64, seen: impl FnMut(u64)) -> Result<(), String> {
    let mut reader = (&mut peer).take(len);
    match BLAST.verify_with(&mut reader, seen) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && reader.limit() == 0 => Ok(()),
        other => Err(format!("{} bytes before the end: {other:?}", reader.limit())),
    }
}

/// More stalled readers than netra has buffers for. They get every byte in the end, and meanwhile
/// nobody else is held up.
#[test]
fn heavy_stalled_readers_starve_nobody() {
    const STALLED: usize = 400;
    const EACH: u64 = 512 * KIB;
    in_cells(&matrix::cells_with(1), |world, cell| {
        let server = Helper::spawn(&world.pod, POD_V4, Role::Blast);
        let echo = Helper::spawn(&world.pod, POD_V4, Role::Echo);
        let netra = Netra::start(world, &Setup::new(cell));
        let before = procfs::rss_anon(netra.pid());
        let stalled: Vec<_> = (0..STALLED)
            .map(|_| script::connect(&world.client, server.address).map_err(|e| e.to_string()))
            .collect::<Result<_, _>>()?;
        let full = |scrape: &support::scrape::Scrape| scrape.active() == STALLED as u64;
        netra.scrape_until("all stalled readers are there", full)?;
        thread::sleep(Duration::from_millis(500));
        calm(&netra, Duration::from_secs(1))?;
        let mut quick = script::connect(&world.client, echo.address).expect("connect");
        let started = Instant::now();
        (0..200).try_for_each(|_| turn(&mut quick)).map_err(|e| format!("a quick one: {e}"))?;
        let took = started.elapsed();
        let growth = procfs::rss_anon(netra.pid()).saturating_sub(before) / KIB;
        let starved = netra.scrape().sum("netra_buffer_starved_total", &[]);
        eprintln!("[{cell}] {STALLED} stalled: {growth} KiB more, {starved} waits for a buffer");
        if took > Duration::from_secs(2) || growth > 16 * KIB {
            return Err(format!("200 turns beside them took {took:?}; {growth} KiB more memory"));
        }
        for (number, peer) in stalled.iter().enumerate() {
            beginning(peer, EACH, |_| ()).map_err(|what| format!("stalled {number}: {what}"))?;
        }
        drop((stalled, quick));
        netra.finish()
    });
}

const LINGER: Duration = Duration::from_millis(500);

/// A pair of which one side has finished and the other says nothing does not stay for ever; data
/// starts the wait anew.
#[test]
fn half_closed_and_silent_is_closed() {
    in_cells(&matrix::cells(), |world, cell| {
        let setup = Setup::new(cell).env("NETRA_HALF_CLOSE_LINGER_MS", LINGER.as_millis());
        let netra = Netra::start(world, &setup);
        thread::scope(|scope| {
            let pairs = matrix::routes(world).map(|route| scope.spawn(move || linger(route)));
            pairs.into_iter().try_for_each(|pair| pair.join().expect("the thread of a pair"))
        })?;
        netra.scrape_until("four lingered", |scrape| scrape.closed("half_close_linger") == 4)?;
        netra.finish()
    });
}

fn linger(route: matrix::Route<'_>) -> Result<(), String> {
    let listener = script::listen(route.server, route.address);
    let address = listener.local_addr().expect("a bound listener");
    let mut client = script::connect(route.client, address).expect("connect");
    let mut server = script::accept(&listener).expect("netra dials the server");
    client.shutdown(std::net::Shutdown::Write).expect("finish");
    for piece in 0..4 {
        thread::sleep(LINGER / 2);
        let sent = server.write_all(&[piece]).and_then(|()| client.read_exact(&mut [0; 1]));
        sent.map_err(|error| format!("{}: piece {piece}: {error}", route.name))?;
    }
    let silent = Instant::now();
    let gone = !matches!(script::read(&mut client, &mut [0; 1]), Ok(1..));
    let took = silent.elapsed();
    if !gone || took < LINGER * 8 / 10 || took > LINGER * 5 {
        return Err(format!("{}: closed {gone} after {took:?}", route.name));
    }
    server.read_exact(&mut [0; 1]).expect_err("the server's side is closed too");
    Ok(())
}

/// A receiver that is slow is not silent: what was sent to it before the linger is not cut off.
#[test]
fn half_closed_and_slow_gets_everything() {
    const LEN: usize = 24 * 1024 * 1024;
    in_cells(&matrix::cells_with(1), |world, cell| {
        let limits = ["NETRA_HALF_CLOSE_LINGER_MS", "NETRA_TCP_IDLE_TIMEOUT_MS"];
        let setup = limits.iter().fold(Setup::new(cell), |s, name| s.env(name, LINGER.as_millis()));
        let netra = Netra::start(world, &setup);
        for route in matrix::routes(world) {
            let listener = script::listen(route.server, route.address);
            let address = listener.local_addr().expect("a bound listener");
            let mut client = script::connect(route.client, address).expect("connect");
            let mut server = script::accept(&listener).expect("netra dials the server");
            client.shutdown(std::net::Shutdown::Write).expect("finish");
            let got = thread::scope(|scope| {
                scope.spawn(move || server.write_all(&vec![5; LEN]));
                thread::sleep(LINGER * 4);
                let mut all = Vec::new();
                client.read_to_end(&mut all).map(|_| all.len())
            });
            if !matches!(got, Ok(LEN)) {
                return Err(format!("{}: {got:?} of {LEN}", route.name));
            }
        }
        netra.finish()
    });
}

/// A client that resets while nobody reads from it, because its server does not either, is noticed.
#[test]
fn reset_behind_back_pressure_is_seen() {
    in_cells(&matrix::cells_with(1), |world, cell| {
        let netra = Netra::start(world, &Setup::new(cell));
        for (number, route) in matrix::routes(world).into_iter().enumerate() {
            let listener = script::listen(route.server, route.address);
            let address = listener.local_addr().expect("a bound listener");
            let mut client = script::connect(route.client, address).expect("connect");
            let _deaf = script::accept(&listener).expect("netra dials the server");
            client.set_nonblocking(true).expect("non-blocking");
            let full = wait_until(PATIENCE, || {
                while client.write(&[1; 65_536]).is_ok() {}
                thread::sleep(Duration::from_millis(200));
                client.write(&[1; 65_536]).is_err()
            });
            if !full {
                return Err(format!("{}: nobody is ever full", route.name));
            }
            script::abort(client);
            let seen = number as u64 + 1;
            netra.scrape_until("the reset is seen", |s| s.closed("downstream_reset") == seen)?;
        }
        netra.finish()
    });
}

#[test]
fn idle_limit_closes_only_the_idle() {
    const LIMIT: Duration = Duration::from_millis(800);
    in_cells(&matrix::cells(), |world, cell| {
        let server = Helper::spawn(&world.pod, POD_V4, Role::Echo);
        let setup = Setup::new(cell).env("NETRA_TCP_IDLE_TIMEOUT_MS", LIMIT.as_millis());
        let netra = Netra::start(world, &setup);
        let mut busy = script::connect(&world.client, server.address).expect("connect");
        let mut idle = script::connect(&world.client, server.address).expect("connect");
        turn(&mut idle).map_err(|error| format!("a byte before silence: {error}"))?;
        let silent = Instant::now();
        idle.set_nonblocking(true).expect("a socket option");
        let closed = wait_until(LIMIT * 4, || {
            turn(&mut busy).expect("a busy connection stays");
            thread::sleep(LIMIT / 10);
            let end = script::read(&mut idle, &mut [0; 1]);
            !end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
        let took = silent.elapsed();
        if !closed || took < LIMIT * 8 / 10 {
            return Err(format!("idle closed: {closed} after {took:?}"));
        }
        turn(&mut busy).map_err(|error| format!("the busy one: {error}"))?;
        netra.scrape_until("one was idle", |scrape| scrape.closed("idle_timeout") == 1)?;
        drop(busy);
        netra.finish()
    });
}

/// Without a limit nothing is cut, however silent: databases live on that.
#[test]
fn silence_is_no_reason_to_close() {
    in_cells(&matrix::cells_with(1), |world, cell| {
        let server = Helper::spawn(&world.pod, POD_V4, Role::Echo);
        let netra = Netra::start(world, &Setup::new(cell));
        let mut peer = script::connect(&world.client, server.address).expect("connect");
        turn(&mut peer).map_err(|error| error.to_string())?;
        calm(&netra, Duration::from_secs(3))?;
        turn(&mut peer).map_err(|error| format!("after three seconds: {error}"))?;
        drop(peer);
        netra.finish()
    });
}

/// Fifty lives, most ended in order and every fifth by SIGKILL with connections open: the port is
/// free again, and nothing is left in the pod.
#[test]
fn heavy_fifty_start_stop_cycles_leak_nothing() {
    let Some(world) = World::new() else { return };
    let listeners = || {
        let output = world.pod.command("ss").args(["-Htnl"]).output().expect("ss (iproute2)");
        support::world::checked(output, "ss").lines().count()
    };
    let server = Helper::spawn(&world.pod, POD_V4, Role::Echo);
    let before = listeners();
    for cycle in 0..50_u32 {
        apply_rules(&world, Backend::NftNative);
        let driver = Driver::ALL[cycle as usize % 2];
        let mut netra = Netra::start(&world, &Setup::new(Cell { driver, shards: 2 }));
        let mut peer = script::connect(&world.client, server.address).expect("connect");
        turn(&mut peer).unwrap_or_else(|error| panic!("cycle {cycle}: {error}"));
        if cycle % 5 == 4 {
            netra.signal(Signal::SIGKILL);
            netra.wait(PATIENCE).expect("SIGKILL is obeyed");
        } else {
            drop(peer);
            netra.finish().unwrap_or_else(|what| panic!("cycle {cycle}: {what}"));
        }
        remove_rules(&world, Backend::NftNative);
        let free = wait_until(PATIENCE, || listeners() == before);
        assert!(free, "cycle {cycle}: ports {PORT} or {METRICS_PORT} are still taken");
    }
    let rules = world.pod.command("nft").args(["list", "ruleset"]).output().expect("nft");
    assert_eq!(support::world::checked(rules, "nft list ruleset"), "", "rules are left");
    let script = Script {
        client: vec![Step::Send(b"hi".to_vec()), Step::Receive(2)],
        server: vec![Step::Receive(2), Step::Send(b"ho".to_vec())],
    };
    for route in matrix::routes(&world) {
        assert_eq!(script.play(route).client.received, b"ho", "{}, directly again", route.name);
    }
}

#[test]
fn helper_process() {
    support::helper::run();
}
