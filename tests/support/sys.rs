//! The only unsafe of the tests: what a child does between fork and exec.
#![allow(unsafe_code)]

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What a child is born with.
#[derive(Debug, Default)]
pub struct Birth {
    /// Network namespace to enter.
    pub netns: Option<OwnedFd>,
    /// Limit of descriptors, soft and hard.
    pub nofile: Option<u64>,
    /// Files that it sees in the place of others: (of ours, of the machine's).
    pub files: Vec<(CString, CString)>,
    /// The door of the cgroup to enter.
    pub cgroup: Option<File>,
}

/// Makes `command` enter its namespace, take its limits, become `identity` and die with the thread
/// that spawns it. The identity is changed here and not by `Command::uid`, which std would apply
/// before this hook, when entering a namespace still needs root.
pub fn on_birth(command: &mut Command, birth: Birth, identity: Option<u32>) {
    let parent = nix::unistd::getpid();
    // SAFETY: the hook runs in the forked child before exec. It makes plain system calls on values
    // it owns, takes no lock and allocates nothing (io::Error::from is a conversion of an errno).
    unsafe {
        command.pre_exec(move || {
            if let Some(mut door) = birth.cgroup.as_ref() {
                door.write_all(b"0")?;
            }
            if let Some(netns) = &birth.netns {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
            }
            if !birth.files.is_empty() {
                const NONE: Option<&[u8]> = None;
                unshare(CloneFlags::CLONE_NEWNS)?;
                mount(NONE, &b"/"[..], NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
                for (ours, theirs) in &birth.files {
                    mount(Some(&**ours), &**theirs, NONE, MsFlags::MS_BIND, NONE)?;
                }
            }
            if let Some(limit) = birth.nofile {
                setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
            }
            if let Some(id) = identity {
                drop_to(id)?;
            }
            // After the change of identity, which clears the setting.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
}

/// Becomes `id`, user and group alike, without supplementary groups; from root this drops every
/// capability.
fn drop_to(id: u32) -> nix::Result<()> {
    nix::unistd::setgroups(&[])?;
    nix::unistd::setgid(nix::unistd::Gid::from_raw(id))?;
    nix::unistd::setuid(nix::unistd::Uid::from_raw(id))
}
