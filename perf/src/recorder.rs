//! Per-shard counters: one block of cells with one writer, described once in [`FAMILIES`], so that
//! the shard bumps an index and the reader finds name, help and labels in the same table.

mod families;
mod family;

pub use families::FAMILIES;
pub use family::{Family, Kind, Series};

use crate::{
    exchanges::{Exchanges, ProtocolTable},
    histogram::Histogram,
    labels::{
        ANSWER_TIMEOUTS, EDIT_RESULTS, ERRNOS, HTTP2_EVENTS, JOINS, MESSAGE_REFUSALS, METHODS,
        MIRROR_OUTCOMES, OPAQUE_REASONS, PROTOCOLS, REASONS, ROUTE_REFUSALS, ROUTE_STAYS,
        SHED_STEPS, SPAN_RESULTS, STATUS_CLASSES, TUNNEL_REASONS,
    },
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The index of one cell of a [`Recorder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(usize);

const OPENED: usize = 0;
const CLOSED: usize = OPENED + 2 * PROTOCOLS.len();
const BYTES: usize = CLOSED + 2 * REASONS.len();
const CONNECT_FAILURES: usize = BYTES + 4;
const REQUESTS: usize = CONNECT_FAILURES + ERRNOS.len();
const OPAQUE: usize = REQUESTS + 2 * METHODS.len() * STATUS_CLASSES.len();
const SPANS: usize = OPAQUE + OPAQUE_REASONS.len();
const TUNNELS: usize = SPANS + SPAN_RESULTS.len();
const SHED: usize = TUNNELS + TUNNEL_REASONS.len();
const ROUTE_REFUSED: usize = SHED + SHED_STEPS.len();
const DETECTED: usize = ROUTE_REFUSED + ROUTE_REFUSALS.len();
const EDITED: usize = DETECTED + PROTOCOLS.len();
const REFUSED: usize = EDITED + EDIT_RESULTS.len();
const ROUTE_STAYED: usize = REFUSED + MESSAGE_REFUSALS.len();
const HTTP2: usize = ROUTE_STAYED + ROUTE_STAYS.len();
const JOINED: usize = HTTP2 + HTTP2_EVENTS.len();
const TIMED_OUT: usize = JOINED + JOINS.len();
const MIRRORED: usize = TIMED_OUT + ANSWER_TIMEOUTS.len();
const SINGLES: usize = MIRRORED + MIRROR_OUTCOMES.len();

impl Key {
    /// A connection was accepted and is to be relayed; index in [`PROTOCOLS`].
    pub const fn opened(direction: usize, protocol: usize) -> Self {
        Self(OPENED + direction * PROTOCOLS.len() + protocol)
    }
    /// A connection ended, for the reason with this index in [`REASONS`].
    pub const fn closed(direction: usize, reason: usize) -> Self {
        Self(CLOSED + direction * REASONS.len() + reason)
    }
    /// Bytes were relayed, the way with this index in `WAYS` of the families.
    pub const fn bytes(direction: usize, way: usize) -> Self {
        Self(BYTES + direction * 2 + way)
    }
    /// An upstream could not be dialled; index in [`ERRNOS`].
    pub const fn connect_failure(errno: usize) -> Self {
        Self(CONNECT_FAILURES + errno)
    }
    /// A request was answered, or will not be; indexes in [`METHODS`] and [`STATUS_CLASSES`].
    pub const fn request(direction: usize, method: usize, status_class: usize) -> Self {
        let row = direction * METHODS.len() + method;
        Self(REQUESTS + row * STATUS_CLASSES.len() + status_class)
    }
    /// A connection stopped being HTTP; index in [`OPAQUE_REASONS`].
    pub const fn opaque(reason: usize) -> Self {
        Self(OPAQUE + reason)
    }
    /// A connection of another protocol than HTTP/1 is no longer read; index in [`TUNNEL_REASONS`].
    pub const fn tunnel(reason: usize) -> Self {
        Self(TUNNELS + reason)
    }
    /// A connection on a port that nobody named was watched, and turned out to be this; index in
    /// [`PROTOCOLS`], of which the first stands for nothing that is known.
    pub const fn detected(protocol: usize) -> Self {
        Self(DETECTED + protocol)
    }
    /// A call's span was told; index in [`JOINS`].
    pub const fn join(how: usize) -> Self {
        Self(JOINED + how)
    }
    /// Pairs were to be put into a message of another protocol than HTTP/1; index in
    /// [`EDIT_RESULTS`].
    pub const fn edited(result: usize) -> Self {
        Self(EDITED + result)
    }
    /// A message of such a protocol was refused; index in [`MESSAGE_REFUSALS`].
    pub const fn refused(why: usize) -> Self {
        Self(REFUSED + why)
    }
    /// A message was to go elsewhere and could not; index in [`ROUTE_STAYS`].
    pub const fn route_stays(why: usize) -> Self {
        Self(ROUTE_STAYED + why)
    }
    /// Something of HTTP/2 alone; index in [`HTTP2_EVENTS`].
    pub const fn http2(event: usize) -> Self {
        Self(HTTP2 + event)
    }
    /// An answer was no longer waited for; index in [`ANSWER_TIMEOUTS`].
    pub const fn timed_out(what: usize) -> Self {
        Self(TIMED_OUT + what)
    }
    /// A copy of a message was to go to a mirror; index in [`MIRROR_OUTCOMES`].
    pub const fn mirrored(outcome: usize) -> Self {
        Self(MIRRORED + outcome)
    }
    /// A span was handed to the exporter or dropped; index in [`SPAN_RESULTS`].
    pub const fn span(result: usize) -> Self {
        Self(SPANS + result)
    }
    /// Something was done for want of memory; index in [`SHED_STEPS`].
    pub const fn shed(step: usize) -> Self {
        Self(SHED + step)
    }
    /// A route was not followed; index in [`ROUTE_REFUSALS`].
    pub const fn route_refused(reason: usize) -> Self {
        Self(ROUTE_REFUSED + reason)
    }
    /// Connections closed at once because they would lead back to netra itself.
    pub const LOOP_REJECTED: Self = Self(SINGLES);
    /// Connections closed at once because the kernel knows no original destination.
    pub const NO_ORIGINAL_DST: Self = Self(SINGLES + 1);
    /// Times that accepting was paused at the descriptor limit.
    pub const ACCEPT_PAUSED: Self = Self(SINGLES + 2);
    /// Accepts that failed for another reason than the descriptor limit.
    pub const ACCEPT_ERRORS: Self = Self(SINGLES + 3);
    /// Receives that had to wait for a free buffer.
    pub const BUFFER_STARVED: Self = Self(SINGLES + 4);
    /// Switches of a direction from copying to splicing.
    pub const SPLICE_STARTED: Self = Self(SINGLES + 5);
    /// Bytes moved by splice(2).
    pub const SPLICE_BYTES: Self = Self(SINGLES + 6);
    /// Times that splicing was wanted and no pipe was free.
    pub const PIPE_STARVED: Self = Self(SINGLES + 7);
    /// Times that a direction paused reading because its receiver is slow.
    pub const BACK_PRESSURE: Self = Self(SINGLES + 8);
    /// Turns of the shard's loop.
    pub const TURNS: Self = Self(SINGLES + 9);
    /// Times that polling before parking found work.
    pub const SPINS: Self = Self(SINGLES + 10);
    /// Times that the shard parked in the kernel.
    pub const PARKS: Self = Self(SINGLES + 11);
    /// Nanoseconds that the shard was not parked.
    pub const BUSY_NS: Self = Self(SINGLES + 12);
    /// Outbound requests without a request id, which nothing can join to an inbound one.
    pub const NO_REQUEST_ID: Self = Self(SINGLES + 13);
    /// Requests whose head had no room for netra's lines.
    pub const PATCH_FULL: Self = Self(SINGLES + 14);
    /// Spans of which some value was cut.
    pub const SPAN_CUT: Self = Self(SINGLES + 15);
    /// Look-ups by request id that found what was remembered.
    pub const CONTEXT_HITS: Self = Self(SINGLES + 16);
    /// Look-ups by request id that found nothing.
    pub const CONTEXT_MISSES: Self = Self(SINGLES + 17);
    /// Entries that were forgotten before their time, for want of room.
    pub const CONTEXT_EVICTED: Self = Self(SINGLES + 18);
    /// Entries that another shard did not get, because its mailbox was full.
    pub const REPLICATION_DROPPED: Self = Self(SINGLES + 19);
    /// Requests that were sent elsewhere than where they were going.
    pub const ROUTED: Self = Self(SINGLES + 20);
    /// Pairs of a routing value that could not be read.
    pub const ROUTE_MALFORMED: Self = Self(SINGLES + 21);
    /// Requests answered with 502 because where they were routed cannot be reached.
    pub const ROUTE_UNREACHABLE: Self = Self(SINGLES + 22);

    /// Lines of the access log for which its ring had no room.
    pub const ACCESS_LOG_DROPPED: Self = Self(SINGLES + 23);
    /// Further addresses of a routed name that were dialled after the first.
    pub const ROUTE_NEXT_ADDRESS: Self = Self(SINGLES + 24);

    /// Connections reset because they were for nobody here: what came from outside and was for the
    /// loopback address or another host.
    pub const FOREIGN_DESTINATION: Self = Self(SINGLES + 25);
    /// Connections reset because they are netra's own dials, which the rules have sent back to it.
    pub const OWN_DIAL_REJECTED: Self = Self(SINGLES + 26);
    /// Dials from a spare source, because the ports of the usual one ran short.
    pub const SPARE_SOURCE: Self = Self(SINGLES + 27);

    /// Sockets from which an urgent byte was left out, as far as the driver sees them.
    pub const URGENT_DROPPED: Self = Self(SINGLES + 28);

    /// Messages that were sent to another endpoint, because the dial to theirs had failed.
    pub const TRIED_ELSEWHERE: Self = Self(SINGLES + 29);

    /// Requests that were sent again, because the upstream that had them ended without a word.
    pub const SENT_AGAIN: Self = Self(SINGLES + 30);

    /// Requests that could not be sent again if they had to, because they were not kept.
    pub const NOT_KEPT: Self = Self(SINGLES + 31);

    /// Further upstreams of connections that were begun to be reached.
    pub const LEG_OPENED: Self = Self(SINGLES + 32);
    /// Upstreams that ended before the connection, which went on by others.
    pub const LEG_LOST: Self = Self(SINGLES + 33);

    const COUNT: usize = SINGLES + 34;
}

/// A value that goes up and down, set by the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Connections being relayed now.
    ConnectionsActive,
    /// Relay buffers that hold bytes now.
    BuffersUsed,
    /// Relay buffers that may be used at most.
    BuffersMax,
    /// Pipes lent now.
    PipesUsed,
    /// Trace contexts and routes that are remembered by request id now.
    ContextEntries,
    /// Bytes of heads that are held because they have not come whole.
    HeldBytes,
    /// 1 while new connections are left in the kernel's queue, for want of descriptors or memory.
    AcceptFull,
    /// Upstreams of connections beside their first.
    LegsActive,
    /// Upstreams of connections that copies of their messages go to.
    MirrorsActive,
}
const GAUGES: usize = 9;

/// A duration that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From accept to the upstream's answer to the dial.
    Dial,
    /// What netra itself took, from the wake-up that brought bytes until they were sent on: of a
    /// request, its head and its response's head; of an opaque connection, each time that bytes
    /// came (but for those that waited for a slow receiver or were spliced). Inbound.
    OverheadInbound,
    /// The same, outbound.
    OverheadOutbound,
    /// From a request's head until its response had been forwarded whole, inbound.
    RequestInbound,
    /// The same, outbound.
    RequestOutbound,
}
const STAGES: usize = 5;

/// All that one shard records. One writer (the shard), any number of readers.
#[derive(Debug)]
#[repr(align(128))]
pub struct Recorder {
    cells: [AtomicU64; Key::COUNT],
    gauges: [AtomicU64; GAUGES],
    stages: [Histogram; STAGES],
    statuses: [AtomicU64; STATUSES],
    exchanges: Exchanges,
}

/// Statuses are three digits; what is below 100 is no status, and its cells stay empty.
const STATUSES: usize = 1000;

impl Default for Recorder {
    fn default() -> Self {
        Self {
            cells: [const { AtomicU64::new(0) }; Key::COUNT],
            gauges: [const { AtomicU64::new(0) }; GAUGES],
            stages: Default::default(),
            statuses: [const { AtomicU64::new(0) }; STATUSES],
            exchanges: Exchanges::default(),
        }
    }
}

impl Recorder {
    /// One that counts exchanges of these protocols, too.
    pub fn of(protocols: &[ProtocolTable]) -> Self {
        Self { exchanges: Exchanges::new(protocols), ..Self::default() }
    }

    /// Exchanges of the protocols beside HTTP/1.
    #[inline]
    pub fn exchanges(&self) -> &Exchanges {
        &self.exchanges
    }

    /// Adds one. Only the shard that owns this recorder may call it.
    #[inline]
    pub fn bump(&self, key: Key) {
        self.add(key, 1);
    }

    /// Adds `n`. Only the shard that owns this recorder may call it.
    #[inline]
    pub fn add(&self, key: Key, n: u64) {
        let cell = &self.cells[key.0];
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets a counter that is counted elsewhere. Only the shard that owns this recorder may call
    /// it.
    pub fn put(&self, key: Key, total: u64) {
        self.cells[key.0].store(total, Relaxed);
    }

    /// Sets a gauge. Only the shard that owns this recorder may call it.
    #[inline]
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.gauges[gauge as usize].store(value, Relaxed);
    }

    /// Counts a duration in nanoseconds. Only the shard that owns this recorder may call it.
    #[inline]
    pub fn record_ns(&self, stage: Stage, ns: u64) {
        self.stages[stage as usize].record_ns(ns);
    }

    /// Counts the status of a response to an inbound request. Only the shard that owns this
    /// recorder may call it.
    #[inline]
    pub fn count_status(&self, status: u16) {
        if let Some(cell) = self.statuses.get(usize::from(status)) {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// The statuses of responses to inbound requests that were ever seen, with their counts.
    pub fn statuses(&self) -> impl Iterator<Item = (u16, u64)> {
        (0..).zip(&self.statuses).map(|(status, cell)| (status, cell.load(Relaxed))).skip(100)
    }

    /// A counter's value now.
    pub fn get(&self, key: Key) -> u64 {
        self.cells[key.0].load(Relaxed)
    }

    /// A gauge's value now.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize].load(Relaxed)
    }

    /// A stage's histogram.
    pub fn stage(&self, stage: Stage) -> &Histogram {
        &self.stages[stage as usize]
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
