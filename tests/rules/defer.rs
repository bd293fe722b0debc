//! Connections whose dial is deferred: a virtual address at which nobody listens can be called, by clients of
//! nobody here, and whoever is no such case sees what he saw.

use crate::{
    in_cells, peer,
    routes_of_others::{redis_server, route, router, versions},
    support::{
        lockstep::{Peer, Server},
        matrix::{cells, cells_with},
        netra::{Netra, Setup},
        programs::{self, run, tool},
        script::End,
        spans::python_path,
        stage::{ask, serve},
        talk::PORT,
        world::{CLIENT_V4, World},
    },
};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

/// Nobody has it: whoever dials it waits for ever, or is told that there is no way.
const VIRTUAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
/// A long time for a silent client: what comes sooner did not wait for it.
const GRACE: Duration = Duration::from_millis(1500);

/// [`versions`] at a virtual address.
fn virtual_versions(host: &str, ports: [u16; 3], name: &str) -> String {
    let address = format!("  addresses: [{VIRTUAL}]\n  resolution: STATIC");
    versions(host, ports, name).replace("  resolution: STATIC", &address)
}

fn redis(port: u16, args: &[&str]) -> impl Fn(&World) -> String {
    let (host, port) = (VIRTUAL.to_string(), port.to_string());
    let all = ["-h", &host, "-p", &port].into_iter().chain(args.iter().copied());
    let all: Vec<String> = all.map(str::to_owned).collect();
    move |world| {
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        run(&world.pod, &tool("redis-cli", "redis-tools"), &all).trim_end().to_owned()
    }
}

/// What of a fresh process tells that nobody was dialled in vain.
fn dialled_in_vain(netra: &Netra<'_>) -> u64 {
    netra.scrape().sum("netra_upstream_connect_failures_total", &[])
}

#[test]
fn a_virtual_address_of_redis_is_called() {
    let Some(world) = World::new() else { return };
    let _servers = [redis_server(&world, 6379), redis_server(&world, 6380)];
    for (port, who) in [(6379, "one"), (6380, "two")] {
        crate::routes_of_others::redis(
            &world.client,
            port,
            &["MSET", "new:who", who, "old:who", who],
        );
    }
    let key = |prefix: &str| format!("key: {{prefix: \"{prefix}:\"}}");
    let routes = route("cache", "new", &key("new"), &[(2, 100)])
        + &route("cache", "old", &key("old"), &[(1, 100)])
        + &route("cache", "gone", &key("gone"), &[(3, 100)]);
    let rules =
        virtual_versions("cache", [6379, 6380, 6399], "tcp-redis") + &router("cache", &routes);
    // The name of its port says what is spoken there.
    in_cells(
        &world,
        &cells(),
        &rules,
        |setup| setup,
        |netra, _| {
            for (args, expected) in [(["GET", "new:who"], "two"), (["GET", "old:who"], "one")] {
                let said = redis(6379, &args)(&world);
                if said != expected {
                    return Err(format!("{args:?}: {said:?}"));
                }
            }
            if dialled_in_vain(netra) > 0 {
                return Err("somebody was dialled who is not there".into());
            }
            let said = redis(6379, &["GET", "gone:who"])(&world);
            if !said.starts_with("ERR netra: 10.61.0.1:6399 cannot be reached") {
                return Err(format!("gone: {said:?}"));
            }
            netra.scrape_until("nothing is active", |scrape| scrape.active() == 0)
        },
    );
}

#[test]
fn a_virtual_address_of_dubbo_is_called() {
    let Some(world) = World::new() else { return };
    let server = |port: u16, greeting: &str| {
        let mut command = world.client.command(python_path());
        command.args([peer("dubbo_peer.py"), "server".into(), port.to_string(), greeting.into()]);
        programs::Server::start(&world, &world.client, command, port)
    };
    let _servers = [server(20880, "hello"), server(20881, "canary")];
    let host = "org.apache.dubbo.samples.basic.api.demoservice";
    let name = "tcp-metaprotocol-dubbo";
    let routes = route(host, "canary", "foo: {exact: bar}", &[(2, 100)])
        + &route(host, "gone", "foo: {exact: gone}", &[(3, 100)])
        + &route(host, "split", "split: {exact: \"yes\"}", &[(1, 80), (2, 20)])
        + &format!("  - {{name: rest, route: [{{destination: {{host: {host}, subset: v1}}}}]}}\n");
    let rules = virtual_versions(host, [20880, 20881, 20899], name) + &router(host, &routes);
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "20880=dubbo");
    in_cells(&world, &cells_with(2), &rules, protocols, |_, _| {
        let to = VIRTUAL.to_string();
        let args = [&peer("dubbo_peer.py"), "routes", &to, "20880"];
        let said = run(&world.pod, &python_path(), &args);
        let expected = "with canary joe\nwithout hello joe\nwith canary joe\n\
                        split [('canary joe', 200), ('hello joe', 800)]\ngone refused\n";
        if said == expected { Ok(()) } else { Err(said) }
    });
}

