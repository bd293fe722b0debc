//! Both ways of a connection, its streams, and what one way says about the other.

use crate::codec::Way;
use crate::h1::Reason;
use crate::h2::frame::{FrameHead, HEAD_BYTES, PAYLOAD_BYTES_DEFAULT, flag, fragment, kind};
use crate::h2::section::Section;
use crate::h2::stream::{Stream, StreamEnd, Streams, timeout_ns};
use crate::h2::way::{Frames, Gathered, Taken};
use crate::limits::Limits;

/// What the connections of a shard share: room for a block and for its fields.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The fields that a step has told of last.
    pub section: Section,
    /// A block that came in several frames.
    block: Vec<u8>,
}

/// What the receiver of requests takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// The longest payload of a frame.
    pub frame_bytes_max: u32,
    /// The largest list of fields, counted as [`Section::list_bytes`].
    pub list_bytes_max: u32,
}

/// What the next bytes of a way were.
#[derive(Debug)]
#[must_use]
pub enum Step<T> {
    /// The whole input has been read and is held: nothing to send, come back with more.
    Need,
    /// These bytes say nothing that is told of.
    Pass(Taken),
    /// The fields of a request, in [`Scratch::section`], and its stream, which is open. None is told
    /// of where there are too many, or the request is none that is read.
    Request(Taken, Option<u32>),
    /// The fields of a response whose stream goes on.
    Response(Taken, u32),
    /// A stream is over.
    Finished {
        /// The bytes that ended it, perhaps none.
        taken: Taken,
        /// The stream, no longer open.
        stream: Stream<T>,
        /// How.
        end: StreamEnd,
        /// The fields of the response or its trailers are in [`Scratch::section`].
        has_fields: bool,
    },
    /// From here on bytes are bytes; so many of the input are held.
    Opaque(Reason, usize),
}

/// A connection of HTTP/2, read along; `T` is the caller's own for each stream.
#[derive(Debug)]
pub struct Http2<T> {
    ways: [Frames; 2],
    streams: Streams<T>,
    server: ServerSettings,
    sealed: Option<Reason>,
    /// The way has been told that bytes are bytes.
    is_opaque: [bool; 2],
    /// The last stream that the server looks at, and why, once it has said so.
    goaway: Option<(u32, u32)>,
    /// There are streams that nobody is told of, and may be still.
    has_untold: bool,
}

const NOTHING: Taken = Taken { consumed: 0, is_held: false };

impl<T> Http2<T> {
    /// The beginning of a connection: the client's preface comes first.
    pub fn new() -> Self {
        Self {
            ways: [Frames::new(Way::Request), Frames::new(Way::Response)],
            streams: Streams::new(),
            server: ServerSettings {
                frame_bytes_max: PAYLOAD_BYTES_DEFAULT,
                list_bytes_max: u32::MAX,
            },
            sealed: None,
            is_opaque: [false; 2],
            goaway: None,
            has_untold: false,
        }
    }

    fn way(&mut self, way: Way) -> &mut Frames {
        &mut self.ways[way as usize]
    }

    /// Reads `input`, the next bytes of the way; `now_ns` is when they came. Call again with what a
    /// step left over until it says [`Step::Need`]. An empty input is allowed: it is the way to get
    /// what has ended with bytes that passed, and what is held of a connection that was sealed.
    #[inline]
    pub fn step(
        &mut self,
        way: Way,
        input: &[u8],
        scratch: &mut Scratch,
        limits: &Limits,
        now_ns: u64,
    ) -> Step<T>
    where
        T: Default,
    {
        self.way(way).begin_step();
        if let Some(reason) = self.sealed {
            return self.turn_opaque(way, reason, 0);
        }
        if self.ways[way as usize].is_within_data() {
            return self.data(way, input, 0);
        }
        if way == Way::Response
            && let Some(refused) = self.refused()
        {
            return refused;
        }
        if input.is_empty() {
            return Step::Need;
        }
        if self.way(way).begins_data(input) {
            return self.data(way, input, HEAD_BYTES);
        }
        match self.way(way).gather(input, limits) {
            Ok(Gathered::Need) => Step::Need,
            Ok(Gathered::Payload(consumed)) => Step::Pass(Taken { consumed, is_held: false }),
            Ok(Gathered::Preface(taken)) => {
                self.way(way).spend();
                Step::Pass(taken)
            }
            Ok(Gathered::Frames(taken)) => {
                // What is held is lent for as long as it is read.
                let held = std::mem::take(&mut self.way(way).held);
                let bytes = if taken.is_held { &held[..] } else { &input[..taken.consumed] };
                let read = self.frames(way, bytes, scratch, limits, now_ns);
                self.way(way).held = held;
                match read {
                    Ok(Read::Data) if !taken.is_held => self.data(way, input, taken.consumed),
                    Ok(read) => {
                        if taken.is_held {
                            self.way(way).spend();
                        }
                        read.step(taken)
                    }
                    Err(reason) => {
                        let held = if taken.is_held { taken.consumed } else { 0 };
                        self.turn_opaque(way, reason, held)
                    }
                }
            }
            Err((reason, held)) => self.turn_opaque(way, reason, held),
        }
    }

