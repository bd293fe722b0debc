//! A field section, decoded (RFC 9113 §8.3): its fields laid out as the lines of a head, so that what
//! reads heads of HTTP/1 reads these as well.
//!
//! ```text
//! POST /shop.Cart/Add HTTP/2\r\n      the pseudo-header fields
//! host: cart:50051\r\n                :authority
//! te: trailers\r\n                    each field
//! \r\n
//! ```

use crate::codec::Way;
use crate::h1::{Fields, Lengths, LineOffsets, RequestHead};
use crate::h2::huffman;
use crate::h2::table::{BYTES_MAX, Table};
use crate::limits::{HEADERS_CAP, Limits};

/// Where a field lay in its block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origin {
    pub(super) start: u32,
    pub(super) end: u32,
    /// It left nothing in the table: without it, the rest of the block means what it meant.
    pub(super) is_loose: bool,
}

/// A section: room for one, used again for each. The storage grows to what the limits allow and
/// stays.
#[derive(Debug)]
pub struct Section {
    text: Vec<u8>,
    lines: Box<[LineOffsets; HEADERS_CAP]>,
    origins: Box<[Origin; HEADERS_CAP]>,
    count: usize,
    lengths: Lengths,
    /// Where method, path and authority lie in `pseudo`, one behind the other.
    pseudo: Vec<u8>,
    method: (usize, usize),
    path: (usize, usize),
    authority: Option<(usize, usize)>,
    /// Where method and target end in `text`.
    method_end: usize,
    target_end: usize,
    /// Status of a response, 0 where there is none.
    status: u16,
    /// Bytes of all fields as they are counted (RFC 9113 §6.5.2).
    list_bytes: u64,
    has_begun: bool,
    /// There was more than is kept: nothing is said of the section.
    is_cut: bool,
}

/// A block that no encoder writes, or one that asks for a table that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Where a block is read.
struct Cursor<'b> {
    block: &'b [u8],
    at: usize,
}

impl Section {
    /// Room for a section.
    pub fn new() -> Self {
        Self {
            text: Vec::new(),
            lines: Box::new([LineOffsets::default(); HEADERS_CAP]),
            origins: Box::new([Origin::default(); HEADERS_CAP]),
            count: 0,
            lengths: Lengths::default(),
            pseudo: Vec::new(),
            method: (0, 0),
            path: (0, 0),
            authority: None,
            method_end: 0,
            target_end: 0,
            status: 0,
            list_bytes: 0,
            has_begun: false,
            is_cut: false,
        }
    }

