//! netra's own ports as attackers see them: who may order, what a page of another host gets, what
//! answers cost, and that probes are answered whatever else comes.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use support::matrix::{Cell, Driver};
use support::netra::{ADMIN_PORT, Backend, METRICS_PORT, Netra, Setup, UID, apply_rules};
use support::webapp::{self, Client};
use support::world::{POD_V4, POD_V6, World};
use support::{PATIENCE, procfs, scrape, script, wait_until};

const TOKEN: &str = "0123456789abcdef";
const ORDER: &str = "X-Netra-Order: 1\r\n";

fn cell() -> Cell {
    Cell { driver: Driver::Epoll, shards: 1 }
}

/// The status of a request whose every header is given.
fn status(world: &World, request: &str, headers: &str) -> u16 {
    let answer = world.pod.enter(|| -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ADMIN_PORT))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!("{request} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.expect("the admin port answers");
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect(&answer)
}

/// By default nobody orders over TCP; a name in Host is a rebound one, and another Origin a foreign page.
#[test]
fn nobody_orders_who_may_not() {
    let Some(world) = World::new() else { return };
    let netra = Netra::start(&world, &Setup::new(cell()).env("NETRA_ADMIN_QUIT", "true"));
    let own = "Host: 127.0.0.1:14957\r\n";
    for (headers, drain, quit, view) in [
        (own.to_owned(), 403, 403, 200),
        (format!("{own}{ORDER}"), 403, 200, 200),
        (format!("{own}{ORDER}Origin: http://evil.example\r\n"), 403, 403, 403),
        (format!("{own}{ORDER}Sec-Fetch-Site: cross-site\r\n"), 403, 403, 403),
        (format!("Host: evil.example:14957\r\n{ORDER}"), 421, 421, 421),
        (format!("Host: evil.example\r\nOrigin: http://evil.example\r\n{ORDER}"), 421, 421, 421),
        (ORDER.to_owned(), 421, 421, 421),
    ] {
        assert_eq!(status(&world, "POST /drain", &headers), drain, "{headers}");
        assert_eq!(status(&world, "POST /log-level?level=debug", &headers), drain, "{headers}");
        if quit != 200 {
            assert_eq!(status(&world, "POST /quitquitquit", &headers), quit, "{headers}");
        }
        assert_eq!(status(&world, "GET /config", &headers), view, "{headers}");
        assert_ne!(status(&world, "OPTIONS /drain", &headers), 200, "no preflight is answered");
    }
    assert!(netra.ready());
    assert_eq!(netra.scrape().sum("netra_admin_orders_total", &[("result", "obeyed")]), 0);
    assert!(netra.scrape().sum("netra_admin_orders_total", &[("result", "refused")]) > 4);
    netra.finish().unwrap();
}

#[test]
fn a_token_lets_its_bearer_order_and_nobody_else() {
    let Some(world) = World::new() else { return };
    let file = world.dir().join("token");
    fs::write(&file, TOKEN).expect("a file");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
    chown(&file, Some(UID), Some(UID)).expect("chown");
    let setup = Setup::new(cell())
        .env("NETRA_ADMIN_TOKEN_FILE", file.display())
        .env("NETRA_ADMIN_ORDERS", "true");
    let mut netra = Netra::start(&world, &setup);
    let host = "Host: localhost\r\n";
    for bearer in ["", "Authorization: Bearer 0123456789abcdeF\r\n", "Authorization: Basic x\r\n"] {
        assert_eq!(status(&world, "POST /drain", &format!("{host}{ORDER}{bearer}")), 401);
    }
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    // The token alone is none of a browser's business either.
    assert_eq!(status(&world, "POST /drain", &format!("{host}{bearer}")), 403);
    assert_eq!(status(&world, "POST /drain", &format!("Host: evil\r\n{ORDER}{bearer}")), 421);
    assert!(!netra.log().contains(TOKEN));
    assert_eq!(status(&world, "POST /drain", &format!("{host}{ORDER}{bearer}")), 200);
    assert!(netra.wait(PATIENCE).expect("it ends").success());
}

fn curl(world: &World, socket: &Path, uid: u32, args: &[&str]) -> Output {
    let mut command = world.pod.command_as("/usr/bin/curl", Some(uid), None);
    command.args(["-s", "-m", "5", "-w", "%{http_code}", "-o", "/dev/null", "--unix-socket"]);
    command.arg(socket).args(args).output().expect("curl")
}

