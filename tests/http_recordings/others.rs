//! What was recorded otherwise: conversations of three, and how netramesh starts, listens and ends.

use super::rows::{In, ROWS};
use super::{CORRELATED, check_span, normal_of, recordings, row_of, setup};
use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::support::http::{Answer, Context, Edits, Head, Request, from_latin1, span_tags};
use super::support::lockstep::{Peer, Server};
use super::support::matrix::{Driver, Findings};
use super::support::netra::{Backend, METRICS_PORT, Netra, PORT, apply_rules, netra_binary};
use super::support::recording::{Recording, normal, normal_recorded, recorded};
use super::support::sink::Sink;
use super::support::world::{CLIENT_V4, POD_V4, POD_V6, World};
use super::support::{PATIENCE, scrape, wait_until};
use nix::sys::signal::Signal;

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: raw\r\nx-lower-resp: 1\r\nContent-Type: text/plain\r\n\
                    Content-Length: 5\r\n\r\nhello";

/// An application is asked and asks in turn.
#[test]
fn recordings_of_three_peers() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let mut findings = Findings::default();
    for driver in Driver::ALL {
        for recording in recordings().iter().filter(|r| CORRELATED.contains(&&*r.case)) {
            let netra = Netra::start(&world, &setup(&sink, driver, &recording.env));
            findings.check(&recording.case, play(&world, &sink, recording));
            findings.check(&recording.case, netra.finish());
        }
    }
    findings.conclude();
}

/// What clients sent, in order.
fn sent(recording: &Recording) -> Vec<Vec<u8>> {
    let events = recording.json["events"].as_array().expect("events");
    let sends = events.iter().filter(|event| event[1] == "client" && event[2] == "send");
    sends.map(|event| from_latin1(event[3].as_str().expect("bytes"))).collect()
}

fn play(world: &World, sink: &Sink, recording: &Recording) -> Result<(), String> {
    let is_route = recording.case == "route-context";
    let mut app = Server::listen(&world.pod, POD_V4, 8080);
    let mut other = Server::listen(&world.client, CLIENT_V4, 8080);
    let mut routed = Server::listen(&world.client, CLIENT_V4, 8091);
    let [asked, asks] = &sent(recording)[..] else { panic!("two requests") };

    let mut client = Peer::connect(&world.client, (POD_V4, 8080).into())?;
    client.send(asked)?;
    let inbound = app.expect(asked, &Edits::INBOUND, usize::MAX)?.remove(0);
    if recording.case == "corr-expired" {
        thread::sleep(Duration::from_millis(400));
    }
    // The id of the recording was made by netramesh, unless the client gave one.
    let mut ask = Head::of(asks);
    if ask.value("x-request-id").is_some() {
        ask.set("X-Request-Id", &inbound.id);
    }
    let asks = ask.bytes();
    let joins = ["corr-same-reqid", "route-context"].contains(&&*recording.case);
    let edits = Edits {
        remembered: inbound.context.filter(|_| joins),
        route: is_route.then_some("dep.local=10.61.0.1:8091"),
        ..Edits::OUTBOUND
    };
    let mut caller = Peer::connect(&world.pod, (CLIENT_V4, 8080).into())?;
    caller.send(&asks)?;
    let server = if is_route { &mut routed } else { &mut other };
    let outbound = server.expect(&asks, &edits, usize::MAX)?.remove(0);
    server.last()?.send(OK)?;
    caller.expect(OK)?;
    app.last()?.send(OK)?;
    client.expect(OK)?;

    let mut spans = sink.take(2)?;
    spans.sort_by_key(|span| span.tag("span.kind") == "server");
    let to = format!("{CLIENT_V4}:{}", server.port);
    let answer = Some(Answer { status: 200, size: 5, is_whole: true });
    let tags = |request: &Request, edits: &Edits<'_>, remote: &str| {
        span_tags(request, answer, edits, remote)
    };
    let name = outbound.operation(true);
    check_span(&spans[0], (&name, tags(&outbound, &edits, &to)), outbound.context)?;
    let wanted = tags(&inbound, &Edits::INBOUND, &client.address.to_string());
    check_span(&spans[1], (&inbound.operation(false), wanted), inbound.context)?;
    let received = [&app.last()?.received, &server.last()?.received].map(Vec::clone);
    let mut texts: Vec<_> = spans.iter().map(|span| normal_of(span, &[])).collect();
    texts.sort();
    compare(recording, &received, &texts.join("\n"))
}

