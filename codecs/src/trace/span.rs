//! A finished span as plain data: what a shard fills in and an exporter turns into wire form.

use std::net::SocketAddr;

use crate::codec::About;
use crate::trace::context::TraceContext;
use crate::trace::fault::Fault;
use crate::trace::sampler::SamplerTag;

/// The longest value that is kept, in bytes: where the Go client cuts as well.
pub const VALUE_BYTES_MAX: usize = 256;

/// Bytes of all values of one span, with three more for each.
const TEXT_BYTES: usize = 336;

/// One exchange, seen from one side: the server's (inbound) or the client's (outbound).
///
/// A value of fixed size without pointers, so that handing it to another thread is a copy of a
/// few cache lines and nothing is allocated or freed. Texts are packed; what does not fit is cut,
/// the least important last ([`SpanRecord::put`] in order of importance).
#[derive(Clone, Debug)]
pub struct SpanRecord {
    /// Its ids, and what was decided about the trace.
    pub context: TraceContext,
    /// Which side.
    pub kind: SpanKind,
    /// When the request head was whole, in nanoseconds of Unix time.
    pub start_unix_ns: u64,
    /// From then until the response had been forwarded whole.
    pub duration_ns: u64,
    /// What netra itself took of that: from the arrival of the bytes it needed to their submission.
    pub overhead_ns: u64,
    /// Who asked (server) or who was asked (client).
    pub remote: Option<SocketAddr>,
    /// Bytes of the request body; None when it came in chunks.
    pub request_bytes: Option<u64>,
    /// Bytes of the response body; None when it came in chunks or ended with the connection.
    pub response_bytes: Option<u64>,
    /// Status of the final response, of another protocol its own number for it; 0 when none came.
    pub status: u16,
    /// How it came to the endpoint that it was last sent to.
    pub tries: Tries,
    /// How the exchange ended.
    pub outcome: Outcome,
    /// What failed, where that is known.
    pub fault: Option<Fault>,
    /// The protocol; None is HTTP/1.
    pub protocol: Option<&'static About>,
    /// The answer says that something is wrong; of another protocol than HTTP/1, and of gRPC.
    pub is_refused: bool,
    /// Which sampler decided, when this is the root of its trace.
    pub sampler: Option<SamplerTag>,
    /// Some value was cut.
    pub is_cut: bool,
    /// Of a call: how it is known what it belongs to.
    pub join: Option<Join>,
    text_len: u16,
    text: [u8; TEXT_BYTES],
}

/// Which side of an exchange a span is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanKind {
    /// The application answered: inbound.
    #[default]
    Server,
    /// The application asked: outbound.
    Client,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Its response was forwarded whole.
    #[default]
    Whole,
    /// The downstream went away first.
    DownstreamGone,
    /// The upstream went away first.
    UpstreamGone,
    /// A time limit ended the connection.
    Timeout,
    /// The connection stopped being HTTP before the response was whole.
    Opaque,
    /// netra could not reach where the request was routed to.
    Unreachable,
    /// A rule has refused it.
    Refused,
    /// The downstream has cut it: a stream of HTTP/2.
    DownstreamReset,
    /// The upstream has cut it: likewise.
    UpstreamReset,
    /// The upstream has said that it will not look at it: likewise.
    GoingAway,
    /// The downstream has waited as long as it had said: a call of gRPC.
    Deadline,
    /// netra was told to stop, and the exchange took longer than its drain.
    Stopped,
}

impl Outcome {
    /// Its name in logs and tags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::DownstreamGone => "downstream_gone",
            Self::UpstreamGone => "upstream_gone",
            Self::Timeout => "timeout",
            Self::Opaque => "opaque",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::DownstreamReset => "downstream_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::GoingAway => "going_away",
            Self::Deadline => "deadline",
            Self::Stopped => "stopped",
        }
    }
}

/// How often a request was tried, and why the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Endpoints that were dialled for it, one after the other; 0 where nobody had to be.
    pub count: u8,
    /// Why the last of several was.
    pub reason: Option<RetryReason>,
}

