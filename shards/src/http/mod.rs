//! HTTP/1 on a connection: the pure halves of `netra_codecs::h1`, driven by the two flows.
//!
//! The request flow is a *gate*: what it has received passes through [`Http::gate`], which holds
//! heads until they are whole and sends them edited; bodies pass as they came. The response flow
//! is *tapped*: bytes are sent first and shown to [`Http::tap`] after, which finishes exchanges.
//! Whatever is not certain makes the connection opaque, and then it is a relay of bytes.

mod editor;
mod spans;
pub(crate) mod switch;

pub(crate) use editor::{Editor, Sinks};

use crate::{
    buffers::BufferId,
    config::HttpConfig,
    correlate::Correlation,
    error::{Direction, End, taken},
    io::{Io, Token},
    shard::Core,
    sys::Nanos,
};
use editor::Asked;
use netra_codecs::{
    PortSet,
    h1::{
        Exchange, ExchangeId, Exchanges, Framing, HeadPatch, HeadReader, Reason, RequestHalf,
        RequestStep, ResponseHalf, ResponseStep,
    },
    trace::Outcome,
};
use netra_perf::{Gauge, Key, Recorder};
use spans::OpenSpan;
use std::{io::IoSlice, net::SocketAddr};
use switch::Switch;

/// What a shard has for all its HTTP connections.
#[derive(Debug)]
pub(crate) struct HttpCore {
    reader: HeadReader,
    patch: Box<HeadPatch>,
    pub(crate) editor: Editor,
    /// Bytes of heads that have not come whole, or not gone whole, of all connections.
    held_bytes: usize,
    held_bytes_max: usize,
}

impl HttpCore {
    /// For one of `shards` shards.
    pub(crate) fn new(
        config: &HttpConfig,
        shards: usize,
        correlation: Correlation,
        sinks: Sinks,
    ) -> Self {
        Self {
            reader: HeadReader::new(config.limits),
            patch: Box::new(HeadPatch::new()),
            editor: Editor::new(config, shards, correlation, sinks),
            held_bytes: 0,
            held_bytes_max: config.held_bytes_max,
        }
    }

    /// The ports whose connections are read as HTTP/1.
    pub(crate) fn ports(&self) -> PortSet {
        self.editor.config().ports.clone()
    }

    /// Bytes of heads that are held now.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Shows what is counted elsewhere.
    pub(crate) fn record(&self, recorder: &Recorder) {
        self.editor.record(recorder);
        recorder.set(Gauge::HeldBytes, self.held_bytes as u64);
    }
}

/// What an exchange carries from its request to its response.
#[derive(Debug, Default)]
pub(crate) struct Open {
    span: Option<OpenSpan>,
    /// Its record goes to the access log.
    is_logged: bool,
    /// What netra itself took so far.
    overhead_ns: Nanos,
    /// Index of the method among the label values.
    method: u8,
}

/// The HTTP state of one connection.
#[derive(Debug)]
pub(crate) struct Http {
    request: RequestHalf,
    response: ResponseHalf,
    exchanges: Exchanges<Open>,
    direction: Direction,
    /// Who is named as the other end in spans.
    remote: Option<SocketAddr>,
    /// The rest of an edited head, to be sent before anything else.
    carry: Vec<u8>,
    /// Bytes that may be sent as they are: gated already.
    cleared: u64,
    /// Bytes of heads that are held, as counted in [`HttpCore::held_bytes`].
    held_bytes: usize,
    /// Why the connection is opaque has been counted.
    is_counted: bool,
    /// What netra itself took of the heads so far.
    overhead_ns: Nanos,
    /// Another upstream is wanted, or being reached.
    switch: Switch,
}

/// Where bytes lie that are shown to a half.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// In a buffer of the pool.
    Buffer(BufferId),
    /// So many in the shard's scratch memory.
    Scratch(usize),
    /// Nowhere: only what the half itself holds is meant.
    Nothing,
}

/// What the gate did with the bytes it was shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gated {
    /// So many have been sent, or are held.
    pub(crate) taken: usize,
    /// The receiver took less than it was offered.
    pub(crate) is_full: bool,
    /// A body has begun of which so much is left that splicing pays.
    pub(crate) is_long: bool,
}

/// Pieces of an edited head that are sent in one call, and the body behind it.
const PIECES_MAX: usize = 2 * netra_codecs::h1::patch::EDITS_MAX + 2;
/// As many as nearly all have: what need not be cleared costs nothing.
const PIECES_USUAL: usize = 6;

