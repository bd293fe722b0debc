//! What netra may take of memory, and what it does when somebody fills all of it: in a cgroup with
//! a limit, as the shipped manifests have it.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use support::cgroup::Cgroup;
use support::good::{Good, Servers, ask, expect};
use support::helper::{ANSWER, Helper};
use support::matrix::{Findings, cells_with};
use support::netra::{ADMIN_PORT, Backend, METRICS_PORT, Netra, Setup, apply_rules};
use support::scrape::{self, Scrape};
use support::stream::{KIB, MIB};
use support::world::World;
use support::{PATIENCE, procfs, script, wait_until};

/// Writes until nobody takes any more.
fn stuff(peer: &mut TcpStream, most: u64) {
    peer.set_nonblocking(true).expect("a socket");
    let (chunk, mut sent) = ([b'u'; 64 << 10], 0);
    while sent < most {
        match peer.write(&chunk) {
            Ok(len) => sent += len as u64,
            Err(_) => break,
        }
    }
}

/// What somebody does who means ill.
#[derive(Clone, Copy, Debug)]
enum Ill {
    Idle(usize),
    /// Heads of 33 KB that do not end.
    Heads(usize),
    /// Answers that nobody reads.
    Unread(usize),
    /// Requests with ids of their own, on a few connections.
    Ids(usize),
    /// Bodies that nobody takes.
    Uploads(usize),
}

impl Ill {
    fn act(
        self,
        world: &World,
        servers: &Servers,
        kept: &mut Vec<TcpStream>,
    ) -> Result<(), String> {
        let dial = |to: &Helper| {
            script::connect(&world.client, to.address).map_err(|e| format!("{self:?}: {e}"))
        };
        match self {
            Self::Idle(count) => {
                for _ in 0..count {
                    kept.push(dial(&servers.answer)?);
                }
            }
            Self::Heads(count) => {
                let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
                head.resize(33_000, b'v');
                for _ in 0..count {
                    let mut peer = dial(&servers.answer)?;
                    peer.write_all(&head).map_err(|e| format!("{self:?}: {e}"))?;
                    kept.push(peer);
                }
            }
            Self::Unread(count) => {
                for _ in 0..count {
                    kept.push(dial(&servers.blast)?);
                }
            }
            Self::Ids(count) => {
                let mut peer = dial(&servers.answer)?;
                for number in 0..count {
                    let id = format!("{number:040}");
                    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\r\n");
                    let asked =
                        peer.write_all(head.as_bytes()).and_then(|()| expect(&mut peer, ANSWER));
                    asked.map_err(|e| format!("{self:?}: {e}"))?;
                }
            }
            Self::Uploads(count) => {
                for _ in 0..count {
                    let mut peer = dial(&servers.stall)?;
                    stuff(&mut peer, 4 * MIB);
                    kept.push(peer);
                }
            }
        }
        Ok(())
    }
}

fn tell(what: &str, cgroup: &Cgroup, scrape: &Scrape) {
    let sum = |name| scrape.sum(name, &[]);
    eprintln!(
        "{what}: {} KiB, of it kernel {}, anonymous {}; in sockets {}; held {}; {} connections, {} \
         buffers, {} pipes, {} contexts",
        cgroup.usage() / KIB,
        cgroup.kernel() / KIB,
        cgroup.anonymous() / KIB,
        cgroup.sockets() / KIB,
        sum("netra_held_bytes") / KIB,
        scrape.active(),
        sum("netra_buffers_used"),
        sum("netra_pipes_used"),
        sum("netra_context_entries"),
    );
}

/// A counter that has to tell, by name and labels.
type Told = (&'static str, &'static [(&'static str, &'static str)]);

