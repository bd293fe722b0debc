//! Sockets of a backend by their tokens. The kernel is told a *number* of each, which stays with the socket
//! where tokens are exchanged: so nothing that is under way in the kernel has to be begun anew.

use super::Token;
use std::ops::{Deref, DerefMut};

/// What stands under a token.
pub(super) trait Numbered: Default {
    fn number(&mut self) -> &mut u32;
    /// Of the tenant of the slot that its token names.
    fn generation(&mut self) -> &mut u32;
}

/// Entries by the keys of tokens, and which of them each number names now.
#[derive(Debug, Default)]
pub(super) struct Table<T> {
    entries: Vec<T>,
    places: Vec<u32>,
}

impl<T: Numbered> Table<T> {
    /// Makes room for this key. A number is that of the place that it had first.
    pub(super) fn grow(&mut self, key: usize) {
        while self.entries.len() <= key {
            let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
            let mut entry = T::default();
            *entry.number() = number;
            self.entries.push(entry);
            self.places.push(number);
        }
    }

    /// The key of the entry with this number.
    #[inline]
    pub(super) fn key(&self, number: usize) -> usize {
        self.places[number] as usize
    }

    /// What stands under one token stands under the other from here on.
    pub(super) fn exchange(&mut self, one: Token, other: Token) {
        self.grow(one.key().max(other.key()));
        self.entries.swap(one.key(), other.key());
        for token in [one, other] {
            let entry = &mut self.entries[token.key()];
            *entry.generation() = token.generation;
            let number = *entry.number() as usize;
            self.places[number] = u32::try_from(token.key()).unwrap_or(u32::MAX);
        }
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.entries
    }
}

impl<T> DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Side;

    #[derive(Debug, Default)]
    struct Entry {
        number: u32,
        generation: u32,
        what: &'static str,
    }

    impl Numbered for Entry {
        fn number(&mut self) -> &mut u32 {
            &mut self.number
        }

        fn generation(&mut self) -> &mut u32 {
            &mut self.generation
        }
    }

    #[test]
    fn a_number_stays_with_its_socket() {
        let token = |slot, generation| Token { slot, generation, side: Side::Upstream };
        let (one, other) = (token(0, 7), token(2, 9));
        let mut table = Table::<Entry>::default();
        table.grow(one.key());
        (table[one.key()].what, table[one.key()].generation) = ("socket", 7);
        let number = table[one.key()].number as usize;
        table.exchange(one, other);
        assert_eq!(table.key(number), other.key());
        assert_eq!((table[other.key()].what, table[other.key()].generation), ("socket", 9));
        assert_eq!((table[one.key()].what, table[one.key()].generation), ("", 7));
        table.exchange(other, one);
        assert_eq!(table.key(number), one.key());
        assert_eq!((table[one.key()].what, table[one.key()].generation), ("socket", 7));
    }
}
