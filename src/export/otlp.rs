//! OTLP by OpenTelemetry's own exporter, over HTTP and gRPC. The only user of its crates, which
//! change every few months; nothing of them runs, or is built, unless an OTLP receiver is set.

use super::{
    ExportPlan, Process, Protocol, Reporter,
    tags::{Tags, Value},
};
use crate::http_client::{Client, Failure, Url};
use hyper::{
    Request, Response,
    body::Bytes,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use netra_codecs::trace::{SpanKind, SpanRecord, TraceFlags};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind as OtelKind, Status, TraceId, TraceState},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::metadata::MetadataMap,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use std::{
    borrow::Cow,
    fmt,
    future::Future,
    pin::Pin,
    time::{Duration, UNIX_EPOCH},
};

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
        tags.each(span, |key, value| {
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
            links: SpanLinks::default(),
            status: if span.is_error() { Status::error("") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::builder("netra")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        });
    }
}

/// The library's exporter.
pub(super) struct Otlp(SpanExporter);

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Otlp")
    }
}

impl Otlp {
    /// Within a runtime, which gRPC's channel needs from the beginning.
    pub(super) fn new(plan: &ExportPlan) -> Result<Self, Failure> {
        let Reporter::Otlp { protocol, endpoint, headers, timeout, is_gzip } = &plan.reporter
        else {
            return Err("the reporter is not OTLP".into());
        };
        let headers = header_map(headers)?;
        let gzip = is_gzip.then_some(Compression::Gzip);
        let mut exporter = match protocol {
            Protocol::Http => {
                let url = Url::parse(endpoint).ok_or("not an http:// URL")?;
                let client = Sender { client: Client::new(url, *timeout), headers };
                let builder = SpanExporter::builder()
                    .with_http()
                    .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                    .with_http_client(client)
                    .with_endpoint(endpoint)
                    .with_timeout(*timeout);
                match gzip {
                    Some(gzip) => builder.with_compression(gzip).build()?,
                    None => builder.build()?,
                }
            }
            Protocol::Grpc => {
                let builder = SpanExporter::builder()
                    .with_tonic()
                    .with_endpoint(endpoint)
                    .with_timeout(*timeout)
                    .with_metadata(MetadataMap::from_headers(headers));
                match gzip {
                    Some(gzip) => builder.with_compression(gzip).build()?,
                    None => builder.build()?,
                }
            }
        };
        exporter.set_resource(&resource(plan));
        Ok(Self(exporter))
    }

    pub(super) async fn send(&self, spans: Spans) -> Result<(), Failure> {
        Ok(self.0.export(spans.0).await?)
    }
}

fn resource(plan: &ExportPlan) -> Resource {
    let tags = Process::otel(plan).tags;
    let attributes = tags.into_iter().map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty().with_attributes(attributes).build()
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, Failure> {
    let pair = |(name, value): &(String, String)| {
        Ok((name.parse::<HeaderName>()?, HeaderValue::from_str(value)?))
    };
    headers.iter().map(pair).collect()
}

/// Our HTTP client under the library's exporter. The library reads headers from the environment by
/// itself; those of the settings, which may come from a flag, go before them.
#[derive(Debug)]
struct Sender {
    client: Client,
    headers: HeaderMap,
}

type Answer<'s> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 's>>;

impl HttpClient for Sender {
    fn send_bytes<'s, 'a>(&'s self, request: Request<Bytes>) -> Answer<'a>
    where
        's: 'a,
        Self: 'a,
    {
        let (mut parts, body) = request.into_parts();
        parts.headers.extend(self.headers.clone());
        Box::pin(async move { self.client.send(parts.method, &parts.headers, body).await })
    }
}
