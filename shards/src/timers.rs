//! Deadlines of connections. All of one kind last equally long, so each kind is a list in order of
//! time, linked through the slab: set, put back, clear and expire are O(1), and a connection that
//! ends leaves nothing behind.

use crate::sys::Nanos;
use std::collections::BTreeSet;

/// What a deadline is for. A connection has one at a time; its head's has a place of its own
/// ([`HeadDeadlines`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The client must have said something, or the original destination is dialled for it.
    FirstByte,
    /// The upstream must have answered the dial.
    Dial,
    /// An address of a routed name must have answered, or the next is tried.
    Address,
    /// What was asked of an upstream that is to be left must have been answered.
    Drain,
    /// A half-closed connection must have moved bytes.
    HalfCloseLinger,
    /// A connection must have moved bytes.
    Idle,
    /// By a leg something must have been asked.
    Leg,
    /// A mirror whose connection has ended must have moved bytes.
    Mirror,
    /// An upstream that rests must be asked again.
    Rest,
}

const KINDS: [Timer; 9] = [
    Timer::FirstByte,
    Timer::Dial,
    Timer::Address,
    Timer::Drain,
    Timer::HalfCloseLinger,
    Timer::Idle,
    Timer::Leg,
    Timer::Mirror,
    Timer::Rest,
];
const _: () = assert!(KINDS.len() <= 16);
const NONE: u32 = u32::MAX;

/// A connection's place in a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    at: Nanos,
    previous: u32,
    next: u32,
    timer: Option<Timer>,
}

impl Default for Link {
    fn default() -> Self {
        Self { at: 0, previous: NONE, next: NONE, timer: None }
    }
}

impl Link {
    /// When it is; nothing where none is set.
    pub(crate) fn at(&self) -> Nanos {
        self.at
    }

    /// The deadline that is set, if any.
    pub(crate) fn timer(&self) -> Option<Timer> {
        self.timer
    }
}

/// What has a place in a list.
pub(crate) trait Linked {
    fn link(&mut self) -> &mut Link;
    fn link_ref(&self) -> &Link;
}

/// The lists' ends.
#[derive(Debug)]
pub(crate) struct Timers {
    /// A bit for each list that has any: every turn asks, and most of the time it is one or none.
    filled: u16,
    first: [u32; KINDS.len()],
    last: [u32; KINDS.len()],
}

impl Default for Timers {
    fn default() -> Self {
        Self { filled: 0, first: [NONE; KINDS.len()], last: [NONE; KINDS.len()] }
    }
}

impl Timers {
    /// Sets a slot's deadline, in place of any it has. Deadlines of one kind never go back in time.
    pub(crate) fn set<T: Linked>(&mut self, slab: &mut [T], slot: u32, timer: Timer, at: Nanos) {
        self.clear(slab, slot);
        let list = timer as usize;
        let previous = self.last[list];
        if previous == NONE {
            self.first[list] = slot;
        } else {
            let before = slab[previous as usize].link();
            debug_assert!(before.at <= at, "a deadline before the one set last");
            before.next = slot;
        }
        self.last[list] = slot;
        self.filled |= 1 << list;
        *slab[slot as usize].link() = Link { at, previous, next: NONE, timer: Some(timer) };
    }

    /// Clears a slot's deadline.
    pub(crate) fn clear<T: Linked>(&mut self, slab: &mut [T], slot: u32) {
        let link = std::mem::take(slab[slot as usize].link());
        let Some(timer) = link.timer else { return };
        let list = timer as usize;
        match link.previous {
            NONE => self.first[list] = link.next,
            previous => slab[previous as usize].link().next = link.next,
        }
        match link.next {
            NONE => self.last[list] = link.previous,
            next => slab[next as usize].link().previous = link.previous,
        }
        if self.first[list] == NONE {
            self.filled &= !(1 << list);
        }
    }

    /// The lists that have any.
    fn lists(&self) -> impl Iterator<Item = usize> + use<> {
        let mut filled = self.filled;
        std::iter::from_fn(move || {
            let list = filled.trailing_zeros() as usize;
            filled &= filled.wrapping_sub(1);
            (list < KINDS.len()).then_some(list)
        })
    }

    /// The next deadline of any kind.
    #[inline]
    pub(crate) fn next<T: Linked>(&self, slab: &[T]) -> Option<Nanos> {
        if self.filled == 0 { None } else { self.first_of_all(slab) }
    }

    fn first_of_all<T: Linked>(&self, slab: &[T]) -> Option<Nanos> {
        self.lists().map(|list| slab[self.first[list] as usize].link_ref().at).min()
    }

    /// Takes the first deadline of a kind, whenever it is.
    fn take_first<T: Linked>(&mut self, slab: &mut [T], timer: Timer) -> Option<u32> {
        let slot = self.first[timer as usize];
        (slot != NONE).then(|| self.clear(slab, slot)).map(|()| slot)
    }

    /// Takes one deadline that has passed.
    #[inline]
    pub(crate) fn expire<T: Linked>(&mut self, slab: &mut [T], now: Nanos) -> Option<(Timer, u32)> {
        if self.filled == 0 { None } else { self.expire_first(slab, now) }
    }

