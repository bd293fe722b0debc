//! At three in the morning: faults made on purpose, each found by one command or one look, with
//! what to do about it. Every test reads what the tools print.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use support::matrix::{self, Cell, Driver, Findings};
use support::netra::{
    ADMIN_PORT, Backend, Netra, PORT, Setup, UID, apply_rules, init_binary, netra_binary,
};
use support::world::{CLIENT_V4, POD_V4, World, ip};
use support::{scrape, script, wait_until};

/// Longest time until a fault is to be found.
const FOUND_WITHIN: Duration = Duration::from_secs(30);
/// Nobody listens there.
const DEAD_PORT: u16 = 8089;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn failures(world: &World) -> Value {
    let asked = scrape::ask(&world.pod, ADMIN_PORT, "GET /failures", "", b"");
    let (status, _, body) = asked.expect("the admin port answers");
    assert_eq!(status, 200);
    serde_json::from_slice(&body).expect("JSON")
}

/// What a tool of netra's prints in the pod, as netra's user.
fn tool(world: &World, args: &[&str]) -> String {
    tool_with(world, UID, &[], args)
}

fn tool_with(world: &World, uid: u32, env: &[(&str, &str)], args: &[&str]) -> String {
    let mut command = world.pod.command_as(netra_binary(), Some(uid), None);
    command.args(args).env_clear().envs(env.iter().copied());
    said(&mut command)
}

/// What the rules' doctor prints there, with all privileges.
fn init_doctor(world: &World) -> String {
    said(world.pod.command(init_binary()).arg("doctor"))
}

fn said(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// The line of a doctor about one thing, and the advice below it.
fn line_of<'t>(doctor: &'t str, result: &str, name: &str) -> Option<&'t str> {
    let begin = format!("{result:<5} {name} ");
    let at = doctor.lines().find(|line| line.starts_with(&begin))?;
    let from = at.as_ptr() as usize - doctor.as_ptr() as usize;
    let lines: usize = doctor[from..].split_inclusive('\n').take(2).map(str::len).sum();
    Some(&doctor[from..from + lines])
}

/// One request of a client that takes whatever comes.
fn ask(world: &World, to: SocketAddr, id: &str) -> Vec<u8> {
    let Ok(mut peer) = script::connect(&world.pod, to) else { return Vec::new() };
    let head = format!(
        "GET /orders?id=7 HTTP/1.1\r\nHost: shop\r\nX-Request-Id: {id}\r\nuber-trace-id: {TRACE}:1:0:1\r\n\r\n"
    );
    let _ = peer.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = peer.set_read_timeout(Some(Duration::from_secs(8)));
    let _ = peer.read_to_end(&mut answer);
    answer
}

fn traced(cell: Cell, port: u16) -> Setup {
    Setup::new(cell)
        .env("NETRA_HTTP_PORTS", port)
        .env("NETRA_ACCESS_LOG", "0.0001")
        .env("NETRA_REPORTER", "stdout")
        .env("NETRA_CONNECT_TIMEOUT_MS", 700)
}

/// Waits until a look finds what it is for.
fn found(what: &str, mut look: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    match wait_until(FOUND_WITHIN, &mut look) {
        true => {
            eprintln!("{what}: found after {:?}", begun.elapsed());
            Ok(())
        }
        false => Err(format!("{what}: not found within {FOUND_WITHIN:?}")),
    }
}

fn has(text: &str, parts: &[&str]) -> Result<(), String> {
    match parts.iter().find(|part| !text.contains(**part)) {
        None => Ok(()),
        Some(part) => Err(format!("{part:?} is not in\n{text}")),
    }
}

fn in_both(check: impl Fn(&World, Cell) -> Result<(), String>) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells_with(2) {
        findings.check(cell, check(&world, cell));
    }
    findings.conclude();
}

