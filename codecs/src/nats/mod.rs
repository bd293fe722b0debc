//! NATS: lines, some of which have a payload behind them.
//!
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>. The server greets with `INFO`.
//! Most of what a client says is not answered; what is, and how it is known:
//!
//! | asked | answered by |
//! |---|---|
//! | `CONNECT` with the `PING` behind it | the first `PONG`, or `-ERR` |
//! | `PUB`, `HPUB` that names where an answer is to go | the first `MSG`, `HMSG` to that subject |
//! | anything, once `CONNECT` has said `verbose` | `+OK` and `-ERR`, in order |
//!
//! Messages of a stream that were fetched come under their own subjects: the consumer that they are
//! from says which request it was, and the first of them ends it. Messages that come for a subscription, errors that nothing asked for and later `PING`s are part of
//! no exchange. Of messages the subject is read, and the headers; payloads never are. Subjects of
//! answers (`_INBOX.`) are made up for one use and are nobody's name.

mod line;

use crate::codec::{
    About, Convention, Correlation, Frame, FrameCodec, Framed, Head, Key, Kind, Outcome, Pair,
    Reason, Said, Speaks, Spot, Way,
};
use line::{Line, Verb, words};

/// The codec of NATS.
pub type Nats = Framed<NatsLines>;

/// How lines of NATS are read.
#[derive(Debug)]
pub struct NatsLines;

/// What is remembered of a connection.
#[derive(Debug, Default)]
pub struct NatsMemory {
    /// The client has said something.
    has_begun: bool,
    /// Everything is answered, in order.
    is_verbose: bool,
    /// `CONNECT` came, and its `PING` did not yet.
    is_connecting: bool,
    /// The first `PONG` is to come.
    is_welcomed: bool,
    /// How much was asked and answered in order.
    asked: u32,
    answered: u32,
    /// Where answers go: a bit for what their subjects begin with.
    inboxes: u64,
    /// Where it is said that a consumer has no message, and that consumer: the last ones asked, and
    /// how many were.
    fetches: [(u64, u64); FETCHES],
    fetched: usize,
}

/// Consumers of one connection that are asked for messages at a time, as far as they are told apart.
const FETCHES: usize = 8;

const OPERATIONS: &[&str] = &["CONNECT", "PUB", "REQUEST", "FETCH", "ACK", "SUB", "UNSUB"];
const CONNECT: u8 = 0;
const PUB: u8 = 1;
const REQUEST: u8 = 2;
const FETCH: u8 = 3;
const ACK: u8 = 4;
const SUB: u8 = 5;
const UNSUB: u8 = 6;

/// `messaging.operation.type` of operations.
const TYPES: &[(&str, &str)] =
    &[("PUB", "send"), ("REQUEST", "send"), ("FETCH", "receive"), ("ACK", "settle")];

/// Ids of what is answered in order, and of the connection's set-up; all others are those of
/// subjects.
const IN_ORDER: u64 = 1 << 63;
const WELCOME: u64 = 1 << 62;

/// Subjects with a meaning of their own: <https://docs.nats.io/reference/reference-protocols/nats_api_reference>.
const INBOX: &[u8] = b"_INBOX.";
const JETSTREAM: &[u8] = b"$JS.";
const NEXT_MESSAGE: &[u8] = b".API.CONSUMER.MSG.NEXT.";
const ACKNOWLEDGE: &[u8] = b"$JS.ACK.";

