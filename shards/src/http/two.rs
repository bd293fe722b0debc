//! HTTP/2 on a connection of an HTTP port: `netra_codecs::h2`, driven by the same two flows. The
//! request flow is gated: frames of fields go out with what the editor puts into them, all else as
//! it came. The response flow is tapped.

use super::{Http, lead};
use crate::{
    core::{Core, HttpCore},
    editor::{Asked, Done, Open, Over},
    error::{Direction, End},
    exchange::{Observer, Source},
    io::{Io, Token},
    look::{STREAMS_SHOWN, StreamView},
    sends::{Gated, is_long, send},
    sys::Nanos,
};
use netra_codecs::{
    codec::Way,
    h1::{Exchanges, HeadPatch, Reason, RequestHalf, ResponseHalf, ResponseHead},
    h2::{Http2, Section, Step, Stream, StreamEnd, Taken, mend},
    trace::{Outcome, SpanText, StreamFacts, is_grpc_error},
};
use netra_perf::{Key, Recorder};
use std::{net::SocketAddr, time::Duration};

/// Indexes in [`netra_perf::labels::HTTP2_EVENTS`].
const CONNECTION: usize = 0;
const FIELD_KEPT: usize = 1;
const STREAM_UNTOLD: usize = 2;
pub(crate) const GOODBYE: usize = 3;

/// Storage for what goes out that a shard keeps.
const OUT_BYTES_KEPT: usize = 64 * 1024;

/// What a gate has made of its input.
#[derive(Debug, Default)]
struct Passed {
    /// So much of it has been dealt with.
    taken: usize,
    /// So much of its beginning goes out as it is, before what is written elsewhere.
    plain: usize,
    /// The number of the first stream that began in it.
    first: Option<u32>,
    /// It waits for another upstream, and with it all that was sent before.
    is_elsewhere: bool,
}

impl Passed {
    /// Bytes go out as they came.
    #[inline]
    fn pass(&mut self, two: &Http2<Open>, input: &[u8], taken: Taken, out: &mut Vec<u8>) {
        if taken.is_held {
            self.begin_out(input, out);
            out.extend_from_slice(two.held(Way::Request));
        } else if out.is_empty() {
            self.plain += taken.consumed;
        } else {
            out.extend_from_slice(&input[self.taken..self.taken + taken.consumed]);
        }
        self.taken += taken.consumed;
    }

    /// From here on what goes out is written anew.
    fn begin_out(&self, input: &[u8], out: &mut Vec<u8>) {
        if out.is_empty() {
            out.extend_from_slice(&input[..self.plain]);
        }
    }
}

