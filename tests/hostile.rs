//! Everything that somebody who means ill may do, at once and for a while, beside a client that
//! does as it should, in the memory that the shipped manifests give: the client loses nothing,
//! netra is not restarted. `NETRA_TEST_HOSTILE_SECONDS` makes it longer, and
//! `NETRA_TEST_HOSTILE_WITHOUT` leaves parts out, by words of their names, to find who is to blame.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use support::cgroup::Cgroup;
use support::good::{Good, Servers, ask};
use support::helper::{Helper, Role};
use support::matrix::{Findings, cells_with};
use support::netra::{ADMIN_PORT, Backend, METRICS_PORT, Netra, PORT, Setup, apply_rules};
use support::stream::{KIB, MIB};
use support::world::{CLIENT_V4, POD_V4, POD_V6, World};
use support::{scrape, script, setting};

/// What the shipped manifests give; `tests/manifests.rs` holds it to them.
const MEMORY: u64 = 64 * MIB;
/// Longest that a connection of the hostile waits for anything.
const SHORT: Duration = Duration::from_secs(2);

/// What all who mean ill know.
struct Scene<'s> {
    servers: &'s Servers,
    /// Outside of the pod: what is asked here from inside is outbound, and may be routed.
    outside: &'s Helper,
    is_over: &'s AtomicBool,
    /// How often somebody did something, so that a part that does nothing is seen.
    deeds: [AtomicU64; ILLS.len()],
}

/// One who means ill: what it does, whether from inside the pod, until it is over.
type Ill = (&'static str, bool, fn(&Scene<'_>, &AtomicU64));

const ILLS: [Ill; 12] = [
    ("slow heads", false, slow_heads),
    ("unread answers", false, unread_answers),
    ("uploads that nobody takes", false, stuck_uploads),
    ("resets", false, resets),
    ("idle connections", false, idle),
    ("requests with new ids", false, new_ids),
    ("nonsense", false, nonsense),
    ("flood of 14956", false, |scene, deeds| flood(scene, deeds, PORT)),
    ("flood of 14958", false, |scene, deeds| flood(scene, deeds, METRICS_PORT)),
    ("flood of 14957", true, |scene, deeds| flood(scene, deeds, ADMIN_PORT)),
    ("spam of admin", true, admin_spam),
    ("storm of names", true, storm_of_names),
];

impl Scene<'_> {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Relaxed)
    }

    /// So many turns a second, at most, and each of them counted.
    fn repeat(&self, deeds: &AtomicU64, pause: Duration, mut turn: impl FnMut(u64)) {
        let mut number = 0;
        while self.goes_on() {
            turn(number);
            number += 1;
            deeds.fetch_add(1, Relaxed);
            thread::sleep(pause);
        }
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn dial(to: SocketAddr) -> Option<TcpStream> {
    let peer = TcpStream::connect_timeout(&to, SHORT).ok()?;
    peer.set_read_timeout(Some(SHORT)).ok()?;
    peer.set_write_timeout(Some(SHORT)).ok()?;
    Some(peer)
}

/// Two hundred heads, a little of each every second, some longer than is held of all together.
fn slow_heads(scene: &Scene<'_>, deeds: &AtomicU64) {
    let mut peers: Vec<TcpStream> = Vec::new();
    scene.repeat(deeds, ms(1000), |number| {
        while peers.len() < 200 {
            let Some(mut peer) = dial(scene.servers.answer.address) else { break };
            if peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").is_ok() {
                peers.push(peer);
            }
        }
        let piece = vec![b'v'; if number % 8 == 0 { 16_000 } else { 1 }];
        peers.retain_mut(|peer| peer.write_all(&piece).is_ok());
        if number % 45 == 44 {
            peers.clear();
        }
    });
}

/// Forty answers without end that nobody reads, then forty others.
fn unread_answers(scene: &Scene<'_>, deeds: &AtomicU64) {
    let mut peers = Vec::new();
    scene.repeat(deeds, ms(3000), |_| {
        peers.clear();
        peers.extend((0..40).filter_map(|_| dial(scene.servers.blast.address)));
    });
}