/// Its own user and root; whoever else is turned away by the file, and where that is open, by who it is.
#[test]
fn the_socket_is_for_its_own_user_and_root() {
    let Some(world) = World::new() else { return };
    let folder = world.dir().join("run");
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(world.dir(), Permissions::from_mode(0o755)).expect("chmod");
    chown(&folder, Some(UID), Some(UID)).expect("chown");
    let socket = folder.join("admin.sock");
    let mut netra =
        Netra::start(&world, &Setup::new(cell()).env("NETRA_ADMIN_SOCKET", socket.display()));
    let code = |uid, args: &[&str]| {
        String::from_utf8_lossy(&curl(&world, &socket, uid, args).stdout).into_owned()
    };
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o600);
    let config = "http://netra/config";
    assert_eq!(code(4242, &[config]), "000");
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("chmod");
    assert_eq!(code(4242, &[config]), "000");
    assert_eq!(code(4242, &["-X", "POST", "http://netra/drain"]), "000");
    assert!(netra.ready());
    assert_eq!(code(UID, &[config]), "200");
    assert_eq!(code(0, &["-X", "POST", "http://netra/quitquitquit"]), "403");
    assert_eq!(code(UID, &["-X", "POST", "http://netra/log-level?level=debug"]), "200");
    assert_eq!(code(0, &["-X", "POST", "http://netra/drain"]), "200");
    assert!(netra.wait(PATIENCE).expect("it ends").success());
}

/// 60 at once of each page that costs something, and readers that do not read.
#[test]
fn heavy_costly_pages_have_a_bound() {
    const TOGETHER: usize = 60;
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let inbound = webapp::serve(&world.pod, POD_V4, 2);
    for driver in [Driver::IoUring, Driver::Epoll] {
        let setup = Setup::new(Cell { driver, shards: 2 }).env("NETRA_HTTP_PORTS", inbound.port());
        let netra = Netra::start(&world, &setup);
        let mut client = Client::connect(&world.client, inbound);
        assert_eq!(client.get("/"), 200);
        let before = procfs::rss_peak(netra.pid());
        for target in ["/debug/pprof/trace?seconds=2", "/connections?top=200", "/shards", "/config"]
        {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                // What there is to trace.
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        assert_eq!(client.get("/"), 200);
                    }
                });
                let asked: Vec<_> = (0..TOGETHER)
                    .map(|_| {
                        let mut stream = world
                            .pod
                            .enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, ADMIN_PORT)))
                            .expect("a connection");
                        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                        let _ = stream.write_all(head.as_bytes());
                        stream
                    })
                    .collect();
                thread::sleep(Duration::from_secs(4));
                stop.store(true, Relaxed);
                drop(asked);
            });
        }
        let grown = procfs::rss_peak(netra.pid()) - before;
        assert!(grown < 24 << 20, "{driver:?}: {} MiB", grown >> 20);
        drop(client);
        netra.finish().unwrap();
    }
}

/// How many connections the flood holds at once, far more than there are places.
const HELD: usize = 400;

/// Opens connections without an end: silent ones, slow ones, and such that ask and do not read.
fn flood(world: &World, to: SocketAddr, stop: &AtomicBool, opened: &AtomicUsize) {
    world.client.enter(|| {
        let mut held = std::collections::VecDeque::new();
        while !stop.load(Relaxed) {
            let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) else {
                continue;
            };
            let n = opened.fetch_add(1, Relaxed);
            let said: &[u8] = match n % 4 {
                0 | 1 => b"",
                2 => b"GET /live HTTP/1.1\r\nX-Slow: ",
                _ => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            };
            let _ = stream.write_all(said);
            held.push_back(stream);
            if held.len() > HELD {
                held.pop_front();
            }
            // A flood of thousands a second; whoever has all of the CPU needs no connections.
            thread::sleep(Duration::from_micros(500));
        }
    });
}

/// One probe on a connection that stays.
fn keep_alive(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let (mut seen, mut part) = (Vec::new(), [0; 512]);
    while !seen.ends_with(b"live\n") {
        let len = stream.read(&mut part)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&part[..len]);
    }
    Ok(())
}

