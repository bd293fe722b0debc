//! HTTP conversations on the simulated kernel, seed by seed: bytes out are bytes in with exactly
//! the documented lines, every exchange has its span, and nothing is left behind.

use crate::{
    config::{HttpConfig, JoinLevel, Limits, TracingConfig},
    core::HttpCore,
    correlate::{Correlation, Keep, correlate, seed},
    exchange::Observer,
    io::{
        sim::{Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    joins::Shared,
    shard::{Command, Parts, Shard},
    simulation::{come_to_rest, parts, with_seed},
    spans::{self, SpanSource},
    sys,
};
use netra_codecs::h1::Reason;
use netra_codecs::trace::{
    Formats, Outcome, SpanText, TraceContext, TraceFlags,
    sampler::{SampleRule, SamplerPlan},
};
use netra_perf::{Key, Recorder};
use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    task::Waker,
    time::Duration,
};

/// Lines that netra puts into a request, or replaces.
const OWN: [&[u8]; 3] = [b"x-request-id", b"uber-trace-id", b"x-source"];

/// One request and its response.
pub(crate) struct Exchange {
    request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    status: u16,
}

fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| u8::try_from(rng.below(256)).unwrap()).collect()
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(5) {
        0 => 0,
        1 => rng.len(10),
        2 | 3 => rng.len(3_000),
        _ => rng.len(150_000),
    }
}

/// A body with the lines that frame it.
fn body(rng: &mut Rng) -> (String, Vec<u8>) {
    let len = size(rng);
    let content = bytes(rng, len);
    if rng.chance(60) {
        return (format!("Content-Length: {len}\r\n"), content);
    }
    let mut chunked = Vec::new();
    let mut rest = &content[..];
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rng.len(rest.len()));
        let extension = if rng.chance(20) { ";a=\"b\"" } else { "" };
        chunked.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend(b"\r\n");
        rest = after;
    }
    chunked.extend(if rng.chance(30) { &b"0\r\nT: r\r\n\r\n"[..] } else { b"0\r\n\r\n" });
    ("Transfer-Encoding: chunked\r\n".into(), chunked)
}

