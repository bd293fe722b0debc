//! A set of shards: probes the driver, binds the listeners, starts the threads, and ends them.

use crate::{
    accept::connections_for,
    access::{AccessSource, access_log},
    buffers::BufferPool,
    config::{DriverChoice, Limits, ShardConfig, StartError, io_uring_hint},
    core::HttpCore,
    correlate::{self, Correlation, Keep, correlate},
    descriptors::Descriptors,
    driver::Driver,
    exchange::{Gates, Given, Observer, ShardRules, Reads, Taps, WritesContext},
    host,
    io::{epoll::EpollIo, kernel::tuning, ring::RingIo},
    joins::Shared,
    links::Several,
    look::{ConnectionId, Look, TimeLine, Viewer},
    own_dials::{Noted, OwnDials},
    pressure::MemoryCount,
    resolve::{Resolved, ToResolve},
    shard::{Command, DrainReport, Parts, Shard},
    sources::Sources,
    spans::{self, SpanSource},
    sys::{self, Fd, nanos, socket},
};
use netra_codecs::{tap::Protocol, trace::SamplerPlan};
use netra_perf::{Gauge, Recorder};
use netra_rules::{Hits, Process, Table};
use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The loop needs little; the rest of a thread's usual 8 MiB would only be reserved.
const STACK_BYTES: usize = 256 * 1024;

/// The addresses of this host are looked at once in so many times that the shards are tended.
const ADDRESSES_EVERY: u32 = 5;

/// How long shards are waited for that get other rules; a turn of theirs takes far less.
const OBEYED_WITHIN: Duration = Duration::from_millis(200);

/// Running shards.
#[derive(Debug)]
pub struct ShardSet {
    driver: Driver,
    fallback: Option<String>,
    recorders: Vec<Arc<Recorder>>,
    descriptors: Arc<Descriptors>,
    several: Arc<Several>,
    joins: Shared,
    noted: Arc<Noted>,
    tended: u32,
    shards: Vec<Running>,
    spans: Vec<SpanSource>,
    access: Vec<AccessSource>,
    rules: Given,
}

#[derive(Debug)]
struct Running {
    commands: Sender<Command>,
    waker: Fd,
    put_off: Arc<AtomicBool>,
    thread: JoinHandle<DrainReport>,
}

impl Running {
    fn tell(&self, command: Command) {
        // A shard that has ended needs no more telling, and its waker is gone.
        if !self.thread.is_finished() && self.commands.send(command).is_ok() {
            sys::eventfd_notify(self.waker);
        }
    }
}

/// Raises the soft descriptor limit of the process to the hard one and returns it.
///
/// # Errors
/// What getrlimit(2) or setrlimit(2) said.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    sys::raise_descriptor_limit()
}

impl ShardSet {
    /// Probes the driver, binds the listeners, starts one pinned thread per shard and returns when
    /// every shard listens. Call it from a thread that is not pinned, after starting your own.
    ///
    /// # Errors
    /// Which step failed, with its likely cause; nothing is left running.
    pub fn start(config: &ShardConfig) -> Result<Self, StartError> {
        let (limit, _) = sys::descriptor_limit()
            .map_err(|source| StartError::Os { what: "getrlimit(NOFILE)", source })?;
        let most = connections_for(limit, config.shards as u64)
            .ok_or(StartError::Descriptors { limit })?;
        let asked = config.limits.connections_max;
        let descriptors =
            Arc::new(Descriptors::new(if asked == 0 { most } else { asked.min(most) }));
        let (driver, fallback) = choose_driver(config.driver, &config.limits)?;
        let listeners = bind(config)?;
        let mut set = Self {
            driver,
            fallback,
            recorders: vec![],
            descriptors,
            several: Arc::new(Several::of_this_host()),
            joins: Shared::new(config.shards),
            noted: Arc::default(),
            tended: 0,
            shards: vec![],
            spans: vec![],
            access: vec![],
            rules: Given::default(),
        };
        let mut seats = seats(config, listeners)?.into_iter();
        for index in 0..config.shards {
            let Some(seat) = seats.next() else { break };
            if let Err(e) = set.spawn(config, index, seat) {
                seats.for_each(Seat::close);
                set.drain(Duration::ZERO);
                set.join();
                return Err(e);
            }
        }
        Ok(set)
    }

