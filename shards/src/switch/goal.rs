//! Where the requests of a connection are sent, and which of its addresses is tried.
//!
//! A connection has one upstream socket, so addresses are tried one after the other, where RFC 8305
//! races them. First each gets one step of the connect limit, a quarter of a second by default; then
//! those that have not refused share what is left of it. So a dead address costs a step, and one
//! that is merely slow is still reached.

use crate::{
    config::Limits,
    exchange::Place,
    sys::{Nanos, nanos},
};
use netra_codecs::route::Target;
use std::{net::IpAddr, sync::Arc, time::Duration};

/// Addresses of a name that are tried, at most.
pub const ADDRESSES_MAX: usize = 8;

/// The connection attempt delay of RFC 8305, section 5.
const STEP: Duration = Duration::from_millis(250);
/// Steps in the connect limit, at least: one for each address, and as many again to share.
const STEPS_MIN: u32 = 16;
const _: () = assert!(STEPS_MIN as usize == 2 * ADDRESSES_MAX);

/// How long an address has before the next is tried.
pub(crate) fn step(limits: &Limits) -> Nanos {
    nanos(STEP.min(limits.connect_timeout / STEPS_MIN)).max(1)
}

/// Addresses of a target.
#[derive(Debug)]
pub(crate) enum Addresses {
    /// It is one.
    One(IpAddr),
    /// It is a name.
    OfName(Arc<[IpAddr]>),
}

impl Addresses {
    fn all(&self) -> &[IpAddr] {
        match self {
            Self::One(ip) => std::slice::from_ref(ip),
            Self::OfName(all) => all,
        }
    }
}

/// A target, and how far netra came with reaching it.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) target: Target,
    /// No address of it may be dialled: requests for it go to the original destination.
    pub(crate) is_refused: bool,
    /// A rule leads there: lists of where routes of requests may lead say nothing of it.
    pub(crate) is_ruled: bool,
    /// The endpoint of the rules that it is.
    pub(crate) place: Option<Place>,
    /// Its addresses, while they are tried.
    addresses: Option<Addresses>,
    /// The one that is tried now.
    at: u8,
    /// A bit for each address that was tried in this round, and for each that is not to be tried
    /// any more.
    tried: u8,
    dead: u8,
    is_second_round: bool,
    /// Steps that are left to the one that is tried.
    patience: u64,
    /// When the connect limit is over: it began when the old upstream was left.
    pub(crate) until: Nanos,
}

impl Goal {
    pub(crate) fn new(target: Target, is_ruled: bool) -> Self {
        Self {
            target,
            is_ruled,
            is_refused: false,
            place: None,
            addresses: None,
            at: 0,
            tried: 0,
            dead: 0,
            is_second_round: false,
            patience: 0,
            until: 0,
        }
    }

    /// Begins with these addresses, but for those that are refused.
    pub(crate) fn begin(
        &mut self,
        addresses: Addresses,
        mut is_refused: impl FnMut(IpAddr) -> bool,
    ) {
        (self.at, self.tried, self.dead) = (0, 0, 0);
        self.is_second_round = false;
        for (place, ip) in addresses.all().iter().take(ADDRESSES_MAX).enumerate() {
            self.dead |= u8::from(is_refused(*ip)) << place;
        }
        self.addresses = Some(addresses);
    }

    /// The next address to dial; none when all are dead.
    pub(crate) fn next(&mut self, now: Nanos, step: Nanos) -> Option<IpAddr> {
        if self.alive(self.tried) == 0 {
            (self.tried, self.is_second_round) = (0, true);
        }
        let waiting = self.alive(self.tried);
        let place = (0..self.count()).find(|place| (self.tried | self.dead) & 1 << place == 0)?;
        let left = self.until.saturating_sub(now) / step;
        self.patience = if self.is_second_round { (left / waiting).max(1) } else { 1 };
        self.tried |= 1 << place;
        self.at = u8::try_from(place).unwrap_or(0);
        self.addresses.as_ref()?.all().get(place).copied()
    }

    /// The address that is tried has said that nobody is there.
    pub(crate) fn has_failed(&mut self) {
        self.dead |= 1 << self.at;
    }

