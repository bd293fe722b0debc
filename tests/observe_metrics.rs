//! What `/metrics` says, to programs that know better than we do: promtool and a real Prometheus;
//! and that its port and the admin's stand whatever comes.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use support::matrix;
use support::netra::{ADMIN_PORT, Backend, METRICS_PORT, Netra, Setup, apply_rules};
use support::programs::{self, Server, run};
use support::scrape::{self, Scrape};
use support::sink::Sink;
use support::wait_until;
use support::webapp::{self, Client};
use support::world::{CLIENT_V4, POD_V4, World};

/// netra with one inbound and one outbound HTTP application, every trace sampled.
fn start(world: &World) -> (Netra<'_>, SocketAddr, SocketAddr) {
    apply_rules(world, Backend::NftNative);
    let inbound = webapp::serve(&world.pod, POD_V4, 2);
    let outbound = webapp::serve(&world.client, CLIENT_V4, 2);
    let ports = format!("{},{}", inbound.port(), outbound.port());
    let cell = matrix::cells_with(2)[0];
    let setup = Setup::new(cell)
        .env("NETRA_HTTP_PORTS", ports)
        .env("NETRA_PROTOCOLS", "6379=redis")
        .env("JAEGER_SAMPLER_TYPE", "const")
        .env("JAEGER_SAMPLER_PARAM", "1");
    (Netra::start(world, &setup), inbound, outbound)
}

fn tool(name: &str, package: &str) -> PathBuf {
    let path = Path::new("/usr/bin").join(name);
    assert!(path.exists(), "{} is missing: Debian package {package}", path.display());
    path
}

