//! Messages of one connection that go by several upstreams at a time, on the simulated kernel. Each
//! request and each answer has a tag: every request reaches one server, is answered at most once and
//! with its own answer, nothing is put between the bytes of another, order is kept where the protocol
//! has one, nothing waits for ever, and no leg is left.

use crate::{
    config::Limits,
    connection::{Connection, Phase},
    exchange::{Gates, Observer, Reads, Taps},
    http_simulation::http_config,
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    moves_simulation::ByDigit,
    route_simulation::limits,
    shard::{Command, Shard},
    simulation::{TURNS_MAX, parts, with_seed},
    spans,
};
use netra_codecs::{route::Target, tap::Protocol};
use netra_perf::{Key, Recorder};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    task::Waker,
};

const REQUESTS_MAX: usize = 24;
/// Where a message is sent, by the digit in its key; the first is the original destination.
pub(crate) const PLACES: [u16; 8] = [1, 40_001, 40_002, 40_003, 40_004, 40_005, 40_006, 40_007];
const GOOD: usize = 4;
/// Places that refuse the dial, say nothing to it, and of those that are unkind.
const REFUSES: usize = 4;
const SILENT: usize = 5;

/// Where the digit in a key leads.
pub(crate) fn target(digit: usize) -> Option<Target> {
    Target::parse(format!("10.0.0.8:{}", PLACES[digit]).as_bytes())
}

/// A protocol, as clients and servers of these tests speak it. Tags are below 1,000.
pub(crate) trait Wire {
    const PROTOCOL: Protocol;
    /// Ids tell answers apart, which come as they like.
    const HAS_IDS: bool;
    /// Requests need not be answered.
    const HAS_ONEWAY: bool;

    fn request(key: &str, tag: usize, body: &[u8], is_oneway: bool) -> Vec<u8>;

    /// An answer to this tag that says so.
    fn says(tag: usize, text: &str) -> Vec<u8>;

    fn answer(port: u16, tag: usize) -> Vec<u8> {
        Self::says(tag, &said(port, tag))
    }

    /// Where the request ends that the bytes begin with, its tag, and whether it is answered.
    fn request_end(bytes: &[u8]) -> Option<(usize, usize, bool)>;
    /// Where the answer ends that the bytes begin with, and which id it has; whether it is a refusal.
    fn answer_end(bytes: &[u8]) -> Option<(usize, usize, bool)>;
}

/// What an answer says: who gives it and to what, as long as its tag wants it.
pub(crate) fn said(port: u16, tag: usize) -> String {
    let len = if tag.is_multiple_of(5) { tag * 977 % 40_000 } else { tag % 7 };
    format!(
        "{port:05}:{tag:03}:{}",
        char::from(b'a' + u8::try_from(tag % 26).unwrap()).to_string().repeat(len)
    )
}

pub(crate) struct Redis;

pub(crate) fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    Some(bytes.get(from..)?.windows(2).position(|two| two == b"\r\n")? + from + 2)
}

pub(crate) fn number(bytes: &[u8]) -> usize {
    str::from_utf8(bytes)
        .unwrap()
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{}", bytes.escape_ascii()))
}

impl Wire for Redis {
    const PROTOCOL: Protocol = Protocol::Redis;
    const HAS_IDS: bool = false;
    const HAS_ONEWAY: bool = false;

    fn request(key: &str, tag: usize, body: &[u8], _: bool) -> Vec<u8> {
        let len = body.len() + 3;
        let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${len}\r\n{tag:03}", key.len());
        [head.as_bytes(), body, b"\r\n"].concat()
    }

    fn says(_: usize, text: &str) -> Vec<u8> {
        format!("${}\r\n{text}\r\n", text.len()).into_bytes()
    }

    fn request_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let (mut at, mut tag) = (4, 0);
        for _ in 0..3 {
            let line = line_end(bytes, at)?;
            let len = number(&bytes[at + 1..line]);
            at = line + len + 2;
            tag = if at <= bytes.len() { bytes[line..].get(..3).map_or(0, digits) } else { 0 };
        }
        (at <= bytes.len()).then_some((at, tag, true))
    }

    fn answer_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let line = line_end(bytes, 0)?;
        if bytes[0] == b'-' {
            assert!(bytes.starts_with(b"-ERR netra: "), "{}", bytes.escape_ascii());
            return Some((line, 0, true));
        }
        let end = line + number(&bytes[1..line]) + 2;
        (end <= bytes.len()).then_some((end, 0, false))
    }
}

