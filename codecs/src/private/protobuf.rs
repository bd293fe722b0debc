//! Protocol Buffers, as far as a field is found by its path: the wire format of its encoding guide.

/// The value of the last field of a path, in a message; of a field that comes more than once, its
/// first. None when it is not there, is no text, or lies beyond the bytes.
pub(super) fn find<'b>(mut bytes: &'b [u8], path: &[u32]) -> Option<&'b [u8]> {
    for wanted in path {
        bytes = field(bytes, *wanted)?;
    }
    Some(bytes)
}

/// The field of this number, if its value says its length.
fn field(mut bytes: &[u8], wanted: u32) -> Option<&[u8]> {
    loop {
        let key = varint(&mut bytes)?;
        let number = key >> 3;
        let len = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            // Groups, which nobody writes any more, and what there is not.
            _ => return None,
        };
        let (value, rest) = bytes.split_at_checked(len)?;
        if number == u64::from(wanted) && key & 7 == 2 {
            return Some(value);
        }
        bytes = rest;
    }
}

/// A number of seven bits in each byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// From the encoding guide: field 3 holds a message whose field 1 is 150; field 2 is "testing".
    #[test]
    fn fields_are_found_by_their_path() {
        let message = b"\x08\x96\x01\x1a\x03\x08\x96\x01\x12\x07testing";
        assert_eq!(find(message, &[2]), Some(&b"testing"[..]));
        assert_eq!(find(message, &[3]), Some(&b"\x08\x96\x01"[..]));
        assert_eq!(find(message, &[1]), None, "a number");
        assert_eq!(find(message, &[3, 1]), None);
        assert_eq!(find(message, &[]), Some(&message[..]));
        let within = b"\x0a\x06\x12\x04\x0a\x02hi\x2d\0\0\0\0\x31\0\0\0\0\0\0\0\0\x3a\x01x";
        assert_eq!(find(within, &[1, 2, 1]), Some(&b"hi"[..]));
        assert_eq!(find(within, &[7]), Some(&b"x"[..]));
    }

    #[test]
    fn no_bytes_are_read_that_are_not_there() {
        let message = b"\x1a\x03\x08\x96\x01\x12\x07testing";
        for end in 0..message.len() {
            assert_eq!(find(&message[..end], &[2]), None, "{end}");
        }
        for odd in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..], b"\x0b", b"\x12\xff"] {
            assert_eq!(find(odd, &[2]), None);
        }
    }
}
