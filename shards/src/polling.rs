//! Whether to poll before parking. Sleeping and waking costs more than anything else that a relay
//! does, but polling costs a core: so a shard polls only while what it waits for has lately come
//! sooner than its budget, and only while most polls find it. An idle sidecar, one with a slow
//! upstream, one at a rate where gaps are long as often as short, and a throttled one park; and
//! one that shares its CPU with whom it waits for soon finds out that polling only keeps them from
//! answering.

use crate::sys::Nanos;

/// Weight of the newest gap in the estimate: one eighth.
const GAP_SHIFT: u32 = 3;
/// A gap longer than this many budgets counts as this many: after a lull a few short gaps suffice
/// to begin again.
const GAP_CAP_BUDGETS: Nanos = 4;

/// Share of polls that found work, in 1/1024; the newest weighs one sixteenth.
const SHARE_ONE: u32 = 1024;
const SHARE_SHIFT: u32 = 4;
/// At this share polling pays; below it one turn in [`PROBE_TURNS`] tries whether it would again,
/// and where nearly none finds anything one in [`HOPELESS_TURNS`].
const SHARE_PAYS: u32 = SHARE_ONE * 3 / 4;
const SHARE_HOPELESS: u32 = SHARE_ONE / 4;
const PROBE_TURNS: u32 = 64;
const HOPELESS_TURNS: u32 = 4096;

/// The estimate of how soon work comes after a shard has run out of it.
#[derive(Debug)]
pub(crate) struct Polling {
    budget_max: Nanos,
    allowed: bool,
    /// Estimated time from running out of work to the next event.
    gap: Nanos,
    /// Share of polls that found work.
    share: u32,
    /// Turns to let go by without polling.
    skip: u32,
    quiet_since: Nanos,
}

impl Polling {
    /// Polls for `budget_max` at most; zero never polls.
    pub(crate) fn new(budget_max: Nanos) -> Self {
        let gap = budget_max.saturating_mul(GAP_CAP_BUDGETS);
        Self { budget_max, allowed: true, gap, share: SHARE_ONE, skip: 0, quiet_since: 0 }
    }

    /// Whether polling is allowed at all.
    pub(crate) fn allow(&mut self, allowed: bool) {
        self.allowed = allowed;
    }

    /// How long to poll before parking; not at all where that is not likely to find work.
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

    /// Work came while polling. Where there was no hope, one find is reason to look more often.
    pub(crate) fn found(&mut self) {
        self.share += (SHARE_ONE - self.share) >> SHARE_SHIFT;
        self.share = self.share.max(SHARE_HOPELESS);
        self.plan();
    }

    /// Polling found nothing. Gaps that are short only while the shard sleeps are those of somebody
    /// who needs its CPU; one that was long by chance is no reason to stop.
    pub(crate) fn missed(&mut self) {
        self.share -= self.share >> SHARE_SHIFT;
        self.plan();
    }

    fn plan(&mut self) {
        self.skip = match self.share {
            SHARE_PAYS.. => 0,
            SHARE_HOPELESS.. => PROBE_TURNS - 1,
            _ => HOPELESS_TURNS - 1,
        };
    }

    /// A turn is over: it woke at `woke_at` and ran out of work at `quiet_since`.
    pub(crate) fn after_turn(&mut self, worked: bool, woke_at: Nanos, quiet_since: Nanos) {
        if worked {
            if self.quiet_since > 0 {
                let gap = woke_at.saturating_sub(self.quiet_since);
                let gap = gap.min(self.budget_max.saturating_mul(GAP_CAP_BUDGETS));
                self.gap = self.gap - (self.gap >> GAP_SHIFT) + (gap >> GAP_SHIFT);
            }
            self.quiet_since = quiet_since;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Nanos = 50_000;

    /// Lives through gaps, polling as it would; `comes` says whether work can come while polling.
    /// Returns how many of the turns polled, and how many of those found nothing.
    fn live(
        polling: &mut Polling,
        gaps_us: impl IntoIterator<Item = u64>,
        comes: bool,
    ) -> (u32, u32) {
        let (mut now, mut polls, mut misses) = (1, 0, 0);
        for gap in gaps_us.into_iter().map(|us| us * 1_000) {
            polling.after_turn(true, now, now + 5_000);
            now += 5_000;
            if polling.budget().is_some() {
                polls += 1;
                if comes && gap <= BUDGET {
                    polling.found();
                } else {
                    polling.missed();
                    misses += 1;
                    now += if comes { 0 } else { BUDGET };
                }
            }
            now += gap;
        }
        (polls, misses)
    }

    #[test]
    fn it_polls_only_while_work_comes_within_the_budget() {
        assert!(live(&mut Polling::new(BUDGET), [20; 1000], true).0 > 950);
        assert_eq!(live(&mut Polling::new(BUDGET), [80; 1000], true).0, 0);
        assert_eq!(
            live(&mut Polling::new(BUDGET), [1_000_000; 100], true).0,
            0,
            "idle shards park"
        );
        assert_eq!(live(&mut Polling::new(0), [1; 1000], true).0, 0, "zero never polls");
    }

    #[test]
    fn it_begins_again_when_gaps_shrink() {
        let mut polling = Polling::new(BUDGET);
        assert!(live(&mut polling, [10; 100], true).0 > 50);
        assert_eq!(live(&mut polling, [10_000; 100], true).0 / 10, 0);
        assert!(live(&mut polling, [10; 3000], true).0 > 1500);
    }

    #[test]
    fn a_long_gap_now_and_then_is_forgiven_but_a_coin_toss_is_not_worth_a_core() {
        let rare = (0..1000).map(|n| if n % 20 == 0 { 90 } else { 10 });
        assert!(live(&mut Polling::new(BUDGET), rare, true).0 > 900);
        let mixed = (0..1000).map(|n| if n % 2 == 0 { 80 } else { 10 });
        let (polls, misses) = live(&mut Polling::new(BUDGET), mixed, true);
        assert!(polls < 150 && misses < 80, "{polls} polls, {misses} misses");
    }

    #[test]
    fn who_shares_its_cpu_with_the_answerer_hardly_ever_polls() {
        let (polls, _) = live(&mut Polling::new(BUDGET), [10; 10_000], false);
        assert!(polls < 80, "{polls} polls for nothing");
    }

    #[test]
    fn a_throttled_process_never_polls() {
        let mut throttled = Polling::new(BUDGET);
        throttled.allow(false);
        assert_eq!(live(&mut throttled, [10; 100], true).0, 0);
    }
}
