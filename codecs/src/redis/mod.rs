//! Redis, and what speaks as it does (Valkey, KeyDB, Dragonfly): RESP2 and RESP3.
//!
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>. Answers come in the order of
//! the requests, which is all that correlates them. So each thing that is sent without having been
//! asked for has to be known as such, and each request that is not answered:
//!
//! | what | how it is known |
//! |---|---|
//! | push of RESP3 | its type, `>` |
//! | published message of RESP2 | an array that begins with `message` and its kin, while subscribed |
//! | confirmation of `SUBSCRIBE` and its kin | begins with the command's name; one for each channel |
//! | line of `MONITOR` | a simple string that begins with a digit, after `MONITOR` was answered |
//! | `CLIENT REPLY OFF`, `SKIP` | requests without answer; what could make this wrong ends the tap |
//! | `PSYNC`, `SYNC` | end the tap |
//!
//! Of a request its command is read, and its first argument where that is a key. Values and
//! credentials are never looked at.

mod commands;
mod reply;
mod request;
mod walk;

use crate::codec::{
    About, Asked, Codec, Convention, Correlation, Event, Head, Key, Kind, Leaves, Pair, Refusal,
    Replied, Speaks, Way, Why,
};
use crate::limits::Limits;
use reply::ReplySide;
pub(crate) use reply::UNWELL;
use request::RequestSide;

/// What is asked of `CLIENT` that no later command depends on.
const PLAIN_OF_CLIENT: &[&[u8]] = &[
    b"setinfo",
    b"setname",
    b"getname",
    b"id",
    b"info",
    b"list",
    b"kill",
    b"help",
    b"pause",
    b"unpause",
    b"getredir",
    b"trackinginfo",
    b"unblock",
];

/// The codec of Redis.
#[derive(Debug, Default)]
pub struct Redis {
    request: RequestSide,
    reply: ReplySide,
}

impl Codec for Redis {
    const ABOUT: &'static About = &About {
        name: "redis",
        operations: commands::NAMES,
        port: 6379,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Fifo,
        keys: &[Key::RedisKey, Key::Database],
        carries_context: false,
        convention: Convention::Db("redis"),
    };
    const MOVES: bool = true;

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
            Way::Response => self.reply.advance(input, asked, limits, head),
        }
    }

    fn passable(&self, way: Way) -> u64 {
        match way {
            Way::Request => self.request.walk.passable(),
            Way::Response => self.reply.walk.passable(),
        }
    }

    /// A string is never the end of a message: its CRLF is.
    fn passed(&mut self, way: Way, count: u64) -> bool {
        match way {
            Way::Request => self.request.walk.pass(count),
            Way::Response => self.reply.walk.pass(count),
        }
        false
    }

    fn held_head(&self, way: Way) -> &[u8] {
        match way {
            Way::Request => self.request.held.bytes(),
            Way::Response => self.reply.peeked(),
        }
    }

    fn held(&self) -> usize {
        self.request.held.len()
    }

    fn release_memory(&mut self) {
        self.request.held.release_memory();
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        let flag = match key {
            Key::RedisKey => commands::KEY,
            Key::Database => commands::DATABASE,
            _ => return None,
        };
        let has_it = head.method.len > 0 && commands::flags(head.operation) & flag != 0;
        if has_it { head.extra.of(bytes) } else { None }
    }

    fn pairs<'b>(_: &Head, _: &'b [u8], _: &mut dyn FnMut(Pair<'b>)) {}

    /// The command as it is listed; as the client wrote it when it is not, if it looks like one.
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        if head.operation != commands::OTHER {
            return [commands::name(head.operation).as_bytes(), b"", b""];
        }
        let name = head.method.of(bytes).unwrap_or_default();
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        if name.len() <= 32 && name.iter().all(is_word) { [name, b"", b""] } else { [b""; 3] }
    }

    /// An error, unless the command changes what those behind it mean, or stands in a transaction:
    /// the server would do the rest of that without it.
    fn reply(head: &Head, _: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        let is_plain = matches!(head.kind, Kind::Request | Kind::Blocking) && head.note == 0;
        let changes = commands::MULTI | commands::END | commands::RESET | commands::CLIENT;
        if !is_plain || head.status != 0 || commands::flags(head.operation) & changes != 0 {
            return Replied::MustClose;
        }
        out.extend(if refusal.why == Why::Denied { &b"-NOPERM "[..] } else { &b"-ERR "[..] });
        out.extend(refusal.line());
        out.extend(b"\r\n");
        Replied::Sent
    }

    /// Names that a client gives itself are for people; all else that `CLIENT` does is for the server.
    fn is_read(operation: u8) -> Option<bool> {
        Some(commands::flags(operation) & commands::READ != 0)
    }

    fn leaves(head: &Head, bytes: &[u8]) -> Leaves {
        let flags = commands::flags(head.operation);
        match commands::name(head.operation) {
            _ if flags & (commands::SUBSCRIBE | commands::MONITOR) != 0 => Leaves::Subscription,
            _ if flags & commands::MULTI != 0 => Leaves::Transaction,
            _ if flags & commands::END != 0 => Leaves::TransactionEnd,
            _ if flags & commands::RESET != 0 => Leaves::AsNew,
            _ if flags & commands::HANDSHAKE != 0 => Leaves::Session,
            "WATCH" => Leaves::Transaction,
            // Within a transaction it does nothing.
            "UNWATCH" if head.status == 0 => Leaves::TransactionEnd,
            "ASKING" | "READONLY" | "READWRITE" => Leaves::Session,
            "CLIENT" => {
                let what = head.extra.of(bytes).unwrap_or_default();
                let is_plain = |name: &&[u8]| what.eq_ignore_ascii_case(name);
                match PLAIN_OF_CLIENT.iter().any(is_plain) {
                    true => Leaves::Nothing,
                    false => Leaves::Session,
                }
            }
            _ => Leaves::Nothing,
        }
    }
}
