//! Changes of upstream that go wrong, on the simulated kernel: nothing waits for ever, nothing is
//! left behind, and no byte goes where it was not sent.

use crate::{
    config::{HttpConfig, Limits},
    http_simulation::http_config,
    io::{
        Io,
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    route_simulation::{ORIGINAL, QUICK, SILENT, answers, elsewhere, limits, routing},
    shard::{Command, Shard},
    simulation::TURNS_MAX,
};
use netra_codecs::h1::Reason;
use netra_perf::Key;
use std::{collections::BTreeMap, time::Duration};

const HERE: &str = "GET /here HTTP/1.1\r\nHost: shop\r\n\r\n";

/// A request that is sent to [`QUICK`], with a body that fills a buffer.
fn there() -> String {
    let body = "b".repeat(5_000);
    let route = format!("X-Route: shop=10.0.0.8:{QUICK}\r\n");
    format!("POST /there HTTP/1.1\r\nHost: shop\r\n{route}Content-Length: 5000\r\n\r\n{body}")
}

/// A client that sends all of this at once.
fn asks(rng: &mut Rng, sends: &str, ending: Ending) -> Peer {
    Peer::scripted(rng, sends.into(), ending, Turns::new(|_| usize::MAX))
}

/// A server that says this when anything was asked.
fn says(rng: &mut Rng, says: &str, ending: Ending) -> Peer {
    let turns = Turns::new(|received| if received.is_empty() { 0 } else { usize::MAX });
    Peer::scripted(rng, says.into(), ending, turns)
}

/// Where else a request can be sent.
fn places() -> BTreeMap<u16, Elsewhere> {
    let mut places = elsewhere();
    places.remove(&ORIGINAL);
    places
}

/// One connection, from its client's first byte until nothing can happen any more.
fn run(client: Peer, server: Peer, config: HttpConfig, limits: Limits) -> Shard<SimIo> {
    run_with(Rng::new(1), client, server, config, limits)
}

fn run_with(
    rng: Rng,
    client: Peer,
    server: Peer,
    config: HttpConfig,
    limits: Limits,
) -> Shard<SimIo> {
    let arrival = Arrival { at: 0, client, server, answer: Answer::AtOnce };
    let io = SimIo::outbound(rng, Faults::NONE, vec![arrival], places());
    let (mut shard, _commands, _names) = routing(io, config, limits, 512);
    for _ in 0..TURNS_MAX / 100 {
        let wait = shard.park();
        shard.turn(wait).unwrap();
        let deadline = shard.timers.next(&shard.slab);
        assert!(shard.active > 0 || deadline.is_none(), "a free slot has a deadline");
        if shard.core.io.idle {
            assert_eq!(shard.active, 0, "the connection waits for ever");
            assert_eq!(shard.core.pool.lent(), 0, "buffers lost");
            let http = shard.core.http.as_deref().unwrap();
            assert_eq!((shard.core.observer.open_spans(), http.held_bytes()), (0, 0));
            return shard;
        }
    }
    panic!("never comes to rest");
}

fn ended(shard: &Shard<SimIo>) -> Vec<usize> {
    (0..11).filter(|end| shard.core.recorder.get(Key::closed(1, *end)) > 0).collect()
}

#[test]
fn an_upstream_that_ends_while_a_request_waits_to_leave_it_ends_the_connection() {
    let rng = &mut Rng::new(1);
    let text = "HTTP/1.1 200 OK\r\n\r\nuntil the end";
    let client = asks(rng, &(HERE.to_owned() + &there()), Ending::AfterSending);
    let server = says(rng, text, Ending::AfterSending);
    let shard = run(client, server, http_config(), limits());
    let io = &shard.core.io;
    assert_eq!(String::from_utf8_lossy(&io.sockets[0].peer.received), text);
    assert!(io.sockets[0].peer.saw_end && io.dialled.is_empty(), "{:?}", io.dialled);
    assert!(io.now() < 1_000_000_000, "it waited for the linger");
    assert_eq!(ended(&shard), [0]);
}

#[test]
fn a_request_that_waits_to_leave_is_not_what_keeps_a_silent_connection() {
    let rng = &mut Rng::new(1);
    let client = asks(rng, &(HERE.to_owned() + &there()), Ending::Never);
    let server = says(rng, "", Ending::Never);
    let limits = Limits { idle_timeout: Some(Duration::from_secs(1)), ..limits() };
    assert_eq!(ended(&run(client, server, http_config(), limits)), [8]);
}

#[test]
fn where_responses_cannot_be_told_apart_what_waits_is_relayed() {
    let rng = &mut Rng::new(1);
    for text in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nX: y",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let client = asks(rng, &(HERE.to_owned() + &there()), Ending::AfterSending);
        let server = says(rng, text, Ending::AfterTheOther);
        let shard = run(client, server, http_config(), limits());
        let io = &shard.core.io;
        assert_eq!(String::from_utf8_lossy(&io.sockets[0].peer.received), text);
        let original = io.upstream_of(0).unwrap();
        let got = &io.sockets[original].peer.received;
        assert!(got.ends_with(b"bbbb") && io.dialled.is_empty(), "{text}: {}", got.len());
        assert_eq!(ended(&shard), [0], "{text}");
    }
}

