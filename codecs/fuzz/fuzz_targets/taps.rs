//! Any bytes, of either way, in any pieces, as any protocol: what a tap says is the same however
//! they were cut, it holds no more than it may, and every exchange that was opened is handed out. What
//! can be edited or refused is, and what comes of it is bounded.
//!
//! `NETRA_FUZZ_PROTOCOL=redis` takes one protocol alone; `private` is one that is described.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::Limits;
use netra_codecs::codec::{
    Edits, Exchange, Head, Key, Kind, Outcome, Pairs, Reason, Refusal, Way, Why,
};
use netra_codecs::private::{
    Counts, Description, Field, Kinds, Length, LengthPart, Number, Operations, Order, Place,
    Private, Status,
};
use netra_codecs::tap::{Message, Protocol, Step, Tap};
use std::{env, sync::OnceLock};

const LIMITS: Limits = Limits {
    open_max: 5,
    message_head_bytes_max: 200,
    message_bytes_max: 100_000,
    held_keep_bytes: 50,
    statements_max: 3,
    ..Limits::DEFAULT
};

// The first byte says which protocol; then the input is a script: a control byte says who sends how
// many of the bytes behind it.
fuzz_target!(|script: &[u8]| {
    let Some((&first, script)) = script.split_first() else { return };
    let among = among();
    let protocol = among[usize::from(first) % among.len()];
    let whole = play(protocol, script, usize::MAX, false);
    for size in [1, 3] {
        assert_eq!(play(protocol, script, size, false), whole);
    }
    assert_eq!(play(protocol, script, usize::MAX, true), whole);
});

/// The protocols that inputs are taken for.
fn among() -> &'static [Protocol] {
    static PRIVATE: OnceLock<Private> = OnceLock::new();
    static AMONG: OnceLock<Vec<Protocol>> = OnceLock::new();
    AMONG.get_or_init(|| {
        let wanted = env::var("NETRA_FUZZ_PROTOCOL").unwrap_or_default();
        let private = PRIVATE.get_or_init(|| Private::described(description()).expect("good"));
        let private = Protocol::Private(private);
        let all = Protocol::ALL.iter().copied().chain([private]);
        all.filter(|it| wanted.is_empty() || it.about().name == wanted).collect()
    })
}

