//! Tags of HTTP/2 beside those of HTTP, and of gRPC calls by OpenTelemetry's conventions for RPC
//! (1.44, release candidate).

use super::tags::{Value, micros, size, text};
use netra_codecs::trace::{GRPC_STATUSES, Outcome, SpanRecord, SpanText, StreamFacts, TextsByKind};
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// What a span of HTTP/2 knows of its stream; none of HTTP/1.
fn facts(texts: &TextsByKind<'_>) -> Option<StreamFacts> {
    texts.get(SpanText::Stream).and_then(StreamFacts::of_bytes)
}

/// The name of a call: service and method, of `/service/method`.
pub(crate) fn call<'s>(texts: &TextsByKind<'s>) -> Option<Cow<'s, str>> {
    facts(texts).filter(|facts| facts.is_grpc)?;
    let path = texts.get(SpanText::Target)?;
    Some(text(path.strip_prefix(b"/").unwrap_or(path)))
}

/// What went wrong with a call, if its status says so.
pub(crate) fn error_type(span: &SpanRecord, texts: &TextsByKind<'_>) -> Option<&'static str> {
    let status = facts(texts)?.grpc_status.filter(|_| span.is_refused)?;
    Some(status_name(status))
}

/// Tags of HTTP/1 beside those of HTTP: of a response that flows, and of the Model Context Protocol by
/// OpenTelemetry's conventions (in development).
pub(crate) fn flow_tags(texts: &TextsByKind<'_>, put: &mut impl FnMut(&'static str, Value<'_>)) {
    if let Some(flow) = texts.get(SpanText::Flow)
        && let (Some(first), Some(bytes)) = (flow.first_chunk(), flow.last_chunk())
    {
        put("netra.first_byte_us", Value::Int(micros(u64::from_le_bytes(*first))));
        put("netra.stream_bytes", Value::Int(size(Some(u64::from_le_bytes(*bytes)))));
    }
    let Some(call) = texts.get(SpanText::Operation) else { return };
    let mut words = call.splitn(2, |&byte| byte == b' ').map(text);
    if let Some(method) = words.next() {
        put("mcp.method.name", Value::Text(&method));
    }
    if let Some(name) = words.next() {
        let is_tool = call.starts_with(b"tools/");
        let key = if is_tool { "gen_ai.tool.name" } else { "gen_ai.prompt.name" };
        put(key, Value::Text(&name));
    }
}

/// Every tag that HTTP has none for; netramesh's have none for what went wrong, either.
pub(crate) fn tags(
    span: &SpanRecord,
    texts: &TextsByKind<'_>,
    has_error_type: bool,
    put: &mut impl FnMut(&'static str, Value<'_>),
) {
    let Some(facts) = facts(texts) else { return };
    if !has_error_type {
        match (span.outcome, error_type(span, texts)) {
            (Outcome::Whole, None) => {}
            (Outcome::Whole, Some(error)) => put("error.type", Value::Text(error)),
            (cut_short, _) => put("error.type", Value::Text(cut_short.name())),
        }
    }
    put("network.protocol.version", Value::Text("2"));
    if facts.first_byte_ns > 0 {
        put("netra.first_byte_us", Value::Int(micros(facts.first_byte_ns)));
    }
    if let Some(code) = facts.reset_code {
        put("netra.reset_code", Value::Int(code.into()));
    }
    let Some(call) = call(texts) else { return };
    put("rpc.system.name", Value::Text("grpc"));
    put("rpc.method", Value::Text(&call));
    if let Some(status) = facts.grpc_status {
        put("rpc.response.status_code", Value::Text(status_name(status)));
    }
    if let Some(message) = texts.get(SpanText::GrpcMessage) {
        let message = percent_decode(message).decode_utf8_lossy();
        put("netra.grpc.message", Value::Text(&message));
    }
    let [asked, answered] = facts.messages;
    put("netra.request.messages", Value::Int(asked.into()));
    put("netra.response.messages", Value::Int(answered.into()));
}

fn status_name(status: u16) -> &'static str {
    GRPC_STATUSES.get(usize::from(status)).copied().unwrap_or("UNKNOWN")
}
