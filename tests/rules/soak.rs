//! Rules that change all the time, and limits that are used up all the time, under load.

use crate::{
    entry, folder,
    routes_of_others::redis_server,
    support::{
        PATIENCE,
        matrix::{Cell, Findings, cells, cells_with},
        netra::{Backend, Netra, Setup, apply_rules},
        procfs::rss_anon,
        programs::{Server, tool},
        script, setting, wait_until, webapp,
        world::{CLIENT_V4, Namespace, POD_V4, World},
    },
    write,
};
use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Routes of the huge documents: a table that takes a megabyte and more.
const HUGE: usize = 4_000;

/// Everything that there is a load of: host, port, protocol, an attribute of it, and whether huge documents
/// have many routes of it.
const HOSTS: [(&str, u16, &str, &str, bool); 9] = [
    ("svc", 8080, "http1", "path", true),
    ("cache", 6379, "redis", "operation", true),
    ("memo", 11211, "memcached", "operation", true),
    ("it", 20880, "dubbo", "method", false),
    ("demo", 9090, "thrift", "method", false),
    ("echo", 8002, "brpc", "method", false),
    ("greeter", 8000, "trpc", "func", false),
    ("log", 9092, "kafka", "operation", false),
    ("game", 27015, "rcon", "operation", false),
];

/// Documents that all let everything pass, number by number different.
fn documents(number: u64, is_huge: bool) -> String {
    let mut text = String::new();
    for (host, port, protocol, attribute, may_be_huge) in HOSTS {
        text += &entry(host, &CLIENT_V4.to_string(), port, &format!("tcp-{host}"));
        write!(
            text,
            "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: {host}}}\nspec:\n  \
             hosts: [{host}]\n  protocol: {protocol}\n  default: originalDst\n  routes:\n"
        )
        .unwrap();
        for route in 0..if is_huge && may_be_huge { HUGE } else { 3 } {
            write!(
                text,
                "  - match: {{attributes: {{{attribute}: {{exact: \"{number}-{route}\"}}}}}}\n    \
                   route: [{{destination: {{host: {host}}}}}]\n"
            )
            .unwrap();
        }
        text += "---\n";
    }
    text
}

/// A server that says the same to every request. All have one length, but those of Dubbo: into calls that
/// are traced netra writes the context, whoever is told of them. It ends with the test.
fn answering(world: &World, port: u16, request: usize, answer: Vec<u8>) {
    let bound = world.client.enter(|| TcpListener::bind((CLIENT_V4, port)));
    let listener = bound.expect("a free port");
    let answer: &'static [u8] = answer.leak();
    thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            thread::spawn(move || {
                let take = |peer: &mut TcpStream| match port {
                    20880 => take_dubbo(peer),
                    _ => peer.read_exact(&mut vec![0; request]),
                };
                while take(&mut peer).and_then(|()| peer.write_all(answer)).is_ok() {}
            });
        }
    });
}

/// A message of Dubbo, as long as it says.
fn take_dubbo(peer: &mut TcpStream) -> std::io::Result<()> {
    let mut head = [0; 16];
    peer.read_exact(&mut head)?;
    let [.., a, b, c, d] = head;
    peer.read_exact(&mut vec![0; u32::from_be_bytes([a, b, c, d]) as usize])
}

