//! Which trace an exchange belongs to: its caller's, a remembered one, or a new one that the
//! sampler decides about.

use crate::{config::TracingConfig, sys::Nanos};
use netra_codecs::trace::{Extracted, Sampler, SamplerPlan, SamplerTag, TraceContext, TraceFlags};
use std::sync::Arc;

/// What is known about who caused an exchange, before anything is decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'c> {
    /// What the exchange itself carries.
    pub(crate) extracted: Extracted<'c>,
    /// What an exchange that it can be joined to has left behind.
    pub(crate) remembered: Option<TraceContext>,
}

/// Decides about traces; one for a shard.
#[derive(Debug)]
pub(crate) struct Tracer {
    sampler: Sampler,
    /// New traces get ids of 128 bits.
    wide_ids: bool,
}

impl Tracer {
    /// For one of `shards` shards.
    pub(super) fn new(config: &TracingConfig, shards: usize) -> Self {
        let sampler = Sampler::new(Arc::clone(&config.sampler), shards);
        Self { sampler, wide_ids: config.wide_ids }
    }

    /// Decides about new traces by this plan from now on.
    pub(super) fn sample(&mut self, plan: Arc<SamplerPlan>) {
        self.sampler.replace(plan);
    }

    /// Whether the sampler decides by operation, so that it is worth looking for.
    pub(crate) fn asks_for_operation(&self) -> bool {
        self.sampler.asks_for_operation()
    }

    /// The context of a call that belongs to some trace, and nobody knows yet to which one: until
    /// then it is one of its own.
    pub(crate) fn undecided(&self, random: &mut fastrand::Rng) -> TraceContext {
        let (trace_id, low) = self.new_id(random);
        TraceContext::root(trace_id, low, TraceFlags::SAMPLED)
    }

    /// As the Go client's: 63 random bits, and a root's span has the id of its trace.
    fn new_id(&self, random: &mut fastrand::Rng) -> (u128, u64) {
        let low = random.u64(1..=i64::MAX.cast_unsigned());
        let high = if self.wide_ids { random.u64(1..) } else { 0 };
        (u128::from(high) << 64 | u128::from(low), low)
    }

    /// The context of an exchange's span, and who decided about it if it is a root. The operation
    /// comes in the two parts that [`Sampler::decide`] puts together.
    #[inline]
    pub(crate) fn context(
        &mut self,
        caller: Caller<'_>,
        (host, path): (&[u8], &[u8]),
        random: &mut fastrand::Rng,
        now: Nanos,
    ) -> (TraceContext, Option<SamplerTag>) {
        let Caller { extracted, remembered } = caller;
        let flags_of = |sampled| if sampled { TraceFlags::SAMPLED } else { TraceFlags::NONE };
        if let Some(parent) = remembered {
            return (parent.child(random.u64(1..)), None);
        }
        if let Some(parent) = extracted.context {
            let mut context = parent.child(random.u64(1..));
            let is_debug =
                extracted.sampling.flags().is_some_and(|f| f.contains(TraceFlags::DEBUG));
            let decided =
                extracted.sampling.flags().filter(|_| is_debug || self.sampler.is_parent_based());
            context.flags = decided.unwrap_or_else(|| {
                flags_of(self.sampler.decide(context.trace_id, host, path, now).is_sampled)
            });
            return (context, None);
        }
        let (trace_id, low) = self.new_id(random);
        if let Some(flags) = extracted.sampling.flags() {
            return (TraceContext::root(trace_id, low, flags), None);
        }
        let verdict = self.sampler.decide(trace_id, host, path, now);
        let flags = flags_of(verdict.is_sampled);
        (TraceContext::root(trace_id, low, flags), Some(verdict.tag))
    }
}
