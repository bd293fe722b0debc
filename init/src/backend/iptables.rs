//! iptables, old and new: one `iptables-restore` transaction per family.
//!
//! Rules are written exactly as `iptables-save` writes them, so that what is there and what is
//! wanted can be compared as text.

mod live;
mod lock;
mod program;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::plan::{Chain, Direction, Family, Match, Plan, Rule, Side, Verdict};
use crate::ranges::{Address, PortSet, Range, RangeSet, to_cidrs};
use crate::spec::{Interface, Probability};

pub use live::{
    Flavour, Programs, apply, cleanup, has_foreign_rules, is_ipv6_usable, may_have_rules, state,
    try_out,
};
pub use lock::{Lock, hold as lock};

/// First packet of a connection, as `iptables-save` writes `--syn`; see `Chain`.
const SYN: &str = "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN";

/// Comment of a jump.
const JUMP: &str = "netra/jump";

/// Comment of a jump whose chain was not there before: `iptables-nft` makes built-in chains when
/// they are first used, and cleanup has to take out what was made for us, and only that.
const JUMP_MADE: &str = "netra/jump-made";

/// The multiport match has this many slots; a range takes two.
const MULTIPORT_SLOTS: usize = 15;

impl Direction {
    fn netra_chain(self) -> &'static str {
        match self {
            Self::Inbound => "NETRA_INBOUND",
            Self::Outbound => "NETRA_OUTBOUND",
        }
    }

    fn builtin_chain(self) -> &'static str {
        match self {
            Self::Inbound => "PREROUTING",
            Self::Outbound => "OUTPUT",
        }
    }
}

/// A table of iptables that has rules of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Table {
    /// Where connections are redirected.
    Nat,
    /// Where packets are dropped that connection tracking cannot place.
    Mangle,
}

impl Table {
    /// Both, in the order in which they are changed.
    pub const ALL: [Self; 2] = [Self::Mangle, Self::Nat];

    const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Mangle => "mangle",
        }
    }

    /// Our chains. netramesh has the same names, so its rules are replaced and cleaned up too.
    const fn chains(self) -> &'static [&'static str] {
        match self {
            Self::Nat => &["NETRA_INBOUND", "NETRA_OUTBOUND"],
            Self::Mangle => &["NETRA_INVALID"],
        }
    }

    /// The chains our jumps are in.
    const fn builtin_chains(self) -> &'static [&'static str] {
        match self {
            Self::Nat => &["PREROUTING", "OUTPUT"],
            Self::Mangle => &["PREROUTING"],
        }
    }
}

/// What is ours in a table, in the words of `iptables-save`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owned {
    chains: BTreeSet<String>,
    /// Rules in our chains, in order.
    rules: Vec<String>,
    /// Rules of other chains that jump to ours.
    jumps: Vec<String>,
}

impl Owned {
    /// What the plan wants of a table. Jumps in the chains of `made` say so in their comment.
    pub fn wanted(
        plan: &Plan,
        family: Family,
        table: Table,
        made: &BTreeSet<&'static str>,
    ) -> Self {
        match (table, family) {
            (_, Family::V6) if !plan.has_ipv6 => Self::default(),
            (Table::Nat, _) => Self::wanted_nat(plan, family, made),
            (Table::Mangle, _) if plan.drop_invalid => Self::wanted_mangle(made),
            (Table::Mangle, _) => Self::default(),
        }
    }

    fn wanted_mangle(made: &BTreeSet<&'static str>) -> Self {
        let comment = if made.is_empty() { JUMP } else { JUMP_MADE };
        let text = |text: &str| vec![text.to_owned()];
        Self {
            chains: BTreeSet::from(["NETRA_INVALID".to_owned()]),
            rules: text(
                "-A NETRA_INVALID -p tcp -m conntrack --ctstate INVALID \
                 -m comment --comment \"netra/invalid\" -j DROP",
            ),
            jumps: text(&format!(
                "-A PREROUTING -p tcp -m comment --comment \"{comment}\" -j NETRA_INVALID"
            )),
        }
    }

    fn wanted_nat(plan: &Plan, family: Family, made: &BTreeSet<&'static str>) -> Self {
        let mut owned = Self::default();
        for chain in plan.chains() {
            let name = chain.direction.netra_chain();
            owned.chains.insert(name.to_owned());
            let is_made = made.contains(chain.direction.builtin_chain());
            owned.jumps.push(jump(chain, if is_made { JUMP_MADE } else { JUMP }));
            let covers = |rule: &&Rule| rule.family().is_none_or(|only| only == family);
            for rule in chain.rules.iter().filter(covers) {
                owned
                    .rules
                    .extend(render_rule(rule).iter().map(|text| format!("-A {name} {text}")));
            }
        }
        // In the order of `iptables-save`: the chains by name, which is inbound first.
        owned
    }

