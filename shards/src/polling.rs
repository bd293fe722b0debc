//! Whether to poll before parking. Sleeping and waking costs more than anything else that a relay
//! does, but polling costs a core: so a shard polls only while what it waits for has lately come
//! sooner than its budget. An idle sidecar, one with a slow upstream and a throttled one park; and
//! one that shares its CPU with whom it waits for soon finds out that polling only keeps them from
//! answering.

use crate::sys::Nanos;

/// Weight of the newest gap in the estimate: one eighth.
const SHIFT: u32 = 3;
/// A gap longer than this many budgets counts as this many: after a lull a few short gaps suffice
/// to begin again.
const GAP_CAP_BUDGETS: Nanos = 4;
/// After polls that found nothing, this many turns at most go by without one.
const BACKOFF_MAX: u32 = 1023;
/// What is found sooner than this was there before.
const AT_ONCE_NS: Nanos = 1_000;

/// The estimate of how soon work comes after a shard has run out of it.
#[derive(Debug)]
pub(crate) struct Polling {
    budget_max: Nanos,
    allowed: bool,
    /// Estimated time from running out of work to the next event.
    gap: Nanos,
    /// Turns to let go by without polling, and how many it will be after the next miss.
    skip: u32,
    backoff: u32,
    quiet_since: Nanos,
}

impl Polling {
    /// Polls for `budget_max` at most; zero never polls.
    pub(crate) fn new(budget_max: Nanos) -> Self {
        let gap = budget_max.saturating_mul(GAP_CAP_BUDGETS);
        Self { budget_max, allowed: true, gap, skip: 0, backoff: 0, quiet_since: 0 }
    }

    /// Whether polling is allowed at all.
    pub(crate) fn allow(&mut self, allowed: bool) {
        self.allowed = allowed;
    }

    /// How long to poll before parking; not at all when gaps are longer than the budget.
    pub(crate) fn budget(&mut self) -> Option<Nanos> {
        if self.budget_max == 0 || !self.allowed || self.gap > self.budget_max {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(self.budget_max)
    }

    /// Polling found work after this long. What was there at once was not found by polling: it
    /// says nothing about whether anything can come while we poll.
    pub(crate) fn found(&mut self, after: Nanos) {
        if after > AT_ONCE_NS {
            self.backoff = 0;
        }
    }

    /// Polling found nothing: the gap is longer than the budget, whatever it turns out to be.
    /// Gaps that are short only while the shard sleeps are those of somebody who needs its CPU.
    pub(crate) fn missed(&mut self) {
        self.learn(self.budget_max.saturating_mul(GAP_CAP_BUDGETS));
        self.backoff = (self.backoff * 2 + 1).min(BACKOFF_MAX);
        self.skip = self.backoff;
    }

    /// A turn is over: it woke at `woke_at` and ran out of work at `quiet_since`.
    pub(crate) fn after_turn(&mut self, worked: bool, woke_at: Nanos, quiet_since: Nanos) {
        if worked {
            if self.quiet_since > 0 {
                self.learn(woke_at.saturating_sub(self.quiet_since));
            }
            self.quiet_since = quiet_since;
        }
    }

    fn learn(&mut self, gap: Nanos) {
        let gap = gap.min(self.budget_max.saturating_mul(GAP_CAP_BUDGETS));
        self.gap = self.gap - (self.gap >> SHIFT) + (gap >> SHIFT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gaps after turns of 5 us each; says whether the shard would poll after them.
    fn polls_after(polling: &mut Polling, gaps_us: impl IntoIterator<Item = u64>) -> bool {
        let mut now = 1;
        for gap in gaps_us {
            polling.after_turn(true, now, now + 5_000);
            now += 5_000 + gap * 1_000;
        }
        polling.after_turn(true, now, now + 5_000);
        polling.budget().is_some()
    }

    #[test]
    fn it_polls_only_while_work_comes_within_the_budget() {
        assert!(polls_after(&mut Polling::new(50_000), [20; 40]));
        assert!(!polls_after(&mut Polling::new(50_000), [80; 40]));
        assert!(!polls_after(&mut Polling::new(50_000), []), "an idle shard parks");
        assert!(!polls_after(&mut Polling::new(0), [1; 40]), "zero never polls");
    }

    #[test]
    fn it_stops_when_gaps_grow_and_begins_again_when_they_shrink() {
        let mut polling = Polling::new(50_000);
        assert!(polls_after(&mut polling, [10; 40]));
        assert!(!polls_after(&mut polling, [10_000; 8]));
        assert!(polls_after(&mut polling, [10; 40]));
    }

    #[test]
    fn misses_end_it_and_a_throttled_process_never_does_it() {
        let mut polling = Polling::new(50_000);
        assert!(polls_after(&mut polling, [45; 40]));
        for _ in 0..3 {
            polling.missed();
        }
        assert_eq!(polling.budget(), None);
        let mut throttled = Polling::new(50_000);
        throttled.allow(false);
        assert!(!polls_after(&mut throttled, [10; 40]));
    }

    #[test]
    fn who_shares_its_cpu_with_the_answerer_polls_ever_more_rarely() {
        let mut polling = Polling::new(50_000);
        let (mut now, mut polls) = (1, 0);
        for _ in 0..10_000 {
            polling.after_turn(true, now, now + 5_000);
            now += 5_000;
            if polling.budget().is_some() {
                // The answerer cannot run: nothing comes while we poll, and at once when we sleep.
                polling.found(200);
                polling.missed();
                polls += 1;
                now += 50_000;
            }
            now += 10_000;
        }
        assert!(polls < 40, "{polls} polls for nothing");
    }

    #[test]
    fn a_find_makes_up_for_misses() {
        let mut polling = Polling::new(50_000);
        for found in [false, true] {
            for _ in 0..5 {
                polling.missed();
            }
            if found {
                polling.found(500);
                polling.found(5_000);
                polling.missed();
            }
            polling.gap = 10_000;
            let turns = (0..100).take_while(|_| polling.budget().is_none()).count();
            assert_eq!(turns, if found { 1 } else { 31 });
        }
    }
}
