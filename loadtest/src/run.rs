//! Carries a load out: threads, progress, and what they measured as one report.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::clock::{Clock, Nanos, SECOND, float, nanos};
use crate::engine::{Engine, Share, Span};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::LoadPlan;
use crate::report::{RunReport, Setting};
use crate::stats::{Interval, Measured, Moment, Recorder, Window};

/// Most points of a time line.
const INTERVAL_COUNT_MAX: u64 = 240;
const INTERVAL_MIN: Nanos = 250_000_000;
/// How long answers may take after the end before they count as never given.
const DRAIN: Nanos = 2 * SECOND;
/// From "all threads are ready" to the first request.
const LEAD: Nanos = 20_000_000;

/// What a thread did, and the CPU time it took.
type Outcome = Result<(Measured, Nanos)>;

/// Runs the load and reports; `is_shown` draws progress on standard error.
pub(crate) fn execute(plan: &LoadPlan, is_shown: bool) -> Result<RunReport> {
    plan.check()?;
    raise_file_limit(plan.connections + 64)?;
    let clock = Clock::start();
    let (duration, warm_up) = (nanos(plan.duration), nanos(plan.warm_up));
    let interval = (duration / INTERVAL_COUNT_MAX).max(INTERVAL_MIN).min(duration);
    thread::scope(|scope| {
        let (intervals, lines) = mpsc::channel();
        let (ready, readiness) = mpsc::channel();
        let mut starts = Vec::new();
        let mut handles = Vec::new();
        for share in shares(plan) {
            let (start, started) = mpsc::channel();
            starts.push(start);
            let (intervals, ready) = (intervals.clone(), ready.clone());
            handles
                .push(scope.spawn(move || work(plan, share, clock, &ready, &started, intervals)));
        }
        drop((intervals, ready));
        for _ in &handles {
            // A thread that is gone without a word has panicked; joining it will tell.
            readiness.recv().unwrap_or(Ok(()))?;
        }
        let start = clock.now() + LEAD;
        let from = start + warm_up;
        let window = Window { from, until: from + duration, interval };
        let span = Span { start, end: window.until, give_up: window.until + DRAIN };
        for start in starts {
            let _ = start.send((span, window));
        }
        let moments = follow(plan, &lines, interval, is_shown);
        let mut sum = Measured::new();
        let mut cpu = 0;
        for handle in handles {
            let outcome = handle.join().unwrap_or_else(|_| {
                Err(Error::new(Kind::Unexpected, "a generator thread panicked"))
            });
            let (measured, took) = outcome?;
            sum.add(measured);
            cpu += took;
        }
        let measured = clock.now().min(window.until).saturating_sub(from);
        Ok(RunReport::new(&Setting::of(plan), &sum, moments, measured, cpu))
    })
}

/// Splits the connections as evenly as they go.
fn shares(plan: &LoadPlan) -> impl Iterator<Item = Share> {
    let (count, threads) = (plan.connections, plan.threads);
    (0..threads).map(move |index| Share {
        index,
        connections: count / threads + usize::from(index < count % threads),
    })
}

fn work(
    plan: &LoadPlan,
    share: Share,
    clock: Clock,
    ready: &Sender<Result<()>>,
    started: &Receiver<(Span, Window)>,
    intervals: Sender<Interval>,
) -> Outcome {
    let abandoned = || Error::new(Kind::Unexpected, "the run was abandoned before it began");
    // Whatever happens, the main thread hears of it: it waits for one word of each thread.
    let engine = match prepare(plan, share, clock) {
        Ok(engine) => engine,
        Err(cause) => {
            let _ = ready.send(Err(cause));
            return Err(abandoned());
        }
    };
    let _ = ready.send(Ok(()));
    let (span, window) = started.recv().map_err(|_| abandoned())?;
    let before = thread_cpu();
    let measured = engine.run(span, Recorder::new(window, intervals))?;
    Ok((measured, thread_cpu().saturating_sub(before)))
}

fn prepare(plan: &LoadPlan, share: Share, clock: Clock) -> Result<Engine<'_>> {
    if !plan.cpus.is_empty() {
        pin(&[plan.cpus[share.index % plan.cpus.len()]])?;
    }
    // Timers of the default slack of 50 us would be lateness of ours. It is a wish, not a need.
    let _ = prctl::set_timerslack(1);
    let mut engine = Engine::new(plan, share, clock)?;
    engine.connect()?;
    Ok(engine)
}

/// Restricts the calling thread to these CPUs.
pub(crate) fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu).map_err(|_| Error::usage(format!("there is no CPU {cpu}")))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .map_err(|cause| Error::usage(format!("cannot pin to CPUs {cpus:?}: {cause}")))
}

/// CPU time of the calling thread.
fn thread_cpu() -> Nanos {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(std::time::Duration::from);
    time.map_or(0, nanos)
}

/// Lets the process hold `count` descriptors, as far as the hard limit goes.
pub(crate) fn raise_file_limit(count: usize) -> Result<()> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context(|| "getrlimit(NOFILE)".to_owned())?;
    let wanted = count as u64;
    if soft >= wanted {
        return Ok(());
    }
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        let message = format!("{count} open files are needed, the hard limit is {hard}");
        return Err(Error::new(Kind::Privileges, message + " (ulimit -Hn)"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
        .context(|| "setrlimit(NOFILE)".to_owned())
}

/// Collects the time line until the last thread has ended, and shows where the run is.
fn follow(
    plan: &LoadPlan,
    lines: &Receiver<Interval>,
    length: Nanos,
    is_shown: bool,
) -> Vec<Moment> {
    let is_shown = is_shown && std::io::stderr().is_terminal();
    let mut intervals: BTreeMap<u64, Interval> = BTreeMap::new();
    for interval in lines {
        match intervals.get_mut(&interval.index) {
            Some(sum) => sum.add(&interval),
            None => drop(intervals.insert(interval.index, interval)),
        }
        if is_shown && let Some((_, last)) = intervals.last_key_value() {
            show(plan, &Moment::of(last, length));
        }
    }
    if is_shown {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    intervals.values().map(|interval| Moment::of(interval, length)).collect()
}

fn show(plan: &LoadPlan, moment: &Moment) {
    let share = (moment.at / plan.duration.as_secs_f64()).clamp(0.0, 1.0);
    let filled = usize::try_from(crate::clock::whole(share * 24.0)).unwrap_or(0);
    // Progress that cannot be shown is no reason to stop measuring.
    let _ = write!(
        std::io::stderr(),
        "\r\x1b[K{} [{:<24}] {:>5.1} s  {:>8.0}/s  p50 {:>7.1} us  p99 {:>8.1} us  failed {}",
        plan.scenario,
        "=".repeat(filled),
        moment.at,
        moment.rate,
        moment.p50,
        moment.p99,
        moment.failed,
    );
}

/// Nanoseconds as seconds.
pub(crate) fn in_seconds(value: Nanos) -> f64 {
    float(value) / float(SECOND)
}
