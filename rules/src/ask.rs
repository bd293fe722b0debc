//! Values of a message, asked for once.

use crate::{
    facts::Facts,
    key::{Key, SlotId},
};

/// Protocols that keys are different for: see `protocol_index`.
pub(crate) type KeyRow = Box<[Option<Key>]>;

/// A value that rules ask for; its name is the author's, and means another key in each protocol.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: Box<str>,
    pub(crate) keys: KeyRow,
}

/// Asks for values, and remembers a few of them.
pub(crate) struct Ask<'a, F> {
    pub(crate) facts: &'a F,
    slots: &'a [Slot],
    /// The index of its protocol.
    pub(crate) protocol: usize,
    /// The slots of the values beside them.
    known: [SlotId; KNOWN],
    values: [Option<&'a [u8]>; KNOWN],
}

/// The value of a slot, of a message that is asked for nothing else.
#[inline(always)]
pub(crate) fn only_value<'a, F: Facts>(
    facts: &'a F,
    slots: &[Slot],
    slot: SlotId,
) -> Option<&'a [u8]> {
    let keys = &slots.get(usize::from(slot))?.keys;
    facts.value(keys.get(facts.protocol().index())?.as_ref()?)
}

const KNOWN: usize = 4;
/// No table has so many slots.
pub(crate) const SLOTS_MAX: usize = SlotId::MAX as usize;

impl<'a, F: Facts> Ask<'a, F> {
    #[inline]
    pub(crate) fn new(facts: &'a F, slots: &'a [Slot]) -> Self {
        let protocol = facts.protocol().index();
        Self { facts, slots, protocol, known: [SlotId::MAX; KNOWN], values: [None; KNOWN] }
    }

    /// The value of a slot.
    #[inline(always)]
    pub(crate) fn value(&mut self, slot: SlotId) -> Option<&'a [u8]> {
        let place = usize::from(slot) % KNOWN;
        if self.known[place] != slot {
            let key = self.slots.get(usize::from(slot)).and_then(|it| it.keys.get(self.protocol));
            self.known[place] = slot;
            self.values[place] = key.and_then(Option::as_ref).and_then(|key| self.facts.value(key));
        }
        self.values[place]
    }
}