fn promtool(world: &World, args: &[&str], stdin: &str) {
    let mut command = world.pod.command(tool("promtool", "prometheus"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool");
    child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "promtool {args:?}: {said}");
}

fn text(answer: std::io::Result<(u16, String, Vec<u8>)>) -> (u16, String, String) {
    let (status, head, body) = answer.expect("an answer");
    (status, head, String::from_utf8_lossy(&body).into_owned())
}

/// Every name of the specification is there, promtool has nothing to say against any, and what
/// peers choose adds no series.
#[test]
fn series_are_listed_and_fixed() {
    let Some(world) = World::new() else { return };
    let (netra, inbound, outbound) = start(&world);
    let (_, body) = scrape::get(&world.pod, METRICS_PORT, "/metrics").expect("/metrics");
    promtool(&world, &["check", "metrics"], &body);
    let before = netra.scrape().series();
    let named =
        |name: &str| before.iter().filter(|it| it.starts_with(&format!("{name}{{"))).count();
    for (name, count) in SERIES {
        assert_eq!(named(name), *count, "{name}");
    }
    let listed: usize = SERIES.iter().map(|(_, count)| count).sum();
    let unlisted: Vec<_> = before
        .iter()
        .filter(|it| !SERIES.iter().any(|(name, _)| it.starts_with(&format!("{name}{{"))))
        .collect();
    assert!(unlisted.is_empty() && listed == before.len(), "not listed: {unlisted:?}");
    let mut clients =
        [Client::connect(&world.client, inbound), Client::connect(&world.pod, outbound)];
    for n in 0..1000 {
        let method = if n % 2 == 0 { format!("M{n}") } else { "GET".into() };
        let headers = format!("X-Request-Id: id-{n}\r\nX-Forwarded-Host: h{n}\r\n");
        let target = format!("http://host-{n}.example/path/{n}?q={n}");
        assert_eq!(clients[n % 2].request(&method, &target, &headers), 200);
    }
    drop(clients);
    let after = netra.scrape();
    assert_eq!(after.series(), before);
    assert_eq!(after.sum("netra_http_requests_total", &[("status_class", "2xx")]), 1000);
    assert_eq!(
        after.sum("netra_proxy_overhead_seconds_count", &[]),
        after.sum("netra_http_request_duration_seconds_count", &[]),
    );
    netra.end().unwrap();
}

/// All series of a netra with two shards. Histograms have 39 buckets.
const SERIES: &[(&str, usize)] = &[
    ("netra_tcp_connections_opened_total", 2 * 17),
    ("netra_tcp_connections_closed_total", 2 * 14),
    ("netra_tcp_bytes_total", 4),
    ("netra_upstream_connect_failures_total", 7),
    ("netra_http_requests_total", 2 * 9 * 6),
    ("netra_opaque_total", 44),
    ("netra_tunnels_total", 14),
    ("netra_http2_total", 4),
    ("netra_message_edits_total", 6),
    ("netra_messages_refused_total", 7),
    ("netra_answer_timeouts_total", 2),
    ("netra_detected_total", 17),
    ("netra_joins_total", 7),
    ("netra_spans_total", 7),
    ("netra_names_total", 5),
    ("netra_metric_pushes_total", 3),
    ("netra_access_log_total", 3),
    ("netra_memory_shed_total", 3),
    ("netra_admin_orders_total", 2),
    ("netra_own_connections_cut_total", 1),
    ("netra_misplaced_total", 4),
    ("netra_no_request_id_total", 1),
    ("netra_patch_full_total", 1),
    ("netra_spans_cut_total", 1),
    ("netra_context_hits_total", 1),
    ("netra_context_misses_total", 1),
    ("netra_context_evicted_total", 1),
    ("netra_context_replication_dropped_total", 1),
    ("netra_routed_total", 1),
    ("netra_route_malformed_total", 1),
    ("netra_route_unreachable_total", 1),
    ("netra_route_refused_total", 6),
    ("netra_route_stays_total", 4),
    ("netra_route_next_address_total", 1),
    ("netra_tried_elsewhere_total", 1),
    ("netra_legs_opened_total", 1),
    ("netra_legs_lost_total", 1),
    ("netra_mirrored_total", 7),
    ("netra_sent_again_total", 1),
    ("netra_not_kept_total", 1),
    ("netra_loop_rejected_total", 1),
    ("netra_foreign_destination_total", 1),
    ("netra_own_dial_rejected_total", 1),
    ("netra_spare_source_total", 1),
    ("netra_no_original_dst_total", 1),
    ("netra_accept_paused_total", 1),
    ("netra_accept_errors_total", 1),
    ("netra_urgent_dropped_total", 1),
    ("netra_buffer_starved_total", 1),
    ("netra_splice_started_total", 1),
    ("netra_splice_bytes_total", 1),
    ("netra_pipe_starved_total", 1),
    ("netra_back_pressure_total", 1),
    ("netra_shard_turns_total", 2),
    ("netra_shard_spins_total", 2),
    ("netra_shard_parks_total", 2),
    ("netra_shard_busy_seconds_total", 2),
    ("netra_tcp_connections_active", 2),
    ("netra_legs_active", 2),
    ("netra_mirrors_active", 2),
    ("netra_buffers_used", 2),
    ("netra_buffers_max", 2),
    ("netra_pipes_used", 2),
    ("netra_context_entries", 2),
    ("netra_held_bytes", 2),
    ("netra_accept_full", 2),
    ("netra_dial_seconds_sum", 1),
    ("netra_dial_seconds_count", 1),
    ("netra_dial_seconds_bucket", 39),
    ("netra_proxy_overhead_seconds_sum", 2),
    ("netra_proxy_overhead_seconds_count", 2),
    ("netra_proxy_overhead_seconds_bucket", 2 * 39),
    ("netra_http_request_duration_seconds_sum", 2),
    ("netra_http_request_duration_seconds_count", 2),
    ("netra_http_request_duration_seconds_bucket", 2 * 39),
    ("netra_io_driver", 2),
    ("netra_build_info", 1),
    ("netra_allocator_committed_bytes", 1),
    ("netra_allocator_committed_bytes_max", 1),
    ("netra_log_lines_dropped_total", 1),
    ("process_resident_memory_bytes", 1),
    ("process_virtual_memory_bytes", 1),
    ("process_threads", 1),
    ("process_open_fds", 1),
    ("process_max_fds", 1),
    ("process_start_time_seconds", 1),
    ("process_cpu_seconds_total", 1),
];

/// What one rule from a netra-control adds, which does not answer.
const SERIES_OF_RULES: &[(&str, usize)] = &[
    ("netra_rules", 1),
    ("netra_rules_current", 1),
    ("netra_rules_generation", 1),
    ("netra_rules_hits_total", 1),
    ("netra_rules_reload_total", 2),
    ("netra_rules_stale_seconds", 1),
];

#[test]
fn rules_add_a_series_each_and_six_beside() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let cache = world.dir().join("rules.yaml");
    let rule = "apiVersion: netra.io/v1alpha1\nkind: Authorization\nmetadata: {name: a}\n\
                spec: {action: DENY, protocol: redis, rules: [{to: [{attributes: {key: {exact: a}}}]}]}\n";
    fs::write(&cache, rule).unwrap();
    let setup = Setup::new(matrix::cells_with(2)[0])
        .env("NETRA_RULES_URL", "http://127.0.0.1:9")
        .env("NETRA_RULES_CACHE", cache.display());
    let netra = Netra::start(&world, &setup);
    let (_, body) = scrape::get(&world.pod, METRICS_PORT, "/metrics").expect("/metrics");
    promtool(&world, &["check", "metrics"], &body);
    let mut counted = std::collections::BTreeMap::new();
    for series in netra.scrape().series() {
        let name = series.split('{').next().unwrap();
        if !SERIES.iter().any(|(known, _)| *known == name) {
            *counted.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    let counted: Vec<_> = counted.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counted, SERIES_OF_RULES);
    netra.end().unwrap();
}

/// A Prometheus that scrapes netra five times a second.
struct Prometheus<'w> {
    world: &'w World,
    child: Child,
}

