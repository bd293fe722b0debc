//! HTTP/2: frames and streams by table and at every cut, fields against other decoders, what is put
//! into requests, and what hostile peers get.

#[path = "h2/hpack.rs"]
mod hpack;
#[path = "h2/wire.rs"]
mod wire;

use netra_codecs::Limits;
use netra_codecs::codec::Way;
use wire::*;

/// A conversation: unary and streaming gRPC, padding, priority, trailers, resets, a push, an interim
/// response, and everything that says nothing.
fn conversation() -> Vec<(Way, Vec<u8>)> {
    let grpc = [("te", "trailers"), ("content-type", "application/grpc"), ("grpc-timeout", "1S")];
    let block = request("/shop.Cart/Add", &grpc);
    let (a, b) = block.split_at(9);
    let padded = [&[3][..], &[0, 0, 0, 0, 16], &request("/2", &[]), &[0; 3]].concat();
    let message = |len: u8| [&[0, 0, 0, 0, len][..], &vec![7; len.into()]].concat();
    let trailers = [literal(0, "grpc-status", "5"), literal(0x40, "grpc-message", "no")].concat();
    let pad_data = [&[2][..], b"xyz", &[0; 2]].concat();
    let goaway = [&3u32.to_be_bytes()[..], &0u32.to_be_bytes(), b"bye"].concat();
    vec![
        (Way::Request, begin()),
        (Way::Response, frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x80, 0, 0, 4, 0, 0, 1, 0])),
        (Way::Request, frame(SETTINGS, 1, 0, &[])),
        (Way::Request, frame(HEADERS, 0, 1, a)),
        (Way::Request, frame(CONTINUATION, END_HEADERS, 1, b)),
        (Way::Request, frame(DATA, 0, 1, &message(9))),
        (Way::Request, frame(HEADERS, END_HEADERS | END_STREAM | PADDED | PRIORITY, 3, &padded)),
        (Way::Request, frame(DATA, END_STREAM, 1, &[message(200), message(0)].concat())),
        (Way::Response, frame(HEADERS, END_HEADERS, 3, b"\x08\x03103")),
        (Way::Response, frame(PING, 0, 0, &[0; 8])),
        (Way::Response, frame(HEADERS, END_HEADERS, 1, &[0x88])),
        (Way::Response, frame(DATA, 0, 1, &message(4))),
        (Way::Response, frame(PUSH_PROMISE, END_HEADERS, 3, &[0, 0, 0, 2, 0x82, 0x84, 0x86])),
        (Way::Response, frame(HEADERS, END_HEADERS, 2, &[0x88])),
        (Way::Response, frame(HEADERS, END_HEADERS, 3, &[0x8d])),
        (Way::Response, frame(DATA, PADDED, 3, &pad_data)),
        (Way::Response, frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers)),
        (Way::Response, frame(0xbe, 0xff, 7, b"nobody knows")),
        (Way::Request, frame(HEADERS, END_HEADERS, 5, &request("/5", &[]))),
        (Way::Request, frame(RST_STREAM, 0, 5, &8u32.to_be_bytes())),
        (Way::Request, frame(HEADERS, END_HEADERS, 7, &request("/7", &[]))),
        (Way::Response, frame(GOAWAY, 0, 0, &goaway)),
        (Way::Response, frame(DATA, END_STREAM, 3, b"")),
    ]
}

fn told() -> Vec<String> {
    [
        "request Some(1) POST /shop.Cart/Add shop:50051 4",
        "request Some(3) POST /2 shop:50051 1",
        "response 1 200",
        "response 3 404",
        "end 1 200 Whole [(224, 3), (9, 1)] Some(\"5\")",
        "request Some(5) POST /5 shop:50051 1",
        "end 5 0 Reset { by: Request, code: 8 } [(0, 0), (0, 0)] None",
        "request Some(7) POST /7 shop:50051 1",
        "end 7 0 Refused { code: 0 } [(0, 0), (0, 0)] None",
        "end 3 404 Whole [(0, 0), (3, 0)] None",
    ]
    .map(String::from)
    .into()
}

fn played(cut: usize, mut sidecar: Sidecar) -> Sidecar {
    for (way, bytes) in conversation() {
        for piece in bytes.chunks(cut) {
            sidecar.show(way, piece);
        }
    }
    sidecar
}

fn bytes_of(wanted: Way) -> Vec<u8> {
    conversation().into_iter().filter(|it| it.0 == wanted).flat_map(|it| it.1).collect()
}