fn stuck_uploads(scene: &Scene<'_>, deeds: &AtomicU64) {
    let mut peers = Vec::new();
    scene.repeat(deeds, ms(3000), |_| {
        peers.drain(..).for_each(script::abort);
        for _ in 0..20 {
            let Some(mut peer) = dial(scene.servers.stall.address) else { continue };
            let _ = peer.set_nonblocking(true);
            for _ in 0..64 {
                if peer.write(&[b'u'; 64 << 10]).is_err() {
                    break;
                }
            }
            peers.push(peer);
        }
    });
}

/// In the middle of a head, of a body, of an answer.
fn resets(scene: &Scene<'_>, deeds: &AtomicU64) {
    let beginnings = [
        &b"GET / HT"[..],
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"",
    ];
    scene.repeat(deeds, ms(10), |number| {
        let beginning = beginnings[usize::try_from(number % 4).unwrap_or(0)];
        for server in [&scene.servers.answer, &scene.servers.blast] {
            let Some(mut peer) = dial(server.address) else { continue };
            let _ = peer.write_all(beginning);
            script::abort(peer);
        }
    });
}

fn idle(scene: &Scene<'_>, deeds: &AtomicU64) {
    let mut peers = Vec::new();
    scene.repeat(deeds, ms(10_000), |_| {
        peers.clear();
        peers.extend((0..1_000).filter_map(|_| dial(scene.servers.echo.address)));
    });
}

fn new_ids(scene: &Scene<'_>, deeds: &AtomicU64) {
    scene.repeat(deeds, ms(100), |number| {
        let Some(mut peer) = dial(scene.servers.answer.address) else { return };
        for request in 0..100 {
            let head =
                format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {number}-{request}\r\n\r\n");
            let answered = peer.write_all(head.as_bytes()).and_then(|()| peer.read(&mut [0; 256]));
            if answered.is_err() {
                return;
            }
        }
    });
}

/// What is no HTTP, on an HTTP port.
fn nonsense(scene: &Scene<'_>, deeds: &AtomicU64) {
    scene.repeat(deeds, ms(20), |number| {
        let Some(mut peer) = dial(scene.servers.answer.address) else { return };
        let bytes: Vec<u8> = (0..3_000_u64).map(|at| (at * 7 + number).to_le_bytes()[0]).collect();
        let _ = peer.write_all(&bytes);
    });
}

/// Connections by the hundred to one of netra's own ports, some with half a request.
fn flood(scene: &Scene<'_>, deeds: &AtomicU64, port: u16) {
    let hosts =
        if port == ADMIN_PORT { [IpAddr::from(Ipv4Addr::LOCALHOST); 2] } else { [POD_V4, POD_V6] };
    let mut peers: Vec<TcpStream> = Vec::new();
    scene.repeat(deeds, ms(500), |number| {
        peers.clear();
        for index in 0..100 {
            let host = hosts[index % 2];
            let Some(mut peer) = dial((host, port).into()) else { continue };
            if index % 3 == 0 {
                let _ = peer.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
            }
            if number % 2 == 0 {
                peers.push(peer);
            }
        }
    });
}

