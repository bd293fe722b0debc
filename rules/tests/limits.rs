//! Limits and tables at their size: shards share a limit exactly, and ten thousand routes are
//! decided about as ten are.

mod support;

use netra_rules::{Action, Context, Direction, Example, Process, Protocol, State, decide};
use std::{fmt::Write as _, sync::Arc};
use support::{World, compile};

const SECOND: u64 = 1_000_000_000;

fn limited(tokens: u32, interval: &str) -> String {
    format!(
        "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  \
         hosts: [app]\n  localRateLimit: {{tokenBucket: {{maxTokens: {tokens}, \
         tokensPerFill: {tokens}, fillInterval: {interval}}}}}\n"
    )
}

/// A minute of three times the load, nine tenths of it on one shard, and a reload each second.
#[test]
fn a_limit_is_the_authors_number_on_any_number_of_shards() {
    let context = Context { own_name: "app".into(), ..Context::default() };
    for shards in [1_usize, 2, 4] {
        for (tokens, interval, interval_ns) in
            [(1000, "1s", SECOND), (50, "100ms", SECOND / 10), (7, "10s", 10 * SECOND)]
        {
            let table = compile(&limited(tokens, interval), &context).table.unwrap();
            let mut process = Arc::new(table.process(None, 0));
            let make = |process: &Arc<Process>| -> Vec<State> {
                (0..shards).map(|_| State::new(&table, process, shards)).collect()
            };
            let mut states = make(&process);
            let mut example =
                Example::new(Protocol::from_name("redis").unwrap(), "10.0.0.1:1".parse().unwrap());
            example.direction = Direction::Inbound;
            let minute = 60 * SECOND;
            let offered = 3 * u64::from(tokens) * (minute / interval_ns);
            let (mut admitted, mut reloaded) = (0_u64, 0);
            for number in 0..offered {
                let now = minute / offered * number;
                if now / SECOND > reloaded {
                    reloaded = now / SECOND;
                    process = Arc::new(table.process(Some(&process), now));
                    states = make(&process);
                }
                let shard = if number % 10 == 0 { (number / 10) as usize % shards } else { 0 };
                let verdict = decide(&table, &example, &mut states[shard], now, 0);
                admitted += u64::from(verdict.action == Action::Pass);
            }
            let limit = u64::from(tokens) * (minute / interval_ns);
            let off = admitted.abs_diff(limit);
            assert!(
                off * 100 <= limit,
                "{admitted} of {limit}, {tokens} in {interval}, {shards} shards"
            );
        }
    }
}

/// So many routes, each for one method of one of ten interfaces.
fn routes(count: usize) -> String {
    let mut text = "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: r}\nspec:\n  \
                    hosts: [app]\n  protocol: thrift\n  ports: [9090]\n  routes:\n"
        .to_owned();
    for number in 0..count {
        writeln!(
            text,
            "  - match: {{attributes: {{service: {{exact: s{}}}, method: {{exact: m{number}}}}}}}\n    \
             route: [{{destination: {{host: app}}}}]",
            number % 10
        )
        .unwrap();
    }
    text
}

#[test]
fn ten_thousand_routes_are_found_by_what_they_ask() {
    let addresses = [("app".to_owned(), vec!["10.0.0.1".parse().unwrap()])].into();
    let mut world = World::of(&routes(10_000), &Context { addresses, ..Context::default() });
    for number in [0, 1, 77, 9_999] {
        let (service, method) = (format!("s{}", number % 10), format!("m{number}"));
        let values = [("service", &*service), ("method", &*method)];
        let verdict = world.ask("thrift", Direction::Outbound, "10.0.0.1:9090", &values);
        assert_eq!(world.rule(&verdict), format!("Router/default/r/route{number}"));
        let other = [("service", "s11"), ("method", &*method)];
        let verdict = world.ask("thrift", Direction::Outbound, "10.0.0.1:9090", &other);
        assert!(world.refusal(&verdict).is_some());
    }
    assert!(world.table.bytes() < 16 << 20, "{}", world.table.bytes());
}

/// Prefixes and exact values in one list: the first that fits decides, whatever leads to it.
#[test]
fn the_first_route_decides_however_it_is_found() {
    let tests = [
        "{prefix: abc}",
        "{exact: abcd}",
        "{prefix: a}",
        "{regex: \"ab.*\"}",
        "{exact: b}",
        "{prefix: b}",
        "{regex: \".\"}",
        "null",
    ];
    let mut spec = "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: r}\nspec:\n  \
                    hosts: [app]\n  protocol: redis\n  routes:\n"
        .to_owned();
    // Every order of two of them, so that whatever leads to one is before and behind another.
    let mut asked = Vec::new();
    for one in 0..tests.len() {
        for two in 0..tests.len() {
            let extra = format!("g{one}x{two}");
            asked.push((one, extra.clone()));
            writeln!(
                spec,
                "  - match: {{attributes: {{key: {}, database: {{exact: {extra}}}}}}}\n    \
                 route: [{{destination: {{host: app}}}}]\n  \
                 - match: {{attributes: {{key: {}}}}}\n    route: [{{destination: {{host: app}}}}]",
                tests[one], tests[two]
            )
            .unwrap();
        }
    }
    let addresses = [("app".to_owned(), vec!["10.0.0.1".parse().unwrap()])].into();
    let mut world = World::of(&spec, &Context { addresses, ..Context::default() });
    let fits = |test: usize, key: &str| match tests[test] {
        "{prefix: abc}" => key.starts_with("abc"),
        "{exact: abcd}" => key == "abcd",
        "{prefix: a}" => key.starts_with('a'),
        "{regex: \"ab.*\"}" => key.starts_with("ab"),
        "{exact: b}" => key == "b",
        "{prefix: b}" => key.starts_with('b'),
        "{regex: \".\"}" => key.len() == 1,
        _ => true,
    };
    for key in ["abcd", "abc", "ab", "a", "b", "bc", "c", "xyz", ""] {
        for (_, extra) in &asked {
            let values = [("key", key), ("database", extra)];
            let verdict = world.ask("redis", Direction::Outbound, "10.0.0.1:6379", &values);
            let expected = asked.iter().enumerate().find_map(|(pair, (one, wanted))| {
                let two = pair % tests.len();
                match (fits(*one, key) && wanted == extra, fits(two, key)) {
                    (true, _) => Some(2 * pair),
                    (false, true) => Some(2 * pair + 1),
                    _ => None,
                }
            });
            let expected = expected.map(|index| format!("Router/default/r/route{index}"));
            assert_eq!(Some(world.rule(&verdict)), expected, "{key} {extra}");
        }
    }
}

/// `cargo nextest run -p netra-rules --run-ignored all sizes`: how long it takes, in words.
#[test]
#[ignore = "a figure, not a judgement"]
fn sizes() {
    let addresses = [("app".to_owned(), vec!["10.0.0.1".parse().unwrap()])].into();
    let context = Context { addresses, ..Context::default() };
    for count in [10, 10_000] {
        let text = routes(count);
        let begun = std::time::Instant::now();
        let table = compile(&text, &context).table.unwrap();
        println!(
            "{count} routes, {} bytes: {:?}, {} bytes",
            text.len(),
            begun.elapsed(),
            table.bytes()
        );
    }
}
