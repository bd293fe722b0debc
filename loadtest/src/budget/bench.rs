//! Takes the rows: starts a subject, puts a load through it, and counts in turns, since whoever
//! counts also slows down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::order::{self, Step};
use super::watch::{Seen, Watch, read};
use super::{Load, Row, Timed, instructions};
use crate::clock::float;
use crate::compare::Layout;
use crate::compare::measure::choose_cpus;
use crate::error::{Context, Error, Kind, Result};
use crate::procfs::{Usage, tree};
use crate::report::RunReport;
use crate::subject::{HTTP_PORT, POD_IP, RAW_PORT, Subject};
use crate::sys;
use crate::topology::{Place, Running, Topology, WorkDir};

/// Longest load under a watcher, and the two under callgrind whose difference counts.
const WATCHED: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(2);
/// A generator that takes this much longer than its load has hung.
const GRACE: Duration = Duration::from_secs(60);
/// For strace to attach before the connections whose order it sees, and how long they come.
const ATTACH: Duration = Duration::from_millis(500);

/// Which loads run where.
const LAYOUTS: [(Layout, &[Load]); 2] = [
    (Layout::OneCpu, &[Load::Kept, Load::Fresh, Load::FreshSlow]),
    (Layout::TwoCpu, &[Load::Paced]),
];

