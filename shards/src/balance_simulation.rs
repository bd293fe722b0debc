//! Messages that rules balance over endpoints of which some are dead, silent or unkind, on the simulated
//! kernel: each reaches one server and no second one, a dial that fails costs its client nothing, and
//! nothing is left of what was counted.

use crate::{
    config::{JoinLevel, Limits},
    core::HttpCore,
    correlate::{Keep, correlate, seed},
    exchange::{Gates, Observer, Reads, ShardRules, Taps},
    http_simulation::{http_config, request_end},
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    joins::Shared,
    shard::{Parts, Shard},
    simulation::{TURNS_MAX, parts, with_seed},
    spans,
};
use netra_codecs::tap::Protocol;
use netra_perf::{Key, Recorder};
use netra_rules::{ClusterView, Context, Documents, Process, Source as Text, Standing, Table};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    task::Waker,
    time::Duration,
};

pub(crate) const CONNECTIONS: usize = 6;
const REQUESTS_MAX: usize = 5;
/// Ports of original destinations: each connection has one of these.
const OWN_PORTS: usize = 60;
/// Ports of servers that answer, refuse the dial, say nothing to it, and of those that are unkind.
const GOOD: [u16; 3] = [40_001, 40_002, 40_003];
const REFUSES: u16 = 40_004;
const SILENT: u16 = 40_005;
const UNKIND: [u16; 2] = [40_006, 40_007];
/// Ports of servers that end where an answer could begin.
const LEAVES: [u16; 2] = [40_008, 40_009];

/// HTTP, or Redis.
trait Wire {
    const IS_HTTP: bool;
    const LEN: usize;
    fn request(tag: &str) -> Vec<u8>;
    fn answer(port: u16) -> Vec<u8>;
    fn end(bytes: &[u8]) -> Option<usize>;
}

struct Http;

impl Wire for Http {
    const IS_HTTP: bool = true;
    const LEN: usize = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n40001".len();

    fn request(tag: &str) -> Vec<u8> {
        format!("GET /{tag} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes()
    }

    fn answer(port: u16) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{port:05}").into_bytes()
    }

    fn end(bytes: &[u8]) -> Option<usize> {
        request_end(bytes)
    }
}

struct Redis;

impl Wire for Redis {
    const IS_HTTP: bool = false;
    const LEN: usize = "+40001\r\n".len();

    fn request(tag: &str) -> Vec<u8> {
        format!("*2\r\n$3\r\nGET\r\n${}\r\n/{tag} \r\n", tag.len() + 2).into_bytes()
    }

    fn answer(port: u16) -> Vec<u8> {
        format!("+{port:05}\r\n").into_bytes()
    }

    fn end(bytes: &[u8]) -> Option<usize> {
        let lines = bytes.windows(2).enumerate().filter(|(_, two)| *two == b"\r\n");
        lines.map(|(at, _)| at + 2).nth(4)
    }
}

/// Commands of Redis that change something.
struct Writes;

impl Wire for Writes {
    const IS_HTTP: bool = false;
    const LEN: usize = Redis::LEN;

    fn request(tag: &str) -> Vec<u8> {
        let key = tag.len() + 2;
        format!("*3\r\n$3\r\nSET\r\n${key}\r\n/{tag} \r\n$1\r\nv\r\n").into_bytes()
    }

    fn answer(port: u16) -> Vec<u8> {
        Redis::answer(port)
    }

    fn end(bytes: &[u8]) -> Option<usize> {
        let lines = bytes.windows(2).enumerate().filter(|(_, two)| *two == b"\r\n");
        lines.map(|(at, _)| at + 2).nth(6)
    }
}

/// Documents take longer to compile than a seed to run.
pub(crate) fn rules(ports: &[u16], route: &str) -> (Arc<Table>, Arc<Process>) {
    type Tables = BTreeMap<(Vec<u16>, String), Arc<Table>>;
    thread_local! {
        static TABLES: RefCell<Tables> = const { RefCell::new(BTreeMap::new()) };
    }
    let made = |tables: &RefCell<Tables>| {
        let key = (ports.to_vec(), route.to_owned());
        Arc::clone(tables.borrow_mut().entry(key).or_insert_with(|| table(ports, route)))
    };
    let table = TABLES.with(made);
    let process = Arc::new(table.process(None, 0));
    (table, process)
}

