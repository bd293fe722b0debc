//! Messages that go to a mirror as well, on the simulated kernel. Whatever the mirror does, the client has
//! its answers and its servers have their messages, as without it; the mirror has copies of them, byte by
//! byte, whole and in their order; each message is counted once; and no slot is left.

use crate::{
    config::Limits,
    core::HttpCore,
    exchange::{Gates, Observer, Reads, ShardRules, Taps},
    http_simulation::{correlation, http_config, request_end},
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer},
    },
    legs_simulation::{Dubbo, Redis, Wire, said, windowed},
    shard::{Command, Parts, Shard},
    simulation::{come_to_rest, parts, with_seed},
    spans,
};
use netra_perf::{Key, Recorder, labels::MIRROR_OUTCOMES};
use netra_rules::{Context, Documents, Source};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    task::Waker,
    time::Duration,
};

const REQUESTS_MAX: usize = 20;
/// Where messages go, by the digit in their key, and copies of them.
const PLACES: [u16; 2] = [1, 40_002];
const MIRROR: u16 = 40_001;

/// A protocol, as clients and servers of these tests speak it.
trait Talk {
    /// None is HTTP.
    const PROTOCOL: Option<netra_codecs::tap::Protocol>;
    const HOST: &'static str;
    /// What a route asks for.
    const ATTRIBUTE: &'static str;
    /// What messages are given.
    const GIVES: &'static str;

    fn request(key: &str, tag: usize, body: &[u8], is_oneway: bool) -> Vec<u8>;
    fn answer(port: u16, tag: usize) -> Vec<u8>;
    /// Where the request ends that the bytes begin with, its tag, and whether it is answered.
    fn request_end(bytes: &[u8]) -> Option<(usize, usize, bool)>;
    fn answer_end(bytes: &[u8]) -> Option<usize>;
}

macro_rules! as_in_legs {
    ($($talk:ident, $host:literal, $attribute:literal, $gives:expr;)*) => {$(
        impl Talk for $talk {
            const PROTOCOL: Option<netra_codecs::tap::Protocol> = Some(<$talk as Wire>::PROTOCOL);
            const HOST: &'static str = $host;
            const ATTRIBUTE: &'static str = $attribute;
            const GIVES: &'static str = $gives;

            fn request(key: &str, tag: usize, body: &[u8], is_oneway: bool) -> Vec<u8> {
                <$talk as Wire>::request(key, tag, body, is_oneway)
            }

            fn answer(port: u16, tag: usize) -> Vec<u8> {
                <$talk as Wire>::answer(port, tag)
            }

            fn request_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
                <$talk as Wire>::request_end(bytes)
            }

            fn answer_end(bytes: &[u8]) -> Option<usize> {
                <$talk as Wire>::answer_end(bytes).map(|(end, ..)| end)
            }
        }
    )*};
}

const GIVEN: &str = "    requestMutation: [{key: X-Given, value: granted}]\n";

as_in_legs! {
    Redis, "shop", "key: {prefix: k1}", "";
    Dubbo, "org.it", "method: {exact: k1}", GIVEN;
}

struct Http;

impl Talk for Http {
    const PROTOCOL: Option<netra_codecs::tap::Protocol> = None;
    const HOST: &'static str = "shop";
    const ATTRIBUTE: &'static str = "path: {prefix: /k1}";
    const GIVES: &'static str = GIVEN;

    fn request(key: &str, tag: usize, body: &[u8], _: bool) -> Vec<u8> {
        let is_chunked = tag.is_multiple_of(3);
        let framing = match is_chunked {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {}", body.len()),
        };
        let head = format!("POST /{key}/{tag:03} HTTP/1.1\r\nHost: shop\r\n{framing}\r\n\r\n");
        if !is_chunked {
            return [head.as_bytes(), body].concat();
        }
        let chunks = body.chunks(1500).flat_map(|chunk| {
            [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
        });
        head.into_bytes().into_iter().chain(chunks).chain(*b"0\r\n\r\n").collect()
    }

    fn answer(port: u16, tag: usize) -> Vec<u8> {
        let said = said(port, tag);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len()).into_bytes()
    }