const PROMETHEUS_PORT: u16 = 19_090;

impl<'w> Prometheus<'w> {
    fn start(world: &'w World, features: &str) -> Self {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/prometheus/alerts.yml");
        let config = world.dir().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 200ms, evaluation_interval: 500ms}}\n\
             rule_files: [{}]\n\
             scrape_configs:\n\
             - {{job_name: netra, static_configs: [{{targets: ['127.0.0.1:{METRICS_PORT}']}}]}}\n",
            rules.display()
        );
        fs::write(&config, text).expect("a configuration");
        let mut command = world.pod.command(tool("prometheus", "prometheus"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", world.dir().join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}"))
            .arg(format!("--enable-feature={features}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(world.dir().join("prometheus.log")).expect("a log"));
        let child = command.spawn().expect("prometheus starts");
        Self { world, child }
    }

    /// An answer of its API; None while there is none.
    fn api(&self, target: &str) -> Option<Value> {
        let path = format!("GET /api/v1/{target}");
        let (status, _, body) =
            scrape::ask(&self.world.pod, PROMETHEUS_PORT, &path, "", b"").ok()?;
        let value: Value = serde_json::from_slice(&body).ok()?;
        assert!(status == 200 || status == 503, "{target}: {value}");
        Some(value["data"].clone())
    }

    fn query(&self, expression: &str) -> Option<Value> {
        Some(self.api(&format!("query?query={}", encoded(expression)))?["result"].clone())
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A real Prometheus takes netra's OpenMetrics with its exemplars, and every expression of the
/// dashboard and of the alerts means something to it.
#[test]
fn heavy_prometheus_scrapes_and_the_dashboard_asks_for_what_there_is() {
    let Some(world) = World::new() else { return };
    let (netra, inbound, outbound) = start(&world);
    let prometheus = Prometheus::start(&world, "exemplar-storage");
    let mut redis = world.client.command(programs::tool("redis-server", "redis-server"));
    redis.args(["--port", "6379", "--save", "", "--protected-mode", "no", "--bind", "0.0.0.0"]);
    let _redis = Server::start(&world, &world.client, redis, 6379);
    let cli = programs::tool("redis-cli", "redis-tools");
    for command in [["set", "a"], ["get", "a"]] {
        let value = &["1"][..usize::from(command[0] == "set")];
        run(&world.pod, &cli, &[&["-h", "10.61.0.1"][..], &command[..], value].concat());
    }
    let mut clients =
        [Client::connect(&world.client, inbound), Client::connect(&world.pod, outbound)];
    let is_up = || prometheus.query("up").is_some_and(|rows| rows[0]["value"][1] == "1");
    assert!(wait_until(Duration::from_secs(30), is_up), "Prometheus cannot scrape netra");
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        for client in &mut clients {
            client.get("/");
            client.get("/status/503");
        }
    }
    let sum = |expression: &str| -> f64 {
        let rows = prometheus.query(expression).expect("an answer");
        rows[0]["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
    };
    assert!(sum("sum(rate(netra_http_requests_total[10s]))") > 10.0);
    assert!(
        sum("histogram_quantile(0.99, sum by (le) (netra_proxy_overhead_seconds_bucket))") > 0.0
    );
    let now = format!("{:?}", std::time::SystemTime::UNIX_EPOCH.elapsed().expect("now").as_secs());
    let exemplars = prometheus
        .api(&format!(
            "query_exemplars?query=netra_proxy_overhead_seconds_bucket&start=0&end={now}"
        ))
        .expect("exemplars");
    let trace = &exemplars[0]["exemplars"][0]["labels"]["trace_id"];
    assert_eq!(trace.as_str().map(str::len), Some(32), "{exemplars}");
    let (expressions, panels) = dashboard();
    assert!(expressions.len() > 40);
    for expression in &expressions {
        prometheus.query(expression).unwrap_or_else(|| panic!("no answer: {expression}"));
        let names = names_in(expression);
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            let count = sum(&format!("count({{__name__=\"{name}\"}})"));
            assert!(count >= 1.0, "{name} is not scraped, but asked for: {expression}");
        }
    }
    assert!(panels > 25);
    let rules = prometheus.api("rules").expect("rules");
    for rule in rules["groups"][0]["rules"].as_array().expect("rules") {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    drop((clients, prometheus));
    netra.end().unwrap();
}

/// A Prometheus that knows native histograms asks for them and gets them: their counts are those of
/// the usual ones, and their quantiles lie where those do.
#[test]
fn heavy_prometheus_takes_native_histograms() {
    let Some(world) = World::new() else { return };
    let (netra, inbound, _) = start(&world);
    let prometheus = Prometheus::start(&world, "native-histograms,exemplar-storage");
    let mut client = Client::connect(&world.client, inbound);
    for _ in 0..500 {
        client.get("/");
    }
    let number = |expression: &str| -> Option<f64> {
        let rows = prometheus.query(expression)?;
        rows[0]["value"][1].as_str()?.parse().ok()
    };
    let name = "netra_http_request_duration_seconds{direction=\"inbound\"}";
    let counted = || number(&format!("histogram_count({name})")) == Some(500.0);
    assert!(wait_until(Duration::from_secs(30), counted), "{:?}", prometheus.query(name));
    let here = netra.scrape();
    let labels = [("direction", "inbound")];
    assert_eq!(here.sum("netra_http_request_duration_seconds_count", &labels), 500);
    // Half of the requests took less than that, by the usual buckets and by these.
    let median = number(&format!("histogram_quantile(0.5, {name})")).expect("a quantile");
    let below = |seconds: f64| {
        number(&format!("histogram_fraction(0, {seconds}, {name})")).expect("a share")
    };
    assert!((0.4..0.6).contains(&below(median)), "{median}: {}", below(median));
    assert!(median > 1e-6 && median < 1.0, "{median}");
    assert_eq!(number("sum(netra_http_requests_total)"), Some(500.0));
    assert_eq!(number("netra_build_info"), Some(1.0));
    drop((client, prometheus));
    netra.end().unwrap();
}

/// Metrics that are pushed, as somebody else's decoder reads them: what is added up is what was done,
/// whichever way it is told, and the end tells the rest.
#[test]
fn metrics_are_pushed_in_opentelemetrys_names() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let inbound = webapp::serve(&world.pod, POD_V4, 2);
    let sink = Sink::start(&world);
    for (index, (protocol, temporality, aggregation)) in [
        ("http/protobuf", "delta", "explicit_bucket_histogram"),
        ("grpc", "cumulative", "base2_exponential_bucket_histogram"),
    ]
    .into_iter()
    .enumerate()
    {
        let port = [sink.ports().otlp_http, sink.ports().otlp_grpc][index];
        let cell = matrix::cells_with(2)[index % matrix::cells_with(2).len()];
        let setup = Setup::new(cell)
            .env("NETRA_HTTP_PORTS", inbound.port())
            .env("NETRA_REPORTER", "none")
            .env("OTEL_METRICS_EXPORTER", "otlp")
            .env("OTEL_METRIC_EXPORT_INTERVAL", 300)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))
            .env("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality)
            .env("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", aggregation)
            .reporting();
        let netra = Netra::start(&world, &setup);
        let mut client = Client::connect(&world.client, inbound);
        let mut told = Told::default();
        for _ in 0..3 {
            for _ in 0..10 {
                client.get("/");
            }
            told.take(sink.next().expect("a push"), temporality == "delta");
        }
        drop(client);
        netra.end().unwrap();
        // What was pushed between, and the last one.
        while told.requests < 30.0 {
            told.take(sink.next().expect("the rest"), temporality == "delta");
        }
        assert_eq!((told.requests, told.counted), (30.0, 30.0), "{protocol}");
        let kind = if index == 0 { "histogram" } else { "exponential_histogram" };
        assert_eq!(told.kind, kind);
        sink.clear();
    }
}

