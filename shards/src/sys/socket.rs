//! TCP sockets: the calls of a transparent relay, all non-blocking.

use super::{Fd, check, check_len};
use std::{
    io::{self, IoSlice},
    mem::{size_of, size_of_val},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

/// `IP6T_SO_ORIGINAL_DST` (linux/netfilter_ipv6/ip6_tables.h); the v4 one has the same number.
const SO_ORIGINAL_DST: libc::c_int = 80;

/// What every socket of the relay is given. Accepted sockets inherit it from their listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// TCP_USER_TIMEOUT in milliseconds: how long sent bytes may stay unacknowledged.
    pub(crate) user_timeout_ms: libc::c_int,
    /// TCP_KEEPIDLE in seconds. TCP_USER_TIMEOUT also bounds the probes (man 7 tcp).
    pub(crate) keepalive_s: libc::c_int,
}

/// Sets TCP_NODELAY. SO_OOBINLINE is left off: with it an urgent byte would be among the bytes for a
/// reader that has not asked for that, and the kernel does not say which of them it is.
fn tune(fd: Fd) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

/// Sets the options of [`Tuning`].
pub(crate) fn watch_silence(fd: Fd, tuning: Tuning) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, tuning.keepalive_s)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, tuning.user_timeout_ms)
}

fn set(fd: Fd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads four bytes of `value`, which lives for the call.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            socklen(size_of::<libc::c_int>()),
        )
    })
    .map(|_| ())
}

fn socklen(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(libc::socklen_t::MAX)
}

fn stream_socket(family: libc::c_int) -> io::Result<Fd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    check(unsafe { libc::socket(family, kind, libc::IPPROTO_TCP) })
}

/// A listener on every address, v4 and v6, that shares its port with the other shards'. Where the
/// kernel has no IPv6 it listens on v4 alone.
pub(crate) fn listen(port: u16, tuning: Tuning) -> io::Result<Fd> {
    let (fd, address) = match stream_socket(libc::AF_INET6) {
        Ok(fd) => (fd, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        Err(_) => (stream_socket(libc::AF_INET)?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
    };
    let listening = (|| {
        if address.is_ipv6() {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
        }
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        tune(fd)?;
        watch_silence(fd, tuning)?;
        bind(fd, address)?;
        // SAFETY: no memory is passed. The kernel caps the backlog at net.core.somaxconn.
        check(unsafe { libc::listen(fd, 65_535) }).map(|_| ())
    })();
    match listening {
        Ok(()) => Ok(fd),
        Err(e) => {
            super::close(fd);
            Err(e)
        }
    }
}

/// Whether somebody else listens on `port` already. SO_REUSEPORT would let us join a stranger of
/// the same user in silence; a bind without it does not (man 7 socket).
pub(crate) fn port_is_free(port: u16) -> io::Result<()> {
    let (fd, address) = match stream_socket(libc::AF_INET6) {
        Ok(fd) => (fd, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        Err(_) => (stream_socket(libc::AF_INET)?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
    };
    let free = set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).and_then(|()| bind(fd, address));
    super::close(fd);
    free
}

/// Whether `ip` is an address of this host: only those may be bound, unless net.ipv4.ip_nonlocal_bind
/// or its v6 twin allows it of every address. Then the links are asked.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    let nobodys = match ip {
        IpAddr::V4(_) => IpAddr::from([192, 0, 2, 1]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    };
    let is_on_link = || super::links::any_address(|_, own| own == ip).unwrap_or(false);
    may_bind(ip) && (!may_bind(nobodys) || ip.is_loopback() || is_on_link())
}

fn may_bind(ip: IpAddr) -> bool {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let Ok(fd) = stream_socket(family) else { return false };
    let bound = bind(fd, SocketAddr::new(ip, 0));
    super::close(fd);
    // An address of which no port is left is ours.
    bound.map_or_else(|e| e.raw_os_error() == Some(libc::EADDRINUSE), |()| true)
}

fn bind(fd: Fd, address: SocketAddr) -> io::Result<()> {
    let (raw, len) = to_raw(address);
    // SAFETY: the kernel reads `len` bytes of `raw`, which lives for the call and is that long.
    check(unsafe { libc::bind(fd, (&raw const raw).cast(), len) }).map(|_| ())
}

/// Takes one connection from a listener's queue, and says who made it.
pub(crate) fn accept(listener: Fd) -> io::Result<(Fd, Option<SocketAddr>)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let mut raw = empty_storage();
    let mut len = socklen(size_of_val(&raw));
    // SAFETY: the kernel writes at most `len` bytes into `raw` and the length into `len`.
    let fd = check(unsafe { libc::accept4(listener, (&raw mut raw).cast(), &raw mut len, flags) })?;
    Ok((fd, from_raw(&raw).ok()))
}

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial<'d> {
    /// The congestion control to use instead of the default one: a paced one only burns CPU on
    /// this host (BBR halves bulk on loopback).
    pub(crate) congestion: Option<&'d [u8]>,
    /// Bytes will be sent as soon as it is connected.
    pub(crate) has_bytes: bool,
    /// The address of this host to come from; without, the kernel chooses.
    pub(crate) source: Option<IpAddr>,
}

