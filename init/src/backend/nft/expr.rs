//! The plan as nf_tables expressions: what `nft` would compile our text to, without `nft`.

use std::collections::BTreeSet;

use super::INVALID;
use crate::plan::{Chain, Direction, Family, Match, Plan, Rule, Side, Verdict};
use crate::ranges::{Address, Bound, Range, RangeSet};
use crate::spec::{Interface, Probability};

/// One expression. Every one loads to or reads from register 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Expr {
    /// Load a property of the packet or its socket.
    Meta(Meta),
    /// Load bytes of a header.
    Payload { base: Base, offset: u32, len: u32 },
    /// Keep the bits of the mask.
    Mask(Vec<u8>),
    /// Compare, bytewise from the left.
    Compare(Op, Vec<u8>),
    /// Look up in the anonymous set with this number.
    Lookup { set: u32, is_inverted: bool },
    /// Load the type of the destination address as the routes have it, in host order.
    DestinationType,
    /// Load the state of the connection, a bit for each, in host order.
    ConntrackState,
    /// Load a random number below the modulus, in host order.
    Random { modulus: u32 },
    /// Turn the loaded number to network order, in which it can be compared bytewise.
    HostToNetwork,
    /// Load a port.
    Port(u16),
    /// Redirect to the loaded port.
    Redirect,
    /// End of the packet.
    Drop,
    /// End of the chain.
    Return,
    /// Go on in another chain and come back.
    Jump(&'static str),
}

/// Keys of the meta expression (`enum nft_meta_keys`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(super) enum Meta {
    /// Name of the interface it came in by.
    InName = 6,
    /// Name of the interface it goes out by.
    OutName = 7,
    /// User of the socket.
    SocketUid = 10,
    /// Group of the socket.
    SocketGid = 11,
    /// Address family.
    Family = 15,
    /// Transport protocol.
    Transport = 16,
}

/// Headers of the payload expression (`enum nft_payload_bases`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(super) enum Base {
    /// IP header.
    Network = 1,
    /// TCP header.
    Transport = 2,
}

/// Operators of the cmp expression (`enum nft_cmp_ops`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(super) enum Op {
    /// Equal.
    Eq = 0,
    /// Not equal.
    Ne = 1,
    /// Less.
    Lt = 2,
    /// Less or equal.
    Le = 3,
    /// Greater or equal.
    Ge = 5,
}

/// An anonymous set, used by one rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Set {
    /// Number of the set within the transaction, from 1.
    pub(super) number: u32,
    /// What it holds; only `nft list` cares.
    pub(super) key: Key,
    /// Whether ends of ranges are among the elements.
    pub(super) has_ranges: bool,
    /// The elements.
    pub(super) elements: Vec<Element>,
}

/// An element: a value, or the first value after a range.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Element {
    /// The value as the register holds it.
    pub(super) value: Vec<u8>,
    /// Whether a range ended before this value.
    pub(super) is_range_end: bool,
}

/// Data types of `nft`, by its numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(super) enum Key {
    /// `ipv4_addr`
    Ipv4 = 7,
    /// `ipv6_addr`
    Ipv6 = 8,
    /// `inet_service`
    Port = 13,
    /// `uid`
    Uid = 24,
    /// `gid`
    Gid = 25,
}

impl Key {
    /// Ids are compared as the kernel keeps them, the rest as the network does.
    pub(super) const fn is_host_endian(self) -> bool {
        matches!(self, Self::Uid | Self::Gid)
    }

    /// Bytes of an element.
    pub(super) const fn len(self) -> u32 {
        match self {
            Self::Port => 2,
            Self::Ipv4 | Self::Uid | Self::Gid => 4,
            Self::Ipv6 => 16,
        }
    }
}

/// A rule with the sets it uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Compiled {
    /// Chain the rule is in.
    pub(super) chain: &'static str,
    /// Its comment.
    pub(super) comment: &'static str,
    /// Its expressions.
    pub(super) exprs: Vec<Expr>,
    /// Its sets.
    pub(super) sets: Vec<Set>,
}

const IPPROTO_TCP: u8 = 6;
const SYN: u8 = 0x02;
const FIN_SYN_RST_ACK: u8 = 0x17;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const INTERFACE_NAME_BYTES: usize = 16;
const CONNTRACK_STATE_INVALID: u32 = 1;
/// Type of a route to this machine itself (`linux/rtnetlink.h`).
const RTN_LOCAL: u32 = 2;

