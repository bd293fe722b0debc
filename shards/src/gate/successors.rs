//! What a leg owes that ends is asked again by another one, its successor, where a rule lets it. That is always a
//! new leg: where answers come in order, one that there is may have been asked what is to be answered later.
//!
//! Only what is kept goes on. Of the rest each client is told in its turn (`legs.rs`), which does not part an answer
//! from its request: whose turn it is, the ledger knows.

use super::Gate;
use crate::{
    again::Onward,
    core::Core,
    io::{Io, Token},
    switch::goal::Goal,
    sys::Nanos,
    tap::{Carried, Tapped},
};
use netra_codecs::{codec::Open, route::Target};
use netra_perf::Key;
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
        original_dst: SocketAddr,
        now: Nanos,
    ) -> Option<(u8, Target)> {
        if !self.may_lose(place, has_ended) {
            return None;
        }
        let attempts = self.attempts(place)?;
        let to = self.legs.as_deref_mut()?.free_place(token);
        let seats = &mut self.tapped.of.seats;
        seats.succeed((place, to), attempts, original_dst, now).map(|target| (to, target))
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
            open.lane = to;
            core.recorder.bump(Key::SENT_AGAIN);
        }
        legs.reach(to, token, carry);
        self.settle(&mut core.taps, &core.recorder);
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
        let Tapped { tap, of, .. } = &mut self.tapped;
        let Some(seat) = of.seats.of_lane(place) else { return };
        seat.connected_again();
        for open in tap.newest(usize::MAX).filter(|open| is_owed(open, place)) {
            if let Some(span) = open.data.span {
                let record = core.observer.record_mut(span);
                (record.remote, record.tries) = (remote, seat.tries());
            }
        }
    }
}
