//! What codecs write: edits that are read again, and answers of netra's own, on everything that was
//! recorded, at every split point.

mod kit;

use kit::{Capture, LIMITS, Part, Pieces, ask, captures, say, tell, unescape};
use netra_codecs::codec::{CannotEdit, Edits, Head, Kind, Pairs, Refusal, Replied, Way, Why};
use netra_codecs::tap::{Message, Protocol, Step, Tap};

/// Pairs of which some are there already in one recording or another, and some never are.
fn pairs() -> Pairs {
    let mut pairs = Pairs::new();
    for (name, value) in [
        ("traceparent", "00-0000000000000000000000000000000c-000000000000000d-01"),
        ("x-request-id", "a"),
        ("netra-umlaut", "\u{e4}\u{20ac}"),
        ("netra-empty", ""),
        ("netra-long", &"v".repeat(300)),
    ] {
        pairs.add(name.as_bytes(), value.as_bytes()).unwrap();
    }
    pairs
}

/// What is done with each message of a way that is read.
type Do<'d> = dyn FnMut(&Message<'_>, &mut Edits) + 'd;

/// A way's bytes as they go out, cut at `cut` where they come in; None where it became a tunnel.
fn pass(
    tap: &mut Tap<()>,
    way: Way,
    input: &[u8],
    cut: usize,
    with: &mut Do<'_>,
) -> Option<Vec<u8>> {
    let (mut out, mut held, mut edits) = (Vec::new(), Vec::new(), Edits::new());
    for piece in [&input[..cut], &input[cut..]] {
        let (mut rest, mut head) = (piece, Head::default());
        while !rest.is_empty() || tap.has_ended(way) {
            let consumed = match tap.step(way, rest, &LIMITS, 1, &mut head) {
                Step::Need => {
                    held.extend_from_slice(rest);
                    rest = &[];
                    continue;
                }
                Step::Tunnel(_) => return None,
                Step::Body(consumed)
                | Step::Late(consumed)
                | Step::Finished { consumed, message: None, .. } => {
                    out.append(&mut held);
                    out.extend_from_slice(&rest[..consumed]);
                    consumed
                }
                Step::Opened { consumed, message, .. }
                | Step::Answered { consumed, message, .. }
                | Step::Aside { consumed, message }
                | Step::Finished { consumed, message: Some(message), .. } => {
                    held.extend_from_slice(&rest[..consumed]);
                    edits.clear();
                    with(&message, &mut edits);
                    let head = message.bytes();
                    if edits.is_empty() {
                        out.extend_from_slice(&held);
                    } else {
                        // What a gate lives on: a message begins with what is edited of it.
                        assert!(held.starts_with(head), "{:?}", message.name());
                        edits.pieces(head).for_each(|it| out.extend_from_slice(it.bytes()));
                        out.extend_from_slice(&held[head.len()..]);
                    }
                    held.clear();
                    consumed
                }
            };
            rest = &rest[consumed..];
        }
    }
    out.extend(held);
    Some(out)
}

/// The parts of a recording with all of their messages edited, and how many were; None where it
/// becomes a tunnel. Each part that is as short is cut at `cut`.
fn edited(capture: &Capture, cut: usize, pairs: &Pairs) -> Option<(Vec<Part>, usize)> {
    let (mut tap, mut count) = (Tap::new(capture.protocol), 0);
    let parts = capture.parts.iter().map(|part| {
        let cut = cut.min(part.bytes.len());
        let bytes =
            pass(&mut tap, part.way, &part.bytes, cut, &mut |message, edits| match message
                .edit(pairs, edits)
            {
                Ok(()) => count += 1,
                Err(_) => assert!(edits.is_empty()),
            })?;
        Some(Part { way: part.way, bytes })
    });
    parts.collect::<Option<Vec<_>>>().map(|parts| (parts, count))
}

