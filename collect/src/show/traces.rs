//! Traces as JSON: in Jaeger's form, in OTLP's, and for the page.

use crate::batch::{Item, Value};
use crate::store::{Block, Row, flag, join_trace};
use crate::trace::{Placed, Trace};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;

fn trace_hex(trace: u128) -> String {
    if trace >> 64 == 0 { format!("{trace:016x}") } else { format!("{trace:032x}") }
}

fn tag(key: &str, value: Value<&str>) -> Json {
    let (kind, value) = match value {
        Value::Text(text) => ("string", json!(text)),
        Value::Int(number) => ("int64", json!(number)),
        Value::Float(number) => ("float64", json!(number)),
        Value::Bool(is) => ("bool", json!(is)),
    };
    json!({"key": key, "type": kind, "value": value})
}

/// What is odd about a span, as lines for people.
fn marks(span: &Placed) -> Vec<String> {
    let mut marks = Vec::new();
    if span.is_orphan {
        marks.push("its parent has not come".to_owned());
    }
    if span.is_cyclic {
        marks.push("it was below itself; the circle is broken here".to_owned());
    }
    if span.shift_ns != 0 {
        let shift = span.shift_ns / 1000;
        marks.push(format!("its clock was put right by {shift} µs"));
    }
    if span.stored.row.has(flag::CUT) {
        marks.push("something of it was too long or too many, and is left out".to_owned());
    }
    marks
}

fn tags_and_logs(block: &Block, row: &Row) -> (Vec<Json>, Vec<Json>, Vec<Json>) {
    let (mut tags, mut logs, mut links) = (Vec::new(), Vec::new(), Vec::new());
    let mut log: Option<(u64, Vec<Json>)> = None;
    let close = |log: Option<(u64, Vec<Json>)>, logs: &mut Vec<Json>| {
        if let Some((time_ns, fields)) = log {
            logs.push(json!({"timestamp": time_ns / 1000, "fields": fields}));
        }
    };
    for item in block.items(row) {
        match (item, &mut log) {
            (Item::Tag(key, value), Some((_, fields))) => fields.push(tag(key, value)),
            (Item::Tag(key, value), None) => tags.push(tag(key, value)),
            (Item::Event(time_ns, name), log) => {
                let next = (time_ns, vec![tag("event", Value::Text(name))]);
                close(log.replace(next), &mut logs);
            }
            (Item::Link(trace, span), _) => links.push(json!({
                "refType": "FOLLOWS_FROM",
                "traceID": trace_hex(trace),
                "spanID": format!("{span:016x}"),
            })),
        }
    }
    close(log, &mut logs);
    (tags, logs, links)
}

/// As Jaeger's query service answers; times are as they came.
pub(super) fn jaeger(trace: &Trace) -> Json {
    let id = trace_hex(trace.id);
    let mut processes = Map::new();
    let mut known: Vec<String> = Vec::new();
    let mut spans = Vec::new();
    for span in &trace.spans {
        let (block, row) = (&span.stored.block, &span.stored.row);
        let process = process(block, row);
        let text = process.to_string();
        let at = known.iter().position(|known| *known == text).unwrap_or_else(|| {
            processes.insert(format!("p{}", known.len() + 1), process);
            known.push(text);
            known.len() - 1
        });
        let (mut tags, logs, links) = tags_and_logs(block, row);
        tags.push(tag("span.kind", Value::Text(row.kind().name())));
        if row.has(flag::ERROR) {
            tags.push(tag("error", Value::Bool(true)));
        }
        let mut references = Vec::new();
        if row.parent != 0 {
            references.push(json!({
                "refType": "CHILD_OF",
                "traceID": id,
                "spanID": format!("{:016x}", row.parent),
            }));
        }
        references.extend(links);
        let marks = marks(span);
        spans.push(json!({
            "traceID": id,
            "spanID": format!("{:016x}", row.id),
            "operationName": block.text(row.name),
            "references": references,
            "startTime": row.start_ns / 1000,
            "duration": row.duration_ns / 1000,
            "tags": tags,
            "logs": logs,
            "processID": format!("p{}", at + 1),
            "warnings": if marks.is_empty() { Json::Null } else { json!(marks) },
        }));
    }
    json!({"traceID": id, "spans": spans, "processes": processes, "warnings": Json::Null})
}

fn process(block: &Block, row: &Row) -> Json {
    let items = block.process(row).map(|process| block.process_items(process));
    let tags: Vec<Json> = items
        .into_iter()
        .flatten()
        .filter_map(|item| match item {
            Item::Tag(key, value) => Some(tag(key, value)),
            _ => None,
        })
        .collect();
    json!({"serviceName": block.service(row), "tags": tags})
}

fn attribute(key: &str, value: Value<&str>) -> Json {
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Int(number) => json!({"intValue": number.to_string()}),
        Value::Float(number) => json!({"doubleValue": number}),
        Value::Bool(is) => json!({"boolValue": is}),
    };
    json!({"key": key, "value": value})
}

