//! Messages of one connection that rules send to two subsets of endpoints, some of which end while they owe answers,
//! on the simulated kernel: reads that a rule lets be asked again are answered, each once and with an answer of its
//! own, what changes something reaches nobody twice, and nothing is left.

use crate::{
    balance_simulation::World,
    config::Limits,
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer},
    },
    legs_simulation::{
        self, Dubbo, Thrift, Wire, answering, digits, dubbo_frame, line_end, number, said,
        thrift_frame, windowed,
    },
    simulation::with_seed,
};
use netra_codecs::tap::Protocol;
use netra_perf::{Key, Recorder};
use netra_rules::{Context, Documents, Source as Text, Table};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

const REQUESTS_MAX: usize = 24;
/// The servers of each subset: one that stays, and some that leave.
const SUBSETS: [[u16; 3]; 2] = [[40_001, 40_002, 40_003], [40_004, 40_005, 40_006]];
/// Of each subset nobody is there, and nobody says anything to a dial.
const NOBODY: [u16; 2] = [40_007, 40_008];

/// Commands of Redis, whose keys say what they do: their second letter is `g` where they only read.
struct Redis;

impl Wire for Redis {
    const PROTOCOL: Protocol = Protocol::Redis;
    const HAS_IDS: bool = false;
    const HAS_ONEWAY: bool = false;

    fn request(key: &str, tag: usize, body: &[u8], _: bool) -> Vec<u8> {
        let key = format!("{key}{tag:03}");
        let body = std::str::from_utf8(body).unwrap();
        let parts = match key.as_bytes()[1] {
            b'g' => vec!["GET", &key],
            _ => vec!["SET", &key, body],
        };
        let parts: String = parts.iter().map(|it| format!("${}\r\n{it}\r\n", it.len())).collect();
        let count = if key.as_bytes()[1] == b'g' { 2 } else { 3 };
        format!("*{count}\r\n{parts}").into_bytes()
    }

    fn says(tag: usize, text: &str) -> Vec<u8> {
        legs_simulation::Redis::says(tag, text)
    }

    fn request_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let mut at = line_end(bytes, 0)?;
        let (count, mut tag) = (number(&bytes[1..at]), 0);
        for part in 0..count {
            let line = line_end(bytes, at)?;
            let end = line + number(&bytes[at + 1..line]) + 2;
            if part == 1 {
                tag = digits(bytes.get(line..end)?);
            }
            at = end;
        }
        (at <= bytes.len()).then_some((at, tag, true))
    }

    fn answer_end(bytes: &[u8]) -> Option<(usize, usize, bool)> {
        let line = line_end(bytes, 0)?;
        if bytes[0] == b'-' {
            let is_known = ["-ERR netra: ", "-LOADING "].map(|it| bytes.starts_with(it.as_bytes()));
            assert!(is_known.contains(&true), "{}", bytes.escape_ascii());
            return Some((line, 0, true));
        }
        let end = line + number(&bytes[1..line]) + 2;
        (end <= bytes.len()).then_some((end, 0, false))
    }
}

/// What a server says that cannot serve now.
///
/// Methods of Dubbo say what they do as keys of Redis; those of Thrift are all named as reads.
trait Refuses: Wire {
    fn refusal(tag: usize) -> Vec<u8>;
}

impl Refuses for Redis {
    fn refusal(_: usize) -> Vec<u8> {
        b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()
    }
}

impl Refuses for Dubbo {
    fn refusal(tag: usize) -> Vec<u8> {
        dubbo_frame(2, 100, tag, b"\x04busy")
    }
}

impl Refuses for Thrift {
    fn refusal(_: usize) -> Vec<u8> {
        thrift_frame(3, "call", 1, b"busy")
    }
}

/// What an answer says; all are as long where servers are kind.
fn told(port: u16, tag: usize) -> String {
    if IS_UNKIND.get() { said(port, tag) } else { format!("{port:05}:{tag:03}") }
}