pub(crate) fn digits(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .filter(|it| it.is_ascii_digit())
        .fold(0, |sum, it| sum * 10 + usize::from(it - b'0'))
}

pub(crate) struct Dubbo;

pub(crate) fn dubbo_frame(flags: u8, status: u8, id: usize, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xda, 0xbb, flags, status][..], &(id as u64).to_be_bytes(), &len, body].concat()
}

fn be(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

impl Wire for Dubbo {
    const PROTOCOL: Protocol = Protocol::Dubbo;
    const HAS_IDS: bool = true;
    const HAS_ONEWAY: bool = true;

    fn request(key: &str, tag: usize, body: &[u8], is_oneway: bool) -> Vec<u8> {
        let key_len = u8::try_from(key.len()).unwrap();
        let strings = [&b"\x052.0.2\x06org.It\x00"[..], &[key_len], key.as_bytes(), b"\x02[B"];
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        let body = [&strings.concat()[..], b"B", &len, body, b"HZ"].concat();
        dubbo_frame(if is_oneway { 0x82 } else { 0xc2 }, 0, tag, &body)
    }

    fn says(tag: usize, text: &str) -> Vec<u8> {
        dubbo_frame(2, 20, tag, &[b"\x91", text.as_bytes()].concat())
    }

    fn request_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let len = be(bytes.get(12..16)?) + 16;
        (len <= bytes.len()).then(|| (len, be(&bytes[4..12]), bytes[2] & 0x40 != 0))
    }

    fn answer_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let len = be(bytes.get(12..16)?) + 16;
        assert_eq!(bytes[..2], [0xda, 0xbb], "no frame: {}", bytes[..16].escape_ascii());
        let text = String::from_utf8_lossy(bytes.get(16..len)?);
        Some((len, be(&bytes[4..12]), text.contains("netra: ") || text.contains("busy")))
    }
}

/// With ids that all of its requests share.
pub(crate) struct Thrift;

pub(crate) fn thrift_frame(kind: u8, name: &str, field: u8, value: &[u8]) -> Vec<u8> {
    let len = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    let parts = [&[0x80, 1, 0, kind][..], &len(name.len()), name.as_bytes(), &len(7)];
    let field = [&[11, 0, field][..], &len(value.len()), value, &[0]].concat();
    let message = [&parts.concat()[..], &field].concat();
    [&len(message.len())[..], &message].concat()
}

impl Wire for Thrift {
    const PROTOCOL: Protocol = Protocol::Thrift;
    const HAS_IDS: bool = false;
    const HAS_ONEWAY: bool = true;

    fn request(key: &str, tag: usize, body: &[u8], is_oneway: bool) -> Vec<u8> {
        let body = [format!("{tag:03}").as_bytes(), body].concat();
        // The service is not named in the answer.
        thrift_frame(if is_oneway { 4 } else { 1 }, &format!("{key}:call"), 1, &body)
    }

    fn says(_: usize, text: &str) -> Vec<u8> {
        thrift_frame(2, "call", 0, text.as_bytes())
    }

    fn request_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let len = be(bytes.get(..4)?) + 4;
        let frame = bytes.get(..len)?;
        let name = be(&frame[8..12]);
        Some((len, digits(&frame[23 + name..][..3]), frame[7] == 1))
    }

    fn answer_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let len = be(bytes.get(..4)?) + 4;
        Some((len, 0, bytes.get(..len)?[7] == 3))
    }
}

/// A server that says to each request where it is and what it was asked, in an order of its own where
/// ids allow it.
pub(crate) fn server<W: Wire>(rng: &mut Rng, port: u16, ending: Ending) -> Peer {
    answering::<W>(rng, port, ending, W::answer)
}

/// The same, with answers of its own.
pub(crate) fn answering<W: Wire>(
    rng: &mut Rng,
    port: u16,
    ending: Ending,
    answer: fn(u16, usize) -> Vec<u8>,
) -> Peer {
    let (mut seen, mut chance) = (0, Rng::new(rng.next()));
    let mut waits: Vec<usize> = Vec::new();
    Peer::replying(rng, ending, move |received, sends| {
        while let Some((end, tag, is_answered)) = W::request_end(&received[seen..]) {
            seen += end;
            waits.extend(is_answered.then_some(tag));
        }
        while !waits.is_empty() {
            let place = if W::HAS_IDS { chance.len(waits.len()) - 1 } else { 0 };
            sends.extend(answer(port, waits.remove(place)));
        }
    })
}

