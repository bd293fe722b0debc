//! The documents that users of Aeraki and Istio have: what is decided by them, and the traps that
//! they are known for.

mod support;

use netra_rules::{Action, Context, Direction, Protocol, RefusalKind};
use support::{World, errors, warnings};

const DEMO: &str = "org.apache.dubbo.samples.basic.api.demoservice";

/// A service with two versions, and the rule that tells them apart.
const SERVICE: &str = r#"
apiVersion: networking.istio.io/v1alpha3
kind: ServiceEntry
metadata:
  name: demo
  namespace: meta-dubbo
  annotations: {interface: org.apache.dubbo.samples.basic.api.DemoService}
spec:
  hosts: [org.apache.dubbo.samples.basic.api.demoservice]
  addresses: [240.240.0.20]
  ports:
  - {number: 20880, name: tcp-metaprotocol-dubbo, protocol: TCP}
  resolution: STATIC
  endpoints:
  - {address: 10.0.0.1, labels: {version: v1}}
  - {address: 10.0.0.2, labels: {version: v2}, ports: {tcp-metaprotocol-dubbo: 20881}}
  - {address: 10.0.0.3, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: demo, namespace: meta-dubbo}
spec:
  host: org.apache.dubbo.samples.basic.api.demoservice
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
"#;

/// A MetaRouter for it with this spec.
fn router(spec: &str) -> String {
    format!(
        "{SERVICE}apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\n\
         metadata: {{name: demo, namespace: meta-dubbo}}\nspec:\n  hosts: [{DEMO}]\n{spec}"
    )
}

const FOO_BAR: &str = "
    match:
      attributes:
        interface: {exact: org.apache.dubbo.samples.basic.api.DemoService}
        method: {exact: sayHello}
        foo: {exact: bar}
";
const CALL: [(&str, &str); 3] = [
    ("interface", "org.apache.dubbo.samples.basic.api.DemoService"),
    ("method", "sayHello"),
    ("foo", "bar"),
];

#[test]
fn an_attachment_goes_to_its_version_and_all_else_has_no_route() {
    let mut world = World::new(&router(&format!(
        "  routes:\n  - name: v1{FOO_BAR}\
         \x20   route: [{{destination: {{host: {DEMO}, subset: v1}}}}]\n"
    )));
    let canary = world.dubbo("240.240.0.20:20880", &CALL);
    assert_eq!(world.cluster(&canary), format!("{DEMO}/v1"));
    assert_eq!(world.endpoint(&canary), "10.0.0.1:20880");
    // A registry names endpoints themselves; and the interface alone leads there, too.
    for to in ["10.0.0.3:20880", "1.2.3.4:5"] {
        let other = world.dubbo(to, &CALL);
        assert_eq!(world.endpoint(&other), "10.0.0.1:20880", "{to}");
    }
    let plain = world.dubbo("240.240.0.20:20880", &CALL[..2]);
    assert_eq!(world.refusal(&plain), Some(RefusalKind::NoRoute));
    assert_eq!(world.text(&plain), format!("netra: no route (MetaRouter/meta-dubbo/demo)"));
    let mut elsewhere = CALL;
    elsewhere[0].1 = "com.example.Other";
    let elsewhere = world.dubbo("10.9.9.9:20880", &elsewhere);
    assert_eq!((elsewhere.action, elsewhere.rule), (Action::Pass, None));
}

#[test]
fn weights_are_exact() {
    let mut world = World::new(&router(&format!(
        "  routes:\n  - name: v1{FOO_BAR}\
         \x20   route:\n    - {{destination: {{host: {DEMO}, subset: v1}}, weight: 20}}\n\
         \x20   - {{destination: {{host: {DEMO}, subset: v2}}, weight: 80}}\n"
    )));
    let mut first = 0;
    for number in 1..=1000 {
        let verdict = world.dubbo("240.240.0.20:20880", &CALL);
        first += usize::from(world.cluster(&verdict).ends_with("/v1"));
        assert!(first.abs_diff(number / 5) <= 1, "{first} of {number}");
    }
    assert_eq!(first, 200);
}

