//! Redis: what is asked without an answer, answered without being asked, and everything that could
//! shift the answers by one.

mod kit;

use kit::{LIMITS, Part, Pieces, Taster, ask, say, tell};
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::tap::Protocol;

fn command(words: &str) -> Part {
    let words: Vec<_> = words.split(' ').collect();
    let strings: String =
        words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    ask(format!("*{}\r\n{strings}", words.len()))
}

/// What is said, whole, byte by byte, and while strings pass unseen.
fn told(parts: &[Part]) -> Vec<String> {
    let whole = tell(Protocol::Redis, parts, Pieces::Whole);
    for pieces in [Pieces::Of(1), Pieces::Of(3), Pieces::Passing] {
        assert_eq!(tell(Protocol::Redis, parts, pieces), whole, "{pieces:?}");
    }
    whole
}

fn done(told: &[String]) -> Vec<&str> {
    told.iter().filter(|line| line.starts_with("done")).map(|line| &line[5..]).collect()
}

#[test]
fn every_type_of_reply_is_one_answer() {
    let replies = [
        "+OK\r\n",
        ":-12\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*3\r\n:1\r\n*1\r\n$1\r\na\r\n+x\r\n",
        "_\r\n",
        "#t\r\n",
        ",1.5e3\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "=15\r\ntxt:Some string\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:2\r\n:3\r\n",
        "~2\r\n+a\r\n+b\r\n",
        "|1\r\n+ttl\r\n:3600\r\n*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
        "|0\r\n+OK\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:9\r\n",
    ];
    let mut parts = Vec::new();
    for reply in replies {
        parts.extend([command("GET a"), say(reply), command("PING"), say("+PONG\r\n")]);
    }
    let told = told(&parts);
    let expected: Vec<_> = (0..)
        .zip(replies)
        .flat_map(|(number, reply)| {
            let (get, ping) = (2 * number, 2 * number + 1);
            let len = reply.len();
            [format!("{get} request GET ok 20/{len}"), format!("{ping} request PING ok 14/7")]
        })
        .collect();
    assert_eq!(done(&told), expected);
}

#[test]
fn errors_are_known_by_their_prefix() {
    for (reply, error) in [
        ("-ERR unknown command 'x'\r\n", "ERR"),
        ("-WRONGTYPE Operation against a key\r\n", "WRONGTYPE"),
        ("-MOVED 3999 127.0.0.1:6381\r\n", "MOVED"),
        ("!21\r\nSYNTAX invalid syntax\r\n", "SYNTAX"),
        // Words of a script, which might say anything.
        ("-user bob has no money\r\n", "ERR"),
        ("-\r\n", "ERR"),
        ("-AVERYLONGWORDTHATISNOPREFIXANYMOREATALL x\r\n", "AVERYLONGWORDTHATISNOPREFIXANYMO"),
    ] {
        let told = told(&[command("GET a"), say(reply)]);
        let expected = format!("0 request GET app_error {error} 20/{}", reply.len());
        assert_eq!(done(&told), [expected]);
    }
}

#[test]
fn a_server_that_cannot_work_is_told_from_one_that_says_no() {
    for (reply, came_to) in [
        ("-LOADING\r\n", "protocol_error LOADING"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "protocol_error LOADING"),
        ("-MASTERDOWN Link with MASTER is down\r\n", "protocol_error MASTERDOWN"),
        ("-CLUSTERDOWN Hash slot not served\r\n", "protocol_error CLUSTERDOWN"),
        ("-BUSY Redis is busy running a script.\r\n", "protocol_error BUSY"),
        ("-READONLY You can't write against a read only replica.\r\n", "protocol_error READONLY"),
        ("!13\r\nLOADING it is\r\n", "protocol_error LOADING"),
        ("-BUSYKEY Target key name already exists.\r\n", "app_error BUSYKEY"),
        ("-BUSYGROUP Consumer Group name already exists\r\n", "app_error BUSYGROUP"),
        ("-loading is what a script says\r\n", "app_error ERR"),
    ] {
        let told = told(&[command("GET a"), say(reply)]);
        assert_eq!(done(&told), [format!("0 request GET {came_to} 20/{}", reply.len())]);
    }
}

