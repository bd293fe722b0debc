//! epoll, edge-triggered for connections and level-triggered for listeners and wake-ups.

use super::{Fd, check};
use std::io;

/// An epoll instance and the room for one batch of events.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: Fd,
    events: Vec<libc::epoll_event>,
    ready: usize,
    /// epoll_pwait2 is missing or forbidden.
    coarse: bool,
}

/// Readable, or the peer has shut its side, or an error is pending: a receive will tell.
pub(crate) const IN: u32 =
    (libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR)
        .cast_unsigned();
/// Writable, or an error is pending: a send will tell.
pub(crate) const OUT: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();
/// A short receive does not mean that the socket is empty: the peer has shut its side, an error is
/// pending, or an urgent byte is there, which no receive crosses.
pub(crate) const READ_ON: u32 =
    (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI).cast_unsigned();
/// Whether the end of the stream is behind the bytes that are there, and nothing else: no error,
/// and no urgent byte that would divide them.
pub(crate) fn is_end(conditions: u32) -> bool {
    let (end, other) = (libc::EPOLLRDHUP, libc::EPOLLERR | libc::EPOLLPRI);
    conditions & end.cast_unsigned() != 0 && conditions & other.cast_unsigned() == 0
}

/// An urgent byte is behind the bytes that are there.
pub(crate) const URGENT: u32 = libc::EPOLLPRI.cast_unsigned();
/// An error is pending.
pub(crate) const ERROR: u32 = libc::EPOLLERR.cast_unsigned();

const READ: libc::c_int = libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET;

/// What to watch a descriptor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Reading, level-triggered (listeners, eventfds).
    Level,
    /// Reading, edge-triggered.
    Read,
    /// Reading and writing, edge-triggered.
    ReadWrite,
}

impl Interest {
    fn bits(self) -> u32 {
        match self {
            Self::Level => libc::EPOLLIN,
            Self::Read => READ,
            Self::ReadWrite => READ | libc::EPOLLOUT,
        }
        .cast_unsigned()
    }
}

impl Epoll {
    /// A new instance whose batches hold up to `batch` events.
    pub(crate) fn new(batch: usize) -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; batch],
            ready: 0,
            coarse: false,
        })
    }

    /// Starts watching a descriptor; its events carry `data`.
    pub(crate) fn add(&self, fd: Fd, interest: Interest, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest.bits(), data)
    }

    /// Changes what a descriptor is watched for; a condition that holds already is reported.
    pub(crate) fn modify(&self, fd: Fd, interest: Interest, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest.bits(), data)
    }

    /// Stops watching a descriptor.
    pub(crate) fn remove(&self, fd: Fd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, op: libc::c_int, fd: Fd, bits: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: bits, u64: data };
        // SAFETY: `event` lives for the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.fd, op, fd, &raw mut event) }).map(|_| ())
    }

    /// Waits for events: `timeout_ns` none waits for ever, zero polls. A signal ends the wait with
    /// an empty batch.
    pub(crate) fn wait(&mut self, timeout_ns: Option<u64>) -> io::Result<usize> {
        self.ready = 0;
        let room = libc::c_int::try_from(self.events.len()).unwrap_or(libc::c_int::MAX);
        let ret = match timeout_ns {
            None => self.wait_ms(room, -1),
            Some(0) => self.wait_ms(room, 0),
            Some(ns) if self.coarse => self.wait_rounded(room, ns),
            Some(ns) => self.wait_ns(room, ns),
        };
        match ret {
            Ok(n) => {
                self.ready = n.unsigned_abs() as usize;
                Ok(self.ready)
            }
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => Ok(0),
            Err(e) => Err(e),
        }
    }

    fn wait_ms(&mut self, room: libc::c_int, ms: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: the kernel writes at most `room` events into the vector, which has that many.
        check(unsafe { libc::epoll_wait(self.fd, self.events.as_mut_ptr(), room, ms) })
    }

    fn wait_rounded(&mut self, room: libc::c_int, ns: u64) -> io::Result<libc::c_int> {
        let ms = libc::c_int::try_from(ns.div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX);
        self.wait_ms(room, ms)
    }

    /// epoll_pwait2 (Linux 5.11) has nanoseconds. Older kernels, and seccomp profiles that do not
    /// know it (EPERM), get milliseconds, rounded up.
    fn wait_ns(&mut self, room: libc::c_int, ns: u64) -> io::Result<libc::c_int> {
        let timeout = libc::timespec {
            tv_sec: (ns / 1_000_000_000).cast_signed(),
            tv_nsec: (ns % 1_000_000_000).cast_signed(),
        };
        // SAFETY: as in `wait_ms`; `timeout` lives for the call and the signal mask is null.
        let ret = check(unsafe {
            libc::epoll_pwait2(
                self.fd,
                self.events.as_mut_ptr(),
                room,
                &raw const timeout,
                std::ptr::null(),
            )
        });
        match ret {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                self.coarse = true;
                self.wait_rounded(room, ns)
            }
            other => other,
        }
    }

    /// One event of the last batch: (data, conditions).
    pub(crate) fn event(&self, index: usize) -> (u64, u32) {
        debug_assert!(index < self.ready);
        let event = self.events[index];
        (event.u64, event.events)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        super::close(self.fd);
    }
}