fn answer<W: Wire>(port: u16, tag: usize) -> Vec<u8> {
    W::says(tag, &told(port, tag))
}

/// What is read is asked again, and nothing else. The endpoints begin at another one each `turn`: which of them are
/// chosen first is always the same.
fn table(protocol: Protocol, has_nobody: bool, turn: usize) -> Arc<Table> {
    type Tables = BTreeMap<(String, bool, bool, usize), Arc<Table>>;
    thread_local! {
        static TABLES: RefCell<Tables> = const { RefCell::new(BTreeMap::new()) };
    }
    let made = |tables: &RefCell<Tables>| {
        let key = (protocol.to_string(), has_nobody, REFUSES.get(), turn);
        let made = || compile(protocol, has_nobody, turn);
        Arc::clone(tables.borrow_mut().entry(key).or_insert_with(made))
    };
    TABLES.with(made)
}

fn compile(protocol: Protocol, has_nobody: bool, turn: usize) -> Arc<Table> {
    let endpoint = |port: u16, subset: usize| {
        format!("  - {{address: 10.0.0.8, ports: {{p: {port}}}, labels: {{subset: s{subset}}}}}\n")
    };
    let mut endpoints: Vec<String> = (SUBSETS.iter().enumerate())
        .flat_map(|(subset, ports)| ports.iter().map(move |port| endpoint(*port, subset)))
        .chain(NOBODY.iter().filter(|_| has_nobody).zip(0..).map(|(port, it)| endpoint(*port, it)))
        .collect();
    endpoints.rotate_left(turn);
    let endpoints = endpoints.concat();
    let on = if REFUSES.get() { "reset, timeout, gateway-error" } else { "reset, timeout" };
    let (attribute, operations) = match protocol {
        Protocol::Redis => ("key", ""),
        Protocol::Thrift => ("service", ", operations: [call]"),
        _ => ("method", ", operations: [ag, bg]"),
    };
    let retry = format!("{{on: [{on}], perTryTimeout: 30s{operations}}}");
    let route = |name: &str, subset: usize| {
        format!(
            "  - match: {{attributes: {{{attribute}: {{prefix: {name}}}}}}}\n    \
             route: [{{destination: {{host: org.shop, subset: s{subset}}}}}]\n    retry: {retry}\n"
        )
    };
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s}}\nspec:\n  \
         hosts: [org.shop]\n  addresses: [10.0.0.2]\n  ports: [{{number: 1, name: p}}]\n  \
         resolution: STATIC\n  endpoints:\n{endpoints}---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d}}\nspec:\n  \
         host: org.shop\n  trafficPolicy:\n    \
         retryBudget: {{percent: 100, minRetryConcurrency: 50}}\n  \
         subsets: [{{name: s0, labels: {{subset: s0}}}}, {{name: s1, labels: {{subset: s1}}}}]\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  \
         hosts: [org.shop]\n  protocol: {protocol}\n  routes:\n{}{}",
        route("a", 0),
        route("b", 1),
    );
    let documents = Documents::read(&[Text { name: "rules".into(), text }]);
    let compiled = documents.compile(&Context { generation: 1, ..Context::default() });
    compiled.table.unwrap_or_else(|| panic!("{}", compiled.troubles))
}

thread_local! {
    /// Servers end anywhere, reset their connections, or are not there.
    static IS_UNKIND: Cell<bool> = const { Cell::new(false) };
    /// Servers say nothing more, where they would leave.
    static STALLS: Cell<bool> = const { Cell::new(false) };
    /// Servers say that they cannot serve now, where they would leave; how often they have.
    static REFUSES: Cell<bool> = const { Cell::new(false) };
    static REFUSALS: Cell<usize> = const { Cell::new(0) };
}

