//! MongoDB: which answer is whose, what is never answered or again and again, and what of documents
//! is read.

mod kit;

use kit::{LIMITS, Part, Pieces, Taster, ask, say, tell};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

const MORE: u32 = 2;
const EXHAUST: u32 = 1 << 16;

/// What is said, whole, byte by byte, and while bodies pass unseen.
fn told(parts: &[Part]) -> Vec<String> {
    let whole = tell(Protocol::Mongodb, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(3), Pieces::Passing] {
        assert_eq!(tell(Protocol::Mongodb, parts, pieces), whole, "{pieces:?}: {parts:?}");
    }
    whole
}

fn done(told: &[String]) -> Vec<&str> {
    told.iter().filter(|line| line.starts_with("done")).map(|line| &line[5..]).collect()
}

/// The same, without bytes.
fn came_to(told: &[String]) -> Vec<&str> {
    done(told).iter().map(|line| line.rsplit_once(' ').unwrap().0).collect()
}

fn opened(told: &[String]) -> Vec<&str> {
    told.iter().filter(|line| line.starts_with("open")).map(|line| &line[5..]).collect()
}

fn tunnel(told: &[String]) -> Option<&str> {
    told.iter().find_map(|line| line.strip_prefix("tunnel "))
}

fn message((id, answers): (u32, u32), opcode: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).unwrap();
    let numbers = [len, id, answers, opcode].map(u32::to_le_bytes).concat();
    [&numbers, body].concat()
}

fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let elements = elements.concat();
    let len = u32::try_from(elements.len() + 5).unwrap();
    [&len.to_le_bytes()[..], &elements, &[0]].concat()
}

fn element(kind: u8, name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value.as_ref()].concat()
}

fn text(name: &str, value: &str) -> Vec<u8> {
    let len = u32::try_from(value.len() + 1).unwrap();
    element(2, name, [&len.to_le_bytes()[..], value.as_bytes(), &[0]].concat())
}

fn int(name: &str, value: i32) -> Vec<u8> {
    element(0x10, name, value.to_le_bytes())
}

fn double(name: &str, value: f64) -> Vec<u8> {
    element(1, name, value.to_le_bytes())
}

fn msg(ids: (u32, u32), flags: u32, elements: &[Vec<u8>]) -> Vec<u8> {
    message(ids, 2013, &[&flags.to_le_bytes()[..], &[0], &document(elements)].concat())
}

/// A command of a collection.
fn command(id: u32, name: &str, collection: &str) -> Part {
    ask(msg((id, 0), 0, &[text(name, collection), text("$db", "shop")]))
}

fn ok(answers: u32) -> Part {
    say(msg((900 + answers, answers), 0, &[double("ok", 1.0)]))
}

#[test]
fn commands_are_known_by_their_first_key() {
    let parts = [
        command(1, "find", "users"),
        ok(1),
        ask(msg((2, 0), 0, &[int("ping", 1), text("$db", "admin")])),
        ok(2),
        ask(msg((3, 0), 0, &[int("aggregate", 1), text("$db", "admin")])),
        ok(3),
        ask(msg(
            (4, 0),
            0,
            &[element(0x12, "getMore", [9; 8]), text("collection", "users"), text("$db", "shop")],
        )),
        ok(4),
        ask(msg((5, 0), 0, &[text("findandmodify", "users"), text("$db", "shop")])),
        ok(5),
        ask(msg((6, 0), 0, &[text("createUser", "bob"), text("pwd", "s3cret")])),
        ok(6),
        ask(msg((7, 0), 0, &[text("noSuchCommand", "s3cret"), text("find", "users")])),
        ok(7),
        ask(msg((8, 0), 0, &[int("saslStart", 1), text("payload", "s3cret")])),
        ok(8),
        ask(msg((9, 0), 0, &[])),
        ok(9),
    ];
    let told = told(&parts);
    assert_eq!(
        opened(&told),
        [
            "0 request find users database=shop",
            "1 request ping database=admin",
            "2 request aggregate database=admin",
            "3 request getMore users database=shop",
            "4 request findAndModify users database=shop",
            "5 request createUser",
            "6 request other",
            "7 handshake saslStart",
            "8 request other",
        ]
    );
    assert_eq!(done(&told).len(), 9);
    assert!(!told.join("\n").contains("s3cret"));
}

