//! The message parser: by table, and each message cut at every point.

use super::*;

struct Case {
    role: Role,
    bytes: &'static str,
    /// Bytes of the message, status, keep-alive.
    want: (usize, u16, bool),
}

const fn case(role: Role, bytes: &'static str, extra: usize, status: u16, keep: bool) -> Case {
    Case { role, bytes, want: (bytes.len() - extra, status, keep) }
}

const CASES: &[Case] = &[
    case(Role::Response, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, 200, true),
    case(Role::Response, "HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhelloNEXT", 4, 200, true),
    case(Role::Response, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 0, 200, true),
    case(Role::Response, "HTTP/1.1 204 No Content\r\n\r\nX", 1, 204, true),
    case(Role::Response, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0, 304, true),
    case(Role::ResponseToHead, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 0, 200, true),
    case(
        Role::Response,
        "HTTP/1.1 503 Down\r\nConnection: Close\r\nContent-Length: 1\r\n\r\n!",
        0,
        503,
        false,
    ),
    case(Role::Response, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 0, 200, false),
    case(
        Role::Response,
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        0,
        200,
        true,
    ),
    case(
        Role::Response,
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 1\r\n\r\n.",
        0,
        201,
        true,
    ),
    case(Role::Response, "HTTP/1.1 101 Switching Protocols\r\n\r\nraw", 3, 101, true),
    case(
        Role::Response,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        0,
        200,
        true,
    ),
    case(
        Role::Response,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 3\r\n\r\n\
         a;x=\"y\"\r\n0123456789\r\n1\r\n\r\r\n00\r\nTrailer: yes\r\nMore: x\r\n\r\nrest",
        4,
        200,
        true,
    ),
    case(Role::Request, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, 0, true),
    case(Role::Request, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 0, 0, false),
    case(Role::Request, "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET", 3, 0, true),
    case(
        Role::Request,
        "POST /x y HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        0,
        0,
        true,
    ),
];

const BAD: &[(Role, &str, Malformed)] = &[
    (Role::Response, "HTTP/2 200 OK\r\n\r\n", Malformed::Start),
    (Role::Response, "HTTP/1.1 2000 OK\r\n\r\n", Malformed::Start),
    (Role::Response, "HTTP/1.1 20x OK\r\n\r\n", Malformed::Start),
    (Role::Response, "HTTP/1.1 099 Low\r\n\r\n", Malformed::Start),
    (Role::Request, "GET /\r\n\r\n", Malformed::Start),
    (Role::Request, "GET / HTTP/1.12\r\n\r\n", Malformed::Start),
    (Role::Response, "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Malformed::Header),
    (Role::Response, "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", Malformed::Length),
    (Role::Response, "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", Malformed::Length),
    (
        Role::Response,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        Malformed::Length,
    ),
    (
        Role::Response,
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        Malformed::Length,
    ),
    (Role::Request, "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", Malformed::Length),
    (Role::Response, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz", Malformed::Chunk),
    (Role::Response, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", Malformed::Chunk),
    (
        Role::Response,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab",
        Malformed::Chunk,
    ),
    (
        Role::Response,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1234567890123456\r\n",
        Malformed::Chunk,
    ),
    (
        Role::Response,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\r",
        Malformed::Chunk,
    ),
];

/// Feeds the pieces; the end of the message as an offset into the whole.
fn feed(parser: &mut MessageParser, pieces: &[&[u8]]) -> Result<Option<usize>, Malformed> {
    let mut offset = 0;
    for piece in pieces {
        if let Some(used) = parser.feed(piece)? {
            return Ok(Some(offset + used));
        }
        offset += piece.len();
    }
    Ok(None)
}

fn outcome(parser: &MessageParser, used: Option<usize>) -> (usize, u16, bool) {
    (used.expect("the message ends"), parser.status(), parser.is_keep_alive())
}

#[test]
fn messages_end_where_they_should() {
    for case in CASES {
        let mut parser = MessageParser::new(case.role);
        let used = feed(&mut parser, &[case.bytes.as_bytes()]).expect(case.bytes);
        assert_eq!(outcome(&parser, used), case.want, "{:?}", case.bytes);
        assert!(parser.is_between(), "{:?}", case.bytes);
    }
}

#[test]
fn every_split_point_gives_the_same() {
    for case in CASES {
        let bytes = case.bytes.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let mut parser = MessageParser::new(case.role);
                let used = feed(&mut parser, &pieces).expect(case.bytes);
                assert_eq!(outcome(&parser, used), case.want, "{first} {second} {:?}", case.bytes);
            }
        }
    }
}

#[test]
fn bad_messages_are_refused_however_they_are_cut() {
    for &(role, text, want) in BAD {
        let bytes = text.as_bytes();
        for cut in 0..=bytes.len() {
            let mut parser = MessageParser::new(role);
            let got = feed(&mut parser, &[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(got, Err(want), "cut at {cut}: {text:?}");
        }
    }
}

#[test]
fn a_response_without_length_ends_with_the_connection() {
    let mut parser = MessageParser::new(Role::Response);
    assert_eq!(parser.feed(b"HTTP/1.1 200 OK\r\n\r\nsome"), Ok(None));
    assert!(parser.is_ended_by_close() && !parser.is_keep_alive());
    assert_eq!(parser.feed(b" more"), Ok(None));
    parser.reset();
    assert!(parser.is_between() && !parser.is_ended_by_close());
}

#[test]
fn an_endless_head_is_refused() {
    let mut parser = MessageParser::new(Role::Response);
    let line = [b'a'; 4096];
    let refused = (0..100).find_map(|_| parser.feed(&line).err());
    assert_eq!(refused, Some(Malformed::TooLong));
}

#[test]
fn pipelined_messages_come_one_by_one() {
    let two = b"GET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx";
    let mut parser = MessageParser::new(Role::Request);
    let first = parser.feed(two).unwrap().expect("one");
    assert_eq!(first, 19);
    assert_eq!(parser.feed(&two[first..]), Ok(Some(two.len() - first)));
}

#[test]
fn a_head_that_is_known_means_what_it_meant() {
    for case in CASES {
        let (length, bytes) = (case.want.0, case.bytes.as_bytes());
        let mut parser = MessageParser::new(case.role);
        for turn in 0..3 {
            assert_eq!(parser.feed(&bytes[..length]), Ok(Some(length)), "{turn} {:?}", case.bytes);
            assert_eq!((parser.status(), parser.is_keep_alive()), (case.want.1, case.want.2));
        }
    }
    // What follows a known head is read by itself, and another head is not taken for it.
    let mut parser = MessageParser::new(Role::Response);
    let first = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
    let other = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nc";
    assert_eq!(parser.feed(first), Ok(Some(first.len())));
    assert_eq!(parser.feed(&first[..first.len() - 1]), Ok(None));
    assert_eq!(parser.feed(b"b"), Ok(Some(1)));
    assert_eq!(parser.feed(other), Ok(Some(other.len())));
    assert_eq!(parser.feed(first), Ok(Some(first.len())));
}
