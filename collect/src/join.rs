//! Spans find their parents and children here while they wait: who asked whom, and what of a span's
//! time was its own. Bounded: under pressure spans wait shorter, and no rate is wrong for that.

use crate::batch::Kind;
use crate::names::{Names, NodeId, OpId, ProtocolId, Sort};
use crate::sample::Sample;
use crate::slots::{Edge, Slots, Totals};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::{collections::VecDeque, net::IpAddr};

/// How long a span waits for its relatives where there is room.
pub(crate) const WAIT_NS: u64 = 30_000_000_000;

/// Whom a span asked or was asked by, as far as it says so itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// What it is, if no service of ours; of an asking span.
    pub(crate) node: Option<NodeId>,
    pub(crate) address: Option<IpAddr>,
}

/// What is known of a span.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) trace: u128,
    pub(crate) id: u64,
    pub(crate) parent: u64,
    pub(crate) node: NodeId,
    pub(crate) op: OpId,
    pub(crate) kind: Kind,
    pub(crate) protocol: ProtocolId,
    pub(crate) start_ns: u64,
    pub(crate) sample: Sample,
    pub(crate) peer: Peer,
}

impl Known {
    fn end_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.sample.duration_ns)
    }
}

/// Who asked a span that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    NotSeen,
    /// Its own span says so, and is counted.
    Counted,
    Node(NodeId),
}

#[derive(Debug)]
struct Entry {
    known: Option<Box<Known>>,
    /// The time that children had, and until when that is known.
    covered_ns: u64,
    covered_until_ns: u64,
    /// Who answered.
    callee: Option<NodeId>,
    caller: Caller,
    /// Children that answer, and do not know yet who asked.
    children: Vec<u64>,
}

/// Children that are told who asked; a span with more of them is no call.
const CHILDREN_MAX: usize = 256;

impl Default for Entry {
    fn default() -> Self {
        Self {
            known: None,
            covered_ns: 0,
            covered_until_ns: 0,
            callee: None,
            caller: Caller::NotSeen,
            children: Vec::new(),
        }
    }
}

type Key = (u128, u64);

/// What an entry weighs, with its place in the table and in the queue.
const ENTRY_BYTES: usize =
    (size_of::<(Key, Entry)>() + 1) * 8 / 7 + size_of::<Known>() + 16 + size_of::<(Key, u64)>();

/// What became of a span that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    New,
    /// It has come before.
    Again,
}

#[derive(Debug)]
pub(crate) struct Joiner {
    entries: HashMap<Key, Entry, FixedState>,
    queue: VecDeque<(Key, u64)>,
    entries_max: usize,
    /// Spans that were to wait longer, and had no room.
    pub(crate) hurried: u64,
}

