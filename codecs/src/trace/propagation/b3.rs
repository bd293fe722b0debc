//! B3, Zipkin's headers, in one line or in several.

use super::{Extracted, Format, Sampling};
use crate::trace::context::{TraceContext, TraceFlags};
use crate::trace::text::{Text, parse_hex, parse_hex_u64};

pub(super) const NAME: &str = "b3";
const TRACE: &str = "x-b3-traceid";
const SPAN: &str = "x-b3-spanid";
const PARENT: &str = "x-b3-parentspanid";
const SAMPLED: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";

/// Collects what the lines of a head say; the first valid value of each counts.
#[derive(Debug, Default)]
pub(super) struct Reader {
    single: Option<(Option<TraceContext>, Sampling)>,
    trace_id: Option<u128>,
    span_id: Option<u64>,
    parent_id: Option<u64>,
    sampled: Option<Sampling>,
    is_debug: bool,
}

impl Reader {
    /// Takes note of one line, if it is one of B3's.
    pub(super) fn read(&mut self, name: &[u8], value: &[u8]) {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is(NAME) {
            self.single = self.single.or_else(|| parse_single(value));
        } else if is(TRACE) {
            self.trace_id = self.trace_id.or_else(|| parse_trace_id(value));
        } else if is(SPAN) {
            self.span_id = self.span_id.or_else(|| parse_span_id(value));
        } else if is(PARENT) {
            self.parent_id = self.parent_id.or_else(|| parse_hex_u64(value, 16));
        } else if is(SAMPLED) {
            self.sampled = self.sampled.or_else(|| parse_sampling(value));
        } else if is(FLAGS) {
            self.is_debug |= value == b"1";
        }
    }

    /// What they say together; the single line comes first.
    pub(super) fn finish(self) -> Extracted<'static> {
        if let Some((Some(context), sampling)) = self.single {
            return found(context, Format::B3, sampling);
        }
        let sampling = match (self.is_debug, self.sampled) {
            (true, _) => Sampling::Debug,
            (false, sampled) => sampled.unwrap_or_default(),
        };
        if let (Some(trace_id), Some(span_id)) = (self.trace_id, self.span_id) {
            let parent_id = self.parent_id.unwrap_or(0);
            return found(context(trace_id, span_id, parent_id), Format::B3Multi, sampling);
        }
        let sampling = self.single.map_or(sampling, |(_, sampling)| sampling);
        Extracted { sampling, ..Extracted::default() }
    }
}

/// `{trace}-{span}`, and then sampling and parent, either of which may be missing; or sampling
/// alone. Ids are padded on output, so 64-bit traces go on with 32 digits.
pub(super) fn write(context: &TraceContext) -> Text<72> {
    let mut text = Text::new();
    text.push_hex(context.trace_id, 32);
    text.push(b'-');
    text.push_hex(context.span_id.into(), 16);
    text.push(b'-');
    text.push(match Sampling::of_flags(context.flags) {
        Sampling::Debug => b'd',
        Sampling::Sample => b'1',
        Sampling::Deny | Sampling::Undecided => b'0',
    });
    if context.parent_id != 0 {
        text.push(b'-');
        text.push_hex(context.parent_id.into(), 16);
    }
    text
}

/// One line for each part. Debugging implies sampling, which is then not written.
pub(super) fn write_multi(context: &TraceContext, mut put: impl FnMut(&str, &[u8])) {
    let mut text = Text::<32>::new();
    text.push_hex(context.trace_id, 32);
    put(TRACE, text.as_bytes());
    let mut text = Text::<16>::new();
    text.push_hex(context.span_id.into(), 16);
    put(SPAN, text.as_bytes());
    if context.parent_id != 0 {
        let mut text = Text::<16>::new();
        text.push_hex(context.parent_id.into(), 16);
        put(PARENT, text.as_bytes());
    }
    match Sampling::of_flags(context.flags) {
        Sampling::Debug => put(FLAGS, b"1"),
        Sampling::Sample => put(SAMPLED, b"1"),
        Sampling::Deny | Sampling::Undecided => put(SAMPLED, b"0"),
    }
}

fn found(mut context: TraceContext, format: Format, sampling: Sampling) -> Extracted<'static> {
    context.flags = sampling.flags().unwrap_or(TraceFlags::NONE);
    Extracted { context: Some(context), format: Some(format), sampling, debug_id: None }
}

fn context(trace_id: u128, span_id: u64, parent_id: u64) -> TraceContext {
    TraceContext { parent_id, ..TraceContext::root(trace_id, span_id, TraceFlags::NONE) }
}

