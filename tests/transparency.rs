//! Through netra both peers see what they see without it: every byte, every end, either way, both
//! address families, both drivers, one to four shards.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use support::matrix::{self, Cell, Findings, Route};
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::script::{self, End, Played, Script, Step};
use support::stream::{self, GIB, KIB, MIB, Stream};
use support::world::World;

/// How closely two plays must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    /// Every byte and both ends.
    Exactly,
    /// Both ends; a reset may overtake bytes, so what arrived is a beginning of what was sent.
    EndsAndPrefix,
}

/// Plays `script` directly, where it must end as `expected` says, and then through netra in every
/// cell of the matrix over every route, where it must look the same.
fn transparent(script: &Script, expected: (End, End), compare: Compare) {
    transparent_with(script, expected, compare, &matrix::cells(), Backend::NftNative);
}

fn transparent_with(
    script: &Script,
    expected: (End, End),
    compare: Compare,
    cells: &[Cell],
    backend: Backend,
) {
    let Some(world) = World::new() else { return };
    let routes = matrix::routes(&world);
    let direct = routes.map(|route| script.play(route));
    for (route, played) in routes.iter().zip(&direct) {
        let server = played.server.as_ref().expect("the direct path reaches the server");
        let ends = (&played.client.end, &server.end);
        assert_eq!(ends, (&expected.0, &expected.1), "directly, {}", route.name);
    }
    apply_rules(&world, backend);
    let mut findings = Findings::default();
    for cell in cells {
        let netra = Netra::start(&world, &Setup::new(*cell));
        for (route, direct) in routes.iter().zip(&direct) {
            let played = script.play(*route);
            let verdict = same(direct, &played, script, compare);
            findings.check(format!("{cell} {}", route.name), verdict);
        }
        findings.check(cell, counted(&netra, &routes, 1));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

fn same(direct: &Played, played: &Played, script: &Script, compare: Compare) -> Result<(), String> {
    let (Some(direct_server), Some(server)) = (&direct.server, &played.server) else {
        return Err("nobody reached the server".to_owned());
    };
    let pairs = [
        ("client", &direct.client, &played.client, &script.server),
        ("server", direct_server, server, &script.client),
    ];
    for (who, direct, seen, other) in pairs {
        if direct.end != seen.end {
            return Err(format!("{who}: {:?} directly, {:?} here", direct.end, seen.end));
        }
        let fits = match compare {
            Compare::Exactly => direct.received == seen.received,
            Compare::EndsAndPrefix => sent_by(other).starts_with(&seen.received),
        };
        if !fits {
            let (want, got) = (direct.received.len(), seen.received.len());
            return Err(format!("{who}: received other bytes ({want} directly, {got} here)"));
        }
    }
    Ok(())
}

/// All that these steps put on the wire, streams excepted.
fn sent_by(steps: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in steps {
        match step {
            Step::Send(more) | Step::SendBytewise(more) => bytes.extend_from_slice(more),
            Step::SendUrgent(urgent) => bytes.extend(urgent),
            _ => {}
        }
    }
    bytes
}

/// Netra saw `each` connections on each of the routes, with their direction.
fn counted(netra: &Netra<'_>, routes: &[Route<'_>], each: u64) -> Result<(), String> {
    for direction in ["inbound", "outbound"] {
        let of_it = |route: &&Route<'_>| route.direction == direction;
        let want = routes.iter().filter(of_it).count() as u64 * each;
        let got = netra.scrape().opened(direction);
        if want != got {
            return Err(format!("{want} connections {direction}, netra counted {got}"));
        }
    }
    Ok(())
}

fn bytes(seed: u64, len: u64) -> Vec<u8> {
    stream::random(seed, usize::try_from(len).expect("fits"))
}

const SHORTLY: Duration = Duration::from_millis(150);

#[test]
fn random_binary() {
    let (up, down) = (bytes(11, 300_001), bytes(12, 700_003));
    let client = vec![Step::Send(up.clone()), Step::Receive(down.len()), Step::Finish];
    let server = vec![Step::Receive(up.len()), Step::Send(down), Step::ReceiveToEnd];
    transparent(&Script { client, server }, (End::Open, End::Eof), Compare::Exactly);
}

#[test]
fn bytes_of_value_zero() {
    let client = vec![Step::Send(vec![0; 100_000]), Step::Receive(3), Step::Finish];
    let server = vec![Step::Receive(100_000), Step::Send(vec![0; 3]), Step::ReceiveToEnd];
    transparent(&Script { client, server }, (End::Open, End::Eof), Compare::Exactly);
}

#[test]
fn no_byte_at_all() {
    let client = vec![Step::Finish, Step::ReceiveToEnd];
    let server = vec![Step::ReceiveToEnd];
    transparent(&Script { client, server }, (End::Eof, End::Eof), Compare::Exactly);
}

#[test]
fn server_speaks_first() {
    let greeting = bytes(21, 78);
    let client = vec![Step::Receive(78), Step::Send(b"login".to_vec()), Step::ReceiveToEnd];
    let server = vec![Step::Send(greeting), Step::Receive(5), Step::Send(b"welcome".to_vec())];
    transparent(&Script { client, server }, (End::Eof, End::Open), Compare::Exactly);
}

#[test]
fn client_half_close_then_reply() {
    let reply = bytes(31, 2 * MIB);
    let client = vec![Step::Send(bytes(32, 9_999)), Step::Finish, Step::ReceiveToEnd];
    let server = vec![
        Step::ReceiveToEnd,
        Step::Pause(SHORTLY),
        Step::Send(reply[..5].to_vec()),
        Step::Pause(SHORTLY),
        Step::Send(reply[5..].to_vec()),
    ];
    transparent(&Script { client, server }, (End::Eof, End::Eof), Compare::Exactly);
}

#[test]
fn server_half_close_then_upload() {
    let upload = bytes(41, 2 * MIB);
    let client = vec![
        Step::ReceiveToEnd,
        Step::Pause(SHORTLY),
        Step::Send(upload[..5].to_vec()),
        Step::Pause(SHORTLY),
        Step::Send(upload[5..].to_vec()),
    ];
    let server = vec![Step::Send(bytes(42, 9_999)), Step::Finish, Step::ReceiveToEnd];
    transparent(&Script { client, server }, (End::Eof, End::Eof), Compare::Exactly);
}

#[test]
fn client_resets_an_idle_connection() {
    let client = vec![Step::Send(b"ping".to_vec()), Step::Receive(4), Step::Abort];
    let server = vec![Step::Receive(4), Step::Send(b"pong".to_vec()), Step::ReceiveToEnd];
    transparent(&Script { client, server }, (End::Open, End::Reset), Compare::Exactly);
}

#[test]
fn server_resets_an_idle_connection() {
    let client = vec![Step::Send(b"ping".to_vec()), Step::Receive(4), Step::ReceiveToEnd];
    let server =
        vec![Step::Receive(4), Step::Send(b"pong".to_vec()), Step::Pause(SHORTLY), Step::Abort];
    transparent(&Script { client, server }, (End::Reset, End::Open), Compare::Exactly);
}

#[test]
fn client_resets_amid_its_data() {
    let client = vec![Step::Send(bytes(51, MIB)), Step::Abort];
    let server = vec![Step::Receive(1_000), Step::ReceiveToEnd];
    transparent(&Script { client, server }, (End::Open, End::Reset), Compare::EndsAndPrefix);
}

#[test]
fn server_resets_amid_its_data() {
    let client = vec![Step::Receive(1_000), Step::ReceiveToEnd];
    let server = vec![Step::Send(bytes(52, MIB)), Step::Abort];
    transparent(&Script { client, server }, (End::Reset, End::Open), Compare::EndsAndPrefix);
}

#[test]
fn server_resets_amid_an_upload() {
    let upload = Stream { seed: 53, len: 256 * MIB };
    let client = vec![Step::SendStream(upload)];
    let server = vec![Step::Receive(100_000), Step::Abort];
    // The server reads a fixed part of the stream, which compares exactly.
    transparent(&Script { client, server }, (End::Reset, End::Open), Compare::Exactly);
}

#[test]
fn client_resets_amid_a_download() {
    let download = Stream { seed: 54, len: 256 * MIB };
    let client = vec![Step::Receive(100_000), Step::Abort];
    let server = vec![Step::SendStream(download)];
    transparent(&Script { client, server }, (End::Open, End::Reset), Compare::Exactly);
}

#[test]
fn reset_after_a_half_close() {
    let client = vec![Step::Send(b"last words".to_vec()), Step::Finish, Step::ReceiveToEnd];
    let server = vec![Step::ReceiveToEnd, Step::Pause(SHORTLY), Step::Abort];
    transparent(&Script { client, server }, (End::Reset, End::Eof), Compare::Exactly);
}

#[test]
fn one_byte_segments() {
    let (up, down) = (bytes(61, 2_000), bytes(62, 2_000));
    let client = vec![Step::SendBytewise(up), Step::Receive(2_000), Step::Finish];
    let server = vec![Step::Receive(2_000), Step::SendBytewise(down), Step::ReceiveToEnd];
    transparent(&Script { client, server }, (End::Open, End::Eof), Compare::Exactly);
}

#[test]
fn one_byte_turns() {
    let turn = |n: u8| [Step::Send(vec![n]), Step::Receive(1)];
    let answer = |n: u8| [Step::Receive(1), Step::Send(vec![!n])];
    let client = (0..100).flat_map(turn).collect();
    let server = (0..100).flat_map(answer).chain([Step::ReceiveToEnd]).collect();
    transparent(&Script { client, server }, (End::Open, End::Eof), Compare::Exactly);
}

/// Bulk and single bytes in turn, both ways: each change of pace is a chance to lose or swap bytes
/// where netra changes how it moves them.
#[test]
fn bursts_and_whispers() {
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for round in 0..4 {
        let (burst, whisper) = (bytes(63 + round, MIB + round), bytes(67 + round, 3));
        client.extend([Step::Send(burst.clone()), Step::Receive(1), Step::Send(whisper.clone())]);
        server.extend([Step::Receive(burst.len()), Step::Send(vec![7]), Step::Receive(3)]);
        server.extend([Step::Send(burst.clone()), Step::Pause(SHORTLY / 5), Step::Send(whisper)]);
        client.push(Step::Receive(burst.len() + 3));
    }
    server.push(Step::Finish);
    client.push(Step::ReceiveToEnd);
    transparent(&Script { client, server }, (End::Eof, End::Open), Compare::Exactly);
}

/// The end comes right behind the last byte of a burst to a reader that has not begun.
#[test]
fn end_right_behind_a_burst() {
    let client = vec![Step::Send(bytes(73, 3 * MIB)), Step::Finish, Step::ReceiveToEnd];
    let server = vec![Step::Pause(SHORTLY), Step::ReceiveToEnd, Step::Send(bytes(74, 10))];
    transparent(&Script { client, server }, (End::Eof, End::Eof), Compare::Exactly);
}

/// A reset behind data that the reader has not read yet.
#[test]
fn reset_behind_unread_data() {
    let client = vec![Step::Send(bytes(75, 200_000)), Step::Pause(SHORTLY), Step::Abort];
    let server = vec![Step::Pause(3 * SHORTLY), Step::ReceiveToEnd];
    transparent(&Script { client, server }, (End::Open, End::Reset), Compare::EndsAndPrefix);
}

#[test]
fn rules_by_iptables() {
    let client = vec![Step::Send(bytes(71, MIB)), Step::Finish, Step::ReceiveToEnd];
    let server = vec![Step::ReceiveToEnd, Step::Pause(SHORTLY), Step::Send(bytes(72, MIB))];
    let (script, ends) = (Script { client, server }, (End::Eof, End::Eof));
    let cells = matrix::cells_with(1);
    transparent_with(&script, ends, Compare::Exactly, &cells, Backend::IptablesNft);
}

/// A reader that has not asked for urgent bytes in line does not see them among the others: with
/// netra it sees none at all. Nothing may follow one: no receive and no splice crosses the mark, so
/// a relay that waits for more waits for ever. The first of them on each socket is counted where the
/// driver sees it.
#[test]
fn urgent_byte_is_not_among_the_others() {
    const BULK: usize = 4 * 1024 * 1024;
    let conversations = [
        (b"abc".to_vec(), b"!".to_vec(), b"def".to_vec()),
        (vec![], b"abc!".to_vec(), vec![]),
        (vec![], b"abc!".to_vec(), b"def".to_vec()),
        (vec![3; BULK], b"!".to_vec(), vec![]),
        (vec![3; BULK], b"!".to_vec(), vec![7; 1000]),
    ];
    let script = |(before, urgent, after): &(Vec<u8>, Vec<u8>, Vec<u8>)| {
        let seen = before.len() + urgent.len() - 1 + after.len();
        let mut client = vec![Step::Send(before.clone())];
        client.extend([Step::SendUrgent(urgent.clone()), Step::Send(after.clone())]);
        client.extend([Step::Receive(2), Step::Finish]);
        let server = vec![Step::Receive(seen), Step::Send(b"ok".to_vec()), Step::ReceiveToEnd];
        Script { client, server }
    };
    let Some(world) = World::new() else { return };
    let routes = matrix::routes(&world);
    let play_all = || {
        thread::scope(|scope| {
            let plays = routes.iter().flat_map(|r| conversations.iter().map(move |c| (r, c)));
            let plays = plays.map(|(route, talk)| scope.spawn(move || script(talk).play(*route)));
            let plays: Vec<_> = plays.collect();
            plays.into_iter().map(|play| play.join().expect("a play")).collect::<Vec<_>>()
        })
    };
    let direct = play_all();
    for played in &direct {
        assert_eq!(played.client.received, b"ok", "directly");
    }
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells_with(1) {
        let netra = Netra::start(&world, &Setup::new(cell));
        for (number, (direct, played)) in direct.iter().zip(&play_all()).enumerate() {
            if direct != played {
                let ends = (&played.client.end, played.server.as_ref().map(|seen| &seen.end));
                findings.note(cell, format!("play {number} differs: {ends:?}"));
            }
        }
        let counted = netra.scrape().sum("netra_urgent_dropped_total", &[]);
        if cell.driver == matrix::Driver::Epoll && counted != direct.len() as u64 {
            findings.note(cell, format!("{counted} of {} counted", direct.len()));
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// The same loop inside a glommio executor, which waits elsewhere.
#[cfg(feature = "glommio")]
#[test]
fn hosted_by_glommio() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells().into_iter().filter(|cell| cell.driver == matrix::Driver::IoUring) {
        let netra = Netra::start(&world, &Setup::new(cell).env("NETRA_HOST", "glommio"));
        let stream = |seed| Stream { seed, len: 2 * MIB };
        for route in matrix::routes(&world) {
            findings
                .check(format!("{cell} {}", route.name), exchange(route, 8, stream(1), stream(2)));
        }
        thread::sleep(Duration::from_millis(300));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// Both peers send and receive at once, over `count` connections at once.
fn exchange(route: Route<'_>, count: usize, up: Stream, down: Stream) -> Result<(), String> {
    let listener = script::listen(route.server, route.address);
    let address = listener.local_addr().expect("a bound listener");
    let failures: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(move || match script::connect(route.client, address) {
                    Ok(peer) => duplex(&peer, up, down),
                    Err(error) => Err(format!("connect: {error}")),
                })
            })
            .collect();
        let servers: Vec<_> = (0..count)
            .map_while(|_| script::accept(&listener))
            .map(|peer| scope.spawn(move || duplex(&peer, down, up)))
            .collect();
        let missing = count - servers.len();
        let clients = clients.into_iter().map(|client| client.join().expect("a client's thread"));
        let servers = servers.into_iter().map(|server| server.join().expect("a server's thread"));
        let unserved = (missing > 0).then(|| format!("{missing} connections never arrived"));
        clients.chain(servers).filter_map(Result::err).chain(unserved).collect()
    });
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} of {count} failed, first: {first}", failures.len())),
    }
}

