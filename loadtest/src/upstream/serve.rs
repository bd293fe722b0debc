//! The loop of one server thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile64;

use super::{Answers, Behaviour, Service, stall_end};
use crate::clock::{Clock, Nanos, nanos};
use crate::error::{Context, Result};
use crate::http::{MessageParser, Role};
use crate::protocol::{NotOurs, Protocol};
use crate::sys::{self, Interest, Poller};

/// How often Ctrl-C is looked at when nothing happens.
const TICK: Nanos = 100_000_000;
const BUFFER_BYTES: usize = 128 * 1024;
/// Bulk data is sent from a file in memory of this size, over and over.
const BULK_FILE_BYTES: u64 = 4 << 20;
/// Sends of one bulk connection before the others get their turn.
const BULK_TURN: usize = 16;
/// Longest line of a bulk request.
const BULK_LINE_BYTES_MAX: usize = 64;
/// Connections taken per turn, so that a flood of them does not hold up the requests.
const ACCEPT_TURN: usize = 64;

/// One thread of the server.
pub(super) struct Server {
    poller: Poller,
    listeners: Vec<(Service, TcpListener)>,
    peers: Vec<Option<Peer>>,
    free: Vec<u32>,
    generation: u32,
    /// Answers that are being thought about: when, whose.
    thinking: BinaryHeap<Reverse<(Nanos, u64)>>,
    behaviour: Behaviour,
    answers: Answers,
    bulk: File,
    clock: Clock,
    buffer: Vec<u8>,
    request_count: u64,
    answer_count: u64,
}

struct Peer {
    stream: TcpStream,
    key: u64,
    is_writing: bool,
    kind: PeerKind,
}

enum PeerKind {
    Http { parser: MessageParser, state: Http, rest: Vec<u8> },
    Echo { rest: Vec<u8>, sent: usize },
    Bulk { line: Vec<u8>, left: u64, offset: u64, upload: u64 },
    Other(Other),
}

/// A connection of another protocol.
struct Other {
    protocol: Protocol,
    /// The answer, as it is without the number of its question.
    ready: Vec<u8>,
    /// A question that has not come whole.
    rest: Vec<u8>,
    answers: Vec<u8>,
    sent: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Http {
    Reading,
    Thinking { answer: Answer },
    Writing { answer: Answer, sent: usize },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Good,
    Last,
    Error,
}

/// What becomes of a connection after a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// Wait for more from the peer.
    Read,
    /// Wait until the peer takes more.
    Write,
    /// The answer is ready at this time.
    Think(Nanos),
    Close,
}

impl Server {
    pub(super) fn new(
        listeners: Vec<(Service, TcpListener)>,
        behaviour: &Behaviour,
    ) -> Result<Self> {
        let poller = Poller::new().context(|| "epoll_create1".to_owned())?;
        for (index, (_, listener)) in listeners.iter().enumerate() {
            let key = u64::MAX - index as u64;
            poller.add(listener.as_fd(), key, Interest::Read).context(|| "epoll_ctl".to_owned())?;
        }
        Ok(Self {
            poller,
            listeners,
            peers: Vec::new(),
            free: Vec::new(),
            generation: 0,
            thinking: BinaryHeap::new(),
            answers: Answers::new(behaviour),
            behaviour: behaviour.clone(),
            bulk: bulk_file().context(|| "memfd_create".to_owned())?,
            clock: Clock::start(),
            buffer: vec![0; BUFFER_BYTES],
            request_count: 0,
            answer_count: 0,
        })
    }

    /// Serves until Ctrl-C.
    pub(super) fn run(mut self) -> Result<()> {
        let _ = nix::sys::prctl::set_timerslack(1);
        while !sys::is_interrupted() {
            let timeout = match self.thinking.peek() {
                Some(&Reverse((due, _))) => due.saturating_sub(self.clock.now()).min(TICK),
                None => TICK,
            };
            let count = self.poller.wait(timeout).context(|| "epoll_pwait2".to_owned())?;
            self.stall();
            for index in 0..count {
                let event = self.poller.event(index);
                match self
                    .listeners
                    .get(usize::try_from(u64::MAX - event.key).unwrap_or(usize::MAX))
                {
                    Some(_) => self.accept(u64::MAX - event.key),
                    None => self.turn(event.key),
                }
            }
            self.answer_thought();
        }
        Ok(())
    }

