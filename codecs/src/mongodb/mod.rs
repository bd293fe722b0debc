//! MongoDB: messages that say their length and what they answer.
//!
//! <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>:
//!
//! | bytes | what |
//! |---|---|
//! | 0-3 | bytes of the message |
//! | 4-7 | its id |
//! | 8-11 | of an answer, the id of what it answers |
//! | 12-15 | opcode: 2013 `OP_MSG`, 2012 compressed, older ones |
//!
//! A command is a document, the first key of which is its name and mostly has the name of the
//! collection as value. Of all documents the names of elements are read, and of values those:
//! collection and database of a command, and the trace context in its comment; `ok`, `code`,
//! `codeName` of an answer.
//!
//! | what is not one question and one answer | how it is known |
//! |---|---|
//! | command that is not answered | its flag `moreToCome` |
//! | answer in many messages (exhaust) | the same flag; each answers the one before |
//! | `hello` that waits for news, and its answers | `exhaustAllowed` or `topologyVersion`: no exchange, but a heartbeat |
//! | what is compressed, of these | the flags are the first bytes: of snappy and of no compression they are there |
//! | `OP_INSERT`, `OP_UPDATE`, `OP_DELETE`, `OP_KILL_CURSORS` | are never answered |

mod bson;
mod commands;
mod refusals;

use crate::codec::{
    About, Convention, Correlation, Frame, FrameCodec, Framed, Head, Key, Kind, Outcome, Pair,
    Reason, Refusal, Replied, Said, Speaks, Spot, Way,
};
use crate::sql;
use crate::trace::may_be_trace;
use bson::{Element, Elements, cstring_end, document_len, u32_at};

/// The codec of MongoDB.
pub type Mongodb = Framed<MongodbMessages>;

/// How messages of MongoDB are read.
#[derive(Debug)]
pub struct MongodbMessages;

/// What is remembered of a connection.
#[derive(Debug, Default)]
pub struct Memory {
    has_begun: bool,
    /// The message whose answer is one to a `hello` that waits for news.
    awaited: Option<u32>,
    /// The message whose answer goes on with an answer, and the request of that.
    goes_on: Option<(u32, u32)>,
    /// The last command that was asked by `OP_QUERY`.
    queried: Option<u32>,
}

const HEAD_LEN: usize = 16;
/// No message is shorter, and servers take no longer ones.
const LENGTHS: std::ops::RangeInclusive<u32> = 16..=48_000_000;

const OP_REPLY: u32 = 1;
const OP_UPDATE: u32 = 2001;
const OP_INSERT: u32 = 2002;
const OP_QUERY: u32 = 2004;
const OP_GET_MORE: u32 = 2005;
const OP_DELETE: u32 = 2006;
const OP_KILL_CURSORS: u32 = 2007;
const OP_COMPRESSED: u32 = 2012;
const OP_MSG: u32 = 2013;

const CHECKSUM_PRESENT: u32 = 1;
const MORE_TO_COME: u32 = 1 << 1;
const EXHAUST_ALLOWED: u32 = 1 << 16;
/// Flags that have to be understood.
const REQUIRED: u32 = 0xffff;
/// In the flags of `OP_QUERY`: many answers.
const QUERY_EXHAUST: u32 = 1 << 6;

/// What the comment of a command carries: a context alone, pairs as in SQL's comments, or a document
/// of names and texts. It is beside the filter, or in it.
fn comments<'b>(elements: Elements<'b>, take: &mut dyn FnMut(Pair<'b>)) {
    for element in elements {
        match element.name {
            b"comment" | b"$comment" => comment(element, take),
            b"filter" | b"query" | b"q" => {
                let within = element.elements().into_iter().flatten();
                within.filter(|it| it.name == b"$comment").for_each(|it| comment(it, take));
            }
            _ => {}
        }
    }
}

fn comment<'b>(element: Element<'b>, take: &mut dyn FnMut(Pair<'b>)) {
    if let Some(context) = element.value().and_then(sql::context_of) {
        take((sql::TRACEPARENT, context));
    }
    for pair in element.elements().into_iter().flatten() {
        if let Some(value) = pair.value().filter(|_| may_be_trace(pair.name)) {
            take((pair.name, value));
        }
    }
}

/// The numbers at the beginning of a message.
struct Start {
    id: u32,
    answers: u32,
    opcode: u32,
}

