//! What is done with a request's head: request id, trace context, source, route; and with the
//! exchange when it is over: metrics and its span.

use super::{Done, Open, spans::OpenSpans};
use crate::{
    access::AccessSink,
    config::{HttpConfig, TracingConfig},
    correlate::Correlation,
    error::Direction,
    spans::SpanSink,
    sys::{self, Nanos},
};
use netra_codecs::{
    h1::{Fields, Framing, HeadPatch, RequestHead},
    route::{RouteText, Target, cookie_value, find_target},
    trace::{
        Extracted, Outcome, RequestId, RequestKey, Sampler, SamplerPlan, SamplerTag, SpanKind,
        SpanRecord, SpanText, TraceContext, TraceFlags, extract_from, inject,
    },
};
use netra_perf::{Key, Recorder, Stage, labels};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::SocketAddr,
    sync::Arc,
};

/// How often the offset between the clocks is taken anew.
const WALL_CLOCK_EVERY_NS: Nanos = 1_000_000_000;

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) direction: Direction,
    pub(super) remote: Option<SocketAddr>,
    pub(super) now: Nanos,
}

/// What was decided about a request.
#[derive(Debug)]
pub(super) struct Begun {
    /// What its exchange carries.
    pub(super) open: Open,
    /// Where it is to go; the inner None is the original destination. The outer None is where
    /// nothing is routed.
    pub(super) target: Option<Option<Target>>,
}

/// Edits request heads and finishes exchanges.
#[derive(Debug)]
pub(crate) struct Editor {
    config: HttpConfig,
    pub(crate) correlation: Correlation,
    tracer: Option<Tracer>,
    /// Records in the making, of requests that are traced or logged.
    spans: OpenSpans,
    log: Option<AccessSink<SpanRecord>>,
    random: fastrand::Rng,
    wall: WallClock,
}

/// What is needed for spans.
#[derive(Debug)]
struct Tracer {
    sampler: Sampler,
    sink: SpanSink,
}

/// Where records go: to the exporter and to the access log.
pub(crate) type Sinks = (Option<SpanSink>, Option<AccessSink<SpanRecord>>);

/// Records in the making of a shard without tracing.
const LOGGED_OPEN_MAX: usize = 2048;

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

/// Edits of one head, of which some may not fit.
struct Edits<'p, 'b> {
    patch: &'p mut HeadPatch,
    fields: Fields<'b>,
    all_fit: bool,
}

impl Edits<'_, '_> {
    /// Of what netra has made itself, or checked when it started.
    fn set_own(&mut self, name: &[u8], value: &[u8]) {
        self.all_fit &= self.patch.set_own(self.fields, name, value).is_ok();
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        self.all_fit &= self.patch.set(self.fields, name, value).is_ok();
    }
}

/// Random numbers that no peer can guess: the seed comes from the system's.
fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(RandomState::new().build_hasher().finish())
}

impl Editor {
    pub(super) fn new(
        config: &HttpConfig,
        shards: usize,
        correlation: Correlation,
        (sink, log): Sinks,
    ) -> Self {
        let open_max = config.tracing.as_ref().map_or(LOGGED_OPEN_MAX, |it| it.spans_max);
        let tracer = config.tracing.as_ref().zip(sink).map(|(tracing, sink)| Tracer {
            sampler: Sampler::new(Arc::clone(&tracing.sampler), shards),
            sink,
        });
        let spans = OpenSpans::new(open_max);
        let (random, wall) = (random(), WallClock::default());
        Self { config: config.clone(), correlation, tracer, spans, log, random, wall }
    }

    /// Decides about new traces by this plan from now on.
    pub(crate) fn sample(&mut self, plan: Arc<SamplerPlan>) {
        if let Some(tracer) = &mut self.tracer {
            tracer.sampler.replace(plan);
        }
    }

    pub(crate) fn config(&self) -> &HttpConfig {
        &self.config
    }

    pub(super) fn record(&self, recorder: &Recorder) {
        self.correlation.record(recorder);
    }

    /// Goes on with the random numbers of this seed, which are the same each time.
    #[cfg(test)]
    pub(crate) fn draw_from(&mut self, seed: u64) {
        self.random = fastrand::Rng::with_seed(seed);
    }