/// As an OTLP request would have it.
pub(super) fn otlp(trace: &Trace) -> Json {
    let spans = trace.spans.iter().map(|span| {
        let (block, row) = (&span.stored.block, &span.stored.row);
        let mut resource = vec![attribute("service.name", Value::Text(block.service(row)))];
        let items = block.process(row).map(|process| block.process_items(process));
        resource.extend(items.into_iter().flatten().filter_map(|item| match item {
            Item::Tag(key, value) => Some(attribute(key, value)),
            _ => None,
        }));
        json!({
            "resource": {"attributes": resource},
            "scopeSpans": [{"spans": [otlp_span(block, row)]}],
        })
    });
    json!({"resourceSpans": spans.collect::<Vec<_>>()})
}

fn otlp_span(block: &Block, row: &Row) -> Json {
    let (mut attributes, mut events, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for item in block.items(row) {
        match item {
            Item::Event(time_ns, name) => events.push((time_ns, name, Vec::new())),
            Item::Tag(key, value) => match events.last_mut() {
                Some((.., own)) => own.push(attribute(key, value)),
                None => attributes.push(attribute(key, value)),
            },
            Item::Link(trace, span) => links.push(json!({
                "traceId": format!("{trace:032x}"),
                "spanId": format!("{span:016x}"),
            })),
        }
    }
    let events: Vec<Json> = events
        .into_iter()
        .map(|(time_ns, name, own)| {
            json!({"timeUnixNano": time_ns.to_string(), "name": name, "attributes": own})
        })
        .collect();
    let parent = if row.parent == 0 { String::new() } else { format!("{:016x}", row.parent) };
    json!({
        "traceId": format!("{:032x}", join_trace(row.trace)),
        "spanId": format!("{:016x}", row.id),
        "parentSpanId": parent,
        "name": block.text(row.name),
        "kind": row.kind() as u8,
        "startTimeUnixNano": row.start_ns.to_string(),
        "endTimeUnixNano": row.start_ns.saturating_add(row.duration_ns).to_string(),
        "attributes": attributes,
        "events": events,
        "links": links,
        "status": if row.has(flag::ERROR) { json!({"code": 2}) } else { json!({}) },
    })
}

/// What a list of traces says of one.
pub(super) fn summary(trace: &Trace) -> Json {
    let root = trace.root();
    let name = |span: &Placed| span.stored.block.text(span.stored.row.name).to_owned();
    let services: BTreeSet<&str> =
        trace.spans.iter().map(|span| span.stored.block.service(&span.stored.row)).collect();
    let any = |flags| trace.spans.iter().any(|span| span.stored.row.has(flags));
    json!({
        "trace": trace_hex(trace.id),
        "start_us": trace.start_ns() / 1000,
        "duration_us": (trace.end_ns() - trace.start_ns()) / 1000,
        "service": root.map(|span| span.stored.block.service(&span.stored.row)),
        "operation": root.map(name),
        "spans": trace.spans.len(),
        "services": services.into_iter().take(20).collect::<Vec<_>>(),
        "errors": trace.spans.iter().filter(|span| span.stored.row.has(flag::ERROR)).count(),
        "is_error": trace.has_error(),
        "is_slow": any(flag::SLOW),
        "is_rare": any(flag::RARE),
        "is_odd": trace.spans.iter().any(|span| !marks(span).is_empty()),
    })
}

/// The spans in their places, as the page draws them; times are put right, and from the beginning.
pub(super) fn page(trace: &Trace) -> Json {
    let begin = trace.start_ns();
    let spans = trace.spans.iter().map(|span| {
        let (block, row) = (&span.stored.block, &span.stored.row);
        let (tags, logs, links) = tags_and_logs(block, row);
        let critical: Vec<[u64; 2]> = span
            .critical
            .iter()
            .map(|(from, until)| [from, until].map(|time| time.saturating_sub(begin) / 1000))
            .collect();
        json!({
            "id": format!("{:016x}", row.id),
            "parent": span.parent,
            "depth": span.depth,
            "service": block.service(row),
            "name": block.text(row.name),
            "kind": row.kind().name(),
            "start_us": span.start_ns().saturating_sub(begin) / 1000,
            "duration_us": row.duration_ns / 1000,
            "is_error": row.has(flag::ERROR),
            "critical": critical,
            "marks": marks(span),
            "tags": tags,
            "logs": logs,
            "links": links,
            "process": process(block, row)["tags"],
        })
    });
    let spans: Vec<Json> = spans.collect();
    json!({
        "trace": trace_hex(trace.id),
        "start_us": begin / 1000,
        "duration_us": (trace.end_ns() - begin) / 1000,
        "duplicates": trace.duplicates,
        "spans": spans,
    })
}

#[cfg(test)]
#[path = "traces_tests.rs"]
mod tests;
