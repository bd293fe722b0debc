//! The gate: request heads are held until whole, everything else passes.

use super::{Fed, HeldHead};
use crate::h1::body::{Advance, BodyCursor};
use crate::h1::exchange::{ExchangeId, Exchanges};
use crate::h1::framing::Framing;
use crate::h1::head::{HeadReader, RequestHead, RequestParts};
use crate::h1::reason::Reason;
use crate::h1::scan::HeadKind;
use crate::limits::Limits;

/// The direction from client to server: holds each head until it is whole, so that it can be
/// edited, and lets everything else pass as it came.
///
/// At most [`Limits::head_bytes_max`](crate::limits::Limits::head_bytes_max) bytes are held, and
/// no storage at all while heads come in one piece.
#[derive(Debug)]
pub struct RequestHalf {
    state: State,
    held: HeldHead,
}

/// Where in the stream of requests.
///
/// | state | input | next |
/// |---|---|---|
/// | `AwaitHead` | an empty line, once | `AwaitHead` |
/// | `AwaitHead` | a head with a body | `Body` |
/// | `AwaitHead` | a head without | `AwaitHead`, or `AwaitAnswer` if it asks to switch |
/// | `Body` | its last byte | `AwaitHead`, or `AwaitAnswer` if the head asked to switch |
/// | `AwaitAnswer` | the answer refuses | `AwaitHead` |
/// | `AwaitAnswer` | a byte before the answer | `Opaque` |
/// | any | the exchanges are sealed, or a doubt | `Opaque` |
#[derive(Clone, Copy, Debug)]
enum State {
    AwaitHead(Leading),
    Body { cursor: BodyCursor, exchange: ExchangeId, switch: bool },
    AwaitAnswer,
    Opaque,
}

/// RFC 9112 §2.2: a server should ignore an empty line before a request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leading {
    None,
    Cr,
    Line,
}

/// What to do with the next bytes of the request direction.
#[derive(Debug)]
#[must_use]
pub enum RequestStep<'b> {
    /// The whole input is taken care of: nothing to send, come back with more bytes.
    Need,
    /// Send this many bytes of the input as they are.
    Forward(usize),
    /// A request head is whole. Send it, patched or not, then go on behind `consumed`.
    Head {
        /// The head. Its bytes are those held so far and the first `consumed` of the input.
        head: RequestHead<'b>,
        /// Bytes of the input that belong to the head.
        consumed: usize,
        /// Whether the head lies in the storage of the half; if not it is the beginning of the
        /// input, and its offsets are offsets of the input.
        held: bool,
        /// The exchange that was opened for it.
        exchange: ExchangeId,
    },
    /// From here on bytes are bytes: send `held`, then all of the input and all that follows.
    Opaque {
        /// Why; the first reason of the connection, whichever half found it.
        reason: Reason,
        /// Bytes of earlier inputs that have not been sent.
        held: &'b [u8],
    },
}

impl RequestHalf {
    /// The beginning of a connection.
    pub fn new() -> Self {
        Self { state: State::AwaitHead(Leading::None), held: HeldHead::default() }
    }

