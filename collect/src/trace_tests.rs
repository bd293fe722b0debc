use super::*;
use crate::batch::tests::{BEGIN, Made, batch, made};
use crate::books::Books;

fn trace(spans: &[Made]) -> Trace {
    let mut books = Books::new(16 << 20);
    // One by one, a second apart, so that duplicates are not all the joiner's.
    for span in spans {
        books.take(&batch(std::slice::from_ref(span)), BEGIN);
    }
    let mut found = books.store.snapshot().spans(&[1]);
    Trace::new(1, found.remove(&1).unwrap_or_default())
}

fn at(mut span: Made, at_us: (u64, u64)) -> Made {
    span.at_us = at_us;
    span
}

fn shape(trace: &Trace) -> Vec<(u64, usize)> {
    trace.spans.iter().map(|span| (span.stored.row.id, span.depth)).collect()
}

#[test]
fn a_waterfall_has_its_order_and_its_critical_path() {
    let trace = trace(&[
        at(made("b", Kind::Server, (1, 3, 2)), (20, 50)),
        at(made("a", Kind::Server, (1, 1, 0)), (0, 100)),
        at(made("a", Kind::Client, (1, 4, 1)), (12, 30)),
        at(made("a", Kind::Client, (1, 2, 1)), (10, 70)),
    ]);
    assert_eq!(shape(&trace), [(1, 0), (2, 1), (3, 2), (4, 1)]);
    let critical: Vec<u64> = trace
        .spans
        .iter()
        .map(|span| span.critical.iter().map(|(from, until)| (until - from) / 1000).sum())
        .collect();
    // 4 runs beside 2, and nobody waits for it.
    assert_eq!(critical, [30, 20, 50, 0]);
    assert_eq!((trace.end_ns() - trace.start_ns()) / 1000, 100);
    assert_eq!(trace.root().unwrap().stored.row.id, 1);
}

#[test]
fn a_clock_that_is_wrong_is_put_right_and_marked_with_all_below() {
    let trace = trace(&[
        at(made("a", Kind::Client, (1, 1, 0)), (1000, 100)),
        at(made("b", Kind::Server, (1, 2, 1)), (0, 60)),
        at(made("b", Kind::Client, (1, 3, 2)), (10, 20)),
    ]);
    let shifts: Vec<i64> = trace.spans.iter().map(|span| span.shift_ns / 1000).collect();
    assert_eq!(shifts, [0, 1020, 1020]);
    assert_eq!((trace.end_ns() - trace.start_ns()) / 1000, 100);
}

#[test]
fn orphans_circles_and_shared_ids() {
    let odd = trace(&[
        made("a", Kind::Server, (1, 1, 99)),
        made("b", Kind::Server, (1, 2, 3)),
        made("b", Kind::Internal, (1, 3, 2)),
        made("c", Kind::Server, (1, 4, 4)),
    ]);
    assert_eq!(odd.spans.len(), 4);
    assert_eq!(odd.spans.iter().filter(|span| span.is_orphan).count(), 2);
    assert_eq!(odd.spans.iter().filter(|span| span.is_cyclic).count(), 1);
    let shared = trace(&[
        at(made("a", Kind::Client, (1, 5, 0)), (0, 50)),
        at(made("b", Kind::Server, (1, 5, 0)), (5, 40)),
        at(made("b", Kind::Client, (1, 6, 5)), (10, 20)),
    ]);
    assert_eq!(shape(&shared), [(5, 0), (5, 1), (6, 2)]);
}

/// Any parents at all: every span is there once, and below nobody who is below it.
#[test]
fn whatever_the_parents_are_every_span_has_one_place() {
    let mut state = 7u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let count = 1 + random(12);
        let spans: Vec<Made> = (1..=count)
            .map(|id| {
                let kind = Kind::of_number(1 + random(5));
                let service = *["a", "b", "c"]
                    .iter()
                    .cycle()
                    .nth(usize::try_from(random(3)).unwrap())
                    .unwrap();
                let span = made(service, kind, (1, id, random(count + 2)));
                at(span, (random(1000), random(1000)))
            })
            .collect();
        let trace = trace(&spans);
        assert_eq!(trace.spans.len() as u64, count);
        for (place, span) in trace.spans.iter().enumerate() {
            assert!(span.parent.is_none_or(|parent| parent < place), "{trace:?}");
            let from_parent = span.parent.map_or(0, |parent| trace.spans[parent].depth + 1);
            assert_eq!(span.depth, from_parent);
            for (from, until) in &span.critical {
                assert!(from < until && *from >= span.start_ns() && *until <= span.end_ns());
            }
        }
    }
}