fn table(ports: &[u16], route: &str) -> Arc<Table> {
    let own: String =
        (1..=OWN_PORTS).map(|port| format!("{{number: {port}, name: p{port}}}, ")).collect();
    let endpoint = |port: &u16| {
        let ports: String = (1..=OWN_PORTS).map(|own| format!("p{own}: {port}, ")).collect();
        format!("  - {{address: 10.0.0.8, ports: {{{ports}}}, labels: {{port: \"{port}\"}}}}\n")
    };
    let endpoints: String = ports.iter().map(endpoint).collect();
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s}}\nspec:\n  \
         hosts: [shop]\n  addresses: [10.0.0.2]\n  ports: [{own}]\n  resolution: STATIC\n  \
         endpoints:\n{endpoints}---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d}}\nspec:\n  \
         host: shop\n  trafficPolicy:\n    retryBudget: {{percent: 100, minRetryConcurrency: 50}}\n    \
         outlierDetection: {{consecutive5xxErrors: 2, baseEjectionTime: 1s, maxEjectionPercent: 100}}\n\
         ---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  hosts: [shop]\n  \
         routes: [{{route: [{{destination: {{host: shop}}}}]{route}}}]\n"
    );
    let documents = Documents::read(&[Text { name: "rules".into(), text }]);
    let compiled = documents.compile(&Context { generation: 1, ..Context::default() });
    compiled.table.unwrap_or_else(|| panic!("{}", compiled.troubles))
}

/// A server that says where it is, once for each request.
fn server<W: Wire>(rng: &mut Rng, port: u16) -> Peer {
    let (mut whole, mut seen) = (0, 0);
    let turns = Turns::new(move |received| {
        while let Some(end) = W::end(&received[seen..]) {
            (whole, seen) = (whole + 1, seen + end);
        }
        whole * W::LEN
    });
    let sends = W::answer(port).repeat(CONNECTIONS * REQUESTS_MAX);
    Peer::scripted(rng, sends, Ending::AfterTheOther, turns)
}

/// One that resets, ends or stalls somewhere.
fn unkind<W: Wire>(rng: &mut Rng, port: u16) -> Peer {
    let mut peer = server::<W>(rng, port);
    let at = rng.len(W::LEN * 3);
    match rng.below(4) {
        0 => peer.ending = Ending::Reset(at),
        1 => {
            peer.sends.truncate(at);
            peer.ending = Ending::AfterSending;
        }
        2 => {
            peer.sends.truncate(at);
            peer.ending = Ending::Never;
        }
        _ => {}
    }
    peer
}

/// One that resets at once, or ends when it has given so many answers, whatever it was asked by then. A
/// reset takes what lies before it along: behind answers it could cut one.
fn leaving<W: Wire>(rng: &mut Rng, port: u16) -> Peer {
    let mut peer = server::<W>(rng, port);
    if rng.chance(40) {
        peer.sends.clear();
        peer.ending = Ending::Reset(0);
    } else {
        peer.sends.truncate(W::LEN * rng.len(3).saturating_sub(1));
        peer.ending = Ending::AfterSending;
    }
    peer
}

fn elsewhere<W: Wire>() -> BTreeMap<u16, Elsewhere> {
    BTreeMap::from([
        (GOOD[0], (|rng| (server::<W>(rng, GOOD[0]), Answer::AtOnce)) as Elsewhere),
        (GOOD[1], |rng| (server::<W>(rng, GOOD[1]), Answer::After(1_000))),
        (GOOD[2], |rng| {
            let after = rng.below(4_000_000);
            (server::<W>(rng, GOOD[2]), Answer::After(after))
        }),
        (REFUSES, |rng| {
            let answer =
                if rng.chance(50) { Answer::RefusedAtOnce } else { Answer::RefusedAfter(9_000) };
            (server::<W>(rng, REFUSES), answer)
        }),
        (SILENT, |rng| (server::<W>(rng, SILENT), Answer::Silence)),
        (UNKIND[0], |rng| (unkind::<W>(rng, UNKIND[0]), Answer::AtOnce)),
        (LEAVES[0], |rng| (leaving::<W>(rng, LEAVES[0]), Answer::AtOnce)),
        (LEAVES[1], |rng| (leaving::<W>(rng, LEAVES[1]), Answer::After(2_000))),
        (UNKIND[1], |rng| (unkind::<W>(rng, UNKIND[1]), Answer::After(2_000))),
    ])
}

