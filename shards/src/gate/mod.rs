//! A connection of a protocol beside HTTP/1 where messages are decided about or edited: its tap is
//! shown the bytes *before* they leave.
//!
//! | way | when | what |
//! |---|---|---|
//! | request | always | a head waits until it is whole; then it goes out, edited, or is refused |
//! | response | a refusal waits for its turn, or an answer is to be edited or withheld | the same, cut between messages |
//! | response | otherwise | bytes first, as of every tap |
//!
//! Only heads are held, never bodies. Where the tap does not know what comes next it keeps that
//! itself; a gate has the same bytes as they came, because they have not left. What is not certain
//! goes out as it came, and the connection is a tunnel.

mod again;
mod answers;
mod copying;
mod elsewhere;
mod gathered;
mod late;
mod legs;
mod moves;
mod outgoing;
mod replies;
mod requests;
mod successors;
mod words;

use crate::{
    copies::Copies,
    core::Core,
    error::End,
    exchange::{Asker, Gates, Source, Taps, Wants},
    io::{Io, Side, Token},
    sends::Gated,
    switch::{Stand, Switch, goal::Goal},
    sys::Nanos,
    tap::Tapped,
};
pub(crate) use late::Flows;
use legs::Legs;
pub(crate) use legs::{HOME, LegState, Path};
use netra_codecs::{
    codec::{CannotEdit, Left, Reason, Way},
    tap::Message,
    trace::Outcome,
};
use netra_perf::{Key, Recorder};
pub(crate) use outgoing::Outgoing;
use replies::Replies;
pub(crate) use requests::{Fate, Run};
use std::num::NonZeroU32;

/// The gate of one connection.
#[derive(Debug)]
pub(crate) struct Gate {
    tapped: Tapped,
    asker: Asker,
    wants: Wants,
    request: Outgoing,
    response: Outgoing,
    replies: Replies,
    /// Some of its answers are edited, or may be withheld.
    cuts_answers: bool,
    /// What comes is the rest of a request that was refused.
    drops: bool,
    /// The client cannot be told: both sides are closed when all before it has been sent.
    must_close: bool,
    /// The upstream has ended its stream.
    has_ended: bool,
    /// Another upstream is wanted, or being reached; or a request waits.
    switch: Switch,
    /// Where requests went before the one that wants another upstream; while none does, storage.
    old_goal: Option<Box<Goal>>,
    /// Several upstreams; none where it has one.
    legs: Option<Box<Legs>>,
    /// The message that waits for another upstream, as it is to be sent there.
    parked: Vec<u8>,
    /// What its requests have left behind at the upstream.
    left: Left,
    /// Copies of its requests; none before there was one.
    copies: Option<Box<Copies>>,
    /// Whether requests waited when somebody last looked.
    was_paused: bool,
    /// Bytes that are kept, as counted in [`Taps::held_bytes`].
    kept: u32,
    /// Messages whose head was whole.
    messages: u32,
    /// How many there were when the deadline was set, of the head that came next; one more.
    timed: Option<NonZeroU32>,
}

impl Gate {
    /// A connection that begins, if there is anything to do for a gate.
    pub(crate) fn new(
        tapped: Box<Tapped>,
        asker: Asker,
        gates: &Gates,
    ) -> Result<Self, Box<Tapped>> {
        let wants = gates.wants(tapped.protocol(), &asker);
        if !wants.writes && !wants.decides {
            return Err(tapped);
        }
        Ok(Self {
            tapped: *tapped,
            asker,
            wants,
            request: Outgoing::default(),
            response: Outgoing::default(),
            replies: Replies::default(),
            cuts_answers: false,
            drops: false,
            must_close: false,
            has_ended: false,
            switch: Switch::default(),
            old_goal: None,
            legs: None,
            parked: Vec::new(),
            left: Left::default(),
            copies: None,
            was_paused: false,
            kept: 0,
            messages: 0,
            timed: None,
        })
    }

    /// Other rules are in force: whether they have to do with the connection.
    pub(crate) fn look_again(&mut self, gates: &Gates) {
        self.wants = gates.wants(self.tapped.protocol(), &self.asker);
    }

