//! Conversations through a gate on the simulated kernel, seed by seed: what is passed comes as it is
//! to be, in order; who is refused is told so in his turn; nothing waits for ever, and nothing is
//! left behind.

use crate::{
    exchange::{Asker, Decide, Gates, Observer, Place, Ruling, Reads, Taps},
    http_simulation::{http_config, room},
    io::{
        sim::{Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    shard::{Command, Shard},
    simulation::{come_to_rest, parts, with_seed},
    spans::{self, SpanSource},
    sys::Nanos,
};
use netra_codecs::{
    codec::{Edits, Head, Key as Wanted, Pairs, Reason, Refusal, Way, Why},
    route::Target,
    tap::{Message, Protocol, Step, Tap},
    trace::{Outcome, SpanText},
};
use netra_perf::{Key, Recorder};
use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
    task::Waker,
};

const TOLD: Refusal<'static> =
    Refusal { why: Why::Limited, text: "netra: rule \"few\"", is_alone: true };

/// Decides by the first letter of the key, or of the method: refuses, lets wait, or both.
#[derive(Debug)]
struct ByLetter;

fn letter(message: &Message<'_>) -> u8 {
    let key = [Wanted::RedisKey, Wanted::Method, Wanted::Topic];
    let key = key.into_iter().find_map(|key| message.value(key));
    key.and_then(|key| key.first().copied()).unwrap_or(b'p')
}

impl Decide for ByLetter {
    fn concerns(&self, _: &Asker, _: Protocol) -> bool {
        true
    }

    fn decide(
        &mut self,
        message: &Message<'_>,
        _: (&Asker, Option<&netra_rules::Seat>),
        pairs: &mut Pairs,
        _: Nanos,
        _: u64,
    ) -> Ruling<'_> {
        let letter = letter(message);
        if letter == b'e' {
            pairs.add(b"netra-rule", b"yes").unwrap();
        }
        Ruling {
            refusal: matches!(letter, b'r' | b'x').then_some(TOLD),
            delay_ns: if matches!(letter, b'w' | b'x') { 3_000_000 } else { 0 },
            answer: u32::from(letter == b'a'),
            ..Ruling::default()
        }
    }

    fn target(&self, _: Place, _: SocketAddr) -> Option<Target> {
        None
    }

    fn answer(&self, number: u32, pairs: &mut Pairs) {
        assert_eq!(number, 1);
        pairs.add(b"netra-answer", b"yes").unwrap();
    }
}

/// A request and what becomes of it.
#[derive(Clone, Debug)]
struct Exchange {
    request: Vec<u8>,
    /// What the server gets; nothing where it is refused.
    passed: Vec<u8>,
    /// What the server says.
    response: Vec<u8>,
    /// What the client gets.
    told: Vec<u8>,
    name: &'static str,
    is_refused: bool,
}

/// A message with what is put into it, or what is said instead of an answer.
fn written(protocol: Protocol, parts: [&[u8]; 2], pair: &[u8], refused: bool) -> Vec<u8> {
    let (mut tap, mut head, mut edits) = (Tap::<()>::new(protocol), Head::default(), Edits::new());
    let mut pairs = Pairs::new();
    pairs.add(pair, b"yes").unwrap();
    let limits = netra_codecs::Limits::DEFAULT;
    let mut out = Vec::new();
    for (way, bytes) in [Way::Request, Way::Response].into_iter().zip(parts) {
        out.clear();
        match tap.step(way, bytes, &limits, 1, &mut head) {
            Step::Opened { message, .. } if refused => {
                let _ = message.reply(&TOLD, &mut out);
                return out;
            }
            Step::Opened { message, .. } | Step::Finished { message: Some(message), .. } => {
                message.edit(&pairs, &mut edits).unwrap();
                out.extend(edits.pieces(message.bytes()).flat_map(|it| it.bytes().to_vec()));
                out.extend_from_slice(&bytes[message.bytes().len()..]);
            }
            _ => {}
        }
        if parts[1].is_empty() {
            break;
        }
    }
    out
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(4) {
        0 | 1 => rng.len(100),
        2 => rng.len(5_000),
        _ => rng.len(150_000),
    }
}

fn pick(rng: &mut Rng, letters: &[u8]) -> u8 {
    letters[usize::try_from(rng.below(letters.len() as u64)).unwrap()]
}