    /// Spans in the making.
    #[cfg(test)]
    pub(crate) fn open_spans(&self) -> usize {
        self.spans.len()
    }

    /// Decides about a request: fills the patch and begins its span.
    pub(super) fn begin(
        &mut self,
        head: &RequestHead<'_>,
        patch: &mut HeadPatch,
        asked: Asked,
        recorder: &Recorder,
    ) -> Begun {
        patch.clear();
        let mut edits = Edits { patch, fields: head.fields(), all_fit: true };
        let made;
        let given = head.field(&self.config.request_id_name).filter(|id| !id.is_empty());
        let id = match given {
            Some(id) => id,
            None => {
                made = RequestId::from_random(self.random.u128(..));
                edits.set_own(&self.config.request_id_name, made.as_bytes());
                &made.as_bytes()[..]
            }
        };
        if given.is_none() && asked.direction == Direction::Outbound {
            recorder.bump(Key::NO_REQUEST_ID);
        }
        let key = self.correlation.key(id);
        let joins = given.map(|_| &key);
        let mut span = self.trace(head, &mut edits, asked, (id, &key, joins), recorder);
        let is_logged = self.log.as_mut().is_some_and(AccessSink::takes_next);
        if is_logged && span.is_none() {
            span = self.log_only(head, asked, id, recorder);
        }
        if asked.direction == Direction::Outbound {
            edits.set(&self.config.source_name, &self.config.source_value);
        }
        let target = self.route(head, &mut edits, asked, (&key, joins), recorder);
        if !edits.all_fit {
            recorder.bump(Key::PATCH_FULL);
        }
        let method = method_index(head.method());
        Begun { open: Open { span, is_logged, overhead_ns: 0, method }, target }
    }

    /// Begins the record of a request that is not traced.
    fn log_only(
        &mut self,
        head: &RequestHead<'_>,
        asked: Asked,
        id: &[u8],
        recorder: &Recorder,
    ) -> Option<super::OpenSpan> {
        let untraced = TraceContext::root(0, 0, TraceFlags::NONE);
        let start = self.wall.unix_ns(asked.now);
        let Some((open, record)) = self.spans.open(untraced, kind_of(asked.direction), start)
        else {
            recorder.bump(Key::ACCESS_LOG_DROPPED);
            return None;
        };
        record.remote = asked.remote;
        describe(record, head, id, None, None);
        Some(open)
    }

    /// Extracts or makes the trace context, writes it into the head, remembers it, and begins the
    /// span if the trace is sampled.
    fn trace(
        &mut self,
        head: &RequestHead<'_>,
        edits: &mut Edits<'_, '_>,
        asked: Asked,
        (id, key, joins): (&[u8], &RequestKey, Option<&RequestKey>),
        recorder: &Recorder,
    ) -> Option<super::OpenSpan> {
        let Self { config, correlation, tracer, spans, random, wall, .. } = self;
        let (tracing, tracer) = (config.tracing.as_ref()?, tracer.as_mut()?);
        let extracted = extract_from(head.fields());
        let is_inbound = asked.direction == Direction::Inbound;
        let is_ignored = !tracing.ignored_paths.is_empty()
            && tracing.ignored_paths.binary_search_by(|path| (**path).cmp(head.path())).is_ok();
        if is_ignored {
            // No span of its own, but the caller's trace goes on behind it.
            if let (true, Some(context)) = (is_inbound, extracted.context) {
                correlation.remember_context(*key, context, asked.now);
            }
            return None;
        }
        let remembered = match (extracted.context, is_inbound, joins) {
            (None, false, Some(key)) => correlation.context(key, asked.now),
            _ => None,
        };
        let operation = match tracer.sampler.asks_for_operation() {
            true if is_inbound => (&b""[..], head.path()),
            true => (head.host().unwrap_or(b""), head.path()),
            false => (&b""[..], &b""[..]),
        };
        let (context, sampler) =
            tracer.context(&extracted, remembered, tracing.wide_ids, operation, random, asked.now);
        inject(&context, tracing.formats, |name, value| edits.set_own(name.as_bytes(), value));
        if is_inbound {
            correlation.remember_context(*key, context, asked.now);
        }
        if !context.is_sampled() {
            return None;
        }
        let start = wall.unix_ns(asked.now);
        let Some((open, span)) = spans.open(context, kind_of(asked.direction), start) else {
            recorder.bump(Key::span(DROPPED_OPEN));
            return None;
        };
        (span.remote, span.sampler) = (asked.remote, sampler);
        describe(span, head, id, extracted.debug_id, Some(tracing));
        Some(open)
    }

