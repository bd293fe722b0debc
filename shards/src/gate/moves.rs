//! Requests that go to another upstream than the one before: whether they may, and what waits
//! while the upstream is changed.

use super::{Gate, requests::Judged};
use crate::{
    core::Core,
    exchange::{Gates, Routed, Scraps, Seating},
    io::Io,
    switch::{Stand, Switch, seats::Seats},
    tap::Carried,
};
use netra_codecs::{
    codec::{Correlation, Kind, Open, Refusal, Replied, Stays, Way, Why},
    route::Target,
    tap::Message,
    trace::Outcome,
};
use netra_perf::{Key, Recorder};
use std::{io::Write as _, net::SocketAddr};

impl Judged<'_> {
    /// Where a request is to go, if that is elsewhere than the last one and it may go there; the
    /// inner None is the original destination.
    #[inline]
    pub(super) fn moves(
        &mut self,
        message: &Message<'_>,
        to: Routed,
        gates: &Gates,
        recorder: &Recorder,
    ) -> Option<Option<Target>> {
        let place = match to {
            Routed::Home if self.switch.goal.is_none() && !self.switch.is_gone => return None,
            Routed::Home => None,
            Routed::To(place) => Some(place),
        };
        let (original, seats) = (self.asker.original_dst, &mut self.of.seats);
        let seat = |place| gates.decider().map_or(Seating::None, |it| it.seat(place, seats.now()));
        let seating = place.map_or(Seating::None, seat);
        if place.is_some() && self.switch.place() == place && !self.switch.is_gone {
            seats.take(seating, false);
            return None;
        }
        let target = place.and_then(|place| gates.decider()?.target(place, original));
        if !self.switch.is_elsewhere(target.as_ref()) {
            self.switch.is_at(place);
            seats.take(seating, false);
            return None;
        }
        if let Some(stays) = self.stays(message) {
            recorder.bump(Key::route_stays(stays as usize));
            return None;
        }
        self.of.seats.take(seating, true);
        self.switch.leave_for(target, self.old_goal);
        self.switch.is_at(place);
        Some(target)
    }

    /// Why the connection cannot be moved, if it cannot.
    fn stays(&self, message: &Message<'_>) -> Option<Stays> {
        if self.switch.is_deferred {
            return None;
        }
        let is_session = !message.protocol().moves();
        is_session.then_some(Stays::Protocol).or_else(|| self.left.stays())
    }

    /// A request waits for another upstream; what its client is told if there is none waits with
    /// it.
    pub(super) fn park(
        &mut self,
        message: &Message<'_>,
        exchange: &mut Open<Carried>,
        target: Option<&Target>,
        scraps: &mut Scraps,
    ) {
        // Until it is sent, no answer is meant for it.
        exchange.refuse();
        exchange.data.waits = true;
        if exchange.kind.is_silent() {
            return;
        }
        let mut text = scraps.lend();
        // What is written into memory goes there.
        let _ = match target {
            Some(target) => write!(text, "netra: {target} cannot be reached"),
            None => write!(text, "netra: the original destination cannot be reached"),
        };
        let said = std::str::from_utf8(&text).unwrap_or_default();
        let refusal = Refusal { why: Why::Unreachable, text: said, is_alone: false };
        self.replies.add(Why::Unreachable, scraps, |out| message.reply(&refusal, out));
        scraps.take_back(&mut text);
        self.replies.last_waits = true;
    }
}

