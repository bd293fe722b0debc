//! What documents say of how a cluster treats its endpoints.

use super::{HealthCheck, SuccessRate};
use std::{fmt::Write as _, time::Duration};

/// How a cluster treats its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Who gets a connection, or a message.
    pub balancer: Balancer,
    /// Each message is balanced for itself; else a connection keeps its endpoint while it can.
    pub by_message: bool,
    /// Of hashed messages: an endpoint has at most this percent of what each has on average; 0 is no
    /// bound.
    pub hash_bound_percent: u32,
    /// How much at once.
    pub breakers: Breakers,
    /// How long a dial may take; 0 is netra's own limit.
    pub connect_timeout_ns: u64,
    /// How endpoints begin that are new.
    pub warmup: Option<Warmup>,
    /// Who is left out for a while.
    pub outlier: Option<Outlier>,
    /// Dials that failed and are tried again elsewhere.
    pub retries: Retries,
    /// How endpoints are asked whether they are well.
    pub check: Option<HealthCheck>,
    /// Whose success rate is much worse than the others'; with `outlier` alone.
    pub success_rate: Option<SuccessRate>,
    /// Who is nearer, in words.
    pub nearer: Option<Box<str>>,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            balancer: Balancer::LeastRequest,
            by_message: false,
            hash_bound_percent: 0,
            breakers: Breakers::default(),
            connect_timeout_ns: 0,
            warmup: None,
            outlier: None,
            retries: Retries { percent: 20, least: 3, most: u32::MAX },
            check: None,
            success_rate: None,
            nearer: None,
        }
    }
}

/// Who gets a connection, or a message, that no hash says an endpoint for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balancer {
    /// Of two that chance draws by weight, the one with less to do.
    #[default]
    LeastRequest,
    /// The same, by how long answers took lately, too.
    PeakEwma,
    /// One after the other, by weight.
    RoundRobin,
    /// Chance, by weight.
    Random,
}

/// How much there may be at once, on all shards together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakers {
    /// Connections to the cluster's endpoints.
    pub connections: u32,
    /// Of them, those that are not there yet.
    pub pending: u32,
    /// Messages without an answer.
    pub requests: u32,
}

impl Default for Breakers {
    fn default() -> Self {
        Self { connections: u32::MAX, pending: u32::MAX, requests: u32::MAX }
    }
}

/// How an endpoint begins that has come later than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// For so long it gets less than its part.
    pub duration_ns: u64,
    /// What it gets at least, of its part.
    pub least_percent: u32,
    /// Over 1000: its part grows faster at first; 1000 is a straight line.
    pub aggression_milli: u32,
}

impl Warmup {
    /// What an endpoint of this age gets of its part, of 65536.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn part(&self, age_ns: u64) -> u64 {
        const WHOLE: u64 = 1 << 16;
        if age_ns >= self.duration_ns {
            return WHOLE;
        }
        let least = WHOLE * u64::from(self.least_percent) / 100;
        let time = age_ns as f64 / self.duration_ns as f64;
        let part = time.powf(1000.0 / f64::from(self.aggression_milli.max(1)));
        least.max((part * WHOLE as f64) as u64)
    }
}

/// When an endpoint is left out for a while. A count of 0 is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Answers in a row that are the server's fault; dials that fail and connections that end
    /// without an answer are among them, unless `splits`.
    pub consecutive: u32,
    /// Answers in a row that say that somebody behind the server is at fault: 502, 503, 504.
    pub consecutive_gateway: u32,
    /// Dials that fail and connections that end without an answer, in a row, where they are counted
    /// for themselves.
    pub consecutive_local: u32,
    /// Whether they are.
    pub splits: bool,
    /// For each of these that went well one ejection is forgotten.
    pub interval_ns: u64,
    /// How long the first ejection takes; the n-th takes n times as long.
    pub base_ns: u64,
    /// Endpoints that may be out at a time; one may in any case, unless it is 0, and the last never.
    pub percent_max: u32,
    /// With fewer percent that are not out, nobody is taken to be out.
    pub health_percent_min: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive: 5,
            consecutive_gateway: 0,
            consecutive_local: 5,
            splits: false,
            interval_ns: 10_000_000_000,
            base_ns: 30_000_000_000,
            percent_max: 10,
            health_percent_min: 0,
        }
    }
}

