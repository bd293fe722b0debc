//! The services of the demo: each answers, or asks the next one and answers with what that says.
//! They know nothing of tracing or routes; all that they pass on is X-Request-Id, and what one more
//! line says, where a call has a place for it.

use super::http1::{self, Answer};
use super::namespace::Namespace;
use super::store::Store;
use super::{Result, server};
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::Sender;
use std::time::Duration;

/// The port of every service; the rules send it to netra.
pub(super) const PORT: u16 = 80;
pub(super) const REQUEST_ID: &str = "X-Request-Id";
/// The line of a request that says which trace it belongs to; netra's, as everybody's.
const TRACE: &str = "uber-trace-id";

const PATIENCE: Duration = Duration::from_secs(5);

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: &'static str,
    /// Its address, or a name for it.
    pub(super) at: &'static str,
    pub(super) path: &'static str,
    pub(super) does: Does,
}

/// What a service does when it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Does {
    /// Asks another one, by this name.
    Ask {
        host: &'static str,
        service: &'static Service,
    },
    Answer(&'static str),
    /// Asks two that do not speak HTTP.
    Gather {
        left: &'static Store,
        price: &'static Store,
    },
}

/// A request as a service saw it, and as it asked in turn.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) service: &'static str,
    pub(super) received: String,
    pub(super) sent: Option<String>,
}

/// Serves in `pod`; what was seen is told before it is answered.
pub(super) fn serve(pod: &Namespace, service: &'static Service, tell: Sender<Seen>) -> Result<()> {
    // Threads live where the thread lives that starts them, and so do the sockets that they open.
    pod.enter(|| serve_here(service, tell))?
}

/// The same where the calling thread is.
pub(super) fn serve_here(service: &'static Service, tell: Sender<Seen>) -> Result<()> {
    let served = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).and_then(|listener| {
        server::serve(&listener, move |stream| service.converse(stream, &tell))
    });
    served.map_err(|error| format!("port {PORT} of {}: {error}", service.name))
}

/// An open connection to a service.
pub(super) fn connect(at: &str, port: u16) -> io::Result<TcpStream> {
    let found = (at, port).to_socket_addrs()?.next();
    let address = found.ok_or_else(|| io::Error::other(format!("{at} has no address")))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What a service says that has asked how many there are and what they cost.
fn gathered(left: &str, price: &str) -> String {
    format!("{left} left at {price}")
}

impl Does {
    /// What a service says that does so; none of one that hands on what another one says.
    pub(super) fn says(&self) -> Option<String> {
        match self {
            Self::Ask { .. } => None,
            Self::Answer(what) => Some((*what).to_owned()),
            Self::Gather { left, price } => Some(gathered(left.says, price.says)),
        }
    }
}

impl Service {
    fn converse(&self, mut stream: &TcpStream, tell: &Sender<Seen>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(received) = http1::head(&mut reader)? {
            let (sent, answer) = match self.does {
                Does::Answer(what) => (None, self.says(what)),
                Does::Gather { left, price } => (None, self.gather(left, price, &received)),
                Does::Ask { host, service } => {
                    let id = http1::field(&received, REQUEST_ID).unwrap_or_default();
                    let request = service.request(host, self.name, &[(REQUEST_ID, id)]);
                    let answer = self.ask(service, &request);
                    (Some(request), answer)
                }
            };
            // Nobody listens any more only when the demo is over.
            let _ = tell.send(Seen { service: self.name, received, sent });
            let Answer { status, body } = answer;
            let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes())?;
        }
        Ok(())
    }

    fn says(&self, what: &str) -> Answer {
        Answer { status: 200, body: format!("{}: {what}", self.name) }
    }

    fn gather(&self, left: &Store, price: &Store, received: &str) -> Answer {
        let line = http1::field(received, TRACE).map(|value| (TRACE, value));
        let ask = |store: &Store| {
            let asked = connect(store.at, store.port)
                .and_then(|stream| store.ask(&stream, line.as_slice()));
            asked.map_err(|error| self.cannot_ask(store.name, &error))
        };
        match (ask(left), ask(price)) {
            (Ok(left), Ok(price)) => self.says(&gathered(&left, &price)),
            (Err(answer), _) | (_, Err(answer)) => answer,
        }
    }

    fn cannot_ask(&self, name: &str, error: &io::Error) -> Answer {
        Answer { status: 502, body: format!("{} cannot ask {name}: {error}", self.name) }
    }

    fn ask(&self, service: &Self, request: &str) -> Answer {
        let asked = connect(service.at, PORT)
            .and_then(|stream| http1::ask(&mut BufReader::new(&stream), request));
        match asked {
            Ok(Answer { status, body }) => {
                Answer { status, body: format!("{} < {body}", self.name) }
            }
            Err(error) => self.cannot_ask(service.name, &error),
        }
    }

    /// A request for this service.
    pub(super) fn request(&self, host: &str, agent: &str, fields: &[(&str, &str)]) -> String {
        let path = self.path;
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n");
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }
}
