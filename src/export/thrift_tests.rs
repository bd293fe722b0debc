//! Our encoder against `opentelemetry-jaeger`: what a decoder sees of random spans is the same. And
//! against itself: the binary form says what the compact one says.

use super::super::{
    ExportPlan, Process, Reporter, Semconv,
    jaeger_sdk::{Sdk, Spans},
};
use super::*;
use netra_codecs::{
    tap::Protocol as Tapped,
    trace::{
        Outcome, SamplerTag, SpanKind, SpanText, TraceContext, TraceFlags, span::VALUE_BYTES_MAX,
    },
};
use std::{net::UdpSocket, time::Duration};

/// What stands on the wire, without its field types.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Vec<u8>),
    List(Vec<Self>),
    Struct(Vec<(i16, Self)>),
}

impl Node {
    fn field(&self, id: i16) -> &Self {
        let Self::Struct(fields) = self else { panic!("{self:?} is no struct") };
        fields.iter().find(|(found, _)| *found == id).map(|(_, node)| node).expect("a field")
    }

    /// A process with its tags in the order of their names, but for its service's name, which the
    /// library says twice.
    fn with_sorted_tags(mut self) -> Self {
        if let Self::Struct(fields) = &mut self {
            for (_, node) in fields {
                if let Self::List(tags) = node {
                    tags.retain(|tag| *tag.field(1) != Self::Text(b"service.name".to_vec()));
                    tags.sort_by_key(|tag| format!("{:?}", tag.field(1)));
                }
            }
        }
        self
    }
}

/// Reads either form; panics on what is none.
struct Reader<'w> {
    wire: &'w [u8],
    is_compact: bool,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.wire.split_at(count);
        self.wire = rest;
        taken.to_vec()
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    fn zigzag(&mut self) -> i64 {
        let value = self.varint();
        (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
    }

    fn be<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }

    fn len(&mut self) -> usize {
        let len = match self.is_compact {
            true => self.varint(),
            false => u32::from_be_bytes(self.be()).into(),
        };
        usize::try_from(len).unwrap()
    }

    fn compact(&mut self, kind: u8) -> Node {
        match kind {
            1 => Node::Bool(true),
            2 => Node::Bool(false),
            5 | 6 => Node::Int(self.zigzag()),
            7 => Node::Double(f64::from_le_bytes(self.be())),
            8 => self.text(),
            9 => {
                let head = self.byte();
                let len = if head >> 4 == 15 { self.len() } else { (head >> 4).into() };
                Node::List((0..len).map(|_| self.compact(head & 15)).collect())
            }
            12 => {
                let (mut fields, mut id) = (Vec::new(), 0);
                loop {
                    let head = self.byte();
                    if head == 0 {
                        return Node::Struct(fields);
                    }
                    let delta = i16::from(head >> 4);
                    id =
                        if delta == 0 { i16::try_from(self.zigzag()).unwrap() } else { id + delta };
                    fields.push((id, self.compact(head & 15)));
                }
            }
            _ => panic!("compact type {kind}"),
        }
    }

    fn binary(&mut self, kind: u8) -> Node {
        match kind {
            2 => Node::Bool(self.byte() == 1),
            4 => Node::Double(f64::from_be_bytes(self.be())),
            8 => Node::Int(i32::from_be_bytes(self.be()).into()),
            10 => Node::Int(i64::from_be_bytes(self.be())),
            11 => self.text(),
            12 => {
                let mut fields = Vec::new();
                loop {
                    let kind = self.byte();
                    if kind == 0 {
                        return Node::Struct(fields);
                    }
                    let id = i16::from_be_bytes(self.be());
                    fields.push((id, self.binary(kind)));
                }
            }
            15 => {
                let (kind, len) = (self.byte(), self.len());
                Node::List((0..len).map(|_| self.binary(kind)).collect())
            }
            _ => panic!("binary type {kind}"),
        }
    }

    fn text(&mut self) -> Node {
        let len = self.len();
        Node::Text(self.take(len))
    }
}

