use super::*;
use crate::{About, Exemplars, Exposition, Key, Recorder, Stage, recorder::Gauge};
use std::{collections::BTreeSet, sync::Arc, time::UNIX_EPOCH};

static EXEMPLARS: Exemplars = Exemplars::new();

fn exposition() -> (Arc<Recorder>, Exposition) {
    let recorder = Arc::new(Recorder::default());
    let about = About {
        version: "1.2.3",
        driver: "epoll",
        drivers: &["epoll"],
        started: UNIX_EPOCH,
        counters: &[],
        exemplars: &EXEMPLARS,
    };
    (Arc::clone(&recorder), Exposition::new(vec![recorder], about))
}

fn encoder(form: Form) -> Encoder {
    Encoder::new(form, vec![("service.name".into(), "shop".into())], "1.2.3", 100)
}

fn told(encoder: &mut Encoder, exposition: &Exposition, now: u64) -> Vec<wire::Metric> {
    let bytes = encoder.encode(exposition.metrics(), now);
    let request = wire::Request::decode(&bytes[..]).unwrap();
    let [all] = &request.resource_metrics[..] else { panic!("{request:?}") };
    let resource = all.resource.as_ref().unwrap();
    assert_eq!(resource.attributes, [key_value("service.name", "shop")]);
    all.scope_metrics[0].metrics.clone()
}

fn sum_of(metrics: &[wire::Metric], name: &str) -> Option<(i64, u64, u64, i32)> {
    let metric = metrics.iter().find(|metric| metric.name == name)?;
    let sum = metric.sum.as_ref().unwrap();
    let total = sum.points.iter().map(|point| point.int.unwrap()).sum();
    Some((total, sum.points[0].start, sum.points[0].time, sum.temporality))
}

#[test]
fn cumulative_since_the_start_and_delta_since_what_was_taken() {
    let (recorder, exposition) = exposition();
    recorder.add(Key::ROUTED, 5);
    let mut cumulative = encoder(Form::default());
    let form = Form { delta_counts: true, delta_durations: true, is_exponential: false };
    let mut delta = encoder(form);
    let routed =
        |encoder: &mut Encoder, now| sum_of(&told(encoder, &exposition, now), "netra.routed");
    assert_eq!(routed(&mut cumulative, 200), Some((5, 100, 200, CUMULATIVE)));
    assert_eq!(routed(&mut delta, 200), Some((5, 100, 200, DELTA)));
    cumulative.taken();
    delta.taken();
    recorder.add(Key::ROUTED, 2);
    assert_eq!(routed(&mut cumulative, 300), Some((7, 100, 300, CUMULATIVE)));
    // It does not arrive, and is told again.
    assert_eq!(routed(&mut delta, 300), Some((2, 200, 300, DELTA)));
    recorder.add(Key::ROUTED, 1);
    assert_eq!(routed(&mut delta, 400), Some((3, 200, 400, DELTA)));
    delta.taken();
    assert_eq!(routed(&mut delta, 500), None, "nothing has been added");
}

#[test]
fn durations_in_fixed_and_in_exponential_buckets() {
    let (recorder, exposition) = exposition();
    for ns in [500, 2_000_000, 2_000_000, 1 << 40] {
        recorder.record_ns(Stage::RequestInbound, ns);
    }
    recorder.record_ns(Stage::RequestOutbound, 1);
    let metrics = told(&mut encoder(Form::default()), &exposition, 200);
    let server = metrics.iter().find(|it| it.name == "http.server.request.duration").unwrap();
    assert_eq!((server.unit.as_str(), server.exponential.is_none()), ("s", true));
    let point = &server.histogram.as_ref().unwrap().points[0];
    assert_eq!((point.count, point.attributes.len()), (4, 0));
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), 4);
    assert_eq!(point.bucket_counts.len(), point.bounds.len() + 1);
    assert_eq!((point.bucket_counts[0], *point.bucket_counts.last().unwrap()), (1, 1));
    let form = Form { is_exponential: true, ..Form::default() };
    let metrics = told(&mut encoder(form), &exposition, 200);
    let server = metrics.iter().find(|it| it.name == "http.server.request.duration").unwrap();
    let point = &server.exponential.as_ref().unwrap().points[0];
    let buckets = point.positive.as_ref().unwrap();
    assert_eq!((point.count, point.zero_count, point.scale), (4, 1, 3));
    assert_eq!(buckets.counts.iter().sum::<u64>(), 3);
    assert_eq!(buckets.counts[0], 2);
    // 2 ms lie between 2^(offset/8) and 2^((offset+1)/8).
    let edge = |index: i32| 2f64.powf(f64::from(index) / 8.0);
    assert!(edge(buckets.offset) < 0.002 && 0.002 <= edge(buckets.offset + 1));
    assert!(metrics.iter().any(|it| it.name == "http.client.request.duration"));
}

