//! A trace made whole: who is below whom, clocks put right, the critical path; and what is odd about
//! it, marked.

use crate::batch::Kind;
use crate::store::flag;
use crate::store::search::Stored;
use std::collections::HashMap;

/// A span in its place.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) stored: Stored,
    pub(crate) depth: usize,
    /// Index of the parent, if it is here.
    pub(crate) parent: Option<usize>,
    /// By how much its clock was put right, in nanoseconds.
    pub(crate) shift_ns: i64,
    /// Its parent has not come.
    pub(crate) is_orphan: bool,
    /// It was in a circle, which is broken here.
    pub(crate) is_cyclic: bool,
    /// The pieces of time in which nothing else would have helped, in nanoseconds since 1970.
    pub(crate) critical: Vec<(u64, u64)>,
}

impl Placed {
    pub(crate) fn start_ns(&self) -> u64 {
        self.stored.row.start_ns.saturating_add_signed(self.shift_ns)
    }

    pub(crate) fn end_ns(&self) -> u64 {
        self.start_ns().saturating_add(self.stored.row.duration_ns)
    }

    fn service(&self) -> &str {
        self.stored.block.service(&self.stored.row)
    }
}

/// All spans in the order of a waterfall.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) id: u128,
    pub(crate) spans: Vec<Placed>,
    /// Spans that were here more than once.
    pub(crate) duplicates: usize,
}

impl Trace {
    /// Joins the spans of a trace.
    pub(crate) fn new(id: u128, mut all: Vec<Stored>) -> Self {
        all.sort_by_key(|span| (span.row.start_ns, span.row.kind(), span.row.id));
        let before = all.len();
        let mut seen = std::collections::HashSet::new();
        all.retain(|span| {
            let service = span.block.service(&span.row).to_owned();
            seen.insert((span.row.id, span.row.kind(), span.row.start_ns, service))
        });
        let duplicates = before - all.len();
        let (spans, children, roots) = place(all);
        let mut trace = Self { id, spans, duplicates };
        trace.mend_clocks(&children, &roots);
        trace.find_critical(&children, &roots);
        trace.order(&children, &roots);
        trace
    }

    pub(crate) fn start_ns(&self) -> u64 {
        self.spans.iter().map(Placed::start_ns).min().unwrap_or(0)
    }

    pub(crate) fn end_ns(&self) -> u64 {
        self.spans.iter().map(Placed::end_ns).max().unwrap_or(0)
    }

    /// The span that everything begins with.
    pub(crate) fn root(&self) -> Option<&Placed> {
        let roots = || self.spans.iter().filter(|span| span.parent.is_none());
        roots().find(|span| span.stored.row.parent == 0).or_else(|| roots().next())
    }

    pub(crate) fn has_error(&self) -> bool {
        self.spans.iter().any(|span| span.stored.row.has(flag::ERROR))
    }

    /// Who answers cannot have begun before it was asked, nor ended after its answer was there: where
    /// it says so, its clock is another one, and it is put into the middle.
    fn mend_clocks(&mut self, children: &[Vec<usize>], roots: &[usize]) {
        let mut stack: Vec<usize> = roots.to_vec();
        while let Some(at) = stack.pop() {
            for &child in &children[at] {
                let shift = self.shift(at, child);
                self.spans[child].shift_ns = shift;
                stack.push(child);
            }
        }
    }

    fn shift(&self, at: usize, child: usize) -> i64 {
        let (parent, own) = (&self.spans[at], &self.spans[child]);
        let row = &own.stored.row;
        if own.service() == parent.service() {
            // One clock, as far as anybody knows.
            return parent.shift_ns;
        }
        if row.kind() == Kind::Consumer || row.duration_ns > parent.stored.row.duration_ns {
            return 0;
        }
        let slack = parent.stored.row.duration_ns - row.duration_ns;
        let (from, until) = (parent.start_ns(), parent.end_ns());
        let end = row.start_ns.saturating_add(row.duration_ns);
        if row.start_ns >= from && end <= until {
            return 0;
        }
        let wanted = from.saturating_add(slack / 2);
        let shift = i128::from(wanted) - i128::from(row.start_ns);
        i64::try_from(shift).unwrap_or(0)
    }

