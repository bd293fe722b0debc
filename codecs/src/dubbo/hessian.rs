//! As much of Hessian 2 as it takes to find strings and to get past all else.
//!
//! <http://hessian.caucho.com/doc/hessian-serialization.html>. Nothing is built; whatever is read
//! lies within bytes that are there, so that their number bounds the work.

use crate::codec::{Pair, Spot};

/// Values within values that are followed.
const DEPTH_MAX: usize = 32;
/// Classes that one message may define.
const CLASSES_MAX: usize = 32;
/// Fields or elements that a value may say it has.
const COUNT_MAX: u32 = 1 << 24;

/// Reads from a place on. Once something is odd or missing it says None.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    /// How many fields the classes have, in order of their definition.
    fields: [u16; CLASSES_MAX],
    classes: usize,
}

/// Whether no byte is beyond 127. Names are short: words of eight bytes, of which the last covers
/// what the others have left, cost a third of what the library's way for long texts does.
#[inline]
pub(super) fn is_ascii(text: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let Some(last) = text.last_chunk::<8>() else {
        return match (text.first_chunk(), text.last_chunk()) {
            (Some(first), Some(last)) => {
                let both = u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last);
                u64::from(both) & HIGH == 0
            }
            _ => text.iter().fold(0, |all, byte| all | byte) < 0x80,
        };
    };
    let (words, _) = text.as_chunks::<8>();
    let all =
        words.iter().fold(u64::from_ne_bytes(*last), |all, word| all | u64::from_ne_bytes(*word));
    all & HIGH == 0
}

/// What is still to come of a value that holds others.
#[derive(Clone, Copy, Debug)]
enum Rest {
    Count(u32),
    UntilEnd,
}

impl<'b> Reader<'b> {
    #[inline]
    pub(super) fn new(bytes: &'b [u8], at: usize) -> Self {
        Self { bytes, at, fields: [0; CLASSES_MAX], classes: 0 }
    }

