//! Who there is: nodes of the map, what they do, and by which addresses they go. All tables have a
//! cap; what comes when one is full goes by one common name, and is counted.

use crate::batch::Kind;
use crate::sample::Sample;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::{borrow::Cow, hash::BuildHasher, net::IpAddr};

pub(crate) type NodeId = u32;
pub(crate) type OpId = u32;
pub(crate) type ProtocolId = u16;

pub(crate) const NODES_MAX: usize = 10_000;
pub(crate) const OPS_MAX: usize = 60_000;
pub(crate) const OPS_OF_NODE_MAX: u32 = 1000;
const PROTOCOLS_MAX: usize = 64;
const ADDRESSES_MAX: usize = 20_000;
/// What stands for all that there was no room for.
pub(crate) const OTHER: &str = "_OTHER";
/// Until an operation has been seen so often, its traces are rare ones.
const RARE_BELOW: u64 = 30;

/// What a node of the map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Sort {
    Service,
    Database,
    Queue,
    /// Asked by somebody here, and tells nothing itself.
    External,
    /// Asks somebody here, and tells nothing itself.
    Outside,
}

impl Sort {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Database => "database",
            Self::Queue => "queue",
            Self::External => "external",
            Self::Outside => "outside",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: Box<str>,
    pub(crate) sort: Sort,
    ops: u32,
}

/// An operation of a service, as the tables of figures have it.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) node: NodeId,
    pub(crate) name: Box<str>,
    pub(crate) kind: Kind,
    pub(crate) protocol: ProtocolId,
    pub(crate) seen: u64,
    pub(crate) errors: u64,
    pub(crate) sum_us: u64,
    /// How many took no longer than each of [`BUCKETS_S`], and longer than the one before.
    pub(crate) buckets: [u32; BUCKETS_S.len()],
    /// About the 99th percentile of its durations.
    slow_ns: f32,
}

/// Upper ends of the buckets of span metrics, in seconds: those that Tempo has.
pub(crate) const BUCKETS_S: [f64; 14] = [
    0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
    16.384,
];

/// What is telling about a span, so that its trace is kept longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Telling {
    pub(crate) is_slow: bool,
    pub(crate) is_rare: bool,
}

#[derive(Debug)]
pub(crate) struct Names {
    hasher: FixedState,
    pub(crate) nodes: Vec<Node>,
    node_ids: HashTable<NodeId>,
    pub(crate) ops: Vec<Op>,
    op_ids: HashTable<OpId>,
    protocols: Vec<Box<str>>,
    outside: Option<NodeId>,
    addresses: HashTable<(IpAddr, NodeId)>,
    /// Spans whose service or operation went by the common name.
    pub(crate) overflows: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Names {
    /// Empty tables, which may come to so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            hasher: FixedState::default(),
            nodes: vec![],
            node_ids: HashTable::new(),
            ops: vec![],
            op_ids: HashTable::new(),
            protocols: vec!["".into()],
            outside: None,
            addresses: HashTable::new(),
            overflows: 0,
            bytes: 0,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let entries = self.nodes.capacity() * size_of::<Node>()
            + self.ops.capacity() * size_of::<Op>()
            + self.addresses.capacity() * size_of::<(IpAddr, NodeId)>();
        self.bytes + entries + (self.node_ids.capacity() + self.op_ids.capacity()) * 5
    }

    /// The node of this name, made where there is none.
    pub(crate) fn node(&mut self, sort: Sort, name: &str) -> NodeId {
        let name = if name.is_empty() { "(no name)" } else { name };
        let hash = self.hasher.hash_one((sort, name));
        if let Some(id) = self.find_node(hash, sort, name) {
            return id;
        }
        // The last places are for those who stand for all others.
        let is_full = self.nodes.len() + 5 >= NODES_MAX || self.bytes() >= self.bytes_max;
        if is_full && name != OTHER {
            self.overflows += 1;
            return self.node(sort, OTHER);
        }
        let id = count(self.nodes.len());
        self.bytes += name.len();
        self.nodes.push(Node { name: name.into(), sort, ops: 0 });
        let Self { nodes, node_ids, hasher, .. } = self;
        node_ids.insert_unique(hash, id, |&id| {
            let node = &nodes[id as usize];
            hasher.hash_one((node.sort, &*node.name))
        });
        if sort == Sort::Service && self.outside.is_none() {
            self.outside = Some(self.node(Sort::Outside, "outside"));
        }
        id
    }

    fn find_node(&self, hash: u64, sort: Sort, name: &str) -> Option<NodeId> {
        let is_it = |&id: &NodeId| {
            let node = &self.nodes[id as usize];
            node.sort == sort && &*node.name == name
        };
        self.node_ids.find(hash, is_it).copied()
    }

    /// Whoever asks and is not known.
    pub(crate) fn outside(&self) -> Option<NodeId> {
        self.outside
    }

