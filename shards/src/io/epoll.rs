//! The epoll backend: edge-triggered readiness turned into the same events as io_uring's
//! completions. One batch of readiness a turn; each ready socket is received from in its turn,
//! into the buffer that was returned last.

use super::{
    ACCEPTS_AHEAD, Close, Event, Io, Polled, Token, Wait, When, errno, kernel,
    kernel::{Kernel, plain_calls},
    table::{Numbered, Table},
    would_block,
};
use crate::{
    buffers::BufferPool,
    config::Limits,
    sys::{
        self, Fd, Nanos,
        epoll::{ERROR, Epoll, IN, Interest, OUT, READ_ON, URGENT, is_end},
        socket,
    },
};
use std::{collections::VecDeque, io, net::SocketAddr};

/// Events taken from the kernel in one call.
const BATCH: usize = 256;
/// Receives in one turn: then timers and accepts have theirs.
const RECEIVES_PER_TURN: u32 = 256;

/// `data` of the listener and the eventfd; sockets have registration and key.
const LISTENER: u64 = u64::MAX;
const WAKER: u64 = u64::MAX - 1;

#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    fd: Fd,
    generation: u32,
    /// Its number in `data`, which stays with the socket where tokens are exchanged.
    number: u32,
    /// Tells apart the sockets that were opened under one token: an upstream may be changed while
    /// an event of the old one waits in the batch.
    registration: u32,
    open: bool,
    /// Receives are wanted.
    receiving: bool,
    watching_read: bool,
    watching_write: bool,
    /// The kernel said readable, and no call has said otherwise since.
    readable: bool,
    /// The end of the stream, an error or an urgent byte is behind the bytes: read on.
    read_on: bool,
    /// Registered for EPOLLOUT too.
    both: bool,
    /// The end of the stream is behind the bytes that are there, and no urgent byte between.
    ends: bool,
    /// All bytes before it have been received.
    ended: bool,
    /// In the queue of ready sockets.
    queued: bool,
    /// That it had an urgent byte has been told.
    urgent: bool,
}

impl Numbered for Watch {
    fn number(&mut self) -> &mut u32 {
        &mut self.number
    }

    fn generation(&mut self) -> &mut u32 {
        &mut self.generation
    }
}

/// epoll as an [`Io`].
pub(crate) struct EpollIo {
    kernel: Kernel,
    epoll: Epoll,
    waker: Fd,
    table: Table<Watch>,
    /// Numbers of sockets that are ready.
    ready: VecDeque<u32>,
    /// Events of the last batch not yet looked at: next, count.
    batch: (usize, usize),
    /// The listener is watched; and the kernel said that its queue holds connections.
    accepting: bool,
    acceptable: bool,
    closing: bool,
    /// Connections that may still be accepted.
    room: u32,
    /// The connection that was accepted last, and who made it.
    accepted: Option<(Fd, SocketAddr)>,
    /// A socket that has been found with an urgent byte.
    urgent: Option<Token>,
    receives_left: u32,
    accepts_left: u32,
    /// Accepts in one turn, as many as lately found a connection: one more costs a call that finds
    /// none.
    accepts_per_turn: u32,
    /// The last turn took that many, so there may be more.
    accepts_used_up: bool,
}

impl EpollIo {
    /// A backend that accepts from `listener` and is woken by the eventfd `waker`. It owns the
    /// listener; the waker must outlive it.
    pub(crate) fn new(listener: Fd, waker: Fd, limits: &Limits) -> io::Result<Self> {
        let epoll = Epoll::new(BATCH)?;
        epoll.add(waker, Interest::Level, WAKER)?;
        Ok(Self {
            kernel: Kernel::new(listener, limits),
            epoll,
            waker,
            table: Table::default(),
            ready: VecDeque::new(),
            batch: (0, 0),
            accepting: false,
            acceptable: false,
            closing: false,
            room: 0,
            accepted: None,
            urgent: None,
            receives_left: 0,
            accepts_left: 0,
            accepts_per_turn: 1,
            accepts_used_up: false,
        })
    }

    fn watch(&mut self, token: Token) -> Option<&mut Watch> {
        self.table.get_mut(token.key()).filter(|w| w.open && w.generation == token.generation)
    }