/// What pushes have come to.
#[derive(Default)]
struct Told {
    requests: f64,
    counted: f64,
    kind: String,
}

impl Told {
    fn take(&mut self, push: Value, is_delta: bool) {
        let tags = push["process"]["tags"].as_array().expect("tags");
        assert!(tags.iter().any(|tag| tag[0] == "service.name"), "{push}");
        let metrics = &push["metrics"];
        assert!(metrics["netra.tcp_connections_active"]["kind"] == "gauge", "{push}");
        assert_eq!(metrics["process.memory.usage"]["unit"], "By");
        for (name, sum) in [
            ("http.server.request.duration", &mut self.requests),
            ("netra.http_requests", &mut self.counted),
        ] {
            let metric = &metrics[name];
            let Some(total) = metric["total"].as_f64() else { continue };
            assert_eq!(metric["temporality"], if is_delta { 1 } else { 2 }, "{name}");
            *sum = if is_delta { *sum + total } else { total };
            if let Some(buckets) = metric["buckets"].as_array() {
                assert_eq!(buckets.iter().filter_map(Value::as_f64).sum::<f64>(), total);
                assert_eq!(metric["unit"], "s");
                self.kind = metric["kind"].as_str().expect("a kind").to_owned();
            }
        }
    }
}

/// The dashboard's expressions with its variables filled in, and how many panels it has.
fn dashboard() -> (Vec<String>, usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/grafana/netra.json");
    let text = fs::read_to_string(path).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let filled = |text: &str| {
        text.replace("$__rate_interval", "10s").replace("$job", ".*").replace("$instance", ".*")
    };
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
    let expressions =
        targets.chain(annotations).map(|it| filled(it["expr"].as_str().expect("expr")));
    (expressions.collect(), panels.len())
}

