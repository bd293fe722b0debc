//! Quiet commands: answered only where there is something to say, and whose that is.

use super::kit::{LIMITS, Part, Taster, ask, say};
use super::{call, done, reply, told, tunnel};
use netra_codecs::Limits;
use netra_codecs::tap::Protocol;

#[test]
fn quiet_meta_commands() {
    // Hits and refusals come with their tokens, and `MN` says that there are no more.
    let pipeline = told(&[
        ask("mg a v q O1\r\nmg b v q O2\r\nms c 1 q O3\r\nx\r\nmd d q O4\r\nmn\r\n"),
        say("VA 1 O2\r\ny\r\nNS O3\r\nMN\r\n"),
        ask("mg a v O9\r\n"),
        say("VA 1 O9\r\nz\r\n"),
    ]);
    assert_eq!(
        done(&pipeline),
        [
            "1 quiet mg ok 13/12",
            "0 quiet mg sent 13/0",
            "2 quiet ms ok 16/7",
            "4 request mn ok 4/4",
            "3 quiet md sent 11/0",
            "5 request mg ok 11/12",
        ]
    );
    // A loud one behind quiet ones is known by its token, or because quiet ones say no such thing.
    let loud = told(&[
        ask("mg a v q k O1\r\nmg b v k O2\r\n"),
        say("VA 1 ka O1\r\nx\r\nVA 1 kb O2\r\ny\r\n"),
        ask("mg a v q O3\r\nmg b v\r\n"),
        say("EN\r\n"),
        ask("ms a 1 q O1\r\nx\r\nset b 0 0 1\r\nx\r\n"),
        say("NS O1\r\nSTORED\r\n"),
    ]);
    assert_eq!(
        done(&loud),
        [
            "0 quiet mg ok 15/15",
            "1 request mg ok 13/15",
            "3 request mg ok 8/4",
            "2 quiet mg sent 13/0",
            "4 quiet ms ok 16/7",
            "5 request set ok 16/8",
        ]
    );
    // What is wrong is of the quiet one, where the other can go wrong in no way.
    let wrong = told(&[
        ask("ms a 1 q\r\nx\r\nmn\r\n"),
        say("SERVER_ERROR out of memory storing object\r\nMN\r\n"),
        ask("mg a v\r\n"),
        say("EN\r\n"),
    ]);
    assert_eq!(
        done(&wrong),
        ["0 quiet ms app_error SERVER_ERROR 13/43", "1 request mn ok 4/4", "2 request mg ok 8/4",]
    );
    // Errors have no token: of which of several it is nobody can say, nor whether of one with `noreply`.
    for first in ["ms a 1 q\r\nx\r\n", "set a 0 0 1 noreply\r\nx\r\n"] {
        let several = told(&[
            ask(format!("{first}ms b 1 q\r\nx\r\nmn\r\n")),
            say("SERVER_ERROR out of memory storing object\r\nMN\r\n"),
        ]);
        assert_eq!(several.iter().filter(|line| *line == "aside push").count(), 1, "{several:?}");
        assert!(!several.join("\n").contains("app_error"), "{several:?}");
        assert_eq!(done(&several).len(), 3, "{several:?}");
    }
    let unclear = told(&[ask("ms a 1 q\r\nx\r\nmg b v\r\n"), say("SERVER_ERROR no\r\n")]);
    assert_eq!(tunnel(&unclear), Some("replies_unclear"));
    // Without any token nobody can say.
    let unclear = told(&[ask("mg a v q\r\nmg b v\r\n"), say("VA 1\r\nx\r\n")]);
    assert_eq!(tunnel(&unclear), Some("replies_unclear"));
    let other = told(&[ask("mg a v O1\r\n"), say("VA 1 O2\r\nx\r\n")]);
    assert_eq!(tunnel(&other), Some("answer_without_request"));
    let after = told(&[ask("ms a 1 q\r\nx\r\n"), say("NS\r\n"), ask("mn\r\n"), say("MN\r\n")]);
    assert_eq!(done(&after).len(), 2);
}