    /// Payload of a DATA frame, and its end, behind so many bytes of its head.
    #[inline]
    fn data(&mut self, way: Way, input: &[u8], head: usize) -> Step<T> {
        let frames = &mut self.ways[way as usize];
        let input = &input[head..];
        let count = (frames.left as usize).min(input.len());
        if count > 0 {
            frames.left -= u32::try_from(count).unwrap_or(frames.left);
            if let Some(stream) = self.streams.get_mut(frames.stream) {
                stream.carried[way as usize].data(&input[..count], stream.is_grpc);
            }
        }
        let pad = match frames.left {
            0 => (frames.pad as usize).min(input.len() - count),
            _ => 0,
        };
        frames.pad -= u32::try_from(pad).unwrap_or(frames.pad);
        let taken = Taken { consumed: head + count + pad, is_held: false };
        if frames.left > 0 || frames.pad > 0 || !std::mem::take(&mut frames.ends) {
            return if taken.consumed == 0 { Step::Need } else { Step::Pass(taken) };
        }
        let id = frames.stream;
        match self.end(way, id, StreamEnd::Whole) {
            Some((stream, end)) => Step::Finished { taken, stream, end, has_fields: false },
            None => Step::Pass(taken),
        }
    }

    /// One side has ended the stream: of the client's, it is only taken note of.
    fn end(&mut self, way: Way, id: u32, end: StreamEnd) -> Option<(Stream<T>, StreamEnd)> {
        let place = self.streams.place(id)?;
        if way == Way::Request && end == StreamEnd::Whole {
            self.streams.get_mut(id)?.request_ended = true;
            return None;
        }
        Some((self.streams.close(place), end))
    }

    /// Frames that have come, as far as they are read.
    #[inline]
    fn frames(
        &mut self,
        way: Way,
        bytes: &[u8],
        scratch: &mut Scratch,
        limits: &Limits,
        now_ns: u64,
    ) -> Result<Read<T>, Reason>
    where
        T: Default,
    {
        let head = self.way(way).begin_frame(bytes)?;
        let payload = &bytes[HEAD_BYTES..];
        match head.kind {
            kind::DATA => Ok(Read::Data),
            kind::HEADERS | kind::PUSH_PROMISE => {
                self.block(way, head, bytes, scratch, limits)?;
                Ok(match (way, head.kind) {
                    (Way::Request, kind::HEADERS) => self.request(head, scratch, limits, now_ns),
                    (Way::Response, kind::HEADERS) => self.response(head, scratch, now_ns),
                    // What a server sends unasked is read for its fields alone.
                    _ => {
                        self.has_untold = true;
                        Read::Nothing
                    }
                })
            }
            kind::RST_STREAM => Ok(self.reset(way, head.stream, payload, now_ns)),
            kind::SETTINGS => {
                if way == Way::Response && !head.has(flag::ACK) {
                    self.settings(payload);
                }
                Ok(Read::Nothing)
            }
            kind::GOAWAY => {
                if let (Way::Response, Some((last, rest))) = (way, payload.split_first_chunk())
                    && let Some(code) = rest.first_chunk()
                {
                    let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
                    self.goaway = Some((last, u32::from_be_bytes(*code)));
                }
                Ok(Read::Nothing)
            }
            _ => Ok(Read::Nothing),
        }
    }

    /// Decodes a block of fields.
    fn block(
        &mut self,
        way: Way,
        head: FrameHead,
        bytes: &[u8],
        scratch: &mut Scratch,
        limits: &Limits,
    ) -> Result<(), Reason> {
        let Scratch { section, block } = scratch;
        let table = &mut self.ways[way as usize].table;
        let first = &bytes[HEAD_BYTES..];
        let decoded = if head.has(flag::END_HEADERS) {
            let (_, fields) = fragment(head, first).ok_or(Reason::Http2Frame)?;
            section.decode(fields, way, table, limits)
        } else {
            block.clear();
            let mut rest = bytes;
            while let Some(head) = FrameHead::read(rest) {
                let (frame, after) = rest.split_at(HEAD_BYTES + head.len as usize);
                let (_, fields) = fragment(head, &frame[HEAD_BYTES..]).ok_or(Reason::Http2Frame)?;
                block.extend_from_slice(fields);
                rest = after;
            }
            section.decode(block, way, table, limits)
        };
        decoded.map_err(|_| Reason::Http2Fields)
    }

