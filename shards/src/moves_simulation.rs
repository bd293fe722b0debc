//! Messages of other protocols that rules send to different upstreams, on the simulated kernel: each
//! reaches where it is sent, once and in order, and is answered by whom it reached; of what cannot
//! be reached its client is told in the protocol's words.

use crate::{
    config::Limits,
    exchange::{Asker, Decide, Gates, Observer, Place, Reads, Routed, Ruling, Sits, Taps},
    http_simulation::http_config,
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    resolve::{Resolved, Unresolved},
    route_simulation::{
        ALIVE, MANY, NAMED, Names, ORIGINAL, QUICK, REFUSES, SILENT, SLOW, addresses, answers,
        limits,
    },
    shard::{Command, Shard},
    simulation::{TURNS_MAX, parts, with_seed},
    spans,
    sys::Nanos,
};
use netra_codecs::{
    codec::{Key as Wanted, Pairs, Stays},
    route::{Refusal as RouteRefusal, Target},
    tap::{Message, Protocol},
};
use netra_perf::{Key, Recorder};
use netra_rules::{ClusterId, EndpointId, Route};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, mpsc},
    task::Waker,
    time::Duration,
};

const REQUESTS_MAX: usize = 8;

/// Where a message is sent, by the digit in its key, and the port of who is there.
const PLACES: [(&str, u16); 9] = [
    ("", ORIGINAL),
    ("127.0.0.1:14956", ORIGINAL),
    ("many.test:40006", MANY),
    ("10.0.0.8:40001", QUICK),
    ("10.0.0.8:40002", SLOW),
    ("known.test:40003", NAMED),
    ("10.0.0.8:40004", REFUSES),
    ("10.0.0.8:40005", SILENT),
    ("unknown.test:40001", 2),
];
/// Places that answer.
const GOOD: u64 = 6;
/// The first that leads elsewhere.
const AWAY: u64 = 2;

/// How connections begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// The original destination is dialled at once.
    AtOnce,
    /// The first message says where to dial, if it comes soon enough.
    Deferred,
    /// The same, and nobody is at the original destination.
    Virtual,
}

impl Begin {
    fn draw(rng: &mut Rng) -> Self {
        [Self::AtOnce, Self::Deferred, Self::Virtual][rng.len(3) - 1]
    }

    fn limits(self, rng: &mut Rng) -> Limits {
        let defer_dial = match self {
            Self::AtOnce => Duration::ZERO,
            Self::Deferred => Duration::from_nanos(1 + rng.below(3_000_000)),
            Self::Virtual => Duration::from_secs(60),
        };
        Limits { legs_max: 1, defer_dial, ..limits() }
    }

    /// Whoever dials a destination at which nobody is learns it in one of these ways.
    fn answers(self, rng: &mut Rng) -> BTreeMap<IpAddr, Answer> {
        let mut answers = answers();
        if self == Self::Virtual {
            let how = [Answer::RefusedAtOnce, Answer::RefusedAfter(9_000), Answer::Silence];
            answers.insert([10, 0, 0, 2].into(), how[rng.len(3) - 1]);
        }
        answers
    }
}

/// Decides by the digit in the key or method, of which it knows where it leads; a `w` behind it lets the
/// message wait first, too. Says whether dials are deferred.
#[derive(Debug)]
pub(crate) struct ByDigit(pub(crate) fn(usize) -> Option<Target>, pub(crate) bool);

impl Decide for ByDigit {
    fn concerns(&self, _: &Asker, _: Protocol) -> bool {
        true
    }

    fn leads(&self, _: SocketAddr, _: netra_rules::Protocol) -> bool {
        self.1
    }

