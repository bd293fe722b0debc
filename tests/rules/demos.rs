//! Documents that users of Aeraki have, as its demos have them, on a sidecar that has nothing else: what each
//! demo is for holds, with clients and servers of nobody here but for tRPC and QZA. Intervals of limits are
//! longer than there, so that no filling comes between.
//!
//! | demos | test |
//! |---|---|
//! | metaprotocol-dubbo: v1, traffic-split, header-mutation, consistent-hash-lb, serviceentry; attribute-{exact,prefix,regex} | `demos_of_dubbo_at_the_consumer` |
//! | metaprotocol-dubbo: local-ratelimit | `demos_of_dubbo_at_the_provider` |
//! | metaprotocol-thrift: v1, traffic-split, outlier-detection, local-ratelimit | `demos_of_thrift` |
//! | metaprotocol-trpc: multi-route; metaprotocol-qza: rate-limit | `demos_of_trpc_and_qza` |
//! | redis: routing, fault-injection | `demos_of_redis` |
//! | global-ratelimit, read-policy of any | `demos_that_nobody_obeys_are_refused` |

use crate::{
    entry, in_cells, peer,
    routes_of_others::{redis, redis_server, versions},
    support::{
        PATIENCE,
        matrix::cells,
        netra::{ADMIN_PORT, Setup},
        programs::{Server, run},
        scrape,
        spans::python_path,
        wait_until,
        world::{CLIENT_V4, Namespace, POD_V4, World},
    },
    write,
};
use std::{fs, path::Path};

const INTERFACE: &str = "org.apache.dubbo.samples.basic.api.DemoService";
const DUBBO: &str = "org.apache.dubbo.samples.basic.api.demoservice";
const THRIFT: &str = "thrift-sample-server.meta-thrift.svc.cluster.local";

fn router(host: &str, rest: &str) -> String {
    format!(
        "apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\n\
         metadata: {{name: demo, namespace: meta}}\nspec:\n  hosts:\n  - {host}\n{rest}"
    )
}

/// A route with what it matches, if it does, to shares of versions.
fn route(host: &str, name: &str, rest: &str, shares: &[(&str, u8)]) -> String {
    let to = shares.iter().map(|(subset, weight)| {
        format!(
            "    - destination:\n        host: {host}\n        subset: {subset}\n      \
             weight: {weight}\n"
        )
    });
    let to: String = to.collect();
    format!("  routes:\n  - name: {name}\n{rest}    route:\n{to}")
}

fn attributes(all: &[(&str, &str)]) -> String {
    let all: String =
        all.iter().map(|(name, test)| format!("        {name}:\n          {test}\n")).collect();
    format!("    match:\n      attributes:\n{all}")
}

fn limit(default: u32, method: &str, few: u32) -> String {
    let bucket =
        |count: u32| format!("{{maxTokens: {count}, tokensPerFill: {count}, fillInterval: 600s}}");
    format!(
        "  localRateLimit:\n    tokenBucket: {}\n    conditions:\n    \
         - match: {{attributes: {{method: {{exact: {method}}}}}}}\n      tokenBucket: {}\n",
        bucket(default),
        bucket(few)
    )
}

/// Puts these documents in the place of the others, and waits until a rule of theirs is in force.
pub(crate) fn obey(
    world: &World,
    folder: &Path,
    documents: &str,
    rule: &str,
) -> Result<(), String> {
    write(folder, documents);
    let page = || scrape::get(&world.pod, ADMIN_PORT, "/rules").map(|it| it.1);
    let has =
        || page().is_ok_and(|page| page.contains(rule) && page.contains("\"is_current\": true"));
    if wait_until(PATIENCE, has) { Ok(()) } else { Err(format!("{rule}: {:?}", page())) }
}

fn expect(what: &str, said: &str, expected: &str) -> Result<(), String> {
    if said == expected { Ok(()) } else { Err(format!("{what}: {said:?}, not {expected:?}")) }
}

fn python(namespace: &Namespace, script: &str, args: &[&str]) -> String {
    let script = peer(script);
    run(namespace, &python_path(), &[&[&script[..]], args].concat())
}

