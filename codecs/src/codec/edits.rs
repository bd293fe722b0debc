//! Edits to the bytes of a head, kept beside them.

use std::fmt;
use std::ops::Range;

/// Edits that one head can have.
pub const EDITS_MAX: usize = 24;

/// Bytes of new text that one head can get.
pub const TEXT_BYTES_MAX: usize = 2048;

/// A bounded list of edits over the original bytes of a head, of any protocol.
///
/// A head is never written anew: the edits cut its bytes, and their text goes between, so that
/// everything else keeps its bytes and its order. One list serves a whole shard:
/// [`clear`](Self::clear) it before each head. Nothing is allocated.
#[derive(Clone)]
pub struct Edits {
    edits: [Edit; EDITS_MAX],
    count: usize,
    text: [u8; TEXT_BYTES_MAX],
    text_len: usize,
}

/// Replaces `start..end` of the head by a range of the text.
#[derive(Clone, Copy, Debug, Default)]
struct Edit {
    start: usize,
    end: usize,
    text_start: usize,
    text_end: usize,
}

/// Why an edit was not taken; those before it are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// No room for another edit, or for its text.
    Full,
    /// An edit of these bytes is there already.
    Overlap,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no room for another edit of this head",
            Self::Overlap => "these bytes are edited already",
        })
    }
}

impl std::error::Error for EditError {}

/// A stretch of an edited head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the original head, and where in it they lie.
    Original(Range<usize>, &'a [u8]),
    /// Bytes of an edit.
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

/// The pieces of an edited head: what [`Edits::pieces`] gives.
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

/// Where the text of an edit is written.
#[derive(Debug)]
pub struct Text<'e> {
    room: &'e mut [u8; TEXT_BYTES_MAX],
    len: usize,
    is_full: bool,
}

impl Text<'_> {
    /// Adds these bytes; where there is no room for them the edit is not taken.
    pub fn put(&mut self, bytes: &[u8]) {
        match self.room.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.is_full = true,
        }
    }
}

impl Edits {
    /// None.
    pub const fn new() -> Self {
        const NO_EDIT: Edit = Edit { start: 0, end: 0, text_start: 0, text_end: 0 };
        Self { edits: [NO_EDIT; EDITS_MAX], count: 0, text: [0; TEXT_BYTES_MAX], text_len: 0 }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.count = 0;
        self.text_len = 0;
    }

    /// Whether the head stays as it came.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Replaces a range of the head by these bytes, in this order; an empty range puts them in
    /// between, behind what was put there before.
    ///
    /// # Errors
    /// [`EditError`], and then it is not done.
    pub fn replace(&mut self, range: Range<usize>, parts: &[&[u8]]) -> Result<(), EditError> {
        self.check_room(1, parts.iter().map(|part| part.len()).sum())?;
        if self.touches(&range) {
            return Err(EditError::Overlap);
        }
        self.push(range, parts);
        Ok(())
    }

    /// As [`replace`](Self::replace), by what `write` puts.
    ///
    /// # Errors
    /// [`EditError`], and then it is not done.
    pub fn replace_with(
        &mut self,
        range: Range<usize>,
        write: impl FnOnce(&mut Text<'_>),
    ) -> Result<(), EditError> {
        self.check_room(1, 0)?;
        if self.touches(&range) {
            return Err(EditError::Overlap);
        }
        let begin = self.text_len;
        let mut text = Text { room: &mut self.text, len: begin, is_full: false };
        write(&mut text);
        let Text { len, is_full, .. } = text;
        if is_full {
            return Err(EditError::Full);
        }
        self.text_len = len;
        self.insert(Edit { start: range.start, end: range.end, text_start: begin, text_end: len });
        Ok(())
    }

    /// The edited head as stretches of the original and of new text, in order; none is empty.
    pub fn pieces<'a>(&'a self, head: &'a [u8]) -> Pieces<'a> {
        Pieces { edits: &self.edits[..self.count], text: &self.text, head, at: 0, next: 0..0 }
    }

    /// Every edit in its order: the range of the head, and what comes in its place.
    pub fn all(&self) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        let edits = self.edits[..self.count].iter();
        edits.map(|edit| (edit.start..edit.end, &self.text[edit.text_start..edit.text_end]))
    }

