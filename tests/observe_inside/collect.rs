//! `netra collect` as its users meet it: real clients send, Grafana's requests are answered, a person
//! at a keyboard uses the page; restarts, forwarding, hostile spans.

use super::{one_shard, start, tool};
use crate::support::matrix::Driver;
use crate::support::netra::netra_binary;
use crate::support::webapp::Client;
use crate::support::world::{World, checked};
use crate::support::{PATIENCE, scrape, spans, wait_until};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PAGE: u16 = 16686;

/// A running collector, ended when this is dropped.
struct Collector<'w> {
    world: &'w World,
    child: Child,
    page: u16,
}

impl Drop for Collector<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'w> Collector<'w> {
    fn start(world: &'w World, page: u16, flags: &[&str]) -> Self {
        let mut command = world.pod.command(netra_binary());
        command.arg("collect").args(flags).arg("--page-port").arg(page.to_string());
        let child = command.stdout(Stdio::null()).spawn().expect("netra collect");
        let collector = Self { world, child, page };
        let answers =
            || scrape::get(&world.pod, page, "/healthz").is_ok_and(|(status, _)| status == 200);
        assert!(wait_until(PATIENCE, answers), "the collector does not answer");
        collector
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = scrape::get(&self.world.pod, self.page, path).expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Waits until so many spans are there.
    fn await_spans(&self, count: u64) {
        let spans = || self.get("/api/netra/state")["spans"].as_u64();
        let all = wait_until(PATIENCE, || spans() >= Some(count));
        assert!(all, "{:?} of {count} spans have come", spans());
    }

    fn end(mut self) {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(kill.expect("kill").success());
        assert!(self.child.wait().expect("its end").success());
    }

    fn edges(&self) -> Vec<(String, String, u64)> {
        let links = self.get("/api/dependencies?lookback=3600000");
        let text = |link: &Value, key: &str| link[key].as_str().unwrap_or_default().to_owned();
        let links = links["data"].as_array().expect("a list").iter();
        links
            .map(|link| {
                let count = link["callCount"].as_u64().unwrap_or(0);
                (text(link, "parent"), text(link, "child"), count)
            })
            .collect()
    }
}

fn send(world: &World, ports: [u16; 5]) {
    let mut command = world.pod.command(spans::python_path());
    command.arg(script("collect_clients.py")).args(ports.map(|port| port.to_string()));
    checked(command.output().expect("python"), "collect_clients.py");
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name)
}

const PORTS: [u16; 5] = [4317, 4318, 14268, 6831, 6832];
const WAYS: [&str; 8] = ["grpc", "grpcgz", "http", "httpgz", "json", "compact", "binary", "thrift"];
/// Four spans of ten traces by each way.
const SENT: u64 = 4 * 10 * WAYS.len() as u64;

#[test]
fn collect_takes_spans_of_every_client_and_says_who_asked_whom() {
    let Some(world) = World::new() else { return };
    let collector = Collector::start(&world, PAGE, &[]);
    send(&world, PORTS);
    collector.await_spans(SENT);
    let edges = collector.edges();
    for way in WAYS {
        let edge = |from: &str, to: &str| (format!("{way}-{from}"), to.to_owned(), 10);
        for edge in [edge("front", &format!("{way}-shop")), edge("shop", "postgresql db.test:5432")]
        {
            assert!(edges.contains(&edge), "{edge:?} is not in {edges:?}");
        }
        let failed = collector
            .get(&format!("/api/traces?service={way}-shop&tags=%7B%22error%22%3A%22true%22%7D"));
        let failed = failed["data"].as_array().expect("traces");
        assert_eq!(failed.len(), 1, "{way}: {failed:?}");
        assert_eq!(failed[0]["spans"].as_array().map(Vec::len), Some(4), "{way}");
        let all = collector.get(&format!("/api/traces?service={way}-front&limit=50&lookback=1h"));
        assert_eq!(all["data"].as_array().map(Vec::len), Some(10), "{way}");
    }
    assert_eq!(edges.len(), 2 * WAYS.len());
    let once = world.pod.command(netra_binary()).args(["collect", "--once", "--map"]).output();
    let text = checked(once.expect("netra collect"), "netra collect --once --map");
    let is_told = |line: &str| {
        let words: Vec<_> = line.split_whitespace().take(4).collect();
        words == ["grpc-front", "->", "grpc-shop", "10"]
    };
    assert!(text.lines().any(is_told), "{text}");
    let (_, metrics) = scrape::get(&world.pod, PAGE, "/metrics").expect("metrics");
    let calls = "traces_spanmetrics_calls_total{service=\"http-shop\",span_name=\"GET /offer\",span_kind=\"SPAN_KIND_SERVER\",status_code=\"STATUS_CODE_UNSET\"} 10";
    assert!(metrics.lines().any(|line| line == calls), "{metrics}");
    collector.end();
}