/// Compiles all rules: the jumps first, then chain by chain.
pub(super) fn compile(plan: &Plan) -> Vec<Compiled> {
    let mut set_count = 0;
    let jumps = plan.chains().map(|chain| jump(chain, plan.has_ipv6));
    let mut compiled: Vec<Compiled> = jumps.collect();
    compiled.extend(plan.drop_invalid.then(|| drop_invalid(plan.has_ipv6)));
    for chain in plan.chains() {
        for rule in &chain.rules {
            let mut compiler = Compiler { exprs: Vec::new(), sets: Vec::new(), set_count };
            compiler.rule(rule);
            set_count = compiler.set_count;
            compiled.push(Compiled {
                chain: chain.direction.chain_name(),
                comment: rule.comment,
                exprs: compiler.exprs,
                sets: compiler.sets,
            });
        }
    }
    compiled
}

fn jump(chain: &Chain, has_ipv6: bool) -> Compiled {
    let direction: Direction = chain.direction;
    let mut exprs = only_ipv4(!has_ipv6);
    exprs.extend(first_packet());
    if !chain.probability.is_always() {
        let below = chain.probability.millionths().to_be_bytes().to_vec();
        exprs.push(Expr::Random { modulus: Probability::ONE });
        exprs.push(Expr::HostToNetwork);
        exprs.push(Expr::Compare(Op::Lt, below));
    }
    exprs.push(Expr::Jump(direction.chain_name()));
    Compiled { chain: direction.base().name, comment: "netra/jump", exprs, sets: Vec::new() }
}

fn drop_invalid(has_ipv6: bool) -> Compiled {
    let mut exprs = only_ipv4(!has_ipv6);
    exprs.extend(tcp());
    exprs.extend([
        Expr::ConntrackState,
        Expr::Mask(CONNTRACK_STATE_INVALID.to_ne_bytes().to_vec()),
        Expr::Compare(Op::Ne, vec![0; 4]),
        Expr::Drop,
    ]);
    Compiled { chain: INVALID.name, comment: "netra/invalid", exprs, sets: Vec::new() }
}

/// What drops new connections while the rules are in motion; see `Guardrails`.
pub(super) fn guard(chain: &'static str, interface: Meta) -> Compiled {
    let mut name = b"lo".to_vec();
    name.resize(INTERFACE_NAME_BYTES, 0);
    let mut exprs = vec![Expr::Meta(interface), Expr::Compare(Op::Ne, name)];
    exprs.extend(first_packet());
    exprs.push(Expr::Drop);
    Compiled { chain, comment: "netra/guardrails", exprs, sets: Vec::new() }
}

fn only_ipv4(is_wanted: bool) -> Vec<Expr> {
    if is_wanted { family(NFPROTO_IPV4).to_vec() } else { Vec::new() }
}

fn first_packet() -> Vec<Expr> {
    let mut exprs = tcp().to_vec();
    exprs.extend([
        Expr::Payload { base: Base::Transport, offset: 13, len: 1 },
        Expr::Mask(vec![FIN_SYN_RST_ACK]),
        Expr::Compare(Op::Eq, vec![SYN]),
    ]);
    exprs
}

fn family(family: u8) -> [Expr; 2] {
    [Expr::Meta(Meta::Family), Expr::Compare(Op::Eq, vec![family])]
}

fn tcp() -> [Expr; 2] {
    [Expr::Meta(Meta::Transport), Expr::Compare(Op::Eq, vec![IPPROTO_TCP])]
}

struct Compiler {
    exprs: Vec<Expr>,
    sets: Vec<Set>,
    set_count: u32,
}

