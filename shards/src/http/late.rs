//! Answers of HTTP/1 that take longer than they may: a client of which nothing has been answered is
//! told 504, and its connection ends; of an answer that has begun it sees that it is not whole.

use super::{Http, Refused};
use crate::{
    core::Core,
    editor::Open,
    gate::Flows,
    io::Io,
    patience::{Allowed, LATER_NS, Overdue, Patience, Standing, Time},
    sys::Nanos,
};
use netra_codecs::{
    codec::{Replied, Why},
    trace::{Fault, Flag, Outcome, RetryReason},
};
use netra_perf::Key;

/// Takes note of how long the answer to a request may take.
#[inline]
pub(super) fn time(
    patience: &mut Option<Box<Patience>>,
    (allowed, now): (Allowed<'_>, Nanos),
    mut open: Open,
) -> Open {
    if allowed.is_timed() {
        open.timed = patience.get_or_insert_default().add(now, allowed, |out| {
            out.extend_from_slice(allowed.text.as_bytes());
            Replied::Sent
        });
    }
    open
}

impl Http {
    /// Looks whether the answer that is due next is overdue.
    pub(crate) fn look_at_answers<I: Io>(&mut self, core: &mut Core<I>, flows: Flows) -> Overdue {
        let now = core.now;
        if self.is_try_over(now, flows) && self.goes_elsewhere(RetryReason::Timeout, now) {
            return Overdue::Elsewhere;
        }
        let is_repeated = self.is_repeated();
        let is_sealed = self.sealed().is_some();
        let is_coming = self.request.is_within_body() || self.has_carry() || self.cleared > 0;
        let is_waiting = self.is_switching();
        let is_last = self.exchanges.len() == 1;
        let has_some = self.response.held_len() > 0;
        let is_slow = self.has_unsent_answers();
        let Self { exchanges, patience: Some(patience), waiting, .. } = self else {
            return Overdue::GoOn;
        };
        let Some(front) = exchanges.front_mut().filter(|_| !is_sealed) else {
            return Overdue::GoOn;
        };
        let timed = front.data.timed;
        if let Some(limit) = patience.shortest()
            && (timed == 0 || !is_last)
        {
            patience.want(now.saturating_add(limit));
        }
        let is_waiting = is_waiting && *waiting == Some(front.id);
        let has_begun = front.status.is_some() || has_some;
        let standing = match is_repeated {
            false => Standing {
                is_unsent: (is_last && (is_coming || flows.hold[0])) || is_waiting,
                moved: flows.moved,
                has_begun,
                is_in_order: true,
            },
            // Its time goes on, whoever is asked.
            true => {
                let moved = [0, flows.moved[1]];
                Standing { is_unsent: false, moved, has_begun, is_in_order: false }
            }
        };
        let time = patience.time(timed, &standing, now);
        // Where it waits for a slow client, the upstream is not to blame; where it waits for another one, that
        // is reached first, or is not.
        let is_slow = is_slow || flows.hold[1] || is_waiting;
        match time {
            Time::Free => return Overdue::GoOn,
            Time::Left(at) => {
                patience.want(at);
                return Overdue::GoOn;
            }
            Time::NotBegun | Time::StoodStill if is_slow => {
                patience.want(now + LATER_NS);
                return Overdue::GoOn;
            }
            Time::NotBegun | Time::StoodStill => {}
        }
        core.recorder.bump(Key::timed_out(usize::from(time == Time::StoodStill)));
        let words = patience.words(timed).filter(|_| time == Time::NotBegun && !flows.hold[0]);
        let Some(words) = words else { return Overdue::Cut };
        let text = String::from_utf8_lossy(words).into_owned();
        *waiting = Some(front.id);
        core.recorder.bump(Key::refused(Why::TimedOut as usize));
        self.refused = Some(Box::new(Refused { status: 504, text, why: Why::TimedOut }));
        Overdue::Leave
    }

    /// What the client is told last whose answer took too long, the upstream having been left.
    pub(crate) fn take_last_words<I: Io>(&mut self, core: &mut Core<I>) -> Option<Vec<u8>> {
        let refused = self.refused.take_if(|refused| refused.why == Why::TimedOut)?;
        let answer = self.answer(refused.status, &format!("{}\n", refused.text));
        let fault = Some(Fault::of(Flag::AnswerTimeout));
        self.give_up_with(core, Outcome::Timeout, fault);
        Some(answer.into_bytes())
    }
}
