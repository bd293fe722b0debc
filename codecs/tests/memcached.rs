//! Memcached: three protocols on one port, what is not answered, and everything that could shift
//! the answers by one.

mod kit;
#[path = "memcached/quiet.rs"]
mod quiet;

use kit::{LIMITS, Part, Pieces, Taster, ask, say, tell};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

/// What is said, whole, byte by byte, and while values pass unseen.
fn told(parts: &[Part]) -> Vec<String> {
    let whole = tell(Protocol::Memcached, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(3), Pieces::Passing] {
        assert_eq!(tell(Protocol::Memcached, parts, pieces), whole, "{pieces:?}: {parts:?}");
    }
    whole
}

fn done(told: &[String]) -> Vec<&str> {
    told.iter().filter(|line| line.starts_with("done")).map(|line| &line[5..]).collect()
}

fn tunnel(told: &[String]) -> Option<&str> {
    told.iter().find_map(|line| line.strip_prefix("tunnel "))
}

/// A message of the binary protocol.
fn packet(
    magic: u8,
    (opcode, status): (u8, u16),
    opaque: u32,
    (extras, key, value): (&[u8], &[u8], &[u8]),
) -> Vec<u8> {
    let body = u32::try_from(extras.len() + key.len() + value.len()).unwrap();
    let mut bytes = vec![magic, opcode];
    bytes.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
    bytes.extend([u8::try_from(extras.len()).unwrap(), 0]);
    bytes.extend(status.to_be_bytes());
    bytes.extend(body.to_be_bytes());
    bytes.extend(opaque.to_be_bytes());
    bytes.extend([0; 8]);
    [&bytes, extras, key, value].concat()
}

fn call(opcode: u8, opaque: u32, key: &str) -> Part {
    ask(packet(0x80, (opcode, 0), opaque, (b"", key.as_bytes(), b"")))
}

fn reply(opcode: u8, status: u16, opaque: u32, value: &str) -> Part {
    say(packet(0x81, (opcode, status), opaque, (b"", b"", value.as_bytes())))
}

#[test]
fn every_command_has_its_answers() {
    let mut parts = Vec::new();
    let table = [
        ("get a\r\n", "END\r\n", "get ok"),
        ("get a b c\r\n", "VALUE a 0 1\r\nx\r\nVALUE c 9 0\r\n\r\nEND\r\n", "get ok"),
        ("gets a\r\n", "VALUE a 0 3 77\r\nEND\r\nEND\r\n", "gets ok"),
        ("gat 10 a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n", "gat ok"),
        ("set a 0 -1 3\r\na\r\n\r\n", "STORED\r\n", "set ok"),
        ("set a 4294967295 0 0\r\n\r\n", "STORED\r\n", "set ok"),
        ("add a 0 0 1\r\nx\r\n", "NOT_STORED\r\n", "add ok"),
        ("cas a 0 0 1 18446744073709551615\r\nx\r\n", "EXISTS\r\n", "cas ok"),
        ("prepend a 0 0 1\r\nx\r\n", "NOT_STORED\r\n", "prepend ok"),
        ("delete a\r\n", "DELETED\r\n", "delete ok"),
        ("delete a 0\r\n", "NOT_FOUND\r\n", "delete ok"),
        ("delete noreply\r\n", "NOT_FOUND\r\n", "delete ok"),
        ("incr a 1\r\n", "18446744073709551615\r\n", "incr ok"),
        ("decr a 1\r\n", "0  \r\n", "decr ok"),
        ("touch a 1\r\n", "TOUCHED\r\n", "touch ok"),
        ("stats\r\n", "STAT pid 1\r\nSTAT version 1.6 x\r\nEND\r\n", "stats ok"),
        ("stats reset\r\n", "RESET\r\n", "stats ok"),
        ("stats detail dump\r\n", "PREFIX a get 1 hit 1\r\nEND\r\n", "stats ok"),
        ("stats cachedump 1 1\r\n", "ITEM a [1 b; 0 s]\r\nEND\r\n", "stats ok"),
        ("lru_crawler metadump all\r\n", "key=a exp=-1 la=1\r\nEND\r\n", "lru_crawler ok"),
        ("lru_crawler mgdump 1\r\n", "mg a\r\nEN\r\n", "lru_crawler ok"),
        ("lru tune 10 25 0.1 2\r\n", "OK\r\n", "lru ok"),
        ("slabs reassign 1 2\r\n", "BUSY currently processing\r\n", "slabs ok"),
        ("flush_all\n", "OK\r\n", "flush_all ok"),
        ("version\r\n", "VERSION 1.6.18\r\n", "version ok"),
        ("mg a v\r\n", "VA 2 s2\r\nab\r\n", "mg ok"),
        ("mg a\r\n", "EN\r\n", "mg ok"),
        ("ms a 0\r\n\r\n", "HD\r\n", "ms ok"),
        ("ms a 1 C4\r\nx\r\n", "EX\r\n", "ms ok"),
        ("md a\r\n", "NF\r\n", "md ok"),
        ("ma a v N0\r\n", "VA 1\r\n1\r\n", "ma ok"),
        ("me a\r\n", "ME a exp=-1 la=1 cas=2\r\n", "me ok"),
        ("mn\r\n", "MN\r\n", "mn ok"),
    ];
    let mut expected = Vec::new();
    for (number, (asked, said, how)) in table.iter().enumerate() {
        parts.extend([ask(asked), say(said)]);
        expected.push(format!("{number} request {how} {}/{}", asked.len(), said.len()));
    }
    assert_eq!(done(&told(&parts)), expected);
}

