//! The edge cases of HTTP/1: through netra both peers see every byte at once, spans belong to
//! their requests, and what is no longer HTTP passes as bytes, counted by its reason.
//!
//! Conversations run in lockstep (`support/lockstep.rs`): after each turn all that was sent must
//! have arrived, so that every one of them is also a test that nothing is withheld.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use support::matrix::cells_with;
use support::stream;
use support::talk::Turn::{
    ClientAborts, ClientCloses, ClientFinishes, ServerAborts, ServerCloses, ServerFinishes,
};
use support::talk::{Talk, Turn, client, play_in, server};

const GET: &str = "GET /get HTTP/1.1\r\nHost: a\r\n\r\n";
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
const CHUNKED: &str = "PUT /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
                       Trailer: X-T\r\n\r\n4;ext=\"a;b\"\r\nwiki\r\n5\r\npedia\r\n0\r\nX-T: v\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const OK_CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n\
                          3;q=2\r\ndef\r\n0\r\nX-RT: w\r\n\r\n";
const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\n\r\n";

const GOOD: (u16, bool) = (200, false);

fn play(talks: &[Talk]) {
    play_in(&cells_with(1), talks);
}

#[test]
fn responses_without_a_body_do_not_stall() {
    let bare = |name: &str, ask: &str, answer: &str, status| {
        let turns = vec![client(ask), server(answer), client(NEXT), server(OK)];
        Talk::new(name, turns, &[(status, false), GOOD])
    };
    play(&[
        bare("HEAD with a length", HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", 200),
        bare("HEAD chunked", HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        bare("HEAD without a length", HEAD, "HTTP/1.1 404 No\r\nX: y\r\n\r\n", 404),
        bare("204", GET, "HTTP/1.1 204 No Content\r\n\r\n", 204),
        bare("204 with a length", GET, "HTTP/1.1 204 N\r\nContent-Length: 7\r\n\r\n", 204),
        bare("304 with a length", GET, "HTTP/1.1 304 N\r\nContent-Length: 99\r\n\r\n", 304),
        bare("304 chunked", GET, "HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n", 304),
        bare("200 of no bytes", GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        bare("no reason phrase", GET, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200),
        bare("5xx", GET, "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", 404),
    ]);
}

#[test]
fn interim_responses_belong_to_their_exchange() {
    let expect = "POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let (hundred, hints) =
        ("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n");
    play(&[
        Talk::new(
            "100, then 200",
            vec![
                client(expect),
                server(hundred),
                client("body"),
                server(OK),
                client(NEXT),
                server(OK),
            ],
            &[GOOD, GOOD],
        ),
        Talk::new(
            "100 again and again, 103, then 500",
            vec![
                client(expect),
                server(hundred),
                server([hundred, hundred].concat()),
                client("body"),
                server([hints, "HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n"].concat()),
                client(NEXT),
                server(OK),
            ],
            &[(500, true), GOOD],
        ),
        Talk::new(
            "refused without 100",
            vec![client(expect), server("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")],
            &[(417, false)],
        ),
        Talk::new(
            "103 before the request's end",
            vec![client(&POST[..POST.len() - 2]), server(hints), client("dy"), server(OK)],
            &[GOOD],
        ),
    ]);
}

#[test]
fn tunnels_and_upgrades() {
    let connect = "CONNECT x.y:443 HTTP/1.1\r\nHost: x.y:443\r\n\r\n";
    let frames = vec![client(WEBSOCKET), server(SWITCHED), client("\x01hi"), server("\x01HI")];
    play(&[
        Talk::new(
            "CONNECT",
            vec![
                client(connect),
                server("HTTP/1.1 200 Established\r\nContent-Length: 5\r\n\r\n"),
                server("220 banner\r\n"),
                client("GET / HTTP/1.1\r\n\r\n"),
                server("x"),
                ClientFinishes,
                server("late"),
            ],
            &[GOOD],
        )
        .opaque(1, "connected"),
        Talk::new(
            "CONNECT refused",
            vec![client(connect), server("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"), client(GET), server(OK)],
            &[(403, false), GOOD],
        ),
        Talk::new("websocket", frames, &[(101, false)]).opaque(1, "upgraded"),
        Talk::new(
            "101 with the first frame behind it",
            vec![client(WEBSOCKET), server([SWITCHED, "\x01frame"].concat()), client("\x01hi")],
            &[(101, false)],
        )
        .opaque(1, "upgraded"),
        Talk::new(
            "Connection in two lines",
            vec![
                client("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nconnection: UPGRADE\r\nUpgrade: x\r\n\r\n"),
                server(SWITCHED),
                server("frame"),
            ],
            &[(101, false)],
        )
        .opaque(1, "upgraded"),
        Talk::new(
            "upgrade refused",
            vec![client(WEBSOCKET), server(OK), client(POST), server(OK_CHUNKED), client(GET), server(OK)],
            &[GOOD, GOOD, GOOD],
        ),
        Talk::new(
            "bytes before the answer to an upgrade",
            vec![client([WEBSOCKET, GET].concat()), server([OK, OK].concat())],
            &[GOOD],
        )
        .opaque(1, "early_after_upgrade"),
    ]);
}

#[test]
fn pipelines_keep_their_order() {
    let asks = [GET, HEAD, POST, CHUNKED, NEXT].concat();
    let bare = "HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n";
    let answers =
        [OK, bare, "HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n", OK_CHUNKED, OK].concat();
    let spans = [GOOD, GOOD, (500, true), GOOD, GOOD];
    let mut talks = vec![
        Talk::new("all at once", vec![client(&asks), server(&answers)], &spans),
        Talk::new("outbound", vec![client(&asks), server(&answers)], &spans).outbound(),
        Talk::new(
            "answered before the next is whole",
            vec![
                client(&asks[..GET.len() + 9]),
                server(OK),
                client(&asks[GET.len() + 9..]),
                server(&answers[OK.len()..]),
            ],
            &spans,
        ),
        Talk::new(
            "31 in flight",
            vec![client(GET.repeat(31)), server(OK.repeat(30)), server(OK)],
            &[GOOD; 31],
        ),
    ];
    // One more than netra follows: what is beyond goes as it came.
    let deep =
        Talk::new("40 in flight", vec![client(GET.repeat(40)), server(OK.repeat(40))], &[GOOD; 32]);
    talks.push(deep.opaque(32, "pipeline_too_deep"));
    play(&talks);
}

#[test]
fn bodies_pass_as_they_came() {
    let get_chunked =
        "GET /g HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    play(&[
        Talk::new(
            "GET with chunks",
            vec![client(get_chunked), server(OK), client(NEXT), server(OK)],
            &[GOOD, GOOD],
        ),
        Talk::new(
            "extensions and trailers",
            vec![client(CHUNKED), server(OK_CHUNKED), client(NEXT), server(OK)],
            &[GOOD, GOOD],
        ),
        Talk::new(
            "until the close, HTTP/1.0",
            vec![
                client("GET /10 HTTP/1.0\r\n\r\n"),
                server("HTTP/1.0 200 OK\r\n\r\nsome"),
                server(" more"),
                ServerCloses,
            ],
            &[GOOD],
        ),
        Talk::new(
            "keep-alive in HTTP/1.0",
            vec![
                client("GET /10 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
                server("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
                client(NEXT),
                server(OK),
            ],
            &[GOOD, GOOD],
        ),
        Talk::new(
            "the client ends first",
            vec![
                client(POST),
                ClientFinishes,
                server("HTTP/1.1 200 OK\r\n\r\nuntil"),
                server(" the close"),
                ServerCloses,
            ],
            &[GOOD],
        ),
        Talk::new(
            "the client ends within its body",
            vec![
                client(&POST[..POST.len() - 1]),
                ClientFinishes,
                server("HTTP/1.1 400 Short\r\nContent-Length: 0\r\n\r\n"),
                ServerCloses,
            ],
            &[(400, false)],
        ),
        Talk::new("the client ends within its head", vec![client(GET), server(OK)], &[GOOD]),
    ]);
}

#[test]
fn targets_and_values_pass_as_they_came() {
    let ask = |name: &str, head: &str| {
        Talk::new(name, vec![client(head), server(OK), client(NEXT), server(OK)], &[GOOD, GOOD])
    };
    play(&[
        ask("absolute form", "GET http://b:81/abs?q#f HTTP/1.1\r\nHost: a\r\n\r\n"),
        ask("asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ask("UTF-8", "GET /пр%D0%B8?в=ет HTTP/1.1\r\nHost: a\r\nX-Utf: при\r\n\r\n"),
        ask("bad escape", "GET /a%zz%2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ask("no host", "GET /nh HTTP/1.1\r\nX: y\r\n\r\n"),
        ask("no header at all", "GET /none HTTP/1.1\r\n\r\n"),
        ask("an empty line before", "\r\nGET /l HTTP/1.1\r\nHost: a\r\n\r\n"),
        ask(
            "odd spacing of values",
            "GET /s HTTP/1.1\r\nHost:a\r\nA:  b\t \r\nEmpty:\r\nE2: \r\n\r\n",
        ),
        ask("a method of its own", "PROPFIND /p HTTP/1.1\r\nHost: a\r\n\r\n"),
        ask(
            "hop by hop",
            "GET /h HTTP/1.1\r\nHost: a\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nTE: trailers\r\nPragma: no-cache\r\n\r\n",
        ),
    ]);
}

#[test]
fn what_is_not_http_passes_both_ways_at_once() {
    let hello = "\x16\x03\x01\x00\x10AAAA";
    let raw = |name: &str, reason, turns: Vec<_>| Talk::new(name, turns, &[]).opaque(0, reason);
    play(&[
        raw(
            "the server speaks first",
            "server_first",
            vec![server("220 banner\r\n"), client("HELO x\r\n"), server("250 ok\r\n")],
        ),
        raw("TLS", "tls", vec![client(hello), server("\x16\x03\x03\x00\x02ok"), client("more")]),
        Talk::new(
            "HTTP/2",
            vec![
                client("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
                server("\0\0\0\x04\0\0\0\0\0"),
            ],
            &[],
        )
        .raw(),
        raw("binary", "not_http", vec![client([0, 1, 2]), server([3]), client([b'\n'; 70_000])]),
        raw("one word", "not_http", vec![client("PING\r\n"), server("PONG\r\n")]),
        Talk::new(
            "HTTP, then binary",
            vec![client(GET), server(OK), client("\0\x01BAD\r\n\r\nTAIL"), server("raw")],
            &[GOOD],
        )
        .opaque(1, "not_http"),
        Talk::new(
            "pipelined with what is none",
            vec![client([GET, "BAD\r\n\r\nTAIL"].concat()), server(OK), server("raw")],
            &[GOOD],
        )
        .opaque(1, "not_http"),
        Talk::new(
            "a response that is none",
            vec![client(GET), server("NOT HTTP\r\n\r\nx"), client("y")],
            &[(0, false)],
        )
        .opaque(1, "bad_status_line"),
        Talk::new(
            "a response that nobody asked for",
            vec![client(GET), server([OK, OK].concat()), client(NEXT)],
            &[GOOD],
        )
        .opaque(1, "response_without_request"),
    ]);
}

#[test]
fn exchanges_that_are_cut_short() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    let big = "POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let body = "x".repeat(200_000);
    let early = "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    play(&[
        Talk::new(
            "413 while the body is coming",
            vec![client(big), client(&body), server(early), client(&body), ServerCloses],
            &[(413, false)],
        ),
        Talk::new(
            "the server ends within its body",
            vec![client(GET), server(half), ServerCloses],
            &[(200, true)],
        ),
        Talk::new(
            "the server says that no more will come",
            vec![client(GET), server(half), ServerFinishes],
            &[(200, true)],
        ),
        Talk::new(
            "the server ends within a chunk",
            vec![client(GET), server(&OK_CHUNKED[..OK_CHUNKED.len() - 9]), ServerCloses],
            &[(200, true)],
        ),
        Talk::new("no answer", vec![client(GET), ServerCloses], &[(0, true)]),
        Talk::new(
            "no answer to two",
            vec![client([GET, NEXT].concat()), ServerCloses],
            &[(0, true), (0, true)],
        ),
        Talk::new(
            "the server resets within its body",
            vec![client(GET), server(half), ServerAborts],
            &[(200, true)],
        ),
        Talk::new(
            "the server resets within the request",
            vec![client(big), client(&body), ServerAborts],
            &[(0, true)],
        ),
        Talk::new(
            "the client resets",
            vec![client(GET), server(half), ClientAborts],
            &[(200, true)],
        ),
        Talk::new(
            "the client goes without an answer",
            vec![client(GET), ClientCloses],
            &[(0, true)],
        ),
    ]);
}

#[test]
fn requests_split_at_every_offset() {
    let asks = [POST, CHUNKED, GET].concat();
    let cut = |at: usize| {
        let turns = vec![client(&asks[..at]), client(&asks[at..]), server(OK.repeat(3))];
        Talk::new(format!("cut at {at}"), turns, &[GOOD; 3])
    };
    play(&(1..asks.len()).map(cut).collect::<Vec<_>>());
}

/// Every byte is in the client's hands before the server sends the next.
#[test]
fn responses_byte_by_byte() {
    let answers = [
        ("length", OK, 1),
        ("chunks", OK_CHUNKED, 1),
        (
            "interim",
            "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
            1,
        ),
        ("two", &[OK, OK_CHUNKED].concat(), 2),
        ("until the close", "HTTP/1.1 200 OK\r\n\r\nbody", 1),
    ];
    let talks = answers.map(|(name, answer, count)| {
        let mut turns = vec![client(GET.repeat(count))];
        turns.extend(answer.bytes().map(|byte| server([byte])));
        turns.push(ServerCloses);
        let status = if name == "interim" { 204 } else { 200 };
        Talk::new(name, turns, &vec![(status, false); count])
    });
    play(&talks);
}

/// And every byte of a body in the server's before the client sends the next.
#[test]
fn request_bodies_byte_by_byte() {
    let talks = [POST, CHUNKED].map(|ask| {
        let head = ask.find("\r\n\r\n").expect("an empty line") + 4;
        let mut turns = vec![client(&ask[..head])];
        turns.extend(ask.as_bytes()[head..].iter().map(|byte| client([*byte])));
        turns.push(server(OK));
        Talk::new(&ask[..8], turns, &[GOOD])
    });
    play(&talks);
}

/// Requests and answers of every kind in any order, pipelined to any depth and cut anywhere, in
/// both directions; each seed is a conversation that can be played again.
#[test]
fn mixes_of_everything() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: </a>\r\n\r\n";
    let kinds: [(&str, &[(&str, u16)]); 4] = [
        (
            GET,
            &[(OK, 200), (OK_CHUNKED, 200), ("HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n", 304)],
        ),
        (HEAD, &[("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", 200)]),
        (POST, &[("HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n", 500), (OK, 200)]),
        (CHUNKED, &[("HTTP/1.1 204 N\r\n\r\n", 204), (OK_CHUNKED, 200)]),
    ];
    let talks = (0..40).map(|seed| {
        let mut dice = stream::random(seed, 400).into_iter().map(usize::from);
        let mut roll = |below: usize| dice.next().expect("dice enough") % below;
        let (mut turns, mut spans) = (Vec::new(), Vec::new());
        for _ in 0..=roll(3) {
            let (mut asks, mut answers) = (String::new(), String::new());
            for _ in 0..=roll(6) {
                let (ask, choices) = kinds[roll(kinds.len())];
                let (answer, status) = choices[roll(choices.len())];
                let before = if roll(4) == 0 { interim } else { "" };
                asks += ask;
                answers = [&answers, before, answer].concat();
                spans.push((status, status >= 500));
            }
            let mut cut = |text: &str, turn: fn(&[u8]) -> Turn| {
                let mut rest = text.as_bytes();
                while !rest.is_empty() {
                    let at = (1 + roll(256) * roll(4)).min(rest.len());
                    turns.push(turn(&rest[..at]));
                    rest = &rest[at..];
                }
            };
            cut(&asks, |bytes| client(bytes));
            cut(&answers, |bytes| server(bytes));
        }
        let talk = Talk::new(format!("seed {seed}"), turns, &spans);
        if seed % 2 == 0 { talk } else { talk.outbound() }
    });
    play(&talks.collect::<Vec<_>>());
}
