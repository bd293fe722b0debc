//! A call is over: what it belongs to is decided, and its span told, with those that waited for it.

use super::{
    observer::Observer,
    session::{HELD_NS, HeldCall, Session, Transaction},
};
use crate::{
    config::JoinLevel,
    joins::{Begun, CallKey, Id, Joins, Verdict},
    sys::Nanos,
};
use netra_codecs::trace::{Join, TraceContext};
use netra_perf::Recorder;
use std::net::SocketAddr;

/// A call that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Concluded {
    pub(crate) call: HeldCall,
    /// Whether a transaction is open behind it; None where its answer does not say.
    pub(crate) transaction: Option<bool>,
    /// Where it went.
    pub(crate) to: Option<SocketAddr>,
    pub(crate) now: Nanos,
}

impl Observer {
    /// The record of a call is complete: decides what it belongs to and hands it over, or keeps it
    /// until its transaction says more. Without a session nothing is known of others.
    pub(crate) fn conclude(
        &mut self,
        concluded: Concluded,
        session: Option<&mut Session>,
        recorder: &Recorder,
    ) {
        let Concluded { call, now, .. } = concluded;
        let is_undecided = self.record_mut(call.open).join.is_none();
        let Some(joins) = self.joins.as_mut().filter(|_| is_undecided) else {
            return self.close(call.open, call.is_logged, recorder);
        };
        let begun = joins.begun(call.open.index());
        let Some(session) = session else {
            let verdict = joins.judge(&begun, now);
            return self.tell(call, verdict, recorder);
        };
        let (was_open, is_open) = step(session, &concluded, joins.level);
        let Some(transaction) = session.transaction(was_open || is_open) else {
            let verdict = joins.judge(&begun, now);
            let verdict = paired(verdict, &begun, session, joins);
            return self.tell(call, verdict, recorder);
        };
        if !was_open {
            transaction.begin(CallKey::new(concluded.to, b""), now);
        }
        let verdict = in_transaction(transaction, begun, (is_open, now), joins);
        let is_over = !is_open || transaction.is_broken;
        let waits_long = now.saturating_sub(transaction.began_ns) > HELD_NS;
        let is_unclear = matches!(verdict, Verdict::Unclear(_));
        let is_kept =
            is_unclear && !is_over && !waits_long && joins.may_hold() && transaction.hold(call);
        joins.held += u32::from(is_kept);
        if is_over || waits_long || matches!(verdict, Verdict::One(..)) {
            let (held, count) = transaction.take_held();
            joins.held -= count;
            let parent = believed(transaction, joins);
            transaction.is_open &= is_open;
            for call in held.into_iter().flatten() {
                match parent {
                    Some(parent) => self.join(call, parent, Join::Tx, recorder),
                    None => self.leave(call, recorder),
                }
            }
        }
        if !is_kept {
            self.tell(call, verdict, recorder);
        }
    }

    /// The connection ends: what waits will not be known any better.
    pub(crate) fn conclude_all(&mut self, session: &mut Session, recorder: &Recorder) {
        let Some(transaction) = session.transaction(false) else { return };
        transaction.is_open = false;
        let (held, count) = transaction.take_held();
        if let Some(joins) = &mut self.joins {
            joins.held -= count;
        }
        for call in held.into_iter().flatten() {
            self.leave(call, recorder);
        }
    }

    fn tell(&mut self, call: HeldCall, verdict: Verdict, recorder: &Recorder) {
        match verdict {
            Verdict::One(id, how) => {
                let context = self.joins.as_ref().and_then(|it| it.shared().boards().context(id));
                match context {
                    Some(context) => self.join(call, context, how, recorder),
                    // It belongs to a request that is not traced.
                    None => self.leave(call, recorder),
                }
            }
            Verdict::Unclear(_) => self.leave(call, recorder),
            Verdict::Nothing => {
                self.record_mut(call.open).join = Some(Join::None);
                self.close(call.open, call.is_logged, recorder);
            }
        }
    }

