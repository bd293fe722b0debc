//! Protocols beside HTTP/1 that are read along: real clients and servers see what they see without
//! netra, and what netra says of their exchanges is what the server counted, what tshark read, and
//! what the clients did.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

#[path = "protocols/brokers.rs"]
mod brokers;
#[path = "protocols/capture.rs"]
mod capture;
#[path = "protocols/cluster.rs"]
mod cluster;
#[path = "protocols/found.rs"]
mod found;
#[path = "protocols/gate.rs"]
mod gate;
#[path = "protocols/http2.rs"]
mod http2;
#[path = "protocols/joins.rs"]
mod joins;
#[path = "protocols/kafka.rs"]
mod kafka;
#[path = "protocols/memcached.rs"]
mod memcached;
#[path = "protocols/mongodb.rs"]
mod mongodb;
#[path = "protocols/mysql.rs"]
mod mysql;
#[path = "protocols/places.rs"]
mod places;
#[path = "protocols/postgresql.rs"]
mod postgresql;
#[path = "protocols/private.rs"]
mod private;
#[path = "protocols/refusals.rs"]
mod refusals;
mod support;
#[path = "protocols/tonic_peers.rs"]
mod tonic_peers;

use capture::captured;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use support::matrix::{Findings, cells_with};
use support::netra::{Backend, Netra, Setup, apply_rules, remove_rules};
use support::programs::{Server, run, tool};
use support::scrape::Scrape;
use support::sink::{Sink, Span};
use support::spans::python_path;
use support::world::{Namespace, POD_V4, World};
use support::{PATIENCE, wait_until};

const EXCHANGES: &str = "netra_exchanges_total";

fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/peers").join(name)
}

/// A peer written in Python, to its end: what it printed.
fn python(namespace: &Namespace, script: &str, args: &[&str]) -> String {
    let script = peer(script).display().to_string();
    run(namespace, &python_path(), &[&[script.as_str()], args].concat())
}

/// A peer written in BeanShell, with the library of a JDBC driver, to its end: what it printed.
fn java(
    namespace: &Namespace,
    script: &str,
    (jar, package): (&str, &str),
    args: &[&str],
) -> String {
    let jar = format!("/usr/share/java/{jar}");
    for (path, package) in [(jar.as_str(), package), ("/usr/share/java/bsh.jar", "bsh")] {
        assert!(Path::new(path).exists(), "{path} is missing: apt-get install {package}");
    }
    let path = format!("/usr/share/java/bsh.jar:{jar}");
    let script = peer(script).display().to_string();
    let first = ["-Xmx128m", "-cp", &path, "bsh.Interpreter", &script];
    run(namespace, &tool("java", "default-jre-headless"), &[&first, args].concat())
}

fn python_server(world: &World, script: &str, port: u16, args: &[&str]) -> Server {
    let mut command = world.pod.command(python_path());
    command.arg(peer(script)).args(args);
    Server::start(world, &world.pod, command, port)
}