/// The sidecar's own spans, by Jaeger's agent and by OpenTelemetry's Rust SDK, which it has for OTLP.
#[test]
fn collect_shows_what_a_sidecar_sends() {
    let Some(world) = World::new() else { return };
    let collector = Collector::start(&world, PAGE, &["--ask-sidecars", "true"]);
    let always = [("JAEGER_SAMPLER_TYPE", "const"), ("JAEGER_SAMPLER_PARAM", "1")];
    let ways = [
        ("JAEGER_AGENT_HOST", "127.0.0.1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
    ];
    let mut count = 0;
    for way in ways {
        let settings = [&always[..], &[way]].concat();
        let (netra, inbound) = start(&world, one_shard(Driver::Epoll), &settings);
        let mut client = Client::connect(&world.client, inbound);
        for _ in 0..20 {
            assert_eq!(client.get("/orders/17"), 200);
        }
        count += 20;
        collector.await_spans(count);
        if way.0 == "JAEGER_AGENT_HOST" {
            let asked = || collector.get("/api/netra/sidecars").to_string();
            let driver = "netra_io_driver{driver=\\\"epoll\\\"}";
            let told = wait_until(PATIENCE * 2, || asked().contains(driver));
            assert!(told, "{}", asked());
        }
        drop((client, netra));
    }
    let map = collector.get("/api/netra/map?last=600");
    let nodes = map["map"]["nodes"].as_array().expect("nodes");
    let own = nodes.iter().find(|node| node["name"] == "e2e").expect("the service");
    assert_eq!((&own["figures"]["count"], &own["protocols"][0]), (&40.into(), &"http".into()));
    let sidecars = collector.get("/api/netra/sidecars");
    let sidecars = sidecars["sidecars"].as_array().expect("a list");
    let of = |client: &str| sidecars.iter().find(|one| one["tags"].to_string().contains(client));
    let (agent, otlp) = (of("jaeger.version").expect("one"), of("telemetry.sdk").expect("one"));
    assert!(agent["version"].as_str().is_some_and(|version| version.starts_with("netra-")));
    assert_eq!(
        (&agent["spans"], &otlp["spans"], &otlp["client"]),
        (&20.into(), &20.into(), &"netra".into())
    );
    let operations = collector.get("/api/netra/operations?service=e2e");
    let operations = operations["operations"].as_array().expect("a list");
    assert!(operations.iter().all(|one| one["name"] == "/orders/{id}"), "{operations:?}");
    collector.end();
}

#[test]
fn heavy_the_page_of_collect_is_used_by_keyboard() {
    let Some(world) = World::new() else { return };
    let collector = Collector::start(&world, PAGE, &[]);
    send(&world, PORTS);
    hostile(&collector);
    collector.await_spans(SENT + 1);
    let python = tool("/usr/bin/python3", "python3-websockets");
    let mut command = world.pod.command(python);
    command.arg(script("page_keys.py")).arg(tool("/usr/bin/chromium", "chromium"));
    command.arg(world.dir().join("chromium")).arg(format!("http://127.0.0.1:{PAGE}/"));
    let said = checked(command.env("HOME", world.dir()).output().expect("python"), "page_keys.py");
    let seen: Value = serde_json::from_str(&said).expect("JSON");
    let labels = seen["nodes"].as_array().expect("labels");
    let is_labelled = |start: &str| {
        labels.iter().any(|label| label.as_str().is_some_and(|label| label.starts_with(start)))
    };
    assert!(is_labelled("service grpc-front: ") && is_labelled("database postgresql"), "{seen}");
    assert!(is_labelled("service <img src=x onerror=harmed=true>"), "{seen}");
    assert_eq!((&seen["scripts_run"], &seen["errors"]), (&false.into(), &Value::Array(vec![])));
    assert!(seen["found"].as_u64() >= Some(5) && seen["critical"].as_u64() >= Some(2), "{seen}");
    assert!(seen["bars"].as_u64() >= Some(1) && seen["sidecars"].as_u64() >= Some(16), "{seen}");
    assert!(seen["tags"].as_str().is_some_and(|text| text.contains("PROCESS")), "{seen}");
    assert_eq!(seen["is_dark_another"], true, "{seen}");
    assert!(seen["focusable"].as_u64() > Some(25), "{seen}");
    assert_eq!(seen["nameless"], Value::Array(vec![]), "{seen}");
    collector.end();
}

/// A span whose every text is a script, with a tag of a megabyte.
fn hostile(collector: &Collector<'_>) {
    let script = "<img src=x onerror=harmed=true>";
    let long = "x".repeat(1 << 20);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    let (begin, end) = (now.as_nanos(), now.as_nanos() + 1_000_000);
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{script}"}}}}]}},
        "scopeSpans":[{{"spans":[{{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331",
        "name":"{script}","kind":2,"startTimeUnixNano":"{begin}","endTimeUnixNano":"{end}","attributes":[
        {{"key":"{script}","value":{{"stringValue":"{script}"}}}},{{"key":"long","value":{{"stringValue":"{long}"}}}}]}}]}}]}}]}}"#
    );
    let kind = "Content-Type: application/json\r\n";
    let pod = &collector.world.pod;
    let (status, ..) =
        scrape::ask(pod, 4318, "POST /v1/traces", kind, body.as_bytes()).expect("an answer");
    assert_eq!(status, 200);
}