    /// Finds what is ours in the output of `iptables-save -t` this table.
    pub fn parse(table: Table, saved: &str) -> Self {
        let mut owned = Self::default();
        for line in saved.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let is_ours = |word: &&str| table.chains().contains(word);
            let jumps =
                || words.windows(2).any(|pair| matches!(pair[0], "-j" | "-g") && is_ours(&pair[1]));
            match words[..] {
                [name, ..] if name.strip_prefix(':').is_some_and(|name| is_ours(&name)) => {
                    owned.chains.insert(name[1..].to_owned());
                }
                ["-A", chain, ..] if is_ours(&chain) => owned.rules.push(line.trim().to_owned()),
                ["-A", ..] if jumps() => owned.jumps.push(line.trim().to_owned()),
                _ => {}
            }
        }
        owned
    }

    /// The built-in chains that were made for our jumps.
    pub fn made(&self) -> BTreeSet<&'static str> {
        let mark = format!("\"{JUMP_MADE}\"");
        let is_made = |chain: &&str| {
            let start = format!("-A {chain} ");
            self.jumps.iter().any(|jump| jump.starts_with(&start) && jump.contains(&mark))
        };
        Table::Nat.builtin_chains().iter().copied().filter(is_made).collect()
    }

    /// Whether nothing is ours.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Input of `iptables-restore --noflush` that turns `current` into `wanted` in one transaction
