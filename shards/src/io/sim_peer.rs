//! The far ends of simulated connections: what a client or a server sends, how slowly it reads,
//! and how it ends.

use super::sim::{Rng, Socket};
use crate::sys::Nanos;

/// How a peer ends its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Shuts its side once all is sent.
    AfterSending,
    /// Shuts its side once it has seen the other's end and all is sent.
    AfterTheOther,
    /// Resets after this many bytes were sent.
    Reset(usize),
    /// Stays silent once all is sent, and never ends.
    Never,
}

/// One far end.
#[derive(Debug)]
pub(crate) struct Peer {
    sends: Vec<u8>,
    sent: usize,
    pub(crate) received: Vec<u8>,
    ending: Ending,
    chunk: usize,
    pace: Nanos,
    next_at: Nanos,
    read_most: usize,
    ended: bool,
    pub(crate) saw_end: bool,
    pub(crate) saw_reset: bool,
}

impl Peer {
    /// A peer that sends `len` random bytes.
    pub(crate) fn draw(rng: &mut Rng, len: usize, ending: Ending) -> Self {
        let sends = (0..len).map(|_| u8::try_from(rng.below(256)).unwrap()).collect();
        Self {
            sends,
            sent: 0,
            received: Vec::new(),
            ending,
            chunk: rng.len(20_000),
            pace: if rng.chance(50) { 1 } else { rng.below(3_000_000) + 1 },
            next_at: 0,
            read_most: if rng.chance(30) { rng.len(500) } else { 100_000 },
            ended: false,
            saw_end: false,
            saw_reset: false,
        }
    }

    pub(crate) fn begin_at(&mut self, now: Nanos) {
        self.next_at = self.next_at.max(now);
    }

    /// All that this peer would send.
    pub(crate) fn sends(&self) -> &[u8] {
        &self.sends
    }

    /// How far the peer came with sending.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    pub(crate) fn resets(&self) -> bool {
        matches!(self.ending, Ending::Reset(_))
    }

    pub(crate) fn ends_by_itself(&self) -> bool {
        self.ending == Ending::AfterSending
    }

    pub(crate) fn never_ends(&self) -> bool {
        self.ending == Ending::Never
    }

    /// When the peer acts next; never, once it has ended and seen the end.
    pub(crate) fn next_at(&self, socket: &Socket) -> Option<Nanos> {
        let reads = !socket.tx.is_empty()
            || (socket.tx_end && !self.saw_end)
            || (socket.tx_reset && !self.saw_reset);
        let can_send = self.sent < self.sends.len() && socket.rx.len() < socket.buffer;
        let can_end = !self.ended && self.sent == self.sends.len() && self.may_end();
        let resets = matches!(self.ending, Ending::Reset(at) if !self.ended && self.sent >= at);
        let over = self.saw_reset || (self.ended && self.resets());
        (!over && (reads || (!self.ended && (can_send || can_end || resets))))
            .then_some(self.next_at)
    }

    fn may_end(&self) -> bool {
        match self.ending {
            Ending::AfterSending => true,
            Ending::AfterTheOther => self.saw_end,
            Ending::Reset(at) => self.sent >= at,
            Ending::Never => false,
        }
    }

    /// Reads, sends and ends, as far as time and the socket allow.
    pub(crate) fn act(socket: &mut Socket, now: Nanos, rng: &mut Rng) {
        if socket.peer.next_at(socket).is_none_or(|at| at > now) {
            return;
        }
        let peer = &mut socket.peer;
        peer.next_at = now + peer.pace;
        if socket.tx_reset {
            // What was on its way when the reset came may or may not have been read.
            peer.saw_reset = true;
            return;
        }
        let len = socket.tx.len().min(peer.read_most);
        peer.received.extend(socket.tx.drain(..len));
        peer.saw_end |= socket.tx_end && socket.tx.is_empty();
        if socket.closed || peer.ended {
            return;
        }
        let room = socket.buffer.saturating_sub(socket.rx.len());
        let most = (peer.sends.len() - peer.sent).min(room).min(peer.chunk);
        if most > 0 {
            let len = rng.len(most);
            socket.rx.extend(&peer.sends[peer.sent..peer.sent + len]);
            peer.sent += len;
        }
        match peer.ending {
            Ending::Reset(at) if peer.sent >= at => {
                (socket.rx_reset, peer.ended) = (true, true);
            }
            _ if peer.sent == peer.sends.len() && peer.may_end() => {
                (socket.rx_end, peer.ended) = (true, true);
            }
            _ => {}
        }
    }
}

/// How a simulated upstream answers a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Connected when dial returns.
    AtOnce,
    /// Connected after this long.
    After(Nanos),
    /// Refused when dial returns.
    RefusedAtOnce,
    /// Refused after this long.
    RefusedAfter(Nanos),
    /// Never.
    Silence,
}

/// A connection that will arrive: its two peers and how its upstream answers.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Nanos,
    pub(crate) client: Peer,
    pub(crate) server: Peer,
    pub(crate) answer: Answer,
}
