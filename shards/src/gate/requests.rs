//! The request way of a gate: each request is decided about, edited and sent, refused, or kept for a
//! while.

use super::{
    Gate, edit,
    legs::Legs,
    outgoing::{Edited, Outgoing},
    replies::Replies,
};
use crate::{
    again::Again,
    copies::Copies,
    core::Core,
    correlate::Correlation,
    error::End,
    exchange::{Asker, Decide, Gates, MirrorTo, Observer, Ruling, Scraps, Source, Wants, Writing},
    io::{Io, Token},
    patience::{Allowed, Patience},
    sends::{Gated, is_long},
    switch::{Switch, goal::Goal},
    sys::Nanos,
    tap::{Carried, Of, Tapped},
};
use netra_codecs::{
    Limits,
    codec::{Edits, Head, Kind, Leaves, Left, Open, Refusal, Way, Why},
    tap::{Message, Step},
    trace::{Outcome, SpanText},
};
use netra_perf::{Key, Recorder};

/// What a client is told whose upstream has ended before it answered.
const ENDED: &str = "netra: its upstream has ended before it answered";

/// How far a gate has come with its input.
#[derive(Debug, Default)]
pub(crate) struct Run<'r> {
    /// Bytes that have been read.
    pub(crate) at: usize,
    /// Messages that have begun, whose exchanges are the newest.
    pub(crate) begun: usize,
    /// Somebody has sent, or kept, all that was read: offered and sent.
    pub(crate) sent: Option<(usize, usize)>,
    /// The last message, which waits for another upstream.
    pub(super) parked: Vec<u8>,
    /// Copies of what goes out; none where nothing may be copied.
    pub(super) copies: Option<&'r mut Option<Box<Copies>>>,
    /// Where the message that begins now is copied to.
    pub(super) aims: Aims,
    /// One that was to be kept is too long.
    pub(super) has_lost: bool,
}

/// Where copies of a message go.
#[derive(Debug, Default)]
pub(crate) struct Aims {
    /// To a mirror.
    pub(super) begins: Option<MirrorTo>,
    /// Requests that may be sent again; none before there was one.
    pub(super) again: Option<Box<Again>>,
    /// The number that it has among them, if it is kept.
    pub(super) keeps: u8,
}

/// What all connections share and deciding needs.
struct Shared<'c> {
    gates: &'c mut Gates,
    correlation: Option<&'c mut Correlation>,
    observer: &'c mut Observer,
    recorder: &'c Recorder,
    now: Nanos,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    Refused,
    Waits,
    /// It waits for another upstream.
    Moves,
}

impl Gate {
    /// Sends requests: in one call as many as go out as they came, and the first that does not. So many
    /// bytes of the source have gone before.
    pub(super) fn pass_requests<I: Io>(
        &mut self,
        core: &mut Core<I>,
        (to, before): (Token, usize),
        source: Source,
    ) -> Result<Gated, End> {
        let Core { io, pool, scratch, observer, recorder, taps, gates, http, now, limits, .. } =
            core;
        let input = &source.bytes(pool, scratch)[before..];
        let correlation = http.as_deref_mut().map(|http| &mut http.editor.correlation);
        let mut shared = Shared { gates, correlation, observer, recorder, now: *now };
        let (lane, mut head) = (self.lane(), Head::default());
        let Self { tapped, request: out, copies, .. } = self;
        let (mut run, is_within) =
            (Run::begun(copies, tapped, taps), tapped.tap.passable(Way::Request) > 0);
        while run.sent.is_none() && (run.at < input.len() || tapped.tap.has_ended(Way::Request)) {
            let (rest, is_alone) = (run.rest(input, &tapped.tap), tapped.tap.open_count() == 0);
            match tapped.tap.step(Way::Request, rest, &taps.limits, *now, &mut head) {
                Step::Need => run.hold(out, io, to, input)?,
                Step::Body(consumed) | Step::Late(consumed) | Step::Answered { consumed, .. } => {
                    run.at += consumed;
                }
                Step::Aside { consumed, message } => {
                    let whose = (&mut *shared.gates, &mut self.switch, &mut self.left);
                    run.aside(out, io, to, input, (&message, consumed), whose)?;
                }
                Step::Opened { consumed, message, exchange } => {
                    (run.at, run.begun) = (run.at + consumed, run.begun + 1);
                    let judged = Judged {
                        of: &mut tapped.of,
                        asker: &self.asker,
                        wants: &mut self.wants,
                        replies: &mut self.replies,
                        switch: &mut self.switch,
                        old_goal: &mut self.old_goal,
                        legs: &mut self.legs,
                        left: &mut self.left,
                        cuts_answers: &mut self.cuts_answers,
                        patience: &mut tapped.patience,
                        must_close: &mut self.must_close,
                        aims: &mut run.aims,
                        is_alone,
                    };
                    exchange.lane = lane;
                    let fate = judged.judge(&message, exchange, &mut shared);
                    self.drops = fate == Fate::Refused && message.behind() == 0;
                    run.on(out, io, to, input, (&message, consumed, shared.gates), fate)?;
                }
                Step::Finished { consumed, exchange, .. } => {
                    run.at += consumed;
                    finish_one(tapped, &mut self.legs, exchange, &mut shared);
                }
                Step::Tunnel(reason) => {
                    tapped.give_up(reason, recorder);
                    self.switch.needs_any();
                    break;
                }
            }
        }
        finish_untold(tapped, &taps.limits, &mut shared);
        self.messages = self.messages.wrapping_add(u32::try_from(run.begun).unwrap_or(0));
        self.drops &= tapped.tap.is_within_message(Way::Request);
        note_waiting(tapped, run.begun)?;
        let gated = run.finish(out, io, to, input)?;
        run.leave(&mut self.parked, input, (tapped, out), recorder);
        tapped.add_overhead(run.begun, io.now().saturating_sub(*now));
        let passable = tapped.tap.passable(Way::Request);
        let may_be_long = (run.begun > 0 || !is_within) && !self.drops;
        Ok(Gated { is_long: may_be_long && is_long(passable, limits.splice_from_bytes), ..gated })
    }