/// Forty-five dials that are refused are forty-five lines, one top destination, and spans with their
/// trace and why.
#[test]
fn an_upstream_that_nobody_listens_at() {
    const DIALS: usize = 45;
    in_both(|world, cell| {
        let netra = Netra::start(world, &traced(cell, DEAD_PORT));
        let to = SocketAddr::new(CLIENT_V4, DEAD_PORT);
        for number in 0..DIALS {
            ask(world, to, &format!("night-{number}"));
        }
        let dials = u64::try_from(DIALS).expect("few");
        found("the top destination", || failures(world)["total"] == dials)?;
        let seen = failures(world);
        let top = &seen["destinations"][0];
        let expected = [
            ("destination", Value::from(to.to_string())),
            ("flag", "UF".into()),
            ("reason", "upstream_refused".into()),
            ("side", "upstream".into()),
            ("count", DIALS.into()),
            ("count_may_exceed_by", 0.into()),
        ];
        for (name, value) in expected {
            if top[name] != value {
                return Err(format!("{name} is not {value} in {top:#}"));
            }
        }
        let last = &seen["failures"][0];
        if last["errno"] != "ECONNREFUSED" || last["direction"] != "outbound" {
            return Err(format!("{last:#}"));
        }
        let top = tool(world, &["top", "--once"]);
        let told = [
            "failures, 45 since the start",
            "45 x UF upstream_refused",
            "nobody listens there: start what should",
        ];
        has(&top, &told)?;
        // The log's thread takes what is there every 50 ms.
        let lines = || {
            let log = netra.log();
            log.lines()
                .filter(|line| line.contains("flag=UF") && line.contains("kind=connection"))
                .count()
        };
        found("a line for each", || lines() == DIALS)?;
        spans_say_why(world, &netra)?;
        netra.finish()
    });
}

/// Where the head had come by the time that the dial failed, there is a span with the request's own
/// trace; of a client that gives netra time, always.
fn spans_say_why(world: &World, netra: &Netra<'_>) -> Result<(), String> {
    let [blackhole, _] = world.blackhole();
    ask(world, SocketAddr::new(blackhole, DEAD_PORT), "night-late");
    let span = || -> Option<Value> {
        let log = netra.log();
        let mut spans = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        spans.find(|span| span["tags"]["http.request_id"] == "night-late")
    };
    found("the span", || span().is_some())?;
    let span = span().expect("it was there");
    let tags = &span["tags"];
    let is_right = span["trace_id"] == TRACE
        && span["kind"] == "client"
        && tags["error"] == true
        && tags["netra.flag"] == "UT"
        && tags["netra.reason"] == "dial_timeout";
    if !is_right {
        return Err(format!("{span:#}"));
    }
    let seen = failures(world);
    let last = &seen["failures"][0];
    let expected = [("flag", "UT"), ("trace_id", TRACE), ("request_id", "night-late")];
    match expected.iter().find(|(name, value)| last[*name] != *value) {
        None => Ok(()),
        Some((name, value)) => Err(format!("{name} is not {value} in {last:#}")),
    }
}

/// A server that dies within its answer, by a reset and by an end.
#[test]
fn an_upstream_that_dies_within_its_answer() {
    in_both(|world, cell| {
        let listener = script::listen(&world.pod, POD_V4);
        let to = listener.local_addr().expect("bound");
        let netra = Netra::start(world, &traced(cell, to.port()));
        for is_reset in [true, false] {
            let mut client = script::connect(&world.client, to).map_err(|e| e.to_string())?;
            let head = format!(
                "GET / HTTP/1.1\r\nHost: shop\r\nX-Request-Id: dies\r\nuber-trace-id: {TRACE}:1:0:1\r\n\r\n"
            );
            client.write_all(head.as_bytes()).map_err(|e| e.to_string())?;
            let mut server = script::accept(&listener).ok_or("nobody dials")?;
            let _ = server.read(&mut [0; 4096]);
            let _ = server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            let _ = client.read(&mut [0; 4096]);
            if is_reset {
                abort(server);
            } else {
                drop(server);
            }
            let _ = client.read_to_end(&mut Vec::new());
            drop(client);
            let flag = if is_reset { "UR" } else { "UC" };
            let is_there = || {
                let last = failures(world)["failures"][0].clone();
                last["flag"] == flag && last["trace_id"] == TRACE && last["request_id"] == "dies"
            };
            found(flag, is_there).map_err(|what| format!("{what}\n{:#}", failures(world)))?;
        }
        let log = || netra.log();
        found("a line with the trace", || {
            log().lines().any(|line| line.contains("flag=UC") && line.contains(TRACE))
        })?;
        netra.finish()
    });
}

