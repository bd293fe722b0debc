//! The control thread, which is the main thread: it starts the shards, answers on the metrics port,
//! hears signals, drains, and ends the process. It touches no data socket and is never pinned.

use crate::{
    access_log::AccessLog,
    admin::Admin,
    checks,
    config::Config,
    counters::COUNTERS,
    cpus::Plan,
    endpoint,
    event::{Event, Request, Signal},
    exit::Exit,
    export::{self, Exporter},
    health::Pages,
    load::Loaded,
    log::{self, FATAL, Log},
    metrics_push::{self, Push},
    notify, place,
    resolver::Names,
    room::Room,
    rules::{self, Hurry, Live},
    sampling,
    statsd::Statsd,
    throttle::Throttle,
    troubles::Troubles,
};
use netra_perf::{About, Exposition};
use netra_shards::{DrainReport, ShardSet, StartError};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    panic,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::{Mutex, mpsc},
    time::{timeout, timeout_at},
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
    let exit = live(loaded, plan, started).unwrap_or_else(|failure| {
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
fn live(loaded: &Loaded, plan: Plan, started: SystemTime) -> Result<Exit, Failure> {
    let config = &loaded.config;
    if let Err(error) = netra_shards::raise_descriptor_limit() {
        warn!(error = %error, "the descriptor limit stays as it is");
    }
    let metrics = endpoint::bind(config.metrics_port)
        .map_err(|error| listen_failure(config.metrics_port, "NETRA_PROMETHEUS_PORT", &error))?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        // For names of receivers, rarely.
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_millis(100))
        .build()
        .map_err(|error| Failure::os("cannot start the control thread", &error))?;
    runtime.block_on(async {
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        hear_signals(&tell).map_err(|error| Failure::os("cannot hear signals", &error))?;
        let exporter = start_exporter(config)
            .map_err(|error| Failure::os("cannot start the export thread", &error))?;
        let names = start_names(config.names_max, &tell);
        let asks = config.has_routing() || !config.rules.is_empty();
        let resolver = asks.then(|| Arc::new(names.clone()) as _);
        let mut shards = config.shard_config(plan.shards, plan.cpus.clone(), resolver);
        if let (Some(tracing), Some(exporter)) = (&mut shards.http.tracing, &exporter) {
            tracing.waker = exporter.waker();
        }
        let mut set = ShardSet::start(&shards)?;
        if let Some(exporter) = &exporter {
            exporter.take(set.take_spans());
        }
        let access_log =
            AccessLog::start(set.take_access_log(), config.log_format, config.traces.query)
                .map_err(|error| Failure::os("cannot start the access log", &error))?;
        let statsd = Statsd::new(&config.statsd, set.recorders().to_vec(), &names);
        let is_remote = config.remote_rules.url.is_some();
        let rules = Live::start(&config.rules, loaded.rules.as_ref(), is_remote, &mut set);
        let hurry = follow_rules(loaded, &names, &tell, &rules);
        let shown = || exposition(&set, &rules, started);
        let push = Push::start(config.metrics.as_ref(), shown, &names, started);
        follow_sampler(config, names, tell.clone());
        serve_admin(admin(loaded, &plan, (&set, &rules), started, tell));
        let pages = Pages::new(exposition(&set, &rules, started), config.pages.unread());
        let pages = Arc::new(pages);
        for listener in metrics {
            tokio::spawn(endpoint::serve(listener, Arc::clone(&pages)));
        }
        warn_of_root();
        log_start(config, &plan, &set);
        notify::ready();
        netra_shards::release_start_code();
        let throttle = Throttle::new(plan.throttle_files);
        let troubles = Troubles::new(set.recorders().to_vec());
        let room = Room::new(set.recorders().to_vec(), set.connections_max());
        let place = watch_place(config, &set);
        let drain_time = config.drain;
        let life = Life {
            set,
            rules,
            hurry,
            exporter,
            push,
            access_log,
            statsd,
            troubles,
            room,
            place,
            drain_time,
        };
        Ok(supervise(life, &pages, events, throttle).await)
    })
}

/// Looks whether netra stands where its traffic is.
fn watch_place(config: &Config, set: &ShardSet) -> place::Watch {
    let own_ports = vec![config.port, config.metrics_port, config.admin.port];
    place::Watch::new(own_ports, set.recorders().to_vec())
}

/// No request is traced: no thread.
fn start_exporter(config: &Config) -> io::Result<Option<Exporter>> {
    config.tracing.as_ref().map(|traces| Exporter::start(traces.export.clone())).transpose()
}

/// What shards ask is answered through the same queue as everything that they are told.
fn start_names(names_max: usize, tell: &mpsc::Sender<Event>) -> Names {
    let tell = tell.clone();
    Names::start(names_max, move |name, resolved| {
        let tell = tell.clone();
        async move { drop(tell.send(Event::Resolved(Box::new(name), resolved)).await) }
    })
}

/// Asks the sampling manager, if there is one to ask.
fn follow_sampler(config: &Config, names: Names, tell: mpsc::Sender<Event>) {
    let remote = config.tracing.as_ref().and_then(|traces| traces.remote.clone());
    if let Some(remote) = remote {
        tokio::spawn(sampling::follow(remote, names, move |plan| {
            let tell = tell.clone();
            async move { drop(tell.send(Event::Sample(plan)).await) }
        }));
    }
}

/// Follows the documents of rules, if there are any.
fn follow_rules(
    loaded: &Loaded,
    names: &Names,
    tell: &mpsc::Sender<Event>,
    live: &Live,
) -> Option<Hurry> {
    let (first, config) = (loaded.rules.clone()?, &loaded.config);
    let remote = config.remote_rules.clone();
    let own = config.own();
    checks::follow(live.view());
    tokio::spawn(rules::follow_remote(remote, own.clone(), names.clone(), live.view()));
    let (hurry, tell) = (Hurry::default(), tell.clone());
    let tell = move |read| {
        let tell = tell.clone();
        async move { tell.send(Event::Rules(read)).await.is_ok() }
    };
    let path = config.rules.clone();
    let hears = Arc::clone(&hurry);
    let endpoints_move = config.remote_rules.url.is_some();
    let (first, names) = (first, names.clone());
    tokio::spawn(rules::follow(path, own, endpoints_move, first, names, hears, tell));
    Some(hurry)
}

fn admin(
    loaded: &Loaded,
    plan: &Plan,
    (set, rules): (&ShardSet, &Live),
    started: SystemTime,
    tell: mpsc::Sender<Event>,
) -> Admin {
    Admin {
        config: loaded.config.clone(),
        settings: loaded.effective.clone(),
        decided: plan.decided().into_iter().chain(loaded.decided.clone()).collect(),
        driver: set.driver().label(),
        started,
        recorders: set.recorders().to_vec(),
        rules: rules.view(),
        tell,
        is_profiling: Arc::default(),
        looking: Mutex::default(),
    }
}

/// Traffic needs no admin: where its port is taken, netra says so and goes on.
fn serve_admin(admin: Admin) {
    let admin = Arc::new(admin);
    let settings = &admin.config.admin;
    if !settings.socket.is_empty() {
        match endpoint::bind_socket(Path::new(&settings.socket)) {
            Ok(socket) => drop(tokio::spawn(endpoint::serve_socket(socket, Arc::clone(&admin)))),
            Err(error) => warn!(
                path = settings.socket,
                error = %error,
                "no socket for orders (NETRA_ADMIN_SOCKET)"
            ),
        }
    }
    let address = settings.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    match endpoint::bind_at(address, settings.port) {
        Ok(listener) => drop(tokio::spawn(endpoint::serve(listener, Arc::clone(&admin)))),
        Err(error) => warn!(
            address = %address,
            port = settings.port,
            error = %error,
            "no profiling and admin (NETRA_ADMIN_ADDRESS, NETRA_PPROF_PORT)"
        ),
    }
}

fn exposition(set: &ShardSet, rules: &Live, started: SystemTime) -> Exposition {
    let about = About {
        version: env!("CARGO_PKG_VERSION"),
        driver: set.driver().label(),
        drivers: &["io_uring", "epoll"],
        started,
        counters: &COUNTERS,
        exemplars: &export::EXEMPLARS,
    };
    let rules = Box::new(rules::Metrics(rules.view()));
    Exposition::with(set.recorders().to_vec(), about, rules)
}

/// Rules tell netra's connections from others by their user.
fn warn_of_root() {
    if nix::unistd::geteuid().is_root() {
        warn!(
            "netra is root: rules that leave netra alone leave everything of root's alone, and \
             rules that do not send its own connections back to it"
        );
    }
}

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
        http_ports = %config.http.ports,
        metrics_to = config.metrics.as_ref().map(|plan| field::display(&plan.receiver)),
        protocols = %config.protocols,
        detect = config.detects,
        sampler = config.tracing.as_ref().map(|traces| traces.sampler_words.as_str()),
        reporter = %reporter_in_words(config),
        routing = %routing_in_words(config),
        "netra started"
    );
}

