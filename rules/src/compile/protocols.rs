//! What is spoken where.

use super::Compiler;
use crate::{
    key::Protocol,
    pattern::Network,
    shape::short,
    spec::{PortSpec, ServiceSpec},
    trouble::Place,
};
use std::net::{IpAddr, SocketAddr};

/// An address at which a protocol is spoken, and where that is said.
struct There<'a> {
    address: SocketAddr,
    /// It is what a name stands for now.
    is_by_name: bool,
    protocol: Protocol,
    place: &'a Place,
}

impl<'a> Compiler<'a> {
    /// The protocol of a name that documents use; what is wrong with it is noted.
    pub(super) fn protocol(&mut self, name: &str, place: &Place) -> Option<Protocol> {
        let named = self.specs.protocols.get(name);
        let found = self.spoken_as(name);
        if found.is_none() && named.is_none() {
            let what = format!(
                "the protocol {:?} is unknown: allowed is one of {}, or what an \
                 ApplicationProtocol names",
                short(name),
                self.known()
            );
            self.troubles.error(place.clone(), what);
        }
        found
    }

    /// The same without a word where there is none.
    fn spoken_as(&self, name: &str) -> Option<Protocol> {
        let named = self.specs.protocols.get(name);
        self.context.protocol(named.map_or(name, |(codec, _)| codec))
    }

    fn known(&self) -> String {
        self.context.protocols().map(Protocol::name).collect::<Vec<_>>().join(", ")
    }

    /// Names of protocols have a codec, and ports of services have a protocol.
    pub(super) fn protocols(&mut self) {
        let specs = self.specs;
        for (name, (codec, place)) in &specs.protocols {
            if self.context.protocol(codec).is_none() {
                let what = format!(
                    "codec={:?} of the protocol {name:?} is unknown: allowed is one of {}",
                    short(codec),
                    self.known()
                );
                self.troubles.error(place.clone(), what);
            }
        }
        let mut there = Vec::new();
        for service in &specs.services {
            for port in &service.ports {
                let Some(name) = &port.protocol else { continue };
                match self.spoken_as(name) {
                    Some(protocol) => self.spoken_at(service, port, protocol, &mut there),
                    None => self.warn_of_unknown_port(name, port),
                }
            }
        }
        // Of one address first who says it, in the order of the documents, and then whom a name server says
        // to be there: of these no document is wrong.
        there.sort_by_key(|it| (it.address, it.is_by_name));
        for There { address, is_by_name, protocol, place } in there {
            match self.table.protocols.last() {
                Some((last, other)) if *last == address => {
                    if *other != protocol && !is_by_name {
                        let what = format!(
                            "{protocol} is spoken at {address}, where another document has {other}"
                        );
                        self.troubles.error(place.clone(), what);
                    }
                }
                _ => self.table.protocols.push((address, protocol)),
            }
        }
        // The narrowest has the word.
        self.table.protocol_networks.sort_by_key(|(network, ..)| std::cmp::Reverse(network.bits()));
    }

    /// All places at which a port of a service is asked for, also by its name.
    fn spoken_at(
        &mut self,
        service: &'a ServiceSpec,
        port: &'a PortSpec,
        protocol: Protocol,
        there: &mut Vec<There<'a>>,
    ) {
        // A port of a service's records is whichever they say: they stand for the only one of it.
        let is_only = service.ports.len() == 1;
        let hosts = service.hosts.iter().map(|(host, _)| host);
        let names = hosts.chain(service.endpoints.iter().map(|it| &it.address));
        let served = names.filter(|_| is_only).flat_map(|name| self.served_at(name));
        there.extend(served.map(|address| There {
            address,
            is_by_name: true,
            protocol,
            place: &port.place,
        }));
        let mut add = |ip: IpAddr, number: u16, is_by_name: bool| {
            let address = SocketAddr::new(ip, number);
            there.push(There { address, is_by_name, protocol, place: &port.place });
        };
        for (ip, length) in &service.addresses {
            if *length == if ip.is_ipv4() { 32 } else { 128 } {
                add(*ip, port.number, false);
                continue;
            }
            let network = Network::new(*ip, *length);
            self.table.protocol_networks.push((network, port.number, protocol));
        }
        for (host, _) in &service.hosts {
            let known = self.context.addresses.get(host);
            known.into_iter().flatten().for_each(|ip| add(*ip, port.number, true));
        }
        for endpoint in &service.endpoints {
            let number = endpoint.port(&port.name, port.target);
            match endpoint.address.parse() {
                Ok(ip) => add(ip, number, false),
                Err(_) => {
                    let known = self.context.addresses.get(&endpoint.address);
                    known.into_iter().flatten().for_each(|ip| add(*ip, number, true));
                }
            }
        }
    }

    /// It stays what it would be without that name: other documents are none the worse for it.
    fn warn_of_unknown_port(&mut self, name: &str, port: &PortSpec) {
        if self.specs.protocols.contains_key(name) {
            // Its codec is an error already.
            return;
        }
        let what = format!(
            "the name of the port says {:?}, of which nothing is known, and it is not read: known are {}, and \
             what an ApplicationProtocol names",
            short(name),
            self.known()
        );
        self.troubles.warn(port.place.clone(), what);
    }
}
