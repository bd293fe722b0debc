//! The door to unsafe code: looking at sixteen bytes at once, and text that is known to be some.
//!
//! Each of the first three functions says which bytes of a block it marks, as a bit for each, the first byte's lowest.
//! On x86-64 a block is one register; elsewhere it is two words, by the very same rules, which the
//! tests hold against each other and against the plain words.

/// Bytes that are looked at together.
pub(crate) const BLOCK: usize = 16;

/// Marks control bytes, DEL among them: what no value of a field may have, but for tabs.
#[inline(always)]
pub(crate) fn controls(block: &[u8; BLOCK]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return x86::controls(block);
    #[cfg(not(target_arch = "x86_64"))]
    return words::controls(block);
}

/// Marks control bytes, blanks, and what is not ASCII.
#[inline(always)]
pub(crate) fn not_graphic(block: &[u8; BLOCK]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return x86::not_graphic(block);
    #[cfg(not(target_arch = "x86_64"))]
    return words::not_graphic(block);
}

/// Marks all but letters, digits and `-`, of which nearly all names consist.
#[inline(always)]
pub(crate) fn unusual(block: &[u8; BLOCK]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    return x86::unusual(block);
    #[cfg(not(target_arch = "x86_64"))]
    return words::unusual(block);
}

/// The text that these bytes are, if they are ASCII, as nearly all texts of protocols: looked at
/// sixteen by sixteen, where `str::from_utf8` would look at most short ones byte by byte.
#[inline]
pub fn ascii(bytes: &[u8]) -> Option<&str> {
    const HIGH_BITS: u128 = u128::from_ne_bytes([0x80; BLOCK]);
    let pair = |low: &[u8; 8], high: &[u8; 8]| u64::from_ne_bytes(*low) | u64::from_ne_bytes(*high);
    let mut all = 0;
    if let Some(last) = bytes.last_chunk::<BLOCK>() {
        all = u128::from_ne_bytes(*last);
        for block in bytes.as_chunks::<BLOCK>().0 {
            all |= u128::from_ne_bytes(*block);
        }
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        all = pair(first, last).into();
    } else {
        for &byte in bytes {
            all |= u128::from(byte);
        }
    }
    // SAFETY: every byte has gone into `all`, and none has its upper bit: ASCII is UTF-8.
    (all & HIGH_BITS == 0).then(|| unsafe { str::from_utf8_unchecked(bytes) })
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::BLOCK;
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_loadu_si128, _mm_min_epu8,
        _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };

    /// The bytes of a block in a register.
    #[inline(always)]
    fn load(block: &[u8; BLOCK]) -> __m128i {
        // SAFETY: SSE2 is part of every x86-64 processor. The load reads the 16 bytes of the array,
        // wherever they begin.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    /// The upper bits of the bytes, sixteen of them.
    #[inline(always)]
    fn bits(marked: __m128i) -> u32 {
        // SAFETY: SSE2 is part of every x86-64 processor; registers alone are touched.
        unsafe { _mm_movemask_epi8(marked) }.cast_unsigned()
    }

    #[inline(always)]
    pub(super) fn controls(block: &[u8; BLOCK]) -> u32 {
        let bytes = load(block);
        // SAFETY: SSE2 is part of every x86-64 processor; registers alone are touched.
        let marked = unsafe {
            let below_blank = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            _mm_or_si128(below_blank, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f)))
        };
        bits(marked)
    }

    #[inline(always)]
    pub(super) fn not_graphic(block: &[u8; BLOCK]) -> u32 {
        let bytes = load(block);
        // SAFETY: SSE2 is part of every x86-64 processor; registers alone are touched.
        let marked = unsafe {
            // As signed numbers, which those are below 0 that are not ASCII.
            let to_blank = _mm_cmpgt_epi8(_mm_set1_epi8(0x21), bytes);
            _mm_or_si128(to_blank, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f)))
        };
        bits(marked)
    }

    #[inline(always)]
    pub(super) fn unusual(block: &[u8; BLOCK]) -> u32 {
        let bytes = load(block);
        // SAFETY: SSE2 is part of every x86-64 processor; registers alone are touched.
        let usual = unsafe {
            let between = |bytes, below: i8, above: i8| {
                let from = _mm_cmpgt_epi8(bytes, _mm_set1_epi8(below));
                _mm_and_si128(from, _mm_cmpgt_epi8(_mm_set1_epi8(above), bytes))
            };
            let letter = between(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), 0x60, 0x7b);
            let digit = between(bytes, 0x2f, 0x3a);
            let dash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x2d));
            _mm_or_si128(_mm_or_si128(letter, digit), dash)
        };
        !bits(usual) & 0xffff
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod words {
    use super::BLOCK;

    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW_BITS: u64 = 0x7f * ONES;
    const HIGH_BITS: u64 = 0x80 * ONES;

    /// The upper bits of the bytes of both words.
    fn bits(block: &[u8; BLOCK], mask: impl Fn(u64) -> u64) -> u32 {
        let word = |at: usize| {
            let bytes = std::array::from_fn(|place| block[at + place]);
            let marked = (mask(u64::from_le_bytes(bytes)) & HIGH_BITS) >> 7;
            // Brings the bit of each byte to its place in the uppermost byte.
            (marked.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
        };
        word(0) | word(8) << 8
    }

    pub(super) fn controls(block: &[u8; BLOCK]) -> u32 {
        bits(block, |word| {
            let low = word & LOW_BITS;
            // Sums stay within their bytes: at most 0x7f + 0x60.
            let (above_controls, del) = (low + 0x60 * ONES, low + ONES);
            (!above_controls | del) & !word
        })
    }

    pub(super) fn not_graphic(block: &[u8; BLOCK]) -> u32 {
        bits(block, |word| {
            let low = word & LOW_BITS;
            let (above_blank, del) = (low + 0x5f * ONES, low + ONES);
            !above_blank | del | word
        })
    }

    pub(super) fn unusual(block: &[u8; BLOCK]) -> u32 {
        bits(block, |word| {
            let low = word & LOW_BITS;
            let small = low | (0x20 * ONES);
            let letter = (small + (0x80 - 0x61) * ONES) & !(small + (0x7f - 0x7a) * ONES);
            let digit = (low + (0x80 - 0x30) * ONES) & !(low + (0x7f - 0x39) * ONES);
            let not_dash = (low ^ (0x2d * ONES)) + LOW_BITS;
            !(letter | digit) & not_dash | word
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_ascii_wherever_a_byte_stands() {
        for len in 0..70_u8 {
            let mut bytes: Vec<u8> = (0..len).collect();
            assert_eq!(ascii(&bytes), Some(str::from_utf8(&bytes).unwrap()));
            for place in 0..len {
                let was = std::mem::replace(&mut bytes[usize::from(place)], 0x80 | place);
                assert_eq!(ascii(&bytes), None, "{place} of {len}");
                bytes[usize::from(place)] = was;
            }
        }
    }

    #[test]
    fn blocks_mark_what_they_say() {
        for byte in 0..=u8::MAX {
            let is_control = byte < b' ' || byte == 127;
            let is_outside = is_control || byte == b' ' || byte >= 0x80;
            let is_unusual = !(byte.is_ascii_alphanumeric() || byte == b'-');
            for place in 0..BLOCK {
                let mut block = *b"abcXYZ-019abcdef";
                block[place] = byte;
                let expected = |is: bool| u32::from(is) << place;
                assert_eq!(controls(&block), expected(is_control), "{byte:#x}");
                assert_eq!(words::controls(&block), expected(is_control), "{byte:#x}");
                assert_eq!(not_graphic(&block), expected(is_outside), "{byte:#x}");
                assert_eq!(words::not_graphic(&block), expected(is_outside), "{byte:#x}");
                assert_eq!(unusual(&block), expected(is_unusual), "{byte:#x}");
                assert_eq!(words::unusual(&block), expected(is_unusual), "{byte:#x}");
            }
        }
    }
}
