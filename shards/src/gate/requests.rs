//! The request way of a gate: each request is decided about, edited and sent, refused, or kept for a
//! while.

use super::{
    Gate, edit,
    outgoing::{Edited, Outgoing},
    replies::Replies,
};
use crate::{
    core::Core,
    correlate::Correlation,
    error::End,
    exchange::{Asker, Decide, Gates, Observer, Ruling, Source, Wants, Writing},
    io::{Io, Token},
    sends::{Gated, is_long},
    switch::Switch,
    sys::Nanos,
    tap::{Carried, Of},
};
use netra_codecs::{
    codec::{Edits, Head, Kind, Leaves, Left, Open, Refusal, Way},
    tap::{Message, Step},
    trace::{Outcome, SpanText},
};
use netra_perf::{Key, Recorder};

/// How far a gate has come with its input.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Bytes that have been read.
    pub(super) at: usize,
    /// Messages that have begun, whose exchanges are the newest.
    pub(super) begun: usize,
    /// Somebody has sent, or kept, all that was read: offered and sent.
    pub(super) sent: Option<(usize, usize)>,
    /// The last message, which waits for another upstream.
    parked: Vec<u8>,
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
pub(super) enum Fate {
    Passes,
    Refused,
    Waits,
    /// It waits for another upstream.
    Moves,
}