#[test]
fn responses_hold_no_more_than_all_may() {
    let rng = &mut Rng::new(1);
    let text = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(9_000));
    let client = asks(rng, HERE, Ending::AfterTheOther);
    let server = says(rng, &text, Ending::Never);
    let arrival = Arrival { at: 0, client, server, answer: Answer::AtOnce };
    let io = SimIo::outbound(Rng::new(1), Faults::NONE, vec![arrival], places());
    let config = HttpConfig { held_bytes_max: 1_000, ..http_config() };
    let (mut shard, _commands, _names) = routing(io, config, limits(), 512);
    for _ in 0..TURNS_MAX / 100 {
        if shard.core.io.idle {
            break;
        }
        let wait = shard.park();
        shard.turn(wait).unwrap();
        let held = shard.core.http.as_deref().unwrap().held_bytes();
        assert!(held <= 1_000, "{held} bytes of heads are held");
    }
    let opaque = Key::opaque(Reason::HeldTooMuch as usize);
    assert_eq!(shard.core.recorder.get(opaque), 1);
    assert_eq!(shard.core.io.sockets[0].peer.received.len(), text.len());
}

#[test]
fn a_head_that_waits_to_leave_counts_as_held() {
    let rng = &mut Rng::new(1);
    let padding = "x".repeat(3_000);
    let asked = format!(
        "GET / HTTP/1.1\r\nHost: shop\r\nX-Route: shop=10.0.0.8:{SILENT}\r\nX: {padding}\r\n\r\n"
    );
    let client = asks(rng, &asked, Ending::AfterTheOther);
    let server = says(rng, "", Ending::AfterTheOther);
    let arrival = Arrival { at: 0, client, server, answer: Answer::AtOnce };
    let io = SimIo::outbound(Rng::new(1), Faults::NONE, vec![arrival], places());
    let (mut shard, _commands, _names) = routing(io, http_config(), limits(), 512);
    let mut most = 0;
    for _ in 0..TURNS_MAX / 100 {
        if shard.core.io.idle {
            break;
        }
        let wait = shard.park();
        shard.turn(wait).unwrap();
        most = most.max(shard.core.http.as_deref().unwrap().held_bytes());
    }
    assert!(most > asked.len(), "{most} of {} bytes were counted", asked.len());
    assert!(shard.core.io.idle, "never comes to rest");
    assert_eq!(shard.core.http.as_deref().unwrap().held_bytes(), 0);
    assert_eq!(shard.core.recorder.get(Key::ROUTE_UNREACHABLE), 1);
}

