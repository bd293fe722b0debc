//! Figures over repeated measurements: medians with their spread, and whether a difference is more
//! than the noise.

use serde::{Deserialize, Serialize};

use crate::pacer::Rng;

/// Fewer pairs cannot carry a verdict: the interval would be made of the same few values.
pub(crate) const PAIR_COUNT_MIN: usize = 5;
const RESAMPLE_COUNT: usize = 10_000;
/// The same data give the same verdict.
const SEED: u64 = 20;

/// A median and how far the values lie apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        Some(Self { median: median(&sorted), low, high, count: sorted.len() })
    }
}

/// The median of values in order.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ if sorted.is_empty() => f64::NAN,
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// How B differs from A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    /// Medians of both.
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// Mean of the paired differences, and its 95 % interval.
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) pair_count: usize,
}

/// What can be said of a difference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Finding {
    TooFewPairs,
    WithinNoise,
    Lower,
    Higher,
}

impl Difference {
    /// Compares values taken in pairs; `None` without pairs.
    pub(crate) fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let part = |which: fn(&(f64, f64)) -> f64| pairs.iter().map(which).collect::<Vec<_>>();
        let before = Spread::of(&part(|pair| pair.0))?.median;
        let after = Spread::of(&part(|pair| pair.1))?.median;
        let differences = part(|pair| pair.1 - pair.0);
        let (low, high) = bootstrap(&differences);
        let mean = mean(&differences);
        Some(Self { before, after, mean, low, high, pair_count: pairs.len() })
    }

    pub(crate) fn finding(&self) -> Finding {
        match () {
            () if self.pair_count < PAIR_COUNT_MIN => Finding::TooFewPairs,
            () if self.low > 0.0 => Finding::Higher,
            () if self.high < 0.0 => Finding::Lower,
            () => Finding::WithinNoise,
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / crate::clock::float(values.len() as u64)
}

/// The 95 % percentile interval of the mean, by drawing with replacement.
fn bootstrap(values: &[f64]) -> (f64, f64) {
    let mut rng = Rng::new(SEED);
    let mut means: Vec<f64> = (0..RESAMPLE_COUNT)
        .map(|_| {
            let sum: f64 = (0..values.len()).map(|_| values[rng.below(values.len())]).sum();
            sum / crate::clock::float(values.len() as u64)
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (means[RESAMPLE_COUNT / 40], means[RESAMPLE_COUNT - 1 - RESAMPLE_COUNT / 40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_and_the_ends() {
        let spread = Spread::of(&[5.0, 1.0, 9.0]).unwrap();
        assert_eq!((spread.median, spread.low, spread.high), (5.0, 1.0, 9.0));
        assert_eq!(Spread::of(&[4.0, 2.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[]), None);
    }

    /// Pairs that share a large drift, as rounds on a machine do, and differ by `shift`.
    fn pairs(shift: f64, noise: f64) -> Vec<(f64, f64)> {
        let mut rng = Rng::new(11);
        (0..12)
            .map(|round| {
                let drift = 100.0 * f64::from(round);
                let mut wobble = || (rng.unit() - 0.5) * noise;
                (drift + wobble(), drift + shift + wobble())
            })
            .collect()
    }

    #[test]
    fn a_difference_beyond_the_noise_is_found_despite_a_drift() {
        assert_eq!(Difference::of(&pairs(5.0, 4.0)).unwrap().finding(), Finding::Higher);
        assert_eq!(Difference::of(&pairs(-5.0, 4.0)).unwrap().finding(), Finding::Lower);
    }

    #[test]
    fn noise_is_not_taken_for_a_difference() {
        // Of 200 sets without a difference, about one in twenty may look like one.
        let mut rng = Rng::new(99);
        let false_alarms = (0..200)
            .filter(|_| {
                let pairs: Vec<_> = (0..12).map(|_| (rng.unit(), rng.unit())).collect();
                Difference::of(&pairs).unwrap().finding() != Finding::WithinNoise
            })
            .count();
        assert!(false_alarms <= 30, "{false_alarms} of 200");
    }

    #[test]
    fn few_pairs_carry_no_verdict() {
        let few = [(1.0, 9.0), (1.0, 9.0), (1.0, 9.0)];
        assert_eq!(Difference::of(&few).unwrap().finding(), Finding::TooFewPairs);
        assert_eq!(Difference::of(&[]), None);
    }
}
