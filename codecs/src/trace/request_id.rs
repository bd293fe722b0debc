//! Request ids that netra makes up where a request has none.

use crate::trace::text::hex;

/// A version 4 UUID as text (RFC 9562 §5.4): 36 bytes, lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 36]);

impl RequestId {
    /// Writes the id of these random bits; six of them give way to version and variant.
    pub fn from_random(bits: u128) -> Self {
        let version = bits & !(0xf << 76) | (0x4 << 76);
        let bits = version & !(0x3 << 62) | (0x2 << 62);
        let mut text = [b'-'; 36];
        // The two halves.
        #[allow(clippy::cast_possible_truncation)]
        let (high, low) = (hex((bits >> 64) as u64), hex(bits as u64));
        text[..8].copy_from_slice(&high[..8]);
        text[9..13].copy_from_slice(&high[8..12]);
        text[14..18].copy_from_slice(&high[12..]);
        text[19..23].copy_from_slice(&low[..4]);
        text[24..].copy_from_slice(&low[4..]);
        Self(text)
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8; 36] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_variant_are_in_place() {
        for (bits, text) in [
            (0, "00000000-0000-4000-8000-000000000000"),
            (u128::MAX, "ffffffff-ffff-4fff-bfff-ffffffffffff"),
            (0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, "01234567-89ab-4def-8123-456789abcdef"),
        ] {
            assert_eq!(RequestId::from_random(bits).as_bytes(), text.as_bytes());
        }
    }
}
