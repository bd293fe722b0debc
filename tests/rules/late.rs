//! Answers that take longer than a route allows, of servers of nobody here.

use crate::{
    entry, http, in_cells, peer,
    routes_of_others::{logged, redis, redis_server},
    support::{
        http::{Edits, shown},
        lockstep::Peer,
        matrix::{cells, cells_with},
        netra::Setup,
        programs::{Server, run},
        script::End,
        spans::python_path,
        stage::{Stage, ask, serve},
        talk::PORT,
        world::{CLIENT_V4, World},
    },
};
use std::time::{Duration, Instant};

fn timed(host: &str, protocol: &str, routes: &[(&str, &str, &str)]) -> String {
    let route = |(name, attribute, timeout): &(&str, &str, &str)| {
        format!(
            "  - name: {name}\n    match: {{attributes: {{{attribute}}}}}\n    \
               timeout: {{{timeout}}}\n    route: [{{destination: {{host: {host}}}}}]\n"
        )
    };
    let routes: String = routes.iter().map(route).collect();
    format!(
        "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [{host}]\n  protocol: {protocol}\n  default: originalDst\n  routes:\n{routes}"
    )
}

/// A request that nobody answers is answered 504; of an answer that stands still its client sees that
/// it is not whole.
#[test]
fn http_requests_do_not_wait_for_ever() {
    let Some(world) = World::new() else { return };
    let rules = timed(
        "svc",
        "http1",
        &[
            ("slow", "path: {prefix: /slow}", "firstByte: 300ms"),
            ("stall", "path: {prefix: /stall}", "idle: 300ms"),
        ],
    );
    in_cells(&world, &cells(), &rules, http, |netra, _| {
        let mut stage = Stage::new(&world, netra)?;
        let quick = ask("/slow/but/answered", "");
        stage.client.send(&quick)?;
        serve(&mut stage.original, &mut stage.client, &quick)?;
        let before = stage.client.received.len();
        let begun = Instant::now();
        stage.client.send(&ask("/slow/1", ""))?;
        stage.client.until(|client| {
            let said = shown(&client.received[before..]);
            let is_it = said.starts_with("HTTP/1.1 504 Gateway Timeout")
                && said.contains("netra: the answer took too long (Router/default/it/slow)");
            if is_it && client.end.is_some() { Ok(()) } else { Err(said) }
        })?;
        if begun.elapsed() < Duration::from_millis(290) {
            return Err(format!("after {:?} already", begun.elapsed()));
        }
        let mut cut = Peer::connect(&world.pod, (CLIENT_V4, PORT).into())?;
        let stalling = ask("/stall/1", "");
        cut.send(&stalling)?;
        stage.original.expect(&stalling, &Edits::OUTBOUND, usize::MAX)?;
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        stage.original.last()?.send(half)?;
        cut.expect(half)?;
        cut.expect_end(End::Reset)?;
        netra.scrape_until("both are counted", |scrape| {
            let of = |what| scrape.sum("netra_answer_timeouts_total", &[("what", what)]);
            // Who had a part of an answer already was told nothing.
            let told = scrape.sum("netra_messages_refused_total", &[("reason", "timed_out")]);
            [of("first_byte"), of("idle"), told] == [1, 1, 1]
                && scrape.closed("answer_timeout") == 1
        })?;
        logged(netra, &["\"flag\":\"RT\"", "\"rule\":\"Router/default/it/slow\""])?;
        stage.end()
    });
}

