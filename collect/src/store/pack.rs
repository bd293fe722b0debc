//! Numbers in as few bytes as they need.

/// Seven bits to a byte, the lowest first.
#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Small ones of either sign stay small.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, (number << 1 ^ number >> 63).cast_unsigned());
}

pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

pub(super) fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    let number = take(bytes)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

pub(super) fn take_piece<'b>(bytes: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
    let (piece, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(piece)
}

pub(super) fn take_8(bytes: &mut &[u8]) -> Option<[u8; 8]> {
    take_piece(bytes, 8)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut out = vec![];
        let numbers = [0, 1, -1, 63, -64, 64, 1 << 20, i64::MAX, i64::MIN];
        for number in numbers {
            put_signed(&mut out, number);
            put(&mut out, number.cast_unsigned());
        }
        let mut bytes = &out[..];
        for number in numbers {
            assert_eq!(take_signed(&mut bytes), Some(number));
            assert_eq!(take(&mut bytes), Some(number.cast_unsigned()));
        }
        assert_eq!(take(&mut bytes), None);
        assert_eq!(take(&mut &[0xff; 20][..]), None);
    }
}
