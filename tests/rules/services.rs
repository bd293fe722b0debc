//! The name of a service whose records (SRV) are endpoints, and change.

use crate::{
    in_cells,
    routes_of_others::redis_server,
    support::{
        PATIENCE,
        matrix::cells_with,
        netra::{ADMIN_PORT, Setup},
        programs::{run, tool},
        scrape, wait_until,
        world::{CLIENT_V4, World},
    },
};
use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

fn rules() -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache.test]\n  addresses: [{CLIENT_V4}]\n  \
         ports: [{{number: 6379, name: tcp-redis}}]\n  resolution: DNS\n  \
         endpoints: [{{address: _redis._tcp.cache.test}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: it}}\nspec:\n  \
         host: cache.test\n  trafficPolicy:\n    loadBalancer: {{simple: ROUND_ROBIN}}\n    \
         outlierDetection: {{consecutive5xxErrors: 1, baseEjectionTime: 60s, \
           maxEjectionPercent: 100}}\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache.test]\n  routes: [{{route: [{{destination: {{host: cache.test}}}}]}}]\n"
    )
}

/// What the name server has, by turns: priority, weight and port.
const HAS: [&[[u16; 3]]; 3] =
    [&[[10, 3, 6380], [10, 1, 6381], [20, 1, 6382]], &[[5, 0, 6383], [10, 3, 6382]], &[]];

/// A name server on the pod's loopback: every name has these records, of one target, whose address is
/// beside them or asked for, by turns.
fn name_server(world: &World, turn: &Arc<AtomicUsize>) {
    let socket = world.pod.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))).expect("port 53");
    let turn = Arc::clone(turn);
    thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let query = &bytes[..len];
            let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
            let question = &query[12..end + 4];
            let now = turn.load(Relaxed);
            let target = b"\x02at\x04test\x00";
            let address = [&[0, 1, 0, 1, 0, 0, 0, 1, 0, 4][..], &octets()].concat();
            let (found, beside): (Vec<Vec<u8>>, Vec<Vec<u8>>) = match query[end + 1] {
                33 => {
                    let record = |it: &[u16; 3]| {
                        let numbers = it.map(u16::to_be_bytes).concat();
                        [&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 1, 0, 15][..], &numbers, target].concat()
                    };
                    let beside =
                        if now == 0 { vec![[&target[..], &address].concat()] } else { vec![] };
                    (HAS[now].iter().map(record).collect(), beside)
                }
                1 if now < 2 => (vec![[&[0xc0, 12][..], &address].concat()], vec![]),
                _ => (vec![], vec![]),
            };
            let count = |all: &[Vec<u8>]| u8::try_from(all.len()).expect("a few");
            let counts = [0x81, 0x80, 0, 1, 0, count(&found), 0, 0, 0, count(&beside)];
            let answer = [&query[..2], &counts, question].concat();
            let rest = found.into_iter().chain(beside).flatten();
            drop(socket.send_to(&answer.into_iter().chain(rest).collect::<Vec<_>>(), from));
        }
    });
}

fn octets() -> [u8; 4] {
    CLIENT_V4.to_string().parse::<Ipv4Addr>().expect("of IPv4").octets()
}

/// `/clusters`, once its endpoints have these ports, levels and weights.
fn endpoints(world: &World, wanted: &[(u16, u8, u32)]) -> Result<(), String> {
    let mut page = String::new();
    let is_it = wait_until(PATIENCE, || {
        page = scrape::get(&world.pod, ADMIN_PORT, "/clusters")
            .map_or_else(|it| it.to_string(), |it| it.1);
        let read: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
        let list = read["clusters"][0]["endpoints"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<_> = list
            .iter()
            .map(|it| (it["address"].clone(), it["level"].clone(), it["weight"].clone()))
            .collect();
        found.sort_by_key(|(address, ..)| address.to_string());
        let wanted = wanted.iter().map(|(port, level, weight)| {
            (format!("{CLIENT_V4}:{port}").into(), (*level).into(), (*weight).into())
        });
        found == wanted.collect::<Vec<(serde_json::Value, _, _)>>()
    });
    if is_it { Ok(()) } else { Err(format!("{wanted:?} are not on\n{page}")) }
}

/// Records share by weight; when all of the first priority are killed no client has an error, and the
/// next priority answers; records come and go by their TTL, and a name server that knows nothing changes
/// nothing.
#[test]
fn records_of_a_service_are_endpoints_and_priorities_fail_over() {
    let Some(world) = World::new() else { return };
    let turn = Arc::default();
    name_server(&world, &turn);
    let prepare = |setup: Setup| {
        let setup = setup.env("NETRA_PROTOCOLS", "6379=redis");
        setup.file("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    };
    let cli = tool("redis-cli", "redis-tools");
    let host = CLIENT_V4.to_string();
    let start = |port: u16| {
        let server = redis_server(&world, port);
        let port = port.to_string();
        run(&world.client, &cli, &["-h", &host, "-p", &port, "SET", "who", &port]);
        server
    };
    // How often each answers, of so many connections of a command each.
    let answers = |count: usize, ports: [&str; 4]| -> Result<[usize; 4], String> {
        let all: Vec<_> = (0..count)
            .map(|_| run(&world.pod, &cli, &["-h", &host, "GET", "who"]).trim_end().to_owned())
            .collect();
        let of = ports.map(|port| all.iter().filter(|it| *it == port).count());
        if of.iter().sum::<usize>() == count { Ok(of) } else { Err(format!("{all:?}")) }
    };
    let ports = ["6380", "6381", "6382", "6383"];
    in_cells(&world, &cells_with(1), &rules(), prepare, |_, _| {
        turn.store(0, Relaxed);
        // At the first nobody asks for anything but the dial.
        let mut servers: Vec<_> = (6379..6384).map(|it| Some(start(it))).collect();
        endpoints(&world, &[(6380, 0, 3), (6381, 0, 1), (6382, 1, 1)])?;
        let seen = answers(40, ports)?;
        if seen != [30, 10, 0, 0] {
            return Err(format!("{seen:?} of weights 3 and 1"));
        }
        // SIGKILL.
        (servers[1], servers[2]) = (None, None);
        let seen = answers(20, ports)?;
        if seen != [0, 0, 20, 0] {
            return Err(format!("{seen:?}, where only the second priority lives"));
        }
        turn.store(1, Relaxed);
        endpoints(&world, &[(6382, 1, 3), (6383, 0, 1)])?;
        let seen = answers(20, ports)?;
        if seen != [0, 0, 0, 20] {
            return Err(format!("{seen:?}, where the first priority is another"));
        }
        turn.store(2, Relaxed);
        // So long the names are not asked again.
        thread::sleep(std::time::Duration::from_secs(6));
        endpoints(&world, &[(6382, 1, 3), (6383, 0, 1)])
    });
}
