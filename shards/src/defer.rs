//! The dial, deferred: where rules route, a connection begins without an upstream. The first request says
//! where to dial, so that nobody has to be at the original destination (a ServiceEntry's virtual address
//! has nobody), and a routed connection is dialled once.
//!
//! ```text
//! accept -> Hearing -> a byte -----> read, without an upstream (`switch/mod.rs`), until there is a request
//!              |                     whom a route is for -> there; all else -> the original destination
//!              +--> an end, silence -> the original destination is dialled, as at any accept
//! ```
//! Only where the client speaks first, by the protocol that its port is read as; and as that may be named
//! wrongly, or a probe may wait to see red, only for a while. While nothing has come, no buffer is held:
//! the socket is watched.

use crate::{
    buffers::BufferId,
    classify::Classified,
    connection::Phase,
    core::Core,
    dial,
    error::End,
    io::{Event, Hop, Io, Side, Token, would_block},
    shard::Shard,
    switch::Stand,
    sys::{Fd, nanos},
    timers::Timer,
};
use netra_rules::Protocol;
use std::net::{IpAddr, SocketAddr};

impl<I: Io> Core<I> {
    /// Whether connections of the application to there are dialled only when they have said something.
    #[inline]
    pub(crate) fn defers(&self, to: SocketAddr) -> bool {
        self.gates.decider().is_some() && self.may_lead(to)
    }

    #[cold]
    fn may_lead(&self, to: SocketAddr) -> bool {
        let protocol = match self.tapped(to) {
            Some(named) if named.protocol.moves() => Protocol::Of(named.protocol),
            None if self.is_http(to) => Protocol::Http1,
            _ => return false,
        };
        let leads = self.gates.decider().is_some_and(|it| it.leads(to, protocol));
        leads && !self.limits.defer_dial.is_zero()
    }
}

impl<I: Io> Shard<I> {
    /// A connection begins for which nobody is dialled yet.
    #[cold]
    pub(crate) fn defer(&mut self, fd: Fd, classified: &Classified) {
        // It costs a call, and mostly saves a turn.
        let early = match self.core.early(fd, true) {
            Ok(early) => early,
            Err(end) => return self.turn_away(fd, classified, None, end),
        };
        let downstream = self.occupy(classified.original_dst, classified.direction);
        self.slab[downstream.slot as usize].phase = Phase::Hearing;
        if self.core.io.open(downstream, fd).is_err() {
            early.inspect(|buffer| self.core.pool.give_back(*buffer));
            return self.end(downstream, End::Netra);
        }
        match early {
            Some(buffer) => self.hear_first(downstream, buffer),
            None => {
                self.core.io.watch_read(downstream);
                let until = self.core.now + nanos(self.core.limits.defer_dial);
                self.timers.set(&mut self.slab, downstream.slot, Timer::FirstByte, until);
            }
        }
    }

    /// An event of a connection that has not said anything yet.
    pub(crate) fn on_hearing(&mut self, token: Token, event: &Event) {
        match event {
            Event::Readable(_) => self.receive_first(token),
            Event::Failed(_, error) => self.end(token, End::of(Side::Downstream, *error)),
            Event::Received(_, buffer) => self.core.pool.give_back(*buffer),
            _ => {}
        }
    }

    fn receive_first(&mut self, downstream: Token) {
        let Some(buffer) = self.core.pool.lend() else {
            // Who has no buffer looks without one, when it has an upstream.
            return self.dial_for_silence(downstream, None);
        };
        let Core { io, pool, .. } = &mut self.core;
        match io.receive_first(downstream, pool.room(buffer)) {
            Ok(count) if count > 0 => {
                pool.set_filled(buffer, u32::try_from(count).unwrap_or(0));
                self.hear_first(downstream, buffer);
            }
            result => {
                pool.give_back(buffer);
                match result {
                    // It says nothing: its server may.
                    Ok(_) => self.dial_for_silence(downstream, None),
                    Err(e) if would_block(&e) => self.core.io.watch_read(downstream),
                    Err(e) => self.end(downstream, End::of_error(Side::Downstream, &e)),
                }
            }
        }
    }