#[test]
fn mutations_are_for_every_message_where_nothing_is_asked() {
    let mut world = World::new(&router(&format!(
        "  routes:\n  - requestMutation: [{{key: foo, value: bar}}, {{key: foo1, value: bar1}}]\n\
         \x20   responseMutation: [{{key: seen, value: \"1\"}}]\n\
         \x20   route: [{{destination: {{host: {DEMO}}}}}]\n"
    )));
    let verdict = world.dubbo("240.240.0.20:20880", &CALL[..2]);
    let given = |id| {
        let given = world.table.mutations(id).iter();
        given
            .map(|it| {
                format!(
                    "{}={}",
                    it.name,
                    String::from_utf8_lossy(it.value.as_deref().unwrap_or_default())
                )
            })
            .collect()
    };
    let (request, response): (Vec<_>, Vec<_>) =
        (given(verdict.request.unwrap()), given(verdict.response.unwrap()));
    assert_eq!(request, ["foo=bar", "foo1=bar1"]);
    assert_eq!(response, ["seen=1"]);
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_condition_takes_its_own_bucket_and_the_rest_the_other() {
    let mut world = World::new(&router(&format!(
        "  localRateLimit:\n    tokenBucket: {{maxTokens: 10, tokensPerFill: 10, fillInterval: 60s}}\n\
         \x20   conditions:\n    - match: {{attributes: {{method: {{exact: sayHello}}}}}}\n\
         \x20     tokenBucket: {{maxTokens: 2, tokensPerFill: 2, fillInterval: 10s}}\n\
         \x20 routes:\n  - name: v1\n    route: [{{destination: {{host: {DEMO}, subset: v1}}}}]\n"
    )));
    let hello = CALL;
    let mut other = CALL;
    other[1].1 = "sayBye";
    let admitted = |world: &mut World, values: &[(&str, &str)], count: usize| {
        let verdicts = (0..count).map(|_| world.dubbo_in("10.0.0.1:20880", values));
        verdicts.filter(|verdict| verdict.action == Action::Pass).count()
    };
    assert_eq!(admitted(&mut world, &hello, 5), 2);
    assert_eq!(admitted(&mut world, &other, 50), 10);
    world.now_ns = 10 * SECOND;
    assert_eq!(admitted(&mut world, &hello, 5), 2);
    assert_eq!(admitted(&mut world, &other, 5), 0);
    world.now_ns = 60 * SECOND;
    assert_eq!(admitted(&mut world, &other, 50), 10);
    // Limits are of calls to the service, routes of calls of the application.
    let verdict = world.dubbo("240.240.0.20:20880", &CALL);
    assert_eq!(world.endpoint(&verdict), "10.0.0.1:20880");
}

#[test]
fn without_a_bucket_for_the_rest_the_rest_is_free_and_without_routes_all_passes() {
    let mut world = World::new(&router(
        "  localRateLimit:\n    conditions:\n    - match: {attributes: {method: {exact: sayHello}}}\n\
         \x20     tokenBucket: {maxTokens: 1, tokensPerFill: 1, fillInterval: 10s}\n",
    ));
    let mut other = CALL;
    other[1].1 = "sayBye";
    for _ in 0..100 {
        assert_eq!(world.dubbo_in("10.0.0.1:20880", &other).action, Action::Pass);
    }
    assert_eq!(world.dubbo_in("10.0.0.1:20880", &CALL).action, Action::Pass);
    let refused = world.dubbo_in("10.0.0.1:20880", &CALL);
    assert_eq!(world.refusal(&refused), Some(RefusalKind::Limited));
    let text = "netra: limit reached (MetaRouter/meta-dubbo/demo/limit0)";
    assert_eq!(world.text(&refused), text);
    assert_eq!(world.dubbo("240.240.0.20:20880", &CALL).action, Action::Pass);
    assert!(world.concern(Direction::Outbound, "240.240.0.20:20880").is_none());
    assert!(world.concern(Direction::Inbound, "10.0.0.1:20880").is_some());
}

#[test]
fn the_same_value_goes_to_the_same_endpoint() {
    let hashed = SERVICE.replace(
        "  subsets:",
        "  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: method}}}\n  subsets:",
    );
    let spec = format!("  routes: [{{route: [{{destination: {{host: {DEMO}}}}}]}}]\n");
    let mut world = World::new(&router(&spec).replace(SERVICE, &hashed));
    let mut counts = [0; 3];
    for number in 0..300 {
        let method = format!("method{number}");
        let mut values = CALL;
        values[1].1 = &method;
        let first = world.dubbo("240.240.0.20:20880", &values);
        world.connection += 1;
        let second = world.dubbo("240.240.0.20:20880", &values);
        assert_eq!(world.endpoint(&first), world.endpoint(&second));
        let last = world.endpoint(&first).as_bytes()[7];
        counts[usize::from(last - b'1')] += 1;
    }
    assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
}

#[test]
fn connections_are_spread_over_endpoints_and_keep_them() {
    let mut world = World::new(&router(&format!(
        "  routes: [{{route: [{{destination: {{host: {DEMO}, subset: v2}}}}]}}]\n"
    )));
    let mut counts = std::collections::BTreeMap::new();
    for connection in 0..1000 {
        world.connection = connection << 32 | 7;
        let verdicts = [(); 3].map(|()| world.dubbo("240.240.0.20:20880", &CALL));
        let endpoints = verdicts.map(|verdict| world.endpoint(&verdict));
        assert!(endpoints.iter().all(|endpoint| *endpoint == endpoints[0]));
        *counts.entry(endpoints[0].clone()).or_insert(0) += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["10.0.0.2:20881", "10.0.0.3:20880"]);
    assert!(counts.values().all(|count| (440..560).contains(count)), "{counts:?}");
}

#[test]
fn tests_of_values_are_what_upstream_says() {
    let rows = [
        ("{exact: sayHello}", "sayHello", "sayhello"),
        ("{prefix: say}", "sayHello", "xsay"),
        ("{regex: \"^s.*o$\"}", "sayHello", "sayHello2"),
        ("{regex: \"1|2\"}", "2", "12"),
    ];
    for (test, good, bad) in rows {
        let mut world = World::new(&router(&format!(
            "  routes:\n  - match: {{attributes: {{METHOD: {test}}}}}\n    \
             route: [{{destination: {{host: {DEMO}, subset: v1}}}}]\n"
        )));
        for (value, expected) in [(good, true), (bad, false)] {
            let mut values = CALL;
            values[1].1 = value;
            let verdict = world.dubbo("240.240.0.20:20880", &values);
            assert_eq!(matches!(verdict.action, Action::Route(_)), expected, "{test} {value}");
        }
    }
}

/// Upstream drops such conditions in silence, which widens the rule, or rejects them.
#[test]
fn presence_is_asked_for_in_any_of_its_ways() {
    for test in ["null", "", "{}", "{regex: \"*\"}", "{regex: \".*\"}", "{exact: null}"] {
        let mut world = World::new(&router(&format!(
            "  routes:\n  - match:\n      attributes:\n        foo: {test}\n    \
             route: [{{destination: {{host: {DEMO}, subset: v1}}}}]\n"
        )));
        let verdict = world.dubbo("240.240.0.20:20880", &CALL);
        assert_eq!(world.endpoint(&verdict), "10.0.0.1:20880", "{test:?}");
        let without = world.dubbo("240.240.0.20:20880", &CALL[..2]);
        assert_eq!(world.refusal(&without), Some(RefusalKind::NoRoute), "{test:?}");
    }
}

#[test]
fn the_interface_has_a_case_and_the_host_has_none() {
    let mut world = World::new(&router(&format!(
        "  routes: [{{route: [{{destination: {{host: {DEMO}, subset: v1}}}}]}}]\n"
    )));
    let verdict = world.dubbo("9.9.9.9:1", &CALL);
    assert_eq!(world.endpoint(&verdict), "10.0.0.1:20880");
    assert_eq!(
        world.table.protocol("240.240.0.20:20880".parse().unwrap()),
        Protocol::from_name("dubbo")
    );
    assert_eq!(
        world.table.protocol("10.0.0.2:20881".parse().unwrap()),
        Protocol::from_name("dubbo")
    );
    assert_eq!(world.table.protocol("240.240.0.20:20881".parse().unwrap()), None);
}

#[test]
fn what_comes_with_legs_is_refused_with_its_place() {
    for (spec, place, what) in [
        (
            "  globalRateLimit: {domain: a}\n".into(),
            "33:3",
            "MetaRouter.spec.globalRateLimit: a limit",
        ),
        (
            format!("  routes:\n  - route: [{{destination: {{host: {DEMO}}}}}]\n    retry: {{}}\n"),
            "35:5",
            "MetaRouter.spec.routes[0].retry is unknown",
        ),
    ] {
        let found = errors(&router(&spec));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(&format!("rules.yaml:{place}: {what}")), "{found:?}");
    }
    let outlier = SERVICE
        .replace("  subsets:", "  trafficPolicy:\n    tunnel: {protocol: CONNECT}\n  subsets:");
    let found = errors(&outlier);
    let expected = "rules.yaml:25:5: DestinationRule.spec.trafficPolicy.tunnel: not in";
    assert!(found[0].starts_with(expected), "{found:?}");
}