#[test]
fn answers_are_found_by_id_in_any_order() {
    let told = told(&[
        command(10, "find", "a"),
        command(11, "count", "b"),
        ok(11),
        // Nobody waits for it, and it harms no other.
        ok(77),
        ok(10),
    ]);
    assert_eq!(came_to(&told), ["1 request count ok", "0 request find ok"]);
    assert!(told.contains(&"aside stray".to_owned()));
    let mut taster = Taster::new(Protocol::Mongodb, LIMITS);
    taster.show(&command(1, "find", "a"));
    (0..20).for_each(|number| taster.show(&ok(500 + number)));
    assert_eq!(taster.told.last().unwrap(), "tunnel answer_without_request");
}

#[test]
fn errors_have_codes_and_names() {
    let failed = [
        double("ok", 0.0),
        text("errmsg", "s3cret is wrong"),
        int("code", 18),
        text("codeName", "AuthenticationFailed"),
    ];
    let last = [text("errmsg", "no"), int("code", 5_107_200), int("ok", 0)];
    let odd = [text("codeName", "it is s3cret"), int("code", 1), element(8, "ok", [0])];
    let bad = document(&[int("index", 0), int("code", 121), text("errmsg", "s3cret")]);
    let list = document(&[element(3, "0", &bad)]);
    let written = [int("n", 1), element(4, "writeErrors", list), double("ok", 1.0)];
    let concern = document(&[int("code", 64), text("codeName", "WriteConcernTimeout")]);
    let slow = [int("n", 1), double("ok", 1.0), element(3, "writeConcernError", concern)];
    let none = [element(4, "writeErrors", document(&[])), element(0x12, "ok", 1_i64.to_le_bytes())];
    let unsaid = [text("value", "s3cret")];
    for (answer, expected) in [
        (&failed[..], "app_error 18 AuthenticationFailed"),
        (&last, "app_error 5107200 error"),
        (&odd, "app_error 1 error"),
        (&written, "app_error 121 DocumentValidationFailure"),
        (&slow, "app_error 64 WriteConcernTimeout"),
        (&none, "ok"),
        (&unsaid, "ok"),
    ] {
        let told = told(&[command(1, "insert", "a"), say(msg((2, 1), 0, answer))]);
        assert_eq!(came_to(&told), [format!("0 request insert {expected}")]);
        assert!(!told.join("\n").contains("s3cret"));
    }
    // What a document of a user says is no outcome.
    let user = document(&[double("ok", 0.0), int("code", 5)]);
    let found = [element(3, "cursor", document(&[element(3, "x", user)])), double("ok", 1.0)];
    let told = told(&[command(1, "find", "a"), say(msg((2, 1), 0, &found))]);
    assert_eq!(came_to(&told), ["0 request find ok"]);
}

#[test]
fn a_command_that_is_told_not_to_be_answered() {
    let told = told(&[
        ask(msg((1, 0), MORE, &[text("insert", "a"), text("$db", "shop")])),
        command(2, "find", "a"),
        ok(2),
    ]);
    assert_eq!(came_to(&told), ["0 oneway insert sent", "1 request find ok"]);
}

/// Each further answer is to the one before.
#[test]
fn an_answer_in_many_messages() {
    let more = [element(0x12, "getMore", [9; 8]), text("collection", "a")];
    let batch = [element(3, "cursor", document(&[])), double("ok", 1.0)];
    let told = told(&[
        ask(msg((1, 0), EXHAUST, &more)),
        say(msg((100, 1), MORE, &batch)),
        say(msg((101, 100), MORE, &batch)),
        say(msg((102, 101), MORE, &batch)),
        say(msg((103, 102), 0, &[double("ok", 0.0), int("code", 43)])),
        command(2, "find", "a"),
        ok(2),
    ]);
    assert_eq!(came_to(&told), ["0 blocking getMore app_error 43 error", "1 request find ok"]);
    assert!(!told.iter().any(|line| line.starts_with("aside")), "{told:?}");
}

/// A cursor that waits for more says nothing about the server by how long it waits.
#[test]
fn a_cursor_that_waits() {
    let more = [element(0x12, "getMore", [9; 8]), text("collection", "a"), int("maxTimeMS", 1000)];
    let told = told(&[ask(msg((1, 0), 0, &more)), ok(1)]);
    assert_eq!(came_to(&told), ["0 blocking getMore ok"]);
}

