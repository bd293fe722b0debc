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
    let head = format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
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
