//! Receivers as they are: one of OTLP that takes spans in part, so that what it rejects is counted and
//! its reason stands in the log once, when it begins, and that it takes all again, when it ends; and
//! such as are behind TLS and a proxy.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

#[path = "support/certs.rs"]
#[allow(dead_code, unreachable_pub)]
mod certs;
mod support;

use certs::{Authority, NOW, PAST};
use support::lockstep::{Peer, Server};
use support::matrix::cells_with;
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::programs::{Server as Program, tool};
use support::sink::Sink;
use support::stage::OK;
use support::talk::PORT;
use support::world::{CLIENT_V4, POD_V4, World};

/// The application answers a request for this path.
fn is_asked(world: &World, app: &mut Server, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    let mut client = Peer::connect(&world.client, (POD_V4, PORT).into()).expect("connected");
    let known = app.peers.len();
    client.send(request.as_bytes()).expect("sent");
    while app.peers.len() == known {
        app.look();
    }
    let peer = app.last().expect("somebody came");
    let is_there = |peer: &Peer| (!peer.received.is_empty()).then_some(()).ok_or(String::new());
    peer.until(is_there).expect("the request arrives");
    peer.send(OK.as_bytes()).expect("answered");
    client.expect(OK.as_bytes()).expect("heard");
    client.close();
    app.last().expect("the peer").close();
}

#[test]
fn what_a_receiver_rejects_is_counted_and_said_when_it_begins_and_ends() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    for (cell, protocol) in cells_with(1).into_iter().cycle().zip(["http/protobuf", "grpc"]) {
        let port = match protocol {
            "grpc" => sink.ports().otlp_grpc,
            _ => sink.ports().otlp_http,
        };
        let setup = Setup::new(cell)
            .env("NETRA_HTTP_PORTS", PORT)
            .env("JAEGER_SAMPLER_TYPE", "const")
            .env("JAEGER_SAMPLER_PARAM", "1")
            .env("JAEGER_REPORTER_FLUSH_INTERVAL", "5ms")
            .env("NETRA_REPORTER", "otlp")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))
            .reporting();
        let netra = Netra::start(&world, &setup);
        let mut app = Server::listen(&world.pod, POD_V4, PORT);
        for path in ["/fine", "/reject", "/reject", "/fine"] {
            is_asked(&world, &mut app, path);
            sink.take(1).expect("the span arrives, taken or not");
        }
        let result = |result| [("result", result)];
        netra
            .scrape_until("two spans sent and two rejected", |scrape| {
                let count = |name| scrape.sum("netra_spans_total", &result(name));
                (count("sent"), count("rejected"), count("failed")) == (2, 2, 0)
            })
            .expect("counted");
        let log = netra.log();
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        assert_eq!(lines("the receiver does not take all spans"), 1, "{log}");
        // The reason, on one line and without what would turn it round.
        assert_eq!(lines("quota"), 1, "{log}");
        assert!(!log.contains('\u{202e}'), "{log}");
        assert_eq!(lines("the receiver takes all spans again"), 1, "{log}");
        drop(app);
        netra.finish().expect("no leak");
    }
}

/// The settings of a netra that reports every request to `url`.
fn reporting_to(setup: Setup, protocol: &str, url: &str) -> Setup {
    let setup = setup.env("NETRA_HTTP_PORTS", PORT).env("JAEGER_SAMPLER_TYPE", "const");
    let setup = setup.env("JAEGER_SAMPLER_PARAM", "1").env("JAEGER_REPORTER_FLUSH_INTERVAL", "5ms");
    match protocol {
        "collector" => setup.env("JAEGER_ENDPOINT", format!("{url}/api/traces")),
        protocol => setup
            .env("NETRA_REPORTER", "otlp")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", url),
    }
    .reporting()
}

