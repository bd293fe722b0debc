//! A name whose addresses are endpoints, and change while messages are under way.

use crate::{
    in_cells,
    support::{
        PATIENCE,
        lockstep::Peer,
        matrix::cells_with,
        netra::{ADMIN_PORT, Setup},
        programs::{Server, run, tool},
        scrape, wait_until,
        world::{CLIENT_V4, World, ip},
    },
};
use std::{
    net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub(crate) const SECOND_V4: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 21);
pub(crate) const THIRD_V4: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 22);
const RULES: &str =
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: it}\nspec:
  hosts: [cache.test]\n  ports: [{number: 6379, name: tcp-redis}]\n  resolution: DNS\n---
apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: it}\nspec:
  host: cache.test\n  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}\n---
apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: it}\nspec:
  hosts: [cache.test]\n  routes: [{route: [{destination: {host: cache.test}}]}]\n";

/// What the name server has, by turns: the last is nothing.
const HAS: [&[Ipv4Addr]; 3] =
    [&[Ipv4Addr::new(10, 61, 0, 1), SECOND_V4], &[Ipv4Addr::new(10, 61, 0, 1), THIRD_V4], &[]];

/// A name server on the pod's loopback that has these addresses for every name, for a second.
pub(crate) fn name_server(world: &World, turn: &Arc<AtomicUsize>) {
    let socket = world.pod.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))).expect("port 53");
    let turn = Arc::clone(turn);
    thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let query = &bytes[..len];
            let name_len = query[12..].iter().position(|byte| *byte == 0).unwrap_or(0);
            let question = &query[12..12 + name_len + 5];
            let is_v4 = question[name_len + 2] == 1;
            let found = if is_v4 { HAS[turn.load(Ordering::Relaxed)] } else { &[] };
            let count = u8::try_from(found.len()).expect("a few");
            let mut answer =
                [&query[..2], &[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0], question].concat();
            for ip in found {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(ip.octets());
            }
            drop(socket.send_to(&answer, from));
        }
    });
}

/// A server of Redis that says where it is.
fn server(world: &World, address: Ipv4Addr) -> Server {
    let (address, redis) = (address.to_string(), tool("redis-server", "redis-server"));
    let mut command = world.client.command(redis);
    command.args(["--port", "6379", "--save", "", "--appendonly", "no", "--dir", "/"]);
    command.args(["--protected-mode", "no", "--bind", &address]);
    let server = Server::start(world, &world.client, command, 6379);
    let cli = tool("redis-cli", "redis-tools");
    // The port alone is another's, too.
    let is_there = || world.client.enter(|| TcpStream::connect((&*address, 6379)).is_ok());
    assert!(wait_until(PATIENCE, is_there), "{address} is not there");
    run(&world.client, &cli, &["-h", &address, "SET", "who", &address]);
    server
}

/// The addresses of endpoints that `/clusters` has, once they are these.
pub(crate) fn endpoints(world: &World, port: u16, wanted: &[Ipv4Addr]) -> Result<(), String> {
    let mut page = String::new();
    let known: [Ipv4Addr; 3] = [v4(CLIENT_V4), SECOND_V4, THIRD_V4];
    let is_it = wait_until(PATIENCE, || {
        page = scrape::get(&world.pod, ADMIN_PORT, "/clusters")
            .map_or_else(|it| it.to_string(), |it| it.1);
        known.iter().all(|it| page.contains(&format!("\"{it}:{port}\"")) == wanted.contains(it))
    });
    if is_it { Ok(()) } else { Err(format!("{wanted:?} are not on\n{page}")) }
}

fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => panic!("{ip}"),
    }
}

/// Who answers, of so many connections of a command each.
fn answers(world: &World, count: usize) -> Vec<String> {
    let host = CLIENT_V4.to_string();
    let cli = tool("redis-cli", "redis-tools");
    let one = || run(&world.pod, &cli, &["-h", &host, "GET", "who"]).trim_end().to_owned();
    let mut all: Vec<_> = (0..count).map(|_| one()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn addresses_of_a_name_come_and_go_and_what_is_in_flight_goes_on() {
    let Some(world) = World::new() else { return };
    let batch = format!("addr add {SECOND_V4}/24 dev eth0\naddr add {THIRD_V4}/24 dev eth0\n");
    ip(&world.client, &batch);
    let first = v4(CLIENT_V4);
    let turn = Arc::default();
    name_server(&world, &turn);
    let _servers: Vec<_> = [first, SECOND_V4, THIRD_V4].map(|it| server(&world, it)).into();
    let prepare = |setup: Setup| {
        let setup = setup.env("NETRA_PROTOCOLS", "6379=redis");
        setup.file("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    };
    in_cells(&world, &cells_with(1), RULES, prepare, |netra, _| {
        turn.store(0, Ordering::Relaxed);
        endpoints(&world, 6379, &[first, SECOND_V4])?;
        let seen = answers(&world, 20);
        if seen != [first.to_string(), SECOND_V4.to_string()] {
            return Err(format!("{seen:?} answered, and not both"));
        }
        // Two wait for what is not there yet, each at a server of its own.
        let wait = b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n";
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = Peer::connect(&world.pod, (CLIENT_V4, 6379).into())?;
            client.send(wait)?;
            clients.push(client);
        }
        let cli = tool("redis-cli", "redis-tools");
        let blocked = |at: Ipv4Addr| {
            let said = run(&world.client, &cli, &["-h", &at.to_string(), "INFO", "clients"]);
            said.contains("blocked_clients:1")
        };
        if !wait_until(PATIENCE, || blocked(first) && blocked(SECOND_V4)) {
            return Err("the two do not wait at two servers".into());
        }
        turn.store(1, Ordering::Relaxed);
        endpoints(&world, 6379, &[first, THIRD_V4])?;
        let seen = answers(&world, 20);
        if seen != [first.to_string(), THIRD_V4.to_string()] {
            return Err(format!("{seen:?} answered, and one should have left and one come"));
        }
        // Who has left answers what it was asked; what comes next goes elsewhere.
        for at in [first, SECOND_V4] {
            run(&world.client, &cli, &["-h", &at.to_string(), "LPUSH", "q", "it"]);
        }
        for client in &mut clients {
            client.expect(b"*2\r\n$1\r\nq\r\n$2\r\nit\r\n")?;
            client.received.clear();
            client.send(b"*2\r\n$3\r\nGET\r\n$3\r\nwho\r\n")?;
        }
        for client in &mut clients {
            client.until(|client| {
                let said = String::from_utf8_lossy(&client.received).into_owned();
                let is_there = said.ends_with("\r\n") && said.len() > 10;
                let is_well = is_there && !said.contains(&SECOND_V4.to_string());
                if is_well { Ok(()) } else { Err(said) }
            })?;
        }
        // A name server that knows nothing changes nothing.
        turn.store(2, Ordering::Relaxed);
        drop(clients);
        netra.scrape_until("all are gone", |scrape| scrape.active() == 0)?;
        endpoints(&world, 6379, &[first, THIRD_V4])
    });
}
