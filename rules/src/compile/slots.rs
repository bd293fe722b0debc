//! Names of attributes, each once.

use crate::{
    ask::{SLOTS_MAX, Slot},
    key::{Protocol, SlotId},
};
use std::collections::HashMap;

/// Attributes that rules ask for.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    by_name: HashMap<String, SlotId>,
}

impl Slots {
    /// The slot of an attribute; None if there are too many, or if none of these protocols has it.
    pub(super) fn of(&mut self, name: &str, candidates: &[Protocol]) -> Option<SlotId> {
        if !candidates.iter().any(|protocol| protocol.key(name).is_some()) {
            return None;
        }
        // Cookies and parameters have a case, all other names have none.
        let lower = name.to_ascii_lowercase();
        let has_case = lower.starts_with("cookie.") || lower.starts_with("query.");
        let known = if has_case { name.to_owned() } else { lower };
        if let Some(slot) = self.by_name.get(&known) {
            return Some(*slot);
        }
        let id =
            SlotId::try_from(self.slots.len()).ok().filter(|it| usize::from(*it) < SLOTS_MAX)?;
        let built_in = Protocol::all().map(|protocol| protocol.key(name));
        let keys = built_in.chain([Protocol::private_key(name)]).collect();
        self.slots.push(Slot { name: known.as_str().into(), keys });
        self.by_name.insert(known, id);
        Some(id)
    }

    /// Whether its value lies behind the body in messages of the protocol.
    pub(super) fn lies_behind(&self, slot: SlotId, protocol: Protocol) -> bool {
        let key = self.slots.get(usize::from(slot)).and_then(|it| it.keys.get(protocol.index()));
        key.and_then(Option::as_ref).is_some_and(|key| protocol.lies_behind(key))
    }

    pub(super) fn finish(self) -> Vec<Slot> {
        self.slots
    }
}
