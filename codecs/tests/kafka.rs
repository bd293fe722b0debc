//! Kafka: the versions of its calls, which calls are answered, and what is never told.

mod kit;

use kit::{LIMITS, Part, Pieces, Taster, ask, say, tell};
use netra_codecs::Limits;
use netra_codecs::codec::{Correlation, Way};
use netra_codecs::tap::Protocol;

const PRODUCE: u16 = 0;
const FETCH: u16 = 1;
const METADATA: u16 = 3;
const HEARTBEAT: u16 = 12;
const SASL_HANDSHAKE: u16 = 17;
const API_VERSIONS: u16 = 18;
const SASL_AUTHENTICATE: u16 = 36;

fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let bytes = parts.concat();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes[..]].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

/// A request with a head of version 1.
fn request(key: u16, version: u16, id: u32, body: &[u8]) -> Vec<u8> {
    let start = [key.to_be_bytes(), version.to_be_bytes()].concat();
    framed(&[&start, &id.to_be_bytes(), &string("app"), body])
}

fn response(id: u32, body: &[u8]) -> Vec<u8> {
    framed(&[&id.to_be_bytes(), body])
}

/// A record batch that says it has so many records, of `len` bytes.
fn batch(records: u32, len: usize) -> Vec<u8> {
    let mut batch = vec![0; len.max(61)];
    batch[16] = 2;
    batch[57..61].copy_from_slice(&records.to_be_bytes());
    batch
}

/// The body of a `Produce` of version 3 to 8: each topic with the records of its partitions.
fn produce(acks: i16, topics: &[(&str, &[Vec<u8>])]) -> Vec<u8> {
    let count = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    let mut body =
        [&[0xff, 0xff][..], &acks.to_be_bytes(), &count(30_000), &count(topics.len())].concat();
    for (topic, partitions) in topics {
        body.extend([string(topic), count(partitions.len()).to_vec()].concat());
        for (index, records) in partitions.iter().enumerate() {
            body.extend([&count(index)[..], &count(records.len()), records].concat());
        }
    }
    body
}

fn told(parts: &[Part]) -> Vec<String> {
    let whole = tell(Protocol::Kafka, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(13), Pieces::Passing] {
        assert_eq!(tell(Protocol::Kafka, parts, pieces), whole, "{pieces:?}");
    }
    whole
}

/// What a broker that knows nothing answers `ApiVersions`, and the client's question before it.
fn hello() -> [Part; 2] {
    [ask(request(API_VERSIONS, 0, 1, b"")), say(response(1, b"\0\0\0\0\0\0"))]
}

fn after_hello(parts: &[Part]) -> Vec<String> {
    let told = told(&[&hello()[..], parts].concat());
    assert!(told[1].starts_with("done 0 handshake ApiVersions ok"), "{told:?}");
    told[2..].to_vec()
}