    fn decide(
        &mut self,
        message: &Message<'_>,
        _: (&Asker, Sits<'_>),
        _: &mut Pairs,
        _: Nanos,
        _: u64,
    ) -> Ruling<'_> {
        let keys = match message.protocol() {
            Protocol::Thrift => Wanted::Service,
            Protocol::Dubbo => Wanted::Method,
            _ => Wanted::RedisKey,
        };
        let key = message.value(keys);
        let [b'k', digit @ b'0'..=b'9', rest @ ..] = key.unwrap_or_default() else {
            return Ruling::default();
        };
        let place = u32::from(digit - b'0');
        let route = Route { cluster: ClusterId(place), endpoint: EndpointId(0) };
        let to = if place == 0 { Routed::Home } else { Routed::To(Place { table: 1, route }) };
        let delay_ns = if rest.starts_with(b"w") { 3_000_000 } else { 0 };
        Ruling { to, delay_ns, ..Ruling::default() }
    }

    fn target(&self, place: Place, _: SocketAddr) -> Option<Target> {
        let ClusterId(index) = place.route.cluster;
        (self.0)(index as usize)
    }

    fn answer(&self, _: u32, _: &mut Pairs) {}
}

/// A protocol, as clients and servers of these tests speak it.
trait Wire {
    const PROTOCOL: Protocol;

    /// A request; `id` is its place among those that are answered on one upstream.
    fn request(key: &str, id: usize, body: &[u8], is_oneway: bool) -> Vec<u8>;
    fn answer(port: u16, id: usize) -> Vec<u8>;
    /// What a client is told, up to where the text ends.
    fn refusal(id: usize, text: &str) -> Vec<u8>;
    /// Where the request ends that the bytes begin with, and whether it is answered.
    fn end(bytes: &[u8]) -> Option<(usize, bool)>;
}

struct Redis;

impl Wire for Redis {
    const PROTOCOL: Protocol = Protocol::Redis;

    fn request(key: &str, _: usize, body: &[u8], _: bool) -> Vec<u8> {
        let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), body.len());
        [head.as_bytes(), body, b"\r\n"].concat()
    }

    fn answer(port: u16, id: usize) -> Vec<u8> {
        format!("+{port:05} {id:03}\r\n").into_bytes()
    }

    fn refusal(_: usize, text: &str) -> Vec<u8> {
        format!("-ERR {text}\r\n").into_bytes()
    }

    fn end(bytes: &[u8]) -> Option<(usize, bool)> {
        let mut at = 4;
        for _ in 0..3 {
            let line = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")? + at;
            let len: usize = str::from_utf8(&bytes[at + 1..line]).unwrap().parse().unwrap();
            at = line + 2 + len + 2;
        }
        (at <= bytes.len()).then_some((at, true))
    }
}

struct Dubbo;

fn dubbo_frame(flags: u8, status: u8, id: usize, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xda, 0xbb, flags, status][..], &(id as u64).to_be_bytes(), &len, body].concat()
}

impl Wire for Dubbo {
    const PROTOCOL: Protocol = Protocol::Dubbo;

    fn request(key: &str, id: usize, body: &[u8], is_oneway: bool) -> Vec<u8> {
        let key_len = u8::try_from(key.len()).unwrap();
        let strings = [&b"\x052.0.2\x06org.It\x00"[..], &[key_len], key.as_bytes(), b"\x02[B"];
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        let body = [&strings.concat()[..], b"B", &len, body, b"HZ"].concat();
        dubbo_frame(if is_oneway { 0x82 } else { 0xc2 }, 0, id, &body)
    }

    fn answer(port: u16, id: usize) -> Vec<u8> {
        let value = format!("{port:05}");
        dubbo_frame(2, 20, id, &[&b"\x91\x05"[..], value.as_bytes()].concat())
    }

    fn refusal(id: usize, _: &str) -> Vec<u8> {
        // The first bytes: what is behind them is the codec's own business.
        dubbo_frame(2, 0, id, b"")[..3].to_vec()
    }

    fn end(bytes: &[u8]) -> Option<(usize, bool)> {
        let len = u32::from_be_bytes(bytes.get(12..16)?.try_into().unwrap()) as usize + 16;
        (len <= bytes.len()).then_some((len, bytes[2] & 0x40 != 0))
    }
}

struct Thrift;

