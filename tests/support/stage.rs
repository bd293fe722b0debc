//! An application in the pod that asks through netra, and whom it may reach: what tests of routing
//! have in common.

use super::http::Edits;
use super::lockstep::{Peer, Server};
use super::matrix::{Cell, Findings};
use super::netra::{Backend, Netra, Setup, apply_rules};
use super::talk::PORT;
use super::world::{CLIENT_V4, World};

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// An application in the pod that asks, and whom it may reach.
pub struct Stage<'w> {
    netra: &'w Netra<'w>,
    /// Where requests go that nobody routes.
    pub original: Server,
    pub b: Server,
    pub c: Server,
    pub client: Peer,
}

impl<'w> Stage<'w> {
    pub fn new(world: &World, netra: &'w Netra<'w>) -> Result<Self, String> {
        let listen = |port| Server::listen(&world.client, CLIENT_V4, port);
        let (original, b, c) = (listen(PORT), listen(8091), listen(8092));
        let client = Peer::connect(&world.pod, (CLIENT_V4, PORT).into())?;
        Ok(Self { netra, original, b, c, client })
    }

    /// Everybody leaves.
    pub fn end(mut self) -> Result<(), String> {
        self.client.close();
        let servers = [&mut self.original, &mut self.b, &mut self.c];
        for peer in servers.into_iter().flat_map(|server| &mut server.peers) {
            peer.until(|peer| match peer.end {
                Some(_) => Ok(()),
                None => Err("an upstream is left open".into()),
            })?;
        }
        drop((self.original, self.b, self.c));
        self.netra.scrape_until("no connection is active", |scrape| scrape.active() == 0)
    }
}

pub fn ask(path: &str, lines: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: svc\r\n{lines}\r\n").into_bytes()
}

pub fn to(port: u16) -> String {
    format!("X-Route: other=1.2.3.4,svc={CLIENT_V4}:{port}\r\n")
}

/// `server` receives these requests on its last connection, and answers the last of them.
pub fn serve(server: &mut Server, client: &mut Peer, asks: &[u8]) -> Result<(), String> {
    server.expect(asks, &Edits::OUTBOUND, usize::MAX)?;
    let answered = client.received.len() + OK.len();
    server.last()?.send(OK.as_bytes())?;
    client.until(|client| match client.received.len() == answered {
        true => Ok(()),
        false => Err("the answer is withheld".into()),
    })
}

/// Runs a check with netra routing, in each cell.
pub fn in_cells(
    cells: &[Cell],
    prepare: impl Fn(Setup) -> Setup,
    check: impl Fn(&World, &Netra<'_>) -> Result<(), String>,
) {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells {
        let setup = Setup::new(*cell)
            .env("NETRA_HTTP_PORTS", format!("{PORT},8091,8092"))
            .env("NETRA_REPORTER", "none")
            .env("JAEGER_SAMPLER_TYPE", "const")
            .env("JAEGER_SAMPLER_PARAM", "1")
            .env("NETRA_HTTP_ROUTING_ENABLED", "true")
            .env("NETRA_HTTP_ROUTING_COOKIE_ENABLED", "true");
        let netra = Netra::start(&world, &prepare(setup));
        findings.check(cell, check(&world, &netra));
        findings.check(cell, netra.finish());
    }
    findings.conclude();
}
