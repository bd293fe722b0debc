//! AMQP 0-9-1.

use super::kit::{Part, Taster, ask, say};
use super::{came_to, lines};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

fn told(parts: &[Part]) -> Vec<String> {
    super::told(Protocol::Amqp, parts)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &len, payload, &[0xce]].concat()
}

fn method(channel: u16, (class, method): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat())
}

fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// What it is about, its other texts, and the bits behind them.
fn about(channel: u16, number: (u16, u16), texts: &[&str], bits: u8) -> Vec<u8> {
    let texts = texts.iter().map(|it| text(it)).collect::<Vec<_>>().concat();
    method(channel, number, &[&[0, 0][..], &texts, &[bits]].concat())
}

fn header(channel: u16, body: u64, properties: &[u8]) -> Vec<u8> {
    frame(2, channel, &[&[0, 60, 0, 0][..], &body.to_be_bytes(), properties].concat())
}

/// Content of a channel, in bodies of these sizes.
fn content(channel: u16, sizes: &[usize]) -> Vec<u8> {
    let bodies = sizes.iter().map(|size| frame(3, channel, &vec![b'x'; *size]));
    let body = sizes.iter().sum::<usize>() as u64;
    [header(channel, body, &[0, 0]), bodies.collect::<Vec<_>>().concat()].concat()
}

const PUBLISH: (u16, u16) = (60, 40);

fn publish(channel: u16, sizes: &[usize]) -> Vec<u8> {
    [about(channel, PUBLISH, &["shop", "s3cret"], 0), content(channel, sizes)].concat()
}

fn begun(parts: &[Part]) -> Vec<Part> {
    let begin = [ask(b"AMQP\0\0\x09\x01"), say(method(0, (10, 10), b"\0\x09s3cret"))];
    [&begin, parts].concat()
}

/// A channel that confirms what is published.
fn confirming(channel: u16, parts: &[Part]) -> Vec<Part> {
    let select = [ask(method(channel, (85, 10), &[0])), say(method(channel, (85, 11), b""))];
    [begun(&select), parts.to_vec()].concat()
}

fn ack(channel: u16, number: u64, is_multiple: bool) -> Part {
    say(method(channel, (60, 80), &[&number.to_be_bytes()[..], &[u8::from(is_multiple)]].concat()))
}

#[test]
fn methods_are_answered_on_their_channel() {
    let told = told(&begun(&[
        ask([about(1, (50, 10), &["orders"], 0), about(2, (60, 70), &["orders"], 0)].concat()),
        ask([about(1, (50, 20), &["orders", "shop", "s3cret"], 0), about(3, (60, 70), &["a"], 0)]
            .concat()),
        say(method(3, (60, 72), &text(""))),
        say([method(1, (50, 11), b""), method(1, (50, 21), b"")].concat()),
        say([method(2, (60, 71), &[0; 14]), content(2, &[5, 3])].concat()),
        // Nobody is asked to answer these.
        ask([about(1, (50, 10), &[""], 1 << 4), about(1, (50, 40), &["amq.gen-1"], 1 << 2)]
            .concat()),
        ask([about(1, (60, 20), &["orders", "tag"], 1 << 3), method(1, (60, 80), &[0; 9])].concat()),
        ask(method(1, (99, 10), b"s3cret")),
        say([method(1, (60, 60), &text("s3cret")), content(1, &[4])].concat()),
        say([method(0, (10, 60), &text("s3cret")), frame(8, 0, b"")].concat()),
        ask([frame(8, 0, b""), method(1, (20, 21), &[1])].concat()),
    ]));
    assert_eq!(
        came_to(&told),
        [
            "0 handshake connect ok",
            "4 request basic.get ok",
            "1 request queue.declare ok",
            "3 request queue.bind ok",
            "2 request basic.get ok",
            "5 oneway queue.declare sent",
            "6 oneway queue.delete sent",
            "7 oneway basic.consume sent",
            "8 oneway basic.ack sent",
        ]
    );
    assert_eq!(
        lines(&told, "open ")[1..3],
        ["1 request queue.declare orders", "2 request basic.get orders"]
    );
    assert_eq!(lines(&told, "open ")[6], "6 oneway queue.delete");
    assert_eq!(lines(&told, "aside ").len(), 4, "{told:?}");
    assert!(lines(&told, "done ")[4].ends_with("/72"), "{told:?}");
    assert!(!told.join("\n").contains("s3cret"));
}