    /// The service of this name, if there is one.
    pub(crate) fn service(&self, name: &str) -> Option<NodeId> {
        self.find_node(self.hasher.hash_one((Sort::Service, name)), Sort::Service, name)
    }

    /// The operation of this name, made where there is none. `name` is a span's own.
    pub(crate) fn op(
        &mut self,
        node: NodeId,
        name: &str,
        kind: Kind,
        protocol: ProtocolId,
    ) -> OpId {
        self.shaped_op(node, &shape(name), kind, protocol)
    }

    fn shaped_op(&mut self, node: NodeId, name: &str, kind: Kind, protocol: ProtocolId) -> OpId {
        let hash = self.hasher.hash_one((node, kind, name));
        let is_it = |&id: &OpId| {
            let op = &self.ops[id as usize];
            op.node == node && op.kind == kind && &*op.name == name
        };
        if let Some(&id) = self.op_ids.find(hash, is_it) {
            return id;
        }
        let of_node = self.nodes[node as usize].ops;
        let is_full = of_node >= OPS_OF_NODE_MAX
            || self.ops.len() + NODES_MAX >= OPS_MAX
            || self.bytes() >= self.bytes_max;
        if is_full && name != OTHER {
            self.overflows += 1;
            return self.shaped_op(node, OTHER, kind, protocol);
        }
        let id = count(self.ops.len());
        self.nodes[node as usize].ops += 1;
        self.bytes += name.len();
        self.ops.push(Op {
            node,
            name: name.into(),
            kind,
            protocol,
            seen: 0,
            errors: 0,
            sum_us: 0,
            buckets: [0; BUCKETS_S.len()],
            slow_ns: 0.0,
        });
        let Self { ops, op_ids, hasher, .. } = self;
        op_ids.insert_unique(hash, id, |&id| {
            let op = &ops[id as usize];
            hasher.hash_one((op.node, op.kind, &*op.name))
        });
        id
    }

    pub(crate) fn protocol(&mut self, name: &str) -> ProtocolId {
        let name = &name[..name.floor_char_boundary(32)];
        if let Some(at) = self.protocols.iter().position(|known| &**known == name) {
            return u16::try_from(at).unwrap_or(0);
        }
        if self.protocols.len() >= PROTOCOLS_MAX {
            return 0;
        }
        self.protocols.push(name.into());
        u16::try_from(self.protocols.len() - 1).unwrap_or(0)
    }

    pub(crate) fn protocol_name(&self, id: ProtocolId) -> &str {
        self.protocols.get(usize::from(id)).map_or("", |name| name)
    }

    /// This service said that it goes by this address.
    pub(crate) fn know_address(&mut self, address: IpAddr, node: NodeId) {
        if address.is_loopback() || address.is_unspecified() {
            return;
        }
        let hash = self.hasher.hash_one(address);
        if let Some(known) = self.addresses.find_mut(hash, |(known, _)| *known == address) {
            known.1 = node;
        } else if self.addresses.len() < ADDRESSES_MAX {
            let hasher = &self.hasher;
            self.addresses.insert_unique(hash, (address, node), |(ip, _)| hasher.hash_one(ip));
        }
    }

    pub(crate) fn at_address(&self, address: IpAddr) -> Option<NodeId> {
        let hash = self.hasher.hash_one(address);
        self.addresses.find(hash, |(known, _)| *known == address).map(|(_, node)| *node)
    }

    /// Notes that an operation took so long, and says whether that is telling.
    pub(crate) fn judge(&mut self, op: OpId, sample: Sample, is_root: bool) -> Telling {
        let op = &mut self.ops[op as usize];
        op.seen += 1;
        op.errors += u64::from(sample.is_error);
        op.sum_us = op.sum_us.saturating_add(sample.duration_ns / 1000);
        // The first bound is 2 ms, each next one twice the one before.
        let over = (sample.duration_ns.saturating_sub(1) / 2_000_000).checked_ilog2();
        let bucket = over.map_or(0, |power| power as usize + 1);
        if let Some(count) = op.buckets.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        let took = sample.duration_ns as f32;
        if op.slow_ns == 0.0 {
            op.slow_ns = took * 2.0;
        }
        let is_over = took > op.slow_ns;
        let is_slow = op.seen > RARE_BELOW && (is_over && is_root || took > 4.0 * op.slow_ns);
        // One up for 99 down, so that it stays where one of a hundred is over it.
        op.slow_ns = (op.slow_ns * if is_over { 1.0495 } else { 0.9995 }).max(1.0);
        Telling { is_slow, is_rare: op.seen <= RARE_BELOW && &*op.name != OTHER }
    }
}

