//! Budgets that the shards of a process share: no lock, and for most messages nothing shared.

use crate::balance::{Balance, Checked};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What a token bucket is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens when it is full, and at the start.
    pub tokens_max: u32,
    /// Tokens that come with each fill.
    pub tokens_per_fill: u32,
    /// Time between fills.
    pub fill_interval_ns: u64,
}

/// Tokens that a shard borrows at once, at most.
const BLOCK_MAX: u32 = 64;
/// A part of the bucket that all shards together may have borrowed and not used: the limit of the
/// process is the author's number to within it.
const BORROWED_PART: u32 = 256;

impl Bucket {
    /// How many tokens one of so many shards borrows at once.
    pub(crate) fn block(&self, shards: usize) -> u32 {
        let shards = u32::try_from(shards.max(1)).unwrap_or(u32::MAX);
        let per_shard = self.tokens_max.min(self.tokens_per_fill) / BORROWED_PART / shards;
        per_shard.clamp(1, BLOCK_MAX)
    }

    /// What is left of `tokens` after taking `want`, at the fill `now`, if the last one was
    /// `fill`: how many were taken, and the word that says so.
    fn take(&self, word: u64, now: u32, want: u32) -> (u32, u64) {
        let (fill, tokens) = parts(word);
        // Another shard may be ahead.
        let fills = u64::from(now.saturating_sub(fill));
        let more = fills.saturating_mul(self.tokens_per_fill.into());
        let tokens = u64::from(tokens).saturating_add(more).min(self.tokens_max.into());
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let taken = tokens.min(want);
        (taken, word_of(fill.max(now), tokens - taken))
    }
}

/// A number of fills and one of tokens, in one word that is changed at once.
fn word_of(fill: u32, tokens: u32) -> u64 {
    u64::from(fill) << 32 | u64::from(tokens)
}

#[allow(clippy::cast_possible_truncation)]
fn parts(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// A bucket, from when it was made.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The limit's.
    name: Box<str>,
    pub(crate) bucket: Bucket,
    origin_ns: u64,
    word: AtomicU64,
    keys: Option<Keys>,
}

impl Shared {
    /// Full, from `now_ns` on; with a bucket for each of so many keys if there are any.
    fn new(name: &str, bucket: Bucket, keys_max: Option<u32>, now_ns: u64) -> Self {
        let word = AtomicU64::new(word_of(0, bucket.tokens_max));
        let keys = keys_max.map(Keys::new);
        Self { name: name.into(), bucket, origin_ns: now_ns, word, keys }
    }

    fn is_of(&self, limit: &Limit) -> bool {
        let keys_max = self.keys.as_ref().map(|keys| keys.asked);
        self.name == limit.name && self.bucket == limit.bucket && keys_max == limit.keys_max
    }

    /// Borrows up to `want` tokens; when there is none, the time when there are more.
    pub(crate) fn take(&self, want: u32, now_ns: u64) -> Result<u32, u64> {
        self.take_of(&self.word, want, now_ns)
    }

    /// A token of the bucket of this key; None is for messages without one.
    pub(crate) fn take_key(&self, hash: Option<u64>, now_ns: u64) -> bool {
        let Some(keys) = &self.keys else { return true };
        let (cell, is_new) = keys.cell(hash.map_or(1, |hash| hash | 2));
        if is_new {
            cell.store(word_of(self.fill(now_ns), self.bucket.tokens_max), Relaxed);
        }
        self.take_of(cell, 1, now_ns).is_ok()
    }

    /// Puts tokens back that were not used.
    pub(crate) fn give_back(&self, tokens: u32) {
        let _ = self.word.fetch_update(Relaxed, Relaxed, |word| {
            let (fill, left) = parts(word);
            Some(word_of(fill, left.saturating_add(tokens).min(self.bucket.tokens_max)))
        });
    }

    fn fill(&self, now_ns: u64) -> u32 {
        let fills = now_ns.saturating_sub(self.origin_ns) / self.bucket.fill_interval_ns.max(1);
        u32::try_from(fills).unwrap_or(u32::MAX)
    }

    fn take_of(&self, cell: &AtomicU64, want: u32, now_ns: u64) -> Result<u32, u64> {
        let fill = self.fill(now_ns);
        let mut word = cell.load(Relaxed);
        loop {
            let (taken, next) = self.bucket.take(word, fill, want);
            if taken == 0 {
                let (last, _) = parts(word);
                let next_fill = u64::from(fill.max(last)) + 1;
                let until = next_fill.saturating_mul(self.bucket.fill_interval_ns);
                return Err(self.origin_ns.saturating_add(until));
            }
            match cell.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(taken),
                Err(other) => word = other,
            }
        }
    }
}

/// Buckets by the hash of a value, so many and no more: a new value takes the place of the one that
/// was filled the longest time ago, in its row.
#[derive(Debug)]
struct Keys {
    asked: u32,
    rows: Box<[[(AtomicU64, AtomicU64); WAYS]]>,
}

/// Places of a row.
const WAYS: usize = 8;

impl Keys {
    fn new(keys_max: u32) -> Self {
        let rows = (keys_max as usize).div_ceil(WAYS).next_power_of_two();
        let rows = (0..rows).map(|_| std::array::from_fn(|_| Default::default())).collect();
        Self { asked: keys_max, rows }
    }

    /// The bucket of a hash that is not 0, and whether it is new.
    fn cell(&self, hash: u64) -> (&AtomicU64, bool) {
        let row = &self.rows[(hash >> 40) as usize % self.rows.len()];
        let found = row.iter().find(|(tag, _)| tag.load(Relaxed) == hash);
        if let Some((_, cell)) = found {
            return (cell, false);
        }
        let oldest = row.iter().min_by_key(|(tag, cell)| {
            let is_taken = tag.load(Relaxed) != 0;
            (is_taken, cell.load(Relaxed))
        });
        let (tag, cell) = oldest.unwrap_or(&row[0]);
        // Two shards may do this at once: then both values share a bucket for a while.
        tag.store(hash, Relaxed);
        (cell, true)
    }
}