    /// A string that lies in one piece.
    #[inline]
    pub(super) fn string(&mut self) -> Option<&'b [u8]> {
        // As nearly all are that travel with a message: short, and a byte for each unit.
        if let Some((len @ ..=0x1f, rest)) = self.bytes.get(self.at..)?.split_first()
            && let Some(text) = rest.get(..usize::from(*len)).filter(|text| is_ascii(text))
        {
            self.at += 1 + text.len();
            return Some(text);
        }
        let spot = self.string_spot()?;
        let begin = spot.at as usize;
        self.bytes.get(begin..begin + spot.len as usize)
    }

    /// The place of a string that lies in one piece; an empty one has a place as well.
    #[inline]
    pub(super) fn string_spot(&mut self) -> Option<Spot> {
        let units = match self.byte()? {
            short @ 0..=0x1f => usize::from(short),
            long @ 0x30..=0x33 => usize::from(long - 0x30) << 8 | usize::from(self.byte()?),
            b'S' => self.u16()?,
            _ => return None,
        };
        let begin = self.at;
        self.skip_text(units)?;
        let (at, len) = (u32::try_from(begin).ok()?, u32::try_from(self.at - begin).ok()?);
        Some(Spot { at, len })
    }

    /// Past a string or null.
    #[inline]
    pub(super) fn skip_string(&mut self) -> Option<()> {
        if self.bytes.get(self.at) == Some(&b'N') {
            self.at += 1;
            return Some(());
        }
        self.string_spot().map(|_| ())
    }

    /// The class of the object that comes next, if it is defined here.
    pub(super) fn class_spot(&mut self) -> Option<Spot> {
        match self.byte()? {
            b'C' | b'M' => self.string_spot().filter(|class| class.len > 0),
            _ => None,
        }
    }

    /// The entries of a map whose names and values are both strings in one piece.
    pub(super) fn pairs(&mut self, take: &mut dyn FnMut(Pair<'b>)) {
        if !self.begin_map() {
            return;
        }
        while !self.is_at_end() {
            let Some(name) = self.string_or_skip() else { return };
            let Some(value) = self.string_or_skip() else { return };
            if let (Some(name), Some(value)) = (name, value) {
                take((name, value));
            }
        }
    }

    /// To the first entry of a map; whether there is one.
    pub(super) fn begin_map(&mut self) -> bool {
        match self.byte() {
            Some(b'H') => true,
            Some(b'M') => self.skip_type().is_some(),
            _ => false,
        }
    }

    /// Whether the entries of a map end here.
    pub(super) fn is_at_end(&self) -> bool {
        self.bytes.get(self.at) == Some(&b'Z')
    }

    /// Whether null comes next.
    pub(super) fn is_at_null(&self) -> bool {
        self.bytes.get(self.at) == Some(&b'N')
    }

    /// Where it reads.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// A string in one piece, or past whatever else it is.
    pub(super) fn string_or_skip(&mut self) -> Option<Option<&'b [u8]>> {
        let before = self.at;
        if let Some(text) = self.string() {
            return Some(Some(text));
        }
        self.at = before;
        self.skip().map(|()| None)
    }

    /// Past a value, whatever it is.
    pub(super) fn skip(&mut self) -> Option<()> {
        match self.skip_one()? {
            None => Some(()),
            Some(rest) => self.skip_rest(rest),
        }
    }

    /// Past the values that one holds of which the first comes next.
    fn skip_rest(&mut self, first: Rest) -> Option<()> {
        let mut stack = [first; DEPTH_MAX];
        let mut depth = 1;
        loop {
            // Those that end here.
            loop {
                if depth == 0 {
                    return Some(());
                }
                match &mut stack[depth - 1] {
                    Rest::Count(0) => depth -= 1,
                    Rest::Count(left) => {
                        *left -= 1;
                        break;
                    }
                    Rest::UntilEnd if self.bytes.get(self.at)? == &b'Z' => {
                        self.at += 1;
                        depth -= 1;
                    }
                    Rest::UntilEnd => break,
                }
            }
            if let Some(rest) = self.skip_one()? {
                *stack.get_mut(depth)? = rest;
                depth += 1;
            }
        }
    }

    /// Past a value, or to the first of those that it holds.
    fn skip_one(&mut self) -> Option<Option<Rest>> {
        let tag = self.byte()?;
        match tag {
            b'N' | b'T' | b'F' | 0x5b | 0x5c | 0x80..=0xbf | 0xd8..=0xef => {}
            0xc0..=0xcf | 0xf0..=0xff | 0x5d => self.advance(1)?,
            0xd0..=0xd7 | 0x38..=0x3f | 0x5e => self.advance(2)?,
            b'I' | b'Y' | 0x5f | 0x4b => self.advance(4)?,
            b'L' | b'D' | 0x4a => self.advance(8)?,
            0..=0x1f => self.skip_text(tag.into())?,
            0x30..=0x33 => {
                let units = usize::from(tag - 0x30) << 8 | usize::from(self.byte()?);
                self.skip_text(units)?;
            }
            b'R' | b'S' => self.skip_chunks(tag, b'R', b'S', Self::skip_text)?,
            0x20..=0x2f => self.advance((tag - 0x20).into())?,
            0x34..=0x37 => {
                let len = usize::from(tag - 0x34) << 8 | usize::from(self.byte()?);
                self.advance(len)?;
            }
            b'A' | b'B' => self.skip_chunks(tag, b'A', b'B', Self::advance)?,
            b'Q' => {
                self.int()?;
            }
            _ => return self.skip_compound(tag).map(Some),
        }
        Some(None)
    }

    fn skip_compound(&mut self, tag: u8) -> Option<Rest> {
        Some(match tag {
            b'U' | b'M' => {
                self.skip_type()?;
                Rest::UntilEnd
            }
            b'W' | b'H' => Rest::UntilEnd,
            b'V' => {
                self.skip_type()?;
                Rest::Count(self.count()?)
            }
            b'X' => Rest::Count(self.count()?),
            0x70..=0x77 => {
                self.skip_type()?;
                Rest::Count((tag - 0x70).into())
            }
            0x78..=0x7f => Rest::Count((tag - 0x78).into()),
            b'C' => {
                self.define_class()?;
                // A definition stands before a value and is none.
                Rest::Count(1)
            }
            b'O' => {
                let class = self.count()? as usize;
                Rest::Count(self.fields_of(class)?)
            }
            0x60..=0x6f => Rest::Count(self.fields_of((tag - 0x60).into())?),
            _ => return None,
        })
    }

    fn define_class(&mut self) -> Option<()> {
        self.skip_string()?;
        let count = u16::try_from(self.count()?).ok()?;
        *self.fields.get_mut(self.classes)? = count;
        self.classes += 1;
        (0..count).try_for_each(|_| self.skip_string())
    }

    fn fields_of(&self, class: usize) -> Option<u32> {
        let defined = self.fields.get(..self.classes)?;
        defined.get(class).map(|fields| u32::from(*fields))
    }

    /// The name of a type, or which of the earlier ones it is.
    fn skip_type(&mut self) -> Option<()> {
        let before = self.at;
        if self.string_spot().is_some() {
            return Some(());
        }
        self.at = before;
        self.int().map(|_| ())
    }

    /// Pieces of which the last has a tag of its own.
    fn skip_chunks(
        &mut self,
        mut tag: u8,
        more: u8,
        last: u8,
        skip: fn(&mut Self, usize) -> Option<()>,
    ) -> Option<()> {
        loop {
            let len = self.u16()?;
            skip(self, len)?;
            if tag == last {
                return Some(());
            }
            tag = self.byte()?;
            if tag != more && tag != last {
                // The last piece may be in a short form: a value like any other.
                self.at -= 1;
                return self.skip_one().filter(Option::is_none).map(|_| ());
            }
        }
    }

    fn count(&mut self) -> Option<u32> {
        self.int().and_then(|int| u32::try_from(int).ok()).filter(|count| *count <= COUNT_MAX)
    }

    fn int(&mut self) -> Option<i32> {
        let tag = self.byte()?;
        Some(match tag {
            0x80..=0xbf => i32::from(tag) - 0x90,
            0xc0..=0xcf => (i32::from(tag) - 0xc8) << 8 | i32::from(self.byte()?),
            0xd0..=0xd7 => {
                let low = i32::try_from(self.u16()?).ok()?;
                (i32::from(tag) - 0xd4) << 16 | low
            }
            b'I' => {
                let bytes = self.bytes.get(self.at..)?.first_chunk()?;
                self.at += 4;
                i32::from_be_bytes(*bytes)
            }
            _ => return None,
        })
    }

    /// Past so many units of UTF-16, written as UTF-8 unit by unit, or character by character.
    #[inline]
    fn skip_text(&mut self, units: usize) -> Option<()> {
        let text = self.bytes.get(self.at..self.at + units)?;
        if is_ascii(text) {
            self.at += units;
            return Some(());
        }
        self.skip_other_text(units)
    }

    #[cold]
    fn skip_other_text(&mut self, units: usize) -> Option<()> {
        let mut left = units;
        while left > 0 {
            let (len, worth) = match self.bytes.get(self.at)? {
                0..=0x7f => (1, 1),
                0xc0..=0xdf => (2, 1),
                0xe0..=0xef => (3, 1),
                0xf0..=0xf7 => (4, 2),
                _ => return None,
            };
            self.advance(len)?;
            left = left.saturating_sub(worth);
        }
        Some(())
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<usize> {
        let bytes = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 2;
        Some(u16::from_be_bytes(*bytes).into())
    }

    fn advance(&mut self, count: usize) -> Option<()> {
        let end = self.at + count;
        self.bytes.get(self.at..end)?;
        self.at = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_beyond_127_is_seen_wherever_it_stands() {
        for len in 0..40 {
            let mut text = vec![b'a'; len];
            assert!(is_ascii(&text), "{len}");
            for place in 0..len {
                text[place] = 0x80;
                assert!(!is_ascii(&text), "{place} of {len}");
                text[place] = b'a';
            }
        }
    }

    #[test]
    fn strings_end_where_their_units_end() {
        // Two units of two bytes each, three of one, and one that is cut.
        let mut reader = Reader::new(b"\x02\xc3\xa4\xc3\xb6\x03abc\x04ab", 0);
        assert_eq!(reader.string(), Some(&b"\xc3\xa4\xc3\xb6"[..]));
        assert_eq!(reader.string(), Some(&b"abc"[..]));
        assert_eq!(reader.string(), None);
    }
}
