//! Messages of one connection that go to three servers at a time, of nobody here: dubbo-py, thriftpy2 and
//! redis-server. Each is answered by whom it was for, and once; a server that is killed takes down its own.

use crate::{
    connections, in_cells, peer,
    routes_of_others::{redis, redis_server, route, router, versions},
    support::{
        PATIENCE,
        http::shown,
        lockstep::Peer,
        matrix::{cells, cells_with},
        netra::{Netra, Setup},
        programs::Server,
        spans::python_path,
        world::{CLIENT_V4, World},
    },
};
use nix::sys::signal::Signal;
use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// A protocol, as rules have it.
#[derive(Clone, Copy, Debug)]
struct Kind {
    protocol: &'static str,
    port: u16,
    host: &'static str,
    /// The name of its port.
    name: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        protocol: "dubbo",
        port: 20880,
        host: "org.apache.dubbo.samples.basic.api.demoservice",
        name: "tcp-metaprotocol-dubbo",
    },
    Kind { protocol: "thrift", port: 9090, host: "demo", name: "tcp-metaprotocol-thrift" },
    Kind { protocol: "redis", port: 6379, host: "cache", name: "tcp-redis" },
];

impl Kind {
    fn ports(self) -> [u16; 3] {
        [self.port, self.port + 1, self.port + 2]
    }

    /// What asks for a place.
    fn attribute(self, place: &str) -> String {
        match self.protocol {
            "dubbo" => format!("to: {{exact: {place}}}"),
            "thrift" => format!("service: {{exact: {place}}}"),
            _ => format!("key: {{prefix: \"{place}:\"}}"),
        }
    }

    /// Routes by name, where the third may be another's, and by weights.
    fn rules(self, third: u8) -> String {
        let by_name = |(place, version)| route(self.host, place, &self.attribute(place), version);
        let routes: String =
            [("one", &[(1, 100)][..]), ("two", &[(2, 100)]), ("three", &[(third, 100)])]
                .map(by_name)
                .concat();
        let split = [(1, 50), (2, 30), (3, 20)];
        let split = if third == 3 { &split[..] } else { &split[..1] };
        let routes = routes + &route(self.host, "split", &self.attribute("split"), split);
        versions(self.host, self.ports(), self.name) + &router(self.host, &routes)
    }

    /// The server of a place.
    fn server(self, world: &World, place: usize) -> Server {
        let (port, name) = (self.ports()[place], NAMES[place]);
        let mut command = world.client.command(python_path());
        match self.protocol {
            "dubbo" => {
                command.args([&peer("dubbo_peer.py"), "server", &port.to_string(), name]);
            }
            "thrift" => {
                let args = ["thrift", "0.0.0.0", &port.to_string(), "server", name];
                command.arg(peer("legs_peer.py")).args(args);
            }
            _ => {
                let server = redis_server(world, port);
                let keys = "for i = 1, 1100 do for _, p in ipairs({'one', 'two', 'three', 'split'}) \
                            do redis.call('SET', p .. ':' .. i, ARGV[1] .. ' ' .. i) end end";
                redis(&world.client, port, &["EVAL", keys, "0", name]);
                return server;
            }
        }
        Server::start(world, &world.client, command, port)
    }

    fn servers(self, world: &World) -> Vec<Option<Server>> {
        (0..NAMES.len()).map(|place| Some(self.server(world, place))).collect()
    }

    fn setup(self, setup: Setup) -> Setup {
        setup.env("NETRA_PROTOCOLS", format!("{}={}", self.port, self.protocol))
    }

    fn client(self, world: &World, scene: &str) -> Client {
        let (to, port) = (CLIENT_V4.to_string(), self.port.to_string());
        let mut command = world.pod.command(python_path());
        command.arg(peer("legs_peer.py")).args([self.protocol, &to, &port, scene]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let stdin = child.stdin.take().expect("piped");
        Client { child, said, stdin }
    }
}

/// A client, line by line. It gives up by itself after ten seconds without an answer.
#[derive(Debug)]
struct Client {
    child: Child,
    said: BufReader<ChildStdout>,
    stdin: ChildStdin,
}

impl Client {
    fn expect(&mut self, expected: &str) -> Result<(), String> {
        let mut line = String::new();
        self.said.read_line(&mut line).map_err(|error| error.to_string())?;
        if line.trim_end() == expected {
            return Ok(());
        }
        let _ = self.child.kill();
        let mut why = String::new();
        let _ = self.child.stderr.take().map(|mut it| it.read_to_string(&mut why));
        Err(format!("{line:?}, not {expected:?}\n{why}"))
    }

    fn go_on(&mut self) -> Result<(), String> {
        self.stdin.write_all(b"\n").map_err(|error| error.to_string())
    }

