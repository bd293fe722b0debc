//! All codecs against the kit.

mod kit;

use kit::{Chance, LIMITS, Part, Pieces, Taster, ask, captures, say, tell};
use netra_codecs::Limits;
use netra_codecs::codec::{Head, Kind, Outcome, Speaks, Way};
use netra_codecs::tap::{Protocol, Step, Tap};

/// `NETRA_WRITE_CAPTURES=folder` writes what is said now, to be reviewed.
#[test]
fn captures_say_what_was_reviewed() {
    let mut changed = Vec::new();
    for capture in captures() {
        let told = tell(capture.protocol, &capture.parts, Pieces::Whole);
        assert!(!told.iter().any(|line| line.starts_with("tunnel")), "{}", capture.write());
        if told != capture.told {
            changed.push(capture.name);
            if let Some(folder) = std::env::var_os("NETRA_WRITE_CAPTURES") {
                let file = std::path::Path::new(&folder).join(format!("{}.txt", capture.name));
                std::fs::write(file, capture.write()).unwrap();
            }
        }
    }
    assert!(changed.is_empty(), "{changed:?}");
}

#[test]
fn the_pieces_do_not_matter() {
    for capture in captures() {
        let whole = tell(capture.protocol, &capture.parts, Pieces::Whole);
        for pieces in [1, 2, 3, 5, 16, 61, 200].map(Pieces::Of) {
            let cut = tell(capture.protocol, &capture.parts, pieces);
            assert_eq!(cut, whole, "{} in pieces {pieces:?}", capture.name);
        }
        let passing = tell(capture.protocol, &capture.parts, Pieces::Passing);
        assert_eq!(passing, whole, "{} while bytes pass", capture.name);
    }
}

/// Each part cut in two at every place.
#[test]
fn every_split_point() {
    for capture in captures() {
        let whole = tell(capture.protocol, &capture.parts, Pieces::Whole);
        for (index, part) in capture.parts.iter().enumerate() {
            // The places in the middle of long strings are all alike.
            let places = (1..part.bytes.len())
                .filter(|at| *at < 300 || part.bytes.len() - at < 100 || at % 97 == 0);
            for at in places {
                let mut parts = capture.parts.clone();
                let rest = parts[index].bytes.split_off(at);
                parts.insert(index + 1, Part { way: part.way, bytes: rest });
                let cut = tell(capture.protocol, &parts, Pieces::Whole);
                assert_eq!(cut, whole, "{} part {index} cut at {at}", capture.name);
            }
        }
    }
}

/// All that one side sends at once, where it waits for nothing.
#[test]
fn parts_of_one_way_may_come_at_once() {
    for capture in captures() {
        let whole = tell(capture.protocol, &capture.parts, Pieces::Whole);
        let mut parts: Vec<Part> = Vec::new();
        for part in &capture.parts {
            match parts.last_mut() {
                Some(last) if last.way == part.way => last.bytes.extend(&part.bytes),
                _ => parts.push(part.clone()),
            }
        }
        assert_eq!(tell(capture.protocol, &parts, Pieces::Whole), whole, "{}", capture.name);
    }
}

/// The connection ends anywhere: what was told before is what is told of the whole one.
#[test]
fn a_truncated_end() {
    for capture in captures() {
        let whole = tell(capture.protocol, &capture.parts, Pieces::Whole);
        let len: usize = capture.parts.iter().map(|part| part.bytes.len()).sum();
        for end in (0..len).filter(|at| *at < 2000 || at % 37 == 0) {
            let mut taster = Taster::new(capture.protocol, LIMITS);
            let mut left = end;
            for part in &capture.parts {
                let count = left.min(part.bytes.len());
                left -= count;
                let bytes = part.bytes[..count].to_vec();
                taster.show(&Part { way: part.way, bytes });
            }
            let told = taster.told.len();
            assert_eq!(taster.told[..], whole[..told], "{} up to {end}", capture.name);
            taster.end();
            let tunnels = taster.told.iter().any(|line| line.starts_with("tunnel"));
            assert!(!tunnels, "{} up to {end}", capture.name);
        }
    }
}

