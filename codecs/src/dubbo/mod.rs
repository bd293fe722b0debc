//! Dubbo 2: a head of 16 bytes, then a body that hessian2 wrote.
//!
//! <https://dubbo.apache.org/en/overview/reference/protocols/tcp/>:
//!
//! | bytes | what |
//! |---|---|
//! | 0-1 | `da bb` |
//! | 2 | 0x80 request, 0x40 answer wanted, 0x20 event, and the serialisation: 2 is hessian2 |
//! | 3 | status of a response, 20 is good |
//! | 4-11 | id |
//! | 12-15 | bytes of the body |
//!
//! The body of a request begins with four strings (version of Dubbo, interface, version of the
//! service, method) and a descriptor of the arguments; behind the arguments is a map, the
//! attachments, which are found when the whole frame was read. Another serialisation leaves the
//! head alone as certain. Events are heartbeats; a call of the server to the client (a callback)
//! has the same form the other way round.

mod hessian;
mod write;

use crate::codec::{
    About, CannotEdit, Convention, Correlation, Edits, Frame, FrameCodec, Framed, Head, Key, Kind,
    Outcome, Pair, Pairs, Reason, Refusal, Replied, Said, Speaks, Spot, Way,
};
use hessian::Reader;

/// The codec of Dubbo.
pub type Dubbo = Framed<DubboFrames>;

/// How Dubbo's frames are read.
#[derive(Debug)]
pub struct DubboFrames;

const HEAD_LEN: usize = 16;
const REQUEST: u8 = 0x80;
const TWO_WAY: u8 = 0x40;
const EVENT: u8 = 0x20;
const SERIALISATION: u8 = 0x1f;
const HESSIAN2: u8 = 2;
const STATUS_OK: u8 = 20;

const CALL: u8 = 0;
const ONEWAY: u8 = 1;
const HEARTBEAT: u8 = 2;
const CALLBACK: u8 = 3;

impl FrameCodec for DubboFrames {
    const ABOUT: &'static About = &About {
        name: "dubbo",
        operations: &["call", "oneway", "heartbeat", "callback"],
        port: 20880,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Unique,
        keys: &[Key::Service, Key::Method, Key::ServiceVersion, Key::Group, Key::ProtocolVersion],
        carries_context: true,
        convention: Convention::Rpc("dubbo"),
    };

    const EDITS: bool = true;
    const MOVES: bool = true;

    type Memory = ();

    #[inline]
    fn frame((): &(), _: Way, bytes: &[u8]) -> Frame {
        match bytes {
            [0xda, 0xbb, ..] => {}
            [0x16, 0x03, ..] => return Frame::Not(Reason::Tls),
            [] | [0xda | 0x16] => return Frame::Need(2),
            _ => return Frame::Not(Reason::NotThisProtocol),
        }
        match bytes.get(12..HEAD_LEN).and_then(|len| len.first_chunk()) {
            Some(len) => Frame::Total(HEAD_LEN as u64 + u64::from(u32::from_be_bytes(*len))),
            None => Frame::Need(HEAD_LEN),
        }
    }

    #[inline]
    fn head((): &mut (), way: Way, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
        let Some(start) = bytes.first_chunk::<HEAD_LEN>() else {
            return Err(Reason::Malformed);
        };
        let [_, _, flags, status, id @ .., _, _, _, _] = *start;
        head.id = u64::from_be_bytes(id);
        let is_request = flags & REQUEST != 0;
        if flags & EVENT != 0 {
            (head.kind, head.operation) = (Kind::Heartbeat, HEARTBEAT);
            return Ok(());
        }
        if is_request != (way == Way::Request) {
            (head.kind, head.operation) = (Kind::Callback, CALLBACK);
            return Ok(());
        }
        let is_read = flags & SERIALISATION == HESSIAN2;
        if !is_request {
            read_response(head, status, if is_read { bytes } else { start });
            return Ok(());
        }
        let answered = flags & TWO_WAY != 0;
        (head.kind, head.operation) =
            if answered { (Kind::Request, CALL) } else { (Kind::Oneway, ONEWAY) };
        if is_read {
            read_request(head, bytes);
        }
        Ok(())
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::Service => head.service.of(bytes),
            Key::Method => head.method.of(bytes),
            Key::ProtocolVersion if head.service.len > 0 => Reader::new(bytes, HEAD_LEN).string(),
            Key::ServiceVersion if head.service.len > 0 => {
                Reader::new(bytes, head.service.end()).string()
            }
            Key::Group => {
                let mut group = None;
                Self::pairs(head, bytes, &mut |(name, value)| {
                    if name == b"group" {
                        group = Some(value);
                    }
                });
                group
            }
            _ => None,
        }
    }

    /// The attachments.
    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        if let Some(mut reader) = attachments(head, bytes) {
            reader.pairs(take);
        }
    }

    /// The attachments, and the length of the body.
    fn edit(head: &Head, bytes: &[u8], pairs: &Pairs, edits: &mut Edits) -> Result<(), CannotEdit> {
        write::edit(head, bytes, pairs, edits)
    }

    fn reply(head: &Head, bytes: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        write::reply(head, bytes, refusal, out)
    }

    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        match (head.service.of(bytes), head.method.of(bytes)) {
            (Some(service), Some(method)) => [service, b"/", method],
            _ => [b""; 3],
        }
    }
}