fn redis(rng: &mut Rng) -> Exchange {
    let letter = pick(rng, b"pppprwx");
    let key = [&[letter][..], &vec![b'k'; rng.len(20)]].concat();
    let value = vec![b'v'; size(rng)];
    let request = [
        &format!("*3\r\n$3\r\nSET\r\n${}\r\n", key.len()).into_bytes()[..],
        &key,
        format!("\r\n${}\r\n", value.len()).as_bytes(),
        &value,
        b"\r\n",
    ]
    .concat();
    let mut response = match rng.below(3) {
        0 => b"+OK\r\n".to_vec(),
        1 => b"-WRONGTYPE no\r\n".to_vec(),
        _ => {
            let len = size(rng);
            [format!("${len}\r\n").as_bytes(), &vec![b'r'; len], b"\r\n"].concat()
        }
    };
    let is_refused = matches!(letter, b'r' | b'x');
    let (mut passed, mut told) = (request.clone(), response.clone());
    if is_refused {
        told = written(Protocol::Redis, [&request, b""], b"-", true);
        (passed, response) = (Vec::new(), Vec::new());
    }
    Exchange { request, passed, response, told, name: "SET", is_refused }
}

fn frame(flags: u8, status: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xda, 0xbb, flags, status][..], &id.to_be_bytes(), &len, body].concat()
}

fn dubbo(rng: &mut Rng, id: u64) -> Exchange {
    let letter = pick(rng, b"ppeeearwx");
    let is_oneway = letter != b'a' && rng.chance(20);
    // What is to be edited lies in the head of its message.
    let len = if matches!(letter, b'e' | b'a') { rng.len(3_000) } else { size(rng) };
    let strings = [&b"\x052.0.2\x06org.It\x00\x02"[..], &[letter, b'y'], b"\x02[B"].concat();
    let argument: Vec<u8> = vec![b'x'; len].chunks(60_000).fold(Vec::new(), |mut all, chunk| {
        let is_last = all.len() + chunk.len() + 3 * (len / 60_000) >= len;
        all.push(if is_last { b'B' } else { b'A' });
        all.extend(u16::try_from(chunk.len()).unwrap().to_be_bytes());
        all.extend_from_slice(chunk);
        all
    });
    let body = [&strings[..], &argument, b"H\x01a\x01bZ"].concat();
    let request = frame(if is_oneway { 0x82 } else { 0xc2 }, 0, id, &body);
    let value = vec![b'r'; rng.len(9).pow(2)];
    let answered = [&[0x94][..], &[0x20 + 5], &[7; 5], b"H\x01r\x01bZ"].concat();
    let other = [&[0x91][..], b"B", &u16::try_from(value.len()).unwrap().to_be_bytes(), &value];
    let body = if letter == b'a' { answered } else { other.concat() };
    let mut response = frame(2, 20, id, &body);
    let is_refused = matches!(letter, b'r' | b'x');
    let (mut passed, mut told) = (request.clone(), response.clone());
    if is_oneway {
        (response, told) = (Vec::new(), Vec::new());
    }
    match letter {
        b'e' => passed = written(Protocol::Dubbo, [&request, b""], b"netra-rule", false),
        b'a' => told = written(Protocol::Dubbo, [&request, &response], b"netra-answer", false),
        b'r' | b'x' => {
            if !is_oneway {
                told = written(Protocol::Dubbo, [&request, b""], b"-", true);
            }
            (passed, response) = (Vec::new(), Vec::new());
        }
        _ => {}
    }
    Exchange { request, passed, response, told, name: "org.It/", is_refused }
}

/// What is published may be refused; its content is cut off by a frame of another channel, whose first
/// bytes say so.
fn amqp(rng: &mut Rng) -> [Exchange; 2] {
    let frame = |kind: u8, channel: u8, payload: &[u8]| {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, channel], &len[..], payload, &[0xce]].concat()
    };
    let letter = pick(rng, b"ppr");
    let publish = frame(1, 1, &[&[0, 60, 0, 40, 0, 0, 2, letter, b'x'][..], b"\x01k\0"].concat());
    let is_refused = letter == b'r';
    let published = Exchange {
        passed: if is_refused { Vec::new() } else { publish.clone() },
        request: publish,
        response: Vec::new(),
        told: Vec::new(),
        name: "basic.publish ",
        is_refused,
    };
    let declare = frame(1, 2, &[&[0, 50, 0, 10, 0, 0, 2, b'p', b'q', 0][..], &[0; 4]].concat());
    let declared = frame(1, 2, &[&[0, 50, 0, 11, 2, b'p', b'q'][..], &[0; 8]].concat());
    let declared = Exchange {
        request: declare.clone(),
        passed: declare,
        response: declared.clone(),
        told: declared,
        name: "queue.declare pq",
        is_refused: false,
    };
    [published, declared]
}