    fn stall(&self) {
        if let Some(end) = stall_end(&self.behaviour, self.clock.now()) {
            while self.clock.now() < end && !sys::is_interrupted() {
                sys::pause(Duration::from_nanos(
                    end.saturating_sub(self.clock.now()).max(1_000_000),
                ));
            }
        }
    }

    fn accept(&mut self, index: u64) {
        let Some((service, listener)) = self.listeners.get(usize::try_from(index).unwrap_or(0))
        else {
            return;
        };
        let service = *service;
        for _ in 0..ACCEPT_TURN {
            // Out of descriptors or aborted by the peer: the next event tries again.
            let Ok((stream, _)) = listener.accept() else { break };
            let _ = stream.set_nonblocking(true);
            let _ = stream.set_nodelay(true);
            let slot = match self.free.pop() {
                Some(slot) => slot,
                None => {
                    self.peers.push(None);
                    u32::try_from(self.peers.len() - 1).unwrap_or(u32::MAX)
                }
            };
            self.generation = (self.generation + 1) & 0x7fff_ffff;
            let key = u64::from(self.generation) << 32 | u64::from(slot);
            if self.poller.add(stream.as_fd(), key, Interest::Read).is_err() {
                self.free.push(slot);
                continue;
            }
            let kind = PeerKind::new(service);
            self.peers[slot as usize] = Some(Peer { stream, key, is_writing: false, kind });
        }
    }

    /// Lets one connection go on, and does what it needs next.
    fn turn(&mut self, key: u64) {
        let slot = usize::try_from(key & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return };
        if peer.key != key {
            return;
        }
        let turn = match &mut peer.kind {
            PeerKind::Http { .. } => self.turn_http(slot),
            PeerKind::Echo { .. } => turn_echo(peer, &mut self.buffer),
            PeerKind::Bulk { .. } => turn_bulk(peer, &mut self.buffer, &self.bulk),
            PeerKind::Other(other) => other.turn(&peer.stream, &mut self.buffer),
        };
        self.arrange(slot, turn);
    }

    fn arrange(&mut self, slot: usize, turn: Turn) {
        let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { return };
        let is_writing = turn == Turn::Write;
        match turn {
            Turn::Close => {
                self.peers[slot] = None;
                self.free.push(u32::try_from(slot).unwrap_or(u32::MAX));
                return;
            }
            Turn::Think(due) => self.thinking.push(Reverse((due, peer.key))),
            Turn::Read | Turn::Write => {}
        }
        if is_writing != peer.is_writing {
            peer.is_writing = is_writing;
            let interest = if is_writing { Interest::Write } else { Interest::Read };
            let _ = self.poller.modify(peer.stream.as_fd(), peer.key, interest);
        }
    }

    fn turn_http(&mut self, slot: usize) -> Turn {
        let Some(Peer { stream, kind, .. }) = self.peers[slot].as_mut() else {
            return Turn::Close;
        };
        let PeerKind::Http { parser, state, rest } = kind else { return Turn::Close };
        let mut is_drained = false;
        loop {
            match *state {
                Http::Reading => {
                    let (input, taken): (&[u8], _) = if !rest.is_empty() {
                        (rest.as_slice(), parser.feed(rest))
                    } else if is_drained {
                        return Turn::Read;
                    } else {
                        let count = match read(stream, &mut self.buffer) {
                            Ok(count) => count,
                            Err(turn) => return turn,
                        };
                        is_drained = count < self.buffer.len();
                        (&self.buffer[..count], parser.feed(&self.buffer[..count]))
                    };
                    let Ok(taken) = taken else { return Turn::Close };
                    let Some(used) = taken else {
                        rest.clear();
                        continue;
                    };
                    // Pipelined requests wait for their turn.
                    *rest = if used < input.len() { input[used..].to_vec() } else { Vec::new() };
                    self.request_count += 1;
                    let every = self.behaviour.error_every;
                    let answer = match parser.is_keep_alive() {
                        _ if every > 0 && self.request_count.is_multiple_of(every) => Answer::Error,
                        true => Answer::Good,
                        false => Answer::Last,
                    };
                    if !self.behaviour.think.is_zero() {
                        *state = Http::Thinking { answer };
                        return Turn::Think(self.clock.now() + nanos(self.behaviour.think));
                    }
                    *state = Http::Writing { answer, sent: 0 };
                }
                Http::Thinking { .. } => {
                    return if is_gone(stream) { Turn::Close } else { Turn::Read };
                }
                Http::Writing { answer, mut sent } => {
                    let bytes = match answer {
                        Answer::Good => &self.answers.good,
                        Answer::Last => &self.answers.last,
                        Answer::Error => &self.answers.error,
                    };
                    match write(stream, bytes, &mut sent) {
                        Ok(true) => {}
                        Ok(false) => {
                            *state = Http::Writing { answer, sent };
                            return Turn::Write;
                        }
                        Err(_) => return Turn::Close,
                    }
                    self.answer_count += 1;
                    let every = self.behaviour.close_every;
                    if answer == Answer::Last
                        || every > 0 && self.answer_count.is_multiple_of(every)
                    {
                        return Turn::Close;
                    }
                    *state = Http::Reading;
                }
            }
        }
    }

