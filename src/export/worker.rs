//! The export thread's life: look, gather, offer, sleep.

use super::{
    EXEMPLARS, ExportPlan, Order, batch::Batch, pace::Pace, send::Queue, stdout, tags::Tags,
};
use netra_codecs::trace::{Outcome, SpanKind, SpanRecord};
use netra_perf::{Exemplar, Stage};
use netra_shards::SpanSource;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::timeout};

/// Spans taken from one ring before the next one gets its turn.
const TAKEN_MAX: usize = 1024;

pub(super) async fn run(
    plan: ExportPlan,
    mut orders: mpsc::Receiver<Order>,
    is_look_ordered: &AtomicBool,
) {
    // Nothing is built and no memory is touched before there is anything to take.
    let mut sources = loop {
        match orders.recv().await {
            Some(Order::Take(sources)) => break sources,
            Some(Order::Finish(done)) => {
                let _ = done.send(());
                return;
            }
            // The shards were faster than whoever hands their rings over.
            Some(Order::Look) => {}
            None => return,
        }
    };
    let mut gatherer = Gatherer::new(&plan);
    let mut pace = Pace::default();
    loop {
        // Before the look: what comes after it is worth another.
        is_look_ordered.store(false, Relaxed);
        let found_most = gatherer.look(&mut sources);
        let pause = gatherer.at_most(pace.after(found_most));
        match timeout(pause, orders.recv()).await {
            Err(_) | Ok(Some(Order::Look)) => {}
            Ok(Some(Order::Take(more))) => sources.extend(more),
            Ok(Some(Order::Finish(done))) => {
                while gatherer.look(&mut sources) > 0 {}
                gatherer.finish().await;
                // Whoever asked may have lost patience.
                let _ = done.send(());
                return;
            }
            // The control thread is gone, and with it the process.
            Ok(None) => return,
        }
    }
}

/// Spans on their way from the rings into the queue.
struct Gatherer {
    batch: Batch,
    queue: Queue,
    log: Option<SpanLog>,
    flush_interval: Duration,
    /// When what has gathered must be sent, if anything has.
    due: Option<Instant>,
}

impl Gatherer {
    fn new(plan: &ExportPlan) -> Self {
        Self {
            batch: Batch::new(plan),
            queue: Queue::start(plan),
            log: plan.logs_spans.then(|| SpanLog::new(plan)),
            flush_interval: plan.flush_interval,
            due: None,
        }
    }

    /// Takes what is in the rings and sends what is due. Returns how many spans the fullest ring
    /// had.
    fn look(&mut self, sources: &mut Vec<SpanSource>) -> usize {
        let Self { batch, queue, log, .. } = self;
        let found = sources.iter_mut().map(|source| {
            source.drain(TAKEN_MAX, |span| {
                note(span);
                if let Some(log) = log {
                    log.write(span);
                }
                if let Some(parcel) = batch.push(span) {
                    queue.offer(parcel);
                }
            })
        });
        let found_most = found.max().unwrap_or_default();
        sources.retain(|source| !source.is_over());
        let now = Instant::now();
        if found_most > 0 {
            self.due.get_or_insert(now + self.flush_interval);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.flush();
        }
        found_most
    }

    fn flush(&mut self) {
        self.due = None;
        if let Some(parcel) = self.batch.take() {
            self.queue.offer(parcel);
        }
    }

    /// A pause that ends when something must be sent.
    fn at_most(&self, pause: Duration) -> Duration {
        let until = |due: Instant| due.saturating_duration_since(Instant::now());
        self.due.map_or(pause, |due| pause.min(until(due)))
    }

    async fn finish(mut self) {
        self.flush();
        self.queue.finish().await;
    }
}

/// Lets the histograms of requests point to this trace.
fn note(span: &SpanRecord) {
    let (whole, overhead) = match span.kind {
        SpanKind::Server => (Stage::RequestInbound, Stage::OverheadInbound),
        SpanKind::Client => (Stage::RequestOutbound, Stage::OverheadOutbound),
    };
    if span.outcome != Outcome::Whole {
        return;
    }
    for (stage, ns) in [(whole, span.duration_ns), (overhead, span.overhead_ns)] {
        let (trace_id, unix_ns) = (span.context.trace_id, span.start_unix_ns);
        EXEMPLARS.note(stage, Exemplar { trace_id, ns, unix_ns });
    }
}

/// JAEGER_REPORTER_LOG_SPANS: each span as a line of the log.
struct SpanLog {
    lines: stdout::Lines,
    tags: Tags,
}

impl SpanLog {
    fn new(plan: &ExportPlan) -> Self {
        Self {
            lines: stdout::Lines::new(&plan.service_name),
            tags: Tags::new(plan.semconv, plan.mapped_tags.clone(), true).with_query(plan.query),
        }
    }

    fn write(&mut self, span: &SpanRecord) {
        self.lines.push(span, &mut self.tags);
        if let Some((line, _)) = self.lines.take() {
            tracing::info!(span = %String::from_utf8_lossy(&line).trim_end(), "span");
        }
    }
}
