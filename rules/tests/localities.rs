//! Who is nearer, as documents say it.

mod support;

use netra_rules::{Context, Direction, Locality};
use std::collections::BTreeMap;
use support::{World, compile, errors, warnings};

/// Endpoints in three regions, and what is said of who is nearer.
fn rules(setting: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache]\n  addresses: [240.240.0.1]\n  ports: [{{number: 6379, name: tcp-redis}}]\n  \
         resolution: STATIC\n  endpoints:\n  \
         - {{address: 10.0.0.1, locality: eu/a}}\n  \
         - {{address: 10.0.0.2, labels: {{topology.kubernetes.io/region: eu, \
             topology.kubernetes.io/zone: b}}}}\n  \
         - {{address: 10.0.0.3, locality: us/a}}\n  - {{address: 10.0.0.4, locality: asia/a}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: it, \
         annotations: {{netra.io/balance-by: message}}}}\nspec:\n  host: cache\n  trafficPolicy:\n    \
         loadBalancer: {{simple: ROUND_ROBIN, localityLbSetting: {setting}}}\n{policy}---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache]\n  routes: [{{route: [{{destination: {{host: cache}}}}]}}]\n"
    )
}

const OUTLIER: &str = "    outlierDetection: {}\n";

fn at(locality: &str) -> Context {
    Context { locality: Some(Locality::parse(locality)), ..Context::default() }
}

/// How often the last byte of each address is asked, of so many messages.
fn counts(text: &str, context: &Context, messages: usize) -> BTreeMap<u8, usize> {
    let mut world = World::of(text, context);
    let mut counts = BTreeMap::new();
    for _ in 0..messages {
        let get = [("command", "GET")];
        let verdict = world.ask("redis", Direction::Outbound, "240.240.0.1:6379", &get);
        let address: std::net::SocketAddrV4 = world.endpoint(&verdict).parse().unwrap();
        *counts.entry(address.ip().octets()[3]).or_default() += 1;
    }
    counts
}

#[test]
fn the_nearest_are_asked_while_they_are_well() {
    let text = rules("{enabled: true}", OUTLIER);
    assert_eq!(counts(&text, &at("eu/a/7"), 100), [(1, 100)].into());
    assert_eq!(counts(&text, &at("eu/c"), 100), [(1, 50), (2, 50)].into());
    assert_eq!(counts(&text, &at("us"), 100), [(3, 100)].into());
    // Nobody is nearer from elsewhere, or from nowhere.
    let all = BTreeMap::from([(1, 25), (2, 25), (3, 25), (4, 25)]);
    assert_eq!(counts(&text, &at("africa"), 100), all);
    assert_eq!(counts(&text, &Context::default(), 100), all);
    let off = rules("{enabled: false}", OUTLIER);
    assert_eq!(counts(&off, &at("eu/a"), 100), all);
    let goes = rules("{failover: [{from: africa, to: asia}]}", OUTLIER);
    assert_eq!(counts(&goes, &at("africa"), 100), [(4, 100)].into());
    let words = World::of(&text, &at("eu/a")).table.clusters()[0].policy_in_words();
    assert!(words.contains("; first who is nearest to eu/a"), "{words}");
}

/// Labels decide who comes first, with one's own values or with those that the document says.
#[test]
fn those_with_the_same_labels_are_asked_first() {
    let with = |setting: &str| {
        let text = rules(setting, OUTLIER);
        let text = text.replace("10.0.0.1,", "10.0.0.1, labels: {version: v2, rack: r1},");
        text.replace("10.0.0.3,", "10.0.0.3, labels: {version: v1},")
    };
    let own = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Context { labels, ..at("eu/a") }
    };
    let text = with("{failoverPriority: [version, rack]}");
    assert_eq!(counts(&text, &own(&[("version", "v1")]), 100), [(3, 100)].into());
    assert_eq!(counts(&text, &own(&[("version", "v2"), ("rack", "r9")]), 100), [(1, 100)].into());
    let fixed = with("{failoverPriority: [version=v2]}");
    assert_eq!(counts(&fixed, &Context::default(), 100), [(1, 100)].into());
    let words = World::of(&text, &own(&[("version", "v1")])).table.clusters()[0].policy_in_words();
    assert!(words.contains("; first who has version=v1, then rack="), "{words}");
    // What labels of one's own matter is told to who can find them out.
    let wanted = |text: &str| {
        let source = netra_rules::Source { name: "it".into(), text: text.into() };
        let documents = netra_rules::Documents::read(&[source]);
        let labels: Vec<_> = documents.wanted_labels().into_iter().map(str::to_owned).collect();
        (labels, documents.wants_locality())
    };
    assert_eq!(wanted(&text), (vec!["rack".to_owned(), "version".to_owned()], false));
    assert_eq!(wanted(&fixed), (vec![], false));
    let place = "{failoverPriority: [topology.kubernetes.io/zone]}";
    assert_eq!(wanted(&with(place)), (vec![], true));
    assert_eq!(counts(&with(place), &at("us/a"), 99), [(1, 33), (3, 33), (4, 33)].into());
}

#[test]
fn parts_go_by_where_endpoints_are() {
    let distribute = "{distribute: [{from: eu/a/*, to: {eu/a: 70, eu/b: 20, us: 10}}]}";
    let text = rules(distribute, "");
    assert_eq!(counts(&text, &at("eu/a/1"), 1000), [(1, 700), (2, 200), (3, 100)].into());
    let all = BTreeMap::from([(1, 250), (2, 250), (3, 250), (4, 250)]);
    assert_eq!(counts(&text, &at("us/a"), 1000), all);
}

#[test]
fn what_cannot_be_or_has_no_effect_is_said() {
    for (setting, policy, what) in [
        ("{}", "", "localityLbSetting has no effect: without outlierDetection or a health check"),
        (
            "{}, consistentHash: {useSourceIp: true}",
            OUTLIER,
            "localityLbSetting has no effect: what is hashed",
        ),
    ] {
        let found = warnings(&rules(setting, policy).replace("simple: ROUND_ROBIN, ", ""));
        assert!(found.iter().any(|it| it.contains(what)), "{found:?}");
    }
    let both = "{failover: [{from: a, to: b}], distribute: [{from: a, to: {a: 100}}]}";
    for (setting, what) in [
        ("{distribute: [{from: a, to: {a: 70, b: 20}}]}", "parts are 90 together"),
        (both, "allowed is one of distribute and failover"),
        ("{failoverPriority: [a=b=c]}", "allowed is a label, or label=value"),
        ("{failoverPriority: [=c]}", "allowed is a label, or label=value"),
        (
            "{failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/zone]}",
            "beside failover allowed are labels that say no region",
        ),
        (
            "{distribute: [{from: a, to: {a: 100}}], failoverPriority: [a]}",
            "allowed is one of distribute and failover",
        ),
    ] {
        let found = errors(&rules(setting, OUTLIER));
        assert!(found.len() == 1 && found[0].contains(what), "{found:?}");
    }
    assert!(compile(&rules("{}", OUTLIER), &at("eu")).troubles.warnings().is_empty());
}
