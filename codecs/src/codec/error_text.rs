//! A few words about what went wrong.

use std::fmt;

/// The longest text that is kept.
const BYTES_MAX: usize = 63;

/// What an answer says is wrong, for `error.type`: an error's prefix, an exception's class, the
/// name of a status. Kept in place, so that it costs no storage.
#[derive(Clone, Copy)]
pub struct ErrorText {
    len: u8,
    bytes: [u8; BYTES_MAX],
}

impl ErrorText {
    /// Nothing is wrong.
    pub const NONE: Self = Self { len: 0, bytes: [0; BYTES_MAX] };

    /// The beginning of `text`.
    pub fn new(text: &[u8]) -> Self {
        let mut kept = Self::NONE;
        let len = text.len().min(BYTES_MAX);
        kept.bytes[..len].copy_from_slice(&text[..len]);
        kept.len = u8::try_from(len).unwrap_or(0);
        kept
    }

    /// Forgets the text.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for ErrorText {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Debug for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}