impl Compiler {
    fn rule(&mut self, rule: &Rule) {
        for condition in &rule.matches {
            self.condition(condition);
        }
        match rule.verdict {
            Verdict::Return => self.exprs.push(Expr::Return),
            Verdict::Redirect(port) => {
                let has_ports = rule.matches.iter().any(|c| matches!(c, Match::Ports(_)));
                if !has_ports {
                    self.exprs.extend(tcp());
                }
                self.exprs.extend([Expr::Port(port), Expr::Redirect]);
            }
        }
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::InInterface(name) => self.interface(Meta::InName, name),
            Match::OutInterface(name) => self.interface(Meta::OutName, name),
            Match::Users(ids) => self.ids(Meta::SocketUid, Key::Uid, ids, false),
            Match::Groups(ids) => self.ids(Meta::SocketGid, Key::Gid, ids, false),
            Match::NotGroups(ids) => self.ids(Meta::SocketGid, Key::Gid, ids, true),
            Match::Ports(ports) => {
                self.exprs.extend(tcp());
                self.exprs.push(Expr::Payload { base: Base::Transport, offset: 2, len: 2 });
                self.ranges(Key::Port, ports);
            }
            Match::Family(Family::V4) => self.exprs.extend(family(NFPROTO_IPV4)),
            Match::Family(Family::V6) => self.exprs.extend(family(NFPROTO_IPV6)),
            Match::Ipv4(side, addrs) => {
                let offset = if *side == Side::Source { 12 } else { 16 };
                self.exprs.extend(family(NFPROTO_IPV4));
                self.addrs(Key::Ipv4, offset, addrs);
            }
            Match::Ipv6(side, addrs) => {
                let offset = if *side == Side::Source { 8 } else { 24 };
                self.exprs.extend(family(NFPROTO_IPV6));
                self.addrs(Key::Ipv6, offset, addrs);
            }
            Match::NotToUs => self.exprs.extend([
                Expr::DestinationType,
                Expr::Compare(Op::Ne, RTN_LOCAL.to_ne_bytes().to_vec()),
            ]),
        }
    }

    fn interface(&mut self, key: Meta, interface: &Interface) {
        let mut name = interface.name.clone().into_bytes();
        // A prefix is a comparison that is cut short; a name is compared with its padding.
        if !interface.is_prefix {
            name.resize(INTERFACE_NAME_BYTES, 0);
        }
        self.exprs.extend([Expr::Meta(key), Expr::Compare(Op::Eq, name)]);
    }

    fn ids(&mut self, meta: Meta, key: Key, ids: &BTreeSet<u32>, is_inverted: bool) {
        self.exprs.push(Expr::Meta(meta));
        if let (1, Some(id)) = (ids.len(), ids.first()) {
            let op = if is_inverted { Op::Ne } else { Op::Eq };
            self.exprs.push(Expr::Compare(op, id.to_ne_bytes().to_vec()));
            return;
        }
        let element = |id: &u32| Element { value: id.to_ne_bytes().to_vec(), is_range_end: false };
        self.lookup(key, false, ids.iter().map(element).collect(), is_inverted);
    }

    /// Addresses. A lone CIDR is a comparison of its network part, as `nft` compiles it: fewer
    /// bytes if it ends at a byte, a mask if it does not.
    fn addrs<T: Address>(&mut self, key: Key, offset: u32, addrs: &RangeSet<T>) {
        let load = |len| Expr::Payload { base: Base::Network, offset, len };
        let cidr = match addrs.ranges() {
            [range] if !range.is_single() => T::prefix_len(*range).map(|len| (range, len)),
            _ => None,
        };
        let Some((range, prefix_len)) = cidr else {
            self.exprs.push(load(key.len()));
            return self.ranges(key, addrs);
        };
        let (mut first, last) = (range.first.wire(), range.last.wire());
        if prefix_len % 8 == 0 {
            self.exprs.push(load(u32::from(prefix_len) / 8));
            first.truncate(usize::from(prefix_len) / 8);
        } else {
            let mask = first.iter().zip(&last).map(|(first, last)| !(first ^ last)).collect();
            self.exprs.extend([load(key.len()), Expr::Mask(mask)]);
        }
        self.exprs.push(Expr::Compare(Op::Eq, first));
    }

    fn ranges<T: Bound>(&mut self, key: Key, ranges: &RangeSet<T>) {
        match ranges.ranges() {
            [range] if range.is_single() => {
                self.exprs.push(Expr::Compare(Op::Eq, range.first.wire()));
            }
            [range] => self.exprs.extend([
                Expr::Compare(Op::Ge, range.first.wire()),
                Expr::Compare(Op::Le, range.last.wire()),
            ]),
            ranges if ranges.iter().all(Range::is_single) => {
                let element = |range: &Range<T>| start(range.first);
                self.lookup(key, false, ranges.iter().map(element).collect(), false);
            }
            ranges => self.lookup(key, true, range_elements(ranges), false),
        }
    }

    fn lookup(&mut self, key: Key, has_ranges: bool, elements: Vec<Element>, is_inverted: bool) {
        self.set_count += 1;
        let number = self.set_count;
        self.exprs.push(Expr::Lookup { set: number, is_inverted });
        self.sets.push(Set { number, key, has_ranges, elements });
    }
}

fn start<T: Bound>(value: T) -> Element {
    Element { value: value.wire(), is_range_end: false }
}

/// Starts and ends, ascending. The leading end says that the values before the first range are
/// outside, which `nft` says too.
fn range_elements<T: Bound>(ranges: &[Range<T>]) -> Vec<Element> {
    let end = |value: T| Element { value: value.wire(), is_range_end: true };
    let mut elements = Vec::with_capacity(2 * ranges.len() + 1);
    if ranges.first().is_some_and(|range| range.first > T::FIRST) {
        elements.push(end(T::FIRST));
    }
    for range in ranges {
        elements.push(start(range.first));
        elements.extend(range.last.next().map(end));
    }
    elements
}
