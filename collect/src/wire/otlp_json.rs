//! OTLP as JSON: ids in hex, numbers of 64 bits as text or as numbers, names in lower camel case.

use super::Malformed;
use crate::batch::{Batch, Head, Item, Kind, NAME_MAX, TEXT_MAX, Text, Value};
use serde_json::Value as Json;

/// Reads a request.
pub(crate) fn read(body: &[u8]) -> Result<Batch, Malformed> {
    let json: Json = serde_json::from_slice(body).map_err(|_| Malformed)?;
    let mut batch = Batch::default();
    json.as_object().ok_or(Malformed)?;
    for resource_spans in list(&json, "resourceSpans") {
        let process = read_process(&mut batch, &resource_spans["resource"]);
        let scopes = list(resource_spans, "scopeSpans");
        for scope_spans in scopes {
            let scope = scope_spans["scope"]["name"].as_str().filter(|name| !name.is_empty());
            for span in list(scope_spans, "spans") {
                read_span(&mut batch, span, process, scope)?;
            }
        }
    }
    Ok(batch)
}

fn list<'j>(json: &'j Json, key: &str) -> &'j [Json] {
    json[key].as_array().map_or(&[], |items| items)
}

fn read_process(batch: &mut Batch, resource: &Json) -> u32 {
    batch.begin();
    let mut service = Text::default();
    for attribute in list(resource, "attributes") {
        let Some((key, value)) = self::attribute(batch, attribute) else { continue };
        match value {
            Value::Text(name) if batch.text(key) == "service.name" => service = name,
            value => batch.tag(key, value),
        }
    }
    batch.end_process(service)
}

fn read_span(
    batch: &mut Batch,
    span: &Json,
    process: u32,
    scope: Option<&str>,
) -> Result<(), Malformed> {
    batch.begin();
    for attribute in list(span, "attributes") {
        put(batch, attribute);
    }
    if let Some(message) = span["status"]["message"].as_str().filter(|text| !text.is_empty()) {
        put_text(batch, "otel.status_description", message);
    }
    if let Some(name) = scope {
        put_text(batch, "otel.scope.name", name);
    }
    for link in list(span, "links") {
        let (trace, id) = (hex(&link["traceId"])?, hex_64(&link["spanId"])?);
        batch.put(Item::Link(trace, id));
    }
    for event in list(span, "events") {
        let name = batch.add(event["name"].as_str().unwrap_or_default(), NAME_MAX);
        batch.put(Item::Event(number(&event["timeUnixNano"])?, name));
        for attribute in list(event, "attributes") {
            put(batch, attribute);
        }
    }
    let code = &span["status"]["code"];
    let start_ns = number(&span["startTimeUnixNano"])?;
    let kind = match span["kind"].as_str() {
        Some(name) => Kind::of_name(&name.trim_start_matches("SPAN_KIND_").to_lowercase()),
        None => Kind::of_number(span["kind"].as_u64().unwrap_or(0)),
    };
    let name = batch.add(span["name"].as_str().unwrap_or_default(), NAME_MAX);
    batch.end_span(Head {
        trace: hex(&span["traceId"])?,
        id: hex_64(&span["spanId"])?,
        parent: hex_64(&span["parentSpanId"])?,
        start_ns,
        duration_ns: number(&span["endTimeUnixNano"])?.saturating_sub(start_ns),
        kind,
        is_error: code.as_u64() == Some(2) || code.as_str() == Some("STATUS_CODE_ERROR"),
        name,
        process,
        ..Head::default()
    });
    Ok(())
}

fn put(batch: &mut Batch, attribute: &Json) {
    if let Some((key, value)) = self::attribute(batch, attribute) {
        batch.tag(key, value);
    }
}

fn put_text(batch: &mut Batch, key: &str, text: &str) {
    let (key, text) = (batch.add(key, NAME_MAX), batch.add(text, TEXT_MAX));
    batch.tag(key, Value::Text(text));
}