/// A request and its answer, of each protocol that has no server of somebody else's here: port, request,
/// answer.
fn own() -> Vec<(u16, Vec<u8>, Vec<u8>)> {
    let text = |field: u8, text: &[u8]| {
        [&[field << 3 | 2, u8::try_from(text.len()).unwrap()], text].concat()
    };
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let dubbo = |flags: u8, status: u8, body: &[u8]| {
        let head = [0xda, 0xbb, flags, status, 0, 0, 0, 0, 0, 0, 0, 7];
        [&head[..], &size(body), body].concat()
    };
    let thrift = |kind: u8| {
        let call = [&[0x80, 1, 0, kind, 0, 0, 0, 3][..], b"get", &[0, 0, 0, 7, 0]].concat();
        [&size(&call)[..], &call].concat()
    };
    let brpc = |what: Vec<u8>| {
        let meta = [&what[..], &[4 << 3, 7]].concat();
        [b"PRPC", &size(&meta)[..], &size(&meta), &meta].concat()
    };
    let trpc = |names: Vec<u8>| {
        let meta = [&[3 << 3, 7], &names[..]].concat();
        let total = u32::try_from(16 + meta.len()).unwrap().to_be_bytes();
        let len = u16::try_from(meta.len()).unwrap().to_be_bytes();
        [&[9, 0x30, 0, 0][..], &total, &len, &[0, 0, 0, 7, 1, 0], &meta].concat()
    };
    let rcon = |kind: u8, said: &[u8]| {
        let len = u8::try_from(10 + said.len()).unwrap();
        [&[len, 0, 0, 0, 7, 0, 0, 0, kind, 0, 0, 0][..], said, b"\0\0"].concat()
    };
    let names = [text(1, b"demo.Echo"), text(2, b"Echo")].concat();
    let call = [text(6, b"demo.Greeter"), text(7, b"/demo.Greeter/Hi")].concat();
    vec![
        (
            20880,
            dubbo(0xc2, 0, b"\x052.0.2\x06org.It\x00\x02hi\x12Ljava/lang/String;\x03joeHZ"),
            dubbo(2, 20, b"\x91\x02ok"),
        ),
        (9090, thrift(1), thrift(2)),
        (8002, brpc(text(1, &names)), brpc(text(2, b""))),
        (8000, trpc(call), trpc(Vec::new())),
        // ApiVersions, of which none are told.
        (
            9092,
            [&[0, 0, 0, 11, 0, 18, 0, 0, 0, 0, 0, 7, 0, 1][..], b"c"].concat(),
            vec![0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0],
        ),
        (27015, rcon(2, b"status"), rcon(0, b"ok")),
    ]
}

/// How long answers took, in microseconds: while rules stayed what they are, and while they changed.
type Took = [Vec<u32>; 2];

/// One connection on which requests are asked until it is over.
fn ask_on(
    namespace: &Namespace,
    to: SocketAddr,
    (request, answer): (&[u8], &[u8]),
    (is_changing, is_over): (&AtomicBool, &AtomicBool),
) -> Result<Took, String> {
    let mut peer = script::connect(namespace, to).map_err(|error| error.to_string())?;
    peer.set_read_timeout(Some(Duration::from_secs(20))).map_err(|error| error.to_string())?;
    let mut took = Took::default();
    let mut got = vec![0; answer.len()];
    while !is_over.load(Relaxed) {
        let phase = usize::from(is_changing.load(Relaxed));
        let begun = Instant::now();
        let asked = peer.write_all(request).and_then(|()| peer.read_exact(&mut got));
        if asked.is_err() || got != answer {
            let (got, count) = (got.escape_ascii(), took[phase].len());
            return Err(format!("{to}: request {count}: {asked:?}, {got}"));
        }
        took[phase].push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        thread::sleep(Duration::from_millis(1));
    }
    Ok(took)
}

/// What of a hundred answers 50, 99 and all take at most.
fn percentiles(mut took: Vec<u32>) -> String {
    took.sort_unstable();
    let at = |part: usize| took.get((took.len() * part / 100).min(took.len().max(1) - 1));
    let [half, most, all] = [50, 99, 100].map(|part| at(part).copied().unwrap_or(0));
    format!("{} answers, p50 {half} us, p99 {most} us, at most {all} us", took.len())
}

fn change(folder: &Path, number: u64) {
    let good = documents(number, false);
    match number % 8 {
        1 => write(folder, &good.replace("default", "defaut")),
        3 => write(folder, &good[..good.len() - 40]),
        5 => write(folder, &documents(number, true)),
        // In place, as no editor should.
        6 => std::fs::write(folder.join("rules.yaml"), &good).unwrap(),
        7 => std::fs::remove_file(folder.join("rules.yaml")).unwrap(),
        _ => write(folder, &good),
    }
}