/// Requests and answers of all versions, as kafka-python writes them: the first topic
/// `orders` (of two or three), the first group `billing`, the first error 3.
#[test]
fn every_version_of_every_call() {
    let text = include_str!("data/kafka-versions.hex");
    let bytes = |line: &str| -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        (0..line.len()).step_by(2).map(digits).collect()
    };
    let mut lines = text.lines().skip(1);
    let (mut count, mut wrong) = (0, Vec::new());
    while let Some(about) = lines.next() {
        let words: Vec<&str> = about.split(' ').collect();
        let [key, _, topic, topics, group, error] = words[..] else { panic!("{about}") };
        let (asked, answer) = (bytes(lines.next().unwrap()), bytes(lines.next().unwrap()));
        let told = told(&[ask(&asked), say(&answer)]);
        let operation = Protocol::Kafka.about().operations[key.parse::<usize>().unwrap()];
        let mut expected = format!("open 0 KIND {operation}");
        if topic != "-" {
            expected += &format!(" {topic}");
        }
        if group != "-" {
            expected += &format!(" consumer_group={group}");
        }
        expected += " client_id=gen";
        if topics != "0" {
            expected += &format!(" topic_count={topics}");
        }
        let opened =
            ["request", "blocking", "handshake"].map(|kind| expected.replace("KIND", kind));
        if !opened.contains(&told[0]) {
            wrong.push(format!("{about}: {told:?}, not {expected}"));
        }
        let says = if error == "0" { "ok" } else { "app_error 3 UNKNOWN_TOPIC_OR_PARTITION" };
        let says = format!("{operation} {says} {}/{}", asked.len(), answer.len());
        if !told[1].ends_with(&says) {
            wrong.push(format!("{about}: {told:?}, not {says}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 150, "{count}");
}

#[test]
fn heads_with_tagged_fields() {
    // Two tagged fields in the head of the request, one in that of the answer.
    let start = [&[0, 12, 0, 4][..], &7_u32.to_be_bytes(), &string("app")].concat();
    let tagged = framed(&[&start, b"\x02\x00\x02ab\x07\x00", b"\x08billing\0\0\0\x01\x01\0\0"]);
    let answer = response(7, b"\x01\x05\x03xyz\0\0\0\0\0\x19\0");
    assert_eq!(
        after_hello(&[ask(tagged), say(answer)]),
        [
            "open 1 request Heartbeat consumer_group=billing client_id=app",
            "done 1 request Heartbeat app_error 25 UNKNOWN_MEMBER_ID 39/21"
        ]
    );
    // A client without a name, and one whose name is empty.
    for client in [&b"\xff\xff"[..], b"\0\0"] {
        let asked = framed(&[&[0, 12, 0, 0][..], &7_u32.to_be_bytes(), client, &string("g")]);
        let told = after_hello(&[ask(asked), say(response(7, b"\0\0"))]);
        assert_eq!(told[0], "open 1 request Heartbeat consumer_group=g");
    }
}

/// The client asks before it knows what the broker can, so that the answer is as of old.
#[test]
fn the_answer_to_api_versions_has_no_tagged_fields_in_its_head() {
    let start = [&[0, 18, 0, 3][..], &1_u32.to_be_bytes(), &string("app")].concat();
    let asked = framed(&[&start, b"\0\x04lib\x021\0"]);
    for (error, says) in [(0_u16, "ok"), (35, "protocol_error 35 UNSUPPORTED_VERSION")] {
        let answer = response(1, &[&error.to_be_bytes()[..], b"\0\0\0\0"].concat());
        let told = told(&[ask(&asked), say(answer)]);
        assert_eq!(told[0], "open 0 handshake ApiVersions client_id=app");
        assert_eq!(told[1], format!("done 0 handshake ApiVersions {says} {}/14", asked.len()));
    }
}

#[test]
fn produce_without_acknowledgement_is_not_answered() {
    let [none, one, all] =
        [0, 1, -1].map(|acks| produce(acks, &[("orders", &[batch(3, 200), batch(4, 61)])]));
    let told = after_hello(&[
        ask([request(PRODUCE, 7, 2, &none), request(PRODUCE, 7, 3, &one)].concat()),
        ask([request(PRODUCE, 7, 4, &none), request(PRODUCE, 7, 5, &all)].concat()),
        say([response(3, b"\0\0\0\0\0\0\0\0"), response(5, b"\0\0\0\0\0\0\0\0")].concat()),
    ]);
    let opened = |number: u32, kind: &str| {
        format!("open {number} {kind} Produce orders client_id=app topic_count=1 message_count=7")
    };
    assert_eq!(
        told,
        [
            opened(1, "oneway"),
            "done 1 oneway Produce sent 318/0".into(),
            opened(2, "request"),
            opened(3, "oneway"),
            "done 3 oneway Produce sent 318/0".into(),
            opened(4, "request"),
            "done 2 request Produce ok 318/16".into(),
            "done 4 request Produce ok 318/16".into(),
        ]
    );
}

/// Not a broker's, but of what stands in for one in tests.
#[test]
fn answers_to_what_wants_none() {
    let [none, one] = [0, 1].map(|acks| produce(acks, &[("orders", &[batch(1, 61)])]));
    let asked = |id, body| request(PRODUCE, 7, id, body);
    let answer = |id| response(id, b"\0\0\0\0\0\0\0\0");
    let told = after_hello(&[
        ask([asked(2, &none), asked(3, &one), asked(4, &none), asked(5, &none)].concat()),
        say([answer(2), answer(3), answer(4)].concat()),
        say(answer(5)),
        say(answer(5)),
    ]);
    let kinds: Vec<_> = told.iter().filter(|line| !line.starts_with("open")).collect();
    assert!(kinds[3] == "aside stray" && kinds[4].starts_with("done 2 request Produce ok"));
    assert_eq!(kinds[5..], ["aside stray", "aside stray", "tunnel answer_without_request"]);
}

/// Whether it wants an answer is further behind than is read.
#[test]
fn a_produce_whose_beginning_is_long() {
    let start = [&[0, 0, 0, 7][..], &2_u32.to_be_bytes(), &string(&"c".repeat(2000))].concat();
    let asked = framed(&[&start, &produce(1, &[("orders", &[batch(1, 61)])])]);
    assert_eq!(after_hello(&[ask(asked)]), ["tunnel unsupported"]);
}

/// Messages are counted where all batches say how many they have.
#[test]
fn messages_of_a_produce() {
    let mut old = batch(9, 100);
    old[16] = 1;
    let long = batch(50, 90_000);
    for (topics, count) in [
        (&[("a", &[batch(2, 61)][..])][..], "topic_count=1 message_count=2"),
        (
            &[("a", &[batch(2, 61), batch(3, 61)]), ("b", &[batch(4, 61)])],
            "topic_count=2 message_count=9",
        ),
        (&[("a", &[batch(50, 90_000)])], "topic_count=1 message_count=50"),
        // What lies behind a long one is not seen.
        (&[("a", &[long.clone(), batch(1, 61)])], "topic_count=1"),
        (&[("a", &[long]), ("b", &[batch(1, 61)])], "topic_count=2"),
        // Message sets of before Kafka 0.11, and a batch that is cut short.
        (&[("a", &[old])], "topic_count=1"),
        (&[("a", &[vec![2; 30]])], "topic_count=1"),
        (&[("a", &[vec![]])], "topic_count=1 message_count=0"),
    ] {
        let told = after_hello(&[ask(request(PRODUCE, 8, 2, &produce(1, topics)))]);
        assert_eq!(told[0], format!("open 1 request Produce a client_id=app {count}"));
    }
}

#[test]
fn answers_come_in_order_and_name_their_request() {
    let asked: Vec<u8> =
        (2..102).flat_map(|id| request(HEARTBEAT, 0, id, &string("billing"))).collect();
    let said: Vec<u8> = (2..102).flat_map(|id| response(id, b"\0\0")).collect();
    let told = after_hello(&[ask(&asked), say(&said)]);
    assert_eq!(told.iter().filter(|line| line.contains("Heartbeat ok")).count(), 100);
    for wrong in [response(3, b"\0\0"), response(1, b"\0\0"), response(99, b"\0\0")] {
        let told = after_hello(&[ask(&asked), say(wrong)]);
        assert_eq!(told[100], "tunnel answer_without_request");
    }
    assert_eq!(after_hello(&[say(response(1, b"\0\0"))]), ["tunnel answer_without_request"]);
    assert_eq!(Protocol::Kafka.about().correlation, Correlation::Fifo);
}

#[test]
fn errors_by_their_names() {
    for (code, says) in [
        (0_i16, "ok"),
        (27, "app_error 27 REBALANCE_IN_PROGRESS"),
        (42, "protocol_error 42 INVALID_REQUEST"),
        (-1, "app_error -1 UNKNOWN_SERVER_ERROR"),
        (999, "app_error 999 unknown"),
        // Half of every join.
        (79, "ok 79"),
    ] {
        let asked = request(HEARTBEAT, 1, 2, &string("g"));
        let said = response(2, &[&[0; 4][..], &code.to_be_bytes()].concat());
        let told = after_hello(&[ask(&asked), say(said)]);
        assert_eq!(told[1], format!("done 1 request Heartbeat {says} {}/14", asked.len()));
    }
    // One of several partitions.
    let partition =
        |index: u32, code: u16| [&index.to_be_bytes()[..], &code.to_be_bytes(), &[0; 16]].concat();
    let answer = [
        &[0, 0, 0, 1][..],
        &string("orders"),
        &[0, 0, 0, 2],
        &partition(0, 0),
        &partition(1, 6),
        &[0; 4],
    ]
    .concat();
    let asked = request(PRODUCE, 4, 2, &produce(1, &[("orders", &[batch(1, 61), batch(1, 61)])]));
    let told = after_hello(&[ask(asked), say(response(2, &answer))]);
    assert!(told[1].contains("Produce app_error 6 NOT_LEADER_OR_FOLLOWER"), "{told:?}");
    // An answer that ends too soon says nothing.
    let told = after_hello(&[ask(request(HEARTBEAT, 1, 2, &string("g"))), say(response(2, b""))]);
    assert!(told[1].starts_with("done 1 request Heartbeat ok"), "{told:?}");
}

/// Credentials are passed over: in calls, and in the tokens that are none.
#[test]
fn credentials_are_not_told() {
    let secret = b"\0user\0secret";
    let bytes = [&u32::try_from(secret.len()).unwrap().to_be_bytes()[..], secret].concat();
    let told_of_calls = after_hello(&[
        ask(request(SASL_HANDSHAKE, 1, 2, &string("PLAIN"))),
        say(response(2, b"\0\0\0\0\0\x01\0\x05PLAIN")),
        ask(request(SASL_AUTHENTICATE, 0, 3, &bytes)),
        say(response(3, b"\0\x3a\0\x02no\0\0\0\0")),
    ]);
    assert_eq!(
        told_of_calls,
        [
            "open 1 handshake SaslHandshake client_id=app",
            "done 1 handshake SaslHandshake ok 24/21",
            "open 2 handshake SaslAuthenticate client_id=app",
            "done 2 handshake SaslAuthenticate app_error 58 SASL_AUTHENTICATION_FAILED 33/18",
        ]
    );
    // Version 0: tokens without a head, of any length; then calls.
    for token in [&secret[..], b"n,,n=user,r=abc", b"", b"\x60\x82", &[7; 3000]] {
        let told = after_hello(&[
            ask(request(SASL_HANDSHAKE, 0, 2, &string("PLAIN"))),
            say(response(2, b"\0\0\0\0\0\x01\0\x05PLAIN")),
            ask(framed(&[token])),
            say(framed(&[token])),
            ask(framed(&[token])),
            say(framed(&[b""])),
            ask(request(METADATA, 1, 3, b"\0\0\0\x01\0\x06orders")),
            say(response(3, b"\0\0\0\0\0\0\0\0\0\0\0\0")),
        ]);
        let len = token.len() + 4;
        assert_eq!(
            told[2..],
            [
                "open 2 handshake SaslAuthenticate",
                &format!("done 2 handshake SaslAuthenticate ok {len}/{len}"),
                "open 3 handshake SaslAuthenticate",
                &format!("done 3 handshake SaslAuthenticate ok {len}/4"),
                "open 4 request Metadata orders client_id=app topic_count=1",
                "done 4 request Metadata ok 29/20",
            ]
        );
    }
}

/// A fetch waits for what is not there yet, and may ask for nothing new.
#[test]
fn fetches() {
    let start = [[0xff; 4], [0, 0, 1, 0xf4], [0, 0, 0, 1], [0, 0, 0, 9]].concat();
    let session = [0, 0, 0, 0, 7, 0, 0, 0, 8];
    let asked = request(FETCH, 7, 2, &[&start[..], &session, &[0; 8]].concat());
    let told = after_hello(&[ask(asked), say(response(2, &[0; 14]))]);
    assert_eq!(told[0], "open 1 blocking Fetch client_id=app");
    assert!(told[1].starts_with("done 1 blocking Fetch ok"));
}

#[test]
fn calls_that_are_newer_than_the_table() {
    let told = after_hello(&[
        // A version, an api, both of an extension.
        ask(request(METADATA, 15, 2, b"\0\x02\x07orders")),
        say(response(2, b"\0\0\0\0\0")),
        ask(request(93, 0, 3, b"\0")),
        say(response(3, b"\0\0\0\0\0")),
        ask(request(10_000, 300, 4, b"\0")),
        say(response(4, b"\0\0\0\0\0")),
    ]);
    assert_eq!(
        told,
        [
            "open 1 request Metadata client_id=app",
            "done 1 request Metadata ok 26/13",
            "open 2 request other client_id=app",
            "done 2 request other ok 18/13",
            "open 3 request other client_id=app",
            "done 3 request other ok 18/13",
        ]
    );
}

/// What is no name of a topic is not told as one.
#[test]
fn names_that_are_none() {
    for (name, is_told) in
        [("orders.v1_x-2", true), ("or ders", false), ("\u{e9}", false), (&*"x".repeat(250), false)]
    {
        let body = [&[0, 0, 0, 1][..], &string(name)].concat();
        let told = after_hello(&[ask(request(METADATA, 1, 2, &body))]);
        assert_eq!(told[0].contains("Metadata orders"), is_told, "{told:?}");
        assert_eq!(told[0].contains(name), is_told);
    }
}

#[test]
fn what_is_no_kafka() {
    let first = |key, version, body: &[u8]| request(key, version, 1, body);
    // What ZooKeeper's clients begin with looks like a `Produce` that wants no answer.
    let zookeeper = framed(&[&[0; 12], &[0, 0, 0x27, 0x10], &[0; 8], &[0, 0, 0, 16], &[0; 17]]);
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n"[..], "not_this_protocol"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "not_this_protocol"),
        (b"\x16\x03\x01\0", "tls"),
        (b"\xff\xff\xff\xff", "not_this_protocol"),
        (b"\x7f\xff\xff\xff\0\x12\0\0", "not_this_protocol"),
        (&zookeeper, "not_this_protocol"),
        (&first(93, 0, b""), "not_this_protocol"),
        (&first(18, 200, b""), "not_this_protocol"),
        (&first(0, 2, &produce(0, &[])[2..]), "not_this_protocol"),
        (&first(0, 7, &produce(0, &[("a b", &[])])), "not_this_protocol"),
        (&framed(&[b"\0\x12\0\0\0\0\0\x01\0\x64"]), "not_this_protocol"),
    ] {
        assert_eq!(told(&[ask(bytes)]), [format!("tunnel {reason}")], "{bytes:?}");
    }
    assert_eq!(told(&[say(response(1, b"\0\0"))]), ["tunnel server_first"]);
    // PostgreSQL counts the length as well, so that it looks like a call that is not whole.
    let postgres = [ask(b"\0\0\0\x16\0\x03\0\0user\0postgres\0\0"), say(b"R\0\0\0\x08\0\0\0\0")];
    assert_eq!(told(&postgres), ["tunnel server_first"]);
    assert_eq!(after_hello(&[ask(b"\0\0\0\x02\0\0")]), ["cut Request"]);
    let after = [ask(request(HEARTBEAT, 0, 2, &string("g"))), say(b"\0\0\0\x03\0\0\0")];
    assert_eq!(after_hello(&after)[1], "tunnel malformed");
}

/// A body of any length is neither held nor shown, but for its first kilobyte.
#[test]
fn long_bodies_pass() {
    let mut taster = Taster::new(Protocol::Kafka, Limits::DEFAULT);
    hello().iter().for_each(|part| taster.show(part));
    let sent = request(PRODUCE, 7, 2, &produce(1, &[("orders", &[batch(9, 8 << 20)])]));
    taster.show(&ask(&sent[..500]));
    assert_eq!(taster.tap.passable(Way::Request), 0);
    taster.show(&ask(&sent[500..2000]));
    let left = sent.len() as u64 - 2000;
    assert_eq!(taster.tap.passable(Way::Request), left);
    taster.tap.passed(Way::Request, left - 1);
    taster.show(&ask("x"));
    let answer = response(2, &[0; 5_000_000]);
    taster.show(&say(&answer[..1100]));
    assert_eq!(taster.tap.passable(Way::Response), answer.len() as u64 - 1100);
    taster.tap.passed(Way::Response, answer.len() as u64 - 1100);
    taster.show(&say(""));
    let sizes = format!("{}/{}", sent.len(), answer.len());
    assert_eq!(*taster.told.last().unwrap(), format!("done 1 request Produce ok {sizes}"));
    assert!(taster.held_most <= 1200, "{}", taster.held_most);
}

/// A pipeline without end is given up, not held.
#[test]
fn requests_that_are_never_answered() {
    let mut taster = Taster::new(Protocol::Kafka, LIMITS);
    hello().iter().for_each(|part| taster.show(part));
    for id in 0..LIMITS.open_max + 1 {
        taster.show(&ask(request(HEARTBEAT, 0, id, &string("g"))));
    }
    assert_eq!(taster.told.last().unwrap(), "tunnel too_many_open");
}

fn varint(number: i64) -> Vec<u8> {
    let mut left = (number << 1 ^ number >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    while left > 0x7f {
        bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap());
    bytes
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&varint(i64::try_from(bytes.len()).unwrap()), bytes].concat()
}

/// A record of a batch, without a key.
fn record(value: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = [&[0][..], &varint(-3), &varint(300), &varint(-1), &sized(value)].concat();
    bytes.extend(varint(i64::try_from(headers.len()).unwrap()));
    for (name, value) in headers {
        bytes.extend([sized(name.as_bytes()), sized(value.as_bytes())].concat());
    }
    sized(&bytes)
}

fn batch_of(records: &[Vec<u8>]) -> Vec<u8> {
    let begin = batch(u32::try_from(records.len()).unwrap(), 61);
    [&begin[..], &records.concat()].concat()
}

/// A call has the context of its records where all of them are read and are of one trace.
#[test]
fn headers_of_records_carry_contexts() {
    let parent = |trace: u8, span: u8| format!("00-{trace:032x}-{span:016x}-01");
    let of =
        |trace, span| record(b"s3cret", &[("k", "s3cret"), ("traceparent", &parent(trace, span))]);
    let mut packed = batch_of(&[of(7, 1)]);
    packed[22] = 1;
    let carrying: &[(&[Vec<u8>], bool)] = &[
        (&[batch_of(&[of(7, 1)])], true),
        (&[batch_of(&[of(7, 1), of(7, 2)])], true),
        (&[batch_of(&[of(7, 1), of(8, 2)])], false),
        (&[batch_of(&[of(7, 1), record(b"x", &[])])], false),
        (&[batch_of(&[record(b"x", &[])])], false),
        // Another partition's records are not read, packed ones cannot be, long ones lie behind.
        (&[batch_of(&[of(7, 1)]), batch_of(&[of(7, 1)])], false),
        (&[packed], false),
        (&[batch_of(&[record(&[b'x'; 1000], &[("traceparent", &parent(7, 1))])])], false),
    ];
    for (partitions, carries) in carrying {
        let told =
            after_hello(&[ask(request(PRODUCE, 7, 2, &produce(1, &[("orders", partitions)])))]);
        let found = told[0].split_once(" traceparent:").map(|(_, value)| value.to_owned());
        assert_eq!(found, carries.then(|| parent(7, 1)), "{told:?}");
        assert!(!told[0].contains("s3cret"), "{told:?}");
    }
    // Records that say more than there is.
    for at in 61..batch_of(&[of(7, 1)]).len() {
        for byte in [0xff, 0x7f, 0] {
            let mut bad = batch_of(&[of(7, 1), of(7, 2)]);
            bad[at] = byte;
            let told = after_hello(&[ask(request(PRODUCE, 7, 2, &produce(1, &[("o", &[bad])])))]);
            assert!(told[0].starts_with("open 1 request Produce o"), "{told:?}");
        }
    }
}