    /// Fields that a client has sent: of a new request, or behind the body of one.
    fn request(
        &mut self,
        head: FrameHead,
        scratch: &Scratch,
        limits: &Limits,
        now_ns: u64,
    ) -> Read<T>
    where
        T: Default,
    {
        let ends = head.has(flag::END_STREAM);
        if !self.streams.is_new(head.stream) {
            if ends {
                self.end(Way::Request, head.stream, StreamEnd::Whole);
            }
            return Read::Nothing;
        }
        let is_full = self.streams.len() >= usize::from(limits.streams_max);
        let section = &scratch.section;
        if is_full || !section.is_request() {
            self.has_untold = true;
            return Read::Request(None);
        }
        let kind = section.content_type();
        let is_grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let timeout = section.grpc_timeout().filter(|_| is_grpc).and_then(timeout_ns);
        // The client's clock began before this one did: an eighth is given to the way here.
        let timeout = timeout.map(|timeout| timeout - timeout / 8);
        self.streams.open(Stream {
            id: head.stream,
            opened_ns: now_ns,
            first_ns: None,
            deadline_ns: timeout.map(|timeout| now_ns.saturating_add(timeout)),
            status: 0,
            is_grpc,
            request_ended: ends,
            carried: Default::default(),
            data: T::default(),
        });
        Read::Request(Some(head.stream))
    }

    /// Fields that a server has sent: of an interim response, of the final one, or behind its body.
    fn response(&mut self, head: FrameHead, scratch: &Scratch, now_ns: u64) -> Read<T> {
        let Some(stream) = self.streams.get_mut(head.stream) else { return Read::Nothing };
        stream.first_ns.get_or_insert(now_ns);
        if head.has(flag::END_STREAM) {
            if stream.status == 0 {
                stream.status = scratch.section.status();
            }
            return match self.end(Way::Response, head.stream, StreamEnd::Whole) {
                Some((stream, end)) => Read::Finished(stream, end, true),
                None => Read::Nothing,
            };
        }
        let status = scratch.section.status();
        if stream.status != 0 || status < 200 {
            return Read::Nothing;
        }
        stream.status = status;
        Read::Response(head.stream)
    }

    fn reset(&mut self, way: Way, id: u32, payload: &[u8], now_ns: u64) -> Read<T> {
        let code = payload.first_chunk().map_or(0, |code| u32::from_be_bytes(*code));
        let Some(stream) = self.streams.get_mut(id) else { return Read::Nothing };
        let is_late = stream.deadline_ns.is_some_and(|deadline| deadline <= now_ns);
        let end = match way {
            Way::Request if is_late && code == CANCEL => StreamEnd::Deadline,
            _ => StreamEnd::Reset { by: way, code },
        };
        match self.end(way, id, end) {
            Some((stream, end)) => Read::Finished(stream, end, false),
            None => Read::Nothing,
        }
    }