    fn spawn(&mut self, config: &ShardConfig, index: usize, seat: Seat) -> Result<(), StartError> {
        let reads = Reads {
            ports: config.protocols.clone(),
            detects: config.detects,
            told: config.told.clone(),
        };
        let recorder = Arc::new(Recorder::of(&reads.tables()));
        let (commands, receiver) = channel();
        let put_off = Arc::new(AtomicBool::new(false));
        let os = |what| move |source| StartError::Os { what, source };
        let Seat { listener, waker, correlation } = seat;
        let tracing = config.http.tracing.as_ref();
        let (sink, source) =
            tracing.map(|tracing| spans::ring(tracing.spans_max, tracing.waker.clone())).unzip();
        self.spans.extend(source);
        let (mut requests, mut access) = (None, None);
        if let Some(log) = &config.access_log {
            let (of_requests, of_connections, source) = access_log(log);
            (requests, access) = (Some(of_requests), Some(of_connections));
            self.access.push(source);
        }
        let mut observer = Observer::new(tracing, config.shards, (sink, requests));
        if let Some(tracing) = tracing {
            observer = observer.joining(&self.joins, index, tracing.join);
        }
        let http = correlation.map(|memory| Box::new(HttpCore::new(&config.http, memory)));
        let (of_codecs, held_max) = (config.http.limits, config.http.held_bytes_max);
        let mut taps = Taps::new(reads, of_codecs, held_max);
        taps.head_timeout_ns = config.http.head_timeout.map(nanos);
        let writes = config.writes_context.then(|| WritesContext::of(&config.http)).flatten();
        let pool = BufferPool::new(config.limits.buffers_max, config.limits.buffer_bytes)
            .map_err(os("memory for relay buffers"))?;
        let parts = Parts {
            index,
            http,
            observer,
            taps,
            gates: Gates::new(writes),
            resolver: config.http.resolver.clone(),
            access,
            pool,
            limits: config.limits.clone(),
            memory: config.memory.as_ref().and_then(MemoryCount::open).map(Box::new),
            port: config.port,
            spin_max: config.spin_max,
            recorder: Arc::clone(&recorder),
            descriptors: Arc::clone(&self.descriptors),
            sources: Sources::new(Arc::clone(&self.several), &config.spare_sources),
            own_dials: OwnDials::new(Arc::clone(&self.noted)),
            guests: config.guests.clone(),
            put_off: Arc::clone(&put_off),
            commands: receiver,
            old_rules: self.rules.way_back(),
        };
        let cpu = (!config.cpus.is_empty()).then(|| config.cpus[index % config.cpus.len()]);
        let (driver, glommio) = (self.driver, config.glommio);
        let thread = thread::Builder::new()
            .name(format!("shard-{index}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if let Some(id) = cpu {
                    // A CPU that went away leaves the shard unpinned, which only costs speed.
                    core_affinity::set_for_current(core_affinity::CoreId { id });
                }
                run(driver, glommio, listener, waker, parts)
            })
            .map_err(os("shard thread"))?;
        self.recorders.push(recorder);
        self.shards.push(Running { commands, waker, put_off, thread });
        Ok(())
    }

    /// The driver in use.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// Why `auto` chose epoll, if it did.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// What each shard records, in order.
    pub fn recorders(&self) -> &[Arc<Recorder>] {
        &self.recorders
    }

    /// The cap on connections of the whole process.
    pub fn connections_max(&self) -> u32 {
        self.descriptors.connections_max()
    }

    /// Every shard stops accepting and lets its connections finish; what is left after `deadline`
    /// is reset. Does not wait.
    pub fn drain(&self, deadline: Duration) {
        self.tell(|| Command::Drain(deadline));
    }

    /// Whether shards may poll before they park; not while a CPU quota throttles the process.
    pub fn allow_polling(&self, allowed: bool) {
        self.tell(|| Command::AllowPolling(allowed));
    }

    /// Every shard decides about new traces by this plan from now on.
    pub fn sample(&self, plan: &Arc<SamplerPlan>) {
        self.tell(|| Command::Sample(Arc::clone(plan)));
    }

    /// Every shard decides by this table from now on; `process` is of the same table. Returns what
    /// each of them counts by it, when all of them have it; a shard that the machine keeps from
    /// running is waited for no longer than 200 ms and has it with its next turn.
    pub fn obey(&mut self, table: &Arc<Table>, process: &Arc<Process>) -> Vec<Arc<Hits>> {
        self.rules.obey(table);
        let shards = self.shards.len();
        let (obeys, all_obey) = channel();
        let give = |shard: &Running| {
            let rules = ShardRules::new(table, process, shards);
            let hits = Arc::clone(rules.hits());
            shard.tell(Command::Obey(Box::new(rules), obeys.clone()));
            hits
        };
        let hits = self.shards.iter().map(give).collect();
        drop(obeys);
        // Nothing is ever sent: this ends when the last sender does.
        let _: Result<Infallible, _> = all_obey.recv_timeout(OBEYED_WITHIN);
        hits
    }

    /// Shards that remember anything by request id forget what has expired, and those that have put
    /// something off do it. Expired entries are never found; this is for the memory of a shard that
    /// has nothing else to do. Now and then it is seen which addresses there are. Call it once a
    /// second.
    pub fn tend(&mut self) {
        self.rules.tend();
        self.tended = self.tended.wrapping_add(1);
        if self.tended.is_multiple_of(ADDRESSES_EVERY) {
            self.several.look();
        }
        for (shard, recorder) in self.shards.iter().zip(&self.recorders) {
            let has_put_off = shard.put_off.load(Relaxed);
            if has_put_off || recorder.gauge(Gauge::ContextEntries) > 0 {
                shard.tell(Command::Tend);
            }
        }
    }

    /// The finished spans of each shard, in order. There are none without tracing, and none the
    /// second time.
    pub fn take_spans(&mut self) -> Vec<SpanSource> {
        std::mem::take(&mut self.spans)
    }

    /// The access log's records of each shard, in order; none the second time.
    pub fn take_access_log(&mut self) -> Vec<AccessSource> {
        std::mem::take(&mut self.access)
    }

    /// Asks a shard for its connections, from a slot on; 0 is the beginning.
    pub fn connections(&self, shard: usize, from: u32, viewer: Arc<dyn Viewer>) {
        self.look(shard, Look::Connections(from, viewer));
    }

    /// Asks a shard what the kernel knows about some of its connections.
    pub fn details(&self, shard: usize, of: Vec<ConnectionId>, viewer: Arc<dyn Viewer>) {
        self.look(shard, Look::Details(of, viewer));
    }

    /// Asks a shard what has failed.
    pub fn failures(&self, shard: usize, viewer: Arc<dyn Viewer>) {
        self.look(shard, Look::Failures(viewer));
    }

    fn look(&self, shard: usize, look: Look) {
        if let Some(shard) = self.shards.get(shard) {
            shard.tell(Command::Look(look));
        }
    }

    /// A shard notes its turns from now on.
    pub fn note_turns(&self, shard: usize, line: Arc<TimeLine>) {
        if let Some(shard) = self.shards.get(shard) {
            shard.tell(Command::TimeLine(line));
        }
    }

    /// Tells a shard the addresses that it asked its [`Resolver`](crate::Resolver) for.
    pub fn answer(&self, asked: &ToResolve, resolved: Resolved) {
        if let Some(shard) = self.shards.get(asked.shard) {
            shard.tell(Command::Resolved(asked.asker, resolved));
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        self.shards.iter().for_each(|shard| shard.tell(command()));
    }

    /// All shards have ended.
    pub fn ended(&self) -> bool {
        self.shards.iter().all(|s| s.thread.is_finished())
    }

    /// A shard has ended, though perhaps not all of them.
    pub fn any_ended(&self) -> bool {
        self.shards.iter().any(|s| s.thread.is_finished())
    }

    /// Waits for the shards to end and says what the drain came to.
    pub fn join(self) -> DrainReport {
        let mut all = DrainReport::default();
        let mut wakers = Vec::new();
        for shard in self.shards {
            if let Ok(report) = shard.thread.join() {
                all.finished += report.finished;
                all.cut_total += report.cut_total;
                all.cut.extend(report.cut);
            }
            wakers.push(shard.waker);
        }
        // Shards wake each other, so these go when the last shard has ended.
        wakers.into_iter().for_each(sys::close);
        all
    }
}

