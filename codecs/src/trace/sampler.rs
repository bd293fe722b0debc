//! Which new traces are reported. Asked for roots only: a child keeps its parent's decision,
//! unless the rule says otherwise.

use std::sync::Arc;

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
    /// `lowerbound`: an operation's guaranteed rate.
    LowerBound(f64),
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
}

impl Sampler {
    /// A sampler for one of `shards` shards.
    pub fn new(plan: Arc<SamplerPlan>, shards: usize) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let share = 1.0 / shards.max(1) as f64;
        Self { plan, share }
    }

    /// Goes on with another plan.
    pub fn replace(&mut self, plan: Arc<SamplerPlan>) {
        self.plan = plan;
    }

    /// Whether a parent's decision is taken over.
    pub fn is_parent_based(&self) -> bool {
        self.plan.parent_based
    }

    /// Decides about a new trace. The operation is `host` and `path`, of which `host` is empty for
    /// a server span.
    pub fn decide(&mut self, trace_id: u128, host: &[u8], path: &[u8], now_ns: u64) -> Verdict {
        let _ = (host, path, now_ns, self.share);
        match &self.plan.rule {
            SampleRule::Const(all) => Verdict { is_sampled: *all, tag: SamplerTag::Const(*all) },
            SampleRule::Probabilistic(share) => Verdict {
                is_sampled: is_within(trace_id, *share),
                tag: SamplerTag::Probabilistic(*share),
            },
            SampleRule::RateLimiting(rate) => {
                Verdict { is_sampled: false, tag: SamplerTag::RateLimiting(*rate) }
            }
            SampleRule::PerOperation(operations) => Verdict {
                is_sampled: is_within(trace_id, operations.default_share),
                tag: SamplerTag::Probabilistic(operations.default_share),
            },
        }
    }
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
