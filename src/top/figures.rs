//! From two answers of `/shards` to what people want to know.

use crate::mask;
use serde_json::Value;

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Totals {
    value: Value,
    uptime_s: f64,
}

/// What happened between two answers, or since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) driver: String,
    pub(super) uptime_s: f64,
    pub(super) resident_bytes: f64,
    /// Share of a CPU.
    pub(super) cpu: f64,
    /// Inbound and outbound.
    pub(super) requests_per_s: [f64; 2],
    pub(super) errors_per_s: [f64; 2],
    pub(super) durations: [Percentiles; 2],
    pub(super) overheads: [Percentiles; 2],
    pub(super) connections: f64,
    pub(super) opened_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) shards: Vec<ShardFigures>,
}

/// In microseconds; None when nothing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Percentiles {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) p999: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ShardFigures {
    pub(super) busy: f64,
    pub(super) connections: f64,
    pub(super) turns_per_s: f64,
    pub(super) parks_per_s: f64,
    pub(super) buffers_used: f64,
    pub(super) buffers_max: f64,
    pub(super) contexts: f64,
    pub(super) spliced_per_s: f64,
    /// New connections wait for room.
    pub(super) is_full: bool,
}

const DIRECTIONS: [&str; 2] = ["inbound", "outbound"];

impl Totals {
    pub(super) fn read(value: &Value) -> Option<Self> {
        let uptime_s = value["uptime_s"].as_f64()?;
        Some(Self { value: value.clone(), uptime_s })
    }

    fn number(&self, pointer: &str) -> f64 {
        self.value.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
    }

    fn sum(&self, pointer: &str) -> f64 {
        let object = self.value.pointer(pointer).and_then(Value::as_object);
        object.map_or(0.0, |fields| fields.values().filter_map(Value::as_f64).sum())
    }

    /// Upper edges and counts of a histogram's cells.
    fn cells(&self, name: &str) -> Vec<(f64, f64)> {
        let cells = self.value["durations"][name]["cells"].as_array();
        let cell = |cell: &Value| Some((cell[0].as_f64().unwrap_or(f64::MAX), cell[1].as_f64()?));
        cells.map(|cells| cells.iter().filter_map(cell).collect()).unwrap_or_default()
    }
}

impl Figures {
    pub(super) fn between(was: Option<&Totals>, now: &Totals) -> Self {
        // Another process answers when the time runs backwards.
        let was = was.filter(|was| was.uptime_s < now.uptime_s);
        let since_s = now.uptime_s - was.map_or(0.0, |was| was.uptime_s);
        let rate = |read: &dyn Fn(&Totals) -> f64| {
            (read(now) - was.map_or(0.0, read)).max(0.0) / since_s.max(1e-3)
        };
        // Whoever answers writes no escape sequences.
        let text =
            |name: &str| mask::line(now.value[name].as_str().unwrap_or_default()).into_owned();
        let spread = |name: String| percentiles(&now.cells(&name), was.map(|was| was.cells(&name)));
        let shards = now.value["shards"].as_array().map_or(0, Vec::len);
        Self {
            service: text("service"),
            version: text("version"),
            driver: text("driver"),
            uptime_s: now.uptime_s,
            resident_bytes: now.number("/resident_bytes"),
            cpu: rate(&|it| it.number("/cpu_s")),
            requests_per_s: DIRECTIONS.map(|way| rate(&|it| it.sum(&format!("/requests/{way}")))),
            errors_per_s: DIRECTIONS
                .map(|way| rate(&|it| it.number(&format!("/requests/{way}/5xx")))),
            durations: DIRECTIONS.map(|way| spread(format!("request_{way}"))),
            overheads: DIRECTIONS.map(|way| spread(format!("overhead_{way}"))),
            connections: (0..shards)
                .map(|shard| now.number(&format!("/shards/{shard}/connections")))
                .sum(),
            opened_per_s: rate(&|it| it.number("/connections/opened")),
            bytes_per_s: rate(&|it| it.sum("/bytes/inbound") + it.sum("/bytes/outbound")),
            shards: (0..shards)
                .map(|shard| {
                    let rate_of =
                        |name: &str| rate(&|it| it.number(&format!("/shards/{shard}/{name}")));
                    let level = |name: &str| now.number(&format!("/shards/{shard}/{name}"));
                    ShardFigures {
                        busy: rate_of("busy_s").min(1.0),
                        connections: level("connections"),
                        turns_per_s: rate_of("turns"),
                        parks_per_s: rate_of("parks"),
                        buffers_used: level("buffers_used"),
                        buffers_max: level("buffers_max"),
                        contexts: level("contexts"),
                        spliced_per_s: rate_of("splice_bytes"),
                        is_full: level("accept_full") > 0.0,
                    }
                })
                .collect(),
        }
    }
}

fn percentiles(now: &[(f64, f64)], was: Option<Vec<(f64, f64)>>) -> Percentiles {
    let was = was.unwrap_or_default();
    let before = |edge: f64| {
        was.iter().find(|cell| cell.0.to_bits() == edge.to_bits()).map_or(0.0, |cell| cell.1)
    };
    let cells: Vec<_> = now.iter().map(|(edge, n)| (*edge, n - before(*edge))).collect();
    let total: f64 = cells.iter().map(|cell| cell.1).sum();
    let quantile = |q: f64| {
        let rank = (total * q).ceil().max(1.0);
        let mut seen = 0.0;
        let found = cells.iter().find(|(_, n)| {
            seen += n;
            seen >= rank
        });
        found.map(|(edge, _)| *edge)
    };
    Percentiles { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::example::answer;
    use serde_json::json;

    #[test]
    fn rates_and_percentiles_are_of_the_time_between() {
        let (was, now) = (answer(10.0, 1000), answer(12.0, 3000));
        let (was, now) = (Totals::read(&was).unwrap(), Totals::read(&now).unwrap());
        let figures = Figures::between(Some(&was), &now);
        assert_eq!(figures.requests_per_s, [1100.0, 0.0]);
        assert_eq!(figures.errors_per_s, [100.0, 0.0]);
        assert_eq!(figures.bytes_per_s, 1_000_000.0);
        assert_eq!((figures.cpu, figures.shards[0].busy), (0.25, 0.5));
        assert_eq!(figures.shards[0].turns_per_s, 10_000.0);
        assert_eq!(figures.durations[0].p50, Some(100.0));
        assert_eq!(figures.durations[0].p99, Some(200.0));
        assert_eq!(figures.durations[1], Percentiles::default());
        // A netra that was started anew has no past.
        assert_eq!(Figures::between(Some(&now), &was).requests_per_s[0], 110.0);
        assert_eq!(Totals::read(&json!({})), None);
    }
}
