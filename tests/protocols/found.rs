//! What is spoken on ports that nothing names, of everybody who speaks it here: real clients and servers
//! with netra between them, which names no port. Each connection is recorded beside the client, so that
//! it is known in which exchange netra could know it.
//!
//! Whoever opens a connection in the client's namespace reaches a relay there, which writes both ways
//! down and goes on from an address of its own to the pod, where netra is.
#![allow(clippy::disallowed_types, reason = "tests may lock")]

use super::support::matrix::{Findings, cells_with};
use super::support::netra::{Backend, Netra, Setup, apply_rules, remove_rules};
use super::support::programs::{Server, nginx, run, tool};
use super::support::scrape::Scrape;
use super::support::world::{POD_V4, World, ip};
use super::{DETECTED, brokers, memcached, mongodb, mysql, postgresql, python, redis_server};
use super::{python_server, thread};
use netra_codecs::Limits;
use netra_codecs::codec::{Exchange, Head, Open, Outcome, Way};
use netra_codecs::tap::{Detector, Finding, Message, Protocol, Step, Tap, Witness};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Where the relays dial from.
const RELAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 61, 0, 9));
/// Bytes of a connection that are written down: the longest first exchange, and room.
const TAPE_BYTES_MAX: usize = 24 << 20;

/// What passed on one connection, in order.
type Talk = Arc<Mutex<Vec<(Way, Vec<u8>)>>>;
/// The connections to one port.
type Talks = Arc<Mutex<Vec<Talk>>>;

/// Somebody who asks a server on a port, once.
struct Peer<'w> {
    /// What it speaks, as netra calls it.
    protocol: &'static str,
    /// Who speaks it.
    who: &'static str,
    port: u16,
    ask: Box<dyn Fn() + 'w>,
}

fn peer<'w>(
    (protocol, who): (&'static str, &'static str),
    port: u16,
    ask: impl Fn() + 'w,
) -> Peer<'w> {
    Peer { protocol, who, port, ask: Box::new(ask) }
}

/// What came of the connections of one peer.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// Those with an answer to a request.
    answered: u64,
    /// Of those, how many bytes of the first exchange were enough for.
    in_first: u64,
    /// Those that netra gave the right label.
    right: u64,
    /// Those that it gave another protocol's.
    wrong: u64,
}

/// Writes down what passes to a port of the pod from here on.
fn record(world: &World, port: u16) -> Talks {
    let talks = Talks::default();
    let here = Arc::clone(&talks);
    // Threads of a namespace's thread are of that namespace.
    let relay = world.client.enter(move || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let relay = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let talk = Talk::default();
                here.lock().expect("no panic").push(Arc::clone(&talk));
                thread::spawn(move || relay_one(client, port, &talk));
            }
        });
        relay
    });
    let rule = format!(
        "add rule ip tape out ip daddr {POD_V4} ip saddr != {RELAY} tcp dport {port} redirect to :{relay}"
    );
    run(&world.client, &tool("nft", "nftables"), &[&rule]);
    talks
}

fn relay_one(client: TcpStream, port: u16, talk: &Talk) {
    let dial = || -> std::io::Result<TcpStream> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&std::net::SocketAddr::new(RELAY, 0).into())?;
        socket.connect(&std::net::SocketAddr::new(POD_V4, port).into())?;
        Ok(socket.into())
    };
    let Ok(server) = dial() else { return };
    let [back, forth] = [&client, &server].map(|it| it.try_clone().expect("dup"));
    let answers = Arc::clone(talk);
    let other = thread::spawn(move || pass(forth, back, Way::Response, &answers));
    pass(client, server, Way::Request, talk);
    let _ = other.join();
}

