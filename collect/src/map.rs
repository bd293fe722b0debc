//! The map: who asks whom, how often, how well, and where the time goes; and the operations of a
//! service. Figures of a window of time.

use crate::batch::Kind;
use crate::books::Books;
use crate::names::{NodeId, Sort};
use crate::slots::{Edge, Total};
use serde::Serialize;
use std::{collections::BTreeMap, ops::Range};

/// What was done in a window.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
pub(crate) struct Figures {
    pub(crate) count: u64,
    pub(crate) errors: u64,
    /// By the second.
    pub(crate) rate: f64,
    pub(crate) error_share: f64,
    pub(crate) mean_us: u64,
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
}

impl Figures {
    fn of(total: &Total, seconds: f64) -> Self {
        let quantile = |share| total.durations.quantile_ns(share).unwrap_or(0) / 1000;
        Self {
            count: total.count,
            errors: total.errors,
            rate: total.count as f64 / seconds,
            error_share: total.errors as f64 / total.count.max(1) as f64,
            mean_us: total.sum_us / total.count.max(1),
            p50_us: quantile(0.5),
            p95_us: quantile(0.95),
            p99_us: quantile(0.99),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) sort: &'static str,
    /// By which protocols it is asked.
    pub(crate) protocols: Vec<String>,
    /// What it was asked.
    pub(crate) figures: Figures,
    /// The time that was its own: of a service, without the time in which it waited for others; of
    /// what tells nothing itself, the time that others waited for it.
    pub(crate) own_us: u64,
    /// Of the own time of all.
    pub(crate) own_share: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct EdgeView {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) protocol: String,
    pub(crate) figures: Figures,
}

#[derive(Debug, Serialize)]
pub(crate) struct MapView {
    /// Seconds since 1970.
    pub(crate) from_s: u64,
    pub(crate) until_s: u64,
    /// From when on there are figures at all.
    pub(crate) since_s: Option<u64>,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) edges: Vec<EdgeView>,
    /// Services or operations that went by a common name, for want of room.
    pub(crate) overflows: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct OperationView {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) protocol: String,
    pub(crate) figures: Figures,
    pub(crate) own_us: u64,
    /// Upper ends in microseconds, and how many.
    pub(crate) classes: Vec<(u64, u64)>,
}

/// A node on its way into the map.
#[derive(Debug, Default)]
struct Sum {
    asked: Total,
    /// What it did where nobody is seen to ask: jobs, and services that only ask.
    own_us: u64,
    protocols: BTreeMap<String, u64>,
    /// The figures are of what it says itself.
    tells: bool,
}

/// How many seconds of a window there can be figures of.
fn seconds(books: &Books, window: &Range<u64>, now_s: u64) -> f64 {
    let since = books.slots.since_s().unwrap_or(window.start);
    let from = window.start.max(since);
    let until = window.end.min(now_s + 1);
    until.saturating_sub(from).max(1) as f64
}

fn is_within(window: &Range<u64>) -> impl Fn(u64) -> bool {
    let window = window.clone();
    move |end_ns| window.contains(&(end_ns / 1_000_000_000))
}

/// The map of a window, in seconds since 1970.
pub(crate) fn map(books: &Books, window: &Range<u64>, now_s: u64) -> MapView {
    let names = &books.names;
    let (mut ops, mut edges) = books.slots.window(window);
    books.joiner.add_waiting(is_within(window), names, &mut ops, &mut edges);
    let mut sums: BTreeMap<NodeId, Sum> = BTreeMap::new();
    for (op, total) in &ops {
        let op = &names.ops[*op as usize];
        let sum = sums.entry(op.node).or_default();
        match op.kind {
            Kind::Server | Kind::Consumer => {
                add(&mut sum.asked, total);
                sum.own_us += total.own_us;
                sum.tells = true;
                let protocol = names.protocol_name(op.protocol);
                *sum.protocols.entry(protocol.to_owned()).or_default() += total.count;
            }
            Kind::Internal => sum.own_us += total.own_us,
            Kind::Client | Kind::Producer => {}
        }
    }
    let seconds = seconds(books, window, now_s);
    let mut views = Vec::new();
    for (Edge { from, to, protocol }, total) in &edges {
        sums.entry(*from).or_default();
        let callee = sums.entry(*to).or_default();
        let protocol = names.protocol_name(*protocol).to_owned();
        if !callee.tells {
            add(&mut callee.asked, total);
            callee.own_us += total.sum_us;
            *callee.protocols.entry(protocol.clone()).or_default() += total.count;
        }
        let figures = Figures::of(total, seconds);
        views.push(EdgeView { from: *from, to: *to, protocol, figures });
    }
    views.sort_by_key(|edge| (std::cmp::Reverse(edge.figures.count), edge.from, edge.to));
    let all_own: u64 = sums.values().map(|sum| sum.own_us).sum();
    let nodes = sums.into_iter().map(|(id, sum)| {
        let node = &names.nodes[id as usize];
        let protocols = sum.protocols.into_keys().filter(|name| !name.is_empty()).collect();
        NodeView {
            id,
            name: node.name.to_string(),
            sort: node.sort.name(),
            protocols,
            figures: Figures::of(&sum.asked, seconds),
            own_us: if node.sort == Sort::Outside { 0 } else { sum.own_us },
            own_share: sum.own_us as f64 / all_own.max(1) as f64,
        }
    });
    MapView {
        from_s: window.start,
        until_s: window.end,
        since_s: books.slots.since_s(),
        nodes: nodes.collect(),
        edges: views,
        overflows: names.overflows,
    }
}