/// What a shard is given that its peers know of, too.
struct Seat {
    listener: Fd,
    waker: Fd,
    correlation: Option<Correlation>,
}

impl Seat {
    fn close(self) {
        [self.listener, self.waker].into_iter().for_each(sys::close);
    }
}

fn seats(config: &ShardConfig, listeners: Vec<Fd>) -> Result<Vec<Seat>, StartError> {
    let wakers: io::Result<Vec<Fd>> = listeners.iter().map(|_| sys::eventfd()).collect();
    let wakers = wakers.map_err(|source| StartError::Os { what: "eventfd", source })?;
    let http = &config.http;
    let mut correlations = Vec::new();
    let mut read = config.protocols.protocols().chain(config.told.iter().copied());
    let writes = config.writes_context && read.any(Protocol::edits);
    if !http.ports.is_empty() || config.detects || (writes && http.tracing.is_some()) {
        let ttl = Duration::from_millis(http.limits.context_ttl_ms.into());
        let keep = Keep {
            entries_max: http.limits.contexts_max,
            context_ttl: ttl,
            route_ttl: http.routing.as_ref().map_or(ttl, |routing| routing.ttl),
        };
        correlations = correlate(correlate::seed(), keep, &wakers);
    }
    let mut correlations = correlations.into_iter();
    let seat = |(listener, waker)| Seat { listener, waker, correlation: correlations.next() };
    Ok(listeners.into_iter().zip(wakers).map(seat).collect())
}

