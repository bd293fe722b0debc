//! Trace context: what it is, how it travels in headers, and how it is remembered between the
//! inbound request of a service and the outbound requests that belong to it.

pub mod context;
pub mod fault;
pub mod propagation;
pub mod request_id;
pub mod sampler;
pub mod span;
mod stream_facts;
mod text;
pub mod ttl_map;

pub use context::{TraceContext, TraceFlags};
pub use fault::{Fault, Flag};
pub use propagation::{
    Extracted, Format, Formats, FormatsError, Sampling, extract, extract_from, inject, may_be_trace,
};
pub use request_id::RequestId;
pub use sampler::{Operations, SampleRule, Sampler, SamplerPlan, SamplerTag, Verdict};
pub use span::{
    Join, LINKS_MAX, Outcome, RetryReason, SpanKind, SpanRecord, SpanText, TextsByKind, Tries,
    VALUE_BYTES_MAX,
};
pub use stream_facts::{GRPC_STATUSES, StreamFacts, is_grpc_error};
pub use ttl_map::{KeySeed, RequestKey, TtlCounts, TtlMap};