fn thrift_frame(kind: u8, id: usize, name: &str, field: u8, value: &[u8]) -> Vec<u8> {
    let len = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    let parts = [&[0x80, 1, 0, kind][..], &len(name.len()), name.as_bytes(), &len(id)];
    let field = [&[11, 0, field][..], &len(value.len()), value, &[0]].concat();
    let message = [&parts.concat()[..], &field].concat();
    [&len(message.len())[..], &message].concat()
}

impl Wire for Thrift {
    const PROTOCOL: Protocol = Protocol::Thrift;

    fn request(key: &str, id: usize, body: &[u8], is_oneway: bool) -> Vec<u8> {
        // The service is not named in the answer.
        thrift_frame(if is_oneway { 4 } else { 1 }, id, &format!("{key}:call"), 1, body)
    }

    fn answer(port: u16, id: usize) -> Vec<u8> {
        thrift_frame(2, id, "call", 0, format!("{port:05}").as_bytes())
    }

    fn refusal(_: usize, _: &str) -> Vec<u8> {
        Vec::new()
    }

    fn end(bytes: &[u8]) -> Option<(usize, bool)> {
        let len = u32::from_be_bytes(bytes.get(..4)?.try_into().unwrap()) as usize + 4;
        Some((len, bytes.get(..len)?[7] == 1))
    }
}

/// A server that says where it is, and which of its requests it answers.
fn server<W: Wire>(rng: &mut Rng, port: u16) -> Peer {
    let answers: Vec<_> = (0..REQUESTS_MAX).map(|id| W::answer(port, id)).collect();
    let len = answers[0].len();
    let (mut whole, mut seen) = (0, 0);
    let turns = Turns::new(move |received| {
        while let Some((end, is_answered)) = W::end(&received[seen..]) {
            (whole, seen) = (whole + usize::from(is_answered), seen + end);
        }
        whole * len
    });
    Peer::scripted(rng, answers.concat(), Ending::AfterTheOther, turns)
}

fn elsewhere<W: Wire>() -> BTreeMap<u16, Elsewhere> {
    BTreeMap::from([
        (ORIGINAL, (|rng| (server::<W>(rng, ORIGINAL), Answer::AtOnce)) as Elsewhere),
        (QUICK, |rng| (server::<W>(rng, QUICK), Answer::AtOnce)),
        (SLOW, |rng| {
            let after = rng.below(4_000_000);
            (server::<W>(rng, SLOW), Answer::After(after))
        }),
        (NAMED, |rng| (server::<W>(rng, NAMED), Answer::After(1_000))),
        (MANY, |rng| {
            let after = rng.below(8_000_000);
            (server::<W>(rng, MANY), Answer::After(after))
        }),
        (REFUSES, |rng| {
            let answer =
                if rng.chance(50) { Answer::RefusedAtOnce } else { Answer::RefusedAfter(9_000) };
            (server::<W>(rng, REFUSES), answer)
        }),
        (SILENT, |rng| (server::<W>(rng, SILENT), Answer::Silence)),
    ])
}

/// A request, on which upstream in their order it comes, and what its client hears.
struct Asked {
    bytes: Vec<u8>,
    upstream: usize,
    port: u16,
    told: Vec<u8>,
    is_good: bool,
}

fn conversation<W: Wire>(rng: &mut Rng, begin: Begin) -> Vec<Asked> {
    let least = if begin == Begin::Virtual { AWAY } else { 0 };
    let most = if rng.chance(30) { PLACES.len() as u64 } else { GOOD };
    let (mut goal, mut upstream, mut id) = (0, 0, 0);
    let mut asked = Vec::new();
    for _ in 0..rng.len(REQUESTS_MAX) {
        let place = usize::try_from(least + rng.below(most - least)).unwrap();
        // Where a target may not be dialled, the original destination is: going home is staying.
        let is_home = place == 0 && PLACES[goal].1 == ORIGINAL;
        if place != goal && !is_home {
            (goal, upstream, id) = (place, upstream + 1, 0);
        }
        let is_oneway = W::PROTOCOL != Protocol::Redis && rng.chance(15);
        let body = vec![b'b'; if rng.chance(50) { 1 } else { rng.len(20_000) }];
        let key = format!("k{place}{}", if rng.chance(10) { "w" } else { "" });
        let bytes = W::request(&key, id, &body, is_oneway);
        let is_good = place < usize::try_from(GOOD).unwrap();
        let told = match () {
            () if is_oneway => Vec::new(),
            () if is_good => W::answer(PLACES[place].1, id),
            () => W::refusal(id, &format!("netra: {} cannot be reached", PLACES[place].0)),
        };
        asked.push(Asked { bytes, upstream, port: PLACES[place].1, told, is_good });
        id += usize::from(!is_oneway);
        if !is_good {
            // Nothing is answered behind it, and its connection ends.
            break;
        }
    }
    asked
}

