//! How connections begin and end.

use super::kit::{Pieces, ask, say, tell};
use super::{
    VERSION, check, check_all, complete, data, error, message, packet, parse, query, ready, startup,
};
use netra_codecs::tap::Protocol;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// TLS and GSS are refused with one byte; passwords are counted and never read.
#[test]
fn the_connection_is_set_up() {
    let salted = message(b'R', [0, 0, 0, 5, 1, 2, 3, 4]);
    let good = [message(b'R', [0; 4]), message(b'K', [7; 8]), ready("I")].concat();
    let expected = [
        "open 0 handshake STARTUP database=shop",
        "done 0 handshake STARTUP ok 44/41",
        "open 1 request SELECT database=shop",
        "done 1 request SELECT ok 14/20",
    ];
    let mut parts = vec![
        ask(packet(GSS, b"")),
        say("N"),
        ask(packet(SSL, b"")),
        say("N"),
        ask(startup()),
        say(&salted),
        ask(message(b'p', "secret\0")),
        say(&good),
        ask(query("select 1")),
        say(complete("SELECT 1")),
    ];
    let told = [&expected[..2], &["open 1 request select database=shop", expected[3]]].concat();
    check_all(&parts, &told);
    check_all(&parts.split_off(4), &told);
}

/// The database is called as the user unless it is said.
#[test]
fn the_database_is_known_from_the_startup() {
    for (parameters, database) in [
        (&b"user\0joe\0\0"[..], " database=joe"),
        (b"database\0shop\0user\0joe\0\0", " database=shop"),
        (b"user\0joe\0application_name\0database\0\0", " database=joe"),
        (b"\0", ""),
    ] {
        let startup = packet(VERSION, parameters);
        let parts = [ask(&startup), say([message(b'R', [0; 4]), ready("I")].concat())];
        let open = format!("open 0 handshake STARTUP{database}");
        let done = format!("done 0 handshake STARTUP ok {}/15", startup.len());
        check_all(&parts, &[&open, &done]);
    }
}

#[test]
fn a_startup_that_is_refused() {
    let parts = [ask(startup()), say(error("FATAL", "28P01"))];
    let expected = [
        "open 0 handshake STARTUP database=shop",
        "done 0 handshake STARTUP app_error 28P01 32/36",
    ];
    check_all(&parts, &expected);
    // Some servers say so before they say anything about TLS.
    let parts = [ask(packet(SSL, b"")), say(error("FATAL", "53300"))];
    check_all(&parts, &["aside push"]);
}

#[test]
fn encryption_ends_the_tap() {
    check_all(&[ask(packet(SSL, b"")), say("S"), ask(b"\x16\x03\x01")], &["tunnel tls"]);
    check_all(&[ask(packet(GSS, b"")), say("G"), ask(b"\0\0")], &["tunnel unsupported"]);
    check_all(&[ask(b"\x16\x03\x01\0\xc8"), say(b"\x16\x03\x03")], &["tunnel tls"]);
    check_all(&[ask(packet(SSL, b"")), say("x")], &["tunnel malformed"]);
}

/// Its key is not told, and nothing answers it.
#[test]
fn a_cancel_is_a_connection_of_its_own() {
    for key in [&b"\0\0\0\x07\xde\xad\xbe\xef"[..], &[7; 40]] {
        let expected = ["open 0 oneway CANCEL", "done 0 oneway CANCEL sent"];
        let told = tell(Protocol::Postgresql, &[ask(packet(CANCEL, key))], Pieces::Whole);
        assert!(told[1].starts_with(expected[1]), "{told:?}");
        let counted = format!("{} {}/0", expected[1], key.len() + 8);
        check_all(&[ask(packet(CANCEL, key))], &[expected[0], &counted]);
    }
}

#[test]
fn replication_ends_the_tap() {
    check(
        &[
            ask(query("START_REPLICATION SLOT s LOGICAL 0/0")),
            say(message(b'W', [0; 3])),
            say(data("w")),
            ask(data("r")),
        ],
        &["open 1 request  database=shop", "tunnel replication", "left 1 request other unseen"],
    );
}

#[test]
fn what_is_not_of_the_protocol_is_given_up() {
    check_all(&[say("N")], &["tunnel server_first"]);
    check_all(&[ask(packet(2 << 16, b"x\0"))], &["tunnel unsupported"]);
    check_all(&[ask(packet(77, b"x\0"))], &["tunnel not_this_protocol"]);
    check_all(&[ask([0, 0, 0, 7, 0, 3, 0, 0])], &["tunnel not_this_protocol"]);
    check_all(&[ask([0, 0, 0x27, 0x11, 0, 3, 0, 0])], &["tunnel not_this_protocol"]);
    check(&[ask(message(b'!', ""))], &["tunnel malformed"]);
    check(&[ask([b'Q', 0, 0, 0, 3])], &["tunnel malformed"]);
    check(&[ask([b'Q', 0x7f, 0, 0, 3])], &["tunnel too_large"]);
    check(&[ask(message(b'S', "x"))], &["tunnel malformed"]);
    check(&[say(message(b'?', ""))], &["tunnel malformed"]);
    check(&[say(ready("I"))], &["tunnel answer_without_request"]);
    let open = "open 1 request SELECT database=shop";
    let left = "left 1 request SELECT unseen";
    for answer in [ready("x"), ready("II"), message(b'Y', "")] {
        check(&[ask(query("SELECT 1")), say(answer)], &[open, "tunnel malformed", left]);
    }
}

/// A connection that ends in the midst of something.
#[test]
fn an_end_too_early() {
    check(
        &[ask(query("SELECT 1")), say(message(b'T', "x"))],
        &[
            "open 1 request SELECT database=shop",
            "cut Response",
            "left 1 request SELECT unanswered 14/0",
        ],
    );
    check(&[ask(parse("", "SELECT 1"))], &["cut Request"]);
    check(&[ask(message(b'X', ""))], &[]);
}
