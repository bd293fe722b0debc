//! Looking inside a running netra: profiles by `go tool pprof`, live views, the page in Chromium,
//! `netra top` in a terminal, orders, statsd, the access log.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

#[path = "observe_inside/collect.rs"]
mod collect;
mod support;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use support::matrix::{Cell, Driver};
use support::netra::{ADMIN_PORT, Backend, Netra, Setup, apply_rules, netra_binary};
use support::webapp::{self, Client};
use support::world::{POD_V4, World, checked};
use support::{PATIENCE, scrape, script, wait_until};

/// netra and an inbound HTTP application behind it.
fn start<'w>(
    world: &'w World,
    cell: Cell,
    extra: &[(&'static str, &str)],
) -> (Netra<'w>, SocketAddr) {
    apply_rules(world, Backend::NftNative);
    let inbound = webapp::serve(&world.pod, POD_V4, 2);
    let setup = Setup::new(cell).env("NETRA_HTTP_PORTS", inbound.port());
    let setup = extra.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    (Netra::start(world, &setup), inbound)
}

fn one_shard(driver: Driver) -> Cell {
    Cell { driver, shards: 1 }
}

fn tool(path: &str, package: &str) -> PathBuf {
    assert!(Path::new(path).exists(), "{path} is missing: Debian package {package}");
    path.into()
}

fn admin(world: &World, request: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let order = "X-Netra-Order: 1\r\n";
    scrape::ask(&world.pod, ADMIN_PORT, request, order, body).expect("the admin port answers")
}

fn page(world: &World, target: &str) -> String {
    let (status, _, body) = admin(world, &format!("GET {target}"), b"");
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200, "{target}: {body}");
    body
}

fn view(world: &World, target: &str) -> Value {
    serde_json::from_str(&page(world, target)).expect("JSON")
}

/// Requests without a pause while `work` runs.
fn under_load<T>(world: &World, to: SocketAddr, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = Client::connect(&world.client, to);
                while !stop.load(Relaxed) {
                    assert_eq!(client.get("/load"), 200);
                }
            });
        }
        let done = work();
        stop.store(true, Relaxed);
        done
    })
}

fn pprof(world: &World, args: &[&str], file: &Path) -> String {
    let mut command = Command::new(tool("/usr/bin/go", "golang-go"));
    command.args(["tool", "pprof"]).args(args).arg(file);
    // It looks for a place of its own to keep profiles in.
    command.env("HOME", world.dir()).env("PPROF_TMPDIR", world.dir());
    checked(command.output().expect("go"), "go tool pprof")
}

/// As the sidecar's own user, without capabilities, while io_uring works: the functions of the data
/// path by name.
#[test]
fn heavy_cpu_profiles_are_read_by_go_tool_pprof() {
    let Some(world) = World::new() else { return };
    let (netra, inbound) = start(&world, one_shard(Driver::IoUring), &[]);
    let get = |target: &str| admin(&world, &format!("GET /debug/pprof/{target}"), b"");
    let (profile, two, picture) = under_load(&world, inbound, || {
        let profile = get("profile?seconds=1&hz=499");
        let two = thread::scope(|scope| {
            let first = scope.spawn(|| get("folded?seconds=1&hz=499"));
            thread::sleep(Duration::from_millis(300));
            let second = get("folded?seconds=1").0;
            (first.join().expect("a thread"), second)
        });
        (profile, two, get("flamegraph?seconds=1&hz=499"))
    });
    assert_eq!(profile.0, 200, "{}", String::from_utf8_lossy(&profile.2));
    assert!(profile.1.contains("x-netra-profiler: perf_event_open"));
    let file = world.dir().join("cpu.pb.gz");
    fs::write(&file, &profile.2).expect("a file");
    let top = pprof(&world, &["-top", "-cum", "-nodecount=400"], &file);
    for name in ["netra_shards::host", "shard::Shard", "Editor::begin"] {
        assert!(top.contains(name), "{name} is not in\n{top}");
    }
    assert!(pprof(&world, &["-tags"], &file).contains("shard-0"));
    let raw = pprof(&world, &["-raw"], &file);
    assert!(raw.contains("samples/count cpu/nanoseconds"), "{raw}");
    let (folded, second) = two;
    assert_eq!(second, 503, "one profile at a time");
    let folded = String::from_utf8(folded.2).expect("UTF-8");
    assert!(folded.lines().any(|line| line.starts_with("shard-0;")), "{folded}");
    let picture = String::from_utf8(picture.2).expect("UTF-8");
    assert!(picture.starts_with("<svg ") && picture.contains("shard-0"), "{picture}");
    netra.finish().unwrap();
}

