//! The start-up probe: whether io_uring really works here, under the live seccomp profile and the
//! live limits, before anything is promised.

use crate::{
    buffers::BufferPool,
    config::Limits,
    driver::Driver,
    io::{Event, Hop, Io, Side, Token, Wait, kernel::tuning, ring::RingIo},
    sys::{self, ring::Refused, socket},
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

/// The longest that any step of the probe may take.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Ports for a listener where the kernel has none to choose.
const PORTS: std::ops::Range<u16> = 14_900..14_956;
const GREETING: &[u8] = b"netra";

/// Sets up a ring, accepts a connection on loopback and receives a few bytes with it.
pub(crate) fn io_uring(limits: &Limits) -> Result<Driver, Refused> {
    let waker = sys::eventfd().map_err(|source| Refused { step: "eventfd", source })?;
    let probed = probe(limits, waker);
    sys::close(waker);
    probed
}

fn probe(limits: &Limits, waker: sys::Fd) -> Result<Driver, Refused> {
    let refused = |step| move |source| Refused { step, source };
    let mut pool = BufferPool::new(32, 4096).map_err(refused("probe memory"))?;
    let listener = listen(limits).map_err(refused("probe listener"))?;
    let mut ring = RingIo::new(listener, waker, &pool, limits)?;
    ring.accept(1);
    let port = socket::local_addr(listener).map_err(refused("probe listener"))?.port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let hop = Hop { is_local: true, has_bytes: false, source: None };
    let client = ring.dial(to, hop).map_err(refused("probe connection"))?.fd;
    let heard = converse(&mut ring, &mut pool, client);
    sys::close(client);
    heard.map(|()| ring.driver())
}

/// A listener on some port: of the kernel's choice, or, where all of those are taken for a while by
/// connections that have ended, one that the kernel gives to nobody.
fn listen(limits: &Limits) -> io::Result<sys::Fd> {
    let listen = |port| socket::listen(port, tuning(limits));
    listen(0).or_else(|error| {
        let mut others = PORTS.filter(|port| socket::port_is_free(*port).is_ok());
        others.find_map(|port| listen(port).ok()).ok_or(error)
    })
}

/// Accepts the client, hears what it says, and closes.
fn converse(ring: &mut RingIo, pool: &mut BufferPool, client: sys::Fd) -> Result<(), Refused> {
    let refused = |step| move |source| Refused { step, source };
    let token = Token { slot: 0, generation: 1, side: Side::Downstream };
    let until = ring.now() + PATIENCE_NS;
    let mut step = "accept";
    while ring.now() < until {
        ring.turn(pool, Wait::AtMost(PATIENCE_NS)).map_err(refused("io_uring_enter"))?;
        while let Some(event) = ring.next(pool) {
            match event {
                Event::Accepted(fd) => {
                    ring.open(token, fd).map_err(refused(step))?;
                    step = "multishot receive";
                    ring.receive(token);
                    socket::send(client, GREETING).map_err(refused("probe send"))?;
                }
                Event::Received(_, buffer) => {
                    let heard = pool.bytes(buffer) == GREETING;
                    pool.give_back(buffer);
                    ring.close(token, crate::io::Close::Orderly);
                    return if heard { Ok(()) } else { Err(failure(step, libc::EINVAL)) };
                }
                Event::AcceptFailed(e) | Event::Failed(_, e) => return Err(failure(step, e)),
                _ => {}
            }
        }
    }
    Err(failure(step, libc::ETIMEDOUT))
}

fn failure(step: &'static str, errno: i32) -> Refused {
    Refused { step, source: io::Error::from_raw_os_error(errno) }
}
