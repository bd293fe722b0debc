//! Which rules a connection has to do with: by the host that a message names, by where it goes, by
//! being this service's own.

use crate::{
    facts::{Direction, Facts},
    hash::quick,
    key::{Key, Protocol},
    pattern::{Network, wide},
};
use hashbrown::HashTable;
use netra_codecs::{codec, tap};
use std::net::SocketAddr;

/// The longest name of a host.
const HOST_BYTES_MAX: usize = 255;

/// Routers by what they are for. A router is a number here.
#[derive(Debug, Default)]
pub(crate) struct Landing {
    /// By host, in small letters.
    hosts: HashTable<(Box<[u8]>, Vec<u32>)>,
    /// By address and port of the original destination; port 0 is any.
    addresses: HashTable<((u128, u16), Vec<u32>)>,
    networks: Vec<(Network, u16, u32)>,
    /// Those of this service: of calls to it.
    own: Vec<u32>,
}

impl Landing {
    pub(crate) fn add_host(&mut self, host: &str, router: u32) {
        let host = host.to_ascii_lowercase();
        let hash = quick(host.as_bytes());
        let entry = self.hosts.entry(hash, |(it, _)| **it == *host.as_bytes(), |(it, _)| quick(it));
        push(
            &mut entry.or_insert_with(|| (host.as_bytes().into(), Vec::new())).into_mut().1,
            router,
        );
    }

    /// Port 0 is any.
    pub(crate) fn add_address(&mut self, address: SocketAddr, router: u32) {
        let key = (wide(address.ip()), address.port());
        let entry =
            self.addresses.entry(hash_of(key), |(it, _)| *it == key, |(it, _)| hash_of(*it));
        push(&mut entry.or_insert_with(|| (key, Vec::new())).into_mut().1, router);
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
        let mut small = [0; HOST_BYTES_MAX];
        let small = small.get_mut(..name.len())?;
        for (small, byte) in small.iter_mut().zip(name) {
            *small = byte.to_ascii_lowercase();
        }
        let found = self.hosts.find(quick(small), |(it, _)| **it == *small)?;
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
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&address.to_ne_bytes());
    bytes[16..].copy_from_slice(&port.to_ne_bytes());
    quick(&bytes)
}

fn push(routers: &mut Vec<u32>, router: u32) {
    if !routers.contains(&router) {
        routers.push(router);
    }
}