impl FrameCodec for NatsLines {
    const ABOUT: &'static About = &About {
        name: "nats",
        operations: OPERATIONS,
        port: 4222,
        speaks: Speaks::ServerFirst,
        correlation: Correlation::Loose,
        keys: &[Key::Topic, Key::ConsumerGroup],
        carries_context: true,
        convention: Convention::Messaging { system: "nats", types: TYPES },
    };

    /// A line, and headers.
    const HEAD_BYTES_MAX: u32 = 4096;

    type Memory = NatsMemory;

    #[inline]
    fn frame(_: &NatsMemory, way: Way, bytes: &[u8]) -> Frame {
        match bytes {
            [0x16, 0x03, ..] => return Frame::Not(Reason::Tls),
            [] | [0x16] => return Frame::Need(bytes.len() + 1),
            _ => {}
        }
        match Line::read(bytes, way) {
            Ok(Some(line)) => Frame::Total(line.len as u64 + line.payload()),
            Ok(None) => Frame::Line,
            Err(reason) => Frame::Not(reason),
        }
    }

    #[inline]
    fn head(
        memory: &mut NatsMemory,
        way: Way,
        bytes: &[u8],
        head: &mut Head,
    ) -> Result<(), Reason> {
        // Of a line that is longer than is read, the beginning.
        let line = match Line::read(bytes, way)? {
            Some(line) => line,
            None => Line::cut(bytes, way)?,
        };
        match way {
            Way::Request => {
                memory.has_begun = true;
                memory.request(&line, bytes, head);
                Ok(())
            }
            Way::Response if !memory.has_begun && !line.verb.may_greet() => {
                Err(Reason::ServerFirst)
            }
            Way::Response => {
                memory.response(&line, bytes, head);
                Ok(())
            }
        }
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::Topic => head.method.of(bytes),
            Key::ConsumerGroup => head.service.of(bytes),
            _ => None,
        }
    }

    /// The headers of a message.
    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        let end = head.extra.end().min(bytes.len());
        let Some(headers) = bytes.get(head.extra.at as usize..end) else { return };
        // The first line says that they are headers; a last one that is not whole is none.
        for line in headers.split_inclusive(|byte| *byte == b'\n').skip(1) {
            let Some(line) = line.strip_suffix(b"\n") else { return };
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            take((&line[..colon], line[colon + 1..].trim_ascii()));
        }
    }

    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        if !head.kind.opens() {
            return [b""; 3];
        }
        let name = OPERATIONS.get(usize::from(head.operation)).copied().unwrap_or_default();
        match head.method.of(bytes) {
            Some(subject) => [name.as_bytes(), b" ", subject],
            None => [name.as_bytes(), b"", b""],
        }
    }
}

impl NatsMemory {
    fn request(&mut self, line: &Line, bytes: &[u8], head: &mut Head) {
        match line.verb {
            Verb::Connect => {
                self.is_verbose = line::is_verbose(bytes);
                self.is_connecting = !self.is_verbose;
                (head.kind, head.operation) = (Kind::Part, CONNECT);
                if self.is_verbose {
                    (head.kind, head.id) = (Kind::Handshake, self.ask());
                }
            }
            Verb::Ping if self.is_connecting => {
                (self.is_connecting, self.is_welcomed) = (false, true);
                (head.kind, head.operation, head.id) = (Kind::Handshake, CONNECT, WELCOME);
            }
            Verb::Sub | Verb::Unsub => {
                head.kind = Kind::Oneway;
                head.operation = if line.verb == Verb::Sub { SUB } else { UNSUB };
                if line.verb == Verb::Sub {
                    head.method = named(line.subject, bytes);
                    head.service = line.second;
                }
                self.ask_in_order(head);
            }
            Verb::Publish => self.publish(line, bytes, head),
            _ => head.kind = Kind::Heartbeat,
        }
    }

    fn publish(&mut self, line: &Line, bytes: &[u8], head: &mut Head) {
        head.extra = line.headers();
        head.method = named(line.subject, bytes);
        let subject = line.subject.of(bytes).unwrap_or_default();
        (head.kind, head.operation) = (Kind::Oneway, PUB);
        if subject.starts_with(ACKNOWLEDGE) {
            (head.operation, head.method) = (ACK, Spot::default());
        }
        if let Some(inbox) = line.second.of(bytes) {
            (head.kind, head.operation) = (Kind::Request, REQUEST);
            head.id = id_of(inbox);
            self.inboxes |= bit_of(inbox);
            if let Some(consumer) = asked_consumer(subject) {
                // It is answered when there is a message.
                (head.kind, head.operation) = (Kind::Blocking, FETCH);
                self.fetches[self.fetched % FETCHES] = (head.id, id_of(consumer));
                self.fetched = self.fetched.wrapping_add(1);
                head.id = id_of(consumer);
            }
        }
        self.ask_in_order(head);
    }

    fn ask(&mut self) -> u64 {
        self.asked = self.asked.wrapping_add(1);
        IN_ORDER | u64::from(self.asked)
    }

    fn ask_in_order(&mut self, head: &mut Head) {
        if self.is_verbose {
            (head.kind, head.id) = (Kind::Request, self.ask());
        }
    }

    fn answer(&mut self) -> Option<u64> {
        let is_due = self.is_verbose && self.answered != self.asked;
        is_due.then(|| {
            self.answered = self.answered.wrapping_add(1);
            IN_ORDER | u64::from(self.answered)
        })
    }

