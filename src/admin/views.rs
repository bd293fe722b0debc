//! What shards count and measure, read from their recorders without asking them.

use super::{Admin, json, number};
use crate::{
    endpoint::{Answer, Ask},
    rules::LISTED_MAX,
};
use netra_perf::{
    FAMILIES, Gauge, HistogramSnapshot, Key, Recorder, Stage,
    labels::{DIRECTIONS, STATUS_CLASSES, WAYS},
};
use serde_json::{Map, Value, json};
use std::time::SystemTime;

/// Durations by name.
const DURATIONS: [(&str, Stage); 5] = [
    ("request_inbound", Stage::RequestInbound),
    ("request_outbound", Stage::RequestOutbound),
    ("overhead_inbound", Stage::OverheadInbound),
    ("overhead_outbound", Stage::OverheadOutbound),
    ("dial", Stage::Dial),
];

impl Admin {
    /// Totals since the start; whoever looks twice has rates. Histograms come with their cells, so
    /// that percentiles of the time between can be told, too.
    pub(super) fn shards(&self) -> Value {
        let uptime = SystemTime::now().duration_since(self.started).unwrap_or_default();
        let shards: Vec<Value> = self
            .recorders
            .iter()
            .enumerate()
            .map(|(index, recorder)| shard(index, recorder))
            .collect();
        let process = netra_perf::process::Process::read();
        json!({
            "service": self.config.service_name,
            "version": env!("CARGO_PKG_VERSION"),
            "driver": self.driver,
            "uptime_s": uptime.as_secs_f64(),
            "resident_bytes": process.resident_bytes,
            "cpu_s": process.cpu_seconds,
            "open_fds": process.open_fds,
            "max_fds": process.max_fds,
            "shards": shards,
            "requests": self.requests(),
            "bytes": self.bytes(),
            "connections": {
                "opened": self.family_total("netra_tcp_connections_opened"),
                "closed": self.family("netra_tcp_connections_closed"),
                "connect_failures": self.family("netra_upstream_connect_failures"),
                "loop_rejected": self.total(Key::LOOP_REJECTED),
            },
            "opaque": self.family("netra_opaque"),
            "spans": self.family("netra_spans"),
            "durations": self.durations(),
        })
    }

    /// Clusters of the rules, those first that have something to tell.
    pub(super) fn clusters(&self, ask: &Ask) -> Answer {
        let most = u32::try_from(LISTED_MAX).unwrap_or(u32::MAX);
        match number(ask, "top", most, most) {
            Ok(top) => {
                let now_ns = netra_shards::monotonic_ns();
                json(&self.rules.borrow().clusters_page(now_ns, top as usize))
            }
            Err(wrong) => wrong,
        }
    }

    /// What is remembered by request id.
    pub(super) fn contexts(&self) -> Value {
        let ttl = self.config.http.limits.context_ttl_ms;
        let entries: Vec<u64> =
            self.recorders.iter().map(|it| it.gauge(Gauge::ContextEntries)).collect();
        json!({
            "entries_by_shard": entries,
            "entries_max_by_shard": self.config.http.limits.contexts_max,
            "ttl_ms": ttl,
            "hits": self.total(Key::CONTEXT_HITS),
            "misses": self.total(Key::CONTEXT_MISSES),
            "evicted": self.total(Key::CONTEXT_EVICTED),
            "replication_dropped": self.total(Key::REPLICATION_DROPPED),
            "requests_without_id": self.total(Key::NO_REQUEST_ID),
        })
    }

    fn total(&self, key: Key) -> u64 {
        self.recorders.iter().map(|recorder| recorder.get(key)).sum()
    }

    /// A family's series that are not zero, summed over the shards, by their labels.
    fn family(&self, name: &str) -> Value {
        let family = FAMILIES.iter().filter(|family| family.name == name);
        let series = family.flat_map(netra_perf::Family::series);
        let counted = series.map(|series| (series.labels.join(" "), self.total(series.key)));
        Value::Object(counted.filter(|(_, n)| *n > 0).map(|(key, n)| (key, n.into())).collect())
    }

    fn family_total(&self, name: &str) -> u64 {
        let family = FAMILIES.iter().filter(|family| family.name == name);
        family.flat_map(netra_perf::Family::series).map(|series| self.total(series.key)).sum()
    }

    fn requests(&self) -> Value {
        let methods = 0..netra_perf::labels::METHODS.len();
        let class = |direction, class| -> u64 {
            methods.clone().map(|method| self.total(Key::request(direction, method, class))).sum()
        };
        by_direction(|direction| {
            let counted = STATUS_CLASSES.iter().enumerate();
            Value::Object(
                counted.map(|(at, word)| ((*word).into(), class(direction, at).into())).collect(),
            )
        })
    }

    fn bytes(&self) -> Value {
        by_direction(|direction| {
            let ways = WAYS.iter().enumerate();
            Value::Object(
                ways.map(|(at, way)| ((*way).into(), self.total(Key::bytes(direction, at)).into()))
                    .collect(),
            )
        })
    }

    fn durations(&self) -> Value {
        let mut all = Map::new();
        for (name, stage) in DURATIONS {
            let mut merged = HistogramSnapshot::default();
            for recorder in &self.recorders {
                merged.merge(&recorder.stage(stage).snapshot());
            }
            all.insert(name.into(), duration(&merged));
        }
        Value::Object(all)
    }
}

fn by_direction(value: impl Fn(usize) -> Value) -> Value {
    let directions = DIRECTIONS.iter().enumerate();
    Value::Object(directions.map(|(at, word)| ((*word).into(), value(at))).collect())
}

#[allow(clippy::cast_precision_loss)]
fn duration(seen: &HistogramSnapshot) -> Value {
    let us = |ns: u64| if ns == u64::MAX { None } else { Some(ns as f64 / 1e3) };
    json!({
        "count": seen.count(),
        "sum_us": seen.sum_seconds() * 1e6,
        "p50_us": us(seen.quantile_ns(0.5)),
        "p99_us": us(seen.quantile_ns(0.99)),
        "p999_us": us(seen.quantile_ns(0.999)),
        "cells": seen.cells().map(|(edge, n)| json!([us(edge), n])).collect::<Vec<_>>(),
    })
}

#[allow(clippy::cast_precision_loss)]
fn shard(index: usize, recorder: &Recorder) -> Value {
    json!({
        "shard": index,
        "connections": recorder.gauge(Gauge::ConnectionsActive),
        "turns": recorder.get(Key::TURNS),
        "spins": recorder.get(Key::SPINS),
        "parks": recorder.get(Key::PARKS),
        "busy_s": recorder.get(Key::BUSY_NS) as f64 / 1e9,
        "buffers_used": recorder.gauge(Gauge::BuffersUsed),
        "buffers_max": recorder.gauge(Gauge::BuffersMax),
        "buffers_starved": recorder.get(Key::BUFFER_STARVED),
        "back_pressure": recorder.get(Key::BACK_PRESSURE),
        "pipes_used": recorder.gauge(Gauge::PipesUsed),
        "splice_bytes": recorder.get(Key::SPLICE_BYTES),
        "contexts": recorder.gauge(Gauge::ContextEntries),
        "held_bytes": recorder.gauge(Gauge::HeldBytes),
        "accept_full": recorder.gauge(Gauge::AcceptFull),
    })
}
