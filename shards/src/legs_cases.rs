//! Connections with legs in cases that chance does not meet, or not so that it could be told: how often
//! netra sends, and a leg that stops within an answer.

use crate::{
    config::Limits,
    exchange::{Asker, Decide, Place, Ruling, Sits},
    io::{
        sim::{Elsewhere, Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    legs_simulation::{
        Asked, Dubbo, PLACES, Redis, Wire, World, answered, elsewhere, rest, served, server,
        target, world,
    },
    moves_simulation::ByDigit,
    patience::Allowed,
    route_simulation::limits,
    sys::Nanos,
};
use netra_codecs::{
    codec::Pairs,
    route::Target,
    tap::{Message, Protocol},
};
use netra_perf::Key;
use std::{cell::Cell, collections::BTreeMap, net::SocketAddr};

const LEGS_MAX: u32 = 8;

/// Requests with tags from 1, each to the next of these places.
fn asked<W: Wire>(places: &[usize]) -> Vec<Asked> {
    let asked = places.iter().zip(1..).map(|(place, tag)| {
        let bytes = W::request(&format!("k{place}"), tag, b"body", false);
        Asked { bytes, tag, place: *place, is_oneway: false }
    });
    asked.collect()
}

/// A client that sends the first so many requests one by one, and the others at once when `may` says so of
/// how many answers it has, and whether it has a part of one more.
fn client<W: Wire>(
    rng: &mut Rng,
    asked: &[Asked],
    first: usize,
    may: fn(usize, bool) -> bool,
) -> Peer {
    let sends: Vec<u8> = asked.iter().flat_map(|it| it.bytes.clone()).collect();
    let ends: Vec<usize> =
        (1..=first).map(|count| asked[..count].iter().map(|it| it.bytes.len()).sum()).collect();
    let turns = Turns::new(move |received| {
        let (mut seen, mut whole) = (0, 0);
        while let Some((end, ..)) = W::answer_end(&received[seen..]) {
            (seen, whole) = (seen + end, whole + 1);
        }
        if may(whole, seen < received.len()) {
            return usize::MAX;
        }
        ends[whole.min(first - 1)]
    });
    Peer::scripted(rng, sends, Ending::AfterSending, turns).at_once()
}

fn run<W: Wire>(
    mut rng: Rng,
    client: Peer,
    places: BTreeMap<u16, Elsewhere>,
    decides: Option<Box<dyn Decide>>,
) -> World {
    let server = server::<W>(&mut rng, PLACES[0], Ending::AfterTheOther).at_once();
    let arrival = Arrival { at: 0, client, server, answer: Answer::AtOnce };
    let io = SimIo::outbound(rng, Faults::NONE, vec![arrival], places);
    let mut world = world(io, W::PROTOCOL, 512, Limits { legs_max: LEGS_MAX, ..limits() });
    if decides.is_some() {
        world.shard.core.gates.decides = decides;
    }
    rest(0, &mut world, LEGS_MAX);
    world
}

/// Requests that take turns between two servers, the first two alone and the others in one read. Returns
/// how often netra sent to each server.
fn sends_by_turns<W: Wire>() -> Vec<u32> {
    let places: Vec<_> = (0..22).map(|index| index % 2).collect();
    let (mut rng, asked) = (Rng::new(1), asked::<W>(&places));
    let client = client::<W>(&mut rng, &asked, 2, |whole, _| whole >= 2);
    let world = run::<W>(rng, client, elsewhere::<W>(), None);
    assert_eq!(served::<W>(0, &world, &asked).len(), asked.len());
    assert_eq!(answered::<W>(0, &world, &asked)[0].len(), asked.len());
    let io = &world.shard.core.io;
    io.dialled.iter().map(|(_, fd)| io.sockets[*fd].sends).collect()
}

/// The simulated kernel hands them over in several pieces.
#[test]
fn the_requests_of_one_read_go_out_in_fewer_calls_than_there_are() {
    for sends in [sends_by_turns::<Dubbo>(), sends_by_turns::<Redis>()] {
        assert!(sends.len() == 2 && sends.iter().all(|sends| *sends < 11), "{sends:?} of 11 each");
    }
}

const ALLOWED_NS: Nanos = 4_000_000;

/// As `ByDigit`, and allows every answer the same time.
#[derive(Debug)]
struct Impatient(ByDigit);

impl Decide for Impatient {
    fn concerns(&self, asker: &Asker, protocol: Protocol) -> bool {
        self.0.concerns(asker, protocol)
    }

    fn decide(
        &mut self,
        message: &Message<'_>,
        asked: (&Asker, Sits<'_>),
        pairs: &mut Pairs,
        now: Nanos,
        random: u64,
    ) -> Ruling<'_> {
        let allowed = Allowed { first_byte_ns: 0, idle_ns: ALLOWED_NS, text: "netra: too late" };
        Ruling { allowed, ..self.0.decide(message, asked, pairs, now, random) }
    }

    fn target(&self, place: Place, original_dst: SocketAddr) -> Option<Target> {
        self.0.target(place, original_dst)
    }

    fn answer(&self, _: u32, _: &mut Pairs) {}
}

thread_local! {
    static STOPS_AT: Cell<usize> = const { Cell::new(0) };
}

/// The answer of one leg stops after so many bytes, which the client has, or not, as they are a part of a head;
/// another leg has an answer that waits for its turn.
fn stop_within<W: Wire>(at: usize, may: fn(usize, bool) -> bool) {
    STOPS_AT.set(at);
    let (mut rng, asked) = (Rng::new(1), asked::<W>(&[0, 0, 0, 0, 1, 0]));
    let client = client::<W>(&mut rng, &asked, 5, may);
    let stops: Elsewhere = |rng| {
        let pauses = [(STOPS_AT.get(), 3_600_000_000_000)].into();
        let server = server::<W>(rng, PLACES[1], Ending::AfterTheOther);
        (server.at_once().pausing(pauses), Answer::AtOnce)
    };
    let mut places = elsewhere::<W>();
    places.insert(PLACES[1], stops);
    let decides = Box::new(Impatient(ByDigit(target, false)));
    let world = run::<W>(rng, client, places, Some(decides));
    let recorder = &world.shard.core.recorder;
    assert_eq!(recorder.get(Key::timed_out(1)), 1, "after {at} bytes");
    let client = &world.shard.core.io.sockets[0].peer;
    assert!(client.saw_reset, "after {at} bytes: its client does not learn of it");
}

#[test]
fn a_leg_that_stops_within_an_answer_ends_the_connection_in_time() {
    stop_within::<Dubbo>(30, |whole, is_within| whole >= 4 && is_within);
    stop_within::<Redis>(30, |whole, is_within| whole >= 4 && is_within);
    stop_within::<Redis>(3, |whole, _| whole >= 4);
}
