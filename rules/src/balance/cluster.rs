//! Where messages go: a host or a subset of it, its endpoints, and how one of them is picked.

use super::TrafficPolicy;
use crate::{
    choice::{Ring, pick},
    key::SlotId,
};
use std::{fmt, net::SocketAddr};

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Host, and subset: `orders.shop`, `orders.shop/v2`.
    pub name: Box<str>,
    /// What it consists of; the original destination, for one, is an endpoint.
    pub endpoints: Box<[Endpoint]>,
    /// Endpoints in an order that has each as often as its weight says.
    pub(crate) schedule: Box<[u32]>,
    /// The same for each level of endpoints, the nearest first; empty where all are one.
    pub(crate) levels: Box<[Box<[u32]>]>,
    /// Endpoints by hash; empty if nothing is hashed.
    pub(crate) by_hash: ByHash,
    /// How its endpoints are treated.
    pub(crate) policy: TrafficPolicy,
    /// What is hashed, unless the route says something else.
    pub(crate) hash: Hashed,
}

/// What a message's endpoint is chosen by, beside its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) slots: Box<[SlotId]>,
    pub(crate) source: bool,
}

impl Hashed {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && !self.source
    }
}

/// Endpoints by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ByHash {
    /// A table of Maglev; empty if nothing is hashed.
    Maglev(Box<[u32]>),
    Ring(Ring),
}

impl Cluster {
    /// The endpoint of a message with this hash, or so many places behind it.
    #[inline]
    pub(crate) fn hashed(&self, hash: u64, more: u64) -> Option<u32> {
        match &self.by_hash {
            ByHash::Maglev(table) => pick(table, hash.wrapping_add(more)),
            ByHash::Ring(ring) => ring.at(hash, more),
        }
    }

    /// What is done with its endpoints, in words.
    pub fn policy_in_words(&self) -> String {
        self.policy.in_words(self.is_hashed())
    }

    /// Whether messages are sent to any of it by netra, and not just left on their way.
    pub fn is_balanced(&self) -> bool {
        self.endpoints.iter().any(|it| it.address != EndpointAddress::Original)
    }

    pub(crate) fn is_hashed(&self) -> bool {
        match &self.by_hash {
            ByHash::Maglev(table) => !table.is_empty(),
            ByHash::Ring(_) => true,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let by_hash = match &self.by_hash {
            ByHash::Maglev(table) => 4 * table.len(),
            ByHash::Ring(ring) => ring.bytes(),
        };
        // With what is counted of each.
        let levels: usize = self.levels.iter().map(|it| 16 + 4 * it.len()).sum();
        256 + (64 + 256) * self.endpoints.len() + 4 * self.schedule.len() + levels + by_hash
    }
}

/// One of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Its part of what the cluster gets.
    pub weight: u32,
    /// Who is nearer has its turn first: 0 is nearest.
    pub level: u8,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointAddress {
    /// Where the connection wanted to go.
    Original,
    /// There.
    Ip(SocketAddr),
    /// Where the name is, whenever it is asked for; in small letters, without a dot at its end.
    Name {
        /// The name.
        host: Box<str>,
        /// The port; None is that of the original destination.
        port: Option<u16>,
    },
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Original => f.write_str("the original destination"),
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port: Some(port) } => write!(f, "{host}:{port}"),
            Self::Name { host, port: None } => host.fmt(f),
        }
    }
}
