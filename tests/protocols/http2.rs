//! HTTP/2 and gRPC: grpcio, grpclib, nghttp2, curl, nginx, hypercorn, and a client that floods.

use super::capture::captured;
use super::*;
use std::fs;
use support::sink::Span;
use support::world::CLIENT_V4;

/// Everything was read, to its end.
pub(super) fn read_along(netra: &Netra<'_>) -> Result<Scrape, String> {
    netra.scrape_until("no connection is active", |scrape| scrape.active() == 0)?;
    let scrape = netra.scrape();
    match scrape.labels_of("netra_opaque_total") {
        none if none.is_empty() => Ok(scrape),
        opaque => Err(format!("opaque: {opaque:?}")),
    }
}

/// Spans by call and status, and how each ended.
pub(super) fn calls(spans: &[Span]) -> BTreeMap<(String, String, String), u64> {
    let mut counts = BTreeMap::new();
    for span in spans {
        let tags = ["rpc.method", "rpc.response.status_code", "error.type"];
        let [call, mut status, mut error] = tags.map(|key| span.tag(key));
        // Client and server notice that one at the same time: either may be the first to say so.
        if status == "DEADLINE_EXCEEDED" {
            (status, error) = (String::new(), "deadline".into());
        }
        let call = call.rsplit('/').next().unwrap_or_default().to_owned();
        *counts.entry((call, status, error)).or_insert(0) += 1;
    }
    counts
}

pub(super) fn expected<const N: usize>(
    rows: [(&str, &str, &str, u64); N],
) -> BTreeMap<(String, String, String), u64> {
    let row = |(call, status, error, count): (&str, &str, &str, u64)| {
        ((call.to_owned(), status.to_owned(), error.to_owned()), count)
    };
    rows.into_iter().map(row).collect()
}

/// The day of a client of grpcio: what it sees stays the same, and every call has a span that says
/// what the client knows of it.
#[test]
fn grpc_as_grpcio_speaks_it() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let _server = python_server(&world, "grpc_peer.py", 50051, &["server", &host, "50051"]);
    let load = || python(&world.client, "grpc_peer.py", &["client", &host, "50051"]);
    let all = expected([
        ("Unary", "OK", "", 20 + 1 + 1 + 1 + 200),
        ("Unary", "NOT_FOUND", "", 1),
        ("Unary", "UNKNOWN", "UNKNOWN", 1),
        ("Unary", "", "deadline", 1),
        ("Nowhere", "UNIMPLEMENTED", "UNIMPLEMENTED", 1),
        ("ServerStream", "OK", "", 1),
        ("ServerStream", "", "downstream_reset", 1),
        ("ClientStream", "OK", "", 1),
        ("BothStream", "OK", "", 1),
    ]);
    compare_where(&world, ("NETRA_HTTP_PORTS", "50051"), load, |netra, sink| {
        let scrape = read_along(netra)?;
        let count: u64 = all.values().sum();
        let spans = sink.take(usize::try_from(count).expect("few"))?;
        if calls(&spans) != all {
            return Err(format!("{:#?}", calls(&spans)));
        }
        let asked = scrape.sum("netra_http_requests_total", &[("method", "POST")]);
        let of = |call: &str, status: &str| {
            let is_it = |span: &&Span| {
                span.tag("rpc.method").ends_with(call)
                    && span.tag("rpc.response.status_code") == status
            };
            spans.iter().find(is_it).cloned().ok_or(format!("no {call} {status}"))
        };
        let missing = of("Unary", "NOT_FOUND")?;
        let (out, into, both) =
            (of("ServerStream", "OK")?, of("ClientStream", "OK")?, of("BothStream", "OK")?);
        for (span, key, value) in [
            (&missing, "rpc.system.name", "grpc"),
            (&missing, "rpc.method", "shop.Cart/Unary"),
            (&missing, "netra.grpc.message", "no such thing: 5 \u{20ac}"),
            (&missing, "http.path", "/shop.Cart/Unary"),
            (&missing, "http.status_code", "200"),
            (&missing, "network.protocol.version", "2"),
            (&out, "netra.request.messages", "1"),
            (&out, "netra.response.messages", "100"),
            (&into, "netra.request.messages", "50"),
            (&into, "netra.response.messages", "1"),
            (&into, "http.request_size", "400"),
            (&both, "netra.response.messages", "50"),
        ] {
            if span.tag(key) != value {
                return Err(format!("{key} is {:?}, not {value}: {span:?}", span.tag(key)));
            }
        }
        if asked == count { Ok(()) } else { Err(format!("{asked} requests, {count} spans")) }
    });
}

