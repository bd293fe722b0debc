//! Requests of HTTP/1 that go to another endpoint after 502 to 504, or after a while, on the simulated
//! kernel, seed by seed: each is answered once, with an answer of its own and whole, nothing of one that
//! was withheld reaches anybody, and who answers well is found where there is somebody.

use crate::{
    balance_simulation::{CONNECTIONS, World, rules},
    config::Limits,
    exchange::ShardRules,
    http_simulation::{request_end, room},
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    shard::Command,
    simulation::with_seed,
    sys::Nanos,
};
use netra_codecs::trace::SpanText;
use netra_perf::{Key, Recorder};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::Duration,
};

const PORTS: [u16; 3] = [40_001, 40_002, 40_003];
const REQUESTS_MAX: usize = 6;
const ROUTE: &str = ", timeout: {firstByte: 300ms}, \
    retry: {on: [reset, timeout, gateway-error], perTryTimeout: 6ms, attempts: 2}";
/// Who would be told that nobody answered in time.
const TOO_LATE: &str = "netra: the answer took too long (Router/default/r/route0)\n";

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
    /// Servers reset their connections somewhere.
    static IS_UNKIND: Cell<bool> = const { Cell::new(false) };
}

/// A number that is always the same of the same server, request and seed.
fn draw(port: u16, tag: &str) -> u64 {
    let seed = SEED.get() ^ u64::from(port) << 32;
    tag.bytes().fold(seed, |sum, byte| {
        let mixed = (sum ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    })
}

/// What the server at this port says of a request, and its status; None where it says nothing for ever.
fn answer(port: u16, tag: &str) -> Option<(u16, Vec<u8>)> {
    let drawn = draw(port, tag);
    let (status, before) = match drawn % 12 {
        0..=3 => (200, ""),
        4 | 5 => (503, ""),
        6 | 7 => (502, ""),
        8 => (504, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        9 => (504, ""),
        10 => (500, ""),
        _ => return None,
    };
    let len = usize::try_from(if drawn.is_multiple_of(16) { drawn % 40_000 } else { drawn % 600 })
        .unwrap();
    let body = format!("{port} {tag} ").repeat(len / 12 + 1);
    let (framing, body) = match drawn >> 20 & 1 {
        0 => (format!("Content-Length: {}", body.len()), body),
        _ => (
            "Transfer-Encoding: chunked".to_owned(),
            format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        ),
    };
    let body = if tag.starts_with("head") { String::new() } else { body };
    let head = format!("{before}HTTP/1.1 {status} X\r\nX-Of: {port} {tag}\r\n{framing}\r\n\r\n");
    Some((status, [head, body].concat().into_bytes()))
}

/// The tag of a request.
fn tag_of(request: &[u8]) -> String {
    let line = request.split(|byte| *byte == b' ').nth(1).unwrap();
    String::from_utf8(line[1..].to_vec()).unwrap()
}

fn request(tag: &str) -> Vec<u8> {
    let line = |method: &str| format!("{method} /{tag} HTTP/1.1\r\nHost: shop\r\n");
    let text = match tag.split('-').next() {
        Some("head") => line("HEAD") + "\r\n",
        Some("post") => line("POST") + "Content-Length: 4\r\n\r\nbody",
        _ => line("GET") + "\r\n",
    };
    text.into_bytes()
}

fn tags(mut received: &[u8]) -> Vec<String> {
    let mut tags = Vec::new();
    while let Some(end) = request_end(received) {
        tags.push(tag_of(&received[..end]));
        received = &received[end..];
    }
    tags
}

fn server(rng: &mut Rng, port: u16) -> Peer {
    let mut seen = 0;
    let mut is_stuck = false;
    let ending = match rng.below(10) {
        0..5 if IS_UNKIND.get() => Ending::Reset(rng.len(1_500) - 1),
        _ => Ending::AfterTheOther,
    };
    Peer::replying(rng, ending, move |received, sends| {
        while let Some(end) = request_end(&received[seen..]) {
            let tag = tag_of(&received[seen..seen + end]);
            seen += end;
            match answer(port, &tag) {
                Some((_, bytes)) if !is_stuck => sends.extend(bytes),
                _ => is_stuck = true,
            }
        }
    })
}

fn elsewhere() -> BTreeMap<u16, Elsewhere> {
    BTreeMap::from([
        (PORTS[0], (|rng| (server(rng, PORTS[0]), Answer::AtOnce)) as Elsewhere),
        (PORTS[1], |rng| (server(rng, PORTS[1]), Answer::After(1_000))),
        (PORTS[2], |rng| (server(rng, PORTS[2]), Answer::After(90_000))),
    ])
}

/// What came of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    /// This answer of one of the servers; whether something came before it.
    Answer(u16, bool),
    /// netra's own.
    TooLate,
    /// A part of one of those, or nothing.
    Cut,
}

/// What a client has got of these requests, in order; what is no answer to them is a failure.
fn got(wanted: &[String], received: &[u8]) -> Vec<Got> {
    let late = format!(
        "HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        TOO_LATE.len()
    );
    let (mut all, mut rest) = (Vec::new(), received);
    for tag in wanted {
        let answers: Vec<_> = PORTS.iter().filter_map(|port| answer(*port, tag)).collect();
        if let Some((status, bytes)) = answers.iter().find(|(_, it)| rest.starts_with(it)) {
            all.push(Got::Answer(*status, bytes.starts_with(b"HTTP/1.1 103")));
            rest = &rest[bytes.len()..];
            continue;
        }
        let text = if tag.starts_with("head") { "" } else { TOO_LATE };
        let late = [&late, text].concat();
        if rest == late.as_bytes() {
            all.push(Got::TooLate);
            return all;
        }
        let is_part =
            answers.iter().any(|(_, it)| it.starts_with(rest)) || late.as_bytes().starts_with(rest);
        assert!(is_part, "{tag}: {}", rest[..rest.len().min(300)].escape_ascii());
        all.push(Got::Cut);
        return all;
    }
    assert!(rest.is_empty(), "more than was asked for");
    all
}

/// A client, and what it asks for.
fn client(rng: &mut Rng, name: usize, stays: bool) -> (Peer, Vec<String>) {
    let count = rng.len(REQUESTS_MAX);
    let wanted: Vec<_> = (0..count)
        .map(|index| {
            let method = ["get", "get", "get", "get", "head", "post"][rng.len(6) - 1];
            format!("{method}-{name}-{index}")
        })
        .collect();
    let requests: Vec<_> = wanted.iter().map(|tag| request(tag)).collect();
    let ends: Vec<_> = requests
        .iter()
        .scan(0, |sum, it| {
            *sum += it.len();
            Some(*sum)
        })
        .collect();
    let is_at_once = !stays && rng.chance(50);
    let tags = wanted.clone();
    let turns = Turns::new(move |received| {
        let whole = got(&tags, received).iter().filter(|it| **it != Got::Cut).count();
        ends[if is_at_once { count - 1 } else { whole.min(count - 1) }]
    });
    let ending = match rng.below(10) {
        _ if stays => Ending::AfterTheOther,
        0 => Ending::Reset(rng.len(requests.concat().len())),
        1..5 => Ending::AfterSending,
        _ => Ending::AfterTheOther,
    };
    (Peer::scripted(rng, requests.concat(), ending, turns), wanted)
}

/// Who asks how in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Clients wait for each answer and stay; servers are well, say no, or nothing.
    Patient,
    /// Clients send what they like, and end; rules come and go.
    Hasty,
    /// The same, and servers reset as well.
    Unkind,
}

