//! What a run measures: histograms, counts, and the time line that is sent out while it runs.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::{Nanos, SECOND, float, micros};

/// Longest latency that is told from longer ones.
const LATENCY_MAX: Nanos = 60 * SECOND;

/// A histogram with three digits from 1 us to 60 s; below 1 us it is exact to the nanosecond.
pub(crate) fn histogram() -> Histogram<u64> {
    new_histogram(1, 3)
}

/// A small histogram for one interval of the time line: two digits.
fn interval_histogram() -> Histogram<u32> {
    new_histogram(1_000, 2)
}

fn new_histogram<T: hdrhistogram::Counter>(low: u64, digits: u8) -> Histogram<T> {
    // The only errors are bounds out of order and more than five digits; both are constants here.
    match Histogram::new_with_bounds(low, LATENCY_MAX, digits) {
        Ok(histogram) => histogram,
        Err(cause) => unreachable!("constant histogram bounds: {cause}"),
    }
}

/// Why a request has no good answer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    /// The connection could not be made.
    Connect,
    /// The connection ended or broke in the middle.
    Broken,
    /// No answer in time.
    Timeout,
    /// Not an answer to what was asked: no HTTP, or not the bytes that were sent.
    Malformed,
    /// A status of 400 and above.
    Status,
    /// Not answered when the run ended.
    Unfinished,
}

/// Sums of a run.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Requests answered well, within the measured time.
    pub(crate) good: u64,
    pub(crate) failures: BTreeMap<Failure, u64>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) connections_opened: u64,
    /// Connections the peer closed while nothing was asked on them.
    pub(crate) closed_while_idle: u64,
    /// Requests that were due while every connection was busy.
    pub(crate) waited_for_connection: u64,
}

impl Counts {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn add(&mut self, other: &Self) {
        self.good += other.good;
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        self.connections_opened += other.connections_opened;
        self.closed_while_idle += other.closed_while_idle;
        self.waited_for_connection += other.waited_for_connection;
        for (&failure, &count) in &other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
    }
}

/// One interval of one thread.
pub(crate) struct Interval {
    pub(crate) index: u64,
    pub(crate) failed: u64,
    pub(crate) latency: Histogram<u32>,
}

impl Interval {
    pub(crate) fn new(index: u64) -> Self {
        Self { index, failed: 0, latency: interval_histogram() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.failed += other.failed;
        // Both have the same bounds, which is all that adding needs.
        let _ = self.latency.add(&other.latency);
    }
}

/// The part of a run that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// End of the warm-up.
    pub(crate) from: Nanos,
    pub(crate) until: Nanos,
    /// Length of the intervals of the time line.
    pub(crate) interval: Nanos,
}

/// Gathers what one thread sees.
pub(crate) struct Recorder {
    window: Window,
    /// From the intended start to the last byte of the answer.
    pub(crate) latency: Histogram<u64>,
    /// From the real start.
    pub(crate) service: Histogram<u64>,
    /// From when a request could have started to when we started it.
    pub(crate) lateness: Histogram<u64>,
    /// From dialling to established.
    pub(crate) connect: Histogram<u64>,
    pub(crate) counts: Counts,
    interval: Interval,
    intervals: Sender<Interval>,
    /// Text of the first failure, for the user.
    pub(crate) first_failure: Option<String>,
}

impl Recorder {
    pub(crate) fn new(window: Window, intervals: Sender<Interval>) -> Self {
        Self {
            window,
            latency: histogram(),
            service: histogram(),
            lateness: histogram(),
            connect: histogram(),
            counts: Counts::default(),
            interval: Interval::new(0),
            intervals,
            first_failure: None,
        }
    }

    fn is_counted(&self, intended: Nanos) -> bool {
        (self.window.from..self.window.until).contains(&intended)
    }

    /// A request started; `possible` is when it could have.
    pub(crate) fn started(&mut self, intended: Nanos, possible: Nanos, now: Nanos, bytes: usize) {
        if self.is_counted(intended) {
            self.lateness.saturating_record(now.saturating_sub(possible));
            self.counts.bytes_sent += bytes as u64;
            self.counts.waited_for_connection += u64::from(possible > intended);
        }
    }

