//! What a span says of its exchange: its operation and its tags, in netramesh's names, in those of
//! OpenTelemetry's conventions for HTTP, or in both.

use super::{Semconv, exchange_tags, stream_tags};
use crate::mask::Query;
use memchr::memchr;
use netra_codecs::{
    ascii,
    h1::RequestTarget,
    trace::{Outcome, SamplerTag, SpanKind, SpanRecord, SpanText, TextsByKind},
};
use percent_encoding::percent_decode;
use std::{
    borrow::Cow,
    fmt::{Display, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ptr,
};

/// The value of a tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'v> {
    Text(&'v str),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// Tags that are the same of every span that has the same of these: whoever writes them may keep what
/// he has written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Alike {
    /// Those that a span begins with.
    Beginning {
        sampler: Option<SamplerTag>,
        kind: SpanKind,
        /// Where its description is, of another protocol than HTTP/1; else 0.
        protocol: usize,
    },
    /// The other end.
    Peer {
        remote: SocketAddr,
        kind: SpanKind,
        /// As netramesh told of it.
        is_legacy: bool,
    },
}

/// Where tags go.
pub(crate) trait Sink {
    fn put(&mut self, key: &'static str, value: Value<'_>);

    /// Tags that do not differ where `of` does not.
    fn put_alike(
        &mut self,
        _of: Alike,
        mut write: impl FnMut(&mut dyn FnMut(&'static str, Value<'_>)),
    ) {
        write(&mut |key, value| self.put(key, value));
    }
}

impl<F: FnMut(&'static str, Value<'_>)> Sink for F {
    fn put(&mut self, key: &'static str, value: Value<'_>) {
        self(key, value);
    }
}

/// Turns records into tags; kept, because it keeps its scratch.
#[derive(Debug)]
pub(crate) struct Tags {
    semconv: Semconv,
    /// Tags of the mapped headers and cookies, by index.
    mapped: Vec<&'static str>,
    /// The wire form has no place of its own for kind and error, so that they are tags.
    has_intrinsic: bool,
    /// What is told of queries.
    query: Query,
    scratch: Scratch,
}

/// Where values are written that do not stand in a span as they are told.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) shown: String,
    masked: Vec<u8>,
}

impl Tags {
    /// `mapped` lives as long as the process, so that every key does.
    pub(crate) fn new(semconv: Semconv, mapped: Vec<String>, has_intrinsic: bool) -> Self {
        let mapped = mapped.into_iter().map(|name| &*name.leak()).collect();
        Self { semconv, mapped, has_intrinsic, query: Query::Names, scratch: Scratch::default() }
    }

    /// Tells of queries what `query` says.
    pub(crate) fn with_query(self, query: Query) -> Self {
        Self { query, ..self }
    }

