//! Mirrors, step by step: copies are handed on when what they are copies of has been sent, a mirror is
//! dialled for the first of them, what it answers is thrown away unread, and it outlives its connection
//! by what it takes to have them. Nothing of this ever keeps, ends or changes the connection.

use super::legs::IDLE_NS;
use crate::{
    along::Along,
    buffers::BufferId,
    connection::{Connection, Phase},
    copies::{COPY_MAX, Copies, Opened, Outcome},
    error::taken,
    exchange::MirrorTo,
    io::{Close, Event, Io, Side, Token, would_block},
    shard::Shard,
    switch::{Stand, Switch, goal::Goal, mirror::Mirror},
    sys::{Nanos, nanos},
    timers::Timer,
};
use netra_codecs::route::Target;
use netra_perf::{Gauge, Key};
use std::collections::VecDeque;

/// A mirror that could not be reached is not dialled again by the same connection before.
const RETRY_NS: Nanos = 1_000_000_000;
/// A mirror that had nothing for so long may have to go for another of its connection.
const QUIET_NS: Nanos = 1_000_000_000;
/// When its connection has ended, a mirror is closed after so long without a byte: who has the last
/// copies may be at work on them, and would take an end of the stream for their client's.
const LAST_NS: Nanos = 2_000_000_000;
/// Or after so long, whatever it says.
const LAST_MAX_NS: Nanos = 10_000_000_000;
/// Looks at what a mirror says, before others have their turn.
const ROUNDS: u32 = 16;
/// A mirror is opened only where more than one part in so many of the room for connections is free.
const ROOM_PARTS: u64 = 4;

impl<I: Io> Shard<I> {
    fn copies_of(&mut self, slot: u32) -> Option<&mut Option<Box<Copies>>> {
        self.slab[slot as usize].copies_mut()
    }

    fn mirror_in(&mut self, slot: u32) -> Option<&mut Mirror> {
        let connection = &mut self.slab[slot as usize];
        let is_there = connection.phase == Phase::Relaying;
        connection.tap.as_mut().and_then(Along::mirror).filter(|_| is_there)
    }

    /// The mirror in a slot, as long as it is the one that is meant.
    fn mirror_of(&mut self, token: Token) -> Option<&mut Mirror> {
        let is_it = self.slab[token.slot as usize].generation == token.generation;
        self.mirror_in(token.slot).filter(|_| is_it)
    }

    /// Hands on what the flows of a connection have left to be copied.
    #[cold]
    pub(crate) fn tend_copies(&mut self, owner: Token) {
        if self.slab[owner.slot as usize].phase != Phase::Relaying {
            return;
        }
        if self.slab[owner.slot as usize].copies_are_over() {
            return self.end_copies(owner);
        }
        let Some(mut copies) = self.copies_of(owner.slot).and_then(Option::take) else { return };
        self.hand_on(owner, &mut copies);
        if let Some(place) = self.copies_of(owner.slot) {
            *place = Some(copies);
        }
    }

    /// A connection ends, or is no longer read: its mirrors get what is theirs, and are let go.
    pub(crate) fn end_copies(&mut self, owner: Token) {
        let Some(mut copies) = self.copies_of(owner.slot).and_then(Option::take) else { return };
        copies.cut();
        self.hand_on(owner, &mut copies);
        for mirror in copies.mirrors.into_iter().flatten() {
            self.let_go(mirror.token);
        }
    }

    fn hand_on(&mut self, owner: Token, copies: &mut Copies) {
        let has_room = self.core.taps.has_room_for_copies(copies.kept());
        if !has_room {
            copies.lose(Outcome::NoRoom);
        }
        let (mut at, mut first) = (0, 0);
        for index in 0..copies.parts().len() {
            let part = copies.parts()[index];
            let mirror = match has_room {
                true => self.mirror_for(owner, copies, part.to),
                false => Err(Outcome::NoRoom),
            };
            let lens = &copies.lens()[first..first + part.count as usize];
            let len = lens.iter().sum::<u32>() as usize;
            match mirror {
                Ok(mirror) => self.copy_to(mirror, &copies.whole()[at..at + len], lens),
                Err(why) => self.count_copies(why, part.count),
            }
            (at, first) = (at + len, first + lens.len());
        }
        copies.handed_on();
        for (why, count) in copies.take_lost() {
            self.core.recorder.add(Key::mirrored(why), count.into());
        }
        let held = &mut self.core.taps.held_bytes;
        *held = *held - copies.counted + copies.kept();
        copies.counted = copies.kept();
    }

