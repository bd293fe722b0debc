//! tRPC: a head of 16 bytes, then a meta of Protocol Buffers, then a body.
//!
//! The document of the protocol is the "tRPC protocol design" of trpc-group/trpc:
//!
//! | bytes | what |
//! |---|---|
//! | 0-1 | `09 30` |
//! | 2 | 0 a call or its answer, 1 a frame of a stream |
//! | 3 | of a stream: 1 begins, 2 data, 3 room for more, 4 ends |
//! | 4-7 | bytes of the frame |
//! | 8-9 | bytes of the meta |
//! | 10-13 | id of the stream |
//!
//! The meta of a call has its id (3), the callee (6), the method (7) and a map (9), that of an answer
//! the framework's code (4), the method's own (5) and a map (8). A stream is one exchange, from the
//! client's first frame to the server's last one; what is between is part of none. Texts of errors
//! and bodies are never looked at.

use crate::codec::{
    About, Convention, Correlation, Frame, FrameCodec, Framed, Head, Key, Kind, Outcome, Pair,
    Reason, Said, Speaks, Spot, Way,
};
use crate::protobuf::{Fields, entry};

/// The codec of tRPC.
pub type Trpc = Framed<TrpcFrames>;

/// How frames of tRPC are read.
#[derive(Debug)]
pub struct TrpcFrames;

const HEAD_LEN: usize = 16;

/// What a stream's frame is for.
const INIT: u8 = 1;
const CLOSE: u8 = 4;

/// Ids of streams and of calls are different ones.
const OF_STREAM: u64 = 1 << 32;

const CALL: u8 = 0;
const ONEWAY: u8 = 1;
const STREAM: u8 = 2;

impl FrameCodec for TrpcFrames {
    const ABOUT: &'static About = &About {
        name: "trpc",
        operations: &["call", "oneway", "stream"],
        port: 8000,
        speaks: Speaks::ClientFirst,
        correlation: Correlation::Unique,
        keys: &[Key::Service, Key::Method],
        carries_context: true,
        convention: Convention::Rpc("trpc"),
    };
    const MOVES: bool = true;

    /// Names come first, and few things travel with a call.
    const HEAD_BYTES_MAX: u32 = 4096;

    type Memory = ();

    #[inline]
    fn frame((): &(), _: Way, bytes: &[u8]) -> Frame {
        match bytes {
            [0x09, 0x30, ..] => {}
            [0x16, 0x03, ..] => return Frame::Not(Reason::Tls),
            [] | [0x09 | 0x16] => return Frame::Need(2),
            _ => return Frame::Not(Reason::NotThisProtocol),
        }
        let Some(start) = bytes.first_chunk::<HEAD_LEN>() else { return Frame::Need(HEAD_LEN) };
        let [_, _, kind, frame, total @ .., _, _, _, _, _, _, _, _] = *start;
        let total = u64::from(u32::from_be_bytes(total));
        let is_frame = matches!((kind, frame), (0, _) | (1, INIT..=CLOSE));
        if !is_frame || total < HEAD_LEN as u64 + meta_len(start) as u64 {
            return Frame::Not(Reason::Malformed);
        }
        Frame::Total(total)
    }

    fn head((): &mut (), way: Way, bytes: &[u8], head: &mut Head) -> Result<(), Reason> {
        let Some(start) = bytes.first_chunk::<HEAD_LEN>() else { return Err(Reason::Malformed) };
        let [_, _, kind, frame, .., a, b, c, d, _, _] = *start;
        let len = meta_len(start);
        head.extra = Spot::new(HEAD_LEN, len);
        head.id = OF_STREAM | u64::from(u32::from_be_bytes([a, b, c, d]));
        let fields = Fields::new(bytes, HEAD_LEN, len);
        let is_whole = match (kind, frame, way) {
            (0, _, Way::Request) => read_request(head, fields),
            (0, _, Way::Response) => read_response(head, fields),
            (_, INIT, Way::Request) => read_stream(head, bytes, fields),
            (_, INIT, Way::Response) => read_accepted(head, bytes, fields),
            (_, CLOSE, Way::Response) => read_close(head, fields),
            _ => {
                head.kind = Kind::Part;
                true
            }
        };
        if is_whole { Ok(()) } else { Err(Reason::Malformed) }
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        match key {
            Key::Service => head.service.of(bytes),
            Key::Method => head.method.of(bytes),
            _ => None,
        }
    }

    /// What the framework and its users send along.
    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        let field = match head.kind {
            Kind::Request | Kind::Oneway => 9,
            Kind::Response => 8,
            Kind::Blocking => 5,
            _ => return,
        };
        let within = Fields::new(bytes, head.extra.at as usize, head.extra.len as usize);
        within
            .filter(|(number, _)| *number == field)
            .filter_map(|(_, value)| entry(bytes, value))
            .for_each(take);
    }

    /// `/trpc.helloworld.Greeter/Hello` is written without what it begins with.
    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        let method = head.method.of(bytes).unwrap_or_default();
        [method.strip_prefix(b"/").unwrap_or(method), b"", b""]
    }
}

