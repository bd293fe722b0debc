//! What the change of an upstream needs of whoever reads the connection's messages.

use super::{Connection, Phase};
use crate::{
    along::Along,
    copies::Copies,
    core::Core,
    error::Direction,
    gate::Flows,
    io::{Io, Token},
    patience::{Overdue, Patience},
    switch::{Stand, Switch, seats::Seats},
};
use netra_codecs::{
    codec::Why,
    trace::{Fault, Outcome},
};
use netra_perf::Key;
use std::net::SocketAddr;

impl Connection {
    /// Where the change of its upstream stands; none where it cannot change.
    #[inline]
    pub(crate) fn switch(&self) -> Option<&Switch> {
        match (&self.http, &self.tap) {
            (Some(http), _) => Some(&http.switch),
            (None, tap) => tap.as_ref().and_then(Along::switch),
        }
    }

    pub(crate) fn switch_mut(&mut self) -> Option<&mut Switch> {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => Some(&mut http.switch),
            (None, Some(Along::Leg(leg))) => Some(&mut leg.switch),
            (None, Some(Along::Mirror(mirror))) => Some(&mut mirror.switch),
            (None, tap) => Some(tap.as_mut()?.gate()?.switch_mut()),
        }
    }

    /// The endpoints that rules send its messages to.
    pub(crate) fn seats(&mut self) -> Option<&mut Seats> {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => Some(&mut http.seats),
            (None, tap) => Some(tap.as_mut()?.gate()?.seats_mut()),
        }
    }

    /// Its upstream is being changed, and cannot tell anything that counts.
    #[inline]
    pub(crate) fn is_detached(&self) -> bool {
        self.is_read() && self.switch().is_some_and(Switch::is_detached)
    }

    /// Nobody has been dialled for it yet.
    pub(crate) fn is_deferred(&self) -> bool {
        let is_deferred = |it: &Switch| it.is_deferred && it.is_parted;
        self.phase == Phase::Hearing || self.switch().is_some_and(is_deferred)
    }

    /// Its client's end was seen while it has no upstream, and netra has something to tell still.
    pub(crate) fn has_untold(&self) -> bool {
        let of_gate = matches!(&self.tap, Some(Along::Gated(gate)) if gate.has_untold());
        self.response.holds_bytes() || of_gate
    }

    /// The upstream that there is is the one that is wanted.
    pub(crate) fn is_settled(&self) -> bool {
        self.switch().is_none_or(|switch| switch.stand == Stand::Settled)
    }

    /// The slot is a leg or a mirror of another connection: it has an upstream side alone.
    pub(crate) fn is_leg(&self) -> bool {
        matches!(&self.tap, Some(Along::Leg(_) | Along::Mirror(_)))
    }

    /// The slot is a mirror.
    pub(crate) fn is_mirror(&self) -> bool {
        matches!(&self.tap, Some(Along::Mirror(_)))
    }

    /// Copies of its messages; none where it is of a kind that has none.
    pub(crate) fn copies_mut(&mut self) -> Option<&mut Option<Box<Copies>>> {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => Some(&mut http.copies),
            (None, tap) => Some(tap.as_mut()?.gate()?.copies_mut()),
        }
    }

    /// There will be no further copies of its messages.
    pub(crate) fn copies_are_over(&self) -> bool {
        match (&self.http, &self.tap) {
            (Some(http), _) => http.is_sealed(),
            (None, Some(Along::Gated(gate))) => gate.copies_are_over(),
            _ => true,
        }
    }

    /// It is a leg, or has legs.
    #[inline]
    pub(crate) fn has_legs(&self) -> bool {
        self.tap.as_ref().is_some_and(Along::has_legs)
    }

    /// Its exchanges can no longer be told apart.
    pub(crate) fn is_sealed(&self) -> bool {
        match (&self.http, &self.tap) {
            (Some(http), _) => http.is_sealed(),
            (None, Some(Along::Gated(gate))) => gate.tapped().is_over(),
            _ => false,
        }
    }

    /// The request that waits goes nowhere.
    pub(crate) fn is_refused(&self) -> bool {
        self.http.as_deref().is_some_and(|http| http.refused.is_some())
    }

    /// Everything that was asked before the request that waits has been answered.
    pub(crate) fn has_drained(&mut self) -> bool {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => http.has_drained(),
            (None, Some(Along::Gated(gate))) => gate.has_drained(),
            _ => false,
        }
    }

    /// Whether it may wait for ever for what was asked before.
    pub(crate) fn may_wait_for_ever(&self) -> bool {
        matches!(&self.tap, Some(Along::Gated(gate)) if gate.may_wait_for_ever())
    }

    /// Where its requests go, for those who are told of them.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        match (&self.http, &self.tap) {
            (Some(http), _) => http.remote,
            (None, Some(Along::Gated(gate))) => gate.remote(),
            (None, Some(Along::Leg(leg))) => leg.remote,
            (None, Some(Along::Mirror(mirror))) => mirror.remote,
            _ => None,
        }
    }

    /// Its requests go there from now on. Those that come in are told of by who asked.
    pub(crate) fn set_remote(&mut self, remote: Option<SocketAddr>) {
        match &mut self.tap {
            Some(Along::Leg(leg)) => leg.remote = remote,
            Some(Along::Mirror(mirror)) => mirror.remote = remote,
            _ => {}
        }
        if self.direction == Direction::Inbound {
            return;
        }
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => http.remote = remote,
            (None, Some(Along::Gated(gate))) => gate.set_remote(remote),
            _ => {}
        }
    }

    /// The request that waits may be sent: to the new upstream, or to the old one after all.
    pub(crate) fn settle<I: Io>(&mut self, core: &mut Core<I>) {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => http.switch.stand = Stand::Settled,
            (None, Some(Along::Gated(gate))) => gate.go_on(core),
            _ => {}
        }
    }

    /// Names the upstream that was dialled in the span of the request that waits for it.
    pub(crate) fn name_remote<I: Io>(&mut self, core: &mut Core<I>) {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => http.name_remote(core),
            (None, Some(Along::Gated(gate))) => gate.name_remote(core),
            _ => {}
        }
    }

    /// The old upstream has ended, and so does the connection when its client has, too.
    pub(crate) fn strand<I: Io>(&mut self, core: &mut Core<I>) {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => {
                http.switch.stand = Stand::Stranded;
                http.end(core, Outcome::UpstreamGone);
            }
            (None, Some(Along::Gated(gate))) => gate.strand(core),
            _ => {}
        }
    }

    /// There is no upstream for the request that waits. Returns what its client is told; None where
    /// there are no words for that.
    pub(crate) fn fail<I: Io>(
        &mut self,
        core: &mut Core<I>,
        why: &str,
        fault: Fault,
    ) -> Option<Vec<u8>> {
        self.name_remote(core);
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) if http.is_http2() => {
                http.give_up_with(core, Outcome::Unreachable, Some(fault));
                None
            }
            (Some(http), _) => {
                let answer = http.refusal(why);
                core.recorder.bump(Key::refused(Why::Unreachable as usize));
                http.give_up_with(core, Outcome::Unreachable, Some(fault));
                Some(answer.into_bytes())
            }
            (None, Some(Along::Gated(gate))) => gate.fail(core),
            _ => None,
        }
    }

    /// Its answers that may not take for ever; none where there are none.
    #[inline]
    pub(crate) fn patience(&self) -> Option<&Patience> {
        match (&self.http, &self.tap) {
            (Some(http), _) => http.patience.as_deref(),
            (None, Some(tap)) => tap.patience(),
            (None, None) => None,
        }
    }

    pub(crate) fn patience_mut(&mut self) -> Option<&mut Patience> {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => http.patience.as_deref_mut(),
            (None, Some(tap)) => tap.patience_mut(),
            (None, None) => None,
        }
    }

    /// Some of its answers may be overdue.
    pub(crate) fn look_at_answers<I: Io>(&mut self, core: &mut Core<I>) -> Overdue {
        let flows = Flows {
            moved: [self.request.last_moved(), self.response.last_moved()],
            hold: [self.request.holds_bytes(), self.response.holds_bytes()],
        };
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => http.look_at_answers(core, flows),
            (None, Some(Along::Gated(gate))) => gate.look_at_answers(core, flows),
            _ => Overdue::GoOn,
        }
    }

    /// What its client is told last, its upstream having been left for good.
    pub(crate) fn take_last_words<I: Io>(&mut self, core: &mut Core<I>) -> Option<Vec<u8>> {
        match (&mut self.http, &mut self.tap) {
            (Some(http), _) => http.take_last_words(core),
            (None, Some(Along::Gated(gate))) => gate.take_last_words(core),
            _ => None,
        }
    }

    /// The upstream is being changed; its old socket is about to be closed.
    pub(crate) fn detach<I: Io>(&mut self, core: &mut Core<I>, downstream: Token) {
        self.response.detach(core, downstream);
    }

    /// The upstream has been changed.
    pub(crate) fn attach(&mut self) {
        self.response.attach();
    }

    /// There will be no upstream any more: these are the last bytes for the downstream, and what
    /// it has sent is thrown away.
    pub(crate) fn answer<I: Io>(&mut self, core: &mut Core<I>, downstream: Token, bytes: &[u8]) {
        self.request.discard(core);
        let kept = self.response.finish_with(core, downstream, bytes);
        match (&mut self.http, &mut self.tap) {
            _ if kept == bytes.len() => {}
            (Some(http), _) => http.carry_answer(core, &bytes[kept..]),
            (None, Some(Along::Gated(gate))) => gate.carry_answer(&bytes[kept..]),
            _ => {}
        }
    }
}
