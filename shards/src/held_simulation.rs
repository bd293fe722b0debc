//! Heads that take too long, and a process that runs out of memory, on the simulated kernel: what
//! was held goes out as it came, nobody is cut, and connections for which there is no room come in
//! when there is.

use crate::{
    config::{HttpConfig, Limits, MemoryWatch},
    core::HttpCore,
    correlate::{Keep, correlate, seed},
    exchange::Observer,
    http_simulation::http_config,
    io::{
        sim::{Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer, Turns},
    },
    pressure::MemoryCount,
    shard::{Parts, Shard},
    simulation::{TURNS_MAX, parts, with_seed},
    sys::Nanos,
};
use netra_codecs::h1::Reason;
use netra_perf::Key;
use std::{fs, path::PathBuf, sync::mpsc, time::Duration};

const MS: Nanos = 1_000_000;
const BANNER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A head of which so much comes, then nothing until the server has said something.
fn slow(rng: &mut Rng, at: Nanos) -> (Arrival, usize) {
    let value = "v".repeat(rng.len(20_000));
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n").into_bytes();
    let begun = rng.len(head.len() - 1);
    // The server answers the beginning of a head, which it can only see when netra lets it go.
    let answers = Turns::new(move |came| if came.len() >= begun { BANNER.len() } else { 0 });
    let server = Peer::scripted(rng, BANNER.to_vec(), Ending::AfterTheOther, answers);
    let len = head.len();
    let goes_on = Turns::new(move |came| if came.is_empty() { begun } else { len });
    let client = Peer::scripted(rng, head, Ending::AfterSending, goes_on);
    (Arrival { at, client, server, answer: Answer::AtOnce }, begun)
}

/// One byte, and the end.
fn brief(rng: &mut Rng, at: Nanos) -> Arrival {
    let all = || Turns::new(|_| 1);
    let client = Peer::scripted(rng, vec![b'x'], Ending::AfterSending, all());
    let server = Peer::scripted(rng, vec![], Ending::AfterTheOther, all());
    Arrival { at, client, server, answer: Answer::AtOnce }
}

/// Requests each of which comes with the beginning of the next: a head is always held, and none
/// for long.
fn steady(rng: &mut Rng, at: Nanos) -> Arrival {
    let request = |index: usize| format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let count = 40;
    let sends: Vec<u8> = (0..count).flat_map(request).collect();
    let ends: Vec<usize> = (0..count)
        .scan(0, |end, index| {
            *end += request(index).len();
            Some(*end)
        })
        .collect();
    let answered = |came: &[u8]| came.windows(4).filter(|four| *four == b"\r\n\r\n").count();
    let server_turns = Turns::new(move |came| answered(came) * BANNER.len());
    let server = Peer::scripted(rng, BANNER.repeat(count), Ending::AfterTheOther, server_turns);
    let len = sends.len();
    let client_turns = Turns::new(move |came| {
        ends.get(came.len() / BANNER.len()).map_or(len, |end| (end + 9).min(len))
    });
    let client = Peer::scripted(rng, sends, Ending::AfterSending, client_turns);
    Arrival { at, client, server, answer: Answer::AtOnce }
}

fn shard(
    rng: Rng,
    arrivals: Vec<Arrival>,
    config: &HttpConfig,
    memory: Option<Box<MemoryCount>>,
) -> Shard<SimIo> {
    let ttl = Duration::from_secs(5);
    let keep = Keep { entries_max: 4096, context_ttl: ttl, route_ttl: ttl };
    let correlation = correlate(seed(), keep, &[-1]).remove(0);
    // Nobody tells this shard anything.
    let (_, receiver) = mpsc::channel();
    let http = HttpCore::new(config, correlation);
    let limits = Limits { half_close_linger: Duration::from_secs(3600), ..Limits::default() };
    let observer = Observer::new(config.tracing.as_ref(), 1, (None, None));
    let http = Some(Box::new(http));
    let parts = Parts { http, observer, memory, ..parts(limits, 512, receiver) };
    Shard::new(SimIo::new(rng, Faults::NONE, arrivals), parts)
}

/// Turns until nothing can happen any more, or `is_enough` says so.
fn run(shard: &mut Shard<SimIo>, mut is_enough: impl FnMut(&Shard<SimIo>) -> bool) {
    for _ in 0..TURNS_MAX {
        if shard.core.io.idle || is_enough(shard) {
            return;
        }
        let wait = shard.park();
        shard.turn(wait).unwrap();
    }
    panic!("never comes to rest");
}

/// All bytes came through both ways, all ends were passed on, and nothing is left behind.
fn check_whole(seed: u64, shard: &Shard<SimIo>, count: usize) {
    let io = &shard.core.io;
    assert_eq!(io.arrived.len(), count);
    for downstream in &io.arrived {
        let client = &io.sockets[*downstream].peer;
        let server = &io.sockets[io.upstream_of(*downstream).unwrap()].peer;
        assert!(client.saw_end && server.saw_end && !client.saw_reset, "{seed}: was cut");
        assert!(client.received == server.sends(), "{seed}: response bytes");
        // Whether netra's own lines are among them is told by the reason that was counted.
        let (came, went) = (server.received.len(), client.sends().len());
        assert!(came >= went, "{seed}: {came} of {went} request bytes");
    }
    assert_eq!((shard.active, shard.core.pool.lent()), (0, 0), "{seed}");
    assert_eq!(shard.heads.next(), None, "{seed}: a deadline left behind");
    assert_eq!(shard.core.http.as_deref().unwrap().held_bytes(), 0, "{seed}");
}

