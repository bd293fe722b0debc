//! What a shard tells of itself when somebody asks: its connections, a slice of the slab at a time
//! so that no turn grows long, and a time line of its turns.

use crate::{
    connection::{Phase, nanos},
    error::Direction,
    io::{Io, Side, Token, Wait},
    shard::Shard,
    sys::{Nanos, monotonic_ns},
};
use std::{
    fmt::Debug,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

/// Slots of the slab that are looked at in one turn: some tens of microseconds.
const SLICE_SLOTS: u32 = 2048;

/// Names a connection of a shard as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

/// A connection as it was when somebody looked.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionView {
    /// Its name, to ask for more.
    pub id: ConnectionId,
    /// Inbound or outbound.
    pub direction: Direction,
    /// Where it wanted to go.
    pub original_dst: SocketAddr,
    /// It is read as HTTP now.
    pub is_http: bool,
    /// Its upstream has not answered yet.
    pub is_dialling: bool,
    /// Since it was accepted.
    pub age: Duration,
    /// Since bytes last moved.
    pub idle: Duration,
    /// Bytes of the request and of the response way.
    pub bytes: [u64; 2],
    /// What netra itself took of its time.
    pub overhead: Duration,
    /// The sides that take nothing while bytes wait for them: downstream, upstream.
    pub stalled: [bool; 2],
}

/// What the kernel knows about a connection's two sockets.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionDetails {
    /// Which connection.
    pub id: ConnectionId,
    /// Who has connected.
    pub peer: Option<SocketAddr>,
    /// Downstream and upstream.
    pub tcp: [Option<TcpInfo>; 2],
}

/// What TCP knows about one hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Segments that were sent again, ever.
    pub retransmits: u32,
}

/// Who asked.
pub trait Viewer: Debug + Send + Sync {
    /// A slice of a shard's connections; `next` is where to go on, if there are more.
    fn connections(&self, shard: usize, seen: Vec<ConnectionView>, next: Option<u32>);
    /// What the kernel knows about some of them.
    fn details(&self, shard: usize, seen: Vec<ConnectionDetails>);
}

/// What is asked of a shard.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    /// Connections from this slot on.
    Connections(u32, Arc<dyn Viewer>),
    /// These connections' sockets.
    Details(Vec<ConnectionId>, Arc<dyn Viewer>),
}

impl<I: Io> Shard<I> {
    pub(crate) fn on_look(&self, look: Look) {
        match look {
            Look::Connections(from, viewer) => {
                let (seen, next) = self.views(from);
                viewer.connections(self.index, seen, next);
            }
            Look::Details(ids, viewer) => {
                let seen = ids.into_iter().filter_map(|id| self.details(id)).collect();
                viewer.details(self.index, seen);
            }
        }
    }

    fn views(&self, from: u32) -> (Vec<ConnectionView>, Option<u32>) {
        let end = u32::try_from(self.slab.len()).unwrap_or(u32::MAX);
        let until = from.saturating_add(SLICE_SLOTS).min(end);
        let seen = (from..until).filter_map(|slot| self.view(slot)).collect();
        (seen, (until < end).then_some(until))
    }

    fn view(&self, slot: u32) -> Option<ConnectionView> {
        let connection = &self.slab[slot as usize];
        let is_dialling = match connection.phase {
            Phase::Dialling => true,
            Phase::Relaying => false,
            Phase::Free | Phase::Closing(_) => return None,
        };
        let since = |at: Nanos| Duration::from_nanos(self.core.now.saturating_sub(at));
        Some(ConnectionView {
            id: ConnectionId { slot, generation: connection.generation },
            direction: connection.direction,
            original_dst: connection.original_dst,
            is_http: connection.http.is_some(),
            is_dialling,
            age: since(connection.accepted_at),
            idle: since(connection.last_moved().max(connection.accepted_at)),
            bytes: connection.bytes(),
            overhead: Duration::from_nanos(connection.overhead_ns()),
            stalled: connection.stalled(),
        })
    }