#[test]
fn a_conversation_reads_the_same_wherever_it_is_cut() {
    for cut in (1..40).chain([usize::MAX]) {
        for passes in [false, true] {
            let sidecar = played(cut, Sidecar { passes, ..Sidecar::new() });
            assert_eq!(sidecar.told, told(), "{cut}");
            assert_eq!(sidecar.sent, Way::BOTH.map(bytes_of), "nothing is changed: {cut}");
            assert_eq!(sidecar.http.open_count(), 0);
        }
    }
    // In one piece for each way, too.
    let mut sidecar = Sidecar::new();
    sidecar.ask(bytes_of(Way::Request));
    sidecar.say(bytes_of(Way::Response));
    assert_eq!(sidecar.sent, Way::BOTH.map(bytes_of));
    assert_eq!(sidecar.told.len(), told().len());
}

#[test]
fn fields_are_added_and_nothing_else_changes() {
    for cut in (1..40).chain([usize::MAX]) {
        let sidecar = played(cut, Sidecar::setting("Uber-Trace-Id", "1:2:3:4"));
        assert_eq!(sidecar.told, told(), "{cut}");
        assert_eq!(sidecar.sent[1], bytes_of(Way::Response));
        let mut expected = lists(&bytes_of(Way::Request));
        for list in &mut expected {
            list.push(("uber-trace-id".into(), "1:2:3:4".into()));
        }
        assert_eq!(lists(&sidecar.sent[0]), expected, "{cut}");
    }
}

#[test]
fn a_field_is_changed_where_it_is_in_no_table_and_kept_where_it_is() {
    for (first, kept) in [(0, 0), (0x10, 0), (0x40, 1)] {
        let mut sidecar = Sidecar::setting("traceparent", "new");
        let mut block = request("/", &[]);
        block.extend(literal(first, "traceparent", "old"));
        block.extend(literal(0x40, "last", "one"));
        sidecar.ask([begin(), frame(HEADERS, END_HEADERS, 1, &block)].concat());
        let list = lists(&sidecar.sent[0]).remove(0);
        let values: Vec<_> = list.iter().filter(|it| it.0 == "traceparent").collect();
        assert_eq!((values.len(), sidecar.kept), (1, kept), "never twice");
        assert_eq!(values[0].1, if kept == 0 { "new" } else { "old" });
        assert_eq!(list.iter().filter(|it| it.0 == "last").count(), 1);
    }
}

#[test]
fn what_a_server_takes_is_kept() {
    let settings =
        |id: u8, value: u32| frame(SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat());
    let long = "x".repeat(120);
    let fields: Vec<_> = (0..130).map(|_| ("n", &*long)).collect();
    let block = request("/", &fields);
    assert!((16_000..16_384).contains(&block.len()), "{}", block.len());
    let added = "y".repeat(500);
    // A frame that is full: the rest goes into another.
    let mut sidecar = Sidecar::setting("x-request-id", &added);
    let frames = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    sidecar.ask([begin(), frames.clone()].concat());
    let sent = &sidecar.sent[0][33..];
    assert_eq!((sent[3], sent[4]), (HEADERS, END_STREAM));
    assert_eq!(&sent[9 + block.len() + 3..][..6], &[CONTINUATION, END_HEADERS, 0, 0, 0, 1]);
    let list = lists(&sidecar.sent[0]).remove(0);
    assert_eq!(list.last().unwrap(), &("x-request-id".to_owned(), added.clone()));
    // One that takes larger frames.
    let mut sidecar = Sidecar::setting("x-request-id", &added);
    sidecar.say(settings(5, 1 << 20));
    sidecar.ask([begin(), frames.clone()].concat());
    assert_eq!(sidecar.sent[0][33 + 4], END_HEADERS | END_STREAM);
    // One that takes no longer list.
    let mut sidecar = Sidecar::setting("x-request-id", &added);
    sidecar.say(settings(6, 20_300));
    sidecar.ask([begin(), frames.clone()].concat());
    assert!(sidecar.told.contains(&"too long".into()), "{:?}", sidecar.told);
    assert_eq!(&sidecar.sent[0][33..], &frames[..]);
}