#[test]
fn collect_bounds_and_marks_hostile_spans_and_refuses_what_is_none() {
    let Some(world) = World::new() else { return };
    let collector = Collector::start(&world, PAGE, &[]);
    hostile(&collector);
    collector.await_spans(1);
    let trace = collector.get("/api/traces/0af7651916cd43dd8448eb211c80319c");
    let span = &trace["data"][0]["spans"][0];
    assert!(span["warnings"][0].as_str().is_some_and(|text| text.contains("too long")), "{span}");
    assert!(trace.to_string().len() < 10_000);
    let post = |kind: &str, body: &[u8]| {
        let kind = format!("Content-Type: {kind}\r\n");
        scrape::ask(&world.pod, 4318, "POST /v1/traces", &kind, body).map(|answer| answer.0)
    };
    assert_eq!(post("application/json", b"{").ok(), Some(400));
    assert_eq!(post("application/x-protobuf", b"\x0a\xff").ok(), Some(400));
    assert_eq!(post("text/plain", b"").ok(), Some(415));
    let too_long = post("application/json", &vec![b' '; 17 << 20]);
    assert!(too_long.is_err() || too_long.is_ok_and(|status| status == 413));
    let (_, metrics) = scrape::get(&world.pod, PAGE, "/metrics").expect("metrics");
    for line in [
        "netra_collect_lost_total{what=\"cut_spans\"} 1",
        "netra_collect_lost_total{what=\"messages_malformed\"} 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    let elsewhere =
        scrape::ask(&world.pod, PAGE, "GET /api/services", "Sec-Fetch-Site: cross-site\r\n", b"");
    assert_eq!(elsewhere.expect("an answer").0, 403);
    collector.end();
}

/// One collector hands on to another, which has a copy on disk and is started again.
#[test]
fn collect_forwards_and_remembers() {
    let Some(world) = World::new() else { return };
    let copy = world.dir().join("spans.redb");
    let copy = copy.to_str().expect("UTF-8");
    let second = |page| {
        let flags = ["--http-port", "5318", "--disk", copy, "--grpc-port", "none", "--jaeger-port"];
        let rest = ["none", "--compact-port", "none", "--binary-port", "none"];
        Collector::start(&world, page, &[&flags[..], &rest].concat())
    };
    let behind = second(17_000);
    let first = Collector::start(&world, PAGE, &["--forward", "http://127.0.0.1:5318"]);
    send(&world, PORTS);
    first.await_spans(SENT);
    behind.await_spans(SENT);
    let edges = first.edges();
    assert_eq!(behind.edges(), edges);
    behind.end();
    let again = second(17_001);
    again.await_spans(SENT);
    assert_eq!(again.edges(), edges);
    let found = again.get("/api/traces?service=thrift-shop&limit=100");
    assert_eq!(found["data"].as_array().map(Vec::len), Some(10));
    again.end();
    first.end();
}

#[test]
fn collect_says_what_is_wrong_with_its_settings() {
    let Some(world) = World::new() else { return };
    let run = |flags: &[&str]| {
        let mut command = world.pod.command(netra_binary());
        let output = command.arg("collect").args(flags).output().expect("netra collect");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["--memory", "1MB"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("NETRA_COLLECT_MEMORY: \"1MB\" (--memory) is not allowed"), "{said}");
    assert_eq!(run(&["--check-config"]).0, Some(0));
    let collector = Collector::start(&world, PAGE, &[]);
    let (code, said) = run(&["--page-port", "16687"]);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("NETRA_COLLECT_GRPC_PORT 4317"), "{said}");
    collector.end();
}
