//! ServiceEntry and DestinationRule: where hosts are.

use super::{PolicySpec, Reader, number_of, port_of};
use crate::{
    key::Protocol,
    locality::Locality,
    shape::{is_host, short},
    srv::is_service_name,
    trouble::Place,
    yaml::Node,
};
use std::{collections::HashMap, net::IpAddr};

/// Endpoints of one document, at most.
const ENDPOINTS_MAX: usize = 10_000;

/// Hosts, and where they are.
#[derive(Debug, Default)]
pub(crate) struct ServiceSpec {
    /// Those that are names of one host.
    pub(crate) hosts: Vec<(String, Place)>,
    /// The interface of Dubbo that the hosts stand for.
    pub(crate) interface: Option<String>,
    /// Addresses that stand for the hosts, with the length of the network's prefix.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) endpoints: Vec<EndpointSpec>,
    /// Wherever the connection went.
    pub(crate) is_original: bool,
    /// Where nobody says endpoints: each address of the host's name is one.
    pub(crate) is_by_name: bool,
}

impl ServiceSpec {
    /// Names whose addresses are endpoints, for a host of it.
    pub(crate) fn names<'s>(&'s self, host: &'s str) -> impl Iterator<Item = &'s str> {
        let own = (self.is_by_name && self.endpoints.is_empty()).then_some(host);
        let named = self.endpoints.iter().map(|it| it.address.as_str());
        named.filter(|it| it.parse::<IpAddr>().is_err()).chain(own)
    }
}

#[derive(Debug)]
pub(crate) struct PortSpec {
    pub(crate) number: u16,
    pub(crate) name: String,
    /// The port of endpoints.
    pub(crate) target: u16,
    pub(crate) protocol: Option<String>,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct EndpointSpec {
    pub(crate) address: String,
    pub(crate) ports: Vec<(String, u16)>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) weight: u32,
    pub(crate) locality: Locality,
}

impl EndpointSpec {
    /// Its port of this name; what is not said of it is the service's.
    pub(crate) fn port(&self, name: &str, target: u16) -> u16 {
        let own = self.ports.iter().find(|(own, _)| own == name);
        own.map_or(target, |(_, port)| *port)
    }
}

/// Subsets of a host, and how its endpoints are chosen.
#[derive(Debug)]
pub(crate) struct SubsetsSpec {
    pub(crate) policy: PolicySpec,
    pub(crate) subsets: Vec<SubsetSpec>,
    pub(crate) place: Place,
}

/// Endpoints of a host with certain labels.
#[derive(Debug)]
pub(crate) struct SubsetSpec {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) policy: PolicySpec,
}

