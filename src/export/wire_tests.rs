//! The real exporter, from rings to decoders that are not ours.

use super::*;
use crate::url::Url;
use netra_codecs::trace::{
    Outcome, SamplerTag, SpanKind, SpanRecord, SpanText, TraceContext, TraceFlags,
};
use netra_shards::{SpanSink as Ring, span_ring};
use serde_json::{Value as Json, json};
use spans::{Ports, SpanSink, tag};
use std::{io::Read, net::TcpListener, sync::atomic::Ordering::Relaxed, time::Instant};

#[path = "../../tests/support/spans.rs"]
#[allow(dead_code, unreachable_pub)]
pub(crate) mod spans;

fn plan(reporter: Reporter) -> ExportPlan {
    ExportPlan {
        service_name: "shop".into(),
        reporter,
        semconv: Semconv::Legacy,
        query: crate::mask::Query::Names,
        mapped_tags: vec!["tenant".into()],
        process_tags: vec![("zone".into(), "eu 1".into()), ("hostname".into(), "pod-7".into())],
        queue_spans: 8192,
        flush_interval: Duration::from_millis(20),
        logs_spans: false,
        headers_file: String::new(),
    }
}

const TRACE: u128 = 0xfedc_ba98_7654_3210_8899_aabb_ccdd_eeff;