fn add(sum: &mut Total, more: &Total) {
    sum.count += more.count;
    sum.errors += more.errors;
    sum.sum_us += more.sum_us;
    for (sum, more) in sum.durations.0.iter_mut().zip(more.durations.0) {
        *sum += more;
    }
}

/// The operations of a window, of one service or of all, the busiest first.
pub(crate) fn operations(
    books: &Books,
    service: Option<&str>,
    window: &Range<u64>,
    now_s: u64,
    limit: usize,
) -> Vec<OperationView> {
    let names = &books.names;
    let (mut ops, mut edges) = books.slots.window(window);
    books.joiner.add_waiting(is_within(window), names, &mut ops, &mut edges);
    let seconds = seconds(books, window, now_s);
    let mut views: Vec<_> = ops
        .iter()
        .map(|(op, total)| (&names.ops[*op as usize], total))
        .map(|(op, total)| (op, &*names.nodes[op.node as usize].name, total))
        .filter(|(_, name, _)| service.is_none_or(|service| service == *name))
        .collect();
    views.sort_by(|a, b| (b.2.count, &a.0.name).cmp(&(a.2.count, &b.0.name)));
    let views = views.into_iter().take(limit).map(|(op, name, total)| OperationView {
        service: name.to_owned(),
        name: op.name.to_string(),
        kind: op.kind.name(),
        protocol: names.protocol_name(op.protocol).to_owned(),
        figures: Figures::of(total, seconds),
        own_us: total.own_us,
        classes: total.durations.classes().map(|(upper, count)| (upper / 1000, count)).collect(),
    });
    views.collect()
}

/// The map for a terminal: one line for each edge, the busiest first.
pub(crate) fn text(map: &MapView) -> String {
    use std::fmt::Write;
    let name = |id: NodeId| {
        let node = map.nodes.iter().find(|node| node.id == id);
        node.map_or(String::new(), |node| shown(&node.name))
    };
    let rows: Vec<_> = map
        .edges
        .iter()
        .map(|edge| (name(edge.from), name(edge.to), shown(&edge.protocol), &edge.figures))
        .collect();
    let (mut from, mut to, mut by) = (4, 4, 8);
    for (a, b, protocol, _) in &rows {
        for (width, text) in [(&mut from, a), (&mut to, b), (&mut by, protocol)] {
            *width = text.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    // A string takes everything.
    let _ = writeln!(
        out,
        "{:<from$}    {:<to$}  {:<by$} {:>9} {:>8} {:>7} {:>9} {:>9}",
        "from", "to", "protocol", "calls", "/s", "errors", "p50", "p99"
    );
    for (a, b, protocol, figures) in &rows {
        let _ = writeln!(
            out,
            "{a:<from$} -> {b:<to$}  {protocol:<by$} {:>9} {:>8.1} {:>6.1}% {:>9} {:>9}",
            figures.count,
            figures.rate,
            figures.error_share * 100.0,
            duration(figures.p50_us),
            duration(figures.p99_us),
        );
    }
    let mut own: Vec<_> = map.nodes.iter().filter(|node| node.own_us > 0).collect();
    own.sort_by_key(|node| std::cmp::Reverse(node.own_us));
    let _ = writeln!(out, "\nwhere the time goes");
    for node in own.iter().take(12) {
        let (name, share) = (shown(&node.name), node.own_share * 100.0);
        let _ = writeln!(out, "{share:>6.1}%  {name} ({})", node.sort);
    }
    out
}

/// A name from outside, for a terminal: without what steers one.
fn shown(name: &str) -> String {
    let cut = name.chars().take(60);
    cut.map(|c| if c.is_control() || is_unseen(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that turn the order of others, or have no width.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
