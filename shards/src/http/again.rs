//! Requests that are asked again: the edited head of one is kept from when it is sent until the next one
//! comes. It goes to another endpoint where the upstream ends before anything of the answer has come, where
//! that takes too long, or where the answer's head says 502, 503 or 504: such an answer is *withheld*.
//! So much is done for requests without a body whose method is safe, where a route asks for it.
//!
//! Those of whom a route says so for resets are not ended where their upstream ends between two requests: they are *parted*
//! from it, and the next request dials. A client that asks just then does not learn of it.

use super::{Http, ruled::Ruled};
use crate::{
    core::{Core, HttpCore},
    editor::Open,
    exchange::Asker,
    gate::Flows,
    io::Io,
    patience::{LATER_NS, Patience},
    switch::{
        Switch,
        goal::Goal,
        resting::Resting,
        seats::{Leaving, Seats},
    },
    sys::Nanos,
};
use netra_codecs::{
    h1::{ExchangeId, Exchanges, Framing, HeadPatch, RequestHead, ResponseHead, Version},
    trace::RetryReason,
};
use netra_perf::{Key, Recorder};
use netra_rules::{Heard, Retry};

/// A longer head is not kept: it is asked once.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A request that may be asked again.
#[derive(Debug)]
pub(super) struct Again {
    /// Its head, as it is sent. The storage is used again by the next one.
    head: Vec<u8>,
    exchange: ExchangeId,
    retry: Retry,
    /// No other one waited for its answer when it came.
    is_alone: bool,
    /// Its client has ended its stream: whoever it would be sent to next would have to be told that, too.
    is_last: bool,
    /// Another endpoint has been chosen, and the upstream is to be left.
    is_leaving: bool,
    /// Its answer has come, and goes to nobody.
    is_withheld: bool,
    /// It waits for a further upstream, or has been sent to one.
    is_repeated: bool,
    /// Neither it nor its answer say that the connection ends behind them.
    persists: bool,
}

/// What an upstream's end is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamEnd {
    /// The connection's end, too.
    Final,
    /// Nothing is asked: the next request goes to another one.
    Between,
    /// One request is asked again, if there is somebody to ask.
    Unanswered,
}

