//! The face of the kernel that the connection code sees. Three backends stand behind it: `ring`
//! (io_uring), `epoll` with the same behaviour, and `sim`, a simulated kernel for tests.
//!
//! Receives are completions: a backend hands over filled buffers. Sends, splices and the rest are
//! plain non-blocking calls that say at once what they did; a socket that is full is watched until
//! it can be written. Measured, that is the fastest mix here (`docs/adr/0002-byte-mover.md`).

pub(crate) mod epoll;
pub(crate) mod kernel;
pub(crate) mod ring;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod sim_chance;
#[cfg(test)]
pub(crate) mod sim_peer;
#[cfg(test)]
mod sim_socket;
mod table;

use crate::{
    buffers::{BufferId, BufferPool},
    links::LinkNames,
    sys::{Fd, Nanos, TcpInfo},
};
use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
};

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected to us.
    Downstream,
    /// Whom we dial.
    Upstream,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// Names one socket of one connection. The generation tells a slot's tenants apart, so that what
/// is left over from an earlier connection is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) side: Side,
}

impl Token {
    /// The index of this socket in a backend's table.
    pub(crate) fn key(self) -> usize {
        self.slot as usize * 2 + usize::from(self.side == Side::Upstream)
    }

    /// The other socket of the same connection.
    pub(crate) fn other(self) -> Self {
        Self { side: self.side.other(), ..self }
    }

    pub(crate) fn of(key: usize, generation: u32) -> Self {
        let side = if key.is_multiple_of(2) { Side::Downstream } else { Side::Upstream };
        Self { slot: u32::try_from(key / 2).unwrap_or(u32::MAX), generation, side }
    }
}

/// What a turn brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connection was accepted; its descriptor is the receiver's to close.
    Accepted(Fd),
    /// An accept failed with this errno.
    AcceptFailed(i32),
    /// Bytes arrived in a buffer, which is the receiver's to return.
    Received(Token, BufferId),
    /// The peer ended its stream.
    Ended(Token),
    /// Receiving failed with this errno.
    Failed(Token, i32),
    /// There was no buffer; receiving has stopped.
    Starved(Token),
    /// Receiving has stopped, as asked.
    Paused(Token),
    /// The socket that was watched can be read.
    Readable(Token),
    /// The socket that was watched can be written.
    Writable(Token),
    /// Its peer has sent an urgent byte, which the kernel leaves out: told once of a socket, and by
    /// epoll only. (A poll of io_uring asks the socket again when the shard wakes up, and by then the
    /// receive has passed the mark: 4 of 20 were seen.)
    Urgent(Token),
    /// The socket is closed; its slot may be used again.
    Closed(Token),
    /// Another thread has sent a command.
    Woken,
}

impl Event {
    /// Whose event it is.
    pub(crate) fn token(&self) -> Option<Token> {
        match self {
            Self::Accepted(_) | Self::AcceptFailed(_) | Self::Woken => None,
            Self::Received(token, _)
            | Self::Failed(token, _)
            | Self::Ended(token)
            | Self::Starved(token)
            | Self::Paused(token)
            | Self::Readable(token)
            | Self::Writable(token)
            | Self::Urgent(token)
            | Self::Closed(token) => Some(*token),
        }
    }

    /// Whether an upstream is likely to answer what this brings.
    pub(crate) fn asks(&self) -> bool {
        match self {
            Self::Accepted(_) => true,
            Self::Received(token, _) | Self::Readable(token) => token.side == Side::Downstream,
            _ => false,
        }
    }
}

/// Connections that a backend may accept before it hears that there is no more room.
pub(crate) const ACCEPTS_AHEAD: u32 = 8;

/// How long a turn may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    Poll,
    /// Until something happens.
    Forever,
    /// Until something happens, this many nanoseconds at most.
    AtMost(Nanos),
}

/// What polling came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// Events were there already: that says nothing about whether any can come while we poll.
    AtOnce,
    /// Events came.
    Found,
    /// None came.
    Nothing,
}

/// Whether what was asked is done or will be told by an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// It is done; no event comes.
    Now,
    /// An event will tell.
    Later,
}

/// How a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// The peer sees the end of the stream.
    Orderly,
    /// The peer sees a reset.
    Reset,
}

/// What is known about the way to a peer that is dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    /// The peer is on this host.
    pub(crate) is_local: bool,
    /// Bytes for it are at hand: the handshake's last step may travel with them, after which
    /// [`Io::acknowledge_at_once`] is due.
    pub(crate) has_bytes: bool,
    /// The address of this host to come from; without, the kernel chooses.
    pub(crate) source: Option<IpAddr>,
}

/// A socket that has begun to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialled {
    pub(crate) fd: Fd,
    /// It is connected already.
    pub(crate) connected: bool,
}

/// The kernel, as the connection code sees it.
pub(crate) trait Io {
    /// A kernel pipe for splicing. Dropping it discards what it holds.
    type Pipe;

    /// Monotonic time, in nanoseconds.
    fn now(&self) -> Nanos;

    /// Submits what was asked for and waits for events as long as `wait` says.
    fn turn(&mut self, pool: &mut BufferPool, wait: Wait) -> io::Result<()>;
    /// The next event of this turn.
    fn next(&mut self, pool: &mut BufferPool) -> Option<Event>;
    /// Submits what was asked for and polls for events up to `budget` without sleeping.
    fn poll(&mut self, budget: Nanos) -> Polled;

