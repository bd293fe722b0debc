//! Routing: requests go where their header, cookie or request id says, one connection to each
//! place for as long as it stays the same, and the client hears why when that cannot be.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::http::{Edits, head_end};
use support::lockstep::{Peer, Server};
use support::matrix::cells_with;
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::script::End;
use support::sink::Sink;
use support::stage::{OK, Stage, ask, in_cells, serve, to};
use support::talk::PORT;
use support::world::{CLIENT_V4, CLIENT_V6, POD_SECOND_V4, POD_V4, World};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn the_upstream_is_kept_while_the_target_stays() {
    in_cells(
        &cells_with(1),
        |setup| setup,
        |world, netra| {
            let mut stage = Stage::new(world, netra)?;
            let request = ask("/b", &to(8091));
            for number in 1..=3 {
                stage.client.send(&request)?;
                serve(&mut stage.b, &mut stage.client, &request.repeat(number))?;
            }
            stage.original.look();
            let came = (stage.b.peers.len(), stage.original.peers.len());
            // The original destination is dialled when the client comes, and left when it is known
            // that nothing goes there.
            if came != (1, 1) || !stage.original.peers[0].received.is_empty() {
                return Err(format!("connections {came:?}"));
            }
            stage.end()
        },
    );
}

#[test]
fn one_connection_to_one_place_after_another() {
    in_cells(
        &cells_with(1),
        |setup| setup,
        |world, netra| {
            let mut stage = Stage::new(world, netra)?;
            let steps =
                [("", 0), ("b", 8091), ("c", 8092), ("", 0), ("b", 8091), ("b", 8091), ("", 0)];
            let mut sent = [const { Vec::new() }; 3];
            for (number, (place, port)) in steps.into_iter().enumerate() {
                let lines = if port == 0 { String::new() } else { to(port) };
                let request = ask(&format!("/{number}"), &lines);
                stage.client.send(&request)?;
                let Stage { original, b, c, client, .. } = &mut stage;
                let (server, sent) = match place {
                    "b" => (b, &mut sent[1]),
                    "c" => (c, &mut sent[2]),
                    _ => (original, &mut sent[0]),
                };
                sent.extend_from_slice(&request);
                serve(server, client, sent).map_err(|what| format!("step {number}: {what}"))?;
                // The upstream of before the first change is closed; later ones rest, and are there when
                // a request goes to them again.
                if number == 0 {
                    sent.clear();
                }
            }
            let count = |server: &Server| server.peers.len();
            let came = (count(&stage.original), count(&stage.b), count(&stage.c));
            if came != (2, 1, 1) {
                return Err(format!("connections {came:?}"));
            }
            stage.end()
        },
    );
}

/// Answers keep their order: the second place is asked when the first has answered.
#[test]
fn pipelined_requests_to_different_places() {
    in_cells(
        &cells_with(1),
        |setup| setup,
        |world, netra| {
            let mut stage = Stage::new(world, netra)?;
            let asks = [ask("/b", &to(8091)), ask("/c", &to(8092)), ask("/plain", "")];
            stage.client.send(&asks.concat())?;
            stage.b.expect(&asks[0], &Edits::OUTBOUND, usize::MAX)?;
            thread::sleep(Duration::from_millis(50));
            stage.c.look();
            if stage.c.peers.iter().any(|peer| !peer.received.is_empty()) {
                return Err("the second was asked before the first had answered".into());
            }
            serve(&mut stage.b, &mut stage.client, &asks[0])?;
            serve(&mut stage.c, &mut stage.client, &asks[1])?;
            serve(&mut stage.original, &mut stage.client, &asks[2])?;
            stage.client.expect(OK.repeat(3).as_bytes())?;
            stage.end()
        },
    );
}

#[test]
fn cookies_go_before_headers_and_bodies_go_along() {
    in_cells(
        &cells_with(1),
        |setup| setup,
        |world, netra| {
            let mut stage = Stage::new(world, netra)?;
            let body = "x".repeat(300_000);
            let cookie = format!("Cookie: a=b; X-Route=\"svc={CLIENT_V4}:8091\"; c=d\r\n");
            let head = format!(
                "POST /b HTTP/1.1\r\nHost: svc:8080\r\n{}{cookie}Content-Length: {}\r\n\r\n",
                to(8092),
                body.len()
            );
            let request = [head, body].concat();
            let mut at = 0;
            while at < request.len() {
                let piece = &request.as_bytes()[at..request.len().min(at + 10_000)];
                stage.client.send(piece)?;
                stage.b.look();
                at += piece.len();
            }
            serve(&mut stage.b, &mut stage.client, request.as_bytes())?;
            // The client has said that no more will come; its last request is routed and answered.
            let last = ask("/c", &to(8092));
            stage.client.send(&last)?;
            stage.client.finish();
            serve(&mut stage.c, &mut stage.client, &last)?;
            stage.client.expect(OK.repeat(2).as_bytes())?;
            stage.c.last()?.expect_end(End::Eof)?;
            stage.c.last()?.close();
            stage.client.expect_end(End::Eof)?;
            stage.end()
        },
    );
}