/// How many of a cluster's messages may be tried again at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Of all that have no answer yet.
    pub percent: u32,
    /// As many may in any case.
    pub least: u32,
    /// More never may.
    pub most: u32,
}

impl Retries {
    /// Whether one more may be tried again.
    pub(super) fn allow(&self, now: u32, requests: u32) -> bool {
        let by_percent = u64::from(requests) * u64::from(self.percent) / 100;
        u64::from(now) < by_percent.max(self.least.into()).min(self.most.into())
    }
}

impl TrafficPolicy {
    /// What it does, in words.
    pub fn in_words(&self, is_hashed: bool) -> String {
        let whose = if self.by_message { "each message" } else { "each connection" };
        let mut words = match (is_hashed, self.balancer) {
            (true, _) if self.hash_bound_percent > 0 => {
                format!("by hash, none with more than {} % of the mean", self.hash_bound_percent)
            }
            (true, _) => "by hash".to_owned(),
            (_, Balancer::LeastRequest) => format!("{whose} to the less busy of two"),
            (_, Balancer::PeakEwma) => format!("{whose} to the quicker of two"),
            (_, Balancer::RoundRobin) => format!("{whose} to the next"),
            (_, Balancer::Random) => format!("{whose} by chance"),
        };
        let mut add = |more: String| {
            let _ = write!(words, "; {more}");
        };
        if let Some(warmup) = &self.warmup {
            add(format!(
                "new ones begin with {} % and have all after {}",
                warmup.least_percent,
                time(warmup.duration_ns)
            ));
        }
        let Breakers { connections, pending, requests } = self.breakers;
        for (most, what) in [
            (connections, "connections"),
            (pending, "connections that are not there yet"),
            (requests, "messages without an answer"),
        ] {
            if most < u32::MAX {
                add(format!("at most {most} {what}"));
            }
        }
        if self.connect_timeout_ns > 0 {
            add(format!("a dial takes at most {}", time(self.connect_timeout_ns)));
        }
        if let Some(outlier) = &self.outlier {
            add(outlier.in_words());
            if let Some(rate) = &self.success_rate {
                add(rate.in_words());
            }
        }
        if let Some(nearer) = &self.nearer {
            add(nearer.to_string());
        }
        if let Some(check) = &self.check {
            add(check.in_words());
        }
        if self.retries != Self::default().retries {
            let Retries { percent, least, most } = self.retries;
            let most = if most < u32::MAX { format!(", at most {most}") } else { String::new() };
            add(format!("tries again {percent} %, at least {least}{most}"));
        }
        words
    }
}

impl Outlier {
    fn in_words(&self) -> String {
        let counts = [
            (self.consecutive, "faults"),
            (self.consecutive_gateway, "faults behind it"),
            (if self.splits { self.consecutive_local } else { 0 }, "failed dials"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        if counts.is_empty() || self.percent_max == 0 {
            return "ejects nobody".to_owned();
        }
        format!(
            "ejects who has {} in a row, for {} the first time, at most {} %",
            counts.join(" or "),
            time(self.base_ns),
            self.percent_max
        )
    }
}

fn time(ns: u64) -> String {
    format!("{:?}", Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warming_endpoint_gets_more_and_more() {
        let warmup = Warmup { duration_ns: 1000, least_percent: 10, aggression_milli: 1000 };
        let percent = |age| warmup.part(age) * 100 / (1 << 16);
        assert_eq!([0, 50, 500, 999, 1000, 5000].map(percent), [9, 9, 50, 99, 100, 100]);
        let eager = Warmup { aggression_milli: 2000, ..warmup };
        assert_eq!(eager.part(250) * 100 / (1 << 16), 50);
    }

    #[test]
    fn a_budget_of_retries_is_a_part_and_a_few() {
        let retries = TrafficPolicy::default().retries;
        for (now, requests, is_allowed) in [
            (0, 0, true),
            (2, 0, true),
            (3, 0, false),
            (3, 15, false),
            (3, 20, true),
            (20, 100, false),
        ] {
            assert_eq!(retries.allow(now, requests), is_allowed, "{now} of {requests}");
        }
        assert!(!Retries { most: 0, ..retries }.allow(0, 1000));
    }
}
