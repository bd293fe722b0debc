//! PostgreSQL, rule by rule: what one exchange is, what is read along, and when it is given up.

#[path = "postgresql/ends.rs"]
mod ends;
mod kit;

use kit::{LIMITS, Part, Pieces, Taster, ask, say, tell};
use netra_codecs::codec::{Head, Key, Way};
use netra_codecs::tap::{Protocol, Step, Tap};

/// A message: its type, its length, its payload.
fn message(kind: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let len = u32::try_from(payload.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &len, payload].concat()
}

/// A packet without a type.
fn packet(code: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len() + 8).unwrap().to_be_bytes();
    [&len[..], &code.to_be_bytes(), payload].concat()
}

const VERSION: u32 = 3 << 16;

fn startup() -> Vec<u8> {
    packet(VERSION, b"user\0joe\0database\0shop\0\0")
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0"))
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0"))
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{name}\0\0\0\0\x01\0\0\0\x06secret\0\0"))
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0"))
}

fn sync() -> Vec<u8> {
    message(b'S', "")
}

/// Everything of a statement in one cycle.
fn extended(text: &str) -> Vec<u8> {
    [parse("", text), bind("", ""), execute(""), sync()].concat()
}

fn ready(state: &str) -> Vec<u8> {
    message(b'Z', state)
}

fn complete(tag: &str) -> Vec<u8> {
    [message(b'C', format!("{tag}\0")), ready("I")].concat()
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    message(b'E', format!("SFEHLER\0V{severity}\0C{code}\0Msecret\0\0"))
}

fn data(text: &str) -> Vec<u8> {
    message(b'd', text)
}

/// What is told of what follows a startup, in any pieces.
#[track_caller]
fn check(parts: &[Part], told: &[&str]) {
    let begin = [ask(startup()), say([message(b'R', [0; 4]), ready("I")].concat())];
    let parts = [&begin[..], parts].concat();
    for pieces in [Pieces::Whole, Pieces::Of(1), Pieces::Of(3), Pieces::Of(7), Pieces::Passing] {
        let all = tell(Protocol::Postgresql, &parts, pieces);
        assert_eq!(all[0], "open 0 handshake STARTUP database=shop");
        assert_eq!(all[1], "done 0 handshake STARTUP ok 32/15");
        assert_eq!(all[2..], *told, "{pieces:?}");
    }
}

/// The same from the first byte on.
#[track_caller]
fn check_all(parts: &[Part], told: &[&str]) {
    for pieces in [Pieces::Whole, Pieces::Of(1), Pieces::Of(3), Pieces::Of(7), Pieces::Passing] {
        assert_eq!(tell(Protocol::Postgresql, parts, pieces), told, "{pieces:?}");
    }
}

/// All statements of one query are one exchange.
#[test]
fn simple_queries() {
    check(
        &[
            ask(query("SELECT * FROM orders WHERE name = 'secret'")),
            say([message(b'T', "x"), message(b'D', "secret"), complete("SELECT 1")].concat()),
            ask(query("BEGIN; DELETE FROM a; COMMIT")),
            say([message(b'C', "BEGIN\0"), message(b'C', "DELETE\0"), complete("C")].concat()),
            ask(query("")),
            say([message(b'I', ""), ready("I")].concat()),
        ],
        &[
            "open 1 request SELECT orders database=shop",
            "done 1 request SELECT ok 48/37",
            "open 2 request BEGIN DELETE a COMMIT database=shop",
            "done 2 request DELETE ok 34/36",
            "open 3 request  database=shop",
            "done 3 request other ok 6/11",
        ],
    );
}

