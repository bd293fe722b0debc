//! A connection of a protocol that is read along: its two flows send bytes first and show them
//! here after. Whatever a codec makes of them cannot disturb them; what is not certain makes the
//! connection opaque.

mod traced;

use crate::{
    core::Core,
    error::Direction,
    exchange::{Concluded, HeldCall, Named, Observer, OpenSpan, Session, Source, Taps, Writing},
    io::{Io, Side},
    joins::Served,
    patience::Patience,
    sends::is_long,
    switch::seats::{Seats, heard_of},
    sys::Nanos,
};
use netra_codecs::{
    codec::{self, Convention, Exchange, Head, Key as Wanted, Kind, Reason, Way},
    tap::{Message, Protocol, Step, Tap},
    trace::{Join, Outcome, SpanRecord, SpanText, VALUE_BYTES_MAX},
};
use netra_perf::{ExchangeStage, Key, Recorder};
use netra_rules::Heard;
use std::net::SocketAddr;

/// What an exchange carries from its request to its answer.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub(crate) span: Option<OpenSpan>,
    /// What netra itself took so far.
    overhead_ns: u32,
    /// Its record goes to the access log.
    is_logged: bool,
    /// It is a request that calls may belong to.
    served: Option<Served>,
    /// It was not passed on.
    pub(crate) is_refused: bool,
    /// It waits for another upstream.
    pub(crate) waits: bool,
    /// It counts where its connection sits.
    pub(crate) is_seated: bool,
    /// Its number among those that may be sent again, 0 where it may not.
    pub(crate) kept: u8,
    /// What its answer is edited by, 0 where it is not.
    pub(crate) answer: u32,
    /// Its number among those whose answers may not take for ever, 0 where it may.
    pub(crate) timed: u32,
    /// The number of what its client is told if its leg ends, 0 where there is nothing.
    pub(crate) words: u32,
}

/// What is read of one connection.
#[derive(Debug)]
pub(crate) struct Tapped {
    pub(crate) tap: Tap<Carried>,
    pub(crate) of: Of,
    /// Bytes of heads that are held, as counted in [`Taps::held_bytes`].
    held_bytes: u32,
    /// What netra itself took of the heads so far.
    overhead_ns: Nanos,
    /// What the calls of the connection have in common.
    session: Session,
    /// Whether a transaction is open behind the answer under way, where it says so.
    transaction: Option<bool>,
    /// Of its answers that may not take for ever; none before there are any.
    pub(crate) patience: Option<Box<Patience>>,
}

impl Tapped {
    /// A connection that begins.
    pub(crate) fn new(named: Named, direction: Direction, remote: Option<SocketAddr>) -> Self {
        Self {
            tap: Tap::new(named.protocol),
            of: Of { named, direction, remote, is_trial: false, seats: Seats::default() },
            held_bytes: 0,
            overhead_ns: 0,
            session: Session::default(),
            transaction: None,
            patience: None,
        }
    }

    /// A connection whose protocol was found out: its tap goes on.
    pub(crate) fn found(
        tap: Tap<Carried>,
        of: Of,
        overhead_ns: Nanos,
        taps: &mut Taps,
        recorder: &Recorder,
    ) -> Self {
        let reason = tap.reason();
        let mut found = Self {
            tap,
            of,
            held_bytes: 0,
            overhead_ns,
            session: Session::default(),
            transaction: None,
            patience: None,
        };
        match reason {
            // It was given up again in the bytes that told.
            Some(reason) => found.give_up(reason, recorder),
            None => found.count_held(taps, recorder),
        }
        found
    }