impl Http {
    /// A connection that begins.
    pub(crate) fn new(direction: Direction, remote: Option<SocketAddr>) -> Self {
        Self {
            request: RequestHalf::new(),
            response: ResponseHalf::new(),
            exchanges: Exchanges::new(),
            direction,
            remote,
            carry: Vec::new(),
            cleared: 0,
            held_bytes: 0,
            is_counted: false,
            overhead_ns: 0,
            switch: Switch::default(),
        }
    }

    /// Takes one step with bytes of the request direction: sends what may go, holds what may not.
    pub(crate) fn gate<I: Io>(
        &mut self,
        core: &mut Core<I>,
        to: Token,
        source: Source,
    ) -> Result<Gated, End> {
        let Core { io, pool, scratch, http: Some(shared), recorder, now, limits, .. } = core else {
            return Ok(Gated::default());
        };
        let input = match source {
            Source::Buffer(buffer) => pool.bytes(buffer),
            Source::Scratch(len) => &scratch[..len],
            Source::Nothing => &[],
        };
        if self.cleared > 0 || self.request.is_opaque() {
            let most = if self.request.is_opaque() { u64::MAX } else { self.cleared };
            let len = input.len().min(usize::try_from(most).unwrap_or(usize::MAX));
            let sent = send(io, to, &input[..len])?;
            self.cleared = self.cleared.saturating_sub(sent as u64);
            return Ok(Gated { taken: sent, is_full: sent < len, is_long: false });
        }
        let now = *now;
        let HttpCore { reader, patch, editor, .. } = &mut **shared;
        let gated = match self.request.step(input, reader, &mut self.exchanges, now) {
            RequestStep::Need => Gated { taken: input.len(), ..Gated::default() },
            RequestStep::Forward(len) => {
                let sent = send(io, to, &input[..len])?;
                self.cleared = (len - sent) as u64;
                Gated { taken: sent, is_full: sent < len, is_long: false }
            }
            RequestStep::Opaque { held, .. } => {
                let sent = send(io, to, held)?;
                self.carry.extend_from_slice(&held[sent..]);
                Gated { taken: 0, is_full: sent < held.len(), is_long: false }
            }
            RequestStep::Head { head, consumed, exchange, .. } => {
                let asked = Asked { direction: self.direction, remote: self.remote, now };
                let begun = editor.begin(&head, patch, asked, recorder);
                let is_elsewhere = begun.target.is_some_and(|to| self.switch.wants(to, exchange));
                // Before anything is sent: where that fails, the span is to be found.
                if let Some(exchange) = self.exchanges.get_mut(exchange) {
                    exchange.data = begun.open;
                }
                // The part of the body that came with the head goes out with it.
                let body = match head.framing() {
                    Framing::Length(len) => usize::try_from(len).unwrap_or(usize::MAX),
                    Framing::Chunked | Framing::UntilClose => 0,
                };
                let body = &input[consumed..][..body.min(input.len() - consumed)];
                let head_len = patch.patched_len(head.bytes().len());
                let sent =
                    if is_elsewhere { 0 } else { send_head(io, to, patch, head.bytes(), body)? };
                if sent < head_len {
                    keep_rest(&mut self.carry, patch, head.bytes(), sent);
                }
                let body_sent = sent.saturating_sub(head_len);
                self.request.passed(body.len() as u64, &mut self.exchanges, now);
                self.cleared = (body.len() - body_sent) as u64;
                let took = io.now().saturating_sub(now);
                self.overhead_ns += took;
                if let Some(exchange) = self.exchanges.get_mut(exchange) {
                    exchange.data.overhead_ns = took;
                }
                Gated {
                    taken: consumed + body_sent,
                    is_full: !is_elsewhere && sent < head_len + body.len(),
                    is_long: is_long(self.request.passable(), limits.splice_from_bytes),
                }
            }
        };
        self.settle(shared, recorder);
        Ok(gated)
    }

    /// Reads along with bytes of the response direction that have been sent. Returns whether a
    /// body has begun of which so much is left that splicing pays.
    pub(crate) fn tap<I: Io>(&mut self, core: &mut Core<I>, source: Source) -> bool {
        let Core { io, pool, scratch, http: Some(shared), recorder, now, limits, .. } = core else {
            return false;
        };
        let mut rest = match source {
            Source::Buffer(buffer) => pool.bytes(buffer),
            Source::Scratch(len) => &scratch[..len],
            Source::Nothing => &[],
        };
        let mut has_begun = false;
        // The bytes have been sent by now: that is when a response is whole.
        let sent_at = io.now();
        loop {
            let HttpCore { reader, editor, .. } = &mut **shared;
            match self.response.step(rest, reader, &mut self.exchanges, sent_at) {
                ResponseStep::Need | ResponseStep::Opaque(_) => break,
                ResponseStep::Body(len) => rest = &rest[len..],
                ResponseStep::Head { consumed, exchange, .. } => {
                    rest = &rest[consumed..];
                    has_begun = true;
                    let took = sent_at.saturating_sub(*now);
                    self.overhead_ns += took;
                    if let Some(exchange) = self.exchanges.get_mut(exchange) {
                        exchange.data.overhead_ns += took;
                    }
                }
                ResponseStep::Finish(done) => {
                    editor.finish(&done, Outcome::Whole, self.direction, sent_at, recorder);
                    // As nearly always: no further step would find anything.
                    if rest.is_empty() && self.exchanges.sealed().is_none() {
                        break;
                    }
                }
            }
        }
        self.settle(shared, recorder);
        has_begun && is_long(self.response.passable(), limits.splice_from_bytes)
    }

