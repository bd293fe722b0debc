//! Answers that may not take for ever, on the simulated kernel, seed by seed: who waits too long is told
//! so, once; what comes later reaches nobody, and least of all as another's; nothing is left behind.

use crate::{
    config::Limits,
    core::HttpCore,
    correlate::{Keep, correlate, seed},
    exchange::{Asker, Decide, Gates, Observer, Place, Ruling, ShardRules, Reads, Taps},
    http_simulation::http_config,
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    patience::Allowed,
    shard::{Parts, Shard},
    simulation::{come_to_rest, parts, with_seed},
    spans::{self, SpanSource},
    sys::Nanos,
};
use netra_codecs::{
    codec::{Pairs, Reason},
    route::Target,
    tap::{Message, Protocol},
    trace::Flag,
};
use netra_perf::{Key, Recorder};
use netra_rules::{Context, Documents, Seat, Source};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, mpsc},
    task::Waker,
    time::Duration,
};

const REQUESTS_MAX: usize = 7;
const ALLOWED_NS: Nanos = 4_000_000;

/// Allows every answer the same.
#[derive(Debug)]
struct Impatient;

impl Decide for Impatient {
    fn concerns(&self, _: &Asker, _: Protocol) -> bool {
        true
    }

    fn decide(
        &mut self,
        _: &Message<'_>,
        _: (&Asker, Option<&Seat>),
        _: &mut Pairs,
        _: Nanos,
        _: u64,
    ) -> Ruling<'_> {
        let allowed =
            Allowed { first_byte_ns: ALLOWED_NS, idle_ns: ALLOWED_NS, text: "netra: too late" };
        Ruling { allowed, ..Ruling::default() }
    }

    fn target(&self, _: Place, _: SocketAddr) -> Option<Target> {
        None
    }

    fn answer(&self, _: u32, _: &mut Pairs) {}
}

/// A protocol, as clients and servers of these tests speak it.
trait Wire {
    fn request(index: usize, body: usize) -> Vec<u8>;
    fn answer(index: usize, body: usize) -> Vec<u8>;
    /// The messages that a client has got, as indices of requests, each with whether it is the server's
    /// answer; what is behind the last is not whole.
    fn got(bytes: &[u8], answers: &[Vec<u8>]) -> Vec<(usize, bool)>;
    fn parts(shard: Parts) -> Parts;
}

/// What came of requests that are answered in their order: answers, and at the end perhaps what a client
/// is `told` whose answer took too long, or a part of either.
fn got_in_order(bytes: &[u8], answers: &[Vec<u8>], told: &[u8]) -> Vec<(usize, bool)> {
    let (mut got, mut rest) = (Vec::new(), bytes);
    for (index, answer) in answers.iter().enumerate() {
        if let Some(behind) = rest.strip_prefix(&answer[..]) {
            got.push((index, true));
            rest = behind;
            continue;
        }
        if rest == told {
            got.push((index, false));
        }
        let is_part = told.starts_with(rest) || answer.starts_with(rest);
        assert!(is_part, "{}", rest.escape_ascii());
        return got;
    }
    assert!(rest.is_empty());
    got
}

struct Redis;
struct Dubbo;
struct Http;

fn gated(protocol: Protocol, parts: Parts) -> Parts {
    let ports: Vec<String> = (1..=999).map(|port| format!("{port}={protocol}")).collect();
    let ports = ports.join(",").parse().unwrap();
    Parts {
        recorder: Arc::new(Recorder::of(&Reads::on(&ports).tables())),
        taps: Taps::new(Reads::on(&ports), netra_codecs::Limits::DEFAULT, 1 << 20),
        gates: Gates { decides: Some(Box::new(Impatient)), ..Gates::default() },
        ..parts
    }
}

impl Wire for Redis {
    fn request(index: usize, body: usize) -> Vec<u8> {
        let key = format!("{index:05}");
        format!("*3\r\n$3\r\nSET\r\n$5\r\n{key}\r\n${body}\r\n{}\r\n", "b".repeat(body))
            .into_bytes()
    }

    fn answer(index: usize, body: usize) -> Vec<u8> {
        format!("${}\r\n{index:05}{}\r\n", body + 5, "r".repeat(body)).into_bytes()
    }

    fn got(bytes: &[u8], answers: &[Vec<u8>]) -> Vec<(usize, bool)> {
        got_in_order(bytes, answers, b"-ERR netra: too late\r\n")
    }

    fn parts(parts: Parts) -> Parts {
        gated(Protocol::Redis, parts)
    }
}

fn frame(flags: u8, status: u8, id: usize, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xda, 0xbb, flags, status][..], &(id as u64).to_be_bytes(), &len, body].concat()
}

impl Wire for Dubbo {
    fn request(index: usize, body: usize) -> Vec<u8> {
        let len = u16::try_from(body).unwrap().to_be_bytes();
        let strings = &b"\x052.0.2\x06org.It\x00\x02hi\x02[BB"[..];
        frame(0xc2, 0, index, &[strings, &len, &vec![b'b'; body], b"HZ"].concat())
    }

