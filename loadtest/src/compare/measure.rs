//! One sample: start a generator, watch subject and machine, put the figures together.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::figures::{Meter, failed, figures};
use super::syscalls::Counter;
use super::{Calls, CompareArgs, DIRECT, Layout, Sample, Scenario};
use crate::error::{Context, Error, Kind, Result};
use crate::procfs::{Usage, rss_of_tree};
use crate::subject::{BULK_PORT, ECHO_PORT, HTTP_PORT, RAW_PORT, Subject};
use crate::sys;
use crate::topology::{Place, Running, Topology, WorkDir};

/// How often a running sample is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A generator that takes this much longer than its load has hung.
const GRACE: Duration = Duration::from_secs(60);
/// Longest time before the measured part of a sample.
const WARM_UP_MAX: Duration = Duration::from_secs(1);
/// Longest load during which system calls are counted.
const COUNTED_MAX: Duration = Duration::from_secs(1);

/// Everything that stays the same from sample to sample.
pub(super) struct Bench<'a> {
    args: &'a CompareArgs,
    topology: &'a Topology,
    work: &'a WorkDir,
    program: PathBuf,
    /// In the pod, and outside of it.
    upstreams: [Running; 2],
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
        let start = |place| topology.start_upstream(&program, place, load_cpu);
        let upstreams = [start(Place::Pod)?, start(Place::Client)?];
        Ok(Self { args, topology, work, program, upstreams, load_cpu, subject_cpu })
    }

    /// Takes all samples of one subject in one round, and in the first one also counts its system
    /// calls. Its own failures become samples; only ours end the comparison.
    pub(super) fn visit(
        &mut self,
        subject: Option<&Subject>,
        round: usize,
        scenarios: &[Scenario],
        take: &mut dyn FnMut(Sample) -> Result<()>,
    ) -> Result<Vec<Calls>> {
        let name = subject.map_or(DIRECT, |subject| &subject.name);
        let begun = Instant::now();
        let started = match subject {
            Some(subject) => self.start(subject).map(Some),
            None => Ok(None),
        };
        let start_seconds = subject.map_or(0.0, |_| begun.elapsed().as_secs_f64());
        let mut running = match started {
            Ok(running) => running,
            Err(cause) => {
                let _ = self.topology.clear_rules();
                if cause.kind() == Kind::Interrupted {
                    return Err(cause);
                }
                let scenario = scenarios.first().copied().unwrap_or_default();
                take(failed(name, scenario, round, format!("it did not start: {cause}")))?;
                return Ok(Vec::new());
            }
        };
        // What does not go through it says nothing of it.
        let is_taken = |it: &Scenario| subject.is_none_or(|to| to.takes(it.port(), it.server()));
        let scenarios: Vec<Scenario> = scenarios.iter().copied().filter(is_taken).collect();
        for &scenario in &scenarios {
            let mut has_failed = false;
            // A disturbed sample gets a second chance; the tables prefer the clean one.
            for _ in 0..2 {
                let sample = match self.sample(running.as_mut(), scenario) {
                    Ok(sample) => {
                        Sample { subject: name.to_owned(), round, start_seconds, ..sample }
                    }
                    Err(cause) if cause.kind() == Kind::Interrupted => return Err(cause),
                    Err(cause) => failed(name, scenario, round, cause.to_string()),
                };
                let is_disturbed = sample.is_disturbed;
                has_failed = sample.failure.is_some();
                take(sample)?;
                if !is_disturbed {
                    break;
                }
            }
            // One that died between two samples is told by the next.
            if has_failed && running.as_mut().is_some_and(|running| running.ended().is_some()) {
                break;
            }
        }
        let calls = match &mut running {
            Some(running) if round == 1 && !self.args.no_syscalls => {
                self.count_calls(name, running, &scenarios)?
            }
            _ => Vec::new(),
        };
        if let Some(mut running) = running {
            running.stop();
            self.topology.clear_rules()?;
        }
        Ok(calls)
    }

    fn start(&self, subject: &Subject) -> Result<Running> {
        let work = self.work.path.join(&subject.name);
        let launch = subject.prepare(&work)?;
        let rules = subject.rules(self.topology.has_nft());
        self.topology.start_subject(&launch, &rules, &work, self.subject_cpu)
    }

    /// System calls per request, each scenario once more with a counter at the subject.
    fn count_calls(
        &mut self,
        name: &str,
        running: &mut Running,
        scenarios: &[Scenario],
    ) -> Result<Vec<Calls>> {
        let mut all = Vec::new();
        for &scenario in scenarios.iter().filter(|scenario| scenario.has_requests()) {
            let (per_request, by) = match self.count_once(running, scenario) {
                Ok((per_request, by)) => (Some(per_request), by.to_owned()),
                Err(cause) if cause.kind() == Kind::Interrupted => return Err(cause),
                Err(cause) => (None, cause.to_string()),
            };
            all.push(Calls { subject: name.to_owned(), scenario, per_request, by });
        }
        Ok(all)
    }

    fn count_once(
        &mut self,
        running: &mut Running,
        scenario: Scenario,
    ) -> Result<(f64, &'static str)> {
        let report = self.work.path.join("counted.json");
        let _ = std::fs::remove_file(&report);
        let counter = Counter::attach(running.pid(), &self.work.path)?;
        let by = counter.name();
        let length = COUNTED_MAX.min(self.args.seconds);
        let mut generator = self.generate(scenario, length, Duration::ZERO, &report)?;
        let started = Instant::now();
        while generator.ended().is_none() {
            if sys::is_interrupted() {
                return Err(Error::new(Kind::Interrupted, "interrupted; the figures are partial"));
            }
            if started.elapsed() > GRACE || running.ended().is_some() {
                return Err(Error::new(Kind::Failed, "the counted load did not end well"));
            }
            sys::pause(LOOK);
        }
        let calls = counter.finish()?;
        let sample = figures(scenario, &report)?;
        let requests = crate::clock::float(sample.requests + sample.failed);
        match sample.requests {
            0 => Err(Error::new(Kind::Failed, "nothing was answered while calls were counted")),
            _ => Ok((crate::clock::float(calls) / requests, by)),
        }
    }

    fn sample(&mut self, mut subject: Option<&mut Running>, scenario: Scenario) -> Result<Sample> {
        let report = self.work.path.join("sample.json");
        let _ = std::fs::remove_file(&report);
        let pid = subject.as_ref().map(|running| running.pid());
        let redirected = subject.as_ref().map_or(0, |_| self.topology.redirected());
        let length = self.args.seconds;
        let warm_up = WARM_UP_MAX.min(length / 2);
        let upstreams = self.upstreams.each_ref().map(Running::pid);
        let before = Meter::read(pid, upstreams);
        let started = Instant::now();
        let mut generator = self.generate(scenario, length, warm_up, &report)?;
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
        let after = Meter::read(pid, upstreams);
        // 6 and 7 are about the figures, which are there nevertheless.
        if !matches!(status.code(), Some(0 | 6 | 7)) {
            let log = std::fs::read_to_string(self.work.path.join("generator.log"));
            let why = log.unwrap_or_default();
            return Err(Error::new(Kind::Failed, format!("generator: {status}: {}", why.trim())));
        }
        let mut sample = figures(scenario, &report)?;
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

    /// Starts the load of a scenario at the other end from its server.
    fn generate(
        &self,
        scenario: Scenario,
        length: Duration,
        warm_up: Duration,
        report: &Path,
    ) -> Result<Running> {
        let args = self.args;
        let ip = scenario.server().ip();
        let span =
            format!("--seconds {} --warm-up {}", length.as_secs_f64(), warm_up.as_secs_f64());
        let words = match scenario.inward() {
            Scenario::Max => format!("http http://{ip}:{HTTP_PORT}/ --connections 32 {span}"),
            Scenario::Raw => format!("http http://{ip}:{RAW_PORT}/ --connections 32 {span}"),
            Scenario::Tcp => format!("tcp {ip}:{ECHO_PORT} --connections 1 {span}"),
            Scenario::Churn => {
                let rate = args.churn_rate;
                format!("churn http://{ip}:{HTTP_PORT}/ --rate {rate} --connections 64 {span}")
            }
            Scenario::Bulk => format!("bulk {ip}:{BULK_PORT} --bytes {}", args.bulk_bytes),
            Scenario::Idle => {
                let count = args.idle_connections;
                format!("idle {ip}:{HTTP_PORT} --connections {count} --seconds 1")
            }
            Scenario::Redis | Scenario::Dubbo | Scenario::Thrift => {
                let pace =
                    args.protocol_rate.map_or(String::new(), |rate| format!("--rate {rate} "));
                let (name, port) = (scenario.name(), scenario.port());
                format!("{name} {ip}:{port} {pace}--connections 32 {span}")
            }
            _ => {
                let (rate, count) = (args.rate, args.connections);
                let load = format!("--rate {rate} --connections {count}");
                format!("http http://{ip}:{HTTP_PORT}/ {load} {span}")
            }
        };
        let path = self.work.path.join("generator.log");
        let log = File::create(&path).context(|| path.display().to_string())?;
        let mut command = Command::new(&self.program);
        command.args(words.split(' ')).arg("--json").arg(report);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.topology.spawn(scenario.server().other(), self.load_cpu, &mut command)
    }
}

/// CPUs of the load and of the subject.
pub(crate) fn choose_cpus(layout: Layout) -> Result<(usize, usize)> {
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
