//! What a server is asked that is to show whether it is well, and what its answer says of it.
//!
//! Each protocol is asked what costs its server least: nothing of the application's is touched. A
//! server that says no to somebody unknown (`-NOAUTH`) is well.

use crate::redis::UNWELL;
use std::fmt;

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ping {
    /// To be there is enough: nothing is asked.
    Tcp,
    /// `GET`; a status from 200 to 399 is well.
    Http1 {
        /// What of it.
        path: Box<str>,
        /// Its `Host`.
        host: Box<str>,
    },
    /// `PING`.
    Redis,
    /// `version`.
    Memcached,
    /// A heartbeat.
    Dubbo,
    /// `grpc.health.v1.Health/Check` of the whole server, without TLS.
    Grpc {
        /// Its `:authority`.
        host: Box<str>,
    },
}

/// What an answer says, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// More has to come.
    More,
    /// The server is well.
    Well,
    /// It says that it is not.
    Unwell,
    /// No answer of the protocol's.
    Odd,
}

/// No answer needs more bytes to be understood.
pub const ANSWER_BYTES_MAX: usize = 16 << 10;

impl Ping {
    /// The names of all, as documents write them.
    pub const NAMES: [&str; 6] = ["tcp", "http", "redis", "memcached", "dubbo", "grpc"];

    /// By its name, of a host.
    pub fn named(name: &str, path: &str, host: &str) -> Option<Self> {
        let host: Box<str> = host.into();
        Some(match name {
            "tcp" => Self::Tcp,
            "http" => Self::Http1 { path: path.into(), host },
            "redis" => Self::Redis,
            "memcached" => Self::Memcached,
            "dubbo" => Self::Dubbo,
            "grpc" => Self::Grpc { host },
            _ => return None,
        })
    }