/// A root of a server with every text, and a client's span that failed.
fn two_spans() -> [SpanRecord; 2] {
    let root = TraceContext::root(TRACE, 0x8000_0000_0000_0001, TraceFlags::SAMPLED);
    let mut server = SpanRecord::begin(root, SpanKind::Server, 1_700_000_000_000_123_456);
    server.duration_ns = 2_345_678;
    server.overhead_ns = 12_999;
    server.remote = Some("10.0.0.9:4321".parse().unwrap());
    server.response_bytes = None;
    server.status = 200;
    server.sampler = Some(SamplerTag::Probabilistic(0.25));
    for (what, value) in [
        (SpanText::Method, "GET"),
        (SpanText::Target, "/caf%C3%A9?q=1"),
        (SpanText::Host, "shop.local:8080"),
        (SpanText::RequestId, "id-1"),
        (SpanText::UserAgent, "curl/8"),
        (SpanText::Mapped(0), "acme \u{20ac}"),
    ] {
        server.put(what, value.as_bytes());
    }
    let mut client = SpanRecord::begin(root.child(2), SpanKind::Client, 1_700_000_000_000_200_000);
    client.request_bytes = Some(7);
    client.outcome = Outcome::Timeout;
    for (what, value) in
        [(SpanText::Method, "POST"), (SpanText::Target, "/pay"), (SpanText::Host, "bank")]
    {
        client.put(what, value.as_bytes());
    }
    [server, client]
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// An exporter with one ring.
fn start(plan: ExportPlan) -> (Exporter, Ring) {
    let exporter = Exporter::start(plan).unwrap();
    let (ring, source) = span_ring(2048, exporter.waker());
    exporter.take(vec![source]);
    (exporter, ring)
}

/// Sends two spans and gives back what arrived: in the order server, client.
fn exported(plan: ExportPlan, sink: &mut SpanSink) -> [Json; 2] {
    let (exporter, mut ring) = start(plan);
    for span in two_spans() {
        assert!(ring.offer(&span));
    }
    let mut spans = sink.take(2);
    drop(ring);
    assert!(block_on(exporter.finish(Duration::from_secs(5))));
    spans.sort_by_key(|span| span["start_us"].as_u64());
    spans.try_into().unwrap()
}

const IDS: &str = "fedcba98765432108899aabbccddeeff";

/// What both forms of Jaeger's thrift must have come to.
fn assert_is_jaeger([server, client]: &[Json; 2]) {
    assert_eq!(server["trace_id"], IDS);
    assert_eq!(server["span_id"], "8000000000000001");
    assert_eq!(server["parent_id"], "0000000000000000");
    assert_eq!((&server["name"], &server["flags"]), (&json!("/caf\u{e9}"), &json!(1)));
    assert_eq!(server["start_us"], 1_700_000_000_000_123_u64);
    assert_eq!(server["duration_us"], 2345);
    assert_eq!(
        server["tags"],
        json!([
            ["sampler.type", "string", "probabilistic"],
            ["sampler.param", "double", 0.25],
            ["span.kind", "string", "server"],
            ["remote_addr", "string", "10.0.0.9:4321"],
            ["http.host", "string", "shop.local:8080"],
            ["http.path", "string", "/caf%C3%A9?q=.."],
            ["http.request_size", "long", 0],
            ["http.method", "string", "GET"],
            ["http.user_agent", "string", "curl/8"],
            ["http.request_id", "string", "id-1"],
            ["http.response_size", "long", -1],
            ["http.status_code", "long", 200],
            ["tenant", "string", "acme \u{20ac}"],
            ["netra.overhead_us", "long", 12],
        ])
    );
    assert_eq!((&client["trace_id"], &client["parent_id"]), (&json!(IDS), &server["span_id"]));
    assert_eq!(
        (&client["name"], tag(client, "span.kind")),
        (&json!("bank/pay"), Some(&json!("client")))
    );
    assert_eq!(tag(client, "error"), Some(&json!(true)));
    assert_eq!(tag(client, "timeout"), Some(&json!(true)));
    assert_eq!(tag(client, "http.request_size"), Some(&json!(7)));
    assert_eq!(tag(client, "http.status_code"), None);
    let process = &server["process"];
    assert_eq!(process["service"], "shop");
    assert_eq!(tag(process, "zone"), Some(&json!("eu 1")));
    // The settings go before what is found out.
    assert_eq!(tag(process, "hostname"), Some(&json!("pod-7")));
    let version = tag(process, "jaeger.version").and_then(Json::as_str).unwrap();
    assert!(version.starts_with("netra-"), "{version}");
    assert_eq!(tag(process, "client-uuid").and_then(Json::as_str).unwrap().len(), 16);
}

#[test]
fn an_agent_takes_datagrams() {
    let mut sink = SpanSink::start(Ports::default());
    let agent = Reporter::Agent {
        host: "localhost".into(),
        port: sink.ports.agent,
        resolve_every: Some(Duration::from_secs(30)),
    };
    assert_is_jaeger(&exported(plan(agent), &mut sink));
}

#[cfg(feature = "jaeger-sdk")]
#[test]
fn an_agent_takes_what_opentelemetry_jaeger_sends() {
    let mut sink = SpanSink::start(Ports::default());
    let agent = Reporter::Sdk { host: "127.0.0.1".into(), port: sink.ports.agent };
    assert_is_jaeger(&exported(plan(agent), &mut sink));
}

/// More than one datagram holds: none is too long, every span arrives, in order.
#[test]
fn datagrams_are_cut_to_what_an_agent_takes() {
    let mut sink = SpanSink::start(Ports::default());
    let agent =
        Reporter::Agent { host: "127.0.0.1".into(), port: sink.ports.agent, resolve_every: None };
    let (exporter, mut ring) = start(plan(agent));
    let [server, _] = two_spans();
    const COUNT: u64 = 2000;
    for number in 1..=COUNT {
        let mut span = server.clone();
        span.context.span_id = number;
        while !ring.offer(&span) {
            std::thread::yield_now();
        }
    }
    let spans = sink.take(usize::try_from(COUNT).unwrap());
    let longest = spans.iter().map(|span| span["bytes"].as_u64().unwrap()).max().unwrap();
    let fullest = spans.iter().map(|span| span["batch"].as_u64().unwrap()).max().unwrap();
    assert!(longest <= 65_000 && longest > 60_000 && fullest > 100, "{longest} {fullest}");
    for (number, span) in (1..).zip(&spans) {
        assert_eq!(span["span_id"], format!("{number:016x}"));
    }
    drop(ring);
    assert!(block_on(exporter.finish(Duration::from_secs(5))));
}

#[test]
fn a_collector_takes_request_bodies() {
    let mut sink = SpanSink::start(Ports::default());
    let url = format!("http://localhost:{}/api/traces?format=jaeger.thrift", sink.ports.collector);
    let collector = Reporter::Collector {
        url: Url::parse(&url).unwrap(),
        login: Some(("user".into(), "pass:word".into())),
        reach: Reach::default(),
    };
    let spans = exported(plan(collector), &mut sink);
    assert_is_jaeger(&spans);
    let headers = &spans[0]["headers"];
    assert_eq!(headers["content-type"], "application/x-thrift");
    assert_eq!(headers["authorization"], "Basic dXNlcjpwYXNzOndvcmQ=");
    assert_eq!(headers[":path"], "/api/traces?format=jaeger.thrift");
}

fn otlp(protocol: Protocol, endpoint: String, is_gzip: bool) -> Reporter {
    let headers = vec![("x-token".into(), "secret 1".into())];
    let (reach, timeout) = (Reach::default(), Duration::from_secs(5));
    Reporter::Otlp(OtlpPlan { protocol, endpoint, reach, headers, timeout, is_gzip })
}

fn assert_is_otlp([server, client]: &[Json; 2]) {
    assert_eq!(
        (&server["trace_id"], &server["span_id"]),
        (&json!(IDS), &json!("8000000000000001"))
    );
    assert_eq!((&server["kind"], &client["kind"]), (&json!(2), &json!(3)));
    // Unset and error.
    assert_eq!((&server["status"], &client["status"]), (&json!(0), &json!(2)));
    assert_eq!(client["parent_id"], server["span_id"]);
    assert_eq!((&server["name"], &server["scope"]), (&json!("/caf\u{e9}"), &json!("netra")));
    assert_eq!(server["start_us"], 1_700_000_000_000_123_u64);
    assert_eq!(tag(server, "http.status_code"), Some(&json!(200)));
    assert_eq!(tag(server, "sampler.param"), Some(&json!(0.25)));
    assert_eq!(tag(server, "tenant"), Some(&json!("acme \u{20ac}")));
    assert_eq!((tag(server, "span.kind"), tag(client, "error")), (None, None));
    assert_eq!(tag(client, "timeout"), Some(&json!(true)));
    let process = &server["process"];
    assert_eq!((&process["service"], tag(process, "zone")), (&json!("shop"), Some(&json!("eu 1"))));
    assert!(tag(process, "host.name").is_some() && tag(process, "jaeger.version").is_none());
    assert_eq!(server["headers"]["x-token"], "secret 1");
}

#[test]
fn otlp_over_http_with_and_without_gzip() {
    let mut sink = SpanSink::start(Ports::default());
    for is_gzip in [false, true] {
        let endpoint = format!("http://127.0.0.1:{}/v1/traces", sink.ports.otlp_http);
        let spans = exported(plan(otlp(Protocol::Http, endpoint, is_gzip)), &mut sink);
        assert_is_otlp(&spans);
        let headers = &spans[0]["headers"];
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers[":path"], "/v1/traces");
        assert_eq!(headers["content-encoding"] == "gzip", is_gzip);
    }
}

