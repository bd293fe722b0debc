use super::*;
use crate::{Counter, ExchangeStage, FAMILIES, Gauge, Key, Stage};
use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::UNIX_EPOCH};

static DROPPED: AtomicU64 = AtomicU64::new(4);
static COUNTERS: [Counter; 3] = [
    Counter { name: "netra_log_lines_dropped", help: "Lines", label: None, cell: &DROPPED },
    Counter { name: "netra_spans", help: "Spans", label: Some(("result", "sent")), cell: &DROPPED },
    Counter { name: "netra_spans", help: "Spans", label: Some(("result", "lost")), cell: &LOST },
];
static LOST: AtomicU64 = AtomicU64::new(5);
static EXEMPLARS: Exemplars = Exemplars::new();

fn exposition(shards: usize) -> (Vec<Arc<Recorder>>, Exposition) {
    exposition_of((0..shards).map(|_| Arc::default()).collect())
}

fn exposition_of(recorders: Vec<Arc<Recorder>>) -> (Vec<Arc<Recorder>>, Exposition) {
    let about = About {
        version: "1.2.3",
        driver: "epoll",
        drivers: &["io_uring", "epoll"],
        started: UNIX_EPOCH + std::time::Duration::from_secs(1000),
        counters: &COUNTERS,
        exemplars: &EXEMPLARS,
    };
    let exposition = Exposition::new(recorders.clone(), about);
    (recorders, exposition)
}

fn text_of(exposition: &Exposition, format: Format) -> String {
    String::from_utf8(exposition.render(format)).unwrap()
}

/// Every sample by its series; fails on a line that is none, on a series that comes twice, and on a
/// sample that is not of the family announced last.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut family) = (BTreeMap::new(), String::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(described) = line.strip_prefix("# HELP ") {
            family = described.split(' ').next().unwrap().to_owned();
            continue;
        }
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            assert!(typed.starts_with(&format!("{family} ")), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect(line);
        assert!(series.starts_with(&family), "{line} in {family}");
        assert_eq!(series.contains('{'), series.ends_with('}'), "{line}");
        let value = value.parse().expect(line);
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {series}");
    }
    samples
}

#[test]
fn counters_are_summed_over_shards_or_shown_for_each() {
    let (recorders, exposition) = exposition(2);
    recorders[0].add(Key::bytes(0, 1), 10);
    recorders[1].add(Key::bytes(0, 1), 32);
    recorders[1].add(Key::TURNS, 7);
    recorders[1].add(Key::BUSY_NS, 1_500_000_000);
    recorders[0].set(Gauge::ConnectionsActive, 3);
    recorders[1].add(Key::span(0), 9);
    for format in [Format::Text, Format::OpenMetrics] {
        let samples = parse(&text_of(&exposition, format));
        for (series, value) in [
            ("netra_tcp_bytes_total{direction=\"inbound\",way=\"response\"}", 42.0),
            ("netra_tcp_bytes_total{direction=\"inbound\",way=\"request\"}", 0.0),
            ("netra_shard_turns_total{shard=\"0\"}", 0.0),
            ("netra_shard_turns_total{shard=\"1\"}", 7.0),
            ("netra_shard_busy_seconds_total{shard=\"1\"}", 1.5),
            ("netra_tcp_connections_active{shard=\"0\"}", 3.0),
            ("netra_loop_rejected_total", 0.0),
            ("netra_io_driver{driver=\"epoll\"}", 1.0),
            ("netra_io_driver{driver=\"io_uring\"}", 0.0),
            ("netra_build_info{version=\"1.2.3\"}", 1.0),
            ("netra_log_lines_dropped_total", 4.0),
            ("netra_spans_total{result=\"recorded\"}", 9.0),
            ("netra_spans_total{result=\"lost\"}", 5.0),
            ("process_start_time_seconds", 1000.0),
        ] {
            assert_eq!(samples.get(series), Some(&value), "{series}");
        }
        assert!(samples["process_resident_memory_bytes"] > 0.0);
        assert!(samples.contains_key("process_cpu_seconds_total"));
    }
}

#[test]
fn histograms_are_cumulative_and_end_with_everything() {
    let (recorders, exposition) = exposition(2);
    for ns in [500, 9_000, 13_000, 2_000_000, 100_000_000_000] {
        recorders[0].record_ns(Stage::Dial, ns);
        recorders[1].record_ns(Stage::Dial, ns);
    }
    recorders[1].record_ns(Stage::OverheadOutbound, 3_000);
    let samples = parse(&text_of(&exposition, Format::Text));
    for (bound, count) in [
        ("0.000001024", 2.0),
        ("0.000008192", 2.0),
        ("0.000012288", 4.0),
        ("0.000016384", 6.0),
        ("0.002097152", 8.0),
        ("68.719476736", 8.0),
        ("+Inf", 10.0),
    ] {
        let series = format!("netra_dial_seconds_bucket{{le=\"{bound}\"}}");
        assert_eq!(samples.get(&series), Some(&count), "{series}");
    }
    assert_eq!(samples["netra_dial_seconds_count"], 10.0);
    assert!((samples["netra_dial_seconds_sum"] - 200.004_045).abs() < 1e-6);
    assert_eq!(samples["netra_proxy_overhead_seconds_count{direction=\"outbound\"}"], 1.0);
    assert_eq!(samples["netra_proxy_overhead_seconds_count{direction=\"inbound\"}"], 0.0);
}

