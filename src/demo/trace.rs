//! Spans joined: who is whose child.

use super::collector::Span;

/// A span and how many are above it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) depth: usize,
    pub(super) span: Span,
}

impl Row {
    /// Whether its protocol has no place for a trace, so that it begins one of its own.
    pub(super) fn is_apart(&self) -> bool {
        self.span.is_of_store() && self.span.parent_id == 0
    }
}

/// Every span once: parents before their children, both in the order of time. A span whose parent
/// is not among them stands at the top, and so does one of a circle.
pub(super) fn join(mut spans: Vec<Span>) -> Vec<Row> {
    spans.sort_by_key(|span| span.start_us);
    let mut rows = Vec::new();
    while let Some(first) = top(&spans) {
        let span = spans.remove(first);
        take(0, span, &mut spans, &mut rows);
    }
    rows
}

/// The first without a parent among them.
fn top(spans: &[Span]) -> Option<usize> {
    let is_top = |span: &Span| !spans.iter().any(|other| is_child(span, other));
    let found = spans.iter().position(is_top);
    found.or((!spans.is_empty()).then_some(0))
}

fn is_child(span: &Span, of: &Span) -> bool {
    span.trace_id == of.trace_id && span.parent_id == of.span_id
}

/// Moves a span with all that are below it.
fn take(depth: usize, span: Span, left: &mut Vec<Span>, rows: &mut Vec<Row>) {
    let at = rows.len();
    rows.push(Row { depth, span });
    while let Some(next) = left.iter().position(|other| is_child(other, &rows[at].span)) {
        let child = left.remove(next);
        take(depth + 1, child, left, rows);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::demo::thrift::Value;

    pub(in crate::demo) fn span(service: &str, kind: &str, ids: (i64, i64), start: i64) -> Span {
        let join = if kind == "client" { "explicit" } else { "" };
        let tags = [
            ("span.kind", Value::Text(kind.into())),
            ("http.status_code", Value::Int(200)),
            ("netra.join", Value::Text(join.into())),
            ("netra.overhead_us", Value::Int(12)),
        ];
        Span {
            service: service.into(),
            trace_id: 7,
            span_id: ids.0,
            parent_id: ids.1,
            operation: format!("{service}.demo/path"),
            start_us: start,
            duration_us: 100 - 2 * (start - 1_000),
            tags: tags.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        }
    }

    fn shape(spans: &[((i64, i64), i64)]) -> Vec<(usize, i64)> {
        let spans = spans.iter().map(|(ids, start)| span("s", "server", *ids, *start)).collect();
        join(spans).iter().map(|row| (row.depth, row.span.span_id)).collect()
    }

    #[test]
    fn children_follow_their_parents_in_the_order_of_time() {
        let mixed = [((4, 1), 1_030), ((3, 2), 1_020), ((1, 0), 1_000), ((2, 1), 1_010)];
        assert_eq!(shape(&mixed), [(0, 1), (1, 2), (2, 3), (1, 4)]);
    }

    #[test]
    fn no_span_is_lost() {
        // A parent that is missing, a circle, a span that is its own parent, one that came twice.
        assert_eq!(shape(&[((3, 2), 1_002), ((1, 0), 1_000)]), [(0, 1), (0, 3)]);
        assert_eq!(shape(&[((1, 2), 1_000), ((2, 1), 1_001)]), [(0, 1), (1, 2)]);
        assert_eq!(shape(&[((1, 1), 1_000)]), [(0, 1)]);
        let twice = [((1, 0), 1_000), ((2, 1), 1_001), ((2, 1), 1_001)];
        assert_eq!(shape(&twice), [(0, 1), (1, 2), (1, 2)]);
    }

    #[test]
    fn another_trace_has_other_spans() {
        let mut other = span("s", "server", (2, 1), 1_001);
        other.trace_id = 8;
        let rows = join(vec![span("s", "server", (1, 0), 1_000), other]);
        assert_eq!(rows.iter().map(|row| row.depth).collect::<Vec<_>>(), [0, 0]);
    }
}
