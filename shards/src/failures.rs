//! What has failed on a shard: the last failures, and the destinations that fail most. Both are
//! bounded, and nothing is written here while nothing fails.

use crate::access::ConnectionRecord;
use netra_codecs::trace::Flag;
use std::{collections::VecDeque, net::SocketAddr};

/// Failures that are kept.
pub const FAILURES_KEPT: usize = 100;
/// Destinations that are counted at a time, each by what failed.
pub const DESTINATIONS_COUNTED: usize = 128;

/// How often something failed at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Where it was; none where that was not known.
    pub address: Option<SocketAddr>,
    /// What failed.
    pub flag: Flag,
    /// How often: no less than it did.
    pub count: u64,
    /// By how much that may be too high; 0 is an exact count.
    pub excess: u64,
    /// When it last did, in nanoseconds of Unix time.
    pub last_unix_ns: u64,
}

/// What a shard tells of its failures.
#[derive(Clone, Debug, Default)]
pub struct FailuresView {
    /// All that there were.
    pub total: u64,
    /// The last of them, oldest first.
    pub last: Vec<ConnectionRecord>,
    /// The destinations, in no order.
    pub destinations: Vec<Destination>,
}

/// A shard's failures.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    total: u64,
    last: VecDeque<ConnectionRecord>,
    top: Top,
}

impl Failures {
    /// Takes a failure in.
    pub(crate) fn note(&mut self, record: &ConnectionRecord) {
        let Some(fault) = record.fault else { return };
        self.total += 1;
        if self.last.len() == FAILURES_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(record.clone());
        let address = record.dialled.or(record.original_dst);
        self.top.count(address, fault.flag, record.end_unix_ns());
    }

    /// As it is now.
    pub(crate) fn view(&self) -> FailuresView {
        FailuresView {
            total: self.total,
            last: self.last.iter().cloned().collect(),
            destinations: self.top.counted.clone(),
        }
    }
}

/// The space-saving sketch of Metwally and others: whoever is new takes the place of the one with
/// the least, and begins from its count. What is frequent is never lost, no count is too low, and
/// by how much one may be too high is known.
#[derive(Debug, Default)]
struct Top {
    counted: Vec<Destination>,
}

impl Top {
    fn count(&mut self, address: Option<SocketAddr>, flag: Flag, last_unix_ns: u64) {
        let is_it = |it: &&mut Destination| it.address == address && it.flag == flag;
        if let Some(known) = self.counted.iter_mut().find(is_it) {
            known.count += 1;
            known.last_unix_ns = last_unix_ns;
            return;
        }
        let new = Destination { address, flag, count: 1, excess: 0, last_unix_ns };
        if self.counted.len() < DESTINATIONS_COUNTED {
            return self.counted.push(new);
        }
        if let Some(least) = self.counted.iter_mut().min_by_key(|it| it.count) {
            *least = Destination { count: least.count + 1, excess: least.count, ..new };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_codecs::trace::Fault;
    use std::collections::HashMap;

    fn address(n: u32) -> SocketAddr {
        SocketAddr::from((n.to_be_bytes(), 80))
    }

    #[test]
    fn the_last_are_kept_and_all_are_counted() {
        let mut failures = Failures::default();
        for n in 0..107 {
            let record = ConnectionRecord {
                original_dst: Some(address(n % 3)),
                fault: Some(Fault::with_errno(Flag::UpstreamRefused, 111)),
                start_unix_ns: n.into(),
                ..ConnectionRecord::default()
            };
            failures.note(&record);
        }
        failures.note(&ConnectionRecord::default());
        let view = failures.view();
        assert_eq!((view.total, view.last.len()), (FAILURES_KEPT as u64 + 7, FAILURES_KEPT));
        assert_eq!((view.last[0].start_unix_ns, view.destinations.len()), (7, 3));
        assert_eq!(view.destinations.iter().map(|it| it.count).sum::<u64>(), view.total);
    }

    /// Against the true counts, with ten times as many destinations as there is room for.
    #[test]
    fn counts_are_right_within_what_they_say_and_the_frequent_are_there() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut top, mut truth, all) = (Top::default(), HashMap::new(), 40_000);
            for at in 0..all {
                // Half of it goes to four.
                let range = if random.bool() { 0..4 } else { 4..1280 };
                let of = address(random.u32(range));
                *truth.entry(of).or_insert(0u64) += 1;
                top.count(Some(of), Flag::DialTimeout, at);
            }
            assert_eq!(top.counted.len(), DESTINATIONS_COUNTED);
            for it in &top.counted {
                let true_count = truth[&it.address.unwrap()];
                assert!(it.count >= true_count && it.count - it.excess <= true_count, "{it:?}");
            }
            assert_eq!(top.counted.iter().map(|it| it.count).sum::<u64>(), all);
            for frequent in (0..4).map(address) {
                let found = top.counted.iter().find(|it| it.address == Some(frequent)).unwrap();
                assert_eq!((found.count, found.excess), (truth[&frequent], 0));
            }
        }
    }
}
