//! What is to travel with a message: names and values that are put in, or put in the place of
//! others.

use std::fmt;

use crate::codec::edits::EditError;
use crate::codec::event::Pair;

/// Pairs that one message can be given.
const PAIRS_MAX: usize = 16;
/// Bytes of all their names and values.
const TEXT_BYTES_MAX: usize = 1024;

/// A bounded list of names and values, each name once. Nothing is allocated.
#[derive(Clone)]
pub struct Pairs {
    /// Where a name begins, where its value does, and where that ends.
    places: [[u16; 3]; PAIRS_MAX],
    count: usize,
    text: [u8; TEXT_BYTES_MAX],
    text_len: usize,
}

impl Pairs {
    /// None.
    pub const fn new() -> Self {
        let places = [[0; 3]; PAIRS_MAX];
        Self { places, count: 0, text: [0; TEXT_BYTES_MAX], text_len: 0 }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        (self.count, self.text_len) = (0, 0);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Adds one, unless its name, which is not empty, is there already: then the first stays.
    ///
    /// # Errors
    /// [`CannotEdit::Full`]: there is no room, and it is not added.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), CannotEdit> {
        if name.is_empty() || self.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        let begin = self.text_len;
        let ends = [begin, begin + name.len(), begin + name.len() + value.len()];
        if self.count == PAIRS_MAX || ends[2] > TEXT_BYTES_MAX {
            return Err(CannotEdit::Full);
        }
        self.text[ends[0]..ends[1]].copy_from_slice(name);
        self.text[ends[1]..ends[2]].copy_from_slice(value);
        self.places[self.count] = ends.map(|end| u16::try_from(end).unwrap_or(u16::MAX));
        (self.count, self.text_len) = (self.count + 1, ends[2]);
        Ok(())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Pair<'_>> {
        self.places[..self.count].iter().map(|place| {
            let [name, value, end] = place.map(usize::from);
            (&self.text[name..value], &self.text[value..end])
        })
    }

    /// The place of a name in the order of [`iter`](Self::iter), of any case.
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        self.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))
    }
}

impl Default for Pairs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| [name, value].map(<[u8]>::escape_ascii));
        f.debug_list().entries(shown.map(|both| both.map(|it| it.to_string()))).finish()
    }
}

const _: () = assert!(TEXT_BYTES_MAX <= u16::MAX as usize);

/// Why a message stays as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotEdit {
    /// No message of this connection has a place for pairs.
    Never,
    /// This one has none, or one that is not read.
    NoPlace,
    /// Their place lies further behind than is read.
    Behind,
    /// No room for so many edits, or for so much text; or the message would be too long.
    Full,
    /// A name or value that the protocol cannot carry.
    BadText,
}

impl CannotEdit {
    /// Every reason, in order of declaration; the index is `reason as usize`.
    pub const ALL: &'static [Self] =
        &[Self::Never, Self::NoPlace, Self::Behind, Self::Full, Self::BadText];

    /// The label value, in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::NoPlace => "no_place",
            Self::Behind => "behind",
            Self::Full => "full",
            Self::BadText => "bad_text",
        }
    }
}

impl fmt::Display for CannotEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for CannotEdit {}

impl From<EditError> for CannotEdit {
    fn from(_: EditError) -> Self {
        Self::Full
    }
}

/// Which of some pairs have been found in a message already: a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen(u16);

impl Seen {
    /// Takes note of the pair at this place.
    pub(crate) fn note(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    /// Whether it has been found.
    pub(crate) fn has(self, place: usize) -> bool {
        self.0 & 1 << place != 0
    }
}

const _: () = assert!(PAIRS_MAX <= u16::BITS as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_stays_and_there_are_no_more_than_so_many() {
        let mut pairs = Pairs::new();
        pairs.add(b"a", b"1").unwrap();
        pairs.add(b"A", b"2").unwrap();
        pairs.add(b"", b"3").unwrap();
        assert_eq!(pairs.iter().collect::<Vec<_>>(), [(&b"a"[..], &b"1"[..])]);
        assert_eq!(pairs.add(b"b", &[0; TEXT_BYTES_MAX - 2]), Err(CannotEdit::Full));
        pairs.add(b"b", &[0; TEXT_BYTES_MAX - 3]).unwrap();
        assert_eq!((pairs.len(), pairs.find(b"B"), pairs.find(b"c")), (2, Some(1), None));
        pairs.clear();
        for number in 0..PAIRS_MAX {
            pairs.add(number.to_string().as_bytes(), b"").unwrap();
        }
        assert_eq!(pairs.add(b"x", b""), Err(CannotEdit::Full));
    }
}