    fn fd(&self, token: Token) -> Fd {
        self.table[token.key()].fd
    }

    /// Registers a socket anew: what it is ready for already is told again.
    fn rearm(&mut self, token: Token, interest: Interest) {
        let Watch { number, registration, .. } = self.table[token.key()];
        let data = pack(number, registration);
        let changed = self.epoll.modify(self.fd(token), interest, data);
        // Only an fd that is not registered fails (EBADF, ENOENT): a bug of ours.
        debug_assert!(changed.is_ok(), "an unregistered socket: {changed:?}");
    }

    fn queue(&mut self, key: usize) {
        let watch = &mut self.table[key];
        if !std::mem::replace(&mut watch.queued, true) {
            self.ready.push_back(watch.number);
        }
    }

    /// Takes in one event of the batch; gives it on where it is one at once.
    fn notice(&mut self, data: u64, conditions: u32) -> Option<Event> {
        if data == LISTENER {
            self.acceptable = true;
            if std::mem::take(&mut self.accepts_used_up) {
                self.accepts_per_turn = (2 * self.accepts_per_turn).min(ACCEPTS_AHEAD);
                self.accepts_left = self.accepts_per_turn;
            }
            return None;
        }
        if data == WAKER {
            sys::eventfd_clear(self.waker);
            return Some(Event::Woken);
        }
        let (number, registration) = unpack(data);
        let key = self.table.key(number);
        let watch = self.table.get_mut(key)?;
        if !watch.open || watch.registration != registration {
            return None;
        }
        let generation = watch.generation;
        let mut wanted = false;
        if conditions & IN != 0 {
            watch.readable = true;
            watch.read_on |= conditions & READ_ON != 0;
            watch.ends |= is_end(conditions);
            wanted = watch.receiving || watch.watching_read;
        }
        if conditions & URGENT != 0 && !std::mem::replace(&mut watch.urgent, true) {
            self.urgent = Some(Token::of(key, generation));
        }
        let writable = conditions & OUT != 0 && std::mem::take(&mut watch.watching_write);
        // Nobody reads or writes now, so nobody else would see a reset.
        let unseen = conditions & ERROR != 0 && !wanted && !writable;
        if unseen && let Some(error) = socket::error_of(watch.fd) {
            return Some(Event::Failed(Token::of(key, generation), error));
        }
        if wanted {
            self.queue(key);
        }
        writable.then(|| Event::Writable(Token::of(key, generation)))
    }

    /// There is work that no wait needs to bring.
    fn is_busy(&self) -> bool {
        let closing = self.closing && self.kernel.listener.is_some();
        !self.ready.is_empty() || (self.acceptable && self.accepting) || closing
    }

    fn take_connection(&mut self) -> Option<Event> {
        let listener = self.kernel.listener?;
        if self.room == 0 {
            self.kernel.close_listener();
            return None;
        }
        self.accepts_left = self.accepts_left.saturating_sub(1);
        self.room = self.room.saturating_sub(1);
        match socket::accept(listener) {
            Ok((fd, caller)) => {
                self.accepted = caller.map(|caller| (fd, caller));
                if self.accepts_left == 0 && !self.closing {
                    // Where there are more, the listener tells so in the next wait.
                    (self.acceptable, self.accepts_used_up) = (false, true);
                }
                Some(Event::Accepted(fd))
            }
            // The client left the queue; others may wait behind it.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => None,
            Err(e) => {
                self.acceptable = false;
                let taken = self.accepts_per_turn.saturating_sub(self.accepts_left + 1);
                self.accepts_per_turn = taken.max(1);
                if self.closing {
                    self.kernel.close_listener();
                }
                (!would_block(&e)).then(|| Event::AcceptFailed(errno(&e)))
            }
        }
    }

