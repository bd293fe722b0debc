//! What `/metrics` says: the recorders of all shards, merged when somebody looks, with the
//! process's own figures, as OpenMetrics, as the Prometheus text format, or in Prometheus's protobuf,
//! which has native histograms. The only user of prometheus-client.

use crate::{
    HistogramSnapshot,
    exemplars::{Exemplars, SHOWN},
    histogram::bounds_ns,
    metrics::{About, Metric, MetricKind, More, Source, Value},
    protobuf,
    recorder::Recorder,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use std::{borrow::Cow, collections::HashSet, fmt::Error, sync::Arc};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's protobuf, with native histograms beside the usual ones.
    Protobuf,
    /// The Prometheus text format 0.0.4, for whoever does not ask for another.
    Text,
}

impl Format {
    /// The format for what a request accepts: the one that it would rather have, and of several the
    /// first that it names.
    pub fn accepted(accept: Option<&str>) -> Self {
        let mut best = (Self::Text, 0.0);
        for item in accept.unwrap_or_default().split(',') {
            let mut parts = item.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_ours, mut is_delimited) = (1.0, false, false);
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("proto", value)) => is_ours = value == protobuf::FAMILY,
                    Some(("encoding", value)) => is_delimited = value == "delimited",
                    _ => {}
                }
            }
            let format = match media.as_str() {
                "application/openmetrics-text" => Self::OpenMetrics,
                protobuf::MEDIA if is_ours && is_delimited => Self::Protobuf,
                "text/plain" => Self::Text,
                _ => continue,
            };
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => protobuf::CONTENT_TYPE,
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics of the process, ready to be rendered.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
    source: Arc<Source>,
    exemplars: &'static Exemplars,
}

impl Exposition {
    /// Over the recorders of all shards, in the order of the shards.
    pub fn new(recorders: Vec<Arc<Recorder>>, about: About) -> Self {
        let mut registry = Registry::default();
        let exemplars = about.exemplars;
        let source = Arc::new(Source { recorders, about, more: None });
        registry.register_collector(Box::new(Written(Arc::clone(&source))));
        Self { registry, source, exemplars }
    }

    /// The same, with metrics that others keep, whose series come and go.
    pub fn with(recorders: Vec<Arc<Recorder>>, about: About, more: Box<dyn More>) -> Self {
        let mut registry = Registry::default();
        let exemplars = about.exemplars;
        let source = Arc::new(Source { recorders, about, more: Some(more) });
        registry.register_collector(Box::new(Written(Arc::clone(&source))));
        Self { registry, source, exemplars }
    }

    /// All metrics as they are now, for whoever writes them in another form.
    pub fn metrics(&self) -> Vec<Metric> {
        self.source.metrics()
    }

    /// All metrics as they are now, in bytes.
    pub fn render(&self, format: Format) -> Vec<u8> {
        if format == Format::Protobuf {
            return protobuf::encode(&self.metrics(), self.exemplars);
        }
        let mut out = String::with_capacity(OUT_BYTES);
        // Writing to a string does not fail, and the collectors fail only when writing does.
        let _ = text::encode(&mut out, &self.registry);
        match format {
            Format::OpenMetrics => self.with_exemplars(&out).into(),
            Format::Protobuf | Format::Text => classic(&out).into(),
        }
    }

    /// prometheus-client writes exemplars only of its own histograms.
    fn with_exemplars(&self, open_metrics: &str) -> String {
        let mut out = String::with_capacity(open_metrics.len() + EXEMPLAR_BYTES * SHOWN.len());
        let mut nth = [0; SHOWN.len()];
        for line in open_metrics.lines() {
            self.exemplars.append(line, &mut nth, &mut out);
            out.push('\n');
        }
        out
    }
}

/// What the exemplars of a histogram usually take.
const EXEMPLAR_BYTES: usize = 1024;

/// A little more than what two shards fill.
const OUT_BYTES: usize = 48 * 1024;

/// Writes what there is by prometheus-client.
#[derive(Debug)]
struct Written(Arc<Source>);

impl Collector for Written {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for Metric { name, help, kind, points } in self.0.metrics() {
            let is_counter = kind == MetricKind::Counter;
            let kind = match kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for point in points {
                labelled(&mut metric, &point.labels.as_slice(), |metric| match &point.value {
                    Value::Whole(total) if is_counter => {
                        metric.encode_counter::<NoLabelSet, u64, u64>(total, None)
                    }
                    Value::Number(total) if is_counter => {
                        metric.encode_counter::<NoLabelSet, f64, u64>(total, None)
                    }
                    Value::Whole(now) => metric.encode_gauge(now),
                    Value::Number(now) => metric.encode_gauge(now),
                    Value::Durations(snapshot) => {
                        let (sum, count, buckets) = buckets(snapshot);
                        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
                    }
                })?;
            }
        }
        Ok(())
    }
}

type Labels<'l> = [(&'static str, Cow<'l, str>)];

/// Encodes a series with its labels, and without brackets when it has none.
fn labelled(
    metric: &mut MetricEncoder<'_>,
    labels: &&Labels<'_>,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if labels.is_empty() {
        return encode(metric);
    }
    encode(&mut metric.encode_family(labels)?)
}

/// Sum, count and buckets with their own counts, as prometheus-client wants them.
fn buckets(snapshot: &HistogramSnapshot) -> (f64, u64, Vec<(f64, u64)>) {
    let count = snapshot.count();
    let mut below = 0;
    let mut buckets = Vec::new();
    for bound in bounds_ns() {
        let up_to = snapshot.count_at_most_ns(bound);
        buckets.push((seconds(bound), up_to - below));
        below = up_to;
    }
    buckets.push((f64::INFINITY, count - below));
    (snapshot.sum_seconds(), count, buckets)
}

#[allow(clippy::cast_precision_loss)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// OpenMetrics as Prometheus text: a counter's family is named with its `_total`, and there is
/// neither unit nor end mark.
fn classic(open_metrics: &str) -> String {
    let counters: HashSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut out = String::with_capacity(open_metrics.len() + counters.len() * 16);
    for line in open_metrics.lines() {
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let name = described.and_then(|rest| rest.split(' ').next());
        match name {
            Some(name) if counters.contains(name) => {
                let end = "# HELP ".len() + name.len();
                out.extend([&line[..end], "_total", &line[end..], "\n"]);
            }
            _ if line.starts_with("# UNIT ") || line == "# EOF" => {}
            _ => out.extend([line, "\n"]),
        }
    }
    out
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