/// A limit of a table.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) name: Box<str>,
    pub(crate) bucket: Bucket,
    pub(crate) keys_max: Option<u32>,
}

/// What all shards of a process share of the state: what is left of the limits, and whose turn it is
/// by the weights. Made by who compiled the table.
#[derive(Debug, Default)]
pub struct Process {
    /// One for each limit of the table.
    pub(crate) buckets: Box<[Arc<Shared>]>,
    /// How many messages each split of the table has parted.
    pub(crate) turns: Box<[AtomicU64]>,
    /// One for each cluster of the table.
    pub(crate) balances: Box<[Arc<Balance>]>,
}

impl Process {
    /// For limits and splits of a table that is in force from `now_ns` on. A limit that was in force
    /// `before`, and is what it was, goes on with what is left of it: a change of rules fills no
    /// bucket.
    pub(crate) fn of(limits: &[Limit], splits: usize, before: Option<&Self>, now_ns: u64) -> Self {
        let mut old: HashMap<&str, &Arc<Shared>> = HashMap::new();
        for shared in before.iter().flat_map(|before| &before.buckets) {
            old.insert(&shared.name, shared);
        }
        let bucket = |limit: &Limit| match old.get(&*limit.name).filter(|old| old.is_of(limit)) {
            Some(old) => Arc::clone(old),
            None => Arc::new(Shared::new(&limit.name, limit.bucket, limit.keys_max, now_ns)),
        };
        Self {
            buckets: limits.iter().map(bucket).collect(),
            turns: (0..splits).map(|_| AtomicU64::new(0)).collect(),
            balances: Box::default(),
        }
    }

    /// Endpoints that are to be asked whether they are well.
    pub fn checked(&self) -> Vec<Checked> {
        Checked::all(&self.balances)
    }

    /// Whether anybody wants endpoints to be looked at beside messages: by checks, or by success rates.
    pub fn is_watched(&self) -> bool {
        self.balances.iter().any(|it| it.is_swept()) || !self.checked().is_empty()
    }

    /// Looks at success rates where it is time; when the next time is.
    pub fn sweep(&self, now_ns: u64) -> Option<u64> {
        self.balances.iter().filter_map(|it| it.sweep(now_ns)).min()
    }

    pub(crate) fn with(self, balances: Box<[Arc<Balance>]>) -> Self {
        Self { balances, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn shared(tokens_max: u32, tokens_per_fill: u32) -> Shared {
        let bucket = Bucket { tokens_max, tokens_per_fill, fill_interval_ns: 10 * SECOND };
        Shared::new("", bucket, Some(8), 7)
    }

    #[test]
    fn tokens_come_with_each_fill_up_to_a_full_bucket() {
        let shared = shared(5, 2);
        assert_eq!(shared.take(4, 7), Ok(4));
        assert_eq!(shared.take(4, 8), Ok(1));
        assert_eq!(shared.take(1, 9 * SECOND), Err(10 * SECOND + 7));
        assert_eq!(shared.take(4, 10 * SECOND + 7), Ok(2));
        assert_eq!(shared.take(9, 1000 * SECOND), Ok(5));
        // A clock that is behind: the next fill is after the last one that was seen.
        assert_eq!(shared.take(1, 5 * SECOND), Err(1000 * SECOND + 7));
    }

    #[test]
    fn what_is_given_back_does_not_overflow() {
        let shared = shared(5, 2);
        assert_eq!(shared.take(3, 7), Ok(3));
        shared.give_back(2);
        assert_eq!(shared.take(9, 7), Ok(4));
        shared.give_back(u32::MAX);
        assert_eq!(shared.take(9, 7), Ok(5));
    }

    #[test]
    fn each_key_has_its_bucket_and_they_are_bounded() {
        let shared = shared(2, 1);
        for key in [None, Some(16), Some(32)] {
            let taken: Vec<_> = (0..3).map(|_| shared.take_key(key, 7)).collect();
            assert_eq!(taken, [true, true, false], "{key:?}");
        }
        for key in 0..10_000 {
            assert!(shared.take_key(Some(key << 8), 20 * SECOND));
        }
        let keys = shared.keys.as_ref().unwrap();
        assert_eq!(keys.rows.len() * WAYS, 8);
    }

    #[test]
    fn blocks_are_a_small_part_of_the_limit() {
        let block = |tokens, shards| {
            Bucket { tokens_max: tokens, tokens_per_fill: tokens, fill_interval_ns: 1 }
                .block(shards)
        };
        assert_eq!([block(2, 1), block(1000, 1), block(1000, 4)], [1, 3, 1]);
        assert_eq!([block(100_000, 4), block(1_000_000, 2)], [64, 64]);
    }

    #[test]
    fn shards_take_no_more_than_there_is() {
        let bucket = Bucket { tokens_max: 10_000, tokens_per_fill: 1, fill_interval_ns: SECOND };
        let shared = Shared::new("", bucket, None, 0);
        let taken: u32 = std::thread::scope(|scope| {
            let shard = || (0..5000).map(|_| shared.take(1, 0).unwrap_or(0)).sum::<u32>();
            let shards: Vec<_> = (0..4).map(|_| scope.spawn(shard)).collect();
            shards.into_iter().map(|shard| shard.join().unwrap()).sum()
        });
        assert_eq!(taken, 10_000);
    }
}
