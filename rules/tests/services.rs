//! Hosts whose endpoints are the records of a service's name (SRV).

mod support;

use netra_codecs::trace::RetryReason;
use netra_rules::{Action, Context, Direction, Documents, ServiceRecord, Source, State};
use std::{collections::BTreeMap, sync::Arc};
use support::{World, errors, warnings};

const NAME: &str = "_redis._tcp.cache.test";

/// A host with these endpoints, balanced so, and a route to it.
fn rules(hosts: &str, endpoints: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [{hosts}]\n  ports: [{{number: 6379, name: tcp-redis}}]\n  \
         resolution: DNS\n{endpoints}---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: it, \
         annotations: {{netra.io/balance-by: message}}}}\nspec:\n  host: {hosts}\n  \
         trafficPolicy: {{{policy}}}\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [{hosts}]\n  routes: [{{route: [{{destination: {{host: {hosts}}}}}]}}]\n"
    )
}

const TURNS: &str = "loadBalancer: {simple: ROUND_ROBIN}";
const ENDPOINTS: &str =
    "  addresses: [240.240.0.1]\n  endpoints: [{address: _redis._tcp.cache.test}]\n";

fn known(records: &[(u16, u16, u16, &str)]) -> Context {
    let records = records.iter().map(|(priority, weight, port, address)| ServiceRecord {
        priority: *priority,
        weight: *weight,
        port: *port,
        target: (*address).into(),
        addresses: vec![address.parse().unwrap()],
    });
    let services = [(NAME.to_owned(), records.collect())].into();
    Context { services, ..Context::default() }
}

/// How often each endpoint is asked, of so many messages to there.
fn counts(world: &mut World, messages: u64, to: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for turn in 0..messages {
        world.random = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = turn.to_string();
        let verdict =
            world.ask("redis", Direction::Outbound, to, &[("command", "GET"), ("key", &key)]);
        *counts.entry(world.endpoint(&verdict)).or_default() += 1;
    }
    counts
}

