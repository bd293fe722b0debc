//! Where the rules of a router have an effect.

use super::{Compiler, RouterLanding};
use crate::{
    key::Protocol,
    pattern::Network,
    spec::{RouterSpec, ServiceSpec},
    table::{Concern, Router, Where},
};
use netra_codecs::tap;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

impl Compiler<'_> {
    /// Notes where the router, which is the next one, is found.
    pub(super) fn land(&mut self, spec: &RouterSpec, router: &Router, candidates: &[Protocol]) {
        let number = u32::try_from(self.table.routers.len()).unwrap_or(u32::MAX);
        let has = |concern: Concern| concern != Concern::default();
        let (is_outbound, is_inbound) = (has(router.outbound), has(router.inbound));
        let mut places = Vec::new();
        let service = self.clusters.service(&spec.host);
        if is_outbound {
            self.land_by_name(spec, number, candidates, &mut places);
        }
        let leads = is_outbound && self.leads_elsewhere(router);
        // Which host of HTTP is meant, only its name tells.
        let goes_by_address = candidates.iter().any(|it| *it != Protocol::Http1);
        for address in self.addresses(spec, service) {
            if is_inbound || (is_outbound && goes_by_address) {
                self.table.landing.add_address(address, number);
            }
            if leads {
                self.table.landing.add_leading(address, number);
            }
            let port =
                if address.port() == 0 { "*".to_owned() } else { address.port().to_string() };
            let ip = address.ip();
            if is_outbound && goes_by_address {
                places.push(format!("calls to {ip}:{port}"));
            }
            if is_inbound && self.is_endpoint(service, ip) {
                places.push(format!("calls of others to {ip}:{port}"));
            }
        }
        let networks = service.map_or(&[][..], |service| &service.addresses);
        for (ip, length) in networks.iter().filter(|_| is_outbound) {
            let network = Network::new(*ip, *length);
            for port in ports(spec, service) {
                if leads {
                    self.table.landing.add_leading_network(network, port, number);
                }
                if goes_by_address {
                    self.table.landing.add_network(network, port, number);
                }
            }
            if !goes_by_address {
                continue;
            }
            if *length < if ip.is_ipv4() { 32 } else { 128 } {
                places.push(format!("calls to {network}"));
            }
        }
        if is_inbound && self.is_own(&spec.host) {
            self.table.landing.add_own(number);
            places.push("calls of others to this service".to_owned());
        }
        let (name, host) = (spec.name.clone(), spec.host.clone());
        self.landings.push(RouterLanding { name, host, places });
    }

    /// Whether messages may go elsewhere by one of its routes.
    fn leads_elsewhere(&self, router: &Router) -> bool {
        router.to.iter().flat_map(|route| &route.to).any(|to| self.may_lead(to))
    }

    /// Whether messages that go there may go elsewhere than where they wanted to go.
    pub(super) fn may_lead(&self, to: &Where) -> bool {
        match to {
            Where::One(cluster) => self.clusters.lead_elsewhere(*cluster),
            Where::ByPort(all) => all.iter().any(|(_, it)| self.clusters.lead_elsewhere(*it)),
        }
    }

    fn land_by_name(
        &mut self,
        spec: &RouterSpec,
        number: u32,
        candidates: &[Protocol],
        places: &mut Vec<String>,
    ) {
        let mut names = vec![spec.host.clone()];
        if candidates.contains(&Protocol::Http1) {
            names.extend(short_names(&spec.host));
            let service = self.clusters.service(&spec.host);
            let addresses = service.map_or(&[][..], |service| &service.addresses);
            names.extend(addresses.iter().map(|(ip, _)| ip.to_string()));
            places.push(format!("HTTP requests for {}", names.join(", ")));
        }
        if candidates.contains(&Protocol::Of(tap::Protocol::Dubbo)) {
            let service = self.clusters.service(&spec.host);
            let interface = service.and_then(|service| service.interface.as_deref());
            let interface = interface.unwrap_or(&spec.host);
            names.push(interface.to_ascii_lowercase());
            places.push(format!("calls of Dubbo to the interface {interface}"));
        }
        for name in names {
            self.table.landing.add_host(&name, number);
        }
    }

    /// Addresses of single hosts; port 0 is any.
    fn addresses(&self, spec: &RouterSpec, service: Option<&ServiceSpec>) -> BTreeSet<SocketAddr> {
        let mut found = BTreeSet::new();
        let known = self.context.addresses.get(&spec.host);
        let mut single: Vec<IpAddr> = known.into_iter().flatten().copied().collect();
        found.extend(self.served_at(&spec.host));
        if let Some(service) = service {
            let is_one =
                |(ip, length): &&(IpAddr, u8)| *length == if ip.is_ipv4() { 32 } else { 128 };
            single.extend(service.addresses.iter().filter(is_one).map(|(ip, _)| *ip));
            for endpoint in &service.endpoints {
                found.extend(self.served_at(&endpoint.address));
                let ips = match endpoint.address.parse() {
                    Ok(ip) => vec![ip],
                    Err(_) => self.addresses_of(&endpoint.address),
                };
                let wanted = |number: &u16| spec.ports.is_empty() || spec.ports.contains(number);
                let ports = service.ports.iter().filter(|port| wanted(&port.number));
                let mut ports: Vec<_> =
                    ports.map(|port| endpoint.port(&port.name, port.target)).collect();
                if service.ports.is_empty() {
                    ports.push(0);
                }
                let all = |ip| ports.iter().map(move |port| SocketAddr::new(ip, *port));
                found.extend(ips.into_iter().flat_map(all));
            }
        }
        for port in ports(spec, service) {
            found.extend(single.iter().map(|ip| SocketAddr::new(*ip, port)));
        }
        found
    }

    /// Whether it is an address at which the application itself may be called.
    fn is_endpoint(&self, service: Option<&ServiceSpec>, ip: IpAddr) -> bool {
        let mut endpoints = service.iter().flat_map(|service| &service.endpoints);
        endpoints.any(|endpoint| endpoint.address.parse() == Ok(ip))
    }
}

/// Ports of the host that the router is for; 0 is any.
fn ports(spec: &RouterSpec, service: Option<&ServiceSpec>) -> Vec<u16> {
    let of_service = service.map_or(&[][..], |service| &service.ports);
    match (spec.ports.as_slice(), of_service) {
        ([], []) => vec![0],
        ([], ports) => ports.iter().map(|port| port.number).collect(),
        (ports, _) => ports.to_vec(),
    }
}

/// What a service of Kubernetes is called besides, by those who live near it.
fn short_names(host: &str) -> Vec<String> {
    let Some(name) = host.strip_suffix(".svc.cluster.local") else { return Vec::new() };
    let service = name.split('.').next().unwrap_or(name);
    vec![format!("{name}.svc"), name.to_owned(), service.to_owned()]
}
