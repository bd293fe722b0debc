use super::*;
use crate::choice::{Ring, maglev, schedule};
use netra_codecs::trace::{RetryReason, Tries};
use std::cell::Cell;

#[path = "watched_tests.rs"]
mod watched;

const SECOND: u64 = 1_000_000_000;

/// A cluster whose endpoints have these weights, and chance.
struct World {
    cluster: Cluster,
    balance: Arc<Balance>,
    seed: Cell<u64>,
}

fn endpoint(index: usize, weight: u32) -> Endpoint {
    let address = format!("10.0.0.{}:80", index + 1).parse().unwrap();
    Endpoint { address: EndpointAddress::Ip(address), weight, level: 0 }
}

fn cluster(weights: &[u32], policy: TrafficPolicy) -> Cluster {
    let named = |(index, weight): (usize, &u32)| (mix(index as u64 + 1), *weight);
    let names: Vec<_> = weights.iter().enumerate().map(named).collect();
    Cluster {
        name: "it".into(),
        endpoints: weights.iter().enumerate().map(|(i, weight)| endpoint(i, *weight)).collect(),
        schedule: schedule(weights),
        levels: Box::default(),
        by_hash: ByHash::Maglev(maglev(&names)),
        hash: Hashed::default(),
        policy,
    }
}

impl World {
    fn new(weights: &[u32], policy: TrafficPolicy) -> Self {
        let cluster = cluster(weights, policy);
        let balance = Arc::clone(&Balance::of_all(std::slice::from_ref(&cluster), &[], 1)[0]);
        Self { cluster, balance, seed: Cell::new(1) }
    }

