//! MySQL: who speaks when, where an answer ends, and everything that could make one answer two.

mod kit;
#[path = "mysql/statements.rs"]
mod statements;
#[path = "mysql/wire.rs"]
mod wire;

use kit::{LIMITS, Pieces, Taster, ask, say};
use netra_codecs::Limits;
use netra_codecs::codec::{Head, Key, Way};
use netra_codecs::tap::{Protocol, Step, Tap};
use wire::*;

#[test]
fn the_server_greets_and_asks_who_the_client_is() {
    let questions = [
        // Another plug-in; a fast answer of it, then the whole way with a key.
        (2, &b"\xfecaching_sha2_password\0saltsaltsaltsaltsalt\0"[..]),
        (4, b"\x01\x04"),
        (6, b"\x01-----BEGIN PUBLIC KEY-----"),
        // What other plug-ins say to one another, and a second factor.
        (8, b"\x04Password: "),
        (10, b""),
        (12, b"\x02authentication_webauthn\0"),
    ];
    let mut parts = vec![greeting(USUAL), login(USUAL)];
    for (sequence, question) in questions {
        parts.push(say(packet(sequence, question)));
        parts.push(ask(packet(sequence + 1, b"s3cret")));
    }
    parts.extend([say(packet(14, ok(AUTOCOMMIT))), command(0x0e, b""), answer(&[&ok(2)])]);
    let told = said(&parts);
    assert_eq!(told.iter().filter(|line| *line == "aside callback").count(), 12);
    assert_eq!(done(&told), ["0 handshake login ok 62/11", "1 request COM_PING ok 5/11"]);
}

#[test]
fn who_is_not_let_in() {
    let refused = b"\xff\x15\x04#28000Access denied for user 's3cret'";
    let told = said(&[greeting(USUAL), login(USUAL), say(packet(2, refused))]);
    assert_eq!(done(&told), ["0 handshake login app_error 1045 28000 62/44"]);
    // Before anybody has said anything, and without a state.
    let told = said(&[say(packet(0, b"\xff\x10\x04Too many connections"))]);
    assert_eq!(told, ["aside push"]);
    // The server goes away while nothing is asked.
    let gone = say(packet(0, b"\xff\xbf\x0f#HY000The client was disconnected"));
    assert_eq!(said(&with(USUAL, &[gone]))[3..], ["aside push"]);
}

#[test]
fn what_begins_in_another_way() {
    let tls = ask(packet(1, &login(USUAL | SSL).bytes[4..36]));
    let with_ssl = greeting(USUAL | SSL | COMPRESS | ZSTD);
    for (parts, reason) in [
        (vec![with_ssl.clone(), tls], "tls"),
        (vec![with_ssl.clone(), login(USUAL | COMPRESS)], "compressed"),
        (vec![with_ssl.clone(), login(USUAL | ZSTD)], "compressed"),
        (vec![with_ssl.clone(), login(USUAL & !PROTOCOL_41)], "unsupported"),
        (vec![greeting(USUAL & !PROTOCOL_41)], "unsupported"),
        (vec![say(packet(0, b"\x093.20.1\0abcd"))], "unsupported"),
        (vec![say(packet(0, b"\x0b9.9.9\0abcd"))], "not_this_protocol"),
        (vec![say(packet(0, b"\x0a8.4.0"))], "not_this_protocol"),
        (vec![say(packet(0, b"\x0a8.4.0\0abcd"))], "not_this_protocol"),
        (vec![say(packet(1, b"\x0a8.4.0\0abcd"))], "not_this_protocol"),
        (vec![say(packet(0, [10; 1025]))], "not_this_protocol"),
        (vec![query("select 1")], "not_this_protocol"),
        (vec![with_ssl.clone(), ask("GET / HTTP/1.1\r\n\r\n")], "not_this_protocol"),
        (vec![with_ssl.clone(), ask(b"\x16\x03\x01\0\xc8\x01")], "tls"),
        (vec![with_ssl.clone(), query("select 1")], "not_this_protocol"),
        (vec![with_ssl.clone(), ask(packet(1, [1; 5000]))], "not_this_protocol"),
        (vec![with_ssl.clone(), numbered(2, &[&ok(2)])], "server_first"),
        (vec![with_ssl, ask(packet(1, b"abc"))], "not_this_protocol"),
    ] {
        let told = said(&parts);
        assert_eq!(tunnel(&told), Some(reason), "{parts:?}");
        assert!(done(&told).is_empty());
    }
    // What only one side can is not done.
    let parts = [greeting(USUAL), login(USUAL | COMPRESS | SSL), numbered(2, &[&ok(2)])];
    assert_eq!(done(&said(&parts)).len(), 1);
}

