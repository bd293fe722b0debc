//! Conversations of a tapped protocol on the simulated kernel, seed by seed: bytes out are bytes in,
//! every exchange has its span and its count, garbage becomes a relay, and nothing is left behind.

use crate::{
    config::JoinLevel,
    exchange::{Observer, Reads, Taps},
    http_simulation::{http_config, room},
    io::{
        sim::{Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    joins::Shared,
    shard::{Command, Shard},
    simulation::{come_to_rest, parts, with_seed},
    spans::{self, SpanSource},
};
use netra_codecs::{
    codec::Reason,
    trace::{Outcome, SpanText},
};
use netra_perf::{Key, Recorder};
use std::{
    sync::{Arc, mpsc},
    task::Waker,
};

/// One command and its answer.
struct Exchange {
    request: Vec<u8>,
    response: Vec<u8>,
    operation: &'static str,
    is_error: bool,
}

fn letters(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| b'a' + u8::try_from(rng.below(26)).unwrap()).collect()
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(format!("${}\r\n", bytes.len()).bytes());
    out.extend_from_slice(bytes);
    out.extend(b"\r\n");
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(4) {
        0 | 1 => rng.len(100),
        2 => rng.len(5_000),
        _ => rng.len(150_000),
    }
}

fn exchange(rng: &mut Rng) -> Exchange {
    let operation = ["GET", "SET", "LPUSH", "MGET"][usize::try_from(rng.below(4)).unwrap()];
    let arguments = rng.len(4);
    let mut request = format!("*{}\r\n", 1 + arguments).into_bytes();
    bulk(&mut request, operation.as_bytes());
    for _ in 0..arguments {
        let len = size(rng);
        let argument = letters(rng, len);
        bulk(&mut request, &argument);
    }
    let mut response = Vec::new();
    let is_error = rng.chance(20);
    match rng.below(4) {
        _ if is_error => response.extend(b"-WRONGTYPE not of that kind\r\n"),
        0 => response.extend(b"+OK\r\n"),
        1 => {
            let len = size(rng);
            let value = letters(rng, len);
            bulk(&mut response, &value);
        }
        2 => response.extend(b"$-1\r\n"),
        _ => {
            response.extend(b"*3\r\n:1\r\n*1\r\n$-1\r\n");
            let value = letters(rng, 20);
            bulk(&mut response, &value);
        }
    }
    Exchange { request, response, operation, is_error }
}

/// A conversation, or bytes that are none.
struct Conversation {
    exchanges: Vec<Exchange>,
    is_garbage: bool,
}

fn conversation(rng: &mut Rng) -> Conversation {
    let is_garbage = rng.chance(20);
    let mut exchanges: Vec<Exchange> = (0..rng.len(8)).map(|_| exchange(rng)).collect();
    if is_garbage {
        let place = rng.len(exchanges.len()) - 1;
        let bytes = [&b"\x16\x03\x01 a hello"[..], b"*-7\r\n", b"$12\r\nx"];
        exchanges[place].request = bytes[usize::try_from(rng.below(3)).unwrap()].to_vec();
    }
    Conversation { exchanges, is_garbage }
}

fn peers(rng: &mut Rng, exchanges: &[Exchange]) -> (Peer, Peer) {
    let waits = rng.chance(50);
    let (mut asked, mut answered) = (vec![0], vec![0]);
    for exchange in exchanges {
        asked.push(asked[asked.len() - 1] + exchange.request.len());
        answered.push(answered[answered.len() - 1] + exchange.response.len());
    }
    let (client_asked, client_answered) = (asked.clone(), answered.clone());
    let client_turns = Turns::new(move |received| {
        let all = client_asked.len() - 1;
        let whole = client_answered.iter().skip(1).take_while(|end| received.len() >= **end);
        client_asked[if waits { (whole.count() + 1).min(all) } else { all }]
    });
    let server_turns = Turns::new(move |received| {
        let whole = asked.iter().skip(1).take_while(|end| received.len() >= **end).count();
        answered[whole]
    });
    let ending = |rng: &mut Rng, len: usize, otherwise| match rng.below(10) {
        0 => Ending::Reset(rng.len(len) - 1),
        _ => otherwise,
    };
    let requests: Vec<u8> = exchanges.iter().flat_map(|it| it.request.clone()).collect();
    let responses: Vec<u8> = exchanges.iter().flat_map(|it| it.response.clone()).collect();
    let of_client = ending(rng, requests.len(), Ending::AfterSending);
    let of_server = ending(rng, responses.len(), Ending::AfterTheOther);
    let client = Peer::scripted(rng, requests, of_client, client_turns);
    (client, Peer::scripted(rng, responses, of_server, server_turns))
}

struct World {
    shard: Shard<SimIo>,
    _commands: mpsc::Sender<Command>,
    spans: SpanSource,
    conversations: Vec<Conversation>,
}

/// `detects` says that no port is named.
fn world(seed: u64, detects: bool) -> World {
    let mut rng = Rng::new(seed);
    let faults = Faults::draw(&mut rng);
    let conversations: Vec<_> = (0..rng.len(8)).map(|_| conversation(&mut rng)).collect();
    let arrivals = conversations.iter().enumerate().map(|(index, conversation)| {
        let (client, server) = peers(&mut rng, &conversation.exchanges);
        let answer = if rng.chance(50) { Answer::AtOnce } else { Answer::After(rng.below(5_000)) };
        // In order, so that the descriptor tells which conversation it is.
        Arrival { at: index as u64 * 1_000_000, client, server, answer }
    });
    let arrivals = arrivals.collect();
    let (limits, buffers) = room(&mut rng);
    let named = if detects { 0 } else { 999 };
    let ports: Vec<String> = (1..=named).map(|port| format!("{port}=redis")).collect();
    let ports = ports.join(",").parse().unwrap();
    let reads = Reads { detects, ..Reads::on(&ports) };
    let tracing = http_config().tracing;
    let (sink, spans) = spans::ring(1024, Waker::noop().clone());
    let (commands, receiver) = mpsc::channel();
    let parts = crate::shard::Parts {
        recorder: Arc::new(Recorder::of(&reads.tables())),
        observer: Observer::new(tracing.as_ref(), 1, (Some(sink), None)).joining(
            &Shared::new(1),
            0,
            JoinLevel::Tx,
        ),
        taps: Taps::new(reads, netra_codecs::Limits::DEFAULT, 1 << 20),
        ..parts(limits, buffers, receiver)
    };
    let shard = Shard::new(SimIo::new(rng, faults, arrivals), parts);
    World { shard, _commands: commands, spans, conversations }
}

/// Bytes came out as they went in; says whether all of them did.
fn check_bytes(seed: u64, shard: &Shard<SimIo>, downstream: usize) -> bool {
    let io = &shard.core.io;
    let client = &io.sockets[downstream].peer;
    let Some(server) = io.upstream_of(downstream).map(|fd| &io.sockets[fd].peer) else {
        return false;
    };
    assert!(server.sends().starts_with(&client.received), "{seed}: response bytes changed");
    assert!(client.sends().starts_with(&server.received), "{seed}: request bytes changed");
    let resets = client.resets() || server.resets();
    let broken = resets || client.saw_reset || server.saw_reset;
    if !broken {
        assert_eq!(client.received.len(), server.sends().len(), "{seed}: response bytes lost");
        assert_eq!(server.received.len(), client.sends().len(), "{seed}: request bytes lost");
    }
    !broken
}

fn simulate(seed: u64, detects: bool) -> Arc<Recorder> {
    let mut world = world(seed, detects);
    come_to_rest(seed, &mut world.shard);
    let shard = &world.shard;
    assert_eq!(shard.core.observer.open_spans(), 0, "{seed}: spans lost");
    assert_eq!(shard.core.taps.held_bytes(), 0, "{seed}: held bytes miscounted");
    let mut spans = Vec::new();
    while world.spans.drain(64, |span| {
        let operation = String::from_utf8(span.text(SpanText::Operation).unwrap().into()).unwrap();
        spans.push((operation, span.outcome, span.is_error()));
    }) > 0
    {}
    let whole: Vec<&Exchange> = (0..world.conversations.len())
        .filter(|index| {
            let downstream = world.shard.core.io.arrived.get(*index);
            let is_whole = downstream.is_some_and(|fd| check_bytes(seed, &world.shard, *fd));
            is_whole && !world.conversations[*index].is_garbage
        })
        .flat_map(|index| &world.conversations[index].exchanges)
        .collect();
    for exchange in &whole {
        let wanted = (exchange.operation.to_owned(), Outcome::Whole, exchange.is_error);
        let found = spans.iter().position(|span| *span == wanted);
        let found = found.unwrap_or_else(|| panic!("{seed}: no span of {}", exchange.operation));
        spans.swap_remove(found);
    }
    let counted: u64 = world.shard.core.recorder.exchanges().counts().map(|it| it.total).sum();
    assert_eq!(counted, (whole.len() + spans.len()) as u64, "{seed}: one count for each span");
    if world.conversations.iter().all(|it| !it.is_garbage) {
        for reason in Reason::ALL {
            let count = world.shard.core.recorder.get(Key::tunnel(*reason as usize));
            assert_eq!(count, 0, "{seed}: what is certain was given up: {reason}");
        }
    }
    Arc::clone(&world.shard.core.recorder)
}

#[test]
fn every_seed_keeps_bytes_and_tells_of_every_exchange() {
    let recorders = with_seed(|seed| simulate(seed, false));
    if recorders.len() < 256 {
        return;
    }
    for key in [
        Key::SPLICE_BYTES,
        Key::PIPE_STARVED,
        Key::BUFFER_STARVED,
        Key::BACK_PRESSURE,
        Key::tunnel(Reason::Tls as usize),
        Key::tunnel(Reason::NotThisProtocol as usize),
    ] {
        assert!(recorders.iter().any(|r| r.get(key) > 0), "no seed reaches {key:?}");
    }
    for outcome in ["ok", "error", "unanswered"] {
        let has = |recorder: &Arc<Recorder>| {
            recorder.exchanges().counts().any(|it| it.labels[3] == outcome && it.total > 0)
        };
        assert!(recorders.iter().any(has), "no seed ends an exchange as {outcome}");
    }
}

/// On ports that nothing names every exchange is told all the same, from the first on, and what is
/// none is told of to nobody.
#[test]
fn every_seed_finds_out_what_nobody_named() {
    let recorders = with_seed(|seed| simulate(seed, true));
    let found = |label: usize| recorders.iter().map(|it| it.get(Key::detected(label))).sum::<u64>();
    for label in [1, 3, 4] {
        assert_eq!(found(label), 0, "a wrong label");
    }
    if recorders.len() >= 256 {
        assert!(found(2) > 500 && found(0) > 50, "{} found, {} unknown", found(2), found(0));
    }
}