/// What tools ask every server: health, once and for ever, and reflection.
#[test]
fn health_and_reflection_are_calls_as_others() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let _server = python_server(&world, "grpc_peer.py", 50051, &["known-server", &host, "50051"]);
    let load = || python(&world.client, "grpc_peer.py", &["known-client", &host, "50051"]);
    let all = expected([
        ("Check", "OK", "", 2),
        ("Check", "NOT_FOUND", "", 1),
        ("Watch", "", "downstream_reset", 1),
    ]);
    compare_where(&world, ("NETRA_HTTP_PORTS", "50051"), load, |netra, sink| {
        read_along(netra)?;
        let mut found = calls(&sink.take(6)?);
        // The client of reflection drops a stream with its first message: whether the reset or the
        // server's last frame is first is chance.
        let asked = |key: &(String, String, String)| key.0 == "ServerReflectionInfo";
        let ends = [("OK", ""), ("", "downstream_reset")];
        let reflections: Vec<_> = found.extract_if(.., |key, _| asked(key)).collect();
        let is_one_of = |key: &(String, String, String)| ends.contains(&(&key.1, &key.2));
        let is_told = reflections.iter().all(|(key, _)| is_one_of(key))
            && reflections.iter().map(|it| it.1).sum::<u64>() == 2;
        if is_told && found == all { Ok(()) } else { Err(format!("{reflections:#?} {found:#?}")) }
    });
}

/// The same of grpclib, whose encoder is hyper-h2's: it puts everything into its table.
#[test]
fn grpc_as_grpclib_speaks_it() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let _server = python_server(&world, "grpc_peer.py", 50051, &["pure-server", &host, "50051"]);
    let load = || python(&world.client, "grpc_peer.py", &["pure-client", &host, "50051"]);
    let all = expected([
        ("Unary", "OK", "", 30),
        ("Unary", "NOT_FOUND", "", 1),
        ("ServerStream", "OK", "", 1),
        ("BothStream", "OK", "", 1),
    ]);
    compare_where(&world, ("NETRA_HTTP_PORTS", "50051"), load, |netra, sink| {
        read_along(netra)?;
        let spans = sink.take(33)?;
        if calls(&spans) == all { Ok(()) } else { Err(format!("{:#?}", calls(&spans))) }
    });
}

/// The same on a port that nothing names, whose server speaks first.
#[test]
fn grpc_is_found_where_nothing_names_it() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let _server = python_server(&world, "grpc_peer.py", 50051, &["pure-server", &host, "50051"]);
    let load = || python(&world.client, "grpc_peer.py", &["pure-client", &host, "50051"]);
    compare_where(&world, ("NETRA_DETECT", "true"), load, |netra, sink| {
        let scrape = read_along(netra)?;
        let found = scrape.sum("netra_http2_total", &[("event", "connection")]);
        let spans = sink.take(33)?;
        let is_linked = |span: &Span| span.tag("rpc.method").starts_with("shop.Pure/");
        if found > 0 && spans.iter().all(is_linked) { Ok(()) } else { Err(format!("{spans:#?}")) }
    });
}

