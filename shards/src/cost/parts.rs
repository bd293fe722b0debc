//! The parts of a request's cost, each alone.

use super::allocations_of;
use netra_codecs::{
    Limits,
    h1::{Exchanges, HeadReader, RequestHalf, RequestStep, ResponseHalf, ResponseStep},
    trace::{KeySeed, RequestKey, TraceContext, TraceFlags, TtlMap},
};
use std::hint::black_box;

/// The gate finds the end of a request's head, reads it and opens its exchange.
pub(super) fn request_head(bytes: &[u8], times: u32) -> u64 {
    let mut reader = HeadReader::new(Limits::DEFAULT);
    let mut exchanges = Exchanges::<()>::new();
    let mut half = RequestHalf::new();
    let read = |times| {
        for _ in 0..times {
            let step = half.step(black_box(bytes), &mut reader, &mut exchanges, 1);
            let RequestStep::Head { head, consumed, .. } = step else { panic!("{step:?}") };
            black_box(head);
            assert_eq!(consumed, bytes.len());
            assert_eq!(exchanges.drain().count(), 1);
        }
    };
    allocations_of(read, times)
}

/// The tap finds the end of a response's head, reads it, passes its body and finishes the exchange;
/// and the least that can be done for its request.
pub(super) fn response_head(bytes: &[u8], times: u32) -> u64 {
    let mut reader = HeadReader::new(Limits::DEFAULT);
    let mut exchanges = Exchanges::<()>::new();
    let (mut gate, mut tap) = (RequestHalf::new(), ResponseHalf::new());
    let read = |times| {
        for _ in 0..times {
            let request = b"GET / HTTP/1.1\r\n\r\n";
            let step = gate.step(request, &mut reader, &mut exchanges, 1);
            assert!(matches!(step, RequestStep::Head { .. }));
            let mut rest = black_box(bytes);
            loop {
                match tap.step(rest, &mut reader, &mut exchanges) {
                    ResponseStep::Head { head, consumed, .. } => {
                        black_box(head);
                        rest = &rest[consumed..];
                    }
                    ResponseStep::Body(len) => rest = &rest[len..],
                    ResponseStep::Finish(done) => break assert_eq!(done.status, Some(200)),
                    step => panic!("{step:?}"),
                }
            }
        }
    };
    allocations_of(read, times)
}

/// A context is remembered, another one found, and the oldest expires.
pub(super) fn context(times: u32) -> u64 {
    const TTL: u64 = 1_000;
    let seed = KeySeed::from_random([1, 2, 3]);
    let mut map = TtlMap::new(32_768, TTL, &seed);
    let mut now = 0;
    let turn_over = |times| {
        for _ in 0..times {
            now += 1;
            let context = TraceContext::root(now.into(), now, TraceFlags::SAMPLED);
            map.put(key_of(now, &seed), context, now);
            let found = map.get(&key_of(now / 4 * 4, &seed), now).copied();
            assert!(found.is_some() || now < 4);
        }
        assert_eq!(u64::from(now > TTL), u64::from(map.counts().expired > 0));
    };
    allocations_of(turn_over, times)
}

/// The key of a request id like those that are made up: 36 bytes.
fn key_of(number: u64, seed: &KeySeed) -> RequestKey {
    let mut id = *b"4f0c7a52-6b1e-4e55-9a7b-3a2d1f0e9c88";
    id[..8].copy_from_slice(&black_box(number).to_le_bytes());
    RequestKey::new(&id, seed)
}