#[test]
fn a_long_pipeline_is_answered_in_order() {
    let mut parts: Vec<_> = (0..250).map(|_| command("INCR n")).collect();
    parts.extend((0..250).map(|number| say(format!(":{number}\r\n"))));
    let told = told(&parts);
    assert_eq!(done(&told).len(), 250);
    assert!(done(&told)[249].starts_with("249 request INCR ok"));
    // `redis-benchmark -P 1000`, in one piece each way, and far beyond.
    for count in [1_000, 9_999] {
        let mut taster = Taster::new(Protocol::Redis, Limits::DEFAULT);
        taster.show(&ask(command("GET k").bytes.repeat(count)));
        assert_eq!(taster.tap.open_count(), count);
        taster.show(&say(b"$1\r\nx\r\n".repeat(count)));
        taster.end();
        assert_eq!(done(&taster.told).len(), count);
    }
}

#[test]
fn more_than_may_be_open_is_given_up() {
    let mut taster = Taster::new(Protocol::Redis, LIMITS);
    let count = LIMITS.open_max as usize;
    taster.show(&ask(command("GET k").bytes.repeat(count + 1)));
    assert_eq!(taster.told.last().unwrap(), "tunnel too_many_open");
    taster.end();
    let left = taster.told.iter().filter(|line| line.contains("unseen"));
    assert_eq!(left.count(), count);
}

#[test]
fn an_answer_that_nobody_asked_for_shifts_nothing() {
    let told =
        told(&[command("GET a"), say(":1\r\n"), say(":2\r\n"), command("GET b"), say(":3\r\n")]);
    assert_eq!(done(&told), ["0 request GET ok 20/4"]);
    assert_eq!(told.last().unwrap(), "tunnel answer_without_request");
}

#[test]
fn pushes_are_no_answers() {
    let told = told(&[
        command("GET a"),
        say(
            ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n$1\r\nx\r\n>3\r\n+message\r\n+c\r\n+hi\r\n",
        ),
        command("GET b"),
        say(":2\r\n"),
    ]);
    assert_eq!(done(&told), ["0 request GET ok 20/7", "1 request GET ok 20/4"]);
    assert_eq!(told.iter().filter(|line| *line == "aside push").count(), 2);
}

#[test]
fn channels_are_confirmed_one_by_one() {
    let confirm = |what: &str, channel: &str, count: u32| {
        say(format!("*3\r\n${}\r\n{what}\r\n$1\r\n{channel}\r\n:{count}\r\n", what.len()))
    };
    let parts = [
        command("GET x"),
        command("SUBSCRIBE a b"),
        say("$-1\r\n"),
        confirm("subscribe", "a", 1),
        say("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n"),
        confirm("subscribe", "b", 2),
        command("PSUBSCRIBE p*"),
        say("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nho\r\n"),
        confirm("psubscribe", "p", 3),
        // Refused.
        command("SSUBSCRIBE s"),
        say("-NOPERM this user has no permissions\r\n"),
        // All that there are: one answer, and pushes.
        command("UNSUBSCRIBE"),
        command("PUNSUBSCRIBE p*"),
        confirm("unsubscribe", "a", 2),
        confirm("unsubscribe", "b", 1),
        confirm("punsubscribe", "p", 0),
        // Not subscribed any more: the list is an answer.
        command("LRANGE l 0 -1"),
        say("*2\r\n$7\r\nmessage\r\n$1\r\na\r\n"),
        // Queued.
        command("MULTI"),
        say("+OK\r\n"),
        command("SUBSCRIBE a"),
        say("+QUEUED\r\n"),
    ];
    let told = told(&parts);
    let kinds: Vec<_> = done(&told)
        .iter()
        .map(|line| line.splitn(5, ' ').take(4).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        kinds,
        [
            "0 request GET ok",
            "1 subscribe SUBSCRIBE ok",
            "2 subscribe PSUBSCRIBE ok",
            "3 subscribe SSUBSCRIBE app_error",
            "4 subscribe UNSUBSCRIBE ok",
            "5 subscribe PUNSUBSCRIBE ok",
            "6 request LRANGE ok",
            "7 request MULTI ok",
            "8 subscribe SUBSCRIBE ok",
        ]
    );
    assert_eq!(told.iter().filter(|line| *line == "aside push").count(), 3);
}

#[test]
fn what_answers_no_subscription_ends_the_tap() {
    let told = told(&[command("SUBSCRIBE a"), say(":3\r\n")]);
    assert_eq!(told[1], "tunnel answer_without_request");
}

