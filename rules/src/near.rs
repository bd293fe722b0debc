//! Which of the known words an author may have meant.

/// The known word that a given one is a slip of the hand away from: one letter too many, too few, other
/// or exchanged with the next one; two of those in long words. Short words are near to too many others.
pub(crate) fn nearest<'k>(
    given: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let slips = |word: &str| match word.len() {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    };
    let near = known.into_iter().map(|word| (slips(word), distance(given, word), word));
    near.filter(|(most, found, _)| (1..=*most).contains(found))
        .min_by_key(|(_, found, _)| *found)
        .map(|(.., word)| word)
}

/// How many letters differ; two that have changed places are one.
pub fn distance(one: &str, two: &str) -> usize {
    let (one, two) = (one.as_bytes(), two.as_bytes());
    let (mut before, mut last) = (Vec::new(), (0..=two.len()).collect::<Vec<_>>());
    for (row, letter) in one.iter().enumerate() {
        let mut now = vec![row + 1];
        for (column, other) in two.iter().enumerate() {
            let changed = last[column] + usize::from(letter != other);
            let mut least = changed.min(last[column + 1] + 1).min(now[column] + 1);
            let swapped =
                row > 0 && column > 0 && *letter == two[column - 1] && one[row - 1] == *other;
            if swapped {
                least = least.min(before[column - 1] + 1);
            }
            now.push(least);
        }
        before = std::mem::replace(&mut last, now);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_differ_are_counted() {
        for (one, other, wanted) in
            [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abc", "xbcd", 2), ("ab", "ba", 1)]
        {
            assert_eq!(distance(one, other), wanted, "{one} {other}");
        }
    }

    #[test]
    fn a_slip_of_the_hand_is_found_and_another_word_is_not() {
        let known = ["method", "path", "host", "interface", "consumer_group", "key"];
        for (given, meant) in [
            ("mehod", Some("method")),
            ("mehtod", Some("method")),
            ("methods", Some("method")),
            ("pth", Some("path")),
            ("hsot", Some("host")),
            ("intreface", Some("interface")),
            ("intrfce", Some("interface")),
            ("consumer-grop", Some("consumer_group")),
            ("method", None),
            ("mthd", None),
            ("tenant", None),
            ("x-canary", None),
            ("ke", None),
            ("keys", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
    }
}
