//! Memcached: text, meta commands and the binary protocol on one port.
//!
//! <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>. The first byte of a
//! connection says which: 0x80 is binary. Answers come in the order of the requests, and have the
//! form of what was asked. Of a request its command is read; keys and values never are, and values
//! pass by their length.
//!
//! | what is not answered, or not always | how it is known |
//! |---|---|
//! | text with `noreply` | the last word of the line |
//! | meta commands with `q` | the flag; what does come carries their token (`O`) |
//! | quiet opcodes of the binary protocol | the opcode, which their answers repeat |
//!
//! With `noreply` a request is over when it has been sent. A quiet one is kept until something is said
//! of it, or of one behind it: errors of text have no token, and are its own where no other waits so.
//! Where nobody can say whether an error is that of a request which is always answered, the tap ends.

mod binary;
mod commands;
mod reply;
mod request;
mod tail;

use crate::codec::{
    About, Asked, Codec, Convention, Correlation, Event, Head, Key, Kind, Pair, Reason, Refusal,
    Replied, Speaks, Way,
};
use crate::limits::Limits;
use binary::BinarySide;
use reply::ReplySide;
use request::RequestSide;
use tail::Tail;

/// The codec of memcached.
#[derive(Debug, Default)]
pub struct Memcached {
    form: Form,
}

/// What the first byte said.
#[derive(Debug, Default)]
enum Form {
    #[default]
    Unknown,
    Text(RequestSide, ReplySide),
    Binary(BinarySide, BinarySide),
}

impl Memcached {
    fn tail(&self, way: Way) -> Tail {
        match (&self.form, way) {
            (Form::Unknown, _) => Tail::default(),
            (Form::Text(request, _), Way::Request) => request.tail,
            (Form::Text(_, reply), Way::Response) => reply.tail,
            (Form::Binary(request, _), Way::Request) => request.tail,
            (Form::Binary(_, answer), Way::Response) => answer.tail,
        }
    }
}

impl Codec for Memcached {
    const ABOUT: &'static About = &About {
        name: "memcached",
        operations: commands::NAMES,
        port: 11211,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Fifo,
        keys: &[],
        carries_context: false,
        convention: Convention::Db("memcached"),
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
        if let Form::Unknown = self.form {
            match (way, input) {
                (Way::Response, [0x15 | 0x16, ..]) => return Event::Not(Reason::Tls),
                (Way::Response, _) => return Event::Not(Reason::ServerFirst),
                (Way::Request, [binary::REQUEST, ..]) => {
                    self.form = Form::Binary(BinarySide::default(), BinarySide::default());
                }
                (Way::Request, _) => {
                    self.form = Form::Text(RequestSide::default(), ReplySide::default());
                }
            }
        }
        match (&mut self.form, way) {
            (Form::Unknown, _) => Event::Need,
            (Form::Text(request, _), Way::Request) => {
                request.held.begin(limits);
                match request.tail.go_on(input) {
                    Some(event) => event,
                    None => request.advance(input, limits, head),
                }
            }
            (Form::Text(request, reply), Way::Response) => {
                reply.held.begin(limits);
                reply.advance(input, asked, request.silent, limits, head)
            }
            (Form::Binary(request, _), Way::Request) => {
                request.held.begin(limits);
                request.advance(way, input, None, limits, head)
            }
            (Form::Binary(_, answer), Way::Response) => {
                answer.held.begin(limits);
                answer.advance(way, input, asked, limits, head)
            }
        }
    }

    fn passable(&self, way: Way) -> u64 {
        self.tail(way).passable()
    }

    /// A value of the text protocol is never the end of a message: its CRLF is.
    fn passed(&mut self, way: Way, count: u64) -> bool {
        match (&mut self.form, way) {
            (Form::Unknown, _) => false,
            (Form::Text(request, _), Way::Request) => {
                request.tail.pass(count);
                false
            }
            (Form::Text(_, reply), Way::Response) => {
                reply.tail.pass(count);
                false
            }
            (Form::Binary(request, _), Way::Request) => request.pass(count),
            (Form::Binary(_, answer), Way::Response) => answer.pass(count),
        }
    }

    fn held_head(&self, way: Way) -> &[u8] {
        match (&self.form, way) {
            (Form::Unknown, _) => b"",
            (Form::Text(request, _), Way::Request) => request.held.bytes(),
            (Form::Text(_, reply), Way::Response) => reply.held.bytes(),
            (Form::Binary(request, _), Way::Request) => request.held.bytes(),
            (Form::Binary(_, answer), Way::Response) => answer.held.bytes(),
        }
    }

    fn held(&self) -> usize {
        match &self.form {
            Form::Unknown => 0,
            Form::Text(request, reply) => request.held.len() + reply.held.len(),
            Form::Binary(request, answer) => request.held.len() + answer.held.len(),
        }
    }

    fn release_memory(&mut self) {
        match &mut self.form {
            Form::Unknown => {}
            Form::Text(request, reply) => {
                request.held.release_memory();
                reply.held.release_memory();
            }
            Form::Binary(request, answer) => {
                request.held.release_memory();
                answer.held.release_memory();
            }
        }
    }

    fn value<'b>(_: &Head, _: &'b [u8], _: Key) -> Option<&'b [u8]> {
        None
    }

    fn pairs<'b>(_: &Head, _: &'b [u8], _: &mut dyn FnMut(Pair<'b>)) {}

    /// The command as it is listed; an answer has none.
    fn name<'b>(head: &Head, _: &'b [u8]) -> [&'b [u8]; 3] {
        let name = if head.kind.opens() { commands::name(head.operation) } else { "" };
        [name.as_bytes(), b"", b""]
    }

    /// `gat` and `mg` may change how long a value is kept.
    fn is_read(operation: u8) -> Option<bool> {
        Some(matches!(commands::name(operation), "get" | "gets"))
    }

    /// `SERVER_ERROR`; of the binary protocol an answer whose status says no. Not where the next
    /// answer has to tell about an earlier request.
    fn reply(head: &Head, bytes: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        match bytes.first() {
            _ if head.kind != Kind::Request || head.note & request::DOUBTED != 0 => {
                Replied::MustClose
            }
            None => Replied::MustClose,
            Some(&binary::REQUEST) => binary::reply(bytes, refusal, out),
            Some(_) => {
                out.extend(b"SERVER_ERROR ");
                out.extend(refusal.line());
                out.extend(b"\r\n");
                Replied::Sent
            }
        }
    }
}
