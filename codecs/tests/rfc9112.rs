//! RFC 9112 as tables: what is HTTP, where it ends, and what is not touched.

mod support;

use netra_codecs::Limits;
use netra_codecs::h1::{
    Advance, BodyCursor, Framing, HeadReader, Reason, RequestKind, ResponseHead, Version,
};
use support::{Event, Sidecar, expected_head};

/// Field lines of a request (each with CRLF), by framing or reason.
const REQUEST_FRAMING: &[(&str, Result<Framing, Reason>)] = &[
    ("", Ok(Framing::Length(0))),
    ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
    ("content-length:7\r\n", Ok(Framing::Length(7))),
    ("CONTENT-LENGTH: \t 7 \t \r\n", Ok(Framing::Length(7))),
    ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
    ("transfer-encoding:ChUnKeD \r\n", Ok(Framing::Chunked)),
    ("TE: gzip, chunked\r\n", Ok(Framing::Length(0))),
    ("X-Content-Length: 5\r\nContent-Lengths: 6\r\n", Ok(Framing::Length(0))),
    // Two that say how long.
    ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(Reason::BothLengths)),
    ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Err(Reason::BothLengths)),
    ("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", Err(Reason::BothLengths)),
    ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(Reason::RepeatedContentLength)),
    ("Content-Length: 5\r\ncontent-length: 6\r\n", Err(Reason::RepeatedContentLength)),
    ("Content-Length: 5\r\nContent-Length:\r\n", Err(Reason::RepeatedContentLength)),
    // Lengths that are not plain numbers.
    ("Content-Length:\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: +5\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: -5\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: 5, 5\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: 5,6\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: 5;6\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: 0x5\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: 05\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: 5 6\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: 5.0\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: \u{665}\r\n", Err(Reason::BadContentLength)),
    ("Content-Length: 9223372036854775808\r\n", Err(Reason::HugeContentLength)),
    ("Content-Length: 18446744073709551621\r\n", Err(Reason::HugeContentLength)),
    // Codings other than chunked alone.
    ("Transfer-Encoding:\r\n", Err(Reason::OddTransferEncoding)),
    ("Transfer-Encoding: identity\r\n", Err(Reason::OddTransferEncoding)),
    ("Transfer-Encoding: gzip, chunked\r\n", Err(Reason::OddTransferEncoding)),
    ("Transfer-Encoding: chunked, gzip\r\n", Err(Reason::OddTransferEncoding)),
    ("Transfer-Encoding: chunked, chunked\r\n", Err(Reason::OddTransferEncoding)),
    ("Transfer-Encoding: xchunked\r\n", Err(Reason::OddTransferEncoding)),
    ("Transfer-Encoding: chunked;a=b\r\n", Err(Reason::OddTransferEncoding)),
    ("Transfer-Encoding: \"chunked\"\r\n", Err(Reason::OddTransferEncoding)),
    ("Transfer-Encoding: chunked,\r\n", Err(Reason::OddTransferEncoding)),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        Err(Reason::RepeatedTransferEncoding),
    ),
    (
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        Err(Reason::RepeatedTransferEncoding),
    ),
    // Names that a lax server may take for the real ones.
    ("Content_Length: 5\r\n", Err(Reason::OddFramingName)),
    ("transfer_encoding: chunked\r\n", Err(Reason::OddFramingName)),
    ("Content-Length : 5\r\n", Err(Reason::SpaceBeforeColon)),
    ("Transfer-Encoding\t: chunked\r\n", Err(Reason::SpaceBeforeColon)),
    ("A: b\r\nTransfer-Encoding : chunked\r\n", Err(Reason::SpaceBeforeColon)),
    (" Content-Length: 5\r\n", Err(Reason::ObsFold)),
    ("A: b\r\n Content-Length: 5\r\n", Err(Reason::ObsFold)),
    ("Content-Length:\r\n 5\r\n", Err(Reason::ObsFold)),
    ("Transfer-Encoding:\r\n\tchunked\r\n", Err(Reason::ObsFold)),
    ("A: b\nContent-Length: 5\r\n", Err(Reason::BareLf)),
    ("A: b\rContent-Length: 5\r\n", Err(Reason::BareCr)),
    ("Transfer-Encoding: \x0bchunked\r\n", Err(Reason::BadField)),
    ("Transfer-Encoding: chunked\x0c\r\n", Err(Reason::BadField)),
    ("Content-Length\0: 5\r\n", Err(Reason::Nul)),
    ("Content-Length: 5\0\r\n", Err(Reason::Nul)),
    ("Content-Length\r\n", Err(Reason::BadField)),
    (": 5\r\n", Err(Reason::BadField)),
    ("A\x01: 5\r\n", Err(Reason::BadField)),
    ("A: \x7f\r\n", Err(Reason::BadField)),
    ("(A): b\r\n", Err(Reason::BadField)),
];

