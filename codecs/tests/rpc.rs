//! brpc and tRPC: what the metas of their frames can say, whatever a frame says wrongly.

mod kit;

use kit::{Part, Pieces, Taster, ask, say, tell};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

fn told(protocol: Protocol, parts: &[Part]) -> Vec<String> {
    let whole = tell(protocol, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(3), Pieces::Passing] {
        assert_eq!(tell(protocol, parts, pieces), whole, "{pieces:?}: {parts:?}");
    }
    whole
}

fn lines<'t>(told: &'t [String], begin: &str) -> Vec<&'t str> {
    told.iter().filter_map(|line| line.strip_prefix(begin)).collect()
}

/// The same without bytes.
fn came_to(told: &[String]) -> Vec<&str> {
    lines(told, "done ").iter().map(|line| line.rsplit_once(' ').unwrap().0).collect()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn text(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn prpc(meta: &[u8], body: &[u8]) -> Vec<u8> {
    let len = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    [b"PRPC", &len(meta.len() + body.len())[..], &len(meta.len()), meta, body].concat()
}

fn call(id: u64) -> Part {
    let request = [text(1, "shop.Cart"), text(2, "Add"), text(7, "s3cret")].concat();
    ask(prpc(&[text(1, request), number(4, id)].concat(), b"s3cret"))
}

fn answer(id: u64, code: i64) -> Part {
    let response = [number(1, code.cast_unsigned()), text(2, "s3cret")].concat();
    say(prpc(&[text(2, response), number(4, id)].concat(), b"s3cret"))
}

#[test]
fn brpc_answers_are_found_by_id_and_errors_named() {
    let bare = say(prpc(&number(4, 4), b"s3cret"));
    let told = told(
        Protocol::Brpc,
        &[call(1), call(2), call(3), call(4), answer(3, 0), answer(1, 1234), answer(2, 2004), bare],
    );
    let open = "request shop.Cart/Add service=shop.Cart method=Add";
    assert_eq!(lines(&told, "open ")[0], format!("0 {open}"));
    assert_eq!(
        came_to(&told),
        [
            "2 request call ok",
            "0 request call app_error 1234 error",
            "1 request call protocol_error 2004 ELIMIT",
            "3 request call ok",
        ]
    );
    assert!(!told.join("\n").contains("s3cret"));
}

/// Frames of streams come among calls, and a server's call to a client over the same connection
/// is no answer.
#[test]
fn brpc_what_is_no_exchange() {
    let stream = b"STRM\0\0\0\x0a\0\0\0\x08\x08\0\x10\0\x18\x03 \0m6";
    let told = told(
        Protocol::Brpc,
        &[
            call(1),
            ask(stream),
            say(stream),
            say(call(9).bytes),
            ask(answer(9, 0).bytes),
            answer(1, 0),
        ],
    );
    assert_eq!(lines(&told, "aside ").len(), 4, "{told:?}");
    assert_eq!(lines(&told, "aside part").len(), 2);
    assert_eq!(came_to(&told), ["0 request call ok"]);
}

#[test]
fn brpc_that_is_none() {
    for (bytes, reason) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), "not_this_protocol"),
        (b"PRPD\0\0\0\0\0\0\0\0".to_vec(), "not_this_protocol"),
        (b"PRPC\0\0\0\x01\0\0\0\x02\0".to_vec(), "malformed"),
        (prpc(b"", b""), "malformed"),
        (prpc(b"\x0b", b""), "malformed"),
        (prpc(&text(1, b"\x0a\x05a"), b"")[..14].to_vec(), ""),
        (prpc(&number(4, 1), b""), "malformed"),
        (b"PRPC\x7f\xff\xff\xff\0\0\0\x04\0\0\0\0".to_vec(), "too_large"),
        (b"\x16\x03\x01\0\x05".to_vec(), "tls"),
    ] {
        let told = told(Protocol::Brpc, &[ask(&bytes)]);
        let tunnel = lines(&told, "tunnel ").first().copied().unwrap_or_default();
        assert_eq!(tunnel, reason, "{}", bytes.escape_ascii());
    }
    assert_eq!(told(Protocol::Brpc, &[answer(1, 0)]), ["tunnel server_first"]);
}

fn trpc((kind, frame): (u8, u8), stream: u32, meta: &[u8], body: &[u8]) -> Vec<u8> {
    let total = u32::try_from(16 + meta.len() + body.len()).unwrap().to_be_bytes();
    let len = u16::try_from(meta.len()).unwrap().to_be_bytes();
    let head = [&[0x09, 0x30, kind, frame][..], &total, &len, &stream.to_be_bytes(), &[1, 0]];
    [&head.concat()[..], meta, body].concat()
}

fn entry(key: &str, value: &str) -> Vec<u8> {
    [text(1, key), text(2, value)].concat()
}

fn hello(id: u64, kind: u64) -> Part {
    let names = [text(6, "trpc.shop.Cart"), text(7, "/trpc.shop.Cart/Add")].concat();
    let meta = [number(2, kind), number(3, id), names, text(9, entry("user", "u1"))].concat();
    ask(trpc((0, 0), 7, &meta, b"s3cret"))
}

fn reply(id: u64, framework: u64, method: u64) -> Part {
    let meta = [number(3, id), number(4, framework), number(5, method), text(6, "s3cret")].concat();
    say(trpc((0, 0), 7, &meta, b"s3cret"))
}

