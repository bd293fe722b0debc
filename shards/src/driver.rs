//! What a shard's I/O may be done with.

use std::fmt;

/// The I/O driver in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring with DEFER_TASKRUN (Linux 6.1).
    IoUringDefer,
    /// io_uring with COOP_TASKRUN (Linux 5.19).
    IoUringCoop,
    /// epoll.
    Epoll,
}

impl Driver {
    /// The value of the metric's `driver` label: `io_uring` or `epoll`.
    pub fn label(self) -> &'static str {
        match self {
            Self::IoUringDefer | Self::IoUringCoop => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUringDefer => "io_uring (defer_taskrun)",
            Self::IoUringCoop => "io_uring (coop_taskrun)",
            Self::Epoll => "epoll",
        })
    }
}
