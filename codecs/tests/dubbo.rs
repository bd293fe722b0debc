//! Dubbo: what the predecessor of such codecs stumbled over, and everything else that a frame can
//! say.

mod kit;

use kit::{LIMITS, Part, Pieces, Taster, ask, say, tell};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

const REQUEST: u8 = 0xc2;
const ONEWAY: u8 = 0x82;
const RESPONSE: u8 = 0x02;

fn frame(flags: u8, status: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xda, 0xbb, flags, status][..], &id.to_be_bytes(), &len, body].concat()
}

fn string(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().count();
    let head = match u8::try_from(units) {
        Ok(short @ 0..=0x1f) => vec![short],
        _ => [&[b'S'][..], &u16::try_from(units).unwrap().to_be_bytes()].concat(),
    };
    [&head[..], text.as_bytes()].concat()
}

fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<u8> =
        pairs.iter().flat_map(|(name, value)| [string(name), string(value)].concat()).collect();
    [&b"H"[..], &entries, b"Z"].concat()
}

/// The body of a call with these arguments, as their descriptor and their bytes.
fn call(descriptor: &str, arguments: &[u8], attachments: &[u8]) -> Vec<u8> {
    let strings = ["2.0.2", "org.demo.Greeter", "1.0.0", "sayHello", descriptor].map(string);
    [&strings.concat(), arguments, attachments].concat()
}

fn told(parts: &[Part]) -> Vec<String> {
    let whole = tell(Protocol::Dubbo, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(13), Pieces::Passing] {
        assert_eq!(tell(Protocol::Dubbo, parts, pieces), whole, "{pieces:?}");
    }
    whole
}

const OPENED: &str = "request org.demo.Greeter/sayHello service=org.demo.Greeter method=sayHello \
    version=1.0.0 protocol_version=2.0.2";

