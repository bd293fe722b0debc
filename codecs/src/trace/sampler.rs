//! Which new traces are reported. Asked for roots only: a child keeps its parent's decision,
//! unless the plan says otherwise.
//!
//! The rules are those of Jaeger's Go client, so that a service which moves to netra keeps its
//! rates. Time is an argument, and nothing is allocated for an operation that was seen before.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// How it is decided whether a new trace is reported.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleRule {
    /// All or none.
    Const(bool),
    /// This share of traces, 0 to 1, by trace id.
    Probabilistic(f64),
    /// So many traces a second at most, of the whole process.
    RateLimiting(f64),
    /// By operation, as a remote sampler may say.
    PerOperation(Operations),
}

/// Rules by operation name.
#[derive(Clone, Debug, PartialEq)]
pub struct Operations {
    /// The share for operations that are not named.
    pub default_share: f64,
    /// Traces a second that each operation gets at least.
    pub least_per_second: f64,
    /// Named operations and their share, sorted by name.
    pub shares: Vec<(Box<[u8]>, f64)>,
    /// Operations whose rate is kept; further ones go by `default_share` alone.
    pub operations_max: usize,
}

impl Operations {
    /// The share of a named operation, which is `host` and `path` in one.
    fn named(&self, host: &[u8], path: &[u8]) -> Option<f64> {
        let found = self.shares.binary_search_by(|(name, _)| compare(name, host, path)).ok()?;
        Some(self.shares[found].1)
    }
}

/// Compares a name with `host` and `path` in one.
fn compare(name: &[u8], host: &[u8], path: &[u8]) -> Ordering {
    match name.split_at_checked(host.len()) {
        Some((front, back)) => front.cmp(host).then_with(|| back.cmp(path)),
        // Shorter than the host alone: if it is the host's beginning, it comes first.
        None => name.cmp(host),
    }
}

/// A rule, and whether a parent's decision goes before it.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerPlan {
    /// The rule.
    pub rule: SampleRule,
    /// A trace that came from elsewhere keeps what was decided there.
    pub parent_based: bool,
    /// It was fetched from a sampling manager, or is what goes until then.
    pub is_remote: bool,
}

/// Which sampler decided, for the root span's `sampler.type` and `sampler.param`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SamplerTag {
    /// `const`
    Const(bool),
    /// `probabilistic`
    Probabilistic(f64),
    /// `ratelimiting`
    RateLimiting(f64),
    /// `lowerbound`: an operation's guaranteed rate. The number is the operation's share, which
    /// is what the Go client writes.
    LowerBound(f64),
}

impl SamplerTag {
    /// What the tag `sampler.type` says.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Const(_) => "const",
            Self::Probabilistic(_) => "probabilistic",
            Self::RateLimiting(_) => "ratelimiting",
            Self::LowerBound(_) => "lowerbound",
        }
    }
}

/// What was decided for a root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The trace is reported.
    pub is_sampled: bool,
    /// By whom.
    pub tag: SamplerTag,
}

/// A shard's own sampler: a plan and the credits it has left.
#[derive(Debug)]
pub struct Sampler {
    plan: Arc<SamplerPlan>,
    /// Share of the process's rates that is this shard's.
    share: f64,
    /// What [`SampleRule::RateLimiting`] has left.
    credit: Credit,
    /// What each operation has left, found by the hash of its name: two names with one hash share
    /// their credit, which hurts less than keeping names that peers choose.
    operations: HashTable<Operation>,
    hasher: FixedState,
    /// Counts plans, so that what an operation remembers of an old one is looked up again.
    plan_number: u32,
}

#[derive(Debug)]
struct Operation {
    hash: u64,
    plan_number: u32,
    share: f64,
    credit: Credit,
}