/// What a DestinationRule says, as `netra rules check` does.
#[test]
fn a_traffic_policy_says_what_is_done_with_endpoints() {
    let to_v2 = format!("  routes: [{{route: [{{destination: {{host: {DEMO}, subset: v2}}}}]}}]\n");
    let said = |annotations: &str, policy: &str| {
        let text = router(&to_v2)
            .replace("  subsets:", &format!("  trafficPolicy:\n{policy}  subsets:"))
            .replace(
                "kind: DestinationRule\nmetadata: {",
                &format!("kind: DestinationRule\nmetadata: {{{annotations}"),
            );
        World::new(&text).table.clusters()[0].policy_in_words()
    };
    for (annotations, policy, expected) in [
        ("", "    tls: {mode: DISABLE}\n", "each connection to the less busy of two"),
        ("", "    loadBalancer: {simple: ROUND_ROBIN}\n", "each connection to the next"),
        (
            "annotations: {netra.io/balance-by: message}, ",
            "    loadBalancer: {simple: RANDOM}\n",
            "each message by chance",
        ),
        (
            "annotations: {netra.io/balancer: peak-ewma}, ",
            "    loadBalancer: {warmup: {duration: 30s, minimumPercent: 20}}\n",
            "each connection to the quicker of two; new ones begin with 20 % and have all after 30s",
        ),
        (
            "annotations: {netra.io/hash-balance-factor: \"125\"}, ",
            "    loadBalancer: {consistentHash: {httpHeaderName: method, ringHash: {}}}\n",
            "by hash, none with more than 125 % of the mean",
        ),
        (
            "",
            "    connectionPool: {tcp: {maxConnections: 100, connectTimeout: 1s}, http: \
             {http1MaxPendingRequests: 10, http2MaxRequests: 50, maxRetries: 7}}\n    \
             retryBudget: {percent: 30, minRetryConcurrency: 2}\n",
            "each connection to the less busy of two; at most 100 connections; at most 10 \
             connections that are not there yet; at most 50 messages without an answer; a dial \
             takes at most 1s; tries again 30 %, at least 2, at most 7",
        ),
        (
            "",
            "    outlierDetection: {consecutiveGatewayErrors: 3, baseEjectionTime: 1m, \
             maxEjectionPercent: 50}\n",
            "each connection to the less busy of two; ejects who has 5 faults or 3 faults behind it \
             in a row, for 60s the first time, at most 50 %",
        ),
        (
            "annotations: {netra.io/health-check: http, netra.io/health-check-path: /healthz, \
             netra.io/health-check-interval: 2s, netra.io/health-check-unhealthy: \"2\"}, ",
            "    tls: {mode: DISABLE}\n",
            "each connection to the less busy of two; asks each for GET /healthz every 2s (1s at \
             most): out after 2 bad answers in a row, in after 2 good ones",
        ),
        (
            "annotations: {netra.io/success-rate-stdev-factor: \"2.5\", \
             netra.io/success-rate-request-volume: \"50\"}, ",
            "    outlierDetection: {consecutive5xxErrors: 7}\n",
            "each connection to the less busy of two; ejects who has 7 faults in a row, for 30s the \
             first time, at most 10 %; ejects whose success rate is 2.5 deviations below the mean of \
             5 or more with 50 messages in an interval",
        ),
        (
            "",
            "    outlierDetection: {consecutive5xxErrors: 0}\n",
            "each connection to the less busy of two; ejects nobody",
        ),
    ] {
        assert_eq!(said(annotations, policy), expected, "{policy}");
    }
}

