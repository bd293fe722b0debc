//! RFC 9112 section 6: where a body ends, or why that is not certain.
//!
//! Whatever two parsers could read differently has no framing here but a [`Reason`]: netra edits
//! only heads whose place it is certain of, so it cannot be what makes a request smuggled.

use crate::h1::fields::Fields;
use crate::h1::head::{RequestKind, Version};
use crate::h1::reason::Reason;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes; 0 also where there is no body at all.
    Length(u64),
    /// Chunks and a trailer section (RFC 9112 §7.1).
    Chunked,
    /// Until the server closes; responses only.
    UntilClose,
}

/// What the fields of a head say about its framing, where it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declared {
    /// Neither field is there.
    Nothing,
    /// One of them is, once.
    Once(Framing),
}

/// The fields that say how a message is framed, collected in one pass.
#[derive(Debug, Default)]
pub(crate) struct FramingFields<'b> {
    length: Option<&'b [u8]>,
    coding: Option<&'b [u8]>,
    /// Whether an Upgrade line is there.
    pub(crate) upgrade: bool,
}

impl Declared {
    /// What was declared, or else this.
    pub(crate) fn or(self, otherwise: Framing) -> Framing {
        match self {
            Self::Nothing => otherwise,
            Self::Once(framing) => framing,
        }
    }
}

impl<'b> FramingFields<'b> {
    /// Collects them; the lengths of the names tell most other fields apart at once.
    pub(crate) fn collect(fields: Fields<'b>) -> Result<Self, Reason> {
        let mut found = Self::default();
        for (name, value) in fields.iter() {
            match name.len() {
                7 if name.eq_ignore_ascii_case(b"upgrade") => found.upgrade = true,
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    set_once(&mut found.length, value, Reason::RepeatedContentLength)?;
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    set_once(&mut found.coding, value, Reason::RepeatedTransferEncoding)?;
                }
                14 | 17 if is_odd_framing_name(name) => return Err(Reason::OddFramingName),
                _ => {}
            }
        }
        Ok(found)
    }

    /// The part of the rules that requests and responses share.
    fn declared(&self, version: Version) -> Result<Declared, Reason> {
        match (self.coding, self.length) {
            (None, None) => Ok(Declared::Nothing),
            (None, Some(length)) => {
                parse_length(length).map(|length| Declared::Once(Framing::Length(length)))
            }
            // RFC 9112 §6.1: Transfer-Encoding overrides, and "ought to be handled as an error".
            (Some(_), Some(_)) => Err(Reason::BothLengths),
            // RFC 9112 §6.1: "MUST treat the message as if the framing is faulty".
            (Some(_), None) if version == Version::Http10 => Err(Reason::TransferEncodingInHttp10),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Declared::Once(Framing::Chunked))
            }
            (Some(_), None) => Err(Reason::OddTransferEncoding),
        }
    }
}

/// RFC 9112 §6.3, for requests.
pub(crate) fn request(
    version: Version,
    kind: RequestKind,
    fields: &FramingFields<'_>,
) -> Result<Framing, Reason> {
    let framing = fields.declared(version)?.or(Framing::Length(0));
    // RFC 9110 §9.3.6: content of a CONNECT has no meaning; some servers take it for the tunnel's.
    if kind == RequestKind::Connect && framing != Framing::Length(0) {
        return Err(Reason::ConnectWithBody);
    }
    Ok(framing)
}

/// RFC 9112 §6.3, for responses to a request of this kind, which `declared` says unless their
/// fields do not matter.
pub(crate) fn response(
    status: u16,
    kind: RequestKind,
    declared: impl FnOnce() -> Result<Declared, Reason>,
) -> Result<Framing, Reason> {
    // Rule 1: no body, whatever the fields say, so that nothing in them can be ambiguous.
    if kind == RequestKind::Head || matches!(status, 100..200 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    // Rule 2: a tunnel begins right after the head; its fields are to be ignored.
    if kind == RequestKind::Connect && matches!(status, 200..300) {
        return Ok(Framing::Length(0));
    }
    // Rule 8.
    Ok(declared()?.or(Framing::UntilClose))
}

/// What the fields of a response declare.
pub(crate) fn declared(fields: Fields<'_>, version: Version) -> Result<Declared, Reason> {
    FramingFields::collect(fields)?.declared(version)
}

/// RFC 9110 §8.6: `1*DIGIT`. Signs, lists, blanks and padding with zeros, which some parsers take
/// for octal, are all refused; so is what does not fit 63 bits.
///
/// # Errors
/// [`Reason::BadContentLength`] or [`Reason::HugeContentLength`].
pub fn parse_length(value: &[u8]) -> Result<u64, Reason> {
    const MAX: u64 = i64::MAX as u64;
    /// Digits of which no number is too long.
    const SURE: usize = 18;
    if value.is_empty() || (value.len() > 1 && value[0] == b'0') {
        return Err(Reason::BadContentLength);
    }
    let (sure, rest) = value.split_at(value.len().min(SURE));
    let mut length = 0;
    for byte in sure {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Reason::BadContentLength);
        }
        length = length * 10 + u64::from(digit);
    }
    if !rest.iter().all(u8::is_ascii_digit) {
        return Err(Reason::BadContentLength);
    }
    let length = rest.iter().try_fold(length, |length: u64, digit| {
        let length = length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        (length <= MAX).then_some(length)
    });
    length.ok_or(Reason::HugeContentLength)
}

/// RFC 9112 §6.3, rule 5: even repeated equal values are read differently.
fn set_once<'b>(
    place: &mut Option<&'b [u8]>,
    value: &'b [u8],
    repeated: Reason,
) -> Result<(), Reason> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(repeated),
    }
}

/// `Content_Length`: servers that hand headers on as environment variables, where `-` becomes
/// `_`, take it for the real one.
fn is_odd_framing_name(name: &[u8]) -> bool {
    let same = |wanted: &[u8]| {
        name.len() == wanted.len()
            && name.iter().zip(wanted).all(|(&byte, &wanted)| {
                byte.to_ascii_lowercase() == wanted || (byte == b'_' && wanted == b'-')
            })
    };
    same(b"content-length") || same(b"transfer-encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("7", Ok(7)),
            ("9223372036854775807", Ok(i64::MAX.cast_unsigned())),
            ("9223372036854775808", Err(Reason::HugeContentLength)),
            ("18446744073709551616", Err(Reason::HugeContentLength)),
            ("99999999999999999999999999", Err(Reason::HugeContentLength)),
            ("", Err(Reason::BadContentLength)),
            ("+1", Err(Reason::BadContentLength)),
            ("-1", Err(Reason::BadContentLength)),
            ("1,1", Err(Reason::BadContentLength)),
            ("1 1", Err(Reason::BadContentLength)),
            ("0x1", Err(Reason::BadContentLength)),
            ("01", Err(Reason::BadContentLength)),
            ("00", Err(Reason::BadContentLength)),
            ("00000000000000000000000000000", Err(Reason::BadContentLength)),
            ("999999999999999999", Ok(999_999_999_999_999_999)),
            ("1000000000000000000", Ok(1_000_000_000_000_000_000)),
            ("99999999999999999x", Err(Reason::BadContentLength)),
            ("999999999999999999x", Err(Reason::BadContentLength)),
            ("99999999999999999999999999x", Err(Reason::BadContentLength)),
            ("1e3", Err(Reason::BadContentLength)),
        ] {
            assert_eq!(parse_length(text.as_bytes()), expected, "{text:?}");
        }
    }
}
