//! The forms in which spans come: OTLP as protobuf and JSON, Jaeger's thrift. What is read becomes a
//! [`Batch`](crate::batch::Batch); what cannot be read is refused as a whole.

pub(crate) mod jaeger;
pub(crate) mod otlp;
pub(crate) mod otlp_json;
mod protobuf;
mod thrift;

/// What came is not what it was said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;
