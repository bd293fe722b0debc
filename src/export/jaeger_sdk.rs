//! Spans to a Jaeger agent by way of the `opentelemetry-jaeger` crate: the feature `jaeger-sdk`, and
//! the oracle that our own encoder is tested against. The only user of that crate and of the older
//! OpenTelemetry it needs.

#![allow(deprecated)]

use super::{
    ExportPlan, Process,
    tags::{Tags, Value},
};
use crate::failure::Failure;
use netra_codecs::trace::SpanRecord;
use opentelemetry_jaeger::{Exporter, new_agent_pipeline};
use otel023::{
    InstrumentationLibrary, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use sdk023::{
    Resource,
    export::trace::{SpanData, SpanExporter},
    trace::{Config, SpanEvents, SpanLinks},
};
use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

/// Spans as that crate takes them.
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
        let start_time = UNIX_EPOCH + Duration::from_nanos(span.start_unix_ns);
        self.0.push(SpanData {
            span_context: SpanContext::new(
                TraceId::from(context.trace_id),
                SpanId::from(context.span_id),
                TraceFlags::new(context.flags.0),
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from(context.parent_id),
            // Kind and error are tags already.
            span_kind: SpanKind::Internal,
            status: Status::Unset,
            name: Cow::Owned(tags.operation(span).into_owned()),
            start_time,
            end_time: start_time + Duration::from_nanos(span.duration_ns),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            resource: Cow::Owned(Resource::empty()),
            instrumentation_lib: InstrumentationLibrary::default(),
        });
    }
}

/// That crate's exporter. It resolves the agent's name once, when the first spans are sent.
#[derive(Debug)]
pub(super) struct Sdk {
    endpoint: String,
    process: Process,
    exporter: Option<Exporter>,
}

impl Sdk {
    pub(super) fn new(host: &str, port: u16, plan: &ExportPlan) -> Self {
        Self { endpoint: format!("{host}:{port}"), process: Process::jaeger(plan), exporter: None }
    }

    pub(super) async fn send(&mut self, spans: Spans) -> Result<(), Failure> {
        let exporter = match &mut self.exporter {
            Some(exporter) => exporter,
            empty => empty.insert(exporter(&self.endpoint, &self.process)?),
        };
        Ok(exporter.export(spans.0).await?)
    }
}

fn exporter(endpoint: &str, process: &Process) -> Result<Exporter, Failure> {
    let tags = process.tags.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Ok(new_agent_pipeline()
        .with_endpoint(endpoint)
        .with_service_name(&process.service_name)
        .with_instrumentation_library_tags(false)
        .with_auto_split_batch(true)
        .with_trace_config(Config::default().with_resource(Resource::new(tags)))
        .build_sync_agent_exporter()?)
}