pub(crate) fn exchange(rng: &mut Rng, connection: usize, index: usize) -> Exchange {
    let is_head = rng.chance(10);
    let (framing, content) = if rng.chance(50) { (String::new(), vec![]) } else { body(rng) };
    let method = match (is_head, content.is_empty()) {
        (true, _) => "HEAD",
        (_, true) => "GET",
        _ => "POST",
    };
    let mut head = format!("{method} /{connection}/{index} HTTP/1.1\r\nhOST: shop\r\n");
    for line in [
        format!("X-Request-Id: id-{connection}-{index}\r\n"),
        "Uber-Trace-Id: 5f1:1111:0:1\r\n".into(),
        "uber-trace-id: nonsense\r\n".into(),
        format!("X-Long: {}\r\n", "v".repeat(rng.len(6_000))),
        "a:  b \r\n".into(),
    ] {
        if rng.chance(30) {
            head += &line;
        }
    }
    let mut request = (head + &framing + "\r\n").into_bytes();
    request.extend(content);
    let status = [200, 200, 204, 304, 404, 500][usize::try_from(rng.below(6)).unwrap()];
    let (framing, content) = body(rng);
    let mut response = Vec::new();
    for _ in 0..rng.below(3) {
        response.extend(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    }
    let has_body = !is_head && status != 204 && status != 304;
    let framing = if status == 204 { "" } else { &framing };
    response.extend(format!("HTTP/1.1 {status} \r\nServer: x\r\n{framing}\r\n").bytes());
    if has_body {
        response.extend(content);
    }
    Exchange { request, response, status }
}

/// Where a message ends that begins here; none while it is not whole. A `HEAD` or bodiless
/// response is the caller's to know: this is for requests.
pub(crate) fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = head_end(bytes)?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    if text.contains("\r\ntransfer-encoding: chunked\r\n") {
        let mut at = head;
        loop {
            let line = bytes[at..].windows(2).position(|w| w == b"\r\n")?;
            let size = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
            let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
            at += line + 2;
            if size == 0 {
                let trailers = bytes[at - 2..].windows(4).position(|w| w == b"\r\n\r\n")?;
                return Some(at + 2 + trailers);
            }
            at += size + 2;
            if at > bytes.len() {
                return None;
            }
        }
    }
    let length = text.split("content-length: ").nth(1).and_then(|t| t.split("\r\n").next());
    let end = head + length.map_or(0, |length| length.parse::<usize>().unwrap());
    (end <= bytes.len()).then_some(end)
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// A request without netra's lines, and how many of them it had.
pub(crate) fn without_own(request: &[u8]) -> (Vec<u8>, [usize; 3]) {
    let head = head_end(request).unwrap();
    let (mut kept, mut counts) = (Vec::new(), [0; 3]);
    for line in request[..head - 2].split_inclusive(|b| *b == b'\n') {
        let name = line.split(|b| *b == b':').next().unwrap().to_ascii_lowercase();
        match OWN.iter().position(|own| **own == name) {
            Some(own) => counts[own] += 1,
            None => kept.extend_from_slice(line),
        }
    }
    kept.extend_from_slice(&request[head - 2..]);
    (kept, counts)
}

/// A server that answers each request when it has come whole.
pub(crate) fn server(rng: &mut Rng, exchanges: &[Exchange]) -> Peer {
    let mut ends = vec![0];
    for exchange in exchanges {
        ends.push(ends[ends.len() - 1] + exchange.response.len());
    }
    let (mut whole, mut seen) = (0, 0);
    let turns = Turns::new(move |received| {
        while whole + 1 < ends.len()
            && let Some(end) = request_end(&received[seen..])
        {
            (whole, seen) = (whole + 1, seen + end);
        }
        ends[whole]
    });
    let sends: Vec<u8> = exchanges.iter().flat_map(|e| e.response.clone()).collect();
    let ending = match rng.below(10) {
        0 => Ending::Reset(rng.len(sends.len()) - 1),
        _ => Ending::AfterTheOther,
    };
    Peer::scripted(rng, sends, ending, turns)
}

/// A client that pipelines, or waits for each response.
pub(crate) fn client(rng: &mut Rng, exchanges: &[Exchange]) -> Peer {
    let waits = rng.chance(50);
    let (mut asked, mut answered) = (vec![], vec![]);
    let (mut request, mut response) = (0, 0);
    for exchange in exchanges {
        request += exchange.request.len();
        asked.push(request);
        answered.push(response);
        response += exchange.response.len();
    }
    let turns = Turns::new(move |received| {
        let open = answered.iter().take_while(|need| !waits || received.len() >= **need).count();
        asked[open - 1]
    });
    let sends = exchanges.iter().flat_map(|e| e.request.clone()).collect();
    let ending = match rng.below(10) {
        0 => Ending::Reset(rng.len(request)),
        _ => Ending::AfterSending,
    };
    Peer::scripted(rng, sends, ending, turns)
}

struct World {
    shard: Shard<SimIo>,
    commands: mpsc::Sender<Command>,
    spans: SpanSource,
    conversations: Vec<Vec<Exchange>>,
}

pub(crate) fn http_config() -> HttpConfig {
    let plan = SamplerPlan { rule: SampleRule::Const(true), parent_based: true, is_remote: false };
    HttpConfig {
        ports: (1..1000).collect(),
        tracing: Some(TracingConfig {
            join: JoinLevel::Tx,
            formats: Formats::UBER,
            wide_ids: false,
            sampler: Arc::new(plan),
            ignored_paths: Box::default(),
            header_tags: Box::default(),
            cookie_tags: Box::default(),
            spans_max: 1024,
            waker: Waker::noop().clone(),
        }),
        ..HttpConfig::default()
    }
}

/// A peer fills the mailbox of a shard that has no connection and therefore never looks: that is
/// what it is woken for.
#[test]
fn a_shard_that_is_woken_empties_its_mailbox() {
    let wakers = [sys::eventfd().unwrap(), sys::eventfd().unwrap()];
    let ttl = Duration::from_secs(5);
    let keep = Keep { entries_max: 4096, context_ttl: ttl, route_ttl: ttl };
    let [mut peer, own] = correlate(seed(), keep, &wakers).try_into().unwrap();
    let (commands, receiver) = mpsc::channel();
    let recorder = Arc::new(Recorder::default());
    let parts = Parts {
        index: 1,
        http: Some(Box::new(HttpCore::new(&http_config(), own))),
        recorder: Arc::clone(&recorder),
        ..parts(Limits::default(), 8, receiver)
    };
    let mut shard = Shard::new(SimIo::new(Rng::new(1), Faults::NONE, vec![]), parts);
    for number in 1..=5_000_u64 {
        let key = peer.key(&number.to_le_bytes());
        peer.remember_context(key, TraceContext::root(1, number, TraceFlags::SAMPLED), 1);
        if sys::eventfd_clear(wakers[1]) {
            shard.core.io.wake();
            let wait = shard.park();
            shard.turn(wait).unwrap();
        }
    }
    peer.record(&recorder);
    assert_eq!(recorder.get(Key::REPLICATION_DROPPED), 0);
    wakers.into_iter().for_each(sys::close);
    drop(commands);
}

fn world(seed_: u64) -> World {
    let mut rng = Rng::new(seed_);
    let faults = Faults::draw(&mut rng);
    let count = rng.len(8);
    let conversations: Vec<Vec<Exchange>> = (0..count)
        .map(|connection| {
            (0..rng.len(6)).map(|index| exchange(&mut rng, connection, index)).collect()
        })
        .collect();
    let arrivals = conversations
        .iter()
        .enumerate()
        .map(|(index, exchanges)| Arrival {
            // In order, so that the descriptor tells which conversation it is.
            at: index as u64 * 1_000_000,
            client: client(&mut rng, exchanges),
            server: server(&mut rng, exchanges),
            answer: if rng.chance(50) { Answer::AtOnce } else { Answer::After(rng.below(5_000)) },
        })
        .collect();
    let Stage { shard, commands, spans } = stage(rng, faults, arrivals);
    World { shard, commands, spans, conversations }
}

/// Limits of a shard that messages go through, and how many buffers it has: often too few.
pub(crate) fn room(rng: &mut Rng) -> (Limits, u32) {
    let limits = Limits {
        direction_buffers_max: u32::try_from(rng.len(8)).unwrap(),
        splice_from_bytes: [0, 1, 4_096, 65_536][usize::try_from(rng.below(4)).unwrap()],
        pipes_max: u32::try_from(rng.len(8)).unwrap(),
        // A server may read so slowly that it has the request later than the usual linger.
        half_close_linger: Duration::from_secs(3600),
        ..Limits::default()
    };
    let buffers = if rng.chance(50) { u32::try_from(rng.len(8)).unwrap() } else { 512 };
    (limits, buffers)
}

/// What such a shard remembers by request id: all of it is its own.
pub(crate) fn correlation() -> Correlation {
    let ttl = Duration::from_secs(5);
    let keep = Keep { entries_max: 4096, context_ttl: ttl, route_ttl: ttl };
    correlate(seed(), keep, &[-1]).remove(0)
}

/// A shard that reads HTTP and traces every request, and what it is driven and looked at by.
pub(crate) struct Stage {
    pub(crate) shard: Shard<SimIo>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) spans: SpanSource,
}