/// Why a request goes to another endpoint than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// Nobody was reached there.
    Connect,
    /// Its answer said that it cannot serve now.
    GatewayError,
    /// The upstream ended, or reset the connection, before it answered.
    Reset,
    /// Nothing of an answer came for as long as one try may take.
    Timeout,
}

impl RetryReason {
    /// Its name in logs and tags: the word of `retry.on`, where there is one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
        }
    }
}

/// How it is known which request a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// The call carries the context of its caller, or its request id.
    Explicit,
    /// It was made while one request alone was being served, and answered before that one was.
    Exclusive,
    /// Of the requests that were being served when it was made, one alone was not yet answered when
    /// it was.
    Contained,
    /// Another call of its transaction belongs there, or the whole transaction does.
    Tx,
    /// Its connection has gone with that inbound connection all along.
    Affine,
    /// Several requests may have made it, or something else did.
    Ambiguous,
    /// Nothing was being served.
    None,
}

impl Join {
    /// Every way, in order of declaration; the index is `join as usize`.
    pub const ALL: &'static [Self] = &[
        Self::Explicit,
        Self::Exclusive,
        Self::Contained,
        Self::Tx,
        Self::Affine,
        Self::Ambiguous,
        Self::None,
    ];

    /// Its name in labels and tags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Exclusive => "exclusive",
            Self::Contained => "contained",
            Self::Tx => "tx",
            Self::Affine => "affine",
            Self::Ambiguous => "ambiguous",
            Self::None => "none",
        }
    }
}

/// What a text of a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanText {
    /// The method.
    Method,
    /// The request target as it came.
    Target,
    /// Whom the request was for.
    Host,
    /// The request id.
    RequestId,
    /// User-Agent.
    UserAgent,
    /// `jaeger-debug-id`.
    DebugId,
    /// The operation, of another protocol than HTTP/1; of HTTP/1 that of the Model Context Protocol.
    Operation,
    /// What the answer says is wrong, of another protocol than HTTP/1.
    Error,
    /// The database that is in use.
    Namespace,
    /// The group that consumes together.
    ConsumerGroup,
    /// What the client calls itself.
    ClientId,
    /// How many topics were named: four bytes, the highest first.
    TopicCount,
    /// How many messages were sent: likewise.
    MessageCount,
    /// [`StreamFacts`](crate::trace::StreamFacts), of HTTP/2.
    Stream,
    /// `grpc-message` as it came.
    GrpcMessage,
    /// What the exchange may belong to: for each, 16 bytes of its trace and 8 of its span.
    Links,
    /// Of HTTP/1, a response without a length: the nanoseconds until its head, and the bytes of its
    /// body as they passed, eight bytes each, the lowest first.
    Flow,
    /// The rule that decided about it.
    Rule,
    /// A mapped header or cookie: the place of its tag among those that are configured.
    Mapped(u8),
}

const MAPPED_FROM: u8 = 18;
/// What an exchange may belong to is told of so many requests at most.
pub const LINKS_MAX: usize = 4;
/// Bytes of one.
const LINK_BYTES: usize = 24;
/// Bytes that they leave for what an answer says.
const LINKS_SPARE: usize = 48;

impl SpanText {
    fn code(self) -> u8 {
        match self {
            Self::Method => 0,
            Self::Target => 1,
            Self::Host => 2,
            Self::RequestId => 3,
            Self::UserAgent => 4,
            Self::DebugId => 5,
            Self::Operation => 6,
            Self::Error => 7,
            Self::Namespace => 8,
            Self::ConsumerGroup => 9,
            Self::ClientId => 10,
            Self::TopicCount => 11,
            Self::MessageCount => 12,
            Self::Stream => 13,
            Self::GrpcMessage => 14,
            Self::Links => 15,
            Self::Flow => 16,
            Self::Rule => 17,
            Self::Mapped(index) => MAPPED_FROM.saturating_add(index),
        }
    }

