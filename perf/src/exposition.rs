//! What `/metrics` says: the recorders of all shards, merged when somebody looks, with the
//! process's own figures, as OpenMetrics or as the Prometheus text format. The only user of
//! prometheus-client.

use crate::{
    HistogramSnapshot,
    labels::DIRECTIONS,
    process::Process,
    recorder::{FAMILIES, Family, Gauge, Key, Kind, Recorder, Stage},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use std::{
    borrow::Cow,
    collections::HashSet,
    fmt::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4, for whoever does not ask for the other.
    Text,
}

impl Format {
    /// The format for what a request accepts.
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What is known of the process when it starts.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The version of netra.
    pub version: &'static str,
    /// The I/O driver in use, one of [`About::drivers`].
    pub driver: &'static str,
    /// All drivers, so that each has its series whichever is in use.
    pub drivers: &'static [&'static str],
    /// When the process started.
    pub started: SystemTime,
    /// Counters that other parts keep; those of one family stand side by side.
    pub counters: &'static [Counter],
}

/// A counter that is not a shard's.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// Its family, without `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Name and value of its label, if its family has one.
    pub label: Option<(&'static str, &'static str)>,
    /// Where it is kept.
    pub cell: &'static AtomicU64,
}

/// All metrics of the process, ready to be rendered.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// Over the recorders of all shards, in the order of the shards.
    pub fn new(recorders: Vec<Arc<Recorder>>, about: About) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Shards { recorders }));
        registry.register_collector(Box::new(Own { about }));
        Self { registry }
    }

    /// All metrics as they are now.
    pub fn render(&self, format: Format) -> String {
        let mut out = String::with_capacity(OUT_BYTES);
        // Writing to a string does not fail, and the collectors fail only when writing does.
        let _ = text::encode(&mut out, &self.registry);
        match format {
            Format::OpenMetrics => out,
            Format::Text => classic(&out),
        }
    }
}

/// A little more than what two shards fill.
const OUT_BYTES: usize = 48 * 1024;

type Labels<'l> = [(&'static str, Cow<'l, str>)];

/// Gauges, each shown for each shard.
const GAUGES: &[(&str, &str, Gauge)] = &[
    ("netra_tcp_connections_active", "Connections being relayed", Gauge::ConnectionsActive),
    ("netra_buffers_used", "Relay buffers that hold bytes", Gauge::BuffersUsed),
    ("netra_buffers_max", "Relay buffers that may be used at most", Gauge::BuffersMax),
    ("netra_pipes_used", "Pipes lent for splicing", Gauge::PipesUsed),
    ("netra_context_entries", "Contexts remembered by request id", Gauge::ContextEntries),
    ("netra_held_bytes", "Bytes of heads that have not come whole", Gauge::HeldBytes),
];

/// One histogram: its label, if it has one, and the stage it shows.
type Series = (Option<(&'static str, &'static str)>, Stage);

/// Durations, summed over the shards.
const HISTOGRAMS: &[(&str, &str, &[Series])] = &[
    ("netra_dial_seconds", "From accept to the upstream's answer", &[(None, Stage::Dial)]),
    (
        "netra_proxy_overhead_seconds",
        "From the arrival of bytes to their submission: what the proxy itself adds",
        &[
            (Some(("direction", DIRECTIONS[0])), Stage::OverheadInbound),
            (Some(("direction", DIRECTIONS[1])), Stage::OverheadOutbound),
        ],
    ),
    (
        "netra_http_request_duration_seconds",
        "From a request's head until its response had been forwarded whole",
        &[
            (Some(("direction", DIRECTIONS[0])), Stage::RequestInbound),
            (Some(("direction", DIRECTIONS[1])), Stage::RequestOutbound),
        ],
    ),
];

/// Upper bounds of the buckets in nanoseconds, each the edge of a cell and therefore exact: by
/// octaves from 1 us to 69 s, halved between 8 us and 16 ms, where a sidecar's tail lies.
fn bounds_ns() -> impl Iterator<Item = u64> {
    const FLOOR_NS: u64 = 1024;
    const OCTAVES: u32 = 26;
    const HALVED: std::ops::Range<u32> = 3..14;
    (0..=OCTAVES).flat_map(|octave| {
        let whole = FLOOR_NS << octave;
        [Some(whole), HALVED.contains(&octave).then_some(whole + whole / 2)].into_iter().flatten()
    })
}

/// What the shards record.
#[derive(Debug)]
struct Shards {
    recorders: Vec<Arc<Recorder>>,
}

