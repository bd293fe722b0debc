//! HTTP/1 on a connection: the pure halves of `netra_codecs::h1`, driven by the two flows.
//!
//! The request flow is a *gate*: what it has received passes through [`Http::gate`], which holds
//! heads until they are whole and sends them edited; bodies pass as they came. The response flow
//! is *tapped*: bytes are sent first and shown to [`Http::tap`] after, which finishes exchanges; where
//! rules give answers something it is gated, too (`answers.rs`).
//! Whatever is not certain makes the connection opaque, and then it is a relay of bytes.

mod again;
mod answers;
mod aside;
mod copying;
mod held;
mod late;
mod lead;
mod ruled;
mod sends;
mod switch;
mod two;

use self::switch::{heard, obey, sit};
pub(crate) use again::UpstreamEnd;
pub(crate) use two::GOODBYE;

use crate::{
    access::{Known, Tunnel},
    copies::Copies,
    core::Core,
    core::HttpCore,
    editor::{Asked, Open},
    error::{Direction, End},
    exchange::{Asker, Observer, Source},
    gate::Outgoing,
    io::{Io, Token},
    patience::Patience,
    sends::{Gated, is_long, send, send_carry},
    switch::{Switch, resting::Resting, seats::Seats},
    sys::Nanos,
    tap::waits_no_more,
};
use netra_codecs::{
    codec::Way,
    h1::{
        ExchangeId, Exchanges, Framing, Reason, RequestHalf, RequestStep, ResponseHalf,
        ResponseStep,
    },
    h2::Http2,
    trace::{Fault, Flag, Outcome},
};
use netra_perf::{Key, Recorder};
use ruled::{Refused, Ruled};
use sends::send_head;
use std::net::SocketAddr;

/// The HTTP state of one connection.
#[derive(Debug)]
pub(crate) struct Http {
    request: RequestHalf,
    response: ResponseHalf,
    exchanges: Exchanges<Open>,
    direction: Direction,
    /// Who is named as the other end in spans.
    pub(crate) remote: Option<SocketAddr>,
    /// Whose requests they are, for rules; none where there were no rules when it began.
    asker: Option<Box<Asker>>,
    /// The rest of an edited head, to be sent before anything else.
    carry: Vec<u8>,
    /// Bytes that may be sent as they are: gated already.
    cleared: u64,
    /// Bytes of heads that are held, as counted in [`HttpCore::held_bytes`].
    held_bytes: usize,
    /// Heads that have come whole, both ways.
    heads: u32,
    /// How many had come when the deadline was set, of the head that came next.
    timed: Option<u32>,
    /// Why the connection is opaque has been counted.
    is_counted: bool,
    /// What netra itself took of the heads so far.
    overhead_ns: Nanos,
    /// What has failed: told of the exchanges that do not come to their end.
    pub(crate) fault: Option<Fault>,
    /// The exchange that the upstream's end has cut, where one was and it is told of.
    pub(crate) cut: Option<Box<Known>>,
    /// The exchange of which the first bytes of the body are to be looked at.
    looks_at: Option<ExchangeId>,
    /// Another upstream is wanted, or being reached.
    pub(crate) switch: Switch,
    /// The endpoints that rules send its requests to.
    pub(crate) seats: Seats,
    /// The request that was looked at last, which may wait for that.
    waiting: Option<ExchangeId>,
    /// It goes nowhere, and this is what its client is told.
    pub(crate) refused: Option<Box<Refused>>,
    /// Of its answers that may not take for ever; none before there are any.
    pub(crate) patience: Option<Box<Patience>>,
    /// The last request that may be asked again; none before there was one.
    again: Option<Box<again::Again>>,
    /// Upstreams that it may come back to; none before its upstream was changed.
    pub(crate) resting: Option<Box<Resting>>,
    /// What waits on the response way; none where answers are sent first and read after.
    answers: Option<Box<Outgoing>>,
    /// The connection turned out to be one of HTTP/2: it is read here, and the halves idle.
    two: Option<Box<Http2<Open>>>,
    /// Copies of its requests; none before there was one.
    pub(crate) copies: Option<Box<Copies>>,
    /// What its client has sent, while its first request may still lead the connection elsewhere.
    sent: Option<Vec<u8>>,
}

