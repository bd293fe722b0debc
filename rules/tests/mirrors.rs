//! Which messages have a copy, where it goes, and what is said of mirrors in vain.

mod support;

use netra_rules::{ClusterId, Direction, Example, Protocol, in_words};
use support::{World, compile, errors};

/// Services of two versions and another one, and a document of this spec.
fn rules(document: &str) -> String {
    let subsets = "{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}";
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec:\n  \
         hosts: [a]\n  addresses: [240.240.0.1]\n  ports: [{{number: 80, name: NAME}}]\n  \
         resolution: STATIC\n  endpoints:\n  - {{address: 10.0.0.1, labels: {{version: v1}}}}\n  \
         - {{address: 10.0.0.2, labels: {{version: v2}}}}\n  \
         - {{address: 10.0.0.3, labels: {{version: v2}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  \
         host: a\n  subsets: [{subsets}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: b}}\nspec:\n  \
         hosts: [b]\n  ports: [{{number: 80, name: NAME}}, {{number: 81, name: NAME-2}}]\n  \
         resolution: STATIC\n  endpoints: [{{address: 10.0.0.9}}]\n---\n{document}"
    )
}

/// A Router of HTTP, with this of its one route.
fn router(more: &str) -> String {
    let router = format!(
        "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  hosts: [a]\n  \
         routes:\n  - name: it\n    route: [{{destination: {{host: a, subset: v1}}}}]\n{more}"
    );
    rules(&router).replace("NAME", "http")
}

fn asked() -> Example {
    let mut asked = Example::new(Protocol::Http1, "240.240.0.1:80".parse().unwrap());
    asked.set("host", "a").unwrap();
    asked
}

fn cluster(world: &World, id: Option<ClusterId>) -> String {
    id.map_or(String::new(), |id| world.table.cluster(id).unwrap().name.to_string())
}

/// How many of so many messages have a copy.
fn copies(world: &mut World, of: u64) -> u64 {
    let copied = (1..=of).filter(|turn| {
        world.random = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        world.decide(&asked()).mirror.is_some()
    });
    copied.count() as u64
}

#[test]
fn a_route_says_where_copies_go_and_of_how_many() {
    for (more, to, percent, of_10_000) in [
        ("", "", "", 0..=0),
        ("    mirror: {host: a, subset: v2}\n", "a/v2", "100", 10_000..=10_000),
        ("    mirror: {host: b, port: {number: 81}}\n", "b", "100", 10_000..=10_000),
        (
            "    mirror: {host: a, subset: v2}\n    mirrorPercentage: {value: 10}\n",
            "a/v2",
            "10",
            900..=1100,
        ),
        ("    mirror: {host: b}\n    mirrorPercentage: {value: 0.5}\n", "b", "0.5", 25..=80),
        ("    mirror: {host: b}\n    mirrorPercentage: {value: 0.0001}\n", "b", "0.0001", 0..=2),
    ] {
        let mut world = World::new(&router(more));
        let verdict = world.decide(&asked());
        // Who explains has a copy of every message that may have one.
        assert_eq!(cluster(&world, verdict.mirror), to, "{more}");
        assert_eq!(world.endpoint(&verdict), "10.0.0.1:80", "{more}");
        let words = in_words(&world.table, &verdict);
        assert_eq!(words.contains("a copy goes to"), !to.is_empty(), "{words}");
        let effect = world.table.rule(verdict.rule.unwrap()).unwrap().effect.to_string();
        assert_eq!(
            effect.contains(&format!("mirrors {percent} % to ")),
            !to.is_empty(),
            "{effect}"
        );
        let found = copies(&mut world, 10_000);
        assert!(of_10_000.contains(&found), "{more}: {found} of 10,000");
    }
}

/// Copies go to all endpoints that are well, by chance, and nobody's turn changes by them.
#[test]
fn copies_change_nobodys_turn() {
    let split = "    mirror: {host: a, subset: v2}\n";
    let both = router(split).replace("{host: a, subset: v1}}]", "{host: a}}]");
    let mut world = World::new(&both);
    let mut seen = Vec::new();
    for turn in 0..300_u64 {
        world.connection = turn;
        let verdict = world.decide(&asked());
        let mirror = verdict.mirror.unwrap();
        let route = world.state.mirror(&world.table, mirror, turn.wrapping_mul(7)).unwrap();
        seen.push(world.table.endpoint(route).unwrap().address.to_string());
    }
    seen.sort_unstable();
    assert_eq!(seen.partition_point(|it| it == "10.0.0.2:80"), 150, "{seen:?}");
    assert_eq!((&*seen[0], &*seen[299]), ("10.0.0.2:80", "10.0.0.3:80"));
}

#[test]
fn what_is_refused_has_no_copy() {
    let mirror = "    mirror: {host: b}\n";
    let mut world = World::new(&router(&format!(
        "{mirror}    fault: {{abort: {{percentage: 100, httpStatus: 500}}}}\n"
    )));
    let refused = world.decide(&asked());
    assert!(world.refusal(&refused).is_some());
    assert_eq!(copies(&mut world, 100), 0);
    let elsewhere = "    match: {attributes: {path: {prefix: /x}}}\n";
    let mut world = World::new(&router(&format!("{mirror}{elsewhere}")));
    assert_eq!(world.decide(&asked()).mirror, None);
}

#[test]
fn what_is_wrong_with_a_mirror_is_said() {
    for (more, what) in [
        ("    mirror: {host: a, subset: v3}\n", "subset=\"v3\": the DestinationRule at"),
        ("    mirror: {subset: v2}\n", "mirror.host is missing"),
        ("    mirror: {host: b, weight: 3}\n", "mirror.weight is unknown"),
        ("    mirrorPercentage: {value: 10}\n", "mirrorPercentage: there is no mirror"),
        ("    mirror: {host: b}\n    mirrorPercentage: {value: 0}\n", "a number above 0"),
        ("    mirror: {host: b}\n    mirrorPercentage: {value: 101}\n", "a number above 0"),
        ("    mirror: {host: b}\n    mirrorPercentage: {}\n", "value is missing"),
    ] {
        let found = errors(&router(more));
        assert_eq!(found.len(), 1, "{more}: {found:?}");
        assert!(found[0].contains(what), "{more}: {found:?}");
    }
    let alone = "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: r}\nspec:\n  \
                 hosts: [c]\n  routes:\n  - route: [{destination: {host: c}}]\n    \
                 mirror: {host: c}\n";
    let found = errors(alone);
    assert!(found.len() == 1 && found[0].contains("would go where the messages went"), "{found:?}");
    let context = netra_rules::Context::of_sidecars("me");
    let sessions = router("    mirror: {host: b}\n")
        .replace("name: http", "name: tcp-mysql")
        .replace("subset: v1}", "port: {number: 80}}");
    let found = compile(&sessions, &context).troubles.to_string();
    assert!(found.contains("mirror: connections of mysql are sessions"), "{found}");
}

/// RedisService has a list of one, and may leave commands out that change nothing.
#[test]
fn commands_of_redis_have_copies() {
    let redis = |more: &str| {
        let service = "apiVersion: redis.aeraki.io/v1alpha1\nkind: RedisService\n\
                       metadata: {name: r}\nspec:\n  host: [a]\n  redis:\n  \
                       - match: {key: {prefix: \"u:\"}}\n    route: {host: b, port: 80}\n    mirror:\n";
        rules(&format!("{service}{more}  - route: {{host: b, port: 81}}\n"))
            .replace("NAME", "tcp-redis")
    };
    let all = "    - route: {host: b, port: 81}\n";
    let writes =
        "    - {route: {host: b, port: 81}, percentage: {value: 50}, excludeReadCommands: true}\n";
    for (more, of_get, of_set) in [(all, 400, 400), (writes, 0, 200)] {
        let mut world = World::new(&redis(more));
        for (command, key, most) in [
            ("GET", "u:1", of_get),
            ("SET", "u:1", of_set),
            ("SET", "x", 0),
            ("TTL", "u:1", of_get),
        ] {
            let copied = (1..=400_u64).filter(|turn| {
                world.random = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let values = [("command", command), ("key", key)];
                let outbound = Direction::Outbound;
                let verdict = world.ask("redis", outbound, "240.240.0.1:80", &values);
                assert_eq!(world.cluster(&verdict), "b", "{command} {key}");
                verdict.mirror.is_some()
            });
            let copied = copied.count();
            assert!(copied.abs_diff(most) <= most % 400 / 4, "{command} {key}: {copied}");
        }
    }
    let twice = errors(&redis(&format!("{all}{all}")));
    assert!(twice.len() == 1 && twice[0].contains("2 mirrors: allowed is one"), "{twice:?}");
}
