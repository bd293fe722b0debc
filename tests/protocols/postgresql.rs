//! PostgreSQL by libpq, psycopg, psql, pgbench, its JDBC driver and pgbouncer, with tshark as a second
//! reader.

use super::capture::captured;
use super::support::programs::{Server, number_after, run, tool};
use super::support::world::{Namespace, POD_V4, World, checked};
use super::support::{PATIENCE, wait_until};
use super::{EXCHANGES, compare, ended, exchanges, java, no_secret, no_tunnel, python};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

/// A user that every Debian has, as the server refuses to be root.
const NOBODY: u32 = 65534;
const PORT: u16 = 5432;

/// A server in the pod that trusts everybody, with a role for tests.
pub(super) fn server(world: &World) -> Server {
    let server = server_in(world, &world.pod);
    let answers = || psql(world, &["-Atc", "select 1"]).status.success();
    assert!(wait_until(PATIENCE, answers), "PostgreSQL does not answer");
    server
}

/// The same anywhere, soon ready.
pub(super) fn server_in(world: &World, namespace: &Namespace) -> Server {
    let package = "postgresql";
    let data = world.dir().join("pg");
    let place = data.display().to_string();
    let mut initdb = namespace.command_as(tool("initdb", package), Some(NOBODY), None);
    initdb.args(["-D", &place, "-U", "bench", "--auth=trust", "--no-sync", "--locale=C"]);
    checked(initdb.current_dir(world.dir()).output().expect("initdb"), "initdb");
    let anybody = "host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n";
    fs::write(data.join("pg_hba.conf"), anybody).expect("pg_hba.conf");
    let mut command = namespace.command_as(tool("postgres", package), Some(NOBODY), None);
    command.args(["-D", &place, "-c", "listen_addresses=*", "-c", "fsync=off"]);
    command.args(["-c", &format!("unix_socket_directories={place}"), "-c", "wal_level=logical"]);
    Server::start(world, namespace, command, PORT)
}

fn psql(world: &World, args: &[&str]) -> Output {
    let mut command = world.client.command(tool("psql", "postgresql-client"));
    command.args(["-h", &POD_V4.to_string(), "-U", "bench", "-d", "postgres"]).args(args);
    command.output().expect("psql runs")
}

/// How often each type of message was sent, as tshark reads them.
fn types_by_tshark(world: &World, capture: &Path) -> BTreeMap<String, u64> {
    let file = capture.display().to_string();
    let args = ["-r", &file, "-d", "tcp.port==5432,pgsql", "-Y", "pgsql", "-T", "fields"];
    let fields = ["-e", "pgsql.type"];
    let text = run(&world.client, &tool("tshark", "tshark"), &[&args[..], &fields].concat());
    let mut counts = BTreeMap::new();
    for kind in text.lines().flat_map(|line| line.split(',')) {
        *counts.entry(kind.trim().to_owned()).or_insert(0) += 1;
    }
    counts
}

/// An application with everything that libpq does: what it sees stays the same, each exchange is
/// told once, and its spans say what was done and no more.
#[test]
fn as_psycopg_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let capture = world.dir().join("postgresql.pcap");
    let ask = || python(&world.client, "postgresql_client.py", &[&host, "5432"]);
    let load = || captured(&world, &capture, &[5432], ask);
    compare(&world, "5432=postgresql", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "postgresql");
        let of = |wanted: &str| -> u64 {
            seen.iter().filter(|((it, _), _)| it == wanted).map(|(_, count)| count).sum()
        };
        let (set_up, cancels) = (of("STARTUP"), of("CANCEL"));
        let total: u64 = seen.values().sum();
        let read = types_by_tshark(&world, &capture);
        let asked = read["Simple query"] + read["Sync"];
        if total - set_up - cancels != asked || of("STARTUP") != read["Startup message"] {
            return Err(format!("netra: {seen:?}\ntshark: {read:?}"));
        }
        if cancels != 1 || seen.get(&("STARTUP".into(), "error".into())) != Some(&1) {
            return Err(format!("one cancel, one refused startup, but {seen:?}"));
        }
        let spans = sink.take(usize::try_from(total - set_up).expect("few"))?;
        let wrong = |name: &str, code: &str| ended(&spans, name, code);
        for (name, code) in [
            ("insert kv", "23505"),
            ("select nowhere", "42P01"),
            ("copy kv", "23505"),
            ("select", "57014"),
        ] {
            wrong(name, code)?;
        }
        for (key, value) in [
            ("db.system.name", "postgresql"),
            ("db.query.summary", "insert kv"),
            ("db.namespace", "postgres"),
            ("error.type", "23505"),
            ("span.kind", "server"),
            ("error", "true"),
        ] {
            let said = wrong("insert kv", "23505")?.tag(key);
            if said != value {
                return Err(format!("{key} is {said:?}, not {value}"));
            }
        }
        no_secret(&spans)
    });
}

