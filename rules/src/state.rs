//! What deciding remembers.

use crate::{
    balance::{Balance, Seat},
    limit::{Process, Shared},
    table::Table,
    verdict::{ClusterId, EndpointId, Route, RuleId},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// How often each rule decided on one shard: one writer, any reader.
#[derive(Debug)]
pub struct Hits(Box<[Hit]>);

#[derive(Debug, Default)]
struct Hit {
    all: AtomicU64,
    refused: AtomicU64,
    last_ns: AtomicU64,
}

/// How often a rule decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleHits {
    /// Messages.
    pub all: u64,
    /// Those of them that it refused; of a shadow, would have.
    pub refused: u64,
    /// When the last one was, on the clock of `now_ns`; 0 is never.
    pub last_ns: u64,
}

impl Hits {
    /// How often this rule decided.
    pub fn of(&self, rule: RuleId) -> RuleHits {
        self.0.get(rule.0 as usize).map_or(RuleHits::default(), |hit| RuleHits {
            all: hit.all.load(Relaxed),
            refused: hit.refused.load(Relaxed),
            last_ns: hit.last_ns.load(Relaxed),
        })
    }
}

/// What a shard remembers of its decisions by one table.
#[derive(Debug)]
pub struct State {
    hits: Arc<Hits>,
    process: Arc<Process>,
    borrowed: Box<[Borrowed]>,
}

/// Tokens of a limit that the shard has, and has not used.
#[derive(Debug)]
struct Borrowed {
    tokens: u32,
    block: u32,
    /// There are none before.
    empty_until_ns: u64,
}

impl State {
    /// For one of `shards` shards that decide by this table; `process` is of the same table.
    pub fn new(table: &Table, process: &Arc<Process>, shards: usize) -> Self {
        let hits = table.rules().iter().map(|_| Hit::default()).collect();
        let borrowed = |shared: &Arc<Shared>| Borrowed {
            tokens: 0,
            block: shared.bucket.block(shards),
            empty_until_ns: 0,
        };
        Self {
            hits: Arc::new(Hits(hits)),
            borrowed: process.buckets.iter().map(borrowed).collect(),
            process: Arc::clone(process),
        }
    }

    /// How often rules decided here.
    pub fn hits(&self) -> &Arc<Hits> {
        &self.hits
    }

    /// A rule has decided.
    #[inline]
    pub(crate) fn note(&self, rule: RuleId, is_refused: bool, now_ns: u64) {
        let Some(hit) = self.hits.0.get(rule.0 as usize) else { return };
        let add = |cell: &AtomicU64, more: u64| cell.store(cell.load(Relaxed) + more, Relaxed);
        add(&hit.all, 1);
        hit.last_ns.store(now_ns, Relaxed);
        if is_refused {
            add(&hit.refused, 1);
        }
    }

    /// A token of a limit, if there is one.
    pub(crate) fn take(&mut self, limit: usize, now_ns: u64) -> bool {
        let (Some(borrowed), Some(shared)) =
            (self.borrowed.get_mut(limit), self.process.buckets.get(limit))
        else {
            return true;
        };
        if borrowed.tokens == 0 {
            if now_ns < borrowed.empty_until_ns {
                return false;
            }
            match shared.take(borrowed.block, now_ns) {
                Ok(tokens) => borrowed.tokens = tokens,
                Err(until_ns) => {
                    borrowed.empty_until_ns = until_ns;
                    return false;
                }
            }
        }
        borrowed.tokens -= 1;
        true
    }

    /// A token of a limit for a key.
    pub(crate) fn take_key(&self, limit: usize, hash: Option<u64>, now_ns: u64) -> bool {
        self.process.buckets.get(limit).is_none_or(|shared| shared.take_key(hash, now_ns))
    }

    /// A cluster as it is now.
    #[inline]
    pub(crate) fn balance(&self, cluster: ClusterId) -> Option<&Balance> {
        self.process.balances.get(cluster.0 as usize).map(|balance| &**balance)
    }

    /// A connection's place at an endpoint that was just picked; None if it is `now` there. Messages
    /// that stay on their way have none.
    pub fn seat(&self, route: Route, now: Option<&Seat>) -> Option<Seat> {
        let balance = self.process.balances.get(route.cluster.0 as usize)?;
        if now.is_some_and(|now| now.is_at(balance, route.endpoint)) {
            return None;
        }
        Seat::new(balance, route.endpoint.0)
    }

    /// An endpoint for copies of messages, by chance: one that is well, if there is any. Neither turns nor
    /// what is known of endpoints change by it. None where there is none.
    pub fn mirror(&self, table: &Table, cluster: ClusterId, random: u64) -> Option<Route> {
        let balance = self.balance(cluster)?;
        let endpoint = EndpointId(balance.any(table.cluster(cluster)?, random)?);
        Some(Route { cluster, endpoint })
    }

    /// Whose turn it is: the next number of a split.
    #[inline]
    pub(crate) fn turn(&self, split: usize) -> u64 {
        self.process.turns.get(split).map_or(0, |turn| turn.fetch_add(1, Relaxed))
    }
}

impl Drop for State {
    /// A limit may outlive the table: what was borrowed of it goes back.
    fn drop(&mut self) {
        for (borrowed, shared) in self.borrowed.iter().zip(&self.process.buckets) {
            if borrowed.tokens > 0 {
                shared.give_back(borrowed.tokens);
            }
        }
    }
}
