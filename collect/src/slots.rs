//! Figures over time: what each operation and each edge had in each slot of time. The newest slots are
//! short; where the room runs out, the oldest of one length are put together in pairs, and what has
//! got too old goes.

use crate::histogram::{Histogram, Sparse, class};
use crate::names::{NodeId, OpId, ProtocolId};
use crate::sample::Sample;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::{collections::VecDeque, hash::Hash, ops::Range};

/// How long a slot is when it begins.
pub(crate) const SLOT_S: u64 = 10;
/// How far back slots reach.
pub(crate) const KEPT_S: u64 = 2 * 3600;
/// What a clock may be ahead of ours.
const AHEAD_S: u64 = 30;
const SLOTS_MAX: usize = 720;

/// Who asks whom by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) protocol: ProtocolId,
}

/// What was done in a slot.
#[derive(Clone, Debug, Default)]
struct Cell {
    count: u32,
    errors: u32,
    sum_us: u64,
    own_us: u64,
    durations: Sparse,
}

/// What was done in a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Total {
    pub(crate) count: u64,
    pub(crate) errors: u64,
    pub(crate) sum_us: u64,
    /// Of that, what nobody else was asked in.
    pub(crate) own_us: u64,
    pub(crate) durations: Histogram,
}

impl Total {
    fn add(&mut self, cell: &Cell) {
        self.count += u64::from(cell.count);
        self.errors += u64::from(cell.errors);
        self.sum_us += cell.sum_us;
        self.own_us += cell.own_us;
        self.durations.add(&cell.durations);
    }

    /// One more that is not in a slot yet.
    pub(crate) fn sample(&mut self, sample: Sample) {
        self.count += 1;
        self.errors += u64::from(sample.is_error);
        self.sum_us += sample.duration_ns / 1000;
        self.durations.0[usize::from(class(sample.duration_ns))] += 1;
    }
}

type Cells<K> = HashMap<K, Cell, FixedState>;
pub(crate) type Totals<K> = HashMap<K, Total, FixedState>;

#[derive(Debug, Default)]
struct Slot {
    /// Seconds since 1970.
    from_s: u64,
    long_s: u64,
    ops: Cells<OpId>,
    edges: Cells<Edge>,
}

/// The end of a window: one that reaches up to now has the slot that is still being filled.
pub(crate) fn open_ended(until_s: u64, now_s: u64) -> u64 {
    if until_s > now_s { until_s.saturating_add(SLOT_S) } else { until_s }
}

#[derive(Debug)]
pub(crate) struct Slots {
    slots: VecDeque<Slot>,
    bytes: usize,
    bytes_max: usize,
    /// Samples of a time that no slot has any more.
    pub(crate) too_late: u64,
}

/// What a cell weighs with its place in the table.
const CELL_BYTES: usize = size_of::<(Edge, Cell)>() * 8 / 7 + 1;

impl Slots {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { slots: VecDeque::new(), bytes: 0, bytes_max, too_late: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An operation was done; `end_ns` says when it was over.
    pub(crate) fn op(&mut self, end_ns: u64, now_ns: u64, op: OpId, sample: Sample) {
        let Some(at) = self.slot(end_ns, now_ns) else { return };
        self.bytes += add(&mut self.slots[at].ops, op, sample);
    }

    /// Of the operation's time, so much was its own.
    pub(crate) fn own_time(&mut self, end_ns: u64, now_ns: u64, op: OpId, own_ns: u64) {
        let Some(at) = self.slot(end_ns, now_ns) else { return };
        if let Some(cell) = self.slots[at].ops.get_mut(&op) {
            cell.own_us += own_ns / 1000;
        }
    }

    pub(crate) fn edge(&mut self, end_ns: u64, now_ns: u64, edge: Edge, sample: Sample) {
        let Some(at) = self.slot(end_ns, now_ns) else { return };
        self.bytes += add(&mut self.slots[at].edges, edge, sample);
    }