thread_local! {
    /// How unkind those servers are now that may be.
    static UNKIND: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn unkind<W: Wire>(rng: &mut Rng, place: usize) -> Peer {
    let at = rng.len(3_000) - 1;
    let ending = match rng.below(4) {
        _ if !UNKIND.get() => Ending::AfterTheOther,
        0 => Ending::Reset(at),
        1 | 2 => Ending::At(at),
        _ => Ending::AfterTheOther,
    };
    server::<W>(rng, PLACES[place], ending)
}

pub(crate) fn elsewhere<W: Wire>() -> BTreeMap<u16, Elsewhere> {
    BTreeMap::from([
        (PLACES[0], (|rng| (unkind::<W>(rng, 0), Answer::AtOnce)) as Elsewhere),
        (PLACES[1], |rng| (unkind::<W>(rng, 1), Answer::AtOnce)),
        (PLACES[2], |rng| {
            let after = rng.below(4_000_000);
            (unkind::<W>(rng, 2), Answer::After(after))
        }),
        (PLACES[3], |rng| (unkind::<W>(rng, 3), Answer::After(1_000))),
        (PLACES[REFUSES], |rng| {
            let answer =
                if rng.chance(50) { Answer::RefusedAtOnce } else { Answer::RefusedAfter(9_000) };
            (unkind::<W>(rng, REFUSES), answer)
        }),
        (PLACES[SILENT], |rng| (unkind::<W>(rng, SILENT), Answer::Silence)),
        (PLACES[6], |rng| (unkind::<W>(rng, 6), Answer::AtOnce)),
        (PLACES[7], |rng| {
            let after = rng.below(900_000);
            (unkind::<W>(rng, 7), Answer::After(after))
        }),
    ])
}

/// A request: where it goes, and whether it is answered.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tag: usize,
    pub(crate) place: usize,
    pub(crate) is_oneway: bool,
}

impl Asked {
    fn is_good(&self) -> bool {
        self.place != REFUSES && self.place != SILENT
    }
}

fn conversation<W: Wire>(rng: &mut Rng) -> Vec<Asked> {
    let most = if rng.chance(40) { PLACES.len() as u64 } else { GOOD as u64 };
    let most = if rng.chance(20) { 2 } else { most };
    let is_big = rng.chance(30);
    let tags = 1..=rng.len(REQUESTS_MAX);
    let asked = tags.map(|tag| {
        // Where the first upstream is not reached, the connection ends.
        let most = if tag == 1 { GOOD as u64 } else { most };
        let place = usize::try_from(rng.below(most)).unwrap();
        let is_oneway = W::HAS_ONEWAY && rng.chance(10);
        let body = vec![b'b'; if is_big { rng.len(20_000) } else { rng.len(9) }];
        let key = format!("k{place}{}", if rng.chance(5) { "w" } else { "" });
        Asked { bytes: W::request(&key, tag, &body, is_oneway), tag, place, is_oneway }
    });
    asked.collect()
}

/// A client that waits for answers when so many requests are under way; each is its bytes, and whether it is oneway.
pub(crate) fn windowed<'r>(
    rng: &mut Rng,
    requests: impl Iterator<Item = (&'r [u8], bool)>,
    window: usize,
    answer_end: fn(&[u8]) -> Option<usize>,
    ending: Ending,
) -> Peer {
    // How many answers come before each may be sent, and where each ends.
    let (mut ends, mut before, mut answers, mut sends) = (Vec::new(), Vec::new(), 0, Vec::new());
    for (bytes, is_oneway) in requests {
        sends.extend_from_slice(bytes);
        ends.push(sends.len());
        before.push(answers);
        answers += usize::from(!is_oneway);
    }
    let (mut seen, mut whole) = (0, 0);
    let turns = Turns::new(move |received| {
        while let Some(end) = answer_end(&received[seen..]) {
            (seen, whole) = (seen + end, whole + 1);
        }
        let open = before.iter().take_while(|before| **before < whole + window).count();
        open.checked_sub(1).map_or(0, |last| ends[last])
    });
    Peer::scripted(rng, sends, ending, turns)
}

fn client<W: Wire>(rng: &mut Rng, asked: &[Asked]) -> Peer {
    let window = if rng.chance(30) { 1 } else { rng.len(REQUESTS_MAX) };
    let requests = asked.iter().map(|it| (&it.bytes[..], it.is_oneway));
    windowed(
        rng,
        requests,
        window,
        |bytes| W::answer_end(bytes).map(|(end, ..)| end),
        Ending::AfterSending,
    )
}

pub(crate) struct World {
    pub(crate) shard: Shard<SimIo>,
    _commands: mpsc::Sender<Command>,
    _spans: spans::SpanSource,
}

