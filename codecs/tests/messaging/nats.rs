//! NATS.

use super::kit::{Part, Taster, ask, say};
use super::{came_to, lines};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

fn told(parts: &[Part]) -> Vec<String> {
    super::told(Protocol::Nats, parts)
}

fn greeted(parts: &[Part]) -> Vec<Part> {
    let begin = [
        say("INFO {\"server_id\":\"a\",\"headers\":true}\r\n"),
        ask("CONNECT {\"verbose\":false,\"pass\":\"s3cret\"}\r\nPING\r\n"),
        say("PONG\r\n"),
    ];
    [&begin, parts].concat()
}

#[test]
fn what_is_answered_and_what_is_not() {
    let told = told(&greeted(&[
        ask("SUB orders.* 1\r\nsub shop.add workers 2\r\nUNSUB 1 5\r\n"),
        ask("PUB orders.new 6\r\ns3cret\r\nPUB shop.add _INBOX.a.1 6\r\ns3cret\r\n"),
        say("MSG orders.new 1 6\r\ns3cret\r\nMSG shop.add 2 _INBOX.a.1 6\r\ns3cret\r\n"),
        ask("PUB _INBOX.b.9 0\r\n\r\n"),
        // Somebody else's.
        say("MSG _INBOX.a.2 3 6\r\ns3cret\r\nMSG _INBOX.a.1 3 6\r\ns3cret\r\n"),
        ask("PING\r\n"),
        say("PONG\r\nPING\r\n"),
        ask("PONG\r\n"),
        say("-ERR 'Permissions Violation for Publish to \"s3cret\"'\r\n"),
    ]));
    assert_eq!(
        lines(&told, "open "),
        [
            "0 handshake CONNECT",
            "1 oneway SUB orders.*",
            "2 oneway SUB shop.add consumer_group=workers",
            "3 oneway UNSUB",
            "4 oneway PUB orders.new",
            "5 request REQUEST shop.add",
            "6 oneway PUB",
        ]
    );
    assert_eq!(
        came_to(&told),
        [
            "0 handshake CONNECT ok",
            "1 oneway SUB sent",
            "2 oneway SUB sent",
            "3 oneway UNSUB sent",
            "4 oneway PUB sent",
            "6 oneway PUB sent",
            "5 request REQUEST ok",
        ]
    );
    assert_eq!(lines(&told, "aside push").len(), 4, "{told:?}");
    assert!(!told.join("\n").contains("s3cret"));
}

#[test]
fn headers_and_statuses() {
    let answer = |status: &str| {
        let head = format!("NATS/1.0 {status}\r\n\r\n");
        say(format!("HMSG _INBOX.a.1 1 {0} {0}\r\n{head}\r\n", head.len()))
    };
    let head = "NATS/1.0\r\ntraceparent: 00-1\r\nX:  y \r\n\r\n";
    let with =
        format!("HPUB shop.add _INBOX.a.1 {} {}\r\n{head}body\r\n", head.len(), head.len() + 4);
    for (status, expected) in [
        ("503", "app_error 503 no_responders"),
        ("408 Request Timeout", "ok"),
        ("409 Consumer Deleted", "app_error 409 conflict"),
        ("400 Bad Request", "app_error 400 bad_request"),
        ("999 s3cret", "ok"),
    ] {
        let told = told(&greeted(&[ask(&with), answer("100 Idle Heartbeat"), answer(status)]));
        let opened = lines(&told, "open ");
        assert_eq!(opened[1], "1 request REQUEST shop.add traceparent:00-1 X:y");
        assert_eq!(came_to(&told)[1..], [format!("1 request REQUEST {expected}")]);
        assert!(!told.join("\n").contains("s3cret"));
    }
}

/// Messages of a stream come under their own subject, and say by whom they were asked for.
#[test]
fn messages_that_are_fetched() {
    let next = |consumer: &str, inbox: &str| {
        ask(format!("PUB $JS.API.CONSUMER.MSG.NEXT.events.{consumer} {inbox} 2\r\n{{}}\r\n"))
    };
    let told = told(&greeted(&[
        next("a", "_INBOX.x"),
        next("b", "_INBOX.y"),
        say("MSG events.made 1 $JS.ACK.events.b.1.1.1.1796118649675609200.4 1\r\nx\r\n"),
        say("HMSG _INBOX.x 1 32 32\r\nNATS/1.0 408 Request Timeout\r\n\r\n\r\n"),
        next("a", "_INBOX.x"),
        say("MSG events.made 1 $JS.ACK.hub.acc.events.a.1.1.1.179.4.tok 1\r\nx\r\n"),
        ask("PUB $JS.ACK.events.b.1.1.1.1796118649675609200.4 0\r\n\r\n"),
        ask("PUB $JS.hub.API.CONSUMER.MSG.NEXT.events.c _INBOX.z 0\r\n\r\n"),
        say("MSG events.made 1 $JS.ACK.events.c.1.1.1.179.4 1\r\nx\r\n"),
    ]));
    assert_eq!(
        came_to(&told)[1..],
        [
            "2 blocking FETCH ok",
            "1 blocking FETCH ok",
            "3 blocking FETCH ok",
            "4 oneway ACK sent",
            "5 blocking FETCH ok",
        ]
    );
}

