//! The io_uring backend: multishot receives into provided buffers, a few accepts ahead, one-shot
//! polls for full and spliced sockets, one `io_uring_enter` a turn.
//!
//! An operation belongs to the table until its last completion: a socket with operations in the
//! kernel is closed only when they have all come back ([`Event::Closed`]).

use super::{
    ACCEPTS_AHEAD, Close, Event, Io, Polled, Token, Wait, When, kernel,
    kernel::{Kernel, plain_calls},
    table::{Numbered, Table},
};
use crate::{
    buffers::BufferPool,
    config::Limits,
    driver::Driver,
    sys::{
        self, Fd, Nanos,
        ring::{Completion, Refused, Ring},
        socket,
    },
};
use std::{collections::VecDeque, io, net::SocketAddr};

/// Buffers that the kernel has at a time. Few, because it takes them in turn: they stay in the
/// cache, and little memory is touched, only while there are not many. A burst that uses them up
/// ends its receive, which begins again as soon as there are others (measured: no cost).
const PROVIDED: usize = 64;
/// Completions handed out in one turn: then timers have theirs.
const EVENTS_PER_TURN: u32 = 1024;

/// Operations, as bits of [`Entry::pending`] and as the low bits of user data.
const RECEIVE: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ERROR: u8 = 16;
/// Operations that belong to no socket, and cancels, whose completions say nothing.
const ACCEPT: u8 = 8;
const WAKE: u8 = 9;
const CANCEL: u8 = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    fd: Fd,
    generation: u32,
    /// Its number in user data, which stays with the socket where tokens are exchanged, and the
    /// generation that it was opened under.
    number: u32,
    born: u32,
    open: bool,
    /// Operations that the kernel holds.
    pending: u8,
    /// Receives are wanted.
    receiving: bool,
    /// A cancel of the receive is on its way, and [`Event::Paused`] is owed.
    pausing: bool,
    /// To be closed when nothing is pending.
    closing: bool,
}

impl Numbered for Entry {
    fn number(&mut self) -> &mut u32 {
        &mut self.number
    }

    fn generation(&mut self) -> &mut u32 {
        &mut self.generation
    }
}

/// io_uring as an [`Io`].
pub(crate) struct RingIo {
    kernel: Kernel,
    ring: Ring,
    waker: Fd,
    table: Table<Entry>,
    /// Events that follow from one completion besides its own.
    after: VecDeque<Event>,
    /// Buffers that the kernel has now.
    provided: usize,
    /// Connections that may still be accepted, and the places of accepts that the kernel holds, as
    /// bits.
    room: u32,
    accepts: u32,
    /// The connection that was accepted last, and who made it.
    accepted: Option<(Fd, SocketAddr)>,
    closing: bool,
    events_left: u32,
}

impl RingIo {
    /// A backend of the calling thread that accepts from `listener` and is woken by the eventfd
    /// `waker`. It owns the listener, also when it fails; the waker must outlive it.
    pub(crate) fn new(
        listener: Fd,
        waker: Fd,
        pool: &BufferPool,
        limits: &Limits,
    ) -> Result<Self, Refused> {
        let kernel = Kernel::new(listener, limits);
        let buffers = u16::try_from(pool.capacity().min(PROVIDED)).unwrap_or(u16::MAX);
        let mut ring = Ring::new(buffers, ACCEPTS_AHEAD)?;
        ring.poll_read(waker, WAKE.into());
        Ok(Self {
            kernel,
            ring,
            waker,
            table: Table::default(),
            after: VecDeque::new(),
            provided: 0,
            room: 0,
            accepts: 0,
            accepted: None,
            closing: false,
            events_left: 0,
        })
    }

    /// Which rung of the ladder the ring stands on.
    pub(crate) fn driver(&self) -> Driver {
        self.ring.driver()
    }

    /// Makes completions count an eventfd up, for a host that waits elsewhere.
    #[cfg(feature = "glommio")]
    pub(crate) fn signal(&self, eventfd: Fd) -> io::Result<()> {
        self.ring.signal(eventfd)
    }

    /// Submits what was asked for without waiting; true when there is something to handle.
    #[cfg(feature = "glommio")]
    pub(crate) fn submit(&mut self, pool: &mut BufferPool) -> io::Result<bool> {
        self.provide(pool);
        self.arm_accept();
        self.ring.submit()?;
        Ok(!self.after.is_empty() || self.ring.has_work())
    }