#[test]
fn memory_symbols_and_the_time_line() {
    let Some(world) = World::new() else { return };
    let (netra, inbound) = start(&world, one_shard(Driver::Epoll), &[]);
    assert!(page(&world, "/debug/pprof/").contains("flamegraph"));
    assert!(page(&world, "/debug/pprof/cmdline").contains("--service-name\0e2e"));
    let file = world.dir().join("heap.pb.gz");
    fs::write(&file, admin(&world, "GET /debug/pprof/heap", b"").2).expect("a file");
    let top = pprof(&world, &["-top"], &file);
    assert!(top.contains("everything else") && top.contains("inuse_space"), "{top}");
    // The address of main, from the process's own memory map and symbol table.
    let maps = fs::read_to_string(format!("/proc/{}/maps", netra.pid())).expect("maps");
    let binary = netra_binary().canonicalize().expect("a path");
    let own = maps.lines().find(|line| line.ends_with(binary.to_str().expect("UTF-8")));
    let base = own.expect("the binary is mapped").split('-').next().expect("a range");
    let base = u64::from_str_radix(base, 16).expect("hex");
    let nm = Command::new(tool("/usr/bin/nm", "binutils")).arg(netra_binary()).output();
    let symbols = checked(nm.expect("nm"), "nm");
    let main = symbols.lines().find(|line| line.ends_with(" main")).expect("main");
    let main = base + u64::from_str_radix(&main[..16], 16).expect("hex");
    let (_, _, named) = admin(&world, "POST /debug/pprof/symbol", format!("{main:#x}").as_bytes());
    let named = String::from_utf8_lossy(&named).into_owned();
    assert!(named.contains(&format!("{main:#x} main\n")), "{named}");
    let line = under_load(&world, inbound, || view(&world, "/debug/pprof/trace?seconds=1"));
    let events = line["traceEvents"].as_array().expect("events");
    let completions: u64 =
        events.iter().filter_map(|event| event["args"]["completions"].as_u64()).sum();
    assert!(
        completions > 100 && events.iter().any(|event| event["name"] == "park"),
        "{completions}"
    );
    let times: Vec<f64> = events.iter().filter_map(|event| event["ts"].as_f64()).collect();
    assert!(times.is_sorted());
    netra.finish().unwrap();
}

/// A receiver that takes nothing is named with the side that it is on.
#[test]
fn connections_are_shown_with_what_holds_them_up() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    for driver in [Driver::IoUring, Driver::Epoll] {
        let netra = Netra::start(&world, &Setup::new(Cell { driver, shards: 2 }));
        let listener = script::listen(&world.pod, POD_V4);
        let address = listener.local_addr().expect("bound");
        let quiet = script::connect(&world.client, address).expect("a connection");
        let quiet_peer = script::accept(&listener).expect("accepted");
        // Shards say how old theirs are one after the other: by more than that, it is the oldest.
        thread::sleep(Duration::from_millis(100));
        let mut loud = script::connect(&world.client, address).expect("a connection");
        let deaf = script::accept(&listener).expect("accepted");
        loud.set_nonblocking(true).expect("nonblocking");
        let stalled = || {
            while loud.write(&[7; 65_536]).is_ok() {}
            view(&world, "/connections?by=stalled&top=1")["connections"][0]["stalled"] == "upstream"
        };
        assert!(wait_until(PATIENCE, stalled), "{}", page(&world, "/connections"));
        let all = view(&world, "/connections?by=bytes");
        assert_eq!(all["total"], 2);
        let top = &all["connections"][0];
        assert!(top["bytes_request"].as_u64().expect("bytes") > 100_000, "{top}");
        assert_eq!(top["original_dst"], address.to_string());
        assert_eq!(top["peer"], loud.local_addr().expect("an address").to_string());
        assert_eq!((&top["direction"], &top["protocol"]), (&"inbound".into(), &"opaque".into()));
        assert!(top["downstream_rtt_us"].as_f64().expect("rtt") > 0.0);
        assert!(top["upstream_retransmits"].is_u64() && top["overhead_us"].as_f64() > Some(0.0));
        let oldest = &view(&world, "/connections?by=age")["connections"][0];
        assert_eq!(oldest["peer"], quiet.local_addr().expect("an address").to_string());
        assert_eq!(view(&world, "/shards")["shards"].as_array().map(Vec::len), Some(2));
        drop((quiet, quiet_peer, loud, deaf));
        netra.finish().unwrap();
    }
}