/// One that leaves when it has given a few answers, anywhere where servers are unkind.
fn leaving<W: Refuses>(rng: &mut Rng, port: u16) -> Peer {
    if REFUSES.get() {
        let ends = IS_UNKIND.get() && rng.chance(50);
        let at = rng.len(3_000) - 1;
        let ending = match rng.below(2) {
            _ if !ends => Ending::AfterTheOther,
            0 => Ending::Reset(at),
            _ => Ending::At(at),
        };
        return refusing::<W>(rng, port, ending);
    }
    if !IS_UNKIND.get() {
        return leaving_between::<W>(rng, port);
    }
    let at = rng.len(3_000) - 1;
    let ending = match rng.below(4) {
        0 => Ending::Reset(at),
        1 | 2 => Ending::At(at),
        _ => Ending::AfterTheOther,
    };
    answering::<W>(rng, port, ending, answer::<W>)
}

/// One that leaves between two answers, or stalls there, whatever it was asked by then.
fn leaving_between<W: Wire>(rng: &mut Rng, port: u16) -> Peer {
    let most = usize::try_from(rng.below(6)).unwrap();
    let (mut seen, mut said) = (0, 0);
    let ending = match STALLS.get() && rng.chance(60) {
        true => Ending::Never,
        false => Ending::At(most * answer::<W>(port, 1).len()),
    };
    Peer::replying(rng, ending, move |received, sends| {
        while let Some((end, tag, _)) = W::request_end(&received[seen..]) {
            seen += end;
            if said < most {
                sends.extend(answer::<W>(port, tag));
                said += 1;
            }
        }
    })
}

/// One that cannot serve now, by chance or from some answer on.
fn refusing<W: Refuses>(rng: &mut Rng, port: u16, ending: Ending) -> Peer {
    let (percent, most) = (rng.below(60), usize::try_from(rng.below(6)).unwrap());
    let (mut seen, mut said, mut chance) = (0, 0, Rng::new(rng.next()));
    let peer = Peer::replying(rng, ending, move |received, sends| {
        while let Some((end, tag, is_answered)) = W::request_end(&received[seen..]) {
            seen += end;
            said += 1;
            if !is_answered {
                continue;
            }
            if said > most || chance.chance(percent) {
                REFUSALS.set(REFUSALS.get() + 1);
                sends.extend(W::refusal(tag));
            } else {
                sends.extend(answer::<W>(port, tag));
            }
        }
    });
    // What comes in pieces is passed on.
    if !IS_UNKIND.get() || rng.chance(50) { peer.in_one() } else { peer }
}

fn staying<W: Wire>(rng: &mut Rng, port: u16) -> Peer {
    answering::<W>(rng, port, Ending::AfterTheOther, answer::<W>)
}

fn elsewhere<W: Refuses>() -> BTreeMap<u16, Elsewhere> {
    BTreeMap::from([
        (SUBSETS[0][0], (|rng| (staying::<W>(rng, SUBSETS[0][0]), Answer::AtOnce)) as Elsewhere),
        (SUBSETS[0][1], |rng| (leaving::<W>(rng, SUBSETS[0][1]), Answer::AtOnce)),
        (SUBSETS[0][2], |rng| (leaving::<W>(rng, SUBSETS[0][2]), Answer::After(2_000))),
        (SUBSETS[1][0], |rng| {
            let after = rng.below(4_000_000);
            (staying::<W>(rng, SUBSETS[1][0]), Answer::After(after))
        }),
        (SUBSETS[1][1], |rng| (leaving::<W>(rng, SUBSETS[1][1]), Answer::AtOnce)),
        (SUBSETS[1][2], |rng| {
            let after = rng.below(900_000);
            (leaving::<W>(rng, SUBSETS[1][2]), Answer::After(after))
        }),
        (NOBODY[0], |rng| {
            let answer =
                if rng.chance(50) { Answer::RefusedAtOnce } else { Answer::RefusedAfter(9_000) };
            (staying::<W>(rng, NOBODY[0]), answer)
        }),
        (NOBODY[1], |rng| (staying::<W>(rng, NOBODY[1]), Answer::Silence)),
    ])
}

/// A request: its subset, whether it only reads, and whether it is answered.
#[derive(Debug)]
struct Asked {
    bytes: Vec<u8>,
    tag: usize,
    subset: usize,
    is_read: bool,
    is_oneway: bool,
}

