//! MariaDB by PyMySQL, mysqlclient, its JDBC driver, its own client and mysqlslap, with tshark as a second
//! reader.

use super::capture::captured;
use super::support::netra::Netra;
use super::support::programs::{Server, number_after, run, tool};
use super::support::sink::{Sink, Span};
use super::support::world::{POD_V4, World, checked};
use super::support::{PATIENCE, wait_until};
use super::{EXCHANGES, compare, ended, exchanges, java, no_secret, no_tunnel, peer, python};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

/// A user that every Debian has, as the server refuses to be root.
const NOBODY: u32 = 65534;
const PORT: u16 = 3306;

/// A server with a user for tests, who has a password.
pub(super) fn server(world: &World) -> Server {
    let package = "mariadb-server";
    let data = world.dir().join("maria");
    let place = format!("--datadir={}", data.display());
    let mut install = world.pod.command_as(tool("mariadb-install-db", package), Some(NOBODY), None);
    install.args(["--no-defaults", &place, "--skip-test-db"]);
    // Each server that starts removes the temporary tables that it finds, whoever works with them.
    let own = format!("--tmpdir={}", world.dir().display());
    install.args(["--auth-root-authentication-method=normal", &own]);
    checked(install.current_dir(world.dir()).output().expect("install"), "mariadb-install-db");
    let socket = format!("--socket={}/s", data.display());
    let mut command = world.pod.command_as(tool("mariadbd", package), Some(NOBODY), None);
    command.args(["--no-defaults", &place, &socket, "--port=3306", "--bind-address=*"]);
    command.args(["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--local-infile=1"]);
    command.args(["--max-allowed-packet=64M", "--log-bin=log", "--server-id=1"]);
    command.arg(format!("--pid-file={}/pid", data.display())).arg(own);
    let server = Server::start(world, &world.pod, command, PORT);
    let client = tool("mariadb", "mariadb-client");
    let user = "create user bench@'%' identified by 'secret'; grant all on *.* to bench@'%'";
    let create = || {
        let mut command = world.pod.command(&client);
        command.args(["--no-defaults", &socket, "-u", "root", "-e", user]);
        command.output().is_ok_and(|output| output.status.success())
    };
    assert!(wait_until(PATIENCE, create), "MariaDB does not answer");
    server
}

/// How its own programs reach it from the client.
fn reach() -> [String; 6] {
    let host = format!("--host={POD_V4}");
    ["--no-defaults", &host, "--protocol=tcp", "--user=bench", "--password=secret", "--skip-ssl"]
        .map(str::to_owned)
}

fn program(world: &World, name: &str, args: &[&str]) -> String {
    let reach = reach();
    let reach: Vec<_> = reach.iter().map(String::as_str).collect();
    run(&world.client, &tool(name, "mariadb-client"), &[&reach[..], args].concat())
}

/// How often each command was sent, by its number, as tshark reads them.
fn commands_by_tshark(world: &World, capture: &Path) -> BTreeMap<u8, u64> {
    let file = capture.display().to_string();
    let args = ["-r", &file, "-d", "tcp.port==3306,mysql", "-Y", "mysql.command", "-T", "fields"];
    let fields = ["-e", "mysql.command"];
    let text = run(&world.client, &tool("tshark", "tshark"), &[&args[..], &fields].concat());
    let mut counts = BTreeMap::new();
    for number in text.lines().flat_map(|line| line.split(',')) {
        *counts.entry(number.trim().parse().expect("a number")).or_insert(0) += 1;
    }
    counts
}