    fn request_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let end = request_end(bytes)?;
        let tag = str::from_utf8(bytes.get(9..12)?).unwrap().parse().unwrap();
        Some((end, tag, true))
    }

    fn answer_end(bytes: &[u8]) -> Option<usize> {
        request_end(bytes)
    }
}

/// A server that answers each request, in their order.
fn server<T: Talk>(rng: &mut Rng, port: u16, ending: Ending) -> Peer {
    let mut seen = 0;
    Peer::replying(rng, ending, move |received, sends| {
        while let Some((end, tag, is_answered)) = T::request_end(&received[seen..]) {
            seen += end;
            if is_answered {
                sends.extend(T::answer(port, tag));
            }
        }
    })
}

thread_local! {
    /// What the mirror is like now.
    static MOOD: Cell<Mood> = const { Cell::new(Mood::Kind) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Kind,
    Late,
    RefusesAtOnce,
    Refuses,
    IsSilent,
    Resets,
    Ends,
    TalksMuch,
    NeverEnds,
}

const MOODS: [Mood; 9] = [
    Mood::Kind,
    Mood::Late,
    Mood::RefusesAtOnce,
    Mood::Refuses,
    Mood::IsSilent,
    Mood::Resets,
    Mood::Ends,
    Mood::TalksMuch,
    Mood::NeverEnds,
];

impl Mood {
    /// Who takes all copies that it is sent.
    fn takes_all(self) -> bool {
        matches!(self, Self::Kind | Self::Late | Self::TalksMuch | Self::NeverEnds)
    }
}

fn mirror<T: Talk>(rng: &mut Rng) -> (Peer, Answer) {
    let most = if rng.chance(60) { 40 } else { 4_000 };
    let at = rng.len(most) - 1;
    let (ending, answer) = match MOOD.get() {
        Mood::Kind | Mood::TalksMuch => (Ending::AfterTheOther, Answer::AtOnce),
        Mood::Late => (Ending::AfterTheOther, Answer::After(rng.below(4_000_000))),
        Mood::RefusesAtOnce => (Ending::AfterTheOther, Answer::RefusedAtOnce),
        Mood::Refuses => (Ending::AfterTheOther, Answer::RefusedAfter(9_000)),
        Mood::IsSilent => (Ending::AfterTheOther, Answer::Silence),
        Mood::Resets => (Ending::Reset(at), Answer::AtOnce),
        Mood::Ends => (Ending::At(at), Answer::AtOnce),
        Mood::NeverEnds => (Ending::Never, Answer::AtOnce),
    };
    if MOOD.get() != Mood::TalksMuch {
        return (server::<T>(rng, MIRROR, ending), answer);
    }
    let talk = Peer::replying(rng, ending, move |_, sends| {
        sends.resize((sends.len() + 30_000).min(400_000), b'x');
    });
    (talk, answer)
}

fn elsewhere<T: Talk>() -> BTreeMap<u16, Elsewhere> {
    BTreeMap::from([
        (
            PLACES[0],
            (|rng| (server::<T>(rng, PLACES[0], Ending::AfterTheOther), Answer::AtOnce))
                as Elsewhere,
        ),
        (PLACES[1], |rng| {
            let after = rng.below(900_000);
            (server::<T>(rng, PLACES[1], Ending::AfterTheOther), Answer::After(after))
        }),
        (MIRROR, mirror::<T>),
    ])
}

fn rules<T: Talk>(rng: &mut Rng, percent: u32) -> Box<ShardRules> {
    let entry = |host: &str, port: u16| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}}}\nspec:\n  \
             hosts: [{host}]\n  ports: [{{number: {port}, name: tcp-it}}]\n  resolution: STATIC\n  \
             endpoints: [{{address: 10.0.0.8}}]\n---\n"
        )
    };
    let delay = match rng.below(3) {
        0 => "    fault: {delay: {percentage: 40, fixedDelay: 1ms}}\n",
        _ => "",
    };
    let gives = if rng.chance(70) { T::GIVES } else { "" };
    let more = format!(
        "    mirror: {{host: copy}}\n    mirrorPercentage: {{value: {percent}}}\n{gives}{delay}"
    );
    let text = format!(
        "{}{}apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [{host}]\n  protocol: {protocol}\n  routes:\n  \
         - match: {{attributes: {{{attribute}}}}}\n    route: [{{destination: {{host: other}}}}]\n{more}  \
         - route: [{{destination: {{host: {host}}}}}]\n{more}",
        entry("copy", MIRROR),
        entry("other", PLACES[1]),
        host = T::HOST,
        protocol = T::PROTOCOL.map_or("http1", |it| it.about().name),
        attribute = T::ATTRIBUTE,
    );
    let source = Source { name: "it.yaml".into(), text };
    let addresses = [("shop".to_owned(), vec!["10.0.0.2".parse().unwrap()])].into();
    let context = Context { generation: 1, addresses, ..Context::of_sidecars("it") };
    let compiled = Documents::read(&[source]).compile(&context);
    let table = compiled.table.unwrap_or_else(|| panic!("{}", compiled.troubles));
    Box::new(ShardRules::new(&table, &Arc::new(table.process(None, 0)), 1))
}