impl Http {
    /// A connection that begins.
    pub(crate) fn new(
        direction: Direction,
        remote: Option<SocketAddr>,
        asker: Option<Asker>,
    ) -> Self {
        Self {
            asker: asker.map(Box::new),
            request: RequestHalf::new(),
            response: ResponseHalf::new(),
            exchanges: Exchanges::new(),
            direction,
            remote,
            carry: Vec::new(),
            cleared: 0,
            held_bytes: 0,
            heads: 0,
            timed: None,
            is_counted: false,
            overhead_ns: 0,
            fault: None,
            cut: None,
            looks_at: None,
            switch: Switch::default(),
            seats: Seats::default(),
            waiting: None,
            refused: None,
            patience: None,
            again: None,
            resting: None,
            answers: None,
            two: None,
            copies: None,
            sent: None,
        }
    }

    /// Takes one step with bytes of the request direction: sends what may go, holds what may not.
    pub(crate) fn gate<I: Io>(
        &mut self,
        core: &mut Core<I>,
        to: Token,
        source: Source,
    ) -> Result<Gated, End> {
        let (now, splice_from) = (core.now, core.limits.splice_from_bytes);
        let Core { io, pool, scratch, http: Some(shared), gates, observer, recorder, .. } = core
        else {
            return Ok(Gated::default());
        };
        let input = source.bytes(pool, scratch);
        if self.cleared > 0 || self.request_is_opaque() {
            return self.send_cleared(io, to, input);
        }
        if self.two.is_some() {
            return self.gate_two(core, to, source);
        }
        let HttpCore { reader, patch, editor, asks_for_last, .. } = &mut **shared;
        let gated = match self.request.step(input, reader, &mut self.exchanges, now) {
            RequestStep::Need => Gated { taken: input.len(), ..Gated::default() },
            RequestStep::Forward(len) => {
                self.look_aside(&input[..len], observer);
                copying::forward(io, to, &input[..len], self)?
            }
            RequestStep::Opaque { reason, held } => {
                let held = held.to_vec();
                if reason == Reason::Http2Preface && self.heads == 0 {
                    self.begin_two(&held, shared, recorder);
                    return Ok(Gated::default());
                }
                self.send_held(io, to, &held)?
            }
            RequestStep::Head { head, consumed, exchange, .. } => {
                self.heads = self.heads.wrapping_add(1);
                let asked = Asked::of(self.direction, self.remote, now, *asks_for_last);
                let mut begun = editor.begin(&head, patch, asked, observer, recorder);
                let rules = self.asker.as_deref().zip(gates.rules.as_deref_mut());
                let mut ruled = rules.map_or_else(Ruled::default, |(asker, rules)| {
                    let told = (now, begun.open.span, &mut *observer);
                    ruled::rule((asker, self.seats.sits(), rules), &head, (patch, recorder), told)
                });
                let is_elsewhere = obey(&mut self.switch, begun.target, &ruled, now);
                begun.open.is_seated = sit(&mut self.seats, &self.switch, begun.target, &mut ruled);
                let keeps = (&mut self.again, &mut self.patience);
                let whose = (exchange, self.exchanges.len() == 1);
                let kept = again::keep(keeps, whose, &ruled, (&head, patch), (now, recorder));
                (self.waiting, self.refused) = (Some(exchange), ruled.refused);
                let open = late::time(&mut self.patience, (ruled.allowed, now), begun.open);
                begin(&mut self.exchanges, exchange, open.promised(ruled.answer));
                let body = body_of(head.framing(), &input[consumed..]);
                let head_len = patch.patched_len(head.bytes().len());
                let (whole, how) = ((head.bytes(), body), (is_elsewhere, kept));
                let sent = send_head(io, to, patch, whole, how, &mut self.carry)?;
                copying::begin(&mut self.copies, ruled.mirror, (&head, patch, body), recorder);
                let body_sent = sent.saturating_sub(head_len);
                self.request.passed(body.len() as u64, &mut self.exchanges);
                self.looks_at = aside::look(body, &mut self.exchanges, exchange, observer);
                self.cleared = (body.len() - body_sent) as u64;
                self.took(exchange, io.now().saturating_sub(now));
                Gated {
                    taken: consumed + body_sent,
                    is_full: !is_elsewhere && sent < head_len + body.len(),
                    is_long: is_long(self.request.passable(), splice_from),
                }
            }
        };
        self.settle(shared, recorder);
        Ok(gated)
    }

