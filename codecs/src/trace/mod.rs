//! Trace context: what it is, how it travels in headers, and how it is remembered between the
//! inbound request of a service and the outbound requests that belong to it.

pub mod context;
pub mod propagation;
pub mod request_id;
pub mod sampler;
pub mod span;
mod text;
pub mod ttl_map;

pub use context::{TraceContext, TraceFlags};
pub use propagation::{
    Extracted, Format, Formats, FormatsError, Sampling, extract, extract_from, inject,
};
pub use request_id::RequestId;
pub use sampler::{Operations, SampleRule, Sampler, SamplerPlan, SamplerTag, Verdict};
pub use span::{Outcome, SpanKind, SpanRecord, SpanText};
pub use ttl_map::{KeySeed, RequestKey, TtlCounts, TtlMap};

/// What a shard remembers of inbound requests: request id to the context of the server span.
pub type ContextMap = TtlMap<TraceContext>;
