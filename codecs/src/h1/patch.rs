//! Edits to a head, kept beside the bytes they came in.

use std::fmt;
use std::ops::Range;

use crate::h1::fields::Fields;
use crate::h1::words::{is_token, is_value};

/// Edits that one head can have; a `set` of a name that comes n times needs n of them.
pub const EDITS_MAX: usize = 24;

/// Bytes of new text that one head can get, names, colons and line ends included.
pub const TEXT_BYTES_MAX: usize = 2048;

/// A bounded list of edits over the original bytes of a head.
///
/// A head is never written anew: the patch cuts the original bytes at the edits and puts its own
/// text between, so that everything else keeps its bytes, case and order. Lines are inserted
/// after the last field; a replaced field keeps its name as it came. One patch serves a whole
/// shard: [`clear`](Self::clear) it before each head. Nothing is allocated.
#[derive(Clone)]
pub struct HeadPatch {
    edits: [Edit; EDITS_MAX],
    edit_count: usize,
    text: [u8; TEXT_BYTES_MAX],
    text_len: usize,
}

/// Replaces `start..end` of the head by a range of the patch's text.
#[derive(Clone, Copy, Debug, Default)]
struct Edit {
    start: usize,
    end: usize,
    text_start: usize,
    text_end: usize,
}

/// A stretch of the patched head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the original head, and where in it they lie.
    Original(Range<usize>, &'a [u8]),
    /// Bytes of the patch.
    Text(&'a [u8]),
}

impl<'a> Piece<'a> {
    /// The bytes to send.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Original(_, bytes) | Self::Text(bytes) => bytes,
        }
    }
}

/// The pieces of a patched head: what [`HeadPatch::pieces`] gives.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    /// Edits whose original has not been reached.
    edits: &'a [Edit],
    text: &'a [u8],
    head: &'a [u8],
    /// Where in the head the next piece begins, once the text in between has gone.
    at: usize,
    /// Text that comes before it.
    next: Range<usize>,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    #[inline]
    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            if !self.next.is_empty() {
                let text = std::mem::take(&mut self.next);
                return Some(Piece::Text(&self.text[text]));
            }
            let from = self.at;
            let to = match self.edits.split_first() {
                Some((edit, rest)) => {
                    self.edits = rest;
                    self.at = edit.end;
                    self.next = edit.text_start..edit.text_end;
                    edit.start
                }
                None => {
                    self.at = self.head.len();
                    self.head.len()
                }
            };
            if from < to {
                return Some(Piece::Original(from..to, &self.head[from..to]));
            }
            if self.edits.is_empty() && self.next.is_empty() && self.at == self.head.len() {
                return None;
            }
        }
    }
}

/// Why an edit was not taken; the patch is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchError {
    /// The name is no token, or the value has a byte that no field value may have.
    BadText,
    /// No room for another edit, or for its text.
    Full,
    /// An edit of these bytes is there already.
    Overlap,
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadText => "not a header field",
            Self::Full => "no room for another edit of this head",
            Self::Overlap => "this field is edited already",
        })
    }
}

impl std::error::Error for PatchError {}

impl HeadPatch {
    /// A patch without edits.
    pub const fn new() -> Self {
        const NO_EDIT: Edit = Edit { start: 0, end: 0, text_start: 0, text_end: 0 };
        Self { edits: [NO_EDIT; EDITS_MAX], edit_count: 0, text: [0; TEXT_BYTES_MAX], text_len: 0 }
    }

    /// Forgets all edits.
    pub fn clear(&mut self) {
        self.edit_count = 0;
        self.text_len = 0;
    }

    /// Whether the head stays as it came.
    pub fn is_empty(&self) -> bool {
        self.edit_count == 0
    }

    /// Adds a line after the last field.
    ///
    /// # Errors
    /// [`PatchError::BadText`] and [`PatchError::Full`].
    pub fn insert(
        &mut self,
        fields: Fields<'_>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), PatchError> {
        check_field(name, value)?;
        self.insert_own(fields, name, value)
    }