    /// What netra itself took of a head.
    #[inline]
    fn took(&mut self, id: ExchangeId, took: Nanos) {
        self.overhead_ns += took;
        if let Some(exchange) = self.exchanges.get_mut(id) {
            exchange.data.add_overhead(took);
        }
    }

    /// Looks at the first bytes of a body, where somebody wants to know what they say.
    #[inline]
    fn look_aside(&mut self, body: &[u8], observer: &mut Observer) {
        if let Some(exchange) = self.looks_at.take() {
            self.looks_at = aside::look(body, &mut self.exchanges, exchange, observer);
        }
    }

    /// Sends bytes that no half has to see.
    #[inline]
    fn send_cleared(&mut self, io: &mut impl Io, to: Token, input: &[u8]) -> Result<Gated, End> {
        let most = if self.request_is_opaque() { u64::MAX } else { self.cleared };
        let len = input.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let sent = send(io, to, &input[..len])?;
        self.cleared = self.cleared.saturating_sub(sent as u64);
        Ok(Gated { taken: sent, is_full: sent < len, is_long: false })
    }

    /// Reads along with bytes of the response direction that have been sent. Returns whether a
    /// body has begun of which so much is left that splicing pays.
    pub(crate) fn tap<I: Io>(&mut self, core: &mut Core<I>, source: Source) -> bool {
        let Core { io, pool, scratch, http: Some(shared), observer, recorder, now, limits, .. } =
            core
        else {
            return false;
        };
        let mut rest = source.bytes(pool, scratch);
        if self.two.is_some() || self.begins_two(rest) {
            if self.two.is_none() {
                let held = self.request.end(&mut self.exchanges).to_vec();
                self.become_two(&held, shared, recorder);
            }
            return self.tap_two(core, source, 0);
        }
        let (len, mut upgrades) = (rest.len(), false);
        let mut has_begun = false;
        // The bytes have been sent by now: that is when a response is whole.
        let sent_at = io.now();
        loop {
            let reader = &mut shared.reader;
            match self.response.step(rest, reader, &mut self.exchanges) {
                ResponseStep::Need | ResponseStep::Opaque(_) => break,
                ResponseStep::Body(len) => rest = &rest[len..],
                ResponseStep::Head { head, consumed, exchange, .. } => {
                    upgrades = two::is_upgrade(&head);
                    again::answered(&mut self.again, &mut self.resting, &head);
                    rest = &rest[consumed..];
                    has_begun = true;
                    self.heads = self.heads.wrapping_add(1);
                    aside::head_sent(&mut self.exchanges, exchange, sent_at, observer);
                    self.took(exchange, sent_at.saturating_sub(*now));
                }
                ResponseStep::Finish(done) if upgrades => {
                    let read = len - rest.len();
                    self.upgrade_to_two(done, shared, recorder);
                    return self.tap_two(core, source, read);
                }
                ResponseStep::Finish(done) => {
                    heard(&self.seats, &done, Outcome::Whole, sent_at);
                    let told = (&mut *observer, &**recorder);
                    waits_no_more(&mut self.patience, done.data.timed);
                    aside::finish(&done, Outcome::Whole, self.direction, sent_at, told);
                    // As nearly always: no further step would find anything.
                    if rest.is_empty() && self.exchanges.sealed().is_none() {
                        break;
                    }
                }
            }
        }
        self.settle(shared, recorder);
        has_begun && is_long(self.response.passable(), limits.splice_from_bytes)
    }

