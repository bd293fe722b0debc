//! What is done about an answer that is withheld (`gate/elsewhere.rs`): its request goes elsewhere, alone or with all
//! that its server owes, or its client gets it.

use crate::{
    along::Along,
    gate::Gate,
    io::{Io, Token},
    shard::Shard,
};
use netra_codecs::trace::RetryReason;

impl<I: Io> Shard<I> {
    /// Decides about the oldest answer that is withheld. Whether there was one.
    #[cold]
    pub(crate) fn ask_elsewhere(&mut self, owner: Token) -> bool {
        if !self.lives(owner) {
            return false;
        }
        let Some(it) = self.gate_of(owner.slot).and_then(Gate::take_withheld) else {
            return false;
        };
        let Self { core, slab, .. } = self;
        let connection = &mut slab[owner.slot as usize];
        let (original_dst, has_ended) = (connection.original_dst, connection.request.is_finished());
        let gate = connection.tap.as_mut().and_then(Along::gate);
        let Some(gate) = gate else { return false };
        if !has_ended && gate.ask_again(core, &it, original_dst) {
            return true;
        }
        let leaves = gate.is_in_order() && !has_ended;
        if leaves && self.leave_for_another(owner, it.place, RetryReason::GatewayError) {
            let now = self.core.now;
            if let Some(gate) = self.gate_of(owner.slot) {
                gate.note_asked_again(it.number, now);
            }
            return true;
        }
        let Self { core, slab, .. } = self;
        let connection = &mut slab[owner.slot as usize];
        if let Some(gate) = connection.tap.as_mut().and_then(Along::gate) {
            gate.give_back(core, &it);
        }
        if let Err(end) = connection.go_on(core, owner.other()) {
            self.end(owner, end);
        }
        true
    }
}