/// The metrics in an expression: words before a selector.
fn names_in(expression: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in expression.match_indices('{') {
        let before = &expression[..at];
        let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.push(before[start.map_or(0, |start| start + 1)..].to_owned());
    }
    names
}

#[test]
fn alerts_are_rules() {
    let Some(world) = World::new() else { return };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/prometheus/alerts.yml");
    promtool(&world, &["check", "rules", rules.to_str().expect("UTF-8")], "");
}

/// Slow heads, huge targets, wrong methods, ten thousand requests: both ports go on, and so does
/// traffic.
#[test]
fn heavy_ports_of_netra_stand_whatever_comes() {
    let Some(world) = World::new() else { return };
    let (netra, inbound, _) = start(&world);
    let mut client = Client::connect(&world.client, inbound);
    for port in [METRICS_PORT, ADMIN_PORT] {
        let path = if port == METRICS_PORT { "/ready" } else { "/log-level" };
        let mut slow: Vec<TcpStream> = (0..100)
            .map(|n| {
                let mut stream = script_connect(&world, port);
                let _ = stream.write_all(format!("GET /{n} HTTP/1.1\r\nX").as_bytes());
                stream
            })
            .collect();
        let huge = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000));
        let mut stream = script_connect(&world, port);
        let _ = stream.write_all(huge.as_bytes());
        let mut said = [0; 32];
        let len = stream.read(&mut said).unwrap_or(0);
        let said = String::from_utf8_lossy(&said[..len]).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
        for method in ["PUT", "DELETE", "BREW"] {
            let (status, head, _) =
                text(scrape::ask(&world.pod, port, &format!("{method} {path}"), "", b""));
            assert_eq!(status, 405, "{method} {path}");
            assert!(head.to_ascii_lowercase().contains("\r\nallow: get, head"), "{head}");
        }
        let garbage = scrape::ask(&world.pod, port, "\u{0}\u{1}\u{2}", "", b"\xff\xfe");
        assert!(garbage.is_err() || garbage.is_ok_and(|it| it.0 == 400 || it.0 == 0));
        ten_thousand(&world, port, path);
        for stream in &mut slow {
            let _ = stream.write_all(b"-");
        }
        assert_eq!(client.get("/"), 200);
    }
    drop(client);
    netra.end().unwrap();
}