    /// What netra itself took of its heads.
    pub(crate) fn overhead_ns(&self) -> Nanos {
        self.overhead_ns
    }

    /// Bytes of the request direction that may pass from here without being shown.
    pub(crate) fn request_passable(&self) -> u64 {
        if self.copies.as_deref().is_some_and(Copies::is_under_way) {
            return self.cleared;
        }
        let passable = match &self.two {
            Some(two) => two.passable(Way::Request),
            None => self.request.passable(),
        };
        self.cleared.saturating_add(passable)
    }

    /// Bytes of the response direction that may pass from here without being shown.
    pub(crate) fn response_passable(&self) -> u64 {
        let passable = match &self.two {
            Some(two) => two.passable(Way::Response),
            None => self.response.passable(),
        };
        let cleared = self.answers.as_deref().map_or(0, |out| out.cleared);
        cleared.saturating_add(passable)
    }

    /// Bytes of the request direction have passed.
    pub(crate) fn request_passed(&mut self, count: u64) {
        let cleared = count.min(self.cleared);
        self.cleared -= cleared;
        if let Some(two) = &mut self.two {
            return two.passed(Way::Request, count - cleared);
        }
        self.request.passed(count - cleared, &mut self.exchanges);
    }

    /// Bytes of the response direction have passed.
    pub(crate) fn response_passed<I: Io>(&mut self, core: &mut Core<I>, mut count: u64) {
        if let Some(out) = &mut self.answers {
            let cleared = count.min(out.cleared);
            out.cleared -= cleared;
            count -= cleared;
        }
        match &mut self.two {
            Some(two) => two.passed(Way::Response, count),
            None => self.response.passed(count, &mut self.exchanges),
        }
        self.tap(core, Source::Nothing);
    }

    /// No exchange is open, nothing of one is under way, and none waits for another upstream.
    pub(crate) fn is_between(&self) -> bool {
        self.two.as_deref().is_none_or(Http2::is_idle)
            && self.exchanges.is_empty()
            && self.exchanges.sealed().is_none()
            && self.request.is_between()
            && self.response.held_len() == 0
            && self.carry.is_empty()
            && self.cleared == 0
            && !self.has_unsent_answers()
            && !self.is_switching()
    }

    /// Part of an edited head waits to be sent.
    pub(crate) fn has_carry(&self) -> bool {
        !self.carry.is_empty()
    }

    /// Sends what is left of an edited head.
    pub(crate) fn send_carry<I: Io>(
        &mut self,
        core: &mut Core<I>,
        to: Token,
    ) -> Result<Gated, End> {
        let Core { io, http: Some(shared), recorder, .. } = core else {
            return Ok(Gated::default());
        };
        send_carry(&mut self.carry, io, to)?;
        self.settle(shared, recorder);
        Ok(Gated { is_full: self.has_carry(), ..Gated::default() })
    }

    /// The tap has turned opaque, and the gate still holds what it has to send.
    pub(crate) fn must_let_go(&self) -> bool {
        self.sealed().is_some() && !self.request_is_opaque()
    }

    /// Names the upstream that was dialled in the span of the request that waits for it.
    pub(crate) fn name_remote<I: Io>(&mut self, core: &mut Core<I>) {
        let first = self.two.as_deref().and_then(|two| two.streams().next()?.data.span);
        let front = self.exchanges.front_mut().and_then(|front| front.data.span);
        if let Some(open) = front.or(first) {
            let record = core.observer.record_mut(open);
            (record.remote, record.tries) = (self.remote, self.seats.tries());
        }
    }

