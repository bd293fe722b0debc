//! Requests that are routed to other upstreams, on the simulated kernel: each reaches where it was
//! sent, in order, and what cannot be reached is answered with 502.

use crate::{
    config::{HttpConfig, JoinLevel, Limits, RoutingConfig},
    core::HttpCore,
    correlate::{Keep, correlate, seed},
    exchange::Observer,
    http_simulation::{http_config, request_end, without_own},
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    joins::Shared,
    moves_simulation::ByDigit,
    resolve::{Resolved, Resolver, ToResolve, Unresolved},
    shard::{Command, Parts, Shard},
    simulation::{TURNS_MAX, parts, with_seed},
    spans,
};
use netra_codecs::{
    h1::Reason,
    route::{AllowList, Refusal, RouteNames, RoutePolicy},
};
use netra_perf::{Key, Recorder};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, mpsc},
    task::Waker,
    time::Duration,
};

const REQUESTS_MAX: usize = 6;
/// Ports of the original destination and of servers elsewhere.
pub(crate) const ORIGINAL: u16 = 1;
pub(crate) const QUICK: u16 = 40_001;
pub(crate) const SLOW: u16 = 40_002;
pub(crate) const NAMED: u16 = 40_003;
pub(crate) const REFUSES: u16 = 40_004;
pub(crate) const SILENT: u16 = 40_005;
/// Of a name with many addresses, at one of which somebody answers.
pub(crate) const MANY: u16 = 40_006;

/// Where a request is sent, and the routing value that says so.
const PLACES: [(&str, u16); 10] = [
    ("", ORIGINAL),
    ("shop=127.0.0.1:14956", ORIGINAL),
    ("shop=here.test:40001", ORIGINAL),
    ("shop=many.test:40006", MANY),
    ("shop=10.0.0.8:40001", QUICK),
    ("shop=10.0.0.8:40002", SLOW),
    ("other=10.0.0.8:40002,shop=known.test:40003", NAMED),
    ("shop=10.0.0.8:40004", REFUSES),
    ("shop=10.0.0.8:40005", SILENT),
    ("shop=unknown.test:40001", 2),
];
/// Places that answer.
const GOOD: u64 = 7;

/// Addresses at which nobody ever answers, each in its own way.
const DEAD: [(&str, Answer); 4] = [
    ("10.0.1.1", Answer::RefusedAtOnce),
    ("10.0.1.2", Answer::RefusedAfter(9_000)),
    ("10.0.1.3", Answer::Silence),
    ("fd00::1", Answer::Silence),
];
pub(crate) const ALIVE: &str = "10.0.0.8";

fn response(port: u16) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{port:05}")
}

/// A server that says where it is, once for each request.
fn server(rng: &mut Rng, port: u16) -> Peer {
    let response = response(port);
    let (mut whole, mut seen, len) = (0, 0, response.len());
    let turns = Turns::new(move |received| {
        while let Some(end) = request_end(&received[seen..]) {
            (whole, seen) = (whole + 1, seen + end);
        }
        whole * len
    });
    Peer::scripted(rng, response.repeat(REQUESTS_MAX).into_bytes(), Ending::AfterTheOther, turns)
}

/// A server that may stop answering: by a reset, by ending its stream, or by damage.
fn unkind(rng: &mut Rng, port: u16) -> Peer {
    let mut peer = server(rng, port);
    let (one, answers) = (response(port).len(), rng.len(REQUESTS_MAX));
    match rng.below(6) {
        0 => peer.ending = Ending::Reset(rng.len(one * answers)),
        1 => {
            peer.sends.truncate(one * answers);
            peer.ending = Ending::AfterSending;
        }
        2 => peer.ending = Ending::Never,
        3 => peer.sends[one * (answers - 1)] = 0,
        _ => {}
    }
    peer
}