    fn expire_first<T: Linked>(&mut self, slab: &mut [T], now: Nanos) -> Option<(Timer, u32)> {
        let is_due = |slot: u32| slab[slot as usize].link_ref().at <= now;
        let list = self.lists().find(|list| is_due(self.first[*list]))?;
        let slot = self.first[list];
        self.clear(slab, slot);
        Some((KINDS[list], slot))
    }
}

impl Linked for Link {
    fn link(&mut self) -> &mut Link {
        self
    }

    fn link_ref(&self) -> &Link {
        self
    }
}

/// Deadlines of heads that come in pieces, the oldest first: a list of all connections that hold
/// one. It has no memory while heads come whole.
#[derive(Debug, Default)]
pub(crate) struct HeadDeadlines {
    /// Of one kind: that of connections that are silent.
    timers: Timers,
    links: Vec<Link>,
}

impl HeadDeadlines {
    /// Sets a slot's deadline, in place of any it has.
    pub(crate) fn set(&mut self, slot: u32, at: Nanos) {
        let len = slot as usize + 1;
        if self.links.len() < len {
            self.links.resize_with(len, Link::default);
        }
        self.timers.set(&mut self.links, slot, Timer::Idle, at);
    }

    /// Clears a slot's deadline.
    pub(crate) fn clear(&mut self, slot: u32) {
        if (slot as usize) < self.links.len() {
            self.timers.clear(&mut self.links, slot);
        }
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.timers.next(&self.links)
    }

    /// Takes one that has passed.
    pub(crate) fn expire(&mut self, now: Nanos) -> Option<u32> {
        self.timers.expire(&mut self.links, now).map(|(_, slot)| slot)
    }

    /// Takes the oldest.
    pub(crate) fn take_first(&mut self) -> Option<u32> {
        self.timers.take_first(&mut self.links, Timer::Idle)
    }
}

/// Until when requests wait that somebody wants to wait, each as long as it likes; one for each
/// connection.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    waiting: BTreeSet<(Nanos, u32)>,
}

impl Delays {
    /// The request of a slot waits until then.
    pub(crate) fn set(&mut self, slot: u32, until: Nanos) {
        self.waiting.insert((until, slot));
    }

    /// It no longer does.
    pub(crate) fn clear(&mut self, slot: u32, until: Nanos) {
        self.waiting.remove(&(until, slot));
    }

    /// When the first has waited long enough.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Takes one that has.
    pub(crate) fn expire(&mut self, now: Nanos) -> Option<u32> {
        let (_, slot) = *self.waiting.first().filter(|(until, _)| *until <= now)?;
        self.waiting.pop_first();
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(timers: &mut Timers, slab: &mut [Link], now: Nanos) -> Vec<u32> {
        std::iter::from_fn(|| timers.expire(slab, now)).map(|(_, slot)| slot).collect()
    }

    #[test]
    fn deadlines_come_in_order_of_time() {
        let (mut timers, mut slab) = (Timers::default(), vec![Link::default(); 4]);
        timers.set(&mut slab, 3, Timer::Idle, 30);
        timers.set(&mut slab, 1, Timer::Dial, 10);
        timers.set(&mut slab, 2, Timer::Dial, 20);
        assert_eq!(timers.next(&slab), Some(10));
        assert_eq!(expired(&mut timers, &mut slab, 9), []);
        assert_eq!(expired(&mut timers, &mut slab, 20), [1, 2]);
        assert_eq!(expired(&mut timers, &mut slab, 30), [3]);
        assert_eq!(timers.next(&slab), None);
    }

    #[test]
    fn what_moves_is_put_back_and_what_ends_is_forgotten() {
        let (mut timers, mut slab) = (Timers::default(), vec![Link::default(); 4]);
        for slot in 0..4 {
            timers.set(&mut slab, slot, Timer::Idle, 10);
        }
        timers.set(&mut slab, 1, Timer::Idle, 20);
        timers.clear(&mut slab, 2);
        timers.clear(&mut slab, 2);
        timers.set(&mut slab, 0, Timer::HalfCloseLinger, 15);
        assert_eq!(expired(&mut timers, &mut slab, 14), [3]);
        assert_eq!(expired(&mut timers, &mut slab, 19), [0]);
        assert_eq!(expired(&mut timers, &mut slab, 20), [1]);
        assert_eq!(timers.next(&slab), None);
    }

    #[test]
    fn heads_have_a_list_of_their_own() {
        let mut heads = HeadDeadlines::default();
        heads.clear(9);
        for (slot, at) in [(5, 10), (2, 20), (7, 30)] {
            heads.set(slot, at);
        }
        heads.set(5, 40);
        assert_eq!((heads.next(), heads.expire(19)), (Some(20), None));
        assert_eq!(heads.expire(20), Some(2));
        heads.clear(2);
        assert_eq!([heads.take_first(), heads.take_first()], [Some(7), Some(5)]);
        assert_eq!((heads.take_first(), heads.next()), (None, None));
    }

    #[test]
    fn delays_end_in_order_of_time() {
        let mut delays = Delays::default();
        for (slot, until) in [(1, 30), (2, 10), (3, 20)] {
            delays.set(slot, until);
        }
        delays.clear(3, 20);
        assert_eq!((delays.next(), delays.expire(9)), (Some(10), None));
        assert_eq!([delays.expire(30), delays.expire(30)], [Some(2), Some(1)]);
        assert_eq!((delays.expire(30), delays.next()), (None, None));
    }
}