    /// Its tap.
    pub(crate) fn tapped(&self) -> &Tapped {
        &self.tapped
    }

    /// Nothing is left to do: from here on the connection is bytes.
    pub(crate) fn is_over(&self) -> bool {
        self.tapped.is_over() && self.is_empty() && self.legs.is_none() && self.copies.is_none()
    }

    /// There is nothing to do but to read along, and nothing that waits: it may go on as its tap,
    /// where nothing waits at its flows either.
    pub(crate) fn may_be_tap(&self) -> bool {
        let has_one = self.legs.is_none() && self.copies.is_none() && !self.switch.is_parted;
        let is_home = self.switch.goal.is_none() && has_one;
        is_home && !self.wants.writes && !self.wants.decides && self.is_empty() && self.kept == 0
    }

    /// Goes on as its tap.
    pub(crate) fn into_tapped(self) -> Tapped {
        debug_assert!(self.may_be_tap() && self.kept == 0);
        self.tapped
    }

    fn is_empty(&self) -> bool {
        let is_quiet = |way: &Outgoing| way.kept() == 0 && way.cleared == 0;
        let waits = self.switch.is_under_way() || self.drops || self.must_close;
        let tells = self.withholds_any() || self.has_overdue() || self.is_timed();
        !waits
            && !tells
            && is_quiet(&self.request)
            && is_quiet(&self.response)
            && self.replies.is_empty()
    }

    /// Nothing of the way may be sent now.
    pub(crate) fn is_paused(&mut self, from: Token) -> bool {
        match from.side {
            Side::Downstream => self.holds_requests(),
            Side::Upstream => !self.may_speak(self.place_of(from)),
        }
    }

    /// Nothing at all may be sent by this flow now, be it netra's own.
    pub(crate) fn is_stopped(&mut self, from: Token) -> bool {
        match from.side {
            Side::Downstream => self.holds_requests(),
            Side::Upstream => self.is_silenced(self.place_of(from)),
        }
    }

    fn holds_requests(&self) -> bool {
        // What is carried still goes to the upstream that is to be left.
        let drains = matches!(self.switch.stand, Stand::Draining | Stand::Reaching)
            && !self.request.carry.is_empty();
        let waits = self.switch.is_under_way() && !drains;
        waits || self.must_close || self.replies.is_full()
    }

