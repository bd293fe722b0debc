//! Every conversation that was recorded from netramesh, played again through the real netra in a
//! pod: the same settings, the same bytes, in the same order.
//!
//! netra's own behaviour is checked exactly, in lockstep: all that is sent arrives before anybody
//! does the next thing, with the documented lines edited and nothing else. Beside that, what came
//! out is compared with what netramesh did. Where the two differ on purpose a row of [`ROWS`] says
//! in what and why; a row that is not needed fails, and so does a recording that nobody plays.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

#[path = "http_recordings/others.rs"]
mod others;
#[path = "http_recordings/rows.rs"]
mod rows;

use rows::{In, ROWS, Row, Then};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use support::http::{Context, Edits, Head, Request, answers, methods, shown, span_tags};
use support::lockstep::{Peer, Server};
use support::matrix::{Cell, Driver, Findings};
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::recording::{Act, Do, Recording, normal, normal_recorded, normal_span};
use support::scrape::Scrape;
use support::script::End;
use support::sink::{Sink, Span};
use support::world::{CLIENT_V4, POD_V4, World};

/// Nobody listens where these go.
const REFUSED: [&str; 3] = ["in-refused", "out-refused", "tcp-refused"];
/// They have three peers, and a test of their own.
const CORRELATED: [&str; 4] = ["corr-expired", "corr-no-reqid", "corr-same-reqid", "route-context"];

#[test]
fn recordings_with_epoll() {
    play_all(Driver::Epoll);
}

#[test]
fn recordings_with_io_uring() {
    play_all(Driver::IoUring);
}

fn recordings() -> Vec<Recording> {
    let all = Recording::all();
    assert_eq!(all.len(), 122, "some are missing");
    all
}

fn row_of(case: &str) -> Row {
    ROWS.iter().find(|row| row.case == case).copied().unwrap_or(Row::SAME)
}

#[test]
fn every_row_has_its_recording() {
    let cases: BTreeSet<_> = recordings().into_iter().map(|recording| recording.case).collect();
    let mut seen = BTreeSet::new();
    for row in ROWS {
        assert!(cases.contains(row.case), "nothing was recorded as {}", row.case);
        assert!(seen.insert(row.case), "{} has two rows", row.case);
        assert_eq!(row.why.is_empty(), row.differs.is_empty(), "{} says why", row.case);
    }
    assert!(CORRELATED.iter().chain(&REFUSED).all(|case| cases.contains(*case)));
}

fn setup(sink: &Sink, driver: Driver, env: &[(String, String)]) -> Setup {
    let setup = sink
        .wire(Setup::new(Cell { driver, shards: 1 }))
        .env("NETRA_HTTP_PORTS", "8080,8090,8091,80")
        // As netramesh joins: by request ids alone.
        .env("NETRA_JOIN", "explicit");
    env.iter().fold(setup, |setup, (name, value)| setup.env(name, value))
}

fn play_all(driver: Driver) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let mut profiles: BTreeMap<Vec<(String, String)>, Vec<Recording>> = BTreeMap::new();
    for recording in recordings() {
        if !CORRELATED.contains(&&*recording.case) {
            profiles.entry(recording.env.clone()).or_default().push(recording);
        }
    }
    let mut findings = Findings::default();
    for (env, recordings) in profiles {
        let netra = Netra::start(&world, &setup(&sink, driver, &env));
        for recording in recordings {
            let case = &recording.case;
            let played = Stage::new(&world, &recording).and_then(|stage| stage.play(&netra, &sink));
            if played.is_err() {
                sink.clear();
            }
            findings.check(case, played.and_then(|played| compare(&recording, &played)));
        }
        findings.check(driver.name(), netra.finish());
    }
    findings.conclude();
}

/// The peers of one case.
struct Stage<'w> {
    recording: &'w Recording,
    row: Row,
    edits: Edits<'w>,
    client: Peer,
    servers: Vec<Server>,
    /// The port to which requests go.
    port: u16,
    sent: Vec<u8>,
    answered: Vec<u8>,
    requests: Vec<Request>,
}

/// What came out.
struct Played {
    servers: Vec<(u16, Vec<u8>)>,
    received: Vec<u8>,
    end: Option<End>,
    spans: Vec<Span>,
}