    fn random(&self) -> u64 {
        self.seed.set(self.seed.get() + 1);
        mix(self.seed.get().wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn pick(&self, now: u64) -> u32 {
        match self.balance.pick(&self.cluster, None, None, (now, self.random())) {
            Picked::Endpoint(index) => index,
            other => panic!("{other:?}"),
        }
    }

    fn seat(&self, index: u32) -> Seat {
        let seat = Seat::new(&self.balance, index).unwrap();
        seat.connected();
        seat
    }

    /// One message there, of which this comes.
    fn ask(&self, index: u32, heard: Heard, now: u64) {
        let seat = self.seat(index);
        seat.begin();
        seat.end(heard, 1000, now);
    }

    /// How often each of so many is picked.
    fn counts(&self, picks: usize, now: u64) -> Vec<usize> {
        let mut counts = vec![0; self.cluster.endpoints.len()];
        (0..picks).for_each(|_| counts[self.pick(now) as usize] += 1);
        counts
    }

    fn out(&self) -> usize {
        self.balance.members.iter().filter(|it| !it.is_in()).count()
    }
}

fn of(balancer: Balancer) -> TrafficPolicy {
    TrafficPolicy { balancer, by_message: true, ..TrafficPolicy::default() }
}

fn ejecting(outlier: Outlier) -> TrafficPolicy {
    TrafficPolicy { outlier: Some(outlier), ..of(Balancer::LeastRequest) }
}

#[test]
fn round_robin_is_exact_and_the_others_go_by_weight() {
    let world = World::new(&[1, 3, 0, 6], of(Balancer::RoundRobin));
    assert_eq!(world.counts(1000, 1), [100, 300, 0, 600]);
    for balancer in [Balancer::Random, Balancer::LeastRequest, Balancer::PeakEwma] {
        let counts = World::new(&[1, 3, 0, 6], of(balancer)).counts(10_000, 1);
        let is_near = |index: usize, part: usize| counts[index].abs_diff(part) < part / 5 + 50;
        assert!(counts[2] == 0 && is_near(1, 3000) && is_near(3, 6000), "{balancer:?} {counts:?}");
    }
}

#[test]
fn the_less_busy_of_two_is_picked() {
    let world = World::new(&[1; 10], of(Balancer::LeastRequest));
    let busy: Vec<_> = (0..9).map(|index| world.seat(index)).collect();
    busy.iter().for_each(|seat| (0..5).for_each(|_| seat.begin()));
    // Whoever draws the idle one takes it: about 19 of 100.
    let counts = world.counts(10_000, 1);
    assert!((1600..2300).contains(&counts[9]), "{counts:?}");
    drop(busy);
    assert!(world.balance.members.iter().all(|it| it.requests.load(Relaxed) == 0));
    // Where nobody asks anything, connections say who is busy.
    let idle: Vec<_> = (0..9).map(|index| world.seat(index)).collect();
    assert!(world.counts(10_000, 1)[9] > 1600);
    drop(idle);
    let Shared { requests, connections, pending, .. } = &*world.balance.shared;
    assert_eq!([requests, connections, pending].map(|it| it.load(Relaxed)), [0; 3]);
}

#[test]
fn the_busiest_is_never_compared_with_itself() {
    for balancer in [Balancer::LeastRequest, Balancer::PeakEwma] {
        for of_all in [2, 3, 5, 100] {
            let world = World::new(&vec![1; of_all], of(balancer));
            let busy = world.seat(0);
            busy.begin();
            let counts = world.counts(10_000, 1);
            assert_eq!(counts[0], 0, "{balancer:?}, one of {of_all}");
            let each = 10_000 / (of_all - 1);
            let is_near = |it: &usize| it.abs_diff(each) < each / 2;
            assert!(counts[1..].iter().all(is_near), "{balancer:?} {counts:?}");
        }
    }
}

#[test]
fn a_slow_endpoint_gets_little_and_is_forgiven_by_and_by() {
    let world = World::new(&[1, 1], of(Balancer::PeakEwma));
    for (index, took) in [(0, 50_000_000), (1, 1_000_000)] {
        let seat = world.seat(index);
        seat.begin();
        seat.end(Heard::Well, took, SECOND);
    }
    assert_eq!(world.counts(1000, SECOND)[0], 0);
    let cost = |now| world.balance.members[0].cost_us(now);
    assert_eq!([cost(SECOND), cost(11 * SECOND)], [50_000, 25_000]);
    world.balance.members[0].took(1_000_000, 11 * SECOND);
    assert_eq!(cost(11 * SECOND), 22_000);
}

#[test]
fn a_connection_keeps_its_endpoint_while_it_is_in() {
    let policy = TrafficPolicy { by_message: false, ..ejecting(Outlier::default()) };
    let world = World::new(&[1; 4], policy);
    let seat = world.seat(2);
    let pick = |now| world.balance.pick(&world.cluster, None, Some(&seat), (now, world.random()));
    assert!((0..100).all(|_| pick(1) == Picked::Endpoint(2)));
    (0..5).for_each(|_| world.ask(2, Heard::Fault, 2));
    assert!((0..100).all(|_| pick(3) != Picked::Endpoint(2)));
}

#[test]
fn faults_in_a_row_eject_and_what_goes_well_between_them_does_not() {
    use Heard::{Fault, Gateway, Local, Nothing, Well};
    let usual = Outlier::default();
    let gateway = Outlier { consecutive: 0, consecutive_gateway: 2, ..usual };
    let split = Outlier { splits: true, consecutive_local: 2, ..usual };
    for (outlier, heard, why) in [
        (usual, &[Fault; 5][..], Some(Ejected::Faults)),
        (usual, &[Fault; 4], None),
        (usual, &[Fault, Fault, Fault, Fault, Well, Fault], None),
        (usual, &[Fault, Nothing, Fault, Gateway, Local, Nothing, Fault], Some(Ejected::Faults)),
        (usual, &[Local; 5], Some(Ejected::Local)),
        (gateway, &[Fault; 50], None),
        (gateway, &[Gateway, Fault, Gateway, Well], None),
        (gateway, &[Gateway, Gateway], Some(Ejected::Gateway)),
        (split, &[Local, Local], Some(Ejected::Local)),
        (split, &[Local, Fault, Fault, Fault, Fault], None),
        (Outlier { consecutive: 0, ..usual }, &[Fault; 50], None),
        (Outlier { percent_max: 0, ..usual }, &[Fault; 50], None),
    ] {
        let world = World::new(&[1; 4], ejecting(outlier));
        heard.iter().for_each(|heard| world.ask(1, *heard, SECOND));
        let standing = world.balance.members[1].standing(&world.balance.policy, SECOND);
        match why {
            None => assert_eq!(standing, Standing::Up, "{heard:?}"),
            Some(why) => {
                let is_it = matches!(standing, Standing::Ejected(it, until)
                    if it == why && (31 * SECOND..=34 * SECOND).contains(&until));
                assert!(is_it, "{heard:?}: {standing:?}");
                assert_eq!(world.counts(1000, SECOND)[1], 0);
            }
        }
    }
}

#[test]
fn one_message_shows_whether_it_is_well_again() {
    let world = World::new(&[1; 4], ejecting(Outlier::default()));
    let eject = |now| (0..5).for_each(|_| world.ask(1, Heard::Fault, now));
    eject(SECOND);
    let due = 40 * SECOND;
    // One of those that come then.
    let picked: Vec<_> = (0..1000).map(|_| world.pick(due)).collect();
    assert_eq!(picked.iter().filter(|it| **it == 1).count(), 1);
    assert_eq!(
        world.balance.members[1].standing(&world.balance.policy, due),
        Standing::Probing(Ejected::Faults)
    );
    // It goes wrong: twice as long, and nobody waits for five of them.
    world.ask(1, Heard::Fault, due);
    assert_eq!(world.counts(1000, due + 55 * SECOND)[1], 0);
    let again = due + 70 * SECOND;
    assert_eq!(world.counts(1000, again)[1], 1);
    // Its connection ended before anything came of it: after a while another may look.
    assert_eq!(world.counts(1000, again + SECOND)[1], 0);
    assert_eq!(world.counts(1000, again + 31 * SECOND)[1], 1);
    world.ask(1, Heard::Well, again + 31 * SECOND);
    assert_eq!(world.out(), 0);
    assert!(world.counts(1000, again + 32 * SECOND)[1] > 150);
    // What went well for an interval is forgotten: two of them are.
    eject(again + 55 * SECOND);
    let until = match world.balance.members[1].standing(&world.balance.policy, again) {
        Standing::Ejected(_, until) => until - again - 55 * SECOND,
        other => panic!("{other:?}"),
    };
    assert!((30 * SECOND..=33 * SECOND).contains(&until), "{until}");
}

#[test]
fn the_last_is_never_ejected_and_no_more_than_documents_say() {
    for (count, percent, most) in
        [(1, 100, 0), (2, 100, 1), (2, 10, 1), (10, 10, 1), (10, 50, 5), (10, 100, 9), (3, 0, 0)]
    {
        let outlier = Outlier { percent_max: percent, ..Outlier::default() };
        let world = World::new(&vec![1; count], ejecting(outlier));
        // Everybody is at fault, in any order.
        for _ in 0..10_000 {
            let index = u32::try_from(world.random() % count as u64).unwrap();
            let all = [Heard::Fault, Heard::Local, Heard::Gateway];
            let heard = match usize::try_from(world.random() % 120) {
                Ok(119) => Heard::Well,
                Ok(number) => all[number % 3],
                Err(_) => Heard::Nothing,
            };
            world.ask(index, heard, SECOND);
            assert!(world.out() <= most, "{} of {count} are out", world.out());
            world.pick(SECOND);
        }
        assert_eq!(world.out(), most, "{count} {percent}");
    }
    let healthy = Outlier { percent_max: 100, health_percent_min: 50, ..Outlier::default() };
    let world = World::new(&[1; 10], ejecting(healthy));
    (0..10).for_each(|index| (0..5).for_each(|_| world.ask(index, Heard::Fault, SECOND)));
    assert_eq!(world.out(), 5);
}

#[test]
fn more_than_is_allowed_is_refused() {
    let breakers = Breakers { connections: 2, pending: 1, requests: 3 };
    let policy = TrafficPolicy { breakers, ..TrafficPolicy::default() };
    let world = World::new(&[1; 4], policy);
    let pick = |seat: Option<&Seat>| world.balance.pick(&world.cluster, None, seat, (1, 7));
    let one = Seat::new(&world.balance, 0).unwrap();
    assert_eq!(pick(None), Picked::Full(Full::Pending));
    one.connected();
    assert!(matches!(pick(None), Picked::Endpoint(_)));
    let two = world.seat(1);
    assert_eq!(pick(None), Picked::Full(Full::Connections));
    // Who has one goes on.
    assert_eq!(pick(Some(&two)), Picked::Endpoint(1));
    (0..3).for_each(|_| two.begin());
    assert_eq!(pick(Some(&two)), Picked::Full(Full::Requests));
    two.end(Heard::Nothing, 0, 2);
    assert_eq!(pick(Some(&two)), Picked::Endpoint(1));
    drop((one, two));
    assert!(matches!(pick(None), Picked::Endpoint(_)));
    assert_eq!(world.balance.view(&world.cluster, 2).refused, [1, 1, 1]);
}

#[test]
fn a_failed_dial_is_tried_elsewhere_within_its_budget() {
    let world = World::new(&[1; 5], TrafficPolicy::default());
    let mut first = Seat::new(&world.balance, 2).unwrap();
    first.begin();
    first.failed(1);
    let mut second = first.again(RetryReason::Reset, 1).unwrap();
    drop(first);
    assert_eq!(second.tries(), Tries { count: 2, reason: Some(RetryReason::Reset) });
    let mut third = second.again(RetryReason::Connect, 1).unwrap();
    drop(second);
    let tries = Tries { count: 3, reason: Some(RetryReason::Connect) };
    assert_eq!((third.tries(), third.index != 2), (tries, true));
    assert!(third.again(RetryReason::Connect, 1).is_none(), "three tries are enough");
    assert_eq!(world.balance.shared.requests.load(Relaxed), 1);
    third.connected();
    assert_eq!(third.tries(), Tries { count: 1, reason: None });
    assert_eq!(world.balance.shared.retrying.load(Relaxed), 0);
    third.end(Heard::Well, 5, 9);
    // A budget of three, where nothing else is under way.
    let mut waiting: Vec<_> =
        (0..5).map(|index| Seat::new(&world.balance, index).unwrap()).collect();
    let again: Vec<_> =
        waiting.iter_mut().filter_map(|seat| seat.again(RetryReason::Connect, 1)).collect();
    assert_eq!(again.len(), 3);
    drop((again, waiting, third));
    let view = world.balance.view(&world.cluster, 1);
    assert_eq!((view.retries, view.retries_refused, view.connections), (5, 2, 0));
    // With one endpoint there is no other.
    let alone = World::new(&[1], TrafficPolicy::default());
    assert!(Seat::new(&alone.balance, 0).unwrap().again(RetryReason::Connect, 1).is_none());
}

#[test]
fn a_hash_goes_on_to_others_only_where_its_own_is_out_or_full() {
    for ring in [false, true] {
        let mut world = World::new(&[1; 5], ejecting(Outlier::default()));
        if ring {
            let names: Vec<_> = (0..5).map(|index| (mix(index + 1), 1)).collect();
            world.cluster.by_hash = ByHash::Ring(Ring::new(&names, 1024));
        }
        let at = |world: &World, hash| match world.balance.pick(
            &world.cluster,
            Some(mix(hash)),
            None,
            (SECOND, 0),
        ) {
            Picked::Endpoint(index) => index,
            other => panic!("{other:?}"),
        };
        let before: Vec<_> = (0..1000).map(|hash| at(&world, hash)).collect();
        (0..5).for_each(|_| world.ask(3, Heard::Fault, SECOND));
        for (hash, was) in (0..).zip(&before) {
            let is = at(&world, hash);
            assert!(is != 3 && (*was == 3 || is == *was), "{hash}: {was} {is}");
        }
        let spread = (0..).zip(&before).filter(|(_, was)| **was == 3);
        let to: std::collections::BTreeSet<_> = spread.map(|(hash, _)| at(&world, hash)).collect();
        assert_eq!(to.into_iter().collect::<Vec<_>>(), [0, 1, 2, 4]);
    }
}

#[test]
fn a_bound_on_a_hash_spreads_what_is_too_much() {
    let policy = TrafficPolicy { hash_bound_percent: 125, ..TrafficPolicy::default() };
    let world = World::new(&[1; 5], policy);
    let mut seats = Vec::new();
    for _ in 0..100 {
        let picked = world.balance.pick(&world.cluster, Some(mix(7)), None, (1, 0));
        let Picked::Endpoint(index) = picked else { panic!("{picked:?}") };
        let seat = world.seat(index);
        seat.begin();
        seats.push(seat);
    }
    let counts: Vec<_> = world.balance.members.iter().map(|it| it.requests.load(Relaxed)).collect();
    assert!(counts.iter().all(|count| *count <= 25), "{counts:?}");
}

#[test]
fn who_comes_later_begins_slowly_and_who_was_there_stays_what_it_was() {
    let warmup = Warmup { duration_ns: 10 * SECOND, least_percent: 10, aggression_milli: 1000 };
    for balancer in [Balancer::RoundRobin, Balancer::Random, Balancer::LeastRequest] {
        let outlier = Some(Outlier::default());
        let policy = TrafficPolicy { warmup: Some(warmup), outlier, ..of(balancer) };
        let before = World::new(&[1; 3], policy.clone());
        (0..5).for_each(|_| before.ask(0, Heard::Fault, SECOND));
        let open = before.seat(1);
        open.begin();
        let cluster = cluster(&[1; 4], policy);
        let old = [Arc::clone(&before.balance)];
        let balance = Balance::of_all(std::slice::from_ref(&cluster), &old, 2 * SECOND);
        let world = World { cluster, balance: Arc::clone(&balance[0]), seed: Cell::new(1) };
        let view = world.balance.view(&world.cluster, 2 * SECOND);
        let standings: Vec<_> = view.endpoints.iter().map(|it| it.standing).collect();
        assert!(matches!(standings[0], Standing::Ejected(Ejected::Faults, _)));
        assert_eq!(standings[1..], [Standing::Up, Standing::Up, Standing::Warming]);
        assert_eq!((view.requests, view.connections, view.endpoints[1].requests), (1, 1, 1));
        drop(open);
        let parts = [2, 7, 13].map(|at| world.counts(3000, at * SECOND)[3]);
        assert!(parts[0] < 500 && parts[0] < parts[1] && parts[1] < parts[2], "{parts:?}");
        assert!(parts[2] > 850, "{balancer:?} {parts:?}");
    }
    // All of them are new: nobody starves.
    let policy = TrafficPolicy { warmup: Some(warmup), ..of(Balancer::Random) };
    let world = World::new(&[1; 3], policy);
    world.balance.members.iter().for_each(|it| it.born_ns.store(SECOND, Relaxed));
    assert!(world.counts(3000, SECOND).iter().all(|count| (700..1300).contains(count)));
}
