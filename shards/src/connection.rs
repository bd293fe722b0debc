//! A connection: its way from accept to record.

use crate::{
    access::{ConnectionRecord, unix_ns_before},
    buffers::BufferId,
    config::Limits,
    dial,
    error::{Direction, End},
    flow::{Counted, Flow},
    http::{Http, outcome_of},
    io::{Close, Dialled, Event, Hop, Io, Side, Token, When},
    shard::{Core, Shard},
    sys::{Fd, Nanos, monotonic_ns},
    timers::{Link, Linked, Timer},
};
use netra_perf::{Gauge, Key, Stage, labels::REASONS};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The slot is free.
    #[default]
    Free,
    /// The upstream has not answered yet.
    Dialling,
    /// Bytes are moving.
    Relaying,
    /// Ended; the kernel still holds operations on this many of its sockets.
    Closing(u8),
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
    link: Link,
    /// Downstream to upstream.
    request: Flow,
    /// Upstream to downstream.
    response: Flow,
    /// On an HTTP port, until the connection turns opaque.
    pub(crate) http: Option<Box<Http>>,
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
        }
    }

    /// When bytes last moved.
    pub(crate) fn last_moved(&self) -> Nanos {
        self.request.last_moved().max(self.response.last_moved())
    }

    /// Bytes wait for a slow receiver: that is not silence.
    pub(crate) fn holds_bytes(&self) -> bool {
        // What waits for another upstream waits for nobody who is slow to read.
        let waits = self.http.as_deref().is_some_and(Http::is_switching);
        (!waits && self.request.holds_bytes()) || self.response.holds_bytes()
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
        opaque + self.http.as_deref().map_or(0, Http::overhead_ns)
    }

    /// Downstream and upstream: whether bytes wait for it and it takes none.
    pub(crate) fn stalled(&self) -> [bool; 2] {
        [self.response.is_stalled(), self.request.is_stalled()]
    }

    /// Gives an event to the flow that it concerns and passes an end of stream on.
    #[inline]
    pub(crate) fn on_event<I: Io>(
        &mut self,
        core: &mut Core<I>,
        token: Token,
        event: Event,
    ) -> Result<(), End> {
        // What a socket can be written for is what the other one has sent.
        let from = if matches!(event, Event::Writable(_)) { token.other() } else { token };
        let counted = self.counted(from.side);
        let half = self.http.as_deref_mut();
        match from.side {
            Side::Downstream => self.request.on_event(core, from, counted, half, event)?,
            Side::Upstream => self.response.on_event(core, from, counted, half, event)?,
        }
        self.pass_end(core, from)
    }

    /// Goes on with a flow that had more to move than one turn allows.
    pub(crate) fn go_on<I: Io>(&mut self, core: &mut Core<I>, from: Token) -> Result<(), End> {
        let counted = self.counted(from.side);
        let half = self.http.as_deref_mut();
        match from.side {
            Side::Downstream => self.request.advance(core, from, counted, half)?,
            Side::Upstream => self.response.advance(core, from, counted, half)?,
        }
        self.pass_end(core, from)
    }

    fn counted(&self, from: Side) -> Counted {
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

    /// Nothing of the upstream waits to be sent, and its stream has not ended.
    pub(crate) fn response_is_quiet(&self) -> bool {
        self.response.is_quiet()
    }

    /// The upstream has ended its stream, and that has been passed on.
    pub(crate) fn response_is_finished(&self) -> bool {
        self.response.is_finished()
    }

    /// The upstream is being changed; its old socket is about to be closed.
    pub(crate) fn detach<I: Io>(&mut self, core: &mut Core<I>, downstream: Token) {
        self.response.detach(core, downstream);
    }

    /// The upstream has been changed.
    pub(crate) fn attach(&mut self) {
        self.response.attach();
    }

    /// There will be no upstream any more: these are the last bytes for the downstream, and what
    /// it has sent is thrown away.
    pub(crate) fn answer<I: Io>(&mut self, core: &mut Core<I>, downstream: Token, bytes: &[u8]) {
        self.request.discard(core);
        self.response.finish_with(core, downstream, bytes);
    }

    /// A finished flow shuts its receiver's side; two finished flows end the connection.
    fn pass_end<I: Io>(&mut self, core: &mut Core<I>, from: Token) -> Result<(), End> {
        if !self.flow(from.side).is_finished() {
            return Ok(());
        }
        if self.request.is_finished() && self.response.is_finished() {
            return Err(End::Eof);
        }
        let is_gone =
            from.side == Side::Downstream && self.http.as_deref().is_some_and(Http::gave_up);
        if !std::mem::replace(&mut self.half_closed, true) && !is_gone {
            let to = from.other();
            core.io.shutdown_write(to).map_err(|e| End::of_error(to.side, &e))?;
        }
        Ok(())
    }
}