/// Curl, and a client byte by byte; what is refused is refused without anybody having been dialled.
#[test]
fn a_virtual_address_of_http_is_called() {
    let Some(world) = World::new() else { return };
    let to = |version: u8| format!("[{{destination: {{host: svc, subset: v{version}}}}}]");
    let match_ = |what: &str, is: &str| format!("match: {{attributes: {{{what}: {is}}}}}");
    let routes = format!(
        "  - {{name: new, {}, route: {}}}\n  - {{name: broken, {}, route: {}, \
         fault: {{abort: {{httpStatus: 503}}}}}}\n  - {{name: gone, {}, route: {}}}\n",
        match_("path", "{prefix: /new}"),
        to(2),
        match_("path", "{prefix: /broken}"),
        to(2),
        match_("path", "{prefix: /gone}"),
        to(3),
    );
    let rules = virtual_versions("svc", [PORT, 8091, 8099], "http-svc") + &router("svc", &routes);
    let http = |setup: Setup| setup.env("NETRA_HTTP_PORTS", PORT);
    in_cells(&world, &cells(), &rules, http, |netra, _| {
        let mut server = Server::listen(&world.client, CLIENT_V4, 8091);
        let mut client = Peer::connect(&world.pod, (VIRTUAL, PORT).into())?;
        let first = ask("/new/1", "");
        for byte in &first {
            client.send(std::slice::from_ref(byte))?;
        }
        serve(&mut server, &mut client, &first)?;
        let second = ask("/new/2", "");
        client.send(&second)?;
        serve(&mut server, &mut client, &[first, second].concat())?;
        client.close();
        server.last()?.expect_end(End::Eof)?;
        drop(server);
        let url = |path: &str| format!("http://{VIRTUAL}:{PORT}{path}");
        let curl = |path: &str| {
            let args =
                ["-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: svc"];
            let url = url(path);
            let args: Vec<_> = args.into_iter().chain([&*url]).collect();
            run(&world.pod, &tool("curl", "curl"), &args)
        };
        if (curl("/broken"), dialled_in_vain(netra)) != ("503".into(), 0) {
            return Err("a fault is not told, or somebody was dialled who is not there".into());
        }
        if curl("/gone") != "502" {
            return Err("nobody is there, and its client is not told".into());
        }
        netra.scrape_until("nothing is active", |scrape| scrape.active() == 0)
    });
}

/// A port that is named after a protocol whose clients speak first, wrongly; and clients that say nothing,
/// or nothing that a route is for.
#[test]
fn who_says_nothing_sees_what_is_there() {
    let Some(world) = World::new() else { return };
    let everything = "  - name: new\n    match: {attributes: {key: {prefix: \"new:\"}}}\n    \
                      route: [{destination: {host: cache, subset: v2}}]\n";
    let rules = versions("cache", [6379, 6380, 6399], "tcp-redis") + &router("cache", everything);
    let grace = |setup: Setup| setup.env("NETRA_DEFER_DIAL_MS", GRACE.as_millis());
    in_cells(&world, &cells(), &rules, grace, |netra, _| {
        let at = |port: u16| (CLIENT_V4, port).into();
        // Nobody is there: a probe sees red, at once where it says something.
        let begun = Instant::now();
        let mut probe = Peer::connect(&world.pod, at(6379))?;
        let mut asks = Peer::connect(&world.pod, at(6379))?;
        asks.send(b"PING\r\n")?;
        asks.expect_end(End::Reset)?;
        let mut leaves = Peer::connect(&world.pod, at(6379))?;
        leaves.finish();
        leaves.expect_end(End::Reset)?;
        if begun.elapsed() >= GRACE {
            return Err(format!("they waited for nothing: {:?}", begun.elapsed()));
        }
        probe.expect_end(End::Reset)?;
        if begun.elapsed() < GRACE {
            return Err(format!("its client had not the time: {:?}", begun.elapsed()));
        }
        // Somebody is there who speaks first, and what his client says is none of the protocol.
        let mut server = Server::listen(&world.client, CLIENT_V4, 6379);
        let mut client = Peer::connect(&world.pod, at(6379))?;
        let look = |server: &mut Server| server.last().is_ok();
        let begun = Instant::now();
        while !look(&mut server) && begun.elapsed() < Duration::from_secs(9) {
            client.look();
        }
        server.last()?.send(b"220 it is me\r\n")?;
        client.expect(b"220 it is me\r\n")?;
        client.send(b"HELO \x00\xff")?;
        client.finish();
        server.last()?.expect(b"HELO \x00\xff")?;
        server.last()?.expect_end(End::Eof)?;
        server.last()?.send(b"221 bye\r\n")?;
        server.last()?.finish();
        client.expect_end(End::Eof)?;
        // The same with bytes that come first, and nothing is added to them.
        let mut client = Peer::connect(&world.pod, at(6379))?;
        client.send(b"\x16\x03\x01 no redis")?;
        let peers = server.peers.len();
        let begun = Instant::now();
        while server.peers.len() == peers && begun.elapsed() < Duration::from_secs(9) {
            server.look();
        }
        server.last()?.expect(b"\x16\x03\x01 no redis")?;
        client.close();
        server.last()?.expect_end(End::Eof)?;
        drop(server);
        netra.scrape_until("nothing is active", |scrape| scrape.active() == 0)
    });
}
