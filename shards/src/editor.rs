//! What is done with a request's head: request id, trace context, source, route; and with the
//! exchange when it is over: metrics and its span.

use crate::{
    config::{HttpConfig, JoinLevel, RoutingConfig, TracingConfig},
    correlate::Correlation,
    error::Direction,
    exchange::{Caller, Observer, OpenSpan},
    joins::{Begun as BegunCall, CallKey, Served, caller_id},
    sys::Nanos,
};
use netra_codecs::{
    h1::{Exchange, Fields, Framing, HeadPatch, RequestHead},
    route::{Refusal, RouteText, Target, cookie_value, find_target},
    trace::{
        Join, Outcome, RequestId, RequestKey, SpanRecord, SpanText, StreamFacts, TraceContext,
        extract_from, inject,
    },
};
use netra_perf::{Key, Recorder, Stage, labels};
use std::net::SocketAddr;

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// It came by HTTP/2: its span says more, and where it goes is its connection's business.
    pub(crate) is_http2: bool,
    pub(crate) direction: Direction,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) now: Nanos,
    /// No further request is to follow on this connection.
    pub(crate) is_last: bool,
}

impl Asked {
    /// Of a request of HTTP/1.
    pub(crate) fn of(
        direction: Direction,
        remote: Option<SocketAddr>,
        now: Nanos,
        is_last: bool,
    ) -> Self {
        Self { direction, remote, now, is_http2: false, is_last }
    }
}

/// What an exchange carries from its request to its response.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(crate) span: Option<OpenSpan>,
    /// Its record goes to the access log.
    pub(crate) is_logged: bool,
    /// What netra itself took so far.
    pub(crate) overhead_ns: u32,
    /// Index of the method among the label values.
    pub(crate) method: u8,
    /// It is a request that calls may belong to.
    served: Option<Served>,
    /// It counts where its connection sits.
    pub(crate) is_seated: bool,
    /// Its body may be a message of the Model Context Protocol, and somebody wants to know.
    pub(crate) may_call: bool,
    /// Its number among those whose answers may not take for ever, 0 where it may.
    pub(crate) timed: u32,
    /// What its answer is to be given, by the number of the rules; 0 is nothing.
    pub(crate) answer: u32,
}

impl Open {
    /// Its answer is to be given this.
    #[inline]
    pub(crate) fn promised(self, answer: u32) -> Self {
        Self { answer, ..self }
    }

    /// netra itself took so much more.
    pub(crate) fn add_overhead(&mut self, took: Nanos) {
        self.overhead_ns = self.overhead_ns.saturating_add(u32::try_from(took).unwrap_or(u32::MAX));
    }
}

/// An exchange that is over.
pub(crate) type Done = Exchange<Open>;
// One is kept by every idle connection that has spoken HTTP.
const _: () = assert!(size_of::<Done>() <= 96);

/// What was decided about a request.
#[derive(Debug)]
pub(crate) struct Begun {
    /// What its exchange carries.
    pub(crate) open: Open,
    /// Where it is to go; the inner None is the original destination. The outer None is where
    /// nothing is routed.
    pub(crate) target: Option<Option<Target>>,
}

/// Edits request heads and finishes exchanges.
#[derive(Debug)]
pub(crate) struct Editor {
    config: HttpConfig,
    pub(crate) correlation: Correlation,
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

    /// Asks for an answer that is the connection's last (RFC 9112, section 9.6), unless the head's
    /// own options say something else than whether it stays open.
    fn close(&mut self, head: &RequestHead<'_>) {
        const NAME: &[u8] = b"Connection";
        let mut options = self.fields.named(NAME);
        let is_plain = |option: &[u8]| option.eq_ignore_ascii_case(b"keep-alive");
        if !head.asks_to_switch() && options.all(|option| is_plain(option.trim_ascii())) {
            self.set_own(NAME, b"close");
        }
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        self.all_fit &= self.patch.set(self.fields, name, value).is_ok();
    }
}

impl Editor {
    pub(crate) fn new(config: &HttpConfig, correlation: Correlation) -> Self {
        Self { config: config.clone(), correlation }
    }