/// Lines without what an edit changes: pairs, and how many bytes there were.
fn bare(told: &[String]) -> Vec<String> {
    let words = |line: &String| {
        let is_done = line.starts_with("done") || line.starts_with("left");
        let words = line.split(' ').filter(|word| !word.contains(':'));
        let words = words.filter(|word| !(is_done && word.contains('/')));
        words.collect::<Vec<_>>().join(" ")
    };
    let lines = told.iter().map(words);
    // Of an answer that carries something for the first time there is a line more.
    lines.filter(|line| !line.starts_with("answer ")).collect()
}

#[test]
fn what_is_edited_says_the_same_and_carries_the_pairs() {
    let pairs = pairs();
    let mut edited_ones = Vec::new();
    for mut capture in captures() {
        let Some((parts, count)) = edited(&capture, 0, &pairs) else { continue };
        if count == 0 {
            assert!(parts == capture.parts, "{}: bytes changed without an edit", capture.name);
            continue;
        }
        edited_ones.push(capture.name);
        let (before, after) = (
            tell(capture.protocol, &capture.parts, Pieces::Whole),
            tell(capture.protocol, &parts, Pieces::Whole),
        );
        assert_eq!(bare(&before), bare(&after), "{}", capture.name);
        let carried = after.iter().filter(|line| line.contains(" netra-empty:")).count();
        assert_eq!(carried, count, "{}: {after:#?}", capture.name);
        for line in after.iter().filter(|line| line.contains(" netra-empty:")) {
            for (name, _) in pairs.iter() {
                let name = format!(" {}:", name.escape_ascii());
                assert_eq!(line.matches(&name).count(), 1, "{}: {line}", capture.name);
            }
        }
        // Again: now all of them are there, and nothing is added.
        capture.parts.clone_from(&parts);
        let (same, _) = edited(&capture, 0, &pairs).unwrap();
        assert!(same == parts, "{}: edited twice", capture.name);
    }
    assert_eq!(edited_ones, ["dubbo-java", "thrift-header-binary", "thrift-header-compact"]);
}

#[test]
fn it_does_not_matter_how_the_bytes_came() {
    for capture in captures() {
        let whole = edited(&capture, 0, &pairs());
        let longest = capture.parts.iter().map(|part| part.bytes.len()).max().unwrap_or(0);
        for cut in (1..longest.min(400)).chain([longest]) {
            assert!(edited(&capture, cut, &pairs()) == whole, "{} at {cut}", capture.name);
        }
    }
}

fn refusal(why: Why) -> Refusal<'static> {
    Refusal { why, text: "netra: rule \"no\r\n writes\" of shop", is_alone: true }
}

/// Each request of a recording, on a connection where all before it went as they did, is refused in
/// its place, and the answer is read as one to it.
#[test]
fn a_refusal_is_read_as_the_answer_that_it_is() {
    let mut said = Vec::new();
    for capture in captures() {
        let mut tap = Tap::<()>::new(capture.protocol);
        let mut replies = 0;
        for part in &capture.parts {
            let mut out = Vec::new();
            let passed = pass(&mut tap, part.way, &part.bytes, 0, &mut |message, _| {
                let mut reply = Vec::new();
                if part.way == Way::Request
                    && message.kind() == Kind::Request
                    && message.reply(&refusal(Why::ALL[replies % 5]), &mut reply) == Replied::Sent
                {
                    out.push((message.name().concat(), reply));
                    replies += 1;
                }
            });
            // The one that opens a connection says what it speaks, and is whole in its part.
            if let (Some(_), [(_, reply)], true) = (passed, &out[..], stands_alone(&capture, part))
            {
                let told = tell(capture.protocol, &[part.clone(), say(reply)], Pieces::Whole);
                assert_eq!(told.len(), 2, "{}: {told:?}", capture.name);
                assert!(told[1].contains("_error"), "{}: {told:?}", capture.name);
                for size in [1, 2, 3, 5, 7] {
                    let pieces = Pieces::Of(size);
                    let again = tell(capture.protocol, &[part.clone(), say(reply)], pieces);
                    assert_eq!(again, told, "{}", capture.name);
                }
                said.push(capture.name);
            }
        }
    }
    said.dedup();
    let expected = [
        "redis-resp2",
        "redis-resp3",
        "dubbo-java",
        "thrift-framed-binary",
        "thrift-framed-lax",
        "thrift-framed-compact",
        "thrift-plain-binary",
        "thrift-plain-lax",
        "thrift-plain-compact",
        "thrift-header-binary",
        "thrift-header-compact",
        "memcached-text",
        "memcached-meta",
        "memcached-binary",
    ];
    for name in expected {
        assert!(said.contains(&name), "{name} is not refused: {said:?}");
    }
}

