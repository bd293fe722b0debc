//! A gated connection whose upstream has ended, and that goes on: all that was asked is asked again elsewhere,
//! or nothing was. Of several upstreams, what one owes that ends is asked again by its successor.

use crate::{
    again::Onward,
    along::Along,
    error::End,
    gate::{Gate, HOME},
    io::{Io, Side, Token},
    shard::Shard,
    switch::{Stand, goal::Goal, seats::Leaving},
};
use netra_codecs::trace::RetryReason;
use netra_perf::Key;
use netra_rules::Heard;
use std::net::SocketAddr;

impl<I: Io> Shard<I> {
    /// True where the upstream's end is not its connection's, see [`goes_on`](Self::goes_on).
    pub(super) fn gate_goes_on(&mut self, downstream: Token, reason: RetryReason) -> bool {
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let original_dst = connection.original_dst;
        let Some(gate) = connection.tap.as_mut().and_then(Along::gate) else { return false };
        let attempts = match gate.onward() {
            None => return false,
            Some(Onward::Between) => {
                gate.part();
                self.part(downstream);
                return true;
            }
            Some(Onward::Again(attempts)) => attempts,
        };
        let why = Leaving::of(reason, Heard::Fault);
        let next = gate.seats_mut().send_again((attempts, why), original_dst, core.now);
        let Some(target) = next else { return false };
        gate.switch_mut().goal = Some(Box::new(Goal::new(target, true)));
        let unsent = gate.repeat(core);
        // What was said behind an answer that is withheld answers what is asked again.
        connection.response.discard(core);
        connection.request.skip(core, downstream, unsent);
        connection.request.change_receiver();
        self.leave_upstream(downstream);
        true
    }

    /// What was sent before waits for a further upstream.
    pub(super) fn repeats(&mut self, slot: u32) -> bool {
        let gate = self.slab[slot as usize].tap.as_mut().and_then(Along::gate);
        gate.is_some_and(|gate| gate.is_repeating())
    }

    /// A leg has ended: what it owes and may be asked again goes by a further one. The leg's token, and its place.
    pub(super) fn succeed(
        &mut self,
        owner: Token,
        place: u8,
        reason: RetryReason,
    ) -> Option<(Token, u8)> {
        let others_max = self.others_max(owner);
        let (has_room, now) = (self.descriptors.room() > 0, self.core.now);
        let connection = &self.slab[owner.slot as usize];
        let (original_dst, has_ended) = (connection.original_dst, connection.request.is_finished());
        let gate = self.gate_of(owner.slot)?;
        let others = gate.leg_count().saturating_sub(usize::from(place != HOME));
        if !has_room || others >= others_max {
            return None;
        }
        let (to, target) =
            gate.successor((place, has_ended), owner.other(), (original_dst, reason), now)?;
        let timeout = gate.seats_mut().of_lane(to).and_then(|seat| seat.connect_timeout_ns());
        let leg = self.take_leg(owner);
        let goal = Some(Box::new(Goal::new(target, true)));
        self.begin_leg(owner, (to, leg), goal, timeout, true);
        let Self { core, slab, .. } = self;
        let gate = slab[owner.slot as usize].tap.as_mut().and_then(Along::gate)?;
        gate.take_over(core, (place, to), leg);
        Some((leg, to))
    }

    /// All legs of a connection have ended, and nothing is asked. Whether it goes on without an upstream.
    pub(super) fn parts_from_legs(&mut self, owner: Token) -> bool {
        let connection = &mut self.slab[owner.slot as usize];
        let is_moving = connection.response.holds_bytes() || connection.request.is_under_way();
        if is_moving || connection.request.is_finished() {
            return false;
        }
        let gate = connection.tap.as_mut().and_then(Along::gate);
        let parts = gate.is_some_and(Gate::parts_from_legs);
        if parts {
            self.part(owner);
        }
        parts
    }

    /// One try of what the upstream at this place owes has taken too long: it is left, where all of that may be asked
    /// again and somebody else can be asked. Otherwise it waits on.
    pub(crate) fn leave_late(&mut self, owner: Token, place: u8) {
        let connection = &mut self.slab[owner.slot as usize];
        if connection.has_legs() || !connection.response.holds_bytes() {
            self.leave_for_another(owner, place, RetryReason::Timeout);
        }
        self.moved(owner);
    }

    /// The upstream at this place is left, where all that it owes may be asked again and somebody else can be asked.
    /// Whether it was.
    pub(super) fn leave_for_another(
        &mut self,
        owner: Token,
        place: u8,
        reason: RetryReason,
    ) -> bool {
        let connection = &mut self.slab[owner.slot as usize];
        let is_moving = connection.request.is_under_way() || connection.request.is_finished();
        let Some(gate) = connection.tap.as_mut().and_then(Along::gate) else { return false };
        if !gate.has_legs() {
            return !is_moving && gate.may_ask_again() && self.gate_goes_on(owner, reason);
        }
        let may = gate.owes_only_kept(place);
        if let Some(leg) = self.open_leg_at(owner, place).filter(|_| may)
            && let Some(successor) = self.succeed(owner, place, reason)
        {
            let end = End::Reset(Side::Upstream);
            self.leave_leg(owner, (place, leg.token), end, Some(successor));
            return true;
        }
        false
    }

    /// A leg that takes over what another owed.
    pub(super) fn is_successor(&mut self, slot: u32) -> bool {
        self.leg_of(slot).is_some_and(|leg| leg.is_successor)
    }

    /// It has been reached: what it takes over goes out.
    pub(super) fn settle_successor(
        &mut self,
        (leg, place): (Token, u8),
        owner: Token,
        to: (Option<Box<Goal>>, Option<SocketAddr>),
    ) {
        let Self { core, slab, .. } = self;
        let gate = slab[owner.slot as usize].tap.as_mut().and_then(Along::gate);
        let Some(gate) = gate else { return };
        gate.has_taken_over(core, place, to);
        self.on_leg_writable(owner, place);
        if self.lives(owner) {
            self.core.io.acknowledge_at_once(leg.other());
            self.move_leg(owner, (place, leg.other()), None);
        }
        self.moved(owner);
    }

    /// Nobody was reached: as if it had been, and had ended.
    pub(super) fn give_up_successor(&mut self, leg: Token) {
        let Some(owner) = self.owner_of(leg.slot) else { return };
        let Some(it) = self.leg_of(leg.slot) else { return };
        // Its socket is closed, if there was one.
        it.switch.stand = Stand::GaveUp;
        let place = it.place;
        self.core.recorder.bump(Key::ROUTE_UNREACHABLE);
        let successor = self.succeed(owner, place, RetryReason::Connect);
        self.leave_leg(owner, (place, leg.other()), End::Reset(Side::Upstream), successor);
        self.core.again.push_back(owner);
    }
}