/// What a client hears who is sent to a name with these addresses, how long it took, and how many
/// further addresses were dialled.
fn ask_many(addresses: &[&str], limits: Limits) -> (String, Duration, u64) {
    let rng = &mut Rng::new(1);
    let asked = format!("GET / HTTP/1.1\r\nHost: shop\r\nX-Route: shop=many.test:{QUICK}\r\n\r\n");
    let client = asks(rng, &asked, Ending::AfterSending);
    let server = says(rng, "", Ending::AfterTheOther);
    let arrival = Arrival { at: 0, client, server, answer: Answer::AtOnce };
    let mut io = SimIo::outbound(Rng::new(1), Faults::NONE, vec![arrival], places());
    io.answers = answers();
    let (mut shard, commands, names) = routing(io, http_config(), limits, 512);
    let (mut resolved_at, mut took) = (0, None);
    for _ in 0..TURNS_MAX / 100 {
        let wait = shard.park();
        shard.turn(wait).unwrap();
        if let Ok(name) = names.try_recv() {
            let all = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            commands.send(Command::Resolved(name.asker, Ok(all))).unwrap();
            shard.core.io.wake();
            resolved_at = shard.core.io.now();
        }
        let is_answered =
            [2, 5].iter().any(|class| shard.core.recorder.get(Key::request(1, 0, *class)) > 0);
        if is_answered {
            took.get_or_insert(Duration::from_nanos(shard.core.io.now() - resolved_at));
        }
        if shard.core.io.idle {
            break;
        }
    }
    let heard = String::from_utf8_lossy(&shard.core.io.sockets[0].peer.received).into_owned();
    let took = took.unwrap_or(Duration::MAX);
    (heard, took, shard.core.recorder.get(Key::ROUTE_NEXT_ADDRESS))
}

#[test]
fn a_name_is_reached_by_whichever_address_answers() {
    let limits = Limits::default();
    for (addresses, further, within_ms) in [
        // Refused at once, later, and by nobody; a dead A beside a living AAAA. The server itself
        // takes some milliseconds.
        (&["10.0.1.1", "10.0.0.8"][..], 1, 50),
        (&["10.0.1.2", "10.0.0.8"], 1, 50),
        (&["10.0.1.3", "10.0.0.8"], 1, 300),
        (&["10.0.1.3", "fd00::8"], 1, 300),
        (&["10.0.1.1", "10.0.1.3", "10.0.1.2", "fd00::1", "fd00::8"], 4, 560),
        (&["10.0.0.8", "10.0.1.1"], 0, 50),
    ] {
        let (heard, took, dialled) = ask_many(addresses, limits.clone());
        assert!(heard.starts_with("HTTP/1.1 200 "), "{addresses:?}: {heard}");
        assert!(took <= Duration::from_millis(within_ms), "{addresses:?}: {took:?}");
        assert_eq!(dialled, further, "{addresses:?}");
    }
}

#[test]
fn a_name_that_nobody_answers_for_is_given_up_within_the_connect_limit() {
    let limits = || Limits { connect_timeout: Duration::from_secs(3), ..Limits::default() };
    for (addresses, why, from_ms, to_ms) in [
        (&["10.0.1.1", "10.0.1.2"][..], "Connection refused (os error 111)", 0, 10),
        (&["10.0.1.3", "fd00::1"], "Connection timed out (os error 110)", 2990, 3200),
        (&["10.0.1.3", "10.0.1.1"], "Connection timed out (os error 110)", 2990, 3200),
    ] {
        let (heard, took, _) = ask_many(addresses, limits());
        assert!(heard.starts_with("HTTP/1.1 502 ") && heard.contains(why), "{heard}");
        let allowed = Duration::from_millis(from_ms)..Duration::from_millis(to_ms);
        assert!(allowed.contains(&took), "{addresses:?}: {took:?}");
    }
}

/// The race of a connection that is kept alive: the upstream has gone when the head is sent.
#[test]
fn a_request_whose_head_cannot_be_sent_has_its_span() {
    let counted = (1..32).filter(|seed| {
        let rng = &mut Rng::new(*seed);
        let client = asks(rng, HERE, Ending::AfterTheOther);
        let server = says(rng, "", Ending::Reset(0));
        let shard = run_with(rng.clone(), client, server, http_config(), limits());
        shard.core.recorder.get(Key::request(1, 0, 0)) == 1
    });
    // Otherwise the reset was seen before the request.
    assert!(counted.count() > 0, "no head was sent to an upstream that had gone");
}
