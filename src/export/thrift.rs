//! Jaeger's thrift: a batch of spans in the compact form, which agents take in one datagram, and
//! in the binary form, which collectors take as a request body. Only what a span needs.

use super::{
    Process,
    tags::{Alike, Sink, Tags, Value, micros},
};
use netra_codecs::trace::SpanRecord;
use std::{fmt::Debug, mem, net::IpAddr};

/// Types as a form numbers them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    I32,
    I64,
    Text,
    List,
    Struct,
}

/// How a protocol writes; structs end with a zero byte in both.
pub(crate) trait Form: Debug {
    fn field(out: &mut Vec<u8>, last: i16, kind: Kind, id: i16);
    fn i32(out: &mut Vec<u8>, value: i32);
    fn i64(out: &mut Vec<u8>, value: i64);
    /// The head of a list without anything in it.
    const EMPTY_LIST_BYTES: usize;
    /// jaeger.thrift, `struct Tag`, all of it: a span is mostly tags, so that what does not change
    /// in them is written in one piece. STRING is 0, DOUBLE 1, BOOL 2, LONG 3.
    fn tag(out: &mut Vec<u8>, key: &str, value: Value<'_>);
    /// Begins a text or a list of structs.
    fn text_len(out: &mut Vec<u8>, len: usize);
    fn list_len(out: &mut Vec<u8>, len: usize);
}

/// TCompactProtocol.
#[derive(Debug)]
pub(crate) struct Compact;

impl Compact {
    #[inline(always)]
    fn varint(out: &mut Vec<u8>, value: u64) {
        match u8::try_from(value) {
            Ok(value @ ..0x80) => out.push(value),
            _ => Self::long_varint(out, value),
        }
    }

    /// Every seven bits have a byte, the lowest first, with a mark that more follow. They are spread
    /// at once: an id takes ten of them.
    fn long_varint(out: &mut Vec<u8>, value: u64) {
        let eight = value & 0x00ff_ffff_ffff_ffff;
        let spread = (eight & 0x0000_0000_0fff_ffff) | (eight & 0x00ff_ffff_f000_0000) << 4;
        let spread = (spread & 0x0000_3fff_0000_3fff) | (spread & 0x0fff_c000_0fff_c000) << 2;
        let spread = (spread & 0x007f_007f_007f_007f) | (spread & 0x3f80_3f80_3f80_3f80) << 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(spread | 0x8080_8080_8080_8080).to_le_bytes());
        let [.., highest] = value.to_le_bytes();
        (bytes[8], bytes[9]) = (highest | 0x80, highest >> 7);
        let len = (value.ilog2() / 7 + 1) as usize;
        bytes[len - 1] &= 0x7f;
        let end = out.len() + len;
        // Of a length that is known, and then shorter: no copy by a loop.
        out.extend_from_slice(&bytes);
        out.truncate(end);
    }

    fn zigzag(out: &mut Vec<u8>, value: i64) {
        Self::varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// The end of a field's head, which is `before`, and the text.
    #[inline(always)]
    fn text<const N: usize>(out: &mut Vec<u8>, before: [u8; N], text: &[u8]) {
        out.extend_from_slice(&before);
        Self::varint(out, text.len() as u64);
        out.extend_from_slice(text);
    }
}

impl Form for Compact {
    const EMPTY_LIST_BYTES: usize = 1;

    fn field(out: &mut Vec<u8>, last: i16, kind: Kind, id: i16) {
        let kind = match kind {
            Kind::I32 => 5,
            Kind::I64 => 6,
            Kind::Text => 8,
            Kind::List => 9,
            Kind::Struct => 12,
        };
        // Jaeger's fields are less than 16 apart, and rise.
        let delta = u8::try_from(id - last).unwrap_or_default();
        debug_assert!((1..16).contains(&delta));
        out.push(delta << 4 | kind);
    }

    fn i32(out: &mut Vec<u8>, value: i32) {
        Self::zigzag(out, value.into());
    }

    fn i64(out: &mut Vec<u8>, value: i64) {
        Self::zigzag(out, value);
    }

