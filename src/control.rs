//! The control thread, which is the main thread: it starts the shards, answers on the metrics port,
//! hears signals, drains, and ends the process. It touches no data socket and is never pinned.

use crate::{
    config::{Config, Loaded},
    cpus::Plan,
    endpoint::{self, Pages},
    exit::Exit,
    log::{self, FATAL, LINES_DROPPED, Log},
    notify,
    throttle::Throttle,
};
use netra_perf::{About, Exposition};
use netra_shards::{DrainReport, ShardSet, StartError};
use std::{
    fmt, io, panic,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::timeout,
};
use tracing::{error, field, info, warn};

/// Runs the sidecar until a signal ends it.
pub(crate) fn run(loaded: &Loaded, plan: Plan) -> Exit {
    let started = SystemTime::now();
    let log = match log::start(loaded.config.log_level, loaded.config.log_format) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("netra: cannot start the log: {error}");
            return Exit::OS;
        }
    };
    end_on_panic(log.clone());
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let exit = live(&loaded.config, plan, started).unwrap_or_else(|failure| {
        error!(target: FATAL, "{failure}");
        failure.exit
    });
    log.flush(FLUSH_PATIENCE);
    exit
}

/// How long the last lines may take to be read.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Whatever is broken inside, a supervisor that restarts netra whole is better than a pod in which
/// half of the connections hang.
fn end_on_panic(log: Log) {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        print(panic);
        error!(target: FATAL, "a fault of netra itself: {panic}");
        log.flush(FLUSH_PATIENCE);
        Exit::INTERNAL.now()
    }));
}

/// Why netra could not start.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    what: String,
}

impl Failure {
    fn os(what: &str, error: &io::Error) -> Self {
        Self { exit: Exit::OS, what: format!("{what}: {error}") }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match &error {
            StartError::Listen { port, source } => listen_failure(*port, "NETRA_PORT", source),
            StartError::IoUring { .. } => {
                let what = format!("{error}; NETRA_IO=auto falls back to epoll");
                Self { exit: Exit::OS, what }
            }
            StartError::Descriptors { .. } | StartError::Os { .. } => {
                Self { exit: Exit::OS, what: error.to_string() }
            }
        }
    }
}

fn listen_failure(port: u16, setting: &str, source: &io::Error) -> Failure {
    let what = format!("cannot listen on port {port} ({setting}): {source}");
    Failure { exit: Exit::UNAVAILABLE, what }
}

/// Everything that can fail comes before the shards, so that nothing is half started.
fn live(config: &Config, plan: Plan, started: SystemTime) -> Result<Exit, Failure> {
    if let Err(error) = netra_shards::raise_descriptor_limit() {
        warn!(error = %error, "the descriptor limit stays as it is");
    }
    let metrics = endpoint::bind(config.metrics_port)
        .map_err(|error| listen_failure(config.metrics_port, "NETRA_PROMETHEUS_PORT", &error))?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::os("cannot start the control thread", &error))?;
    runtime.block_on(async {
        let signals = hear_signals().map_err(|error| Failure::os("cannot hear signals", &error))?;
        let shard_config = config.shard_config(plan.shards, plan.cpus.clone());
        let set = ShardSet::start(&shard_config)?;
        let pages = Arc::new(Pages::new(exposition(&set, started)));
        for listener in metrics {
            tokio::spawn(endpoint::serve(listener, Arc::clone(&pages)));
        }
        log_start(config, &plan, &set);
        notify::ready();
        let throttle = Throttle::new(plan.throttle_files);
        Ok(supervise(set, config.drain, &pages, signals, throttle).await)
    })
}

fn exposition(set: &ShardSet, started: SystemTime) -> Exposition {
    let about = About {
        version: env!("CARGO_PKG_VERSION"),
        driver: set.driver().label(),
        drivers: &["io_uring", "epoll"],
        started,
        counters: &COUNTERS,
    };
    Exposition::new(set.recorders().to_vec(), about)
}

static COUNTERS: [(&str, &str, &AtomicU64); 1] = [(
    "netra_log_lines_dropped",
    "Log lines dropped because nobody read them fast enough",
    &LINES_DROPPED,
)];

/// The one line that says what runs here, and why like this.
fn log_start(config: &Config, plan: &Plan, set: &ShardSet) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        service = config.service_name,
        port = config.port,
        metrics_port = config.metrics_port,
        driver = %set.driver(),
        fallback = set.fallback(),
        shards = plan.shards,
        shards_why = plan.shards_why,
        cpus = plan.cpus_in_words(),
        spin_us = micros(config.spin_max),
        connections_max = set.connections_max(),
        drain_ms = millis(config.drain),
        "netra started"
    );
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Hangup,
    Interrupt,
    Terminate,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit code of a process that this signal ended.
    fn exit(self) -> Exit {
        match self {
            Self::Hangup => Exit::signalled(1),
            Self::Interrupt => Exit::signalled(2),
            Self::Terminate => Exit::signalled(15),
        }
    }
}

