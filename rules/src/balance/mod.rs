//! Clusters as they are now: which endpoint is asked next, how much is under way, who is left out.
//!
//! Everything here is counters that the shards of a process share: what documents limit is the
//! process's, and who is ejected is so for everybody. Endpoints keep what is known of them when rules
//! change. Time and chance are arguments, as everywhere in this crate.

mod check;
mod cluster;
mod levels;
mod member;
mod policy;
mod rate;
mod seat;

pub use check::{Checked, HealthCheck, Unwell};
pub(crate) use cluster::{ByHash, Hashed};
pub use cluster::{Cluster, Endpoint, EndpointAddress};
pub(crate) use levels::LEVELS_MAX;
use levels::Parts;
pub(crate) use member::Member;
pub use member::{CheckView, Ejected, EndpointView, Heard, Standing};
pub use policy::{Balancer, Breakers, Outlier, Retries, TrafficPolicy, Warmup};
pub use rate::SuccessRate;
use rate::Swept;
pub use seat::{Seat, TRIES_MAX};

use crate::{choice::pick, hash::mix};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

/// Places of a table of hashes that are looked at, one after the other.
const PLACES_MAX: u64 = 16;

/// What a cluster has under way, on all shards.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Shared {
    requests: AtomicU32,
    connections: AtomicU32,
    pending: AtomicU32,
    retrying: AtomicU32,
    turn: AtomicU64,
    /// How often somebody went out or came back.
    changes: AtomicU64,
    // What is seldom written.
    retries: AtomicU64,
    retries_refused: AtomicU64,
    refused: [AtomicU64; 3],
}

/// What of a cluster there is enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Connections.
    Connections = 0,
    /// Connections that are not there yet.
    Pending = 1,
    /// Messages without an answer.
    Requests = 2,
}

impl Full {
    /// All of them; the index is `full as usize`.
    pub const ALL: [Self; 3] = [Self::Connections, Self::Pending, Self::Requests];

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
        }
    }
}

/// Who was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picked {
    Endpoint(u32),
    /// There is none.
    Nobody,
    Full(Full),
}

/// A cluster of a table as it is now.
#[derive(Debug)]
pub(crate) struct Balance {
    name: Box<str>,
    policy: TrafficPolicy,
    /// How long answers take is of interest.
    measures: bool,
    endpoints: Box<[Endpoint]>,
    members: Box<[Arc<Member>]>,
    shared: Arc<Shared>,
    parts: Parts,
    swept: Swept,
}

/// What is known of clusters before: endpoints by cluster and address, and what clusters have under
/// way.
type Known<'b> =
    (HashMap<(&'b str, String), &'b Arc<Member>>, HashMap<&'b str, (&'b Arc<Shared>, Swept)>);

impl Balance {
    /// For the clusters of a table that is in force from `now_ns` on. Endpoints that were there
    /// `before` stay what they were, and those that were not are new.
    pub(crate) fn of_all(
        clusters: &[Cluster],
        before: &[Arc<Self>],
        now_ns: u64,
    ) -> Box<[Arc<Self>]> {
        let (mut members, mut shared): Known<'_> = Default::default();
        for balance in before {
            shared.insert(&balance.name, (&balance.shared, balance.swept.clone()));
            for (endpoint, member) in balance.endpoints.iter().zip(&balance.members) {
                members.insert((&balance.name, endpoint.address.to_string()), member);
            }
        }
        // Two clusters of one name (other ports) have one budget, and an endpoint of both is one.
        let (mut new_members, mut new_shared) = (HashMap::new(), HashMap::new());
        let mut of = |cluster: &Cluster| {
            let known = shared.get(&*cluster.name);
            let was_there = known.map(|(shared, _)| *shared);
            let mut member = |endpoint: &Endpoint| {
                let key = (&*cluster.name, endpoint.address.to_string());
                if let Some(member) = members.get(&key) {
                    if cluster.policy.check.is_none() {
                        member.unchecked();
                    }
                    return Arc::clone(member);
                }
                let made = new_members.entry((cluster.name.clone(), key.1)).or_insert_with(|| {
                    let member = Member::default();
                    if was_there.is_some() {
                        member.born_ns.store(now_ns.max(1), Relaxed);
                        member.changed_ns.store(now_ns.max(1), Relaxed);
                    }
                    Arc::new(member)
                });
                Arc::clone(made)
            };
            let members = cluster.endpoints.iter().map(&mut member).collect();
            let shared = was_there.map_or_else(
                || Arc::clone(new_shared.entry(cluster.name.clone()).or_default()),
                Arc::clone,
            );
            Arc::new(Self {
                name: cluster.name.clone(),
                measures: cluster.policy.balancer == Balancer::PeakEwma,
                policy: cluster.policy.clone(),
                endpoints: cluster.endpoints.clone(),
                members,
                shared,
                parts: Parts::default(),
                swept: known.map(|(_, swept)| swept.clone()).unwrap_or_default(),
            })
        };
        clusters.iter().map(&mut of).collect()
    }