#[test]
fn where_everything_is_answered() {
    let told = told(&[
        say("INFO {}\r\n"),
        ask("CONNECT {\"pedantic\":false, \"verbose\" : true}\r\nPING\r\n"),
        say("+OK\r\nPONG\r\n"),
        ask("SUB a 1\r\nPUB a b 1\r\nx\r\nPUB b 0\r\n\r\nUNSUB 1\r\n"),
        say("+OK\r\nMSG a 1 1\r\nx\r\n-ERR 'Invalid Subject'\r\n+OK\r\n+OK\r\n+OK\r\n"),
    ]);
    assert_eq!(
        came_to(&told),
        [
            "0 handshake CONNECT ok",
            "1 request SUB ok",
            "2 request REQUEST protocol_error invalid_subject",
            "3 request PUB ok",
            "4 request UNSUB ok",
        ]
    );
}

#[test]
fn a_server_that_says_no() {
    for (said, expected) in [
        ("'Authorization Violation'", "app_error authorization_violation"),
        ("'authorization violation'", "app_error authorization_violation"),
        ("'Unknown Protocol Operation'", "protocol_error unknown_protocol_operation"),
        ("s3cret", "app_error error"),
    ] {
        let told = told(&[
            say("INFO {}\r\n"),
            ask("CONNECT {}\r\nPING\r\n"),
            say(format!("-ERR {said}\r\n")),
        ]);
        assert_eq!(came_to(&told), [format!("0 handshake CONNECT {expected}")]);
        assert!(!told.join("\n").contains("s3cret"));
    }
}

#[test]
fn what_is_no_nats() {
    for (asked, reason) in [
        ("GET / HTTP/1.1\r\n", "not_this_protocol"),
        ("RS+ acc sub\r\n", "not_this_protocol"),
        ("PUBL a 1\r\n", "not_this_protocol"),
        ("PUB a\r\n", "malformed"),
        ("PUB a b c 1\r\n", "malformed"),
        ("PUB a x\r\n", "malformed"),
        ("PUB a -1\r\n", "malformed"),
        ("PUB a 9999999999\r\n", "too_large"),
        ("PUB a 999999999999999999999\r\n", "malformed"),
        ("HPUB a 5 4\r\n", "malformed"),
        ("SUB a\r\n", "malformed"),
        ("PUB a 1073741823\r\n", "too_large"),
        ("\x16\x03\x01\0", "tls"),
    ] {
        let told = told(&greeted(&[ask(asked)]));
        assert_eq!(lines(&told, "tunnel "), [reason], "{asked:?}");
    }
    let long = format!("PUB {} 1\r\n", "a".repeat(3000));
    assert_eq!(lines(&told(&greeted(&[ask(&long)])), "tunnel "), ["too_large"]);
    assert_eq!(told(&[say("PING\r\n")]), ["tunnel server_first"]);
    assert_eq!(told(&[say("220 mail\r\n")]), ["tunnel not_this_protocol"]);
}

/// Of a payload nothing but what came with its line is held or looked at.
#[test]
fn long_payloads_pass() {
    let len = 64 << 20;
    let mut taster = Taster::new(Protocol::Nats, Limits::DEFAULT);
    greeted(&[]).iter().for_each(|part| taster.show(part));
    taster.show(&ask(format!("PUB shop.add _INBOX.1 {len}\r\n{}", "x".repeat(5000))));
    assert_eq!(taster.tap.passable(Way::Request), len + 2 - 5000);
    taster.tap.passed(Way::Request, len + 2 - 5000);
    taster.show(&ask(""));
    taster.show(&say("MSG _INBOX.1 1 0\r\n\r\n"));
    taster.end();
    assert_eq!(came_to(&taster.told)[1..], ["1 request REQUEST ok"]);
    assert!(taster.held_most < 100, "{}", taster.held_most);
}
