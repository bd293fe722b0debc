//! Which rules a connection has to do with: by the host that a message names, by where it goes, by
//! being this service's own.

use crate::{
    facts::{Direction, Facts},
    hash::{ByHash, folded_product, quick, quick_of_small, same_small},
    key::{Key, Protocol},
    pattern::{Network, wide},
};
use netra_codecs::{codec, tap};
use std::net::SocketAddr;

/// The longest name of a host.
const HOST_BYTES_MAX: usize = 255;

/// Routers by what they are for. A router is a number here.
#[derive(Debug, Default)]
pub(crate) struct Landing {
    /// By host, in small letters.
    hosts: ByHash<(Box<[u8]>, Vec<u32>)>,
    /// By address and port of the original destination; port 0 is any.
    addresses: ByHash<((u128, u16), Vec<u32>)>,
    networks: Vec<(Network, u16, u32)>,
    /// Those of this service: of calls to it.
    own: Vec<u32>,
}

impl Landing {
    pub(crate) fn add_host(&mut self, host: &str, router: u32) {
        let host = host.to_ascii_lowercase();
        let hash = quick(host.as_bytes());
        let is_it = |(it, _): &(Box<[u8]>, Vec<u32>)| **it == *host.as_bytes();
        let make = || (host.as_bytes().into(), Vec::new());
        push(&mut self.hosts.find_or_make(hash, is_it, make).1, router);
    }

    /// Port 0 is any.
    pub(crate) fn add_address(&mut self, address: SocketAddr, router: u32) {
        let key = (wide(address.ip()), address.port());
        let make = || (key, Vec::new());
        push(&mut self.addresses.find_or_make(hash_of(key), |(it, _)| *it == key, make).1, router);
    }

    pub(crate) fn add_network(&mut self, network: Network, port: u16, router: u32) {
        self.networks.push((network, port, router));
    }

    pub(crate) fn add_own(&mut self, router: u32) {
        push(&mut self.own, router);
    }

    /// The first router that the message has to do with and that `is_it` takes.
    #[inline]
    pub(crate) fn router<F: Facts>(&self, facts: &F, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let direction = facts.direction();
        if direction == Direction::Outbound
            && let Some(key) = naming(facts.protocol())
        {
            let named = facts.value(key).and_then(|name| self.named(name, &is_it));
            // Many names of HTTP may be behind one address: only the name tells.
            if named.is_some() || facts.protocol() == Protocol::Http1 {
                return named;
            }
        }
        self.at(direction, facts.destination(), is_it)
    }

    /// The first router for that place.
    pub(crate) fn at(
        &self,
        direction: Direction,
        destination: SocketAddr,
        is_it: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let (ip, port) = (wide(destination.ip()), destination.port());
        for key in [(ip, port), (ip, 0)] {
            let found = self.addresses.find(hash_of(key), |(it, _)| *it == key);
            let router = found.and_then(|(_, them)| them.iter().copied().find(|it| is_it(*it)));
            if router.is_some() {
                return router;
            }
        }
        if direction == Direction::Inbound {
            return self.own.iter().copied().find(|it| is_it(*it));
        }
        let is_there = |(network, on, _): &&(Network, u16, u32)| {
            (*on == 0 || *on == port) && network.has(destination.ip())
        };
        self.networks.iter().filter(is_there).map(|(.., router)| *router).find(|it| is_it(*it))
    }

    /// The first router for that host.
    fn named(&self, name: &[u8], is_it: &impl Fn(u32) -> bool) -> Option<u32> {
        if self.hosts.is_empty() || name.len() > HOST_BYTES_MAX {
            return None;
        }
        let found = self.hosts.find(quick_of_small(name), |(it, _)| same_small(it, name))?;
        found.1.iter().copied().find(|it| is_it(*it))
    }

    /// Whether messages of the protocol name their host, and a router that `is_it` takes is found
    /// by it.
    pub(crate) fn goes_by_name(&self, protocol: Protocol, is_it: impl Fn(u32) -> bool) -> bool {
        naming(protocol).is_some()
            && self.hosts.iter().any(|(_, routers)| routers.iter().any(|it| is_it(*it)))
    }
}

/// The key whose value is the name of the host that a message is for.
fn naming(protocol: Protocol) -> Option<&'static Key> {
    match protocol {
        Protocol::Http1 => Some(&Key::Host),
        Protocol::Of(tap::Protocol::Dubbo) => Some(&Key::Of(codec::Key::Service)),
        Protocol::Of(_) => None,
    }
}

#[inline]
fn hash_of((address, port): (u128, u16)) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "both halves count")]
    let (low, high) = (address as u64, (address >> 64) as u64);
    folded_product(
        low ^ u64::from(port) << 32 ^ 0x5851_f42d_4c95_7f2d,
        high ^ 0x1405_7b7e_f767_814f,
    )
}

fn push(routers: &mut Vec<u32>, router: u32) {
    if !routers.contains(&router) {
        routers.push(router);
    }
}
