//! An embedded server to send load to: HTTP, echo and bulk, fast enough not to matter, and able to
//! be slow or faulty on purpose.

mod serve;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};
use nix::sys::socket::{bind, listen, setsockopt, socket};

use crate::clock::{Nanos, nanos};
use crate::error::{Error, Kind, Result};
use crate::plan::chunked;
use crate::protocol::Protocol;
use crate::run::{pin, raise_file_limit};
use crate::sys;
use serve::Server;

/// What to serve and how.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamPlan {
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) echo: Option<SocketAddr>,
    pub(crate) bulk: Option<SocketAddr>,
    /// Other protocols, and where.
    pub(crate) others: Vec<(Protocol, SocketAddr)>,
    /// Takes datagrams and throws them away.
    pub(crate) sink: Option<SocketAddr>,
    pub(crate) threads: usize,
    pub(crate) cpus: Vec<usize>,
    pub(crate) behaviour: Behaviour,
}

/// How the server answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    pub(crate) body_size: usize,
    /// Send the body in chunks.
    pub(crate) is_chunked: bool,
    /// Time between a request and its answer; others are served meanwhile.
    pub(crate) think: Duration,
    /// Stop the whole server for `stall` at the start of each `stall_every`.
    pub(crate) stall: Duration,
    pub(crate) stall_every: Duration,
    /// Answer every so many requests with 503; zero for never.
    pub(crate) error_every: u64,
    /// Close the connection after every so many answers; zero for never.
    pub(crate) close_every: u64,
}

/// What kind of traffic a listener takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    Http,
    Echo,
    Bulk,
    Other(Protocol),
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Echo => "echo",
            Self::Bulk => "bulk",
            Self::Other(protocol) => protocol.name(),
        }
    }
}

/// Largest body the server keeps ready.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

impl UpstreamPlan {
    fn listeners(&self) -> impl Iterator<Item = (Service, SocketAddr)> {
        let http = self.http.iter().map(|&addr| (Service::Http, addr));
        let bytes = [(Service::Echo, self.echo), (Service::Bulk, self.bulk)];
        let others = self.others.iter().map(|&(protocol, addr)| (Service::Other(protocol), addr));
        http.chain(bytes.into_iter().filter_map(|(service, addr)| Some((service, addr?))))
            .chain(others)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let stall = &self.behaviour;
        if self.listeners().next().is_none() {
            return Err(Error::usage(
                "nothing to serve: give --http, --echo, --bulk, or another protocol",
            ));
        }
        if self.threads == 0 || self.threads > 1024 {
            return Err(Error::usage("threads must be 1 to 1024"));
        }
        if stall.body_size > BODY_BYTES_MAX {
            return Err(Error::usage("a body is at most 64 MiB; use --bulk for more"));
        }
        if !stall.stall.is_zero() && stall.stall >= stall.stall_every {
            return Err(Error::usage("a stall must be shorter than the time between stalls"));
        }
        Ok(())
    }
}

/// Answers that are ready to be sent.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) good: Vec<u8>,
    pub(crate) last: Vec<u8>,
    pub(crate) error: Vec<u8>,
}

impl Answers {
    pub(crate) fn new(behaviour: &Behaviour) -> Self {
        let body: Vec<u8> = (b'a'..=b'z').cycle().take(behaviour.body_size).collect();
        let head = |status: &str, more: &str| {
            format!("HTTP/1.1 {status}\r\nServer: netra-loadtest\r\n{more}")
        };
        let message = |more: &str| {
            let mut bytes = head("200 OK", more).into_bytes();
            if behaviour.is_chunked {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                bytes.extend_from_slice(&chunked(&body));
            } else {
                bytes.extend_from_slice(
                    format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
                );
                bytes.extend_from_slice(&body);
            }
            bytes
        };
        Self {
            // HTTP/1.0 clients that asked for it wait for this word, or else for the end.
            good: message("Connection: keep-alive\r\n"),
            last: message("Connection: close\r\n"),
            error: head("503 Service Unavailable", "Content-Length: 0\r\n\r\n").into_bytes(),
        }
    }
}