#[test]
fn replies_that_are_turned_off() {
    let told = told(&[
        command("CLIENT REPLY OFF"),
        command("SET a 1"),
        ask("SET b 2\r\n"),
        command("client reply on"),
        say("+OK\r\n"),
        command("CLIENT REPLY SKIP"),
        command("SET a 1"),
        command("GET a"),
        say("$1\r\n1\r\n"),
        command("CLIENT REPLY OFF"),
        command("RESET"),
        say("+RESET\r\n"),
        command("GET a"),
        say("$1\r\n1\r\n"),
    ]);
    let ways: Vec<_> = done(&told)
        .iter()
        .map(|line| line.split(' ').skip(1).take(3).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        ways,
        [
            "oneway CLIENT sent",
            "oneway SET sent",
            "oneway SET sent",
            "request CLIENT ok",
            "oneway CLIENT sent",
            "oneway SET sent",
            "request GET ok",
            "oneway CLIENT sent",
            "request RESET ok",
            "request GET ok",
        ]
    );
}

/// The server may have refused to leave answers out: then nobody can say whose they are.
/// What follows `REPLY` and is none of its words, in pieces: its beginning is held with the head.
#[test]
fn a_long_word_behind_client_reply() {
    let parts = [command("CLIENT REPLY WHATEVER-THIS-IS"), say("-ERR syntax error\r\n")];
    assert_eq!(done(&told(&parts)), ["0 request CLIENT app_error ERR 50/19"]);
}

#[test]
fn replies_that_may_not_be_off() {
    for parts in [
        vec![
            command("CLIENT REPLY SKIP"),
            command("SET a 1"),
            command("GET a"),
            say("-NOAUTH Authentication required.\r\n"),
        ],
        vec![command("CLIENT REPLY ON"), say("-NOPERM no\r\n")],
        vec![command("MULTI"), command("CLIENT REPLY OFF")],
        vec![command("CLIENT REPLY OFF"), command("SUBSCRIBE a")],
    ] {
        assert!(told(&parts).contains(&"tunnel replies_unclear".to_owned()), "{parts:?}");
    }
    let told = told(&[command("CLIENT REPLY OFF"), say("-NOAUTH no\r\n")]);
    assert_eq!(told.last().unwrap(), "tunnel answer_without_request");
}

#[test]
fn monitors_and_replicas() {
    let lines = say("+1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\"\r\n");
    let parts = [
        command("MONITOR"),
        say("+OK\r\n"),
        lines.clone(),
        lines,
        command("PING"),
        say("+PONG\r\n"),
    ];
    let monitored = told(&parts);
    assert_eq!(done(&monitored).len(), 2);
    assert_eq!(monitored.iter().filter(|line| *line == "aside push").count(), 2);
    for words in ["PSYNC ? -1", "SYNC"] {
        assert_eq!(told(&[command(words)]), ["tunnel replication"]);
    }
}

#[test]
fn words_on_a_line() {
    let told = told(&[
        ask("PING\r\n"),
        say("+PONG\r\n"),
        ask("\r\n\r\nset  k v\n"),
        say("+OK\r\n"),
        ask("get \"k\"\r\n"),
        say("$1\r\nv\r\n"),
    ]);
    let opened: Vec<_> = told.iter().filter(|line| line.starts_with("open")).collect();
    assert_eq!(opened, ["open 0 request PING", "open 1 request SET key=k", "open 2 request GET"]);
    assert_eq!(done(&told)[1], "1 request SET ok 9/5");
}

#[test]
fn what_is_no_redis() {
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n"[..], "not_this_protocol"),
        (b"HELO there\r\n", "not_this_protocol"),
        (b"\x80\x01\0\x01", "not_this_protocol"),
        (b"\x16\x03\x01", "tls"),
        (b"*a\r\n", "not_this_protocol"),
        (b"*1\r\n+PING\r\n", "malformed"),
        (b"*1\r\n$-5\r\n", "malformed"),
        (b"*1\r\n$4\r\nPINGxx", "malformed"),
        (b"*2\r\n$4\r\nECHO\r\n:1\r\n", "malformed"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$-1\r\n", "malformed"),
        (b"*2147483647\r\n", "too_large"),
        (b"*1\r\n$2147483648\r\n", "too_large"),
        (b"*9223372036854775807\r\n", "too_large"),
        (b"*99999999999999999999\r\n", "not_this_protocol"),
    ] {
        let told = told(&[ask(bytes)]);
        assert_eq!(
            told.iter().find(|line| line.starts_with("tunnel")).map(|line| &line[7..]),
            Some(reason),
            "{bytes:?}: {told:?}"
        );
    }
    let endless = ask([&b"PING "[..], &[b'x'; 5000]].concat());
    assert_eq!(told(&[endless]), ["tunnel too_large"]);
    // Nothing that means nothing is a request.
    assert!(told(&[ask("*0\r\n*-1\r\n\r\n")]).is_empty());
}