    /// Whether the seat is one here, as far as can be seen at once.
    #[inline]
    pub(crate) fn holds(&self, seat: &Seat) -> bool {
        let member = self.members.get(seat.index as usize);
        member.is_some_and(|member| Arc::ptr_eq(member, &seat.member))
    }

    /// Who is asked next. `draw` is chance: of a message, or always the same of a connection.
    #[inline]
    pub(crate) fn pick(
        &self,
        cluster: &Cluster,
        hash: Option<u64>,
        seat: Option<&Seat>,
        (now_ns, draw): (u64, u64),
    ) -> Picked {
        let breakers = &self.policy.breakers;
        if self.shared.requests.load(Relaxed) >= breakers.requests {
            return self.full(Full::Requests);
        }
        let here = seat.and_then(|seat| seat.index_in(self));
        let may_stay =
            |here: &u32| seat.is_some_and(Seat::may_stay) && self.has_turn(cluster, *here);
        let kept = here.filter(may_stay);
        let is_free = hash.is_none() && !self.policy.by_message;
        if let (Some(kept), true) = (kept, is_free) {
            return Picked::Endpoint(kept);
        }
        let picked = match hash {
            Some(hash) => self.hashed(cluster, hash, now_ns),
            None => self.free(cluster, now_ns, draw),
        };
        let Some(picked) = picked else { return Picked::Nobody };
        // Who goes on in the cluster leaves a connection for each that is made.
        if here.is_none() {
            if self.shared.connections.load(Relaxed) >= breakers.connections {
                return self.full(Full::Connections);
            }
            if self.shared.pending.load(Relaxed) >= breakers.pending {
                return self.full(Full::Pending);
            }
        }
        Picked::Endpoint(picked)
    }

    /// Somebody who is well, by weight and chance, or else anybody: for who counts nowhere.
    pub(crate) fn any(&self, cluster: &Cluster, draw: u64) -> Option<u32> {
        let schedule = &*cluster.schedule;
        let places = || (0..schedule.len() as u64).map(|more| draw.wrapping_add(more));
        let found = places().filter_map(|place| pick(schedule, place)).find(|it| self.is_in(*it));
        found.or_else(|| pick(schedule, draw))
    }

    #[cold]
    fn full(&self, full: Full) -> Picked {
        self.shared.refused[full as usize].fetch_add(1, Relaxed);
        Picked::Full(full)
    }

    /// Whether this one may be asked: it is in, or whoever asks shows whether it is well again.
    #[inline]
    fn may_be(&self, index: u32, now_ns: u64) -> bool {
        let Some(member) = self.members.get(index as usize) else { return false };
        member.is_in() || self.may_be_again(member, now_ns)
    }

    #[cold]
    fn may_be_again(&self, member: &Member, now_ns: u64) -> bool {
        let outlier = self.policy.outlier.as_ref();
        !member.is_unhealthy() && outlier.is_none_or(|outlier| member.claim(outlier, now_ns))
    }

    /// One that no hash says.
    #[inline]
    fn free(&self, cluster: &Cluster, now_ns: u64, draw: u64) -> Option<u32> {
        let schedule = match &*cluster.levels {
            [] => &*cluster.schedule,
            levels => match self.turn(levels, now_ns, draw) {
                Ok(schedule) => schedule,
                Err(due) => return Some(due),
            },
        };
        if let [only] = *schedule {
            return Some(only);
        }
        let first = match self.policy.balancer {
            Balancer::RoundRobin => pick(schedule, self.shared.turn.fetch_add(1, Relaxed)),
            _ => drawn(schedule, draw),
        };
        let first = self.warm(first?, schedule, now_ns, draw);
        match self.policy.balancer {
            Balancer::RoundRobin | Balancer::Random if self.may_be(first, now_ns) => Some(first),
            Balancer::RoundRobin => self.next_turn(schedule, now_ns),
            Balancer::Random => self.next(schedule, mix(draw), now_ns),
            Balancer::LeastRequest | Balancer::PeakEwma => {
                self.better(schedule, first, now_ns, draw)
            }
        }
    }

    /// The better of one and another.
    #[inline]
    fn better(&self, schedule: &[u32], first: u32, now_ns: u64, draw: u64) -> Option<u32> {
        let mut second = drawn_beside(schedule, draw)?;
        if second == first {
            // It has several places, or stands in for one that is still new: once more.
            second = drawn(schedule, draw.rotate_left(17))?;
        }
        match (self.is_in(first), self.is_in(second)) {
            (true, true) if self.load(second, now_ns) < self.load(first, now_ns) => Some(second),
            (true, true) => Some(first),
            (_, is_in) => self.rest(schedule, (first, second), is_in, (now_ns, draw)),
        }
    }