impl Sampler {
    /// A sampler for one of `shards` shards.
    pub fn new(plan: Arc<SamplerPlan>, shards: usize) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let share = 1.0 / shards.max(1) as f64;
        Self {
            credit: Credit::full(rate_of(&plan.rule) * share),
            plan,
            share,
            operations: HashTable::new(),
            hasher: FixedState::default(),
            plan_number: 0,
        }
    }

    /// Goes on with another plan. Credits that were used up stay so: a plan that comes every
    /// minute must not bring a burst every minute.
    pub fn replace(&mut self, plan: Arc<SamplerPlan>) {
        self.credit.adapt(rate_of(&self.plan.rule) * self.share, rate_of(&plan.rule) * self.share);
        self.plan_number = self.plan_number.wrapping_add(1);
        if !matches!(plan.rule, SampleRule::PerOperation(_)) {
            self.operations = HashTable::new();
        }
        self.plan = plan;
    }

    /// Whether a parent's decision is taken over.
    pub fn is_parent_based(&self) -> bool {
        self.plan.parent_based
    }

    /// Whether [`decide`](Self::decide) looks at the operation.
    pub fn asks_for_operation(&self) -> bool {
        matches!(self.plan.rule, SampleRule::PerOperation(_))
    }

    /// Decides about a new trace. The operation is `host` and `path`, of which `host` is empty for
    /// a server span.
    #[inline]
    pub fn decide(&mut self, trace_id: u128, host: &[u8], path: &[u8], now_ns: u64) -> Verdict {
        match &self.plan.rule {
            SampleRule::Const(all) => Verdict { is_sampled: *all, tag: SamplerTag::Const(*all) },
            SampleRule::Probabilistic(share) => by_share(trace_id, *share),
            _ => self.decide_by_rate(trace_id, host, path, now_ns),
        }
    }

    /// By a rule that keeps accounts.
    fn decide_by_rate(&mut self, trace_id: u128, host: &[u8], path: &[u8], now_ns: u64) -> Verdict {
        let Self { plan, share: shard, credit, .. } = self;
        match &plan.rule {
            SampleRule::Const(_) | SampleRule::Probabilistic(_) => by_share(trace_id, 0.0),
            SampleRule::RateLimiting(rate) => Verdict {
                is_sampled: credit.take(*rate * *shard, now_ns),
                tag: SamplerTag::RateLimiting(*rate),
            },
            SampleRule::PerOperation(operations) => {
                let mut hasher = self.hasher.build_hasher();
                hasher.write_usize(host.len());
                hasher.write(host);
                hasher.write(path);
                let found = find(
                    &mut self.operations,
                    operations,
                    (hasher.finish(), self.plan_number),
                    (host, path),
                    operations.least_per_second * self.share,
                );
                match found {
                    Some(operation) => {
                        operation.decide(trace_id, operations.least_per_second * self.share, now_ns)
                    }
                    None => by_share(trace_id, operations.default_share),
                }
            }
        }
    }
}

/// What is kept of an operation; none for those that are one too many.
fn find<'t>(
    table: &'t mut HashTable<Operation>,
    operations: &Operations,
    (hash, plan_number): (u64, u32),
    (host, path): (&[u8], &[u8]),
    rate: f64,
) -> Option<&'t mut Operation> {
    let share = || operations.named(host, path);
    if table.find(hash, |known| known.hash == hash).is_none() {
        let named = share();
        if named.is_none() && table.len() >= operations.operations_max {
            return None;
        }
        let share = named.unwrap_or(operations.default_share);
        let new = Operation { hash, plan_number, share, credit: Credit::full(rate) };
        table.insert_unique(hash, new, |known| known.hash);
    }
    let found = table.find_mut(hash, |known| known.hash == hash)?;
    if found.plan_number != plan_number {
        found.plan_number = plan_number;
        found.share = share().unwrap_or(operations.default_share);
    }
    Some(found)
}

impl Operation {
    /// By the operation's share; else by the rate that it is guaranteed. Both take from the credit,
    /// so that the guarantee adds nothing for an operation that is sampled often enough.
    fn decide(&mut self, trace_id: u128, rate: f64, now_ns: u64) -> Verdict {
        let is_credited = self.credit.take(rate, now_ns);
        let verdict = by_share(trace_id, self.share);
        if verdict.is_sampled {
            return verdict;
        }
        Verdict { is_sampled: is_credited, tag: SamplerTag::LowerBound(self.share) }
    }
}

/// The rate of a rule that has one.
fn rate_of(rule: &SampleRule) -> f64 {
    match rule {
        SampleRule::RateLimiting(rate) => *rate,
        _ => 0.0,
    }
}

/// A leaky bucket: it gains `rate` a second up to a second's worth, at least one, and a trace
/// costs one.
#[derive(Debug)]
struct Credit {
    balance: f64,
    since_ns: Option<u64>,
}

impl Credit {
    fn full(rate: f64) -> Self {
        Self { balance: most(rate), since_ns: None }
    }

