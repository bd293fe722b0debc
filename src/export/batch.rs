//! Spans gathered into parcels, in the form that the reporter wants.

use super::{
    ExportPlan, Process, Reporter,
    otlp::{self, MESSAGE_SPANS_MAX},
    send::{Parcel, Payload},
    stdout,
    tags::Tags,
    thrift::{self, Binary, Compact},
};
use netra_codecs::trace::SpanRecord;

/// What a datagram may weigh: Jaeger's own limit, below UDP's 65,507.
const PACKET_BYTES_MAX: usize = 65_000;
/// Spans in one request to a collector.
const BODY_SPANS_MAX: usize = 512;

/// A parcel that is being filled.
#[derive(Debug)]
pub(super) struct Batch {
    form: Form,
    tags: Tags,
}

#[derive(Debug)]
enum Form {
    Agent(thrift::Batch<Compact>),
    Collector(thrift::Batch<Binary>),
    Otlp(otlp::Spans),
    Stdout(stdout::Lines),
    Nothing,
    #[cfg(feature = "jaeger-sdk")]
    Sdk(super::jaeger_sdk::Spans),
}

impl Batch {
    pub(super) fn new(plan: &ExportPlan) -> Self {
        let form = match &plan.reporter {
            #[cfg(feature = "jaeger-sdk")]
            Reporter::Sdk { .. } => Form::Sdk(super::jaeger_sdk::Spans::default()),
            Reporter::Agent { .. } => Form::Agent(thrift::Batch::message(&Process::jaeger(plan))),
            Reporter::Collector { .. } => {
                Form::Collector(thrift::Batch::bare(&Process::jaeger(plan)))
            }
            Reporter::Otlp(_) => Form::Otlp(otlp::Spans::default()),
            Reporter::Stdout => Form::Stdout(stdout::Lines::new(&plan.service_name)),
            Reporter::Nothing => Form::Nothing,
        };
        // OTLP has a place for kind and status.
        let has_intrinsic = !matches!(form, Form::Otlp(_));
        let tags = Tags::new(plan.semconv, plan.mapped_tags.clone(), has_intrinsic);
        Self { form, tags: tags.with_query(plan.query) }
    }

    /// Adds a span; gives back a parcel when one is full.
    pub(super) fn push(&mut self, span: &SpanRecord) -> Option<Parcel> {
        let tags = &mut self.tags;
        match &mut self.form {
            Form::Agent(batch) => {
                let full = batch.push_within(span, tags, PACKET_BYTES_MAX);
                return full.map(parcel_of_bytes);
            }
            Form::Collector(batch) => batch.push(span, tags),
            Form::Otlp(spans) => spans.push(span, tags),
            Form::Stdout(lines) => lines.push(span, tags),
            Form::Nothing => {}
            #[cfg(feature = "jaeger-sdk")]
            Form::Sdk(spans) => spans.push(span, tags),
        }
        self.is_full().then(|| self.take()).flatten()
    }

    fn is_full(&self) -> bool {
        match &self.form {
            Form::Agent(_) | Form::Nothing => false,
            Form::Collector(batch) => batch.count() >= BODY_SPANS_MAX,
            Form::Otlp(spans) => spans.count() >= MESSAGE_SPANS_MAX,
            Form::Stdout(lines) => lines.count() >= BODY_SPANS_MAX,
            #[cfg(feature = "jaeger-sdk")]
            Form::Sdk(spans) => spans.count() >= BODY_SPANS_MAX,
        }
    }

    /// A parcel without spans, for trying the receiver out; none where there is nobody to try.
    pub(super) fn nothing(mut self) -> Option<Payload> {
        Some(match &mut self.form {
            Form::Agent(batch) => Payload::Bytes(batch.wire().0),
            Form::Collector(batch) => Payload::Bytes(batch.wire().0),
            Form::Otlp(_) => Payload::Otlp(otlp::Spans::default()),
            Form::Stdout(_) | Form::Nothing => return None,
            #[cfg(feature = "jaeger-sdk")]
            Form::Sdk(_) => Payload::Sdk(super::jaeger_sdk::Spans::default()),
        })
    }

    /// What has gathered so far.
    pub(super) fn take(&mut self) -> Option<Parcel> {
        match &mut self.form {
            Form::Agent(batch) => batch.take().map(parcel_of_bytes),
            Form::Collector(batch) => batch.take().map(parcel_of_bytes),
            Form::Stdout(lines) => lines.take().map(parcel_of_bytes),
            Form::Otlp(spans) => {
                let count = spans.count();
                let payload = Payload::Otlp(std::mem::take(spans));
                (count > 0).then_some(Parcel { payload, count })
            }
            Form::Nothing => None,
            #[cfg(feature = "jaeger-sdk")]
            Form::Sdk(spans) => {
                let count = spans.count();
                let payload = Payload::Sdk(std::mem::take(spans));
                (count > 0).then_some(Parcel { payload, count })
            }
        }
    }
}

fn parcel_of_bytes((bytes, count): (Vec<u8>, usize)) -> Parcel {
    Parcel { payload: Payload::Bytes(bytes), count }
}
