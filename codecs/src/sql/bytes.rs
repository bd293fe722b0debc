//! What single bytes of a text are.

/// The beginning of a tag.
pub(super) const TAG: u64 = 0xcbf2_9ce4_8422_2325;

pub(super) const fn mix(tag: u64, byte: u8) -> u64 {
    (tag ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

#[inline]
pub(super) fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Whether a word may go on with it.
#[inline]
pub(super) fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.') || byte >= 0x80
}