    /// The protocol's name.
    pub(crate) fn name(&self) -> &'static str {
        self.of.named.protocol.about().name
    }

    /// Nothing is left to do: from here on the connection is bytes.
    pub(crate) fn is_over(&self) -> bool {
        self.tap.is_tunnel()
    }

    /// What netra itself took of its heads.
    pub(crate) fn overhead_ns(&self) -> Nanos {
        self.overhead_ns
    }

    /// Bytes that may pass from here without being shown.
    pub(crate) fn passable(&self, from: Side) -> u64 {
        self.tap.passable(way_of(from))
    }

    /// So many have.
    pub(crate) fn passed<I: Io>(&mut self, core: &mut Core<I>, from: Side, count: u64) {
        if !self.is_over() {
            self.tap.passed(way_of(from), count);
            self.tap(core, from, Source::Nothing);
        }
    }

    /// The protocol.
    pub(crate) fn protocol(&self) -> Protocol {
        self.of.named.protocol
    }

    /// Reads along with bytes that have been sent. Returns whether a body has begun of which so
    /// much is left that splicing pays.
    pub(crate) fn tap<I: Io>(&mut self, core: &mut Core<I>, from: Side, source: Source) -> bool {
        self.tap_some(core, from, source, usize::MAX)
    }

    /// As [`tap`](Self::tap), of no more than the first `len` bytes.
    #[inline(never)]
    pub(crate) fn tap_some<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Side,
        source: Source,
        len: usize,
    ) -> bool {
        if self.is_over() {
            return false;
        }
        let Core { io, pool, scratch, observer, recorder, taps, now, limits, .. } = core;
        let bytes = source.bytes(pool, scratch);
        let mut rest = &bytes[..bytes.len().min(len)];
        let way = way_of(from);
        let sent_at = io.now();
        let took = sent_at.saturating_sub(*now);
        // A request begins when it has come, and an answer is whole when it has been sent.
        let at = if way == Way::Request { *now } else { sent_at };
        let of = &self.of;
        let is_within = self.tap.passable(way) > 0;
        let (mut has_begun, mut head) = (false, Head::default());
        while !rest.is_empty() || self.tap.has_ended(way) {
            match self.tap.step(way, rest, &taps.limits, at, &mut head) {
                Step::Need => break,
                Step::Body(count) => {
                    rest = &rest[count..];
                    // A part of an answer may be long before the answer is told.
                    has_begun |= !is_within;
                }
                Step::Late(consumed) | Step::Aside { consumed, .. } => rest = &rest[consumed..],
                Step::Opened { consumed, message, exchange } => {
                    rest = &rest[consumed..];
                    has_begun = true;
                    self.overhead_ns += took;
                    let began_ns = exchange.opened_ns;
                    exchange.data = of.begin(&message, (began_ns, *now), observer, recorder, None);
                    exchange.data.overhead_ns = u32::try_from(took).unwrap_or(u32::MAX);
                }
                Step::Answered { consumed, message, exchange } => {
                    rest = &rest[consumed..];
                    self.transaction = transaction_behind(&message);
                    has_begun = true;
                    self.overhead_ns += took;
                    exchange.data.add_overhead(took);
                }
                Step::Finished { consumed, message, mut exchange, error } => {
                    rest = &rest[consumed..];
                    let mut transaction = self.transaction.take();
                    if let Some(message) = message {
                        self.overhead_ns += took;
                        exchange.data.add_overhead(took);
                        transaction = transaction_behind(&message);
                    }
                    waits_no_more(&mut self.patience, exchange.data.timed);
                    let calls = Calls { session: &mut self.session, transaction };
                    let how = (Outcome::Whole, sent_at);
                    of.finish_in(&exchange, error, how, Some(calls), (observer, recorder));
                }
                Step::Tunnel(reason) => {
                    self.give_up(reason, recorder);
                    break;
                }
            }
        }
        self.count_held(taps, recorder);
        let passable = self.tap.passable(way);
        has_begun && is_long(passable, limits.splice_from_bytes)
    }

    /// One side has ended its stream.
    pub(crate) fn end_way<I: Io>(&mut self, core: &mut Core<I>, from: Side) {
        let Core { observer, recorder, now, .. } = core;
        // What waits for an answer will get none from a server that has ended.
        if from == Side::Upstream {
            self.finish_open(Outcome::UpstreamGone, *now, observer, recorder);
            observer.conclude_all(&mut self.session, recorder);
        }
    }

    /// The connection has ended, or is no longer read: exchanges that are open will not be
    /// finished.
    pub(crate) fn end<I: Io>(mut self, core: &mut Core<I>, outcome: Outcome) {
        let Core { observer, recorder, taps, now, .. } = core;
        self.finish_open(outcome, *now, observer, recorder);
        observer.conclude_all(&mut self.session, recorder);
        taps.held_bytes -= self.held_bytes as usize;
    }

    fn finish_open(
        &mut self,
        outcome: Outcome,
        now: Nanos,
        observer: &mut Observer,
        recorder: &Recorder,
    ) {
        let mut has_told = false;
        for (mut open, error) in self.tap.drain() {
            // What may be left without an answer is no failure.
            let is_sent = open.outcome == codec::Outcome::Sent;
            let outcome = if is_sent { Outcome::Whole } else { outcome };
            // A connection that ends is one failure of its server, however many wait.
            if !is_sent && open.data.is_seated && std::mem::replace(&mut has_told, true) {
                open.data.is_seated = false;
                self.of.seats.end(open.lane, Heard::Nothing, 0, now);
            }
            let calls = Calls { session: &mut self.session, transaction: None };
            let how = (outcome, now);
            self.of.finish_in(
                &open,
                error.as_bytes(),
                how,
                Some(calls),
                (&mut *observer, recorder),
            );
        }
    }

    /// What netra took of the newest of the open exchanges, of which so many have begun.
    pub(crate) fn add_overhead(&mut self, begun: usize, took: Nanos) {
        if begun > 0 {
            self.overhead_ns += took;
            self.tap.newest(begun).for_each(|open| open.data.add_overhead(took));
        }
    }

    pub(crate) fn give_up(&mut self, reason: Reason, recorder: &Recorder) {
        self.tap.give_up(reason);
        recorder.bump(Key::tunnel(reason as usize));
    }

    /// Counts what the last step has changed, and stops reading where too much is held.
    #[inline]
    pub(crate) fn count_held(&mut self, taps: &mut Taps, recorder: &Recorder) {
        let held = u32::try_from(self.tap.held()).unwrap_or(u32::MAX);
        if held == self.held_bytes {
            return;
        }
        taps.held_bytes = taps.held_bytes - self.held_bytes as usize + held as usize;
        let has_grown = held > self.held_bytes;
        self.held_bytes = held;
        if has_grown && !self.is_over() && taps.holds_too_much() {
            self.give_up(Reason::HeldTooMuch, recorder);
        }
    }
}

