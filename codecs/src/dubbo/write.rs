//! Attachments that are put in, and answers of our own.

use super::hessian::{Reader, is_ascii};
use super::{HEAD_LEN, HESSIAN2, SERIALISATION, attachments};
use crate::codec::{CannotEdit, Edits, Head, Kind, Pairs, Refusal, Replied, Seen, Text, Why};

/// Where a frame says how long its body is.
const LEN: std::ops::Range<usize> = 12..HEAD_LEN;

pub(super) fn edit(
    head: &Head,
    bytes: &[u8],
    pairs: &Pairs,
    edits: &mut Edits,
) -> Result<(), CannotEdit> {
    let len = bytes.get(LEN).and_then(|len| len.first_chunk()).ok_or(CannotEdit::NoPlace)?;
    let total = HEAD_LEN as u64 + u64::from(u32::from_be_bytes(*len));
    let is_call = matches!(head.kind, Kind::Request | Kind::Oneway | Kind::Response);
    if !is_call || head.extra.at == 0 {
        return Err(CannotEdit::NoPlace);
    }
    if (bytes.len() as u64) < total {
        return Err(CannotEdit::Behind);
    }
    if pairs.iter().any(|(name, value)| [name, value].iter().any(|it| !is_text(it))) {
        return Err(CannotEdit::BadText);
    }
    let reader = attachments(head, bytes).ok_or(CannotEdit::NoPlace)?;
    edit_map(reader, pairs, edits)?;
    let body = edits.edited_len(bytes.len()) - HEAD_LEN;
    let body = i32::try_from(body).map_err(|_| CannotEdit::Full)?;
    Ok(edits.replace(LEN, &[&body.to_be_bytes()])?)
}

fn edit_map(mut reader: Reader<'_>, pairs: &Pairs, edits: &mut Edits) -> Result<(), CannotEdit> {
    let at = reader.at();
    if reader.is_at_null() {
        return Ok(edits.replace_with(at..at + 1, |text| {
            text.put(b"H");
            put_missing(text, pairs, Seen::default());
            text.put(b"Z");
        })?);
    }
    if !reader.begin_map() {
        return Err(CannotEdit::NoPlace);
    }
    let mut seen = Seen::default();
    while !reader.is_at_end() {
        let name = reader.string_or_skip().ok_or(CannotEdit::NoPlace)?;
        let begin = reader.at();
        reader.skip().ok_or(CannotEdit::NoPlace)?;
        let Some(place) = name.and_then(|name| pairs.find(name)) else { continue };
        seen.note(place);
        let value = pairs.iter().nth(place).map_or(&b""[..], |(_, value)| value);
        edits.replace_with(begin..reader.at(), |text| put_string(text, value))?;
    }
    let end = reader.at();
    Ok(edits.replace_with(end..end, |text| put_missing(text, pairs, seen))?)
}

fn put_missing(text: &mut Text<'_>, pairs: &Pairs, seen: Seen) {
    for (_, (name, value)) in pairs.iter().enumerate().filter(|(place, _)| !seen.has(*place)) {
        put_string(text, name);
        put_string(text, value);
    }
}

fn is_text(bytes: &[u8]) -> bool {
    is_ascii(bytes) || std::str::from_utf8(bytes).is_ok()
}

/// A string in one piece, of bytes that are UTF-8: they are short.
fn put_string(text: &mut Text<'_>, bytes: &[u8]) {
    if is_ascii(bytes) {
        // As ids and contexts are: each byte is a unit.
        put_len(text, bytes.len());
        return text.put(bytes);
    }
    put_units(text, std::str::from_utf8(bytes).unwrap_or_default());
}

/// The units of UTF-16 that follow.
fn put_len(text: &mut Text<'_>, units: usize) {
    let [high, low] = u16::try_from(units).unwrap_or(u16::MAX).to_be_bytes();
    match units {
        0..=0x1f => text.put(&[low]),
        0x20..=0x3ff => text.put(&[0x30 + high, low]),
        _ => text.put(&[b'S', high, low]),
    }
}

/// As Java writes it: unit by unit.
#[cold]
fn put_units(text: &mut Text<'_>, string: &str) {
    put_len(text, string.encode_utf16().count());
    for unit in string.encode_utf16() {
        let [last, middle] = [unit, unit >> 6].map(|bits| 0x80 | (bits & 0x3f) as u8);
        match unit {
            0..=0x7f => text.put(&[(unit & 0x7f) as u8]),
            0x80..=0x7ff => text.put(&[0xc0 | (unit >> 6 & 0x1f) as u8, last]),
            _ => text.put(&[0xe0 | (unit >> 12) as u8, middle, last]),
        }
    }
}

/// A response whose status says no, and why in its body: `Response` of Apache Dubbo.
pub(super) fn reply(
    head: &Head,
    bytes: &[u8],
    refusal: &Refusal<'_>,
    out: &mut Vec<u8>,
) -> Replied {
    let is_read = bytes.get(2).is_some_and(|flags| flags & SERIALISATION == HESSIAN2);
    if head.kind != Kind::Request || !is_read {
        return Replied::MustClose;
    }
    let status = match refusal.why {
        Why::Limited | Why::Overflow => SERVER_THREADPOOL_EXHAUSTED,
        Why::NoRoute => SERVICE_NOT_FOUND,
        Why::TimedOut => SERVER_TIMEOUT,
        Why::Denied | Why::Aborted | Why::Unreachable => SERVER_ERROR,
    };
    let units = u16::try_from(refusal.line().count()).unwrap_or(0);
    let len = 3 + u32::from(units);
    out.extend([0xda, 0xbb, HESSIAN2, status]);
    out.extend(head.id.to_be_bytes());
    out.extend(len.to_be_bytes());
    out.push(b'S');
    out.extend(units.to_be_bytes());
    out.extend(refusal.line());
    Replied::Sent
}

const SERVER_TIMEOUT: u8 = 31;
const SERVICE_NOT_FOUND: u8 = 60;
const SERVER_ERROR: u8 = 80;
const SERVER_THREADPOOL_EXHAUSTED: u8 = 100;