/// Loads of pgbench in each form of the protocol: as many as it counted.
#[test]
fn heavy_transactions_are_those_that_pgbench_counted() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let bench = tool("pgbench", "postgresql");
    run(&world.client, &bench, &["-h", &host, "-U", "bench", "-i", "-q", "postgres"]);
    let script = world.dir().join("script.sql");
    let text = "\\set aid random(1, 100000)\n\
                update pgbench_accounts set abalance = 1 where aid = :aid;\n";
    fs::write(&script, text).expect("a script");
    let script = script.display().to_string();
    let long = world.dir().join("long.sql");
    fs::write(&long, format!("select length('{}');\n", "y".repeat(8 << 20))).expect("a text");
    let long = long.display().to_string();
    let load = || {
        let mut said = String::new();
        for mode in ["simple", "extended", "prepared"] {
            let args = ["-h", &host, "-U", "bench", "-n", "-f", &script, "-M", mode];
            let more = ["-c", "8", "-j", "2", "-t", "250", "postgres"];
            let text = run(&world.client, &bench, &[&args[..], &more].concat());
            let count = number_after(&text, "number of transactions actually processed:");
            said += &format!("{mode} {count}\n");
        }
        // A row and a text that are longer than any buffer.
        for args in [["-Atc", "select repeat('z', 20000000)"], ["-Atf", &long]] {
            let output = psql(&world, &args);
            said += &format!("{} {}\n", output.status.success(), output.stdout.len());
        }
        said
    };
    compare(&world, "5432=postgresql", load, |netra, _| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let updates = scrape.sum(EXCHANGES, &[("operation", "UPDATE"), ("outcome", "ok")]);
        let prepared = scrape.sum(EXCHANGES, &[("operation", "PREPARE"), ("outcome", "ok")]);
        match (updates, prepared) {
            (6000, 8) => Ok(()),
            other => Err(format!("{other:?} of 6000 updates and 8 statements")),
        }
    });
}

/// A stream of replication is relayed, and no longer read.
#[test]
fn replication_is_a_tunnel() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let backup = tool("pg_basebackup", "postgresql-client");
    let number = Cell::new(0);
    let load = || {
        number.set(number.get() + 1);
        let place = world.dir().join(format!("copy{}", number.get())).display().to_string();
        let args = ["-h", &host, "-U", "bench", "-D", &place, "-X", "stream", "-c", "fast"];
        run(&world.client, &backup, &args);
        let version = fs::read_to_string(Path::new(&place).join("PG_VERSION"));
        version.expect("a copy of the server's files")
    };
    compare(&world, "5432=postgresql", load, |netra, _| {
        netra.scrape_until("the stream has ended", |scrape| scrape.active() == 0)?;
        match netra.scrape().sum("netra_tunnels_total", &[("reason", "replication")]) {
            1 => Ok(()),
            count => Err(format!("{count} tunnels")),
        }
    });
}