impl Http {
    /// What the connection is read as.
    pub(crate) fn name(&self) -> &'static str {
        if self.two.is_some() { "http2" } else { "http1" }
    }

    /// Streams of HTTP/2 that go on.
    pub(crate) fn stream_count(&self) -> usize {
        self.two.as_deref().map_or(0, Http2::open_count)
    }

    /// The client could be told now that there will be no further streams, and has not been.
    pub(crate) fn may_say_goodbye(&self) -> bool {
        let may = |two: &Http2<Open>| two.is_between_frames(Way::Response) && !two.is_going_away();
        self.two.as_deref().is_some_and(may)
    }

    /// The oldest of them.
    pub(crate) fn streams<I: Io>(&self, core: &Core<I>) -> Vec<StreamView> {
        let view = |stream: &Stream<Open>| {
            let record = stream.data.span.map(|open| core.observer.record(open));
            StreamView {
                id: stream.id,
                age: Duration::from_nanos(core.now.saturating_sub(stream.opened_ns)),
                path: record.and_then(|it| it.text(SpanText::Target)).unwrap_or(b"").to_vec(),
                is_grpc: stream.is_grpc,
                status: stream.status,
                bytes: stream.carried.map(|way| way.bytes),
                messages: stream.carried.map(|way| way.messages),
            }
        };
        let streams = self.two.iter().flat_map(|two| two.streams());
        streams.take(STREAMS_SHOWN).map(view).collect()
    }

    /// Whether bytes that a server sends first, before any request, are those of HTTP/2: a frame is
    /// never as long as that its first byte were another, and HTTP/1 has no such byte.
    pub(super) fn begins_two(&self, bytes: &[u8]) -> bool {
        let is_first = self.heads == 0 && self.exchanges.opened() == 0;
        let is_untouched = self.sealed().is_none() && self.response.held_len() == 0;
        is_first && is_untouched && bytes.first() == Some(&0)
    }

    /// A connection of a port that nothing names, whose client begins HTTP/2, and whose server has said
    /// this much before. None where nothing reads HTTP.
    #[cold]
    pub(crate) fn found_two<I: Io>(
        direction: Direction,
        remote: Option<SocketAddr>,
        said: &[u8],
        core: &mut Core<I>,
    ) -> Option<Self> {
        let Core { scratch, http: Some(shared), recorder, .. } = &mut *core else { return None };
        scratch.get_mut(..said.len())?.copy_from_slice(said);
        let mut http = Self::new(direction, remote, None);
        http.become_two(&[], shared, recorder);
        http.tap_two(core, Source::Scratch(said.len()), 0);
        Some(http)
    }

    /// Its client has begun HTTP/2: nothing of it says yet where it is to go, but its first request may lead it.
    #[cold]
    pub(super) fn begin_two(&mut self, held: &[u8], shared: &mut HttpCore, recorder: &Recorder) {
        self.become_two(held, shared, recorder);
        self.sent = self.may_lead(shared).then(Vec::new);
        self.switch.needs_any();
    }

    /// The connection is one of HTTP/2; so much of the client's preface is held.
    #[cold]
    pub(super) fn become_two(&mut self, held: &[u8], shared: &mut HttpCore, recorder: &Recorder) {
        (self.request, self.response) = (RequestHalf::new(), ResponseHalf::new());
        self.exchanges = Exchanges::new();
        recorder.bump(Key::http2(CONNECTION));
        let mut two = Box::new(Http2::new());
        let HttpCore { scratch, reader, .. } = shared;
        // Less than a preface: it is held on, or it is none, which the next step says.
        let _ = two.step(Way::Request, held, scratch, reader.limits(), 0);
        self.two = Some(two);
    }

    /// The server has granted what this request asked for: its answer comes as the first stream
    /// (RFC 7540 §3.2).
    #[cold]
    pub(super) fn upgrade_to_two(
        &mut self,
        asked: Done,
        shared: &mut HttpCore,
        recorder: &Recorder,
    ) {
        self.become_two(&[], shared, recorder);
        if let Some(two) = &mut self.two {
            two.open_first(asked.opened_ns, asked.data);
        }
    }

    /// Takes the input through the gate: what may go is sent in one call, what has not come whole is
    /// held.
    pub(super) fn gate_two<I: Io>(
        &mut self,
        core: &mut Core<I>,
        to: Token,
        source: Source,
    ) -> Result<Gated, End> {
        let Core { io, pool, scratch, http: Some(shared), observer, recorder, now, limits, .. } =
            core
        else {
            return Ok(Gated::default());
        };
        let input = source.bytes(pool, scratch);
        let passed = self.pass(input, *now, shared, observer, recorder);
        if passed.is_elsewhere {
            self.carry = self.sent.take().unwrap_or_default();
            self.carry.extend_from_slice(&shared.out);
            self.settle(shared, recorder);
            return Ok(Gated { taken: passed.taken, ..Gated::default() });
        }
        let out = &mut shared.out;
        // What nothing was put into goes out from where it is.
        let is_plain = out.is_empty();
        let bytes = if is_plain { &input[..passed.plain] } else { &out[..] };
        if self.sent.is_some() {
            self.keep_sent(bytes);
        }
        let sent = send(io, to, bytes)?;
        let is_full = sent < bytes.len();
        let taken = if is_plain && passed.plain == passed.taken {
            self.cleared = (bytes.len() - sent) as u64;
            sent
        } else {
            self.carry.extend_from_slice(&bytes[sent..]);
            passed.taken
        };
        if out.capacity() > OUT_BYTES_KEPT {
            *out = Vec::new();
        }
        if let (Some(first), Some(two)) = (passed.first, &mut self.two) {
            let took = io.now().saturating_sub(*now);
            self.overhead_ns += took;
            for stream in two.streams_from_mut(first) {
                stream.data.add_overhead(took);
            }
        }
        self.settle(shared, recorder);
        let is_long = is_long(self.request_passable(), limits.splice_from_bytes);
        Ok(Gated { taken, is_full, is_long })
    }
}