/// Every kind of place that a description may have.
fn description() -> Description {
    let number = |at, width| Number { at, width };
    let field = |key, place| Field { key, place };
    Description {
        name: "private",
        magic: Some((0, Box::new([b'M']))),
        order: Order::Little,
        header: 12,
        length: Length {
            parts: vec![
                LengthPart { number: number(1, 1), times: 256 },
                LengthPart { number: number(2, 1), times: 1 },
            ],
            counts: Counts::Body,
            trailer: 2,
            max: 70_000,
        },
        id: Some(number(3, 2)),
        kinds: Some(Kinds {
            number: number(5, 1),
            mask: 7,
            values: vec![
                (0, Kind::Request),
                (1, Kind::Response),
                (2, Kind::Oneway),
                (3, Kind::Heartbeat),
                (4, Kind::Push),
            ],
        }),
        status: Some(Status { number: number(6, 2), ok: vec![0] }),
        fields: vec![
            field(Key::Service, Place::Prefixed { at: 12, width: 1 }),
            field(Key::Method, Place::Behind { field: 0, width: 2 }),
            field(Key::Group, Place::Fixed { at: 8, len: 4 }),
            field(
                Key::ClientId,
                Place::Tagged { at: 12, tag_width: 1, length_width: 2, tag: 7 },
            ),
            field(
                Key::Database,
                Place::Protobuf { at: 12, len: Some(number(8, 2)), path: vec![1, 2] },
            ),
        ],
        operations: Operations::Named(vec!["a", "bc"]),
        reply: None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Opened(Kind, u8, Vec<u8>),
    Pair(Vec<u8>, Vec<u8>),
    Finished(u64, Outcome, i32, Vec<u8>, u64),
    Aside(Kind),
    Tunnel(Reason),
    Left(u64, Outcome),
}

fn parts(script: &[u8]) -> impl Iterator<Item = (Way, &[u8])> {
    let mut rest = script;
    std::iter::from_fn(move || {
        let (&control, after) = rest.split_first()?;
        let len = usize::from(control >> 1).min(after.len());
        let (part, after) = after.split_at(len);
        rest = after;
        Some((Way::BOTH[usize::from(control & 1)], part))
    })
}

fn play(protocol: Protocol, script: &[u8], size: usize, passing: bool) -> Vec<Told> {
    let mut tap = Tap::<u64>::new(protocol);
    let mut told = Vec::new();
    let mut number = 0;
    for (way, part) in parts(script) {
        let mut rest = part;
        while !rest.is_empty() {
            let size = if passing { 4 } else { size };
            let (piece, after) = rest.split_at(size.min(rest.len()));
            show(&mut tap, way, piece, &mut number, &mut told);
            rest = after;
            if passing && !told.iter().any(|it| matches!(it, Told::Tunnel(_))) {
                let count = tap.passable(way).min(rest.len() as u64);
                tap.passed(way, count);
                show(&mut tap, way, b"", &mut number, &mut told);
                rest = &rest[count as usize..];
            }
        }
    }
    told.extend(tap.drain().map(|(exchange, _)| Told::Left(exchange.data, exchange.outcome)));
    let handed_out = |it: &&Told| matches!(it, Told::Finished(..) | Told::Left(..));
    assert_eq!(told.iter().filter(handed_out).count() as u64, number);
    told
}

fn show(tap: &mut Tap<u64>, way: Way, mut input: &[u8], number: &mut u64, told: &mut Vec<Told>) {
    let (mut head, mut has_moved) = (Head::default(), true);
    loop {
        let consumed = match tap.step(way, input, &LIMITS, 0, &mut head) {
            Step::Need => break,
            Step::Body(count) | Step::Late(count) => {
                // A message may turn out to have ended.
                assert!(count > 0 || has_moved);
                has_moved = count > 0;
                input = &input[count..];
                continue;
            }
            Step::Opened { consumed, message, exchange } => {
                exchange.data = *number;
                *number += 1;
                told.push(Told::Opened(
                    message.kind(),
                    message.operation(),
                    message.name().concat(),
                ));
                read(&message, told);
                write(&message);
                consumed
            }
            Step::Answered { consumed, message, .. } => {
                read(&message, told);
                consumed
            }
            Step::Finished { consumed, message, exchange, error } => {
                if let Some(message) = message {
                    read(&message, told);
                }
                let error = error.to_vec();
                let Exchange { data, outcome, status, response_bytes, .. } = exchange;
                told.push(Told::Finished(data, outcome, status, error, response_bytes));
                consumed
            }
            Step::Aside { consumed, message } => {
                told.push(Told::Aside(message.kind()));
                read(&message, told);
                consumed
            }
            Step::Tunnel(reason) => {
                if !told.iter().any(|it| matches!(it, Told::Tunnel(_))) {
                    told.push(Told::Tunnel(reason));
                }
                break;
            }
        };
        has_moved = true;
        input = &input[consumed..];
    }
    let open = LIMITS.open_max as usize;
    assert!(tap.open_count() <= open);
    // Of PostgreSQL, what 256 prepared statements do.
    let prepared = 256 * 96;
    assert!(tap.held() <= 2 * LIMITS.message_head_bytes_max as usize + open * 64 + prepared);
}

fn read(message: &Message<'_>, told: &mut Vec<Told>) {
    message.pairs(|(name, value)| told.push(Told::Pair(name.to_vec(), value.to_vec())));
    for key in [Key::TopicCount, Key::MessageCount] {
        if let Some(number) = message.number(key) {
            told.push(Told::Pair(key.name().as_bytes().to_vec(), number.to_be_bytes().to_vec()));
        }
    }
    for key in [
        Key::RedisKey,
        Key::Database,
        Key::Service,
        Key::Method,
        Key::ServiceVersion,
        Key::Group,
        Key::ConsumerGroup,
        Key::ClientId,
        Key::Transaction,
    ] {
        if let Some(value) = message.value(key) {
            told.push(Told::Pair(key.name().as_bytes().to_vec(), value.to_vec()));
        }
    }
}

/// What is put into a message, and what its client is told in the place of an answer.
fn write(message: &Message<'_>) {
    let mut pairs = Pairs::new();
    pairs.add(b"traceparent", &[b'0'; 55]).expect("there is room");
    let mut edits = Edits::new();
    if message.edit(&pairs, &mut edits).is_ok() {
        let len: usize = edits.pieces(message.bytes()).map(|piece| piece.bytes().len()).sum();
        assert!(len <= 2 * message.bytes().len() + 1024);
    }
    let mut out = Vec::new();
    for why in Why::ALL {
        let _ = message.reply(&Refusal { why: *why, text: "refused", is_alone: true }, &mut out);
    }
    assert!(out.len() <= Why::ALL.len() * (message.bytes().len() + 1024));
}