fn redis_server(world: &World) -> Server {
    let mut command = world.pod.command(tool("redis-server", "redis-server"));
    command.args(["--port", "6379", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.args(["--protected-mode", "no", "--bind", "0.0.0.0"]);
    Server::start(world, &world.pod, command, 6379)
}

/// What one protocol's load says directly, and through netra in each cell; then a look at what
/// netra says of it.
fn compare(
    world: &World,
    named: &str,
    load: impl Fn() -> String,
    look: impl Fn(&Netra<'_>, &Sink) -> Result<(), String>,
) {
    compare_where(world, ("NETRA_PROTOCOLS", named), load, look);
}

/// The same with this setting.
fn compare_where(
    world: &World,
    (name, value): (&str, &str),
    load: impl Fn() -> String,
    look: impl Fn(&Netra<'_>, &Sink) -> Result<(), String>,
) {
    let direct = load();
    let sink = Sink::start(world);
    apply_rules(world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        let setup = sink.wire(Setup::new(cell)).env(name, value);
        let netra = Netra::start(world, &setup);
        let through = load();
        if through != direct {
            findings.note(cell, format!("through netra:\n{through}\ndirectly:\n{direct}"));
        }
        findings.check(cell, look(&netra, &sink));
        sink.clear();
        findings.check(cell, netra.finish());
    }
    remove_rules(world, Backend::NftNative);
    findings.conclude();
}

/// Exchanges by operation and outcome, of the inbound direction.
fn exchanges(scrape: &Scrape, protocol: &str) -> BTreeMap<(String, String), u64> {
    let mut seen = BTreeMap::new();
    for labels in scrape.labels_of(EXCHANGES) {
        let label = |name: &str| {
            let rest = labels.split_once(&format!("{name}=\"")).expect("a label").1;
            rest.split_once('"').expect("its end").0.to_owned()
        };
        assert_eq!(
            (label("protocol").as_str(), label("direction").as_str()),
            (protocol, "inbound")
        );
        let key = (label("operation"), label("outcome"));
        let of = [("operation", key.0.as_str()), ("outcome", key.1.as_str())];
        seen.insert(key.clone(), scrape.sum(EXCHANGES, &of));
    }
    seen
}

/// The span of a query by this name that ended with this code.
fn ended<'s>(spans: &'s [Span], name: &str, code: &str) -> Result<&'s Span, String> {
    let is_it = |span: &&Span| span.name == name && span.tag("db.response.status_code") == code;
    let names = || spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>();
    let found = spans.iter().find(is_it);
    found.ok_or_else(|| format!("no {name} that ends with {code}: {:?}", names()))
}

/// No span tells a value: each value of the clients has this word in it.
fn no_secret(spans: &[Span]) -> Result<(), String> {
    match spans.iter().find(|span| format!("{span:?}").contains("secret")) {
        Some(span) => Err(format!("a value is told: {span:?}")),
        None => Ok(()),
    }
}

/// No connection stopped being read.
fn no_tunnel(scrape: &Scrape) -> Result<(), String> {
    match scrape.labels_of("netra_tunnels_total") {
        none if none.is_empty() => Ok(()),
        tunnels => Err(format!("tunnels: {tunnels:?}")),
    }
}

/// The server's own counts of commands, by name.
fn commands_of(world: &World) -> BTreeMap<String, u64> {
    let cli = tool("redis-cli", "redis-tools");
    let stats = run(&world.pod, &cli, &["-h", "127.0.0.1", "info", "commandstats"]);
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls: u64 = rest.split(',').next()?.parse().ok()?;
        // Subcommands are counted by themselves: `client|id`.
        Some((name.split('|').next()?.to_uppercase(), calls))
    };
    let mut counts = BTreeMap::new();
    for (name, calls) in stats.lines().filter_map(row) {
        *counts.entry(name).or_insert(0) += calls;
    }
    counts
}

/// Loads of redis-benchmark, pipelined and not: every command is counted once, under its name.
#[test]
fn heavy_redis_commands_are_those_that_the_server_counted() {
    let Some(world) = World::new() else { return };
    let _server = redis_server(&world);
    let bench = tool("redis-benchmark", "redis-tools");
    let host = POD_V4.to_string();
    let load = || {
        for pipeline in ["1", "16", "500"] {
            let tests = ["-t", "set,get,lpush,hset,mset", "-n", "4000", "-c", "20", "-q"];
            run(&world.client, &bench, &[&["-h", &host, "-P", pipeline], &tests[..]].concat());
        }
        String::new()
    };
    let before = std::cell::RefCell::new(BTreeMap::new());
    let counted = || {
        load();
        before.replace(commands_of(&world));
        load()
    };
    compare(&world, "6379=redis", counted, |netra, _| {
        // Answers are sent first and told after: the last ones are told once their connections are
        // over, which may be behind the end of whom they were for.
        netra.scrape_until("all over", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let (then, now) = (before.borrow(), commands_of(&world));
        for operation in ["SET", "GET", "LPUSH", "HSET", "MSET"] {
            let calls = now[operation] - then.get(operation).copied().unwrap_or(0);
            let seen = scrape.sum(EXCHANGES, &[("operation", operation), ("outcome", "ok")]);
            // Both loads went through netra, and the server's counts were read between them.
            if seen != 2 * calls {
                return Err(format!(
                    "{operation}: {seen} seen, {calls} by the server in each half"
                ));
            }
        }
        Ok(())
    });
}

/// One application with everything that Redis clients do: what it sees stays the same, and tshark,
/// which reads the same packets, has the same commands.
#[test]
fn redis_as_redis_py_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = redis_server(&world);
    let host = POD_V4.to_string();
    let capture = world.dir().join("redis.pcap");
    let ask = || python(&world.client, "redis_client.py", &[&host, "6379"]);
    let load = || captured(&world, &capture, &[6379], ask);
    compare(&world, "6379=redis", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "redis");
        let mut by_operation = BTreeMap::new();
        for ((operation, _), count) in &seen {
            *by_operation.entry(operation.clone()).or_insert(0) += count;
        }
        let mut read = commands_by_tshark(&world, &capture);
        // An array of 8 MiB, one in RESP2 and one in RESP3, is not always whole in tshark's eyes.
        read.insert("SETRANGE".into(), 2);
        if by_operation != read {
            return Err(format!("netra: {by_operation:?}\ntshark: {read:?}"));
        }
        // LPUSH on a string, in RESP2 and in RESP3.
        if seen.get(&("LPUSH".into(), "error".into())) != Some(&2) {
            return Err(format!("LPUSH is wrong twice, but {seen:?}"));
        }
        // What sets a connection up has no span.
        let set_up = read["HELLO"];
        let total = read.values().sum::<u64>() - set_up;
        let spans = sink.take(usize::try_from(total).expect("few"))?;
        let wrong = spans.iter().find(|span| span.name == "LPUSH").ok_or("no span of LPUSH")?;
        for (key, value) in [
            ("db.system.name", "redis"),
            ("db.operation.name", "LPUSH"),
            ("db.response.status_code", "WRONGTYPE"),
            ("error.type", "WRONGTYPE"),
            ("span.kind", "server"),
            ("error", "true"),
        ] {
            if wrong.tag(key) != value {
                return Err(format!("{key} is {:?}, not {value}", wrong.tag(key)));
            }
        }
        Ok(())
    });
}

