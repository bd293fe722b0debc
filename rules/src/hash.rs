//! Hashes: quick ones for tables, and one that is the same on every machine for ever.

use foldhash::fast::FixedState;
use std::hash::{BuildHasher, Hasher};

/// A hash for tables of this process. What is in them comes from documents: whoever sends values
/// can at most make a search compare once more.
#[inline]
pub(crate) fn quick(bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x6e65_7472_615f_7631).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// The hash of a message's values, on which endpoints are chosen: sidecars agree about it, whatever
/// they were built with. FNV-1a, mixed until every bit counts.
pub(crate) struct Stable(u64);

impl Stable {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Another value; a missing one is not an empty one.
    pub(crate) fn add(&mut self, value: Option<&[u8]>) {
        for byte in value.unwrap_or_default() {
            self.byte(*byte);
        }
        self.byte(if value.is_some() { 0xff } else { 0xfe });
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    pub(crate) fn finish(&self) -> u64 {
        mix(self.0)
    }
}

/// Every bit of a number into every bit of another.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stable_hash_is_what_it_was() {
        let hash = |values: &[Option<&[u8]>]| {
            let mut hash = Stable::new();
            values.iter().for_each(|value| hash.add(*value));
            hash.finish()
        };
        assert_eq!(hash(&[Some(b"sayHello")]), 0xf533_203e_1597_54b3);
        assert_ne!(hash(&[Some(b"")]), hash(&[None]));
        assert_ne!(hash(&[Some(b"ab"), Some(b"c")]), hash(&[Some(b"a"), Some(b"bc")]));
    }
}