/// The batch of an `emitBatch` message.
fn batch_of_message(packet: &[u8]) -> Node {
    let mut reader = Reader { wire: packet, is_compact: true };
    assert_eq!(reader.take(2), [0x82, 0x81]);
    reader.varint();
    assert_eq!(reader.text(), Node::Text(b"emitBatch".to_vec()));
    let args = reader.compact(12);
    assert!(reader.wire.is_empty());
    args.field(1).clone()
}

fn batch_of_body(body: &[u8]) -> Node {
    let mut reader = Reader { wire: body, is_compact: false };
    let batch = reader.binary(12);
    assert!(reader.wire.is_empty());
    batch
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number of any length in bits, 64 and none among them.
    fn number(&mut self) -> u64 {
        let bits = self.below(65);
        self.next().checked_shr(u32::try_from(64 - bits).unwrap()).unwrap_or(0)
    }

    fn text(&mut self) -> Vec<u8> {
        let len = [0, 1, 14, 15, 127, 128, 300][usize::try_from(self.below(7)).unwrap()];
        let letters = b"abc/?=&%41 \xc3\xa9\xff\"";
        let letter = |random: &mut Self| {
            letters[usize::try_from(random.below(letters.len() as u64)).unwrap()]
        };
        (0..len).map(|_| letter(self)).collect()
    }
}

fn random_span(random: &mut Random) -> SpanRecord {
    // The library drops what it holds to be no span: ids of zero.
    let trace_id = u128::from(random.number()) << 64 | u128::from(random.number().max(1));
    let flags = TraceFlags(random.next().to_le_bytes()[0]);
    let mut context = TraceContext::root(trace_id, random.number().max(1), flags);
    context.parent_id = random.number();
    let kind = [SpanKind::Server, SpanKind::Client][usize::try_from(random.below(2)).unwrap()];
    // To the second of Unix time that fits its nanoseconds into a record.
    let mut span = SpanRecord::begin(context, kind, random.number() >> 1);
    span.duration_ns = random.number() >> 1;
    span.overhead_ns = random.number();
    span.status = [0, 200, 404, 500, 599][usize::try_from(random.below(5)).unwrap()];
    span.outcome = [Outcome::Whole, Outcome::Timeout, Outcome::UpstreamGone]
        [usize::try_from(random.below(3)).unwrap()];
    span.request_bytes = (random.below(2) == 0).then(|| random.number());
    span.response_bytes = (random.below(2) == 0).then(|| random.number());
    // Two of them are kept in one place.
    span.remote = [None, Some("10.1.2.3:4"), Some("10.1.9.3:68"), Some("[2001:db8::1]:65535")]
        [usize::try_from(random.below(4)).unwrap()]
    .map(|address| address.parse().unwrap());
    span.sampler = [
        None,
        Some(SamplerTag::Const(random.below(2) == 0)),
        Some(SamplerTag::Probabilistic(0.1)),
        Some(SamplerTag::LowerBound(f64::MIN_POSITIVE)),
    ][usize::try_from(random.below(4)).unwrap()];
    span.protocol = [None, Some(Tapped::Redis), Some(Tapped::Dubbo), Some(Tapped::Kafka)]
        [usize::try_from(random.below(4)).unwrap()]
    .map(Tapped::about);
    span.is_refused = random.below(2) == 0;
    for what in [
        SpanText::Operation,
        SpanText::Error,
        SpanText::Method,
        SpanText::Target,
        SpanText::Host,
        SpanText::RequestId,
        SpanText::UserAgent,
        SpanText::DebugId,
        SpanText::Mapped(0),
    ] {
        if random.below(4) > 0 {
            span.put(what, &random.text());
        }
    }
    span
}

