//! What netra must refuse, limit or tell apart: loops to itself, dead upstreams, and which way a
//! connection goes.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::matrix::{self, Cell, Driver, Findings, Route};
use support::netra::{Backend, Netra, PORT, Setup, UID, apply_rules};
use support::script::{self, End, Script, Step};
use support::world::{Namespace, POD_SECOND_V4, POD_SECOND_V6, POD_V4, POD_V6, World};
use support::{procfs, wait_until};

/// A world with rules, and netra started in every cell.
fn in_every_cell(
    configure: impl Fn(Cell) -> Setup,
    check: impl Fn(&World, &Netra<'_>) -> Result<(), String>,
) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells() {
        let netra = Netra::start(&world, &configure(cell));
        findings.check(cell, check(&world, &netra));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: {got:?}, expected {want:?}")) }
}

/// Connects and waits for the end: how it came, and after how long.
fn dial(from: &Namespace, address: SocketAddr) -> (End, Duration) {
    let started = Instant::now();
    let end = match script::connect(from, address) {
        Err(error) => script::end_of(&error),
        Ok(mut peer) => match script::read(&mut peer, &mut [0; 16]) {
            Ok(0) => End::Eof,
            Ok(_) => End::Open,
            Err(error) => script::end_of(&error),
        },
    };
    (end, started.elapsed())
}

/// A pod's secondary address is as much its own as the first.
#[test]
fn secondary_addresses_are_inbound() {
    in_every_cell(Setup::new, |world, netra| {
        for address in [POD_SECOND_V4, POD_SECOND_V6] {
            let (client, server) = (&world.client, &world.pod);
            let route = Route { name: "second", direction: "inbound", client, server, address };
            let client = vec![Step::Send(b"hi".to_vec()), Step::Receive(2)];
            let server = vec![Step::Receive(2), Step::Send(b"ho".to_vec())];
            let played = Script { client, server }.play(route);
            expect("reply", played.client.received.as_slice(), b"ho")?;
        }
        expect("inbound", netra.scrape().opened("inbound"), 2)?;
        expect("outbound", netra.scrape().opened("outbound"), 0)
    });
}

/// A client of a dead port must not see success: the reset passes, the errno is counted.
#[test]
fn refused_upstream_is_a_reset() {
    in_every_cell(Setup::new, |world, netra| {
        let routes = matrix::routes(world);
        for route in routes {
            let listener = script::listen(route.server, route.address);
            let address = listener.local_addr().expect("a bound listener");
            drop(listener);
            let (end, _) = dial(route.client, address);
            expect(&format!("{}: end", route.name), end, End::Reset)?;
        }
        netra.scrape_until("four dials counted as failed", |s| s.closed("dial_failed") == 4)?;
        let labels = [("errno", "ECONNREFUSED")];
        let refused = netra.scrape().sum("netra_upstream_connect_failures_total", &labels);
        expect("ECONNREFUSED", refused, 4)
    });
}

/// What the client sent before netra knew that the upstream is dead must not turn the reset into
/// something else.
#[test]
fn refused_upstream_is_a_reset_even_for_an_eager_client() {
    in_every_cell(Setup::new, |world, _| {
        for route in matrix::routes(world) {
            let listener = script::listen(route.server, route.address);
            let address = listener.local_addr().expect("a bound listener");
            drop(listener);
            let eager = script::connect(route.client, address).and_then(|mut peer| {
                peer.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                script::read(&mut peer, &mut [0; 16])
            });
            let end = eager.map_or_else(|error| script::end_of(&error), |_| End::Eof);
            expect(&format!("{}: end", route.name), end, End::Reset)?;
        }
        Ok(())
    });
}

#[test]
fn blackholed_upstream_meets_the_connect_limit() {
    const LIMIT_MS: u64 = 400;
    let configure = |cell| Setup::new(cell).env("NETRA_CONNECT_TIMEOUT_MS", LIMIT_MS);
    in_every_cell(configure, |world, netra| {
        for address in world.blackhole() {
            let (end, took) = dial(&world.pod, (address, 80).into());
            expect(&format!("{address}: end"), end, End::Reset)?;
            let limit = Duration::from_millis(LIMIT_MS);
            if took < limit - Duration::from_millis(5) || took > limit + Duration::from_secs(2) {
                return Err(format!("{address}: gave up after {took:?}, the limit is {limit:?}"));
            }
        }
        netra.scrape_until("two dials timed out", |s| s.closed("dial_timeout") == 2)?;
        let labels = [("errno", "ETIMEDOUT")];
        expect("ETIMEDOUT", netra.scrape().sum("netra_upstream_connect_failures_total", &labels), 2)
    });
}

/// A blackholed upstream holds up nobody else, also not on the same shard.
#[test]
fn blackholed_upstream_holds_up_nobody() {
    let configure = |cell| Setup::new(cell).env("NETRA_CONNECT_TIMEOUT_MS", 1_500);
    in_every_cell(configure, |world, _| {
        let [blackhole, _] = world.blackhole();
        let stuck: Vec<_> = (0..20)
            .map(|_| script::connect(&world.pod, (blackhole, 80).into()).map_err(|e| e.to_string()))
            .collect::<Result<_, _>>()?;
        let client = vec![Step::Send(b"hi".to_vec()), Step::Receive(2)];
        let server = vec![Step::Receive(2), Step::Send(b"ho".to_vec())];
        let started = Instant::now();
        for route in matrix::routes(world) {
            let script = Script { client: client.clone(), server: server.clone() };
            expect("reply", script.play(route).client.received.as_slice(), b"ho")?;
        }
        drop(stuck);
        let took = started.elapsed();
        if took < Duration::from_millis(1_000) { Ok(()) } else { Err(format!("took {took:?}")) }
    });
}

/// Every address by which netra's port can be reached, from inside the pod and from outside.
fn own_addresses(world: &World) -> Vec<(&Namespace, IpAddr)> {
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9)),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()),
    ];
    let pod = [POD_V4, POD_V6, POD_SECOND_V4, POD_SECOND_V6];
    let inside = loopback.into_iter().chain(pod).map(|address| (&world.pod, address));
    inside.chain(pod.map(|address| (&world.client, address))).collect()
}