fn attribute(batch: &mut Batch, attribute: &Json) -> Option<(Text, Value<Text>)> {
    let (kind, value) = attribute["value"].as_object()?.iter().next()?;
    let value = match kind.as_str() {
        "stringValue" => Value::Text(batch.add(value.as_str()?, TEXT_MAX)),
        "boolValue" => Value::Bool(value.as_bool()?),
        "intValue" => {
            Value::Int(value.as_i64().or_else(|| value.as_str().and_then(|it| it.parse().ok()))?)
        }
        "doubleValue" => Value::Float(value.as_f64()?),
        _ => Value::Text(batch.add(&plain(value).to_string(), TEXT_MAX)),
    };
    Some((batch.add(attribute["key"].as_str()?, NAME_MAX), value))
}

/// A list or a map without what says that it is one. serde_json bounds how deep it may be.
fn plain(value: &Json) -> Json {
    let Some(object) = value.as_object() else { return value.clone() };
    if let Some(items) = object.get("values").and_then(Json::as_array) {
        let is_map = items.iter().all(|item| item.get("key").is_some()) && !items.is_empty();
        if !is_map {
            return items.iter().map(plain).collect();
        }
        let pairs = items
            .iter()
            .filter_map(|item| Some((item["key"].as_str()?.to_owned(), plain(&item["value"]))));
        return Json::Object(pairs.collect());
    }
    // Numbers of 64 bits are told as text.
    let int = object.get("intValue").and_then(Json::as_str).and_then(|text| text.parse().ok());
    if let Some(number) = int {
        return Json::Number(number);
    }
    object.values().next().map_or(Json::Null, plain)
}

fn hex(json: &Json) -> Result<u128, Malformed> {
    match json.as_str() {
        None | Some("") => Ok(0),
        Some(text) => u128::from_str_radix(text, 16).map_err(|_| Malformed),
    }
}

fn hex_64(json: &Json) -> Result<u64, Malformed> {
    u64::try_from(hex(json)?).map_err(|_| Malformed)
}

fn number(json: &Json) -> Result<u64, Malformed> {
    match json {
        Json::Null => Ok(0),
        Json::String(text) => text.parse().map_err(|_| Malformed),
        json => json.as_u64().ok_or(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_the_specification_shows_one() {
        let body = br#"{"resourceSpans":[{"resource":{"attributes":[
            {"key":"service.name","value":{"stringValue":"shop"}},
            {"key":"n","value":{"intValue":"7"}}]},
            "scopeSpans":[{"scope":{"name":"lib"},"spans":[{
            "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174",
            "parentSpanId":"","name":"I'm a span","startTimeUnixNano":"1544712660000000000",
            "endTimeUnixNano":1544712661000000000,"kind":2,"status":{"code":2,"message":"no"},
            "attributes":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"stringValue":"x"}]}}},
              {"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":true}}]}}}],
            "events":[{"timeUnixNano":"5","name":"e","attributes":[{"key":"b","value":{"doubleValue":0.5}}]}],
            "links":[{"traceId":"01","spanId":"02"}]}]}]}]}"#;
        let batch = read(body).unwrap();
        let span = batch.spans[0];
        assert_eq!(span.trace, 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c);
        assert_eq!((span.id, span.parent), (0xeee1_9b7e_c3c1_b174, 0));
        assert_eq!(
            (span.duration_ns, span.kind, span.is_error),
            (1_000_000_000, Kind::Server, true)
        );
        assert_eq!(batch.text(span.name), "I'm a span");
        assert_eq!(batch.text(batch.processes[0].service), "shop");
        let shown: Vec<String> = batch
            .items(&span)
            .iter()
            .map(|item| match item {
                Item::Tag(key, Value::Text(text)) => {
                    format!("{}={}", batch.text(*key), batch.text(*text))
                }
                Item::Tag(key, value) => format!("{} {value:?}", batch.text(*key)),
                Item::Event(time, name) => format!("{time} {}", batch.text(*name)),
                Item::Link(trace, span) => format!("{trace} {span}"),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "a=[1,\"x\"]",
                "m={\"k\":true}",
                "otel.status_description=no",
                "otel.scope.name=lib",
                "1 2",
                "5 e",
                "b Float(0.5)"
            ]
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for body in [
            &b"{"[..],
            b"[]",
            br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"x"}]}]}]}"#,
            br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":-1}]}]}]}"#,
        ] {
            assert_eq!(read(body).map(drop), Err(Malformed));
        }
        assert_eq!(read(b"{}").unwrap().spans.len(), 0);
    }
}