pub(crate) fn nanos(duration: std::time::Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 2)
}

impl Linked for Connection {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn link_ref(&self) -> &Link {
        &self.link
    }
}

/// Offers an opaque connection that ends to the access log.
fn log_connection<I: Io>(core: &mut Core<I>, connection: &Connection, token: Token, end: End) {
    let Some(log) = &mut core.access else { return };
    if !log.takes_next() {
        return;
    }
    let age = core.now.saturating_sub(connection.accepted_at);
    let record = ConnectionRecord {
        direction: connection.direction,
        peer: core.io.peer_addr(Token { side: Side::Downstream, ..token }).ok(),
        original_dst: connection.original_dst,
        end: REASONS[end.index()],
        start_unix_ns: unix_ns_before(age),
        duration: Duration::from_nanos(age),
        bytes: connection.bytes(),
        overhead_ns: connection.overhead_ns(),
    };
    log.offer(&record, &core.recorder);
}

/// Whether an accepted connection is to be relayed, where to, and which way it goes.
fn classify<I: Io>(core: &mut Core<I>, fd: Fd) -> Result<(SocketAddr, Direction), Key> {
    let local = core.io.local_addr(fd).map_err(|_| Key::NO_ORIGINAL_DST)?;
    let original = core.io.original_dst(fd, local).map_err(|_| Key::NO_ORIGINAL_DST)?;
    // Dialled directly, or a destination that would lead back here by whatever address.
    if original.port() == core.port
        && (original.ip() == local.ip() || core.io.is_local(original.ip()))
    {
        return Err(Key::LOOP_REJECTED);
    }
    // REDIRECT gives what came from outside the address of the interface it came in by, and what
    // was sent from here the loopback address (nf_nat_redirect.c).
    let outside = !local.ip().is_loopback() || original.ip() == local.ip();
    let inbound = outside || core.is_local(original.ip());
    Ok((original, if inbound { Direction::Inbound } else { Direction::Outbound }))
}

impl<I: Io> Shard<I> {
    /// Accept, original destination, guard, direction, dial, two flows.
    pub(crate) fn serve(&mut self, fd: Fd) {
        let (original_dst, direction) = match classify(&mut self.core, fd) {
            Ok(classified) => classified,
            Err(reason) => {
                self.core.recorder.bump(reason);
                if reason == Key::NO_ORIGINAL_DST {
                    // Nobody redirected it, so it was meant for netra itself.
                    self.core.recorder.bump(Key::LOOP_REJECTED);
                }
                self.reject(fd);
                return;
            }
        };
        let is_http = self.core.is_http(original_dst.port());
        self.core.recorder.bump(Key::opened(direction.index(), is_http.into()));
        let is_local = direction == Direction::Inbound || original_dst.ip().is_loopback();
        if direction == Direction::Outbound {
            self.core.io.local_hop(fd);
        }
        let (early, dialled) = match self.hear_and_dial(fd, original_dst, is_local) {
            Ok(begun) => begun,
            Err(end) => {
                self.core.recorder.bump(Key::closed(direction.index(), end.index()));
                self.reject(fd);
                return;
            }
        };
        let downstream = self.occupy(original_dst, direction);
        if let Some(buffer) = early {
            self.slab[downstream.slot as usize].request.keep_early(&mut self.core.pool, buffer);
        }
        let opened = [(downstream, fd), (downstream.other(), dialled.fd)]
            .map(|(token, fd)| self.core.io.open(token, fd).is_ok());
        if opened != [true, true] {
            return self.end(downstream, End::Netra);
        }
        self.watch_silence_of(downstream.other());
        if dialled.connected {
            self.relay(downstream);
        } else {
            self.await_dial(downstream);
        }
    }

