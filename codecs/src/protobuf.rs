//! Fields of a message of Protocol Buffers, one after the other, for protocols whose heads are such
//! messages: <https://protobuf.dev/programming-guides/encoding/>.

use crate::codec::{Pair, Spot};

/// What a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number of any width, as its bits.
    Number(u64),
    /// Text, bytes, or a message of its own.
    Bytes(Spot),
}

impl Value {
    /// The number; 0 of what has none.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    /// The number of 32 bits with a sign, which is written with 64.
    pub(crate) fn int(self) -> i32 {
        let [low @ .., _, _, _, _] = self.number().to_le_bytes();
        i32::from_le_bytes(low)
    }

    /// Where the bytes are; nowhere of what has none.
    pub(crate) fn spot(self) -> Spot {
        match self {
            Self::Number(_) => Spot::default(),
            Self::Bytes(spot) => spot,
        }
    }
}

/// The fields between two places of a head, as far as they are there: each with its number.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
    end: usize,
    is_broken: bool,
}

impl<'b> Fields<'b> {
    /// Those of the message that has `len` bytes from `at` on, perhaps more than are there.
    pub(crate) fn new(bytes: &'b [u8], at: usize, len: usize) -> Self {
        Self { bytes, at, end: at.saturating_add(len), is_broken: false }
    }

    /// Those of the message that a field is.
    pub(crate) fn within(bytes: &'b [u8], value: Value) -> Self {
        let spot = value.spot();
        Self::new(bytes, spot.at as usize, spot.len as usize)
    }

    /// Whether what was read cannot be a message, however it went on.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// An unsigned number in groups of seven bits, the lowest first. None at the end of what is
    /// there, and of more groups than 64 bits need.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            if self.at >= self.end {
                // The message ends within a number.
                self.is_broken = true;
                return None;
            }
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        self.is_broken = true;
        None
    }

    fn fixed<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        self.is_broken |= self.at.saturating_add(LEN) > self.end;
        let taken = *self.bytes.get(self.at..)?.first_chunk().filter(|_| !self.is_broken)?;
        self.at += LEN;
        Some(taken)
    }

    fn text(&mut self) -> Option<Spot> {
        let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let end = self.at.saturating_add(len);
        if end > self.end {
            self.is_broken = true;
            return None;
        }
        self.bytes.get(self.at..end)?;
        let spot = Spot::new(self.at, len);
        self.at = end;
        Some(spot)
    }
}

impl Iterator for Fields<'_> {
    type Item = (u64, Value);

    /// The next field; None behind the last one that is there whole.
    fn next(&mut self) -> Option<(u64, Value)> {
        if self.is_broken || self.at >= self.end.min(self.bytes.len()) {
            return None;
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.fixed()?)),
            2 => Value::Bytes(self.text()?),
            5 => Value::Number(u32::from_le_bytes(self.fixed()?).into()),
            _ => {
                self.is_broken = true;
                return None;
            }
        };
        self.is_broken = key >> 3 == 0;
        (!self.is_broken).then_some((key >> 3, value))
    }
}

/// One entry of a map from text to text or bytes.
pub(crate) fn entry(bytes: &[u8], value: Value) -> Option<Pair<'_>> {
    let mut pair: Pair<'_> = (b"", b"");
    for (number, part) in Fields::within(bytes, value) {
        match number {
            1 => pair.0 = part.spot().of(bytes)?,
            2 => pair.1 = part.spot().of(bytes)?,
            _ => {}
        }
    }
    (!pair.0.is_empty()).then_some(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], len: usize) -> (Vec<(u64, Value)>, bool) {
        let mut fields = Fields::new(bytes, 0, len);
        let read = fields.by_ref().collect();
        (read, fields.is_broken())
    }

    #[test]
    fn every_kind_of_field() {
        let bytes = b"\x08\x96\x01\x12\x02ab\x1d\x01\0\0\0\x21\x02\0\0\0\0\0\0\0\xf8\x07\x05";
        let (fields, is_broken) = read(bytes, bytes.len());
        let spot = |at, len| Value::Bytes(Spot { at, len });
        let expected = [
            (1, Value::Number(150)),
            (2, spot(5, 2)),
            (3, Value::Number(1)),
            (4, Value::Number(2)),
            (127, Value::Number(5)),
        ];
        assert_eq!(fields, expected);
        assert!(!is_broken);
        assert_eq!(spot(5, 2).number(), 0);
        assert_eq!(Value::Number(1).spot(), Spot::default());
        let minus = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(read(minus, minus.len()).0[0].1.int(), -1);
    }

    /// What is cut is no fault of the message; what no message says is.
    #[test]
    fn cut_and_broken() {
        for (bytes, len, count, is_broken) in [
            (&b"\x08\x01\x12\x05ab"[..], 9, 1, false),
            (b"\x08\x01\x12\x05ab", 6, 1, true),
            (b"\x08\x01\x10\x80", 9, 1, false),
            (b"\x08\x01\x10\x80", 4, 1, true),
            (b"\x08\x01\x0b", 3, 1, true),
            (b"\x00\x01", 2, 0, true),
            (b"\x1d\x01\0\0", 4, 0, true),
            (b"\x1d\x01\0\0", 5, 0, false),
            (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 11, 0, true),
            (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, 0, true),
            (b"", 0, 0, false),
        ] {
            let (fields, broken) = read(bytes, len);
            assert_eq!((fields.len(), broken), (count, is_broken), "{bytes:?}");
        }
    }

    #[test]
    fn entries_of_maps() {
        let of = |bytes: &'static [u8]| entry(bytes, Value::Bytes(Spot::new(0, bytes.len())));
        assert_eq!(of(b"\x0a\x01k\x12\x02vv"), Some((&b"k"[..], &b"vv"[..])));
        assert_eq!(of(b"\x0a\x01k"), Some((&b"k"[..], &b""[..])));
        assert_eq!(of(b"\x12\x01v"), None);
        assert_eq!(of(b""), None);
    }
}