/// A new socket that has begun to connect: true when it is connected already.
pub(crate) fn dial(to: SocketAddr, dial: Dial<'_>) -> io::Result<(Fd, bool)> {
    let Dial { congestion, has_bytes, source } = dial;
    let fd = stream_socket(if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })?;
    let connecting = (|| {
        tune(fd)?;
        if let Some(name) = congestion {
            // Where it may not be chosen the default one is only slower.
            let _ = set_congestion(fd, name);
        }
        if has_bytes {
            // The handshake's last step then waits for the first bytes and goes with them, for
            // 200 ms at most (tcp_rcv_synsent_state_process in tcp_input.c: "Save one ACK"). A
            // kernel that does not only sends a packet more. It must not last: see
            // [`acknowledge_at_once`].
            let _ = set(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0);
        }
        if let Some(source) = source {
            // The port is chosen when both addresses are known: otherwise one port of `source` would
            // be for one destination only (man 7 ip). An older kernel does just that.
            let _ = set(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
            bind(fd, SocketAddr::new(source, 0))?;
        }
        connect(fd, to)
    })();
    match connecting {
        Ok(connected) => Ok((fd, connected)),
        Err(e) => {
            super::close(fd);
            Err(e)
        }
    }
}

/// Takes back what [`Dial::has_bytes`] asked for, once the bytes are sent. Otherwise the socket goes
/// on to keep its acknowledgements for 40 ms in the hope of bytes to send them with, and a server
/// that writes head and body in two calls with Nagle's algorithm on waits for them (man 7 tcp).
pub(crate) fn acknowledge_at_once(fd: Fd) {
    // Only a socket without a connection refuses, and nothing waits for its acknowledgements.
    let _ = set(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1);
}

/// Begins to connect, or asks how far it has come: on this host the handshake runs inside the
/// first call, and a second one says so without a trip through the poller.
fn connect(fd: Fd, to: SocketAddr) -> io::Result<bool> {
    let (raw, len) = to_raw(to);
    for _ in 0..2 {
        // SAFETY: the kernel reads `len` bytes of `raw`, which lives for the call and is that long.
        match check(unsafe { libc::connect(fd, (&raw const raw).cast(), len) }) {
            Ok(_) => return Ok(true),
            Err(e) => match e.raw_os_error() {
                Some(libc::EINPROGRESS | libc::EALREADY) => {}
                Some(libc::EISCONN) => return Ok(true),
                _ => return Err(e),
            },
        }
    }
    Ok(false)
}

/// Chooses a socket's congestion control by name (man 7 tcp, TCP_CONGESTION).
pub(crate) fn set_congestion(fd: Fd, name: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `name.len()` bytes of `name`, which lives for the call.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            socklen(name.len()),
        )
    })
    .map(|_| ())
}

