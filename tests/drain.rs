//! Leaving: what can finish finishes, what cannot is named, and a second signal is obeyed.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::matrix::{self, Cell, Findings, Route};
use support::netra::{Backend, Netra, Setup, apply_rules, release_rules};
use support::stream::{MIB, Stream};
use support::world::{POD_V4, World};
use support::{PATIENCE, programs, script, wait_until};

/// Connections in mid-transfer when the signal comes; half into the pod, half out of it.
const CONNECTIONS: u16 = 50;
const TRANSFER: Stream = Stream { seed: 17, len: 4 * MIB };

/// One connection per call, established and ready on both sides.
fn pair(route: Route<'_>) -> (TcpStream, TcpStream) {
    let listener = script::listen(route.server, route.address);
    let address = listener.local_addr().expect("a bound listener");
    let client = script::connect(route.client, address).expect("connect");
    (client, script::accept(&listener).expect("netra dials the server"))
}

/// Sends slowly enough to be in the middle for a second, then finishes.
fn trickle(mut peer: &TcpStream, moved: &AtomicU64) -> Result<(), String> {
    const PIECES: u64 = 16;
    for piece in 0..PIECES {
        let part = Stream { seed: TRANSFER.seed + piece, len: TRANSFER.len / PIECES };
        part.send(&mut peer).map_err(|error| format!("send of piece {piece}: {error}"))?;
        moved.fetch_add(part.len, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(60));
    }
    peer.shutdown(std::net::Shutdown::Write).map_err(|error| format!("finish: {error}"))
}

fn gather(mut peer: &TcpStream) -> Result<(), String> {
    const PIECES: u64 = 16;
    for piece in 0..PIECES {
        let part = Stream { seed: TRANSFER.seed + piece, len: TRANSFER.len / PIECES };
        part.verify(&mut peer).map_err(|error| format!("piece {piece}: {error}"))?;
    }
    match script::read(&mut peer, &mut [0; 1]) {
        Ok(0) => Ok(()),
        other => Err(format!("after the last byte: {other:?}")),
    }
}

fn drain_under_load(world: &World, cell: Cell) -> Result<(), String> {
    let mut netra = Netra::start(world, &Setup::new(cell).env("NETRA_DRAIN_MS", 20_000));
    let routes = matrix::routes(world);
    let pairs: Vec<_> = routes.iter().cycle().take(CONNECTIONS.into()).map(|r| pair(*r)).collect();
    let moved = AtomicU64::new(0);
    let failures: Vec<String> = thread::scope(|scope| {
        let mut workers = Vec::new();
        for (number, (client, server)) in pairs.iter().enumerate() {
            let (from, to) = if number % 8 < 4 { (client, server) } else { (server, client) };
            let moved = &moved;
            workers.push(scope.spawn(move || trickle(from, moved)));
            workers.push(scope.spawn(move || {
                gather(to)?;
                to.shutdown(std::net::Shutdown::Write).map_err(|error| error.to_string())
            }));
        }
        let quarter = u64::from(CONNECTIONS) * TRANSFER.len / 4;
        assert!(
            wait_until(PATIENCE, || moved.load(Ordering::Relaxed) > quarter),
            "transfers stall"
        );
        netra.signal(Signal::SIGTERM);
        let refused = refuses(routes[0]).and_then(|()| refuses(routes[2]));
        let ends = workers.into_iter().map(|worker| worker.join().expect("a worker's thread"));
        ends.chain([refused]).filter_map(Result::err).collect()
    });
    let status = netra.wait(PATIENCE)?;
    if !status.success() {
        return Err(format!("{status}\n{}", netra.log()));
    }
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} cut, first: {first}\n{}", failures.len(), netra.log())),
    }
}

