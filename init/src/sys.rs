//! The one door to `unsafe`: system calls that `std` does not wrap.

use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A non-blocking socket to a part of the kernel, such as nf_tables. Requests are answered before
/// `write` returns, so a read that would block means that there is no more to read.
pub(crate) fn netlink_socket(protocol: libc::c_int) -> io::Result<File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes integers only; no memory is shared with the kernel.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was opened by the call above and nobody else knows it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A socket that sends whole frames by a link, past everything that looks at what this machine
/// sends. It receives nothing.
pub(crate) fn frame_socket(link: u32) -> io::Result<File> {
    // SAFETY: takes integers only; no memory is shared with the kernel.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was opened by the call above and nobody else knows it.
    let socket = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: plain integers; all zeroes is an address without protocol and link.
    let mut addr: libc::sockaddr_ll = unsafe { mem::zeroed() };
    addr.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or(0);
    addr.sll_ifindex = libc::c_int::try_from(link).unwrap_or(0);
    // SAFETY: the address is as long as said and outlives the call, which copies it.
    let bound = unsafe {
        let addr = (&raw const addr).cast();
        libc::bind(socket.as_raw_fd(), addr, socklen::<libc::sockaddr_ll>())
    };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// Makes room for a large transaction. Best effort: a small one fits without.
pub(crate) fn grow_buffers(socket: &File, bytes: libc::c_int) {
    for option in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
        // SAFETY: the pointer is to a live c_int and the length is its size; the kernel copies it.
        let _ = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                socklen::<libc::c_int>(),
            )
        };
    }
}

/// Moves this process, which has one thread, into a network namespace.
pub(crate) fn enter_netns(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call; no memory is shared with the kernel.
    match unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `CAP_*`
pub(crate) const SETGID: u32 = 6;
pub(crate) const SETUID: u32 = 7;
pub(crate) const NET_ADMIN: u32 = 12;
pub(crate) const NET_RAW: u32 = 13;

/// The capabilities that are in effect, a bit for each.
pub(crate) fn capabilities() -> io::Result<u64> {
    let [low, high] = capability_data()?;
    Ok(u64::from(high.effective) << 32 | u64::from(low.effective))
}

/// Puts into effect what this process is permitted, and passes nothing of it on. File capabilities
/// without the effective bit permit only: with that bit, the kernel would refuse to start us where
/// they are not granted, and nobody could say which is missing.
pub(crate) fn claim_capabilities() {
    set_capabilities(|word, _| {
        word.effective = word.permitted;
        word.inheritable = 0;
    });
}

/// Whether this process has privileges that whoever started it may not have: then its environment
/// is not to be trusted.
pub(crate) fn is_started_with_more_privileges() -> bool {
    // SAFETY: takes an integer only and reads what the kernel laid down at the start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// While it lives, programs that this process starts get these capabilities: file capabilities of
/// ours would not reach them. Best effort: as root they have them anyway.
#[derive(Debug)]
pub(crate) struct Ambient(());

impl Ambient {
    pub(crate) fn raise(capabilities: &[u32]) -> Self {
        set_capabilities(|word, index| {
            let of_word = capabilities.iter().filter(|capability| **capability / 32 == index);
            word.inheritable = of_word.fold(0, |word, capability| word | 1 << (capability % 32));
        });
        for &capability in capabilities {
            let zero: libc::c_ulong = 0;
            // SAFETY: takes integers only, all of the width prctl reads.
            let _ = unsafe {
                libc::prctl(
                    libc::PR_CAP_AMBIENT,
                    libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
                    libc::c_ulong::from(capability),
                    zero,
                    zero,
                )
            };
        }
        Self(())
    }
}

impl Drop for Ambient {
    fn drop(&mut self) {
        // What cannot be inherited is not ambient either: the kernel takes it out of both.
        set_capabilities(|word, _| word.inheritable = 0);
    }
}

/// Changes both words of capabilities. Best effort: it only takes from what is permitted.
fn set_capabilities(mut change: impl FnMut(&mut CapData, u32)) {
    if let Ok(mut data) = capability_data() {
        for (word, index) in data.iter_mut().zip(0..) {
            change(word, index);
        }
        let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
        // SAFETY: version 3 reads a header and exactly two data entries, which both are.
        unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    }
}

fn capability_data() -> io::Result<[CapData; 2]> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 writes a header and exactly two data entries, which both are.
    match unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } {
        0 => Ok(data),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sockets that this process makes from now on count as made by this user and group. Needs
/// CAP_SETUID and CAP_SETGID; the kernel does not say whether it did it.
pub(crate) fn make_sockets_as(uid: u32, gid: u32) {
    // SAFETY: both take an integer only.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// Lets the programs that this process starts keep the file open.
pub(crate) fn pass_on(file: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: takes integers only; the descriptor is open as long as `file` is borrowed.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this process may make an io_uring: `Ok`, or why not.
pub(crate) fn probe_io_uring() -> io::Result<()> {
    // `struct io_uring_params`
    let mut params = [0_u8; 120];
    // SAFETY: the buffer is as large as the structure and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, params.as_mut_ptr()) };
    let fd = libc::c_int::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was opened by the call above and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// Where a redirected connection was dialled to.
pub fn original_dst(connection: &TcpStream) -> io::Result<SocketAddr> {
    // A dual-stack listener reports IPv4 peers as mapped addresses.
    if connection.local_addr()?.ip().to_canonical().is_ipv4() {
        let addr: libc::sockaddr_in = original(connection, libc::SOL_IP, libc::SO_ORIGINAL_DST)?;
        let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
        return Ok(SocketAddr::new(ip.into(), u16::from_be(addr.sin_port)));
    }
    let addr: libc::sockaddr_in6 =
        original(connection, libc::SOL_IPV6, libc::IP6T_SO_ORIGINAL_DST)?;
    let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
    Ok(SocketAddr::new(ip.into(), u16::from_be(addr.sin6_port)))
}

/// Types the kernel may fill with any bytes.
trait SocketAddress: Copy {}
impl SocketAddress for libc::sockaddr_in {}
impl SocketAddress for libc::sockaddr_in6 {}

fn original<T: SocketAddress>(
    connection: &TcpStream,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<T> {
    let mut addr = MaybeUninit::<T>::zeroed();
    let mut len = socklen::<T>();
    // SAFETY: the buffer is as large as `len` says and both outlive the call.
    let outcome = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            level,
            option,
            addr.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before, and `T` is a socket address: plain integers, any bytes are valid.
    Ok(unsafe { addr.assume_init() })
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).unwrap_or(0)
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`
#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}