#[test]
fn replies_that_are_none() {
    for (bytes, reason) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], "not_this_protocol"),
        (b"\x15\x03\x01", "tls"),
        (b"$-2\r\n", "malformed"),
        (b"%-1\r\n", "malformed"),
        (b"!-1\r\n", "malformed"),
        (b"$?\r\n", "unsupported"),
        (b"*?\r\n", "unsupported"),
        (b"$1\r\nabc", "malformed"),
        (b"+OK\rx", "malformed"),
        (b"$99999999999\r\n", "too_large"),
        (b"*1073741825\r\n", "too_large"),
        (b"*1\r\nx", "malformed"),
        (&b"*1\r\n".repeat(20), "nested_too_deep"),
    ] {
        let told = told(&[command("GET a"), say(bytes)]);
        assert_eq!(
            told.iter().find(|line| line.starts_with("tunnel")).map(|line| &line[7..]),
            Some(reason),
            "{bytes:?}: {told:?}"
        );
        assert!(done(&told).is_empty());
    }
}

/// Secrets are arguments, and none of them is a key.
#[test]
fn credentials_are_never_told() {
    for words in [
        "AUTH s3cret",
        "AUTH bob s3cret",
        "HELLO 3 AUTH bob s3cret",
        "CONFIG SET requirepass s3cret",
        "ACL SETUSER bob >s3cret",
        "MIGRATE host 6379 key 0 5000 AUTH s3cret",
        "EVAL s3cret 0",
        "s3cret s3cret",
        "ECHO s3cret",
        "PUBLISH s3cret s3cret",
    ] {
        let told = told(&[command(words), say("+OK\r\n")]).join("\n");
        assert!(!told.replace("request s3cret", "").contains("s3cret"), "{told}");
    }
    // What does not look like a command is not told either.
    let odd = format!("my pass{}", "w".repeat(30));
    let told = told(&[ask(format!("*1\r\n${}\r\n{odd}\r\n", odd.len())), say("-ERR\r\n")]);
    assert_eq!(told[0], "open 0 request");
}

/// A string of any length is neither held nor shown.
#[test]
fn long_strings_pass() {
    let mut taster = Taster::new(Protocol::Redis, Limits::DEFAULT);
    let len = 64 << 20;
    taster.show(&ask(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${len}\r\nabc")));
    assert_eq!(taster.tap.passable(Way::Request), len - 3);
    taster.tap.passed(Way::Request, len - 3);
    taster.show(&ask("\r\n"));
    taster.show(&say("+OK\r\n"));
    taster.show(&command("GET k"));
    taster.show(&say(format!("${len}\r\n")));
    assert_eq!(taster.tap.passable(Way::Response), len);
    taster.tap.passed(Way::Response, len);
    assert!(taster.tap.is_within_message(Way::Response));
    taster.show(&say("\r\n"));
    taster.end();
    let asked = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\n\r\n".len() as u64 + len;
    let said = "$67108864\r\n\r\n".len() as u64 + len;
    assert_eq!(
        done(&taster.told),
        [format!("0 request SET ok {asked}/5"), format!("1 request GET ok 20/{said}")]
    );
    assert!(taster.held_most < 200, "{}", taster.held_most);
}

/// A key that is longer than what is read of a message is not told; the command is.
#[test]
fn a_key_beyond_the_limit() {
    for (len, is_told) in [(2000, true), (2048, false), (5000, false)] {
        let key = "k".repeat(len);
        let told = told(&[command(&format!("GET {key}")), say("$-1\r\n")]);
        assert_eq!(told[0].contains("key="), is_told, "{len}: {told:?}");
        assert_eq!(done(&told).len(), 1);
    }
}

/// The server need not wait for the end of a request to refuse it.
#[test]
fn an_answer_before_the_end_of_its_request() {
    let told = tell(
        Protocol::Redis,
        &[
            ask("*2\r\n$3\r\nGET\r\n$9000\r\n"),
            say("-ERR no\r\n"),
            ask("k".repeat(9000)),
            ask("\r\n"),
            command("PING"),
            say("+PONG\r\n"),
        ],
        Pieces::Whole,
    );
    assert_eq!(done(&told), ["0 request GET app_error ERR 0/9", "1 request PING ok 14/7"]);
}

#[test]
fn a_connection_that_ends_early() {
    let told = told(&[command("GET a"), command("GET b"), say("$5\r\nab")]);
    assert_eq!(
        told[2..],
        [
            "cut Response",
            "left 0 request GET unanswered 20/6",
            "left 1 request GET unanswered 20/0"
        ]
    );
}
