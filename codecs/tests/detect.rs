//! Detection: right within the first exchange, never wrong, bounded, and nothing read twice or lost.

mod kit;

use kit::{Chance, LIMITS, Part, Pieces, ask, captures, say};
use netra_codecs::codec::{Exchange, Head, Open, Way};
use netra_codecs::tap::{Detector, Finding, Message, Protocol, Step, Tap, Witness};

/// What was told of exchanges: each has a number, from 1 on.
#[derive(Default)]
struct Told {
    opened: Vec<Protocol>,
    answered: usize,
    finished: Vec<(u32, &'static str)>,
    dropped: Vec<u32>,
}

impl Witness<u32> for Told {
    fn opened(&mut self, protocol: Protocol, _: &Message<'_>, exchange: &mut Open<u32>) {
        self.opened.push(protocol);
        exchange.data = u32::try_from(self.opened.len()).unwrap();
    }

    fn answered(&mut self, data: &mut u32) {
        assert!(*data > 0);
        self.answered += 1;
    }

    fn finished(&mut self, protocol: Protocol, done: Exchange<u32>, _: &[u8], _: u64) {
        assert_eq!(self.opened[done.data as usize - 1], protocol);
        self.finished.push((done.data, done.outcome.name()));
    }

    fn dropped(&mut self, data: u32) {
        self.dropped.extend(Some(data).filter(|data| *data > 0));
    }
}

/// A connection that is watched, and tapped once it is known.
struct Watch {
    detector: Detector<u32>,
    told: Told,
    finding: Finding,
    /// Answers that came before those that told.
    answered_before: usize,
    tap: Option<Tap<u32>>,
}

impl Watch {
    fn new() -> Self {
        Self {
            detector: Detector::new(),
            told: Told::default(),
            finding: Finding::Watching,
            answered_before: 0,
            tap: None,
        }
    }

    fn show(&mut self, way: Way, bytes: &[u8]) {
        if self.finding == Finding::Watching {
            self.answered_before = self.told.answered;
            self.finding = self.detector.show(way, bytes, &LIMITS, 1, &mut self.told);
            self.tap = self.detector.take_tap();
            return;
        }
        let Some(tap) = &mut self.tap else { return };
        let (mut rest, mut head) = (bytes, Head::default());
        loop {
            rest = match tap.step(way, rest, &LIMITS, 1, &mut head) {
                Step::Need | Step::Tunnel(_) => return,
                Step::Body(count) | Step::Late(count) => &rest[count..],
                Step::Opened { consumed, message, exchange } => {
                    self.told.opened(Protocol::Redis, &message, exchange);
                    &rest[consumed..]
                }
                Step::Answered { consumed, .. } | Step::Aside { consumed, .. } => &rest[consumed..],
                Step::Finished { consumed, exchange, .. } => {
                    self.told.finished.push((exchange.data, exchange.outcome.name()));
                    &rest[consumed..]
                }
            };
        }
    }

    fn show_in(&mut self, part: &Part, pieces: Pieces) {
        match pieces {
            Pieces::Whole => self.show(part.way, &part.bytes),
            Pieces::Of(size) => {
                part.bytes.chunks(size).for_each(|piece| self.show(part.way, piece));
            }
            Pieces::Passing => {
                let mut rest = &part.bytes[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(rest.len().min(7));
                    self.show(part.way, piece);
                    let passable = match &self.tap {
                        Some(tap) => tap.passable(part.way),
                        None => self.detector.passable(part.way),
                    };
                    let count = usize::try_from(passable).unwrap_or(usize::MAX).min(after.len());
                    match &mut self.tap {
                        Some(tap) => tap.passed(part.way, count as u64),
                        None => self.detector.passed(part.way, count as u64),
                    }
                    self.show(part.way, b"");
                    rest = &after[count..];
                }
            }
        }
    }