/// What drivers ask every connection and again and again is no exchange of the application.
#[test]
fn a_hello_that_waits_for_news_is_a_heartbeat() {
    let hello = [int("hello", 1), element(3, "topologyVersion", document(&[]))];
    let told = told(&[
        ask(msg((1, 0), 0, &[int("isMaster", 1)])),
        ok(1),
        ask(msg((2, 0), EXHAUST, &hello)),
        say(msg((100, 2), MORE, &[double("ok", 1.0)])),
        say(msg((101, 100), MORE, &[double("ok", 1.0)])),
        say(msg((102, 101), 0, &[double("ok", 0.0)])),
        ask(msg((3, 0), 0, &hello)),
        ok(3),
        command(4, "find", "a"),
        ok(4),
    ]);
    assert_eq!(came_to(&told), ["0 handshake isMaster ok", "1 request find ok"]);
    let heartbeats = told.iter().filter(|line| line.starts_with("aside heartbeat"));
    assert_eq!(heartbeats.count(), 6);
}

#[test]
fn sections_and_checksums() {
    let body = document(&[text("insert", "a"), text("$db", "shop")]);
    let rows = document(&[int("_id", 1)]);
    let list = [b"documents\0", &rows[..], &rows].concat();
    let size = u32::try_from(list.len() + 4).unwrap().to_le_bytes();
    let first = [&[0], &body[..]].concat();
    let second = [&[1], &size[..], &list].concat();
    let flags = 1_u32.to_le_bytes();
    for sections in [[&first[..], &second], [&second, &first]] {
        let message = message((1, 0), 2013, &[&flags[..], &sections.concat(), b"crc!"].concat());
        let told = told(&[ask(message), ok(1)]);
        assert_eq!(opened(&told), ["0 request insert a database=shop"]);
        assert_eq!(done(&told).len(), 1);
    }
    // The body is further behind than is read: nobody knows what it asks for.
    let long = [b"documents\0", &rows.repeat(1000)[..]].concat();
    let size = u32::try_from(long.len() + 4).unwrap().to_le_bytes();
    let sections = [&0_u32.to_le_bytes()[..], &[1], &size, &long, &first].concat();
    let told = told(&[ask(message((1, 0), 2013, &sections)), ok(1)]);
    assert_eq!(opened(&told), ["0 request other"]);
    assert_eq!(came_to(&told), ["0 request other ok"]);
}

#[test]
fn compressed_messages_are_counted_and_not_read() {
    let inner = [2013_u32.to_le_bytes(), 100_u32.to_le_bytes()].concat();
    let body = [&inner[..], &[2], b"whatever it is"].concat();
    let told = told(&[
        command(1, "find", "a"),
        ask(message((2, 0), 2012, &body)),
        say(message((9, 2), 2012, &body)),
        ok(1),
    ]);
    assert_eq!(opened(&told)[1], "1 request compressed");
    assert_eq!(came_to(&told), ["1 request compressed ok", "0 request find ok"]);
}

/// The flags are the first bytes of a message: snappy leaves them as they are.
#[test]
fn compressed_messages_that_are_never_answered() {
    let plain =
        |flags: u32| [&flags.to_le_bytes()[..], &[0], &document(&[int("ping", 1)])].concat();
    let packed = |compressor: u8, opcode: i32, packed: &[u8]| {
        [&opcode.to_le_bytes()[..], &99_i32.to_le_bytes(), &[compressor], packed].concat()
    };
    let snappy = |flags: u32, tag: &[u8]| {
        packed(1, 2013, &[&[0x99, 0x01], tag, &plain(flags)[..], b"\x05\x04"].concat())
    };
    let len = u8::try_from(plain(0).len() - 1).unwrap();
    for (body, kind) in [
        (packed(0, 2013, &plain(MORE)), "oneway"),
        (packed(0, 2013, &plain(0)), "request"),
        (snappy(MORE, &[len << 2]), "oneway"),
        (snappy(0, &[len << 2]), "request"),
        (snappy(MORE, &[60 << 2, len]), "oneway"),
        (snappy(MORE, &[61 << 2, len, 0]), "oneway"),
        (packed(0, 2002, b"anything"), "oneway"),
        // What snappy cannot say, zlib and zstd.
        (snappy(MORE, &[0]), "request"),
        (packed(1, 2013, &[0x85]), "request"),
        (packed(1, 2013, &[0xff; 9]), "request"),
        (packed(2, 2013, &plain(MORE)), "request"),
        (packed(3, 2013, &plain(MORE)), "request"),
        (packed(0, 2013, b""), "request"),
    ] {
        let told = told(&[ask(message((1, 0), 2012, &body)), command(2, "find", "a"), ok(2)]);
        assert_eq!(opened(&told)[0], format!("0 {kind} compressed"), "{body:?}");
        let is_over =
            done(&told).contains(&&*format!("0 oneway compressed sent {}/0", body.len() + 16));
        assert_eq!(is_over, kind == "oneway", "{told:?}");
    }
}