fn compare(recording: &Recording, received: &[Vec<u8>; 2], spans: &str) -> Result<(), String> {
    let json = &recording.json;
    let (app, dep) = match recording.case == "route-context" {
        true => (&json["received"]["8080-app"][0], &json["received"]["8091"][0]),
        false => (&json["app_received"], &json["dep_received"][0]),
    };
    let given = b"rid9".as_slice();
    let form = |bytes: &[u8]| normal(bytes, given, None).join("\n");
    let bytes = |value: &serde_json::Value| from_latin1(value.as_str().expect("bytes"));
    let theirs = [form(&bytes(app)), form(&bytes(dep))].join("\n");
    let ours = [form(&received[0]), form(&received[1])].join("\n");
    let differs = row_of(&recording.case).differs.contains(&In::Request);
    if (theirs != ours) != differs {
        return Err(format!("{theirs}\n--- netra:\n{ours}"));
    }
    let mut recorded: Vec<_> = recording.spans.iter().map(|s| normal_recorded(s, &[])).collect();
    recorded.sort();
    // The spans of this one were not recorded.
    if recording.case != "route-context" && recorded.join("\n") != spans {
        return Err(format!("{}\n--- netra:\n{spans}", recorded.join("\n")));
    }
    Ok(())
}

/// misc.json: what netramesh said and did besides, and where netra's answer to it is checked.
const MISC: &[(&str, &str)] = &[
    ("listening", "below"),
    ("metrics", "below"),
    ("metrics-any-path", "below: netra knows three paths and no other"),
    ("pprof-index", "observe_inside.rs"),
    ("pprof-cmdline", "observe_inside.rs"),
    ("pprof-symbol", "observe_inside.rs"),
    ("pprof-goroutine", "there are none: 404, admin/pages_tests.rs"),
    ("pprof-heap", "observe_inside.rs"),
    ("pprof-404", "admin/pages_tests.rs"),
    ("health", "below: /live and /ready"),
    ("leak-http", "Netra::finish of every test wants no socket left"),
    ("leak-connect-close", "faults.rs, clients_that_vanish_leave_nothing"),
    ("leak-tcp", "Netra::finish of every test wants no socket left"),
    ("leak-malformed", "http_desync.rs"),
    ("open-conns-fds", "faults.rs, heavy_ten_thousand_idle_connections"),
    ("fds-per-idle-http-conn", "below: two a connection"),
    ("exit-on-SIGTERM", "drain.rs"),
    ("log-head", "nothing is logged per request"),
    ("route-leak-http", "http_routing.rs"),
    ("route-leak-connect-close", "http_routing.rs"),
    ("route-leak-tcp", "http_routing.rs"),
    ("route-leak-malformed", "http_routing.rs"),
    ("route-refused", "row of its own recording"),
    ("own-port-loop", "guards.rs: reset at once, counted"),
    ("own-port-from-pod", "guards.rs: reset at once, counted"),
    ("own-port-127.0.0.1", "guards.rs: reset at once, counted"),
    ("ipv6-inbound", "below: answered, and traced"),
    ("pod-calls-own-ip", "below: not intercepted, where netramesh took it for outbound"),
    ("start-no-service-name", "below"),
    ("start-bad-port", "below"),
    ("start-bad-http-port", "below"),
    ("start-bad-log-level", "below: an error, not a crash"),
    ("start-port-70000", "below"),
    ("start-statsd-down-refused", "below: netra starts"),
    ("start-default-sampler", "below: the start line says which"),
    ("help", "below"),
];