    fn count_copies(&self, outcome: Outcome, count: u32) {
        self.core.recorder.add(Key::mirrored(outcome as usize), count.into());
    }

    /// The mirror of a connection at a place of the rules; opens it where there is none.
    fn mirror_for(
        &mut self,
        owner: Token,
        copies: &mut Copies,
        to: MirrorTo,
    ) -> Result<Token, Outcome> {
        for opened in &mut copies.mirrors {
            let Some(it) = *opened else { continue };
            let Some(mirror) = self.mirror_of(it.token) else {
                *opened = None;
                continue;
            };
            let target = mirror.switch.target().copied();
            if it.to == to || target.is_some_and(|it| self.leads_to(owner, to, &it)) {
                *opened = Some(Opened { to, ..it });
                return Ok(it.token);
            }
        }
        if self.core.now < copies.refused_until {
            return Err(Outcome::Unreachable);
        }
        let place = self.place_for(copies).ok_or(Outcome::NoRoom)?;
        let target = self.target_for(owner, to)?;
        let token = self.open_mirror(owner, target);
        if self.mirror_of(token).is_none() {
            copies.refused_until = self.core.now + RETRY_NS;
            return Err(Outcome::Unreachable);
        }
        copies.mirrors[place] = Some(Opened { to, token });
        Ok(token)
    }

    /// Whether other rules lead to where a mirror is.
    fn leads_to(&self, owner: Token, to: MirrorTo, target: &Target) -> bool {
        let original = self.slab[owner.slot as usize].original_dst;
        self.core.gates.decider().is_some_and(|it| it.has_mirror(to, target, original))
    }

    /// Where there is room for another mirror: one that has nothing to do goes for it.
    fn place_for(&mut self, copies: &Copies) -> Option<usize> {
        let free = copies.mirrors.iter().position(Option::is_none);
        if free.is_some() {
            return free;
        }
        let now = self.core.now;
        let place = copies.mirrors.iter().flatten().position(|it| {
            let moved_at = self.slab[it.token.slot as usize].moved_at();
            let has_nothing = self.mirror_of(it.token).is_some_and(|it| it.carry.is_empty());
            has_nothing && now.saturating_sub(moved_at) >= QUIET_NS
        });
        if let Some(opened) = place.and_then(|place| copies.mirrors[place]) {
            self.let_go(opened.token);
        }
        place
    }

    /// An endpoint for copies, where one may be dialled.
    fn target_for(&mut self, owner: Token, to: MirrorTo) -> Result<Target, Outcome> {
        let (room, most) = (self.descriptors.room(), self.descriptors.connections_max());
        if u64::from(room) * ROOM_PARTS <= most.into() {
            return Err(Outcome::NoRoom);
        }
        let original = self.slab[owner.slot as usize].original_dst;
        let random = self.core.observer.random.u64(..);
        let target = self.core.gates.decider().and_then(|it| it.mirror(to, original, random));
        target.ok_or(Outcome::Unreachable)
    }

    /// Takes a slot for a mirror, and begins to reach it: it may be gone again at once.
    fn open_mirror(&mut self, owner: Token, target: Target) -> Token {
        let connection = &self.slab[owner.slot as usize];
        let (original_dst, direction) = (connection.original_dst, connection.direction);
        let protocol = connection.protocol();
        self.descriptors.take();
        let slot = self.occupy_leg(original_dst, direction);
        self.mirrors += 1;
        self.show_legs();
        let upstream = Token { side: Side::Upstream, ..self.downstream_of(slot) };
        let until = self.core.now.saturating_add(nanos(self.core.limits.connect_timeout));
        let mut goal = Goal::new(target, true);
        goal.until = until;
        let (stand, goal) = (Stand::Resolving, Some(Box::new(goal)));
        let mirror = Mirror {
            owner: Some(owner),
            switch: Switch { goal, stand, ..Switch::default() },
            remote: None,
            protocol,
            carry: Vec::new(),
            pending: VecDeque::new(),
            closes_at: 0,
        };
        self.slab[slot as usize].tap = Some(Along::Mirror(Box::new(mirror)));
        self.timers.set(&mut self.slab, slot, Timer::Dial, until);
        self.resolve(upstream.other());
        upstream
    }

    /// How many legs and mirrors there are.
    pub(super) fn show_legs(&self) {
        self.core.recorder.set(Gauge::LegsActive, (self.legs - self.mirrors).into());
        self.core.recorder.set(Gauge::MirrorsActive, self.mirrors.into());
    }

