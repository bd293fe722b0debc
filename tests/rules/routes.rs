//! Messages of other protocols than HTTP/1 that go to different servers, message by message, over one
//! connection of a client of nobody here.

use crate::support::{
    PATIENCE,
    matrix::{cells, cells_with},
    netra::{Netra, Setup},
    programs::{Server, run, tool},
    spans::python_path,
    wait_until,
    world::{CLIENT_V4, World},
};
use crate::{in_cells, peer};

/// A host of two versions on two ports of one address, and a third where nobody listens.
pub(crate) fn versions(host: &str, ports: [u16; 3], name: &str) -> String {
    let mut endpoints = String::new();
    let mut subsets = String::new();
    for (version, port) in ports.iter().enumerate() {
        let version = version + 1;
        endpoints += &format!(
            "  - {{address: {CLIENT_V4}, ports: {{{name}: {port}}}, labels: {{version: v{version}}}}}\n"
        );
        subsets += &format!("  - {{name: v{version}, labels: {{version: v{version}}}}}\n");
    }
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\n\
         spec:\n  hosts: [{host}]\n  ports: [{{number: {}, name: {name}}}]\n  resolution: STATIC\n  \
         endpoints:\n{endpoints}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: it}}\nspec:\n  host: {host}\n  subsets:\n{subsets}---\n",
        ports[0]
    )
}

/// A route by one attribute to shares of the versions.
pub(crate) fn route(host: &str, name: &str, attribute: &str, shares: &[(u8, u8)]) -> String {
    let to = shares.iter().map(|(version, weight)| {
        format!("    - {{destination: {{host: {host}, subset: v{version}}}, weight: {weight}}}\n")
    });
    let to: String = to.collect();
    format!("  - name: {name}\n    match: {{attributes: {{{attribute}}}}}\n    route:\n{to}")
}

pub(crate) fn router(host: &str, routes: &str) -> String {
    format!(
        "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [{host}]\n  default: originalDst\n  routes:\n{routes}"
    )
}

pub(crate) fn redis_server(world: &World, port: u16) -> Server {
    let mut command = world.client.command(tool("redis-server", "redis-server"));
    command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.args(["--protected-mode", "no", "--bind", "0.0.0.0", "--dir", "/"]);
    Server::start(world, &world.client, command, port)
}

/// What redis-cli says.
pub(crate) fn redis(
    namespace: &crate::support::world::Namespace,
    port: u16,
    args: &[&str],
) -> String {
    let (host, port) = (CLIENT_V4.to_string(), port.to_string());
    let all: Vec<_> = ["-h", &host, "-p", &port].into_iter().chain(args.iter().copied()).collect();
    run(namespace, &tool("redis-cli", "redis-tools"), &all).trim_end().to_owned()
}

/// A line of the access log has all of this.
pub(crate) fn logged(netra: &Netra<'_>, parts: &[&str]) -> Result<(), String> {
    let is_it = |line: &str| parts.iter().all(|part| line.contains(part));
    let has = || netra.log().lines().any(is_it);
    if wait_until(PATIENCE, has) { Ok(()) } else { Err(format!("{parts:?} in\n{}", netra.log())) }
}