/// What an application is asked with a route, it asks with the same one, on whatever shard.
#[test]
fn routes_are_remembered_by_request_id() {
    let cells = [cells_with(1), cells_with(4)].concat();
    in_cells(
        &cells,
        |setup| setup,
        |world, netra| {
            let mut app = Server::listen(&world.pod, POD_V4, PORT);
            for number in 0..12 {
                let route = format!("X-Request-Id: r{number}\r\n{}", to(8091));
                let request = ask("/in", &route);
                let mut client = Peer::connect(&world.client, (POD_V4, PORT).into())?;
                client.send(&request)?;
                while app.peers.len() <= number {
                    app.look();
                }
                let seen = app.expect(&request, &Edits::INBOUND, usize::MAX)?.remove(0);
                // Inbound goes to the application, whatever the route says.
                app.last()?.send(OK.as_bytes())?;
                client.expect(OK.as_bytes())?;
                let mut stage = Stage::new(world, netra)?;
                let asks = ask("/out", &format!("X-Request-Id: r{number}\r\n"));
                stage.client.send(&asks)?;
                let route = format!("other=1.2.3.4,svc={CLIENT_V4}:8091");
                let edits =
                    Edits { remembered: seen.context, route: Some(&route), ..Edits::OUTBOUND };
                stage.b.expect(&asks, &edits, usize::MAX)?;
                stage.b.last()?.send(OK.as_bytes())?;
                stage.client.expect(OK.as_bytes())?;
                client.close();
                app.last()?.close();
                stage.end()?;
            }
            Ok(())
        },
    );
}

/// Whom nobody reaches: the client hears 502 and why, and the connection ends.
#[test]
fn unreachable_places_are_told() {
    let short = |setup: Setup| {
        setup.env("NETRA_CONNECT_TIMEOUT_MS", 400).env("NETRA_HTTP_ROUTING_TARGETS", "*")
    };
    in_cells(&cells_with(1), short, |world, netra| {
        let nowhere = world.blackhole()[0];
        for (target, why) in [
            (format!("{CLIENT_V4}:1"), "Connection refused (os error 111)"),
            (format!("{nowhere}:80"), "Connection timed out (os error 110)"),
            ("no.such.name.invalid:80".into(), "its name cannot be resolved"),
        ] {
            for method in ["GET", "HEAD", "POST"] {
                let before = netra.scrape();
                let mut stage = Stage::new(world, netra)?;
                let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
                let lines = format!("Host: svc\r\nX-Route: svc={target}\r\n");
                // One that was answered before, one that is not, one behind it.
                let first = ask("/first", "");
                stage.client.send(&first)?;
                serve(&mut stage.original, &mut stage.client, &first)?;
                let rest = [format!("{method} / HTTP/1.1\r\n{lines}{body}").into_bytes(), first];
                stage.client.send(&rest.concat())?;
                stage.client.expect_end(End::Eof)?;
                let reason = format!("netra: {target}: {why}\n");
                let wanted = format!(
                    "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n{}",
                    reason.len(),
                    if method == "HEAD" { "" } else { &reason }
                );
                stage.client.expect([OK, &wanted].concat().as_bytes())?;
                stage.end()?;
                let after = netra.scrape();
                let more = |name| after.sum(name, &[]) - before.sum(name, &[]);
                let counted = more("netra_route_unreachable_total");
                if counted != 1 {
                    return Err(format!("{method} {target}: counted {counted}"));
                }
            }
        }
        Ok(())
    });
}

/// Of a name with two addresses the one that answers is reached: behind one that refuses, one that is
/// silent, and across the families, long before the connect limit.
#[test]
fn any_address_of_a_name_is_good() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let [hole_v4, hole_v6] = world.blackhole();
    let hosts = [
        ("refuses.test", POD_SECOND_V4, CLIENT_V4),
        ("silent.test", hole_v4, CLIENT_V4),
        ("silent-six.test", hole_v6, CLIENT_V4),
        ("dead-four.test", hole_v4, CLIENT_V6),
    ];
    let lines = hosts.map(|(name, dead, alive)| format!("{dead} {name}\n{alive} {name}\n"));
    for cell in cells_with(1) {
        let setup = Setup::new(cell)
            .env("NETRA_HTTP_PORTS", PORT)
            .env("NETRA_REPORTER", "none")
            .env("NETRA_HTTP_ROUTING_ENABLED", "true")
            .env("NETRA_HTTP_ROUTING_TARGETS", "*.test:8093")
            .file("/etc/hosts", lines.concat())
            .file("/etc/resolv.conf", "nameserver 127.0.0.1\n");
        let netra = Netra::start(&world, &setup);
        for (name, _, alive) in hosts {
            let mut stage = Stage::new(&world, &netra).expect("the stage");
            let mut there = Server::listen(&world.client, alive, 8093);
            let request = ask("/b", &format!("X-Route: svc={name}:8093\r\n"));
            let begun = Instant::now();
            stage.client.send(&request).expect("sent");
            serve(&mut there, &mut stage.client, &request)
                .unwrap_or_else(|what| panic!("{cell} {name}: {what}"));
            let took = begun.elapsed();
            assert!(took < Duration::from_millis(900), "{cell} {name}: {took:?}");
            there.last().expect("it was reached").close();
            stage.end().expect("the end");
        }
        let further = netra.scrape().sum("netra_route_next_address_total", &[]);
        // Where the living address is of the first family, the dead one is not tried at all.
        assert_eq!(further, 3, "{cell}");
        netra.finish().expect("no leak");
    }
}