fn abort(peer: TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// What is refused by rule has its line and its reason, too.
#[test]
fn what_leads_back_to_netra_is_told_of() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let netra = Netra::start(
        &world,
        &Setup::new(Cell { driver: Driver::Epoll, shards: 1 }).env("NETRA_ACCESS_LOG", "all"),
    );
    let to = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), PORT);
    // The reset may come before the caller knows that netra had accepted.
    if let Ok(mut peer) = script::connect(&world.pod, to) {
        let _ = peer.read(&mut [0; 1]);
    }
    let letters = || failures(&world)["failures"][0]["flag"].clone();
    found("a dial of netra's own port", || letters() == "NO" || letters() == "LO").unwrap();
    let line = || netra.log().lines().any(|line| line.contains("side=netra"));
    found("its line", line).unwrap();
    netra.finish().unwrap();
}

/// Its drain is short: peers of these tests stay.
fn one_shard() -> Setup {
    Setup::new(Cell { driver: Driver::Epoll, shards: 1 }).env("NETRA_DRAIN_MS", 300)
}

/// New connections wait, and every look says so.
#[test]
fn no_descriptors_are_left() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let listener = script::listen(&world.pod, POD_V4);
    let to = listener.local_addr().expect("bound");
    let netra = Netra::start(&world, &one_shard().nofile(256));
    let connect = |_| script::connect(&world.client, to).expect("the kernel's queue takes it");
    let peers: Vec<TcpStream> = (0..150).map(connect).collect();
    let top = || tool(&world, &["top", "--once"]);
    found("top", || top().contains("no room on 1 of 1 shards: new ones wait")).unwrap();
    found("ready", || tool(&world, &["ready"]).contains("503")).unwrap();
    found("the log", || netra.log().contains("no room for further connections")).unwrap();
    has(&netra.log(), &["ulimit -n", "NETRA_CONNECTIONS_MAX"]).unwrap();
    let mut doctor = world.pod.command_as(netra_binary(), Some(UID), Some(256));
    doctor.args(["doctor", "--no-network", "--format=text"]).env_clear();
    let doctor = said(doctor.env("NETRA_SERVICE_NAME", "x").env("NETRA_CONNECTIONS_MAX", "500"));
    let line = line_of(&doctor, "warn", "descriptors").expect("a warning");
    has(line, &["256, for ", "500 need at least", "raise the hard limit"]).unwrap();
    drop(peers);
    netra.end().unwrap();
}

