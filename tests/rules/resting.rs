//! Requests of one connection of HTTP/1 that go to three servers by weight: nginx, and a client of Python's.
//! Who was asked before is asked again without a dial.

use crate::{
    in_cells,
    routes_of_others::{route, router, versions},
    support::{
        matrix::cells,
        netra::Setup,
        programs::{Server, nginx_with, run, tool},
        world::{CLIENT_V4, World},
    },
};
use std::{collections::BTreeSet, fs, path::Path};

const PORTS: [u16; 3] = [8080, 8081, 8082];
const REQUESTS: usize = 1000;

/// A thousand requests over one connection; prints how many were answered.
const CLIENT: &str = "import http.client, sys
it = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
good = 0
for number in range(int(sys.argv[3])):
    it.request('GET', f'/{number}', headers={'Host': 'svc.test'})
    answer = it.getresponse()
    good += answer.read() == b'ok'
print(good)";

/// nginx on three ports, which logs who asked by which connection.
fn nginx(world: &World, log: &Path) -> Server {
    let server = |port: u16| {
        format!("server {{ listen 0.0.0.0:{port}; location / {{ return 200 \"ok\"; }} }}\n")
    };
    let http = format!(
        "keepalive_requests 100000; log_format it '$server_port $connection'; access_log {log} it;
        {servers}",
        log = log.display(),
        servers = PORTS.map(server).concat(),
    );
    nginx_with(world, &world.client, &http, PORTS[0])
}

#[test]
fn requests_of_one_connection_go_to_three_servers_without_dials() {
    let Some(world) = World::new() else { return };
    let log = world.dir().join("access.log");
    let _server = nginx(&world, &log);
    let routes =
        route("svc.test", "split", "host: {exact: svc.test}", &[(1, 50), (2, 30), (3, 20)]);
    let rules = versions("svc.test", PORTS, "http-it") + &router("svc.test", &routes);
    let http = |setup: Setup| setup.env("NETRA_HTTP_PORTS", PORTS[0]);
    in_cells(&world, &cells(), &rules, http, |netra, _| {
        fs::write(&log, "").unwrap();
        let address = (CLIENT_V4.to_string(), PORTS[0].to_string(), REQUESTS.to_string());
        let args = ["-c", CLIENT, &address.0, &address.1, &address.2];
        let good = run(&world.pod, &tool("python3", "python3"), &args);
        if good.trim() != REQUESTS.to_string() {
            return Err(format!("{} of {REQUESTS} were answered", good.trim()));
        }
        let text = fs::read_to_string(&log).unwrap();
        let seen = PORTS.map(|port| {
            let of_port = text.lines().filter_map(|line| line.strip_prefix(&format!("{port} ")));
            let all: Vec<_> = of_port.collect();
            (all.len(), all.into_iter().collect::<BTreeSet<_>>().len())
        });
        // Turns begin anew where documents are read again, as those that were written just before the start are.
        let wanted = [500_usize, 300, 200];
        if seen.iter().zip(wanted).any(|((requests, _), wanted)| requests.abs_diff(wanted) > 2) {
            return Err(format!("requests and connections {seen:?}"));
        }
        // One, another before the first change, and a stall of more than a second now and then. A dial for
        // each change would be hundreds.
        if seen.iter().any(|(_, connections)| *connections > 10) {
            return Err(format!("requests and connections {seen:?}"));
        }
        netra.scrape_until("nothing is active", |scrape| {
            scrape.active() == 0 && scrape.sum("netra_legs_active", &[]) == 0
        })
    });
}
