//! Deadlines of connections. All of one kind last equally long, so each kind is a list in order of
//! time, linked through the slab: set, put back, clear and expire are O(1), and a connection that
//! ends leaves nothing behind.

use crate::sys::Nanos;

/// What a deadline is for. A connection has one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The upstream must have answered the dial.
    Dial,
    /// A half-closed connection must have moved bytes.
    HalfCloseLinger,
    /// A connection must have moved bytes.
    Idle,
}

const KINDS: [Timer; 3] = [Timer::Dial, Timer::HalfCloseLinger, Timer::Idle];
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
    first: [u32; KINDS.len()],
    last: [u32; KINDS.len()],
}

impl Default for Timers {
    fn default() -> Self {
        Self { first: [NONE; KINDS.len()], last: [NONE; KINDS.len()] }
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
    }

    /// The next deadline of any kind.
    pub(crate) fn next<T: Linked>(&self, slab: &[T]) -> Option<Nanos> {
        let first = self.first.iter().filter(|slot| **slot != NONE);
        first.map(|slot| slab[*slot as usize].link_ref().at).min()
    }

    /// Takes one deadline that has passed.
    pub(crate) fn expire<T: Linked>(&mut self, slab: &mut [T], now: Nanos) -> Option<(Timer, u32)> {
        for timer in KINDS {
            let slot = self.first[timer as usize];
            if slot != NONE && slab[slot as usize].link_ref().at <= now {
                self.clear(slab, slot);
                return Some((timer, slot));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Linked for Link {
        fn link(&mut self) -> &mut Link {
            self
        }

        fn link_ref(&self) -> &Link {
            self
        }
    }

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
}
