//! All that is known, kept by one thread: spans, figures, names, reporters. Time comes from outside.

use crate::batch::{Batch, Head, Item, Text, Value};
use crate::facts::facts;
use crate::join::{Joiner, Known, Taken};
use crate::names::{Names, NodeId, Sort};
use crate::reporters::Reporters;
use crate::sample::Sample;
use crate::slots::Slots;
use crate::store::{Block, Put, Store, flag, join_trace};
use std::sync::Arc;

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Spans that are in the figures.
    pub(crate) spans: u64,
    pub(crate) errors: u64,
    /// Spans that had come before.
    pub(crate) duplicates: u64,
    /// Spans of which something was too long or too many.
    pub(crate) cut: u64,
    /// Records that were no spans.
    pub(crate) refused: u64,
    pub(crate) batches: u64,
    /// Spans read back from disk.
    pub(crate) restored: u64,
}

#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) names: Names,
    pub(crate) slots: Slots,
    pub(crate) joiner: Joiner,
    pub(crate) store: Store,
    pub(crate) reporters: Reporters,
    pub(crate) counts: Counts,
    /// The processes of the batch at hand, with what they sent of it.
    senders: Vec<Sender>,
}

#[derive(Clone, Copy, Debug)]
struct Sender {
    node: NodeId,
    /// In the open block; none when another one was begun.
    process: Option<u16>,
    spans: u64,
    errors: u64,
}

/// How a budget is parted, in bytes. What is left of it is for batches on their way and answers.
#[derive(Clone, Copy, Debug)]
struct Parts {
    spans: usize,
    /// Figures over time.
    figures: usize,
    /// Spans that wait for their relatives.
    waiting: usize,
    names: usize,
    reporters: usize,
}

impl Parts {
    fn of(bytes: usize) -> Self {
        let part = |percent| bytes / 100 * percent;
        Self {
            spans: part(66),
            figures: part(12),
            waiting: part(7),
            names: part(5),
            reporters: part(2),
        }
    }
}

impl Books {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let Parts { spans, figures, waiting, names, reporters } = Parts::of(bytes_max);
        Self {
            names: Names::new(names),
            slots: Slots::new(figures),
            joiner: Joiner::new(waiting),
            store: Store::new(spans),
            reporters: Reporters::new(reporters),
            counts: Counts::default(),
            senders: Vec::new(),
        }
    }

    /// What everything weighs.
    pub(crate) fn bytes(&self) -> usize {
        self.names.bytes()
            + self.slots.bytes()
            + self.joiner.bytes()
            + self.store.bytes()
            + self.reporters.bytes()
    }

    /// Takes spans in. They are in the figures whatever becomes of them.
    pub(crate) fn take(&mut self, batch: &Batch, now_ns: u64) {
        self.counts.batches += 1;
        self.counts.refused += batch.refused;
        self.meet(batch);
        for head in &batch.spans {
            self.take_span(batch, head, now_ns);
        }
        for (process, sender) in batch.processes.iter().zip(std::mem::take(&mut self.senders)) {
            let service = (sender.node, batch.text(process.service));
            let items = items(batch, batch.process_items(process));
            self.reporters.note(service, items, (sender.spans, sender.errors), now_ns);
        }
        self.joiner.settle(now_ns, &mut self.slots, &self.names);
    }

    fn meet(&mut self, batch: &Batch) {
        self.senders.clear();
        for process in &batch.processes {
            let node = self.names.node(Sort::Service, batch.text(process.service));
            for item in batch.process_items(process) {
                if let Item::Tag(key, Value::Text(value)) = item
                    && ["ip", "host.ip", "k8s.pod.ip"].contains(&batch.text(*key))
                    && let Ok(address) = batch.text(*value).parse()
                {
                    self.names.know_address(address, node);
                }
            }
            self.senders.push(Sender { node, process: None, spans: 0, errors: 0 });
        }
    }

    fn take_span(&mut self, batch: &Batch, head: &Head, now_ns: u64) {
        let Some(sender) = self.senders.get(head.process as usize).copied() else { return };
        let facts = facts(batch, head, &mut self.names);
        let name = batch.text(head.name);
        let op = self.names.op(sender.node, name, head.kind, facts.protocol);
        let sample = Sample { duration_ns: head.duration_ns, is_error: facts.is_error };
        let known = Known {
            trace: head.trace,
            id: head.id,
            parent: head.parent,
            node: sender.node,
            op,
            kind: head.kind,
            protocol: facts.protocol,
            start_ns: head.start_ns,
            sample,
            peer: facts.peer,
        };
        if self.joiner.take(known, now_ns, &mut self.slots, &self.names) == Taken::Again {
            self.counts.duplicates += 1;
            return;
        }
        let end_ns = head.start_ns.saturating_add(head.duration_ns);
        self.slots.op(end_ns, now_ns, op, sample);
        self.counts.spans += 1;
        self.counts.errors += u64::from(facts.is_error);
        self.counts.cut += u64::from(head.is_cut);
        let telling = self.names.judge(op, sample, head.parent == 0);
        let mut flags = head.kind as u16;
        for (is, flag) in [
            (facts.is_error, flag::ERROR),
            (telling.is_slow, flag::SLOW),
            (telling.is_rare, flag::RARE),
            (head.is_cut, flag::CUT),
        ] {
            flags |= if is { flag } else { 0 };
        }
        let put = Put {
            trace: head.trace,
            id: head.id,
            parent: head.parent,
            start_ns: head.start_ns,
            duration_ns: head.duration_ns,
            op,
            name,
            process: self.process(batch, head, sender),
            flags,
        };
        self.store.put(&put, items(batch, batch.items(head)));
        let sender = &mut self.senders[head.process as usize];
        sender.spans += 1;
        sender.errors += u64::from(facts.is_error);
    }

    /// The span's process in the open block.
    fn process(&mut self, batch: &Batch, head: &Head, sender: Sender) -> u16 {
        let open = self.store.open();
        if open.block.rows.is_empty() {
            self.senders.iter_mut().for_each(|sender| sender.process = None);
        } else if let Some(process) = sender.process {
            return process;
        }
        let process = &batch.processes[head.process as usize];
        let own = items(batch, batch.process_items(process));
        let index = open.process(sender.node, batch.text(process.service), own);
        self.senders[head.process as usize].process = Some(index);
        index
    }

    /// Time has passed and nothing came.
    pub(crate) fn tend(&mut self, now_ns: u64) {
        self.joiner.settle(now_ns, &mut self.slots, &self.names);
    }

    /// A block that was on disk: its spans are here again, and in the figures.
    pub(crate) fn restore(&mut self, block: Block, now_ns: u64) {
        let batch = unpacked(&block);
        let before = self.counts.spans;
        let batches = self.counts.batches;
        self.take(&batch, now_ns);
        self.counts.restored += self.counts.spans - before;
        self.counts.batches = batches;
    }

    /// Blocks that were ended, for the copy on disk; with `all`, the open one is ended, too.
    pub(crate) fn take_sealed(&mut self, all: bool) -> Vec<Arc<Block>> {
        if all {
            self.store.seal();
        }
        self.store.take_sealed()
    }
}

