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

    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Writes a number with at least `width` digits, lower case.
    #[inline]
    pub(crate) fn push_hex(&mut self, value: u128, width: usize) {
        // The two halves.
        #[allow(clippy::cast_possible_truncation)]
        let (high, low) = ((value >> 64) as u64, value as u64);
        if high == 0 && width <= 16 {
            self.push_hex_u64(low, width);
        } else {
            self.push_hex_u64(high, width.saturating_sub(16));
            self.push_hex_u64(low, 16);
        }
    }

    /// As [`push_hex`](Self::push_hex), at most 16 digits.
    #[inline]
    pub(crate) fn push_hex_u64(&mut self, value: u64, width: usize) {
        if value == 0 && width <= 1 {
            return self.push(b'0');
        }
        let zeros = value.leading_zeros() as usize / 4;
        let leave_out = zeros.min(16 - width.max(1));
        let digits = hex(value << (4 * leave_out));
        let len = 16 - leave_out;
        let room = &mut self.bytes[self.len..];
        match room.first_chunk_mut() {
            // What is written too much is written over, or is not part of the text.
            Some(room) => *room = digits,
            None => room[..len].copy_from_slice(&digits[..len]),
        }
        self.len += len;
    }
}

/// All digits of a number, lower case.
pub(crate) fn hex(value: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    // The upper half, then the lower one.
    #[allow(clippy::cast_possible_truncation)]
    let halves = [(value >> 32) as u32, value as u32];
    for (place, half) in digits.chunks_exact_mut(8).zip(halves) {
        // A digit to each byte, then its letter: 0x30 onwards, and 0x27 more from ten on.
        let mut nibbles = u64::from(half);
        nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
        nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
        nibbles = (nibbles | nibbles << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        let text = nibbles + 0x3030_3030_3030_3030 + letters * 0x27;
        place.copy_from_slice(&text.to_be_bytes());
    }
    digits
}

/// Reads 1 to `digits_max` hexadecimal digits of either case.
pub(crate) fn parse_hex(text: &[u8], digits_max: usize) -> Option<u128> {
    if text.is_empty() || text.len() > digits_max.min(32) {
        return None;
    }
    let (high, low) = text.split_at(text.len().saturating_sub(16));
    let half = |text: &[u8]| {
        text.iter().try_fold(0_u64, |value, &byte| {
            let digit = VALUES[usize::from(byte)];
            (digit < 16).then_some(value << 4 | u64::from(digit))
        })
    };
    Some(u128::from(half(high)?) << 64 | u128::from(half(low)?))
}

/// What each byte is worth as a hexadecimal digit; 255 where it is none.
static VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut digit = 0;
    while digit < 16 {
        let lower = b"0123456789abcdef"[digit as usize];
        values[lower as usize] = digit;
        values[lower.to_ascii_uppercase() as usize] = digit;
        digit += 1;
    }
    values
};

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
            (1 << 64, 20, "00010000000000000000"),
            (0x0123_4567_89ab_cdef, 1, "123456789abcdef"),
            (0xfedc_ba98_7654_3210, 16, "fedcba9876543210"),
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