/// Keeps a request that a route lets be asked again. Whether it may be.
#[inline]
pub(super) fn keep(
    (kept, patience): (&mut Option<Box<Again>>, &mut Option<Box<Patience>>),
    (exchange, is_alone): (ExchangeId, bool),
    ruled: &Ruled<'_>,
    (head, patch): (&RequestHead<'_>, &HeadPatch),
    (now, recorder): (Nanos, &Recorder),
) -> bool {
    let is_kept = ruled.retry.attempts > 0
        && is_safe(head)
        && copy(kept, (exchange, is_alone, ruled.retry), (head, patch), recorder);
    if is_kept && let Some(limit) = ruled.retry.per_try_ns() {
        patience.get_or_insert_default().want(now.saturating_add(limit));
    }
    is_kept
}

fn copy(
    kept: &mut Option<Box<Again>>,
    (exchange, is_alone, retry): (ExchangeId, bool, Retry),
    (head, patch): (&RequestHead<'_>, &HeadPatch),
    recorder: &Recorder,
) -> bool {
    let len = patch.patched_len(head.bytes().len());
    if len > HEAD_BYTES_MAX {
        recorder.bump(Key::NOT_KEPT);
        return false;
    }
    let closes = head.fields().named(b"connection").any(says_close);
    let mut storage =
        kept.as_deref_mut().map(|it| std::mem::take(&mut it.head)).unwrap_or_default();
    storage.clear();
    storage.reserve_exact(len);
    patch.pieces(head.bytes()).for_each(|piece| storage.extend_from_slice(piece.bytes()));
    let again = Again {
        head: storage,
        exchange,
        retry,
        is_alone,
        is_last: false,
        is_leaving: false,
        is_withheld: false,
        is_repeated: false,
        persists: head.version() == Version::Http11 && !closes,
    };
    match kept {
        Some(kept) => **kept = again,
        None => *kept = Some(Box::new(again)),
    }
    true
}

/// RFC 9110 §9.2.1: its client asks for no change at the server. What has a body would have to be kept
/// whole, and what may begin another protocol is nobody's to repeat.
fn is_safe(head: &RequestHead<'_>) -> bool {
    matches!(head.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE")
        && head.framing() == Framing::Length(0)
        && !head.asks_to_switch()
}

fn says_close(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// An answer has come: the one of the kept request, or another one.
#[inline]
pub(super) fn answered(
    kept: &mut Option<Box<Again>>,
    resting: &mut Option<Box<Resting>>,
    head: &ResponseHead<'_>,
) {
    if kept.is_none() && resting.is_none() {
        return;
    }
    let is_last = head.fields().named(b"connection").any(says_close);
    if let Some(again) = kept {
        again.persists &= head.version() == Version::Http11 && !is_last;
    }
    if let Some(resting) = resting {
        resting.answered(head, is_last);
    }
}

/// What another endpoint is chosen by.
pub(super) struct Others<'h> {
    pub(super) seats: &'h mut Seats,
    pub(super) switch: &'h mut Switch,
    pub(super) asker: Option<&'h Asker>,
    pub(super) now: Nanos,
}

/// The answer that comes next may be withheld: what comes before it has to be on its way to the client.
pub(super) fn may_withhold(kept: &Option<Box<Again>>, exchanges: &mut Exchanges<Open>) -> bool {
    let kept = kept.as_deref().filter(|it| it.retry.withholds_answers());
    kept.zip(exchanges.front_mut()).is_some_and(|(kept, front)| kept.exchange == front.id)
}

/// Whether the answer to this exchange, of which only the head was read and nothing was sent, is withheld,
/// as it says that nobody is there who could serve its request now: then another endpoint has been chosen.
pub(super) fn withhold(
    kept: &mut Option<Box<Again>>,
    exchanges: &mut Exchanges<Open>,
    (exchange, status): (ExchangeId, u16),
    others: Others<'_>,
) -> bool {
    let is_it = |again: &&mut Again| again.exchange == exchange && matches!(status, 502..=504);
    let Some(again) = kept.as_deref_mut().filter(is_it) else { return false };
    let is_first = exchanges.front_mut().is_some_and(|front| front.interim_count == 0);
    let may = again.retry.withholds_answers() && !again.is_last && exchanges.len() == 1 && is_first;
    again.is_withheld = may && again.goes_elsewhere(RetryReason::GatewayError, others);
    again.is_withheld
}

impl Again {
    /// Chooses another endpoint; false where there is none, or it was sent often enough.
    fn goes_elsewhere(&mut self, reason: RetryReason, others: Others<'_>) -> bool {
        let Others { seats, switch, asker, now } = others;
        let Some(asker) = asker else { return false };
        let why = Leaving::of(reason, Heard::Gateway);
        let to = seats.send_again((self.retry.attempts, why), asker.original_dst, now);
        let Some(target) = to else { return false };
        switch.goal = Some(Box::new(Goal::new(target, true)));
        self.is_leaving = true;
        true
    }

    /// Bytes that it takes: the same for as long as its connection's heads are of one size.
    pub(super) fn storage(&self) -> usize {
        self.head.capacity()
    }
}

impl Http {
    /// What it means that the upstream ends now, of which everything has been passed on that came.
    pub(crate) fn upstream_end(&mut self) -> UpstreamEnd {
        use UpstreamEnd::{Between, Final, Unanswered};
        let Some(again) = self.again.as_deref() else { return Final };
        let has_some = self.response.held_len() > 0 || self.has_unsent_answers();
        if !again.retry.on_reset || has_some || !self.may_repeat() {
            return Final;
        }
        let is_alone = self.exchanges.len() == 1;
        match self.exchanges.front_mut() {
            None if again.persists => Between,
            Some(front) if is_alone && front.id == again.exchange => {
                let has_begun = front.status.is_some() || front.interim_count > 0;
                if has_begun || again.is_last { Final } else { Unanswered }
            }
            _ => Final,
        }
    }

    /// The kept request is the last that came, and there is nothing else that its upstream was sent.
    pub(super) fn may_repeat(&self) -> bool {
        let is_in_doubt = self.two.is_some()
            || self.sealed().is_some()
            || self.request_is_opaque()
            || self.exchanges.is_switching();
        let is_moving = self.is_switching() || self.request.is_within_body() || self.cleared > 0;
        let is_newest = self.again.as_deref().is_some_and(|it| self.waiting == Some(it.exchange));
        is_newest && !is_in_doubt && !is_moving
    }

    /// Chooses another endpoint for the kept request.
    pub(crate) fn goes_elsewhere(&mut self, reason: RetryReason, now: Nanos) -> bool {
        let Self { again, seats, switch, asker, .. } = self;
        let others = Others { seats, switch, asker: asker.as_deref(), now };
        again.as_deref_mut().is_some_and(|again| again.goes_elsewhere(reason, others))
    }

    /// Another endpoint has been chosen, and the upstream is to be left.
    pub(crate) fn is_leaving(&self) -> bool {
        self.again.as_deref().is_some_and(|it| it.is_leaving)
    }

    /// Whether nothing of the kept request's answer has come for as long as one try may take. Where that
    /// is not so, or not yet, it is looked at again.
    pub(super) fn is_try_over(&mut self, now: Nanos, flows: Flows) -> bool {
        let Some(again) = self.again.as_deref().filter(|it| !it.is_last) else { return false };
        let Some(limit) = again.retry.per_try_ns() else { return false };
        let is_newest = self.waiting == Some(again.exchange);
        let (is_alone, exchange) = (self.exchanges.len() == 1, again.exchange);
        let has_some = self.response.held_len() > 0;
        let Some(front) = self.exchanges.front_mut().filter(|_| is_newest) else { return false };
        let has_begun = front.status.is_some() || front.interim_count > 0 || has_some;
        if front.id == exchange && has_begun {
            return false;
        }
        let is_its_turn = front.id == exchange && is_alone;
        let holds = flows.hold[0] || flows.hold[1] || self.has_carry() || self.has_unsent_answers();
        let may = is_its_turn && !holds && self.may_repeat();
        let since = flows.moved[0].max(flows.moved[1]);
        let at = if may { since.saturating_add(limit) } else { now.saturating_add(limit) };
        let next = if at > now { at } else { now.saturating_add(limit.max(LATER_NS)) };
        if let Some(patience) = &mut self.patience {
            patience.want(next);
        }
        at <= now
    }

    /// Its client has ended its stream.
    pub(super) fn asks_no_more(&mut self) {
        if let Some(again) = &mut self.again {
            again.is_last = true;
        }
    }

    /// The request that waits has been sent before.
    pub(crate) fn is_repeated(&self) -> bool {
        self.again.as_deref().is_some_and(|it| it.is_repeated && self.waiting == Some(it.exchange))
    }

    /// There is much in memory: nothing is kept.
    pub(super) fn keep_none(&mut self, shared: &mut HttpCore, recorder: &Recorder) {
        if self.again.take().is_some() {
            recorder.bump(Key::NOT_KEPT);
            self.count_held(shared);
        }
    }

    /// The client has ended its stream. True where there is no upstream to which part of a head could go,
    /// and nobody who waits for an answer.
    pub(super) fn end_parted(&mut self) -> bool {
        if self.switch.is_deferred {
            self.switch.needs_any();
            return false;
        }
        if self.switch.is_parted {
            self.request.end(&mut self.exchanges);
        }
        self.switch.is_parted
    }

    /// Its kept request goes out again, whole, when there is an upstream. Bytes of requests, and of answers,
    /// last moved at these times.
    pub(crate) fn repeat<I: Io>(&mut self, core: &mut Core<I>, moved: [Nanos; 2]) {
        let Some(again) = self.again.as_deref_mut() else { return };
        if !again.is_repeated
            && let Some(patience) = &mut self.patience
            && let Some(exchange) = self.exchanges.get_mut(again.exchange)
        {
            // What its route allows is for all tries together. What moved last may be the answer that is
            // withheld; where others were answered before it, nobody has noted when.
            let [asked, answered] = moved;
            let is_known = again.is_withheld && again.is_alone;
            let since = if is_known { asked } else { asked.max(answered) };
            patience.begin_again(exchange.data.timed, since);
        }
        if let Some(patience) = &mut self.patience {
            // Nobody may have wanted to look again, as an answer had begun.
            let soon = again.retry.per_try_ns().unwrap_or(LATER_NS).min(LATER_NS);
            patience.want(core.now.saturating_add(soon));
        }
        (again.is_repeated, again.is_leaving, again.is_withheld) = (true, false, false);
        self.carry.clear();
        self.carry.extend_from_slice(&again.head);
        if let Some(shared) = &mut core.http {
            self.settle(shared, &core.recorder);
        }
    }
}