    /// Nothing is left to do: from here on the connection is bytes.
    pub(crate) fn is_over(&self) -> bool {
        let is_opaque = match &self.two {
            Some(two) => two.is_opaque(Way::Request),
            None => self.request.is_opaque() && self.response.is_opaque(),
        };
        let is_sent = self.carry.is_empty() && !self.carries_answers();
        is_opaque && is_sent && !self.is_switching() && self.copies.is_none()
    }

    /// The upstream is being changed: nothing may be sent to it.
    pub(crate) fn is_switching(&self) -> bool {
        self.switch.is_under_way()
    }

    /// The downstream has ended its stream: what was held of a head goes out as it came.
    pub(crate) fn end_request<I: Io>(&mut self, core: &mut Core<I>) {
        if self.two.is_some() {
            return self.end_request_two(core);
        }
        self.asks_no_more();
        if self.end_parted() {
            return;
        }
        let held = self.request.end(&mut self.exchanges);
        self.carry.extend_from_slice(held);
        self.request.release_memory();
        let Core { http: Some(shared), recorder, .. } = core else { return };
        self.settle(shared, recorder);
    }

    /// The upstream has ended its stream: a response may be whole by that, all others never will.
    pub(crate) fn end_response<I: Io>(&mut self, core: &mut Core<I>) {
        let Core { observer, recorder, now, .. } = core;
        let told = (&mut *observer, &**recorder);
        if let Some(done) = self.response.end(&mut self.exchanges) {
            heard(&self.seats, &done, Outcome::Whole, *now);
            aside::finish(&done, Outcome::Whole, self.direction, *now, told);
        }
        if !self.exchanges.is_empty() {
            self.fault = Some(Fault::of(Flag::UpstreamGone));
            self.cut = self.oldest(observer);
        }
        self.give_up(Outcome::UpstreamGone, *now, observer, recorder);
        self.let_answer_go();
    }

    /// What is known of the request that has waited longest.
    pub(crate) fn oldest(&mut self, observer: &mut Observer) -> Option<Box<Known>> {
        let span = self.exchanges.front_mut()?.data.span?;
        Some(Box::new(Known::of(observer.record_mut(span))))
    }

    /// What has been asked of an upstream that was not reached, as far as it is there: its first
    /// head, which goes nowhere.
    pub(crate) fn hear<I: Io>(&mut self, core: &mut Core<I>, source: Source) {
        let Core { pool, scratch, http: Some(shared), observer, recorder, now, .. } = core else {
            return;
        };
        let HttpCore { reader, patch, editor, .. } = &mut **shared;
        let input = source.bytes(pool, scratch);
        let step = self.request.step(input, reader, &mut self.exchanges, *now);
        let RequestStep::Head { head, exchange, .. } = step else { return };
        let asked = Asked::of(self.direction, self.remote, *now, false);
        let begun = editor.begin(&head, patch, asked, observer, recorder);
        if let Some(exchange) = self.exchanges.get_mut(exchange) {
            exchange.data = begun.open;
        }
    }

    /// The connection has ended, or is no longer HTTP: exchanges that are open will not be
    /// finished.
    pub(crate) fn end<I: Io>(&mut self, core: &mut Core<I>, outcome: Outcome) {
        let Core { http: Some(shared), observer, recorder, now, .. } = core else { return };
        self.give_up(outcome, *now, observer, recorder);
        shared.held_bytes -= std::mem::take(&mut self.held_bytes);
        (self.carry, self.answers, self.again) = (Vec::new(), None, None);
    }

    /// What it was read as, and why it is no longer.
    pub(crate) fn tunnel(&self) -> Option<Tunnel> {
        let reason = self.sealed()?;
        Some(Tunnel { protocol: self.name(), reason: reason.name() })
    }

    /// The connection is no longer HTTP.
    pub(crate) fn into_opaque<I: Io>(mut self, core: &mut Core<I>) {
        self.end(core, Outcome::Opaque);
    }

