//! A shard: the loop of one core, and all that it owns.
//!
//! A turn: wait -> hand every event to its connection -> timers -> what is left to move. Nothing
//! is submitted while events are handed out; what they ask for goes to the kernel in the next
//! turn's one call.

use crate::{
    access::{AccessSink, ConnectionRecord},
    buffers::BufferPool,
    config::Limits,
    connection::{Connection, Phase},
    core::{Core, HttpCore},
    descriptors::Descriptors,
    error::{Direction, End},
    exchange::{Gates, Observer, ShardRules, Taps},
    failures::Failures,
    io::{Event, Io, Polled, Side, Token, Wait},
    links::LinkNames,
    look::{Look, TimeLine, Turn},
    own_dials::OwnDials,
    pipes::PipePool,
    polling::{Awaited, Polling},
    pressure::{MemoryCount, Pressure},
    remembered::Remembered,
    resolve::{Asker, Resolved, Resolver},
    sources::Sources,
    sys::{Nanos, nanos},
    timers::{Delays, HeadDeadlines, Timer, Timers},
    young::Young,
};
use netra_codecs::trace::SamplerPlan;
use netra_perf::{Gauge, Key, Recorder};
use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{Receiver, Sender},
    },
    time::Duration,
};

/// How long after a burst memory that was not needed since is given back.
const SHRINK_NS: Nanos = 1_000_000_000;

/// A connection that a drain's deadline cut.
#[derive(Clone, Copy, Debug)]
pub struct CutConnection {
    /// Who had connected, where the kernel still knew.
    pub peer: Option<SocketAddr>,
    /// Where it wanted to go.
    pub original_dst: SocketAddr,
    /// Inbound or outbound.
    pub direction: Direction,
    /// How long it had lasted.
    pub age: Duration,
}

/// What a drain came to.
#[derive(Debug, Default)]
pub struct DrainReport {
    /// Connections that came to their own end after the drain began.
    pub finished: u64,
    /// Connections that were cut at the deadline.
    pub cut_total: u64,
    /// The first of them.
    pub cut: Vec<CutConnection>,
}

/// What a shard can be told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Stop accepting, finish, cut what is left after this long.
    Drain(Duration),
    /// Whether to poll before parking at all: not while the process is throttled.
    AllowPolling(bool),
    /// Decide about new traces by this.
    Sample(Arc<SamplerPlan>),
    /// Decide about messages by these rules. Who waits for that hears of it by the sender's end.
    Obey(Box<ShardRules>, Sender<Infallible>),
    /// The addresses that a connection asked for.
    Resolved(Asker, Resolved),
    /// Forget what has expired, and do what was put off.
    Tend,
    /// Say what there is.
    Look(Look),
    /// Note every turn for a while.
    TimeLine(Arc<TimeLine>),
}

/// One core's loop.
pub(crate) struct Shard<I: Io> {
    /// Its index in the set.
    pub(crate) index: usize,
    pub(crate) core: Core<I>,
    pub(crate) slab: Vec<Connection>,
    pub(crate) free: Vec<u32>,
    pub(crate) timers: Timers,
    pub(crate) heads: HeadDeadlines,
    /// Requests that wait for a while.
    pub(crate) delays: Delays,
    /// When answers are due.
    pub(crate) answers: Delays,
    pub(crate) active: u32,
    /// Legs of connections, which have slots of their own; and mirrors, which do, too.
    pub(crate) legs: u32,
    /// The mirrors among them.
    pub(crate) mirrors: u32,
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) young: Young,
    /// Connections there are that have not heard of the rules in force yet: something of theirs was
    /// under way.
    pub(crate) looks_again: bool,
    pub(crate) accept_again_at: Option<Nanos>,
    commands: Receiver<Command>,
    /// Where rules go that are no longer in force.
    old_rules: Sender<Box<ShardRules>>,
    polling: Polling,
    pub(crate) drain_until: Option<Nanos>,
    /// While it drains: when to look next for connections that are quiet.
    pub(crate) quiet_look_at: Option<Nanos>,
    /// From when on requests ask for the last answer then.
    pub(crate) last_asked_at: Nanos,
    pub(crate) report: DrainReport,
    pub(crate) finished_before: u64,
    /// When to give back the memory of a burst, if there may be any.
    shrink_at: Option<Nanos>,
    /// What is done for want of memory has begun.
    pub(crate) is_shedding: bool,
    /// Where turns are noted, while somebody wants to know.
    pub(crate) time_line: Option<Arc<TimeLine>>,
}

