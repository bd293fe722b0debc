//! What is put into the fields of a request: literal fields that leave nothing in the table, at the
//! end of the block (RFC 7541 §6.2.2). One length is mended; all other bytes stay as they came.

use memchr::memchr;

use crate::h1::{HeadPatch, lower};
use crate::h2::connection::ServerSettings;
use crate::h2::frame::{FrameHead, HEAD_BYTES, flag, fragment, kind};
use crate::h2::section::Section;

/// Fields that can be taken out of one block.
const CUTS_MAX: usize = 8;

/// What became of the edits of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Fields that were to be changed and are in the table, so that they stay.
    pub kept: u32,
    /// The server would not take a list that long: the request stays as it came.
    pub is_too_long: bool,
}

/// Writes a request's frames to `out` with what the patch of its head says; `frames` are those
/// whose block was decoded into `section` last.
pub fn mend(
    frames: &[u8],
    section: &Section,
    patch: &HeadPatch,
    server: ServerSettings,
    out: &mut Vec<u8>,
) -> Mended {
    let begin = out.len();
    let mut mended = Mended::default();
    let Some(head) = FrameHead::read(frames).filter(|_| !patch.is_empty()) else {
        out.extend_from_slice(frames);
        return mended;
    };
    let is_one = head.has(flag::END_HEADERS);
    let Some((skip, fields)) = fragment(head, &frames[HEAD_BYTES..]).filter(|_| is_one) else {
        return mend_last(frames, section, patch, server, out);
    };
    out.extend_from_slice(&frames[..HEAD_BYTES + skip]);
    let mut cuts = [(0, 0); CUTS_MAX];
    let edits = Edits { section, patch, can_cut: true };
    let (count, list_bytes) = edits.cuts(&mut cuts, &mut mended);
    let mut at = 0;
    for (start, end) in &cuts[..count] {
        out.extend_from_slice(&fields[at..*start]);
        at = *end;
    }
    out.extend_from_slice(&fields[at..]);
    let added_at = out.len();
    let more = edits.write(out);
    if section.list_bytes().saturating_sub(list_bytes) + more > u64::from(server.list_bytes_max) {
        out.truncate(begin);
        out.extend_from_slice(frames);
        return Mended { is_too_long: true, ..Mended::default() };
    }
    let padding = &frames[HEAD_BYTES + skip + fields.len()..];
    let len = out.len() - begin - HEAD_BYTES + padding.len();
    if len <= server.frame_bytes_max as usize {
        out.extend_from_slice(padding);
        set_len(&mut out[begin..], len);
    } else {
        let added = out.split_off(added_at);
        out.extend_from_slice(padding);
        let len = out.len() - begin - HEAD_BYTES;
        set_len(&mut out[begin..], len);
        out[begin + 4] &= !flag::END_HEADERS;
        go_on(head.stream, &added, out);
    }
    mended
}

/// The same, of a block in several frames: nothing is taken out, and what is added is in a frame of
/// its own.
#[cold]
fn mend_last(
    frames: &[u8],
    section: &Section,
    patch: &HeadPatch,
    server: ServerSettings,
    out: &mut Vec<u8>,
) -> Mended {
    let mut mended = Mended::default();
    let edits = Edits { section, patch, can_cut: false };
    edits.cuts(&mut [(0, 0); CUTS_MAX], &mut mended);
    let mut added = Vec::new();
    let more = edits.write(&mut added);
    let begin = out.len();
    out.extend_from_slice(frames);
    if added.is_empty() {
        return mended;
    }
    if section.list_bytes() + more > u64::from(server.list_bytes_max) {
        return Mended { is_too_long: true, ..Mended::default() };
    }
    let (mut at, mut stream) = (begin, 0);
    while let Some(head) = FrameHead::read(&out[at..]) {
        if head.has(flag::END_HEADERS) {
            out[at + 4] &= !flag::END_HEADERS;
        }
        stream = head.stream;
        at += HEAD_BYTES + head.len as usize;
    }
    go_on(stream, &added, out);
    mended
}

/// Writes the last frame of a block. A patch is shorter than any frame may be.
fn go_on(stream: u32, fields: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0, 0, 0, kind::CONTINUATION, flag::END_HEADERS]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(fields);
    set_len(&mut out[begin..], fields.len());
}

/// Lengths have 24 bits, and no block is longer than the limit of a head.
fn set_len(frame: &mut [u8], len: usize) {
    let [_, bytes @ ..] = u32::try_from(len).unwrap_or(0).to_be_bytes();
    frame[..3].copy_from_slice(&bytes);
}

/// What a patch of the section's text means for its block.
struct Edits<'p> {
    section: &'p Section,
    patch: &'p HeadPatch,
    /// Fields can be taken out.
    can_cut: bool,
}

impl<'p> Edits<'p> {
    /// Places of the block that go, in order, and what they come to in the list of fields.
    fn cuts(&self, cuts: &mut [(usize, usize); CUTS_MAX], mended: &mut Mended) -> (usize, u64) {
        let (mut count, mut list_bytes) = (0, 0);
        for (range, _) in self.patch.edits() {
            if range.is_empty() {
                continue;
            }
            let cut = self.section.origin_of(range.start).filter(|(origin, _)| origin.is_loose);
            match cut.filter(|_| self.can_cut && count < CUTS_MAX) {
                Some((origin, name)) => {
                    cuts[count] = (origin.start as usize, origin.end as usize);
                    count += 1;
                    // Blank and line end are about what a field is counted beside its bytes.
                    list_bytes += (name.len() + range.len()) as u64;
                }
                None => mended.kept += 1,
            }
        }
        cuts[..count].sort_unstable();
        (count, list_bytes)
    }

    /// Writes the fields that are added, also in the place of those that go; returns what they come
    /// to in the list of fields.
    fn write(&self, out: &mut Vec<u8>) -> u64 {
        let mut list_bytes = 0;
        for (range, text) in self.patch.edits() {
            let field = match range.is_empty() {
                true => inserted(text),
                false => self.replaced(range.start, text),
            };
            if let Some((name, value)) = field {
                literal(name, value, out);
                list_bytes += (name.len() + value.len() + 32) as u64;
            }
        }
        list_bytes
    }

    /// A field with a new value: a blank and the value, where it does not only go.
    fn replaced<'t>(&self, at: usize, text: &'t [u8]) -> Option<(&'p [u8], &'t [u8])>
    where
        'p: 't,
    {
        let (origin, name) = self.section.origin_of(at)?;
        let (_, value) = text.split_first()?;
        (origin.is_loose && self.can_cut).then_some((name, value))
    }
}

/// Name and value of a line that is inserted.
fn inserted(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(b"\r\n")?;
    let colon = memchr(b':', line)?;
    Some((&line[..colon], line.get(colon + 2..)?))
}

/// Writes a field that no table takes in. Names are lower-case (RFC 9113 §8.2.1).
fn literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    number(name.len(), out);
    let at = out.len();
    out.extend_from_slice(name);
    lower(&mut out[at..]);
    number(value.len(), out);
    out.extend_from_slice(value);
}

/// Writes the length of a string that is not compressed (RFC 7541 §5.1).
fn number(len: usize, out: &mut Vec<u8>) {
    #[allow(clippy::cast_possible_truncation)]
    if len < 127 {
        out.push(len as u8);
        return;
    }
    out.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        #[allow(clippy::cast_possible_truncation)]
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(rest as u8);
}