/// A client, and how many requests it has: it sends each when the one before has been answered, or all
/// at once.
fn client<W: Wire>(rng: &mut Rng, name: usize, may_pipeline: bool) -> (Peer, usize) {
    let count = rng.len(REQUESTS_MAX);
    let requests: Vec<_> = (0..count).map(|it| W::request(&format!("c{name}-{it}"))).collect();
    let ends: Vec<_> = requests
        .iter()
        .scan(0, |sum, it| {
            *sum += it.len();
            Some(*sum)
        })
        .collect();
    let is_at_once = rng.chance(30) && may_pipeline;
    let turns = Turns::new(move |received| {
        let open = if is_at_once { count } else { received.len() / W::LEN + 1 };
        ends[open.min(count) - 1]
    });
    (Peer::scripted(rng, requests.concat(), Ending::AfterSending, turns), count)
}

pub(crate) struct World {
    pub(crate) shard: Shard<SimIo>,
    table: Arc<Table>,
    process: Arc<Process>,
    /// Of each connection.
    counts: Vec<usize>,
    pub(crate) commands: mpsc::Sender<crate::shard::Command>,
    pub(crate) spans: spans::SpanSource,
}

impl World {
    fn new<W: Wire>(seed_: u64, ports: &[u16]) -> Self {
        Self::ruled::<W>(seed_, ports, "")
    }

    /// With this, too, of the route. Clients that ask again do so when they have been answered, but for some of
    /// Redis, and stay.
    fn ruled<W: Wire>(seed_: u64, ports: &[u16], route: &str) -> Self {
        let mut rng = Rng::new(seed_);
        let faults = Faults { accept_fails: 0, ..Faults::draw(&mut rng) };
        let mut counts = Vec::new();
        let arrivals = (0..CONNECTIONS).map(|name| {
            let (mut client, count) = client::<W>(&mut rng, name, route.is_empty() || !W::IS_HTTP);
            if !route.is_empty() {
                client.ending = Ending::AfterTheOther;
            }
            counts.push(count);
            let server = server::<W>(&mut rng, 1);
            Arrival { at: rng.below(30_000_000), client, server, answer: Answer::AtOnce }
        });
        let arrivals = arrivals.collect();
        let io = SimIo::outbound(rng, faults, arrivals, elsewhere::<W>());
        let limits = Limits {
            connect_timeout: Duration::from_millis(50),
            idle_timeout: Some(Duration::from_secs(2)),
            ..Limits::default()
        };
        let protocol = (!W::IS_HTTP).then_some(Protocol::Redis);
        Self::on(io, rules(ports, route), protocol, (limits, 512), counts)
    }

    /// A shard in such a world, with so many buffers. What ports are read as; none is HTTP.
    pub(crate) fn on(
        io: SimIo,
        (table, process): (Arc<Table>, Arc<Process>),
        protocol: Option<Protocol>,
        (limits, buffers): (Limits, u32),
        counts: Vec<usize>,
    ) -> Self {
        let (sink, spans) = spans::ring(1024, Waker::noop().clone());
        let (commands, receiver) = mpsc::channel();
        let config = http_config();
        let ttl = Duration::from_secs(5);
        let keep = Keep { entries_max: 64, context_ttl: ttl, route_ttl: ttl };
        let correlation = correlate(seed(), keep, &[-1]).remove(0);
        let rules = ShardRules::new(&table, &process, 1);
        let gates = Gates { rules: Some(Box::new(rules)), ..Gates::default() };
        let observer = Observer::new(config.tracing.as_ref(), 1, (Some(sink), None));
        let parts = Parts { gates, ..parts(limits, buffers, receiver) };
        let parts = match protocol {
            None => Parts {
                http: Some(Box::new(HttpCore::new(&config, correlation))),
                observer: observer.joining(&Shared::new(1), 0, JoinLevel::Tx),
                ..parts
            },
            Some(protocol) => {
                let ports: Vec<String> =
                    (1..=999).map(|port| format!("{port}={protocol}")).collect();
                let ports = ports.join(",").parse().unwrap();
                Parts {
                    recorder: Arc::new(Recorder::of(&Reads::on(&ports).tables())),
                    taps: Taps::new(Reads::on(&ports), netra_codecs::Limits::DEFAULT, 1 << 20),
                    observer,
                    ..parts
                }
            }
        };
        let shard = Shard::new(io, parts);
        Self { shard, table, process, counts, commands, spans }
    }

