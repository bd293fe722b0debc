//! The eventfd through which a ring wakes a glommio executor.

use super::{Fd, check};
use glommio::io::BufferedFile;
use std::{io, os::fd::FromRawFd};

/// A blocking eventfd that glommio can read from. (A read of a non-blocking one would complete
/// with EAGAIN at once instead of waiting.)
pub(crate) struct Signal {
    fd: Fd,
    file: BufferedFile,
}

impl Signal {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        // SAFETY: `fd` was just made, is open, and belongs to the file from here on; the number
        // kept beside it is only lent, for registering it: the ring keeps a reference of its own.
        let file = unsafe { BufferedFile::from_raw_fd(fd) };
        Ok(Self { fd, file })
    }

    pub(crate) fn fd(&self) -> Fd {
        self.fd
    }

    pub(crate) fn file(&self) -> &BufferedFile {
        &self.file
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        self.file.close().await.map_err(|e| io::Error::other(e.to_string()))
    }
}