#[test]
fn request_framing() {
    for &(lines, expected) in REQUEST_FRAMING {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        sidecar.client(text.as_bytes());
        match expected {
            Ok(framing) => {
                let event = Event::Request { method: "POST".into(), target: "/".into(), framing };
                assert_eq!(sidecar.events, [event], "{lines:?}");
                assert_eq!(sidecar.to_server, expected_head(text.as_bytes(), 1), "{lines:?}");
            }
            Err(reason) => {
                assert_eq!(sidecar.events, [Event::RequestOpaque(reason)], "{lines:?}");
                assert_eq!(sidecar.to_server, text.as_bytes(), "{lines:?}");
            }
        }
    }
}

#[test]
fn request_lines() {
    for (line, expected) in [
        ("GET / HTTP/1.1", Ok((RequestKind::Ordinary, Version::Http11))),
        ("get /x?y#z HTTP/1.0", Ok((RequestKind::Ordinary, Version::Http10))),
        ("HEAD http://a/ HTTP/1.1", Ok((RequestKind::Head, Version::Http11))),
        ("CONNECT a:443 HTTP/1.1", Ok((RequestKind::Connect, Version::Http11))),
        ("OPTIONS * HTTP/1.1", Ok((RequestKind::Ordinary, Version::Http11))),
        ("M-SEARCH * HTTP/1.1", Ok((RequestKind::Ordinary, Version::Http11))),
        ("GET /\u{e9}\u{4e16} HTTP/1.1", Ok((RequestKind::Ordinary, Version::Http11))),
        ("GET /a\"<>[]{}|\\^` HTTP/1.1", Ok((RequestKind::Ordinary, Version::Http11))),
        ("Head / HTTP/1.1", Err(Reason::OddMethod)),
        ("connect a:1 HTTP/1.1", Err(Reason::OddMethod)),
        ("GET / HTTP/1.2", Err(Reason::BadVersion)),
        ("GET / HTTP/3.7", Err(Reason::BadVersion)),
        ("GET / HTTP/1.10", Err(Reason::BadVersion)),
        ("GET / http/1.1", Err(Reason::NotHttp)),
        ("GET / HTTP/1.1 ", Err(Reason::NotHttp)),
        ("GET /", Err(Reason::NotHttp)),
        ("GET", Err(Reason::NotHttp)),
        ("GET  / HTTP/1.1", Err(Reason::NotHttp)),
        ("GET\t/ HTTP/1.1", Err(Reason::NotHttp)),
        ("GET /  HTTP/1.1", Err(Reason::BadVersion)),
        ("GET /a b HTTP/1.1", Err(Reason::BadVersion)),
        ("GET /\x01 HTTP/1.1", Err(Reason::BadRequestLine)),
        ("G(T / HTTP/1.1", Err(Reason::NotHttp)),
        ("GET <x HTTP/1.1", Err(Reason::NotHttp)),
        ("PRI * HTTP/2.0", Err(Reason::Http2Preface)),
    ] {
        let text = format!("{line}\r\nHost: a\r\n\r\n");
        let mut sidecar = Sidecar::new(Limits::DEFAULT);
        sidecar.client(text.as_bytes());
        match expected {
            Ok((kind, version)) => {
                let mut reader = HeadReader::new(Limits::DEFAULT);
                let head = reader.request(text.as_bytes()).unwrap();
                assert_eq!((head.kind(), head.version()), (kind, version), "{line:?}");
                assert_eq!(sidecar.to_server, expected_head(text.as_bytes(), 1), "{line:?}");
            }
            Err(reason) => {
                assert_eq!(sidecar.opaque(), Some(reason), "{line:?}");
                assert_eq!(sidecar.to_server, text.as_bytes(), "{line:?}");
            }
        }
    }
}

