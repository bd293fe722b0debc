//! Answers that say that their server cannot serve a request now, where a rule lets another endpoint be asked: such an
//! answer is *withheld*, its exchange is open again, and somebody decides about it when the flows have moved
//! (`upstream/elsewhere.rs`). Until then nobody says anything further to the client.
//!
//! | who else waits | what happens |
//! |---|---|
//! | nobody, or ids tell answers apart | this request alone waits for another endpoint, as one that has just come |
//! | others, whose answers come in order | their server is left, and all that it owes is asked elsewhere |
//! | nobody can be asked | the client gets the answer |
//!
//! Answers that come in pieces are never withheld: their client has the first.

use super::{
    Gate,
    outgoing::{Edited, slices},
    requests::forget_words,
};
use crate::{
    again::{Again, Withheld},
    core::Core,
    io::Io,
    patience::Patience,
    switch::Stand,
    sys::Nanos,
    tap::{Carried, Tapped, waits_no_more},
};
use netra_codecs::{
    codec::{Edits, ErrorText, Exchange, Outcome as Said, Replied, Why},
    tap::Message,
    trace::{Outcome, RetryReason},
};
use netra_perf::Key;
use netra_rules::Heard;
use std::net::SocketAddr;

/// The answer to an exchange, which is `own` and `input` and these edits of it, if it is to be withheld.
#[inline]
pub(super) fn to_withhold(
    patience: &Option<Box<Patience>>,
    (exchange, error): (&Exchange<Carried>, &[u8]),
    message: &Option<Message<'_>>,
    (own, input, edits): (&[u8], &[u8], &Edits),
) -> Option<Withheld> {
    let again = patience.as_deref()?.again.as_deref()?;
    let message = message.as_ref().filter(|message| message.behind() == 0)?;
    let is_meant = exchange.outcome == Said::ProtocolError
        && again.may_withhold(exchange.data.kept, own.len() + input.len());
    is_meant.then(|| {
        let edited = Edited::of(message.bytes(), edits, own, input);
        let plain = if edited.is_some() { [&[][..]; 2] } else { [own, input] };
        Withheld {
            answer: exchange.answer(),
            error: ErrorText::new(error),
            bytes: slices(plain, edited).flatten().copied().collect(),
            place: exchange.lane,
            number: exchange.data.kept,
            opened_ns: exchange.opened_ns,
        }
    })
}

impl Tapped {
    /// The answer of this exchange is withheld: it is open again.
    #[cold]
    pub(super) fn withhold(&mut self, exchange: Exchange<Carried>, it: Withheld) {
        let again = self.patience.as_deref_mut().and_then(|it| it.again.as_deref_mut());
        let Some(again) = again else { return };
        again.withhold(it);
        self.tap.reopen(exchange);
    }
}

impl Gate {
    /// Somebody has to decide about an answer.
    #[inline]
    pub(crate) fn withholds_any(&self) -> bool {
        self.again().is_some_and(Again::withholds_any)
    }

    /// Nobody may say anything to the client before somebody has decided about an answer.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        self.withholds_any() && self.may_decide()
    }

    #[cold]
    fn may_decide(&self) -> bool {
        self.is_between_answers() && !self.waits_for_leg()
    }

    /// Another request waits for a leg, which is there or not in a while; those of other legs go on.
    fn waits_for_leg(&self) -> bool {
        self.legs.is_some() && self.switch.stand == Stand::Reaching && !self.is_in_order()
    }

    /// An answer about which is to be decided now.
    pub(crate) fn take_withheld(&mut self) -> Option<Withheld> {
        if self.tapped.is_over() || !self.may_decide() {
            return None;
        }
        let Tapped { tap, patience, .. } = &mut self.tapped;
        let again = patience.as_deref_mut()?.again.as_deref_mut()?;
        while let Some(it) = again.take_withheld() {
            // Meanwhile its server may have ended, and its client been told of that.
            let waits = tap.newest(usize::MAX).any(|open| {
                let is_it = open.data.kept == it.number && open.opened_ns == it.opened_ns;
                is_it && !open.is_refused()
            });
            if waits {
                return Some(it);
            }
        }
        None
    }

    /// A request that was answered so waits for another endpoint, as one that has just come; what its client is told
    /// where nobody is reached is that answer. False where it cannot, or there is none.
    pub(crate) fn ask_again<I: Io>(
        &mut self,
        core: &mut Core<I>,
        it: &Withheld,
        original_dst: SocketAddr,
    ) -> bool {
        if !self.may_park() {
            return false;
        }
        let now = core.now;
        let Self { tapped: Tapped { tap, of, patience, .. }, legs, replies, .. } = self;
        let again = patience.as_deref_mut().and_then(|it| it.again.as_deref_mut());
        let to = of.seats.elsewhere(it.place, RetryReason::GatewayError, original_dst, now);
        let (Some(again), Some(target)) = (again, to) else { return false };
        tap.renew(|data| data.kept == it.number);
        for open in tap.newest(1) {
            if open.data.is_seated {
                of.seats.end(it.place, Heard::Fault, now.saturating_sub(it.opened_ns), now);
            }
            forget_words(legs, &open.data);
            open.refuse();
            (open.data.waits, open.data.words) = (true, 0);
            open.data.is_seated = of.seats.begin();
        }
        self.parked = core.gates.scraps.lend();
        self.parked.extend_from_slice(again.ask_again(it.number, now));
        replies.add(Why::Unreachable, &mut core.gates.scraps, |out| {
            out.extend_from_slice(&it.bytes);
            Replied::Sent
        });
        replies.last_waits = true;
        self.switch.leave_for(Some(target), &mut self.old_goal);
        core.recorder.bump(Key::SENT_AGAIN);
        self.settle(&mut core.taps, &core.recorder);
        true
    }

    /// Whether a request that was sent may wait for another endpoint now.
    fn may_park(&mut self) -> bool {
        let is_alone = self.tapped.tap.open_count() == 1;
        let is_asking = self.is_within_request() || self.request.cleared > 0;
        let is_busy = self.switch.is_under_way() || self.switch.is_parted || self.is_repeating();
        let is_ending = self.has_ended || self.must_close || self.drops || self.request.is_dead;
        let is_session = self.left.stays().is_some() || !self.may_have_legs();
        (is_alone || !self.is_in_order())
            && !is_asking
            && !is_busy
            && !is_ending
            && !is_session
            && !self.replies.is_full()
    }

    /// The request was asked again, in order with all that wait behind it, for what was answered.
    pub(crate) fn note_asked_again(&mut self, number: u8, now: Nanos) {
        let again = self.tapped.patience.as_deref_mut().and_then(|it| it.again.as_deref_mut());
        if let Some(again) = again {
            again.ask_again(number, now);
        }
    }

    /// Nobody else can be asked: the client gets the answer.
    pub(crate) fn give_back<I: Io>(&mut self, core: &mut Core<I>, it: &Withheld) {
        let done = self.tapped.tap.finish_again(|data| data.kept == it.number, it.answer);
        let Some(done) = done else { return };
        waits_no_more(&mut self.tapped.patience, done.data.timed);
        forget_words(&mut self.legs, &done.data);
        let Core { observer, recorder, now, .. } = core;
        let told = (Outcome::Whole, *now);
        self.tapped.of.finish(&done, it.error.as_bytes(), told, observer, recorder);
        self.response.carry.extend_from_slice(&it.bytes);
        self.settle(&mut core.taps, &core.recorder);
    }
}