fn simulate(seed: u64, kind: Kind) -> (Arc<Recorder>, Vec<Got>) {
    SEED.set(seed);
    IS_UNKIND.set(kind == Kind::Unkind);
    let mut rng = Rng::new(seed);
    let faults = Faults { accept_fails: 0, ..Faults::draw(&mut rng) };
    let (mut arrivals, mut asked) = (Vec::new(), Vec::new());
    for name in 0..CONNECTIONS / 2 {
        let (client, wanted) = client(&mut rng, name, kind == Kind::Patient);
        let server = server(&mut rng, PORTS[0]);
        // In order, so that the descriptor tells which client it is.
        let at = name as u64 * 3_000_000;
        arrivals.push(Arrival { at, client, server, answer: Answer::AtOnce });
        asked.push(wanted);
    }
    let (limits, buffers) = room(&mut rng);
    // Who reads a byte every 3 ms reads the longest answer for two minutes, of which netra sees nothing.
    let limits = Limits {
        idle_timeout: Some(Duration::from_secs(200)),
        half_close_linger: Duration::from_secs(200),
        ..limits
    };
    let changes: Vec<_> = (0..3).map(|_| rng.below(3_000)).collect();
    let io = SimIo::outbound(rng, faults, arrivals, elsewhere());
    let mut world = World::on(io, rules(&PORTS, ROUTE), None, (limits, buffers), Vec::new());
    if kind != Kind::Patient {
        change_rules(&mut world, changes);
    }
    world.rest(seed);
    check(seed, &mut world, &asked, kind)
}

