//! The access log on stdout: a line for each request, each opaque connection that has ended, and each
//! failure, as logfmt or JSON. A thread of its own takes records from the shards' rings; when stdout is slow
//! it waits, the rings fill up, and what has no room is dropped and counted there.

use crate::{
    export::Pace,
    json,
    log::{Format, rfc3339},
    mask::{self, Query},
    texts::errno_name,
};
use netra_codecs::trace::{Fault, SpanKind, SpanRecord, SpanText, StreamFacts};
use netra_shards::{AccessSource, ConnectionRecord, Direction};
use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Lines that stdout took.
pub(crate) static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Lines that it refused.
pub(crate) static FAILED: AtomicU64 = AtomicU64::new(0);

/// Records that wait for the writer, of each kind and shard.
pub(crate) const RECORDS_MAX: usize = 2048;
/// Records of one ring that are written in one go.
const TAKEN_MAX: usize = 512;
const STACK_BYTES: usize = 128 * 1024;
/// The longest between two looks: at 40,000 requests a second a ring is full by then.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// The running log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    thread: thread::JoinHandle<()>,
}

impl AccessLog {
    /// Starts the writer, where there is anything to write. It ends when the shards have ended and
    /// all is written.
    pub(crate) fn start(
        sources: Vec<AccessSource>,
        format: Format,
        query: Query,
    ) -> io::Result<Option<Self>> {
        if sources.is_empty() {
            return Ok(None);
        }
        let thread = thread::Builder::new()
            .name("access-log".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let lines = Lines { format, query, text: String::new() };
                write_all(sources, lines, &mut io::stdout());
            })?;
        Ok(Some(Self { thread }))
    }

    /// Waits for the last lines; says whether they were written within `patience`.
    pub(crate) fn finish(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(5));
        }
        self.thread.is_finished()
    }
}

fn write_all(mut sources: Vec<AccessSource>, mut lines: Lines, out: &mut impl Write) {
    let mut pace = Pace::default();
    while !sources.is_empty() {
        let mut found_most = 0;
        for source in &mut sources {
            let requests = source.requests.drain(TAKEN_MAX, |record| lines.request(record));
            let connections =
                source.connections.drain(TAKEN_MAX, |record| lines.connection(record));
            lines.write(out, requests + connections);
            found_most = found_most.max(requests).max(connections);
        }
        // A ring is over when its shard has ended and it is empty.
        sources.retain(|source| !(source.requests.is_over() && source.connections.is_over()));
        // Shards do not wake this thread, so that it never sleeps longer than its rings hold.
        let pause = pace.after(found_most).min(PAUSE_MAX);
        if !sources.is_empty() {
            thread::park_timeout(pause);
        }
    }
}

/// Lines in the making.
struct Lines {
    format: Format,
    query: Query,
    text: String,
}

impl Lines {
    fn write(&mut self, out: &mut impl Write, count: usize) {
        if count == 0 {
            return;
        }
        let written = out.write_all(self.text.as_bytes()).and_then(|()| out.flush());
        let counter = if written.is_ok() { &WRITTEN } else { &FAILED };
        counter.fetch_add(count as u64, Relaxed);
        self.text.clear();
    }

    fn request(&mut self, record: &SpanRecord) {
        let mut line = Line::begin(self.format, &mut self.text);
        line.text("time", &rfc3339(record.start_unix_ns));
        line.text("kind", if record.protocol.is_some() { "exchange" } else { "request" });
        line.text(
            "direction",
            match record.kind {
                SpanKind::Server => "inbound",
                SpanKind::Client => "outbound",
            },
        );
        if let Some(about) = record.protocol {
            line.text("protocol", about.name);
        }
        let facts = record.text(SpanText::Stream).and_then(StreamFacts::of_bytes);
        if let Some(facts) = facts {
            line.text("protocol", if facts.is_grpc { "grpc" } else { "http2" });
        }
        line.bytes("operation", record.text(SpanText::Operation));
        line.bytes("namespace", record.text(SpanText::Namespace));
        line.bytes("method", record.text(SpanText::Method));
        let target = record.text(SpanText::Target).map(|target| self.query.target(target));
        line.bytes("target", target.as_ref().map(Cow::as_ref));
        line.bytes("host", record.text(SpanText::Host));
        line.number("status", (record.status > 0).then_some(record.status.into()));
        line.number("grpc_status", facts.and_then(|it| it.grpc_status).map(u64::from));
        line.text("outcome", record.outcome.name());
        line.fault(record.fault);
        line.bytes("error", record.text(SpanText::Error));
        line.bytes("rule", record.text(SpanText::Rule));
        line.number("duration_us", Some(record.duration_ns / 1000));
        line.number("overhead_us", Some(record.overhead_ns / 1000));
        line.number("request_bytes", record.request_bytes);
        line.number("response_bytes", record.response_bytes);
        if let Some(remote) = record.remote {
            line.text("remote", &remote.to_string());
        }
        let tries = record.tries;
        line.number("tries", (tries.count > 1).then_some(tries.count.into()));
        if let Some(reason) = tries.reason {
            line.text("retry_reason", reason.name());
        }
        line.bytes("request_id", record.text(SpanText::RequestId));
        line.bytes("user_agent", record.text(SpanText::UserAgent));
        if record.context.is_sampled() {
            line.text("trace_id", &format!("{:032x}", record.context.trace_id));
            line.text("span_id", &format!("{:016x}", record.context.span_id));
        }
        line.end();
    }

