//! Fleets of which some endpoints are nearer, worse than the others, new, or move: whom requests are sent
//! to, by what servers themselves have counted.

use crate::{
    in_cells,
    names_of_rules::{SECOND_V4, THIRD_V4, endpoints, name_server},
    peer,
    routes_of_others::redis_server,
    support::{
        PATIENCE,
        matrix::cells_with,
        netra::{ADMIN_PORT, Setup},
        programs::{Server, tool},
        scrape,
        spans::python_path,
        wait_until, webapp,
        world::{CLIENT_V4, Namespace, World, ip},
    },
    write,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const PORT: u16 = 8080;

/// What a server answers.
const WELL: u8 = 0;
/// Every second request with an error.
const HALF: u8 = 1;
const UNWELL: u8 = 2;

/// A server of HTTP on an address of the client's namespace, until the test ends.
#[derive(Clone, Debug, Default)]
struct Counting {
    says: Arc<AtomicU8>,
    /// Requests, but for those of checks.
    asked: Arc<AtomicU64>,
}

impl Counting {
    fn start(world: &World, address: IpAddr, port: u16) -> Self {
        let bound = world.client.enter(|| TcpListener::bind((address, port)));
        let listener = bound.unwrap_or_else(|error| panic!("{address}:{port}: {error}"));
        let server = Self::default();
        let shared = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                thread::spawn(move || server.answer(stream));
            }
        });
        server
    }

    fn answer(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let mut writer = stream;
        loop {
            let first = lines.next()?.ok()?;
            while !lines.next()?.ok()?.is_empty() {}
            let number = match first.contains("/healthz") {
                true => 0,
                false => self.asked.fetch_add(1, Relaxed),
            };
            let is_bad = match self.says.load(Relaxed) {
                HALF => number % 2 == 1,
                says => says == UNWELL,
            };
            let status = if is_bad { 500 } else { 200 };
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
            writer.write_all(answer.as_bytes()).ok()?;
        }
    }
}

/// Servers on ports of one address, from [`PORT`] on.
fn servers(world: &World, count: u16) -> Vec<Counting> {
    (0..count).map(|it| Counting::start(world, CLIENT_V4, PORT + it)).collect()
}

/// Those servers as endpoints of one host, each with more of its own.
fn documents(endpoints: &[&str], annotations: &str, policy: &str) -> String {
    let endpoints: String = endpoints
        .iter()
        .zip(PORT..)
        .map(|(more, port)| {
            format!("  - {{address: {CLIENT_V4}, ports: {{http: {port}}}{more}}}\n")
        })
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [shop]\n  ports: [{{number: {PORT}, name: http}}]\n  resolution: STATIC\n  \
         endpoints:\n{endpoints}---\n{}",
        rest_of("shop", annotations, policy)
    )
}

/// A DestinationRule and a Router of a host.
fn rest_of(host: &str, annotations: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, \
         annotations: {{{annotations}}}}}\nspec:\n  host: {host}\n  trafficPolicy: {{{policy}}}\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: {host}}}\nspec:\n  \
         hosts: [{host}]\n  routes: [{{route: [{{destination: {{host: {host}}}}}]}}]\n---\n"
    )
}

fn http(setup: Setup) -> Setup {
    setup.env("NETRA_HTTP_PORTS", PORT)
}

fn at() -> SocketAddr {
    (CLIENT_V4, PORT).into()
}

/// How many requests each server gets of so many, of a connection each; and how many failed.
fn shares(world: &World, servers: &[Counting], count: usize) -> (Vec<u64>, usize) {
    let seen = || servers.iter().map(|it| it.asked.load(Relaxed)).collect::<Vec<_>>();
    let before = seen();
    let ask = || webapp::Client::connect(&world.pod, at()).get("/");
    let failed = (0..count).filter(|_| ask() != 200).count();
    (seen().iter().zip(before).map(|(after, before)| after - before).collect(), failed)
}

/// Waits until `/clusters` says of a host's endpoints how many are in each state.
fn states(world: &World, host: &str, wanted: &[(&str, usize)]) -> Result<String, String> {
    let mut page = String::new();
    let is_it = wait_until(PATIENCE, || {
        let Ok((_, text)) = scrape::get(&world.pod, ADMIN_PORT, "/clusters") else { return false };
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let clusters = all["clusters"].as_array().expect("clusters");
        let Some(cluster) = clusters.iter().find(|it| it["name"] == host) else { return false };
        page = cluster.to_string();
        let endpoints = cluster["endpoints"].as_array().expect("endpoints");
        let count = |state: &str| endpoints.iter().filter(|it| it["state"] == state).count();
        wanted.iter().all(|(state, expected)| count(state) == *expected)
    });
    if is_it { Ok(page) } else { Err(format!("{host}: not {wanted:?} but {page}")) }
}