impl FrameCodec for MongodbMessages {
    const ABOUT: &'static About = &About {
        name: "mongodb",
        operations: commands::NAMES,
        port: 27017,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Unique,
        keys: &[Key::Database],
        carries_context: true,
        convention: Convention::Db("mongodb"),
    };

    /// The command, its database and an error are at the beginning; what is kept of a head in pieces
    /// is no more.
    const HEAD_BYTES_MAX: u32 = 2048;

    type Memory = Memory;

    #[inline]
    fn frame(memory: &Memory, way: Way, bytes: &[u8]) -> Frame {
        if !memory.has_begun {
            match (way, bytes) {
                // As a length that would be longer than any first message.
                (_, [0x16, 0x03, 1..=4, ..]) => return Frame::Not(Reason::Tls),
                (Way::Response, _) => return Frame::Not(Reason::ServerFirst),
                (Way::Request, [0x16] | [0x16, 0x03]) => return Frame::Need(3),
                _ => {}
            }
        }
        let Some(total) = u32_at(bytes, 0) else { return Frame::Need(4) };
        if !LENGTHS.contains(&total) {
            return Frame::Not(Reason::NotThisProtocol);
        }
        match u32_at(bytes, 12) {
            None => Frame::Need(HEAD_LEN),
            Some(opcode) if is_known(way, opcode) => Frame::Total(total.into()),
            Some(_) => Frame::Not(Reason::NotThisProtocol),
        }
    }

    #[inline]
    fn head(memory: &mut Memory, way: Way, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
        memory.has_begun = true;
        let number = |at| u32_at(bytes, at).ok_or(Reason::Malformed);
        let total = number(0)?.into();
        let start = Start { id: number(4)?, answers: number(8)?, opcode: number(12)? };
        *head = match (way, start.opcode) {
            (_, OP_COMPRESSED) => compressed(way, &start, bytes),
            (Way::Request, OP_MSG) => request(memory, &start, bytes, total)?,
            (Way::Request, _) => old_request(memory, &start, bytes)?,
            (Way::Response, OP_MSG) => answer(memory, &start, bytes, total)?,
            (Way::Response, _) => old_answer(memory, &start, bytes),
        };
        Ok(())
    }

    /// The database of a command.
    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        if key != Key::Database || !head.kind.opens() {
            return None;
        }
        if head.service.len > 0 {
            return head.service.of(bytes);
        }
        let body = head.extra.at as usize;
        let found = Elements::new(bytes, body).find(|it| body > 0 && it.name == b"$db")?;
        found.text()?.of(bytes)
    }

    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if head.kind.opens() && head.extra.at > 0 {
            comments(Elements::new(bytes, head.extra.at as usize), take);
        }
    }

    fn reply(head: &Head, bytes: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        refusals::reply(head, bytes, refusal, out)
    }

    /// The command as it is listed, and the collection.
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        if !head.kind.opens() {
            return [b""; 3];
        }
        let name = commands::name(head.operation).as_bytes();
        match head.method.of(bytes) {
            Some(collection) => [name, b" ", collection],
            None => [name, b"", b""],
        }
    }
}

fn is_known(way: Way, opcode: u32) -> bool {
    match way {
        Way::Request => {
            matches!(
                opcode,
                OP_MSG | OP_COMPRESSED | OP_UPDATE | OP_INSERT | OP_QUERY..=OP_KILL_CURSORS
            )
        }
        Way::Response => matches!(opcode, OP_MSG | OP_COMPRESSED | OP_REPLY),
    }
}

/// What it is is not read, nor what an answer says; whether it is answered, where that can be seen.
fn compressed(way: Way, start: &Start, bytes: &[u8]) -> Head {
    match way {
        Way::Request => Head {
            kind: if is_never_answered(bytes) { Kind::Oneway } else { Kind::Request },
            operation: commands::COMPRESSED,
            id: start.id.into(),
            ..Head::default()
        },
        Way::Response => Head { kind: Kind::Response, id: start.answers.into(), ..Head::default() },
    }
}

/// Whether the message in a compressed one says that it wants no answer. Behind the head come its
/// opcode, its length, a byte for how it is compressed, and then itself.
fn is_never_answered(bytes: &[u8]) -> bool {
    const FLAGS_LEN: usize = 4;
    let Some((opcode, rest)) = u32_at(bytes, HEAD_LEN).zip(bytes.get(HEAD_LEN + 8..)) else {
        return false;
    };
    let flags = match rest {
        [0, plain @ ..] => u32_at(plain, 0),
        // <https://github.com/google/snappy/blob/main/format_description.txt>: the length, seven bits to
        // a byte; then what cannot be found before it is there as it is, behind a byte or more that say
        // how long it is. That is so of the first bytes.
        [1, packed @ ..] => {
            let len = packed.iter().take(5).position(|byte| *byte < 0x80);
            let begin = len.and_then(|len| packed.get(len + 1..)).unwrap_or_default();
            match begin {
                [tag, plain @ ..] if *tag & 3 == 0 && usize::from(*tag >> 2) + 1 >= FLAGS_LEN => {
                    let more = usize::from((*tag >> 2).saturating_sub(59));
                    u32_at(plain, more)
                }
                _ => None,
            }
        }
        _ => None,
    };
    match opcode {
        OP_MSG => flags.is_some_and(|flags| flags & MORE_TO_COME != 0),
        OP_INSERT | OP_UPDATE | OP_DELETE | OP_KILL_CURSORS => true,
        _ => false,
    }
}

