//! memcached by three clients, its conformance suite and its load tool, with tshark and the server's
//! own counts beside what netra counts.

use super::capture::captured;
use super::support::programs::{Server, run, tool};
use super::support::world::{POD_V4, World};
use super::{EXCHANGES, compare, exchanges, no_tunnel, python};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

const PORT: u16 = 11211;

/// A server that says nothing by UDP.
pub(super) fn server(world: &World) -> Server {
    let mut command = world.pod.command(tool("memcached", "memcached"));
    command.args(["-u", "nobody", "-l", "0.0.0.0", "-p", "11211", "-U", "0"]);
    Server::start(world, &world.pod, command, PORT)
}

/// Exchanges by operation.
fn by_operation(seen: &BTreeMap<(String, String), u64>) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for ((operation, _), count) in seen {
        *counts.entry(operation.as_str()).or_insert(0) += count;
    }
    counts
}

/// Opcodes of requests, as tshark reads them, under the names that the text protocol has for them.
fn opcodes_by_tshark(world: &World, capture: &Path) -> BTreeMap<&'static str, u64> {
    let file = capture.display().to_string();
    let args = ["-r", &file, "-Y", "memcache.opcode && tcp.dstport==11211"];
    let fields = ["-T", "fields", "-e", "memcache.opcode"];
    let text = run(&world.client, &tool("tshark", "tshark"), &[&args[..], &fields].concat());
    let mut counts = BTreeMap::new();
    for opcode in text.split([',', '\n']).filter(|opcode| !opcode.is_empty()) {
        let name = match opcode {
            "0" | "9" | "12" | "13" => "get",
            "1" | "17" => "set",
            "2" => "add",
            "3" => "replace",
            "4" | "20" => "delete",
            "5" => "incr",
            "6" => "decr",
            "7" => "quit",
            "8" => "flush_all",
            "10" => "noop",
            "16" => "stats",
            other => panic!("opcode {other}"),
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

#[test]
fn memcached_binary_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let capture = world.dir().join("memcached.pcap");
    let ask = || python(&world.client, "memcached_client.py", &[&host, "11211", "binary"]);
    let load = || captured(&world, &capture, &[11211], ask);
    compare(&world, "11211=memcached", load, |netra, _| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "memcached");
        let read = opcodes_by_tshark(&world, &capture);
        if by_operation(&seen) != read {
            return Err(format!("netra: {seen:?}\ntshark: {read:?}"));
        }
        Ok(())
    });
}

/// Text and meta commands by their clients; an error, what is not answered, and no key in a span.
#[test]
fn memcached_as_its_clients_use_it() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let load = || python(&world.client, "memcached_client.py", &[&host, "11211", "text", "meta"]);
    compare(&world, "11211=memcached", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "memcached");
        let counts = by_operation(&seen);
        // As the client's calls are.
        for (operation, count) in
            [("set", 25), ("get", 6), ("gets", 1), ("touch", 2), ("gat", 1), ("cas", 2), ("ms", 13)]
        {
            if counts.get(operation) != Some(&count) {
                return Err(format!("{operation}: not {count} in {counts:?}"));
            }
        }
        let errors: BTreeMap<_, _> =
            seen.iter().filter(|((_, outcome), _)| outcome != "ok").collect();
        // A value that is no number, and one that is too long.
        let of = |operation: &str| seen.get(&(operation.into(), "error".into())).copied();
        if (of("incr"), of("set"), errors.len()) != (Some(1), Some(1), 2) {
            return Err(format!("errors: {errors:?}"));
        }
        let total = usize::try_from(seen.values().sum::<u64>()).expect("few");
        let spans = sink.take(total)?;
        let wrong = spans.iter().find(|span| span.tag("error") == "true" && span.name == "incr");
        let wrong = wrong.ok_or("no span of the error")?;
        for (key, value) in [
            ("db.system.name", "memcached"),
            ("db.operation.name", "incr"),
            ("db.response.status_code", "CLIENT_ERROR"),
            ("error.type", "CLIENT_ERROR"),
            ("span.kind", "server"),
        ] {
            if wrong.tag(key) != value {
                return Err(format!("{key} is {:?}, not {value}", wrong.tag(key)));
            }
        }
        let told = spans.iter().find(|span| format!("{span:?}").contains("nothing"));
        told.map_or(Ok(()), |span| Err(format!("a key is told: {span:?}")))
    });
}

/// What the makers of libmemcached think that a server has to do, in both protocols.
#[test]
fn memcached_conforms_through_netra() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let suite = tool("memccapable", "libmemcached-tools");
    let host = POD_V4.to_string();
    let load = || {
        let said = |form| run(&world.client, &suite, &["-h", &host, "-p", "11211", form]);
        [said("-a"), said("-b")].concat()
    };
    compare(&world, "11211=memcached", load, |netra, _| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        no_tunnel(&netra.scrape())
    });
}

/// The server's own count of a command.
fn counted(world: &World, name: &str) -> u64 {
    let tool = tool("memcstat", "libmemcached-tools");
    let text = run(&world.pod, &tool, &["--servers=127.0.0.1:11211"]);
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

/// Every get and set of a load is counted once, in both protocols.
#[test]
fn heavy_memcached_commands_are_those_that_the_server_counted() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let load_tool = tool("memcaslap", "libmemcached-tools");
    let servers = format!("--servers={POD_V4}:{PORT}");
    let before = Cell::new((0, 0));
    let load = || {
        before.set((counted(&world, "cmd_get"), counted(&world, "cmd_set")));
        for form in [&["-x", "20000"][..], &["-x", "20000", "-B"]] {
            let args = [&[servers.as_str(), "-T", "1", "-c", "16"], form].concat();
            run(&world.client, &load_tool, &args);
        }
        String::new()
    };
    compare(&world, "11211=memcached", load, |netra, _| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let (gets, sets) = before.get();
        let now = (counted(&world, "cmd_get") - gets, counted(&world, "cmd_set") - sets);
        let seen = |name| scrape.sum(EXCHANGES, &[("operation", name), ("outcome", "ok")]);
        match (seen("get"), seen("set")) {
            seen if seen == now && now.0 > 20_000 => Ok(()),
            seen => Err(format!("{seen:?} seen, {now:?} by the server")),
        }
    });
}