impl<'w> Stage<'w> {
    fn new(world: &'w World, recording: &'w Recording) -> Result<Self, String> {
        let row = row_of(&recording.case);
        let (client, server, address) = match recording.is_outbound {
            true => (&world.pod, &world.client, CLIENT_V4),
            false => (&world.client, &world.pod, POD_V4),
        };
        let mut servers = Vec::new();
        if !REFUSED.contains(&&*recording.case) {
            servers.push(Server::listen(server, address, recording.port));
        }
        if recording.case.starts_with("route-") && recording.is_outbound {
            let (namespace, address, ports) = match &*recording.case {
                "route-dns" => (&world.pod, IpAddr::V4(Ipv4Addr::LOCALHOST), &[8091][..]),
                _ => (server, address, &[80, 8091][..]),
            };
            servers.extend(ports.iter().map(|port| Server::listen(namespace, address, *port)));
        }
        let recorded = recording.servers.first().map_or(recording.port, |server| server.0);
        Ok(Self {
            recording,
            row,
            edits: edits(recording),
            client: Peer::connect(client, (address, recording.port).into())?,
            servers,
            port: row.port.unwrap_or(recorded),
            sent: Vec::new(),
            answered: Vec::new(),
            requests: Vec::new(),
        })
    }

    /// HTTP is read on these ports; on others, and where the row says so, bytes are bytes.
    fn raw_from(&self) -> usize {
        if [8080, 8090, 8091, 80].contains(&self.recording.port) { self.row.raw_from } else { 0 }
    }

    fn server(&mut self) -> Result<&mut Server, String> {
        let port = self.port;
        let server = self.servers.iter_mut().find(|server| server.port == port);
        server.ok_or_else(|| format!("nobody listens on {port}"))
    }

    fn play(mut self, netra: &Netra<'_>, sink: &Sink) -> Result<Played, String> {
        let before = netra.scrape();
        for act in &self.recording.acts {
            self.act(act).map_err(|what| format!("{}{what}", named(act)))?;
        }
        for then in self.row.then {
            let act = match then {
                Then::ServerSends(text) => Act::Server(self.port, Do::Send(text.as_bytes().into())),
                Then::ServerCloses => Act::Server(self.port, Do::Close),
                Then::ClientSends(text) => Act::Client(Do::Send(text.as_bytes().into())),
            };
            self.act(&act).map_err(|what| format!("then {}{what}", named(&act)))?;
        }
        if let Some(why) = self.row.refusal {
            let reason = format!("netra: {why}\n");
            let head = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8";
            let len = reason.len();
            self.answered =
                format!("{head}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{reason}")
                    .into_bytes();
            self.client.expect(&self.answered)?;
            self.client.expect_end(End::Eof)?;
        }
        self.end(netra, sink, &before)
    }

    fn act(&mut self, act: &Act) -> Result<(), String> {
        let (raw_from, edits) = (self.raw_from(), self.edits.clone());
        let is_refused = self.servers.is_empty();
        match act {
            Act::Client(Do::Send(bytes)) => {
                self.sent.extend_from_slice(bytes);
                self.client.send(bytes)?;
                if is_refused {
                    return self.client.expect_end(End::Reset);
                }
                if self.row.refusal.is_none() {
                    let sent = self.sent.clone();
                    let arrived = self.server()?.expect(&sent, &edits, raw_from);
                    self.client.look();
                    let seen = shown(&self.client.received);
                    self.requests = arrived.map_err(|what| format!("{what}; client {seen}"))?;
                }
            }
            Act::Client(Do::Finish) => {
                self.client.finish();
                self.server()?.last()?.expect_end(End::Eof)?;
            }
            Act::Client(Do::Close) => {
                self.client.close();
                self.server()?.last()?.expect_end(End::Eof)?;
            }
            Act::Client(Do::Reset) => {
                self.client.abort();
                self.server()?.last()?.expect_end(End::Reset)?;
            }
            Act::Server(_, Do::Send(bytes)) => {
                self.answered.extend_from_slice(bytes);
                self.server()?.last()?.send(bytes)?;
                self.client.expect(&self.answered)?;
            }
            Act::Server(_, Do::Finish) => {
                self.server()?.last()?.finish();
                self.client.expect_end(End::Eof)?;
            }
            Act::Server(_, Do::Close) => {
                self.server()?.last()?.close();
                self.client.expect_end(End::Eof)?;
            }
            Act::Server(_, Do::Reset) => {
                self.server()?.last()?.abort();
                self.client.expect_end(End::Reset)?;
            }
        }
        Ok(())
    }

    /// Everybody leaves; then the spans and counters have to be right.
    fn end(mut self, netra: &Netra<'_>, sink: &Sink, before: &Scrape) -> Result<Played, String> {
        let end = self.client.end.clone();
        self.client.close();
        for server in &mut self.servers {
            server.look();
            for peer in server.peers.iter_mut().filter(|peer| peer.is_open()) {
                peer.until(|peer| match &peer.end {
                    Some(_) => Ok(()),
                    None => Err("a server does not see the client's end".into()),
                })?;
                peer.close();
            }
        }
        netra.scrape_until("no connection is active", |scrape| scrape.active() == 0)?;
        let after = netra.scrape();
        self.check_reasons(before, &after)?;
        let spans = self.check_spans(sink, before, &after)?;
        let servers = self.servers.iter().flat_map(|server| {
            server.peers.iter().map(|peer| (server.port, peer.received.clone()))
        });
        Ok(Played { servers: servers.collect(), received: self.client.received, end, spans })
    }

