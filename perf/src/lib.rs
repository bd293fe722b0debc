//! What a shard records, and how it is read: plain cells with one writer, merged when somebody
//! looks. Nothing here is shared between two data cores, and nothing here allocates, locks or
//! reads a clock on the shard.
#![forbid(unsafe_code)]

pub mod exposition;
pub mod histogram;
pub mod labels;
pub mod process;
pub mod recorder;

pub use exposition::{About, Counter, Exposition, Format};
pub use histogram::{Histogram, HistogramSnapshot};
pub use recorder::{FAMILIES, Family, Gauge, Key, Kind, Recorder, Series, Stage};
