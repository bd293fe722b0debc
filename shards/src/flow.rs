//! One way of a connection: bytes from one socket to the other, by copy, by splice, or by peek.
//!
//! ```text
//!            +---------- burst >= splice_from_bytes ----------+
//!            |                                                v
//!          Copy <------------- calm for a while ----------- Splice
//!            |  ^
//!   no buffer|  |buffers again
//!            v  |
//!           Peek
//! ```
//! *Copy*: received buffers are sent at once; what a full socket refuses waits in the queue, up to
//! a cap, then receiving pauses. *Splice*: socket to pipe to socket, for bulk. *Peek*: bytes are
//! looked at, sent, and taken from the kernel only as far as they were sent. It holds no memory,
//! so that slow receivers can use up the buffers without stopping anybody else.
//!
//! Copying is here, splicing and peeking in `movers`; [`Flow::advance`] does whatever the state allows.

mod figures;
mod half;
mod movers;

pub(crate) use half::Half;

use crate::{
    buffers::{BufferId, BufferPool, Queue},
    core::Core,
    error::{End, taken},
    exchange::Source,
    io::{Event, Io, Side, Token, When, would_block},
    pipes::PipeId,
    sys::Nanos,
};
use netra_perf::{Key, Stage};
use std::io::IoSlice;

/// A pause this long ends a burst.
const BURST_GAP_NS: Nanos = 2_000_000;
/// So does a receive of fewer bytes than this: a conversation, however busy, is no bulk.
const CHAT_BYTES: usize = 4 * 1024;
/// A fill of fewer bytes than this is a calm one; this many of them in a row end splicing.
const CALM_BYTES: usize = 16 * 1024;
const CALM_FILLS: u8 = 8;
/// Rounds of splicing or peeking before others have their turn.
const ROUNDS: u32 = 16;
/// Pieces sent in one call.
const PIECES: usize = 16;

/// How the source is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    /// Not at all.
    #[default]
    Stopped,
    /// Buffers are handed over as they fill.
    Receiving,
    /// A pause was asked for; buffers may still come.
    Pausing,
    /// Waiting until there is something to splice or to peek at.
    Watching,
    /// The stream has ended.
    Over,
    /// There is no source: the upstream is being changed.
    Detached,
}

/// How bytes move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mover {
    #[default]
    Copy,
    Splice,
    Peek,
}

/// Where a flow's bytes, and netra's own time with them, are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) bytes: Key,
    pub(crate) overhead: Stage,
}

/// One way of a connection. The source's token names it.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    queue: Queue,
    reading: Reading,
    mover: Mover,
    /// The receiver is full and watched.
    blocked: bool,
    /// Both the source's end and all bytes before it have been passed on.
    finished: bool,
    /// Bytes may wait at the receiver's socket for the end to travel with them.
    corked: bool,
    /// Of the request way of an inbound connection that is not read: what moved last went this way.
    pub(crate) owes: bool,
    calm: u8,
    pipe: Option<PipeId>,
    in_pipe: u32,
    /// Nothing has been moved since the source was said to be readable.
    woken_for_nothing: bool,
    burst_bytes: u32,
    last_moved: Nanos,
    bytes: u64,
    /// What netra itself took of the time of an opaque connection.
    overhead_ns: Nanos,
}

impl Flow {
    /// The source is being changed. Only a quiet flow can be.
    pub(crate) fn detach<I: Io>(&mut self, core: &mut Core<I>, to: Token) {
        debug_assert!(!self.holds_bytes(), "bytes of the old source would be lost");
        self.return_pipe(core);
        self.uncork(core, to);
        *self = Self {
            reading: Reading::Detached,
            last_moved: self.last_moved,
            bytes: self.bytes,
            ..Self::default()
        };
    }

    /// There is a new receiver, or none for now: what the old one had no room for goes to it.
    pub(crate) fn change_receiver(&mut self) {
        self.blocked = false;
    }

    /// So many bytes that come next go to nobody: they were read, and have been kept.
    pub(crate) fn skip<I: Io>(&mut self, core: &mut Core<I>, from: Token, len: u64) {
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        match bytes {
            0 => {}
            _ if !self.queue.is_empty() => self.queue.advance(&mut core.pool, bytes),
            // They were peeked at. A socket that is broken says so at the next event.
            _ => {
                self.also_moved(len, core.now);
                let _ = core.io.take(from, bytes);
            }
        }
    }

