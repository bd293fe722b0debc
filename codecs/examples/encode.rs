//! Encodes a span for the Jaeger agent as the exporter does, as often as it is told:
//! `make bench-check` counts what that takes. The exporter's own files, without the rest of it,
//! which would take minutes to build.
#![allow(dead_code, missing_docs, unreachable_pub)]

#[path = "../../src/export/exchange_tags.rs"]
mod exchange_tags;
#[path = "../../src/mask.rs"]
mod mask;
#[path = "../../src/export/stream_tags.rs"]
mod stream_tags;
#[path = "../../src/export/tags.rs"]
mod tags;
#[path = "../../src/export/thrift.rs"]
mod thrift;

use netra_codecs::tap::Protocol;
use netra_codecs::trace::{SamplerTag, SpanKind, SpanRecord, SpanText, TraceContext, TraceFlags};
use std::hint::black_box;

/// As in `src/export/process.rs`.
#[derive(Debug)]
struct Process {
    service_name: String,
    tags: Vec<(String, String)>,
}

/// As in `src/export/mod.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Semconv {
    Legacy,
    Otel,
    Both,
}

/// The size of a datagram, as in `src/export/batch.rs`.
const PACKET_BYTES_MAX: usize = 65_000;

/// Clients that spans come from in turn.
const CLIENTS: u16 = 32;

/// `encode TIMES http|redis`.
fn main() {
    let mut args = std::env::args().skip(1);
    let times = args.next().and_then(|times| times.parse().ok()).unwrap_or(1_000_u64);
    let mut span = match args.next().as_deref() {
        None | Some("http") => of_http(),
        Some("redis") => of_redis(),
        Some(other) => panic!("{other}?"),
    };
    let process = Process {
        service_name: "shop".into(),
        tags: vec![("hostname".into(), "shop-7d9c5b".into())],
    };
    let mut batch = thrift::Batch::message(&process);
    let mut tags = tags::Tags::new(Semconv::Legacy, vec![], true);
    let (mut packets, mut spans) = (0, 0);
    for client in (0..CLIENTS).cycle().zip(0..times).map(|(client, _)| client) {
        span.remote = Some(([10, 0, 0, 1], 40_000 + client).into());
        if let Some((packet, count)) =
            batch.push_within(black_box(&span), &mut tags, PACKET_BYTES_MAX)
        {
            black_box(packet);
            (packets, spans) = (packets + 1, spans + count);
        }
    }
    println!("{spans} spans in {packets} packets, {} wait", batch.count());
}

fn begun() -> SpanRecord {
    let context = TraceContext::root(0x1234_5678_9abc_def0, 0x1234_5678_9abc_def0, TraceFlags(1));
    let mut span = SpanRecord::begin(context, SpanKind::Server, 1_700_000_000_000_000_000);
    (span.duration_ns, span.overhead_ns) = (1_234_567, 12_345);
    span
}

fn of_http() -> SpanRecord {
    let mut span = begun();
    span.put(SpanText::Method, b"GET");
    span.put(SpanText::Target, b"/api/v1/orders/12345?expand=items");
    span.put(SpanText::Host, b"orders.shop.svc.cluster.local");
    span.put(SpanText::RequestId, b"4f0c7a52-6b1e-4e55-9a7b-3a2d1f0e9c88");
    span.put(SpanText::UserAgent, b"Mozilla/5.0 (X11; Linux x86_64)");
    span.status = 200;
    span
}

/// As every exchange of a shard that samples all.
fn of_redis() -> SpanRecord {
    let mut span = begun();
    span.put(SpanText::Operation, b"GET");
    span.protocol = Some(Protocol::Redis.about());
    span.sampler = Some(SamplerTag::Const(true));
    (span.request_bytes, span.response_bytes) = (Some(36), Some(9));
    span
}