    fn connection(&mut self, record: &ConnectionRecord) {
        let mut line = Line::begin(self.format, &mut self.text);
        line.text("time", &rfc3339(record.start_unix_ns));
        line.text("kind", "connection");
        if let Some(direction) = record.direction.map(Direction::name) {
            line.text("direction", direction);
        }
        if !matches!(record.protocol, "" | "opaque") {
            line.text("protocol", record.protocol);
        }
        if let Some(reason) = record.tunnel {
            line.text("tunnel", reason);
        }
        for (key, address) in [("remote", record.peer), ("original_dst", record.original_dst)] {
            if let Some(address) = address {
                line.text(key, &address.to_string());
            }
        }
        line.text("end", record.end);
        line.fault(record.fault);
        if let (Some(_), Some(dialled)) = (record.fault, record.dialled) {
            line.text("dialled", &dialled.to_string());
        }
        line.number("duration_us", u64::try_from(record.duration.as_micros()).ok());
        line.number("overhead_us", Some(record.overhead_ns / 1000));
        line.number("request_bytes", Some(record.bytes[0]));
        line.number("response_bytes", Some(record.bytes[1]));
        if let Some(known) = &record.known {
            line.bytes("request_id", Some(known.request_id()));
            if known.trace_id != 0 {
                line.text("trace_id", &format!("{:032x}", known.trace_id));
                line.text("span_id", &format!("{:016x}", known.span_id));
            }
        }
        line.end();
    }
}

