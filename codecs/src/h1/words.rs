//! Looking for bytes, many at a time.

use crate::h1::scan::is_token_byte;
use crate::sys::{BLOCK, controls, not_graphic, unusual};

/// The place of the first byte that is marked, or the length. A NUL always is.
#[inline(always)]
fn first(bytes: &[u8], marks: impl Fn(&[u8; BLOCK]) -> u32) -> usize {
    let mut rest = bytes;
    while let Some((block, tail)) = rest.split_first_chunk() {
        let marked = marks(block);
        if marked != 0 {
            return bytes.len() - rest.len() + marked.trailing_zeros() as usize;
        }
        rest = tail;
    }
    let Some(block) = bytes.last_chunk() else { return first_of_few(bytes, marks) };
    // The last bytes; those before them, which have been looked at, are shifted out.
    let marked = marks(block) >> (BLOCK - rest.len());
    bytes.len() - rest.len() + (marked.trailing_zeros() as usize).min(rest.len())
}

/// As [`first`], of less than a block.
#[cold]
#[inline(never)]
fn first_of_few(bytes: &[u8], marks: impl Fn(&[u8; BLOCK]) -> u32) -> usize {
    let mut block = [0; BLOCK];
    for (place, byte) in block.iter_mut().zip(bytes) {
        *place = *byte;
    }
    (marks(&block).trailing_zeros() as usize).min(bytes.len())
}

/// The length of a target in ASCII.
#[inline(always)]
pub(crate) fn target_len(bytes: &[u8]) -> usize {
    first(bytes, not_graphic)
}

/// The length of a value: up to a control byte that is no tab.
#[inline(always)]
pub(crate) fn value_len(bytes: &[u8]) -> usize {
    let len = first(bytes, controls);
    if bytes.get(len) == Some(&b'\t') { value_len_after_tab(bytes, len) } else { len }
}

#[cold]
#[inline(never)]
fn value_len_after_tab(bytes: &[u8], tab: usize) -> usize {
    let mut at = tab;
    while bytes.get(at) == Some(&b'\t') {
        at += 1 + first(&bytes[at + 1..], controls);
    }
    at
}

/// The length of the token at the beginning (RFC 9110 §5.6.2), and the byte behind it.
#[inline(always)]
pub(crate) fn token(bytes: &[u8]) -> Option<(usize, u8)> {
    let len = match bytes.first_chunk::<BLOCK>() {
        Some(block) => {
            let len = unusual(block).trailing_zeros() as usize;
            match block.get(len) {
                Some(behind @ (b':' | b' ')) => return Some((len, *behind)),
                _ => len.min(BLOCK),
            }
        }
        None => first_of_few(bytes, unusual),
    };
    longer_token(bytes, len)
}

/// As [`token`], which is known to have so many bytes at least.
#[cold]
#[inline(never)]
fn longer_token(bytes: &[u8], len: usize) -> Option<(usize, u8)> {
    let rest = &bytes[len..];
    let more = rest.iter().position(|&byte| !is_token_byte(byte))?;
    Some((len + more, rest[more]))
}

/// Whether all of it is a token.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    let few = if bytes.len() < BLOCK { first_of_few(bytes, unusual) } else { 0 };
    !bytes.is_empty() && bytes[few..].iter().all(|&byte| is_token_byte(byte))
}

/// Whether two names are the same, whatever their case. They have the same length.
#[inline]
pub(crate) fn is_same_name(name: &[u8], wanted: &[u8]) -> bool {
    let last = |bytes: &[u8]| Some(u64::from_le_bytes(*bytes.last_chunk()?));
    let short = |bytes: &[u8]| {
        let (first, last) = (bytes.first_chunk()?, bytes.last_chunk()?);
        Some(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)))
    };
    // Names that are not of whole words are ended by words that overlap.
    if let (Some(name_last), Some(wanted_last)) = (last(name), last(wanted)) {
        let words = name.as_chunks().0.iter().zip(wanted.as_chunks().0);
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        is_same(name_last, wanted_last) && words.into_iter().all(|(a, b)| is_same(word(a), word(b)))
    } else if let (Some(name), Some(wanted)) = (short(name), short(wanted)) {
        is_same(name, wanted)
    } else {
        name.eq_ignore_ascii_case(wanted)
    }
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
    let small = (word & LOW_BITS) | (0x20 * ONES);
    (small + (0x80 - 0x61) * ONES) & !(small + (0x7f - 0x7a) * ONES) & !word & HIGH_BITS
}

/// Makes the letters of a name small, by words where it has some.
#[inline]
pub(crate) fn lower(name: &mut [u8]) {
    let (words, rest) = name.as_chunks_mut();
    for word in words {
        let bits = u64::from_le_bytes(*word);
        *word = (bits | (letter(bits) >> 2)).to_le_bytes();
    }
    rest.make_ascii_lowercase();
}

/// Whether this can be the value of a field.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value_len(value) == value.len()
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
    fn letters_are_made_small_and_nothing_else_is() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for len in 0..all.len() {
            let mut name = all[len..].to_vec();
            lower(&mut name);
            assert_eq!(name, all[len..].to_ascii_lowercase());
        }
    }

    #[test]
    fn tokens_and_values_of_every_byte_and_length() {
        for byte in 0..=u8::MAX {
            for len in 0..40 {
                let text = [&[b'a'; 40][..len], &[byte], b"bcdefghij"].concat();
                let is_part = is_token_byte(byte);
                let behind = (!is_part).then_some((len, byte));
                assert_eq!(token(&text), behind, "{}", text.escape_ascii());
                assert_eq!(is_token(&text), is_part, "{}", text.escape_ascii());
                let is_good = byte == b'\t' || (byte >= b' ' && byte != 127);
                assert_eq!(is_value(&text), is_good, "{}", text.escape_ascii());
            }
        }
        assert!(is_value(b"") && !is_token(b"") && token(b"").is_none());
    }
}