    pub(crate) fn connected(&mut self, intended: Nanos, took: Nanos) {
        self.counts.connections_opened += 1;
        if self.is_counted(intended) {
            self.connect.saturating_record(took);
        }
    }

    /// A request was answered well.
    pub(crate) fn good(&mut self, intended: Nanos, started: Nanos, now: Nanos) {
        self.roll(now);
        if self.is_counted(intended) {
            self.counts.good += 1;
            self.latency.saturating_record(now.saturating_sub(intended));
            self.service.saturating_record(now.saturating_sub(started));
            self.interval.latency.saturating_record(now.saturating_sub(intended));
        }
    }

    pub(crate) fn failed(
        &mut self,
        intended: Nanos,
        now: Nanos,
        failure: Failure,
        why: impl FnOnce() -> String,
    ) {
        self.roll(now);
        if self.is_counted(intended) {
            *self.counts.failures.entry(failure).or_default() += 1;
            self.interval.failed += 1;
        }
        if self.first_failure.is_none() {
            self.first_failure = Some(why());
        }
    }

    /// A request was not answered before we gave up: its latency is at least this. Leaving it out
    /// would make the percentiles of an overloaded target look good.
    pub(crate) fn unfinished(&mut self, intended: Nanos, now: Nanos) {
        if self.is_counted(intended) {
            *self.counts.failures.entry(Failure::Unfinished).or_default() += 1;
            self.latency.saturating_record(now.saturating_sub(intended));
        }
    }

    /// Sends the intervals that are over.
    pub(crate) fn roll(&mut self, now: Nanos) {
        let index = now.min(self.window.until).saturating_sub(self.window.from).saturating_sub(1)
            / self.window.interval;
        if index > self.interval.index {
            let over = std::mem::replace(&mut self.interval, Interval::new(index));
            // Nobody listens any more when the run is being abandoned.
            let _ = self.intervals.send(over);
        }
    }

    /// Ends the recording and the time line.
    pub(crate) fn finish(self) -> Measured {
        let _ = self.intervals.send(self.interval);
        Measured {
            latency: self.latency,
            service: self.service,
            lateness: self.lateness,
            connect: self.connect,
            counts: self.counts,
            first_failure: self.first_failure,
        }
    }
}

/// What one thread, or all together, measured.
pub(crate) struct Measured {
    pub(crate) latency: Histogram<u64>,
    pub(crate) service: Histogram<u64>,
    pub(crate) lateness: Histogram<u64>,
    pub(crate) connect: Histogram<u64>,
    pub(crate) counts: Counts,
    pub(crate) first_failure: Option<String>,
}

impl Measured {
    pub(crate) fn new() -> Self {
        Self {
            latency: histogram(),
            service: histogram(),
            lateness: histogram(),
            connect: histogram(),
            counts: Counts::default(),
            first_failure: None,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (sum, part) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.lateness, &other.lateness),
            (&mut self.connect, &other.connect),
        ] {
            // Both have the same bounds, which is all that adding needs.
            let _ = sum.add(part);
        }
        self.counts.add(&other.counts);
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

/// A distribution as it is reported: microseconds, and the buckets to draw curves from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) p9999: f64,
    pub(crate) max: f64,
    /// Pairs of nanoseconds and count; empty where only the figures matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) buckets: Vec<(u64, u64)>,
}

impl Distribution {
    pub(crate) fn of<T: hdrhistogram::Counter>(histogram: &Histogram<T>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile: f64| micros(histogram.value_at_quantile(quantile).min(histogram.max()));
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            min: micros(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: micros(histogram.max()),
            buckets: Vec::new(),
        }
    }

    pub(crate) fn with_buckets(histogram: &Histogram<u64>) -> Self {
        let buckets = histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
            .collect();
        Self { buckets, ..Self::of(histogram) }
    }

    /// The histogram again, to three digits.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        let mut histogram = histogram();
        for &(value, count) in &self.buckets {
            histogram.saturating_record_n(value, count);
        }
        histogram
    }
}