/// Soon after the signal nobody new gets in.
fn refuses(route: Route<'_>) -> Result<(), String> {
    let listener = script::listen(route.server, route.address);
    let address = listener.local_addr().expect("a bound listener");
    let refused = || {
        script::connect(route.client, address)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    if wait_until(Duration::from_secs(3), refused) {
        return Ok(());
    }
    Err(format!("{}: new connections get in while netra drains", route.name))
}

#[test]
fn heavy_drain_under_load_cuts_nobody() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells() {
        findings.check(cell, drain_under_load(&world, cell));
    }
    findings.conclude();
}

fn in_every_cell(check: impl Fn(&World, Cell) -> Result<(), String>) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells() {
        findings.check(cell, check(&world, cell));
    }
    findings.conclude();
}

/// Nobody there: nothing to wait for.
#[test]
fn idle_netra_leaves_at_once() {
    in_every_cell(|world, cell| {
        let mut netra = Netra::start(world, &Setup::new(cell).env("NETRA_DRAIN_MS", 20_000));
        let asked = Instant::now();
        netra.signal(Signal::SIGTERM);
        let status = netra.wait(PATIENCE)?;
        let took = asked.elapsed();
        if !status.success() || took > Duration::from_secs(1) {
            return Err(format!("{status} after {took:?}\n{}", netra.log()));
        }
        Ok(())
    });
}

/// The deadline cuts who does not finish, says so by name, and is not an error.
#[test]
fn the_deadline_cuts_and_names() {
    in_every_cell(|world, cell| {
        let mut netra = Netra::start(world, &Setup::new(cell).env("NETRA_DRAIN_MS", 700));
        let (mut client, mut server) = pair(matrix::routes(world)[0]);
        client.write_all(b"?").and_then(|()| server.read_exact(&mut [0; 1])).expect("relayed");
        let asked = Instant::now();
        netra.signal(Signal::SIGTERM);
        let ended = |peer: &mut TcpStream| !matches!(script::read(peer, &mut [0; 1]), Ok(1..));
        let both = ended(&mut client) && ended(&mut server);
        let status = netra.wait(PATIENCE)?;
        let (took, log) = (asked.elapsed(), netra.log());
        let port = client.local_addr().expect("an address").port();
        if !both || !status.success() {
            return Err(format!("ends of both peers: {both}; {status}\n{log}"));
        }
        if took < Duration::from_millis(650) || took > Duration::from_secs(4) {
            return Err(format!("the deadline of 700 ms took {took:?}\n{log}"));
        }
        if !log.contains(&port.to_string()) {
            return Err(format!("the log does not name the connection from port {port}:\n{log}"));
        }
        Ok(())
    });
}

#[test]
fn a_second_signal_ends_at_once() {
    in_every_cell(|world, cell| {
        let mut netra = Netra::start(world, &Setup::new(cell).env("NETRA_DRAIN_MS", 20_000));
        let (mut client, server) = pair(matrix::routes(world)[0]);
        netra.signal(Signal::SIGTERM);
        thread::sleep(Duration::from_millis(300));
        if netra.wait(Duration::ZERO).is_ok() {
            return Err(format!("left a living connection at the first signal\n{}", netra.log()));
        }
        let asked = Instant::now();
        netra.signal(Signal::SIGTERM);
        netra.wait(PATIENCE)?;
        let took = asked.elapsed();
        if took > Duration::from_secs(1) {
            return Err(format!("the second signal took {took:?}\n{}", netra.log()));
        }
        let cut = !matches!(script::read(&mut client, &mut [0; 1]), Ok(1..));
        drop(server);
        if cut { Ok(()) } else { Err("the client was not cut".to_owned()) }
    });
}

/// While it drains, `/ready` says no, so that nobody is sent here any more.
#[test]
fn draining_is_not_ready() {
    in_every_cell(|world, cell| {
        let mut netra = Netra::start(world, &Setup::new(cell).env("NETRA_DRAIN_MS", 20_000));
        let (client, server) = pair(matrix::routes(world)[0]);
        netra.signal(Signal::SIGTERM);
        let unready = wait_until(Duration::from_secs(2), || !netra.ready());
        drop((client, server));
        let status = netra.wait(PATIENCE)?;
        if unready && status.success() {
            return Ok(());
        }
        Err(format!("unready: {unready}; {status}\n{}", netra.log()))
    });
}

