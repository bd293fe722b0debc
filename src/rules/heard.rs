//! How long netra-control has said nothing.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// When netra-control answered last, by a clock that nobody sets.
#[derive(Debug)]
pub(crate) struct Heard {
    start: Instant,
    /// Seconds from the start to the last answer, and one more; 0 is never.
    last: AtomicU64,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// It has answered.
    pub(crate) fn hear(&self) {
        self.hear_after(self.start.elapsed());
    }

    fn hear_after(&self, time: Duration) {
        self.last.store(time.as_secs() + 1, Relaxed);
    }

    /// Whether it has answered at all.
    pub(crate) fn is_heard(&self) -> bool {
        self.last.load(Relaxed) > 0
    }

    /// Seconds since it answered last; since the start if it never did.
    pub(crate) fn stale_s(&self) -> u64 {
        self.stale_after(self.start.elapsed())
    }

    fn stale_after(&self, time: Duration) -> u64 {
        time.as_secs().saturating_sub(self.last.load(Relaxed).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_answer_and_before_it_from_the_start() {
        let (heard, s) = (Heard::new(), Duration::from_secs);
        assert_eq!((heard.is_heard(), heard.stale_after(s(7))), (false, 7));
        heard.hear_after(s(0));
        assert_eq!((heard.is_heard(), heard.stale_after(s(9))), (true, 9));
        heard.hear_after(s(60));
        assert_eq!(
            (heard.is_heard(), heard.stale_after(s(60)), heard.stale_after(s(75))),
            (true, 0, 15)
        );
    }
}