    /// Says what to do with `input`, the next bytes of the direction; `now_ns` is when they came.
    ///
    /// Call again with what a step left over until it says [`RequestStep::Need`], which always
    /// takes all. An empty input is allowed: after the response half turned opaque it is the way
    /// to get what is held.
    pub fn step<'b, T: Default>(
        &'b mut self,
        input: &'b [u8],
        reader: &'b mut HeadReader,
        exchanges: &mut Exchanges<T>,
        now_ns: u64,
    ) -> RequestStep<'b> {
        self.held.begin_step(reader.limits());
        if let (Some(reason), false) = (exchanges.sealed(), self.is_opaque()) {
            return self.turn_opaque(reason);
        }
        if input.is_empty() {
            return RequestStep::Need;
        }
        if matches!(self.state, State::AwaitAnswer) {
            if exchanges.is_switching() {
                return self.turn_opaque(exchanges.seal(Reason::EarlyAfterUpgrade));
            }
            self.state = State::AwaitHead(Leading::None);
        }
        match self.state {
            State::Opaque | State::AwaitAnswer => RequestStep::Forward(input.len()),
            State::Body { .. } => self.step_body(input, exchanges),
            State::AwaitHead(leading) if self.held.is_empty() && is_leading(leading, input[0]) => {
                self.step_leading(leading, input[0], exchanges)
            }
            State::AwaitHead(_) => self.step_head(input, reader, exchanges, now_ns),
        }
    }

    /// Nothing of a request is under way here: the next byte begins one.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::AwaitHead(Leading::None)) && self.held.is_empty()
    }

    /// A body is still to come, or a part of it.
    pub fn is_within_body(&self) -> bool {
        matches!(self.state, State::Body { .. })
    }

    /// How many bytes may pass from here without being shown; 0 within a head and at its
    /// beginning, `u64::MAX` when opaque.
    pub fn passable(&self) -> u64 {
        match &self.state {
            State::Body { cursor, .. } => cursor.passable(),
            State::Opaque => u64::MAX,
            State::AwaitHead(_) | State::AwaitAnswer => 0,
        }
    }

    /// Takes note of bytes that passed without being shown, at most [`passable`](Self::passable).
    pub fn passed<T>(&mut self, count: u64, exchanges: &mut Exchanges<T>) {
        let State::Body { cursor, exchange, switch } = &mut self.state else { return };
        cursor.pass(count);
        let (is_end, id, switch) = (cursor.is_end(), *exchange, *switch);
        if let Some(exchange) = exchanges.get_mut(id) {
            exchange.request_body_bytes += count;
        }
        if is_end {
            self.end_message(switch);
        }
    }

    /// The client has ended its side. Returns what is held, to be sent as it came; a head that
    /// was cut short turns the connection opaque.
    pub fn end<T>(&mut self, exchanges: &mut Exchanges<T>) -> &[u8] {
        if self.is_opaque() || self.held.spent || self.held.is_empty() {
            return &[];
        }
        exchanges.seal(Reason::EndedInHead);
        self.state = State::Opaque;
        self.held.surrender()
    }

    /// Whether nothing is parsed any more.
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// Bytes that came and have not been sent.
    pub fn held_len(&self) -> usize {
        if self.held.spent { 0 } else { self.held.bytes.len() }
    }

    /// Gives storage back when nothing is held; for connections that idle.
    pub fn release_memory(&mut self) {
        self.held.release_memory();
    }

    fn step_leading<T>(
        &mut self,
        leading: Leading,
        byte: u8,
        exchanges: &mut Exchanges<T>,
    ) -> RequestStep<'_> {
        let next = match (leading, byte) {
            (Leading::None, _) => Leading::Cr,
            (Leading::Cr, b'\n') => Leading::Line,
            (Leading::Cr, _) => return self.turn_opaque(exchanges.seal(Reason::BareCr)),
            (Leading::Line, _) => {
                return self.turn_opaque(exchanges.seal(Reason::LeadingEmptyLines));
            }
        };
        self.state = State::AwaitHead(next);
        RequestStep::Forward(1)
    }

    fn step_head<'b, T: Default>(
        &'b mut self,
        input: &'b [u8],
        reader: &'b mut HeadReader,
        exchanges: &mut Exchanges<T>,
        now_ns: u64,
    ) -> RequestStep<'b> {
        let max = reader.limits().exchanges_max;
        if self.held.is_empty()
            && let Some((consumed, parts)) = reader.plain_request(input)
            && let Some(exchange) = exchanges.open(&parts, max, now_ns)
        {
            self.begin_body(&parts, exchange, reader.limits());
            let head = parts.view(&input[..consumed], reader);
            return RequestStep::Head { head, consumed, held: false, exchange };
        }
        self.step_other_head(input, reader, exchanges, now_ns)
    }

    /// A head that comes in pieces, or is not plain, or is none.
    #[cold]
    fn step_other_head<'b, T: Default>(
        &'b mut self,
        input: &'b [u8],
        reader: &'b mut HeadReader,
        exchanges: &mut Exchanges<T>,
        now_ns: u64,
    ) -> RequestStep<'b> {
        let limits = *reader.limits();
        let (consumed, held) = match self.held.feed(input, HeadKind::Request, &limits) {
            Ok(Fed::Partial) => return RequestStep::Need,
            Ok(Fed::Input(len)) => (len, false),
            Ok(Fed::Held(taken)) => (taken, true),
            Err(reason) => return self.turn_opaque(exchanges.seal(reason)),
        };
        let bytes = if held { &self.held.bytes[..] } else { &input[..consumed] };
        let opened = reader.read_request(bytes).and_then(|parts| {
            let exchange = exchanges.open(&parts, limits.exchanges_max, now_ns);
            exchange.map(|exchange| (parts, exchange)).ok_or(Reason::PipelineTooDeep)
        });
        let (parts, exchange) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                if held {
                    self.held.unfeed(consumed);
                }
                return self.turn_opaque(exchanges.seal(reason));
            }
        };
        self.begin_body(&parts, exchange, &limits);
        let bytes = if held { &self.held.bytes[..] } else { &input[..consumed] };
        RequestStep::Head { head: parts.view(bytes, reader), consumed, held, exchange }
    }

    /// What follows a head: its body, if it has one.
    fn begin_body(&mut self, parts: &RequestParts, exchange: ExchangeId, limits: &Limits) {
        let switch = parts.asks_to_switch();
        if parts.framing == Framing::Length(0) {
            self.end_message(switch);
        } else {
            let cursor = BodyCursor::new(parts.framing, limits);
            self.state = State::Body { cursor, exchange, switch };
        }
    }

    fn step_body<T>(&mut self, input: &[u8], exchanges: &mut Exchanges<T>) -> RequestStep<'_> {
        let State::Body { cursor, exchange, switch } = &mut self.state else {
            return RequestStep::Forward(input.len());
        };
        let (id, switch) = (*exchange, *switch);
        let (count, outcome) = match cursor.advance(input) {
            Advance::More => (input.len(), Ok(false)),
            Advance::End(count) => (count, Ok(true)),
            Advance::Bad(count, reason) => (count, Err(reason)),
        };
        // It may be gone: some responses do not wait for the body.
        if let Some(exchange) = exchanges.get_mut(id) {
            exchange.request_body_bytes += count as u64;
        }
        match outcome {
            Ok(false) => {}
            Ok(true) => self.end_message(switch),
            Err(reason) => return self.turn_opaque(exchanges.seal(reason)),
        }
        RequestStep::Forward(count)
    }

    /// The request is whole.
    fn end_message(&mut self, switch: bool) {
        self.state = if switch { State::AwaitAnswer } else { State::AwaitHead(Leading::None) };
    }

    fn turn_opaque(&mut self, reason: Reason) -> RequestStep<'_> {
        self.state = State::Opaque;
        RequestStep::Opaque { reason, held: self.held.surrender() }
    }
}

impl Default for RequestHalf {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the byte belongs to empty lines before a request line.
fn is_leading(leading: Leading, byte: u8) -> bool {
    leading == Leading::Cr || byte == b'\r'
}

const _: () = assert!(size_of::<RequestHalf>() <= 96);
