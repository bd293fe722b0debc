//! When each request should start. The plan does not depend on how the target answers: that is what
//! makes the loop open, and why latency is counted from these times and not from the real start.

use crate::clock::{Nanos, float, whole};

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Arrival {
    /// Equal distances.
    Constant,
    /// Exponential distances: independent users.
    Poisson,
}

/// When arrivals happen, and how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) arrival: Arrival,
    /// Mean arrivals per second.
    pub(crate) rate: f64,
    /// First moment.
    pub(crate) start: Nanos,
    /// No arrival at or after this.
    pub(crate) end: Nanos,
    /// Share of the first interval to wait, so that several threads do not fire together.
    pub(crate) phase: f64,
    /// Start of the random sequence.
    pub(crate) seed: u64,
}

/// Hands out the intended start times, in order, each once.
#[derive(Debug)]
pub(crate) struct Pacer {
    schedule: Schedule,
    interval: f64,
    taken: u64,
    next: f64,
    rng: Rng,
}

impl Pacer {
    pub(crate) fn new(schedule: Schedule) -> Self {
        let interval = 1e9 / schedule.rate;
        let mut pacer =
            Self { schedule, interval, taken: 0, next: 0.0, rng: Rng::new(schedule.seed) };
        let first = match schedule.arrival {
            Arrival::Constant => interval * schedule.phase,
            Arrival::Poisson => pacer.exponential(),
        };
        pacer.next = float(schedule.start) + first;
        pacer
    }

    /// The next intended start; `None` when the schedule is over.
    pub(crate) fn peek(&self) -> Option<Nanos> {
        (self.next < float(self.schedule.end)).then(|| whole(self.next))
    }

    /// Takes the next intended start if it is due.
    pub(crate) fn take_due(&mut self, now: Nanos) -> Option<Nanos> {
        let intended = self.peek().filter(|&intended| intended <= now)?;
        self.taken += 1;
        self.next = match self.schedule.arrival {
            // Counted from the start each time, so that rounding does not add up to a drift.
            Arrival::Constant => {
                float(self.schedule.start)
                    + (float(self.taken) + self.schedule.phase) * self.interval
            }
            Arrival::Poisson => self.next + self.exponential(),
        };
        Some(intended)
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.rng.unit()).ln() * self.interval
    }
}

/// SplitMix64: small, seedable, the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        float(self.next() >> 11) / float(1 << 53)
    }

    /// Uniform in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u128;
        usize::try_from((u128::from(self.next()) * bound) >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    fn schedule(arrival: Arrival, rate: f64) -> Schedule {
        Schedule { arrival, rate, start: 1_000, end: 1_000 + 10 * SECOND, phase: 0.0, seed: 7 }
    }

    fn drain(pacer: &mut Pacer, now: Nanos) -> Vec<Nanos> {
        std::iter::from_fn(|| pacer.take_due(now)).collect()
    }

    #[test]
    fn constant_arrivals_keep_their_distance_and_do_not_drift() {
        // A third of a nanosecond is lost at each step if the distance is added up rounded.
        let mut pacer = Pacer::new(schedule(Arrival::Constant, 3_000_000.0));
        let times = drain(&mut pacer, 11 * SECOND);
        assert_eq!(times.len(), 30_000_000);
        assert_eq!(times[0], 1_000);
        assert_eq!(times[3_000_000], 1_000 + SECOND);
        assert_eq!(times[29_999_997], 1_000 + 10 * SECOND - 1_000);
        assert_eq!(pacer.peek(), None);
    }

    #[test]
    fn nothing_is_due_early_and_a_stall_forgets_nothing() {
        let mut pacer = Pacer::new(schedule(Arrival::Constant, 1_000.0));
        assert_eq!(pacer.take_due(999), None);
        assert_eq!(pacer.take_due(1_000), Some(1_000));
        assert_eq!(pacer.take_due(1_000_999), None);
        // The loop comes back 5 ms late: the five arrivals of the meantime keep their own times.
        let late: Vec<Nanos> = drain(&mut pacer, 5_001_000);
        assert_eq!(late, (1..=5).map(|n| 1_000 + n * 1_000_000).collect::<Vec<_>>());
    }

    #[test]
    fn phases_interleave_threads() {
        let at = |phase| {
            let schedule = Schedule { phase, ..schedule(Arrival::Constant, 500.0) };
            Pacer::new(schedule).peek()
        };
        assert_eq!(at(0.0), Some(1_000));
        assert_eq!(at(0.5), Some(1_001_000));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_their_name() {
        let mut pacer = Pacer::new(schedule(Arrival::Poisson, 10_000.0));
        let times = drain(&mut pacer, 11 * SECOND);
        // 100 000 expected, standard deviation 316.
        assert!((98_500..101_500).contains(&times.len()), "{}", times.len());
        let gaps: Vec<f64> = times.windows(2).map(|pair| float(pair[1] - pair[0])).collect();
        let mean = gaps.iter().sum::<f64>() / float(gaps.len() as u64);
        let variance =
            gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / float(gaps.len() as u64);
        let spread = variance.sqrt() / mean;
        assert!((0.98..1.02).contains(&spread), "coefficient of variation {spread}");
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_seed_another() {
        let plan = |seed| {
            let schedule = Schedule { seed, ..schedule(Arrival::Poisson, 100.0) };
            drain(&mut Pacer::new(schedule), 11 * SECOND)
        };
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn random_numbers_stay_below_their_bound_and_reach_every_value() {
        let mut rng = Rng::new(3);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[rng.below(7)] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
    }
}
