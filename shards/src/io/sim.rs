//! A simulated kernel: virtual time, one seed, and every unkindness that the real ones have shown
//! us. The very same connection code runs on it.
//!
//! Faults: short receives and sends, EAGAIN with room left, resets before, between and after
//! bytes, completions in any order, cancels that miss, closes that take a while, spurious
//! readiness, pipes that fill by slots, no buffers, no pipes, no descriptors.

mod calls;

use super::{
    Event, Token,
    sim_peer::{Answer, Arrival, Peer},
};
pub(crate) use super::{
    sim_chance::{Faults, Rng},
    sim_socket::{PIPE_BYTES, PIPE_SLOTS, SimPipe, Socket},
};
use crate::{
    buffers::BufferPool,
    sys::{Fd, Nanos},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    io,
    net::IpAddr,
};

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    fd: Fd,
    generation: u32,
    open: bool,
    receiving: bool,
    pausing: bool,
    read: bool,
    write: bool,
    closing: bool,
    /// That it was reset has been told though nobody read.
    told: bool,
}

/// Makes the server that a dial reaches, and says how it answers.
pub(crate) type Elsewhere = fn(&mut Rng) -> (Peer, Answer);

/// The simulated kernel.
#[derive(Debug)]
pub(crate) struct SimIo {
    rng: RefCell<Rng>,
    faults: Faults,
    now: Nanos,
    arrivals: VecDeque<Arrival>,
    /// Servers of connections that were accepted and not dialled yet, by port.
    servers: BTreeMap<u16, (Peer, Answer)>,
    backlog: VecDeque<Fd>,
    pub(crate) sockets: Vec<Socket>,
    /// Downstream sockets, in the order of their arrival.
    pub(crate) arrived: Vec<usize>,
    /// Upstream of each downstream, by descriptor.
    upstreams: BTreeMap<usize, usize>,
    /// Connections come from this host and go to another.
    outbound: bool,
    /// Servers that anybody may dial, by port.
    elsewhere: BTreeMap<u16, Elsewhere>,
    /// How they answer at these addresses, whatever the port.
    pub(crate) answers: BTreeMap<IpAddr, Answer>,
    /// Sockets of dials to them, with the port.
    pub(crate) dialled: Vec<(u16, usize)>,
    watched: Vec<Watched>,
    /// Sockets to look at in this turn, in random order.
    turn: VecDeque<usize>,
    room: u32,
    accepts_this_turn: u32,
    listening: bool,
    closing_listener: bool,
    woken: bool,
    /// Nothing can ever happen again.
    pub(crate) idle: bool,
}

impl SimIo {
    pub(crate) fn new(mut rng: Rng, faults: Faults, mut arrivals: Vec<Arrival>) -> Self {
        arrivals.sort_by_key(|a| a.at);
        let _ = rng.next();
        Self {
            rng: RefCell::new(rng),
            faults,
            now: 1,
            arrivals: arrivals.into(),
            servers: BTreeMap::new(),
            backlog: VecDeque::new(),
            sockets: Vec::new(),
            arrived: Vec::new(),
            upstreams: BTreeMap::new(),
            outbound: false,
            elsewhere: BTreeMap::new(),
            answers: BTreeMap::new(),
            dialled: Vec::new(),
            watched: Vec::new(),
            turn: VecDeque::new(),
            room: 0,
            accepts_this_turn: 0,
            listening: true,
            closing_listener: false,
            woken: false,
            idle: false,
        }
    }

    /// The same with connections that leave this host, where requests may be sent elsewhere.
    pub(crate) fn outbound(
        rng: Rng,
        faults: Faults,
        arrivals: Vec<Arrival>,
        elsewhere: BTreeMap<u16, Elsewhere>,
    ) -> Self {
        Self { outbound: true, elsewhere, ..Self::new(rng, faults, arrivals) }
    }

    /// The next connection to arrive.
    pub(crate) fn arrival(&mut self) -> &mut Arrival {
        self.arrivals.front_mut().unwrap()
    }

    /// Delivers what another thread's eventfd would.
    pub(crate) fn wake(&mut self) {
        self.woken = true;
    }

    /// The upstream socket that was dialled for a downstream one.
    pub(crate) fn upstream_of(&self, downstream: usize) -> Option<usize> {
        self.upstreams.get(&downstream).copied()
    }

    fn chance(&self, percent: u64) -> bool {
        self.rng.borrow_mut().chance(percent)
    }

    fn some(&self, most: usize) -> usize {
        if self.chance(self.faults.short) { self.rng.borrow_mut().len(most) } else { most }
    }

    fn socket(&mut self, token: Token) -> &mut Socket {
        let fd = self.fd(token);
        &mut self.sockets[fd]
    }

    fn fd(&self, token: Token) -> usize {
        let watched = self.watched[token.key()];
        assert!(watched.open && watched.generation == token.generation, "not open: {token:?}");
        usize::try_from(watched.fd).unwrap()
    }

