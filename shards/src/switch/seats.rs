//! Where a connection sits: at the endpoint that its messages go to, and at the one that it is about to
//! go to while its upstream is changed. What is under way is counted there.

use crate::{
    exchange::{Seating, Sits, target_at},
    sys::Nanos,
};
use netra_codecs::{
    codec,
    route::Target,
    trace::{Outcome, RetryReason, Tries},
};
use netra_rules::{Heard, Seat};
use std::net::SocketAddr;

/// The seats of one connection; nothing where rules send its messages to no endpoint.
#[derive(Debug, Default)]
pub(crate) struct Seats(Option<Box<Two>>);

#[derive(Debug, Default)]
struct Two {
    now: Option<Seat>,
    /// Another upstream is wanted, and this is the seat there; the inner None is none.
    next: Option<Option<Seat>>,
    /// Which of the connection's legs messages go by now, and the seats of the others.
    lane: u8,
    others: Vec<(u8, Seat)>,
}

impl Seats {
    /// Where messages go now.
    #[inline]
    pub(crate) fn now(&self) -> Option<&Seat> {
        self.0.as_deref()?.now.as_ref()
    }

    /// The same with where they go by other legs, for those who decide.
    #[inline]
    pub(crate) fn sits(&self) -> Sits<'_> {
        match self.0.as_deref() {
            Some(two) => Sits { now: two.now.as_ref(), others: &two.others },
            None => Sits::default(),
        }
    }

    /// The next message goes there, `elsewhere` or by the upstream that there is.
    pub(crate) fn take(&mut self, seating: Seating, is_elsewhere: bool) {
        let seat = match seating {
            Seating::Same => return,
            Seating::None if self.0.is_none() => return,
            Seating::None => None,
            Seating::New(seat) => Some(seat),
        };
        let two = self.0.get_or_insert_default();
        if is_elsewhere {
            two.next = Some(seat);
            return;
        }
        if let Some(seat) = &seat {
            if let Some(now) = &two.now {
                seat.take_over(now);
            }
            seat.connected();
        }
        two.now = seat;
    }

    /// The old upstream has been left.
    pub(crate) fn change(&mut self) {
        if let Some(two) = &mut self.0
            && let Some(next) = two.next.take()
        {
            two.now = next;
        }
    }

    /// Messages go by another leg from here on.
    pub(crate) fn hop(&mut self, to: u8) {
        let two = self.0.get_or_insert_default();
        if let Some(now) = two.now.take() {
            two.others.push((two.lane, now));
        }
        two.lane = to;
        two.now = two.take_other(to);
        let Some(next) = two.next.take() else { return };
        if let Some(next) = &next {
            if let Some(now) = &two.now {
                next.take_over(now);
            }
            reach(next);
        }
        two.now = next;
    }

    /// Messages go elsewhere from here on, by a leg of this number that is still to be reached; the seat
    /// that there was is kept.
    pub(crate) fn rest(&mut self, to: u8) {
        let two = self.0.get_or_insert_default();
        if let Some(now) = two.now.take() {
            two.others.push((two.lane, now));
        }
        two.lane = to;
        two.now = two.next.take().flatten();
    }

    /// Which leg messages go by.
    #[inline]
    pub(crate) fn lane(&self) -> u8 {
        self.0.as_deref().map_or(0, |two| two.lane)
    }

    /// A leg has ended, and so has what was under way there.
    pub(crate) fn lose(&mut self, lane: u8) {
        let Some(two) = &mut self.0 else { return };
        match two.lane == lane {
            true => two.now = None,
            false => drop(two.take_other(lane)),
        }
    }

    /// Where the message that waits is to go, or messages go now.
    pub(crate) fn wanted(&self) -> Option<&Seat> {
        let two = self.0.as_deref()?;
        match &two.next {
            Some(next) => next.as_ref(),
            None => two.now.as_ref(),
        }
    }

    /// It is not left after all.
    pub(crate) fn stay(&mut self) {
        if let Some(two) = &mut self.0 {
            two.next = None;
        }
    }

    /// The message that waits goes to no endpoint after all.
    pub(crate) fn leave(&mut self) {
        let Some(two) = &mut self.0 else { return };
        (two.now, two.next) = (None, None);
        // Others keep their numbers.
        if two.lane == 0 && two.others.is_empty() {
            self.0 = None;
        }
    }

    /// The same of a connection that has legs.
    pub(crate) fn leave_next(&mut self) {
        if let Some(two) = &mut self.0 {
            two.next = Some(None);
        }
    }

    /// No leg is left.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// The new upstream is there.
    pub(crate) fn settle(&self) {
        self.now().inspect(|seat| reach(seat));
    }

    /// Nothing that was sent again is open any more.
    pub(crate) fn settle_all(&self) {
        let others = self.0.iter().flat_map(|two| &two.others).map(|(_, seat)| seat);
        self.now().into_iter().chain(others).for_each(Seat::connected);
    }

    /// The new upstream is there for a message that was sent before.
    pub(crate) fn settle_again(&self) {
        self.now().inspect(|seat| seat.connected_again());
    }

    /// Where the message that was sent goes next, as what was heard of it is not passed on: another
    /// endpoint, if there is to be one and it was sent again fewer than so many times.
    pub(crate) fn send_again(
        &mut self,
        (attempts, why): (u8, Leaving),
        original_dst: SocketAddr,
        now: Nanos,
    ) -> Option<Target> {
        let seat = self.0.as_mut()?.now.as_mut()?;
        let (target, next) = other(seat, (attempts, why), original_dst, now)?;
        *seat = next;
        Some(target)
    }

    /// The same for one message of those that went by this leg, as what was answered to it is not passed on: it
    /// waits from here on, and the others go on.
    pub(crate) fn elsewhere(
        &mut self,
        lane: u8,
        reason: RetryReason,
        original_dst: SocketAddr,
        now: Nanos,
    ) -> Option<Target> {
        let next = self.of_lane(lane)?.elsewhere(reason, now)?;
        let target = target_at(next.address(), original_dst)?;
        self.0.as_mut()?.next = Some(Some(next));
        Some(target)
    }

    /// The same where a leg has ended: what was sent by it, and not answered, goes by a leg of another number, which
    /// is still to be reached.
    pub(crate) fn succeed(
        &mut self,
        (from, to): (u8, u8),
        again: (u8, Leaving),
        original_dst: SocketAddr,
        now: Nanos,
    ) -> Option<Target> {
        let two = self.0.as_mut()?;
        let seat = match two.lane == from {
            true => two.now.as_mut()?,
            false => two.others.iter_mut().find(|(it, _)| *it == from).map(|(_, seat)| seat)?,
        };
        let (target, next) = other(seat, again, original_dst, now)?;
        two.others.push((to, next));
        Some(target)
    }

    /// The seat of those that go by this leg.
    pub(crate) fn of_lane(&self, lane: u8) -> Option<&Seat> {
        let two = self.0.as_deref()?;
        match two.lane == lane {
            true => two.now.as_ref(),
            false => two.others.iter().find(|(it, _)| *it == lane).map(|(_, seat)| seat),
        }
    }

    /// Nobody was reached: another endpoint for the message that waits, if there is to be one.
    pub(crate) fn again(&mut self, now: Nanos) -> Option<&Seat> {
        let two = self.0.as_mut()?;
        let seat = match &mut two.next {
            Some(next) => next.as_mut()?,
            None => two.now.as_mut()?,
        };
        seat.failed(now);
        *seat = seat.again(RetryReason::Connect, now)?;
        self.wanted()
    }

    /// How many endpoints the message that waits was tried at, and why at the last of them.
    pub(crate) fn tries(&self) -> Tries {
        self.wanted().map_or(Tries::default(), Seat::tries)
    }

    /// A message that is to be answered goes out, or waits to. Whether it counts.
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        self.wanted().inspect(|seat| seat.begin()).is_some()
    }

    /// One that counts is over, of those that went by this leg.
    #[inline]
    pub(crate) fn end(&self, lane: u8, heard: Heard, took: Nanos, now: Nanos) {
        if let Some(seat) = self.of_lane(lane) {
            seat.end(heard, took, now);
        }
    }
}

