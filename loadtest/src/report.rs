//! What a run was and what it measured, as plain data that is written, read again and compared.

pub(crate) mod bars;
pub(crate) mod difference;
pub(crate) mod hgrm;
pub(crate) mod html;
pub(crate) mod svg;
pub(crate) mod table;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::{Nanos, float};
use crate::error::{Context, Error, Kind, Result};
use crate::machine::Machine;
use crate::pacer::Arrival;
use crate::plan::{LoadPlan, Pace};
use crate::run::in_seconds;
use crate::stats::{Counts, Distribution, Measured, Moment};

/// A report file of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunReport {
    pub(crate) machine: Machine,
    pub(crate) setting: Setting,
    /// Seconds that were measured; fewer than asked when the run was interrupted.
    pub(crate) seconds: f64,
    /// Good answers per second.
    pub(crate) rate: f64,
    pub(crate) counts: Counts,
    /// From the intended start, in microseconds.
    pub(crate) latency: Distribution,
    /// From the real start.
    pub(crate) service: Distribution,
    pub(crate) connect: Distribution,
    pub(crate) generator: Generator,
    pub(crate) moments: Vec<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_failure: Option<String>,
    pub(crate) is_interrupted: bool,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) scenario: String,
    pub(crate) target: String,
    /// Requests per second of an open loop; `None` for a closed one.
    pub(crate) rate: Option<f64>,
    pub(crate) is_poisson: bool,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up_seconds: f64,
    pub(crate) request_bytes: usize,
}

impl Setting {
    pub(crate) fn of(plan: &LoadPlan) -> Self {
        Self {
            scenario: plan.scenario.clone(),
            target: plan.target.to_string(),
            rate: plan.pace.rate(),
            is_poisson: matches!(plan.pace, Pace::Open { arrival: Arrival::Poisson, .. }),
            connections: plan.connections,
            threads: plan.threads,
            seconds: plan.duration.as_secs_f64(),
            warm_up_seconds: plan.warm_up.as_secs_f64(),
            request_bytes: plan.payload.bytes().len(),
        }
    }
}

/// How the generator itself did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// How late requests started that could have started, in microseconds.
    pub(crate) lateness: Distribution,
    /// CPU seconds of its threads.
    pub(crate) cpu_seconds: f64,
    pub(crate) verdict: Verdict,
}

/// Whether the figures say something about the target.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// They do.
    Good,
    /// The generator was so late that the latencies are partly its own.
    GeneratorLate,
    /// The target did not keep up with the rate: latencies grow with the length of the run.
    TargetOverloaded,
}

/// Lateness below this is no reason to doubt anything.
const LATENESS_FREE_US: f64 = 100.0;
/// Share of a percentile that may be our own lateness.
const LATENESS_SHARE_MAX: f64 = 0.5;
/// Share of the asked rate that must be reached.
const RATE_SHARE_MIN: f64 = 0.97;

impl RunReport {
    pub(crate) fn new(
        setting: &Setting,
        measured: &Measured,
        moments: Vec<Moment>,
        took: Nanos,
        cpu: Nanos,
    ) -> Self {
        let seconds = in_seconds(took);
        let rate = if seconds > 0.0 { float(measured.counts.good) / seconds } else { 0.0 };
        let latency = Distribution::with_buckets(&measured.latency);
        let lateness = Distribution::of(&measured.lateness);
        let counts = &measured.counts;
        let answered =
            float(counts.good + counts.failed() - unfinished(counts)) / seconds.max(1e-9);
        let verdict = judge(setting.rate, answered, &latency, &lateness);
        Self {
            machine: Machine::here(),
            setting: setting.clone(),
            seconds,
            rate,
            counts: measured.counts.clone(),
            latency,
            service: Distribution::with_buckets(&measured.service),
            connect: Distribution::of(&measured.connect),
            generator: Generator { lateness, cpu_seconds: in_seconds(cpu), verdict },
            moments,
            first_failure: measured.first_failure.clone(),
            is_interrupted: crate::sys::is_interrupted(),
        }
    }