    /// The fields, without pseudo-header fields; `:authority` is called `host`.
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.text, &self.lines[..self.count], self.lengths)
    }

    /// The section as the head of a request: none where it has no method or neither path nor
    /// authority, or where there was more of it than is kept.
    pub fn request(&self) -> Option<RequestHead<'_>> {
        let is_one = !self.is_cut && self.method_end > 0 && self.target_end > self.method_end + 1;
        is_one.then(|| RequestHead::of_fields(self.fields(), self.method_end, self.target_end))
    }

    /// The status of a response; 0 where there is none.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What the section comes to as its receiver counts it (RFC 9113 §6.5.2).
    pub fn list_bytes(&self) -> u64 {
        self.list_bytes
    }

    /// There was more of it than is kept.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The place in its block of the line that has this offset of the text in it.
    pub(super) fn origin_of(&self, offset: usize) -> Option<(Origin, &[u8])> {
        let fields = self.fields();
        let index = (0..self.count).find(|index| fields.at(*index).line.contains(&offset))?;
        let field = fields.at(index);
        Some((self.origins[index], &self.text[field.line.start..field.name_end]))
    }

    /// Bytes of storage that is kept, whatever comes.
    pub fn held(&self) -> usize {
        self.text.capacity() + self.pseudo.capacity()
    }

    /// Reads a block, which changes the table of its way. Of a response only gRPC's own fields are
    /// kept: nobody asks for others.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        way: Way,
        table: &mut Table,
        limits: &Limits,
    ) -> Result<(), Broken> {
        self.clear();
        let mut cursor = Cursor { block, at: 0 };
        while let Some(first) = block.get(cursor.at).copied() {
            let start = cursor.at;
            if first & 0x80 != 0 {
                let index = cursor.number(7)?;
                let (name, value) = table.get(index).ok_or(Broken)?;
                self.list_bytes += (name.len() + value.len() + 32) as u64;
                if name.first() == Some(&b':') {
                    self.keep_pseudo(name, value);
                } else if !self.is_cut && is_kept(name, way) {
                    let at = self.text.len();
                    self.text.extend_from_slice(name);
                    self.text.extend_from_slice(b": ");
                    self.text.extend_from_slice(value);
                    let origin = Origin::new(start, cursor.at, true);
                    self.keep(at, name.len(), origin, limits);
                }
                continue;
            }
            if first & 0xe0 == 0x20 {
                let max = cursor.number(5)?;
                // RFC 7541 §4.2: at the beginning of a block. One that is larger than is followed
                // leaves nobody knows what in the table.
                if self.list_bytes > 0 || max > BYTES_MAX {
                    return Err(Broken);
                }
                table.resize(max);
                continue;
            }
            let is_indexed = first & 0x40 != 0;
            let at = self.text.len();
            let name_len = self.name(&mut cursor, if is_indexed { 6 } else { 4 }, table)?;
            self.text.extend_from_slice(b": ");
            let value_at = self.text.len();
            cursor.string(&mut self.text)?;
            self.list_bytes += (name_len + self.text.len() - value_at + 32) as u64;
            if is_indexed {
                table.insert(&self.text[at..at + name_len], &self.text[value_at..]);
            }
            let name = &self.text[at..at + name_len];
            if name.first() == Some(&b':') {
                let text = std::mem::take(&mut self.text);
                self.keep_pseudo(&text[at..at + name_len], &text[value_at..]);
                self.text = text;
                self.text.truncate(at);
            } else if self.is_cut || !is_kept(name, way) {
                self.text.truncate(at);
            } else {
                self.keep(at, name_len, Origin::new(start, cursor.at, !is_indexed), limits);
            }
        }
        self.begin();
        self.text.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Adds the name of a literal field to the text; returns its length.
    fn name(&mut self, cursor: &mut Cursor<'_>, bits: u32, table: &Table) -> Result<usize, Broken> {
        let at = self.text.len();
        match cursor.number(bits)? {
            0 => cursor.string(&mut self.text)?,
            index => self.text.extend_from_slice(table.get(index).ok_or(Broken)?.0),
        }
        Ok(self.text.len() - at)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.pseudo.clear();
        (self.count, self.lengths, self.status, self.list_bytes) = (0, Lengths::default(), 0, 0);
        (self.method, self.path, self.authority) = ((0, 0), (0, 0), None);
        (self.method_end, self.target_end) = (0, 0);
        (self.has_begun, self.is_cut) = (false, false);
    }

    /// Takes in the field that stands in the text from `at` on.
    #[inline]
    fn keep(&mut self, at: usize, name_len: usize, origin: Origin, limits: &Limits) {
        let at = if self.has_begun { at } else { self.begin_before(at) };
        let name = &self.text[at..at + name_len];
        // Both say the same; where they do not, `:authority` is the one that counts.
        if name == b"host" && self.authority.is_some() {
            self.text.truncate(at);
            return;
        }
        let fields_max = usize::from(limits.headers_max).min(HEADERS_CAP);
        if self.count >= fields_max || self.text.len() > limits.head_bytes_max as usize {
            self.is_cut = true;
            self.text.truncate(at);
            return;
        }
        self.lengths.add(name_len);
        self.lines[self.count] =
            LineOffsets::new(at, at + name_len, at + name_len + 2, self.text.len());
        self.origins[self.count] = origin;
        self.count += 1;
        self.text.extend_from_slice(b"\r\n");
    }

    /// A pseudo-header field: they come first, so that behind another field it is none.
    fn keep_pseudo(&mut self, name: &[u8], value: &[u8]) {
        let place = match name {
            _ if self.has_begun || self.is_cut => {
                self.is_cut = true;
                return;
            }
            b":status" => {
                self.status = match value {
                    [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                        [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'))
                    }
                    _ => 0,
                };
                return;
            }
            b":method" => &mut self.method,
            b":path" => &mut self.path,
            b":authority" => self.authority.get_or_insert_default(),
            // `:scheme`, `:protocol`, and what nobody knows.
            _ => return,
        };
        // RFC 9113 §8.3: each comes once.
        if place.1 > place.0 {
            self.is_cut = true;
            return;
        }
        let from = self.pseudo.len();
        self.pseudo.extend_from_slice(value);
        *place = (from, self.pseudo.len());
    }

    /// Writes the lines that come first in front of the field that stands in the text from `at` on;
    /// returns where it is now.
    fn begin_before(&mut self, at: usize) -> usize {
        let field_len = self.text.len() - at;
        self.begin();
        // Only pseudo-header fields were before it, and they have gone.
        let begin = self.text.len() - field_len;
        self.text[at..].rotate_left(field_len);
        begin
    }

    /// Writes the lines that come first.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        if self.method.0 == self.method.1 {
            return;
        }
        let from = self.text.len();
        // CONNECT has no path (RFC 9113 §8.5), only an authority.
        let target = match self.path.0 == self.path.1 {
            true => self.authority.unwrap_or_default(),
            false => self.path,
        };
        self.text.extend_from_slice(&self.pseudo[self.method.0..self.method.1]);
        self.method_end = self.text.len() - from;
        self.text.push(b' ');
        self.text.extend_from_slice(&self.pseudo[target.0..target.1]);
        self.target_end = self.text.len() - from;
        self.text.extend_from_slice(b" HTTP/2\r\n");
        if let Some((begin, end)) = self.authority {
            let at = self.text.len() - from;
            self.text.extend_from_slice(b"host: ");
            self.text.extend_from_slice(&self.pseudo[begin..end]);
            self.lengths.add(4);
            self.lines[0] = LineOffsets::new(at, at + 4, at + 6, self.text.len() - from);
            self.origins[0] = Origin::default();
            self.count = 1;
            self.text.extend_from_slice(b"\r\n");
        }
    }
}

