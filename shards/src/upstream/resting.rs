//! Upstreams of HTTP/1 that rest, step by step: what a connection leaves is kept for a moment, and taken
//! up again without a dial where a request is to go there. No socket changes its number: the two that
//! change places are exchanged under their tokens.

use crate::{
    along::Along,
    io::{Close, Event, Io, Side, Token},
    shard::Shard,
    switch::{Switch, leg::Leg, resting::Resting},
    sys::Nanos,
    timers::Timer,
};
use netra_perf::Key;

/// How long an upstream may rest. Shorter than servers keep what is idle (gunicorn: 2 s, Node.js and
/// uvicorn: 5 s), so that a request hardly ever meets one that is just being closed. Who comes back less
/// often can afford the dial.
const REST_NS: Nanos = 1_000_000_000;
/// For so long one that rests is not looked at before it is asked again, no more than one is that has not
/// rested: what it says comes as an event, and nobody closes what was idle for so short a time.
const FRESH_NS: Nanos = 10_000_000;

impl<I: Io> Shard<I> {
    /// Whether the upstream that is about to be left may rest.
    fn may_rest(&self, downstream: Token) -> bool {
        let connection = &self.slab[downstream.slot as usize];
        let Some(http) = connection.http.as_deref().filter(|it| it.may_come_back()) else {
            return false;
        };
        let is_fit = http.resting.as_deref().is_some_and(Resting::may_rest);
        is_fit
            && !http.switch.is_parted
            && connection.response.may_rest()
            && !connection.request.is_stalled()
    }

    /// The upstream that is about to be left rests from now on, where it may. What is to be known of those
    /// that follow is noted from the first change on.
    pub(super) fn rest(&mut self, downstream: Token) -> bool {
        let others_max = self.core.limits.legs_max.saturating_sub(1) as usize;
        let may_rest = self.may_rest(downstream);
        let has_room = self.descriptors.room() > 0;
        let connection = &mut self.slab[downstream.slot as usize];
        let (original_dst, direction) = (connection.original_dst, connection.direction);
        let Some(http) = connection.http.as_deref_mut() else { return false };
        let remote = http.remote;
        if others_max == 0 || http.is_http2() {
            return false;
        }
        let resting = http.resting.get_or_insert_default();
        if !may_rest || !has_room || resting.count() >= others_max {
            return false;
        }
        self.descriptors.take();
        let slot = self.occupy_leg(original_dst, direction);
        let token = Token { side: Side::Upstream, ..self.downstream_of(slot) };
        let switch = Switch::default();
        let leg = Leg {
            owner: downstream,
            place: 0,
            switch,
            remote,
            is_successor: false,
            protocol: "http1",
        };
        self.slab[slot as usize].tap = Some(Along::Leg(Box::new(leg)));
        if !self.exchange(downstream, token) {
            self.vacate(slot);
            return false;
        }
        self.core.recorder.bump(Key::LEG_OPENED);
        self.rest_from_now(slot);
        if let Some(http) = self.slab[downstream.slot as usize].http.as_deref_mut()
            && let Some(resting) = http.resting.as_deref_mut()
        {
            http.seats.rest(resting.add(token, remote, http.seats.lane()));
        }
        true
    }

    /// Goes back to an upstream that rests, where the request that waits is to go there. The one that
    /// there was rests in its place, or is closed.
    pub(super) fn come_back(&mut self, downstream: Token) -> bool {
        let Some(http) = self.slab[downstream.slot as usize].http.as_deref() else { return false };
        let Some(resting) = http.resting.as_deref() else { return false };
        let there = resting.find(http.switch.target()).filter(|_| http.may_come_back());
        let Some(token) = there else { return false };
        if !self.is_fresh(token.slot) && !self.is_silent(token) {
            self.lose_resting(downstream, token.slot);
            return false;
        }
        let rests = self.may_rest(downstream);
        if !self.exchange(downstream, token) {
            return false;
        }
        let Some(http) = self.slab[downstream.slot as usize].http.as_deref_mut() else {
            return false;
        };
        let (remote, lane) = (http.remote, http.seats.lane());
        let is_parted = std::mem::take(&mut http.switch.is_parted);
        let resting = http.resting.as_deref_mut();
        let back = resting.and_then(|it| match rests {
            true => it.take_turns(token.slot, remote, lane),
            false => it.remove(token.slot),
        });
        let Some(back) = back else { return false };
        if !rests {
            http.seats.lose(lane);
        }
        http.seats.hop(back.lane);
        let connection = &mut self.slab[downstream.slot as usize];
        connection.set_remote(back.remote);
        connection.request.change_receiver();
        connection.name_remote(&mut self.core);
        match (rests, is_parted) {
            (true, _) => {
                self.slab[token.slot as usize].set_remote(remote);
                self.rest_from_now(token.slot);
            }
            (false, true) => self.vacate(token.slot),
            (false, false) => self.end_leg(token.slot, Close::Orderly),
        }
        if self.take_up(downstream) {
            self.tend_read(downstream);
            self.renew_deadline(downstream.slot);
        }
        true
    }

    /// Exchanges the connection's upstream and what stands under the token of a leg.
    fn exchange(&mut self, downstream: Token, leg: Token) -> bool {
        if !self.core.io.exchange(downstream.other(), leg) {
            return false;
        }
        self.core.own_dials.exchange([downstream.slot, leg.slot]);
        self.young.exchange([downstream.other(), leg]);
        self.slab[downstream.slot as usize].detach(&mut self.core, downstream);
        true
    }

    fn rest_from_now(&mut self, slot: u32) {
        let until = self.core.now + REST_NS;
        self.timers.set(&mut self.slab, slot, Timer::Rest, until);
    }

    /// It has rested for a moment only.
    fn is_fresh(&self, slot: u32) -> bool {
        let left = self.slab[slot as usize].link.at().saturating_sub(self.core.now);
        left > REST_NS - FRESH_NS
    }

    /// An upstream that rests has something to say: nothing was asked of it.
    #[cold]
    pub(super) fn on_resting_event(&mut self, owner: Token, token: Token, event: Event) {
        match event {
            Event::Writable(_) => return,
            Event::Received(_, buffer) => self.core.pool.give_back(buffer),
            _ => {}
        }
        self.lose_resting(owner, token.slot);
    }

    /// Nobody came back to it.
    pub(crate) fn has_rested(&mut self, slot: u32) {
        if let Some(owner) = self.owner_of(slot) {
            self.lose_resting(owner, slot);
        }
    }

    fn lose_resting(&mut self, owner: Token, slot: u32) {
        if let Some(http) = self.slab[owner.slot as usize].http.as_deref_mut()
            && let Some(rest) = http.resting.as_deref_mut().and_then(|it| it.remove(slot))
        {
            http.seats.lose(rest.lane);
        }
        self.end_leg(slot, Close::Orderly);
    }

    /// A connection ends, or its requests are no longer read: nothing goes to what rests.
    pub(crate) fn end_resting(&mut self, owner: Token, how: Close) {
        loop {
            let http = self.slab[owner.slot as usize].http.as_deref_mut();
            let resting = http.and_then(|http| http.resting.as_deref_mut());
            let Some(rest) = resting.and_then(Resting::pop) else { return };
            self.end_leg(rest.token.slot, how);
        }
    }
}
