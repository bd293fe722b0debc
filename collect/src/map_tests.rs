use super::*;
use crate::batch::tests::{BEGIN, Made, batch, made};
use crate::join::WAIT_NS;

const NOW_S: u64 = BEGIN / 1_000_000_000;

/// front asks shop asks a database; each call has both ends, but for the database.
fn call(trace: u128) -> Vec<Made> {
    let mut spans = vec![
        made("front", Kind::Server, (trace, 1, 0)),
        made("front", Kind::Client, (trace, 2, 1)),
        made("shop", Kind::Server, (trace, 3, 2)),
        made("shop", Kind::Client, (trace, 4, 3)),
    ];
    let times = [(0, 100_000), (10_000, 80_000), (15_000, 60_000), (20_000, 40_000)];
    for (span, at_us) in spans.iter_mut().zip(times) {
        span.at_us = at_us;
    }
    spans[3].tags = vec![("db.system.name", "redis".into()), ("server.address", "10.9.9.9".into())];
    spans
}

fn edges(map: &MapView) -> Vec<(String, String, u64)> {
    let name = |id| map.nodes.iter().find(|node| node.id == id).unwrap().name.clone();
    let mut edges: Vec<_> =
        map.edges.iter().map(|edge| (name(edge.from), name(edge.to), edge.figures.count)).collect();
    edges.sort();
    edges
}

fn wanted(edges: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    edges.iter().map(|(from, to, count)| ((*from).into(), (*to).into(), *count)).collect()
}

fn window() -> Range<u64> {
    NOW_S - 60..NOW_S + 60
}

/// Whatever order spans come in, and whether they are still waiting: the same map.
#[test]
fn a_call_with_two_ends_is_one_edge_in_any_order() {
    let orders: [[usize; 4]; 5] =
        [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2], [2, 3, 1, 0]];
    for order in orders {
        let mut books = Books::new(16 << 20);
        let spans = call(7);
        for at in order {
            books.take(&batch(&spans[at..=at]), BEGIN);
        }
        let all =
            wanted(&[("front", "shop", 1), ("outside", "front", 1), ("shop", "redis 10.9.9.9", 1)]);
        assert_eq!(edges(&map(&books, &window(), NOW_S)), all, "{order:?}");
        books.tend(BEGIN + WAIT_NS + 1);
        let settled = map(&books, &window(), NOW_S);
        assert_eq!(edges(&settled), all, "{order:?}");
        let own = |name: &str| settled.nodes.iter().find(|node| node.name == name).unwrap().own_us;
        assert_eq!((own("front"), own("shop")), (20_000, 20_000), "{order:?}");
        assert_eq!(own("redis 10.9.9.9"), 40_000, "{order:?}");
    }
}

#[test]
fn spans_that_come_again_count_once() {
    let mut books = Books::new(16 << 20);
    for _ in 0..3 {
        books.take(&batch(&call(7)), BEGIN);
    }
    assert_eq!((books.counts.spans, books.counts.duplicates), (4, 8));
    assert_eq!(books.store.counts().0, 4);
    assert!(edges(&map(&books, &window(), NOW_S)).iter().all(|edge| edge.2 == 1));
}

/// A database with a sidecar, whose protocol hands no trace on: its address says who it is.
#[test]
fn calls_whose_trace_is_not_handed_on_are_joined_by_address() {
    let mut books = Books::new(16 << 20);
    let mut cache = made("cache", Kind::Server, (8, 1, 0));
    cache.process = vec![("ip", "10.9.9.9")];
    cache.tags = vec![("db.system.name", "redis".into()), ("client.address", "10.1.1.1".into())];
    let mut spans = call(7);
    for span in spans.iter_mut().filter(|span| span.service == "shop") {
        span.process = vec![("ip", "10.1.1.1")];
    }
    books.take(&batch(&spans), BEGIN);
    books.take(&batch(&[cache]), BEGIN);
    let all = wanted(&[("front", "shop", 1), ("outside", "front", 1), ("shop", "cache", 1)]);
    assert_eq!(edges(&map(&books, &window(), NOW_S)), all);
}

