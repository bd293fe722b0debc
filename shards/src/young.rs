//! Upstream sockets that are not watched for silence yet. Keep-alive and the limit on
//! unacknowledged bytes take three calls, and neither can matter in the first seconds of a
//! connection, which are all that most connections have: so they are set when somebody tends the
//! shard, once a second, on those that are left.

use crate::{config::Limits, io::Token};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// Sockets that may wait to be watched. When there are more, the oldest is watched at once.
const YOUNG_MAX: usize = 256;
/// Limits shorter than this are set at once: the shard is tended once a second, or a little later.
const SHORT: Duration = Duration::from_secs(10);

/// Sockets to be watched, the oldest first.
#[derive(Debug)]
pub(crate) struct Young {
    tokens: VecDeque<Token>,
    /// There are any: whoever tends shards looks at this.
    waiting: Arc<AtomicBool>,
    /// The limits are so short that none may wait.
    never: bool,
}

impl Young {
    pub(crate) fn new(limits: &Limits, waiting: Arc<AtomicBool>) -> Self {
        let has_user_timeout = limits.user_timeout != Duration::ZERO;
        let never = limits.keepalive < SHORT || (has_user_timeout && limits.user_timeout < SHORT);
        Self { tokens: VecDeque::new(), waiting, never }
    }

    /// There is something else to be done when the shard is tended.
    pub(crate) fn ask_for_tending(&self) {
        self.waiting.store(true, Relaxed);
    }

    /// Takes in a socket, and returns one that is to be watched now, if any. `is_dead` says which
    /// have ended since.
    pub(crate) fn push(
        &mut self,
        token: Token,
        mut is_dead: impl FnMut(Token) -> bool,
    ) -> Option<Token> {
        if self.never {
            return Some(token);
        }
        while self.tokens.pop_front_if(|first| is_dead(*first)).is_some() {}
        let oldest = if self.tokens.len() < YOUNG_MAX { None } else { self.tokens.pop_front() };
        self.tokens.push_back(token);
        if self.tokens.len() == 1 {
            self.waiting.store(true, Relaxed);
        }
        oldest
    }

    /// What stood under these tokens has changed places.
    pub(crate) fn exchange(&mut self, [one, other]: [Token; 2]) {
        for token in &mut self.tokens {
            if *token == one {
                *token = other;
            } else if *token == other {
                *token = one;
            }
        }
    }

    /// The next socket to be watched.
    pub(crate) fn pop(&mut self) -> Option<Token> {
        let token = self.tokens.pop_front();
        if token.is_none() {
            self.waiting.store(false, Relaxed);
        }
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Side;

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1, side: Side::Upstream }
    }

    #[test]
    fn what_ends_young_is_never_watched_and_the_rest_is_in_its_turn() {
        let waiting = Arc::new(AtomicBool::new(false));
        let mut young = Young::new(&Limits::default(), Arc::clone(&waiting));
        for slot in 0..10_000 {
            assert_eq!(young.push(token(slot), |first| first.slot != 9_998), None);
            assert!(young.tokens.len() <= 2, "the dead are kept");
        }
        assert!(waiting.load(Relaxed));
        assert_eq!(young.pop().map(|token| token.slot), Some(9998));
        assert_eq!(young.pop().map(|token| token.slot), Some(9999));
        assert_eq!(young.pop(), None);
        assert!(!waiting.load(Relaxed));
    }

    #[test]
    fn no_more_wait_than_the_cap() {
        let mut young = Young::new(&Limits::default(), Arc::default());
        let max = u32::try_from(YOUNG_MAX).unwrap();
        for slot in 0..1000 {
            let oldest = young.push(token(slot), |_| false);
            assert_eq!(oldest.map(|token| token.slot), slot.checked_sub(max));
        }
        assert_eq!(young.tokens.len(), YOUNG_MAX);
    }

    #[test]
    fn short_limits_are_set_at_once() {
        let at_once = |limits: Limits| {
            Young::new(&limits, Arc::default()).push(token(7), |_| false) == Some(token(7))
        };
        let (short, long) = (Duration::from_millis(9_999), Duration::from_secs(10));
        assert!(at_once(Limits { keepalive: short, ..Limits::default() }));
        assert!(at_once(Limits { user_timeout: short, ..Limits::default() }));
        assert!(!at_once(Limits { user_timeout: Duration::ZERO, ..Limits::default() }));
        assert!(!at_once(Limits { user_timeout: long, keepalive: long, ..Limits::default() }));
    }
}
