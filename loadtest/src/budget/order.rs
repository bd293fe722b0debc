//! The calls of one connection in their order, from `strace -f -r` of connections that come one at
//! a time.

use std::collections::BTreeMap;

/// A pause this long lies between two connections.
const GAP_SECONDS: f64 = 0.02;

/// One call: its name, and whether it failed.
pub(super) type Step = (String, bool);

/// The sequence that most connections have, in the thread that dials.
pub(super) fn parse(text: &str) -> Option<Vec<Step>> {
    let mut threads: BTreeMap<&str, Thread> = BTreeMap::new();
    let mut now = 0.0;
    for line in text.lines() {
        let Some((thread, gap, step)) = parse_line(line) else { continue };
        // Times are since the call before, of whichever thread.
        now += gap;
        if let Some(step) = step {
            threads.entry(thread).or_default().add(now, step);
        }
    }
    let mut counts: BTreeMap<Vec<Step>, usize> = BTreeMap::new();
    let whole = threads.into_values().flat_map(|thread| thread.whole);
    for steps in whole.filter(|steps| steps.iter().any(|(name, _)| name == "connect")) {
        *counts.entry(steps).or_default() += 1;
    }
    // Those of equal number: the shorter one.
    let order = |(steps, count): &(Vec<Step>, usize)| (*count, std::cmp::Reverse(steps.len()));
    counts.into_iter().max_by_key(order).map(|(steps, _)| steps)
}

/// What a thread did between its pauses.
#[derive(Default)]
struct Thread {
    last: f64,
    /// Since the last pause; nothing before the first, since what is cut is not whole.
    open: Option<Vec<Step>>,
    whole: Vec<Vec<Step>>,
}

impl Thread {
    fn add(&mut self, now: f64, step: Step) {
        if now - self.last >= GAP_SECONDS {
            self.whole.extend(self.open.replace(Vec::new()));
        }
        self.last = now;
        if let Some(open) = &mut self.open {
            open.push(step);
        }
    }
}

/// `PID SECONDS name(...) = result`; the second half of a call that was cut is not a call, but its
/// time counts.
fn parse_line(line: &str) -> Option<(&str, f64, Option<Step>)> {
    let mut words = line.split_whitespace();
    let (thread, gap) = (words.next()?, words.next()?.parse().ok()?);
    let step = || {
        let (name, rest) = line.split_once('(')?;
        let name = name.split_whitespace().next_back()?;
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then(|| (name.to_owned(), rest.contains(") = -1 ")))
    };
    Some((thread, gap, step()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_sequence_is_found_and_cut_ones_are_not() {
        let one =
            "7  0.049 accept4(10, NULL) = 14\n7  0.0001 connect(15, {..}) = -1 EINPROGRESS (x)\n";
        let other = "7  0.049 accept4(10, NULL) = 14\n7  0.0001 close(14) = 0\n";
        let wait =
            "7  0.00002 epoll_wait(13 <unfinished ...>\n7  0.00001 <... epoll_wait resumed>) = 1\n";
        // Another thread, which is not asked for.
        let noise = "8  0.0001 write(1, \"x\", 1) = 1\n8  0.03 write(1, \"x\", 1) = 1\n".repeat(9);
        let first = "7  0.0 close(1) = 0\n";
        let text = format!("{first}{one}{wait}{other}{one}{wait}{noise}{one}");
        let steps = parse(&text).expect("whole ones");
        let names: Vec<(&str, bool)> = steps.iter().map(|(n, f)| (n.as_str(), *f)).collect();
        assert_eq!(names, [("accept4", false), ("connect", true), ("epoll_wait", false)]);
        assert_eq!(parse("nonsense\n"), None);
    }
}
