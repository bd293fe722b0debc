//! What a receiver of OTLP says behind a success: that it has taken some spans (or points of metrics)
//! only, and why.
//!
//! ```text
//! ExportTraceServiceResponse { 1: partial_success { 1: int64 rejected_spans, 2: string error_message } }
//! ```

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 256;

/// What a receiver has not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) spans: usize,
    /// As the receiver has it, on one line and cut; it may warn though it has taken all.
    pub(crate) reason: String,
}

impl Rejected {
    /// Whether there is nothing to say.
    pub(crate) fn is_nothing(&self) -> bool {
        self.spans == 0 && self.reason.is_empty()
    }

    /// Reads a response. What cannot be read says nothing: the request was answered with success.
    pub(crate) fn read(response: &[u8]) -> Self {
        let mut rejected = Self::default();
        for (field, value) in Fields(response) {
            let (1, Value::Bytes(partial)) = (field, value) else { continue };
            for (field, value) in Fields(partial) {
                match (field, value) {
                    // A negative number is a very large one here, and none at all.
                    (1, Value::Number(count)) => {
                        rejected.spans = usize::try_from(count.cast_signed()).unwrap_or(0);
                    }
                    (2, Value::Bytes(text)) => rejected.reason = one_line(text),
                    _ => {}
                }
            }
        }
        rejected
    }
}

/// A status, and what the receiver says behind it where that is text: as it stands, or as the message
/// of a `google.rpc.Status`, which is what OTLP asks for.
pub(super) fn said_with(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_text = kind.starts_with("text/") || kind.starts_with("application/json");
    let said = match is_text {
        true => one_line(body.trim_ascii()),
        false if kind.starts_with("application/x-protobuf") => Fields(body)
            .find_map(|field| match field {
                (2, Value::Bytes(text)) => Some(one_line(text)),
                _ => None,
            })
            .unwrap_or_default(),
        false => String::new(),
    };
    format!("{status}{}{said}", if said.is_empty() { "" } else { ": " })
}

/// A text of a receiver's as it may stand in a log: cut, control characters and those that turn the
/// direction of writing escaped.
pub(super) fn one_line(text: &[u8]) -> String {
    // Four bytes a character at most: what lies behind is not even decoded.
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * REASON_MAX)]);
    let mut line = String::new();
    for c in text.chars().take(REASON_MAX) {
        match c {
            '"' | '\'' | '\\' => line.push(c),
            c => line.extend(c.escape_debug()),
        }
    }
    line
}

/// A field of a message: what netra does not look for is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    Fixed,
}

/// The fields of a message, up to what cannot be read.
struct Fields<'b>(&'b [u8]);

impl<'b> Iterator for Fields<'b> {
    type Item = (u64, Value<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'b> Fields<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_a_status_is_told_where_it_is_text() {
        let said = |kind: &'static str, body: &[u8]| {
            let headers = [(CONTENT_TYPE, kind.parse().unwrap())].into_iter().collect();
            said_with(StatusCode::NOT_FOUND, &headers, body)
        };
        assert_eq!(said("text/plain", b"no such\npath\n"), "404 Not Found: no such\\npath");
        let status = b"\x08\x05\x12\x07bad key";
        assert_eq!(said("application/x-protobuf", status), "404 Not Found: bad key");
        assert_eq!(said("application/octet-stream", b"x"), "404 Not Found");
    }

    fn message(partial: &[u8]) -> Vec<u8> {
        let len = u8::try_from(partial.len()).unwrap();
        [&[0x0a, len], partial].concat()
    }

    #[test]
    fn responses() {
        for (response, spans, reason) in [
            (vec![], 0, ""),
            (message(&[]), 0, ""),
            (message(&[0x08, 2]), 2, ""),
            (message(b"\x08\x96\x01\x12\x05quota"), 150, "quota"),
            (message(b"\x12\x07careful"), 0, "careful"),
            // Fields that nobody knows yet, of each kind.
            (message(b"\x18\x01\x21........\x2a\x01x\x35....\x08\x01"), 1, ""),
            // Less than none.
            (message(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0, ""),
            // Cut short, too long, and no message at all.
            (vec![0x0a, 9, 8], 0, ""),
            (message(b"\x08\x03\x12\x7f"), 3, ""),
            (message(&[0xff; 20]), 0, ""),
            (b"<html>".to_vec(), 0, ""),
        ] {
            let expected = Rejected { spans, reason: reason.into() };
            assert_eq!(Rejected::read(&response), expected, "{response:02x?}");
        }
    }

    #[test]
    fn reasons_are_cut_and_stay_on_their_line() {
        let shown = one_line("a\"b\n\u{1b}[31m\u{85}\u{202e}\u{e9}".as_bytes());
        assert_eq!(shown, "a\"b\\n\\u{1b}[31m\\u{85}\\u{202e}\u{e9}");
        assert_eq!(one_line(&[b'x'; 1 << 20]).len(), REASON_MAX);
        assert_eq!(one_line("\u{20ac}".repeat(1000).as_bytes()).chars().count(), REASON_MAX);
        assert!(one_line(&[0xff; 10]).starts_with('\u{fffd}'));
    }
}