    fn tag(out: &mut Vec<u8>, key: &str, value: Value<'_>) {
        Self::text(out, [0x18], key.as_bytes());
        match value {
            Value::Text(text) => Self::text(out, [0x15, 0, 0x18], text.as_bytes()),
            Value::Float(number) => {
                out.extend_from_slice(&[0x15, 2, 0x27]);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Value::Bool(is) => out.extend_from_slice(&[0x15, 4, if is { 0x31 } else { 0x32 }]),
            Value::Int(number) => {
                out.extend_from_slice(&[0x15, 6, 0x46]);
                Self::zigzag(out, number);
            }
        }
        out.push(0);
    }

    fn text_len(out: &mut Vec<u8>, len: usize) {
        Self::varint(out, len as u64);
    }

    fn list_len(out: &mut Vec<u8>, len: usize) {
        match u8::try_from(len) {
            Ok(len @ ..15) => out.push(len << 4 | 12),
            _ => {
                out.push(0xf0 | 12);
                Self::varint(out, len as u64);
            }
        }
    }
}

/// TBinaryProtocol.
#[derive(Debug)]
pub(crate) struct Binary;

impl Binary {
    #[inline(always)]
    fn text<const N: usize>(out: &mut Vec<u8>, before: [u8; N], text: &[u8]) {
        out.extend_from_slice(&before);
        <Self as Form>::text_len(out, text.len());
        out.extend_from_slice(text);
    }
}

impl Form for Binary {
    const EMPTY_LIST_BYTES: usize = 5;

    fn field(out: &mut Vec<u8>, _: i16, kind: Kind, id: i16) {
        out.push(match kind {
            Kind::I32 => 8,
            Kind::I64 => 10,
            Kind::Text => 11,
            Kind::Struct => 12,
            Kind::List => 15,
        });
        out.extend_from_slice(&id.to_be_bytes());
    }

    fn i32(out: &mut Vec<u8>, value: i32) {
        out.extend_from_slice(&value.to_be_bytes());
    }

    fn i64(out: &mut Vec<u8>, value: i64) {
        out.extend_from_slice(&value.to_be_bytes());
    }

