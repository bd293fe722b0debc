//! What the calls of one outbound connection have in common: the transaction that they are in, and
//! the inbound connection that they go with.

use super::open::OpenSpan;
use crate::joins::{CallKey, Id, Joins, SEEN_MAX, Seen};
use crate::sys::Nanos;
use netra_codecs::trace::TraceContext;

/// Calls of a transaction that wait to be told until it is known what it belongs to.
pub(crate) const HELD_MAX: usize = 8;
/// And for how long, while it goes on.
pub(crate) const HELD_NS: Nanos = 5_000_000_000;
/// Calls in a row that a pair of connections has to have in common before others are believed to.
const AFFINE_AFTER: u16 = 20;

/// What is remembered of an outbound connection. Without storage where there are no transactions.
#[derive(Debug, Default)]
pub(crate) struct Session(Option<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    transaction: Transaction,
    pair: Pair,
}

/// A call that waits to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldCall {
    pub(crate) open: OpenSpan,
    pub(crate) is_logged: bool,
}

/// The transaction that is open, or the place for the next one.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) is_open: bool,
    /// Transactions of where it goes.
    pub(crate) key: CallKey,
    pub(crate) began_ns: Nanos,
    /// What all of its calls so far may belong to; None where that was never all.
    seen: Option<Seen>,
    /// The request that it belongs to.
    pub(crate) parent: Option<(Id, TraceContext)>,
    /// Calls of it contradict each other.
    pub(crate) is_broken: bool,
    held: [Option<HeldCall>; HELD_MAX],
    held_len: u8,
}

/// The inbound connections that an outbound one may go with.
#[derive(Debug, Default)]
struct Pair {
    callers: [u64; SEEN_MAX],
    len: u8,
    confirmed: u16,
    /// It was wrong once.
    is_wrong: bool,
}

impl Session {
    /// Its transaction, where a call is or was in one.
    pub(crate) fn transaction(&mut self, is_in_one: bool) -> Option<&mut Transaction> {
        if is_in_one && self.0.is_none() {
            self.0 = Some(Box::default());
        }
        let transaction = self.0.as_deref_mut().map(|known| &mut known.transaction);
        transaction.filter(|it| is_in_one || it.is_open)
    }

    /// A call may belong to these requests, or to that one for certain: which one it is because of
    /// the connection that it came by.
    pub(crate) fn pair(&mut self, seen: &Seen, known: Option<Id>, joins: &Joins) -> Option<Id> {
        let pair = &mut self.0.get_or_insert_default().pair;
        let ids = known.as_ref().map_or(seen.ids(), std::slice::from_ref);
        if pair.is_wrong || ids.is_empty() || !seen.is_all {
            return None;
        }
        let boards = joins.shared().boards();
        let is_among = |caller: u64| ids.iter().any(|id| boards.caller(*id) == Some(caller));
        pair.meet(ids.iter().filter_map(|id| boards.caller(*id)), is_among);
        let caller = pair.only()?;
        ids.iter().copied().find(|id| boards.caller(*id) == Some(caller))
    }
}

impl Transaction {
    /// It begins.
    pub(crate) fn begin(&mut self, key: CallKey, now: Nanos) {
        debug_assert!(self.held_len == 0, "calls of another transaction wait");
        *self = Self { is_open: true, key, began_ns: now, ..Self::default() };
    }

    /// A call of it may belong to these: leaves in them what the others may belong to as well.
    pub(crate) fn narrow(&mut self, seen: &mut Seen) {
        if !seen.is_all {
            return;
        }
        if let Some(known) = &self.seen {
            seen.retain(|id| known.ids().contains(&id));
        }
        self.seen = Some(*seen);
    }

    /// Keeps a call until more is known; false where there is no room.
    pub(crate) fn hold(&mut self, call: HeldCall) -> bool {
        let Some(place) = self.held.get_mut(usize::from(self.held_len)) else { return false };
        *place = Some(call);
        self.held_len += 1;
        true
    }

    /// The calls that were kept, and how many.
    pub(crate) fn take_held(&mut self) -> ([Option<HeldCall>; HELD_MAX], u32) {
        let count = std::mem::take(&mut self.held_len);
        (std::mem::take(&mut self.held), count.into())
    }
}

impl Pair {
    /// Keeps of the callers those that are among a further call's.
    fn meet(&mut self, callers: impl Iterator<Item = u64>, is_among: impl Fn(u64) -> bool) {
        let was_believed = self.only().is_some();
        let mut left = 0;
        for index in 0..usize::from(self.len) {
            if is_among(self.callers[index]) {
                self.callers[left] = self.callers[index];
                left += 1;
            }
        }
        // No more than there are places.
        self.len = u8::try_from(left).unwrap_or(0);
        self.confirmed = self.confirmed.saturating_add(1);
        if self.len > 0 {
            return;
        }
        self.is_wrong = was_believed;
        self.confirmed = 1;
        for (place, caller) in self.callers.iter_mut().zip(callers) {
            *place = caller;
            self.len += 1;
        }
    }

    fn only(&self) -> Option<u64> {
        let is_believed = self.len == 1 && self.confirmed >= AFFINE_AFTER && !self.is_wrong;
        is_believed.then_some(self.callers[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(pair: &mut Pair, callers: &[u64]) -> Option<u64> {
        pair.meet(callers.iter().copied(), |caller| callers.contains(&caller));
        pair.only()
    }

    #[test]
    fn a_pair_is_believed_after_many_calls_and_never_again_after_one_that_denies_it() {
        let mut pair = Pair::default();
        for other in 1..u64::from(AFFINE_AFTER) {
            assert_eq!(meet(&mut pair, &[other + 100, 7]), None);
        }
        assert_eq!(meet(&mut pair, &[7, 3]), Some(7));
        assert_eq!(meet(&mut pair, &[3]), None);
        for _ in 0..2 * AFFINE_AFTER {
            assert_eq!(meet(&mut pair, &[3]), None);
        }
        // One that was not believed yet begins anew.
        let mut pair = Pair::default();
        meet(&mut pair, &[1]);
        for _ in 1..AFFINE_AFTER {
            assert_eq!(meet(&mut pair, &[2]), None);
        }
        assert_eq!(meet(&mut pair, &[2]), Some(2));
    }

    #[test]
    fn connections_without_transactions_keep_no_storage() {
        let mut session = Session::default();
        assert!(session.transaction(false).is_none() && session.0.is_none());
        assert!(session.transaction(true).is_some());
        assert!(size_of::<Session>() <= 8);
    }
}
