//! Spans as lines of JSON, for people and for the demo.

use super::tags::{Tags, Value, kind, micros};
use crate::{failure::Failure, json::Object};
use netra_codecs::trace::SpanRecord;
use std::io::Write;

/// Lines that wait to be written.
#[derive(Debug)]
pub(super) struct Lines {
    service: String,
    out: String,
    count: usize,
}

impl Lines {
    pub(super) fn new(service: &str) -> Self {
        Self { service: service.into(), out: String::new(), count: 0 }
    }

    pub(super) fn push(&mut self, span: &SpanRecord, tags: &mut Tags) {
        let context = &span.context;
        let mut tags_json = String::new();
        let mut object = Object::begin(&mut tags_json);
        tags.each(span, |key: &'static str, value: Value<'_>| match value {
            Value::Text(text) => object.text(key, text),
            Value::Int(number) => object.raw(key, &number.to_string()),
            Value::Float(number) => object.raw(key, &number.to_string()),
            Value::Bool(is) => object.raw(key, if is { "true" } else { "false" }),
        });
        object.end();
        let mut object = Object::begin(&mut self.out);
        object.text("service", &self.service);
        object.text("kind", kind(span));
        object.text("name", &tags.operation(span));
        object.text("trace_id", &format!("{:032x}", context.trace_id));
        object.text("span_id", &format!("{:016x}", context.span_id));
        object.text("parent_id", &format!("{:016x}", context.parent_id));
        object.raw("start_us", &micros(span.start_unix_ns).to_string());
        object.raw("duration_us", &micros(span.duration_ns).to_string());
        object.raw("tags", &tags_json);
        let link = |(trace_id, span_id): (u128, u64)| {
            format!("{{\"trace_id\":\"{trace_id:032x}\",\"span_id\":\"{span_id:016x}\"}}")
        };
        let links: Vec<String> = span.links().map(link).collect();
        if !links.is_empty() {
            object.raw("links", &format!("[{}]", links.join(",")));
        }
        object.end();
        self.out.push('\n');
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn take(&mut self) -> Option<(Vec<u8>, usize)> {
        let count = std::mem::take(&mut self.count);
        (count > 0).then(|| (std::mem::take(&mut self.out).into_bytes(), count))
    }
}

pub(super) fn write(lines: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(lines)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Semconv;
    use netra_codecs::trace::{SamplerTag, SpanKind, SpanText, TraceContext, TraceFlags};
    use serde_json::json;

    #[test]
    fn a_span_is_a_line_of_json() {
        let root = TraceContext::root(0xab, 0xcd, TraceFlags::SAMPLED);
        let mut span = SpanRecord::begin(root, SpanKind::Server, 5_000_000);
        (span.duration_ns, span.sampler) = (7_999, Some(SamplerTag::Probabilistic(1.0)));
        span.put(SpanText::Target, b"/\"a\"?\n");
        let mut lines = Lines::new("shop");
        let mut tags = Tags::new(Semconv::Legacy, vec![], true);
        lines.push(&span, &mut tags);
        lines.push(&span, &mut tags);
        let (text, count) = lines.take().unwrap();
        assert_eq!((count, lines.take()), (2, None));
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 2);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["trace_id"], format!("{:032x}", 0xab));
        assert_eq!((&line["name"], &line["kind"]), (&json!("/\"a\""), &json!("server")));
        assert_eq!((&line["start_us"], &line["duration_us"]), (&json!(5000), &json!(7)));
        assert_eq!(line["tags"]["sampler.param"], json!(1));
        assert_eq!(line["tags"]["http.path"], "/\"a\"?..");
    }
}
