//! What is spoken where, as the names of ports say it.

mod support;

use netra_rules::{Context, Direction, Documents, Protocol, Source};
use std::net::IpAddr;
use support::{World, errors, warnings};

const SERVICE: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: it}
spec:
  hosts: [cache.test]
  addresses: [240.240.0.1, 10.8.0.0/16, \"fd00::1\"]
  ports:
  - {number: 6379, name: redis-cache, targetPort: 7379}
  - {number: 9090, name: tcp-metaprotocol-thrift-hello, protocol: TCP}
  - {number: 80, name: http-page}
  - {number: 1234, name: metrics}
  resolution: STATIC
  endpoints:
  - {address: 10.0.0.1, ports: {tcp-metaprotocol-thrift-hello: 9999}}
  - {address: cache-0.test}
";

fn spoken(world: &World, at: &str) -> Option<&'static str> {
    world.table.protocol(at.parse().unwrap()).map(Protocol::name)
}

#[test]
fn addresses_and_endpoints_of_a_service_speak_what_its_ports_are_named() {
    let world = World::new(SERVICE);
    for (at, expected) in [
        ("240.240.0.1:6379", Some("redis")),
        ("[::ffff:240.240.0.1]:6379", Some("redis")),
        ("[fd00::1]:9090", Some("thrift")),
        ("10.8.3.4:6379", Some("redis")),
        ("10.9.0.1:6379", None),
        ("10.8.3.4:7379", None),
        // Endpoints have ports of their own.
        ("10.0.0.1:7379", Some("redis")),
        ("10.0.0.1:6379", None),
        ("10.0.0.1:9999", Some("thrift")),
        ("10.0.0.1:80", Some("http1")),
        ("240.240.0.1:1234", None),
    ] {
        assert_eq!(spoken(&world, at), expected, "{at}");
    }
    // It takes no rule, and is no rule.
    assert!(world.table.is_empty());
    let words: Vec<_> = world.table.spoken().map(|(at, it)| format!("{at} {it}")).collect();
    assert!(words.contains(&"10.8.0.0/16:9090 thrift".to_owned()), "{words:?}");
}

#[test]
fn what_names_stand_for_speaks_it_too_and_is_no_fault_of_documents() {
    let text = SERVICE.replace("STATIC", "DNS")
        + "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: other}\n\
           spec:\n  hosts: [other.test]\n  ports: [{number: 6379, name: tcp-thrift}]\n  \
           resolution: DNS\n";
    let documents = Documents::read(&[Source { name: "it".into(), text: text.clone() }]);
    assert_eq!(documents.asked_hosts(), ["other.test"]);
    let ip = |text: &str| -> Vec<IpAddr> { vec![text.parse().unwrap()] };
    let addresses = [
        ("cache-0.test".to_owned(), ip("10.0.0.2")),
        // The name server has the address of somebody else.
        ("other.test".to_owned(), [ip("10.0.0.3"), ip("240.240.0.1")].concat()),
    ];
    let context = Context { addresses: addresses.into(), ..Context::default() };
    let world = World::of(&text, &context);
    assert_eq!(spoken(&world, "10.0.0.2:7379"), Some("redis"));
    assert_eq!(spoken(&world, "10.0.0.3:6379"), Some("thrift"));
    assert_eq!(spoken(&world, "240.240.0.1:6379"), Some("redis"));
}

#[test]
fn names_of_nobody_are_warned_of_and_two_for_one_place_are_an_error() {
    let found =
        warnings(&SERVICE.replace("tcp-metaprotocol-thrift-hello, ", "tcp-metaprotocol-qza, "));
    let what = "rules.yaml:9:5: the name of the port says \"qza\", of which nothing is known, and it \
                is not read: known are http1, redis";
    assert!(found.iter().any(|it| it.starts_with(what)), "{found:?}");
    let other =
        SERVICE.replace("redis-cache", "tcp-thrift").replace("{name: it}", "{name: second}");
    let found = errors(&format!("{SERVICE}---\n{other}"));
    let what = "thrift is spoken at 240.240.0.1:6379, where another document has redis";
    assert!(found.iter().any(|it| it.contains(what)), "{found:?}");
    // Two that agree are none.
    let same = SERVICE.replace("{name: it}", "{name: second}");
    let _ = World::new(&format!("{SERVICE}---\n{same}"));
}

/// Which connections need not be dialled before they say something, and which documents may act where.
#[test]
fn addresses_of_hosts_with_routes_elsewhere_may_lead_there() {
    let elsewhere = World::new(&format!(
        "{SERVICE}---\napiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  \
         hosts: [cache.test]\n  routes: [{{route: [{{destination: {{host: cache.test}}}}]}}]\n"
    ));
    let stays = World::new(SERVICE);
    let (redis, thrift, http) = ("redis", "thrift", "http1");
    for (at, protocol, leads) in [
        ("240.240.0.1:6379", redis, true),
        ("[::ffff:240.240.0.1]:6379", redis, true),
        ("10.8.3.4:6379", redis, true),
        ("10.0.0.1:9999", thrift, true),
        // Routes of HTTP are found by name, and its addresses count all the same.
        ("240.240.0.1:80", http, true),
        ("10.8.3.4:80", http, true),
        ("10.9.0.1:80", http, false),
        ("10.9.0.1:6379", redis, false),
        ("240.240.0.1:6380", redis, false),
    ] {
        let at = at.parse().unwrap();
        let protocol = Context::default().protocol(protocol).unwrap();
        assert_eq!(elsewhere.table.leads(at, protocol), leads, "{at} {protocol}");
        assert!(!stays.table.leads(at, protocol), "{at} {protocol}: nothing leads elsewhere");
        let acts = netra_rules::may_act(&elsewhere.table, Direction::Outbound, at, protocol);
        let acts: Vec<_> = acts.iter().map(|rule| &*rule.name).collect();
        let wanted =
            if leads || protocol.name() == http { vec!["Router/default/r"] } else { vec![] };
        assert_eq!(acts, wanted, "{at} {protocol}");
        let inbound = netra_rules::may_act(&elsewhere.table, Direction::Inbound, at, protocol);
        assert!(inbound.is_empty(), "{at}: routes are of calls of the application");
    }
}
