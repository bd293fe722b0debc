//! Keeps other netra-inits of this network namespace away while held. Reading the rules and
//! changing them are two steps with iptables, and two runs between them would double the jumps.
//!
//! Whatever anybody can take, anybody can keep from us. So the lock is a thing that takes
//! `CAP_NET_ADMIN` in this network namespace, as the rules themselves: a table of nf_tables that
//! belongs to a socket. It needs no writable file, and is gone with us. Kernels without such
//! tables (before 5.12) have a lock on a file of `/proc/sys/net` that nobody else may open.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::nft::{self, OwnedTable};
use crate::error::{Error, Kind, Result};
use crate::sys;

/// Name of the table that is the lock.
const TABLE: &str = "netra-lock";

/// Files of this network namespace that take `CAP_NET_ADMIN` in it, or root, to be read. They are
/// locked, never read. The first is there from Linux 4.15, the second from 4.1 with IPv6.
const FILES: [&str; 2] =
    ["/proc/sys/net/ipv4/tcp_fastopen_key", "/proc/sys/net/ipv6/conf/all/stable_secret"];

/// A holder says nothing when it ends.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The lock, as long as this lives, or what we started.
#[derive(Debug)]
pub enum Lock {
    /// A table that belongs to a socket.
    Table(#[allow(dead_code, reason = "it is held, not used")] OwnedTable),
    /// A lock on a file.
    File(#[allow(dead_code, reason = "it is held, not used")] File),
    /// This kernel has nothing that only its administrators can hold.
    Nothing,
}

/// Waits for the lock.
pub fn hold(wait_seconds: u32) -> Result<Lock> {
    let deadline = Instant::now() + Duration::from_secs(wait_seconds.into());
    loop {
        if let Some(lock) = try_hold()? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            let message = format!(
                "netra-init lock: another netra-init of this network namespace has held it for \
                 {wait_seconds} s (see --lock-wait-seconds)"
            );
            return Err(Error::new(Kind::Lock, message));
        }
        thread::park_timeout(ASK_AGAIN_AFTER);
    }
}

/// The lock, or `None` while somebody else has it.
fn try_hold() -> Result<Option<Lock>> {
    match nft::own_table(TABLE) {
        Ok(table) => {
            let table = table.map(|table| pass_on(table).map(Lock::Table));
            table.transpose()
        }
        // No tables of sockets in this kernel.
        Err(error) if error.kind == Kind::Kernel => lock_file(),
        Err(error) => Err(error),
    }
}

fn lock_file() -> Result<Option<Lock>> {
    for path in FILES {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(path, &error)),
        };
        return match file.try_lock() {
            Ok(()) => pass_on(file).map(|file| Some(Lock::File(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(path, &error)),
        };
    }
    Ok(Some(Lock::Nothing))
}

/// If we are killed, an iptables-restore of ours still holds it until it is done.
fn pass_on<T: AsRawFd>(lock: T) -> Result<T> {
    sys::pass_on(&lock).map_err(|source| failed(TABLE, &source))?;
    Ok(lock)
}

fn failed(what: &str, source: &io::Error) -> Error {
    Error::new(Kind::Lock, format!("netra-init lock: {what}: {source}"))
}
