//! Headers between the length of a frame and its message.
//!
//! THeader (Apache, Facebook): `0fff`, flags, id, words of header, then varints: encoding,
//! transforms, infos; info 1 is key and value. TTHeader (Kitex): `1000`, flags, id, words of
//! header, encoding, transforms, then infos with lengths of 16 bits; info 1 is key and value.

use super::Shape;
use super::message::Encoding;
use crate::codec::{CannotEdit, Edits, Head, Pair, Pairs, Reason, Seen, Text};
use std::ops::Range;

/// Whose headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// THeader.
    Apache,
    /// TTHeader.
    Kitex,
}

/// Where the header begins: behind length, magic, flags, id and its size.
const BEGIN: usize = 14;
/// Where the size of the header is, in words of four bytes.
const WORDS: Range<usize> = 12..14;
/// The info that has names and values.
const INFO_PAIRS: u8 = 1;
/// Transforms, or entries of an info, that a header may say it has.
const COUNT_MAX: u32 = 1024;

/// The message behind a header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    /// How it is written.
    pub(super) encoding: Encoding,
    /// Where it begins.
    pub(super) at: usize,
    /// A length stands before it.
    pub(super) is_framed: bool,
}

/// What is behind the header.
pub(super) fn payload(kind: Kind, bytes: &[u8]) -> Result<Payload, Reason> {
    let header = header(kind, bytes).ok_or(Reason::Malformed)?;
    let mut reader = Reader { bytes: header, at: 0 };
    let (encoding, transforms) = reader.start(kind).ok_or(Reason::Malformed)?;
    if transforms > 0 {
        return Err(Reason::Compressed);
    }
    let begin = BEGIN + header.len();
    let encoding = match encoding {
        0 => Encoding::Binary,
        2 => Encoding::Compact,
        _ => return Err(Reason::Unsupported),
    };
    // Kitex may put a frame behind the header.
    let payload = &bytes[begin..];
    let is_framed = kind == Kind::Kitex
        && matches!(payload, [0..=0x3f, _, _, _, 0x80 | 0x82, ..])
        && encoding != Encoding::LaxBinary;
    Ok(Payload { encoding, at: if is_framed { begin + 4 } else { begin }, is_framed })
}

/// What travels as key and value.
pub(super) fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
    let Some(Shape::Header(kind)) = Shape::of(head) else { return };
    let Some(header) = header(kind, bytes) else { return };
    let mut reader = Reader { bytes: header, at: 0 };
    let Some((_, transforms)) = reader.start(kind) else { return };
    if transforms == 0 {
        reader.infos(kind, &mut |entry| {
            if let Entry::Pair(name, value, _) = entry {
                take((name, value));
            }
        });
    }
}

/// Edits the infos so that these pairs are among them, and mends the lengths of header and frame.
pub(super) fn edit(
    kind: Kind,
    bytes: &[u8],
    pairs: &Pairs,
    edits: &mut Edits,
) -> Result<(), CannotEdit> {
    let header = header(kind, bytes).ok_or(CannotEdit::NoPlace)?;
    let mut reader = Reader { bytes: header, at: 0 };
    let (_, transforms) = reader.start(kind).ok_or(CannotEdit::NoPlace)?;
    if transforms > 0 {
        return Err(CannotEdit::NoPlace);
    }
    let first = reader.at;
    let (mut count, mut seen) = (None, Seen::default());
    let mut full = Ok(());
    let walked = reader.infos(kind, &mut |entry| match entry {
        Entry::Count(range, entries) => count = count.take().or(Some((range, entries))),
        Entry::Pair(name, _, place) => {
            let Some(found) = pairs.find(name) else { return };
            seen.note(found);
            let value = pairs.iter().nth(found).map_or(&b""[..], |(_, value)| value);
            let place = BEGIN + place.start..BEGIN + place.end;
            let result = edits.replace_with(place, |text| kind.put_text(text, value));
            full = full.and(result);
        }
    });
    full?;
    walked.ok_or(CannotEdit::NoPlace)?;
    let missing = (0..pairs.len()).filter(|place| !seen.has(*place)).count();
    let put_missing = |text: &mut Text<'_>| {
        let new = pairs.iter().enumerate().filter(|(place, _)| !seen.has(*place));
        new.for_each(|(_, (name, value))| {
            kind.put_text(text, name);
            kind.put_text(text, value);
        });
    };
    match count {
        _ if missing == 0 => {}
        Some((range, entries)) => {
            let range = BEGIN + range.start..BEGIN + range.end;
            let end = range.end;
            edits.replace_with(range, |text| kind.put_len(text, entries as usize + missing))?;
            edits.replace_with(end..end, put_missing)?;
        }
        None => edits.replace_with(BEGIN + first..BEGIN + first, |text| {
            text.put(&[INFO_PAIRS]);
            kind.put_len(text, missing);
            put_missing(text);
        })?,
    }
    mend(bytes, header.len(), edits)
}