/// Where the attachments begin.
fn attachments<'b>(head: &Head, bytes: &'b [u8]) -> Option<Reader<'b>> {
    if head.extra.at == 0 {
        return None;
    }
    let mut reader = Reader::new(bytes, head.extra.end());
    let values = match head.kind {
        Kind::Response => usize::from(head.note == VALUE_BEFORE_ATTACHMENTS),
        _ => arguments(head.extra.of(bytes).unwrap_or_default())?,
    };
    (0..values).try_for_each(|_| reader.skip())?;
    Some(reader)
}

/// In the note of a response: a value, or an exception, lies before its attachments.
const VALUE_BEFORE_ATTACHMENTS: u32 = 1;

/// The strings at the beginning, as far as they are there.
#[inline]
fn read_request(head: &mut Head, bytes: &[u8]) {
    let mut reader = Reader::new(bytes, HEAD_LEN);
    let Some(service) = reader.skip_string().and_then(|()| reader.string_spot()) else { return };
    let Some(method) = reader.skip_string().and_then(|()| reader.string_spot()) else { return };
    (head.service, head.method) = (service, method);
    head.extra = reader.string_spot().unwrap_or_default();
}

/// The body of a response: how it came out as an int of one byte, then a value.
#[inline]
fn read_response(head: &mut Head, status: u8, bytes: &[u8]) {
    head.kind = Kind::Response;
    head.status = status.into();
    if status != STATUS_OK {
        head.outcome = Outcome::ProtocolError;
        head.said = Said::Word(status_name(status));
        return;
    }
    let what = bytes.get(HEAD_LEN).copied().unwrap_or(0x91);
    if matches!(what, 0x93..=0x95) {
        // Only where attachments begin if there is no value.
        head.extra = Spot::new(HEAD_LEN + 1, 0);
        head.note = u32::from(what != 0x95) * VALUE_BEFORE_ATTACHMENTS;
    }
    if matches!(what, 0x90 | 0x93) {
        head.outcome = Outcome::AppError;
        let class = Reader::new(bytes, HEAD_LEN + 1).class_spot();
        head.said = class.map_or(Said::Word("exception"), Said::Spot);
    }
}

/// What the statuses are called:
/// `org.apache.dubbo.remoting.exchange.Response` of Apache Dubbo.
fn status_name(status: u8) -> &'static str {
    match status {
        25 => "serialization_error",
        30 => "client_timeout",
        31 => "server_timeout",
        35 => "channel_inactive",
        40 => "bad_request",
        50 => "bad_response",
        60 => "service_not_found",
        70 => "service_error",
        80 => "server_error",
        90 => "client_error",
        100 => "server_threadpool_exhausted",
        _ => "unknown",
    }
}

/// How many arguments a descriptor has, in the notation of the JVM: `ILjava/lang/String;[[J`.
fn arguments(descriptor: &[u8]) -> Option<usize> {
    let mut count = 0;
    let mut rest = descriptor;
    while let [first, after @ ..] = rest {
        rest = match first {
            b'[' => {
                if after.is_empty() {
                    return None;
                }
                rest = after;
                continue;
            }
            b'L' => {
                let end = memchr::memchr(b';', after)?;
                &after[end + 1..]
            }
            b'B' | b'C' | b'D' | b'F' | b'I' | b'J' | b'S' | b'Z' | b'V' => after,
            _ => return None,
        };
        count += 1;
    }
    Some(count)
}