#[test]
fn annotations_that_are_wrong_say_what_is_allowed() {
    let to_v2 = format!("  routes: [{{route: [{{destination: {{host: {DEMO}, subset: v2}}}}]}}]\n");
    for (annotation, what) in [
        ("balance-by: luck", "annotation netra.io/balance-by=\"luck\": allowed are"),
        ("success-rate-stdev-factor: \"0\"", "annotation netra.io/success-rate-stdev-factor=\"0\""),
        ("success-rate: \"1\"", "annotation netra.io/success-rate=\"1\""),
        ("health-check: mysql", "allowed are netra.io/balancer with"),
        ("health-check-interval: 10ms", "annotation netra.io/health-check-interval=\"10ms\""),
        ("health-check-sleep: 10s", "annotation netra.io/health-check-sleep=\"10s\""),
        ("health-check-interval: 10s", "nothing is checked where netra.io/health-check does not"),
        ("health-check: http", "netra.io/health-check-path goes with netra.io/health-check: http"),
    ] {
        let wrong = router(&to_v2).replace(
            "kind: DestinationRule\nmetadata: {",
            &format!("kind: DestinationRule\nmetadata: {{annotations: {{netra.io/{annotation}}}, "),
        );
        let found = errors(&wrong);
        assert!(found.len() == 1 && found[0].contains(what), "{annotation}: {found:?}");
    }
}

