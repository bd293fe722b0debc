//! What reads the bytes of a connection along that has no gate: a tap, where its port names the
//! protocol; where nothing names it, a watch that may find one out and becomes its tap then.

use crate::{
    access::Tunnel,
    buffers::BufferId,
    core::Core,
    error::{Direction, End},
    exchange::{Asker, Gates, Observer, Source, Taps},
    gate::Gate,
    http::Http,
    io::{Io, Side, Token},
    patience::Patience,
    sends::Gated,
    switch::{Switch, leg::Leg, mirror::Mirror, seats::Seats},
    sys::Nanos,
    tap::{Carried, Of, Tapped, way_of},
};
use netra_codecs::{
    codec::{Exchange, Open, Way},
    h2::PREFACE,
    tap::{Detector, Finding, Message, Protocol, Witness},
    trace::Outcome,
};
use netra_perf::{Key, Recorder};
use std::net::SocketAddr;

/// A connection's reader.
#[derive(Debug)]
pub(crate) enum Along {
    /// Its protocol is known.
    Tapped(Box<Tapped>),
    /// Nobody knows it yet.
    Watched(Box<Watched>),
    /// It is known, and somebody decides about its messages, or writes into them.
    Gated(Box<Gate>),
    /// The slot is a leg of another connection, whose gate reads it.
    Leg(Box<Leg>),
    /// The slot is a mirror of one, whose answers nobody reads.
    Mirror(Box<Mirror>),
}

