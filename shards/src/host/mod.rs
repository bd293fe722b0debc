//! How a shard's turns follow one another: in a plain thread that parks in the kernel, or inside a
//! glommio executor.

#[cfg(feature = "glommio")]
mod glommio;
mod native;

pub(crate) use native::run;

use crate::{
    io::ring::RingIo,
    shard::{DrainReport, Shard},
};
use std::io;

/// Runs a shard on io_uring, hosted by glommio where asked.
pub(crate) fn run_ring(shard: Shard<RingIo>, hosted: bool) -> io::Result<DrainReport> {
    #[cfg(feature = "glommio")]
    if hosted {
        return glommio::run(shard);
    }
    let _ = hosted;
    run(shard)
}