impl Reader<'_> {
    pub(super) fn service(&mut self, spec: &Node) -> ServiceSpec {
        let mut hosts = Vec::new();
        for node in spec.list("hosts") {
            match node.text() {
                Some(host) if is_host(host) => hosts.push((host.to_owned(), self.place(node))),
                Some(host) => {
                    let what =
                        format!("host {:?} is no name of one host: no rule is for it", short(host));
                    self.warn(node, what);
                }
                None => {}
            }
        }
        let addresses = spec.list("addresses").iter().filter_map(|node| {
            let text = node.text()?;
            let network = network(text);
            if network.is_none() {
                let what = format!("{:?}: allowed is an address or a network", short(text));
                self.error(node, what);
            }
            network
        });
        let addresses = addresses.collect();
        let annotations = self.document.root.at(&["metadata", "annotations"]);
        if spec.list("endpoints").len() > ENDPOINTS_MAX {
            self.error(spec, format!("allowed are {ENDPOINTS_MAX} endpoints"));
        }
        ServiceSpec {
            hosts,
            interface: annotations.and_then(|it| it.text_of("interface")).map(str::to_owned),
            addresses,
            ports: spec.list("ports").iter().filter_map(|node| self.port(node)).collect(),
            endpoints: spec.list("endpoints").iter().filter_map(|it| self.endpoint(it)).collect(),
            is_original: spec.text_of("resolution") == Some("NONE"),
            is_by_name: spec.text_of("resolution") == Some("DNS"),
        }
    }

    fn port(&self, node: &Node) -> Option<PortSpec> {
        let number = port_of(node, "number")?;
        let name = node.text_of("name").unwrap_or_default();
        Some(PortSpec {
            number,
            name: name.to_owned(),
            target: port_of(node, "targetPort").unwrap_or(number),
            protocol: protocol_of(name, node.text_of("protocol")),
            place: self.place(node),
        })
    }

    fn endpoint(&mut self, node: &Node) -> Option<EndpointSpec> {
        let address = node.get("address")?;
        let text = address.text()?;
        if text.parse::<IpAddr>().is_err() && !is_host(text) {
            let what =
                format!("address={:?}: allowed is an address or the name of a host", short(text));
            self.error(address, what);
        }
        let ports = node.get("ports").map_or(&[][..], Node::entries).iter();
        if let (true, Some(ports)) = (is_service_name(text), node.get("ports")) {
            self.warn(
                ports,
                "ports have no effect: they are those of the name's records".to_owned(),
            );
        }
        let labels = labels(node);
        let said = node.text_of("locality").map(Locality::parse);
        Some(EndpointSpec {
            locality: said.unwrap_or_else(|| Locality::of_labels(&labels)),
            address: text.to_owned(),
            ports: ports
                .filter_map(|(name, _)| {
                    Some((name.text.to_string(), port_of(node.get("ports")?, &name.text)?))
                })
                .collect(),
            labels,
            // As in protobuf, 0 is what is not said.
            weight: number_of(node, "weight").unwrap_or(1).max(1),
        })
    }

    pub(super) fn destination_rule(
        &mut self,
        spec: &Node,
        subsets: &mut HashMap<String, SubsetsSpec>,
    ) {
        let Some(host) = spec.text_of("host") else { return };
        let annotated = self.annotated_policy(host);
        let policy = self.policy_of(spec, &annotated);
        let mut named: Vec<SubsetSpec> = Vec::new();
        for node in spec.list("subsets") {
            let Some(name) = node.text_of("name") else { continue };
            if named.iter().any(|other| other.name == name) {
                self.error(node, format!("the subset {:?} is there twice", short(name)));
            }
            let policy = self.policy_of(node, &policy);
            named.push(SubsetSpec { name: name.to_owned(), labels: labels(node), policy });
        }
        let place = self.document.start();
        let rule = SubsetsSpec { policy, subsets: named, place };
        if let Some(first) = subsets.insert(host.to_owned(), rule) {
            let what = format!("the host {host:?} has a DestinationRule at {}, too", first.place);
            self.error(spec, what);
        }
    }
}

fn labels(node: &Node) -> Vec<(String, String)> {
    let entries = node.get("labels").map_or(&[][..], Node::entries).iter();
    entries
        .filter_map(|(key, value)| Some((key.text.to_string(), value.text()?.to_owned())))
        .collect()
}

/// The name of the protocol that a port's name says, or its protocol.
fn protocol_of(name: &str, protocol: Option<&str>) -> Option<String> {
    let by_protocol = || Protocol::from_word(&protocol?.to_ascii_lowercase()).map(Protocol::name);
    Protocol::named_by_port(name).or_else(by_protocol).map(str::to_owned)
}

/// An address, or a network, with the length of its prefix.
pub(crate) fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match length {
        None => Some((address, most)),
        Some(length) => {
            let length = length.parse().ok().filter(|length| *length <= most)?;
            Some((address, length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports_say_what_is_spoken() {
        for (name, protocol, expected) in [
            ("tcp-metaprotocol-dubbo", None, Some("dubbo")),
            ("tcp-metaprotocol-thrift-hello-server", Some("TCP"), Some("thrift")),
            ("tcp-metaprotocol-qza", None, Some("qza")),
            ("tcp-redis", Some("TCP"), Some("redis")),
            ("tcp-mongo-x", None, Some("mongodb")),
            ("http-api", None, Some("http1")),
            ("api", Some("HTTP"), Some("http1")),
            ("tcp-zookeeper", None, Some("zookeeper")),
            ("redis-cache", Some("TCP"), Some("redis")),
            ("thrift-hello", None, Some("thrift")),
            ("postgres", None, Some("postgresql")),
            ("tcp-postgres-main", None, Some("postgresql")),
            ("db", Some("MySQL"), Some("mysql")),
            // A beginning is no word, and the name of a protocol has to come first.
            ("rediscover", None, None),
            ("tcp-cache-redis", None, None),
            ("tcp-metaprotocol", None, None),
            ("http2-api", None, None),
            ("grpc-api", Some("GRPC"), None),
            ("tcp", Some("TCP"), None),
        ] {
            assert_eq!(protocol_of(name, protocol).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn networks_have_a_prefix() {
        assert_eq!(network("10.0.0.0/8"), Some(("10.0.0.0".parse().unwrap(), 8)));
        assert_eq!(network("::1"), Some(("::1".parse().unwrap(), 128)));
        for wrong in ["10.0.0.0/33", "10.0.0/8", "a", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(network(wrong), None, "{wrong}");
        }
    }
}