    fn of(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Method,
            1 => Self::Target,
            2 => Self::Host,
            3 => Self::RequestId,
            4 => Self::UserAgent,
            5 => Self::DebugId,
            6 => Self::Operation,
            7 => Self::Error,
            8 => Self::Namespace,
            9 => Self::ConsumerGroup,
            10 => Self::ClientId,
            11 => Self::TopicCount,
            12 => Self::MessageCount,
            13 => Self::Stream,
            14 => Self::GrpcMessage,
            15 => Self::Links,
            16 => Self::Flow,
            17 => Self::Rule,
            MAPPED_FROM.. => Self::Mapped(code - MAPPED_FROM),
        })
    }
}

/// The texts of a span, each looked for once.
#[derive(Clone, Copy, Debug)]
pub struct TextsByKind<'s> {
    texts: [Option<&'s [u8]>; MAPPED_FROM as usize],
    /// There are some of mapped headers and cookies, which [`SpanRecord::texts`] tells.
    pub has_mapped: bool,
}

impl<'s> TextsByKind<'s> {
    /// The first text of this kind, which is none of a mapped header or cookie.
    pub fn get(&self, what: SpanText) -> Option<&'s [u8]> {
        self.texts.get(usize::from(what.code())).copied().flatten()
    }
}

/// Mapped headers and cookies that can be told apart.
pub const MAPPED_MAX: usize = (u8::MAX - MAPPED_FROM) as usize;

impl SpanRecord {
    /// A span that has begun: nothing but its ids, kind and start.
    pub fn begin(context: TraceContext, kind: SpanKind, start_unix_ns: u64) -> Self {
        Self {
            context,
            kind,
            start_unix_ns,
            duration_ns: 0,
            overhead_ns: 0,
            remote: None,
            request_bytes: Some(0),
            response_bytes: Some(0),
            status: 0,
            tries: Tries::default(),
            outcome: Outcome::Whole,
            fault: None,
            protocol: None,
            is_refused: false,
            sampler: None,
            is_cut: false,
            join: None,
            text_len: 0,
            text: [0; TEXT_BYTES],
        }
    }

    /// Begins a span in the place of one that is over. Less is written than for a new one.
    pub fn begin_again(&mut self, context: TraceContext, kind: SpanKind, start_unix_ns: u64) {
        self.context = context;
        self.kind = kind;
        self.start_unix_ns = start_unix_ns;
        self.duration_ns = 0;
        self.overhead_ns = 0;
        self.remote = None;
        self.request_bytes = Some(0);
        self.response_bytes = Some(0);
        self.status = 0;
        self.tries = Tries::default();
        self.outcome = Outcome::Whole;
        self.fault = None;
        self.protocol = None;
        self.is_refused = false;
        self.sampler = None;
        self.is_cut = false;
        self.join = None;
        // What stands behind the texts is nobody's.
        self.text_len = 0;
    }

    /// Adds a text, cut to [`VALUE_BYTES_MAX`] and to the room that is left.
    pub fn put(&mut self, what: SpanText, value: &[u8]) {
        let rest = &mut self.text[usize::from(self.text_len)..];
        let Some((head, room)) = rest.split_first_chunk_mut().filter(|(_, room)| !room.is_empty())
        else {
            self.is_cut |= !value.is_empty();
            return;
        };
        let len = value.len().min(VALUE_BYTES_MAX).min(room.len());
        self.is_cut |= len < value.len();
        room[..len].copy_from_slice(&value[..len]);
        // At most VALUE_BYTES_MAX.
        #[allow(clippy::cast_possible_truncation)]
        let len = len as u16;
        let [low, high] = len.to_le_bytes();
        *head = [what.code(), low, high];
        // At most TEXT_BYTES.
        self.text_len += 3 + len;
    }