    /// Gives the field this value: the first line of the name gets it, further lines of the name
    /// go, and where there is none a line is inserted.
    ///
    /// # Errors
    /// [`PatchError`], and then none of it is done.
    pub fn set(&mut self, fields: Fields<'_>, name: &[u8], value: &[u8]) -> Result<(), PatchError> {
        check_field(name, value)?;
        self.set_own(fields, name, value)
    }

    /// As [`set`](Self::set), of a name and a value that are netra's own, or have been checked when
    /// netra started: they are not looked at again.
    ///
    /// # Errors
    /// [`PatchError::Full`] and [`PatchError::Overlap`], and then none of it is done.
    pub fn set_own(
        &mut self,
        fields: Fields<'_>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), PatchError> {
        debug_assert_eq!(check_field(name, value), Ok(()));
        if !fields.has(name) {
            return self.insert_own(fields, name, value);
        }
        let count = fields.lines(name).count();
        self.check_room(count, value.len() + 1)?;
        if fields.lines(name).any(|field| self.touches(&field.line)) {
            return Err(PatchError::Overlap);
        }
        let mut lines = fields.lines(name);
        if let Some(first) = lines.next() {
            self.push(first.name_end + 1..first.line.end - 2, &[b" ", value]);
        }
        for further in lines {
            self.push(further.line, &[]);
        }
        Ok(())
    }

    fn insert_own(
        &mut self,
        fields: Fields<'_>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), PatchError> {
        self.check_room(1, name.len() + value.len() + 4)?;
        let at = fields.head().len() - 2;
        self.push(at..at, &[name, b": ", value, b"\r\n"]);
        Ok(())
    }

    /// The patched head as stretches of the original and of new text, in order; none is empty.
    pub fn pieces<'a>(&'a self, head: &'a [u8]) -> Pieces<'a> {
        Pieces { edits: &self.edits[..self.edit_count], text: &self.text, head, at: 0, next: 0..0 }
    }

    /// How many pieces there are at most.
    pub fn pieces_max(&self) -> usize {
        2 * self.edit_count + 1
    }

    /// The length of the patched head, in bytes, for an original of this length.
    pub fn patched_len(&self, head_len: usize) -> usize {
        let removed: usize = self.edits[..self.edit_count].iter().map(|e| e.end - e.start).sum();
        head_len - removed + self.text_len
    }

    /// Writes the patched head to the beginning of `out` and returns its length; None, and
    /// nothing is written, when it does not fit.
    pub fn write_to(&self, head: &[u8], out: &mut [u8]) -> Option<usize> {
        let len = self.patched_len(head.len());
        let out = out.get_mut(..len)?;
        let mut at = 0;
        let mut write = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        let mut from = 0;
        for edit in &self.edits[..self.edit_count] {
            write(&head[from..edit.start]);
            write(&self.text[edit.text_start..edit.text_end]);
            from = edit.end;
        }
        write(&head[from..]);
        Some(len)
    }

    fn check_room(&self, edits: usize, text: usize) -> Result<(), PatchError> {
        let room = self.edit_count + edits <= EDITS_MAX && self.text_len + text <= TEXT_BYTES_MAX;
        if room { Ok(()) } else { Err(PatchError::Full) }
    }

    fn touches(&self, line: &Range<usize>) -> bool {
        self.edits[..self.edit_count].iter().any(|e| e.start < line.end && e.end > line.start)
    }

    /// Puts an edit in its place by offset, after others at the same offset. Room is checked.
    #[inline]
    fn push(&mut self, range: Range<usize>, parts: &[&[u8]]) {
        let text_start = self.text_len;
        for part in parts {
            self.text[self.text_len..self.text_len + part.len()].copy_from_slice(part);
            self.text_len += part.len();
        }
        let edit = Edit { start: range.start, end: range.end, text_start, text_end: self.text_len };
        self.edits[self.edit_count] = edit;
        let edits = &mut self.edits[..self.edit_count];
        self.edit_count += 1;
        // Nearly all edits come in their order.
        if edits.last().is_some_and(|last| last.start > range.start) {
            let place = edits.partition_point(|edit| edit.start <= range.start);
            self.edits[place..self.edit_count].rotate_right(1);
        }
    }
}

