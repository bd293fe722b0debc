//! The Jaeger agent of the demo: it takes spans as netra sends them, and keeps them.

use super::Result;
use super::namespace::Namespace;
use super::thrift::{self, Value};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

/// Where Jaeger clients look for it.
pub(super) const PORT: u16 = 6831;

/// A span as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) service: String,
    pub(super) trace_id: u128,
    pub(super) span_id: i64,
    pub(super) parent_id: i64,
    pub(super) operation: String,
    pub(super) start_us: i64,
    pub(super) duration_us: i64,
    pub(super) tags: Vec<(String, Value)>,
}

impl Span {
    fn tag(&self, key: &str) -> Option<&Value> {
        self.tags.iter().find(|(found, _)| found == key).map(|(_, value)| value)
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.tag(key).and_then(Value::text).unwrap_or_default()
    }

    /// `server` or `client`.
    pub(super) fn kind(&self) -> &str {
        self.text("span.kind")
    }

    /// The number that the protocol has for how it came out.
    pub(super) fn status(&self) -> Option<i64> {
        match self.tag("http.status_code") {
            Some(status) => status.int(),
            None => self.text("rpc.response.status_code").parse().ok(),
        }
    }

    /// Whether it is one of HTTP that was answered with 200, or one of another protocol that says
    /// nothing of an error.
    pub(super) fn is_good(&self) -> bool {
        let is_other = self.is_of_store() && self.tag("error.type").is_none();
        is_other || self.tag("http.status_code").and_then(Value::int) == Some(200)
    }

    /// Whether it is of another protocol than HTTP.
    pub(super) fn is_of_store(&self) -> bool {
        ["db.system.name", "rpc.system.name"].iter().any(|key| self.tag(key).is_some())
    }

    /// Of a call: how it is known what it belongs to.
    pub(super) fn join(&self) -> &str {
        self.text("netra.join")
    }

    /// What netra itself took.
    pub(super) fn overhead_us(&self) -> Option<i64> {
        self.tag("netra.overhead_us")?.int()
    }

    pub(super) fn request_id(&self) -> &str {
        self.text("http.request_id")
    }
}

/// All spans that have arrived.
#[derive(Debug)]
pub(super) struct Collector {
    arriving: Receiver<Result<Vec<Span>>>,
    spans: Vec<Span>,
}

impl Collector {
    /// Listens in `namespace` on `ip`.
    pub(super) fn start(namespace: &Namespace, ip: Ipv4Addr) -> Result<Self> {
        let bound = namespace.enter(|| UdpSocket::bind((ip, PORT)))?;
        let socket = bound.map_err(|error| format!("UDP port {PORT}: {error}"))?;
        Ok(Self { arriving: listen(socket), spans: vec![] })
    }

    /// Takes in what arrives until `enough` says so, or until the deadline.
    pub(super) fn gather(
        &mut self,
        deadline: Instant,
        enough: impl Fn(&[Span]) -> bool,
    ) -> Result<&[Span]> {
        while !enough(&self.spans) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.arriving.recv_timeout(left) {
                Ok(spans) => self.spans.extend(spans?),
                Err(_) => break,
            }
        }
        Ok(&self.spans)
    }
}

/// What arrives at a socket, batch by batch.
pub(super) fn listen(socket: UdpSocket) -> Receiver<Result<Vec<Span>>> {
    let (tell, arriving) = channel();
    thread::spawn(move || {
        let mut packet = vec![0; 1 << 16];
        while let Ok(len) = socket.recv(&mut packet) {
            let read = batch(&packet[..len]);
            let what = read.ok_or_else(|| format!("{len} bytes that are no batch of spans"));
            if tell.send(what).is_err() {
                break;
            }
        }
    });
    arriving
}

/// `emitBatch` of jaeger.thrift: a process and its spans.
fn batch(packet: &[u8]) -> Option<Vec<Span>> {
    let (name, args) = thrift::message(packet)?;
    let batch = args.field(1).filter(|_| name == "emitBatch")?;
    let service = batch.field(1)?.field(1)?.text()?;
    batch.field(2)?.list()?.iter().map(|span| read(span, service)).collect()
}

fn read(span: &Value, service: &str) -> Option<Span> {
    let int = |id| span.field(id).and_then(Value::int);
    let half = |id| int(id).map(|half| u128::from(half.cast_unsigned()));
    let tags = span.field(10).and_then(Value::list).unwrap_or_default();
    Some(Span {
        service: service.to_owned(),
        trace_id: half(2)? << 64 | half(1)?,
        span_id: int(3)?,
        parent_id: int(4)?,
        operation: span.field(5)?.text()?.to_owned(),
        start_us: int(8)?,
        duration_us: int(9)?,
        tags: tags.iter().map(tag).collect::<Option<_>>()?,
    })
}

/// A key, and the value in the field that its type names: 3 text, 4 double, 5 bool, 6 long.
fn tag(tag: &Value) -> Option<(String, Value)> {
    let value = tag.field(3 + tag.field(2)?.int()?)?;
    Some((tag.field(1)?.text()?.to_owned(), value.clone()))
}
