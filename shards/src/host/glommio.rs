//! A shard inside a glommio executor: for programs that already live there, and for whoever wants
//! to compare (`docs/adr/0001-own-executor.md`). The loop is the same; only its wait is an await:
//! completions of our ring signal an eventfd, which a glommio read waits for.
//!
//! glommio refuses to start below 512 KiB of locked memory, also for root.

use crate::{
    io::{Wait, ring::RingIo},
    shard::{DrainReport, Shard},
    sys,
};
use glommio::{LocalExecutorBuilder, Placement, timer::timeout};
use std::{io, time::Duration};

/// glommio's own buffers, which this shard does not use: the least it takes.
const IO_MEMORY_BYTES: usize = 64 * 1024;
const RING_DEPTH: usize = 128;
/// Bytes of an eventfd's counter.
const COUNTER_BYTES: usize = 8;

/// Runs a shard until its drain is over, in an executor of the calling thread.
pub(super) fn run(shard: Shard<RingIo>) -> io::Result<DrainReport> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .make()
        .map_err(|e| io::Error::other(format!("glommio: {e}")))?
        .run(turns(shard))
}

async fn turns(mut shard: Shard<RingIo>) -> io::Result<DrainReport> {
    let signal = sys::hosted::Signal::new()?;
    shard.core.io.signal(signal.fd())?;
    while !shard.is_over() {
        let wait = shard.park();
        let core = &mut shard.core;
        if !core.io.submit(&mut core.pool)? {
            // Whatever completes from here on has counted the eventfd up, so no wake-up is lost.
            match wait {
                Wait::Poll => {}
                Wait::Forever => drop(signal.file().read_at(0, COUNTER_BYTES).await),
                Wait::AtMost(ns) => {
                    let counted = signal.file().read_at(0, COUNTER_BYTES);
                    drop(timeout(Duration::from_nanos(ns), counted).await);
                }
            }
        }
        shard.turn(Wait::Poll)?;
    }
    let _ = signal.close().await;
    Ok(shard.into_report())
}