/// Batches in one go, statements that have a name from the third time on, portals that stay open, copies,
/// a timeout that cancels by a connection of its own.
#[test]
fn as_its_jdbc_driver_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let capture = world.dir().join("postgresql.pcap");
    let driver = ("postgresql.jar", "libpostgresql-jdbc-java");
    let ask = || java(&world.client, "pgjdbc_client.bsh", driver, &[&host, "5432"]);
    let load = || captured(&world, &capture, &[5432], ask);
    compare(&world, "5432=postgresql", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "postgresql");
        let of = |wanted: &str| -> u64 {
            seen.iter().filter(|((it, _), _)| it == wanted).map(|(_, count)| count).sum()
        };
        let (set_up, cancels) = (of("STARTUP"), of("CANCEL"));
        let total: u64 = seen.values().sum();
        let read = types_by_tshark(&world, &capture);
        let count = |kind: &str| read.get(kind).copied().unwrap_or(0);
        if total - set_up - cancels != count("Simple query") + count("Sync") || cancels != 1 {
            return Err(format!("netra: {seen:?}\ntshark: {read:?}"));
        }
        let spans = sink.take(usize::try_from(total - set_up).expect("few"))?;
        for (name, code) in [
            ("insert jdbc", "23505"),
            ("select nowhere", "42P01"),
            ("copy jdbc", "23505"),
            ("select", "57014"),
            ("select", "25P02"),
        ] {
            ended(&spans, name, code)?;
        }
        no_secret(&spans)
    });
}

/// A pooler before netra: transactions of many clients by turns on few connections, each of which is told
/// once.
#[test]
fn heavy_transactions_of_a_pooler_are_those_that_pgbench_counted() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let config = world.dir().join("pgbouncer.ini");
    let text = format!(
        "[databases]\npostgres = host={POD_V4} port=5432 user=bench\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = 6432\nauth_type = any\npool_mode = transaction\n\
         default_pool_size = 3\nserver_idle_timeout = 1\nserver_tls_sslmode = disable\n"
    );
    fs::write(&config, text).expect("a file");
    let bench = tool("pgbench", "postgresql");
    let host = POD_V4.to_string();
    run(&world.client, &bench, &["-h", &host, "-U", "bench", "-i", "-q", "postgres"]);
    let script = world.dir().join("script.sql");
    let text = "\\set aid random(1, 100000)\nbegin;\n\
                update pgbench_accounts set abalance = 1 where aid = :aid;\n\
                select abalance from pgbench_accounts where aid = :aid;\ncommit;\n";
    fs::write(&script, text).expect("a script");
    let script = script.display().to_string();
    let load = || {
        let pooler = tool("pgbouncer", "pgbouncer");
        let mut command = world.client.command_as(pooler, Some(NOBODY), None);
        command.arg(&config).current_dir(world.dir());
        let mut pooler = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let args = ["-h", "127.0.0.1", "-p", "6432", "-U", "bench", "-n", "-f", &script];
        let more = ["-c", "16", "-j", "2", "-t", "50", "postgres"];
        let mut text = String::new();
        let is_there = wait_until(PATIENCE, || {
            let psql = tool("psql", "postgresql-client");
            let mut command = world.client.command(psql);
            command.args(["-h", "127.0.0.1", "-p", "6432", "-U", "bench", "-Atc", "select 7"]);
            command.arg("postgres").output().is_ok_and(|output| output.stdout == b"7\n")
        });
        if is_there {
            text = run(&world.client, &bench, &[&args[..], &more].concat());
        }
        let end = i32::try_from(pooler.id()).expect("a pid");
        kill(Pid::from_raw(end), Signal::SIGINT).expect("it runs");
        pooler.wait().expect("it ends");
        assert!(is_there, "pgbouncer does not answer");
        number_after(&text, "number of transactions actually processed:").to_string()
    };
    compare(&world, "5432=postgresql", load, |netra, _| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let of = |operation| scrape.sum(EXCHANGES, &[("operation", operation), ("outcome", "ok")]);
        let connections = of("STARTUP");
        match (of("UPDATE"), of("BEGIN"), of("COMMIT")) {
            // psql's question is one more.
            (800, 800, 800) if (1..=6).contains(&connections) => Ok(()),
            other => Err(format!("{other:?} of 800 each, on {connections} connections")),
        }
    });
}
