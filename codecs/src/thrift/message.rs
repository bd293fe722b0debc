//! The beginning of a message, in each of the encodings.

use crate::codec::{Head, Key, Kind, Outcome, Reason, Said, Spot, Way};

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// With a version before the name.
    Binary,
    /// The older form without.
    LaxBinary,
    /// Varints, and deltas for field ids.
    Compact,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Message {
    Partial,
    /// Where the struct begins that follows it.
    Head(usize),
    Bad(Reason),
}

pub(super) const OPERATIONS: &[&str] = &["call", "oneway"];
const CALL: u8 = 0;
const ONEWAY: u8 = 1;

/// A name longer than this is none.
const NAME_MAX: u32 = 4096;

const TYPE_CALL: u8 = 1;
const TYPE_REPLY: u8 = 2;
const TYPE_EXCEPTION: u8 = 3;
const TYPE_ONEWAY: u8 = 4;

/// What `TApplicationException` calls all else.
const INTERNAL_ERROR: u8 = 6;

/// Why nothing could be read.
#[derive(Clone, Copy, Debug)]
enum Lack {
    Bytes,
    Sense,
}

type Read<T> = Result<T, Lack>;

/// The beginning of a message: type, name, id.
#[derive(Clone, Copy, Debug)]
struct Begin {
    kind: u8,
    name: Spot,
    id: u32,
    end: usize,
}

/// Reads a message that begins at `at` into `head`, which is empty; of an answer also how it came
/// out. `is_all` says that no more bytes can be had.
#[inline]
pub(super) fn read(
    bytes: &[u8],
    at: usize,
    encoding: Encoding,
    way: Way,
    is_all: bool,
    head: &mut Head,
) -> Message {
    let begin = match encoding {
        Encoding::Binary => begin_binary(bytes, at),
        Encoding::LaxBinary => begin_lax(bytes, at),
        Encoding::Compact => begin_compact(bytes, at),
    };
    let begin = match begin {
        Ok(begin) => begin,
        Err(Lack::Bytes) => return Message::Partial,
        Err(Lack::Sense) => return Message::Bad(Reason::Malformed),
    };
    let name = begin.name.of(bytes).unwrap_or_default();
    let colon = memchr::memchr(b':', name).map_or(0, |at| at + 1);
    head.id = begin.id.into();
    head.note = hash(&name[colon..]);
    head.method = Spot::new(begin.name.at as usize + colon, name.len() - colon);
    if colon > 1 {
        head.service = Spot::new(begin.name.at as usize, colon - 1);
    }
    (head.kind, head.operation) = match (way, begin.kind) {
        (Way::Request, TYPE_CALL) => (Kind::Request, CALL),
        (Way::Request, TYPE_ONEWAY) => (Kind::Oneway, ONEWAY),
        (Way::Response, TYPE_REPLY | TYPE_EXCEPTION) => (Kind::Response, CALL),
        _ => return Message::Bad(Reason::Malformed),
    };
    match (way, begin.kind) {
        (Way::Response, TYPE_REPLY) => match first_field(bytes, begin.end, encoding) {
            Err(Lack::Bytes) => return Message::Partial,
            Err(Lack::Sense) => return Message::Bad(Reason::Malformed),
            Ok(0) => {}
            Ok(id) => {
                head.outcome = Outcome::AppError;
                head.status = id.into();
                head.said = Said::Word("exception");
            }
        },
        (Way::Response, _) => {
            let kind = match exception_type(bytes, begin.end, encoding) {
                Err(Lack::Bytes) if !is_all => return Message::Partial,
                Err(_) => 0,
                Ok(kind) => kind,
            };
            head.outcome = Outcome::ProtocolError;
            head.status = kind;
            head.said = Said::Word(exception_name(kind));
        }
        _ => {}
    }
    Message::Head(begin.end)
}