#[test]
fn what_is_published() {
    let reply = about(1, PUBLISH, &["", "amq.rabbitmq.reply-to.g2d"], 0);
    let queue = about(1, PUBLISH, &["", "orders"], 0);
    let pairs = [
        &text("n")[..],
        b"I\0\0\0\x07",
        &text("t"),
        b"t\x01",
        &text("deep"),
        b"F\0\0\0\x05\x01aS\0\0",
        &text("traceparent"),
        b"S\0\0\0\x0400-1",
    ]
    .concat();
    let table = [&u32::try_from(pairs.len()).unwrap().to_be_bytes()[..], &pairs].concat();
    let properties = [&[0xb0, 0][..], &text("text/plain"), &table, &[2]].concat();
    let traced = [queue, header(1, 0, &properties)].concat();
    let told = told(&begun(&[
        ask([publish(1, &[4, 3]), publish(2, &[0]), publish(1, &[])].concat()),
        ask([reply, content(1, &[1]), traced].concat()),
    ]));
    assert_eq!(
        lines(&told, "open ")[1..],
        [
            "1 oneway basic.publish shop",
            "2 oneway basic.publish shop",
            "3 oneway basic.publish shop",
            "4 oneway basic.publish",
            "5 oneway basic.publish orders traceparent:00-1",
        ]
    );
    assert_eq!(
        lines(&told, "done ")[1..3],
        ["1 oneway basic.publish sent 72/0", "2 oneway basic.publish sent 49/0"]
    );
    assert_eq!(came_to(&told).len(), 6);
    assert!(!told.join("\n").contains("s3cret"));
}

/// Confirms name one message, or all up to one, or all.
#[test]
fn what_is_confirmed() {
    let nack = say(method(1, (60, 120), &[&4_u64.to_be_bytes()[..], &[0]].concat()));
    let told = told(&confirming(
        1,
        &[
            ask((0..7).map(|_| publish(1, &[2])).collect::<Vec<_>>().concat()),
            ask(publish(2, &[2])),
            ack(1, 2, false),
            ack(1, 3, true),
            nack,
            // Nobody waits for it.
            ack(1, 4, false),
            ack(1, 99, false),
            ack(1, 0, true),
            ack(1, 0, true),
            ask(publish(1, &[2])),
            ack(1, 8, false),
        ],
    ));
    let expected = [
        "0 handshake connect ok",
        "1 request confirm.select ok",
        "9 oneway basic.publish sent",
        "3 request basic.publish ok",
        "2 request basic.publish ok",
        "4 request basic.publish ok",
        "5 request basic.publish app_error nack",
        "6 request basic.publish ok",
        "7 request basic.publish ok",
        "8 request basic.publish ok",
        "10 request basic.publish ok",
    ];
    assert_eq!(came_to(&told), expected);
    assert!(lines(&told, "tunnel").is_empty());
}

/// Messages of two channels come in pieces between each other; what is known of the first is told.
#[test]
fn contents_between_each_other() {
    let mut first = publish(1, &[4, 3]);
    let rest = first.split_off(first.len() - 11);
    let parts = [ask([first.clone(), publish(2, &[1]), rest.clone()].concat())];
    let confirmed = confirming(1, &[&parts[..], &[ack(1, 1, false)]].concat());
    for (parts, count) in [(begun(&parts), 3), (confirmed, 4)] {
        let told = told(&parts);
        assert_eq!(lines(&told, "done ").len(), count, "{told:?}");
        assert!(lines(&told, "tunnel").is_empty());
    }
    // What does not begin a message ends none.
    let other = [frame(8, 0, b""), header(2, 3, &[0, 0]), frame(3, 2, b"abc")].concat();
    let told = told(&begun(&[ask([first, other, rest].concat())]));
    assert_eq!(lines(&told, "done ")[1..], ["1 oneway basic.publish sent 113/0"]);
}