fn plan(semconv: Semconv, port: u16) -> ExportPlan {
    ExportPlan {
        service_name: "shop \u{20ac}".into(),
        reporter: Reporter::Agent { host: "127.0.0.1".into(), port, resolve_every: None },
        semconv,
        query: crate::mask::Query::Names,
        mapped_tags: vec!["mapped".into()],
        process_tags: vec![("a".into(), "b".into()), ("client-uuid".into(), "1".into())],
        queue_spans: 1,
        flush_interval: Duration::from_secs(1),
        logs_spans: false,
        headers_file: String::new(),
    }
}

/// What the library sends for these spans.
fn by_the_library(plan: &ExportPlan, tags: &mut Tags, spans: &[SpanRecord]) -> Node {
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    agent.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut sdk = Sdk::new("127.0.0.1", agent.local_addr().unwrap().port(), plan);
    let mut theirs = Spans::default();
    spans.iter().for_each(|span| theirs.push(span, tags));
    assert_eq!(theirs.count(), spans.len());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(sdk.send(theirs)).unwrap();
    let mut packet = vec![0; 65_536];
    let len = agent.recv(&mut packet).unwrap();
    batch_of_message(&packet[..len])
}

#[test]
fn random_spans_read_the_same_from_the_library_and_in_both_forms() {
    let mut random = Random(7);
    for round in 0..200 {
        let semconv =
            [Semconv::Legacy, Semconv::Otel, Semconv::Both][usize::try_from(round % 3).unwrap()];
        let plan = plan(semconv, 1);
        let mut tags = Tags::new(semconv, plan.mapped_tags.clone(), true);
        // Both heads of a list: fewer than 15, and more.
        let spans: Vec<_> = (0..1 + round % 24).map(|_| random_span(&mut random)).collect();
        let process = Process::jaeger(&plan);
        let (mut compact, mut binary) = (Batch::message(&process), Batch::bare(&process));
        for span in &spans {
            compact.push(span, &mut tags);
            binary.push(span, &mut tags);
        }
        assert!(compact.take().is_some_and(|(packet, count)| {
            let ours = batch_of_message(&packet);
            let (body, _) = binary.take().unwrap();
            assert_eq!(batch_of_body(&body), ours, "round {round}");
            let theirs = by_the_library(&plan, &mut tags, &spans);
            assert_eq!(theirs.field(2), ours.field(2), "round {round}");
            let sorted = |batch: &Node| batch.field(1).clone().with_sorted_tags();
            assert_eq!(sorted(&theirs), sorted(&ours), "round {round}");
            count == spans.len()
        }));
        assert!(compact.take().is_none());
    }
}

/// A batch never weighs more than it says beforehand.
#[test]
fn a_batch_is_as_long_as_it_says_at_most() {
    let plan = plan(Semconv::Both, 1);
    let mut tags = Tags::new(Semconv::Both, vec![], true);
    let mut batch = Batch::message(&Process::jaeger(&plan));
    let mut random = Random(9);
    let mut packets = 0;
    for _ in 0..2000 {
        let span = random_span(&mut random);
        if let Some((packet, _)) = batch.push_within(&span, &mut tags, 10_000) {
            assert!(packet.len() <= 10_000 && packet.len() > 10_000 - 8 * VALUE_BYTES_MAX);
            batch_of_message(&packet);
            packets += 1;
        }
        let said = batch.bytes();
        let mut copy = Batch::<Compact> {
            head: batch.head.clone(),
            spans: batch.spans.clone(),
            ..Batch::message(&Process::jaeger(&plan))
        };
        copy.count = batch.count();
        assert!(copy.take().unwrap().0.len() <= said);
    }
    assert!(packets > 50, "{packets}");
}

/// Every length of a number, each beginning and end of it.
#[test]
fn numbers_of_any_length_are_read_as_they_were() {
    let edges = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, u64::MAX >> bit, !1 << bit]);
    for number in edges.chain([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]) {
        let mut wire = vec![7];
        Compact::varint(&mut wire, number);
        let mut reader = Reader { wire: &wire[1..], is_compact: true };
        assert_eq!(reader.varint(), number, "{wire:?}");
        assert!(reader.wire.is_empty() && wire.last() < Some(&0x80), "{number:#x}: {wire:?}");
    }
}
