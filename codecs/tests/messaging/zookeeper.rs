//! ZooKeeper.

use super::kit::{Part, Taster, ask, say};
use super::{came_to, lines};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

fn told(parts: &[Part]) -> Vec<String> {
    super::told(Protocol::Zookeeper, parts)
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

fn connect() -> Part {
    ask(frame(
        &[&[0; 12][..], &10_000_i32.to_be_bytes(), &[0; 8], &16_i32.to_be_bytes(), &[0; 17]]
            .concat(),
    ))
}

fn welcome(timeout: i32) -> Part {
    say(frame(
        &[&[0; 4][..], &timeout.to_be_bytes(), &[7; 8], &16_i32.to_be_bytes(), &[7; 16]].concat(),
    ))
}

fn open(parts: &[Part]) -> Vec<Part> {
    [&[connect(), welcome(10_000)], parts].concat()
}

fn request(number: i32, kind: i32) -> Vec<u8> {
    frame(&[&number.to_be_bytes()[..], &kind.to_be_bytes(), b"\0\0\0\x07/s3cret"].concat())
}

fn answer(number: i32, error: i32, body: &[u8]) -> Vec<u8> {
    frame(&[&number.to_be_bytes()[..], &[0; 8], &error.to_be_bytes(), body].concat())
}

#[test]
fn requests_are_answered_in_order_and_some_things_come_between() {
    let told = told(&open(&[
        ask([request(1, 1), request(2, 4), request(-2, 11), request(-4, 100)].concat()),
        say([answer(-4, 0, b""), answer(-1, 0, b"s3cret"), answer(1, -110, b"")].concat()),
        say([answer(-2, 0, b""), answer(2, 0, b"s3cret")].concat()),
        ask([request(3, 3), request(4, 999), request(5, 105), request(6, 5)].concat()),
        say([answer(3, -101, b""), answer(4, -6, b""), answer(5, 0, b"")].concat()),
        say(answer(6, -999, b"")),
        ask(request(7, -11)),
        say(answer(7, 0, b"")),
        // Another session on the same connection.
        connect(),
        welcome(0),
    ]));
    assert_eq!(
        came_to(&told),
        [
            "0 handshake connect ok",
            "1 request create app_error -110 NodeExists",
            "2 request getData ok",
            "3 request exists ok",
            "4 request other protocol_error -6 Unimplemented",
            "5 handshake setWatches2 ok",
            "6 request setData app_error -999 error",
            "7 handshake closeSession ok",
            "8 handshake connect app_error -112 SessionExpired",
        ]
    );
    assert_eq!(lines(&told, "aside push").len(), 1);
    assert_eq!(lines(&told, "aside heartbeat").len(), 2);
    assert!(!told.join("\n").contains("s3cret"));
}

/// What is done together fails together, and the answer says so in its middle.
#[test]
fn what_is_done_together() {
    let failed = |error: i32| {
        [&(-1_i32).to_be_bytes()[..], &[0], &error.to_be_bytes(), &error.to_be_bytes()].concat()
    };
    let made = [&1_i32.to_be_bytes()[..], &[0; 5], b"\0\0\0\x02/a"].concat();
    for (results, expected) in [
        (vec![made.clone(), made], "ok"),
        (vec![failed(0), failed(-103), failed(-2)], "app_error -103 BadVersion"),
        (vec![failed(-101), failed(-2)], "app_error -101 NoNode"),
        (vec![failed(-2)], "app_error -2 RuntimeInconsistency"),
        (vec![], "ok"),
    ] {
        let told = told(&open(&[ask(request(1, 14)), say(answer(1, 0, &results.concat()))]));
        assert_eq!(came_to(&told)[1], format!("1 request multi {expected}"));
    }
}

#[test]
fn what_is_no_zookeeper() {
    let mut short = connect().bytes;
    short[3] -= 4;
    let mut other = connect().bytes;
    other[7] = 1;
    for (bytes, reason) in [
        (b"ruok".to_vec(), "unsupported"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "not_this_protocol"),
        (b"\0\0\0\x08\0\0\0\0\0\0\0\0".to_vec(), "not_this_protocol"),
        (b"\xff\xff\xff\xff".to_vec(), "not_this_protocol"),
        (short, "not_this_protocol"),
        (other, "not_this_protocol"),
        (b"\x16\x03\x01\0".to_vec(), "tls"),
    ] {
        assert_eq!(lines(&told(&[ask(&bytes)]), "tunnel "), [reason], "{}", bytes.escape_ascii());
    }
    for (bytes, reason) in [
        (answer(2, 0, b""), "answer_without_request"),
        (answer(1, 0, b"")[..4].iter().map(|_| 0).collect(), "not_this_protocol"),
        (b"\x7f\xff\xff\xff".to_vec(), "not_this_protocol"),
    ] {
        let told = told(&open(&[ask(request(1, 1)), say(&bytes)]));
        assert_eq!(lines(&told, "tunnel "), [reason], "{}", bytes.escape_ascii());
    }
    assert_eq!(told(&[welcome(1)]), ["tunnel server_first"]);
    let late = told(&open(&[say(answer(1, 0, b""))]));
    assert_eq!(lines(&late, "tunnel "), ["answer_without_request"]);
    let odd = told(&[connect(), say(b"\0\0\0\x20\0\0\0\x01")]);
    assert_eq!(lines(&odd, "tunnel "), ["not_this_protocol"]);
}

#[test]
fn long_data_passes() {
    let mut taster = Taster::new(Protocol::Zookeeper, Limits::DEFAULT);
    open(&[]).iter().for_each(|part| taster.show(part));
    let len: u64 = 64 << 20;
    let mut set = request(1, 5);
    set[..4].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    set.resize(1000, 0);
    taster.show(&ask(&set));
    assert_eq!(taster.tap.passable(Way::Request), len + 4 - 1000);
    taster.tap.passed(Way::Request, len + 4 - 1000);
    taster.show(&ask(""));
    taster.show(&say(answer(1, 0, b"")));
    taster.end();
    assert_eq!(came_to(&taster.told)[1..], ["1 request setData ok"]);
    assert_eq!(taster.held_most, 0);
}
