//! Properties of MQTT 5: <https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html#_Toc3901027>.

use super::{Varint, varint};
use crate::codec::{Pair, Spot};

/// A pair that users name.
const USER: u8 = 0x26;

/// Hands out the pairs that users name, as far as they are there.
pub(super) fn pairs<'b>(bytes: &'b [u8], spot: Spot, take: &mut dyn FnMut(Pair<'b>)) {
    let bytes = &bytes[..bytes.len().min(spot.end())];
    let mut at = spot.at as usize;
    while let Some(id) = bytes.get(at) {
        at += 1;
        let behind = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => Some(at + 1),
            0x13 | 0x21 | 0x22 | 0x23 => Some(at + 2),
            0x02 | 0x11 | 0x18 | 0x27 => Some(at + 4),
            0x0b => match varint(bytes, at) {
                Varint::Is(_, behind) => Some(behind),
                Varint::Partial | Varint::Bad => None,
            },
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                text(bytes, at).map(|(_, behind)| behind)
            }
            &USER => text(bytes, at).and_then(|(name, behind)| {
                let (value, behind) = text(bytes, behind)?;
                take((name, value));
                Some(behind)
            }),
            _ => None,
        };
        let Some(behind) = behind else { return };
        at = behind;
    }
}

/// The text at a place, and the place behind it.
fn text(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let len = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let behind = at + 2 + len;
    Some((bytes.get(at + 2..behind)?, behind))
}