/// Three in this zone and two in another: those here have all of it while they are well, and 1.4 times the
/// part of them that is well after.
#[test]
fn who_is_nearer_is_asked_and_others_take_what_is_too_much() {
    let Some(world) = World::new() else { return };
    let servers = servers(&world, 5);
    let (here, there) = (", locality: eu/a", ", locality: eu/b");
    let annotations = "netra.io/health-check: http, netra.io/health-check-path: /healthz, \
                       netra.io/health-check-interval: 1s, netra.io/health-check-unhealthy: \"1\", \
                       netra.io/health-check-healthy: \"1\"";
    let policy = "loadBalancer: {localityLbSetting: {}}";
    let rules = documents(&[here, here, here, there, there], annotations, policy);
    let prepare = |setup: Setup| http(setup).env("NETRA_LOCALITY", "eu/a");
    in_cells(&world, &cells_with(1)[..1], &rules, prepare, |_, _| {
        let near_alone = || {
            let (asked, failed) = shares(&world, &servers, 60);
            let is_it = failed == 0 && asked[..3].iter().all(|it| *it > 5) && asked[3..] == [0, 0];
            if is_it { Ok(()) } else { Err(format!("{asked:?} of 60, {failed} failed")) }
        };
        states(&world, "shop", &[("up", 5)])?;
        near_alone()?;
        servers[1].says.store(UNWELL, Relaxed);
        servers[2].says.store(UNWELL, Relaxed);
        states(&world, "shop", &[("unhealthy", 2), ("up", 3)])?;
        // A third of them is well, and gets 47 % of it.
        let (asked, failed) = shares(&world, &servers, 300);
        let far = asked[3] + asked[4];
        if failed > 0 || asked[1..3] != [0, 0] || !(115..=205).contains(&far) {
            return Err(format!("{asked:?} of 300, {failed} failed"));
        }
        servers[1].says.store(WELL, Relaxed);
        servers[2].says.store(WELL, Relaxed);
        states(&world, "shop", &[("up", 5)])?;
        near_alone()
    });
}

/// One of five fails every second request: never twice in a row, and more often than the others.
#[test]
fn who_answers_worse_than_the_others_is_left_out() {
    let Some(world) = World::new() else { return };
    let servers = servers(&world, 5);
    let annotations = "netra.io/success-rate-request-volume: \"20\"";
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3, \
                  interval: 1s, baseEjectionTime: 2s}";
    let rules = documents(&[""; 5], annotations, policy);
    in_cells(&world, &cells_with(1)[..1], &rules, http, |netra, _| {
        let (asked, failed) = shares(&world, &servers, 50);
        if asked != [10; 5] || failed > 0 {
            return Err(format!("{asked:?} of 50, {failed} failed"));
        }
        servers[3].says.store(HALF, Relaxed);
        let ejected = || {
            let (asked, failed) = shares(&world, &servers, 50);
            asked[3] == 0 && failed == 0
        };
        if !wait_until(PATIENCE, ejected) {
            return Err("who fails every second request is still asked".into());
        }
        let page = states(&world, "shop", &[("up", 4)])?;
        if !page.contains("\"why\":\"success_rate\"") {
            return Err(page);
        }
        servers[3].says.store(WELL, Relaxed);
        if !wait_until(PATIENCE, || shares(&world, &servers, 50).0[3] >= 10) {
            return Err("who is well again is not asked".into());
        }
        states(&world, "shop", &[("up", 5)])?;
        let cluster = [("cluster", "shop")];
        match netra.scrape().sum("netra_cluster_ejections_total", &cluster) {
            1 => Ok(()),
            count => Err(format!("{count} ejections")),
        }
    });
}

