//! Trace context in headers: read in three formats, written in those that were chosen.
//!
//! Reading takes the first valid value, of `uber-trace-id`, then W3C, then B3; what is malformed
//! counts as absent. Writing is a callback with name and value of each line, for
//! [`HeadPatch::set`](crate::h1::HeadPatch::set). Baggage (`uberctx-*`, `jaeger-baggage`,
//! `baggage`) and `tracestate` are lines like any other: they pass as they are.

mod b3;
mod uber;
mod w3c;

use std::fmt;
use std::str::FromStr;

use crate::h1::Fields;
use crate::trace::context::{TraceContext, TraceFlags};

/// A header format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `uber-trace-id`, Jaeger's own.
    Uber,
    /// `traceparent`, W3C Trace Context.
    W3c,
    /// `b3`, Zipkin's single header.
    B3,
    /// `x-b3-traceid` and its companions.
    B3Multi,
}

/// What the incoming headers say about whether the trace is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// Nothing: the sampler decides.
    #[default]
    Undecided,
    /// It is not.
    Deny,
    /// It is.
    Sample,
    /// It is, and no sampler is asked.
    Debug,
}

impl Sampling {
    /// The flags of a span for which the headers have decided; None when the sampler has to.
    pub fn flags(self) -> Option<TraceFlags> {
        match self {
            Self::Undecided => None,
            Self::Deny => Some(TraceFlags::NONE),
            Self::Sample => Some(TraceFlags::SAMPLED),
            Self::Debug => Some(TraceFlags::SAMPLED.with(TraceFlags::DEBUG)),
        }
    }

    fn of_flags(flags: TraceFlags) -> Self {
        if flags.contains(TraceFlags::DEBUG) {
            Self::Debug
        } else if flags.contains(TraceFlags::SAMPLED) {
            Self::Sample
        } else {
            Self::Deny
        }
    }
}

/// What was found in the headers of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted<'h> {
    /// The caller's span.
    pub context: Option<TraceContext>,
    /// The format it was read from.
    pub format: Option<Format>,
    /// What is decided already. Without a context it is for the new root; with one that came
    /// from B3 it may be undecided.
    pub sampling: Sampling,
    /// `jaeger-debug-id`, when there is no context: a root to be reported and tagged with it.
    pub debug_id: Option<&'h [u8]>,
}

/// Lengths of the names that are looked for.
const LENGTHS: u64 = 1 << 2 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 17;