fn unkind_elsewhere() -> BTreeMap<u16, Elsewhere> {
    BTreeMap::from([
        (ORIGINAL, (|rng| (unkind(rng, ORIGINAL), Answer::AtOnce)) as Elsewhere),
        (QUICK, |rng| (unkind(rng, QUICK), Answer::AtOnce)),
        (SLOW, |rng| {
            let after = rng.below(4_000_000);
            (unkind(rng, SLOW), Answer::After(after))
        }),
        (NAMED, |rng| (unkind(rng, NAMED), Answer::After(1_000))),
        (MANY, |rng| (unkind(rng, MANY), Answer::After(1_000))),
        (REFUSES, |rng| (unkind(rng, REFUSES), Answer::RefusedAfter(9_000))),
        (SILENT, |rng| (unkind(rng, SILENT), Answer::Silence)),
    ])
}

pub(crate) fn elsewhere() -> BTreeMap<u16, Elsewhere> {
    BTreeMap::from([
        (ORIGINAL, (|rng| (server(rng, ORIGINAL), Answer::AtOnce)) as Elsewhere),
        (QUICK, |rng| (server(rng, QUICK), Answer::AtOnce)),
        (SLOW, |rng| {
            let after = rng.below(4_000_000);
            (server(rng, SLOW), Answer::After(after))
        }),
        (NAMED, |rng| (server(rng, NAMED), Answer::After(1_000))),
        // Slower, at times, than an address has in the first round.
        (MANY, |rng| {
            let after = rng.below(8_000_000);
            (server(rng, MANY), Answer::After(after))
        }),
        (REFUSES, |rng| {
            let answer =
                if rng.chance(50) { Answer::RefusedAtOnce } else { Answer::RefusedAfter(9_000) };
            (server(rng, REFUSES), answer)
        }),
        (SILENT, |rng| (server(rng, SILENT), Answer::Silence)),
    ])
}

/// Takes every name, and leaves the answer to the test.
#[derive(Debug)]
pub(crate) struct Names(pub(crate) mpsc::Sender<ToResolve>);

impl Resolver for Names {
    fn ask(&self, name: ToResolve) -> bool {
        self.0.send(name).is_ok()
    }
}

/// A client's requests, each with its index in [`PLACES`].
fn requests(rng: &mut Rng) -> Vec<(Vec<u8>, usize)> {
    let bad = rng.chance(30);
    (0..rng.len(REQUESTS_MAX))
        .map(|index| {
            let most = if bad { PLACES.len() as u64 } else { GOOD };
            let place = usize::try_from(rng.below(most)).unwrap();
            (request(rng, index, place), place)
        })
        .collect()
}