/// A change of rules brings a third server: it begins with a tenth of its part.
#[test]
fn who_is_new_begins_with_little() {
    let Some(world) = World::new() else { return };
    let servers = servers(&world, 3);
    let policy = "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 4s}}";
    let rules = |count: usize| documents(&[""; 3][..count], "", policy);
    in_cells(&world, &cells_with(1)[..1], &rules(2), http, |_, folder| {
        // Those of the start are not new.
        let (asked, _) = shares(&world, &servers, 40);
        if asked != [20, 20, 0] {
            return Err(format!("{asked:?} of 40"));
        }
        write(folder, &rules(3));
        states(&world, "shop", &[("warming", 1), ("up", 2)])?;
        let begun = Instant::now();
        let (asked, failed) = shares(&world, &servers, 100);
        // In whatever time that took, it had less than its part by the time's end.
        let most = 100.0 * begun.elapsed().as_secs_f64().mul_add(0.25, 0.2) / 2.0;
        #[allow(clippy::cast_precision_loss, reason = "at most a hundred")]
        if failed > 0 || asked[2] == 0 || asked[2] as f64 > most {
            return Err(format!("{asked:?} of 100, {failed} failed, new at most {most}"));
        }
        states(&world, "shop", &[("up", 3)])?;
        let (asked, failed) = shares(&world, &servers, 90);
        match (&asked[..], failed) {
            ([28..=32, 28..=32, 28..=32], 0) => Ok(()),
            _ => Err(format!("{asked:?} of 90, {failed} failed")),
        }
    });
}

/// The addresses of a name change while four clients ask without a pause, half of them on connections
/// that they keep: nobody has an error, and who has left is asked nothing more.
#[test]
fn addresses_of_a_name_change_under_load() {
    let Some(world) = World::new() else { return };
    ip(
        &world.client,
        &format!("addr add {SECOND_V4}/24 dev eth0\naddr add {THIRD_V4}/24 dev eth0\n"),
    );
    let IpAddr::V4(first) = CLIENT_V4 else { panic!("of IPv6") };
    let turn = Arc::default();
    name_server(&world, &turn);
    let addresses: [Ipv4Addr; 3] = [first, SECOND_V4, THIRD_V4];
    let servers = addresses.map(|it| Counting::start(&world, it.into(), PORT));
    let rules = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [shop]\n  ports: [{{number: {PORT}, name: http}}]\n  resolution: DNS\n---\n{}",
        rest_of("shop", "", "loadBalancer: {simple: ROUND_ROBIN}")
    );
    let prepare = |setup: Setup| http(setup).file("/etc/resolv.conf", "nameserver 127.0.0.1\n");
    in_cells(&world, &cells_with(1)[..1], &rules, prepare, |_, _| {
        turn.store(0, Relaxed);
        endpoints(&world, PORT, &[first, SECOND_V4])?;
        let is_over = AtomicBool::new(false);
        let load = |keeps: bool| {
            let connect = || webapp::Client::connect(&world.pod, at());
            let (mut client, mut bad) = (connect(), 0);
            while !is_over.load(Relaxed) {
                bad += u32::from(client.get("/") != 200);
                thread::sleep(Duration::from_millis(1));
                if !keeps {
                    client = connect();
                }
            }
            bad
        };
        let asked = |of: usize| servers[of].asked.load(Relaxed);
        let (found, bad) = thread::scope(|scope| {
            let clients = [true, true, false, false].map(|keeps| scope.spawn(move || load(keeps)));
            let found = (|| {
                let is_spread = || asked(0) > 50 && asked(1) > 50;
                if !wait_until(PATIENCE, is_spread) {
                    return Err(format!("{} and {} were asked", asked(0), asked(1)));
                }
                turn.store(1, Relaxed);
                endpoints(&world, PORT, &[first, THIRD_V4])?;
                // What was under way at who has left may end there.
                thread::sleep(Duration::from_millis(100));
                let (left, come) = (asked(1), asked(2));
                if !wait_until(PATIENCE, || asked(2) > come + 50) {
                    return Err(format!("who has come was asked {} times", asked(2)));
                }
                match asked(1) - left {
                    0 => Ok(()),
                    count => Err(format!("who has left was asked {count} times more")),
                }
            })();
            is_over.store(true, Relaxed);
            let bad: u32 = clients.into_iter().map(|it| it.join().expect("no client fails")).sum();
            (found, bad)
        });
        found?;
        if bad > 0 { Err(format!("{bad} requests failed")) } else { Ok(()) }
    });
}

/// A server of a protocol on a port of the client's namespace.
fn server_of(world: &World, protocol: &str, port: u16) -> Server {
    let namespace: &Namespace = &world.client;
    let (host, port_text) = (CLIENT_V4.to_string(), port.to_string());
    let mut command = namespace.command(match protocol {
        "memcached" => tool("memcached", "memcached"),
        _ => python_path(),
    });
    match protocol {
        "http" => command.args(["-m", "http.server", &port_text, "--bind", &host]),
        "memcached" => command.args(["-u", "nobody", "-l", "0.0.0.0", "-p", &port_text, "-U", "0"]),
        "dubbo" => command.args([&peer("dubbo_peer.py"), "server", &port_text]),
        _ => command.args([&peer("grpc_peer.py"), "known-server", &host, &port_text]),
    };
    Server::start(world, namespace, command, port)
}

