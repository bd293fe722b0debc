//! A client, servers and netra between them, in lockstep: nobody does the next thing before all
//! that was sent has arrived where it belongs. That needs no sleep, and whatever netra withholds
//! fails the step.

use super::http::{Edits, Request, expected, shown};
use super::script::{self, End, end_of};
use super::world::Namespace;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long bytes may be under way before netra is said to withhold them.
pub const WITHHELD: Duration = Duration::from_secs(5);

/// One end of a connection, and what it has seen.
#[derive(Debug)]
pub struct Peer {
    stream: Option<TcpStream>,
    pub address: SocketAddr,
    pub received: Vec<u8>,
    pub end: Option<End>,
}

impl Peer {
    pub fn new(stream: TcpStream, address: SocketAddr) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        stream.set_nonblocking(true).expect("a socket option");
        Self { stream: Some(stream), address, received: Vec::new(), end: None }
    }

    pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<Self, String> {
        let stream = match script::connect(namespace, to) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                let end = Some(End::Reset);
                return Ok(Self { stream: None, address: to, received: Vec::new(), end });
            }
            Err(error) => return Err(format!("connect: {error}")),
        };
        let address = stream.local_addr().expect("a connected socket");
        Ok(Self::new(stream, address))
    }

    /// Takes in what is there.
    pub fn look(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let mut bytes = [0; 65536];
        while self.end.is_none() {
            match script::read(stream, &mut bytes) {
                Ok(0) => self.end = Some(End::Eof),
                Ok(len) => self.received.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => self.end = Some(end_of(&error)),
            }
        }
    }

    /// Sends all of it, taking in what comes meanwhile.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let deadline = Instant::now() + WITHHELD;
        while !bytes.is_empty() {
            let Some(stream) = &mut self.stream else {
                return self.end.is_some().then_some(()).ok_or("sends when closed".into());
            };
            match stream.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() > deadline {
                        return Err(format!("{} bytes cannot be sent", bytes.len()));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                    self.look();
                }
                // Said once only: a read would find an orderly end now.
                Err(error) => {
                    self.end.get_or_insert(end_of(&error));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub fn finish(&mut self) {
        if let Some(stream) = &self.stream {
            drop(stream.shutdown(Shutdown::Write));
        }
    }

    pub fn close(&mut self) {
        self.look();
        self.stream = None;
    }

    pub fn abort(&mut self) {
        if let Some(stream) = self.stream.take() {
            script::abort(stream);
        }
    }

    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Waits until `done` says so; its error is what is missing.
    pub fn until(&mut self, done: impl Fn(&Self) -> Result<(), String>) -> Result<(), String> {
        let deadline = Instant::now() + WITHHELD;
        loop {
            self.look();
            match done(self) {
                Ok(()) => return Ok(()),
                Err(what) if Instant::now() > deadline => return Err(what),
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Waits until it has received exactly this.
    pub fn expect(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.until(|peer| match peer.received == bytes {
            true => Ok(()),
            false => Err(format!("received {}\nnot {}", shown(&peer.received), shown(bytes))),
        })
    }

    pub fn expect_end(&mut self, end: End) -> Result<(), String> {
        self.until(|peer| match &peer.end {
            Some(seen) if *seen == end => Ok(()),
            seen => Err(format!("its end is {seen:?}, not {end:?}")),
        })
    }
}

/// A listening server and who came to it.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    pub port: u16,
    pub peers: Vec<Peer>,
}

impl Server {
    pub fn listen(namespace: &Namespace, address: IpAddr, port: u16) -> Self {
        let listener = namespace.enter(|| TcpListener::bind((address, port)));
        let listener = listener.unwrap_or_else(|error| panic!("{address}:{port}: {error}"));
        listener.set_nonblocking(true).expect("a socket option");
        let port = listener.local_addr().expect("a bound listener").port();
        Self { listener, port, peers: Vec::new() }
    }

    pub fn look(&mut self) {
        while let Ok((stream, address)) = self.listener.accept() {
            self.peers.push(Peer::new(stream, address));
        }
        self.peers.iter_mut().for_each(Peer::look);
    }

    /// The connection that came last; waits for the first.
    pub fn last(&mut self) -> Result<&mut Peer, String> {
        let deadline = Instant::now() + WITHHELD;
        while self.peers.is_empty() && Instant::now() < deadline {
            self.look();
            std::thread::sleep(Duration::from_micros(200));
        }
        let port = self.port;
        self.peers.last_mut().ok_or_else(|| format!("nobody came to port {port}"))
    }

    /// Waits until the last connection has what `client` is to become, and returns the requests.
    pub fn expect(
        &mut self,
        client: &[u8],
        edits: &Edits<'_>,
        raw_from: usize,
    ) -> Result<Vec<Request>, String> {
        let deadline = Instant::now() + WITHHELD;
        loop {
            self.look();
            let none = Vec::new();
            let got = self.peers.last().map_or(&none, |peer| &peer.received);
            let what = match expected(client, got, edits, raw_from) {
                Ok((wanted, requests)) if wanted == *got => return Ok(requests),
                Ok((wanted, _)) => format!("server got {}\nnot {}", shown(got), shown(&wanted)),
                Err(what) => format!("server got {}: {what}", shown(got)),
            };
            if Instant::now() > deadline {
                return Err(what);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
