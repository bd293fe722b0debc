//! What a shard records, and how it is read: plain cells with one writer, merged when somebody
//! looks. Nothing here is shared between two data cores, and nothing here allocates, locks or
//! reads a clock on the shard.
#![deny(unsafe_code)]

pub mod exchanges;
pub mod exemplars;
pub mod exposition;
pub mod histogram;
pub mod labels;
pub mod metrics;
pub mod otlp;
pub mod process;
pub mod profile;
mod protobuf;
pub mod recorder;
mod sys;

pub use exchanges::{ExchangeStage, Exchanges, ProtocolTable};
pub use exemplars::{Exemplar, Exemplars};
pub use exposition::{Exposition, Format};
pub use histogram::{Histogram, HistogramSnapshot};
pub use metrics::{About, Counter, Metric, MetricKind, More, Point, Value};
pub use recorder::{FAMILIES, Family, Gauge, Key, Kind, Recorder, Series, Stage};
pub use sys::{Allocator, allocator, collect};