/// All signals in one queue, heard from before the shards start: an orchestrator may change its
/// mind at any time.
fn hear_signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (heard, signals) = mpsc::channel(SIGNALS_MAX);
    for (kind, name) in [
        (SignalKind::hangup(), Signal::Hangup),
        (SignalKind::interrupt(), Signal::Interrupt),
        (SignalKind::terminate(), Signal::Terminate),
    ] {
        let (mut stream, heard) = (signal(kind)?, heard.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                // A full queue has a signal to end in it, or somebody plays with SIGHUP.
                let _ = heard.try_send(name);
            }
        });
    }
    Ok(signals)
}

const SIGNALS_MAX: usize = 16;
/// How often to see whether the shards are still there.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// The same while they are to end.
const DRAIN_WATCH_EVERY: Duration = Duration::from_millis(10);
/// How long after the drain's deadline shards may take to cut what is left.
const CUT_PATIENCE: Duration = Duration::from_secs(5);

/// Waits for a signal to end, and sees to it that the shards are there until then.
async fn supervise(
    set: ShardSet,
    drain_time: Duration,
    pages: &Pages,
    mut signals: mpsc::Receiver<Signal>,
    mut throttle: Throttle,
) -> Exit {
    loop {
        notify::alive();
        match timeout(WATCH_EVERY, signals.recv()).await {
            Ok(Some(Signal::Hangup)) => {
                info!("SIGHUP ignored: settings are read once, at the start");
            }
            Ok(Some(signal)) => {
                info!(signal = signal.name(), drain_ms = millis(drain_time), "draining");
                pages.set_draining();
                notify::stopping();
                return drain(set, drain_time, &mut signals).await;
            }
            Ok(None) | Err(_) if set.any_ended() => {
                error!(target: FATAL, "a shard ended by itself");
                return Exit::INTERNAL;
            }
            Ok(None) | Err(_) => {
                if let Some(allowed) = throttle.look() {
                    info!(allowed, "polling, by whether the CPU quota was used up");
                    set.allow_polling(allowed);
                }
            }
        }
    }
}

/// Lets connections finish; a second signal means that nobody wants to wait for that.
async fn drain(set: ShardSet, drain_time: Duration, signals: &mut mpsc::Receiver<Signal>) -> Exit {
    let begun = Instant::now();
    set.drain(drain_time);
    while !set.ended() {
        notify::alive();
        if begun.elapsed() > drain_time + CUT_PATIENCE {
            error!(target: FATAL, "the shards did not end in time");
            return Exit::INTERNAL;
        }
        match timeout(DRAIN_WATCH_EVERY, signals.recv()).await {
            Ok(Some(Signal::Hangup)) | Ok(None) | Err(_) => {}
            Ok(Some(signal)) => {
                warn!(signal = signal.name(), "ended at once, in the middle of draining");
                return signal.exit();
            }
        }
    }
    log_drained(&set.join(), begun.elapsed());
    Exit::DONE
}

fn log_drained(report: &DrainReport, took: Duration) {
    for cut in &report.cut {
        warn!(
            peer = cut.peer.map(field::display),
            original_dst = %cut.original_dst,
            direction = ?cut.direction,
            age_ms = millis(cut.age),
            "connection cut at the drain's deadline"
        );
    }
    info!(
        finished = report.finished,
        cut = report.cut_total,
        took_ms = millis(took),
        "netra drained"
    );
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, process::Command, thread};

    #[test]
    fn each_failure_has_its_exit_code_and_names_what_to_change() {
        let refused = || io::Error::from_raw_os_error(1);
        let cases: [(StartError, Exit, &str); 4] = [
            (StartError::Listen { port: 7, source: refused() }, Exit::UNAVAILABLE, "NETRA_PORT"),
            (StartError::IoUring { step: "setup", source: refused() }, Exit::OS, "NETRA_IO=auto"),
            (StartError::Descriptors { limit: 9 }, Exit::OS, "limit of 9"),
            (StartError::Os { what: "eventfd", source: refused() }, Exit::OS, "eventfd"),
        ];
        for (error, exit, text) in cases {
            let failure = Failure::from(error);
            assert_eq!(failure.exit, exit);
            let line = failure.to_string();
            assert!(line.contains(text) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_signal_that_ends_at_once_shows_in_the_exit_code() {
        assert_eq!(Signal::Terminate.exit(), Exit::signalled(15));
        assert_eq!(Signal::Interrupt.exit(), Exit::signalled(2));
    }

    /// Panics in a thread when it is run by [`a_panic_in_any_thread_ends_with_70`].
    #[test]
    fn panics_on_demand() {
        if env::var_os(PANIC).is_some() {
            end_on_panic(log::start(log::Level::Info, log::Format::Text).unwrap());
            let _ = thread::spawn(|| panic!("a broken invariant")).join();
        }
    }

    const PANIC: &str = "NETRA_TEST_PANIC";

    #[test]
    fn a_panic_in_any_thread_ends_with_70() {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "control::tests::panics_on_demand", "--nocapture"]);
        let output = command.env(PANIC, "1").output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(70), "{log}");
        assert!(log.contains(" fatal ") && log.contains("a broken invariant"), "{log}");
    }
}