    /// The slot of a time, made where there is none. What is ahead of our clock counts as now.
    fn slot(&mut self, end_ns: u64, now_ns: u64) -> Option<usize> {
        let now_s = now_ns / 1_000_000_000;
        let mut time_s = end_ns / 1_000_000_000;
        if time_s > now_s + AHEAD_S {
            time_s = now_s;
        }
        let from_s = time_s / SLOT_S * SLOT_S;
        // From the end: it is nearly always the last one or the one before.
        for at in (0..self.slots.len()).rev() {
            let slot = &self.slots[at];
            if time_s >= slot.from_s {
                if time_s < slot.from_s + slot.long_s {
                    return Some(at);
                }
                return self.begin(at + 1, from_s, now_s);
            }
        }
        self.begin(0, from_s, now_s)
    }

    fn begin(&mut self, at: usize, from_s: u64, now_s: u64) -> Option<usize> {
        if from_s + KEPT_S < now_s {
            self.too_late += 1;
            return None;
        }
        self.slots.insert(at, Slot { from_s, long_s: SLOT_S, ..Slot::default() });
        self.make_room(now_s);
        let found = self
            .slots
            .iter()
            .rposition(|slot| slot.from_s <= from_s && from_s < slot.from_s + slot.long_s);
        self.too_late += u64::from(found.is_none());
        found
    }

    fn make_room(&mut self, now_s: u64) {
        while self.slots.front().is_some_and(|slot| slot.from_s + slot.long_s + KEPT_S < now_s) {
            self.forget_oldest();
        }
        while self.slots.len() > 2 && (self.bytes > self.bytes_max || self.slots.len() > SLOTS_MAX)
        {
            match self.pair() {
                Some(at) => self.join(at),
                None => self.forget_oldest(),
            }
        }
    }

    /// The oldest two neighbours of one length, but for the newest minutes and for what is longer
    /// than a few minutes already.
    fn pair(&self) -> Option<usize> {
        let last = self.slots.len().saturating_sub(6);
        (1..last).map(|at| at - 1).find(|&at| {
            let (one, next) = (&self.slots[at], &self.slots[at + 1]);
            one.long_s == next.long_s
                && one.long_s < 160
                && next.from_s - one.from_s < 4 * one.long_s
        })
    }

    fn join(&mut self, at: usize) {
        let Some(next) = self.slots.remove(at + 1) else { return };
        self.bytes -= next.bytes() + self.slots[at].bytes();
        let slot = &mut self.slots[at];
        slot.long_s = next.from_s + next.long_s - slot.from_s;
        merge(&mut slot.ops, next.ops);
        merge(&mut slot.edges, next.edges);
        self.bytes += self.slots[at].bytes();
    }

    fn forget_oldest(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.bytes -= slot.bytes();
        }
    }

    /// What was done in a window of seconds since 1970; a slot belongs to it when its middle does.
    pub(crate) fn window(&self, window: &Range<u64>) -> (Totals<OpId>, Totals<Edge>) {
        let (mut ops, mut edges) = (Totals::default(), Totals::default());
        for slot in self.within(window) {
            for (op, cell) in &slot.ops {
                ops.entry(*op).or_insert_with(Total::default).add(cell);
            }
            for (edge, cell) in &slot.edges {
                edges.entry(*edge).or_insert_with(Total::default).add(cell);
            }
        }
        (ops, edges)
    }

    fn within(&self, window: &Range<u64>) -> impl Iterator<Item = &Slot> {
        let window = window.clone();
        self.slots.iter().filter(move |slot| window.contains(&(slot.from_s + slot.long_s / 2)))
    }

    /// Requests and errors of a window over time: seconds since 1970, length, count, errors.
    pub(crate) fn course(
        &self,
        window: &Range<u64>,
        is_wanted: impl Fn(OpId) -> bool,
    ) -> Vec<(u64, u64, u64, u64)> {
        let sums = self.within(window).map(|slot| {
            let wanted = slot.ops.iter().filter(|(op, _)| is_wanted(**op));
            let sums = wanted.fold((0, 0), |(count, errors), (_, cell)| {
                (count + u64::from(cell.count), errors + u64::from(cell.errors))
            });
            (slot.from_s, slot.long_s, sums.0, sums.1)
        });
        sums.collect()
    }

    /// From when on there are figures.
    pub(crate) fn since_s(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.from_s)
    }
}