/// An application with everything that PyMySQL does: what it sees stays the same, each command is
/// told once, and its spans say what was done and no more.
#[test]
fn as_pymysql_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let folder = world.dir().display().to_string();
    let capture = world.dir().join("mysql.pcap");
    let ask = || python(&world.client, "mysql_client.py", &[&host, "3306", &folder]);
    let load = || captured(&world, &capture, &[3306], ask);
    compare(&world, "3306=mysql", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        no_tunnel(&scrape)?;
        let seen = exchanges(&scrape, "mysql");
        let of = |wanted: &str| -> u64 {
            seen.iter().filter(|((it, _), _)| it == wanted).map(|(_, count)| count).sum()
        };
        let read = commands_by_tshark(&world, &capture);
        let here = [of("COM_QUIT"), of("COM_INIT_DB"), of("COM_PING")];
        let there = [1, 2, 14].map(|number| read.get(&number).copied().unwrap_or(0));
        // A text of 18 MB is never whole in tshark's eyes.
        let queries = read.get(&3).copied().unwrap_or(0);
        if here != there || of("COM_QUERY").abs_diff(queries) > 1 {
            return Err(format!("netra: {seen:?}\ntshark: {read:?}"));
        }
        if seen.get(&("login".into(), "error".into())) != Some(&1) {
            return Err(format!("one refused login, but {seen:?}"));
        }
        let total: u64 = seen.values().sum();
        let spans = sink.take(usize::try_from(total - of("login")).expect("few"))?;
        let wrong = |name: &str, code: &str| ended(&spans, name, code);
        wrong("select nowhere", "1146")?;
        // Behind rows that were fine.
        wrong("select select kv kv", "1242")?;
        wrong("kill", "1094")?;
        for (key, value) in [
            ("db.system.name", "mysql"),
            ("db.query.summary", "insert kv"),
            ("db.namespace", "shop"),
            ("error.type", "1062"),
            ("netra.db.sqlstate", "23000"),
            ("span.kind", "server"),
            ("error", "true"),
        ] {
            let said = wrong("insert kv", "1062")?.tag(key);
            if said != value {
                return Err(format!("{key} is {said:?}, not {value}"));
            }
        }
        no_secret(&spans)
    });
}

/// The server's own count of texts.
fn questions(world: &World) -> u64 {
    let text = program(world, "mariadb", &["-NBe", "show global status like 'Com_insert'"]);
    number_after(&text, "Com_insert")
}

/// Loads of mysqlslap: as many as the server counted.
#[test]
fn heavy_inserts_are_those_that_the_server_counted() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let counted = Cell::new(0);
    let load = || {
        let before = questions(&world);
        let queries = ["--auto-generate-sql", "--concurrency=8", "--number-of-queries=1600"];
        program(&world, "mariadb-slap", &queries);
        counted.set(questions(&world) - before);
        // Rows longer than any buffer.
        let large = program(&world, "mariadb", &["-NBe", "select repeat('netra', 400000)"]);
        large.trim().len().to_string()
    };
    compare(&world, "3306=mysql", load, |netra, sink| {
        netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
        no_tunnel(&netra.scrape())?;
        let total = netra.scrape().sum(EXCHANGES, &[("outcome", "ok")]);
        let logins = netra.scrape().sum(EXCHANGES, &[("operation", "login")]);
        let spans = sink.take(usize::try_from(total - logins).expect("few"))?;
        let is_insert = |span: &&Span| span.name.eq_ignore_ascii_case("insert t1");
        let inserts = spans.iter().filter(is_insert).count() as u64;
        match counted.get() {
            count if count == inserts && count > 400 => Ok(()),
            count => Err(format!("{inserts} told, {count} by the server")),
        }
    });
}

/// A stream of replication is relayed, and no longer read; so is what is compressed.
#[test]
fn replication_and_compression_are_tunnels() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let load = || {
        let log = ["--read-from-remote-server", "--to-last-log", "log.000001"];
        let log = program(&world, "mariadb-binlog", &log);
        let said = program(&world, "mariadb", &["--compress", "-NBe", "select 41 + 1"]);
        format!("{} {said}", log.contains("ROLLBACK"))
    };
    compare(&world, "3306=mysql", load, |netra, _| {
        netra.scrape_until("both have ended", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        let of = |reason: &str| scrape.sum("netra_tunnels_total", &[("reason", reason)]);
        match (of("replication"), of("compressed")) {
            (1, 1) => Ok(()),
            other => Err(format!("{other:?} tunnels")),
        }
    });
}

