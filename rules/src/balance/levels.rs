//! Levels of endpoints: who is nearest has its turn, and what those who are well of them cannot take
//! goes on to the next. As Envoy and Istio do it.

use super::{Balance, Cluster};
use crate::hash::mix;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed},
};

/// Levels of a cluster, at most: the same part of a zone, the zone, the region, the region that
/// documents say, and anywhere. Whoever would be behind the last is of the last.
pub(crate) const LEVELS_MAX: u8 = 5;
const LEVELS: usize = LEVELS_MAX as usize;
/// Whoever is well takes so much of its own part: with 72 % of a level well it takes all of it.
const OVERPROVISIONED_PERCENT: u64 = 140;
const NUMBER_BITS: u32 = 24;

/// Up to which percent of a cluster's messages go to each level and those before it. In one word, with
/// the number of the change that it is of: whoever finds an old one weighs anew.
#[derive(Debug, Default)]
pub(super) struct Parts(AtomicU64);

/// `well` of `all`, for each level.
fn parts_of(well: &[(u64, u64)]) -> [u8; LEVELS] {
    let health = |(well, all): &(u64, u64)| (OVERPROVISIONED_PERCENT * well / all.max(&1)).min(100);
    let sum: u64 = well.iter().map(health).sum();
    let mut upto = [100; LEVELS];
    // Where nobody is well, nobody is better than who is nearest.
    if sum == 0 {
        return upto;
    }
    let mut taken = 0;
    let last = well.iter().rposition(|level| health(level) > 0).unwrap_or(0);
    for (upto, level) in upto.iter_mut().zip(&well[..last]) {
        let part = if sum >= 100 { health(level) } else { health(level) * 100 / sum };
        taken = (taken + part).min(100);
        *upto = u8::try_from(taken).unwrap_or(100);
    }
    upto
}

fn word_of(number: u64, upto: [u8; LEVELS]) -> u64 {
    let packed = upto.iter().rev().fold(0, |word, upto| word << 8 | u64::from(*upto));
    packed << NUMBER_BITS | number_of(number)
}

/// No change at all has a number, too: a word of zeros is of none.
fn number_of(changes: u64) -> u64 {
    (changes + 1) & ((1 << NUMBER_BITS) - 1)
}

fn upto(word: u64, level: usize) -> u64 {
    word >> (NUMBER_BITS as usize + 8 * level) & 0xff
}

impl Balance {
    /// Who is in has changed.
    pub(super) fn changed(&self) {
        // What the change was is there for whoever reads the number.
        self.shared.changes.fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    /// The schedule of the level whose turn it is; the error is somebody who was out for long enough.
    pub(super) fn turn<'c>(
        &self,
        levels: &'c [Box<[u32]>],
        now_ns: u64,
        draw: u64,
    ) -> Result<&'c [u32], u32> {
        let word = self.parts();
        if upto(word, 0) >= 100 {
            return Ok(&levels[0]);
        }
        // Nobody draws a level that is out, so that nobody would see who of it is well again.
        let chance = mix(draw ^ now_ns);
        let somebody = u32::try_from(chance % self.members.len() as u64).unwrap_or(0);
        if !self.is_in(somebody) && self.may_be(somebody, now_ns) {
            return Err(somebody);
        }
        let chance = (chance >> 32) % 100;
        let level = (0..levels.len()).find(|level| chance < upto(word, *level)).unwrap_or(0);
        Ok(&levels[level])
    }

    /// Whether an endpoint's level has any part now: who is at a farther one goes back.
    pub(super) fn has_turn(&self, cluster: &Cluster, index: u32) -> bool {
        if cluster.levels.is_empty() {
            return true;
        }
        let level = self.endpoints.get(index as usize).map_or(0, |it| usize::from(it.level));
        let word = self.parts();
        level == 0 || upto(word, level) > upto(word, level - 1)
    }

    /// What percent of messages each level has.
    pub(super) fn percents(&self, cluster: &Cluster) -> Vec<u8> {
        let word = self.parts();
        let before = |level: usize| level.checked_sub(1).map_or(0, |level| upto(word, level));
        let levels = 0..cluster.levels.len();
        levels.map(|it| u8::try_from(upto(word, it) - before(it)).unwrap_or(0)).collect()
    }

    #[inline]
    fn parts(&self) -> u64 {
        let word = self.parts.0.load(Relaxed);
        let number = number_of(self.shared.changes.load(Relaxed));
        if word & ((1 << NUMBER_BITS) - 1) == number { word } else { self.weigh() }
    }

    #[cold]
    fn weigh(&self) -> u64 {
        let changes = self.shared.changes.load(Acquire);
        let mut well = [(0, 0); LEVELS];
        for (endpoint, member) in self.endpoints.iter().zip(&self.members) {
            let level = &mut well[usize::from(endpoint.level).min(LEVELS - 1)];
            level.0 += u64::from(member.is_in());
            level.1 += 1;
        }
        let word = word_of(changes, parts_of(&well));
        self.parts.0.store(word, Relaxed);
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_level_cannot_take_goes_on() {
        for (well, upto) in [
            (&[(10, 10), (10, 10)][..], [100, 100, 100, 100, 100]),
            // 1.4 times what is well: 72 % is enough.
            (&[(72, 100), (10, 10)], [100, 100, 100, 100, 100]),
            (&[(5, 10), (10, 10)], [70, 100, 100, 100, 100]),
            (&[(0, 10), (10, 10)], [0, 100, 100, 100, 100]),
            (&[(5, 10), (1, 10), (9, 10)], [70, 84, 100, 100, 100]),
            // Together they cannot take all: each takes its part all the same.
            (&[(1, 10), (2, 10), (0, 5)], [33, 100, 100, 100, 100]),
            (&[(0, 10), (0, 10)], [100, 100, 100, 100, 100]),
        ] {
            assert_eq!(parts_of(well), upto, "{well:?}");
        }
        let word = word_of(7, [70, 84, 100, 100, 100]);
        assert_eq!([0, 1, 4].map(|level| super::upto(word, level)), [70, 84, 100]);
        assert_eq!(word & 0xff, 8);
    }
}
