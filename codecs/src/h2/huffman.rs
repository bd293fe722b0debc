//! The Huffman code of HPACK (RFC 7541, appendix B).
//!
//! It is canonical: codes of one length follow one another in the order of their symbols, so that
//! the lengths say all of it.

/// How many bits the code of each symbol has; the last is the end of the string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The longest code.
const LONGEST: u32 = 30;
/// Codes of so many bits and fewer are found by one look.
const LOOK_BITS: u32 = 9;
/// The end of the string, which no string may spell out.
const END: u16 = 256;

/// What is worked out of the lengths, when this is compiled.
struct Codes {
    /// By the next [`LOOK_BITS`] bits: symbol and length, 0 where the code is longer.
    look: [(u8, u8); 1 << LOOK_BITS],
    /// Of each length: one more than its last code, at the top of 32 bits.
    beyond: [u32; LONGEST as usize + 1],
    /// Of each length: its first code, and the place of that symbol in `order`.
    first: [(u32, u16); LONGEST as usize + 1],
    /// The symbols by length and value.
    order: [u16; 257],
}

static CODES: Codes = codes();

// Symbols have 8 bits but for the end, which no look finds, and lengths five.
#[allow(clippy::cast_possible_truncation)]
const fn codes() -> Codes {
    let mut codes = Codes {
        look: [(0, 0); 1 << LOOK_BITS],
        beyond: [0; LONGEST as usize + 1],
        first: [(0, 0); LONGEST as usize + 1],
        order: [0; 257],
    };
    let (mut code, mut place, mut len) = (0u32, 0u16, 1u32);
    while len <= LONGEST {
        code <<= 1;
        codes.first[len as usize] = (code, place);
        let mut symbol = 0u16;
        while symbol < 257 {
            if LENGTHS[symbol as usize] as u32 == len {
                if len <= LOOK_BITS {
                    let mut index = (code as usize) << (LOOK_BITS - len);
                    let end = (code as usize + 1) << (LOOK_BITS - len);
                    while index < end {
                        codes.look[index] = (symbol as u8, len as u8);
                        index += 1;
                    }
                }
                codes.order[place as usize] = symbol;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        // The longest code of all is followed by nothing: 2^30 at the top of 32 bits is 2^32.
        codes.beyond[len as usize] = if len == LONGEST { u32::MAX } else { code << (32 - len) };
        len += 1;
    }
    codes
}

/// Adds the string that `coded` spells to `out`; false where it spells none (RFC 7541 §5.2): padding
/// of other bits than ones, or of more than seven, or the end spelled out.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> bool {
    // No code is shorter than five bits.
    out.reserve(coded.len() * 8 / 5 + 1);
    let (mut bits, mut count) = (0u64, 0u32);
    let mut rest = coded;
    loop {
        if count < LONGEST {
            if let Some((word, after)) = rest.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*word)) << (32 - count);
                count += 32;
                rest = after;
            } else {
                while let Some((byte, after)) = rest.split_first() {
                    bits |= u64::from(*byte) << (56 - count);
                    count += 8;
                    rest = after;
                }
            }
        }
        let (symbol, len) = CODES.look[(bits >> (64 - LOOK_BITS)) as usize];
        let (symbol, len) = match len {
            0 => long(bits),
            len => (u16::from(symbol), u32::from(len)),
        };
        if len > count || symbol == END {
            // What is left is padding.
            return count < 8 && bits >> 56 == u64::from(!(0xffu8.checked_shr(count).unwrap_or(0)));
        }
        #[allow(clippy::cast_possible_truncation)]
        out.push(symbol as u8);
        bits <<= len;
        count -= len;
    }
}

/// The symbol and the length of a code that is longer than one look.
#[cold]
fn long(bits: u64) -> (u16, u32) {
    #[allow(clippy::cast_possible_truncation)]
    let top = (bits >> 32) as u32;
    let mut len = LOOK_BITS + 1;
    while len < LONGEST && top >= CODES.beyond[len as usize] {
        len += 1;
    }
    let (first, place) = CODES.first[len as usize];
    let code = top >> (32 - len);
    let symbol = CODES.order.get(usize::from(place) + (code - first) as usize);
    (symbol.copied().unwrap_or(END), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of a symbol, at the bottom.
    fn code(symbol: u16) -> (u32, usize) {
        let len = usize::from(LENGTHS[usize::from(symbol)]);
        let (first, place) = CODES.first[len];
        let at = CODES.order.iter().position(|it| *it == symbol).unwrap();
        (first + u32::try_from(at - usize::from(place)).unwrap(), len)
    }

    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let (code, len) = code(u16::from(*byte));
            bits += &format!("{code:0len$b}");
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
        (0..bits.len()).step_by(8).map(byte).collect()
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, &mut out).then_some(out)
    }

    #[test]
    fn every_string_comes_back() {
        for first in 0..=255 {
            for second in 0..=255 {
                let text = [first, second, b'a', first];
                assert_eq!(decoded(&encode(&text)).as_deref(), Some(&text[..]));
            }
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)), Some(all));
        assert_eq!(decoded(b""), Some(Vec::new()));
    }

    #[test]
    fn the_codes_are_those_of_appendix_b() {
        for (symbol, expected, len) in
            [(b'0', 0, 5), (b'a', 3, 5), (b'&', 0xf8, 8), (b'!', 0x3f8, 10), (b'\\', 0x7fff0, 19)]
        {
            assert_eq!(code(symbol.into()), (expected, len), "{symbol}");
        }
        assert_eq!((code(END), code(10)), ((0x3fff_ffff, 30), (0x3fff_fffc, 30)));
        let com = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&com).as_deref(), Some(&b"www.example.com"[..]));
    }

    #[test]
    fn what_spells_nothing_is_refused() {
        for bad in [
            // Eight bits of padding, padding of zeros, the end spelled out.
            &[0xff][..],
            &[0b0001_1000],
            &[0xff, 0xff, 0xff, 0xff],
            &[0x1f, 0xff],
            &[0xff, 0xff, 0xff, 0xfc],
        ] {
            assert_eq!(decoded(bad), None, "{bad:x?}");
        }
        assert_eq!(decoded(&[0x1f]).as_deref(), Some(&b"a"[..]));
    }
}
