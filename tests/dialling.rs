//! How netra dials: what its sockets are given, where they come from, and whom it does not dial.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{panic, thread};
use support::matrix::{self, Findings, Route};
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::script::{self, End};
use support::wait_until;
use support::world::{
    CLIENT_V4, CLIENT_V6, Namespace, POD_SECOND_V4, POD_SECOND_V6, POD_V4, POD_V6, World, checked,
    ip,
};

/// A port that netra reads as HTTP, and one that it does not.
const HTTP_PORT: u16 = 8080;
const RAW_PORT: u16 = 9000;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n";
const BODY: &[u8] = &[b'x'; 300];

/// Answers each request of each connection in two writes, with Nagle's algorithm on, as Python's
/// http.server and Java's com.sun.net.httpserver do: the second segment waits for the
/// acknowledgement of the first.
fn answer_in_two_segments(listener: &TcpListener, connections: usize) -> io::Result<()> {
    for _ in 0..connections {
        let (mut peer, _) = listener.accept()?;
        peer.set_read_timeout(Some(Duration::from_secs(15)))?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut bytes = [0; 1024];
            match script::read(&mut peer, &mut bytes)? {
                0 => break,
                n => request.extend_from_slice(&bytes[..n]),
            }
        }
        peer.write_all(HEAD)?;
        peer.write_all(BODY)?;
        // To end the connection now would send what waits.
        script::read(&mut peer, &mut [0])?;
    }
    Ok(())
}

/// Connections whose first answer took as long as a delayed acknowledgement. Netra finds each with
/// its request, as it does when it is busy.
fn slow_answers(
    route: Route<'_>,
    port: u16,
    connections: usize,
    netra: Option<&Netra<'_>>,
) -> io::Result<usize> {
    let signal = |signal| netra.inspect(|netra| netra.signal(signal));
    let address = SocketAddr::new(route.address, port);
    let listener = route.server.enter(|| TcpListener::bind(address))?;
    thread::scope(|scope| {
        let server = scope.spawn(|| answer_in_two_segments(&listener, connections));
        let mut slow = 0;
        for _ in 0..connections {
            signal(Signal::SIGSTOP);
            let mut client = script::connect(route.client, address)?;
            client.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n")?;
            let begun = Instant::now();
            signal(Signal::SIGCONT);
            client.read_exact(&mut vec![0; HEAD.len() + BODY.len()])?;
            slow += usize::from(begun.elapsed() > Duration::from_millis(35));
        }
        server.join().expect("the server's thread")?;
        Ok(slow)
    })
}

/// What saves a packet of the handshake must not slow down what follows it. A machine that is busy
/// may be slow once in a while, so the calmest of three rounds counts.
#[test]
fn a_server_that_writes_in_two_segments_answers_at_once() {
    const CONNECTIONS: usize = 20;
    let Some(world) = World::new() else { return };
    let calmest = |route: Route<'_>, port, netra: Option<&Netra<'_>>| {
        let rounds = (0..3).map(|_| slow_answers(route, port, CONNECTIONS, netra));
        let mut fewest = CONNECTIONS;
        for slow in rounds {
            fewest = fewest.min(slow.map_err(|error| error.to_string())?);
            if fewest <= 2 {
                break;
            }
        }
        if fewest <= 2 {
            return Ok(());
        }
        Err(format!("{fewest} of {CONNECTIONS} first answers were slow"))
    };
    for route in matrix::routes(&world) {
        calmest(route, RAW_PORT, None).unwrap_or_else(|what| panic!("{}: {what}", route.name));
    }
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells_with(1) {
        let netra = Netra::start(&world, &Setup::new(cell).env("NETRA_HTTP_PORTS", HTTP_PORT));
        for route in matrix::routes(&world) {
            for port in [RAW_PORT, HTTP_PORT] {
                let met = calmest(route, port, Some(&netra));
                findings.check(format!("{cell} {} {port}", route.name), met);
            }
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// A server that greets each connection, waits for its end, and notes whom it came from.
struct Greeter<'a> {
    listener: &'a TcpListener,
    is_over: &'a AtomicBool,
}

impl Greeter<'_> {
    fn greet(self) -> BTreeMap<IpAddr, usize> {
        let mut callers = BTreeMap::new();
        self.listener.set_nonblocking(true).expect("a listener");
        loop {
            match self.listener.accept() {
                Ok((peer, caller)) => {
                    *callers.entry(caller.ip()).or_default() += 1;
                    // Whoever went away is missed by nobody.
                    drop(Self::converse(peer));
                }
                Err(_) if self.is_over.load(Relaxed) => return callers,
                Err(_) => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn converse(mut peer: TcpStream) -> io::Result<usize> {
        peer.set_nonblocking(false)?;
        peer.set_read_timeout(Some(Duration::from_secs(5)))?;
        peer.write_all(b"hello")?;
        script::read(&mut peer, &mut [0])
    }
}

/// Does something while these are listened on and greeted from, and gives back the callers, too.
fn while_greeting<T>(
    listeners: &[TcpListener],
    work: impl FnOnce() -> T,
) -> (T, BTreeMap<IpAddr, usize>) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let greeter = |listener| Greeter { listener, is_over: &is_over };
        let servers: Vec<_> =
            listeners.iter().map(|one| scope.spawn(move || greeter(one).greet())).collect();
        let done = panic::catch_unwind(panic::AssertUnwindSafe(work));
        is_over.store(true, Relaxed);
        let callers = servers.into_iter().flat_map(|server| server.join().expect("a server"));
        let callers = callers.collect();
        (done.unwrap_or_else(|panic| panic::resume_unwind(panic)), callers)
    })
}

/// One connection that its client ends first: what it was greeted with.
fn greeted(mut client: TcpStream) -> io::Result<bool> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut greeting = [0; 5];
    client.read_exact(&mut greeting)?;
    client.shutdown(Shutdown::Write)?;
    Ok(script::read(&mut client, &mut [0])? == 0 && &greeting == b"hello")
}

