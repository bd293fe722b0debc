//! A connection: one slot of the slab, and how events reach its two flows.

mod switching;

use crate::{
    access::Tunnel,
    along::Along,
    buffers::BufferId,
    config::Limits,
    core::Core,
    error::{Direction, End},
    flow::{Counted, Flow, Half},
    http::Http,
    io::{Event, Io, Side, Token},
    switch::Switch,
    sys::{Nanos, nanos},
    timers::{Link, Linked, Timer},
};
use netra_perf::{Key, Stage};
use std::net::SocketAddr;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The slot is free.
    #[default]
    Free,
    /// Nobody is dialled before the client has said something (`defer.rs`): there is no upstream.
    Hearing,
    /// The upstream has not answered yet.
    Dialling,
    /// Bytes are moving.
    Relaying,
    /// Ended; the kernel still holds operations on this many of its sockets.
    Closing(u8),
}

impl Phase {
    /// A connection is there, and has not ended.
    pub(crate) fn lives(self) -> bool {
        matches!(self, Self::Hearing | Self::Dialling | Self::Relaying)
    }
}

/// One slot of the slab.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) direction: Direction,
    pub(crate) original_dst: SocketAddr,
    pub(crate) accepted_at: Nanos,
    /// One side has ended and its end has been passed on.
    half_closed: bool,
    pub(crate) link: Link,
    /// Downstream to upstream.
    pub(crate) request: Flow,
    /// Upstream to downstream.
    pub(crate) response: Flow,
    /// On an HTTP port, until the connection turns opaque.
    pub(crate) http: Option<Box<Http>>,
    /// On a port of another protocol that is read, until the connection turns opaque.
    pub(crate) tap: Option<Along>,
    /// What it was before it turned opaque; none where it was never read.
    pub(crate) tunnel: Option<Box<Tunnel>>,
}

impl Connection {
    pub(crate) fn vacant() -> Self {
        Self {
            generation: 0,
            phase: Phase::Free,
            direction: Direction::Inbound,
            original_dst: SocketAddr::from(([0, 0, 0, 0], 0)),
            accepted_at: 0,
            half_closed: false,
            link: Link::default(),
            request: Flow::default(),
            response: Flow::default(),
            http: None,
            tap: None,
            tunnel: None,
        }
    }

    /// One that is dialling, in a slot that has been used so often.
    pub(crate) fn begun(
        generation: u32,
        original_dst: SocketAddr,
        direction: Direction,
        accepted_at: Nanos,
    ) -> Self {
        let phase = Phase::Dialling;
        Self { generation, phase, direction, original_dst, accepted_at, ..Self::vacant() }
    }

    /// What reads along, and the two flows.
    fn parts(&mut self) -> (Half<'_>, &mut Flow, &mut Flow) {
        let half = match (self.http.as_deref_mut(), self.tap.as_mut()) {
            (Some(http), _) => Half::Http(http),
            (None, Some(tap)) => Half::Tap(tap),
            (None, None) => Half::None,
        };
        (half, &mut self.request, &mut self.response)
    }

    /// Its bytes are read, and not only relayed.
    #[inline]
    pub(crate) fn is_read(&self) -> bool {
        self.http.is_some() || self.tap.is_some()
    }