    /// Ends it; every exchange was handed out once.
    fn end(mut self) -> (Finding, Told) {
        self.detector.end(&mut self.told);
        let mut left: Vec<u32> = Vec::new();
        if let Some(tap) = &mut self.tap {
            left.extend(tap.drain().map(|(exchange, _)| exchange.data));
        }
        let told = &self.told;
        let mut seen: Vec<u32> = told.finished.iter().map(|(data, _)| *data).collect();
        seen.extend(told.dropped.iter().chain(&left));
        seen.sort_unstable();
        let all = u32::try_from(told.opened.len()).unwrap();
        assert!(seen.iter().copied().eq(1..=all), "{seen:?} of {all}");
        (self.finding, self.told)
    }
}

fn watch(parts: &[Part], pieces: Pieces) -> (Finding, Told) {
    let mut watch = Watch::new();
    parts.iter().for_each(|part| watch.show_in(part, pieces));
    watch.end()
}

const ALL_PIECES: [Pieces; 4] = [Pieces::Whole, Pieces::Of(1), Pieces::Of(5), Pieces::Passing];

/// Every exchange of a capture whose tap is found is told as if the port had been named.
#[test]
fn every_capture_is_known_and_nothing_of_it_is_lost() {
    for capture in captures() {
        let whole = kit::tell(capture.protocol, &capture.parts, Pieces::Whole);
        let done = whole.iter().filter(|line| line.starts_with("done")).count();
        for pieces in ALL_PIECES {
            let (finding, told) = watch(&capture.parts, pieces);
            assert_eq!(finding, Finding::Protocol(capture.protocol), "{} {pieces:?}", capture.name);
            assert_eq!(told.finished.len(), done, "{} {pieces:?}", capture.name);
            let numbers = told.finished.iter().map(|(data, _)| *data);
            let is_in_order = numbers.clone().is_sorted();
            assert!(is_in_order || capture.protocol != Protocol::Redis, "{}", capture.name);
        }
    }
}

/// From any request on that opens an exchange the label comes with that exchange's answer.
#[test]
fn the_first_exchange_says_it() {
    let (mut within, mut all, mut late) = (0, 0, Vec::new());
    for capture in captures() {
        let begins = (0..capture.parts.len()).filter(|at| capture.parts[*at].way == Way::Request);
        for begin in begins {
            let mut watch = Watch::new();
            let parts = &capture.parts[begin..];
            parts.iter().for_each(|part| watch.show_in(part, Pieces::Whole));
            if watch.told.finished.iter().all(|(_, outcome)| *outcome == "sent") {
                continue;
            }
            all += 1;
            let is_known = watch.finding == Finding::Protocol(capture.protocol);
            if is_known && watch.answered_before == 0 {
                within += 1;
            } else {
                late.push(capture.name);
            }
        }
    }
    // Of a line of words one answer says too little; memcached's own suite is full of them.
    let (few, others): (Vec<&str>, _) = late.iter().partition(|name| name.starts_with("memcached"));
    assert!(all > 500 && within * 100 >= all * 98, "{within} of {all}: {late:?}");
    assert!(few.len() <= 10 && others.len() <= 1, "{late:?}");
}

/// The beginning of a conversation, or of one that makes no sense, of protocols without a codec.
fn others() -> Vec<(&'static str, Vec<Part>)> {
    let part = |line: &str| match line.split_once(' ') {
        Some((">", bytes)) => ask(kit::unescape(bytes)),
        Some(("<", bytes)) => say(kit::unescape(bytes)),
        _ => panic!("{line}"),
    };
    let talks = include_str!("data/others.txt").split("# ").skip(1);
    let talk = |text: &'static str| {
        let mut lines = text.lines();
        (lines.next().unwrap(), lines.map(part).collect())
    };
    talks.map(talk).collect()
}

fn first_word(name: &str) -> &str {
    name.split([' ', ',']).next().unwrap_or(name)
}

