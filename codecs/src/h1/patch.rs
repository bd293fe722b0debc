//! Edits to a head: lines that are set and lines that are put in.

use std::fmt;
use std::ops::Range;

use crate::codec::{EditError, Edits};
use crate::h1::fields::Fields;
use crate::h1::words::{is_token, is_value};

pub use crate::codec::{EDITS_MAX, Piece, Pieces, TEXT_BYTES_MAX};

/// The [`Edits`] of an HTTP/1 head; a `set` of a name that comes n times needs n of them.
///
/// Lines are inserted after the last field; a replaced field keeps its name as it came. One patch
/// serves a whole shard: [`clear`](Self::clear) it before each head. Nothing is allocated.
#[derive(Clone)]
pub struct HeadPatch {
    edits: Edits,
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

impl From<EditError> for PatchError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Full => Self::Full,
            EditError::Overlap => Self::Overlap,
        }
    }
}

impl HeadPatch {
    /// A patch without edits.
    pub const fn new() -> Self {
        Self { edits: Edits::new() }
    }

    /// Forgets all edits.
    pub fn clear(&mut self) {
        self.edits.clear();
    }

    /// Whether the head stays as it came.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
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
        self.edits.check_room(count, value.len() + 1)?;
        if fields.lines(name).any(|field| self.edits.touches(&field.line)) {
            return Err(PatchError::Overlap);
        }
        let mut lines = fields.lines(name);
        if let Some(first) = lines.next() {
            self.edits.push(first.name_end + 1..first.line.end - 2, &[b" ", value]);
        }
        for further in lines {
            self.edits.push(further.line, &[]);
        }
        Ok(())
    }

    /// Takes the lines of this name out, if there are any.
    ///
    /// # Errors
    /// [`PatchError::Full`] and [`PatchError::Overlap`], and then none of it is done.
    pub fn remove(&mut self, fields: Fields<'_>, name: &[u8]) -> Result<(), PatchError> {
        self.edits.check_room(fields.lines(name).count(), 0)?;
        if fields.lines(name).any(|field| self.edits.touches(&field.line)) {
            return Err(PatchError::Overlap);
        }
        fields.lines(name).for_each(|field| self.edits.push(field.line, &[]));
        Ok(())
    }

    fn insert_own(
        &mut self,
        fields: Fields<'_>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), PatchError> {
        self.edits.check_room(1, name.len() + value.len() + 4)?;
        let at = fields.head().len() - 2;
        self.edits.push(at..at, &[name, b": ", value, b"\r\n"]);
        Ok(())
    }

    /// The patched head as stretches of the original and of new text, in order; none is empty.
    pub fn pieces<'a>(&'a self, head: &'a [u8]) -> Pieces<'a> {
        self.edits.pieces(head)
    }

    /// The edits, for whoever sends heads of any protocol.
    pub fn as_edits(&self) -> &Edits {
        &self.edits
    }

    /// Each edit: what of the head it takes the place of, and its text.
    pub fn edits(&self) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        self.edits.all()
    }

    /// How many pieces there are at most.
    pub fn pieces_max(&self) -> usize {
        self.edits.pieces_max()
    }

    /// The length of the patched head, in bytes, for an original of this length.
    pub fn patched_len(&self, head_len: usize) -> usize {
        self.edits.edited_len(head_len)
    }
}

impl Default for HeadPatch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HeadPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.edits.fmt(f)
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
        assert_eq!(patch.patched_len(HEAD.len()), joined.len());
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
        let removed = patched(|patch, fields| {
            patch.remove(fields, b"B").unwrap();
            patch.remove(fields, b"none").unwrap();
            assert_eq!(patch.remove(fields, b"b"), Err(PatchError::Overlap));
            assert_eq!(patch.set(fields, b"b", b"1"), Err(PatchError::Overlap));
        });
        assert_eq!(removed, "GET / HTTP/1.1\r\nA: x\r\nc:\r\n\r\n");
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