pub(crate) fn world(io: SimIo, protocol: Protocol, buffers: u32, limits: Limits) -> World {
    let defers = !limits.defer_dial.is_zero();
    let ports: Vec<String> = (1..=999).map(|port| format!("{port}={protocol}")).collect();
    let ports = ports.join(",").parse().unwrap();
    let (sink, spans) = spans::ring(1024, Waker::noop().clone());
    let (commands, receiver) = mpsc::channel();
    let parts = crate::shard::Parts {
        recorder: Arc::new(Recorder::of(&Reads::on(&ports).tables())),
        observer: Observer::new(http_config().tracing.as_ref(), 1, (Some(sink), None)),
        taps: Taps::new(Reads::on(&ports), netra_codecs::Limits::DEFAULT, 1 << 20),
        gates: Gates { decides: Some(Box::new(ByDigit(target, defers))), ..Gates::default() },
        ..parts(limits, buffers, receiver)
    };
    World { shard: Shard::new(io, parts), _commands: commands, _spans: spans }
}

pub(crate) fn rest(seed: u64, world: &mut World, legs_max: u32) {
    let shard = &mut world.shard;
    for turn in 0.. {
        let wait = shard.park();
        shard.turn(wait).unwrap();
        assert!(turn < TURNS_MAX, "{seed}: never comes to rest");
        let is_there = |it: &&Connection| it.is_leg() && it.phase == Phase::Relaying;
        let legs = u32::try_from(shard.slab.iter().filter(is_there).count()).unwrap();
        assert!(legs < legs_max, "{seed}: too many legs");
        if shard.core.io.idle {
            break;
        }
    }
    assert_eq!((shard.active, shard.legs), (0, 0), "{seed}: a connection waits for ever");
    assert_eq!(shard.core.pool.lent(), 0, "{seed}: buffers lost");
    assert_eq!(shard.core.pipes.lent(), 0, "{seed}: pipes lost");
    assert_eq!(shard.core.observer.open_spans(), 0, "{seed}: spans lost");
    assert_eq!(shard.core.taps.held_bytes(), 0, "{seed}: held bytes miscounted");
    assert_eq!(shard.timers.next(&shard.slab), None, "{seed}: a free slot has a deadline");
    assert_eq!((shard.delays.next(), shard.heads.next()), (None, None), "{seed}");
    assert!(shard.core.io.sockets.iter().all(|s| s.closed), "{seed}: descriptors lost");
    assert_eq!(shard.descriptors.connections(), 0, "{seed}: room lost");
}

/// Each request reached the server that it was for, once; returns the tags of those that did.
pub(crate) fn served<W: Wire>(seed: u64, world: &World, asked: &[Asked]) -> BTreeSet<usize> {
    let io = &world.shard.core.io;
    let mut tags = BTreeSet::new();
    for (port, fd) in io.dialled.iter().copied() {
        let mut received = &io.sockets[fd].peer.received[..];
        while let Some((end, tag, _)) = W::request_end(received) {
            let it = &asked[tag - 1];
            assert_eq!(received[..end], it.bytes, "{seed}: {tag} is not what was sent");
            assert_eq!(PLACES[it.place], port, "{seed}: {tag} went elsewhere");
            assert!(tags.insert(tag), "{seed}: {tag} reached a second server");
            received = &received[end..];
        }
    }
    tags
}

/// What the client got is whole answers, each to a request of its own, and perhaps the beginning of one
/// more. Returns the tags of those that were answered, and of those that were refused.
pub(crate) fn answered<W: Wire>(seed: u64, world: &World, asked: &[Asked]) -> [BTreeSet<usize>; 2] {
    let client = &world.shard.core.io.sockets[0].peer;
    assert!(client.saw_end || client.saw_reset, "{seed}: the client never saw the end");
    let mut received = &client.received[..];
    let mut in_order = asked.iter().filter(|it| !it.is_oneway);
    let mut told = [BTreeSet::new(), BTreeSet::new()];
    while let Some((end, id, is_refusal)) = W::answer_end(received) {
        let it = if W::HAS_IDS { &asked[id - 1] } else { in_order.next().unwrap() };
        let answer = W::answer(PLACES[it.place], it.tag);
        let is_own = is_refusal || received[..end] == answer;
        assert!(
            is_own,
            "{seed}: {} is not the answer to {}",
            received[..end.min(90)].escape_ascii(),
            it.tag
        );
        let is_first = !told.iter().any(|all| all.contains(&it.tag));
        assert!(is_first && !it.is_oneway, "{seed}: {} was answered twice", it.tag);
        told[usize::from(is_refusal)].insert(it.tag);
        received = &received[end..];
    }
    told
}