    fn clusters(&self) -> Vec<ClusterView> {
        self.table.clusters_now(&self.process, self.shard.core.now)
    }

    /// Until nothing can happen any more; then nothing is left of anything.
    pub(crate) fn rest(&mut self, seed: u64) {
        for turn in 0.. {
            let wait = self.shard.park();
            self.shard.turn(wait).unwrap();
            assert!(turn < TURNS_MAX, "{seed}: never comes to rest");
            for cluster in self.clusters() {
                let is_out = |it: &netra_rules::EndpointView| {
                    matches!(it.standing, Standing::Ejected(..) | Standing::Probing(_))
                };
                let out = cluster.endpoints.iter().filter(|it| is_out(it)).count();
                assert!(out < cluster.endpoints.len(), "{seed}: everybody is out");
            }
            if self.shard.core.io.idle {
                break;
            }
        }
        let shard = &self.shard;
        assert_eq!(shard.active, 0, "{seed}: a connection waits for ever");
        assert_eq!(shard.core.pool.lent(), 0, "{seed}: buffers lost");
        assert_eq!(shard.core.observer.open_spans(), 0, "{seed}: spans lost");
        assert!(shard.core.io.sockets.iter().all(|s| s.closed), "{seed}: descriptors lost");
        for cluster in self.clusters() {
            let left = (cluster.requests, cluster.connections, cluster.pending);
            assert_eq!(left, (0, 0, 0), "{seed}: {cluster:#?}");
            let of = |it: &netra_rules::EndpointView| (it.requests, it.connections);
            assert!(cluster.endpoints.iter().all(|it| of(it) == (0, 0)), "{seed}: {cluster:#?}");
        }
    }

    /// The tags of whole requests that servers have got.
    fn served<W: Wire>(&self, seed: u64) -> BTreeSet<String> {
        let io = &self.shard.core.io;
        let mut tags = BTreeSet::new();
        for &(port, fd) in &io.dialled {
            let mut received = &io.sockets[fd].peer.received[..];
            while let Some(end) = W::end(received) {
                let text = String::from_utf8_lossy(&received[..end]).into_owned();
                let tag = text.split('/').nth(1).unwrap().split(' ').next().unwrap().to_owned();
                assert!(
                    tags.insert(tag.clone()),
                    "{seed}: {tag} reached a second server at {port}"
                );
                received = &received[end..];
            }
        }
        tags
    }
}

fn said(client: &[u8], len: usize) -> Vec<u16> {
    let ports = client.chunks(len).map(|answer| {
        let digits: String = answer
            .iter()
            .rev()
            .filter(|it| it.is_ascii_digit())
            .take(5)
            .map(|it| *it as char)
            .collect();
        digits.chars().rev().collect::<String>().parse().unwrap_or(0)
    });
    ports.collect()
}

/// Some endpoints are not there: no client learns of it.
fn simulate<W: Wire>(seed: u64) -> Arc<Recorder> {
    let ports = [GOOD[0], GOOD[1], GOOD[2], REFUSES, SILENT];
    let mut world = World::new::<W>(seed, &ports);
    world.rest(seed);
    let served = world.served::<W>(seed);
    let wanted: BTreeSet<_> = (world.counts.iter().enumerate())
        .flat_map(|(name, count)| (0..*count).map(move |it| format!("c{name}-{it}")))
        .collect();
    assert_eq!(served, wanted, "{seed}");
    let io = &world.shard.core.io;
    for (fd, count) in io.arrived.iter().map(|fd| &io.sockets[*fd].peer).zip(&order(&world)) {
        let ports = said(&fd.received, W::LEN);
        let is_good = ports.iter().all(|port| GOOD.contains(port));
        assert!(is_good && ports.len() == *count, "{seed}: {}", fd.received.escape_ascii());
    }
    Arc::clone(&world.shard.core.recorder)
}

/// How many requests each connection has, in the order of their arrival.
fn order(world: &World) -> Vec<usize> {
    let io = &world.shard.core.io;
    let name = |fd: &usize| {
        let asked = &io.sockets[*fd].peer.sends;
        let text = String::from_utf8_lossy(asked).into_owned();
        text.split("/c").nth(1).unwrap().split('-').next().unwrap().parse::<usize>().unwrap()
    };
    io.arrived.iter().map(|fd| world.counts[name(fd)]).collect()
}