/// A line in either format.
enum Line<'o> {
    Logfmt(&'o mut String),
    Json(json::Object<'o>),
}

impl<'o> Line<'o> {
    fn begin(format: Format, out: &'o mut String) -> Self {
        match format {
            Format::Text => Self::Logfmt(out),
            Format::Json => Self::Json(json::Object::begin(out)),
        }
    }

    fn text(&mut self, key: &str, value: &str) {
        match self {
            Self::Logfmt(out) => {
                // Writing to a string does not fail.
                let _ = write!(out, "{key}=");
                mask::push_value(out, value);
                out.push(' ');
            }
            Self::Json(object) => object.text(key, value),
        }
    }

    fn bytes(&mut self, key: &str, value: Option<&[u8]>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.text(key, &String::from_utf8_lossy(value));
        }
    }

    fn fault(&mut self, fault: Option<Fault>) {
        let Some(fault) = fault else { return };
        self.text("flag", fault.flag.letters());
        self.text("reason", fault.flag.word());
        self.text("side", fault.flag.side());
        if let Some(errno) = errno_name(fault.errno) {
            self.text("errno", &errno);
        }
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        let Some(value) = value else { return };
        match self {
            Self::Logfmt(out) => drop(write!(out, "{key}={value} ")),
            Self::Json(object) => object.raw(key, &value.to_string()),
        }
    }

    fn end(self) {
        match self {
            Self::Logfmt(out) => {
                out.pop();
                out.push('\n');
            }
            Self::Json(object) => object.end_line(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_codecs::trace::{Flag, TraceContext, TraceFlags};

    fn record() -> SpanRecord {
        let context = TraceContext::root(0xab, 0xcd, TraceFlags::SAMPLED);
        let mut record = SpanRecord::begin(context, SpanKind::Server, 1_000_000_000);
        record.put(SpanText::Method, b"GET");
        record.put(SpanText::Target, b"/a b?\"q\"\n");
        record.put(SpanText::Host, b"shop");
        (record.status, record.duration_ns, record.overhead_ns) = (200, 7_500_000, 21_999);
        record.response_bytes = None;
        record
    }

    fn lines(format: Format, query: Query) -> Lines {
        Lines { format, query, text: String::new() }
    }

    #[test]
    fn a_logfmt_line_is_one_line_and_says_what_was_asked() {
        let mut lines = lines(Format::Text, Query::Keep);
        lines.request(&record());
        assert_eq!(
            lines.text,
            "time=1970-01-01T00:00:01.000Z kind=request direction=inbound method=GET \
             target=\"/a b?\\\"q\\\"\\n\" host=shop status=200 outcome=whole duration_us=7500 \
             overhead_us=21 request_bytes=0 trace_id=000000000000000000000000000000ab \
             span_id=00000000000000cd\n"
        );
    }

    #[test]
    fn who_was_tried_elsewhere_says_how_often_and_why() {
        use netra_codecs::trace::{RetryReason, Tries};
        let said = |tries| {
            let mut lines = lines(Format::Text, Query::Keep);
            let mut record = record();
            record.tries = tries;
            lines.request(&record);
            let is_it = |word: &&str| word.starts_with("tries") || word.starts_with("retry");
            lines.text.split(' ').filter(is_it).collect::<Vec<_>>().join(" ")
        };
        let reason = Some(RetryReason::GatewayError);
        assert_eq!(said(Tries { count: 3, reason }), "tries=3 retry_reason=gateway-error");
        assert_eq!(said(Tries { count: 1, reason: None }), "");
    }

    #[test]
    fn a_json_line_has_the_same() {
        let mut lines = lines(Format::Json, Query::Keep);
        lines.request(&record());
        lines.connection(&ConnectionRecord {
            direction: Some(Direction::Outbound),
            original_dst: "10.0.0.1:5432".parse().ok(),
            dialled: "10.0.0.1:5432".parse().ok(),
            end: "upstream_error",
            fault: Some(Fault::with_errno(Flag::UpstreamError, 110)),
            duration: Duration::from_millis(3),
            bytes: [1, 2],
            overhead_ns: 4_000,
            ..ConnectionRecord::default()
        });
        let values: Vec<serde_json::Value> =
            lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(values[0]["target"], "/a b?\"q\"\n");
        assert_eq!(values[0]["overhead_us"], 21);
        assert_eq!(values[1]["end"], "upstream_error");
        assert_eq!(values[1]["direction"], "outbound");
        assert_eq!((&values[1]["flag"], &values[1]["errno"]), (&"UE".into(), &"ETIMEDOUT".into()));
        assert_eq!(values[1]["dialled"], "10.0.0.1:5432");
        assert_eq!(values[1]["response_bytes"], 2);
        assert_eq!((values[1].get("protocol"), values[1].get("tunnel")), (None, None));
    }

    #[test]
    fn a_tunnel_says_what_it_was_and_why_it_is_none_of_it_any_more() {
        let mut lines = lines(Format::Text, Query::Keep);
        lines.connection(&ConnectionRecord {
            direction: Some(Direction::Inbound),
            protocol: "redis",
            tunnel: Some("malformed"),
            end: "eof",
            ..ConnectionRecord::default()
        });
        let wanted = "direction=inbound protocol=redis tunnel=malformed end=eof ";
        assert!(lines.text.contains(wanted), "{}", lines.text);
    }

    /// A terminal obeys C1, and bidi turns a line around.
    #[test]
    fn what_a_peer_sends_moves_no_cursor_and_tells_no_secret() {
        for format in [Format::Text, Format::Json] {
            let mut lines = lines(format, Query::Names);
            let context = TraceContext::root(1, 1, TraceFlags::SAMPLED);
            let mut record = SpanRecord::begin(context, SpanKind::Server, 0);
            record.put(SpanText::Target, "/\u{9b}2J\u{202e}?token=s3cret&q=1".as_bytes());
            record.put(SpanText::UserAgent, "\u{1b}[2J\u{85}\u{2066}".as_bytes());
            lines.request(&record);
            let line = lines.text.trim_end_matches('\n');
            assert_eq!(line, mask::line(line), "{line:?}");
            assert!(line.contains(r"/\u009b2J\u202e?token=..&q=.."), "{line}");
            assert!(line.contains(r"\u001b[2J\u0085\u2066"), "{line}");
        }
    }

    #[test]
    fn lines_that_nobody_takes_are_counted() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = lines(Format::Text, Query::Keep);
        lines.request(&record());
        let before = FAILED.load(Relaxed);
        lines.write(&mut Broken, 1);
        assert_eq!(FAILED.load(Relaxed) - before, 1);
        assert!(lines.text.is_empty());
    }
}
