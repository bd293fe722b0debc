//! What clients of databases are told whose requests are refused: in their protocol's words, and read
//! as what it is; or that nothing can be said.

mod kit;
#[allow(dead_code, reason = "each test has use for some of it")]
#[path = "mysql/wire.rs"]
mod wire;

use kit::{LIMITS, Part, Pieces, ask, say, tell};
use netra_codecs::codec::{Head, Leaves, Refusal, Replied, Way, Why};
use netra_codecs::tap::{Protocol, Step, Tap};

/// What a conversation comes to whose last part is a request that is refused: the answer, if there
/// is one; and what its requests leave behind.
fn refused(protocol: Protocol, parts: &[Part], why: Why, is_alone: bool) -> Option<Vec<u8>> {
    let (last, before) = parts.split_last().unwrap();
    let (mut tap, mut said) = (Tap::<()>::new(protocol), None);
    for part in before.iter().chain([last]) {
        let (mut rest, mut head) = (&part.bytes[..], Head::default());
        while !rest.is_empty() || tap.has_ended(part.way) {
            let consumed = match tap.step(part.way, rest, &LIMITS, 1, &mut head) {
                Step::Need => rest.len(),
                Step::Tunnel(reason) => panic!("{reason}"),
                Step::Body(consumed)
                | Step::Late(consumed)
                | Step::Answered { consumed, .. }
                | Step::Aside { consumed, .. }
                | Step::Finished { consumed, .. } => consumed,
                Step::Opened { consumed, message, .. } => {
                    let refusal = Refusal { why, text: "netra: rule \"no\" of shop", is_alone };
                    let mut out = b"before".to_vec();
                    said = (message.reply(&refusal, &mut out) == Replied::Sent).then(|| {
                        assert!(out.starts_with(b"before"));
                        out.split_off(6)
                    });
                    consumed
                }
            };
            rest = &rest[consumed..];
        }
    }
    said
}

/// The last two lines of what is told of a conversation, in any pieces, with this answer.
fn done(protocol: Protocol, parts: &[Part], answer: Vec<u8>) -> String {
    let all = [parts, &[say(answer)]].concat();
    let whole = tell(protocol, &all, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(3), Pieces::Of(7)] {
        assert_eq!(tell(protocol, &all, pieces), whole, "{pieces:?}");
    }
    whole.last().unwrap().rsplit_once(' ').unwrap().0.to_owned()
}

fn leaves(protocol: Protocol, parts: &[Part]) -> Leaves {
    let (mut tap, mut last) = (Tap::<()>::new(protocol), Leaves::Nothing);
    for part in parts {
        let mut head = Head::default();
        match tap.step(part.way, &part.bytes, &LIMITS, 1, &mut head) {
            Step::Opened { message, .. } => last = message.leaves(),
            _ => assert_eq!(part.way, Way::Response),
        }
    }
    last
}

#[test]
fn commands_of_mysql_are_answered_by_an_error() {
    let of = |command: &Part| wire::with(wire::USUAL, std::slice::from_ref(command));
    let query = wire::query("DELETE FROM orders");
    for (why, error) in [
        (Why::Denied, "1142 42000"),
        (Why::Limited, "1226 42000"),
        (Why::NoRoute, "1105 HY000"),
        (Why::Aborted, "1105 HY000"),
    ] {
        // A transaction goes on behind an error, and so it does behind one of netra's.
        let answer = refused(Protocol::Mysql, &of(&query), why, false).expect("an answer");
        let told = done(Protocol::Mysql, &of(&query), answer);
        assert_eq!(told, format!("done 1 request COM_QUERY app_error {error}"));
    }
    let answer = refused(Protocol::Mysql, &of(&query), Why::Denied, true).unwrap();
    let text = b"#42000netra: rule \"no\" of shop";
    assert_eq!(answer, wire::packet(1, [b"\xff\x76\x04", &text[..]].concat()));
    let id = 1_u32.to_le_bytes();
    for (number, rest, is_answered) in [
        (0x0e, &b""[..], true),
        (0x16, b"SELECT a", true),
        (0x17, &id, true),
        (0x02, b"shop", true),
        // What changes who the client is, what is not answered, and a text instead of packets.
        (0x11, b"joe\0\x01xshop\0", false),
        (0x18, &id, false),
        (0x01, b"", false),
        (0x09, b"", false),
    ] {
        let answer = refused(Protocol::Mysql, &of(&wire::command(number, rest)), Why::Denied, true);
        assert_eq!(answer.is_some(), is_answered, "{number:#x}");
    }
    assert_eq!(refused(Protocol::Mysql, &wire::session(wire::USUAL)[..2], Why::Denied, true), None);
    // Of a statement that is executed some data would be missing; one that is closed is closed.
    let data = of(&wire::command(0x18, id));
    assert_eq!(leaves(Protocol::Mysql, &data), Leaves::Session);
    assert_eq!(leaves(Protocol::Mysql, &of(&wire::command(0x19, id))), Leaves::Nothing);
}

fn mongodb(opcode: u32, flags: u32, name: &str) -> Part {
    let mut command = vec![2];
    command.extend(name.as_bytes());
    command.extend(b"\0\x02\0\0\0a\0");
    let len = u32::try_from(command.len() + 5).unwrap().to_le_bytes();
    let body = [&flags.to_le_bytes()[..], &[0], &len, &command, &[0]].concat();
    let len = u32::try_from(body.len() + 16).unwrap();
    ask([&[len, 7, 0, opcode].map(u32::to_le_bytes).concat()[..], &body].concat())
}