#[test]
fn databases_of_logins() {
    let proof = [&[0xfc, 44, 1][..], &[b'x'; 300]].concat();
    for (capabilities, rest, database) in [
        (USUAL, &b"bob\0\x02xxshop\0"[..], Some("shop")),
        (USUAL & !SECURE, b"bob\0xx\0shop\0", Some("shop")),
        (USUAL | LENENC_AUTH, &[b"bob\0", &proof[..], b"shop\0"].concat(), Some("shop")),
        (USUAL & !CONNECT_WITH_DB, b"bob\0\x02xxshop\0", None),
        (USUAL, b"bob\0\x02xx\0", None),
        (USUAL, b"bob\0\xffxxshop\0", None),
        (USUAL, b"bob", None),
    ] {
        let payload = [&login(capabilities).bytes[4..36], rest].concat();
        let told = said(&[greeting(!SSL), ask(packet(1, payload))]);
        let tail = database.map_or(String::new(), |name| format!(" database={name}"));
        assert_eq!(told[1], format!("open 0 handshake login{tail}"));
    }
}

#[test]
fn rows_end_as_was_agreed() {
    let two = b"\x02";
    let old = [two, COLUMN, COLUMN, &eof(2), ROW, ROW, &eof(2)];
    let told_old = told(USUAL, &[query("SELECT a FROM t"), answer(&old)]);
    assert_eq!(done(&told_old), ["1 request COM_QUERY ok 20/107"]);
    let new = [two, COLUMN, COLUMN, ROW, &ending(0xfe, 2)];
    let told_new = told(USUAL | DEPRECATE_EOF, &[query("SELECT a FROM t"), answer(&new)]);
    assert_eq!(told_new[0], "open 1 request SELECT t");
    assert_eq!(done(&told_new), ["1 request COM_QUERY ok 20/89"]);
    // None at all.
    let none = [two, COLUMN, COLUMN, &eof(2), &eof(2)];
    assert_eq!(done(&told(USUAL, &[query("SELECT a FROM t"), answer(&none)])).len(), 1);
    // More columns than fit a byte.
    let end = eof(2);
    let many = [&[&b"\xfc\x2c\x01"[..]][..], &[COLUMN; 300], &[&end, &end]].concat();
    assert_eq!(done(&told(USUAL, &[query("SELECT a FROM t"), answer(&many)])).len(), 1);
    // What looks like an end and is none: rows that begin with a null or an empty string.
    let odd = [two, COLUMN, COLUMN, &eof(2), b"\xfb\xfb", b"\0\0", b"\0\xfe\xff", &eof(2)];
    assert_eq!(done(&told(USUAL, &[query("SELECT a FROM t"), answer(&odd)])).len(), 1);
}

#[test]
fn results_follow_one_another() {
    let rows = |status| [&b"\x01"[..], COLUMN, &eof(2), ROW, &eof(status)].map(<[u8]>::to_vec);
    let all = [&rows(MORE)[..], &[ok(MORE)], &rows(MORE), &[ok(2)]].concat();
    let all: Vec<_> = all.iter().map(Vec::as_slice).collect();
    let results = answer(&all);
    let call = format!("1 request COM_QUERY ok 13/{}", results.bytes.len());
    let parts = [query("CALL p()"), results, command(0x0e, b""), answer(&[&ok(2)])];
    assert_eq!(done(&told(USUAL, &parts)), [&call, "2 request COM_PING ok 5/11"]);
}