impl Default for HeadPatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HeadPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edits = &self.edits[..self.edit_count];
        let shown = edits.iter().map(|e| {
            (e.start..e.end, self.text[e.text_start..e.text_end].escape_ascii().to_string())
        });
        f.debug_map().entries(shown).finish()
    }
}

/// Whether a line of this name and value can be put into a head (RFC 9110 §5.1 and §5.5): nothing
/// that could end a line gets in. Edits check it themselves; settings are checked at the start.
///
/// # Errors
/// [`PatchError::BadText`].
pub fn check_field(name: &[u8], value: &[u8]) -> Result<(), PatchError> {
    if is_token(name) && is_value(value) { Ok(()) } else { Err(PatchError::BadText) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::HeadReader;
    use crate::limits::Limits;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nb:  1 \r\nA: x\r\nB: 2\r\nc:\r\nB:3\r\n\r\n";

    fn patched(edit: impl Fn(&mut HeadPatch, Fields<'_>)) -> String {
        let mut reader = HeadReader::new(Limits::DEFAULT);
        let head = reader.request(HEAD).unwrap();
        let mut patch = HeadPatch::new();
        edit(&mut patch, head.fields());
        let pieces: Vec<_> = patch.pieces(HEAD).collect();
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes()).copied().collect();
        let mut written = vec![0; patch.patched_len(HEAD.len())];
        assert_eq!(patch.write_to(HEAD, &mut written), Some(joined.len()));
        assert_eq!(written, joined);
        assert_eq!(patch.write_to(HEAD, &mut vec![0; joined.len() - 1]), None);
        for piece in pieces {
            if let Piece::Original(range, bytes) = piece {
                assert_eq!(&HEAD[range], bytes);
            }
        }
        String::from_utf8(joined).unwrap()
    }

    #[test]
    fn edits_keep_every_other_byte() {
        let untouched = patched(|_, _| {});
        assert_eq!(untouched.as_bytes(), HEAD);
        let inserted = patched(|patch, fields| {
            patch.insert(fields, b"X", b"one").unwrap();
            patch.insert(fields, b"Y", b"two").unwrap();
        });
        assert_eq!(inserted, untouched.replace("B:3\r\n", "B:3\r\nX: one\r\nY: two\r\n"));
        let replaced = patched(|patch, fields| {
            patch.set(fields, b"C", b"z").unwrap();
            patch.set(fields, b"B", b"9").unwrap();
            patch.set(fields, b"New", b"").unwrap();
        });
        assert_eq!(replaced, "GET / HTTP/1.1\r\nb: 9\r\nA: x\r\nc: z\r\nNew: \r\n\r\n");
    }

    #[test]
    fn bad_text_is_refused() {
        patched(|patch, fields| {
            for (name, value) in [
                (&b""[..], &b"v"[..]),
                (b"a b", b"v"),
                (b"a:", b"v"),
                (b"a\r", b"v"),
                (b"a", b"v\r\nX: y"),
                (b"a", b"v\n"),
                (b"a", b"\0"),
                (b"a", b"\x7f"),
            ] {
                assert_eq!(patch.insert(fields, name, value), Err(PatchError::BadText));
            }
            assert_eq!(patch.set(fields, b"B", b"\r"), Err(PatchError::BadText));
            assert!(patch.is_empty());
        });
    }

    #[test]
    fn a_full_patch_stays_as_it_was() {
        patched(|patch, fields| {
            for _ in 0..EDITS_MAX - 2 {
                patch.insert(fields, b"X", b"y").unwrap();
            }
            let before = format!("{patch:?}");
            assert_eq!(patch.set(fields, b"b", b"9"), Err(PatchError::Full));
            assert_eq!(format!("{patch:?}"), before);
            patch.set(fields, b"a", b"9").unwrap();
            assert_eq!(patch.set(fields, b"a", b"8"), Err(PatchError::Overlap));
            patch.clear();
            let long = [b'v'; TEXT_BYTES_MAX];
            assert_eq!(patch.insert(fields, b"X", &long), Err(PatchError::Full));
            assert_eq!(patch.insert(fields, b"X", &long[5..]), Ok(()));
        });
    }
}
