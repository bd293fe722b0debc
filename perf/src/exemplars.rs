//! The last trace seen in each bucket of the histograms of requests, so that a tail on a graph leads
//! to a trace. Noted by whoever exports spans, off the data cores; shown in OpenMetrics.

use crate::{histogram::bounds_ns, recorder::Stage};
use std::{
    fmt::Write,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
};

/// One place for each bucket, the unbounded one included.
const BUCKETS: usize = 39;
/// The histograms that have exemplars: metric, label value of the direction, stage.
pub(crate) const SHOWN: [(&str, &str, Stage); 4] = [
    ("netra_http_request_duration_seconds", "inbound", Stage::RequestInbound),
    ("netra_http_request_duration_seconds", "outbound", Stage::RequestOutbound),
    ("netra_proxy_overhead_seconds", "inbound", Stage::OverheadInbound),
    ("netra_proxy_overhead_seconds", "outbound", Stage::OverheadOutbound),
];

/// A trace that took so long, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// Its id.
    pub trace_id: u128,
    /// What was measured.
    pub ns: u64,
    /// When the request came, in nanoseconds of Unix time.
    pub unix_ns: u64,
}

/// The last trace of each bucket. One writer, any number of readers.
#[derive(Debug)]
pub struct Exemplars {
    places: [[Place; BUCKETS]; SHOWN.len()],
}

/// A sequence lock around one exemplar: odd while it is being written.
#[derive(Debug)]
struct Place {
    sequence: AtomicU64,
    words: [AtomicU64; 4],
}

impl Exemplars {
    /// None yet.
    #[allow(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self { places: [const { [const { Place::new() }; BUCKETS] }; SHOWN.len()] }
    }

    /// Takes note of a trace. Only one thread may call it; stages without exemplars are ignored.
    pub fn note(&self, stage: Stage, exemplar: Exemplar) {
        if let Some(row) = SHOWN.iter().position(|shown| shown.2 == stage) {
            let bucket = bounds_ns().take_while(|bound| *bound < exemplar.ns).count();
            self.places[row][bucket.min(BUCKETS - 1)].put(exemplar);
        }
    }

    /// Writes a line of OpenMetrics with the exemplar that belongs to it, if any. `nth` counts the
    /// buckets of each histogram.
    pub(crate) fn append(&self, line: &str, nth: &mut [usize; SHOWN.len()], out: &mut String) {
        out.push_str(line);
        let row = SHOWN.iter().position(|(name, direction, _)| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix("_bucket{"))
                .is_some_and(|rest| rest.contains(&format!("direction=\"{direction}\"")))
        });
        let Some(row) = row else { return };
        let place = self.places[row].get(nth[row]);
        nth[row] += 1;
        if let Some(seen) = place.and_then(Place::get) {
            #[allow(clippy::cast_precision_loss)]
            let (value, at) = (seen.ns as f64 / 1e9, seen.unix_ns as f64 / 1e9);
            let _ = write!(out, " # {{trace_id=\"{:032x}\"}} {value} {at:.3}", seen.trace_id);
        }
    }
}

impl Exemplars {
    /// That of a bucket of a histogram, by the histogram's name and the value of its `direction`.
    pub(crate) fn of(&self, name: &str, direction: &str, bucket: usize) -> Option<Exemplar> {
        let row = SHOWN.iter().position(|shown| shown.0 == name && shown.1 == direction)?;
        self.places[row].get(bucket)?.get()
    }
}

impl Place {
    const fn new() -> Self {
        Self { sequence: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; 4] }
    }

    fn put(&self, exemplar: Exemplar) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        for (word, value) in self.words.iter().zip(words(exemplar)) {
            word.store(value, Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    /// What is there, unless there is nothing or it is being written.
    fn get(&self) -> Option<Exemplar> {
        let before = self.sequence.load(Acquire);
        let [high, low, ns, unix_ns] = [0, 1, 2, 3].map(|i: usize| self.words[i].load(Relaxed));
        fence(Acquire);
        let is_whole =
            before.is_multiple_of(2) && before > 0 && before == self.sequence.load(Relaxed);
        let trace_id = u128::from(high) << 64 | u128::from(low);
        is_whole.then_some(Exemplar { trace_id, ns, unix_ns })
    }
}

fn words(exemplar: Exemplar) -> [u64; 4] {
    // Two halves, each cut on purpose.
    #[allow(clippy::cast_possible_truncation)]
    let (high, low) = ((exemplar.trace_id >> 64) as u64, exemplar.trace_id as u64);
    [high, low, exemplar.ns, exemplar.unix_ns]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn there_is_a_place_for_each_bucket() {
        assert_eq!(bounds_ns().count() + 1, BUCKETS);
    }

    #[test]
    fn a_line_gets_the_exemplar_of_its_bucket() {
        let exemplars = Exemplars::new();
        let seen = Exemplar { trace_id: 0xab, ns: 2_000, unix_ns: 1_500_000_000 };
        exemplars.note(Stage::OverheadOutbound, seen);
        exemplars.note(Stage::Dial, seen);
        let mut nth = [0; SHOWN.len()];
        let mut lines = Vec::new();
        for le in ["0.000001024", "0.000002048", "0.000004096"] {
            let name = "netra_proxy_overhead_seconds_bucket";
            let line = format!("{name}{{le=\"{le}\",direction=\"outbound\"}} 1");
            let mut out = String::new();
            exemplars.append(&line, &mut nth, &mut out);
            lines.push(out.strip_prefix(&line).unwrap().to_owned());
        }
        let id = format!("{:032x}", 0xab);
        assert_eq!(lines, ["", &format!(" # {{trace_id=\"{id}\"}} 0.000002 1.500"), ""]);
        let mut out = String::new();
        exemplars.append("netra_proxy_overhead_seconds_sum 7", &mut nth, &mut out);
        assert_eq!(out, "netra_proxy_overhead_seconds_sum 7");
    }

    #[test]
    fn a_reader_never_sees_half_of_one() {
        let exemplars = Arc::new(Exemplars::new());
        let writer = Arc::clone(&exemplars);
        let writing = thread::spawn(move || {
            for n in 1..50_000u64 {
                let trace_id = u128::from(n) << 64 | u128::from(n);
                writer.note(Stage::RequestInbound, Exemplar { trace_id, ns: n % 7, unix_ns: n });
            }
        });
        let mut seen = 0;
        while !writing.is_finished() {
            if let Some(one) = exemplars.places[0][0].get() {
                let n = u128::from(one.unix_ns);
                assert_eq!((one.trace_id, u128::from(one.ns)), (n << 64 | n, n % 7));
                seen += 1;
            }
        }
        writing.join().unwrap();
        assert!(seen > 0 || exemplars.places[0][0].get().is_some());
    }
}