/// The commands of a capture by name, as tshark reads them.
fn commands_by_tshark(world: &World, capture: &Path) -> BTreeMap<String, u64> {
    let file = capture.display().to_string();
    let args = ["-r", &file, "-d", "tcp.port==6379,resp", "-Y", "resp && tcp.dstport==6379"];
    let fields = ["-T", "fields", "-e", "resp.array.length", "-e", "resp.bulk_string.value"];
    let text = run(&world.client, &tool("tshark", "tshark"), &[&args[..], &fields].concat());
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let (lengths, values) = line.split_once('\t').expect("two columns");
        let mut values = values.split(',');
        for length in lengths.split(',').filter(|length| !length.is_empty()) {
            let length = length.parse().expect("a length");
            let whole: Vec<&str> = values.by_ref().take(length).collect();
            let Some(name) = whole.first().filter(|_| whole.len() == length) else { break };
            let bytes: Vec<u8> = (0..name.len() / 2)
                .map(|at| u8::from_str_radix(&name[2 * at..2 * at + 2], 16).expect("hex"))
                .collect();
            let name = String::from_utf8(bytes).expect("a command").to_uppercase();
            *counts.entry(name).or_insert(0) += 1;
        }
    }
    counts
}

/// The same service in each form of Thrift's wire that its clients use.
#[test]
fn thrift_in_each_form_of_its_wire() {
    for (transport, protocol) in
        [("framed", "binary"), ("framed", "compact"), ("buffered", "binary"), ("buffered", "lax")]
    {
        let Some(world) = World::new() else { return };
        let form = [transport, protocol];
        let serve = [&["server", "0.0.0.0", "9090"][..], &form].concat();
        let _server = python_server(&world, "thrift_peer.py", 9090, &serve);
        let host = POD_V4.to_string();
        let ask = [&["client", &host, "9090"][..], &form].concat();
        let load = || python(&world.client, "thrift_peer.py", &ask);
        compare(&world, "9090=thrift", load, |netra, sink| {
            netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
            let scrape = netra.scrape();
            no_tunnel(&scrape).map_err(|what| format!("{form:?}: {what}"))?;
            let seen = exchanges(&scrape, "thrift");
            let of = |operation: &str, outcome: &str| {
                seen.get(&(operation.into(), outcome.into())).copied().unwrap_or(0)
            };
            if [of("call", "ok"), of("call", "error"), of("oneway", "ok")] != [5, 1, 1] {
                return Err(format!("{form:?}: {seen:?}"));
            }
            let spans = sink.take(7)?;
            let mut names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
            names.sort_unstable();
            if names != ["add", "big", "hello", "hello", "nothing", "tell", "told"] {
                return Err(format!("{form:?}: spans {names:?}"));
            }
            let bad = spans.iter().find(|span| span.tag("error") == "true").ok_or("no error")?;
            match (bad.name.as_str(), bad.tag("rpc.system.name").as_str()) {
                ("hello", "thrift") => Ok(()),
                other => Err(format!("{form:?}: the error is {other:?}")),
            }
        });
    }
}

#[test]
fn dubbo_as_dubbo_py_speaks_it() {
    let Some(world) = World::new() else { return };
    let _server = python_server(&world, "dubbo_peer.py", 20880, &["server", "20880"]);
    let host = POD_V4.to_string();
    let load = || python(&world.client, "dubbo_peer.py", &["client", &host, "20880"]);
    compare(&world, "20880=dubbo", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "dubbo");
        let total = |outcome: &str| -> u64 {
            seen.iter().filter(|((_, it), _)| it == outcome).map(|(_, count)| count).sum()
        };
        // Six calls, a hundred in a pipeline, one told; one of them throws.
        if (total("ok"), total("error")) != (106, 1) {
            return Err(format!("{seen:?}"));
        }
        let spans = sink.take(107)?;
        let name = "org.apache.dubbo.samples.basic.api.DemoService/boom";
        let boom = spans.iter().find(|span| span.name == name).ok_or("no span of boom")?;
        for (key, value) in [("rpc.system.name", "dubbo"), ("rpc.method", name), ("error", "true")]
        {
            if boom.tag(key) != value {
                return Err(format!("{key} is {:?}, not {value}", boom.tag(key)));
            }
        }
        Ok(())
    });
}