/// The beginning of its connection, which has no span.
fn amqp_begin() -> Exchange {
    let (request, response) = (b"AMQP\0\0\x09\x01", b"\x01\0\0\0\0\0\x06\0\x0a\0\x0a\0\x09\xce");
    Exchange {
        request: request.to_vec(),
        passed: request.to_vec(),
        response: response.to_vec(),
        told: response.to_vec(),
        name: "",
        is_refused: false,
    }
}

fn ends(exchanges: &[Exchange], of: fn(&Exchange) -> usize) -> Vec<usize> {
    let sums = exchanges.iter().scan(0, |sum, it| {
        *sum += of(it);
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

fn peers(rng: &mut Rng, exchanges: &[Exchange]) -> (Peer, Peer) {
    let waits = rng.chance(50);
    let asked = ends(exchanges, |it| it.request.len());
    let told = ends(exchanges, |it| it.told.len());
    let (passed, answered) =
        (ends(exchanges, |it| it.passed.len()), ends(exchanges, |it| it.response.len()));
    let client_turns = Turns::new(move |received| {
        let all = asked.len() - 1;
        let whole = told.iter().skip(1).take_while(|end| received.len() >= **end);
        asked[if waits { (whole.count() + 1).min(all) } else { all }]
    });
    let server_turns = Turns::new(move |received| {
        answered[passed.iter().skip(1).take_while(|end| received.len() >= **end).count()]
    });
    let ending = |rng: &mut Rng, len: usize, otherwise| match rng.below(10) {
        0 if len > 0 => Ending::Reset(rng.len(len) - 1),
        _ => otherwise,
    };
    let all = |of: fn(&Exchange) -> &Vec<u8>| exchanges.iter().flat_map(of).copied().collect();
    let (requests, responses): (Vec<u8>, Vec<u8>) = (all(|it| &it.request), all(|it| &it.response));
    let of_client = ending(rng, requests.len(), Ending::AfterSending);
    let of_server = ending(rng, responses.len(), Ending::AfterTheOther);
    let client = Peer::scripted(rng, requests, of_client, client_turns);
    (client, Peer::scripted(rng, responses, of_server, server_turns))
}

struct World {
    shard: Shard<SimIo>,
    _commands: mpsc::Sender<Command>,
    spans: SpanSource,
    conversations: Vec<Vec<Exchange>>,
}

fn world(seed: u64, protocol: Protocol) -> World {
    let mut rng = Rng::new(seed);
    let faults = Faults::draw(&mut rng);
    let conversations: Vec<Vec<_>> = (0..rng.len(6))
        .map(|_| match protocol {
            Protocol::Redis => (0..rng.len(8)).map(|_| redis(&mut rng)).collect(),
            Protocol::Amqp => {
                let pairs = (0..rng.len(8)).flat_map(|_| amqp(&mut rng));
                std::iter::once(amqp_begin()).chain(pairs).collect()
            }
            _ => (0..rng.len(8)).map(|id| dubbo(&mut rng, id as u64)).collect(),
        })
        .collect();
    let arrivals = conversations.iter().enumerate().map(|(index, conversation)| {
        let (client, server) = peers(&mut rng, conversation);
        let answer = if rng.chance(50) { Answer::AtOnce } else { Answer::After(rng.below(5_000)) };
        // In order, so that the descriptor tells which conversation it is.
        Arrival { at: index as u64 * 1_000_000, client, server, answer }
    });
    let arrivals = arrivals.collect();
    let (limits, buffers) = room(&mut rng);
    let ports: Vec<String> = (1..=999).map(|port| format!("{port}={protocol}")).collect();
    let ports = ports.join(",").parse().unwrap();
    let (sink, spans) = spans::ring(1024, Waker::noop().clone());
    let (commands, receiver) = mpsc::channel();
    let parts = crate::shard::Parts {
        recorder: Arc::new(Recorder::of(&Reads::on(&ports).tables())),
        observer: Observer::new(http_config().tracing.as_ref(), 1, (Some(sink), None)),
        taps: Taps::new(Reads::on(&ports), netra_codecs::Limits::DEFAULT, 1 << 20),
        gates: Gates { decides: Some(Box::new(ByLetter)), ..Gates::default() },
        ..parts(limits, buffers, receiver)
    };
    let shard = Shard::new(SimIo::new(rng, faults, arrivals), parts);
    World { shard, _commands: commands, spans, conversations }
}

/// Frames of Dubbo, sorted: the answers of servers and our own may come in any order. The last may
/// not be whole.
fn frames(bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some(len) = rest.get(12..16) {
        let len = 16 + u32::from_be_bytes(len.try_into().unwrap()) as usize;
        let Some(frame) = rest.get(..len) else { break };
        frames.push(frame);
        rest = &rest[len..];
    }
    frames.sort_unstable();
    (frames, rest)
}

/// Bytes came out as they are to be; says whether all of them did.
fn check_bytes(seed: u64, world: &World, index: usize, protocol: Protocol) -> bool {
    let io = &world.shard.core.io;
    let Some(downstream) = io.arrived.get(index) else { return false };
    let client = &io.sockets[*downstream].peer;
    let Some(server) = io.upstream_of(*downstream).map(|fd| &io.sockets[fd].peer) else {
        return false;
    };
    let exchanges = &world.conversations[index];
    let passed: Vec<u8> = exchanges.iter().flat_map(|it| it.passed.clone()).collect();
    let told: Vec<u8> = exchanges.iter().flat_map(|it| it.told.clone()).collect();
    assert!(passed.starts_with(&server.received), "{seed}: requests are not as they should be");
    let broken = client.resets() || server.resets() || client.saw_reset || server.saw_reset;
    if protocol != Protocol::Dubbo {
        assert!(told.starts_with(&client.received), "{seed}: answers are not as they should be");
    } else {
        let ((came, rest), (expected, _)) = (frames(&client.received), frames(&told));
        assert!(came.iter().all(|frame| expected.contains(frame)), "{seed}: an odd answer");
        assert!(expected.iter().any(|frame| frame.starts_with(rest)) || rest.is_empty(), "{seed}");
        assert!(broken || came == expected, "{seed}: answers lost");
    }
    if !broken {
        assert_eq!(server.received.len(), passed.len(), "{seed}: requests lost");
        assert_eq!(client.received.len(), told.len(), "{seed}: answers lost");
    }
    !broken
}

fn simulate(seed: u64, protocol: Protocol) -> Arc<Recorder> {
    let mut world = world(seed, protocol);
    come_to_rest(seed, &mut world.shard);
    let core = &world.shard.core;
    assert_eq!(core.observer.open_spans(), 0, "{seed}: spans lost");
    assert_eq!(core.taps.held_bytes(), 0, "{seed}: held bytes miscounted");
    assert_eq!((world.shard.delays.next(), world.shard.heads.next()), (None, None), "{seed}");
    let mut spans = Vec::new();
    while world.spans.drain(64, |span| {
        let operation = String::from_utf8(span.text(SpanText::Operation).unwrap().into()).unwrap();
        let is_refused = span.text(SpanText::Error) == Some(b"limited");
        spans.push((operation, span.outcome, is_refused));
    }) > 0
    {}
    for index in 0..world.conversations.len() {
        if !check_bytes(seed, &world, index, protocol) {
            continue;
        }
        for exchange in world.conversations[index].iter().filter(|it| !it.name.is_empty()) {
            let found = spans.iter().position(|(name, outcome, is_refused)| {
                let told = exchange.is_refused && !exchange.told.is_empty();
                name.starts_with(exchange.name) && *outcome == Outcome::Whole && *is_refused == told
            });
            let found = found.unwrap_or_else(|| {
                let (name, told) = (exchange.name, exchange.told.escape_ascii());
                panic!("{seed}: no span of {name} {told} among {spans:?}")
            });
            spans.swap_remove(found);
        }
    }
    for reason in Reason::ALL {
        let count = world.shard.core.recorder.get(Key::tunnel(*reason as usize));
        assert_eq!(count, 0, "{seed}: what is certain was given up: {reason}");
    }
    Arc::clone(&world.shard.core.recorder)
}

#[test]
fn every_seed_tells_the_refused_in_their_turn() {
    let recorders = with_seed(|seed| simulate(seed, Protocol::Redis));
    if recorders.len() < 256 {
        return;
    }
    let limited = Key::refused(Why::Limited as usize);
    for key in [Key::SPLICE_BYTES, Key::PIPE_STARVED, Key::BUFFER_STARVED, limited] {
        assert!(recorders.iter().any(|r| r.get(key) > 0), "no seed reaches {key:?}");
    }
}

/// What one message took of the next is not refused with it, nor sent before that is decided about.
#[test]
fn every_seed_refuses_a_message_and_not_the_beginning_of_the_next() {
    let recorders = with_seed(|seed| simulate(seed, Protocol::Amqp));
    let limited = Key::refused(Why::Limited as usize);
    assert!(recorders.len() < 256 || recorders.iter().any(|r| r.get(limited) > 0));
}

#[test]
fn every_seed_edits_what_it_is_to_edit() {
    let recorders = with_seed(|seed| simulate(seed, Protocol::Dubbo));
    if recorders.len() < 256 {
        return;
    }
    for key in [Key::SPLICE_BYTES, Key::BUFFER_STARVED, Key::edited(0)] {
        assert!(recorders.iter().any(|r| r.get(key) > 0), "no seed reaches {key:?}");
    }
}