#[test]
fn a_trace_travels_behind_any_arguments() {
    let attachments = map(&[("traceparent", "00-1-2-01"), ("group", "blue")]);
    let class = [
        &b"C"[..],
        &string("org.demo.Who"),
        &[0x92],
        &string("name"),
        &string("age"),
        &[0x60],
        &string("joe"),
        &[0x90 + 7],
    ]
    .concat();
    let values: &[(&str, &[u8])] = &[
        ("", b""),
        ("I", &[0x90]),
        ("I", &[0xc8, 1]),
        ("I", &[0xd4, 1, 2]),
        ("I", b"I\0\x01\0\0"),
        ("J", &[0xe0]),
        ("J", &[0xf8, 1]),
        ("J", &[0x3c, 1, 2]),
        ("J", b"Y\0\x01\0\0"),
        ("J", b"L\0\0\0\x01\0\0\0\0"),
        ("D", &[0x5b]),
        ("D", &[0x5c]),
        ("D", &[0x5d, 5]),
        ("D", &[0x5e, 5, 6]),
        ("D", &[0x5f, 1, 2, 3, 4]),
        ("D", b"D12345678"),
        ("Z", b"T"),
        ("Ljava/util/Date;", &[0x4a, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("Ljava/util/Date;", &[0x4b, 1, 2, 3, 4]),
        ("[B", &[0x23, 1, 2, 3]),
        ("[B", &[0x34, 3, 1, 2, 3]),
        ("[B", b"A\0\x02abB\0\x01c"),
        ("[B", b"A\0\x02ab\x21c"),
        ("Ljava/lang/String;", b"\x02\xc3\xa4\xe2\x82\xac"),
        ("Ljava/lang/String;", b"\x31\x00                                                                                                                                                                                                                                                                "),
        ("Ljava/lang/String;", b"R\0\x02abS\0\x01c"),
        ("Ljava/lang/String;", b"R\0\x02ab\x01c"),
        // One character beyond the first plane, as Java writes it and as others do.
        ("Ljava/lang/String;", b"\x02\xed\xa0\xbd\xed\xb8\x80"),
        ("Ljava/lang/String;", b"\x02\xf0\x9f\x98\x80"),
        ("Ljava/util/List;", b"\x7a\x91\x92"),
        ("Ljava/util/List;", b"\x72\x04list\x91\x92"),
        ("Ljava/util/List;", b"X\x91\x01a"),
        ("Ljava/util/List;", b"V\x04list\x91\x01a"),
        ("Ljava/util/List;", b"W\x01a\x01bZ"),
        ("Ljava/util/List;", b"U\x04list\x01a\x01bZ"),
        ("Ljava/util/Map;", b"M\x03mapH\x01a\x01bZ\x90Z"),
        ("Ljava/util/Map;", b"H\x01a\x7a\x91H\x01b\x90ZZ"),
        ("Lorg/demo/Who;", &class),
        ("Ljava/lang/Object;", b"N"),
    ];
    for (descriptor, bytes) in values {
        let body = call(descriptor, bytes, &attachments);
        let told = told(&[ask(frame(REQUEST, 0, 7, &body))]);
        let expected = format!(
            "open 0 {} group=blue protocol_version=2.0.2 traceparent:00-1-2-01 group:blue",
            OPENED.trim_end_matches(" protocol_version=2.0.2")
        );
        assert_eq!(told[0], expected, "{descriptor} {bytes:?}");
    }
    // Two of them, the second of a class that the first has defined, and which are both the same.
    let arguments = [&class[..], b"O\x90\x03eve\x91", b"\x51\x90"].concat();
    let body = call("Lorg/demo/Who;Lorg/demo/Who;[[Lorg/demo/Who;", &arguments, &attachments);
    assert!(told(&[ask(frame(REQUEST, 0, 7, &body))])[0].ends_with("group:blue"));
}

/// Arguments that nobody can get past cost the attachments, and nothing else.
#[test]
fn arguments_that_are_odd() {
    let attachments = map(&[("traceparent", "00-1-2-01")]);
    let deep = b"W".repeat(100);
    let classes = [&b"C"[..], &string("X"), &[0x90]].concat().repeat(40);
    for (descriptor, bytes) in [
        ("I", &b"\x40"[..]),
        ("I", &deep),
        ("I", &classes),
        ("I", b"C\x01XI\x7f\xff\xff\xff"),
        ("I", b"V\x04listI\xff\xff\xff\xff"),
        ("I", b"O\x95"),
        ("I", b"\x1fabc"),
        ("I", b"S\xff\xff"),
        ("I", b"B\xff\xff"),
        ("Q", b"\x90"),
        ("L", b"\x90"),
        ("[", b"\x90"),
    ] {
        let body = call(descriptor, bytes, &attachments);
        let told = told(&[ask(frame(REQUEST, 0, 7, &body)), say(frame(RESPONSE, 20, 7, b"\x92"))]);
        assert_eq!(told[0], format!("open 0 {OPENED}"), "{descriptor} {bytes:?}");
        assert!(told[1].starts_with("done 0 request call ok 20"));
    }
}

/// Defects of the predecessor: a value that is no string, none at all, no attachments, status 80.
#[test]
fn every_response_is_an_answer() {
    let exception = [&b"C"[..], &string("java.lang.IllegalStateException"), &[0x90, 0x60]].concat();
    let with = |kind: u8, value: &[u8]| [&[kind][..], value, &map(&[("server", "a")])].concat();
    for (status, body, expected) in [
        (20, b"\x91\x05hello".to_vec(), "ok 20"),
        (20, b"\x91\x97".to_vec(), "ok 20"),
        (20, b"\x91T".to_vec(), "ok 20"),
        (20, b"\x92".to_vec(), "ok 20"),
        (20, b"".to_vec(), "ok 20"),
        (20, with(0x94, b"\x97"), "ok 20"),
        (20, with(0x95, b""), "ok 20"),
        (20, with(0x93, &exception), "app_error 20 java.lang.IllegalStateException"),
        (20, [&[0x90][..], &exception].concat(), "app_error 20 java.lang.IllegalStateException"),
        (20, b"\x90M\x08demo.BadZ".to_vec(), "app_error 20 demo.Bad"),
        (20, b"\x90N".to_vec(), "app_error 20 exception"),
        (30, string("late"), "protocol_error 30 client_timeout"),
        (31, string("late"), "protocol_error 31 server_timeout"),
        (40, string("bad"), "protocol_error 40 bad_request"),
        (50, string("bad"), "protocol_error 50 bad_response"),
        (60, string("none"), "protocol_error 60 service_not_found"),
        (70, string("none"), "protocol_error 70 service_error"),
        (80, string("oops"), "protocol_error 80 server_error"),
        (90, string("oops"), "protocol_error 90 client_error"),
        (100, string("full"), "protocol_error 100 server_threadpool_exhausted"),
        (7, string("what"), "protocol_error 7 unknown"),
    ] {
        let request = frame(REQUEST, 0, 1, &call("", b"", b"HZ"));
        let response = frame(RESPONSE, status, 1, &body);
        let told = told(&[ask(&request), say(&response)]);
        let sizes = format!("{}/{}", request.len(), response.len());
        assert_eq!(*told.last().unwrap(), format!("done 0 request call {expected} {sizes}"));
        let has_pairs = matches!(body.first(), Some(0x93..=0x95)) && status == 20;
        assert_eq!(told.contains(&"answer 0 server:a".to_owned()), has_pairs, "{body:?}");
    }
}

#[test]
fn requests_without_attachments_or_of_another_serialisation() {
    let bare = call("", b"", b"");
    assert_eq!(told(&[ask(frame(REQUEST, 0, 1, &bare))])[0], format!("open 0 {OPENED}"));
    // fastjson: the head is all that is certain.
    let told =
        told(&[ask(frame(0xc6, 0, 1, b"\"2.0.2\"\n")), say(frame(0x06, 20, 1, b"1\n\"x\"\n"))]);
    assert_eq!(told, ["open 0 request", "done 0 request call ok 20 24/22"]);
}

#[test]
fn answers_come_in_any_order_and_at_once() {
    let requests: Vec<u8> =
        (0..100).flat_map(|id| frame(REQUEST, 0, id, &call("", b"", b"HZ"))).collect();
    let responses: Vec<u8> =
        (0..100).rev().flat_map(|id| frame(RESPONSE, 20, id, b"\x92")).collect();
    let told = told(&[ask(requests), say(responses)]);
    let done: Vec<_> = told.iter().filter(|line| line.starts_with("done")).collect();
    assert_eq!(done.len(), 100);
    assert!(done[0].starts_with("done 99 ") && done[99].starts_with("done 0 "));
}

#[test]
fn oneway_heartbeats_and_callbacks() {
    let body = call("", b"", b"HZ");
    let told = told(&[
        ask([frame(ONEWAY, 0, 1, &body), frame(REQUEST, 0, 2, &body)].concat()),
        say(frame(0xe2, 0, 0, b"N")),
        ask(frame(0x22, 20, 0, b"N")),
        // The server calls the client, and is answered.
        say(frame(REQUEST, 0, 2, &body)),
        ask(frame(RESPONSE, 20, 2, b"\x92")),
        say(frame(0xa2, 0, 9, b"\x01R")),
        say(frame(RESPONSE, 20, 2, b"\x92")),
    ]);
    let words: Vec<_> = told
        .iter()
        .map(|line| {
            line.split(' ')
                .filter(|word| !word.contains('=') && !word.contains("/say"))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(
        words[..],
        [
            "open 0 oneway",
            &format!("done 0 oneway oneway sent {}/0", body.len() + 16),
            "open 1 request",
            "aside heartbeat",
            "aside heartbeat",
            "aside callback",
            "aside callback",
            "aside heartbeat",
            &format!("done 1 request call ok 20 {}/17", body.len() + 16),
        ]
    );
}

/// dubbo-py answers oneway calls, and an answer that came too late may come twice: ids are never
/// used again, so that nothing is confused by it. Many in a row are something else.
#[test]
fn answers_that_nobody_waits_for() {
    let body = call("", b"", b"HZ");
    let mut parts = vec![
        ask(frame(ONEWAY, 0, 1, &body)),
        say(frame(RESPONSE, 20, 1, b"\x92")),
        ask(frame(REQUEST, 0, 2, &body)),
        say(frame(RESPONSE, 20, 77, b"\x92")),
        say(frame(RESPONSE, 20, 2, b"\x92")),
    ];
    let told_first = told(&parts);
    assert_eq!(told_first.iter().filter(|line| *line == "aside stray").count(), 2);
    assert!(told_first.last().unwrap().starts_with("done 1 "));
    parts.extend((0..17).map(|id| say(frame(RESPONSE, 20, 100 + id, b"\x92"))));
    assert_eq!(told(&parts).last().unwrap(), "tunnel answer_without_request");
    assert_eq!(told(&parts[1..]), ["tunnel server_first"]);
}

/// A server that never answers some calls does not end the tap: the oldest make room.
#[test]
fn calls_that_are_never_answered_make_room() {
    let mut taster = Taster::new(Protocol::Dubbo, LIMITS);
    let body = call("", b"", b"HZ");
    let count = u64::from(LIMITS.open_max) + 50;
    for id in 0..count {
        taster.show(&ask(frame(REQUEST, 0, id, &body)));
    }
    taster.show(&say(frame(RESPONSE, 20, count - 1, b"\x92")));
    let done: Vec<_> = taster.told.iter().filter(|line| line.starts_with("done")).collect();
    assert_eq!(done.len(), 51);
    assert!(done[0].starts_with("done 0 request call unanswered"));
    assert!(done[50].starts_with(&format!("done {} request call ok", count - 1)));
}

#[test]
fn what_is_no_dubbo() {
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n"[..], "not_this_protocol"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not_this_protocol"),
        (b"telnet> ls\r\n", "not_this_protocol"),
        (b"\xda\xbc\0\0", "not_this_protocol"),
        (b"\x16\x03\x01\0", "tls"),
        (b"\xda\xbb\xc2\0\0\0\0\0\0\0\0\0\x7f\xff\xff\xff", "too_large"),
        (b"\xda\xbb\xc2\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff", "too_large"),
    ] {
        assert_eq!(told(&[ask(bytes)]), [format!("tunnel {reason}")], "{bytes:?}");
    }
    // A body of nothing is one.
    assert_eq!(told(&[ask(frame(REQUEST, 0, 1, b""))])[0], "open 0 request");
}

/// A body of any length is neither held nor shown, but for its beginning.
#[test]
fn long_bodies_pass() {
    let len: u32 = 8 << 20;
    let mut start = frame(REQUEST, 0, 1, &call("Ljava/lang/String;", b"", b""));
    start[12..16].copy_from_slice(&len.to_be_bytes());
    start.resize(20_000, b'x');
    let left = u64::from(len) + 16 - 20_000;
    let mut taster = Taster::new(Protocol::Dubbo, Limits::DEFAULT);
    taster.show(&ask(&start[..9_000]));
    assert_eq!(taster.tap.passable(Way::Request), 0);
    taster.show(&ask(&start[9_000..]));
    assert_eq!(taster.tap.passable(Way::Request), left);
    taster.tap.passed(Way::Request, left - 1);
    taster.show(&ask("x"));
    taster.show(&say(frame(RESPONSE, 20, 1, b"\x92")));
    assert_eq!(*taster.told.last().unwrap(), format!("done 0 request call ok 20 {}/17", len + 16));
    assert!(taster.held_most <= 17 * 1024, "{}", taster.held_most);
}