    /// The call belongs to this one.
    fn join(&mut self, call: HeldCall, to: TraceContext, how: Join, recorder: &Recorder) {
        let record = self.record_mut(call.open);
        record.context = to.child(record.context.span_id);
        record.sampler = None;
        record.join = Some(how);
        self.close(call.open, call.is_logged, recorder);
    }

    /// Nobody knows what it belongs to.
    fn leave(&mut self, call: HeldCall, recorder: &Recorder) {
        self.record_mut(call.open).join = Some(Join::Ambiguous);
        self.close(call.open, call.is_logged, recorder);
    }
}

/// Whether a transaction was open before the call and is behind it.
fn step(session: &mut Session, concluded: &Concluded, level: JoinLevel) -> (bool, bool) {
    if !level.allows(Join::Tx) {
        return (false, false);
    }
    let was_open = session.transaction(false).is_some();
    (was_open, concluded.transaction.unwrap_or(was_open))
}

/// What a call of a transaction belongs to, by itself and by the others.
fn in_transaction(
    transaction: &mut Transaction,
    begun: Begun,
    (is_open, now): (bool, Nanos),
    joins: &Joins,
) -> Verdict {
    let mut narrowed = begun;
    transaction.narrow(&mut narrowed.seen);
    let learned = joins.shared().learned();
    let boards = joins.shared().boards();
    let alone = joins.judge(&begun, now);
    if narrowed.seen.ids().is_empty() {
        // Nobody can have made all of it.
        transaction.is_broken |= !begun.seen.ids().is_empty();
    }
    let verdict = match alone {
        Verdict::Unclear(left) if !narrowed.seen.ids().is_empty() => {
            match joins.judge(&narrowed, now) {
                Verdict::One(id, _) if learned.is_clean(transaction.key) => {
                    Verdict::One(id, Join::Tx)
                }
                _ => Verdict::Unclear(left),
            }
        }
        known => known,
    };
    if let Verdict::One(id, _) = verdict {
        match transaction.parent {
            None => transaction.parent = boards.context(id).map(|context| (id, context)),
            Some((known, _)) if known != id => transaction.is_broken = true,
            Some(_) => {}
        }
    }
    if let Some((id, _)) = transaction.parent {
        let goes_on = boards.is_open(id);
        if is_open && !goes_on {
            transaction.is_broken = true;
        }
        if !is_open && goes_on && !transaction.is_broken {
            learned.note_clean(transaction.key);
        }
        let may_be_its = begun.seen.is_all && begun.seen.ids().contains(&id);
        if matches!(verdict, Verdict::Unclear(_))
            && may_be_its
            && goes_on
            && believed(transaction, joins).is_some()
        {
            return Verdict::One(id, Join::Tx);
        }
    }
    if transaction.is_broken {
        learned.note_unsafe(transaction.key);
        transaction.parent = None;
    }
    verdict
}

/// The request that the transaction belongs to, where transactions there can be relied upon.
fn believed(transaction: &Transaction, joins: &Joins) -> Option<TraceContext> {
    let is_clean = joins.shared().learned().is_clean(transaction.key) && !transaction.is_broken;
    transaction.parent.filter(|_| is_clean).map(|(_, context)| context)
}

/// The same, by the connection where nothing else tells.
fn paired(verdict: Verdict, begun: &Begun, session: &mut Session, joins: &Joins) -> Verdict {
    if !joins.level.allows(Join::Affine) {
        return verdict;
    }
    let known: Option<Id> = match verdict {
        Verdict::One(id, _) => Some(id),
        Verdict::Unclear(left) if left.is_all => None,
        _ => return verdict,
    };
    let seen = match verdict {
        Verdict::Unclear(left) => left,
        _ => begun.seen,
    };
    match (session.pair(&seen, known, joins), known) {
        (Some(id), None) => Verdict::One(id, Join::Affine),
        _ => verdict,
    }
}
