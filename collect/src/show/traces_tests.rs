use super::*;
use crate::batch::Kind;
use crate::batch::tests::{BEGIN, batch, made};
use crate::books::Books;

fn some() -> Trace {
    let mut books = Books::new(16 << 20);
    let mut one = made("front", Kind::Server, (1, 1, 0));
    one.is_error = true;
    one.tags = vec![("http.method", "<script>alert(1)</script>".into())];
    one.process = vec![("ip", "10.0.0.1")];
    let mut two = made("shop", Kind::Server, (1, 2, 1));
    two.at_us = (500, 50);
    books.take(&batch(&[one, two, made("lost", Kind::Client, (1, 3, 99))]), BEGIN);
    let mut found = books.store.snapshot().spans(&[1]);
    Trace::new(1, found.remove(&1).unwrap())
}

#[test]
fn jaegers_form() {
    let trace = jaeger(&some());
    assert_eq!(trace["traceID"], "0000000000000001");
    let span = &trace["spans"][0];
    assert_eq!((&span["operationName"], &span["duration"]), (&json!("work"), &json!(100)));
    assert_eq!(span["startTime"], BEGIN / 1000);
    let tags = span["tags"].as_array().unwrap();
    assert!(tags.contains(&json!({"key": "error", "type": "bool", "value": true})));
    assert!(tags.contains(&json!({"key": "span.kind", "type": "string", "value": "server"})));
    let process = &trace["processes"][span["processID"].as_str().unwrap()];
    assert_eq!(process["serviceName"], "front");
    assert_eq!(process["tags"][0]["value"], "10.0.0.1");
    let of = |service: &str| {
        let spans = trace["spans"].as_array().unwrap().iter();
        let found = spans.into_iter().find(|span| {
            trace["processes"][span["processID"].as_str().unwrap()]["serviceName"] == service
        });
        found.unwrap().clone()
    };
    assert_eq!(of("shop")["references"][0]["spanID"], "0000000000000001");
    assert_eq!(of("shop")["warnings"][0], "its clock was put right by -475 µs");
    assert_eq!(of("lost")["warnings"][0], "its parent has not come");
}

#[test]
fn otlps_form_is_read_again() {
    let text = otlp(&some()).to_string();
    let batch = crate::wire::otlp_json::read(text.as_bytes()).unwrap();
    assert_eq!((batch.spans.len(), batch.processes.len()), (3, 3));
    assert_eq!(batch.spans.iter().filter(|span| span.is_error).count(), 1);
    assert!(batch.spans.iter().all(|span| span.duration_ns > 0 && span.start_ns >= BEGIN));
}

#[test]
fn the_pages_form_and_the_summary() {
    let trace = some();
    let page = page(&trace);
    assert_eq!(page["spans"].as_array().unwrap().len(), 3);
    let shop = page["spans"].as_array().unwrap().iter().find(|span| span["service"] == "shop");
    assert_eq!(shop.unwrap()["start_us"], 25);
    assert_eq!(shop.unwrap()["critical"], json!([[25, 75]]));
    let summary = summary(&trace);
    assert_eq!((&summary["service"], &summary["errors"]), (&json!("front"), &json!(1)));
    assert_eq!((&summary["is_error"], &summary["is_odd"]), (&json!(true), &json!(true)));
}