/// A part that is one whole request, as the first of a connection.
fn stands_alone(capture: &Capture, part: &Part) -> bool {
    let told = tell(capture.protocol, std::slice::from_ref(part), Pieces::Whole);
    matches!(&told[..], [opened, left] if opened.starts_with("open 0 request")
        && left.starts_with("left 0 request"))
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xda, 0xbb, flags, 0][..], &7_u64.to_be_bytes(), &len, body].concat()
}

const CALL: &[u8] = b"\x052.0.2\x10org.demo.Greeter\x051.0.0\x08sayHello\x00";

/// Bytes of one message, edited, or why not.
fn edit_one(protocol: Protocol, bytes: &[u8]) -> Result<Vec<u8>, CannotEdit> {
    let mut result = Ok(());
    let out = pass(&mut Tap::new(protocol), Way::Request, bytes, 0, &mut |message, edits| {
        result = message.edit(&pairs(), edits);
    });
    result.map(|()| out.expect("no tunnel"))
}

#[test]
fn attachments_are_put_in_wherever_there_is_a_place_for_them() {
    for attachments in
        [&b"N"[..], b"HZ", b"M\x03mapZ", b"H\x01a\x91Z", b"H\x01a\x01b\x0bTRACEPARENT\x01xZ"]
    {
        let bytes = frame(0xc2, &[CALL, attachments].concat());
        let out = edit_one(Protocol::Dubbo, &bytes).unwrap();
        let told = tell(Protocol::Dubbo, &[ask(&out)], Pieces::Whole);
        let long = format!("netra-long:{}..300", "v".repeat(70));
        for wanted in ["netra-umlaut:\\xc3\\xa4\\xe2\\x82\\xac", "x-request-id:a", &long] {
            assert!(told[0].contains(wanted), "{attachments:?}: {told:?}");
        }
        assert_eq!(told[0].to_lowercase().matches("traceparent:00-").count(), 1, "{told:?}");
        assert_eq!(told[0].contains(" a:b"), attachments.starts_with(b"H\x01a\x01b"), "{told:?}");
    }
}

#[test]
fn what_has_no_place_for_pairs_stays_as_it_came() {
    let long = [&[b'S', 0x80, 0][..], &[b'x'; 0x8000], b"HZ"].concat();
    let with_argument = b"\x052.0.2\x10org.demo.Greeter\x051.0.0\x08sayHello\x12Ljava/lang/String;";
    for (bytes, why) in [
        (frame(0xc2, CALL), CannotEdit::NoPlace),
        (frame(0xc2, &[CALL, b"H\x01a"].concat()), CannotEdit::NoPlace),
        (frame(0xc2, &[CALL, b"\x01a"].concat()), CannotEdit::NoPlace),
        (frame(0xc6, &[CALL, b"HZ"].concat()), CannotEdit::NoPlace),
        (frame(0xe2, b"N"), CannotEdit::NoPlace),
        (frame(0xc2, &[with_argument, &long[..]].concat()), CannotEdit::Behind),
    ] {
        assert_eq!(edit_one(Protocol::Dubbo, &bytes), Err(why), "{}", bytes.escape_ascii());
    }
    let ping = b"*1\r\n$4\r\nPING\r\n";
    assert_eq!(edit_one(Protocol::Redis, ping), Err(CannotEdit::Never));
    let call = unescape(
        "\\x00\\x00\\x00\\x11\\x80\\x01\\x00\\x01\\x00\\x00\\x00\\x04ping\\x00\\x00\\x00\\x01\\x00",
    );
    assert_eq!(edit_one(Protocol::Thrift, &call), Err(CannotEdit::Never));
    let mut bad = Pairs::new();
    bad.add(b"a", b"\xff").unwrap();
    let bytes = frame(0xc2, &[CALL, b"HZ"].concat());
    pass(&mut Tap::new(Protocol::Dubbo), Way::Request, &bytes, 0, &mut |message, edits| {
        assert_eq!(message.edit(&bad, edits), Err(CannotEdit::BadText));
        assert_eq!(message.edit(&Pairs::new(), edits), Ok(()));
        assert!(edits.is_empty());
    });
}

