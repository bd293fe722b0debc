//! MongoDB by pymongo: with a server that nobody here wrote, and with one that does what no server to
//! be had does; tshark is the second reader.

use super::capture::captured;
use super::support::programs::{Server, run, tool};
use super::support::sink::Span;
use super::support::spans::python_path;
use super::support::world::{POD_V4, World};
use super::{compare, exchanges, no_tunnel, python, python_server};
use std::collections::BTreeMap;
use std::path::Path;

const PORT: u16 = 27017;

/// A server of MongoDB's protocol with SQLite behind it.
pub(super) fn nx_27017(world: &World) -> Server {
    let mut command = world.pod.command(python_path().with_file_name("nx-27017"));
    command.args(["--db", "memory", "--host", "0.0.0.0", "-p", "27017"]);
    command.args(["--pid-file", "nx.pid", "--log-file", "nx.log"]);
    Server::start(world, &world.pod, command, PORT)
}

/// Messages to the server by the first key of each, as tshark reads them; of compressed ones as well.
fn commands_by_tshark(world: &World, capture: &Path, opcode: &str) -> BTreeMap<String, u64> {
    let file = capture.display().to_string();
    let filter = format!("mongo.opcode=={opcode} && tcp.dstport==27017");
    let args = ["-r", &file, "-d", "tcp.port==27017,mongo", "-Y", &filter];
    let fields = ["-T", "fields", "-E", "occurrence=f", "-e", "mongo.element.name"];
    let text = run(&world.client, &tool("tshark", "tshark"), &[&args[..], &fields].concat());
    let mut counts = BTreeMap::new();
    for name in text.lines() {
        *counts.entry(name.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// The same counts of netra, where the driver's own `hello` is left out: it comes when it comes.
fn by_operation(seen: &BTreeMap<(String, String), u64>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for ((operation, _), count) in seen.iter().filter(|((name, _), _)| !is_hello(name)) {
        *counts.entry(operation.clone()).or_insert(0) += count;
    }
    counts
}

fn is_hello(name: &str) -> bool {
    name == "hello" || name.eq_ignore_ascii_case("isMaster")
}

fn has(span: &Span, tags: &[(&str, &str)]) -> Result<(), String> {
    match tags.iter().find(|(key, value)| span.tag(key) != *value) {
        Some((key, value)) => Err(format!("{key} is {:?}, not {value}: {span:?}", span.tag(key))),
        None => Ok(()),
    }
}

#[test]
fn mongodb_as_pymongo_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = nx_27017(&world);
    let host = POD_V4.to_string();
    let capture = world.dir().join("mongodb.pcap");
    let ask = || python(&world.client, "mongodb_client.py", &[&host, "27017"]);
    let load = || captured(&world, &capture, &[27017], ask);
    compare(&world, "27017=mongodb", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "mongodb");
        let counts = by_operation(&seen);
        let mut read = commands_by_tshark(&world, &capture, "2013");
        read.retain(|name, _| !is_hello(name));
        // Not of the list.
        let unlisted = read.remove("nosuchcommand").ok_or("tshark has no unknown command")?;
        read.insert("other".into(), unlisted);
        // One of 12 MiB is whole in tshark's eyes only where no packet of it was dropped.
        read.entry("insert".into()).and_modify(|count| *count = 3.max(*count));
        if counts != read {
            return Err(format!("netra: {counts:?}\ntshark: {read:?}"));
        }
        let total = counts.values().sum::<u64>();
        let spans = sink.take(usize::try_from(total).expect("few"))?;
        let named = |name: &str, error: &str| {
            let mut found =
                spans.iter().filter(|span| span.name == name && span.tag("error") == error);
            found.next().ok_or(format!("no span of {name} with error {error:?}"))
        };
        has(
            named("insert orders", "true")?,
            &[
                ("db.system.name", "mongodb"),
                ("db.operation.name", "insert"),
                ("db.collection.name", "orders"),
                ("db.namespace", "shop"),
                ("db.response.status_code", "11000"),
                ("error.type", "DuplicateKey"),
            ],
        )?;
        has(named("getMore orders", "")?, &[("db.operation.name", "getMore")])?;
        has(named("find big", "")?, &[("db.response.status_code", "")])?;
        has(named("ping", "")?, &[("db.namespace", "admin"), ("db.collection.name", "")])
    });
}

/// Exhaust cursors, writes that are not answered, `hello` that waits for news, errors with names, and
/// compressed messages.
#[test]
fn mongodb_where_question_and_answer_are_not_one_each() {
    let Some(world) = World::new() else { return };
    let _server = python_server(&world, "mongodb_server.py", PORT, &["27017"]);
    let host = POD_V4.to_string();
    let load = || python(&world.client, "mongodb_odd_client.py", &[&host, "27017"]);
    compare(&world, "27017=mongodb", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "mongodb");
        let of = |operation: &str, outcome: &str| {
            seen.get(&(operation.into(), outcome.into())).copied().unwrap_or(0)
        };
        // The plain client: one insert and three that are not answered, two that fail; four batches
        // one by one, and four that are one answer.
        let plain = [of("insert", "ok"), of("insert", "error"), of("find", "ok")];
        let more = [of("getMore", "ok"), of("other", "error"), of("ping", "ok")];
        // The other client's are compressed: those that ask for no answer get none.
        let packed = [of("compressed", "ok"), of("compressed", "unanswered")];
        if (plain, more, packed) != ([4, 2, 2], [5, 1, 2], [15, 3]) {
            return Err(format!("{seen:?}"));
        }
        let spans = sink.take(18 + 18)?;
        let named = |name: &str| {
            spans.iter().find(|span| span.name == name).ok_or(format!("no span of {name}"))
        };
        has(
            named("insert slow")?,
            &[("db.response.status_code", "64"), ("error.type", "WriteConcernTimeout")],
        )?;
        has(
            named("other")?,
            &[("db.response.status_code", "59"), ("error.type", "CommandNotFound")],
        )?;
        has(named("insert told")?, &[("error", ""), ("netra.response.size", "0")])
    });
}
