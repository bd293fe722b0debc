//! Spans over OTLP by OpenTelemetry's own exporter, which encodes, and our own client, which sends. So
//! the answer is ours to read, for the library keeps it to itself. The only user of its crates, which
//! change every few months; nothing of them runs, or is built, unless an OTLP receiver is set.

use super::{
    ExportPlan, OtlpPlan, Process,
    otlp_client::{OtlpClient, reason_of},
    partial::Rejected,
    tags::{Tags, Value},
};
use crate::{failure::Failure, resolver::Names};
use hyper::{Request, Response, body::Bytes};
use netra_codecs::trace::{SpanKind, SpanRecord, TraceFlags};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind as OtelKind, Status, TraceId, TraceState},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Compression, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::Mutex;

/// Spans in one message, as in the SDK's batch processor.
pub(super) const MESSAGE_SPANS_MAX: usize = 512;

/// Spans as the library takes them.
#[derive(Debug, Default)]
pub(super) struct Spans(Vec<SpanData>);

impl Spans {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, span: &SpanRecord, tags: &mut Tags) {
        let context = &span.context;
        let mut attributes = Vec::with_capacity(16);
        tags.each(span, |key: &'static str, value: Value<'_>| {
            attributes.push(match value {
                Value::Text(text) => KeyValue::new(key, text.to_owned()),
                Value::Int(number) => KeyValue::new(key, number),
                Value::Float(number) => KeyValue::new(key, number),
                Value::Bool(is) => KeyValue::new(key, is),
            });
        });
        let is_server = span.kind == SpanKind::Server;
        let flags = u8::from(context.flags.contains(TraceFlags::SAMPLED));
        let start_time = UNIX_EPOCH + Duration::from_nanos(span.start_unix_ns);
        self.0.push(SpanData {
            span_context: SpanContext::new(
                TraceId::from(context.trace_id),
                SpanId::from(context.span_id),
                opentelemetry::TraceFlags::new(flags),
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from(context.parent_id),
            parent_span_is_remote: is_server && context.parent_id != 0,
            span_kind: if is_server { OtelKind::Server } else { OtelKind::Client },
            name: Cow::Owned(tags.operation(span).into_owned()),
            start_time,
            end_time: start_time + Duration::from_nanos(span.duration_ns),
            attributes,
            dropped_attributes_count: u32::from(span.is_cut),
            events: SpanEvents::default(),
            links: links(span),
            status: if span.is_error() { Status::error("") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::builder("netra")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        });
    }
}

/// What the span may belong to.
fn links(span: &SpanRecord) -> SpanLinks {
    let flags = opentelemetry::TraceFlags::SAMPLED;
    let context = |(trace_id, span_id): (u128, u64)| {
        let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
        SpanContext::new(trace_id, span_id, flags, false, TraceState::NONE)
    };
    let mut links = SpanLinks::default();
    links.links = span.links().map(|link| Link::with_context(context(link))).collect();
    links
}

/// The library's exporter, and what the last answer said.
pub(super) struct Otlp {
    exporter: SpanExporter,
    answered: Answered,
}

/// What the library does not pass on of an answer.
type Answered = Arc<Mutex<Result<Rejected, String>>>;

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Otlp")
    }
}

/// The method that takes spans, as gRPC names it.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

impl Otlp {
    pub(super) fn new(
        names: &Names,
        plan: &ExportPlan,
        receiver: &OtlpPlan,
    ) -> Result<Self, Failure> {
        let answered = Answered::new(Mutex::new(Ok(Rejected::default())));
        let client = Sender {
            client: OtlpClient::new(names, receiver, &plan.headers_file, EXPORT)?,
            answered: Arc::clone(&answered),
        };
        let builder = SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_http_client(client)
            .with_endpoint(&receiver.endpoint)
            .with_timeout(receiver.timeout);
        let mut exporter = match receiver.is_gzip {
            true => builder.with_compression(Compression::Gzip).build()?,
            false => builder.build()?,
        };
        exporter.set_resource(&resource(plan));
        Ok(Self { exporter, answered })
    }

    /// What the receiver has not taken of the spans that it was sent.
    pub(super) async fn send(&self, spans: Spans) -> Result<Rejected, Failure> {
        let count = spans.count();
        let sent = self.exporter.export(spans.0).await;
        let nothing = Ok(Rejected::default());
        match (sent, std::mem::replace(&mut *self.answered.lock().await, nothing)) {
            (Ok(()), Ok(rejected)) => Ok(Rejected { spans: rejected.spans.min(count), ..rejected }),
            // The library says only that it was a matter of the network.
            (Err(_), Err(why)) => Err(why.into()),
            (Err(error), Ok(_)) => Err(error.into()),
            (Ok(()), Err(_)) => Ok(Rejected::default()),
        }
    }
}

fn resource(plan: &ExportPlan) -> Resource {
    let tags = Process::otel(&plan.service_name, &plan.process_tags).tags;
    let attributes = tags.into_iter().map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty().with_attributes(attributes).build()
}

/// Our HTTP client under the library's exporter. The library reads headers from the environment by
/// itself; those of the settings, which may come from a flag, go before them.
#[derive(Debug)]
struct Sender {
    client: OtlpClient,
    answered: Answered,
}

type Answer<'s> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 's>>;

impl HttpClient for Sender {
    fn send_bytes<'s, 'a>(&'s self, request: Request<Bytes>) -> Answer<'a>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(async move {
            let answer = self.client.send(request).await;
            let said = match &answer {
                Ok(answer) if answer.status().is_success() => Ok(Rejected::read(answer.body())),
                Ok(answer) => Err(format!("the receiver answered {}", reason_of(answer))),
                Err(error) => Err(error.to_string()),
            };
            *self.answered.lock().await = said;
            // The library would read it once more, and tell nobody.
            answer.map(|answer| answer.map(|_| Bytes::new()))
        })
    }
}