/// More connections than two slices of a shard hold.
const MANY: usize = 6000;

/// Each is seen, and none twice.
#[test]
fn heavy_many_connections_are_seen_once() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let netra = Netra::start(&world, &Setup::new(Cell { driver: Driver::Epoll, shards: 2 }));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit of descriptors");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may be raised");
    let listener = script::listen(&world.pod, POD_V4);
    let address = listener.local_addr().expect("bound");
    let mut held = Vec::new();
    for _ in 0..MANY {
        let client = script::connect(&world.client, address).expect("a connection");
        held.push((client, script::accept(&listener).expect("accepted")));
    }
    let all = view(&world, "/connections?top=200");
    assert_eq!(all["total"], MANY);
    let rows = all["connections"].as_array().expect("rows");
    let mut peers: Vec<_> = rows.iter().map(|row| row["peer"].to_string()).collect();
    peers.sort();
    peers.dedup();
    assert_eq!(peers.len(), 200);
    drop(held);
    netra.finish().unwrap();
}

#[test]
fn orders_are_obeyed_and_leave_word() {
    let Some(world) = World::new() else { return };
    let cell = one_shard(Driver::Epoll);
    let (netra, _) = start(&world, cell, &[("NETRA_ADMIN_ORDERS", "true")]);
    assert_eq!(page(&world, "/log-level"), "info\n");
    assert_eq!(admin(&world, "POST /log-level?level=debug", b"").0, 200);
    assert_eq!(page(&world, "/log-level"), "debug\n");
    // A connection that ends badly is worth a line only at this level.
    let _ = scrape::ask(&world.pod, ADMIN_PORT, "\u{0}", "", b"");
    let logged = || netra.log().contains(" debug connection to the endpoint ended");
    assert!(wait_until(PATIENCE, logged), "{}", netra.log());
    let settings = view(&world, "/config");
    let row = |name: &str| {
        let rows = settings.as_array().expect("rows");
        rows.iter().find(|row| row["name"] == name).expect(name)["value"].clone()
    };
    assert_eq!(row("NETRA_IO"), "epoll");
    assert_eq!(admin(&world, "POST /quitquitquit", b"").0, 403);
    let mut netra = netra;
    assert_eq!(admin(&world, "POST /drain", b"").0, 200);
    assert!(netra.wait(PATIENCE).expect("it ends").success());
    assert!(netra.log().contains("draining why=\"POST /drain\""), "{}", netra.log());
    drop(netra);
    let (mut netra, _) = start(&world, cell, &[("NETRA_ADMIN_QUIT", "true")]);
    assert_eq!(admin(&world, "POST /quitquitquit", b"").0, 200);
    assert!(netra.wait(PATIENCE).expect("it ends").success());
}

fn chromium(world: &World, args: &[&str]) -> Output {
    let mut command = world.pod.command(tool("/usr/bin/chromium", "chromium"));
    let profile = format!("--user-data-dir={}", world.dir().join("chromium").display());
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args([&profile, "--virtual-time-budget=4000", "--window-size=1320,900"])
        .args(args)
        .env("HOME", world.dir());
    command.output().expect("chromium")
}

/// The page draws itself from what netra answers, and loads nothing else.
#[test]
fn heavy_the_page_is_alive_in_a_browser() {
    let Some(world) = World::new() else { return };
    let (netra, inbound) = start(&world, Cell { driver: Driver::Epoll, shards: 2 }, &[]);
    let (_, head, body) = admin(&world, "GET /", b"");
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    let loads = ["src=", "@import", "url(", "<link"];
    assert!(!loads.iter().any(|it| body.contains(it)));
    let at = format!("http://127.0.0.1:{ADMIN_PORT}/");
    let dom = under_load(&world, inbound, || {
        checked(chromium(&world, &["--dump-dom", &at]), "chromium --dump-dom")
    });
    for part in [
        "<span id=\"state\" class=\"\">live</span>",
        ">shard-1</td>",
        &format!(">{inbound}</td>"),
        ">http1</td>",
        "<b id=\"driver\">epoll</b>",
        "stroke=\"var(--in)\"",
    ] {
        assert!(dom.contains(part), "{part} is not in\n{dom}");
    }
    netra.finish().unwrap();
}

