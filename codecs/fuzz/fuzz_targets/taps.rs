//! Any bytes, of either way, in any pieces, as any protocol: what a tap says is the same however
//! they were cut, it holds no more than it may, and every exchange that was opened is handed out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::Limits;
use netra_codecs::codec::{Exchange, Head, Key, Kind, Outcome, Reason, Way};
use netra_codecs::tap::{Message, Protocol, Step, Tap};

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
    let protocol = Protocol::ALL[usize::from(first) % Protocol::ALL.len()];
    let whole = play(protocol, script, usize::MAX, false);
    for size in [1, 3] {
        assert_eq!(play(protocol, script, size, false), whole);
    }
    assert_eq!(play(protocol, script, usize::MAX, true), whole);
});

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
            Step::Body(count) => {
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