    /// What netra itself took of its heads.
    pub(crate) fn overhead_ns(&self) -> Nanos {
        self.overhead_ns
    }

    /// Bytes of the request direction that may pass from here without being shown.
    pub(crate) fn request_passable(&self) -> u64 {
        self.cleared.saturating_add(self.request.passable())
    }

    /// Bytes of the response direction that may pass from here without being shown.
    pub(crate) fn response_passable(&self) -> u64 {
        self.response.passable()
    }

    /// Bytes of the request direction have passed.
    pub(crate) fn request_passed(&mut self, count: u64, now: Nanos) {
        let cleared = count.min(self.cleared);
        self.cleared -= cleared;
        self.request.passed(count - cleared, &mut self.exchanges, now);
    }

    /// Bytes of the response direction have passed.
    pub(crate) fn response_passed<I: Io>(&mut self, core: &mut Core<I>, count: u64) {
        self.response.passed(count, &mut self.exchanges);
        self.tap(core, Source::Nothing);
    }

    /// Part of an edited head waits to be sent.
    pub(crate) fn has_carry(&self) -> bool {
        !self.carry.is_empty()
    }

    /// Sends what is left of an edited head.
    pub(crate) fn send_carry<I: Io>(
        &mut self,
        core: &mut Core<I>,
        to: Token,
    ) -> Result<Gated, End> {
        let Core { io, http: Some(shared), recorder, .. } = core else {
            return Ok(Gated::default());
        };
        let sent = send(io, to, &self.carry)?;
        self.carry.drain(..sent);
        if self.carry.is_empty() {
            self.carry = Vec::new();
        }
        self.settle(shared, recorder);
        Ok(Gated { is_full: self.has_carry(), ..Gated::default() })
    }

    /// The tap has turned opaque, and the gate still holds what it has to send.
    pub(crate) fn must_let_go(&self) -> bool {
        self.exchanges.sealed().is_some() && !self.request.is_opaque()
    }

    /// Names the upstream that was dialled in the span of the request that waits for it.
    fn name_remote<I: Io>(&mut self, core: &mut Core<I>) {
        let Core { http: Some(shared), .. } = core else { return };
        if let Some(front) = self.exchanges.front_mut() {
            shared.editor.dialled(&front.data, self.remote);
        }
    }

    /// Nothing is left to do: from here on the connection is bytes.
    pub(crate) fn is_over(&self) -> bool {
        let is_opaque = self.request.is_opaque() && self.response.is_opaque();
        is_opaque && self.carry.is_empty() && !self.is_switching()
    }

    /// The upstream is being changed: nothing may be sent to it.
    pub(crate) fn is_switching(&self) -> bool {
        self.switch.is_under_way()
    }

    /// The downstream has ended its stream: what was held of a head goes out as it came.
    pub(crate) fn end_request<I: Io>(&mut self, core: &mut Core<I>) {
        let held = self.request.end(&mut self.exchanges);
        self.carry.extend_from_slice(held);
        let Core { http: Some(shared), recorder, .. } = core else { return };
        self.settle(shared, recorder);
    }

    /// The upstream has ended its stream: a response may be whole by that, all others never will.
    pub(crate) fn end_response<I: Io>(&mut self, core: &mut Core<I>) {
        let Core { http: Some(shared), recorder, now, .. } = core else { return };
        if let Some(done) = self.response.end(&mut self.exchanges, *now) {
            shared.editor.finish(&done, Outcome::Whole, self.direction, *now, recorder);
        }
        self.give_up(shared, Outcome::UpstreamGone, *now, recorder);
    }

    /// The connection has ended, or is no longer HTTP: exchanges that are open will not be
    /// finished.
    pub(crate) fn end<I: Io>(&mut self, core: &mut Core<I>, outcome: Outcome) {
        let Core { http: Some(shared), recorder, now, .. } = core else { return };
        self.give_up(shared, outcome, *now, recorder);
        shared.held_bytes -= std::mem::take(&mut self.held_bytes);
        self.carry = Vec::new();
    }

