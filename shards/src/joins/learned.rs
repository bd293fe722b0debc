//! What is known of calls by where they go and what they do: which are made while nobody is served,
//! and which transactions keep to one request.

use super::number_of;
use crate::sys::Nanos;
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Kinds of calls that are told apart. Those that share a place share what is known, which joins
/// fewer of them and none wrongly.
const PLACES: usize = 1024;
/// How long a call that nobody asked for is remembered at first, and at most, in seconds.
const KEPT: u64 = 600;
const KEPT_MAX: u64 = 86_400;
/// Transactions in a row that have to end within their request before others are believed to.
const CLEAN: u64 = 2;
/// What stands in the place of transactions that do not.
const UNSAFE: u64 = u64::MAX;

/// Which calls: where to, and what. Transactions have one of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallKey(u32);

impl CallKey {
    pub(crate) fn new(to: Option<SocketAddr>, what: &[u8]) -> Self {
        let key = what.iter().fold(number_of(to), |key, byte| {
            (key ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // Any of its bits.
        #[allow(clippy::cast_possible_truncation)]
        Self((key ^ key >> 32) as u32)
    }

    #[cfg(test)]
    pub(super) const fn of_number(number: u32) -> Self {
        Self(number)
    }

    fn place(self) -> usize {
        self.0 as usize % PLACES
    }
}

/// What all shards have learned; none of them waits for another.
#[derive(Debug)]
pub(crate) struct Learned {
    /// When a call was last made that no request had asked for, and how long that counts, in
    /// seconds.
    background: Box<[AtomicU64]>,
    /// Transactions that ended within their request.
    clean: Box<[AtomicU64]>,
}

impl Learned {
    pub(crate) fn new() -> Self {
        let places = || (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { background: places(), clean: places() }
    }

    /// A call that no request can have made.
    pub(crate) fn note_background(&self, key: CallKey, now: Nanos) {
        let place = &self.background[key.place()];
        let now = seconds(now);
        let (last, kept) = halves(place.load(Relaxed));
        // What comes again after a while is remembered for a multiple of that.
        let again = if kept == 0 { 0 } else { now.saturating_sub(last).saturating_mul(4) };
        let kept = kept.max(again).clamp(KEPT, KEPT_MAX);
        place.store(now << 32 | kept, Relaxed);
    }

    /// Whether such calls are made that no request has asked for.
    pub(crate) fn is_background(&self, key: CallKey, now: Nanos) -> bool {
        let (last, kept) = halves(self.background[key.place()].load(Relaxed));
        kept > 0 && seconds(now).saturating_sub(last) < kept
    }

    /// A transaction ended before its request was answered.
    pub(crate) fn note_clean(&self, key: CallKey) {
        let place = &self.clean[key.place()];
        let count = place.load(Relaxed);
        if count < CLEAN {
            place.store(count + 1, Relaxed);
        }
    }

    /// A transaction went on behind its request: none there tells what belongs to what.
    pub(crate) fn note_unsafe(&self, key: CallKey) {
        self.clean[key.place()].store(UNSAFE, Relaxed);
    }

    /// Whether transactions there keep to one request.
    pub(crate) fn is_clean(&self, key: CallKey) -> bool {
        self.clean[key.place()].load(Relaxed) == CLEAN
    }
}

fn seconds(now: Nanos) -> u64 {
    // 0 is for what was never seen, and half of the word is for 136 years.
    (now / 1_000_000_000 + 1) & 0xffff_ffff
}

fn halves(word: u64) -> (u64, u64) {
    (word >> 32, word & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn what_comes_of_itself_is_remembered_for_as_long_as_it_takes_to_come_again() {
        let (learned, key) = (Learned::new(), CallKey::new(None, b"SELECT jobs"));
        assert!(!learned.is_background(key, 0));
        learned.note_background(key, 5 * SECOND);
        assert!(learned.is_background(key, (5 + KEPT - 1) * SECOND));
        assert!(!learned.is_background(key, (5 + KEPT) * SECOND));
        let again = 5 + 900;
        learned.note_background(key, again * SECOND);
        assert!(learned.is_background(key, (again + 3599) * SECOND));
        assert!(!learned.is_background(key, (again + 3600) * SECOND));
        learned.note_background(key, 10 * KEPT_MAX * SECOND);
        assert!(!learned.is_background(key, 11 * KEPT_MAX * SECOND), "no longer than a day");
    }

    #[test]
    fn calls_are_told_apart_by_where_they_go_and_by_what_they_do() {
        let to = |port| Some(SocketAddr::from(([10, 0, 0, 1], port)));
        let keys = [(to(1), &b"GET"[..]), (to(2), b"GET"), (to(1), b"SET"), (None, b"GET")]
            .map(|(to, what)| CallKey::new(to, what));
        for (index, key) in keys.iter().enumerate() {
            assert!(keys[..index].iter().all(|other| other != key));
        }
        assert_eq!(CallKey::new(to(1), b"GET"), keys[0]);
    }

    #[test]
    fn transactions_are_believed_after_some_and_never_again_after_one() {
        let (learned, key) = (Learned::new(), CallKey::new(None, b""));
        for _ in 0..CLEAN {
            assert!(!learned.is_clean(key));
            learned.note_clean(key);
        }
        assert!(learned.is_clean(key));
        learned.note_unsafe(key);
        learned.note_clean(key);
        assert!(!learned.is_clean(key));
    }
}
