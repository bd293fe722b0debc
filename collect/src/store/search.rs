//! Finding traces: a span that has everything that is asked for, the newest first.

use super::{Block, Row, Snapshot, TagWanted, flag, join_trace};
use crate::batch::Kind;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use std::{ops::Range, sync::Arc};

/// What a span must have. All of it, and what is not said is not asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) service: Option<String>,
    /// By its own name, or as one of these operations.
    pub(crate) operation: Option<(String, Vec<u32>)>,
    pub(crate) kind: Option<Kind>,
    pub(crate) is_error: bool,
    /// One of the telling ones: slow, rare or failed.
    pub(crate) flags: u16,
    pub(crate) least_ns: u64,
    pub(crate) most_ns: Option<u64>,
    /// When it began, in nanoseconds since 1970.
    pub(crate) window: Option<Range<u64>>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) limit: usize,
}

/// A span, and the block that it stands in.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) block: Arc<Block>,
    pub(crate) row: Row,
}

/// Spans of one trace that are looked at together; more would be no picture any more.
pub(crate) const TRACE_SPANS_MAX: usize = 20_000;

impl Snapshot {
    /// The traces that are found, the newest first.
    pub(crate) fn search(&self, query: &Query) -> Vec<u128> {
        let mut found: HashMap<u128, u64, FixedState> = HashMap::default();
        // What is kept for what it tells stands in front, and is as old as it happens to be: what has
        // been found of one part cannot end the other.
        let mut full_from = 0;
        for block in self.blocks.iter().rev() {
            if found.len() >= query.limit && block.until_ns < full_from {
                continue;
            }
            let Some(wanted) = Wanted::of(query, block) else { continue };
            for row in block.rows.iter().rev().filter(|row| wanted.is(row)) {
                let start = found.entry(join_trace(row.trace)).or_insert(row.start_ns);
                *start = (*start).max(row.start_ns);
            }
            if found.len() > 4 * query.limit.max(64) {
                keep_newest(&mut found, query.limit);
            }
            if found.len() >= query.limit {
                full_from = found.values().copied().min().unwrap_or(0);
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|(trace, start)| (std::cmp::Reverse(*start), *trace));
        found.into_iter().take(query.limit).map(|(trace, _)| trace).collect()
    }

    /// All spans of these traces, in no order.
    pub(crate) fn spans(&self, traces: &[u128]) -> HashMap<u128, Vec<Stored>, FixedState> {
        let wanted: HashSet<u128, FixedState> = traces.iter().copied().collect();
        let mut found: HashMap<u128, Vec<Stored>, FixedState> = HashMap::default();
        let only = <[u128; 1]>::try_from(traces).ok();
        for block in &self.blocks {
            for row in &block.rows {
                let trace = join_trace(row.trace);
                let is_it = match only {
                    Some([only]) => trace == only,
                    None => wanted.contains(&trace),
                };
                if is_it {
                    let spans = found.entry(trace).or_default();
                    if spans.len() < TRACE_SPANS_MAX {
                        spans.push(Stored { block: Arc::clone(block), row: *row });
                    }
                }
            }
        }
        found
    }

    /// Traces whose ids end so: people copy short ones.
    pub(crate) fn traces_ending(&self, low: u64) -> Vec<u128> {
        let rows = self.blocks.iter().flat_map(|block| &block.rows);
        let found: HashSet<u128, FixedState> =
            rows.filter(|row| row.trace[1] == low).map(|row| join_trace(row.trace)).collect();
        found.into_iter().take(8).collect()
    }
}

fn keep_newest(found: &mut HashMap<u128, u64, FixedState>, limit: usize) {
    let mut starts: Vec<u64> = found.values().copied().collect();
    let at = starts.len().saturating_sub(limit.max(1));
    let (_, least, _) = starts.select_nth_unstable(at);
    let least = *least;
    found.retain(|_, start| *start >= least);
}

/// A query in the numbers of one block.
struct Wanted<'q> {
    query: &'q Query,
    block: &'q Block,
    /// By process.
    processes: Vec<bool>,
    name: Option<u32>,
    tags: Vec<TagWanted<'q>>,
}

impl<'q> Wanted<'q> {
    /// None when nothing of the block can be wanted.
    fn of(query: &'q Query, block: &'q Block) -> Option<Self> {
        if let Some(window) = &query.window
            && (block.until_ns < window.start || block.from_ns >= window.end)
        {
            return None;
        }
        let mut processes = vec![true; block.processes.len()];
        if let Some(service) = &query.service {
            let id = block.find_text(service)?;
            for (is, process) in processes.iter_mut().zip(&block.processes) {
                *is = process.is_of(id);
            }
            processes.iter().any(|is| *is).then_some(())?;
        }
        let mut tags = Vec::new();
        for (key, value) in &query.tags {
            let tag = TagWanted::of(block, block.find_text(key)?, value);
            if !block.may_have(&tag) {
                return None;
            }
            tags.push(tag);
        }
        let name = query.operation.as_ref().and_then(|(name, _)| block.find_text(name));
        Some(Self { query, block, processes, name, tags })
    }

    fn is(&self, row: &Row) -> bool {
        let query = self.query;
        self.processes[usize::from(row.process)]
            && row.duration_ns >= query.least_ns
            && query.most_ns.is_none_or(|most| row.duration_ns <= most)
            && (!query.is_error || row.has(flag::ERROR))
            && (query.flags == 0 || row.has(query.flags))
            && query.kind.is_none_or(|kind| row.kind() == kind)
            && query.window.as_ref().is_none_or(|window| window.contains(&row.start_ns))
            && query
                .operation
                .as_ref()
                .is_none_or(|(_, ops)| self.name == Some(row.name) || ops.contains(&row.op))
            && self.tags.iter().all(|tag| self.block.has_tag(row, tag))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Open, Put};
    use super::*;
    use crate::batch::{Item, Value};

