//! What several legs say in one go is sent to their client in one call.

use crate::{
    along::Along,
    io::{Io, Token},
    shard::Shard,
};

impl<I: Io> Shard<I> {
    /// Lets the legs speak, each in its turn. Whether one has said something.
    pub(crate) fn hear_legs(&mut self, owner: Token) -> bool {
        let Self { core, slab, .. } = self;
        if let Some(gate) = slab[owner.slot as usize].tap.as_mut().and_then(Along::gate) {
            gate.begin_to_gather(core);
        }
        let has_heard = self.hear_each(owner);
        if self.lives(owner) {
            self.send_answers(owner);
        }
        has_heard
    }

    fn send_answers(&mut self, owner: Token) {
        let Self { core, slab, .. } = self;
        let connection = &mut slab[owner.slot as usize];
        let Some(gate) = connection.tap.as_mut().and_then(Along::gate) else { return };
        match gate.send_answers(core, owner) {
            Ok(false) => {}
            Ok(true) => {
                // As if it had been said by the connection's own upstream.
                connection.response.set_stalled(true);
                core.io.watch_write(owner);
            }
            Err(end) => self.end(owner, end),
        }
    }
}