    /// The connection is no longer HTTP.
    pub(crate) fn into_opaque<I: Io>(mut self, core: &mut Core<I>) {
        self.end(core, Outcome::Opaque);
    }

    fn give_up(
        &mut self,
        shared: &mut HttpCore,
        outcome: Outcome,
        now: Nanos,
        recorder: &Recorder,
    ) {
        for open in self.exchanges.drain() {
            shared.editor.finish(&open, outcome, self.direction, now, recorder);
        }
    }

    fn count_held(&mut self, shared: &mut HttpCore) {
        let held = self.request.held_len() + self.response.held_len() + self.carry.len();
        shared.held_bytes = shared.held_bytes - self.held_bytes + held;
        self.held_bytes = held;
    }

    /// Counts what the last step has changed, and stops holding where too much is held.
    #[inline]
    fn settle(&mut self, shared: &mut HttpCore, recorder: &Recorder) {
        let held = self.request.held_len() + self.response.held_len() + self.carry.len();
        if held != self.held_bytes || self.exchanges.sealed().is_some() {
            self.settle_change(shared, recorder);
        }
    }

    fn settle_change(&mut self, shared: &mut HttpCore, recorder: &Recorder) {
        let before = self.held_bytes;
        // What is carried has to be sent: it counts, but nothing is won by holding no more.
        let may_stop = self.carry.is_empty();
        self.count_held(shared);
        if self.held_bytes > before && may_stop && shared.held_bytes > shared.held_bytes_max {
            self.exchanges.seal(Reason::HeldTooMuch);
            if self.response.held_len() > 0 {
                // These bytes have long been sent, so nobody else would let go of them.
                self.response.let_go();
                self.count_held(shared);
            }
        }
        if let Some(reason) = self.exchanges.sealed()
            && !std::mem::replace(&mut self.is_counted, true)
        {
            recorder.bump(Key::opaque(reason as usize));
        }
    }
}

/// A body that is long enough for splicing from its beginning.
fn is_long(passable: u64, splice_from_bytes: u32) -> bool {
    splice_from_bytes > 0 && passable != u64::MAX && passable >= splice_from_bytes.into()
}

/// Sends what the socket takes of `bytes`.
fn send(io: &mut impl Io, to: Token, bytes: &[u8]) -> Result<usize, End> {
    if bytes.is_empty() {
        return Ok(0);
    }
    taken(io.send(to, bytes), to.side)
}

/// Sends an edited head and the body behind it in one call.
fn send_head(
    io: &mut impl Io,
    to: Token,
    patch: &HeadPatch,
    head: &[u8],
    body: &[u8],
) -> Result<usize, End> {
    if patch.pieces_max() < PIECES_USUAL {
        send_pieces::<PIECES_USUAL>(io, to, patch, head, body)
    } else {
        send_pieces::<PIECES_MAX>(io, to, patch, head, body)
    }
}

fn send_pieces<const MAX: usize>(
    io: &mut impl Io,
    to: Token,
    patch: &HeadPatch,
    head: &[u8],
    body: &[u8],
) -> Result<usize, End> {
    let mut pieces = [IoSlice::new(&[]); MAX];
    let mut count = 0;
    for piece in patch.pieces(head) {
        pieces[count] = IoSlice::new(piece.bytes());
        count += 1;
    }
    if !body.is_empty() {
        pieces[count] = IoSlice::new(body);
        count += 1;
    }
    taken(io.send_pieces(to, &pieces[..count]), to.side)
}

/// Keeps what is left of an edited head after `sent` bytes.
fn keep_rest(carry: &mut Vec<u8>, patch: &HeadPatch, head: &[u8], sent: usize) {
    let mut skip = sent;
    for piece in patch.pieces(head) {
        let bytes = piece.bytes();
        let from = skip.min(bytes.len());
        skip -= from;
        carry.extend_from_slice(&bytes[from..]);
    }
}

/// How exchanges end that were open when their connection ended.
pub(crate) fn outcome_of(end: End) -> Outcome {
    use crate::io::Side;
    match end {
        End::Reset(Side::Downstream) | End::Failed(Side::Downstream, _) => Outcome::DownstreamGone,
        End::Eof | End::Reset(Side::Upstream) | End::Failed(Side::Upstream, _) => {
            Outcome::UpstreamGone
        }
        End::DialFailed(_) | End::DialTimeout => Outcome::Unreachable,
        End::HalfCloseLinger | End::IdleTimeout => Outcome::Timeout,
        End::DrainDeadline | End::Netra => Outcome::Stopped,
    }
}

/// An exchange with what netra keeps of it.
type Done = Exchange<Open>;
/// Names the exchange that waits for another upstream.
type Waiting = ExchangeId;

const _: () = assert!(size_of::<Http>() <= 512);
