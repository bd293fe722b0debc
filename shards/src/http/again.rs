//! Requests that are asked again: the edited head of one is kept from when it is sent until the next one
//! comes, and where the upstream ends before anything of the answer has come, it goes to another endpoint.
//! So much is done for requests without a body whose method is safe, where a route asks for it.
//!
//! The same connections are not ended where their upstream ends between two requests: they are *parted*
//! from it, and the next request dials. A client that asks just then does not learn of it.

use super::{Http, ruled::Ruled};
use crate::{
    core::{Core, HttpCore},
    io::Io,
    switch::resting::Resting,
};
use netra_codecs::h1::{ExchangeId, Framing, HeadPatch, RequestHead, ResponseHead, Version};
use netra_perf::{Key, Recorder};

/// A longer head is not kept: it is asked once.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A request that may be asked again.
#[derive(Debug)]
pub(super) struct Again {
    /// Its head, as it is sent. The storage is used again by the next one.
    head: Vec<u8>,
    exchange: ExchangeId,
    attempts: u8,
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
    /// One request is asked again, so often at most.
    Unanswered(u8),
}

/// Keeps a request that a route lets be asked again. Whether it may be.
#[inline]
pub(super) fn keep(
    kept: &mut Option<Box<Again>>,
    exchange: ExchangeId,
    ruled: &Ruled<'_>,
    head: &RequestHead<'_>,
    patch: &HeadPatch,
    recorder: &Recorder,
) -> bool {
    ruled.retry.attempts > 0
        && is_safe(head)
        && copy(kept, (exchange, ruled.retry.attempts), (head, patch), recorder)
}

fn copy(
    kept: &mut Option<Box<Again>>,
    (exchange, attempts): (ExchangeId, u8),
    (head, patch): (&RequestHead<'_>, &HeadPatch),
    recorder: &Recorder,
) -> bool {
    let len = patch.patched_len(head.bytes().len());
    if len > HEAD_BYTES_MAX {
        recorder.bump(Key::NOT_KEPT);
        return false;
    }
    let again = kept.get_or_insert_with(|| {
        let head = Vec::new();
        Box::new(Again { head, exchange, attempts, is_repeated: false, persists: false })
    });
    again.head.clear();
    again.head.reserve_exact(len);
    patch.pieces(head.bytes()).for_each(|piece| again.head.extend_from_slice(piece.bytes()));
    (again.exchange, again.attempts, again.is_repeated) = (exchange, attempts, false);
    let is_last = head.fields().named(b"connection").any(says_close);
    again.persists = head.version() == Version::Http11 && !is_last;
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

impl Again {
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
        let is_in_doubt = self.two.is_some()
            || self.sealed().is_some()
            || self.request_is_opaque()
            || self.exchanges.is_switching();
        let is_moving = self.is_switching()
            || self.request.is_within_body()
            || self.cleared > 0
            || self.response.held_len() > 0
            || self.has_unsent_answers();
        if is_in_doubt || is_moving || self.waiting != Some(again.exchange) {
            return Final;
        }
        let is_alone = self.exchanges.len() == 1;
        match self.exchanges.front_mut() {
            None if again.persists => Between,
            Some(front) if is_alone && front.id == again.exchange => {
                let has_begun = front.status.is_some() || front.interim_count > 0;
                if has_begun { Final } else { Unanswered(again.attempts) }
            }
            _ => Final,
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

    /// Its kept request goes out again, whole, when there is an upstream.
    pub(crate) fn repeat<I: Io>(&mut self, core: &mut Core<I>) {
        let Some(again) = self.again.as_deref_mut() else { return };
        again.is_repeated = true;
        self.carry.clear();
        self.carry.extend_from_slice(&again.head);
        if let Some(shared) = &mut core.http {
            self.settle(shared, &core.recorder);
        }
    }
}
