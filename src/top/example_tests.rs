//! Answers of `/shards`, `/failures` and `/clusters`, for tests.

use serde_json::{Value, json};

pub(super) fn failures() -> Value {
    json!({
        "total": 7,
        "destinations": [{"destination": "10.0.0.5:80", "flag": "UF", "side": "upstream",
                          "reason": "upstream_refused", "count": 7, "last": "2026-01-01T00:00:01.000Z",
                          "advice": "nobody listens there: start what should"}],
        "failures": [{"time": "2026-01-01T00:00:01.000Z", "flag": "UF", "side": "upstream",
                      "reason": "upstream_refused", "errno": "ECONNREFUSED", "direction": "outbound",
                      "dialled": "10.0.0.5:80", "original_dst": "10.0.0.5:80"}],
    })
}

pub(super) fn clusters() -> Value {
    let endpoint = |address: &str, state: &str, why: Option<&str>, out_for_ms: Option<u64>| {
        json!({"address": address, "weight": 1, "state": state, "why": why, "out_for_ms": out_for_ms,
               "requests": 1, "connections": 2, "answers": 30, "failures": 5, "ejections": 1,
               "changed_ms_ago": out_for_ms})
    };
    json!({
        "clusters_total": 2,
        "clusters": [
            {"name": "orders", "endpoints": [
                endpoint("10.0.0.5:80", "ejected", Some("faults"), Some(12_000)),
                endpoint("10.0.0.6:80", "up", None, None)]},
            {"name": "empty", "endpoints": []},
        ],
    })
}

pub(super) fn answer(uptime_s: f64, requests: u64) -> Value {
    json!({
        "service": "shop", "version": "1.2.3", "driver": "io_uring", "uptime_s": uptime_s,
        "resident_bytes": 4_100_000, "cpu_s": uptime_s / 4.0,
        "requests": {"inbound": {"2xx": requests, "5xx": requests / 10}, "outbound": {}},
        "bytes": {"inbound": {"request": 1000 * requests, "response": 0}, "outbound": {}},
        "connections": {"opened": requests / 2},
        "durations": {"request_inbound": {"cells": [[100.0, requests], [200.0, requests / 50]]}},
        "shards": [{"connections": 3, "busy_s": uptime_s / 2.0, "turns": 10 * requests,
                    "buffers_used": 1, "buffers_max": 512, "contexts": 7}],
    })
}
