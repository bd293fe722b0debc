//! The far ends of simulated connections: what a client or a server sends, how slowly it reads,
//! and how it ends.

use super::{sim::Rng, sim_socket::Socket};
use crate::sys::Nanos;
use std::{collections::VecDeque, fmt};

/// How a peer ends its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Shuts its side once all is sent.
    AfterSending,
    /// Shuts its side once it has seen the other's end and all is sent.
    AfterTheOther,
    /// Resets after this many bytes were sent.
    Reset(usize),
    /// Ends orderly after this many bytes were sent.
    At(usize),
    /// Stays silent once all is sent, and never ends.
    Never,
}

/// One far end.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) sends: Vec<u8>,
    sent: usize,
    pub(crate) received: Vec<u8>,
    pub(crate) ending: Ending,
    chunk: usize,
    /// All that it may send goes at once.
    is_in_one: bool,
    pace: Nanos,
    next_at: Nanos,
    read_most: usize,
    ended: bool,
    pub(crate) saw_end: bool,
    pub(crate) saw_reset: bool,
    turns: Option<Turns>,
    replies: Option<Replies>,
    /// Before it sends the byte at this place it does nothing for so long; in order.
    pauses: VecDeque<(usize, Nanos)>,
}

/// Says, from all that a peer has received, how many of its bytes it may have sent.
pub(crate) struct Turns {
    allowed: usize,
    judge: Judge,
}

type Judge = Box<dyn FnMut(&[u8]) -> usize>;

/// Says what a peer sends next, from all that it has received.
pub(crate) struct Replies(Reply);

type Reply = Box<dyn FnMut(&[u8], &mut Vec<u8>)>;

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replies")
    }
}

impl Turns {
    pub(crate) fn new(mut judge: impl FnMut(&[u8]) -> usize + 'static) -> Self {
        Self { allowed: judge(&[]), judge: Box::new(judge) }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turns({})", self.allowed)
    }
}

impl Peer {
    /// A peer that says these bytes, each when its turn has come.
    pub(crate) fn scripted(rng: &mut Rng, sends: Vec<u8>, ending: Ending, turns: Turns) -> Self {
        Self { sends, turns: Some(turns), ..Self::draw(rng, 0, ending) }
    }

    /// A peer that answers: `reply` adds to what it sends whenever something has come.
    pub(crate) fn replying(
        rng: &mut Rng,
        ending: Ending,
        reply: impl FnMut(&[u8], &mut Vec<u8>) + 'static,
    ) -> Self {
        Self { replies: Some(Replies(Box::new(reply))), ..Self::draw(rng, 0, ending) }
    }

    /// The same with all that it may send in one packet, and one that reads as fast.
    pub(crate) fn at_once(self) -> Self {
        Self { chunk: usize::MAX, pace: 1, read_most: usize::MAX, ..self }
    }

    /// The same, which sends all that it has in one piece.
    pub(crate) fn in_one(self) -> Self {
        Self { is_in_one: true, chunk: usize::MAX, ..self }
    }

    /// The same, with pauses.
    pub(crate) fn pausing(self, pauses: VecDeque<(usize, Nanos)>) -> Self {
        Self { pauses, ..self }
    }

    /// Bytes that may have been sent by now.
    fn allowed(&self) -> usize {
        self.turns.as_ref().map_or(usize::MAX, |turns| turns.allowed).min(self.sends.len())
    }

    /// A peer that sends `len` random bytes.
    pub(crate) fn draw(rng: &mut Rng, len: usize, ending: Ending) -> Self {
        let sends = (0..len).map(|_| u8::try_from(rng.below(256)).unwrap()).collect();
        Self {
            sends,
            sent: 0,
            received: Vec::new(),
            is_in_one: false,
            ending,
            chunk: rng.len(20_000),
            pace: if rng.chance(50) { 1 } else { rng.below(3_000_000) + 1 },
            next_at: 0,
            read_most: if rng.chance(30) { rng.len(500) } else { 100_000 },
            ended: false,
            saw_end: false,
            saw_reset: false,
            turns: None,
            replies: None,
            pauses: VecDeque::new(),
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
        let can_send = self.sent < self.allowed() && socket.rx.len() < socket.buffer;
        let can_end = !self.ended && self.sent == self.sends.len() && self.may_end();
        let resets = matches!(
            self.ending,
            Ending::Reset(at) | Ending::At(at) if !self.ended && self.sent >= at
        );
        let over = self.saw_reset || (self.ended && self.resets());
        (!over && (reads || (!self.ended && (can_send || can_end || resets))))
            .then_some(self.next_at)
    }

    fn may_end(&self) -> bool {
        match self.ending {
            Ending::AfterSending => true,
            Ending::AfterTheOther => self.saw_end,
            Ending::Reset(at) | Ending::At(at) => self.sent >= at,
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
        if let Some(turns) = &mut peer.turns {
            turns.allowed = (turns.judge)(&peer.received);
        }
        if let Some(Replies(reply)) = &mut peer.replies {
            reply(&peer.received, &mut peer.sends);
        }
        peer.saw_end |= socket.tx_end && socket.tx.is_empty();
        if socket.closed || peer.ended {
            // Nobody would see its end.
            peer.ended |= peer.saw_end;
            return;
        }
        let room = socket.buffer.saturating_sub(socket.rx.len());
        let most = (peer.allowed().max(peer.sent) - peer.sent).min(room).min(peer.chunk);
        let pause = peer.pauses.front().copied();
        let most = pause.map_or(most, |(at, _)| most.min(at.saturating_sub(peer.sent)));
        if let Some((_, pause)) = pause.filter(|(at, _)| *at <= peer.sent && peer.allowed() > *at) {
            peer.next_at = now + pause;
            peer.pauses.pop_front();
        }
        if most > 0 {
            let len = if peer.is_in_one { most } else { rng.len(most) };
            socket.rx.extend(&peer.sends[peer.sent..peer.sent + len]);
            peer.sent += len;
        }
        match peer.ending {
            Ending::Reset(at) if peer.sent >= at => {
                (socket.rx_reset, peer.ended) = (true, true);
            }
            Ending::At(at) if peer.sent >= at => (socket.rx_end, peer.ended) = (true, true),
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