fn of(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn records_of_the_lowest_priority_share_by_weight() {
    let records =
        known(&[(10, 3, 7001, "10.0.0.1"), (10, 1, 7002, "10.0.0.2"), (20, 9, 7003, "10.0.0.3")]);
    let shares = of(&[("10.0.0.1:7001", 300), ("10.0.0.2:7002", 100)]);
    let mut world = World::of(&rules("cache.test", ENDPOINTS, TURNS), &records);
    // By the host's own address, and by those of the records.
    for to in ["240.240.0.1:6379", "10.0.0.2:7002", "10.0.0.3:7003"] {
        assert_eq!(counts(&mut world, 400, to), shares, "{to}");
    }
    let verdict = world.ask("redis", Direction::Outbound, "10.0.0.2:6379", &[("command", "GET")]);
    assert_eq!(verdict.action, Action::Pass);
    // A host that is the name itself.
    let mut world = World::of(&rules(NAME, "", TURNS), &records);
    assert_eq!(counts(&mut world, 400, "10.0.0.1:7001"), shares);
    let view = &world.table.clusters_now(&world.process, 1)[0];
    let levels: Vec<_> = view.endpoints.iter().map(|it| it.level).collect();
    assert_eq!((levels, &view.parts), (vec![0, 0, 1], &vec![100, 0]));
    // The port's name says what is spoken where the records lead, too.
    let spoken: Vec<_> = world.table.spoken().map(|(place, _)| place).collect();
    assert_eq!(spoken, ["10.0.0.1:7001", "10.0.0.2:7002", "10.0.0.3:7003"]);
}

/// Levels are those of who is nearer first, and then those of the records; the fifth is the last.
#[test]
fn nearness_goes_before_priority_and_levels_are_bounded() {
    let endpoints = "  endpoints:\n  - {address: _redis._tcp.cache.test, locality: us/a}\n  \
                     - {address: 10.0.0.9, ports: {tcp-redis: 7009}, locality: eu/a}\n";
    let policy = "outlierDetection: {}, loadBalancer: {localityLbSetting: {}}";
    let text = rules("cache.test", endpoints, policy);
    let records = known(&[
        (1, 1, 7001, "10.0.0.1"),
        (2, 1, 7002, "10.0.0.2"),
        (3, 1, 7003, "10.0.0.3"),
        (4, 1, 7004, "10.0.0.4"),
        (5, 1, 7005, "10.0.0.5"),
        (6, 1, 7006, "10.0.0.6"),
    ]);
    let levels = |locality: Option<&str>| {
        let locality = locality.map(netra_rules::Locality::parse);
        let world = World::of(&text, &Context { locality, ..records.clone() });
        let endpoints = world.table.clusters()[0].endpoints.iter();
        endpoints.map(|it| it.level).collect::<Vec<_>>()
    };
    assert_eq!(levels(Some("eu/a")), [1, 2, 3, 4, 4, 4, 0]);
    assert_eq!(levels(Some("us/a")), [0, 1, 2, 3, 4, 4, 4]);
    // Nowhere: only the records say something.
    assert_eq!(levels(None), [0, 1, 2, 3, 4, 4, 0]);
}

/// What is hashed goes to the first level while anybody of it is in, and then to the next.
#[test]
fn hashes_know_levels() {
    let policy = "outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100}, \
                  loadBalancer: {consistentHash: {httpHeaderName: key}}";
    for ring in ["", ", ringHash: {}"] {
        let policy = policy.replace("httpHeaderName: key", &format!("httpHeaderName: key{ring}"));
        let records =
            known(&[(0, 1, 7001, "10.0.0.1"), (0, 1, 7002, "10.0.0.2"), (9, 1, 7003, "10.0.0.3")]);
        let mut world = World::of(&rules("cache.test", ENDPOINTS, &policy), &records);
        let first = counts(&mut world, 100, "240.240.0.1:6379");
        assert_eq!(first.keys().collect::<Vec<_>>(), ["10.0.0.1:7001", "10.0.0.2:7002"]);
        for (out, there) in [("10.0.0.1:7001", "10.0.0.2:7002"), ("10.0.0.2:7002", "10.0.0.3:7003")]
        {
            fail_once(&mut world, out);
            assert_eq!(counts(&mut world, 50, "240.240.0.1:6379"), of(&[(there, 50)]), "{out}");
        }
    }
}

/// One message there goes wrong, which is enough to be left out.
fn fail_once(world: &mut World, at: &str) {
    for turn in 0..1000 {
        let key = turn.to_string();
        let values = [("command", "GET"), ("key", &*key)];
        let verdict = world.ask("redis", Direction::Outbound, "240.240.0.1:6379", &values);
        let Action::Route(route) = verdict.action else { panic!("{verdict:?}") };
        if world.endpoint(&verdict) == at {
            let seat = world.state.seat(route, None).unwrap();
            seat.connected();
            seat.begin();
            seat.end(netra_rules::Heard::Fault, 0, 0);
            return;
        }
    }
    panic!("nothing goes to {at}");
}

/// A failed dial goes to the next level, whoever is thought to be well.
#[test]
fn a_dial_that_fails_goes_to_who_has_the_next_priority() {
    let records = known(&[(0, 1, 7001, "10.0.0.1"), (9, 1, 7003, "10.0.0.3")]);
    let mut world = World::of(&rules("cache.test", ENDPOINTS, TURNS), &records);
    let verdict =
        world.ask("redis", Direction::Outbound, "240.240.0.1:6379", &[("command", "GET")]);
    let Action::Route(route) = verdict.action else { panic!("{verdict:?}") };
    assert_eq!(world.endpoint(&verdict), "10.0.0.1:7001");
    let mut seat = world.state.seat(route, None).unwrap();
    seat.failed(0);
    let next = seat.again(RetryReason::Connect, 0).unwrap();
    assert_eq!(next.address().to_string(), "10.0.0.3:7003");
}

/// Until the records are known there is one endpoint, which nobody can dial.
#[test]
fn a_name_without_records_is_one_endpoint_and_is_asked_for() {
    for (hosts, endpoints) in [("cache.test", ENDPOINTS), (NAME, "")] {
        let text = rules(hosts, endpoints, TURNS);
        let source = Source { name: "it".into(), text: text.clone() };
        assert_eq!(Documents::read(&[source]).asked_hosts(), [NAME]);
        let none = World::of(&text, &Context::default());
        let endpoints: Vec<_> =
            none.table.clusters()[0].endpoints.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(endpoints, [format!("{NAME}:6379")]);
    }
}

/// Who stays is what it was, also where its weight and its priority change.
#[test]
fn records_that_stay_are_what_they_were() {
    let text = rules("cache.test", ENDPOINTS, TURNS);
    let mut world = World::of(&text, &known(&[(0, 1, 7001, "10.0.0.1")]));
    let verdict =
        world.ask("redis", Direction::Outbound, "240.240.0.1:6379", &[("command", "GET")]);
    let Action::Route(route) = verdict.action else { panic!("{verdict:?}") };
    let seat = world.state.seat(route, None).unwrap();
    seat.connected();
    seat.begin();
    let next = World::of(&text, &known(&[(5, 8, 7001, "10.0.0.1"), (0, 1, 7002, "10.0.0.2")]));
    world.process = Arc::new(next.table.process(Some(&world.process), 5));
    world.state = State::new(&next.table, &world.process, 1);
    world.table = next.table;
    let view = world.table.clusters_now(&world.process, 6).remove(0);
    let now: Vec<_> = view.endpoints.iter().map(|it| (it.level, it.weight, it.requests)).collect();
    assert_eq!(now, [(0, 1, 0), (1, 8, 1)]);
    seat.end(netra_rules::Heard::Well, 5, 9);
}

#[test]
fn what_cannot_be_or_has_no_effect_is_said() {
    let no_entry = "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: it}\nspec:\n  \
                    hosts: [cache.test]\n  protocol: redis\n  \
                    routes: [{route: [{destination: {host: _redis._tcp.cache.test}}]}]\n";
    let found = errors(no_entry);
    assert!(found.len() == 1 && found[0].contains("a ServiceEntry with ports"), "{found:?}");
    for name in ["_redis.cache.test", "_redis._tcp", "_._tcp.cache.test"] {
        let found = errors(&rules("cache.test", &ENDPOINTS.replace(NAME, name), TURNS));
        assert!(found.len() == 1 && found[0].contains("address="), "{found:?}");
    }
    let ports = ENDPOINTS.replace(NAME, &format!("{NAME}, ports: {{tcp-redis: 7000}}"));
    let found = warnings(&rules("cache.test", &ports, TURNS));
    assert!(found.iter().any(|it| it.contains("those of the name's records")), "{found:?}");
}