#[test]
fn no_other_protocol_gets_a_label() {
    assert!(others().len() > 30);
    for (name, parts) in others() {
        for pieces in ALL_PIECES {
            let (finding, told) = watch(&parts, pieces);
            // What has got a codec since is that protocol, or nothing.
            let is_itself = |found: Protocol| found.about().name.starts_with(first_word(name));
            if matches!(finding, Finding::Protocol(found) if is_itself(found)) {
                continue;
            }
            assert!(matches!(finding, Finding::Unknown | Finding::Watching), "{name}: {finding:?}");
            assert!(told.finished.is_empty(), "{name}");
        }
    }
}

#[test]
fn random_bytes_get_no_label() {
    let mut chance = Chance(11);
    for round in 0..20_000 {
        let mut watch = Watch::new();
        for _ in 0..chance.below(8) {
            let len = 1 + chance.below(60);
            let mut bytes: Vec<u8> = (0..len).map(|_| chance.next().to_be_bytes()[0]).collect();
            // Half of them begin as some protocol does.
            let begins = [
                &b"*1\r\n$"[..],
                b"\xda\xbb",
                b"\x80\x01\0\x01",
                b"\0\0\0\x20\0\0",
                b"\x82\x21",
                b"GET ",
            ];
            if let Some(begin) = begins.get(chance.below(12)) {
                bytes.splice(..0, begin.iter().copied());
            }
            watch.show_in(&Part { way: Way::BOTH[chance.below(2)], bytes }, Pieces::Whole);
        }
        let (finding, _) = watch.end();
        assert!(!matches!(finding, Finding::Protocol(_) | Finding::Http1), "{round}: {finding:?}");
    }
}

/// What is damaged is known as what it was, or not at all.
#[test]
fn damage_makes_no_other_protocol() {
    let mut chance = Chance(12);
    for capture in captures() {
        for _ in 0..300 {
            let mut parts = capture.parts.clone();
            for _ in 0..=chance.below(4) {
                let part = chance.below(parts.len());
                let bytes = &mut parts[part].bytes;
                if !bytes.is_empty() {
                    let at = chance.below(bytes.len());
                    bytes[at] ^= 1 << chance.below(8);
                }
            }
            let (finding, _) = watch(&parts, Pieces::Whole);
            let is_right = finding == Finding::Protocol(capture.protocol);
            assert!(is_right || !matches!(finding, Finding::Protocol(_) | Finding::Http1));
        }
    }
}

#[test]
fn http_is_recognised_and_nothing_else_is_made_of_it() {
    for (request, response, finding) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", Finding::Http1),
        ("GET /?q=\u{e4} HTTP/1.0\r\n\r\n", "HTTP/1.0 404 Not Found\r\n\r\n", Finding::Http1),
        ("M-SEARCH * HTTP/1.1\r\n\r\n", "HTTP/1.1 500 no\r\n\r\n", Finding::Http1),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/2 200\r\n\r\n", Finding::Unknown),
        ("GET / HTTP/1.2\r\n\r\n", "HTTP/1.1 200\r\n\r\n", Finding::Unknown),
        ("GET / HTTP/1.1\r\n\r\n", "$3\r\nabc\r\n", Finding::Unknown),
        ("GET /\r\n", "<html>", Finding::Unknown),
        ("GET / HTTP/1.1", "HTTP/1.1 408 late\r\n\r\n", Finding::Unknown),
        ("AVERYLONGMETHODTHATISNONE / HTTP/1.1\r\n", "HTTP/1.1 200\r\n", Finding::Unknown),
    ] {
        for pieces in ALL_PIECES {
            let (found, told) = watch(&[ask(request), say(response)], pieces);
            assert_eq!(found, finding, "{request} {pieces:?}");
            assert!(told.finished.is_empty());
        }
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(5000));
    assert_eq!(watch(&[ask(long), say("HTTP/1.1 200 OK\r\n")], Pieces::Whole).0, Finding::Unknown);
}