    fn snapshot() -> Snapshot {
        let mut blocks = vec![];
        for part in 0..4u64 {
            let mut open = Open::default();
            for n in 0..100 {
                let id = part * 100 + n;
                let service = ["shop", "stock"][usize::from(n % 2 == 1)];
                let process = open.process(0, service, [].into_iter());
                let value = format!("v{id}");
                let items = [
                    Item::Tag("id", Value::Text(value.as_str())),
                    Item::Tag("http.status_code", Value::Int(200 + (n % 4).cast_signed())),
                ];
                let put = Put {
                    trace: u128::from(id / 2 + 1),
                    id: id + 1,
                    parent: 0,
                    start_ns: id * 10,
                    duration_ns: id,
                    op: u32::try_from(n % 2).unwrap(),
                    name: if n % 2 == 0 { "/a" } else { "/b" },
                    process,
                    flags: 2 | if n == 50 { flag::ERROR } else { 0 },
                };
                open.push(&put, items.into_iter());
            }
            blocks.push(Arc::new(open.seal()));
        }
        Snapshot { blocks }
    }

    #[test]
    fn all_that_is_asked_for_must_be_there() {
        let snapshot = snapshot();
        let find = |query: Query| snapshot.search(&Query { limit: 1000, ..query });
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(find(Query::default()).len(), 200);
        assert_eq!(find(Query { service: text("shop"), ..Query::default() }).len(), 200);
        assert_eq!(find(Query { service: text("nobody"), ..Query::default() }).len(), 0);
        assert_eq!(find(Query { is_error: true, ..Query::default() }), [176, 126, 76, 26]);
        let by_name = Query { operation: Some(("/b".into(), vec![])), ..Query::default() };
        assert_eq!(find(Query { service: text("stock"), ..by_name.clone() }).len(), 200);
        assert_eq!(find(Query { service: text("shop"), ..by_name }).len(), 0);
        let by_op = Query { operation: Some(("shaped".into(), vec![0])), ..Query::default() };
        assert_eq!(find(by_op).len(), 200);
        let tag = |key: &str, value: &str| Query {
            tags: vec![(key.into(), value.into())],
            ..Query::default()
        };
        assert_eq!(find(tag("id", "v77")), [39]);
        assert_eq!(find(tag("http.status_code", "203")).len(), 100);
        assert_eq!(find(tag("id", "v")), [0; 0]);
        assert_eq!(find(Query { least_ns: 390, ..Query::default() }).len(), 5);
        assert_eq!(find(Query { window: Some(100..140), ..Query::default() }), [7, 6]);
        assert_eq!(find(Query { most_ns: Some(1), ..Query::default() }), [1]);
        assert_eq!(find(Query { kind: Some(Kind::Client), ..Query::default() }), [0; 0]);
    }

    /// What passes over a block must not pass over what is there, however it is written.
    #[test]
    fn every_kind_of_value_is_found_and_no_other() {
        let kinds = [
            ("text", Value::Text("seldom"), "seldom", "seldo"),
            ("int", Value::Int(-7), "-7", "7"),
            ("large", Value::Int(i64::MAX), "9223372036854775807", "9223372036854775806"),
            ("float", Value::Float(1.5), "1.5", "1.25"),
            ("zero", Value::Float(-0.0), "0", "1"),
            ("is", Value::Bool(true), "true", "false"),
        ];
        let mut open = Open::default();
        let process = open.process(0, "shop", [Item::Tag("host", Value::Int(3))].into_iter());
        let items = kinds.map(|(key, value, ..)| Item::Tag(key, value));
        let put = Put {
            trace: 1,
            id: 1,
            parent: 0,
            start_ns: 1,
            duration_ns: 1,
            op: 0,
            name: "/",
            process,
            flags: 2,
        };
        open.push(&put, items.into_iter());
        let snapshot = Snapshot { blocks: vec![Arc::new(open.seal())] };
        let find = |key: &str, value: &str| {
            let tags = vec![(key.to_owned(), value.to_owned())];
            snapshot.search(&Query { tags, limit: 9, ..Query::default() }).len()
        };
        for (key, _, is, is_not) in kinds {
            assert_eq!((find(key, is), find(key, is_not)), (1, 0), "{key}");
        }
        assert_eq!((find("host", "3"), find("host", "4"), find("int", "3")), (1, 0, 0));
    }

    #[test]
    fn the_newest_come_first_whatever_stands_in_front() {
        let mut snapshot = snapshot();
        let three = |snapshot: &Snapshot| snapshot.search(&Query { limit: 3, ..Query::default() });
        assert_eq!(three(&snapshot), [200, 199, 198]);
        snapshot.blocks.reverse();
        assert_eq!(three(&snapshot), [200, 199, 198]);
    }

    #[test]
    fn traces_are_found_whole_and_by_the_end_of_their_ids() {
        let snapshot = snapshot();
        let spans = snapshot.spans(&[5, 7]);
        assert_eq!((spans[&5].len(), spans[&7].len(), spans.len()), (2, 2, 2));
        assert_eq!(snapshot.spans(&[9])[&9].len(), 2);
        assert!(snapshot.spans(&[9999]).is_empty());
        assert_eq!(snapshot.traces_ending(5), [5]);
    }
}
