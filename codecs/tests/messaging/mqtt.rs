//! MQTT.

use super::kit::{Part, Taster, ask, say};
use super::{came_to, lines};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

fn told(parts: &[Part]) -> Vec<String> {
    super::told(Protocol::Mqtt, parts)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut len = body.len();
    let mut bytes = vec![first];
    loop {
        let low = u8::try_from(len & 0x7f).unwrap();
        len >>= 7;
        bytes.push(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            return [&bytes[..], body].concat();
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

fn connect(level: u8) -> Part {
    let name = if level & 0x7f == 3 { "MQIsdp" } else { "MQTT" };
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let end = [text("client"), text("s3cret"), text("s3cret")].concat();
    ask(packet(0x10, &[&text(name)[..], &[level, 0xc2, 0, 60], properties, &end].concat()))
}

fn connected(level: u8, parts: &[Part]) -> Vec<Part> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let answer = say(packet(0x20, &[&[0, 0], properties].concat()));
    [&[connect(level), answer], parts].concat()
}

/// `properties` are those of MQTT 5.
fn publish(quality: u8, topic: &str, id: u16, properties: &[u8]) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id: &[u8] = if quality > 0 { &id } else { &[] };
    packet(0x30 | quality << 1, &[&text(topic)[..], id, properties, b"s3cret"].concat())
}

#[test]
fn each_quality_of_service() {
    for level in [3, 4, 5, 0x84] {
        let none: &[u8] = if level == 5 { &[0] } else { &[] };
        let told = told(&connected(
            level,
            &[
                ask([publish(0, "shop/a", 0, none), publish(1, "shop/b", 1, none)].concat()),
                ask([publish(2, "shop/c", 2, none), publish(1, "shop/d", 3, none)].concat()),
                say([packet(0x40, &[0, 3]), packet(0x50, &[0, 2])].concat()),
                ask(packet(0x62, &[0, 2])),
                say([packet(0x40, &[0, 1]), packet(0x70, &[0, 2])].concat()),
                // Nobody waits for them, and they harm nobody.
                say([packet(0x40, &[0, 9]), packet(0x70, &[0, 1])].concat().repeat(40)),
                // What the server sends, and what is said to that.
                say([publish(2, "shop/c", 1, none), publish(0, "a", 0, none)].concat()),
                ask([packet(0x50, &[0, 1]), packet(0x70, &[0, 1])].concat()),
                say(packet(0x62, &[0, 1])),
                ask([packet(0xc0, b""), packet(0xe0, b"")].concat()),
                say(packet(0xd0, b"")),
            ],
        ));
        assert_eq!(
            lines(&told, "open ")[1..],
            [
                "1 oneway PUBLISH shop/a",
                "2 request PUBLISH shop/b",
                "3 request PUBLISH shop/c",
                "4 request PUBLISH shop/d",
            ]
        );
        assert_eq!(
            came_to(&told),
            [
                "0 handshake CONNECT ok",
                "1 oneway PUBLISH sent",
                "4 request PUBLISH ok",
                "2 request PUBLISH ok",
                "3 request PUBLISH ok",
            ]
        );
        assert!(!told.join("\n").contains("s3cret"));
    }
}

#[test]
fn subscriptions() {
    let many = [&[0, 7][..], &text("shop/#"), &[1], &text("b"), &[0]].concat();
    let told = told(&connected(
        4,
        &[
            ask(packet(0x82, &many)),
            say(packet(0x90, &[0, 7, 1, 0x80])),
            ask(packet(0xa2, &[&[0, 8][..], &text("shop/#")].concat())),
            say(packet(0xb0, &[0, 8])),
        ],
    ));
    assert_eq!(
        lines(&told, "open ")[1..],
        ["1 request SUBSCRIBE shop/#", "2 request UNSUBSCRIBE shop/#"]
    );
    assert_eq!(
        came_to(&told)[1..],
        ["1 request SUBSCRIBE app_error 128 unspecified", "2 request UNSUBSCRIBE ok"]
    );
}

#[test]
fn what_five_says_more() {
    let pair = [&[0x26][..], &text("traceparent"), &text("00-1")].concat();
    let other = [&[1, 1, 2, 0, 0, 0, 9, 0x0b, 0x81, 1, 3][..], &text("text/plain")].concat();
    let all = [other, pair].concat();
    let properties = [&[u8::try_from(all.len()).unwrap()][..], &all].concat();
    let filter = [&[0, 4, 2, 0x0b, 1][..], &text("$share/g/a"), &[0]].concat();
    let told = told(&connected(
        5,
        &[
            ask(publish(1, "shop/a", 1, &properties)),
            say(packet(0x40, &[0, 1, 0x87, 0])),
            ask(publish(2, "shop/a", 2, &[0])),
            say(packet(0x50, &[0, 2, 0x97])),
            ask(publish(1, "shop/a", 3, &[0])),
            // Nobody has subscribed, which is no error.
            say(packet(0x40, &[0, 3, 0x10, 0])),
            ask(packet(0x82, &filter)),
            say(packet(0x90, &[0, 4, 0, 0, 0x9e])),
            ask(packet(0xf0, b"")),
            say([packet(0xf0, b""), packet(0xe0, &[0x8b])].concat()),
        ],
    ));
    assert_eq!(lines(&told, "open ")[1], "1 request PUBLISH shop/a traceparent:00-1");
    assert_eq!(lines(&told, "open ")[4], "4 request SUBSCRIBE $share/g/a");
    assert_eq!(
        came_to(&told)[1..],
        [
            "1 request PUBLISH app_error 135 not_authorized",
            "2 request PUBLISH app_error 151 quota_exceeded",
            "3 request PUBLISH ok",
            "4 request SUBSCRIBE app_error 158 shared_subscriptions_not_supported",
        ]
    );
}

#[test]
fn connections_that_are_refused() {
    for (level, code, expected) in [
        (4, 5, "app_error 5 not_authorized"),
        (4, 1, "protocol_error 1 unsupported_protocol_version"),
        (5, 0x86, "app_error 134 bad_user_name_or_password"),
        (5, 0x84, "protocol_error 132 unsupported_protocol_version"),
    ] {
        let told = told(&[connect(level), say(packet(0x20, &[0, code]))]);
        assert_eq!(came_to(&told), [format!("0 handshake CONNECT {expected}")]);
    }
}

#[test]
fn what_is_no_mqtt() {
    for (bytes, reason) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), "not_this_protocol"),
        (b"\x10\x0c\0\x04MQTX\x04\x02\0\x3c\0\0".to_vec(), "not_this_protocol"),
        (b"\x10\x02\0\x04".to_vec(), "not_this_protocol"),
        (b"\x10\xff\xff\xff\xff\x01".to_vec(), "not_this_protocol"),
        (b"\x11\x0c".to_vec(), "not_this_protocol"),
        (publish(0, "a", 0, b""), "not_this_protocol"),
        (packet(0x10, b"\0\x04MQTT\x07\x02\0\x3c\0\0"), "unsupported"),
        (b"\x16\x03\x01\0".to_vec(), "tls"),
    ] {
        assert_eq!(lines(&told(&[ask(&bytes)]), "tunnel "), [reason], "{}", bytes.escape_ascii());
    }
    let long = publish(1, &"t".repeat(3000), 1, b"");
    for (bytes, reason) in [
        (b"\x00\x01".to_vec(), "not_this_protocol"),
        (packet(0x36, b"\0\x01a\0\x01"), "not_this_protocol"),
        (packet(0x80, b"\0\x01\0\x01a\0"), "not_this_protocol"),
        (packet(0x90, b"\0\x01\0"), "not_this_protocol"),
        (packet(0xf0, b""), "not_this_protocol"),
        (packet(0x30, b"\0\x09a"), "malformed"),
        (packet(0x30, b"\0"), "malformed"),
        (packet(0x32, b"\0\x01a\0"), "malformed"),
        (long, "too_large"),
    ] {
        let told = told(&connected(4, &[ask(&bytes)]));
        assert_eq!(lines(&told, "tunnel "), [reason], "{}", bytes.escape_ascii());
    }
    assert_eq!(told(&[say(packet(0x20, &[0, 0]))]), ["tunnel server_first"]);
    let early = told(&[connect(4), say(packet(0x40, &[0, 1]))]);
    assert_eq!(lines(&early, "tunnel "), ["not_this_protocol"]);
}

#[test]
fn long_payloads_pass() {
    let mut taster = Taster::new(Protocol::Mqtt, Limits::DEFAULT);
    connected(4, &[]).iter().for_each(|part| taster.show(part));
    let len: u64 = 128 << 20;
    let mut publish = publish(1, "shop/a", 1, &[b'x'; 3000]);
    let body = publish.split_off(3);
    let head = [0x32, 0x80, 0x80, 0x80, 0x40];
    let shown = body.len() as u64;
    taster.show(&ask([&head[..], &body].concat()));
    assert_eq!(taster.tap.passable(Way::Request), len - shown);
    taster.tap.passed(Way::Request, len - shown);
    taster.show(&ask(""));
    taster.show(&say(packet(0x40, &[0, 1])));
    taster.end();
    assert_eq!(came_to(&taster.told)[1..], ["1 request PUBLISH ok"]);
    assert_eq!(taster.held_most, 0);
}
