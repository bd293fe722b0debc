//! Which inbound request a call belongs to that carries nothing of it: known, or not told.
//!
//! An application calls because of a request between the moment it has the request and the moment
//! it answers. So a call belongs to the one request that was being served from its beginning to its
//! end, where there is only one. What would make that a guess is looked for all the time: inbound
//! connections that netra cannot read, clients that went away while the application may still be at
//! work, and calls that are made while nothing is served.

mod board;
mod learned;

pub(crate) use board::{Boards, Id, SEEN_MAX, Seen};
pub(crate) use learned::CallKey;

use crate::{config::JoinLevel, sys::Nanos};
use board::PLACES;
use learned::Learned;
use netra_codecs::trace::{Join, LINKS_MAX, TraceContext};
use std::{net::SocketAddr, num::NonZeroU32, sync::Arc};

/// How long an application may be at work behind a request that it will not answer any more.
const ORPHAN_NS: Nanos = 10_000_000_000;
/// How long it may be behind the first bytes of an answer whose end nobody sees.
const UNREAD_NS: Nanos = 1_000_000_000;

/// Calls of a shard that may wait for what their transactions say.
const HELD_MAX: u32 = 256;

/// What all shards share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<(Boards, Learned)>);

impl Shared {
    /// For so many shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self(Arc::new((Boards::new(shards), Learned::new())))
    }

    pub(crate) fn boards(&self) -> &Boards {
        &self.0.0
    }

    pub(crate) fn learned(&self) -> &Learned {
        &self.0.1
    }
}

/// A request that is being served, as its exchange remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served(NonZeroU32);

/// One that has no place on the board, and is only counted.
const UNPLACED: u32 = u32::MAX;

/// A call that has begun.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun {
    /// What was being served then.
    pub(crate) seen: Seen,
    pub(crate) key: CallKey,
}

/// Tells a connection from others, by who has made it.
pub(crate) fn caller_id(remote: Option<SocketAddr>) -> u64 {
    number_of(remote)
}

/// A number for an address, made for each request and so by few instructions: of IPv4 no two have the
/// same, of IPv6 hardly two.
fn number_of(address: Option<SocketAddr>) -> u64 {
    match address {
        None => 0,
        Some(SocketAddr::V4(it)) => mix(u64::from(it.ip().to_bits()) << 16 | u64::from(it.port())),
        Some(SocketAddr::V6(it)) => {
            let whole = it.ip().to_bits();
            // The halves of it.
            #[allow(clippy::cast_possible_truncation)]
            let (high, low) = ((whole >> 64) as u64, whole as u64);
            mix(mix(high ^ u64::from(it.port())) ^ low)
        }
    }
}

/// Spreads the bits of a number; none is lost.
const fn mix(number: u64) -> u64 {
    let spread = (number ^ number >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    spread ^ spread >> 29
}

/// What a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To this request.
    One(Id, Join),
    /// To one of these, or to something else.
    Unclear(Seen),
    /// To none: nothing was being served.
    Nothing,
}

/// A shard's part.
#[derive(Debug)]
pub(crate) struct Joins {
    shared: Shared,
    shard: usize,
    pub(crate) level: JoinLevel,
    /// Requests that are being served, with and without a place.
    open_count: u32,
    /// Inbound connections that are not read and owe an answer.
    unread: u32,
    /// Until then somebody may be at work whom nobody counts any more.
    unsure_until: Nanos,
    /// Places that are free.
    free: Vec<u16>,
    /// The requests in places, and for each place where it stands among them.
    open: Vec<(u16, Id)>,
    index: Box<[u16]>,
    /// Calls that have begun, by the place of their span.
    begun: Vec<Begun>,
    /// Calls that are over and wait for what their transaction says.
    pub(crate) held: u32,
}

