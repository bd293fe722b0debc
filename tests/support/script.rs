//! Two scripted peers and what each of them saw. The same script runs on the direct path and
//! through netra; transparency is that both see the same.

use super::matrix::Route;
use super::stream::Stream;
use super::world::Namespace;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

/// How long a peer waits for the other before it calls it silent.
const SILENCE: Duration = Duration::from_secs(15);

/// What a peer does next.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    /// Each byte in a segment of its own.
    SendBytewise(Vec<u8>),
    SendStream(Stream),
    /// In one call, of which the last byte is urgent.
    SendUrgent(Vec<u8>),
    /// Exactly so many bytes.
    Receive(usize),
    ReceiveStream(Stream),
    /// Until the other has finished or something breaks.
    ReceiveToEnd,
    /// Says that no more will be sent.
    Finish,
    /// Closes with a reset.
    Abort,
    Pause(Duration),
}

/// How the conversation ended for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The script ended first.
    Open,
    Eof,
    Reset,
    BrokenPipe,
    Refused,
    Silent,
    Corrupt(String),
    Other(String),
}

/// All that a peer saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub received: Vec<u8>,
    pub end: End,
}

/// What both saw. No server side means that nobody came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    pub client: Seen,
    pub server: Option<Seen>,
}

/// What client and server do.
#[derive(Clone, Debug)]
pub struct Script {
    pub client: Vec<Step>,
    pub server: Vec<Step>,
}

impl Script {
    /// Plays it once over `route`.
    pub fn play(&self, route: Route<'_>) -> Played {
        let listener = listen(route.server, route.address);
        let address = listener.local_addr().expect("a bound listener");
        thread::scope(|scope| {
            let server = scope.spawn(|| accept(&listener).map(|peer| act(peer, &self.server)));
            let client = match connect(route.client, address) {
                Ok(peer) => act(peer, &self.client),
                Err(error) => Seen { received: Vec::new(), end: end_of(&error) },
            };
            Played { client, server: server.join().expect("the server's thread") }
        })
    }
}

/// A listener in `namespace` on a port of the kernel's choice.
pub fn listen(namespace: &Namespace, address: IpAddr) -> TcpListener {
    namespace.enter(|| TcpListener::bind((address, 0))).expect("bind")
}

/// A connection from `namespace`.
pub fn connect(namespace: &Namespace, address: SocketAddr) -> io::Result<TcpStream> {
    namespace.enter(|| TcpStream::connect_timeout(&address, SILENCE)).and_then(prepared)
}

/// The next connection; none when nobody comes.
pub fn accept(listener: &TcpListener) -> Option<TcpStream> {
    let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(SILENCE).expect("a short time");
    let ready = loop {
        match poll(&mut wait, limit) {
            Err(Errno::EINTR) => {}
            ready => break ready.expect("poll"),
        }
    };
    if ready == 0 {
        return None;
    }
    let (peer, _) = listener.accept().expect("accept");
    Some(prepared(peer).expect("socket options"))
}

fn prepared(peer: TcpStream) -> io::Result<TcpStream> {
    peer.set_nodelay(true)?;
    peer.set_read_timeout(Some(SILENCE))?;
    peer.set_write_timeout(Some(SILENCE))?;
    Ok(peer)
}

/// One read. A machine that is frozen for a moment and goes on interrupts those that wait.
pub fn read(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Closes with a reset instead of a FIN.
pub fn abort(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(peer);
}

fn act(mut peer: TcpStream, steps: &[Step]) -> Seen {
    let mut seen = Seen { received: Vec::new(), end: End::Open };
    for step in steps {
        if matches!(step, Step::Abort) {
            abort(peer);
            return seen;
        }
        if let Err(error) = take(&mut peer, step, &mut seen) {
            seen.end = end_of(&error);
            break;
        }
    }
    seen
}

fn take(peer: &mut TcpStream, step: &Step, seen: &mut Seen) -> io::Result<()> {
    match step {
        Step::Send(bytes) => peer.write_all(bytes)?,
        Step::SendBytewise(bytes) => bytes.iter().try_for_each(|byte| peer.write_all(&[*byte]))?,
        Step::SendStream(stream) => stream.send(peer)?,
        Step::SendUrgent(bytes) => {
            send(peer.as_raw_fd(), bytes, MsgFlags::MSG_OOB)?;
        }
        Step::Receive(len) => {
            let before = seen.received.len();
            peer.take(*len as u64).read_to_end(&mut seen.received)?;
            if seen.received.len() - before < *len {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Step::ReceiveStream(stream) => stream.verify(peer)?,
        Step::ReceiveToEnd => {
            peer.read_to_end(&mut seen.received)?;
            seen.end = End::Eof;
        }
        Step::Finish => peer.shutdown(std::net::Shutdown::Write)?,
        Step::Pause(span) => thread::sleep(*span),
        Step::Abort => unreachable!("ends the script"),
    }
    Ok(())
}

/// Names the way in which an operation on a socket failed.
pub fn end_of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionReset => End::Reset,
        ErrorKind::BrokenPipe => End::BrokenPipe,
        ErrorKind::ConnectionRefused => End::Refused,
        ErrorKind::UnexpectedEof => End::Eof,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => End::Silent,
        ErrorKind::InvalidData => End::Corrupt(error.to_string()),
        _ => End::Other(error.to_string()),
    }
}