    /// The next bytes of the way that are to be sent: what is carried, then what comes from `source`.
    pub(crate) fn next<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        source: Option<Source>,
    ) -> Result<Option<Gated>, End> {
        let (to, place) = (self.receiver(from), self.place_of(from));
        let way = way_to(to);
        if self.legs.is_some() {
            if self.tapped.is_over() {
                // Nobody knows any more whose bytes these are.
                return Err(End::Netra);
            }
            if way == Way::Response {
                self.review_own_turn(place);
            }
        }
        if way == Way::Response {
            self.tell(core);
        }
        let moving = usize::from(self.replies.last_waits && self.is_moving());
        let has_words = self.has_words() || self.withholds_any();
        let waits = self.drops || self.replies.count() > moving || has_words;
        let is_over = self.tapped.is_over();
        if (waits && (is_over || self.has_ended)) || (is_over && self.tapped.tap.awaits_late()) {
            // Nobody can say any more where what the client is told would have to be.
            return Err(End::Refused);
        }
        if self.tapped.is_over() {
            let out = self.outgoing(way);
            let held = std::mem::take(&mut out.held);
            out.carry.extend(held);
        }
        let goes_on = way == Way::Response && self.gathers_answers();
        let out = self.outgoing(way);
        let gated = if !out.carry.is_empty() && !goes_on {
            let is_full = !out.send_carry(&mut core.io, to, &mut core.gates.scraps)?;
            Gated { is_full, ..Gated::default() }
        } else if way == Way::Response && self.must_close {
            return Err(End::Refused);
        } else if way == Way::Request && self.is_moving() {
            return Ok(None);
        } else if let Some(source) = source {
            if way == Way::Response && !self.may_speak(place) {
                return Ok(None);
            }
            if self.legs.is_some() && way == Way::Response {
                self.tapped.tap.hear(place);
            }
            self.pass(core, (to, place), source)?
        } else {
            return Ok(None);
        };
        if self.legs.is_some() && way == Way::Response {
            self.review_turn(place, gated.is_full);
        }
        self.settle(&mut core.taps, &core.recorder);
        Ok(Some(gated))
    }

    /// Takes a step with bytes that nothing is carried before.
    pub(crate) fn pass<I: Io>(
        &mut self,
        core: &mut Core<I>,
        (to, place): (Token, u8),
        source: Source,
    ) -> Result<Gated, End> {
        let way = way_to(to);
        // What its client is told last is nothing that has to be read.
        let is_last = way == Way::Response && self.switch.stand == Stand::GaveUp;
        let is_tunnel = self.tapped.is_over() || is_last;
        let out = self.outgoing(way);
        if is_tunnel || out.cleared > 0 {
            let Core { io, pool, scratch, .. } = core;
            let input = source.bytes(pool, scratch);
            let most = if is_tunnel { u64::MAX } else { out.cleared };
            let sent = out.send_cleared(io, to, input, is_tunnel)?;
            return Ok(Gated {
                taken: sent,
                is_full: sent < input.len() && (sent as u64) < most,
                is_long: false,
            });
        }
        match way {
            Way::Request if self.drops => self.drop_rest(core, source),
            Way::Request if self.legs.is_some() => self.gather_requests(core, source),
            Way::Request => self.pass_requests(core, (to, 0), source),
            Way::Response => self.pass_answers(core, (to, place), source),
        }
    }

    fn outgoing(&mut self, way: Way) -> &mut Outgoing {
        match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        }
    }

    /// Bytes that may pass from here without being shown.
    pub(crate) fn passable(&self, from: Token) -> u64 {
        if self.legs.is_some() {
            // Whose bytes come next is seen only by who looks.
            return 0;
        }
        let from = from.side;
        match from {
            Side::Downstream if self.drops => 0,
            Side::Downstream if self.is_copying() || self.is_keeping() => self.request.cleared,
            Side::Downstream => self.request.cleared.saturating_add(self.tapped.passable(from)),
            Side::Upstream => self.response.cleared.saturating_add(self.tapped.passable(from)),
        }
    }

    /// So many have.
    pub(crate) fn passed<I: Io>(&mut self, core: &mut Core<I>, from: Side, count: u64) {
        let out = match from {
            Side::Downstream => &mut self.request,
            Side::Upstream => &mut self.response,
        };
        let cleared = count.min(out.cleared);
        out.cleared -= cleared;
        self.tapped.passed(core, from, count - cleared);
    }

    /// One side has ended its stream: what is held of a head goes out as it came.
    pub(crate) fn end_way<I: Io>(&mut self, core: &mut Core<I>, from: Side) {
        let out = match from {
            Side::Downstream => &mut self.request,
            Side::Upstream => &mut self.response,
        };
        let held = std::mem::take(&mut out.held);
        if from == Side::Downstream && self.switch.is_deferred && !held.is_empty() {
            // There is nobody yet to whom it could go.
            self.parked.extend(held);
            return self.switch.needs_any();
        }
        if from == Side::Downstream && self.switch.is_parted && !self.switch.is_under_way() {
            // Nor is there, for a part of a head.
            return;
        }
        out.carry.extend(held);
        if from == Side::Upstream {
            self.has_ended = true;
            self.tapped.end_way(core, from);
        }
    }

    /// The connection has ended, or is no longer read.
    pub(crate) fn end<I: Io>(self, core: &mut Core<I>, outcome: Outcome) {
        debug_assert!(self.copies.is_none(), "nobody lets its mirrors go");
        core.taps.held_bytes -= self.kept as usize;
        self.tapped.end(core, outcome);
    }

    /// Counts what is kept, and stops holding where that is too much.
    #[inline]
    fn settle(&mut self, taps: &mut Taps, recorder: &Recorder) {
        self.tapped.count_held(taps, recorder);
        let ways = self.request.kept() + self.response.kept();
        let legs = self.legs.as_deref().map_or(0, Legs::kept);
        let kept = ways + self.replies.kept() + self.parked.len() + self.overdue_kept() + legs;
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        if kept == self.kept {
            return;
        }
        taps.held_bytes = taps.held_bytes - self.kept as usize + kept as usize;
        let has_grown = kept > self.kept;
        self.kept = kept;
        // What is carried has to be sent: it counts, but nothing is won by holding no more.
        let holds = !self.request.held.is_empty() || !self.response.held.is_empty();
        if has_grown && holds && !self.tapped.is_over() && taps.holds_too_much() {
            self.tapped.give_up(Reason::HeldTooMuch, recorder);
            self.switch.needs_any();
        }
    }
}