pub(crate) fn stage(mut rng: Rng, faults: Faults, arrivals: Vec<Arrival>) -> Stage {
    let (limits, buffers) = room(&mut rng);
    let config = http_config();
    let (sink, spans) =
        spans::ring(config.tracing.as_ref().unwrap().spans_max, Waker::noop().clone());
    let (commands, receiver) = mpsc::channel();
    let parts = Parts {
        http: Some(Box::new(HttpCore::new(&config, correlation()))),
        observer: Observer::new(config.tracing.as_ref(), 1, (Some(sink), None)).joining(
            &Shared::new(1),
            0,
            JoinLevel::Tx,
        ),
        ..parts(limits, buffers, receiver)
    };
    Stage { shard: Shard::new(SimIo::new(rng, faults, arrivals), parts), commands, spans }
}

/// What became of the requests of one connection at its server.
fn check_requests(seed: u64, sent: &[Exchange], mut received: &[u8], whole: bool) {
    for (index, exchange) in sent.iter().enumerate() {
        let Some(end) = request_end(received) else {
            assert!(!whole, "{seed}: request {index} never came");
            return;
        };
        let (kept, counts) = without_own(&received[..end]);
        let (expected, _) = without_own(&exchange.request);
        assert!(kept == expected, "{seed}: request {index} was changed");
        let shown = String::from_utf8_lossy(
            &received[head_end(received).unwrap().saturating_sub(200)..head_end(received).unwrap()],
        );
        assert_eq!(counts, [1, 1, 0], "{seed}: own lines of request {index}: {shown}");
        received = &received[end..];
    }
    assert!(received.is_empty(), "{seed}: more than was sent");
}