    /// Throws the rest of a refused request away.
    pub(super) fn drop_rest<I: Io>(
        &mut self,
        core: &mut Core<I>,
        source: Source,
    ) -> Result<Gated, End> {
        let Core { pool, scratch, observer, recorder, taps, now, .. } = core;
        let input = source.bytes(pool, scratch);
        let mut head = Head::default();
        let tapped = &mut self.tapped;
        let taken = match tapped.tap.step(Way::Request, input, &taps.limits, *now, &mut head) {
            Step::Need => input.len(),
            Step::Body(consumed)
            | Step::Late(consumed)
            | Step::Answered { consumed, .. }
            | Step::Aside { consumed, .. }
            | Step::Opened { consumed, .. } => consumed,
            Step::Finished { consumed, exchange, .. } => {
                tapped.of.finish_request(exchange, *now, observer, recorder);
                consumed
            }
            Step::Tunnel(reason) => {
                tapped.give_up(reason, recorder);
                return Err(End::Refused);
            }
        };
        self.drops = tapped.tap.is_within_message(Way::Request);
        Ok(Gated { taken, ..Gated::default() })
    }
}

/// A request is over without an answer.
fn finish_one(
    tapped: &Tapped,
    legs: &mut Option<Box<Legs>>,
    exchange: netra_codecs::codec::Exchange<Carried>,
    shared: &mut Shared<'_>,
) {
    forget_words(legs, &exchange.data);
    let Shared { observer, recorder, now, .. } = shared;
    tapped.of.finish_request(exchange, *now, observer, recorder);
}

/// An exchange is over whose leg may not end without a word.
#[inline]
pub(super) fn forget_words(legs: &mut Option<Box<Legs>>, data: &Carried) {
    if let (Some(legs), 1..) = (legs, data.words) {
        legs.words.over(data.words);
    }
}

/// A request that is never answered is over with its last byte.
fn finish_untold(tapped: &mut Tapped, limits: &Limits, shared: &mut Shared<'_>) {
    let mut head = Head::default();
    let Shared { observer, recorder, now, .. } = shared;
    while tapped.tap.has_ended(Way::Request)
        && let Step::Finished { exchange, .. } =
            tapped.tap.step(Way::Request, b"", limits, *now, &mut head)
    {
        tapped.of.finish_request(exchange, *now, observer, recorder);
    }
}