#[test]
fn all_that_is_wrong_is_in_one_list() {
    let to = format!("route: [{{destination: {{host: {DEMO}}}}}]");
    let found = errors(&router(&format!(
        r#"  routes:
  - {to}
    match: {{attributes: {{method: {{regex: "("}}, key: {{exact: 1}}}}}}
  - route:
    - {{destination: {{host: {DEMO}, subset: v3}}, weight: 20}}
    - {{destination: {{host: other, subset: v1}}, weight: 90}}
  - route: [{{destination: {{host: {DEMO}}}}}, {{destination: {{host: {DEMO}}}}}]
  - route: []
  - rout: []
  localRateLimit: {{tokenBucket: {{maxTokens: 0, fillInterval: 10ms}}}}
"#
    )));
    for expected in [
        "35:26: regex=\"(\" is none of RE2: unclosed group",
        "35:61: MetaRouter.spec.routes[0].match.attributes.key.exact=\"1\": allowed is one of",
        "37:7: weights are 110 together: allowed is 100",
        "37:21: subset=\"v3\": the DestinationRule at rules.yaml:19:1 has v1, v2",
        "38:21: subset=\"v1\": the host \"other\" has no DestinationRule",
        "39:12: several destinations, and not all have a weight",
        "40:12: no destination: allowed is one or several",
        "41:5: MetaRouter.spec.routes[4].rout is unknown: allowed is name, match, route",
        "41:5: MetaRouter.spec.routes[4].route is missing",
        "localRateLimit.tokenBucket.maxTokens=\"0\": allowed is a whole number from 1 to",
        "localRateLimit.tokenBucket.fillInterval=\"10ms\": allowed is a time such as 10s",
    ] {
        let is_there = found.iter().any(|it| it.contains(expected));
        assert!(is_there, "{expected} is not in {found:#?}");
    }
    assert_eq!(found.len(), 11, "{found:#?}");
}