impl Joins {
    pub(crate) fn new(shared: Shared, shard: usize, level: JoinLevel) -> Self {
        Self {
            shared,
            shard,
            level,
            open_count: 0,
            unread: 0,
            unsure_until: 0,
            // No more than 65,536.
            free: (0..u16::try_from(PLACES).unwrap_or(u16::MAX)).rev().collect(),
            open: Vec::with_capacity(PLACES),
            index: vec![0; PLACES].into(),
            begun: Vec::new(),
            held: 0,
        }
    }

    /// A request is about to be passed on. `caller` tells its connection from others.
    pub(crate) fn serve(&mut self, context: Option<TraceContext>, caller: u64) -> Served {
        self.open_count += 1;
        let served = match self.free.pop() {
            Some(at) => {
                let id = self.shared.boards().put(self.shard, at, context, caller);
                self.index[usize::from(at)] = u16::try_from(self.open.len()).unwrap_or(u16::MAX);
                self.open.push((at, id));
                u32::from(at) + 1
            }
            None => UNPLACED,
        };
        self.say();
        Served(NonZeroU32::new(served).unwrap_or(NonZeroU32::MAX))
    }

    /// It has been answered whole, or will never be: then the application may still be at work.
    pub(crate) fn answered(&mut self, served: Served, is_whole: bool, now: Nanos) {
        self.open_count = self.open_count.saturating_sub(1);
        if let Some(at) =
            u16::try_from(served.0.get() - 1).ok().filter(|_| served.0.get() != UNPLACED)
        {
            let index = usize::from(self.index[usize::from(at)]);
            self.open.swap_remove(index);
            if let Some((moved, _)) = self.open.get(index) {
                self.index[usize::from(*moved)] = u16::try_from(index).unwrap_or(u16::MAX);
            }
            self.shared.boards().free(self.shard, at);
            self.free.push(at);
        }
        if !is_whole {
            self.doubt(now);
        }
        self.say();
    }

    /// Requests of this shard that are being served.
    pub(crate) fn open_count(&self) -> u32 {
        self.open_count
    }

    /// Bytes of an inbound connection are about to be passed on that are read only then, or have
    /// been.
    pub(crate) fn pass(&self, is_passing: bool) {
        self.shared.boards().passes(self.shard, is_passing);
    }

    /// An inbound connection that is not read owes an answer, or does no longer: then the end of
    /// that answer is not seen. `is_gone` says that it never comes.
    pub(crate) fn owe(&mut self, owes: bool, is_gone: bool, now: Nanos) {
        if owes {
            self.unread += 1;
        } else {
            self.unread = self.unread.saturating_sub(1);
            let still = if is_gone { ORPHAN_NS } else { UNREAD_NS };
            self.unsure_until = self.unsure_until.max(now + still);
        }
        self.tell();
    }

    /// An exchange is open of which nobody knows whether it is counted.
    pub(crate) fn doubt(&mut self, now: Nanos) {
        self.unsure_until = now + ORPHAN_NS;
        self.tell();
    }

    /// Which requests are being served.
    #[inline]
    fn say(&self) {
        let newest = self.open.iter().rev().map(|(_, id)| *id);
        self.shared.boards().serves(self.shard, self.open_count, newest);
    }

    /// What else there may be.
    #[inline]
    fn tell(&self) {
        self.shared.boards().owes(self.shard, self.unread, self.unsure_until);
    }

    /// What a call that begins may belong to. One that is made while nothing is served is noted.
    pub(crate) fn look(&self, key: CallKey, now: Nanos) -> Begun {
        let seen = self.shared.boards().look(now);
        if seen.ids().is_empty() && seen.is_all {
            self.shared.learned().note_background(key, now);
        }
        Begun { seen, key }
    }

    /// The contexts of what a call may belong to.
    pub(crate) fn contexts(&self, begun: &Begun) -> impl Iterator<Item = TraceContext> {
        begun.seen.ids().iter().filter_map(|id| self.shared.boards().context(*id))
    }