    fn answer_thought(&mut self) {
        while let Some(&Reverse((due, key))) = self.thinking.peek() {
            if due > self.clock.now() {
                return;
            }
            self.thinking.pop();
            let slot = usize::try_from(key & u64::from(u32::MAX)).unwrap_or(usize::MAX);
            let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { continue };
            if peer.key != key {
                continue;
            }
            if let PeerKind::Http { state, .. } = &mut peer.kind
                && let Http::Thinking { answer } = *state
            {
                *state = Http::Writing { answer, sent: 0 };
                self.turn(key);
            }
        }
    }
}

impl PeerKind {
    fn new(service: Service) -> Self {
        match service {
            Service::Http => Self::Http {
                parser: MessageParser::new(Role::Request),
                state: Http::Reading,
                rest: Vec::new(),
            },
            Service::Echo => Self::Echo { rest: Vec::new(), sent: 0 },
            Service::Bulk => Self::Bulk { line: Vec::new(), left: 0, offset: 0, upload: 0 },
            Service::Other(protocol) => Self::Other(Other {
                protocol,
                ready: protocol.answer(),
                rest: Vec::new(),
                answers: Vec::new(),
                sent: 0,
            }),
        }
    }
}

impl Other {
    /// Answers all questions that have come, at once.
    fn turn(&mut self, stream: &TcpStream, buffer: &mut [u8]) -> Turn {
        if self.sent == self.answers.len() {
            let count = match read(stream, buffer) {
                Ok(count) => count,
                Err(turn) => return turn,
            };
            self.sent = 0;
            self.answers.clear();
            if self.take(&buffer[..count]).is_err() {
                return Turn::Close;
            }
        }
        match write(stream, &self.answers, &mut self.sent) {
            Ok(true) => Turn::Read,
            Ok(false) => Turn::Write,
            Err(_) => Turn::Close,
        }
    }

    fn take(&mut self, input: &[u8]) -> std::result::Result<(), NotOurs> {
        let Self { protocol, ready, rest, answers, .. } = self;
        let joined;
        let mut left = input;
        if !rest.is_empty() {
            joined = [rest, input].concat();
            left = &joined;
        }
        while let Some(len) = protocol.question_len(left)?.filter(|len| *len > 0) {
            protocol.put_answer(&left[..len], ready, answers);
            left = &left[len..];
        }
        *rest = left.to_vec();
        Ok(())
    }
}

fn turn_echo(peer: &mut Peer, buffer: &mut [u8]) -> Turn {
    let PeerKind::Echo { rest, sent } = &mut peer.kind else { return Turn::Close };
    if !rest.is_empty() {
        return match write(&peer.stream, rest, sent) {
            Ok(true) => {
                (*rest, *sent) = (Vec::new(), 0);
                Turn::Read
            }
            Ok(false) => Turn::Write,
            Err(_) => Turn::Close,
        };
    }
    let count = match read(&peer.stream, buffer) {
        Ok(count) => count,
        Err(turn) => return turn,
    };
    let mut done = 0;
    match write(&peer.stream, &buffer[..count], &mut done) {
        Ok(true) => Turn::Read,
        Ok(false) => {
            *rest = buffer[done..count].to_vec();
            Turn::Write
        }
        Err(_) => Turn::Close,
    }
}