    fn check_reasons(&self, before: &Scrape, after: &Scrape) -> Result<(), String> {
        let count = |labels: &[(&str, &str)]| {
            let sum = |scrape: &Scrape| scrape.sum("netra_opaque_total", labels);
            sum(after) - sum(before)
        };
        let counted = self.row.opaque.map_or(0, |reason| count(&[("reason", reason)]));
        let (wanted, all) = (u64::from(self.row.opaque.is_some()), count(&[]));
        if (counted, all) == (wanted, wanted) {
            return Ok(());
        }
        Err(format!("{all} opaque, of them {counted} {:?}", self.row.opaque))
    }

    fn check_spans(
        &self,
        sink: &Sink,
        before: &Scrape,
        after: &Scrape,
    ) -> Result<Vec<Span>, String> {
        let mut requests = self.requests.clone();
        if self.row.refusal.is_some() {
            requests = vec![self.refused_request()];
        }
        let methods: Vec<_> = requests.iter().map(|request| request.head.word(0)).collect();
        let is_closed = self.servers.iter().flat_map(|server| &server.peers).any(|p| !p.is_open());
        let is_closed = is_closed || self.row.refusal.is_some();
        let mut found = answers(&self.answered, &methods, is_closed);
        if self.row.is_unread {
            found.clear();
        }
        let recorded = |scrape: &Scrape| scrape.sum("netra_spans_total", &[("result", "recorded")]);
        let count = usize::try_from(recorded(after) - recorded(before)).expect("a few");
        let mut spans = sink.take(count)?;
        spans.sort_by_key(|span| {
            requests.iter().position(|request| request.id == span.tag("http.request_id"))
        });
        let mut left = spans.iter();
        for (number, request) in requests.iter().enumerate() {
            let Some(context) = request.context.filter(|context| context.flags & 1 != 0) else {
                continue;
            };
            let span = left.next().ok_or("a span is missing")?;
            let (answer, refused) = (found.get(number).copied(), self.row.refusal.is_some());
            let remote = self.remote();
            let mut wanted = span_tags(request, answer, &self.edits, &remote);
            if refused {
                wanted.insert("error".into(), true.into());
                wanted.insert("http.response_size".into(), 0.into());
                match self.row.port {
                    Some(port) => {
                        wanted.insert("remote_addr".into(), format!("{CLIENT_V4}:{port}").into())
                    }
                    None => wanted.remove("remote_addr"),
                };
                wanted.insert("http.request_id".into(), span.tag("http.request_id").into());
            }
            if self.row.is_unread {
                // netra lost sight of it; that is not to say that it failed.
                wanted.remove("error");
            }
            wanted.extend(mapped_tags(self.recording, request));
            let name = request.operation(self.recording.is_outbound);
            check_span(span, (&name, wanted), (!refused).then_some(context))?;
        }
        match left.next() {
            None => Ok(spans),
            Some(span) => Err(format!("nobody asked for this span: {span:#?}")),
        }
    }

    /// Who is named in spans: the client inbound, the upstream outbound.
    fn remote(&self) -> String {
        match self.recording.is_outbound {
            false => self.client.address.to_string(),
            true => format!("{CLIENT_V4}:{}", self.port),
        }
    }

    /// The request as it was sent, because none went on.
    fn refused_request(&self) -> Request {
        let head = Head::of(&self.sent);
        let context = Context { trace: 1, span: 1, parent: 0, flags: 1 };
        Request { head, id: String::new(), context: Some(context), size: 0 }
    }
}

fn named(act: &Act) -> String {
    match act {
        Act::Client(Do::Send(bytes)) => format!("client sends {}:\n", shown(bytes)),
        Act::Server(_, Do::Send(bytes)) => format!("server sends {}:\n", shown(bytes)),
        _ => format!("{act:?}:\n"),
    }
}

