//! Messages that go to a mirror as well, of nobody here: redis-server, dubbo-py, Python's HTTP. The clients
//! learn nothing of it, whatever becomes of the mirror.

use crate::{
    connections, in_cells, peer,
    routes_of_others::{redis, redis_server, route, router, versions},
    support::{
        http::shown,
        lockstep::Peer,
        matrix::{cells, cells_with},
        netra::{ADMIN_PORT, Netra, Setup},
        programs::{Server, run},
        scrape,
        spans::python_path,
        world::{CLIENT_V4, World},
    },
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{cell::RefCell, fs};

/// What a route has of a mirror: this version of the host, and so many percent.
fn mirror(host: &str, version: u8, percent: &str) -> String {
    format!(
        "    mirror: {{host: {host}, subset: v{version}}}\n    mirrorPercentage: {{value: {percent}}}\n"
    )
}

/// Copies by what became of them.
fn copies(netra: &Netra<'_>, outcome: &str) -> u64 {
    netra.scrape().sum("netra_mirrored_total", &[("outcome", outcome)])
}

fn nothing_is_left(netra: &Netra<'_>) -> Result<(), String> {
    netra.scrape_until("no connection and no mirror is left", |scrape| {
        let gauge = |name: &str| scrape.sum(name, &[]);
        let held = gauge("netra_held_bytes");
        scrape.active() == 0 && gauge("netra_mirrors_active") == 0 && held == 0
    })
}

/// Of 1,000 messages with ten percent each: six times what the draw strays.
fn is_a_tenth(count: u64) -> bool {
    (43..=157).contains(&count)
}

fn redis_rules() -> String {
    let key = |prefix: &str| format!("key: {{prefix: \"{prefix}:\"}}");
    let routes = route("cache", "all", &key("all"), &[(1, 100)])
        + &mirror("cache", 2, "100")
        + &route("cache", "some", &key("some"), &[(1, 100)])
        + &mirror("cache", 2, "10")
        + &route("cache", "gone", &key("gone"), &[(1, 100)])
        + &mirror("cache", 3, "100");
    versions("cache", [6379, 6380, 6399], "tcp-redis") + &router("cache", &routes)
}

fn redis_setup(setup: Setup) -> Setup {
    setup.env("NETRA_PROTOCOLS", "6379=redis")
}

/// Sends commands one after the other, each when the one before has its answer.
fn say(client: &mut Peer, command: &[u8], expected: &str) -> Result<(), String> {
    let before = client.received.len();
    client.send(command)?;
    client.until(|client| match client.received[before..] == *expected.as_bytes() {
        true => Ok(()),
        false => Err(shown(&client.received[before..])),
    })
}

/// redis-server and redis-cli: every message, one in ten, none of a session, and none where nobody is.
#[test]
fn commands_of_redis_are_copied() {
    let Some(world) = World::new() else { return };
    let _servers = [redis_server(&world, 6379), redis_server(&world, 6380)];
    in_cells(&world, &cells(), &redis_rules(), redis_setup, |netra, _| {
        for port in [6379, 6380] {
            redis(&world.client, port, &["FLUSHALL"]);
        }
        let there = |key: &str| redis(&world.client, 6380, &["GET", key]);
        let wait = |what: &str, sent: u64| {
            netra.scrape_until(what, |scrape| {
                scrape.sum("netra_mirrored_total", &[("outcome", "sent")]) >= sent
            })
        };
        for (key, most) in [("all:n", 1000), ("some:n", 0), ("gone:n", 0)] {
            let said = redis(&world.pod, 6379, &["-r", "1000", "INCR", key]);
            let lines: Vec<_> = said.lines().collect();
            let is_good = lines.len() == 1000 && lines[999].ends_with("1000");
            if !is_good {
                return Err(format!("{key}: {} answers, {:?}", lines.len(), lines.last()));
            }
            wait(key, most)?;
        }
        nothing_is_left(netra)?;
        let (all, some) = (there("all:n"), there("some:n").parse().unwrap_or(0));
        if all != "1000" || !is_a_tenth(some) || !there("gone:n").is_empty() {
            return Err(format!("the mirror has {all:?} of all, {some} of some"));
        }
        let told = ["sent", "unreachable", "session"].map(|outcome| copies(netra, outcome));
        if told != [1000 + some, 1000, 0] {
            return Err(format!("{told:?} were counted"));
        }
        redis(&world.pod, 6379, &["-n", "1", "INCR", "all:session"]);
        if copies(netra, "session") != 1
            || !redis(&world.client, 6380, &["-n", "0", "GET", "all:session"]).is_empty()
        {
            return Err("a command of a session was copied".into());
        }
        nothing_is_left(netra)
    });
}

/// `/connections` and `/rules` say it.
#[test]
fn mirrors_are_shown() {
    let Some(world) = World::new() else { return };
    let _servers = [redis_server(&world, 6379), redis_server(&world, 6380)];
    in_cells(&world, &cells_with(1), &redis_rules(), redis_setup, |netra, _| {
        let mut client = Peer::connect(&world.pod, (CLIENT_V4, 6379).into())?;
        say(&mut client, b"SET all:1 x\r\n", "+OK\r\n")?;
        netra.scrape_until("a mirror is there", |scrape| {
            scrape.sum("netra_mirrors_active", &[]) == 1
                && scrape.sum("netra_mirrored_total", &[("outcome", "sent")]) == 1
        })?;
        let connections = connections(&world)?;
        let rows = connections["connections"].as_array().ok_or("no rows")?;
        let is_it = |row: &&Value| row["is_mirror"] == true && row["state"] == "mirror";
        let upstream = rows.iter().find(is_it).map(|row| row["upstream"].to_string());
        if connections["total"] != 1 || upstream != Some(format!("\"{CLIENT_V4}:6380\"")) {
            return Err(format!("{connections:#}"));
        }
        let (_, rules) =
            scrape::get(&world.pod, ADMIN_PORT, "/rules").map_err(|it| it.to_string())?;
        if !rules.contains("mirrors 10 % to cache/v2") {
            return Err(rules);
        }
        client.close();
        nothing_is_left(netra)
    });
}

/// The mirror is killed, or stopped, in the middle of it: no client sees anything of it, and what it has
/// not taken is counted.
#[test]
fn a_mirror_that_is_killed_or_stopped_is_nobodys_matter() {
    let Some(world) = World::new() else { return };
    let _server = redis_server(&world, 6379);
    let mirror = RefCell::new(Some(redis_server(&world, 6380)));
    let value = "v".repeat(20_000);
    let set = |number: usize| {
        format!("*3\r\n$3\r\nSET\r\n$9\r\nall:{number:05}\r\n$20000\r\n{value}\r\n").into_bytes()
    };
    let load = |client: &mut Peer, numbers: std::ops::Range<usize>| {
        numbers.into_iter().try_for_each(|number| say(client, &set(number), "+OK\r\n"))
    };
    in_cells(&world, &cells(), &redis_rules(), redis_setup, |netra, _| {
        let mut client = Peer::connect(&world.pod, (CLIENT_V4, 6379).into())?;
        load(&mut client, 0..100)?;
        // A mirror that is starved of CPU may be slow already: each is counted, whatever became of it.
        netra.scrape_until("the mirror has what it took of 100", |scrape| {
            let copies = |outcome| scrape.sum("netra_mirrored_total", &[("outcome", outcome)]);
            copies("sent") > 0 && copies("sent") + copies("slow") == 100
        })?;
        // SIGKILL.
        *mirror.borrow_mut() = None;
        load(&mut client, 100..300)?;
        let lost = copies(netra, "unreachable") + copies(netra, "cut");
        *mirror.borrow_mut() = Some(redis_server(&world, 6380));
        if lost == 0 {
            return Err("nothing is counted as lost".into());
        }
        // It is tried again, not at once.
        let mut again = || {
            let before = copies(netra, "sent");
            load(&mut client, 300..301)?;
            netra.scrape_until("a copy goes to it", |scrape| {
                scrape.sum("netra_mirrored_total", &[("outcome", "sent")]) > before
            })
        };
        std::thread::sleep(std::time::Duration::from_millis(1100));
        again()?;
        let stop = |signal| mirror.borrow().iter().for_each(|it| it.signal(signal));
        stop(Signal::SIGSTOP);
        // More than sockets take.
        let loaded = load(&mut client, 301..1300);
        let slow = copies(netra, "slow");
        stop(Signal::SIGCONT);
        loaded?;
        if slow == 0 {
            return Err("nothing is counted as slow".into());
        }
        client.close();
        nothing_is_left(netra)?;
        let outcomes = ["sent", "slow", "unreachable", "cut"].map(|it| copies(netra, it));
        match outcomes.iter().sum::<u64>() {
            1300 => Ok(()),
            sum => Err(format!("{sum} of 1300 were counted: {outcomes:?}")),
        }
    });
}

/// dubbo-py on both sides.
#[test]
fn calls_of_dubbo_are_copied() {
    let Some(world) = World::new() else { return };
    let host = "org.apache.dubbo.samples.basic.api.demoservice";
    let routes = route(host, "all", "foo: {exact: all}", &[(1, 100)])
        + "    requestMutation: [{key: given, value: granted}]\n"
        + &mirror(host, 2, "100")
        + &route(host, "some", "foo: {exact: some}", &[(1, 100)])
        + &mirror(host, 2, "10");
    let rules =
        versions(host, [20880, 20881, 20899], "tcp-metaprotocol-dubbo") + &router(host, &routes);
    let server = |port: u16| {
        let mut command = world.client.command(python_path());
        command.args([peer("dubbo_peer.py"), "server".into(), port.to_string()]);
        Server::start(&world, &world.client, command, port)
    };
    let calls = |port: &str, method: &str, count: &str, attached: &str| {
        let namespace = if port == "20880" { &world.pod } else { &world.client };
        let to = CLIENT_V4.to_string();
        let args = [&*peer("dubbo_peer.py"), "calls", &to, port, count, method, attached];
        run(namespace, &python_path(), &args)
    };
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "20880=dubbo");
    in_cells(&world, &cells_with(2), &rules, protocols, |netra, _| {
        let _servers = [server(20880), server(20881)];
        let all = calls("20880", "sayHello", "1000", "foo=all");
        let some = calls("20880", "sayHello", "1000", "foo=some");
        if !all.contains("1000") || !some.contains("1000") {
            return Err(format!("not all were answered: {all} {some}"));
        }
        netra.scrape_until("the mirror has them", |scrape| {
            scrape.sum("netra_mirrored_total", &[("outcome", "sent")]) >= 1000
        })?;
        nothing_is_left(netra)?;
        let sent = copies(netra, "sent");
        let there = calls("20881", "hellos", "1", "foo=x");
        if !there.contains(&sent.to_string()) || !is_a_tenth(sent - 1000) {
            return Err(format!("{sent} were sent, the mirror has {there}"));
        }
        Ok(())
    });
}