/// The parts of the name: `Service`, `:`, `method`, or the method alone.
pub(super) fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
    if head.kind == Kind::Response {
        return [b""; 3];
    }
    let method = head.method.of(bytes).unwrap_or_default();
    match head.service.of(bytes) {
        Some(service) => [service, b":", method],
        None => [method, b"", b""],
    }
}

pub(super) fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
    match key {
        Key::Service => head.service.of(bytes),
        Key::Method => head.method.of(bytes),
        _ => None,
    }
}

/// A varint, byte by byte.
pub(super) fn put_varint(mut value: u64, mut put: impl FnMut(u8)) {
    while value >= 0x80 {
        put((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    put((value & 0x7f) as u8);
}

/// `TApplicationException`, in answer to a request of this name and id: text and type, 6.
pub(super) fn put_exception(
    encoding: Encoding,
    (name, id): (&[u8], u32),
    text: impl Iterator<Item = u8> + Clone,
    out: &mut Vec<u8>,
) {
    let be32 = |len: usize| u32::try_from(len).unwrap_or(0).to_be_bytes();
    match encoding {
        Encoding::Binary => {
            out.extend([0x80, 0x01, 0, TYPE_EXCEPTION]);
            out.extend(be32(name.len()));
            out.extend(name);
            out.extend(id.to_be_bytes());
        }
        Encoding::LaxBinary => {
            out.extend(be32(name.len()));
            out.extend(name);
            out.push(TYPE_EXCEPTION);
            out.extend(id.to_be_bytes());
        }
        Encoding::Compact => {
            out.extend([0x82, TYPE_EXCEPTION << 5 | 1]);
            put_varint(id.into(), |byte| out.push(byte));
            put_varint(name.len() as u64, |byte| out.push(byte));
            out.extend(name);
            out.push(0x18);
            put_varint(text.clone().count() as u64, |byte| out.push(byte));
            out.extend(text);
            out.extend([0x15, 2 * INTERNAL_ERROR, 0]);
            return;
        }
    }
    out.extend([11, 0, 1]);
    out.extend(be32(text.clone().count()));
    out.extend(text);
    out.extend([8, 0, 2, 0, 0, 0, INTERNAL_ERROR, 0]);
}

/// A word for the name that an answer repeats; 0 for none, which agrees with any.
#[inline]
fn hash(name: &[u8]) -> u32 {
    if name.is_empty() {
        return 0;
    }
    let mixed = name
        .iter()
        .fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    mixed | 1
}

#[inline]
fn be32(bytes: &[u8], at: usize) -> Read<u32> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Lack::Bytes)?;
    Ok(u32::from_be_bytes(*word))
}

#[inline]
fn byte(bytes: &[u8], at: usize) -> Read<u8> {
    bytes.get(at).copied().ok_or(Lack::Bytes)
}

/// A name of `len` bytes at `at`, and where it ends.
#[inline]
fn name_at(bytes: &[u8], at: usize, len: u32) -> Read<(Spot, usize)> {
    if len > NAME_MAX {
        return Err(Lack::Sense);
    }
    let end = at + len as usize;
    if bytes.len() < end { Err(Lack::Bytes) } else { Ok((Spot::new(at, len as usize), end)) }
}

#[inline]
fn begin_binary(bytes: &[u8], at: usize) -> Read<Begin> {
    let version = be32(bytes, at)?;
    if version >> 16 != 0x8001 {
        return Err(Lack::Sense);
    }
    let (name, end) = name_at(bytes, at + 8, be32(bytes, at + 4)?)?;
    Ok(Begin { kind: (version & 0xff) as u8, name, id: be32(bytes, end)?, end: end + 4 })
}

fn begin_lax(bytes: &[u8], at: usize) -> Read<Begin> {
    let (name, end) = name_at(bytes, at + 4, be32(bytes, at)?)?;
    Ok(Begin { kind: byte(bytes, end)?, name, id: be32(bytes, end + 1)?, end: end + 5 })
}

fn begin_compact(bytes: &[u8], at: usize) -> Read<Begin> {
    let (protocol, kind) = (byte(bytes, at)?, byte(bytes, at + 1)?);
    if protocol != 0x82 || kind & 0x1f != 1 {
        return Err(Lack::Sense);
    }
    let (id, at) = varint(bytes, at + 2)?;
    let (len, at) = varint(bytes, at)?;
    let (name, end) = name_at(bytes, at, len)?;
    Ok(Begin { kind: kind >> 5, name, id, end })
}

/// A varint of 32 bits, and where it ends.
fn varint(bytes: &[u8], at: usize) -> Read<(u32, usize)> {
    let mut value = 0_u64;
    for place in 0..5 {
        let byte = byte(bytes, at + place)?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            let value = u32::try_from(value).map_err(|_| Lack::Sense)?;
            return Ok((value, at + place + 1));
        }
    }
    Err(Lack::Sense)
}