/// A service that hands on nothing but the request id: its calls hang under what it was asked.
#[test]
fn calls_of_a_service_are_joined_to_what_it_was_asked() {
    let Some(world) = World::new() else { return };
    let (pod, client) = (POD_V4.to_string(), CLIENT_V4.to_string());
    let mut back = world.client.command(python_path());
    back.arg(peer("grpc_peer.py")).args(["server", &client, "50052"]);
    let _back = Server::start(&world, &world.client, back, 50052);
    let args = ["front", &pod, "50051", &format!("{client}:50052")];
    let _front = python_server(&world, "grpc_peer.py", 50051, &args);
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        let setup = sink.wire(Setup::new(cell)).env("NETRA_HTTP_PORTS", "50051,50052");
        let netra = Netra::start(&world, &setup);
        let said = python(&world.client, "grpc_peer.py", &["ask", &pod, "50051"]);
        let is_told = (0..10).all(|n| said.contains(&format!("b'{n}+id'")));
        if !is_told {
            findings.note(cell, format!("the service behind has seen no id: {said}"));
        }
        findings.check(cell, sink.take(20).and_then(|spans| joined(&spans)));
        sink.clear();
        findings.check(cell, netra.finish());
    }
    remove_rules(&world, Backend::NftNative);
    findings.conclude();
}

fn joined(spans: &[Span]) -> Result<(), String> {
    let of = |kind: &'static str| spans.iter().filter(move |span| span.tag("span.kind") == kind);
    for span in of("client") {
        let is_parent = |it: &&Span| it.tag("http.request_id") == span.tag("http.request_id");
        let parent = of("server").find(is_parent).ok_or("an orphan")?;
        if (span.trace_id, span.parent_id) != (parent.trace_id, parent.span_id) {
            return Err(format!("{span:?} is no child of {parent:?}"));
        }
    }
    match (of("client").count(), of("server").count()) {
        (10, 10) => Ok(()),
        counts => Err(format!("{counts:?} spans: {spans:?}")),
    }
}

/// curl asks for an upgrade and hypercorn grants it; then both speak HTTP/2, and each request has its
/// own status.
#[test]
fn connections_that_are_upgraded_are_read_on() {
    let Some(world) = World::new() else { return };
    let mut hypercorn = world.pod.command(python_path());
    hypercorn.args(["-m", "hypercorn", "--bind", "0.0.0.0:8080", "asgi_app:app"]);
    hypercorn.env("PYTHONPATH", peer(""));
    let _server = Server::start(&world, &world.pod, hypercorn, 8080);
    let load = || {
        let url = |path: &str| format!("http://{POD_V4}:8080/{path}");
        let form = ["-sS", "--http2", "-w", "%{http_version} %{http_code}\n"];
        let more = [&*url("one"), &*url("two"), &*url("three")];
        run(&world.client, &tool("curl", "curl"), &[&form[..], &more].concat())
    };
    compare_where(&world, ("NETRA_HTTP_PORTS", "8080"), load, |netra, sink| {
        let scrape = read_along(netra)?;
        let upgraded = scrape.sum("netra_http2_total", &[("event", "connection")]);
        let spans = sink.take(3)?;
        let told = |span: &Span| (span.tag("http.path"), span.tag("http.status_code"));
        let mut told: Vec<_> = spans.iter().map(told).collect();
        told.sort();
        let wanted = ["/one", "/three", "/two"].map(|path| (path.to_owned(), "200".to_owned()));
        if told == wanted && upgraded == 1 { Ok(()) } else { Err(format!("{upgraded} {told:?}")) }
    });
}

/// A call that goes on is shown with what has come of it so far.
#[test]
fn a_stream_that_runs_is_shown() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let _server = python_server(&world, "grpc_peer.py", 50051, &["server", &host, "50051"]);
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        let setup = sink.wire(Setup::new(cell)).env("NETRA_HTTP_PORTS", "50051");
        let netra = Netra::start(&world, &setup);
        let mut client = world.client.command(python_path());
        client.arg(peer("grpc_peer.py")).args(["hold", &host, "50051"]);
        let mut client = client.spawn().expect("the client starts");
        let runs = || {
            let seen = support::scrape::get(&world.pod, 14957, "/connections").expect("a page").1;
            let seen: serde_json::Value = serde_json::from_str(&seen).expect("JSON");
            let shown = seen["connections"][0].clone();
            let stream = &shown["streams"][0];
            shown["protocol"] == "http2"
                && shown["streams_open"] == 1
                && stream["path"] == "/shop.Cart/ServerStream"
                && stream["is_grpc"] == true
                && stream["status"] == 200
                && stream["messages_response"].as_u64() > Some(1)
        };
        if !wait_until(PATIENCE, runs) {
            findings.note(cell, "the stream is not shown");
        }
        client.wait().expect("the client ends");
        findings.check(cell, sink.take(1).map(|_| ()));
        findings.check(cell, netra.finish());
    }
    remove_rules(&world, Backend::NftNative);
    findings.conclude();
}

