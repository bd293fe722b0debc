//! Spans in memory, within a budget: young ones by age, and after that those of telling traces.

mod block;
mod find;
mod pack;
pub(crate) mod search;

pub(crate) use block::{Block, Open, Put, Row, flag, join_trace};
use find::TagWanted;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use std::{collections::VecDeque, sync::Arc};

/// What was kept, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evictions {
    /// Spans of ordinary traces that made room.
    pub(crate) ordinary: u64,
    /// Spans of telling traces that were moved to where they stay longer.
    pub(crate) moved: u64,
    /// Spans of telling traces that made room for newer ones.
    pub(crate) telling: u64,
}

/// All blocks of a moment, the oldest first. What it holds stays as it is while it is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) blocks: Vec<Arc<Block>>,
}

#[derive(Debug)]
pub(crate) struct Store {
    open: Open,
    young: VecDeque<Arc<Block>>,
    kept_open: Open,
    kept: VecDeque<Arc<Block>>,
    /// What a copy of the open ones was made of, for who asks again before anything has changed.
    copies: [Option<Arc<Block>>; 2],
    young_bytes: usize,
    kept_bytes: usize,
    bytes_max: usize,
    block_bytes: usize,
    telling: Telling,
    pub(crate) evictions: Evictions,
    sealed: Vec<Arc<Block>>,
}

impl Store {
    pub(crate) fn new(bytes_max: usize) -> Self {
        // Small enough that what is dropped together is little, large enough that texts are shared.
        let block_bytes = (bytes_max / 64).clamp(32 << 10, 1 << 20);
        Self {
            open: Open::default(),
            young: VecDeque::new(),
            kept_open: Open::default(),
            kept: VecDeque::new(),
            copies: [None, None],
            young_bytes: 0,
            kept_bytes: 0,
            bytes_max,
            block_bytes,
            telling: Telling::new(bytes_max / 256),
            evictions: Evictions::default(),
            sealed: Vec::new(),
        }
    }

    /// The block that new spans go into.
    pub(crate) fn open(&mut self) -> &mut Open {
        if self.open.bytes() >= self.block_bytes || !self.open.has_room() {
            self.seal();
        }
        &mut self.open
    }

    /// Puts a span into the open block, whose process it names.
    pub(crate) fn put<'t>(
        &mut self,
        span: &Put<'_>,
        items: impl ExactSizeIterator<Item = crate::batch::Item<&'t str>>,
    ) {
        if span.flags & flag::TELLING != 0 {
            self.telling.add(span.trace);
        }
        self.copies[1] = None;
        self.open.push(span, items);
    }

    /// Ends the open block, and makes room.
    pub(crate) fn seal(&mut self) {
        if self.open.block.rows.is_empty() {
            return;
        }
        let block = Arc::new(self.open.seal());
        self.copies[1] = None;
        self.sealed.push(Arc::clone(&block));
        self.young_bytes += block.bytes();
        self.young.push_back(block);
        self.make_room();
    }

    /// The blocks that were ended since somebody asked.
    pub(crate) fn take_sealed(&mut self) -> Vec<Arc<Block>> {
        std::mem::take(&mut self.sealed)
    }

    /// What the spans and their tables weigh.
    pub(crate) fn bytes(&self) -> usize {
        let copies: usize = self.copies.iter().flatten().map(|block| block.bytes()).sum();
        self.young_bytes
            + self.kept_bytes
            + self.open.bytes()
            + self.kept_open.bytes()
            + self.telling.bytes()
            + copies
    }

    /// Spans that are here, and those of them that are kept for what they tell.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let rows = |blocks: &VecDeque<Arc<Block>>| -> usize {
            blocks.iter().map(|block| block.rows.len()).sum()
        };
        let kept = rows(&self.kept) + self.kept_open.block.rows.len();
        (rows(&self.young) + self.open.block.rows.len() + kept, kept)
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let opens = [&self.kept_open.block, &self.open.block];
        for (copy, open) in self.copies.iter_mut().zip(opens) {
            if copy.as_ref().is_none_or(|copy| copy.rows.len() != open.rows.len()) {
                *copy = Some(Arc::new(open.clone()));
            }
        }
        let [kept, young] = &self.copies;
        let all = self.kept.iter().chain(kept).chain(&self.young).chain(young);
        Snapshot { blocks: all.filter(|block| !block.rows.is_empty()).cloned().collect() }
    }

    /// Room for two open blocks, with their tables, and for copies of them.
    fn make_room(&mut self) {
        let max = self.bytes_max.saturating_sub(5 * self.block_bytes + self.telling.bytes());
        while self.young_bytes + self.kept_bytes > max {
            let is_kept_full = self.kept_bytes > max / 2;
            if is_kept_full || self.young.len() < 2 {
                let Some(block) = self.kept.pop_front() else { return };
                self.kept_bytes -= block.bytes();
                self.evictions.telling += block.rows.len() as u64;
            } else if let Some(block) = self.young.pop_front() {
                self.young_bytes -= block.bytes();
                self.move_telling(&block);
            }
        }
    }

    /// What is telling of an old block goes on, the rest ends here.
    fn move_telling(&mut self, block: &Block) {
        let mut processes: Vec<Option<u16>> = vec![None; block.processes.len()];
        for row in &block.rows {
            let trace = join_trace(row.trace);
            if !self.telling.has(trace) {
                self.evictions.ordinary += 1;
                continue;
            }
            if self.kept_open.bytes() >= self.block_bytes || !self.kept_open.has_room() {
                let block = Arc::new(self.kept_open.seal());
                self.kept_bytes += block.bytes();
                self.kept.push_back(block);
                processes.fill(None);
            }
            let Some(old) = block.process(row) else { continue };
            let process = *processes[usize::from(row.process)].get_or_insert_with(|| {
                let items: Vec<_> = block.process_items(old).collect();
                self.kept_open.process(old.node, block.service(row), items.into_iter())
            });
            let items: Vec<_> = block.items(row).collect();
            let put = Put {
                trace,
                id: row.id,
                parent: row.parent,
                start_ns: row.start_ns,
                duration_ns: row.duration_ns,
                op: row.op,
                name: block.text(row.name),
                process,
                flags: row.flags,
            };
            self.kept_open.push(&put, items.into_iter());
            self.evictions.moved += 1;
        }
        self.copies[0] = None;
    }
}

