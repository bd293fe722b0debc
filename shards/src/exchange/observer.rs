//! What is told of exchanges: records in the making, and where they go when an exchange is over,
//! to the exporter and to the access log.

use super::{
    open::{OpenSpan, OpenSpans},
    tracer::Tracer,
};
use crate::{
    access::AccessSink,
    config::{JoinLevel, TracingConfig},
    error::Direction,
    joins::{Joins, Shared},
    spans::SpanSink,
    sys::{self, Nanos},
};
use netra_codecs::trace::{SamplerPlan, SpanKind, SpanRecord, TraceContext, TraceFlags};
use netra_perf::{Key, Recorder};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

/// How often the offset between the clocks is taken anew.
const WALL_CLOCK_EVERY_NS: Nanos = 1_000_000_000;
/// Records in the making of a shard without tracing.
const LOGGED_OPEN_MAX: usize = 2048;

/// Where records go: to the exporter and to the access log.
pub(crate) type Sinks = (Option<SpanSink>, Option<AccessSink<SpanRecord>>);

/// Tells of exchanges; one for a shard.
#[derive(Debug)]
pub(crate) struct Observer {
    /// None where nothing is traced.
    pub(crate) tracer: Option<Tracer>,
    /// None where calls are joined by what they carry alone.
    pub(crate) joins: Option<Joins>,
    pub(crate) random: fastrand::Rng,
    sink: Option<SpanSink>,
    log: Option<AccessSink<SpanRecord>>,
    /// Records in the making, of exchanges that are traced or logged.
    spans: OpenSpans,
    wall: WallClock,
}

impl Observer {
    /// For one of `shards` shards.
    pub(crate) fn new(tracing: Option<&TracingConfig>, shards: usize, (sink, log): Sinks) -> Self {
        let tracing = tracing.filter(|_| sink.is_some());
        Self {
            tracer: tracing.map(|tracing| Tracer::new(tracing, shards)),
            joins: None,
            random: random(),
            sink,
            log,
            spans: OpenSpans::new(tracing.map_or(LOGGED_OPEN_MAX, |it| it.spans_max)),
            wall: WallClock::default(),
        }
    }

    /// Calls are joined to the requests that all shards serve; this is one of them.
    pub(crate) fn joining(self, shared: &Shared, shard: usize, level: JoinLevel) -> Self {
        let is_joining = self.tracer.is_some() && level > JoinLevel::Explicit;
        let joins = is_joining.then(|| Joins::new(shared.clone(), shard, level));
        Self { joins, ..self }
    }

    /// Decides about new traces by this plan from now on.
    pub(crate) fn sample(&mut self, plan: Arc<SamplerPlan>) {
        if let Some(tracer) = &mut self.tracer {
            tracer.sample(plan);
        }
    }

    /// Goes on with the random numbers of this seed, which are the same each time.
    #[cfg(test)]
    pub(crate) fn draw_from(&mut self, seed: u64) {
        self.random = fastrand::Rng::with_seed(seed);
    }

    /// Requests of this shard that are being served, where anybody counts them.
    pub(crate) fn served(&self) -> u32 {
        self.joins.as_ref().map_or(0, Joins::open_count)
    }

    /// Spans in the making.
    #[cfg(test)]
    pub(crate) fn open_spans(&self) -> usize {
        self.spans.len()
    }

    /// Whether the next exchange is to be logged.
    #[inline]
    pub(crate) fn logs_next(&mut self) -> bool {
        self.log.as_mut().is_some_and(AccessSink::takes_next)
    }

    /// Begins the record of an exchange that is traced, unless too many are open.
    pub(crate) fn open(
        &mut self,
        context: TraceContext,
        direction: Direction,
        now: Nanos,
        recorder: &Recorder,
    ) -> Option<(OpenSpan, &mut SpanRecord)> {
        let start = self.wall.unix_ns(now);
        let opened = self.spans.open(context, kind_of(direction), start);
        if opened.is_none() {
            recorder.bump(Key::span(DROPPED_OPEN));
        }
        opened
    }

    /// Begins the record of an exchange that is logged and not traced.
    pub(crate) fn open_untraced(
        &mut self,
        direction: Direction,
        now: Nanos,
        recorder: &Recorder,
    ) -> Option<(OpenSpan, &mut SpanRecord)> {
        let start = self.wall.unix_ns(now);
        let untraced = TraceContext::root(0, 0, TraceFlags::NONE);
        let opened = self.spans.open(untraced, kind_of(direction), start);
        if opened.is_none() {
            recorder.bump(Key::ACCESS_LOG_DROPPED);
        }
        opened
    }

    /// The record of an exchange that is open.
    pub(crate) fn record(&self, open: OpenSpan) -> &SpanRecord {
        self.spans.get(open)
    }

    /// The same, to be written to.
    pub(crate) fn record_mut(&mut self, open: OpenSpan) -> &mut SpanRecord {
        self.spans.get_mut(open)
    }

    /// There was no such exchange.
    pub(crate) fn forget(&mut self, open: OpenSpan) {
        self.spans.close(open);
    }

    /// The exchange is over and its record is complete: hands it over.
    pub(crate) fn close(&mut self, open: OpenSpan, is_logged: bool, recorder: &Recorder) {
        let span = self.spans.get_mut(open);
        debug_assert!(span.kind == SpanKind::Client || span.join.is_none());
        if let Some(log) = self.log.as_mut().filter(|_| is_logged) {
            log.offer(span, recorder);
        }
        if let Some(sink) = self.sink.as_mut().filter(|_| span.context.is_sampled()) {
            if span.is_cut {
                recorder.bump(Key::SPAN_CUT);
            }
            if let Some(join) = span.join {
                recorder.bump(Key::join(join as usize));
            }
            let result = if sink.offer(span) { RECORDED } else { DROPPED_RING };
            recorder.bump(Key::span(result));
        }
        self.spans.close(open);
    }
}

/// Indexes in [`netra_perf::labels::SPAN_RESULTS`].
const RECORDED: usize = 0;
const DROPPED_OPEN: usize = 1;
const DROPPED_RING: usize = 2;

fn kind_of(direction: Direction) -> SpanKind {
    match direction {
        Direction::Inbound => SpanKind::Server,
        Direction::Outbound => SpanKind::Client,
    }
}

/// Random numbers that no peer can guess: the seed comes from the system's.
fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(RandomState::new().build_hasher().finish())
}

/// Unix time from the monotonic clock and an offset that is taken once a second.
#[derive(Debug, Default)]
struct WallClock {
    offset_ns: u64,
    taken_at: Option<Nanos>,
}

impl WallClock {
    fn unix_ns(&mut self, now: Nanos) -> u64 {
        if self.taken_at.is_none_or(|at| now.saturating_sub(at) > WALL_CLOCK_EVERY_NS) {
            self.offset_ns = sys::unix_ns().wrapping_sub(sys::monotonic_ns());
            self.taken_at = Some(now);
        }
        self.offset_ns.wrapping_add(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_the_systems() {
        let mut wall = WallClock::default();
        let (before, seen) = (sys::unix_ns(), wall.unix_ns(sys::monotonic_ns()));
        let after = sys::unix_ns();
        assert!(before <= seen + 1_000_000 && seen <= after + 1_000_000, "{before} {seen} {after}");
    }
}
