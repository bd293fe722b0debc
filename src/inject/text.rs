//! Changes of a text, each of a range: what is put in can be taken out again to the byte.

use super::yaml::{self, Node, Value};
use std::ops::Range;

/// The lines of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines<'a>(pub(super) &'a str);

impl<'a> Lines<'a> {
    /// Where the line of this place begins.
    pub(super) fn start(self, at: usize) -> usize {
        self.0[..at].rfind('\n').map_or(0, |end| end + 1)
    }

    /// Where the line begins that follows what ends here.
    fn after(self, end: usize) -> usize {
        if self.start(end) == end {
            return end;
        }
        self.0[end..].find('\n').map_or(self.0.len(), |length| end + length + 1)
    }

    /// The beginning of the line that is so many lines below, at most `end`.
    fn down(self, start: usize, count: usize, end: usize) -> usize {
        let ends = self.0[start..end.max(start)].match_indices('\n');
        ends.take(count).last().map_or(start, |(at, _)| start + at + 1)
    }

    /// The beginning of the line that is so many lines above, behind `floor`.
    fn up(self, start: usize, count: usize, floor: usize) -> usize {
        let floor = self.after(floor);
        let above = |at: &usize| (*at > floor).then(|| self.start(at - 1));
        std::iter::successors(Some(start), above).take(count + 1).last().unwrap_or(start)
    }

    /// What precedes this place on its line.
    fn before(self, at: usize) -> &'a str {
        &self.0[self.start(at)..at]
    }

    /// How the lines of this text end.
    fn newline(self) -> &'static str {
        let first = self.0.find('\n').map_or("", |end| &self.0[..end]);
        if first.ends_with('\r') { "\r\n" } else { "\n" }
    }
}

pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(|c| matches!(c, ' ' | '\t'))
}

