//! Small texts on the stack, and hexadecimal numbers in and out.

/// Text of at most `N` bytes. Its writers know their bounds: a test writes the longest of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Writes a number with at least `width` digits, lower case.
    pub(crate) fn push_hex(&mut self, value: u128, width: usize) {
        let digits = (128 - value.leading_zeros() as usize).div_ceil(4).max(width).max(1);
        for place in (0..digits).rev() {
            let nibble = (value >> (place * 4)) & 0xf;
            self.push(HEX[nibble as usize]);
        }
    }
}

pub(crate) const HEX: &[u8; 16] = b"0123456789abcdef";

/// Reads 1 to `digits_max` hexadecimal digits of either case.
pub(crate) fn parse_hex(text: &[u8], digits_max: usize) -> Option<u128> {
    if text.is_empty() || text.len() > digits_max.min(32) {
        return None;
    }
    text.iter().try_fold(0_u128, |value, &byte| {
        let digit = (byte as char).to_digit(16)?;
        Some(value << 4 | u128::from(digit))
    })
}

/// As [`parse_hex`], for at most 64 bits.
pub(crate) fn parse_hex_u64(text: &[u8], digits_max: usize) -> Option<u64> {
    u64::try_from(parse_hex(text, digits_max.min(16))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_out_and_in() {
        for (value, width, shown) in [
            (0, 1, "0"),
            (0, 4, "0000"),
            (0xabc, 1, "abc"),
            (0xabc, 16, "0000000000000abc"),
            (u128::MAX, 1, "ffffffffffffffffffffffffffffffff"),
            (1 << 64, 1, "10000000000000000"),
        ] {
            let mut text = Text::<32>::new();
            text.push_hex(value, width);
            assert_eq!(text.as_bytes(), shown.as_bytes());
            assert_eq!(parse_hex(shown.as_bytes(), 32), Some(value));
            assert_eq!(parse_hex(shown.to_uppercase().as_bytes(), 32), Some(value));
        }
        for bad in ["", "g", "+1", "-1", " 1", "1 ", "0x1"] {
            assert_eq!(parse_hex(bad.as_bytes(), 32), None, "{bad:?}");
        }
        assert_eq!(parse_hex(&[b'1'; 33], 40), None);
        assert_eq!(parse_hex_u64(b"ffffffffffffffff", 16), Some(u64::MAX));
        assert_eq!(parse_hex_u64(b"0ffffffffffffffff", 20), None);
    }
}
