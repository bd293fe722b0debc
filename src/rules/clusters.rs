//! What is told of clusters: on a page, and as metrics.

use super::View;
use netra_perf::{Metric, MetricKind, Point, Value};
use netra_rules::{ClusterView, EndpointView, Full, Standing, Unwell};
use serde_json::json;

/// Clusters that have series, at most.
const MEASURED_MAX: usize = 100;
/// Clusters and endpoints that the page lists, at most.
pub(crate) const LISTED_MAX: usize = 1000;

impl View {
    /// Clusters of one name, for different ports, are one.
    fn clusters(&self, now_ns: u64) -> Vec<ClusterView> {
        let mut all: Vec<ClusterView> = Vec::new();
        for cluster in self.table.clusters_now(&self.process, now_ns) {
            let Some(known) = all.iter_mut().find(|known| known.name == cluster.name) else {
                all.push(cluster);
                continue;
            };
            for endpoint in cluster.endpoints {
                if known.endpoints.iter().all(|it| it.address != endpoint.address) {
                    known.endpoints.push(endpoint);
                }
            }
        }
        all
    }

    /// The page, with so many endpoints at most: those first that do not just get their part.
    /// `now_ns` is of the clock by which rules count.
    pub(crate) fn clusters_page(&self, now_ns: u64, most: usize) -> serde_json::Value {
        let mut room = most.min(LISTED_MAX);
        let mut clusters = self.clusters(now_ns);
        let is_up = |it: &EndpointView| it.standing == Standing::Up;
        for cluster in &mut clusters {
            cluster.endpoints.sort_by_key(is_up);
        }
        clusters.sort_by_key(|cluster| cluster.endpoints.iter().all(is_up));
        let total = clusters.len();
        let listed = clusters.iter().map_while(|cluster| {
            let endpoints = cluster.endpoints.get(..cluster.endpoints.len().min(room))?;
            room = room.checked_sub(endpoints.len().max(1))?;
            let endpoints: Vec<_> = endpoints.iter().map(|it| endpoint(it, now_ns)).collect();
            Some(json!({
                "name": &*cluster.name,
                "policy": cluster.policy,
                "requests": cluster.requests,
                "connections": cluster.connections,
                "pending": cluster.pending,
                "parts_percent": cluster.parts,
                "retries": cluster.retries,
                "retries_refused": cluster.retries_refused,
                "refused": Full::ALL
                    .map(|full| (full.name().to_owned(), json!(cluster.refused[full as usize])))
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>(),
                "endpoints": endpoints,
                "endpoints_total": cluster.endpoints.len(),
            }))
        });
        json!({
            "generation": self.table.generation(),
            "clusters": listed.collect::<Vec<_>>(),
            "clusters_total": total,
        })
    }

    pub(super) fn cluster_metrics(&self) -> Vec<Metric> {
        let clusters = self.clusters(netra_shards::monotonic_ns());
        let clusters = &clusters[..clusters.len().min(MEASURED_MAX)];
        let each = |of: &dyn Fn(&ClusterView) -> u64| -> Vec<Point> {
            clusters.iter().map(|cluster| point(cluster, None, of(cluster))).collect()
        };
        let metric = |name, help, kind, points| Metric { name, help, kind, points };
        let (gauge, counter) = (MetricKind::Gauge, MetricKind::Counter);
        let ejections = |it: &ClusterView| it.endpoints.iter().map(|it| it.ejections).sum::<u64>();
        vec![
            metric(
                "netra_cluster_requests_active",
                "Messages to a cluster without an answer, of the first 100 clusters",
                gauge,
                each(&|it| it.requests.into()),
            ),
            metric(
                "netra_cluster_connections_active",
                "Connections to endpoints of a cluster",
                gauge,
                each(&|it| it.connections.into()),
            ),
            metric(
                "netra_cluster_endpoints",
                "Endpoints of a cluster, by state",
                gauge,
                by(clusters, "state", states),
            ),
            metric(
                "netra_cluster_ejections",
                "Times that an endpoint of a cluster was left out",
                counter,
                each(&ejections),
            ),
            metric(
                "netra_cluster_retries",
                "Messages that were tried again at another endpoint of a cluster",
                counter,
                each(&|it| it.retries),
            ),
            metric(
                "netra_cluster_refused",
                "Messages that were refused because a cluster had as much as it may, by what of",
                counter,
                by(clusters, "full", refused),
            ),
            metric(
                "netra_cluster_checks",
                "Questions to endpoints of a cluster whether they are well, by what they said",
                counter,
                by(clusters, "outcome", checks),
            ),
        ]
    }
}

