//! What each shard is serving, for all shards to see.
//!
//! The kernel may accept a service's inbound connection on one shard and the outbound one on
//! another. So each shard keeps a line, of the size of one of the processor's caches', which says
//! how many requests it has passed on that are not answered, and which. Only that shard writes it,
//! behind a sequence lock; whoever wants to know what a call may belong to reads all lines. Nobody
//! waits: a line that is being written says that nothing is known for certain.
//!
//! A request is on the board before its head is passed on, and is taken off after its answer was:
//! the application can only call because of it in between.

use crate::sys::Nanos;
use netra_codecs::trace::{TraceContext, TraceFlags};
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// Requests that a call is weighed against.
pub(crate) const SEEN_MAX: usize = 5;
/// Requests of a shard that can be told apart. Further ones are only counted.
pub(super) const PLACES: usize = 1024;

/// Names a request that is being served: its shard, its place there, and how often that was used.
pub(crate) type Id = u64;

/// What is being served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    ids: [Id; SEEN_MAX],
    len: u8,
    /// There is nothing else: no request that is not among them, none that netra cannot read.
    pub(crate) is_all: bool,
}

impl Seen {
    pub(crate) fn ids(&self) -> &[Id] {
        &self.ids[..usize::from(self.len)]
    }

    /// Adds one; false where there is no room.
    fn push(&mut self, id: Id) -> bool {
        let Some(place) = self.ids.get_mut(usize::from(self.len)) else { return false };
        *place = id;
        self.len += 1;
        true
    }

    /// Keeps those for which `is_kept` holds.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(Id) -> bool) {
        let mut kept = Self { is_all: self.is_all, ..Self::default() };
        for id in self.ids().iter().filter(|id| is_kept(**id)) {
            kept.push(*id);
        }
        *self = kept;
    }
}

/// The lines of all shards.
#[derive(Debug)]
pub(crate) struct Boards {
    shards: Box<[Board]>,
}

/// One shard's line and, behind it, the requests that it names.
#[derive(Debug)]
struct Board {
    line: Line,
    places: Box<[Place]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line {
    /// Odd while `open` and `ids` are being written.
    sequence: AtomicU32,
    /// Requests that are being served.
    open: AtomicU32,
    /// Inbound connections that are not read and owe an answer.
    unread: AtomicU32,
    /// Bytes are being passed on that may hold a request.
    is_passing: AtomicU32,
    /// Until then somebody may still be at work whom nobody counts any more.
    unsure_until: AtomicU64,
    /// Some of the requests.
    ids: [AtomicU64; SEEN_MAX],
}

const _: () = assert!(size_of::<Line>() == 64);

/// A request.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Place {
    /// How often it was used; odd while it is.
    uses: AtomicU32,
    flags: AtomicU32,
    trace_high: AtomicU64,
    trace_low: AtomicU64,
    span: AtomicU64,
    /// Whose connection it came by.
    caller: AtomicU64,
}

/// What a shard says of itself.
#[derive(Clone, Copy, Debug)]
struct Said {
    open: u32,
    unread: u32,
    is_passing: bool,
    unsure_until: Nanos,
    ids: [Id; SEEN_MAX],
}

impl Boards {
    pub(crate) fn new(shards: usize) -> Self {
        let board = || Board {
            line: Line::default(),
            places: (0..PLACES).map(|_| Place::default()).collect(),
        };
        Self { shards: (0..shards).map(|_| board()).collect() }
    }

    /// What is being served now.
    pub(crate) fn look(&self, now: Nanos) -> Seen {
        let mut seen = Seen { is_all: true, ..Seen::default() };
        for board in &self.shards {
            match board.line.read() {
                Some(said) => {
                    let mut listed = 0;
                    for id in said.ids.iter().filter(|id| **id != 0) {
                        listed += u32::from(seen.push(*id));
                    }
                    seen.is_all &= listed == said.open
                        && said.unread == 0
                        && !said.is_passing
                        && said.unsure_until <= now;
                }
                None => seen.is_all = false,
            }
        }
        seen
    }

    /// Somebody may still be at work whom nobody counts any more.
    pub(crate) fn is_unsure(&self, now: Nanos) -> bool {
        self.shards.iter().any(|board| board.line.unsure_until.load(Relaxed) > now)
    }

    fn place(&self, id: Id) -> Option<&Place> {
        let [_, shard, high, low, ..] = id.to_be_bytes();
        let place = usize::from(u16::from_be_bytes([high, low]));
        self.shards.get(usize::from(shard))?.places.get(place)
    }

