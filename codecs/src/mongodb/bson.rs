//! Documents: the names of their elements, and where their values lie.
//!
//! <https://bsonspec.org/spec.html>: a length that includes itself, then elements (a type, a name
//! that ends with 0, a value), then 0.

use crate::codec::Spot;

const DOUBLE: u8 = 0x01;
const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BOOL: u8 = 0x08;
const INT32: u8 = 0x10;
const INT64: u8 = 0x12;

/// The little-endian number of 32 bits at a place.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// A length or a size, which are never negative.
#[inline]
fn len_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).filter(|len| *len <= 1 << 30).map(|len| len as usize)
}

/// The place behind the 0 that ends the text at a place.
#[inline]
pub(super) fn cstring_end(bytes: &[u8], at: usize) -> Option<usize> {
    memchr::memchr(0, bytes.get(at..)?).map(|len| at + len + 1)
}

/// How long the document at a place is.
#[inline]
pub(super) fn document_len(bytes: &[u8], at: usize) -> Option<usize> {
    len_at(bytes, at).filter(|len| *len >= 5)
}

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'b> {
    kind: u8,
    pub(super) name: &'b [u8],
    bytes: &'b [u8],
    /// Where its value begins.
    at: usize,
}

/// The elements of a document, as far as they are there.
#[derive(Clone, Debug)]
pub(super) struct Elements<'b> {
    bytes: &'b [u8],
    at: usize,
    end: usize,
}

impl<'b> Elements<'b> {
    /// Those of the document at a place.
    #[inline]
    pub(super) fn new(bytes: &'b [u8], at: usize) -> Self {
        let end = document_len(bytes, at).map_or(0, |len| at.saturating_add(len));
        Self { bytes, at: at.saturating_add(4), end }
    }
}

impl<'b> Iterator for Elements<'b> {
    type Item = Element<'b>;

    #[inline]
    fn next(&mut self) -> Option<Element<'b>> {
        let kind = *self.bytes.get(self.at).filter(|_| self.at + 1 < self.end)?;
        let name = self.at + 1;
        let at = cstring_end(self.bytes, name)?;
        let element = Element { kind, name: &self.bytes[name..at - 1], bytes: self.bytes, at };
        // Behind a value of no known type, or one that is not there, nothing is found.
        self.at = element.value_end().unwrap_or(self.end);
        Some(element)
    }
}

impl<'b> Element<'b> {
    /// The place behind the value.
    #[inline]
    fn value_end(self) -> Option<usize> {
        let Self { bytes, at, .. } = self;
        let len = match self.kind {
            DOUBLE | INT64 | 0x09 | 0x11 => 8,
            STRING | 0x0d | 0x0e => len_at(bytes, at)?.checked_add(4)?,
            DOCUMENT | ARRAY | 0x0f => len_at(bytes, at).filter(|len| *len >= 5)?,
            0x05 => len_at(bytes, at)?.checked_add(5)?,
            0x06 | 0x0a | 0x7f | 0xff => 0,
            0x07 => 12,
            BOOL => 1,
            0x0b => return cstring_end(bytes, cstring_end(bytes, at)?),
            0x0c => len_at(bytes, at)?.checked_add(16)?,
            INT32 => 4,
            0x13 => 16,
            _ => return None,
        };
        at.checked_add(len)
    }

    /// Where the text lies, if it is one.
    pub(super) fn text(self) -> Option<Spot> {
        if self.kind != STRING {
            return None;
        }
        let len = len_at(self.bytes, self.at)?.checked_sub(1)?;
        let begin = self.at + 4;
        self.bytes.get(begin..begin.checked_add(len)?).map(|_| Spot::new(begin, len))
    }

    /// The text, if it is one.
    pub(super) fn value(self) -> Option<&'b [u8]> {
        self.text()?.of(self.bytes)
    }

    /// Whether it is the number 0 or false.
    pub(super) fn is_zero(self) -> bool {
        let is_zero = |len: usize| {
            let value = self.bytes.get(self.at..self.at + len);
            value.is_some_and(|value| value.iter().all(|byte| *byte == 0))
        };
        match self.kind {
            DOUBLE | INT64 => is_zero(8),
            INT32 => is_zero(4),
            BOOL => is_zero(1),
            _ => false,
        }
    }

    /// The number of 32 bits, if it is one.
    pub(super) fn int(self) -> Option<i32> {
        let bits = u32_at(self.bytes, self.at).filter(|_| self.kind == INT32)?;
        i32::try_from(bits).ok()
    }

    /// The elements of the document or list that it is.
    pub(super) fn elements(self) -> Option<Elements<'b>> {
        matches!(self.kind, DOCUMENT | ARRAY).then(|| Elements::new(self.bytes, self.at))
    }
}