fn client(rng: &mut Rng, asked: &[Asked]) -> Peer {
    let one_by_one = rng.chance(50);
    let (mut ends, mut tolds) = (vec![0], vec![0]);
    for request in asked {
        ends.push(ends[ends.len() - 1] + request.bytes.len());
        tolds.push(tolds[tolds.len() - 1] + request.told.len());
    }
    let turns = Turns::new(move |received| {
        let whole = tolds.iter().take_while(|end| received.len() >= **end).count();
        ends[if one_by_one { whole.min(ends.len() - 1) } else { ends.len() - 1 }]
    });
    let sends = asked.iter().flat_map(|request| request.bytes.clone()).collect();
    Peer::scripted(rng, sends, Ending::AfterSending, turns)
}

struct World {
    shard: Shard<SimIo>,
    commands: mpsc::Sender<Command>,
    names: mpsc::Receiver<crate::resolve::ToResolve>,
    many: Arc<[IpAddr]>,
    _spans: spans::SpanSource,
}

fn world(
    io: SimIo,
    protocol: Protocol,
    (limits, buffers): (Limits, u32),
    many: Arc<[IpAddr]>,
) -> World {
    let defers = !limits.defer_dial.is_zero();
    let target = |digit: usize| Target::parse(PLACES[digit].0.as_bytes());
    let ports: Vec<String> = (1..=999).map(|port| format!("{port}={protocol}")).collect();
    let ports = ports.join(",").parse().unwrap();
    let (sink, spans) = spans::ring(1024, Waker::noop().clone());
    let (commands, receiver) = mpsc::channel();
    let (asked, names) = mpsc::channel();
    let parts = crate::shard::Parts {
        recorder: Arc::new(Recorder::of(&Reads::on(&ports).tables())),
        observer: Observer::new(http_config().tracing.as_ref(), 1, (Some(sink), None)),
        taps: Taps::new(Reads::on(&ports), netra_codecs::Limits::DEFAULT, 1 << 20),
        gates: Gates { decides: Some(Box::new(ByDigit(target, defers))), ..Gates::default() },
        resolver: Some(Arc::new(Names(asked))),
        ..parts(limits, buffers, receiver)
    };
    World { shard: Shard::new(io, parts), commands, names, many, _spans: spans }
}

/// Answers what shards ask, as the control thread does.
fn resolve(world: &mut World) -> bool {
    let Ok(name) = world.names.try_recv() else { return false };
    let resolved: Resolved = match name.target.host() {
        "known.test" => Ok(Arc::new([ALIVE.parse().unwrap()])),
        "many.test" => Ok(Arc::clone(&world.many)),
        _ => Err(Unresolved::Unknown),
    };
    world.commands.send(Command::Resolved(name.asker, resolved)).unwrap();
    world.shard.core.io.wake();
    true
}

