//! A block of spans: a row of 64 bytes for each, what they have beside that packed behind one another,
//! and the texts that come again once. A block stands by itself: it is searched, kept, written to disk
//! and dropped as a whole.

use super::pack::{put, put_signed, take, take_8, take_piece, take_signed};
use crate::batch::{Item, Kind, Value};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// What a row's flags say.
pub(crate) mod flag {
    pub(crate) const ERROR: u16 = 1 << 3;
    pub(crate) const SLOW: u16 = 1 << 4;
    pub(crate) const RARE: u16 = 1 << 5;
    /// Something was too long or too many, and is not there.
    pub(crate) const CUT: u16 = 1 << 6;
    /// The lowest three bits are the kind.
    pub(crate) const KIND: u16 = 7;
    /// What is telling, so that the trace stays longer than others.
    pub(crate) const TELLING: u16 = ERROR | SLOW | RARE;
}

/// What every span has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) trace: [u64; 2],
    pub(crate) id: u64,
    pub(crate) parent: u64,
    pub(crate) start_ns: u64,
    pub(crate) duration_ns: u64,
    /// In the tables of figures.
    pub(crate) op: u32,
    /// Among the texts of the block.
    pub(crate) name: u32,
    pub(super) items: u32,
    pub(crate) process: u16,
    pub(crate) flags: u16,
}

const _: () = assert!(size_of::<Row>() == 64);

impl Row {
    pub(crate) fn kind(&self) -> Kind {
        Kind::of_number(u64::from(self.flags & flag::KIND))
    }

    pub(crate) fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }
}

/// Who sent spans of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) node: u32,
    service: u32,
    pub(super) items: u32,
}

impl Process {
    /// Whether its service has this name, by number.
    pub(crate) fn is_of(&self, service: u32) -> bool {
        self.service == service
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) rows: Vec<Row>,
    pub(crate) processes: Vec<Process>,
    pub(super) items: Vec<u8>,
    texts: Vec<u8>,
    /// Where each text ends.
    ends: Vec<u32>,
    /// The earliest start and the latest, in nanoseconds.
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
}

/// A span on its way into a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Put<'p> {
    pub(crate) trace: u128,
    pub(crate) id: u64,
    pub(crate) parent: u64,
    pub(crate) start_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) op: u32,
    pub(crate) name: &'p str,
    pub(crate) process: u16,
    pub(crate) flags: u16,
}

impl Block {
    pub(crate) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.processes.capacity() * size_of::<Process>()
            + self.items.capacity()
            + self.texts.capacity()
            + self.ends.capacity() * 4
            + size_of::<Self>()
    }

    pub(crate) fn text(&self, id: u32) -> &str {
        let id = id as usize;
        let from = id.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let until = self.ends.get(id).copied().unwrap_or(0);
        let bytes = self.texts.get(from.unwrap_or(0) as usize..until as usize);
        str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }

    /// The number of a text that the block has.
    pub(crate) fn find_text(&self, text: &str) -> Option<u32> {
        (0..count(self.ends.len())).find(|id| self.text(*id) == text)
    }

    pub(crate) fn process(&self, row: &Row) -> Option<&Process> {
        self.processes.get(usize::from(row.process))
    }

    pub(crate) fn service(&self, row: &Row) -> &str {
        self.process(row).map_or("", |process| self.service_of(process))
    }

    pub(crate) fn service_of(&self, process: &Process) -> &str {
        self.text(process.service)
    }

    pub(crate) fn items(&self, row: &Row) -> Items<'_> {
        self.items_at(row.items)
    }

    pub(crate) fn process_items(&self, process: &Process) -> Items<'_> {
        self.items_at(process.items)
    }

    fn items_at(&self, at: u32) -> Items<'_> {
        let mut bytes = self.items.get(at as usize..).unwrap_or_default();
        let left = take(&mut bytes).unwrap_or(0);
        Items { block: self, bytes, left }
    }

    /// Everything as bytes; numbers have the order of this machine's kind of disk: little-endian.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes() + 64);
        for number in [
            self.rows.len(),
            self.processes.len(),
            self.items.len(),
            self.texts.len(),
            self.ends.len(),
        ] {
            put(&mut out, number as u64);
        }
        for row in &self.rows {
            for word in
                [row.trace[0], row.trace[1], row.id, row.parent, row.start_ns, row.duration_ns]
            {
                out.extend(word.to_le_bytes());
            }
            for word in [row.name, row.items] {
                out.extend(word.to_le_bytes());
            }
            out.extend(row.process.to_le_bytes());
            out.extend(row.flags.to_le_bytes());
        }
        for process in &self.processes {
            out.extend(process.service.to_le_bytes());
            out.extend(process.items.to_le_bytes());
        }
        self.ends.iter().for_each(|end| out.extend(end.to_le_bytes()));
        out.extend(&self.items);
        out.extend(&self.texts);
        out
    }

    /// What `write` has written; none when it is anything else. Nodes and operations are not in it.
    pub(crate) fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut counts = [0; 5];
        for number in &mut counts {
            *number = usize::try_from(take(&mut bytes)?).ok()?;
        }
        let [rows, processes, items, texts, ends] = counts;
        let wanted = rows.checked_mul(60)?.checked_add(processes.checked_mul(8)?)?;
        let wanted = wanted.checked_add(ends.checked_mul(4)?)?;
        (wanted.checked_add(items)?.checked_add(texts)? == bytes.len()).then_some(())?;
        let mut block = Self { from_ns: u64::MAX, ..Self::default() };
        for _ in 0..rows {
            let row = read_row(&mut bytes)?;
            block.from_ns = block.from_ns.min(row.start_ns);
            block.until_ns = block.until_ns.max(row.start_ns);
            block.rows.push(row);
        }
        for _ in 0..processes {
            let service = take_4(&mut bytes)?;
            block.processes.push(Process { node: 0, service, items: take_4(&mut bytes)? });
        }
        for _ in 0..ends {
            block.ends.push(take_4(&mut bytes)?);
        }
        block.items = take_piece(&mut bytes, items)?.to_vec();
        block.texts = bytes.to_vec();
        let is_whole = block.ends.is_sorted()
            && block.ends.last().is_none_or(|end| *end as usize <= texts)
            && block.rows.iter().all(|row| usize::from(row.process) < processes);
        is_whole.then_some(block)
    }
}