fn serve(world: &World, namespace: &Namespace, port: u16, script: &str, args: &[&str]) -> Server {
    let mut command = namespace.command(python_path());
    command.arg(peer(script)).args(args);
    Server::start(world, namespace, command, port)
}

fn dubbo_server(world: &World, namespace: &Namespace, port: u16, greeting: &str) -> Server {
    serve(world, namespace, port, "dubbo_peer.py", &["server", &port.to_string(), greeting])
}

/// Calls of dubbo-py over one connection: each answer with its number.
fn dubbo(from: &Namespace, host: &str, count: u32, method: &str, attached: &[&str]) -> String {
    let count = count.to_string();
    let args = ["calls", host, "20880", &count, method];
    python(from, "dubbo_peer.py", &[&args[..], attached].concat())
}

/// Two versions of the provider, as a ServiceEntry of Dubbo tells of them.
fn provider(policy: &str) -> String {
    let interface =
        format!("metadata: {{name: it, annotations: {{interface: {INTERFACE}}}}}\nspec:");
    versions(DUBBO, [20880, 20881, 20899], "tcp-metaprotocol-dubbo")
        .replacen("metadata: {name: it}\nspec:", &interface, 1)
        .replacen("  subsets:\n", &format!("{policy}  subsets:\n"), 1)
}

#[test]
fn demos_of_dubbo_at_the_consumer() {
    let Some(world) = World::new() else { return };
    let _servers = [
        dubbo_server(&world, &world.client, 20880, "v1"),
        dubbo_server(&world, &world.client, 20881, "v2"),
    ];
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "20880=dubbo");
    let fits = attributes(&[
        ("interface", &format!("exact: {INTERFACE}")),
        ("method", "exact: sayHello"),
        ("foo", "exact: bar"),
    ]);
    in_cells(&world, &cells(), &provider(""), protocols, |_, folder| {
        let here = CLIENT_V4.to_string();
        let calls = |count, method: &str, attached: &[&str], expected: &str| {
            let said = dubbo(&world.pod, &here, count, method, attached);
            expect(&format!("{method} {attached:?}"), &said, expected)
        };
        let rules = |name: &str, rest: &str, shares: &[(&str, u8)]| {
            let documents = provider("") + &router(DUBBO, &route(DUBBO, name, rest, shares));
            obey(&world, folder, &documents, &format!("demo/{name}"))
        };
        rules("version", &fits, &[("v1", 100)])?;
        calls(10, "sayHello", &["foo=bar"], "10 v1 joe\n")?;
        calls(3, "sayHello", &[], "3 refused\n")?;
        rules("split", &fits, &[("v1", 20), ("v2", 80)])?;
        calls(100, "sayHello", &["foo=bar"], "20 v1 joe\n80 v2 joe\n")?;
        let given = "    requestMutation:\n    - key: foo\n      value: bar\n    \
                     - key: foo1\n      value: bar1\n";
        rules("given", given, &[("v1", 100)])?;
        calls(2, "attached:foo", &["foo=else"], "2 foo=bar\n")?;
        calls(2, "attached:foo1", &[], "2 foo1=bar1\n")?;
        for (name, test, expected) in [
            ("exactly", "exact: sayHello", "5 v2 joe\n"),
            ("begins", "prefix: say", "5 v2 joe\n"),
            ("regular", "regex: \"^s.*o$\"", "5 v2 joe\n"),
            ("whole", "regex: \"^s.*l$\"", "5 refused\n"),
        ] {
            rules(name, &attributes(&[("method", test)]), &[("v2", 100)])?;
            calls(5, "sayHello", &[], expected)?;
        }
        let hash = "  trafficPolicy:\n    loadBalancer:\n      consistentHash:\n        \
                    httpHeaderName: method\n";
        let to = format!(
            "  routes:\n  - name: hashed\n    route:\n    - destination: {{host: {DUBBO}}}\n"
        );
        // At the third endpoint nobody listens: a hash that leads there would find nobody.
        let is_third = |line: &&str| line.contains("20899") || line.contains("name: v3");
        let both = provider(hash);
        let both: String = both.split_inclusive('\n').filter(|line| !is_third(line)).collect();
        obey(&world, folder, &(both + &router(DUBBO, &to)), "demo/hashed")?;
        let first = dubbo(&world.pod, &here, 3, "sayHello", &[]);
        if !["3 v1 joe\n", "3 v2 joe\n"].contains(&&first[..]) {
            return Err(format!("hashed: {first}"));
        }
        (0..4).try_for_each(|_| calls(3, "sayHello", &[], &first))
    });
}