fn duplex(peer: &TcpStream, out: Stream, back: Stream) -> Result<(), String> {
    let (sent, got) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            out.send(&mut &*peer)?;
            peer.shutdown(std::net::Shutdown::Write)
        });
        let got = back.verify(&mut &*peer);
        (writer.join().expect("the writer's thread"), got)
    });
    sent.map_err(|error| format!("send {out:?}: {error}"))?;
    got.map_err(|error| format!("receive {back:?}: {error}"))
}

/// `exchange` in these cells, over all routes, directly first.
fn exchanged(cells: &[Cell], count: usize, up: u64, down: u64) {
    let Some(world) = World::new() else { return };
    let routes = matrix::routes(&world);
    let (up, down) = (Stream { seed: 81, len: up }, Stream { seed: 82, len: down });
    for route in routes {
        exchange(route, count, up, down).unwrap_or_else(|what| panic!("directly: {what}"));
    }
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells {
        let netra = Netra::start(&world, &Setup::new(*cell));
        for route in routes {
            findings.check(format!("{cell} {}", route.name), exchange(route, count, up, down));
        }
        findings.check(cell, counted(&netra, &routes, count as u64));
        findings.check(
            cell,
            carried(&netra, (2 * count as u64) * up.len, (2 * count as u64) * down.len),
        );
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// Netra's own count of the bytes is what went over the wire.
fn carried(netra: &Netra<'_>, request: u64, response: u64) -> Result<(), String> {
    for direction in ["inbound", "outbound"] {
        for (way, want) in [("request", request), ("response", response)] {
            let labels = [("direction", direction), ("way", way)];
            let what = format!("{want} bytes {direction} {way}");
            netra.scrape_until(&what, |scrape| {
                scrape.sum("netra_tcp_bytes_total", &labels) == want
            })?;
        }
    }
    Ok(())
}

#[test]
fn many_connections_at_once() {
    exchanged(&matrix::cells(), 100, 40 * KIB + 1, 100 * KIB + 3);
}

#[test]
fn heavy_64_mib_both_ways_at_once() {
    exchanged(&matrix::cells(), 1, 64 * MIB + 5, 64 * MIB + 7);
}

#[test]
fn heavy_one_gib() {
    let Some(world) = World::new() else { return };
    let script = Script {
        client: vec![Step::ReceiveStream(Stream { seed: 91, len: GIB }), Step::ReceiveToEnd],
        server: vec![Step::SendStream(Stream { seed: 91, len: GIB })],
    };
    let route = matrix::routes(&world)[0];
    assert_eq!(script.play(route).client.end, End::Eof, "directly");
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells_with(2) {
        let netra = Netra::start(&world, &Setup::new(cell));
        let played = script.play(route);
        if played.client.end != End::Eof || !played.client.received.is_empty() {
            findings.note(cell, format!("1 GiB down: {:?}", played.client.end));
        }
        let labels = [("direction", "inbound"), ("way", "response")];
        let count = netra.scrape().sum("netra_tcp_bytes_total", &labels);
        if count != GIB {
            findings.note(cell, format!("netra counted {count} bytes"));
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

#[test]
fn helper_process() {
    support::helper::run();
}
