//! A network namespace that a descriptor keeps alive.

use super::Result;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Output, Stdio};
use std::thread;

/// A network namespace; gone when this value and all that lives in it are gone.
#[derive(Debug)]
pub(super) struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    pub(super) fn new() -> Result<Self> {
        let made = thread::spawn(|| -> std::io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made.join().map_err(|_| "a thread failed".to_owned())?;
        Ok(Self { fd: fd.map_err(|error| format!("a new network namespace: {error}"))? })
    }

    /// Runs `work` in here. Sockets made in here stay; programs started in here live in here.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let run = || {
            self.enter_for_good()?;
            Ok(work())
        };
        thread::scope(|scope| {
            scope.spawn(run).join().unwrap_or_else(|_| Err("a thread failed".to_owned()))
        })
    }

    /// Moves the calling thread in here, to stay.
    pub(super) fn enter_for_good(&self) -> Result<()> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(|errno| format!("setns: {errno}"))
    }

    /// Where other programs find it.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// A handle of its own for a thread of its own.
    pub(super) fn share(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| format!("a descriptor: {error}"))?;
        Ok(Self { fd })
    }

    /// Lines for `ip -batch` in here.
    pub(super) fn ip(&self, batch: &str) -> Result<()> {
        let run = || -> std::io::Result<Output> {
            let mut command = Command::new("ip");
            command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(batch.as_bytes())?;
            }
            child.wait_with_output()
        };
        let ran = self.enter(run)?;
        succeeded(&ran.map_err(|error| format!("ip (Debian package iproute2): {error}"))?, "ip")
    }
}

/// An error with what the program said, when it failed.
pub(super) fn succeeded(output: &Output, program: &str) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}: {}", output.status, said.trim()))
}