/// Passes one way on, written down before it goes: no answer is before its request.
fn pass(mut from: TcpStream, mut to: TcpStream, way: Way, talk: &Talk) {
    let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        total += count;
        if total < TAPE_BYTES_MAX {
            talk.lock().expect("no panic").push((way, buffer[..count].to_vec()));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

struct Nobody;

impl Witness<()> for Nobody {
    fn opened(&mut self, _: Protocol, _: &Message<'_>, _: &mut Open<()>) {}
    fn answered(&mut self, (): &mut ()) {}
    fn finished(&mut self, _: Protocol, _: Exchange<()>, _: &[u8], _: u64) {}
    fn dropped(&mut self, (): ()) {}
}

/// In which part of a connection the first answer to a request is whole, to the eyes of whoever knows the
/// protocol.
fn first_answered(protocol: Protocol, talk: &[(Way, Vec<u8>)]) -> Option<usize> {
    let (mut tap, mut head) = (Tap::<()>::new(protocol), Head::default());
    talk.iter().position(|(way, bytes)| {
        let mut rest = &bytes[..];
        let mut is_answered = false;
        while !rest.is_empty() || tap.has_ended(*way) {
            rest = match tap.step(*way, rest, &Limits::DEFAULT, 1, &mut head) {
                Step::Need | Step::Tunnel(_) => break,
                Step::Body(count) | Step::Late(count) => &rest[count..],
                Step::Opened { consumed, .. }
                | Step::Answered { consumed, .. }
                | Step::Aside { consumed, .. } => &rest[consumed..],
                Step::Finished { consumed, exchange, .. } => {
                    let unanswered = [Outcome::Sent, Outcome::Unanswered, Outcome::Unseen];
                    is_answered |= !unanswered.contains(&exchange.outcome);
                    &rest[consumed..]
                }
            };
        }
        is_answered
    })
}

/// In which part of a connection it is known what it is, and what that is.
fn found_in(talk: &[(Way, Vec<u8>)]) -> Option<(usize, Finding)> {
    let mut detector = Detector::<()>::new();
    talk.iter().enumerate().find_map(|(at, (way, bytes))| {
        let finding = detector.show(*way, bytes, &Limits::DEFAULT, 1, &mut Nobody);
        (finding != Finding::Watching).then_some((at, finding))
    })
}

/// What the connections of a peer say: how many have an answer, and of how many the first is enough.
fn judge(name: &str, talks: &Talks) -> Result<Row, String> {
    let mut row = Row::default();
    for talk in talks.lock().expect("no panic").drain(..) {
        let talk = talk.lock().expect("no panic");
        let (answered, right) = match name.parse::<Protocol>() {
            Ok(protocol) => (first_answered(protocol, &talk), Finding::Protocol(protocol)),
            Err(()) => (talk.iter().position(|(way, _)| *way == Way::Response), Finding::Http1),
        };
        let found = found_in(&talk);
        let is_right = found.is_some_and(|(_, finding)| finding == right);
        if let Some((_, finding @ (Finding::Protocol(_) | Finding::Http1))) = found
            && !is_right
        {
            return Err(format!("{finding:?} of {name}: {:?}", talk.first()));
        }
        let Some(answered) = answered else { continue };
        row.answered += 1;
        row.in_first += u64::from(is_right && found.is_some_and(|(at, _)| at <= answered));
    }
    Ok(row)
}

/// Connections by what netra found them to be.
fn labels(scrape: &Scrape) -> BTreeMap<&'static str, u64> {
    let built_in = Protocol::ALL.iter().map(|protocol| protocol.name());
    let all = ["http1"].into_iter().chain(built_in);
    all.map(|name| (name, scrape.sum(DETECTED, &[("protocol", name)]))).collect()
}

/// One peer through netra.
fn ask(peer: &Peer<'_>, talks: &Talks, netra: &Netra<'_>) -> Result<Row, String> {
    let before = labels(&netra.scrape());
    (peer.ask)();
    netra.scrape_until("all over", |scrape| scrape.active() == 0)?;
    let mut row = judge(peer.protocol, talks)?;
    for (name, count) in labels(&netra.scrape()) {
        let more = count - before[name];
        *(if name == peer.protocol { &mut row.right } else { &mut row.wrong }) += more;
    }
    Ok(row)
}

/// All of them, on ports that nothing names: a table, no wrong label, and of a hundred connections that were
/// answered ninety-nine known by netra, and by their first exchange.
fn all_are_found(world: &World, peers: &[Peer<'_>]) {
    ip(&world.client, &format!("addr add {RELAY}/24 dev eth0\n"));
    let chain = "add table ip tape; \
         add chain ip tape out { type nat hook output priority -100; }";
    run(&world.client, &tool("nft", "nftables"), &[chain]);
    let ports: BTreeSet<u16> = peers.iter().map(|peer| peer.port).collect();
    let talks: BTreeMap<u16, Talks> =
        ports.into_iter().map(|port| (port, record(world, port))).collect();
    apply_rules(world, Backend::NftNative);
    let mut findings = Findings::default();
    let (mut rows, mut sum) = (vec![Row::default(); peers.len()], Row::default());
    for cell in cells_with(2) {
        let setup = Setup::new(cell).env("NETRA_DETECT", "true").env("NETRA_REPORTER", "none");
        let netra = Netra::start(world, &setup);
        for (peer, row) in peers.iter().zip(&mut rows) {
            let came = ask(peer, &talks[&peer.port], &netra);
            findings.check(cell, add(came, peer, row, &mut sum));
        }
        findings.check(cell, netra.finish());
    }
    remove_rules(world, Backend::NftNative);
    eprintln!("| protocol | who | answered | known by the first exchange | label | wrong |");
    for (peer, row) in peers.iter().zip(&rows) {
        let Row { answered, in_first, right, wrong } = row;
        let (protocol, who) = (peer.protocol, peer.who);
        eprintln!("| `{protocol}` | {who} | {answered} | {in_first} | {right} | {wrong} |");
        assert!(*answered > 0, "{protocol}: nothing was answered");
    }
    findings.conclude();
    assert_eq!(sum.wrong, 0, "{rows:?}");
    for good in [sum.in_first, sum.right] {
        assert!(good * 100 >= sum.answered * 99, "{sum:?}: {rows:?}");
    }
}

fn add(
    came: Result<Row, String>,
    peer: &Peer<'_>,
    row: &mut Row,
    sum: &mut Row,
) -> Result<(), String> {
    let came = came.map_err(|what| format!("{}: {what}", peer.protocol))?;
    for row in [row, sum] {
        row.answered += came.answered;
        row.in_first += came.in_first;
        (row.right, row.wrong) = (row.right + came.right, row.wrong + came.wrong);
    }
    Ok(())
}

#[test]
fn databases_are_found_where_nothing_names_them() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let mut odd = world.pod.command(super::python_path());
    odd.arg(super::peer("mongodb_server.py")).arg("27018");
    let _servers = [
        redis_server(&world),
        memcached::server(&world),
        postgresql::server(&world),
        mysql::server(&world),
        mongodb::nx_27017(&world),
        Server::start(&world, &world.pod, odd, 27018),
    ];
    let say = |script: &str, args: &[&str]| {
        python(&world.client, script, &[&[host.as_str()], args].concat());
    };
    let folder = world.dir().display().to_string();
    let bench = ["-h", &host, "-t", "set,get,lpush", "-n", "2000", "-c", "20", "-q"];
    let suite = tool("memccapable", "libmemcached-tools");
    let peers = [
        peer(("redis", "redis-py"), 6379, || say("redis_client.py", &["6379"])),
        peer(("redis", "redis-benchmark"), 6379, || {
            run(&world.client, &tool("redis-benchmark", "redis-tools"), &bench);
        }),
        peer(("memcached", "pymemcache, bmemcached, meta"), 11211, || {
            say("memcached_client.py", &["11211", "binary", "text", "meta"]);
        }),
        peer(("memcached", "memccapable -b"), 11211, || {
            run(&world.client, &suite, &["-h", &host, "-p", "11211", "-b"]);
        }),
        peer(("postgresql", "psycopg"), 5432, || say("postgresql_client.py", &["5432"])),
        peer(("mysql", "PyMySQL"), 3306, || say("mysql_client.py", &["3306", &folder])),
        peer(("mongodb", "pymongo"), 27017, || say("mongodb_client.py", &["27017"])),
        peer(("mongodb", "pymongo, odd things"), 27018, || {
            say("mongodb_odd_client.py", &["27018"]);
        }),
    ];
    all_are_found(&world, &peers);
}

#[test]
fn calls_are_found_where_nothing_names_them() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let forms = [
        (9090, "framed", "binary"),
        (9091, "framed", "compact"),
        (9092, "buffered", "binary"),
        (9093, "buffered", "lax"),
    ];
    let thrift = |(port, transport, protocol): (u16, &str, &str)| {
        let args = ["server", "0.0.0.0", &port.to_string(), transport, protocol];
        python_server(&world, "thrift_peer.py", port, &args)
    };
    let _thrift = forms.map(thrift);
    let _servers = [
        python_server(&world, "dubbo_peer.py", 20880, &["server", "20880"]),
        nginx(&world, "8080"),
    ];
    std::fs::write(world.dir().join("page"), "x".repeat(100_000)).expect("a file");
    let curl = tool("curl", "curl");
    let mut peers = vec![
        peer(("dubbo", "dubbo-py"), 20880, || {
            for _ in 0..5 {
                python(&world.client, "dubbo_peer.py", &["client", &host, "20880"]);
            }
        }),
        peer(("http1", "curl, nginx"), 8080, || {
            for target in ["page", "none", "page"].iter().cycle().take(12) {
                let url = format!("http://{host}:8080/{target}");
                run(&world.client, &curl, &["-s", "-o", "/dev/null", &url, &url]);
            }
        }),
    ];
    for (port, transport, protocol) in forms {
        let (world, host) = (&world, &host);
        peers.push(peer(("thrift", transport_of(transport, protocol)), port, move || {
            let port = port.to_string();
            for _ in 0..3 {
                let args = ["client", host, &port, transport, protocol];
                python(&world.client, "thrift_peer.py", &args);
            }
        }));
    }
    all_are_found(&world, &peers);
}

fn transport_of(transport: &str, protocol: &str) -> &'static str {
    match (transport, protocol) {
        ("framed", "binary") => "thriftpy2, framed binary",
        ("framed", _) => "thriftpy2, framed compact",
        (_, "binary") => "thriftpy2, binary",
        _ => "thriftpy2, binary without a version",
    }
}

#[test]
fn brokers_are_found_where_nothing_names_them() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let _servers = [
        python_server(&world, "kafka_peer.py", 9092, &["server", &host, "9092"]),
        brokers::nats(&world),
        brokers::mosquitto(&world),
        brokers::zookeeper(&world),
    ];
    let _rabbit = brokers::rabbitmq(&world);
    let say = |script: &str, args: &[&str]| {
        python(&world.client, script, &[&[host.as_str()], args].concat());
    };
    let peers = [
        peer(("kafka", "librdkafka, kafka-python"), 9092, || {
            python(&world.client, "kafka_peer.py", &["client", &host, "9092"]);
        }),
        peer(("nats", "nats-py"), 4222, || say("nats_client.py", &["4222"])),
        peer(("mqtt", "paho"), 1883, || say("mqtt_client.py", &["1883", "20000"])),
        peer(("amqp", "pika"), 5672, || say("amqp_client.py", &["5672", "20000"])),
        peer(("zookeeper", "kazoo"), 2181, || say("zookeeper_client.py", &["2181", "20000"])),
    ];
    all_are_found(&world, &peers);
}