/// What a shard is made of, besides its backend.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) http: Option<Box<HttpCore>>,
    pub(crate) observer: Observer,
    pub(crate) taps: Taps,
    pub(crate) gates: Gates,
    /// Who looks names up; nobody where no request can be sent elsewhere.
    pub(crate) resolver: Option<Arc<dyn Resolver>>,
    pub(crate) access: Option<AccessSink<ConnectionRecord>>,
    pub(crate) pool: BufferPool,
    pub(crate) limits: Limits,
    pub(crate) memory: Option<Box<MemoryCount>>,
    pub(crate) port: u16,
    pub(crate) spin_max: Duration,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) sources: Sources,
    pub(crate) own_dials: OwnDials,
    /// The links of guests.
    pub(crate) guests: LinkNames,
    /// Set while somebody should tell [`Command::Tend`] for what the shard has put off.
    pub(crate) put_off: Arc<AtomicBool>,
    /// Where rules go that are no longer in force.
    pub(crate) old_rules: Sender<Box<ShardRules>>,
    pub(crate) commands: Receiver<Command>,
}

impl<I: Io> Shard<I> {
    pub(crate) fn new(io: I, parts: Parts) -> Self {
        let pipes = PipePool::new(parts.limits.pipes_max, parts.limits.pipe_bytes);
        let scratch = vec![0; parts.pool.buffer_bytes() as usize];
        parts.recorder.set(Gauge::BuffersMax, parts.pool.capacity() as u64);
        let now = io.now();
        let young = Young::new(&parts.limits, parts.put_off);
        let core = Core {
            io,
            pool: parts.pool,
            pipes,
            recorder: parts.recorder,
            limits: parts.limits,
            port: parts.port,
            now,
            again: VecDeque::new(),
            scratch,
            finished: 0,
            http_ports: parts.http.as_deref().map(HttpCore::ports).unwrap_or_default(),
            http: parts.http,
            observer: parts.observer,
            taps: parts.taps,
            gates: parts.gates,
            resolver: parts.resolver,
            access: parts.access,
            failures: Failures::default(),
            memory: parts.memory,
            sources: parts.sources,
            own_dials: parts.own_dials,
            guests: parts.guests,
            addresses: Remembered::default(),
            guest_links: Remembered::default(),
        };
        let mut shard = Self {
            index: parts.index,
            core,
            slab: Vec::new(),
            free: Vec::new(),
            timers: Timers::default(),
            heads: HeadDeadlines::default(),
            delays: Delays::default(),
            answers: Delays::default(),
            active: 0,
            legs: 0,
            mirrors: 0,
            descriptors: parts.descriptors,
            young,
            accept_again_at: None,
            commands: parts.commands,
            old_rules: parts.old_rules,
            looks_again: false,
            polling: Polling::new(nanos(parts.spin_max)),
            drain_until: None,
            quiet_look_at: None,
            last_asked_at: 0,
            report: DrainReport::default(),
            finished_before: 0,
            shrink_at: None,
            is_shedding: false,
            time_line: None,
        };
        shard.offer_room();
        shard
    }

    /// One turn. `wait` is how long it may wait for events.
    pub(crate) fn turn(&mut self, wait: Wait) -> io::Result<()> {
        let noted = self.time_line.is_some().then(|| Turn::begun(self.core.io.now(), wait));
        self.core.io.turn(&mut self.core.pool, wait)?;
        self.core.now = self.core.io.now();
        let woke_at = self.core.now;
        self.core.recorder.bump(Key::TURNS);
        if self.is_shedding {
            self.core.look_at_memory();
            self.ease_memory();
        }
        let mut events = 0u32;
        let mut awaited = Awaited::Request;
        while let Some(event) = self.core.io.next(&mut self.core.pool) {
            if event.asks() {
                awaited = Awaited::Answer;
            }
            self.on_event(event);
            events += 1;
        }
        self.go_on();
        self.expire();
        if self.core.pressure() > Pressure::None {
            self.ease_memory();
        }
        self.offer_room();
        if self.drain_until.is_some() {
            self.close_quiet();
            self.cut_at_deadline();
        }
        let quiet_since = self.core.io.now();
        self.core.recorder.add(Key::BUSY_NS, quiet_since.saturating_sub(woke_at));
        self.polling.after_turn((events > 0).then_some(awaited), woke_at, quiet_since);
        if let Some(turn) = noted {
            self.note_turn(Turn { woke_at_ns: woke_at, quiet_at_ns: quiet_since, events, ..turn });
        }
        // Only then, because a wait with a deadline costs the kernel a timer.
        let stretched = self.core.pool.is_stretched() || self.core.pipes.is_stretched();
        if stretched && self.shrink_at.is_none() {
            self.shrink_at = Some(quiet_since + SHRINK_NS);
        }
        Ok(())
    }