impl Collector for Shards {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for family in FAMILIES {
            self.encode_family(&mut encoder, family)?;
        }
        for (name, help, gauge) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (shard, recorder) in self.recorders.iter().enumerate() {
                let labels = [("shard", shard.to_string())];
                metric.encode_family(&labels)?.encode_gauge(&recorder.gauge(*gauge))?;
            }
        }
        for (name, help, rows) in HISTOGRAMS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (label, stage) in *rows {
                let labels = Vec::from_iter(label.map(|(name, value)| (name, value.into())));
                let (sum, count, buckets) = buckets(&self.merged(*stage));
                labelled(&mut metric, &labels.as_slice(), |metric| {
                    metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
                })?;
            }
        }
        Ok(())
    }
}

impl Shards {
    fn encode_family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        family: &Family,
    ) -> Result<(), Error> {
        let mut metric =
            encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
        let mut emit = |labels: &Labels<'_>, total: u64| {
            labelled(&mut metric, &labels, |metric| match family.kind {
                Kind::Counter => metric.encode_counter::<NoLabelSet, u64, u64>(&total, None),
                Kind::CounterSeconds => {
                    metric.encode_counter::<NoLabelSet, f64, u64>(&seconds(total), None)
                }
            })
        };
        for series in family.series() {
            let values = series.labels.iter().map(|value| Cow::Borrowed(*value));
            let mut labels: Vec<_> = family.labels.iter().copied().zip(values).collect();
            if !family.per_shard {
                emit(&labels, self.total(series.key))?;
                continue;
            }
            for (shard, recorder) in self.recorders.iter().enumerate() {
                labels.push(("shard", Cow::Owned(shard.to_string())));
                emit(&labels, recorder.get(series.key))?;
                labels.pop();
            }
        }
        Ok(())
    }

    fn total(&self, key: Key) -> u64 {
        self.recorders.iter().fold(0, |sum, recorder| sum.wrapping_add(recorder.get(key)))
    }

    fn merged(&self, stage: Stage) -> HistogramSnapshot {
        let mut merged = HistogramSnapshot::default();
        for recorder in &self.recorders {
            merged.merge(&recorder.stage(stage).snapshot());
        }
        merged
    }
}

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

/// What is not of any one shard.
#[derive(Debug)]
struct Own {
    about: About,
}

impl Collector for Own {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let about = &self.about;
        let mut gauge = Gauges(&mut encoder);
        let drivers = about
            .drivers
            .iter()
            .map(|name| ([("driver", *name)], f64::from(u8::from(*name == about.driver))));
        gauge.family("netra_io_driver", "The I/O driver in use is 1", drivers)?;
        let version = [([("version", about.version)], 1.0)];
        gauge.family("netra_build_info", "The version of netra", version.into_iter())?;
        let now = Process::read();
        self.encode_process(&mut gauge, &now)?;
        for family in about.counters.chunk_by(|one, next| one.name == next.name) {
            encode_counters(&mut encoder, family)?;
        }
        if let Some(cpu) = now.cpu_seconds {
            let (name, help) = ("process_cpu_seconds", "CPU time in user and kernel mode");
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, f64, u64>(&cpu, None)?;
        }
        Ok(())
    }
}

impl Own {
    #[allow(clippy::cast_precision_loss)]
    fn encode_process(&self, gauge: &mut Gauges<'_, '_>, now: &Process) -> Result<(), Error> {
        let started = self.about.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let figures = [
            ("process_resident_memory_bytes", "Resident memory", now.resident_bytes),
            ("process_virtual_memory_bytes", "Address space", now.virtual_bytes),
            ("process_threads", "Threads", now.threads),
            ("process_open_fds", "Open descriptors", now.open_fds),
            ("process_max_fds", "Descriptors that may be open", now.max_fds),
        ];
        for (name, help, figure) in figures {
            if let Some(figure) = figure {
                gauge.single(name, help, figure as f64)?;
            }
        }
        let help = "Start of the process, since the epoch";
        gauge.single("process_start_time_seconds", help, started.as_secs_f64())
    }
}

/// The counters of one family.
fn encode_counters(encoder: &mut DescriptorEncoder<'_>, family: &[Counter]) -> Result<(), Error> {
    let Some(first) = family.first() else { return Ok(()) };
    let mut metric =
        encoder.encode_descriptor(first.name, first.help, None, MetricType::Counter)?;
    for counter in family {
        let labels = Vec::from_iter(counter.label.map(|(name, value)| (name, value.into())));
        labelled(&mut metric, &labels.as_slice(), |metric| {
            let total = counter.cell.load(Relaxed);
            metric.encode_counter::<NoLabelSet, u64, u64>(&total, None)
        })?;
    }
    Ok(())
}

struct Gauges<'e, 'd>(&'e mut DescriptorEncoder<'d>);

impl Gauges<'_, '_> {
    fn single(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn family<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (L, f64)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
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