impl Run<'_> {
    /// Copies what is to be copied, and leaves a message there that waits for another upstream, if there
    /// is one.
    fn leave(
        &mut self,
        parked: &mut Vec<u8>,
        input: &[u8],
        (tapped, out): (&mut Tapped, &mut Outgoing),
        recorder: &Recorder,
    ) {
        self.keep_rest(input, tapped, out, recorder);
        self.copy(input, &tapped.tap);
        if !self.parked.is_empty() {
            *parked = std::mem::take(&mut self.parked);
        }
    }

    /// A request of which so many bytes of the input are, and what becomes of it. What has begun behind
    /// it is not the rest of it.
    fn on(
        &mut self,
        out: &mut Outgoing,
        io: &mut impl Io,
        to: Token,
        input: &[u8],
        (message, consumed, gates): (&Message<'_>, usize, &mut Gates),
        fate: Fate,
    ) -> Result<(), End> {
        self.lend(fate, &mut gates.scraps);
        let own = (message.bytes(), &*gates.edits, consumed);
        match message.behind() {
            0 => self.go_on(out, io, to, input, own, fate),
            behind => self.part(out, io, to, input, (own, behind), fate),
        }
    }

    /// A message that nobody decides about: where nobody is dialled yet, it waits for whoever it is to go to.
    fn aside(
        &mut self,
        out: &mut Outgoing,
        io: &mut impl Io,
        to: Token,
        input: &[u8],
        (message, consumed): (&Message<'_>, usize),
        (gates, switch, left): (&mut Gates, &mut Switch, &mut Left),
    ) -> Result<(), End> {
        left.note(message.leaves());
        self.at += consumed;
        if !switch.is_parted || switch.is_under_way() {
            self.aims.again.iter_mut().for_each(|again| again.note_other());
            return Ok(());
        }
        switch.needs_any();
        gates.edits.clear();
        self.on(out, io, to, input, (message, consumed, gates), Fate::Moves)
    }

    /// A message that moves needs room where it waits.
    #[inline]
    fn lend(&mut self, fate: Fate, scraps: &mut Scraps) {
        if fate == Fate::Moves {
            self.parked = scraps.lend();
        }
    }

    /// The head that begins behind what was read is not whole.
    pub(crate) fn hold(
        &mut self,
        out: &mut Outgoing,
        io: &mut impl Io,
        to: Token,
        input: &[u8],
    ) -> Result<(), End> {
        self.sent = Some(match self.at {
            0 => (0, 0),
            at => out.send(io, to, &input[..at], None)?,
        });
        out.held.extend_from_slice(&input[self.at..]);
        self.at = input.len();
        Ok(())
    }

    /// Sends what was read; what comes next, so many bytes of the input, goes to nobody.
    pub(super) fn skip(
        &mut self,
        out: &mut Outgoing,
        io: &mut impl Io,
        to: Token,
        input: &[u8],
        count: usize,
    ) -> Result<(), End> {
        self.sent = Some(if self.at == 0 {
            // What is held is its beginning.
            out.held = Vec::new();
            (0, 0)
        } else {
            out.send(io, to, &input[..self.at], None)?
        });
        self.at += count;
        Ok(())
    }

    /// Sends what was read, the last of which is this message: its head, the edits, and how many bytes
    /// of the input belong to it. Nothing is sent where it goes out as it came: others may follow.
    pub(crate) fn go_on(
        &mut self,
        out: &mut Outgoing,
        io: &mut impl Io,
        to: Token,
        input: &[u8],
        (head, edits, consumed): (&[u8], &Edits, usize),
        fate: Fate,
    ) -> Result<(), End> {
        let begin = self.at - consumed;
        let of_message = &input[begin..self.at];
        if fate == Fate::Passes && edits.is_empty() {
            self.copy_in_place(begin, &out.held);
            return Ok(());
        }
        let held = std::mem::take(&mut out.held);
        // What is held is the beginning of the first message that was read.
        let (before, own) = if begin == 0 { (&[][..], &held[..]) } else { (&held[..], &[][..]) };
        let message = Edited::of(head, edits, own, of_message);
        if fate == Fate::Passes && message.is_none() {
            self.copy_in_place(begin, &held);
            out.held = held;
            return Ok(());
        }
        let plain = [before, &input[..begin]];
        self.become_of(fate, out, io, to, (plain, [own, of_message], message))?;
        self.copy_apart(input, [own, of_message], message);
        Ok(())
    }

    /// The same, of a message that took some bytes of the next one to be known: those are held on.
    #[cold]
    pub(super) fn part(
        &mut self,
        out: &mut Outgoing,
        io: &mut impl Io,
        to: Token,
        input: &[u8],
        ((head, edits, consumed), behind): ((&[u8], &Edits, usize), usize),
        fate: Fate,
    ) -> Result<(), End> {
        let mut own = std::mem::take(&mut out.held);
        own.extend_from_slice(&input[self.at - consumed..self.at]);
        let next = own.split_off(own.len().saturating_sub(behind));
        let message = Edited::of(head, edits, &own, &[]);
        if fate == Fate::Passes && message.is_none() {
            self.sent = Some(out.send_all(io, to, [&own, &[]], None)?);
        } else {
            self.become_of(fate, out, io, to, ([&[]; 2], [&own, &[]], message))?;
        }
        self.copy_apart(input, [&own, &[]], message);
        out.held = next;
        Ok(())
    }

    /// Sends what is before a message, and the message if it passes.
    fn become_of(
        &mut self,
        fate: Fate,
        out: &mut Outgoing,
        io: &mut impl Io,
        to: Token,
        (plain, own, message): ([&[u8]; 2], [&[u8]; 2], Option<Edited<'_>>),
    ) -> Result<(), End> {
        self.sent = Some(match (fate, message) {
            (Fate::Passes, message) => out.send_all(io, to, plain, message)?,
            (Fate::Refused, _) => out.send_before_wait(io, to, plain)?,
            (Fate::Waits, message) => {
                let sent = out.send_before_wait(io, to, plain)?;
                match message {
                    Some(message) => out.keep(message.slices()),
                    None => out.keep(own.into_iter()),
                }
                sent
            }
            // What is carried is for the upstream that is left.
            (Fate::Moves, message) => {
                let sent = out.send_all(io, to, plain, None)?;
                match message {
                    Some(message) => {
                        message.slices().for_each(|it| self.parked.extend_from_slice(it))
                    }
                    None => own.iter().for_each(|it| self.parked.extend_from_slice(it)),
                }
                sent
            }
        });
        Ok(())
    }

    /// Sends what was read, unless somebody has.
    pub(crate) fn finish(
        &self,
        out: &mut Outgoing,
        io: &mut impl Io,
        to: Token,
        input: &[u8],
    ) -> Result<Gated, End> {
        let at = self.at;
        if let Some((offered, sent)) = self.sent {
            return Ok(Gated { taken: at, is_full: sent < offered, is_long: false });
        }
        if at > 0 && (!out.held.is_empty() || out.would_gather(at)) {
            let (offered, sent) = out.send(io, to, &input[..at], None)?;
            return Ok(Gated { taken: at, is_full: sent < offered, is_long: false });
        }
        out.cleared = at as u64;
        let sent = out.send_cleared(io, to, input, false)?;
        Ok(Gated { taken: sent, is_full: sent < at, is_long: false })
    }
}

/// What a connection has that deciding about its requests needs.
pub(super) struct Judged<'g> {
    pub(super) of: &'g mut Of,
    pub(super) asker: &'g Asker,
    wants: &'g mut Wants,
    pub(super) replies: &'g mut Replies,
    pub(super) switch: &'g mut Switch,
    /// Where requests go before this one.
    pub(super) old_goal: &'g mut Option<Box<Goal>>,
    legs: &'g mut Option<Box<Legs>>,
    pub(super) left: &'g mut Left,
    pub(super) cuts_answers: &'g mut bool,
    pub(super) patience: &'g mut Option<Box<Patience>>,
    must_close: &'g mut bool,
    /// Where copies of it go.
    pub(super) aims: &'g mut Aims,
    /// No earlier request waits for its answer.
    is_alone: bool,
}

impl Judged<'_> {
    /// Decides about a request, begins its exchange, and makes its edits.
    fn judge(
        mut self,
        message: &Message<'_>,
        exchange: &mut Open<Carried>,
        shared: &mut Shared<'_>,
    ) -> Fate {
        let Shared { gates, correlation, observer, recorder, now } = shared;
        let (now, recorder) = (*now, *recorder);
        let Gates { pairs, writes, decides, rules, scraps, .. } = &mut **gates;
        pairs.clear();
        let decider: Option<&mut dyn Decide> = match (decides, rules) {
            (Some(decides), _) => Some(&mut **decides),
            (None, rules) => rules.as_deref_mut().map(|rules| rules as _),
        };
        let ruling = match decider.filter(|_| self.wants.decides) {
            Some(it) => {
                let asked = (self.asker, self.of.seats.sits());
                it.decide(message, asked, pairs, now, observer.random.u64(..))
            }
            None => Ruling::default(),
        };
        let writing = writes.as_ref().filter(|_| self.wants.writes).map(|how| Writing {
            how,
            correlation: correlation.as_deref_mut(),
            pairs,
            direction: self.asker.direction,
            now,
        });
        let began = exchange.opened_ns;
        exchange.data = self.of.begin(message, (began, now), observer, recorder, writing);
        if let (Some(span), false) = (exchange.data.span, ruling.rule.is_empty()) {
            observer.record_mut(span).put(SpanText::Rule, ruling.rule.as_bytes());
        }
        let waits = ruling.delay_ns > 0;
        if waits {
            self.switch.until = Some(now.saturating_add(ruling.delay_ns));
        }
        if let Some(refusal) = ruling.refusal {
            recorder.bump(Key::refused(refusal.why as usize));
            exchange.refuse();
            exchange.data.is_refused = true;
            let refusal = Refusal { is_alone: self.is_alone, ..refusal };
            if !exchange.kind.is_silent() {
                self.replies.add(refusal.why, scraps, |out| message.reply(&refusal, out));
                self.replies.last_waits = waits;
            } else if message.leaves() != Leaves::Nothing {
                // What comes behind it would mean something else without it.
                *self.must_close = true;
            }
            return Fate::Refused;
        }
        if ruling.answer != 0 && !exchange.kind.is_silent() {
            exchange.data.answer = ruling.answer;
            *self.cuts_answers = true;
        }
        self.time(message, exchange, (ruling.allowed, now));
        let (to, mirror, retry) = (ruling.to, ruling.mirror, ruling.retry);
        let moves = self.moves(message, to, gates, recorder);
        exchange.data.is_seated = self.of.seats.begin();
        mirror.inspect(|to| self.copy(*to, (message, exchange.kind), recorder));
        self.keep(message, exchange, retry, (now, recorder));
        self.left.note(message.leaves());
        edit(message, gates, self.wants, recorder);
        if let Some(target) = moves {
            self.park(message, exchange, target.as_ref(), &mut gates.scraps);
            return Fate::Moves;
        }
        self.keep_words(message, exchange);
        if waits { Fate::Waits } else { Fate::Passes }
    }

    /// Takes note of what the client is told if the leg ends that a request goes by.
    #[inline]
    fn keep_words(&mut self, message: &Message<'_>, exchange: &mut Open<Carried>) {
        if let Some(legs) = self.legs
            && exchange.kind != Kind::Oneway
        {
            let refusal = Refusal { why: Why::Unreachable, text: ENDED, is_alone: false };
            exchange.data.words = legs.words.add(|out| message.reply(&refusal, out));
        }
    }
}

