//! The one door to the kernel that needs `unsafe`: waiting with nanoseconds, signals, and what a
//! child does between fork and exec. Everything else goes through `std` and `nix`.

#![allow(unsafe_code, reason = "each block is one call, with its proof")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{Nanos, SECOND};

/// What happened on a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// The key it was added with.
    pub(crate) key: u64,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// The peer shut down, or the connection broke.
    pub(crate) is_closed: bool,
}

/// What to be told about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interest {
    /// Readable, as long as it is.
    Read,
    /// Writable, as long as it is.
    Write,
    /// Every change, once.
    Edges,
}

impl Interest {
    fn bits(self) -> u32 {
        let bits = match self {
            Self::Read => libc::EPOLLIN,
            Self::Write => libc::EPOLLOUT,
            Self::Edges => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
        };
        bits.cast_unsigned()
    }
}

/// An epoll instance with room for its events.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    count: usize,
}

/// Events taken per wait; more stay in the kernel for the next one.
const EVENT_COUNT_MAX: usize = 256;

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer; the result is checked before use.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just returned this descriptor to us and nobody else has it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENT_COUNT_MAX];
        Ok(Self { epoll, events, count: 0 })
    }

    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, key, interest)
    }

    pub(crate) fn modify(&self, fd: BorrowedFd<'_>, key: u64, to: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, key, to)
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: BorrowedFd<'_>,
        key: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.bits(), u64: key };
        let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are borrowed for the call; `event` lives on this stack and the
        // kernel copies it.
        let result = unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for events, at most `timeout`; zero looks and returns. A signal ends the wait early.
    pub(crate) fn wait(&mut self, timeout: Nanos) -> io::Result<usize> {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout / SECOND).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::try_from(timeout % SECOND).unwrap_or(0),
        };
        let capacity = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: `events` has room for `capacity` entries and is not moved during the call;
        // `timeout` lives on this stack; a null mask leaves the signal mask alone.
        let count = unsafe {
            libc::epoll_pwait2(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                capacity,
                &raw const timeout,
                std::ptr::null(),
            )
        };
        self.count = usize::try_from(count).unwrap_or(0);
        if count < 0 {
            let cause = io::Error::last_os_error();
            if cause.kind() != io::ErrorKind::Interrupted {
                return Err(cause);
            }
        }
        Ok(self.count)
    }

    /// Event `index` of the last wait.
    pub(crate) fn event(&self, index: usize) -> Event {
        let raw = self.events[..self.count][index];
        let has = |bits: libc::c_int| raw.events & bits.cast_unsigned() != 0;
        let is_broken = has(libc::EPOLLERR | libc::EPOLLHUP);
        Event {
            key: raw.u64,
            is_readable: has(libc::EPOLLIN),
            is_writable: has(libc::EPOLLOUT) || is_broken,
            is_closed: has(libc::EPOLLRDHUP) || is_broken,
        }
    }
}

/// Takes a connection from a listener, as a socket that does not block.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (from, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the listener is borrowed for the call; with null pointers no address is written.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), from, length, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above just returned this descriptor to us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    // A second Ctrl-C while we clean up changes nothing: cleaning up is what was asked for.
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether Ctrl-C or SIGTERM has come.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Turns SIGINT, SIGTERM and SIGHUP into a flag; waits return early when one comes.
pub(crate) fn catch_signals() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: an all-zero sigaction is valid: no flags, empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
        // SAFETY: `action` is initialised and copied; the handler only stores to an atomic, which
        // is async-signal-safe; the old action is not asked for.
        let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes the child die when the thread that spawned it does, so that not even SIGKILL leaves one.
pub(crate) fn die_with_parent(command: &mut Command) -> &mut Command {
    let prepare = || {
        // SAFETY: PR_SET_PDEATHSIG takes one integer and no pointer.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure makes one system call and reads errno; it neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) }
}

/// Waits without using the CPU; a signal ends the wait early.
pub(crate) fn pause(duration: Duration) {
    let timeout = nix::poll::PollTimeout::try_from(duration).unwrap_or(nix::poll::PollTimeout::MAX);
    // The only failure without descriptors is a signal, which is what should end the wait.
    let _ = nix::poll::poll(&mut [], timeout);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_wait_lasts_as_long_as_asked_and_no_shorter() {
        let mut poller = Poller::new().unwrap();
        let clock = Clock::start();
        assert_eq!(poller.wait(3_500_000).unwrap(), 0);
        assert!(clock.now() >= 3_500_000);
    }

    #[test]
    fn events_carry_their_key_and_tell_data_from_the_end() {
        let mut poller = Poller::new().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        poller.add(theirs.as_fd(), 42, Interest::Edges).unwrap();
        ours.write_all(b"x").unwrap();
        assert_eq!(poller.wait(SECOND).unwrap(), 1);
        let event = poller.event(0);
        assert!(event.key == 42 && event.is_readable && !event.is_closed, "{event:?}");
        drop(ours);
        assert_eq!(poller.wait(SECOND).unwrap(), 1);
        assert!(poller.event(0).is_closed);
        assert_eq!(poller.wait(0).unwrap(), 0, "an edge is told once");
    }

    #[test]
    fn interest_can_be_changed() {
        let mut poller = Poller::new().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        poller.add(theirs.as_fd(), 1, Interest::Read).unwrap();
        assert_eq!(poller.wait(0).unwrap(), 0);
        poller.modify(theirs.as_fd(), 1, Interest::Write).unwrap();
        assert_eq!(poller.wait(0).unwrap(), 1);
    }
}
