//! Answers that take longer than they may: their clients are told so where that can be said, and what
//! comes after that never reaches anybody.
//!
//! | how answers are told apart | what happens |
//! |---|---|
//! | by ids that are used once | the client is told between two answers; the late one is thrown away |
//! | by order, or by ids that come again | the upstream is left, the client is told, and the connection ends |
//! | the protocol has no words, or the answer has begun | the connection ends |
//!
//! Where a rule lets a try be given up before that, what was asked goes to another endpoint (`successors.rs`).

use super::{Gate, requests::forget_words};
use crate::{
    core::Core,
    io::Io,
    patience::{LATER_NS, Overdue, Patience, Standing, Time},
    switch::Stand,
    sys::Nanos,
    tap::{Carried, waits_no_more},
};
use netra_codecs::{
    codec::{Correlation, Exchange, Kind, Way, Why},
    trace::{Fault, Flag, Outcome},
};
use netra_perf::Key;

/// How the flows of a connection stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flows {
    /// When bytes of requests, and of answers, last moved.
    pub(crate) moved: [Nanos; 2],
    /// Bytes of requests, and of answers, wait for a slow receiver.
    pub(crate) hold: [bool; 2],
}

impl Gate {
    /// Looks which answers are overdue, and does what is to be done about them.
    pub(crate) fn look_at_answers<I: Io>(&mut self, core: &mut Core<I>, flows: Flows) -> Overdue {
        let now = core.now;
        while let Some((timed, time)) = self.first_overdue(flows, now) {
            core.recorder.bump(Key::timed_out(usize::from(time == Time::StoodStill)));
            if time == Time::StoodStill {
                return Overdue::Cut;
            }
            let has_ids = self.tapped.protocol().about().correlation == Correlation::Unique;
            let is_sent = !flows.hold[0] && self.request.kept() == 0;
            let may_tell = has_ids || is_sent;
            let tells = may_tell && self.tapped.patience.as_mut().is_some_and(|it| it.tell(timed));
            if !tells {
                return Overdue::Cut;
            }
            let Some(done) = self.tapped.tap.take_out(|data| data.timed == timed) else {
                return Overdue::Cut;
            };
            self.conclude(core, &done);
            if !has_ids {
                return Overdue::Leave;
            }
            self.settle(&mut core.taps, &core.recorder);
        }
        self.late_try(flows, now).map_or(Overdue::GoOn, Overdue::Try)
    }

    /// The first that is overdue and whose client can be told now; asks for another look at those that
    /// may be later.
    fn first_overdue(&mut self, flows: Flows, now: Nanos) -> Option<(u32, Time)> {
        let has_ids = self.tapped.protocol().about().correlation == Correlation::Unique;
        let is_fifo = self.tapped.protocol().about().correlation == Correlation::Fifo;
        let is_within = self.tapped.tap.is_within_message(Way::Response);
        let is_coming = self.tapped.tap.is_within_message(Way::Request);
        let holds = self.request.kept() > 0 || self.request.cleared > 0;
        let is_delayed = self.switch.until.is_some();
        // Where it waits for a slow client, the upstream is not to blame.
        let is_slow = self.is_repeating() || self.is_client_slow(flows.hold[1]);
        let stopped = self.within_head();
        let tapped = &mut self.tapped;
        if tapped.is_over() {
            tapped.patience = None;
            return None;
        }
        let is_late = tapped.tap.is_within_late();
        let answering = tapped.tap.answering().map(|open| open.data.timed);
        let patience = tapped.patience.as_deref_mut()?;
        let open_count = tapped.tap.open_count();
        let mut is_turn = true;
        for (index, open) in tapped.tap.newest(usize::MAX).enumerate() {
            let timed = open.data.timed;
            let is_its_turn = is_turn;
            // Of those that may be left without an answer nobody knows whether it is their turn.
            is_turn &= open.kind == Kind::Quiet;
            let Some(limit) = patience.limit(timed) else { continue };
            let is_newest = index + 1 == open_count;
            let is_withheld =
                patience.again.as_deref().is_some_and(|it| it.withholds(open.data.kept));
            let waits =
                open.data.waits || open.is_refused() || (is_newest && is_delayed) || is_withheld;
            if waits || (is_fifo && !is_its_turn) {
                // It has not been sent, or it is not its turn.
                patience.want(now.saturating_add(limit));
                continue;
            }
            let has_begun = match answering {
                Some(answering) => answering == timed,
                // Of an answer whose head is not whole nobody knows whose it is, and the client may have
                // a part of it.
                None => (is_within && !is_late) || stopped == Some(open.lane),
            };
            let standing = Standing {
                is_unsent: is_newest && (is_coming || holds || flows.hold[0]),
                moved: flows.moved,
                has_begun,
                is_in_order: is_fifo,
            };
            match patience.time(timed, &standing, now) {
                Time::Left(at) => patience.want(at),
                Time::Free => {}
                Time::NotBegun | Time::StoodStill if is_slow => patience.want(now + LATER_NS),
                // What the client is told last has to wait for the end of what it is being told.
                Time::NotBegun if !has_ids && is_within => patience.want(now + LATER_NS),
                over => return Some((timed, over)),
            }
        }
        None
    }

