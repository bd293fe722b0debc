//! brpc by its own protocol, `baidu_std`, and the streams that begin with a call of it.
//!
//! The document of the protocol is `baidu_std` in the English documentation of apache/brpc:
//!
//! | bytes | what |
//! |---|---|
//! | 0-3 | `PRPC`; of a frame of a stream, `STRM` |
//! | 4-7 | bytes that follow the head |
//! | 8-11 | bytes of the meta, which is the first part of them |
//!
//! The meta is a message of Protocol Buffers: `request` (1) has service (1) and method (2),
//! `response` (2) has an error's number (1), `correlation_id` (4) joins both. Arguments, results,
//! texts of errors and attachments are never looked at. A stream is agreed on by a call and its
//! answer; its frames are part of no exchange.

use crate::codec::{
    About, Convention, Correlation, Frame, FrameCodec, Framed, Head, Key, Kind, Outcome, Pair,
    Reason, Said, Speaks, Way,
};
use crate::protobuf::{Fields, Value};

/// The codec of brpc.
pub type Brpc = Framed<BrpcFrames>;

/// How frames of brpc are read.
#[derive(Debug)]
pub struct BrpcFrames;

const HEAD_LEN: usize = 12;

const REQUEST: u64 = 1;
const RESPONSE: u64 = 2;
const CORRELATION_ID: u64 = 4;

impl FrameCodec for BrpcFrames {
    const ABOUT: &'static About = &About {
        name: "brpc",
        operations: &["call"],
        port: 8000,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Unique,
        keys: &[Key::Service, Key::Method],
        carries_context: false,
        convention: Convention::Rpc("brpc"),
    };
    const MOVES: bool = true;

    /// Names and numbers come first.
    const HEAD_BYTES_MAX: u32 = 2048;

    type Memory = ();

    #[inline]
    fn frame((): &(), _: Way, bytes: &[u8]) -> Frame {
        match bytes {
            [b'P', b'R', b'P', b'C', ..] | [b'S', b'T', b'R', b'M', ..] => {}
            [0x16, 0x03, ..] => return Frame::Not(Reason::Tls),
            [0x16] => return Frame::Need(2),
            short if b"PRPC".starts_with(short) || b"STRM".starts_with(short) => {
                return Frame::Need(4);
            }
            _ => return Frame::Not(Reason::NotThisProtocol),
        }
        let number = |at: usize| {
            bytes.get(at..).and_then(|it| it.first_chunk()).map(|it| u32::from_be_bytes(*it))
        };
        match (number(4), number(8)) {
            (Some(body), Some(meta)) if meta <= body => {
                Frame::Total(HEAD_LEN as u64 + u64::from(body))
            }
            (_, Some(_)) => Frame::Not(Reason::Malformed),
            (_, None) => Frame::Need(HEAD_LEN),
        }
    }

    fn head((): &mut (), way: Way, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
        if bytes.first() == Some(&b'S') {
            head.kind = Kind::Part;
            return Ok(());
        }
        let mut meta = meta(bytes);
        let mut is_request = None;
        for (number, value) in meta.by_ref() {
            match number {
                REQUEST => {
                    is_request = Some(true);
                    read_request(head, bytes, value);
                }
                RESPONSE => {
                    is_request = is_request.or(Some(false));
                    read_response(head, bytes, value);
                }
                CORRELATION_ID => head.id = value.number(),
                _ => {}
            }
        }
        head.kind = match is_request {
            _ if meta.is_broken() => return Err(Reason::Malformed),
            Some(is_request) if is_request != (way == Way::Request) => Kind::Callback,
            Some(true) => Kind::Request,
            Some(false) => Kind::Response,
            // Of an answer without an error that part may be left out.
            None if way == Way::Response => Kind::Response,
            None => return Err(Reason::Malformed),
        };
        Ok(())
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::Service => head.service.of(bytes),
            Key::Method => head.method.of(bytes),
            _ => None,
        }
    }

    fn pairs<'b>(_: &Head, _: &'b [u8], _: &mut dyn FnMut(Pair<'b>)) {}

    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        match (head.service.of(bytes), head.method.of(bytes)) {
            (Some(service), Some(method)) => [service, b"/", method],
            _ => [b""; 3],
        }
    }
}

/// The fields of the meta, as far as they are there.
fn meta(bytes: &[u8]) -> Fields<'_> {
    let len = bytes
        .get(8..)
        .and_then(|len| len.first_chunk())
        .map_or(0, |len| usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX));
    Fields::new(bytes, HEAD_LEN, len)
}

fn read_request(head: &mut Head, bytes: &[u8], request: Value) {
    for (number, value) in Fields::within(bytes, request) {
        match number {
            1 => head.service = value.spot(),
            2 => head.method = value.spot(),
            _ => {}
        }
    }
}

fn read_response(head: &mut Head, bytes: &[u8], response: Value) {
    let error = Fields::within(bytes, response).find(|(number, _)| *number == 1);
    head.status = error.map_or(0, |(_, value)| value.int());
    if head.status != 0 {
        let (outcome, name) = error_of(head.status);
        (head.outcome, head.said) = (outcome, Said::Word(name));
    }
}

/// What the numbers of errors are called: `src/brpc/errno.proto` of Apache brpc. Other numbers are
/// the service's own.
fn error_of(number: i32) -> (Outcome, &'static str) {
    let name = match number {
        1001 => "ENOSERVICE",
        1002 => "ENOMETHOD",
        1003 => "EREQUEST",
        1004 => "ERPCAUTH",
        1005 => "ETOOMANYFAILS",
        1008 => "ERPCTIMEDOUT",
        1009 => "EFAILEDSOCKET",
        1010 => "EHTTP",
        1011 => "EOVERCROWDED",
        1014 => "EEOF",
        2001 => "EINTERNAL",
        2002 => "ERESPONSE",
        2003 => "ELOGOFF",
        2004 => "ELIMIT",
        2005 => "ECLOSE",
        _ => return (Outcome::AppError, "error"),
    };
    (Outcome::ProtocolError, name)
}