/// A request: where it goes, and whether it is answered.
struct Asked {
    bytes: Vec<u8>,
    tag: usize,
    place: usize,
    is_oneway: bool,
}

fn conversation<T: Talk>(rng: &mut Rng) -> Vec<Asked> {
    let size = rng.below(4);
    let is_here = rng.chance(40);
    let asked = (1..=rng.len(REQUESTS_MAX)).map(|tag| {
        let place = if is_here { 0 } else { usize::try_from(rng.below(2)).unwrap() };
        let is_oneway = T::PROTOCOL == Some(<Dubbo as Wire>::PROTOCOL) && rng.chance(10);
        let len = match size {
            0 | 1 => rng.len(9),
            2 => rng.len(20_000),
            // Some are too long for a copy.
            _ if rng.chance(30) => 65_533,
            _ => rng.len(9),
        };
        let bytes = T::request(&format!("k{place}"), tag, &vec![b'b'; len], is_oneway);
        Asked { bytes, tag, place, is_oneway }
    });
    asked.collect()
}

fn client<T: Talk>(rng: &mut Rng, asked: &[Asked]) -> Peer {
    let window = if rng.chance(30) { 1 } else { rng.len(REQUESTS_MAX) };
    let requests = asked.iter().map(|it| (&it.bytes[..], it.is_oneway));
    windowed(rng, requests, window, T::answer_end, Ending::AfterSending)
}

struct World {
    shard: Shard<SimIo>,
    _commands: mpsc::Sender<Command>,
    _spans: spans::SpanSource,
}

fn world<T: Talk>(io: SimIo, rules: Box<ShardRules>, buffers: u32, limits: Limits) -> World {
    let (sink, spans) = spans::ring(1024, Waker::noop().clone());
    let (commands, receiver) = mpsc::channel();
    let reads = T::PROTOCOL.map_or_else(Reads::default, |protocol| {
        let ports: Vec<String> = (1..=999).map(|port| format!("{port}={protocol}")).collect();
        Reads::on(&ports.join(",").parse().unwrap())
    });
    let http = T::PROTOCOL.is_none();
    let http = http.then(|| Box::new(HttpCore::new(&http_config(), correlation())));
    let parts = Parts {
        recorder: Arc::new(Recorder::of(&reads.tables())),
        observer: Observer::new(http_config().tracing.as_ref(), 1, (Some(sink), None)),
        taps: Taps::new(reads, netra_codecs::Limits::DEFAULT, 1 << 20),
        gates: Gates { rules: Some(rules), ..Gates::default() },
        http,
        ..parts(limits, buffers, receiver)
    };
    World { shard: Shard::new(io, parts), _commands: commands, _spans: spans }
}

