//! NATS, MQTT, AMQP and ZooKeeper: the usual servers with the usual clients, and tshark beside netra
//! where it knows the protocol.

use super::capture::captured;
use super::support::programs::{Server, run, tool};
use super::support::sink::{Sink, Span};
use super::support::world::{POD_V4, World};
use super::{Netra, compare, exchanges, no_tunnel, python};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

type Counts = BTreeMap<(String, String), u64>;

/// What netra counted of one protocol once all is answered.
fn seen(netra: &Netra<'_>, protocol: &str) -> Result<Counts, String> {
    netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
    let scrape = netra.scrape();
    no_tunnel(&scrape)?;
    Ok(exchanges(&scrape, protocol))
}

/// Operations with their outcome, as often as they were to be seen.
fn expect(seen: &Counts, expected: &[(&str, &str, u64)]) -> Result<(), String> {
    let wrong = expected.iter().find(|(operation, outcome, count)| {
        seen.get(&((*operation).into(), (*outcome).into())).copied().unwrap_or(0) != *count
    });
    wrong.map_or(Ok(()), |wrong| Err(format!("{wrong:?} in {seen:?}")))
}

/// Of each operation how many there were, whatever came of them.
fn by_operation(seen: &Counts) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for ((operation, _), count) in seen {
        *counts.entry(operation.as_str()).or_insert(0) += count;
    }
    counts
}

/// The spans of all exchanges but those of such operations.
fn spans(sink: &Sink, seen: &Counts, without: &[&str]) -> Result<Vec<Span>, String> {
    let told = seen.iter().filter(|((operation, _), _)| !without.contains(&operation.as_str()));
    let total: u64 = told.map(|(_, count)| count).sum();
    sink.take(usize::try_from(total).expect("few"))
}

/// A span of this name, an error or not, with these tags.
fn has(spans: &[Span], name: &str, error: &str, tags: &[(&str, &str)]) -> Result<(), String> {
    let mut named = spans.iter().filter(|it| it.name == name && it.tag("error") == error);
    let span = named.next().ok_or_else(|| format!("no span of {name} with error {error:?}"))?;
    match tags.iter().find(|(key, value)| span.tag(key) != *value) {
        Some((key, value)) => Err(format!("{key} is {:?}, not {value}: {span:?}", span.tag(key))),
        None => Ok(()),
    }
}

/// The trace that clients write into headers.
const TRACE: u128 = 0x1111_1111_1111_1111_1111_1111_1111_1111;

fn is_of_trace(spans: &[Span], name: &str) -> Result<(), String> {
    let is_one = |span: &&Span| span.name == name && span.trace_id == TRACE;
    spans.iter().find(is_one).map(|_| ()).ok_or_else(|| format!("no {name} of the client's trace"))
}

