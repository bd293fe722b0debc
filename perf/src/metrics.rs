//! All metrics of the process as they are when somebody looks: names, labels and values, whatever
//! form they are then written in.

use crate::{
    HistogramSnapshot,
    exchanges::{Counted, ExchangeStage, Exchanges},
    exemplars::Exemplars,
    labels::DIRECTIONS,
    process::Process,
    recorder::{FAMILIES, Family, Gauge, Key, Kind, Recorder, Stage},
    sys,
};
use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// One metric with all its series.
#[derive(Clone, Debug)]
pub struct Metric {
    /// As Prometheus has it, without the `_total` of counters.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// What its values are.
    pub kind: MetricKind,
    /// Its series.
    pub points: Vec<Point>,
}

/// What the values of a metric are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// They only go up.
    Counter,
    /// They go up and down.
    Gauge,
    /// Durations, counted by how long they are.
    Histogram,
}

/// Labels with their values, in the order in which they are shown.
pub type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// One series.
#[derive(Clone, Debug)]
pub struct Point {
    /// What tells it from the others.
    pub labels: Labels,
    /// As it is now.
    pub value: Value,
}

/// What a series has come to.
#[derive(Clone, Debug)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// A number that may have a fraction.
    Number(f64),
    /// Durations.
    Durations(HistogramSnapshot),
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
    /// Counters that other parts keep; those of one family stand side by side, and those whose
    /// family is one of the shards' are shown with it.
    pub counters: &'static [Counter],
    /// Traces that requests belonged to.
    pub exemplars: &'static Exemplars,
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

/// Where metrics come from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) recorders: Vec<Arc<Recorder>>,
    pub(crate) about: About,
    pub(crate) more: Option<Box<dyn More>>,
}

/// Who keeps metrics whose series come and go.
pub trait More: fmt::Debug + Send + Sync {
    /// All of them as they are now.
    fn metrics(&self) -> Vec<Metric>;
}

/// Gauges, each shown for each shard.
const GAUGES: &[(&str, &str, Gauge)] = &[
    ("netra_tcp_connections_active", "Connections being relayed", Gauge::ConnectionsActive),
    ("netra_legs_active", "Upstreams of connections beside their first", Gauge::LegsActive),
    (
        "netra_mirrors_active",
        "Upstreams that copies of a connection's messages go to",
        Gauge::MirrorsActive,
    ),
    ("netra_buffers_used", "Relay buffers that hold bytes", Gauge::BuffersUsed),
    ("netra_buffers_max", "Relay buffers that may be used at most", Gauge::BuffersMax),
    ("netra_pipes_used", "Pipes lent for splicing", Gauge::PipesUsed),
    ("netra_context_entries", "Contexts remembered by request id", Gauge::ContextEntries),
    ("netra_held_bytes", "Bytes of heads that have not come whole", Gauge::HeldBytes),
    ("netra_accept_full", "1 while new connections wait for room", Gauge::AcceptFull),
];

/// One histogram: its label, if it has one, and the stage it shows.
type Series = (Option<(&'static str, &'static str)>, Stage);

