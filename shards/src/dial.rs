//! The dial: begun at accept, before any byte of the client, because the server may speak first.

use crate::{
    connection::{Phase, nanos},
    error::{End, dial_errno_index},
    io::{Io, Side, Token, errno},
    shard::{Core, Shard},
    sys::Nanos,
    timers::Timer,
};
use netra_perf::{Key, Stage};
use std::io;

/// Counts a dial that failed and says how the connection ends.
pub(crate) fn failed<I: Io>(core: &Core<I>, error: &io::Error) -> End {
    core.recorder.bump(Key::connect_failure(dial_errno_index(errno(error))));
    End::DialFailed(errno(error))
}

/// Records how long the upstream took to answer.
pub(crate) fn record<I: Io>(core: &Core<I>, accepted_at: Nanos) {
    core.recorder.record_ns(Stage::Dial, core.io.now().saturating_sub(accepted_at));
}

impl<I: Io> Shard<I> {
    /// Waits for the upstream's answer.
    pub(crate) fn await_dial(&mut self, downstream: Token) {
        self.core.io.watch_write(downstream.other());
        let deadline = self.core.now + nanos(self.core.limits.connect_timeout);
        self.timers.set(&mut self.slab, downstream.slot, Timer::Dial, deadline);
    }

    /// The upstream's socket can be written: it has answered, one way or the other.
    pub(crate) fn on_dial_answer(&mut self, token: Token) {
        debug_assert_eq!(token.side, Side::Upstream);
        let downstream = token.other();
        match self.core.io.dial_outcome(token) {
            Ok(()) => self.relay(downstream),
            Err(e) => {
                let end = failed(&self.core, &e);
                self.end(downstream, end);
            }
        }
    }

    /// The upstream has not answered in time.
    pub(crate) fn on_dial_deadline(&mut self, downstream: Token) {
        if self.slab[downstream.slot as usize].phase == Phase::Relaying {
            return self.on_switch_deadline(downstream);
        }
        if self.slab[downstream.slot as usize].phase == Phase::Dialling {
            let timed_out = io::Error::from_raw_os_error(libc::ETIMEDOUT);
            failed(&self.core, &timed_out);
            self.end(downstream, End::DialTimeout);
        }
    }
}
