//! MySQL, and what speaks as it does (MariaDB, Percona, TiDB, Vitess, proxies of it).
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>. The server greets, the
//! client says who it is, then commands are answered in their order. An answer says nowhere how
//! long it is: its packets are walked through, by what both sides have said that they can.
//!
//! | what | how it is known |
//! |---|---|
//! | end of rows | EOF, or OK with another first byte, as was agreed |
//! | further results | a flag in the status at the end of one |
//! | an error behind the first rows | its first byte, which no row and no definition has |
//! | commands without answer | `COM_QUIT`, `COM_STMT_CLOSE`, `COM_STMT_SEND_LONG_DATA` |
//! | a file that the client is asked for (`LOAD DATA LOCAL`) | the first byte of an answer; it ends with an empty packet |
//! | questions about who the client is | behind its login and `COM_CHANGE_USER`, until OK or ERR |
//! | an error that nothing led to, before the server closes | no request is open |
//! | TLS, compression, replication | end the tap |
//!
//! Packets are numbered within an answer; one with another number ends the tap, so that an answer
//! that was read wrongly is not taken for two.
//!
//! Of a text its summary is kept ([`crate::sql`]), of a statement that was prepared as well, for
//! those that execute it. Rows, parameters and proofs of who somebody is are never looked at.

mod attributes;
mod commands;
mod refusals;
mod request;
mod response;
mod results;
mod session;
mod statements;
mod wire;

use crate::codec::{
    About, Asked, Codec, Convention, Correlation, Event, Head, Key, Leaves, Pair, Refusal, Replied,
    Speaks, Way,
};
use crate::limits::Limits;
use crate::sql;
use request::RequestSide;
use response::ResponseSide;
use session::Session;

/// The codec of MySQL.
#[derive(Debug, Default)]
pub struct Mysql {
    session: Session,
    request: RequestSide,
    response: ResponseSide,
}

impl Codec for Mysql {
    const ABOUT: &'static About = &About {
        name: "mysql",
        operations: commands::NAMES,
        port: 3306,
        speaks: Speaks::ServerFirst,
        correlation: Correlation::Fifo,
        keys: &[Key::Database, Key::Transaction],
        carries_context: true,
        convention: Convention::Sql("mysql"),
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
        let Self { session, request, response } = self;
        match way {
            Way::Request => request.advance(session, input, limits, head),
            Way::Response => response.advance(session, input, asked, limits, head),
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
            Way::Request => self.request.shown(),
            Way::Response => self.response.held.bytes(),
        }
    }

    fn held(&self) -> usize {
        self.request.held.len() + self.response.held.len() + self.session.statements.held()
    }

    fn release_memory(&mut self) {
        self.request.release_memory();
        self.response.held.release_memory();
        self.session.release_memory();
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::Transaction => response::transaction(head),
            Key::Database => head.service.of(bytes),
            _ => None,
        }
    }

    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if let Some(attributed) = head.extra.of(bytes) {
            attributes::pairs(attributed, take);
        }
        if head.kind.opens()
            && let Some(context) = request::traceparent(head, bytes)
        {
            take((sql::TRACEPARENT, context));
        }
    }

    fn reply(head: &Head, _: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        refusals::reply(head, refusal, out)
    }

    /// Data of a statement is for its execution, which follows.
    fn leaves(head: &Head, _: &[u8]) -> Leaves {
        match commands::number(head.operation) {
            commands::STMT_SEND_LONG_DATA => Leaves::Session,
            _ => Leaves::of(head.kind),
        }
    }

    /// What the text does that is executed; the command where none is, and to what statement.
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        let command = commands::name(head.operation).as_bytes();
        match head.method.of(bytes) {
            Some(summary) if commands::executes(head.operation) => [summary, b"", b""],
            Some(summary) => [command, b" ", summary],
            None if !head.kind.opens() => [b""; 3],
            None => [command, b"", b""],
        }
    }
}
