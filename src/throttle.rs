//! Whether the CPU quota of a cgroup is used up. A throttled process stands still for the rest of
//! the period, so that time spent polling is paid back as latency many times over: polling pauses.

use std::fs;

/// Looks this often without throttling before polling is allowed again.
const CALM_LOOKS: u32 = 10;

/// Watches the cpu.stat files of the cgroups that have a quota.
#[derive(Debug)]
pub(crate) struct Throttle {
    files: Vec<String>,
    throttled: u64,
    /// Looks since the quota was last used up; polling is paused below [`CALM_LOOKS`].
    calm: u32,
}

impl Throttle {
    /// What happened before the start does not count.
    pub(crate) fn new(files: Vec<String>) -> Self {
        let throttled = periods(&files);
        Self { files, throttled, calm: CALM_LOOKS }
    }

    /// Looks again; says whether polling is allowed from now on, when that changes.
    pub(crate) fn look(&mut self) -> Option<bool> {
        if self.files.is_empty() {
            return None;
        }
        let throttled = periods(&self.files);
        self.seen(throttled)
    }

    fn seen(&mut self, throttled: u64) -> Option<bool> {
        let was_allowed = self.calm >= CALM_LOOKS;
        self.calm = if throttled > self.throttled { 0 } else { self.calm.saturating_add(1) };
        self.throttled = throttled;
        let allowed = self.calm >= CALM_LOOKS;
        (allowed != was_allowed).then_some(allowed)
    }
}

/// Periods in which the quota was used up, by these files.
pub(crate) fn periods(files: &[String]) -> u64 {
    let periods = |file| nr_throttled(&fs::read_to_string(file).unwrap_or_default());
    files.iter().map(periods).sum()
}

/// Periods in which the quota was used up; v1 and v2 call it the same.
fn nr_throttled(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_pauses_at_once_and_comes_back_after_a_calm_while() {
        let mut throttle = Throttle { files: vec![], throttled: 5, calm: CALM_LOOKS };
        assert_eq!(throttle.seen(5), None);
        assert_eq!(throttle.seen(6), Some(false));
        assert_eq!(throttle.seen(7), None);
        for _ in 1..CALM_LOOKS {
            assert_eq!(throttle.seen(7), None);
        }
        assert_eq!(throttle.seen(7), Some(true));
        assert_eq!(throttle.seen(7), None);
    }

    #[test]
    fn the_count_is_found_in_either_version() {
        assert_eq!(nr_throttled("usage_usec 1\nnr_periods 9\nnr_throttled 3\n"), 3);
        assert_eq!(nr_throttled("nr_periods 0\n"), 0);
        assert_eq!(Throttle::new(vec![]).look(), None);
    }
}