fn zigzag(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Whether the type is one of the encoding's; what is none is no Thrift.
fn check_type(kind: u8, encoding: Encoding) -> Read<()> {
    let is_one = match encoding {
        Encoding::Compact => matches!(kind, 1..=13),
        Encoding::Binary | Encoding::LaxBinary => matches!(kind, 2..=4 | 6 | 8 | 10..=16),
    };
    if is_one { Ok(()) } else { Err(Lack::Sense) }
}

/// The id of a result's first field: 0 for the value, and for nothing at all; else an exception.
#[inline]
fn first_field(bytes: &[u8], at: usize, encoding: Encoding) -> Read<i16> {
    let first = byte(bytes, at)?;
    if first == 0 {
        return Ok(0);
    }
    if encoding == Encoding::Compact {
        check_type(first & 0x0f, encoding)?;
        if first >> 4 != 0 {
            return Ok(i16::from(first >> 4));
        }
        let (id, _) = varint(bytes, at + 1)?;
        return i16::try_from(zigzag(id)).map_err(|_| Lack::Sense);
    }
    check_type(first, encoding)?;
    let id = bytes.get(at + 1..).and_then(|rest| rest.first_chunk()).ok_or(Lack::Bytes)?;
    Ok(i16::from_be_bytes(*id))
}

/// The type of a `TApplicationException { 1: string message, 2: i32 type }`; 0 where there is none.
fn exception_type(bytes: &[u8], at: usize, encoding: Encoding) -> Read<i32> {
    if encoding == Encoding::Compact {
        let mut at = at;
        if byte(bytes, at)? == 0x18 {
            let (len, begin) = varint(bytes, at + 1)?;
            at = begin + len as usize;
        }
        // The second field behind the first, or without it.
        let is_type = matches!(byte(bytes, at)?, 0x15 | 0x25);
        return if is_type { Ok(zigzag(varint(bytes, at + 1)?.0)) } else { Ok(0) };
    }
    let mut at = at;
    if field(bytes, at)? == [11, 0, 1] {
        at += 7 + be32(bytes, at + 3)? as usize;
    }
    let is_type = field(bytes, at)? == [8, 0, 2];
    if is_type { be32(bytes, at + 3).map(u32::cast_signed) } else { Ok(0) }
}

/// The type and the id of a field of the binary encoding; the end of a struct has no id.
fn field(bytes: &[u8], at: usize) -> Read<[u8; 3]> {
    if byte(bytes, at)? == 0 {
        return Ok([0; 3]);
    }
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Lack::Bytes)
}

/// What the types are called in Thrift's libraries; 11 is Facebook's.
fn exception_name(kind: i32) -> &'static str {
    match kind {
        1 => "unknown_method",
        2 => "invalid_message_type",
        3 => "wrong_method_name",
        4 => "bad_sequence_id",
        5 => "missing_result",
        6 => "internal_error",
        7 => "protocol_error",
        8 => "invalid_transform",
        9 => "invalid_protocol",
        10 => "unsupported_client_type",
        11 => "load_shedding",
        _ => "unknown",
    }
}
