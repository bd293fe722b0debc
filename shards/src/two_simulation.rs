//! Conversations of HTTP/2 on the simulated kernel, seed by seed: frames out are frames in with fields
//! added at the end of requests, every stream has its span, and a drain tells clients to go before
//! it closes what is quiet.

use crate::{
    http_simulation::{Stage, http_config, stage},
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    route_simulation::{QUICK, limits, routing},
    shard::{Command, DrainReport},
    simulation::{TURNS_MAX, come_to_rest, with_seed},
};
use netra_codecs::h1::Reason;
use netra_codecs::h2::{GOAWAY, PREFACE};
use netra_codecs::route::Refusal;
use netra_codecs::trace::{Outcome, SpanText};
use netra_perf::{Key, Recorder};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head[..], payload].concat()
}

fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [&[first][..], &text(name), &text(value)].concat()
}

/// What one side says, and how much of it has been said when each of its messages is whole.
#[derive(Default)]
struct Script {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// One connection: both scripts, and the statuses of its streams.
struct Conversation {
    client: Script,
    server: Script,
    statuses: Vec<u16>,
}

/// Frames that say nothing that is told of.
fn noise(rng: &mut Rng) -> Vec<u8> {
    match rng.below(6) {
        0 => frame(PING, 0, 0, &[7; 8]),
        1 => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
        2 => frame(0xbe, 0, 0, b"nobody knows"),
        _ => Vec::new(),
    }
}

/// A body in frames, each of whose bytes is the tag of its stream; the last frame ends the stream if
/// nothing comes behind it.
fn body(rng: &mut Rng, stream: u32, flags: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let count = rng.below(4);
    for index in 0..=count {
        let most = if rng.chance(20) { 16_384 } else { 300 };
        let len = rng.len(most);
        let flags = if index == count { flags } else { 0 };
        let tag = u8::try_from(stream % 256).unwrap();
        out.extend(frame(DATA, flags, stream, &vec![tag; len]));
        out.extend(if index == count { Vec::new() } else { noise(rng) });
    }
    out
}

/// A block of fields in one frame, or in several.
fn block(rng: &mut Rng, stream: u32, flags: u8, fields: &[u8]) -> Vec<u8> {
    if rng.chance(70) {
        return frame(HEADERS, flags | END_HEADERS, stream, fields);
    }
    let (one, two) = fields.split_at(rng.len(fields.len()) - 1);
    [frame(HEADERS, flags, stream, one), frame(CONTINUATION, END_HEADERS, stream, two)].concat()
}

fn conversation(rng: &mut Rng, connection: usize) -> Conversation {
    let [mut client, mut server] = [Script::default(), Script::default()];
    client.bytes = [&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat();
    server.bytes = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
    // What is said before anything was asked.
    server.ends.push(server.bytes.len());
    let mut statuses = Vec::new();
    for index in 1..=rng.len(6) {
        let stream = u32::try_from(2 * index - 1).unwrap();
        // The authority goes into the table, and later requests take it from there.
        let shop = if index == 1 { b"\x41\x04shop".to_vec() } else { vec![0xbe] };
        let path = literal(0, ":path", &format!("/{connection}/{index}"));
        let id = literal(0, "x-request-id", &format!("id-{connection}-{index}"));
        let id = if rng.chance(50) { id } else { Vec::new() };
        let has_body = rng.chance(50);
        let flags = if has_body { 0 } else { END_STREAM };
        let fields = [&[0x83, 0x86][..], &path, &shop, &id].concat();
        client.bytes.extend(block(rng, stream, flags, &fields));
        client.bytes.extend(if has_body { body(rng, stream, END_STREAM) } else { noise(rng) });
        client.ends.push(client.bytes.len());
        let status = [200, 204, 404, 500][usize::try_from(rng.below(4)).unwrap()];
        statuses.push(status);
        let head = literal(0x08, "", &status.to_string());
        let head = [&head[..1], &head[2..]].concat();
        let is_bare = rng.chance(30);
        let has_trailers = !is_bare && rng.chance(50);
        let flags = if is_bare { END_STREAM } else { 0 };
        server.bytes.extend(block(rng, stream, flags, &head));
        if !is_bare {
            let flags = if has_trailers { 0 } else { END_STREAM };
            server.bytes.extend(body(rng, stream, flags));
        }
        if has_trailers {
            let fields = literal(0x40, "grpc-status", "0");
            server.bytes.extend(block(rng, stream, END_STREAM, &fields));
        }
        server.bytes.extend(noise(rng));
        server.ends.push(server.bytes.len());
    }
    Conversation { client, server, statuses }
}

/// The frames that have come whole; `skip` bytes are in front of them.
fn frames(bytes: &[u8], skip: usize) -> Vec<&[u8]> {
    let mut rest = bytes.get(skip..).unwrap_or(&[]);
    let mut frames = Vec::new();
    while let Some([a, b, c, ..]) = rest.first_chunk::<9>() {
        let len = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((frame, after)) = rest.split_at_checked(len) else { break };
        frames.push(frame);
        rest = after;
    }
    frames
}

/// How many streams the sender of these bytes has ended.
fn ended(bytes: &[u8], skip: usize) -> usize {
    let (mut count, mut is_last) = (0, false);
    for frame in frames(bytes, skip) {
        let (kind, flags) = (frame[3], frame[4]);
        let is_whole = match kind {
            DATA => true,
            HEADERS | CONTINUATION => flags & END_HEADERS != 0,
            _ => false,
        };
        if kind != CONTINUATION {
            is_last = flags & END_STREAM != 0;
        }
        count += usize::from(is_whole && is_last);
    }
    count
}

fn client(rng: &mut Rng, it: &Conversation, ending: Ending) -> Peer {
    let waits = rng.chance(50);
    let ends = it.client.ends.clone();
    let turns = Turns::new(move |received| {
        let answered = if waits { ended(received, 0) } else { ends.len() };
        ends[answered.min(ends.len() - 1)]
    });
    Peer::scripted(rng, it.client.bytes.clone(), ending, turns)
}

/// Answers each request when it has come whole; with `speaks_first` says its settings before.
fn server(rng: &mut Rng, it: &Conversation, ending: Ending) -> Peer {
    let speaks_first = rng.chance(50);
    let ends = it.server.ends.clone();
    let turns = Turns::new(move |received| match ended(received, PREFACE.len()) {
        0 if received.len() < PREFACE.len() && !speaks_first => 0,
        asked => ends[asked],
    });
    Peer::scripted(rng, it.server.bytes.clone(), ending, turns)
}

/// Blocks of fields by stream, and all other frames as they are.
fn read(bytes: &[u8], skip: usize) -> Vec<(u8, u8, Vec<u8>)> {
    let mut read: Vec<(u8, u8, Vec<u8>)> = Vec::new();
    for frame in frames(bytes, skip) {
        match (frame[3], read.last_mut()) {
            (CONTINUATION, Some(block)) => block.2.extend_from_slice(&frame[9..]),
            (HEADERS, _) => {
                let payload = [&frame[5..9], &frame[9..]].concat();
                read.push((HEADERS, frame[4] & END_STREAM, payload));
            }
            _ => read.push((frame[3], frame[4], frame[5..].to_vec())),
        }
    }
    read
}

/// Literal fields that no table takes in.
fn added(mut rest: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((0, after)) = rest.split_first() {
        let (name, after) = after[1..].split_at(after[0].into());
        names.push(String::from_utf8(name.to_vec()).unwrap());
        rest = &after[1 + usize::from(after[0])..];
    }
    assert!(rest.is_empty(), "{rest:x?}");
    names
}

/// What has become of the frames of a client at its server.
fn check_requests(seed: u64, sent: &[u8], received: &[u8], whole: bool) {
    let (sent, received) = (read(sent, PREFACE.len()), read(received, PREFACE.len()));
    assert!(received.len() <= sent.len(), "{seed}: more than was sent");
    assert!(!whole || received.len() == sent.len(), "{seed}: frames lost");
    for (index, (one, other)) in sent.iter().zip(&received).enumerate() {
        let is_last = index + 1 == received.len();
        if one.0 != HEADERS || (is_last && !whole) {
            assert!(one.0 == HEADERS || one == other, "{seed}: frame {index} was changed");
            continue;
        }
        assert_eq!(one.1, other.1, "{seed}: flags of frame {index}");
        let Some(more) = other.2.strip_prefix(&one.2[..]) else {
            panic!("{seed}: fields {index} were changed");
        };
        let has_id = one.2.windows(12).any(|it| it == b"x-request-id");
        let mut names = added(more);
        names.sort();
        let expected = &["uber-trace-id", "x-request-id"][..if has_id { 1 } else { 2 }];
        assert_eq!(names, expected, "{seed}: fields added to {index}");
    }
}

/// Without the goodbye that a drain puts in between two frames; whether there was one.
fn without_goodbye(received: &[u8]) -> (Vec<u8>, bool) {
    let mut at = 0;
    for frame in frames(received, 0) {
        if frame == GOAWAY {
            return ([&received[..at], &received[at + GOAWAY.len()..]].concat(), true);
        }
        at += frame.len();
    }
    (received.to_vec(), false)
}

/// Peers for each conversation, of which some reset.
fn arrivals(rng: &mut Rng, conversations: &[Conversation]) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for (index, it) in conversations.iter().enumerate() {
        let mut ending = |otherwise: Ending, len: usize| match rng.below(10) {
            0 => Ending::Reset(rng.len(len) - 1),
            _ => otherwise,
        };
        let ends = [
            ending(Ending::AfterSending, it.client.bytes.len()),
            ending(Ending::AfterTheOther, it.server.bytes.len()),
        ];
        let (client, server) = (client(rng, it, ends[0]), server(rng, it, ends[1]));
        let answer = if rng.chance(50) { Answer::AtOnce } else { Answer::After(rng.below(5_000)) };
        arrivals.push(Arrival { at: index as u64 * 1_000_000, client, server, answer });
    }
    arrivals
}

/// Drains after so many turns.
fn drain(seed: u64, stage: &mut Stage, turns: u64) {
    let shard = &mut stage.shard;
    for _ in 0..turns {
        if !shard.core.io.idle {
            let wait = shard.park();
            shard.turn(wait).unwrap();
        }
    }
    stage.commands.send(Command::Drain(Duration::from_millis(100))).unwrap();
    shard.core.io.wake();
    let mut turns = 0;
    while !shard.is_over() {
        let wait = shard.park();
        shard.turn(wait).unwrap();
        turns += 1;
        assert!(turns < TURNS_MAX, "{seed}: the drain never ends");
    }
}

/// Status and outcome of each path that has a span.
fn told(seed: u64, stage: &mut Stage) -> BTreeMap<String, (u16, Outcome)> {
    let mut told = BTreeMap::new();
    while stage.spans.drain(64, |span| {
        let target = String::from_utf8(span.text(SpanText::Target).unwrap().to_vec()).unwrap();
        let twice = told.insert(target.clone(), (span.status, span.outcome));
        assert_eq!(twice, None, "{seed}: two spans for {target}");
    }) > 0
    {}
    told
}

fn simulate(seed: u64) -> Arc<Recorder> {
    let mut rng = Rng::new(seed);
    let faults = Faults::draw(&mut rng);
    let conversations: Vec<_> = (0..rng.len(6)).map(|it| conversation(&mut rng, it)).collect();
    let arrivals = arrivals(&mut rng, &conversations);
    let drain_at = rng.chance(30).then(|| rng.below(300));
    let mut stage = stage(rng, faults, arrivals);
    match drain_at {
        Some(turns) => drain(seed, &mut stage, turns),
        None => come_to_rest(seed, &mut stage.shard),
    }
    let told = told(seed, &mut stage);
    let shard = &stage.shard;
    assert_eq!(shard.core.observer.open_spans(), 0, "{seed}: spans lost");
    assert_eq!(shard.core.http.as_deref().unwrap().held_bytes(), 0, "{seed}: held miscounted");
    let recorder = Arc::clone(&shard.core.recorder);
    for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::EndedInHead) {
        let count = recorder.get(Key::opaque(*reason as usize));
        assert_eq!(count, 0, "{seed}: what is certain turned opaque: {reason:?}");
    }
    let io = &shard.core.io;
    for (index, it) in conversations.iter().enumerate() {
        let Some(&downstream) = io.arrived.get(index) else { continue };
        let client = &io.sockets[downstream].peer;
        let Some(server) = io.upstream_of(downstream).map(|fd| &io.sockets[fd].peer) else {
            continue;
        };
        let (received, _) = without_goodbye(&client.received);
        assert!(server.sends().starts_with(&received), "{seed}: frames of the server changed");
        let broken = client.resets() || server.resets() || client.saw_reset || server.saw_reset;
        let whole = !broken && drain_at.is_none();
        check_requests(seed, client.sends(), &server.received, whole);
        if whole {
            assert_eq!(received.len(), server.sends().len(), "{seed}: frames of the server lost");
            for (stream, status) in it.statuses.iter().enumerate() {
                let told = told.get(&format!("/{index}/{}", stream + 1));
                assert_eq!(told, Some(&(*status, Outcome::Whole)), "{seed}: {index}/{stream}");
            }
        }
    }
    recorder
}