/// Whether the host's default congestion control paces by timers (BBR), as seen on `fd`.
pub(crate) fn congestion_is_paced(fd: Fd) -> bool {
    let mut name = [0u8; 16];
    let mut len = socklen(name.len());
    // SAFETY: the kernel writes at most `len` bytes into `name` and the length into `len`.
    let ret = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    ret == 0 && name.starts_with(b"bbr")
}

/// The pending error of a socket (SO_ERROR), which ends a dial: none means connected.
pub(crate) fn take_error(fd: Fd) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut len = socklen(size_of_val(&error));
    // SAFETY: the kernel writes four bytes into `error` and the length into `len`.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        )
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The errno of a socket's pending error, if it has one.
pub(crate) fn error_of(fd: Fd) -> Option<libc::c_int> {
    take_error(fd).err().and_then(|e| e.raw_os_error())
}

/// Receives into `buffer`; 0 is the end of stream.
pub(crate) fn receive(fd: Fd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    check_len(unsafe {
        libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
    })
}

/// Copies what can be received into `buffer` and leaves it in the socket; 0 is the end of stream.
pub(crate) fn peek(fd: Fd, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    check_len(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// Takes `len` bytes out of the socket without copying them (man 7 tcp: MSG_TRUNC). They must be
/// there, as a peek has shown.
pub(crate) fn take(fd: Fd, mut len: usize) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    while len > 0 {
        // SAFETY: with MSG_TRUNC the kernel discards the bytes and writes to no memory.
        match check_len(unsafe { libc::recv(fd, std::ptr::null_mut(), len, flags) })? {
            0 => return Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            taken => len -= taken,
        }
    }
    Ok(())
}

/// Sends bytes; fewer than given when the socket is full.
pub(crate) fn send(fd: Fd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most `bytes.len()` bytes of `bytes`.
    check_len(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Sends bytes that may wait for what follows, which is a [`shutdown_write`] in a moment: the end
/// then travels in their packet (man 2 send, MSG_MORE; tcp_send_fin in tcp_output.c). Alone they
/// would leave after 200 ms.
pub(crate) fn send_before_end(fd: Fd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE;
    // SAFETY: the kernel reads at most `bytes.len()` bytes of `bytes`.
    check_len(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Sends what waits for more. Setting TCP_NODELAY, also where it is set, does that (man 7 tcp).
pub(crate) fn push(fd: Fd) {
    // Only a socket without a connection refuses it, and from there nothing can be sent.
    let _ = set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
}

/// Sends several pieces in one call; fewer bytes than given when the socket is full.
pub(crate) fn send_pieces(fd: Fd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: a zeroed msghdr is a valid one: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSlice is guaranteed to have the layout of iovec on Unix (std::io::IoSlice).
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads `message` and the pieces it points to, all borrowed for the call.
    check_len(unsafe { libc::sendmsg(fd, &raw const message, flags) })
}

/// Ends our side of the stream: the peer sees the end after all bytes sent so far.
pub(crate) fn shutdown_write(fd: Fd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::shutdown(fd, libc::SHUT_WR) }).map(|_| ())
}

/// Makes the closing of this socket a reset instead of an orderly end (SO_LINGER of zero).
pub(crate) fn reset_on_close(fd: Fd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the kernel reads `linger`, which lives for the call. A failure leaves an orderly end.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            socklen(size_of::<libc::linger>()),
        );
    }
}

/// Where the client wanted to go before netfilter redirected it: SO_ORIGINAL_DST for v4 (and
/// v4-mapped) connections, IP6T_SO_ORIGINAL_DST for v6. ENOENT: conntrack does not know it.
pub(crate) fn original_dst(fd: Fd, local: SocketAddr) -> io::Result<SocketAddr> {
    let level = if local.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let mut raw = empty_storage();
    let mut len = socklen(if local.is_ipv4() {
        size_of::<libc::sockaddr_in>()
    } else {
        size_of::<libc::sockaddr_in6>()
    });
    // SAFETY: the kernel writes at most `len` bytes into `raw`, which is larger.
    check(unsafe {
        libc::getsockopt(fd, level, SO_ORIGINAL_DST, (&raw mut raw).cast(), &raw mut len)
    })?;
    from_raw(&raw)
}

/// The connection's own address, v4-mapped ones as v4.
pub(crate) fn local_addr(fd: Fd) -> io::Result<SocketAddr> {
    let mut raw = empty_storage();
    let mut len = socklen(size_of_val(&raw));
    // SAFETY: the kernel writes at most `len` bytes into `raw`.
    check(unsafe { libc::getsockname(fd, (&raw mut raw).cast(), &raw mut len) })?;
    from_raw(&raw)
}

/// The peer's address, v4-mapped ones as v4.
pub(crate) fn peer_addr(fd: Fd) -> io::Result<SocketAddr> {
    let mut raw = empty_storage();
    let mut len = socklen(size_of_val(&raw));
    // SAFETY: the kernel writes at most `len` bytes into `raw`.
    check(unsafe { libc::getpeername(fd, (&raw mut raw).cast(), &raw mut len) })?;
    from_raw(&raw)
}

fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

pub(super) fn empty_storage() -> libc::sockaddr_storage {
    // SAFETY: sockaddr_storage is plain integers; all zeroes is AF_UNSPEC.
    unsafe { std::mem::zeroed() }
}

fn to_raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let mut storage = empty_storage();
    let base = &raw mut storage;
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large and aligned enough for every sockaddr (POSIX).
            unsafe { base.cast::<libc::sockaddr_in>().write(raw) };
            (storage, socklen(size_of_val(&raw)))
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { base.cast::<libc::sockaddr_in6>().write(raw) };
            (storage, socklen(size_of_val(&raw)))
        }
    }
}