    /// The connect limit is over.
    pub(crate) fn give_up(&mut self) {
        self.dead = u8::MAX;
    }

    /// A step is over; true when the next address's turn has come.
    pub(crate) fn step(&mut self) -> bool {
        self.patience = self.patience.saturating_sub(1);
        self.patience == 0 && self.has_others()
    }

    pub(crate) fn is_over(&self, now: Nanos) -> bool {
        now >= self.until
    }

    /// Whether an address has been dialled.
    pub(crate) fn is_begun(&self) -> bool {
        self.tried != 0
    }

    /// Whether no address is left.
    pub(crate) fn is_dead(&self) -> bool {
        self.alive(0) == 0
    }

    /// Whether there is another address to go on to.
    pub(crate) fn has_others(&self) -> bool {
        self.alive(0) > 1
    }

    /// The addresses are of no use any more: one has answered.
    pub(crate) fn settle(&mut self) {
        self.addresses = None;
    }

    fn count(&self) -> usize {
        self.addresses.as_ref().map_or(0, |them| them.all().len().min(ADDRESSES_MAX))
    }

    /// Addresses that are not dead, without those of `but`.
    fn alive(&self, but: u8) -> u64 {
        (0..self.count()).filter(|place| (self.dead | but) & 1 << place == 0).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_NS: Nanos = 250;

    fn goal(count: u8, until: Nanos, refused: &[u8]) -> Goal {
        let mut goal = Goal::new(Target::parse(b"shop").unwrap(), false);
        let addresses: Vec<IpAddr> = (0..count).map(|last| [10, 0, 0, last].into()).collect();
        let is_refused =
            |ip: IpAddr| refused.iter().any(|last| ip == IpAddr::from([10, 0, 0, *last]));
        goal.until = until;
        goal.begin(Addresses::OfName(addresses.into()), is_refused);
        goal
    }

    /// The last bytes of the addresses that are dialled, when nobody ever answers, with the time.
    fn silence(mut goal: Goal) -> Vec<(Nanos, u8)> {
        let mut dialled = Vec::new();
        let mut now = 0;
        let mut dial = |goal: &mut Goal, now| {
            if let Some(IpAddr::V4(ip)) = goal.next(now, STEP_NS) {
                dialled.push((now, ip.octets()[3]));
            }
        };
        dial(&mut goal, now);
        while !goal.is_over(now) {
            now += STEP_NS;
            if !goal.is_over(now) && goal.step() {
                dial(&mut goal, now);
            }
        }
        dialled
    }

    #[test]
    fn each_address_has_a_step_and_then_its_share() {
        assert_eq!(silence(goal(1, 5000, &[])), [(0, 0)]);
        assert_eq!(silence(goal(2, 5000, &[])), [(0, 0), (250, 1), (500, 0), (2750, 1)]);
        let eight = silence(goal(8, 5000, &[]));
        assert_eq!(
            eight[..9],
            [0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000]
                .map(|at| (at, u8::try_from(at / 250 % 8).unwrap()))
        );
        assert_eq!(eight.len(), 16, "{eight:?}");
        // More than are tried.
        assert!(silence(goal(20, 5000, &[])).iter().all(|(_, last)| *last < 8));
    }

    #[test]
    fn what_is_refused_is_never_dialled() {
        assert_eq!(silence(goal(3, 1000, &[0, 2])), [(0, 1)]);
        assert_eq!(silence(goal(2, 1000, &[0, 1])), []);
        assert_eq!(silence(goal(0, 1000, &[])), []);
    }

    #[test]
    fn who_said_no_is_not_asked_again() {
        let mut goal = goal(3, 5000, &[]);
        for last in 0..3 {
            assert_eq!(goal.next(0, STEP_NS), Some([10, 0, 0, last].into()));
            goal.has_failed();
        }
        assert_eq!(goal.next(0, STEP_NS), None);
    }

    #[test]
    fn steps_fit_the_connect_limit() {
        let limit = |ms| Limits { connect_timeout: Duration::from_millis(ms), ..Limits::default() };
        assert_eq!(step(&limit(5000)), 250_000_000);
        assert_eq!(step(&limit(1600)), 100_000_000);
        assert!(step(&limit(1)) > 0);
    }
}