impl Along {
    /// What the bytes are read as.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Tapped(tapped) => tapped.name(),
            Self::Gated(gate) => gate.tapped().name(),
            Self::Watched(_) => "opaque",
            Self::Leg(leg) => leg.protocol,
            Self::Mirror(mirror) => mirror.protocol,
        }
    }

    /// The leg that the slot is, if it is one.
    pub(crate) fn leg(&mut self) -> Option<&mut Leg> {
        match self {
            Self::Leg(leg) => Some(leg),
            Self::Tapped(_) | Self::Watched(_) | Self::Gated(_) | Self::Mirror(_) => None,
        }
    }

    /// The mirror that the slot is, if it is one.
    pub(crate) fn mirror(&mut self) -> Option<&mut Mirror> {
        match self {
            Self::Mirror(mirror) => Some(mirror),
            Self::Tapped(_) | Self::Watched(_) | Self::Gated(_) | Self::Leg(_) => None,
        }
    }

    /// The connection that it is a leg of, or a mirror.
    pub(crate) fn owner(&self) -> Option<Token> {
        match self {
            Self::Leg(leg) => Some(leg.owner),
            Self::Mirror(mirror) => mirror.owner,
            Self::Tapped(_) | Self::Watched(_) | Self::Gated(_) => None,
        }
    }

    /// It is a leg or a mirror, or has legs: what its sockets say may concern several slots.
    #[inline]
    pub(crate) fn has_legs(&self) -> bool {
        match self {
            Self::Tapped(_) | Self::Watched(_) => false,
            Self::Gated(gate) => gate.has_legs(),
            Self::Leg(_) | Self::Mirror(_) => true,
        }
    }

    /// Nothing was found that exchanges could be told of.
    pub(crate) fn is_opaque(&self) -> bool {
        matches!(self, Self::Watched(_))
    }

    /// What it was read as, and why it is no longer.
    pub(crate) fn tunnel(&self) -> Option<Tunnel> {
        let tapped = match self {
            Self::Tapped(tapped) => tapped,
            Self::Gated(gate) => gate.tapped(),
            Self::Watched(_) | Self::Leg(_) | Self::Mirror(_) => return None,
        };
        let reason = tapped.tap.reason()?;
        Some(Tunnel { protocol: tapped.name(), reason: reason.name() })
    }

    /// Nothing is left to do: from here on the connection is bytes.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Tapped(tapped) => tapped.is_over(),
            Self::Gated(gate) => gate.is_over(),
            Self::Watched(watched) => watched.is_over,
            Self::Leg(_) | Self::Mirror(_) => false,
        }
    }

    /// It is read on, and nothing has to be done behind its bytes: as of nearly all that is tapped.
    #[inline]
    pub(crate) fn wants_nothing(&self) -> bool {
        matches!(self, Self::Tapped(tapped) if !tapped.is_over() && tapped.patience.is_none())
    }

    /// Other rules are in force. Gets a gate if they want one, where nothing waits at its flows:
    /// false where something is under way that a gate could not take over, in the middle of a
    /// message.
    pub(crate) fn look_again(self, asker: Asker, gates: &Gates, is_idle: bool) -> (Self, bool) {
        match self {
            Self::Watched(_) | Self::Leg(_) | Self::Mirror(_) => (self, true),
            Self::Gated(mut gate) => {
                gate.look_again(gates);
                (Self::Gated(gate), true)
            }
            Self::Tapped(tapped) => {
                let is_between = Way::BOTH.iter().all(|way| !tapped.tap.is_within_message(*way));
                if !is_idle || !is_between {
                    let wants = gates.wants(tapped.protocol(), &asker);
                    return (Self::Tapped(tapped), !wants.writes && !wants.decides);
                }
                match Gate::new(tapped, asker, gates) {
                    Ok(gate) => (Self::Gated(Box::new(gate)), true),
                    Err(tapped) => (Self::Tapped(tapped), true),
                }
            }
        }
    }

    /// Its messages are copied, or have been.
    #[inline]
    pub(crate) fn has_copies(&self) -> bool {
        matches!(self, Self::Gated(gate) if gate.has_copies())
    }

    /// Its flows have gates.
    pub(crate) fn is_gated(&self) -> bool {
        matches!(self, Self::Gated(_))
    }

    /// Its gate, if it has one.
    pub(crate) fn gate(&mut self) -> Option<&mut Gate> {
        match self {
            Self::Gated(gate) => Some(gate),
            Self::Tapped(_) | Self::Watched(_) | Self::Leg(_) | Self::Mirror(_) => None,
        }
    }

    /// Where the change of its upstream stands; none where it cannot change.
    pub(crate) fn switch(&self) -> Option<&Switch> {
        match self {
            Self::Gated(gate) => Some(gate.switch()),
            Self::Leg(leg) => Some(&leg.switch),
            Self::Mirror(mirror) => Some(&mirror.switch),
            Self::Tapped(_) | Self::Watched(_) => None,
        }
    }

    /// Goes on without a gate where there is no use for it any more; nothing waits at its flows.
    pub(crate) fn drop_gate(self) -> Self {
        match self {
            Self::Gated(gate) if gate.may_be_tap() => Self::Tapped(Box::new(gate.into_tapped())),
            along => along,
        }
    }

    /// Its answers that may not take for ever.
    pub(crate) fn patience(&self) -> Option<&Patience> {
        match self {
            Self::Tapped(tapped) => tapped.patience.as_deref(),
            Self::Gated(gate) => gate.tapped().patience.as_deref(),
            Self::Watched(_) | Self::Leg(_) | Self::Mirror(_) => None,
        }
    }

    pub(crate) fn patience_mut(&mut self) -> Option<&mut Patience> {
        match self {
            Self::Tapped(tapped) => tapped.patience.as_deref_mut(),
            Self::Gated(gate) => gate.patience_mut(),
            Self::Watched(_) | Self::Leg(_) | Self::Mirror(_) => None,
        }
    }

    /// Nothing of the flow from this side may be sent now.
    pub(crate) fn is_paused(&mut self, from: Token) -> bool {
        self.gate().is_some_and(|gate| gate.is_paused(from))
    }

    /// Nothing at all may be sent by this flow now, see [`Gate::is_stopped`].
    pub(crate) fn is_stopped(&mut self, from: Token) -> bool {
        self.gate().is_some_and(|gate| gate.is_stopped(from))
    }

    /// What the bytes of this flow are sent to.
    pub(crate) fn receiver(&self, from: Token) -> Token {
        match self {
            Self::Gated(gate) => gate.receiver(from),
            Self::Tapped(_) | Self::Watched(_) | Self::Leg(_) | Self::Mirror(_) => from.other(),
        }
    }

    /// Takes a step of the gate, see [`Gate::next`].
    pub(crate) fn next<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        source: Option<Source>,
    ) -> Result<Option<Gated>, End> {
        match self {
            Self::Gated(gate) => gate.next(core, from, source),
            Self::Tapped(_) | Self::Watched(_) | Self::Leg(_) | Self::Mirror(_) => Ok(None),
        }
    }

    /// What netra itself took of its heads.
    pub(crate) fn overhead_ns(&self) -> Nanos {
        match self {
            Self::Tapped(tapped) => tapped.overhead_ns(),
            Self::Gated(gate) => gate.tapped().overhead_ns(),
            Self::Watched(watched) => watched.overhead_ns,
            Self::Leg(_) | Self::Mirror(_) => 0,
        }
    }

    /// Bytes that may pass from here without being shown.
    pub(crate) fn passable(&self, from: Token) -> u64 {
        match self {
            Self::Tapped(tapped) => tapped.passable(from.side),
            Self::Gated(gate) => gate.passable(from),
            Self::Watched(watched) if watched.is_over => u64::MAX,
            Self::Watched(watched) => watched.detector.passable(way_of(from.side)),
            Self::Leg(_) | Self::Mirror(_) => 0,
        }
    }

    /// So many have.
    pub(crate) fn passed<I: Io>(&mut self, core: &mut Core<I>, from: Side, count: u64) {
        match self {
            Self::Tapped(tapped) => tapped.passed(core, from, count),
            Self::Gated(gate) => gate.passed(core, from, count),
            Self::Watched(watched) => {
                watched.detector.passed(way_of(from), count);
                self.tap(core, from, Source::Nothing);
            }
            Self::Leg(_) | Self::Mirror(_) => {}
        }
    }

    /// Reads along with bytes that have been sent. Returns whether a body has begun of which so
    /// much is left that splicing pays.
    pub(crate) fn tap<I: Io>(&mut self, core: &mut Core<I>, from: Side, source: Source) -> bool {
        match self {
            Self::Tapped(tapped) => tapped.tap(core, from, source),
            Self::Gated(_) | Self::Leg(_) | Self::Mirror(_) => false,
            Self::Watched(watched) => {
                if let Some(tapped) = watched.look(core, from, source) {
                    *self = Self::Tapped(Box::new(tapped));
                }
                false
            }
        }
    }

    /// One side has ended its stream.
    pub(crate) fn end_way<I: Io>(&mut self, core: &mut Core<I>, from: Side) {
        match self {
            Self::Tapped(tapped) => tapped.end_way(core, from),
            Self::Gated(gate) => gate.end_way(core, from),
            Self::Watched(_) | Self::Leg(_) | Self::Mirror(_) => {}
        }
    }

    /// The connection has ended, or is no longer read.
    pub(crate) fn end<I: Io>(self, core: &mut Core<I>, outcome: Outcome) {
        match self {
            Self::Tapped(tapped) => tapped.end(core, outcome),
            Self::Gated(gate) => gate.end(core, outcome),
            Self::Watched(watched) => watched.end(core),
            Self::Leg(_) | Self::Mirror(_) => {}
        }
    }
}

