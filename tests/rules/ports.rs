//! Ports whose names in documents say what is spoken there: they are read so, where no setting says
//! anything of them.

use crate::{
    entry, folder,
    routes_of_others::redis_server,
    support::{
        lockstep::Peer,
        matrix::{Cell, Findings, cells_with},
        netra::{Backend, Netra, Setup, apply_rules},
        world::{CLIENT_V4, World},
    },
    write,
};
use std::path::Path;

/// A document that names the port so.
fn named(name: &str) -> String {
    entry("cache", &CLIENT_V4.to_string(), 6379, name)
}

/// The same, and nobody may flush.
fn guarded(name: &str) -> String {
    named(name)
        + "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {name: cache}\nspec:\n  \
           hosts: [cache]\n  default: originalDst\n  routes:\n  \
           - match: {attributes: {command: {exact: FLUSHALL}}}\n    \
           fault: {abort: {message: never}}\n    route: [{destination: {host: cache}}]\n"
}

fn ping(client: &mut Peer) -> Result<(), String> {
    client.received.clear();
    client.send(b"PING\r\n")?;
    client.expect(b"+PONG\r\n")
}

/// Waits until so many exchanges of the protocol have been counted.
fn counted(netra: &Netra<'_>, protocol: &str, count: u64) -> Result<(), String> {
    netra.scrape_until(&format!("{count} of {protocol} are counted"), |scrape| {
        scrape.sum("netra_exchanges_total", &[("protocol", protocol)]) == count
    })
}

/// Waits until so many changes of the documents are in force.
fn changed(netra: &Netra<'_>, count: u64) -> Result<(), String> {
    netra.scrape_until(&format!("{count} changes are in force"), |scrape| {
        scrape.sum("netra_rules_reload_total", &[("outcome", "good")]) == count
    })
}

fn connect(world: &World) -> Result<Peer, String> {
    Peer::connect(&world.pod, (CLIENT_V4, 6379).into())
}

/// New connections are read by the name that is in force when they begin; open ones stay what they are.
fn follows_the_name(world: &World, netra: &Netra<'_>, folder: &Path) -> Result<(), String> {
    let mut first = connect(world)?;
    ping(&mut first)?;
    counted(netra, "redis", 1)?;
    // Nothing is known of what is spoken there.
    write(folder, &named("tcp-metaprotocol-qza"));
    changed(netra, 1)?;
    let mut second = connect(world)?;
    ping(&mut second)?;
    ping(&mut first)?;
    counted(netra, "redis", 2)?;
    let log = netra.log();
    if !log.contains("rules.yaml:6:") || !log.contains("\\\"qza\\\", of which nothing is known") {
        return Err(format!("the unknown name is not warned of: {log}"));
    }
    // A rule of the same document is about whoever is read.
    write(folder, &guarded("redis-cache"));
    changed(netra, 2)?;
    let mut third = connect(world)?;
    third.send(b"FLUSHALL\r\n")?;
    third.until(|third| {
        let said = String::from_utf8_lossy(&third.received).into_owned();
        if said.starts_with("-ERR") && said.contains("never") { Ok(()) } else { Err(said) }
    })?;
    ping(&mut third)?;
    // It began when nobody read it.
    second.received.clear();
    second.send(b"FLUSHALL\r\n")?;
    second.expect(b"+OK\r\n")
}

/// What the settings say has the word.
fn settings_win(world: &World, netra: &Netra<'_>) -> Result<(), String> {
    ping(&mut connect(world)?)?;
    netra.scrape_until("it is read as Thrift", |scrape| {
        let opened = |protocol| {
            scrape.sum("netra_tcp_connections_opened_total", &[("protocol", protocol)])
        };
        opened("thrift") == 1 && opened("redis") == 0
    })?;
    let log = netra.log();
    let what = "is read as thrift, as NETRA_PROTOCOLS says, where documents of rules say redis";
    if log.contains(what) { Ok(()) } else { Err(format!("not said that {what}: {log}")) }
}

#[test]
fn names_of_ports_say_what_is_read() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let _redis = redis_server(&world, 6379);
    let folder = folder(&world);
    let mut findings = Findings::default();
    let start = |cell: Cell, protocols: &str| {
        write(&folder, &named("tcp-redis-cache"));
        let setup = Setup::new(cell)
            .env("NETRA_REPORTER", "none")
            .env("NETRA_LOG_FORMAT", "json")
            .env("NETRA_PROTOCOLS", protocols)
            .env("NETRA_RULES", folder.display());
        Netra::start(&world, &setup)
    };
    for cell in cells_with(2) {
        let netra = start(cell, "");
        findings.check(cell, follows_the_name(&world, &netra, &folder));
        findings.check(cell, netra.finish());
        let netra = start(cell, "6379=thrift");
        findings.check(cell, settings_win(&world, &netra));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}