/// What a gated connection needs after its flows have moved.
impl Gate {
    /// There is something for the flow from this side to send, which it may not know of.
    pub(crate) fn wants_pump(&mut self, from: Side) -> bool {
        let is_tunnel = self.tapped.is_over();
        match from {
            Side::Downstream => {
                let is_paused = self.holds_requests();
                let goes_on = std::mem::replace(&mut self.was_paused, is_paused) && !is_paused;
                goes_on || (is_tunnel && !self.request.held.is_empty() && !is_paused)
            }
            Side::Upstream => {
                let tells = self.replies.may_go() && self.may_tell();
                let is_late = self.has_words() && self.is_between_answers();
                tells || is_late || self.must_close || (is_tunnel && !self.response.held.is_empty())
            }
        }
    }

    /// The request that waited waits no more, but perhaps for another upstream.
    pub(crate) fn resume(&mut self, now: Nanos) {
        self.switch.until = None;
        self.wait_again(now);
        self.replies.last_waits &= self.is_moving();
        self.was_paused = true;
    }

    /// A head is held that has no deadline, or a deadline is set that is not of the head that is
    /// held now.
    pub(crate) fn wants_timing(&self) -> bool {
        match self.timed {
            None => self.holds_head(),
            timed => !self.holds_head() || timed != Some(self.next_head()),
        }
    }

    /// The head that is held now is the one that is timed. False where none is held.
    pub(crate) fn time_head(&mut self) -> bool {
        let holds_head = self.holds_head();
        self.timed = holds_head.then_some(self.next_head());
        holds_head
    }

    /// Stops to hold: what is held goes out as it came, by the next step.
    pub(crate) fn let_go(&mut self, reason: Reason, recorder: &Recorder) {
        self.timed = None;
        if !self.tapped.is_over() {
            self.tapped.give_up(reason, recorder);
            self.switch.needs_any();
        }
    }

    fn next_head(&self) -> NonZeroU32 {
        NonZeroU32::MIN.saturating_add(self.messages)
    }

    /// Its client has not been told all that netra has to say.
    pub(crate) fn has_untold(&self) -> bool {
        self.response.kept() > 0 || self.response.cleared > 0 || !self.replies.is_empty()
    }

    fn holds_head(&self) -> bool {
        !self.request.held.is_empty() || !self.response.held.is_empty()
    }
}

fn way_to(to: Token) -> Way {
    match to.side {
        Side::Upstream => Way::Request,
        Side::Downstream => Way::Response,
    }
}

/// Edits a message, and counts what came of it; `wants` learns where no message can be.
fn edit(message: &Message<'_>, gates: &mut Gates, wants: &mut Wants, recorder: &Recorder) {
    if gates.pairs.is_empty() {
        return gates.edits.clear();
    }
    let edited = message.edit(&gates.pairs, &mut gates.edits);
    if edited == Err(CannotEdit::Never) {
        wants.writes = false;
    }
    recorder.bump(Key::edited(edited.map_or_else(|why| 1 + why as usize, |()| 0)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_codecs::codec::Why;
    use netra_perf::labels;

    #[test]
    fn an_idle_gated_connection_costs_little() {
        assert!(size_of::<Gate>() <= 928, "{}", size_of::<Gate>());
    }

    #[test]
    fn labels_meet_what_they_are_named_for() {
        let why = CannotEdit::ALL.iter().map(|why| why.name());
        assert!(["done"].into_iter().chain(why).eq(labels::EDIT_RESULTS));
        assert!(Why::ALL.iter().map(|why| why.name()).eq(labels::MESSAGE_REFUSALS));
    }
}