#[test]
fn otlp_over_grpc_with_and_without_gzip() {
    let mut sink = SpanSink::start(Ports::default());
    for is_gzip in [false, true] {
        let endpoint = format!("http://127.0.0.1:{}", sink.ports.otlp_grpc);
        let spans = exported(plan(otlp(Protocol::Grpc, endpoint, is_gzip)), &mut sink);
        assert_is_otlp(&spans);
    }
}

/// A success of which the receiver takes a part: the rest is counted for itself, and said once.
#[test]
fn spans_that_a_receiver_of_otlp_rejects_are_counted() {
    let mut sink = SpanSink::start(Ports::default());
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let port = match protocol {
            Protocol::Http => sink.ports.otlp_http,
            Protocol::Grpc => sink.ports.otlp_grpc,
        };
        let endpoint = format!("http://127.0.0.1:{port}/v1/traces");
        let (before, rejected) = (counts(), REJECTED.load(Relaxed));
        let (exporter, mut ring) = start(plan(otlp(protocol, endpoint, false)));
        let [fine, _] = two_spans();
        let root = TraceContext::root(TRACE, 1, TraceFlags::SAMPLED);
        let mut rejected_one = SpanRecord::begin(root, SpanKind::Server, 1_700_000_000_000_000_000);
        rejected_one.put(SpanText::Target, b"/reject");
        assert!(ring.offer(&fine) && ring.offer(&rejected_one));
        sink.take(2);
        drop(ring);
        assert!(block_on(exporter.finish(Duration::from_secs(5))));
        assert_eq!(REJECTED.load(Relaxed) - rejected, 1, "{protocol:?}");
        assert_eq!(counted(before), [1, 0, 0], "{protocol:?}");
    }
}