/// Durations, summed over the shards.
const HISTOGRAMS: &[(&str, &str, &[Series])] = &[
    ("netra_dial_seconds", "From accept to the upstream's answer", &[(None, Stage::Dial)]),
    (
        "netra_proxy_overhead_seconds",
        "What netra itself took: of a request, both ways; of bytes that passed an opaque connection",
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

/// Durations of exchanges of protocols beside HTTP/1, by direction and protocol.
const EXCHANGE_HISTOGRAMS: &[(&str, &str, ExchangeStage)] = &[
    (
        "netra_exchange_duration_seconds",
        "From a request's head until its response had been forwarded whole, but for HTTP/1",
        ExchangeStage::Duration,
    ),
    (
        "netra_exchange_overhead_seconds",
        "What netra itself took of an exchange, both ways, but for HTTP/1",
        ExchangeStage::Overhead,
    ),
];

impl Source {
    /// All of them, always in the same order.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let mut all = Vec::with_capacity(96);
        all.extend(FAMILIES.iter().map(|family| self.family(family)));
        all.extend(GAUGES.iter().map(|(name, help, gauge)| {
            let shards = self.recorders.iter().enumerate();
            let points = shards.map(|(shard, recorder)| Point {
                labels: vec![("shard", Cow::Owned(shard.to_string()))],
                value: Value::Whole(recorder.gauge(*gauge)),
            });
            Metric { name, help, kind: MetricKind::Gauge, points: points.collect() }
        }));
        self.exchanges(&mut all);
        all.extend(HISTOGRAMS.iter().map(|(name, help, rows)| {
            let points = rows.iter().map(|(label, stage)| Point {
                labels: Vec::from_iter(label.map(|(name, value)| (name, value.into()))),
                value: Value::Durations(self.merged(*stage)),
            });
            Metric { name, help, kind: MetricKind::Histogram, points: points.collect() }
        }));
        self.own(&mut all);
        all.extend(self.more.iter().flat_map(|more| more.metrics()));
        all
    }

    fn family(&self, family: &Family) -> Metric {
        let value = |total| match family.kind {
            Kind::Counter => Value::Whole(total),
            Kind::CounterSeconds => Value::Number(seconds(total)),
        };
        let mut points = Vec::new();
        for series in family.series() {
            let values = series.labels.iter().map(|value| Cow::Borrowed(*value));
            let labels: Labels = family.labels.iter().copied().zip(values).collect();
            if !family.per_shard {
                points.push(Point { labels, value: value(self.total(series.key)) });
                continue;
            }
            for (shard, recorder) in self.recorders.iter().enumerate() {
                let mut labels = labels.clone();
                labels.push(("shard", Cow::Owned(shard.to_string())));
                points.push(Point { labels, value: value(recorder.get(series.key)) });
            }
        }
        // What other parts count of the same thing.
        let theirs = self.about.counters.iter().filter(|counter| counter.name == family.name);
        points.extend(theirs.map(counted));
        let (name, help) = (family.name, family.help);
        Metric { name, help, kind: MetricKind::Counter, points }
    }

    /// Exchanges of protocols beside HTTP/1: what has been seen, and nothing where nobody reads any.
    fn exchanges(&self, all: &mut Vec<Metric>) {
        let Some(first) = self.recorders.first().map(|recorder| recorder.exchanges()) else {
            return;
        };
        if first.protocols().next().is_none() {
            return;
        }
        let mut totals: Vec<_> = first.counts().collect();
        for other in &self.recorders[1..] {
            for (total, more) in totals.iter_mut().zip(other.exchanges().counts()) {
                total.total = total.total.wrapping_add(more.total);
            }
        }
        let points = totals.into_iter().filter(|counted| counted.total > 0);
        let points = points.map(|Counted { labels, total }| {
            let names = ["direction", "protocol", "operation", "outcome"];
            let labels = names.into_iter().zip(labels.map(Cow::Borrowed)).collect();
            Point { labels, value: Value::Whole(total) }
        });
        let (name, help) = ("netra_exchanges", "Exchanges that are over, but for those of HTTP/1");
        all.push(Metric { name, help, kind: MetricKind::Counter, points: points.collect() });
        for (name, help, stage) in EXCHANGE_HISTOGRAMS {
            let points = self.exchange_durations(first, *stage);
            all.push(Metric { name, help, kind: MetricKind::Histogram, points });
        }
    }

    fn exchange_durations(&self, protocols: &Exchanges, stage: ExchangeStage) -> Vec<Point> {
        let mut points = Vec::new();
        for (protocol, protocol_name) in protocols.protocols().enumerate() {
            for (direction, direction_name) in DIRECTIONS.iter().enumerate() {
                let mut merged = HistogramSnapshot::default();
                for recorder in &self.recorders {
                    if let Some(more) = recorder.exchanges().stage(protocol, direction, stage) {
                        merged.merge(&more);
                    }
                }
                if merged.count() > 0 {
                    let labels = vec![
                        ("direction", Cow::Borrowed(*direction_name)),
                        ("protocol", Cow::Borrowed(protocol_name)),
                    ];
                    points.push(Point { labels, value: Value::Durations(merged) });
                }
            }
        }
        points
    }

    /// What is not of any one shard.
    fn own(&self, all: &mut Vec<Metric>) {
        let about = &self.about;
        let drivers = about.drivers.iter().map(|name| Point {
            labels: vec![("driver", Cow::Borrowed(*name))],
            value: Value::Number(f64::from(u8::from(*name == about.driver))),
        });
        let (name, help) = ("netra_io_driver", "The I/O driver in use is 1");
        all.push(Metric { name, help, kind: MetricKind::Gauge, points: drivers.collect() });
        let labels = vec![("version", Cow::Borrowed(about.version))];
        let points = vec![Point { labels, value: Value::Number(1.0) }];
        let (name, help) = ("netra_build_info", "The version of netra");
        all.push(Metric { name, help, kind: MetricKind::Gauge, points });
        let now = Process::read();
        self.process(&now, all);
        for family in about.counters.chunk_by(|one, next| one.name == next.name) {
            let is_theirs = |own: &Counter| FAMILIES.iter().any(|theirs| theirs.name == own.name);
            let Some(first) = family.first().filter(|first| !is_theirs(first)) else { continue };
            let (name, help) = (first.name, first.help);
            let points = family.iter().map(counted).collect();
            all.push(Metric { name, help, kind: MetricKind::Counter, points });
        }
        if let Some(cpu) = now.cpu_seconds {
            let (name, help) = ("process_cpu_seconds", "CPU time in user and kernel mode");
            all.push(single(name, help, MetricKind::Counter, cpu));
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn process(&self, now: &Process, all: &mut Vec<Metric>) {
        let heap = sys::allocator();
        let started = self.about.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let figures = [
            ("process_resident_memory_bytes", "Resident memory", now.resident_bytes),
            ("process_virtual_memory_bytes", "Address space", now.virtual_bytes),
            ("process_threads", "Threads", now.threads),
            ("process_open_fds", "Open descriptors", now.open_fds),
            ("process_max_fds", "Descriptors that may be open", now.max_fds),
            ("netra_allocator_committed_bytes", "Memory the allocator holds", heap.committed),
            ("netra_allocator_committed_bytes_max", "The most it ever held", heap.committed_max),
        ];
        let known = figures.into_iter().filter_map(|(name, help, figure)| {
            figure.map(|figure| single(name, help, MetricKind::Gauge, figure as f64))
        });
        all.extend(known);
        let help = "Start of the process, since the epoch";
        let seconds = started.as_secs_f64();
        all.push(single("process_start_time_seconds", help, MetricKind::Gauge, seconds));
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

fn single(name: &'static str, help: &'static str, kind: MetricKind, value: f64) -> Metric {
    let points = vec![Point { labels: Vec::new(), value: Value::Number(value) }];
    Metric { name, help, kind, points }
}

fn counted(counter: &Counter) -> Point {
    let labels = Vec::from_iter(counter.label.map(|(name, value)| (name, value.into())));
    Point { labels, value: Value::Whole(counter.cell.load(Relaxed)) }
}

#[allow(clippy::cast_precision_loss)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
