//! PostgreSQL, and what speaks as it does (pgbouncer, pgpool, `CockroachDB`): protocol 3.
//!
//! <https://www.postgresql.org/docs/17/protocol.html>. Answers come in the order of the requests.
//! One exchange is what one `ReadyForQuery` ends:
//!
//! | exchange | from | to |
//! |---|---|---|
//! | startup | `StartupMessage`, passwords included | the first `ReadyForQuery` |
//! | simple query | `Query`, with all of its statements and the data of a `COPY` | `ReadyForQuery` |
//! | extended cycle | the first message behind the last `Sync` | the `ReadyForQuery` of its own `Sync` |
//! | function call | `FunctionCall` | `ReadyForQuery` |
//! | cancel | `CancelRequest`, on a connection of its own | itself: it is not answered |
//!
//! An extended cycle is told once its `Sync` has come, when all that it does is known, or at the
//! first `Flush` before that, behind which the client may wait for answers, or when as much of it
//! has come as is held of a message. A pipeline is one exchange, whose summary has each different
//! statement once. Where something else than the order has to be known:
//!
//! | what | how it is known |
//! |---|---|
//! | refused TLS or GSS encryption | one byte, `N`; an accepted one ends the tap |
//! | `NoticeResponse`, `NotificationResponse`, `ParameterStatus` between answers | their type |
//! | a fatal error, which no `ReadyForQuery` follows | its severity |
//! | data of `COPY FROM STDIN` | its type: it belongs to the query before it |
//! | the second `Sync` of an extended `COPY FROM STDIN` | the server has asked for data when the first had been sent |
//! | replication | `CopyBothResponse`, which ends the tap |
//!
//! Of a text its [summary](crate::sql) is made, and remembered for a prepared statement. Parameters,
//! rows, passwords and the keys of cancellation are passed over.

mod refusals;
mod request;
mod response;
mod statements;

use crate::codec::{
    About, Asked, Codec, Convention, Correlation, Event, Head, Key, Leaves, Pair, Reason, Refusal,
    Replied, Speaks, Way,
};
use crate::limits::Limits;
use crate::sql;
use request::RequestSide;
use response::ResponseSide;

/// The codec of PostgreSQL.
#[derive(Debug, Default)]
pub struct Postgresql {
    request: RequestSide,
    response: ResponseSide,
}

/// Those of SQL, and what the protocol has besides.
const OPERATIONS: &[&str] = &{
    let mut all = [""; sql::OPERATIONS.len() + 3];
    let mut index = 0;
    while index < sql::OPERATIONS.len() {
        all[index] = sql::OPERATIONS[index];
        index += 1;
    }
    [all[index], all[index + 1], all[index + 2]] = ["STARTUP", "CANCEL", "SYNC"];
    all
};

/// The connection is set up.
const STARTUP: u8 = CANCEL - 1;
/// What another connection asked for is to be given up.
const CANCEL: u8 = SYNC - 1;
/// A cycle without anything in it.
#[allow(clippy::cast_possible_truncation)]
const SYNC: u8 = OPERATIONS.len() as u8 - 1;

/// In the note of an extended cycle.
const EXTENDED: u32 = 1;
/// In the note of one that was told before its `Sync` had come.
const EARLY: u32 = 2;

/// The mark of a name: equal for equal ones.
const fn mark(mark: u64, byte: u8) -> u64 {
    (mark ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

/// The first bytes of a message, which may come one by one.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    bytes: [u8; 8],
    len: u8,
}

impl Start {
    /// Takes what is lacking to `wanted` bytes; returns how many it took.
    #[inline]
    fn fill(&mut self, input: &[u8], wanted: usize) -> usize {
        let len = usize::from(self.len);
        let count = wanted.saturating_sub(len).min(input.len());
        self.bytes[len..len + count].copy_from_slice(&input[..count]);
        self.len += u8::try_from(count).unwrap_or(0);
        count
    }

    /// Type and length of a message, without the bytes that say so, once they are there.
    #[inline]
    fn take(&mut self, limits: &Limits) -> Option<Result<(u8, u64), Reason>> {
        let &[kind, a, b, c, d, ..] = &self.bytes;
        if self.len < 5 {
            return None;
        }
        self.len = 0;
        Some(match u64::from(u32::from_be_bytes([a, b, c, d])).checked_sub(4) {
            None => Err(Reason::Malformed),
            Some(len) if len > limits.message_bytes_max => Err(Reason::TooLarge),
            Some(len) => Ok((kind, len)),
        })
    }
}

impl Codec for Postgresql {
    const ABOUT: &'static About = &About {
        name: "postgresql",
        operations: OPERATIONS,
        port: 5432,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Fifo,
        keys: &[Key::Database, Key::Transaction],
        carries_context: true,
        convention: Convention::Sql("postgresql"),
    };

    #[inline]
    fn advance(
        &mut self,
        way: Way,
        input: &[u8],
        asked: Option<Asked>,
        limits: &Limits,
        head: &mut Head,
    ) -> Event {
        match way {
            Way::Request => self.request.advance(input, limits, head),
            Way::Response => self.response.advance(&mut self.request, input, (asked, limits), head),
        }
    }

    fn passable(&self, way: Way) -> u64 {
        match way {
            Way::Request => self.request.passable(),
            Way::Response => self.response.passable(),
        }
    }

    fn passed(&mut self, way: Way, count: u64) -> bool {
        match way {
            Way::Request => self.request.passed(count),
            Way::Response => self.response.passed(count),
        }
    }

    fn held_head(&self, way: Way) -> &[u8] {
        match way {
            Way::Request => self.request.told(),
            Way::Response => self.response.told(),
        }
    }

    fn held(&self) -> usize {
        self.request.held()
    }

    fn release_memory(&mut self) {
        self.request.release_memory();
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::Database => head.service.of(bytes),
            Key::Transaction => response::transaction(head, bytes),
            _ => None,
        }
    }

    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if head.kind.opens()
            && let Some(context) = request::traceparent(bytes)
        {
            take((sql::TRACEPARENT, context));
        }
    }

    fn reply(head: &Head, _: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        refusals::reply(head, refusal, out)
    }

    /// Whoever cancels waits for the end of the connection.
    fn leaves(head: &Head, _: &[u8]) -> Leaves {
        if head.operation == CANCEL { Leaves::Session } else { Leaves::of(head.kind) }
    }

    /// The summary; of what has none, the operation.
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        let operation = OPERATIONS.get(usize::from(head.operation)).copied().unwrap_or_default();
        match head.method.of(bytes) {
            Some(summary) if request::is_of_protocol(head) => [operation.as_bytes(), b" ", summary],
            Some(summary) => [summary, b"", b""],
            None if head.operation == sql::OTHER => [b""; 3],
            None => [operation.as_bytes(), b"", b""],
        }
    }
}
