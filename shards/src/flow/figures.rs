//! What a flow tells of itself.

use super::{Flow, Mover, Reading};
use crate::{buffers::BufferPool, sys::Nanos};

impl Flow {
    /// When bytes last came in or, after waiting, went out.
    pub(crate) fn last_moved(&self) -> Nanos {
        self.last_moved
    }

    /// Bytes that have moved.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What netra itself took to move them, but for HTTP.
    pub(crate) fn overhead_ns(&self) -> Nanos {
        self.overhead_ns
    }

    /// The receiver takes nothing, though there is something.
    pub(crate) fn is_stalled(&self) -> bool {
        self.blocked
    }

    /// Another receiver takes its place: whether that one takes nothing now.
    pub(crate) fn set_stalled(&mut self, is_stalled: bool) {
        self.blocked = is_stalled;
    }

    /// There are bytes that could be sent.
    pub(crate) fn has_something(&self) -> bool {
        !self.queue.is_empty() && !self.blocked
    }

    /// There may be bytes that it looks for without keeping them.
    pub(crate) fn may_have_something(&self) -> bool {
        let looks = self.mover != Mover::Copy && self.reading == Reading::Stopped;
        looks && self.queue.is_empty() && !self.blocked
    }

    /// Another flow of the same connection has moved so many bytes.
    pub(crate) fn also_moved(&mut self, bytes: u64, at: Nanos) {
        self.bytes += bytes;
        self.last_moved = self.last_moved.max(at);
    }

    /// Bytes wait for the receiver.
    pub(crate) fn holds_bytes(&self) -> bool {
        !self.queue.is_empty() || self.in_pipe > 0
    }

    /// Bytes are within a pipe: what goes next is theirs.
    pub(crate) fn is_under_way(&self) -> bool {
        self.in_pipe > 0
    }

    /// Bytes that wait in buffers.
    pub(crate) fn queued(&self, pool: &BufferPool) -> usize {
        self.queue.iter(pool).map(|id| pool.bytes(id).len()).sum()
    }

    /// The source's end has been passed on, or is about to be.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The source may rest: it is read as ever, and nothing of it is kept.
    pub(crate) fn may_rest(&self) -> bool {
        self.is_quiet() && self.reading == Reading::Receiving && self.mover == Mover::Copy
    }

    /// All that came has been passed on, and more may come.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.holds_bytes() && self.reading != Reading::Over
    }
}