/// Where the content of a message does not come next, the frame that does is none of it, wherever it
/// was cut: its first bytes are not lost.
#[test]
fn a_frame_of_another_channel_between_a_method_and_its_content() {
    let method_alone = about(1, PUBLISH, &["shop", "key"], 0);
    let declare = about(2, (50, 10), &["orders"], 0);
    let len = method_alone.len();
    for between in [
        declare.clone(),
        frame(8, 0, b""),
        [header(2, 3, &[0, 0]), frame(3, 2, b"abc")].concat(),
        frame(3, 2, b"abc"),
        about(2, PUBLISH, &["other", "key"], 0),
    ] {
        let parts = begun(&[
            ask([method_alone.clone(), between].concat()),
            ask([content(1, &[5]), declare.clone()].concat()),
            say(method(2, (50, 11), b"")),
        ]);
        let told = told(&parts);
        assert!(lines(&told, "tunnel").is_empty(), "{told:?}");
        let sent = format!("1 oneway basic.publish sent {len}/0");
        assert!(lines(&told, "done ").contains(&sent.as_str()), "{told:?}");
        let declared = format!("queue.declare ok {}/12", declare.len());
        assert!(lines(&told, "done ").iter().any(|it| it.ends_with(&declared)), "{told:?}");
    }
    // What is wrong with that frame comes behind the message.
    for (wrong, reason) in
        [(&b"\x01\0\x02\x7f\0\0\0"[..], "too_large"), (b"\x04\0\x02\0\0\0\0", "not_this_protocol")]
    {
        let told = told(&begun(&[ask([&method_alone, wrong].concat())]));
        assert_eq!(lines(&told, "done ").len(), 2, "{told:?}");
        assert_eq!(lines(&told, "tunnel "), [reason]);
    }
    // A connection that ends within those bytes was cut short.
    let mut taster = Taster::new(Protocol::Amqp, Limits::DEFAULT);
    begun(&[]).iter().for_each(|part| taster.show(part));
    method_alone.iter().for_each(|byte| taster.show(&ask([*byte])));
    taster.show(&ask(&declare[..5]));
    assert!(taster.tap.is_within_message(Way::Request));
    assert_eq!(taster.tap.held(), len + 5);
    taster.show(&ask(&declare[5..7]));
    assert_eq!((taster.tap.held(), taster.tap.open_count()), (7, 0));
    assert!(taster.tap.is_within_message(Way::Request));
}

#[test]
fn channels_and_connections_that_are_closed() {
    let close = |code: u16, (class, method): (u16, u16)| {
        let numbers = [class.to_be_bytes(), method.to_be_bytes()].concat();
        [&code.to_be_bytes()[..], &text("s3cret"), &numbers].concat()
    };
    let told = told(&begun(&[
        ask(method(0, (10, 11), b"s3cret")),
        say(method(0, (10, 20), b"")),
        ask(method(0, (10, 21), b"s3cret")),
        say(method(0, (10, 30), &[0; 8])),
        ask([method(0, (10, 31), &[0; 8]), method(0, (10, 40), &text("/"))].concat()),
        say(method(0, (10, 41), b"")),
        ask([about(1, (50, 10), &["a"], 1), about(1, (50, 30), &["b"], 0)].concat()),
        say(method(1, (20, 40), &close(404, (50, 10)))),
        ask(method(1, (20, 41), b"")),
        ask(publish(2, &[1])),
        say(method(2, (20, 40), &close(404, (60, 40)))),
        ask(method(0, (10, 40), &text("/"))),
        say(method(0, (10, 50), &close(530, (10, 40)))),
        ask(method(0, (10, 51), b"")),
        ask(b"AMQP\0\0\x09\x01"),
        say(method(0, (10, 50), &close(501, (0, 0)))),
    ]));
    assert_eq!(
        came_to(&told),
        [
            "0 handshake connect ok",
            "1 handshake connection.start-ok ok",
            "2 handshake connection.secure-ok ok",
            "3 handshake connection.open ok",
            "4 request queue.declare app_error 404 NOT_FOUND",
            "6 oneway basic.publish sent",
            "7 handshake connection.open app_error 530 NOT_ALLOWED",
            "8 handshake connect protocol_error 501 FRAME_ERROR",
        ]
    );
    assert!(!told.join("\n").contains("s3cret"));
}