/// redis-server that pauses: its client is told so by an error, and the next connection is served.
#[test]
fn commands_of_redis_do_not_wait_for_ever() {
    let Some(world) = World::new() else { return };
    let _server = redis_server(&world, 6379);
    let rules = entry("cache", &CLIENT_V4.to_string(), 6379, "tcp-redis")
        + &timed("cache", "redis", &[("slow", "key: {prefix: \"slow:\"}", "firstByte: 300ms")]);
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "6379=redis");
    in_cells(&world, &cells(), &rules, protocols, |netra, _| {
        let set = redis(&world.pod, 6379, &["SET", "slow:a", "1"]);
        redis(&world.client, 6379, &["CLIENT", "PAUSE", "1200", "ALL"]);
        let late = redis(&world.pod, 6379, &["GET", "slow:a"]);
        let patient = redis(&world.pod, 6379, &["GET", "other"]);
        let again = redis(&world.pod, 6379, &["GET", "slow:a"]);
        let said = [set, late, patient, again];
        let text = "ERR netra: the answer took too long (Router/default/it/slow)";
        if said != ["OK", text, "", "1"] {
            return Err(format!("{said:?}"));
        }
        netra.scrape_until("it is counted", |scrape| {
            scrape.sum("netra_messages_refused_total", &[("reason", "timed_out")]) == 1
        })
    });
}

/// dubbo-py on both sides: a call that takes too long is a timeout of Dubbo, its connection goes on, and
/// the answer that comes later never reaches it.
#[test]
fn calls_of_dubbo_do_not_wait_for_ever() {
    let Some(world) = World::new() else { return };
    let mut command = world.client.command(python_path());
    command.args([peer("dubbo_peer.py"), "server".into(), "20880".into()]);
    let _server = Server::start(&world, &world.client, command, 20880);
    let host = "org.apache.dubbo.samples.basic.api.demoservice";
    let rules = timed(host, "dubbo", &[("slow", "method: {exact: wait}", "firstByte: 300ms")]);
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "20880=dubbo");
    in_cells(&world, &cells_with(2), &rules, protocols, |_, _| {
        let to = CLIENT_V4.to_string();
        let said = run(&world.pod, &python_path(), &[&peer("dubbo_peer.py"), "late", &to, "20880"]);
        let expected = "wait refused\nsayHello hello joe\nlate 0\nsayHello hello joe\n";
        if said == expected { Ok(()) } else { Err(said) }
    });
}

/// DestinationRule's consistent hash: over any connections, a key of Redis is on one of two
/// redis-servers, and both have some.
#[test]
fn keys_of_redis_have_a_server_each() {
    let Some(world) = World::new() else { return };
    let ports = [6379, 6380];
    let _servers = ports.map(|port| redis_server(&world, port));
    let rules = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [cache]\n  ports: [{{number: 6379, name: tcp-redis}}]\n  resolution: STATIC\n  \
         endpoints:\n  - {{address: {CLIENT_V4}, ports: {{tcp-redis: 6379}}}}\n  \
         - {{address: {CLIENT_V4}, ports: {{tcp-redis: 6380}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: it}}\nspec:\n  \
         host: cache\n  trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: key}}}}}}\n\
         ---\napiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\nmetadata: {{name: it}}\n\
         spec:\n  hosts: [cache]\n  routes:\n  - route: [{{destination: {{host: cache}}}}]\n"
    );
    let protocols = |setup: Setup| setup.env("NETRA_PROTOCOLS", "6379=redis");
    in_cells(&world, &cells_with(2), &rules, protocols, |_, _| {
        let sizes = || ports.map(|port| redis(&world.client, port, &["DBSIZE"]));
        ports.iter().for_each(|port| drop(redis(&world.client, *port, &["FLUSHALL"])));
        let mut seen = Vec::new();
        for round in 0..3 {
            let mut client = Peer::connect(&world.pod, (CLIENT_V4, 6379).into())?;
            for key in 0..40 {
                client.send(format!("SET key:{key} {round}\r\n").as_bytes())?;
            }
            client.until(|client| match client.received.len() {
                len if len == 40 * "+OK\r\n".len() => Ok(()),
                _ => Err(shown(&client.received)),
            })?;
            client.close();
            seen.push(sizes());
        }
        let counts = seen[0].each_ref().map(|size| size.parse().unwrap_or(0));
        let is_fair = counts.iter().all(|count| *count >= 8) && counts.iter().sum::<u32>() == 40;
        let is_kept = seen.iter().all(|sizes| *sizes == seen[0]);
        if is_fair && is_kept { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}
