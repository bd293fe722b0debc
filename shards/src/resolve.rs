//! Names that requests are routed to: a shard asks, the control thread answers, nobody waits.

use netra_codecs::route::Target;
use std::{fmt, net::IpAddr, sync::Arc};

/// Whoever resolves names for the shards.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Takes a name to resolve, without waiting; false when there are too many already.
    fn ask(&self, name: ToResolve) -> bool;
}

/// A name that a shard wants the addresses of. Answer it with [`ShardSet::answer`].
///
/// [`ShardSet::answer`]: crate::ShardSet::answer
#[derive(Clone, Copy, Debug)]
pub struct ToResolve {
    /// What to resolve; its host is a name, never an address.
    pub target: Target,
    pub(crate) shard: usize,
    pub(crate) asker: Asker,
}

impl ToResolve {
    /// A name that no connection waits for: whoever resolves names can try that with it.
    pub fn of_nobody(target: Target) -> Self {
        Self { target, shard: usize::MAX, asker: Asker { slot: u32::MAX, generation: 0 } }
    }
}

/// The connection that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The addresses of a target's name, in the order in which they are to be tried.
pub type Resolved = Result<Arc<[IpAddr]>, Unresolved>;

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// Nobody knows the name, or whoever might does not answer.
    Unknown,
    /// Too many names are being looked up.
    TooMany,
}