    fn tag(out: &mut Vec<u8>, key: &str, value: Value<'_>) {
        Self::text(out, [11, 0, 1], key.as_bytes());
        match value {
            Value::Text(text) => {
                Self::text(out, [8, 0, 2, 0, 0, 0, 0, 11, 0, 3], text.as_bytes());
            }
            Value::Float(number) => {
                out.extend_from_slice(&[8, 0, 2, 0, 0, 0, 1, 4, 0, 4]);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Value::Bool(is) => {
                out.extend_from_slice(&[8, 0, 2, 0, 0, 0, 2, 2, 0, 5, is.into()]);
            }
            Value::Int(number) => {
                out.extend_from_slice(&[8, 0, 2, 0, 0, 0, 3, 10, 0, 6]);
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        out.push(0);
    }

    fn text_len(out: &mut Vec<u8>, len: usize) {
        Self::i32(out, i32::try_from(len).unwrap_or(i32::MAX));
    }

    fn list_len(out: &mut Vec<u8>, len: usize) {
        out.push(12);
        Self::text_len(out, len);
    }
}

/// The parts of a batch: what stands before the spans, and the spans.
#[derive(Debug)]
pub(crate) struct Batch<F> {
    head: Vec<u8>,
    /// Structs that stay open around the spans.
    ends: usize,
    spans: Vec<u8>,
    count: usize,
    kept: Kept,
    form: std::marker::PhantomData<F>,
}

/// Tags that many spans have alike, as they were written the last time.
#[derive(Debug, Default)]
struct Kept {
    beginning: Alikes,
    /// By the other end's address and port; none before there are any.
    peers: Vec<Alikes>,
}

#[derive(Clone, Debug, Default)]
struct Alikes {
    of: Option<Alike>,
    bytes: Vec<u8>,
    count: usize,
}

/// Others that are known at a time: as many connections as most have at work.
const PEERS: usize = 64;

impl Kept {
    fn of(&mut self, of: &Alike) -> &mut Alikes {
        match of {
            Alike::Beginning { .. } => &mut self.beginning,
            Alike::Peer { remote, .. } => {
                if self.peers.is_empty() {
                    self.peers = vec![Alikes::default(); PEERS];
                }
                let [.., last] = match remote.ip() {
                    IpAddr::V4(ip) => ip.octets(),
                    IpAddr::V6(ip) => ip.octets()[12..].try_into().unwrap_or_default(),
                };
                // Many clients have an address in common, and many servers have a port.
                &mut self.peers[(usize::from(remote.port()) + usize::from(last)) % PEERS]
            }
        }
    }
}

/// The longest head of a list.
const LIST_HEAD_BYTES: usize = 6;

impl Batch<Compact> {
    /// An `emitBatch` message, as agents take it: oneway (4), version 1.
    pub(crate) fn message(process: &Process) -> Self {
        let mut head = vec![0x82, 4 << 5 | 1];
        Compact::varint(&mut head, 1);
        push_text::<Compact>(&mut head, "emitBatch");
        Compact::field(&mut head, 0, Kind::Struct, 1);
        Self::begin(head, 2, process)
    }
}

impl Batch<Binary> {
    /// The bare struct, as collectors take it.
    pub(crate) fn bare(process: &Process) -> Self {
        Self::begin(vec![], 1, process)
    }
}

impl<F: Form> Batch<F> {
    fn begin(head: Vec<u8>, ends: usize, process: &Process) -> Self {
        let mut writer = Writer::<F>::to(head);
        writer.field(Kind::Struct, 1);
        let outer = writer.open();
        writer.text(1, &process.service_name);
        writer.list(2, process.tags.len());
        for (key, value) in &process.tags {
            F::tag(&mut writer.out, key, Value::Text(value));
        }
        writer.close(outer);
        writer.field(Kind::List, 2);
        let form = std::marker::PhantomData;
        Self { head: writer.out, ends, spans: vec![], count: 0, kept: Kept::default(), form }
    }

    /// Adds a span.
    pub(crate) fn push(&mut self, span: &SpanRecord, tags: &mut Tags) {
        let mut writer = Writer::<F>::to(mem::take(&mut self.spans));
        writer.span(span, tags, &mut self.kept);
        self.spans = writer.out;
        self.count += 1;
    }

    /// Adds a span, unless the batch would weigh more than `bytes_max` with it: then the span is in
    /// the next one, and this one is given back. A batch has one span at least.
    pub(crate) fn push_within(
        &mut self,
        span: &SpanRecord,
        tags: &mut Tags,
        bytes_max: usize,
    ) -> Option<(Vec<u8>, usize)> {
        let before = self.spans.len();
        self.push(span, tags);
        if self.count == 1 || self.bytes() <= bytes_max {
            return None;
        }
        let last = self.spans.split_off(before);
        self.count -= 1;
        let full = self.take();
        (self.spans, self.count) = (last, 1);
        full
    }

    /// What the batch weighs at most.
    pub(crate) fn bytes(&self) -> usize {
        self.head.len() + LIST_HEAD_BYTES + self.spans.len() + self.ends
    }

    /// Spans in it.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The batch on the wire with its number of spans; none when it is empty.
    pub(crate) fn take(&mut self) -> Option<(Vec<u8>, usize)> {
        (self.count > 0).then(|| self.wire())
    }

    /// The same, also when it is empty.
    pub(crate) fn wire(&mut self) -> (Vec<u8>, usize) {
        let count = mem::take(&mut self.count);
        let mut out = Vec::with_capacity(self.head.len() + 8 + self.spans.len());
        out.extend_from_slice(&self.head);
        F::list_len(&mut out, count);
        out.append(&mut self.spans);
        out.extend(std::iter::repeat_n(0, self.ends));
        (out, count)
    }
}

/// The tags of one span.
struct TagList<'w, F> {
    out: &'w mut Vec<u8>,
    count: &'w mut usize,
    kept: &'w mut Kept,
    form: std::marker::PhantomData<F>,
}

impl<'w, F> TagList<'w, F> {
    fn new(out: &'w mut Vec<u8>, count: &'w mut usize, kept: &'w mut Kept) -> Self {
        Self { out, count, kept, form: std::marker::PhantomData }
    }
}

impl<F: Form> Sink for TagList<'_, F> {
    fn put(&mut self, key: &'static str, value: Value<'_>) {
        F::tag(self.out, key, value);
        *self.count += 1;
    }

    fn put_alike(
        &mut self,
        of: Alike,
        mut write: impl FnMut(&mut dyn FnMut(&'static str, Value<'_>)),
    ) {
        let Self { out, count, kept, .. } = self;
        let alikes = kept.of(&of);
        if alikes.of != Some(of) {
            let (from, before) = (out.len(), **count);
            write(&mut |key, value| {
                F::tag(out, key, value);
                **count += 1;
            });
            alikes.bytes.clear();
            alikes.bytes.extend_from_slice(&out[from..]);
            (alikes.of, alikes.count) = (Some(of), **count - before);
            return;
        }
        out.extend_from_slice(&alikes.bytes);
        **count += alikes.count;
    }
}

/// Writes structs to the end of a buffer.
#[derive(Debug)]
struct Writer<F> {
    out: Vec<u8>,
    /// The last field of the struct that is open.
    last: i16,
    form: std::marker::PhantomData<F>,
}

fn push_text<F: Form>(out: &mut Vec<u8>, text: &str) {
    F::text_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

impl<F: Form> Writer<F> {
    fn to(out: Vec<u8>) -> Self {
        Self { out, last: 0, form: std::marker::PhantomData }
    }

    fn open(&mut self) -> i16 {
        mem::take(&mut self.last)
    }

    fn close(&mut self, outer: i16) {
        self.out.push(0);
        self.last = outer;
    }

    fn field(&mut self, kind: Kind, id: i16) {
        F::field(&mut self.out, self.last, kind, id);
        self.last = id;
    }

    fn text(&mut self, id: i16, text: &str) {
        self.field(Kind::Text, id);
        push_text::<F>(&mut self.out, text);
    }

    fn i32(&mut self, id: i16, value: i32) {
        self.field(Kind::I32, id);
        F::i32(&mut self.out, value);
    }

    fn i64(&mut self, id: i16, value: i64) {
        self.field(Kind::I64, id);
        F::i64(&mut self.out, value);
    }

    fn list(&mut self, id: i16, len: usize) {
        self.field(Kind::List, id);
        F::list_len(&mut self.out, len);
    }

    /// Says how long the list is whose head, that of an empty one, stands at `at`: that is known only
    /// when all of it is there. Nearly always the right head is as long.
    fn set_list_len(&mut self, at: usize, len: usize) {
        let end = self.out.len();
        F::list_len(&mut self.out, len);
        let head = self.out.len() - end;
        if head == F::EMPTY_LIST_BYTES {
            self.out.copy_within(end.., at);
            self.out.truncate(end);
        } else {
            self.out[at..].rotate_right(head);
            self.out.drain(at + head..at + head + F::EMPTY_LIST_BYTES);
        }
    }

    /// jaeger.thrift, `struct Span`.
    fn span(&mut self, span: &SpanRecord, tags: &mut Tags, kept: &mut Kept) {
        let context = &span.context;
        let outer = self.open();
        // The two halves of the id.
        #[allow(clippy::cast_possible_truncation)]
        let (low, high) = (context.trace_id as u64, (context.trace_id >> 64) as u64);
        self.i64(1, low.cast_signed());
        self.i64(2, high.cast_signed());
        self.i64(3, context.span_id.cast_signed());
        self.i64(4, context.parent_id.cast_signed());
        self.text(5, &tags.operation(span));
        let links = span.links().count();
        if links > 0 {
            self.list(6, links);
            span.links().for_each(|link| self.reference(link));
        }
        self.i32(7, context.flags.0.into());
        self.i64(8, micros(span.start_unix_ns));
        self.i64(9, micros(span.duration_ns));
        self.field(Kind::List, 10);
        let (at, mut count) = (self.out.len(), 0);
        F::list_len(&mut self.out, count);
        tags.each(span, TagList::<F>::new(&mut self.out, &mut count, kept));
        self.set_list_len(at, count);
        self.close(outer);
    }

    /// jaeger.thrift, `struct SpanRef`: FOLLOWS_FROM is 1.
    fn reference(&mut self, (trace_id, span_id): (u128, u64)) {
        let outer = self.open();
        self.i32(1, 1);
        // The two halves of the id.
        #[allow(clippy::cast_possible_truncation)]
        let (low, high) = (trace_id as u64, (trace_id >> 64) as u64);
        self.i64(2, low.cast_signed());
        self.i64(3, high.cast_signed());
        self.i64(4, span_id.cast_signed());
        self.close(outer);
    }
}

#[cfg(test)]
#[path = "thrift_tests.rs"]
mod tests;