    fn answer(index: usize, body: usize) -> Vec<u8> {
        let len = u16::try_from(body).unwrap().to_be_bytes();
        frame(2, 20, index, &[&b"\x91B"[..], &len, &vec![b'r'; body]].concat())
    }

    fn got(bytes: &[u8], answers: &[Vec<u8>]) -> Vec<(usize, bool)> {
        let (mut got, mut rest) = (Vec::new(), bytes);
        while let Some(len) = rest.get(12..16) {
            let len = 16 + u32::from_be_bytes(len.try_into().unwrap()) as usize;
            let Some(frame) = rest.get(..len) else { break };
            let index = u64::from_be_bytes(frame[4..12].try_into().unwrap());
            let index = usize::try_from(index).unwrap();
            let is_answer = frame == answers[index];
            assert!(is_answer || frame[3] == 31, "{}", frame.escape_ascii());
            got.push((index, is_answer));
            rest = &rest[len..];
        }
        got
    }

    fn parts(parts: Parts) -> Parts {
        gated(Protocol::Dubbo, parts)
    }
}

const RULES: &str = "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: it}\nspec:\n  \
    hosts: [shop]\n  protocol: http1\n  timeout: {firstByte: 4ms, idle: 4ms}\n  \
    routes: [{name: all, route: [{destination: {host: shop}}]}]\n";

impl Wire for Http {
    fn request(index: usize, body: usize) -> Vec<u8> {
        let head =
            format!("POST /{index} HTTP/1.1\r\nHost: shop\r\nContent-Length: {body}\r\n\r\n");
        [head.as_bytes(), &vec![b'b'; body]].concat()
    }

    fn answer(index: usize, body: usize) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nX-Of: {index}\r\nContent-Length: {body}\r\n\r\n");
        [head.as_bytes(), &vec![b'r'; body]].concat()
    }

    fn got(bytes: &[u8], answers: &[Vec<u8>]) -> Vec<(usize, bool)> {
        let text = "netra: the answer took too long (Router/default/it/all)\n";
        let told = format!(
            "HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        got_in_order(bytes, answers, told.as_bytes())
    }

    fn parts(parts: Parts) -> Parts {
        let source = Source { name: "it.yaml".into(), text: RULES.into() };
        let compiled = Documents::read(&[source]).compile(&Context::of_sidecars("it"));
        let table = compiled.table.unwrap_or_else(|| panic!("{}", compiled.troubles));
        let rules = ShardRules::new(&table, &Arc::new(table.process(None, 0)), 1);
        let ttl = Duration::from_secs(5);
        let keep = Keep { entries_max: 64, context_ttl: ttl, route_ttl: ttl };
        let correlation = correlate(seed(), keep, &[-1]).remove(0);
        Parts {
            http: Some(Box::new(HttpCore::new(&http_config(), correlation))),
            gates: Gates { rules: Some(Box::new(rules)), ..Gates::default() },
            ..parts
        }
    }
}

struct World {
    shard: Shard<SimIo>,
    answers: Vec<Vec<u8>>,
    spans: SpanSource,
    is_kind: bool,
}