    /// The operation: a path, without its query; of what was asked elsewhere, after the host. In
    /// OpenTelemetry's conventions it is the method, because a name must not have many values.
    pub(crate) fn operation<'s>(&self, span: &'s SpanRecord) -> Cow<'s, str> {
        if let Some(about) = span.protocol {
            let named = span.text(SpanText::Operation).filter(|name| !name.is_empty());
            return text(named.unwrap_or(about.name.as_bytes()));
        }
        if self.semconv == Semconv::Otel {
            if let Some(call) = stream_tags::call(&span.by_kind()) {
                return call;
            }
            return text(span.text(SpanText::Method).unwrap_or(b"HTTP"));
        }
        let path = target(span.text(SpanText::Target)).path();
        let path = match memchr(b'%', path) {
            Some(_) => percent_decode(path).decode_utf8_lossy(),
            None => text(path),
        };
        match span.kind {
            SpanKind::Server => path,
            SpanKind::Client => {
                let host = text(span.text(SpanText::Host).unwrap_or_default());
                Cow::Owned([&*host, &*path].concat())
            }
        }
    }

    /// Every tag of a span, in order.
    pub(crate) fn each(&mut self, span: &SpanRecord, mut out: impl Sink) {
        let protocol = span.protocol.map_or(0, |about| ptr::from_ref(about).addr());
        let beginning = Alike::Beginning { sampler: span.sampler, kind: span.kind, protocol };
        out.put_alike(beginning, |put| self.beginning(span, put));
        let texts = &span.by_kind();
        // netramesh told of HTTP alone, so that the others have one form.
        match span.protocol {
            Some(about) => {
                exchange_tags::tags(span, texts, about, &mut self.scratch.shown, &mut out);
            }
            None => {
                if self.semconv != Semconv::Otel {
                    legacy(span, texts, self.query, &mut self.scratch, &mut out);
                }
                let put = &mut |key: &'static str, value: Value<'_>| out.put(key, value);
                if self.semconv != Semconv::Legacy {
                    otel(span, texts, self.query, &mut self.scratch.shown, put);
                }
                stream_tags::tags(span, texts, self.semconv != Semconv::Legacy, put);
                stream_tags::flow_tags(texts, put);
            }
        }
        self.end(span, texts, &mut |key: &'static str, value: Value<'_>| out.put(key, value));
    }

    /// Those that many spans have in common.
    fn beginning(&self, span: &SpanRecord, mut put: &mut dyn FnMut(&'static str, Value<'_>)) {
        if let Some(sampler) = span.sampler {
            put("sampler.type", Value::Text(sampler.kind()));
            put("sampler.param", sampler_param(sampler));
        }
        if self.has_intrinsic {
            put("span.kind", Value::Text(kind(span)));
        }
        if let Some(about) = span.protocol {
            exchange_tags::system(about, &mut put);
        }
    }

    /// What stands behind what the exchange itself says.
    fn end(
        &self,
        span: &SpanRecord,
        texts: &TextsByKind<'_>,
        put: &mut impl FnMut(&'static str, Value<'_>),
    ) {
        if self.has_intrinsic && span.is_error() {
            put("error", Value::Bool(true));
        }
        if let Some(fault) = span.fault {
            put("netra.flag", Value::Text(fault.flag.letters()));
            put("netra.reason", Value::Text(fault.flag.word()));
            if fault.errno != 0 {
                put("netra.errno", Value::Int(fault.errno.into()));
            }
        }
        if matches!(span.outcome, Outcome::Timeout | Outcome::Deadline) {
            put("timeout", Value::Bool(true));
        }
        if texts.has_mapped || texts.get(SpanText::Rule).or(texts.get(SpanText::DebugId)).is_some()
        {
            self.others(span, put);
        }
        if let Some(join) = span.join {
            put("netra.join", Value::Text(join.name()));
        }
        if span.tries.count > 1 {
            put("netra.tries", Value::Int(span.tries.count.into()));
            if let Some(reason) = span.tries.reason {
                put("netra.retry.reason", Value::Text(reason.name()));
            }
        }
        put("netra.overhead_us", Value::Int(micros(span.overhead_ns)));
    }

    /// What few spans have, in the order in which it was found.
    fn others(&self, span: &SpanRecord, put: &mut impl FnMut(&'static str, Value<'_>)) {
        for (what, value) in span.texts() {
            let key = match what {
                SpanText::Rule => Some("netra.rule"),
                SpanText::DebugId => Some("jaeger-debug-id"),
                SpanText::Mapped(index) => self.mapped.get(usize::from(index)).copied(),
                _ => None,
            };
            if let Some(key) = key {
                put(key, Value::Text(&text(value)));
            }
        }
    }
}

pub(crate) fn kind(span: &SpanRecord) -> &'static str {
    match span.kind {
        SpanKind::Server => "server",
        SpanKind::Client => "client",
    }
}

/// Times that are whole microseconds on the wire; what is less than one is none.
pub(crate) fn micros(ns: u64) -> i64 {
    i64::try_from(ns / 1000).unwrap_or(i64::MAX)
}