#[test]
fn errors_are_known_by_their_first_word() {
    for (said, error) in [
        ("ERROR\r\n", "protocol_error ERROR"),
        ("ERROR no such command\r\n", "protocol_error ERROR"),
        ("CLIENT_ERROR bad data chunk\r\n", "app_error CLIENT_ERROR"),
        ("SERVER_ERROR object too large for cache\r\n", "app_error SERVER_ERROR"),
    ] {
        for asked in
            ["set a 0 0 1\r\nx\r\n", "get a\r\n", "incr a 1\r\n", "mg a v\r\n", "stats\r\n"]
        {
            let told = told(&[ask(asked), say(said), ask("version\r\n"), say("VERSION 1\r\n")]);
            let verb = asked.split_once([' ', '\r']).unwrap().0;
            let expected = format!("0 request {verb} {error} {}/{}", asked.len(), said.len());
            assert_eq!(done(&told), [expected.as_str(), "1 request version ok 9/11"]);
        }
    }
    // Between values it ends the answer, whose head was told.
    let told = told(&[
        ask("get a b\r\n"),
        say("VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n"),
        ask("mn\r\n"),
        say("MN\r\n"),
    ]);
    assert_eq!(done(&told), ["0 request get ok 9/44", "1 request mn ok 4/4"]);
}

/// The server refuses a value whose length it has read, and reads over it.
#[test]
fn a_value_that_is_refused() {
    let told = tell(
        Protocol::Memcached,
        &[
            ask("set a 0 0 5000\r\n"),
            say("SERVER_ERROR object too large for cache\r\n"),
            ask("x".repeat(5000)),
            ask("\r\nget a\r\n"),
            say("END\r\n"),
        ],
        Pieces::Whole,
    );
    assert_eq!(done(&told), ["0 request set app_error SERVER_ERROR 0/41", "1 request get ok 7/5"]);
}

#[test]
fn what_is_told_not_to_be_answered_is_over_when_it_is_sent() {
    let told = told(&[
        ask("set a 0 0 1 noreply\r\nx\r\nappend a 0 0 1 noreply\r\ny\r\n"),
        ask("cas a 0 0 1 5 noreply\r\nx\r\n"),
        ask("delete a noreply\r\nincr a 1 noreply\r\ntouch a 1 noreply\r\n"),
        ask("flush_all noreply\r\nverbosity 1 noreply\r\n"),
        ask("get noreply\r\n"),
        say("END\r\n"),
        ask("quit\r\n"),
    ]);
    assert_eq!(
        done(&told),
        [
            "0 oneway set sent 24/0",
            "1 oneway append sent 27/0",
            "2 oneway cas sent 26/0",
            "3 oneway delete sent 18/0",
            "4 oneway incr sent 18/0",
            "5 oneway touch sent 19/0",
            "6 oneway flush_all sent 19/0",
            "7 oneway verbosity sent 21/0",
            "8 request get ok 13/5",
            "9 oneway quit sent 6/0",
        ]
    );
}