/// In a real terminal: shows, takes keys, leaves.
#[test]
fn heavy_top_runs_in_a_terminal() {
    let Some(world) = World::new() else { return };
    let (netra, inbound) = start(&world, one_shard(Driver::Epoll), &[]);
    let socket = world.dir().join("tmux");
    let tmux = |args: &[&str]| {
        let mut command = world.pod.command(tool("/usr/bin/tmux", "tmux"));
        command.arg("-S").arg(&socket).args(args);
        checked(command.output().expect("tmux"), &format!("tmux {args:?}"))
    };
    let program = format!("{} top; echo left with $?; sleep 60", netra_binary().display());
    tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "30", &program]);
    let screen = || tmux(&["capture-pane", "-p"]);
    let shows = |parts: &[&str]| {
        let mut last = String::new();
        let seen = wait_until(PATIENCE, || {
            last = screen();
            parts.iter().all(|part| last.contains(part))
        });
        assert!(seen, "{parts:?} never came:\n{last}");
    };
    under_load(&world, inbound, || {
        shows(&["netra e2e", "inbound", "req/s", "shard-0", "by age", &inbound.to_string()]);
        tmux(&["send-keys", "3"]);
        shows(&["by bytes"]);
    });
    tmux(&["send-keys", "q"]);
    shows(&["left with 0"]);
    tmux(&["kill-server"]);
    netra.finish().unwrap();
}

/// As netramesh: inbound responses by status. Deltas sum up to what happened.
#[test]
fn statsd_counts_inbound_responses() {
    let Some(world) = World::new() else { return };
    let statsd = world.pod.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("bind");
    statsd.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
    let address = statsd.local_addr().expect("bound").to_string();
    let settings = [
        ("NETRA_STATSD_ENABLED", "true"),
        ("NETRA_STATSD_ADDRESS", address.as_str()),
        ("NETRA_STATSD_PREFIX", "shop.mesh"),
        // Counted whether or not spans go anywhere.
        ("JAEGER_DISABLED", "true"),
    ];
    let (netra, inbound) = start(&world, Cell { driver: Driver::Epoll, shards: 2 }, &settings);
    let mut client = Client::connect(&world.client, inbound);
    for n in 0..50 {
        client.get(if n % 10 == 0 { "/status/503" } else { "/" });
    }
    let mut counted = [0, 0];
    let mut take = || {
        let mut packet = [0; 2048];
        let len = statsd.recv(&mut packet).unwrap_or(0);
        for line in String::from_utf8_lossy(&packet[..len]).lines() {
            let (name, rest) = line.split_once(':').expect(line);
            let count: u64 = rest.strip_suffix("|c").expect(line).parse().expect(line);
            match name {
                "shop.mesh.inbound.200" => counted[0] += count,
                "shop.mesh.inbound.503" => counted[1] += count,
                other => panic!("{other}"),
            }
        }
        counted == [45, 5]
    };
    assert!(wait_until(PATIENCE, &mut take));
    drop(client);
    // The last ones are sent at the end.
    let mut client = Client::connect(&world.client, inbound);
    assert_eq!(client.get("/"), 200);
    drop(client);
    netra.end().unwrap();
    let mut last = || {
        let mut packet = [0; 2048];
        let len = statsd.recv(&mut packet).unwrap_or(0);
        String::from_utf8_lossy(&packet[..len]).contains("shop.mesh.inbound.200:1|c")
    };
    assert!(wait_until(PATIENCE, &mut last));
}