/// The whole requests that these bytes are, by tag, in their order, and how many bytes are behind them.
fn whole<T: Talk>(mut bytes: &[u8]) -> (Vec<(usize, Vec<u8>)>, usize) {
    let mut all = Vec::new();
    while let Some((end, tag, _)) = T::request_end(bytes) {
        all.push((tag, bytes[..end].to_vec()));
        bytes = &bytes[end..];
    }
    (all, bytes.len())
}

/// What the servers got: each request once, where it was for.
fn served<T: Talk>(seed: u64, io: &SimIo, asked: &[Asked]) -> BTreeMap<usize, Vec<u8>> {
    let home = io.upstream_of(io.arrived[0]).map(|fd| (PLACES[0], fd));
    let dialled = io.dialled.iter().copied().filter(|(port, _)| *port != MIRROR);
    let mut found = BTreeMap::new();
    for (port, fd) in home.into_iter().chain(dialled).collect::<BTreeSet<_>>() {
        let (requests, rest) = whole::<T>(&io.sockets[fd].peer.received);
        assert_eq!(rest, 0, "{seed}: half a request");
        for (tag, bytes) in requests {
            assert_eq!(PLACES[asked[tag - 1].place], port, "{seed}: {tag} went elsewhere");
            assert!(found.insert(tag, bytes).is_none(), "{seed}: {tag} came twice");
        }
    }
    assert_eq!(found.len(), asked.len(), "{seed}: requests are missing");
    found
}

/// The client has all of its answers, and nothing else.
fn answered<T: Talk>(seed: u64, io: &SimIo, asked: &[Asked]) {
    let mut received = &io.sockets[io.arrived[0]].peer.received[..];
    let mut due: Vec<_> = asked.iter().filter(|it| !it.is_oneway).collect();
    while let Some(end) = T::answer_end(received) {
        let is_it = |it: &&Asked| T::answer(PLACES[it.place], it.tag) == received[..end];
        let place = due.iter().position(is_it);
        due.remove(place.unwrap_or_else(|| panic!("{seed}: an answer that nobody gave")));
        received = &received[end..];
    }
    assert_eq!((due.len(), received.len()), (0, 0), "{seed}: not all answers, or more");
}

/// What the mirror got are copies, in their order, and whole ones, where it is one that takes them in time.
/// Returns how many.
fn copied<T: Talk>(
    seed: u64,
    io: &SimIo,
    served: &BTreeMap<usize, Vec<u8>>,
    is_in_time: bool,
) -> u64 {
    let (mut last, mut count) = (0, 0);
    for (_, fd) in io.dialled.iter().copied().filter(|(port, _)| *port == MIRROR) {
        let (copies, rest) = whole::<T>(&io.sockets[fd].peer.received);
        for (tag, bytes) in copies {
            assert!(served[&tag] == bytes, "{seed}: the copy of {tag} is none");
            assert!(tag > last, "{seed}: {tag} comes behind {last}");
            (last, count) = (tag, count + 1);
        }
        assert!(rest == 0 || !is_in_time, "{seed}: half a copy");
    }
    count
}

fn nothing_is_left(seed: u64, shard: &Shard<SimIo>) {
    assert_eq!(
        (shard.active, shard.legs, shard.mirrors),
        (0, 0, 0),
        "{seed}: a slot waits for ever"
    );
    let held = shard.core.taps.held_bytes();
    assert_eq!(held, 0, "{seed}: held bytes miscounted");
    let held = shard.core.http.as_deref().map_or(0, HttpCore::held_bytes);
    assert_eq!(held, 0, "{seed}: held bytes of heads miscounted");
    assert_eq!(shard.timers.next(&shard.slab), None, "{seed}: a free slot has a deadline");
    assert_eq!((shard.delays.next(), shard.heads.next()), (None, None), "{seed}");
    assert!(shard.core.io.sockets.iter().all(|s| s.closed), "{seed}: descriptors lost");
    assert_eq!(shard.descriptors.connections(), 0, "{seed}: room lost");
}

