//! An upstream that ends between two requests, and whose client need not know.

use crate::{
    io::{Close, Io, Token, When},
    shard::Shard,
    switch::{Stand, seats::Seats},
};

impl<I: Io> Shard<I> {
    /// The upstream has ended between two requests: the client keeps its connection.
    pub(super) fn part(&mut self, downstream: Token) {
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        connection.seats().map(Seats::leave);
        connection.detach(core, downstream);
        connection.request.change_receiver();
        core.own_dials.forget(downstream.slot);
        let closed = core.io.close(downstream.other(), Close::Orderly);
        if let Some(switch) = connection.switch_mut() {
            switch.is_parted = true;
            switch.stand = if closed == When::Later { Stand::Parting } else { Stand::Settled };
        }
    }

    /// The socket of an upstream that had ended is closed: what has come meanwhile may go on.
    pub(super) fn has_parted(&mut self, downstream: Token) {
        self.stand(downstream.slot, Stand::Settled);
        match self.slab[downstream.slot as usize].go_on(&mut self.core, downstream) {
            Ok(()) => self.moved(downstream),
            Err(end) => self.end(downstream, end),
        }
    }
}