fn rest(seed: u64, world: &mut World) {
    for turn in 0.. {
        let wait = world.shard.park();
        world.shard.turn(wait).unwrap();
        assert!(turn < TURNS_MAX, "{seed}: never comes to rest");
        let (active, deadline) = (world.shard.active, world.shard.timers.next(&world.shard.slab));
        assert!(active > 0 || deadline.is_none(), "{seed}: a free slot has a deadline");
        if !resolve(world) && world.shard.core.io.idle {
            break;
        }
    }
    let shard = &world.shard;
    assert_eq!(shard.active, 0, "{seed}: the connection waits for ever");
    assert_eq!(shard.core.pool.lent(), 0, "{seed}: buffers lost");
    assert_eq!(shard.core.pipes.lent(), 0, "{seed}: pipes lost");
    assert_eq!(shard.core.observer.open_spans(), 0, "{seed}: spans lost");
    assert_eq!(shard.core.taps.held_bytes(), 0, "{seed}: held bytes miscounted");
    assert_eq!((shard.delays.next(), shard.heads.next()), (None, None), "{seed}");
    assert!(shard.core.io.sockets.iter().all(|s| s.closed), "{seed}: descriptors lost");
}

fn check(seed: u64, world: &World, asked: &[Asked]) {
    let io = &world.shard.core.io;
    let client = &io.sockets[0].peer;
    let told: Vec<u8> = asked.iter().flat_map(|it| it.told.clone()).collect();
    let seen = client.received.escape_ascii();
    assert!(client.received.starts_with(&told), "{seed}: {seen}, not {}", told.escape_ascii());
    let is_good = asked.iter().all(|it| it.is_good);
    assert!(!is_good || client.received.len() == told.len(), "{seed}: {seen}");
    assert!(client.saw_end || client.saw_reset, "{seed}: the client never saw the end");
    let mut wanted: BTreeMap<(usize, u16), Vec<u8>> = BTreeMap::new();
    for request in asked.iter().filter(|it| it.is_good) {
        wanted.entry((request.upstream, request.port)).or_default().extend(&request.bytes);
    }
    let got = io.dialled.iter().map(|(port, fd)| (*port, &io.sockets[*fd].peer.received));
    let got = got.filter(|(_, received)| !received.is_empty());
    let wanted = wanted.iter().map(|((_, port), bytes)| (*port, bytes));
    let lens = |all: Vec<(u16, &Vec<u8>)>| {
        all.into_iter().map(|(port, bytes)| (port, bytes.len())).collect::<Vec<_>>()
    };
    let (got, wanted) = (got.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    let is_same = got == wanted;
    assert!(is_same, "{seed}: messages went elsewhere: {:?}, not {:?}", lens(got), lens(wanted));
}

fn simulate<W: Wire>(seed: u64) -> Arc<Recorder> {
    let mut rng = Rng::new(seed);
    let faults = Faults { accept_fails: 0, ..Faults::draw(&mut rng) };
    let begin = Begin::draw(&mut rng);
    let (limits, answers) = (begin.limits(&mut rng), begin.answers(&mut rng));
    let asked = conversation::<W>(&mut rng, begin);
    let arrival = Arrival {
        at: 0,
        client: client(&mut rng, &asked),
        server: server::<W>(&mut rng, ORIGINAL),
        answer: Answer::AtOnce,
    };
    let buffers = if rng.chance(50) { 6 } else { 512 };
    let many = addresses(&mut rng);
    let mut io = SimIo::outbound(rng, faults, vec![arrival], elsewhere::<W>());
    io.answers = answers;
    let mut world = world(io, W::PROTOCOL, (limits, buffers), many);
    rest(seed, &mut world);
    check(seed, &world, &asked);
    let dialled = &world.shard.core.io.dialled;
    let is_home = |(port, _): &(u16, usize)| *port == ORIGINAL;
    assert!(begin != Begin::Virtual || !dialled.iter().any(is_home), "{seed}: dialled for nothing");
    Arc::clone(&world.shard.core.recorder)
}

fn reaches(recorders: &[Arc<Recorder>]) {
    if recorders.len() < 256 {
        return;
    }
    let own_port = Key::route_refused(RouteRefusal::OwnPort as usize);
    for key in [Key::ROUTE_UNREACHABLE, Key::ROUTE_NEXT_ADDRESS, own_port, Key::BUFFER_STARVED] {
        assert!(recorders.iter().any(|r| r.get(key) > 0), "no seed reaches {key:?}");
    }
}

#[test]
fn every_command_of_redis_reaches_where_it_is_sent() {
    reaches(&with_seed(simulate::<Redis>));
}

#[test]
fn every_call_of_dubbo_reaches_where_it_is_sent() {
    reaches(&with_seed(simulate::<Dubbo>));
}

#[test]
fn every_call_of_thrift_reaches_where_it_is_sent() {
    reaches(&with_seed(simulate::<Thrift>));
}

/// A server that says so to every line.
fn says_ok(rng: &mut Rng) -> (Peer, Answer) {
    let lines = |received: &[u8]| received.iter().filter(|byte| **byte == b'\n').count();
    let turns = Turns::new(move |received| lines(received) * 5);
    (Peer::scripted(rng, b"+OK\r\n".repeat(9), Ending::AfterTheOther, turns), Answer::AtOnce)
}

/// What the original server and the one at [`QUICK`] have got when a client sends these commands
/// of Redis, each when the one before is answered; and how often one had to stay, by reason.
fn ask_redis(commands: &[&str], defer_dial: Duration) -> ([String; 2], [u64; 4]) {
    let rng = &mut Rng::new(1);
    let line = |it: &&str| format!("{it}\r\n").into_bytes();
    let lines: Vec<_> = commands.iter().map(line).collect();
    let ends: Vec<_> = lines
        .iter()
        .scan(0, |sum, it| {
            *sum += it.len();
            Some(*sum)
        })
        .collect();
    let turns = Turns::new(move |received| ends[(received.len() / 5).min(ends.len() - 1)]);
    let client = Peer::scripted(rng, lines.concat(), Ending::AfterSending, turns);
    let arrival = Arrival { at: 0, client, server: says_ok(rng).0, answer: Answer::AtOnce };
    let places = BTreeMap::from([(QUICK, says_ok as Elsewhere)]);
    let io = SimIo::outbound(Rng::new(1), Faults::NONE, vec![arrival], places);
    let limits = Limits { defer_dial, ..Begin::AtOnce.limits(&mut Rng::new(1)) };
    let mut world = world(io, Protocol::Redis, (limits, 512), Arc::new([]));
    rest(1, &mut world);
    let core = &world.shard.core;
    let got = |fd: usize| {
        String::from_utf8_lossy(&core.io.sockets[fd].peer.received).replace("\r\n", ",")
    };
    let there = core.io.dialled.iter().map(|(_, fd)| got(*fd)).collect();
    let stayed = [0, 1, 2, 3].map(|why| core.recorder.get(Key::route_stays(why)));
    ([got(core.io.upstream_of(0).unwrap()), there], stayed)
}

#[test]
fn a_session_stays_where_it_is() {
    let stays = |why: Stays| [0, 1, 2, 3].map(|it| u64::from(it == why as usize));
    for (commands, here, there, stayed) in [
        (&["GET k0", "GET k3", "GET k3"][..], "GET k0,", "GET k3,GET k3,", [0; 4]),
        (&["CLIENT SETINFO x", "GET k3"], "CLIENT SETINFO x,", "GET k3,", [0; 4]),
        (&["SELECT 1", "GET k3"], "SELECT 1,GET k3,", "", stays(Stays::Session)),
        (&["AUTH x", "GET k3", "GET k0"], "AUTH x,GET k3,GET k0,", "", stays(Stays::Session)),
        (
            &["MULTI", "GET k3", "EXEC", "GET k3"],
            "MULTI,GET k3,EXEC,",
            "GET k3,",
            stays(Stays::Transaction),
        ),
        (
            &["WATCH k0", "GET k3", "UNWATCH", "GET k3"],
            "WATCH k0,GET k3,UNWATCH,",
            "GET k3,",
            stays(Stays::Transaction),
        ),
    ] {
        let (got, counted) = ask_redis(commands, Duration::ZERO);
        assert_eq!((&*got[0], &*got[1], counted), (here, there, stayed), "{commands:?}");
    }
}
