//! Requests of a gate that are sent again: which are kept, which bytes of its input that is, and what it means
//! that its upstream ends. As of HTTP/1 (`http/again.rs`), of several requests at a time: where all that is
//! open is kept, all of it goes to another endpoint, in its order.

use super::{
    Gate,
    outgoing::{Edited, Outgoing},
    requests::{Judged, Run},
};
use crate::{
    again::{Again, Onward, ROOMS_MAX, Tries},
    core::Core,
    exchange::Taps,
    io::Io,
    patience::Patience,
    switch::Stand,
    sys::Nanos,
    tap::{Carried, Tapped},
};
use netra_codecs::{
    codec::{Kind, Leaves, Open, Way},
    tap::{Message, Tap},
};
use netra_perf::{Key, Recorder};
use netra_rules::Retry;

impl Judged<'_> {
    /// Where a rule lets this request be sent again it is kept, unless it means something at its own server
    /// alone, or may change something there.
    #[inline]
    pub(super) fn keep(
        &mut self,
        message: &Message<'_>,
        exchange: &mut Open<Carried>,
        retry: Retry,
        (now, recorder): (Nanos, &Recorder),
    ) {
        if retry.attempts > 0 {
            self.keep_read(message, exchange, retry, (now, recorder));
        }
        if let (Some(again), 0) = (&mut self.aims.again, exchange.data.kept) {
            again.note_other();
        }
    }

    fn keep_read(
        &mut self,
        message: &Message<'_>,
        exchange: &mut Open<Carried>,
        retry: Retry,
        (now, recorder): (Nanos, &Recorder),
    ) {
        let is_read = message.is_read().unwrap_or(retry.is_named);
        let may = is_read
            && retry.on_reset
            && exchange.kind == Kind::Request
            && message.leaves() == Leaves::Nothing
            && message.behind() == 0
            && message.protocol().moves()
            && self.left.stays().is_none();
        if !may {
            return;
        }
        let per_try_ns = retry.per_try_ns().unwrap_or(0);
        let again = self.aims.again.get_or_insert_default();
        let withholds = retry.withholds_answers();
        let tries = Tries { attempts: retry.attempts, per_try_ns, withholds };
        let Some(number) = again.take(tries, now) else {
            return recorder.bump(Key::NOT_KEPT);
        };
        (exchange.data.kept, self.aims.keeps) = (number, number);
        *self.cuts_answers |= withholds;
        if per_try_ns > 0 {
            self.patience.get_or_insert_default().want(now.saturating_add(per_try_ns));
        }
    }
}

/// The requests that are kept, for as long as an input is read; where none are left that were sent again,
/// the seat is as any other. Nothing more is where memory is short.
#[inline]
pub(super) fn lend(tapped: &mut Tapped, taps: &Taps) -> Option<Box<Again>> {
    let again = tapped.patience.as_mut()?.again.take()?;
    Some(swept(tapped, again, taps.holds_too_much()))
}

fn swept(tapped: &mut Tapped, mut again: Box<Again>, is_tight: bool) -> Box<Again> {
    // Where more are open than may be kept, nobody asks.
    if again.is_used() && tapped.tap.open_count() <= ROOMS_MAX {
        let open = tapped.tap.newest(usize::MAX).map(|open| open.data.kept);
        if again.sweep(open) {
            tapped.of.seats.settle_all();
        }
    }
    again.begin_input(is_tight);
    again
}

/// Takes them back.
#[cold]
fn take_back(patience: &mut Option<Box<Patience>>, out: &mut Outgoing, again: Box<Again>) {
    patience.get_or_insert_default().again = Some(again);
    out.survives = true;
}

impl Run<'_> {
    /// A message ends that is kept.
    #[inline]
    pub(super) fn end_kept<T: Default>(&mut self, input: &[u8], tap: &Tap<T>) {
        if let Some(again) = &mut self.aims.again
            && again.is_open()
            && !tap.is_within_message(Way::Request)
        {
            self.has_lost |= !again.read(input, self.at, true);
        }
    }

    /// A message that is kept goes out as it came, see [`copy_in_place`](Self::copy_in_place).
    #[cold]
    pub(super) fn keep_in_place(&mut self, at: usize, held: &[u8]) {
        let number = std::mem::take(&mut self.aims.keeps);
        let Some(again) = &mut self.aims.again else { return };
        again.begin(number, at);
        if at == 0 {
            self.has_lost |= !again.add(held);
        }
    }

    /// The same of one that goes out apart.
    #[cold]
    pub(super) fn keep_apart(&mut self, own: [&[u8]; 2], message: Option<Edited<'_>>) {
        let number = std::mem::take(&mut self.aims.keeps);
        let Some(again) = &mut self.aims.again else { return };
        again.begin(number, self.at);
        let lost = &mut self.has_lost;
        let mut add = |slice: &[u8]| *lost |= !again.add(slice);
        match message {
            Some(message) => message.slices().for_each(&mut add),
            None => own.into_iter().for_each(&mut add),
        }
    }

    /// The input has been read as far as it is: what is kept goes back.
    #[inline]
    pub(super) fn keep_rest(
        &mut self,
        input: &[u8],
        tapped: &mut Tapped,
        out: &mut Outgoing,
        recorder: &Recorder,
    ) {
        if let Some(again) = self.aims.again.take() {
            take_back(&mut tapped.patience, out, self.read(input, &tapped.tap, again, recorder));
        }
    }

    fn read<T: Default>(
        &mut self,
        input: &[u8],
        tap: &Tap<T>,
        mut again: Box<Again>,
        recorder: &Recorder,
    ) -> Box<Again> {
        if again.is_open() {
            let is_whole = !tap.is_within_message(Way::Request);
            let is_kept = again.read(input, self.at, is_whole);
            self.has_lost |= !is_kept || !again.expect(tap.passable(Way::Request));
        }
        if self.has_lost {
            recorder.bump(Key::NOT_KEPT);
        }
        again
    }
}