/// The first error of an answer counts, by its class.
#[test]
fn errors() {
    for (code, outcome) in [
        ("42P01", "app_error"),
        ("23505", "app_error"),
        ("57014", "app_error"),
        ("57P01", "protocol_error"),
        ("53300", "protocol_error"),
        ("08P01", "protocol_error"),
        ("XX000", "protocol_error"),
    ] {
        let done = format!("done 1 request SELECT {outcome} {code} 19/42");
        check(
            &[ask(query("SELECT secret")), say([error("ERROR", code), ready("E")].concat())],
            &["open 1 request SELECT database=shop", &done],
        );
    }
    // What is no code is not told.
    check(
        &[ask(query("SELECT 1")), say([error("ERROR", "a b\x01c"), ready("I")].concat())],
        &[
            "open 1 request SELECT database=shop",
            "done 1 request SELECT protocol_error XX000 14/42",
        ],
    );
}

/// No `ReadyForQuery` follows an error that ends the connection.
#[test]
fn a_fatal_error_ends_the_answer() {
    check(
        &[ask(query("SELECT 1")), say([message(b'T', "x"), error("FATAL", "57P01")].concat())],
        &[
            "open 1 request SELECT database=shop",
            "done 1 request SELECT protocol_error 57P01 14/42",
        ],
    );
    // Nobody had asked anything.
    check(&[say(error("FATAL", "57P01"))], &["aside push"]);
}

/// A cycle is told at its end, with what was bound in it.
#[test]
fn extended_cycles() {
    check(
        &[
            ask(extended("UPDATE a SET b = $1")),
            say([message(b'1', ""), message(b'2', ""), complete("UPDATE 1")].concat()),
        ],
        &["open 1 request UPDATE a database=shop", "done 1 request UPDATE ok 66/30"],
    );
    // As PgJDBC begins a transaction.
    check(
        &[
            ask([
                [parse("", "BEGIN"), bind("", ""), execute("")].concat(),
                extended("SELECT b FROM a"),
            ]
            .concat()),
            say(complete("x")),
        ],
        &["open 1 request BEGIN SELECT a database=shop", "done 1 request SELECT ok 109/13"],
    );
    // Parts of it that are answered before its end, as asyncpg asks for.
    check(
        &[
            ask([parse("s", "SELECT b FROM a"), message(b'D', "Ss\0"), message(b'H', "")].concat()),
            say([message(b'1', ""), message(b't', "x"), message(b'T', "x")].concat()),
            ask([bind("", "s"), execute(""), sync()].concat()),
            say([message(b'2', ""), complete("SELECT 1")].concat()),
        ],
        &["open 1 request SELECT a database=shop", "done 1 request SELECT ok 77/42"],
    );
    // A flush between two cycles belongs to none.
    check(
        &[
            ask([extended("SELECT 1"), message(b'H', "")].concat()),
            say(complete("x")),
            ask(query("SELECT 2")),
            say(complete("x")),
        ],
        &[
            "open 1 request SELECT database=shop",
            "done 1 request SELECT ok 55/13",
            "open 2 request SELECT database=shop",
            "done 2 request SELECT ok 14/13",
        ],
    );
}

/// A pipeline with one `Sync` is one exchange, with several it is as many, answered in order.
#[test]
fn pipelines() {
    let one = |text: &str| [parse("", text), bind("", ""), execute("")].concat();
    let many = [one("INSERT INTO a VALUES ($1)").repeat(50), sync()].concat();
    let len = many.len();
    check(
        &[ask(many), say([message(b'C', "x").repeat(50), ready("I")].concat())],
        &["open 1 request INSERT a database=shop", &format!("done 1 request INSERT ok {len}/306")],
    );
    check(
        &[
            ask([extended("SELECT 1"), extended("DELETE FROM a"), extended("COMMIT")].concat()),
            say([error("ERROR", "22012"), ready("E"), error("ERROR", "25P02"), ready("E")].concat()),
            say(complete("x")),
        ],
        &[
            "open 1 request SELECT database=shop",
            "open 2 request DELETE a database=shop",
            "open 3 request COMMIT database=shop",
            "done 1 request SELECT app_error 22012 55/42",
            "done 2 request DELETE app_error 25P02 60/42",
            "done 3 request COMMIT ok 53/13",
        ],
    );
}

