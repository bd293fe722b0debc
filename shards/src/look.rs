//! What a shard tells of itself when somebody asks: its connections, a slice of the slab at a time
//! so that no turn grows long, and a time line of its turns.

use crate::{
    error::Direction,
    failures::FailuresView,
    io::Wait,
    sys::{Nanos, TcpInfo, monotonic_ns, nanos},
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

/// Names a connection of a shard as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
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
    /// What its bytes are read as now: one of [`netra_perf::labels::PROTOCOLS`],
    /// or `http2`.
    pub protocol: &'static str,
    /// Nobody has been dialled for it yet: what its client says decides whom.
    pub is_deferred: bool,
    /// Its upstream has not answered yet.
    pub is_dialling: bool,
    /// It is a leg: a further upstream of a connection with the same peer.
    pub is_leg: bool,
    /// It is a leg to a mirror: copies of the connection's messages go there.
    pub is_mirror: bool,
    /// Where its messages go, where rules or routes say so.
    pub upstream: Option<SocketAddr>,
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

/// A stream of HTTP/2 that goes on.
#[derive(Clone, Debug)]
pub struct StreamView {
    /// Its number.
    pub id: u32,
    /// Since the head of its request was whole.
    pub age: Duration,
    /// Its path, as it came; empty where it has no record.
    pub path: Vec<u8>,
    /// It is a call of gRPC.
    pub is_grpc: bool,
    /// Status of the response, 0 before its head has come.
    pub status: u16,
    /// Bytes of DATA, of the request and of the response.
    pub bytes: [u64; 2],
    /// Messages likewise: of gRPC.
    pub messages: [u32; 2],
}

/// Streams of a connection that are shown.
pub(crate) const STREAMS_SHOWN: usize = 16;

/// What the kernel knows about a connection's two sockets, and what runs on it.
#[derive(Clone, Debug)]
pub struct ConnectionDetails {
    /// Which connection.
    pub id: ConnectionId,
    /// Who has connected.
    pub peer: Option<SocketAddr>,
    /// Downstream and upstream.
    pub tcp: [Option<TcpInfo>; 2],
    /// The oldest streams of HTTP/2 that go on, and how many do.
    pub streams: Vec<StreamView>,
    /// How many there are.
    pub stream_count: usize,
}

/// Who asked.
pub trait Viewer: Debug + Send + Sync {
    /// A slice of a shard's connections; `next` is where to go on, if there are more.
    fn connections(&self, shard: usize, seen: Vec<ConnectionView>, next: Option<u32>);
    /// What the kernel knows about some of them.
    fn details(&self, shard: usize, seen: Vec<ConnectionDetails>);
    /// What has failed on a shard.
    fn failures(&self, shard: usize, seen: FailuresView);
}

/// What is asked of a shard.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    /// Connections from this slot on.
    Connections(u32, Arc<dyn Viewer>),
    /// These connections' sockets.
    Details(Vec<ConnectionId>, Arc<dyn Viewer>),
    /// What has failed.
    Failures(Arc<dyn Viewer>),
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
    pub(crate) fn note(&self, turn: Turn) -> bool {
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