    /// The slot of a leg or of a mirror is free.
    pub(crate) fn leg_is_gone(&mut self, was_mirror: bool) {
        self.legs -= 1;
        self.mirrors -= u32::from(was_mirror);
        self.show_legs();
    }

    pub(super) fn is_mirror(&self, slot: u32) -> bool {
        self.slab[slot as usize].is_mirror()
    }

    /// A mirror has been reached: the copies that wait go out.
    pub(super) fn settle_mirror(&mut self, downstream: Token) {
        let upstream = downstream.other();
        let Some(mirror) = self.mirror_of(upstream) else { return };
        mirror.switch.stand = Stand::Settled;
        mirror.switch.goal.iter_mut().for_each(|goal| goal.settle());
        self.core.io.receive(upstream);
        self.time_mirror(upstream.slot);
        self.flush_mirror(upstream);
        self.core.io.acknowledge_at_once(upstream);
    }

    /// Nobody was reached: its connection does not try again at once.
    pub(super) fn give_up_mirror(&mut self, downstream: Token) {
        let (until, slot) = (self.core.now + RETRY_NS, downstream.slot);
        let Some(mirror) = self.mirror_in(slot) else { return };
        // Its socket is closed, if there was one.
        mirror.switch.stand = Stand::GaveUp;
        let owner = mirror.owner;
        if let Some(owner) = owner.filter(|it| self.is_owner(*it))
            && let Some(Some(copies)) = self.copies_of(owner.slot)
        {
            copies.refused_until = until;
        }
        self.end_mirror(slot, Outcome::Unreachable, Close::Reset);
    }

    fn is_owner(&self, owner: Token) -> bool {
        self.slab[owner.slot as usize].generation == owner.generation
    }

    /// Sends copies to a mirror, whole messages of these lengths; they are dropped where it has not taken
    /// those before.
    fn copy_to(&mut self, token: Token, bytes: &[u8], lens: &[u32]) {
        let count = u32::try_from(lens.len()).unwrap_or(u32::MAX);
        let Some(mirror) = self.mirror_of(token) else {
            return self.count_copies(Outcome::Cut, count);
        };
        let waits = mirror.switch.stand != Stand::Settled || !mirror.carry.is_empty();
        if waits && mirror.carry.len() + bytes.len() > COPY_MAX {
            return self.count_copies(Outcome::Slow, count);
        }
        let sent = match waits {
            true => Ok(0),
            false => taken(self.core.io.send(token, bytes), Side::Upstream),
        };
        let Ok(sent) = sent else {
            self.count_copies(Outcome::Cut, count);
            return self.end_mirror(token.slot, Outcome::Cut, Close::Reset);
        };
        if sent == bytes.len() {
            return self.has_sent(token, sent, count);
        }
        let Some(mirror) = self.mirror_of(token) else { return };
        let before = mirror.kept();
        mirror.carry.extend_from_slice(&bytes[sent..]);
        mirror.pending.extend(lens);
        let whole = mirror.has_sent(sent);
        self.core.taps.held_bytes += mirror.kept() - before;
        if !waits {
            self.core.io.watch_write(token);
            self.has_sent(token, sent, whole);
        }
    }

    /// Sends what a mirror is carried.
    fn flush_mirror(&mut self, token: Token) {
        let Some(mirror) = self.mirror_of(token).filter(|mirror| !mirror.carry.is_empty()) else {
            return;
        };
        let carry = std::mem::take(&mut mirror.carry);
        let sent = taken(self.core.io.send(token, &carry), Side::Upstream);
        let Some(mirror) = self.mirror_of(token) else { return };
        mirror.carry = carry;
        let Ok(sent) = sent else {
            return self.end_mirror(token.slot, Outcome::Cut, Close::Reset);
        };
        let before = mirror.kept();
        mirror.carry.drain(..sent);
        let whole = mirror.has_sent(sent);
        let (kept, is_blocked) = (mirror.kept(), !mirror.carry.is_empty());
        self.core.taps.held_bytes -= before - kept;
        if is_blocked {
            self.core.io.watch_write(token);
        }
        self.has_sent(token, sent, whole);
    }

    /// So many bytes went to a mirror, and so many copies are sent whole with them.
    fn has_sent(&mut self, token: Token, bytes: usize, copies: u32) {
        let now = self.core.now;
        self.slab[token.slot as usize].request.also_moved(bytes as u64, now);
        self.count_copies(Outcome::Sent, copies);
    }