    pub(crate) fn config(&self) -> &HttpConfig {
        &self.config
    }

    pub(crate) fn record(&self, recorder: &Recorder) {
        self.correlation.record(recorder);
    }

    /// Decides about a request: fills the patch and begins its span.
    pub(crate) fn begin(
        &mut self,
        head: &RequestHead<'_>,
        patch: &mut HeadPatch,
        asked: Asked,
        observer: &mut Observer,
        recorder: &Recorder,
    ) -> Begun {
        patch.clear();
        let mut edits = Edits { patch, fields: head.fields(), all_fit: true };
        let made;
        let given = head.field(&self.config.request_id_name).filter(|id| !id.is_empty());
        let id = match given {
            Some(id) => id,
            None => {
                made = RequestId::from_random(observer.random.u128(..));
                edits.set_own(&self.config.request_id_name, made.as_bytes());
                &made.as_bytes()[..]
            }
        };
        if given.is_none() && asked.direction == Direction::Outbound {
            recorder.bump(Key::NO_REQUEST_ID);
        }
        let key = self.correlation.key(id);
        let joins = given.map(|_| &key);
        let (mut span, served) =
            self.trace(head, &mut edits, asked, (id, &key, joins), (observer, recorder));
        let is_logged = observer.logs_next();
        if is_logged && span.is_none() {
            let opened = observer.open_untraced(asked.direction, asked.now, recorder);
            span = opened.map(|(open, record)| {
                record.remote = asked.remote;
                describe(record, head, id, asked.is_http2, (None, None));
                open
            });
        }
        if asked.direction == Direction::Outbound {
            edits.set(&self.config.source_name, &self.config.source_value);
        }
        let target = self.route(head, &mut edits, asked, (&key, joins), recorder);
        if asked.is_last {
            edits.close(head);
        }
        if !edits.all_fit {
            recorder.bump(Key::PATCH_FULL);
        }
        let method = method_index(head.method());
        let may_call = self.config.reads_mcp
            && span.is_some()
            && head.method() == b"POST"
            && head.field(b"content-type").is_some_and(is_json);
        let is_seated = false;
        let open = Open { span, is_logged, method, served, is_seated, may_call, ..Open::default() };
        Begun { open, target }
    }