impl Http {
    /// Takes steps with the input; what is to go out is in [`HttpCore::out`], or is the beginning of
    /// the input.
    fn pass(
        &mut self,
        input: &[u8],
        now: Nanos,
        shared: &mut HttpCore,
        observer: &mut Observer,
        recorder: &Recorder,
    ) -> Passed {
        let mut passed = Passed::default();
        let (direction, remote) = (self.direction, self.remote);
        let Some(two) = self.two.as_deref_mut() else { return passed };
        let HttpCore { reader, patch, editor, scratch, out, .. } = shared;
        out.clear();
        loop {
            let rest = &input[passed.taken..];
            match two.step(Way::Request, rest, scratch, reader.limits(), now) {
                Step::Need => {
                    passed.taken = input.len();
                    return passed;
                }
                Step::Pass(taken) | Step::Response(taken, _) => {
                    // Another piece that was held has come whole: the next has a time of its own.
                    self.heads = self.heads.wrapping_add(taken.is_held.into());
                    passed.pass(two, input, taken, out);
                }
                Step::Request(taken, None) => {
                    recorder.bump(Key::http2(STREAM_UNTOLD));
                    passed.pass(two, input, taken, out);
                }
                Step::Request(taken, Some(id)) => {
                    self.heads = self.heads.wrapping_add(1);
                    let asked = Asked { is_http2: true, direction, remote, now, is_last: false };
                    if let Some(head) = scratch.section.request() {
                        let begun = editor.begin(&head, patch, asked, observer, recorder);
                        let (switch, has_said) = (&mut self.switch, two.has_begun(Way::Response));
                        let from = (&mut self.sent, has_said);
                        passed.is_elsewhere = lead::lead(switch, begun.target, from, recorder);
                        if let Some(stream) = two.stream_mut(id) {
                            stream.data = begun.open;
                        }
                    }
                    passed.first.get_or_insert(id);
                    passed.begin_out(input, out);
                    let held = two.held(Way::Request);
                    let frames = if taken.is_held { held } else { &rest[..taken.consumed] };
                    put_in(frames, &scratch.section, patch, two, out, recorder);
                    passed.taken += taken.consumed;
                }
                Step::Finished { taken, stream, end, .. } => {
                    let ended = Ended::of(end);
                    ended.tell(&stream, None, direction, now, (&mut *observer, recorder));
                    passed.pass(two, input, taken, out);
                }
                Step::Opaque(_, held) => {
                    passed.begin_out(input, out);
                    if two.held_len(Way::Request) > 0 {
                        out.extend_from_slice(two.held(Way::Request));
                    }
                    two.let_go(Way::Request);
                    passed.taken += held;
                    return passed;
                }
            }
            let is_over = passed.taken == input.len() && !two.has_pending(Way::Request);
            if is_over || passed.is_elsewhere {
                return passed;
            }
        }
    }

    /// Reads along with bytes of the response direction that have been sent, of which so many have
    /// been read otherwise. Returns whether a payload has begun of which so much is left that splicing pays.
    pub(super) fn tap_two<I: Io>(
        &mut self,
        core: &mut Core<I>,
        source: Source,
        read: usize,
    ) -> bool {
        let Core { io, pool, scratch, http: Some(shared), observer, recorder, now, limits, .. } =
            core
        else {
            return false;
        };
        let mut rest = &source.bytes(pool, scratch)[read..];
        let sent_at = io.now();
        let took = sent_at.saturating_sub(*now);
        let direction = self.direction;
        let Some(two) = self.two.as_deref_mut() else { return false };
        let HttpCore { reader, scratch, .. } = &mut **shared;
        let within = two.passable(Way::Response);
        loop {
            match two.step(Way::Response, rest, scratch, reader.limits(), sent_at) {
                Step::Need => break,
                Step::Pass(taken) | Step::Request(taken, _) => {
                    rest = &rest[taken.consumed..];
                    self.heads = self.heads.wrapping_add(taken.is_held.into());
                }
                Step::Response(taken, id) => {
                    rest = &rest[taken.consumed..];
                    self.heads = self.heads.wrapping_add(1);
                    self.overhead_ns += took;
                    if let Some(stream) = two.stream_mut(id) {
                        stream.data.add_overhead(took);
                    }
                }
                Step::Finished { taken, stream, end, has_fields } => {
                    rest = &rest[taken.consumed..];
                    let section = has_fields.then_some(&scratch.section);
                    let told = (&mut *observer, &**recorder);
                    Ended::of(end).tell(&stream, section, direction, sent_at, told);
                }
                Step::Opaque(..) => {
                    two.let_go(Way::Response);
                    break;
                }
            }
            if rest.is_empty() && !two.has_pending(Way::Response) {
                break;
            }
        }
        self.settle(shared, recorder);
        let passable = self.response_passable();
        passable > within && is_long(passable, limits.splice_from_bytes)
    }

    /// The downstream has ended its stream: what was held goes out as it came.
    pub(super) fn end_request_two<I: Io>(&mut self, core: &mut Core<I>) {
        let Core { http: Some(shared), recorder, .. } = core else { return };
        if let Some(two) = self.two.as_deref_mut().filter(|two| two.held_len(Way::Request) > 0) {
            self.carry.extend_from_slice(two.held(Way::Request));
            two.let_go(Way::Request);
            two.seal(Reason::EndedInHead);
        }
        self.settle(shared, recorder);
    }