#[test]
fn every_seed_keeps_frames_and_has_its_spans() {
    let recorders = with_seed(simulate);
    if recorders.len() < 256 {
        return;
    }
    let keys = [Key::SPLICE_BYTES, Key::BUFFER_STARVED, Key::http2(0), Key::http2(3)];
    for key in keys {
        assert!(recorders.iter().any(|r| r.get(key) > 0), "no seed reaches {key:?}");
    }
}

/// A drain of one connection: what its client has received, and the report.
fn drained(client: Ending, answers: bool) -> (Vec<u8>, Vec<u8>, DrainReport) {
    let mut rng = Rng::new(11);
    let it = conversation(&mut rng, 0);
    let asking = self::client(&mut rng, &it, client);
    let mut serving = server(&mut rng, &it, Ending::AfterTheOther);
    if !answers {
        // The last stream is never answered.
        let len = it.server.ends[it.server.ends.len() - 2];
        let turns = Turns::new(move |_| len);
        serving = Peer::scripted(&mut rng, it.server.bytes.clone(), Ending::AfterTheOther, turns);
    }
    let arrival = Arrival { at: 0, client: asking, server: serving, answer: Answer::AtOnce };
    let Stage { mut shard, commands, .. } = stage(rng, Faults::NONE, vec![arrival]);
    for _ in 0..2_000 {
        if !shard.core.io.idle {
            let wait = shard.park();
            shard.turn(wait).unwrap();
        }
    }
    commands.send(Command::Drain(Duration::from_secs(10))).unwrap();
    shard.core.io.wake();
    let begun = shard.core.now;
    while !shard.is_over() {
        let wait = shard.park();
        shard.turn(wait).unwrap();
        assert!(shard.core.now < begun + 20_000_000_000, "the drain never ends");
    }
    let downstream = shard.core.io.arrived[0];
    let received = shard.core.io.sockets[downstream].peer.received.clone();
    (received, it.server.bytes, shard.into_report())
}