/// What a receiver of spans says, and who does not answer at all.
#[test]
fn a_receiver_of_spans_that_does_not_take_them() {
    let Some(world) = World::new() else { return };
    let listener = script::listen(&world.pod, Ipv4Addr::LOCALHOST.into());
    let at = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            let mut peer = peer;
            let _ = peer.read(&mut [0; 4096]);
            let _ = peer.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nno such path",
            );
        }
    });
    let doctor = |endpoint: &str, flags: &[&str]| {
        let env = [
            ("NETRA_SERVICE_NAME", "shop"),
            ("NETRA_HTTP_PORTS", "80"),
            ("NETRA_REPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ];
        tool_with(&world, UID, &env, &[&["doctor"], flags].concat())
    };
    let told = doctor(&format!("http://{at}"), &[]);
    let line = line_of(&told, "warn", "spans").unwrap_or_else(|| panic!("{told}"));
    has(line, &["404 Not Found: no such path", &at.to_string(), "spans are lost until"]).unwrap();
    let told = doctor("http://127.0.0.1:9", &[]);
    let line = line_of(&told, "warn", "spans").unwrap_or_else(|| panic!("{told}"));
    has(line, &["127.0.0.1:9: Connection refused", "is it there"]).unwrap();
    assert!(!doctor("http://127.0.0.1:9", &["--no-network"]).contains(" spans "), "it was asked");
}

/// Both doctors and the log say that nothing is redirected.
#[test]
fn the_rules_are_missing() {
    let Some(world) = World::new() else { return };
    let listener = script::listen(&world.pod, POD_V4);
    let to = listener.local_addr().expect("bound");
    let netra = Netra::start(&world, &one_shard());
    let _client = script::connect(&world.client, to).expect("past netra");
    let _server = script::accept(&listener).expect("past netra");
    found("the log", || netra.log().contains("misplaced: no rules redirect anything")).unwrap();
    has(&netra.log(), &["case=no_rules", "netra-init apply", "case=bypassed"]).unwrap();
    let metric = |case: &str| netra.scrape().sum("netra_misplaced_total", &[("case", case)]);
    assert!(metric("no_rules") > 0 && metric("bypassed") > 0 && metric("network_gone") == 0);
    let env = [("NETRA_SERVICE_NAME", "x")];
    let doctor = tool_with(&world, UID, &env, &["doctor", "--no-network"]);
    let rules = line_of(&doctor, "warn", "rules").unwrap_or_else(|| panic!("{doctor}"));
    has(rules, &["no rules redirect anything", "-> netra-init apply"]).unwrap();
    let place = line_of(&doctor, "warn", "place").unwrap_or_else(|| panic!("{doctor}"));
    has(place, &[&format!("reach port {} past netra", to.port()), "netra-init doctor"]).unwrap();
    let init = init_doctor(&world);
    let rules = line_of(&init, "warn", "rules").unwrap_or_else(|| panic!("{init}"));
    has(rules, &["netra-init apply"]).unwrap();
    assert!(
        line_of(&init, "ok", "sidecar").is_some_and(|line| line.contains("netra 0.")),
        "{init}"
    );
    // With rules nobody says so any more.
    apply_rules(&world, Backend::NftNative);
    let mut through = script::connect(&world.client, to).expect("through netra");
    let _ = through.write_all(b"x");
    let _other = script::accept(&listener).expect("netra dials");
    let doctor = tool_with(&world, UID, &env, &["doctor", "--no-network"]);
    let rules = line_of(&doctor, "ok", "rules").unwrap_or_else(|| panic!("{doctor}"));
    has(rules, &["1 connections were redirected since the start"]).unwrap();
    assert!(line_of(&init_doctor(&world), "ok", "rules").is_some());
    netra.end().unwrap();
}

/// A server of somebody else's where netra should be is no sidecar.
#[test]
fn another_program_has_the_port() {
    let Some(world) = World::new() else { return };
    let _other = world.pod.enter(|| TcpListener::bind(("0.0.0.0", PORT))).expect("free");
    let env = [("NETRA_SERVICE_NAME", "x")];
    let doctor = tool_with(&world, UID, &env, &["doctor", "--no-network"]);
    let line = line_of(&doctor, "fail", "NETRA_PORT").unwrap_or_else(|| panic!("{doctor}"));
    has(line, &["by a program of uid 0", "end that program, or give netra another port"]).unwrap();
    let init = init_doctor(&world);
    let line = line_of(&init, "warn", "sidecar").unwrap_or_else(|| panic!("{init}"));
    has(line, &["does not say that it is netra", "end that program"]).unwrap();
    let start = tool_with(&world, UID, &env, &[]);
    has(&start, &["cannot listen on port 14956 (NETRA_PORT)"]).unwrap();
}

/// The rules know another user: netra's own dials come back to it.
#[test]
fn the_rules_do_not_know_netras_user() {
    const OTHER: u32 = 1338;
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let listener = script::listen(&world.client, CLIENT_V4);
    let to = listener.local_addr().expect("bound");
    let netra = Netra::start(&world, &one_shard().user(OTHER));
    for _ in 0..3 {
        let _ = script::connect(&world.pod, to).map(|mut peer| peer.read(&mut [0; 1]));
    }
    let advice = "NETRA_SIDECAR_USER_ID";
    found("the log", || netra.log().contains(advice)).unwrap();
    let seen = failures(&world);
    let flags: Vec<_> = seen["destinations"].as_array().expect("a list").iter().collect();
    let own = flags.iter().find(|it| it["flag"] == "OD").expect("own dials");
    assert!(own["advice"].as_str().expect("advice").contains(advice));
    let doctor = tool_with(&world, OTHER, &[("NETRA_SERVICE_NAME", "x")], &["doctor"]);
    let line = line_of(&doctor, "warn", "own dials").unwrap_or_else(|| panic!("{doctor}"));
    has(line, &["back to it", advice]).unwrap();
    netra.end().unwrap();
}

/// A child that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An application with netra's own user is left alone by the rules, and so is all that it sends.
#[test]
fn the_application_has_netras_user() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut application = world.pod.command_as("python3", Some(UID), None);
    application.args(["-m", "http.server", "8085"]).current_dir(world.dir());
    let application = application.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _application = Ended(application.expect("python3"));
    let netra = Netra::start(&world, &one_shard());
    found("the log", || netra.log().contains("case=others_as_netra")).unwrap();
    has(&netra.log(), &["listens on port 8085 as netra's own user", "runAsUser"]).unwrap();
    let env = [("NETRA_SERVICE_NAME", "x")];
    let doctor = tool_with(&world, UID, &env, &["doctor", "--no-network"]);
    let line = line_of(&doctor, "warn", "place").unwrap_or_else(|| panic!("{doctor}"));
    has(line, &["port 8085 as netra's own user", "run it as another user"]).unwrap();
    let init = init_doctor(&world);
    let line = line_of(&init, "warn", "uid").unwrap_or_else(|| panic!("{init}"));
    has(line, &["1337", "another user"]).unwrap();
    netra.end().unwrap();
}

