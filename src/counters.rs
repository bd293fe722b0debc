//! What other parts than the shards count, for `/metrics`.

use crate::{
    access_log, admin, endpoint, export, log::LINES_DROPPED, metrics_push, place, resolver,
};
use netra_perf::Counter;
use std::sync::atomic::AtomicU64;

/// All of it.
pub(crate) static COUNTERS: [Counter; 22] = [
    Counter {
        name: "netra_log_lines_dropped",
        help: "Log lines dropped because nobody read them fast enough",
        label: None,
        cell: &LINES_DROPPED,
    },
    spans_by_result("sent", &export::SENT),
    spans_by_result("failed", &export::FAILED),
    spans_by_result("rejected", &export::REJECTED),
    spans_by_result("dropped", &export::DROPPED),
    access_log_by_result("written", &access_log::WRITTEN),
    access_log_by_result("failed", &access_log::FAILED),
    metrics_push::counter("sent", &metrics_push::SENT),
    metrics_push::counter("failed", &metrics_push::FAILED),
    metrics_push::counter("rejected", &metrics_push::REJECTED),
    orders_by_result("obeyed", &admin::OBEYED),
    orders_by_result("refused", &admin::REFUSED),
    Counter {
        name: "netra_own_connections_cut",
        help: "Connections to netra's own ports cut to make room for others",
        label: None,
        cell: &endpoint::CUT,
    },
    names_by_result("found", &resolver::FOUND),
    names_by_result("unknown", &resolver::UNKNOWN),
    names_by_result("remembered", &resolver::REMEMBERED),
    names_by_result("joined", &resolver::JOINED),
    names_by_result("refused", &resolver::REFUSED),
    misplaced(0),
    misplaced(1),
    misplaced(2),
    misplaced(3),
];

const fn misplaced(case: usize) -> Counter {
    Counter {
        name: "netra_misplaced",
        help: "Looks that found netra beside its traffic, by what was found",
        label: Some(("case", place::Misplaced::CASES[case])),
        cell: &place::SEEN[case],
    }
}

const fn names_by_result(result: &'static str, cell: &'static AtomicU64) -> Counter {
    let help = "Names whose addresses were wanted, by what became of the question";
    Counter { name: "netra_names", help, label: Some(("result", result)), cell }
}

const fn spans_by_result(result: &'static str, cell: &'static AtomicU64) -> Counter {
    let help = "Spans that reached the exporter, by what became of them";
    Counter { name: "netra_spans", help, label: Some(("result", result)), cell }
}

const fn orders_by_result(result: &'static str, cell: &'static AtomicU64) -> Counter {
    let help = "Orders to the admin port and socket, by what became of them";
    Counter { name: "netra_admin_orders", help, label: Some(("result", result)), cell }
}

const fn access_log_by_result(result: &'static str, cell: &'static AtomicU64) -> Counter {
    let help = "Lines of the access log, by what became of them";
    Counter { name: "netra_access_log", help, label: Some(("result", result)), cell }
}