#[test]
fn prepared_statements_are_known_by_their_name() {
    check(
        &[
            ask([parse("a", "SELECT x FROM t WHERE y = $1"), sync()].concat()),
            say([message(b'1', ""), ready("I")].concat()),
            ask([bind("", "a"), execute(""), sync()].concat()),
            say(complete("x")),
            // Of this one nobody knows.
            ask([bind("", "b"), execute(""), sync()].concat()),
            say(complete("x")),
            ask([message(b'D', "Sa\0"), sync()].concat()),
            say([message(b'T', ""), ready("I")].concat()),
            ask([message(b'C', "Sa\0"), sync()].concat()),
            say([message(b'3', ""), ready("I")].concat()),
            ask([bind("", "a"), execute(""), sync()].concat()),
            say(complete("x")),
            ask(sync()),
            say(ready("I")),
        ],
        &[
            "open 1 request PREPARE SELECT t database=shop",
            "done 1 request PREPARE ok 43/11",
            "open 2 request SELECT t database=shop",
            "done 2 request SELECT ok 39/13",
            "open 3 request  database=shop",
            "done 3 request other ok 39/13",
            "open 4 request DESCRIBE SELECT t database=shop",
            "done 4 request DESCRIBE ok 13/11",
            "open 5 request DEALLOCATE database=shop",
            "done 5 request DEALLOCATE ok 13/11",
            "open 6 request  database=shop",
            "done 6 request other ok 39/13",
            "open 7 request SYNC database=shop",
            "done 7 request SYNC ok 5/6",
        ],
    );
}

/// What a portal does is known while it is fetched in parts.
#[test]
fn portals() {
    check(
        &[
            ask([parse("", "SELECT x FROM t"), bind("c", ""), execute("c"), sync()].concat()),
            say([message(b's', ""), ready("T")].concat()),
            ask([execute("c"), sync()].concat()),
            say(complete("x")),
        ],
        &[
            "open 1 request SELECT t database=shop",
            "done 1 request SELECT ok 64/11",
            "open 2 request SELECT t database=shop",
            "done 2 request SELECT ok 16/13",
        ],
    );
}

/// As many as are remembered, whatever a client prepares.
#[test]
fn statements_take_bounded_memory() {
    let mut taster = Taster::new(Protocol::Postgresql, LIMITS);
    taster.show(&ask(startup()));
    taster.show(&say([message(b'R', [0; 4]), ready("I")].concat()));
    for number in 0..2000 {
        let text = format!("SELECT {number} FROM {}", "t".repeat(number % 200));
        taster.show(&ask([parse(&format!("s{number}"), &text), sync()].concat()));
        taster.show(&say([message(b'1', ""), ready("I")].concat()));
    }
    assert!(taster.held_most <= 256 * 96 + 64, "{}", taster.held_most);
    taster.show(&ask([bind("", "s1850"), execute(""), sync()].concat()));
    assert!(
        taster.told.last().unwrap().contains(&format!("SELECT {} ", "t".repeat(50))),
        "{:?}",
        taster.told.last()
    );
    // The end of the connection is the end of them.
    taster.show(&ask(message(b'X', "")));
    assert!(taster.tap.held() < 256);
}

/// Data belongs to the query that it was asked for by.
#[test]
fn copies_in() {
    let wants = message(b'G', [0; 3]);
    let rows = [data("1\tsecret\n"), data("2\tsecret\n")].concat();
    for (end, done) in [
        (message(b'c', ""), "done 1 request COPY ok 55/21"),
        (message(b'f', "no\0"), "done 1 request COPY ok 58/21"),
    ] {
        check(
            &[
                ask(query("COPY t FROM STDIN")),
                say(&wants),
                ask([&rows[..], &end].concat()),
                say(complete("C")),
                ask(query("SELECT 1")),
                say(complete("x")),
            ],
            &[
                "open 1 request COPY t database=shop",
                &done.replace("55", "56").replace("58", "59"),
                "open 2 request SELECT database=shop",
                "done 2 request SELECT ok 14/13",
            ],
        );
    }
    // The server gives up in the midst of it; what was under way is dropped.
    check(
        &[
            ask(query("COPY t FROM STDIN")),
            say(&wants),
            ask(&rows),
            say([error("ERROR", "22P02"), ready("I")].concat()),
            ask([&rows[..], &message(b'c', "")].concat()),
            ask(query("SELECT 1")),
            say(complete("x")),
        ],
        &[
            "open 1 request COPY t database=shop",
            "done 1 request COPY app_error 22P02 51/50",
            "open 2 request SELECT database=shop",
            "done 2 request SELECT ok 14/13",
        ],
    );
}