#[test]
fn what_is_not_certain_is_passed_as_it_came() {
    let headers = |stream| frame(HEADERS, END_HEADERS, stream, &request("/", &[]));
    for (bytes, reason) in [
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), "not_http"),
        ([&begin()[..24], &frame(PING, 0, 0, &[0; 8])].concat(), "http2_frame"),
        ([begin(), frame(CONTINUATION, END_HEADERS, 1, &[0x82])].concat(), "http2_frame"),
        (
            [begin(), frame(HEADERS, 0, 1, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat(),
            "http2_frame",
        ),
        (
            [begin(), frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            "http2_frame",
        ),
        ([begin(), headers(0)].concat(), "http2_frame"),
        ([begin(), frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0x82])].concat(), "http2_frame"),
        ([begin(), frame(DATA, PADDED, 1, &[9, 0x82])].concat(), "http2_frame"),
        ([begin(), frame(SETTINGS, 0, 0, &[1])].concat(), "http2_frame"),
        ([begin(), frame(RST_STREAM, 0, 1, &[1])].concat(), "http2_frame"),
        ([begin(), frame(GOAWAY, 0, 0, &[1; 7])].concat(), "http2_frame"),
        ([begin(), frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff])].concat(), "http2_fields"),
        ([begin(), headers(1), frame(HEADERS, END_HEADERS, 3, &[0xbf])].concat(), "http2_fields"),
        ([begin(), frame(HEADERS, END_HEADERS, 1, &vec![0; 70_000])].concat(), "head_too_long"),
    ] {
        let text = [&bytes[..], b"and what follows"].concat();
        for cut in [1, 7, 1000, usize::MAX] {
            let mut sidecar = Sidecar::new();
            for piece in text.chunks(cut.min(text.len())) {
                sidecar.ask(piece);
            }
            sidecar.say(frame(SETTINGS, 0, 0, &[]));
            let opaque = format!("opaque {reason}");
            assert!(sidecar.told.contains(&opaque), "{reason} {cut}: {:?}", sidecar.told);
            assert!(sidecar.sent[0] == text, "{reason} {cut}: bytes have changed");
            assert!(sidecar.http.storage() < 10_000);
        }
    }
    // A server that answers the preface in HTTP/1.
    let mut sidecar = Sidecar::new();
    sidecar.ask(begin());
    sidecar.say("HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(sidecar.told, ["opaque http2_frame"]);
    sidecar.ask("more");
    assert_eq!(sidecar.sent[0], [&begin()[..], b"more"].concat());
}

#[test]
fn blocks_without_end_are_given_up() {
    let mut sidecar = Sidecar::new();
    let mut text = [begin(), frame(HEADERS, 0, 1, &request("/", &[]))].concat();
    for _ in 0..10_000 {
        text.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    for piece in text.chunks(100) {
        sidecar.ask(piece);
    }
    assert_eq!(sidecar.told, ["opaque http2_continuations"]);
    assert!(sidecar.sent[0] == text && sidecar.held_most < 4096, "{}", sidecar.held_most);
}

#[test]
fn a_bomb_is_not_unpacked_and_the_table_stays_in_step() {
    let mut sidecar = Sidecar::setting("x", "y");
    let mut block = request("/", &[]);
    let large = "z".repeat(120);
    for _ in 0..20 {
        block.extend(literal(0x40, "bomb", &large));
    }
    // An entry of 124 bytes, fifteen thousand times.
    block.extend([0xbe; 15_000]);
    let bomb = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let after = frame(HEADERS, END_HEADERS, 3, &[&request("/3", &[])[..], &[0xbf, 0xc0]].concat());
    sidecar.ask([begin(), bomb.clone(), after].concat());
    // Of the bomb nothing is told; what comes behind is read as ever.
    assert_eq!(sidecar.told, ["request Some(3) POST /3 shop:50051 3"]);
    assert_eq!(sidecar.untold, 1);
    assert!(sidecar.sent[0][33..].starts_with(&bomb));
    assert!(sidecar.scratch.section.held() < 300_000, "{}", sidecar.scratch.section.held());
    assert!(sidecar.held_most < 16_000, "{}", sidecar.held_most);
}

/// The same of a path, which is kept elsewhere.
#[test]
fn a_path_comes_once() {
    let mut sidecar = Sidecar::new();
    let path = literal(0x40, ":path", &format!("/{}", "z".repeat(120)));
    let block = [&[0x83, 0x86][..], &path, &[0xbe; 15_000]].concat();
    sidecar.ask([begin(), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)].concat());
    assert_eq!((sidecar.untold, sidecar.told.len()), (1, 0));
    assert!(sidecar.scratch.section.held() < 10_000, "{}", sidecar.scratch.section.held());
}