impl Two {
    fn take_other(&mut self, lane: u8) -> Option<Seat> {
        let place = self.others.iter().position(|(it, _)| *it == lane)?;
        Some(self.others.swap_remove(place).1)
    }
}

/// Why a server is left, and what that says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    reason: RetryReason,
    heard: Heard,
}

impl Leaving {
    /// `refusal` is what an answer counts as that it cannot serve now.
    pub(crate) fn of(reason: RetryReason, refusal: Heard) -> Self {
        let heard = if reason == RetryReason::GatewayError { refusal } else { Heard::Local };
        Self { reason, heard }
    }
}

/// Another endpoint than that of a seat, for all that is under way there, and the seat at it: where there is to be
/// one, and the messages were sent again fewer than so many times.
fn other(
    seat: &mut Seat,
    (attempts, why): (u8, Leaving),
    original_dst: SocketAddr,
    now: Nanos,
) -> Option<(Target, Seat)> {
    if seat.tries().count > attempts {
        return None;
    }
    let next = seat.again(why.reason, now)?;
    let target = target_at(next.address(), original_dst)?;
    seat.note(why.heard, now);
    Some((target, next))
}

/// The upstream of a seat is there: for a message that was answered before it stays a retry until it is over.
fn reach(seat: &Seat) {
    match seat.tries().reason {
        Some(RetryReason::GatewayError) => seat.connected_again(),
        _ => seat.connected(),
    }
}

/// What an exchange of HTTP that has ended so says of the server.
#[inline]
pub(crate) fn heard_of_http(status: u16, outcome: Outcome) -> Heard {
    match (outcome, status) {
        (Outcome::Whole, 502..=504) => Heard::Gateway,
        (Outcome::Whole, 500..) => Heard::Fault,
        (Outcome::Whole, _) => Heard::Well,
        _ => heard_of_end(outcome),
    }
}

/// The same of an exchange of another protocol: an error of the application is no fault of the server's.
#[inline]
pub(crate) fn heard_of(answer: codec::Outcome, outcome: Outcome) -> Heard {
    match (outcome, answer) {
        (Outcome::Whole, codec::Outcome::ProtocolError) => Heard::Fault,
        (Outcome::Whole, _) => Heard::Well,
        _ => heard_of_end(outcome),
    }
}

fn heard_of_end(outcome: Outcome) -> Heard {
    match outcome {
        Outcome::UpstreamGone | Outcome::UpstreamReset | Outcome::Timeout => Heard::Local,
        _ => Heard::Nothing,
    }
}