fn loops_end_at_once(world: &World, netra: &Netra<'_>) -> Result<(), String> {
    let count = |netra: &Netra<'_>| netra.scrape().sum("netra_loop_rejected_total", &[]);
    let (before, sockets) = (count(netra), procfs::sockets(netra.pid()));
    let doors = own_addresses(world);
    for (from, address) in &doors {
        let (end, took) = dial(from, (*address, PORT).into());
        if !matches!(end, End::Eof | End::Reset) || took > Duration::from_secs(2) {
            return Err(format!("own port by {address}: {end:?} after {took:?}"));
        }
        let storm = procfs::sockets(netra.pid()).saturating_sub(sockets);
        if storm > 8 {
            return Err(format!("own port by {address}: {storm} sockets more than before"));
        }
    }
    expect("rejected", count(netra) - before, doors.len() as u64)?;
    expect("relayed", netra.scrape().opened("inbound") + netra.scrape().opened("outbound"), 0)
}

#[test]
fn own_port_never_loops() {
    in_every_cell(Setup::new, loops_end_at_once);
}

/// The same where no rule is in place, so that the kernel knows no original destination.
#[test]
fn own_port_never_loops_without_rules() {
    let Some(world) = World::new() else { return };
    let mut findings = Findings::default();
    for cell in matrix::cells() {
        let netra = Netra::start(&world, &Setup::new(cell));
        findings.check(cell, loops_end_at_once(&world, &netra));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// The worst dialler of netra's port is netra's own user, whom no rule redirects.
#[test]
fn own_port_dialled_by_its_own_user_never_loops() {
    in_every_cell(Setup::new, |world, netra| {
        let addresses = ["127.0.0.1", "::1", "10.61.0.2", "fd61::2", "10.61.0.3", "fd61::3"];
        for address in addresses {
            let script = format!("exec 3<>/dev/tcp/{address}/{PORT} && timeout 5 cat <&3 | wc -c");
            let mut command = world.pod.command_as("bash", Some(UID), None);
            let output = command.args(["-c", &script]).output().expect("bash");
            let said = String::from_utf8_lossy(&output.stdout);
            expect(&format!("bytes from {address}"), said.trim(), "0")?;
        }
        let rejected = netra.scrape().sum("netra_loop_rejected_total", &[]);
        expect("rejected", rejected, addresses.len() as u64)
    });
}

/// A hundred at a time: no descriptor stays, no CPU burns afterwards.
#[test]
fn own_port_in_a_burst_leaves_nothing() {
    in_every_cell(Setup::new, |world, netra| {
        let dial = |_| script::connect(&world.client, (POD_V4, PORT).into()).ok();
        let peers: Vec<TcpStream> = (0..100).filter_map(dial).collect();
        for mut peer in peers {
            if !matches!(script::read(&mut peer, &mut [0; 1]), Ok(0) | Err(_)) {
                return Err("own port sent a byte".to_owned());
            }
        }
        netra.quiesce()?;
        let calm = || procfs::cpu_during(netra.pid(), Duration::from_millis(300)) < 0.05;
        if wait_until(Duration::from_secs(3), calm) { Ok(()) } else { Err("still busy".to_owned()) }
    });
}

/// Both sockets of an idle connection are watched by keep-alive, so that a peer that lost its power
/// does not stay for ever.
#[test]
fn idle_connections_are_watched() {
    in_every_cell(Setup::new, |world, netra| {
        let route = matrix::routes(world)[0];
        let listener = script::listen(route.server, route.address);
        let address = listener.local_addr().expect("a bound listener");
        let client = script::connect(route.client, address).map_err(|error| error.to_string())?;
        let server = script::accept(&listener).ok_or("nobody came")?;
        let owner = format!("pid={},", netra.pid());
        let timers = || {
            let output = world.pod.command("ss").args(["-Htnop"]).output().expect("ss (iproute2)");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let own = text.lines().filter(|line| line.contains(&owner));
            own.filter(|line| line.contains("timer:(keepalive")).count()
        };
        let watched = wait_until(Duration::from_secs(3), || timers() == 2);
        drop((client, server));
        if watched { Ok(()) } else { Err(format!("{} of 2 sockets have keep-alive", timers())) }
    });
}

/// The start says which driver serves, and it is the one asked for.
#[test]
fn the_driver_asked_for_is_the_one_that_serves() {
    in_every_cell(Setup::new, |_, netra| {
        let Cell { driver, shards } = netra.cell();
        let scrape = netra.scrape();
        for other in Driver::ALL {
            let serves = scrape.sum("netra_io_driver", &[("driver", other.name())]) > 0;
            expect(&format!("netra_io_driver {}", other.name()), serves, other == driver)?;
        }
        let wanted = u64::from(shards) + 1;
        if procfs::threads(netra.pid()) < wanted {
            return Err(format!("fewer than {wanted} threads"));
        }
        for shard in 0..shards {
            scrape.sum("netra_tcp_connections_active", &[("shard", &shard.to_string())]);
        }
        Ok(())
    });
}
