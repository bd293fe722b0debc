//! Accepting, and pausing it at the descriptor limit: what cannot be served waits in the kernel's
//! queue, and nothing spins.

use crate::{
    io::{ACCEPTS_AHEAD, Close, Io},
    pressure::{Pressure, SHED_ACCEPTS},
    shard::Shard,
    sys::{Fd, Nanos},
};
use netra_perf::{Gauge, Key};

/// While accepting is paused, how often to look whether another shard has freed descriptors.
const RETRY_NS: Nanos = 20_000_000;
/// Connections that a shard takes however little memory there is.
const ALWAYS_TAKEN: u32 = 16;

impl<I: Io> Shard<I> {
    /// A connection was accepted.
    pub(crate) fn on_accepted(&mut self, fd: Fd) {
        self.descriptors.take();
        self.serve(fd);
        if self.wants_memory() {
            self.pause_for_memory();
        }
    }

    /// So little memory is left that no further connection fits. A few are always taken: what
    /// else takes the memory may never give it back.
    fn wants_memory(&mut self) -> bool {
        self.core.look_at_memory() == Pressure::Full && self.active > ALWAYS_TAKEN
    }

    fn pause_for_memory(&mut self) {
        if self.drain_until.is_none() && self.accept_again_at.is_none() {
            self.core.recorder.bump(Key::shed(SHED_ACCEPTS));
        }
        self.pause_accepting();
    }

    /// An accept failed: for want of descriptors or memory, mostly.
    pub(crate) fn on_accept_failed(&mut self, errno: i32) {
        if !matches!(errno, libc::EMFILE | libc::ENFILE) {
            self.core.recorder.bump(Key::ACCEPT_ERRORS);
        }
        self.pause_accepting();
    }

    /// Leaves further connections in the kernel's queue for a while.
    fn pause_accepting(&mut self) {
        if self.drain_until.is_some() {
            return;
        }
        if self.accept_again_at.is_none() {
            self.core.recorder.bump(Key::ACCEPT_PAUSED);
            self.core.recorder.set(Gauge::AcceptFull, 1);
        }
        self.accept_again_at = Some(self.core.now + RETRY_NS);
        self.core.io.accept(0);
    }

    /// Tells the backend how many connections there is room for. At the cap accepting pauses, and
    /// every [`RETRY_NS`] it is seen whether it can go on.
    pub(crate) fn offer_room(&mut self) {
        if self.drain_until.is_some() || self.accept_again_at.is_some_and(|at| self.core.now < at) {
            return;
        }
        // Without a pause nobody looks here, in every turn.
        if self.accept_again_at.is_some() && self.wants_memory() {
            return self.pause_for_memory();
        }
        match self.descriptors.room() {
            0 => self.pause_accepting(),
            room => {
                if self.accept_again_at.take().is_some() {
                    self.core.recorder.set(Gauge::AcceptFull, 0);
                }
                self.core.io.accept(room);
            }
        }
    }

    /// Refuses an accepted connection so that its client sees a failure, not an empty answer.
    pub(crate) fn reject(&mut self, fd: Fd) {
        self.core.io.discard(fd, Close::Reset);
        self.release_descriptors();
    }

    /// The descriptors of one connection are free again.
    pub(crate) fn release_descriptors(&mut self) {
        self.descriptors.release();
    }
}

/// How many connections a descriptor limit allows: two descriptors each, after what the process
/// needs otherwise, with a headroom of 5 %.
#[must_use]
pub fn connections_for(descriptor_limit: u64, shards: u64) -> Option<u32> {
    // Listener, poller and waker of each shard and what it accepts ahead; logs, metrics and
    // exporters. Pipes are taken from the headroom; where there are none, bytes are copied.
    let reserved = 24 + shards * (8 + 2 * u64::from(ACCEPTS_AHEAD));
    let usable = descriptor_limit.checked_sub(reserved)?;
    let connections = usable * 95 / 100 / 2;
    (connections > 0).then(|| u32::try_from(connections).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_leaves_descriptors_for_the_rest() {
        assert_eq!(connections_for(256, 1), Some(98));
        assert_eq!(connections_for(20_000, 2), Some(9465));
        assert_eq!(connections_for(30, 1), None);
        for limit in 64..4096 {
            if let Some(n) = connections_for(limit, 2) {
                assert!(u64::from(n) * 2 + 24 < limit);
            }
        }
    }
}