    /// Where the request is to go, by its own routing value or by the one that is remembered.
    fn route(
        &mut self,
        head: &RequestHead<'_>,
        edits: &mut Edits<'_, '_>,
        asked: Asked,
        (key, joins): (&RequestKey, Option<&RequestKey>),
        recorder: &Recorder,
    ) -> Option<Option<Target>> {
        let names = &self.config.routing.as_ref()?.names;
        let given = names.value(head);
        if asked.direction == Direction::Inbound {
            if let Some(route) = given.and_then(RouteText::new) {
                self.correlation.remember_route(*key, route, asked.now);
            }
            return None;
        }
        let remembered = match (given, joins) {
            (None, Some(key)) => self.correlation.route(key, asked.now),
            _ => None,
        };
        if let Some(route) = &remembered {
            edits.set(&names.header, route.as_bytes());
        }
        let value = given.or(remembered.as_ref().map(RouteText::as_bytes));
        let (Some(value), Some(host)) = (value, head.host()) else { return Some(None) };
        let routed = find_target(value, host);
        recorder.add(Key::ROUTE_MALFORMED, routed.malformed.into());
        if routed.target.is_some() {
            recorder.bump(Key::ROUTED);
        }
        Some(routed.target)
    }

    /// Names the upstream that was dialled in the span of an exchange; none when none was.
    pub(super) fn dialled(&mut self, open: &Open, remote: Option<SocketAddr>) {
        if let Some(span) = open.span {
            self.spans.get_mut(span).remote = remote;
        }
    }

    /// The exchange is over: counts it and hands its span over.
    pub(super) fn finish(
        &mut self,
        done: &Done,
        outcome: Outcome,
        direction: Direction,
        now: Nanos,
        recorder: &Recorder,
    ) {
        let status = done.status.unwrap_or(0);
        let class = usize::from(status / 100).min(labels::STATUS_CLASSES.len() - 1);
        recorder.bump(Key::request(direction.index(), done.data.method.into(), class));
        let duration_ns = now.saturating_sub(done.opened_ns);
        if direction == Direction::Inbound {
            recorder.count_status(status);
        }
        if outcome == Outcome::Whole {
            let (whole, overhead) = match direction {
                Direction::Inbound => (Stage::RequestInbound, Stage::OverheadInbound),
                Direction::Outbound => (Stage::RequestOutbound, Stage::OverheadOutbound),
            };
            recorder.record_ns(whole, duration_ns);
            recorder.record_ns(overhead, done.data.overhead_ns);
        }
        let Some(open) = done.data.span else { return };
        let span = self.spans.get_mut(open);
        span.duration_ns = duration_ns;
        span.overhead_ns = done.data.overhead_ns;
        (span.status, span.outcome) = (status, outcome);
        span.request_bytes = bytes_of(Some(done.request_framing), done.request_body_bytes);
        span.response_bytes = bytes_of(done.response_framing, done.response_body_bytes);
        if let Some(log) = self.log.as_mut().filter(|_| done.data.is_logged) {
            log.offer(span, recorder);
        }
        if let Some(tracer) = self.tracer.as_mut().filter(|_| span.context.is_sampled()) {
            if span.is_cut {
                recorder.bump(Key::SPAN_CUT);
            }
            let result = if tracer.sink.offer(span) { RECORDED } else { DROPPED_RING };
            recorder.bump(Key::span(result));
        }
        self.spans.close(open);
    }
}

/// Indexes in [`labels::SPAN_RESULTS`].
const RECORDED: usize = 0;
const DROPPED_OPEN: usize = 1;
const DROPPED_RING: usize = 2;

