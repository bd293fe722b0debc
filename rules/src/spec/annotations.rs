//! Annotations of a DestinationRule: what Istio's document has no field for.

use super::{PolicySpec, Reader};
use crate::{
    balance::{Balancer, HealthCheck, TrafficPolicy},
    shape::{short, time_ns},
    yaml::Node,
};
use netra_codecs::ping::Ping;

const BALANCER: &str = "netra.io/balancer";
const BALANCE_BY: &str = "netra.io/balance-by";
const HASH_BOUND: &str = "netra.io/hash-balance-factor";
const CHECK: &str = "netra.io/health-check";
const CHECK_PATH: &str = "netra.io/health-check-path";
const CHECK_INTERVAL: &str = "netra.io/health-check-interval";
const CHECK_TIMEOUT: &str = "netra.io/health-check-timeout";
const CHECK_UNHEALTHY: &str = "netra.io/health-check-unhealthy";
const CHECK_HEALTHY: &str = "netra.io/health-check-healthy";
const RATE: &str = "netra.io/success-rate";
const RATE_FACTOR: &str = "netra.io/success-rate-stdev-factor";
const RATE_HOSTS: &str = "netra.io/success-rate-minimum-hosts";
const RATE_VOLUME: &str = "netra.io/success-rate-request-volume";
const OWN: &str = "netra.io/";

/// What annotations say of active checks.
#[derive(Default)]
struct Checks<'n> {
    kind: Option<&'n str>,
    path: Option<&'n str>,
    interval_ns: Option<u64>,
    timeout_ns: Option<u64>,
    unhealthy: Option<u32>,
    healthy: Option<u32>,
    /// Where the first of them is.
    at: Option<&'n Node>,
}

const SECOND_NS: u64 = 1_000_000_000;
/// Answers in a row, at most.
const IN_A_ROW_MAX: u32 = 100;

impl<'n> Checks<'n> {
    /// Takes what this annotation says; false is that it says nothing that is allowed.
    fn take(&mut self, name: &str, node: &'n Node, text: &'n str) -> bool {
        let time = |least: u64| {
            let ns = time_ns(text).filter(|ns| (least..=3600 * SECOND_NS).contains(ns));
            (ns.is_some(), ns)
        };
        let count = || {
            let count = text.parse().ok().filter(|it| (1..=IN_A_ROW_MAX).contains(it));
            (count.is_some(), count)
        };
        let is_path =
            |text: &str| text.starts_with('/') && text.bytes().all(|it| it.is_ascii_graphic());
        self.at.get_or_insert(node);
        let is_good;
        match name {
            CHECK => {
                is_good = Ping::NAMES.contains(&text);
                self.kind = Some(text).filter(|_| is_good);
            }
            CHECK_PATH => {
                is_good = is_path(text);
                self.path = Some(text).filter(|_| is_good);
            }
            CHECK_INTERVAL => (is_good, self.interval_ns) = time(SECOND_NS),
            CHECK_TIMEOUT => (is_good, self.timeout_ns) = time(SECOND_NS / 1000),
            CHECK_UNHEALTHY => (is_good, self.unhealthy) = count(),
            CHECK_HEALTHY => (is_good, self.healthy) = count(),
            _ => return false,
        }
        is_good
    }

    fn allowed() -> String {
        format!(
            "{CHECK} with one of {}, {CHECK_PATH} with a path, {CHECK_INTERVAL} (1s at least) and \
             {CHECK_TIMEOUT} with a time, {CHECK_UNHEALTHY} and {CHECK_HEALTHY} with a number from 1 \
             to {IN_A_ROW_MAX}",
            Ping::NAMES.join(", ")
        )
    }

    /// The check of a host's endpoints; the error is what is missing.
    fn finish(&self, host: &str) -> Result<Option<HealthCheck>, String> {
        let Some(kind) = self.kind else {
            let is_asked = self.at.is_some();
            let what = format!("nothing is checked where {CHECK} does not say how");
            return if is_asked { Err(what) } else { Ok(None) };
        };
        if self.path.is_some() != (kind == "http") {
            return Err(format!("{CHECK_PATH} goes with {CHECK}: http, and that with it"));
        }
        let interval_ns = self.interval_ns.unwrap_or(5 * SECOND_NS);
        let ping = Ping::named(kind, self.path.unwrap_or("/"), host);
        Ok(ping.map(|ping| HealthCheck {
            ping,
            interval_ns,
            timeout_ns: self.timeout_ns.unwrap_or(SECOND_NS).min(interval_ns),
            unhealthy: self.unhealthy.unwrap_or(3),
            healthy: self.healthy.unwrap_or(2),
        }))
    }
}

/// Takes what an annotation says of success rates; false is that it says nothing that is allowed.
fn take_rate(name: &str, node: &Node, policy: &mut TrafficPolicy) -> bool {
    let mut rate = policy.success_rate.unwrap_or_default();
    let text = node.text().unwrap_or_default();
    let count = text.parse().ok().filter(|it| *it > 0);
    let factor = text.parse::<f64>().ok().filter(|it| (0.001..=100.0).contains(it));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let factor = factor.map(|it| (it * 1000.0).round() as u32);
    let (put, value) = match name {
        RATE_FACTOR => (&mut rate.factor_milli, factor),
        RATE_HOSTS => (&mut rate.hosts_min, count),
        RATE_VOLUME => (&mut rate.volume_min, count),
        _ => return false,
    };
    let Some(value) = value else { return false };
    *put = value;
    policy.success_rate = Some(rate);
    true
}

impl Reader<'_> {
    /// What a DestinationRule says without trafficPolicy: its annotations.
    pub(super) fn annotated_policy(&mut self, host: &str) -> PolicySpec {
        let mut spec = PolicySpec::default();
        let policy = &mut spec.policy;
        let (mut wrong, mut checks) = (Vec::new(), Checks::default());
        let annotations = self.document.root.at(&["metadata", "annotations"]);
        for (key, value) in annotations.map_or(&[][..], Node::entries) {
            let text = value.text().unwrap_or_default();
            let factor = text.parse().ok().filter(|it| (101..=10_000).contains(it));
            match (&*key.text, text) {
                (BALANCER, "peak-ewma") => policy.balancer = Balancer::PeakEwma,
                (BALANCE_BY, "message") => policy.by_message = true,
                (BALANCE_BY, "connection") => policy.by_message = false,
                (HASH_BOUND, _) if factor.is_some() => {
                    policy.hash_bound_percent = factor.unwrap_or_default();
                }
                (name, _) if name.starts_with(CHECK) && checks.take(name, value, text) => {}
                (name, _) if name.starts_with(RATE) && take_rate(name, value, policy) => {}
                (name, _) if name.starts_with(OWN) => wrong.push((value, name, text)),
                _ => {}
            }
        }
        match (wrong.is_empty(), checks.finish(host), checks.at) {
            (true, Err(what), Some(at)) => self.error(at, what),
            (_, Ok(check), at) => {
                spec.place = at.filter(|_| check.is_some()).map(|at| self.place(at));
                spec.policy.check = check;
            }
            _ => {}
        }
        for (node, name, text) in wrong {
            let what = format!(
                "annotation {}={:?}: allowed are {BALANCER} with peak-ewma, {BALANCE_BY} with \
                 message or connection, {HASH_BOUND} with a percentage from 101 to 10000, \
                 {RATE_FACTOR} with a number such as 1.9, {RATE_HOSTS} and {RATE_VOLUME} with a whole \
                 number from 1 on, {}",
                short(name),
                short(text),
                Checks::allowed()
            );
            self.error(node, what);
        }
        spec
    }
}