#[test]
fn queues_stand_between_who_sends_and_who_receives() {
    let mut books = Books::new(16 << 20);
    let mut send = made("shop", Kind::Producer, (7, 1, 0));
    let mut receive = made("mail", Kind::Consumer, (7, 2, 1));
    let tags = [("messaging.system", "kafka"), ("messaging.destination.name", "orders")];
    for span in [&mut send, &mut receive] {
        span.tags = tags.map(|(key, value)| (key, value.to_owned())).to_vec();
    }
    books.take(&batch(&[send, receive]), BEGIN);
    let all = wanted(&[("kafka orders", "mail", 1), ("shop", "kafka orders", 1)]);
    assert_eq!(edges(&map(&books, &window(), NOW_S)), all);
}

/// Orphans, cycles, spans that are their own parents, one id for both ends.
#[test]
fn odd_spans_make_no_odd_map() {
    let mut books = Books::new(16 << 20);
    let odd = [
        made("a", Kind::Server, (1, 1, 99)),
        made("b", Kind::Server, (2, 1, 2)),
        made("b", Kind::Client, (2, 2, 1)),
        made("c", Kind::Server, (3, 1, 1)),
        made("d", Kind::Client, (4, 5, 0)),
        made("e", Kind::Server, (4, 5, 0)),
    ];
    books.take(&batch(&odd), BEGIN);
    books.tend(BEGIN + WAIT_NS + 1);
    let all = wanted(&[("b", "b", 1), ("d", "e", 1), ("outside", "a", 1), ("outside", "c", 1)]);
    assert_eq!(edges(&map(&books, &window(), NOW_S)), all);
}

/// Where there is no room to wait, rates are right all the same.
#[test]
fn under_pressure_no_call_is_lost() {
    let mut books = Books::new(1 << 20);
    for trace in 1..=5_000 {
        books.take(&batch(&call(trace)), BEGIN);
        assert!(books.bytes() < 1 << 20, "{}", books.bytes());
    }
    assert!(books.joiner.hurried > 10_000);
    let map = map(&books, &window(), NOW_S);
    let all = wanted(&[
        ("front", "shop", 5_000),
        ("outside", "front", 5_000),
        ("shop", "redis 10.9.9.9", 5_000),
    ]);
    assert_eq!(edges(&map), all);
    let evictions = books.store.evictions;
    let here = books.store.counts().0 as u64;
    assert!(evictions.ordinary > 0);
    assert_eq!(here + evictions.ordinary + evictions.telling, 20_000);
}

#[test]
fn operations_have_their_figures() {
    let mut books = Books::new(16 << 20);
    for trace in 1..=100 {
        let mut spans = call(trace);
        spans[0].is_error = trace % 10 == 0;
        spans[0].name = format!("/cart/{trace}");
        books.take(&batch(&spans), BEGIN);
    }
    let of = |service| operations(&books, service, &window(), NOW_S, 100);
    assert_eq!(of(None).len(), 4);
    let front = of(Some("front"));
    let server = front.iter().find(|op| op.kind == "server").unwrap();
    assert_eq!(
        (server.name.as_str(), server.figures.count, server.figures.errors),
        ("/cart/{id}", 100, 10)
    );
    assert!((100_000..125_000).contains(&server.figures.p50_us), "{server:?}");
    assert_eq!(server.classes.iter().map(|class| class.1).sum::<u64>(), 100);
    assert_eq!(server.own_us, 2_000_000);
    assert!(of(Some("nobody")).is_empty());
}

#[test]
fn the_map_as_text_steers_no_terminal() {
    let mut books = Books::new(16 << 20);
    let mut spans = call(7);
    spans[3].tags[1].1 = "\u{1b}[2Jevil\u{202e}".into();
    books.take(&batch(&spans), BEGIN);
    let text = text(&map(&books, &window(), NOW_S));
    assert!(text.contains("front   -> shop"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}') && text.contains("evil"));
    assert!(text.contains("where the time goes"), "{text}");
}