fn take_4(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take_piece(bytes, 4)?.try_into().ok()?))
}

fn take_2(bytes: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(take_piece(bytes, 2)?.try_into().ok()?))
}

fn read_row(bytes: &mut &[u8]) -> Option<Row> {
    let mut word = || take_8(bytes).map(u64::from_le_bytes);
    Some(Row {
        trace: [word()?, word()?],
        id: word()?,
        parent: word()?,
        start_ns: word()?,
        duration_ns: word()?,
        op: 0,
        name: take_4(bytes)?,
        items: take_4(bytes)?,
        process: take_2(bytes)?,
        flags: take_2(bytes)?,
    })
}

/// What a span or a process has, out of a block.
#[derive(Clone, Debug)]
pub(crate) struct Items<'b> {
    block: &'b Block,
    bytes: &'b [u8],
    left: u64,
}

// How an item begins: the number of its first text, and below that one of these.
pub(super) const TEXT: u64 = 0;
pub(super) const TEXT_HERE: u64 = 1;
pub(super) const INT: u64 = 2;
pub(super) const FLOAT: u64 = 3;
pub(super) const TRUE: u64 = 4;
pub(super) const FALSE: u64 = 5;
pub(super) const EVENT: u64 = 6;
pub(super) const LINK: u64 = 7;

impl<'b> Items<'b> {
    fn read(&mut self) -> Option<Item<&'b str>> {
        let begin = take(&mut self.bytes)?;
        let text = |id: u64| self.block.text(u32::try_from(id).unwrap_or(u32::MAX));
        let key = text(begin >> 3);
        Some(match begin & 7 {
            TEXT => Item::Tag(key, Value::Text(text(take(&mut self.bytes)?))),
            TEXT_HERE => {
                let len = usize::try_from(take(&mut self.bytes)?).ok()?;
                let bytes = take_piece(&mut self.bytes, len)?;
                Item::Tag(key, Value::Text(str::from_utf8(bytes).ok()?))
            }
            INT => Item::Tag(key, Value::Int(take_signed(&mut self.bytes)?)),
            FLOAT => Item::Tag(key, Value::Float(f64::from_le_bytes(take_8(&mut self.bytes)?))),
            TRUE => Item::Tag(key, Value::Bool(true)),
            FALSE => Item::Tag(key, Value::Bool(false)),
            EVENT => Item::Event(take(&mut self.bytes)?, key),
            _ => {
                let [high, low, span] = [(); 3].map(|()| take_8(&mut self.bytes));
                let trace = [u64::from_le_bytes(high?), u64::from_le_bytes(low?)];
                Item::Link(join_trace(trace), u64::from_le_bytes(span?))
            }
        })
    }
}

impl<'b> Iterator for Items<'b> {
    type Item = Item<&'b str>;

    fn next(&mut self) -> Option<Item<&'b str>> {
        self.left = self.left.checked_sub(1)?;
        self.read()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "halves")]
