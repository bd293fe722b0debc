//! Names that requests are routed to: a shard asks, the control thread answers, nobody waits.

use netra_codecs::route::Target;
use std::{fmt, net::SocketAddr};

/// Whoever resolves names for the shards.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Takes a name to resolve, without waiting; false when there are too many already.
    fn ask(&self, name: ToResolve) -> bool;
}

/// A name that a shard wants the address of. Answer it with [`ShardSet::answer`].
///
/// [`ShardSet::answer`]: crate::ShardSet::answer
#[derive(Clone, Copy, Debug)]
pub struct ToResolve {
    /// What to resolve; its host is a name, never an address.
    pub target: Target,
    pub(crate) shard: usize,
    pub(crate) asker: Asker,
}

/// The connection that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The address of a target; none when its name cannot be resolved.
pub type Resolved = Option<SocketAddr>;