    /// How long the next turn may wait. Polls first where that is likely to find work, because
    /// sleeping and waking is what costs most (`docs/adr/0003-park-last.md`).
    pub(crate) fn park(&mut self) -> Wait {
        if !self.core.again.is_empty() {
            return Wait::Poll;
        }
        if let Some(budget) = self.polling.budget() {
            match self.core.io.poll(budget) {
                Polled::AtOnce => return Wait::Poll,
                Polled::Found => {
                    self.polling.found();
                    self.core.recorder.bump(Key::SPINS);
                    return Wait::Poll;
                }
                Polled::Nothing => self.polling.missed(),
            }
        }
        self.core.recorder.set(Gauge::PipesUsed, self.core.pipes.lent() as u64);
        self.core.recorder.set(Gauge::BuffersUsed, self.core.pool.lent() as u64);
        let mut held_bytes = self.core.taps.held_bytes();
        if let Some(http) = self.core.http.as_deref() {
            http.record(&self.core.recorder);
            held_bytes += http.held_bytes();
        }
        self.core.recorder.set(Gauge::HeldBytes, held_bytes as u64);
        // Without a deadline nobody has to know what time it is.
        let wait = match self.deadline() {
            None => Wait::Forever,
            Some(at) => match at.saturating_sub(self.core.io.now()) {
                0 => Wait::Poll,
                left => Wait::AtMost(left),
            },
        };
        if wait != Wait::Poll {
            self.core.recorder.bump(Key::PARKS);
        }
        wait
    }

    /// When the loop must go on even if nothing happens.
    fn deadline(&self) -> Option<Nanos> {
        let waiting = [self.heads.next(), self.delays.next(), self.answers.next()];
        let heads = waiting.into_iter().flatten().min();
        let others = [self.accept_again_at, self.drain_until, self.quiet_look_at, self.shrink_at];
        [self.timers.next(&self.slab), heads].into_iter().chain(others).flatten().min()
    }

    /// The drain is over: the listener is closed and no connection is left.
    pub(crate) fn is_over(&self) -> bool {
        self.drain_until.is_some() && self.active + self.legs == 0 && self.core.io.listener_closed()
    }

    /// What the drain came to.
    pub(crate) fn into_report(mut self) -> DrainReport {
        self.report.finished = self.core.finished - self.finished_before;
        self.report
    }

    pub(crate) fn on_event(&mut self, event: Event) {
        let token = match event {
            Event::Accepted(fd) => return self.on_accepted(fd),
            Event::AcceptFailed(errno) => return self.on_accept_failed(errno),
            Event::Woken => return self.on_commands(),
            Event::Closed(token) => return self.on_closed(token),
            Event::Urgent(_) => return self.core.recorder.bump(Key::URGENT_DROPPED),
            Event::Received(token, _)
            | Event::Failed(token, _)
            | Event::Ended(token)
            | Event::Starved(token)
            | Event::Paused(token)
            | Event::Readable(token)
            | Event::Writable(token) => token,
        };
        let connection = &mut self.slab[token.slot as usize];
        let relaying = connection.phase == Phase::Relaying;
        if connection.generation != token.generation || !relaying {
            self.on_stray(token, &event);
            return;
        }
        if connection.is_read() {
            let is_a_legs = token.side == Side::Upstream || matches!(event, Event::Writable(_));
            if is_a_legs && connection.has_legs() {
                return self.on_leg_event(token, event);
            }
            if token.side == Side::Upstream && connection.is_detached() {
                return self.on_switch_event(token, &event);
            }
        }
        match connection.on_event(&mut self.core, token, event) {
            Ok(()) => self.moved(token),
            Err(end) => self.end(token, end),
        }
    }

    /// An event of a connection that is not being relayed: the answer to its dial, or something
    /// that was on its way when it ended.
    fn on_stray(&mut self, token: Token, event: &Event) {
        let connection = &self.slab[token.slot as usize];
        if connection.generation == token.generation && connection.phase == Phase::Hearing {
            return self.on_hearing(token, event);
        }
        let dialling =
            connection.generation == token.generation && connection.phase == Phase::Dialling;
        match event {
            Event::Received(_, buffer) => self.core.pool.give_back(*buffer),
            Event::Writable(_) if dialling && token.side == Side::Upstream => {
                self.on_dial_answer(token);
            }
            // The client has gone before its upstream answered.
            Event::Failed(_, error) if dialling => self.end(token, End::of(token.side, *error)),
            _ => {}
        }
    }