/// An exchange is over that may have been waited for.
#[inline]
pub(crate) fn waits_no_more(patience: &mut Option<Box<Patience>>, timed: u32) {
    if let (1.., Some(patience)) = (timed, patience) {
        patience.over(timed);
    }
}

impl Carried {
    pub(crate) fn add_overhead(&mut self, took: Nanos) {
        self.overhead_ns = self.overhead_ns.saturating_add(u32::try_from(took).unwrap_or(u32::MAX));
    }
}

/// Whose exchanges they are.
#[derive(Debug)]
pub(crate) struct Of {
    pub(crate) named: Named,
    pub(crate) direction: Direction,
    /// Who is named as the other end in spans.
    pub(crate) remote: Option<SocketAddr>,
    /// Nobody knows yet whether they are exchanges at all.
    pub(crate) is_trial: bool,
    /// The endpoints that rules send its requests to.
    pub(crate) seats: Seats,
}

/// What the calls of a connection have in common, when one is over.
#[derive(Debug)]
struct Calls<'s> {
    session: &'s mut Session,
    /// Whether a transaction is open behind its answer, where that says so.
    transaction: Option<bool>,
}

impl Of {
    /// Decides about an exchange that begins: its trace, and whether it is logged.
    #[inline]
    pub(crate) fn begin(
        &self,
        message: &Message<'_>,
        (began, now): (Nanos, Nanos),
        observer: &mut Observer,
        recorder: &Recorder,
        writing: Option<Writing<'_>>,
    ) -> Carried {
        let mut carried = Carried { is_logged: observer.logs_next(), ..Carried::default() };
        if message.kind() == Kind::Handshake && !carried.is_logged {
            // How a connection is set up says nothing about what the application does.
            return carried;
        }
        if observer.tracer.is_some() {
            self.trace(&mut carried, message, (began, now), (observer, recorder), writing);
        }
        if carried.is_logged && carried.span.is_none() {
            let opened = observer.open_untraced(self.direction, began, recorder);
            carried.span = opened.map(|(open, record)| {
                // It is in no trace, and is to be in none when it is over.
                record.join = (self.direction == Direction::Outbound).then_some(Join::None);
                self.describe(record, message);
                open
            });
        }
        carried
    }