#[test]
fn trpc_calls_and_their_answers() {
    let told = told(
        Protocol::Trpc,
        &[
            hello(1, 0),
            hello(2, 0),
            hello(3, 1),
            hello(4, 0),
            reply(4, 0, 0),
            reply(1, 0, 77),
            reply(2, 22, 0),
        ],
    );
    let names = "service=trpc.shop.Cart method=/trpc.shop.Cart/Add user:u1";
    assert_eq!(lines(&told, "open ")[0], format!("0 request trpc.shop.Cart/Add {names}"));
    assert_eq!(
        came_to(&told),
        [
            "2 oneway oneway sent",
            "3 request call ok",
            "0 request call app_error 77 error",
            "1 request call protocol_error 22 server_overload",
        ]
    );
    assert!(!told.join("\n").contains("s3cret"));
}

/// A stream is over when the server says so: refused, ended, or reset.
#[test]
fn trpc_streams() {
    let begin = |stream| {
        let call = [text(2, "trpc.shop.Cart"), text(3, "/trpc.shop.Cart/Watch")].concat();
        let call = [call, text(5, entry("traceparent", "00-1"))].concat();
        ask(trpc((1, 1), stream, &text(1, call), b""))
    };
    let frame = |kind, stream, meta: &[u8]| trpc((1, kind), stream, meta, b"data");
    let refused = text(2, [number(1, 12), text(2, "s3cret")].concat());
    let told = told(
        Protocol::Trpc,
        &[
            begin(100),
            begin(101),
            begin(102),
            begin(103),
            hello(100, 0),
            say(frame(1, 100, &text(2, b""))),
            say(frame(1, 101, &refused)),
            ask(frame(2, 100, b"")),
            ask(frame(3, 100, &number(1, 65535))),
            say(frame(2, 100, b"")),
            ask(frame(4, 100, b"")),
            say(frame(4, 100, b"")),
            say(frame(4, 102, &[number(1, 1), text(3, "s3cret")].concat())),
            say(frame(4, 103, &[number(2, 0), number(6, 5)].concat())),
            reply(100, 0, 0),
        ],
    );
    let names = "service=trpc.shop.Cart method=/trpc.shop.Cart/Watch traceparent:00-1";
    assert_eq!(lines(&told, "open ")[0], format!("0 blocking trpc.shop.Cart/Watch {names}"));
    assert_eq!(
        came_to(&told),
        [
            "1 blocking stream protocol_error 12 no_func",
            "0 blocking stream ok",
            "2 blocking stream app_error reset",
            "3 blocking stream app_error 5 error",
            "4 request call ok",
        ]
    );
    assert_eq!(lines(&told, "aside part").len(), 5);
    assert!(!told.join("\n").contains("s3cret"));
}

#[test]
fn trpc_that_is_none() {
    for (bytes, reason) in [
        (b"\x09\x31".to_vec(), "not_this_protocol"),
        (trpc((2, 0), 1, b"", b""), "malformed"),
        (trpc((1, 0), 1, b"", b""), "malformed"),
        (trpc((1, 5), 1, b"", b""), "malformed"),
        (trpc((0, 0), 1, b"\x0b", b""), "malformed"),
        (trpc((1, 1), 1, b"\x0b", b""), "malformed"),
        (b"\x09\x30\0\0\0\0\0\x0f\0\0\0\0\0\0\0\0".to_vec(), "malformed"),
        (b"\x09\x30\0\0\0\0\0\x10\0\x01\0\0\0\0\0\0".to_vec(), "malformed"),
        (b"\x09\x30\0\0\x7f\0\0\0\0\x01\0\0\0\0\0\0".to_vec(), "too_large"),
        (b"\x16\x03".to_vec(), "tls"),
    ] {
        let told = told(Protocol::Trpc, &[ask(&bytes)]);
        assert_eq!(lines(&told, "tunnel "), [reason], "{}", bytes.escape_ascii());
    }
    for bytes in [trpc((1, 1), 1, b"\x0b", b""), trpc((1, 4), 1, b"\x0b", b"")] {
        let told = told(Protocol::Trpc, &[hello(1, 0), say(bytes)]);
        assert_eq!(lines(&told, "tunnel "), ["malformed"]);
    }
    assert_eq!(told(Protocol::Trpc, &[reply(1, 0, 0)]), ["tunnel server_first"]);
}

/// Of a body of any length nothing is held or looked at.
#[test]
fn long_bodies_pass() {
    for (protocol, mut request, answer, at) in [
        (Protocol::Brpc, call(1).bytes, answer(1, 0), 4),
        (Protocol::Trpc, hello(1, 0).bytes, reply(1, 0, 0), 4),
    ] {
        let more: u32 = 64 << 20;
        let len = u32::from_be_bytes(*request[at..].first_chunk().unwrap()) + more;
        request[at..at + 4].copy_from_slice(&len.to_be_bytes());
        // As much as is read of one.
        request.resize(4096, 0);
        let all = u64::from(len) + if protocol == Protocol::Brpc { 12 } else { 0 };
        let mut taster = Taster::new(protocol, Limits::DEFAULT);
        taster.show(&ask(&request));
        assert_eq!(taster.tap.passable(Way::Request), all - 4096, "{protocol}");
        taster.tap.passed(Way::Request, all - 4096);
        taster.show(&ask(""));
        taster.show(&answer);
        taster.end();
        assert_eq!(came_to(&taster.told), ["0 request call ok"]);
        assert_eq!(taster.held_most, 0);
    }
}