    /// What is wrong with the run as a whole, if anything is: the exit code of a single run.
    pub(crate) fn fault(&self) -> Option<Error> {
        if self.is_interrupted {
            return Some(Error::new(Kind::Interrupted, "interrupted; the figures are partial"));
        }
        let (good, failed) = (self.counts.good, self.counts.failed());
        let unfinished = unfinished(&self.counts);
        if self.generator.verdict == Verdict::GeneratorLate && failed == unfinished && failed > 0 {
            let late = self.generator.lateness.p99;
            let message = format!("the generator was {late:.0} us late at p99: its figures");
            return Some(Error::new(Kind::Rate, message + " say little about the target"));
        }
        let why = self.first_failure.as_deref().unwrap_or("no answer by the end of the run");
        let is_gone = self.moments.last().is_some_and(|last| last.rate == 0.0 && last.failed > 0);
        if good == 0 || is_gone {
            let message = format!("the target stopped answering ({good} good, {failed} failed)");
            return Some(Error::new(Kind::Failed, format!("{message}: {why}")));
        }
        if let (Verdict::TargetOverloaded, Some(rate)) = (self.generator.verdict, self.setting.rate)
        {
            let message = format!("{rate:.0}/s were asked for and {:.0}/s reached", self.rate);
            return Some(Error::new(Kind::Rate, message));
        }
        (failed > 0).then(|| {
            Error::new(
                Kind::Failed,
                format!("{failed} of {} requests failed: {why}", good + failed),
            )
        })
    }
}

fn unfinished(counts: &Counts) -> u64 {
    counts.failures.get(&crate::stats::Failure::Unfinished).copied().unwrap_or(0)
}

fn judge(
    asked: Option<f64>,
    answered: f64,
    latency: &Distribution,
    lateness: &Distribution,
) -> Verdict {
    let Some(asked) = asked else {
        return Verdict::Good;
    };
    let is_late =
        |late: f64, latency: f64| late > LATENESS_FREE_US && late > LATENESS_SHARE_MAX * latency;
    if is_late(lateness.p50, latency.p50) || is_late(lateness.p99, latency.p99) {
        Verdict::GeneratorLate
    } else if answered < RATE_SHARE_MIN * asked {
        Verdict::TargetOverloaded
    } else {
        Verdict::Good
    }
}

/// Writes data as JSON; `-` is standard output.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string(value).context(|| "JSON".to_owned())?;
    text.push('\n');
    write_text(path, &text)
}

/// Writes a file, or standard output for `-`.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        use std::io::Write;
        return std::io::stdout()
            .write_all(text.as_bytes())
            .context(|| "standard output".to_owned());
    }
    std::fs::write(path, text)
        .map_err(|cause| Error::usage(format!("cannot write {}: {cause}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(p50: f64, p99: f64) -> Distribution {
        Distribution { count: 1000, p50, p99, ..Distribution::default() }
    }

    #[test]
    fn the_generator_is_blamed_only_when_it_was_late() {
        let judged = |asked, answered, latency: (f64, f64), late: (f64, f64)| {
            judge(asked, answered, &at(latency.0, latency.1), &at(late.0, late.1))
        };
        let cases = [
            (judged(Some(1000.0), 1000.0, (50.0, 100.0), (5.0, 60.0)), Verdict::Good),
            (judged(Some(1000.0), 1000.0, (50.0, 900.0), (5.0, 600.0)), Verdict::GeneratorLate),
            (judged(Some(1000.0), 1000.0, (300.0, 9000.0), (200.0, 300.0)), Verdict::GeneratorLate),
            (judged(Some(1000.0), 500.0, (1e6, 2e6), (5.0, 60.0)), Verdict::TargetOverloaded),
            (judged(Some(1000.0), 500.0, (1e6, 2e6), (9e5, 2e6)), Verdict::GeneratorLate),
            (judged(None, 500.0, (50.0, 100.0), (0.0, 0.0)), Verdict::Good),
        ];
        for (index, (got, want)) in cases.into_iter().enumerate() {
            assert_eq!(got, want, "case {index}");
        }
    }
}