/// One interval of all threads, as it is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// Seconds since the end of the warm-up, at the end of the interval.
    pub(crate) at: f64,
    pub(crate) rate: f64,
    pub(crate) failed: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Moment {
    pub(crate) fn of(interval: &Interval, length: Nanos) -> Self {
        let latency = Distribution::of(&interval.latency);
        let seconds = float(length) / float(SECOND);
        Self {
            at: float(interval.index + 1) * seconds,
            rate: float(latency.count) / seconds,
            failed: interval.failed,
            p50: latency.p50,
            p99: latency.p99,
            max: latency.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const WINDOW: Window = Window { from: SECOND, until: 3 * SECOND, interval: SECOND };

    #[test]
    fn three_digits_hold_from_a_microsecond_to_a_minute() {
        for value in [1_000, 1_234, 98_765, 7_654_321, 200 * 1_000_000, 59 * SECOND] {
            let mut histogram = histogram();
            histogram.record(value).expect("within bounds");
            let error = float(histogram.value_at_quantile(0.5).abs_diff(value)) / float(value);
            assert!(error <= 0.001, "{value}: {error}");
        }
        let mut histogram = histogram();
        histogram.saturating_record(100 * SECOND);
        assert_eq!(histogram.len(), 1, "longer ones are kept, as the longest");
    }

    #[test]
    fn only_the_window_counts() {
        let (sender, receiver) = mpsc::channel();
        let mut recorder = Recorder::new(WINDOW, sender);
        recorder.good(SECOND - 1, SECOND - 1, SECOND + 5);
        recorder.good(SECOND, SECOND + 10, SECOND + 50);
        recorder.good(3 * SECOND - 1, 3 * SECOND - 1, 3 * SECOND + 99);
        recorder.good(3 * SECOND, 3 * SECOND, 3 * SECOND + 1);
        recorder.failed(2 * SECOND, 2 * SECOND + 1, Failure::Broken, || "reset".to_owned());
        recorder.failed(0, 10, Failure::Broken, || "warm-up".to_owned());
        recorder.unfinished(2 * SECOND, 4 * SECOND);
        let measured = recorder.finish();
        assert_eq!(measured.counts.good, 2);
        assert_eq!(measured.counts.failures[&Failure::Broken], 1);
        assert_eq!(measured.counts.failures[&Failure::Unfinished], 1);
        assert_eq!(measured.first_failure.as_deref(), Some("reset"));
        // Two answers and the lower bound of the one that never came.
        assert_eq!(measured.latency.len(), 3);
        assert_eq!(Distribution::of(&measured.service).min, 0.04);
        let intervals: Vec<Interval> = receiver.iter().collect();
        let seen: Vec<_> = intervals.iter().map(|i| (i.index, i.latency.len(), i.failed)).collect();
        assert_eq!(seen, [(0, 1, 0), (1, 1, 1)]);
    }

    #[test]
    fn a_distribution_survives_its_buckets() {
        let mut original = histogram();
        for value in 0..10_000_u64 {
            original.record(value * value).expect("within bounds");
        }
        let distribution = Distribution::with_buckets(&original);
        let text = serde_json::to_string(&distribution).expect("plain data");
        let again: Distribution = serde_json::from_str(&text).expect("what we wrote");
        assert_eq!(again, distribution);
        assert_eq!(Distribution::with_buckets(&again.histogram()), distribution);
        assert_eq!(Distribution::of(&histogram()), Distribution::default());
    }

    #[test]
    fn threads_add_up() {
        let part = |value: u64, failure| {
            let mut measured = Measured::new();
            measured.latency.record(value).expect("within bounds");
            measured.counts.good = 1;
            measured.counts.failures.insert(failure, 2);
            measured
        };
        let mut sum = Measured::new();
        sum.add(part(1_000, Failure::Timeout));
        sum.add(part(9_000, Failure::Timeout));
        assert_eq!((sum.latency.len(), sum.counts.good, sum.counts.failed()), (2, 2, 4));
    }
}