/// Rules come and go while requests are open.
fn change_rules(world: &mut World, mut changes: Vec<u64>) {
    changes.sort_unstable();
    let mut turn = 0;
    for (number, at) in changes.into_iter().enumerate() {
        while turn < at && !world.shard.core.io.idle {
            let wait = world.shard.park();
            world.shard.turn(wait).unwrap();
            turn += 1;
        }
        let (table, process) = rules(&PORTS, if number % 2 == 0 { "" } else { ROUTE });
        let obeyed = Box::new(ShardRules::new(&table, &process, 1));
        world.commands.send(Command::Obey(obeyed, mpsc::channel().0)).unwrap();
        world.shard.core.io.wake();
    }
}

fn check(
    seed: u64,
    world: &mut World,
    asked: &[Vec<String>],
    kind: Kind,
) -> (Arc<Recorder>, Vec<Got>) {
    let core = &world.shard.core;
    assert_eq!(core.http.as_deref().unwrap().held_bytes(), 0, "{seed}: held bytes miscounted");
    let left = [world.shard.delays.next(), world.shard.heads.next(), world.shard.answers.next()];
    assert_eq!(left, [None; 3], "{seed}: deadlines left behind");
    let io = &core.io;
    let mut served: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for &(port, fd) in &io.dialled {
        for tag in tags(&io.sockets[fd].peer.received) {
            served.entry(tag).or_default().push(port);
        }
    }
    for (tag, ports) in &served {
        let is_read = !tag.starts_with("post");
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ports.len(), "{seed}: {tag} reached one twice: {ports:?}");
        assert!(is_read || ports.len() == 1, "{seed}: {tag} was sent again: {ports:?}");
    }
    let mut all = Vec::new();
    let mut of_tags = BTreeMap::new();
    for (fd, wanted) in io.arrived.iter().zip(asked) {
        let got = got(wanted, &io.sockets[*fd].peer.received);
        of_tags.extend(wanted.iter().cloned().zip(got.iter().copied()));
        all.extend(got);
    }
    let mut tries = BTreeMap::new();
    while world.spans.drain(64, |span| {
        let is_told = span.tries.reason.is_some();
        assert_eq!(is_told, span.tries.count > 1, "{seed}: {:?}", span.tries);
        let target = String::from_utf8(span.text(SpanText::Target).unwrap().to_vec()).unwrap();
        tries.insert(target[1..].to_owned(), span.tries.count);
    }) > 0
    {}
    if kind == Kind::Patient {
        for (tag, got) in of_tags {
            let of = tries.get(&tag);
            let was_tried = of == Some(&3) || tag.starts_with("post");
            match got {
                Got::Answer(502..=504, false) | Got::TooLate => {
                    assert!(was_tried, "{seed}: {tag} came to {got:?} after {of:?}");
                }
                Got::Answer(..) => {}
                Got::Cut => panic!("{seed}: {tag} was cut"),
            }
        }
    }
    (Arc::clone(&world.shard.core.recorder), all)
}

fn reaches(runs: &[(Arc<Recorder>, Vec<Got>)], wanted: &[Got]) {
    if runs.len() < 256 {
        return;
    }
    assert!(runs.iter().any(|(it, _)| it.get(Key::SENT_AGAIN) > 0), "nothing was asked again");
    for one in wanted {
        assert!(runs.iter().any(|(_, all)| all.contains(one)), "no seed reaches {one:?}");
    }
    for key in [Key::SPLICE_BYTES, Key::BUFFER_STARVED, Key::BACK_PRESSURE] {
        assert!(runs.iter().any(|(it, _)| it.get(key) > 0), "no seed reaches {key:?}");
    }
}

#[test]
fn who_waits_gets_the_best_answer_that_there_is() {
    let runs = with_seed(|seed| simulate(seed, Kind::Patient));
    let (well, before) = (Got::Answer(200, false), Got::Answer(504, true));
    reaches(&runs, &[well, before, Got::Answer(503, false), Got::TooLate]);
}

#[test]
fn clients_that_end_and_rules_that_change_lose_nothing() {
    let runs = with_seed(|seed| simulate(seed, Kind::Hasty));
    reaches(&runs, &[Got::Answer(200, false), Got::Answer(503, false), Got::TooLate]);
}

#[test]
fn servers_that_reset_leave_answers_what_they_are() {
    let runs = with_seed(|seed| simulate(seed, Kind::Unkind));
    reaches(&runs, &[Got::Answer(200, false), Got::Cut]);
}

/// Its client reads slowly, the body before it was spliced, and the next request goes elsewhere: seeds that
/// did so when its upstream was left too early.
#[test]
fn an_answer_that_is_partly_in_the_upstreams_socket_is_not_lost() {
    for seed in [2599, 3394, 4605, 5728] {
        simulate(seed, Kind::Hasty);
    }
}

/// Buffers are all lent and the client's socket is full: seeds in which the end of netra's own answer was lost.
#[test]
fn an_answer_of_netras_own_needs_no_buffer() {
    for seed in [257, 14312] {
        simulate(seed, Kind::Patient);
    }
}