/// nghttp2's clients, curl and tshark against nginx and nghttpd: as much succeeds as directly, and
/// netra has read what tshark reads.
#[test]
fn http2_as_nghttp2_and_curl_speak_it_and_as_tshark_reads_it() {
    let Some(world) = World::new() else { return };
    fs::write(world.dir().join("small"), [b'x'; 1024]).expect("a file");
    fs::write(world.dir().join("large"), vec![b'x'; 3_000_000]).expect("a file");
    let dir = world.dir().display().to_string();
    // It takes bodies only where it stores them; else it cuts the stream, which curl calls an error
    // (92) when its own end comes after that.
    fs::write(world.dir().join("taken"), "x=y").expect("a file");
    let _nginx = support::programs::nginx(&world, "8080 http2; dav_methods PUT");
    let mut nghttpd = world.pod.command(tool("nghttpd", "nghttp2-server"));
    nghttpd.args(["--no-tls", "-d", &dir, "-a", &POD_V4.to_string(), "8081"]);
    let _nghttpd = Server::start(&world, &world.pod, nghttpd, 8081);
    let capture = world.dir().join("h2.pcap");
    let url = |port: u16, path: &str| format!("http://{POD_V4}:{port}/{path}");
    let ask = || {
        let mut said = String::new();
        for port in [8080, 8081] {
            let (small, large) = (url(port, "small"), url(port, "large"));
            let nghttp = tool("nghttp", "nghttp2-client");
            let asked = ["-nsv", "-m", "5", &small, &url(port, "none")];
            let text = run(&world.client, &nghttp, &asked);
            let statuses = text.matches(":status: 200").count();
            said += &format!("nghttp {statuses} {}\n", text.matches(":status: 404").count());
            let padded = ["-n", "-b", "10", "-p", "200", &small, &large];
            said += &format!("nghttp {:?}\n", run(&world.client, &nghttp, &padded));
            let h2load = tool("h2load", "nghttp2-client");
            let text = run(&world.client, &h2load, &["-n", "300", "-c", "4", "-m", "16", &small]);
            said += &format!("h2load {}\n", text.contains("300 succeeded, 0 failed, 0 errored"));
            let form = ["-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w"];
            let told = "%{http_version} %{http_code} %{size_download}\n";
            let (get, put) = ([told, &large], [told, &url(port, "taken")]);
            let put = [&put[..], &["-X", "PUT", "-d", "x=y"]].concat();
            for asked in [&get[..], &put] {
                said += &run(&world.client, &tool("curl", "curl"), &[&form, asked].concat());
            }
        }
        said
    };
    let load = || captured(&world, &capture, &[8080, 8081], ask);
    compare_where(&world, ("NETRA_HTTP_PORTS", "8080,8081"), load, |netra, sink| {
        let scrape = read_along(netra)?;
        let asked = scrape.sum("netra_http_requests_total", &[]);
        let spans = sink.take(usize::try_from(asked).expect("few"))?;
        let mut seen = BTreeMap::new();
        for span in &spans {
            let told = (span.tag("http.path"), span.tag("http.status_code"));
            *seen.entry(told).or_insert(0) += 1;
        }
        let read = requests_by_tshark(&world, &capture);
        if seen == read { Ok(()) } else { Err(format!("netra: {seen:#?}\ntshark: {read:#?}")) }
    });
}

