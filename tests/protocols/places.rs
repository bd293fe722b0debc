//! One port that speaks different protocols, by address.

use super::EXCHANGES;
use super::support::matrix::{Findings, cells_with};
use super::support::netra::{Backend, Netra, Setup, apply_rules, remove_rules};
use super::support::programs::{Server, run, tool};
use super::support::sink::Sink;
use super::support::world::{POD_SECOND_V4, POD_V4, POD_V6, World};
use std::net::IpAddr;

/// The same server on three addresses of the pod: read as Redis by its network, as what is narrower
/// on one of them, and as HTTP/1 where nothing but the port is named.
#[test]
fn the_narrowest_network_says_what_a_connection_is_read_as() {
    let Some(world) = World::new() else { return };
    let mut command = world.pod.command(tool("redis-server", "redis-server"));
    command.args(["--port", "6379", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.args(["--protected-mode", "no", "--bind", "0.0.0.0", "::"]);
    let _server = Server::start(&world, &world.pod, command, 6379);
    let cli = tool("redis-cli", "redis-tools");
    let ask = |host: IpAddr, words: &[&str]| {
        let host = host.to_string();
        run(&world.client, &cli, &[&["-h", host.as_str()], words].concat())
    };
    let load = || {
        let one = ask(POD_V4, &["SET", "a", "1"]);
        let other = ask(POD_SECOND_V4, &["GET", "a"]);
        one + &other + &ask(POD_V6, &["INCR", "a"])
    };
    let direct = load();
    let sink = Sink::start(&world);
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        let setup = sink
            .wire(Setup::new(cell))
            .env("NETRA_HTTP_PORTS", "6379")
            .env("NETRA_PROTOCOLS", "10.61.0.0/16:6379=redis,10.61.0.3:6379=memcached");
        let netra = Netra::start(&world, &setup);
        let through = load();
        if through != direct {
            findings.note(cell, format!("through netra:\n{through}\ndirectly:\n{direct}"));
        }
        findings.check(cell, read_as(&netra, &sink));
        sink.clear();
        findings.check(cell, netra.finish());
    }
    remove_rules(&world, Backend::NftNative);
    findings.conclude();
}

fn read_as(netra: &Netra<'_>, sink: &Sink) -> Result<(), String> {
    netra.scrape_until("all over", |scrape| scrape.active() == 0)?;
    let scrape = netra.scrape();
    let of = |protocol| scrape.sum(EXCHANGES, &[("protocol", protocol)]);
    let opaque = scrape.sum("netra_opaque_total", &[]);
    // Redis in the eyes of another codec is a doubt, and bytes from there on.
    let seen = (of("redis"), scrape.sum("netra_tunnels_total", &[]), opaque);
    if seen != (1, 1, 1) {
        return Err(format!("exchanges of Redis, tunnels, opaque connections: {seen:?}"));
    }
    match sink.take(1)?[0].name.as_str() {
        "SET" => Ok(()),
        other => Err(format!("the span is of {other:?}")),
    }
}
