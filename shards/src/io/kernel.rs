//! What the ring and the epoll backend have in common: the calls that are plain system calls in
//! both.

use super::{Close, Dialled, Hop};
use crate::{
    config::Limits,
    sys::{
        self, Fd,
        socket::{self, Tuning},
    },
};
use std::{io, net::SocketAddr};

/// The congestion control of hops that stay on this host where the default one paces.
const LOCAL_HOP_CONGESTION: &[u8] = b"reno";

/// The listener and what new sockets are given.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) listener: Option<Fd>,
    tuning: Tuning,
    /// The host's default congestion control paces by timers, which costs a local hop CPU and
    /// latency and buys it nothing.
    paced: bool,
}

impl Kernel {
    pub(crate) fn new(listener: Fd, limits: &Limits) -> Self {
        Self {
            listener: Some(listener),
            tuning: tuning(limits),
            paced: socket::congestion_is_paced(listener),
        }
    }

    pub(crate) fn dial(&self, to: SocketAddr, hop: Hop) -> io::Result<Dialled> {
        let congestion = (hop.is_local && self.paced).then_some(LOCAL_HOP_CONGESTION);
        let dial = socket::Dial { congestion, has_bytes: hop.has_bytes, source: hop.source };
        socket::dial(to, dial).map(|(fd, connected)| Dialled { fd, connected })
    }

    pub(crate) fn watch_silence(&self, fd: Fd) {
        // Only a socket that has ended refuses.
        let _ = socket::watch_silence(fd, self.tuning);
    }

    pub(crate) fn local_hop(&self, fd: Fd) {
        if self.paced {
            // A kernel without it keeps its default, which is only slower.
            let _ = socket::set_congestion(fd, LOCAL_HOP_CONGESTION);
        }
    }

    pub(crate) fn close_listener(&mut self) {
        if let Some(fd) = self.listener.take() {
            sys::close(fd);
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.close_listener();
    }
}

/// What the limits mean for a socket.
pub(crate) fn tuning(limits: &Limits) -> Tuning {
    let clamp = |n: u128| libc::c_int::try_from(n).unwrap_or(libc::c_int::MAX);
    Tuning {
        user_timeout_ms: clamp(limits.user_timeout.as_millis()),
        keepalive_s: clamp(limits.keepalive.as_secs().max(1).into()).min(32_767),
    }
}

/// Closes a descriptor in the given way.
pub(crate) fn close(fd: Fd, how: Close) {
    if how == Close::Reset {
        socket::reset_on_close(fd);
    }
    sys::close(fd);
}

/// The calls of an [`super::Io`] that are the same system call in both: everything but waiting,
/// receiving and watching. A backend has a `kernel: Kernel`, an `accepted` and an `fd(token)`.
macro_rules! plain_calls {
    () => {
        type Pipe = $crate::sys::pipe::Pipe;

        fn now(&self) -> $crate::sys::Nanos {
            $crate::sys::monotonic_ns()
        }

        fn listener_closed(&self) -> bool {
            self.kernel.listener.is_none()
        }

        fn local_addr(&self, fd: $crate::sys::Fd) -> std::io::Result<std::net::SocketAddr> {
            $crate::sys::socket::local_addr(fd)
        }

        fn original_dst(
            &self,
            fd: $crate::sys::Fd,
            local: std::net::SocketAddr,
        ) -> std::io::Result<std::net::SocketAddr> {
            $crate::sys::socket::original_dst(fd, local)
        }

        fn caller_of(&self, fd: $crate::sys::Fd) -> std::io::Result<std::net::SocketAddr> {
            match self.accepted {
                Some((accepted, caller)) if accepted == fd => Ok(caller),
                _ => $crate::sys::socket::peer_addr(fd),
            }
        }

        fn is_local(&self, ip: std::net::IpAddr) -> bool {
            $crate::sys::socket::is_local(ip)
        }

        fn is_link_of(&self, ip: std::net::IpAddr, links: &$crate::links::LinkNames) -> bool {
            links.have(ip)
        }

        fn peer_addr(&self, token: $crate::io::Token) -> std::io::Result<std::net::SocketAddr> {
            $crate::sys::socket::peer_addr(self.fd(token))
        }

        fn tcp_info(&self, token: $crate::io::Token) -> std::io::Result<$crate::sys::TcpInfo> {
            $crate::sys::tcp_info::tcp_info(self.fd(token))
        }

        fn receive_early(
            &mut self,
            fd: $crate::sys::Fd,
            into: &mut [u8],
        ) -> std::io::Result<usize> {
            $crate::sys::socket::receive(fd, into)
        }

        fn receive_first(
            &mut self,
            token: $crate::io::Token,
            into: &mut [u8],
        ) -> std::io::Result<usize> {
            $crate::sys::socket::receive(self.fd(token), into)
        }

        fn dial(
            &mut self,
            to: std::net::SocketAddr,
            hop: $crate::io::Hop,
        ) -> std::io::Result<$crate::io::Dialled> {
            self.kernel.dial(to, hop)
        }

        fn local_hop(&mut self, fd: $crate::sys::Fd) {
            self.kernel.local_hop(fd);
        }

        fn discard(&mut self, fd: $crate::sys::Fd, how: $crate::io::Close) {
            $crate::io::kernel::close(fd, how);
        }

        fn dial_outcome(&mut self, token: $crate::io::Token) -> std::io::Result<()> {
            $crate::sys::socket::take_error(self.fd(token))
        }

        fn send(&mut self, token: $crate::io::Token, bytes: &[u8]) -> std::io::Result<usize> {
            $crate::sys::socket::send(self.fd(token), bytes)
        }

        fn send_before_end(
            &mut self,
            token: $crate::io::Token,
            bytes: &[u8],
        ) -> std::io::Result<usize> {
            $crate::sys::socket::send_before_end(self.fd(token), bytes)
        }

        fn push(&mut self, token: $crate::io::Token) {
            $crate::sys::socket::push(self.fd(token));
        }

        fn send_pieces(
            &mut self,
            token: $crate::io::Token,
            pieces: &[std::io::IoSlice<'_>],
        ) -> std::io::Result<usize> {
            $crate::sys::socket::send_pieces(self.fd(token), pieces)
        }

        fn peek(&mut self, token: $crate::io::Token, into: &mut [u8]) -> std::io::Result<usize> {
            $crate::sys::socket::peek(self.fd(token), into)
        }

        fn take(&mut self, token: $crate::io::Token, len: usize) -> std::io::Result<()> {
            $crate::sys::socket::take(self.fd(token), len)
        }

        fn shutdown_write(&mut self, token: $crate::io::Token) -> std::io::Result<()> {
            $crate::sys::socket::shutdown_write(self.fd(token))
        }

        fn pipe(&mut self, bytes: u32) -> std::io::Result<$crate::sys::pipe::Pipe> {
            $crate::sys::pipe::Pipe::new(bytes)
        }

        fn pipe_capacity(pipe: &$crate::sys::pipe::Pipe) -> u32 {
            pipe.capacity()
        }

        fn fill(
            &mut self,
            token: $crate::io::Token,
            pipe: &$crate::sys::pipe::Pipe,
            len: usize,
        ) -> std::io::Result<usize> {
            pipe.fill(self.fd(token), len)
        }

        fn drain(
            &mut self,
            token: $crate::io::Token,
            pipe: &$crate::sys::pipe::Pipe,
            len: usize,
        ) -> std::io::Result<usize> {
            pipe.drain(self.fd(token), len)
        }
    };
}
pub(crate) use plain_calls;