/// and touches nothing else.
pub fn transaction(table: Table, current: &Owned, wanted: &Owned) -> String {
    let mut text = format!("*{}\n", table.name());
    for jump in &current.jumps {
        let _ = writeln!(text, "{}", jump.replacen("-A", "-D", 1));
    }
    // Declaring a chain makes it if it is missing and empties it if it is there.
    for chain in &wanted.chains {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    let leftover = || current.chains.difference(&wanted.chains);
    for chain in leftover() {
        let _ = writeln!(text, "-F {chain}");
    }
    for rule in wanted.rules.iter().chain(&wanted.jumps) {
        let _ = writeln!(text, "{rule}");
    }
    for chain in leftover() {
        let _ = writeln!(text, "-X {chain}");
    }
    text.push_str("COMMIT\n");
    text
}

/// The plan as input of `iptables-restore` and `ip6tables-restore` on a machine without rules.
pub fn render(plan: &Plan) -> String {
    let family = |name: &str, family| {
        let table = |table| {
            let wanted = Owned::wanted(plan, family, table, &BTreeSet::new());
            let text = transaction(table, &Owned::default(), &wanted);
            let has_part = table == Table::Nat || !wanted.is_empty();
            if has_part { format!("# {name} --noflush\n{text}") } else { String::new() }
        };
        Table::ALL.map(table).concat()
    };
    let v6 = if plan.has_ipv6 { family("ip6tables-restore", Family::V6) } else { String::new() };
    family("iptables-restore", Family::V4) + &v6
}

fn jump(chain: &Chain, comment: &str) -> String {
    let share = if chain.probability.is_always() {
        String::new()
    } else {
        format!("-m statistic --mode random --probability {} ", probability(chain.probability))
    };
    format!(
        "-A {} -p tcp {SYN} {share}-m comment --comment \"{comment}\" -j {}",
        chain.direction.builtin_chain(),
        chain.direction.netra_chain()
    )
}

/// xt_statistic keeps 31 bits and is printed with 11 digits.
fn probability(share: Probability) -> String {
    let scale = f64::from(1_u32 << 31);
    let exact = f64::from(share.millionths()) / f64::from(Probability::ONE);
    format!("{:.11}", (exact * scale).round() / scale)
}

/// A rule as text without its chain. Several, where iptables has no sets.
fn render_rule(rule: &Rule) -> Vec<String> {
    // Addresses and interfaces stand before the protocol, matches behind it.
    let (mut heads, mut tails) = (vec![String::new()], vec![String::new()]);
    for condition in &rule.matches {
        match alternatives(condition) {
            Alternatives::Head(options) => heads = product(&heads, &options),
            Alternatives::Tail(options) => tails = product(&tails, &options),
        }
    }
    let verdict = match rule.verdict {
        Verdict::Return => "RETURN".to_owned(),
        Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
    };
    let comment = rule.comment;
    product(&heads, &tails.iter().map(|tail| format!("-p tcp {tail}")).collect::<Vec<_>>())
        .iter()
        .map(|start| format!("{start}-m comment --comment \"{comment}\" -j {verdict}"))
        .collect()
}

fn product(starts: &[String], ends: &[String]) -> Vec<String> {
    starts.iter().flat_map(|start| ends.iter().map(move |end| format!("{start}{end}"))).collect()
}

enum Alternatives {
    Head(Vec<String>),
    Tail(Vec<String>),
}

fn alternatives(condition: &Match) -> Alternatives {
    use Alternatives::{Head, Tail};
    let flag = |side: &Side| match side {
        Side::Source => "-s",
        Side::Destination => "-d",
    };
    let owners = |kind: &str, ids: &BTreeSet<u32>| {
        ids.iter().map(|id| format!("-m owner --{kind}-owner {id} ")).collect()
    };
    match condition {
        Match::InInterface(name) => Head(vec![format!("-i {} ", interface(name))]),
        Match::OutInterface(name) => Head(vec![format!("-o {} ", interface(name))]),
        Match::Users(ids) => Tail(owners("uid", ids)),
        Match::Groups(ids) => Tail(owners("gid", ids)),
        Match::NotGroups(ids) => {
            Tail(vec![ids.iter().map(|id| format!("-m owner ! --gid-owner {id} ")).collect()])
        }
        Match::Ports(ports) => Tail(multiports(ports)),
        Match::Family(_) => Head(vec![String::new()]),
        Match::Ipv4(side, addrs) => Head(cidrs(flag(side), addrs)),
        Match::Ipv6(side, addrs) => Head(cidrs(flag(side), addrs)),
        Match::NotToUs => Tail(vec!["-m addrtype ! --dst-type LOCAL ".to_owned()]),
    }
}

fn interface(interface: &Interface) -> String {
    format!("{}{}", interface.name, if interface.is_prefix { "+" } else { "" })
}

fn cidrs<T: Address>(flag: &str, addrs: &RangeSet<T>) -> Vec<String> {
    let text = |cidr: Range<T>| {
        let prefix_len = T::prefix_len(cidr).unwrap_or(T::BITS);
        format!("{flag} {}/{prefix_len} ", cidr.first.text())
    };
    addrs.ranges().iter().copied().flat_map(to_cidrs).map(text).collect()
}

fn multiports(ports: &PortSet) -> Vec<String> {
    let mut chunks: Vec<Vec<String>> = Vec::new();
    let mut slots_free = 0;
    for range in ports.ranges() {
        let slots = if range.is_single() { 1 } else { 2 };
        if slots > slots_free {
            chunks.push(Vec::new());
            slots_free = MULTIPORT_SLOTS;
        }
        slots_free -= slots;
        let text = match range.is_single() {
            true => range.first.to_string(),
            false => format!("{}:{}", range.first, range.last),
        };
        chunks.last_mut().expect("pushed above").push(text);
    }
    chunks.iter().map(|chunk| format!("-m multiport --dports {} ", chunk.join(","))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:NETRA_INBOUND - [0:0]
-A PREROUTING -i eth0 -j DNAT --to-destination 1.2.3.4
-A PREROUTING -p tcp -m comment --comment \"netra/jump\" -j NETRA_INBOUND
-A OUTPUT -m comment --comment \"about -j NETRA_INBOUNDS\" -j ACCEPT
-A NETRA_INBOUND -p tcp -j REDIRECT --to-ports 14956
COMMIT
";

    #[test]
    fn finds_only_what_is_ours() {
        let owned = Owned::parse(Table::Nat, SAVED);
        assert_eq!(owned.chains, BTreeSet::from(["NETRA_INBOUND".to_owned()]));
        assert_eq!((owned.rules.len(), owned.jumps.len()), (1, 1));
        assert!(Owned::parse(Table::Mangle, SAVED).is_empty());
        assert!(Owned::parse(Table::Nat, "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n").is_empty());
    }

    #[test]
    fn cleanup_deletes_jumps_before_chains() {
        assert_eq!(
            transaction(Table::Nat, &Owned::parse(Table::Nat, SAVED), &Owned::default()),
            "*nat\n\
             -D PREROUTING -p tcp -m comment --comment \"netra/jump\" -j NETRA_INBOUND\n\
             -F NETRA_INBOUND\n-X NETRA_INBOUND\nCOMMIT\n"
        );
    }

    #[test]
    fn multiport_has_fifteen_slots_and_ranges_take_two() {
        let range = |first| Range { first, last: first + 1 };
        let ports = PortSet::new((0..8).map(|n| range(10 * n + 1)).collect());
        let chunks = multiports(&ports);
        assert_eq!(chunks.len(), 2);
        assert_eq!(chunks[1], "-m multiport --dports 71:72 ");
        let ports = PortSet::new((1..=16).map(|n| Range { first: 2 * n, last: 2 * n }).collect());
        assert_eq!(multiports(&ports)[1], "-m multiport --dports 32 ");
    }
}