impl Judged<'_> {
    /// Takes note of how long the answer to a request may take.
    #[inline]
    fn time(
        &mut self,
        message: &Message<'_>,
        exchange: &mut Open<Carried>,
        (allowed, now): (Allowed<'_>, Nanos),
    ) {
        let may_wait = matches!(exchange.kind, Kind::Request | Kind::Handshake);
        if allowed.is_timed() && may_wait {
            let refusal =
                Refusal { why: Why::TimedOut, text: allowed.text, is_alone: self.is_alone };
            let patience = self.patience.get_or_insert_default();
            let words = |out: &mut Vec<u8>| message.reply(&refusal, out);
            exchange.data.timed = patience.add(now, allowed, words);
        }
    }
}

/// Requests have begun: a part of the last is still to come, perhaps. Ends the connection where nobody
/// could tell their answers from late ones.
#[inline]
fn note_waiting(tapped: &mut Tapped, begun: usize) -> Result<(), End> {
    let Some(patience) = &mut tapped.patience else { return Ok(()) };
    if tapped.tap.is_confused() {
        return Err(End::AnswerTimeout);
    }
    if begun > 0 && tapped.tap.is_within_message(Way::Request) {
        tapped.tap.newest(1).for_each(|open| patience.is_unsent(open.data.timed));
    }
    Ok(())
}

impl Of {
    /// A request is over that has no answer, or will have none.
    fn finish_request(
        &self,
        mut done: netra_codecs::codec::Exchange<Carried>,
        now: Nanos,
        observer: &mut Observer,
        recorder: &Recorder,
    ) {
        if done.data.is_refused {
            done.outcome = netra_codecs::codec::Outcome::ProtocolError;
        }
        self.finish(&done, b"", (Outcome::Whole, now), observer, recorder);
    }
}