/// What routes requests; when nothing does, why.
fn routing_in_words(config: &Config) -> String {
    let routing = &config.routing;
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (routing.is_enabled, routing.has_cookie) {
        (false, _) => "off".into(),
        (true, _) if !config.has_routing() => "none, because NETRA_HTTP_PORTS is empty".into(),
        (true, false) => format!("by {}", name(&routing.header)),
        (true, true) => {
            format!("by the cookie {}, then {}", name(&routing.cookie), name(&routing.header))
        }
    }
}

/// Where spans go; when nowhere, why.
fn reporter_in_words(config: &Config) -> String {
    match &config.tracing {
        Some(traces) => traces.export.reporter.to_string(),
        None if !config.reads_exchanges() => {
            "none, because NETRA_HTTP_PORTS and NETRA_PROTOCOLS are empty".into()
        }
        None => "none, because JAEGER_DISABLED or OTEL_SDK_DISABLED says so".into(),
    }
}

/// Signals are heard from before the shards start: an orchestrator may change its mind at any time.
fn hear_signals(tell: &mpsc::Sender<Event>) -> io::Result<()> {
    for (kind, name) in [
        (SignalKind::hangup(), Signal::Hangup),
        (SignalKind::interrupt(), Signal::Interrupt),
        (SignalKind::terminate(), Signal::Terminate),
    ] {
        let (mut stream, tell) = (signal(kind)?, tell.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() && tell.send(Event::Signal(name)).await.is_ok() {}
        });
    }
    Ok(())
}