fn query(id: u32, flags: u32, space: &str, elements: &[Vec<u8>]) -> Part {
    let flags = flags.to_le_bytes();
    let body = [&flags[..], space.as_bytes(), &[0; 9], &document(elements)].concat();
    ask(message((id, 0), 2004, &body))
}

fn old_reply(answers: u32, flags: u32, elements: &[Vec<u8>]) -> Part {
    let body = [&flags.to_le_bytes()[..], &[0; 12], &[1, 0, 0, 0], &document(elements)].concat();
    say(message((9, answers), 1, &body))
}

#[test]
fn the_old_opcodes() {
    let space = [&[0; 4], &b"shop.users\0"[..], &[0; 12]].concat();
    let told = told(&[
        query(1, 4, "admin.$cmd", &[int("isMaster", 1), text("$db", "x")]),
        old_reply(1, 8, &[element(8, "ismaster", [1]), double("ok", 1.0)]),
        query(2, 4, "shop.$cmd", &[element(3, "$query", document(&[text("count", "users")]))]),
        old_reply(2, 8, &[double("ok", 0.0), int("code", 13), text("codeName", "Unauthorized")]),
        query(3, 0, "shop.users", &[int("ok", 0)]),
        old_reply(3, 8, &[double("ok", 0.0), int("code", 1)]),
        query(4, 0, "shop.users", &[]),
        old_reply(4, 2, &[text("$err", "s3cret")]),
        ask(message((5, 0), 2005, &space)),
        old_reply(5, 1, &[]),
        ask(message((6, 0), 2002, &space)),
        ask(message((7, 0), 2001, &space)),
        ask(message((8, 0), 2006, &space)),
        ask(message((9, 0), 2007, &[0; 16])),
    ]);
    assert_eq!(
        opened(&told)[..5],
        [
            "0 handshake isMaster database=admin",
            "1 request count users database=shop",
            "2 request find users database=shop",
            "3 request find users database=shop",
            "4 request getMore users database=shop",
        ]
    );
    assert_eq!(
        came_to(&told),
        [
            "0 handshake isMaster ok",
            "1 request count app_error 13 Unauthorized",
            "2 request find ok",
            "3 request find app_error query_failure",
            "4 request getMore app_error cursor_not_found",
            "5 oneway insert sent",
            "6 oneway update sent",
            "7 oneway delete sent",
            "8 oneway killCursors sent",
        ]
    );
    assert!(!told.join("\n").contains("s3cret"));
}

#[test]
fn what_is_no_mongodb() {
    let find = command(1, "find", "a").bytes;
    let with = |at: usize, byte: u8| {
        let mut bytes = find.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, reason) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), "not_this_protocol"),
        (b"*1\r\n$4\r\nPING\r\n".to_vec(), "not_this_protocol"),
        (b"\x16\x03\x01\x02".to_vec(), "tls"),
        (with(0, 15), "not_this_protocol"),
        (with(3, 3), "not_this_protocol"),
        (with(12, 0xdb), "not_this_protocol"),
        (with(12, 0x01), "not_this_protocol"),
        (with(16, 4), "malformed"),
        (with(20, 2), "malformed"),
        (with(21, 4), "malformed"),
        (with(21, 0x7f), "malformed"),
        (message((1, 0), 2013, b""), "malformed"),
        (message((1, 0), 2013, &[0; 4]), "malformed"),
        (message((1, 0), 2013, &[0, 0, 0, 0, 1, 3, 0, 0, 0]), "malformed"),
        (message((1, 0), 2004, b"\0\0\0\0shop"), "malformed"),
        (query(1, 64, "shop.users", &[]).bytes, "unsupported"),
    ] {
        let told = told(&[ask(&bytes)]);
        assert_eq!(tunnel(&told), Some(reason), "{}: {told:?}", bytes.escape_ascii());
        assert!(done(&told).is_empty());
    }
    for (bytes, reason) in [
        (b"HTTP/1.1 400 Bad\r\n".to_vec(), "not_this_protocol"),
        (message((2, 1), 2004, &[0; 40]), "not_this_protocol"),
        (message((2, 1), 2013, &[8, 0, 0, 0, 0]), "malformed"),
    ] {
        let told = told(&[command(1, "find", "a"), say(&bytes)]);
        assert_eq!(tunnel(&told), Some(reason), "{}: {told:?}", bytes.escape_ascii());
    }
    assert_eq!(told(&[ok(1)]), ["tunnel server_first"]);
}