    /// An event of a mirror's socket.
    pub(super) fn on_mirror_event(&mut self, token: Token, event: Event) {
        let Some(mirror) = self.mirror_of(token) else { return };
        if mirror.switch.stand != Stand::Settled {
            return self.on_switch_event(token, &event);
        }
        match event {
            Event::Received(_, buffer) => self.forget(token, buffer),
            Event::Writable(_) => self.flush_mirror(token),
            Event::Starved(_) | Event::Readable(_) => self.drain_mirror(token),
            Event::Ended(_) => self.end_mirror(token.slot, Outcome::Cut, Close::Orderly),
            Event::Failed(..) => self.end_mirror(token.slot, Outcome::Cut, Close::Reset),
            _ => {}
        }
    }

    /// What a mirror has said goes nowhere.
    fn forget(&mut self, token: Token, buffer: BufferId) {
        let (len, now) = (self.core.pool.bytes(buffer).len(), self.core.now);
        self.core.pool.give_back(buffer);
        self.slab[token.slot as usize].response.also_moved(len as u64, now);
    }

    /// Takes what a mirror says, for which there was no buffer.
    pub(super) fn drain_mirror(&mut self, token: Token) {
        for _ in 0..ROUNDS {
            let Self { core, slab, .. } = self;
            let taken = match core.io.peek(token, &mut core.scratch) {
                Ok(len @ 1..) => core.io.take(token, len).map(|()| len),
                other => other,
            };
            match taken {
                Ok(len @ 1..) => {
                    slab[token.slot as usize].response.also_moved(len as u64, core.now);
                }
                Err(error) if would_block(&error) && core.pool_is_scarce() => {
                    return core.io.watch_read(token);
                }
                Err(error) if would_block(&error) => return core.io.receive(token),
                Ok(_) => return self.end_mirror(token.slot, Outcome::Cut, Close::Orderly),
                Err(_) => return self.end_mirror(token.slot, Outcome::Cut, Close::Reset),
            }
        }
        self.core.again.push_back(token);
    }

    /// The connection of a mirror has no further copies for it.
    fn let_go(&mut self, token: Token) {
        let (closes_at, drains) = (self.core.now + LAST_MAX_NS, self.drain_until.is_some());
        let Some(mirror) = self.mirror_of(token) else { return };
        (mirror.owner, mirror.closes_at) = (None, closes_at);
        let (stand, has_all) = (mirror.switch.stand, mirror.carry.is_empty());
        match stand {
            Stand::Settled if drains && has_all => {
                self.end_mirror(token.slot, Outcome::Cut, Close::Orderly);
            }
            Stand::Settled => self.time_mirror(token.slot),
            _ if has_all => self.end_mirror(token.slot, Outcome::Cut, Close::Reset),
            _ => {}
        }
    }

    /// When a mirror is looked at next.
    fn time_mirror(&mut self, slot: u32) {
        let has_owner = self.mirror_in(slot).is_some_and(|mirror| mirror.owner.is_some());
        let (timer, time) =
            if has_owner { (Timer::Leg, IDLE_NS) } else { (Timer::Mirror, LAST_NS) };
        let at = self.core.now + time;
        self.timers.set(&mut self.slab, slot, timer, at);
    }

    /// A mirror may have had nothing for a while.
    pub(crate) fn on_mirror_idle(&mut self, slot: u32) {
        let quiet = self.core.now.saturating_sub(self.slab[slot as usize].moved_at());
        let now = self.core.now;
        let Some(mirror) = self.mirror_in(slot) else { return };
        let is_over = match mirror.owner {
            Some(_) => quiet >= IDLE_NS,
            None => quiet >= LAST_NS || now >= mirror.closes_at,
        };
        match is_over {
            // What is carried for so long is taken by nobody.
            true => self.end_mirror(slot, Outcome::Slow, Close::Orderly),
            false => self.time_mirror(slot),
        }
    }

    /// Closes a mirror's socket; what it had not been sent is lost for this reason.
    pub(crate) fn end_mirror(&mut self, slot: u32, why: Outcome, how: Close) {
        let Some(mirror) = self.mirror_in(slot) else { return };
        let (kept, pending) = (mirror.kept(), std::mem::take(&mut mirror.pending));
        mirror.carry = Vec::new();
        self.core.taps.held_bytes -= kept;
        self.count_copies(why, u32::try_from(pending.len()).unwrap_or(u32::MAX));
        self.end_leg(slot, how);
    }
}

impl Connection {
    /// When a slot's bytes moved last, or it was taken.
    fn moved_at(&self) -> Nanos {
        self.last_moved().max(self.accepted_at)
    }
}