    /// Bytes of answers wait for a client that takes no more.
    fn is_client_slow(&self, holds: bool) -> bool {
        match self.legs.as_deref() {
            // What a leg has said may wait for another, and a part of a head for the rest of it.
            Some(legs) => legs.is_full(),
            None => holds || self.response.kept() > 0 || self.response.cleared > 0,
        }
    }

    /// The leg whose answer has come in a part that its client has nothing of.
    fn within_head(&self) -> Option<u8> {
        self.legs.as_deref().filter(|_| !self.response.held.is_empty())?.turn()
    }

    /// The exchange is over: its answer took too long.
    fn conclude<I: Io>(&mut self, core: &mut Core<I>, done: &Exchange<Carried>) {
        let Core { observer, recorder, now, .. } = core;
        recorder.bump(Key::refused(Why::TimedOut as usize));
        waits_no_more(&mut self.tapped.patience, done.data.timed);
        forget_words(&mut self.legs, &done.data);
        if let Some(span) = done.data.span {
            observer.record_mut(span).fault = Some(Fault::of(Flag::AnswerTimeout));
        }
        let (error, how) = (Why::TimedOut.name().as_bytes(), (Outcome::Whole, *now));
        self.tapped.of.finish(done, error, how, observer, recorder);
    }

    /// What the client is told last, the upstream being left.
    pub(crate) fn take_last_words<I: Io>(&mut self, core: &mut Core<I>) -> Option<Vec<u8>> {
        let patience = self.tapped.patience.as_mut().filter(|it| it.has_words())?;
        let words = patience.take_words();
        self.give_up(core, Stand::GaveUp);
        Some(words)
    }

    /// The request that waited is sent from here on.
    pub(super) fn wait_again(&mut self, now: Nanos) {
        if let Some(patience) = &mut self.tapped.patience {
            self.tapped.tap.newest(1).for_each(|open| {
                let mut is_repeated = false;
                if let Some(again) = &mut patience.again {
                    is_repeated = again.is_repeated(open.data.kept);
                    again.begin_try(open.data.kept, now);
                }
                // Of one that was sent before, the time goes on that all of its tries may take.
                if !is_repeated {
                    patience.begin_again(open.data.timed, now);
                }
            });
        }
    }

    /// There is something to be told, or to be thrown away, between answers.
    pub(super) fn has_overdue(&self) -> bool {
        self.has_words() || self.tapped.tap.awaits_late()
    }

    /// There is something to be told.
    pub(super) fn has_words(&self) -> bool {
        self.tapped.patience.as_deref().is_some_and(Patience::has_words)
    }

    /// Whether a message of our own may go out now.
    pub(super) fn is_between_answers(&self) -> bool {
        let is_clear = self.response.cleared == 0 && self.response.held.is_empty();
        is_clear && !self.tapped.is_over() && !self.tapped.tap.is_within_message(Way::Response)
    }

    pub(crate) fn patience_mut(&mut self) -> Option<&mut Patience> {
        self.tapped.patience.as_deref_mut()
    }

    /// Some of its answers may not take for ever.
    pub(super) fn is_timed(&self) -> bool {
        let is_timed = self.tapped.patience.as_deref().is_some_and(|it| !it.is_empty());
        is_timed && !self.tapped.is_over()
    }

    /// Bytes that are kept for it.
    pub(super) fn overdue_kept(&self) -> usize {
        self.tapped.patience.as_deref().map_or(0, Patience::kept)
    }
}
