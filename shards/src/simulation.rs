//! The shard on a simulated kernel, seed by seed. A failing seed prints the command that repeats
//! it; `NETRA_SIM_SEEDS` runs more.

use crate::{
    buffers::BufferPool,
    config::Limits,
    descriptors::Descriptors,
    exchange::{Gates, Observer, Taps},
    host,
    io::{
        sim::{Faults, Rng, SimIo},
        sim_peer::{Answer, Arrival, Ending, Peer},
    },
    links::LinkNames,
    own_dials::OwnDials,
    shard::{Command, Parts, Shard},
    sources::Sources,
};
use netra_perf::{Key, Recorder};
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

/// Turns after which a simulation that has not come to its end is stuck: some peers read a byte at a time.
pub(crate) const TURNS_MAX: u32 = 4_000_000;
/// Seeds of one test that may fail until it ends: a few tell more than the first does.
const FAILURES_MAX: usize = 16;

/// Turns until nothing can happen any more; then nothing may be left.
pub(crate) fn come_to_rest(seed: u64, shard: &mut Shard<SimIo>) {
    let mut turns = 0;
    while !shard.core.io.idle {
        let wait = shard.park();
        shard.turn(wait).unwrap();
        turns += 1;
        assert!(turns < TURNS_MAX, "{seed}: never comes to rest");
    }
    assert_eq!(shard.active, 0, "{seed}: a connection waits for ever");
    assert_eq!(shard.core.pool.lent(), 0, "{seed}: buffers lost");
    assert_eq!(shard.core.pipes.lent(), 0, "{seed}: pipes lost");
}

fn peer(rng: &mut Rng, resets: u64) -> Peer {
    let len = match rng.below(4) {
        0 => 0,
        1 => rng.len(100),
        2 => rng.len(10_000),
        _ => rng.len(200_000),
    };
    let ending = if rng.chance(resets) {
        Ending::Reset(usize::try_from(rng.below(len as u64 + 1)).unwrap())
    } else if rng.chance(50) {
        Ending::AfterSending
    } else {
        Ending::AfterTheOther
    };
    Peer::draw(rng, len, ending)
}

/// A connection whose peers cannot both wait for the other's end for ever.
fn arrival(rng: &mut Rng, resets: u64, dial_faults: bool) -> Arrival {
    let (client, mut server) = (peer(rng, resets), peer(rng, resets));
    if !client.resets() && !server.resets() {
        let len = server.sends().len();
        // A server that never ends is left to the half-close linger, so its client must end.
        if rng.chance(10) && client.ends_by_itself() {
            server = Peer::draw(rng, len, Ending::Never);
        } else {
            server = Peer::draw(rng, len, Ending::AfterSending);
        }
    }
    let answer = match rng.below(if dial_faults { 8 } else { 5 }) {
        0..=2 => Answer::AtOnce,
        3 | 4 => Answer::After(rng.below(5_000_000)),
        5 => Answer::RefusedAtOnce,
        6 => Answer::RefusedAfter(rng.below(5_000_000)),
        _ => Answer::Silence,
    };
    Arrival { at: rng.below(20_000_000), client, server, answer }
}

/// What a simulated shard is made of: no HTTP, and room for a hundred connections.
pub(crate) fn parts(limits: Limits, buffers: u32, commands: mpsc::Receiver<Command>) -> Parts {
    Parts {
        old_rules: mpsc::channel().0,
        index: 0,
        http: None,
        observer: Observer::new(None, 1, (None, None)),
        taps: Taps::default(),
        gates: Gates::default(),
        resolver: None,
        access: None,
        pool: BufferPool::new(buffers, 4096).unwrap(),
        limits,
        memory: None,
        port: 14956,
        spin_max: Duration::ZERO,
        recorder: Arc::new(Recorder::default()),
        descriptors: Arc::new(Descriptors::new(100)),
        sources: Sources::new(Arc::default(), &[]),
        own_dials: OwnDials::new(Arc::default()),
        guests: LinkNames::default(),
        put_off: Arc::default(),
        commands,
    }
}

struct World {
    shard: Shard<SimIo>,
    commands: mpsc::Sender<Command>,
    descriptors: Arc<Descriptors>,
}

fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let faults = Faults::draw(&mut rng);
    let resets = if rng.chance(40) { rng.below(50) } else { 0 };
    let dial_faults = rng.chance(30);
    let count = rng.len(24);
    let arrivals = (0..count).map(|_| arrival(&mut rng, resets, dial_faults)).collect();
    let few = rng.chance(50);
    let limits = Limits {
        direction_buffers_max: u32::try_from(rng.len(8)).unwrap(),
        splice_from_bytes: [0, 1, 4_096, 65_536][usize::try_from(rng.below(4)).unwrap()],
        pipes_max: u32::try_from(rng.len(8)).unwrap(),
        connect_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let buffers = if few { u32::try_from(rng.len(8)).unwrap() } else { 512 };
    let (commands, receiver) = mpsc::channel();
    let descriptors = Arc::new(Descriptors::new(u32::try_from(rng.len(30)).unwrap() + 1));
    let parts = Parts { descriptors: Arc::clone(&descriptors), ..parts(limits, buffers, receiver) };
    let shard = Shard::new(SimIo::new(rng, faults, arrivals), parts);
    World { shard, commands, descriptors }
}