/// Everything that can be filled is filled, in this order, in a cgroup of so many MiB.
fn filled(mib: u64, ills: &[Ill], tells: &[Told]) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        let Some(cgroup) = Cgroup::with_memory(mib * MIB).map(Arc::new) else { return };
        let mut servers = Servers::start(&world);
        let setup = Setup::new(cell)
            .cgroup(&cgroup)
            .reporting()
            .env("NETRA_HTTP_PORTS", servers.answer.address.port())
            .env("JAEGER_SAMPLER_TYPE", "const")
            .env("JAEGER_SAMPLER_PARAM", 1)
            // What is remembered by request id is to stay.
            .env("NETRA_TRACING_CONTEXT_EXPIRATION_MILLISECONDS", 120_000);
        let netra = Netra::start(&world, &setup);
        tell(&format!("[{cell}] {mib} MiB, at the start"), &cgroup, &netra.scrape());
        let outcome = fill(&world, &cgroup, &netra, &mut servers, (ills, tells));
        let outcome = outcome.map_err(|what| format!("{what}; {} killed", cgroup.oom_kills()));
        findings.check(cell, outcome.and_then(|()| netra.finish()));
    }
    findings.conclude();
}

fn fill(
    world: &World,
    cgroup: &Cgroup,
    netra: &Netra<'_>,
    servers: &mut Servers,
    (ills, tells): (&[Ill], &[Told]),
) -> Result<(), String> {
    let is_over = AtomicBool::new(false);
    let good = Good::new(&is_over);
    let kept = thread::scope(|scope| {
        let servers = &*servers;
        let served = scope.spawn(|| good.run(&world.client, servers));
        wait_until(PATIENCE, || good.turns.load(Relaxed) > 0);
        let mut kept = Vec::new();
        let done = ills.iter().try_for_each(|ill| {
            ill.act(world, servers, &mut kept)?;
            thread::sleep(Duration::from_millis(300));
            if cgroup.oom_kills() > 0 {
                return Err(format!("killed at {ill:?}"));
            }
            tell(&format!("{ill:?}"), cgroup, &netra.scrape());
            Ok(())
        });
        thread::sleep(Duration::from_secs(1));
        is_over.store(true, Relaxed);
        let served = served.join().expect("the good client's thread");
        done.and(served).map(|()| kept)
    })?;
    let scrape = netra.scrape();
    tell("full", cgroup, &scrape);
    eprintln!("{}; shed: {:?}", good.words(), scrape.labels_of("netra_memory_shed_total"));
    for (name, labels) in tells {
        if scrape.sum(name, labels) == 0 {
            return Err(format!("{name} {labels:?} tells of nothing"));
        }
    }
    if cgroup.oom_kills() > 0 || good.turns.load(Relaxed) < 50 {
        return Err(format!("{} killed; {}", cgroup.oom_kills(), good.words()));
    }
    // Everything comes back.
    drop(kept);
    let mut fresh = script::connect(&world.client, servers.answer.address)
        .map_err(|error| format!("a fresh connection: {error}"))?;
    ask(&mut fresh).map_err(|error| format!("a fresh request: {error}"))?;
    drop(fresh);
    // Nobody else will ever take what was sent there.
    servers.stall.kill();
    let gone = netra.scrape_until("nothing is held", |scrape| {
        scrape.active() == 0 && scrape.sum("netra_held_bytes", &[]) == 0
    });
    tell("after", cgroup, &netra.scrape());
    gone
}

/// The order of the audit that found it: idle connections first.
const IDLE_FIRST: [Ill; 5] =
    [Ill::Ids(20_000), Ill::Idle(2_600), Ill::Heads(1_100), Ill::Unread(1_500), Ill::Uploads(100)];
/// Every cap is reached before that of connections.
const IDLE_LAST: [Ill; 5] =
    [Ill::Ids(20_000), Ill::Heads(500), Ill::Unread(300), Ill::Uploads(100), Ill::Idle(5_000)];

const PAUSED: Told = ("netra_accept_paused_total", &[]);
const HELD: Told = ("netra_opaque_total", &[("reason", "held_too_much")]);
const PIPES: Told = ("netra_pipe_starved_total", &[]);

#[test]
fn heavy_everything_filled_in_64_mib() {
    filled(64, &IDLE_LAST, &[PAUSED, HELD]);
}

#[test]
fn heavy_everything_filled_in_32_mib() {
    filled(32, &IDLE_LAST, &[PAUSED, HELD, PIPES]);
}

#[test]
fn heavy_idle_heads_and_unread_answers_in_64_mib() {
    filled(64, &IDLE_FIRST, &[PAUSED]);
}

