//! Netra's own dials, recognised when they come back. Where the rules do not leave netra's user
//! alone, they redirect what netra dials to netra, which dials it again, and so on until the
//! connections are used up.
//!
//! To know a dial again takes a call for its local address. So only some are noted: one in
//! [`NOTED_EVERY`], and the first after a while. A loop is nothing but dials of its own, and one of
//! them that comes back is enough: then all dials are noted for some time.

use crate::sys::Nanos;
use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    num::NonZeroU8,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// One dial in so many is noted.
const NOTED_EVERY: u32 = 16;
/// So is the first after so long.
const NOTED_AFTER_NS: Nanos = 100_000_000;
/// When one has come back, all are for so long.
const ALERT_NS: Nanos = 60_000_000_000;
/// Places for noted dials; a newer one takes the place of an older one.
const PLACES: usize = 255;

/// Noted dials of all shards.
#[derive(Debug)]
pub(crate) struct Noted {
    /// What names a dial, by its local port; 0 is none.
    places: [AtomicU64; PLACES],
    /// All dials are noted until then.
    alert_until: AtomicU64,
    names: RandomState,
}

impl Default for Noted {
    fn default() -> Self {
        Self {
            places: [const { AtomicU64::new(0) }; PLACES],
            alert_until: AtomicU64::new(0),
            names: RandomState::new(),
        }
    }
}

impl Noted {
    /// Both addresses of a connection are nobody else's as long as it lives.
    fn name(&self, local: SocketAddr, to: SocketAddr) -> u64 {
        self.names.hash_one((local.ip(), local.port(), to.ip(), to.port())).max(1)
    }
}

/// Where a dial is noted, counted from 1.
type Place = NonZeroU8;

/// A shard's view of them.
#[derive(Debug)]
pub(crate) struct OwnDials {
    noted: Arc<Noted>,
    /// Dials since the last that was noted, and when that was.
    since: u32,
    noted_at: Nanos,
    /// Where the dials of its connections are noted, by slot.
    places: Vec<Option<Place>>,
}

impl OwnDials {
    pub(crate) fn new(noted: Arc<Noted>) -> Self {
        Self { noted, since: 0, noted_at: 0, places: Vec::new() }
    }

    /// Whether the dial that has just begun is to be noted.
    #[inline]
    pub(crate) fn is_due(&mut self, now: Nanos) -> bool {
        self.since += 1;
        let is_due = self.since >= NOTED_EVERY
            || now.saturating_sub(self.noted_at) >= NOTED_AFTER_NS
            || now < self.noted.alert_until.load(Relaxed);
        if is_due {
            (self.since, self.noted_at) = (0, now);
        }
        is_due
    }

    /// Notes the dial of the connection in this slot, until it is [forgotten](Self::forget).
    pub(crate) fn note(&mut self, slot: u32, local: SocketAddr, to: SocketAddr) {
        let (slot, index) = (slot as usize, index_of(local));
        self.noted.places[usize::from(index)].store(self.noted.name(local, to), Relaxed);
        if self.places.len() <= slot {
            self.places.resize(slot + 1, None);
        }
        self.places[slot] = Some(Place::MIN.saturating_add(index));
    }

    /// The upstreams of these slots have changed places.
    pub(crate) fn exchange(&mut self, [one, other]: [u32; 2]) {
        let (one, other) = (one as usize, other as usize);
        if self.places.len() <= one.max(other) {
            self.places.resize(one.max(other) + 1, None);
        }
        self.places.swap(one, other);
    }

    /// The upstream of the connection in this slot is about to be closed: its addresses may be
    /// somebody else's soon. (Where a newer dial has taken the place, that one is forgotten early;
    /// there will be others.)
    #[inline]
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(place) = self.places.get_mut(slot as usize).and_then(Option::take) {
            self.noted.places[usize::from(place.get() - 1)].store(0, Relaxed);
        }
    }

    /// Whether a connection from `caller` to `to` is a dial of netra's own that has come back.
    #[inline]
    pub(crate) fn is_own(&self, caller: SocketAddr, to: SocketAddr) -> bool {
        let name = self.noted.places[usize::from(index_of(caller))].load(Relaxed);
        name != 0 && name == self.noted.name(caller, to)
    }

    /// One has come back.
    pub(crate) fn alert(&self, now: Nanos) {
        self.noted.alert_until.store(now + ALERT_NS, Relaxed);
    }
}

fn index_of(local: SocketAddr) -> u8 {
    u8::try_from(usize::from(local.port()) % PLACES).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_dial_is_known_again_by_both_its_addresses_on_every_shard_until_it_is_forgotten() {
        let noted = Arc::new(Noted::default());
        let [mut here, there] = [Arc::clone(&noted), noted].map(OwnDials::new);
        let (local, to) = (address("10.0.0.2:40000"), address("10.0.0.9:80"));
        assert!(!there.is_own(local, to));
        here.note(3, local, to);
        assert!(there.is_own(local, to));
        assert!(!there.is_own(local, address("10.0.0.9:81")));
        assert!(!there.is_own(address("10.0.0.3:40000"), to));
        here.forget(2);
        assert!(there.is_own(local, to));
        here.forget(3);
        assert!(!there.is_own(local, to));
    }

    #[test]
    fn few_dials_are_noted_until_one_comes_back() {
        let noted = Arc::new(Noted::default());
        let [mut here, there] = [Arc::clone(&noted), noted].map(OwnDials::new);
        let mut noted_of = |from, dials| (0..dials).filter(|n| here.is_due(from + n)).count();
        assert_eq!(noted_of(NOTED_AFTER_NS, 1), 1, "the first");
        assert_eq!(noted_of(NOTED_AFTER_NS + 1, 160), 10);
        assert_eq!(noted_of(3 * NOTED_AFTER_NS, 1), 1, "the first after a while");
        there.alert(3 * NOTED_AFTER_NS);
        assert_eq!(noted_of(3 * NOTED_AFTER_NS + 1, 160), 160);
        assert_eq!(noted_of(4 * NOTED_AFTER_NS + ALERT_NS, 161), 11);
    }
}