    /// Takes what the client has sent by now, and begins to dial.
    fn hear_and_dial(
        &mut self,
        fd: Fd,
        to: SocketAddr,
        is_local: bool,
    ) -> Result<(Option<BufferId>, Dialled), End> {
        let early = self.core.early(fd, is_local)?;
        let hop = Hop { is_local, has_bytes: early.is_some() };
        self.core.io.dial(to, hop).map(|dialled| (early, dialled)).map_err(|e| {
            early.inspect(|buffer| self.core.pool.give_back(*buffer));
            dial::failed(&self.core, &e)
        })
    }

    /// Takes a slot for a connection and returns its downstream token.
    fn occupy(&mut self, original_dst: SocketAddr, direction: Direction) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slab.push(Connection::vacant());
            u32::try_from(self.slab.len() - 1).unwrap_or(u32::MAX)
        });
        let connection = &mut self.slab[slot as usize];
        let generation = connection.generation.wrapping_add(1);
        *connection = Connection {
            generation,
            phase: Phase::Dialling,
            direction,
            original_dst,
            accepted_at: self.core.now,
            ..Connection::vacant()
        };
        self.active += 1;
        self.core.recorder.set(Gauge::ConnectionsActive, self.active.into());
        Token { slot, generation, side: Side::Downstream }
    }

    /// Begins to relay both ways: the upstream has answered.
    pub(crate) fn relay(&mut self, downstream: Token) {
        let slot = downstream.slot as usize;
        self.slab[slot].phase = Phase::Relaying;
        dial::record(&self.core, self.slab[slot].accepted_at);
        self.slab[slot].http = self.http_of(downstream);
        self.timers.clear(&mut self.slab, downstream.slot);
        let early = self.slab[slot].request.take_early(&self.core.pool);
        for from in [downstream, downstream.other()] {
            if let Err(end) = self.slab[slot].go_on(&mut self.core, from) {
                early.inspect(|buffer| self.core.pool.give_back(*buffer));
                return self.end(downstream, end);
            }
        }
        match early {
            Some(buffer) => {
                // The time of the dial is not netra's own.
                self.core.now = self.core.io.now();
                self.on_event(Event::Received(downstream, buffer));
            }
            None => self.renew_deadline(downstream.slot),
        }
    }

    /// The HTTP state of a connection that begins, on an HTTP port.
    fn http_of(&self, downstream: Token) -> Option<Box<Http>> {
        let connection = &self.slab[downstream.slot as usize];
        let (original_dst, direction) = (connection.original_dst, connection.direction);
        self.core.is_http(original_dst.port()).then(|| {
            let remote = match direction {
                Direction::Inbound => self.core.io.peer_addr(downstream).ok(),
                Direction::Outbound => Some(original_dst),
            };
            Box::new(Http::new(direction, remote))
        })
    }

    /// What an HTTP connection needs after its flows have moved.
    pub(crate) fn tend_http(&mut self, downstream: Token) {
        let connection = &mut self.slab[downstream.slot as usize];
        let Some(http) = connection.http.as_deref_mut() else { return };
        if http.is_switching() {
            return self.begin_switch(downstream);
        }
        if http.must_let_go()
            && let Err(end) = connection.go_on(&mut self.core, downstream)
        {
            return self.end(downstream, end);
        }
        let connection = &mut self.slab[downstream.slot as usize];
        if let Some(http) = connection.http.take_if(|http| http.is_over()) {
            http.into_opaque(&mut self.core);
        }
    }

    /// Sets or puts back the deadline of a connection that has moved bytes or changed its state.
    #[inline]
    pub(crate) fn renew_deadline(&mut self, slot: u32) {
        let connection = &self.slab[slot as usize];
        let is_dialling = connection.link.timer() == Some(Timer::Dial);
        // Tending it may have ended it, and a free slot must not be in a list of deadlines.
        if is_dialling || connection.phase != Phase::Relaying {
            return;
        }
        let Some((timer, silence)) = connection.silence_allowed(&self.core.limits) else { return };
        if connection.link.timer() != Some(timer) || connection.last_moved() == self.core.now {
            self.timers.set(&mut self.slab, slot, timer, self.core.now + silence);
        }
    }

    /// Ends a connection: closes both sockets, returns what it held and records it.
    pub(crate) fn end(&mut self, token: Token, end: End) {
        let connection = &mut self.slab[token.slot as usize];
        if matches!(connection.phase, Phase::Free | Phase::Closing(_)) {
            return;
        }
        if connection.http.is_none() {
            log_connection(&mut self.core, connection, token, end);
        }
        let downstream = Token { side: Side::Downstream, ..token };
        connection.request.release(&mut self.core, downstream.other());
        connection.response.release(&mut self.core, downstream);
        let how = match end {
            End::Eof | End::HalfCloseLinger | End::IdleTimeout => Close::Orderly,
            _ => Close::Reset,
        };
        let mut pending = 0;
        let http = connection.http.take();
        for socket in [token, token.other()] {
            let gone = socket.side == Side::Upstream
                && http.as_deref().is_some_and(|http| !http.has_upstream());
            if gone {
                pending += u8::from(http.as_deref().is_some_and(Http::awaits_close));
            } else {
                pending += u8::from(self.core.io.close(socket, how) == When::Later);
            }
        }
        if let Some(mut http) = http {
            http.end(&mut self.core, outcome_of(end));
        }
        connection.phase = Phase::Closing(pending);
        let key = Key::closed(connection.direction.index(), end.index());
        self.core.recorder.bump(key);
        self.core.finished += u64::from(end == End::Eof);
        if pending == 0 {
            self.vacate(token.slot);
        }
    }

    /// A socket of an ended connection has been closed.
    pub(crate) fn on_closed(&mut self, token: Token) {
        let connection = &mut self.slab[token.slot as usize];
        if connection.phase == Phase::Relaying {
            return self.on_upstream_closed(token.other());
        }
        if let Phase::Closing(pending) = connection.phase {
            connection.phase = Phase::Closing(pending - 1);
            if pending == 1 {
                self.vacate(token.slot);
            }
        }
    }

    fn vacate(&mut self, slot: u32) {
        self.timers.clear(&mut self.slab, slot);
        self.slab[slot as usize].phase = Phase::Free;
        self.free.push(slot);
        self.active -= 1;
        self.core.recorder.set(Gauge::ConnectionsActive, self.active.into());
        self.release_descriptors();
    }
}

/// Remembers for a moment which addresses are this host's, because asking costs three calls.
#[derive(Debug, Default)]
pub(crate) struct LocalAddresses {
    known: [Option<(IpAddr, bool, Nanos)>; 8],
    next: usize,
}

impl LocalAddresses {
    const KEPT_NS: Nanos = 5_000_000_000;

    pub(crate) fn is_local(&mut self, ip: IpAddr, ask: impl FnOnce() -> bool) -> bool {
        let now = monotonic_ns();
        let fresh = |at: Nanos| now.saturating_sub(at) < Self::KEPT_NS;
        for (known, local, at) in self.known.iter().flatten() {
            if *known == ip && fresh(*at) {
                return *local;
            }
        }
        let local = ask();
        self.known[self.next] = Some((ip, local, now));
        self.next = (self.next + 1) % self.known.len();
        local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_little() {
        assert!(size_of::<Connection>() <= 192, "{}", size_of::<Connection>());
    }

    #[test]
    fn addresses_are_asked_for_once() {
        let mut addresses = LocalAddresses::default();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(addresses.is_local(ip, || true));
        assert!(addresses.is_local(ip, || unreachable!("asked twice")));
    }
}