/// Serves until Ctrl-C. `on_ready` is called with the addresses when all of them are bound.
pub(crate) fn serve(
    plan: &UpstreamPlan,
    on_ready: impl FnOnce(&[(Service, SocketAddr)]),
) -> Result<()> {
    plan.check()?;
    raise_file_limit(4096)?;
    // As many as the hard limit allows; fewer only matter to tests of many idle connections.
    let _ = [16_384, 65_536, 1_048_576].map(|count| raise_file_limit(count).is_ok());
    let mut bound: Vec<(Service, SocketAddr)> = plan.listeners().collect();
    bound.iter().try_for_each(|&(_, addr)| check_free(addr))?;
    let mut servers = Vec::new();
    for _ in 0..plan.threads {
        let mut listeners = Vec::new();
        for (service, addr) in &mut bound {
            let listener = listen_on(*addr)?;
            // A port of zero becomes a real one with the first thread; the others share that.
            *addr = listener.local_addr().unwrap_or(*addr);
            listeners.push((*service, listener));
        }
        servers.push(Server::new(listeners, &plan.behaviour)?);
    }
    let sink = plan.sink.map(bind_sink).transpose()?;
    on_ready(&bound);
    thread::scope(|scope| {
        if let Some(socket) = &sink {
            scope.spawn(|| drain(socket));
        }
        let threads: Vec<_> = servers
            .into_iter()
            .enumerate()
            .map(|(index, server)| {
                scope.spawn(move || {
                    if !plan.cpus.is_empty() {
                        pin(&[plan.cpus[index % plan.cpus.len()]])?;
                    }
                    server.run()
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::new(Kind::Unexpected, "a server thread panicked")))
        })
    })
}

fn bind_sink(addr: SocketAddr) -> Result<UdpSocket> {
    let open = || {
        let socket = UdpSocket::bind(addr)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    };
    open().map_err(|cause: std::io::Error| {
        Error::new(Kind::Target, format!("cannot listen on {addr}: {cause}"))
    })
}

fn drain(socket: &UdpSocket) {
    let mut buffer = vec![0; 64 * 1024];
    while !sys::is_interrupted() {
        // Errors are timeouts, after which Ctrl-C is looked at.
        let _ = socket.recv(&mut buffer);
    }
}

/// A listener that shares its port with those of the other threads.
fn listen_on(addr: SocketAddr) -> Result<TcpListener> {
    let open = || -> nix::Result<TcpListener> {
        let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::ReusePort, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
        listen(&fd, Backlog::new(4096)?)?;
        Ok(TcpListener::from(fd))
    };
    open().map_err(|cause| Error::new(Kind::Target, format!("cannot listen on {addr}: {cause}")))
}

/// Fails if another server has the port. Ours shares its ports between its threads, and another one
/// of the same user that does so too would otherwise silently take half of the connections.
fn check_free(addr: SocketAddr) -> Result<()> {
    TcpListener::bind(addr).map(drop).map_err(|cause| {
        Error::new(Kind::Target, format!("cannot listen on {addr}: {cause} (port taken?)"))
    })
}

/// When the stall ends that `now` falls into.
pub(crate) fn stall_end(behaviour: &Behaviour, now: Nanos) -> Option<Nanos> {
    let (stall, every) = (nanos(behaviour.stall), nanos(behaviour.stall_every));
    if stall == 0 || every == 0 {
        return None;
    }
    (now % every < stall).then(|| now - now % every + stall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{MessageParser, Role};

    #[test]
    fn stalls_come_and_end_on_time() {
        let behaviour = Behaviour {
            stall: Duration::from_millis(200),
            stall_every: Duration::from_secs(1),
            ..Behaviour::default()
        };
        let ms = 1_000_000;
        assert_eq!(stall_end(&behaviour, 0), Some(200 * ms));
        assert_eq!(stall_end(&behaviour, 3_199 * ms), Some(3_200 * ms));
        assert_eq!(stall_end(&behaviour, 3_200 * ms), None);
        assert_eq!(stall_end(&Behaviour::default(), 0), None);
    }

    #[test]
    fn answers_are_whole_messages() {
        for (body_size, is_chunked) in [(0, false), (1024, false), (10_000, true)] {
            let answers =
                Answers::new(&Behaviour { body_size, is_chunked, ..Behaviour::default() });
            for (bytes, status, keeps) in [
                (&answers.good, 200, true),
                (&answers.last, 200, false),
                (&answers.error, 503, true),
            ] {
                let mut parser = MessageParser::new(Role::Response);
                assert_eq!(parser.feed(bytes), Ok(Some(bytes.len())));
                assert_eq!((parser.status(), parser.is_keep_alive()), (status, keeps));
            }
        }
    }
}
