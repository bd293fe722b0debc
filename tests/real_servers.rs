//! Programs that people run: as much succeeds through netra as without it.
//!
//! Each test starts its server in the pod with its data in a directory of its own, runs the
//! program's own load tool from the client over the direct path, and again through netra.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::fs;
use std::path::Path;
use support::matrix::{self, Cell, Findings};
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::programs::{
    self, Server, Tally, compare, number_after, number_before, run, tally, tool,
};
use support::stream;
use support::world::{CLIENT_V4, Namespace, POD_V4, POD_V6, World, checked};
use support::{PATIENCE, wait_until};

/// A user that every Debian has, for servers that refuse to be root.
const NOBODY: u32 = 65534;

fn redis(world: &World, server: &Namespace, client: &Namespace, address: &str) {
    let (bench, cli) = (tool("redis-benchmark", "redis-tools"), tool("redis-cli", "redis-tools"));
    let mut command = server.command(tool("redis-server", "redis-server"));
    command.args(["--port", "6379", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.args(["--protected-mode", "no", "--bind", "0.0.0.0", "::"]);
    let _server = Server::start(world, server, command, 6379);
    let processed = || {
        let stats = run(server, &cli, &["-h", "127.0.0.1", "info", "commandstats"]);
        ["cmdstat_set:calls=", "cmdstat_get:calls=", "cmdstat_lpush:calls="]
            .map(|name| if stats.contains(name) { number_after(&stats, name) } else { 0 })
    };
    let big = String::from_utf8(stream::random(5, 200_000).iter().map(|b| b'a' + b % 26).collect());
    let big = big.expect("letters");
    compare(world, || {
        let before = processed();
        for pipeline in ["1", "16"] {
            let tests = ["-t", "set,get,lpush", "-n", "10000", "-c", "50", "-d", "100", "-q"];
            run(client, &bench, &[&["-h", address, "-P", pipeline], &tests[..]].concat());
        }
        run(client, &cli, &["-h", address, "set", "big", &big[..100_000]]);
        let back = run(client, &cli, &["-h", address, "get", "big"]);
        let after = processed();
        let [set, get, lpush] = [0, 1, 2].map(|index| after[index] - before[index]);
        let intact = u64::from(back.trim() == &big[..100_000]);
        tally([("set", set), ("get", get), ("lpush", lpush), ("big value intact", intact)])
    });
}

#[test]
fn heavy_redis_inbound() {
    let Some(world) = World::new() else { return };
    redis(&world, &world.pod, &world.client, &POD_V4.to_string());
}

#[test]
fn heavy_redis_outbound() {
    let Some(world) = World::new() else { return };
    redis(&world, &world.client, &world.pod, &CLIENT_V4.to_string());
}

#[test]
fn heavy_postgresql() {
    let Some(world) = World::new() else { return };
    let package = "postgresql";
    let (bench, psql) = (tool("pgbench", package), tool("psql", "postgresql-client"));
    let data = world.dir().join("pg");
    let place = data.display().to_string();
    let mut initdb = world.pod.command_as(tool("initdb", package), Some(NOBODY), None);
    initdb.args(["-D", &place, "-U", "bench", "--auth=trust", "--no-sync", "--locale=C"]);
    checked(initdb.current_dir(world.dir()).output().expect("initdb"), "initdb");
    let anybody = "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n";
    fs::write(data.join("pg_hba.conf"), anybody).expect("pg_hba.conf");
    let mut command = world.pod.command_as(tool("postgres", package), Some(NOBODY), None);
    command.args(["-D", &place, "-c", "listen_addresses=*", "-c", "fsync=off"]);
    command.args(["-c", &format!("unix_socket_directories={place}")]);
    let _server = Server::start(&world, &world.pod, command, 5432);
    let host = POD_V4.to_string();
    let ready = ["-h", &host, "-U", "bench", "-d", "postgres", "-Atc", "select 1"];
    let answers =
        || world.client.command(&psql).args(ready).output().is_ok_and(|o| o.status.success());
    assert!(wait_until(PATIENCE, answers), "PostgreSQL does not answer");
    run(&world.client, &bench, &["-h", &host, "-U", "bench", "-i", "-q", "postgres"]);
    compare(&world, || {
        let with = |args: &[&str]| {
            let text =
                run(&world.client, &bench, &[&["-h", &host, "-U", "bench", "-n"], args].concat());
            assert_eq!(number_after(&text, "number of failed transactions:"), 0, "{text}");
            number_after(&text, "number of transactions actually processed:")
        };
        let lines = "select repeat(md5(n::text), 10) from generate_series(1, 50000) n";
        let dump =
            run(&world.client, &psql, &["-h", &host, "-U", "bench", "-Atc", lines, "postgres"]);
        tally([
            ("transactions", with(&["-c", "8", "-j", "2", "-t", "100", "postgres"])),
            ("prepared", with(&["-M", "prepared", "-S", "-c", "8", "-t", "500", "postgres"])),
            ("reconnecting", with(&["-C", "-S", "-c", "4", "-t", "25", "postgres"])),
            ("bytes of a large result", dump.len() as u64),
        ])
    });
}

/// MariaDB greets before the client says anything.
#[test]
fn heavy_mariadb_speaks_first() {
    let Some(world) = World::new() else { return };
    let server = "mariadb-server";
    let (slap, client) =
        (tool("mariadb-slap", "mariadb-client"), tool("mariadb", "mariadb-client"));
    let data = world.dir().join("maria");
    let place = format!("--datadir={}", data.display());
    let mut install = world.pod.command_as(tool("mariadb-install-db", server), Some(NOBODY), None);
    install.args([
        "--no-defaults",
        &place,
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ]);
    checked(install.current_dir(world.dir()).output().expect("install"), "mariadb-install-db");
    let mut command = world.pod.command_as(tool("mariadbd", server), Some(NOBODY), None);
    command.args([
        "--no-defaults",
        &place,
        "--port=3306",
        "--bind-address=*",
        "--skip-grant-tables",
    ]);
    command.args(["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]);
    command.arg(format!("--socket={}/s", data.display()));
    command.arg(format!("--pid-file={}/pid", data.display()));
    let _server = Server::start(&world, &world.pod, command, 3306);
    let host = format!("--host={POD_V4}");
    let query = |sql: &str| {
        let args = ["--no-defaults", &host, "--protocol=tcp", "-N", "-B", "-e", sql];
        run(&world.client, &client, &args)
    };
    let questions = || number_after(&query("show global status like 'Questions'"), "Questions");
    compare(&world, || {
        let before = questions();
        let load = ["--auto-generate-sql", "--concurrency=8", "--number-of-queries=800"];
        let args = [&["--no-defaults", host.as_str(), "--protocol=tcp"], &load[..]].concat();
        run(&world.client, &slap, &args);
        let large = query("select repeat('netra', 400000)");
        let connects = (0..20).filter(|_| query("select 41 + 1").trim() == "42").count();
        tally([
            ("questions", questions() - before),
            ("bytes of a large result", large.trim().len() as u64),
            ("short connections", connects as u64),
        ])
    });
}

#[test]
fn heavy_iperf3() {
    const BYTES: u64 = 256 << 20;
    let Some(world) = World::new() else { return };
    let iperf = tool("iperf3", "iperf3");
    let mut command = world.pod.command(&iperf);
    command.args(["-s", "-p", "5201"]);
    let _server = Server::start(&world, &world.pod, command, 5201);
    let host = POD_V4.to_string();
    compare(&world, || {
        let load = |more: &[&str]| {
            let total = BYTES.to_string();
            let args = [&["-c", host.as_str(), "-n", total.as_str(), "-J"], more].concat();
            let report = run(&world.client, &iperf, &args);
            let received = report.split_once("\"sum_received\"").expect("a sum").1;
            // The server stops counting when the client says that it has sent everything.
            u64::from(number_after(received, "\"bytes\":") > BYTES / 10 * 9)
        };
        tally([("up", load(&[])), ("down", load(&["-R"])), ("four down", load(&["-R", "-P", "4"]))])
    });
}

fn nginx(world: &World) -> Server {
    fs::write(world.dir().join("small"), stream::random(1, 1_024)).expect("a file");
    fs::write(world.dir().join("large"), stream::random(2, 20_000_000)).expect("a file");
    programs::nginx(world, "8080 backlog=4096; listen [::]:8080 backlog=4096")
}

#[test]
fn heavy_nginx_with_curl() {
    let Some(world) = World::new() else { return };
    let curl = tool("curl", "curl");
    let _server = nginx(&world);
    let large = fs::read(world.dir().join("large")).expect("a file");
    let fetched = world.dir().join("fetched");
    let hosts = [POD_V4.to_string(), format!("[{POD_V6}]")];
    compare(&world, || {
        let mut rows = Tally::new();
        for host in &hosts {
            let target = format!("http://{host}:8080/large");
            let place = fetched.display().to_string();
            run(&world.client, &curl, &["-sSfg", "-o", &place, &target]);
            let same = fs::read(&fetched).expect("a file") == large;
            rows.insert(format!("{host} large file intact"), u64::from(same));
            // One connection for all of them, and no answer lost among them.
            let many = format!("http://{host}:8080/small?[1-200]");
            let out = run(
                &world.client,
                &curl,
                &["-sSf", "-o", "/dev/null", "-w", "%{http_code}\n", &many],
            );
            rows.insert(format!("{host} small"), out.matches("200").count() as u64);
        }
        rows
    });
}

#[test]
fn heavy_nginx_with_wrk() {
    let Some(world) = World::new() else { return };
    let wrk = tool("wrk", "wrk");
    let _server = nginx(&world);
    let target = format!("http://{POD_V4}:8080/small");
    compare(&world, || {
        let load = |more: &[&str]| {
            let args = [&["-t1", "-d2s", "--timeout", "5s"], more, &[target.as_str()]].concat();
            let report = run(&world.client, &wrk, &args);
            let clean = !report.contains("Socket errors") && !report.contains("Non-2xx");
            let answered = number_before(&report, " requests in");
            assert!(answered > 100, "{report}");
            assert!(clean, "{report}");
            1
        };
        tally([
            ("keep-alive without an error", load(&["-c32"])),
            ("new connections without an error", load(&["-c16", "-H", "Connection: close"])),
        ])
    });
}

/// All of them at once do not disturb one another: what runs in a pod is never one protocol.
#[test]
fn heavy_mixed_protocols() {
    let Some(world) = World::new() else { return };
    let (curl, cli) = (tool("curl", "curl"), tool("redis-cli", "redis-tools"));
    let _web = nginx(&world);
    let mut command = world.pod.command(tool("redis-server", "redis-server"));
    command.args(["--port", "6379", "--save", "", "--protected-mode", "no"]);
    let _redis = Server::start(&world, &world.pod, command, 6379);
    apply_rules(&world, Backend::IptablesNft);
    let mut findings = Findings::default();
    for cell in matrix::cells() {
        let netra = Netra::start(&world, &Setup::new(cell));
        let (answers, incremented) = mixed(&world, &curl, &cli, cell);
        if (answers, incremented) != (100, 50) {
            findings
                .note(cell, format!("{answers} of 100 answers, {incremented} of 50 increments"));
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

fn mixed(world: &World, curl: &Path, cli: &Path, cell: Cell) -> (usize, u64) {
    let many = format!("http://{POD_V4}:8080/small?[1-100]");
    let mut fetch = world.client.command(curl);
    fetch.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}\n", &many]);
    let fetch = fetch.stdout(std::process::Stdio::piped()).spawn().expect("curl");
    let (host, key) = (POD_V4.to_string(), format!("count-{cell}"));
    let last = run(&world.client, cli, &["-h", &host, "-r", "50", "incr", &key]);
    let answers = checked(fetch.wait_with_output().expect("curl"), "curl");
    let incremented = last.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    (answers.matches("200").count(), incremented)
}
