//! How many connections the process has, and may have, by its descriptors.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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

    /// Takes the room of one connection.
    pub(crate) fn take(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn release(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Connections that there is still room for.
    pub(crate) fn room(&self) -> u32 {
        self.connections_max.saturating_sub(self.connections.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_back_below_the_cap() {
        let descriptors = Descriptors::new(3);
        for _ in 0..4 {
            descriptors.take();
        }
        assert_eq!(descriptors.room(), 0);
        descriptors.release();
        descriptors.release();
        assert_eq!(descriptors.room(), 1);
    }
}
