//! Reading netra's `/metrics` and `/ready` without a client library.

use super::world::Namespace;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// One HTTP GET on a loopback port of `namespace`: status and body.
pub fn get(namespace: &Namespace, port: u16, path: &str) -> std::io::Result<(u16, String)> {
    namespace.enter(|| get_from((Ipv4Addr::LOCALHOST, port).into(), path))
}

/// One HTTP GET: status and body.
pub fn get_from(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// One request to a loopback port, given by its method, target and further lines: status, head and
/// raw body. It may take long.
pub fn ask(
    namespace: &Namespace,
    port: u16,
    request: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<(u16, String, Vec<u8>)> {
    namespace.enter(|| {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        let len = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = answer.get(end + 4..).unwrap_or_default();
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Ok((status, head, if is_chunked { whole(body) } else { body.to_vec() }))
    })
}

/// A body that came in chunks.
fn whole(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&chunks[..end]).unwrap_or_default();
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(chunk) = chunks.get(end + 2..end + 2 + size).filter(|_| size > 0) else { break };
        body.extend_from_slice(chunk);
        chunks = chunks.get(end + 2 + size + 2..).unwrap_or_default();
    }
    body
}

/// All samples of one scrape.
#[derive(Clone, Debug)]
pub struct Scrape {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Scrape {
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample);
        Self { samples: samples.collect() }
    }

    /// Every series by name and labels, in their order.
    pub fn series(&self) -> Vec<String> {
        self.samples.iter().map(|it| format!("{}{{{}}}", it.name, it.labels)).collect()
    }

    /// Sum of the samples with this name that carry all `labels`. The name must exist: a counter
    /// that is missing is not a counter at zero.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let named: Vec<_> = self.samples.iter().filter(|sample| sample.name == name).collect();
        assert!(!named.is_empty(), "/metrics has no {name}");
        let carries = |sample: &Sample| {
            labels.iter().all(|(key, value)| sample.labels.contains(&format!("{key}=\"{value}\"")))
        };
        let total: f64 = named.iter().filter(|sample| carries(sample)).map(|s| s.value).sum();
        assert!((0.0..9e15).contains(&total), "{name} is {total}");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "asserted")]
        let whole = total as u64;
        whole
    }

    /// The labels of the samples with this name that are not zero.
    pub fn labels_of(&self, name: &str) -> Vec<&str> {
        let counted = self.samples.iter().filter(|s| s.name == name && s.value > 0.0);
        counted.map(|sample| &*sample.labels).collect()
    }

    pub fn opened(&self, direction: &str) -> u64 {
        self.sum("netra_tcp_connections_opened_total", &[("direction", direction)])
    }

    pub fn closed(&self, reason: &str) -> u64 {
        self.sum("netra_tcp_connections_closed_total", &[("reason", reason)])
    }

    pub fn active(&self) -> u64 {
        self.sum("netra_tcp_connections_active", &[])
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, rest) = match line.split_once('}') {
        Some((series, rest)) => (series, rest),
        None => line.split_once(' ')?,
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels: labels.to_owned(), value })
}
