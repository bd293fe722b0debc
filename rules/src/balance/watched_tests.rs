//! What is known of endpoints beside messages: checks, success rates, and who is nearer.

use super::*;

fn checking(outlier: Option<Outlier>) -> TrafficPolicy {
    let ping = netra_codecs::ping::Ping::Tcp;
    let (interval_ns, timeout_ns, unhealthy, healthy) = (5 * SECOND, SECOND, 3, 2);
    let check = Some(HealthCheck { ping, interval_ns, timeout_ns, unhealthy, healthy });
    TrafficPolicy { check, outlier, ..of(Balancer::LeastRequest) }
}

/// The endpoint was asked so often, and this came of it each time: of how many clusters it went or
/// came back.
fn asked(balance: &Arc<Balance>, index: usize, times: usize, answer: Option<Unwell>) -> usize {
    let all = Checked::all(std::slice::from_ref(balance));
    (0..times).map(|_| all[index].answered(answer, SECOND).len()).sum()
}

#[test]
fn who_does_not_answer_checks_is_not_picked_until_it_does() {
    const BAD: Option<Unwell> = Some(Unwell::Refused);
    let world = World::new(&[1; 4], checking(None));
    let standing = || world.balance.view(&world.cluster, SECOND).endpoints[1].standing;
    // Two bad answers in a row are not three, once a good one was there.
    for (times, answer, changes) in [(1, None, 0), (2, BAD, 0), (1, None, 0), (2, BAD, 0)] {
        assert_eq!(asked(&world.balance, 1, times, answer), changes);
        assert_eq!(standing(), Standing::Up);
    }
    assert_eq!(asked(&world.balance, 1, 5, BAD), 1);
    assert_eq!(standing(), Standing::Unhealthy(Unwell::Refused));
    assert_eq!(world.counts(1000, SECOND)[1], 0);
    assert_eq!(world.counts(1000, u64::MAX - 1)[1], 0);
    // A message that was under way there shows nothing.
    world.ask(1, Heard::Well, SECOND);
    assert_eq!(standing(), Standing::Unhealthy(Unwell::Refused));
    assert_eq!(asked(&world.balance, 1, 1, None), 0);
    assert_eq!(asked(&world.balance, 1, 1, None), 1);
    assert_eq!(standing(), Standing::Up);
    assert!(world.counts(1000, SECOND)[1] > 150);
    let view = &world.balance.view(&world.cluster, SECOND).endpoints[1];
    assert_eq!((view.checks, view.check.unwrap().last), ([4, 9], None));
    // Who never was there gets nothing from the first question on.
    assert_eq!(asked(&world.balance, 2, 1, Some(Unwell::Timeout)), 1);
    assert_eq!(world.counts(1000, SECOND)[2], 0);
}

#[test]
fn checks_never_take_the_last_away() {
    let world = World::new(&[1; 3], checking(None));
    for index in 0..3 {
        asked(&world.balance, index, 5, Some(Unwell::Timeout));
    }
    assert_eq!((world.out(), world.counts(100, SECOND)[2]), (2, 100));
    let last = world.balance.view(&world.cluster, SECOND).endpoints[2].clone();
    assert!(last.standing == Standing::Up && last.check.unwrap().is_failing, "{last:?}");
    // One is back: now the last may go.
    asked(&world.balance, 0, 2, None);
    asked(&world.balance, 2, 1, Some(Unwell::Timeout));
    assert_eq!((world.out(), world.counts(100, SECOND)[0]), (2, 100));
}

#[test]
fn ejection_and_checks_go_by_themselves() {
    let outlier = Outlier { percent_max: 25, ..Outlier::default() };
    let world = World::new(&[1; 4], checking(Some(outlier)));
    let eject = |index| (0..5).for_each(|_| world.ask(index, Heard::Fault, SECOND));
    let standing =
        |index: usize| world.balance.view(&world.cluster, SECOND).endpoints[index].standing;
    asked(&world.balance, 0, 1, Some(Unwell::Odd));
    eject(0);
    assert_eq!(standing(0), Standing::Unhealthy(Unwell::Odd));
    // What checks have taken out is no part of what may be ejected.
    eject(1);
    assert!(matches!(standing(1), Standing::Ejected(..)));
    eject(2);
    assert_eq!(standing(2), Standing::Up);
    // Good answers to checks say nothing of faults.
    asked(&world.balance, 1, 9, None);
    assert!(matches!(standing(1), Standing::Ejected(..)));
    // It is due, one message is under way there, and a check finds it dead meanwhile.
    let due = 40 * SECOND;
    let probe = (0..1000).find(|_| world.pick(due) == 1).map(|_| world.seat(1)).unwrap();
    probe.begin();
    asked(&world.balance, 1, 9, Some(Unwell::Timeout));
    probe.end(Heard::Well, 1000, due);
    assert_eq!(standing(1), Standing::Unhealthy(Unwell::Timeout));
    assert_eq!(world.counts(1000, due + 500 * SECOND)[..2], [0, 0]);
}

