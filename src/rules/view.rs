//! What is told of the rules in force: on a page, and as metrics.

use super::heard::Heard;
use netra_perf::{Metric, MetricKind, More, Point, Value};
use netra_rules::{Hits, Process, RouterLanding, RuleHits, RuleId, Table};
use serde_json::json;
use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// Rules that have a series, and that the page lists, at most.
const LISTED_MAX: usize = 1000;

/// The rules in force, and what has become of their documents.
#[derive(Clone, Default)]
pub(crate) struct View {
    /// Where documents are; empty if nowhere.
    pub(crate) path: String,
    pub(crate) table: Arc<Table>,
    /// What shards share of what goes with it.
    pub(crate) process: Arc<Process>,
    /// Of each shard.
    pub(crate) hits: Vec<Arc<Hits>>,
    /// What was counted by tables that are no longer in force, by the rule's name.
    pub(crate) before: Arc<HashMap<Box<str>, (u64, u64)>>,
    /// The same of those that shards may still count by.
    pub(crate) leaving: Vec<(Arc<Table>, Vec<Arc<Hits>>)>,
    pub(crate) landings: Vec<RouterLanding>,
    pub(crate) warnings: Vec<String>,
    /// What is wrong with the documents that are there now, if the rules are of earlier ones.
    pub(crate) errors: Vec<String>,
    pub(crate) since: Option<SystemTime>,
    /// How often documents changed so that they came into force, and so that they did not.
    pub(crate) changes: (u64, u64),
    /// Of the netra-control that says them; None where rules are files of one's own.
    pub(crate) heard: Option<Arc<Heard>>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?}, generation {})", self.path, self.table.generation())
    }
}

impl View {
    /// What a rule has decided, with all that one of its name did before.
    fn counted(&self, index: usize) -> RuleHits {
        let mut sum = RuleHits::default();
        let Some(rule) = self.table.rules().get(index) else { return sum };
        let mut add = |more: RuleHits| {
            sum.all += more.all;
            sum.refused += more.refused;
            sum.last_ns = sum.last_ns.max(more.last_ns);
        };
        let id = |index: usize| RuleId(u32::try_from(index).unwrap_or(u32::MAX));
        self.hits.iter().for_each(|hits| add(hits.of(id(index))));
        for (table, hits) in &self.leaving {
            // Mostly a rule is where it was.
            let same = table.rules().get(index).filter(|it| it.name == rule.name).map(|_| index);
            let place = same.or_else(|| table.rules().iter().position(|it| it.name == rule.name));
            let Some(place) = place else { continue };
            hits.iter().for_each(|hits| add(hits.of(id(place))));
        }
        if let Some((all, refused)) = self.before.get(&rule.name) {
            add(RuleHits { all: *all, refused: *refused, last_ns: 0 });
        }
        sum
    }

    /// Everything of tables that shards may still count by, by name, with what was counted before.
    pub(super) fn folded(
        &self,
        gone: &[(Arc<Table>, Vec<Arc<Hits>>)],
    ) -> HashMap<Box<str>, (u64, u64)> {
        let mut sums = HashMap::clone(&self.before);
        for (table, hits) in gone {
            for (id, rule) in (0..).map(RuleId).zip(table.rules()) {
                let counted = hits.iter().map(|hits| hits.of(id)).filter(|it| it.all > 0);
                for hit in counted {
                    let sum = sums.entry(rule.name.clone()).or_default();
                    *sum = (sum.0 + hit.all, sum.1 + hit.refused);
                }
            }
        }
        // Rules that are gone are forgotten, so that their number is bounded.
        let names: std::collections::HashSet<_> =
            self.table.rules().iter().map(|rule| &rule.name).collect();
        sums.retain(|name, _| names.contains(name));
        sums
    }

    /// The page. `now_ns` is of the clock by which rules count.
    pub(crate) fn page(&self, now_ns: u64) -> serde_json::Value {
        let rules: Vec<_> = (self.table.rules().iter().enumerate().take(LISTED_MAX))
            .map(|(index, rule)| {
                let hits = self.counted(index);
                let ago = now_ns.saturating_sub(hits.last_ns) / 1_000_000;
                json!({
                    "name": &*rule.name,
                    "place": &*rule.place,
                    "effect": &*rule.effect,
                    "hits": hits.all,
                    "refused": hits.refused,
                    "last_hit_ms_ago": (hits.last_ns > 0).then_some(ago),
                    "never": rule.never.as_deref(),
                })
            })
            .collect();
        let landings: Vec<_> = (self.landings.iter().take(LISTED_MAX))
            .map(|it| json!({ "router": it.name, "host": it.host, "places": it.places }))
            .collect();
        let control = self
            .heard
            .as_ref()
            .map(|heard| json!({ "is_heard": heard.is_heard(), "stale_s": heard.stale_s() }));
        let since = self.since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
        json!({
            "path": self.path,
            "generation": self.table.generation(),
            "since_unix_s": since.map(|since| since.as_secs()),
            "is_current": self.errors.is_empty(),
            "errors": self.errors,
            "warnings": self.warnings,
            "rules": rules,
            "rules_total": self.table.rules().len(),
            "landings": landings,
            "table_bytes": self.table.bytes(),
            "control": control,
        })
    }
}

/// Metrics of the rules in force.
#[derive(Debug)]
pub(crate) struct Metrics(pub(crate) watch::Receiver<View>);

impl More for Metrics {
    fn metrics(&self) -> Vec<Metric> {
        let view = self.0.borrow();
        if view.path.is_empty() {
            return Vec::new();
        }
        let gauge = |name, help, value| Metric {
            name,
            help,
            kind: MetricKind::Gauge,
            points: vec![Point { labels: Vec::new(), value: Value::Whole(value) }],
        };
        let rules = view.table.rules().iter().enumerate().take(LISTED_MAX);
        let points = rules.map(|(index, rule)| Point {
            labels: vec![("rule", rule.name.to_string().into())],
            value: Value::Whole(view.counted(index).all),
        });
        let outcomes = [("good", view.changes.0), ("bad", view.changes.1)];
        let outcomes = outcomes.map(|(outcome, count)| Point {
            labels: vec![("outcome", outcome.into())],
            value: Value::Whole(count),
        });
        let stale = view.heard.as_ref().map(|heard| {
            gauge(
                "netra_rules_stale_seconds",
                "Since netra-control answered last, or since the start if it never did",
                heard.stale_s(),
            )
        });
        let own = [
            Metric {
                name: "netra_rules_reload",
                help: "Changes of the documents of rules: now in force, or refused",
                kind: MetricKind::Counter,
                points: outcomes.into(),
            },
            gauge("netra_rules", "Rules in force", view.table.rules().len() as u64),
            gauge(
                "netra_rules_generation",
                "Which change of the rules is in force; 1 is what was there at the start",
                view.table.generation(),
            ),
            gauge(
                "netra_rules_current",
                "0 while the documents that are there are bad, so that earlier rules are in force",
                u64::from(view.errors.is_empty()),
            ),
            Metric {
                name: "netra_rules_hits",
                help: "Messages that a rule decided about, of the first 1000 rules",
                kind: MetricKind::Counter,
                points: points.collect(),
            },
        ];
        own.into_iter().chain(stale).chain(view.cluster_metrics()).collect()
    }
}