#[test]
fn a_quiet_connection_is_told_goodbye_and_closed() {
    let (received, sent, report) = drained(Ending::Never, true);
    assert_eq!(without_goodbye(&received), (sent.clone(), true));
    assert!(received.ends_with(GOAWAY), "it was quiet before");
    assert_eq!((report.cut_total, report.finished), (0, 1));
}

#[test]
fn a_busy_one_is_told_in_time_and_cut_at_the_deadline() {
    let (received, sent, report) = drained(Ending::Never, false);
    let (rest, is_told) = without_goodbye(&received);
    assert!(is_told && sent.starts_with(&rest) && rest.len() < sent.len());
    assert_eq!(report.cut_total, 1);
}

/// A client whose first two requests lead to [`QUICK`], and the third nowhere.
fn routed() -> Conversation {
    let route = literal(0, "x-route", &format!("shop=10.0.0.8:{QUICK}"));
    let mut client = Script { bytes: PREFACE.to_vec(), ends: Vec::new() };
    client.bytes.extend(frame(SETTINGS, 0, 0, &[]));
    client.bytes.extend(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]));
    let mut server = Script::default();
    server.bytes.extend(frame(SETTINGS, 0, 0, &[]));
    server.ends.push(server.bytes.len());
    for (stream, route) in [(1, &route[..]), (3, &route), (5, &[])] {
        let fields = [&[0x83, 0x86, 0x84][..], &literal(0, ":authority", "shop"), route].concat();
        client.bytes.extend(frame(HEADERS, END_HEADERS, stream, &fields));
        client.bytes.extend(frame(DATA, END_STREAM, stream, &[7; 100]));
        client.ends.push(client.bytes.len());
        server.bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88]));
        server.ends.push(server.bytes.len());
    }
    Conversation { client, server, statuses: vec![200; 3] }
}