#[test]
fn demos_of_dubbo_at_the_provider() {
    let Some(world) = World::new() else { return };
    let _server = dubbo_server(&world, &world.pod, 20880, "v1");
    let rules = entry(DUBBO, &POD_V4.to_string(), 20880, "tcp-metaprotocol-dubbo")
        + &router(
            DUBBO,
            &(limit(10, "sayHello", 2)
                + &format!(
                    "  routes:\n  - name: v1\n    route:\n    - destination: {{host: {DUBBO}}}\n"
                )),
        );
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "20880=dubbo");
    in_cells(&world, &cells(), &rules, protocols, |_, _| {
        let here = POD_V4.to_string();
        let said = dubbo(&world.client, &here, 5, "sayHello", &[]);
        expect("sayHello", &said, "3 refused\n2 v1 joe\n")?;
        let said = dubbo(&world.client, &here, 15, "echo:7", &[]);
        expect("all others", &said, "10 7\n5 refused\n")
    });
}

/// How the third of three versions is left out: nobody listens there.
fn is_left_out(world: &World, call: impl Fn() -> String) -> Result<(), String> {
    let page = || scrape::get(&world.pod, ADMIN_PORT, "/clusters").map(|it| it.1);
    let is_out = || page().is_ok_and(|page| page.matches("\"state\": \"ejected\"").count() == 1);
    for _ in 0..60 {
        let said = call();
        if !["1 v1 joe 0 0\n", "1 v2 joe 0 0\n"].contains(&&said[..]) {
            return Err(format!("a call found nobody: {said:?}"));
        }
        if is_out() {
            return Ok(());
        }
    }
    Err(format!("nobody is left out: {:?}", page()))
}

#[test]
fn demos_of_thrift() {
    let Some(world) = World::new() else { return };
    let server = |namespace: &Namespace, port: u16, greeting: &str| {
        let args = ["server", "0.0.0.0", &port.to_string(), "framed", "binary", greeting];
        serve(&world, namespace, port, "thrift_peer.py", &args)
    };
    let _servers = [server(&world.client, 9090, "v1"), server(&world.client, 9091, "v2")];
    let _own = server(&world.pod, 9090, "own");
    let calls = |from: &Namespace, host: &str, count: u32, method: &str| {
        let args = ["calls", host, "9090", "framed", "binary", &count.to_string(), method];
        python(from, "thrift_peer.py", &args)
    };
    let there = versions(THRIFT, [9090, 9091, 9099], "tcp-metaprotocol-thrift");
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "9090=thrift");
    in_cells(&world, &cells(), &there, protocols, |_, folder| {
        let (far, own) = (CLIENT_V4.to_string(), POD_V4.to_string());
        let hello = attributes(&[("method", "exact: hello")]);
        let rules = |name: &str, shares: &[(&str, u8)]| {
            let documents = there.clone() + &router(THRIFT, &route(THRIFT, name, &hello, shares));
            obey(&world, folder, &documents, &format!("demo/{name}"))
        };
        rules("version", &[("v1", 100)])?;
        expect("v1", &calls(&world.pod, &far, 10, "hello"), "10 v1 joe 0 0\n")?;
        expect("no route", &calls(&world.pod, &far, 1, "told"), "1 refused\n")?;
        rules("split", &[("v1", 20), ("v2", 80)])?;
        let said = calls(&world.pod, &far, 100, "hello");
        expect("split", &said, "20 v1 joe 0 0\n80 v2 joe 0 0\n")?;
        let outlier = "  trafficPolicy:\n    outlierDetection:\n      consecutive5xxErrors: 5\n      \
                       interval: 5m\n      baseEjectionTime: 15m\n";
        let to = format!(
            "  routes:\n  - name: outlier\n    route:\n    - destination: {{host: {THRIFT}}}\n"
        );
        let documents = there.replacen("  subsets:\n", &format!("{outlier}  subsets:\n"), 1);
        obey(&world, folder, &(documents + &router(THRIFT, &to)), "demo/outlier")?;
        is_left_out(&world, || calls(&world.pod, &far, 1, "hello"))?;
        let documents = entry(THRIFT, &own, 9090, "tcp-metaprotocol-thrift")
            + &router(THRIFT, &(limit(5, "hello", 2) + &to.replace("outlier", "limited")));
        obey(&world, folder, &documents, "demo/limited")?;
        let said = calls(&world.client, &own, 6, "hello");
        expect("limited", &said, "2 own joe 0 0\n4 refused\n")?;
        expect("all others", &calls(&world.client, &own, 8, "told"), "5 False\n3 refused\n")
    });
}