    fn fd(&self, token: Token) -> Fd {
        self.table[token.key()].fd
    }

    fn entry(&mut self, token: Token) -> Option<&mut Entry> {
        self.table.get_mut(token.key()).filter(|e| e.open && e.generation == token.generation)
    }

    /// Keeps the kernel supplied with buffers.
    fn provide(&mut self, pool: &mut BufferPool) {
        while self.provided < PROVIDED {
            let Some(buffer) = pool.lend() else { return };
            let (id, address, len) = pool.lend_to_kernel(buffer);
            self.ring.provide(id, address, len);
            self.provided += 1;
        }
    }

    /// Begins an operation on a socket unless the kernel holds it already.
    fn begin(&mut self, token: Token, operation: u8) {
        let key = token.key();
        let entry = &mut self.table[key];
        if entry.pending & operation != 0 {
            return;
        }
        entry.pending |= operation;
        let (fd, data) = (entry.fd, entry.data(operation));
        match operation {
            RECEIVE => self.ring.receive_multi(fd, data),
            READ => self.ring.poll_read(fd, data),
            ERROR => self.ring.poll_error(fd, data),
            _ => self.ring.poll_write(fd, data),
        }
    }

    fn cancel(&mut self, key: usize, operation: u8) {
        self.ring.cancel(self.table[key].data(operation), CANCEL.into());
    }

    fn arm_accept(&mut self) {
        let Some(listener) = self.kernel.listener.filter(|_| !self.closing) else { return };
        while self.accepts.count_ones() < self.room.min(ACCEPTS_AHEAD) {
            let place = self.accepts.trailing_ones();
            self.accepts |= 1 << place;
            self.ring.accept(listener, place, pack(place, 0, ACCEPT));
        }
    }

    fn on_accept(&mut self, place: u32, done: Completion) -> Option<Event> {
        self.accepts &= !(1 << place);
        let caller = self.ring.accepted(place);
        let event = match done.result {
            fd if fd >= 0 => {
                self.room = self.room.saturating_sub(1);
                self.accepted = caller.map(|caller| (fd, caller));
                Some(Event::Accepted(fd))
            }
            e if e == -libc::ECANCELED || e == -libc::ECONNABORTED || e == -libc::EINTR => None,
            e => {
                self.room = 0;
                Some(Event::AcceptFailed(-e))
            }
        };
        if self.closing && self.accepts == 0 {
            self.take_backlog();
        }
        event
    }

    /// The last connections of the kernel's queue, before the listener goes: they were accepted
    /// as far as their clients know.
    fn take_backlog(&mut self) {
        if let Some(listener) = self.kernel.listener {
            while self.room > 0
                && let Ok((fd, _)) = socket::accept(listener)
            {
                (self.room, self.accepted) = (self.room - 1, None);
                self.after.push_back(Event::Accepted(fd));
            }
        }
        self.kernel.close_listener();
    }

    fn on_receive(&mut self, key: usize, done: Completion, pool: &mut BufferPool) -> Option<Event> {
        let buffer = done.buffer.map(|id| {
            self.provided -= 1;
            pool.take_from_kernel(id)
        });
        let entry = self.table[key];
        let token = Token::of(key, entry.generation);
        if done.more {
            // The cancel may have missed a receive that was completing just then.
            if entry.pausing || entry.closing {
                self.cancel(key, RECEIVE);
            }
        } else {
            self.table[key].pending &= !RECEIVE;
        }
        let event = match (done.result, buffer) {
            (n, Some(buffer)) if n > 0 && !entry.closing => {
                pool.set_filled(buffer, n.unsigned_abs());
                self.provide(pool);
                Some(Event::Received(token, buffer))
            }
            (n, buffer) => {
                if let Some(buffer) = buffer {
                    pool.give_back(buffer);
                }
                self.provide(pool);
                if entry.closing { None } else { self.receive_stopped(token, n, pool) }
            }
        };
        if !done.more && !entry.closing {
            self.after_receive(token);
        }
        event
    }