#[test]
fn everything_else_that_was_recorded_has_its_place() {
    let misc: serde_json::Value = serde_json::from_str(&recorded("misc.json")).expect("JSON");
    let recorded: BTreeSet<_> = misc.as_object().expect("an object").keys().cloned().collect();
    let placed: BTreeSet<_> = MISC.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(recorded, placed);
    assert!(ROWS.len() > 50);
}

/// `netra` with these arguments and variables: exit code, and all that it said.
fn run(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(netra_binary());
    command.args(arguments).env_clear().envs(env.iter().copied());
    let output = command.output().expect("netra runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn bad_settings_end_the_start_and_say_why() {
    let name: &[&str] = &["--service-name", "x"];
    for (arguments, variable, value, wanted) in [
        (&[][..], "NETRA_SHARDS", "1", "service-name"),
        (name, "NETRA_PORT", "abc", "NETRA_PORT"),
        (name, "NETRA_HTTP_PORTS", "http", "NETRA_HTTP_PORTS"),
        (name, "NETRA_LOGGER_LEVEL", "loud", "NETRA_LOGGER_LEVEL"),
        (name, "NETRA_PORT", "70000", "NETRA_PORT"),
    ] {
        let (code, said) = run(arguments, &[(variable, value)]);
        assert_eq!(code, Some(64), "{variable}={value}: {said}");
        assert!(said.contains(wanted) && !said.contains("panicked"), "{variable}={value}: {said}");
    }
    let (code, help) = run(&["--help"], &[]);
    assert!(code == Some(0) && help.contains("--service-name"), "{help}");
}

#[test]
fn it_listens_and_ends_and_sees_what_netramesh_did_not() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    for driver in Driver::ALL {
        let statsd = [("NETRA_STATSD_ENABLED", "true"), ("NETRA_STATSD_ADDRESS", "127.0.0.1:1")];
        let statsd = statsd.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let netra = Netra::start(&world, &setup(&sink, driver, &statsd));
        let started = netra.log();
        assert!(started.contains("sampler=\"const, all traces\""), "{started}");
        for (path, wanted) in
            [("/metrics", 200), ("/live", 200), ("/ready", 200), ("/anything", 404)]
        {
            let (status, _) = scrape::get(&world.pod, METRICS_PORT, path).expect("an answer");
            assert_eq!(status, wanted, "{path}");
        }
        for port in [PORT, METRICS_PORT] {
            Peer::connect(&world.pod, (POD_V6, port).into()).expect("it listens on v6 as well");
        }
        // From outside over v6; and the pod calling itself, which the rules let by.
        for (from, to, is_seen) in [(&world.client, POD_V6, true), (&world.pod, POD_V4, false)] {
            let mut server = Server::listen(&world.pod, to, 8080);
            let request = b"GET /own HTTP/1.1\r\nHost: app.local\r\n\r\n";
            let mut client = Peer::connect(from, (to, 8080).into()).expect("connect");
            client.send(request).expect("it is sent");
            let raw_from = if is_seen { usize::MAX } else { 0 };
            let seen = server.expect(request, &Edits::INBOUND, raw_from).expect("it arrives");
            server.last().expect("a connection").send(OK).expect("it answers");
            client.expect(OK).expect("the answer arrives");
            for (span, request) in sink.take(seen.len()).expect("spans").iter().zip(&seen) {
                let context: Context = request.context.expect("a context");
                assert_eq!((span.trace_id, span.span_id), (context.trace, context.span));
            }
        }
        netra.signal(Signal::SIGTERM);
        let mut netra = netra;
        assert!(netra.wait(PATIENCE).expect("it ends").success());
        assert!(wait_until(PATIENCE, || !super::support::procfs::alive(netra.pid())));
    }
}