#[test]
fn one_host_has_one_router() {
    let one = router("");
    let two = router("").replace("name: demo", "name: demo2");
    let found = errors(&format!("{one}---\n{}", two.split("---\n").last().unwrap()));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("has rules at rules.yaml:28:1, too"), "{found:?}");
}

#[test]
fn keys_that_a_protocol_lacks_are_errors() {
    let redis = "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: r}\n\
                 spec:\n  hosts: [cache]\n  protocol: redis\n  routes:\n  \
                 - match: {attributes: {method: {exact: a}}}\n    \
                 route: [{destination: {host: cache}}]\n";
    let found = errors(redis);
    let expected =
        "rules.yaml:8:26: no attribute \"method\": redis has key, database, operation, command";
    assert_eq!(found, [expected]);
    let sessions = redis.replace("redis", "mysql").replace("method", "database");
    assert!(errors(&sessions)[0].contains("its connections are sessions"));
    let found = errors(&redis.replace("protocol: redis", "protocol: rediss"));
    assert!(found[0].contains("6:13: the protocol \"rediss\" is unknown"), "{found:?}");
}

#[test]
fn warnings_say_what_has_no_effect() {
    let spec =
        "  exportTo: [\".\"]\n  localRateLimit: {tokenBucket: {maxTokens: 5, fillInterval: 1s}}\n";
    let found = warnings(&router(spec));
    assert!(found[0].contains("33:3: MetaRouter.spec.exportTo: has no effect"), "{found:?}");
    assert!(found[1].contains("tokensPerFill is missing: one token"), "{found:?}");
    let gateways = warnings(&router("  gateways: [istio-system/gateway]\n"));
    assert!(gateways[0].contains("for gateways alone"), "{gateways:?}");
    let behind = format!(
        "  routes:\n  - route: [{{destination: {{host: {DEMO}}}}}]\n  \
                          - name: late\n    route: [{{destination: {{host: {DEMO}}}}}]\n"
    );
    let found = warnings(&router(&behind));
    assert!(found[0].contains("35:5: no message comes here"), "{found:?}");
}

#[test]
fn a_protocol_of_another_name_has_its_codec() {
    let named = SERVICE.replace("tcp-metaprotocol-dubbo", "tcp-metaprotocol-mine");
    let protocol = "apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: ApplicationProtocol\n\
                    metadata: {name: mine}\nspec: {protocol: mine, codec: aeraki.meta_protocol.codec.dubbo}\n";
    let world = World::new(&format!("{named}{protocol}"));
    assert_eq!(
        world.table.protocol("240.240.0.20:20880".parse().unwrap()),
        Protocol::from_name("dubbo")
    );
    let found = warnings(&named);
    assert!(found[0].contains("the name of the port says \"mine\", of which nothing"), "{found:?}");
    let unknown = protocol.replace("codec.dubbo", "codec.qza");
    let found = errors(&unknown);
    assert!(
        found[0].contains("4:31: codec=\"qza\" of the protocol \"mine\" is unknown"),
        "{found:?}"
    );
}

/// Of prefixes the longest decides, whatever their order; commands without a key go where the entry
/// without a match sends them.
#[test]
fn keys_of_redis_go_by_their_longest_prefix() {
    let text = "apiVersion: redis.aeraki.io/v1alpha1\nkind: RedisService\nmetadata: {name: cache}\n\
                spec:\n  host: [cache]\n  settings: {caseInsensitive: true}\n  redis:\n  \
                - match: {key: {prefix: \"user:\"}}\n    route: {host: users, port: 6380}\n  \
                - route: {host: rest, port: 6381}\n  \
                - match: {key: {prefix: \"user:vip:\"}}\n    route: {host: vips, port: 6382}\n";
    let addresses = [("cache".to_owned(), vec!["10.0.0.1".parse().unwrap()])].into();
    let context = Context { addresses, ..Context::default() };
    let mut world = World::of(text, &context);
    for (key, endpoint) in [
        ("user:1", "users:6380"),
        ("User:VIP:1", "vips:6382"),
        ("user:vi", "users:6380"),
        ("use", "rest:6381"),
    ] {
        let values = [("command", "GET"), ("key", key)];
        let verdict = world.ask("redis", Direction::Outbound, "10.0.0.1:6379", &values);
        assert_eq!(world.endpoint(&verdict), endpoint, "{key}");
    }
    let ping = world.ask("redis", Direction::Outbound, "10.0.0.1:6379", &[("command", "PING")]);
    assert_eq!(world.endpoint(&ping), "rest:6381");
    let other = world.ask("thrift", Direction::Outbound, "10.0.0.1:6379", &[("method", "a")]);
    assert_eq!((other.action, other.rule), (Action::Pass, None));
    let twice = text.replace("user:vip:", "user:");
    assert!(errors(&twice)[0].contains("the same commands as RedisService/default/cache/redis0"));
    for (field, why) in [
        ("prefix: \"user:\"", "prefix: \"user:\", removePrefix: true"),
        ("port: 6380}", "port: 6380}\n    mirror: [{}]"),
        ("{caseInsensitive: true}", "{auth: {plain: {password: x}}}"),
        ("{caseInsensitive: true}", "{readPolicy: ANY}"),
    ] {
        assert_eq!(errors(&text.replacen(field, why, 1)).len(), 1, "{why}");
    }
}

