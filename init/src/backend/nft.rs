//! nftables: our own table `inet netra`, as text for `nft -f` and as a netlink transaction.

mod dump;
mod expr;
mod live;
mod wire;

use std::fmt::Write as _;

use crate::plan::{Direction, Family, Match, Plan, Rule, Side, Verdict};
use crate::ranges::{Address, Range, RangeSet};
use crate::spec::{Interface, Probability};

pub use live::{
    Guardrails, OwnedTable, State, apply, chain_exists, check, cleanup, own_table, remove_empty,
    state,
};

/// Name of our table; its family is `inet`.
pub const TABLE: &str = "netra";

/// First packet of a connection; see `Chain`.
const SYN: &str = "tcp flags & (fin | syn | rst | ack) == syn";

/// A base chain: what the kernel calls, where and when.
struct Base {
    name: &'static str,
    kind: &'static str,
    hook: Hook,
    priority: i32,
    /// The priority as `nft list` writes it: `dstnat` in prerouting only.
    priority_text: &'static str,
}

/// `NF_INET_*`
#[derive(Clone, Copy)]
enum Hook {
    Prerouting = 0,
    Input = 1,
    Output = 3,
}

/// Behind connection tracking and before nat, where iptables has its mangle table.
const INVALID: Base = Base {
    name: "invalid",
    kind: "filter",
    hook: Hook::Prerouting,
    priority: -150,
    priority_text: "mangle",
};

impl Direction {
    fn base(self) -> Base {
        let nat = |name, hook, priority_text| Base {
            name,
            kind: "nat",
            hook,
            priority: -100,
            priority_text,
        };
        match self {
            Self::Inbound => nat("prerouting", Hook::Prerouting, "dstnat"),
            Self::Outbound => nat("output", Hook::Output, "-100"),
        }
    }

    /// The chain with the rules.
    fn chain_name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The plan as input of `nft -f`: deletes and makes the table in one transaction.
pub fn render(plan: &Plan) -> String {
    let comment = table_comment(plan);
    let body = render_body(plan);
    format!(
        "add table inet {TABLE}\ndelete table inet {TABLE}\n\
         table inet {TABLE} {{\n\tcomment \"{comment}\"\n{body}}}\n"
    )
}

/// Constant for a plan, different for another one: tells other settings from broken rules.
fn table_comment(plan: &Plan) -> String {
    // FNV-1a: a stable hash in five lines; std's hasher may change with the compiler.
    let hash = render_body(plan).bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("netra/{hash:016x}")
}

/// The base chains of a plan, in the order in which they are made.
fn bases(plan: &Plan) -> impl Iterator<Item = Base> {
    let directions = plan.chains().map(|chain| chain.direction.base());
    directions.chain(plan.drop_invalid.then_some(INVALID))
}

fn render_body(plan: &Plan) -> String {
    let mut body = String::new();
    let family = if plan.has_ipv6 { "" } else { "meta nfproto ipv4 " };
    for chain in plan.chains() {
        let base = chain.direction.base();
        let share = probability(chain.probability);
        let _ = write!(
            body,
            "\n\tchain {name} {{\n\
             \t\ttype nat hook {name} priority {priority}; policy accept;\n\
             \t\t{family}{SYN} {share}jump {target} comment \"netra/jump\"\n\t}}\n",
            name = base.name,
            priority = base.priority_text,
            target = chain.direction.chain_name(),
        );
    }
    if plan.drop_invalid {
        let _ = write!(
            body,
            "\n\tchain {} {{\n\
             \t\ttype filter hook prerouting priority {}; policy accept;\n\
             \t\t{family}meta l4proto tcp ct state invalid drop comment \"netra/invalid\"\n\t}}\n",
            INVALID.name, INVALID.priority_text,
        );
    }
    for chain in plan.chains() {
        let _ = write!(body, "\n\tchain {} {{\n", chain.direction.chain_name());
        for rule in &chain.rules {
            let _ = writeln!(body, "\t\t{}", render_rule(rule));
        }
        body.push_str("\t}\n");
    }
    body
}

fn probability(share: Probability) -> String {
    if share.is_always() {
        return String::new();
    }
    format!("numgen random mod {} < {} ", Probability::ONE, share.millionths())
}

fn render_rule(rule: &Rule) -> String {
    let mut text = String::new();
    for condition in &rule.matches {
        text += &render_match(condition);
        text.push(' ');
    }
    let has_ports = rule.matches.iter().any(|condition| matches!(condition, Match::Ports(_)));
    match rule.verdict {
        Verdict::Return => text.push_str("return"),
        // nft wants to see the protocol in the rule itself.
        Verdict::Redirect(port) if has_ports => {
            let _ = write!(text, "redirect to :{port}");
        }
        Verdict::Redirect(port) => {
            let _ = write!(text, "meta l4proto tcp redirect to :{port}");
        }
    }
    let _ = write!(text, " comment \"{}\"", rule.comment);
    text
}

fn render_match(condition: &Match) -> String {
    let side = |side: &Side| match side {
        Side::Source => "saddr",
        Side::Destination => "daddr",
    };
    match condition {
        Match::InInterface(name) => format!("iifname \"{}\"", interface(name)),
        Match::OutInterface(name) => format!("oifname \"{}\"", interface(name)),
        Match::Users(ids) => format!("meta skuid {}", set(ids, u32::to_string)),
        Match::Groups(ids) => format!("meta skgid {}", set(ids, u32::to_string)),
        Match::NotGroups(ids) => format!("meta skgid != {}", set(ids, u32::to_string)),
        Match::Ports(ports) => format!("tcp dport {}", set(ports.ranges(), port_range)),
        Match::Family(Family::V4) => "meta nfproto ipv4".to_owned(),
        Match::Family(Family::V6) => "meta nfproto ipv6".to_owned(),
        Match::Ipv4(which, addrs) => format!("ip {} {}", side(which), addr_set(addrs)),
        Match::Ipv6(which, addrs) => format!("ip6 {} {}", side(which), addr_set(addrs)),
        Match::NotToUs => "fib daddr type != local".to_owned(),
    }
}

fn interface(interface: &Interface) -> String {
    format!("{}{}", interface.name, if interface.is_prefix { "*" } else { "" })
}

/// One value stands alone, several in braces.
fn set<T>(items: impl IntoIterator<Item = T>, text: impl Fn(T) -> String) -> String {
    let items: Vec<String> = items.into_iter().map(text).collect();
    match &items[..] {
        [item] => item.clone(),
        _ => format!("{{ {} }}", items.join(", ")),
    }
}

fn port_range(range: &Range<u16>) -> String {
    match range.is_single() {
        true => range.first.to_string(),
        false => format!("{}-{}", range.first, range.last),
    }
}

fn addr_set<T: Address>(addrs: &RangeSet<T>) -> String {
    set(addrs.ranges(), |range| match T::prefix_len(*range) {
        Some(_) if range.is_single() => range.first.text(),
        Some(prefix_len) => format!("{}/{prefix_len}", range.first.text()),
        None => format!("{}-{}", range.first.text(), range.last.text()),
    })
}
