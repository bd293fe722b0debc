//! A simulated kernel: virtual time, one seed, and every unkindness that the real ones have shown
//! us (`dataplane.md` section 10). The very same connection code runs on it.
//!
//! Faults: short receives and sends, EAGAIN with room left, resets before, between and after
//! bytes, completions in any order, cancels that miss, closes that take a while, spurious
//! readiness, pipes that fill by slots, no buffers, no pipes, no descriptors.

use super::{
    Close, Dialled, Event, Hop, Io, Polled, Token, Wait, When,
    sim_peer::{Answer, Arrival, Peer},
};
pub(crate) use super::{
    sim_chance::{Faults, Rng},
    sim_socket::{PIPE_BYTES, PIPE_SLOTS, SimPipe, Socket},
};
use crate::{
    buffers::BufferPool,
    look::TcpInfo,
    sys::{Fd, Nanos},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
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

impl Io for SimIo {
    type Pipe = SimPipe;

    fn now(&self) -> Nanos {
        self.now
    }

    fn turn(&mut self, _pool: &mut BufferPool, wait: Wait) -> io::Result<()> {
        self.accepts_this_turn = 4;
        self.now += 1_000;
        self.step();
        let until = match wait {
            Wait::Poll => self.now,
            Wait::AtMost(ns) => self.now.saturating_add(ns),
            Wait::Forever => Nanos::MAX,
        };
        loop {
            let mut news = self.news();
            if !news.is_empty() || self.acceptable() || self.woken || self.closing_listener {
                let mut rng = self.rng.borrow_mut();
                for i in (1..news.len()).rev() {
                    news.swap(i, usize::try_from(rng.below(i as u64 + 1)).unwrap());
                }
                drop(rng);
                self.turn = news.into();
                return Ok(());
            }
            match self.next_at().filter(|at| *at <= until) {
                Some(at) => {
                    self.now = at;
                    self.step();
                }
                None if until == Nanos::MAX => {
                    self.idle = true;
                    return Ok(());
                }
                None => {
                    self.now = self.now.max(until);
                    return Ok(());
                }
            }
        }
    }

    fn next(&mut self, pool: &mut BufferPool) -> Option<Event> {
        if std::mem::take(&mut self.woken) {
            return Some(Event::Woken);
        }
        if self.acceptable() && self.accepts_this_turn > 0 {
            self.accepts_this_turn -= 1;
            if self.chance(self.faults.accept_fails) {
                self.room = 0;
                // Out of descriptors while the listener closes: the rest of the queue goes with it.
                while self.closing_listener
                    && let Some(fd) = self.backlog.pop_front()
                {
                    self.discard(fd, Close::Reset);
                }
                return Some(Event::AcceptFailed(libc::EMFILE));
            }
            self.room = self.room.saturating_sub(1);
            return self.backlog.pop_front().map(Event::Accepted);
        }
        if self.closing_listener && self.backlog.is_empty() {
            self.listening = false;
        }
        if self.chance(self.faults.spurious)
            && let Some(event) = self.wake_up_spuriously()
        {
            return Some(event);
        }
        while let Some(key) = self.turn.pop_front() {
            if let Some(event) = self.event_of(key, pool) {
                return Some(event);
            }
        }
        None
    }

    fn poll(&mut self, _budget: Nanos) -> Polled {
        if self.news().is_empty() { Polled::Nothing } else { Polled::Found }
    }

    fn accept(&mut self, room: u32) {
        self.room = room;
    }

    fn close_listener(&mut self, room: u32) {
        self.closing_listener = true;
        while self.backlog.len() > room as usize {
            if let Some(fd) = self.backlog.pop_back() {
                self.discard(fd, Close::Reset);
            }
        }
    }

    fn listener_closed(&self) -> bool {
        !self.listening
    }

    fn local_addr(&self, _fd: Fd) -> io::Result<SocketAddr> {
        let ip = if self.outbound { [127, 0, 0, 1] } else { [10, 0, 0, 2] };
        Ok(SocketAddr::from((ip, 14956)))
    }

    fn original_dst(&self, fd: Fd, _local: SocketAddr) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 2], port_of(usize::try_from(fd).unwrap()))))
    }

    fn is_local(&self, _ip: IpAddr) -> bool {
        false
    }

    fn peer_addr(&self, _token: Token) -> io::Result<SocketAddr> {
        Err(failure(libc::ENOTCONN))
    }

    fn tcp_info(&self, _token: Token) -> io::Result<TcpInfo> {
        Err(failure(libc::ENOTCONN))
    }

    fn receive_early(&mut self, fd: Fd, into: &mut [u8]) -> io::Result<usize> {
        let fd = usize::try_from(fd).unwrap();
        let most = self.some(into.len());
        let socket = &mut self.sockets[fd];
        if socket.rx_reset {
            return Err(failure(libc::ECONNRESET));
        }
        if socket.rx.is_empty() {
            return if socket.rx_end { Ok(0) } else { Err(failure(libc::EAGAIN)) };
        }
        let len = most.min(socket.rx.len());
        for (slot, byte) in into.iter_mut().zip(socket.rx.drain(..len)) {
            *slot = byte;
        }
        Ok(len)
    }

    fn dial(&mut self, to: SocketAddr, _hop: Hop) -> io::Result<Dialled> {
        let elsewhere = self.elsewhere.get_mut(&to.port());
        let is_elsewhere = elsewhere.is_some();
        let (peer, answer) = match elsewhere {
            Some(make) => make(&mut self.rng.borrow_mut()),
            None => self.servers.remove(&to.port()).unwrap(),
        };
        let buffer = self.rng.borrow_mut().len(30_000) + 200;
        let mut socket = Socket::new(peer, buffer);
        socket.dial = match answer {
            Answer::RefusedAtOnce => return Err(failure(libc::ECONNREFUSED)),
            Answer::AtOnce => None,
            Answer::After(ns) => Some((self.now + ns, false)),
            Answer::RefusedAfter(ns) => Some((self.now + ns, true)),
            Answer::Silence => Some((Nanos::MAX, true)),
        };
        let connected = socket.dial.is_none();
        socket.peer.begin_at(self.now);
        if is_elsewhere {
            self.dialled.push((to.port(), self.sockets.len()));
        } else {
            self.upstreams.insert(usize::from(to.port()) - 1, self.sockets.len());
        }
        self.sockets.push(socket);
        Ok(Dialled { fd: Fd::try_from(self.sockets.len() - 1).unwrap(), connected })
    }

    fn local_hop(&mut self, _fd: Fd) {}

    fn discard(&mut self, fd: Fd, how: Close) {
        let socket = &mut self.sockets[usize::try_from(fd).unwrap()];
        assert!(!socket.closed, "closed twice: {fd}");
        socket.closed = true;
        (socket.tx_reset, socket.tx_end) = (how == Close::Reset, true);
    }

    fn open(&mut self, token: Token, fd: Fd) -> io::Result<()> {
        let key = token.key();
        if self.watched.len() <= key {
            self.watched.resize(key + 1, Watched { fd: -1, ..Watched::default() });
        }
        assert!(!self.watched[key].open && !self.watched[key].closing, "slot in use");
        self.watched[key] =
            Watched { fd, generation: token.generation, open: true, ..Watched::default() };
        Ok(())
    }

    fn dial_outcome(&mut self, token: Token) -> io::Result<()> {
        match self.socket(token).dial.take() {
            Some((_, true)) => Err(failure(libc::ECONNREFUSED)),
            _ => Ok(()),
        }
    }

    fn watch_silence(&mut self, token: Token) {
        let watched = self.watched[token.key()];
        if watched.open && watched.generation == token.generation {
            self.socket(token).is_watched = true;
        }
    }

    fn receive(&mut self, token: Token) {
        self.fd(token);
        let watched = &mut self.watched[token.key()];
        (watched.receiving, watched.pausing) = (true, false);
    }

    fn pause(&mut self, token: Token) -> When {
        self.fd(token);
        let late = self.chance(self.faults.late);
        let watched = &mut self.watched[token.key()];
        (watched.receiving, watched.pausing) = (false, late);
        if late { When::Later } else { When::Now }
    }

    fn watch_read(&mut self, token: Token) {
        self.fd(token);
        self.watched[token.key()].read = true;
    }

    fn watch_write(&mut self, token: Token) {
        self.fd(token);
        self.watched[token.key()].write = true;
    }

    fn send(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize> {
        let block = self.chance(self.faults.would_block);
        let most = self.some(bytes.len());
        let socket = self.socket(token);
        assert!(!socket.tx_end, "sent after the end");
        if socket.rx_reset {
            return Err(failure(libc::ECONNRESET));
        }
        let len = most.min(socket.room());
        if len == 0 || block {
            return Err(failure(libc::EAGAIN));
        }
        socket.push();
        socket.tx.extend(&bytes[..len]);
        Ok(len)
    }

    fn end_follows(&mut self, token: Token) -> bool {
        let socket = self.socket(token);
        socket.rx.is_empty() && socket.rx_end && !socket.rx_reset
    }

    fn send_before_end(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.send(token, bytes)?;
        // A kernel that takes only some sends them (tcp_sendmsg_locked: no MSG_MORE without room).
        if sent == bytes.len() {
            let socket = self.socket(token);
            let before = socket.tx.len() - sent;
            socket.corked.extend(socket.tx.drain(before..));
        }
        Ok(sent)
    }

    fn push(&mut self, token: Token) {
        self.socket(token).push();
    }

    fn send_pieces(&mut self, token: Token, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let whole: Vec<u8> = pieces.iter().flat_map(|p| p.iter().copied()).collect();
        self.send(token, &whole)
    }

    fn peek(&mut self, token: Token, into: &mut [u8]) -> io::Result<usize> {
        let most = self.some(into.len());
        let socket = self.socket(token);
        if socket.rx_reset {
            return Err(failure(libc::ECONNRESET));
        }
        if socket.rx.is_empty() {
            return if socket.rx_end { Ok(0) } else { Err(failure(libc::EAGAIN)) };
        }
        let len = most.min(socket.rx.len());
        for (slot, byte) in into.iter_mut().zip(socket.rx.iter().take(len)) {
            *slot = *byte;
        }
        Ok(len)
    }

    fn take(&mut self, token: Token, len: usize) -> io::Result<()> {
        self.socket(token).rx.drain(..len);
        Ok(())
    }

    fn shutdown_write(&mut self, token: Token) -> io::Result<()> {
        let socket = self.socket(token);
        assert!(!socket.tx_end, "shut twice");
        socket.push();
        socket.tx_end = true;
        if socket.rx_reset { Err(failure(libc::ENOTCONN)) } else { Ok(()) }
    }

    fn close(&mut self, token: Token, how: Close) -> When {
        let late = self.chance(self.faults.late);
        let socket = self.socket(token);
        assert!(!socket.closed, "closed twice: {token:?}");
        if how == Close::Orderly {
            socket.push();
        }
        assert!(socket.corked.is_empty(), "bytes lost that waited for an end: {token:?}");
        (socket.closed, socket.tx_end) = (!late, true);
        socket.tx_reset = how == Close::Reset;
        let watched = &mut self.watched[token.key()];
        (watched.open, watched.closing) = (false, late);
        if late { When::Later } else { When::Now }
    }

    fn pipe(&mut self, _bytes: u32) -> io::Result<SimPipe> {
        if self.chance(self.faults.no_pipe) {
            return Err(failure(libc::EMFILE));
        }
        Ok(SimPipe::default())
    }

    fn pipe_capacity(_pipe: &SimPipe) -> u32 {
        u32::try_from(PIPE_BYTES).unwrap()
    }

    fn fill(&mut self, token: Token, pipe: &SimPipe, len: usize) -> io::Result<usize> {
        let most = self.some(len);
        let socket = self.socket(token);
        let mut held = pipe.0.borrow_mut();
        if socket.rx_reset {
            return Err(failure(libc::ECONNRESET));
        }
        if socket.rx.is_empty() {
            return if socket.rx_end { Ok(0) } else { Err(failure(libc::EAGAIN)) };
        }
        // Each fill takes a slot, however small: a pipe can be full long before its bytes are.
        if held.1 >= PIPE_SLOTS {
            return Err(failure(libc::EAGAIN));
        }
        let len = most.min(socket.rx.len()).min(PIPE_BYTES - held.0.len());
        held.0.extend(socket.rx.drain(..len));
        held.1 += 1;
        Ok(len)
    }

    fn drain(&mut self, token: Token, pipe: &SimPipe, len: usize) -> io::Result<usize> {
        let mut held = pipe.0.borrow_mut();
        assert!(held.0.len() >= len, "more drained than filled");
        let bytes: Vec<u8> = held.0.iter().take(len).copied().collect();
        let sent = self.send(token, &bytes)?;
        held.0.drain(..sent);
        if held.0.is_empty() {
            held.1 = 0;
        }
        Ok(sent)
    }
}