    /// Goes on with the flows that have more to move: each once.
    fn go_on(&mut self) {
        for _ in 0..self.core.again.len() {
            let Some(from) = self.core.again.pop_front() else { return };
            let connection = &mut self.slab[from.slot as usize];
            if connection.generation != from.generation || connection.phase != Phase::Relaying {
                continue;
            }
            if from.side == Side::Upstream && connection.has_legs() {
                self.go_on_with_leg(from);
                continue;
            }
            match connection.go_on(&mut self.core, from) {
                Ok(()) => self.moved(from),
                Err(end) => self.end(from, end),
            }
        }
    }

    /// Deadlines that have passed, and memory that is no longer needed.
    fn expire(&mut self) {
        while let Some((timer, slot)) = self.timers.expire(&mut self.slab, self.core.now) {
            self.on_deadline(timer, slot);
        }
        self.expire_heads();
        self.expire_delays();
        self.expire_answers();
        if self.shrink_at.is_some_and(|at| self.core.now >= at) {
            self.shrink_at = None;
            self.core.pool.shrink();
            self.core.pipes.shrink();
        }
    }

    fn on_deadline(&mut self, timer: Timer, slot: u32) {
        let token = self.downstream_of(slot);
        match timer {
            Timer::FirstByte => self.dial_for_silence(token, None),
            Timer::Dial => self.on_dial_deadline(token),
            Timer::Address => self.on_address_step(token),
            Timer::Drain => self.end(token, End::DialTimeout),
            Timer::HalfCloseLinger | Timer::Idle if self.holds_bytes(token) => {
                let at = self.core.now + self.silence_of(timer);
                self.timers.set(&mut self.slab, slot, timer, at);
            }
            Timer::HalfCloseLinger => self.end(token, End::HalfCloseLinger),
            Timer::Idle => self.end(token, End::IdleTimeout),
            Timer::Leg => self.on_leg_idle(slot),
            Timer::Mirror => self.on_mirror_idle(slot),
            Timer::Rest => self.has_rested(slot),
        }
    }

    fn silence_of(&self, timer: Timer) -> Nanos {
        let idle = self.core.limits.idle_timeout.unwrap_or_default();
        nanos(if timer == Timer::Idle { idle } else { self.core.limits.half_close_linger })
    }

    /// Has an upstream socket watched for silence, soon.
    pub(crate) fn watch_silence_of(&mut self, upstream: Token) {
        let slab = &self.slab;
        let is_dead = |token: Token| {
            let connection = &slab[token.slot as usize];
            let lives = matches!(connection.phase, Phase::Dialling | Phase::Relaying);
            !lives || connection.generation != token.generation
        };
        if let Some(oldest) = self.young.push(upstream, is_dead) {
            self.core.io.watch_silence(oldest);
        }
    }

    pub(crate) fn downstream_of(&self, slot: u32) -> Token {
        let generation = self.slab[slot as usize].generation;
        Token { slot, generation, side: Side::Downstream }
    }

    /// These rules are in force from now on, also for the connections that are there.
    fn obey(&mut self, mut rules: Box<ShardRules>) {
        if let Some(old) = self.core.gates.rules.take() {
            rules.take_over(&old);
            // The control thread frees it; where there is none, nobody waits.
            let _ = self.old_rules.send(old);
        }
        self.core.gates.rules = Some(rules);
        self.look_again();
    }

    fn on_commands(&mut self) {
        // A peer wakes a shard that has let its mailbox fill.
        if let Some(http) = self.core.http.as_deref_mut() {
            http.editor.correlation.receive();
        }
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Drain(deadline) => self.begin_drain(deadline),
                Command::AllowPolling(allowed) => self.polling.allow(allowed),
                Command::Sample(plan) => self.core.observer.sample(plan),
                Command::Obey(rules, _ends) => self.obey(rules),
                Command::Resolved(asker, resolved) => self.on_resolved(asker, resolved),
                Command::Look(look) => self.on_look(look),
                Command::TimeLine(line) => self.time_line = Some(line),
                Command::Tend => {
                    if let Some(http) = self.core.http.as_deref_mut() {
                        http.editor.correlation.tend(self.core.now);
                    }
                    while let Some(upstream) = self.young.pop() {
                        self.core.io.watch_silence(upstream);
                    }
                    if self.looks_again {
                        self.look_again();
                    }
                }
            }
        }
    }
}