/// What this version cannot do is said at the field's place, for whoever can do as much.
#[test]
fn what_nobody_obeys_is_refused() {
    let dubbo = Protocol::from_name("dubbo").unwrap();
    let to = format!("  routes:\n  - route: [{{destination: {{host: {DEMO}, subset: v1}}}}]\n");
    let pinned = Context { pinned: vec![dubbo], ..Context::default() };
    let found = support::compile(&router(&to), &pinned).troubles;
    let expected = "34:27: routes of dubbo lead to the original destination alone";
    assert!(found.errors()[0].to_string().contains(expected), "{found}");
    let own = to.replace(", subset: v1", "");
    assert!(support::compile(&router(&own), &pinned).troubles.is_good());
    let timed = |more: &str| {
        format!(
            "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: r}}\nspec:\n  \
             hosts: [a]\n{more}  timeout: {{firstByte: 1s}}\n  \
             routes: [{{route: [{{destination: {{host: a}}}}]}}]\n"
        )
    };
    let found = errors(&timed("  protocol: mqtt\n")).join("\n");
    assert!(found.contains("8:12: timeout: nobody can tell what mqtt answers to what"), "{found}");
    assert!(errors(&timed("")).is_empty());
}

/// An authorization that cannot see what it asks about never lets anybody in by that.
#[test]
fn what_cannot_be_seen_counts_against_the_asker() {
    let text = |action: &str| {
        format!(
            "apiVersion: dubbo.aeraki.io/v1alpha1\nkind: DubboAuthorizationPolicy\n\
             metadata: {{name: a}}\nspec:\n  action: {action}\n  rules:\n  \
             - to: [{{operation: {{notMethods: [sayHello]}}}}]\n"
        )
    };
    for (action, hello, other, none) in
        [("DENY", true, false, false), ("ALLOW", false, true, false)]
    {
        let mut world = World::new(&text(action));
        let mut may = |values: &[(&str, &str)]| {
            world.dubbo_in("10.0.0.1:20880", values).action == Action::Pass
        };
        assert_eq!(may(&[("method", "sayHello")]), hello, "{action}");
        assert_eq!(may(&[("method", "sayBye")]), other, "{action}");
        assert_eq!(may(&[]), none, "{action}");
    }
    let empty = "apiVersion: dubbo.aeraki.io/v1alpha1\nkind: DubboAuthorizationPolicy\n\
                 metadata: {name: a}\nspec: {}\n";
    let mut world = World::new(empty);
    let refused = world.dubbo_in("10.0.0.1:20880", &CALL);
    assert_eq!(world.refusal(&refused), Some(RefusalKind::Denied));
    assert_eq!(world.dubbo("10.0.0.1:20880", &CALL).action, Action::Pass);
    let peers = empty.replace("spec: {}", "spec: {rules: [{from: [{source: {principals: [a]}}]}]}");
    assert!(errors(&peers)[0].contains("comes with a control plane"));
}