    /// Trace and span of what a call may belong to.
    pub(crate) fn links(&self, begun: &Begun) -> [Option<(u128, u64)>; LINKS_MAX] {
        let mut contexts = self.contexts(begun).map(|it| (it.trace_id, it.span_id));
        std::array::from_fn(|_| contexts.next())
    }

    /// The one request that a call can belong to which has to be decided about when it begins.
    pub(crate) fn only(&self, begun: &Begun, now: Nanos) -> Option<TraceContext> {
        let [id] = *begun.seen.ids() else { return None };
        let is_known = begun.seen.is_all && !self.shared.learned().is_background(begun.key, now);
        self.shared.boards().context(id).filter(|_| is_known)
    }

    /// Whether a call that is over may wait.
    pub(crate) fn may_hold(&self) -> bool {
        self.held < HELD_MAX
    }

    /// Keeps the beginning of a call by the place of its span.
    pub(crate) fn keep(&mut self, at: usize, begun: Begun) {
        if self.begun.len() <= at {
            self.begun.resize(at + 1, Begun::default());
        }
        self.begun[at] = begun;
    }

    /// The beginning of the call whose span is in this place.
    pub(crate) fn begun(&self, at: usize) -> Begun {
        self.begun.get(at).copied().unwrap_or_default()
    }