    fn give_up(
        &mut self,
        outcome: Outcome,
        now: Nanos,
        observer: &mut Observer,
        recorder: &Recorder,
    ) {
        let mut how = outcome;
        for open in self.exchanges.drain() {
            heard(&self.seats, &open, how, now);
            // A connection that ends is one failure, however many wait.
            how = Outcome::Stopped;
            if let Some(span) = open.data.span {
                observer.record_mut(span).fault = self.fault;
            }
            aside::finish(&open, outcome, self.direction, now, (&mut *observer, recorder));
        }
        self.give_up_two(outcome, now, observer, recorder);
    }

    /// Bytes that the connection keeps, heads and what it takes to read them.
    #[inline]
    fn held_len(&self) -> usize {
        let halves = self.request.held_len() + self.response.held_len() + self.carry.len();
        let answers = self.answers.as_deref().map_or(0, Outgoing::kept);
        let answers = answers + self.again.as_deref().map_or(0, again::Again::storage);
        halves + answers + self.two.as_deref().map_or(0, Http2::storage)
    }

    fn count_held(&mut self, shared: &mut HttpCore) {
        let held = self.held_len();
        shared.held_bytes = shared.held_bytes - self.held_bytes + held;
        self.held_bytes = held;
    }

    /// Counts what the last step has changed, and stops holding where too much is held.
    #[inline]
    fn settle(&mut self, shared: &mut HttpCore, recorder: &Recorder) {
        if self.held_len() != self.held_bytes || self.sealed().is_some() {
            self.settle_change(shared, recorder);
        }
    }

    #[cold]
    fn settle_change(&mut self, shared: &mut HttpCore, recorder: &Recorder) {
        let before = self.held_bytes;
        // What is carried has to be sent: it counts, but nothing is won by holding no more.
        let may_stop = self.carry.is_empty();
        self.count_held(shared);
        let is_much = shared.is_tight || shared.held_bytes > shared.held_bytes_max;
        if is_much {
            self.keep_none(shared, recorder);
        }
        if self.held_bytes > before && may_stop && is_much {
            self.seal(Reason::HeldTooMuch);
            self.count_held(shared);
        }
        if let Some(reason) = self.sealed()
            && !std::mem::replace(&mut self.is_counted, true)
        {
            recorder.bump(Key::opaque(reason as usize));
        }
    }
}

/// What an exchange carries from here on: known before anything is sent, so that its span is found
/// where that fails.
#[inline]
fn begin(exchanges: &mut Exchanges<Open>, id: ExchangeId, open: Open) {
    if let Some(exchange) = exchanges.get_mut(id) {
        exchange.data = open;
    }
}

/// The part of a body that came behind its head, as far as its length is known: it goes out with it.
#[inline]
fn body_of(framing: Framing, behind: &[u8]) -> &[u8] {
    match framing {
        Framing::Length(len) => {
            &behind[..behind.len().min(usize::try_from(len).unwrap_or(usize::MAX))]
        }
        Framing::Chunked | Framing::UntilClose => &[],
    }
}

/// How exchanges end that were open when their connection ended.
pub(crate) fn outcome_of(end: End) -> Outcome {
    use crate::io::Side;
    match end {
        End::Reset(Side::Downstream) | End::Failed(Side::Downstream, _) => Outcome::DownstreamGone,
        End::Eof | End::Reset(Side::Upstream) | End::Failed(Side::Upstream, _) => {
            Outcome::UpstreamGone
        }
        End::DialFailed(_) | End::DialTimeout => Outcome::Unreachable,
        End::HalfCloseLinger | End::IdleTimeout | End::AnswerTimeout => Outcome::Timeout,
        End::DrainDeadline | End::Drained | End::Netra | End::Refused => Outcome::Stopped,
    }
}

const _: () = assert!(size_of::<Http>() <= 512);