/// Bytes that came out are bytes that went in; ends and resets reach the other side.
fn check_bytes(seed: u64, shard: &Shard<SimIo>) {
    let sockets = &shard.core.io.sockets;
    for (index, downstream) in sockets.iter().enumerate() {
        let upstream = shard.core.io.upstream_of(index);
        let Some(upstream) = upstream.map(|fd| &sockets[fd]) else { continue };
        for (from, to) in [(downstream, upstream), (upstream, downstream)] {
            let (sent, received) = (from.peer.sends(), &to.peer.received);
            assert!(sent.starts_with(received), "{seed}: bytes changed on the way");
            let broken = [from, to]
                .iter()
                .any(|s| s.peer.resets() || s.peer.saw_reset || s.peer.never_ends());
            if !broken {
                assert_eq!(received.len(), sent.len(), "{seed}: bytes lost");
                assert_eq!(from.peer.sent(), sent.len(), "{seed}: bytes never taken");
                assert!(to.peer.saw_end, "{seed}: the end was not passed on");
            }
        }
        let reset = |s: &crate::io::sim::Socket| s.peer.resets() && s.rx_reset;
        if reset(downstream) && !upstream.peer.resets() {
            assert!(upstream.tx_reset, "{seed}: a client's reset did not reach the server");
        }
    }
}

/// Runs a seed to its end and checks what must hold. Returns what the shard recorded.
fn simulate(seed: u64) -> Arc<Recorder> {
    let World { mut shard, commands, descriptors } = world(seed);
    come_to_rest(seed, &mut shard);
    assert_eq!(shard.timers.next(&shard.slab), None, "{seed}: a deadline left behind");
    assert_eq!(descriptors.connections(), 0, "{seed}: connections miscounted");
    assert!(shard.core.io.sockets.iter().all(|s| s.closed), "{seed}: descriptors lost");
    check_bytes(seed, &shard);
    let recorder = Arc::clone(&shard.core.recorder);
    commands.send(Command::Drain(Duration::from_secs(1))).unwrap();
    shard.core.io.wake();
    let report = host::run(shard).unwrap();
    assert_eq!(report.cut_total, 0, "{seed}: cut although nothing was left");
    recorder
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("NETRA_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NETRA_SIM_SEEDS").unwrap_or(256),
    }
}

pub(crate) fn with_seed<T>(run: impl Fn(u64) -> T + std::panic::RefUnwindSafe) -> Vec<T> {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for seed in seeds() {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(value) => all.push(value),
            Err(_) => {
                eprintln!("seed {seed} failed; repeat it with: make sim SEED={seed}");
                failed.push(seed);
            }
        }
        assert!(failed.len() < FAILURES_MAX, "these seeds failed: {failed:?}");
    }
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    all
}

#[test]
fn every_seed_keeps_bytes_and_loses_nothing() {
    let recorders = with_seed(simulate);
    if recorders.len() < 256 {
        return;
    }
    // The seeds are worth nothing where they do not go.
    for key in [
        Key::SPLICE_STARTED,
        Key::SPLICE_BYTES,
        Key::PIPE_STARVED,
        Key::BUFFER_STARVED,
        Key::BACK_PRESSURE,
        Key::ACCEPT_PAUSED,
        Key::closed(0, 0),
        Key::closed(0, 1),
        Key::closed(0, 2),
        Key::closed(0, 5),
        Key::closed(0, 6),
        Key::closed(0, 7),
    ] {
        assert!(recorders.iter().any(|r| r.get(key) > 0), "no seed reaches {key:?}");
    }
}

#[test]
fn a_drain_lets_finish_what_can_and_cuts_the_rest_at_its_deadline() {
    with_seed(|seed| {
        let World { mut shard, commands, descriptors } = world(seed);
        for _ in 0..seed % 300 {
            let wait = shard.park();
            shard.turn(wait).unwrap();
        }
        commands.send(Command::Drain(Duration::from_millis(30))).unwrap();
        shard.core.io.wake();
        let active = u64::from(shard.active);
        let finished_before = shard.core.finished;
        let mut turns = 0;
        while !shard.is_over() {
            let wait = shard.park();
            shard.turn(wait).unwrap();
            turns += 1;
            assert_eq!(shard.accept_again_at, None, "{seed}: a drain waits to accept again");
            assert!(turns < TURNS_MAX, "{seed}: the drain never ends");
        }
        assert_eq!(shard.core.pool.lent(), 0, "{seed}: buffers lost");
        assert_eq!(shard.core.pipes.lent(), 0, "{seed}: pipes lost");
        assert_eq!(descriptors.connections(), 0, "{seed}: connections miscounted");
        let finished = shard.core.finished;
        let report = shard.into_report();
        assert_eq!(report.finished, finished - finished_before);
        assert!(report.cut_total <= active + 24, "{seed}: cut more than there was");
        assert_eq!(report.cut.len() as u64, report.cut_total.min(64));
    });
}