fn opaque(shard: &Shard<SimIo>, reason: Reason) -> u64 {
    shard.core.recorder.get(Key::opaque(reason as usize))
}

#[test]
fn a_slow_head_goes_out_as_it_came_and_the_connection_is_served_on() {
    with_seed(|seed| {
        let mut rng = Rng::new(seed);
        let config = HttpConfig { head_timeout: Some(Duration::from_millis(400)), ..http_config() };
        let count = rng.len(5);
        let (arrivals, _): (Vec<_>, Vec<_>) =
            (0..count).map(|index| slow(&mut rng, index as u64 * MS)).unzip();
        let mut shard = shard(rng, arrivals, &config, None);
        run(&mut shard, |_| false);
        check_whole(seed, &shard, count);
        let slow = opaque(&shard, Reason::HeadTooSlow);
        assert_eq!(slow, count as u64, "{seed}: each is told once");
        for downstream in &shard.core.io.arrived {
            let (client, upstream) =
                (&shard.core.io.sockets[*downstream], shard.core.io.upstream_of(*downstream));
            let server = &shard.core.io.sockets[upstream.unwrap()].peer;
            assert!(server.received == client.peer.sends(), "{seed}: was edited");
        }
    });
}

#[test]
fn a_connection_that_always_holds_some_head_is_none_that_holds_one_for_long() {
    with_seed(|seed| {
        let mut rng = Rng::new(seed);
        let config = HttpConfig { head_timeout: Some(Duration::from_millis(400)), ..http_config() };
        let arrivals = vec![steady(&mut rng, 0)];
        let mut shard = shard(rng, arrivals, &config, None);
        run(&mut shard, |_| false);
        check_whole(seed, &shard, 1);
        let reasons = Reason::ALL.iter().map(|reason| opaque(&shard, *reason)).sum::<u64>();
        assert_eq!(reasons, 0, "{seed}: turned opaque");
    });
}

/// A cgroup's files, as a test says they are.
struct Told {
    folder: PathBuf,
}

const LIMIT: u64 = 64 << 20;

impl Told {
    fn new(name: &str, seed: u64) -> (Self, Box<MemoryCount>) {
        let name = format!("netra-{name}-{seed}.{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let told = Self { folder };
        told.used(0);
        fs::write(told.folder.join("stat"), "anon 0\n").unwrap();
        let watch = MemoryWatch {
            usage_file: told.folder.join("usage"),
            stat_file: told.folder.join("stat"),
            limit: LIMIT,
        };
        (told, Box::new(MemoryCount::open(&watch).unwrap()))
    }

    fn used(&self, bytes: u64) {
        fs::write(self.folder.join("usage"), format!("{bytes}\n")).unwrap();
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn held_heads_go_first_when_memory_is_near_its_end() {
    with_seed(|seed| {
        let mut rng = Rng::new(seed);
        let config = HttpConfig { head_timeout: None, ..http_config() };
        let (told, memory) = Told::new("held", seed);
        let mut arrivals: Vec<_> = (0..4).map(|_| slow(&mut rng, 0).0).collect();
        // Somebody comes later, so that there is a turn then; and the next is when the shard looks.
        arrivals.push(brief(&mut rng, 4_000 * MS));
        arrivals.push(slow(&mut rng, 8_000 * MS).0);
        let mut shard = shard(rng, arrivals, &config, Some(memory));
        run(&mut shard, |shard| shard.core.now >= 4_000 * MS);
        let held = shard.core.http.as_deref().unwrap().held_bytes();
        assert!(held > 0, "{seed}: nothing is held");
        told.used(LIMIT - LIMIT / 10);
        run(&mut shard, |_| false);
        check_whole(seed, &shard, 6);
        assert_eq!(opaque(&shard, Reason::HeldTooMuch), 5, "{seed}");
        let shed = |step| shard.core.recorder.get(Key::shed(step));
        assert!(shed(0) >= 4, "{seed}: {} heads let go", shed(0));
        assert_eq!((shed(1), shed(2)), (1, 0), "{seed}: it was tight, and not full");
    });
}

#[test]
fn what_finds_no_room_waits_and_comes_in_when_there_is() {
    with_seed(|seed| {
        let mut rng = Rng::new(seed);
        let config = HttpConfig { head_timeout: None, ..http_config() };
        let (told, memory) = Told::new("room", seed);
        told.used(LIMIT);
        // These have nothing to say, and wait for each other's end.
        let arrivals = (0..60)
            .map(|index| {
                let [client, server] = [(); 2].map(|()| {
                    Peer::scripted(&mut rng, vec![], Ending::AfterTheOther, Turns::new(|_| 0))
                });
                Arrival { at: index * MS, client, server, answer: Answer::AtOnce }
            })
            .collect();
        let mut shard = shard(rng, arrivals, &config, Some(memory));
        run(&mut shard, |shard| shard.core.now > 500 * MS);
        let waits = 60 - shard.active;
        assert!((20..60).contains(&waits), "{seed}: {waits} wait");
        assert!(shard.core.recorder.get(Key::shed(2)) > 0, "{seed}: not counted");
        told.used(0);
        run(&mut shard, |shard| shard.active == 60);
        assert_eq!(shard.active, 60, "{seed}: not all came in");
    });
}