#[test]
fn traffic_adds_no_series() {
    let (recorders, exposition) = exposition(2);
    let before: Vec<String> = parse(&text_of(&exposition, Format::Text)).into_keys().collect();
    for family in FAMILIES {
        for series in family.series() {
            recorders[0].bump(series.key);
        }
    }
    recorders[0].record_ns(Stage::Dial, 77_000);
    let after: Vec<String> = parse(&text_of(&exposition, Format::Text)).into_keys().collect();
    assert_eq!(before, after);
    // 108 of them are requests by direction, method and class; 41 the reasons to turn opaque, 13
    // those to tunnel, 8 what is shed or refused, 7 what became of copies.
    assert!(before.len() < 584, "{} series with two shards", before.len());
}

#[test]
fn the_two_formats_differ_as_their_specifications_do() {
    let (_, exposition) = exposition(1);
    let open = text_of(&exposition, Format::OpenMetrics);
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("# TYPE netra_loop_rejected counter\n"));
    let text = text_of(&exposition, Format::Text);
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    assert!(text.contains("# TYPE netra_loop_rejected_total counter\n"));
    assert!(text.contains("# HELP netra_loop_rejected_total Connections that"));
    assert!(text.contains("# TYPE netra_dial_seconds histogram\n"));
}

#[test]
fn a_trace_is_shown_beside_its_bucket_in_openmetrics_only() {
    let (recorders, exposition) = exposition(1);
    recorders[0].record_ns(Stage::RequestInbound, 5_000);
    let trace = crate::Exemplar { trace_id: 0xfeed, ns: 5_000, unix_ns: 9_000_000_000 };
    EXEMPLARS.note(Stage::RequestInbound, trace);
    let open = text_of(&exposition, Format::OpenMetrics);
    let line = open.lines().find(|line| line.contains("trace_id")).unwrap();
    assert!(line.starts_with("netra_http_request_duration_seconds_bucket{"), "{line}");
    assert!(
        line.contains("le=\"0.000008192\"") && line.contains("direction=\"inbound\""),
        "{line}"
    );
    assert!(line.ends_with(" 1 # {trace_id=\"0000000000000000000000000000feed\"} 0.000005 9.000"));
    assert!(!text_of(&exposition, Format::Text).contains("trace_id"));
}

#[test]
fn who_asks_for_openmetrics_gets_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
        encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1";
    assert_eq!(Format::accepted(Some(native)), Format::Protobuf);
    let less = "text/plain;version=0.0.4;q=0.5, application/vnd.google.protobuf; \
        proto=io.prometheus.client.MetricFamily; encoding=delimited;q=0.2";
    assert_eq!(Format::accepted(Some(less)), Format::Text);
    let other = "application/vnd.google.protobuf;proto=other;encoding=delimited";
    assert_eq!(Format::accepted(Some(other)), Format::Text);
    assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
    assert_eq!(Format::accepted(Some("*/*")), Format::Text);
    assert_eq!(Format::accepted(None), Format::Text);
    assert!(Format::Text.content_type().starts_with("text/plain; version=0.0.4"));
}

/// Who comes from netramesh is told what its metrics are called here.
#[test]
fn names_given_for_those_of_netramesh_are_real() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/FROM-NETRAMESH.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table = page.split("| netramesh | netra |\n").nth(1).unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.trim_start().starts_with('|'));
    let (_, exposition) = exposition(1);
    let samples = parse(&text_of(&exposition, Format::Text));
    let mut count = 0;
    for row in rows {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let names = if columns[2] == "the same" { columns[1] } else { columns[2] };
        for name in names.split([',', ' ', '`']) {
            if name.starts_with("process_") || name.starts_with("netra_") {
                let is_it = |series: &String| series.split('{').next() == Some(name);
                assert!(samples.keys().any(is_it), "{name}");
                count += 1;
            }
        }
    }
    assert!(count >= 10, "{count} names: has the table moved?");
}

#[test]
fn exchanges_are_summed_and_shown_when_there_are_any() {
    let tables = [crate::ProtocolTable { name: "redis", operations: &["GET", "SET"] }];
    let (recorders, exposition) =
        exposition_of((0..2).map(|_| Arc::new(Recorder::of(&tables))).collect());
    let of_exchanges = |text: &str| -> BTreeMap<String, f64> {
        let all = parse(text).into_iter();
        all.filter(|(series, _)| series.contains("netra_exchange")).collect()
    };
    assert!(of_exchanges(&text_of(&exposition, Format::Text)).is_empty());
    recorders[0].exchanges().count(0, 1, 0, 1);
    recorders[1].exchanges().count(0, 1, 0, 1);
    recorders[1].exchanges().record_ns(0, 1, ExchangeStage::Duration, 2_000_000);
    for format in [Format::Text, Format::OpenMetrics] {
        let samples = of_exchanges(&text_of(&exposition, format));
        let counted = "netra_exchanges_total{direction=\"outbound\",protocol=\"redis\",\
                       operation=\"GET\",outcome=\"error\"}";
        assert_eq!(samples.get(counted), Some(&2.0), "{samples:?}");
        let count = "netra_exchange_duration_seconds_count{direction=\"outbound\",\
                     protocol=\"redis\"}";
        assert_eq!(samples.get(count), Some(&1.0), "{samples:?}");
        assert!(!samples.keys().any(|series| series.contains("SET")), "never seen, never shown");
    }
}