    fn describe(&self, record: &mut SpanRecord, message: &Message<'_>) {
        record.remote = self.remote;
        record.protocol = Some(self.named.protocol.about());
        match message.name() {
            // As of most protocols.
            [name, b"", b""] => record.put(SpanText::Operation, name),
            parts => {
                let mut name = [0; VALUE_BYTES_MAX];
                record.put(SpanText::Operation, joined(parts, &mut name));
            }
        }
        let convention = self.named.protocol.about().convention;
        if matches!(convention, Convention::Messaging { .. }) {
            describe_messaging(record, message);
        }
        if matches!(convention, Convention::Db(_) | Convention::Sql(_))
            && let Some(database) = message.value(Wanted::Database)
        {
            record.put(SpanText::Namespace, database);
        }
    }

    /// The exchange is over: counts it and hands its record over.
    #[inline]
    pub(crate) fn finish(
        &self,
        done: &Exchange<Carried>,
        error: &[u8],
        how: (Outcome, Nanos),
        observer: &mut Observer,
        recorder: &Recorder,
    ) {
        self.finish_in(done, error, how, None, (observer, recorder));
    }

    /// The same, of a connection whose calls have something in common.
    #[inline]
    fn finish_in(
        &self,
        done: &Exchange<Carried>,
        error: &[u8],
        (outcome, now): (Outcome, Nanos),
        calls: Option<Calls<'_>>,
        (observer, recorder): (&mut Observer, &Recorder),
    ) {
        if let (Some(served), Some(joins)) = (done.data.served, &mut observer.joins) {
            let is_answered = matches!(outcome, Outcome::Whole | Outcome::UpstreamGone);
            joins.answered(served, is_answered, now);
        }
        let (row, direction) = (usize::from(self.named.row), self.direction.index());
        let now = done.ended_ns().unwrap_or(now);
        let duration_ns = now.saturating_sub(done.opened_ns);
        if done.data.is_seated {
            let heard = heard_of(done.outcome, outcome);
            self.seats.end(done.lane, heard, duration_ns, now);
        }
        let overhead_ns = Nanos::from(done.data.overhead_ns);
        let exchanges = recorder.exchanges();
        let is_refused =
            matches!(done.outcome, codec::Outcome::AppError | codec::Outcome::ProtocolError);
        let counted = match outcome {
            Outcome::Whole if is_refused => ERROR,
            Outcome::Whole => OK,
            _ => UNANSWERED,
        };
        exchanges.count(row, direction, done.operation.into(), counted);
        // How long a server was asked to wait says nothing about it.
        let is_timed = !matches!(done.kind, Kind::Blocking | Kind::Oneway)
            && done.outcome != codec::Outcome::Sent;
        if outcome == Outcome::Whole && is_timed {
            exchanges.record_ns(row, direction, ExchangeStage::Duration, duration_ns);
            exchanges.record_ns(row, direction, ExchangeStage::Overhead, overhead_ns);
        }
        let Some(open) = done.data.span else { return };
        let record = observer.record_mut(open);
        (record.duration_ns, record.overhead_ns) = (duration_ns, overhead_ns);
        (record.outcome, record.is_refused) = (outcome, is_refused);
        record.status = u16::try_from(done.status).unwrap_or(0);
        record.request_bytes = Some(done.request_bytes);
        record.response_bytes = Some(done.response_bytes);
        if !error.is_empty() {
            record.put(SpanText::Error, error);
        }
        let call = HeldCall { open, is_logged: done.data.is_logged };
        if self.direction == Direction::Inbound {
            return observer.close(open, call.is_logged, recorder);
        }
        let (session, said) = calls.map(|it| (it.session, it.transaction)).unzip();
        let transaction = said.flatten().or_else(|| self.transaction_of(done));
        let concluded = Concluded { call, transaction, to: self.remote, now };
        observer.conclude(concluded, session, recorder);
    }

