//! The response way where rules give answers something: a head waits until it is whole and goes out
//! edited, all else as it came. On every other connection answers are sent first and read after.
//!
//! So it is where an answer may be *withheld* because its request goes to another endpoint (`again.rs`): one
//! that is not goes out as it came.
//!
//! The flow shows bytes before they are sent then, as on the request way. What is shown and not sent
//! yet lies where it came from (*cleared*), or is carried: a head that was edited, or came in parts.

use super::{
    Http,
    again::{self, Others},
    aside,
    ruled::mutate,
    switch::heard,
    two,
};
use crate::{
    core::{Core, HttpCore},
    error::End,
    exchange::{ShardRules, Source},
    gate::{Fate, Outgoing, Run},
    io::{Io, Side, Token},
    sends::{Gated, is_long},
    tap::waits_no_more,
};
use netra_codecs::{
    h1::{HeadPatch, ResponseHead, ResponseStep},
    trace::Outcome,
};
use netra_perf::Recorder;

impl Http {
    /// Answers are shown before they are sent.
    #[inline]
    pub(crate) fn cuts_answers(&self) -> bool {
        self.answers.is_some()
    }

    /// Takes note of whether rules give its answers anything. So many bytes of answers have been
    /// read, and wait for the client. False where something is under way, and somebody has to ask
    /// again.
    pub(crate) fn look_again(&mut self, rules: Option<&ShardRules>, unsent: usize) -> bool {
        let asker = self.asker.as_deref();
        let wants = asker.zip(rules).is_some_and(|(asker, rules)| rules.holds_answers_to(asker));
        match (self.answers.is_some(), wants) {
            (false, true) => {
                let cleared = unsent as u64;
                self.answers = Some(Box::new(Outgoing { cleared, ..Outgoing::default() }));
            }
            (true, false) => {
                // What waits has not been read, and answers to come may have been promised something.
                let is_idle = !self.has_unsent_answers() && self.exchanges.is_empty();
                if unsent > 0 || !is_idle {
                    return false;
                }
                self.answers = None;
            }
            (true, true) | (false, false) => {}
        }
        true
    }

    /// Bytes of answers wait to be sent that their flow does not know of, or that have been read.
    pub(crate) fn has_unsent_answers(&self) -> bool {
        self.answers.as_deref().is_some_and(|out| out.kept() > 0 || out.cleared > 0)
    }

    /// Bytes of answers that were read are still to be sent: carried ones, or some that are yet in the
    /// upstream's socket, where the bodies before them were spliced from.
    pub(super) fn has_answers_on_the_way(&self) -> bool {
        self.answers.as_deref().is_some_and(|out| !out.carry.is_empty() || out.cleared > 0)
    }

    /// Bytes of answers are carried.
    #[inline]
    pub(crate) fn carries_answers(&self) -> bool {
        self.answers.as_deref().is_some_and(|out| !out.carry.is_empty())
    }

    /// The end of an answer of netra's own, which is its last: its flow has no buffer for it.
    #[cold]
    pub(crate) fn carry_answer<I: Io>(&mut self, core: &mut Core<I>, rest: &[u8]) {
        self.answers.get_or_insert_default().carry.extend_from_slice(rest);
        if let Some(shared) = &mut core.http {
            self.count_held(shared);
        }
    }

    /// What is held of an answer's head goes out as it came.
    pub(super) fn let_answer_go(&mut self) {
        if let Some(out) = &mut self.answers {
            let held = std::mem::take(&mut out.held);
            out.carry.extend(held);
        }
    }

    /// The next bytes of answers: what is carried, then what comes from `source`.
    pub(crate) fn next_answer<I: Io>(
        &mut self,
        core: &mut Core<I>,
        to: Token,
        source: Option<Source>,
    ) -> Result<Option<Gated>, End> {
        let Some(mut out) = self.answers.take() else { return Ok(None) };
        let gated = if !out.carry.is_empty() {
            out.send_carry(&mut core.io, to, &mut core.gates.scraps)
                .map(|all| Some(Gated { is_full: !all, ..Gated::default() }))
        } else if let Some(source) = source {
            self.pass_answers(&mut out, core, to, source).map(Some)
        } else {
            Ok(None)
        };
        self.answers = Some(out);
        if let Some(shared) = &mut core.http {
            self.settle(shared, &core.recorder);
        }
        gated
    }