/// `GETKQ` says only hits, `SETQ` only errors; the opcode says that it is one of those.
#[test]
fn quiet_opcodes() {
    let parts: Vec<Part> = (0..200)
        .map(|number| call(0x0d, number, "key"))
        .chain([call(0x11, 200, "a"), call(0x0a, 201, "")])
        .chain((0..200).step_by(3).map(|number| reply(0x0d, 0, number, "v")))
        .chain([reply(0x11, 0x82, 200, "no"), reply(0x0a, 0, 201, "")])
        .collect();
    let told = told(&parts);
    let done = done(&told);
    assert_eq!(done.len(), 202);
    let ok = done.iter().filter(|line| line.contains(" quiet get ok 27/25")).count();
    let unsaid = done.iter().filter(|line| line.contains(" quiet get sent 27/0")).count();
    assert_eq!((ok, unsaid), (67, 133));
    assert!(done.contains(&"6 quiet get ok 27/25") && done.contains(&"7 quiet get sent 27/0"));
    let error = "200 quiet set app_error 130 out_of_memory 25/26";
    assert_eq!(done[199..], [error, "199 quiet get sent 27/0", "201 request noop ok 24/24"]);
    assert!(!told.contains(&"aside push".to_owned()));
}

/// Clients number their requests, or all are 0: then nobody knows whose an answer is that several may
/// have.
#[test]
fn quiet_opcodes_without_a_number_of_their_own() {
    let told = told(&[
        call(0x11, 0, "a"),
        call(0x0d, 0, "b"),
        call(0x0d, 0, "c"),
        reply(0x11, 0x82, 0, "no"),
        reply(0x0d, 0, 0, "v"),
        call(0x0a, 0, ""),
        reply(0x0a, 0, 0, ""),
    ]);
    assert_eq!(
        done(&told),
        [
            "0 quiet set app_error 130 out_of_memory 25/26",
            "3 request noop ok 24/24",
            "1 quiet get sent 25/0",
            "2 quiet get sent 25/0",
        ]
    );
    assert_eq!(told.iter().filter(|line| *line == "aside push").count(), 1, "{told:?}");
}

/// Whoever never asks for an answer gives nobody a sign that his commands are done: few are kept, and
/// none for long.
#[test]
fn quiet_commands_that_nothing_follows() {
    let count = 1000;
    let mut taster = Taster::new(Protocol::Memcached, LIMITS);
    (0..count).for_each(|number| taster.show(&call(0x11, number, "a")));
    assert!(taster.tap.open_count() <= 256, "{}", taster.tap.open_count());
    // One of those that are over is told of: it is nobody's.
    taster.show(&reply(0x11, 0x82, count - 1, "no"));
    taster.end();
    let sent = |word: &str| {
        let is_it =
            |line: &&String| line.starts_with(word) && line.ends_with("quiet set sent 25/0");
        taster.told.iter().filter(is_it).count()
    };
    assert_eq!(sent("done ") + sent("left "), count as usize);
    assert!(sent("left ") <= 256 && taster.told.contains(&"aside push".to_owned()));

    let mut taster = Taster::new(Protocol::Memcached, LIMITS);
    taster.show(&call(0x11, 1, "a"));
    taster.wait(1_100_000_000);
    taster.show(&call(0x11, 2, "a"));
    assert_eq!(done(&taster.told), ["0 quiet set sent 25/0"]);
    // Neither does it take the place of what is asked.
    let limits = Limits { open_max: 3, ..LIMITS };
    let mut taster = Taster::new(Protocol::Memcached, limits);
    (0..9).for_each(|number| taster.show(&call(0x11, number, "a")));
    taster.show(&call(0x0a, 9, ""));
    taster.show(&reply(0x0a, 0, 9, ""));
    taster.end();
    assert_eq!(tunnel(&taster.told), None);
    assert_eq!(done(&taster.told).len(), 10, "{:?}", taster.told);
}

/// An answer to a quiet command may be long, and pass unseen.
#[test]
fn a_long_answer_to_a_quiet_command() {
    let value = "v".repeat(5000);
    let told = told(&[
        call(0x0d, 1, "a"),
        call(0x0d, 2, "b"),
        call(0x0a, 3, ""),
        reply(0x0d, 0, 2, &value),
        reply(0x0a, 0, 3, ""),
    ]);
    assert_eq!(
        done(&told),
        ["1 quiet get ok 25/5024", "0 quiet get sent 25/0", "2 request noop ok 24/24"]
    );
}
