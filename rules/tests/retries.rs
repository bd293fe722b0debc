//! What may be asked again, and of whom that is said in vain.

mod support;

use netra_codecs::tap;
use netra_rules::{Direction, Example, Protocol, in_words};
use support::{World, errors};

/// A Router of an HTTP host, with this of its one route.
fn router(protocol: &str, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec:\n  \
         hosts: [a]\n  addresses: [240.240.0.1]\n  ports: [{{number: 80, name: {protocol}}}]\n  \
         resolution: STATIC\n  endpoints: [{{address: 10.0.0.1}}, {{address: 10.0.0.2}}]\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  hosts: [a]\n  \
         routes: [{{name: it, route: [{{destination: {{host: a}}}}]{more}}}]\n"
    )
}

#[test]
fn a_route_says_how_often_a_request_is_asked_again() {
    for (more, attempts, effect) in [
        ("", 0, ""),
        (", retry: {on: [reset]}", 2, "asked again up to 2 times"),
        (", retry: {on: [reset], attempts: 1}", 1, "asked again once after a reset"),
        (
            ", retry: {on: [timeout, gateway-error], perTryTimeout: 250ms}",
            2,
            "asked again up to 2 times after no byte of an answer within 250ms, or a gateway error",
        ),
        (", retry: {on: []}", 0, ""),
    ] {
        let mut world = World::new(&router("http", more));
        let to = "240.240.0.1:80".parse().unwrap();
        let mut asked = Example::new(Protocol::Http1, to);
        asked.set("host", "a").unwrap();
        let verdict = world.decide(&asked);
        assert_eq!(verdict.retry.attempts, attempts, "{more}");
        let rule = world.table.rule(verdict.rule.unwrap()).unwrap();
        assert!(rule.effect.contains(effect), "{}", rule.effect);
        assert_eq!(rule.effect.contains("asked again"), attempts > 0, "{}", rule.effect);
        let words = in_words(&world.table, &verdict);
        assert_eq!(words.contains("if it is safe to repeat"), attempts > 0, "{words}");
        let withholds = more.contains("gateway-error");
        assert_eq!(world.table.withholds_answers(), withholds, "{more}");
        for protocol in [Protocol::Http1, Protocol::Of(tap::Protocol::Redis)] {
            let concern = world.table.concern(Direction::Outbound, to, protocol);
            let is_http = protocol == Protocol::Http1;
            let found = concern.is_some_and(|it| it.withholds_responses);
            assert_eq!(found, withholds && is_http, "{more}");
        }
    }
}

/// Of what a route names; of which operations only read is the codec's to say.
#[test]
fn operations_that_are_named_may_be_asked_again() {
    let operations = "operations: [getPrice, \"find*\"]";
    for (protocol, more, attribute, values) in [
        (
            "dubbo",
            operations,
            "method",
            [("getPrice", true), ("findAll", true), ("setPrice", false)],
        ),
        (
            "redis",
            "operations: [get, \"h*\"]",
            "command",
            [("GET", true), ("HGET", true), ("TTL", false)],
        ),
        ("http", "operations: [GET]", "method", [("GET", true), ("HEAD", false), ("gET", false)]),
    ] {
        let name = if protocol == "http" { "http".to_owned() } else { format!("tcp-{protocol}") };
        let asked_of = if protocol == "http" { "http1" } else { protocol };
        let documents = router(&name, &format!(", retry: {{on: [reset], {more}}}")).replace(
            "hosts: [a]\n  routes",
            &format!("hosts: [a]\n  protocol: {asked_of}\n  routes"),
        );
        let mut world = World::new(&documents);
        let known = Protocol::from_name(asked_of).unwrap();
        for (value, is_named) in values {
            let mut asked = Example::new(known, "240.240.0.1:80".parse().unwrap());
            asked.set(attribute, value).unwrap();
            match protocol {
                "http" => asked.set("host", "a").unwrap(),
                "dubbo" => asked.set("interface", "a").unwrap(),
                _ => {}
            }
            let retry = world.decide(&asked).retry;
            assert_eq!((retry.attempts > 0, retry.is_named), (is_named, is_named), "{value}");
        }
        let rule = world.table.rules().iter().find(|it| it.name.ends_with("/it")).unwrap();
        assert!(rule.effect.contains("of operations only"), "{}", rule.effect);
    }
}

#[test]
fn other_protocols_ask_again_after_a_while_too() {
    let more = ", retry: {on: [reset, timeout], perTryTimeout: 80ms}";
    let mut world = World::new(&router("tcp-redis", more));
    let mut asked =
        Example::new(Protocol::from_name("redis").unwrap(), "240.240.0.1:80".parse().unwrap());
    asked.set("command", "GET").unwrap();
    asked.set("key", "a").unwrap();
    assert_eq!(world.decide(&asked).retry.per_try_ns(), Some(80_000_000));
}

#[test]
fn what_nobody_does_is_not_promised() {
    for (protocol, more, what) in [
        ("tcp-redis", "on: [gateway-error]", "acts with `reset` alone"),
        ("tcp-memcached", "on: [reset, gateway-error]", "do not say that a server cannot serve"),
        ("tcp-redis", "on: [timeout], perTryTimeout: 1s", "acts with `reset` alone"),
        ("tcp-dubbo", "on: [reset]", "what operations of dubbo change nobody knows"),
        ("tcp-dubbo", "on: [reset], operations: [\"a*b\"]", "allowed is a name, or its beginning"),
        ("http", "on: [timeout]", "need each other"),
        ("http", "on: [reset], perTryTimeout: 1s", "need each other"),
        ("http", "on: [never]", "allowed is"),
        ("http", "on: [reset], attempts: 3", "allowed is"),
        ("http", "attempts: 1", "retry.on is missing"),
    ] {
        let found = errors(&router(protocol, &format!(", retry: {{{more}}}")));
        assert_eq!(found.len(), 1, "{more}: {found:?}");
        assert!(found[0].contains(what), "{more}: {found:?}");
    }
}