#[test]
fn errors_are_told_wherever_they_come() {
    let (end, more) = (eof(2), ok(MORE));
    let one = &b"\x01"[..];
    for before in [
        &[][..],
        &[one],
        &[one, COLUMN],
        &[one, COLUMN, &end],
        &[one, COLUMN, &end, ROW, ROW],
        &[&more],
    ] {
        let answer = answer(&[before, &[ERR]].concat());
        let len = answer.bytes.len();
        let told = told(USUAL, &[query("SELECT a FROM t"), answer]);
        let expected = format!("1 request COM_QUERY app_error 1146 42S02 20/{len}");
        assert_eq!(done(&told), [expected], "{told:?}");
    }
    // Nothing that a server says is taken for a state unless it is one.
    let told = told(USUAL, &[query("SELECT 1"), answer(&[b"\xff\x7a\x04#s3 ret"])]);
    assert_eq!(done(&told), ["1 request COM_QUERY app_error 1146 13/14"]);
}

#[test]
fn how_far_a_statement_has_come_is_no_error() {
    let progress = b"\xff\xff\xff\x01\x01\x02\x64\0\0\x05stage";
    let told = told(USUAL, &[query("ALTER TABLE t FORCE"), answer(&[progress, progress, &ok(2)])]);
    assert_eq!(done(&told), ["1 request COM_QUERY ok 24/49"]);
}

#[test]
fn definitions_may_be_left_out() {
    let none = USUAL | DEPRECATE_EOF | OPTIONAL_METADATA;
    let told_none = told(
        none,
        &[
            query("SELECT a FROM t"),
            answer(&[b"\0\x02", ROW, &ending(0xfe, 2)]),
            query("SELECT a FROM t"),
            answer(&[b"\x01\x01", COLUMN, ROW, &ending(0xfe, 2)]),
            command(0x16, b"SELECT a FROM t WHERE a = ?"),
            answer(&[b"\0\x01\0\0\0\x01\0\x01\0\0\0\0\0"]),
            query("DO 1"),
            answer(&[&ok(2)]),
        ],
    );
    assert_eq!(done(&told_none).len(), 4);
    let cached = USUAL & !MYSQL | CACHED_METADATA;
    let told_cached = told(
        cached,
        &[
            command(0x17, b"\x01\0\0\0\0\x01\0\0\0"),
            answer(&[b"\x01\0", &eof(2), b"\0\0x", &eof(2)]),
            command(0x17, b"\x01\0\0\0\0\x01\0\0\0"),
            answer(&[b"\x01\x01", COLUMN, &eof(2), b"\0\0x", &eof(2)]),
        ],
    );
    assert_eq!(done(&told_cached).len(), 2);
}

#[test]
fn commands_and_what_answers_them() {
    let field = |status| [COLUMN.to_vec(), eof(status)];
    let told = told(
        USUAL,
        &[
            command(2, b"shop"),
            answer(&[&ok(2)]),
            command(4, b"s3cret\0%"),
            answer(&[&field(2)[0], &field(2)[1]]),
            command(4, b"s3cret\0%"),
            answer(&[ERR]),
            command(8, b""),
            answer(&[&eof(2)]),
            command(9, b""),
            answer(&[b"Uptime: 12"]),
            command(0x0a, b""),
            answer(&[b"\x01", COLUMN, &eof(2), ROW, &eof(2)]),
            command(0x1b, b"\0\0"),
            answer(&[&eof(2)]),
            command(0x15, b"s3cret"),
            answer(&[&ok(2)]),
            // One that nobody knows.
            command(0x77, b"s3cret"),
            answer(&[b"\xff\x17\x04#08S01Unknown command"]),
            command(0x11, b"s3cret\0\x06s3cretshop\0"),
            numbered(1, &[b"\xfeplugin\0salt\0"]),
            ask(packet(2, b"s3cret")),
            numbered(3, &[&ok(2)]),
            command(1, b""),
        ],
    );
    let ways: Vec<_> = done(&told).iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(
        ways,
        [
            "1 request COM_INIT_DB ok",
            "2 request COM_FIELD_LIST ok",
            "3 request COM_FIELD_LIST app_error 1146 42S02",
            "4 request COM_SHUTDOWN ok",
            "5 request COM_STATISTICS ok",
            "6 request COM_PROCESS_INFO ok",
            "7 request COM_SET_OPTION ok",
            "8 request COM_REGISTER_SLAVE ok",
            "9 request other app_error 1047 08S01",
            "10 handshake COM_CHANGE_USER ok",
            "11 oneway COM_QUIT sent",
        ]
    );
}