/// redis-server and redis-cli: by a prefix of the key, by weights that are exact over 1,000 messages of
/// one connection, to nobody; and a session that stays.
#[test]
fn commands_of_redis_go_where_the_rules_say() {
    let Some(world) = World::new() else { return };
    let _servers = [redis_server(&world, 6379), redis_server(&world, 6380)];
    for (port, who) in [(6379, "one"), (6380, "two")] {
        redis(&world.client, port, &["MSET", "new:who", who, "old:who", who, "gone:who", who]);
    }
    let key = |prefix: &str| format!("key: {{prefix: \"{prefix}:\"}}");
    let routes = route("cache", "new", &key("new"), &[(2, 100)])
        + &route("cache", "split", &key("split"), &[(1, 80), (2, 20)])
        + &route("cache", "gone", &key("gone"), &[(3, 100)]);
    let rules = versions("cache", [6379, 6380, 6399], "tcp-redis") + &router("cache", &routes);
    let protocols = |setup: Setup| {
        setup
            .env("NETRA_PROTOCOLS", "6379=redis")
            .env("NETRA_ACCESS_LOG", "all")
            .env("NETRA_LOG_FORMAT", "json")
    };
    in_cells(&world, &cells(), &rules, protocols, |netra, _| {
        let expect = |args: &[&str], expected: &str| {
            let said = redis(&world.pod, 6379, args);
            let is_it = said == expected
                || (expected.ends_with('*') && said.starts_with(&expected[..expected.len() - 1]));
            if is_it { Ok(()) } else { Err(format!("{args:?}: {said:?}, not {expected:?}")) }
        };
        expect(&["GET", "new:who"], "two")?;
        expect(&["GET", "old:who"], "one")?;
        expect(&["GET", "gone:who"], &format!("ERR netra: {CLIENT_V4}:6399 cannot be reached*"))?;
        logged(netra, &["\"rule\":\"Router/default/it/new\"", "\"operation\":\"GET\"", ":6380\""])?;
        logged(netra, &["\"rule\":\"Router/default/it/gone\"", "\"error\":\"unreachable\""])?;
        for port in [6379, 6380] {
            redis(&world.client, port, &["SET", "split:n", "0"]);
        }
        let said = redis(&world.pod, 6379, &["-r", "1000", "INCR", "split:n"]);
        if said.lines().count() != 1000 {
            return Err(format!("{} of 1000 were answered: {said}", said.lines().count()));
        }
        let counts = [6379, 6380].map(|port| redis(&world.client, port, &["GET", "split:n"]));
        if counts != ["800", "200"] {
            return Err(format!("{counts:?}"));
        }
        // The database is the server's knowledge: the connection stays, and finds nothing there.
        expect(&["-n", "1", "SET", "new:session", "x"], "OK*")?;
        let here = redis(&world.client, 6379, &["-n", "1", "GET", "new:session"]);
        if !here.ends_with('x') {
            return Err(format!("a session moved: {here:?}"));
        }
        netra.scrape_until("one command stayed", |scrape| {
            scrape.sum("netra_route_stays_total", &[("reason", "session")]) == 1
        })?;
        redis(&world.client, 6379, &["-n", "1", "FLUSHDB"]);
        netra.scrape_until("nothing is active", |scrape| scrape.active() == 0)
    });
}

/// dubbo-py on both sides, over one connection: a canary by an attachment, weights, and nobody.
#[test]
fn calls_of_dubbo_go_where_the_rules_say() {
    let Some(world) = World::new() else { return };
    let server = |port: u16, greeting: &str| {
        let mut command = world.client.command(python_path());
        command.args([peer("dubbo_peer.py"), "server".into(), port.to_string(), greeting.into()]);
        Server::start(&world, &world.client, command, port)
    };
    let _servers = [server(20880, "hello"), server(20881, "canary")];
    let host = "org.apache.dubbo.samples.basic.api.demoservice";
    let routes = route(host, "canary", "foo: {exact: bar}", &[(2, 100)])
        + &route(host, "gone", "foo: {exact: gone}", &[(3, 100)])
        + &route(host, "split", "split: {exact: \"yes\"}", &[(1, 80), (2, 20)]);
    let rules =
        versions(host, [20880, 20881, 20899], "tcp-metaprotocol-dubbo") + &router(host, &routes);
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "20880=dubbo");
    in_cells(&world, &cells_with(2), &rules, protocols, |_, _| {
        let to = CLIENT_V4.to_string();
        let said =
            run(&world.pod, &python_path(), &[&peer("dubbo_peer.py"), "routes", &to, "20880"]);
        let expected = "with canary joe\nwithout hello joe\nwith canary joe\n\
                        split [('canary joe', 200), ('hello joe', 800)]\ngone refused\n";
        if said == expected { Ok(()) } else { Err(said) }
    });
}

/// thriftpy2 on both sides: what one server was told, the other does not know.
#[test]
fn calls_of_thrift_go_where_the_rules_say() {
    let Some(world) = World::new() else { return };
    let wire = ["framed", "binary"];
    let server = |port: u16| {
        let mut command = world.client.command(python_path());
        command.args([peer("thrift_peer.py"), "server".into(), "0.0.0.0".into(), port.to_string()]);
        command.args(wire);
        Server::start(&world, &world.client, command, port)
    };
    let _servers = [server(9090), server(9091)];
    let routes = route("demo", "told", "method: {exact: told}", &[(2, 100)]);
    let rules =
        versions("demo", [9090, 9091, 9099], "tcp-metaprotocol-thrift") + &router("demo", &routes);
    let load = || {
        let to = CLIENT_V4.to_string();
        let args = [&peer("thrift_peer.py"), "client", &to, "9090", wire[0], wire[1]];
        run(&world.pod, &python_path(), &args)
    };
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "9090=thrift");
    in_cells(&world, &cells_with(1), &rules, protocols, |_, _| {
        let said = load();
        let rest = ["hello='hello joe 1 2'", "add=8589934589", "told='False'", "big=3145728"];
        let missing: Vec<_> = rest.iter().filter(|line| !said.contains(**line)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are not in\n{said}")) }
    });
}