    /// The texts in the order in which they were put.
    pub fn texts(&self) -> impl Iterator<Item = (SpanText, &[u8])> {
        let mut rest = &self.text[..usize::from(self.text_len)];
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_first_chunk::<3>()?;
            let len = usize::from(u16::from_le_bytes([head[1], head[2]]));
            let (value, after) = tail.split_at_checked(len)?;
            rest = after;
            Some((SpanText::of(head[0])?, value))
        })
    }

    /// Writes a text of the same length in the place of one that was put.
    pub fn put_again(&mut self, what: SpanText, value: &[u8]) {
        let mut at = 0;
        let end = usize::from(self.text_len);
        while let Some([code, low, high]) = self.text[at..end].first_chunk() {
            let (from, len) = (at + 3, usize::from(u16::from_le_bytes([*low, *high])));
            if *code == what.code() && len == value.len() {
                self.text[from..from + len].copy_from_slice(value);
                return;
            }
            at = from + len;
        }
    }

    /// The first text of this kind.
    pub fn text(&self, wanted: SpanText) -> Option<&[u8]> {
        self.texts().find(|(what, _)| *what == wanted).map(|(_, value)| value)
    }

    /// The first text of each kind, for who asks for many.
    pub fn by_kind(&self) -> TextsByKind<'_> {
        let mut found = TextsByKind { texts: [None; MAPPED_FROM as usize], has_mapped: false };
        for (what, value) in self.texts() {
            match found.texts.get_mut(usize::from(what.code())) {
                Some(text) => _ = text.get_or_insert(value),
                None => found.has_mapped = true,
            }
        }
        found
    }

    /// Adds what the exchange may belong to, as much as leaves room for other texts: trace and span
    /// of each.
    pub fn put_links(&mut self, links: impl Iterator<Item = (u128, u64)>) {
        let mut packed = [0; LINKS_MAX * LINK_BYTES];
        let room = (TEXT_BYTES - usize::from(self.text_len)).saturating_sub(LINKS_SPARE);
        let mut len = 0;
        for ((trace_id, span_id), place) in links.zip(packed.chunks_exact_mut(LINK_BYTES)) {
            if len + LINK_BYTES > room {
                break;
            }
            place[..16].copy_from_slice(&trace_id.to_be_bytes());
            place[16..].copy_from_slice(&span_id.to_be_bytes());
            len += LINK_BYTES;
        }
        if len > 0 {
            self.put(SpanText::Links, &packed[..len]);
        }
    }

    /// What the exchange may belong to, where nobody knows: trace and span of each.
    pub fn links(&self) -> impl Iterator<Item = (u128, u64)> {
        let told = self.join == Some(Join::Ambiguous);
        let packed = self.text(SpanText::Links).filter(|_| told).unwrap_or_default();
        packed.chunks_exact(LINK_BYTES).filter_map(|link| {
            let (trace_id, span_id) = link.split_first_chunk()?;
            Some((u128::from_be_bytes(*trace_id), u64::from_be_bytes(*span_id.first_chunk()?)))
        })
    }

    /// Whether the span is an error: a status of 500 or more (of another protocol than HTTP/1, an
    /// answer that says so), or an exchange that was cut short. One that netra merely lost sight
    /// of is none.
    pub fn is_error(&self) -> bool {
        let is_refused = match self.protocol {
            None => self.status >= 500 || self.is_refused,
            Some(_) => self.is_refused,
        };
        is_refused || !matches!(self.outcome, Outcome::Whole | Outcome::Opaque)
    }
}

