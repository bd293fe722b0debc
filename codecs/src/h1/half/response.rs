//! The tap: response bytes are sent first and parsed after. Whoever edits answers shows them before, and
//! keeps the beginning of a head himself until it is whole.

use super::{Fed, HeldHead};
use crate::h1::body::{Advance, BodyCursor};
use crate::h1::exchange::{Exchange, ExchangeId, Exchanges};
use crate::h1::framing::Framing;
use crate::h1::head::{HeadReader, RequestKind, ResponseHead, is_interim};
use crate::h1::reason::Reason;
use crate::h1::scan::HeadKind;
use crate::limits::Limits;

/// The direction from server to client: reads along and finishes exchanges.
///
/// The bytes have been sent on before it sees them, so whatever it says cannot disturb them. Only
/// the beginning of a head that comes in pieces is copied, at most
/// [`Limits::head_bytes_max`](crate::limits::Limits::head_bytes_max) bytes.
#[derive(Debug)]
pub struct ResponseHalf {
    state: State,
    held: HeldHead,
}

/// Where in the stream of responses.
///
/// | state | input | next |
/// |---|---|---|
/// | `AwaitHead` | an interim head (1xx) | `AwaitHead` |
/// | `AwaitHead` | a head with a body | `Body` |
/// | `AwaitHead` | a head without | `Whole` |
/// | `AwaitHead` | 101, or 2xx to CONNECT | `Whole`, with the reason to turn opaque |
/// | `AwaitHead` | no exchange is open | `Opaque` |
/// | `Body` | its last byte, or the end of the stream | `Whole` |
/// | `Whole` | (the exchange is handed out) | `AwaitHead`, or `Switched` with the reason |
/// | `Switched` | | `Opaque` |
/// | any | a doubt | `Opaque` |
#[derive(Clone, Copy, Debug)]
enum State {
    AwaitHead,
    Body(BodyCursor),
    Whole(Option<Reason>),
    Switched(Reason),
    Opaque,
}

/// What the last bytes of the response direction were.
#[derive(Debug)]
#[must_use]
pub enum ResponseStep<'b, T> {
    /// The whole input has been read, come back with more bytes.
    Need,
    /// This many bytes of the input were body, or opaque; go on behind them.
    Body(usize),
    /// A response head is whole; go on behind `consumed`.
    Head {
        /// The head. Its bytes are those of earlier inputs and the first `consumed` of this one.
        head: ResponseHead<'b>,
        /// Bytes of the input that belong to the head.
        consumed: usize,
        /// The exchange it belongs to. [`ResponseHead::is_interim`] tells whether another head
        /// follows for it.
        exchange: ExchangeId,
    },
    /// A response is whole: its exchange, no longer open. No input was used.
    Finish(Exchange<T>),
    /// From here on bytes are bytes. Take a step of the request half as well, to send what it
    /// holds; exchanges that are still open will not be finished.
    Opaque(Reason),
}

impl ResponseHalf {
    /// The beginning of a connection.
    pub fn new() -> Self {
        Self { state: State::AwaitHead, held: HeldHead::default() }
    }

