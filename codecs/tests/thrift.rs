//! Thrift: framings, encodings, headers, ids that repeat, and how calls come out.

mod kit;

use kit::{LIMITS, Part, Pieces, Taster, ask, say, tell};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

const CALL: u8 = 1;
const REPLY: u8 = 2;
const EXCEPTION: u8 = 3;
const ONEWAY: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Binary,
    Lax,
    Compact,
}

fn len32(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap().to_be_bytes()
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// A message; `body` is its struct.
fn message(encoding: Encoding, kind: u8, name: &str, id: u32, body: &[u8]) -> Vec<u8> {
    let name_len = len32(name.len());
    match encoding {
        Encoding::Binary => {
            [&[0x80, 1, 0, kind][..], &name_len, name.as_bytes(), &id.to_be_bytes(), body].concat()
        }
        Encoding::Lax => {
            [&name_len[..], name.as_bytes(), &[kind], &id.to_be_bytes(), body].concat()
        }
        Encoding::Compact => {
            let (id, name_len) = (varint(id), varint(u32::try_from(name.len()).unwrap()));
            [&[0x82, kind << 5 | 1][..], &id, &name_len, name.as_bytes(), body].concat()
        }
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    [&len32(payload.len())[..], payload].concat()
}

/// With headers as Apache writes them.
fn headed(protocol: u8, transforms: &[u8], infos: &[u8], id: u32, payload: &[u8]) -> Vec<u8> {
    let count = u8::try_from(transforms.len()).unwrap();
    let mut header = [&[protocol, count][..], transforms, infos].concat();
    header.resize(header.len().next_multiple_of(4), 0);
    let words = u16::try_from(header.len() / 4).unwrap().to_be_bytes();
    framed(&[&[0x0f, 0xff, 0, 0][..], &id.to_be_bytes(), &words, &header, payload].concat())
}

fn told(parts: &[Part]) -> Vec<String> {
    let whole = tell(Protocol::Thrift, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(5), Pieces::Passing] {
        assert_eq!(tell(Protocol::Thrift, parts, pieces), whole, "{pieces:?}");
    }
    whole
}

/// Fields of every type, in both encodings; behind them the end of the struct.
fn every_type(encoding: Encoding) -> Vec<u8> {
    if encoding == Encoding::Compact {
        return [
            &[0x11, 0x12, 0x13, 7, 0x14, 0x80, 1, 0x15, 4, 0x16, 0xff, 0xff, 1][..],
            &[0x17, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x18, 3],
            b"abc",
            // Lists: of numbers, of strings, of structs, of truths, a long one, of nothing.
            &[0x19, 0x25, 2, 0x90, 1, 0x19, 0x28, 1, b'a', 0, 0x19, 0x1c, 0x15, 2, 0],
            &[0x19, 0x21, 1, 2, 0x1a, 0xf3, 16],
            &[9; 16],
            &[0x19, 0x05],
            // Maps: of nothing, of strings, of bytes, of structs of lists.
            &[0x1b, 0, 0x1b, 2, 0x88, 1, b'k', 1, b'v', 1, b'l', 0, 0x1b, 1, 0x33, 1, 2],
            &[0x1b, 1, 0x5c, 2, 0x19, 0x15, 2, 0],
            // A struct in a struct, an id that is no delta, an identifier.
            &[0x1c, 0x1c, 0, 0, 0x05, 0xc8, 1, 4, 0x1d],
            &[5; 16],
            &[0],
        ]
        .concat();
    }
    let field = |kind: u8, bytes: &[u8]| [&[kind, 0, 1][..], bytes].concat();
    [
        field(2, &[1]),
        field(3, &[7]),
        field(6, &[0, 1]),
        field(8, &[0; 4]),
        field(10, &[0; 8]),
        field(4, &[0; 8]),
        field(11, b"\0\0\0\x03abc"),
        field(11, b"\0\0\0\0"),
        field(12, &[8, 0, 1, 0, 0, 0, 1, 12, 0, 2, 0, 0]),
        field(13, b"\x0b\x0b\0\0\0\x01\0\0\0\x01k\0\0\0\0"),
        field(13, b"\x08\x03\0\0\0\x02\0\0\0\x01\x01\0\0\0\x02\x02"),
        field(13, b"\x0b\x0c\0\0\0\0"),
        field(13, b"\x08\x0c\0\0\0\x02\0\0\0\x01\0\0\0\0\x02\x02\0\x01\x01\0"),
        field(14, b"\x0a\0\0\0\x01\0\0\0\0\0\0\0\x01"),
        field(15, b"\x0c\0\0\0\x02\0\x02\0\x01\x01\0"),
        field(15, b"\x0f\0\0\0\x02\x08\0\0\0\x01\0\0\0\x01\x0b\0\0\0\x01\0\0\0\x01x"),
        field(15, b"\x08\0\0\0\0"),
        field(16, &[5; 16]),
        vec![0],
    ]
    .concat()
}

#[test]
fn every_type_in_every_form() {
    for encoding in [Encoding::Binary, Encoding::Lax, Encoding::Compact] {
        let body = every_type(encoding);
        let request = message(encoding, CALL, "shop.buy", 5, &body);
        let reply = message(encoding, REPLY, "shop.buy", 5, b"\0");
        let oneway = message(encoding, ONEWAY, "log", 6, &body);
        for is_framed in [true, false] {
            let wrap = |bytes: &[u8]| if is_framed { framed(bytes) } else { bytes.to_vec() };
            let parts = [
                ask(wrap(&request)),
                say(wrap(&reply)),
                ask(wrap(&oneway)),
                ask(wrap(&request)),
                say(wrap(&reply)),
            ];
            let extra = if is_framed { 4 } else { 0 };
            let sizes = format!("{}/{}", request.len() + extra, reply.len() + extra);
            assert_eq!(
                told(&parts),
                [
                    "open 0 request shop.buy method=shop.buy",
                    &format!("done 0 request call ok {sizes}"),
                    "open 1 oneway log method=log",
                    &format!("done 1 oneway oneway sent {}/0", oneway.len() + extra),
                    "open 2 request shop.buy method=shop.buy",
                    &format!("done 2 request call ok {sizes}"),
                ],
                "{encoding:?} framed {is_framed}"
            );
        }
    }
}

#[test]
fn how_calls_come_out() {
    let binary = |fields: &[u8]| fields.to_vec();
    let exception =
        |kind: u8| [&b"\x0b\0\x01\0\0\0\x03bad\x08\0\x02\0\0\0"[..], &[kind, 0]].concat();
    for (kind, body, expected) in [
        (REPLY, binary(b"\0"), "ok"),
        (REPLY, binary(b"\x0b\0\0\0\0\0\x01x\0"), "ok"),
        (REPLY, binary(b"\x0c\0\x01\0\0"), "app_error 1 exception"),
        (REPLY, binary(b"\x0c\0\x07\0\0"), "app_error 7 exception"),
        (EXCEPTION, exception(1), "protocol_error 1 unknown_method"),
        (EXCEPTION, exception(6), "protocol_error 6 internal_error"),
        (EXCEPTION, exception(11), "protocol_error 11 load_shedding"),
        (EXCEPTION, exception(99), "protocol_error 99 unknown"),
        (EXCEPTION, binary(b"\0"), "protocol_error unknown"),
        (EXCEPTION, binary(b"\x0b\0\x01\0\0\0\x03bad\0"), "protocol_error unknown"),
        (EXCEPTION, binary(b"\x08\0\x02\0\0\0\x03\0"), "protocol_error 3 wrong_method_name"),
    ] {
        for is_framed in [true, false] {
            let wrap = |bytes: &[u8]| if is_framed { framed(bytes) } else { bytes.to_vec() };
            let told = told(&[
                ask(wrap(&message(Encoding::Binary, CALL, "buy", 0, b"\0"))),
                say(wrap(&message(Encoding::Binary, kind, "buy", 0, &body))),
            ]);
            let said = told[1].rsplit_once(' ').unwrap().0;
            assert_eq!(said, format!("done 0 request call {expected}"), "{body:?} {is_framed}");
        }
    }
    for (kind, body, expected) in [
        (REPLY, &b"\x08\0\x01x\0"[..], "ok"),
        (REPLY, b"\x1c\0\0", "app_error 1 exception"),
        (REPLY, b"\x0c\x04\0\0", "app_error 2 exception"),
        (EXCEPTION, b"\x18\x03bad\x15\x0c\0", "protocol_error 6 internal_error"),
        (EXCEPTION, b"\x25\x02\0", "protocol_error 1 unknown_method"),
        (EXCEPTION, b"\0", "protocol_error unknown"),
    ] {
        let told = told(&[
            ask(message(Encoding::Compact, CALL, "buy", 0, b"\0")),
            say(message(Encoding::Compact, kind, "buy", 0, body)),
        ]);
        let said = told[1].rsplit_once(' ').unwrap().0;
        assert_eq!(said, format!("done 0 request call {expected}"), "{body:?}");
    }
}

fn call(name: &str, id: u32) -> Part {
    ask(framed(&message(Encoding::Binary, CALL, name, id, b"\0")))
}

fn reply(name: &str, id: u32) -> Part {
    say(framed(&message(Encoding::Binary, REPLY, name, id, b"\0")))
}

fn order(parts: &[Part]) -> Vec<String> {
    let told = told(parts);
    let lines = told.iter().filter(|line| line.starts_with("done") || line.starts_with("tunnel"));
    lines.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn ids_that_repeat_and_ids_that_do_not() {
    // Always 0: in order, and the names agree.
    let same =
        [call("a", 0), call("b", 0), call("a", 0), reply("a", 0), reply("b", 0), reply("a", 0)];
    assert_eq!(order(&same), ["done 0", "done 1", "done 2"]);
    // A server that is faster with one of them.
    let other =
        [call("a", 1), call("b", 2), reply("b", 2), call("c", 2), reply("c", 2), reply("a", 1)];
    assert_eq!(order(&other), ["done 1", "done 2", "done 0"]);
    // The same id for two methods: the name says whose answer it is.
    let names = [call("a", 0), call("b", 0), reply("b", 0), reply("a", 0)];
    assert_eq!(order(&names), ["done 1", "done 0"]);
    // An answer without a name, as some servers send, is believed by its id.
    assert_eq!(order(&[call("a", 3), reply("", 3)]), ["done 0"]);
    // One that fits nothing.
    for parts in [[call("a", 0), reply("b", 0)], [call("a", 0), reply("a", 1)]] {
        assert_eq!(order(&parts), ["tunnel answer_without_request"]);
    }
    let oneway = ask(framed(&message(Encoding::Binary, ONEWAY, "a", 0, b"\0")));
    assert_eq!(order(&[oneway, reply("a", 0)]), ["done 0", "tunnel answer_without_request"]);
}

#[test]
fn services_that_share_a_port() {
    let told = told(&[
        call("Cart:add", 1),
        reply("add", 1),
        call("Cart:add", 2),
        reply("Cart:add", 2),
        call(":x", 3),
    ]);
    assert_eq!(told[0], "open 0 request Cart:add service=Cart method=add");
    assert!(told[1].starts_with("done 0 ") && told[3].starts_with("done 1 "));
    assert_eq!(told[4], "open 2 request x method=x");
}

#[test]
fn headers_of_apache() {
    let payload = message(Encoding::Compact, CALL, "buy", 9, b"\0");
    let infos = b"\x01\x02\x0btraceparent\x0900-1-2-01\x01a\0";
    let parts = [
        ask(headed(2, &[], infos, 9, &payload)),
        say(headed(
            2,
            &[],
            b"\x01\x01\x01s\x01t",
            9,
            &message(Encoding::Compact, REPLY, "buy", 9, b"\0"),
        )),
    ];
    let said = told(&parts);
    assert_eq!(said[0], "open 0 request buy method=buy traceparent:00-1-2-01 a:");
    assert_eq!(said[1], "answer 0 s:t");
    assert!(said[2].starts_with("done 0 request call ok"));
    // Infos that are not key and value, or are cut short, are passed over.
    for infos in [
        &b"\x05\x01\x01a\x01b"[..],
        b"\x01\x05\x01a\x01b",
        b"\x01\xff\xff\xff\xff\x0f",
        b"\x01\x01\x7fab",
    ] {
        let told = told(&[ask(headed(2, &[], infos, 9, &payload))]);
        assert!(told[0].starts_with("open 0 request buy method=buy"), "{told:?}");
    }
    for (bytes, reason) in [
        (headed(2, &[1], b"", 9, b"\x78\x9c"), "compressed"),
        (headed(1, &[], b"", 9, b"[1]"), "unsupported"),
        (headed(0, &[], b"", 9, b"\x82\x21"), "malformed"),
        (framed(b"\x0f\xff\0\0\0\0\0\x09\xff\xff\0\0"), "malformed"),
        (framed(b"\x0f\xff\0\0"), "malformed"),
    ] {
        assert_eq!(told(&[ask(bytes)]), [format!("tunnel {reason}")]);
    }
}

#[test]
fn headers_of_kitex() {
    let payload = message(Encoding::Binary, CALL, "buy", 9, b"\0");
    let text = |text: &str| {
        [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    };
    let infos = [
        &[0, 0, 0x10, 0, 1, 0, 3][..],
        &text("shop"),
        &[0x01, 0, 2],
        &text("traceparent"),
        &text("00-1-2-01"),
        &text("b"),
        &text(""),
        &[0x11],
        &text("token"),
    ]
    .concat();
    for is_framed in [false, true] {
        let mut header = infos.clone();
        header.resize(header.len().next_multiple_of(4), 0);
        let words = u16::try_from(header.len() / 4).unwrap().to_be_bytes();
        let payload = if is_framed { framed(&payload) } else { payload.clone() };
        let frame = framed(&[&[0x10, 0, 0, 0, 0, 0, 0, 9][..], &words, &header, &payload].concat());
        let told = told(&[ask(frame)]);
        assert_eq!(told[0], "open 0 request buy method=buy traceparent:00-1-2-01 b:");
    }
}

#[test]
fn what_is_no_thrift() {
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n"[..], "not_this_protocol"),
        (b"\x16\x03\x01\0", "tls"),
        (b"\x80\x02\0\x01", "not_this_protocol"),
        (b"\0\0\0\x10[1,\"hello\",1,0,{}]", "not_this_protocol"),
        (b"\x7f\xff\xff\xff\x80\x01\0\x01", "not_this_protocol"),
        (b"\0\0\0\0\0\0\0\0", "malformed"),
        (b"\0\0\0\x08\x80\x01\0\x01\0\0\0\x05", "malformed"),
        (b"\0\0\0\x0c\x80\x01\0\x02\0\0\0\0\0\0\0\0", "malformed"),
        (b"\x80\x01\0\x01\x7f\xff\xff\xff", "malformed"),
        (b"\x80\x01\0\x01\xff\xff\xff\xff", "malformed"),
        (b"\x80\x01\0\x07\0\0\0\x01a\0\0\0\0", "malformed"),
        (b"\x82\x21\xff\xff\xff\xff\xff\xff", "malformed"),
    ] {
        assert_eq!(told(&[ask(bytes)]), [format!("tunnel {reason}")], "{bytes:?}");
    }
    // Behind a head that is one.
    for (body, reason) in [
        (&b"\x0b\0\x01\x7f\xff\xff\xff"[..], "too_large"),
        (b"\x0b\0\x01\xff\xff\xff\xff", "too_large"),
        (b"\x0f\0\x01\x0b\x7f\xff\xff\xff", "too_large"),
        (b"\x0d\0\x01\x0b\x0b\x7f\xff\xff\xff", "too_large"),
        (b"\x07\0\x01", "malformed"),
        (b"\x0f\0\x01\x01\0\0\0\x02", "malformed"),
        (&b"\x0c\0\x01".repeat(20), "nested_too_deep"),
        (&[&b"\x0f\0\x01"[..], &b"\x0f\0\0\0\x01".repeat(20)].concat(), "nested_too_deep"),
    ] {
        let told = told(&[ask(message(Encoding::Binary, CALL, "a", 0, body))]);
        assert_eq!(told[1], format!("tunnel {reason}"), "{body:?}");
    }
}

#[test]
fn long_values_pass() {
    let len: u32 = 64 << 20;
    let body = [&b"\x0b\0\x01"[..], &len.to_be_bytes()].concat();
    let start = message(Encoding::Binary, CALL, "put", 0, &body);
    let mut taster = Taster::new(Protocol::Thrift, Limits::DEFAULT);
    taster.show(&ask(&start));
    assert_eq!(taster.tap.passable(Way::Request), len.into());
    taster.tap.passed(Way::Request, len.into());
    assert!(taster.tap.is_within_message(Way::Request));
    taster.show(&ask(b"\0"));
    taster.show(&say(message(Encoding::Binary, REPLY, "put", 0, b"\0")));
    let asked = start.len() as u64 + u64::from(len) + 1;
    assert_eq!(*taster.told.last().unwrap(), format!("done 0 request call ok {asked}/16"));
    assert!(taster.held_most < 100);
    // Numbers of one size are passed over as one.
    let list = [&b"\x0f\0\x01\x0a"[..], &1_000_000_u32.to_be_bytes()].concat();
    taster.show(&ask(message(Encoding::Binary, CALL, "sum", 0, &list)));
    assert_eq!(taster.tap.passable(Way::Request), 8_000_000);
}

#[test]
fn more_than_may_be_open_is_given_up() {
    let mut taster = Taster::new(Protocol::Thrift, LIMITS);
    for _ in 0..=LIMITS.open_max {
        taster.show(&call("a", 0));
    }
    assert_eq!(taster.told.last().unwrap(), "tunnel too_many_open");
}