impl Gate {
    /// Sends requests: in one call as many as go out as they came, and the first that does not.
    pub(super) fn pass_requests<I: Io>(
        &mut self,
        core: &mut Core<I>,
        to: Token,
        source: Source,
    ) -> Result<Gated, End> {
        let Core { io, pool, scratch, observer, recorder, taps, gates, http, now, limits, .. } =
            core;
        let input = source.bytes(pool, scratch);
        let correlation = http.as_deref_mut().map(|http| &mut http.editor.correlation);
        let mut shared = Shared { gates, correlation, observer, recorder, now: *now };
        let (mut run, mut head) = (Run::default(), Head::default());
        let Self { tapped, request: out, .. } = self;
        let is_within = tapped.tap.passable(Way::Request) > 0;
        while run.sent.is_none() && (run.at < input.len() || tapped.tap.has_ended(Way::Request)) {
            let rest = &input[run.at..];
            let is_alone = tapped.tap.open_count() == 0;
            match tapped.tap.step(Way::Request, rest, &taps.limits, *now, &mut head) {
                Step::Need => run.hold(out, io, to, input)?,
                Step::Body(consumed) | Step::Answered { consumed, .. } => run.at += consumed,
                Step::Aside { consumed, message } => {
                    self.left.note(message.leaves());
                    run.at += consumed;
                }
                Step::Opened { consumed, message, exchange } => {
                    (run.at, run.begun) = (run.at + consumed, run.begun + 1);
                    let judged = Judged {
                        of: &tapped.of,
                        asker: &self.asker,
                        wants: &mut self.wants,
                        replies: &mut self.replies,
                        switch: &mut self.switch,
                        left: &mut self.left,
                        edits_answers: &mut self.edits_answers,
                        must_close: &mut self.must_close,
                        is_alone,
                    };
                    let fate = judged.judge(&message, exchange, &mut shared);
                    let message = (message.bytes(), &*shared.gates.edits, consumed);
                    run.go_on(out, io, to, input, message, fate)?;
                    self.drops = fate == Fate::Refused;
                }
                Step::Finished { consumed, exchange, .. } => {
                    run.at += consumed;
                    let Shared { observer, recorder, now, .. } = &mut shared;
                    tapped.of.finish_request(exchange, *now, observer, recorder);
                }
                Step::Tunnel(reason) => {
                    tapped.give_up(reason, recorder);
                    break;
                }
            }
        }
        // One that is never answered is over with its last byte.
        while tapped.tap.has_ended(Way::Request)
            && let Step::Finished { exchange, .. } =
                tapped.tap.step(Way::Request, b"", &taps.limits, *now, &mut head)
        {
            let Shared { observer, recorder, now, .. } = &mut shared;
            tapped.of.finish_request(exchange, *now, observer, recorder);
        }
        self.messages = self.messages.wrapping_add(u32::try_from(run.begun).unwrap_or(0));
        self.drops &= tapped.tap.is_within_message(Way::Request);
        let gated = run.finish(out, io, to, input)?;
        if !run.parked.is_empty() {
            self.parked = run.parked;
        }
        tapped.add_overhead(run.begun, io.now().saturating_sub(*now));
        let passable = tapped.tap.passable(Way::Request);
        let has_begun = run.begun > 0 || !is_within;
        let is_long = has_begun && !self.drops && is_long(passable, limits.splice_from_bytes);
        Ok(Gated { is_long, ..gated })
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

impl Run {
    /// The head that begins behind what was read is not whole.
    pub(super) fn hold(
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

    /// Sends what was read, the last of which is this message: its head, the edits, and how many bytes
    /// of the input belong to it. Nothing is sent where it goes out as it came: others may follow.
    pub(super) fn go_on(
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
            return Ok(());
        }
        let held = std::mem::take(&mut out.held);
        // What is held is the beginning of the first message that was read.
        let (before, own) = if begin == 0 { (&[][..], &held[..]) } else { (&held[..], &[][..]) };
        let message = Edited::of(head, edits, own, of_message);
        let plain = [before, &input[..begin]];
        self.sent = Some(match (fate, message) {
            (Fate::Passes, None) => {
                out.held = held;
                return Ok(());
            }
            (Fate::Passes, message) => out.send_all(io, to, plain, message)?,
            (Fate::Refused, _) => out.send_all(io, to, plain, None)?,
            (Fate::Waits, message) => {
                let sent = out.send_all(io, to, plain, None)?;
                match message {
                    Some(message) => out.keep(message.slices()),
                    None => out.keep([own, of_message].into_iter()),
                }
                sent
            }
            // What is carried is for the upstream that is left.
            (Fate::Moves, message) => {
                let sent = out.send_all(io, to, plain, None)?;
                self.parked = match message {
                    Some(message) => message.slices().collect::<Vec<_>>().concat(),
                    None => [own, of_message].concat(),
                };
                sent
            }
        });
        Ok(())
    }

    /// Sends what was read, unless somebody has.
    pub(super) fn finish(
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
        if at > 0 && !out.held.is_empty() {
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
    of: &'g Of,
    pub(super) asker: &'g Asker,
    wants: &'g mut Wants,
    pub(super) replies: &'g mut Replies,
    pub(super) switch: &'g mut Switch,
    pub(super) left: &'g mut Left,
    edits_answers: &'g mut bool,
    must_close: &'g mut bool,
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
        let Gates { pairs, writes, decides, rules, .. } = &mut **gates;
        pairs.clear();
        let decider: Option<&mut dyn Decide> = match (decides, rules) {
            (Some(decides), _) => Some(&mut **decides),
            (None, rules) => rules.as_deref_mut().map(|rules| rules as _),
        };
        let ruling = match decider.filter(|_| self.wants.decides) {
            Some(it) => it.decide(message, self.asker, pairs, now, observer.random.u64(..)),
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
            if exchange.kind != Kind::Oneway {
                self.replies.add(refusal.why, |out| message.reply(&refusal, out));
                self.replies.last_waits = waits;
            } else if message.leaves() != Leaves::Nothing {
                // What comes behind it would mean something else without it.
                *self.must_close = true;
            }
            return Fate::Refused;
        }
        if ruling.answer != 0 && exchange.kind != Kind::Oneway {
            exchange.data.answer = ruling.answer;
            *self.edits_answers = true;
        }
        let to = ruling.to;
        let moves = self.moves(message, to, gates, recorder);
        self.left.note(message.leaves());
        edit(message, gates, self.wants, recorder);
        match moves {
            Some(target) => {
                self.park(message, exchange, target.as_ref());
                Fate::Moves
            }
            None if waits => Fate::Waits,
            None => Fate::Passes,
        }
    }
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