fn sampler_param(sampler: SamplerTag) -> Value<'static> {
    match sampler {
        SamplerTag::Const(all) => Value::Bool(all),
        SamplerTag::Probabilistic(number)
        | SamplerTag::RateLimiting(number)
        | SamplerTag::LowerBound(number) => Value::Float(number),
    }
}

/// netramesh's tags, in its order.
fn legacy(
    span: &SpanRecord,
    texts: &TextsByKind<'_>,
    query: Query,
    scratch: &mut Scratch,
    out: &mut impl Sink,
) {
    if let Some(remote) = span.remote {
        out.put_alike(Alike::Peer { remote, kind: span.kind, is_legacy: true }, |put| {
            put("remote_addr", Value::Text(address(&mut scratch.shown, &remote)));
        });
    }
    let put = &mut |key: &'static str, value: Value<'_>| out.put(key, value);
    if let Some(host) = texts.get(SpanText::Host) {
        put("http.host", Value::Text(&text(host)));
    }
    if let Some(target) = texts.get(SpanText::Target) {
        scratch.masked.clear();
        let is_masked = query.push_target(&mut scratch.masked, target);
        let told = if is_masked { &scratch.masked } else { target };
        put("http.path", Value::Text(&text(told)));
    }
    put("http.request_size", Value::Int(size(span.request_bytes)));
    for (key, what) in [
        ("http.method", SpanText::Method),
        ("http.user_agent", SpanText::UserAgent),
        ("http.request_id", SpanText::RequestId),
    ] {
        if let Some(value) = texts.get(what) {
            put(key, Value::Text(&text(value)));
        }
    }
    put("http.response_size", Value::Int(size(span.response_bytes)));
    if span.status != 0 {
        put("http.status_code", Value::Int(span.status.into()));
    }
}

/// A size that nobody announced is -1, as Go has it.
pub(crate) fn size(bytes: Option<u64>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// The stable conventions for HTTP spans of OpenTelemetry 1.23 and later.
fn otel(
    span: &SpanRecord,
    texts: &TextsByKind<'_>,
    query: Query,
    scratch: &mut String,
    put: &mut impl FnMut(&'static str, Value<'_>),
) {
    if let Some(method) = texts.get(SpanText::Method) {
        put("http.request.method", Value::Text(&text(method)));
    }
    let host = texts.get(SpanText::Host).unwrap_or_default();
    let target = target(texts.get(SpanText::Target));
    match span.kind {
        SpanKind::Server => {
            put("url.scheme", Value::Text("http"));
            put("url.path", Value::Text(&text(target.path())));
            if let Some(asked) = target.query().and_then(|asked| query.query(asked)) {
                put("url.query", Value::Text(&text(&asked)));
            }
            if let Some(remote) = &span.remote {
                put("client.address", Value::Text(ip(scratch, remote)));
            }
        }
        SpanKind::Client => {
            scratch.clear();
            scratch.extend(["http://", &*text(host), &*text(target.path())]);
            if let Some(asked) = target.query().and_then(|asked| query.query(asked)) {
                scratch.extend(["?", &*text(&asked)]);
            }
            put("url.full", Value::Text(scratch));
        }
    }
    let (name, port) = host_and_port(host);
    if !name.is_empty() {
        put("server.address", Value::Text(&text(name)));
    }
    if let Some(port) = port {
        put("server.port", Value::Int(port.into()));
    }
    if let Some(remote) = &span.remote {
        put("network.peer.address", Value::Text(ip(scratch, remote)));
        put("network.peer.port", Value::Int(remote.port().into()));
    }
    if let Some(agent) = texts.get(SpanText::UserAgent) {
        put("user_agent.original", Value::Text(&text(agent)));
    }
    for (key, bytes) in [
        ("http.request.body.size", span.request_bytes),
        ("http.response.body.size", span.response_bytes),
    ] {
        if bytes.is_some() {
            put(key, Value::Int(size(bytes)));
        }
    }
    if span.status != 0 {
        put("http.response.status_code", Value::Int(span.status.into()));
    }
    if let Some(class) = error_type(span, texts, scratch) {
        put("error.type", Value::Text(class));
    }
}

fn error_type<'s>(
    span: &SpanRecord,
    texts: &TextsByKind<'_>,
    scratch: &'s mut String,
) -> Option<&'s str> {
    Some(match span.outcome {
        Outcome::Whole if span.status >= 500 => shown(scratch, &span.status),
        Outcome::Whole => return stream_tags::error_type(span, texts),
        cut_short => cut_short.name(),
    })
}

