//! Commands that are answered here, by a document with `ok: 0`.
//!
//! <https://www.mongodb.com/docs/manual/reference/error-codes/>. Only those of `OP_MSG` whose kind is
//! read: what is compressed may wait for no answer at all.

use super::bson::u32_at;
use super::{HEAD_LEN, OP_MSG};
use crate::codec::{Head, Refusal, Replied, Why};

/// What a client is told, by number and name.
fn error_of(why: Why) -> (i32, &'static str) {
    match why {
        Why::Denied => (13, "Unauthorized"),
        Why::Limited | Why::Overflow => (462, "IngressRequestRateLimitExceeded"),
        Why::NoRoute | Why::Unreachable => (6, "HostUnreachable"),
        Why::TimedOut => (89, "NetworkTimeout"),
        Why::Aborted => (8, "UnknownError"),
    }
}

pub(super) fn reply(
    head: &Head,
    bytes: &[u8],
    refusal: &Refusal<'_>,
    out: &mut Vec<u8>,
) -> Replied {
    let Ok(id) = u32::try_from(head.id) else { return Replied::MustClose };
    if u32_at(bytes, 12) != Some(OP_MSG) || !head.kind.opens() {
        return Replied::MustClose;
    }
    let begin = out.len();
    let (code, name) = error_of(refusal.why);
    out.extend([0; 4]);
    // An id of its own is not needed: nobody answers it.
    out.extend([0; 4]);
    out.extend(id.to_le_bytes());
    out.extend(OP_MSG.to_le_bytes());
    // No flags; the body is a document.
    out.extend([0; 5]);
    let document = out.len();
    out.extend([0; 4]);
    out.extend(b"\x01ok\0");
    out.extend(0_f64.to_le_bytes());
    out.extend(b"\x02errmsg\0");
    put_text(refusal.line(), out);
    out.extend(b"\x10code\0");
    out.extend(code.to_le_bytes());
    out.extend(b"\x02codeName\0");
    put_text(name.bytes(), out);
    out.push(0);
    for place in [begin, document] {
        let len = u32::try_from(out.len() - place).unwrap_or(0);
        out[place..place + 4].copy_from_slice(&len.to_le_bytes());
    }
    debug_assert!(document - begin == HEAD_LEN + 5);
    Replied::Sent
}

fn put_text(text: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend([0; 4]);
    out.extend(text);
    out.push(0);
    let len = u32::try_from(out.len() - begin - 4).unwrap_or(0);
    out[begin..begin + 4].copy_from_slice(&len.to_le_bytes());
}