/// Servers say some errors whatever was asked: nobody can tell whose one is, unless nothing waits.
#[test]
fn an_error_that_may_be_of_a_silent_request() {
    let silent = ask("set a 0 0 1 noreply\r\nx\r\n");
    let error = say("SERVER_ERROR out of memory storing object\r\n");
    let unclear = told(&[silent.clone(), ask("get a\r\n"), error.clone()]);
    assert_eq!(tunnel(&unclear), Some("replies_unclear"));
    let clear = told(&[
        silent.clone(),
        error.clone(),
        ask("get a\r\n"),
        say("END\r\n"),
        ask("get a\r\n"),
        error.clone(),
    ]);
    assert!(clear.contains(&"aside push".to_owned()), "{clear:?}");
    assert_eq!(done(&clear)[2], "2 request get app_error SERVER_ERROR 7/43");
    // Without such a request it is nobody's.
    let nobody = told(&[ask("get a\r\n"), say("END\r\n"), error]);
    assert_eq!(tunnel(&nobody), Some("answer_without_request"));
    // A server that does not know the word is off by one at once.
    let answered = told(&[silent, ask("get a\r\n"), say("STORED\r\n")]);
    assert_eq!(tunnel(&answered), Some("answer_without_request"));
}

#[test]
fn the_binary_protocol() {
    let told = told(&[
        call(0x0c, 7, "a"),
        call(0x01, 8, "a"),
        reply(0x0c, 0, 7, "value"),
        reply(0x01, 0, 8, ""),
        call(0x00, 0, "b"),
        reply(0x00, 1, 0, "Not found"),
        call(0x20, 0, ""),
        reply(0x20, 0, 0, "PLAIN"),
        call(0x21, 0, "PLAIN"),
        reply(0x21, 0x20, 0, "Auth failure"),
        call(0x01, 1, "a"),
        reply(0x01, 3, 1, "Too large"),
        call(0x77, 2, ""),
        reply(0x77, 0x81, 2, "Unknown command"),
        call(0x0a, 3, ""),
        reply(0x0a, 0, 3, ""),
    ]);
    assert_eq!(
        done(&told),
        [
            "0 request get ok 25/29",
            "1 request set ok 25/24",
            "2 request get ok 1 25/33",
            "3 handshake sasl_list_mechs ok 24/29",
            "4 handshake sasl_auth app_error 32 auth_error 29/36",
            "5 request set app_error 3 too_large 25/33",
            "6 request other protocol_error 129 unknown_command 24/39",
            "7 request noop ok 24/24",
        ]
    );
    assert!(told.contains(&"open 6 request other".to_owned()), "{told:?}");
}

#[test]
fn the_statistics_of_the_binary_protocol_are_one_answer() {
    let stat = |name: &str| packet(0x81, (0x10, 0), 5, (b"", name.as_bytes(), b"1"));
    let parts = [
        call(0x10, 5, ""),
        say([stat("pid"), stat("uptime")].concat()),
        say([stat("time"), packet(0x81, (0x10, 0), 5, (b"", b"", b""))].concat()),
        call(0x0a, 6, ""),
        reply(0x0a, 0, 6, ""),
    ];
    let told = told(&parts);
    let len = parts[1].bytes.len() + parts[2].bytes.len();
    assert_eq!(
        done(&told),
        [format!("0 request stats ok 24/{len}"), "1 request noop ok 24/24".to_owned()]
    );
}

#[test]
fn binary_answers_that_are_none() {
    for (answer, reason) in [
        (reply(0x00, 0, 8, ""), "answer_without_request"),
        (reply(0x01, 0, 7, ""), "answer_without_request"),
        (call(0x00, 7, ""), "not_this_protocol"),
        (say("STORED\r\n"), "not_this_protocol"),
        (say(b"\x15\x03\x03\0\x02\x02\x28"), "tls"),
    ] {
        let parts = [call(0x00, 7, "a"), say(answer.bytes)];
        let said = told(&parts);
        assert_eq!(tunnel(&said), Some(reason), "{said:?}");
    }
    let mut lies = packet(0x80, (0x01, 0), 0, (b"12345678", b"key", b"value"));
    lies[11] = 10;
    assert_eq!(tunnel(&told(&[ask(&lies)])), Some("malformed"));
    lies[8] = 0xff;
    assert_eq!(tunnel(&told(&[ask(&lies)])), Some("too_large"));
    let stray = told(&[call(0x0a, 1, ""), reply(0x0a, 0, 1, ""), reply(0x0a, 0, 1, "")]);
    assert_eq!(tunnel(&stray), Some("answer_without_request"));
    // A connection keeps the protocol that it began with.
    assert_eq!(tunnel(&told(&[call(0x0a, 1, ""), ask("get a\r\n")])), Some("not_this_protocol"));
    assert_eq!(tunnel(&told(&[ask("get a\r\n"), call(0x0a, 1, "")])), Some("not_this_protocol"));
}

