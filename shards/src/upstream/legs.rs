//! Legs, step by step: a further upstream is reached while those that there are go on, requests hop from
//! one to another, what they answer comes to the client by turns (`gate/legs.rs` says whose it is), and
//! one that ends takes down what it owes alone.

use crate::{
    along::Along,
    connection::{Connection, Phase},
    copies::Outcome,
    error::End,
    flow::Flow,
    gate::{Gate, HOME, LegState, Path},
    io::{Close, Event, Io, Side, Token, When},
    sends,
    shard::Shard,
    switch::{Stand, leg::Leg},
    sys::Nanos,
    timers::Timer,
};
use netra_codecs::trace::RetryReason;
use netra_perf::Key;

/// A leg by which nothing was asked for so long is closed.
pub(crate) const IDLE_NS: Nanos = 60_000_000_000;

/// How a connection ends that cannot go on without a leg whose socket is broken.
const BROKEN: End = End::Reset(Side::Upstream);

impl<I: Io> Shard<I> {
    pub(super) fn gate_of(&mut self, slot: u32) -> Option<&mut Gate> {
        self.slab[slot as usize].tap.as_mut().and_then(Along::gate)
    }

    /// The slot of a leg, and its place among those of its owner.
    pub(super) fn leg_of(&mut self, slot: u32) -> Option<&mut Leg> {
        self.slab[slot as usize].tap.as_mut().and_then(Along::leg)
    }

    /// The connection that this slot is a leg of.
    pub(crate) fn owner_of(&mut self, slot: u32) -> Option<Token> {
        let is_there = self.slab[slot as usize].phase == Phase::Relaying;
        self.leg_of(slot).filter(|_| is_there).map(|leg| leg.owner)
    }

    /// What a leg or a mirror does for its own ends with it, or ends the connection whose leg it is.
    #[cold]
    pub(crate) fn end_of_leg(&mut self, token: Token, end: End) {
        match self.owner_of(token.slot) {
            Some(owner) => self.end(owner, end),
            None => self.end_mirror(token.slot, Outcome::Unreachable, Close::Reset),
        }
    }

    /// An event of a socket that is a leg's, or of a connection that has legs.
    #[cold]
    pub(crate) fn on_leg_event(&mut self, token: Token, event: Event) {
        if self.is_mirror(token.slot) {
            return self.on_mirror_event(token, event);
        }
        let Some((owner, place)) = self.leg_of(token.slot).map(|leg| (leg.owner, leg.place)) else {
            return self.on_event_of_owner(token, event);
        };
        if self.slab[owner.slot as usize].http.is_some() {
            return self.on_resting_event(owner, token, event);
        }
        let is_settled = self.slab[token.slot as usize]
            .switch()
            .is_some_and(|switch| switch.stand == Stand::Settled);
        if !is_settled {
            return self.on_switch_event(token, &event);
        }
        match event {
            Event::Writable(_) => self.on_leg_writable(owner, place),
            event => self.move_leg(owner, (place, token), Some(event)),
        }
        self.moved(owner);
    }

    fn on_event_of_owner(&mut self, token: Token, event: Event) {
        let owner = Token { side: Side::Downstream, ..token };
        match event {
            Event::Writable(_) if token.side == Side::Upstream => self.on_leg_writable(owner, HOME),
            Event::Writable(_) => self.on_room(owner),
            event => self.move_leg(owner, (HOME, owner.other()), Some(event)),
        }
        self.moved(owner);
    }

    /// The client takes bytes again: whoever has his turn goes on.
    fn on_room(&mut self, owner: Token) {
        let Some(gate) = self.gate_of(owner.slot) else { return };
        gate.has_room();
        self.slab[owner.slot as usize].response.set_stalled(false);
        self.move_leg(owner, (HOME, owner.other()), None);
        for place in self.places(owner).skip(1) {
            if let Some(leg) = self.open_leg_at(owner, place) {
                self.slab[leg.token.slot as usize].response.set_stalled(false);
                self.move_leg(owner, (leg.place, leg.token), None);
            }
        }
    }