    /// Extracts or makes the trace context, writes it into the head, remembers it, and begins the
    /// span if the trace is sampled.
    fn trace(
        &mut self,
        head: &RequestHead<'_>,
        edits: &mut Edits<'_, '_>,
        asked: Asked,
        (id, key, joins): (&[u8], &RequestKey, Option<&RequestKey>),
        (observer, recorder): (&mut Observer, &Recorder),
    ) -> (Option<OpenSpan>, Option<Served>) {
        let Self { config, correlation } = self;
        let Some(tracing) = config.tracing.as_ref() else { return (None, None) };
        let extracted = extract_from(head.fields());
        let is_inbound = asked.direction == Direction::Inbound;
        let is_ignored = !tracing.ignored_paths.is_empty()
            && tracing
                .ignored_paths
                .binary_search_by(|path| (**path).cmp(head.target_parts().path()))
                .is_ok();
        if is_ignored {
            // No span of its own, but the caller's trace goes on behind it.
            if let (true, Some(context)) = (is_inbound, extracted.context) {
                correlation.remember_context(*key, context, asked.now);
            }
            return (None, observer.serve(asked, extracted.context));
        }
        let by_id = joins.filter(|_| !is_inbound && tracing.join >= JoinLevel::Explicit);
        let mut remembered = match (extracted.context, by_id) {
            (None, Some(key)) => correlation.context(key, asked.now),
            _ => None,
        };
        let (mut join, mut begun) = (Join::Explicit, None);
        if !is_inbound && extracted.context.is_none() && remembered.is_none() {
            (join, begun) = (Join::None, observer.look(asked, head.method()));
            if let (Some(begun), Some(joins)) = (&begun, &observer.joins) {
                remembered = joins.only(begun, asked.now);
                join = match remembered {
                    Some(_) => Join::Exclusive,
                    None if begun.seen.ids().is_empty() => Join::None,
                    None => Join::Ambiguous,
                };
            }
        }
        let Some(tracer) = observer.tracer.as_mut() else { return (None, None) };
        let operation = match tracer.asks_for_operation() {
            true if is_inbound => (&b""[..], head.target_parts().path()),
            true => (head.host().unwrap_or(b""), head.target_parts().path()),
            false => (&b""[..], &b""[..]),
        };
        let caller = Caller { extracted, remembered };
        let (context, sampler) = tracer.context(caller, operation, &mut observer.random, asked.now);
        inject(&context, tracing.formats, |name, value| edits.set_own(name.as_bytes(), value));
        if is_inbound {
            correlation.remember_context(*key, context, asked.now);
        }
        let served = observer.serve(asked, Some(context));
        if !context.is_sampled() {
            return (None, served);
        }
        let Some((open, span)) = observer.open(context, asked.direction, asked.now, recorder)
        else {
            return (None, served);
        };
        (span.remote, span.sampler) = (asked.remote, sampler);
        span.join = (!is_inbound).then_some(join);
        describe(span, head, id, asked.is_http2, (extracted.debug_id, Some(tracing)));
        if let Some(begun) = begun {
            observer.keep(open, begun);
        }
        (Some(open), served)
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
        let RoutingConfig { names, policy, .. } = self.config.routing.as_ref()?;
        let refused = |why: Refusal| recorder.bump(Key::route_refused(why as usize));
        let given = names.value(head);
        if asked.direction == Direction::Inbound {
            let value = given?;
            let is_trusted = policy.trusts(asked.remote.map(|remote| remote.ip()));
            // Of a stranger's route it is remembered that it counts for nothing, also where the
            // application copies it into what it asks.
            let route = if is_trusted { RouteText::new(value) } else { Some(RouteText::REFUSED) };
            if !is_trusted {
                refused(Refusal::Source);
            }
            let is_first =
                route.is_none_or(|it| self.correlation.remember_route(*key, it, asked.now));
            if is_trusted && !is_first {
                refused(Refusal::RequestId);
            }
            return None;
        }
        let remembered = match (given, joins) {
            (None, Some(key)) => self.correlation.route(key, asked.now),
            (Some(_), Some(key)) => self.correlation.refused_route(key, asked.now),
            (_, None) => None,
        };
        if remembered.is_some_and(|route| route.is_refused()) {
            if given.is_some() {
                refused(Refusal::Source);
            }
            return Some(None);
        }
        if let Some(route) = &remembered {
            edits.set(&names.header, route.as_bytes());
        }
        let value = given.or(remembered.as_ref().map(RouteText::as_bytes));
        let (Some(value), Some(host)) = (value, head.host()) else { return Some(None) };
        let routed = find_target(value, host);
        recorder.add(Key::ROUTE_MALFORMED, routed.malformed.into());
        let Some(target) = routed.target else { return Some(None) };
        if let Some(why) = policy.refuses(&target) {
            refused(why);
            return Some(None);
        }
        // Those of HTTP/2 are counted where it is known where their connection goes.
        if !asked.is_http2 {
            recorder.bump(Key::ROUTED);
        }
        Some(Some(target))
    }
}

/// An exchange that is over, whatever carried it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over<'d> {
    pub(crate) data: &'d Open,
    pub(crate) status: u16,
    pub(crate) opened_ns: Nanos,
    /// Bytes of both bodies, where they are those of the content alone.
    pub(crate) bytes: [Option<u64>; 2],
    pub(crate) outcome: Outcome,
    /// The answer says that something is wrong, beside its status.
    pub(crate) is_refused: bool,
}

/// The exchange is over: counts it and hands its span over.
pub(crate) fn finish(
    done: &Done,
    outcome: Outcome,
    direction: Direction,
    now: Nanos,
    told: (&mut Observer, &Recorder),
) {
    let over = Over {
        data: &done.data,
        status: done.status.unwrap_or(0),
        opened_ns: done.opened_ns,
        bytes: [
            bytes_of(Some(done.request_framing), done.request_body_bytes),
            bytes_of(done.response_framing, done.response_body_bytes),
        ],
        outcome,
        is_refused: false,
    };
    over.finish(direction, now, told);
}