impl Tracer {
    /// The context of a request's span, and who decided about it if it is a root.
    fn context(
        &mut self,
        extracted: &Extracted<'_>,
        remembered: Option<TraceContext>,
        wide: bool,
        (host, path): (&[u8], &[u8]),
        random: &mut fastrand::Rng,
        now: Nanos,
    ) -> (TraceContext, Option<SamplerTag>) {
        let flags_of = |sampled| if sampled { TraceFlags::SAMPLED } else { TraceFlags::NONE };
        if let Some(parent) = remembered {
            return (parent.child(random.u64(1..)), None);
        }
        if let Some(parent) = extracted.context {
            let mut context = parent.child(random.u64(1..));
            let is_debug =
                extracted.sampling.flags().is_some_and(|f| f.contains(TraceFlags::DEBUG));
            let decided =
                extracted.sampling.flags().filter(|_| is_debug || self.sampler.is_parent_based());
            context.flags = decided.unwrap_or_else(|| {
                flags_of(self.sampler.decide(context.trace_id, host, path, now).is_sampled)
            });
            return (context, None);
        }
        // As the Go client's: 63 random bits, and a root's span has the id of its trace.
        let low = random.u64(1..=i64::MAX.cast_unsigned());
        let high = if wide { random.u64(1..) } else { 0 };
        let trace_id = u128::from(high) << 64 | u128::from(low);
        if let Some(flags) = extracted.sampling.flags() {
            return (TraceContext::root(trace_id, low, flags), None);
        }
        let verdict = self.sampler.decide(trace_id, host, path, now);
        let flags = flags_of(verdict.is_sampled);
        (TraceContext::root(trace_id, low, flags), Some(verdict.tag))
    }
}

fn kind_of(direction: Direction) -> SpanKind {
    match direction {
        Direction::Inbound => SpanKind::Server,
        Direction::Outbound => SpanKind::Client,
    }
}

/// Puts the texts of a request into its span, the most important first.
fn describe(
    span: &mut SpanRecord,
    head: &RequestHead<'_>,
    id: &[u8],
    debug_id: Option<&[u8]>,
    mapped: Option<&TracingConfig>,
) {
    span.put(SpanText::Method, head.method());
    span.put(SpanText::Target, head.target());
    span.put(SpanText::Host, head.host().unwrap_or(b""));
    span.put(SpanText::RequestId, id);
    if let Some(debug_id) = debug_id {
        span.put(SpanText::DebugId, debug_id);
    }
    let mapped = mapped.map_or((&[][..], &[][..]), |it| (&*it.header_tags, &*it.cookie_tags));
    let headers = mapped.0.iter().map(|name| head.field(name));
    let cookies = mapped
        .1
        .iter()
        .map(|name| head.fields().named(b"cookie").find_map(|cookies| cookie_value(cookies, name)));
    for (index, value) in headers.chain(cookies).enumerate() {
        if let (Ok(index), Some(value)) = (u8::try_from(index), value) {
            span.put(SpanText::Mapped(index), value);
        }
    }
    if let Some(agent) = head.field(b"user-agent") {
        span.put(SpanText::UserAgent, agent);
    }
}

/// The size of a body, where it is that of the content alone.
fn bytes_of(framing: Option<Framing>, bytes: u64) -> Option<u64> {
    match framing {
        Some(Framing::Chunked | Framing::UntilClose) => None,
        Some(Framing::Length(_)) | None => Some(bytes),
    }
}

/// The index of a method in [`labels::METHODS`].
fn method_index(method: &[u8]) -> u8 {
    let found = labels::METHODS.iter().position(|known| known.as_bytes() == method);
    u8::try_from(found.unwrap_or(labels::METHODS.len() - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_codecs::h1::Reason;

    #[test]
    fn labels_meet_what_they_are_named_for() {
        assert!(Reason::ALL.iter().map(|reason| reason.name()).eq(labels::OPAQUE_REASONS));
        for (index, method) in labels::METHODS.iter().enumerate() {
            assert_eq!(usize::from(method_index(method.as_bytes())), index, "{method}");
        }
        assert_eq!(labels::METHODS[usize::from(method_index(b"PROPFIND"))], "other");
    }

    #[test]
    fn the_wall_clock_is_the_systems() {
        let mut wall = WallClock::default();
        let (before, seen) = (sys::unix_ns(), wall.unix_ns(sys::monotonic_ns()));
        let after = sys::unix_ns();
        assert!(before <= seen + 1_000_000 && seen <= after + 1_000_000, "{before} {seen} {after}");
    }
}