    /// What is sent; empty where nothing is asked.
    pub fn question(&self) -> Vec<u8> {
        match self {
            Self::Tcp => Vec::new(),
            Self::Http1 { path, host } => format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: netra-health\r\nAccept: */*\r\n\
                 Connection: close\r\n\r\n"
            )
            .into_bytes(),
            Self::Redis => b"PING\r\n".to_vec(),
            Self::Memcached => b"version\r\n".to_vec(),
            Self::Dubbo => HEARTBEAT.to_vec(),
            Self::Grpc { host } => grpc_question(host),
        }
    }

    /// What these first bytes of the answer say.
    pub fn said(&self, answer: &[u8]) -> Said {
        let said = match self {
            Self::Tcp => Said::Well,
            Self::Http1 { .. } => http_said(answer),
            Self::Redis => line_said(answer, redis_said),
            Self::Memcached => line_said(answer, |line| match line.starts_with(b"VERSION ") {
                true => Said::Well,
                false if line.starts_with(b"SERVER_ERROR") => Said::Unwell,
                false => Said::Odd,
            }),
            Self::Dubbo => dubbo_said(answer),
            Self::Grpc { .. } => grpc_said(answer),
        };
        if said == Said::More && answer.len() >= ANSWER_BYTES_MAX { Said::Odd } else { said }
    }
}

impl fmt::Display for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("a connection"),
            Self::Http1 { path, .. } => write!(f, "GET {path}"),
            Self::Redis => f.write_str("PING of Redis"),
            Self::Memcached => f.write_str("version of memcached"),
            Self::Dubbo => f.write_str("a heartbeat of Dubbo"),
            Self::Grpc { .. } => f.write_str("gRPC's health service"),
        }
    }
}

fn http_said(answer: &[u8]) -> Said {
    const VERSION: &[u8] = b"HTTP/1.";
    let known = answer.len().min(VERSION.len());
    if answer[..known] != VERSION[..known] {
        return Said::Odd;
    }
    let Some(status) = answer.get(9..12) else { return Said::More };
    match (status[0], status[1..].iter().all(u8::is_ascii_digit)) {
        (b'2' | b'3', true) => Said::Well,
        (b'1' | b'4' | b'5', true) => Said::Unwell,
        _ => Said::Odd,
    }
}

/// By the first line.
fn line_said(answer: &[u8], of: impl Fn(&[u8]) -> Said) -> Said {
    match answer.iter().position(|byte| *byte == b'\n') {
        None => Said::More,
        Some(end) => of(answer[..end].trim_ascii_end()),
    }
}

fn redis_said(line: &[u8]) -> Said {
    // Any other error is an answer to somebody unknown.
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    match line.first() {
        Some(b'-') if UNWELL.contains(&&word[1..]) => Said::Unwell,
        Some(b'+' | b'-') => Said::Well,
        _ => Said::Odd,
    }
}

/// Magic; a request, two ways, an event, hessian2; no status; an id; one byte, null.
const HEARTBEAT: [u8; 17] =
    [0xda, 0xbb, 0xe2, 0, 0x6e, 0x65, 0x74, 0x72, 0x61, 0, 0, 1, 0, 0, 0, 1, b'N'];
const DUBBO_OK: u8 = 20;
/// No status at all: dubbo-py answers heartbeats so.
const DUBBO_NONE: u8 = 0;

fn dubbo_said(answer: &[u8]) -> Said {
    let Some(head) = answer.get(..16) else {
        let known = answer.len().min(2);
        return if answer[..known] == HEARTBEAT[..known] { Said::More } else { Said::Odd };
    };
    // Servers may send a heartbeat of their own first: to be able to is to be well.
    match (head[..2] == HEARTBEAT[..2], head[2] & 0xa0, head[3]) {
        (true, 0xa0, _) | (true, 0x20, DUBBO_OK | DUBBO_NONE) => Said::Well,
        (true, 0x20, _) => Said::Unwell,
        _ => Said::Odd,
    }
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const H2_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn h2_frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// Fields are literals that no table remembers (RFC 7541 §6.2.2).
fn grpc_question(host: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` of the static table.
    let mut fields = vec![0x83, 0x86];
    let host = &host[..host.len().min(126)];
    for (name, value) in [
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", host),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "netra-health"),
    ] {
        fields.push(0);
        for text in [name, value] {
            fields.push(u8::try_from(text.len()).unwrap_or(0));
            fields.extend_from_slice(text.as_bytes());
        }
    }
    let mut question = H2_PREFACE.to_vec();
    question.extend(h2_frame(SETTINGS, 0, 0, &[]));
    question.extend(h2_frame(HEADERS, END_HEADERS, 1, &fields));
    // One message, not compressed, of no bytes: the whole server is asked for.
    question.extend(h2_frame(DATA, END_STREAM, 1, &[0; 5]));
    question
}

/// The field `status` of the answer: 1 is SERVING.
const SERVING: [u8; 2] = [8, 1];

fn grpc_said(answer: &[u8]) -> Said {
    let mut rest = answer;
    while let Some((head, behind)) = rest.split_at_checked(H2_HEAD) {
        let (kind, flags, is_ours) = (head[3], head[4], head[5..9] == [0, 0, 0, 1]);
        if head[0] != 0 || (rest.len() == answer.len() && kind != SETTINGS) {
            return Said::Odd;
        }
        let len = usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = behind.get(..len);
        match (kind, payload) {
            (DATA, Some(payload)) if is_ours && payload.len() >= 5 => {
                let message = &payload[5..];
                let is_well = message.windows(2).next() == Some(&SERVING);
                return if is_well { Said::Well } else { Said::Unwell };
            }
            // Trailers and no message: the call has failed.
            (HEADERS, _) if is_ours && flags & END_STREAM != 0 => return Said::Unwell,
            (RST_STREAM | GOAWAY, _) => return Said::Unwell,
            (_, None) => return Said::More,
            (_, Some(payload)) => rest = &behind[payload.len()..],
        }
    }
    Said::More
}

#[cfg(test)]
mod tests {
    use super::{Said::*, *};

    fn ping(name: &str) -> Ping {
        Ping::named(name, "/healthz", "orders.shop").unwrap()
    }

    #[test]
    fn each_answer_is_told_at_whatever_byte_it_is_cut() {
        let grpc = |message: &[u8]| {
            let mut all = h2_frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]);
            all.extend(h2_frame(SETTINGS, 1, 0, &[]));
            all.extend(h2_frame(HEADERS, END_HEADERS, 1, &[0x88]));
            all.extend(h2_frame(DATA, 0, 1, message));
            all
        };
        let failed = [
            h2_frame(SETTINGS, 0, 0, &[]),
            h2_frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88]),
        ];
        let mut beat = HEARTBEAT;
        (beat[2], beat[3]) = (0x22, DUBBO_OK);
        let mut full = beat;
        full[3] = 100;
        let mut bare = beat;
        bare[3] = 0;
        for (name, answer, said) in [
            ("http", &b"HTTP/1.1 200 OK\r\n\r\n"[..], Well),
            ("http", b"HTTP/1.0 302 Found\r\n", Well),
            ("http", b"HTTP/1.1 503 Service Unavailable\r\n", Unwell),
            ("http", b"HTTP/1.1 404 Not Found\r\n", Unwell),
            ("http", b"-ERR what\r\n", Odd),
            ("http", b"HTTP/1.1 what", Odd),
            ("redis", b"+PONG\r\n", Well),
            ("redis", b"-NOAUTH Authentication required.\r\n", Well),
            ("redis", b"-LOADING Redis is loading\r\n", Unwell),
            ("redis", b"HTTP/1.1 400 Bad Request\r\n", Odd),
            ("memcached", b"VERSION 1.6.18\r\n", Well),
            ("memcached", b"SERVER_ERROR out of memory\r\n", Unwell),
            ("memcached", b"ERROR\r\n", Odd),
            ("dubbo", &beat, Well),
            ("dubbo", &HEARTBEAT, Well),
            ("dubbo", &full, Unwell),
            ("dubbo", &bare, Well),
            ("dubbo", b"HTTP/1.1 400 Bad", Odd),
            ("grpc", &grpc(&[0, 0, 0, 0, 2, 8, 1]), Well),
            ("grpc", &grpc(&[0, 0, 0, 0, 2, 8, 2]), Unwell),
            ("grpc", &grpc(&[0, 0, 0, 0, 0]), Unwell),
            ("grpc", &failed.concat(), Unwell),
            ("grpc", b"HTTP/1.1 400 Bad Request\r\n", Odd),
        ] {
            let ping = ping(name);
            assert_eq!(ping.said(answer), said, "{name} {answer:x?}");
            // What is said once is not taken back, and nothing is told of nothing.
            assert_eq!(ping.said(&[]), More, "{name}");
            let told: Vec<_> = (0..=answer.len()).map(|end| ping.said(&answer[..end])).collect();
            let first = told.iter().position(|it| *it != More).unwrap();
            let is_steady = told[first..].iter().all(|it| *it == told[first]);
            assert!(is_steady && told[first] == said, "{name} {told:?}");
        }
    }

    #[test]
    fn an_answer_without_an_end_is_none() {
        for name in ["redis", "memcached"] {
            assert_eq!(ping(name).said(&[b'+'; ANSWER_BYTES_MAX]), Odd);
        }
        let mut endless = h2_frame(SETTINGS, 0, 0, &[]);
        while endless.len() < ANSWER_BYTES_MAX {
            endless.extend(h2_frame(6, 0, 0, &[0; 8]));
        }
        assert_eq!(ping("grpc").said(&endless), Odd);
    }

    #[test]
    fn questions_are_read_by_our_own_codecs() {
        assert_eq!(ping("tcp").question(), []);
        assert_eq!(ping("tcp").said(&[]), Well);
        let http = String::from_utf8(ping("http").question()).unwrap();
        assert!(http.starts_with("GET /healthz HTTP/1.1\r\nHost: orders.shop\r\n"), "{http}");
        let dubbo = ping("dubbo").question();
        assert_eq!(dubbo.len(), 16 + usize::from(dubbo[15]));
        let grpc = ping("grpc").question();
        assert!(grpc.starts_with(H2_PREFACE));
        let names = Ping::NAMES.map(|name| Ping::named(name, "/", "it").is_some());
        assert!(names.iter().all(|is_there| *is_there));
        assert_eq!(Ping::named("mysql", "", ""), None);
    }
}
