//! Which rules a connection has to do with: by the host that a message names, by where it goes, by
//! being this service's own.

use crate::{
    facts::{Direction, Facts},
    hash::{ByName, Name, is_plain},
    key::{Key, Protocol},
    pattern::{Network, wide},
};
use netra_codecs::{codec, tap};
use std::net::SocketAddr;

/// Routers by what they are for. A router is a number here.
#[derive(Debug, Default)]
pub(crate) struct Landing {
    /// By host, in small letters.
    hosts: ByName<Host>,
    /// By address and port of the original destination; port 0 is any.
    addresses: ByName<Vec<u32>>,
    networks: Vec<(Network, u16, u32)>,
    /// Those by which messages of the application may go elsewhere, by address and port of the
    /// original destination, whatever else they are found by; and by network.
    leading: ByName<Vec<u32>>,
    leading_networks: Vec<(Network, u16, u32)>,
    /// Those of this service: of calls to it.
    own: Vec<u32>,
}

/// Routers of a host.
#[derive(Debug)]
struct Host {
    name: Box<[u8]>,
    /// What is found by its name is it.
    is_sure: bool,
    routers: Vec<u32>,
}

impl Landing {
    pub(crate) fn add_host(&mut self, host: &str, router: u32) {
        let host = host.to_ascii_lowercase();
        let name = Name::of_any_case(host.as_bytes());
        let is_sure = name.says_all() && is_plain(host.as_bytes());
        let make = || Host { name: host.as_bytes().into(), is_sure, routers: Vec::new() };
        let is_it = |it: &Host| *it.name == *host.as_bytes();
        push(&mut self.hosts.find_or_make(name, is_it, make).routers, router);
    }

    /// Port 0 is any.
    pub(crate) fn add_address(&mut self, address: SocketAddr, router: u32) {
        let name = Name::of_address(wide(address.ip()), address.port());
        push(self.addresses.find_or_make(name, |_| true, Vec::new), router);
    }

    pub(crate) fn add_network(&mut self, network: Network, port: u16, router: u32) {
        self.networks.push((network, port, router));
    }

    /// The router may lead elsewhere what is for this address. Port 0 is any.
    pub(crate) fn add_leading(&mut self, address: SocketAddr, router: u32) {
        let name = Name::of_address(wide(address.ip()), address.port());
        push(self.leading.find_or_make(name, |_| true, Vec::new), router);
    }

    pub(crate) fn add_leading_network(&mut self, network: Network, port: u16, router: u32) {
        self.leading_networks.push((network, port, router));
    }

    /// Whether a router that `is_it` takes may lead elsewhere what is for this place.
    pub(crate) fn leads(&self, destination: SocketAddr, is_it: impl Fn(u32) -> bool) -> bool {
        let (address, port) = (wide(destination.ip()), destination.port());
        let by_address = [port, 0].into_iter().any(|port| {
            let found = self.leading.find(Name::of_address(address, port), |_| true);
            found.is_some_and(|routers| routers.iter().any(|it| is_it(*it)))
        });
        by_address
            || self.leading_networks.iter().any(|(network, on, router)| {
                (*on == 0 || *on == port) && network.has(destination.ip()) && is_it(*router)
            })
    }

    pub(crate) fn add_own(&mut self, router: u32) {
        push(&mut self.own, router);
    }

    /// The routers that come first for a message: mostly one, and that is it.
    #[inline(always)]
    pub(crate) fn first<F: Facts>(&self, facts: &F) -> &[u32] {
        if facts.direction() == Direction::Outbound
            && let Some(key) = naming(facts.protocol())
        {
            return facts.value(key).map_or(&[], |host| self.named(host));
        }
        let destination = facts.destination();
        self.addressed(Name::of_address(wide(destination.ip()), destination.port()))
    }

    /// The first router that the message has to do with, of those that are `of` something.
    #[inline(never)]
    pub(crate) fn router<F: Facts, R>(
        &self,
        facts: &F,
        of: impl Fn(u32) -> Option<R>,
    ) -> Option<R> {
        let direction = facts.direction();
        if direction == Direction::Outbound
            && let Some(key) = naming(facts.protocol())
        {
            let named = facts.value(key).map_or(&[][..], |host| self.named(host));
            let named = named.iter().find_map(|it| of(*it));
            // Many names of HTTP may be behind one address: only the name tells.
            if named.is_some() || facts.protocol() == Protocol::Http1 {
                return named;
            }
        }
        self.at(direction, facts.destination(), of)
    }

    /// The first router for that place, of those that are `of` something.
    pub(crate) fn at<R>(
        &self,
        direction: Direction,
        destination: SocketAddr,
        of: impl Fn(u32) -> Option<R>,
    ) -> Option<R> {
        let (address, port) = (wide(destination.ip()), destination.port());
        for port in [port, 0] {
            let found = self.addressed(Name::of_address(address, port)).iter();
            if let Some(router) = found.copied().find_map(&of) {
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

    /// Routers for that host.
    #[inline(always)]
    fn named(&self, host: &[u8]) -> &[u32] {
        let is_it = |it: &Host| it.is_sure || it.name.eq_ignore_ascii_case(host);
        self.hosts.find(Name::of_any_case(host), is_it).map_or(&[], |it| &it.routers)
    }

    /// Routers for an address and a port.
    #[inline(always)]
    fn addressed(&self, name: Name) -> &[u32] {
        self.addresses.find(name, |_| true).map_or(&[], |routers| routers)
    }

    /// Whether messages of the protocol name their host, and a router that `is_it` takes is found
    /// by it.
    pub(crate) fn goes_by_name(&self, protocol: Protocol, is_it: impl Fn(u32) -> bool) -> bool {
        naming(protocol).is_some()
            && self.hosts.iter().any(|host| host.routers.iter().any(|it| is_it(*it)))
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