#[test]
fn ten_thousand_streams_are_no_more_than_are_told_of() {
    let mut sidecar = Sidecar::new();
    sidecar.ask(begin());
    for n in 0..10_000u32 {
        sidecar.ask(frame(HEADERS, END_HEADERS, 2 * n + 1, &request("/", &[])));
    }
    assert_eq!(sidecar.http.open_count(), usize::from(Limits::DEFAULT.streams_max));
    assert_eq!(sidecar.untold, 10_000 - 1024);
    assert!(sidecar.held_most < 400_000, "{}", sidecar.held_most);
    // They end, and so does what they took.
    for n in 0..10_000u32 {
        sidecar.ask(frame(RST_STREAM, 0, 2 * n + 1, &[0; 4]));
    }
    assert_eq!(sidecar.http.open_count(), 0);
    assert!(sidecar.http.storage() < 8192, "{}", sidecar.http.storage());
}

#[test]
fn a_deadline_is_one_when_the_client_gives_up_then() {
    for (late, end) in [(874_999_999, "Reset"), (875_000_000, "Deadline")] {
        let mut sidecar = Sidecar::new();
        let fields = [("content-type", "application/grpc+proto"), ("grpc-timeout", "1S")];
        sidecar.ask([begin(), frame(HEADERS, END_HEADERS, 1, &request("/", &fields))].concat());
        sidecar.now_ns = late;
        sidecar.ask(frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()));
        assert!(sidecar.told[1].contains(end), "{:?}", sidecar.told);
    }
}

/// Whatever is damaged, and wherever it is cut: what nothing is put into goes on as it came, and the
/// tables of a way that is read stay those that another decoder has.
#[test]
fn damaged_conversations_pass_as_they_came() {
    let mut random = hpack::Random::new(7);
    let (mut read, mut opaque) = (0, 0);
    for round in 0..4000 {
        let mut parts = conversation();
        for _ in 0..random.below(3) {
            let part = random.below(parts.len());
            let bytes = &mut parts[part].1;
            let at = random.below(bytes.len().max(1));
            match random.below(3) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
                _ => bytes.insert(at, 0),
            }
        }
        let mut sidecar = Sidecar { passes: round % 2 == 0, ..Sidecar::new() };
        let mut came = [Vec::new(), Vec::new()];
        for (way, bytes) in &parts {
            came[*way as usize].extend_from_slice(bytes);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random.below(rest.len()));
                sidecar.show(*way, piece);
                rest = after;
            }
        }
        // What is still held of a frame that has not come whole goes on at the end.
        for way in Way::BOTH {
            let held = sidecar.http.held(way).to_vec();
            if sidecar.http.held_len(way) > 0 {
                sidecar.sent[way as usize].extend(held);
            }
        }
        assert!(sidecar.sent == came, "round {round}: bytes have changed");
        match sidecar.http.sealed() {
            None => read += 1,
            Some(_) => opaque += 1,
        }
    }
    assert!(read > 500 && opaque > 500, "{read} {opaque}");
}

/// What a connection keeps while nobody asks: at most 2 KB without tables, 12 KB with full ones, with
/// the half kilobyte that every HTTP connection has.
#[test]
fn an_idle_connection_keeps_little() {
    let kept = |sidecar: &Sidecar| sidecar.http.storage() + size_of_val(&sidecar.http) + 512;
    let ask = |sidecar: &mut Sidecar, stream: u32, field: &[u8]| {
        let block = [&[0x83, 0x86, 0x84][..], field].concat();
        sidecar.ask(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
        sidecar.say(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &[&[0x88][..], field].concat(),
        ));
    };
    let mut sidecar = Sidecar::new();
    sidecar.ask(begin());
    sidecar.say(frame(SETTINGS, 0, 0, &[]));
    for n in 0..100 {
        ask(&mut sidecar, 2 * n + 1, &literal(0, "a", "b"));
    }
    assert_eq!(sidecar.told.len(), 200);
    assert!(kept(&sidecar) <= 2048, "{}", kept(&sidecar));
    for n in 100..2000 {
        ask(
            &mut sidecar,
            2 * n + 1,
            &literal(0x40, &format!("n{n}"), &"v".repeat(n as usize % 60)),
        );
    }
    assert_eq!(sidecar.told.len(), 4000);
    assert!(kept(&sidecar) <= 12 * 1024, "{}", kept(&sidecar));
}