#[test]
fn a_long_pipeline_is_answered_in_order() {
    let mut parts = vec![ask("incr n 1\r\n".repeat(250))];
    parts.extend((0..250).map(|number| say(format!("{number}\r\n"))));
    let told = told(&parts);
    assert_eq!(done(&told).len(), 250);
    assert!(done(&told)[249].starts_with("249 request incr ok"));
    let mut taster = Taster::new(Protocol::Memcached, LIMITS);
    let count = LIMITS.open_max as usize;
    taster.show(&ask("get k\r\n".repeat(count + 1)));
    assert_eq!(taster.told.last().unwrap(), "tunnel too_many_open");
}

/// What a server would take for something else than the client meant is not followed.
#[test]
fn what_is_no_memcached() {
    let long = "k".repeat(251);
    for (bytes, reason) in [
        ("GET / HTTP/1.1\r\n", "not_this_protocol"),
        ("HELO there\r\n", "not_this_protocol"),
        ("*1\r\n$4\r\nPING\r\n", "not_this_protocol"),
        ("\r\n", "not_this_protocol"),
        ("getting a\r\n", "not_this_protocol"),
        ("get\ta\r\n", "not_this_protocol"),
        ("averylongwordthatisnocommand", "not_this_protocol"),
        ("\u{16}\u{3}\u{1}", "tls"),
        ("set a 0 0\r\n", "malformed"),
        ("set a 0 0 -1\r\n", "malformed"),
        ("set a 0 0 1x\r\nx\r\n", "malformed"),
        ("set a f 0 1\r\nx\r\n", "malformed"),
        ("set a 0 0 1 norepl\r\nx\r\n", "malformed"),
        ("cas a 0 0 1\r\nx\r\n", "malformed"),
        ("ms a S1\r\nx\r\n", "malformed"),
        ("ms\r\n", "malformed"),
        (&format!("set {long} 0 0 1\r\nx\r\n"), "malformed"),
        (&format!("ms {long} 1\r\nx\r\n"), "malformed"),
        ("set a 0 0 2\r\nabc\r\n", "malformed"),
        ("set a 0 0 2\r\na\r\n\r\n", "malformed"),
        ("set a 0 0 1\r\na\n", "malformed"),
        ("set a 0 0 2147483648\r\n", "too_large"),
        (&format!("delete {}\r\n", "k".repeat(3000)), "too_large"),
        ("watch fetchers\r\n", "unsupported"),
    ] {
        let told = told(&[ask(bytes)]);
        assert_eq!(tunnel(&told), Some(reason), "{bytes:?}: {told:?}");
        assert!(done(&told).is_empty());
    }
}

#[test]
fn answers_that_are_none() {
    for (asked, bytes, reason) in [
        ("get a\r\n", &b"HTTP/1.1 400 Bad Request\r\n"[..], "answer_without_request"),
        ("get a\r\n", b"\x15\x03\x01\0\0\n", "tls"),
        ("get a\r\n", b"-ERR no\r\n", "not_this_protocol"),
        ("get a\r\n", b"STORED\r\n", "answer_without_request"),
        ("get a\r\n", b"EN\r\n", "answer_without_request"),
        ("set a 0 0 1\r\nx\r\n", b"END\r\n", "answer_without_request"),
        ("incr a 1\r\n", b"12a\r\n", "answer_without_request"),
        ("delete a\r\n", b"STORED\r\n", "answer_without_request"),
        ("version\r\n", b"OK\r\n", "answer_without_request"),
        ("flush_all\r\n", b"STORED\r\n", "answer_without_request"),
        ("ms a 1\r\nx\r\n", b"VA 1\r\nx\r\n", "answer_without_request"),
        ("mn\r\n", b"HD\r\n", "answer_without_request"),
        ("get a\r\n", b"VALUE a 0\r\n", "malformed"),
        ("get a\r\n", b"VALUE a 0 2\r\nabc\r\nEND\r\n", "malformed"),
        ("get a\r\n", b"VALUE a 0 1\r\nx\r\nSTORED\r\n", "malformed"),
        ("get a\r\n", b"VALUE a 0 99999999999\r\n", "too_large"),
        ("mg a v\r\n", b"VA x\r\n", "malformed"),
        ("stats\r\n", b"STAT a 1\r\nVALUE\r\n", "malformed"),
    ] {
        let told = told(&[ask(asked), say(bytes)]);
        assert_eq!(tunnel(&told), Some(reason), "{asked:?} {bytes:?}: {told:?}");
        assert!(done(&told).is_empty());
    }
}

