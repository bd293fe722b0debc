//! The response way of a gate: bytes first, as of every tap; cut between messages while somebody
//! waits to be told that his request was refused, and where answers are to be edited.

use super::{
    Gate, edit,
    elsewhere::to_withhold,
    legs::is_next,
    requests::{Fate, Run, forget_words},
};
use crate::{
    core::Core,
    error::End,
    exchange::{Decide, Gates, Source, Wants},
    io::{Io, Side, Token},
    sends::{Gated, is_long, send},
    tap::waits_no_more,
};
use netra_codecs::{
    codec::{Head, Kind, Way},
    tap::{Message, Step},
    trace::Outcome,
};
use netra_perf::Recorder;

impl Gate {
    /// Sends answers.
    pub(super) fn pass_answers<I: Io>(
        &mut self,
        core: &mut Core<I>,
        (to, lane): (Token, u8),
        source: Source,
    ) -> Result<Gated, End> {
        let is_cut = !self.replies.is_empty()
            || self.cuts_answers
            || self.has_overdue()
            || self.legs.is_some();
        if is_cut || !self.response.held.is_empty() {
            return self.cut_answers(core, (to, lane), source);
        }
        let input = source.bytes(&core.pool, &core.scratch);
        let len = input.len();
        let sent = send(&mut core.io, to, input)?;
        let is_long = self.tapped.tap_some(core, Side::Upstream, source, sent);
        Ok(Gated { taken: sent, is_full: sent < len, is_long })
    }

    /// Sends answers up to the first that is edited, or up to the end of one where somebody waits for
    /// his turn.
    fn cut_answers<I: Io>(
        &mut self,
        core: &mut Core<I>,
        (to, lane): (Token, u8),
        source: Source,
    ) -> Result<Gated, End> {
        let Core { io, pool, scratch, observer, recorder, taps, gates, now, limits, .. } = core;
        let input = source.bytes(pool, scratch);
        let at_ns = io.now();
        let is_in_order = self.legs.is_some() && self.is_in_order();
        let (mut run, mut head) = (Run::default(), Head::default());
        let Self { tapped, response: out, replies, wants, legs, .. } = self;
        let waits = replies.may_go() || tapped.patience.as_ref().is_some_and(|it| it.has_words());
        while run.sent.is_none() && (run.at < input.len() || tapped.tap.has_ended(Way::Response)) {
            let is_between = run.at > 0 && !tapped.tap.is_within_message(Way::Response);
            if is_between && (waits || (is_in_order && !is_next(&mut tapped.tap, lane))) {
                break;
            }
            let rest = &input[run.at..];
            match tapped.tap.step(Way::Response, rest, &taps.limits, at_ns, &mut head) {
                Step::Need => run.hold(out, io, to, input)?,
                Step::Late(consumed) => run.skip(out, io, to, input, consumed)?,
                Step::Aside { message, .. } if legs.is_some() && is_stray(&message) => {
                    return Err(End::Netra);
                }
                Step::Body(consumed)
                | Step::Opened { consumed, .. }
                | Step::Aside { consumed, .. } => run.at += consumed,
                Step::Answered { consumed, message, exchange } => {
                    (run.at, run.begun) = (run.at + consumed, run.begun + 1);
                    exchange.data.add_overhead(at_ns.saturating_sub(*now));
                    edit_answer(&message, exchange.data.answer, (gates, wants), recorder);
                    let message = (message.bytes(), &*gates.edits, consumed);
                    run.go_on(out, io, to, input, message, Fate::Passes)?;
                }
                Step::Finished { consumed, message, mut exchange, error } => {
                    exchange.data.add_overhead(at_ns.saturating_sub(*now));
                    if let Some(message) = &message {
                        run.begun += 1;
                        edit_answer(message, exchange.data.answer, (gates, wants), recorder);
                    }
                    let own = if run.at == 0 { &out.held[..] } else { &[] };
                    let whole = (own, &input[run.at..run.at + consumed], &*gates.edits);
                    let it = to_withhold(&tapped.patience, (&exchange, error), &message, whole);
                    if let Some(it) = it {
                        run.skip(out, io, to, input, consumed)?;
                        tapped.withhold(exchange, it);
                        break;
                    }
                    run.at += consumed;
                    waits_no_more(&mut tapped.patience, exchange.data.timed);
                    forget_words(legs, &exchange.data);
                    tapped.of.finish(&exchange, error, (Outcome::Whole, at_ns), observer, recorder);
                    if let Some(message) = message {
                        let message = (message.bytes(), &*gates.edits, consumed);
                        run.go_on(out, io, to, input, message, Fate::Passes)?;
                    }
                }
                Step::Tunnel(reason) => {
                    tapped.give_up(reason, recorder);
                    break;
                }
            }
        }
        self.messages = self.messages.wrapping_add(u32::try_from(run.begun).unwrap_or(0));
        let gated = run.finish(out, io, to, input)?;
        let passable = tapped.tap.passable(Way::Response);
        let is_long = run.begun > 0 && is_long(passable, limits.splice_from_bytes);
        Ok(Gated { is_long, ..gated })
    }

    /// The end of the last words of netra's own: their flow has no buffer for it.
    #[cold]
    pub(crate) fn carry_answer(&mut self, rest: &[u8]) {
        self.response.carry.extend_from_slice(rest);
    }

    /// Whether a message of our own may go between those of the upstream now.
    pub(super) fn may_tell(&self) -> bool {
        let is_between = self.response.cleared == 0 && self.response.held.is_empty();
        let is_over = self.tapped.is_over() || self.must_close;
        is_between && !is_over && self.tapped.tap.may_take_refused()
    }

    /// Tells those clients whose turn it is that their requests were refused: what is carried has it
    /// then.
    pub(super) fn tell<I: Io>(&mut self, core: &mut Core<I>) {
        if self.has_words()
            && self.is_between_answers()
            && let Some(patience) = &mut self.tapped.patience
        {
            self.response.carry.extend(patience.take_words());
        }
        while self.replies.may_go() && self.may_tell() {
            let Some(exchange) = self.tapped.tap.take_refused() else { return };
            let told = (&mut self.response.carry, &mut core.gates.scraps);
            let Some(due) = self.replies.take(told.0, told.1) else { return };
            self.must_close |= !due.is_told;
            let Core { observer, recorder, now, .. } = core;
            let (error, told) = (due.why.name().as_bytes(), (Outcome::Whole, *now));
            self.tapped.of.finish(&exchange, error, told, observer, recorder);
        }
    }
}

/// Edits an answer by the number that its request was decided with.
fn edit_answer(
    message: &Message<'_>,
    number: u32,
    (gates, wants): (&mut Gates, &mut Wants),
    recorder: &Recorder,
) {
    gates.pairs.clear();
    let Gates { pairs, decides, rules, .. } = gates;
    let decider: Option<&dyn Decide> = match (decides, rules) {
        (Some(decides), _) => Some(&**decides),
        (None, rules) => rules.as_deref().map(|rules| rules as _),
    };
    if let Some(decider) = decider.filter(|_| number != 0) {
        decider.answer(number, pairs);
    }
    edit(message, gates, wants, recorder);
}

/// An answer that nobody waits for: of several legs, perhaps to what another was asked.
fn is_stray(message: &Message<'_>) -> bool {
    message.kind() == Kind::Stray
}