/// Everything that stays the same from row to row.
pub(super) struct Bench<'a> {
    seconds: Duration,
    topology: &'a Topology,
    work: &'a WorkDir,
    program: PathBuf,
    /// Lives as long as the bench.
    _upstream: Running,
    load_cpu: usize,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        seconds: Duration,
        topology: &'a Topology,
        work: &'a WorkDir,
    ) -> Result<Self> {
        let program = std::env::current_exe().context(|| "our own path".to_owned())?;
        let (load_cpu, _) = choose_cpus(Layout::OneCpu)?;
        let upstream = topology.start_upstream(&program, Place::Pod, load_cpu)?;
        Ok(Self { seconds, topology, work, program, _upstream: upstream, load_cpu })
    }

    /// The latency without a subject, which has no cost of its own.
    pub(super) fn direct(&self) -> Result<Timed> {
        self.timed(Load::Paced, RAW_PORT, None)
    }

    /// One round of a subject; what failed is missing.
    pub(super) fn times(&self, subject: &Subject) -> Result<impl Iterator<Item = (Load, Timed)>> {
        let mut times = Vec::new();
        for (layout, loads) in LAYOUTS {
            let each = self.visit(subject, layout, loads, |load, running| {
                self.timed(load, port(subject), Some(running.pid()))
            })?;
            for (load, timed) in each {
                match timed {
                    Ok(timed) => times.push((load, timed)),
                    Err(why) => {
                        crate::say::progress(format_args!("{} {load:?}: {why}", subject.name))
                    }
                }
            }
        }
        Ok(times.into_iter())
    }

    /// Calls, their order, and wake-ups, into the rows of a subject.
    pub(super) fn counts<'r>(
        &self,
        subject: &Subject,
        rows: impl Iterator<Item = &'r mut Row>,
    ) -> Result<()> {
        let port = port(subject);
        let mut seen = Vec::new();
        for (layout, loads) in LAYOUTS {
            seen.extend(self.visit(subject, layout, loads, |load, running| {
                let seen = self.seen(load, port, running.pid())?;
                let order = match load {
                    Load::FreshSlow => self.order(port, running.pid()).unwrap_or_default(),
                    _ => Vec::new(),
                };
                Ok((seen, order))
            })?);
        }
        for row in rows {
            let Some(at) = seen.iter().position(|(load, _)| *load == row.load) else { continue };
            match seen.swap_remove(at).1 {
                Ok((seen, order)) => (row.seen, row.order) = (Ok(seen), order),
                Err(why) => row.seen = Err(why),
            }
        }
        Ok(())
    }

    /// Does something under each load with a subject that runs; its failure is told, not ours.
    fn visit<T>(
        &self,
        subject: &Subject,
        layout: Layout,
        loads: &[Load],
        work: impl Fn(Load, &Running) -> Result<T>,
    ) -> Result<Vec<(Load, std::result::Result<T, String>)>> {
        let told = |cause: Error| match cause.kind() {
            Kind::Interrupted => Err(cause),
            _ => Ok(cause.to_string()),
        };
        // Where there is one CPU only, the rows of two say so.
        let mut running = match choose_cpus(layout).and_then(|(_, cpu)| self.start(subject, cpu)) {
            Ok(running) => running,
            Err(cause) => {
                let why = told(cause)?;
                return Ok(loads.iter().map(|&load| (load, Err(why.clone()))).collect());
            }
        };
        let mut done = Vec::new();
        for &load in loads {
            let outcome = match work(load, &running) {
                Ok(value) => Ok(value),
                Err(cause) => Err(told(cause)?),
            };
            done.push((load, outcome));
        }
        running.stop();
        self.topology.clear_rules()?;
        Ok(done)
    }

    fn start(&self, subject: &Subject, cpu: usize) -> Result<Running> {
        let work = self.work.path.join(&subject.name);
        let launch = subject.prepare(&work)?;
        let rules = subject.rules(self.topology.has_nft());
        let started = self.topology.start_subject(&launch, &rules, &work, cpu);
        if started.is_err() {
            let _ = self.topology.clear_rules();
        }
        started
    }

    /// A load once, after a shorter one that warms caches, pools and conntrack.
    fn timed(&self, load: Load, port: u16, subject: Option<u32>) -> Result<Timed> {
        self.put(load, port, self.seconds / 4)?;
        let usage = || subject.map(Usage::of_tree).unwrap_or_default();
        let before = usage();
        let report = self.put(load, port, self.seconds)?;
        let after = usage();
        let units = float(report.counts.good);
        let per = |was: u64, is: u64| float(is.saturating_sub(was)) / units;
        // The kernel's own split is by the tick; their sum is exact.
        let (user, system) = (after.user - before.user, after.system - before.system);
        let cpu_ns = (after.cpu - before.cpu).max(0.0) * 1e9 / units;
        let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        let forced = per(before.forced_switches, after.forced_switches);
        Ok(Timed {
            rate: report.rate,
            p50_us: report.latency.p50,
            p99_us: report.latency.p99,
            user_ns: cpu_ns * share,
            kernel_ns: cpu_ns * (1.0 - share),
            voluntary: per(before.switches, after.switches) - forced,
            forced,
            faults: per(before.faults, after.faults),
        })
    }

    fn seen(&self, load: Load, port: u16, pid: u32) -> Result<Seen> {
        let watch = Watch::attach(pid, &self.work.path)?;
        let report = self.put(load, port, self.seconds.min(WATCHED))?;
        let units = float(report.counts.good);
        let mut seen = watch.finish()?;
        for call in &mut seen.calls {
            call.count /= units;
            call.ns = call.ns.map(|ns| ns / units);
        }
        if let Ok(wakes) = &mut seen.wakes {
            wakes.mean_us = report.latency.mean;
            for value in
                [&mut wakes.subject, &mut wakes.subject_ns, &mut wakes.others, &mut wakes.others_ns]
            {
                *value /= units;
            }
        }
        Ok(seen)
    }

    /// What strace sees of connections that come one at a time.
    fn order(&self, port: u16, pid: u32) -> Result<Vec<Step>> {
        let path = |name: &str| self.work.path.join(name);
        let out = path("order.strace");
        let pids: Vec<String> = tree(pid).iter().map(u32::to_string).collect();
        let mut command = Command::new("strace");
        command.args(["-f", "-r", "-p", &pids.join(","), "-o"]).arg(&out);
        let mut strace = Running::tool(&mut command, &path("order.out"), &path("order.log"))?;
        sys::pause(ATTACH);
        let url = format!("http://{POD_IP}:{port}/");
        self.generate(&format!("churn {url} --rate 20 --connections 1"), WATCHED)?;
        strace.interrupt(GRACE);
        let nothing = || Error::new(Kind::Tool, "strace saw no connection");
        order::parse(&read(&out)).ok_or_else(nothing)
    }

    /// Instructions in user space per unit.
    pub(super) fn instructions(&self, subject: &Subject, load: Load) -> Result<f64> {
        let (_, cpu) = choose_cpus(Layout::TwoCpu).or_else(|_| choose_cpus(Layout::OneCpu))?;
        let work = self.work.path.join(&subject.name);
        let port = port(subject);
        let to: SocketAddr = format!("{POD_IP}:{port}")
            .parse()
            .map_err(|_| Error::new(Kind::Unexpected, "the address of the pod"))?;
        let mut points = Vec::new();
        for length in [SHORT, LONG] {
            let launch = instructions::wrap(subject.prepare(&work)?, &work)?;
            let rules = subject.rules(self.topology.has_nft());
            let started = self.topology.start_subject(&launch, &rules, &work, cpu);
            let counted = started.and_then(|mut running| {
                let units = self.put(load, port, length)?.counts.good;
                Ok((units, instructions::finish(&mut running, self.topology, to, &work)?))
            });
            self.topology.clear_rules()?;
            points.push(counted?);
        }
        match points[..] {
            [(few, low), (many, high)] if many > few && high > low => {
                Ok(float(high - low) / float(many - few))
            }
            _ => Err(Error::new(Kind::Failed, "the longer load counted no more")),
        }
    }

    /// Puts a load through whatever is redirected.
    fn put(&self, load: Load, port: u16, length: Duration) -> Result<RunReport> {
        let url = format!("http://{POD_IP}:{port}/");
        let words = match load {
            Load::Kept => format!("http {url} --connections 32"),
            Load::Fresh => format!("churn {url} --connections 16"),
            Load::FreshSlow => format!("churn {url} --rate 500 --connections 64"),
            Load::Paced => format!("http {url} --rate 1000 --connections 64"),
        };
        self.generate(&words, length)
    }

    fn generate(&self, words: &str, length: Duration) -> Result<RunReport> {
        let path = |name: &str| self.work.path.join(name);
        let (report, log) = (path("load.json"), path("load.log"));
        let _ = std::fs::remove_file(&report);
        let file = std::fs::File::create(&log).context(|| log.display().to_string())?;
        let mut command = Command::new(&self.program);
        command.args(words.split(' ')).args(["--warm-up", "0", "--seconds"]);
        command.arg(length.as_secs_f64().to_string()).arg("--json").arg(&report);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut generator = self.topology.spawn(Place::Client, self.load_cpu, &mut command)?;
        let begun = Instant::now();
        while generator.ended().is_none() {
            if sys::is_interrupted() {
                return Err(Error::new(Kind::Interrupted, "interrupted; nothing is published"));
            }
            if begun.elapsed() > length + GRACE {
                return Err(Error::new(Kind::Failed, "the generator did not end"));
            }
            sys::pause(Duration::from_millis(20));
        }
        let text = read(&report);
        let parsed: Option<RunReport> = serde_json::from_str(&text).ok();
        match parsed {
            Some(report) if report.counts.good > 0 => Ok(report),
            _ => Err(Error::new(Kind::Failed, format!("generator: {}", read(&log).trim()))),
        }
    }
}

/// HTTP subjects are asked where they read HTTP, the others where nobody does.
fn port(subject: &Subject) -> u16 {
    if is_http(&subject.name) { HTTP_PORT } else { RAW_PORT }
}

pub(super) fn is_http(name: &str) -> bool {
    name.split('-').any(|word| word == "http")
}
