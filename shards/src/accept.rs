//! Accepting, and pausing it at the descriptor limit: what cannot be served waits in the kernel's
//! queue, and nothing spins.

use crate::{
    io::{Close, Io},
    shard::Shard,
    sys::{Fd, Nanos},
};
use netra_perf::Key;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// While accepting is paused, how often to look whether another shard has freed descriptors.
const RETRY_NS: Nanos = 20_000_000;

/// Connections of the whole process. Touched once when one is accepted and once when it has
/// closed, never for a message.
#[derive(Debug)]
pub(crate) struct Descriptors {
    connections: AtomicU32,
    connections_max: u32,
}

impl Descriptors {
    pub(crate) fn new(connections_max: u32) -> Self {
        Self { connections: AtomicU32::new(0), connections_max }
    }

    pub(crate) fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// Connections now.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Takes room for one connection; false when that was the last.
    fn take(&self) -> bool {
        self.connections.fetch_add(1, Relaxed) + 1 < self.connections_max
    }

    fn release(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Accepting goes on a little below the cap, so that it does not flutter.
    fn has_room(&self) -> bool {
        self.connections.load(Relaxed) < self.connections_max - self.connections_max / 32
    }
}

impl<I: Io> Shard<I> {
    /// A connection was accepted.
    pub(crate) fn on_accepted(&mut self, fd: Fd) {
        if !self.descriptors.take() {
            self.pause_accepting();
        }
        self.serve(fd);
    }

    /// An accept failed: for want of descriptors or memory, mostly.
    pub(crate) fn on_accept_failed(&mut self, errno: i32) {
        if !matches!(errno, libc::EMFILE | libc::ENFILE) {
            self.core.recorder.bump(Key::ACCEPT_ERRORS);
        }
        self.pause_accepting();
    }

    /// Leaves further connections in the kernel's queue.
    pub(crate) fn pause_accepting(&mut self) {
        if self.accept_again_at.is_none() {
            self.core.recorder.bump(Key::ACCEPT_PAUSED);
            self.core.io.accept(false);
        }
        self.accept_again_at = Some(self.core.now + RETRY_NS);
    }

    /// Accepts again when there is room.
    pub(crate) fn retry_accepting(&mut self) {
        let Some(at) = self.accept_again_at else { return };
        if self.core.now < at {
            return;
        }
        if self.descriptors.has_room() {
            self.accept_again_at = None;
            self.core.io.accept(true);
        } else {
            self.accept_again_at = Some(self.core.now + RETRY_NS);
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
pub(crate) fn connections_for(descriptor_limit: u64, shards: u64) -> Option<u32> {
    // Listener, poller and waker of each shard; logs, metrics and exporters; pipes are taken from
    // the headroom and splicing does without where there are none.
    let reserved = 24 + shards * 8;
    let usable = descriptor_limit.checked_sub(reserved)?;
    let connections = usable * 95 / 100 / 2;
    (connections > 0).then(|| u32::try_from(connections).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_leaves_descriptors_for_the_rest() {
        assert_eq!(connections_for(256, 1), Some(106));
        assert_eq!(connections_for(20_000, 2), Some(9481));
        assert_eq!(connections_for(30, 1), None);
        for limit in 64..4096 {
            if let Some(n) = connections_for(limit, 2) {
                assert!(u64::from(n) * 2 + 24 < limit);
            }
        }
    }

    #[test]
    fn room_comes_back_below_the_cap() {
        let descriptors = Descriptors::new(3);
        assert!(descriptors.take());
        assert!(descriptors.take());
        assert!(!descriptors.take());
        assert!(!descriptors.has_room());
        descriptors.release();
        assert!(descriptors.has_room());
    }
}