    /// What its bytes are read as now.
    pub(crate) fn protocol(&self) -> &'static str {
        match (&self.http, &self.tap) {
            (Some(http), _) => http.name(),
            (None, Some(tap)) => tap.name(),
            (None, None) => "opaque",
        }
    }

    /// When bytes last moved.
    pub(crate) fn last_moved(&self) -> Nanos {
        self.request.last_moved().max(self.response.last_moved())
    }

    /// Bytes wait for a slow receiver: that is not silence.
    pub(crate) fn holds_bytes(&self) -> bool {
        let carries = self.http.as_deref().is_some_and(Http::carries_answers);
        self.holds_requests() || self.response.holds_bytes() || carries
    }

    /// Requests wait for an upstream that is slow to read.
    pub(crate) fn holds_requests(&self) -> bool {
        // What waits for another upstream waits for nobody who is slow to read.
        let waits = self.switch().is_some_and(Switch::is_under_way);
        !waits && self.request.holds_bytes()
    }

    /// Whether there is a limit to its silence: [`silence_allowed`](Self::silence_allowed) has it.
    #[inline]
    pub(crate) fn has_limit(&self, limits: &Limits) -> bool {
        self.half_closed || limits.idle_timeout.is_some()
    }

    /// The silence that a relayed connection is allowed, if there is a limit.
    pub(crate) fn silence_allowed(&self, limits: &Limits) -> Option<(Timer, Nanos)> {
        let idle = limits.idle_timeout.map(nanos);
        let linger = nanos(limits.half_close_linger);
        match idle {
            _ if self.half_closed && idle.is_none_or(|idle| linger <= idle) => {
                Some((Timer::HalfCloseLinger, linger))
            }
            Some(idle) => Some((Timer::Idle, idle)),
            None => None,
        }
    }

    /// Bytes of the request and of the response way.
    pub(crate) fn bytes(&self) -> [u64; 2] {
        [self.request.bytes(), self.response.bytes()]
    }

    /// What netra itself took of this connection's time.
    pub(crate) fn overhead_ns(&self) -> Nanos {
        let opaque = self.request.overhead_ns() + self.response.overhead_ns();
        opaque
            + self.http.as_deref().map_or(0, Http::overhead_ns)
            + self.tap.as_ref().map_or(0, Along::overhead_ns)
    }

    /// Downstream and upstream: whether bytes wait for it and it takes none.
    pub(crate) fn stalled(&self) -> [bool; 2] {
        [self.response.is_stalled(), self.request.is_stalled()]
    }

    /// Gives an event to the flow that it concerns and passes an end of stream on. Legs ask for this, too,
    /// and nobody else is to pay for that by a call.
    #[inline(always)]
    pub(crate) fn on_event<I: Io>(
        &mut self,
        core: &mut Core<I>,
        token: Token,
        event: Event,
    ) -> Result<(), End> {
        // What a socket can be written for is what the other one has sent.
        let from = if matches!(event, Event::Writable(_)) { token.other() } else { token };
        if let (Event::Received(_, buffer), Some(Along::Watched(_))) = (&event, &self.tap)
            && from.side == Side::Downstream
            && self.request.bytes() == 0
        {
            self.look_for_http2(core, *buffer);
        }
        let is_inbound = self.direction == Direction::Inbound && core.observer.joins.is_some();
        let has_bytes = matches!(event, Event::Received(..) | Event::Readable(_));
        if is_inbound && has_bytes {
            self.before_bytes(core, from.side);
        }
        let counted = self.counted(from.side);
        let (half, request, response) = self.parts();
        let moved = match from.side {
            Side::Downstream => request.on_event(core, from, counted, half, event),
            Side::Upstream => response.on_event(core, from, counted, half, event),
        };
        if is_inbound && has_bytes {
            self.after_bytes(core, from.side);
        }
        moved?;
        self.pass_end(core, from)
    }

    /// The client's first bytes are about to be passed on: of HTTP/2, through its gate.
    #[cold]
    fn look_for_http2<I: Io>(&mut self, core: &mut Core<I>, first: BufferId) {
        let said = self.response.bytes();
        let Some(Along::Watched(watched)) = &mut self.tap else { return };
        if let Some(http) = watched.begins_http2(core, (first, said)) {
            (self.http, self.tap) = (Some(Box::new(http)), None);
        }
    }

    /// Bytes of an inbound connection are about to be passed on. Of what is not read, or is read
    /// only when it has been passed on, whoever joins calls to requests has to know before.
    #[inline(never)]
    fn before_bytes<I: Io>(&mut self, core: &mut Core<I>, from: Side) {
        let now = core.now;
        let Some(joins) = &mut core.observer.joins else { return };
        if self.http.is_some() {
            return;
        }
        let is_tapped = self.tap.as_ref().is_some_and(|tap| !tap.is_opaque());
        let is_request = from == Side::Downstream;
        if is_tapped && is_request {
            joins.pass(true);
        } else if !is_tapped && self.request.owes != is_request {
            self.request.owes = is_request;
            joins.owe(is_request, false, now);
        }
    }

    /// They have been.
    fn after_bytes<I: Io>(&self, core: &mut Core<I>, from: Side) {
        if from == Side::Downstream
            && self.tap.is_some()
            && let Some(joins) = &mut core.observer.joins
        {
            joins.pass(false);
        }
    }

    /// It is no longer read, and `before` requests of the shard were being served until then: those
    /// of this connection still are.
    pub(crate) fn owes_since<I: Io>(&mut self, core: &mut Core<I>, before: u32) {
        let now = core.now;
        let Some(joins) = core.observer.joins.as_mut() else { return };
        let owes = joins.open_count() < before;
        if self.direction == Direction::Inbound
            && owes
            && !std::mem::replace(&mut self.request.owes, true)
        {
            joins.owe(true, false, now);
        }
    }

    /// It has ended.
    pub(crate) fn owes_no_more<I: Io>(&mut self, core: &mut Core<I>) {
        let now = core.now;
        if std::mem::take(&mut self.request.owes)
            && let Some(joins) = &mut core.observer.joins
        {
            joins.owe(false, true, now);
        }
    }

    /// Goes on with a flow that had more to move than one turn allows.
    pub(crate) fn go_on<I: Io>(&mut self, core: &mut Core<I>, from: Token) -> Result<(), End> {
        let is_inbound = self.direction == Direction::Inbound && core.observer.joins.is_some();
        let is_tapped = is_inbound && self.tap.as_ref().is_some_and(|tap| !tap.is_opaque());
        if is_tapped {
            self.before_bytes(core, from.side);
        }
        let counted = self.counted(from.side);
        let (half, request, response) = self.parts();
        let moved = match from.side {
            Side::Downstream => request.advance(core, from, counted, half),
            Side::Upstream => response.advance(core, from, counted, half),
        };
        if is_tapped {
            self.after_bytes(core, from.side);
        }
        moved?;
        self.pass_end(core, from)
    }

    pub(crate) fn counted(&self, from: Side) -> Counted {
        let way = usize::from(from == Side::Upstream);
        let overhead = match self.direction {
            Direction::Inbound => Stage::OverheadInbound,
            Direction::Outbound => Stage::OverheadOutbound,
        };
        Counted { bytes: Key::bytes(self.direction.index(), way), overhead }
    }

    fn flow(&mut self, from: Side) -> &mut Flow {
        match from {
            Side::Downstream => &mut self.request,
            Side::Upstream => &mut self.response,
        }
    }

    /// It is read as HTTP, and nothing is under way: it may be closed, and no exchange is lost.
    pub(crate) fn is_between_exchanges(&self) -> bool {
        let is_between = self.http.as_deref().is_some_and(Http::is_between);
        is_between && !self.half_closed && self.request.is_quiet() && self.response.is_quiet()
    }

    /// It is one of HTTP/2 whose client could be told now that there will be no further streams.
    pub(crate) fn may_say_goodbye(&self) -> bool {
        let may = self.http.as_deref().is_some_and(Http::may_say_goodbye);
        may && !self.half_closed && self.response.is_quiet()
    }

    /// Nothing of the upstream waits to be sent, and its stream has not ended.
    pub(crate) fn response_is_quiet(&self) -> bool {
        self.response.is_quiet()
    }

    /// The upstream has ended its stream, and that has been passed on.
    pub(crate) fn response_is_finished(&self) -> bool {
        self.response.is_finished()
    }

    /// Its client has ended, and its legs have been told.
    pub(crate) fn half_close(&mut self) {
        self.half_closed = true;
    }

    /// A finished flow shuts its receiver's side; two finished flows end the connection.
    fn pass_end<I: Io>(&mut self, core: &mut Core<I>, from: Token) -> Result<(), End> {
        if !self.flow(from.side).is_finished() {
            return Ok(());
        }
        if self.has_legs() {
            // Whose end it is, and whether it is one, is for the shard to see.
            return Ok(());
        }
        let is_parted = self.switch().is_some_and(|it| it.is_parted);
        if self.request.is_finished() && (self.response.is_finished() || is_parted) {
            if is_parted && self.has_untold() {
                self.half_closed = true;
                return Ok(());
            }
            return Err(End::Eof);
        }
        let is_gone = from.side == Side::Downstream && self.switch().is_some_and(Switch::gave_up);
        if !std::mem::replace(&mut self.half_closed, true) && !is_gone {
            let to = from.other();
            core.io.shutdown_write(to).map_err(|e| End::of_error(to.side, &e))?;
        }
        Ok(())
    }
}

impl Linked for Connection {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn link_ref(&self) -> &Link {
        &self.link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_little() {
        assert!(size_of::<Connection>() <= 216, "{}", size_of::<Connection>());
    }
}