fn check_connection(seed: u64, world: &World, downstream: usize, exchanges: &[Exchange]) -> bool {
    let io = &world.shard.core.io;
    let client = &io.sockets[downstream].peer;
    let Some(server) = io.upstream_of(downstream).map(|fd| &io.sockets[fd].peer) else {
        return false;
    };
    assert!(server.sends().starts_with(&client.received), "{seed}: response bytes changed");
    let resets = client.resets() || server.resets();
    let broken = resets || client.saw_reset || server.saw_reset;
    check_requests(seed, exchanges, &server.received, !broken);
    if !broken {
        assert_eq!(client.received.len(), server.sends().len(), "{seed}: response bytes lost");
        assert!(client.saw_end && server.saw_end, "{seed}: an end was not passed on");
    }
    !broken
}

fn check_spans(seed: u64, world: &mut World, whole: &[bool]) {
    let mut seen = BTreeMap::new();
    while world.spans.drain(64, |span| {
        let target = String::from_utf8(span.text(SpanText::Target).unwrap().to_vec()).unwrap();
        let twice = seen.insert(target.clone(), (span.status, span.outcome));
        assert_eq!(twice, None, "{seed}: two spans for {target}");
    }) > 0
    {}
    for (connection, exchanges) in world.conversations.iter().enumerate() {
        for (index, exchange) in exchanges.iter().enumerate() {
            let span = seen.get(&format!("/{connection}/{index}"));
            if whole[connection] {
                assert_eq!(span, Some(&(exchange.status, Outcome::Whole)), "{seed}: {index}");
            }
        }
    }
}

fn simulate(seed: u64) -> Arc<Recorder> {
    let mut world = world(seed);
    come_to_rest(seed, &mut world.shard);
    let shard = &world.shard;
    let http = shard.core.http.as_deref().unwrap();
    assert_eq!(shard.core.observer.open_spans(), 0, "{seed}: spans lost");
    assert_eq!(http.held_bytes(), 0, "{seed}: held bytes miscounted");
    let reasons = Reason::ALL
        .iter()
        .filter(|reason| shard.core.recorder.get(Key::opaque(**reason as usize)) > 0);
    let reasons: Vec<_> = reasons.collect();
    assert!(reasons.is_empty(), "{seed}: what is certain turned opaque: {reasons:?}");
    let downstreams = shard.core.io.arrived.clone();
    let whole: Vec<_> = (0..world.conversations.len())
        .map(|index| {
            let downstream = downstreams.get(index).copied();
            downstream
                .is_some_and(|fd| check_connection(seed, &world, fd, &world.conversations[index]))
        })
        .collect();
    check_spans(seed, &mut world, &whole);
    let recorder = Arc::clone(&world.shard.core.recorder);
    drop(world.commands);
    recorder
}

#[test]
fn every_seed_keeps_bytes_and_has_its_spans() {
    let recorders = with_seed(simulate);
    if recorders.len() < 256 {
        return;
    }
    for key in [
        Key::SPLICE_BYTES,
        Key::PIPE_STARVED,
        Key::BUFFER_STARVED,
        Key::BACK_PRESSURE,
        Key::request(0, 0, 2),
        Key::request(0, 1, 3),
        Key::request(0, 2, 5),
        Key::request(0, 0, 0),
    ] {
        assert!(recorders.iter().any(|r| r.get(key) > 0), "no seed reaches {key:?}");
    }
}
