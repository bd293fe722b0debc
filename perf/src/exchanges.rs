//! Exchanges of the protocols beside HTTP/1: counted by operation and outcome, and how long they
//! took. Their cells exist only for protocols that are read at all, and their series are shown
//! only when they have counted something, so that a long list of operations costs nobody a long
//! page of zeroes. Their memory is taken when something is counted first: documents of rules may say
//! of any protocol that it is read, and most are not.

use crate::{
    histogram::{Histogram, HistogramSnapshot},
    labels::{DIRECTIONS, EXCHANGE_OUTCOMES},
};
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The label values of one protocol: its name, and the closed list of its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolTable {
    /// Value of the label `protocol`.
    pub name: &'static str,
    /// Values of the label `operation`, by index.
    pub operations: &'static [&'static str],
}

/// What is measured of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeStage {
    /// From its request's head until its response had been forwarded whole.
    Duration,
    /// What netra itself took of that: the heads of both.
    Overhead,
}
const STAGES: usize = 2;

/// All that one shard records of exchanges. One writer (the shard), any number of readers.
#[derive(Debug, Default)]
pub struct Exchanges {
    rows: Box<[Row]>,
}

/// One protocol, and what was counted of it.
#[derive(Debug)]
struct Row {
    table: ProtocolTable,
    counts: OnceLock<Box<Counts>>,
}

/// One protocol's cells.
#[derive(Debug)]
struct Counts {
    /// By direction, operation and outcome.
    cells: Box<[AtomicU64]>,
    /// By direction and stage.
    stages: [Histogram; DIRECTIONS.len() * STAGES],
}

impl Counts {
    #[cold]
    fn of(table: &ProtocolTable) -> Box<Self> {
        let cells = DIRECTIONS.len() * table.operations.len() * EXCHANGE_OUTCOMES.len();
        let cells = (0..cells).map(|_| AtomicU64::new(0)).collect();
        Box::new(Self { cells, stages: Default::default() })
    }
}

/// One series: its labels `direction`, `protocol`, `operation`, `outcome`, and its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The values of its labels.
    pub labels: [&'static str; 4],
    /// Its count.
    pub total: u64,
}

impl Exchanges {
    /// For these protocols, which [`Exchanges::count`] names by their index here.
    pub fn new(tables: &[ProtocolTable]) -> Self {
        let row = |table: &ProtocolTable| Row { table: *table, counts: OnceLock::new() };
        Self { rows: tables.iter().map(row).collect() }
    }

    /// Counts an exchange that is over; outcomes are those of
    /// [`EXCHANGE_OUTCOMES`]. Only the shard that owns these cells may call it.
    #[inline]
    pub fn count(&self, protocol: usize, direction: usize, operation: usize, outcome: usize) {
        let Some(row) = self.rows.get(protocol) else { return };
        let cell = row.cell(direction, operation, outcome);
        if let Some(cell) = row.counts().cells.get(cell) {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Counts a duration in nanoseconds. Only the shard that owns these cells may call it.
    #[inline]
    pub fn record_ns(&self, protocol: usize, direction: usize, stage: ExchangeStage, ns: u64) {
        let Some(row) = self.rows.get(protocol) else { return };
        if let Some(stage) = row.counts().stages.get(direction * STAGES + stage as usize) {
            stage.record_ns(ns);
        }
    }

    /// The protocols, by index.
    pub fn protocols(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().map(|row| row.table.name)
    }

    /// Every cell of every protocol, in an order that is the same for all shards.
    pub fn counts(&self) -> impl Iterator<Item = Counted> {
        self.rows.iter().flat_map(Row::counted)
    }

    /// What was measured of a protocol's exchanges; None is nothing yet.
    pub fn stage(
        &self,
        protocol: usize,
        direction: usize,
        stage: ExchangeStage,
    ) -> Option<HistogramSnapshot> {
        let counts = self.rows.get(protocol)?.counts.get()?;
        Some(counts.stages.get(direction * STAGES + stage as usize)?.snapshot())
    }
}

impl Row {
    /// Its cells, made where they are needed first.
    #[inline]
    fn counts(&self) -> &Counts {
        self.counts.get_or_init(|| Counts::of(&self.table))
    }

    fn cell(&self, direction: usize, operation: usize, outcome: usize) -> usize {
        let row = direction * self.table.operations.len() + operation;
        row * EXCHANGE_OUTCOMES.len() + outcome
    }

    /// What was counted by operation and outcome: nothing yet is zeroes.
    fn counted(&self) -> impl Iterator<Item = Counted> {
        let (name, operations) = (self.table.name, self.table.operations);
        let labels = DIRECTIONS.iter().flat_map(move |direction| {
            operations.iter().flat_map(move |operation| {
                EXCHANGE_OUTCOMES
                    .iter()
                    .map(move |outcome| [*direction, name, *operation, *outcome])
            })
        });
        let cells = self.counts.get().map_or(&[][..], |counts| &counts.cells);
        let totals = cells.iter().map(|cell| cell.load(Relaxed)).chain(std::iter::repeat(0));
        labels.zip(totals).map(|(labels, total)| Counted { labels, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: [ProtocolTable; 2] = [
        ProtocolTable { name: "redis", operations: &["GET", "SET", "other"] },
        ProtocolTable { name: "dubbo", operations: &["call"] },
    ];

    #[test]
    fn each_cell_has_labels_of_its_own_and_counts_alone() {
        let exchanges = Exchanges::new(&TABLES);
        exchanges.count(0, 1, 2, 1);
        exchanges.count(1, 0, 0, 0);
        exchanges.count(1, 0, 0, 0);
        let seen: Vec<Counted> = exchanges.counts().filter(|cell| cell.total > 0).collect();
        assert_eq!(
            seen,
            [
                Counted { labels: ["outbound", "redis", "other", "error"], total: 1 },
                Counted { labels: ["inbound", "dubbo", "call", "ok"], total: 2 },
            ]
        );
        let mut labels: Vec<_> = exchanges.counts().map(|cell| cell.labels).collect();
        let count = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!((count, labels.len()), (24, 24), "directions x operations x outcomes");
    }

    #[test]
    fn durations_are_kept_by_protocol_direction_and_stage() {
        let exchanges = Exchanges::new(&TABLES);
        exchanges.record_ns(1, 1, ExchangeStage::Overhead, 5_000);
        let count = |protocol, direction, stage| {
            exchanges.stage(protocol, direction, stage).map(|stage| stage.count())
        };
        assert_eq!(count(1, 1, ExchangeStage::Overhead), Some(1));
        assert_eq!(count(1, 1, ExchangeStage::Duration), Some(0));
        assert_eq!(count(0, 1, ExchangeStage::Overhead), None, "nothing was counted of it");
        assert!(exchanges.stage(2, 0, ExchangeStage::Duration).is_none());
        // What no table has is nobody's.
        exchanges.count(2, 0, 0, 0);
        exchanges.count(0, 0, 99, 0);
    }
}