    fn end(mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the client ended with {status}")) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The legs that `/connections` shows, by where they lead.
fn legs(world: &World) -> Result<Vec<String>, String> {
    let page = connections(world)?;
    let rows = page["connections"].as_array().ok_or("no rows")?;
    if page["total"] != 1 {
        return Err(format!("legs are counted as connections: {page:#}"));
    }
    let mut of = Vec::new();
    for row in rows.iter().filter(|row| row["is_leg"] == true) {
        let upstream = row["upstream"].as_str().ok_or_else(|| format!("{row:#}"))?;
        if row["peer"] != rows.iter().find(|it| it["is_leg"] == false).ok_or("no owner")?["peer"] {
            return Err(format!("not its owner's peer: {page:#}"));
        }
        of.push(upstream.to_owned());
    }
    of.sort_unstable();
    Ok(of)
}

fn no_leg_is_left(netra: &Netra<'_>) -> Result<(), String> {
    netra.scrape_until("no leg is left", |scrape| {
        scrape.active() == 0 && scrape.sum("netra_legs_active", &[]) == 0
    })
}

/// A thousand messages of one connection, fifty at a time: each is answered by whom it was for, with its
/// own answer, and those by weights exactly so.
fn mixed(kind: Kind) {
    let Some(world) = World::new() else { return };
    let _servers = kind.servers(&world);
    let check = |netra: &Netra<'_>, has_legs: bool| {
        let mut client = kind.client(&world, "mix");
        client.expect("wrong [] split [('one', 250), ('three', 100), ('two', 150)]")?;
        client.end()?;
        no_leg_is_left(netra)?;
        let opened = netra.scrape().sum("netra_legs_opened_total", &[]);
        match has_legs {
            true if (2..=3).contains(&opened) => Ok(()),
            false if opened == 0 => Ok(()),
            _ => Err(format!("{opened} legs were opened")),
        }
    };
    in_cells(&world, &cells(), &kind.rules(3), |setup| kind.setup(setup), |it, _| check(it, true));
    let one = |setup| kind.setup(setup).env("NETRA_LEGS_MAX", "1");
    in_cells(&world, &cells_with(1), &kind.rules(3), one, |it, _| check(it, false));
}

#[test]
fn calls_of_dubbo_go_to_three_servers_at_a_time() {
    mixed(KINDS[0]);
}

#[test]
fn calls_of_thrift_go_to_three_servers_at_a_time() {
    mixed(KINDS[1]);
}

#[test]
fn commands_of_redis_go_to_three_servers_at_a_time() {
    mixed(KINDS[2]);
}

/// A server is killed while it owes answers: who waits for them is told so in the words of the protocol,
/// the others have theirs, the connection goes on, and finds the server again when it is back.
fn killed(kind: Kind) {
    let Some(world) = World::new() else { return };
    // The servers are the same for all cells, so the dead one comes back in each.
    let servers = RefCell::new(kind.servers(&world));
    let setup = |setup| kind.setup(setup);
    for (scene, leg) in [("kill", 2), ("kill-first", 0)] {
        in_cells(&world, &cells(), &kind.rules(3), setup, |netra, _| {
            let mut client = kind.client(&world, scene);
            client.expect("asked")?;
            let shown = legs(&world)?;
            let active = netra.scrape().sum("netra_legs_active", &[]);
            if shown != [format!("{CLIENT_V4}:{}", kind.ports()[leg])] || active != 1 {
                return Err(format!("/connections shows {shown:?}, /metrics {active}"));
            }
            // SIGKILL.
            servers.borrow_mut()[2] = None;
            client.go_on()?;
            // Calls of Dubbo to another have been answered before.
            let rest = if kind.protocol == "dubbo" { "" } else { " one one one one one" };
            let lost = client
                .expect(&format!("lost refused refused refused{rest}"))
                .and_then(|()| client.expect("gone one one one one one refused one"));
            servers.borrow_mut()[2] = Some(kind.server(&world, 2));
            lost?;
            client.go_on()?;
            client.expect("back three three three one")?;
            client.end()?;
            let scrape = netra.scrape();
            let lost = scrape.sum("netra_legs_lost_total", &[]);
            let refused = scrape.sum("netra_messages_refused_total", &[("reason", "unreachable")]);
            // The three that were lost had been passed on; the fourth was not.
            if (lost, refused) != (1, 1) {
                return Err(format!("{lost} legs lost, {refused} refused"));
            }
            no_leg_is_left(netra)
        });
    }
}

#[test]
fn a_server_of_dubbo_that_is_killed_takes_down_its_own_calls() {
    killed(KINDS[0]);
}

#[test]
fn a_server_of_thrift_that_is_killed_takes_down_its_own_calls() {
    killed(KINDS[1]);
}

#[test]
fn a_server_of_redis_that_is_killed_takes_down_its_own_commands() {
    killed(KINDS[2]);
}

/// Rules take an endpoint away while it owes an answer: that one comes, and what is asked after goes
/// elsewhere.
#[test]
fn an_endpoint_that_is_taken_away_still_answers_what_it_owes() {
    let Some(world) = World::new() else { return };
    for kind in KINDS {
        let _servers = kind.servers(&world);
        let rules = kind.rules(3);
        let without = kind.rules(1).replace(
            &format!(
                "  - {{address: {CLIENT_V4}, ports: {{{}: {}}}, labels: {{version: v3}}}}\n",
                kind.name,
                kind.ports()[2]
            ),
            "",
        );
        assert_ne!(without.len(), kind.rules(1).len(), "the endpoint is still there");
        in_cells(
            &world,
            &cells_with(2),
            &rules,
            |setup| kind.setup(setup),
            |netra, folder| {
                let mut client = kind.client(&world, "reload");
                client.expect("before one two three")?;
                client.expect("asked")?;
                let generation = netra.scrape().sum("netra_rules_generation", &[]);
                crate::write(folder, &without);
                netra.scrape_until("the new rules are in force", |scrape| {
                    scrape.sum("netra_rules_generation", &[]) > generation
                })?;
                client.go_on()?;
                client.expect("after slow one one one")?;
                let first = if kind.protocol == "dubbo" { "quick" } else { "slow" };
                client.expect(&format!("first {first}"))?;
                client.end()?;
                no_leg_is_left(netra)
            },
        );
    }
}

/// SIGTERM while legs owe answers: all come, and netra leaves when its client has.
#[test]
fn a_drain_waits_for_what_legs_owe() {
    let Some(world) = World::new() else { return };
    for kind in KINDS {
        let _servers = kind.servers(&world);
        crate::support::netra::apply_rules(&world, crate::support::netra::Backend::NftNative);
        let folder = crate::folder(&world);
        crate::write(&folder, &kind.rules(3));
        for cell in cells_with(1) {
            let setup =
                Setup::new(cell).env("NETRA_REPORTER", "none").env("NETRA_RULES", folder.display());
            let mut netra = Netra::start(&world, &kind.setup(setup));
            let mut client = kind.client(&world, "drain");
            client.expect("asked").unwrap();
            netra.signal(Signal::SIGTERM);
            client.go_on().unwrap();
            client.expect("told one two three").unwrap();
            client.end().unwrap();
            let status = netra.wait(PATIENCE).unwrap();
            assert!(status.success(), "{status}\n{}", netra.log());
        }
    }
}

/// The client ends its stream behind its last message: all are answered, and then it sees the end.
#[test]
fn who_ends_its_stream_has_all_answers() {
    let Some(world) = World::new() else { return };
    for kind in KINDS {
        let _servers = kind.servers(&world);
        let setup = |setup| kind.setup(setup);
        in_cells(&world, &cells(), &kind.rules(3), setup, |netra, _| {
            let mut client = kind.client(&world, "half");
            client.expect("told 10 10 10")?;
            client.expect("end 0")?;
            client.end()?;
            no_leg_is_left(netra)
        });
    }
}

/// A host of two servers that may have one connection, and another host: whoever comes back to the first
/// keeps the server that it has a leg to, and is not refused for having it.
#[test]
fn who_comes_back_to_a_host_keeps_its_server() {
    let Some(world) = World::new() else { return };
    let kind = KINDS[2];
    let _servers = kind.servers(&world);
    let endpoint =
        |port: u16| format!("  - {{address: {CLIENT_V4}, ports: {{tcp-redis: {port}}}}}\n");
    let entry = |host: &str, port: u16, endpoints: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}}}\nspec:\n  \
             hosts: [{host}]\n  ports: [{{number: {port}, name: tcp-redis}}]\n  resolution: STATIC\n  \
             endpoints:\n{endpoints}---\n"
        )
    };
    let rules = entry("cache", 6379, &(endpoint(6379) + &endpoint(6380)))
        + &entry("other", 6381, &endpoint(6381))
        + "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: it}\nspec:\n  \
           host: cache\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}\n---\n"
        + &router(
            "cache",
            "  - match: {attributes: {key: {prefix: \"one:\"}}}\n    \
                 route: [{destination: {host: cache}}]\n  \
             - match: {attributes: {key: {prefix: \"three:\"}}}\n    \
                 route: [{destination: {host: other}}]\n",
        );
    in_cells(
        &world,
        &cells_with(1),
        &rules,
        |setup| kind.setup(setup),
        |netra, _| {
            let mut client = Peer::connect(&world.pod, (CLIENT_V4, kind.port).into())?;
            (0..100).try_for_each(|_| client.send(b"GET three:7\r\nGET one:7\r\n"))?;
            let is_it = |first: &str| {
                let one = format!("${}\r\n{first} 7\r\n", first.len() + 2);
                let expected = format!("$7\r\nthree 7\r\n{one}").repeat(100).into_bytes();
                move |client: &Peer| client.received == expected
            };
            let (one, two) = (is_it("one"), is_it("two"));
            client.until(|client| match one(client) || two(client) {
                true => Ok(()),
                false => Err(shown(&client.received)),
            })?;
            client.close();
            if netra.scrape().sum("netra_legs_opened_total", &[]) != 1 {
                return Err("not one leg".into());
            }
            no_leg_is_left(netra)
        },
    );
}
