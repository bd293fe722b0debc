//! What a leg owes that ends is asked again by another one, its successor, where a rule lets it. That is always a
//! new leg: where answers come in order, one that there is may have been asked what is to be answered later.
//!
//! Only what is kept goes on. Of the rest each client is told in its turn (`legs.rs`), which does not part an answer
//! from its request: whose turn it is, the ledger knows.

use super::{Flows, Gate};
use crate::{
    again::{Again, Onward},
    core::Core,
    io::{Io, Token},
    patience::LATER_NS,
    switch::{goal::Goal, seats::Leaving},
    sys::Nanos,
    tap::{Carried, Tapped},
};
use netra_codecs::{codec::Open, route::Target, trace::RetryReason};
use netra_perf::Key;
use netra_rules::Heard;
use std::net::SocketAddr;

/// This leg was asked, and owes an answer.
fn is_owed(open: &Open<Carried>, place: u8) -> bool {
    open.lane == place && !open.is_refused()
}

impl Gate {
    /// Where the kept part of what this leg owes is to go, now that the leg ends, and the place of the leg that is to
    /// lead there. None where nothing is asked again.
    pub(crate) fn successor(
        &mut self,
        (place, has_ended): (u8, bool),
        token: Token,
        (original_dst, reason): (SocketAddr, RetryReason),
        now: Nanos,
    ) -> Option<(u8, Target)> {
        if !self.may_lose(place, has_ended) {
            return None;
        }
        let attempts = self.attempts(place)?;
        let to = self.legs.as_deref_mut()?.free_place(token);
        let seats = &mut self.tapped.of.seats;
        let why = Leaving::of(reason, Heard::Fault);
        let target = seats.succeed((place, to), (attempts, why), original_dst, now)?;
        Some((to, target))
    }

    /// How often what this leg owes, and is kept, may be sent again; None where nothing is.
    fn attempts(&mut self, place: u8) -> Option<u8> {
        let Tapped { tap, patience, .. } = &mut self.tapped;
        let again = patience.as_deref()?.again.as_deref()?;
        let owed = tap.newest(usize::MAX).filter(|open| is_owed(open, place));
        owed.filter_map(|open| again.get(open.data.kept)).map(|(_, attempts)| attempts).min()
    }

    /// The leg is being reached that takes over what another one owes, as far as it is kept.
    pub(crate) fn take_over<I: Io>(
        &mut self,
        core: &mut Core<I>,
        (from, to): (u8, u8),
        token: Token,
    ) {
        let Tapped { tap, patience, .. } = &mut self.tapped;
        let again = patience.as_deref_mut().and_then(|it| it.again.as_deref_mut());
        let (Some(again), Some(legs)) = (again, self.legs.as_deref_mut()) else { return };
        let mut carry = Vec::new();
        for open in tap.newest(usize::MAX).filter(|open| is_owed(open, from)) {
            let Some((bytes, _)) = again.get(open.data.kept) else { continue };
            carry.extend_from_slice(bytes);
            again.note_repeated(open.data.kept);
            again.forget_withheld(open.data.kept);
            open.lane = to;
            core.recorder.bump(Key::SENT_AGAIN);
        }
        legs.reach(to, token, carry);
        self.settle(&mut core.taps, &core.recorder);
    }

    /// The place of an upstream that owes an answer for longer than one try may take, where it has not begun to give
    /// one. Asks for another look at those that may be later.
    pub(super) fn late_try(&mut self, flows: Flows, now: Nanos) -> Option<u8> {
        if !self.again().is_some_and(Again::is_timed) {
            return None;
        }
        let (is_in_order, is_within) = (self.is_in_order(), self.is_within_answer());
        // With legs, what one says may wait for its turn.
        let is_held = match self.legs.as_deref() {
            Some(legs) => legs.is_full(),
            None => flows.hold != [false; 2],
        };
        let is_slow = is_within || is_held || self.has_untold() || self.is_repeating();
        let Tapped { tap, patience, .. } = &mut self.tapped;
        let patience = patience.as_deref_mut()?;
        let again = patience.again.take()?;
        let mut late = None;
        for open in tap.newest(usize::MAX) {
            if let Some((limit, since)) = again.try_of(open.data.kept) {
                // In order, its time begins when those before it are answered.
                let since = if is_in_order { since.max(flows.moved[1]) } else { since };
                let at = since.saturating_add(limit);
                let is_late = at <= now && !is_slow && !open.is_refused();
                late = late.or(is_late.then_some(open.lane));
                patience.want(if at > now { at } else { now.saturating_add(limit.max(LATER_NS)) });
            }
            if is_in_order {
                break;
            }
        }
        patience.again = Some(again);
        late
    }

    /// All that this leg owes is kept, and no request is under way by it.
    pub(crate) fn owes_only_kept(&mut self, place: u8) -> bool {
        let is_within = self.is_within_request() && !self.is_moving();
        let is_sending = is_within || !self.request.carry.is_empty();
        if self.is_current(place) && is_sending {
            return false;
        }
        let Tapped { tap, patience, .. } = &mut self.tapped;
        let again = patience.as_deref().and_then(|it| it.again.as_deref());
        let Some(again) = again else { return false };
        let mut owed = tap.newest(usize::MAX).filter(|open| is_owed(open, place));
        owed.all(|open| again.get(open.data.kept).is_some())
    }

    /// All that is owed by the only upstream is kept, and may be asked again now.
    pub(crate) fn may_ask_again(&mut self) -> bool {
        matches!(self.onward(), Some(Onward::Again(_)))
    }

    /// All legs have ended, and owe nothing. Whether the connection goes on without an upstream, until something
    /// is asked: there are no legs then.
    pub(crate) fn parts_from_legs(&mut self) -> bool {
        let legs = self.legs.take();
        if self.onward() != Some(Onward::Between) {
            self.legs = legs;
            return false;
        }
        self.abandon_legs();
        self.tapped.of.seats.clear();
        self.part();
        true
    }

    /// It has been reached.
    pub(crate) fn has_taken_over<I: Io>(
        &mut self,
        core: &mut Core<I>,
        place: u8,
        (goal, remote): (Option<Box<Goal>>, Option<SocketAddr>),
    ) {
        let Some(legs) = self.legs.as_deref_mut() else { return };
        legs.settle(place, goal, remote);
        let Tapped { tap, of, patience, .. } = &mut self.tapped;
        let Some(seat) = of.seats.of_lane(place) else { return };
        seat.connected_again();
        let now = core.now;
        let mut again = patience.as_deref_mut().and_then(|it| it.again.as_deref_mut());
        for open in tap.newest(usize::MAX).filter(|open| is_owed(open, place)) {
            again.iter_mut().for_each(|again| again.begin_try(open.data.kept, now));
            if let Some(span) = open.data.span {
                let record = core.observer.record_mut(span);
                (record.remote, record.tries) = (remote, seat.tries());
            }
        }
    }
}
