//! What a change of upstream is to a connection of HTTP: which request waits for it, and what its
//! client is told where there is none to be had.

use super::ruled::Ruled;
use crate::{
    core::Core,
    editor::Done,
    exchange::Seating,
    http::Http,
    io::Io,
    patience::Patience,
    switch::{
        Stand, Switch,
        seats::{Seats, heard_of_http},
    },
    sys::Nanos,
};
use netra_codecs::{
    h1::{Reason, RequestKind},
    route::Target,
    trace::{Fault, Outcome},
};

/// A request has come: `routed` is where its own route leads, which goes before what the rules say.
/// True when it has to wait, for a time, for another upstream, or for its refusal's turn.
pub(super) fn obey(
    switch: &mut Switch,
    routed: Option<Option<Target>>,
    ruled: &Ruled<'_>,
    now: Nanos,
) -> bool {
    switch.until = (ruled.delay_ns > 0).then(|| now.saturating_add(ruled.delay_ns));
    if ruled.refused.is_some() {
        switch.stand = Stand::Draining;
        return true;
    }
    let is_elsewhere = match (routed, ruled.target) {
        (Some(Some(target)), _) => switch.wants(Some(target), false),
        (_, Some(target)) => switch.wants(target, true),
        (Some(None), None) => switch.wants(None, false),
        // Nobody says anything of this request, but an earlier one may have gone elsewhere.
        (None, None) => switch.goal.is_some() && switch.wants(None, false),
    };
    if switch.is_parted {
        // Whether it is the same one or another: it has to be dialled.
        switch.stand = Stand::Draining;
        return true;
    }
    is_elsewhere || switch.until.is_some()
}

/// An exchange is over: what came of it is noted where its connection sits.
#[inline]
pub(super) fn heard(seats: &Seats, done: &Done, outcome: Outcome, now: Nanos) {
    if done.data.is_seated {
        let heard = heard_of_http(done.status.unwrap_or(0), outcome);
        seats.end(seats.lane(), heard, now.saturating_sub(done.opened_ns), now);
    }
}

/// Takes the seat that a request has been given; a route of its own goes before it. Whether the request
/// counts there.
#[inline]
pub(super) fn sit(
    seats: &mut Seats,
    switch: &Switch,
    routed: Option<Option<Target>>,
    ruled: &mut Ruled<'_>,
) -> bool {
    if ruled.refused.is_some() {
        return false;
    }
    let seating = std::mem::take(&mut ruled.seating);
    let seating = if matches!(routed, Some(Some(_))) { Seating::None } else { seating };
    seats.take(seating, switch.stand == Stand::Draining);
    seats.begin()
}

impl Http {
    /// Its exchanges can no longer be told apart.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed().is_some()
    }

    /// The request that waits may go by an upstream that rests, and the one that it leaves may rest.
    pub(crate) fn may_come_back(&self) -> bool {
        let has_words = self.patience.as_deref().is_some_and(Patience::has_words);
        let is_told = self.refused.is_some() || has_words;
        !is_told && !self.is_http2() && !self.is_repeated() && !self.is_sealed()
    }

    /// The answer to the request that waits: nothing of a response has been sent, and nothing of
    /// the request has left.
    pub(crate) fn refusal(&mut self, why: &str) -> String {
        let target = match self.switch.target() {
            Some(target) => target.to_string(),
            None => String::from("the original destination"),
        };
        self.answer(502, &format!("netra: {target}: {why}\n"))
    }

    /// An answer of netra's own to the request that waits, after which the connection ends.
    pub(crate) fn answer(&mut self, status: u16, text: &str) -> String {
        let phrase = match status {
            403 => "Forbidden",
            404 => "Not Found",
            429 => "Too Many Requests",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            _ => "Refused",
        };
        let head = format!(
            "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            text.len()
        );
        let front = self.exchanges.front_mut();
        let has_body = front.is_some_and(|front| {
            front.status = Some(status);
            front.kind != RequestKind::Head
        });
        head + if has_body { text } else { "" }
    }

    /// Its client is told the last that it is told: none of its exchanges comes to its end.
    pub(crate) fn give_up_with<I: Io>(
        &mut self,
        core: &mut Core<I>,
        outcome: Outcome,
        fault: Option<Fault>,
    ) {
        self.switch.stand = Stand::GaveUp;
        self.fault = fault;
        self.end(core, outcome);
        self.fault = None;
    }

    /// Everything that was asked before the request that waits has been answered. Seals the
    /// exchanges where the upstream goes on to answer what it has not been asked.
    pub(crate) fn has_drained(&mut self) -> bool {
        if self.waiting.is_none() {
            // The first request of HTTP/2, before which nothing was asked.
            return true;
        }
        if self.has_answers_on_the_way() {
            return false;
        }
        let is_answered = match self.exchanges.front_mut() {
            Some(front) if Some(front.id) != self.waiting => return false,
            Some(front) => front.status.is_some() || front.interim_count > 0,
            None => true,
        };
        if is_answered || self.response.held_len() > 0 {
            self.exchanges.seal(Reason::ResponseWithoutRequest);
            return false;
        }
        true
    }
}