/// From the same address as the probes, in v4 and v6: every probe is answered within its second, by
/// new connections and by one that stays.
#[test]
fn heavy_probes_are_answered_in_a_flood() {
    let Some(world) = World::new() else { return };
    for driver in [Driver::IoUring, Driver::Epoll] {
        let netra = Netra::start(&world, &Setup::new(Cell { driver, shards: 2 }));
        for address in [POD_V4, POD_V6] {
            let to = SocketAddr::from((address, METRICS_PORT));
            let (stop, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
            let mut failed = Vec::new();
            thread::scope(|scope| {
                let second = Some(Duration::from_secs(1));
                let stays = || {
                    let stream = script::connect(&world.client, to).expect("a connection");
                    stream.set_read_timeout(second).expect("a limit");
                    stream
                };
                let mut kept = stays();
                keep_alive(&mut kept).expect("the first one");
                for _ in 0..2 {
                    scope.spawn(|| flood(&world, to, &stop, &opened));
                }
                for n in 0..40 {
                    thread::sleep(Duration::from_millis(50));
                    let begun = Instant::now();
                    let probed = world.client.enter(|| {
                        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
                        stream.set_read_timeout(second)?;
                        keep_alive(&mut stream)
                    });
                    if probed.is_err() || begun.elapsed() > Duration::from_secs(1) {
                        failed.push(format!("new {n}: {probed:?} {:?}", begun.elapsed()));
                    }
                    if let Err(error) = keep_alive(&mut kept) {
                        failed.push(format!("kept {n}: {error}"));
                        kept = stays();
                    }
                }
                stop.store(true, Relaxed);
            });
            let opened = opened.load(Relaxed);
            assert!(failed.is_empty(), "{driver:?} {address}, {opened} opened: {failed:#?}");
            assert!(opened > HELD, "{opened} are no flood");
        }
        assert!(netra.scrape().sum("netra_own_connections_cut_total", &[]) > 0);
        let settled = || procfs::sockets(netra.pid()) < 40;
        assert!(wait_until(PATIENCE, settled), "{} sockets", procfs::sockets(netra.pid()));
        netra.finish().unwrap();
    }
}

/// By default what is behind a question mark leaves by its names only, wherever it leaves.
#[test]
fn queries_leave_by_their_names() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let inbound = webapp::serve(&world.pod, POD_V4, 2);
    for (policy, shown) in
        [(None, "/a?token=..&.."), (Some("drop"), "/a"), (Some("keep"), "/a?token=s3cret&q")]
    {
        let setup = Setup::new(Cell { driver: Driver::IoUring, shards: 1 })
            .env("NETRA_HTTP_PORTS", inbound.port())
            .env("NETRA_ACCESS_LOG", "all")
            .env("NETRA_LOG_FORMAT", "json")
            .env("NETRA_REPORTER", "stdout")
            .env("NETRA_SEMCONV", "both")
            .env("JAEGER_REPORTER_FLUSH_INTERVAL", "5ms")
            .env("JAEGER_SAMPLER_TYPE", "const")
            .env("JAEGER_SAMPLER_PARAM", "1");
        let setup = policy.into_iter().fold(setup, |it, word| it.env("NETRA_TRACING_QUERY", word));
        let netra = Netra::start(&world, &setup);
        let from = netra.log().len();
        let mut client = Client::connect(&world.client, inbound);
        assert_eq!(client.get("/a?token=s3cret&q"), 200);
        drop(client);
        let lines = || netra.log()[from..].to_owned();
        let both = || {
            let lines = lines();
            lines.contains("\"kind\":\"request\"") && lines.contains("\"tags\":{")
        };
        assert!(wait_until(PATIENCE, both), "{}", lines());
        let lines = lines();
        for key in ["target", "http.path"] {
            assert!(lines.contains(&format!("\"{key}\":\"{shown}\"")), "{key}: {lines}");
        }
        assert_eq!(lines.contains("s3cret"), policy == Some("keep"), "{lines}");
        assert_eq!(lines.contains("\"url.query\":"), policy != Some("drop"), "{lines}");
        netra.finish().unwrap();
    }
}

/// A name reaches the port where it must: by `netra top` from anywhere, and probes of any Host.
#[test]
fn probes_and_metrics_are_for_any_host() {
    let Some(world) = World::new() else { return };
    let netra = Netra::start(&world, &Setup::new(cell()));
    for path in ["/live", "/ready", "/startup", "/metrics"] {
        let host = "Host: shop.example\r\nSec-Fetch-Site: cross-site\r\n";
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, METRICS_PORT));
        let answer = world.pod.enter(|| -> io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\n{host}\r\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.expect("an answer");
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    }
    assert_eq!(scrape::get(&world.pod, METRICS_PORT, "/live").expect("an answer").0, 200);
    netra.finish().unwrap();
}
