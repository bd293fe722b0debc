//! What a peer sends without end, or too much of, turns opaque within the limits.

mod support;

use netra_codecs::Limits;
use netra_codecs::h1::{Advance, BodyCursor, Framing, Reason};
use support::Sidecar;

const HEAD_BYTES_MAX: usize = Limits::DEFAULT.head_bytes_max as usize;

/// Feeds the client's bytes in receive buffers; returns the most that was held.
fn feed(sidecar: &mut Sidecar, bytes: &[u8]) -> usize {
    let mut most = 0;
    for buffer in bytes.chunks(16 * 1024) {
        sidecar.client(buffer);
        most = most.max(sidecar.request.held_len());
    }
    most
}

#[test]
fn heads_that_are_too_long_are_relayed() {
    let endless_line = [&b"GET / HTTP/1.1\r\nA: "[..], &vec![b'x'; 1 << 20]].concat();
    let endless_target = [&b"GET /"[..], &vec![b'x'; 1 << 20]].concat();
    let many_bytes =
        [&b"GET / HTTP/1.1\r\n"[..], &b"A: 0123456789012345\r\n".repeat(10_000)].concat();
    let long = vec![b'x'; 300];
    let long_lines =
        [&b"GET / HTTP/1.1\r\n"[..], &[b"A: ", &long[..], b"\r\n"].concat().repeat(250)].concat();
    for (bytes, reason) in [
        (&endless_line, Reason::HeadTooLong),
        (&endless_target, Reason::HeadTooLong),
        (&many_bytes, Reason::TooManyFields),
        (&long_lines, Reason::HeadTooLong),
    ] {
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        let most = feed(&mut sidecar, bytes);
        assert!(most <= HEAD_BYTES_MAX, "{most}");
        assert_eq!(sidecar.opaque(), Some(reason));
        assert_eq!(sidecar.to_server, *bytes);
    }
}

#[test]
fn response_heads_that_are_too_long_only_stop_the_tap() {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    sidecar.client(b"GET / HTTP/1.1\r\n\r\n");
    let head = [&b"HTTP/1.1 200 OK\r\nA: "[..], &vec![b'x'; 1 << 20]].concat();
    let mut most = 0;
    for buffer in head.chunks(16 * 1024) {
        sidecar.server(buffer);
        most = most.max(sidecar.response.held_len());
    }
    assert!(most <= HEAD_BYTES_MAX && most > 0);
    assert_eq!((sidecar.opaque(), sidecar.to_client), (Some(Reason::HeadTooLong), head));
}

#[test]
fn a_head_of_exactly_the_limit_is_http() {
    let pad = HEAD_BYTES_MAX - b"GET / HTTP/1.1\r\nA: \r\n\r\n".len();
    let mut head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(pad)).into_bytes();
    assert_eq!(head.len(), HEAD_BYTES_MAX);
    for piece in [1, 4096, HEAD_BYTES_MAX] {
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        head.chunks(piece).for_each(|piece| sidecar.client(piece));
        assert_eq!((sidecar.opaque(), sidecar.events.len()), (None, 1));
    }
    head.insert(20, b'x');
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    sidecar.client(&head);
    assert_eq!((sidecar.opaque(), sidecar.to_server), (Some(Reason::HeadTooLong), head));
}

#[test]
fn exactly_the_number_of_fields() {
    for (fields, expected) in [(256, None), (257, Some(Reason::TooManyFields))] {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(fields));
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        sidecar.client(head.as_bytes());
        assert_eq!(sidecar.opaque(), expected);
    }
}

#[test]
fn chunk_extensions_and_trailers_have_an_end() {
    let limits = Limits { chunk_extension_bytes_max: 10, trailer_bytes_max: 12, ..Limits::DEFAULT };
    for (body, expected) in [
        // The CR that ends them is counted with the extensions.
        ("1;12345678\r\n", Advance::More),
        ("1;123456789\r\n", Advance::More),
        ("1;1234567890\r\n", Advance::Bad(12, Reason::ChunkExtensionsTooLong)),
        ("1;123\r\nx\r\n1;123\r\nx\r\n1;1", Advance::More),
        ("1;123\r\nx\r\n1;123\r\nx\r\n1;123\r\n", Advance::Bad(24, Reason::ChunkExtensionsTooLong)),
        ("0\r\nA: 1234567\r\n\r\n", Advance::End(17)),
        ("0\r\nA: 12345678\r\n\r\n", Advance::Bad(15, Reason::TrailersTooLong)),
        ("0\r\nA: 1\r\nB: 1\r\n\r\n", Advance::End(17)),
        ("0\r\nA: 1\r\nB: 1\r\nC:\r\n\r\n", Advance::Bad(15, Reason::TrailersTooLong)),
    ] {
        for piece in [1, 2, 3, body.len()] {
            let mut cursor = BodyCursor::new(Framing::Chunked, &limits);
            let mut taken = 0;
            let mut advance = Advance::More;
            for piece in body.as_bytes().chunks(piece) {
                advance = match cursor.advance(piece) {
                    Advance::More => Advance::More,
                    Advance::End(count) => Advance::End(taken + count),
                    Advance::Bad(count, reason) => Advance::Bad(taken + count, reason),
                };
                taken += piece.len();
                if advance != Advance::More {
                    break;
                }
            }
            assert_eq!(advance, expected, "{body:?}, {piece} at a time");
        }
    }
}

#[test]
fn endless_extensions_and_trailers_turn_opaque() {
    for (start, again, reason) in [
        ("1;", "x", Reason::ChunkExtensionsTooLong),
        ("1;\"", "x", Reason::ChunkExtensionsTooLong),
        ("", "1;aaaaaaaa\r\nx\r\n", Reason::ChunkExtensionsTooLong),
        ("0\r\nA: ", "x", Reason::TrailersTooLong),
        ("0\r\n", "x", Reason::TrailersTooLong),
        ("0\r\n", "A: b\r\n", Reason::TrailersTooLong),
    ] {
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        sidecar.edits = false;
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let bytes = format!("{head}{start}{}", again.repeat((100 << 10) / again.len()));
        let most = feed(&mut sidecar, bytes.as_bytes());
        assert_eq!((most, sidecar.opaque()), (0, Some(reason)), "{start:?} {again:?}");
        assert_eq!(sidecar.to_server, bytes.as_bytes());
    }
}

/// A head that drips in is scanned once: 64 KiB byte by byte in well under a second, which a scan
/// from the beginning each time (2 GiB of looking) would not be.
#[test]
fn a_dripping_head_is_scanned_once() {
    let line = format!("A: {}\r\n", "x".repeat(60_000));
    let head = format!("GET / HTTP/1.1\r\n{line}\r\n");
    let begin = std::time::Instant::now();
    for _ in 0..8 {
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        head.as_bytes().chunks(1).for_each(|byte| sidecar.client(byte));
        assert_eq!(sidecar.events.len(), 1);
    }
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

#[test]
fn only_bytes_of_an_unfinished_head_are_held() {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    let head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(40_000));
    head.as_bytes().chunks(16 * 1024).for_each(|piece| sidecar.client(piece));
    assert_eq!(sidecar.request.held_len(), 0);
    sidecar.client(b"GET / HTTP/1.1\r\n");
    assert_eq!(sidecar.request.held_len(), 16);
    sidecar.client(b"\r\n");
    assert_eq!((sidecar.events.len(), sidecar.opaque()), (2, None));
}
