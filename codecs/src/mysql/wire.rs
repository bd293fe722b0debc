//! The smallest parts of MySQL's wire: packet heads and numbers.

/// Bytes of a packet's head: its length in three, its place in the sequence.
pub(super) const HEAD: usize = 4;
/// A packet of this length is continued by the next one.
pub(super) const FULL: u32 = 0xff_ffff;

/// The head of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PacketHead {
    pub(super) len: u32,
    pub(super) sequence: u8,
}

impl PacketHead {
    /// The head that `bytes` begin with, when it is there.
    #[inline]
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, sequence] = *bytes.first_chunk::<HEAD>()?;
        Some(Self { len: u32::from_le_bytes([a, b, c, 0]), sequence })
    }

    #[inline]
    pub(super) fn is_full(self) -> bool {
        self.len == FULL
    }
}

/// Numbers and strings one behind the other; nothing at all behind the first that is cut short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Bytes<'b> {
    pub(super) fn new(bytes: &'b [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where it has come to.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn skip(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end);
        self.at = end;
        taken
    }

    /// A number of up to eight bytes, the lowest first.
    pub(super) fn number(&mut self, len: usize) -> Option<u64> {
        let mut padded = [0; 8];
        padded.get_mut(..len)?.copy_from_slice(self.take(len)?);
        Some(u64::from_le_bytes(padded))
    }

    /// A number that says how long it is.
    pub(super) fn counted(&mut self) -> Option<u64> {
        match self.number(1)? {
            small @ 0..=0xfa => Some(small),
            0xfc => self.number(2),
            0xfd => self.number(3),
            0xfe => self.number(8),
            _ => None,
        }
    }

    /// A string behind its length.
    pub(super) fn string(&mut self) -> Option<&'b [u8]> {
        let len = self.counted()?;
        self.take(crate::codec::size(len))
    }

    /// A string before a zero.
    pub(super) fn text(&mut self) -> Option<&'b [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let len = memchr::memchr(0, rest)?;
        self.at += len + 1;
        Some(&rest[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_strings() {
        let bytes = *b"\x05\x01\0\0\xfc\x10\x27\x03abc\0x\0\xfd\x01\0\x01";
        assert_eq!(PacketHead::of(&bytes), Some(PacketHead { len: 0x105, sequence: 0 }));
        assert_eq!(PacketHead::of(&bytes[..3]), None);
        let mut rest = Bytes::new(&bytes, 4);
        assert_eq!((rest.counted(), rest.string()), (Some(10_000), Some(&b"abc"[..])));
        assert_eq!((rest.text(), rest.text()), (Some(&b""[..]), Some(&b"x"[..])));
        assert_eq!((rest.counted(), rest.number(1), rest.at()), (Some(0x1_0001), None, 19));
        assert_eq!(Bytes::new(b"\xfb", 0).counted(), None);
        assert_eq!(Bytes::new(b"ab", 9).text(), None);
    }
}
