//! Desync safety: where two parsers could read a message differently, netra inserts nothing that
//! any of them could take for a body or a request of its own, and forwards the bytes as they came.
//! And hostile input costs a bounded amount of memory.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::time::Duration;
use support::lockstep::{Peer, Server};
use support::matrix::{Cell, Findings, cells_with};
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::sink::Sink;
use support::stream::{KIB, MIB};
use support::talk::{PORT, Talk, client, play_in, server};
use support::world::{POD_V4, World};
use support::{procfs, wait_until};

const GET: &str = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GOOD: (u16, bool) = (200, false);

/// Lines of a head that make it doubtful, and for which reason.
const HEADS: &[(&str, &str)] = &[
    ("both_lengths", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
    ("both_lengths", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
    ("repeated_content_length", "Content-Length: 4\r\nContent-Length: 5\r\n"),
    ("repeated_content_length", "Content-Length: 4\r\ncontent-length: 4\r\n"),
    ("bad_content_length", "Content-Length: 4, 4\r\n"),
    ("bad_content_length", "Content-Length: +4\r\n"),
    ("bad_content_length", "Content-Length: -1\r\n"),
    ("bad_content_length", "Content-Length: 0x4\r\n"),
    ("bad_content_length", "Content-Length: 4 4\r\n"),
    ("bad_content_length", "Content-Length:\r\n"),
    ("huge_content_length", "Content-Length: 9223372036854775808\r\n"),
    ("huge_content_length", "Content-Length: 99999999999999999999999999\r\n"),
    ("odd_transfer_encoding", "Transfer-Encoding: gzip, chunked\r\n"),
    ("odd_transfer_encoding", "Transfer-Encoding: chunked, identity\r\n"),
    ("odd_transfer_encoding", "Transfer-Encoding: xchunked\r\n"),
    ("odd_transfer_encoding", "Transfer-Encoding: \"chunked\"\r\n"),
    ("odd_transfer_encoding", "Transfer-Encoding:\r\n"),
    ("odd_transfer_encoding", "Transfer-Encoding: chunked;q=1\r\n"),
    ("repeated_transfer_encoding", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    ("space_before_colon", "Transfer-Encoding : chunked\r\n"),
    ("space_before_colon", "Content-Length\t: 4\r\n"),
    ("obs_fold", "X-Fold: a\r\n Transfer-Encoding: chunked\r\n"),
    ("obs_fold", "Transfer-Encoding:\r\n chunked\r\n"),
    ("bare_lf", "X: y\nTransfer-Encoding: chunked\r\n"),
    ("bare_cr", "X: y\rTransfer-Encoding: chunked\r\n"),
    ("nul", "X: a\0b\r\n"),
    ("nul", "Transfer-Encoding: chunked\0\r\n"),
    ("bad_field", "No colon here\r\n"),
    ("bad_field", ": no name\r\n"),
    ("bad_field", "Bad[Name]: x\r\n"),
    ("odd_framing_name", "Transfer_Encoding: chunked\r\n"),
    ("odd_framing_name", "Content_Length: 4\r\n"),
];

fn play(talks: &[Talk]) {
    play_in(&cells_with(1), talks);
}

fn head_with(lines: &str) -> String {
    format!("POST /doubt HTTP/1.1\r\nHost: a\r\n{lines}\r\n4\r\nbody\r\n0\r\n\r\n{SMUGGLED}")
}

#[test]
fn doubtful_heads_pass_as_they_came() {
    let talk = |(reason, lines): &(&'static str, &str)| {
        let turns = vec![client(head_with(lines)), server(OK), client(SMUGGLED), server("x")];
        Talk::new(lines, turns, &[]).opaque(0, reason)
    };
    play(&HEADS.iter().map(talk).collect::<Vec<_>>());
}

#[test]
fn doubtful_heads_behind_good_ones() {
    let talk = |(reason, lines): &(&'static str, &str)| {
        let asks = [GET, &head_with(lines)].concat();
        let turns = vec![client(asks), server(OK), server(OK), client(SMUGGLED)];
        Talk::new(lines, turns, &[GOOD]).opaque(1, reason)
    };
    play(&HEADS.iter().map(talk).collect::<Vec<_>>());
}

#[test]
fn doubtful_first_lines_pass_as_they_came() {
    let rows = [
        ("bad_version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        ("bad_version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (
            "transfer_encoding_in_http10",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("odd_method", "head / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("odd_method", "Connect a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
        ("connect_with_body", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 4\r\n\r\nbody"),
        ("leading_empty_lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("bare_lf", "GET / HTTP/1.1\nHost: a\n\n"),
        ("nul", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    let talks = rows.map(|(reason, ask)| {
        let turns = vec![client([ask, SMUGGLED].concat()), server(OK), client(SMUGGLED)];
        Talk::new(ask, turns, &[]).opaque(0, reason)
    });
    play(&talks);
}

/// The head went on with its lines; from the doubt on, bytes are bytes.
#[test]
fn doubtful_chunks_pass_as_they_came() {
    let rows = [
        ("huge_chunk", "8000000000000000\r\nx"),
        ("huge_chunk", "00000000000000001\r\nx\r\n0\r\n\r\n"),
        ("huge_chunk", "fffffffffffffffff\r\nx"),
        ("bad_chunk_size", "-1\r\nx\r\n"),
        ("bad_chunk_size", "+1\r\nx\r\n"),
        ("bad_chunk_size", "0x1\r\nx\r\n"),
        ("bad_chunk_size", "\r\nx\r\n"),
        ("bad_chunk_size", " 1\r\nx\r\n0\r\n\r\n"),
        ("bad_chunk_size", "1_0\r\nx\r\n"),
        ("bad_chunk_end", "1\r\nxy\r\n0\r\n\r\n"),
        ("bad_chunk_end", "1\r\nx\n0\r\n\r\n"),
        ("bare_lf", "1\nx\r\n0\r\n\r\n"),
        ("bare_cr", "1\rx\r\n0\r\n\r\n"),
        ("bad_chunk_extension", "1;a=\"\0\"\r\nx\r\n0\r\n\r\n"),
        ("bad_chunk_extension", "1;a=\"open\r\nx\r\n0\r\n\r\n"),
        ("bare_lf", "1;a\nb\r\nx\r\n0\r\n\r\n"),
        ("bad_trailer", "0\r\nno colon\r\n\r\n"),
        ("bare_lf", "0\r\nX: y\n\r\n"),
    ];
    let talks = rows.map(|(reason, body)| {
        let ask = "POST /doubt HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let turns =
            vec![client([ask, body].concat()), client(SMUGGLED), server(OK), client(SMUGGLED)];
        Talk::new(body, turns, &[GOOD]).opaque(1, reason)
    });
    play(&talks);
}

#[test]
fn doubtful_responses_pass_as_they_came() {
    let rows = [
        (
            "both_lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            0,
        ),
        (
            "repeated_content_length",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            0,
        ),
        (
            "odd_transfer_encoding",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            0,
        ),
        (
            "transfer_encoding_in_http10",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            0,
        ),
        ("bare_lf", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0),
        ("obs_fold", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", 0),
        ("bad_status_line", "HTTP/1.1 2000 OK\r\n\r\n", 0),
        ("bad_chunk_size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 200),
    ];
    let talks = rows.map(|(reason, answer, status)| {
        let turns = vec![client(GET), server(answer), client(SMUGGLED), server(OK)];
        Talk::new(answer, turns, &[(status, false)]).opaque(1, reason)
    });
    play(&talks);
}

#[test]
fn long_heads_and_extensions_pass_beyond_their_limits() {
    let line = format!("X: {}\r\n", "v".repeat(1 << 20));
    let many: String = (0..10_000).map(|n| format!("X-{n}: y\r\n")).collect();
    let some: String = (0..300).map(|n| format!("X-{n}: y\r\n")).collect();
    let head = |lines: &str| format!("GET /long HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let chunks = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let raw = |name: &str, reason, bytes: String| {
        let turns = vec![client(bytes), server(OK), client(SMUGGLED), server("x")];
        Talk::new(name, turns, &[]).opaque(0, reason)
    };
    let within = head(&format!("X: {}\r\n", "v".repeat(60_000)));
    play(&[
        raw("a line of 1 MiB", "head_too_long", head(&line)),
        raw("10,000 lines", "too_many_fields", head(&many)),
        raw("300 lines", "too_many_fields", head(&some)),
        Talk::new("a head of 60,000 bytes", vec![client(within), server(OK)], &[GOOD]),
        Talk::new(
            "extensions without end",
            vec![
                client([chunks, "1;", &"e".repeat(1 << 20)].concat()),
                client(SMUGGLED),
                server(OK),
            ],
            &[GOOD],
        )
        .opaque(1, "chunk_extensions_too_long"),
        Talk::new(
            "an extension on every chunk",
            vec![client([chunks, &"1;eeeeeeee\r\nx\r\n".repeat(9000)].concat()), server(OK)],
            &[GOOD],
        )
        .opaque(1, "chunk_extensions_too_long"),
        Talk::new(
            "trailers without end",
            vec![client([chunks, "0\r\n", &"X: yyyyyyyy\r\n".repeat(9000)].concat()), server(OK)],
            &[GOOD],
        )
        .opaque(1, "trailers_too_long"),
    ]);
}

/// Hundreds of heads that never end, sent piece by piece: memory stays within the limit, what is
/// beyond it is relayed and counted, and others are served meanwhile.
#[test]
fn heads_without_end_on_many_connections() {
    const PEERS: usize = 500;
    const EACH: usize = 60_000;
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let mut findings = Findings::default();
    for cell in cells_with(1) {
        findings.check(cell, flood(&world, &sink, cell, PEERS, EACH));
    }
    findings.conclude();
}

fn flood(world: &World, sink: &Sink, cell: Cell, count: usize, each: usize) -> Result<(), String> {
    let setup = sink.wire(Setup::new(cell)).env("NETRA_HTTP_PORTS", PORT);
    let netra = Netra::start(world, &setup);
    let before = procfs::rss_anon(netra.pid());
    let mut app = Server::listen(&world.pod, POD_V4, PORT);
    let mut peers = Vec::new();
    for _ in 0..count {
        let mut peer = Peer::connect(&world.client, (POD_V4, PORT).into())?;
        peer.send(b"GET /endless HTTP/1.1\r\nHost: a\r\nX: ")?;
        app.look();
        peers.push(peer);
    }
    let piece = vec![b'v'; 6_000];
    for _ in 0..each / piece.len() {
        peers.iter_mut().try_for_each(|peer| peer.send(&piece))?;
        app.look();
    }
    // So many bytes are held; the storage for them grows by doubling.
    let limit = 16 * MIB;
    let mut grown = 0;
    let opaque = [("reason", "held_too_much")];
    let (mut relayed, sent) = (0, count * each);
    let head = b"GET /endless HTTP/1.1\r\nHost: a\r\nX: ".len();
    let has_settled = wait_until(Duration::from_secs(20), || {
        app.look();
        grown = grown.max(procfs::rss_anon(netra.pid()).saturating_sub(before));
        relayed = app.peers.iter().map(|peer| peer.received.len()).sum();
        let held = usize::try_from(netra.scrape().sum("netra_held_bytes", &[])).unwrap_or(0);
        relayed + held == sent + count * head
    });
    let counted = netra.scrape().sum("netra_opaque_total", &opaque);
    eprintln!("[{cell}] {} KiB for {sent} bytes, {relayed} relayed", grown / KIB);
    let has_counted = has_settled && counted > 0;
    if !has_counted || relayed == 0 || grown > 3 * limit {
        return Err(format!("counted {has_counted}, {relayed} relayed, {} KiB", grown / KIB));
    }
    // Somebody else is served as ever.
    let talk = Talk::new("another", vec![client(GET), server(OK)], &[GOOD]);
    let mut other = Peer::connect(&world.client, (POD_V4, PORT).into())?;
    let known = app.peers.len();
    other.send(GET.as_bytes())?;
    let arrived = wait_until(Duration::from_secs(5), || {
        app.look();
        app.peers.len() > known && app.peers[known].received.ends_with(b"\r\n\r\n")
    });
    if !arrived {
        return Err("another request does not get through".into());
    }
    app.peers[known].send(OK.as_bytes())?;
    other.expect(OK.as_bytes())?;
    // What was held comes out when its client ends.
    peers.iter_mut().for_each(Peer::finish);
    let whole = wait_until(Duration::from_secs(10), || {
        app.look();
        let here = app.peers.iter().map(|peer| peer.received.len()).sum::<usize>();
        here >= sent + count * head
    });
    if !whole {
        return Err("bytes are missing after the clients' end".into());
    }
    drop((peers, other, app));
    netra.scrape_until("nothing is held", |scrape| {
        scrape.active() == 0 && scrape.sum("netra_held_bytes", &[]) == 0
    })?;
    sink.clear();
    talk.play(world, &netra, sink)?;
    netra.finish()
}
