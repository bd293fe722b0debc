//! What inbound requests leave behind for the outbound ones that belong to them, by request id.
//!
//! The kernel may accept a service's inbound connection on one shard and the outbound one on
//! another. So the shard that sees the inbound request puts what is to be remembered into its own
//! map and into every peer's mailbox *before* it forwards the head; a peer empties its mailboxes
//! before it looks anything up. The application can only ask after it was asked, so no look-up
//! can come too early, and nobody waits for another core.

use crate::sys::{self, Fd, Nanos};
use netra_codecs::{
    route::RouteText,
    trace::{KeySeed, RequestKey, TraceContext, TtlCounts, TtlMap},
};
use netra_perf::{Gauge, Key, Recorder};
use rtrb::{Consumer, Producer, RingBuffer};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::Duration,
};

/// Entries that a mailbox holds at most.
const CONTEXTS_MAX: usize = 1024;
const ROUTES_MAX: usize = 256;
/// Expired entries dropped in one go while the shard has nothing better to do.
const SWEEP: usize = 4096;

/// One kind of thing that is remembered: the map, and the way to the peers' maps.
#[derive(Debug)]
struct Memory<V> {
    map: TtlMap<V>,
    to_peers: Vec<(Producer<Remembered<V>>, Fd)>,
    from_peers: Vec<Consumer<Remembered<V>>>,
}

#[derive(Debug)]
struct Remembered<V> {
    key: RequestKey,
    value: V,
    at: Nanos,
}

impl<V: Clone> Memory<V> {
    /// Remembers here and tells the peers; returns how many of them have no room.
    fn put(&mut self, key: RequestKey, value: V, now: Nanos) -> u64 {
        let mut dropped = 0;
        for (mailbox, waker) in &mut self.to_peers {
            let entry = Remembered { key, value: value.clone(), at: now };
            dropped += u64::from(mailbox.push(entry).is_err());
            // A peer without traffic of its own empties its mailbox only when it is woken.
            if mailbox.slots() == mailbox.buffer().capacity() / 2 {
                sys::eventfd_notify(*waker);
            }
        }
        self.map.put(key, value, now);
        dropped
    }

    /// Takes in what the peers have sent. Where a request came back with the id that it went out
    /// with, its mailboxes are emptied in any order: the newest counts.
    fn receive(&mut self) {
        for mailbox in &mut self.from_peers {
            while let Ok(Remembered { key, value, at }) = mailbox.pop() {
                if self.map.peek(&key, at).is_none_or(|(_, since)| since <= at) {
                    self.map.put(key, value, at);
                }
            }
        }
    }

    fn get(&mut self, key: &RequestKey, now: Nanos) -> Option<&V> {
        self.receive();
        self.map.get(key, now)
    }
}

/// What is remembered once: the first value under a key stays for its time, on all shards.
impl<V: Clone + Ord> Memory<V> {
    /// Remembers here and tells the peers, unless another value is there already, which none is
    /// for.
    fn put_first(&mut self, key: RequestKey, value: V, now: Nanos) -> Option<u64> {
        self.receive_first();
        match self.map.peek(&key, now) {
            Some((known, _)) if *known != value => None,
            _ => Some(self.put(key, value, now)),
        }
    }

    /// Takes in what the peers have sent. Of two values that met on their way the one that was
    /// remembered first stays, and every shard takes the same of two that were at once.
    fn receive_first(&mut self) {
        for mailbox in &mut self.from_peers {
            while let Ok(Remembered { key, value, at }) = mailbox.pop() {
                let known = self.map.peek(&key, at);
                if known
                    .is_none_or(|(known, since)| *known == value || (at, &value) < (since, known))
                {
                    self.map.put(key, value, at);
                }
            }
        }
    }

    fn get_first(&mut self, key: &RequestKey, now: Nanos) -> Option<&V> {
        self.receive_first();
        self.map.get(key, now)
    }
}

/// What a shard remembers by request id.
#[derive(Debug)]
pub(crate) struct Correlation {
    seed: KeySeed,
    contexts: Memory<TraceContext>,
    routes: Memory<RouteText>,
    /// Entries that a peer did not get.
    dropped: u64,
}

/// How much is remembered, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub(crate) entries_max: u32,
    pub(crate) context_ttl: Duration,
    pub(crate) route_ttl: Duration,
}

/// A seed that no peer can guess: it comes from the system's random numbers.
pub(crate) fn seed() -> KeySeed {
    KeySeed::from_random([(); 3].map(|()| RandomState::new().build_hasher().finish()))
}

