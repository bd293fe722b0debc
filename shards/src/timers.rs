//! Deadlines of connections. All of one kind last equally long, so each kind is a queue: set and
//! expire are O(1), and a connection that has moved bytes since is put back when its turn comes.

use crate::{io::Token, sys::Nanos};
use std::collections::VecDeque;

/// What a deadline is for.
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

#[derive(Debug, Default)]
pub(crate) struct Timers {
    queues: [VecDeque<(Nanos, Token)>; KINDS.len()],
}

impl Timers {
    /// Sets a deadline. Deadlines of one kind must not go back in time.
    pub(crate) fn set(&mut self, timer: Timer, at: Nanos, token: Token) {
        let queue = &mut self.queues[timer as usize];
        // A deadline that was put back may lie a little before the last one set; order is kept by
        // looking a few places back, which is nearly always none.
        let mut index = queue.len();
        while index > 0 && queue[index - 1].0 > at {
            index -= 1;
        }
        queue.insert(index, (at, token));
    }

    /// The next deadline of any kind.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.queues.iter().filter_map(|q| q.front().map(|(at, _)| *at)).min()
    }

    /// Takes one deadline that has passed.
    pub(crate) fn expire(&mut self, now: Nanos) -> Option<(Timer, Token)> {
        for kind in KINDS {
            let queue = &mut self.queues[kind as usize];
            if queue.front().is_some_and(|(at, _)| *at <= now) {
                return queue.pop_front().map(|(_, token)| (kind, token));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Side;

    fn token(slot: u32) -> Token {
        Token { slot, generation: 0, side: Side::Downstream }
    }

    #[test]
    fn deadlines_come_in_order_of_time() {
        let mut timers = Timers::default();
        timers.set(Timer::Idle, 30, token(3));
        timers.set(Timer::Dial, 10, token(1));
        timers.set(Timer::Dial, 20, token(2));
        timers.set(Timer::Dial, 15, token(4));
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.expire(9), None);
        let mut order = Vec::new();
        for now in [10, 15, 20, 30] {
            while let Some((_, token)) = timers.expire(now) {
                order.push(token.slot);
            }
        }
        assert_eq!(order, [1, 4, 2, 3]);
        assert_eq!(timers.next(), None);
    }
}
