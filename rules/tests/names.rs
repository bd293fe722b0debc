//! Hosts whose endpoints are the addresses of a name.

mod support;

use netra_rules::{Context, Direction, Documents, Source, State};
use std::{collections::BTreeMap, sync::Arc};
use support::{World, errors};

/// A host of that resolution, with these endpoints, and a route to it.
fn rules(resolution: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache.test]\n  ports: [{{number: 6379, name: tcp-redis, targetPort: 6380}}]\n  \
         resolution: {resolution}\n{endpoints}---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: it, \
         annotations: {{netra.io/balance-by: message}}}}\nspec:\n  host: cache.test\n  \
         trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN}}}}\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache.test]\n  routes: [{{route: [{{destination: {{host: cache.test}}}}]}}]\n"
    )
}

fn context(names: &[(&str, &[&str])]) -> Context {
    let parsed = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect();
    let addresses = names.iter().map(|(name, all)| ((*name).to_owned(), parsed(all))).collect();
    Context { addresses, ..Context::default() }
}

/// How often each endpoint is asked, of so many messages.
fn counts(world: &mut World, messages: usize, to: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..messages {
        let verdict = world.ask("redis", Direction::Outbound, to, &[("command", "GET")]);
        *counts.entry(world.endpoint(&verdict)).or_default() += 1;
    }
    counts
}

fn of(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn each_address_of_a_name_is_an_endpoint() {
    let text = rules("DNS", "");
    let known = context(&[("cache.test", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"])]);
    let mut world = World::of(&text, &known);
    // Who is IPv4 and IPv6 is not two, and connections to any of them are its own.
    let each = [("10.0.0.1:6380", 100), ("10.0.0.2:6380", 100), ("10.0.0.3:6380", 100)];
    assert_eq!(counts(&mut world, 300, "10.0.0.2:6379"), of(&each));
    let mut world = World::of(&text, &context(&[("cache.test", &["fd00::1", "fd00::2"])]));
    let each = [("[fd00::1]:6380", 50), ("[fd00::2]:6380", 50)];
    assert_eq!(counts(&mut world, 100, "[fd00::2]:6379"), of(&each));
    // One address of it is all that is wanted here: whoever dials looks for it.
    let mut world = World::of(&rules("DNS_ROUND_ROBIN", ""), &known);
    let get = [("command", "GET")];
    let verdict = world.ask("redis", Direction::Outbound, "10.0.0.2:6379", &get);
    assert_eq!(verdict.action, netra_rules::Action::Pass);
}

#[test]
fn names_among_endpoints_are_as_many_as_they_have_addresses() {
    let endpoints = "  endpoints: [{address: a.test, weight: 2}, {address: b.test}, \
                     {address: 10.0.0.9, ports: {tcp-redis: 7000}}]\n";
    let text = rules("DNS", endpoints);
    let source = Source { name: "it".into(), text: text.clone() };
    let asked = Documents::read(&[source]).asked_hosts();
    assert_eq!(asked, ["a.test", "b.test"]);
    // Names of hosts that no rule is about are nobody's business.
    let idle = text.replace("hosts: [cache.test]\n  ports", "hosts: [other.test]\n  ports");
    let source = Source { name: "it".into(), text: idle };
    assert_eq!(Documents::read(&[source]).asked_hosts(), ["cache.test"]);
    let a: (&str, &[&str]) = ("a.test", &["10.0.0.1", "10.0.0.2"]);
    let mut world = World::of(&text, &context(&[a, ("b.test", &["10.0.0.2", "10.0.0.3"])]));
    let each = [
        ("10.0.0.1:6380", 200),
        ("10.0.0.2:6380", 200),
        ("10.0.0.3:6380", 100),
        ("10.0.0.9:7000", 100),
    ];
    assert_eq!(counts(&mut world, 600, "10.0.0.3:6380"), of(&each));
    // Nobody knows the second one yet: it is one endpoint, of whatever address.
    let mut world = World::of(&text, &context(&[a]));
    let each = [
        ("10.0.0.1:6380", 200),
        ("10.0.0.2:6380", 200),
        ("b.test:6380", 100),
        ("10.0.0.9:7000", 100),
    ];
    assert_eq!(counts(&mut world, 600, "10.0.0.9:7000"), of(&each));
}

/// What an address is comes with its cluster and itself: it outlives others that come and go.
#[test]
fn addresses_that_stay_are_what_they_were() {
    let text = rules("DNS", "");
    let two = context(&[("cache.test", &["10.0.0.1", "10.0.0.2"])]);
    let mut world = World::of(&text, &two);
    let verdict = world.ask("redis", Direction::Outbound, "10.0.0.1:6379", &[("command", "GET")]);
    let netra_rules::Action::Route(route) = verdict.action else { panic!("{verdict:?}") };
    let at = world.endpoint(&verdict);
    let seat = world.state.seat(route, None).unwrap();
    seat.connected();
    seat.begin();
    // The other one goes, and one comes; then this one goes, too.
    for (addresses, is_there) in [(vec![&*at, "10.0.0.7:0"], true), (vec!["10.0.0.7:0"], false)] {
        let ips: Vec<_> = addresses.iter().map(|it| it.rsplit_once(':').unwrap().0).collect();
        let next = World::of(&text, &context(&[("cache.test", &ips)]));
        world.process = Arc::new(next.table.process(Some(&world.process), 5));
        world.state = State::new(&next.table, &world.process, 1);
        world.table = next.table;
        let view = world.table.clusters_now(&world.process, 6).remove(0);
        let busy: Vec<_> = view.endpoints.iter().filter(|it| it.requests == 1).collect();
        let expected: &[String] = if is_there { std::slice::from_ref(&at) } else { &[] };
        let found: Vec<_> = busy.iter().map(|it| it.address.to_string()).collect();
        assert_eq!((found.as_slice(), view.requests), (expected, 1));
    }
    // What is in flight at who has left is given back as ever.
    seat.end(netra_rules::Heard::Well, 5, 9);
    drop(seat);
    let view = world.table.clusters_now(&world.process, 10).remove(0);
    assert_eq!((view.requests, view.connections), (0, 0));
}

#[test]
fn a_subset_of_a_name_is_still_an_error() {
    let text =
        rules("DNS", "").replace("host: cache.test}}]}]", "host: cache.test, subset: a}}]}]");
    let found = errors(&text);
    assert!(found.len() == 1 && found[0].contains("subset"), "{found:?}");
}
