//! trafficPolicy of a DestinationRule: how endpoints are chosen, limited and left out.

use super::{Reader, number_of, time_of};
use crate::{
    balance::{Balancer, Breakers, HealthCheck, Outlier, Retries, TrafficPolicy, Warmup},
    locality::Preference,
    shape::{percent_parts, short, switch, time_ns, whole},
    trouble::Place,
    yaml::Node,
};
use netra_codecs::ping::Ping;

/// How endpoints of a host or subset are treated.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicySpec {
    /// Wherever the connection went.
    pub(crate) is_original: bool,
    pub(crate) hash: Option<(HashSpec, Place)>,
    /// A ring of at least so many points, in the place of a table of Maglev.
    pub(crate) ring: Option<u32>,
    pub(crate) policy: TrafficPolicy,
    /// Who is nearer, and where that is said.
    pub(crate) nearer: Option<(Preference, Place)>,
    /// Where something is said that only endpoints have an effect on.
    pub(crate) place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HashSpec {
    Attribute(String),
    Source,
}

/// What Istio's document has no field for: annotations of the document.
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

/// Points of a ring when it is not said, as in Istio.
const RING_POINTS: u32 = 1024;

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

    /// What a trafficPolicy says; what it does not speak of is as `outer` says.
    pub(super) fn policy_of(&mut self, node: &Node, outer: &PolicySpec) -> PolicySpec {
        let mut spec = outer.clone();
        let Some(policy) = node.get("trafficPolicy").filter(|it| !it.is_null()) else {
            return spec;
        };
        let part = |name: &str| policy.get(name).filter(|it| !it.is_null());
        if let Some(balancer) = part("loadBalancer") {
            self.balancer(balancer, &mut spec);
        }
        if let Some(pool) = part("connectionPool") {
            pool_of(pool, &mut spec.policy);
            spec.place = Some(self.place(pool));
        }
        if let Some(outlier) = part("outlierDetection") {
            spec.policy.outlier = Some(outlier_of(outlier));
            spec.place = Some(self.place(outlier));
        }
        if let Some(budget) = part("retryBudget") {
            let retries = &mut spec.policy.retries;
            let percent = budget.get("percent").and_then(percent_parts);
            retries.percent = percent.map_or(20, |parts| parts / 10_000);
            retries.least = number_of(budget, "minRetryConcurrency").unwrap_or(3);
        }
        spec
    }

    fn balancer(&mut self, node: &Node, spec: &mut PolicySpec) {
        let own = spec.policy.balancer;
        spec.is_original = false;
        let simple = node.text_of("simple");
        spec.policy.balancer = match simple {
            Some("ROUND_ROBIN") => Balancer::RoundRobin,
            Some("RANDOM") => Balancer::Random,
            // That of the annotation, if there is one.
            _ if own == Balancer::PeakEwma => own,
            _ => Balancer::LeastRequest,
        };
        spec.is_original = simple == Some("PASSTHROUGH");
        if let Some(nearer) = node.get("localityLbSetting").filter(|it| !it.is_null()) {
            spec.nearer = self.nearer(nearer);
        }
        (spec.hash, spec.ring) = (None, None);
        if let Some(hash) = node.get("consistentHash").filter(|it| !it.is_null()) {
            let asked = hashes(hash);
            if asked.len() != 1 {
                let what = "consistentHash: allowed is exactly one of httpHeaderName, httpCookie, \
                            useSourceIp and httpQueryParameterName";
                self.error(hash, what);
            }
            let place = self.place(hash);
            spec.hash = asked.into_iter().next().map(|asked| (asked, place));
            let ring = hash.get("ringHash").filter(|it| !it.is_null());
            let points = ring.and_then(|ring| number_of(ring, "minimumRingSize"));
            let points = points.or_else(|| number_of(hash, "minimumRingSize")).filter(|it| *it > 0);
            spec.ring = points.or(ring.map(|_| RING_POINTS));
        }
        let warmup = node.get("warmup").filter(|it| !it.is_null());
        spec.policy.warmup = match (warmup, time_of(node, "warmupDurationSecs")) {
            (Some(warmup), _) => warmup_of(warmup),
            (None, 0) => None,
            (None, duration_ns) => {
                Some(Warmup { duration_ns, least_percent: 10, aggression_milli: 1000 })
            }
        };
    }
}

