//! trafficPolicy of a DestinationRule: how endpoints are chosen, limited and left out.

use super::{Reader, number_of, time_of};
use crate::{
    balance::{Balancer, Breakers, Outlier, Retries, TrafficPolicy, Warmup},
    locality::{Preference, is_of_place},
    shape::{percent_parts, short, switch, whole},
    trouble::Place,
    yaml::Node,
};

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

/// Points of a ring when it is not said, as in Istio.
const RING_POINTS: u32 = 1024;

impl Reader<'_> {
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
        let mut labels = Vec::new();
        for label in node.list("failoverPriority") {
            let Some(text) = label.text() else { continue };
            let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
            if name.is_empty() || value.is_some_and(|it| it.contains('=')) {
                let what = format!("{:?}: allowed is a label, or label=value", short(text));
                self.error(label, what);
            }
            labels.push((name.to_owned(), value.map(str::to_owned)));
        }
        let preference = Preference { failover, distribute, labels };
        let is_both = !preference.failover.is_empty() || !preference.labels.is_empty();
        if preference.parts() && is_both {
            self.error(node, "allowed is one of distribute and failover, failoverPriority");
        }
        if let Some(place) = preference.labels.iter().find(|(name, _)| is_of_place(name))
            && !preference.failover.is_empty()
        {
            let what = format!(
                "failoverPriority={:?}: beside failover allowed are labels that say no region, zone or \
                 subzone",
                short(&place.0)
            );
            self.error(node, what);
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
