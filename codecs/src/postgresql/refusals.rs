//! Requests that are answered here: by `ErrorResponse` and `ReadyForQuery`.
//!
//! <https://www.postgresql.org/docs/17/errcodes-appendix.html>. Within a transaction nothing is said
//! for the server: behind an error of its own the transaction could not be committed any more, and
//! it does not know of this one. When the connection ends it rolls back.

use crate::codec::{Head, Kind, Refusal, Replied, Why};

fn state_of(why: Why) -> &'static [u8; 5] {
    match why {
        // insufficient_privilege
        Why::Denied => b"42501",
        // configuration_limit_exceeded
        Why::Limited | Why::Overflow => b"53400",
        // system_error
        Why::NoRoute | Why::Aborted | Why::Unreachable | Why::TimedOut => b"58000",
    }
}

/// The status of a head is the state of the transaction when it came.
pub(super) fn reply(head: &Head, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
    let is_idle = refusal.is_alone && head.status == i32::from(b'I');
    if head.kind != Kind::Request || !is_idle {
        return Replied::MustClose;
    }
    let begin = out.len() + 1;
    out.extend(b"E\0\0\0\0SERROR\0VERROR\0C");
    out.extend(state_of(refusal.why));
    out.extend(b"\0M");
    out.extend(refusal.line());
    out.extend([0, 0]);
    let len = u32::try_from(out.len() - begin).unwrap_or(0);
    out[begin..begin + 4].copy_from_slice(&len.to_be_bytes());
    out.extend(b"Z\0\0\0\x05I");
    Replied::Sent
}
