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
use crate::h2::table::{BYTES_MAX, Line, Table};
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
    /// A literal field before the first line is written, and the values of the first lines where
    /// they came in another order than that of the lines.
    spare: Vec<u8>,
    pseudo: Vec<u8>,
    /// Where the values of method, path and authority lie in `text`.
    method: (usize, usize),
    path: (usize, usize),
    authority: Option<(usize, usize)>,
    /// Which fields say what a call of gRPC is.
    content_type: Option<u16>,
    grpc_timeout: Option<u16>,
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
            spare: Vec::new(),
            pseudo: Vec::new(),
            method: (0, 0),
            path: (0, 0),
            authority: None,
            content_type: None,
            grpc_timeout: None,
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
        let head = || RequestHead::of_fields(self.fields(), self.method_end, self.target_end);
        self.is_request().then(head)
    }

    /// Whether it is one.
    pub(super) fn is_request(&self) -> bool {
        !self.is_cut && self.method_end > 0 && self.target_end > self.method_end + 1
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
        self.text.capacity() + self.spare.capacity() + self.pseudo.capacity()
    }

    /// Value of `content-type`.
    pub(super) fn content_type(&self) -> Option<&[u8]> {
        self.content_type.map(|index| self.value_at(index))
    }

    /// Value of `grpc-timeout`.
    pub(super) fn grpc_timeout(&self) -> Option<&[u8]> {
        self.grpc_timeout.map(|index| self.value_at(index))
    }

    fn value_at(&self, index: u16) -> &[u8] {
        &self.text[self.fields().at(index.into()).value]
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
                let line = table.get(cursor.number(7)?).ok_or(Broken)?;
                self.list_bytes += line.size();
                self.take(line, way, Origin::new(start, cursor.at, true), limits);
            } else if first & 0xe0 == 0x20 {
                let max = cursor.number(5)?;
                // RFC 7541 §4.2: at the beginning of a block. One that is larger than is followed
                // leaves nobody knows what in the table.
                if self.list_bytes > 0 || max > BYTES_MAX {
                    return Err(Broken);
                }
                table.resize(max);
            } else {
                let is_indexed = first & 0x40 != 0;
                let mut text = std::mem::take(&mut self.spare);
                text.clear();
                let name_len = cursor.literal(if is_indexed { 6 } else { 4 }, table, &mut text)?;
                let line = Line { text: &text, name_len };
                self.list_bytes += line.size();
                if is_indexed {
                    table.insert(line);
                }
                self.take(line, way, Origin::new(start, cursor.at, !is_indexed), limits);
                self.spare = text;
            }
        }
        self.begin();
        self.text.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn clear(&mut self) {
        self.text.clear();
        (self.count, self.lengths, self.status, self.list_bytes) = (0, Lengths::default(), 0, 0);
        (self.method, self.path, self.authority) = ((0, 0), (0, 0), None);
        (self.content_type, self.grpc_timeout) = (None, None);
        (self.method_end, self.target_end) = (0, 0);
        (self.has_begun, self.is_cut) = (false, false);
    }

    /// Takes in a field, if it is asked for.
    #[inline(always)]
    fn take(&mut self, line: Line<'_>, way: Way, origin: Origin, limits: &Limits) {
        let name = line.name();
        if name.first() == Some(&b':') {
            self.take_pseudo(name, line.value());
            return;
        }
        if self.is_cut || !is_kept(name, way) {
            return;
        }
        self.begin();
        // Both say the same; where they do not, `:authority` is the one that counts.
        if name == b"host" && self.authority.is_some() {
            return;
        }
        let fields_max = usize::from(limits.headers_max).min(HEADERS_CAP);
        let at = self.text.len();
        let end = at + line.text.len();
        if self.count >= fields_max || end - 2 > limits.head_bytes_max as usize {
            self.is_cut = true;
            return;
        }
        if name.len() == GRPC_NAMES_LEN {
            self.note(name);
        }
        self.text.extend_from_slice(line.text);
        let name_end = at + line.name_len;
        self.keep(LineOffsets::new(at, name_end, name_end + 2, end - 2), origin);
    }

    /// Takes note of where the field is that is kept next, if a call of gRPC is known by it.
    fn note(&mut self, name: &[u8]) {
        let place = match name {
            b"content-type" => &mut self.content_type,
            b"grpc-timeout" => &mut self.grpc_timeout,
            _ => return,
        };
        *place = place.or(u16::try_from(self.count).ok());
    }

    #[inline]
    fn keep(&mut self, line: LineOffsets, origin: Origin) {
        self.lengths.add(line.name_len());
        self.lines[self.count] = line;
        self.origins[self.count] = origin;
        self.count += 1;
    }

    /// A pseudo-header field: they come first, so that behind another field it is none. The value is
    /// written as it stands in the lines that come first, if they come in that order.
    #[inline(never)]
    fn take_pseudo(&mut self, name: &[u8], value: &[u8]) {
        if self.has_begun || self.is_cut {
            self.is_cut = true;
            return;
        }
        let (place, lead, tail) = match name {
            b":method" => (&mut self.method, &b""[..], &b" "[..]),
            b":path" => (&mut self.path, &b""[..], VERSION),
            b":authority" => (self.authority.get_or_insert_default(), HOST, &b"\r\n"[..]),
            b":status" => {
                self.status = status(value);
                return;
            }
            // `:scheme`, `:protocol`, and what nobody knows.
            _ => return,
        };
        // RFC 9113 §8.3: each comes once.
        if place.1 > 0 {
            self.is_cut = true;
            return;
        }
        if !lead.is_empty() {
            self.text.extend_from_slice(lead);
        }
        place.0 = self.text.len();
        self.text.extend_from_slice(value);
        place.1 = self.text.len();
        self.text.extend_from_slice(tail);
    }

    /// The lines that come first are whole: no further pseudo-header field counts.
    #[inline]
    fn begin(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let (method, path) = (self.method, self.path);
        let first_end = path.1 + VERSION.len();
        let follows = match self.authority {
            Some(authority) => authority.0 == first_end + HOST.len(),
            None => self.text.len() == first_end,
        };
        let is_plain = method.0 == 0 && method.1 > 0 && path.0 == method.1 + 1 && path.1 > path.0;
        if is_plain && follows {
            (self.method_end, self.target_end) = (method.1, path.1);
        } else if !self.text.is_empty() {
            self.arrange();
        }
        if let Some((value, end)) = self.authority.filter(|_| self.method_end > 0) {
            let at = value - HOST.len();
            self.keep(LineOffsets::new(at, at + 4, value, end), Origin::default());
        }
    }

    /// Writes the lines that come first in their order.
    #[cold]
    fn arrange(&mut self) {
        std::mem::swap(&mut self.text, &mut self.pseudo);
        self.text.clear();
        if self.method.0 == self.method.1 {
            return;
        }
        // CONNECT has no path (RFC 9113 §8.5), only an authority.
        let target = match self.path.0 == self.path.1 {
            true => self.authority.unwrap_or_default(),
            false => self.path,
        };
        self.text.extend_from_slice(&self.pseudo[self.method.0..self.method.1]);
        self.method_end = self.text.len();
        self.text.push(b' ');
        self.text.extend_from_slice(&self.pseudo[target.0..target.1]);
        self.target_end = self.text.len();
        self.text.extend_from_slice(VERSION);
        if let Some((begin, end)) = &mut self.authority {
            self.text.extend_from_slice(HOST);
            let at = self.text.len();
            self.text.extend_from_slice(&self.pseudo[*begin..*end]);
            (*begin, *end) = (at, self.text.len());
            self.text.extend_from_slice(b"\r\n");
        }
    }
}

/// Both names that [`Section::note`] looks for have this length.
const GRPC_NAMES_LEN: usize = "content-type".len();

/// What is behind a target, and in front of the value of `:authority`.
const VERSION: &[u8] = b" HTTP/2\r\n";
const HOST: &[u8] = b"host: ";

/// Three digits; 0 where they are something else.
fn status(value: &[u8]) -> u16 {
    match value {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'))
        }
        _ => 0,
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

    /// Writes the literal field that comes next as a line; returns the length of its name. The number
    /// in the lowest `bits` says where the name is.
    fn literal(&mut self, bits: u32, table: &Table, out: &mut Vec<u8>) -> Result<usize, Broken> {
        match self.number(bits)? {
            0 => {
                self.string(out)?;
                out.extend_from_slice(b": ");
            }
            index => out.extend_from_slice(table.get(index).ok_or(Broken)?.lead()),
        }
        let name_len = out.len() - 2;
        self.string(out)?;
        out.extend_from_slice(b"\r\n");
        Ok(name_len)
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
