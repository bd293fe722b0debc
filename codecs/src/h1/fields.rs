//! The header fields of a head as ranges of its bytes.

use std::ops::Range;

use httparse::Header;

use crate::h1::reason::Reason;
use crate::h1::words::is_same_name;

/// The header fields of a head, in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b> {
    head: &'b [u8],
    table: &'b [LineOffsets],
    lengths: Lengths,
}

/// Which lengths the names of a head have: a name of another length is not among them, and most
/// that are looked for are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths(u64);

impl Lengths {
    /// A length is known by its lowest six bits: none is missed, and few are mistaken.
    #[inline]
    pub(crate) fn add(&mut self, len: usize) {
        self.0 |= Self::bit(len);
    }

    #[inline]
    fn has(self, len: usize) -> bool {
        self.0 & Self::bit(len) != 0
    }

    #[inline]
    fn bit(len: usize) -> u64 {
        1 << (len % 64)
    }
}

impl<'b> Fields<'b> {
    pub(crate) fn new(head: &'b [u8], table: &'b [LineOffsets], lengths: Lengths) -> Self {
        Self { head, table, lengths }
    }

    pub(crate) fn lengths(&self) -> Lengths {
        self.lengths
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The bytes of the whole head, start line and empty line included.
    pub fn head(&self) -> &'b [u8] {
        self.head
    }

    /// Name and value of each field; blanks around the value are left out.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'b [u8], &'b [u8])> {
        self.table.iter().map(move |field| (field.name(self.head), field.value(self.head)))
    }

    /// Whether there is a name of one of these lengths, a bit for each, of whose first three bytes
    /// `is_it` thinks so; those of a shorter name are followed by its colon.
    #[inline]
    pub(crate) fn has_name(self, lengths: u64, is_it: impl Fn([u8; 3]) -> bool) -> bool {
        self.lengths.0 & lengths != 0
            && self.table.iter().any(|field| {
                let line = || self.head.get(field.line as usize..)?.first_chunk();
                lengths & Lengths::bit(field.name_len()) != 0 && line().is_some_and(|it| is_it(*it))
            })
    }

    /// The values of all fields of this name, whatever its case.
    pub fn named<'n>(self, name: &'n [u8]) -> impl Iterator<Item = &'b [u8]> + use<'b, 'n> {
        self.indexes(name).map(move |index| self.table[index].value(self.head))
    }

    /// The places of all fields of this name, whatever its case.
    pub fn lines<'n>(self, name: &'n [u8]) -> impl Iterator<Item = FieldRange> + use<'b, 'n> {
        self.indexes(name).map(move |index| self.at(index))
    }

    /// Whether there is a field of this name, whatever its case.
    #[inline]
    pub fn has(&self, name: &[u8]) -> bool {
        self.find(name, 0).is_some()
    }

    /// The value of the first field of this name.
    #[inline]
    pub(crate) fn first(&self, name: &[u8]) -> Option<&'b [u8]> {
        Some(self.table[self.find(name, 0)?].value(self.head))
    }

    /// The value of the field of this name, unless there are several.
    #[inline]
    pub(crate) fn only(&self, name: &[u8]) -> Option<&'b [u8]> {
        let found = self.find(name, 0)?;
        match self.find(name, found + 1) {
            None => Some(self.table[found].value(self.head)),
            Some(_) => None,
        }
    }

    fn indexes<'n>(self, name: &'n [u8]) -> impl Iterator<Item = usize> + use<'b, 'n> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let found = self.find(name, from)?;
            from = found + 1;
            Some(found)
        })
    }

    /// The first field of this name from here on.
    #[inline]
    fn find(&self, name: &[u8], from: usize) -> Option<usize> {
        if !self.lengths.has(name.len()) {
            return None;
        }
        let mut index = from;
        while let Some(field) = self.table.get(index) {
            if field.name_len() == name.len() && is_same_name(field.name(self.head), name) {
                return Some(index);
            }
            index += 1;
        }
        None
    }

    /// The place of the field with this index.
    ///
    /// # Panics
    /// When there is no such field.
    pub fn at(self, index: usize) -> FieldRange {
        let range = self.table[index];
        // The next line begins where this one ends; after the last comes the empty line's CRLF.
        let end = match self.table.get(index + 1) {
            Some(next) => next.line as usize,
            None => self.head.len() - 2,
        };
        FieldRange {
            line: range.line as usize..end,
            name_end: range.name_end as usize,
            value: range.value as usize..range.value_end as usize,
        }
    }
}

/// Where one field lies in its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRange {
    /// The whole line with its CRLF.
    pub line: Range<usize>,
    /// Where the name, which begins with the line, ends.
    pub name_end: usize,
    /// The value without the blanks around it.
    pub value: Range<usize>,
}

/// Offsets of one header field in its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineOffsets {
    line: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
}

impl LineOffsets {
    #[inline]
    pub(crate) fn name_len(&self) -> usize {
        (self.name_end - self.line) as usize
    }

    fn name<'b>(&self, head: &'b [u8]) -> &'b [u8] {
        &head[self.line as usize..self.name_end as usize]
    }

    fn value<'b>(&self, head: &'b [u8]) -> &'b [u8] {
        &head[self.value as usize..self.value_end as usize]
    }

    /// Of a head within the limits, whose offsets 32 bits hold.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn new(line: usize, name_end: usize, value: usize, value_end: usize) -> Self {
        Self {
            line: line as u32,
            name_end: name_end as u32,
            value: value as u32,
            value_end: value_end as u32,
        }
    }
}

/// Writes the ranges of httparse's slices into the table. It lets LF alone end a line; here that
/// is refused, so that lines tile the head whoever asks.
pub(crate) fn fill<'b>(
    table: &'b mut [LineOffsets],
    bytes: &'b [u8],
    headers: &[Header<'b>],
) -> Result<Fields<'b>, Reason> {
    let base = bytes.as_ptr() as usize;
    // A slice of `bytes` lies less than its length, which 32 bits hold, behind its beginning.
    #[allow(clippy::cast_possible_truncation)]
    let offset = |part: &[u8]| (part.as_ptr() as usize - base) as u32;
    #[allow(clippy::cast_possible_truncation)]
    let end = |part: &[u8]| offset(part) + part.len() as u32;
    let mut lengths = Lengths::default();
    for (range, header) in table.iter_mut().zip(headers) {
        let name = header.name.as_bytes();
        lengths.add(name.len());
        *range = LineOffsets {
            line: offset(name),
            name_end: end(name),
            value: offset(header.value),
            value_end: end(header.value),
        };
        if !bytes[..range.line as usize].ends_with(b"\r\n") {
            return Err(Reason::BareLf);
        }
    }
    Ok(Fields { head: bytes, table: &table[..headers.len()], lengths })
}
