//! Pipes and splice(2): bytes move from socket to socket without entering user space.

use super::{Fd, check, check_len};
use std::{io, ptr::null_mut};

/// Both ends of a kernel pipe. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: Fd,
    write: Fd,
    capacity: u32,
}

impl Pipe {
    /// A new non-blocking pipe of about `bytes`; the kernel's default where it refuses that size
    /// (man 7 pipe: fs.pipe-user-pages-soft).
    pub(crate) fn new(bytes: u32) -> io::Result<Self> {
        let mut fds = [0; 2];
        // SAFETY: the call writes two descriptors into `fds`.
        check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        let mut pipe = Self { read: fds[0], write: fds[1], capacity: 0 };
        // SAFETY: no memory is passed.
        unsafe { libc::fcntl(pipe.write, libc::F_SETPIPE_SZ, bytes.cast_signed()) };
        // SAFETY: no memory is passed.
        let capacity = check(unsafe { libc::fcntl(pipe.write, libc::F_GETPIPE_SZ) })?;
        pipe.capacity = capacity.unsigned_abs();
        Ok(pipe)
    }

    /// Bytes that fit at most (fewer when they come in small pieces: a slot holds one piece).
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Moves up to `len` bytes from a socket into the pipe; 0 is the end of stream. EAGAIN means
    /// that there is no data *or* that the pipe is full: only an empty pipe makes it certain.
    pub(crate) fn fill(&self, from: Fd, len: usize) -> io::Result<usize> {
        splice(from, self.write, len)
    }

    /// Moves up to `len` bytes from the pipe to a socket. Never asks the kernel to wait for more
    /// (SPLICE_F_MORE): a stream that pauses right then would be held back for 200 ms.
    pub(crate) fn drain(&self, to: Fd, len: usize) -> io::Result<usize> {
        splice(self.read, to, len)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        super::close(self.read);
        super::close(self.write);
    }
}

fn splice(from: Fd, to: Fd, len: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open for the call (their owners are borrowed by the caller);
    // offsets are null, so the kernel reads and writes no memory of ours.
    check_len(unsafe { libc::splice(from, null_mut(), to, null_mut(), len, flags) })
}