    /// The streams that are open will not be finished.
    pub(super) fn give_up_two(
        &mut self,
        outcome: Outcome,
        now: Nanos,
        observer: &mut Observer,
        recorder: &Recorder,
    ) {
        let Some(two) = self.two.as_deref_mut() else { return };
        let ended = Ended { outcome, code: None };
        for stream in two.drain() {
            ended.tell(&stream, None, self.direction, now, (&mut *observer, recorder));
        }
    }

    /// Why the connection is opaque, or about to be.
    #[inline]
    pub(super) fn sealed(&self) -> Option<Reason> {
        match &self.two {
            Some(two) => two.sealed(),
            None => self.exchanges.sealed(),
        }
    }

    /// Makes it so. What is held of the response direction has mostly been sent, so that nobody else
    /// would let go of it.
    pub(super) fn seal(&mut self, reason: Reason) {
        if let Some(two) = &mut self.two {
            two.seal(reason);
            two.let_go(Way::Response);
            return;
        }
        self.exchanges.seal(reason);
        if self.response.held_len() > 0 {
            self.response.let_go();
            self.let_answer_go();
        }
    }

    /// The request direction is not looked at any more.
    #[inline]
    pub(super) fn request_is_opaque(&self) -> bool {
        match &self.two {
            Some(two) => two.is_opaque(Way::Request),
            None => self.request.is_opaque(),
        }
    }
}

/// Whether a server goes on in HTTP/2 behind this head.
#[inline]
pub(super) fn is_upgrade(head: &ResponseHead<'_>) -> bool {
    let is_h2c = |to: &[u8]| to.eq_ignore_ascii_case(b"h2c");
    head.status() == 101 && head.field(b"upgrade").is_some_and(is_h2c)
}

/// Writes the frames of a request with what the editor puts into it.
fn put_in(
    frames: &[u8],
    section: &Section,
    patch: &HeadPatch,
    two: &Http2<Open>,
    out: &mut Vec<u8>,
    recorder: &Recorder,
) {
    let mended = mend(frames, section, patch, two.server(), out);
    if mended.kept > 0 {
        recorder.add(Key::http2(FIELD_KEPT), mended.kept.into());
    }
    if mended.is_too_long {
        recorder.bump(Key::PATCH_FULL);
    }
}

/// How a stream has ended, as its span tells it.
#[derive(Clone, Copy, Debug)]
struct Ended {
    outcome: Outcome,
    code: Option<u32>,
}

impl Ended {
    fn of(end: StreamEnd) -> Self {
        match end {
            StreamEnd::Whole => Self { outcome: Outcome::Whole, code: None },
            StreamEnd::Deadline => Self { outcome: Outcome::Deadline, code: None },
            StreamEnd::Refused { code } => Self { outcome: Outcome::GoingAway, code: Some(code) },
            StreamEnd::Reset { by: Way::Request, code } => {
                Self { outcome: Outcome::DownstreamReset, code: Some(code) }
            }
            StreamEnd::Reset { by: Way::Response, code } => {
                Self { outcome: Outcome::UpstreamReset, code: Some(code) }
            }
        }
    }

    /// Counts the stream and hands its span over; `section` has its last fields.
    #[inline]
    fn tell(
        self,
        stream: &Stream<Open>,
        section: Option<&Section>,
        direction: Direction,
        now: Nanos,
        (observer, recorder): (&mut Observer, &Recorder),
    ) {
        let last = section.filter(|_| stream.is_grpc).map(Section::fields);
        let said = last.and_then(|fields| number(fields.named(b"grpc-status").next()?));
        if let Some(open) = stream.data.span {
            let span = observer.record_mut(open);
            let facts = StreamFacts {
                is_grpc: stream.is_grpc,
                grpc_status: said,
                messages: stream.carried.map(|way| way.messages),
                first_byte_ns: stream.first_ns.map_or(0, |at| at.saturating_sub(stream.opened_ns)),
                reset_code: self.code,
            };
            span.put_again(SpanText::Stream, &facts.to_bytes());
            let message = last.and_then(|fields| fields.named(b"grpc-message").next());
            if let Some(message) = message.filter(|message| !message.is_empty()) {
                span.put(SpanText::GrpcMessage, message);
            }
        }
        let is_server = direction == Direction::Inbound;
        let over = Over {
            data: &stream.data,
            status: stream.status,
            opened_ns: stream.opened_ns,
            bytes: stream.carried.map(|way| Some(way.bytes)),
            outcome: self.outcome,
            is_refused: said.is_some_and(|status| is_grpc_error(status, is_server)),
        };
        over.finish(direction, now, (observer, recorder));
    }
}

/// A short decimal number.
fn number(text: &[u8]) -> Option<u16> {
    let is_number = (1..=4).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| text.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}