fn ends(all: &[Vec<u8>]) -> Vec<usize> {
    let sums = all.iter().scan(0, |sum, it| {
        *sum += it.len();
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

fn world<W: Wire>(seed_: u64) -> World {
    let mut rng = Rng::new(seed_);
    let faults = Faults { accept_fails: 0, ..Faults::draw(&mut rng) };
    let count = rng.len(REQUESTS_MAX);
    let body = |rng: &mut Rng| if rng.chance(70) { rng.len(50) } else { rng.len(30_000) };
    let requests: Vec<_> = (0..count).map(|index| W::request(index, body(&mut rng))).collect();
    let answers: Vec<_> = (0..count).map(|index| W::answer(index, body(&mut rng))).collect();
    let (asked, answered) = (ends(&requests), ends(&answers));
    let one_by_one = rng.chance(50);
    let client_turns = {
        let (asked, answers) = (asked.clone(), answers.clone());
        Turns::new(move |received| {
            let told = W::got(received, &answers).len();
            asked[if one_by_one { (told + 1).min(count) } else { count }]
        })
    };
    // Before an answer, or in the middle of it.
    let pauses: VecDeque<_> = (0..count)
        .filter_map(|index| {
            let (pauses, is_within) = (rng.chance(30), rng.chance(25));
            let within = if is_within { answers[index].len() / 2 } else { 0 };
            pauses.then(|| (answered[index] + within, rng.below(4 * ALLOWED_NS)))
        })
        .collect();
    // What the server has read: netra's own lines are in it, so that requests are counted by their ends.
    let is_http = requests[0].starts_with(b"POST");
    let bodies: Vec<usize> = requests.iter().map(Vec::len).collect();
    let server_turns = Turns::new(move |received| {
        let whole = if is_http {
            whole_requests(received, count)
        } else {
            let mut at = 0;
            bodies
                .iter()
                .take_while(|len| {
                    at += **len;
                    at <= received.len()
                })
                .count()
        };
        answered[whole]
    });
    let ending = if rng.chance(10) {
        Ending::Reset(rng.len(answers.concat().len()))
    } else {
        Ending::AfterTheOther
    };
    let is_kind = ending == Ending::AfterTheOther;
    let client = Peer::scripted(&mut rng, requests.concat(), Ending::AfterSending, client_turns);
    let server = Peer::scripted(&mut rng, answers.concat(), ending, server_turns).pausing(pauses);
    let arrival = Arrival { at: 0, client, server, answer: Answer::AtOnce };
    let limits = Limits {
        direction_buffers_max: u32::try_from(rng.len(8)).unwrap(),
        splice_from_bytes: [0, 1, 4_096, 65_536][usize::try_from(rng.below(4)).unwrap()],
        half_close_linger: Duration::from_secs(3600),
        ..Limits::default()
    };
    let buffers = if rng.chance(30) { 6 } else { 512 };
    let (sink, spans) = spans::ring(1024, Waker::noop().clone());
    let parts = Parts {
        observer: Observer::new(http_config().tracing.as_ref(), 1, (Some(sink), None)),
        ..parts(limits, buffers, mpsc::channel().1)
    };
    let places: BTreeMap<u16, Elsewhere> = BTreeMap::new();
    let io = SimIo::outbound(rng, faults, vec![arrival], places);
    World { shard: Shard::new(io, W::parts(parts)), answers, spans, is_kind }
}

fn whole_requests(mut received: &[u8], count: usize) -> usize {
    let mut whole = 0;
    while whole < count
        && let Some(end) = crate::http_simulation::request_end(received)
    {
        (whole, received) = (whole + 1, &received[end..]);
    }
    whole
}

fn simulate<W: Wire>(seed: u64) -> (Arc<Recorder>, u64) {
    let mut world = world::<W>(seed);
    come_to_rest(seed, &mut world.shard);
    let shard = &world.shard;
    let core = &shard.core;
    assert_eq!(core.observer.open_spans(), 0, "{seed}: spans lost");
    assert_eq!(core.taps.held_bytes(), 0, "{seed}: held bytes miscounted");
    let left = [shard.delays.next(), shard.heads.next(), shard.answers.next()];
    assert_eq!(left, [None; 3], "{seed}: deadlines left behind");
    let client = &core.io.sockets[core.io.arrived[0]].peer;
    let got = W::got(&client.received, &world.answers);
    let mut indices: Vec<_> = got.iter().map(|(index, _)| *index).collect();
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), got.len(), "{seed}: a request is answered twice: {got:?}");
    let told = got.iter().filter(|(_, is_answer)| !is_answer).count() as u64;
    let timed_out = [0, 1].map(|what| core.recorder.get(Key::timed_out(what)));
    let is_cut = client.saw_reset;
    assert!(told <= timed_out[0], "{seed}: {told} were told, {timed_out:?} took too long");
    if world.is_kind && timed_out == [0, 0] {
        assert_eq!(got.len(), world.answers.len(), "{seed}: {got:?}, and nothing took too long");
    }
    assert!(is_cut || !world.is_kind || timed_out[1] == 0, "{seed}: nobody sees what is cut");
    let mut flagged = 0;
    while world.spans.drain(64, |span| {
        flagged += u64::from(span.fault.is_some_and(|fault| fault.flag == Flag::AnswerTimeout));
    }) > 0
    {}
    assert!(flagged >= told, "{seed}: {flagged} of {told} spans say why");
    for reason in Reason::ALL {
        let count = world.shard.core.recorder.get(Key::tunnel(*reason as usize));
        assert_eq!(count, 0, "{seed}: what is certain was given up: {reason}");
    }
    (Arc::clone(&world.shard.core.recorder), told)
}

fn reaches(runs: &[(Arc<Recorder>, u64)]) {
    if runs.len() < 256 {
        return;
    }
    assert!(runs.iter().any(|(_, told)| *told > 0), "nobody was told");
    for key in [Key::timed_out(0), Key::timed_out(1)] {
        assert!(runs.iter().any(|(recorder, _)| recorder.get(key) > 0), "no seed reaches {key:?}");
    }
}

#[test]
fn every_late_answer_of_redis_reaches_nobody() {
    reaches(&with_seed(simulate::<Redis>));
}

#[test]
fn every_late_answer_of_dubbo_reaches_nobody() {
    let runs = with_seed(simulate::<Dubbo>);
    reaches(&runs);
    // Others of the same connection are answered behind it.
    assert!(runs.len() < 256 || runs.iter().any(|(_, told)| *told > 1), "one at most");
}

#[test]
fn every_late_answer_of_http_reaches_nobody() {
    reaches(&with_seed(simulate::<Http>));
}
