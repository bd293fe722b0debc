//! Exchanges of whatever protocol: which trace they belong to, and what is told of them when they
//! are over.

mod conclude;
mod context;
mod decide;
mod gates;
mod observer;
mod open;
mod ports;
mod rules;
mod scraps;
mod session;
mod taps;
mod tracer;

pub(crate) use conclude::Concluded;
pub(crate) use context::{WritesContext, Writing};
pub(crate) use decide::{Asker, Decide, MirrorTo, Place, Routed, Ruling, Seating, Sits};
pub(crate) use gates::{Gates, Wants};
pub(crate) use observer::Observer;
pub(crate) use open::OpenSpan;
pub(crate) use rules::{Given, ShardRules, direction_of, target_at, target_of, why_of};
pub(crate) use scraps::Scraps;
pub(crate) use session::{HeldCall, Session};
pub(crate) use taps::{Named, Reads, Taps};
pub(crate) use tracer::Caller;

use crate::buffers::{BufferId, BufferPool};

/// Where bytes lie that are shown to a half.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// In a buffer of the pool.
    Buffer(BufferId),
    /// So many in the shard's scratch memory.
    Scratch(usize),
    /// Nowhere: only what the half itself holds is meant.
    Nothing,
}

impl Source {
    #[inline]
    pub(crate) fn bytes<'a>(self, pool: &'a BufferPool, scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Buffer(buffer) => pool.bytes(buffer),
            Self::Scratch(len) => &scratch[..len],
            Self::Nothing => &[],
        }
    }
}