/// Changes that were not made yet.
#[derive(Debug)]
pub(super) struct Edits<'a> {
    pub(super) text: &'a str,
    lines: Lines<'a>,
    list: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, lines: Lines(text), list: Vec::new() }
    }

    /// The text with all changes made.
    pub(super) fn apply(mut self) -> Result<String, String> {
        self.list.sort_by_key(|(range, _)| range.start);
        let mut out = String::with_capacity(self.text.len());
        let mut at = 0;
        for (range, new) in &self.list {
            let kept = self.text.get(at..range.start).ok_or("two changes of the same place")?;
            out.push_str(kept);
            out.push_str(new);
            at = range.end;
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        Ok(out)
    }

    pub(super) fn replace(&mut self, range: Range<usize>, new: impl Into<String>) {
        self.list.push((range, new.into()));
    }

    /// Puts the entries or the items of `new` before this part of a collection that has some, or
    /// behind its last one. Comments above the part stay above it.
    pub(super) fn insert(
        &mut self,
        into: &Node,
        index: usize,
        new: &Node,
        step: usize,
    ) -> Result<(), String> {
        let parts = parts(self.text, into)?;
        let last = parts.last().ok_or("nothing to put it beside")?;
        let part = parts.get(index);
        let beside = part.unwrap_or(last).start;
        let prefix = self.lines.before(beside);
        if into.is_flow {
            let space = if is_blank(prefix) && self.lines.start(beside) > into.span.start {
                format!("{}{prefix}", self.lines.newline())
            } else {
                " ".to_owned()
            };
            let new = yaml::json_inside(new);
            match part {
                Some(part) => self.replace(part.start..part.start, format!("{new},{space}")),
                None => self.replace(last.end..last.end, format!(",{space}{new}")),
            }
            return Ok(());
        }
        let indent = prefix.chars().count();
        let lines = self.printed(new, indent, step);
        match part {
            Some(part) if is_blank(prefix) => {
                let floor = if index > 0 { parts[index - 1].end } else { into.floor };
                let at = self.above_comments(part.start, floor);
                self.replace(at..at, lines);
            }
            Some(part) => {
                let rest = " ".repeat(indent);
                self.replace(part.start..part.start, format!("{}{rest}", lines.trim_start()));
            }
            None => {
                let at = self.lines.after(last.end);
                let is_cut = at == self.text.len() && !self.text.ends_with('\n');
                let newline = self.lines.newline();
                let new = if is_cut { format!("{newline}{}", lines.trim_end()) } else { lines };
                self.replace(at..at, new);
            }
        }
        Ok(())
    }

    fn printed(&self, new: &Node, indent: usize, step: usize) -> String {
        yaml::block(new, indent, step).replace('\n', self.lines.newline())
    }

    /// The beginning of the comments that stand directly above a line.
    fn above_comments(&self, at: usize, floor: usize) -> usize {
        let floor = self.lines.after(floor);
        let mut start = self.lines.start(at);
        while start > floor {
            let above = self.lines.start(start - 1);
            if above < floor || !self.text[above..start].trim_start().starts_with('#') {
                break;
            }
            start = above;
        }
        start
    }

    /// What [`Edits::remove`] takes away of a collection that keeps other parts.
    fn removed(&self, from: &Node, which: &Range<usize>) -> Result<Range<usize>, String> {
        let parts = parts(self.text, from)?;
        let (Some(first), Some(last)) = (parts.get(which.start), parts.get(which.end - 1)) else {
            return Err("no such part".to_owned());
        };
        let next = parts.get(which.end).map(|next| next.start);
        let previous = which.start.checked_sub(1).map(|index| parts[index].end);
        if from.is_flow {
            return match (previous, next) {
                (None, Some(next)) => Ok(first.start..next),
                (Some(previous), _) => Ok(previous..last.end),
                (None, None) => Err("nothing would be left".to_owned()),
            };
        }
        match next {
            // The first one shares its line with a dash.
            Some(next) if !is_blank(self.lines.before(first.start)) => Ok(first.start..next),
            _ => Ok(self.lines.start(first.start)..self.lines.after(last.end)),
        }
    }

    /// Takes parts out of a collection that keeps others.
    pub(super) fn remove(&mut self, from: &Node, which: Range<usize>) -> Result<(), String> {
        let mut range = self.removed(from, &which)?;
        let is_cut = range.end == self.text.len() && !self.text.ends_with('\n');
        if is_cut && !from.is_flow {
            let kept = &self.text[..range.start];
            range.start = kept
                .strip_suffix('\n')
                .map_or(kept, |kept| kept.strip_suffix('\r').unwrap_or(kept))
                .len();
        }
        self.replace(range, "");
        Ok(())
    }

    /// Takes parts out that [`Edits::put_back`] will put in again.
    pub(super) fn put_aside(&mut self, from: &Node, which: Range<usize>) -> Result<Aside, String> {
        let range = self.removed(from, &which)?;
        let parts = parts(self.text, from)?;
        let gap = match which.start.checked_sub(1) {
            _ if from.is_flow => 0..0,
            Some(index) => self.lines.after(parts[index].end)..range.start,
            None => range.end..self.lines.start(parts[which.end].start),
        };
        let gap = self.text.get(gap).map_or(0, |gap| gap.matches('\n').count());
        let text = self.text[range.clone()].to_owned();
        self.replace(range, "");
        Ok(Aside { index: which.start, gap, text })
    }

    /// Puts in again what was put aside.
    pub(super) fn put_back(&mut self, into: &Node, aside: &Aside) -> Result<(), String> {
        let parts = parts(self.text, into)?;
        let lost = "the list has changed too much since";
        let previous = aside.index.checked_sub(1).map(|index| parts.get(index).ok_or(lost));
        let previous = previous.transpose()?.map(|part| part.end);
        let next = parts.get(aside.index).map(|part| part.start);
        let lines = self.lines;
        let at = match (previous, next) {
            (Some(previous), _) if into.is_flow => previous,
            (Some(previous), next) => {
                let end = next.map_or(self.text.len(), |next| lines.start(next));
                lines.down(lines.after(previous), aside.gap, end)
            }
            (None, Some(next)) if into.is_flow => next,
            (None, Some(next)) => lines.up(lines.start(next), aside.gap, into.floor),
            (None, None) => return Err(lost.to_owned()),
        };
        let dash = parts.first().ok_or(lost)?.start;
        self.replace(at..at, self.aligned(&aside.text, into, dash));
        Ok(())
    }

    /// A text of list items for a list whose dashes may have been moved since.
    fn aligned(&self, items: &str, list: &Node, dash: usize) -> String {
        let old = items.lines().find(|line| line.trim_start_matches(' ').starts_with('-'));
        let old = old.map_or(0, |line| line.find('-').unwrap_or(0));
        let now = self.lines.before(dash).chars().count();
        if list.is_flow || old == 0 || old == now {
            return items.to_owned();
        }
        let shifted = items.split_inclusive('\n').map(|line| {
            let spaces = line.len() - line.trim_start_matches(' ').len();
            let kept = &line[spaces.min(old.saturating_sub(now))..];
            let is_empty = line.trim().is_empty();
            let more = if is_empty { 0 } else { now.saturating_sub(old) };
            format!("{}{kept}", " ".repeat(more))
        });
        shifted.collect()
    }

    /// Where parts stand that are replaced as a whole.
    fn place(&self, of: &Node, which: &Range<usize>) -> Result<Range<usize>, String> {
        let parts = parts(self.text, of)?;
        let (Some(first), Some(last)) = (parts.get(which.start), parts.get(which.end - 1)) else {
            return Err("no such part".to_owned());
        };
        if of.is_flow {
            return Ok(first.start..last.end);
        }
        Ok(self.lines.start(first.start)..self.lines.after(last.end))
    }

    /// Puts other items in the place of one; returns the text of what was there.
    pub(super) fn exchange(
        &mut self,
        list: &Node,
        index: usize,
        new: &Node,
        step: usize,
    ) -> Result<String, String> {
        let range = self.place(list, &(index..index + 1))?;
        let old = self.text[range.clone()].to_owned();
        let new = if list.is_flow {
            yaml::json_inside(new)
        } else {
            let dash = parts(self.text, list)?[index].start;
            let lines = self.printed(new, self.lines.before(dash).chars().count(), step);
            if old.ends_with('\n') { lines } else { lines.trim_end().to_owned() }
        };
        self.replace(range, new);
        Ok(old)
    }

    /// Puts a text in the place of items: the way back of [`Edits::exchange`].
    pub(super) fn exchange_back(
        &mut self,
        list: &Node,
        which: Range<usize>,
        old: &str,
    ) -> Result<(), String> {
        let range = self.place(list, &which)?;
        let dash = parts(self.text, list)?[which.start].start;
        self.replace(range, self.aligned(old, list, dash));
        Ok(())
    }
}

/// Parts of a list that are kept elsewhere until they are put back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Aside {
    pub(super) index: usize,
    /// Lines between the part before and these; of the first, between these and the next part.
    pub(super) gap: usize,
    pub(super) text: String,
}

/// Where each item or entry of a collection stands, a dash included.
pub(super) fn parts(text: &str, node: &Node) -> Result<Vec<Range<usize>>, String> {
    let item = |item: &Node| {
        if node.is_flow {
            return Ok(item.start..item.span.end);
        }
        let before = text[..item.start].trim_end();
        let dash = before.strip_suffix('-').ok_or("a list item has a comment behind its dash")?;
        Ok(dash.len()..item.span.end)
    };
    match &node.value {
        Value::Sequence(items) => items.iter().map(item).collect(),
        _ => Ok(node.entries().iter().map(|(key, value)| key.start..value.span.end).collect()),
    }
}
