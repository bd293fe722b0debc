//! The highest rate that keeps a latency budget: double until it breaks, then halve the gap.

use std::time::Duration;

use crate::args::OutArgs;
use crate::error::{Error, Kind, Result};
use crate::pacer::Arrival;
use crate::plan::{LoadPlan, Pace};
use crate::report::{RunReport, Verdict};
use crate::run;

/// Where to begin without a hint.
const RATE_FIRST: f64 = 1_000.0;
/// Steps at most: doubling to a million and halving to a thousandth take fewer.
const STEP_COUNT_MAX: usize = 40;

/// The search, without a clock or a socket: a rate out, a verdict in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Search {
    next: f64,
    best: f64,
    /// The lowest rate that broke the budget.
    broken: Option<f64>,
    rate_max: f64,
    precision: f64,
}

impl Search {
    pub(crate) fn new(first: Option<f64>, rate_max: f64, precision: f64) -> Result<Self> {
        if !(0.001..=0.5).contains(&precision) || rate_max.is_nan() || rate_max < 1.0 {
            return Err(Error::usage("precision must be 0.001 to 0.5, the highest rate 1 or more"));
        }
        let next = first.unwrap_or(RATE_FIRST).min(rate_max);
        Ok(Self { next, best: 0.0, broken: None, rate_max, precision })
    }

    /// The rate to try next; `None` when the limit is known closely enough.
    fn next(&self) -> Option<f64> {
        let is_done = match self.broken {
            Some(broken) => broken - self.best <= self.precision * broken || broken <= 1.0,
            None => self.best >= self.rate_max,
        };
        (!is_done).then_some(self.next)
    }

    fn learn(&mut self, is_kept: bool) {
        if is_kept {
            self.best = self.next;
        } else {
            self.broken = Some(self.next);
        }
        self.next = match self.broken {
            Some(broken) => f64::midpoint(self.best, broken).max(1.0),
            None => (self.best * 2.0).min(self.rate_max),
        };
    }
}

/// Searches, printing each step; the report of the best one is written.
pub(crate) fn run(plan: &LoadPlan, mut search: Search, budget: f64, out: &OutArgs) -> Result<()> {
    let mut best: Option<RunReport> = None;
    for _ in 0..STEP_COUNT_MAX {
        let Some(rate) = search.next() else { break };
        let pace = Pace::Open { rate, arrival: Arrival::Constant };
        let warm_up = plan.warm_up.min(Duration::from_secs(1));
        let report = run::execute(&LoadPlan { pace, warm_up, ..plan.clone() }, true)?;
        if report.is_interrupted {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        let is_kept = report.latency.p99 <= budget
            && report.counts.failed() == 0
            && report.generator.verdict != Verdict::TargetOverloaded;
        crate::say::result(format_args!(
            "{rate:>10.0}/s  p50 {:>9.1} us  p99 {:>10.1} us  failed {:>5}  {}\n",
            report.latency.p50,
            report.latency.p99,
            report.counts.failed(),
            verdict(&report, is_kept)
        ));
        search.learn(is_kept);
        if is_kept {
            best = Some(report);
        }
    }
    let best = best
        .ok_or_else(|| Error::new(Kind::Rate, format!("no rate keeps a p99 of {budget:.0} us")))?;
    crate::say::result(format_args!(
        "highest rate with p99 <= {budget:.0} us: {:.0}/s\n",
        search.best
    ));
    out.write(&best)
}

fn verdict(report: &RunReport, is_kept: bool) -> &'static str {
    match report.generator.verdict {
        _ if is_kept => "kept",
        Verdict::GeneratorLate => "broken: the generator was late",
        Verdict::TargetOverloaded => "broken: overloaded",
        Verdict::Good => "broken",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that keeps the budget up to `limit`.
    fn find(limit: f64, mut search: Search) -> (f64, usize) {
        let mut steps = 0;
        while let Some(rate) = search.next() {
            search.learn(rate <= limit);
            steps += 1;
            assert!(steps <= STEP_COUNT_MAX, "{search:?}");
        }
        (search.best, steps)
    }

    #[test]
    fn the_limit_is_found_within_the_precision() {
        for limit in [3.0, 999.0, 1_000.0, 12_345.0, 180_000.0, 999_999.0] {
            let (best, steps) = find(limit, Search::new(None, 1e6, 0.02).unwrap());
            assert!(best <= limit && best >= limit * 0.96 - 1.0, "{limit}: {best} in {steps}");
        }
    }

    #[test]
    fn the_highest_rate_is_tried_and_not_passed() {
        assert_eq!(find(1e9, Search::new(Some(300.0), 1_000.0, 0.05).unwrap()).0, 1_000.0);
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(find(0.0, Search::new(None, 1e6, 0.05).unwrap()).0, 0.0);
        assert!(Search::new(None, 1e6, 0.0).is_err());
    }
}