fn request(rng: &mut Rng, index: usize, place: usize) -> Vec<u8> {
    let body = vec![b'b'; if rng.chance(50) { 0 } else { rng.len(20_000) }];
    let route = match PLACES[place].0 {
        "" => String::new(),
        route => format!("X-Route: {route}\r\n"),
    };
    let head = format!(
        "POST /{index} HTTP/1.1\r\nHost: shop\r\n{route}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// What the client gets back, and how many of its requests are answered by a server.
fn expected(requests: &[(Vec<u8>, usize)]) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    for (index, (_, place)) in requests.iter().enumerate() {
        if *place >= usize::try_from(GOOD).unwrap() {
            bytes.extend(b"HTTP/1.1 502 Bad Gateway\r\n");
            return (bytes, index);
        }
        bytes.extend(response(PLACES[*place].1).bytes());
    }
    (bytes, requests.len())
}

fn client(rng: &mut Rng, requests: &[(Vec<u8>, usize)]) -> Peer {
    let one_by_one = rng.chance(50);
    let mut ends = vec![0];
    for (request, _) in requests {
        ends.push(ends[ends.len() - 1] + request.len());
    }
    let len = response(ORIGINAL).len();
    let turns = Turns::new(move |received| {
        let open = if one_by_one { received.len() / len + 1 } else { usize::MAX };
        ends[open.min(ends.len() - 1)]
    });
    let sends = requests.iter().flat_map(|(request, _)| request.clone()).collect();
    Peer::scripted(rng, sends, Ending::AfterSending, turns)
}

struct World {
    shard: Shard<SimIo>,
    commands: mpsc::Sender<Command>,
    names: mpsc::Receiver<ToResolve>,
    requests: Vec<(Vec<u8>, usize)>,
    /// The addresses of the name that has many.
    many: Arc<[IpAddr]>,
}

pub(crate) fn answers() -> BTreeMap<IpAddr, Answer> {
    DEAD.iter().map(|(ip, answer)| (ip.parse().unwrap(), *answer)).collect()
}

/// Some that are dead, and the living one, in any order.
pub(crate) fn addresses(rng: &mut Rng) -> Arc<[IpAddr]> {
    let mut all: Vec<IpAddr> = DEAD.iter().map(|(ip, _)| ip.parse().unwrap()).collect();
    for i in (1..all.len()).rev() {
        all.swap(i, rng.len(i + 1) - 1);
    }
    all.truncate(rng.len(all.len() + 1) - 1);
    all.insert(rng.len(all.len() + 1) - 1, ALIVE.parse().unwrap());
    all.into()
}

fn world(seed_: u64, elsewhere: BTreeMap<u16, Elsewhere>, limits: Limits) -> World {
    let mut rng = Rng::new(seed_);
    let faults = Faults { accept_fails: 0, ..Faults::draw(&mut rng) };
    let requests = requests(&mut rng);
    let arrival = Arrival {
        at: 0,
        client: client(&mut rng, &requests),
        server: server(&mut rng, ORIGINAL),
        answer: Answer::AtOnce,
    };
    let buffers = if rng.chance(50) { 6 } else { 512 };
    let many = addresses(&mut rng);
    let mut io = SimIo::outbound(rng, faults, vec![arrival], elsewhere);
    io.answers = answers();
    let (mut shard, commands, names) = routing(io, http_config(), limits, buffers);
    // What each request wants is the same, whoever is dialled first.
    let defer_dial =
        [0, 1 + seed_ % 3_000_000, 60_000_000_000][usize::try_from(seed_ % 3).unwrap()];
    shard.core.limits.defer_dial = Duration::from_nanos(defer_dial);
    shard.core.gates.decides = Some(Box::new(ByDigit(|_| None, true)));
    World { shard, commands, names, requests, many }
}

pub(crate) fn limits() -> Limits {
    Limits {
        connect_timeout: Duration::from_millis(50),
        // Some servers read a byte at a time: nothing moves for longer than anybody would wait.
        half_close_linger: Duration::from_secs(3600),
        ..Limits::default()
    }
}

/// A shard that routes, on this kernel: how to tell it something, and what it asks.
pub(crate) fn routing(
    io: SimIo,
    config: HttpConfig,
    limits: Limits,
    buffers: u32,
) -> (Shard<SimIo>, mpsc::Sender<Command>, mpsc::Receiver<ToResolve>) {
    let (asked, names) = mpsc::channel();
    let ttl = Duration::from_secs(5);
    let config = HttpConfig {
        routing: Some(RoutingConfig {
            names: RouteNames { header: (*b"X-Route").into(), cookie: None },
            policy: Arc::new(RoutePolicy {
                targets: AllowList::parse("private,*.test").unwrap(),
                ..RoutePolicy::default()
            }),
            ttl,
        }),
        resolver: Some(Arc::new(Names(asked))),
        ..config
    };
    let keep = Keep { entries_max: 64, context_ttl: ttl, route_ttl: ttl };
    let correlation = correlate(seed(), keep, &[-1]).remove(0);
    let (sink, _) = spans::ring(64, Waker::noop().clone());
    let (commands, receiver) = mpsc::channel();
    let parts = Parts {
        http: Some(Box::new(HttpCore::new(&config, correlation))),
        observer: Observer::new(config.tracing.as_ref(), 1, (Some(sink), None)).joining(
            &Shared::new(1),
            0,
            JoinLevel::Tx,
        ),
        resolver: config.resolver.clone(),
        ..parts(limits, buffers, receiver)
    };
    (Shard::new(io, parts), commands, names)
}

/// Answers what shards ask, as the control thread does.
fn resolve(world: &mut World) -> bool {
    let Ok(name) = world.names.try_recv() else { return false };
    let one = |ip: &str| -> Resolved { Ok(Arc::new([ip.parse().unwrap()])) };
    let resolved = match name.target.host() {
        "known.test" => one(ALIVE),
        "here.test" => one("::ffff:127.0.0.1"),
        "many.test" => Ok(Arc::clone(&world.many)),
        _ => Err(Unresolved::Unknown),
    };
    world.commands.send(Command::Resolved(name.asker, resolved)).unwrap();
    world.shard.core.io.wake();
    true
}

fn check(seed: u64, world: &World) {
    let io = &world.shard.core.io;
    let (expected, answered) = expected(&world.requests);
    let client = &io.sockets[0].peer;
    let seen = String::from_utf8_lossy(&client.received);
    assert!(client.received.starts_with(&expected), "{seed}: {seen}");
    if answered == world.requests.len() {
        assert_eq!(client.received.len(), expected.len(), "{seed}: {seen}");
    }
    assert!(client.saw_end || client.saw_reset, "{seed}: the client never saw the end");
    // Each server has what was sent to it, and each connection to it in order: there may be several.
    let mut got: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    for &(port, fd) in &io.dialled {
        let mut received = &io.sockets[fd].peer.received[..];
        let mut last = None;
        while let Some(end) = request_end(received) {
            let (kept, counts) = without_own(&received[..end]);
            assert_eq!(counts, [1, 1, 1], "{seed}");
            let place = world.requests.iter().position(|(request, _)| *request == kept);
            assert!(place >= last, "{seed}: out of order");
            last = place;
            got.entry(port).or_default().push(kept);
            received = &received[end..];
        }
        assert!(received.is_empty(), "{seed}: a piece of a request reached {port}");
    }
    let mut wanted: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    for (request, place) in &world.requests[..answered] {
        wanted.entry(PLACES[*place].1).or_default().push(request.clone());
    }
    for them in got.values_mut().chain(wanted.values_mut()) {
        them.sort_unstable();
    }
    assert!(got == wanted, "{seed}: requests went elsewhere");
}

fn simulate(seed: u64) -> Arc<Recorder> {
    let mut world = world(seed, elsewhere(), limits());
    let mut turns = 0;
    loop {
        let wait = world.shard.park();
        world.shard.turn(wait).unwrap();
        turns += 1;
        assert!(turns < TURNS_MAX, "{seed}: never comes to rest");
        let (active, deadline) = (world.shard.active, world.shard.timers.next(&world.shard.slab));
        assert!(active > 0 || deadline.is_none(), "{seed}: a free slot has a deadline");
        if !resolve(&mut world) && world.shard.core.io.idle {
            break;
        }
    }
    let shard = &world.shard;
    assert_eq!(shard.active, 0, "{seed}: the connection waits for ever");
    assert_eq!(shard.timers.next(&shard.slab), None, "{seed}: a deadline left behind");
    assert_eq!(shard.core.pool.lent(), 0, "{seed}: buffers lost");
    assert_eq!(shard.core.observer.open_spans(), 0, "{seed}: spans lost");
    assert!(shard.core.io.sockets.iter().all(|s| s.closed), "{seed}: descriptors lost");
    check(seed, &world);
    Arc::clone(&shard.core.recorder)
}

/// Peers that reset, end, damage and fall silent, and drains: nothing is left behind, and what was
/// relayed as HTTP is what was sent.
fn simulate_unkind(seed: u64) -> Arc<Recorder> {
    let limits = Limits { idle_timeout: Some(Duration::from_secs(1)), ..limits() };
    let mut world = world(seed, unkind_elsewhere(), limits);
    let mut rng = Rng::new(seed ^ 0x5eed);
    if rng.chance(20) {
        let peer = &mut world.shard.core.io.arrival().client;
        peer.ending = Ending::Reset(rng.len(peer.sends.len()));
    }
    let drain_at = rng.chance(30).then(|| rng.below(200));
    for turn in 0.. {
        if drain_at == Some(turn) {
            world.commands.send(Command::Drain(Duration::from_millis(3))).unwrap();
            world.shard.core.io.wake();
        }
        let wait = world.shard.park();
        world.shard.turn(wait).unwrap();
        let deadline = world.shard.timers.next(&world.shard.slab);
        let active = world.shard.active;
        assert!(active > 0 || deadline.is_none(), "{seed}: a free slot has a deadline");
        assert!(turn < TURNS_MAX.into(), "{seed}: never comes to rest");
        let over = world.shard.core.io.idle || world.shard.is_over();
        if !resolve(&mut world) && over {
            break;
        }
    }
    let World { shard, requests, .. } = &world;
    assert_eq!(shard.active, 0, "{seed}: the connection waits for ever");
    assert_eq!(shard.core.pool.lent(), 0, "{seed}: buffers lost");
    assert_eq!(shard.core.pipes.lent(), 0, "{seed}: pipes lost");
    let http = shard.core.http.as_deref().unwrap();
    assert_eq!(
        (shard.core.observer.open_spans(), http.held_bytes()),
        (0, 0),
        "{seed}: spans or heads"
    );
    assert!(shard.core.io.sockets.iter().all(|s| s.closed), "{seed}: descriptors lost");
    let opaque = Reason::ALL.iter().any(|r| shard.core.recorder.get(Key::opaque(*r as usize)) > 0);
    if let (false, Some(client)) = (opaque, shard.core.io.sockets.first()) {
        let (expected, answered) = expected(requests);
        let received = &client.peer.received;
        let refused = answered < requests.len() && received.starts_with(&expected);
        assert!(refused || expected.starts_with(received), "{seed}: response bytes changed");
    }
    Arc::clone(&shard.core.recorder)
}

/// From the first change on it is known whether an upstream may rest; who comes back to one dials nobody.
#[test]
fn an_upstream_that_rests_is_not_dialled_again() {
    for (legs_max, dials) in [(8, 4), (2, 5), (1, 9)] {
        let mut rng = Rng::new(7);
        let requests: Vec<_> = [0, 4, 5, 4, 5, 0, 4, 0, 5]
            .into_iter()
            .enumerate()
            .map(|(index, place)| (request(&mut rng, index, place), place))
            .collect();
        let arrival = Arrival {
            at: 0,
            client: client(&mut rng, &requests),
            server: server(&mut rng, ORIGINAL),
            answer: Answer::AtOnce,
        };
        let limits = Limits { legs_max, ..limits() };
        let io = SimIo::outbound(rng, Faults::NONE, vec![arrival], elsewhere());
        let (shard, commands, names) = routing(io, http_config(), limits, 512);
        let mut world = World { shard, commands, names, requests, many: Arc::new([]) };
        while !world.shard.core.io.idle {
            let wait = world.shard.park();
            world.shard.turn(wait).unwrap();
        }
        check(0, &world);
        assert_eq!(world.shard.core.io.dialled.len(), dials, "{legs_max}");
        assert!(world.shard.core.io.sockets.iter().all(|s| s.closed));
    }
}

#[test]
fn whatever_peers_do_nothing_is_left_behind() {
    let recorders = with_seed(simulate_unkind);
    if recorders.len() < 256 {
        return;
    }
    // By its own end, either side's reset, silence, and the drain.
    for end in [0, 1, 2, 8, 9] {
        assert!(recorders.iter().any(|r| r.get(Key::closed(1, end)) > 0), "no seed reaches {end}");
    }
}

#[test]
fn every_request_reaches_where_it_was_sent() {
    let recorders = with_seed(simulate);
    if recorders.len() < 256 {
        return;
    }
    let refused = Key::route_refused(Refusal::Address as usize);
    for key in [
        Key::ROUTED,
        Key::ROUTE_UNREACHABLE,
        Key::ROUTE_NEXT_ADDRESS,
        refused,
        Key::request(1, 2, 5),
    ] {
        assert!(recorders.iter().any(|r| r.get(key) > 0), "no seed reaches {key:?}");
    }
}
