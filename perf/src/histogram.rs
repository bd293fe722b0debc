//! A log-linear histogram of durations: 16 cells to the octave (a value is known within 6.25 %),
//! 1 us to beyond 60 s, in cells that have one writer.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Cells in each octave, as a power of two.
const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
/// The smallest value told apart from zero, as a power of two of nanoseconds (1,024 ns).
const FLOOR_BITS: u32 = 10;
/// Octaves above the floor: 2^10 ns to 2^36 ns (68.7 s).
const OCTAVES: usize = 26;
/// Below the floor, then the octaves, then one cell for all that is longer.
pub const CELLS: usize = 1 + OCTAVES * SUBS + 1;

/// Counts of durations, written by one shard and read by anybody.
#[derive(Debug)]
pub struct Histogram {
    cells: [AtomicU64; CELLS],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { cells: [const { AtomicU64::new(0) }; CELLS], sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration, in nanoseconds. One writer only: a plain load and store.
    #[inline]
    pub fn record_ns(&self, ns: u64) {
        let cell = &self.cells[cell_of(ns)];
        cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        self.sum_ns.store(self.sum_ns.load(Relaxed).wrapping_add(ns), Relaxed);
    }

    /// The counts as they are now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: self.cells.iter().map(|c| c.load(Relaxed)).collect(),
            sum_ns: self.sum_ns.load(Relaxed),
        }
    }
}

/// A histogram as it was when somebody looked; several shards' can be added up.
#[derive(Clone, Debug)]
pub struct HistogramSnapshot {
    counts: Vec<u64>,
    sum_ns: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { counts: vec![0; CELLS], sum_ns: 0 }
    }
}

impl HistogramSnapshot {
    /// Adds another shard's counts to these.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The cells that counted anything: the first duration above each (u64::MAX for the last one),
    /// and its count.
    pub fn cells(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        counts.map(|(cell, n)| (upper_edge_ns(cell), *n))
    }

    /// The sum of all durations, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        {
            self.sum_ns as f64 / 1e9
        }
    }

    /// How many durations were at most `bound_ns`, exact when the bound is a cell's edge.
    pub fn count_at_most_ns(&self, bound_ns: u64) -> u64 {
        self.counts
            .iter()
            .enumerate()
            .take_while(|(cell, _)| upper_edge_ns(*cell) <= bound_ns)
            .map(|(_, n)| n)
            .sum()
    }

    /// What has been counted since an earlier look at the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        Self {
            counts: pairs.map(|(now, then)| now.wrapping_sub(*then)).collect(),
            sum_ns: self.sum_ns.wrapping_sub(earlier.sum_ns),
        }
    }

    /// The same in exponential buckets of seconds, [`EXPONENTIAL_SCALE`] to the power of two: each
    /// cell in the bucket that its middle lies in, which is off by half a cell (3 %) at most. First
    /// those that are no longer than [`ZERO_SECONDS`], then buckets by index: that of index `i` ends
    /// with `2^(i/8)` s.
    pub fn exponential(&self) -> (u64, BTreeMap<i32, u64>) {
        let mut buckets = BTreeMap::new();
        for (cell, count) in self.counts.iter().enumerate().skip(1).filter(|(_, n)| **n > 0) {
            *buckets.entry(exponential_index(cell)).or_default() += count;
        }
        (self.counts[0], buckets)
    }

    /// The duration below which the share `q` (0 to 1) of all lie, in nanoseconds; 0 when empty.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        let total = self.count();
        if total == 0 {
            return 0;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let rank = ((total as f64 * q).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (cell, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return upper_edge_ns(cell);
            }
        }
        u64::MAX
    }
}

/// Exponential buckets to an octave, as a power of two: eight, each up to 9 % wide.
pub const EXPONENTIAL_SCALE: i32 = 3;
/// What is no longer is not told apart.
pub const ZERO_SECONDS: f64 = 1.024e-6;

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn exponential_index(cell: usize) -> i32 {
    let lower = upper_edge_ns(cell - 1);
    // The last one has no end.
    let upper = if cell == CELLS - 1 { 2 * lower } else { upper_edge_ns(cell) };
    let middle = (lower as f64 / 2.0 + upper as f64 / 2.0) / 1e9;
    (middle.log2() * f64::from(1 << EXPONENTIAL_SCALE)).ceil() as i32
}

/// The cell that counts a duration of `ns`.
#[inline]
fn cell_of(ns: u64) -> usize {
    if ns < (1 << FLOOR_BITS) {
        return 0;
    }
    let octave = 63 - ns.leading_zeros();
    let sub = usize::try_from(ns >> (octave - SUB_BITS)).unwrap_or(0) & (SUBS - 1);
    let cell = 1 + ((octave - FLOOR_BITS) as usize) * SUBS + sub;
    cell.min(CELLS - 1)
}

