//! A connection to a port of netra's own, or to its unix socket, that tells the room what it does.

use super::room::{Pool, Room};
use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::AbortHandle,
    time::Instant,
};

/// Connections that were cut to make room for others.
pub(crate) static CUT: AtomicU64 = AtomicU64::new(0);

/// A room that the connections in it share. The control thread alone takes the lock, and never for
/// longer than it takes to look through the places.
#[derive(Debug)]
#[allow(clippy::disallowed_types, reason = "the control thread's own, off the data path")]
pub(super) struct Shared(std::sync::Mutex<Room<AbortHandle>>);

impl Shared {
    #[allow(clippy::disallowed_types, reason = "as above")]
    pub(super) fn new(room: Room<AbortHandle>) -> Arc<Self> {
        Arc::new(Self(std::sync::Mutex::new(room)))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Room<AbortHandle>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a connection in.
    pub(super) fn enter(&self, id: u64, peer: Option<IpAddr>, connection: AbortHandle) {
        cut(self.with(|room| room.enter(id, peer, connection, Instant::now())));
    }
}

fn cut(connections: impl IntoIterator<Item = AbortHandle>) {
    for connection in connections {
        connection.abort();
        CUT.fetch_add(1, Relaxed);
    }
}

/// A place in the room, for as long as this lives.
#[derive(Debug)]
pub(super) struct Stay {
    room: Arc<Shared>,
    id: u64,
}

impl Stay {
    pub(super) fn new(room: &Arc<Shared>, id: u64) -> Arc<Self> {
        Arc::new(Self { room: Arc::clone(room), id })
    }

    pub(super) fn asks(&self, pool: Pool) {
        cut(self.room.with(|room| room.asks(self.id, pool, Instant::now())));
    }

    /// The body of an answer, which tells when it has been read.
    pub(super) fn answers(self: &Arc<Self>, body: Vec<u8>) -> Body {
        cut(self.room.with(|room| room.answers(self.id, body.len(), Instant::now())));
        Body { body, stay: Arc::clone(self) }
    }

    /// When it must have done what it does; one that has been cut, at once.
    pub(super) fn due(&self) -> Instant {
        self.room.with(|room| room.due(self.id)).unwrap_or_else(Instant::now)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.room.with(|room| room.leaves(self.id));
    }
}

/// Bytes on their way out: dropped when the kernel has the last of them.
#[derive(Debug)]
pub(super) struct Body {
    body: Vec<u8>,
    stay: Arc<Stay>,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.stay.room.with(|room| room.is_read(self.stay.id, Instant::now()));
    }
}

/// What a connection is made of.
#[derive(Debug)]
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// Waits for the first byte, in which nothing is held but the socket.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }
}

/// A wire that tells when bytes come.
#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
    stay: Arc<Stay>,
}

impl Link {
    pub(super) fn new(wire: Wire, stay: Arc<Stay>) -> Self {
        Self { wire, stay }
    }
}

/// Does the same with whichever it is.
macro_rules! wire {
    ($link:ident, $stream:ident => $do:expr) => {
        match &mut $link.get_mut().wire {
            Wire::Tcp($stream) => $do,
            Wire::Unix($stream) => $do,
        }
    };
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, link) = (buffer.filled().len(), self.as_mut());
        ready!(wire!(link, stream => Pin::new(stream).poll_read(context, buffer)))?;
        if buffer.filled().len() > before {
            self.stay.room.with(|room| room.hears(self.stay.id, Instant::now()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        wire!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        wire!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        wire!(self, stream => Pin::new(stream).poll_shutdown(context))
    }

    /// Bodies go out as they are: what is copied into one piece would be held twice.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        wire!(self, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
