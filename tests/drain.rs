//! Leaving: what can finish finishes, what cannot is named, and a second signal is obeyed.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::matrix::{self, Cell, Findings, Route};
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::stream::{MIB, Stream};
use support::world::World;
use support::{PATIENCE, script, wait_until};

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