const DETECTED: &str = "netra_detected_total";

/// Connections by what they were found to be.
fn detected(scrape: &Scrape) -> BTreeMap<&'static str, u64> {
    let protocols = ["opaque", "http1", "redis", "dubbo", "thrift"];
    let count = |name: &'static str| (name, scrape.sum(DETECTED, &[("protocol", name)]));
    protocols.map(count).into_iter().filter(|(_, count)| *count > 0).collect()
}

/// netra on ports that nothing names, beside what was seen without it.
fn detect(
    world: &World,
    load: impl Fn() -> String,
    look: impl Fn(&Netra<'_>, &Sink) -> Result<(), String>,
) {
    compare_where(world, ("NETRA_DETECT", "true"), load, look);
}

/// Redis on a port that nothing names: every exchange is a span from the first one on.
#[test]
fn redis_is_found_where_nothing_names_it() {
    let Some(world) = World::new() else { return };
    let _server = redis_server(&world);
    let cli = tool("redis-cli", "redis-tools");
    let host = POD_V4.to_string();
    let asked = ["SET a 1", "INCR a", "LPUSH a x", "GET a"];
    let load = || {
        let ask = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            run(&world.client, &cli, &[&["-h", &host], &words[..]].concat())
        };
        asked.map(ask).concat()
    };
    detect(&world, load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        if detected(&scrape) != BTreeMap::from([("redis", 4)]) {
            return Err(format!("found {:?}", detected(&scrape)));
        }
        let mut names: Vec<String> = sink.take(4)?.into_iter().map(|span| span.name).collect();
        names.sort_unstable();
        match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["GET", "INCR", "LPUSH", "SET"] => Ok(()),
            _ => Err(format!("spans {names:?}")),
        }
    });
}

/// What has no codec gets no label, HTTP/1 gets its own and no spans, and all is passed on.
#[test]
fn what_is_not_known_gets_no_label() {
    use std::io::{Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
    let Some(world) = World::new() else { return };
    // Asked, answered, and how it is known; the last says more than anybody looks at.
    let garbage: Vec<u8> = (0..60_000_u32).map(|n| (n * 7 % 251).to_le_bytes()[0]).collect();
    let talks: [(&[u8], &[u8], &str); 5] = [
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "http1",
        ),
        (b"\0\0\0\x12\0\x03\0\0user\0me\0\0\0\0\0", b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I", "opaque"),
        (b"\x16\x03\x01\x00\x05\x01\0\0\x01\0", b"\x16\x03\x03\0\x01\x02", "opaque"),
        (b"zet a\r\n", b"WHAT a 0 1\r\nx\r\nEND\r\n", "opaque"),
        (&garbage, b"\xff\xfe", "opaque"),
    ];
    let servers: Vec<SocketAddr> = talks
        .iter()
        .map(|(_, answer, _)| {
            let listener =
                world.pod.enter(|| TcpListener::bind((POD_V4, 0)).expect("a port to listen on"));
            let address = listener.local_addr().expect("its address");
            let answer = answer.to_vec();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.expect("a connection");
                    let mut asked = Vec::new();
                    stream.read_to_end(&mut asked).expect("all that was asked");
                    stream.write_all(&answer).expect("answered");
                    stream.write_all(&asked).expect("and told what was asked");
                }
            });
            address
        })
        .collect();
    let load = || {
        for ((asked, answer, _), server) in talks.iter().zip(&servers) {
            let mut stream =
                world.client.enter(|| TcpStream::connect(server).expect("the server answers"));
            stream.write_all(asked).expect("asked");
            stream.shutdown(Shutdown::Write).expect("that is all");
            let mut said = Vec::new();
            stream.read_to_end(&mut said).expect("answered");
            assert!(said == [answer, *asked].concat(), "{:?}", asked.get(..10));
        }
        String::new()
    };
    let mut expected = BTreeMap::new();
    talks.iter().for_each(|(.., name)| *expected.entry(*name).or_insert(0) += 1);
    detect(&world, load, |netra, _| {
        netra.scrape_until("all over", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let spans = scrape.sum("netra_spans_total", &[("result", "recorded")]);
        match detected(&scrape) {
            found if found == expected && spans == 0 => Ok(()),
            found => Err(format!("{spans} spans, found {found:?} of {expected:?}")),
        }
    });
}
