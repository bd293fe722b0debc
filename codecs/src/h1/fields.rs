//! The header fields of a head as ranges of its bytes.

use std::ops::Range;

use httparse::Header;

use crate::h1::reason::Reason;

/// The header fields of a head, in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b> {
    head: &'b [u8],
    table: &'b [LineOffsets],
}

impl<'b> Fields<'b> {
    pub(crate) fn new(head: &'b [u8], table: &'b [LineOffsets]) -> Self {
        Self { head, table }
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
        (0..self.table.len()).map(move |index| {
            let field = self.at(index);
            (&self.head[field.line.start..field.name_end], &self.head[field.value])
        })
    }

    /// The values of all fields of this name, whatever its case.
    pub fn named<'n>(self, name: &'n [u8]) -> impl Iterator<Item = &'b [u8]> + use<'b, 'n> {
        self.lines(name).map(move |field| &self.head[field.value])
    }

    /// The places of all fields of this name, whatever its case.
    pub fn lines<'n>(self, name: &'n [u8]) -> impl Iterator<Item = FieldRange> + use<'b, 'n> {
        (0..self.table.len()).filter_map(move |index| {
            let range = &self.table[index];
            let (start, end) = (range.line as usize, range.name_end as usize);
            let same =
                end - start == name.len() && self.head[start..end].eq_ignore_ascii_case(name);
            same.then(|| self.at(index))
        })
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
    for (range, header) in table.iter_mut().zip(headers) {
        let name = header.name.as_bytes();
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
    Ok(Fields { head: bytes, table: &table[..headers.len()] })
}