impl Gate {
    pub(super) fn again(&self) -> Option<&Again> {
        self.tapped.patience.as_deref()?.again.as_deref()
    }

    /// Requests are kept, or have been.
    pub(super) fn may_repeat(&self) -> bool {
        self.again().is_some()
    }

    /// What comes is kept.
    pub(super) fn is_keeping(&self) -> bool {
        self.again().is_some_and(Again::is_open)
    }

    /// What was sent before waits for a further upstream.
    pub(crate) fn is_repeating(&self) -> bool {
        self.again().is_some_and(Again::is_repeating)
    }

    /// What was sent before has gone out again. Whether it had to.
    pub(super) fn has_repeated(&mut self, now: Nanos) -> bool {
        let Tapped { tap, patience, .. } = &mut self.tapped;
        let again = patience.as_deref_mut().and_then(|it| it.again.as_deref_mut());
        let Some(again) = again.filter(|it| it.is_repeating()) else { return false };
        tap.newest(usize::MAX).for_each(|open| again.begin_try(open.data.kept, now));
        again.end_repeating()
    }

    /// Its upstream takes nothing more, and has said all that it says.
    pub(crate) fn is_broken(&self) -> bool {
        self.request.is_dead && self.legs.is_none()
    }

    /// A request has begun, and is not whole. The beginning of a head that is held was sent to nobody.
    pub(super) fn is_within_request(&self) -> bool {
        self.request.held.is_empty() && self.tapped.tap.is_within_message(Way::Request)
    }

    /// How it goes on where the upstream ends now, of which everything has been passed on that came; None
    /// where it does not.
    pub(crate) fn onward(&mut self) -> Option<Onward> {
        let again = self.again()?;
        // A socket did not take all, and other things may be among it.
        let is_full = !self.request.carry.is_empty() || self.request.cleared > 0;
        let is_mixed = is_full && again.has_others();
        let is_in_doubt = self.tapped.is_over()
            || self.has_ended
            || self.must_close
            || self.left.stays().is_some()
            || self.switch.is_parted
            || self.switch.is_under_way()
            || self.legs.is_some();
        let tap = &self.tapped.tap;
        let is_moving = self.is_within_request()
            || self.drops
            || self.response.cleared > 0
            || self.response.kept() > 0
            || self.has_words()
            || tap.is_within_message(Way::Response)
            || tap.has_ended(Way::Response)
            || tap.has_ended(Way::Request);
        if is_in_doubt || is_moving || is_mixed {
            return None;
        }
        let is_sent = self.request.cleared == 0;
        self.unanswered().filter(|onward| is_sent || *onward != Onward::Between)
    }

    /// What is open is kept, all of it.
    fn unanswered(&mut self) -> Option<Onward> {
        let Tapped { tap, patience, .. } = &mut self.tapped;
        let again = patience.as_deref()?.again.as_deref()?;
        let mut onward = Onward::Between;
        for open in tap.newest(usize::MAX).filter(|open| !open.is_refused()) {
            let (_, attempts) = again.get(open.data.kept)?;
            onward = match onward {
                Onward::Again(fewest) => Onward::Again(attempts.min(fewest)),
                Onward::Between => Onward::Again(attempts),
            };
        }
        Some(onward)
    }

    /// All that is open goes out again, when there is an upstream. Returns how much of it has not been sent, and
    /// stands where it came from.
    pub(crate) fn repeat<I: Io>(&mut self, core: &mut Core<I>) -> u64 {
        let Self { tapped: Tapped { tap, patience, .. }, request, parked, .. } = self;
        let again = patience.as_deref_mut().and_then(|it| it.again.as_deref_mut());
        let Some(again) = again else { return 0 };
        (request.is_dead, request.carry) = (false, Vec::new());
        let unsent = std::mem::take(&mut request.cleared);
        if parked.capacity() == 0 {
            *parked = core.gates.scraps.lend();
        }
        for open in tap.newest(usize::MAX).filter(|open| !open.is_refused()) {
            let (bytes, _) = again.get(open.data.kept).unwrap_or_default();
            parked.extend_from_slice(bytes);
            again.forget_withheld(open.data.kept);
            core.recorder.bump(Key::SENT_AGAIN);
        }
        again.begin_repeating();
        self.settle(&mut core.taps, &core.recorder);
        unsent
    }

    /// There is no upstream now, and nobody waits for one: whatever comes next dials.
    pub(crate) fn part(&mut self) {
        debug_assert!(self.switch.stand == Stand::Settled);
        (self.switch.is_gone, self.request.is_dead, self.request.carry) = (true, false, Vec::new());
    }
}