/// Whether netra counted as many commands of each kind as tshark read, and told a span of each but what
/// sets a connection up and what is in none; then whether these spans end so, and none tells a value.
fn agree(
    world: &World,
    (netra, sink): (&Netra<'_>, &Sink),
    capture: &Path,
    wrong: &[(&str, &str)],
) -> Result<(), String> {
    netra.scrape_until("all answered", |scrape| scrape.active() == 0)?;
    let scrape = netra.scrape();
    no_tunnel(&scrape)?;
    let seen = exchanges(&scrape, "mysql");
    let mut counts = BTreeMap::new();
    for ((operation, _), count) in seen.iter().filter(|((it, _), _)| it != "login") {
        *counts.entry(operation.as_str()).or_insert(0) += count;
    }
    let names = BTreeMap::from([
        (1, "COM_QUIT"),
        (2, "COM_INIT_DB"),
        (3, "COM_QUERY"),
        (9, "COM_STATISTICS"),
        (14, "COM_PING"),
        (17, "COM_CHANGE_USER"),
        (22, "COM_STMT_PREPARE"),
        (23, "COM_STMT_EXECUTE"),
        (24, "COM_STMT_SEND_LONG_DATA"),
        (25, "COM_STMT_CLOSE"),
        (26, "COM_STMT_RESET"),
        (28, "COM_STMT_FETCH"),
        (31, "COM_RESET_CONNECTION"),
        (250, "COM_STMT_BULK_EXECUTE"),
    ]);
    let read = commands_by_tshark(world, capture).into_iter();
    let read: BTreeMap<_, _> =
        read.map(|(number, count)| (names.get(&number).copied().unwrap_or("?"), count)).collect();
    if counts != read {
        return Err(format!("netra: {seen:?}\ntshark: {read:?}"));
    }
    let set_up = ["login", "COM_CHANGE_USER"];
    let told = seen.iter().filter(|((it, _), _)| !set_up.contains(&it.as_str()));
    let total: u64 = told.map(|(_, count)| count).sum();
    let spans = sink.take(usize::try_from(total).expect("few"))?;
    for (name, code) in wrong {
        ended(&spans, name, code)?;
    }
    no_secret(&spans)
}

/// The C library by Python: another user on the same connection, statistics, procedures, a lock that is
/// waited for in vain.
#[test]
fn as_mysqlclient_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let module = Path::new("/usr/lib/python3/dist-packages/MySQLdb");
    assert!(module.exists(), "{} is missing: python3-mysqldb", module.display());
    let (host, script) = (POD_V4.to_string(), peer("mysqlclient_client.py").display().to_string());
    let capture = world.dir().join("mysql.pcap");
    let ask = || run(&world.client, Path::new("/usr/bin/python3"), &[&script, &host, "3306"]);
    let load = || captured(&world, &capture, &[3306], ask);
    compare(&world, "3306=mysql", load, |netra, sink| {
        let wrong = [("insert kv", "1062"), ("select nowhere", "1146"), ("update kv", "1205")];
        agree(&world, (netra, sink), &capture, &wrong)
    });
}

/// Statements that are prepared at the server, rows in one command of MariaDB's own, a timeout.
#[test]
fn as_its_jdbc_driver_uses_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    let _server = server(&world);
    let host = POD_V4.to_string();
    let capture = world.dir().join("mysql.pcap");
    let driver = ("mariadb-java-client.jar", "libmariadb-java");
    let ask = || java(&world.client, "connectorj_client.bsh", driver, &[&host, "3306"]);
    let load = || captured(&world, &capture, &[3306], ask);
    compare(&world, "3306=mysql", load, |netra, sink| {
        let wrong = [("insert kv", "1062"), ("select nowhere", "1146")];
        agree(&world, (netra, sink), &capture, &wrong)
    });
}