/// Fills the header to whole words, and mends the two lengths around it.
fn mend(bytes: &[u8], header_len: usize, edits: &mut Edits) -> Result<(), CannotEdit> {
    let end = BEGIN + header_len;
    let len = edits.edited_len(end) - BEGIN;
    let padding = len.next_multiple_of(4) - len;
    edits.replace(end..end, &[&[0; 4][..padding]])?;
    let words = u16::try_from((len + padding) / 4).map_err(|_| CannotEdit::Full)?;
    let frame = bytes.first_chunk().map_or(0, |len| u32::from_be_bytes(*len));
    let frame = u64::from(frame) + (len + padding) as u64 - header_len as u64;
    let frame = i32::try_from(frame).map_err(|_| CannotEdit::Full)?;
    edits.replace(0..4, &[&frame.to_be_bytes()])?;
    Ok(edits.replace(WORDS, &[&words.to_be_bytes()])?)
}

/// The head of an answer to a request with headers, without its length: of the same id, and with
/// none of the infos.
pub(super) fn put_answer(kind: Kind, bytes: &[u8], out: &mut Vec<u8>) {
    let encoding = bytes.get(BEGIN).copied().unwrap_or(0);
    out.extend_from_slice(&kind.magic());
    out.extend_from_slice(bytes.get(6..12).unwrap_or(&[0; 6]));
    out.extend([0, 1, encoding, 0, 0, 0]);
}

impl Kind {
    fn magic(self) -> [u8; 2] {
        match self {
            Self::Apache => [0x0f, 0xff],
            Self::Kitex => [0x10, 0x00],
        }
    }

    fn put_len(self, text: &mut Text<'_>, len: usize) {
        match self {
            Self::Apache => super::message::put_varint(len as u64, |byte| text.put(&[byte])),
            Self::Kitex => text.put(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()),
        }
    }

    /// A name or a value: all of them are shorter than 2^16.
    fn put_text(self, text: &mut Text<'_>, bytes: &[u8]) {
        self.put_len(text, bytes.len());
        text.put(bytes);
    }
}

/// What an info has.
enum Entry<'b> {
    /// Where the number of its pairs is, and that number.
    Count(Range<usize>, u32),
    /// Name and value, and where the value is with its length.
    Pair(&'b [u8], &'b [u8], Range<usize>),
}

fn header(kind: Kind, bytes: &[u8]) -> Option<&[u8]> {
    if bytes.get(4..6)? != kind.magic() {
        return None;
    }
    let words = u16::from_be_bytes(*bytes.get(WORDS)?.first_chunk()?);
    bytes.get(BEGIN..BEGIN + 4 * usize::from(words))
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    /// The encoding, and how many transforms there are.
    fn start(&mut self, kind: Kind) -> Option<(u32, u32)> {
        match kind {
            Kind::Apache => Some((self.varint()?, self.varint()?)),
            Kind::Kitex => Some((self.byte()?.into(), self.byte()?.into())),
        }
    }

    /// All infos, as far as they are known.
    fn infos(&mut self, kind: Kind, take: &mut dyn FnMut(Entry<'b>)) -> Option<()> {
        match kind {
            Kind::Apache => self.apache_infos(take),
            Kind::Kitex => self.kitex_infos(take),
        }
    }

    /// The header format of Apache Thrift's THeader: infos until one that is not known, or 0, which
    /// is padding, or the end.
    fn apache_infos(&mut self, take: &mut dyn FnMut(Entry<'b>)) -> Option<()> {
        while self.at < self.bytes.len() && self.varint()? == u32::from(INFO_PAIRS) {
            let begin = self.at;
            let count = self.varint().filter(|count| *count <= COUNT_MAX)?;
            take(Entry::Count(begin..self.at, count));
            for _ in 0..count {
                let (name_len, name) = (self.varint()?, self.at);
                let name = self.text(name, name_len as usize)?;
                let begin = self.at;
                let (value_len, value) = (self.varint()?, self.at);
                let value = self.text(value, value_len as usize)?;
                take(Entry::Pair(name, value, begin..self.at));
            }
        }
        Some(())
    }

    fn kitex_infos(&mut self, take: &mut dyn FnMut(Entry<'b>)) -> Option<()> {
        while self.at < self.bytes.len() {
            match self.byte()? {
                0 => {}
                INFO_PAIRS => {
                    let begin = self.at;
                    let count = self.u16()?;
                    take(Entry::Count(begin..self.at, u32::try_from(count).ok()?));
                    for _ in 0..count {
                        let name = self.text16()?;
                        let begin = self.at;
                        let value = self.text16()?;
                        take(Entry::Pair(name, value, begin..self.at));
                    }
                }
                0x10 => {
                    for _ in 0..self.u16()? {
                        self.u16()?;
                        self.text16()?;
                    }
                }
                0x11 => {
                    self.text16()?;
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<usize> {
        let word = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 2;
        Some(u16::from_be_bytes(*word).into())
    }

    fn text16(&mut self) -> Option<&'b [u8]> {
        let len = self.u16()?;
        self.text(self.at, len)
    }

    fn text(&mut self, begin: usize, len: usize) -> Option<&'b [u8]> {
        let text = self.bytes.get(begin..begin + len)?;
        self.at = begin + len;
        Some(text)
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u64;
        for place in 0..5 {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return u32::try_from(value).ok();
            }
        }
        None
    }
}