    fn places(&self, owner: Token) -> std::ops::Range<u8> {
        match &self.slab[owner.slot as usize].tap {
            Some(Along::Gated(gate)) if self.lives(owner) => gate.places(),
            _ => HOME..HOME,
        }
    }

    pub(super) fn open_leg_at(&self, owner: Token, place: u8) -> Option<LegState> {
        match &self.slab[owner.slot as usize].tap {
            Some(Along::Gated(gate)) if self.lives(owner) => {
                gate.leg_at(place).filter(|leg| leg.is_open)
            }
            _ => None,
        }
    }

    pub(super) fn lives(&self, owner: Token) -> bool {
        let connection = &self.slab[owner.slot as usize];
        connection.generation == owner.generation && connection.phase == Phase::Relaying
    }

    /// The socket of a leg takes requests again.
    pub(super) fn on_leg_writable(&mut self, owner: Token, place: u8) {
        let Some(gate) = self.gate_of(owner.slot) else { return };
        if gate.is_current(place) {
            let Self { core, slab, .. } = self;
            let connection = &mut slab[owner.slot as usize];
            let upstream = owner.other();
            if let Err(end) = connection.on_event(core, upstream, Event::Writable(upstream)) {
                self.end(owner, end);
            }
            return;
        }
        let leg = gate.leg_at(place).map(|leg| leg.token);
        let (Some(token), Some((carry, is_blocked))) = (leg, gate.waiting_at(place)) else {
            return;
        };
        let mut waiting = std::mem::take(carry);
        *is_blocked = false;
        let sent = sends::send_carry(&mut waiting, &mut self.core.io, token);
        let is_full = !waiting.is_empty();
        if sent.is_err() {
            return self.lose_leg(owner, (place, token), BROKEN);
        }
        let Some(gate) = self.gate_of(owner.slot) else { return };
        if let Some((carry, is_blocked)) = gate.waiting_at(place) {
            (*carry, *is_blocked) = (waiting, is_full);
        }
        if is_full {
            self.core.io.watch_write(token);
        }
    }

    /// Moves what a leg says toward the client, as far as its turn goes.
    pub(super) fn move_leg(
        &mut self,
        owner: Token,
        (place, token): (u8, Token),
        event: Option<Event>,
    ) {
        // What has been given up says nothing any more, but netra may have something to say.
        if self.open_leg_at(owner, place).is_none() && (event.is_some() || !self.lives(owner)) {
            if let Some(Event::Received(_, buffer)) = event {
                self.core.pool.give_back(buffer);
            }
            return;
        }
        let Self { core, slab, .. } = self;
        let mut flow = std::mem::take(&mut slab[token.slot as usize].response);
        let before = flow.bytes();
        let connection = &mut slab[owner.slot as usize];
        let moved = connection.move_leg(core, token, &mut flow, event);
        if place != HOME {
            connection.response.also_moved(flow.bytes() - before, flow.last_moved());
        }
        slab[token.slot as usize].response = flow;
        match moved {
            Ok(()) => {}
            Err(end @ (End::Reset(Side::Upstream) | End::Failed(Side::Upstream, _))) => {
                self.lose_leg(owner, (place, token), end);
            }
            Err(end) => self.end(owner, end),
        }
    }

    /// Goes on with a leg that had more to move than one turn allows.
    pub(crate) fn go_on_with_leg(&mut self, from: Token) {
        if self.is_mirror(from.slot) {
            return self.drain_mirror(from);
        }
        let (owner, place) = match self.leg_of(from.slot) {
            Some(leg) => (leg.owner, leg.place),
            None => (from.other(), HOME),
        };
        self.move_leg(owner, (place, from), None);
        self.moved(owner);
    }

