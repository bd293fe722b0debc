//! `uber-trace-id: {trace}:{span}:{parent}:{flags}`, as the Go client of Jaeger 2.15 reads and
//! writes it, which is what netramesh's peers expect.

use crate::trace::context::{TraceContext, TraceFlags};
use crate::trace::text::{Text, parse_hex, parse_hex_u64};

pub(super) const NAME: &str = "uber-trace-id";

/// The longest plain value: 32 + 16 + 16 digits, flags, colons. Room for long decimal flags too.
const PLAIN_BYTES_MAX: usize = 80;

/// Reads a value, plain or URL-encoded. Ids may be short and of either case, the parent may be
/// empty, flags are decimal (and hexadecimal on output, which is the same up to 9).
pub(super) fn parse(value: &[u8]) -> Option<TraceContext> {
    let mut plain = [0; PLAIN_BYTES_MAX];
    let plain = decode(value, &mut plain)?;
    let mut parts = plain.split(|&byte| byte == b':');
    let trace_id = parse_hex(parts.next()?, 32).filter(|&id| id != 0)?;
    // A span id of 0 is the root of the trace to Go.
    let span_id = parse_hex_u64(parts.next()?, 16)?;
    let parent_id = match parts.next()? {
        b"" => 0,
        parent => parse_hex_u64(parent, 16)?,
    };
    let flags = parse_decimal(parts.next()?)?;
    if parts.next().is_some() {
        return None;
    }
    let flags = TraceFlags(flags);
    Some(TraceContext { trace_id, span_id, parent_id, flags, random: false })
}

/// Ids in full width, lower case, as Jaeger's Go client does since 2.17: several propagators take
/// no others. A trace id of 64 bits has 16 digits, one of 128 bits 32.
#[inline]
pub(super) fn write(context: &TraceContext) -> Text<88> {
    let mut text = Text::new();
    text.push_hex(context.trace_id, if context.trace_id >> 64 == 0 { 16 } else { 32 });
    text.push(b':');
    text.push_hex_u64(context.span_id, 16);
    text.push(b':');
    text.push_hex_u64(context.parent_id, 16);
    text.push(b':');
    text.push_hex_u64(context.flags.0.into(), 1);
    text
}

/// Undoes URL-encoding. A `+` would be a blank, which no part of the value can have.
fn decode<'t>(value: &[u8], text: &'t mut [u8; PLAIN_BYTES_MAX]) -> Option<&'t [u8]> {
    let mut rest = value;
    let mut len = 0;
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match byte {
            b'%' => (u8::try_from(parse_hex(after.get(..2)?, 2)?).ok()?, &after[2..]),
            b'+' => return None,
            byte => (byte, after),
        };
        *text.get_mut(len)? = byte;
        len += 1;
        rest = after;
    }
    Some(&text[..len])
}

fn parse_decimal(text: &[u8]) -> Option<u8> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u8, |value, &byte| {
        let digit = u8::try_from((byte as char).to_digit(10)?).ok()?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value in, value written back.
    #[test]
    fn table_of_values() {
        for (value, written) in [
            ("5f1:1111:0:1", Some("00000000000005f1:0000000000001111:0000000000000000:1")),
            ("5f1%3A1111%3A0%3A1", Some("00000000000005f1:0000000000001111:0000000000000000:1")),
            ("5f1%3a1111%3a0%3a1", Some("00000000000005f1:0000000000001111:0000000000000000:1")),
            ("5f1:1111:0:1+", None),
            ("5f1:1111:0:3", Some("00000000000005f1:0000000000001111:0000000000000000:3")),
            ("5f1:1111:0:2", Some("00000000000005f1:0000000000001111:0000000000000000:2")),
            ("5f1:1111:0:0f", None),
            ("5f1:1111:0:16", Some("00000000000005f1:0000000000001111:0000000000000000:10")),
            ("5f1:1111:0:01", Some("00000000000005f1:0000000000001111:0000000000000000:1")),
            ("5f1:1111:0:255", Some("00000000000005f1:0000000000001111:0000000000000000:ff")),
            ("5f1:1111:0:256", None),
            ("5f1:1111::1", Some("00000000000005f1:0000000000001111:0000000000000000:1")),
            ("0:1:0:1", None),
            ("5f1:0:0:1", Some("00000000000005f1:0000000000000000:0000000000000000:1")),
            ("5F1:ABCDEF:0:1", Some("00000000000005f1:0000000000abcdef:0000000000000000:1")),
            (
                "00000000000005f1:0000000000001111:0:1",
                Some("00000000000005f1:0000000000001111:0000000000000000:1"),
            ),
            (
                "463ac35c9f6413ad48485a3953bb6124:a2fb4a1d1a96d312:05e3ac9a4f6e3b90:1",
                Some("463ac35c9f6413ad48485a3953bb6124:a2fb4a1d1a96d312:05e3ac9a4f6e3b90:1"),
            ),
            (
                "0000000000000000463ac35c9f6413ad:1:0:1",
                Some("463ac35c9f6413ad:0000000000000001:0000000000000000:1"),
            ),
            (
                "10000000000000000:1:2:1",
                Some("00000000000000010000000000000000:0000000000000001:0000000000000002:1"),
            ),
            ("0463ac35c9f6413ad48485a3953bb6124:1:0:1", None),
            ("1:0a2fb4a1d1a96d312:0:1", None),
            ("1:1:0a2fb4a1d1a96d312:1", None),
            ("zz:1:0:1", None),
            ("1:-1:0:1", None),
            ("1:1:0:1 ", None),
            ("1:1:0:1%20", None),
            ("1:1:0", None),
            ("1:1:0:1:1", None),
            ("1:1:0:", None),
            ("1:1:0:+1", None),
            (":1:0:1", None),
            ("", None),
            ("%", None),
            ("%3", None),
            ("%zz", None),
        ] {
            let found = parse(value.as_bytes());
            let text = found.map(|context| write(&context));
            // What is written is read again; flags are decimal only when they are read.
            let again = text.as_ref().and_then(|text| parse(text.as_bytes()));
            let ids =
                |context: TraceContext| (context.trace_id, context.span_id, context.parent_id);
            assert!(again.is_none() || again.map(ids) == found.map(ids), "{value:?}");
            assert_eq!(text.as_ref().map(Text::as_bytes), written.map(str::as_bytes), "{value:?}");
        }
        assert_eq!(parse(&[b'1'; 5000]), None);
    }

    #[test]
    fn the_longest_value_fits() {
        let flags = TraceFlags(u8::MAX);
        let context = TraceContext {
            trace_id: u128::MAX,
            span_id: u64::MAX,
            parent_id: u64::MAX,
            flags,
            random: true,
        };
        assert_eq!(write(&context).as_bytes().len(), 69);
    }
}