const _: () = assert!(size_of::<SpanRecord>() <= 512);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Flag, TraceFlags};

    fn record() -> SpanRecord {
        SpanRecord::begin(TraceContext::root(1, 1, TraceFlags::SAMPLED), SpanKind::Client, 7)
    }

    #[test]
    fn texts_come_back_in_order() {
        let mut span = record();
        let put: [(SpanText, &[u8]); 5] = [
            (SpanText::Target, b"/a?b"),
            (SpanText::Host, b""),
            (SpanText::Mapped(3), b"x"),
            (SpanText::DebugId, b"d"),
            (SpanText::Mapped(231), b"last"),
        ];
        for (what, value) in put {
            span.put(what, value);
        }
        assert!(span.texts().eq(put));
        let found = span.by_kind();
        for (what, value) in put {
            let is_mapped = matches!(what, SpanText::Mapped(_));
            assert_eq!(found.get(what), Some(value).filter(|_| !is_mapped), "{what:?}");
        }
        assert!(found.has_mapped && found.get(SpanText::Method).is_none());
        assert_eq!(span.text(SpanText::Mapped(3)), Some(&b"x"[..]));
        assert_eq!(span.text(SpanText::Method), None);
        span.put_again(SpanText::DebugId, b"e");
        span.put_again(SpanText::Host, b"longer");
        assert_eq!(span.text(SpanText::DebugId), Some(&b"e"[..]));
        assert_eq!((span.text(SpanText::Host), span.texts().count()), (Some(&b""[..]), 5));
        assert!(!span.is_cut);
    }

    #[test]
    fn a_place_that_is_used_again_keeps_nothing() {
        let mut span = record();
        span.put(SpanText::Host, &[b'x'; 400]);
        (span.duration_ns, span.overhead_ns, span.status) = (1, 2, 3);
        span.remote = Some(([127, 0, 0, 1], 80).into());
        (span.request_bytes, span.response_bytes) = (None, Some(9));
        span.tries = Tries { count: 2, reason: Some(RetryReason::Reset) };
        (span.outcome, span.sampler) = (Outcome::Timeout, Some(SamplerTag::Const(true)));
        span.fault = Some(Fault::of(Flag::IdleTimeout));
        let context = TraceContext::root(5, 6, TraceFlags::NONE);
        span.begin_again(context, SpanKind::Server, 9);
        let new = SpanRecord::begin(context, SpanKind::Server, 9);
        span.text = new.text;
        assert_eq!(format!("{span:?}"), format!("{new:?}"));
    }

    #[test]
    fn long_values_are_cut_and_said_to_be() {
        let mut span = record();
        span.put(SpanText::Target, &[b'a'; VALUE_BYTES_MAX]);
        assert!(!span.is_cut);
        span.put(SpanText::Host, &[b'h'; VALUE_BYTES_MAX]);
        assert!(span.is_cut);
        let lens: Vec<_> = span.texts().map(|(_, value)| value.len()).collect();
        assert_eq!(lens, [VALUE_BYTES_MAX, TEXT_BYTES - VALUE_BYTES_MAX - 6]);
        span.put(SpanText::Method, b"GET");
        assert_eq!(span.texts().count(), 2);
        let mut span = record();
        span.put(SpanText::Target, &[b'a'; VALUE_BYTES_MAX + 1]);
        assert!(span.is_cut && span.text(SpanText::Target).unwrap().len() == VALUE_BYTES_MAX);
    }

    #[test]
    fn links_come_back_of_what_is_ambiguous_alone_and_leave_room() {
        let mut span = record();
        let links = [(1, 2), (u128::MAX, u64::MAX), (5, 6), (7, 8), (9, 10)];
        span.put_links(links.into_iter());
        assert_eq!(span.links().count(), 0, "it is not known to be ambiguous");
        span.join = Some(Join::Ambiguous);
        assert!(span.links().eq(links[..LINKS_MAX].iter().copied()));
        for len in 0..TEXT_BYTES {
            let mut span = record();
            span.put(SpanText::Operation, &vec![b'a'; len.min(VALUE_BYTES_MAX)]);
            span.put(SpanText::Host, &vec![b'a'; len.saturating_sub(VALUE_BYTES_MAX)]);
            let is_cut = span.is_cut;
            span.put_links(links.into_iter());
            assert_eq!(span.is_cut, is_cut, "{len}");
            let room = TEXT_BYTES - usize::from(span.text_len);
            assert!(span.text(SpanText::Links).is_none() || room >= LINKS_SPARE - 3, "{len}");
        }
    }

    #[test]
    fn names_of_joins_differ_and_are_in_order() {
        for (index, join) in Join::ALL.iter().enumerate() {
            assert_eq!(*join as usize, index);
            assert!(Join::ALL[..index].iter().all(|other| other.name() != join.name()));
        }
    }

    #[test]
    fn errors_are_server_errors_and_what_was_not_whole() {
        let mut span = record();
        for (status, outcome, is_error) in [
            (200, Outcome::Whole, false),
            (499, Outcome::Whole, false),
            (500, Outcome::Whole, true),
            (200, Outcome::Opaque, false),
            (200, Outcome::UpstreamGone, true),
            (0, Outcome::Timeout, true),
        ] {
            (span.status, span.outcome) = (status, outcome);
            assert_eq!(span.is_error(), is_error, "{status} {outcome:?}");
        }
    }
}
