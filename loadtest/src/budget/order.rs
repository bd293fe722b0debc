//! The calls of one connection in their order, from `strace -f -r` of connections that come one at
//! a time.

use std::collections::BTreeMap;

/// A pause this long lies between two connections.
const GAP_SECONDS: f64 = 0.02;

/// One call: its name, and whether it failed.
pub(super) type Step = (String, bool);

/// The sequence that most connections have.
pub(super) fn parse(text: &str) -> Option<Vec<Step>> {
    let mut counts: BTreeMap<Vec<Step>, usize> = BTreeMap::new();
    let mut steps: Vec<Step> = Vec::new();
    // The first and the last may be cut.
    let mut is_whole = false;
    for line in text.lines() {
        let Some((gap, step)) = parse_line(line) else { continue };
        if gap >= GAP_SECONDS {
            let steps = std::mem::take(&mut steps);
            if is_whole && !steps.is_empty() {
                *counts.entry(steps).or_default() += 1;
            }
            is_whole = true;
        }
        steps.push(step);
    }
    // Those of equal number: the shorter one.
    let order = |(steps, count): &(Vec<Step>, usize)| (*count, std::cmp::Reverse(steps.len()));
    counts.into_iter().max_by_key(order).map(|(steps, _)| steps)
}

/// `PID SECONDS name(...) = result`; the second half of a call that was cut is not a call.
fn parse_line(line: &str) -> Option<(f64, Step)> {
    let mut words = line.split_whitespace();
    let gap = words.nth(1)?.parse().ok()?;
    let (name, rest) = line.split_once('(')?;
    let name = name.split_whitespace().next_back()?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| (gap, (name.to_owned(), rest.contains(") = -1 "))))
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
        let text = format!("7  0.0 close(1) = 0\n{one}{wait}{other}{one}{wait}{one}");
        let steps = parse(&text).expect("whole ones");
        let names: Vec<(&str, bool)> = steps.iter().map(|(n, f)| (n.as_str(), *f)).collect();
        assert_eq!(names, [("accept4", false), ("connect", true), ("epoll_wait", false)]);
        assert_eq!(parse("nonsense\n"), None);
    }
}
