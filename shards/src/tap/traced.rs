//! Which trace an exchange belongs to that begins: its caller's, that of a request that is being
//! served, or one of its own.

use super::{Carried, Of, joined};
use crate::{
    error::Direction,
    exchange::{Caller, Observer, OpenSpan, Writing},
    joins::{Begun, CallKey, Joins, Served, caller_id},
    sys::Nanos,
};
use netra_codecs::{
    codec::Kind,
    tap::Message,
    trace::{Extracted, Join, TraceContext, VALUE_BYTES_MAX, extract, may_be_trace},
};
use netra_perf::Recorder;

/// Pairs that travel with a message and may be of a trace context: nine names are looked for.
const PAIRS_MAX: usize = 12;

impl Of {
    #[inline]
    pub(super) fn trace(
        &self,
        carried: &mut Carried,
        message: &Message<'_>,
        (began, now): (Nanos, Nanos),
        (observer, recorder): (&mut Observer, &Recorder),
        mut writing: Option<Writing<'_>>,
    ) {
        // Where nobody traces, nobody looks for what a message carries.
        if observer.tracer.is_none() {
            return;
        }
        let id_name = writing.as_ref().map(|writing| &*writing.how.request_id_name);
        let carries = self.named.protocol.about().carries_context || id_name.is_some();
        let (extracted, id) =
            if carries { carried_by(message, id_name) } else { Default::default() };
        let is_outbound = self.direction == Direction::Outbound;
        let (mut key, mut remembered) = (None, None);
        if let (Some(writing), Some(_)) = (&mut writing, &observer.tracer) {
            (key, remembered) = writing.join(id, &extracted, &mut observer.random);
        }
        let (mut begun, is_by_id) = (None, remembered.is_some());
        if is_outbound
            && extracted.context.is_none()
            && !is_by_id
            && let Some(joins) = &observer.joins
        {
            let looked = self.look(message, joins, now);
            // What is written goes with the call: it is to be known before.
            remembered = writing.as_ref().and_then(|_| joins.only(&looked, now));
            begun = Some(looked).filter(|_| remembered.is_none());
        }
        let may_belong = begun.is_some_and(|begun| !begun.seen.ids().is_empty());
        if may_belong && writing.is_none() {
            carried.span = self.trace_later(message, begun, began, observer, recorder);
            return;
        }
        let Observer { tracer, random, joins, .. } = observer;
        let Some(tracer) = tracer.as_mut() else { return };
        let is_told = extracted.context.is_some() || is_by_id;
        let is_decided = begun.is_none() || writing.is_some();
        let join = decided(is_told, remembered.is_some(), may_belong);
        let caller = Caller { extracted, remembered };
        let (context, sampler) = if tracer.asks_for_operation() {
            let mut name = [0; VALUE_BYTES_MAX];
            let operation = joined(message.name(), &mut name);
            tracer.context(caller, (b"", operation), random, now)
        } else {
            tracer.context(caller, (b"", b""), random, now)
        };
        if !is_outbound && !self.is_trial {
            carried.served = joins.as_mut().and_then(|it| self.serve(it, message, context, now));
        }
        if let Some(mut writing) = writing {
            writing.write(key, &context);
        }
        if !context.is_sampled() {
            return;
        }
        let Some((open, record)) = observer.open(context, self.direction, began, recorder) else {
            return;
        };
        (record.sampler, record.join) = (sampler, (is_outbound && is_decided).then_some(join));
        self.describe(record, message);
        if let (Some(begun), Some(joins)) = (begun, &mut observer.joins) {
            joins.keep(open.index(), begun);
        }
        carried.span = Some(open);
    }

    /// A request is about to be passed on that calls may belong to.
    fn serve(
        &self,
        joins: &mut Joins,
        message: &Message<'_>,
        context: TraceContext,
        now: Nanos,
    ) -> Option<Served> {
        if message.kind() == Kind::Quiet {
            // Nobody knows when it is over.
            joins.doubt(now);
            return None;
        }
        Some(joins.serve(Some(context), caller_id(self.remote)))
    }

    /// What a call may belong to.
    fn look(&self, message: &Message<'_>, joins: &Joins, now: Nanos) -> Begun {
        let mut name = [0; VALUE_BYTES_MAX];
        let key = CallKey::new(self.remote, joined(message.name(), &mut name));
        let mut begun = joins.look(key, now);
        // Whoever waits for no answer may be done before anybody has seen this.
        begun.seen.is_all &= !message.kind().is_silent();
        begun
    }

    /// Begins the span of a call of which it is known when it is over what it belongs to, if any of
    /// the requests that it may belong to is traced.
    fn trace_later(
        &self,
        message: &Message<'_>,
        begun: Option<Begun>,
        began: Nanos,
        observer: &mut Observer,
        recorder: &Recorder,
    ) -> Option<OpenSpan> {
        let begun = begun?;
        let Observer { tracer, random, joins, .. } = &mut *observer;
        let (tracer, joins) = (tracer.as_ref()?, joins.as_ref()?);
        if !joins.contexts(&begun).any(|context| context.is_sampled()) {
            return None;
        }
        let context = tracer.undecided(random);
        let (open, record) = observer.open(context, self.direction, began, recorder)?;
        self.describe(record, message);
        let joins = observer.joins.as_mut()?;
        joins.keep(open.index(), begun);
        let links = joins.links(&begun);
        observer.record_mut(open).put_links(links.into_iter().flatten());
        Some(open)
    }
}

/// How a call is joined that is decided about when it begins: by what it carries, or by what was
/// being served.
fn decided(is_told: bool, is_known: bool, may_belong: bool) -> Join {
    match (is_told, is_known) {
        (true, _) => Join::Explicit,
        (false, true) => Join::Exclusive,
        (false, false) if may_belong => Join::Ambiguous,
        (false, false) => Join::None,
    }
}

/// What travels with a message says about its caller, and the id that it has by this name: in one pass,
/// because some protocols look through a whole message for what travels with it.
fn carried_by<'b>(
    message: &Message<'b>,
    id_name: Option<&[u8]>,
) -> (Extracted<'b>, Option<&'b [u8]>) {
    let mut pairs = [(&b""[..], &b""[..]); PAIRS_MAX];
    let (mut count, mut id) = (0, None);
    message.pairs(|pair| {
        let (name, value) = pair;
        if may_be_trace(name)
            && let Some(place) = pairs.get_mut(count)
        {
            *place = pair;
            count += 1;
        }
        if id.is_none()
            && !value.is_empty()
            && id_name.is_some_and(|it| name.eq_ignore_ascii_case(it))
        {
            id = Some(value);
        }
    });
    let extracted = match count {
        0 => Extracted::default(),
        _ => extract(pairs[..count].iter().copied()),
    };
    (extracted, id)
}