pub(super) fn from_raw(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let base = std::ptr::from_ref(storage);
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel filled a sockaddr_in, as its family says.
            let raw = unsafe { base.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Ok(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the kernel filled a sockaddr_in6, as its family says.
            let raw = unsafe { base.cast::<libc::sockaddr_in6>().read() };
            let (ip, port) = (Ipv6Addr::from(raw.sin6_addr.s6_addr), u16::from_be(raw.sin6_port));
            Ok(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddrV4::new(v4, port).into(),
                None => SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into(),
            })
        }
        family => Err(io::Error::other(format!("address family {family}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in
            ["127.0.0.1:80", "10.1.2.3:65535", "[::1]:443", "[fe80::1%3]:9", "[2001:db8::7]:1"]
        {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(from_raw(&to_raw(address).0).unwrap(), address);
        }
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(from_raw(&to_raw(mapped).0).unwrap(), "10.0.0.1:80".parse().unwrap());
    }

    #[test]
    fn an_accepted_socket_inherits_what_the_listener_was_given() {
        let tuning = Tuning { user_timeout_ms: 7_000, keepalive_s: 33 };
        let listener = listen(0, tuning).unwrap();
        let port = local_addr(listener).unwrap().port();
        let how = Dial { congestion: None, has_bytes: false, source: None };
        let (client, _) = dial(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), how).unwrap();
        let (accepted, caller) = accept(listener).unwrap();
        assert_eq!(caller, Some(local_addr(client).unwrap()));
        let option = |level, name| {
            let (mut value, mut len): (libc::c_int, libc::socklen_t) = (0, 4);
            // SAFETY: the kernel writes four bytes into `value` and the length into `len`.
            let ret = unsafe {
                libc::getsockopt(accepted, level, name, (&raw mut value).cast(), &raw mut len)
            };
            assert_eq!(ret, 0);
            value
        };
        assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
        assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), 7_000);
        assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 33);
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        for fd in [accepted, client, listener] {
            super::super::close(fd);
        }
    }

    #[test]
    fn only_own_addresses_are_local() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
    }
}