/// The server takes no notice of a `Sync` while it waits for data.
#[test]
fn an_extended_copy_has_two_syncs() {
    let rows = [data("1\tsecret\n"), message(b'c', ""), sync()].concat();
    let after = [ask(query("SELECT 1")), say(complete("x"))];
    let told = [
        "open 1 request COPY t database=shop",
        "done 1 request COPY ok 88/21",
        "open 2 request SELECT database=shop",
        "done 2 request SELECT ok 14/13",
    ];
    let copy = [
        ask(extended("COPY t FROM STDIN")),
        say(message(b'G', [0; 3])),
        ask(&rows),
        say(complete("C")),
    ];
    check(&[&copy[..], &after].concat(), &told);
    // Where the client waits for the server's word first, there is one.
    let text = "COPY t FROM STDIN";
    let asks = [parse("", text), bind("", ""), execute(""), message(b'H', "")].concat();
    let copy = [ask(asks), say(message(b'G', [0; 3])), ask(&rows), say(complete("C"))];
    check(&[&copy[..], &after].concat(), &told);
}

#[test]
fn copies_out() {
    let rows = [message(b'H', [0; 3]), data("secret\n").repeat(9), message(b'c', "")].concat();
    check(
        &[ask(query("COPY t TO STDOUT")), say([rows, complete("C")].concat())],
        &["open 1 request COPY t database=shop", "done 1 request COPY ok 22/134"],
    );
}

/// What comes without having been asked for answers nothing.
#[test]
fn notices_and_notifications() {
    let notice = message(b'N', "SNOTICE\0C00000\0Msecret\0\0");
    let notification = message(b'A', "\0\0\0\x01events\0secret\0");
    let parameter = message(b'S', "TimeZone\0UTC\0");
    check(
        &[
            say([notice.clone(), notification.clone(), parameter.clone()].concat()),
            ask(query("DROP TABLE a")),
            say([&notice[..], &complete("DROP TABLE")].concat()),
            // Within an answer they are a part of it.
            ask(query("NOTIFY events, 'secret'")),
            say([message(b'C', "x"), notification, parameter, notice, ready("I")].concat()),
            say(message(b'A', [b'x'; 3000])),
        ],
        &[
            "aside push",
            "aside push",
            "aside push",
            "open 1 request DROP TABLE a database=shop",
            "aside push",
            "done 1 request DROP ok 18/22",
            "open 2 request NOTIFY events database=shop",
            "done 2 request NOTIFY ok 29/82",
            "aside push",
        ],
    );
}

#[test]
fn function_calls_are_one_exchange() {
    check(
        &[ask(message(b'F', [0; 30])), say([message(b'V', "secret"), ready("I")].concat())],
        &["open 1 request CALL database=shop", "done 1 request CALL ok 35/17"],
    );
}