const GET: &str = "GET /1 HTTP/1.1\r\nHost: shop\r\n\r\n";
const HEAD: &str = "HEAD /1 HTTP/1.1\r\nHost: shop\r\n\r\n";
const POST: &str = "POST /1 HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nok";
/// What every server says but the first that is asked.
const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const CUT_NS: Nanos = 5_000_000;

/// What is asked at once, what the first server says to it, whether it ends then, and what the client
/// gets.
const TABLE: [(&str, &[&str], &str, bool, &str); 10] = [
    ("a length", &[GET], "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", false, WELL),
    (
        "chunks",
        &[GET],
        "HTTP/1.1 502 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        false,
        WELL,
    ),
    ("until the end", &[GET], "HTTP/1.1 504 No\r\n\r\nno, and no", true, WELL),
    ("HEAD", &[HEAD], "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n", false, WELL),
    (
        "something before it",
        &[GET],
        "HTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno",
        false,
        "HTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "no gateway's",
        &[GET],
        "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
        false,
        "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "no read",
        &[POST],
        "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno",
        false,
        "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno",
    ),
    (
        "behind another's answer",
        &[GET, GET],
        "HTTP/1.1 200 A\r\nContent-Length: 1\r\n\r\naHTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno",
        false,
        "HTTP/1.1 200 A\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "before another's answer",
        &[GET, GET],
        "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 B\r\nContent-Length: 1\r\n\r\nb",
        false,
        "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 B\r\nContent-Length: 1\r\n\r\nb",
    ),
    (
        "a head that ends with its stream",
        &[GET],
        "HTTP/1.1 503 No\r\nConte",
        true,
        "HTTP/1.1 503 No\r\nConte",
    ),
];

/// What the first server that is dialled says, when it has come to be asked so much.
#[derive(Clone, Copy, Debug, Default)]
struct First {
    is_dialled: bool,
    asked: usize,
    answer: &'static str,
    ends: bool,
    cut_at: usize,
}

thread_local! {
    static FIRST: RefCell<First> = RefCell::default();
}

fn first_or_well(rng: &mut Rng) -> (Peer, Answer) {
    let first =
        FIRST.with_borrow_mut(|it| std::mem::replace(it, First { is_dialled: true, ..*it }));
    let (asked, len) = (first.asked, first.answer.len());
    let turns = |asked: usize, len: usize| {
        Turns::new(move |received| if tags(received).len() >= asked { len } else { 0 })
    };
    let peer = match first.is_dialled {
        true => Peer::scripted(rng, WELL.into(), Ending::AfterTheOther, turns(1, WELL.len())),
        false => {
            let ending = if first.ends { Ending::AfterSending } else { Ending::AfterTheOther };
            let peer = Peer::scripted(rng, first.answer.into(), ending, turns(asked, len));
            peer.pausing([(first.cut_at, CUT_NS)].into())
        }
    };
    (peer, Answer::AtOnce)
}

#[test]
fn every_answer_of_the_table_is_withheld_or_passed_wherever_it_is_cut() {
    for (what, requests, answer, ends, expected) in TABLE {
        for (cut_at, splice_from_bytes) in (0..answer.len()).flat_map(|at| [(at, 0), (at, 1)]) {
            let asked = requests.len();
            FIRST.set(First { is_dialled: false, asked, answer, ends, cut_at });
            let mut rng = Rng::new(cut_at as u64);
            let all = requests.concat().into_bytes();
            let count = all.len();
            let turns = Turns::new(move |_| count);
            let client = Peer::scripted(&mut rng, all, Ending::AfterTheOther, turns);
            let server = server(&mut rng, PORTS[0]);
            let arrival = Arrival { at: 0, client, server, answer: Answer::AtOnce };
            let places = PORTS.map(|port| (port, first_or_well as Elsewhere)).into();
            let io = SimIo::outbound(rng, Faults::NONE, vec![arrival], places);
            let limits = Limits {
                splice_from_bytes,
                idle_timeout: Some(Duration::from_secs(2)),
                ..Limits::default()
            };
            let rules = rules(&PORTS, ", retry: {on: [gateway-error]}");
            let mut world = World::on(io, rules, None, (limits, 64), Vec::new());
            world.rest(cut_at as u64);
            let core = &world.shard.core;
            assert_eq!(core.http.as_deref().unwrap().held_bytes(), 0, "{what}, cut at {cut_at}");
            let got = &core.io.sockets[core.io.arrived[0]].peer.received;
            let got = String::from_utf8_lossy(got);
            assert!(
                got == expected,
                "{what}, cut at {cut_at}, splice {splice_from_bytes}: {got:?}"
            );
        }
    }
}