/// The order that the documents tell: rules first, then the signal. Of 500 connections under load, 50
/// of them kept and used again and again by a client that does not try twice, no request is lost;
/// and 16 that are kept and silent see an end, no reset.
#[test]
fn heavy_rules_first_and_no_request_is_lost() {
    let Some(world) = World::new() else { return };
    fs::write(world.dir().join("small"), [b'x'; 1024]).expect("a file to serve");
    let _server = programs::nginx(&world, "8080 backlog=4096");
    let mut findings = Findings::default();
    for cell in matrix::cells_with(2) {
        findings.check(cell, nobody_is_lost(&world, cell));
    }
    findings.conclude();
}

fn nobody_is_lost(world: &World, cell: Cell) -> Result<(), String> {
    apply_rules(world, Backend::NftNative);
    let setup = Setup::new(cell).env("NETRA_DRAIN_MS", 4_000).env("NETRA_HTTP_PORTS", 8080);
    let mut netra = Netra::start(world, &setup);
    let url = format!("http://{POD_V4}:8080/small");
    let mut silent: Vec<TcpStream> = (0..16).map(|_| kept(world)).collect();
    let (kept, new, left) = thread::scope(|scope| {
        let load = |tool: &'static str, args: &[&str]| {
            let args: Vec<_> = args.iter().chain([&&*url]).map(ToString::to_string).collect();
            scope.spawn(move || {
                let args: Vec<_> = args.iter().map(String::as_str).collect();
                programs::run(&world.client, &programs::tool(tool, tool), &args)
            })
        };
        let kept = load("wrk", &["-c", "50", "-t", "2", "-d", "8s"]);
        let new = load("hey", &["-z", "8s", "-c", "450", "-q", "2", "-disable-keepalive"]);
        thread::sleep(Duration::from_millis(2500));
        release_rules(world, Backend::NftNative);
        thread::sleep(Duration::from_millis(300));
        netra.signal(Signal::SIGTERM);
        let left = netra.wait(Duration::from_secs(8));
        (kept.join().expect("wrk"), new.join().expect("hey"), left)
    });
    let status = left.map_err(|what| format!("{what}\n{}\n{kept}\n{new}", netra.log()))?;
    let (log, ends) = (netra.log(), silent.iter_mut().map(|it| it.read(&mut [0; 1])));
    let cut = ends.filter(|end| !matches!(end, Ok(0))).count();
    eprintln!("[{cell}] {}", log.lines().last().unwrap_or_default());
    if !status.success() || cut > 0 || !log.contains(" cut=0 ") {
        return Err(format!("{status}, {cut} silent ones cut\n{log}"));
    }
    let lost =
        |said: &str| ["Socket errors", "Non-2xx", "Error distribution"].map(|it| said.contains(it));
    match lost(&kept) == [false; 3] && lost(&new) == [false; 3] {
        true => Ok(()),
        false => Err(format!("requests were lost:\n{kept}\n{new}\n{log}")),
    }
}

/// A connection that has had one answer.
fn kept(world: &World) -> TcpStream {
    let mut peer = script::connect(&world.client, (POD_V4, 8080).into()).expect("connect");
    peer.write_all(b"GET /small HTTP/1.1\r\nHost: pod\r\n\r\n").expect("send");
    let mut answer = Vec::new();
    while !answer.ends_with(&[b'x'; 1024]) {
        let mut piece = [0; 2048];
        let len = peer.read(&mut piece).expect("an answer");
        answer.extend_from_slice(&piece[..len]);
    }
    peer.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    peer
}