/// So many short connections into the pod, `burst` in a second: those that were greeted, and whom
/// the application saw.
fn short_connections(
    world: &World,
    address: IpAddr,
    connections: usize,
    burst: usize,
) -> (usize, BTreeMap<IpAddr, usize>) {
    let address = SocketAddr::new(address, RAW_PORT);
    let listener = world.pod.enter(|| TcpListener::bind(address)).expect("bind");
    while_greeting(&[listener], || {
        let mut well = 0;
        for number in 0..connections {
            let greeted = script::connect(&world.client, address).and_then(greeted);
            well += usize::from(greeted.is_ok_and(|whole| whole));
            if number % burst == burst - 1 {
                thread::sleep(Duration::from_millis(1_100));
            }
        }
        well
    })
}

/// Netra has one address for all clients, and of each of its ports the kernel says for a minute that
/// it is taken where the client ends first. There must be more connections than that: as many
/// as there are clients' addresses without netra. Until ports run short the application
/// sees the address that it always sees.
#[test]
fn connections_go_on_when_the_local_ports_of_one_address_are_used_up() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells_with(1) {
        let netra = Netra::start(&world, &Setup::new(cell));
        // Where one netra has left its ports in TIME_WAIT the next has others.
        let first = if cell.driver == matrix::Driver::Epoll { 20_000 } else { 21_000 };
        world.pod.sysctl("ipv4/ip_local_port_range", &format!("{first} {}", first + 199));
        // A second one of v4 has eight spare sources; of v6 there is one, the loopback address.
        for (address, burst) in [(POD_V4, 600), (POD_V6, 150)] {
            let before = netra.scrape().sum("netra_spare_source_total", &[]);
            let (well, callers) = short_connections(&world, address, 600, burst);
            let cell = format!("{cell} {address}");
            if well != 600 {
                findings.note(&cell, format!("{well} of 600 connections, from {callers:?}"));
            }
            let usual = callers.get(&address).copied().unwrap_or_default();
            if usual < 190 {
                findings.note(&cell, format!("{usual} from the usual address: {callers:?}"));
            }
            if !callers.keys().all(|ip| *ip == address || ip.is_loopback()) {
                findings.note(&cell, format!("other callers: {callers:?}"));
            }
            let spare = netra.scrape().sum("netra_spare_source_total", &[]) - before;
            if spare + usual as u64 != 600 {
                findings.note(&cell, format!("{spare} counted as spare, {usual} usual"));
            }
        }
        let said = || netra.log().matches("local ports run short").count();
        if !wait_until(Duration::from_secs(5), || said() > 0) || said() != 1 {
            findings.note(cell, format!("said {} times that ports run short", said()));
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// Who does not want that the application sees loopback addresses gets what was before.
#[test]
fn without_spare_sources_none_is_used() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let cell = matrix::cells_with(1)[0];
    let netra = Netra::start(&world, &Setup::new(cell).env("NETRA_SPARE_SOURCES", "none"));
    world.pod.sysctl("ipv4/ip_local_port_range", "20000 20049");
    let (well, callers) = short_connections(&world, POD_V4, 60, 60);
    assert!((45..60).contains(&well), "{well} of 60: {callers:?}");
    let labels = [("errno", "EADDRNOTAVAIL")];
    let failed = netra.scrape().sum("netra_upstream_connect_failures_total", &labels);
    assert_eq!(failed, 60 - well as u64);
    netra.finish().expect("a clean end");
}

/// Rules of old: all that comes in is redirected, whomever it is for.
const REDIRECT_ALL: &str = "table inet catch_all {
    chain prerouting {
        type nat hook prerouting priority dstnat
        meta l4proto tcp tcp dport != { 14956, 14957, 14958 } redirect to :14956
    }
}";

