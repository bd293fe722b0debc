//! Apache Thrift: binary (strict and lax) and compact messages, in frames, in frames with headers
//! (THeader, and TTHeader of Kitex), or with nothing around them.
//!
//! <https://github.com/apache/thrift/blob/master/doc/specs/>: `thrift-binary-protocol`,
//! `thrift-compact-protocol`, `thrift-rpc`, `HeaderFormat`; TTHeader:
//! <https://www.cloudwego.io/docs/kitex/reference/transport-protocol-ttheader/>. The first bytes
//! of the first request say which of them the connection speaks.
//!
//! | what | where it is known from |
//! |---|---|
//! | method | the message; `Service:method` of a multiplexed server |
//! | oneway | the type of the message, 4 |
//! | declared exception | a reply whose first field is not 0: its id is the status |
//! | undeclared exception | the type of the message, 3: `TApplicationException`, its type the status |
//! | trace context | key and value in THeader or TTHeader |
//!
//! Ids are what clients make of them. Many send a constant 0, so that answers come in order; then
//! the name of the method has to agree as well.

mod header;
mod message;
mod unframed;
mod walk;

use crate::codec::{
    About, Asked, CannotEdit, Codec, Convention, Correlation, Edits, Event, Frame, FrameCodec,
    Framed, Head, Key, Kind, Pair, Pairs, Reason, Refusal, Replied, Speaks, Spot, Way,
};
use crate::limits::Limits;
use message::{Encoding, Message};
use unframed::Unframed;

/// What is around the messages of a connection, and how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A length before each.
    Framed(Encoding),
    /// A length, then headers.
    Header(header::Kind),
    /// Nothing.
    Unframed(Encoding),
}

impl Shape {
    /// How a head remembers it: the place of the codec's own, which is nowhere.
    fn mark(self) -> Spot {
        let at = match self {
            Self::Header(header::Kind::Apache) => 1,
            Self::Header(header::Kind::Kitex) => 2,
            Self::Framed(encoding) => 3 + encoding as u32,
            Self::Unframed(encoding) => 6 + encoding as u32,
        };
        Spot { at, len: 0 }
    }

    fn of(head: &Head) -> Option<Self> {
        let encoding = |place| match place {
            0 => Encoding::Binary,
            1 => Encoding::LaxBinary,
            _ => Encoding::Compact,
        };
        Some(match head.extra.at {
            1 => Self::Header(header::Kind::Apache),
            2 => Self::Header(header::Kind::Kitex),
            at @ 3..=5 => Self::Framed(encoding(at - 3)),
            at @ 6..=8 => Self::Unframed(encoding(at - 6)),
            _ => return None,
        })
    }
}

/// Info pairs of a header.
fn edit(head: &Head, bytes: &[u8], pairs: &Pairs, edits: &mut Edits) -> Result<(), CannotEdit> {
    match Shape::of(head) {
        Some(Shape::Header(kind)) => header::edit(kind, bytes, pairs, edits),
        _ => Err(CannotEdit::Never),
    }
}

/// An exception of the framework, around which is what was around its request.
fn reply(head: &Head, bytes: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
    let (Some(shape), Kind::Request) = (Shape::of(head), head.kind) else {
        return Replied::MustClose;
    };
    let begin = out.len();
    let mut inner = None;
    let encoding = match shape {
        Shape::Unframed(encoding) => encoding,
        Shape::Framed(encoding) => {
            out.extend([0; 4]);
            encoding
        }
        Shape::Header(kind) => {
            let Ok(payload) = header::payload(kind, bytes) else { return Replied::MustClose };
            out.extend([0; 4]);
            header::put_answer(kind, bytes, out);
            if payload.is_framed {
                inner = Some(out.len());
                out.extend([0; 4]);
            }
            payload.encoding
        }
    };
    let name = head.method.of(bytes).unwrap_or_default();
    let id = u32::try_from(head.id).unwrap_or(0);
    message::put_exception(encoding, (name, id), refusal.line(), out);
    let outer = (!matches!(shape, Shape::Unframed(_))).then_some(begin);
    for place in [outer, inner].into_iter().flatten() {
        let len = u32::try_from(out.len() - place - 4).unwrap_or(0);
        out[place..place + 4].copy_from_slice(&len.to_be_bytes());
    }
    Replied::Sent
}