/// `GET n` sends n bytes and closes; `PUT n` takes n bytes and answers `OK`.
fn turn_bulk(peer: &mut Peer, buffer: &mut [u8], file: &File) -> Turn {
    let PeerKind::Bulk { line, left, offset, upload } = &mut peer.kind else {
        return Turn::Close;
    };
    for _ in 0..BULK_TURN {
        if *left > 0 {
            let mut at = i64::try_from(*offset).unwrap_or(0);
            let count = usize::try_from((BULK_FILE_BYTES - *offset).min(*left)).unwrap_or(0);
            match sendfile64(&peer.stream, file, Some(&mut at), count) {
                Ok(sent) => {
                    *left -= sent as u64;
                    *offset = (*offset + sent as u64) % BULK_FILE_BYTES;
                    if *left == 0 {
                        return Turn::Close;
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => return Turn::Write,
                Err(_) => return Turn::Close,
            }
            continue;
        }
        let count = match read(&peer.stream, buffer) {
            Ok(count) => count,
            Err(turn) => return turn,
        };
        if *upload == 0 {
            line.extend_from_slice(&buffer[..count.min(BULK_LINE_BYTES_MAX)]);
            match bulk_request(line) {
                Some((b"GET", size)) => *left = size,
                Some((_, size)) => {
                    let at = line.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                    let early = (line.len() - at) + count.saturating_sub(BULK_LINE_BYTES_MAX);
                    *upload = size.saturating_sub(early as u64);
                    if *upload == 0 {
                        return confirm(&peer.stream);
                    }
                }
                None if line.len() > BULK_LINE_BYTES_MAX => return Turn::Close,
                None => {}
            }
        } else {
            *upload = upload.saturating_sub(count as u64);
            if *upload == 0 {
                return confirm(&peer.stream);
            }
        }
    }
    if *left > 0 { Turn::Write } else { Turn::Read }
}

fn confirm(stream: &TcpStream) -> Turn {
    // Three bytes into an empty socket always fit; whatever goes wrong, the peer sees the end.
    let _ = write(stream, b"OK\n", &mut 0);
    Turn::Close
}

fn bulk_request(line: &[u8]) -> Option<(&[u8], u64)> {
    let end = line.iter().position(|&byte| byte == b'\n')?;
    let (verb, size) = line[..end].split_at_checked(4)?;
    let size = std::str::from_utf8(size).ok()?.trim().parse().ok()?;
    matches!(verb, b"GET " | b"PUT ").then_some((&verb[..3], size)).filter(|&(_, size)| size > 0)
}

/// Reads once; the error is what becomes of the connection.
fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> Taken<usize> {
    match stream.read(buffer) {
        Ok(0) => Err(Turn::Close),
        Ok(count) => Ok(count),
        Err(cause) if is_passing(&cause) => Err(Turn::Read),
        Err(_) => Err(Turn::Close),
    }
}

type Taken<T> = std::result::Result<T, Turn>;

/// Whether everything is written now; what is not stays in `sent`.
fn write(mut stream: &TcpStream, bytes: &[u8], sent: &mut usize) -> io::Result<bool> {
    while *sent < bytes.len() {
        match stream.write(&bytes[*sent..]) {
            Ok(count) => *sent += count,
            Err(cause) if is_passing(&cause) => return Ok(false),
            Err(cause) => return Err(cause),
        }
    }
    Ok(true)
}

fn is_passing(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether the peer has left while its answer is being thought about.
fn is_gone(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Ok(0))
}

fn bulk_file() -> io::Result<File> {
    let mut file = File::from(memfd_create("netra-loadtest-bulk", MFdFlags::MFD_CLOEXEC)?);
    let block: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    for _ in 0..BULK_FILE_BYTES / block.len() as u64 {
        file.write_all(&block)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_requests_are_read_or_refused() {
        assert_eq!(bulk_request(b"GET 10\n"), Some((&b"GET"[..], 10)));
        assert_eq!(bulk_request(b"PUT 7\r\nxx"), Some((&b"PUT"[..], 7)));
        for bad in ["GET 10", "GET -1\n", "GET 0\n", "POST 1\n", "G\n", "\n"] {
            assert_eq!(bulk_request(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
