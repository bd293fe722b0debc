//! A leg is begun, and is reached or not.

use super::legs::IDLE_NS;
use crate::{
    along::Along,
    connection::{Connection, Phase},
    io::{Close, Io, Side, Token},
    shard::Shard,
    switch::{Stand, Switch, goal::Goal, leg::Leg, seats::Seats},
    sys::{Nanos, nanos},
    timers::Timer,
};
use netra_perf::Key;

impl<I: Io> Shard<I> {
    /// Takes a slot for a leg to where the request that waits is to go, and begins to reach it.
    pub(super) fn open_leg(&mut self, owner: Token) {
        self.stop_draining(owner.slot);
        let upstream = self.take_leg(owner);
        let Some(gate) = self.gate_of(owner.slot) else { return };
        let place = gate.add_leg(upstream);
        let goal = gate.switch_mut().goal.take();
        let timeout = gate.seats_mut().wanted().and_then(|seat| seat.connect_timeout_ns());
        self.begin_leg(owner, (place, upstream), goal, timeout, false);
        self.resolve(upstream.other());
    }

    /// A slot and a descriptor for a leg of this connection.
    pub(super) fn take_leg(&mut self, owner: Token) -> Token {
        let connection = &self.slab[owner.slot as usize];
        let (original_dst, direction) = (connection.original_dst, connection.direction);
        self.descriptors.take();
        let slot = self.occupy_leg(original_dst, direction);
        Token { side: Side::Upstream, ..self.downstream_of(slot) }
    }

    /// A leg is to be reached in so much time, or in netra's own limit.
    pub(super) fn begin_leg(
        &mut self,
        owner: Token,
        (place, upstream): (u8, Token),
        mut goal: Option<Box<Goal>>,
        timeout: Option<Nanos>,
        is_successor: bool,
    ) {
        let Some(protocol) = self.gate_of(owner.slot).map(|gate| gate.tapped().name()) else {
            return;
        };
        let connect_timeout = nanos(self.core.limits.connect_timeout);
        let until = self.core.now.saturating_add(timeout.unwrap_or(connect_timeout));
        goal.iter_mut().for_each(|goal| goal.until = until);
        let switch = Switch { goal, stand: Stand::Resolving, ..Switch::default() };
        let leg = Leg { owner, place, switch, remote: None, is_successor, protocol };
        self.slab[upstream.slot as usize].tap = Some(Along::Leg(Box::new(leg)));
        self.core.recorder.bump(Key::LEG_OPENED);
        self.timers.set(&mut self.slab, upstream.slot, Timer::Dial, until);
    }

    /// A leg has been reached: what waits goes out by it.
    pub(super) fn settle_leg(&mut self, leg: Token, owner: Token) {
        let idle_at = self.core.now + IDLE_NS;
        self.timers.set(&mut self.slab, leg.slot, Timer::Leg, idle_at);
        self.slab[leg.slot as usize].response.attach();
        let Some(it) = self.leg_of(leg.slot) else { return };
        it.switch.stand = Stand::Settled;
        let (place, remote, mut goal) = (it.place, it.remote, it.switch.goal.take());
        goal.iter_mut().for_each(|goal| goal.settle());
        if it.is_successor {
            return self.settle_successor((leg, place), owner, (goal, remote));
        }
        if let Some(gate) = self.gate_of(owner.slot) {
            gate.has_reached(place, goal, remote);
        }
        self.hop(owner, place);
        self.move_leg(owner, (place, leg.other()), None);
        // The request goes right behind the dial.
        if self.lives(owner) {
            let Self { core, slab, .. } = self;
            let moved = slab[owner.slot as usize].go_on(core, owner);
            core.io.acknowledge_at_once(leg.other());
            if let Err(end) = moved {
                return self.end(owner, end);
            }
            // What comes behind it may want to go elsewhere again.
            self.core.again.push_back(owner);
        }
    }

    /// Nobody was reached.
    pub(super) fn give_up_leg(&mut self, leg: Token, owner: Token) {
        let Some(it) = self.leg_of(leg.slot) else { return };
        // Its socket is closed, if there was one.
        it.switch.stand = Stand::GaveUp;
        let place = it.place;
        self.end_leg(leg.slot, Close::Reset);
        let Self { core, slab, .. } = self;
        let connection = &mut slab[owner.slot as usize];
        if let Some(gate) = connection.tap.as_mut().and_then(Along::gate) {
            gate.not_reached(core, place);
        }
        self.core.again.push_back(owner);
    }

    /// A slot with an upstream side alone.
    pub(super) fn occupy_leg(
        &mut self,
        original_dst: std::net::SocketAddr,
        direction: crate::error::Direction,
    ) -> u32 {
        let slot = self.free_slot();
        let connection = &mut self.slab[slot as usize];
        let generation = connection.generation.wrapping_add(1);
        *connection = Connection::begun(generation, original_dst, direction, self.core.now);
        connection.phase = Phase::Relaying;
        self.legs += 1;
        self.show_legs();
        slot
    }

    /// The seats of whom a message waits for.
    pub(super) fn seats_of(&mut self, slot: u32) -> Option<&mut Seats> {
        let slot = self.owner_of(slot).map_or(slot, |owner| owner.slot);
        self.slab[slot as usize].seats()
    }
}