fn simulate<T: Talk>(seed: u64) -> (Mood, [u64; 7]) {
    let mut rng = Rng::new(seed);
    let mood = MOODS[usize::try_from(seed).unwrap() % MOODS.len()];
    MOOD.set(mood);
    let faults = Faults { accept_fails: 0, ..Faults::draw(&mut rng) };
    let asked = conversation::<T>(&mut rng);
    let home = server::<T>(&mut rng, PLACES[0], Ending::AfterTheOther);
    let client = client::<T>(&mut rng, &asked);
    let arrival = Arrival { at: 0, client, server: home, answer: Answer::AtOnce };
    let buffers = if rng.chance(30) { 6 } else { 512 };
    let percent = if rng.chance(70) { 100 } else { 40 };
    let rules = rules::<T>(&mut rng, percent);
    let limits = Limits {
        connect_timeout: Duration::from_millis(50),
        splice_from_bytes: [0, 4_096, 65_536][usize::try_from(rng.below(3)).unwrap()],
        half_close_linger: Duration::from_secs(3600),
        ..Limits::default()
    };
    let io = SimIo::outbound(rng, faults, vec![arrival], elsewhere::<T>());
    let mut world = world::<T>(io, rules, buffers, limits);
    come_to_rest(seed, &mut world.shard);
    let shard = &world.shard;
    nothing_is_left(seed, shard);
    let served = served::<T>(seed, &shard.core.io, &asked);
    answered::<T>(seed, &shard.core.io, &asked);
    let counts = [0, 1, 2, 3, 4, 5, 6].map(|it| shard.core.recorder.get(Key::mirrored(it)));
    // Who reads a byte at a time is left in the middle of a copy when its client is gone for long.
    let is_in_time = mood.takes_all() && counts[3] == 0;
    let copies = copied::<T>(seed, &shard.core.io, &served, is_in_time);
    let all: u64 = counts.iter().sum();
    let asked = asked.len() as u64;
    assert!(all == asked || (percent < 100 && all < asked), "{seed}: {counts:?} of {asked}");
    // What was sent to one that ends may be lost with it.
    assert!(copies <= all, "{seed}");
    if mood.takes_all() {
        assert_eq!(counts[0], copies, "{seed}: {mood:?} {counts:?}");
        assert_eq!((counts[4], counts[5], counts[6]), (0, 0, 0), "{seed}: {mood:?} {counts:?}");
    }
    (mood, counts)
}

fn simulate_all<T: Talk>() {
    let runs = with_seed(simulate::<T>);
    if runs.len() < 256 {
        return;
    }
    for (index, outcome) in MIRROR_OUTCOMES.iter().enumerate() {
        let is_reached = runs.iter().any(|(_, counts)| counts[index] > 0);
        // Nothing of these tests is a session, or wants for room.
        assert!(
            is_reached || ["session", "no_room"].contains(outcome),
            "no seed reaches {outcome}"
        );
    }
    let sent = runs.iter().filter(|(mood, _)| mood.takes_all()).map(|(_, it)| it[0]);
    assert!(sent.sum::<u64>() > 256, "hardly anything is copied");
}

#[test]
fn commands_of_redis_are_copied() {
    simulate_all::<Redis>();
}

#[test]
fn calls_of_dubbo_are_copied() {
    simulate_all::<Dubbo>();
}

/// A mirror had taken some of what it was sent when it was given up: seeds of which those were counted as
/// what it had not taken.
#[test]
fn a_copy_that_a_slow_mirror_took_is_one_that_was_sent() {
    for seed in [10160, 18034] {
        simulate::<Http>(seed);
    }
    for seed in [11320, 15838, 19988] {
        simulate::<Redis>(seed);
    }
    simulate::<Dubbo>(1882);
}

#[test]
fn requests_of_http_are_copied() {
    simulate_all::<Http>();
}
