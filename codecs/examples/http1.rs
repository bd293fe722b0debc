//! HTTP/1 by its halves and as a `Codec`, for callgrind: `http1 TIMES halves|walked|table|fields`. Each time one
//! request and its answer are read, and all is asked that a shard asks of a traced request.
#![allow(missing_docs)]

use netra_codecs::Limits;
use netra_codecs::codec::{Edits, Head, Key, Pairs, Way};
use netra_codecs::h1::codec::{Http1, use_table, with_fields};
use netra_codecs::h1::{
    Exchanges, HeadPatch, HeadReader, RequestHalf, RequestStep, ResponseHalf, ResponseStep,
};
use netra_codecs::private::Private;
use netra_codecs::tap::{Message, Protocol, Step, Tap};
use netra_codecs::trace::{
    Formats, TraceContext, TraceFlags, extract, extract_from, inject, may_be_trace,
};
use std::hint::black_box;

const REQUEST: &[u8] = b"GET /api/v1/orders/12345?expand=items HTTP/1.1\r\n\
    Host: orders.shop.svc.cluster.local\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\n\
    X-Request-Id: 4f0c7a52-6b1e-4e55-9a7b-3a2d1f0e9c88\r\nCookie: session=abcdef0123456789\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 64\r\nDate: Thu, 26 Nov 2026 00:00:00 GMT\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234567890123";

fn main() {
    let mut args = std::env::args().skip(1);
    let times = args.next().and_then(|times| times.parse().ok()).unwrap_or(1_000_u32);
    let how = args.next().unwrap_or_default();
    let sent = match how.as_str() {
        "halves" => halves(times),
        "walked" | "table" => codec(times, how == "table", ask),
        "fields" => codec(times, true, ask_fields),
        other => panic!("{other}?"),
    };
    println!("{sent} bytes in {times} requests");
}

fn context(number: u32) -> TraceContext {
    TraceContext::root(0x1234_5678_9abc_def0 + u128::from(number), 7, TraceFlags(1))
}

/// As `shards/src/http` and `editor.rs` do it.
fn halves(times: u32) -> usize {
    let mut reader = HeadReader::new(Limits::DEFAULT);
    let mut exchanges = Exchanges::<u64>::new();
    let (mut gate, mut tap) = (RequestHalf::new(), ResponseHalf::new());
    let (mut patch, mut sent) = (HeadPatch::new(), 0);
    for number in 0..times {
        let step = gate.step(black_box(REQUEST), &mut reader, &mut exchanges, number.into());
        let RequestStep::Head { head, exchange, .. } = step else { panic!("{step:?}") };
        patch.clear();
        let id = head.field(b"x-request-id");
        let extracted = extract_from(head.fields());
        black_box((id, extracted.context));
        inject(&context(number), Formats::UBER, |name, value| {
            patch.set_own(head.fields(), name.as_bytes(), value).unwrap();
        });
        patch.set_own(head.fields(), b"X-Source", b"shop").unwrap();
        black_box((head.method(), head.target(), head.host(), head.field(b"user-agent")));
        sent += patch.pieces(head.bytes()).map(|piece| piece.bytes().len()).sum::<usize>();
        exchanges.get_mut(exchange).unwrap().data = 1;
        let mut rest = black_box(RESPONSE);
        loop {
            match tap.step(rest, &mut reader, &mut exchanges) {
                ResponseStep::Head { consumed, .. } => rest = &rest[consumed..],
                ResponseStep::Body(len) => rest = &rest[len..],
                ResponseStep::Finish(done) => break assert_eq!(done.status, Some(200)),
                step => panic!("{step:?}"),
            }
        }
    }
    sent
}

fn ask(message: &Message<'_>, pairs: &mut Pairs, edits: &mut Edits, number: u32) -> usize {
    pairs.clear();
    let mut id = None;
    message.pairs(|(name, value)| {
        if name.eq_ignore_ascii_case(b"x-request-id") && !value.is_empty() {
            id = id.or(Some(value));
        }
    });
    let mut found = [(&b""[..], &b""[..]); 12];
    let mut count = 0;
    message.pairs(|pair| {
        if may_be_trace(pair.0)
            && let Some(place) = found.get_mut(count)
        {
            *place = pair;
            count += 1;
        }
    });
    let extracted = (count > 0).then(|| extract(found[..count].iter().copied()).context);
    black_box((id, extracted));
    inject(&context(number), Formats::UBER, |name, value| {
        pairs.add(name.as_bytes(), value).unwrap();
    });
    pairs.add(b"X-Source", b"shop").unwrap();
    message.edit(pairs, edits).unwrap();
    black_box((message.name(), message.value(Key::Method)));
    black_box((message.value(Key::Service), message.value(Key::ClientId)));
    edits.pieces(message.bytes()).map(|piece| piece.bytes().len()).sum()
}

/// The same by an index of the fields, which no codec has: the most that the trait could give.
fn ask_fields(message: &Message<'_>, _: &mut Pairs, patch: &mut HeadPatch, number: u32) -> usize {
    with_fields(message.bytes(), |fields| {
        patch.clear();
        let id = fields.named(b"x-request-id").next();
        let extracted = extract_from(fields);
        black_box((id, extracted.context));
        inject(&context(number), Formats::UBER, |name, value| {
            patch.set_own(fields, name.as_bytes(), value).unwrap();
        });
        patch.set_own(fields, b"X-Source", b"shop").unwrap();
        black_box((message.name(), message.value(Key::Method)));
        black_box((fields.named(b"host").next(), fields.named(b"user-agent").next()));
        patch.pieces(message.bytes()).map(|piece| piece.bytes().len()).sum()
    })
}

/// As `shards/src/gate` does it for every other protocol.
fn codec<E: Default>(
    times: u32,
    has_table: bool,
    ask: impl Fn(&Message<'_>, &mut Pairs, &mut E, u32) -> usize,
) -> usize {
    use_table(has_table);
    let private: &'static Private = Box::leak(Box::new(Private::coded::<Http1>()));
    let mut tap = Tap::<u64>::new(Protocol::Private(private));
    let (mut pairs, mut edits, mut head) = (Pairs::new(), E::default(), Head::default());
    let (limits, mut sent) = (Limits::DEFAULT, 0);
    for number in 0..times {
        let step = tap.step(Way::Request, black_box(REQUEST), &limits, number.into(), &mut head);
        let Step::Opened { message, exchange, .. } = step else { panic!("not opened") };
        sent += ask(&message, &mut pairs, &mut edits, number);
        exchange.data = 1;
        let step = tap.step(Way::Response, black_box(RESPONSE), &limits, number.into(), &mut head);
        let Step::Finished { exchange, consumed, .. } = step else { panic!("not finished") };
        assert_eq!((exchange.status, consumed), (200, RESPONSE.len()));
    }
    sent
}