/// The container whose network netra shares was restarted: its old network is empty.
#[test]
fn the_network_is_gone() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let netra = Netra::start(&world, &one_shard());
    ip(&world.pod, "link del eth0\n");
    found("the log", || netra.log().contains("case=network_gone")).unwrap();
    has(&netra.log(), &["this network has no link any more", "restart netra, too"]).unwrap();
    let env = [("NETRA_SERVICE_NAME", "x")];
    let doctor = tool_with(&world, UID, &env, &["doctor", "--no-network"]);
    let line = line_of(&doctor, "warn", "place").unwrap_or_else(|| panic!("{doctor}"));
    has(line, &["no link any more", "restart netra, too"]).unwrap();
    netra.end().unwrap();
}

/// One text with all of it, and no secret.
#[test]
fn the_bundle_for_whoever_helps_has_it_all() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let env = [
        ("NETRA_SERVICE_NAME", "shop"),
        ("NETRA_HTTP_PORTS", "80"),
        ("JAEGER_ENDPOINT", "http://127.0.0.1:9/api/traces"),
        ("JAEGER_USER", "me"),
        ("JAEGER_PASSWORD", "s3cret"),
    ];
    let setup = env[1..].iter().fold(one_shard(), |it, (name, value)| it.env(name, value));
    let netra = Netra::start(&world, &setup);
    ask(&world, SocketAddr::new(CLIENT_V4, DEAD_PORT), "night");
    let file = world.dir().join("support.txt");
    let path = file.to_str().expect("UTF-8");
    let told = tool_with(&world, UID, &env, &["support", "--output", path]);
    has(&told, &["bytes in"]).unwrap();
    let text = std::fs::read_to_string(&file).expect("the bundle");
    let parts = [
        "==== versions",
        "==== settings",
        "NETRA_HTTP_PORTS=80",
        "==== netra doctor",
        "==== netra-init doctor",
        "==== netra-init status",
        "==== netra-init print",
        "netra/redirect",
        "/connections",
        "/failures",
        "\"UF\"",
        "/metrics",
        "netra_misplaced_total",
        "==== /proc/self/limits",
    ];
    has(&text, &parts).unwrap();
    assert!(!text.contains("s3cret"), "a secret");
    netra.end().unwrap();
}