    /// From the end of each root backwards: whoever ended last before that point is what was waited
    /// for.
    fn find_critical(&mut self, children: &[Vec<usize>], roots: &[usize]) {
        let weight = |at: usize| {
            let row = &self.spans[at].stored.row;
            (row.parent == 0, row.duration_ns)
        };
        let Some(&root) = roots.iter().max_by_key(|at| weight(**at)) else {
            return;
        };
        let mut stack = vec![(root, self.spans[root].end_ns())];
        while let Some((at, mut until)) = stack.pop() {
            let from = self.spans[at].start_ns();
            let mut below: Vec<usize> = children[at]
                .iter()
                .copied()
                .filter(|child| self.spans[*child].stored.row.kind() != Kind::Consumer)
                .collect();
            below.sort_by_key(|child| self.spans[*child].end_ns());
            while let Some(child) = below.pop() {
                let (start, end) = (self.spans[child].start_ns(), self.spans[child].end_ns());
                let end = end.min(self.spans[at].end_ns());
                if end > until || end <= from || start >= end {
                    continue;
                }
                if end < until {
                    self.spans[at].critical.push((end, until));
                }
                stack.push((child, end));
                until = start.max(from);
            }
            if from < until {
                self.spans[at].critical.push((from, until));
            }
        }
    }

    /// Parents before children, children by their start.
    fn order(&mut self, children: &[Vec<usize>], roots: &[usize]) {
        let mut roots = roots.to_vec();
        roots.sort_by_key(|at| self.spans[*at].start_ns());
        let mut stack: Vec<(usize, usize)> = roots.into_iter().rev().map(|at| (at, 0)).collect();
        let mut places = vec![usize::MAX; self.spans.len()];
        let mut count = 0;
        while let Some((at, depth)) = stack.pop() {
            places[at] = count;
            count += 1;
            self.spans[at].depth = depth;
            let mut below = children[at].clone();
            below.sort_by_key(|child| self.spans[*child].start_ns());
            stack.extend(below.into_iter().rev().map(|child| (child, depth + 1)));
        }
        for span in &mut self.spans {
            span.parent = span.parent.map(|at| places[at]);
        }
        let mut placed: Vec<_> = places.into_iter().zip(std::mem::take(&mut self.spans)).collect();
        placed.sort_by_key(|(place, _)| *place);
        self.spans = placed.into_iter().map(|(_, span)| span).collect();
    }
}

type Tree = (Vec<Placed>, Vec<Vec<usize>>, Vec<usize>);

/// Who is below whom; the roots are those that are below nobody.
fn place(all: Vec<Stored>) -> Tree {
    let mut by_id: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, span) in all.iter().enumerate() {
        by_id.entry(span.row.id).or_default().push(at);
    }
    let parents: Vec<Option<usize>> =
        all.iter().enumerate().map(|(at, _)| parent(&all, &by_id, at)).collect();
    let mut spans: Vec<Placed> = all
        .into_iter()
        .zip(&parents)
        .map(|(stored, parent)| Placed {
            is_orphan: parent.is_none() && stored.row.parent != 0,
            stored,
            depth: 0,
            parent: *parent,
            shift_ns: 0,
            is_cyclic: false,
            critical: vec![],
        })
        .collect();
    break_circles(&mut spans);
    let mut children = vec![vec![]; spans.len()];
    let mut roots = vec![];
    for (at, span) in spans.iter().enumerate() {
        match span.parent {
            Some(parent) => children[parent].push(at),
            None => roots.push(at),
        }
    }
    (spans, children, roots)
}

/// Where one id stands for both ends of a call, the end that answers is below the one that asks, and
/// what is below the call is below the end that answers.
fn parent(all: &[Stored], by_id: &HashMap<u64, Vec<usize>>, at: usize) -> Option<usize> {
    let row = &all[at].row;
    let same = by_id.get(&row.id).map_or(&[][..], |same| same);
    if row.kind().answers()
        && let Some(asking) = same.iter().find(|other| all[**other].row.kind().asks())
    {
        return Some(*asking);
    }
    let above = by_id.get(&row.parent).filter(|_| row.parent != 0 && row.parent != row.id)?;
    let is_here = |other: &&usize| {
        all[**other].row.kind().answers()
            && all[**other].block.service(&all[**other].row) == all[at].block.service(row)
    };
    above.iter().find(is_here).or_else(|| above.first()).copied()
}

fn break_circles(spans: &mut [Placed]) {
    // 0: not looked at; else the walk that came by.
    let mut seen = vec![0usize; spans.len()];
    for begin in 0..spans.len() {
        let mut at = begin;
        while seen[at] == 0 {
            seen[at] = begin + 1;
            match spans[at].parent {
                Some(parent) if seen[parent] == begin + 1 => {
                    spans[at].parent = None;
                    spans[at].is_cyclic = true;
                }
                Some(parent) => at = parent,
                None => break,
            }
        }
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