/// A name without what differs from one call to the next: a path's numbers and ids.
pub(crate) fn shape(name: &str) -> Cow<'_, str> {
    let path = name.split(['?', '#']).next().unwrap_or_default();
    if !name.contains('/') || !path.split('/').any(is_id) {
        return Cow::Borrowed(if name.contains('/') { path } else { name });
    }
    let mut shaped = String::with_capacity(path.len());
    for (index, part) in path.split('/').enumerate() {
        if index > 0 {
            shaped.push('/');
        }
        shaped.push_str(if is_id(part) { "{id}" } else { part });
    }
    Cow::Owned(shaped)
}

/// A part of a path that is a number, or hex digits such as a UUID's.
fn is_id(part: &str) -> bool {
    let bytes = part.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_hex = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    digits > 0 && (digits == bytes.len() || bytes.len() >= 8 && bytes.iter().all(is_hex))
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_node_of_its_sort() {
        let mut names = Names::new(8 << 20);
        let shop = names.node(Sort::Service, "shop");
        assert_eq!(names.node(Sort::Service, "shop"), shop);
        assert_ne!(names.node(Sort::Database, "shop"), shop);
        assert_eq!((names.service("shop"), names.service("stock")), (Some(shop), None));
        let op = names.op(shop, "/a", Kind::Server, 0);
        assert_eq!(names.op(shop, "/a", Kind::Server, 0), op);
        assert_ne!(names.op(shop, "/a", Kind::Client, 0), op);
    }

    #[test]
    fn tables_are_bounded_and_say_so() {
        let mut names = Names::new(14 << 20);
        let shop = names.node(Sort::Service, "shop");
        for n in 0..100_000 {
            names.op(shop, &format!("op{n}x"), Kind::Server, 0);
        }
        assert_eq!(names.ops.len(), OPS_OF_NODE_MAX as usize + 1);
        assert_eq!(names.overflows, 99_000);
        for n in 0..100_000 {
            let node = names.node(Sort::Service, &format!("service{n}"));
            names.op(node, "x", Kind::Server, 0);
        }
        assert!(names.nodes.len() <= NODES_MAX);
        assert!(names.ops.len() <= OPS_MAX, "{}", names.ops.len());
        assert!(names.bytes() < 16 << 20, "{}", names.bytes());
        for n in 0..100u8 {
            names.protocol(&format!("p{n}"));
        }
        assert_eq!(names.protocol("one too many"), 0);
    }

    #[test]
    fn paths_lose_their_numbers() {
        for (name, shaped) in [
            ("/orders/17/items", "/orders/{id}/items"),
            ("shop.demo/offer?id=5", "shop.demo/offer"),
            ("/u/550e8400-e29b-41d4-a716-446655440000", "/u/{id}"),
            ("/v1/cafe", "/v1/cafe"),
            ("GET", "GET"),
            ("SELECT orders?", "SELECT orders?"),
            ("demo.Price/of", "demo.Price/of"),
            ("GET /a/1", "GET /a/{id}"),
        ] {
            assert_eq!(shape(name), shaped);
        }
    }

    fn took_ns(duration_ns: u64) -> Sample {
        Sample { duration_ns, is_error: false }
    }

    #[test]
    fn buckets_end_where_they_say() {
        let mut names = Names::new(8 << 20);
        let node = names.node(Sort::Service, "shop");
        let op = names.op(node, "x", Kind::Server, 0);
        for (ms, bucket) in [(0, 0), (2, 0), (3, 1), (4, 1), (5, 2), (16_384, 13), (17_000, 14)] {
            let before = names.ops[op as usize].buckets;
            names.judge(op, took_ns(ms * 1_000_000), true);
            let after = names.ops[op as usize].buckets;
            let found = (0..14).find(|at| before[*at] != after[*at]).unwrap_or(14);
            assert_eq!(found, bucket, "{ms} ms");
        }
    }

    #[test]
    fn slow_is_what_one_of_a_hundred_is_or_less() {
        let mut names = Names::new(8 << 20);
        let node = names.node(Sort::Service, "shop");
        let op = names.op(node, "x", Kind::Server, 0);
        let mut slow = 0;
        for n in 0..20_000u64 {
            // Evenly from 1 to 2 ms, in no order.
            let took = 1_000_000 + n * 7_919 % 1_000 * 1_000;
            let telling = names.judge(op, took_ns(took), true);
            assert_eq!(telling.is_rare, n < RARE_BELOW);
            slow += u32::from(telling.is_slow);
        }
        assert!((50..600).contains(&slow), "{slow}");
        assert!(names.judge(op, took_ns(20_000_000), false).is_slow);
        assert!(!names.judge(op, took_ns(1_000_000), true).is_slow);
    }

    #[test]
    fn addresses_lead_to_services() {
        let mut names = Names::new(8 << 20);
        let node = names.node(Sort::Service, "cache");
        let ip = "10.1.2.3".parse().unwrap();
        names.know_address(ip, node);
        names.know_address("127.0.0.1".parse().unwrap(), node);
        assert_eq!(names.at_address(ip), Some(node));
        assert_eq!(names.at_address("127.0.0.1".parse().unwrap()), None);
    }
}