/// Path and status of each stream of a capture, as tshark reads them.
fn requests_by_tshark(world: &World, capture: &Path) -> BTreeMap<(String, String), u64> {
    let file = capture.display().to_string();
    let ports = ["-d", "tcp.port==8080,http2", "-d", "tcp.port==8081,http2"];
    let args = ["-r", &file, "-Y", "http2.headers", "-O", "tcp,http2"];
    let (mut paths, mut counts) = (BTreeMap::new(), BTreeMap::new());
    let mut stream = (String::new(), String::new());
    let text = run(&world.client, &tool("tshark", "tshark"), &[&args[..], &ports].concat());
    let word = |rest: &str| rest.split([' ', ',', ']']).next().unwrap_or_default().to_owned();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("[Stream index: ") {
            stream.0 = word(rest);
        } else if let Some(rest) = line.strip_prefix("Stream: HEADERS, Stream ID: ") {
            stream.1 = word(rest);
        } else if let Some(rest) = line.strip_prefix("Header: :path: ") {
            paths.insert(stream.clone(), word(rest));
        } else if let Some(rest) = line.strip_prefix("Header: :status: ") {
            let path = paths.get(&stream).cloned().unwrap_or_default();
            *counts.entry((path, word(rest))).or_insert(0) += 1;
        }
    }
    counts
}

/// A client that keeps its connection, as those of gRPC do, is told to go before netra leaves.
#[test]
fn a_drain_says_goodbye_to_who_is_quiet() {
    use std::io::{Read as _, Write as _};
    let Some(world) = World::new() else { return };
    let dir = world.dir().display().to_string();
    let mut nghttpd = world.pod.command(tool("nghttpd", "nghttp2-server"));
    nghttpd.args(["--no-tls", "-d", &dir, "-a", &POD_V4.to_string(), "8081"]);
    let _nghttpd = Server::start(&world, &world.pod, nghttpd, 8081);
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells_with(2) {
        let setup = Setup::new(cell).env("NETRA_HTTP_PORTS", "8081");
        let netra = Netra::start(&world, &setup);
        let mut peer =
            support::script::connect(&world.client, (POD_V4, 8081).into()).expect("dial");
        let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let request = b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x84\x41\x04shop";
        peer.write_all(&[&settings[..], request].concat()).expect("asked");
        let is_answered = |it: &Scrape| it.sum("netra_http_requests_total", &[]) == 1;
        findings.check(cell, netra.scrape_until("the answer", is_answered));
        findings.check(cell, netra.end());
        let mut received = Vec::new();
        peer.read_to_end(&mut received).expect("an orderly end");
        if !received.ends_with(b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0") {
            findings.note(cell, format!("no goodbye: {received:x?}"));
        }
    }
    remove_rules(&world, Backend::NftNative);
    findings.conclude();
}

/// Floods: the server takes them as it does without netra, whose memory stays what it was.
#[test]
fn floods_are_the_servers_to_stand() {
    let Some(world) = World::new() else { return };
    let host = POD_V4.to_string();
    let _server = python_server(&world, "h2_hostile.py", 8080, &["server", &host, "8080"]);
    let load = || python(&world.client, "h2_hostile.py", &["client", &host, "8080"]);
    compare_where(&world, ("NETRA_HTTP_PORTS", "8080"), load, |netra, _| {
        netra.scrape_until("no connection is active", |scrape| scrape.active() == 0)?;
        let scrape = netra.scrape();
        let reason = |name: &str| scrape.sum("netra_opaque_total", &[("reason", name)]);
        let untold = scrape.sum("netra_http2_total", &[("event", "stream_untold")]);
        let all = scrape.sum("netra_opaque_total", &[]);
        let known = reason("http2_continuations") + reason("http2_fields") + reason("http2_frame");
        if all != known || reason("http2_continuations") != 1 || untold > 10_000 {
            return Err(format!("{:?}", scrape.labels_of("netra_opaque_total")));
        }
        Ok(())
    });
}