/// The flags of `OP_MSG`, and where its body is; None when that is further behind than is read.
#[inline]
fn body(bytes: &[u8], total: u64) -> Result<(u32, Option<usize>), Reason> {
    let flags = u32_at(bytes, HEAD_LEN).ok_or(Reason::Malformed)?;
    if flags & REQUIRED & !(CHECKSUM_PRESENT | MORE_TO_COME) != 0 {
        return Err(Reason::Malformed);
    }
    let checksum = if flags & CHECKSUM_PRESENT != 0 { 4 } else { 0 };
    let end = total.checked_sub(checksum).ok_or(Reason::Malformed)?;
    let mut at = HEAD_LEN + 4;
    loop {
        let kind = match bytes.get(at) {
            Some(kind) if (at as u64) < end => *kind,
            // A message without body, or one that is too long to be read until there.
            _ if at as u64 >= end => return Err(Reason::Malformed),
            _ => return Ok((flags, None)),
        };
        let least = match kind {
            0 => 5,
            1 => 4,
            _ => return Err(Reason::Malformed),
        };
        let Some(len) = u32_at(bytes, at + 1) else {
            let is_cut = (bytes.len() as u64) < total && at as u64 + 5 <= end;
            return if is_cut { Ok((flags, None)) } else { Err(Reason::Malformed) };
        };
        let behind = at as u64 + 1 + u64::from(len);
        if len < least || behind > end {
            return Err(Reason::Malformed);
        }
        if kind == 0 {
            return Ok((flags, Some(at + 1)));
        }
        at += 1 + len as usize;
    }
}

fn request(memory: &mut Memory, start: &Start, bytes: &[u8], total: u64) -> Result<Head, Reason> {
    let (flags, body) = body(bytes, total)?;
    let mut head = Head { id: start.id.into(), ..Head::default() };
    if let Some(at) = body {
        read_command(&mut head, bytes, at);
    }
    let command = commands::flags(head.operation);
    let is_exhaust = flags & EXHAUST_ALLOWED != 0;
    head.kind = match command {
        _ if flags & MORE_TO_COME != 0 => Kind::Oneway,
        _ if command & commands::HELLO != 0 && (is_exhaust || waits(bytes, body)) => {
            memory.awaited = Some(start.id);
            Kind::Heartbeat
        }
        _ if command & commands::HANDSHAKE != 0 => Kind::Handshake,
        // How long the server may wait, or how fast the client takes, says nothing about it.
        commands::GET_MORE if is_exhaust || head.note > 0 => Kind::Blocking,
        _ if is_exhaust => Kind::Blocking,
        _ => Kind::Request,
    };
    head.note = 0;
    Ok(head)
}

/// Whether a `hello` is to be answered when something has changed.
fn waits(bytes: &[u8], body: Option<usize>) -> bool {
    let names = body.map(|at| Elements::new(bytes, at));
    names.is_some_and(|mut it| it.any(|element| element.name == b"topologyVersion"))
}

/// The command of the document at a place.
#[inline]
fn read_command(head: &mut Head, bytes: &[u8], at: usize) {
    head.extra = Spot::new(at, 1);
    let mut elements = Elements::new(bytes, at);
    let Some(mut first) = elements.next() else { return };
    if matches!(first.name, b"$query" | b"query")
        && let Some(inner) = first.elements().and_then(|mut inner| inner.next())
    {
        first = inner;
    }
    head.operation = commands::operation(first.name);
    let flags = commands::flags(head.operation);
    if flags & commands::COLLECTION != 0 {
        head.method = first.text().unwrap_or_default();
    } else if flags & commands::GET_MORE != 0 {
        for element in elements {
            match element.name {
                b"collection" => head.method = element.text().unwrap_or_default(),
                // Only of cursors that wait for more.
                b"maxTimeMS" => head.note = 1,
                _ => {}
            }
        }
    }
}