/// The receiver's state, as the counters have it since `before`: sent, failed, dropped.
fn counted(before: [u64; 3]) -> [u64; 3] {
    let now = [&SENT, &FAILED, &DROPPED].map(|cell| cell.load(Relaxed));
    [now[0] - before[0], now[1] - before[1], now[2] - before[2]]
}

fn counts() -> [u64; 3] {
    counted([0; 3])
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Nobody listens: rings are emptied all the same, and every span is counted.
#[test]
fn a_receiver_that_refuses_costs_spans_and_nothing_else() {
    let before = counts();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/traces", listener.local_addr().unwrap());
    drop(listener);
    let collector = Reporter::Collector {
        url: Url::parse(&url).unwrap(),
        login: None,
        reach: Reach::default(),
    };
    let (exporter, mut ring) = start(plan(collector));
    let [span, _] = two_spans();
    for _ in 0..1500 {
        assert!(ring.offer(&span));
    }
    wait_until("1500 failed", || counted(before)[1] == 1500);
    drop(ring);
    assert!(block_on(exporter.finish(Duration::from_secs(5))));
    assert_eq!(counted(before), [0, 1500, 0]);
}

/// It accepts and says nothing: what waits is bounded, the rest is dropped, and the end does not
/// wait for ever.
#[test]
fn a_receiver_that_is_stuck_bounds_what_waits() {
    let before = counts();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/traces", listener.local_addr().unwrap());
    let collector = Reporter::Collector {
        url: Url::parse(&url).unwrap(),
        login: None,
        reach: Reach::default(),
    };
    let plan = ExportPlan { queue_spans: 1024, ..plan(collector) };
    let (exporter, mut ring) = start(plan);
    let (mut stream, _) = {
        let [span, _] = two_spans();
        for number in 0..6000 {
            while !ring.offer(&span) {
                std::thread::yield_now();
            }
            if number % 512 == 0 {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
        listener.accept().unwrap()
    };
    assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
    wait_until("all but 1024 dropped", || counted(before)[2] >= 6000 - 1024);
    drop(ring);
    let begun = Instant::now();
    assert!(!block_on(exporter.finish(Duration::from_millis(100))));
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(counted(before)[0], 0);
}

/// What is in the rings and in the batch at the end is sent at the end.
#[test]
fn the_end_sends_what_is_left() {
    let mut sink = SpanSink::start(Ports::default());
    let agent =
        Reporter::Agent { host: "127.0.0.1".into(), port: sink.ports.agent, resolve_every: None };
    let plan = ExportPlan { flush_interval: Duration::from_secs(3600), ..plan(agent) };
    let (exporter, mut ring) = start(plan);
    for span in two_spans() {
        assert!(ring.offer(&span));
    }
    assert!(sink.next_within(Duration::from_millis(300)).is_none());
    for span in two_spans() {
        assert!(ring.offer(&span));
    }
    drop(ring);
    assert!(block_on(exporter.finish(Duration::from_secs(5))));
    sink.take(4);
}

#[test]
fn nothing_goes_nowhere() {
    let before = counts();
    let (exporter, mut ring) = start(plan(Reporter::Nothing));
    let [span, _] = two_spans();
    for _ in 0..3000 {
        while !ring.offer(&span) {
            std::thread::yield_now();
        }
    }
    drop(ring);
    assert!(block_on(exporter.finish(Duration::from_secs(5))));
    assert_eq!(counted(before), [0, 0, 0]);
}
