//! Success rates: who is much worse than the others over an interval is left out. Nobody sweeps where
//! messages are decided about: counters that are there anyway are looked at, once an interval.

use super::{Balance, Ejected, Member};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// When a success rate is much worse than the others'. As Envoy has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// So many standard deviations below the mean, in thousandths.
    pub factor_milli: u32,
    /// With fewer endpoints that were asked enough nobody is compared.
    pub hosts_min: u32,
    /// Messages in an interval that are enough.
    pub volume_min: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { factor_milli: 1900, hosts_min: 5, volume_min: 100 }
    }
}

impl SuccessRate {
    pub(super) fn in_words(&self) -> String {
        format!(
            "ejects whose success rate is {} deviations below the mean of {} or more with {} messages \
             in an interval",
            f64::from(self.factor_milli) / 1000.0,
            self.hosts_min,
            self.volume_min
        )
    }

    /// Of which rate on somebody is no worse than the others, by what each answered well of how much;
    /// None where they cannot be compared.
    #[allow(clippy::cast_precision_loss)]
    fn least(&self, counts: &[(u64, u64)]) -> Option<f64> {
        let asked = counts.iter().filter(|(_, all)| *all >= u64::from(self.volume_min.max(1)));
        let rates: Vec<f64> = asked.map(|(well, all)| *well as f64 / *all as f64).collect();
        if rates.is_empty() || rates.len() < self.hosts_min as usize {
            return None;
        }
        let count = rates.len() as f64;
        let mean = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        Some(mean - variance.sqrt() * f64::from(self.factor_milli) / 1000.0)
    }
}

/// When a cluster was looked at last; 0 is never.
#[derive(Debug, Default)]
pub(super) struct Swept(AtomicU64);

impl Clone for Swept {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Relaxed)))
    }
}

impl Balance {
    /// Whether its success rates are looked at.
    pub(crate) fn is_swept(&self) -> bool {
        self.policy.success_rate.is_some() && self.policy.outlier.is_some()
    }

    /// Looks at success rates if it is time; when it is the next time. None where nobody wants that.
    pub(crate) fn sweep(&self, now_ns: u64) -> Option<u64> {
        let (rate, outlier) = (self.policy.success_rate?, self.policy.outlier?);
        let last = self.swept.0.load(Relaxed);
        let next = last.saturating_add(outlier.interval_ns);
        if last != 0 && now_ns < next {
            return Some(next);
        }
        self.swept.0.store(now_ns.max(1), Relaxed);
        let counts: Vec<_> = self.members.iter().map(|member| member.since_swept()).collect();
        // The first time says nothing of an interval.
        let least = rate.least(&counts).filter(|_| last != 0);
        if let Some(least) = least {
            let volume = u64::from(rate.volume_min.max(1));
            #[allow(clippy::cast_precision_loss)]
            let is_worse =
                |(well, all): (u64, u64)| all >= volume && (well as f64) < least * all as f64;
            let members = self.members.iter().zip(counts);
            let worse: Vec<&Arc<Member>> =
                members.filter(|(_, counts)| is_worse(*counts)).map(|(member, _)| member).collect();
            for member in worse.into_iter().filter(|member| member.is_in()) {
                if self.may_eject(&outlier) {
                    member.eject(Ejected::SuccessRate, &outlier, now_ns);
                    self.changed();
                }
            }
        }
        Some(now_ns.saturating_add(outlier.interval_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_much_worse_is_below_the_least() {
        let rate = SuccessRate::default();
        let of = |percents: &[u64]| {
            let counts: Vec<_> = percents.iter().map(|it| (it * 10, 1000)).collect();
            rate.least(&counts).map(|least| (least * 1000.0).round() / 10.0)
        };
        // Envoy's example: a mean of 90, a deviation of 20.
        assert_eq!(of(&[100, 100, 100, 100, 50]), Some(52.0));
        assert_eq!(of(&[100, 100, 100, 100, 100]), Some(100.0));
        // Nobody to compare with.
        assert_eq!(of(&[100, 100, 100, 0]), None);
        let idle = [(99, 99), (99, 99), (1000, 1000), (1000, 1000), (0, 1000)];
        assert_eq!(rate.least(&idle), None);
        assert!(SuccessRate { hosts_min: 3, ..rate }.least(&idle).is_some());
        assert_eq!(SuccessRate { hosts_min: 0, ..rate }.least(&[]), None);
    }
}