/// <https://www.mongodb.com/docs/manual/legacy-opcodes/>.
#[cold]
fn old_request(memory: &mut Memory, start: &Start, bytes: &[u8]) -> Result<Head, Reason> {
    let mut head = Head { id: start.id.into(), ..Head::default() };
    let (name, kind) = match start.opcode {
        OP_INSERT => ("insert", Kind::Oneway),
        OP_UPDATE => ("update", Kind::Oneway),
        OP_DELETE => ("delete", Kind::Oneway),
        OP_KILL_CURSORS => ("killCursors", Kind::Oneway),
        OP_GET_MORE => ("getMore", Kind::Request),
        _ => ("find", Kind::Request),
    };
    (head.operation, head.kind) = (commands::operation(name.as_bytes()), kind);
    if start.opcode == OP_KILL_CURSORS {
        return Ok(head);
    }
    let begin = HEAD_LEN + 4;
    let Some(end) = cstring_end(bytes, begin) else { return Err(Reason::Malformed) };
    let full = &bytes[begin..end - 1];
    let Some(dot) = memchr::memchr(b'.', full) else { return Err(Reason::Malformed) };
    head.service = Spot::new(begin, dot);
    let is_query = start.opcode == OP_QUERY;
    if is_query && u32_at(bytes, HEAD_LEN).is_some_and(|flags| flags & QUERY_EXHAUST != 0) {
        return Err(Reason::Unsupported);
    }
    if is_query && &full[dot + 1..] == b"$cmd" {
        (head.operation, memory.queried) = (commands::OTHER, Some(start.id));
        read_command(&mut head, bytes, end + 8);
        if commands::flags(head.operation) & commands::HANDSHAKE != 0 {
            head.kind = Kind::Handshake;
        }
        head.note = 0;
    } else {
        head.method = Spot::new(begin + dot + 1, full.len() - dot - 1);
    }
    Ok(head)
}

fn answer(memory: &mut Memory, start: &Start, bytes: &[u8], total: u64) -> Result<Head, Reason> {
    let (flags, body) = body(bytes, total)?;
    let has_more = flags & MORE_TO_COME != 0;
    let mut head = Head { kind: Kind::Response, id: start.answers.into(), ..Head::default() };
    if memory.awaited == Some(start.answers) {
        memory.awaited = has_more.then_some(start.id);
        head.kind = Kind::Heartbeat;
        return Ok(head);
    }
    if let Some((_, asked)) = memory.goes_on.filter(|(last, _)| *last == start.answers) {
        head.id = asked.into();
        memory.goes_on = None;
    }
    if has_more {
        let asked = u32::try_from(head.id).unwrap_or(start.answers);
        memory.goes_on = Some((start.id, asked));
        head.more = true;
        return Ok(head);
    }
    if let Some(at) = body {
        read_outcome(&mut head, bytes, at);
    }
    Ok(head)
}

/// `OP_REPLY`: flags, a cursor, two numbers, then documents.
#[cold]
fn old_answer(memory: &mut Memory, start: &Start, bytes: &[u8]) -> Head {
    let mut head = Head { kind: Kind::Response, id: start.answers.into(), ..Head::default() };
    let flags = u32_at(bytes, HEAD_LEN).unwrap_or(0);
    if memory.queried == Some(start.answers) {
        memory.queried = None;
        read_outcome(&mut head, bytes, HEAD_LEN + 20);
    }
    if flags & 3 != 0 && head.said == Said::Nothing {
        head.outcome = Outcome::AppError;
        let word = if flags & 1 != 0 { "cursor_not_found" } else { "query_failure" };
        head.said = Said::Word(word);
    }
    head
}

/// What is wrong.
#[derive(Default)]
struct Wrong {
    code: i32,
    name: Option<Spot>,
}

impl Wrong {
    fn read(elements: Elements<'_>) -> Self {
        let mut wrong = Self::default();
        for element in elements {
            match element.name {
                b"code" => wrong.code = element.int().unwrap_or(0),
                b"codeName" => wrong.name = element.text(),
                _ => {}
            }
        }
        wrong
    }
}

/// How a command came out: `ok`, or what is wrong with some of what was to be written.
#[inline]
fn read_outcome(head: &mut Head, bytes: &[u8], at: usize) {
    if document_len(bytes, at).is_none() {
        return;
    }
    let mut wrong = None;
    for element in Elements::new(bytes, at) {
        match element.name {
            b"ok" if element.is_zero() => {
                wrong = Some(Wrong::read(Elements::new(bytes, at)));
                break;
            }
            b"writeErrors" => {
                let first = element.elements().and_then(|mut it| it.next());
                wrong = first.and_then(|it| it.elements()).map(Wrong::read).or(wrong);
            }
            b"writeConcernError" if wrong.is_none() => {
                wrong = element.elements().map(Wrong::read);
            }
            _ => {}
        }
    }
    let Some(wrong) = wrong else { return };
    head.outcome = Outcome::AppError;
    head.status = wrong.code;
    let is_word = |spot: &Spot| {
        let name = spot.of(bytes).unwrap_or_default();
        !name.is_empty() && name.len() <= 63 && name.iter().all(u8::is_ascii_alphanumeric)
    };
    head.said = match wrong.name.filter(is_word) {
        Some(spot) => Said::Spot(spot),
        None => Said::Word(name_of(wrong.code)),
    };
}

/// Names of the codes that come without one.
fn name_of(code: i32) -> &'static str {
    match code {
        121 => "DocumentValidationFailure",
        11000 => "DuplicateKey",
        _ => "error",
    }
}