/// Framing that depends on method or version.
#[test]
fn request_framing_by_method_and_version() {
    for (text, expected) in [
        ("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", Ok(Framing::Length(3))),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(Framing::Chunked)),
        ("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n", Ok(Framing::Length(3))),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err(Reason::TransferEncodingInHttp10),
        ),
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Ok(Framing::Length(0))),
        ("CONNECT a:1 HTTP/1.1\r\nContent-Length: 3\r\n\r\n", Err(Reason::ConnectWithBody)),
        (
            "CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err(Reason::ConnectWithBody),
        ),
    ] {
        let mut reader = HeadReader::new(Limits::DEFAULT);
        let framing = reader.request(text.as_bytes()).map(|head| head.framing());
        assert_eq!(framing, expected, "{text:?}");
    }
}

#[test]
fn response_framing() {
    use Framing::{Chunked, Length, UntilClose};
    use RequestKind::{Connect, Head, Ordinary};
    for (kind, status_and_lines, expected) in [
        (Ordinary, "1.1 200 OK\r\nContent-Length: 5\r\n", Ok(Length(5))),
        (Ordinary, "1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", Ok(Chunked)),
        (Ordinary, "1.1 200 OK\r\n", Ok(UntilClose)),
        (Ordinary, "1.0 200 OK\r\n", Ok(UntilClose)),
        (Ordinary, "1.0 200 OK\r\nContent-Length: 5\r\n", Ok(Length(5))),
        (Ordinary, "1.1 205 Reset\r\nContent-Length: 0\r\n", Ok(Length(0))),
        (Ordinary, "1.1 404 No\r\nContent-Length: 0\r\n", Ok(Length(0))),
        // No body, whatever the fields say.
        (Head, "1.1 200 OK\r\nContent-Length: 5\r\n", Ok(Length(0))),
        (Head, "1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", Ok(Length(0))),
        (Head, "1.1 200 OK\r\n", Ok(Length(0))),
        (Head, "1.1 200 OK\r\nContent-Length: 5, 6\r\n", Ok(Length(0))),
        (Ordinary, "1.1 204 No\r\nContent-Length: 5\r\n", Ok(Length(0))),
        (Ordinary, "1.1 304 Same\r\nContent-Length: 5\r\n", Ok(Length(0))),
        (Ordinary, "1.1 100 Go\r\nContent-Length: 5\r\n", Ok(Length(0))),
        (Ordinary, "1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n", Ok(Length(0))),
        (Connect, "1.1 200 OK\r\nContent-Length: 5\r\n", Ok(Length(0))),
        (Connect, "1.1 299 OK\r\nTransfer-Encoding: chunked\r\n", Ok(Length(0))),
        (Connect, "1.1 407 Auth\r\nContent-Length: 5\r\n", Ok(Length(5))),
        // Doubts.
        (
            Ordinary,
            "1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Err(Reason::BothLengths),
        ),
        (
            Ordinary,
            "1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
            Err(Reason::RepeatedContentLength),
        ),
        (
            Ordinary,
            "1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
            Err(Reason::OddTransferEncoding),
        ),
        (
            Ordinary,
            "1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
            Err(Reason::TransferEncodingInHttp10),
        ),
        (Connect, "1.1 500 No\r\nContent-Length: x\r\n", Err(Reason::BadContentLength)),
    ] {
        let text = format!("HTTP/{status_and_lines}\r\n");
        let mut reader = HeadReader::new(Limits::DEFAULT);
        let head = reader.response(text.as_bytes());
        let framing = head.and_then(|head: ResponseHead<'_>| head.framing(kind));
        assert_eq!(framing, expected, "{kind:?} {text:?}");
    }
}

/// A chunked body, whole, by the offset of its end or by the reason; and each proper beginning of
/// a good one needs more.
#[test]
fn chunked_bodies() {
    for (body, expected) in [
        ("0\r\n\r\n", Ok(5)),
        ("5\r\nhello\r\n0\r\n\r\n", Ok(15)),
        ("5\r\nhello\r\n0\r\n\r\nGET /", Ok(15)),
        ("00000005\r\nhello\r\n0000\r\n\r\n", Ok(25)),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", Ok(35)),
        ("2\r\n\r\n\r\n0\r\n\r\n", Ok(12)),
        ("1;a\r\nx\r\n0;b=c;d=\"e;\\\"f\"\r\n\r\n", Ok(27)),
        ("1; a = b\r\nx\r\n0\r\n\r\n", Ok(18)),
        ("0\r\nA: b\r\n\r\n", Ok(11)),
        ("0\r\nA: b\r\nC:\r\n\r\n", Ok(15)),
        ("0\r\nA: \u{e9} \t\r\n\r\n", Ok(14)),
        ("\r\n", Err(Reason::BadChunkSize)),
        (";a\r\n", Err(Reason::BadChunkSize)),
        ("+5\r\nhello\r\n", Err(Reason::BadChunkSize)),
        ("-5\r\nhello\r\n", Err(Reason::BadChunkSize)),
        ("0x5\r\nhello\r\n", Err(Reason::BadChunkSize)),
        (" 5\r\nhello\r\n", Err(Reason::BadChunkSize)),
        ("5 \r\nhello\r\n", Err(Reason::BadChunkSize)),
        ("5\t;a\r\nhello\r\n", Err(Reason::BadChunkSize)),
        ("g\r\n", Err(Reason::BadChunkSize)),
        ("5,\r\nhello\r\n", Err(Reason::BadChunkSize)),
        ("5\nhello\r\n", Err(Reason::BareLf)),
        ("5\rhello\r\n", Err(Reason::BareCr)),
        ("5;a\nhello\r\n", Err(Reason::BareLf)),
        ("5;a\rb\r\nhello\r\n", Err(Reason::BareCr)),
        ("5;a=\"b\r\nhello\r\n", Err(Reason::BadChunkExtension)),
        ("5;a=\"b\\\"\r\nhello\r\n", Err(Reason::BadChunkExtension)),
        ("5;\0\r\nhello\r\n", Err(Reason::BadChunkExtension)),
        ("5\r\nhello0\r\n\r\n", Err(Reason::BadChunkEnd)),
        ("5\r\nhello\n0\r\n\r\n", Err(Reason::BadChunkEnd)),
        ("5\r\nhello\r0\r\n\r\n", Err(Reason::BadChunkEnd)),
        ("5\r\nhello\n\n0\r\n\r\n", Err(Reason::BadChunkEnd)),
        ("5\r\nhello\r\r\n0\r\n\r\n", Err(Reason::BadChunkEnd)),
        ("7fffffffffffffff\r\n", Ok(usize::MAX)),
        ("8000000000000000\r\n", Err(Reason::HugeChunk)),
        ("ffffffffffffffff1\r\n", Err(Reason::HugeChunk)),
        ("00000000000000005\r\n", Err(Reason::HugeChunk)),
        ("0\r\n\rX", Err(Reason::BareCr)),
        ("0\r\n\n", Err(Reason::BareLf)),
        ("0\r\n A: b\r\n\r\n", Err(Reason::ObsFold)),
        ("0\r\nA: b\r\n c\r\n\r\n", Err(Reason::ObsFold)),
        ("0\r\nA: b\n\r\n", Err(Reason::BareLf)),
        ("0\r\nA: b\rc\r\n\r\n", Err(Reason::BareCr)),
        ("0\r\nA: \0\r\n\r\n", Err(Reason::Nul)),
        ("0\r\nA : b\r\n\r\n", Err(Reason::BadTrailer)),
        ("0\r\nA\r\n\r\n", Err(Reason::BadTrailer)),
        ("0\r\n: b\r\n\r\n", Err(Reason::BadTrailer)),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", Err(Reason::BadTrailer)),
    ] {
        let mut cursor = BodyCursor::new(Framing::Chunked, &Limits::DEFAULT);
        let advance = cursor.advance(body.as_bytes());
        match expected {
            Ok(usize::MAX) => assert_eq!(advance, Advance::More, "{body:?}"),
            Ok(end) => {
                assert_eq!(advance, Advance::End(end), "{body:?}");
                for len in 0..end {
                    let mut cursor = BodyCursor::new(Framing::Chunked, &Limits::DEFAULT);
                    assert_eq!(cursor.advance(&body.as_bytes()[..len]), Advance::More);
                }
            }
            Err(reason) => {
                let is_same = matches!(advance, Advance::Bad(_, found) if found == reason);
                assert!(is_same, "{body:?}: {advance:?}");
            }
        }
    }
}