/// Damage, of which the pieces change nothing either. What takes too long the test runner ends.
#[test]
fn random_damage() {
    let mut chance = Chance(0x5eed);
    for capture in captures() {
        for round in 0..300 {
            let mut parts = capture.parts.clone();
            for _ in 0..=chance.below(4) {
                damage(&mut parts, &mut chance);
            }
            let whole = tell(capture.protocol, &parts, Pieces::Whole);
            let pieces = if round % 2 == 0 { Pieces::Of(1) } else { Pieces::Of(11) };
            let cut = tell(capture.protocol, &parts, pieces);
            assert_eq!(cut, whole, "{} round {round}: {parts:?}", capture.name);
            let passing = tell(capture.protocol, &parts, Pieces::Passing);
            assert_eq!(passing, whole, "{} round {round}, passing", capture.name);
        }
    }
}

fn damage(parts: &mut Vec<Part>, chance: &mut Chance) {
    let index = chance.below(parts.len());
    let bytes = &mut parts[index].bytes;
    if bytes.is_empty() {
        return;
    }
    let at = chance.below(bytes.len());
    match chance.below(6) {
        0 => bytes[at] ^= 1 << chance.below(8),
        1 => bytes[at] = u8::try_from(chance.next() & 0xff).unwrap(),
        2 => drop(bytes.remove(at)),
        3 => bytes.insert(at, [0, 0xff, b'*', b'\r', 0x80][chance.below(5)]),
        4 => bytes.truncate(at),
        _ => drop(parts.remove(index)),
    }
}

/// Bytes of no protocol, from both sides.
#[test]
fn garbage_is_given_up_and_costs_nothing() {
    let mut chance = Chance(7);
    for protocol in Protocol::ALL {
        for _ in 0..500 {
            let mut taster = Taster::new(*protocol, LIMITS);
            for _ in 0..20 {
                let len = chance.below(3000);
                let bytes = (0..len).map(|_| chance.next().to_be_bytes()[0]).collect();
                let way = Way::BOTH[chance.below(2)];
                taster.show(&Part { way, bytes });
            }
            taster.end();
            let bound = 2 * LIMITS.message_head_bytes_max as usize + LIMITS.open_max as usize * 64;
            assert!(taster.held_most <= bound, "{protocol}: {}", taster.held_most);
        }
    }
}

#[test]
fn the_wrong_protocol_is_not_taken_for_this_one() {
    let http = [ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), say("HTTP/1.1 200 OK\r\n\r\n")];
    let http2 = [ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), say(b"\0\0\0\x04\0\0\0\0\0")];
    let tls = [ask(b"\x16\x03\x01\x00\xc8\x01\0\0"), say(b"\x16\x03\x03\0\x02")];
    let mysql = [say(b"\x4a\0\0\0\x0a8.0.33\0"), ask(b"\x05\0\0\x01\x85")];
    let smtp = [say("220 mail ESMTP\r\n"), ask("EHLO a\r\n")];
    let mut others: Vec<(&str, Protocol, Vec<Part>)> = Vec::new();
    for protocol in Protocol::ALL {
        for (name, parts) in
            [("http", http.clone()), ("http2", http2.clone()), ("tls", tls.clone())]
        {
            others.push((name, *protocol, parts.to_vec()));
        }
        others.push(("mysql", *protocol, mysql.to_vec()));
        others.push(("smtp", *protocol, smtp.to_vec()));
        for capture in captures().into_iter().filter(|capture| capture.protocol != *protocol) {
            others.push((capture.name, *protocol, capture.parts));
        }
    }
    for (name, protocol, parts) in others {
        for pieces in [Pieces::Whole, Pieces::Of(1)] {
            let told = tell(protocol, &parts, pieces);
            let tunnels = told.iter().any(|line| line.starts_with("tunnel"));
            assert!(tunnels, "{name} as {protocol}: {told:#?}");
            assert!(!told.iter().any(|line| line.starts_with("done")), "{name} as {protocol}");
        }
        if name == "tls" {
            let told = tell(protocol, &parts, Pieces::Whole);
            assert!(told.contains(&"tunnel tls".to_owned()), "{protocol}: {told:?}");
        }
    }
}