/// What own pages are given of 64 MiB (`src/budget.rs`), and what a measurement may be off.
const OWN_PAGES: u64 = 4 * MIB + 512 * KIB;
/// Everything that takes memory while it is made.
const PAGES: [&str; 10] = [
    "/debug/pprof/profile?seconds=1&hz=999",
    "/debug/pprof/flamegraph?seconds=1&hz=999",
    "/debug/pprof/folded?seconds=1&hz=999",
    "/debug/pprof/trace?seconds=1",
    "/debug/pprof/heap",
    "/connections?top=200",
    "/failures?last=100",
    "/config",
    "/shards",
    "/rules",
];

/// The most that netra takes of memory while something is done, beyond what it had.
fn grows<T>(netra: &Netra<'_>, act: impl FnOnce() -> T) -> (u64, T) {
    let (pid, is_over) = (netra.pid(), AtomicBool::new(false));
    let before = procfs::rss_anon(pid);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = before;
            while !is_over.load(Relaxed) {
                most = most.max(procfs::rss_anon(pid));
                thread::sleep(Duration::from_millis(1));
            }
            most
        });
        let done = act();
        is_over.store(true, Relaxed);
        (watcher.join().expect("the watcher").saturating_sub(before), done)
    })
}

/// Answers of both ports that nobody reads, more than are kept.
fn unread_pages(world: &World) -> Vec<TcpStream> {
    let ask = |port: u16, page: &str| {
        let mut peer = world.pod.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port))).ok()?;
        write!(peer, "GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        Some(peer)
    };
    let asked = (0..40).flat_map(|_| {
        let pages = [
            (ADMIN_PORT, "/debug/pprof/trace?seconds=1"),
            (ADMIN_PORT, "/connections?top=200"),
            (METRICS_PORT, "/metrics"),
        ];
        thread::sleep(Duration::from_millis(50));
        pages.into_iter().filter_map(|(port, page)| ask(port, page))
    });
    asked.collect()
}

/// Each page by itself, on an idle netra and beside many connections, and what nobody reads.
#[test]
fn heavy_own_pages_take_no_more_than_their_part() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        let Some(cgroup) = Cgroup::with_memory(64 * MIB).map(Arc::new) else { return };
        let servers = Servers::start(&world);
        let setup =
            Setup::new(cell).cgroup(&cgroup).env("NETRA_HTTP_PORTS", servers.answer.address.port());
        let netra = Netra::start(&world, &setup);
        findings.check(cell, own_pages(&world, &netra, &servers));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

fn own_pages(world: &World, netra: &Netra<'_>, servers: &Servers) -> Result<(), String> {
    let (mut kept, is_over) = (Vec::new(), AtomicBool::new(false));
    for connections in [0, 2_400] {
        Ill::Idle(connections).act(world, servers, &mut kept)?;
        let good = Good::new(&is_over);
        is_over.store(false, Relaxed);
        thread::scope(|scope| {
            // Something to see in a profile.
            let served = scope.spawn(|| good.run(&world.client, servers));
            wait_until(PATIENCE, || good.turns.load(Relaxed) > 0);
            let each = PAGES.iter().try_for_each(|page| {
                let get = || scrape::ask(&world.pod, ADMIN_PORT, &format!("GET {page}"), "", b"");
                let (most, answer) = grows(netra, get);
                let (status, ..) = answer.map_err(|error| format!("{page}: {error}"))?;
                let (cell, kib) = (netra.cell(), most / KIB);
                eprintln!("[{cell}] {connections} connections, {page}: {status}, {kib} KiB");
                let is_right = status == 200 && most <= OWN_PAGES;
                is_right.then_some(()).ok_or_else(|| format!("{page}: {status}, {kib} KiB"))
            });
            let (most, unread) = grows(netra, || unread_pages(world));
            eprintln!("[{}] {} answers unread: {} KiB", netra.cell(), unread.len(), most / KIB);
            is_over.store(true, Relaxed);
            served.join().expect("the good client's thread")?;
            let is_right = most <= OWN_PAGES && unread.len() == 120;
            each.and(is_right.then_some(()).ok_or_else(|| format!("unread: {} KiB", most / KIB)))
        })?;
    }
    Ok(())
}

#[test]
fn helper_process() {
    support::helper::run();
}