/// A connection whose protocol is looked for.
#[derive(Debug)]
pub(crate) struct Watched {
    detector: Detector<Carried>,
    whose: Whose,
    /// Bytes of heads that are held, as counted in [`Taps::held_bytes`].
    held_bytes: usize,
    /// What a server has said before its client did, where that may be HTTP/2's settings; none once
    /// the client has spoken.
    said: Option<Vec<u8>>,
    /// What netra itself took of what may have been heads.
    overhead_ns: Nanos,
    is_over: bool,
}

/// So much of it is kept: settings and a window or two.
const SAID_MAX: usize = 256;

/// Whose exchanges they would be.
#[derive(Clone, Copy, Debug)]
struct Whose {
    port: u16,
    direction: Direction,
    remote: Option<SocketAddr>,
}

impl Watched {
    /// A connection that begins.
    pub(crate) fn new(port: u16, direction: Direction, remote: Option<SocketAddr>) -> Self {
        Self {
            detector: Detector::new(),
            whose: Whose { port, direction, remote },
            held_bytes: 0,
            said: Some(Vec::new()),
            overhead_ns: 0,
            is_over: false,
        }
    }

    /// What the connection is read as from here on, where the first bytes of its client begin HTTP/2,
    /// and all that the server has said before, which is so many bytes, is known.
    pub(crate) fn begins_http2<I: Io>(
        &mut self,
        core: &mut Core<I>,
        (first, said_bytes): (BufferId, u64),
    ) -> Option<Http> {
        let begins = core.pool.bytes(first).starts_with(PREFACE);
        let said = self.said.take_if(|said| begins && said.len() as u64 == said_bytes)?;
        let Whose { port, direction, remote } = self.whose;
        let http = Http::found_two(direction, remote, &said, core)?;
        core.taps.seen.note(port, true, core.now);
        self.drop_all(core);
        Some(http)
    }

    /// Keeps what may be a server's first frame of HTTP/2, whose first byte is that of a short length.
    fn keep_said(&mut self, way: Way, bytes: &[u8]) {
        let may_be = |said: &Vec<u8>| {
            let first = said.first().or(bytes.first());
            first.is_none_or(|first| *first == 0) && said.len() + bytes.len() <= SAID_MAX
        };
        match self.said.take_if(|said| way == Way::Response && may_be(said)) {
            Some(mut said) => {
                said.extend_from_slice(bytes);
                self.said = Some(said);
            }
            None => self.said = None,
        }
    }