const QZA: &str = "name: qza\nheader: 24\nlength: {at: 0, width: 4, counts: message, max: 65536}\n\
                   id: {at: 4, width: 4}\n\
                   fields: {method: {at: 8, length: 8}, version: {at: 16, length: 8}}\n\
                   reply:\n  bytes: \"00000000 00000000 0000000000000000 0000000000000000\"\n  \
                   text: {at: 24}\n";

#[test]
fn demos_of_trpc_and_qza() {
    let Some(world) = World::new() else { return };
    let server = |namespace: &Namespace, port: u16, args: [&str; 2]| {
        let args = [args[0], "server", "0.0.0.0", &port.to_string(), args[1]];
        serve(&world, namespace, port, "aeraki_peer.py", &args)
    };
    let _servers = [
        server(&world.client, 8000, ["trpc", "v1"]),
        server(&world.client, 8001, ["trpc", "v2"]),
        server(&world.pod, 9000, ["qza", "own"]),
    ];
    let description = world.dir().join("qza.yaml");
    fs::write(&description, QZA).unwrap();
    let callee = ("callee", "exact: trpc.test.helloworld.Greeter");
    let version = |version: &str| {
        let route = route(
            "trpc",
            version,
            &attributes(&[
                callee,
                ("version", &format!("exact: {version}")),
                ("func", "prefix: /trpc."),
            ]),
            &[(version, 100)],
        );
        route.replacen("  routes:\n", "", 1)
    };
    let routes = format!("  routes:\n{}{}", version("v1"), version("v2"));
    // Keys of a described protocol are called by what they are to netra: cmd is its method.
    let limited = "  localRateLimit:\n    conditions:\n    - match:\n        attributes:\n          \
                   method: {exact: \"153\"}\n          version: {regex: \"1|2\"}\n      \
                   tokenBucket: {maxTokens: 5, tokensPerFill: 5, fillInterval: 600s}\n";
    let rules = versions("trpc", [8000, 8001, 8099], "tcp-metaprotocol-trpc")
        + &router("trpc", &routes)
        + "---\n"
        + &entry("qza", &POD_V4.to_string(), 9000, "tcp-metaprotocol-qza")
        + &router("qza", limited).replace("name: demo", "name: qza");
    let protocols = |setup: Setup| {
        setup
            .env("NETRA_PROTOCOL_FILES", description.display())
            .env("NETRA_PROTOCOLS", "8000=trpc,9000=qza")
    };
    in_cells(&world, &cells(), &rules, protocols, |_, _| {
        let calls = |from: &Namespace, to: [&str; 3], count: &str, values: &[&str]| {
            let args = [to[0], "calls", to[1], to[2], count];
            python(from, "aeraki_peer.py", &[&args[..], values].concat())
        };
        let far = CLIENT_V4.to_string();
        let greet = |version: &str, func: &str| {
            let (version, func) = (format!("version={version}"), format!("func={func}"));
            let values = ["callee=trpc.test.helloworld.Greeter", &func, &version];
            calls(&world.pod, ["trpc", &far, "8000"], "4", &values)
        };
        expect("v1", &greet("v1", "/trpc.test.helloworld.Greeter/SayHello"), "4 v1\n")?;
        expect("v2", &greet("v2", "/trpc.test.helloworld.Greeter/SayHi"), "4 v2\n")?;
        expect("no route", &greet("v3", "/trpc.test.helloworld.Greeter/SayHi"), "4 closed\n")?;
        expect("another func", &greet("v1", "/other"), "4 closed\n")?;
        let own = POD_V4.to_string();
        let command = |sub_cmd: &str, count: &str| {
            let values = ["cmd=153", &format!("sub_cmd={sub_cmd}")[..]];
            calls(&world.client, ["qza", &own, "9000"], count, &values)
        };
        expect("sub_cmd 2", &command("2", "3"), "3 own\n")?;
        expect("sub_cmd 1", &command("1", "4"), "2 own\n2 refused\n")?;
        expect("another sub_cmd", &command("12", "8"), "8 own\n")
    });
}

