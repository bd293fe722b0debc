//! Redis Cluster: three nodes, each behind netra, and a client that follows where they send it.

use super::support::programs::{Server, run, tool};
use super::support::world::{POD_V4, World};
use super::support::{PATIENCE, wait_until};
use super::{EXCHANGES, compare, no_tunnel, python};
use std::cell::RefCell;
use std::collections::BTreeMap;

const PORTS: [u16; 3] = [7001, 7002, 7003];

fn node(world: &World, port: u16) -> Server {
    let (port_text, host) = (port.to_string(), POD_V4.to_string());
    let nodes = world.dir().join(format!("nodes-{port}.conf"));
    let mut command = world.pod.command(tool("redis-server", "redis-server"));
    command.args(["--port", &port_text, "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.args(["--protected-mode", "no", "--bind", "0.0.0.0", "--cluster-enabled", "yes"]);
    command.args(["--cluster-announce-ip", &host, "--cluster-node-timeout", "60000"]);
    command.arg("--cluster-config-file").arg(nodes);
    Server::start(world, &world.pod, command, port)
}

fn cli(world: &World, port: u16, words: &[&str]) -> String {
    let (host, port) = (POD_V4.to_string(), port.to_string());
    let to = ["-h", host.as_str(), "-p", port.as_str()];
    run(&world.pod, &tool("redis-cli", "redis-tools"), &[&to[..], words].concat())
}

/// The nodes, when each knows of all slots.
fn cluster(world: &World) -> [Server; 3] {
    let nodes = PORTS.map(|port| node(world, port));
    let places = PORTS.map(|port| format!("{POD_V4}:{port}"));
    let words = ["--cluster", "create", &places[0], &places[1], &places[2], "--cluster-yes"];
    cli(world, PORTS[0], &words);
    let is_up = |port| cli(world, port, &["cluster", "info"]).contains("cluster_state:ok");
    assert!(wait_until(PATIENCE, || PORTS.into_iter().all(is_up)), "no cluster came about");
    nodes
}

/// Errors by prefix, as all nodes counted them, of all time.
fn errors_of(world: &World) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for text in PORTS.map(|port| cli(world, port, &["info", "errorstats"])) {
        for line in text.lines().filter_map(|line| line.strip_prefix("errorstat_")) {
            let (prefix, count) = line.split_once(":count=").expect("an error with its count");
            *counts.entry(prefix.to_owned()).or_insert(0) +=
                count.trim().parse::<u64>().expect("a number");
        }
    }
    counts
}

/// MOVED and ASK arrive as they are, the client follows them, and netra tells as many of each as the
/// nodes counted.
#[test]
fn a_client_of_a_cluster_is_sent_on_as_without_netra() {
    let Some(world) = World::new() else { return };
    let _nodes = cluster(&world);
    let host = POD_V4.to_string();
    let before = RefCell::new(BTreeMap::new());
    let load = || {
        before.replace(errors_of(&world));
        python(&world.client, "redis_cluster.py", &[&host, "7001"])
    };
    compare(&world, "7001=redis,7002=redis,10.61.0.2:7003=redis", load, |netra, sink| {
        netra.scrape_until("all over", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let then = before.borrow();
        let mut counted = errors_of(&world);
        for (prefix, count) in &mut counted {
            *count -= then.get(prefix).copied().unwrap_or(0);
        }
        counted.retain(|_, count| *count > 0);
        let failed = scrape.sum(EXCHANGES, &[("outcome", "error")]);
        let total = scrape.sum("netra_spans_total", &[("result", "recorded")]);
        let mut told = BTreeMap::new();
        for span in sink.take(usize::try_from(total).expect("few"))? {
            if span.tag("error") == "true" {
                *told.entry(span.tag("db.response.status_code")).or_insert(0) += 1;
            }
        }
        let has_all = ["MOVED", "ASK", "CROSSSLOT"].iter().all(|it| counted.contains_key(*it));
        match told == counted && failed == counted.values().sum::<u64>() && has_all {
            true => Ok(()),
            false => Err(format!("nodes: {counted:?}, spans: {told:?}, exchanges: {failed}")),
        }
    });
}