/// People and health checks type words; so do those who speak something else.
#[test]
fn words_on_a_line_have_to_be_answered_twice() {
    let once = [ask("PING\r\n"), say("+PONG\r\n")];
    let twice = [once.clone(), once.clone()].concat();
    for pieces in ALL_PIECES {
        assert_eq!(watch(&once, pieces).0, Finding::Watching, "{pieces:?}");
        let (finding, told) = watch(&twice, pieces);
        assert_eq!(finding, Finding::Protocol(Protocol::Redis), "{pieces:?}");
        assert_eq!(told.finished, [(1, "ok"), (2, "ok")]);
    }
}

/// Calls that are told and not answered say nothing by themselves, and are counted with the first
/// that is.
#[test]
fn what_nobody_answers_waits_for_what_somebody_does() {
    let told = ask(b"\x80\x01\0\x04\0\0\0\x04tell\0\0\0\x01\0");
    let called = ask(b"\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x02\0");
    let answered = say(b"\x80\x01\0\x02\0\0\0\x04ping\0\0\0\x02\0");
    for pieces in ALL_PIECES {
        let parts = [told.clone(), called.clone(), answered.clone()];
        let (finding, seen) = watch(&parts, pieces);
        assert_eq!(finding, Finding::Protocol(Protocol::Thrift));
        assert_eq!(seen.finished, [(1, "sent"), (2, "ok")]);
        let parts = [told.clone(), told.clone(), called.clone(), answered.clone()];
        let (finding, seen) = watch(&parts, pieces);
        assert_eq!((finding, seen.dropped.len()), (Finding::Unknown, 2), "{pieces:?}");
    }
}

/// A long value, and a pipeline, are one exchange, and many, whose answer says what they are.
#[test]
fn long_messages_and_pipelines_are_waited_for() {
    let long = "x".repeat(300_000);
    let set = ask(format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$300000\r\n{long}\r\n"));
    for pieces in [Pieces::Whole, Pieces::Of(1000), Pieces::Passing] {
        let (finding, _) = watch(&[set.clone(), say("+OK\r\n")], pieces);
        assert_eq!(finding, Finding::Protocol(Protocol::Redis), "{pieces:?}");
    }
    for (count, finding) in [(280, Finding::Protocol(Protocol::Redis)), (2000, Finding::Unknown)] {
        let asked = ask("*2\r\n$3\r\nGET\r\n$6\r\nkey:12\r\n".repeat(count));
        let said = say("$3\r\nabc\r\n".repeat(count));
        assert_eq!(watch(&[asked, said], Pieces::Whole).0, finding, "{count}");
    }
}

/// What says nothing is not looked at for long.
#[test]
fn silence_ends_the_watch() {
    for begin in [&b"*2\r\n$3000\r\n"[..], b"\r\n\r\n\r\n", b"\0\x52\0\x01\0\0", b"GET /"] {
        let mut watch = Watch::new();
        watch.show(Way::Request, begin);
        assert_eq!(watch.finding, Finding::Watching, "{begin:?}");
        for _ in 0..80 {
            watch.show(Way::Request, &[b'\n'; 100]);
        }
        assert_eq!(watch.finding, Finding::Unknown, "{begin:?}");
        assert_eq!((watch.detector.held(), watch.detector.passable(Way::Request)), (0, u64::MAX));
    }
}

/// A tap that is not begun would have given up at that byte.
#[test]
fn the_first_byte_rules_out_nothing_that_could_be() {
    for protocol in Protocol::ALL {
        for first in 0..=255 {
            let mut head = Head::default();
            let mut tap = Tap::<u32>::new(*protocol);
            let gives_up =
                matches!(tap.step(Way::Request, &[first], &LIMITS, 0, &mut head), Step::Tunnel(_));
            let mut detector = Detector::<u32>::new();
            let finding = detector.show(Way::Request, &[first], &LIMITS, 0, &mut Told::default());
            assert!(
                gives_up || finding == Finding::Watching || first == 0x16,
                "{protocol} {first}"
            );
        }
    }
}
