//! Commands that are answered here, by an ERR packet.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_err_packet.html>. An error
//! ends its command and nothing else: a transaction that is open stays open, as behind an error of
//! the server's own.

use super::commands::{self, Reply};
use super::request::IS_LONG;
use super::wire::HEAD;
use crate::codec::{Head, Kind, Refusal, Replied, Why};

/// What a client is told, by number and SQL state.
fn error_of(why: Why) -> (u16, &'static [u8; 5]) {
    match why {
        // ER_TABLEACCESS_DENIED_ERROR, which clients know as a matter of rights.
        Why::Denied => (1142, b"42000"),
        // ER_USER_LIMIT_REACHED.
        Why::Limited | Why::Overflow => (1226, b"42000"),
        // ER_UNKNOWN_ERROR.
        Why::NoRoute | Why::Aborted | Why::Unreachable | Why::TimedOut => (1105, b"HY000"),
    }
}

/// Commands of one packet, so that the answer's number is known, which are answered at once.
pub(super) fn reply(head: &Head, refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
    let is_answered = match commands::reply(head.operation) {
        Reply::Simple | Reply::Results | Reply::Fields | Reply::Prepared | Reply::Rows => true,
        Reply::Nothing | Reply::Login | Reply::Text | Reply::Replication | Reply::Unread => false,
    };
    if head.kind != Kind::Request || head.note & IS_LONG != 0 || !is_answered {
        return Replied::MustClose;
    }
    let (number, state) = error_of(refusal.why);
    let begin = out.len();
    out.extend([0, 0, 0, 1, 0xff]);
    out.extend(number.to_le_bytes());
    out.push(b'#');
    out.extend(state);
    out.extend(refusal.line());
    let len = u32::try_from(out.len() - begin - HEAD).unwrap_or(0).to_le_bytes();
    out[begin..begin + 3].copy_from_slice(&len[..3]);
    Replied::Sent
}