pub(crate) fn shown<'s>(scratch: &'s mut String, value: &impl Display) -> &'s str {
    scratch.clear();
    // Writing to a string does not fail.
    let _ = write!(scratch, "{value}");
    scratch
}

/// Address and port, as `shown` shows them: usual ones without its detours.
fn address<'s>(scratch: &'s mut String, address: &SocketAddr) -> &'s str {
    let IpAddr::V4(ip) = address.ip() else { return shown(scratch, address) };
    let mut digits = Digits::default();
    digits.push_ip(ip);
    digits.push(b':');
    let port = address.port();
    for (scale, digit) in [(10_000, port / 10_000), (1000, port / 1000), (100, port / 100)] {
        if port >= scale {
            digits.push_digit(digit % 10);
        }
    }
    digits.push_short(port % 100, port >= 10);
    digits.write(scratch)
}

/// The same without its port.
pub(crate) fn ip<'s>(scratch: &'s mut String, address: &SocketAddr) -> &'s str {
    let IpAddr::V4(ip) = address.ip() else { return shown(scratch, &address.ip()) };
    let mut digits = Digits::default();
    digits.push_ip(ip);
    digits.write(scratch)
}

/// The longest address of four numbers, with its port.
#[derive(Default)]
struct Digits {
    bytes: [u8; 24],
    len: usize,
}

impl Digits {
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn push_digit(&mut self, digit: u16) {
        self.push(b'0' + digit.to_le_bytes()[0]);
    }

    /// A number below 100.
    fn push_short(&mut self, number: u16, has_tens: bool) {
        if has_tens {
            self.push_digit(number / 10);
        }
        self.push_digit(number % 10);
    }

    fn push_ip(&mut self, ip: Ipv4Addr) {
        for (index, part) in ip.octets().into_iter().enumerate() {
            if index > 0 {
                self.push(b'.');
            }
            let part = u16::from(part);
            if part >= 100 {
                self.push_digit(part / 100);
            }
            self.push_short(part % 100, part >= 10);
        }
    }

    fn write(self, out: &mut String) -> &str {
        out.clear();
        out.push_str(ascii(&self.bytes[..self.len]).unwrap_or_default());
        out
    }
}

fn target(target: Option<&[u8]>) -> RequestTarget<'_> {
    RequestTarget::new(target.unwrap_or(b"/"))
}

fn host_and_port(host: &[u8]) -> (&[u8], Option<u16>) {
    let colon = host.iter().rposition(|&byte| byte == b':');
    let port = colon.and_then(|at| str::from_utf8(&host[at + 1..]).ok()?.parse().ok());
    match (colon, port) {
        (Some(at), Some(port)) => (&host[..at], Some(port)),
        _ => (host, None),
    }
}

/// Text as receivers take it, which is UTF-8: a character that was cut in two is left out, and what
/// never was a character is replaced.
#[inline]
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    ascii(bytes).map_or_else(|| other_text(bytes), Cow::Borrowed)
}

#[cold]
fn other_text(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&bytes[..error.valid_up_to()])
        }
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

#[cfg(test)]
#[path = "tags_tests.rs"]
mod tests;
