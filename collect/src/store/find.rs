//! Looking for a tag in packed items, without unpacking them.

use super::block::{Block, EVENT, FALSE, FLOAT, INT, LINK, Row, TEXT, TEXT_HERE, TRUE};
use super::pack::{take, take_8, take_piece, take_signed};

/// A tag that is looked for, in the numbers of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct TagWanted<'q> {
    key: u64,
    value: &'q str,
    /// The value's number, if the block has it among its texts.
    shared: Option<u64>,
    int: Option<i64>,
    float: Option<f64>,
    boolean: Option<bool>,
}

impl<'q> TagWanted<'q> {
    /// A key by its number, and the value as it is shown.
    pub(super) fn of(block: &Block, key: u32, value: &'q str) -> Self {
        Self {
            key: key.into(),
            value,
            shared: block.find_text(value).map(u64::from),
            int: value.parse().ok(),
            float: value.parse().ok(),
            boolean: value.parse().ok(),
        }
    }
}

impl Block {
    /// Whether a value can be here at all: a text that is neither among those of the block nor
    /// anywhere in its items is not.
    pub(super) fn may_have(&self, tag: &TagWanted<'_>) -> bool {
        let is_number = tag.int.is_some() || tag.float.is_some() || tag.boolean.is_some();
        is_number
            || tag.shared.is_some()
            || memchr::memmem::find(&self.items, tag.value.as_bytes()).is_some()
    }

    /// Whether a span or its process has a tag.
    pub(super) fn has_tag(&self, row: &Row, tag: &TagWanted<'_>) -> bool {
        self.is_at(row.items, tag) == Some(true)
            || self.process(row).is_some_and(|own| self.is_at(own.items, tag) == Some(true))
    }

    /// None where the items end before they should.
    fn is_at(&self, at: u32, tag: &TagWanted<'_>) -> Option<bool> {
        let mut bytes = self.items.get(at as usize..)?;
        let count = take(&mut bytes)?;
        for _ in 0..count {
            let begin = take(&mut bytes)?;
            let is_key = begin >> 3 == tag.key;
            let is_value = match begin & 7 {
                TEXT => Some(take(&mut bytes)?) == tag.shared,
                TEXT_HERE => {
                    let len = usize::try_from(take(&mut bytes)?).ok()?;
                    let text = take_piece(&mut bytes, len)?;
                    is_key && text == tag.value.as_bytes()
                }
                INT => Some(take_signed(&mut bytes)?) == tag.int,
                FLOAT => Some(f64::from_le_bytes(take_8(&mut bytes)?)) == tag.float,
                TRUE => tag.boolean == Some(true),
                FALSE => tag.boolean == Some(false),
                EVENT => {
                    take(&mut bytes)?;
                    false
                }
                LINK => {
                    take_piece(&mut bytes, 24)?;
                    false
                }
                _ => return None,
            };
            if is_key && is_value {
                return Some(true);
            }
        }
        Some(false)
    }
}