/// Values of fields in messages to the server, as tshark reads them.
fn by_tshark(world: &World, file: &Path, (port, name): (u16, &str), field: &str) -> Vec<String> {
    let file = file.display().to_string();
    let (decode, filter) =
        (format!("tcp.port=={port},{name}"), format!("{name} && tcp.dstport=={port}"));
    let args = ["-r", &file, "-d", &decode, "-Y", &filter, "-T", "fields", "-e", field];
    let text = run(&world.client, &tool("tshark", "tshark"), &args);
    text.split([',', '\n']).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// A server with streams.
pub(super) fn nats(world: &World) -> Server {
    let mut command = world.pod.command(tool("nats-server", "nats-server"));
    command.args(["-a", "0.0.0.0", "-p", "4222", "-js", "-sd"]).arg(world.dir().join("streams"));
    Server::start(world, &world.pod, command, 4222)
}

#[test]
fn nats_as_nats_py_uses_it() {
    let Some(world) = World::new() else { return };
    let _server = nats(&world);
    let host = POD_V4.to_string();
    let load = || python(&world.client, "nats_client.py", &[&host, "4222"]);
    compare(&world, "4222=nats", load, |netra, sink| {
        let seen = seen(netra, "nats")?;
        // Twenty-two messages, five answers of a service, one that is answered itself.
        expect(
            &seen,
            &[
                ("CONNECT", "ok", 2),
                ("PUB", "ok", 27),
                ("REQUEST", "error", 1),
                ("ACK", "ok", 5),
                ("FETCH", "ok", 2),
                ("FETCH", "unanswered", 0),
                ("REQUEST", "unanswered", 0),
            ],
        )?;
        let spans = spans(sink, &seen, &["CONNECT"])?;
        let system = ("messaging.system", "nats");
        has(&spans, "PUB orders.new", "", &[system, ("messaging.operation.type", "send")])?;
        has(&spans, "REQUEST shop.add", "", &[("messaging.destination.name", "shop.add")])?;
        has(&spans, "REQUEST nobody.listens", "true", &[("error.type", "no_responders")])?;
        has(&spans, "SUB shop.add", "", &[("messaging.consumer.group.name", "workers")])?;
        has(&spans, "ACK", "", &[("messaging.operation.type", "settle")])?;
        is_of_trace(&spans, "PUB orders.told")
    });
}

/// A broker that lets everybody in.
pub(super) fn mosquitto(world: &World) -> Server {
    let config = world.dir().join("mosquitto.conf");
    fs::write(&config, "listener 1883 0.0.0.0\nallow_anonymous true\n").expect("a file");
    let mut command = world.pod.command(tool("mosquitto", "mosquitto"));
    command.arg("-c").arg(config);
    Server::start(world, &world.pod, command, 1883)
}

#[test]
fn mqtt_as_paho_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = mosquitto(&world);
    let host = POD_V4.to_string();
    let capture = world.dir().join("mqtt.pcap");
    let ask = || python(&world.client, "mqtt_client.py", &[&host, "1883", "20000"]);
    let load = || captured(&world, &capture, &[1883], ask);
    compare(&world, "1883=mqtt", load, |netra, sink| {
        let seen = seen(netra, "mqtt")?;
        let read = by_tshark(&world, &capture, (1883, "mqtt"), "mqtt.msgtype");
        let of = |number: &str| read.iter().filter(|it| *it == number).count() as u64;
        let read = BTreeMap::from([
            ("CONNECT", of("1")),
            ("PUBLISH", of("3")),
            ("SUBSCRIBE", of("8")),
            ("UNSUBSCRIBE", of("10")),
        ]);
        if by_operation(&seen) != read {
            return Err(format!("netra: {seen:?}\ntshark: {read:?}"));
        }
        expect(&seen, &[("PUBLISH", "ok", 64), ("CONNECT", "ok", 2)])?;
        let spans = spans(sink, &seen, &["CONNECT"])?;
        let tags = [("messaging.system", "mqtt"), ("messaging.operation.type", "send")];
        has(&spans, "PUBLISH shop/2", "", &tags)?;
        has(&spans, "SUBSCRIBE shop/#", "", &[("messaging.destination.name", "shop/#")])?;
        is_of_trace(&spans, "PUBLISH shop/1")
    });
}