/// Python's HTTP on both sides: bodies of all lengths, in chunks and not; what rules give a request, its copy
/// has as well.
#[test]
fn requests_of_http_are_copied() {
    let Some(world) = World::new() else { return };
    let routes = route("svc", "all", "path: {prefix: /all}", &[(1, 100)])
        + "    requestMutation: [{key: X-Given, value: granted}]\n"
        + &mirror("svc", 2, "100")
        + &route("svc", "some", "path: {prefix: /some}", &[(1, 100)])
        + &mirror("svc", 2, "10");
    let rules = versions("svc", [8080, 8081, 8099], "http-svc") + &router("svc", &routes);
    let file = |port: u16| world.dir().join(format!("seen-{port}"));
    let server = |port: u16| {
        let mut command = world.client.command(python_path());
        command.args([peer("mirror_peer.py"), "server".into(), port.to_string()]).arg(file(port));
        Server::start(&world, &world.client, command, port)
    };
    let _servers = [server(8080), server(8081)];
    let seen = |port: u16, path: &str| -> Vec<String> {
        let all = fs::read_to_string(file(port)).unwrap_or_default();
        all.lines().filter(|line| line.contains(path)).map(str::to_owned).collect()
    };
    let ask = |path: &str| {
        let to = CLIENT_V4.to_string();
        run(
            &world.pod,
            &python_path(),
            &[&peer("mirror_peer.py"), "client", &to, "8080", path, "1000"],
        )
    };
    let ports = |setup: Setup| setup.env("NETRA_HTTP_PORTS", "8080");
    in_cells(&world, &cells(), &rules, ports, |netra, _| {
        for port in [8080, 8081] {
            fs::write(file(port), "").map_err(|error| error.to_string())?;
        }
        for path in ["/all", "/some"] {
            let said = ask(path);
            if said.trim() != "good 1000 of 1000" {
                return Err(format!("{path}: {said}"));
            }
        }
        nothing_is_left(netra)?;
        let (asked, copied) = (seen(8080, " /all/"), seen(8081, " /all/"));
        let lost = ["slow", "unreachable", "cut", "no_room", "session", "too_long"];
        let lost: Vec<_> =
            lost.iter().map(|it| (it, copies(netra, it))).filter(|it| it.1 > 0).collect();
        // A mirror that is behind may lose some; it has no others, and those in their order.
        let mut rest = asked.iter();
        let is_part = copied.iter().all(|copy| rest.any(|it| it == copy));
        if asked.len() != 1000 || !is_part || copied.len() < 900 {
            return Err(format!("{} asked, {} copied, {lost:?}", asked.len(), copied.len()));
        }
        if !copied.iter().all(|line| line.ends_with(" granted")) {
            return Err(format!("not as they were sent: {:?}", &copied[..3]));
        }
        let some = seen(8081, " /some/").len() as u64;
        let sent = copies(netra, "sent");
        if !is_a_tenth(some) || sent != some + copied.len() as u64 {
            return Err(format!("{some} of some, {sent} were sent, {} of all", copied.len()));
        }
        Ok(())
    });
}