fn items<'b>(
    batch: &'b Batch,
    items: &'b [Item<Text>],
) -> impl ExactSizeIterator<Item = Item<&'b str>> + Clone {
    items.iter().map(|item| match *item {
        Item::Tag(key, Value::Text(text)) => {
            Item::Tag(batch.text(key), Value::Text(batch.text(text)))
        }
        Item::Tag(key, Value::Int(number)) => Item::Tag(batch.text(key), Value::Int(number)),
        Item::Tag(key, Value::Float(number)) => Item::Tag(batch.text(key), Value::Float(number)),
        Item::Tag(key, Value::Bool(is)) => Item::Tag(batch.text(key), Value::Bool(is)),
        Item::Event(time_ns, name) => Item::Event(time_ns, batch.text(name)),
        Item::Link(trace, span) => Item::Link(trace, span),
    })
}

/// A block as if its spans had just arrived.
fn unpacked(block: &Block) -> Batch {
    let mut batch = Batch::default();
    for process in &block.processes {
        batch.begin();
        for item in block.process_items(process) {
            copy(&mut batch, item);
        }
        let service = batch.add(block.service_of(process), usize::MAX);
        batch.end_process(service);
    }
    for row in &block.rows {
        batch.begin();
        for item in block.items(row) {
            copy(&mut batch, item);
        }
        let name = batch.add(block.text(row.name), usize::MAX);
        batch.end_span(Head {
            trace: join_trace(row.trace),
            id: row.id,
            parent: row.parent,
            start_ns: row.start_ns,
            duration_ns: row.duration_ns,
            kind: row.kind(),
            is_error: row.has(flag::ERROR),
            name,
            process: u32::from(row.process),
            is_cut: row.has(flag::CUT),
            ..Head::default()
        });
    }
    batch
}

fn copy(batch: &mut Batch, item: Item<&str>) {
    let item = match item {
        Item::Tag(key, value) => {
            let value = match value {
                Value::Text(text) => Value::Text(batch.add(text, usize::MAX)),
                Value::Int(number) => Value::Int(number),
                Value::Float(number) => Value::Float(number),
                Value::Bool(is) => Value::Bool(is),
            };
            Item::Tag(batch.add(key, usize::MAX), value)
        }
        Item::Event(time_ns, name) => Item::Event(time_ns, batch.add(name, usize::MAX)),
        Item::Link(trace, span) => Item::Link(trace, span),
    };
    batch.put(item);
}