impl Over<'_> {
    /// Counts it and hands its span over.
    #[inline]
    pub(crate) fn finish(
        self,
        direction: Direction,
        now: Nanos,
        (observer, recorder): (&mut Observer, &Recorder),
    ) {
        let Self { data, status, outcome, .. } = self;
        let class = usize::from(status / 100).min(labels::STATUS_CLASSES.len() - 1);
        recorder.bump(Key::request(direction.index(), data.method.into(), class));
        let duration_ns = now.saturating_sub(self.opened_ns);
        if let (Some(served), Some(joins)) = (data.served, &mut observer.joins) {
            let is_answered = matches!(outcome, Outcome::Whole | Outcome::UpstreamGone);
            joins.answered(served, is_answered, now);
        }
        if direction == Direction::Inbound {
            recorder.count_status(status);
        }
        if outcome == Outcome::Whole {
            let (whole, overhead) = match direction {
                Direction::Inbound => (Stage::RequestInbound, Stage::OverheadInbound),
                Direction::Outbound => (Stage::RequestOutbound, Stage::OverheadOutbound),
            };
            recorder.record_ns(whole, duration_ns);
            recorder.record_ns(overhead, data.overhead_ns.into());
        }
        let Some(open) = data.span else { return };
        let span = observer.record_mut(open);
        span.duration_ns = duration_ns;
        span.overhead_ns = data.overhead_ns.into();
        (span.status, span.outcome, span.is_refused) = (status, outcome, self.is_refused);
        [span.request_bytes, span.response_bytes] = self.bytes;
        if span.join == Some(Join::Exclusive) {
            observer.judge(open, now);
        }
        observer.close(open, data.is_logged, recorder);
    }
}

impl Observer {
    /// An inbound request is about to be passed on.
    fn serve(&mut self, asked: Asked, context: Option<TraceContext>) -> Option<Served> {
        let joins = self.joins.as_mut().filter(|_| asked.direction == Direction::Inbound)?;
        Some(joins.serve(context, caller_id(asked.remote)))
    }

    /// What a call may belong to.
    fn look(&self, asked: Asked, method: &[u8]) -> Option<BegunCall> {
        let joins = self.joins.as_ref()?;
        Some(joins.look(CallKey::new(asked.remote, method), asked.now))
    }

    /// Keeps what a call may belong to, and tells of it where that is not known.
    fn keep(&mut self, open: OpenSpan, begun: BegunCall) {
        let Some(joins) = &mut self.joins else { return };
        joins.keep(open.index(), begun);
        let links = joins.links(&begun);
        let span = self.record_mut(open);
        if span.join == Some(Join::Ambiguous) {
            span.put_links(links.into_iter().flatten());
        }
    }

    /// A call is over: notes it if it has outlived what it was taken to belong to.
    fn judge(&self, open: OpenSpan, now: Nanos) {
        if let Some(joins) = &self.joins {
            joins.judge(&joins.begun(open.index()), now);
        }
    }
}

/// Puts the texts of a request into its span, the most important first.
fn describe(
    span: &mut SpanRecord,
    head: &RequestHead<'_>,
    id: &[u8],
    is_http2: bool,
    (debug_id, mapped): (Option<&[u8]>, Option<&TracingConfig>),
) {
    span.put(SpanText::Method, head.method());
    if is_http2 {
        // The place of what its end tells.
        span.put(SpanText::Stream, &StreamFacts::default().to_bytes());
    }
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

/// `application/json`, whatever its parameters.
fn is_json(media: &[u8]) -> bool {
    const JSON: &[u8] = b"application/json";
    media.get(..JSON.len()).is_some_and(|media| media.eq_ignore_ascii_case(JSON))
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
        assert!(Refusal::ALL.iter().map(|why| why.name()).eq(labels::ROUTE_REFUSALS));
        for (index, method) in labels::METHODS.iter().enumerate() {
            assert_eq!(usize::from(method_index(method.as_bytes())), index, "{method}");
        }
        assert_eq!(labels::METHODS[usize::from(method_index(b"PROPFIND"))], "other");
    }
}