fn conversation<W: Wire>(rng: &mut Rng) -> Vec<Asked> {
    let is_unkind = IS_UNKIND.get();
    let reads = if is_unkind { 20 + rng.below(80) } else { 100 };
    let is_big = is_unkind && rng.chance(30);
    let asked = (1..=rng.len(REQUESTS_MAX)).map(|tag| {
        let subset = usize::from(rng.chance(50));
        let is_read = rng.chance(reads);
        let is_oneway = !is_read && W::HAS_ONEWAY && rng.chance(20);
        let body = vec![b'x'; if is_big { rng.len(20_000) } else { rng.len(9) }];
        let key = [["as", "ag"], ["bs", "bg"]][subset][usize::from(is_read)];
        Asked { bytes: W::request(key, tag, &body, is_oneway), tag, subset, is_read, is_oneway }
    });
    asked.collect()
}

/// A client that has some requests under way at a time, and ends when it has all that it is told.
fn client<W: Wire>(rng: &mut Rng, asked: &[Asked]) -> Peer {
    let window = if rng.chance(20) { 1 } else { rng.len(REQUESTS_MAX) };
    let requests = asked.iter().map(|it| (&it.bytes[..], it.is_oneway));
    // Who has ended its stream is not served on where the connection's only upstream ends.
    let ends = IS_UNKIND.get() && rng.chance(50);
    let ending = if ends { Ending::AfterSending } else { Ending::AfterTheOther };
    windowed(rng, requests, window, |bytes| W::answer_end(bytes).map(|(end, ..)| end), ending)
}

fn run<W: Refuses>(seed: u64, is_unkind: bool) -> (World, Vec<Asked>) {
    IS_UNKIND.set(is_unkind);
    let mut rng = Rng::new(seed);
    let faults = Faults { accept_fails: 0, ..Faults::draw(&mut rng) };
    let asked = conversation::<W>(&mut rng);
    let arrival = Arrival {
        at: 0,
        client: client::<W>(&mut rng, &asked),
        server: staying::<W>(&mut rng, 1),
        answer: Answer::AtOnce,
    };
    let buffers = if rng.chance(40) { 6 } else { 512 };
    let legs_max = if is_unkind { u32::try_from(rng.len(6)).unwrap() + 1 } else { 8 };
    let io = SimIo::outbound(rng, faults, vec![arrival], elsewhere::<W>());
    let limits = Limits {
        legs_max,
        connect_timeout: Duration::from_millis(50),
        idle_timeout: Some(Duration::from_secs(600)),
        half_close_linger: Duration::from_secs(3600),
        ..Limits::default()
    };
    let turn = usize::try_from(seed % 8).unwrap();
    let table = table(W::PROTOCOL, is_unkind, turn.min(5 + 2 * usize::from(is_unkind)));
    let process = Arc::new(table.process(None, 0));
    let mut world =
        World::on(io, (table, process), Some(W::PROTOCOL), (limits, buffers), Vec::new());
    world.rest(seed);
    assert_eq!(world.shard.legs, 0, "{seed}: a leg is left");
    (world, asked)
}

/// The tags of whole requests that servers got: each as it was sent, by its own subset alone, and what changes
/// something by one of them.
fn served<W: Wire>(seed: u64, world: &World, asked: &[Asked]) -> BTreeSet<usize> {
    let io = &world.shard.core.io;
    let mut tags = BTreeSet::new();
    for (port, fd) in io.dialled.iter().copied() {
        let mut received = &io.sockets[fd].peer.received[..];
        while let Some((end, tag, _)) = W::request_end(received) {
            let it = &asked[tag - 1];
            assert_eq!(received[..end], it.bytes, "{seed}: {tag} is not what was sent");
            let is_own = SUBSETS[it.subset].contains(&port);
            assert!(is_own, "{seed}: {tag} of {} is at {port}", it.subset);
            assert!(tags.insert(tag) || it.is_read, "{seed}: {tag} reached a second server");
            received = &received[end..];
        }
    }
    tags
}