const EVENTS_MAX: usize = 64;
/// How often to see whether the shards are still there.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// By when rules, names and receivers have been asked for the first time: what that took is given back.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// The same while they are to end.
const DRAIN_WATCH_EVERY: Duration = Duration::from_millis(10);
/// How long after the drain's deadline shards may take to cut what is left.
const CUT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the last lines of the access log may take to be read.
const ACCESS_LOG_PATIENCE: Duration = Duration::from_secs(1);
/// How long the last spans may take.
const SPANS_PATIENCE: Duration = Duration::from_secs(3);

/// What lives from the start to the end.
struct Life {
    set: ShardSet,
    rules: Live,
    /// Has the documents of rules read again; none where there are no rules.
    hurry: Option<Hurry>,
    exporter: Option<Exporter>,
    push: Option<Push>,
    access_log: Option<AccessLog>,
    statsd: Option<Statsd>,
    troubles: Troubles,
    room: Room,
    place: place::Watch,
    drain_time: Duration,
}

/// Waits for a signal to end, sees to it that the shards are there until then, and tells them what
/// there is to tell.
async fn supervise(
    mut life: Life,
    pages: &Pages,
    mut events: mpsc::Receiver<Event>,
    mut throttle: Throttle,
) -> Exit {
    let drain_time = life.drain_time;
    let mut next_look = tokio::time::Instant::now() + WATCH_EVERY;
    let mut settled = Some(next_look + SETTLED_AFTER);
    loop {
        notify::alive();
        let event = timeout_at(next_look, events.recv()).await;
        if let Ok(Some(event)) = &event
            && let Some(why) = event.begins_drain()
        {
            info!(why, drain_ms = millis(drain_time), "draining");
            pages.set_draining();
            notify::stopping();
            return drain(life, &mut events).await;
        }
        match event {
            Ok(Some(Event::Signal(Signal::Hangup))) => match &life.hurry {
                Some(hurry) => {
                    info!("SIGHUP: the documents of rules are read again");
                    hurry.notify_one();
                }
                None => info!("SIGHUP ignored: settings are read once, at the start"),
            },
            Ok(Some(Event::Rules(read))) => life.rules.change(&read, &mut life.set),
            Ok(Some(Event::Asked(Request::Quit))) => {
                warn!("ended at once, by POST /quitquitquit");
                return Exit::DONE;
            }
            Ok(Some(event)) => tell(&life.set, event),
            Ok(None) | Err(_) if life.set.any_ended() => {
                error!(target: FATAL, "a shard ended by itself");
                return Exit::INTERNAL;
            }
            Ok(None) | Err(_) => {
                next_look += WATCH_EVERY;
                life.set.tend();
                life.rules.tend();
                life.troubles.look();
                life.place.look();
                pages.set_full(life.room.look());
                life.statsd.iter_mut().for_each(Statsd::send);
                if let Some(allowed) = throttle.look() {
                    info!(allowed, "polling, by whether the CPU quota was used up");
                    life.set.allow_polling(allowed);
                }
                if settled.take_if(|at| *at <= next_look).is_some() {
                    netra_shards::release_start_code();
                }
            }
        }
    }
}

