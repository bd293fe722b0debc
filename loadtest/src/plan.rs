//! What a load is made of, after arguments or files have been read and judged.

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::http::Role;
use crate::pacer::Arrival;
use crate::protocol::Protocol;

/// One load: what is sent, how often, over what.
#[derive(Clone, Debug)]
pub(crate) struct LoadPlan {
    /// Name of the scenario in reports.
    pub(crate) scenario: String,
    pub(crate) target: SocketAddr,
    pub(crate) payload: Payload,
    pub(crate) pace: Pace,
    pub(crate) connections: usize,
    /// A new connection for each request.
    pub(crate) is_fresh: bool,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    /// A request that takes longer has failed.
    pub(crate) timeout: Duration,
    pub(crate) threads: usize,
    /// CPUs to pin the threads to, in turn; empty means wherever the scheduler likes.
    pub(crate) cpus: Vec<usize>,
    /// Never sleep: less lateness for a whole CPU per thread.
    pub(crate) is_busy: bool,
    pub(crate) seed: u64,
}

/// What one request consists of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Payload {
    /// Bytes of the request, and how its response is read.
    Http { request: Vec<u8>, role: Role },
    /// Bytes, and exactly those that are the answer.
    Exact { request: Vec<u8>, answer: Vec<u8> },
}

impl Payload {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Http { request, .. } | Self::Exact { request, .. } => request,
        }
    }

    /// A message whose bytes differ from each other, so that a mix-up is seen.
    pub(crate) fn echo(size: usize) -> Self {
        let bytes = |at| u8::try_from((at * 7 + 1) % 251).unwrap_or(0);
        let request: Vec<u8> = (0..size).map(bytes).collect();
        Self::Exact { answer: request.clone(), request }
    }

    /// The question of a protocol, and what our own server answers.
    pub(crate) fn of(protocol: Protocol) -> Self {
        Self::Exact { request: protocol.question(), answer: protocol.answer() }
    }
}

/// When requests start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// On a schedule, whatever the target does.
    Open { rate: f64, arrival: Arrival },
    /// As soon as the request before it on the connection is answered.
    Closed,
}

impl Pace {
    pub(crate) fn rate(self) -> Option<f64> {
        match self {
            Self::Open { rate, .. } => Some(rate),
            Self::Closed => None,
        }
    }
}

/// Most connections of one load; the descriptor limit is checked when they are opened.
pub(crate) const CONNECTIONS_MAX: usize = 1_000_000;
/// Highest rate: above it the schedule is finer than a nanosecond per thread.
const RATE_MAX: f64 = 1e8;

impl LoadPlan {
    /// Judges what parsing alone cannot: limits and combinations.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::usage(message));
        if self.connections == 0 || self.connections > CONNECTIONS_MAX {
            return refuse(format!("connections must be 1 to {CONNECTIONS_MAX}"));
        }
        if self.threads == 0 || self.threads > self.connections {
            return refuse(format!(
                "threads must be 1 to the number of connections ({})",
                self.connections
            ));
        }
        if let Some(rate) = self.pace.rate()
            && !(rate > 0.0 && rate <= RATE_MAX)
        {
            return refuse(format!("rate must be above 0 and at most {RATE_MAX} per second"));
        }
        if self.duration.is_zero() {
            return refuse("a run needs a duration above zero".to_owned());
        }
        if self.payload.bytes().is_empty() {
            return refuse("a message needs at least one byte".to_owned());
        }
        Ok(())
    }
}

/// What an HTTP request should look like.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestSpec {
    pub(crate) method: Option<String>,
    pub(crate) path: String,
    pub(crate) host: String,
    /// Further lines `Name: value`.
    pub(crate) headers: Vec<String>,
    pub(crate) body_size: usize,
    pub(crate) is_chunked: bool,
    pub(crate) is_close: bool,
}

