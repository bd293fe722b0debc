//! A request of HTTP/1 that was sent goes to another endpoint: the upstream that has it is left.

use crate::{
    io::{Io, Token},
    patience::Patience,
    shard::Shard,
};
use netra_perf::Key;

impl<I: Io> Shard<I> {
    /// Leaves the upstream for the endpoint that was chosen for the kept request. What came of its answer
    /// goes to nobody.
    pub(crate) fn send_again(&mut self, downstream: Token) {
        let Self { core, slab, .. } = self;
        let connection = &mut slab[downstream.slot as usize];
        let moved = [connection.request.last_moved(), connection.response.last_moved()];
        connection.response.discard(core);
        connection.request.change_receiver();
        let Some(http) = connection.http.as_deref_mut() else { return };
        http.repeat(core, moved);
        core.recorder.bump(Key::SENT_AGAIN);
        if http.wants_timing() {
            // The head that was withheld is held no more.
            self.time_head(downstream.slot);
        }
        self.leave_upstream(downstream);
        let patience = self.slab[downstream.slot as usize].patience();
        if patience.is_some_and(Patience::wants_alarm) {
            self.set_alarm(downstream.slot);
        }
    }
}