    /// One of two of which not both are in: who is due shows what it is like now.
    #[cold]
    fn rest(
        &self,
        schedule: &[u32],
        (first, second): (u32, u32),
        is_second_in: bool,
        (now_ns, draw): (u64, u64),
    ) -> Option<u32> {
        if self.may_be(first, now_ns) {
            return Some(first);
        }
        if is_second_in || self.may_be(second, now_ns) {
            return Some(second);
        }
        self.next(schedule, mix(draw), now_ns)
    }

    #[inline]
    fn is_in(&self, index: u32) -> bool {
        self.members.get(index as usize).is_some_and(|it| it.is_in())
    }

    /// What an endpoint has to do.
    #[inline]
    fn load(&self, index: u32, now_ns: u64) -> u64 {
        let Some(member) = self.members.get(index as usize) else { return u64::MAX };
        let requests = u64::from(member.requests.load(Relaxed)) + 1;
        match self.policy.balancer {
            Balancer::PeakEwma => member.cost_us(now_ns).saturating_add(1).saturating_mul(requests),
            // Connections say who is busy where nobody asks anything now. Weights say who is drawn.
            _ => requests << 32 | u64::from(member.connections.load(Relaxed)),
        }
    }

    /// Whose turn it is next of those that may be asked: turns of the others are over, too.
    #[cold]
    fn next_turn(&self, schedule: &[u32], now_ns: u64) -> Option<u32> {
        let turn = || pick(schedule, self.shared.turn.fetch_add(1, Relaxed));
        let mut turns = (0..schedule.len()).filter_map(|_| turn());
        turns.find(|index| self.may_be(*index, now_ns)).or_else(turn)
    }

    /// The first from a place of the schedule on that may be asked; where nobody may, one of them.
    #[cold]
    fn next(&self, schedule: &[u32], from: u64, now_ns: u64) -> Option<u32> {
        let len = schedule.len() as u64;
        let places = || (0..len).filter_map(|more| pick(schedule, from.wrapping_add(more)));
        let found = places().find(|index| self.may_be(*index, now_ns));
        found.or_else(|| places().next())
    }

    /// That one, or another where it is new and it is not its turn.
    #[inline]
    fn warm(&self, first: u32, schedule: &[u32], now_ns: u64, draw: u64) -> u32 {
        if self.policy.warmup.is_none() {
            return first;
        }
        self.warmer(first, schedule, now_ns, draw)
    }

    #[cold]
    fn warmer(&self, first: u32, schedule: &[u32], now_ns: u64, draw: u64) -> u32 {
        let Some(warmup) = &self.policy.warmup else { return first };
        let (mut index, mut draw) = (first, draw);
        // Where all are new, all are equal: somebody is taken.
        for _ in 0..4 {
            let born = self.members.get(index as usize).map_or(0, |it| it.born_ns.load(Relaxed));
            draw = mix(draw.wrapping_add(0x9e37_79b9_7f4a_7c15));
            let is_taken = born == 0 || draw & 0xffff < warmup.part(now_ns.saturating_sub(born));
            if is_taken {
                break;
            }
            index = drawn(schedule, draw.rotate_left(16)).unwrap_or(index);
        }
        index
    }

    /// The one that a hash says; where that may not be asked, the next of the table.
    #[inline]
    fn hashed(&self, cluster: &Cluster, hash: u64, now_ns: u64) -> Option<u32> {
        let first = cluster.hashed(hash, 0)?;
        let most = self.most_hashed();
        if self.requests_of(first) < most && self.may_be(first, now_ns) {
            return Some(first);
        }
        let places = (1..PLACES_MAX).filter_map(|more| cluster.hashed(hash, more));
        let found =
            places.clone().find(|it| self.requests_of(*it) < most && self.may_be(*it, now_ns));
        let all = (0..self.members.len() as u64).filter_map(|more| {
            u32::try_from(hash.wrapping_add(more) % self.members.len() as u64).ok()
        });
        let any = || {
            // The bound holds while somebody is below it, and so does that nobody is out.
            let in_order = all.clone().filter(|it| self.is_in(*it));
            let free = in_order.clone().filter(|it| self.requests_of(*it) < most);
            let level = |it: &u32| self.level(*it);
            free.min_by_key(level).or_else(|| in_order.min_by_key(level))
        };
        found.or_else(any).or(Some(first))
    }

    fn requests_of(&self, index: u32) -> u32 {
        self.members.get(index as usize).map_or(u32::MAX, |it| it.requests.load(Relaxed))
    }