    /// The id of what is answered at an inbox.
    fn asked_at(&self, inbox: u64) -> u64 {
        let asked = self.fetches.iter().take(self.fetched).find(|(at, _)| *at == inbox);
        asked.map_or(inbox, |(_, consumer)| *consumer)
    }

    fn response(&mut self, line: &Line, bytes: &[u8], head: &mut Head) {
        match line.verb {
            Verb::Pong if std::mem::take(&mut self.is_welcomed) => {
                (head.kind, head.id) = (Kind::Response, WELCOME);
            }
            Verb::Ping | Verb::Pong => head.kind = Kind::Heartbeat,
            Verb::Ok | Verb::Error => {
                let welcome = (line.verb == Verb::Error && self.is_welcomed).then_some(WELCOME);
                let answered = self.answer().or(welcome);
                head.kind = if answered.is_some() { Kind::Response } else { Kind::Push };
                head.id = answered.unwrap_or(0);
                if line.verb == Verb::Error {
                    self.is_welcomed &= welcome.is_none();
                    let (outcome, word) = line::error(bytes);
                    (head.outcome, head.said) = (outcome, Said::Word(word));
                }
            }
            Verb::Message => {
                head.kind = Kind::Push;
                let subject = line.subject.of(bytes).unwrap_or_default();
                let consumer = line.second.of(bytes).and_then(said_consumer);
                head.id = match consumer {
                    _ if self.is_verbose => return,
                    Some(consumer) if self.fetched > 0 => id_of(consumer),
                    _ if self.inboxes & bit_of(subject) == 0 => return,
                    _ => self.asked_at(id_of(subject)),
                };
                head.kind = Kind::Response;
                head.extra = line.headers();
                came_out(head, bytes);
            }
            _ => head.kind = Kind::Push,
        }
    }
}

/// The status of an answer that has one, in the first line of its headers.
fn came_out(head: &mut Head, bytes: &[u8]) {
    let headers = bytes.get(head.extra.at as usize..).unwrap_or_default();
    let end = memchr::memchr(b'\n', headers).unwrap_or(headers.len());
    let Some(code) = words(&headers[..end]).nth(1).filter(|_| head.extra.len > 0) else { return };
    let word = match code {
        b"100" => {
            // The server is there, and has nothing yet.
            head.kind = Kind::Heartbeat;
            return;
        }
        b"400" => "bad_request",
        // Nothing to be had is an answer.
        b"404" | b"408" => return,
        b"409" => "conflict",
        b"503" => "no_responders",
        _ => return,
    };
    (head.outcome, head.said) = (Outcome::AppError, Said::Word(word));
    head.status = code.iter().fold(0, |number, digit| 10 * number + i32::from(digit & 15));
}

/// Stream and consumer that a subject asks for a message.
fn asked_consumer(subject: &[u8]) -> Option<&[u8]> {
    let rest = subject.strip_prefix(JETSTREAM).map(|_| &subject[JETSTREAM.len() - 1..])?;
    let at = memchr::memmem::find(rest, NEXT_MESSAGE)?;
    Some(&rest[at + NEXT_MESSAGE.len()..])
}

/// Stream and consumer that a message is from, by the subject at which it is acknowledged:
/// `$JS.ACK.STREAM.CONSUMER.` and five numbers, with two more names before them and one word behind
/// in newer servers.
fn said_consumer(subject: &[u8]) -> Option<&[u8]> {
    let rest = subject.strip_prefix(ACKNOWLEDGE)?;
    let mut dots = memchr::memchr_iter(b'.', rest);
    let begin = if dots.clone().count() > 6 { dots.by_ref().nth(1)? + 1 } else { 0 };
    let end = dots.nth(1)?;
    rest.get(begin..end)
}

/// The subject, unless it was made up for one answer.
fn named(subject: Spot, bytes: &[u8]) -> Spot {
    let is_made_up = subject.of(bytes).is_none_or(|subject| subject.starts_with(INBOX));
    if is_made_up { Spot::default() } else { subject }
}

/// A number for a subject.
fn id_of(subject: &[u8]) -> u64 {
    hash(subject) & (WELCOME - 1)
}

/// A bit for all of a subject but its last part.
fn bit_of(subject: &[u8]) -> u64 {
    let end = memchr::memrchr(b'.', subject).unwrap_or(0);
    1 << (hash(&subject[..end]) >> 58)
}

/// FNV-1a, mixed once more so that its high bits are as good as the others.
fn hash(text: &[u8]) -> u64 {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