/// Some are unkind in the middle of it: nothing is sent twice, and nothing is left behind.
fn simulate_unkind<W: Wire>(seed: u64) -> Arc<Recorder> {
    let ports = [GOOD[0], UNKIND[0], UNKIND[1], REFUSES, SILENT];
    let mut world = World::new::<W>(seed, &ports);
    world.rest(seed);
    world.served::<W>(seed);
    let failures: u64 =
        world.clusters().iter().flat_map(|it| &it.endpoints).map(|it| it.ejections).sum();
    world.shard.core.recorder.add(Key::SPINS, failures);
    Arc::clone(&world.shard.core.recorder)
}

/// Some end between two answers, and a route lets requests be asked again: no client learns of it, and
/// each has as many answers as it has asked for.
fn simulate_leaving<W: Wire>(seed: u64) -> Arc<Recorder> {
    let ports = [GOOD[0], GOOD[1], LEAVES[0], LEAVES[1]];
    let mut world = World::ruled::<W>(seed, &ports, ", retry: {on: [reset]}");
    world.rest(seed);
    let io = &world.shard.core.io;
    for (peer, count) in io.arrived.iter().map(|fd| &io.sockets[*fd].peer).zip(&order(&world)) {
        let said = said(&peer.received, W::LEN);
        let is_good = said.iter().all(|port| ports.contains(port));
        assert!(is_good && said.len() == *count, "{seed}: {}", peer.received.escape_ascii());
    }
    Arc::clone(&world.shard.core.recorder)
}

/// The same route and the same servers, and what is asked changes something.
fn simulate_writes(seed: u64) -> Arc<Recorder> {
    let ports = [GOOD[0], GOOD[1], LEAVES[0], UNKIND[0]];
    let mut world = World::ruled::<Writes>(seed, &ports, ", retry: {on: [reset]}");
    world.rest(seed);
    world.served::<Writes>(seed);
    Arc::clone(&world.shard.core.recorder)
}

#[test]
fn what_changes_something_is_not_sent_twice() {
    let recorders = with_seed(simulate_writes);
    assert!(recorders.iter().all(|it| it.get(Key::SENT_AGAIN) == 0));
}

#[test]
fn endpoints_that_leave_cost_no_client_anything_where_a_route_says_so() {
    for recorders in [with_seed(simulate_leaving::<Http>), with_seed(simulate_leaving::<Redis>)] {
        let has_sent = |it: &Arc<Recorder>| it.get(Key::SENT_AGAIN) > 0;
        assert!(recorders.len() < 256 || recorders.iter().any(has_sent));
    }
}

#[test]
fn endpoints_that_are_not_there_cost_no_client_anything() {
    for recorders in [with_seed(simulate::<Http>), with_seed(simulate::<Redis>)] {
        let has_tried = |it: &Arc<Recorder>| it.get(Key::TRIED_ELSEWHERE) > 0;
        assert!(recorders.len() < 256 || recorders.iter().any(has_tried));
    }
    assert!(Protocol::Redis.moves());
}

#[test]
fn unkind_endpoints_get_nothing_twice_and_nothing_is_left_behind() {
    for recorders in [with_seed(simulate_unkind::<Http>), with_seed(simulate_unkind::<Redis>)] {
        // Ejections, which have no key of their own, are counted where nobody spins.
        assert!(recorders.len() < 256 || recorders.iter().any(|it| it.get(Key::SPINS) > 0));
    }
}

/// A leg stalled in the middle of an answer, and another had spoken before its turn: seeds whose connection
/// outlived any silence, as what waited for a turn was taken for a client that reads slowly.
#[test]
fn a_leg_that_waits_for_its_turn_is_no_slow_client() {
    for seed in [1003, 3743, 8424, 13195] {
        simulate_unkind::<Redis>(seed);
    }
}

/// A socket had taken a part of what was asked, which had to be sent as it came, when its server ended: seeds
/// whose client was cut off.
#[test]
fn what_is_sent_in_part_is_asked_again_whole() {
    for seed in [530, 797, 1371, 1403, 2394, 5640, 5844, 6518] {
        simulate_leaving::<Redis>(seed);
    }
}