/// What the client got is whole answers, each to a request of its own; returns whose, and who was told that there
/// is none.
fn answered<W: Wire>(seed: u64, world: &World, asked: &[Asked]) -> [BTreeSet<usize>; 2] {
    let client = &world.shard.core.io.sockets[0].peer;
    let mut received = &client.received[..];
    let mut in_order = asked.iter().filter(|it| !it.is_oneway);
    let mut all = [BTreeSet::new(), BTreeSet::new()];
    while let Some((end, id, is_refusal)) = W::answer_end(received) {
        let it = if W::HAS_IDS { &asked[id - 1] } else { in_order.next().unwrap() };
        let mut own = SUBSETS[it.subset].iter().map(|port| answer::<W>(*port, it.tag));
        let is_own = is_refusal || own.any(|answer| received[..end] == answer);
        let said = received[..end.min(90)].escape_ascii();
        assert!(is_own, "{seed}: {said} is not the answer to {}", it.tag);
        let is_first = !all.iter().any(|all| all.contains(&it.tag));
        assert!(is_first && !it.is_oneway, "{seed}: {} was answered twice", it.tag);
        all[usize::from(is_refusal)].insert(it.tag);
        received = &received[end..];
    }
    all
}

/// Servers leave between two answers: no client learns of it. Where the only upstream ends while a part of a request
/// is there, or one waits for its first leg, that end is final, and noted where nobody spins: that is rare.
fn simulate<W: Refuses>(seed: u64) -> Arc<Recorder> {
    let (world, asked) = run::<W>(seed, false);
    served::<W>(seed, &world, &asked);
    let [answered, refused] = answered::<W>(seed, &world, &asked);
    assert_eq!(refused, BTreeSet::new(), "{seed}");
    if answered.len() < asked.len() {
        assert_eq!(world.shard.core.recorder.get(Key::LEG_OPENED), 0, "{seed}: {answered:?}");
        world.shard.core.recorder.bump(Key::SPINS);
    }
    let len: usize = world.shard.core.io.sockets[0].peer.received.len();
    let (mut seen, received) = (0, &world.shard.core.io.sockets[0].peer.received);
    while let Some((end, ..)) = W::answer_end(&received[seen..]) {
        seen += end;
    }
    assert_eq!(seen, len, "{seed}: something is behind the last answer");
    Arc::clone(&world.shard.core.recorder)
}

/// Servers leave or stall between two answers: no client learns of it.
fn simulate_stalls<W: Refuses>(seed: u64) -> Arc<Recorder> {
    STALLS.set(true);
    let recorder = simulate::<W>(seed);
    STALLS.set(false);
    recorder
}

/// Servers end anywhere, and some of what is asked changes something.
fn simulate_unkind<W: Refuses>(seed: u64) -> Arc<Recorder> {
    let (world, asked) = run::<W>(seed, true);
    let served = served::<W>(seed, &world, &asked);
    let [answered, _] = answered::<W>(seed, &world, &asked);
    assert!(answered.is_subset(&served), "{seed}: {answered:?} were answered, not {served:?}");
    Arc::clone(&world.shard.core.recorder)
}

/// What became of the refusals of servers: how many there were, and how many clients were told of one.
type Refused = (Arc<Recorder>, usize, usize);

/// Servers refuse what they could serve: every request is answered once, by the refusal only where nobody else could
/// be asked.
fn simulate_refusals<W: Refuses>(seed: u64) -> Refused {
    REFUSES.set(true);
    REFUSALS.set(0);
    let (world, asked) = run::<W>(seed, false);
    REFUSES.set(false);
    served::<W>(seed, &world, &asked);
    let [answered, refused] = answered::<W>(seed, &world, &asked);
    assert_eq!(answered.len() + refused.len(), asked.len(), "{seed}: {answered:?} {refused:?}");
    (Arc::clone(&world.shard.core.recorder), REFUSALS.get(), refused.len())
}

