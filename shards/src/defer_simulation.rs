//! Connections whose dial is deferred, one by one, on the simulated kernel: what their clients and servers
//! see is what they see where it is not, but for who is dialled.

use crate::{
    config::Limits,
    error::End,
    exchange::{Gates, Reads, Taps},
    io::{
        sim::{Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    moves_simulation::ByDigit,
    route_simulation::routing,
    shard::Shard,
    simulation::TURNS_MAX,
};
use netra_codecs::tap::Protocol;
use netra_perf::{Key, Recorder};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const GRACE: Duration = Duration::from_millis(200);
const GRACE_NS: u64 = 200_000_000;

/// A client that says this, and ends when it has said it or when its server has ended.
fn says(text: &str, ending: Ending) -> Peer {
    Peer::scripted(&mut Rng::new(1), text.into(), ending, Turns::new(|_| usize::MAX))
}

/// A server that says this when it has got so many bytes.
fn answers(text: &'static str, from: usize) -> Peer {
    let turns = Turns::new(move |got| if got.len() >= from { usize::MAX } else { 0 });
    Peer::scripted(&mut Rng::new(1), text.into(), Ending::AfterTheOther, turns)
}

/// One connection from its beginning to its end; none of its messages has a route.
fn run(protocol: Option<Protocol>, client: Peer, (server, answer): (Peer, Answer)) -> Shard<SimIo> {
    let arrival = Arrival { at: 0, client, server, answer };
    let io = SimIo::outbound(Rng::new(1), Faults::NONE, vec![arrival], BTreeMap::new());
    let limits = Limits {
        connect_timeout: Duration::from_millis(50),
        defer_dial: GRACE,
        ..Limits::default()
    };
    let config = crate::http_simulation::http_config();
    let (mut shard, _commands, _names) = routing(io, config, limits, 512);
    if let Some(protocol) = protocol {
        let ports: Vec<String> = (1..=99).map(|port| format!("{port}={protocol}")).collect();
        let ports = ports.join(",").parse().unwrap();
        shard.core.recorder = Arc::new(Recorder::of(&Reads::on(&ports).tables()));
        shard.core.taps = Taps::new(Reads::on(&ports), netra_codecs::Limits::DEFAULT, 1 << 20);
    }
    let decides = Some(Box::new(ByDigit(|_| None, true)) as _);
    shard.core.gates = Gates { decides, ..Gates::default() };
    for _ in 0..TURNS_MAX {
        let wait = shard.park();
        shard.turn(wait).unwrap();
        if shard.core.io.idle {
            break;
        }
    }
    assert_eq!((shard.active, shard.timers.next(&shard.slab)), (0, None), "it waits for ever");
    assert_eq!((shard.core.pool.lent(), shard.core.observer.open_spans()), (0, 0), "lost");
    assert!(shard.core.io.sockets.iter().all(|socket| socket.closed), "descriptors lost");
    shard
}

fn client(shard: &Shard<SimIo>) -> &Peer {
    &shard.core.io.sockets[0].peer
}

fn server(shard: &Shard<SimIo>) -> Option<&Peer> {
    shard.core.io.upstream_of(0).map(|fd| &shard.core.io.sockets[fd].peer)
}

const REDIS: Option<Protocol> = Some(Protocol::Redis);

#[test]
fn a_server_that_speaks_first_is_heard_after_a_while() {
    for protocol in [None, REDIS] {
        let text = "220 it is me\r\n".into();
        let turns = Turns::new(|_| usize::MAX);
        let greets = Peer::scripted(&mut Rng::new(1), text, Ending::AfterSending, turns);
        let shard = run(protocol, says("", Ending::AfterTheOther), (greets, Answer::AtOnce));
        assert_eq!(client(&shard).received, b"220 it is me\r\n", "{protocol:?}");
        assert!(client(&shard).saw_end && shard.core.now >= GRACE_NS, "{protocol:?}");
    }
}

#[test]
fn bytes_go_to_the_original_destination_as_they_came() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let connect = "CONNECT shop:443 HTTP/1.1\r\nHost: shop\r\n\r\n";
    for (protocol, said, is_edited) in [
        (None, "\x16\x03\x01 no http", false),
        (None, "GET / HT", false),
        (None, preface, false),
        (None, connect, true),
        (None, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n", true),
        (REDIS, "\x16\x03\x01 no redis\r\n", false),
        (REDIS, "*2\r\n$3\r\nGE", false),
        (REDIS, "PING\r\n", false),
    ] {
        for answer in [Answer::AtOnce, Answer::After(3_000_000)] {
            let from = said.len().min(8);
            let told = (answers("+OK\r\n", from), answer);
            let shard = run(protocol, says(said, Ending::AfterSending), told);
            let got = &server(&shard).expect("it is dialled").received;
            let is_it = if is_edited {
                got.starts_with(&said.as_bytes()[..12])
            } else {
                *got == said.as_bytes()
            };
            assert!(is_it, "{said:?}: {}", got.escape_ascii());
            assert!(server(&shard).unwrap().saw_end && client(&shard).saw_end, "{said:?}");
        }
    }
}

#[test]
fn where_nobody_is_the_client_is_reset_as_ever() {
    let asks = ["", "PING\r\n", "GET / HTTP/1.1\r\nHost: shop\r\n\r\n", "\x16 no protocol"];
    for (protocol, answer) in [None, REDIS].into_iter().flat_map(|protocol| {
        let answers = [Answer::RefusedAtOnce, Answer::RefusedAfter(9_000), Answer::Silence];
        answers.map(|answer| (protocol, answer))
    }) {
        for said in asks {
            let ending = if said.is_empty() { Ending::AfterTheOther } else { Ending::Never };
            let shard = run(protocol, says(said, ending), (answers("", 0), answer));
            assert!(client(&shard).saw_reset, "{protocol:?} {answer:?} {said:?}");
            assert!(client(&shard).received.is_empty(), "{protocol:?} {answer:?} {said:?}");
            let now = shard.core.now;
            assert!(!said.is_empty() || now >= GRACE_NS, "a silent client had not the time");
            let end = if answer == Answer::Silence { End::DialTimeout } else { End::DialFailed(0) };
            assert_eq!(
                shard.core.recorder.get(Key::closed(1, end.index())),
                1,
                "{answer:?} {said:?}"
            );
        }
    }
}

#[test]
fn who_ends_without_a_byte_is_passed_on_at_once() {
    let shard = run(REDIS, says("", Ending::AfterSending), (answers("", 0), Answer::AtOnce));
    assert!(server(&shard).expect("it is dialled").saw_end && client(&shard).saw_end);
    assert!(shard.core.now < GRACE_NS);
}
