//! Metrics in Prometheus's protobuf (`io.prometheus.client`), which is the only form in which a
//! Prometheus takes native histograms. The usual buckets are there as well, for one that has them off.

use crate::{
    HistogramSnapshot,
    exemplars::{Exemplar, Exemplars},
    histogram::{EXPONENTIAL_SCALE, ZERO_SECONDS, bounds_ns},
    metrics::{Labels, Metric, MetricKind, Value},
};
use prost::Message;
use std::collections::BTreeMap;

/// The media type.
pub(crate) const MEDIA: &str = "application/vnd.google.protobuf";
/// The message that is sent, many times over, each behind its length.
pub(crate) const FAMILY: &str = "io.prometheus.client.MetricFamily";
pub(crate) const CONTENT_TYPE: &str = "application/vnd.google.protobuf; \
    proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The messages, as far as they are written here.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricFamily {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) help: String,
        #[prost(int32, optional, tag = "3")]
        pub(super) kind: Option<i32>,
        #[prost(message, repeated, tag = "4")]
        pub(super) metric: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<Label>,
        #[prost(message, optional, tag = "2")]
        pub(super) gauge: Option<Number>,
        #[prost(message, optional, tag = "3")]
        pub(super) counter: Option<Number>,
        #[prost(message, optional, tag = "7")]
        pub(super) histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Number {
        #[prost(double, optional, tag = "1")]
        pub(super) value: Option<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub(super) count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub(super) schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub(super) zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub(super) zero_count: Option<u64>,
        #[prost(message, repeated, tag = "12")]
        pub(super) span: Vec<Span>,
        #[prost(sint64, repeated, tag = "13")]
        pub(super) delta: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Bucket {
        #[prost(uint64, optional, tag = "1")]
        pub(super) cumulative: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(super) upper: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub(super) exemplar: Option<Exemplar>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(sint32, optional, tag = "1")]
        pub(super) offset: Option<i32>,
        #[prost(uint32, optional, tag = "2")]
        pub(super) length: Option<u32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<Label>,
        #[prost(double, optional, tag = "2")]
        pub(super) value: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub(super) at: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Timestamp {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }
}

/// Families one after the other.
pub(crate) fn encode(metrics: &[Metric], exemplars: &Exemplars) -> Vec<u8> {
    let mut out = Vec::new();
    // A family without series says nothing, and Prometheus takes it for a fault.
    for metric in metrics.iter().filter(|metric| !metric.points.is_empty()) {
        let family = family(metric, exemplars);
        out.reserve(family.encoded_len() + 5);
        // There is room.
        let _ = family.encode_length_delimited(&mut out);
    }
    out
}

fn family(metric: &Metric, exemplars: &Exemplars) -> wire::MetricFamily {
    let (kind, end) = match metric.kind {
        MetricKind::Counter => (0, "_total"),
        MetricKind::Gauge => (1, ""),
        MetricKind::Histogram => (4, ""),
    };
    let points = metric.points.iter().map(|point| {
        let mut out = wire::Metric { label: labels(&point.labels), ..wire::Metric::default() };
        #[allow(clippy::cast_precision_loss)]
        let number = match &point.value {
            Value::Whole(whole) => *whole as f64,
            Value::Number(number) => *number,
            Value::Durations(durations) => {
                let direction = point.labels.iter().find(|(name, _)| *name == "direction");
                let direction = direction.map_or("", |(_, value)| value);
                let seen = |bucket| exemplars.of(metric.name, direction, bucket);
                out.histogram = Some(histogram(durations, seen));
                return out;
            }
        };
        let number = Some(wire::Number { value: Some(number) });
        match metric.kind {
            MetricKind::Counter => out.counter = number,
            _ => out.gauge = number,
        }
        out
    });
    wire::MetricFamily {
        name: format!("{}{end}", metric.name),
        help: metric.help.into(),
        kind: Some(kind),
        metric: points.collect(),
    }
}

fn labels(labels: &Labels) -> Vec<wire::Label> {
    let one = |(name, value): &(&str, std::borrow::Cow<'_, str>)| wire::Label {
        name: (*name).to_owned(),
        value: value.clone().into_owned(),
    };
    labels.iter().map(one).collect()
}

fn histogram(
    durations: &HistogramSnapshot,
    seen: impl Fn(usize) -> Option<Exemplar>,
) -> wire::Histogram {
    #[allow(clippy::cast_precision_loss)]
    let seconds = |ns: u64| ns as f64 / 1e9;
    let count = durations.count();
    let bounds = bounds_ns().map(|bound| (seconds(bound), durations.count_at_most_ns(bound)));
    let all = bounds.chain([(f64::INFINITY, count)]).enumerate();
    let bucket = all.map(|(nth, (upper, cumulative))| wire::Bucket {
        cumulative: Some(cumulative),
        upper: Some(upper),
        exemplar: seen(nth).map(exemplar),
    });
    let (zero, exponential) = durations.exponential();
    let (span, delta) = spans(&exponential);
    wire::Histogram {
        count: Some(count),
        sum: Some(durations.sum_seconds()),
        bucket: bucket.collect(),
        schema: Some(EXPONENTIAL_SCALE),
        zero_threshold: Some(ZERO_SECONDS),
        zero_count: Some(zero),
        span,
        delta,
    }
}

/// Runs of buckets, and the difference of each count to the one before it.
fn spans(buckets: &BTreeMap<i32, u64>) -> (Vec<wire::Span>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<wire::Span>::new(), Vec::new());
    let (mut next, mut before) = (0, 0_i64);
    for (index, count) in buckets {
        match spans.last_mut() {
            Some(span) if *index == next => {
                span.length = span.length.map(|length| length + 1);
            }
            // The first is where it is, each other one so far from the end of the one before it.
            _ => spans.push(wire::Span { offset: Some(index - next), length: Some(1) }),
        }
        next = index + 1;
        let count = count.cast_signed();
        deltas.push(count.wrapping_sub(before));
        before = count;
    }
    (spans, deltas)
}

fn exemplar(seen: Exemplar) -> wire::Exemplar {
    #[allow(clippy::cast_precision_loss)]
    let value = seen.ns as f64 / 1e9;
    let value_of = format!("{:032x}", seen.trace_id);
    let (seconds, nanos) = (seen.unix_ns / 1_000_000_000, seen.unix_ns % 1_000_000_000);
    wire::Exemplar {
        label: vec![wire::Label { name: "trace_id".into(), value: value_of }],
        value: Some(value),
        at: Some(wire::Timestamp {
            seconds: seconds.cast_signed(),
            nanos: i32::try_from(nanos).unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_buckets() {
        let of = |pairs: &[(i32, u64)]| {
            let (spans, deltas) = spans(&pairs.iter().copied().collect());
            let spans = spans.iter().map(|span| (span.offset.unwrap(), span.length.unwrap()));
            (spans.collect::<Vec<_>>(), deltas)
        };
        assert_eq!(of(&[]), (vec![], vec![]));
        assert_eq!(of(&[(-5, 3)]), (vec![(-5, 1)], vec![3]));
        assert_eq!(
            of(&[(-5, 3), (-4, 1), (-1, 7), (0, 7), (9, 1)]),
            (vec![(-5, 2), (2, 2), (8, 1)], vec![3, -2, 6, 0, -6])
        );
    }
}