const STATES: [&str; 5] = ["up", "warming", "ejected", "probing", "unhealthy"];

fn refused(cluster: &ClusterView) -> Vec<(&'static str, u64)> {
    Full::ALL.map(|full| (full.name(), cluster.refused[full as usize])).into()
}

fn states(cluster: &ClusterView) -> Vec<(&'static str, u64)> {
    let count = |state| cluster.endpoints.iter().filter(|it| state_of(it).0 == state).count();
    STATES.map(|state| (state, count(state) as u64)).into()
}

/// Nothing where nobody is asked.
fn checks(cluster: &ClusterView) -> Vec<(&'static str, u64)> {
    let asked: Vec<_> = cluster.endpoints.iter().filter(|it| it.check.is_some()).collect();
    let count = |at: usize| asked.iter().map(|it| it.checks[at]).sum();
    if asked.is_empty() { Vec::new() } else { vec![("well", count(0)), ("unwell", count(1))] }
}

/// A point of each value of a label.
fn by(
    clusters: &[ClusterView],
    label: &'static str,
    of: impl Fn(&ClusterView) -> Vec<(&'static str, u64)>,
) -> Vec<Point> {
    let each = |cluster: &ClusterView| {
        let point = |(name, value)| point(cluster, Some((label, name)), value);
        of(cluster).into_iter().map(point).collect::<Vec<_>>()
    };
    clusters.iter().flat_map(each).collect()
}

fn point(cluster: &ClusterView, label: Option<(&'static str, &'static str)>, value: u64) -> Point {
    Point {
        labels: std::iter::once(("cluster", cluster.name.to_string().into()))
            .chain(label.map(|(name, value)| (name, value.into())))
            .collect(),
        value: Value::Whole(value),
    }
}

/// How an endpoint stands, in a word, and why.
fn state_of(endpoint: &EndpointView) -> (&'static str, Option<&'static str>) {
    match endpoint.standing {
        Standing::Up => (STATES[0], None),
        Standing::Warming => (STATES[1], None),
        Standing::Ejected(why, _) => (STATES[2], Some(why.name())),
        Standing::Probing(why) => (STATES[3], Some(why.name())),
        Standing::Unhealthy(why) => (STATES[4], Some(why.name())),
    }
}

fn endpoint(endpoint: &EndpointView, now_ns: u64) -> serde_json::Value {
    let (state, why) = state_of(endpoint);
    let changed = endpoint.changed_ns;
    let until = match endpoint.standing {
        Standing::Ejected(_, until) => Some(until.saturating_sub(now_ns) / 1_000_000),
        _ => None,
    };
    json!({
        "address": endpoint.address.to_string(),
        "weight": endpoint.weight,
        "level": endpoint.level,
        "state": state,
        "why": why,
        "out_for_ms": until,
        "requests": endpoint.requests,
        "connections": endpoint.connections,
        "answers": endpoint.answers,
        "failures": endpoint.failures,
        "ejections": endpoint.ejections,
        "changed_ms_ago": (changed > 0).then(|| now_ns.saturating_sub(changed) / 1_000_000),
        "check": endpoint.check.map(|check| json!({
            "last": check.last.map_or("well", Unwell::name),
            "is_failing": check.is_failing,
            "ms_ago": now_ns.saturating_sub(check.at_ns) / 1_000_000,
            "well": endpoint.checks[0],
            "unwell": endpoint.checks[1],
        })),
    })
}