fn parse_single(value: &[u8]) -> Option<(Option<TraceContext>, Sampling)> {
    if let b"0" | b"1" | b"d" = value {
        return Some((None, parse_sampling(value)?));
    }
    let mut parts = value.split(|&byte| byte == b'-');
    let trace_id = parse_trace_id(parts.next()?)?;
    let span_id = parse_span_id(parts.next()?)?;
    let sampling = match parts.next() {
        None => Sampling::Undecided,
        Some(text @ (b"0" | b"1" | b"d")) => parse_sampling(text)?,
        Some(_) => return None,
    };
    let parent_id = match parts.next() {
        None => 0,
        Some(text) => parse_hex_u64(text, 16)?,
    };
    if parts.next().is_some() {
        return None;
    }
    Some((Some(context(trace_id, span_id, parent_id)), sampling))
}

fn parse_sampling(value: &[u8]) -> Option<Sampling> {
    match value {
        b"0" | b"false" => Some(Sampling::Deny),
        b"1" | b"true" => Some(Sampling::Sample),
        b"d" => Some(Sampling::Debug),
        _ => None,
    }
}

/// 16 or 32 digits by the specification; the Go client of Jaeger leaves out leading zeros.
fn parse_trace_id(value: &[u8]) -> Option<u128> {
    parse_hex(value, 32).filter(|&id| id != 0)
}

fn parse_span_id(value: &[u8]) -> Option<u64> {
    parse_hex_u64(value, 16).filter(|&id| id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(&str, &str)]) -> Extracted<'static> {
        let mut reader = Reader::default();
        for (name, value) in lines {
            reader.read(name.as_bytes(), value.as_bytes());
        }
        reader.finish()
    }

    #[test]
    fn single_lines() {
        const IDS: &str = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1";
        const PARENT: &str = "05e3ac9a4f6e3b90";
        for (value, sampling, written) in [
            (IDS.to_owned(), Sampling::Undecided, Some(format!("{IDS}-0"))),
            (format!("{IDS}-1"), Sampling::Sample, Some(format!("{IDS}-1"))),
            (format!("{IDS}-0"), Sampling::Deny, Some(format!("{IDS}-0"))),
            (format!("{IDS}-d"), Sampling::Debug, Some(format!("{IDS}-d"))),
            (format!("{IDS}-1-{PARENT}"), Sampling::Sample, Some(format!("{IDS}-1-{PARENT}"))),
            (
                "a-b-1".to_owned(),
                Sampling::Sample,
                Some(format!("{}a-{}b-1", "0".repeat(31), "0".repeat(15))),
            ),
            ("0".to_owned(), Sampling::Deny, None),
            ("1".to_owned(), Sampling::Sample, None),
            ("d".to_owned(), Sampling::Debug, None),
            ("true".to_owned(), Sampling::Undecided, None),
            ("0-b-1".to_owned(), Sampling::Undecided, None),
            ("a-0-1".to_owned(), Sampling::Undecided, None),
            ("a-b-2".to_owned(), Sampling::Undecided, None),
            ("a-b-1-x".to_owned(), Sampling::Undecided, None),
            ("a-b-1-1-1".to_owned(), Sampling::Undecided, None),
            (format!("{IDS}0"), Sampling::Undecided, None),
            (String::new(), Sampling::Undecided, None),
        ] {
            let found = read(&[("B3", &value)]);
            assert_eq!(found.sampling, sampling, "{value:?}");
            let text = found.context.map(|context| write(&context).as_bytes().to_vec());
            assert_eq!(text, written.map(String::into_bytes), "{value:?}");
        }
    }

    #[test]
    fn several_lines() {
        let ids = [("X-B3-TraceId", "A"), ("x-b3-spanid", "b")];
        for (further, sampling) in [
            (&[][..], Sampling::Undecided),
            (&[(SAMPLED, "1")], Sampling::Sample),
            (&[(SAMPLED, "true")], Sampling::Sample),
            (&[(SAMPLED, "0")], Sampling::Deny),
            (&[(SAMPLED, "false")], Sampling::Deny),
            (&[(SAMPLED, "?")], Sampling::Undecided),
            (&[(SAMPLED, "?"), (SAMPLED, "1")], Sampling::Sample),
            (&[(SAMPLED, "0"), (FLAGS, "1")], Sampling::Debug),
            (&[(FLAGS, "0")], Sampling::Undecided),
        ] {
            let found = read(&[&ids[..], further].concat());
            let context = found.context.unwrap();
            assert_eq!((context.trace_id, context.span_id), (0xa, 0xb));
            assert_eq!((found.format, found.sampling), (Some(Format::B3Multi), sampling));
            let rootless = read(further);
            assert_eq!((rootless.context, rootless.sampling), (None, sampling));
        }
        let found = read(&[ids[0], ids[1], (PARENT, "c"), ("b3", "1-2-d")]);
        assert_eq!(found.format, Some(Format::B3));
        assert_eq!(read(&[ids[0]]).context, None);
        let found = read(&[("b3", "zz"), ids[0], ids[1], (PARENT, "c")]);
        assert_eq!(found.context.map(|context| context.parent_id), Some(0xc));
    }
}
