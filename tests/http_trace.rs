//! Traces: what an application is asked and what it asks in turn are one trace, on however many
//! shards; contexts of other makers are understood and passed on; and nothing about spans is ever
//! in the way of traffic.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};
use support::PATIENCE;
use support::http::{Context, Edits, Head};
use support::lockstep::{Peer, Server};
use support::matrix::{Cell, Driver, Findings, cells, cells_with};
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::sink::{Sink, Span};
use support::talk::{PORT, Talk, client, server};
use support::world::{CLIENT_V4, POD_V4, World};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn with(setup: Setup, env: &[(&str, &str)]) -> Setup {
    env.iter().fold(setup, |setup, (name, value)| setup.env(name, value))
}

fn wired(sink: &Sink, cell: Cell) -> Setup {
    sink.wire(Setup::new(cell)).env("NETRA_HTTP_PORTS", PORT)
}

/// Runs a check in each cell, with netra under these settings.
fn in_cells(
    cells: &[Cell],
    env: &[(&str, &str)],
    check: impl Fn(&World, &Netra<'_>, &Sink) -> Result<(), String>,
) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let mut findings = Findings::default();
    for cell in cells {
        let netra = Netra::start(&world, &with(wired(&sink, *cell), env));
        let checked = check(&world, &netra, &sink);
        if checked.is_err() {
            sink.clear();
        }
        findings.check(cell, checked);
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}

/// An application with many requests in its hands asks another service for each of them, on other
/// connections and in another order, and hands on nothing but the request id.
#[test]
fn one_trace_across_an_application() {
    const COUNT: usize = 40;
    in_cells(&cells(), &[], |world, netra, sink| {
        let mut app = Server::listen(&world.pod, POD_V4, PORT);
        let mut other = Server::listen(&world.client, CLIENT_V4, PORT);
        let (mut clients, mut asked) = (Vec::new(), Vec::new());
        for number in 0..COUNT {
            let ask = format!("GET /in/{number} HTTP/1.1\r\nHost: app\r\n\r\n").into_bytes();
            let mut client = Peer::connect(&world.client, (POD_V4, PORT).into())?;
            client.send(&ask)?;
            clients.push(client);
            let before = app.peers.len();
            while app.peers.len() == before {
                app.look();
            }
            asked.push(app.expect(&ask, &Edits::INBOUND, usize::MAX)?.remove(0));
        }
        let mut callers = Vec::new();
        for request in asked.iter().rev() {
            let path = request.head.word(1).replace("/in/", "/out/");
            let ask =
                format!("GET {path} HTTP/1.1\r\nHost: dep\r\nX-Request-Id: {}\r\n\r\n", request.id);
            let mut caller = Peer::connect(&world.pod, (CLIENT_V4, PORT).into())?;
            caller.send(ask.as_bytes())?;
            let before = other.peers.len();
            while other.peers.len() == before {
                other.look();
            }
            let edits = Edits { remembered: request.context, ..Edits::OUTBOUND };
            other.expect(ask.as_bytes(), &edits, usize::MAX)?;
            other.last()?.send(OK.as_bytes())?;
            caller.expect(OK.as_bytes())?;
            callers.push(caller);
        }
        // All connections are open: with several shards, more than one has some.
        let scrape = netra.scrape();
        let first = scrape.sum("netra_tcp_connections_active", &[("shard", "0")]);
        if (netra.cell().shards > 1) == (first == scrape.active()) {
            return Err(format!("shard 0 has {first} of {} connections", scrape.active()));
        }
        for (peer, client) in app.peers.iter_mut().zip(&mut clients) {
            peer.send(OK.as_bytes())?;
            client.expect(OK.as_bytes())?;
        }
        let spans = sink.take(2 * COUNT)?;
        let mut inbound = BTreeMap::new();
        for span in spans.iter().filter(|span| span.tag("span.kind") == "server") {
            inbound.insert(span.tag("http.request_id"), span);
        }
        for span in spans.iter().filter(|span| span.tag("span.kind") == "client") {
            let parent = inbound.get(&span.tag("http.request_id")).ok_or("an orphan")?;
            if (span.trace_id, span.parent_id) != (parent.trace_id, parent.span_id) {
                return Err(format!("{span:#?}\nis not below {parent:#?}"));
            }
            if span.name != parent.name.replace("/in/", "dep/out/") {
                return Err(format!("{} is below {}", span.name, parent.name));
            }
        }
        let scrape = netra.scrape();
        let (hits, lost) = ("netra_context_hits_total", "netra_context_replication_dropped_total");
        let counts = (scrape.sum(hits, &[]), scrape.sum(lost, &[]), inbound.len());
        let wanted = (u64::try_from(COUNT).expect("few"), 0, COUNT);
        if counts == wanted { Ok(()) } else { Err(format!("hits, lost, inbound: {counts:?}")) }
    });
}

/// Sends one request and gives back the head that went on.
fn head_behind(world: &World, is_outbound: bool, lines: &str) -> Result<Head, String> {
    let (from, to, address) = match is_outbound {
        true => (&world.pod, &world.client, CLIENT_V4),
        false => (&world.client, &world.pod, POD_V4),
    };
    let mut server = Server::listen(to, address, PORT);
    let mut client = Peer::connect(from, (address, PORT).into())?;
    client.send(format!("GET /t HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes())?;
    let peer = server.last()?;
    peer.until(|peer| match peer.received.ends_with(b"\r\n\r\n") {
        true => Ok(()),
        false => Err("no head came".into()),
    })?;
    let head = Head::of(&peer.received);
    peer.send(OK.as_bytes())?;
    client.expect(OK.as_bytes())?;
    Ok(head)
}

fn context_of(head: &Head) -> Result<Context, String> {
    let texts = head.values("uber-trace-id");
    match &texts[..] {
        [text] => Context::parse(text).ok_or(format!("{text} is no context")),
        _ => Err(format!("{} trace headers: {texts:?}", texts.len())),
    }
}

fn spans_of(netra: &Netra<'_>, sink: &Sink, before: u64) -> Result<Vec<Span>, String> {
    netra.scrape_until("no connection is active", |scrape| scrape.active() == 0)?;
    let recorded = [("result", "recorded")];
    let after = netra.scrape().sum("netra_spans_total", &recorded);
    sink.take(usize::try_from(after - before).expect("few"))
}

fn recorded(netra: &Netra<'_>) -> u64 {
    netra.scrape().sum("netra_spans_total", &[("result", "recorded")])
}

/// What it is, lines of a head, the parent that they name, and the flags that follow.
type Row<'r> = (&'r str, String, Option<(u128, u64)>, u8);

/// The first valid context wins, whoever made it; what is malformed counts as absent; whether the
/// trace is sampled is respected; and the request always goes on.
#[test]
fn contexts_of_all_makers() {
    const UBER: &str = "uber-trace-id: 1234567890abcdef:fedcba0987654321:0:1\r\n";
    const TRACE: u128 = 0x1234_5678_90ab_cdef;
    const SPAN: u64 = 0xfedc_ba09_8765_4321;
    const WIDE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
    const W3C_SPAN: u64 = 0xb7ad_6b71_6920_3331;
    let w3c = |flags| format!("traceparent: 00-{WIDE:032x}-{W3C_SPAN:016x}-{flags}\r\n");
    let rows: [Row<'_>; 20] = [
        ("none", String::new(), None, 1),
        ("uber", UBER.into(), Some((TRACE, SPAN)), 1),
        ("upper case", UBER.to_uppercase(), Some((TRACE, SPAN)), 1),
        ("escaped", UBER.replace("f:f", "f%3Af").replace("1:0:1", "1%3a0%3A1"), Some((TRACE, SPAN)), 1),
        ("unsampled", UBER.replace(":0:1", ":0:0"), Some((TRACE, SPAN)), 0),
        ("short ids", "uber-trace-id: a:b:0:1\r\n".into(), Some((0xa, 0xb)), 1),
        ("malformed", "uber-trace-id: garbage\r\n".into(), None, 1),
        ("trace of zero", "uber-trace-id: 0:1:0:1\r\n".into(), None, 1),
        ("too long", format!("uber-trace-id: {}:1:0:1\r\n", "f".repeat(33)), None, 1),
        ("malformed, then good", format!("uber-trace-id: x\r\n{UBER}"), Some((TRACE, SPAN)), 1),
        ("two good ones", format!("{UBER}Uber-Trace-Id: 1:2:3:0\r\n"), Some((TRACE, SPAN)), 1),
        ("W3C", w3c("01"), Some((WIDE, W3C_SPAN)), 1),
        ("W3C, unsampled", w3c("00"), Some((WIDE, W3C_SPAN)), 0),
        ("W3C, malformed", w3c("01").replace("00-", "ff-"), None, 1),
        ("W3C behind a malformed one", format!("uber-trace-id: x\r\n{}", w3c("01")), Some((WIDE, W3C_SPAN)), 1),
        ("uber goes before W3C", format!("{}{UBER}", w3c("00")), Some((TRACE, SPAN)), 1),
        ("B3", "b3: 463ac35c9f6413ad-a2fb4a1d1a96d312-1\r\n".into(), Some((0x463a_c35c_9f64_13ad, 0xa2fb_4a1d_1a96_d312)), 1),
        ("B3 in lines", "X-B3-TraceId: 463ac35c9f6413ad\r\nx-b3-spanid: a2fb4a1d1a96d312\r\nX-B3-Sampled: 0\r\n".into(), Some((0x463a_c35c_9f64_13ad, 0xa2fb_4a1d_1a96_d312)), 0),
        ("B3 that only denies", "b3: 0\r\n".into(), None, 0),
        ("a debug id", "jaeger-debug-id: look\r\n".into(), None, 3),
    ];
    in_cells(&cells_with(1), &[], |world, netra, sink| {
        for is_outbound in [false, true] {
            for (name, lines, parent, flags) in &rows {
                let check = || -> Result<(), String> {
                    let before = recorded(netra);
                    let head = head_behind(world, is_outbound, lines)?;
                    let context = context_of(&head)?;
                    let is_right = match parent {
                        Some((trace, span)) => context.trace == *trace && context.parent == *span,
                        None => context.is_root(),
                    };
                    let spans = spans_of(netra, sink, before)?;
                    let wanted = usize::from(flags & 1);
                    if !is_right || context.flags != *flags || spans.len() != wanted {
                        return Err(format!("{context:x?}, {} spans", spans.len()));
                    }
                    let is_its = |span: &Span| {
                        (span.trace_id, span.span_id) == (context.trace, context.span)
                    };
                    if spans.iter().all(is_its) { Ok(()) } else { Err(format!("{spans:#?}")) }
                };
                check().map_err(|what| format!("{name}, outbound {is_outbound}: {what}"))?;
            }
        }
        Ok(())
    });
}

/// Contexts go on in every format that was asked for, all of them the same context; what is there
/// already is replaced, baggage passes.
#[test]
fn contexts_go_on_in_the_formats_asked_for() {
    let env = [("JAEGER_PROPAGATION", "jaeger,w3c,b3"), ("JAEGER_TRACEID_128BIT", "true")];
    in_cells(&cells_with(1), &env, |world, netra, sink| {
        let before = recorded(netra);
        let stale = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                     tracestate: v=1\r\nuberctx-k: v%202\r\nbaggage: a=b\r\n";
        for lines in ["", stale] {
            let head = head_behind(world, true, lines)?;
            let context = context_of(&head)?;
            let flags = context.flags;
            let w3c = format!("00-{:032x}-{:016x}-{flags:02x}", context.trace, context.span);
            if head.values("traceparent") != [w3c] {
                return Err(format!("{context:x?}, but {:?}", head.values("traceparent")));
            }
            let b3 = head.value("b3").unwrap_or_default();
            let wanted = format!("{:032x}-{:016x}-1", context.trace, context.span);
            if !b3.starts_with(&wanted) || context.trace >> 64 == 0 {
                return Err(format!("b3 is {b3}, not {wanted}"));
            }
            let passed = ["tracestate", "uberctx-k", "baggage"].map(|name| head.values(name).len());
            if passed != [usize::from(!lines.is_empty()); 3] {
                return Err(format!("baggage: {passed:?}"));
            }
        }
        spans_of(netra, sink, before).map(drop)
    });
}

#[test]
fn samplers_decide_about_roots() {
    let many = |kind: &'static str,
                param: &'static str,
                wanted: std::ops::RangeInclusive<usize>| {
        let env = [("JAEGER_SAMPLER_TYPE", kind), ("JAEGER_SAMPLER_PARAM", param)];
        in_cells(&[Cell { driver: Driver::Epoll, shards: 2 }], &env, |world, netra, sink| {
            let before = recorded(netra);
            let mut sampled = 0;
            for _ in 0..100 {
                sampled += usize::from(context_of(&head_behind(world, false, "")?)?.flags);
            }
            // Whoever has decided already is believed, whatever the sampler says.
            let parent = "uber-trace-id: a:b:0:1\r\n";
            let follows = context_of(&head_behind(world, false, parent)?)?.flags == 1;
            let spans = spans_of(netra, sink, before)?.len();
            match wanted.contains(&sampled) && follows && spans == sampled + 1 {
                true => Ok(()),
                false => Err(format!("{kind} {param}: {sampled} of 100, {spans} spans, {follows}")),
            }
        });
    };
    many("const", "0", 0..=0);
    many("const", "1", 100..=100);
    many("probabilistic", "0.5", 20..=80);
    // At least the first; a second's worth is one.
    many("ratelimiting", "1", 1..=30);
}

#[test]
fn ignored_paths_have_no_span_and_stay_in_their_trace() {
    let env = [("NETRA_HTTP_TRACING_IGNORED_PATHS", "/health,/live")];
    in_cells(&cells_with(2), &env, |world, netra, sink| {
        let uber = "X-Request-Id: r1\r\nuber-trace-id: a:b:0:1\r\n";
        let ask =
            |path: &str, lines: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let before = recorded(netra);
        let mut app = Server::listen(&world.pod, POD_V4, PORT);
        let edits = Edits { ignored: &["/health", "/live"], ..Edits::INBOUND };
        let asks = [ask("/health?x", uber), ask("/other", ""), ask("/live", "")].concat();
        let mut client = Peer::connect(&world.client, (POD_V4, PORT).into())?;
        client.send(asks.as_bytes())?;
        let seen = app.expect(asks.as_bytes(), &edits, usize::MAX)?;
        app.last()?.send(OK.repeat(3).as_bytes())?;
        client.expect(OK.repeat(3).as_bytes())?;
        if seen[0].head.value("uber-trace-id").as_deref() != Some("a:b:0:1") {
            return Err(format!("the context of an ignored request was touched: {seen:?}"));
        }
        // What it asks in turn continues the caller's trace.
        let head = head_behind(world, true, "X-Request-Id: r1\r\n")?;
        let context = context_of(&head)?;
        client.close();
        app.last()?.close();
        let mut names: Vec<_> =
            spans_of(netra, sink, before)?.into_iter().map(|s| s.name).collect();
        // Spans of two shards come in any order.
        names.sort();
        match (context.trace, context.parent, &names[..]) {
            (0xa, 0xb, [other, out]) if other == "/other" && out == "a/t" => Ok(()),
            _ => Err(format!("{context:x?} {names:?}")),
        }
    });
}

#[test]
fn mapped_headers_and_cookies_are_tags_of_every_span() {
    let env = [
        ("HTTP_HEADER_TAG_MAP", "x-session:http.session,X-None:none"),
        ("HTTP_COOKIE_TAG_MAP", "sess:http.cookies.sess"),
    ];
    in_cells(&cells_with(1), &env, |world, netra, sink| {
        for (is_outbound, parent) in
            [(false, ""), (true, ""), (false, "uber-trace-id: a:b:0:1\r\n")]
        {
            let before = recorded(netra);
            let lines = format!("{parent}X-SESSION: s1\r\nCookie: a=b; sess=c1; c=d\r\n");
            head_behind(world, is_outbound, &lines)?;
            let span = spans_of(netra, sink, before)?.remove(0);
            let tags = ["http.session", "http.cookies.sess", "none"].map(|key| span.tag(key));
            if tags != ["s1", "c1", ""] {
                return Err(format!("{tags:?}"));
            }
        }
        Ok(())
    });
}

/// Requests that netra serves while nobody takes its spans.
fn serve(world: &World, netra: &Netra<'_>, count: usize) -> Result<(), String> {
    let mut app = Server::listen(&world.pod, POD_V4, PORT);
    let mut client = Peer::connect(&world.client, (POD_V4, PORT).into())?;
    let started = Instant::now();
    for number in 1..=count {
        let (seen, ask) = (client.received.len() + OK.len(), "GET /s HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send(ask.as_bytes())?;
        let peer = app.last()?;
        peer.until(|peer| match peer.received.windows(4).filter(|w| w == b"\r\n\r\n").count() {
            heads if heads == number => Ok(()),
            heads => Err(format!("{heads} requests of {number} came")),
        })?;
        peer.send(OK.as_bytes())?;
        client.until(|client| match client.received.len() == seen {
            true => Ok(()),
            false => Err("an answer is withheld".into()),
        })?;
    }
    let took = started.elapsed();
    if took > Duration::from_secs(15) {
        return Err(format!("{count} requests took {took:?}"));
    }
    client.close();
    app.last()?.close();
    netra.scrape_until("no connection is active", |scrape| scrape.active() == 0)
}

/// Nobody listens, somebody listens and says nothing, somebody refuses: traffic does not notice,
/// and every span that is lost is counted.
#[test]
fn collectors_that_are_down_slow_or_refuse() {
    const COUNT: usize = 200;
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for (name, answer) in [
        ("down", None),
        ("slow", Some("")),
        ("refusing", Some("HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")),
    ] {
        let listener = world.pod.enter(|| TcpListener::bind((LOOPBACK, 0))).expect("bind");
        let port = listener.local_addr().expect("bound").port();
        match answer {
            Some(answer) => drop(thread::spawn(move || {
                let mut held = Vec::new();
                for mut peer in listener.incoming().map_while(Result::ok) {
                    if answer.is_empty() {
                        held.push(peer);
                        continue;
                    }
                    thread::spawn(move || {
                        drop(peer.read(&mut [0; 65536]));
                        drop(peer.write_all(answer.as_bytes()));
                    });
                }
            })),
            None => drop(listener),
        }
        for cell in cells_with(1) {
            let setup = Setup::new(cell)
                .env("NETRA_HTTP_PORTS", PORT)
                .env("JAEGER_ENDPOINT", format!("http://127.0.0.1:{port}/api/traces"))
                .env("JAEGER_SAMPLER_TYPE", "const")
                .env("JAEGER_SAMPLER_PARAM", "1")
                .env("JAEGER_REPORTER_FLUSH_INTERVAL", "20ms")
                .env("NETRA_DRAIN_MS", "1000");
            let mut netra = Netra::start(&world, &setup);
            let check = || -> Result<(), String> {
                serve(&world, &netra, COUNT)?;
                if name == "slow" {
                    return Ok(());
                }
                netra.scrape_until("every span is counted as lost", |scrape| {
                    let lost = |result| scrape.sum("netra_spans_total", &[("result", result)]);
                    usize::try_from(lost("failed") + lost("dropped")) == Ok(COUNT)
                })
            };
            findings.check(format!("{cell} {name}"), check());
            netra.signal(Signal::SIGTERM);
            match netra.wait(PATIENCE) {
                Ok(status) if status.success() => {}
                ended => findings.note(format!("{cell} {name}"), format!("{ended:?}")),
            }
        }
    }
    findings.conclude();
}

/// Spans that nobody had the time to send go out at the end.
#[test]
fn sigterm_flushes() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let ports = sink.ports();
    let collector = format!("http://127.0.0.1:{}/api/traces", ports.collector);
    let otlp = format!("http://127.0.0.1:{}", ports.otlp_http);
    let grpc = format!("http://127.0.0.1:{}", ports.otlp_grpc);
    let agent = ports.agent.to_string();
    let ways: [(&str, Vec<(&str, &str)>); 4] = [
        ("agent", vec![("JAEGER_AGENT_HOST", "127.0.0.1"), ("JAEGER_AGENT_PORT", &agent)]),
        ("collector", vec![("JAEGER_ENDPOINT", &collector)]),
        ("otlp_http", vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &otlp)]),
        (
            "otlp_grpc",
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &grpc), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        ),
    ];
    for cell in cells_with(1) {
        for (via, env) in &ways {
            let setup = with(Setup::new(cell).env("NETRA_HTTP_PORTS", PORT), env)
                .env("JAEGER_SAMPLER_TYPE", "const")
                .env("JAEGER_SAMPLER_PARAM", "1")
                .env("JAEGER_REPORTER_FLUSH_INTERVAL", "1h")
                .env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
            let mut netra = Netra::start(&world, &setup);
            serve(&world, &netra, 25).expect("traffic");
            netra.signal(Signal::SIGTERM);
            let status = netra.wait(PATIENCE).expect("it ends");
            assert!(status.success(), "{status}");
            let spans = sink.take(25).unwrap_or_else(|what| panic!("{cell} {via}: {what}"));
            assert!(spans.iter().all(|span| span.via == *via), "{spans:#?}");
        }
    }
}

/// One span an exchange and each of them its own, whatever else goes on.
#[test]
fn a_talk_on_four_shards() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    for cell in cells_with(4) {
        let netra = Netra::start(&world, &wired(&sink, cell));
        let ask = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        let turns = vec![client(ask.repeat(3)), server(OK.repeat(2)), server(OK)];
        let talk = Talk::new("three", turns, &[(200, false); 3]);
        for _ in 0..10 {
            talk.play(&world, &netra, &sink).unwrap_or_else(|what| panic!("{cell}: {what}"));
        }
        netra.finish().unwrap_or_else(|what| panic!("{cell}: {what}"));
    }
}