    /// Lets arrivals arrive and peers act, up to now.
    fn step(&mut self) {
        while self.arrivals.front().is_some_and(|a| a.at <= self.now) {
            let Some(arrival) = self.arrivals.pop_front() else { break };
            let buffer = self.rng.borrow_mut().len(30_000) + 200;
            let fd = self.sockets.len();
            self.arrived.push(fd);
            self.sockets.push(Socket::new(arrival.client, buffer));
            let port = port_of(fd);
            self.servers.insert(port, (arrival.server, arrival.answer));
            self.backlog.push_back(Fd::try_from(fd).unwrap());
        }
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            if socket.dial.is_none() {
                Peer::act(socket, self.now, &mut self.rng.borrow_mut());
            }
        }
    }

    /// When the world does something next.
    fn next_at(&self) -> Option<Nanos> {
        let peers = self.sockets.iter().filter_map(|s| match s.dial {
            Some((at, _)) => (at > self.now && at < Nanos::MAX).then_some(at),
            None => s.peer.next_at(s),
        });
        let arrival = self.arrivals.front().map(|a| a.at);
        peers.chain(arrival).filter(|at| *at > self.now).min()
    }

    fn dial_answered(&self, socket: &Socket) -> bool {
        socket.dial.is_none_or(|(at, _)| at <= self.now)
    }

    /// Whether a socket has something to tell.
    fn has_news(&self, watched: &Watched) -> bool {
        let Ok(fd) = usize::try_from(watched.fd) else { return false };
        if watched.closing || (watched.open && watched.pausing) {
            return true;
        }
        if !watched.open {
            return false;
        }
        let socket = &self.sockets[fd];
        let answered = self.dial_answered(socket);
        ((watched.receiving || watched.read) && socket.readable() && socket.dial.is_none())
            || (watched.write && answered && (socket.room() > 0 || socket.rx_reset))
            || (socket.rx_reset && socket.dial.is_none() && !watched.told)
    }

    fn news(&self) -> Vec<usize> {
        (0..self.watched.len()).filter(|key| self.has_news(&self.watched[*key])).collect()
    }

    fn acceptable(&self) -> bool {
        self.listening && !self.backlog.is_empty() && (self.room > 0 || self.closing_listener)
    }

    /// One socket's event, if it still has one.
    fn event_of(&mut self, key: usize, pool: &mut BufferPool) -> Option<Event> {
        let watched = self.watched[key];
        let token = Token::of(key, watched.generation);
        if watched.closing {
            self.watched[key].closing = false;
            self.sockets[usize::try_from(watched.fd).ok()?].closed = true;
            return Some(Event::Closed(token));
        }
        if !watched.open || !self.has_news(&watched) {
            return None;
        }
        let fd = usize::try_from(watched.fd).ok()?;
        if watched.write && self.dial_answered(&self.sockets[fd]) && self.chance(70) {
            let socket = &self.sockets[fd];
            if socket.room() > 0 || socket.rx_reset {
                self.watched[key].write = false;
                return Some(Event::Writable(token));
            }
        }
        if watched.read && self.sockets[fd].readable() {
            self.watched[key].read = false;
            return Some(Event::Readable(token));
        }
        // A cancel may miss: bytes still come for a while after a pause was asked for.
        let misses = watched.pausing && self.chance(self.faults.late);
        if (watched.receiving || misses) && self.sockets[fd].readable() {
            return self.receive_event(key, fd, token, pool);
        }
        if watched.pausing && !misses {
            self.watched[key].pausing = false;
            return Some(Event::Paused(token));
        }
        if self.sockets[fd].rx_reset && !watched.receiving && !watched.read {
            self.watched[key].told = true;
            return Some(Event::Failed(token, libc::ECONNRESET));
        }
        None
    }

    fn receive_event(
        &mut self,
        key: usize,
        fd: usize,
        token: Token,
        pool: &mut BufferPool,
    ) -> Option<Event> {
        let stop = |watched: &mut Watched| (watched.receiving, watched.pausing) = (false, false);
        if self.sockets[fd].rx_reset && (self.sockets[fd].rx.is_empty() || self.chance(50)) {
            self.sockets[fd].rx.clear();
            stop(&mut self.watched[key]);
            return Some(Event::Failed(token, libc::ECONNRESET));
        }
        if self.sockets[fd].rx.is_empty() {
            stop(&mut self.watched[key]);
            return Some(Event::Ended(token));
        }
        let buffer = if self.chance(self.faults.no_buffer) { None } else { pool.lend() };
        let Some(buffer) = buffer else {
            if self.watched[key].pausing {
                return None;
            }
            stop(&mut self.watched[key]);
            return Some(Event::Starved(token));
        };
        let most = self.sockets[fd].rx.len().min(pool.room(buffer).len());
        let len = self.some(most);
        for (slot, byte) in pool.room(buffer).iter_mut().zip(self.sockets[fd].rx.drain(..len)) {
            *slot = byte;
        }
        pool.set_filled(buffer, u32::try_from(len).unwrap());
        Some(Event::Received(token, buffer))
    }

    fn wake_up_spuriously(&mut self) -> Option<Event> {
        let key = usize::try_from(self.rng.borrow_mut().next() % (self.watched.len() as u64 + 1));
        let watched = self.watched.get_mut(key.ok()?)?;
        let fd = usize::try_from(watched.fd).ok()?;
        if watched.open && watched.write && self.sockets[fd].dial.is_none() {
            watched.write = false;
            return Some(Event::Writable(Token::of(key.ok()?, watched.generation)));
        }
        None
    }
}

/// The port that a connection was going to, which tells its server.
fn port_of(downstream: usize) -> u16 {
    u16::try_from(downstream + 1).unwrap()
}

fn failure(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