/// The traces that have a telling span: two sets, the older of which goes when the newer is full.
#[derive(Debug)]
struct Telling {
    new: HashSet<u128, FixedState>,
    old: HashSet<u128, FixedState>,
    each_max: usize,
}

impl Telling {
    fn new(bytes_max: usize) -> Self {
        let each_max = (bytes_max / 2 / 40).max(1000);
        Self { new: HashSet::default(), old: HashSet::default(), each_max }
    }

    fn add(&mut self, trace: u128) {
        if self.new.len() >= self.each_max {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(trace);
    }

    fn has(&self, trace: u128) -> bool {
        self.new.contains(&trace) || self.old.contains(&trace)
    }

    fn bytes(&self) -> usize {
        (self.new.capacity() + self.old.capacity()) * 8 / 7 * 17
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Item, Value};

    fn put(store: &mut Store, id: u64, flags: u16) {
        let open = store.open();
        let process = open.process(0, "shop", [].into_iter());
        let text = format!("some text of {id} that comes once");
        let items = [Item::Tag("k", Value::Text(text.as_str())), Item::Tag("s", Value::Int(200))];
        let span = Put {
            trace: u128::from(id / 4 + 1),
            id: id + 1,
            parent: 0,
            start_ns: id,
            duration_ns: 1,
            op: 0,
            name: "work",
            process,
            flags,
        };
        store.put(&span, items.into_iter());
    }

    /// Of 100 traces one has a failure; all its spans outlive all others.
    #[test]
    fn telling_traces_stay_longer_and_all_spans_are_accounted_for() {
        let mut store = Store::new(4 << 20);
        let all = 200_000;
        for id in 0..all {
            put(&mut store, id, if id % 400 == 1 { flag::ERROR } else { 0 });
            if id % 10_000 == 0 {
                store.snapshot();
                assert!(store.bytes() <= 4 << 20, "{}", store.bytes());
            }
        }
        let (here, kept) = store.counts();
        let Evictions { ordinary, telling, .. } = store.evictions;
        assert_eq!(here as u64 + ordinary + telling, all);
        assert!(kept > 500, "{kept}");
        let snapshot = store.snapshot();
        let rows = || snapshot.blocks.iter().flat_map(|block| &block.rows);
        assert_eq!(rows().count(), here);
        let oldest = rows().map(|row| row.start_ns).min().unwrap();
        let whole = rows().filter(|row| row.trace == [0, oldest / 4 + 1]).count();
        assert_eq!(whole, 4);
        let oldest_ordinary = rows().filter(|row| row.start_ns / 4 % 100 != 0);
        assert!(oldest < oldest_ordinary.map(|row| row.start_ns).min().unwrap());
    }

    #[test]
    fn where_everything_is_telling_the_budget_holds_as_well() {
        let mut store = Store::new(2 << 20);
        for id in 0..100_000 {
            put(&mut store, id, flag::RARE);
        }
        assert!(store.bytes() <= 2 << 20, "{}", store.bytes());
        let Evictions { ordinary, telling, .. } = store.evictions;
        assert_eq!(store.counts().0 as u64 + ordinary + telling, 100_000);
    }

    #[test]
    fn a_snapshot_stays_as_it_is() {
        let mut store = Store::new(4 << 20);
        put(&mut store, 1, 0);
        let snapshot = store.snapshot();
        put(&mut store, 2, 0);
        assert_eq!(snapshot.blocks[0].rows.len(), 1);
        assert_eq!(store.snapshot().blocks[0].rows.len(), 2);
        store.seal();
        assert_eq!(store.take_sealed().len(), 1);
        assert_eq!(store.snapshot().blocks[0].rows.len(), 2);
    }
}