#[test]
fn one_endpoint_of_two_clusters_is_asked_once_and_forgotten_with_its_check() {
    let policy = checking(None);
    let named = |name: &str, policy: &TrafficPolicy| Cluster {
        name: name.into(),
        ..cluster(&[1, 1], policy.clone())
    };
    let clusters = [named("it", &policy), named("it/v2", &policy)];
    let balances = Balance::of_all(&clusters, &[], 1);
    let all = Checked::all(&balances);
    assert_eq!(all.len(), 2);
    let changed = all[0].answered(Some(Unwell::Refused), SECOND);
    assert_eq!(changed, [("it", true), ("it/v2", true)]);
    // What checks have found outlives a change of rules, unless that takes them away.
    let is_out = |balances: &[Arc<Balance>]| balances.iter().all(|it| !it.members[0].is_in());
    let kept = Balance::of_all(&clusters, &balances, 2);
    assert!(is_out(&kept));
    let plain = TrafficPolicy::default();
    let without = [named("it", &plain), named("it/v2", &plain)];
    let left = Balance::of_all(&without, &kept, 3);
    assert!(!is_out(&left) && Checked::all(&left).is_empty());
}

/// Endpoints of these levels, in turn.
fn of_levels(levels: &[u8], policy: TrafficPolicy) -> World {
    let mut cluster = cluster(&vec![1; levels.len()], policy);
    cluster.endpoints.iter_mut().zip(levels).for_each(|(it, level)| it.level = *level);
    let last = levels.iter().max().unwrap();
    let schedule = |level: u8| {
        let weights = levels.iter().map(|it| u32::from(*it == level));
        crate::choice::schedule(&weights.collect::<Vec<_>>())
    };
    cluster.levels = (0..=*last).map(schedule).collect();
    let balance = Arc::clone(&Balance::of_all(std::slice::from_ref(&cluster), &[], 1)[0]);
    World { cluster, balance, seed: Cell::new(1) }
}

/// Messages of each level, of a thousand.
fn by_level(world: &World, now: u64) -> Vec<usize> {
    let mut found = vec![0; world.cluster.levels.len()];
    for (count, endpoint) in world.counts(1000, now).iter().zip(&world.cluster.endpoints) {
        found[usize::from(endpoint.level)] += count;
    }
    found
}

#[test]
fn what_the_nearest_cannot_take_goes_on_and_comes_back() {
    let check = checking(None);
    let world = of_levels(&[0, 0, 0, 0, 1, 1, 2], check);
    let view = || world.balance.view(&world.cluster, SECOND);
    assert_eq!((by_level(&world, SECOND), view().parts), (vec![1000, 0, 0], vec![100, 0, 0]));
    let fail = |index| assert_eq!(asked(&world.balance, index, 5, Some(Unwell::Refused)), 1);
    // Three of four are 105 %, two are 70.
    fail(0);
    assert_eq!(by_level(&world, SECOND), [1000, 0, 0]);
    fail(1);
    assert_eq!(view().parts, [70, 30, 0]);
    let found = by_level(&world, SECOND);
    assert!(found[0].abs_diff(700) < 60 && found[2] == 0, "{found:?}");
    fail(2);
    fail(3);
    fail(4);
    assert_eq!(view().parts, [0, 70, 30]);
    let found = by_level(&world, SECOND);
    assert!(found[0] == 0 && found[1].abs_diff(700) < 60, "{found:?}");
    // A connection stays where it is only while its level has a part.
    let far = world.seat(6);
    let pick = || world.balance.pick(&world.cluster, None, Some(&far), (SECOND, world.random()));
    let by_connection = |world: &World| !world.balance.policy.by_message;
    assert!(!by_connection(&world) && far.may_stay());
    assert!(world.balance.has_turn(&world.cluster, 6));
    (0..4).for_each(|index| assert_eq!(asked(&world.balance, index, 2, None), 1));
    assert!(!world.balance.has_turn(&world.cluster, 6));
    assert!((0..100).all(|_| matches!(pick(), Picked::Endpoint(0..=3))));
    assert_eq!(by_level(&world, SECOND), [1000, 0, 0]);
}

