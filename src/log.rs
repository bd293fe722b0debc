//! Logs: lines in text or JSON to stderr, written by a thread of their own. Whoever logs formats
//! the line and hands it over without waiting; when nobody reads stderr, lines are dropped and
//! counted, because a full pipe must never hold up signals, probes or traffic. Data cores do not
//! log at all.
//!
//! The facade is `tracing`, so that libraries can speak too; the subscriber is this file, because
//! netra has no spans, needs netramesh's five levels, and wants neither a formatter's registry nor
//! its memory.

use crate::{json, mask};
use std::{
    fmt::{self, Write as _},
    io,
    sync::{
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tracing::{
    Event, Metadata,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// Lines that were dropped because stderr did not keep up.
pub(crate) static LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Target of events that end the process: tracing has no level above error.
pub(crate) const FATAL: &str = "netra::fatal";

/// How severe a line is, in netramesh's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    #[default]
    Info,
    Warning,
    Error,
    Fatal,
}

impl Level {
    pub(crate) const ALL: [Self; 5] =
        [Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Fatal];
    pub(crate) const WORDS: [&'static str; 5] = ["debug", "info", "warning", "error", "fatal"];

    pub(crate) fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    fn of(metadata: &Metadata<'_>) -> Self {
        match *metadata.level() {
            tracing::Level::ERROR if metadata.target() == FATAL => Self::Fatal,
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warning,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Self::Debug,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warning => LevelFilter::WARN,
            Self::Error | Self::Fatal => LevelFilter::ERROR,
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// `2026-01-02T03:04:05.678Z info message key=value`
    #[default]
    Text,
    /// One object to a line.
    Json,
}

/// The running log; [`Log::flush`] is called before the process ends.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    lines: SyncSender<Message>,
}

/// Starts the writer and takes all events of the process. Called once.
pub(crate) fn start(level: Level, format: Format) -> io::Result<Log> {
    let (lines, from_writers) = sync_channel(LINES_MAX);
    thread::Builder::new()
        .name("netra-log".into())
        .stack_size(STACK_BYTES)
        .spawn(move || write_lines(&from_writers, &mut io::stderr(), format))?;
    let log = Log { lines: lines.clone() };
    LEVEL.store(level as u8, Relaxed);
    tracing::subscriber::set_global_default(Subscriber { format, lines })
        .map_err(io::Error::other)?;
    Ok(log)
}

impl Log {
    /// Waits until all lines so far are written, or until `patience` ends.
    pub(crate) fn flush(&self, patience: Duration) {
        let (done, written) = sync_channel(1);
        let deadline = std::time::Instant::now() + patience;
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.lines.try_send(message) {
            if std::time::Instant::now() >= deadline {
                return;
            }
            thread::yield_now();
            message = back;
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now()));
    }
}

/// Lines that wait for stderr at most.
const LINES_MAX: usize = 256;
/// The writer formats next to nothing.
const STACK_BYTES: usize = 64 * 1024;

#[derive(Debug)]
enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// The writer's life: until every sender is gone, which is the end of the process.
fn write_lines(messages: &Receiver<Message>, out: &mut impl io::Write, format: Format) {
    let mut reported = 0;
    for message in messages {
        match message {
            // Nothing can be done about a stderr that is gone.
            Message::Line(line) => drop(out.write_all(line.as_bytes())),
            Message::Flush(done) => drop(done.try_send(())),
        }
        let dropped = LINES_DROPPED.load(Relaxed);
        if dropped > reported {
            let rest = vec![("lines", Value::Bare((dropped - reported).to_string()))];
            let fields = Fields { message: "log lines dropped".into(), rest };
            let line = fields.line(SystemTime::now(), Level::Warning, format);
            drop(out.write_all(line.as_bytes()));
            reported = dropped;
        }
    }
}

/// The least severe level that is logged; it may change while netra runs.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Logs from this level on.
pub(crate) fn set_level(level: Level) {
    LEVEL.store(level as u8, Relaxed);
    // Call sites remember whether anybody wanted them.
    tracing::callsite::rebuild_interest_cache();
}

/// The least severe level that is logged now.
pub(crate) fn level() -> Level {
    Level::ALL[usize::from(LEVEL.load(Relaxed)).min(Level::ALL.len() - 1)]
}

struct Subscriber {
    format: Format,
    lines: SyncSender<Message>,
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && Level::of(metadata) >= level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level().filter())
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = fields.line(SystemTime::now(), Level::of(event.metadata()), self.format);
        if self.lines.try_send(Message::Line(line)).is_err() {
            LINES_DROPPED.fetch_add(1, Relaxed);
        }
    }

    // netra opens no spans of this kind, and those of libraries are not enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// What an event says: its message, and its other fields in order.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    /// A number or a bool, which JSON takes bare.
    Bare(String),
}

impl Fields {
    fn line(&self, now: SystemTime, level: Level, format: Format) -> String {
        let mut line = match format {
            Format::Text => self.text(now, level),
            Format::Json => self.json(now, level),
        };
        line.push('\n');
        line
    }

    fn text(&self, now: SystemTime, level: Level) -> String {
        let message = mask::line(&self.message);
        let mut line = format!("{} {} {message}", timestamp(now), level.word());
        for (key, value) in &self.rest {
            // Writing to a string does not fail.
            let _ = write!(line, " {key}=");
            match value {
                Value::Bare(text) => line.push_str(text),
                Value::Text(text) => mask::push_value(&mut line, text),
            }
        }
        line
    }

    fn json(&self, now: SystemTime, level: Level) -> String {
        let mut line = String::with_capacity(128);
        let mut object = json::Object::begin(&mut line);
        object.text("time", &timestamp(now));
        object.text("level", level.word());
        object.text("message", &self.message);
        for (key, value) in &self.rest {
            match value {
                Value::Bare(text) => object.raw(key, text),
                Value::Text(text) => object.text(key, text),
            }
        }
        object.end();
        line
    }

    /// Whatever a library says of a URL, what is secret in it is not logged.
    fn push(&mut self, field: &Field, value: Value) {
        let value = match value {
            Value::Text(text) => Value::Text(mask::urls(&text).into_owned()),
            bare @ Value::Bare(_) => bare,
        };
        match value {
            Value::Text(text) if field.name() == "message" => self.message = text,
            value => self.rest.push((field.name(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Bare(value.to_string()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Bare(value.to_string()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bare(value.to_string()));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(value.into()));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Text(format!("{value:?}")));
    }
}

/// RFC 3339 in UTC, to the millisecond, of nanoseconds of Unix time.
pub(crate) fn rfc3339(unix_ns: u64) -> String {
    timestamp(UNIX_EPOCH + Duration::from_nanos(unix_ns))
}

/// RFC 3339 in UTC, to the millisecond.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// The Gregorian date of a day since 1970-01-01. Years are counted from March, so that the leap day
/// is the last one of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)
    }

    fn fields() -> Fields {
        Fields {
            message: "hello\nthere".into(),
            rest: vec![
                ("port", Value::Bare("14956".into())),
                ("driver", Value::Text("io_uring (defer)".into())),
                ("service", Value::Text("shop".into())),
                ("none", Value::Text(String::new())),
            ],
        }
    }

    #[test]
    fn timestamps() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(timestamp(at(seconds)), text);
        }
    }

    #[test]
    fn a_text_line_is_one_line_and_quotes_what_needs_it() {
        assert_eq!(
            fields().line(at(0), Level::Warning, Format::Text),
            "1970-01-01T00:00:00.007Z warning hello\\nthere port=14956 \
             driver=\"io_uring (defer)\" service=shop none=\"\"\n"
        );
    }

    #[test]
    fn a_json_line_keeps_types() {
        let line = fields().line(at(0), Level::Fatal, Format::Json);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "fatal");
        assert_eq!(value["message"], "hello\nthere");
        assert_eq!(value["port"], 14956);
        assert_eq!(value["driver"], "io_uring (defer)");
    }

    #[test]
    fn a_stuck_writer_drops_and_counts_and_says_so_later() {
        let (lines, from_writers) = sync_channel(2);
        let subscriber = Subscriber { format: Format::Text, lines };
        let before = LINES_DROPPED.load(Relaxed);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..5 {
                tracing::warn!(number, "line");
            }
            tracing::debug!("too fine to be kept");
        });
        assert_eq!(LINES_DROPPED.load(Relaxed) - before, 3);
        let mut out = Vec::new();
        write_lines(&from_writers, &mut out, Format::Text);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("warning line number=0\n") && out.contains("number=1\n"), "{out}");
        assert!(!out.contains("number=2") && out.contains("log lines dropped"), "{out}");
    }

    #[test]
    fn flush_waits_for_the_writer_and_not_for_ever() {
        let (lines, from_writers) = sync_channel(1);
        let log = Log { lines };
        log.lines.try_send(Message::Line("x\n".into())).unwrap();
        log.flush(Duration::from_millis(10));
        let writer = thread::spawn(move || {
            let mut out = Vec::new();
            write_lines(&from_writers, &mut out, Format::Text);
            out
        });
        log.flush(Duration::from_secs(5));
        drop(log);
        assert!(writer.join().unwrap().starts_with(b"x\n"));
    }
}
