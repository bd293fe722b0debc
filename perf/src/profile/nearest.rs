//! Finds for some addresses what begins last before each, in a table that is read once and not kept:
//! the kernel's table of functions is 5 to 10 MB, that of a program as much.

/// The addresses, and the best so far of each.
#[derive(Debug)]
pub(super) struct Nearest<T> {
    /// In order: address, where the best begins, what it is.
    found: Vec<(u64, u64, Option<T>)>,
}

impl<T: Clone> Nearest<T> {
    pub(super) fn new(addresses: impl IntoIterator<Item = u64>) -> Self {
        let mut wanted: Vec<u64> = addresses.into_iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        Self { found: wanted.into_iter().map(|address| (address, 0, None)).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Something begins here. The table may have any order.
    pub(super) fn offer(&mut self, start: u64, what: impl FnOnce() -> T) {
        // It is noted at the first address behind it alone; those behind that one look back.
        let at = self.found.partition_point(|(address, ..)| *address < start);
        if let Some((_, best, its)) = self.found.get_mut(at)
            && (its.is_none() || *best < start)
        {
            (*best, *its) = (start, Some(what()));
        }
    }

    /// Each address and what begins last before it or at it, if anything does.
    pub(super) fn found(mut self) -> impl Iterator<Item = (u64, Option<T>)> {
        for at in 1..self.found.len() {
            let (before, rest) = self.found.split_at_mut(at);
            let (before, own) = (&before[at - 1], &mut rest[0]);
            if before.2.is_some() && (own.2.is_none() || before.1 > own.1) {
                (own.1, own.2) = (before.1, before.2.clone());
            }
        }
        self.found.into_iter().map(|(address, _, what)| (address, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_finds_what_begins_last_before_it_in_any_order() {
        let starts = [(70, "d"), (10, "a"), (30, "c"), (20, "b")];
        let wanted = [5, 10, 19, 20, 25, 69, 1000, 69];
        let want = [
            (5, None),
            (10, Some("a")),
            (19, Some("a")),
            (20, Some("b")),
            (25, Some("b")),
            (69, Some("c")),
            (1000, Some("d")),
        ];
        for turn in 0..starts.len() {
            let mut nearest = Nearest::new(wanted);
            for (start, name) in starts.iter().cycle().skip(turn).take(starts.len()) {
                nearest.offer(*start, || *name);
            }
            assert_eq!(nearest.found().collect::<Vec<_>>(), want);
        }
        assert!(Nearest::<()>::new([]).is_empty());
    }

    /// What is made of the table goes by what is asked for, not by the table.
    #[test]
    fn what_nobody_asked_for_is_not_made() {
        let (mut nearest, mut made) = (Nearest::new([7, 70_000]), 0);
        for start in (1..100_000).rev() {
            nearest.offer(start, || made += 1);
        }
        assert_eq!(made, 2);
    }
}