impl Joiner {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let entries_max = (bytes_max / ENTRY_BYTES).max(16);
        Self { entries: HashMap::default(), queue: VecDeque::new(), entries_max, hurried: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(Key, Entry)>() + 1)
            + self.queue.capacity() * size_of::<(Key, u64)>()
            + self.entries.len() * (size_of::<Known>() + 16)
    }

    /// A span came.
    pub(crate) fn take(
        &mut self,
        known: Known,
        now_ns: u64,
        slots: &mut Slots,
        names: &Names,
    ) -> Taken {
        let key = (known.trace, known.id);
        let before = self.entries.get(&key).and_then(|entry| entry.known.as_deref());
        if let Some(before) = before
            && before.op == known.op
            && before.kind == known.kind
        {
            return Taken::Again;
        }
        let caller = self.tell_parent(&known, now_ns);
        let entry = self.entry(key, now_ns);
        match &entry.known {
            // One id for both ends of a call, as Zipkin has it.
            Some(other) if other.kind.asks() && known.kind.answers() => {
                entry.callee = Some(known.node);
            }
            Some(_) => {}
            None => {
                entry.caller = caller;
                let children = std::mem::take(&mut entry.children);
                self.tell_children(&known, children);
                self.entry(key, now_ns).known = Some(Box::new(known));
            }
        }
        while self.entries.len() > self.entries_max {
            self.hurried += u64::from(self.settle_one(now_ns, slots, names));
        }
        Taken::New
    }

    /// The parent learns of a child, and the child who asked it.
    fn tell_parent(&mut self, child: &Known, now_ns: u64) -> Caller {
        if child.parent == 0 || child.parent == child.id {
            return Caller::NotSeen;
        }
        let parent = self.entry((child.trace, child.parent), now_ns);
        let (mut from, mut until) = (child.start_ns, child.end_ns());
        if let Some(known) = &parent.known {
            from = from.clamp(known.start_ns, known.end_ns());
            until = until.clamp(known.start_ns, known.end_ns());
        }
        if child.kind != Kind::Consumer {
            // Children mostly end one after the other; where they overlap that counts once.
            parent.covered_ns += until.saturating_sub(from.max(parent.covered_until_ns));
            parent.covered_until_ns = parent.covered_until_ns.max(until);
        }
        if child.kind.answers() {
            parent.callee.get_or_insert(child.node);
            if parent.known.is_none() && parent.children.len() < CHILDREN_MAX {
                parent.children.push(child.id);
            }
        }
        parent.known.as_deref().map_or(Caller::NotSeen, |known| caller_of(known, child))
    }

    fn tell_children(&mut self, parent: &Known, children: Vec<u64>) {
        for id in children {
            let Some(entry) = self.entries.get_mut(&(parent.trace, id)) else { continue };
            if let Some(child) = &entry.known {
                entry.caller = caller_of(parent, child);
            }
        }
    }

    fn entry(&mut self, key: Key, now_ns: u64) -> &mut Entry {
        let queue = &mut self.queue;
        self.entries.entry(key).or_insert_with(|| {
            queue.push_back((key, now_ns.saturating_add(WAIT_NS)));
            Entry::default()
        })
    }

    /// Those who have waited long enough become figures.
    pub(crate) fn settle(&mut self, now_ns: u64, slots: &mut Slots, names: &Names) {
        while self.queue.front().is_some_and(|(_, due)| *due <= now_ns) {
            self.settle_one(now_ns, slots, names);
        }
        if self.queue.is_empty() && self.entries.capacity() > 1024 {
            self.entries.shrink_to_fit();
            self.queue.shrink_to_fit();
        }
    }

    /// The one that has waited longest; whether there was a span.
    fn settle_one(&mut self, now_ns: u64, slots: &mut Slots, names: &Names) -> bool {
        let Some((key, _)) = self.queue.pop_front() else { return false };
        let Some(entry) = self.entries.remove(&key) else { return false };
        let Some(known) = &entry.known else { return false };
        slots.own_time(known.end_ns(), now_ns, known.op, own_ns(&entry, known));
        if let Some(edge) = edge(&entry, known, names) {
            slots.edge(known.end_ns(), now_ns, edge, known.sample);
        }
        true
    }

    /// Adds those who still wait to the totals of a window.
    pub(crate) fn add_waiting(
        &self,
        is_within: impl Fn(u64) -> bool,
        names: &Names,
        ops: &mut Totals<OpId>,
        edges: &mut Totals<Edge>,
    ) {
        for entry in self.entries.values() {
            let Some(known) = &entry.known else { continue };
            if !is_within(known.end_ns()) {
                continue;
            }
            if let Some(op) = ops.get_mut(&known.op) {
                op.own_us += own_ns(entry, known) / 1000;
            }
            if let Some(edge) = edge(entry, known, names) {
                edges.entry(edge).or_default().sample(known.sample);
            }
        }
    }
}

/// The call that a span is, if it is the one that counts.
fn edge(entry: &Entry, known: &Known, names: &Names) -> Option<Edge> {
    let call = |from, to| Some(Edge { from, to, protocol: known.protocol });
    let by_address = known.peer.address.and_then(|address| names.at_address(address));
    let peer = known.peer.node.filter(|_| known.kind != Kind::Server);
    if known.kind.asks() {
        let queue = peer.filter(|node| names.nodes[*node as usize].sort == Sort::Queue);
        let to = queue.filter(|_| known.kind == Kind::Producer);
        return call(known.node, to.or(entry.callee).or(by_address).or(peer)?);
    }
    if !known.kind.answers() {
        return None;
    }
    if let (Kind::Consumer, Some(queue)) = (known.kind, peer) {
        return call(queue, known.node);
    }
    match entry.caller {
        Caller::Counted => None,
        Caller::Node(node) => call(node, known.node),
        // Who asks by the address of a service has a span of its own, and no way to hand it on.
        Caller::NotSeen if by_address.is_some() => None,
        Caller::NotSeen => call(names.outside()?, known.node),
    }
}

fn own_ns(entry: &Entry, known: &Known) -> u64 {
    known.sample.duration_ns.saturating_sub(entry.covered_ns)
}

/// Who asked `child`, whose parent is known.
fn caller_of(parent: &Known, child: &Known) -> Caller {
    if parent.kind.asks() || parent.node == child.node {
        Caller::Counted
    } else {
        Caller::Node(parent.node)
    }
}
