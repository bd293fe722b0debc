//! What is spoken where.

use super::Compiler;
use crate::{key::Protocol, shape::short, trouble::Place};
use std::net::SocketAddr;

impl Compiler<'_> {
    /// The protocol of a name that documents use; what is wrong with it is noted.
    pub(super) fn protocol(&mut self, name: &str, place: &Place) -> Option<Protocol> {
        let named = self.specs.protocols.get(name);
        let codec = named.map_or(name, |(codec, _)| codec);
        let found = self.context.protocol(codec);
        if found.is_none() && named.is_none() {
            let known: Vec<_> = self.context.protocols().map(Protocol::name).collect();
            let what = format!(
                "the protocol {:?} is unknown: allowed is one of {}, or what an \
                 ApplicationProtocol names",
                short(name),
                known.join(", ")
            );
            self.troubles.error(place.clone(), what);
        }
        found
    }

    /// Names of protocols have a codec, and ports of services have a protocol.
    pub(super) fn protocols(&mut self) {
        for (name, (codec, place)) in &self.specs.protocols {
            if self.context.protocol(codec).is_none() {
                let known: Vec<_> = self.context.protocols().map(Protocol::name).collect();
                let what = format!(
                    "codec={:?} of the protocol {name:?} is unknown: allowed is one of {}",
                    short(codec),
                    known.join(", ")
                );
                self.troubles.error(place.clone(), what);
            }
        }
        for service in &self.specs.services {
            for port in &service.ports {
                let Some(name) = &port.protocol else { continue };
                let Some(protocol) = self.protocol(name, &port.place) else { continue };
                let whole = |(ip, length): &(std::net::IpAddr, u8)| {
                    (*length == if ip.is_ipv4() { 32 } else { 128 }).then_some(*ip)
                };
                let addresses = service.addresses.iter().filter_map(whole);
                let mut there: Vec<_> =
                    addresses.map(|ip| SocketAddr::new(ip, port.number)).collect();
                for endpoint in &service.endpoints {
                    let Ok(ip) = endpoint.address.parse() else { continue };
                    there.push(SocketAddr::new(ip, endpoint.port(&port.name, port.target)));
                }
                self.spoken(there, protocol, &port.place);
            }
        }
    }

    fn spoken(&mut self, there: Vec<SocketAddr>, protocol: Protocol, place: &Place) {
        for address in there {
            let known = self.table.protocols.iter().find(|(known, _)| *known == address);
            match known {
                Some((_, other)) if *other != protocol => {
                    let what = format!(
                        "{protocol} is spoken at {address}, where another document \
                                        has {other}"
                    );
                    self.troubles.error(place.clone(), what);
                }
                Some(_) => {}
                None => self.table.protocols.push((address, protocol)),
            }
        }
    }
}