    /// Receives from one ready socket; nothing when it had nothing to say after all.
    fn take_bytes(&mut self, key: usize, pool: &mut BufferPool) -> Option<Event> {
        let watch = &mut self.table[key];
        let token = Token::of(key, watch.generation);
        if !watch.open || !watch.readable {
            return None;
        }
        if std::mem::take(&mut watch.watching_read) {
            return Some(Event::Readable(token));
        }
        if !watch.receiving {
            return None;
        }
        if watch.ended {
            (watch.receiving, watch.readable) = (false, false);
            return Some(Event::Ended(token));
        }
        let Some(buffer) = pool.lend() else {
            watch.receiving = false;
            return Some(Event::Starved(token));
        };
        self.receives_left = self.receives_left.saturating_sub(1);
        let room = pool.room(buffer);
        let size = room.len();
        match socket::receive(watch.fd, room) {
            Ok(0) => {
                pool.give_back(buffer);
                (watch.receiving, watch.readable) = (false, false);
                Some(Event::Ended(token))
            }
            Ok(n) => {
                pool.set_filled(buffer, u32::try_from(n).unwrap_or(u32::MAX));
                // A short read has emptied the socket, unless something waits behind the bytes.
                watch.readable = n == size || watch.read_on;
                watch.ended = watch.ends && n < size;
                if watch.ended {
                    // Nothing of another socket comes between the last bytes and the end.
                    watch.queued = true;
                    self.ready.push_front(watch.number);
                } else if watch.readable {
                    self.queue(key);
                }
                Some(Event::Received(token, buffer))
            }
            Err(e) => {
                pool.give_back(buffer);
                (watch.readable, watch.read_on) = (false, false);
                if would_block(&e) {
                    return None;
                }
                watch.receiving = false;
                Some(Event::Failed(token, errno(&e)))
            }
        }
    }
}

fn pack(number: u32, registration: u32) -> u64 {
    u64::from(registration) << 32 | u64::from(number)
}

fn unpack(data: u64) -> (usize, u32) {
    ((data & 0xffff_ffff) as usize, u32::try_from(data >> 32).unwrap_or(u32::MAX))
}

impl Io for EpollIo {
    plain_calls!();

    fn turn(&mut self, _pool: &mut BufferPool, wait: Wait) -> io::Result<()> {
        let accepts = if self.closing { ACCEPTS_AHEAD } else { self.accepts_per_turn };
        (self.receives_left, self.accepts_left) = (RECEIVES_PER_TURN, accepts);
        if self.batch.0 < self.batch.1 {
            return Ok(());
        }
        let timeout = match wait {
            _ if self.is_busy() => Some(0),
            Wait::Poll => Some(0),
            Wait::Forever => None,
            Wait::AtMost(ns) => Some(ns),
        };
        self.batch = (0, self.epoll.wait(timeout)?);
        Ok(())
    }

    fn next(&mut self, pool: &mut BufferPool) -> Option<Event> {
        while self.batch.0 < self.batch.1 && self.urgent.is_none() {
            let (data, conditions) = self.epoll.event(self.batch.0);
            self.batch.0 += 1;
            if let Some(event) = self.notice(data, conditions) {
                return Some(event);
            }
        }
        if let Some(token) = self.urgent.take() {
            return Some(Event::Urgent(token));
        }
        while self.receives_left > 0 {
            let Some(number) = self.ready.pop_front() else { break };
            let key = self.table.key(number as usize);
            self.table[key].queued = false;
            if let Some(event) = self.take_bytes(key, pool) {
                return Some(event);
            }
        }
        while (self.acceptable && self.room > 0 || self.closing)
            && self.kernel.listener.is_some()
            && self.accepts_left > 0
        {
            if let Some(event) = self.take_connection() {
                return Some(event);
            }
            if !self.closing && !self.acceptable {
                break;
            }
        }
        None
    }

    fn poll(&mut self, budget: Nanos) -> Polled {
        if self.is_busy() {
            return Polled::AtOnce;
        }
        let until = self.now() + budget;
        let mut polled = Polled::AtOnce;
        loop {
            match self.epoll.wait(Some(0)) {
                Ok(0) => {}
                Ok(n) => {
                    self.batch = (0, n);
                    return polled;
                }
                // The turn's own wait fails, too, and reports it.
                Err(_) => return Polled::AtOnce,
            }
            if self.now() >= until {
                return Polled::Nothing;
            }
            polled = Polled::Found;
            std::hint::spin_loop();
        }
    }