/// The same, of servers that end anywhere, too, and of requests that change something.
fn simulate_unkind_refusals<W: Refuses>(seed: u64) -> Arc<Recorder> {
    REFUSES.set(true);
    let recorder = simulate_unkind::<W>(seed);
    REFUSES.set(false);
    recorder
}

fn reaches(recorders: &[Arc<Recorder>], keys: &[Key]) {
    for key in keys.iter().filter(|_| recorders.len() >= 256) {
        assert!(recorders.iter().any(|r| r.get(*key) > 0), "no seed reaches {key:?}");
    }
}

fn few_are_cut(recorders: &[Arc<Recorder>]) {
    let cut = recorders.iter().filter(|it| it.get(Key::SPINS) > 0).count();
    assert!(cut * 1_000 <= recorders.len().max(1_000), "{cut} of {}", recorders.len());
}

fn kind(recorders: &[Arc<Recorder>]) {
    reaches(recorders, &KIND);
    few_are_cut(recorders);
}

const KIND: [Key; 3] = [Key::LEG_OPENED, Key::LEG_LOST, Key::SENT_AGAIN];
const UNKIND: [Key; 4] = [Key::LEG_OPENED, Key::LEG_LOST, Key::SENT_AGAIN, Key::TRIED_ELSEWHERE];

#[test]
fn commands_of_redis_that_a_leg_owes_are_answered_by_its_successor() {
    kind(&with_seed(simulate::<Redis>));
}

#[test]
fn calls_of_dubbo_that_a_leg_owes_are_answered_by_its_successor() {
    kind(&with_seed(simulate::<Dubbo>));
}

#[test]
fn commands_of_redis_that_a_leg_is_silent_about_are_answered_by_its_successor() {
    kind(&with_seed(simulate_stalls::<Redis>));
}

#[test]
fn calls_of_dubbo_that_a_leg_is_silent_about_are_answered_by_its_successor() {
    kind(&with_seed(simulate_stalls::<Dubbo>));
}

#[test]
fn unkind_servers_of_redis_get_nothing_twice_that_changes_something() {
    reaches(&with_seed(simulate_unkind::<Redis>), &UNKIND);
}

#[test]
fn unkind_servers_of_dubbo_get_nothing_twice_that_changes_something() {
    reaches(&with_seed(simulate_unkind::<Dubbo>), &UNKIND);
}

/// At most one refusal in so many reaches a client.
fn few_are_told(refused: &[Refused], one_in: usize) {
    let recorders: Vec<_> = refused.iter().map(|(recorder, ..)| Arc::clone(recorder)).collect();
    reaches(&recorders, &[Key::LEG_OPENED, Key::SENT_AGAIN]);
    let [all, told] =
        [1, 2].map(|it| refused.iter().map(|of| if it == 1 { of.1 } else { of.2 }).sum::<usize>());
    assert!(told * one_in <= all.max(one_in * 3), "{told} of {all} refusals were told");
}

#[test]
fn commands_of_redis_that_a_server_cannot_serve_are_served_by_another() {
    few_are_told(&with_seed(simulate_refusals::<Redis>), 10);
}

#[test]
fn calls_of_dubbo_that_a_server_cannot_serve_are_served_by_another() {
    few_are_told(&with_seed(simulate_refusals::<Dubbo>), 100);
}

#[test]
fn calls_of_thrift_that_a_server_cannot_serve_are_served_by_another() {
    few_are_told(&with_seed(simulate_refusals::<Thrift>), 10);
}

#[test]
fn unkind_servers_of_redis_that_cannot_serve_get_nothing_twice_that_changes_something() {
    reaches(&with_seed(simulate_unkind_refusals::<Redis>), &UNKIND);
}

#[test]
fn unkind_servers_of_dubbo_that_cannot_serve_get_nothing_twice_that_changes_something() {
    reaches(&with_seed(simulate_unkind_refusals::<Dubbo>), &UNKIND);
}