    /// There is a new source.
    pub(crate) fn attach(&mut self) {
        self.reading = Reading::Stopped;
    }

    /// There will be no source any more: these are the last bytes. Returns how many of them went, or are kept:
    /// the others have to be carried, where there is no buffer for them.
    pub(crate) fn finish_with<I: Io>(
        &mut self,
        core: &mut Core<I>,
        to: Token,
        bytes: &[u8],
    ) -> usize {
        debug_assert!(self.reading == Reading::Detached && self.queue.is_empty());
        self.reading = Reading::Over;
        if bytes.is_empty() {
            return 0;
        }
        // A socket that is broken says so again at the next event.
        let sent = core.io.send(to, bytes).unwrap_or(0);
        let rest = &bytes[sent..];
        if rest.is_empty() {
            return sent;
        }
        let Some(buffer) = core.pool.lend() else { return sent };
        let room = core.pool.room(buffer);
        if room.len() < rest.len() {
            core.pool.give_back(buffer);
            return sent;
        }
        room[..rest.len()].copy_from_slice(rest);
        core.pool.set_filled(buffer, u32::try_from(rest.len()).unwrap_or(0));
        self.queue.push(&mut core.pool, buffer, 0);
        bytes.len()
    }

    /// Keeps bytes that came before there was anybody to send them to.
    pub(crate) fn keep_early(&mut self, pool: &mut BufferPool, buffer: BufferId) {
        self.queue.push(pool, buffer, 0);
    }

    /// Hands out the bytes that came early: they are to be received now.
    pub(crate) fn take_early(&mut self, pool: &BufferPool) -> Option<BufferId> {
        self.queue.take(pool)
    }

    /// Throws away what waits to be sent.
    pub(crate) fn discard<I: Io>(&mut self, core: &mut Core<I>) {
        self.queue.clear(&mut core.pool);
    }