/// Where the answer to a command decides what those behind it mean, nothing can be said for the
/// server.
#[test]
fn what_cannot_be_answered_for_the_server_is_not() {
    let command = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        let strings = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        format!("*{}\r\n{}", words.len(), strings.collect::<String>())
    };
    let said = |protocol, bytes: &[u8]| {
        let mut said = Vec::new();
        pass(&mut Tap::new(protocol), Way::Request, bytes, 0, &mut |message, _| {
            said.push(message.reply(&refusal(Why::Denied), &mut Vec::new()));
        });
        said
    };
    let all = ["GET a", "MULTI", "SET a b", "EXEC", "GET a", "HELLO 3", "SUBSCRIBE x", "BLPOP a 0"];
    let bytes = all.map(command).concat();
    let (yes, no) = (Replied::Sent, Replied::MustClose);
    assert_eq!(said(Protocol::Redis, bytes.as_bytes()), [yes, no, no, no, yes, no, no, yes]);
    assert_eq!(said(Protocol::Memcached, b"get a\r\ndelete a noreply\r\nget b\r\n"), [yes, no, no]);
    assert_eq!(said(Protocol::Dubbo, &frame(0xc6, b"")), [no]);
}

/// A call with the headers of Kitex; `infos` behind encoding and transforms.
fn kitex(infos: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut header = [&[0, 0][..], infos].concat();
    header.resize(header.len().next_multiple_of(4), 0);
    let words = u16::try_from(header.len() / 4).unwrap().to_be_bytes();
    let rest = [&[0x10, 0, 0, 9, 0, 0, 0, 5][..], &words, &header, payload].concat();
    [&u32::try_from(rest.len()).unwrap().to_be_bytes()[..], &rest].concat()
}

#[test]
fn headers_of_kitex_are_edited_and_answered() {
    let call = b"\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x01\0";
    let in_frame = [&[0, 0, 0, 0x11][..], call].concat();
    let own = b"\x10\0\x01\0\x02\0\x01x\x11\0\x01t";
    for payload in [&call[..], &in_frame] {
        for infos in
            [&b""[..], own, b"\x01\0\0", b"\x01\0\x02\0\x01a\0\x01b\0\x0bTraceparent\0\x02no"]
        {
            let bytes = kitex(infos, payload);
            let out = edit_one(Protocol::Thrift, &bytes).unwrap();
            assert!(out.ends_with(payload) && out.len() % 4 == bytes.len() % 4);
            let told = tell(Protocol::Thrift, &[ask(&out)], Pieces::Whole);
            assert_eq!(told[0].matches("netra-empty:").count(), 1, "{told:?}");
            assert_eq!(told[0].to_lowercase().matches("traceparent:00-").count(), 1, "{told:?}");
            assert_eq!(told[0].contains(" a:b"), infos.len() > 15, "{told:?}");
        }
        let bytes = kitex(own, payload);
        let mut reply = Vec::new();
        pass(&mut Tap::new(Protocol::Thrift), Way::Request, &bytes, 0, &mut |message, _| {
            assert_eq!(message.reply(&refusal(Why::Limited), &mut reply), Replied::Sent);
        });
        // Its id is the request's.
        assert_eq!(reply[4..12], bytes[4..12]);
        let told = tell(Protocol::Thrift, &[ask(&bytes), say(&reply)], Pieces::Whole);
        assert!(told[1].contains("protocol_error 6 internal_error"), "{told:?}");
    }
}