    /// Whether the request is not answered yet.
    pub(crate) fn is_open(&self, id: Id) -> bool {
        self.place(id).is_some_and(|place| place.is_in_use_by(id))
    }

    /// The context of a request's span; None where it is answered, or belongs to no trace.
    pub(crate) fn context(&self, id: Id) -> Option<TraceContext> {
        self.read(id, Place::context).filter(|context| context.trace_id != 0)
    }

    /// Whose connection a request came by; None where it is answered.
    pub(crate) fn caller(&self, id: Id) -> Option<u64> {
        self.read(id, |place| place.caller.load(Relaxed))
    }

    /// Reads of a request what is the same from its beginning to its end.
    fn read<T>(&self, id: Id, of: impl Fn(&Place) -> T) -> Option<T> {
        let place = self.place(id)?;
        if !place.is_in_use_by(id) {
            return None;
        }
        let value = of(place);
        fence(Acquire);
        place.is_in_use_by(id).then_some(value)
    }

    /// A shard serves so many requests, of which these are the newest. Only that shard may call it.
    #[inline]
    pub(super) fn serves(&self, shard: usize, open: u32, newest: impl Iterator<Item = Id>) {
        if let Some(board) = self.shards.get(shard) {
            board.line.serves(open, newest);
        }
    }

    /// Bytes are being passed on that may hold a request, or no longer. Only that shard may call it.
    #[inline]
    pub(super) fn passes(&self, shard: usize, is_passing: bool) {
        if let Some(board) = self.shards.get(shard) {
            board.line.is_passing.store(is_passing.into(), Release);
        }
    }

    /// So many connections that are not read owe an answer, and until then somebody may be at work
    /// whom nobody counts. Only that shard may call it.
    #[inline]
    pub(super) fn owes(&self, shard: usize, unread: u32, unsure_until: Nanos) {
        if let Some(board) = self.shards.get(shard) {
            // Whoever sees that less is owed sees until when to doubt.
            board.line.unsure_until.store(unsure_until, Relaxed);
            board.line.unread.store(unread, Release);
        }
    }

    /// Puts a request into a free place and names it. Only that shard may call it.
    pub(super) fn put(
        &self,
        shard: usize,
        at: u16,
        context: Option<TraceContext>,
        caller: u64,
    ) -> Id {
        let Some(place) = self.shards.get(shard).and_then(|it| it.places.get(usize::from(at)))
        else {
            return 0;
        };
        let uses = place.uses.load(Relaxed).wrapping_add(1);
        debug_assert!(uses % 2 == 1, "the place is taken");
        // Whoever reads what stands there now sees that it is being written.
        fence(Release);
        let context = context.unwrap_or_else(|| TraceContext::root(0, 0, TraceFlags::NONE));
        place.write(&context, caller);
        place.uses.store(uses, Release);
        // No more than 256 shards.
        (shard as u64 & 0xff) << 48 | u64::from(at) << 32 | u64::from(uses)
    }

    /// The request in this place is answered. Only that shard may call it.
    pub(super) fn free(&self, shard: usize, at: u16) {
        if let Some(place) = self.shards.get(shard).and_then(|it| it.places.get(usize::from(at))) {
            place.uses.store(place.uses.load(Relaxed).wrapping_add(1), Release);
        }
    }
}

/// How often its place had been used when the request was put there.
fn uses_of(id: Id) -> u32 {
    // The lower half.
    #[allow(clippy::cast_possible_truncation)]
    let uses = id as u32;
    uses
}

impl Line {
    fn read(&self) -> Option<Said> {
        let sequence = self.sequence.load(Acquire);
        let said = Said {
            // Written alone, and read first: who sees them sees what was written before.
            unread: self.unread.load(Acquire),
            is_passing: self.is_passing.load(Acquire) != 0,
            open: self.open.load(Relaxed),
            unsure_until: self.unsure_until.load(Relaxed),
            ids: std::array::from_fn(|index| self.ids[index].load(Relaxed)),
        };
        fence(Acquire);
        let is_whole = sequence.is_multiple_of(2) && self.sequence.load(Relaxed) == sequence;
        is_whole.then_some(said)
    }

    fn serves(&self, open: u32, mut newest: impl Iterator<Item = Id>) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        self.open.store(open, Relaxed);
        for place in &self.ids {
            place.store(newest.next().unwrap_or(0), Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Release);
    }
}

/// Of [`Place::flags`], above those of the trace.
const RANDOM: u32 = 1 << 8;

