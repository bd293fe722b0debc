//! Which rules a connection has to do with: by the host that a message names, by where it goes, by
//! being this service's own.

use crate::{
    facts::{Direction, Facts},
    hash::{ByName, Name},
    key::{Key, Protocol},
    pattern::{Network, wide},
};
use netra_codecs::{codec, tap};
use std::net::SocketAddr;

/// Routers by what they are for. A router is a number here.
#[derive(Debug, Default)]
pub(crate) struct Landing {
    /// By host, in small letters.
    hosts: ByName<(Box<[u8]>, Vec<u32>)>,
    /// By address and port of the original destination; port 0 is any.
    addresses: ByName<Vec<u32>>,
    networks: Vec<(Network, u16, u32)>,
    /// Those of this service: of calls to it.
    own: Vec<u32>,
}

impl Landing {
    pub(crate) fn add_host(&mut self, host: &str, router: u32) {
        let host = host.to_ascii_lowercase();
        let make = || (host.as_bytes().into(), Vec::new());
        let is_it = |(it, _): &(Box<[u8]>, Vec<u32>)| **it == *host.as_bytes();
        push(&mut self.hosts.find_or_make(Name::of(host.as_bytes()), is_it, make).1, router);
    }

    /// Port 0 is any.
    pub(crate) fn add_address(&mut self, address: SocketAddr, router: u32) {
        let name = Name::of_address(wide(address.ip()), address.port());
        push(self.addresses.find_or_make(name, |_| true, Vec::new), router);
    }

    pub(crate) fn add_network(&mut self, network: Network, port: u16, router: u32) {
        self.networks.push((network, port, router));
    }

    pub(crate) fn add_own(&mut self, router: u32) {
        push(&mut self.own, router);
    }

    /// The first router that the message has to do with, of those that are `of` something.
    #[inline]
    pub(crate) fn router<F: Facts, R>(
        &self,
        facts: &F,
        of: impl Fn(u32) -> Option<R>,
    ) -> Option<R> {
        let direction = facts.direction();
        if direction == Direction::Outbound
            && let Some(key) = naming(facts.protocol())
        {
            let named = facts.value(key).and_then(|name| self.named(name, &of));
            // Many names of HTTP may be behind one address: only the name tells.
            if named.is_some() || facts.protocol() == Protocol::Http1 {
                return named;
            }
        }
        self.at(direction, facts.destination(), of)
    }

    /// The first router for that place, of those that are `of` something.
    #[inline]
    pub(crate) fn at<R>(
        &self,
        direction: Direction,
        destination: SocketAddr,
        of: impl Fn(u32) -> Option<R>,
    ) -> Option<R> {
        let (address, port) = (wide(destination.ip()), destination.port());
        for port in [port, 0] {
            let found = self.addresses.find(Name::of_address(address, port), |_| true);
            if let Some(router) = found.and_then(|them| them.iter().find_map(|it| of(*it))) {
                return Some(router);
            }
        }
        if direction == Direction::Inbound {
            return self.own.iter().find_map(|it| of(*it));
        }
        let is_there = |(network, on, _): &&(Network, u16, u32)| {
            (*on == 0 || *on == port) && network.has(destination.ip())
        };
        self.networks.iter().filter(is_there).find_map(|(.., router)| of(*router))
    }

    /// The first router for that host.
    #[inline]
    fn named<R>(&self, host: &[u8], of: &impl Fn(u32) -> Option<R>) -> Option<R> {
        if self.hosts.is_empty() {
            return None;
        }
        let is_it = |(it, _): &(Box<[u8]>, Vec<u32>)| it.eq_ignore_ascii_case(host);
        let (_, routers) = self.hosts.find(Name::of_small(host), is_it)?;
        routers.iter().find_map(|it| of(*it))
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

fn push(routers: &mut Vec<u32>, router: u32) {
    if !routers.contains(&router) {
        routers.push(router);
    }
}