/// Documents that are not what they say: what they ask for is not known, and nothing else changes.
#[test]
fn documents_that_lie() {
    for elements in [
        vec![element(0x55, "find", [])],
        vec![element(2, "find", [0xff; 4])],
        vec![element(2, "find", [0; 4])],
        vec![element(5, "x", [0xff, 0xff, 0xff, 0x3f, 0]), text("find", "a")],
        vec![b"\x02find".to_vec()],
    ] {
        let told = told(&[ask(msg((1, 0), 0, &elements)), ok(1)]);
        assert!(opened(&told)[0].starts_with("0 request"), "{told:?}");
        assert_eq!(done(&told).len(), 1, "{elements:?}");
    }
}

/// Of a message of any length only the beginning is read.
#[test]
fn long_messages_pass() {
    let len: u32 = 40 << 20;
    let mut taster = Taster::new(Protocol::Mongodb, Limits::DEFAULT);
    let mut insert = msg((1, 0), 0, &[text("insert", "a"), element(5, "x", len.to_le_bytes())]);
    let shown = u32::try_from(insert.len()).unwrap();
    insert[..4].copy_from_slice(&len.to_le_bytes());
    let document = len - 21;
    insert[21..25].copy_from_slice(&document.to_le_bytes());
    insert.resize(2048, b'x');
    taster.show(&ask(&insert));
    let left = u64::from(len) - insert.len() as u64;
    assert!(u64::from(shown) < insert.len() as u64);
    assert_eq!(taster.tap.passable(Way::Request), left);
    taster.tap.passed(Way::Request, left);
    taster.show(&ask(""));
    taster.show(&ok(1));
    taster.end();
    assert_eq!(opened(&taster.told), ["0 request insert a"]);
    assert_eq!(done(&taster.told), [format!("0 request insert ok {len}/38")]);
    assert!(taster.held_most < 200, "{}", taster.held_most);
}

/// Requests that are never answered, as compressed ones that ask for no answer, make room.
#[test]
fn what_is_never_answered_does_not_fill_the_books() {
    let mut taster = Taster::new(Protocol::Mongodb, LIMITS);
    let count = LIMITS.open_max;
    for id in 1..=count + 10 {
        taster.show(&ask(message((id, 0), 2012, &[0; 9])));
    }
    taster.show(&say(message((1, count + 10), 2012, &[0; 9])));
    assert_eq!(tunnel(&taster.told), None);
    assert_eq!(taster.tap.open_count(), count as usize - 1);
    taster.end();
}

#[test]
fn a_connection_that_ends_early() {
    let mut cut = ok(1).bytes;
    cut.truncate(30);
    let told = told(&[command(1, "find", "a"), command(2, "find", "b"), say(&cut)]);
    assert_eq!(
        told[2..],
        [
            "cut Response",
            "left 0 request find unanswered 52/0",
            "left 1 request find unanswered 52/0",
        ]
    );
}

/// A context in the comment of a command, in each form that clients give it.
#[test]
fn comments_carry_contexts() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let pairs = format!("dddb='shop',traceparent='{parent}'");
    let comment = |name: &str, value: &str| text(name, value);
    let within = document(&[text("secret", "s3cret"), text("traceparent", parent)]);
    let filter = document(&[text("name", "s3cret"), text("$comment", &pairs)]);
    let carrying = [
        (comment("comment", parent), true),
        (comment("comment", &pairs), true),
        (comment("$comment", &pairs), true),
        (element(3, "comment", within), true),
        (element(3, "filter", filter), true),
        (comment("comment", "s3cret traceparent"), false),
        (int("comment", 7), false),
        (comment("commented", &pairs), false),
    ];
    for (carrier, carries) in carrying {
        let parts =
            [ask(msg((1, 0), 0, &[text("find", "users"), carrier, text("$db", "shop")])), ok(1)];
        let told = told(&parts);
        let tail = if carries { format!(" traceparent:{parent}") } else { String::new() };
        assert_eq!(told[0], format!("open 0 request find users database=shop{tail}"));
    }
}
