//! Time as nanoseconds since the start of a run, and the few conversions around it.

use std::time::{Duration, Instant};

/// Nanoseconds since the origin of a `Clock`.
pub(crate) type Nanos = u64;

/// One second.
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// Reads the counter of the CPU where the kernel itself keeps time by it, else the monotonic clock:
/// a request needs several readings, so each must cost next to nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Origin);

#[derive(Clone, Copy, Debug)]
enum Origin {
    Counter(minstant::Instant),
    System(Instant),
}

impl Clock {
    /// Time zero is now.
    pub(crate) fn start() -> Self {
        // Without the counter minstant would read a clock that moves every 4 ms.
        Self(match minstant::is_tsc_available() {
            true => Origin::Counter(minstant::Instant::now()),
            false => Origin::System(Instant::now()),
        })
    }

    pub(crate) fn now(&self) -> Nanos {
        nanos(match &self.0 {
            Origin::Counter(start) => start.elapsed(),
            Origin::System(start) => start.elapsed(),
        })
    }
}

/// A duration as nanoseconds; 584 years fit.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    duration.as_secs().saturating_mul(SECOND).saturating_add(u64::from(duration.subsec_nanos()))
}

/// Nanoseconds as microseconds for people.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn micros(value: Nanos) -> f64 {
    value as f64 / 1e3
}

/// A count as a float, for means and rates.
#[expect(clippy::cast_precision_loss, reason = "rates and shares need few digits")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

/// A float as a whole number; negative values and NaN become zero, huge ones saturate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A duration given in seconds on the command line or in a file.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.trim_end_matches('s').parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| duration.as_secs() < 24 * 3600)
        .ok_or_else(|| "seconds must be between 0 and 86400".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_runs_as_fast_as_the_clock_of_the_system() {
        let (clock, start) = (Clock::start(), Instant::now());
        // The best of several: the thread may be stopped between the two readings.
        let best = (0..30).map(|_| {
            std::thread::park_timeout(Duration::from_millis(20));
            let (want, got) = (nanos(start.elapsed()), clock.now());
            float(got.abs_diff(want)) / float(want)
        });
        let best = best.fold(1.0, f64::min);
        assert!(best < 0.000_1, "{best}");
    }

    #[test]
    fn seconds_are_read_with_and_without_a_unit() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("20s"), Ok(Duration::from_secs(20)));
        for bad in ["-1", "nan", "inf", "86401", "ten", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn floats_become_whole_numbers_without_wrapping() {
        assert_eq!(whole(2.5), 3);
        assert_eq!(whole(-7.0), 0);
        assert_eq!(whole(f64::NAN), 0);
        assert_eq!(whole(f64::INFINITY), u64::MAX);
    }
}