    fn take(&mut self, rate: f64, now_ns: u64) -> bool {
        // The Go client lets one trace pass even at a rate of zero, which nobody means by it.
        if rate <= 0.0 {
            return false;
        }
        let elapsed_ns = now_ns.saturating_sub(self.since_ns.unwrap_or(now_ns));
        self.since_ns = Some(now_ns);
        #[allow(clippy::cast_precision_loss)]
        let gained = elapsed_ns as f64 / 1e9 * rate;
        self.balance = (self.balance + gained).min(most(rate));
        let is_enough = self.balance >= 1.0;
        if is_enough {
            self.balance -= 1.0;
        }
        is_enough
    }

    /// The same part of what there may be at most, at another rate.
    fn adapt(&mut self, from: f64, to: f64) {
        self.balance *= most(to) / most(from);
    }
}

fn most(rate: f64) -> f64 {
    rate.max(1.0)
}

fn by_share(trace_id: u128, share: f64) -> Verdict {
    Verdict { is_sampled: is_within(trace_id, share), tag: SamplerTag::Probabilistic(share) }
}

/// Jaeger's comparison: the low 63 bits of the trace id against the share of their range.
fn is_within(trace_id: u128, share: f64) -> bool {
    const RANGE: u64 = i64::MAX as u64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
    let boundary = (share * RANGE as f64) as u64;
    #[allow(clippy::cast_possible_truncation)]
    let low = trace_id as u64 & RANGE;
    low <= boundary && share > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn sampler(rule: SampleRule, shards: usize) -> Sampler {
        Sampler::new(plan(rule), shards)
    }

    fn plan(rule: SampleRule) -> Arc<SamplerPlan> {
        Arc::new(SamplerPlan { rule, parent_based: true, is_remote: false })
    }

    fn operations(least: f64, shares: &[(&str, f64)]) -> SampleRule {
        let shares = shares.iter().map(|(name, share)| (name.as_bytes().into(), *share)).collect();
        SampleRule::PerOperation(Operations {
            default_share: 0.0,
            least_per_second: least,
            shares,
            operations_max: 3,
        })
    }

    #[test]
    fn shares_are_of_the_low_63_bits() {
        const HALF: u128 = 1 << 62;
        for (share, trace_id, is_sampled) in [
            (1.0, u128::MAX, true),
            (1.0, 0, true),
            (0.0, 0, false),
            (0.5, HALF, true),
            (0.5, HALF + 1, false),
            (0.5, 1 << 63, true),
            (0.5, (7 << 64) | HALF, true),
            (0.001, (i64::MAX / 1000) as u128, true),
            (0.001, (i64::MAX / 999) as u128, false),
        ] {
            let verdict =
                sampler(SampleRule::Probabilistic(share), 2).decide(trace_id, b"", b"/", 0);
            assert_eq!(verdict.is_sampled, is_sampled, "{share} {trace_id:x}");
            assert_eq!(verdict.tag, SamplerTag::Probabilistic(share));
        }
        let verdict = sampler(SampleRule::Const(true), 1).decide(1, b"", b"/", 0);
        assert_eq!(verdict, Verdict { is_sampled: true, tag: SamplerTag::Const(true) });
        assert!(!sampler(SampleRule::Const(false), 1).decide(1, b"", b"/", 0).is_sampled);
    }

    /// Traces that pass when one is asked for every `every_ns`, from `from_ns` for `seconds`.
    fn passed(sampler: &mut Sampler, from_ns: u64, seconds: u64, every_ns: u64) -> usize {
        let times = (0..seconds * SECOND / every_ns).map(|number| from_ns + number * every_ns);
        times.filter(|now| sampler.decide(1, b"", b"/", *now).is_sampled).count()
    }

    #[test]
    fn rates_by_virtual_time() {
        const MS: u64 = 1_000_000;
        for (rate, shards, seconds, every_ns, count) in [
            // A second's worth is there at the beginning.
            (10.0, 1, 10, MS, 109..=110),
            (10.0, 2, 10, MS, 54..=55),
            // Slower than the rate: all.
            (10.0, 1, 10, 200 * MS, 50..=50),
            // Below one a second: one at the beginning, then at the rate.
            (0.5, 1, 10, MS, 5..=5),
            (0.5, 2, 20, MS, 5..=5),
            (0.0, 1, 10, MS, 0..=0),
        ] {
            let mut sampler = sampler(SampleRule::RateLimiting(rate), shards);
            let found = passed(&mut sampler, 7 * SECOND, seconds, every_ns);
            assert!(count.contains(&found), "{rate}/{shards}: {found} not in {count:?}");
        }
    }

    #[test]
    fn credits_do_not_pile_up_and_a_clock_that_goes_back_gives_none() {
        let mut sampler = sampler(SampleRule::RateLimiting(2.0), 1);
        assert_eq!(passed(&mut sampler, 0, 1, SECOND / 100), 3);
        let later = 1000 * SECOND;
        let burst = (0..10).filter(|_| sampler.decide(1, b"", b"/", later).is_sampled).count();
        assert_eq!(burst, 2);
        assert!(!sampler.decide(1, b"", b"/", SECOND).is_sampled);
    }

    #[test]
    fn another_plan_brings_no_burst() {
        let mut sampler = sampler(SampleRule::RateLimiting(5.0), 1);
        assert_eq!((0..9).filter(|_| sampler.decide(1, b"", b"/", 0).is_sampled).count(), 5);
        for rate in [5.0, 100.0, 5.0] {
            sampler.replace(plan(SampleRule::RateLimiting(rate)));
            let verdict = sampler.decide(1, b"", b"/", 0);
            assert_eq!(verdict, Verdict { is_sampled: false, tag: SamplerTag::RateLimiting(rate) });
        }
        sampler.replace(plan(SampleRule::Const(true)));
        assert!(sampler.decide(1, b"", b"/", 0).is_sampled);
    }

    #[test]
    fn operations_by_name_by_default_and_by_their_guaranteed_rate() {
        let mut sampler = sampler(operations(1.0, &[("/always", 1.0), ("b/c", 1.0)]), 1);
        for (host, path, at_seconds, is_sampled, tag) in [
            ("", "/always", 0, true, SamplerTag::Probabilistic(1.0)),
            ("", "/always", 0, true, SamplerTag::Probabilistic(1.0)),
            ("b", "/c", 0, true, SamplerTag::Probabilistic(1.0)),
            ("", "/rare", 0, true, SamplerTag::LowerBound(0.0)),
            ("", "/rare", 0, false, SamplerTag::LowerBound(0.0)),
            ("", "/rare", 1, true, SamplerTag::LowerBound(0.0)),
            // A fourth operation is one too many: by the default share alone.
            ("", "/new", 1, false, SamplerTag::Probabilistic(0.0)),
        ] {
            let now = at_seconds * SECOND;
            let verdict = sampler.decide(u128::MAX, host.as_bytes(), path.as_bytes(), now);
            assert_eq!(verdict, Verdict { is_sampled, tag }, "{host}{path} at {at_seconds}");
        }
        sampler.replace(plan(operations(1.0, &[("/new", 1.0), ("/rare", 0.5)])));
        for (path, is_sampled, tag) in [
            ("/always", true, SamplerTag::LowerBound(0.0)),
            ("/new", true, SamplerTag::Probabilistic(1.0)),
            ("/rare", false, SamplerTag::LowerBound(0.5)),
        ] {
            let verdict = sampler.decide(u128::MAX, b"", path.as_bytes(), SECOND);
            assert_eq!(verdict, Verdict { is_sampled, tag }, "{path}");
        }
    }

    #[test]
    fn a_share_that_is_enough_leaves_nothing_to_the_guarantee() {
        let mut sampler = sampler(operations(1.0, &[("/a", 0.5)]), 1);
        let (low, high) = (0, u128::MAX);
        assert_eq!(sampler.decide(low, b"", b"/a", 0).tag, SamplerTag::Probabilistic(0.5));
        assert!(!sampler.decide(high, b"", b"/a", 0).is_sampled);
    }

    #[test]
    fn names_are_compared_as_host_and_path_in_one() {
        let names = ["", "a", "ab", "ab/", "ab/c", "ab/d", "b"];
        for (index, name) in names.iter().enumerate() {
            for (other_index, other) in names.iter().enumerate() {
                for cut in 0..=other.len() {
                    let (host, path) = other.as_bytes().split_at(cut);
                    let order = compare(name.as_bytes(), host, path);
                    assert_eq!(order, index.cmp(&other_index), "{name} {other} at {cut}");
                }
            }
        }
    }
}