/// What the change of a gated connection's upstream needs of it.
impl Gate {
    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }

    pub(crate) fn switch_mut(&mut self) -> &mut Switch {
        &mut self.switch
    }

    pub(crate) fn seats_mut(&mut self) -> &mut Seats {
        &mut self.tapped.of.seats
    }

    /// A request waits for another upstream.
    pub(super) fn is_moving(&self) -> bool {
        self.switch.stand != Stand::Settled
    }

    /// Everything that was asked before the request that waits has been answered, and has left.
    pub(crate) fn has_drained(&mut self) -> bool {
        let tap = &mut self.tapped.tap;
        let may_be_left = |open: &Open<Carried>| open.data.waits || open.kind == Kind::Quiet;
        let is_answered = tap.newest(usize::MAX).all(|open| may_be_left(open));
        let is_between = !tap.is_within_message(Way::Response) && !tap.has_ended(Way::Response);
        let has_left = self.request.carry.is_empty();
        let has_told = self.response.kept() == 0 && self.response.cleared == 0;
        is_answered && is_between && has_left && has_told && !self.must_close
    }

    /// Whether an answer that never comes is noticed by nobody but whoever waits for it.
    pub(crate) fn may_wait_for_ever(&self) -> bool {
        self.tapped.protocol().about().correlation != Correlation::Fifo
    }

    /// Where its requests go, for those who are told of them.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.tapped.of.remote
    }

    /// Its requests go there from now on.
    pub(crate) fn set_remote(&mut self, remote: Option<SocketAddr>) {
        self.tapped.of.remote = remote;
    }

    /// Names the upstream that was dialled in the span of the request that waits for it.
    pub(crate) fn name_remote<I: Io>(&mut self, core: &mut Core<I>) {
        let (remote, tries) = (self.tapped.of.remote, self.tapped.of.seats.tries());
        let is_repeating = self.is_repeating();
        let count = if is_repeating { usize::MAX } else { 1 };
        let is_meant = |open: &&mut Open<Carried>| open.data.waits || is_repeating;
        for open in self.tapped.tap.newest(count).filter(is_meant) {
            if let Some(span) = open.data.span {
                let record = core.observer.record_mut(span);
                (record.remote, record.tries) = (remote, tries);
            }
        }
    }

    /// There is an upstream that the request which waits may go to: the next step sends it.
    pub(crate) fn go_on<I: Io>(&mut self, core: &mut Core<I>) {
        self.switch.stand = Stand::Settled;
        for open in self.tapped.tap.newest(1).filter(|open| open.data.waits) {
            open.pass_on();
            open.data.waits = false;
            let words = self.replies.last().filter(|_| self.replies.last_waits);
            if let (Some(legs), Some(words)) = (&mut self.legs, words) {
                let write = |out: &mut Vec<u8>| {
                    out.extend_from_slice(words);
                    Replied::Sent
                };
                open.data.words = legs.words.add(write);
            }
        }
        if self.replies.last_waits {
            self.replies.withdraw_last(&mut core.gates.scraps);
        }
        if !self.has_repeated(core.now) {
            self.wait_again(core.now);
        }
        if self.request.carry.is_empty() {
            std::mem::swap(&mut self.request.carry, &mut self.parked);
        }
        self.request.carry.append(&mut self.parked);
        core.gates.scraps.take_back(&mut self.parked);
        self.was_paused = true;
        self.settle(&mut core.taps, &core.recorder);
    }

    /// There is none. Returns what the client of the request that waits is told; None where there
    /// are no words for that.
    pub(crate) fn fail<I: Io>(&mut self, core: &mut Core<I>) -> Option<Vec<u8>> {
        let mut told = Vec::new();
        let has_words = std::mem::take(&mut self.replies.last_waits);
        let due = self.replies.take(&mut told, &mut core.gates.scraps).filter(|_| has_words);
        core.recorder.bump(Key::refused(Why::Unreachable as usize));
        if due.is_some()
            && let Some(mut exchange) = self.tapped.tap.take_refused()
        {
            // What came of it has been noted where it was dialled.
            exchange.data.is_seated = false;
            let Core { observer, recorder, now, .. } = core;
            let (error, how) = (Why::Unreachable.name().as_bytes(), (Outcome::Whole, *now));
            self.tapped.of.finish(&exchange, error, how, observer, recorder);
        }
        self.give_up(core, Stand::GaveUp);
        match due {
            Some(due) if !due.is_told => None,
            _ => Some(told),
        }
    }

    /// The upstream has ended before it was left, and so does the connection.
    pub(crate) fn strand<I: Io>(&mut self, core: &mut Core<I>) {
        self.tapped.end_way(core, crate::io::Side::Upstream);
        self.give_up(core, Stand::Stranded);
    }

    /// Nothing of what its client sends goes anywhere.
    pub(super) fn give_up<I: Io>(&mut self, core: &mut Core<I>, stand: Stand) {
        (self.switch.stand, self.drops) = (stand, false);
        (self.request, self.replies, self.parked) = Default::default();
        self.old_goal = None;
        self.tapped.patience = None;
        self.settle(&mut core.taps, &core.recorder);
    }
}