/// Tells the shards what they wait for.
fn tell(set: &ShardSet, event: Event) {
    match event {
        // A change that comes while netra ends changes nothing.
        Event::Signal(_) | Event::Rules(_) => {}
        Event::Asked(request) => request.ask(set),
        Event::Sample(plan) => set.sample(&plan),
        Event::Resolved(name, resolved) => set.answer(&name, resolved),
    }
}

/// Lets connections finish, then the last spans; a second signal means that nobody wants to wait
/// for that.
async fn drain(life: Life, events: &mut mpsc::Receiver<Event>) -> Exit {
    let Life { set, exporter, push, access_log, mut statsd, drain_time, .. } = life;
    let begun = Instant::now();
    set.drain(drain_time);
    while !set.ended() {
        notify::alive();
        if begun.elapsed() > drain_time + CUT_PATIENCE {
            error!(target: FATAL, "the shards did not end in time");
            return Exit::INTERNAL;
        }
        match timeout(DRAIN_WATCH_EVERY, events.recv()).await {
            Ok(Some(Event::Signal(signal))) if signal != Signal::Hangup => {
                warn!(signal = signal.name(), "ended at once, in the middle of draining");
                return signal.exit();
            }
            Ok(Some(Event::Asked(Request::Quit))) => {
                warn!("ended at once, in the middle of draining, by POST /quitquitquit");
                return Exit::DONE;
            }
            Ok(Some(event)) => tell(&set, event),
            Ok(None) | Err(_) => {}
        }
    }
    log_drained(&set.join(), begun.elapsed());
    statsd.iter_mut().for_each(Statsd::send);
    if access_log.is_some_and(|log| !log.finish(ACCESS_LOG_PATIENCE)) {
        warn!("ended with lines of the access log that nobody took");
    }
    if let Some(exporter) = exporter
        && !exporter.finish(SPANS_PATIENCE).await
    {
        warn!(after_ms = millis(SPANS_PATIENCE), "ended with spans that were not sent");
    }
    metrics_push::finish(push, SPANS_PATIENCE).await;
    Exit::DONE
}

fn log_drained(report: &DrainReport, took: Duration) {
    for cut in &report.cut {
        warn!(
            peer = cut.peer.map(field::display),
            original_dst = %cut.original_dst,
            direction = cut.direction.name(),
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
