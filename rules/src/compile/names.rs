//! What names stand for, as far as it is known.

use super::Compiler;
use crate::{
    balance::{Endpoint, EndpointAddress},
    locality::Locality,
    spec::{DestinationSpec, EndpointSpec, ServiceSpec},
    srv::{is_service_name, served},
};
use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

impl Compiler<'_> {
    /// The host itself as an endpoint, where its name is to be asked for and has addresses.
    pub(super) fn named(
        &self,
        to: &DestinationSpec,
        service: &ServiceSpec,
    ) -> Option<EndpointSpec> {
        let has_port = to.port.is_some() || !service.ports.is_empty();
        // The name of a service is one that waits for its records, too: it has no address of its own.
        let is_known = is_service_name(&to.host) || !self.addresses_of(&to.host).is_empty();
        let is_it = service.is_by_name && to.subset.is_none() && has_port && is_known;
        is_it.then(|| EndpointSpec {
            address: to.host.clone(),
            ports: Vec::new(),
            labels: Vec::new(),
            weight: 1,
            locality: Locality::default(),
        })
    }

    /// Where an endpoint is, by the name of a port and the port that others have: each address of a name
    /// is one by itself. Until the name has any it is one endpoint, which is looked up by who dials it.
    pub(super) fn places_of(
        &self,
        endpoint: &EndpointSpec,
        name: &str,
        target: u16,
        known: &mut HashSet<SocketAddr>,
    ) -> Vec<Endpoint> {
        let port = endpoint.port(name, target);
        let weight = endpoint.weight;
        let at = |address| Endpoint { address, weight, level: 0 };
        if let Ok(ip) = endpoint.address.parse() {
            let address = SocketAddr::new(ip, port);
            known.insert(address);
            return vec![at(EndpointAddress::Ip(address))];
        }
        let records = self.context.services.get(&endpoint.address).map_or(&[][..], |all| all);
        let mut found: Vec<_> = served(records)
            .into_iter()
            .map(|it| Endpoint {
                address: EndpointAddress::Ip(it.address),
                weight: weight.saturating_mul(it.weight),
                level: it.rank,
            })
            .collect();
        let addresses = self.addresses_of(&endpoint.address).into_iter();
        found.extend(addresses.map(|ip| at(EndpointAddress::Ip(SocketAddr::new(ip, port)))));
        if found.is_empty() {
            let host = endpoint.address.as_str().into();
            return vec![at(EndpointAddress::Name { host, port: Some(port) })];
        }
        // Two names may have an address in common.
        found.retain(|it| matches!(it.address, EndpointAddress::Ip(ip) if known.insert(ip)));
        found
    }

    /// Addresses of a name, as far as they are known: those of IPv4, or of IPv6 where there are none.
    /// A host with both is not two hosts.
    pub(super) fn addresses_of(&self, host: &str) -> Vec<IpAddr> {
        let all = self.context.addresses.get(host).map_or(&[][..], |all| all);
        let has_v4 = all.iter().any(IpAddr::is_ipv4);
        all.iter().copied().filter(|ip| ip.is_ipv4() == has_v4).collect()
    }

    /// Where the records of a service's name lead.
    pub(super) fn served_at(&self, name: &str) -> impl Iterator<Item = SocketAddr> {
        let records = self.context.services.get(name).map_or(&[][..], |all| all);
        served(records).into_iter().map(|it| it.address)
    }
}