#[test]
fn a_connection_goes_back_to_who_is_near() {
    let policy = TrafficPolicy { by_message: false, ..checking(None) };
    let world = of_levels(&[0, 1], policy);
    asked(&world.balance, 0, 1, Some(Unwell::Timeout));
    let far = world.seat(1);
    let pick = || world.balance.pick(&world.cluster, None, Some(&far), (SECOND, 7));
    assert_eq!(pick(), Picked::Endpoint(1));
    asked(&world.balance, 0, 2, None);
    assert_eq!(pick(), Picked::Endpoint(0));
}

#[test]
fn who_is_out_of_the_nearest_is_looked_at_again() {
    let outlier = Outlier { percent_max: 100, ..Outlier::default() };
    let world = of_levels(&[0, 0, 1], ejecting(outlier));
    for index in [0, 1] {
        (0..5).for_each(|_| world.ask(index, Heard::Fault, SECOND));
    }
    assert_eq!(by_level(&world, SECOND), [0, 1000]);
    // Both are due: one message each, and who answers well is asked as ever.
    let due = 40 * SECOND;
    assert_eq!(by_level(&world, due), [2, 998]);
    world.ask(0, Heard::Well, due);
    let found = by_level(&world, due);
    assert!(found[0].abs_diff(700) < 60, "{found:?}");
    // Tried elsewhere is who is nearest.
    let mut failed = Seat::new(&world.balance, 1).unwrap();
    assert_eq!(failed.again(RetryReason::Connect, due).unwrap().index, 0);
}

#[test]
fn whose_answers_are_much_worse_is_ejected_by_an_interval() {
    let outlier = Outlier { consecutive: 0, percent_max: 100, ..Outlier::default() };
    let rate = Some(SuccessRate::default());
    let world = World::new(&[1; 6], TrafficPolicy { success_rate: rate, ..ejecting(outlier) });
    let sweep = |now| world.balance.sweep(now);
    let standing =
        |index: usize| world.balance.view(&world.cluster, SECOND).endpoints[index].standing;
    // Each answers so many of a hundred.
    let ask = |percents: &[usize]| {
        for (index, percent) in percents.iter().enumerate() {
            let index = u32::try_from(index).unwrap();
            (0..100).for_each(|number| {
                let heard = if number < *percent { Heard::Well } else { Heard::Fault };
                world.ask(index, heard, SECOND);
            });
        }
    };
    ask(&[100, 100, 100, 100, 100, 0]);
    assert_eq!(sweep(SECOND), Some(11 * SECOND));
    assert_eq!(world.out(), 0, "what was before anybody looked says nothing of an interval");
    ask(&[100, 100, 100, 100, 100, 0]);
    assert_eq!((sweep(2 * SECOND), world.out()), (Some(11 * SECOND), 0));
    assert_eq!((sweep(11 * SECOND), world.out()), (Some(21 * SECOND), 1));
    assert!(matches!(standing(5), Standing::Ejected(Ejected::SuccessRate, _)));
    assert_eq!(world.counts(1000, 11 * SECOND)[5], 0);
    // All are as bad, and who is asked little is not compared.
    ask(&[50, 50, 50, 50, 50]);
    sweep(21 * SECOND);
    assert_eq!(world.out(), 1);
    ask(&[100, 100, 100, 100]);
    world.ask(4, Heard::Fault, SECOND);
    sweep(31 * SECOND);
    assert_eq!(world.out(), 1);
    // Without outlierDetection nobody is ejected.
    let plain =
        World::new(&[1; 6], TrafficPolicy { success_rate: rate, ..TrafficPolicy::default() });
    assert_eq!((plain.balance.sweep(1), plain.balance.is_swept()), (None, false));
}
