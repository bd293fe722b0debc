//! The beginning of a message that came in pieces.

use crate::limits::Limits;

/// Bytes of a head until it is known, of one way. Without storage while heads come in one piece.
#[derive(Debug, Default)]
pub struct Held {
    bytes: Vec<u8>,
    /// The head was told: its bytes are in use until the next event.
    spent: bool,
    /// Bytes behind that head: the next one begins with them.
    behind: u8,
}

/// How much of a line is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All; so many bytes of the input belong to it.
    Whole(usize),
    /// Not all, and all of the input.
    Partial,
    /// More than may be.
    TooLong,
}

impl Held {
    /// Forgets a head that was told, and gives back storage beyond what is to be kept.
    #[inline]
    pub fn begin(&mut self, limits: &Limits) {
        if self.spent {
            self.spent = false;
            if self.behind > 0 {
                return self.begin_behind();
            }
            self.bytes.clear();
            if self.bytes.capacity() > limits.held_keep_bytes as usize {
                self.bytes = Vec::new();
            }
        }
    }

    #[cold]
    fn begin_behind(&mut self) {
        let behind = self.bytes.len() - usize::from(std::mem::take(&mut self.behind));
        self.bytes.drain(..behind);
    }

    /// Whether nothing is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds from `input` until `wanted` bytes are held; returns how many were added.
    pub fn fill(&mut self, input: &[u8], wanted: usize) -> usize {
        let count = wanted.saturating_sub(self.bytes.len()).min(input.len());
        self.bytes.extend_from_slice(&input[..count]);
        count
    }

    /// Adds from `input` to the end of the line that is held, as far as it is there and no longer
    /// than heads may be.
    pub(super) fn fill_line(&mut self, input: &[u8], limits: &Limits) -> Line {
        let room = (limits.message_head_bytes_max as usize).saturating_sub(self.bytes.len());
        let input = &input[..input.len().min(room)];
        let end = memchr::memchr(b'\n', input);
        let count = end.map_or(input.len(), |at| at + 1);
        self.bytes.extend_from_slice(&input[..count]);
        match end {
            Some(_) => Line::Whole(count),
            None if count == room => Line::TooLong,
            None => Line::Partial,
        }
    }

    /// Adds all of these bytes.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets the bytes.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The bytes; of a head that was told, its own.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - usize::from(self.behind)]
    }

    /// The head is known: its `len` bytes stay until the next event.
    pub fn spend(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.spent = true;
    }

    /// The same, where it took more bytes to know that the head has no more: those, 255 at most, begin
    /// the next one. Returns how many they are.
    pub fn spend_before(&mut self, len: usize) -> u8 {
        self.behind = u8::try_from(self.bytes.len().saturating_sub(len)).unwrap_or(0);
        self.spent = true;
        self.behind
    }

    /// Bytes that are held for a head that is not known yet.
    pub fn len(&self) -> usize {
        if self.spent { self.behind.into() } else { self.bytes.len() }
    }

    /// Gives storage back when nothing is kept.
    pub fn release_memory(&mut self) {
        let kept = self.len();
        if kept == 0 {
            *self = Self::default();
        }
    }
}
