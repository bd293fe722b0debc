//! Settings and counters of connection tracking, which are per network namespace.

use std::fs;
use std::io;

use crate::error::{Error, Kind, Result};

const FOLDER: &str = "/proc/sys/net/netfilter";
const CLOSE_WAIT: &str = "nf_conntrack_tcp_timeout_close_wait";
const FLAG: &str = "--close-wait-timeout-seconds";

/// Sets how long a half-closed connection is remembered. The kernel's 60 seconds are less than
/// many applications take: then its NAT entry is gone, and both halves hang.
pub(crate) fn set_close_wait(seconds: u32) -> Result<()> {
    if read(CLOSE_WAIT) == Some(seconds.into()) {
        return Ok(());
    }
    let path = format!("{FOLDER}/{CLOSE_WAIT}");
    fs::write(&path, seconds.to_string()).map_err(|source| match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            let message = format!(
                "{FLAG} {seconds}: {path}: {source}: need root and a writable /proc/sys \
                 (docker: --privileged; kubernetes: securityContext.privileged)"
            );
            Error::new(Kind::Capability, message)
        }
        _ => unavailable(seconds, &path, &source),
    })
}

/// An error of kind `Drift` if it is not this long.
pub(crate) fn expect_close_wait(seconds: u32) -> Result<()> {
    match read(CLOSE_WAIT) {
        Some(found) if found == u64::from(seconds) => Ok(()),
        Some(found) => {
            let message = format!("not as wanted: {CLOSE_WAIT} is {found}, not {seconds}");
            Err(Error::new(Kind::Drift, message))
        }
        None => Err(unavailable(seconds, CLOSE_WAIT, &io::ErrorKind::NotFound.into())),
    }
}

fn unavailable(seconds: u32, what: &str, source: &io::Error) -> Error {
    let message = format!("{FLAG} {seconds}: {what}: {source}: is nf_conntrack loaded?");
    Error::new(Kind::Kernel, message)
}

/// How many connections are tracked, and how many can be.
pub(crate) fn usage() -> Option<(u64, u64)> {
    Some((read("nf_conntrack_count")?, read("nf_conntrack_max")?))
}

fn read(name: &str) -> Option<u64> {
    fs::read_to_string(format!("{FOLDER}/{name}")).ok()?.trim().parse().ok()
}