    /// What the server takes (RFC 9113 §6.5.2).
    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let &[a, b, c, d, e, f] = setting else { return };
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                5 if (PAYLOAD_BYTES_DEFAULT..1 << 24).contains(&value) => {
                    self.server.frame_bytes_max = value;
                }
                6 => self.server.list_bytes_max = value,
                _ => {}
            }
        }
    }

    /// A stream that the server will not look at.
    fn refused(&mut self) -> Option<Step<T>> {
        let (last, code) = self.goaway?;
        let stream = self.streams.close_above(last)?;
        let end = StreamEnd::Refused { code };
        Some(Step::Finished { taken: NOTHING, stream, end, has_fields: false })
    }

    #[cold]
    fn turn_opaque(&mut self, way: Way, reason: Reason, held: usize) -> Step<T> {
        let reason = self.seal(reason);
        self.is_opaque[way as usize] = true;
        Step::Opaque(reason, held)
    }

    /// Says that nothing more is read. The first reason stays; returns it.
    pub fn seal(&mut self, reason: Reason) -> Reason {
        *self.sealed.get_or_insert(reason)
    }

    /// Why nothing more is read, if that is so.
    pub fn sealed(&self) -> Option<Reason> {
        self.sealed
    }

    /// Whether the way has been told that bytes are bytes.
    pub fn is_opaque(&self, way: Way) -> bool {
        self.is_opaque[way as usize]
    }

    /// Frames of the way that are held, of which nothing has been said: of a gated way they have
    /// not been sent. With [`Taken::is_held`] it is what was told of last.
    pub fn held(&self, way: Way) -> &[u8] {
        &self.ways[way as usize].held
    }

    /// Bytes of them.
    pub fn held_len(&self, way: Way) -> usize {
        self.ways[way as usize].unsent().len()
    }

    /// Gives up what is held.
    pub fn let_go(&mut self, way: Way) {
        let frames = self.way(way);
        frames.spend();
        frames.begin_step();
    }

    /// Bytes of the way that may pass from here without being shown.
    pub fn passable(&self, way: Way) -> u64 {
        let frames = &self.ways[way as usize];
        if self.is_opaque(way) {
            return u64::MAX;
        }
        if frames.left == 0 {
            return 0;
        }
        let stream = self.streams.place(frames.stream).and_then(|at| self.streams.iter().nth(at));
        let within =
            stream.map_or(u64::MAX, |stream| stream.carried[way as usize].passable(stream.is_grpc));
        within.min(frames.left.into())
    }

    /// Takes note of bytes that passed without being shown, at most [`passable`](Self::passable).
    /// Take a step with an empty input after it.
    pub fn passed(&mut self, way: Way, count: u64) {
        if self.is_opaque(way) {
            return;
        }
        let frames = &mut self.ways[way as usize];
        frames.left = frames.left.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if let Some(stream) = self.streams.get_mut(frames.stream) {
            stream.carried[way as usize].passed(count);
        }
    }

    /// Opens the first stream of a connection that was upgraded: its request came as one of HTTP/1,
    /// and was whole.
    pub fn open_first(&mut self, opened_ns: u64, data: T) {
        if self.streams.is_new(1) {
            self.streams.open(Stream {
                id: 1,
                opened_ns,
                first_ns: None,
                deadline_ns: None,
                status: 0,
                is_grpc: false,
                request_ended: true,
                carried: Default::default(),
                data,
            });
        }
    }

    /// Whether a step with an empty input has something to say.
    #[inline]
    pub fn has_pending(&self, way: Way) -> bool {
        let frames = &self.ways[way as usize];
        let is_whole = frames.ends && frames.left == 0 && frames.pad == 0;
        is_whole || (way == Way::Response && self.goaway.is_some())
    }

    /// A stream that is open.
    pub fn stream_mut(&mut self, id: u32) -> Option<&mut Stream<T>> {
        self.streams.get_mut(id)
    }

    /// The streams from this number on that are open.
    pub fn streams_from_mut(&mut self, id: u32) -> impl Iterator<Item = &mut Stream<T>> {
        self.streams.begun_from(id)
    }

    /// The streams that are open, by number.
    pub fn streams(&self) -> impl Iterator<Item = &Stream<T>> {
        self.streams.iter()
    }

    /// The number of streams that are open.
    pub fn open_count(&self) -> usize {
        self.streams.len()
    }

    /// Takes the streams that will not be finished.
    pub fn drain(&mut self) -> impl Iterator<Item = Stream<T>> {
        self.streams.drain()
    }

    /// What the server takes.
    pub fn server(&self) -> ServerSettings {
        self.server
    }

    /// The server has said that it will take no further streams.
    pub fn is_going_away(&self) -> bool {
        self.goaway.is_some()
    }

    /// Something of the way has been seen.
    pub fn has_begun(&self, way: Way) -> bool {
        self.ways[way as usize].has_begun() || self.held_len(way) > 0
    }

    /// The way has begun and is between two frames: another one may be put in.
    pub fn is_between_frames(&self, way: Way) -> bool {
        self.sealed.is_none() && self.ways[way as usize].is_between()
    }

    /// Nothing is under way, as far as anybody knows: every stream has ended, and so has every frame.
    pub fn is_idle(&self) -> bool {
        let is_between = Way::BOTH.iter().all(|way| !self.ways[*way as usize].is_within());
        is_between && self.sealed.is_none() && self.streams.len() == 0 && !self.has_untold
    }

    /// Bytes of storage: tables, what is held, streams.
    pub fn storage(&self) -> usize {
        self.ways[0].storage() + self.ways[1].storage() + self.streams.held()
    }
}

impl<T> Default for Http2<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// RFC 9113 §7: the stream is no longer needed.
const CANCEL: u32 = 8;

/// What frames were.
enum Read<T> {
    Nothing,
    /// The head of one of DATA.
    Data,
    Request(Option<u32>),
    Response(u32),
    Finished(Stream<T>, StreamEnd, bool),
}

impl<T> Read<T> {
    #[inline]
    fn step(self, taken: Taken) -> Step<T> {
        match self {
            Self::Nothing | Self::Data => Step::Pass(taken),
            Self::Request(id) => Step::Request(taken, id),
            Self::Response(id) => Step::Response(taken, id),
            Self::Finished(stream, end, has_fields) => {
                Step::Finished { taken, stream, end, has_fields }
            }
        }
    }
}
