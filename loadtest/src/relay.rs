//! The smallest relay that could exist: what any sidecar must do at least, as a floor under the
//! figures of real ones. One thread, epoll by edges, connections to where they were going; no
//! accounting, no limits, no time-outs. It is for measuring, not for use.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrIn, connect, getsockopt, recv,
    send, setsockopt, shutdown, socket, sockopt,
};

use crate::error::{Context, Result};

/// As much as is read at once.
const BUFFER_BYTES: usize = 16 * 1024;
/// Events taken per wait.
const EVENT_COUNT: usize = 256;
/// Key of the listener; a connection's are twice its slot, and that plus one for its upstream.
const LISTENER: u64 = u64::MAX;

/// Both ends of a connection: downstream, upstream.
struct Pair {
    ends: [End; 2],
}

struct End {
    fd: OwnedFd,
    /// Read from it, and not yet taken by the other end.
    rest: Vec<u8>,
    has_ended: bool,
}

impl End {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, rest: Vec::new(), has_ended: false }
    }
}

/// What a turn of one direction came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// Wait for the next edge.
    Wait,
    /// The end of the stream was passed on.
    Ended,
    /// The connection is broken.
    Broken,
}

/// Relays until a signal comes. `closes_early` closes both sides as soon as one has ended, which
/// saves a turn per connection and loses what the other side still has to say.
pub(crate) fn serve(listen: SocketAddrV4, closes_early: bool) -> Result<()> {
    let listener = std::net::TcpListener::bind(SocketAddr::V4(listen))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .context(|| format!("cannot listen on {listen}"))?;
    // The default backlog of the standard library is small; accepted sockets inherit the other.
    let tuned = nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN)
        .and_then(|()| setsockopt(&listener, sockopt::TcpNoDelay, &true));
    tuned.context(|| format!("cannot listen on {listen}"))?;
    Relay::new(&listener, closes_early)
        .and_then(|mut relay| relay.run(&listener))
        .context(|| "relay".to_owned())
}

struct Relay {
    epoll: Epoll,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    closes_early: bool,
}

impl Relay {
    fn new(listener: &impl AsFd, closes_early: bool) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        let buffer = vec![0; BUFFER_BYTES];
        Ok(Self { epoll, pairs: Vec::new(), free: Vec::new(), buffer, closes_early })
    }

    fn run(&mut self, listener: &impl AsFd) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); EVENT_COUNT];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            if crate::sys::is_interrupted() {
                return Ok(());
            }
            // What ends in this turn is freed after it: a later event may still name its slot.
            let mut over = Vec::new();
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.accept(listener),
                    key => {
                        let slot = usize::try_from(key / 2).unwrap_or(usize::MAX);
                        let side = usize::from(key % 2 == 1);
                        if self.turn(slot, side, event.events()) && !over.contains(&slot) {
                            over.push(slot);
                        }
                    }
                }
            }
            for slot in over {
                self.pairs[slot] = None;
                self.free.push(slot);
            }
        }
    }

    /// Takes one connection; the listener is level-triggered, so that the next one tells of itself.
    fn accept(&mut self, listener: &impl AsFd) {
        let Ok(downstream) = crate::sys::accept(listener.as_fd()) else { return };
        // A connection that cannot be served is closed; its peer learns that.
        let Ok(upstream) = dial(&downstream) else { return };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let pair = Pair { ends: [End::new(downstream), End::new(upstream)] };
        let edges = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        for (end, key) in pair.ends.iter().zip(slot as u64 * 2..) {
            if self.epoll.add(&end.fd, EpollEvent::new(edges, key)).is_err() {
                self.free.push(slot);
                return;
            }
        }
        self.pairs[slot] = Some(pair);
    }

    /// Moves what an event tells of; true when the connection is over.
    fn turn(&mut self, slot: usize, side: usize, events: EpollFlags) -> bool {
        let Some(pair) = self.pairs.get_mut(slot).and_then(Option::as_mut) else { return false };
        let closed = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        // Until its upstream is connected, the first bytes wait in the kernel for this.
        let writable = events.contains(EpollFlags::EPOLLOUT)
            && (side == 1 || !pair.ends[1 - side].rest.is_empty());
        let readable = events.intersects(EpollFlags::EPOLLIN | closed);
        let mut turns = [Turn::Wait; 2];
        if readable {
            let whole = events.intersects(closed);
            turns[0] = pump(&mut pair.ends, side, whole, self.closes_early, &mut self.buffer);
        }
        if writable && !pair.ends[1 - side].rest.is_empty() {
            turns[1] = pump(&mut pair.ends, 1 - side, true, self.closes_early, &mut self.buffer);
        }
        turns.contains(&Turn::Broken) || pair.ends.iter().all(|end| end.has_ended)
    }
}

/// Moves bytes away from one end. A short read says that there is no more, unless the peer has
/// closed: then its end is in the same edge (`whole`), and must be read as well.
fn pump(
    ends: &mut [End; 2],
    from: usize,
    whole: bool,
    closes_early: bool,
    buffer: &mut [u8],
) -> Turn {
    let [one, two] = ends;
    let (from, to) = if from == 0 { (one, two) } else { (two, one) };
    if !from.rest.is_empty() {
        match write(to, &from.rest) {
            Ok(count) => drop(from.rest.drain(..count)),
            Err(_) => return Turn::Broken,
        }
        if !from.rest.is_empty() {
            return Turn::Wait;
        }
    }
    while !from.has_ended {
        let count = match recv(from.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(0) => {
                from.has_ended = true;
                if to.has_ended || closes_early {
                    // Closing both says the same.
                    to.has_ended = true;
                    return Turn::Ended;
                }
                return match shutdown(to.fd.as_raw_fd(), Shutdown::Write) {
                    Ok(()) => Turn::Ended,
                    Err(_) => Turn::Broken,
                };
            }
            Ok(count) => count,
            Err(Errno::EAGAIN) => return Turn::Wait,
            Err(Errno::EINTR) => continue,
            Err(_) => return Turn::Broken,
        };
        match write(to, &buffer[..count]) {
            Ok(written) if written < count => {
                from.rest.extend_from_slice(&buffer[written..count]);
                return Turn::Wait;
            }
            Ok(_) => {}
            Err(_) => return Turn::Broken,
        }
        if count < buffer.len() && !whole {
            return Turn::Wait;
        }
    }
    Turn::Wait
}

/// As much as the other end takes now, which is nothing while it is not yet connected.
fn write(to: &End, bytes: &[u8]) -> io::Result<usize> {
    match send(to.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
        Ok(count) => Ok(count),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(cause) => Err(cause.into()),
    }
}

/// Begins to connect to where the connection was going before it was redirected.
fn dial(downstream: &OwnedFd) -> io::Result<OwnedFd> {
    let target = SockaddrIn::from(original(downstream)?);
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let upstream = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&upstream, sockopt::TcpNoDelay, &true)?;
    match connect(upstream.as_raw_fd(), &target) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(upstream),
        Err(cause) => Err(cause.into()),
    }
}

fn original(downstream: &OwnedFd) -> io::Result<SocketAddrV4> {
    let raw = getsockopt(downstream, sockopt::OriginalDst)?;
    let port = u16::from_be(raw.sin_port);
    if port == 0 {
        return Err(ErrorKind::AddrNotAvailable.into());
    }
    Ok(SocketAddrV4::new(u32::from_be(raw.sin_addr.s_addr).into(), port))
}