impl RequestSpec {
    /// The bytes to send.
    pub(crate) fn encode(&self) -> Result<Payload> {
        let method = match &self.method {
            Some(method) => method.as_str(),
            None if self.body_size > 0 => "POST",
            None => "GET",
        };
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_token(method) || !is_token(&self.path) || !is_token(&self.host) {
            return Err(Error::usage("method, path and host must be words without spaces"));
        }
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", self.path, self.host);
        head += "User-Agent: netra-loadtest\r\nAccept: */*\r\n";
        for header in &self.headers {
            let name = header.split(':').next().unwrap_or_default();
            if !header.contains(':') || !is_token(name) || header.contains(['\r', '\n']) {
                return Err(Error::usage(format!("header `{header}` is not `Name: value`")));
            }
            let _ = write!(head, "{header}\r\n");
        }
        if self.is_close {
            head += "Connection: close\r\n";
        }
        let body = vec![b'x'; self.body_size];
        let mut request = Vec::with_capacity(head.len() + body.len() + 64);
        request.extend_from_slice(head.as_bytes());
        match (self.is_chunked, body.len()) {
            (true, _) => {
                request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                request.extend_from_slice(&chunked(&body));
            }
            (false, 0) => request.extend_from_slice(b"\r\n"),
            (false, length) => {
                request.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
                request.extend_from_slice(&body);
            }
        }
        let role = if method == "HEAD" { Role::ResponseToHead } else { Role::Response };
        Ok(Payload::Http { request, role })
    }
}

/// A body in chunks of 4 KiB, with its end.
pub(crate) fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / 256 + 64);
    for chunk in body.chunks(4096) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// Where to send, taken from `http://host:port/path`, `host:port` or `host:port/path`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.starts_with("https://") {
            return Err(Error::usage(format!("{text}: TLS is not supported, only http://")));
        }
        let is_url = text.starts_with("http://");
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let dialled = match (has_port, is_url) {
            (true, _) => host.to_owned(),
            (false, true) => format!("{host}:80"),
            (false, false) => {
                return Err(Error::usage(format!("{text}: expected host:port or http://host")));
            }
        };
        let addr = dialled
            .to_socket_addrs()
            .map_err(|cause| Error::new(Kind::Target, format!("{dialled}: {cause}")))?
            .next()
            .ok_or_else(|| Error::new(Kind::Target, format!("{dialled}: no address")))?;
        Ok(Self { addr, host: host.to_owned(), path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::MessageParser;

    fn bytes(spec: &RequestSpec) -> String {
        String::from_utf8(spec.encode().expect("a good request").bytes().to_vec()).unwrap()
    }

    fn get() -> RequestSpec {
        RequestSpec { path: "/a".to_owned(), host: "h:1".to_owned(), ..RequestSpec::default() }
    }

    #[test]
    fn a_request_is_written_as_asked() {
        let plain = "GET /a HTTP/1.1\r\nHost: h:1\r\nUser-Agent: netra-loadtest\r\nAccept: */*\r\n";
        assert_eq!(bytes(&get()), format!("{plain}\r\n"));
        let close = RequestSpec { is_close: true, headers: vec!["X-A: b".to_owned()], ..get() };
        assert_eq!(bytes(&close), format!("{plain}X-A: b\r\nConnection: close\r\n\r\n"));
        let post = bytes(&RequestSpec { body_size: 3, ..get() });
        assert!(post.starts_with("POST /a ") && post.ends_with("Content-Length: 3\r\n\r\nxxx"));
    }

    #[test]
    fn our_own_parser_reads_what_we_write() {
        for (body_size, is_chunked) in [(0, false), (10, false), (0, true), (9000, true)] {
            let payload = RequestSpec { body_size, is_chunked, ..get() }.encode().unwrap();
            let mut parser = MessageParser::new(Role::Request);
            assert_eq!(parser.feed(payload.bytes()), Ok(Some(payload.bytes().len())));
        }
    }

    #[test]
    fn bad_requests_are_refused() {
        let with = |header: &str| RequestSpec { headers: vec![header.to_owned()], ..get() };
        for header in ["no colon", ": empty", "a b: c", "X: y\r\nInjected: z"] {
            assert_eq!(with(header).encode().unwrap_err().kind(), Kind::Usage, "{header:?}");
        }
        let spaced = RequestSpec { path: "/a b".to_owned(), ..get() };
        assert_eq!(spaced.encode().unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn targets_are_urls_or_addresses() {
        let target = Target::parse("http://127.0.0.1:8080/x?y=1").unwrap();
        assert_eq!(target.addr, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1:8080", "/x?y=1"));
        assert_eq!(Target::parse("http://127.0.0.1").unwrap().addr.port(), 80);
        assert_eq!(Target::parse("[::1]:99").unwrap().addr, "[::1]:99".parse().unwrap());
        for bad in ["127.0.0.1", "https://127.0.0.1", "", "127.0.0.1:99999"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