/// The server speaks before anybody asked.
#[test]
fn a_server_that_speaks_first_is_another_protocol() {
    for capture in captures() {
        let answers: Vec<_> =
            capture.parts.iter().filter(|part| part.way == Way::Response).cloned().collect();
        let told = tell(capture.protocol, &answers, Pieces::Whole);
        let is_first = told.first().is_some_and(|line| {
            let is_aside = line == "aside heartbeat" || line == "aside part";
            is_aside || line == "tunnel server_first"
        });
        if capture.protocol.about().speaks == Speaks::ServerFirst {
            // It greets, and then has to wait.
            assert_eq!(told[..2], ["aside push", "tunnel server_first"], "{}", capture.name);
        } else {
            assert!(is_first, "{}: {told:?}", capture.name);
        }
    }
}

#[test]
fn words_are_labels_and_differ() {
    let mut words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.name());
    let is_label = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert!(words.iter().copied().chain(outcomes.clone()).all(is_label));
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Kind::ALL.len());
    for (index, kind) in Kind::ALL.iter().enumerate() {
        assert_eq!(*kind as usize, index);
    }
    for (index, outcome) in Outcome::ALL.iter().enumerate() {
        assert_eq!(*outcome as usize, index);
    }
    for protocol in Protocol::ALL {
        assert_eq!(protocol.name().parse(), Ok(*protocol));
        assert!(protocol.about().operations.len() <= 256 && protocol.about().port > 0);
    }
    assert_eq!("gopher".parse::<Protocol>(), Err(()));
}

/// What the fuzzer begins with, and what it has found: scripts as `fuzz_targets/taps.rs` reads them.
#[test]
fn what_the_fuzzer_found() {
    let limits = Limits {
        open_max: 5,
        message_head_bytes_max: 200,
        message_bytes_max: 100_000,
        held_keep_bytes: 50,
        ..Limits::DEFAULT
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/taps");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let script = std::fs::read(&path).unwrap();
        let protocol = Protocol::ALL[usize::from(script[0]) % Protocol::ALL.len()];
        let (mut parts, mut rest) = (Vec::new(), &script[1..]);
        while let Some((control, after)) = rest.split_first() {
            let (bytes, after) = after.split_at(usize::from(control >> 1).min(after.len()));
            parts.push(Part { way: Way::BOTH[usize::from(control & 1)], bytes: bytes.to_vec() });
            rest = after;
        }
        let play = |pieces| {
            let mut taster = Taster::new(protocol, limits);
            parts.iter().for_each(|part| taster.show_in(part, pieces));
            taster.end();
            taster.told
        };
        let whole = play(Pieces::Whole);
        for pieces in [Pieces::Of(1), Pieces::Of(3), Pieces::Passing] {
            assert_eq!(play(pieces), whole, "{name} {pieces:?}");
        }
    }
}

/// An answer is withheld: its exchange is open again in its old place, and then the newest, or over after all.
#[test]
fn an_exchange_opens_again_and_is_over_once() {
    let (limits, mut head) = (Limits::default(), Head::default());
    let mut tap = Tap::<u8>::new(Protocol::Redis);
    for (number, request) in [(1, b"GET a\r\n"), (2, b"GET b\r\n")] {
        match tap.step(Way::Request, request, &limits, number, &mut head) {
            Step::Opened { exchange, .. } => exchange.data = u8::try_from(number).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    let refusal = b"-LOADING x\r\n";
    let mut refused =
        |tap: &mut Tap<u8>| match tap.step(Way::Response, refusal, &limits, 9, &mut head) {
            Step::Finished { exchange, .. } => exchange,
            other => panic!("{other:?}"),
        };
    let first = refused(&mut tap);
    let (answer, bytes, operation) = (first.answer(), first.request_bytes, first.operation);
    assert_eq!((first.data, answer.outcome), (1, Outcome::ProtocolError));
    tap.reopen(first);
    let found = tap.oldest().map(|open| (open.data, open.opened_ns, open.request_bytes));
    assert_eq!((found, tap.open_count()), (Some((1, 1, bytes)), 2));
    tap.renew(|data| *data == 1);
    assert_eq!(tap.newest(2).map(|open| open.data).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(refused(&mut tap).data, 2, "the other is the oldest now");
    let done = tap.finish_again(|data| *data == 1, answer).expect("it is open");
    assert_eq!((done.operation, done.outcome), (operation, Outcome::ProtocolError));
    assert_eq!((done.response_bytes, tap.open_count()), (refusal.len() as u64, 0));
    assert!(tap.finish_again(|data| *data == 1, answer).is_none());
}
