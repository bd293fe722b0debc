//! Another upstream for a routed request: wait until what was asked before has been answered,
//! close the upstream, resolve, dial, go on. The downstream connection stays; bytes of its client
//! wait in the flow's queue, and its reading pauses there like behind any slow receiver.
//!
//! ```text
//!                                                  +-- GivingUp <--+  the next address
//!                                                  v               |
//! Settled -> Draining -> Closing -> Resolving -> Dialling ---------+-> Settled
//!                                       |                          |
//!                                       +---------> 502 <----------+
//! ```
//! Where no address of the target may be dialled, the original destination is. While it drains, the old upstream may end its stream: then so does the connection. Or its
//! responses can no longer be told apart: then the connection is opaque, and the upstream stays.

use super::{
    Waiting,
    goal::Goal,
    ruled::{Refused, Ruled},
};
use crate::{http::Http, sys::Nanos};
use netra_codecs::{
    h1::{Reason, RequestKind},
    route::Target,
};

/// Where the change of upstream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stand {
    /// The upstream is the one that is wanted.
    #[default]
    Settled,
    /// Earlier requests are still being answered.
    Draining(Waiting),
    /// The old upstream is being closed.
    Closing,
    /// The control thread looks the name up.
    Resolving,
    /// The new upstream has not answered yet.
    Dialling,
    /// The address that was dialled did not answer, with this errno, and its socket is being
    /// closed.
    GivingUp(i32),
    /// The old upstream has ended before it was left, and the downstream has been told: what still
    /// comes is thrown away.
    Stranded,
    /// There is none, and the downstream has been told: what still comes is thrown away.
    GaveUp,
}

/// Which upstream a connection has, and which it wants. None is the original destination.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    pub(crate) stand: Stand,
    pub(crate) goal: Option<Box<Goal>>,
    /// The request that was looked at last waits until then, before anything is done for it.
    pub(crate) until: Option<Nanos>,
    /// It goes nowhere, and this is what its client is told.
    pub(crate) refused: Option<Box<Refused>>,
}

impl Switch {
    /// A request has come: `routed` is where its own route leads, which goes before what the rules
    /// say. True when it has to wait, for a time, for another upstream, or for its refusal's turn.
    pub(crate) fn obey(
        &mut self,
        routed: Option<Option<Target>>,
        ruled: Ruled,
        exchange: Waiting,
        now: Nanos,
    ) -> bool {
        self.until = (ruled.delay_ns > 0).then(|| now.saturating_add(ruled.delay_ns));
        if ruled.refused.is_some() {
            self.refused = ruled.refused;
            self.stand = Stand::Draining(exchange);
            return true;
        }
        let is_elsewhere = match (routed, ruled.target) {
            (Some(Some(target)), _) => self.wants(Some(target), false, exchange),
            (_, Some(target)) => self.wants(target, true, exchange),
            (Some(None), None) => self.wants(None, false, exchange),
            // Nobody says anything of this request, but an earlier one may have gone elsewhere.
            (None, None) => self.goal.is_some() && self.wants(None, false, exchange),
        };
        is_elsewhere || self.until.is_some()
    }

    /// A request wants to go to `target`; true when that is elsewhere, and it has to wait.
    fn wants(&mut self, target: Option<Target>, is_ruled: bool, exchange: Waiting) -> bool {
        let goal = self.goal.as_deref();
        let is_there = match target {
            Some(target) => goal.is_some_and(|goal| goal.target == target),
            None => self.target().is_none(),
        };
        if is_there {
            return false;
        }
        self.goal = target.map(|target| Box::new(Goal::new(target, is_ruled)));
        self.stand = Stand::Draining(exchange);
        true
    }

    /// A request of HTTP/2 has come, which goes where its connection goes, or leads it. False where it
    /// should have gone elsewhere.
    pub(crate) fn lead(&mut self, routed: Option<Option<Target>>, may_lead: bool) -> bool {
        let Some(target) = routed else { return true };
        let is_there = self.target() == target.as_ref();
        is_there || (may_lead && target.is_some() && self.wants(target, false, None))
    }

    /// Where requests go; none is the original destination.
    pub(crate) fn target(&self) -> Option<&Target> {
        self.goal.as_deref().filter(|goal| !goal.is_refused).map(|goal| &goal.target)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.stand != Stand::Settled || self.until.is_some()
    }
}

impl Http {
    /// The connection has no upstream that could tell anything, or not one that should.
    pub(crate) fn is_detached(&self) -> bool {
        !matches!(self.switch.stand, Stand::Settled | Stand::Draining(_) | Stand::Stranded)
    }

    /// Its exchanges can no longer be told apart.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed().is_some()
    }

    /// What its client still sends is thrown away.
    pub(crate) fn gave_up(&self) -> bool {
        matches!(self.switch.stand, Stand::GaveUp | Stand::Stranded)
    }

    /// The upstream's socket is the backend's to close; otherwise it is closed, or being closed.
    pub(crate) fn has_upstream(&self) -> bool {
        self.switch.stand == Stand::Dialling || !self.is_detached()
    }

    /// The backend will tell that the upstream's socket is closed.
    pub(crate) fn awaits_close(&self) -> bool {
        matches!(self.switch.stand, Stand::Closing | Stand::GivingUp(_))
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

    /// Everything that was asked before this request has been answered. Seals the exchanges where
    /// the upstream goes on to answer what it has not been asked.
    pub(crate) fn has_drained(&mut self, waiting: Waiting) -> bool {
        if waiting.is_none() {
            return true;
        }
        let is_answered = match self.exchanges.front_mut() {
            Some(front) if Some(front.id) != waiting => return false,
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
