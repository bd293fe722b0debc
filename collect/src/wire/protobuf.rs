//! Fields of a protobuf message, as places in its bytes.

use super::Malformed;
use prost::encoding::{WireType, decode_key, decode_varint};

/// What a field has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field {
    /// A varint, or a number of 4 or 8 bytes.
    Number(u64),
    Piece(Piece),
}

/// A text, bytes or a message within.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Field {
    pub(super) fn piece(self) -> Result<Piece, Malformed> {
        if let Self::Piece(piece) = self { Ok(piece) } else { Err(Malformed) }
    }

    pub(super) fn number(self) -> Result<u64, Malformed> {
        if let Self::Number(number) = self { Ok(number) } else { Err(Malformed) }
    }
}

/// The fields that are left of a message.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    at: usize,
    until: usize,
}

impl Fields {
    pub(super) fn of(piece: Piece) -> Self {
        Self { at: piece.at, until: piece.at + piece.len }
    }

    /// The next field and its number, out of the bytes that the piece was of.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Option<(u32, Field)>, Malformed> {
        let all = bytes.get(self.at..self.until).ok_or(Malformed)?;
        if all.is_empty() {
            return Ok(None);
        }
        let mut rest = all;
        let (number, kind) = decode_key(&mut rest).map_err(|_| Malformed)?;
        let field = match kind {
            WireType::Varint => Field::Number(decode_varint(&mut rest).map_err(|_| Malformed)?),
            WireType::SixtyFourBit => {
                let (word, after) = rest.split_first_chunk().ok_or(Malformed)?;
                rest = after;
                Field::Number(u64::from_le_bytes(*word))
            }
            WireType::ThirtyTwoBit => {
                let (word, after) = rest.split_first_chunk().ok_or(Malformed)?;
                rest = after;
                Field::Number(u32::from_le_bytes(*word).into())
            }
            WireType::LengthDelimited => {
                let len = decode_varint(&mut rest).map_err(|_| Malformed)?;
                let len = usize::try_from(len).map_err(|_| Malformed)?;
                let at = self.until - rest.len();
                rest = rest.get(len..).ok_or(Malformed)?;
                Field::Piece(Piece { at, len })
            }
            // Groups are of a time before all of this.
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
        };
        self.at = self.until - rest.len();
        Ok(Some((number, field)))
    }
}