    /// A call has been answered: what it belongs to. One that outlives all that it can belong to is
    /// noted: none of them has waited for it.
    pub(crate) fn judge(&self, begun: &Begun, now: Nanos) -> Verdict {
        let Self { shared, .. } = self;
        if begun.seen.ids().is_empty() {
            let is_nothing = begun.seen.is_all;
            return if is_nothing { Verdict::Nothing } else { Verdict::Unclear(begun.seen) };
        }
        let mut left = begun.seen;
        left.retain(|id| shared.boards().is_open(id));
        let [id] = *left.ids() else {
            if left.ids().is_empty() && begun.seen.is_all && !shared.boards().is_unsure(now) {
                shared.learned().note_background(begun.key, now);
            }
            return Verdict::Unclear(left);
        };
        let join = if begun.seen.ids().len() == 1 { Join::Exclusive } else { Join::Contained };
        let is_known = begun.seen.is_all
            && self.level.allows(join)
            && !shared.learned().is_background(begun.key, now);
        if is_known { Verdict::One(id, join) } else { Verdict::Unclear(left) }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_codecs::trace::TraceFlags;

    fn shards<const N: usize>() -> [Joins; N] {
        let shared = Shared::new(N);
        std::array::from_fn(|shard| Joins::new(shared.clone(), shard, JoinLevel::Tx))
    }

    #[test]
    fn callers_are_told_apart() {
        let mut seen = std::collections::HashSet::from([caller_id(None)]);
        for net in ["10.0.0.", "10.0.1.", "fd00::", "fd00:0:0:1::", "::ffff:10.0.0."] {
            for (host, port) in (1..100_u16).flat_map(|host| [1, 80, 40_000].map(|it| (host, it))) {
                let address = format!("{net}{host}").parse().unwrap();
                assert!(seen.insert(caller_id(Some(SocketAddr::new(address, port)))), "{address}");
            }
        }
    }

    fn context(number: u64) -> TraceContext {
        TraceContext::root(number.into(), number, TraceFlags::SAMPLED)
    }

    const KEY: CallKey = CallKey::of_number(1);

    #[test]
    fn a_call_belongs_to_the_one_request_that_is_served_on_any_shard() {
        let [mut one, other] = shards();
        let served = one.serve(Some(context(3)), 0);
        let begun = other.look(KEY, 0);
        assert_eq!(other.only(&begun, 0), Some(context(3)));
        let Verdict::One(id, Join::Exclusive) = other.judge(&begun, 0) else { panic!() };
        assert_eq!(other.shared().boards().context(id), Some(context(3)));
        one.answered(served, true, 0);
        assert_eq!(other.look(KEY, 0).seen.ids(), []);
    }

    #[test]
    fn of_several_requests_the_one_that_outlives_the_call_has_made_it() {
        let [mut one, mut two] = shards();
        let (first, _second) = (one.serve(Some(context(1)), 0), two.serve(Some(context(2)), 0));
        let begun = two.look(KEY, 0);
        assert_eq!(two.only(&begun, 0), None);
        assert!(matches!(two.judge(&begun, 0), Verdict::Unclear(left) if left.ids().len() == 2));
        one.answered(first, true, 0);
        // What comes later cannot have made it.
        one.serve(Some(context(4)), 0);
        let Verdict::One(id, Join::Contained) = two.judge(&begun, 0) else { panic!() };
        assert_eq!(two.shared().boards().context(id), Some(context(2)));
    }

    #[test]
    fn calls_that_are_made_while_nothing_is_served_are_believed_no_more() {
        let [mut joins] = shards();
        joins.look(KEY, 0);
        let served = joins.serve(Some(context(1)), 0);
        let begun = joins.look(KEY, 0);
        assert_eq!(joins.only(&begun, 0), None);
        assert!(matches!(joins.judge(&begun, 0), Verdict::Unclear(_)));
        let of_others = joins.look(CallKey::new(None, b"other"), 0);
        assert!(matches!(joins.judge(&of_others, 0), Verdict::One(..)));
        // One that outlives its request is one of these as well.
        joins.answered(served, true, 0);
        assert!(matches!(joins.judge(&of_others, 0), Verdict::Unclear(_)));
        joins.serve(Some(context(2)), 0);
        let again = joins.look(CallKey::new(None, b"other"), 0);
        assert!(matches!(joins.judge(&again, 0), Verdict::Unclear(_)));
    }

    #[test]
    fn nothing_is_certain_while_somebody_unseen_may_be_at_work() {
        let hide: [fn(&mut Joins, Served); 4] = [
            |joins, _| joins.owe(true, false, 0),
            |joins, _| {
                joins.owe(true, false, 0);
                joins.owe(false, false, 0);
            },
            |joins, _| joins.pass(true),
            |joins, served| {
                joins.serve(Some(context(2)), 0);
                joins.answered(served, false, 0);
            },
        ];
        for hide in hide {
            let [mut joins, other] = shards();
            let served = joins.serve(Some(context(1)), 0);
            assert!(matches!(other.judge(&other.look(KEY, 0), 0), Verdict::One(..)));
            hide(&mut joins, served);
            assert!(matches!(other.judge(&other.look(KEY, 0), 0), Verdict::Unclear(_)));
        }
        let [mut joins] = shards();
        let served = joins.serve(None, 0);
        joins.answered(served, false, 0);
        joins.serve(Some(context(1)), 0);
        assert_eq!(joins.only(&joins.look(KEY, 1), 1), None);
        assert_eq!(joins.only(&joins.look(KEY, ORPHAN_NS), ORPHAN_NS), Some(context(1)));
    }

    /// Further ones are counted, so that none of the others is taken for the only one.
    #[test]
    fn more_requests_than_there_are_places_for() {
        let [mut joins] = shards();
        let mut all: Vec<_> =
            (0..PLACES + 3).map(|n| joins.serve(Some(context(n as u64 + 1)), 0)).collect();
        assert!(!joins.look(KEY, 0).seen.is_all);
        let last = all.pop().unwrap();
        for served in all.drain(1..) {
            joins.answered(served, true, 0);
        }
        let seen = joins.look(KEY, 0).seen;
        assert_eq!((seen.ids().len(), seen.is_all, joins.open_count()), (1, false, 2));
        joins.answered(last, true, 0);
        assert_eq!(joins.only(&joins.look(KEY, 0), 0), Some(context(1)));
        joins.answered(all[0], true, 0);
        assert_eq!((joins.free.len(), joins.open.len()), (PLACES, 0));
    }
}