impl Reader<'_> {
    fn nearer(&mut self, node: &Node) -> Option<(Preference, Place)> {
        let place = self.place(node);
        if node.get("enabled").and_then(switch) == Some(false) {
            return None;
        }
        let text = |node: &Node, name| node.text_of(name).unwrap_or_default().to_owned();
        let failover = node.list("failover").iter();
        let failover = failover.map(|it| (text(it, "from"), text(it, "to"))).collect();
        let mut distribute = Vec::new();
        for from in node.list("distribute") {
            let to = from.get("to").map_or(&[][..], Node::entries).iter();
            let to: Vec<(String, u32)> = to
                .filter_map(|(key, part)| Some((key.text.to_string(), part.text()?.parse().ok()?)))
                .collect();
            let sum: u32 = to.iter().map(|(_, part)| part).sum();
            if sum != 100 {
                self.error(from, format!("parts are {sum} together: allowed is 100"));
            }
            distribute.push((text(from, "from"), to));
        }
        let preference = Preference { failover, distribute };
        if preference.parts() && !preference.failover.is_empty() {
            self.error(node, "allowed is one of distribute and failover");
        }
        Some((preference, place))
    }
}

fn warmup_of(node: &Node) -> Option<Warmup> {
    let duration_ns = time_of(node, "duration");
    let percent = node.get("minimumPercent").and_then(percent_parts);
    let aggression = node.get("aggression").and_then(percent_parts);
    (duration_ns > 0).then(|| Warmup {
        duration_ns,
        least_percent: percent.map_or(10, |parts| parts / 10_000),
        aggression_milli: aggression.map_or(1000, |parts| parts / 10),
    })
}

fn pool_of(node: &Node, policy: &mut TrafficPolicy) {
    let (tcp, http) = (node.get("tcp"), node.get("http"));
    // As in Istio's documents 0 is what is not said.
    let most = |node: Option<&Node>, name| {
        node.and_then(|node| number_of(node, name)).filter(|it| *it > 0).unwrap_or(u32::MAX)
    };
    policy.breakers = Breakers {
        connections: most(tcp, "maxConnections"),
        pending: most(http, "http1MaxPendingRequests"),
        requests: most(http, "http2MaxRequests"),
    };
    policy.connect_timeout_ns = tcp.map_or(0, |tcp| time_of(tcp, "connectTimeout"));
    policy.retries = Retries { most: most(http, "maxRetries"), ..policy.retries };
}

fn outlier_of(node: &Node) -> Outlier {
    let usual = Outlier::default();
    let number = |name, usual| number_of(node, name).unwrap_or(usual);
    let time = |name, usual| Some(time_of(node, name)).filter(|it| *it > 0).unwrap_or(usual);
    // Istio's old name of the same.
    let consecutive = number("consecutiveErrors", usual.consecutive);
    Outlier {
        consecutive: number("consecutive5xxErrors", consecutive),
        consecutive_gateway: number("consecutiveGatewayErrors", usual.consecutive_gateway),
        consecutive_local: number("consecutiveLocalOriginFailures", usual.consecutive_local),
        splits: node.get("splitExternalLocalOriginErrors").and_then(switch) == Some(true),
        interval_ns: time("interval", usual.interval_ns),
        base_ns: time("baseEjectionTime", usual.base_ns),
        percent_max: node
            .get("maxEjectionPercent")
            .and_then(whole)
            .map_or(usual.percent_max, |it| u32::try_from(it).unwrap_or(100)),
        health_percent_min: number("minHealthPercent", usual.health_percent_min),
    }
}

/// All that a document hashes by; allowed is one.
fn hashes(node: &Node) -> Vec<HashSpec> {
    let mut found = Vec::new();
    found.extend(node.text_of("httpHeaderName").map(|it| HashSpec::Attribute(it.to_owned())));
    let cookie = node.at(&["httpCookie", "name"]).and_then(Node::text);
    found.extend(cookie.map(|it| HashSpec::Attribute(format!("cookie.{it}"))));
    let query = node.text_of("httpQueryParameterName");
    found.extend(query.map(|it| HashSpec::Attribute(format!("query.{it}"))));
    let is_source = node.get("useSourceIp").and_then(switch) == Some(true);
    found.extend(is_source.then_some(HashSpec::Source));
    found
}