/// The memories of all shards, joined; `wakers` are the shards' eventfds.
pub(crate) fn correlate(seed: KeySeed, keep: Keep, wakers: &[Fd]) -> Vec<Correlation> {
    let contexts = memories(seed, keep.entries_max, keep.context_ttl, CONTEXTS_MAX, wakers);
    let routes = memories(seed, keep.entries_max / 8, keep.route_ttl, ROUTES_MAX, wakers);
    contexts
        .into_iter()
        .zip(routes)
        .map(|(contexts, routes)| Correlation { seed, contexts, routes, dropped: 0 })
        .collect()
}

fn memories<V>(
    seed: KeySeed,
    entries_max: u32,
    ttl: Duration,
    mailbox_max: usize,
    wakers: &[Fd],
) -> Vec<Memory<V>> {
    let ttl_ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
    let mut memories: Vec<_> = wakers
        .iter()
        .map(|_| Memory {
            map: TtlMap::new(entries_max, ttl_ns, &seed),
            to_peers: Vec::new(),
            from_peers: Vec::new(),
        })
        .collect();
    for from in 0..wakers.len() {
        for to in (0..wakers.len()).filter(|to| *to != from) {
            let (producer, consumer) = RingBuffer::new(mailbox_max);
            memories[from].to_peers.push((producer, wakers[to]));
            memories[to].from_peers.push(consumer);
        }
    }
    memories
}

impl Correlation {
    /// The key of a request id.
    pub(crate) fn key(&self, id: &[u8]) -> RequestKey {
        RequestKey::new(id, &self.seed)
    }

    /// Remembers the context of an inbound request's span.
    pub(crate) fn remember_context(&mut self, key: RequestKey, context: TraceContext, now: Nanos) {
        self.dropped += self.contexts.put(key, context, now);
    }

    /// The context of the inbound request with this id.
    pub(crate) fn context(&mut self, key: &RequestKey, now: Nanos) -> Option<TraceContext> {
        self.contexts.get(key, now).copied()
    }

    /// Remembers the routing value of an inbound request; false where another request had the same
    /// id and another value before.
    pub(crate) fn remember_route(&mut self, key: RequestKey, route: RouteText, now: Nanos) -> bool {
        let dropped = self.routes.put_first(key, route, now);
        self.dropped += dropped.unwrap_or(0);
        dropped.is_some()
    }

    /// The routing value of the inbound request with this id.
    pub(crate) fn route(&mut self, key: &RequestKey, now: Nanos) -> Option<RouteText> {
        self.routes.get_first(key, now).copied()
    }

    /// What is remembered of an inbound request whose route is not followed. It is no look-up that
    /// counts.
    pub(crate) fn refused_route(&mut self, key: &RequestKey, now: Nanos) -> Option<RouteText> {
        self.routes.receive_first();
        let known = self.routes.map.peek(key, now).map(|(route, _)| *route);
        known.filter(RouteText::is_refused)
    }

    /// Takes in what peers have sent.
    pub(crate) fn receive(&mut self) {
        self.contexts.receive();
        self.routes.receive_first();
    }

    /// Takes in what peers have sent and drops what has expired, while there is time.
    pub(crate) fn tend(&mut self, now: Nanos) {
        self.receive();
        self.contexts.map.sweep(now, SWEEP);
        self.routes.map.sweep(now, SWEEP);
    }

