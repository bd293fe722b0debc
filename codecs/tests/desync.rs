//! Requests made to be read differently by two servers: netra must not be what makes them work.
//!
//! Each is sent with a second request behind it, which one server takes for a request and another
//! for a body. If netra edited that one, it would have taken a side. So from the doubtful head on
//! every byte goes out as it came, in one piece and dripped.

mod support;

use netra_codecs::Limits;
use netra_codecs::h1::Reason;
use support::{Sidecar, expected_head};

const SECOND: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Heads and bodies of which the first is doubtful itself.
const DOUBTFUL_HEADS: &[(&str, &str)] = &[
    ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n"),
    ("CL.0", "Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"),
    ("CL list", "Content-Length: 0, 5\r\n\r\nhello"),
    ("CL signed", "Content-Length: +5\r\n\r\nhello"),
    ("CL negative", "Content-Length: -1\r\n\r\n"),
    ("CL hexadecimal", "Content-Length: 0x5\r\n\r\nhello"),
    ("CL octal", "Content-Length: 010\r\n\r\nhello678"),
    ("CL exponent", "Content-Length: 1e1\r\n\r\n"),
    ("CL overflow to 5", "Content-Length: 18446744073709551621\r\n\r\nhello"),
    ("CL overflow to -1", "Content-Length: 18446744073709551615\r\n\r\n"),
    ("CL blank inside", "Content-Length: 1 0\r\n\r\n"),
    ("CL empty", "Content-Length: \r\n\r\n"),
    ("CL underscore", "Content_Length: 5\r\n\r\nhello"),
    ("CL blank before colon", "Content-Length : 5\r\n\r\nhello"),
    ("CL tab before colon", "Content-Length\t: 5\r\n\r\nhello"),
    ("CL behind NUL", "Content-Length\0: 5\r\n\r\nhello"),
    ("CL folded", "Content-Length:\r\n 5\r\n\r\nhello"),
    ("CL as continuation", "A: b\r\n Content-Length: 5\r\n\r\nhello"),
    ("CL behind bare LF", "A: b\nContent-Length: 5\r\n\r\nhello"),
    ("CL behind bare CR", "A: b\rContent-Length: 5\r\n\r\nhello"),
    ("CL first, indented", " Content-Length: 5\r\n\r\nhello"),
    ("TE twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n"),
    ("TE not last", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("TE list", "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    ("TE prefix", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("TE suffix", "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n"),
    ("TE vertical tab", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("TE quoted", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("TE parameter", "Transfer-Encoding: chunked; q=1\r\n\r\n0\r\n\r\n"),
    ("TE empty element", "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    ("TE underscore", "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE blank before colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("TE folded", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("TE behind bare LF", "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE control byte", "Transfer-Encoding: chunked\x01\r\n\r\n0\r\n\r\n"),
    ("head ends with LF LF", "A: b\n\n"),
    ("head ends with CR CR", "A: b\r\r"),
    ("head ends with CRLF LF", "A: b\r\n\n"),
];

/// Chunked bodies that go wrong after a good head.
const DOUBTFUL_CHUNKS: &[(&str, &str)] = &[
    ("signed", "+0\r\n\r\n"),
    ("negative", "-1\r\n\r\n"),
    ("prefixed", "0x0\r\n\r\n"),
    ("blank before", " 0\r\n\r\n"),
    ("blank behind", "0 \r\n\r\n"),
    ("empty", "\r\n\r\n"),
    ("overflow to 0", "10000000000000000\r\n\r\n"),
    ("64 bits", "ffffffffffffffff\r\n\r\n"),
    ("many zeros", "00000000000000000\r\n\r\n"),
    ("bare LF", "0\n\n"),
    ("bare LF in extension", "1;a\nx\r\n0\r\n\r\n"),
    ("bare CR in extension", "1;a\rx\r\n0\r\n\r\n"),
    ("open quotation", "1;a=\"\r\nx\r\n0\r\n\r\n"),
    ("NUL in extension", "1;\0\r\nx\r\n0\r\n\r\n"),
    ("data longer than its size", "1\r\nxy\r\n0\r\n\r\n"),
    ("data closed by LF", "1\r\nx\n0\r\n\r\n"),
    ("data closed by LF LF", "1\r\nx\n\n0\r\n\r\n"),
    ("data not closed", "1\r\nx0\r\n\r\n"),
    ("trailer without colon", "0\r\nGET / HTTP/1.1\r\n\r\n"),
    ("trailer folded", "0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer with bare LF", "0\r\nA: b\nB: c\r\n\r\n"),
    ("trailer with NUL", "0\r\nA: \0\r\n\r\n"),
    ("trailer with blank name", "0\r\nA b: c\r\n\r\n"),
    ("end with LF", "0\r\n\n"),
];

fn send(bytes: &[u8], piece: usize) -> Sidecar {
    let mut sidecar = Sidecar::new(Limits::DEFAULT);
    for piece in bytes.chunks(piece) {
        sidecar.client(piece);
    }
    sidecar.client_end();
    sidecar
}

#[test]
fn doubtful_heads_and_all_behind_them_are_not_edited() {
    for (name, rest) in DOUBTFUL_HEADS {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}{SECOND}");
        for piece in [1, 2, 7, bytes.len()] {
            let sidecar = send(bytes.as_bytes(), piece);
            assert_eq!(sidecar.to_server, bytes.as_bytes(), "{name}, {piece} at a time");
            assert!(sidecar.request.is_opaque() && sidecar.exchanges.is_empty(), "{name}");
        }
    }
}

#[test]
fn doubtful_first_lines_are_not_edited() {
    for line in [
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked",
        "CONNECT a:1 HTTP/1.1\r\nContent-Length: 5",
        "head / HTTP/1.1",
        "GET / HTTP/1.1 HTTP/1.1 x",
        "GET / HTTP/0.9",
        "GET / HTTP/1.1\0",
        "GET\0/ HTTP/1.1",
        "GET / HTTP/1.1\r",
        "\nGET / HTTP/1.1",
    ] {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n0\r\n\r\n{SECOND}");
        for piece in [1, 2, 7, bytes.len()] {
            let sidecar = send(bytes.as_bytes(), piece);
            assert_eq!(sidecar.to_server, bytes.as_bytes(), "{line:?}, {piece} at a time");
            assert!(sidecar.request.is_opaque(), "{line:?}");
        }
    }
}

#[test]
fn doubtful_chunks_and_all_behind_them_are_not_edited() {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (name, body) in DOUBTFUL_CHUNKS {
        let rest = format!("3\r\nabc\r\n{body}{SECOND}");
        let bytes = [HEAD, rest.as_bytes()].concat();
        let expected = [&expected_head(HEAD, 1)[..], rest.as_bytes()].concat();
        for piece in [1, 2, 7, bytes.len()] {
            let sidecar = send(&bytes, piece);
            assert_eq!(sidecar.to_server, expected, "{name}, {piece} at a time");
            assert!(sidecar.request.is_opaque(), "{name}");
        }
    }
}

/// Of a doubtful request in a pipeline, those before it keep their edits and their spans.
#[test]
fn requests_before_the_doubtful_one_are_unharmed() {
    let good = SECOND.as_bytes();
    let bad = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
    let sidecar = &mut send(&[good, good, bad, good].concat(), 5);
    let expected = [&expected_head(good, 1)[..], &expected_head(good, 2), bad, good].concat();
    assert_eq!(sidecar.to_server, expected);
    assert_eq!(sidecar.opaque(), Some(Reason::RepeatedContentLength));
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    sidecar.server(&ok.repeat(2));
    assert_eq!(sidecar.finished(), [(1, 200), (2, 200)]);
    sidecar.server(b"HTTP/1.1 400 Bad\r\n\r\n");
    assert_eq!(sidecar.finished().len(), 2);
    assert!(sidecar.response.is_opaque());
}
