//! Whether to poll before parking. Sleeping and waking costs more than anything else that a relay
//! does, but polling costs a core: so a shard polls only while what it waits for has lately come
//! sooner than its budget, and only while most polls find it. A shard parks when it is idle, when
//! its upstream is slow, when gaps between requests are long as often as short, and when its
//! process is throttled. It also parks where the upstream runs on the same CPU: there a shard that
//! polls keeps the upstream from answering, so its polls find nothing.
//!
//! What it waits for decides how long that takes: an answer comes as soon as an upstream gives it,
//! the next request when a client has one. So there are two estimates, and a shard may poll for
//! answers and sleep until requests.

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

/// What a shard waits for after a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Nothing that it has passed on asks for an answer: the next request.
    #[default]
    Request,
    /// Something went to an upstream: its answer.
    Answer,
}

/// The estimate of how soon what is awaited comes after a shard has run out of work.
#[derive(Debug)]
struct Estimate {
    /// Time from running out of work to the next event.
    gap: Nanos,
    /// Share of polls that found work.
    share: u32,
    /// Turns to let go by without polling.
    skip: u32,
}

/// Decides about polling.
#[derive(Debug)]
pub(crate) struct Polling {
    budget_max: Nanos,
    allowed: bool,
    estimates: [Estimate; 2],
    awaited: Awaited,
    quiet_since: Nanos,
}

impl Polling {
    /// Polls for `budget_max` at most; zero never polls.
    pub(crate) fn new(budget_max: Nanos) -> Self {
        let gap = budget_max.saturating_mul(GAP_CAP_BUDGETS);
        let estimate = || Estimate { gap, share: SHARE_ONE, skip: 0 };
        Self {
            budget_max,
            allowed: true,
            estimates: [estimate(), estimate()],
            awaited: Awaited::Request,
            quiet_since: 0,
        }
    }

    /// Whether polling is allowed at all.
    pub(crate) fn allow(&mut self, allowed: bool) {
        self.allowed = allowed;
    }

    fn estimate(&mut self) -> &mut Estimate {
        &mut self.estimates[self.awaited as usize]
    }

    /// How long to poll before parking; not at all where that is not likely to find work.
    pub(crate) fn budget(&mut self) -> Option<Nanos> {
        let (budget, allowed) = (self.budget_max, self.allowed);
        let estimate = self.estimate();
        if budget == 0 || !allowed || estimate.gap > budget {
            return None;
        }
        if estimate.skip > 0 {
            estimate.skip -= 1;
            return None;
        }
        Some(budget)
    }

    /// Work came while polling. Where there was no hope, one find is reason to look more often.
    pub(crate) fn found(&mut self) {
        let estimate = self.estimate();
        estimate.share += (SHARE_ONE - estimate.share) >> SHARE_SHIFT;
        estimate.share = estimate.share.max(SHARE_HOPELESS);
        estimate.plan();
    }

    /// Polling found nothing. Gaps that are short only while the shard sleeps are those of somebody
    /// who needs its CPU; one that was long by chance is no reason to stop.
    pub(crate) fn missed(&mut self) {
        let estimate = self.estimate();
        estimate.share -= estimate.share >> SHARE_SHIFT;
        estimate.plan();
    }

    /// A turn is over: it woke at `woke_at` and ran out of work at `quiet_since`. If it had events,
    /// `awaited` is what they leave to wait for.
    pub(crate) fn after_turn(
        &mut self,
        awaited: Option<Awaited>,
        woke_at: Nanos,
        quiet_since: Nanos,
    ) {
        let Some(awaited) = awaited else { return };
        if self.quiet_since > 0 {
            let gap = woke_at.saturating_sub(self.quiet_since);
            let gap = gap.min(self.budget_max.saturating_mul(GAP_CAP_BUDGETS));
            let estimate = self.estimate();
            estimate.gap = estimate.gap - (estimate.gap >> GAP_SHIFT) + (gap >> GAP_SHIFT);
        }
        (self.quiet_since, self.awaited) = (quiet_since, awaited);
    }
}

impl Estimate {
    fn plan(&mut self) {
        self.skip = match self.share {
            SHARE_PAYS.. => 0,
            SHARE_HOPELESS.. => PROBE_TURNS - 1,
            _ => HOPELESS_TURNS - 1,
        };
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
            polling.after_turn(Some(Awaited::Request), now, now + 5_000);
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
    fn it_polls_for_answers_while_requests_are_far_between() {
        let mut polling = Polling::new(BUDGET);
        let (mut now, mut polls) = (1, [0, 0]);
        for turn in 0..2000 {
            let (awaited, gap) = if turn % 2 == 0 {
                (Awaited::Answer, 30_000)
            } else {
                (Awaited::Request, 1_000_000)
            };
            polling.after_turn(Some(awaited), now, now + 5_000);
            if polling.budget().is_some() {
                polls[awaited as usize] += 1;
                if gap <= BUDGET { polling.found() } else { polling.missed() }
            }
            now += 5_000 + gap;
        }
        assert_eq!(polls[Awaited::Request as usize], 0);
        assert!(polls[Awaited::Answer as usize] > 950, "{polls:?}");
    }

    #[test]
    fn a_throttled_process_never_polls() {
        let mut throttled = Polling::new(BUDGET);
        throttled.allow(false);
        assert_eq!(live(&mut throttled, [10; 100], true).0, 0);
    }
}