    /// Whether bytes of a connection wait for somebody who is slow to read. What a leg has said before its
    /// turn waits for somebody who says nothing.
    pub(crate) fn holds_bytes(&self, owner: Token) -> bool {
        let connection = &self.slab[owner.slot as usize];
        let Some(Along::Gated(gate)) = &connection.tap else { return connection.holds_bytes() };
        let holds = |leg: LegState| {
            let flow = &self.slab[leg.token.slot as usize].response;
            gate.waits_for_client(leg.place) && flow.holds_bytes()
        };
        let mut legs = self.places(owner).filter_map(|place| self.open_leg_at(owner, place));
        match gate.has_legs() {
            true => connection.holds_requests() || legs.any(holds),
            false => connection.holds_bytes(),
        }
    }

    /// A leg has ended; where the connection cannot go on without it, it ends like this.
    fn lose_leg(&mut self, owner: Token, (place, token): (u8, Token), end: End) {
        let successor = self.succeed(owner, place, RetryReason::Reset);
        self.leave_leg(owner, (place, token), end, successor);
    }

    /// The same, with whoever takes over what it owes.
    pub(super) fn leave_leg(
        &mut self,
        owner: Token,
        (place, token): (u8, Token),
        end: End,
        successor: Option<(Token, u8)>,
    ) {
        let has_ended = self.slab[owner.slot as usize].request.is_finished();
        let Self { core, slab, .. } = self;
        let connection = &mut slab[owner.slot as usize];
        let gate = connection.tap.as_mut().and_then(Along::gate);
        let both = (place, successor.map(|(_, place)| place));
        if !gate.is_some_and(|gate| gate.lose(core, both, has_ended)) {
            return self.end(owner, end);
        }
        if !has_ended {
            core.recorder.bump(Key::LEG_LOST);
        }
        let is_current = connection.tap.as_mut().and_then(Along::gate);
        if is_current.is_some_and(|gate| gate.is_current(place)) && connection.request.is_stalled()
        {
            // No room of its socket will ever be told of; what is asked by it goes nowhere.
            connection.request.set_stalled(false);
            core.again.push_back(owner);
        }
        match place {
            HOME => connection.response.abandon(core, owner),
            _ => self.end_leg(token.slot, Close::Orderly),
        }
        if let Some((leg, _)) = successor {
            self.resolve(leg.other());
        }
    }

    /// What a connection that has legs needs after its flows have moved. False where it has ended.
    pub(crate) fn tend_legs(&mut self, owner: Token) -> bool {
        let Some(gate) = self.gate_of(owner.slot) else { return true };
        if gate.tapped().is_over() {
            // Nobody knows any more whose bytes these are.
            self.end(owner, End::Netra);
            return false;
        }
        while let Some(place) = self.gate_of(owner.slot).and_then(|gate| gate.has_broken())
            && let Some(leg) = self.open_leg_at(owner, place)
        {
            self.lose_leg(owner, (place, leg.token), BROKEN);
        }
        self.hear_legs(owner);
        let has_ended = self.slab[owner.slot as usize].request.is_finished();
        for place in self.places(owner) {
            let Some(leg) = self.open_leg_at(owner, place) else { continue };
            if self.slab[leg.token.slot as usize].response.is_finished() {
                self.lose_leg(owner, (leg.place, leg.token), End::Eof);
            } else if has_ended && leg.may_shut {
                self.shut_leg(owner, leg);
            }
        }
        if !self.lives(owner) {
            return false;
        }
        if has_ended {
            self.slab[owner.slot as usize].half_close();
        }
        let Some(gate) = self.gate_of(owner.slot) else { return true };
        if gate.is_deserted() {
            if self.parts_from_legs(owner) {
                return true;
            }
            self.end(owner, End::Eof);
            return false;
        }
        gate.drop_legs();
        true
    }

    /// Lets the legs speak, each in its turn. Whether one has said something.
    pub(super) fn hear_each(&mut self, owner: Token) -> bool {
        let mut has_heard = false;
        loop {
            while let Some(leg) = self.next_to_speak(owner) {
                self.move_leg(owner, (leg.place, leg.token), None);
                has_heard = true;
            }
            if !self.look_at_legs(owner) {
                return has_heard;
            }
            has_heard = true;
        }
    }