/// The database in use, once the server has said yes to it.
#[test]
fn the_database_in_use_is_told() {
    let told = said(&with(
        USUAL,
        &[
            query("SELECT a FROM t"),
            answer(&[&ok(2)]),
            command(2, b"other"),
            answer(&[ERR]),
            query("USE `stock`"),
            answer(&[&ok(2)]),
            command(0x0e, b""),
            answer(&[&ok(2)]),
            query("use nowhere"),
            answer(&[ERR]),
            command(0x16, b"SELECT a FROM t"),
            answer(&[b"\0\x01\0\0\0\0\0\0\0\0\0\0"]),
            command(0x11, b"s3cret\0\x06s3cret\0"),
            answer(&[&ok(2)]),
            command(0x0e, b""),
            answer(&[&ok(2)]),
        ],
    ));
    let opened: Vec<_> = told.iter().filter_map(|line| line.strip_prefix("open ")).collect();
    assert_eq!(
        opened[1..],
        [
            "1 request SELECT t database=shop",
            "2 request COM_INIT_DB database=other",
            "3 request USE `stock` database=shop",
            "4 request COM_PING database=stock",
            "5 request use nowhere database=stock",
            "6 request COM_STMT_PREPARE SELECT t database=stock",
            "7 handshake COM_CHANGE_USER",
            "8 request COM_PING",
        ]
    );
}

#[test]
fn replication_and_what_is_not_read() {
    for (number, reason) in [
        (0x12, "replication"),
        (0x13, "replication"),
        (0x1e, "replication"),
        (0x21, "replication"),
        (0x20, "unsupported"),
        (0xfe, "unsupported"),
    ] {
        assert_eq!(told(USUAL, &[command(number, b"\x04\0\0\0")]), [format!("tunnel {reason}")]);
    }
}