fn soak(
    world: &World,
    netra: &Netra<'_>,
    folder: &Path,
    http: SocketAddr,
    span: Duration,
) -> Result<(), String> {
    let changes = u32::try_from((span.as_secs() * 5 / 3).max(40)).unwrap();
    let (is_changing, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let own = own();
    let get = "GET / HTTP/1.1\r\nHost: svc\r\nX-Request-Id: 1\r\n\r\n";
    let mut loads: Vec<(SocketAddr, &[u8], &[u8])> = vec![
        (http, get.as_bytes(), b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nbb"),
        ((CLIENT_V4, 6379).into(), b"PING\r\n", b"+PONG\r\n"),
        ((CLIENT_V4, 11211).into(), b"set a 0 0 1\r\nb\r\n", b"STORED\r\n"),
    ];
    loads.extend(
        own.iter()
            .map(|(port, asked, answer)| ((CLIENT_V4, *port).into(), &asked[..], &answer[..])),
    );
    let mut memory = Vec::new();
    let took = thread::scope(|scope| {
        let phases = (&is_changing, &is_over);
        let loads = loads.iter().flat_map(|load| [load; 2]);
        let asking: Vec<_> = loads
            .map(|(to, request, answer)| {
                scope.spawn(move || ask_on(&world.pod, *to, (request, answer), phases))
            })
            .collect();
        // As long again without a change, for what it is like then.
        thread::sleep(span / 4);
        is_changing.store(true, Relaxed);
        let begun = Instant::now();
        for number in 0..changes {
            change(folder, number.into());
            let until = begun + span * (number + 1) / changes;
            thread::sleep(until.saturating_duration_since(Instant::now()));
            memory.push(rss_anon(netra.pid()));
            if asking.iter().any(|asking| asking.is_finished()) {
                break;
            }
        }
        is_over.store(true, Relaxed);
        let took = asking.into_iter().map(|asking| asking.join().expect("a client"));
        took.collect::<Result<Vec<Took>, _>>()
    })?;
    write(folder, &documents(0, false));
    netra.scrape_until("the last rules are in force", |scrape| {
        scrape.sum("netra_rules_current", &[]) == 1 && scrape.sum("netra_rules", &[]) > 0
    })?;
    judge(netra, &took, &memory, changes.into())
}

/// Whether nobody has noticed anything, by what clients were answered and netra has counted.
fn judge(netra: &Netra<'_>, took: &[Took], memory: &[u64], changes: u64) -> Result<(), String> {
    let seen = netra.scrape();
    let of = |outcome| seen.sum("netra_rules_reload_total", &[("outcome", outcome)]);
    let (good, bad) = (of("good"), of("bad"));
    for (phase, what) in ["without changes", "with changes"].into_iter().enumerate() {
        let all = took.iter().flat_map(|it| it[phase].iter().copied()).collect();
        eprintln!("{what}: {}", percentiles(all));
    }
    eprintln!("{good} good and {bad} bad changes, {memory:?} bytes");
    if let Some(silent) = took.iter().position(|it| it[1].is_empty()) {
        return Err(format!("load {silent} was never answered while rules changed"));
    }
    let unread = ["netra_tunnels_total", "netra_opaque_total"].map(|name| seen.labels_of(name));
    if unread.iter().any(|reasons| !reasons.is_empty()) {
        return Err(format!("connections were not read to their end: {unread:?}"));
    }
    // Two connections each, in the order of the hosts; those of HTTP are counted elsewhere.
    for ((.., protocol, _, _), took) in HOSTS.iter().zip(took.chunks(2)).skip(1) {
        let answers: usize = took.iter().flatten().map(Vec::len).sum();
        let counted = seen.sum("netra_exchanges_total", &[("protocol", protocol)]);
        if counted != answers as u64 {
            return Err(format!("{protocol}: {counted} exchanges were read of {answers}"));
        }
    }
    // Changes that come while rules are compiled are one, and how long that takes is the machine's matter.
    if good < changes / 8 || bad == 0 {
        return Err(format!("of {changes} changes {good} were good and {bad} bad"));
    }
    // With small rules in force again there is less than the most there was, huge ones among it, while
    // the first half of the changes was made.
    let most = memory[..memory.len() / 2].iter().copied().max().unwrap_or(0);
    // What was huge goes back to the kernel a while after it is no longer in force.
    if !wait_until(PATIENCE, || rss_anon(netra.pid()) <= most) {
        return Err(format!("memory grows: at most {most}, then {}", rss_anon(netra.pid())));
    }
    match seen.sum("netra_messages_refused_total", &[]) {
        0 => Ok(()),
        refused => Err(format!("{refused} messages were refused")),
    }
}

/// What is spoken where, but for HTTP.
fn protocols() -> String {
    let others = HOSTS.iter().filter(|(_, _, protocol, ..)| *protocol != "http1");
    let named = others.map(|(_, port, protocol, ..)| format!("{port}={protocol}"));
    named.collect::<Vec<_>>().join(",")
}

/// Rules change all the time, also to bad ones, and nobody whose connection was there notices.
#[test]
fn heavy_reloads_disturb_nobody() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let http = webapp::serve(&world.client, CLIENT_V4, 2);
    let _redis = redis_server(&world, 6379);
    let mut command = world.client.command(tool("memcached", "memcached"));
    command.args(["-u", "nobody", "-l", "0.0.0.0", "-p", "11211", "-U", "0"]);
    let _memcached = Server::start(&world, &world.client, command, 11211);
    for (port, asked, answer) in own() {
        answering(&world, port, asked.len(), answer);
    }
    let folder = folder(&world);
    let rcon = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/protocols/rcon.yaml");
    let span = Duration::from_secs(setting("NETRA_TEST_SOAK_SECONDS", 30)) / 2;
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        write(&folder, &documents(0, false));
        let setup = Setup::new(cell)
            .env("NETRA_REPORTER", "none")
            .env("NETRA_HTTP_PORTS", http.port())
            .env("NETRA_PROTOCOLS", protocols())
            .env("NETRA_PROTOCOL_FILES", rcon)
            .env("NETRA_RULES", folder.display());
        let netra = Netra::start(&world, &setup);
        findings.check(cell, soak(&world, &netra, &folder, http, span));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// What a limit lets through, a second.
const PER_SECOND: u64 = 200;

/// Connections of which the first asks all the time, and the others ever more seldom.
fn overload(world: &World, to: SocketAddr, span: Duration) -> Result<[u64; 2], String> {
    let admitted = AtomicU64::new(0);
    let refused = AtomicU64::new(0);
    let deadline = Instant::now() + span;
    thread::scope(|scope| {
        let (admitted, refused) = (&admitted, &refused);
        let clients: Vec<_> = (0..6_u64)
            .map(|index| {
                scope.spawn(move || -> std::io::Result<()> {
                    let mut peer = script::connect(&world.client, to)?;
                    while Instant::now() < deadline {
                        let begun = Instant::now();
                        for _ in 0..(32 >> index).max(1) {
                            peer.write_all(b"SET k v\r\n")?;
                            match line(&mut peer)? {
                                b'+' => admitted.fetch_add(1, Relaxed),
                                _ => refused.fetch_add(1, Relaxed),
                            };
                        }
                        // In all about 640 a second: three times as many as may.
                        thread::sleep(Duration::from_millis(100).saturating_sub(begun.elapsed()));
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client"))
    })
    .map_err(|error| error.to_string())?;
    Ok([admitted.into_inner(), refused.into_inner()])
}

/// The first byte of a line, which is read.
fn line(peer: &mut TcpStream) -> std::io::Result<u8> {
    let (mut first, mut byte) = (None, [0]);
    loop {
        peer.read_exact(&mut byte)?;
        let first = *first.get_or_insert(byte[0]);
        if byte == *b"\n" {
            return Ok(first);
        }
    }
}

/// Three times as much is asked as may be: what is let through is what the rule says, whatever the
/// shards and however connections are spread over them.
#[test]
fn heavy_overload_is_limited_to_the_number() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut command = world.pod.command(tool("redis-server", "redis-server"));
    command.args(["--port", "6379", "--save", "", "--appendonly", "no", "--protected-mode", "no"]);
    command.args(["--bind", "0.0.0.0", "--dir", "/"]);
    let _server = Server::start(&world, &world.pod, command, 6379);
    let span = Duration::from_secs(setting("NETRA_TEST_LIMIT_SECONDS", 10));
    let folder = folder(&world);
    let mut findings = Findings::default();
    let cells: Vec<Cell> = cells();
    for cell in cells {
        let rules = format!(
            "{}apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: cache}}\nspec:\n  \
             hosts: [cache]\n  localRateLimit:\n    tokenBucket: {{maxTokens: {PER_SECOND}, \
             tokensPerFill: {few}, fillInterval: 100ms}}\n",
            entry("cache", &POD_V4.to_string(), 6379, "tcp-redis"),
            few = PER_SECOND / 10,
        );
        write(&folder, &rules);
        let setup = Setup::new(cell)
            .env("NETRA_REPORTER", "none")
            .env("NETRA_PROTOCOLS", "6379=redis")
            .env("NETRA_RULES", folder.display());
        let netra = Netra::start(&world, &setup);
        let begun = Instant::now();
        let result =
            overload(&world, (POD_V4, 6379).into(), span).and_then(|[admitted, refused]| {
                let asked = admitted + refused;
                // The bucket is full at first, for a second in which clients may not get to ask.
                let may = PER_SECOND
                    + PER_SECOND * u64::try_from(begun.elapsed().as_millis()).unwrap() / 1000;
                eprintln!("[{cell}] {admitted} of {asked}, the rule says {may}");
                // One filling more or less, besides one in a hundred.
                let is_it = admitted.abs_diff(may) <= may / 100 + PER_SECOND / 10;
                let is_much = asked > may * 2;
                if is_it && is_much {
                    Ok(())
                } else {
                    Err(format!("{admitted} of {asked}, not {may}"))
                }
            });
        findings.check(cell, result);
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}