    /// The client has said something: it is read, and that says whom to dial.
    fn hear_first(&mut self, downstream: Token, buffer: BufferId) {
        let slot = downstream.slot as usize;
        self.timers.clear(&mut self.slab, downstream.slot);
        self.slab[slot].http = self.http_of(downstream);
        self.slab[slot].tap = self.tap_of(downstream);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[slot];
        let Some(switch) = connection.switch_mut() else {
            // Other rules are in force, and route nothing any more.
            connection.tap = None;
            return self.dial_for_silence(downstream, Some(buffer));
        };
        switch.defer();
        connection.phase = Phase::Relaying;
        connection.detach(core, downstream);
        self.on_event(Event::Received(downstream, buffer));
    }

    /// Nobody said anything that could lead anywhere: the original destination is dialled, as at once
    /// where nothing is deferred. What the client has sent goes there.
    #[cold]
    pub(crate) fn dial_for_silence(&mut self, downstream: Token, early: Option<BufferId>) {
        let slot = downstream.slot as usize;
        self.timers.clear(&mut self.slab, downstream.slot);
        if let Some(buffer) = early {
            self.slab[slot].request.keep_early(&mut self.core.pool, buffer);
        }
        let to = self.slab[slot].original_dst;
        let caller = self.core.io.peer_addr(downstream).ok();
        let source = self.core.sources.kept(caller, to);
        let is_local = to.ip().is_loopback();
        let began = self.core.now;
        let dialled = match self.core.dial(to, Hop { is_local, has_bytes: early.is_some(), source })
        {
            Ok(dialled) => dialled,
            Err(e) => {
                let end = dial::failed(&self.core, &e);
                return self.end(downstream, end);
            }
        };
        self.slab[slot].phase = Phase::Dialling;
        let upstream = downstream.other();
        self.core.note_dial(downstream.slot, dialled.fd, to);
        if self.core.io.open(upstream, dialled.fd).is_err() {
            return self.end(downstream, End::Netra);
        }
        self.watch_silence_of(upstream);
        match dialled.connected {
            true => self.relay(downstream, began),
            false => self.await_dial(downstream),
        }
    }
}

/// The first dial of a connection that has said where it is to go, or that it says nothing (`upstream.rs`).
impl<I: Io> Shard<I> {
    /// Whether the original destination is being dialled for the first time.
    pub(crate) fn is_first_home(&self, slot: u32) -> bool {
        self.slab[slot as usize].switch().is_some_and(|it| it.is_first_home())
    }

    /// Where that dial comes from: the address that the application has chosen.
    pub(crate) fn source_of_first(&self, downstream: Token, to: SocketAddr) -> Option<IpAddr> {
        // Of a leg, whose slot has no client, and of later ones it is the kernel's choice.
        let is_first = self.is_first_home(downstream.slot);
        let caller = is_first.then(|| self.core.io.peer_addr(downstream).ok()).flatten();
        self.core.sources.kept(caller, to)
    }

    /// Nobody answers where the client wanted to go: it sees that, as where nothing is deferred. False
    /// where a route led elsewhere.
    pub(crate) fn reset_undialled(&mut self, downstream: Token, error: i32) -> bool {
        let is_first_home = self.is_first_home(downstream.slot);
        if is_first_home {
            let switch = self.slab[downstream.slot as usize].switch_mut();
            // Its socket is closed, if there was one.
            switch.into_iter().for_each(|it| it.stand = Stand::GaveUp);
            self.end(downstream, End::DialFailed(error));
        }
        is_first_home
    }

    /// The upstream is there: the connection is one as any other from here on.
    pub(crate) fn note_first_dial(&mut self, slot: u32) {
        let Some(switch) = self.slab[slot as usize].switch_mut() else { return };
        if std::mem::take(&mut switch.is_deferred) {
            let now = self.core.io.now();
            dial::record(&self.core, now.saturating_sub(switch.since_begin(now)));
        }
    }
}
