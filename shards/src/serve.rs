//! A connection's way from accept to record: accept, original destination, guard, direction, dial,
//! two flows, end.

use crate::{
    along::{Along, Watched},
    buffers::BufferId,
    classify::{Classified, Refused, classify},
    connection::{Connection, Phase},
    dial,
    error::{Direction, End},
    exchange::Asker,
    gate::Gate,
    http::{Http, outcome_of},
    io::{Close, Dialled, Event, Hop, Io, Side, Token, When},
    patience::Patience,
    shard::Shard,
    sys::{Fd, Nanos},
    tap::Tapped,
    timers::Timer,
};
use netra_perf::{Gauge, Key};
use std::net::SocketAddr;

impl<I: Io> Shard<I> {
    /// Accept, original destination, guard, direction, dial, two flows.
    pub(crate) fn serve(&mut self, fd: Fd) {
        let classified = match classify(&mut self.core, fd) {
            Ok(classified) => classified,
            Err(refused) => return self.refuse(fd, &refused),
        };
        let Classified { original_dst, direction, .. } = classified;
        let protocol = self.core.protocol_index(original_dst);
        self.core.recorder.bump(Key::opened(direction.index(), protocol));
        if direction == Direction::Outbound {
            self.core.io.local_hop(fd);
        }
        if direction == Direction::Outbound && protocol != 0 && self.core.defers(original_dst) {
            return self.defer(fd, &classified);
        }
        let (early, dialled) = match self.hear_and_dial(fd, classified) {
            Ok(begun) => begun,
            Err((end, early)) => return self.turn_away(fd, &classified, early, end),
        };
        let downstream = self.occupy(original_dst, direction);
        self.core.note_dial(downstream.slot, dialled.fd, original_dst);
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
            self.relay(downstream, self.core.now);
        } else {
            self.await_dial(downstream);
        }
    }

    /// An accepted connection ends before it has a slot: it is counted and reset.
    pub(crate) fn turn_away(
        &mut self,
        fd: Fd,
        classified: &Classified,
        early: Option<BufferId>,
        end: End,
    ) {
        self.core.recorder.bump(Key::closed(classified.direction.index(), end.index()));
        self.tell_of_undialled(fd, classified, early, end);
        self.reject(fd);
    }

    /// Counts why an accepted connection is not relayed, and resets it.
    fn refuse(&mut self, fd: Fd, refused: &Refused) {
        let reason = refused.key;
        self.core.recorder.bump(reason);
        self.tell_of_refused(refused);
        if reason == Key::NO_ORIGINAL_DST {
            // Nobody redirected it, so it was meant for netra itself.
            self.core.recorder.bump(Key::LOOP_REJECTED);
        }
        if reason == Key::OWN_DIAL_REJECTED {
            self.core.own_dials.alert(self.core.now);
        }
        self.reject(fd);
    }

    /// Takes what the client has sent by now, and begins to dial. Where that fails, the bytes are
    /// handed back, too.
    fn hear_and_dial(
        &mut self,
        fd: Fd,
        classified: Classified,
    ) -> Result<(Option<BufferId>, Dialled), (End, Option<BufferId>)> {
        let Classified { original_dst: to, direction, caller } = classified;
        let is_outbound = direction == Direction::Outbound;
        let is_local = !is_outbound || to.ip().is_loopback();
        let early = self.core.early(fd, is_local).map_err(|end| (end, None))?;
        let source = if is_outbound { self.core.sources.kept(caller, to) } else { None };
        let hop = Hop { is_local, has_bytes: early.is_some(), source };
        let dialled = self.core.dial(to, hop);
        dialled.map(|it| (early, it)).map_err(|e| (dial::failed(&self.core, &e), early))
    }

    /// Takes a slot for a connection and returns its downstream token.
    pub(crate) fn occupy(&mut self, original_dst: SocketAddr, direction: Direction) -> Token {
        let slot = self.free_slot();
        let connection = &mut self.slab[slot as usize];
        let generation = connection.generation.wrapping_add(1);
        *connection = Connection::begun(generation, original_dst, direction, self.core.now);
        self.active += 1;
        self.core.recorder.set(Gauge::ConnectionsActive, self.active.into());
        Token { slot, generation, side: Side::Downstream }
    }

    /// A slot that nobody has.
    pub(crate) fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slab.push(Connection::vacant());
            u32::try_from(self.slab.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// Begins to relay both ways: the upstream has answered, which has been dialled since then.
    pub(crate) fn relay(&mut self, downstream: Token, began: Nanos) {
        let slot = downstream.slot as usize;
        self.slab[slot].phase = Phase::Relaying;
        dial::record(&self.core, began);
        self.slab[slot].http = self.http_of(downstream);
        self.slab[slot].tap = self.tap_of(downstream);
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
                self.core.io.acknowledge_at_once(downstream.other());
            }
            None => self.renew_deadline(downstream.slot),
        }
    }

    /// The HTTP state of a connection that begins, on an HTTP port.
    pub(crate) fn http_of(&self, downstream: Token) -> Option<Box<Http>> {
        let connection = &self.slab[downstream.slot as usize];
        let is_http = self.core.is_http(connection.original_dst);
        is_http.then(|| {
            let asker = self.core.gates.rules.is_some().then(|| self.asker_of(downstream));
            let mut http = Http::new(connection.direction, self.remote_of(downstream), asker);
            http.look_again(self.core.gates.rules.as_deref(), 0);
            Box::new(http)
        })
    }

    /// The tap of a connection that begins, on a port of another protocol that is read; or its
    /// watch, where ports are watched.
    pub(crate) fn tap_of(&self, downstream: Token) -> Option<Along> {
        let connection = &self.slab[downstream.slot as usize];
        let (to, direction) = (connection.original_dst, connection.direction);
        let along = if let Some(named) = self.core.tapped(to) {
            let tapped = Box::new(Tapped::new(named, direction, self.remote_of(downstream)));
            match Gate::new(tapped, self.asker_of(downstream), &self.core.gates) {
                Ok(gate) => Along::Gated(Box::new(gate)),
                Err(tapped) => Along::Tapped(tapped),
            }
        } else if self.core.watches(to) {
            let remote = self.remote_of(downstream);
            Along::Watched(Box::new(Watched::new(to.port(), direction, remote)))
        } else {
            return None;
        };
        Some(along)
    }

    /// Whose messages they are.
    pub(crate) fn asker_of(&self, downstream: Token) -> Asker {
        let connection = &self.slab[downstream.slot as usize];
        Asker {
            direction: connection.direction,
            original_dst: connection.original_dst,
            source: self.core.io.peer_addr(downstream).ok().map(|peer| peer.ip()),
            connection: u64::from(downstream.generation) << 32 | u64::from(downstream.slot),
        }
    }

    /// Who is named as the other end in spans.
    fn remote_of(&self, downstream: Token) -> Option<SocketAddr> {
        let connection = &self.slab[downstream.slot as usize];
        match connection.direction {
            Direction::Inbound => self.core.io.peer_addr(downstream).ok(),
            Direction::Outbound => Some(connection.original_dst),
        }
    }

    /// Sets or puts back the deadline of a connection that has moved bytes or changed its state.
    #[inline]
    pub(crate) fn renew_deadline(&mut self, slot: u32) {
        let connection = &self.slab[slot as usize];
        let is_dialling =
            matches!(connection.link.timer(), Some(Timer::Dial | Timer::Address | Timer::Drain));
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
        if self.slab[token.slot as usize].is_leg() {
            return self.end_of_leg(token, end);
        }
        let connection = &self.slab[token.slot as usize];
        if matches!(connection.phase, Phase::Free | Phase::Closing(_)) {
            return;
        }
        let is_upstreams =
            matches!(end, End::Reset(Side::Upstream) | End::Failed(Side::Upstream, _));
        if is_upstreams && self.goes_on(token) {
            return;
        }
        self.tell_of_end(token, end);
        let downstream = Token { side: Side::Downstream, ..token };
        self.end_copies(downstream);
        let connection = &mut self.slab[token.slot as usize];
        connection.owes_no_more(&mut self.core);
        connection.request.release(&mut self.core, downstream.other());
        connection.response.release(&mut self.core, downstream);
        let how = match end {
            End::Eof | End::Drained | End::HalfCloseLinger | End::IdleTimeout | End::Refused => {
                Close::Orderly
            }
            _ => Close::Reset,
        };
        self.end_legs(downstream, how);
        self.core.own_dials.forget(token.slot);
        let connection = &mut self.slab[token.slot as usize];
        let mut pending = 0;
        let (mut has_upstream, mut awaits_close) = (connection.phase != Phase::Hearing, false);
        if let Some(switch) = connection.switch() {
            (has_upstream, awaits_close) = (switch.has_upstream(), switch.awaits_close());
            switch.until.inspect(|until| self.delays.clear(token.slot, *until));
        }
        if let Some(at) = connection.patience().and_then(Patience::alarm) {
            self.answers.clear(token.slot, at);
        }
        for socket in [token, token.other()] {
            if socket.side == Side::Upstream && !has_upstream {
                pending += u8::from(awaits_close);
            } else {
                pending += u8::from(self.core.io.close(socket, how) == When::Later);
            }
        }
        if let Some(mut http) = connection.http.take() {
            http.end(&mut self.core, outcome_of(end));
            self.heads.clear(token.slot);
        }
        if let Some(tap) = connection.tap.take() {
            if tap.is_gated() {
                self.heads.clear(token.slot);
            }
            tap.end(&mut self.core, outcome_of(end));
        }
        connection.phase = Phase::Closing(pending);
        let key = Key::closed(connection.direction.index(), end.index());
        self.core.recorder.bump(key);
        self.core.finished += u64::from(matches!(end, End::Eof | End::Drained));
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

    pub(crate) fn vacate(&mut self, slot: u32) {
        self.timers.clear(&mut self.slab, slot);
        let connection = &mut self.slab[slot as usize];
        connection.phase = Phase::Free;
        self.free.push(slot);
        let (is_leg, is_mirror) = (connection.is_leg(), connection.is_mirror());
        connection.tap = None;
        if is_leg {
            self.leg_is_gone(is_mirror);
        } else {
            self.active -= 1;
            self.core.recorder.set(Gauge::ConnectionsActive, self.active.into());
        }
        self.release_descriptors();
    }
}