    fn accept(&mut self, room: u32) {
        self.room = room;
        let on = room > 0;
        let Some(listener) = self.kernel.listener else { return };
        if on == self.accepting || self.closing {
            return;
        }
        let changed = if on {
            self.epoll.add(listener, Interest::Level, LISTENER)
        } else {
            self.epoll.remove(listener)
        };
        if changed.is_ok() {
            self.accepting = on;
        }
    }

    fn close_listener(&mut self, room: u32) {
        self.accept(0);
        self.room = room;
        self.closing = self.kernel.listener.is_some();
    }

    fn open(&mut self, token: Token, fd: Fd) -> io::Result<()> {
        let key = token.key();
        self.table.grow(key);
        let Watch { queued, registration, number, .. } = self.table[key];
        let (generation, registration) = (token.generation, registration.wrapping_add(1));
        self.table[key] =
            Watch { fd, generation, number, registration, open: true, queued, ..Watch::default() };
        self.epoll.add(fd, Interest::Read, pack(number, registration))
    }

    fn exchange(&mut self, one: Token, other: Token) -> bool {
        if self.urgent.is_some_and(|it| it == one || it == other) {
            return false;
        }
        self.table.exchange(one, other);
        true
    }

    fn end_follows(&mut self, token: Token) -> bool {
        self.watch(token).is_some_and(|watch| watch.ended)
    }

    fn watch_silence(&mut self, token: Token) {
        if let Some(fd) = self.watch(token).map(|socket| socket.fd) {
            self.kernel.watch_silence(fd);
        }
    }

    fn acknowledge_at_once(&mut self, token: Token) {
        if let Some(socket) = self.watch(token) {
            socket::acknowledge_at_once(socket.fd);
        }
    }

    fn receive(&mut self, token: Token) {
        let Some(watch) = self.watch(token) else { return };
        watch.receiving = true;
        if watch.readable {
            self.queue(token.key());
        }
    }

    fn pause(&mut self, token: Token) -> When {
        if let Some(watch) = self.watch(token) {
            watch.receiving = false;
        }
        When::Now
    }

    fn watch_read(&mut self, token: Token) {
        let Some(watch) = self.watch(token) else { return };
        (watch.readable, watch.watching_read) = (false, true);
        // Tells again what can be read already: the caller's call may have stopped at an urgent
        // mark, and no new edge would come for that.
        let interest = if watch.both { Interest::ReadWrite } else { Interest::Read };
        self.rearm(token, interest);
    }

    fn watch_write(&mut self, token: Token) {
        let Some(watch) = self.watch(token) else { return };
        watch.watching_write = true;
        if !std::mem::replace(&mut watch.both, true) {
            self.rearm(token, Interest::ReadWrite);
        }
    }

    fn close(&mut self, token: Token, how: Close) -> When {
        if let Some(watch) = self.watch(token) {
            let fd = watch.fd;
            (watch.open, watch.receiving) = (false, false);
            kernel::close(fd, how);
        }
        When::Now
    }
}

impl Drop for EpollIo {
    fn drop(&mut self) {
        for watch in self.table.iter() {
            if watch.open {
                sys::close(watch.fd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Side;
    use std::{
        io::Write,
        net::TcpListener,
        os::{fd::IntoRawFd, unix::net::UnixStream},
    };

    #[test]
    fn what_an_old_socket_was_ready_for_says_nothing_about_the_next_under_its_token() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap().into_raw_fd();
        let waker = sys::eventfd().unwrap();
        let mut io = EpollIo::new(listener, waker, &Limits::default()).unwrap();
        let mut pool = BufferPool::new(4, 4096).unwrap();
        let token = Token { slot: 0, generation: 1, side: Side::Upstream };
        let (old, mut peer) = UnixStream::pair().unwrap();
        io.open(token, old.into_raw_fd()).unwrap();
        io.watch_write(token);
        peer.write_all(b"late").unwrap();
        io.turn(&mut pool, Wait::Poll).unwrap();
        // Its event has been taken from the kernel; another one of the same batch changes it.
        io.close(token, Close::Orderly);
        let (mut full, _peer) = UnixStream::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while full.write(&[0; 4096]).is_ok() {}
        io.open(token, full.into_raw_fd()).unwrap();
        io.watch_write(token);
        assert_eq!(io.next(&mut pool), None);
        drop(io);
        sys::close(waker);
    }
}