    /// What the end of a receive means that brought no bytes.
    fn receive_stopped(
        &mut self,
        token: Token,
        result: i32,
        pool: &mut BufferPool,
    ) -> Option<Event> {
        let entry = &mut self.table[token.key()];
        match result {
            0 => {
                (entry.receiving, entry.pausing) = (false, false);
                Some(Event::Ended(token))
            }
            e if e == -libc::ECANCELED => None,
            e if e == -libc::ENOBUFS => {
                self.provide(pool);
                if self.provided > 0 {
                    return None;
                }
                let entry = &mut self.table[token.key()];
                if entry.pausing {
                    return None;
                }
                entry.receiving = false;
                Some(Event::Starved(token))
            }
            e => {
                (entry.receiving, entry.pausing) = (false, false);
                Some(Event::Failed(token, -e))
            }
        }
    }

    /// The kernel no longer receives: tell who asked for that, or begin again.
    fn after_receive(&mut self, token: Token) {
        let entry = &mut self.table[token.key()];
        if std::mem::take(&mut entry.pausing) {
            // Nobody reads now, so nobody would see a reset.
            self.begin(token, ERROR);
            self.after.push_back(Event::Paused(token));
        } else if entry.receiving {
            self.begin(token, RECEIVE);
        }
    }

    fn on_completion(&mut self, done: Completion, pool: &mut BufferPool) -> Option<Event> {
        let (number, generation, operation) = unpack(done.data);
        match operation {
            CANCEL => return None,
            ACCEPT => return self.on_accept(u32::try_from(number).unwrap_or(0), done),
            WAKE => {
                sys::eventfd_clear(self.waker);
                self.ring.poll_read(self.waker, WAKE.into());
                return Some(Event::Woken);
            }
            _ => {}
        }
        let key = self.table.key(number);
        debug_assert_eq!(self.table[key].born & GENERATIONS, generation, "a freed slot");
        let token = Token::of(key, self.table[key].generation);
        let closing = self.table[key].closing;
        let event = match operation {
            RECEIVE => self.on_receive(key, done, pool),
            _ => {
                self.table[key].pending &= !operation;
                let ready = match operation {
                    READ => Some(Event::Readable(token)),
                    WRITE => Some(Event::Writable(token)),
                    // A hang-up without an error is an end that will be read in its turn.
                    _ => socket::error_of(self.table[key].fd).map(|e| Event::Failed(token, e)),
                };
                ready.filter(|_| !closing && done.result != -libc::ECANCELED)
            }
        };
        let entry = &mut self.table[key];
        if entry.closing && entry.pending == 0 {
            entry.closing = false;
            sys::close(entry.fd);
            return Some(Event::Closed(token));
        }
        event
    }
}

/// Generations are kept modulo this in user data.
const GENERATIONS: u32 = 0x00ff_ffff;

fn pack(number: u32, generation: u32, operation: u8) -> u64 {
    u64::from(generation & GENERATIONS) << 40 | u64::from(number) << 8 | u64::from(operation)
}

fn unpack(data: u64) -> (usize, u32, u8) {
    let number = (data >> 8 & 0xffff_ffff) as usize;
    (number, u32::try_from(data >> 40).unwrap_or(0), (data & 0xff) as u8)
}

impl Entry {
    /// The user data of its operations.
    fn data(&self, operation: u8) -> u64 {
        pack(self.number, self.born, operation)
    }
}

impl Io for RingIo {
    plain_calls!();

    fn turn(&mut self, pool: &mut BufferPool, wait: Wait) -> io::Result<()> {
        self.events_left = EVENTS_PER_TURN;
        self.provide(pool);
        self.arm_accept();
        if !self.after.is_empty() || self.ring.has_work() {
            return self.ring.submit();
        }
        match wait {
            Wait::Poll => self.ring.submit(),
            Wait::Forever => self.ring.submit_and_wait(None),
            Wait::AtMost(ns) => self.ring.submit_and_wait(Some(ns)),
        }
    }

    fn next(&mut self, pool: &mut BufferPool) -> Option<Event> {
        loop {
            if let Some(event) = self.after.pop_front() {
                return Some(event);
            }
            if self.events_left == 0 {
                return None;
            }
            let done = self.ring.pop()?;
            self.events_left -= 1;
            if let Some(event) = self.on_completion(done, pool) {
                return Some(event);
            }
        }
    }