impl Slot {
    fn bytes(&self) -> usize {
        let durations = self.ops.values().chain(self.edges.values());
        durations.map(|cell| CELL_BYTES + cell.durations.bytes()).sum()
    }
}

/// Adds a sample, and says by how many bytes that has grown.
fn add<K: Eq + Hash>(cells: &mut Cells<K>, key: K, sample: Sample) -> usize {
    let mut grown = 0;
    let cell = cells.entry(key).or_insert_with(|| {
        grown = CELL_BYTES;
        Cell::default()
    });
    cell.count = cell.count.saturating_add(1);
    cell.errors = cell.errors.saturating_add(u32::from(sample.is_error));
    cell.sum_us = cell.sum_us.saturating_add(sample.duration_ns / 1000);
    grown + cell.durations.add(class(sample.duration_ns))
}

fn merge<K: Eq + Hash>(into: &mut Cells<K>, from: Cells<K>) {
    for (key, cell) in from {
        let sum = into.entry(key).or_default();
        sum.count = sum.count.saturating_add(cell.count);
        sum.errors = sum.errors.saturating_add(cell.errors);
        sum.sum_us = sum.sum_us.saturating_add(cell.sum_us);
        sum.own_us = sum.own_us.saturating_add(cell.own_us);
        sum.durations.merge(&cell.durations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: u64 = 1_000_000_000;
    const EDGE: Edge = Edge { from: 0, to: 1, protocol: 0 };
    const BEGIN: u64 = 1_700_000_000;

    fn sample(is_error: bool) -> Sample {
        Sample { duration_ns: 1_000_000, is_error }
    }

    #[test]
    fn a_window_has_what_ended_in_it() {
        let mut slots = Slots::new(1 << 20);
        for second in 0..100 {
            let at = (BEGIN + second) * NS;
            slots.op(at, at, 7, sample(second % 10 == 0));
            slots.edge(at, at, EDGE, sample(false));
            slots.own_time(at, at, 7, 400_000);
        }
        let (ops, edges) = slots.window(&(BEGIN..BEGIN + 100));
        assert_eq!((ops[&7].count, ops[&7].errors, ops[&7].own_us), (100, 10, 40_000));
        assert_eq!(edges[&EDGE].count, 100);
        let (ops, _) = slots.window(&(BEGIN + 20..BEGIN + 50));
        assert_eq!(ops[&7].count, 30);
        let course = slots.course(&(BEGIN..BEGIN + 30), |op| op == 7);
        assert_eq!(course[1], (BEGIN + 10, 10, 10, 1));
        assert_eq!(course.len(), 3);
    }

    #[test]
    fn odd_clocks_harm_nobody() {
        let mut slots = Slots::new(1 << 20);
        let now = BEGIN * NS;
        for time in [0, now + 3_600 * NS, u64::MAX, now - KEPT_S * NS * 2] {
            slots.op(time, now, 7, sample(false));
        }
        assert_eq!(slots.too_late, 2);
        assert_eq!(slots.window(&(BEGIN..BEGIN + 10)).0[&7].count, 2);
        // Out of order, into the middle.
        for second in [50, 10, 30, 31] {
            slots.op((BEGIN + second) * NS, (BEGIN + 60) * NS, 7, sample(false));
        }
        assert_eq!(slots.window(&(BEGIN + 10..BEGIN + 60)).0[&7].count, 4);
    }

    #[test]
    fn memory_is_bounded_and_sums_stay_right() {
        let mut slots = Slots::new(400_000);
        for second in (0..3_600).step_by(5) {
            for op in 0..100 {
                let at = (BEGIN + second) * NS;
                slots.op(at, at, op, sample(false));
            }
        }
        assert!(slots.bytes() <= 500_000, "{}", slots.bytes());
        let recount: usize = slots.slots.iter().map(Slot::bytes).sum();
        assert_eq!(recount, slots.bytes());
        let (ops, _) = slots.window(&(0..u64::MAX));
        let count: u64 = ops.values().map(|total| total.count).sum();
        assert_eq!(count, 72_000);
        for later in 1..2_000 {
            let at = (BEGIN + later * SLOT_S) * NS;
            slots.op(at, at, 7, sample(false));
        }
        assert!(slots.slots.len() <= SLOTS_MAX);
    }
}