/// In another namespace, so that there is a way for a proxy to be on.
#[test]
fn spans_go_over_tls_and_by_a_proxy_and_the_log_says_why_they_do_not() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let folder = world.dir();
    let (ours, host) = (Authority::new("ours"), CLIENT_V4.to_string());
    let ca = ours.write(&folder.join("ca.pem"));
    ours.write(&folder.join("clients.pem"));
    ours.issue(folder, "server", &[&host], NOW);
    let [certificate, key] = ours.issue(folder, "client", &["netra"], NOW);
    let sink = Sink::start_tls(&world.client, &host, folder);
    let ports = sink.ports();
    let proxy = proxy(&world);
    for (index, (protocol, port)) in [
        ("http/protobuf", ports.otlp_http),
        ("grpc", ports.otlp_grpc),
        ("collector", ports.collector),
    ]
    .into_iter()
    .enumerate()
    {
        let cell = cells_with(1)[index % cells_with(1).len()];
        let url = format!("https://{host}:{port}");
        let setup = reporting_to(Setup::new(cell), protocol, &url)
            .env("NETRA_TLS_CERTIFICATE_FILE", &certificate)
            .env("NETRA_TLS_KEY_FILE", &key);
        // Once as a root of this machine, once as our own.
        let setup = match protocol {
            "grpc" => setup.env("SSL_CERT_FILE", &ca),
            _ => setup.env("NETRA_TLS_CA_FILE", &ca),
        };
        let setup = if index == 0 { setup } else { setup.env("HTTPS_PROXY", &proxy.url) };
        let netra = Netra::start(&world, &setup);
        let mut app = Server::listen(&world.pod, POD_V4, PORT);
        for _ in 0..2 {
            is_asked(&world, &mut app, "/tls");
            sink.take(1).unwrap_or_else(|what| panic!("{protocol}: {what}\n{}", netra.log()));
        }
        drop(app);
        netra.finish().expect("no leak");
    }
    let asked = proxy.asked();
    for port in [ports.otlp_grpc, ports.collector] {
        assert!(asked.contains(&format!("CONNECT {host}:{port}")), "{asked}");
    }
    assert!(!asked.contains(&ports.otlp_http.to_string()), "{asked}");
    said_to_have_expired(&world, &ours, &ca);
}

fn said_to_have_expired(world: &World, ours: &Authority, ca: &str) {
    let host = CLIENT_V4.to_string();
    ours.issue(world.dir(), "server", &[&host], PAST);
    let sink = Sink::start_tls(&world.client, &host, world.dir());
    let url = format!("https://{host}:{}", sink.ports().otlp_http);
    let setup = reporting_to(Setup::new(cells_with(1)[0]), "http/protobuf", &url);
    let netra = Netra::start(world, &setup.env("OTEL_EXPORTER_OTLP_CERTIFICATE", ca));
    let mut app = Server::listen(&world.pod, POD_V4, PORT);
    for _ in 0..2 {
        is_asked(world, &mut app, "/tls");
    }
    netra
        .scrape_until("two spans failed", |scrape| {
            scrape.sum("netra_spans_total", &[("result", "failed")]) == 2
        })
        .expect("counted");
    let log = netra.log();
    let lines = log.lines().filter(|line| line.contains("certificate has expired")).count();
    assert_eq!(lines, 1, "{log}");
    drop(app);
    netra.finish().expect("no leak");
}

/// A proxy that nobody here wrote.
struct Proxy {
    url: String,
    log: std::path::PathBuf,
    _program: Program,
}

fn proxy(world: &World) -> Proxy {
    const AT: u16 = 3128;
    let (config, log) = (world.dir().join("proxy.conf"), world.dir().join("proxy.log"));
    let text = format!(
        "Port {AT}\nListen {CLIENT_V4}\nTimeout 60\nMaxClients 20\nLogLevel Connect\nLogFile \"{}\"\n\
         BasicAuth mesh hunter2\n",
        log.display()
    );
    std::fs::write(&config, text).expect("written");
    let mut command = world.client.command(tool("tinyproxy", "tinyproxy-bin"));
    command.arg("-d").arg("-c").arg(&config);
    let program = Program::start(world, &world.client, command, AT);
    Proxy { url: format!("http://mesh:hunter2@{CLIENT_V4}:{AT}"), log, _program: program }
}

impl Proxy {
    fn asked(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }
}