fn redis_service(rest: &str) -> String {
    format!(
        "apiVersion: redis.aeraki.io/v1alpha1\nkind: RedisService\nmetadata: {{name: demo}}\nspec:\n  \
         host:\n  - redis\n{rest}"
    )
}

#[test]
fn demos_of_redis() {
    let Some(world) = World::new() else { return };
    let _servers = [redis_server(&world, 6379), redis_server(&world, 6380)];
    for (port, who) in [(6379, "one"), (6380, "two")] {
        redis(&world.client, port, &["MSET", "new:who", who, "old:who", who]);
    }
    let entries = entry("redis", &CLIENT_V4.to_string(), 6379, "tcp-redis")
        + &entry("redis-new", &CLIENT_V4.to_string(), 6380, "tcp-redis");
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "6379=redis");
    in_cells(&world, &cells(), &entries, protocols, |_, folder| {
        let routes = "  redis:\n  - match:\n      key:\n        prefix: \"new:\"\n    route:\n      \
                      host: redis-new\n      port: 6380\n  - route:\n      host: redis\n      port: 6379\n";
        obey(&world, folder, &(entries.clone() + &redis_service(routes)), "redis-new")?;
        let get = |key: &str| redis(&world.pod, 6379, &["GET", key]);
        expect("new", &get("new:who"), "two")?;
        expect("old", &get("old:who"), "one")?;
        let faults = "  faults:\n  - type: ERROR\n    percentage:\n      value: 50\n    commands:\n    \
                      - GET\n";
        obey(&world, folder, &(entries.clone() + &redis_service(faults)), "demo/fault0")?;
        let said = redis(&world.pod, 6379, &["-r", "400", "GET", "old:who"]);
        let good = said.lines().filter(|line| *line == "one").count();
        let said = redis(&world.pod, 6379, &["-r", "50", "SET", "old:who", "one"]);
        let is_set = said.lines().all(|line| line == "OK");
        match (140..=260).contains(&good) && is_set {
            true => Ok(()),
            false => Err(format!("{good} of 400 were good, and SET said {said}")),
        }
    });
}

/// What this version does not do is said where it is asked for, and nothing starts.
#[test]
fn demos_that_nobody_obeys_are_refused() {
    let global = "  globalRateLimit:\n    domain: production\n    match:\n      attributes:\n        \
                  method: {exact: sayHello}\n    rateLimitService: outbound|8081||rls.ns.svc.cluster.local\n    \
                  requestTimeout: 100ms\n    denyOnFail: true\n    descriptors:\n    \
                  - {property: method, descriptorKey: method}\n";
    let redis = entry("redis", "10.0.0.1", 6379, "tcp-redis");
    let folder = std::env::temp_dir().join(format!("netra-demos-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (name, documents, field) in [
        ("global-ratelimit", provider("") + &router(DUBBO, global), "globalRateLimit"),
        (
            "read-policy",
            redis + &redis_service("  settings: {readPolicy: REPLICA}\n"),
            "readPolicy",
        ),
    ] {
        fs::write(folder.join("rules.yaml"), &documents).unwrap();
        let netra = std::process::Command::new(env!("CARGO_BIN_EXE_netra"))
            .args(["--check-config", "--service-name", "x"])
            .env("NETRA_RULES", &folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&netra.stderr).into_owned();
        let line = documents.lines().position(|line| line.trim_start().starts_with(field));
        let line =
            line.or_else(|| documents.lines().position(|line| line.contains(field))).unwrap() + 1;
        let place = format!("rules.yaml:{line}:");
        let is_said = said.lines().any(|said| said.contains(&place) && said.contains(field));
        assert!(netra.status.code() == Some(64) && is_said, "{name}: {place} {field}: {said}");
    }
    fs::remove_dir_all(&folder).unwrap();
}
