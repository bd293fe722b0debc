//! The one door to unsafe code of this crate: each function is one system call (or one access to
//! memory shared with the kernel) with the proof of why it is sound.
#![allow(unsafe_code)]

pub(crate) mod code;
#[cfg(test)]
pub(crate) mod counting;
pub(crate) mod epoll;
#[cfg(feature = "glommio")]
pub(crate) mod hosted;
pub(crate) mod links;
pub(crate) mod memory;
pub(crate) mod pipe;
pub(crate) mod ring;
pub(crate) mod socket;
pub(crate) mod tcp_info;

pub use tcp_info::TcpInfo;

use std::io;

/// A descriptor number. The slab's connections, the listeners and the pipe pool own descriptors;
/// everything else borrows the number for one call.
pub(crate) type Fd = libc::c_int;

/// Monotonic time in nanoseconds.
pub(crate) type Nanos = u64;

/// The monotonic clock (vDSO, no system call), in nanoseconds.
pub fn monotonic_ns() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that the call fills; CLOCK_MONOTONIC cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Unix time (vDSO, no system call), in nanoseconds.
pub(crate) fn unix_ns() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec that the call fills; CLOCK_REALTIME cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Turns the -1 of a system call into its errno.
fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Turns the -1 of a system call that counts bytes into its errno.
fn check_len(ret: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}

/// Closes a descriptor that the caller owns and forgets. Errors are not actionable: the number is
/// released whatever close(2) says (man 2 close, Linux).
pub(crate) fn close(fd: Fd) {
    // SAFETY: the caller owns `fd` and does not use it again; no memory is involved.
    unsafe { libc::close(fd) };
}

/// A new eventfd, non-blocking, for waking a shard from another thread.
pub(crate) fn eventfd() -> io::Result<Fd> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

/// Adds one to an eventfd. A full counter (EAGAIN) already wakes its reader.
pub(crate) fn eventfd_notify(fd: Fd) {
    let one = 1u64;
    // SAFETY: eight bytes are read from `one`, which lives for the call.
    unsafe { libc::write(fd, (&raw const one).cast(), 8) };
}

/// Resets an eventfd to zero; false when it was zero already (EAGAIN).
pub(crate) fn eventfd_clear(fd: Fd) -> bool {
    let mut count = 0u64;
    // SAFETY: eight bytes are written to `count`, which lives for the call.
    unsafe { libc::read(fd, (&raw mut count).cast(), 8) == 8 }
}

/// The descriptor limit of this process: (soft, hard).
pub(crate) fn descriptor_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit that the call fills.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft descriptor limit to the hard one and returns it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = descriptor_limit()?;
    if soft < hard {
        let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: `limit` is a live rlimit that the call reads.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(hard)
}

/// A duration in nanoseconds; one that is longer than the clock goes is half of that.
pub(crate) fn nanos(duration: std::time::Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 2)
}
