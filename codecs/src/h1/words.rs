//! Looking for bytes, many at a time.

use crate::h1::scan::is_token_byte;
use crate::sys::{BLOCK, controls, not_graphic, unusual};

/// The first byte from here on that is marked, or the end. A NUL always is.
#[inline(always)]
fn skip(input: &[u8], from: usize, marks: impl Fn(&[u8; BLOCK]) -> u32) -> usize {
    let mut at = from;
    while let Some(block) = input.get(at..).and_then(|rest| rest.first_chunk()) {
        let marked = marks(block);
        if marked != 0 {
            return at + marked.trailing_zeros() as usize;
        }
        at += BLOCK;
    }
    skip_last(input, at, marks)
}

/// As [`skip`], with less than a block left.
#[cold]
#[inline(never)]
fn skip_last(input: &[u8], from: usize, marks: impl Fn(&[u8; BLOCK]) -> u32) -> usize {
    let rest = input.get(from..).unwrap_or_default();
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    from + (marks(&block).trailing_zeros() as usize).min(rest.len())
}

/// The first byte from here on that ends a target in ASCII.
#[inline(always)]
pub(crate) fn target_end(input: &[u8], from: usize) -> usize {
    skip(input, from, not_graphic)
}

/// The first byte from here on that is no part of a value: a control byte, but no tab.
#[inline(always)]
pub(crate) fn value_end(input: &[u8], from: usize) -> usize {
    let mut at = skip(input, from, controls);
    if input.get(at) == Some(&b'\t') {
        at = value_end_after_tab(input, at);
    }
    at
}

#[cold]
#[inline(never)]
fn value_end_after_tab(input: &[u8], tab: usize) -> usize {
    let mut at = tab;
    while input.get(at) == Some(&b'\t') {
        at = skip(input, at + 1, controls);
    }
    at
}

/// The length of the token at the beginning (RFC 9110 §5.6.2).
#[inline(always)]
pub(crate) fn token_len(input: &[u8]) -> usize {
    let Some(block) = input.first_chunk::<BLOCK>() else { return short_token(input) };
    let at = unusual(block).trailing_zeros() as usize;
    match block.get(at) {
        Some(b':' | b' ') => at,
        _ => longer_token(input, at.min(BLOCK)),
    }
}

/// The length of the token in less than a block.
#[inline(never)]
fn short_token(input: &[u8]) -> usize {
    match skip_last(input, 0, unusual) {
        len if len == input.len() => len,
        len => longer_token(input, len),
    }
}

/// The length of a token that has so many bytes at least.
#[cold]
#[inline(never)]
fn longer_token(input: &[u8], len: usize) -> usize {
    let rest = input[len..].iter().position(|&byte| !is_token_byte(byte));
    rest.map_or(input.len(), |rest| len + rest)
}

/// Whether two names are the same, whatever their case. They have the same length.
#[inline]
pub(crate) fn is_same_name(name: &[u8], wanted: &[u8]) -> bool {
    let mut at = 0;
    let (Some(last), Some(wanted_last)) = (name.last_chunk(), wanted.last_chunk()) else {
        return name.eq_ignore_ascii_case(wanted);
    };
    while let (Some(one), Some(two)) = (word_at(name, at), word_at(wanted, at)) {
        if !is_same(one, two) {
            return false;
        }
        at += 8;
    }
    // Some bytes of it for the second time, unless nothing is left.
    at == name.len() || is_same(u64::from_le_bytes(*last), u64::from_le_bytes(*wanted_last))
}

#[inline(always)]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether eight bytes are the same but for the case of letters.
#[inline(always)]
fn is_same(one: u64, two: u64) -> bool {
    let differs = one ^ two;
    if differs & !(0x20 * ONES) != 0 {
        return false;
    }
    // Where only that bit differs the byte has to be a letter.
    differs == 0 || (differs << 2) & !letter(one) == 0
}

#[inline(always)]
fn letter(word: u64) -> u64 {
    let small = word & LOW_BITS | 0x20 * ONES;
    (small + (0x80 - 0x61) * ONES) & !(small + (0x7f - 0x7a) * ONES) & !word & HIGH_BITS
}

/// Whether this can be the value of a field.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value_end(value, 0) == value.len()
}

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW_BITS: u64 = 0x7f * ONES;
const HIGH_BITS: u64 = 0x80 * ONES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_but_for_the_case_of_letters() {
        for byte in 0..=u8::MAX {
            for len in [1, 3, 8, 9, 20] {
                for place in 0..len {
                    let mut name = b"X-Request-Id-of-mine"[..len].to_vec();
                    name[place] = byte;
                    for other in [byte, byte ^ 0x20, byte ^ 0x80, byte.wrapping_add(1)] {
                        let mut wanted = name.to_ascii_lowercase();
                        wanted[place] = other;
                        let expected = name.eq_ignore_ascii_case(&wanted);
                        assert_eq!(is_same_name(&name, &wanted), expected, "{byte:#x} {other:#x}");
                    }
                }
            }
        }
        assert!(is_same_name(b"", b""));
    }

    #[test]
    fn tokens_and_values_of_every_byte_and_length() {
        for byte in 0..=u8::MAX {
            for len in 0..40 {
                let text = [&[b'a'; 40][..len], &[byte], b"bcdefghij"].concat();
                let ends = if is_token_byte(byte) { text.len() } else { len };
                assert_eq!(token_len(&text), ends, "{}", text.escape_ascii());
                let is_good = byte == b'\t' || (byte >= b' ' && byte != 127);
                assert_eq!(is_value(&text), is_good, "{}", text.escape_ascii());
            }
        }
        assert!(is_value(b"") && token_len(b"") == 0);
    }
}
