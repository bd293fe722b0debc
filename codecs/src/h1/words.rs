//! Looking for bytes, eight at a time.

use crate::h1::scan::is_token_byte;

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW_BITS: u64 = 0x7f * ONES;
const HIGH_BITS: u64 = 0x80 * ONES;

/// The first byte from here on that the mask marks, or the end. A mask sets the upper bit of the
/// bytes that it marks, 0 among them, and leaves all others 0.
#[inline(always)]
pub(crate) fn skip(input: &[u8], from: usize, mask: impl Fn(u64) -> u64) -> usize {
    let mut at = from;
    while let Some(word) = input.get(at..).and_then(|rest| rest.first_chunk()) {
        let marked = mask(u64::from_le_bytes(*word));
        if marked != 0 {
            return at + marked.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let left = input.len() - at;
    if left == 0 {
        return at;
    }
    let Some(word) = input.last_chunk() else {
        let marked = input[at..].iter().position(|&byte| mask(byte.into()) & 0x80 != 0);
        return at + marked.unwrap_or(left);
    };
    // The last bytes with those before them shifted out, and as many zeros behind.
    let marked = mask(u64::from_le_bytes(*word) >> (8 * (8 - left)));
    at + marked.trailing_zeros() as usize / 8
}

/// Control bytes, DEL among them: what no value of a field may have, but for tabs.
#[inline(always)]
pub(crate) fn control(word: u64) -> u64 {
    let low = word & LOW_BITS;
    // Sums stay within their bytes: at most 0x7f + 0x60.
    let (above_controls, del) = (low + 0x60 * ONES, low + ONES);
    (!above_controls | del) & !word & HIGH_BITS
}

/// Control bytes, blanks, and what is not ASCII.
#[inline(always)]
pub(crate) fn not_graphic(word: u64) -> u64 {
    let low = word & LOW_BITS;
    let (above_blank, del) = (low + 0x5f * ONES, low + ONES);
    (!above_blank | del | word) & HIGH_BITS
}

/// All but letters, digits and `-`, of which nearly all names consist.
#[inline(always)]
fn unusual(word: u64) -> u64 {
    let low = word & LOW_BITS;
    let small = low | 0x20 * ONES;
    let letter = (small + (0x80 - 0x61) * ONES) & !(small + (0x7f - 0x7a) * ONES);
    let digit = (low + (0x80 - 0x30) * ONES) & !(low + (0x7f - 0x39) * ONES);
    let not_dash = (low ^ 0x2d * ONES) + LOW_BITS;
    (!(letter | digit) & not_dash | word) & HIGH_BITS
}

/// The end of the token that begins here (RFC 9110 §5.6.2).
#[inline(always)]
pub(crate) fn token_end(input: &[u8], from: usize) -> usize {
    let mut at = skip(input, from, unusual);
    while input.get(at).is_some_and(|&byte| is_token_byte(byte)) {
        at = skip(input, at + 1, unusual);
    }
    at
}

/// Whether this can be the value of a field.
pub(crate) fn is_value(value: &[u8]) -> bool {
    let mut at = skip(value, 0, control);
    while value.get(at) == Some(&b'\t') {
        at = skip(value, at + 1, control);
    }
    at == value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_mark_what_they_say() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut word = [b'a'; 8];
                word[place] = byte;
                let expected = |is: bool| if is { 0x80_u64 << (place * 8) } else { 0 };
                let word = u64::from_le_bytes(word);
                let is_control = byte < b' ' || byte == 127;
                assert_eq!(control(word), expected(is_control), "{byte:#x}");
                let is_outside = is_control || byte == b' ' || byte >= 0x80;
                assert_eq!(not_graphic(word), expected(is_outside), "{byte:#x}");
                let is_usual = byte.is_ascii_alphanumeric() || byte == b'-';
                assert_eq!(unusual(word), expected(!is_usual), "{byte:#x}");
            }
        }
    }

    #[test]
    fn tokens_and_values_of_every_byte_and_length() {
        for byte in 0..=u8::MAX {
            for len in 0..20 {
                let text = [&[b'a'; 20][..len], &[byte], b"bcdefghij"].concat();
                let ends = if is_token_byte(byte) { text.len() } else { len };
                assert_eq!(token_end(&text, 0), ends, "{}", text.escape_ascii());
                assert_eq!(token_end(&text, len), ends, "{}", text.escape_ascii());
                let is_good = byte == b'\t' || (byte >= b' ' && byte != 127);
                assert_eq!(is_value(&text), is_good, "{}", text.escape_ascii());
            }
        }
        assert!(is_value(b"") && token_end(b"", 0) == 0);
    }
}
