//! How long a thread sleeps between two looks into the shards' rings: the less the more there is to
//! find, and long while there is nothing.

use std::time::Duration;

/// The shortest: even at a million spans a second a ring of 2048 is not full by then.
const BUSY: Duration = Duration::from_millis(1);
/// The longest while spans come at all.
const CALM: Duration = Duration::from_millis(10);
/// The longest for a while after the last one.
const QUIET: Duration = Duration::from_millis(50);
/// The longest at all: four wake-ups a second.
const IDLE: Duration = Duration::from_millis(250);
/// Quiet for so long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// Spans of one ring in one look from which on the next one comes sooner, and below which later.
const MANY: usize = 512;
const FEW: usize = 128;

#[derive(Debug)]
pub(crate) struct Pace {
    pause: Duration,
    quiet_for: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: QUIET, quiet_for: Duration::ZERO }
    }
}

impl Pace {
    /// How long to sleep after a look that found so many spans in the fullest ring.
    pub(crate) fn after(&mut self, found_most: usize) -> Duration {
        self.quiet_for = if found_most == 0 { self.quiet_for + self.pause } else { Duration::ZERO };
        self.pause = match found_most {
            0 if self.quiet_for >= IDLE_AFTER => (self.pause * 2).min(IDLE),
            0 => (self.pause * 2).min(QUIET),
            FEW..MANY => self.pause.min(CALM),
            MANY.. => (self.pause / 2).clamp(BUSY, CALM),
            _ => (self.pause * 2).min(CALM),
        };
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_often_while_there_is_much_and_hardly_while_there_is_nothing() {
        let mut pace = Pace::default();
        let mut after = |found, times| {
            let pauses = (0..times).map(|_| pace.after(found));
            pauses.last().unwrap_or_default()
        };
        assert_eq!(after(0, 10), QUIET);
        assert_eq!(after(1, 1), CALM);
        assert_eq!(after(2000, 1), CALM / 2);
        assert_eq!(after(2000, 10), BUSY);
        assert_eq!(after(200, 100), BUSY);
        assert_eq!(after(1, 10), CALM);
        assert_eq!(after(0, 3), QUIET);
        assert_eq!(after(0, 250), IDLE);
        assert_eq!(after(1, 1), CALM);
    }
}