fn script_connect(world: &World, port: u16) -> TcpStream {
    let stream =
        support::script::connect(&world.pod, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    stream.expect("a connection")
}

/// Requests in turn on one connection.
fn ten_thousand(world: &World, port: u16, path: &str) {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut client = Client::connect(&world.pod, to).calling("localhost");
    for n in 0..10_000 {
        let mut status = client.get(path);
        if n % 1000 == 0 {
            status = client.get("/nothing") - 204;
        }
        assert_eq!(status, 200);
    }
}

/// A scrape parses as one whose values are numbers, in both formats.
#[test]
fn openmetrics_and_text_by_negotiation() {
    let Some(world) = World::new() else { return };
    let (netra, inbound, _) = start(&world);
    assert_eq!(Client::connect(&world.client, inbound).get("/"), 200);
    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    // The trace is noted by the export thread, a moment later.
    let with_trace = || {
        let (_, head, body) =
            text(scrape::ask(&world.pod, METRICS_PORT, "GET /metrics", accept, b""));
        head.contains("application/openmetrics-text") && body.contains("# {trace_id=\"")
    };
    assert!(wait_until(Duration::from_secs(5), with_trace));
    let (_, head, body) = text(scrape::ask(&world.pod, METRICS_PORT, "GET /metrics", "", b""));
    assert!(head.contains("text/plain; version=0.0.4") && !body.contains("trace_id"), "{head}");
    assert!(Scrape::parse(&body).active() == 0);
    let (status, _, body) = text(scrape::ask(&world.pod, METRICS_PORT, "GET /startup", "", b""));
    assert_eq!((status, body.as_str()), (200, "started\n"));
    netra.end().unwrap();
}