fn nft(namespace: &Namespace, rules: &str) {
    let mut command = namespace.command("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("nft (Debian package nftables)");
    child.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("nft reads its rules");
    checked(child.wait_with_output().expect("nft"), rules);
}

/// Connects and waits for what comes: the end, or bytes.
fn end_of(from: &Namespace, address: SocketAddr) -> End {
    match script::connect(from, address) {
        Err(error) => script::end_of(&error),
        Ok(mut peer) => match script::read(&mut peer, &mut [0; 16]) {
            Ok(0) => End::Eof,
            Ok(_) => End::Open,
            Err(error) => script::end_of(&error),
        },
    }
}

/// A neighbour on the link routes addresses through the pod that are nobody's there. Without
/// netra the kernel drops what is for the loopback address and does not forward the rest.
#[test]
fn a_neighbour_reaches_nothing_but_the_pods_own_addresses() {
    let Some(world) = World::new() else { return };
    nft(&world.pod, REDIRECT_ALL);
    let metadata: IpAddr = "169.254.169.254".parse().expect("an address");
    let loopback: IpAddr = "127.0.0.1".parse().expect("an address");
    let [third_v4, third_v6] = world.blackhole();
    for name in ["all", "eth0"] {
        world.client.sysctl(&format!("ipv4/conf/{name}/route_localnet"), "1");
    }
    ip(
        &world.client,
        &format!(
            "addr del 127.0.0.1/8 dev lo\nroute add {loopback} via {POD_V4}\n\
             route add {metadata} via {POD_V4}\nroute add {third_v4} via {POD_V4}\n\
             route add {third_v6} via {POD_V6}\n"
        ),
    );
    let secrets = world.pod.enter(|| TcpListener::bind((loopback, RAW_PORT))).expect("bind");
    let own = [POD_V4, POD_SECOND_V4, POD_V6, POD_SECOND_V6];
    let bind = |address| world.pod.enter(|| TcpListener::bind((address, RAW_PORT))).expect("bind");
    while_greeting(&own.map(bind), || {
        let mut findings = Findings::default();
        for cell in matrix::cells_with(1) {
            let netra = Netra::start(&world, &Setup::new(cell));
            let mut expected = 0;
            for address in [loopback, metadata, third_v4, third_v6] {
                let begun = Instant::now();
                let end = end_of(&world.client, (address, RAW_PORT).into());
                if end != End::Reset || begun.elapsed() > Duration::from_secs(2) {
                    findings.note(cell, format!("{address}: {end:?}, {:?}", begun.elapsed()));
                }
                expected += 1;
            }
            for address in own {
                let end = end_of(&world.client, (address, RAW_PORT).into());
                if end != End::Open {
                    findings.note(cell, format!("{address}, its own: {end:?}"));
                }
            }
            let scrape = netra.scrape();
            let rejected = scrape.sum("netra_foreign_destination_total", &[]);
            let opened = scrape.opened("inbound") + scrape.opened("outbound");
            if (rejected, opened) != (expected, 4) {
                findings.note(cell, format!("{rejected} rejected, {opened} opened"));
            }
            let said = || netra.log().matches("for the loopback address or for another").count();
            if !wait_until(Duration::from_secs(5), || said() > 0) || said() != 1 {
                findings.note(cell, format!("said {} times", said()));
            }
            findings.check(cell, netra.finish());
        }
        drop(secrets);
        findings.conclude();
    });
}

/// Guests send through the pod, so what comes in by their link may be for anybody; for the loopback
/// address not even theirs.
#[test]
fn guests_reach_others_through_the_pod() {
    let Some(world) = World::new() else { return };
    nft(&world.pod, REDIRECT_ALL);
    let mut findings = Findings::default();
    for cell in matrix::cells_with(1) {
        let [third_v4, third_v6] = world.blackhole();
        let routes =
            format!("route add {third_v4} via {POD_V4}\nroute add {third_v6} via {POD_V6}\n");
        ip(&world.client, &routes);
        let setup = Setup::new(cell)
            .env("NETRA_REROUTE_INTERFACES", "no-such0,eth*")
            .env("NETRA_CONNECT_TIMEOUT_MS", 200);
        let netra = Netra::start(&world, &setup);
        for address in [third_v4, third_v6] {
            end_of(&world.client, (address, RAW_PORT).into());
        }
        findings.check(cell, netra.scrape_until("two dials", |s| s.closed("dial_timeout") == 2));
        let rejected = netra.scrape().sum("netra_foreign_destination_total", &[]);
        if rejected != 0 {
            findings.note(cell, format!("{rejected} rejected"));
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// Where the rules do not leave netra's user alone, they send its dials back to it.
#[test]
fn netra_as_a_user_that_the_rules_redirect_does_not_dial_itself_for_ever() {
    /// Dials until the first that comes back has been noted on all shards, and some: without end there
    /// were 3,006.
    const FEW: u64 = 150;
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in matrix::cells() {
        let netra = Netra::start(&world, &Setup::new(cell).user(0));
        for route in matrix::routes(&world) {
            let listener = script::listen(route.server, route.address);
            let address = listener.local_addr().expect("a bound listener");
            let ((end, opened), _) = while_greeting(&[listener], || {
                let before = netra.scrape().opened("outbound");
                let end = end_of(route.client, address);
                (end, netra.scrape().opened("outbound") - before)
            });
            let expected = if route.direction == "inbound" { End::Open } else { End::Reset };
            if end != expected || opened > FEW {
                findings.note(cell, format!("{}: {end:?}, {opened} dials", route.name));
            }
        }
        if netra.scrape().sum("netra_own_dial_rejected_total", &[]) == 0 {
            findings.note(cell, "no dial of its own was recognised");
        }
        let said = || netra.log().matches("send netra's own connections back").count();
        if !wait_until(Duration::from_secs(5), || said() > 0) || said() != 1 {
            findings.note(cell, format!("said {} times", said()));
        }
        if !netra.log().contains("netra is root") {
            findings.note(cell, "nothing said at the start");
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// A connection from an address that was chosen.
fn connect_from(namespace: &Namespace, source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    namespace.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
        Ok(socket.into())
    })
}

/// What the application has bound to an address leaves by it: a pod with two networks has a reason
/// to choose. What it has left to the kernel is left to it.
#[test]
fn an_address_that_the_application_chose_is_kept() {
    let Some(world) = World::new() else { return };
    let second = format!(
        "link add eth1 index 20 type veth peer name eth1 index 21 netns {}\n\
         addr add 10.62.0.1/24 dev eth1\naddr add fd62::1/64 dev eth1 nodad\nlink set eth1 up\n",
        world.pod.path()
    );
    ip(&world.client, &second);
    ip(
        &world.pod,
        "addr add 10.62.0.2/24 dev eth1\naddr add fd62::2/64 dev eth1 nodad\nlink set eth1 up\n",
    );
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (net_v4, net_v6) = (address("10.62.0.2"), address("fd62::2"));
    let choices = [
        (CLIENT_V4, None, POD_V4),
        (CLIENT_V4, Some(POD_SECOND_V4), POD_SECOND_V4),
        (CLIENT_V4, Some(net_v4), net_v4),
        (address("10.62.0.1"), None, net_v4),
        (address("10.62.0.1"), Some(POD_V4), POD_V4),
        (CLIENT_V6, Some(POD_SECOND_V6), POD_SECOND_V6),
        (CLIENT_V6, Some(net_v6), net_v6),
        (address("fd62::1"), None, net_v6),
        (address("fd62::1"), Some(POD_V6), POD_V6),
    ];
    let seen = |to: IpAddr, source: Option<IpAddr>| -> io::Result<IpAddr> {
        let listener = script::listen(&world.client, to);
        let to = listener.local_addr()?;
        let peer = match source {
            Some(source) => connect_from(&world.pod, source, to)?,
            None => script::connect(&world.pod, to)?,
        };
        let (_, caller) = listener.accept()?;
        drop(peer);
        Ok(caller.ip())
    };
    let mut findings = Findings::default();
    let mut check = |how: String| {
        for (to, source, expected) in choices {
            match seen(to, source) {
                Ok(caller) if caller == expected => {}
                other => findings.note(&how, format!("{to} from {source:?}: {other:?}")),
            }
        }
    };
    // The v6 address of a link that has just come up is there a moment later.
    let is_up = || connect_from(&world.pod, net_v6, (CLIENT_V6, 9).into());
    wait_until(Duration::from_secs(5), || {
        is_up().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
    check("directly".to_owned());
    apply_rules(&world, Backend::NftNative);
    for cell in matrix::cells_with(1) {
        let netra = Netra::start(&world, &Setup::new(cell));
        check(cell.to_string());
        assert_eq!(netra.scrape().opened("outbound"), choices.len() as u64);
        drop(netra);
    }
    findings.conclude();
}