    /// Reads along with bytes that have been sent. Returns the tap, if they say what it is.
    fn look<I: Io>(&mut self, core: &mut Core<I>, from: Side, source: Source) -> Option<Tapped> {
        if self.is_over {
            return None;
        }
        let Core { io, pool, scratch, observer, recorder, taps, now, .. } = core;
        let (way, sent_at) = (way_of(from), io.now());
        let at = if way == Way::Request { *now } else { sent_at };
        let took = sent_at.saturating_sub(*now);
        let Whose { port, direction, remote } = self.whose;
        let mut notes =
            Notes { whose: self.whose, now: *now, took, total: 0, taps, observer, recorder };
        let bytes = source.bytes(pool, scratch);
        if self.said.is_some() {
            self.keep_said(way, bytes);
        }
        let finding = self.detector.show(way, bytes, &taps.limits, at, &mut notes);
        self.overhead_ns += notes.total;
        let label = match finding {
            Finding::Watching => {
                self.count_held(core);
                return None;
            }
            // Its server has spoken first, and no tap knows it: the client's preface may follow.
            Finding::Unknown if self.said.as_ref().is_some_and(|said| !said.is_empty()) => {
                return None;
            }
            Finding::Unknown => 0,
            Finding::Http1 => 1,
            Finding::Protocol(protocol) => 2 + protocol.index(),
        };
        recorder.bump(Key::detected(label));
        taps.seen.note(port, label > 0, *now);
        taps.held_bytes -= std::mem::take(&mut self.held_bytes);
        self.is_over = true;
        let tap = self.detector.take_tap()?;
        let named = taps.named_as(tap.protocol())?;
        let of = Of { named, direction, remote, is_trial: false, seats: Seats::default() };
        if let (Direction::Inbound, 1.., Some(joins)) =
            (direction, tap.open_count(), &mut observer.joins)
        {
            joins.doubt(*now);
        }
        Some(Tapped::found(tap, of, self.overhead_ns, taps, recorder))
    }

    /// Counts what is held now, and stops where that is too much.
    fn count_held<I: Io>(&mut self, core: &mut Core<I>) {
        let held = self.detector.held();
        let has_grown = held > self.held_bytes;
        core.taps.held_bytes = core.taps.held_bytes - self.held_bytes + held;
        self.held_bytes = held;
        if has_grown && core.taps.holds_too_much() {
            self.drop_all(core);
            self.is_over = true;
        }
    }

    fn drop_all<I: Io>(&mut self, core: &mut Core<I>) {
        let Core { observer, recorder, taps, now, .. } = core;
        let notes =
            Notes { whose: self.whose, now: *now, took: 0, total: 0, taps, observer, recorder };
        self.detector.end(&mut { notes });
        core.taps.held_bytes -= std::mem::take(&mut self.held_bytes);
    }

    fn end<I: Io>(mut self, core: &mut Core<I>) {
        self.drop_all(core);
    }
}

/// Takes note of exchanges that may be some.
struct Notes<'c> {
    whose: Whose,
    now: Nanos,
    /// What netra took of the bytes that are shown.
    took: Nanos,
    /// The sum of it, for each head.
    total: Nanos,
    taps: &'c Taps,
    observer: &'c mut Observer,
    recorder: &'c Recorder,
}

impl Notes<'_> {
    fn of(&self, protocol: Protocol) -> Option<Of> {
        let Whose { direction, remote, .. } = self.whose;
        let named = self.taps.named_as(protocol)?;
        Some(Of { named, direction, remote, is_trial: true, seats: Seats::default() })
    }
}

impl Witness<Carried> for Notes<'_> {
    fn opened(&mut self, protocol: Protocol, message: &Message<'_>, exchange: &mut Open<Carried>) {
        if let Some(of) = self.of(protocol) {
            let began_ns = exchange.opened_ns;
            let times = (began_ns, self.now);
            exchange.data = of.begin(message, times, self.observer, self.recorder, None);
        }
        exchange.data.add_overhead(self.took);
        self.total += self.took;
    }

    fn answered(&mut self, data: &mut Carried) {
        data.add_overhead(self.took);
        self.total += self.took;
    }

    fn finished(&mut self, protocol: Protocol, done: Exchange<Carried>, error: &[u8], at: Nanos) {
        if let Some(of) = self.of(protocol) {
            of.finish(&done, error, (Outcome::Whole, at), self.observer, self.recorder);
        }
    }

    fn dropped(&mut self, data: Carried) {
        if let Some(open) = data.span {
            self.observer.forget(open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_read_along_costs_little() {
        assert!(size_of::<Option<Along>>() <= 16, "{}", size_of::<Along>());
        assert!(size_of::<Watched>() <= 256, "{}", size_of::<Watched>());
    }
}