/// nghttp leads its connection where its first request says; what is asked later on a connection goes
/// where that one goes, and is counted.
#[test]
fn a_connection_goes_where_its_first_request_leads() {
    let Some(world) = World::new() else { return };
    fs::write(world.dir().join("one"), "elsewhere").expect("a file");
    // It speaks when its client has: of one that speaks first, a connection cannot be led away.
    let mut hypercorn = world.client.command(python_path());
    hypercorn.args(["-m", "hypercorn", "--bind", "0.0.0.0:8080", "asgi_app:app"]);
    hypercorn.env("PYTHONPATH", peer(""));
    let _original = Server::start(&world, &world.client, hypercorn, 8080);
    let mut nghttpd = world.client.command(tool("nghttpd", "nghttp2-server"));
    let dir = world.dir().display().to_string();
    nghttpd.args(["--no-tls", "-d", &dir, "-a", &CLIENT_V4.to_string(), "8091"]);
    let _elsewhere = Server::start(&world, &world.client, nghttpd, 8091);
    let url = format!("http://{CLIENT_V4}:8080/one");
    let route = format!("x-route: other=1.2.3.4,svc={CLIENT_V4}:8091");
    let nghttp = |more: &[&str]| {
        let args = [&["-H", ":authority: svc", &*url][..], more].concat();
        run(&world.pod, &tool("nghttp", "nghttp2-client"), &args)
    };
    let plain = nghttp(&[]);
    assert!(!plain.is_empty() && !plain.contains("elsewhere"), "{plain}");
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let mut findings = Findings::default();
    for cell in cells_with(1) {
        let setup = sink.wire(Setup::new(cell)).env("NETRA_HTTP_PORTS", "8080,8091");
        let netra = Netra::start(&world, &setup.env("NETRA_HTTP_ROUTING_ENABLED", "true"));
        for (what, said, wanted) in
            [("no route", nghttp(&[]), &*plain), ("a route", nghttp(&["-H", &route]), "elsewhere")]
        {
            if said != wanted {
                findings.note(cell, format!("{what}: {said:?}, not {wanted:?}"));
            }
        }
        findings.check(cell, asks_later(&world, &netra, &route));
        findings.check(cell, led(&netra, &sink));
        sink.clear();
        findings.check(cell, netra.finish());
    }
    remove_rules(&world, Backend::NftNative);
    findings.conclude();
}

/// Two requests of one connection, of which the second wants to go elsewhere.
fn asks_later(world: &World, netra: &Netra<'_>, route: &str) -> Result<(), String> {
    use std::io::Write as _;
    let (name, value) = route.split_once(": ").expect("a line");
    let field =
        |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let plain = b"\x82\x86\x44\x04/one\x41\x03svc";
    let routed = [&plain[..8], b"\xbf\0", &field(name), &field(value)].concat();
    let frame = |stream: u8, block: &[u8]| {
        let len = u8::try_from(block.len()).expect("short");
        [&[0, 0, len, 1, 5, 0, 0, 0, stream], block].concat()
    };
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let asked = [&settings[..], &frame(1, plain), &frame(3, &routed)].concat();
    let mut peer = support::script::connect(&world.pod, (CLIENT_V4, 8080).into())
        .map_err(|error| error.to_string())?;
    peer.write_all(&asked).map_err(|error| error.to_string())?;
    let is_answered = |it: &Scrape| it.sum("netra_http_requests_total", &[]) == 4;
    netra.scrape_until("both answers", is_answered)
}

/// One connection was led, and one request was not.
fn led(netra: &Netra<'_>, sink: &Sink) -> Result<(), String> {
    let scrape = read_along(netra)?;
    let routed = scrape.sum("netra_routed_total", &[]);
    let refused = scrape.sum("netra_route_refused_total", &[("reason", "http2")]);
    let spans = sink.take(4)?;
    let is_whole = |span: &Span| {
        let told = (span.tag("span.kind"), span.tag("http.status_code"), span.tag("http.host"));
        told == ("client".into(), "200".into(), "svc".into())
    };
    match (routed, refused, spans.iter().all(is_whole)) {
        (1, 1, true) => Ok(()),
        counts => Err(format!("{counts:?}: {spans:#?}")),
    }
}
