//! The default host: one thread, one loop, parked in the backend's own wait.

use crate::{
    io::Io,
    shard::{DrainReport, Shard},
};
use std::io;

/// Runs a shard until its drain is over.
pub(crate) fn run<I: Io>(mut shard: Shard<I>) -> io::Result<DrainReport> {
    while !shard.is_over() {
        let wait = shard.park();
        shard.turn(wait)?;
    }
    Ok(shard.into_report())
}