/// Of a long text its beginning is read, and the rest passes.
#[test]
fn long_texts_pass() {
    let values = "(1, 'secret'), ".repeat(1000);
    let long = query(&format!("INSERT INTO t VALUES {values}"));
    let (len, again) = (long.len(), parse("s", &format!("INSERT INTO t VALUES {values}")));
    check(
        &[
            ask(&long),
            say(complete("x")),
            ask([again, bind("", "s"), execute(""), sync()].concat()),
            say(complete("x")),
        ],
        &[
            "open 1 request INSERT t database=shop",
            &format!("done 1 request INSERT ok {len}/13"),
            "open 2 request INSERT t database=shop",
            &format!("done 2 request INSERT ok {}/13", len + 43),
        ],
    );
    let mut tap = Tap::<u32>::new(Protocol::Postgresql);
    let mut show = |way, bytes: &[u8]| {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut head = Head::default();
            rest = match tap.step(way, rest, &LIMITS, 1, &mut head) {
                Step::Body(count) | Step::Late(count) => &rest[count..],
                Step::Opened { consumed, .. } | Step::Finished { consumed, .. } => {
                    &rest[consumed..]
                }
                Step::Need => &[],
                other => panic!("{other:?}"),
            };
        }
        tap.passable(way)
    };
    show(Way::Request, &startup());
    show(Way::Response, &[message(b'R', [0; 4]), ready("I")].concat());
    assert_eq!(show(Way::Request, &long[..5000]), len as u64 - 5000);
    show(Way::Request, &long[5000..]);
    let row = message(b'D', [b'x'; 70_000]);
    assert_eq!(show(Way::Response, &row[..100]), row.len() as u64 - 100);
}

/// The state that an answer leaves the transaction in.
#[test]
fn transactions() {
    let mut tap = Tap::<u32>::new(Protocol::Postgresql);
    let mut states = Vec::new();
    let mut show = |way, bytes: &[u8]| {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut head = Head::default();
            rest = match tap.step(way, rest, &LIMITS, 1, &mut head) {
                Step::Opened { consumed, .. } => &rest[consumed..],
                Step::Finished { consumed, message, .. } => {
                    let state = message.unwrap().value(Key::Transaction).unwrap_or(b"none");
                    states.push(String::from_utf8(state.to_vec()).unwrap());
                    &rest[consumed..]
                }
                Step::Body(count) | Step::Late(count) => &rest[count..],
                other => panic!("{other:?}"),
            };
        }
    };
    show(Way::Request, &startup());
    show(Way::Response, &[message(b'R', [0; 4]), ready("I")].concat());
    for state in ["T", "E", "I"] {
        show(Way::Request, &query("SELECT 1"));
        show(Way::Response, &ready(state));
    }
    show(Way::Request, &query("SELECT 1"));
    show(Way::Response, &error("FATAL", "57P01"));
    assert_eq!(states, ["idle", "open", "failed", "idle", "none"]);
}

/// A context in a comment of the text belongs to the request that has the text.
#[test]
fn comments_of_texts_carry_contexts() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let text = format!("SELECT a FROM t /*traceparent='{parent}'*/");
    let open = |line: &str| format!("open {line} database=shop");
    let carries = |line: &str| format!("open {line} database=shop traceparent:{parent}");
    let prepared = [parse("s", &text), sync()].concat();
    let executed = [bind("", "s"), execute(""), sync()].concat();
    let parts = [
        ask(query(&text)),
        say(complete("SELECT 1")),
        ask(query("SELECT a FROM t")),
        say(complete("SELECT 1")),
        ask(extended(&text)),
        say([message(b'1', ""), message(b'2', ""), complete("SELECT 1")].concat()),
        ask(prepared),
        say([message(b'1', ""), ready("I")].concat()),
        ask(executed),
        say([message(b'2', ""), complete("SELECT 1")].concat()),
    ];
    let begin = [ask(startup()), say([message(b'R', [0; 4]), ready("I")].concat())];
    let parts = [&begin[..], &parts].concat();
    for pieces in [Pieces::Whole, Pieces::Of(1), Pieces::Of(7), Pieces::Passing] {
        let told = tell(Protocol::Postgresql, &parts, pieces);
        let opened: Vec<_> = told.iter().filter(|line| line.starts_with("open")).skip(1).collect();
        assert_eq!(
            opened,
            [
                &carries("1 request SELECT t"),
                &open("2 request SELECT t"),
                &carries("3 request SELECT t"),
                &carries("4 request PREPARE SELECT t"),
                &open("5 request SELECT t"),
            ],
            "{pieces:?}"
        );
    }
}