/// Bytes at the beginning of a connection by which its shape is known.
const START_MAX: usize = 8;

/// The codec of Thrift.
#[derive(Debug, Default)]
pub struct Thrift {
    stream: Stream,
}

// One of them for each connection.
#[derive(Debug)]
enum Stream {
    /// The first bytes of the first request, while they do not say enough.
    Start {
        bytes: [u8; START_MAX],
        len: u8,
    },
    Framed(Framed<ThriftFrames>),
    /// Has more to remember than the others, and is rare.
    Unframed(Box<Unframed>),
}

impl Default for Stream {
    fn default() -> Self {
        Self::Start { bytes: [0; START_MAX], len: 0 }
    }
}

/// How Thrift's frames are read.
#[derive(Debug)]
pub struct ThriftFrames;

/// What is remembered of a connection.
#[derive(Debug, Default)]
pub struct ThriftMemory {
    shape: Option<Shape>,
}

static ABOUT: About = About {
    name: "thrift",
    operations: message::OPERATIONS,
    port: 9090,
    speaks: Speaks::ClientFirst,
    correlation: Correlation::Repeated,
    keys: &[Key::Service, Key::Method],
    carries_context: true,
    convention: Convention::Rpc("thrift"),
};

/// The shape of a connection whose client began with these bytes; how many it takes to say.
fn shape(bytes: &[u8]) -> Result<Shape, Frame> {
    match bytes {
        [] | [0x80 | 0x82 | 0x16] => return Err(Frame::Need(2)),
        [0x80, 0x01, ..] => return Ok(Shape::Unframed(Encoding::Binary)),
        [0x82, kind, ..] if kind & 0x1f == 1 => return Ok(Shape::Unframed(Encoding::Compact)),
        [0x16, 0x03, ..] => return Err(Frame::Not(Reason::Tls)),
        [0..=0x3f, ..] => {}
        _ => return Err(Frame::Not(Reason::NotThisProtocol)),
    }
    match bytes {
        [_, _, _, _, 0x80, 0x01, ..] => Ok(Shape::Framed(Encoding::Binary)),
        [_, _, _, _, 0x82, kind, ..] if kind & 0x1f == 1 => Ok(Shape::Framed(Encoding::Compact)),
        [_, _, _, _, 0x0f, 0xff, ..] => Ok(Shape::Header(header::Kind::Apache)),
        [_, _, _, _, 0x10, 0x00, ..] => Ok(Shape::Header(header::Kind::Kitex)),
        // No longer than 100 MiB, which is what implementations take: other protocols begin so as well.
        [0..=0x06, _, _, _, 0, 0, ..] => Ok(Shape::Framed(Encoding::LaxBinary)),
        // A name that is not in a frame: its length, then letters.
        [0, 0, _, _, first, ..] if first.is_ascii_alphabetic() || *first == b'_' => {
            Ok(Shape::Unframed(Encoding::LaxBinary))
        }
        [_, _, _, _, _, _, ..] => Err(Frame::Not(Reason::NotThisProtocol)),
        _ => Err(Frame::Need(6)),
    }
}

impl FrameCodec for ThriftFrames {
    const ABOUT: &'static About = &ABOUT;
    const EDITS: bool = true;
    const MOVES: bool = true;

    type Memory = ThriftMemory;

    #[inline]
    fn frame(_: &ThriftMemory, _: Way, bytes: &[u8]) -> Frame {
        match bytes.first_chunk() {
            Some(len) => match u32::from_be_bytes(*len) {
                0 => Frame::Not(Reason::Malformed),
                len => Frame::Total(4 + u64::from(len)),
            },
            None => Frame::Need(4),
        }
    }

    #[inline]
    fn head(
        memory: &mut ThriftMemory,
        way: Way,
        bytes: &[u8],
        head: &mut Head,
    ) -> Result<(), Reason> {
        let (encoding, at) = match memory.shape {
            Some(Shape::Framed(encoding)) => (encoding, 4),
            Some(Shape::Header(kind)) => {
                let payload = header::payload(kind, bytes)?;
                (payload.encoding, payload.at)
            }
            _ => return Err(Reason::NotThisProtocol),
        };
        match message::read(bytes, at, encoding, way, true, head) {
            Message::Head(_) => {
                head.extra = memory.shape.map_or(Spot::default(), Shape::mark);
                Ok(())
            }
            Message::Partial => Err(Reason::Malformed),
            Message::Bad(reason) => Err(reason),
        }
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        message::value(head, bytes, key)
    }

    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        header::pairs(head, bytes, take);
    }

    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        message::name(head, bytes)
    }

    fn edit(head: &Head, bytes: &[u8], pairs: &Pairs, edits: &mut Edits) -> Result<(), CannotEdit> {
        edit(head, bytes, pairs, edits)
    }

    fn reply(head: &Head, bytes: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        reply(head, bytes, refusal, out)
    }
}