fn access_lines(netra: &Netra<'_>) -> Vec<Value> {
    let log = netra.log();
    let lines = log.lines().filter(|line| line.contains("\"kind\":"));
    lines.map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn the_access_log_has_requests_and_opaque_connections() {
    let Some(world) = World::new() else { return };
    let settings =
        [("NETRA_ACCESS_LOG", "all"), ("NETRA_LOG_FORMAT", "json"), ("JAEGER_DISABLED", "true")];
    let (netra, inbound) = start(&world, Cell { driver: Driver::IoUring, shards: 2 }, &settings);
    let mut client = Client::connect(&world.client, inbound);
    for n in 0..20 {
        let headers = format!("X-Request-Id: r{n}\r\nUser-Agent: test\r\n");
        client.request("GET", &format!("/status/{}", 400 + n), &headers);
    }
    drop(client);
    let listener = script::listen(&world.pod, POD_V4);
    let address = listener.local_addr().expect("bound");
    let mut peer = script::connect(&world.client, address).expect("a connection");
    let server = script::accept(&listener).expect("accepted");
    peer.write_all(b"hello").expect("sent");
    wait_until(Duration::from_secs(2), || netra.scrape().sum("netra_tcp_bytes_total", &[]) > 0);
    drop((peer, server));
    let all = || access_lines(&netra).len() >= 21;
    assert!(wait_until(PATIENCE, all), "{}", netra.log());
    let lines = access_lines(&netra);
    assert_eq!(lines.len(), 21);
    let (connections, requests): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line["kind"] == "connection");
    for (n, line) in requests.iter().enumerate() {
        assert_eq!(line["status"], 400 + n);
        assert_eq!(line["request_id"], format!("r{n}"));
        assert_eq!((&line["method"], &line["host"]), (&"GET".into(), &"shop".into()));
        let (whole, own) = (line["duration_us"].as_u64(), line["overhead_us"].as_u64());
        assert!(own > Some(0) && own <= whole, "{line}");
    }
    assert_eq!(connections[0]["original_dst"], address.to_string());
    assert_eq!(connections[0]["request_bytes"], 5);
    assert!(connections[0]["remote"].is_string());
    let counted = netra.scrape();
    assert_eq!(counted.sum("netra_access_log_total", &[("result", "written")]), 21);
    netra.finish().unwrap();
}

/// What was read at first says as what, and why it is not any more.
#[test]
fn lines_of_tunnels_say_what_they_were() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let listeners: Vec<_> = (0..2).map(|_| script::listen(&world.pod, POD_V4)).collect();
    let ports: Vec<_> = listeners.iter().map(|it| it.local_addr().unwrap().port()).collect();
    let setup = Setup::new(one_shard(Driver::Epoll))
        .env("NETRA_HTTP_PORTS", ports[0])
        .env("NETRA_PROTOCOLS", format!("{}=redis", ports[1]))
        .env("NETRA_ACCESS_LOG", "all")
        .env("NETRA_LOG_FORMAT", "json");
    let netra = Netra::start(&world, &setup);
    for (listener, said) in listeners.iter().zip([&b"GET / HTTP/3.0\r\n\r\n"[..], b"*1\r\n$-5\r\n"])
    {
        let address = listener.local_addr().expect("bound");
        let mut client = script::connect(&world.client, address).expect("a connection");
        let mut server = script::accept(listener).expect("accepted");
        client.write_all(said).expect("sent");
        let mut heard = vec![0; said.len()];
        server.read_exact(&mut heard).expect("passed on as it came");
    }
    assert!(wait_until(PATIENCE, || access_lines(&netra).len() == 2), "{}", netra.log());
    let told: Vec<_> = access_lines(&netra)
        .into_iter()
        .map(|line| format!("{} {} {}", line["kind"], line["protocol"], line["tunnel"]))
        .collect();
    let wanted =
        ["\"connection\" \"http1\" \"bad_version\"", "\"connection\" \"redis\" \"malformed\""];
    assert_eq!(told, wanted);
    netra.finish().unwrap();
}

/// Nobody reads stdout: lines are dropped and counted, and requests go on as if nothing were.
#[test]
fn a_stuck_reader_of_the_access_log_costs_lines_only() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let inbound = webapp::serve(&world.pod, POD_V4, 2);
    let setup = Setup::new(one_shard(Driver::Epoll))
        .env("NETRA_HTTP_PORTS", inbound.port())
        .env("NETRA_ACCESS_LOG", "all")
        .stuck_stdout();
    let netra = Netra::start(&world, &setup);
    let mut client = Client::connect(&world.client, inbound);
    let dropped = || {
        (0..500).for_each(|_| assert_eq!(client.get("/a-path-that-fills-a-pipe"), 200));
        netra.scrape().sum("netra_access_log_total", &[("result", "dropped_ring")]) > 100
    };
    assert!(wait_until(Duration::from_secs(60), dropped));
    drop(client);
    // It ends in time, though its last lines have nowhere to go.
    netra.finish().unwrap();
}