/// What is named by conventions is named so, once; the rest is netra's.
#[test]
fn names_and_units() {
    let (recorder, exposition) = exposition();
    recorder.add(Key::BUSY_NS, 1_500_000_000);
    recorder.record_ns(Stage::Dial, 5_000);
    recorder.set(Gauge::HeldBytes, 7);
    let metrics = told(&mut encoder(Form::default()), &exposition, 200);
    let names: BTreeSet<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names.len(), metrics.len(), "twice: {names:?}");
    for (name, unit) in [
        ("netra.dial", "s"),
        ("netra.shard_busy", "s"),
        ("netra.held_bytes", "By"),
        ("netra.tcp_connections_active", "1"),
        ("process.memory.usage", "By"),
        ("process.thread.count", "{thread}"),
    ] {
        let metric = metrics.iter().find(|metric| metric.name == name);
        assert_eq!(metric.map(|metric| metric.unit.as_str()), Some(unit), "{name} in {names:?}");
    }
    assert_eq!(name_of("process_cpu_seconds").as_deref(), Some("process.cpu.time"));
    let of_process = metrics.iter().find(|metric| metric.name == "process.memory.usage");
    assert!(!of_process.unwrap().sum.as_ref().unwrap().is_monotonic);
    assert!(names.iter().all(|name| !name.contains("seconds")), "{names:?}");
}

/// Exchanges are told by the conventions' names where these have one.
#[test]
fn exchanges_are_told_in_the_names_of_the_conventions() {
    let tables = ["redis", "kafka", "dubbo", "own"]
        .map(|name| crate::ProtocolTable { name, operations: &["other"] });
    let recorder = Arc::new(Recorder::of(&tables));
    for protocol in 0..tables.len() {
        for direction in 0..2 {
            let stage = crate::ExchangeStage::Duration;
            recorder.exchanges().record_ns(protocol, direction, stage, 5_000);
        }
    }
    let about = About {
        version: "1.2.3",
        driver: "epoll",
        drivers: &["epoll"],
        started: UNIX_EPOCH,
        counters: &[],
        exemplars: &EXEMPLARS,
    };
    let exposition = Exposition::new(vec![recorder], about);
    let systems = vec![
        ("redis", System::Database("redis")),
        ("kafka", System::Messaging("kafka")),
        ("dubbo", System::Rpc("dubbo")),
    ];
    let mut encoder = encoder(Form::default()).with_systems(systems);
    let metrics = told(&mut encoder, &exposition, 200);
    let series = |name: &str| -> BTreeSet<Vec<(String, String)>> {
        let metric = metrics.iter().find(|metric| metric.name == name).expect(name);
        assert_eq!(metric.unit, "s");
        let points = &metric.histogram.as_ref().unwrap().points;
        let pair = |it: &wire::KeyValue| (it.key.clone(), it.value.clone().unwrap().text.unwrap());
        points.iter().map(|point| point.attributes.iter().map(pair).collect()).collect()
    };
    let of = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    for (name, attribute, system) in [
        ("db.client.operation.duration", "db.system.name", "redis"),
        ("messaging.client.operation.duration", "messaging.system", "kafka"),
        ("rpc.client.call.duration", "rpc.system.name", "dubbo"),
        ("rpc.server.call.duration", "rpc.system.name", "dubbo"),
    ] {
        assert_eq!(series(name), BTreeSet::from([of(&[(attribute, system)])]), "{name}");
    }
    let own = [("inbound", "redis"), ("inbound", "kafka"), ("inbound", "own"), ("outbound", "own")];
    let own = own.map(|(direction, it)| of(&[("direction", direction), ("protocol", it)]));
    assert_eq!(series("netra.exchange_duration"), BTreeSet::from(own));
}