#[test]
fn files_that_the_server_asks_for() {
    // More packets than there are numbers.
    let mut parts = vec![query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t"), answer(&[b"\xfbx"])];
    parts.extend((0..300).map(|at| ask(packet(2 + at, b"\x03s3cret\n"))));
    parts.push(ask(packet(302, b"")));
    parts.extend([numbered(303, &[&ok(2)]), query("SELECT 1"), answer(&[&ok(2)])]);
    let told_whole = told(USUAL, &parts);
    let sent = 44 + 300 * 12 + 4;
    let expected = format!("1 request COM_QUERY ok {sent}/17");
    assert_eq!(done(&told_whole), [&expected, "2 request COM_QUERY ok 13/11"]);
    // The server has enough before the client has sent all.
    let told_early = told(
        USUAL,
        &[
            query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t"),
            answer(&[b"\xfbx"]),
            ask(packet(2, b"s3cret")),
            numbered(3, &[ERR]),
            ask(packet(3, b"s3cret")),
            ask(packet(4, b"")),
            query("SELECT 1"),
            answer(&[&ok(2)]),
        ],
    );
    assert_eq!(done(&told_early)[1], "2 request COM_QUERY ok 13/11");
    assert!(done(&told_early)[0].starts_with("1 request COM_QUERY app_error 1146 42S02"));
}

/// Packets of 16 MiB - 1 are continued, by an empty one at last.
#[test]
fn long_packets_go_on() {
    const FULL: usize = 0xff_ffff;
    for len in [FULL - 1, FULL, FULL + 1, 2 * FULL, 2 * FULL + 5] {
        let mut taster = Taster::new(Protocol::Mysql, Limits::DEFAULT);
        session(USUAL).iter().for_each(|part| taster.show(part));
        let text = [&b"\x03INSERT INTO t VALUES ('"[..], &vec![b'x'; len - 26], b"')"].concat();
        assert_eq!(text.len(), len);
        let row = [&[0xfe][..], &(len as u64 - 9).to_le_bytes(), &vec![b'y'; len - 9]].concat();
        let split = |payload: &[u8], mut sequence: usize| {
            let mut bytes = Vec::new();
            let mut rest = payload;
            loop {
                let count = rest.len().min(FULL);
                bytes.extend(packet(sequence, &rest[..count]));
                sequence += 1;
                rest = &rest[count..];
                if count < FULL {
                    return (bytes, sequence);
                }
            }
        };
        let (asked, next) = split(&text, 0);
        taster.show_in(&ask(&asked), Pieces::Passing);
        taster.show(&numbered(next, &[&ok(2)]));
        taster.show(&query("SELECT a FROM t"));
        taster.show(&answer(&[b"\x01", COLUMN, &eof(2)]));
        let (rows, next) = split(&row, 4);
        for way in [Pieces::Passing, Pieces::Of(100_000)] {
            if way == Pieces::Passing {
                taster.show_in(&say(&rows), way);
                taster.show(&numbered(next, &[&eof(2)]));
                taster.show(&query("SELECT a FROM t"));
                taster.show(&answer(&[b"\x01", COLUMN, &eof(2)]));
            } else {
                taster.show_in(&say(&rows), way);
                taster.show(&numbered(next, &[&eof(2)]));
            }
        }
        taster.end();
        let said = rows.len() + answer(&[b"\x01", COLUMN, &eof(2), &eof(2)]).bytes.len();
        assert_eq!(
            done(&taster.told)[1..],
            [
                format!("1 request COM_QUERY ok {}/11", asked.len()),
                format!("2 request COM_QUERY ok 20/{said}"),
                format!("3 request COM_QUERY ok 20/{said}"),
            ],
            "{len}"
        );
        assert!(taster.held_most < 200, "{}", taster.held_most);
    }
}

#[test]
fn answers_come_in_the_order_of_the_commands() {
    let many: Vec<_> = (0..200).map(|_| query("SELECT a FROM t")).collect();
    let rows = [&b"\x01"[..], COLUMN, &eof(2), ROW, &eof(2)];
    let answers: Vec<_> =
        (0..200).map(|at| if at % 2 == 0 { answer(&rows) } else { answer(&[ERR]) }).collect();
    let told = told(USUAL, &[many, answers].concat());
    assert_eq!(done(&told).len(), 200);
    assert!(done(&told)[199].starts_with("200 request COM_QUERY app_error 1146"));
}

/// An answer that is numbered otherwise is not the next one.
#[test]
fn what_cannot_be_is_given_up() {
    let rows = [&b"\x01"[..], COLUMN, &eof(2), ROW, &eof(2)];
    for (parts, reason) in [
        (vec![query("SELECT 1"), numbered(2, &[&ok(2)])], "malformed"),
        (vec![query("SELECT 1"), numbered(2, &rows)], "malformed"),
        (vec![query("SELECT 1"), answer(&[b"\x01", COLUMN, COLUMN])], "malformed"),
        (vec![query("SELECT 1"), answer(&[b"\x01\x01\x01"])], "malformed"),
        (vec![query("SELECT 1"), answer(&[b"\0\0"])], "malformed"),
        (vec![query("SELECT 1"), answer(&[b""])], "malformed"),
        (vec![query("SELECT 1"), answer(&[b"\xfe\0\0\0\0"])], "malformed"),
        (vec![query("SELECT 1"), answer(&[b"\0\xff\0\0\0\0\0\0"])], "malformed"),
        (vec![command(0x0e, b""), answer(&rows)], "malformed"),
        (vec![command(0x16, b"SELECT 1"), answer(&[b"\x01\0\0\0\0\0\0\0\0\0\0\0"])], "malformed"),
        (vec![command(0x16, b"SELECT 1"), answer(&[b"\0\0\0\0\0"])], "malformed"),
        (vec![answer(&[&ok(2)])], "answer_without_request"),
        (vec![ask(packet(1, b"\x03SELECT 1"))], "malformed"),
        (vec![ask(packet(0, b""))], "malformed"),
        (vec![command(0x17, b"\x01\0")], "malformed"),
        (vec![command(1, b""), query("SELECT 1")], "malformed"),
    ] {
        let told = told(USUAL, &parts);
        assert_eq!(tunnel(&told), Some(reason), "{parts:?} {told:?}");
    }
}

#[test]
fn attributes_of_queries_carry_contexts() {
    let attributed = |count: u8, names: &[u8], values: &[u8], text: &str| {
        let nulls = vec![0; usize::from(count).div_ceil(8)];
        let head = [&[count, 1][..], &nulls, &[1], names, values].concat();
        command(3, [&head[..], text.as_bytes()].concat())
    };
    let names = b"\xfe\0\x0btraceparent\x03\0\x01n\x0c\0\x01d\xfd\0\x06tenant";
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let values = [&[55][..], parent.as_bytes(), b"\x01\0\0\0", b"\x04abcd", b"\x02xy"].concat();
    let told = told(
        USUAL | ATTRIBUTES,
        &[
            attributed(4, names, &values, "SELECT a FROM t WHERE b = 's3cret'"),
            answer(&[&ok(2)]),
            command(3, b"\0\x01SELECT a FROM t"),
            answer(&[&ok(2)]),
            // A null, a shape that is not known, too many.
            command(3, b"\x01\x01\x01\x01\xfe\0\x01aSELECT a FROM t"),
            answer(&[&ok(2)]),
            command(3, b"\x01\x02SELECT a FROM t"),
            answer(&[&ok(2)]),
            command(3, [&[200, 1, 0, 1][..], &[0; 3000]].concat()),
            answer(&[&ok(2)]),
            command(3, b""),
            answer(&[ERR]),
            // A text that goes on behind what is read.
            attributed(1, b"\xfe\0\x01k", b"\x01v", &format!("DELETE FROM v {}", " ".repeat(9000))),
            answer(&[&ok(2)]),
        ],
    );
    let opened: Vec<_> = told.iter().filter_map(|line| line.strip_prefix("open ")).collect();
    assert_eq!(
        opened,
        [
            &format!("1 request SELECT t traceparent:{parent} tenant:xy"),
            "2 request SELECT t",
            "3 request SELECT t",
            "4 request COM_QUERY",
            "5 request COM_QUERY",
            "6 request COM_QUERY",
            "7 request DELETE v k:v",
        ]
    );
    assert_eq!(done(&told).len(), 7);
}

/// What lies behind the beginning of a text is not looked at.
#[test]
fn long_texts() {
    let long = format!("INSERT INTO t SELECT a FROM {} u", " ".repeat(5000));
    let told_long = told(USUAL, &[query(&long), answer(&[&ok(2)])]);
    assert_eq!(told_long[0], "open 1 request INSERT t SELECT");
    // A word that the limit cuts is not told.
    let cut = format!("SELECT a FROM {}s3cret_table", " ".repeat(2048 - 14 - 6));
    let told_cut = told(USUAL, &[query(&cut), answer(&[&ok(2)])]);
    assert_eq!(told_cut[0], "open 1 request SELECT");
}

/// The state of the transaction is told at the end of an answer, in any pieces.
#[test]
fn transactions() {
    let rows = |status| [&b"\x01"[..], COLUMN, &eof(0), ROW, &eof(status)].map(<[u8]>::to_vec);
    for size in [1, 10, 10_000] {
        let mut tap = Tap::<()>::new(Protocol::Mysql);
        let mut states = Vec::new();
        let mut parts = session(USUAL);
        for (text, status) in [("BEGIN", 3), ("SELECT 1", 1), ("COMMIT", 2)] {
            let rows = rows(status);
            let rows: Vec<_> = rows.iter().map(Vec::as_slice).collect();
            let is_query = text == "SELECT 1";
            parts.push(query(text));
            parts.push(if is_query { answer(&rows) } else { answer(&[&ok(status)]) });
        }
        // The first of two results says how things stand as well, and it is not the last word.
        parts.extend([query("BEGIN; COMMIT"), answer(&[&ok(MORE | 1), &ok(2)])]);
        for part in parts {
            for mut piece in part.bytes.chunks(size) {
                loop {
                    match tap.step(part.way, piece, &LIMITS, 0, &mut Head::default()) {
                        Step::Need => break,
                        Step::Body(count) | Step::Late(count) => piece = &piece[count..],
                        Step::Opened { consumed, .. } | Step::Aside { consumed, .. } => {
                            piece = &piece[consumed..];
                        }
                        Step::Answered { consumed, message, .. } => {
                            piece = &piece[consumed..];
                            assert_eq!(message.value(Key::Transaction), None);
                        }
                        Step::Finished { consumed, message, .. } => {
                            piece = &piece[consumed..];
                            let state = message.and_then(|it| it.value(Key::Transaction));
                            states.push(String::from_utf8(state.unwrap().to_vec()).unwrap());
                        }
                        Step::Tunnel(reason) => panic!("{reason}"),
                    }
                }
            }
        }
        assert_eq!(states, ["idle", "open", "open", "idle", "idle"], "pieces of {size}");
    }
}

#[test]
fn a_connection_that_ends_early() {
    let rows = [&b"\x01"[..], COLUMN, &eof(2), ROW];
    let told = told(USUAL, &[query("SELECT 1"), query("SELECT 2"), answer(&rows)]);
    assert_eq!(
        told[2..],
        [
            "cut Response",
            "left 1 request COM_QUERY unanswered 13/56",
            "left 2 request COM_QUERY unanswered 13/0"
        ]
    );
    let mut taster = Taster::new(Protocol::Mysql, LIMITS);
    with(USUAL, &[query("SELECT 1")]).iter().for_each(|part| taster.show(part));
    taster.show(&ask(&query("SELECT 2").bytes[..8]));
    assert!(taster.tap.is_within_message(Way::Request));
}

/// A context in a comment of the text belongs to that text alone.
#[test]
fn comments_of_texts_carry_contexts() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let text = format!("SELECT a FROM t WHERE b = 's3cret' /*route='x',traceparent='{parent}'*/");
    let attributed = [&b"\x01\x01\0\x01\xfe\0\x01k\x01v"[..], text.as_bytes()].concat();
    let told = told(
        USUAL | ATTRIBUTES,
        &[
            command(3, [b"\0\x01", text.as_bytes()].concat()),
            answer(&[&ok(2)]),
            command(3, b"\0\x01SELECT a FROM t"),
            answer(&[&ok(2)]),
            command(3, attributed),
            answer(&[&ok(2)]),
            command(14, b""),
            answer(&[&ok(2)]),
        ],
    );
    let opened: Vec<_> = told.iter().filter_map(|line| line.strip_prefix("open ")).collect();
    assert_eq!(
        opened,
        [
            &format!("1 request SELECT t traceparent:{parent}"),
            "2 request SELECT t",
            &format!("3 request SELECT t k:v traceparent:{parent}"),
            "4 request COM_PING",
        ]
    );
}
