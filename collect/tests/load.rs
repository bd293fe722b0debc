//! Sends spans over OTLP/gRPC as fast as they are taken, and says how many: load for a collector.
//!
//! `load HOST:PORT SECONDS [SPANS_A_SECOND [SERVICES]]`; traces are of three services and six spans, with the tags that a
//! netra sidecar gives them. With SERVICES there are so many: each calls five others, at any time of the last hour.
#![allow(missing_docs, unused_crate_dependencies, clippy::cast_possible_truncation)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SPANS: u64 = 512;
const CONNECTIONS: usize = 4;

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn int(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// One message of spans of one service.
fn message(state: &mut u64, service: usize) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let spans = (0..SPANS).map(|index| span(state, now, index)).collect();
    let name = ["front", "shop", "stock"][service];
    let one = of_service(name, format!("10.0.0.{}", service + 1), spans);
    ExportTraceServiceRequest { resource_spans: vec![one] }.encode_to_vec()
}

fn of_service(name: &str, address: String, spans: Vec<Span>) -> ResourceSpans {
    let attributes = vec![
        text("service.name", name.into()),
        text("service.instance.id", format!("{name}-1")),
        text("host.name", "node-1".into()),
        text("ip", address),
    ];
    let resource = Resource { attributes, ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }
}

/// One message of calls between many services, each of two spans: who asks, who answers.
fn calls(state: &mut u64, services: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut resource_spans = Vec::new();
    for _ in 0..SPANS / 2 {
        let asks = random(state) % services;
        let answers = (asks * 7 + 1 + random(state) % 5) % services;
        let then = now - random(state) % 3_500_000_000_000;
        let client = span(state, then, 1);
        let mut server = span(state, then, 0);
        (server.trace_id, server.parent_span_id) =
            (client.trace_id.clone(), client.span_id.clone());
        for (service, span) in [(asks, client), (answers, server)] {
            let address = format!("10.1.{}.{}", service / 250, service % 250);
            resource_spans.push(of_service(&format!("service-{service}"), address, vec![span]));
        }
    }
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn span(state: &mut u64, now: u64, index: u64) -> Span {
    let (first, second) = (random(state), random(state));
    let took = 200_000 + random(state) % 5_000_000;
    let is_client = index % 2 == 1;
    let status = if random(state).is_multiple_of(100) { 503 } else { 200 };
    let path = ["/cart", "/offer", "/tea", "/orders/17", "/users/me"][(index % 5) as usize];
    let attributes = vec![
        text("http.request.method", "GET".into()),
        text("url.path", path.into()),
        text("server.address", "shop.demo".into()),
        int("server.port", 80),
        text("network.peer.address", format!("10.0.0.{}", index % 3 + 1)),
        int("network.peer.port", (30_000 + random(state) % 20_000) as i64),
        int("http.response.status_code", status),
        int("http.request.body.size", 0),
        int("http.response.body.size", (random(state) % 4000) as i64),
        text("http.request_id", format!("{first:016x}{second:016x}")),
        int("netra.overhead_us", (random(state) % 60) as i64),
        text("user_agent.original", "python-requests/2.31.0".into()),
    ];
    Span {
        trace_id: [first.to_be_bytes(), second.to_be_bytes()].concat(),
        span_id: random(state).to_be_bytes().to_vec(),
        parent_span_id: if index.is_multiple_of(6) {
            vec![]
        } else {
            random(state).to_be_bytes().to_vec()
        },
        name: format!("GET {path}"),
        kind: if is_client { 3 } else { 2 },
        start_time_unix_nano: now - took,
        end_time_unix_nano: now,
        attributes,
        status: Some(Status { code: if status == 503 { 2 } else { 0 }, ..Status::default() }),
        ..Span::default()
    }
}

async fn send(place: String, messages: Vec<Vec<u8>>, until: Instant, pause: Duration) -> u64 {
    let stream = tokio::net::TcpStream::connect(&place).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut sent = 0;
    for message in messages {
        if Instant::now() >= until {
            return sent;
        }
        let len = (message.len() as u32).to_be_bytes();
        let body = Bytes::from([&[0][..], &len, &message].concat());
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        let request = Request::post(format!("http://{place}{path}"))
            .header("content-type", "application/grpc")
            .body(Full::new(body))
            .unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap();
        let status = body.trailers().and_then(|all| all.get("grpc-status")).cloned();
        if status.is_some_and(|status| status == "0") {
            sent += SPANS;
        }
        tokio::time::sleep(pause).await;
    }
    sent
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seconds: u64 = args[2].parse().unwrap();
    let rate: Option<u64> = args.get(3).map(|rate| rate.parse().unwrap());
    // Everything is written before the clock starts: what is measured is the other side.
    let messages = rate.unwrap_or(400_000) * seconds / SPANS / CONNECTIONS as u64 + 1;
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id());
    let services: Option<u64> = args.get(4).map(|services| services.parse().unwrap());
    let mut made = |index: usize| match services {
        Some(services) => calls(&mut state, services),
        None => message(&mut state, index % 3),
    };
    let all: Vec<Vec<Vec<u8>>> =
        (0..CONNECTIONS).map(|index| (0..messages).map(|_| made(index)).collect()).collect();
    let bytes = all[0][0].len() as u64 / SPANS;
    println!("{bytes} bytes a span on the wire; sending");
    let pause = rate.map_or(Duration::ZERO, |rate| {
        Duration::from_secs_f64(SPANS as f64 * CONNECTIONS as f64 / rate as f64)
    });
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let tasks: Vec<_> = all
        .into_iter()
        .map(|messages| tokio::spawn(send(args[1].clone(), messages, until, pause)))
        .collect();
    let mut sent = 0;
    for task in tasks {
        sent += task.await.unwrap();
    }
    let took = begun.elapsed().as_secs_f64();
    println!("{sent} spans in {took:.2} s, {:.0} a second", sent as f64 / took);
}