    /// Takes a step with bytes that nothing is carried before.
    fn pass_answers<I: Io>(
        &mut self,
        out: &mut Outgoing,
        core: &mut Core<I>,
        to: Token,
        source: Source,
    ) -> Result<Gated, End> {
        let input = source.bytes(&core.pool, &core.scratch);
        let len = input.len();
        let is_tunnel = self.two.is_none() && self.response.is_opaque();
        let is_two = self.two.is_some() || self.begins_two(input);
        let mut is_long = false;
        if out.cleared == 0 && !is_tunnel {
            if !is_two {
                return self.cut_answers(out, core, to, source);
            }
            // Nothing is put into answers of HTTP/2: they are read all the same.
            is_long = self.tap(core, source);
            out.cleared = len as u64;
        }
        let Core { io, pool, scratch, .. } = core;
        let most = if is_tunnel { u64::MAX } else { out.cleared };
        let sent = out.send_cleared(io, to, source.bytes(pool, scratch), is_tunnel)?;
        let is_full = sent < len && (sent as u64) < most;
        Ok(Gated { taken: sent, is_full, is_long })
    }

    /// Sends answers up to the first that is edited, or whose head is not whole.
    fn cut_answers<I: Io>(
        &mut self,
        out: &mut Outgoing,
        core: &mut Core<I>,
        to: Token,
        source: Source,
    ) -> Result<Gated, End> {
        let Core { io, pool, scratch, http, gates, observer, recorder, now, limits, .. } = core;
        let Some(shared) = http.as_deref_mut() else { return Ok(Gated::default()) };
        let input = source.bytes(pool, scratch);
        let (at, took) = (io.now(), io.now().saturating_sub(*now));
        let (mut run, mut upgrades, may_repeat) = (Run::default(), false, self.may_repeat());
        while run.sent.is_none() {
            let HttpCore { reader, patch, .. } = &mut *shared;
            match self.response.step(&input[run.at..], reader, &mut self.exchanges) {
                ResponseStep::Need if run.at == input.len() => break,
                ResponseStep::Need => run.hold(out, io, to, input)?,
                ResponseStep::Body(len) => run.at += len,
                ResponseStep::Head { head, consumed, exchange, .. } => {
                    // A part of it may have been sent before rules came that hold it.
                    let unsent = run.at + out.held.len() + consumed;
                    if may_repeat && unsent == head.bytes().len() {
                        let Self { again, exchanges, seats, switch, asker, .. } = self;
                        let others = Others { seats, switch, asker: asker.as_deref(), now: at };
                        if again::withhold(again, exchanges, (exchange, head.status()), others) {
                            return Err(self.forget_answer(out));
                        }
                    }
                    (run.at, run.begun) = (run.at + consumed, run.begun + 1);
                    upgrades = two::is_upgrade(&head);
                    again::answered(&mut self.again, &mut self.resting, &head);
                    let number = self.exchanges.get_mut(exchange).map_or(0, |it| it.data.answer);
                    give(patch, &head, (number, gates.rules.as_deref()), recorder);
                    let message = (head.bytes(), patch.as_edits(), consumed);
                    run.go_on(out, io, to, input, message, Fate::Passes)?;
                    aside::head_sent(&mut self.exchanges, exchange, at, observer);
                    self.took(exchange, took);
                }
                ResponseStep::Finish(done) => {
                    heard(&self.seats, &done, Outcome::Whole, at);
                    if upgrades {
                        self.upgrade_to_two(done, shared, recorder);
                        break;
                    }
                    waits_no_more(&mut self.patience, done.data.timed);
                    let told = (&mut *observer, &**recorder);
                    aside::finish(&done, Outcome::Whole, self.direction, at, told);
                    if again::may_withhold(&self.again, &mut self.exchanges) {
                        break;
                    }
                }
                ResponseStep::Opaque(_) => {
                    if run.at == 0 {
                        // It goes first, and then all that came.
                        out.carry.append(&mut out.held);
                    }
                    break;
                }
            }
        }
        self.heads = self.heads.wrapping_add(u32::try_from(run.begun).unwrap_or(0));
        let gated = run.finish(out, io, to, input)?;
        let splice_from = limits.splice_from_bytes;
        if run.sent.is_some() {
            // An answer without a body is over with its head.
            self.tap(core, Source::Nothing);
        }
        let is_long = run.begun > 0 && is_long(self.response.passable(), splice_from);
        Ok(Gated { is_long, ..gated })
    }

    /// The answer whose head was read last goes to nobody. Whoever ends connections asks whether this one
    /// goes on.
    #[cold]
    fn forget_answer(&mut self, out: &mut Outgoing) -> End {
        out.held.clear();
        self.response.withhold(&mut self.exchanges);
        self.heads = self.heads.wrapping_add(1);
        End::Reset(Side::Upstream)
    }
}

/// Puts into an answer's head what its request was promised. What comes before the answer, or
/// begins another protocol (1xx), is left alone.
fn give(
    patch: &mut HeadPatch,
    head: &ResponseHead<'_>,
    (number, rules): (u32, Option<&ShardRules>),
    recorder: &Recorder,
) {
    patch.clear();
    if number == 0 || head.status() < 200 {
        return;
    }
    if let Some(rules) = rules {
        mutate(patch, head.fields(), rules.given(number), recorder);
    }
}
