//! Looking for a tag in packed items, without unpacking them.

use super::block::{Block, EVENT, FALSE, FLOAT, INT, LINK, Row, TEXT, TEXT_HERE, TRUE};
use super::pack::{put, put_signed, take, take_8, take_piece, take_signed};

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

impl TagWanted<'_> {
    /// What stands among the items where a span has it, one for each way in which it may be written.
    fn packed(&self) -> Vec<Vec<u8>> {
        let begin = |how: u64| {
            let mut bytes = Vec::new();
            put(&mut bytes, self.key << 3 | how);
            bytes
        };
        let with = |how: u64, write: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = begin(how);
            write(&mut bytes);
            bytes
        };
        let mut all = vec![with(TEXT_HERE, &|bytes| {
            put(bytes, self.value.len() as u64);
            bytes.extend_from_slice(self.value.as_bytes());
        })];
        all.extend(self.shared.map(|id| with(TEXT, &|bytes| put(bytes, id))));
        all.extend(self.int.map(|number| with(INT, &|bytes| put_signed(bytes, number))));
        // Zero is equal to what is below it, and is written otherwise.
        let floats =
            self.float.map(|number| [number, if number == 0.0 { -number } else { number }]);
        let float = |number: f64| with(FLOAT, &|bytes| bytes.extend(number.to_le_bytes()));
        all.extend(floats.into_iter().flatten().map(float));
        all.extend(self.boolean.map(|is| begin(if is { TRUE } else { FALSE })));
        all
    }
}

impl Block {
    /// Whether a tag can be here at all: what is packed for it stands somewhere among the items, or it is
    /// nowhere. (It may stand there by chance, within something else.)
    pub(super) fn may_have(&self, tag: &TagWanted<'_>) -> bool {
        tag.packed().iter().any(|bytes| memchr::memmem::find(&self.items, bytes).is_some())
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