/// A name server on the pod's loopback that knows one name, for a second; how often it was asked.
fn name_server(world: &World) -> Arc<AtomicUsize> {
    let socket = world.pod.enter(|| UdpSocket::bind((LOOPBACK, 53))).expect("port 53");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let query = &bytes[..len];
            let name_len = query[12..].iter().position(|byte| *byte == 0).unwrap_or(0);
            let question = &query[12..12 + name_len + 5];
            let is_known = &question[..name_len] == b"\x03svc\x04test";
            let is_v4 = question[name_len + 2] == 1;
            let found = is_known && is_v4;
            count.fetch_add(usize::from(found), Ordering::Relaxed);
            // An answer; NXDOMAIN for what is not known.
            let flags = [0x81, if is_known { 0x80 } else { 0x83 }];
            let counts = [0, 1, 0, u8::from(found), 0, 0, 0, 0];
            let mut answer = [&query[..2], &flags, &counts, question].concat();
            if found {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 61, 0, 1]);
            }
            drop(socket.send_to(&answer, from));
        }
    });
    asked
}

#[test]
fn names_come_from_the_name_server_and_the_hosts_file() {
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n{CLIENT_V4} of.hosts\n");
    let prepare = move |setup: Setup| {
        setup.file("/etc/hosts", &hosts).file("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    };
    let asked = std::sync::OnceLock::new();
    in_cells(&cells_with(1), prepare, |world, netra| {
        let asked = asked.get_or_init(|| name_server(world));
        let before = asked.load(Ordering::Relaxed);
        for name in ["svc.test", "of.hosts", "svc.test"] {
            let mut stage = Stage::new(world, netra)?;
            let request = ask("/b", &format!("X-Route: svc={name}:8091\r\n"));
            stage.client.send(&request)?;
            serve(&mut stage.b, &mut stage.client, &request)
                .map_err(|what| format!("{name}: {what}"))?;
            stage.end()?;
        }
        let within = asked.load(Ordering::Relaxed) - before;
        thread::sleep(Duration::from_millis(1300));
        let mut stage = Stage::new(world, netra)?;
        let request = ask("/b", "X-Route: svc=svc.test:8091\r\n");
        stage.client.send(&request)?;
        serve(&mut stage.b, &mut stage.client, &request)?;
        stage.end()?;
        let after = asked.load(Ordering::Relaxed) - before;
        // Once, remembered for its TTL of a second, and once more.
        if (within, after) == (1, 2) { Ok(()) } else { Err(format!("asked {within}, {after}")) }
    });
}

/// What is not routed HTTP passes in routing mode as well, and nothing is left behind.
#[test]
fn everything_else_passes_in_routing_mode() {
    in_cells(
        &cells_with(2),
        |setup| setup,
        |world, netra| {
            for number in 0..60 {
                let mut stage = Stage::new(world, netra)?;
                let bytes: &[u8] = match number % 3 {
                    0 => b"",
                    1 => b"FOO\r\n\r\n",
                    _ => b"\x16\x03\x01",
                };
                stage.client.send(bytes)?;
                stage.original.last()?.expect(bytes)?;
                stage.original.last()?.send(b"raw")?;
                stage.client.expect(b"raw")?;
                stage.end()?;
            }
            Ok(())
        },
    );
}

/// A routed request's span names whom it went to.
#[test]
fn spans_name_the_place() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    for cell in cells_with(1) {
        let setup = sink
            .wire(Setup::new(cell))
            .env("NETRA_HTTP_PORTS", PORT)
            .env("NETRA_HTTP_ROUTING_ENABLED", "true");
        let netra = Netra::start(&world, &setup);
        let mut stage = Stage::new(&world, &netra).expect("the stage");
        for (port, place) in [(8091, &mut stage.b), (8092, &mut stage.c)] {
            let request = ask("/x", &to(port));
            stage.client.send(&request).expect("sent");
            serve(place, &mut stage.client, &request).expect("served");
            assert_eq!(head_end(&place.peers[0].received), Some(place.peers[0].received.len()));
            let span = sink.take(1).expect("a span").remove(0);
            assert_eq!(span.tag("remote_addr"), format!("{CLIENT_V4}:{port}"));
        }
        stage.end().expect("the end");
        netra.finish().expect("no leak");
    }
}