impl Thrift {
    /// The first bytes of a connection.
    #[cold]
    fn start(&mut self, way: Way, input: &[u8], limits: &Limits, head: &mut Head) -> Event {
        let Stream::Start { bytes, len } = &mut self.stream else { return Event::Need };
        if way == Way::Response {
            return Event::Not(Reason::ServerFirst);
        }
        let before = usize::from(*len);
        let taken = input.len().min(START_MAX - before);
        bytes[before..before + taken].copy_from_slice(&input[..taken]);
        *len = u8::try_from(before + taken).unwrap_or(*len);
        let bytes = *bytes;
        match shape(&bytes[..before + taken]) {
            Err(Frame::Not(reason)) => return Event::Not(reason),
            Err(_) => return Event::Need,
            Ok(Shape::Unframed(encoding)) => {
                self.stream = Stream::Unframed(Box::new(Unframed::new(encoding)));
            }
            Ok(shape) => {
                let mut framed = Framed::<ThriftFrames>::default();
                framed.memory_mut().shape = Some(shape);
                self.stream = Stream::Framed(framed);
            }
        }
        // What came before is too short for a message.
        if before > 0
            && let Event::Not(reason) = self.advance(way, &bytes[..before], None, limits, head)
        {
            return Event::Not(reason);
        }
        self.advance(way, input, None, limits, head)
    }
}

impl Codec for Thrift {
    const ABOUT: &'static About = &ABOUT;
    const EDITS: bool = true;
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
        match &mut self.stream {
            Stream::Framed(framed) => framed.advance(way, input, asked, limits, head),
            Stream::Unframed(unframed) => unframed.advance(way, input, limits, head),
            Stream::Start { .. } => self.start(way, input, limits, head),
        }
    }

    fn passable(&self, way: Way) -> u64 {
        match &self.stream {
            Stream::Start { .. } => 0,
            Stream::Framed(framed) => framed.passable(way),
            Stream::Unframed(unframed) => unframed.passable(way),
        }
    }

    fn passed(&mut self, way: Way, count: u64) -> bool {
        match &mut self.stream {
            Stream::Start { .. } => false,
            Stream::Framed(framed) => framed.passed(way, count),
            Stream::Unframed(unframed) => unframed.passed(way, count),
        }
    }

    fn held_head(&self, way: Way) -> &[u8] {
        match &self.stream {
            Stream::Start { .. } => &[],
            Stream::Framed(framed) => framed.held_head(way),
            Stream::Unframed(unframed) => unframed.held_head(way),
        }
    }

    fn held(&self) -> usize {
        match &self.stream {
            Stream::Start { .. } => 0,
            Stream::Framed(framed) => framed.held(),
            Stream::Unframed(unframed) => unframed.held(),
        }
    }

    fn release_memory(&mut self) {
        match &mut self.stream {
            Stream::Start { .. } => {}
            Stream::Framed(framed) => framed.release_memory(),
            Stream::Unframed(unframed) => unframed.release_memory(),
        }
    }

    fn value<'b>(head: &Head, bytes: &'b [u8], key: Key) -> Option<&'b [u8]> {
        message::value(head, bytes, key)
    }

    fn pairs<'b>(head: &Head, bytes: &'b [u8], take: &mut dyn FnMut(Pair<'b>)) {
        header::pairs(head, bytes, take);
    }

    fn name<'b>(head: &Head, bytes: &'b [u8]) -> [&'b [u8]; 3] {
        message::name(head, bytes)
    }

    fn edit(head: &Head, bytes: &[u8], pairs: &Pairs, edits: &mut Edits) -> Result<(), CannotEdit> {
        edit(head, bytes, pairs, edits)
    }

    fn reply(head: &Head, bytes: &[u8], refusal: &Refusal<'_>, out: &mut Vec<u8>) -> Replied {
        reply(head, bytes, refusal, out)
    }
}