    /// Reads `input`, bytes of the direction that have been sent on.
    ///
    /// Call again with what a step left over until it says [`ResponseStep::Need`], which always
    /// takes all. An empty input is allowed: after [`passed`](Self::passed) it is the way to get
    /// the exchange that was finished by the bytes that passed.
    pub fn step<'b, T>(
        &'b mut self,
        input: &'b [u8],
        reader: &'b mut HeadReader,
        exchanges: &mut Exchanges<T>,
    ) -> ResponseStep<'b, T> {
        self.held.begin_step(reader.limits());
        match self.state {
            State::AwaitHead => self.step_head(input, reader, exchanges),
            State::Whole(switched) => self.step_whole(switched, exchanges),
            State::Switched(reason) => self.turn_opaque(reason),
            State::Body(_) | State::Opaque if input.is_empty() => ResponseStep::Need,
            State::Body(cursor) => self.step_body(cursor, input, exchanges),
            State::Opaque => ResponseStep::Body(input.len()),
        }
    }

    /// How many bytes may pass from here without being shown; `u64::MAX` when opaque and in a
    /// body that ends with the stream.
    pub fn passable(&self) -> u64 {
        match &self.state {
            State::Body(cursor) => cursor.passable(),
            State::Opaque => u64::MAX,
            State::AwaitHead | State::Whole(_) | State::Switched(_) => 0,
        }
    }

    /// Takes note of bytes that passed without being shown, at most [`passable`](Self::passable).
    /// Take a step with an empty input after it.
    pub fn passed<T>(&mut self, count: u64, exchanges: &mut Exchanges<T>) {
        let State::Body(cursor) = &mut self.state else { return };
        cursor.pass(count);
        let is_end = cursor.is_end();
        self.count_body(count, is_end, exchanges);
    }

    /// The server has ended its side: returns the exchange whose response ended by that
    /// (RFC 9112 §6.3, rule 8). All that are still open then were cut short.
    pub fn end<T>(&mut self, exchanges: &mut Exchanges<T>) -> Option<Exchange<T>> {
        match self.state {
            State::Body(cursor) if cursor.is_until_close() => {}
            State::Whole(_) => {}
            _ => return None,
        }
        self.state = State::AwaitHead;
        exchanges.finish()
    }

    /// The answer whose head was handed out last goes to nobody, and another server is asked: its bytes come
    /// next, from the beginning of a head.
    pub fn withhold<T>(&mut self, exchanges: &mut Exchanges<T>) {
        debug_assert!(!self.is_opaque(), "there is no answer to be told from another");
        *self = Self::new();
        exchanges.withhold();
    }

    /// Whether nothing is parsed any more.
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// Bytes of a head that are kept until it is whole; they have long been sent.
    pub fn held_len(&self) -> usize {
        if self.held.spent { 0 } else { self.held.bytes.len() }
    }

    /// Gives up reading along, and what is kept of a head: the exchanges that are open will not
    /// be finished.
    pub fn let_go(&mut self) {
        *self = Self { state: State::Opaque, held: HeldHead::default() };
    }

    fn step_whole<T>(
        &mut self,
        switched: Option<Reason>,
        exchanges: &mut Exchanges<T>,
    ) -> ResponseStep<'_, T> {
        self.state = match switched {
            Some(reason) => State::Switched(exchanges.seal(reason)),
            None => State::AwaitHead,
        };
        match exchanges.finish() {
            Some(exchange) => ResponseStep::Finish(exchange),
            None => self.turn_opaque(exchanges.seal(Reason::ResponseWithoutRequest)),
        }
    }

    fn step_head<'b, T>(
        &'b mut self,
        input: &'b [u8],
        reader: &'b mut HeadReader,
        exchanges: &mut Exchanges<T>,
    ) -> ResponseStep<'b, T> {
        let opened = exchanges.opened();
        let sealed = exchanges.sealed();
        let Some(front) = exchanges.front_mut() else {
            return match (sealed, opened) {
                (Some(reason), _) => self.turn_opaque(reason),
                (None, _) if input.is_empty() => ResponseStep::Need,
                (None, 0) => self.turn_opaque(exchanges.seal(Reason::ServerFirst)),
                (None, _) => self.turn_opaque(exchanges.seal(Reason::ResponseWithoutRequest)),
            };
        };
        if input.is_empty() {
            return ResponseStep::Need;
        }
        let (exchange, kind) = (front.id, front.kind);
        if self.held.is_empty()
            && let Some((consumed, parts)) = reader.plain_response(input)
            && let Some(framing) = parts.plain_framing(kind)
        {
            let (status, is_interim) = (parts.status, is_interim(parts.status));
            self.begin_body(status, is_interim, framing, exchanges, reader.limits());
            let head = parts.view(&input[..consumed], reader);
            return ResponseStep::Head { head, consumed, exchange };
        }
        self.step_other_head(input, reader, exchanges, (exchange, kind))
    }

    /// A head that comes in pieces, or is not plain, or is none.
    #[cold]
    fn step_other_head<'b, T>(
        &'b mut self,
        input: &'b [u8],
        reader: &'b mut HeadReader,
        exchanges: &mut Exchanges<T>,
        (exchange, kind): (ExchangeId, RequestKind),
    ) -> ResponseStep<'b, T> {
        let limits = *reader.limits();
        let (consumed, held) = match self.held.feed(input, HeadKind::Response, &limits) {
            Ok(Fed::Partial) => return ResponseStep::Need,
            Ok(Fed::Input(len)) => (len, false),
            Ok(Fed::Held(taken)) => (taken, true),
            Err(reason) => return self.turn_opaque(exchanges.seal(reason)),
        };
        let bytes = if held { &self.held.bytes[..] } else { &input[..consumed] };
        let framed = reader.read_response(bytes).and_then(|parts| {
            let head = parts.view(bytes, reader);
            Ok((parts, head.status(), head.is_interim(), head.framing(kind)?))
        });
        let (parts, status, is_interim, framing) = match framed {
            Ok(framed) => framed,
            Err(reason) => return self.turn_opaque(exchanges.seal(reason)),
        };
        self.begin_body(status, is_interim, framing, exchanges, &limits);
        let bytes = if held { &self.held.bytes[..] } else { &input[..consumed] };
        ResponseStep::Head { head: parts.view(bytes, reader), consumed, exchange }
    }

    /// What follows a head: another one, its body, or nothing.
    fn begin_body<T>(
        &mut self,
        status: u16,
        is_interim: bool,
        framing: Framing,
        exchanges: &mut Exchanges<T>,
        limits: &Limits,
    ) {
        let Some(front) = exchanges.front_mut() else { return };
        if is_interim {
            front.interim_count = front.interim_count.saturating_add(1);
            return;
        }
        let switched = switch_reason(front.kind, status);
        exchanges.answer(status, framing);
        self.state = match (switched, framing) {
            (None, Framing::Length(1..) | Framing::Chunked | Framing::UntilClose) => {
                State::Body(BodyCursor::new(framing, limits))
            }
            (switched, _) => State::Whole(switched),
        };
    }

    fn step_body<T>(
        &mut self,
        mut cursor: BodyCursor,
        input: &[u8],
        exchanges: &mut Exchanges<T>,
    ) -> ResponseStep<'_, T> {
        let (count, outcome) = match cursor.advance(input) {
            Advance::More => (input.len(), Ok(false)),
            Advance::End(count) => (count, Ok(true)),
            Advance::Bad(count, reason) => (count, Err(reason)),
        };
        self.state = State::Body(cursor);
        self.count_body(count as u64, outcome == Ok(true), exchanges);
        match outcome {
            Ok(_) => ResponseStep::Body(count),
            Err(reason) => self.turn_opaque(exchanges.seal(reason)),
        }
    }

    fn count_body<T>(&mut self, count: u64, is_end: bool, exchanges: &mut Exchanges<T>) {
        if let Some(front) = exchanges.front_mut() {
            front.response_body_bytes += count;
        }
        if is_end {
            self.state = State::Whole(None);
        }
    }

    fn turn_opaque<T>(&mut self, reason: Reason) -> ResponseStep<'_, T> {
        self.let_go();
        ResponseStep::Opaque(reason)
    }
}

impl Default for ResponseHalf {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether what follows this head is another protocol, and why.
fn switch_reason(kind: RequestKind, status: u16) -> Option<Reason> {
    match (kind, status) {
        // RFC 9110 §15.2.2. A 101 that nobody asked for is believed as well: the server has said
        // that it will not speak HTTP any more.
        (_, 101) => Some(Reason::Upgraded),
        // RFC 9110 §9.3.6.
        (RequestKind::Connect, 200..300) => Some(Reason::Connected),
        _ => None,
    }
}

const _: () = assert!(size_of::<ResponseHalf>() <= 96);
