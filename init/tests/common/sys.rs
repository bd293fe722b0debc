//! The one door to `unsafe` of the tests: a kernel that lacks something, by a seccomp filter.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What a kernel can lack.
#[derive(Clone, Copy)]
pub(crate) enum Lack {
    /// nf_tables: no netlink socket to it.
    Nftables,
    /// IPv6, as with `ipv6.disable=1`.
    Ipv6,
}

/// Makes the program, and what it starts, run as on a kernel that lacks something.
pub(crate) fn on_a_kernel_without(lack: Lack, command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec, two system calls that take a pointer to memory of this frame;
    // nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(move || install(&filter(lack))) }
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const DOMAIN: u32 = 16;
const PROTOCOL: u32 = 32;

fn filter(lack: Lack) -> [libc::sock_filter; 6] {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // No other family of sockets has a protocol of the number that nf_tables has of netlink (12)
    // and is made by the programs that are tested.
    let (offset, value, error) = match lack {
        Lack::Nftables => (PROTOCOL, libc::NETLINK_NETFILTER, libc::EPROTONOSUPPORT),
        Lack::Ipv6 => (DOMAIN, libc::AF_INET6, libc::EAFNOSUPPORT),
    };
    let socket = u32::try_from(libc::SYS_socket).unwrap();
    [
        step(LOAD, 0, 0, NUMBER),
        step(EQUAL, 0, 3, socket),
        step(LOAD, 0, 0, offset),
        step(EQUAL, 0, 1, value.cast_unsigned()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | error.cast_unsigned()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn install(filter: &[libc::sock_filter; 6]) -> io::Result<()> {
    let program = libc::sock_fprog { len: 6, filter: filter.as_ptr().cast_mut() };
    // SAFETY: takes integers only.
    let kept = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program and its filter outlive the call, which copies them.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if kept == 0 && set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