impl Place {
    fn is_in_use_by(&self, id: Id) -> bool {
        let uses = uses_of(id);
        uses % 2 == 1 && self.uses.load(Acquire) == uses
    }

    fn write(&self, context: &TraceContext, caller: u64) {
        // The two halves of the id.
        #[allow(clippy::cast_possible_truncation)]
        let (high, low) = ((context.trace_id >> 64) as u64, context.trace_id as u64);
        self.trace_high.store(high, Relaxed);
        self.trace_low.store(low, Relaxed);
        self.span.store(context.span_id, Relaxed);
        let random = if context.random { RANDOM } else { 0 };
        self.flags.store(u32::from(context.flags.0) | random, Relaxed);
        self.caller.store(caller, Relaxed);
    }

    fn context(&self) -> TraceContext {
        let (high, low) = (self.trace_high.load(Relaxed), self.trace_low.load(Relaxed));
        let flags = self.flags.load(Relaxed);
        let trace_id = u128::from(high) << 64 | u128::from(low);
        // The lowest eight are the trace's.
        let [.., of_trace] = flags.to_be_bytes();
        TraceContext {
            random: flags & RANDOM != 0,
            ..TraceContext::root(trace_id, self.span.load(Relaxed), TraceFlags(of_trace))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn context(number: u64) -> TraceContext {
        TraceContext {
            random: number.is_multiple_of(2),
            ..TraceContext::root(
                u128::from(number) << 64 | u128::from(number),
                number,
                TraceFlags::SAMPLED,
            )
        }
    }

    #[test]
    fn a_request_is_found_by_its_name_until_it_is_answered() {
        let boards = Boards::new(3);
        let id = boards.put(2, 7, Some(context(9)), 5);
        assert_eq!(boards.context(id), Some(context(9)));
        assert_eq!((boards.caller(id), boards.is_open(id)), (Some(5), true));
        boards.free(2, 7);
        assert_eq!(
            (boards.context(id), boards.caller(id), boards.is_open(id)),
            (None, None, false)
        );
        let next = boards.put(2, 7, None, 6);
        assert!(next != id && boards.is_open(next) && !boards.is_open(id));
        assert_eq!((boards.context(next), boards.caller(next)), (None, Some(6)));
        assert!(!boards.is_open(0), "no request is called 0");
    }

    #[test]
    fn all_is_seen_or_said_not_to_be() {
        let boards = Boards::new(2);
        assert_eq!(boards.look(5), Seen { is_all: true, ..Seen::default() });
        let serves = |shard, open, ids: &[Id]| boards.serves(shard, open, ids.iter().copied());
        serves(0, 2, &[3, 4]);
        serves(1, 3, &[5, 6, 7]);
        let seen = boards.look(5);
        assert_eq!((seen.ids(), seen.is_all), (&[3, 4, 5, 6, 7][..], true));
        serves(1, 4, &[5, 6, 7, 8]);
        assert!(!boards.look(5).is_all, "there is no room for the last");
        serves(1, 1, &[]);
        assert!(!boards.look(5).is_all, "one is only counted");
        serves(1, 0, &[]);
        assert!(boards.look(5).is_all);
        boards.passes(1, true);
        assert!(!boards.look(5).is_all, "bytes are being passed on");
        boards.passes(1, false);
        boards.owes(1, 1, 0);
        assert!(!boards.look(5).is_all, "an answer is owed");
        boards.owes(1, 0, 6);
        assert!(!boards.look(5).is_all, "somebody may be at work");
        assert!(boards.look(6).is_all && boards.is_unsure(5) && !boards.is_unsure(6));
    }

    /// What is read is what was written at once, or nothing.
    #[test]
    fn nobody_reads_half_of_what_another_shard_writes() {
        let (boards, is_over) = (Boards::new(1), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..200_000u64 {
                    let id = boards.put(0, 0, Some(context(number)), number);
                    boards.serves(0, 1, [id; SEEN_MAX].into_iter());
                    boards.free(0, 0);
                }
                is_over.store(true, Relaxed);
            });
            let mut found = 0;
            while !is_over.load(Relaxed) || found == 0 {
                let seen = boards.look(0);
                let Some(id) = seen.ids().first() else { continue };
                assert!(seen.ids().iter().all(|other| other == id), "{seen:?}");
                if let Some(read) = boards.context(*id) {
                    assert_eq!(read, context(read.span_id));
                }
                found += 1;
            }
        });
    }
}
