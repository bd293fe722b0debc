//! A conversation through netra in lockstep, and what netra must make of it: the bytes, the spans,
//! the reason for which it stopped reading along.

use super::http::{Edits, Request, expected, shown};
use super::lockstep::{Peer, Server};
use super::matrix::{Cell, Findings};
use super::netra::{Backend, Netra, Setup, apply_rules};
use super::script::End;
use super::sink::{Sink, Span};
use super::world::{CLIENT_V4, POD_V4, World};

/// The port that is read as HTTP.
pub const PORT: u16 = 8080;

/// What somebody does next. All that was sent has arrived before.
#[derive(Clone, Debug)]
pub enum Turn {
    Client(Vec<u8>),
    Server(Vec<u8>),
    /// Says that no more will be sent; the other sees it.
    ClientFinishes,
    ServerFinishes,
    ClientCloses,
    ServerCloses,
    ClientAborts,
    ServerAborts,
}

pub fn client(bytes: impl AsRef<[u8]>) -> Turn {
    Turn::Client(bytes.as_ref().to_vec())
}

pub fn server(bytes: impl AsRef<[u8]>) -> Turn {
    Turn::Server(bytes.as_ref().to_vec())
}

/// What a span has to say: status (0 is none) and whether it is an error.
pub type Ended = (u16, bool);

#[derive(Clone, Debug)]
pub struct Talk {
    pub name: String,
    pub turns: Vec<Turn>,
    /// From this request on, bytes are bytes.
    pub raw_from: usize,
    /// Why the connection turns opaque.
    pub opaque: Option<&'static str>,
    /// The spans, in the order in which they end.
    pub spans: Vec<Ended>,
    pub is_outbound: bool,
}

impl Talk {
    pub fn new(name: impl ToString, turns: Vec<Turn>, spans: &[Ended]) -> Self {
        let (name, spans) = (name.to_string(), spans.to_vec());
        Self { name, turns, raw_from: usize::MAX, opaque: None, spans, is_outbound: false }
    }

    /// Opaque for this reason; requests from `raw_from` on are not read.
    pub fn opaque(mut self, raw_from: usize, reason: &'static str) -> Self {
        (self.raw_from, self.opaque) = (raw_from, Some(reason));
        self
    }

    /// What it sends is no request of HTTP/1, and is read all the same.
    pub fn raw(mut self) -> Self {
        self.raw_from = 0;
        self
    }

    pub fn outbound(mut self) -> Self {
        self.is_outbound = true;
        self
    }

    /// Plays it; gives back the requests as they went on, and their spans.
    pub fn play(
        &self,
        world: &World,
        netra: &Netra<'_>,
        sink: &Sink,
    ) -> Result<(Vec<Request>, Vec<Span>), String> {
        let before = netra.scrape();
        let requests = self.converse(world)?;
        netra.scrape_until("no connection is active", |scrape| scrape.active() == 0)?;
        let after = netra.scrape();
        let count = |name: &str, labels: &[(&str, &str)]| {
            after.sum(name, labels) - before.sum(name, labels)
        };
        let all = count("netra_opaque_total", &[]);
        let named =
            self.opaque.map_or(0, |reason| count("netra_opaque_total", &[("reason", reason)]));
        let wanted = u64::from(self.opaque.is_some());
        if (all, named) != (wanted, wanted) {
            return Err(format!("opaque {all} times, {named} times for {:?}", self.opaque));
        }
        let recorded = count("netra_spans_total", &[("result", "recorded")]);
        let spans = sink.take(usize::try_from(recorded).expect("a few"))?;
        let ended: Vec<Ended> = spans
            .iter()
            .map(|span| {
                let status = span.tag("http.status_code").parse().unwrap_or(0);
                (status, span.tag("error") == "true")
            })
            .collect();
        let sampled = requests.iter().filter(|r| r.context.is_some_and(|c| c.flags & 1 == 1));
        if ended != self.spans || sampled.clone().count() != spans.len() {
            return Err(format!("spans {ended:?}, not {:?}: {spans:#?}", self.spans));
        }
        for (request, span) in sampled.zip(&spans) {
            let context = request.context.expect("it is sampled");
            let is_its = (span.trace_id, span.span_id, span.parent_id)
                == (context.trace, context.span, context.parent)
                && span.name == request.operation(self.is_outbound)
                && span.tag("http.request_id") == request.id;
            if !is_its {
                return Err(format!("{span:#?}\nis not of {request:#?}"));
            }
        }
        Ok((requests, spans))
    }

    fn converse(&self, world: &World) -> Result<Vec<Request>, String> {
        let (from, to, address, edits) = match self.is_outbound {
            true => (&world.pod, &world.client, CLIENT_V4, Edits::OUTBOUND),
            false => (&world.client, &world.pod, POD_V4, Edits::INBOUND),
        };
        let mut server = Server::listen(to, address, PORT);
        let mut client = Peer::connect(from, (address, PORT).into())?;
        let (mut asked, mut answered, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for turn in &self.turns {
            let done = match turn {
                Turn::Client(bytes) => {
                    asked.extend_from_slice(bytes);
                    client.send(bytes)?;
                    server.expect(&asked, &edits, self.raw_from).map(|seen| requests = seen)
                }
                Turn::Server(bytes) => {
                    answered.extend_from_slice(bytes);
                    server.last()?.send(bytes)?;
                    client.expect(&answered)
                }
                Turn::ClientFinishes => {
                    client.finish();
                    server.last()?.expect_end(End::Eof)
                }
                Turn::ClientCloses => {
                    client.close();
                    server.last()?.expect_end(End::Eof)
                }
                Turn::ClientAborts => {
                    client.abort();
                    server.last()?.expect_end(End::Reset)
                }
                Turn::ServerFinishes => {
                    server.last()?.finish();
                    client.expect_end(End::Eof)
                }
                Turn::ServerCloses => {
                    server.last()?.close();
                    client.expect_end(End::Eof)
                }
                Turn::ServerAborts => {
                    server.last()?.abort();
                    client.expect_end(End::Reset)
                }
            };
            done.map_err(|what| format!("{}:\n{what}", named(turn)))?;
        }
        client.close();
        server.look();
        let upstream = server.last()?;
        if upstream.is_open() && upstream.end.is_none() {
            upstream.until(|peer| match peer.end {
                Some(_) => Ok(()),
                None => Err("the server does not see the client's end".into()),
            })?;
        }
        // Nothing was added behind what was checked.
        let (wanted, _) = expected(&asked, &upstream.received, &edits, self.raw_from)?;
        match upstream.received == wanted {
            true => Ok(requests),
            false => Err(format!("more came: {}", shown(&upstream.received))),
        }
    }
}

fn named(turn: &Turn) -> String {
    match turn {
        Turn::Client(bytes) => format!("client sends {}", shown(bytes)),
        Turn::Server(bytes) => format!("server sends {}", shown(bytes)),
        other => format!("{other:?}"),
    }
}

/// Plays all of them in each of the cells.
pub fn play_in(cells: &[Cell], talks: &[Talk]) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let sink = Sink::start(&world);
    let mut findings = Findings::default();
    for cell in cells {
        let setup = sink.wire(Setup::new(*cell)).env("NETRA_HTTP_PORTS", PORT);
        let netra = Netra::start(&world, &setup);
        for talk in talks {
            let played = talk.play(&world, &netra, &sink);
            if played.is_err() {
                sink.clear();
            }
            findings.check(format!("{cell} {}", talk.name), played.map(drop));
        }
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}