/// Many keys make a line of any length; nothing of it is needed.
#[test]
fn a_line_beyond_the_limit() {
    let keys = " key".repeat(2000);
    let stat = format!("STAT long {}\r\n", "x".repeat(5000));
    let parts = [
        ask(format!("get{keys}\r\nget b\r\n")),
        say("VALUE key 0 1\r\nx\r\nEND\r\nEND\r\n"),
        ask("stats\r\n"),
        say(format!("{stat}{stat}END\r\n")),
        ask("get b\r\n"),
        say(format!("SERVER_ERROR {}\r\n", "x".repeat(5000))),
    ];
    let told = told(&parts);
    assert_eq!(
        done(&told),
        [
            "0 request get ok 8005/23",
            "1 request get ok 7/5",
            "2 request stats ok 7/10029",
            "3 request get app_error SERVER_ERROR 7/5015",
        ]
    );
}

/// Keys, values and credentials are never told: not even that there are keys.
#[test]
fn nothing_that_was_stored_is_ever_told() {
    let parts = [
        ask("set s3cret 0 0 13\r\nuser s3cretpw\r\n"),
        say("STORED\r\n"),
        ask("get s3cret\r\n"),
        say("VALUE s3cret 0 6\r\ns3cret\r\nEND\r\n"),
        ask("mg s3cret v k Os3cret\r\n"),
        say("VA 6 ks3cret Os3cret\r\ns3cret\r\n"),
        ask("incr s3cret 1\r\n"),
        say("CLIENT_ERROR s3cret is no number\r\n"),
    ];
    assert!(!told(&parts).join("\n").contains("s3cret"));
    let sasl = packet(0x80, (0x21, 0), 0, (b"", b"PLAIN", b"\0bob\0s3cret"));
    let refused = reply(0x21, 0x20, 0, "s3cret is wrong");
    assert!(!told(&[ask(sasl), refused]).join("\n").contains("s3cret"));
}

/// A value of any length is neither held nor shown.
#[test]
fn long_values_pass() {
    let len: u64 = 64 << 20;
    let mut taster = Taster::new(Protocol::Memcached, Limits::DEFAULT);
    taster.show(&ask(format!("set k 0 0 {len}\r\nabc")));
    assert_eq!(taster.tap.passable(Way::Request), len - 3);
    taster.tap.passed(Way::Request, len - 3);
    taster.show(&ask("\r\n"));
    taster.show(&say("STORED\r\n"));
    taster.show(&ask("get k\r\n"));
    taster.show(&say(format!("VALUE k 0 {len}\r\n")));
    assert_eq!(taster.tap.passable(Way::Response), len);
    taster.tap.passed(Way::Response, len);
    assert!(taster.tap.is_within_message(Way::Response));
    taster.show(&say("\r\nEND\r\n"));
    taster.end();
    let (asked, said) = (len + 22, len + 27);
    assert_eq!(
        done(&taster.told),
        [format!("0 request set ok {asked}/8"), format!("1 request get ok 7/{said}")]
    );
    assert!(taster.held_most < 200, "{}", taster.held_most);

    let mut taster = Taster::new(Protocol::Memcached, Limits::DEFAULT);
    let mut set = packet(0x80, (0x01, 0), 0, (&[0; 8], b"k", b""));
    set[8..12].copy_from_slice(&u32::try_from(len + 9).unwrap().to_be_bytes());
    taster.show(&ask(&set));
    assert_eq!(taster.tap.passable(Way::Request), len);
    taster.tap.passed(Way::Request, len);
    taster.show(&ask(""));
    taster.show(&reply(0x01, 0, 0, ""));
    taster.end();
    assert_eq!(done(&taster.told), [format!("0 request set ok {}/24", len + 33)]);
}

#[test]
fn a_connection_that_ends_early() {
    let told = told(&[ask("get a\r\nget b\r\n"), say("VALUE a 0 5\r\nab")]);
    assert_eq!(
        told[2..],
        ["cut Response", "left 0 request get unanswered 7/15", "left 1 request get unanswered 7/0"]
    );
}

/// Before anything was asked, and of what says so: a server that is full.
#[test]
fn a_server_that_speaks_first() {
    assert_eq!(told(&[say("ERROR Too many open connections\r\n")]), ["tunnel server_first"]);
    assert_eq!(told(&[say(b"\x16\x03\x03")]), ["tunnel tls"]);
}