/// Reads the trace headers of a head. First letters tell nearly all others apart.
pub fn extract_from(fields: Fields<'_>) -> Extracted<'_> {
    if fields.has_name(LENGTHS, may_begin_trace) {
        extract(fields.iter())
    } else {
        Extracted::default()
    }
}

/// Whether this can be the name of a trace header: none that is one is missed, and few others are
/// taken for one.
#[inline]
pub fn may_be_trace(name: &[u8]) -> bool {
    let is_as_long = name.len() < 64 && LENGTHS >> name.len() & 1 != 0;
    // `b3` is shorter than the beginning of all others.
    is_as_long && name.first_chunk().is_none_or(|begin| may_begin_trace(*begin))
}

/// Whether a name that begins so can be one of a trace header: none that is one is missed.
#[inline]
fn may_begin_trace(begin: [u8; 3]) -> bool {
    match begin.map(|byte| byte | 0x20) {
        [b'x', _, third] => third == b'b',
        [b'u', second, _] => second == b'b',
        [b't' | b'b' | b'j', ..] => true,
        _ => false,
    }
}

/// Reads the trace headers among these fields (name, value) in one pass.
pub fn extract<'h>(fields: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Extracted<'h> {
    let mut uber_context = None;
    let mut w3c_context = None;
    let mut b3 = b3::Reader::default();
    let mut debug_id = None;
    for (name, value) in fields {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        match name.len() {
            13 if is(uber::NAME) => uber_context = uber_context.or_else(|| uber::parse(value)),
            11 if is(w3c::NAME) => w3c_context = w3c_context.or_else(|| w3c::parse(value)),
            15 if is("jaeger-debug-id") && !value.is_empty() => {
                debug_id = debug_id.or(Some(value));
            }
            2 | 10..=17 => b3.read(name, value),
            _ => {}
        }
    }
    let decided = |context: TraceContext, format| Extracted {
        context: Some(context),
        format: Some(format),
        sampling: Sampling::of_flags(context.flags),
        debug_id: None,
    };
    if let Some(context) = uber_context {
        return decided(context, Format::Uber);
    }
    if let Some(context) = w3c_context {
        return decided(context, Format::W3c);
    }
    let extracted = b3.finish();
    match debug_id {
        Some(_) if extracted.context.is_none() => {
            Extracted { sampling: Sampling::Debug, debug_id, ..Extracted::default() }
        }
        _ => extracted,
    }
}

/// Writes the context in each of the formats: calls `put` with name and value of each line.
pub fn inject(context: &TraceContext, formats: Formats, mut put: impl FnMut(&str, &[u8])) {
    if formats.contains(Format::Uber) {
        put(uber::NAME, uber::write(context).as_bytes());
    }
    if formats.contains(Format::W3c) {
        put(w3c::NAME, w3c::write(context).as_bytes());
    }
    if formats.contains(Format::B3) {
        put(b3::NAME, b3::write(context).as_bytes());
    }
    if formats.contains(Format::B3Multi) {
        b3::write_multi(context, put);
    }
}

/// The formats to write. `uber-trace-id` is always among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats(u8);

impl Formats {
    /// `uber-trace-id` alone.
    pub const UBER: Self = Self(1 << Format::Uber as u8);

    /// With this format as well.
    #[must_use]
    pub const fn with(self, format: Format) -> Self {
        Self(self.0 | 1 << format as u8)
    }

    /// Whether this format is written.
    pub const fn contains(self, format: Format) -> bool {
        self.0 & 1 << format as u8 != 0
    }
}

impl Default for Formats {
    fn default() -> Self {
        Self::UBER
    }
}

impl FromStr for Formats {
    type Err = FormatsError;

    /// Reads a list as in `OTEL_PROPAGATORS` and `JAEGER_PROPAGATION`: names separated by commas,
    /// of any case. `baggage` and `none` add nothing: baggage passes, and `uber-trace-id` is
    /// always written.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.into_iter().try_fold(Self::UBER, |formats, name| {
            match name.to_ascii_lowercase().as_str() {
                "jaeger" | "uber" | "baggage" | "none" => Ok(formats),
                "tracecontext" | "w3c" => Ok(formats.with(Format::W3c)),
                "b3" => Ok(formats.with(Format::B3)),
                "b3multi" => Ok(formats.with(Format::B3Multi)),
                _ => Err(FormatsError { name: name.to_owned() }),
            }
        })
    }
}

/// A name that is no format netra writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatsError {
    name: String,
}

impl fmt::Display for FormatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown propagation format {:?}; allowed are jaeger, tracecontext (or w3c), b3, \
             b3multi, baggage and none, with commas between",
            self.name
        )
    }
}