/// How long a taken port is tried again: a process that was killed with io_uring operations in
/// flight keeps its listeners until the kernel has torn its rings down, and what is restarted at
/// once must not fail for that.
const PORT_PATIENCE: Duration = Duration::from_millis(1500);
const PORT_RETRY: Duration = Duration::from_millis(25);

/// Binds one listener per shard, all to the same port.
fn bind(config: &ShardConfig) -> Result<Vec<Fd>, StartError> {
    let refused = |source| StartError::Listen { port: config.port, source };
    let until = Instant::now() + PORT_PATIENCE;
    while let Err(e) = socket::port_is_free(config.port) {
        if e.raw_os_error() != Some(libc::EADDRINUSE) || Instant::now() > until {
            return Err(refused(e));
        }
        thread::park_timeout(PORT_RETRY);
    }
    let mut listeners = Vec::new();
    for _ in 0..config.shards {
        match socket::listen(config.port, tuning(&config.limits)) {
            Ok(fd) => listeners.push(fd),
            Err(e) => {
                listeners.into_iter().for_each(sys::close);
                return Err(refused(e));
            }
        }
    }
    Ok(listeners)
}

/// Which driver the kernel allows: a real ring and a real receive tell.
///
/// # Errors
/// io_uring was asked for and is refused, or it is refused for a reason that epoll would share.
pub fn choose_driver(
    choice: DriverChoice,
    limits: &Limits,
) -> Result<(Driver, Option<String>), StartError> {
    if choice == DriverChoice::Epoll {
        return Ok((Driver::Epoll, None));
    }
    match crate::probe::io_uring(limits) {
        Ok(driver) => Ok((driver, None)),
        Err(refused) => {
            let errno = refused.source.raw_os_error();
            let fall_back = matches!(errno, Some(libc::EPERM | libc::ENOSYS | libc::EINVAL));
            if choice == DriverChoice::Auto && fall_back {
                let (step, source) = (refused.step, &refused.source);
                let hint = io_uring_hint(source);
                return Ok((Driver::Epoll, Some(format!("{step}: {source}: {hint}"))));
            }
            Err(StartError::IoUring { step: refused.step, source: refused.source })
        }
    }
}

/// A shard's thread, from its backend to its end.
fn run(driver: Driver, glommio: bool, listener: Fd, waker: Fd, parts: Parts) -> DrainReport {
    let ended = match driver {
        Driver::Epoll => EpollIo::new(listener, waker, &parts.limits)
            .and_then(|io| host::run(Shard::new(io, parts))),
        Driver::IoUringDefer | Driver::IoUringCoop => {
            RingIo::new(listener, waker, &parts.pool, &parts.limits)
                .map_err(|refused| refused.source)
                .and_then(|io| host::run_ring(Shard::new(io, parts), glommio))
        }
    };
    match ended {
        Ok(report) => report,
        // The kernel refused what it allowed to the probe, or broke the loop's one call: nothing
        // can be relayed any more, and a sidecar that only seems to run is worse than one that
        // is restarted. The panic ends the process (panic = "abort"; the panic hook logs it).
        Err(e) => panic!("a shard cannot go on: {e}"),
    }
}
