//! Metrics as OpenTelemetry has them: its names, its temporalities, its message
//! (`ExportMetricsServiceRequest`). The messages are written out here because `opentelemetry-proto`
//! brings an SDK of metrics, with executors of its own, for these few.

use crate::{
    HistogramSnapshot,
    histogram::{EXPONENTIAL_SCALE, ZERO_SECONDS, bounds_ns},
    metrics::{Labels, Metric, MetricKind, Point, Value},
};
use prost::Message;
use std::{borrow::Cow, collections::HashMap};

/// The messages, as far as they are written here.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_metrics: Vec<ResourceMetrics>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ResourceMetrics {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_metrics: Vec<ScopeMetrics>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub(super) text: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ScopeMetrics {
        #[prost(message, optional, tag = "1")]
        pub(super) scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub(super) metrics: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Scope {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) version: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) description: String,
        #[prost(string, tag = "3")]
        pub(super) unit: String,
        #[prost(message, optional, tag = "5")]
        pub(super) gauge: Option<Gauge>,
        #[prost(message, optional, tag = "7")]
        pub(super) sum: Option<Sum>,
        #[prost(message, optional, tag = "9")]
        pub(super) histogram: Option<Histogram>,
        #[prost(message, optional, tag = "10")]
        pub(super) exponential: Option<Exponential>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Gauge {
        #[prost(message, repeated, tag = "1")]
        pub(super) points: Vec<NumberPoint>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sum {
        #[prost(message, repeated, tag = "1")]
        pub(super) points: Vec<NumberPoint>,
        #[prost(int32, tag = "2")]
        pub(super) temporality: i32,
        #[prost(bool, tag = "3")]
        pub(super) is_monotonic: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct NumberPoint {
        #[prost(message, repeated, tag = "7")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")]
        pub(super) start: u64,
        #[prost(fixed64, tag = "3")]
        pub(super) time: u64,
        #[prost(double, optional, tag = "4")]
        pub(super) double: Option<f64>,
        #[prost(sfixed64, optional, tag = "6")]
        pub(super) int: Option<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(message, repeated, tag = "1")]
        pub(super) points: Vec<HistogramPoint>,
        #[prost(int32, tag = "2")]
        pub(super) temporality: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct HistogramPoint {
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")]
        pub(super) start: u64,
        #[prost(fixed64, tag = "3")]
        pub(super) time: u64,
        #[prost(fixed64, tag = "4")]
        pub(super) count: u64,
        #[prost(double, optional, tag = "5")]
        pub(super) sum: Option<f64>,
        #[prost(fixed64, repeated, tag = "6")]
        pub(super) bucket_counts: Vec<u64>,
        #[prost(double, repeated, tag = "7")]
        pub(super) bounds: Vec<f64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exponential {
        #[prost(message, repeated, tag = "1")]
        pub(super) points: Vec<ExponentialPoint>,
        #[prost(int32, tag = "2")]
        pub(super) temporality: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ExponentialPoint {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")]
        pub(super) start: u64,
        #[prost(fixed64, tag = "3")]
        pub(super) time: u64,
        #[prost(fixed64, tag = "4")]
        pub(super) count: u64,
        #[prost(double, optional, tag = "5")]
        pub(super) sum: Option<f64>,
        #[prost(sint32, tag = "6")]
        pub(super) scale: i32,
        #[prost(fixed64, tag = "7")]
        pub(super) zero_count: u64,
        #[prost(message, optional, tag = "8")]
        pub(super) positive: Option<Buckets>,
        #[prost(double, tag = "14")]
        pub(super) zero_threshold: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Buckets {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint64, repeated, tag = "2")]
        pub(super) counts: Vec<u64>,
    }
}

/// The form of what is pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Counts are told as what has been added since the last time.
    pub delta_counts: bool,
    /// The same for durations.
    pub delta_durations: bool,
    /// Durations are told in exponential buckets, else in fixed ones.
    pub is_exponential: bool,
}

/// Turns metrics into messages, and knows what was told before.
#[derive(Debug)]
pub struct Encoder {
    form: Form,
    resource: Vec<(String, String)>,
    version: &'static str,
    /// What each protocol is.
    systems: Vec<(&'static str, System)>,
    started_ns: u64,
    /// What was told the last time that it was taken, and when.
    told: HashMap<(&'static str, Labels), Value>,
    told_ns: u64,
    /// The same of the message that is on its way.
    telling: Vec<Metric>,
    telling_ns: u64,
}

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

/// What OpenTelemetry's conventions name; None is for what they do without. All else is called
/// `netra.` and what it is called in Prometheus.
const NAMES: &[(&str, Option<&str>)] = &[
    ("process_cpu_seconds", Some("process.cpu.time")),
    ("process_max_fds", None),
    ("process_open_fds", Some("process.unix.file_descriptor.count")),
    ("process_resident_memory_bytes", Some("process.memory.usage")),
    ("process_start_time_seconds", None),
    ("process_threads", Some("process.thread.count")),
    ("process_virtual_memory_bytes", Some("process.memory.virtual")),
];
/// A metric of two directions that are two metrics there.
const REQUESTS: &str = "netra_http_request_duration_seconds";
const REQUEST_NAMES: [(&str, &str); 2] =
    [("inbound", "http.server.request.duration"), ("outbound", "http.client.request.duration")];

/// The durations of exchanges, which are those of databases, calls and messages there.
const EXCHANGES: &str = "netra_exchange_duration_seconds";

/// What a protocol is to OpenTelemetry's conventions, by the name that they have for its system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// A database.
    Database(&'static str),
    /// A framework of calls.
    Rpc(&'static str),
    /// A broker of messages.
    Messaging(&'static str),
}

/// A metric of the conventions, and the attribute that says which system.
type Known = (&'static str, &'static str);
const DATABASE: Known = ("db.client.operation.duration", "db.system.name");
const RPC_CLIENT: Known = ("rpc.client.call.duration", "rpc.system.name");
const RPC_SERVER: Known = ("rpc.server.call.duration", "rpc.system.name");
const MESSAGING: Known = ("messaging.client.operation.duration", "messaging.system");

impl System {
    /// The metric of its durations in a direction, with the system's name. The conventions have none
    /// for what a database or a broker is asked, seen from itself.
    fn known(self, direction: &str) -> Option<(Known, &'static str)> {
        match (self, direction) {
            (Self::Database(name), "outbound") => Some((DATABASE, name)),
            (Self::Rpc(name), "outbound") => Some((RPC_CLIENT, name)),
            (Self::Rpc(name), "inbound") => Some((RPC_SERVER, name)),
            (Self::Messaging(name), "outbound") => Some((MESSAGING, name)),
            _ => None,
        }
    }
}

impl Encoder {
    /// Of a process that started then, in nanoseconds of Unix time, with the attributes of its
    /// resource.
    pub fn new(
        form: Form,
        resource: Vec<(String, String)>,
        version: &'static str,
        started_ns: u64,
    ) -> Self {
        let (told, telling) = (HashMap::new(), Vec::new());
        let (told_ns, telling_ns) = (started_ns, started_ns);
        let systems = Vec::new();
        Self { form, resource, version, systems, started_ns, told, told_ns, telling, telling_ns }
    }

    /// The same, which knows what these protocols are.
    #[must_use]
    pub fn with_systems(self, systems: Vec<(&'static str, System)>) -> Self {
        Self { systems, ..self }
    }

    /// The message for metrics as they are now. Series that have counted nothing are not told.
    pub fn encode(&mut self, metrics: Vec<Metric>, now_ns: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(metrics.len() + 1);
        for metric in &metrics {
            if metric.name == REQUESTS {
                out.extend(REQUEST_NAMES.iter().filter_map(|(direction, name)| {
                    let is_its = |(_, value): &(&str, Cow<'_, str>)| value == direction;
                    let points = metric.points.iter().filter(|p| p.labels.iter().any(is_its));
                    self.metric(metric, (*name).to_owned(), points, &without_direction, now_ns)
                }));
            } else if metric.name == EXCHANGES {
                self.exchanges(metric, now_ns, &mut out);
            } else if let Some(name) = name_of(metric.name) {
                out.extend(self.metric(metric, name, metric.points.iter(), &as_it_is, now_ns));
            }
        }
        self.telling = metrics;
        self.telling_ns = now_ns;
        let scope = wire::Scope { name: "netra".into(), version: self.version.into() };
        let resource = self.resource.iter().map(|(key, value)| key_value(key, value));
        let resource = wire::Resource { attributes: resource.collect() };
        let all = wire::ScopeMetrics { scope: Some(scope), metrics: out };
        let all = wire::ResourceMetrics { resource: Some(resource), scope_metrics: vec![all] };
        wire::Request { resource_metrics: vec![all] }.encode_to_vec()
    }

    /// Durations of exchanges: those that the conventions name, and the rest in netra's own name.
    fn exchanges(&self, metric: &Metric, now_ns: u64, out: &mut Vec<wire::Metric>) {
        for known in [DATABASE, RPC_CLIENT, RPC_SERVER, MESSAGING] {
            let points = metric.points.iter();
            let points = points.filter(|it| self.known(it).is_some_and(|(it, _)| it == known));
            let label = |point: &Point, label: &Label| match (label.0, self.known(point)) {
                ("protocol", Some((_, system))) => Some(key_value(known.1, system)),
                _ => without_direction(point, label),
            };
            out.extend(self.metric(metric, known.0.to_owned(), points, &label, now_ns));
        }
        let rest = metric.points.iter().filter(|point| self.known(point).is_none());
        if let Some(name) = name_of(metric.name) {
            out.extend(self.metric(metric, name, rest, &as_it_is, now_ns));
        }
    }

    fn known(&self, point: &Point) -> Option<(Known, &'static str)> {
        let label = |name: &str| point.labels.iter().find(|it| it.0 == name).map(|it| &*it.1);
        let protocol = label("protocol")?;
        let (_, system) = self.systems.iter().find(|(name, _)| *name == protocol)?;
        system.known(label("direction")?)
    }

    /// The last message was taken: what is added from there on is told next. One that was not is told
    /// again with the next, so that nothing is lost.
    pub fn taken(&mut self) {
        if self.form.delta_counts || self.form.delta_durations {
            let metrics = std::mem::take(&mut self.telling).into_iter();
            let counted = metrics.filter(|metric| metric.kind != MetricKind::Gauge);
            self.told = counted
                .flat_map(|Metric { name, points, .. }| {
                    points.into_iter().map(move |Point { labels, value }| ((name, labels), value))
                })
                .collect();
        }
        self.told_ns = self.telling_ns;
    }

    fn metric<'p>(
        &self,
        metric: &Metric,
        name: String,
        points: impl Iterator<Item = &'p Point>,
        attribute: &dyn Fn(&Point, &Label) -> Option<wire::KeyValue>,
        now_ns: u64,
    ) -> Option<wire::Metric> {
        let is_delta = match metric.kind {
            MetricKind::Gauge => false,
            MetricKind::Counter => self.form.delta_counts,
            MetricKind::Histogram => self.form.delta_durations,
        };
        let start = if is_delta { self.told_ns } else { self.started_ns };
        let temporality = if is_delta { DELTA } else { CUMULATIVE };
        let (mut numbers, mut fixed, mut exponential) = (Vec::new(), Vec::new(), Vec::new());
        for point in points {
            let before = self.told.get(&(metric.name, point.labels.clone()));
            let value = match before.filter(|_| is_delta) {
                Some(before) => since(&point.value, before),
                None => point.value.clone(),
            };
            let labels = point.labels.iter();
            let attributes = labels.filter_map(|label| attribute(point, label)).collect();
            let at = At { attributes, start, time: now_ns };
            match value {
                Value::Durations(durations) if durations.count() == 0 => {}
                Value::Durations(durations) if self.form.is_exponential => {
                    exponential.push(exponential_point(&durations, at));
                }
                Value::Durations(durations) => fixed.push(fixed_point(&durations, at)),
                number if metric.kind == MetricKind::Gauge || !is_nothing(&number) => {
                    numbers.push(number_point(&number, at));
                }
                _ => {}
            }
        }
        if numbers.is_empty() && fixed.is_empty() && exponential.is_empty() {
            return None;
        }
        let mut out = wire::Metric {
            name,
            description: metric.help.into(),
            unit: unit(metric).into(),
            ..wire::Metric::default()
        };
        match metric.kind {
            // The conventions have what a process uses as a sum that goes up and down.
            MetricKind::Gauge if !out.name.starts_with("process.") => {
                out.gauge = Some(wire::Gauge { points: numbers });
            }
            MetricKind::Gauge | MetricKind::Counter => {
                let is_monotonic = metric.kind == MetricKind::Counter;
                out.sum = Some(wire::Sum { points: numbers, temporality, is_monotonic });
            }
            MetricKind::Histogram if self.form.is_exponential => {
                out.exponential = Some(wire::Exponential { points: exponential, temporality });
            }
            MetricKind::Histogram => {
                out.histogram = Some(wire::Histogram { points: fixed, temporality });
            }
        }
        Some(out)
    }
}

/// `netra_dial_seconds` is `netra.dial`, in seconds: who turns it back into Prometheus's words gets
/// what `/metrics` says.
fn name_of(name: &str) -> Option<String> {
    if let Some((_, known)) = NAMES.iter().find(|(ours, _)| *ours == name) {
        return known.map(str::to_owned);
    }
    let own = name.strip_prefix("netra_").unwrap_or(name);
    Some(format!("netra.{}", own.strip_suffix("_seconds").unwrap_or(own)))
}

fn unit(metric: &Metric) -> &'static str {
    let name = metric.name;
    match metric.kind {
        _ if name.ends_with("_seconds") => "s",
        _ if name.contains("_bytes") => "By",
        _ if name.ends_with("_fds") => "{file_descriptor}",
        _ if name.ends_with("_threads") => "{thread}",
        _ => "1",
    }
}

/// Of which series, and of which time.
struct At {
    attributes: Vec<wire::KeyValue>,
    start: u64,
    time: u64,
}

fn key_value(key: &str, value: &str) -> wire::KeyValue {
    let value = Some(wire::AnyValue { text: Some(value.to_owned()) });
    wire::KeyValue { key: key.to_owned(), value }
}

type Label = (&'static str, Cow<'static, str>);

/// A label as an attribute: with its own name, and without what the metric's name says.
fn as_it_is(_: &Point, (key, value): &Label) -> Option<wire::KeyValue> {
    Some(key_value(key, value))
}

fn without_direction(point: &Point, label: &Label) -> Option<wire::KeyValue> {
    as_it_is(point, label).filter(|_| label.0 != "direction")
}

fn since(now: &Value, before: &Value) -> Value {
    match (now, before) {
        (Value::Whole(now), Value::Whole(before)) => Value::Whole(now.wrapping_sub(*before)),
        (Value::Number(now), Value::Number(before)) => Value::Number((now - before).max(0.0)),
        (Value::Durations(now), Value::Durations(before)) => Value::Durations(now.since(before)),
        // A metric is of one kind.
        (now, _) => now.clone(),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Whole(whole) => *whole == 0,
        Value::Number(number) => *number == 0.0,
        Value::Durations(durations) => durations.count() == 0,
    }
}

fn number_point(value: &Value, At { attributes, start, time }: At) -> wire::NumberPoint {
    let (double, int) = match value {
        Value::Number(number) => (Some(*number), None),
        Value::Whole(whole) => (None, Some(whole.cast_signed())),
        Value::Durations(_) => (None, None),
    };
    wire::NumberPoint { attributes, start, time, double, int }
}

fn fixed_point(
    durations: &HistogramSnapshot,
    At { attributes, start, time }: At,
) -> wire::HistogramPoint {
    let mut below = 0;
    let mut bucket_counts: Vec<_> = bounds_ns()
        .map(|bound| {
            let up_to = durations.count_at_most_ns(bound);
            up_to - std::mem::replace(&mut below, up_to)
        })
        .collect();
    let count = durations.count();
    bucket_counts.push(count - below);
    #[allow(clippy::cast_precision_loss)]
    let bounds = bounds_ns().map(|bound| bound as f64 / 1e9).collect();
    let sum = Some(durations.sum_seconds());
    wire::HistogramPoint { attributes, start, time, count, sum, bucket_counts, bounds }
}

fn exponential_point(
    durations: &HistogramSnapshot,
    At { attributes, start, time }: At,
) -> wire::ExponentialPoint {
    let (zero_count, buckets) = durations.exponential();
    let positive = buckets.first_key_value().zip(buckets.last_key_value());
    let positive = positive.map(|((first, _), (last, _))| wire::Buckets {
        // Prometheus numbers a bucket by its end, OpenTelemetry by its beginning.
        offset: first - 1,
        counts: (*first..=*last).map(|index| buckets.get(&index).copied().unwrap_or(0)).collect(),
    });
    wire::ExponentialPoint {
        attributes,
        start,
        time,
        count: durations.count(),
        sum: Some(durations.sum_seconds()),
        scale: EXPONENTIAL_SCALE,
        zero_count,
        positive,
        zero_threshold: ZERO_SECONDS,
    }
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;