pub(crate) fn split_trace(trace: u128) -> [u64; 2] {
    [(trace >> 64) as u64, trace as u64]
}

pub(crate) fn join_trace([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// A block that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(crate) block: Block,
    hasher: FixedState,
    text_ids: HashTable<u32>,
    /// How often a key had a text, and how often a new one.
    keys: Vec<(u32, u32)>,
    scratch: Vec<u8>,
}

/// Longer texts stand where they are used.
const SHARED_TEXT_MAX: usize = 128;

impl Open {
    pub(crate) fn bytes(&self) -> usize {
        let tables = self.text_ids.capacity() * 5 + self.keys.capacity() * 8;
        self.block.bytes() + tables + self.scratch.capacity()
    }

    /// Whether another process fits.
    pub(crate) fn has_room(&self) -> bool {
        self.block.processes.len() < usize::from(u16::MAX)
    }

    pub(crate) fn process<'t>(
        &mut self,
        node: u32,
        service: &str,
        items: impl ExactSizeIterator<Item = Item<&'t str>>,
    ) -> u16 {
        let service = self.text_id(service);
        let mut packed = std::mem::take(&mut self.scratch);
        packed.clear();
        self.pack(items, &mut packed);
        let known = self.block.processes.iter().position(|process| {
            let at = process.items as usize;
            process.service == service && self.block.items[at..].starts_with(&packed)
        });
        let index = known.unwrap_or_else(|| {
            let at = count(self.block.items.len());
            self.block.items.extend_from_slice(&packed);
            self.block.processes.push(Process { node, service, items: at });
            self.block.processes.len() - 1
        });
        self.scratch = packed;
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    pub(crate) fn push<'t>(
        &mut self,
        span: &Put<'_>,
        items: impl ExactSizeIterator<Item = Item<&'t str>>,
    ) {
        let name = self.text_id(span.name);
        let at = count(self.block.items.len());
        let mut packed = std::mem::take(&mut self.block.items);
        self.pack(items, &mut packed);
        let block = &mut self.block;
        block.items = packed;
        if block.rows.is_empty() {
            block.from_ns = span.start_ns;
        }
        block.from_ns = block.from_ns.min(span.start_ns);
        block.until_ns = block.until_ns.max(span.start_ns);
        block.rows.push(Row {
            trace: split_trace(span.trace),
            id: span.id,
            parent: span.parent,
            start_ns: span.start_ns,
            duration_ns: span.duration_ns,
            op: span.op,
            name,
            items: at,
            process: span.process,
            flags: span.flags,
        });
    }

    /// The block as it is to stay, and an empty one in its place.
    pub(crate) fn seal(&mut self) -> Block {
        let mut block = std::mem::take(&mut self.block);
        self.text_ids.clear();
        self.keys.clear();
        block.rows.shrink_to_fit();
        block.items.shrink_to_fit();
        block.texts.shrink_to_fit();
        block.ends.shrink_to_fit();
        block
    }

    fn pack<'t>(&mut self, items: impl ExactSizeIterator<Item = Item<&'t str>>, out: &mut Vec<u8>) {
        put(out, items.len() as u64);
        for item in items {
            match item {
                Item::Tag(key, value) => self.pack_tag(key, value, out),
                Item::Event(time_ns, name) => {
                    put(out, u64::from(self.text_id(name)) << 3 | EVENT);
                    put(out, time_ns);
                }
                Item::Link(trace, span) => {
                    put(out, LINK);
                    let [high, low] = split_trace(trace);
                    [high, low, span].iter().for_each(|word| out.extend(word.to_le_bytes()));
                }
            }
        }
    }

    fn pack_tag(&mut self, key: &str, value: Value<&str>, out: &mut Vec<u8>) {
        let id = self.text_id(key);
        let begin = |how: u64, out: &mut Vec<u8>| put(out, u64::from(id) << 3 | how);
        match value {
            Value::Text(text) if self.is_shared(id, text) => {
                begin(TEXT, out);
                let before = self.block.ends.len();
                let text = self.text_id(text);
                if self.block.ends.len() > before
                    && let Some(key) = self.keys.get_mut(id as usize)
                {
                    key.1 += 1;
                }
                put(out, u64::from(text));
            }
            Value::Text(text) => {
                begin(TEXT_HERE, out);
                put(out, text.len() as u64);
                out.extend_from_slice(text.as_bytes());
            }
            Value::Int(number) => {
                begin(INT, out);
                put_signed(out, number);
            }
            Value::Float(number) => {
                begin(FLOAT, out);
                out.extend(number.to_le_bytes());
            }
            Value::Bool(is) => begin(if is { TRUE } else { FALSE }, out),
        }
    }

    /// Whether it pays to keep the texts of a key once: not when they hardly come again.
    fn is_shared(&mut self, key: u32, text: &str) -> bool {
        let key = key as usize;
        if self.keys.len() <= key {
            self.keys.resize(key + 1, (0, 0));
        }
        let (seen, new) = &mut self.keys[key];
        *seen = seen.saturating_add(1);
        let is_various = *seen > 64 && *new > *seen / 8;
        text.len() <= SHARED_TEXT_MAX && (text.len() < 3 || !is_various)
    }

    fn text_id(&mut self, text: &str) -> u32 {
        let hash = self.hasher.hash_one(text);
        let Self { block, text_ids, hasher, .. } = self;
        if let Some(id) = text_ids.find(hash, |id| block.text(*id) == text) {
            return *id;
        }
        let id = count(block.ends.len());
        block.texts.extend_from_slice(text.as_bytes());
        block.ends.push(count(block.texts.len()));
        text_ids.insert_unique(hash, id, |id| hasher.hash_one(block.text(*id)));
        id
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_one(open: &mut Open, id: u64, items: &[Item<&str>]) {
        let process_items = [Item::Tag("host", Value::Text("h"))];
        let process = open.process(3, "shop", process_items.into_iter());
        let span = Put {
            trace: 7 << 64 | 9,
            id,
            parent: 1,
            start_ns: 1000 + id,
            duration_ns: 5,
            op: 2,
            name: "work",
            process,
            flags: 2 | flag::ERROR,
        };
        open.push(&span, items.iter().copied());
    }

    fn some_items() -> Vec<Item<&'static str>> {
        vec![
            Item::Tag("k", Value::Text("v")),
            Item::Tag("n", Value::Int(-5)),
            Item::Tag("f", Value::Float(0.5)),
            Item::Tag("t", Value::Bool(true)),
            Item::Tag("f", Value::Bool(false)),
            Item::Event(1_700_000_000_000_000_000, "thing"),
            Item::Tag("é", Value::Text("ü")),
            Item::Link(u128::MAX - 1, 77),
        ]
    }

    #[test]
    fn what_goes_in_comes_out_and_so_it_does_from_disk() {
        let mut open = Open::default();
        let long = "x".repeat(1000);
        let items = [some_items(), vec![Item::Tag("long", Value::Text(&long))]].concat();
        put_one(&mut open, 1, &items);
        put_one(&mut open, 2, &[]);
        let block = open.seal();
        assert!(open.block.rows.is_empty());
        let read = Block::read(&block.write()).unwrap();
        for block in [&block, &read] {
            let row = &block.rows[0];
            assert_eq!(block.items(row).collect::<Vec<_>>(), items);
            assert_eq!((block.text(row.name), block.service(row)), ("work", "shop"));
            assert_eq!((row.kind(), row.has(flag::ERROR)), (Kind::Server, true));
            assert_eq!(block.items(&block.rows[1]).count(), 0);
            let process = block.process(row).unwrap();
            let own: Vec<_> = block.process_items(process).collect();
            assert_eq!(own, [Item::Tag("host", Value::Text("h"))]);
            assert_eq!((block.from_ns, block.until_ns), (1001, 1002));
        }
        assert_eq!(block.processes.len(), 1);
    }

    #[test]
    fn a_damaged_block_is_refused_or_read_as_far_as_it_goes() {
        let mut open = Open::default();
        put_one(&mut open, 1, &some_items());
        let bytes = open.seal().write();
        for len in 0..bytes.len() {
            assert_eq!(Block::read(&bytes[..len]), None);
        }
        for at in 0..bytes.len() {
            for bits in [1, 0x80, 0xff] {
                let mut odd = bytes.clone();
                odd[at] ^= bits;
                let Some(block) = Block::read(&odd) else { continue };
                for row in &block.rows {
                    let _ = (block.text(row.name), block.service(row));
                    assert!(block.items(row).count() <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn texts_that_come_again_stand_once_and_others_where_they_are_used() {
        let mut open = Open::default();
        let values: Vec<String> = (0..1000).map(|n| format!("value-{n}")).collect();
        for (n, value) in values.iter().enumerate() {
            let same = Value::Text("10.0.0.1 and more");
            let items = [Item::Tag("same", same), Item::Tag("new", Value::Text(value))];
            put_one(&mut open, n as u64 + 1, &items);
        }
        let block = open.seal();
        assert!(block.ends.len() < 200, "{}", block.ends.len());
        let last = block.items(block.rows.last().unwrap()).last().unwrap();
        assert_eq!(last, Item::Tag("new", Value::Text("value-999")));
        assert!(block.bytes() < 100_000, "{}", block.bytes());
    }
}