#[test]
fn what_is_no_amqp() {
    let mut unended = method(1, (50, 10), &[0; 5]);
    *unended.last_mut().unwrap() = 0;
    for (bytes, reason) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), "not_this_protocol"),
        (b"AMQP\0\x01\0\0".to_vec(), "unsupported"),
        (b"AMQP\x03\x01\0\0".to_vec(), "unsupported"),
        (b"AUTH a\r\n".to_vec(), "not_this_protocol"),
        (b"\x16\x03\x01\0".to_vec(), "tls"),
    ] {
        assert_eq!(lines(&told(&[ask(&bytes)]), "tunnel "), [reason], "{}", bytes.escape_ascii());
    }
    for (bytes, reason) in [
        (b"\x04\0\0\0\0\0\0\xce".to_vec(), "not_this_protocol"),
        (b"\x01\0\x01\0\0\0\x03abc\xce".to_vec(), "malformed"),
        (b"\x03\0\x01\x7f\0\0\0".to_vec(), "too_large"),
        (unended, "malformed"),
        ([publish(1, &[]), publish(1, &[4])].concat()[..100].to_vec(), ""),
        ([about(1, PUBLISH, &["a", "b"], 0), frame(2, 1, b"\0\x3c\0\0")].concat(), "malformed"),
        ([about(1, PUBLISH, &["a", "b"], 0), header(1, 1 << 40, &[0, 0])].concat(), "too_large"),
        (
            [about(1, PUBLISH, &["a", "b"], 0), header(1, 3, &[0, 0]), frame(3, 1, b"abcd")]
                .concat(),
            "malformed",
        ),
    ] {
        let told = told(&begun(&[ask(&bytes)]));
        let tunnel = lines(&told, "tunnel ").first().copied().unwrap_or_default();
        assert_eq!(tunnel, reason, "{}", bytes.escape_ascii());
    }
    assert_eq!(told(&[say(method(0, (10, 10), b""))]), ["tunnel server_first"]);
    let older = told(&[ask(b"AMQP\0\0\x09\x01"), say(b"AMQP\0\0\x08\0")]);
    assert_eq!(lines(&older, "tunnel "), ["unsupported"]);
    for bytes in [method(1, (20, 40), &[0]), method(1, (60, 80), &[0; 8])] {
        assert_eq!(lines(&told(&begun(&[say(bytes)])), "tunnel "), ["malformed"]);
    }
}

/// Whatever is published, no more channels are followed than may be.
#[test]
fn many_channels() {
    let all = (1..=100).map(|channel| method(channel, (85, 10), &[1]));
    let published = (1..=100).map(|channel| publish(channel, &[1]));
    let parts =
        [ask(all.collect::<Vec<_>>().concat()), ask(published.collect::<Vec<_>>().concat())];
    let mut taster = Taster::new(Protocol::Amqp, Limits::DEFAULT);
    begun(&parts).iter().for_each(|part| taster.show(part));
    assert!(taster.held_most < 64 * 16 + 100 * 64, "{}", taster.held_most);
    taster.end();
    assert_eq!(lines(&taster.told, "left ").len(), 64);
}

#[test]
fn long_bodies_pass() {
    let len = 1 << 20;
    let mut taster = Taster::new(Protocol::Amqp, Limits::DEFAULT);
    begun(&[]).iter().for_each(|part| taster.show(part));
    let bytes = publish(1, &[len; 64]);
    let (begin, rest) = bytes.split_at(200);
    taster.show(&ask(begin));
    let mut rest = rest;
    let mut passed = 0;
    while !rest.is_empty() {
        let count = usize::try_from(taster.tap.passable(Way::Request)).unwrap();
        taster.tap.passed(Way::Request, count as u64);
        passed += count;
        rest = &rest[count..];
        let (head, after) = rest.split_at(rest.len().min(7));
        taster.show(&ask(head));
        rest = after;
    }
    taster.end();
    assert!(passed > 60 * len);
    let all = bytes.len();
    assert_eq!(lines(&taster.told, "done ")[1..], [format!("1 oneway basic.publish sent {all}/0")]);
    assert!(taster.held_most < 100, "{}", taster.held_most);
}