#[test]
fn commands_of_mongodb_are_answered_by_a_document() {
    let find = [mongodb(2013, 0, "find")];
    for (why, error) in [
        (Why::Denied, "13 Unauthorized"),
        (Why::Limited, "462 IngressRequestRateLimitExceeded"),
        (Why::NoRoute, "6 HostUnreachable"),
        (Why::Aborted, "8 UnknownError"),
    ] {
        let answer = refused(Protocol::Mongodb, &find, why, false).expect("an answer");
        assert_eq!(answer[8..12], 7_u32.to_le_bytes());
        let told = done(Protocol::Mongodb, &find, answer);
        assert_eq!(told, format!("done 0 request find app_error {error}"));
    }
    // Who says hello is answered as well; what is compressed may wait for nothing.
    let hello = [mongodb(2013, 0, "hello")];
    assert!(refused(Protocol::Mongodb, &hello, Why::Denied, true).is_some());
    assert_eq!(refused(Protocol::Mongodb, &[mongodb(2012, 0, "find")], Why::Denied, true), None);
    // Whoever does not wait for an answer misses nothing.
    assert_eq!(leaves(Protocol::Mongodb, &[mongodb(2013, 2, "insert")]), Leaves::Nothing);
}

fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &len, payload].concat()
}

/// A connection of PostgreSQL in which these follow one another; `state` is the transaction's.
fn postgresql(state: &[u8], requests: &[u8]) -> Vec<Part> {
    let startup = b"\0\0\0\x12\0\x03\0\0user\0joe\0\0";
    let welcome = [message(b'R', &[0; 4]), message(b'Z', state)].concat();
    vec![ask(startup), say(welcome), ask(requests)]
}

#[test]
fn queries_of_postgresql_are_answered_where_no_transaction_is_open() {
    let query = message(b'Q', b"DELETE FROM orders\0");
    let parse = message(b'P', b"\0DELETE FROM orders\0\0\0");
    let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
    let cycle = [&parse[..], &bind, &message(b'E', b"\0\0\0\0\0"), &message(b'S', b"")].concat();
    let flushed = [&parse[..], &message(b'H', b"")].concat();
    for requests in [&query, &cycle, &flushed] {
        for (why, error) in
            [(Why::Denied, "42501"), (Why::Limited, "53400"), (Why::NoRoute, "58000")]
        {
            let parts = postgresql(b"I", requests);
            let answer = refused(Protocol::Postgresql, &parts, why, true).expect("an answer");
            assert!(answer.ends_with(&message(b'Z', b"I")), "{}", answer.escape_ascii());
            // The client ends its cycle when it has been told.
            let all = [&parts[..], &[ask(message(b'S', b""))]].concat();
            let parts = if requests == &flushed { &all } else { &parts };
            let told = done(Protocol::Postgresql, parts, answer);
            let outcome = if why == Why::Denied { "app_error" } else { "protocol_error" };
            assert_eq!(told, format!("done 1 request DELETE {outcome} {error}"));
        }
        for (state, is_alone) in [(b"T", true), (b"E", true), (b"I", false)] {
            let parts = postgresql(state, requests);
            assert_eq!(refused(Protocol::Postgresql, &parts, Why::Denied, is_alone), None);
        }
    }
    let startup = &postgresql(b"I", &query)[..1];
    assert_eq!(refused(Protocol::Postgresql, startup, Why::Denied, true), None);
    // Whoever cancels waits for the end of the connection, and for nothing else.
    let cancel = [ask(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02")];
    assert_eq!(leaves(Protocol::Postgresql, &cancel), Leaves::Session);
}

/// Nothing of a cycle that is decided about is sent before that: the tap asks for more until it can
/// be told, by its end, by a client that waits, or by so much of it.
#[test]
fn a_cycle_of_postgresql_is_known_before_any_of_it_may_go() {
    let parse = message(b'P', b"\0DELETE FROM orders\0\0\0");
    let bind = |len: usize| message(b'B', &[&[0; 8][..], &vec![b'x'; len]].concat());
    let [execute, sync, flush] =
        [(b'E', &b"\0\0\0\0\0"[..]), (b'S', b""), (b'H', b"")].map(|(kind, it)| message(kind, it));
    let most = LIMITS.message_head_bytes_max as usize;
    for (messages, known_at) in [
        (vec![&parse, &bind(9), &execute, &sync], parse.len() + bind(9).len() + 15),
        (vec![&parse, &flush, &bind(9), &execute, &sync], parse.len() + 5),
        (vec![&parse, &bind(2 * most), &execute, &sync], most),
    ] {
        let bytes = messages.into_iter().flatten().copied().collect::<Vec<_>>();
        let begin = postgresql(b"I", &bytes);
        for size in [1, 7, bytes.len()] {
            let mut tap = Tap::<()>::new(Protocol::Postgresql);
            let mut head = Head::default();
            for part in &begin[..2] {
                let step = tap.step(part.way, &part.bytes, &LIMITS, 1, &mut head);
                assert!(!matches!(step, Step::Need | Step::Tunnel(_)));
            }
            let mut at = 0;
            while at < bytes.len() {
                let end = bytes.len().min(at + size);
                assert_eq!(tap.passable(Way::Request), 0, "some of it could pass unseen");
                match tap.step(Way::Request, &bytes[at..end], &LIMITS, 1, &mut head) {
                    Step::Need => at = end,
                    Step::Opened { consumed, message, .. } => {
                        assert_eq!(at + consumed, known_at);
                        assert_eq!(message.name().concat(), b"DELETE orders");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let told = tell(Protocol::Postgresql, &begin, Pieces::Whole);
        for pieces in [Pieces::Of(1), Pieces::Of(7), Pieces::Passing] {
            assert_eq!(tell(Protocol::Postgresql, &begin, pieces), told);
        }
        assert!(told.last().unwrap().ends_with(&format!("{}/0", bytes.len())), "{told:?}");
    }
}
