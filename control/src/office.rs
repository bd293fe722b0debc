//! What answers are made of.

use crate::{fleet::Fleet, scope::Names, shelf::Shelf, who::Judge, world::World};
use std::sync::{Arc, atomic::AtomicU64};
use tokio::sync::watch;

/// Everything that answers need.
pub(crate) struct Office {
    pub(crate) world: watch::Receiver<Arc<World>>,
    pub(crate) shelf: Shelf,
    pub(crate) fleet: Fleet,
    pub(crate) judge: Judge,
    pub(crate) counts: Counts,
    pub(crate) names: Names,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) fresh: AtomicU64,
    pub(crate) unchanged: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) admitted: AtomicU64,
    pub(crate) not_admitted: AtomicU64,
    /// 1 while it writes status.
    pub(crate) leads: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) not_written: AtomicU64,
}