impl std::error::Error for FormatsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::HeadReader;
    use crate::limits::Limits;

    const UBER: (&str, &str) = ("Uber-Trace-Id", "a:b:0:1");
    const W3C: (&str, &str) =
        ("traceparent", "00-0000000000000000000000000000000c-000000000000000d-00");
    const B3: (&str, &str) = ("B3", "000000000000000e-000000000000000f-d");

    fn read<'h>(fields: &'h [(&'h str, &'h str)]) -> Extracted<'h> {
        let found = extract(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        assert_eq!(read_from_a_head(fields), format!("{found:?}"));
        found
    }

    fn read_from_a_head(fields: &[(&str, &str)]) -> String {
        let line = |(name, value): &(&str, &str)| format!("{name}: {value}\r\n");
        let named = |(name, _): &&(&str, &str)| !name.is_empty();
        let lines: String = fields.iter().filter(named).map(line).collect();
        let head = format!("GET / HTTP/1.1\r\nUser-Agent: x\r\n{lines}X-Request-Id: 1\r\n\r\n");
        let mut reader = HeadReader::new(Limits::DEFAULT);
        format!("{:?}", extract_from(reader.request(head.as_bytes()).unwrap().fields()))
    }

    #[test]
    fn every_name_that_is_read_is_looked_for() {
        for name in [
            "uber-trace-id",
            "traceparent",
            "b3",
            "jaeger-debug-id",
            "x-b3-traceid",
            "x-b3-spanid",
            "x-b3-parentspanid",
            "x-b3-sampled",
            "x-b3-flags",
        ] {
            for name in [name.to_owned(), name.to_ascii_uppercase()] {
                let line = format!("{name}: 1");
                assert!(may_begin_trace(*line.as_bytes().first_chunk().unwrap()), "{name}");
                assert_eq!(LENGTHS >> name.len() & 1, 1, "{name}");
                assert!(may_be_trace(name.as_bytes()), "{name}");
            }
        }
        for name in ["", "path", "interface", "user-agent", "x-request-id", &"b".repeat(300)] {
            assert!(!may_be_trace(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn order_of_formats_is_not_order_of_lines() {
        for (fields, format, trace_id, sampling) in [
            (&[B3, W3C, UBER][..], Format::Uber, 0xa, Sampling::Sample),
            (&[B3, W3C], Format::W3c, 0xc, Sampling::Deny),
            (&[B3], Format::B3, 0xe, Sampling::Debug),
            (&[("uber-trace-id", "zz"), B3, W3C], Format::W3c, 0xc, Sampling::Deny),
            (&[("uber-trace-id", "zz"), UBER], Format::Uber, 0xa, Sampling::Sample),
            (&[UBER, ("uber-trace-id", "1:1:0:0")], Format::Uber, 0xa, Sampling::Sample),
        ] {
            let found = read(fields);
            assert_eq!(found.format, Some(format), "{fields:?}");
            assert_eq!(found.context.unwrap().trace_id, trace_id);
            assert_eq!(found.sampling, sampling);
        }
    }

    #[test]
    fn a_debug_id_makes_a_reported_root() {
        let found = read(&[("Jaeger-Debug-Id", "x y"), ("b3", "0")]);
        assert_eq!((found.context, found.sampling), (None, Sampling::Debug));
        assert_eq!(found.debug_id, Some(&b"x y"[..]));
        assert_eq!(found.sampling.flags(), Some(TraceFlags(3)));
        let found = read(&[("jaeger-debug-id", "x"), UBER]);
        assert_eq!((found.debug_id, found.sampling), (None, Sampling::Sample));
        assert_eq!(read(&[("jaeger-debug-id", "")]), Extracted::default());
        assert_eq!(read(&[("x", "y"), ("", "")]), Extracted::default());
    }

    #[test]
    fn every_format_reads_back_what_it_wrote() {
        let all = Formats::UBER.with(Format::W3c).with(Format::B3).with(Format::B3Multi);
        for (trace_id, parent_id, flags) in
            [(1, 0, 0), (u128::MAX, u64::MAX, 1), (u128::from(u64::MAX), 5, 3), (1 << 64, 1, 1)]
        {
            let flags = TraceFlags(flags);
            let context =
                TraceContext { trace_id, span_id: 0xfeed, parent_id, flags, random: false };
            let mut lines = Vec::new();
            inject(&context, all, |name, value| lines.push((name.to_owned(), value.to_vec())));
            for format in [Format::Uber, Format::W3c, Format::B3, Format::B3Multi] {
                let mut own = Vec::new();
                let only = Formats(1 << format as u8);
                inject(&context, only, |name, value| own.push((name.to_owned(), value.to_vec())));
                assert!(!own.is_empty() && own.iter().all(|line| lines.contains(line)));
                let found = extract(own.iter().map(|(n, v)| (n.as_bytes(), v.as_slice())));
                assert_eq!(found.format, Some(format));
                let parent_id = if format == Format::W3c { 0 } else { parent_id };
                let flags = if format == Format::W3c { TraceFlags(flags.0 & 1) } else { flags };
                let expected = TraceContext { parent_id, flags, ..context };
                assert_eq!(found.context, Some(expected), "{format:?}");
                assert_eq!(found.sampling.flags(), Some(flags), "{format:?}");
            }
        }
    }

    #[test]
    fn formats_from_settings() {
        for (text, w3c, b3, multi) in [
            ("", false, false, false),
            ("jaeger", false, false, false),
            ("tracecontext,baggage", true, false, false),
            (" W3C , b3multi", true, false, true),
            ("b3", false, true, false),
            ("none", false, false, false),
        ] {
            let formats: Formats = text.parse().unwrap();
            assert!(formats.contains(Format::Uber));
            assert_eq!(formats.contains(Format::W3c), w3c, "{text}");
            assert_eq!(formats.contains(Format::B3), b3, "{text}");
            assert_eq!(formats.contains(Format::B3Multi), multi, "{text}");
        }
        let error = "jaeger,xray".parse::<Formats>().unwrap_err().to_string();
        assert!(error.contains("\"xray\"") && error.contains("tracecontext"), "{error}");
    }
}
