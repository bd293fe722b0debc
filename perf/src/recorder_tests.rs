use super::*;

#[test]
fn the_table_covers_every_cell_once() {
    let mut seen = vec![0; Key::COUNT];
    for family in FAMILIES {
        for series in family.series() {
            assert_eq!(series.labels.len(), family.labels.len(), "{}", family.name);
            seen[series.key.0] += 1;
        }
    }
    assert!(seen.iter().all(|n| *n == 1), "{seen:?}");
}

#[test]
fn keys_meet_the_labels_they_are_named_for() {
    let family = |name| FAMILIES.iter().find(|f| f.name == name).unwrap().series();
    let closed = family("netra_tcp_connections_closed");
    let row = closed.iter().find(|s| s.key == Key::closed(1, 6)).unwrap();
    assert_eq!(row.labels, ["outbound", "dial_timeout"]);
    let bytes = family("netra_tcp_bytes");
    assert_eq!(
        bytes.iter().find(|s| s.key == Key::bytes(0, 1)).unwrap().labels,
        ["inbound", "response"]
    );
}

#[test]
fn one_writer_adds_and_a_reader_sees_it() {
    let recorder = Recorder::default();
    recorder.bump(Key::LOOP_REJECTED);
    recorder.add(Key::bytes(1, 0), 4096);
    recorder.set(Gauge::BuffersUsed, 3);
    assert_eq!(recorder.get(Key::LOOP_REJECTED), 1);
    assert_eq!(recorder.get(Key::bytes(1, 0)), 4096);
    assert_eq!(recorder.gauge(Gauge::BuffersUsed), 3);
}