    fn details(&self, id: ConnectionId) -> Option<ConnectionDetails> {
        let connection = self.slab.get(id.slot as usize)?;
        let is_there = matches!(connection.phase, Phase::Dialling | Phase::Relaying);
        if !is_there || connection.generation != id.generation {
            return None;
        }
        let token = |side| Token { slot: id.slot, generation: id.generation, side };
        let has_upstream = connection.http.as_deref().is_none_or(|http| http.has_upstream());
        let tcp = |side| self.core.io.tcp_info(token(side)).ok();
        Some(ConnectionDetails {
            id,
            peer: self.core.io.peer_addr(token(Side::Downstream)).ok(),
            tcp: [tcp(Side::Downstream), has_upstream.then(|| tcp(Side::Upstream)).flatten()],
        })
    }

    /// A turn has ended; it is noted if a time line is being taken.
    #[cold]
    pub(crate) fn note_turn(&mut self, turn: Turn) {
        if self.time_line.as_ref().is_some_and(|line| !line.note(turn)) {
            self.time_line = None;
        }
    }
}

/// One turn of a shard's loop. Times are those of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// When it began to wait.
    pub waits_from_ns: u64,
    /// When it woke.
    pub woke_at_ns: u64,
    /// When it had done all there was.
    pub quiet_at_ns: u64,
    /// Events that it handed out.
    pub events: u32,
    /// It slept in the kernel rather than just look.
    pub is_parked: bool,
}

impl Turn {
    /// A turn that waited like this.
    pub(crate) fn begun(waits_from_ns: Nanos, wait: Wait) -> Self {
        Self { waits_from_ns, is_parked: wait != Wait::Poll, ..Self::default() }
    }
}

/// The turns of one shard for a while: filled by the shard, read by whoever asked when it is over.
#[derive(Debug)]
pub struct TimeLine {
    until_ns: u64,
    noted: AtomicUsize,
    cells: Box<[[AtomicU64; 4]]>,
}

impl TimeLine {
    /// Room for `turns_max` turns, from now on for so long.
    pub fn new(turns_max: usize, time: Duration) -> Self {
        Self::until(turns_max, monotonic_ns().saturating_add(nanos(time)))
    }

    fn until(turns_max: usize, until_ns: Nanos) -> Self {
        let cells = (0..turns_max).map(|_| Default::default()).collect();
        Self { until_ns, noted: AtomicUsize::new(0), cells }
    }

    /// The turns so far.
    pub fn turns(&self) -> Vec<Turn> {
        let noted = self.noted.load(Acquire);
        let turn = |cell: &[AtomicU64; 4]| {
            let [waits_from_ns, woke_at_ns, quiet_at_ns, events] =
                [0, 1, 2, 3].map(|i: usize| cell[i].load(Relaxed));
            Turn {
                waits_from_ns,
                woke_at_ns,
                quiet_at_ns,
                events: u32::try_from(events >> 1).unwrap_or(u32::MAX),
                is_parked: events & 1 == 1,
            }
        };
        self.cells[..noted.min(self.cells.len())].iter().map(turn).collect()
    }

    /// There was room for no more.
    pub fn is_full(&self) -> bool {
        self.noted.load(Relaxed) >= self.cells.len()
    }

    /// Takes a turn in; false when that was the last one.
    fn note(&self, turn: Turn) -> bool {
        let at = self.noted.load(Relaxed);
        let Some(cell) = self.cells.get(at) else { return false };
        let events = u64::from(turn.events) << 1 | u64::from(turn.is_parked);
        let words = [turn.waits_from_ns, turn.woke_at_ns, turn.quiet_at_ns, events];
        for (cell, word) in cell.iter().zip(words) {
            cell.store(word, Relaxed);
        }
        self.noted.store(at + 1, Release);
        turn.quiet_at_ns < self.until_ns && at + 1 < self.cells.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_line_ends_when_it_is_full_or_late() {
        let turn = |at| Turn {
            waits_from_ns: at,
            woke_at_ns: at + 1,
            quiet_at_ns: at + 2,
            events: 3,
            is_parked: at % 2 == 1,
        };
        let line = TimeLine::until(3, 100);
        assert!(line.note(turn(1)) && line.note(turn(2)));
        assert_eq!(line.turns(), [turn(1), turn(2)]);
        assert!(!line.note(turn(3)) && line.is_full());
        assert!(!line.note(turn(4)));
        assert_eq!(line.turns().len(), 3);
        assert!(!TimeLine::until(3, 100).note(turn(99)));
    }
}