/// The first duration above a cell, in nanoseconds.
fn upper_edge_ns(cell: usize) -> u64 {
    match cell {
        0 => 1 << FLOOR_BITS,
        c if c == CELLS - 1 => u64::MAX,
        c => {
            let (octave, sub) = ((c - 1) / SUBS, (c - 1) % SUBS);
            let base = 1u64 << (FLOOR_BITS as usize + octave);
            base + (base >> SUB_BITS) * (sub as u64 + 1)
        }
    }
}

/// Upper bounds of the buckets that are shown, in nanoseconds, each the edge of a cell and therefore
/// exact: by octaves from 1 us to 69 s, halved between 8 us and 16 ms, where a sidecar's tail lies.
pub(crate) fn bounds_ns() -> impl Iterator<Item = u64> {
    const FLOOR_NS: u64 = 1024;
    const OCTAVES: u32 = 26;
    const HALVED: std::ops::Range<u32> = 3..14;
    (0..=OCTAVES).flat_map(|octave| {
        let whole = FLOOR_NS << octave;
        [Some(whole), HALVED.contains(&octave).then_some(whole + whole / 2)].into_iter().flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_below_its_cells_upper_edge_and_not_below_the_previous_one() {
        let mut ns = 1u64;
        while ns < 1 << 40 {
            for value in [ns - 1, ns, ns + ns / 3] {
                let cell = cell_of(value);
                assert!(value < upper_edge_ns(cell), "{value} in {cell}");
                assert!(cell == 0 || value >= upper_edge_ns(cell - 1), "{value} in {cell}");
            }
            ns *= 2;
        }
    }

    #[test]
    fn quantiles_are_within_one_cell() {
        let histogram = Histogram::default();
        for us in 1..=1000u64 {
            histogram.record_ns(us * 1000);
        }
        let seen = histogram.snapshot();
        assert_eq!(seen.count(), 1000);
        assert_eq!(seen.cells().map(|(_, n)| n).sum::<u64>(), 1000);
        assert!(seen.cells().all(|(edge, n)| edge > 1000 && n > 0));
        for (q, exact) in [(0.5, 500_000u64), (0.99, 990_000), (0.999, 999_000)] {
            let got = seen.quantile_ns(q);
            assert!(got >= exact && got - exact <= exact / 8, "p{q}: {got} for {exact}");
        }
        assert_eq!(seen.count_at_most_ns(1 << 20), 1000);
        assert_eq!(HistogramSnapshot::default().quantile_ns(0.5), 0);
    }

    #[test]
    fn exponential_buckets_are_off_by_half_a_cell_at_most() {
        for ns in
            [500, 1_023, 1_024, 1_500, 77_777, 1_000_000, 3_141_592, 999_999_999, 50_000_000_000]
        {
            let histogram = Histogram::default();
            histogram.record_ns(ns);
            let (zero, buckets) = histogram.snapshot().exponential();
            if ns < 1_024 {
                assert_eq!((zero, buckets.len()), (1, 0), "{ns}");
                continue;
            }
            let (index, count) = buckets.into_iter().next().unwrap();
            assert_eq!((zero, count), (0, 1), "{ns}");
            #[allow(clippy::cast_precision_loss)]
            let seconds = ns as f64 / 1e9;
            let upper = 2f64.powf(f64::from(index) / 8.0);
            let lower = 2f64.powf(f64::from(index - 1) / 8.0);
            assert!(
                seconds > lower * 0.965 && seconds <= upper * 1.035,
                "{seconds}: {lower}..{upper}"
            );
        }
        let endless = Histogram::default();
        endless.record_ns(u64::MAX);
        let last = endless.snapshot().exponential().1.into_keys().next().unwrap();
        assert!((50..60).contains(&last), "{last}");
    }

    #[test]
    fn what_has_been_counted_since() {
        let histogram = Histogram::default();
        histogram.record_ns(5_000);
        let before = histogram.snapshot();
        histogram.record_ns(7_000);
        let since = histogram.snapshot().since(&before);
        assert_eq!((since.count(), since.sum_seconds()), (1, 7e-6));
        assert_eq!(since.count_at_most_ns(6_144), 0);
    }

    #[test]
    fn merging_adds_counts_and_sums() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.record_ns(5_000);
        two.record_ns(7_000);
        let mut both = one.snapshot();
        both.merge(&two.snapshot());
        assert_eq!(both.count(), 2);
        assert!((both.sum_seconds() - 12e-6).abs() < 1e-12);
    }
}