    /// Looks at those that keep no bytes, for want of buffers. Whether one has said something.
    fn look_at_legs(&mut self, owner: Token) -> bool {
        let mut has_moved = false;
        for place in self.places(owner) {
            let Some(leg) = self.open_leg_at(owner, place) else { continue };
            let slot = leg.token.slot as usize;
            let may = self.slab[slot].response.may_have_something();
            if may && self.gate_of(owner.slot).is_some_and(|gate| gate.may_speak(place)) {
                let before = self.slab[slot].response.bytes();
                self.move_leg(owner, (place, leg.token), None);
                has_moved |= self.slab[slot].response.bytes() != before;
            }
        }
        has_moved
    }

    fn next_to_speak(&mut self, owner: Token) -> Option<LegState> {
        self.places(owner).find_map(|place| {
            let leg = self.open_leg_at(owner, place)?;
            let has_something = self.slab[leg.token.slot as usize].response.has_something();
            let may_speak = has_something && self.gate_of(owner.slot)?.may_speak(place);
            may_speak.then_some(leg)
        })
    }

    /// The client asks nothing more.
    fn shut_leg(&mut self, owner: Token, leg: LegState) {
        let is_shut = self.core.io.shutdown_write(leg.token).is_ok();
        match self.gate_of(owner.slot) {
            Some(gate) if is_shut => gate.has_shut(leg.place),
            _ => self.lose_leg(owner, (leg.place, leg.token), BROKEN),
        }
    }

    /// A request waits for another upstream, and its connection may have legs. True where it goes on.
    pub(crate) fn switch_legs(&mut self, owner: Token) -> bool {
        let others_max = self.others_max(owner);
        let Self { core, slab, .. } = self;
        let connection = &slab[owner.slot as usize];
        let has_ended = connection.response_is_finished();
        let is_now = (connection.response.holds_bytes(), connection.response.is_stalled());
        let Some(gate) = self.slab[owner.slot as usize].tap.as_mut().and_then(Along::gate) else {
            return false;
        };
        if gate.switch().stand != Stand::Draining {
            return false;
        }
        let is_old = !gate.has_legs() && (has_ended || gate.tapped().is_over());
        let scratch = &mut core.scratch;
        let io = &mut core.io;
        let path = match is_old {
            true => Path::Change,
            false => gate.path(others_max, |token| {
                io.peek(token, &mut scratch[..1]).is_err_and(|e| crate::io::would_block(&e))
            }),
        };
        match path {
            Path::Hop(place) => self.hop(owner, place),
            Path::New => {
                if !gate.has_legs() {
                    gate.begin_legs(owner.other(), is_now);
                }
                self.open_leg(owner);
            }
            Path::InPlaceOf(place) => {
                let leg = self.open_leg_at(owner, place);
                if let (Some(leg), Some(gate)) = (leg, self.gate_of(owner.slot)) {
                    gate.close_leg(place);
                    self.end_leg(leg.token.slot, Close::Orderly);
                    self.open_leg(owner);
                }
            }
            Path::Later => {
                self.wait_for_leg(owner);
                return false;
            }
            Path::Change => {
                self.begin_switch(owner);
                return false;
            }
        }
        true
    }

    /// How many legs the connection may have beside its own upstream.
    pub(super) fn others_max(&mut self, owner: Token) -> usize {
        let legs_max = self.core.limits.legs_max.min(u8::MAX.into()) as usize;
        let has_room = self.descriptors.room() > 0;
        let gate = self.slab[owner.slot as usize].tap.as_mut().and_then(Along::gate);
        match gate {
            Some(gate) if gate.has_legs() => {
                // Without room one takes another's place; only where there is no other it is one more.
                let most = if has_room { usize::MAX } else { gate.leg_count().max(1) };
                most.min(legs_max.max(2) - 1)
            }
            Some(gate) if gate.may_have_legs() && has_room => legs_max.max(1) - 1,
            _ => 0,
        }
    }