impl Default for Section {
    fn default() -> Self {
        Self::new()
    }
}

impl Origin {
    /// Of a block that 32 bits can count.
    #[allow(clippy::cast_possible_truncation)]
    fn new(start: usize, end: usize, is_loose: bool) -> Self {
        Self { start: start as u32, end: end as u32, is_loose }
    }
}

/// Whether a field is asked for.
#[inline]
fn is_kept(name: &[u8], way: Way) -> bool {
    way == Way::Request || name.starts_with(b"grpc-")
}

impl Cursor<'_> {
    /// A number that begins in the lowest `bits` of the next byte (RFC 7541 §5.1).
    #[inline]
    fn number(&mut self, bits: u32) -> Result<u32, Broken> {
        let mask = (1u32 << bits) - 1;
        let first = u32::from(*self.block.get(self.at).ok_or(Broken)?) & mask;
        self.at += 1;
        if first < mask {
            return Ok(first);
        }
        let mut number = first;
        for shift in [0, 7, 14, 21] {
            let byte = *self.block.get(self.at).ok_or(Broken)?;
            self.at += 1;
            number += u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        // Nothing that is read is so large.
        Err(Broken)
    }

    /// Adds the string that comes next to `out` (RFC 7541 §5.2).
    #[inline]
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        let is_coded = self.block.get(self.at).ok_or(Broken)? & 0x80 != 0;
        let len = self.number(7)? as usize;
        let end = self.at.checked_add(len).ok_or(Broken)?;
        let bytes = self.block.get(self.at..end).ok_or(Broken)?;
        self.at = end;
        if !is_coded {
            out.extend_from_slice(bytes);
        } else if !huffman::decode(bytes, out) {
            return Err(Broken);
        }
        Ok(())
    }
}