/// Every view and profile there is, over and over.
fn admin_spam(scene: &Scene<'_>, deeds: &AtomicU64) {
    const PAGES: [&str; 8] = [
        "/connections",
        "/config",
        "/stats",
        "/",
        "/debug/pprof/cmdline",
        "/debug/pprof/trace?seconds=1",
        "/debug/pprof/profile?seconds=1",
        "/debug/pprof/symbol",
    ];
    let mut peers: Vec<TcpStream> = Vec::new();
    scene.repeat(deeds, ms(100), |number| {
        if number % 20 == 0 {
            peers.clear();
        }
        for page in PAGES {
            let Some(mut peer) = dial((Ipv4Addr::LOCALHOST, ADMIN_PORT).into()) else { continue };
            let _ = write!(peer, "GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            // The answer is read by nobody.
            peers.push(peer);
        }
    });
}

/// Requests of the pod that ask for routes to names of which each is new, and the name server
/// says nothing: five hundred a second, on connections that wait two seconds.
fn storm_of_names(scene: &Scene<'_>, deeds: &AtomicU64) {
    let mut peers = VecDeque::new();
    scene.repeat(deeds, ms(100), |turn| {
        for index in 0..50 {
            let Some(mut peer) = dial(scene.outside.address) else { continue };
            let head = format!(
                "GET / HTTP/1.1\r\nHost: svc\r\nX-Route: svc=n{turn}-{index}.test:80\r\n\r\n"
            );
            if peer.write_all(head.as_bytes()).is_ok() {
                peers.push_back(peer);
            }
        }
        while peers.len() > 1_000 {
            peers.pop_front();
        }
    });
}

/// New connections of a good client, each of which has to be served.
fn good_strangers(scene: &Scene<'_>, world: &World) -> Result<u64, String> {
    let mut served = 0;
    while scene.goes_on() {
        let mut peer = script::connect(&world.client, scene.servers.answer.address)
            .map_err(|error| format!("a good connection: {error}"))?;
        ask(&mut peer).map_err(|error| format!("the request of a good connection: {error}"))?;
        served += 1;
        thread::sleep(ms(100));
    }
    Ok(served)
}

/// What a kubelet does: three failures in a row, and the container is restarted.
fn probes(scene: &Scene<'_>, world: &World) -> Result<(u64, u64), String> {
    let (mut sent, mut failed, mut in_a_row) = (0, 0, 0);
    while scene.goes_on() {
        let is_well = scrape::get(&world.pod, METRICS_PORT, "/live").is_ok_and(|it| it.0 == 200);
        sent += 1;
        failed += u64::from(!is_well);
        in_a_row = if is_well { 0 } else { in_a_row + 1 };
        if in_a_row == 3 {
            return Err(format!("three probes in a row failed, after {sent}"));
        }
        thread::sleep(ms(1000));
    }
    Ok((sent, failed))
}

fn is_left_out(name: &str) -> bool {
    let without = std::env::var("NETRA_TEST_HOSTILE_WITHOUT").unwrap_or_default();
    without.split(',').any(|word| !word.is_empty() && name.contains(word))
}

/// The most that was seen of memory: all that the cgroup counts and of it what is in sockets; and,
/// when all of it was most, what of it was anonymous and the kernel's.
#[derive(Default)]
struct Most {
    usage: u64,
    sockets: u64,
    anonymous: u64,
    kernel: u64,
}

impl Most {
    fn look(&mut self, cgroup: &Cgroup) {
        let usage = cgroup.usage();
        if usage > self.usage {
            (self.usage, self.anonymous, self.kernel) =
                (usage, cgroup.anonymous(), cgroup.kernel());
        }
        self.sockets = self.sockets.max(cgroup.sockets());
    }

    fn words(&self) -> String {
        let Self { usage, sockets, anonymous, kernel } = self;
        let [usage, sockets, anonymous, kernel] =
            [usage, sockets, anonymous, kernel].map(|bytes| bytes / KIB);
        format!(
            "at most {usage} KiB, of it anonymous {anonymous}, kernel {kernel}; {sockets} in sockets"
        )
    }
}

fn hostile_mix(
    world: &World,
    (servers, outside): (&Servers, &Helper),
    cgroup: &Cgroup,
    netra: &mut Netra<'_>,
    span: Duration,
) -> Result<(), String> {
    let is_over = AtomicBool::new(false);
    let scene = Scene { servers, outside, is_over: &is_over, deeds: Default::default() };
    let good = Good::new(&is_over);
    let (cell, mut most) = (netra.cell(), Most::default());
    let outcome = thread::scope(|scope| {
        let scene = &scene;
        let served = scope.spawn(|| good.run(&world.client, servers));
        let strangers = scope.spawn(|| good_strangers(scene, world));
        let probed = scope.spawn(|| probes(scene, world));
        for ((name, is_inside, act), deeds) in ILLS.iter().zip(&scene.deeds) {
            if is_left_out(name) {
                continue;
            }
            let from = if *is_inside { &world.pod } else { &world.client };
            scope.spawn(move || from.enter(|| act(scene, deeds)));
        }
        let deadline = Instant::now() + span;
        let mut ended = Ok(());
        while Instant::now() < deadline && ended.is_ok() {
            most.look(cgroup);
            if let Ok(status) = netra.wait(Duration::ZERO) {
                ended = Err(format!("netra ended: {status}, {} killed", cgroup.oom_kills()));
            }
            if served.is_finished() || strangers.is_finished() || probed.is_finished() {
                break;
            }
            thread::sleep(ms(100));
        }
        is_over.store(true, Relaxed);
        let served = served.join().expect("the good client");
        let strangers = strangers.join().expect("the good strangers");
        let probed = probed.join().expect("the probes");
        ended.and(served).and(strangers).and_then(|served| probed.map(|probed| (served, probed)))
    });
    eprintln!("[{cell}] {}; {}", most.words(), good.words());
    for ((name, ..), deeds) in ILLS.iter().zip(&scene.deeds) {
        eprintln!("[{cell}] {name}: {} turns", deeds.load(Relaxed));
    }
    let (strangers, (probes, failed)) = outcome?;
    eprintln!("[{cell}] {strangers} good strangers served, {failed} of {probes} probes failed");
    let is_lazy =
        |(ill, deeds): &(&Ill, &AtomicU64)| deeds.load(Relaxed) == 0 && !is_left_out(ill.0);
    if let Some((ill, _)) = ILLS.iter().zip(&scene.deeds).find(is_lazy) {
        return Err(format!("{} did nothing", ill.0));
    }
    let seen = netra.scrape();
    eprintln!("[{cell}] opaque: {:?}", seen.labels_of("netra_opaque_total"));
    let nameless = seen.sum("netra_route_unreachable_total", &[]);
    eprintln!("[{cell}] {nameless} requests for names that nobody knows");
    if nameless == 0 && !is_left_out("names") {
        return Err("no name was asked for".to_owned());
    }
    eprintln!("[{cell}] shed: {:?}", seen.labels_of("netra_memory_shed_total"));
    if cgroup.oom_kills() > 0 || most.usage > MEMORY {
        return Err(format!("{} killed, at most {} KiB", cgroup.oom_kills(), most.usage / KIB));
    }
    Ok(())
}

#[test]
fn heavy_hostile_mix() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let span = Duration::from_secs(setting("NETRA_TEST_HOSTILE_SECONDS", 20)) / 2;
    // A name server that takes questions and answers none.
    let silent = world.pod.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))).expect("port 53");
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        let Some(cgroup) = Cgroup::with_memory(MEMORY).map(Arc::new) else { return };
        let servers = Servers::start(&world);
        let outside = Helper::spawn(&world.client, CLIENT_V4, Role::Answer);
        let http = [&servers.answer, &outside].map(|it| it.address.port().to_string()).join(",");
        let setup = Setup::new(cell)
            .cgroup(&cgroup)
            .env("NETRA_HTTP_PORTS", http)
            .env("NETRA_HTTP_ROUTING_ENABLED", "true")
            .env("NETRA_HTTP_ROUTING_TARGETS", "*.test:80")
            .file("/etc/resolv.conf", "nameserver 127.0.0.1\n")
            .env("JAEGER_SAMPLER_TYPE", "const")
            .env("JAEGER_SAMPLER_PARAM", 1)
            // What nobody takes does not end by itself.
            .env("NETRA_DRAIN_MS", 2_000);
        let mut netra = Netra::start(&world, &setup);
        findings.check(cell, hostile_mix(&world, (&servers, &outside), &cgroup, &mut netra, span));
        if let Err(what) = netra.end() {
            findings.note(cell, what);
        }
    }
    drop(silent);
    findings.conclude();
}

#[test]
fn helper_process() {
    support::helper::run();
}
