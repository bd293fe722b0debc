//! One sample: start a generator, watch subject and machine, put the figures together.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::{CompareArgs, DIRECT, Layout, Sample, Scenario};
use crate::bulk::BulkReport;
use crate::clock::float;
use crate::error::{Context, Error, Kind, Result};
use crate::idle::IdleReport;
use crate::procfs::{CpuTimes, Usage, rss_of_tree};
use crate::report::RunReport;
use crate::stats::Distribution;
use crate::subject::{BULK_PORT, ECHO_PORT, HTTP_PORT, POD_IP, Subject};
use crate::sys;
use crate::topology::{Place, Running, Topology, WorkDir};

/// How often a running sample is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A generator that takes this much longer than its load has hung.
const GRACE: Duration = Duration::from_secs(60);
/// Share of a CPU the hypervisor may take before a sample counts as disturbed.
const STEAL_MAX: f64 = 0.05;

/// Everything that stays the same from sample to sample.
pub(super) struct Bench<'a> {
    args: &'a CompareArgs,
    topology: &'a Topology,
    work: &'a WorkDir,
    program: PathBuf,
    upstream: Running,
    load_cpu: usize,
    subject_cpu: usize,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        args: &'a CompareArgs,
        topology: &'a Topology,
        work: &'a WorkDir,
    ) -> Result<Self> {
        let program = std::env::current_exe().context(|| "our own path".to_owned())?;
        let (load_cpu, subject_cpu) = choose_cpus(args.layout)?;
        let upstream = topology.start_upstream(&program, load_cpu)?;
        Ok(Self { args, topology, work, program, upstream, load_cpu, subject_cpu })
    }

    /// Takes all samples of one subject in one round. Its own failures become samples; only ours
    /// end the comparison.
    pub(super) fn visit(
        &mut self,
        subject: Option<&Subject>,
        round: usize,
        scenarios: &[Scenario],
        take: &mut dyn FnMut(Sample) -> Result<()>,
    ) -> Result<()> {
        let name = subject.map_or(DIRECT, |subject| &subject.name);
        let started = match subject {
            Some(subject) => self.start(subject).map(Some),
            None => Ok(None),
        };
        let mut running = match started {
            Ok(running) => running,
            Err(cause) => {
                let _ = self.topology.clear_rules();
                if cause.kind() == Kind::Interrupted {
                    return Err(cause);
                }
                let scenario = scenarios.first().copied().unwrap_or(Scenario::Http);
                return take(failed(name, scenario, round, format!("it did not start: {cause}")));
            }
        };
        for &scenario in scenarios {
            let sample = match self.sample(running.as_mut(), scenario) {
                Ok(sample) => Sample { subject: name.to_owned(), round, ..sample },
                Err(cause) if cause.kind() == Kind::Interrupted => return Err(cause),
                Err(cause) => failed(name, scenario, round, cause.to_string()),
            };
            take(sample)?;
            if running.as_mut().is_some_and(|running| running.ended().is_some()) {
                break;
            }
        }
        if let Some(mut running) = running {
            running.stop();
            self.topology.clear_rules()?;
        }
        Ok(())
    }

    fn start(&self, subject: &Subject) -> Result<Running> {
        let work = self.work.path.join(&subject.name);
        let launch = subject.prepare(&work)?;
        self.topology.start_subject(&launch, &subject.redirects, &work, self.subject_cpu)
    }

    fn sample(&mut self, mut subject: Option<&mut Running>, scenario: Scenario) -> Result<Sample> {
        let report = self.work.path.join("sample.json");
        let _ = std::fs::remove_file(&report);
        let pid = subject.as_ref().map(|running| running.pid());
        let redirected = subject.as_ref().map_or(0, |_| self.topology.redirected());
        let before = Meter::read(pid, self.upstream.pid());
        let started = Instant::now();
        let mut generator = self.generate(scenario, &report)?;
        let mut peak = Usage::default();
        let limit = self.args.seconds * 2 + GRACE;
        let mut generator_cpu = 0.0;
        let status = loop {
            // Its CPU time is gone with it, so it is read as long as it lives.
            generator_cpu = Usage::of_tree(generator.pid()).cpu.max(generator_cpu);
            if let Some(status) = generator.ended() {
                break status;
            }
            self.watch(pid, scenario, &mut peak);
            if sys::is_interrupted() {
                return Err(Error::new(Kind::Interrupted, "interrupted; the figures are partial"));
            }
            if let Some(ended) = subject.as_mut().and_then(|subject| subject.ended()) {
                return Err(Error::new(Kind::Failed, format!("the subject died ({ended})")));
            }
            if started.elapsed() > limit {
                return Err(Error::new(Kind::Failed, "the generator did not end"));
            }
            sys::pause(LOOK);
        };
        let seconds = started.elapsed().as_secs_f64();
        let after = Meter::read(pid, self.upstream.pid());
        // 6 and 7 are about the figures, which are there nevertheless.
        if !matches!(status.code(), Some(0 | 6 | 7)) {
            let log = std::fs::read_to_string(self.work.path.join("generator.log"));
            let why = log.unwrap_or_default();
            return Err(Error::new(Kind::Failed, format!("generator: {status}: {}", why.trim())));
        }
        let mut sample = self.figures(scenario, &report)?;
        before.charge(&after, seconds, generator_cpu, self.args.foreign_max, &mut sample);
        if peak.fd_count > 0 {
            (sample.rss_bytes, sample.fd_count) = (peak.rss_bytes, peak.fd_count);
            sample.pss_bytes = peak.pss_bytes;
        } else {
            sample.rss_bytes = sample.rss_bytes.max(peak.rss_bytes);
        }
        if pid.is_some() {
            sample.redirected = self.topology.redirected().saturating_sub(redirected);
            if sample.redirected == 0 {
                return Err(Error::new(Kind::Failed, "no connection was redirected to it"));
            }
        }
        Ok(sample)
    }

    /// Keeps the highest memory; of idle connections also descriptors, when there are most.
    fn watch(&self, pid: Option<u32>, scenario: Scenario, peak: &mut Usage) {
        let Some(pid) = pid else { return };
        if scenario == Scenario::Idle {
            let usage = Usage::of_tree(pid);
            if usage.fd_count >= peak.fd_count {
                *peak = usage;
            }
        } else {
            peak.rss_bytes = peak.rss_bytes.max(rss_of_tree(pid));
        }
    }

    fn generate(&self, scenario: Scenario, report: &Path) -> Result<Running> {
        let args = self.args;
        let http = format!("http://{POD_IP}:{HTTP_PORT}/");
        let seconds = args.seconds.as_secs_f64();
        let words = match scenario {
            Scenario::Http => {
                let (rate, count) = (args.rate, args.connections);
                format!("http {http} --rate {rate} --connections {count} --seconds {seconds}")
            }
            Scenario::Max => format!("http {http} --connections 32 --seconds {seconds}"),
            Scenario::Tcp => {
                format!("tcp {POD_IP}:{ECHO_PORT} --connections 1 --seconds {seconds}")
            }
            Scenario::Churn => {
                let rate = args.churn_rate;
                format!("churn {http} --rate {rate} --connections 64 --seconds {seconds}")
            }
            Scenario::Bulk => format!("bulk {POD_IP}:{BULK_PORT} --bytes {}", args.bulk_bytes),
            Scenario::Idle => {
                let count = args.idle_connections;
                format!("idle {POD_IP}:{HTTP_PORT} --connections {count} --seconds 1")
            }
        };
        let path = self.work.path.join("generator.log");
        let log = File::create(&path).context(|| path.display().to_string())?;
        let mut command = Command::new(&self.program);
        command.args(words.split(' ')).arg("--json").arg(report);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.topology.spawn(Place::Client, self.load_cpu, &mut command)
    }

    /// What the generator wrote, as a sample without CPU and memory.
    fn figures(&self, scenario: Scenario, path: &Path) -> Result<Sample> {
        let mut sample = failed("", scenario, 0, String::new());
        sample.failure = None;
        match scenario {
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
            Scenario::Http | Scenario::Max | Scenario::Tcp | Scenario::Churn => {
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
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).context(|| "the generator's report".to_owned())?;
    serde_json::from_str(&text).context(|| "the generator's report".to_owned())
}

fn failed(subject: &str, scenario: Scenario, round: usize, why: String) -> Sample {
    Sample {
        subject: subject.to_owned(),
        scenario,
        round,
        failure: Some(why),
        latency: Distribution::default(),
        rate: 0.0,
        requests: 0,
        failed: 0,
        cpu: 0.0,
        user: 0.0,
        system: 0.0,
        switches: 0,
        rss_bytes: 0,
        pss_bytes: 0,
        fd_count: 0,
        redirected: 0,
        foreign: 0.0,
        steal: 0.0,
        is_disturbed: false,
    }
}

/// CPUs of the load and of the subject.
fn choose_cpus(layout: Layout) -> Result<(usize, usize)> {
    let mask = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))
        .context(|| "sched_getaffinity".to_owned())?;
    let mut allowed = (0..nix::sched::CpuSet::count()).filter(|&cpu| mask.is_set(cpu) == Ok(true));
    let first = allowed.next().ok_or_else(|| Error::new(Kind::Unexpected, "no CPU is allowed"))?;
    match layout {
        Layout::OneCpu => Ok((first, first)),
        Layout::TwoCpu => {
            let missing = || Error::usage("--layout two-cpu needs two CPUs");
            allowed.next().map(|second| (first, second)).ok_or_else(missing)
        }
    }
}

/// What everybody had used at one moment.
struct Meter {
    subject: Usage,
    upstream: Usage,
    own: Usage,
    machine: CpuTimes,
}

impl Meter {
    fn read(subject: Option<u32>, upstream: u32) -> Self {
        Self {
            subject: subject.map(Usage::of_tree).unwrap_or_default(),
            upstream: Usage::of_tree(upstream),
            own: own_usage(),
            machine: CpuTimes::now(),
        }
    }

    /// Writes what happened between two moments into the sample.
    fn charge(
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
        (sample.rss_bytes, sample.pss_bytes) = (is.rss_bytes, is.pss_bytes);
        sample.fd_count = is.fd_count;
        let ours = sample.cpu
            + (after.upstream.cpu - self.upstream.cpu)
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
