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
            "asked again up to 2 times after no byte of an answer within 250ms, or 502, 503 or 504",
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

#[test]
fn what_nobody_does_is_not_promised() {
    for (protocol, more, what) in [
        ("tcp-redis", "on: [reset]", "retry: requests of redis are never sent twice"),
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
