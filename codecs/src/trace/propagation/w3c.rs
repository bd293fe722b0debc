//! `traceparent: 00-{trace}-{span}-{flags}` (W3C Trace Context).

use crate::trace::context::{TraceContext, TraceFlags};
use crate::trace::text::{Text, parse_hex, parse_hex_u64};

pub(super) const NAME: &str = "traceparent";

const LEN: usize = 55;
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// Reads a value: exactly 55 bytes of version 00; of a later version its first 55, if nothing or
/// a further part follows.
pub(super) fn parse(value: &[u8]) -> Option<TraceContext> {
    let (known, rest) = value.split_at_checked(LEN)?;
    let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let dashes = [known[2], known[35], known[52]] == [b'-'; 3];
    let digits = [&known[..2], &known[3..35], &known[36..52], &known[53..]];
    if !dashes || !digits.iter().all(|part| part.iter().all(lower)) {
        return None;
    }
    match (&known[..2], rest.first()) {
        (b"ff", _) => return None,
        (_, None) => {}
        (b"00", Some(_)) => return None,
        (_, Some(b'-')) => {}
        (_, Some(_)) => return None,
    }
    let trace_id = parse_hex(&known[3..35], 32).filter(|&id| id != 0)?;
    let span_id = parse_hex_u64(&known[36..52], 16).filter(|&id| id != 0)?;
    let flags = u8::try_from(parse_hex(&known[53..], 2)?).ok()?;
    Some(TraceContext {
        trace_id,
        span_id,
        parent_id: 0,
        flags: TraceFlags(flags & SAMPLED),
        random: flags & RANDOM != 0,
    })
}

/// Version 00; of the flags only those that it defines.
pub(super) fn write(context: &TraceContext) -> Text<LEN> {
    let random = if context.random { RANDOM } else { 0 };
    let flags = u8::from(context.is_sampled()) | random;
    let mut text = Text::new();
    text.push_hex(0, 2);
    text.push(b'-');
    text.push_hex(context.trace_id, 32);
    text.push(b'-');
    text.push_hex(context.span_id.into(), 16);
    text.push(b'-');
    text.push_hex(flags.into(), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_values() {
        const IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        for (value, flags) in [
            (format!("00-{IDS}-01"), Some("01")),
            (format!("00-{IDS}-00"), Some("00")),
            (format!("00-{IDS}-03"), Some("03")),
            (format!("00-{IDS}-02"), Some("02")),
            (format!("00-{IDS}-ff"), Some("03")),
            (format!("cc-{IDS}-01"), Some("01")),
            (format!("cc-{IDS}-01-what-ever"), Some("01")),
            (format!("cc-{IDS}-01x"), None),
            (format!("00-{IDS}-01-"), None),
            (format!("00-{IDS}-01-extra"), None),
            (format!("ff-{IDS}-01"), None),
            (format!("00-{}-01", IDS.to_uppercase()), None),
            (format!("00-{IDS}-0"), None),
            (format!("00_{IDS}-01"), None),
            (format!("00-{IDS}-0g"), None),
            (format!("0-{IDS}-01"), None),
            (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), None),
            (format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16)), None),
            ("00-01-1-01".to_owned(), None),
            (String::new(), None),
        ] {
            let written = parse(value.as_bytes()).map(|context| write(&context));
            let written = written.map(|text| String::from_utf8(text.as_bytes().to_vec()).unwrap());
            let expected = flags.map(|flags| format!("00-{IDS}-{flags}"));
            assert_eq!(written, expected, "{value:?}");
        }
    }
}