/// Servers of nobody here are asked in four protocols: two are well and one speaks another protocol; then
/// one of the two is killed.
#[test]
fn checks_tell_servers_of_others_that_are_well_from_those_that_are_not() {
    let Some(world) = World::new() else { return };
    let protocols = [("http", 9000_u16), ("memcached", 9100), ("dubbo", 9200), ("grpc", 9300)];
    let _other = redis_server(&world, 6379);
    let mut rules = String::new();
    for (protocol, port) in protocols {
        let ports = [port, port + 1, 6379];
        let endpoints =
            ports.map(|it| format!("  - {{address: {CLIENT_V4}, ports: {{tcp-it: {it}}}}}\n"));
        let path = if protocol == "http" { ", netra.io/health-check-path: /" } else { "" };
        let annotations = format!(
            "netra.io/health-check: {protocol}{path}, netra.io/health-check-interval: 1s, \
             netra.io/health-check-unhealthy: \"1\", netra.io/health-check-healthy: \"1\""
        );
        rules += &format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {protocol}}}\n\
             spec:\n  hosts: [{protocol}]\n  ports: [{{number: {port}, name: tcp-it}}]\n  \
             resolution: STATIC\n  endpoints:\n{}---\n{}",
            endpoints.concat(),
            rest_of(protocol, &annotations, "")
        );
    }
    let start = |number: u16| protocols.map(|(it, port)| server_of(&world, it, port + number));
    let _first = start(0);
    let prepare = |setup: Setup| setup.env("NETRA_HTTP_PORTS", "9000");
    in_cells(&world, &cells_with(1)[..1], &rules, prepare, |_, _| {
        let second = start(1);
        for (protocol, _) in protocols {
            states(&world, protocol, &[("up", 2), ("unhealthy", 1)])?;
        }
        // SIGKILL.
        drop(second);
        for (protocol, _) in protocols {
            let page = states(&world, protocol, &[("up", 1), ("unhealthy", 2)])?;
            if !page.contains("\"why\":\"check_refused\"") {
                return Err(page);
            }
        }
        Ok(())
    });
}

/// A server of a program of its own, which takes 10 ms for an answer.
fn killable(world: &World, port: u16) -> Server {
    let mut command = world.client.command("python3");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/bench/fleets.py");
    command.args([program, "serve", &port.to_string(), "0.01"]);
    Server::start(world, &world.client, command, port)
}

/// About 2,000 reads a second on 32 connections, of which none may fail or end, while three of five
/// servers are killed one after the other: where a route lets them be asked again.
#[test]
fn reads_survive_servers_that_are_killed() {
    let Some(world) = World::new() else { return };
    let policy = "retryBudget: {percent: 50, minRetryConcurrency: 20}, outlierDetection: \
                  {consecutive5xxErrors: 5, baseEjectionTime: 1s, maxEjectionPercent: 50}";
    let rules = documents(&[""; 5], "netra.io/balance-by: message", policy)
        .replace("host: shop}}]}]", "host: shop}}], retry: {on: [reset]}}]");
    in_cells(&world, &cells_with(2), &rules, http, |netra, _| {
        // The first is where connections want to go, and stays.
        let mut fleet: Vec<Option<Server>> =
            (PORT..PORT + 5).map(|port| Some(killable(&world, port))).collect();
        let is_over = AtomicBool::new(false);
        let asked = AtomicU64::new(0);
        let bad = thread::scope(|scope| {
            let client = || {
                let mut client = webapp::Client::connect(&world.pod, at());
                let (mut bad, mut due) = (0, Instant::now());
                while !is_over.load(Relaxed) {
                    bad += u32::from(client.get("/") != 200);
                    asked.fetch_add(1, Relaxed);
                    due += Duration::from_millis(16);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                bad
            };
            let clients: Vec<_> = (0..32).map(|_| scope.spawn(client)).collect();
            for victim in 1..4 {
                thread::sleep(Duration::from_millis(400));
                // SIGKILL.
                fleet[victim] = None;
                thread::sleep(Duration::from_millis(400));
                fleet[victim] = Some(killable(&world, PORT + u16::try_from(victim).unwrap()));
            }
            is_over.store(true, Relaxed);
            clients.into_iter().map(|it| it.join().expect("no client fails")).sum::<u32>()
        });
        let scrape = netra.scrape();
        let again = scrape.sum("netra_sent_again_total", &[]);
        match (bad, again, asked.load(Relaxed)) {
            (0, 1.., 500..) => Ok(()),
            (bad, again, asked) => Err(format!("{bad} of {asked} failed, {again} sent again")),
        }
    });
}