fn run<W: Wire>(seed: u64, is_unkind: bool) -> (World, Vec<Asked>) {
    UNKIND.set(is_unkind);
    let mut rng = Rng::new(seed);
    let faults = Faults { accept_fails: 0, ..Faults::draw(&mut rng) };
    let asked = conversation::<W>(&mut rng);
    let arrival = Arrival {
        at: 0,
        client: client::<W>(&mut rng, &asked),
        server: unkind::<W>(&mut rng, 0),
        answer: Answer::AtOnce,
    };
    let buffers = if rng.chance(40) { 6 } else { 512 };
    let legs_max = u32::try_from(rng.len(6)).unwrap() + 1;
    // At once, perhaps too late, and soon enough.
    let defer_dial = [0, 1 + rng.below(3_000_000), 60_000_000_000][rng.len(3) - 1];
    let defer_dial = std::time::Duration::from_nanos(defer_dial);
    let io = SimIo::outbound(rng, faults, vec![arrival], elsewhere::<W>());
    let limits = Limits { legs_max, defer_dial, ..limits() };
    let mut world = world(io, W::PROTOCOL, buffers, limits);
    rest(seed, &mut world, legs_max);
    (world, asked)
}

/// All servers are kind: every request that can reach somebody is answered, and the others are told.
fn simulate<W: Wire>(seed: u64) -> Arc<Recorder> {
    let (world, asked) = run::<W>(seed, false);
    let served = served::<W>(seed, &world, &asked);
    let [answered, refused] = answered::<W>(seed, &world, &asked);
    let tags = |of: &dyn Fn(&Asked) -> bool| {
        asked.iter().filter(|it| of(it)).map(|it| it.tag).collect::<BTreeSet<_>>()
    };
    assert_eq!(served, tags(&Asked::is_good), "{seed}");
    assert_eq!(answered, tags(&|it| it.is_good() && !it.is_oneway), "{seed}");
    assert_eq!(refused, tags(&|it| !it.is_good() && !it.is_oneway), "{seed}");
    let whole: usize = world.shard.core.io.sockets[0].peer.received.len();
    let mut seen = 0;
    while let Some((end, ..)) = W::answer_end(&world.shard.core.io.sockets[0].peer.received[seen..])
    {
        seen += end;
    }
    assert_eq!(seen, whole, "{seed}: something is behind the last answer");
    Arc::clone(&world.shard.core.recorder)
}

/// Some end, reset or are gone in the middle of it.
fn simulate_unkind<W: Wire>(seed: u64) -> Arc<Recorder> {
    let (world, asked) = run::<W>(seed, true);
    let served = served::<W>(seed, &world, &asked);
    let [answered, _] = answered::<W>(seed, &world, &asked);
    assert!(answered.is_subset(&served), "{seed}: {answered:?} were answered, not {served:?}");
    Arc::clone(&world.shard.core.recorder)
}

fn reaches(recorders: &[Arc<Recorder>], keys: &[Key]) {
    for key in keys.iter().filter(|_| recorders.len() >= 256) {
        assert!(recorders.iter().any(|r| r.get(*key) > 0), "no seed reaches {key:?}");
    }
}

const KIND: [Key; 4] =
    [Key::LEG_OPENED, Key::ROUTE_UNREACHABLE, Key::BUFFER_STARVED, Key::BACK_PRESSURE];

#[test]
fn calls_of_dubbo_go_by_several_legs() {
    reaches(&with_seed(simulate::<Dubbo>), &KIND);
}

#[test]
fn commands_of_redis_go_by_several_legs() {
    reaches(&with_seed(simulate::<Redis>), &KIND);
}

#[test]
fn calls_of_thrift_go_by_several_legs() {
    reaches(&with_seed(simulate::<Thrift>), &KIND);
}

#[test]
fn a_leg_that_ends_takes_down_its_own_calls_of_dubbo() {
    reaches(&with_seed(simulate_unkind::<Dubbo>), &[Key::LEG_OPENED, Key::LEG_LOST]);
}

#[test]
fn a_leg_that_ends_takes_down_its_own_commands_of_redis() {
    reaches(&with_seed(simulate_unkind::<Redis>), &[Key::LEG_OPENED, Key::LEG_LOST]);
}

#[test]
fn a_leg_that_ends_takes_down_its_own_calls_of_thrift() {
    reaches(&with_seed(simulate_unkind::<Thrift>), &[Key::LEG_OPENED, Key::LEG_LOST]);
}
