//! One connection of the generator: dial, write a request, read until its answer is complete.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use nix::sys::socket::{connect, setsockopt, socket};

use crate::clock::Nanos;
use crate::http::MessageParser;
use crate::plan::Payload;
use crate::stats::Failure;
use crate::sys::{Interest, Poller};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Not connected; it is dialled when a request starts on it.
    Closed,
    /// Dialled for a request that waits for it.
    Connecting,
    /// Connected, nothing asked.
    Idle,
    /// A request is being sent or answered.
    Busy,
}

/// A connection and the request on it.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Option<TcpStream>,
    pub(crate) phase: Phase,
    /// When the request should have started, and when it did.
    pub(crate) intended: Nanos,
    pub(crate) started: Nanos,
    /// Bytes of the request that are sent.
    written: usize,
    answer: Answer,
    /// Counts the sockets of this slot, so that events of an earlier one are known as such.
    generation: u32,
}

#[derive(Debug)]
enum Answer {
    Http(MessageParser),
    Exact { received: usize },
}

/// How far an answer is.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    Pending,
    /// Complete; `status` is zero where there is none.
    Done {
        status: u16,
        is_reusable: bool,
    },
    Failed(Failure, String),
}

impl Client {
    pub(crate) fn new(payload: &Payload) -> Self {
        let answer = match payload {
            Payload::Http { role, .. } => Answer::Http(MessageParser::new(*role)),
            Payload::Exact { .. } => Answer::Exact { received: 0 },
        };
        let (phase, generation) = (Phase::Closed, 0);
        Self { stream: None, phase, intended: 0, started: 0, written: 0, answer, generation }
    }

    /// The key of this connection's events.
    pub(crate) fn key(&self, slot: u32) -> u64 {
        u64::from(self.generation) << 32 | u64::from(slot)
    }

    /// Begins to connect.
    pub(crate) fn dial(&mut self, to: SocketAddr, slot: u32, poller: &Poller) -> io::Result<()> {
        self.close();
        self.generation = self.generation.wrapping_add(1);
        let stream = dial(to)?;
        poller.add(stream.as_fd(), self.key(slot), Interest::Edges)?;
        self.stream = Some(stream);
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// What became of the dialling, once the socket is writable.
    pub(crate) fn finish_dial(&mut self) -> io::Result<()> {
        let stream = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        match stream.take_error()? {
            Some(cause) => Err(cause),
            None => Ok(()),
        }
    }

    pub(crate) fn close(&mut self) {
        self.stream = None;
        self.phase = Phase::Closed;
    }

    /// Starts the request on a connection that is established.
    pub(crate) fn ask(&mut self, payload: &[u8]) -> Progress {
        self.phase = Phase::Busy;
        self.written = 0;
        match &mut self.answer {
            Answer::Http(parser) => parser.reset(),
            Answer::Exact { received } => *received = 0,
        }
        self.write(payload)
    }

    /// Sends what the socket takes.
    pub(crate) fn write(&mut self, payload: &[u8]) -> Progress {
        let Some(mut stream) = self.stream.as_ref() else {
            return Progress::Failed(Failure::Broken, "not connected".to_owned());
        };
        while self.written < payload.len() {
            match stream.write(&payload[self.written..]) {
                Ok(count) => self.written += count,
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Progress::Failed(Failure::Broken, format!("write: {cause}")),
            }
        }
        Progress::Pending
    }

    /// Whether part of the request waits for room in the socket.
    pub(crate) fn is_writing(&self, payload: &[u8]) -> bool {
        self.phase == Phase::Busy && self.written < payload.len()
    }

    /// Reads what has come. `is_closed` says that the end of the stream was announced, so that the
    /// socket must be read to its end; otherwise a short read means that it is empty.
    pub(crate) fn read(
        &mut self,
        payload: &Payload,
        buffer: &mut [u8],
        is_closed: bool,
        bytes: &mut u64,
    ) -> Progress {
        loop {
            let Some(mut stream) = self.stream.as_ref() else {
                return Progress::Failed(Failure::Broken, "not connected".to_owned());
            };
            let count = match stream.read(buffer) {
                Ok(0) => return self.on_end(),
                Ok(count) => count,
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                    return Progress::Pending;
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Progress::Failed(Failure::Broken, format!("read: {cause}")),
            };
            *bytes += count as u64;
            match self.take(payload, &buffer[..count]) {
                Progress::Pending if is_closed || count == buffer.len() => {}
                Progress::Done { status, is_reusable } => {
                    return Progress::Done { status, is_reusable: is_reusable && !is_closed };
                }
                other => return other,
            }
        }
    }

    fn take(&mut self, payload: &Payload, input: &[u8]) -> Progress {
        match &mut self.answer {
            Answer::Http(parser) => match parser.feed(input) {
                Ok(None) => Progress::Pending,
                Ok(Some(used)) if used == input.len() => {
                    Progress::Done { status: parser.status(), is_reusable: parser.is_keep_alive() }
                }
                Ok(Some(_)) => malformed("bytes after the end of the answer".to_owned()),
                Err(cause) => malformed(cause.to_string()),
            },
            Answer::Exact { received } => {
                let Payload::Exact { answer, .. } = payload else {
                    return malformed("an answer to another question".to_owned());
                };
                let expected = answer.get(*received..*received + input.len());
                *received += input.len();
                match expected {
                    Some(expected) if expected != input => malformed("other bytes".to_owned()),
                    None => malformed("more bytes than the answer has".to_owned()),
                    Some(_) if *received == answer.len() => {
                        Progress::Done { status: 0, is_reusable: true }
                    }
                    Some(_) => Progress::Pending,
                }
            }
        }
    }

    fn on_end(&self) -> Progress {
        match &self.answer {
            Answer::Http(parser) if parser.is_ended_by_close() => {
                Progress::Done { status: parser.status(), is_reusable: false }
            }
            _ => Progress::Failed(Failure::Broken, "closed before the answer".to_owned()),
        }
    }
}

fn malformed(why: String) -> Progress {
    Progress::Failed(Failure::Malformed, why)
}

/// A socket that is being connected and does not block; small messages are sent at once.
pub(crate) fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    let stream = TcpStream::from(fd);
    let addr = SockaddrStorage::from(to);
    match connect(std::os::fd::AsRawFd::as_raw_fd(&stream), &addr) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(stream),
        Err(cause) => Err(cause.into()),
    }
}
