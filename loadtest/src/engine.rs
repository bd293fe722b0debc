//! The loop of one generator thread: starts what is due, takes what has come, never waits for the
//! target when it could start something.

use std::collections::VecDeque;
use std::io;

use crate::client::{Client, Phase, Progress};
use crate::clock::{Clock, Nanos, nanos};
use crate::error::{Context, Error, Kind, Result};
use crate::pacer::{Pacer, Schedule};
use crate::plan::{LoadPlan, Pace};
use crate::stats::{Failure, Measured, Recorder};
use crate::sys::{self, Event, Poller};

/// How long a connection rests after a failure, so that a dead target does not make us spin.
const COOL_DOWN: Nanos = 10_000_000;
/// How often timeouts, signals and intervals are looked at.
const TICK: Nanos = 50_000_000;
/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// The part of the load that one thread carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) index: usize,
    pub(crate) connections: usize,
}

/// When one run starts, ends, and gives up waiting for answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: Nanos,
    pub(crate) end: Nanos,
    pub(crate) give_up: Nanos,
}

/// One thread's connections and what they are asked.
pub(crate) struct Engine<'a> {
    plan: &'a LoadPlan,
    share: Share,
    clock: Clock,
    poller: Poller,
    clients: Vec<Client>,
    /// Connections on which a request can start, the longest waiting first.
    ready: VecDeque<u32>,
    /// Connections that failed, and when they may be used again.
    cooling: VecDeque<(Nanos, u32)>,
    in_flight: usize,
    buffer: Vec<u8>,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(plan: &'a LoadPlan, share: Share, clock: Clock) -> Result<Self> {
        let poller = Poller::new().context(|| "epoll_create1".to_owned())?;
        let clients = (0..share.connections).map(|_| Client::new(&plan.payload)).collect();
        let count = u32::try_from(share.connections).unwrap_or(u32::MAX);
        Ok(Self {
            plan,
            share,
            clock,
            poller,
            clients,
            ready: (0..count).collect(),
            cooling: VecDeque::new(),
            in_flight: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Opens all connections before the run, unless each request brings its own.
    pub(crate) fn connect(&mut self) -> Result<()> {
        if self.plan.is_fresh {
            return self.probe();
        }
        let deadline = self.clock.now() + nanos(self.plan.timeout);
        let target = self.plan.target;
        let refused = |cause: io::Error| {
            let hint = match cause.raw_os_error() {
                Some(libc::ECONNREFUSED) => " (is anything listening there?)",
                Some(libc::EMFILE) => " (raise the limit of open files, `ulimit -n`)",
                Some(libc::EADDRNOTAVAIL) => " (no local ports left)",
                _ => "",
            };
            Error::new(Kind::Target, format!("cannot connect to {target}: {cause}{hint}"))
        };
        // In batches smaller than any accept queue: a full queue costs a second per lost SYN.
        for batch in (0..self.share.connections).step_by(64) {
            let slots = batch..(batch + 64).min(self.share.connections);
            for slot in slots.clone() {
                let key = u32::try_from(slot).unwrap_or(u32::MAX);
                self.clients[slot].dial(target, key, &self.poller).map_err(refused)?;
            }
            let mut left = slots.len();
            while left > 0 {
                let now = self.clock.now();
                if now >= deadline {
                    return Err(refused(io::ErrorKind::TimedOut.into()));
                }
                if sys::is_interrupted() {
                    return Err(Error::new(Kind::Interrupted, "interrupted"));
                }
                let count = self.poller.wait(TICK).context(|| "epoll_pwait2".to_owned())?;
                for index in 0..count {
                    let event = self.poller.event(index);
                    let Some(slot) = self.slot_of(event) else { continue };
                    let client = &mut self.clients[slot];
                    if client.phase == Phase::Connecting && event.is_writable {
                        client.finish_dial().map_err(refused)?;
                        client.phase = Phase::Idle;
                        left -= 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the target listens at all, before a run of new connections starts.
    fn probe(&self) -> Result<()> {
        let target = self.plan.target;
        std::net::TcpStream::connect_timeout(&target, self.plan.timeout).map(drop).map_err(
            |cause| Error::new(Kind::Target, format!("cannot connect to {target}: {cause}")),
        )
    }

    /// Runs the load; `recorder` knows which part of it counts.
    pub(crate) fn run(self, span: Span, recorder: Recorder) -> Result<Measured> {
        let pacer = match self.plan.pace {
            Pace::Closed => None,
            Pace::Open { rate, arrival } => Some(Pacer::new(Schedule {
                arrival,
                rate: rate / self.plan.threads as f64,
                start: span.start,
                end: span.end,
                phase: self.share.index as f64 / self.plan.threads as f64,
                seed: self.plan.seed.wrapping_add(self.share.index as u64),
            })),
        };
        Run { engine: self, span, pacer, recorder, possible_from: 0, next_tick: 0 }.go()
    }

    fn slot_of(&self, event: Event) -> Option<usize> {
        let slot = u32::try_from(event.key & u64::from(u32::MAX)).ok()?;
        let client = self.clients.get(slot as usize)?;
        // An event of a socket that was closed earlier in the same batch is not for its successor.
        (client.key(slot) == event.key).then_some(slot as usize)
    }
}

/// A run in progress.
struct Run<'a> {
    engine: Engine<'a>,
    span: Span,
    pacer: Option<Pacer>,
    recorder: Recorder,
    /// When a connection became ready after there was none. Before that a due request waited for
    /// the target, not for us.
    possible_from: Nanos,
    next_tick: Nanos,
}

impl Run<'_> {
    fn go(mut self) -> Result<Measured> {
        let mut now = self.engine.clock.now();
        while !self.is_over(now) {
            self.end_cool_down(now);
            self.start_due(now);
            now = self.engine.clock.now();
            let timeout = self.timeout(now);
            let count = self.engine.poller.wait(timeout).context(|| "epoll_pwait2".to_owned())?;
            for index in 0..count {
                let event = self.engine.poller.event(index);
                if let Some(slot) = self.engine.slot_of(event) {
                    self.on_event(slot, event);
                }
            }
            now = self.engine.clock.now();
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.on_tick(now);
            }
        }
        self.close_books(now);
        Ok(self.recorder.finish())
    }

    fn is_over(&self, now: Nanos) -> bool {
        if sys::is_interrupted() || now >= self.span.give_up {
            return true;
        }
        let is_all_started = self.pacer.as_ref().is_none_or(|pacer| pacer.peek().is_none());
        now >= self.span.end && is_all_started && (self.engine.in_flight == 0 || self.is_closed())
    }

    fn is_closed(&self) -> bool {
        self.pacer.is_none()
    }

    fn next_intended(&mut self, now: Nanos) -> Option<Nanos> {
        match &mut self.pacer {
            Some(pacer) => pacer.take_due(now),
            None => (self.span.start..self.span.end).contains(&now).then_some(now),
        }
    }

    /// Starts every request that is due and has a connection.
    fn start_due(&mut self, mut now: Nanos) {
        while !self.engine.ready.is_empty() {
            let Some(intended) = self.next_intended(now) else { break };
            let Some(slot) = self.engine.ready.pop_front() else { break };
            self.start(slot, intended, now);
            now = self.engine.clock.now();
        }
    }

    fn start(&mut self, slot: u32, intended: Nanos, now: Nanos) {
        let plan = self.engine.plan;
        let possible = intended.max(self.possible_from).min(now);
        self.recorder.started(intended, possible, now, plan.payload.bytes().len());
        self.engine.in_flight += 1;
        let client = &mut self.engine.clients[slot as usize];
        (client.intended, client.started) = (intended, now);
        if client.phase == Phase::Idle {
            let progress = client.ask(plan.payload.bytes());
            self.settle(slot as usize, progress);
        } else if let Err(cause) = client.dial(plan.target, slot, &self.engine.poller) {
            self.fail(slot as usize, Failure::Connect, || format!("connect: {cause}"));
        }
    }

    fn on_event(&mut self, slot: usize, event: Event) {
        let client = &mut self.engine.clients[slot];
        match client.phase {
            Phase::Connecting if event.is_writable => self.on_connected(slot),
            Phase::Busy => {
                let payload = &self.engine.plan.payload;
                if event.is_writable && client.is_writing(payload.bytes()) {
                    let progress = client.write(payload.bytes());
                    self.settle(slot, progress);
                }
                if event.is_readable || event.is_closed {
                    self.on_readable(slot, event.is_closed);
                }
            }
            Phase::Idle if event.is_readable || event.is_closed => {
                self.recorder.counts.closed_while_idle += 1;
                client.close();
            }
            Phase::Closed | Phase::Connecting | Phase::Idle => {}
        }
    }

    fn on_connected(&mut self, slot: usize) {
        let client = &mut self.engine.clients[slot];
        if let Err(cause) = client.finish_dial() {
            return self.fail(slot, Failure::Connect, || format!("connect: {cause}"));
        }
        let took = self.engine.clock.now().saturating_sub(client.started);
        self.recorder.connected(client.intended, took);
        let progress = client.ask(self.engine.plan.payload.bytes());
        self.settle(slot, progress);
    }

    fn on_readable(&mut self, slot: usize, is_closed: bool) {
        let engine = &mut self.engine;
        let client = &mut engine.clients[slot];
        if client.phase != Phase::Busy {
            return;
        }
        let bytes = &mut self.recorder.counts.bytes_received;
        let progress = client.read(&engine.plan.payload, &mut engine.buffer, is_closed, bytes);
        self.settle(slot, progress);
    }

    /// Acts on how far a request is.
    fn settle(&mut self, slot: usize, progress: Progress) {
        match progress {
            Progress::Pending => {}
            Progress::Done { status, is_reusable } => self.finish(slot, status, is_reusable),
            Progress::Failed(failure, why) => self.fail(slot, failure, || why),
        }
    }

    fn finish(&mut self, slot: usize, status: u16, is_reusable: bool) {
        let now = self.engine.clock.now();
        let client = &mut self.engine.clients[slot];
        if status >= 400 {
            self.recorder
                .failed(client.intended, now, Failure::Status, || format!("status {status}"));
        } else if self.pacer.is_some() || now < self.span.end {
            self.recorder.good(client.intended, client.started, now);
        }
        if is_reusable && !self.engine.plan.is_fresh {
            client.phase = Phase::Idle;
        } else {
            client.close();
        }
        self.engine.in_flight -= 1;
        self.make_ready(slot, now);
        self.start_due(now);
    }

    fn fail(&mut self, slot: usize, failure: Failure, why: impl FnOnce() -> String) {
        let now = self.engine.clock.now();
        let client = &mut self.engine.clients[slot];
        self.recorder.failed(client.intended, now, failure, why);
        client.close();
        self.engine.in_flight -= 1;
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        self.engine.cooling.push_back((now + COOL_DOWN, slot));
    }

    fn make_ready(&mut self, slot: usize, now: Nanos) {
        if self.engine.ready.is_empty() {
            self.possible_from = now;
        }
        self.engine.ready.push_back(u32::try_from(slot).unwrap_or(u32::MAX));
    }

    /// How long to wait for events.
    fn timeout(&self, now: Nanos) -> Nanos {
        if self.engine.plan.is_busy {
            return 0;
        }
        let mut until = self.next_tick.min(self.span.give_up).max(now);
        if now < self.span.end {
            until = until.min(self.span.end);
        }
        if now < self.span.start {
            until = until.min(self.span.start);
        }
        if let Some(&(at, _)) = self.engine.cooling.front() {
            until = until.min(at);
        }
        if !self.engine.ready.is_empty()
            && let Some(due) = self.pacer.as_ref().and_then(Pacer::peek)
        {
            until = until.min(due);
        }
        until.saturating_sub(now)
    }

    fn end_cool_down(&mut self, now: Nanos) {
        while let Some(&(_, slot)) = self.engine.cooling.front().filter(|&&(at, _)| at <= now) {
            self.engine.cooling.pop_front();
            self.make_ready(slot as usize, now);
        }
    }

    fn on_tick(&mut self, now: Nanos) {
        self.recorder.roll(now);
        let timeout = nanos(self.engine.plan.timeout);
        for slot in 0..self.engine.clients.len() {
            let client = &self.engine.clients[slot];
            let is_waiting = matches!(client.phase, Phase::Busy | Phase::Connecting);
            if is_waiting && now.saturating_sub(client.started) > timeout {
                self.fail(slot, Failure::Timeout, || "no answer in time".to_owned());
            }
        }
    }

    /// Accounts for what was asked or due, and not answered.
    fn close_books(&mut self, now: Nanos) {
        self.recorder.roll(now);
        if self.is_closed() {
            return;
        }
        for client in &self.engine.clients {
            if matches!(client.phase, Phase::Busy | Phase::Connecting) {
                self.recorder.unfinished(client.intended, now);
            }
        }
        while let Some(intended) = self.pacer.as_mut().and_then(|pacer| pacer.take_due(now)) {
            self.recorder.unfinished(intended, now);
            // With a connection at hand it was we who did not start it: stopped by a debugger, a
            // signal, or a host that gave our CPU to somebody else.
            if !self.engine.ready.is_empty() {
                self.recorder.started(intended, intended.max(self.possible_from).min(now), now, 0);
            }
        }
    }
}
