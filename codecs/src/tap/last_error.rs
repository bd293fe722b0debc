//! What the answer that was told last says is wrong.

use crate::codec::ErrorText;

/// A connection has storage for it from its first error on: most never have one.
#[derive(Debug, Default)]
pub(super) struct LastError(Option<Box<ErrorText>>);

impl LastError {
    /// Nothing is wrong.
    #[inline]
    pub(super) fn clear(&mut self) {
        if let Some(text) = &mut self.0 {
            text.clear();
        }
    }

    /// This is.
    pub(super) fn set(&mut self, text: &[u8]) {
        **self.0.get_or_insert_default() = ErrorText::new(text);
    }

    /// The words.
    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |text| text.as_bytes())
    }

    /// A copy.
    pub(super) fn text(&self) -> ErrorText {
        self.0.as_deref().copied().unwrap_or_default()
    }
}