/// A connection with routes, whose original server says this at once: what its client and the server
/// elsewhere have received, requests that were routed, and those that were not.
fn led(seed: u64, original: &[u8]) -> (Vec<u8>, Option<Vec<u8>>, [u64; 2]) {
    let mut rng = Rng::new(seed);
    let it = routed();
    let place: Elsewhere =
        |rng| (server(rng, &routed(), Ending::AfterTheOther), Answer::After(rng.below(5_000)));
    let turns = Turns::new(|_| usize::MAX);
    let mut asking = client(&mut rng, &it, Ending::AfterTheOther);
    if !original.is_empty() {
        // It asks when it knows what the server has said.
        let (ends, wanted) = (it.client.ends.clone(), original.len());
        let judge = move |received: &[u8]| if received.len() >= wanted { ends[2] } else { 50 };
        asking = Peer::scripted(&mut rng, it.client.bytes, Ending::AfterSending, Turns::new(judge));
    } else {
        asking.ending = Ending::AfterSending;
    }
    let first = Peer::scripted(&mut rng, original.to_vec(), Ending::AfterTheOther, turns);
    let arrival = Arrival { at: 0, client: asking, server: first, answer: Answer::AtOnce };
    let places = BTreeMap::from([(QUICK, place)]);
    let io = SimIo::outbound(rng, Faults::NONE, vec![arrival], places);
    let (mut shard, _commands, _names) = routing(io, http_config(), limits(), 512);
    come_to_rest(seed, &mut shard);
    let io = &shard.core.io;
    let there = io.dialled.iter().find(|it| it.0 == QUICK);
    let there = there.map(|it| io.sockets[it.1].peer.received.clone());
    let refused = Key::route_refused(Refusal::Http2 as usize);
    let counts = [Key::ROUTED, refused].map(|key| shard.core.recorder.get(key));
    (io.sockets[0].peer.received.clone(), there, counts)
}

#[test]
fn a_first_request_leads_its_connection() {
    for seed in 1..200 {
        let (received, there, counts) = led(seed, &[]);
        assert_eq!(received, routed().server.bytes, "{seed}");
        let there = there.expect("a dial");
        let (sent, got) = (read(&routed().client.bytes, 24), read(&there, 24));
        assert!(there.starts_with(PREFACE) && sent.len() == got.len(), "{seed}: {}", got.len());
        for (one, other) in sent.iter().zip(&got) {
            assert!((one.0, one.1) == (other.0, other.1) && other.2.starts_with(&one.2), "{seed}");
        }
        assert_eq!(counts, [2, 1], "{seed}: the third goes along, and is counted");
    }
}

#[test]
fn a_server_that_has_spoken_is_not_left() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    for seed in 1..50 {
        let (received, there, counts) = led(seed, &settings);
        assert_eq!((received, there), (settings.clone(), None), "{seed}");
        assert_eq!(counts, [0, 2], "{seed}");
    }
}