    fn poll(&mut self, budget: Nanos) -> Polled {
        // A submission that fails fails again in the turn, which reports it.
        if self.ring.submit().is_err() || self.ring.has_work() || !self.after.is_empty() {
            return Polled::AtOnce;
        }
        let until = self.now() + budget;
        while self.now() < until {
            for _ in 0..8 {
                if self.ring.has_work() {
                    return Polled::Found;
                }
                std::hint::spin_loop();
            }
        }
        Polled::Nothing
    }

    fn accept(&mut self, room: u32) {
        self.room = room;
    }

    fn close_listener(&mut self, room: u32) {
        (self.closing, self.room) = (true, room);
        if self.accepts == 0 {
            return self.take_backlog();
        }
        for place in 0..ACCEPTS_AHEAD {
            if self.accepts & 1 << place != 0 {
                self.ring.cancel(pack(place, 0, ACCEPT), CANCEL.into());
            }
        }
    }

    fn open(&mut self, token: Token, fd: Fd) -> io::Result<()> {
        let key = token.key();
        self.table.grow(key);
        debug_assert_eq!(self.table[key].pending, 0, "a slot was freed with operations pending");
        let (generation, number) = (token.generation, self.table[key].number);
        self.table[key] =
            Entry { fd, generation, number, born: generation, open: true, ..Entry::default() };
        Ok(())
    }

    fn exchange(&mut self, one: Token, other: Token) -> bool {
        let is_named = |event: &Event| event.token().is_some_and(|it| it == one || it == other);
        let is_busy = |token: Token| {
            self.table.get(token.key()).is_some_and(|entry| entry.pausing || entry.closing)
        };
        if self.after.iter().any(is_named) || is_busy(one) || is_busy(other) {
            return false;
        }
        self.table.exchange(one, other);
        true
    }

    fn end_follows(&mut self, token: Token) -> bool {
        let Some(data) = self.table.get(token.key()).map(|entry| entry.data(RECEIVE)) else {
            return false;
        };
        self.ring.peek().is_some_and(|next| next.data == data && next.result == 0 && !next.more)
    }

    fn watch_silence(&mut self, token: Token) {
        if let Some(fd) = self.entry(token).map(|socket| socket.fd) {
            self.kernel.watch_silence(fd);
        }
    }

    fn acknowledge_at_once(&mut self, token: Token) {
        if let Some(socket) = self.entry(token) {
            socket::acknowledge_at_once(socket.fd);
        }
    }

    fn receive(&mut self, token: Token) {
        if let Some(entry) = self.entry(token) {
            // A pause that is still on its way is taken back when its completion comes.
            (entry.receiving, entry.pausing) = (true, false);
            self.begin(token, RECEIVE);
        }
    }

    fn pause(&mut self, token: Token) -> When {
        let Some(entry) = self.entry(token) else { return When::Now };
        entry.receiving = false;
        if entry.pending & RECEIVE == 0 {
            return When::Now;
        }
        entry.pausing = true;
        self.cancel(token.key(), RECEIVE);
        When::Later
    }

    fn watch_read(&mut self, token: Token) {
        if self.entry(token).is_some() {
            self.begin(token, READ);
        }
    }

    fn watch_write(&mut self, token: Token) {
        if self.entry(token).is_some() {
            self.begin(token, WRITE);
        }
    }

    fn close(&mut self, token: Token, how: Close) -> When {
        let Some(entry) = self.entry(token) else { return When::Now };
        let (fd, pending) = (entry.fd, entry.pending);
        (entry.open, entry.receiving) = (false, false);
        if pending == 0 {
            kernel::close(fd, how);
            return When::Now;
        }
        entry.closing = true;
        if how == Close::Reset {
            socket::reset_on_close(fd);
        }
        for operation in [RECEIVE, READ, WRITE, ERROR] {
            if pending & operation != 0 {
                self.cancel(token.key(), operation);
            }
        }
        When::Later
    }
}

impl Drop for RingIo {
    fn drop(&mut self) {
        // Sockets still open at the end of a thread: their operations end with the ring.
        for entry in self.table.iter() {
            if entry.open || entry.closing {
                sys::close(entry.fd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_names_socket_generation_and_operation() {
        for (number, generation, operation) in [(0, 0, RECEIVE), (99_999, GENERATIONS, WRITE)] {
            let read = unpack(pack(number, generation, operation));
            assert_eq!(read, (number as usize, generation, operation));
        }
    }
}
