//! Tags of exchanges of other protocols than HTTP/1, by OpenTelemetry's conventions for databases
//! (1.44, stable; Redis in development; of SQL the summary, as operation and collection are not to
//! be read out of a text), for RPC (1.44, release candidate) and for messaging (1.44, in
//! development).

use super::tags::{Alike, Sink, Value, ip, shown, size, text};
use netra_codecs::{
    codec::{About, Convention},
    trace::{Outcome, SpanKind, SpanRecord, SpanText, TextsByKind},
};
use std::net::SocketAddr;

/// Which system is spoken to, which every exchange of the protocol has in common.
pub(crate) fn system(about: &About, put: &mut impl FnMut(&'static str, Value<'_>)) {
    let (key, system) = match about.convention {
        Convention::Messaging { system, .. } => ("messaging.system", system),
        Convention::Db(system) | Convention::Sql(system) => ("db.system.name", system),
        Convention::Rpc(system) => ("rpc.system.name", system),
    };
    put(key, Value::Text(system));
}

/// Every other tag of the exchange itself.
pub(crate) fn tags(
    span: &SpanRecord,
    texts: &TextsByKind<'_>,
    about: &About,
    scratch: &mut String,
    out: &mut impl Sink,
) {
    let put = &mut |key: &'static str, value: Value<'_>| out.put(key, value);
    let (status_key, has_number) = operation(span, texts, about, put);
    if let Some(remote) = span.remote {
        let kind = span.kind;
        out.put_alike(Alike::Peer { remote, kind, is_legacy: false }, |mut put| {
            peer(kind, &remote, scratch, &mut put);
        });
    }
    let put = &mut |key: &'static str, value: Value<'_>| out.put(key, value);
    for (key, bytes) in
        [("netra.request.size", span.request_bytes), ("netra.response.size", span.response_bytes)]
    {
        put(key, Value::Int(size(bytes)));
    }
    let error = texts.get(SpanText::Error).filter(|error| !error.is_empty()).map(text);
    if has_number {
        put(status_key, Value::Text(shown(scratch, &span.status)));
    } else if let Some(error) =
        error.as_deref().filter(|_| span.is_refused && !status_key.is_empty())
    {
        put(status_key, Value::Text(error));
    }
    let is_numbered = has_number && matches!(about.convention, Convention::Sql(_));
    match (span.outcome, error.as_deref()) {
        (Outcome::Whole, state) if span.is_refused && is_numbered => {
            put("error.type", Value::Text(shown(scratch, &span.status)));
            if let Some(state) = state {
                put("netra.db.sqlstate", Value::Text(state));
            }
        }
        (Outcome::Whole, Some(error)) if span.is_refused => put("error.type", Value::Text(error)),
        (Outcome::Whole, None) if span.is_refused => put("error.type", Value::Text("_OTHER")),
        (Outcome::Whole, _) => {}
        (cut_short, _) => put("error.type", Value::Text(cut_short.name())),
    }
}

/// What was done. Returns the key of its status, empty where there is none, and whether its value
/// is the number.
fn operation(
    span: &SpanRecord,
    texts: &TextsByKind<'_>,
    about: &About,
    put: &mut impl FnMut(&'static str, Value<'_>),
) -> (&'static str, bool) {
    let operation = text(texts.get(SpanText::Operation).unwrap_or_default());
    match about.convention {
        Convention::Messaging { types, .. } => {
            messaging(texts, &operation, types, put);
            ("", false)
        }
        Convention::Db(_) => {
            // Whatever it is done to stands behind what is done.
            let (name, target) = match operation.split_once(' ') {
                Some((name, target)) => (name, Some(target)),
                None => (&*operation, None),
            };
            put("db.operation.name", Value::Text(name));
            if let Some(target) = target {
                put("db.collection.name", Value::Text(target));
            }
            if let Some(database) = texts.get(SpanText::Namespace).map(text) {
                put("db.namespace", Value::Text(&database));
            }
            ("db.response.status_code", span.is_refused && span.status != 0)
        }
        Convention::Sql(_) => {
            if !operation.is_empty() {
                put("db.query.summary", Value::Text(&operation));
            }
            if let Some(database) = texts.get(SpanText::Namespace).map(text) {
                put("db.namespace", Value::Text(&database));
            }
            ("db.response.status_code", span.is_refused && span.status != 0)
        }
        Convention::Rpc(_) => {
            put("rpc.method", Value::Text(&operation));
            ("rpc.response.status_code", span.status != 0)
        }
    }
}

/// What is done with messages, where, and with how many; an operation's name is that of the call,
/// perhaps with a blank and the first topic behind it.
fn messaging(
    texts: &TextsByKind<'_>,
    operation: &str,
    types: &[(&'static str, &'static str)],
    put: &mut impl FnMut(&'static str, Value<'_>),
) {
    let (name, topic) = match operation.split_once(' ') {
        Some((name, topic)) => (name, Some(topic)),
        None => (operation, None),
    };
    put("messaging.operation.name", Value::Text(name));
    if let Some((_, kind)) = types.iter().find(|(known, _)| *known == name) {
        put("messaging.operation.type", Value::Text(kind));
    }
    if let Some(topic) = topic {
        put("messaging.destination.name", Value::Text(topic));
    }
    for (key, what) in [
        ("messaging.consumer.group.name", SpanText::ConsumerGroup),
        ("messaging.client.id", SpanText::ClientId),
    ] {
        if let Some(value) = texts.get(what) {
            put(key, Value::Text(&text(value)));
        }
    }
    for (key, what) in [
        ("messaging.batch.message_count", SpanText::MessageCount),
        ("netra.topic.count", SpanText::TopicCount),
    ] {
        if let Some(number) = texts.get(what).and_then(|number| number.first_chunk()) {
            put(key, Value::Int(u32::from_be_bytes(*number).into()));
        }
    }
}

/// Who asked, or who was asked: of a client, that is also the server's address.
fn peer(
    kind: SpanKind,
    remote: &SocketAddr,
    scratch: &mut String,
    put: &mut impl FnMut(&'static str, Value<'_>),
) {
    let (address, port) = match kind {
        SpanKind::Server => ("client.address", "client.port"),
        SpanKind::Client => ("server.address", "server.port"),
    };
    let (ip, number) = (ip(scratch, remote), remote.port().into());
    put(address, Value::Text(ip));
    put(port, Value::Int(number));
    put("network.peer.address", Value::Text(ip));
    put("network.peer.port", Value::Int(number));
}