    /// Requests go by this leg, with the one that waits.
    pub(super) fn hop(&mut self, owner: Token, place: u8) {
        self.stop_draining(owner.slot);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[owner.slot as usize];
        let is_blocked = connection.request.is_stalled();
        let Some(gate) = connection.tap.as_mut().and_then(Along::gate) else { return };
        let is_blocked = gate.hop(core, place, is_blocked);
        connection.request.set_stalled(is_blocked);
    }

    /// A leg that nothing was asked by for a while is closed; another is looked at again later.
    pub(crate) fn on_leg_idle(&mut self, slot: u32) {
        let upstream = Token { side: Side::Upstream, ..self.downstream_of(slot) };
        let Some((owner, place)) = self.leg_of(slot).map(|leg| (leg.owner, leg.place)) else {
            return self.on_mirror_idle(slot);
        };
        let moved_at = self.slab[slot as usize].response.last_moved();
        let is_quiet = self.core.now.saturating_sub(moved_at) >= IDLE_NS
            && self.slab[slot as usize].response.is_quiet();
        let may_close = is_quiet
            && self.is_silent(upstream)
            && self
                .gate_of(owner.slot)
                .is_some_and(|gate| !gate.is_current(place) && gate.is_idle(place));
        if may_close {
            if let Some(gate) = self.gate_of(owner.slot) {
                gate.close_leg(place);
            }
            self.end_leg(slot, Close::Orderly);
            return self.moved(owner);
        }
        let at = self.core.now + IDLE_NS;
        self.timers.set(&mut self.slab, slot, Timer::Leg, at);
    }

    /// Closes the socket of a leg, and returns what it held.
    pub(crate) fn end_leg(&mut self, slot: u32, how: Close) {
        let is_settled = self.slab[slot as usize].is_settled();
        let how = if is_settled { how } else { Close::Reset };
        let upstream = Token { side: Side::Upstream, ..self.downstream_of(slot) };
        self.core.own_dials.forget(slot);
        self.timers.clear(&mut self.slab, slot);
        let connection = &mut self.slab[slot as usize];
        let (mut has_upstream, mut awaits_close) = (true, false);
        if let Some(switch) = connection.switch() {
            (has_upstream, awaits_close) = (switch.has_upstream(), switch.awaits_close());
        }
        connection.response.release(&mut self.core, upstream.other());
        let is_pending = match has_upstream {
            true => self.core.io.close(upstream, how) == When::Later,
            false => awaits_close,
        };
        self.slab[slot as usize].phase = Phase::Closing(u8::from(is_pending));
        if !is_pending {
            self.vacate(slot);
        }
    }

    /// The upstream of the oldest request is to be left, and its client told the last: so all are.
    pub(crate) fn leave_legs(&mut self, owner: Token) {
        if self.slab[owner.slot as usize].has_legs() {
            self.end_legs(owner, Close::Orderly);
            if let Some(gate) = self.gate_of(owner.slot) {
                gate.abandon_legs();
            }
            if !self.slab[owner.slot as usize].response_is_quiet() {
                return self.end(owner, End::AnswerTimeout);
            }
        }
        self.leave_upstream(owner);
    }

    /// A connection ends: so do its legs.
    pub(crate) fn end_legs(&mut self, owner: Token, how: Close) {
        self.end_resting(owner, how);
        let Some(gate) = self.gate_of(owner.slot) else { return };
        for place in gate.places().skip(1) {
            if let Some(leg) = self.gate_of(owner.slot).and_then(|gate| gate.leg_at(place)) {
                self.end_leg(leg.token.slot, how);
            }
        }
    }
}

impl Connection {
    /// Moves what a leg says, by the leg's own flow.
    fn move_leg<I: Io>(
        &mut self,
        core: &mut crate::core::Core<I>,
        token: Token,
        flow: &mut Flow,
        event: Option<Event>,
    ) -> Result<(), End> {
        let counted = self.counted(Side::Upstream);
        let Some(tap) = &mut self.tap else { return Ok(()) };
        let half = crate::flow::Half::Tap(tap);
        match event {
            Some(event) => flow.on_event(core, token, counted, half, event),
            None => flow.advance(core, token, counted, half),
        }
    }
}
