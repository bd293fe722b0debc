//! A client that does as it should, beside others that do not.

use super::helper::{ANSWER, Helper, Role};
use super::script;
use super::world::{Namespace, POD_V4, World};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Where the hostile and the others go.
#[derive(Debug)]
pub struct Servers {
    /// An HTTP port.
    pub answer: Helper,
    pub echo: Helper,
    pub blast: Helper,
    pub stall: Helper,
}

impl Servers {
    pub fn start(world: &World) -> Self {
        let [answer, echo, blast, stall] = [Role::Answer, Role::Echo, Role::Blast, Role::Stall]
            .map(|role| Helper::spawn(&world.pod, POD_V4, role));
        Self { answer, echo, blast, stall }
    }
}

/// A client that does as it should, all along: on two connections that stay. Nothing of it may be
/// lost, and nothing may take long.
#[derive(Debug)]
pub struct Good<'s> {
    is_over: &'s AtomicBool,
    pub turns: AtomicU64,
    slowest_us: AtomicU64,
}

impl<'s> Good<'s> {
    pub fn new(is_over: &'s AtomicBool) -> Self {
        Self { is_over, turns: AtomicU64::new(0), slowest_us: AtomicU64::new(0) }
    }

    pub fn run(&self, from: &Namespace, servers: &Servers) -> Result<(), String> {
        let dial = |to: SocketAddr| script::connect(from, to).map_err(|e| format!("dial: {e}"));
        let (mut http, mut raw) = (dial(servers.answer.address)?, dial(servers.echo.address)?);
        while !self.is_over.load(Relaxed) {
            let begun = Instant::now();
            ask(&mut http).map_err(|error| format!("a good request: {error}"))?;
            turn(&mut raw, b"x").map_err(|error| format!("a good byte: {error}"))?;
            let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.slowest_us.fetch_max(took, Relaxed);
            self.turns.fetch_add(1, Relaxed);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub fn words(&self) -> String {
        let (turns, slowest) = (self.turns.load(Relaxed), self.slowest_us.load(Relaxed));
        format!("{turns} turns, the slowest {} ms", slowest / 1000)
    }
}

/// One request, one answer.
pub fn ask(peer: &mut TcpStream) -> std::io::Result<()> {
    peer.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")?;
    expect(peer, ANSWER)
}

/// The same bytes there and back.
pub fn turn(peer: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    peer.write_all(bytes)?;
    expect(peer, bytes)
}

pub fn expect(peer: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut came = vec![0; bytes.len()];
    peer.read_exact(&mut came)?;
    if came == bytes { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}