/// How long the meta is.
fn meta_len(start: &[u8; HEAD_LEN]) -> usize {
    u16::from_be_bytes([start[8], start[9]]).into()
}

/// A call. Returns whether the fields are those of a message.
fn read_request(head: &mut Head, mut fields: Fields<'_>) -> bool {
    (head.kind, head.operation) = (Kind::Request, CALL);
    head.id = 0;
    for (number, value) in fields.by_ref() {
        match number {
            2 if value.number() == 1 => (head.kind, head.operation) = (Kind::Oneway, ONEWAY),
            3 => head.id = value.number() & (OF_STREAM - 1),
            6 => head.service = value.spot(),
            7 => head.method = value.spot(),
            _ => {}
        }
    }
    !fields.is_broken()
}

/// An answer.
fn read_response(head: &mut Head, mut fields: Fields<'_>) -> bool {
    head.kind = Kind::Response;
    head.id = 0;
    let (mut framework, mut method) = (0, 0);
    for (number, value) in fields.by_ref() {
        match number {
            3 => head.id = value.number() & (OF_STREAM - 1),
            4 => framework = value.int(),
            5 => method = value.int(),
            _ => {}
        }
    }
    came_out(head, framework, method);
    !fields.is_broken()
}

/// The client begins a stream.
fn read_stream(head: &mut Head, bytes: &[u8], mut fields: Fields<'_>) -> bool {
    // How long it lives says nothing about the server.
    (head.kind, head.operation) = (Kind::Blocking, STREAM);
    for (number, value) in fields.by_ref() {
        if number != 1 {
            continue;
        }
        head.extra = value.spot();
        for (number, value) in Fields::within(bytes, value) {
            match number {
                2 => head.service = value.spot(),
                3 => head.method = value.spot(),
                _ => {}
            }
        }
    }
    !fields.is_broken()
}

/// The server takes part in it, or will not.
fn read_accepted(head: &mut Head, bytes: &[u8], mut fields: Fields<'_>) -> bool {
    head.kind = Kind::Part;
    for (_, value) in fields.by_ref().filter(|(number, _)| *number == 2) {
        let code = Fields::within(bytes, value).find(|(number, _)| *number == 1);
        if let Some(code) = code.map(|(_, value)| value.int()).filter(|code| *code != 0) {
            head.kind = Kind::Response;
            came_out(head, code, 0);
        }
    }
    !fields.is_broken()
}

/// The server has ended it.
fn read_close(head: &mut Head, mut fields: Fields<'_>) -> bool {
    (head.kind, head.extra) = (Kind::Response, Spot::default());
    let (mut is_reset, mut framework, mut method) = (false, 0, 0);
    for (number, value) in fields.by_ref() {
        match number {
            1 => is_reset = value.number() == 1,
            2 => framework = value.int(),
            6 => method = value.int(),
            _ => {}
        }
    }
    came_out(head, framework, method);
    if is_reset && head.status == 0 {
        (head.outcome, head.said) = (Outcome::AppError, Said::Word("reset"));
    }
    !fields.is_broken()
}

fn came_out(head: &mut Head, framework: i32, method: i32) {
    if framework != 0 {
        head.status = framework;
        (head.outcome, head.said) = (Outcome::ProtocolError, Said::Word(code_name(framework)));
    } else if method != 0 {
        head.status = method;
        (head.outcome, head.said) = (Outcome::AppError, Said::Word("error"));
    }
}

/// What the framework's codes are called: `TrpcRetCode` of
/// <https://github.com/trpc-group/trpc/blob/main/trpc/trpc.proto>.
fn code_name(code: i32) -> &'static str {
    match code {
        1 => "server_decode",
        2 => "server_encode",
        11 => "no_service",
        12 => "no_func",
        21 => "server_timeout",
        22 => "server_overload",
        23 => "server_limited",
        24 => "server_full_link_timeout",
        31 => "server_system",
        41 => "server_auth",
        51 => "server_validate",
        201..=299 => "stream_server",
        301..=399 => "stream_client",
        999 => "unknown",
        _ => "other",
    }
}