    /// Whether a transaction is open behind an exchange that is one of its borders itself.
    fn transaction_of(&self, done: &Exchange<Carried>) -> Option<bool> {
        let about = self.named.protocol.about();
        match *about.operations.get(usize::from(done.operation))? {
            _ if about.convention != Convention::Db("redis") => None,
            "MULTI" => Some(done.outcome == codec::Outcome::Ok),
            "EXEC" | "DISCARD" | "RESET" => Some(false),
            _ => None,
        }
    }
}

/// Whether a transaction is open behind an answer, where it says so.
fn transaction_behind(message: &Message<'_>) -> Option<bool> {
    message.value(Wanted::Transaction).map(|state| state != b"idle")
}

/// What a request says about messages.
fn describe_messaging(record: &mut SpanRecord, message: &Message<'_>) {
    for (key, what) in
        [(Wanted::TopicCount, SpanText::TopicCount), (Wanted::MessageCount, SpanText::MessageCount)]
    {
        if let Some(number) = message.number(key) {
            record.put(what, &number.to_be_bytes());
        }
    }
    for (key, what) in
        [(Wanted::ConsumerGroup, SpanText::ConsumerGroup), (Wanted::ClientId, SpanText::ClientId)]
    {
        if let Some(value) = message.value(key) {
            record.put(what, value);
        }
    }
}

/// Indexes in [`netra_perf::labels::EXCHANGE_OUTCOMES`].
const OK: usize = 0;
const ERROR: usize = 1;
const UNANSWERED: usize = 2;

pub(crate) fn way_of(from: Side) -> Way {
    match from {
        Side::Downstream => Way::Request,
        Side::Upstream => Way::Response,
    }
}

/// The parts of a name, one behind the other, as far as there is room.
fn joined<'n>(parts: [&[u8]; 3], room: &'n mut [u8; VALUE_BYTES_MAX]) -> &'n [u8] {
    let mut len = 0;
    for part in parts {
        let count = part.len().min(room.len() - len);
        room[len..len + count].copy_from_slice(&part[..count]);
        len += count;
    }
    &room[..len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_perf::labels;

    #[test]
    fn labels_meet_what_they_are_named_for() {
        assert!(Reason::ALL.iter().map(|reason| reason.name()).eq(labels::TUNNEL_REASONS));
        let protocols = Protocol::ALL.iter().map(|protocol| protocol.about().name);
        assert!(
            ["opaque", "http1"]
                .into_iter()
                .chain(protocols)
                .chain(["private"])
                .eq(labels::PROTOCOLS)
        );
        assert_eq!(labels::EXCHANGE_OUTCOMES[OK], "ok");
        assert_eq!(labels::EXCHANGE_OUTCOMES[ERROR], "error");
        assert_eq!(labels::EXCHANGE_OUTCOMES[UNANSWERED], "unanswered");
    }

    #[test]
    fn an_idle_tapped_connection_costs_little() {
        assert!(size_of::<Tapped>() <= 560, "{}", size_of::<Tapped>());
    }

    #[test]
    fn names_are_joined_as_far_as_there_is_room() {
        let mut room = [0; VALUE_BYTES_MAX];
        assert_eq!(
            joined([b"org.demo.Greeter", b"/", b"hello"], &mut room),
            b"org.demo.Greeter/hello"
        );
        assert_eq!(joined([&[b'a'; 200], b"/", &[b'b'; 200]], &mut room).len(), VALUE_BYTES_MAX);
    }
}
