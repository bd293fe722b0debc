//! `/metrics`: what the collector counts of itself, and span metrics by the names that others have
//! given them.

use crate::books::Books;
use crate::keeper::Losses;
use crate::names::{BUCKETS_S, Op};
use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Operations that have span metrics: each is a score of lines.
const OPS_SHOWN_MAX: usize = 5000;

/// All families, in Prometheus' text form.
pub(super) fn text(books: &Books, losses: &Losses, budget: usize) -> String {
    let mut out = String::new();
    own(&mut out, books, losses, budget);
    span_metrics(&mut out, books);
    out
}

fn own(out: &mut String, books: &Books, losses: &Losses, budget: usize) {
    let (counts, evictions) = (books.counts, books.store.evictions);
    let load = |counter: &AtomicU64| counter.load(Relaxed);
    let (here, kept) = books.store.counts();
    for (name, kind, help, value) in [
        ("spans_total", "counter", "Spans taken in; all of them are in the figures", counts.spans),
        ("error_spans_total", "counter", "Of these, such as have failed", counts.errors),
        ("batches_total", "counter", "Messages that brought spans", counts.batches),
        ("restored_spans_total", "counter", "Spans read back from disk", counts.restored),
        (
            "hurried_spans_total",
            "counter",
            "Spans that waited shorter for their relatives than they were to",
            books.joiner.hurried,
        ),
        ("spans", "gauge", "Spans in memory", here as u64),
        ("kept_spans", "gauge", "Of these, such as are kept for what they tell", kept as u64),
        ("memory_bytes", "gauge", "What spans, figures and names take", books.bytes() as u64),
        ("memory_max_bytes", "gauge", "The budget", budget as u64),
        ("nodes", "gauge", "Nodes of the map", books.names.nodes.len() as u64),
        ("operations", "gauge", "Operations that have figures", books.names.ops.len() as u64),
        ("reporters", "gauge", "Processes that have sent spans", books.reporters.all.len() as u64),
        (
            "forwarded_requests_total",
            "counter",
            "Requests handed on to another receiver",
            load(&losses.forwarded),
        ),
    ] {
        let _ = writeln!(
            out,
            "# HELP netra_collect_{name} {help}\n# TYPE netra_collect_{name} {kind}\nnetra_collect_{name} {value}"
        );
    }
    let _ = writeln!(
        out,
        "# HELP netra_collect_lost_total What came and is not here, or not whole\n\
         # TYPE netra_collect_lost_total counter"
    );
    for (what, value) in [
        ("evicted_ordinary_spans", evictions.ordinary),
        ("evicted_telling_spans", evictions.telling),
        ("duplicate_spans", counts.duplicates),
        ("cut_spans", counts.cut),
        ("refused_spans", counts.refused),
        ("spans_without_a_name_of_their_own", books.names.overflows),
        ("samples_too_late", books.slots.too_late),
        ("reporters_forgotten", books.reporters.forgotten),
        ("messages_without_room", load(&losses.no_room)),
        ("messages_malformed", load(&losses.malformed)),
        ("messages_too_long", load(&losses.too_long)),
        ("requests_not_forwarded", load(&losses.not_forwarded)),
        ("blocks_not_written", load(&losses.not_written)),
    ] {
        let _ = writeln!(out, "netra_collect_lost_total{{what=\"{what}\"}} {value}");
    }
}

fn span_metrics(out: &mut String, books: &Books) {
    let ops = || books.names.ops.iter().take(OPS_SHOWN_MAX);
    let labels = |op: &Op| {
        let service = escaped(&books.names.nodes[op.node as usize].name);
        let kind = op.kind.name().to_uppercase();
        format!(
            "service=\"{service}\",span_name=\"{}\",span_kind=\"SPAN_KIND_{kind}\"",
            escaped(&op.name)
        )
    };
    let _ = writeln!(
        out,
        "# HELP traces_spanmetrics_calls_total Spans by service, operation, kind and status\n\
         # TYPE traces_spanmetrics_calls_total counter"
    );
    for op in ops() {
        let labels = labels(op);
        for (status, value) in
            [("STATUS_CODE_UNSET", op.seen - op.errors), ("STATUS_CODE_ERROR", op.errors)]
        {
            if value > 0 {
                let _ = writeln!(
                    out,
                    "traces_spanmetrics_calls_total{{{labels},status_code=\"{status}\"}} {value}"
                );
            }
        }
    }
    let _ = writeln!(
        out,
        "# HELP traces_spanmetrics_latency Durations of spans in seconds\n\
         # TYPE traces_spanmetrics_latency histogram"
    );
    for op in ops() {
        let labels = labels(op);
        let mut sum = 0;
        for (bound, count) in BUCKETS_S.iter().zip(op.buckets) {
            sum += u64::from(count);
            let _ =
                writeln!(out, "traces_spanmetrics_latency_bucket{{{labels},le=\"{bound}\"}} {sum}");
        }
        let _ = writeln!(
            out,
            "traces_spanmetrics_latency_bucket{{{labels},le=\"+Inf\"}} {}\n\
             traces_spanmetrics_latency_sum{{{labels}}} {}\n\
             traces_spanmetrics_latency_count{{{labels}}} {}",
            op.seen,
            op.sum_us as f64 / 1e6,
            op.seen
        );
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Kind;
    use crate::batch::tests::{BEGIN, batch, made};

    #[test]
    fn families_and_labels() {
        let mut books = Books::new(16 << 20);
        let mut odd = made("shop", Kind::Server, (1, 1, 0));
        odd.name = "a\"b\\c\nd".into();
        odd.is_error = true;
        odd.at_us = (0, 3_000);
        books.take(&batch(&[odd]), BEGIN);
        let text = text(&books, &Losses::default(), 1);
        for line in [
            "netra_collect_spans_total 1",
            "netra_collect_lost_total{what=\"duplicate_spans\"} 0",
            "traces_spanmetrics_calls_total{service=\"shop\",span_name=\"a\\\"b\\\\c\\nd\",span_kind=\"SPAN_KIND_SERVER\",status_code=\"STATUS_CODE_ERROR\"} 1",
            "traces_spanmetrics_latency_bucket{service=\"shop\",span_name=\"a\\\"b\\\\c\\nd\",span_kind=\"SPAN_KIND_SERVER\",le=\"0.002\"} 0",
            "traces_spanmetrics_latency_bucket{service=\"shop\",span_name=\"a\\\"b\\\\c\\nd\",span_kind=\"SPAN_KIND_SERVER\",le=\"0.004\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