    /// Takes in an event of the source or the receiver and does what it allows.
    #[inline]
    pub(crate) fn on_event<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        counted: Counted,
        half: Half<'_>,
        event: Event,
    ) -> Result<(), End> {
        match event {
            Event::Received(_, buffer) => {
                return match half.is_gated(from.side) {
                    true => self.gated(core, from, counted, half, buffer),
                    false => self.received(core, from, counted, half, buffer),
                };
            }
            Event::Ended(_) => self.reading = Reading::Over,
            Event::Failed(_, error) => return Err(End::of(from.side, error)),
            Event::Starved(_) => {
                core.recorder.bump(Key::BUFFER_STARVED);
                (self.reading, self.mover) = (Reading::Stopped, Mover::Peek);
            }
            Event::Paused(_) => self.reading = Reading::Stopped,
            Event::Readable(_) => (self.reading, self.woken_for_nothing) = (Reading::Stopped, true),
            Event::Writable(_) => self.blocked = false,
            Event::Accepted(_)
            | Event::AcceptFailed(_)
            | Event::Urgent(_)
            | Event::Closed(_)
            | Event::Woken => {
                debug_assert!(false, "not an event of a flow");
            }
        }
        self.advance(core, from, counted, half)
    }

    /// Passes a buffer through the gate.
    fn gated<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        counted: Counted,
        mut half: Half<'_>,
        buffer: BufferId,
    ) -> Result<(), End> {
        let len = core.pool.bytes(buffer).len();
        self.moved(core, counted, len);
        if half.gave_up(from.side) {
            core.pool.give_back(buffer);
            return Ok(());
        }
        self.queue.push(&mut core.pool, buffer, 0);
        self.pump(core, from, &mut half)?;
        self.hold(core, from, half.passable(from));
        self.advance(core, from, counted, half)
    }

    /// Sends what waits, through the gate.
    fn pump<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        half: &mut Half<'_>,
    ) -> Result<(), End> {
        // What is in the pipe has passed before, and goes first.
        while !self.blocked && self.in_pipe == 0 && !half.is_stopped(from) {
            let Some(gated) = half.next(core, from, self.queue.first())? else { return Ok(()) };
            self.last_moved = core.now;
            self.queue.advance(&mut core.pool, gated.taken);
            if gated.is_long {
                self.expect_bulk(core);
            }
            if gated.is_full {
                // Requests may have gone to several, and the last of them is full.
                self.await_room(core, half.receiver(from));
            }
        }
        Ok(())
    }

    /// A long body begins: it is spliced from its head on.
    fn expect_bulk<I: Io>(&mut self, core: &Core<I>) {
        self.burst_bytes = self.burst_bytes.max(core.limits.splice_from_bytes);
    }

    /// Passes a buffer on.
    #[inline]
    fn received<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        counted: Counted,
        mut half: Half<'_>,
        buffer: BufferId,
    ) -> Result<(), End> {
        let len = core.pool.bytes(buffer).len();
        self.moved(core, counted, len);
        let to = from.other();
        let mut sent = 0;
        if self.queue.is_empty() && !self.blocked {
            // The end travels in the packet of the bytes before it: to receive a packet is most of
            // what a short connection costs, on either side.
            self.corked = core.io.end_follows(from);
            let bytes = core.pool.bytes(buffer);
            let result = if self.corked {
                core.io.send_before_end(to, bytes)
            } else {
                core.io.send(to, bytes)
            };
            sent = taken(result, to.side).inspect_err(|_| core.pool.give_back(buffer))?;
        }
        if half.tap(core, from.side, Source::Buffer(buffer)) {
            self.expect_bulk(core);
        }
        if sent == len {
            core.pool.give_back(buffer);
            // Where exchanges are read, they are counted, with what their heads took.
            if half.is_none() {
                let took = core.io.now().saturating_sub(core.now);
                core.recorder.record_ns(counted.overhead, took);
                self.overhead_ns += took;
            }
            if self.burst_bytes < core.limits.splice_from_bytes || self.mover != Mover::Copy {
                return Ok(());
            }
        } else {
            self.queue.push(&mut core.pool, buffer, sent);
            if !self.blocked {
                self.await_room(core, to);
            }
        }
        self.hold(core, from, half.passable(from));
        self.advance(core, from, counted, half)
    }

    /// Stops receiving where the queue is full or a burst is to be spliced: one of which at least
    /// `passable` bytes may pass unseen.
    fn hold<I: Io>(&mut self, core: &mut Core<I>, from: Token, passable: u64) {
        if self.reading != Reading::Receiving {
            return;
        }
        let burst = core.limits.splice_from_bytes > 0
            && self.burst_bytes >= core.limits.splice_from_bytes
            && passable >= core.limits.splice_from_bytes.into()
            && self.mover == Mover::Copy;
        if burst {
            self.mover = Mover::Splice;
            core.recorder.bump(Key::SPLICE_STARTED);
        }
        let full = self.queue.len() >= core.queue_buffers_max();
        if full && !burst {
            core.recorder.bump(Key::BACK_PRESSURE);
        }
        if full || burst {
            self.reading = match core.io.pause(from) {
                When::Now => Reading::Stopped,
                When::Later => Reading::Pausing,
            };
        }
    }

    /// Does whatever the state allows: sends what waits, moves on or begins to read again, and
    /// passes the end on.
    pub(crate) fn advance<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        counted: Counted,
        mut half: Half<'_>,
    ) -> Result<(), End> {
        match half.is_gated(from.side) {
            true if half.gave_up(from.side) => self.discard(core),
            true => self.pump(core, from, &mut half)?,
            false if !self.blocked && !self.queue.is_empty() => self.flush(core, from.other())?,
            false => {}
        }
        let mut rounds = ROUNDS;
        while self.reading == Reading::Stopped && !self.blocked {
            if self.mover == Mover::Copy || !self.queue.is_empty() {
                if self.queue.len() <= core.queue_buffers_max() / 2 && self.mover == Mover::Copy {
                    self.reading = Reading::Receiving;
                    core.io.receive(from);
                }
                break;
            }
            if half.is_paused(from) {
                break;
            }
            if rounds == 0 {
                core.again.push_back(from);
                break;
            }
            rounds -= 1;
            match self.mover {
                Mover::Splice => self.splice(core, from, counted, half.again())?,
                _ => self.peek(core, from, counted, half.again())?,
            }
        }
        // While bytes were in the pipe, nothing could go between them.
        if half.is_gated(from.side) && !half.gave_up(from.side) {
            self.pump(core, from, &mut half)?;
        }
        if self.reading == Reading::Over && self.queue.is_empty() && !self.blocked {
            self.pass_on_the_end(core, from, half)?;
        }
        Ok(())
    }

    /// The source has ended: sends what is left, then the end may be passed on.
    fn pass_on_the_end<I: Io>(
        &mut self,
        core: &mut Core<I>,
        from: Token,
        mut half: Half<'_>,
    ) -> Result<(), End> {
        self.drain_pipe(core, from)?;
        if from.side == Side::Upstream && !self.blocked && half.outlives_upstream() {
            // Whoever ends connections asks whether this one goes on, as where it was reset.
            return Err(End::Reset(Side::Upstream));
        }
        if !self.blocked && half.end_way(core, from.side) {
            self.pump(core, from, &mut half)?;
            if half.is_paused(from) {
                return Ok(());
            }
        }
        if !self.blocked {
            self.return_pipe(core);
            self.finished = true;
        }
        Ok(())
    }

    /// Sends the queue, in one call where it is short.
    fn flush<I: Io>(&mut self, core: &mut Core<I>, to: Token) -> Result<(), End> {
        while !self.queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            let mut offered = 0;
            for (piece, id) in pieces.iter_mut().zip(self.queue.iter(&core.pool)) {
                *piece = IoSlice::new(core.pool.bytes(id));
                offered += piece.len();
                count += 1;
            }
            match core.io.send_pieces(to, &pieces[..count]) {
                Ok(sent) => {
                    self.last_moved = core.now;
                    self.queue.advance(&mut core.pool, sent);
                    if sent == offered {
                        continue;
                    }
                }
                Err(e) if would_block(&e) => {}
                Err(e) => return Err(End::of_error(to.side, &e)),
            }
            self.await_room(core, to);
            return Ok(());
        }
        Ok(())
    }

    /// The receiver is full: what is left waits until it says otherwise.
    fn await_room<I: Io>(&mut self, core: &mut Core<I>, to: Token) {
        self.blocked = true;
        core.io.watch_write(to);
        core.look_at_memory();
    }

    fn copy_again(&mut self) {
        (self.mover, self.calm, self.burst_bytes) = (Mover::Copy, 0, 0);
    }

    #[inline]
    fn moved<I: Io>(&mut self, core: &Core<I>, counted: Counted, len: usize) {
        let chat_bytes = CHAT_BYTES.min(core.limits.splice_from_bytes as usize);
        if len < chat_bytes || core.now.saturating_sub(self.last_moved) > BURST_GAP_NS {
            self.burst_bytes = 0;
        }
        self.burst_bytes = self.burst_bytes.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        self.last_moved = core.now;
        self.bytes += len as u64;
        core.recorder.add(counted.bytes, len as u64);
    }

    fn return_pipe<I: Io>(&mut self, core: &mut Core<I>) {
        if let Some(pipe) = self.pipe.take() {
            core.pipes.give_back(pipe, self.in_pipe as usize);
            self.in_pipe = 0;
        }
    }

    /// The source is lost while the connection goes on by others: nothing more is read of it.
    pub(crate) fn abandon<I: Io>(&mut self, core: &mut Core<I>, to: Token) {
        self.release(core, to);
        (self.reading, self.finished, self.blocked) = (Reading::Over, true, false);
    }

    /// Returns all that the flow holds, when its connection closes.
    pub(crate) fn release<I: Io>(&mut self, core: &mut Core<I>, to: Token) {
        self.queue.clear(&mut core.pool);
        self.return_pipe(core);
        self.uncork(core, to);
    }

    /// No end will be sent after all: what waits for it goes.
    fn uncork<I: Io>(&mut self, core: &mut Core<I>, to: Token) {
        if std::mem::take(&mut self.corked) && !self.finished {
            core.io.push(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_flow_costs_little() {
        assert!(size_of::<Flow>() <= 64, "{}", size_of::<Flow>());
    }
}
