//! The simulated kernel's calls.

use super::{PIPE_BYTES, PIPE_SLOTS, SimIo, SimPipe, Socket, Watched, failure, port_of};
use crate::{
    buffers::BufferPool,
    io::{Close, Dialled, Event, Hop, Io, Polled, Token, Wait, When, sim_peer::Answer},
    links::LinkNames,
    sys::{Fd, Nanos, TcpInfo},
};
use std::{
    io::{self, IoSlice},
    net::IpAddr,
    net::SocketAddr,
};

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

    fn caller_of(&self, fd: Fd) -> io::Result<SocketAddr> {
        let (ip, port) = (if self.outbound { [10, 0, 0, 2] } else { [10, 0, 0, 1] }, 40_000);
        Ok(SocketAddr::from((ip, port + port_of(usize::try_from(fd).unwrap()))))
    }

    fn is_local(&self, ip: IpAddr) -> bool {
        self.outbound && ip.is_loopback()
    }

    fn is_link_of(&self, _ip: IpAddr, _links: &LinkNames) -> bool {
        false
    }

    fn peer_addr(&self, token: Token) -> io::Result<SocketAddr> {
        // Whoever has no socket has no peer: real backends look at another's, or at none.
        let _ = self.fd(token);
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

    fn receive_first(&mut self, token: Token, into: &mut [u8]) -> io::Result<usize> {
        let fd = self.fd(token);
        self.receive_early(Fd::try_from(fd).unwrap(), into)
    }

    fn dial(&mut self, to: SocketAddr, hop: Hop) -> io::Result<Dialled> {
        let elsewhere = self.elsewhere.get_mut(&to.port());
        let is_elsewhere = elsewhere.is_some();
        let (peer, answer) = match elsewhere {
            Some(make) => make(&mut self.rng.borrow_mut()),
            None => self.servers.remove(&to.port()).unwrap(),
        };
        let answer = self.answers.get(&to.ip()).copied().unwrap_or(answer);
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
        socket.keeps_acknowledgements = hop.has_bytes;
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

    fn exchange(&mut self, one: Token, other: Token) -> bool {
        let keys = [one.key(), other.key()];
        if self.watched.len() <= keys[0].max(keys[1]) {
            let vacant = Watched { fd: -1, ..Watched::default() };
            self.watched.resize(keys[0].max(keys[1]) + 1, vacant);
        }
        let is_busy = |key: usize| self.watched[key].pausing || self.watched[key].closing;
        if keys.into_iter().any(is_busy) || self.chance(self.faults.late) {
            return false;
        }
        self.watched.swap(keys[0], keys[1]);
        for token in [one, other] {
            self.watched[token.key()].generation = token.generation;
        }
        true
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

    fn acknowledge_at_once(&mut self, token: Token) {
        let watched = self.watched[token.key()];
        if watched.open && watched.generation == token.generation {
            self.socket(token).keeps_acknowledgements = false;
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
        socket.sends += 1;
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
            assert!(!socket.keeps_acknowledgements, "a server waited for them: {token:?}");
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
