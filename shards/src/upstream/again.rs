//! A gated connection whose upstream has ended, and that goes on: all that was asked is asked again elsewhere,
//! or nothing was.

use crate::{
    again::Onward,
    along::Along,
    io::{Io, Token},
    shard::Shard,
    switch::goal::Goal,
};
use netra_rules::Heard;

impl<I: Io> Shard<I> {
    /// True where the upstream's end is not its connection's, see [`goes_on`](Self::goes_on).
    pub(super) fn gate_goes_on(&mut self, downstream: Token) -> bool {
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let original_dst = connection.original_dst;
        let Some(gate) = connection.tap.as_mut().and_then(Along::gate) else { return false };
        let attempts = match gate.onward() {
            None => return false,
            Some(Onward::Between) => {
                gate.part();
                self.part(downstream);
                return true;
            }
            Some(Onward::Again(attempts)) => attempts,
        };
        let next = gate.seats_mut().send_again(attempts, Heard::Local, original_dst, core.now);
        let Some(target) = next else { return false };
        gate.switch_mut().goal = Some(Box::new(Goal::new(target, true)));
        gate.repeat(core);
        connection.request.change_receiver();
        self.leave_upstream(downstream);
        true
    }

    /// What was sent before waits for a further upstream.
    pub(super) fn repeats(&mut self, slot: u32) -> bool {
        let gate = self.slab[slot as usize].tap.as_mut().and_then(Along::gate);
        gate.is_some_and(|gate| gate.is_repeating())
    }
}