    /// At so many messages an endpoint has as many as a hash may give it.
    #[inline]
    fn most_hashed(&self) -> u32 {
        let percent = u64::from(self.policy.hash_bound_percent);
        if percent == 0 {
            return u32::MAX;
        }
        let all = u64::from(self.shared.requests.load(Relaxed)) + 1;
        let most = (all * percent).div_ceil(100 * (self.members.len() as u64).max(1));
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// The one with the least to do, of those that were not tried.
    fn other(&self, tried: &[u32], now_ns: u64) -> Option<u32> {
        let count = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let others = || (0..count).filter(|index| !tried.contains(index));
        let of = |index: &u32| self.endpoints.get(*index as usize).is_some_and(|it| it.weight > 0);
        let found = others()
            .filter(of)
            .filter(|it| self.is_in(*it))
            .min_by_key(|it| (self.level(*it), self.load(*it, now_ns)));
        found.or_else(|| others().find(of))
    }

    fn level(&self, index: u32) -> u8 {
        self.endpoints.get(index as usize).map_or(0, |it| it.level)
    }

    /// Whether one more may be left out.
    fn may_eject(&self, outlier: &Outlier) -> bool {
        let all = self.members.len() as u64;
        let out = self.members.iter().filter(|it| !it.is_in()).count() as u64;
        // What checks have taken out is none of what may be ejected.
        let ejected = out - self.members.iter().filter(|it| it.is_unhealthy()).count() as u64;
        let percent = u64::from(outlier.percent_max);
        let most = if percent == 0 { 0 } else { (all * percent / 100).max(1) };
        let is_healthy =
            (all - out).saturating_sub(1) * 100 >= all * u64::from(outlier.health_percent_min);
        ejected < most && out + 1 < all && is_healthy
    }

    pub(crate) fn view(&self, cluster: &Cluster, now_ns: u64) -> ClusterView {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let endpoints = self.endpoints.iter().zip(&self.members);
        ClusterView {
            name: self.name.clone(),
            policy: self.policy.in_words(cluster.is_hashed()),
            requests: self.shared.requests.load(Relaxed),
            connections: self.shared.connections.load(Relaxed),
            pending: self.shared.pending.load(Relaxed),
            retries: load(&self.shared.retries),
            retries_refused: load(&self.shared.retries_refused),
            refused: Full::ALL.map(|full| load(&self.shared.refused[full as usize])),
            parts: self.percents(cluster),
            endpoints: endpoints
                .map(|(endpoint, member)| EndpointView {
                    address: endpoint.address.clone(),
                    weight: endpoint.weight,
                    level: endpoint.level,
                    standing: member.standing(&self.policy, now_ns),
                    requests: member.requests.load(Relaxed),
                    connections: member.connections.load(Relaxed),
                    ejections: load(&member.ejections),
                    answers: load(&member.answers),
                    failures: load(&member.failures),
                    changed_ns: load(&member.changed_ns),
                    check: self.policy.check.as_ref().and_then(|_| member.check_view()),
                    checks: [load(&member.checks[0]), load(&member.checks[1])],
                })
                .collect(),
        }
    }
}

/// What is told of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Its name.
    pub name: Box<str>,
    /// What is done with its endpoints, in words.
    pub policy: String,
    /// Messages without an answer.
    pub requests: u32,
    /// Connections.
    pub connections: u32,
    /// Of them, those that are not there yet.
    pub pending: u32,
    /// Messages that were tried again at another endpoint.
    pub retries: u64,
    /// Messages that were not, for want of budget.
    pub retries_refused: u64,
    /// Messages that were refused, by [`Full`].
    pub refused: [u64; 3],
    /// What percent of messages each level of endpoints has; empty where all are one.
    pub parts: Vec<u8>,
    /// What it consists of.
    pub endpoints: Vec<EndpointView>,
}

/// The place of a schedule that chance says.
#[inline]
fn drawn(schedule: &[u32], draw: u64) -> Option<u32> {
    let place = below(schedule.len() as u64, draw);
    schedule.get(usize::try_from(place).ok()?).copied()
}

/// Another place of a schedule of two or more than the one that [`drawn`] says, each as likely. Who
/// is compared with itself is picked however busy it is.
#[inline]
fn drawn_beside(schedule: &[u32], draw: u64) -> Option<u32> {
    let len = schedule.len() as u64;
    let place = below(len, draw) + 1 + below(len.saturating_sub(1), draw.rotate_left(32));
    let place = if place < len { place } else { place - len };
    schedule.get(usize::try_from(place).ok()?).copied()
}

/// A number below the bound by the upper half of a draw: no division.
#[inline]
fn below(bound: u64, draw: u64) -> u64 {
    ((draw >> 32) * bound) >> 32
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