    /// Shows what has been done.
    pub(crate) fn record(&self, recorder: &Recorder) {
        let (contexts, routes) = (self.contexts.map.counts(), self.routes.map.counts());
        let sum = |of: fn(&TtlCounts) -> u64| of(&contexts) + of(&routes);
        recorder.put(Key::CONTEXT_HITS, sum(|c| c.hits));
        recorder.put(Key::CONTEXT_MISSES, sum(|c| c.misses));
        recorder.put(Key::CONTEXT_EVICTED, sum(|c| c.evicted));
        recorder.put(Key::REPLICATION_DROPPED, self.dropped);
        let entries = self.contexts.map.len() + self.routes.map.len();
        recorder.set(Gauge::ContextEntries, entries as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_codecs::trace::TraceFlags;

    const SEED: KeySeed = KeySeed::from_random([1, 2, 3]);

    fn shards(wakers: &[Fd]) -> Vec<Correlation> {
        let ttl = Duration::from_nanos(1000);
        correlate(SEED, Keep { entries_max: 4096, context_ttl: ttl, route_ttl: ttl }, wakers)
    }

    fn context(number: u64) -> TraceContext {
        TraceContext::root(number.into(), number, TraceFlags::SAMPLED)
    }

    #[test]
    fn every_shard_finds_what_any_shard_remembered_before() {
        for count in [1, 2, 4] {
            let wakers: Vec<_> = (0..count).map(|_| sys::eventfd().unwrap()).collect();
            let mut shards = shards(&wakers);
            for from in 0..count {
                let key = shards[from].key(format!("id-{from}").as_bytes());
                let number = from as u64 + 1;
                shards[from].remember_context(key, context(number), 5);
                let route = RouteText::new(b"a=b").unwrap();
                assert!(shards[from].remember_route(key, route, 5));
                for shard in &mut shards {
                    assert_eq!(shard.context(&key, 6), Some(context(number)));
                    assert_eq!(shard.route(&key, 6), Some(route));
                    assert_eq!(shard.context(&key, 1005), None);
                }
            }
            wakers.into_iter().for_each(sys::close);
        }
    }

    /// Whoever sends another's request id later, by whatever shard, changes nothing.
    #[test]
    fn the_first_route_of_a_request_id_stays_on_every_shard() {
        let [first, second] = [b"a=b", b"a=x"].map(|text| RouteText::new(text).unwrap());
        for count in [1, 2, 4] {
            let wakers: Vec<_> = (0..count).map(|_| sys::eventfd().unwrap()).collect();
            let mut shards = shards(&wakers);
            for later in 0..count {
                let key = shards[0].key(format!("id-{later}").as_bytes());
                assert!(shards[0].remember_route(key, first, 5));
                assert!(!shards[later].remember_route(key, second, 6));
                // The same value again, as of a request that is tried again, renews it.
                assert!(shards[later].remember_route(key, first, 900));
                for shard in &mut shards {
                    assert_eq!(shard.route(&key, 1500), Some(first), "{count} {later}");
                }
                assert!(shards[later].remember_route(key, second, 1900));
            }
            wakers.into_iter().for_each(sys::close);
        }
    }

    /// Two shards remember at once, before either has heard of the other: all agree in the end.
    #[test]
    fn of_two_routes_that_meet_on_their_way_all_shards_keep_the_first() {
        let [one, other] = [b"a=b", b"a=x"].map(|text| RouteText::new(text).unwrap());
        for (at, kept) in [((5, 6), one), ((6, 5), other), ((5, 5), one)] {
            let wakers = [(); 3].map(|()| sys::eventfd().unwrap());
            let mut shards = shards(&wakers);
            let key = shards[0].key(b"id");
            // What is on its way has not been taken in: the mailboxes are emptied by hand.
            let mut away: Vec<_> = shards[1].routes.from_peers.drain(..).collect();
            assert!(shards[0].remember_route(key, one, at.0));
            assert!(shards[1].remember_route(key, other, at.1));
            shards[1].routes.from_peers.append(&mut away);
            for shard in &mut shards {
                assert_eq!(shard.route(&key, 7), Some(kept), "{at:?}");
            }
            wakers.into_iter().for_each(sys::close);
        }
    }

    /// The same request comes in again, further down the chain of calls, on another shard.
    #[test]
    fn of_two_contexts_the_newer_counts_on_every_shard() {
        for (first, second) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
            let wakers = [(); 3].map(|()| sys::eventfd().unwrap());
            let mut shards = shards(&wakers);
            let key = shards[0].key(b"id");
            shards[first].remember_context(key, context(1), 5);
            shards[second].remember_context(key, context(2), 6);
            for shard in &mut shards {
                assert_eq!(shard.context(&key, 7), Some(context(2)), "{first} {second}");
            }
            wakers.into_iter().for_each(sys::close);
        }
    }

    #[test]
    fn a_peer_that_sleeps_is_woken_before_its_mailbox_is_full() {
        let wakers = [sys::eventfd().unwrap(), sys::eventfd().unwrap()];
        let mut shards = shards(&wakers);
        for number in 1..=CONTEXTS_MAX as u64 + 7 {
            let key = shards[0].key(&number.to_le_bytes());
            shards[0].remember_context(key, context(number), 1);
            if number == CONTEXTS_MAX as u64 / 2 {
                assert!(sys::eventfd_clear(wakers[1]), "half full and not woken");
            }
        }
        assert_eq!(shards[0].dropped, 7, "the bound is the mailbox's");
        let recorder = Recorder::default();
        shards[0].record(&recorder);
        assert_eq!(recorder.get(Key::REPLICATION_DROPPED), 7);
        shards[1].tend(2);
        let last = shards[1].key(&(CONTEXTS_MAX as u64).to_le_bytes());
        assert!(shards[1].context(&last, 3).is_some());
        shards[1].tend(2000);
        shards[1].record(&recorder);
        assert_eq!(recorder.gauge(Gauge::ContextEntries), 0);
        wakers.into_iter().for_each(sys::close);
    }
}
