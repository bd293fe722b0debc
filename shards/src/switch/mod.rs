//! Another upstream for a request: wait until what was asked before has been answered, close the
//! upstream, resolve, dial, go on. The downstream connection stays; what its client sends waits in
//! the flow's queue, and its reading pauses there like behind any slow receiver.
//!
//! ```text
//!                                                  +-- GivingUp <--+  the next address
//!                                                  v               |
//! Settled -> Draining -> Closing -> Resolving -> Dialling ---------+-> Settled
//!                                       |                          |
//!                                       +----> the client is told <+
//! ```
//! An upstream that ends between two requests may be parted from (`Parting`, then `Settled` without an
//! upstream): the next request goes on from `Draining`. So does the first one of a connection whose dial was
//! deferred (`defer.rs`), and what is no request does, too. Where no address of the target may be dialled, the original destination is. While it drains, the old
//! upstream may end its stream: then so does the connection. Or its answers can no longer be told
//! apart: then the connection is opaque, and the upstream stays.
//!
//! A connection whose messages are told apart need not leave its upstream: it goes from `Draining` by
//! `Reaching` to `Settled`, and has several from then on (`leg.rs`).
//!
//! One of HTTP/1 does not close what it leaves either, if it may come back: see `resting.rs`.
//!
//! Here is where a connection stands, and nothing is done; whoever reads the connection's messages
//! has one of these, and `upstream.rs` drives it.

pub(crate) mod goal;
pub(crate) mod leg;
pub(crate) mod mirror;
pub(crate) mod resting;
pub(crate) mod seats;

use crate::{exchange::Place, sys::Nanos};
use goal::Goal;
use netra_codecs::route::Target;

/// Where the change of upstream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stand {
    /// The upstream is the one that is wanted.
    #[default]
    Settled,
    /// Earlier requests are still being answered.
    Draining,
    /// A further upstream is being reached for the request that waits, and those that there are go on.
    Reaching,
    /// The old upstream is being closed.
    Closing,
    /// The old upstream is being closed, which has ended by itself, and nobody waits for another.
    Parting,
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
    /// The upstream has ended, and others of the connection have not: every request goes elsewhere.
    pub(crate) is_gone: bool,
    /// The last upstream has ended between two requests, and nobody has asked since: the next request
    /// dials.
    pub(crate) is_parted: bool,
    /// Nobody has been dialled for the connection before: nothing was sent to anybody.
    pub(crate) is_deferred: bool,
    /// When the first dial of a connection began that was deferred, in units of 256 ns: they come round in
    /// 18 minutes, which no dial takes.
    pub(crate) began: u32,
    /// The request that was looked at last waits until then, before anything is done for it.
    pub(crate) until: Option<Nanos>,
}

const UNIT_BITS: u32 = 8;

fn units(at: Nanos) -> u32 {
    u32::try_from(at >> UNIT_BITS & 0xffff_ffff).unwrap_or(0)
}

impl Switch {
    /// Whether a request for `target` has to go elsewhere than the last one.
    pub(crate) fn is_elsewhere(&self, target: Option<&Target>) -> bool {
        if self.is_gone {
            return true;
        }
        match target {
            Some(target) => self.goal.as_deref().is_none_or(|goal| goal.target != *target),
            None => self.target().is_some(),
        }
    }

    /// A request wants to go to `target`; true when that is elsewhere, and it has to wait.
    pub(crate) fn wants(&mut self, target: Option<Target>, is_ruled: bool) -> bool {
        if !self.is_elsewhere(target.as_ref()) {
            return false;
        }
        self.aim(target, is_ruled);
        self.stand = Stand::Draining;
        true
    }

    /// A request is to go to `target`, as a rule says, and that is elsewhere. Where those before it went
    /// stands in `old` then; what stood there is storage.
    pub(crate) fn leave_for(&mut self, target: Option<Target>, old: &mut Option<Box<Goal>>) {
        self.stand = Stand::Draining;
        std::mem::swap(&mut self.goal, old);
        self.aim(target, true);
    }

    /// Requests are to go there; the storage is used again.
    fn aim(&mut self, target: Option<Target>, is_ruled: bool) {
        match (target, &mut self.goal) {
            (Some(target), Some(goal)) => **goal = Goal::new(target, is_ruled),
            (target, goal) => *goal = target.map(|target| Box::new(Goal::new(target, is_ruled))),
        }
    }

    /// Nobody is dialled before a message says where to.
    pub(crate) fn defer(&mut self) {
        (self.is_parted, self.is_gone, self.is_deferred) = (true, true, true);
    }

    /// The first dial begins.
    pub(crate) fn begin(&mut self, now: Nanos) {
        self.began = units(now);
    }

    /// How long it has taken by now.
    pub(crate) fn since_begin(&self, now: Nanos) -> Nanos {
        Nanos::from(units(now).wrapping_sub(self.began)) << UNIT_BITS
    }

    /// What came cannot be decided about, and has to go where its client wanted to: whoever has no
    /// upstream gets one.
    #[cold]
    pub(crate) fn needs_any(&mut self) {
        if self.is_parted && self.stand == Stand::Settled {
            self.stand = Stand::Draining;
        }
    }

    /// The original destination is being dialled for the first time, as it would have been at once:
    /// where nobody answers there, its client sees that.
    pub(crate) fn is_first_home(&self) -> bool {
        self.is_deferred && self.target().is_none()
    }

    /// The endpoint of the rules that requests go to, where one was noted.
    #[inline]
    pub(crate) fn place(&self) -> Option<Place> {
        self.goal.as_deref()?.place
    }

    /// The goal is this endpoint of the rules.
    pub(crate) fn is_at(&mut self, place: Option<Place>) {
        if let Some(goal) = self.goal.as_deref_mut() {
            goal.place = place;
        }
    }

    /// Where requests go; none is the original destination.
    pub(crate) fn target(&self) -> Option<&Target> {
        self.goal.as_deref().filter(|goal| !goal.is_refused).map(|goal| &goal.target)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.stand != Stand::Settled || self.until.is_some()
    }

    /// The connection has no upstream that could tell anything, or not one that should.
    pub(crate) fn is_detached(&self) -> bool {
        let is_attached = matches!(
            self.stand,
            Stand::Settled | Stand::Draining | Stand::Reaching | Stand::Stranded
        );
        self.is_parted || !is_attached
    }

    /// What its client still sends is thrown away.
    pub(crate) fn gave_up(&self) -> bool {
        matches!(self.stand, Stand::GaveUp | Stand::Stranded)
    }

    /// The upstream's socket is the backend's to close; otherwise it is closed, or being closed.
    pub(crate) fn has_upstream(&self) -> bool {
        self.stand == Stand::Dialling || !self.is_detached()
    }

    /// The backend will tell that the upstream's socket is closed.
    pub(crate) fn awaits_close(&self) -> bool {
        matches!(self.stand, Stand::Closing | Stand::Parting | Stand::GivingUp(_))
    }
}