/// A broker, and what it looks up its own name with.
pub(super) fn rabbitmq(world: &World) -> [Server; 2] {
    let package = "rabbitmq-server";
    let epmd = Path::new("/usr/bin/epmd");
    let mut names = world.pod.command(epmd);
    names.args(["-port", "24369"]);
    let names = Server::start(world, &world.pod, names, 24369);
    let place = |name: &str| world.dir().join(name);
    fs::write(place("r.conf"), "listeners.tcp.1 = 0.0.0.0:5672\nloopback_users.guest = false\n")
        .expect("a file");
    fs::write(place("plugins"), "[].").expect("a file");
    let mut broker = world.pod.command("/usr/lib/rabbitmq/bin/rabbitmq-server");
    assert!(tool(package, package).exists());
    for (name, value) in [
        ("HOME", place("")),
        ("RABBITMQ_MNESIA_BASE", place("mnesia")),
        ("RABBITMQ_LOG_BASE", place("log")),
        ("RABBITMQ_CONFIG_FILE", place("r.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", place("plugins")),
        ("RABBITMQ_PID_FILE", place("pid")),
    ] {
        broker.env(name, value);
    }
    broker.env("RABBITMQ_NODENAME", "netra@localhost").env("RABBITMQ_DIST_PORT", "25999");
    broker.env("ERL_EPMD_PORT", "24369");
    let broker = Server::start_within(Duration::from_secs(90), world, &world.pod, broker, 5672);
    [broker, names]
}

#[test]
fn amqp_as_pika_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _servers = rabbitmq(&world);
    let host = POD_V4.to_string();
    let capture = world.dir().join("amqp.pcap");
    let ask = || python(&world.client, "amqp_client.py", &[&host, "5672", "20000"]);
    let load = || captured(&world, &capture, &[5672], ask);
    compare(&world, "5672=amqp", load, |netra, sink| {
        let seen = seen(netra, "amqp")?;
        let read = by_tshark(&world, &capture, (5672, "amqp"), "amqp.method.method");
        let of = |number: &str| read.iter().filter(|it| *it == number).count() as u64;
        let counts = by_operation(&seen);
        // Numbers that only one class of methods has.
        for (operation, number) in [("basic.get", "70"), ("basic.ack", "80")] {
            if counts[operation] != of(number) {
                return Err(format!("{operation}: netra {counts:?}, tshark {}", of(number)));
            }
        }
        // Publishing, deleting a queue, opening two connections and closing two channels, are all 40.
        let forties = ["basic.publish", "queue.delete", "connection.open", "channel.close"];
        let forty: u64 = forties.iter().filter_map(|name| counts.get(name)).sum();
        if forty != of("40") {
            return Err(format!("40: netra {counts:?}, tshark {}", of("40")));
        }
        expect(
            &seen,
            &[
                ("basic.publish", "ok", 24),
                ("basic.ack", "ok", 22),
                ("basic.get", "ok", 2),
                ("queue.declare", "error", 1),
                ("connection.start-ok", "error", 1),
                ("basic.publish", "unanswered", 0),
            ],
        )?;
        let handshakes: Vec<&str> = counts.keys().copied().filter(|name| is_set_up(name)).collect();
        let spans = spans(sink, &seen, &handshakes)?;
        let tags = [("messaging.system", "rabbitmq"), ("messaging.destination.name", "shop")];
        has(&spans, "basic.publish shop", "", &tags)?;
        has(&spans, "queue.declare missing", "true", &[("error.type", "NOT_FOUND")])?;
        has(&spans, "basic.get orders", "", &[("messaging.operation.type", "receive")])?;
        is_of_trace(&spans, "basic.publish orders")
    });
}

fn is_set_up(name: &str) -> bool {
    name == "connect" || name.starts_with("connection.") || name.starts_with("channel.")
}

/// A server alone.
pub(super) fn zookeeper(world: &World) -> Server {
    let config = world.dir().join("zoo.cfg");
    let data = world.dir().join("zookeeper").display().to_string();
    let lines = ["clientPort=2181", "admin.enableServer=false", "4lw.commands.whitelist=*"];
    fs::write(&config, format!("dataDir={data}\n{}\n", lines.join("\n"))).expect("a file");
    let mut command = world.pod.command(tool("java", "zookeeperd"));
    command.args(["-Xmx128m", "-cp", "/etc/zookeeper/conf:/usr/share/java/*"]);
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
    Server::start_within(Duration::from_secs(60), world, &world.pod, command, 2181)
}

#[test]
fn zookeeper_as_kazoo_uses_it() {
    let Some(world) = World::new() else { return };
    let _server = zookeeper(&world);
    let host = POD_V4.to_string();
    let load = || python(&world.client, "zookeeper_client.py", &[&host, "2181"]);
    compare(&world, "2181=zookeeper", load, |netra, sink| {
        let seen = seen(netra, "zookeeper")?;
        expect(
            &seen,
            &[
                ("connect", "ok", 1),
                ("create", "ok", 52),
                ("create", "error", 1),
                ("exists", "ok", 2),
                ("exists", "error", 0),
                ("multi", "error", 1),
                ("setData", "error", 1),
                ("closeSession", "ok", 1),
            ],
        )?;
        let spans = spans(sink, &seen, &["connect", "closeSession"])?;
        let system = ("db.system.name", "zookeeper");
        has(&spans, "getData", "true", &[system, ("db.response.status_code", "NoNode")])?;
        has(&spans, "create", "true", &[("error.type", "NodeExists")])?;
        has(&spans, "multi", "true", &[("error.type", "BadVersion")])?;
        has(&spans, "setData", "", &[("db.operation.name", "setData")])
    });
}
