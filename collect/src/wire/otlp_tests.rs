//! Against the messages of the opentelemetry-proto crate, which prost writes.

use super::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::Event, span::Link,
};
use prost::Message;

fn tag(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    tag(key, any_value::Value::StringValue(value.into()))
}

fn request() -> ExportTraceServiceRequest {
    let list = ArrayValue {
        values: vec![
            AnyValue { value: Some(any_value::Value::IntValue(1)) },
            AnyValue { value: Some(any_value::Value::StringValue("x\"".into())) },
        ],
    };
    let map = KeyValueList { values: vec![tag("k", any_value::Value::BoolValue(true))] };
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![3; 8],
        name: "GET /é".into(),
        kind: 3,
        start_time_unix_nano: 1000,
        end_time_unix_nano: 3500,
        attributes: vec![
            text("a", "b"),
            tag("n", any_value::Value::IntValue(-7)),
            tag("f", any_value::Value::DoubleValue(0.5)),
            tag("l", any_value::Value::ArrayValue(list)),
            tag("m", any_value::Value::KvlistValue(map)),
            tag("y", any_value::Value::BytesValue(vec![0; 9])),
        ],
        events: vec![Event {
            time_unix_nano: 9,
            name: "e".into(),
            attributes: vec![text("c", "d")],
            ..Event::default()
        }],
        links: vec![Link { trace_id: vec![4; 16], span_id: vec![5; 8], ..Link::default() }],
        status: Some(Status { message: "no".into(), code: 2 }),
        ..Span::default()
    };
    let scope = InstrumentationScope { name: "lib".into(), ..InstrumentationScope::default() };
    let spans = ScopeSpans { scope: Some(scope), spans: vec![span], ..ScopeSpans::default() };
    let attributes = vec![text("host.name", "h"), text("service.name", "shop")];
    let resource = Resource { attributes, ..Resource::default() };
    let one =
        ResourceSpans { resource: Some(resource), scope_spans: vec![spans], ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![one.clone(), one] }
}

fn shown(batch: &Batch, items: &[Item<Text>]) -> Vec<String> {
    let one = |item: &Item<Text>| match item {
        Item::Tag(key, Value::Text(text)) => {
            format!("{}={}", batch.text(*key), batch.text(*text))
        }
        Item::Tag(key, value) => format!("{} {value:?}", batch.text(*key)),
        Item::Event(time, name) => format!("{time} {}", batch.text(*name)),
        Item::Link(trace, span) => format!("{trace:x} {span:x}"),
    };
    items.iter().map(one).collect()
}

#[test]
fn what_prost_writes_is_read() {
    let batch = read(request().encode_to_vec()).unwrap();
    assert_eq!((batch.spans.len(), batch.processes.len()), (2, 2));
    let span = batch.spans[1];
    assert_eq!(span.trace, u128::from_be_bytes([1; 16]));
    assert_eq!((span.id, span.parent), (u64::from_be_bytes([2; 8]), u64::from_be_bytes([3; 8])));
    assert_eq!((span.start_ns, span.duration_ns), (1000, 2500));
    assert_eq!((span.kind, span.is_error, span.process), (Kind::Client, true, 1));
    assert_eq!(batch.text(span.name), "GET /é");
    assert_eq!(batch.text(batch.processes[1].service), "shop");
    assert_eq!(shown(&batch, batch.process_items(&batch.processes[0])), ["host.name=h"]);
    assert_eq!(
        shown(&batch, batch.items(&span)),
        [
            "a=b",
            "n Int(-7)",
            "f Float(0.5)",
            "l=[1,\"x\\\"\"]",
            "m={\"k\":true}",
            "y=\"(9 bytes)\"",
            "otel.status_description=no",
            "otel.scope.name=lib",
            "4040404040404040404040404040404 505050505050505",
            "9 e",
            "c=d",
        ]
    );
}

#[test]
fn a_request_that_is_cut_or_damaged_does_no_harm() {
    let bytes = request().encode_to_vec();
    for len in 1..bytes.len() {
        let _ = read(bytes[..len].to_vec());
    }
    assert!(read(bytes[..bytes.len() - 1].to_vec()).is_err());
    for at in 0..bytes.len() {
        for bits in [1, 7, 0x80, 0xff] {
            let mut odd = bytes.clone();
            odd[at] ^= bits;
            if let Ok(batch) = read(odd) {
                for span in &batch.spans {
                    let _ = shown(&batch, batch.items(span));
                }
            }
        }
    }
}

#[test]
fn long_texts_and_deep_values_are_bounded() {
    let mut request = request();
    let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
    span.attributes = vec![text("long", &"é".repeat(500_000))];
    let batch = read(request.encode_to_vec()).unwrap();
    assert!(batch.spans[0].is_cut);
    let long = shown(&batch, batch.items(&batch.spans[0]));
    assert_eq!(long[0].len(), "long=".len() + TEXT_MAX);
    let mut deep = any_value::Value::IntValue(1);
    for _ in 0..50 {
        deep = any_value::Value::ArrayValue(ArrayValue {
            values: vec![AnyValue { value: Some(deep) }],
        });
    }
    let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
    span.attributes = vec![tag("deep", deep)];
    assert_eq!(read(request.encode_to_vec()).map(drop), Err(Malformed));
}