    /// Accepts connections while there is room for that many; with none they stay in the kernel's
    /// queue. [`ACCEPTS_AHEAD`] may have been accepted already when the room goes.
    fn accept(&mut self, room: u32);
    /// Takes what is in the kernel's queue, as far as there is room, and then closes the listener.
    fn close_listener(&mut self, room: u32);
    /// The listener is closed.
    fn listener_closed(&self) -> bool;

    /// The own address of an accepted connection.
    fn local_addr(&self, fd: Fd) -> io::Result<SocketAddr>;
    /// The original destination of an accepted connection.
    fn original_dst(&self, fd: Fd, local: SocketAddr) -> io::Result<SocketAddr>;
    /// Who made an accepted connection. Asked before the next event, it takes no call: accepting has
    /// told.
    fn caller_of(&self, fd: Fd) -> io::Result<SocketAddr>;
    /// Whether `ip` is an address of this host.
    fn is_local(&self, ip: IpAddr) -> bool;
    /// Whether `ip` is the address of one of these links of this host.
    fn is_link_of(&self, ip: IpAddr, links: &LinkNames) -> bool;
    /// The other address of a connection.
    fn peer_addr(&self, token: Token) -> io::Result<SocketAddr>;
    /// What TCP knows about a socket.
    fn tcp_info(&self, token: Token) -> io::Result<TcpInfo>;
    /// Receives from an accepted connection what is there already; 0 is the end of the stream.
    fn receive_early(&mut self, fd: Fd, into: &mut [u8]) -> io::Result<usize>;
    /// Receives what is there already, where nothing else receives; 0 is the end of the stream.
    fn receive_first(&mut self, token: Token, into: &mut [u8]) -> io::Result<usize>;
    /// Begins to connect.
    fn dial(&mut self, to: SocketAddr, hop: Hop) -> io::Result<Dialled>;
    /// Tells that the peer of an accepted connection is on this host.
    fn local_hop(&mut self, fd: Fd);
    /// Closes a descriptor that was never opened under a token.
    fn discard(&mut self, fd: Fd, how: Close);

    /// Puts a descriptor under a token; it is the backend's to close, also when this fails.
    fn open(&mut self, token: Token, fd: Fd) -> io::Result<()>;
    /// Exchanges what stands under two tokens, be it a socket or nothing: what is asked of either goes on
    /// under the other. False, and nothing is done, while an event is on its way that names one of them.
    fn exchange(&mut self, one: Token, other: Token) -> bool;
    /// How a dial ended, when its socket has become writable.
    fn dial_outcome(&mut self, token: Token) -> io::Result<()>;
    /// Has the kernel watch an upstream for silence: keep-alive, and the limit on unacknowledged
    /// bytes. A downstream is from the beginning, as its listener was. A token that is no longer
    /// open is let be.
    fn watch_silence(&mut self, token: Token);
    /// The bytes that a dial was told of are sent: what comes is acknowledged at once again. A token
    /// that is no longer open is let be.
    fn acknowledge_at_once(&mut self, token: Token);
    /// Receives until told otherwise.
    fn receive(&mut self, token: Token);
    /// Stops receiving. What arrives until [`Event::Paused`] is still handed over.
    fn pause(&mut self, token: Token) -> When;
    /// Brings [`Event::Readable`] once. Only after a call said that there is nothing to read.
    fn watch_read(&mut self, token: Token);
    /// Brings [`Event::Writable`] once. Only after a call said that the socket is full.
    fn watch_write(&mut self, token: Token);
    /// Sends bytes; fewer when the socket is full.
    fn send(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize>;
    /// Whether nothing but the end of the stream is behind the bytes that this socket handed over
    /// last: [`Event::Ended`] is the next event then, unless receiving is stopped.
    fn end_follows(&mut self, token: Token) -> bool;
    /// Sends bytes that the end of our stream will follow at once, so that both may travel in one
    /// packet: until [`Io::shutdown_write`], [`Io::push`], an orderly close or further bytes they
    /// may wait. Where the socket takes fewer than all, none waits.
    fn send_before_end(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize>;
    /// Lets go what waits for an end that will not follow.
    fn push(&mut self, token: Token);
    /// Sends pieces in one call; fewer bytes when the socket is full.
    fn send_pieces(&mut self, token: Token, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Copies what can be received without taking it; 0 is the end of the stream.
    fn peek(&mut self, token: Token, into: &mut [u8]) -> io::Result<usize>;
    /// Takes `len` bytes that were peeked at.
    fn take(&mut self, token: Token, len: usize) -> io::Result<()>;
    /// Ends our side of the stream.
    fn shutdown_write(&mut self, token: Token) -> io::Result<()>;
    /// Closes the socket; [`When::Later`] is told by [`Event::Closed`].
    fn close(&mut self, token: Token, how: Close) -> When;

    /// A new pipe of about this many bytes.
    fn pipe(&mut self, bytes: u32) -> io::Result<Self::Pipe>;
    /// Bytes that fit a pipe at most.
    fn pipe_capacity(pipe: &Self::Pipe) -> u32;
    /// Moves bytes from the socket into the pipe; 0 is the end of the stream.
    fn fill(&mut self, token: Token, pipe: &Self::Pipe, len: usize) -> io::Result<usize>;
    /// Moves bytes from the pipe to the socket.
    fn drain(&mut self, token: Token, pipe: &Self::Pipe, len: usize) -> io::Result<usize>;
}

/// The errno of an error; EIO where it has none.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Whether an error only says "not now".
pub(crate) fn would_block(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_again_by_its_key() {
        for side in [Side::Downstream, Side::Upstream] {
            let token = Token { slot: 7, generation: 9, side };
            assert_eq!(Token::of(token.key(), 9), token);
            assert_ne!(token.key(), Token { side: side.other(), ..token }.key());
        }
    }
}
