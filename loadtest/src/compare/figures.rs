//! What a generator wrote and what the meters showed, put together as a sample.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Sample, Scenario};
use crate::bulk::BulkReport;
use crate::clock::float;
use crate::error::{Context, Result};
use crate::idle::IdleReport;
use crate::procfs::{CpuTimes, Usage};
use crate::report::RunReport;

/// Share of a CPU the hypervisor may take before a sample counts as disturbed.
const STEAL_MAX: f64 = 0.05;

/// What the generator wrote, as a sample without CPU and memory.
pub(super) fn figures(scenario: Scenario, path: &Path) -> Result<Sample> {
    let mut sample = Sample { scenario, ..Sample::default() };
    match scenario.inward() {
        Scenario::Bulk => {
            let report: BulkReport = read(path)?;
            sample.rate = report.rates.iter().sum::<f64>() / float(report.rates.len() as u64);
            sample.requests = report.bytes;
        }
        Scenario::Idle => {
            let report: IdleReport = read(path)?;
            sample.requests = report.alive as u64;
            sample.failed = (report.connections - report.alive) as u64;
        }
        _ => {
            let report: RunReport = read(path)?;
            sample.rate = report.rate;
            sample.requests = report.counts.good;
            sample.failed = report.counts.failed();
            sample.latency = report.latency;
            // CPU is measured over the warm-up as well.
            let setting = &report.setting;
            let share = (setting.seconds + setting.warm_up_seconds) / setting.seconds;
            sample.requests = crate::clock::whole(float(sample.requests) * share);
        }
    }
    Ok(sample)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).context(|| "the generator's report".to_owned())?;
    serde_json::from_str(&text).context(|| "the generator's report".to_owned())
}

/// A sample that says only why there are no figures.
pub(super) fn failed(subject: &str, scenario: Scenario, round: usize, why: String) -> Sample {
    Sample { subject: subject.to_owned(), scenario, round, failure: Some(why), ..Sample::default() }
}

/// What everybody had used at one moment.
pub(super) struct Meter {
    subject: Usage,
    /// CPU seconds.
    upstream: f64,
    own: Usage,
    machine: CpuTimes,
}

impl Meter {
    pub(super) fn read(subject: Option<u32>, upstreams: [u32; 2]) -> Self {
        Self {
            subject: subject.map(Usage::of_tree).unwrap_or_default(),
            upstream: upstreams.map(|pid| Usage::of_tree(pid).cpu).iter().sum(),
            own: own_usage(),
            machine: CpuTimes::now(),
        }
    }

    /// Writes what happened between two moments into the sample.
    pub(super) fn charge(
        &self,
        after: &Self,
        seconds: f64,
        generator: f64,
        foreign_max: f64,
        sample: &mut Sample,
    ) {
        let (was, is) = (&self.subject, &after.subject);
        sample.cpu = (is.cpu - was.cpu).max(0.0);
        sample.user = (is.user - was.user).max(0.0);
        sample.system = (is.system - was.system).max(0.0);
        sample.switches = is.switches.saturating_sub(was.switches);
        sample.io_workers = is.io_workers;
        (sample.rss_bytes, sample.pss_bytes) = (is.rss_bytes, is.pss_bytes);
        sample.rss_before_bytes = was.rss_bytes;
        sample.fd_count = is.fd_count;
        let ours = sample.cpu
            + (after.upstream - self.upstream)
            + (after.own.cpu - self.own.cpu)
            + generator;
        let busy = after.machine.busy - self.machine.busy;
        // Clock ticks are coarse, so the difference may come out below nothing.
        sample.foreign = ((busy - ours) / seconds).max(0.0);
        sample.steal = (after.machine.steal - self.machine.steal) / seconds;
        sample.is_disturbed = sample.foreign > foreign_max || sample.steal > STEAL_MAX;
    }
}

/// Our own CPU time, without children: those are counted by themselves.
fn own_usage() -> Usage {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let cpu = time.map_or(0.0, |time| Duration::from(time).as_secs_f64());
    Usage { cpu, ..Usage::default() }
}