fn check_span(
    span: &Span,
    (name, wanted): (&str, BTreeMap<String, serde_json::Value>),
    context: Option<Context>,
) -> Result<(), String> {
    let mut tags = span.tags.clone();
    let took = tags.remove("netra.overhead_us");
    if took.and_then(|took| took.as_u64()).is_none() {
        return Err(format!("no overhead in {span:#?}"));
    }
    // What netramesh does not tell.
    tags.retain(|name, _| !name.starts_with("netra."));
    let flags = u8::try_from(span.flags).unwrap_or(u8::MAX);
    let (trace, parent) = (span.trace_id, span.parent_id);
    let own = Context { trace, span: span.span_id, parent, flags };
    if tags != wanted || span.name != name || context.is_some_and(|context| context != own) {
        return Err(format!("{span:#?}\nhas to be {name}, {context:?}, {wanted:#?}"));
    }
    Ok(())
}

fn edits(recording: &Recording) -> Edits<'_> {
    let base = if recording.is_outbound { Edits::OUTBOUND } else { Edits::INBOUND };
    let set = |name: &str, default| {
        recording.env.iter().find(|(key, _)| key == name).map_or(default, |(_, value)| &**value)
    };
    Edits {
        id_name: set("NETRA_HTTP_REQUEST_ID_HEADER_NAME", base.id_name),
        source: (
            set("NETRA_HTTP_X_SOURCE_HEADER_NAME", base.source.0),
            set("NETRA_HTTP_X_SOURCE_VALUE", base.source.1),
        ),
        ignored: match set("NETRA_HTTP_TRACING_IGNORED_PATHS", "") {
            "" => &[],
            paths => {
                assert_eq!(paths, "/health,/live");
                &["/health", "/live"]
            }
        },
        flags: u8::from(set("JAEGER_SAMPLER_PARAM", "1") == "1"),
        ..base
    }
}

/// Tags of HTTP_HEADER_TAG_MAP and HTTP_COOKIE_TAG_MAP, as the recordings set them.
fn mapped_tags(recording: &Recording, request: &Request) -> BTreeMap<String, serde_json::Value> {
    let mut tags = BTreeMap::new();
    for (name, map) in recording.env.iter().filter(|(name, _)| name.ends_with("_TAG_MAP")) {
        for (key, tag) in map.split(',').map(|pair| pair.split_once(':').expect("a pair")) {
            let value = match name.contains("COOKIE") {
                false => request.head.value(key),
                true => request.head.value("cookie").and_then(|cookies| {
                    let mut pairs = cookies.split("; ").filter_map(|pair| pair.split_once('='));
                    pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
                }),
            };
            tags.extend(value.map(|value| (tag.to_owned(), value.into())));
        }
    }
    tags
}

/// Sets what came out beside what came out of netramesh.
fn compare(recording: &Recording, played: &Played) -> Result<(), String> {
    let row = row_of(&recording.case);
    let given = &recording.client_sent;
    let requests = |servers: &[(u16, Vec<u8>)]| -> Vec<String> {
        let busy = servers.iter().filter(|server| !server.1.is_empty());
        busy.map(|(port, bytes)| format!("to {port}: {:#?}", normal(bytes, given, None))).collect()
    };
    let methods = methods(given);
    let response = |bytes: &[u8]| normal(bytes, given, Some(&methods)).join("\n");
    let mut theirs: Vec<_> = recording.spans.iter().map(|s| normal_recorded(s, given)).collect();
    let mut ours: Vec<_> = played.spans.iter().map(|span| normal_of(span, given)).collect();
    theirs.sort();
    ours.sort();
    // Ends are compared where a server made one, or there was none.
    let made_end = recording
        .acts
        .iter()
        .any(|act| matches!(act, Act::Server(_, Do::Close | Do::Reset | Do::Finish)));
    let matters = made_end || REFUSED.contains(&&*recording.case);
    let end = |eof: bool| if !matters || eof { "an orderly end" } else { "no orderly end" };
    let pairs = [
        (
            In::Request,
            requests(&recording.servers).join("\n"),
            requests(&played.servers).join("\n"),
        ),
        (In::Response, response(&recording.client_received), response(&played.received)),
        (In::Spans, theirs.join("\n"), ours.join("\n")),
        (In::End, end(recording.client_saw_end).into(), end(played.end == Some(End::Eof)).into()),
        (In::Delay, format!("withheld: {}", recording.was_withheld), "withheld: false".into()),
    ];
    for (what, netramesh, netra) in pairs {
        let differs = netramesh != netra;
        if differs != row.differs.contains(&what) {
            let said = if differs { "differs, and no row says so" } else { "is the same" };
            return Err(format!("{what:?} {said}:\n{netramesh}\n--- netra:\n{netra}"));
        }
    }
    Ok(())
}

fn normal_of(span: &Span, given: &[u8]) -> String {
    let flags = u8::try_from(span.flags).unwrap_or(u8::MAX);
    let (trace, parent) = (span.trace_id, span.parent_id);
    let context = Context { trace, span: span.span_id, parent, flags };
    normal_span(&span.name, &context, &span.tags, given)
}
