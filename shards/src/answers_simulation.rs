//! Answers of HTTP that rules give something, on the simulated kernel, seed by seed: each has exactly
//! what its request was promised, and all other bytes are as the server sent them, also where rules
//! come and go meanwhile.

use crate::{
    config::Limits,
    core::HttpCore,
    exchange::{Gates, Observer, ShardRules},
    http_simulation::{
        Exchange, client, correlation, exchange, http_config, request_end, room, server,
    },
    io::{
        sim::{Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    shard::{Command, Parts, Shard},
    simulation::{TURNS_MAX, come_to_rest, parts, with_seed},
    spans::{self, SpanSource},
};
use netra_codecs::{h1::Reason, trace::Outcome};
use netra_perf::{Key, Recorder};
use netra_rules::{Context, Documents, Source};
use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    task::Waker,
    time::Duration,
};

const RULES: &str = "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: it}\nspec:\n  \
    hosts: [shop]\n  protocol: http1\n  routes:\n  - route: [{destination: {host: shop}}]\n";
const GIVEN: &str = "    responseMutation: [{key: Server, value: netra}, {key: X-Given, value: granted}]\n    \
    responseRemoval: [X-Gone]\n";

fn rules(gives: bool, generation: u64) -> Box<ShardRules> {
    let text = if gives { RULES.to_owned() + GIVEN } else { RULES.to_owned() };
    let source = Source { name: "it.yaml".into(), text };
    let context = Context { generation, ..Context::of_sidecars("it") };
    let compiled = Documents::read(&[source]).compile(&context);
    let table = compiled.table.unwrap_or_else(|| panic!("{}", compiled.troubles));
    Box::new(ShardRules::new(&table, &Arc::new(table.process(None, 0)), 1))
}

/// The answer as its client is to get it: its head, and not those of what comes before it, with other
/// lines.
fn given(response: &[u8]) -> Vec<u8> {
    let mut at = 0;
    loop {
        let len = response[at..].windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(response[at..at + len].to_vec()).unwrap();
        if !head.starts_with("HTTP/1.1 1") {
            let head = head.replace("Server: x\r\n", "Server: netra\r\n");
            let head = [&head[..head.len() - 2], "X-Given: granted\r\n\r\n"].concat();
            return [&response[..at], head.as_bytes(), &response[at + len..]].concat();
        }
        at += len;
    }
}

struct World {
    shard: Shard<SimIo>,
    commands: mpsc::Sender<Command>,
    spans: SpanSource,
    conversations: Vec<Vec<Exchange>>,
    gives: bool,
    /// After so many turns rules say something else, and then again.
    changes: Vec<u32>,
}

fn world(seed_: u64) -> World {
    let mut rng = Rng::new(seed_);
    let faults = Faults::draw(&mut rng);
    let conversations: Vec<Vec<Exchange>> = (0..rng.len(6))
        .map(|connection| {
            (0..rng.len(6)).map(|index| exchange(&mut rng, connection, index)).collect()
        })
        .collect();
    let arrivals = conversations.iter().enumerate().map(|(index, exchanges)| Arrival {
        at: index as u64 * 1_000_000,
        client: client(&mut rng, exchanges),
        server: server(&mut rng, exchanges),
        answer: Answer::AtOnce,
    });
    let arrivals = arrivals.collect();
    let gives = rng.chance(80);
    let changes = if rng.chance(40) { rng.len(3) } else { 0 };
    let changes = (0..changes).map(|_| u32::try_from(rng.below(300)).unwrap()).collect();
    let (limits, buffers) = room(&mut rng);
    let io = SimIo::outbound(rng, faults, arrivals, BTreeMap::new());
    let (shard, commands, spans) = stage(io, limits, buffers, gives);
    World { shard, commands, spans, conversations, gives, changes }
}

fn stage(
    io: SimIo,
    limits: Limits,
    buffers: u32,
    gives: bool,
) -> (Shard<SimIo>, mpsc::Sender<Command>, SpanSource) {
    let (sink, spans) = spans::ring(1024, Waker::noop().clone());
    let (commands, receiver) = mpsc::channel();
    let parts = Parts {
        http: Some(Box::new(HttpCore::new(&http_config(), correlation()))),
        observer: Observer::new(http_config().tracing.as_ref(), 1, (Some(sink), None)),
        gates: Gates { rules: Some(rules(gives, 1)), ..Gates::default() },
        ..parts(limits, buffers, receiver)
    };
    (Shard::new(io, parts), commands, spans)
}

/// What came of the answers of one connection: how many were whole as sent, and as given.
fn check(seed: u64, world: &World, fd: usize, exchanges: &[Exchange]) -> [u64; 2] {
    let io = &world.shard.core.io;
    let client = &io.sockets[fd].peer;
    let Some(server) = io.upstream_of(fd).map(|fd| &io.sockets[fd].peer) else { return [0; 2] };
    let is_broken = [client, server].iter().any(|it| it.resets() || it.saw_reset);
    let (mut counts, mut rest) = ([0; 2], &client.received[..]);
    for (index, exchange) in exchanges.iter().enumerate() {
        let ways = [exchange.response.clone(), given(&exchange.response)];
        let way = ways.iter().position(|way| rest.starts_with(way));
        let Some(way) = way else {
            let is_part = ways.iter().any(|way| way.starts_with(rest));
            let shown = rest[..rest.len().min(400)].escape_ascii();
            assert!(is_broken && is_part, "{seed}: answer {index}: {shown}");
            rest = &[];
            break;
        };
        let is_known = !world.changes.is_empty() || (way == 1) == world.gives;
        assert!(is_known, "{seed}: answer {index} is not as promised");
        counts[way] += 1;
        rest = &rest[ways[way].len()..];
    }
    assert!(rest.is_empty(), "{seed}: more than was answered");
    assert!(is_broken || (client.saw_end && server.saw_end), "{seed}: an end was not passed on");
    counts
}

fn simulate(seed: u64) -> (Arc<Recorder>, [u64; 2], bool) {
    let mut world = world(seed);
    let (mut gives, mut changes) = (world.gives, world.changes.clone());
    changes.sort_unstable();
    for turn in 0..TURNS_MAX {
        if world.shard.core.io.idle || changes.is_empty() {
            break;
        }
        while changes.first().is_some_and(|at| *at <= turn) {
            changes.remove(0);
            gives = !gives;
            let generation = 2 + u64::from(turn);
            let obey = Command::Obey(rules(gives, generation), mpsc::channel().0);
            world.commands.send(obey).unwrap();
            world.shard.core.io.wake();
        }
        let wait = world.shard.park();
        world.shard.turn(wait).unwrap();
    }
    come_to_rest(seed, &mut world.shard);
    let core = &world.shard.core;
    assert_eq!(core.observer.open_spans(), 0, "{seed}: spans lost");
    assert_eq!(core.http.as_deref().unwrap().held_bytes(), 0, "{seed}: held bytes miscounted");
    for reason in Reason::ALL {
        let count = core.recorder.get(Key::opaque(*reason as usize));
        assert_eq!(count, 0, "{seed}: what is certain turned opaque: {reason}");
    }
    let downstreams = core.io.arrived.clone();
    let mut counts = [0; 2];
    for (fd, exchanges) in downstreams.iter().zip(&world.conversations) {
        let more = check(seed, &world, *fd, exchanges);
        counts = [counts[0] + more[0], counts[1] + more[1]];
    }
    let mut told = 0;
    while world.spans.drain(64, |span| told += u64::from(span.outcome == Outcome::Whole)) > 0 {}
    assert!(told >= counts.iter().sum(), "{seed}: {told} spans of {counts:?} answers");
    (Arc::clone(&world.shard.core.recorder), counts, !world.changes.is_empty())
}

#[test]
fn every_answer_has_what_it_was_promised_and_no_byte_else() {
    let runs = with_seed(simulate);
    if runs.len() < 256 {
        return;
    }
    for key in [Key::SPLICE_BYTES, Key::BUFFER_STARVED, Key::BACK_PRESSURE] {
        assert!(runs.iter().any(|(it, ..)| it.get(key) > 0), "no seed reaches {key:?}");
    }
    let is_mixed = |counts: &[u64; 2]| counts.iter().all(|count| *count > 0);
    assert!(runs.iter().any(|(_, counts, changes)| *changes && is_mixed(counts)));
}

const GET: &str = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n";
/// How an answer ends its connection, where it does.
const CLOSES: bool = true;
const STAYS: bool = false;

/// Requests, their answers, and what the client is to get of them. `Server: netra` and `X-Given: granted`
/// are what rules give.
const TABLE: [(&str, &[&str], &str, &str, bool); 13] = [
    (
        "a length",
        &[GET],
        "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nServer: netra\r\nContent-Length: 2\r\nX-Given: granted\r\n\r\nok",
        STAYS,
    ),
    (
        "lines of the same names, in any case, with blanks, and empty",
        &[GET],
        "HTTP/1.1 200 OK\r\nSERVER:  x \r\nx-given:\r\nA: b\r\nserver: y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSERVER: netra\r\nx-given: granted\r\nA: b\r\nContent-Length: 0\r\n\r\n",
        STAYS,
    ),
    (
        "lines that are taken out",
        &[GET],
        "HTTP/1.1 200 OK\r\nX-Gone: a\r\nServer: x\r\nx-gone:\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nServer: netra\r\nContent-Length: 0\r\nX-Given: granted\r\n\r\n",
        STAYS,
    ),
    (
        "no lines at all, until the end",
        &[GET],
        "HTTP/1.0 200\r\n\r\nall that comes",
        "HTTP/1.0 200\r\nServer: netra\r\nX-Given: granted\r\n\r\nall that comes",
        CLOSES,
    ),
    (
        "chunks, and trailers that stay",
        &[GET],
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nServer: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nServer: netra\r\nX-Given: granted\r\n\r\n\
         2;a=b\r\nok\r\n0\r\nServer: x\r\n\r\n",
        STAYS,
    ),
    (
        "what comes before the answer",
        &[GET],
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nServer: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nServer: x\r\n\r\n\
         HTTP/1.1 204 No\r\nServer: netra\r\nX-Given: granted\r\n\r\n",
        STAYS,
    ),
    (
        "HEAD, which has no body, and an answer behind it",
        &[HEAD, GET],
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nServer: netra\r\nX-Given: granted\r\n\r\n\
         HTTP/1.1 404 No\r\nContent-Length: 1\r\nServer: netra\r\nX-Given: granted\r\n\r\nx",
        STAYS,
    ),
    (
        "304, which has none either",
        &[GET, GET],
        "HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        "HTTP/1.1 304 Same\r\nContent-Length: 7\r\nServer: netra\r\nX-Given: granted\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 1\r\nServer: netra\r\nX-Given: granted\r\n\r\nx",
        STAYS,
    ),
    (
        "another host's answer between two",
        &[GET, "GET / HTTP/1.1\r\nHost: other\r\n\r\n", GET],
        "HTTP/1.1 200 A\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 B\r\nServer: x\r\n\
         Content-Length: 1\r\n\r\nbHTTP/1.1 200 C\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 A\r\nContent-Length: 1\r\nServer: netra\r\nX-Given: granted\r\n\r\na\
         HTTP/1.1 200 B\r\nServer: x\r\nContent-Length: 1\r\n\r\nb\
         HTTP/1.1 200 C\r\nContent-Length: 0\r\nServer: netra\r\nX-Given: granted\r\n\r\n",
        STAYS,
    ),
    (
        "another protocol, which begins behind 101",
        &["GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"],
        "HTTP/1.1 101 Yes\r\nServer: x\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
        "HTTP/1.1 101 Yes\r\nServer: x\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
        CLOSES,
    ),
    (
        "what is no HTTP",
        &[GET],
        "220 mail ready\r\nServer: x\r\n\r\n",
        "220 mail ready\r\nServer: x\r\n\r\n",
        CLOSES,
    ),
    (
        "two lengths, of which nobody can say which counts",
        &[GET],
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\nServer: x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\nServer: x\r\n\r\nok",
        CLOSES,
    ),
    (
        "a head that ends with its stream",
        &[GET],
        "HTTP/1.1 200 OK\r\nServer: x\r\nConte",
        "HTTP/1.1 200 OK\r\nServer: x\r\nConte",
        CLOSES,
    ),
];

/// What a client gets of an answer that comes in two parts, the second one later.
fn cut(
    requests: &[&str],
    answer: &str,
    at: usize,
    closes: bool,
    splice_from_bytes: u32,
) -> Vec<u8> {
    let mut rng = Rng::new(at as u64);
    let (asked, len) = (requests.len(), answer.len());
    let turns = Turns::new(move |mut received| {
        let mut whole = 0;
        while let Some(end) = request_end(received) {
            (whole, received) = (whole + 1, &received[end..]);
        }
        if whole == asked { len } else { 0 }
    });
    let ending = if closes { Ending::AfterSending } else { Ending::AfterTheOther };
    let server = Peer::scripted(&mut rng, answer.into(), ending, turns);
    let server = server.pausing([(at, 5_000_000)].into());
    let all = requests.concat().into_bytes();
    let count = all.len();
    let ending = if closes { Ending::AfterTheOther } else { Ending::AfterSending };
    let client = Peer::scripted(&mut rng, all, ending, Turns::new(move |_| count));
    let arrival = Arrival { at: 0, client, server, answer: Answer::AtOnce };
    let limits = Limits {
        splice_from_bytes,
        half_close_linger: Duration::from_secs(3600),
        ..Limits::default()
    };
    let io = SimIo::outbound(rng, Faults::NONE, vec![arrival], BTreeMap::new());
    let (mut shard, _commands, _spans) = stage(io, limits, 64, true);
    come_to_rest(at as u64, &mut shard);
    assert_eq!(shard.core.http.as_deref().unwrap().held_bytes(), 0);
    shard.core.io.sockets[shard.core.io.arrived[0]].peer.received.clone()
}

#[test]
fn every_answer_of_the_table_comes_as_it_is_to_wherever_it_is_cut() {
    for (what, requests, answer, expected, closes) in TABLE {
        for (at, splice) in (0..answer.len()).flat_map(|at| [0, 1].map(|splice| (at, splice))) {
            let got = cut(requests, answer, at, closes, splice);
            let got = String::from_utf8_lossy(&got);
            assert!(got == expected, "{what}, cut at {at}, splice {splice}: {got:?}");
        }
    }
}