    /// How many pieces there are at most.
    pub fn pieces_max(&self) -> usize {
        2 * self.count + 1
    }

    /// The length of the edited head, in bytes, for an original of this length.
    pub fn edited_len(&self, head_len: usize) -> usize {
        let removed: usize = self.edits[..self.count].iter().map(|e| e.end - e.start).sum();
        head_len - removed + self.text_len
    }

    /// Whether there is room for so many edits with so many bytes of text.
    pub(crate) fn check_room(&self, edits: usize, text: usize) -> Result<(), EditError> {
        let room = self.count + edits <= EDITS_MAX && self.text_len + text <= TEXT_BYTES_MAX;
        if room { Ok(()) } else { Err(EditError::Full) }
    }

    /// Whether bytes of the range are edited.
    pub(crate) fn touches(&self, range: &Range<usize>) -> bool {
        self.edits[..self.count].iter().any(|e| e.start < range.end && e.end > range.start)
    }

    /// Puts an edit in its place by offset, after others at the same offset. Room is checked.
    #[inline]
    pub(crate) fn push(&mut self, range: Range<usize>, parts: &[&[u8]]) {
        let text_start = self.text_len;
        for part in parts {
            self.text[self.text_len..self.text_len + part.len()].copy_from_slice(part);
            self.text_len += part.len();
        }
        let text_end = self.text_len;
        self.insert(Edit { start: range.start, end: range.end, text_start, text_end });
    }

    #[inline]
    fn insert(&mut self, edit: Edit) {
        self.edits[self.count] = edit;
        let edits = &mut self.edits[..self.count];
        self.count += 1;
        // Nearly all edits come in their order.
        if edits.last().is_some_and(|last| last.start > edit.start) {
            let place = edits.partition_point(|other| other.start <= edit.start);
            self.edits[place..self.count].rotate_right(1);
        }
    }
}

impl Default for Edits {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.edits[..self.count].iter().map(|e| {
            (e.start..e.end, self.text[e.text_start..e.text_end].escape_ascii().to_string())
        });
        f.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(edits: &Edits, head: &[u8]) -> Vec<u8> {
        let joined: Vec<u8> = edits.pieces(head).flat_map(|it| it.bytes().to_vec()).collect();
        assert_eq!(joined.len(), edits.edited_len(head.len()));
        assert!(edits.pieces(head).count() <= edits.pieces_max());
        joined
    }

    #[test]
    fn edits_come_out_in_their_order_whatever_theirs_was() {
        let mut edits = Edits::new();
        edits.replace(8..8, &[b"!"]).unwrap();
        edits.replace(0..1, &[b"J", b"j"]).unwrap();
        edits.replace(4..4, &[b"<"]).unwrap();
        edits.replace(4..5, &[]).unwrap();
        edits.replace(8..8, &[b"?"]).unwrap();
        assert_eq!(edits.replace(4..6, &[b"x"]), Err(EditError::Overlap));
        assert_eq!(edited(&edits, b"abcdefgh"), b"Jjbcd<fgh!?");
        edits.clear();
        assert_eq!(edited(&edits, b"abc"), b"abc");
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let mut edits = Edits::new();
        let long = [0; TEXT_BYTES_MAX];
        assert_eq!(edits.replace(0..0, &[&long, b"x"]), Err(EditError::Full));
        let written = edits.replace_with(0..0, |text| {
            text.put(&long);
            text.put(b"x");
        });
        assert_eq!(written, Err(EditError::Full));
        assert!(edits.is_empty());
        for place in 0..EDITS_MAX {
            edits.replace(place..place, &[b"x"]).unwrap();
        }
        assert_eq!(edits.replace(0..1, &[]), Err(EditError::Full));
        assert_eq!(edited(&edits, &[b'-'; EDITS_MAX]).len(), 2 * EDITS_MAX);
    }
}
