//! Services and stores behind sidecars, each in a network namespace, joined by a bridge; a client and
//! a collector of spans where the bridge is.

use super::Result;
use super::collector::{self, Collector};
use super::namespace::Namespace;
use super::service::{self, Does, PORT, Seen, Service};
use super::sidecar::{self, Sidecar};
use super::stage::Lane;
use super::store::{CACHE, PRICE};
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, channel};

pub(super) static FRONT: Service = Service {
    name: "front",
    at: "10.77.1.2",
    path: "/cart",
    does: Does::Ask { host: "shop.demo", service: &SHOP },
};
pub(super) static SHOP: Service = Service {
    name: "shop",
    at: "10.77.1.3",
    path: "/offer",
    does: Does::Ask { host: "stock.demo", service: &STOCK },
};
pub(super) static STOCK: Service = Service {
    name: "stock",
    at: "10.77.1.4",
    path: "/tea",
    does: Does::Gather { left: &CACHE, price: &PRICE },
};
/// The other backend of stock: nobody asks it but by a route.
pub(super) static CANARY: Service = Service {
    name: "stock-canary",
    at: "10.77.1.5",
    path: "/tea",
    does: Does::Answer("7 left, 5 on their way"),
};

/// The bridge, the client and the collector.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) lane: Lane,
    pub(super) hub: Namespace,
    pub(super) sidecars: Vec<Sidecar>,
    pub(super) collector: Collector,
    /// What services see, in the order in which they answer.
    pub(super) seen: Receiver<Seen>,
}

impl Mesh {
    pub(super) fn build(lane: &Lane) -> Result<Self> {
        let hub = hub(HUB)?;
        let collector = Collector::start(&hub, HUB)?;
        let (tell, seen) = channel();
        let mut sidecars = Vec::new();
        let mut join = |name: &'static str, at: &str, pod: &Namespace, ports: [&str; 2]| {
            wire(&hub, pod, name, at, sidecars.len())?;
            sidecar::apply_rules(pod, lane, ports[0], ports[1])?;
            sidecars.push(Sidecar::start(pod, lane, name, &settings())?);
            Ok::<_, String>(())
        };
        let outbound = [PORT, CACHE.port, PRICE.port].map(|port| port.to_string()).join(",");
        for service in [&FRONT, &SHOP, &STOCK, &CANARY] {
            let pod = Namespace::new()?;
            service::serve(&pod, service, tell.clone())?;
            join(service.name, service.at, &pod, [&PORT.to_string(), &outbound])?;
        }
        for store in [&CACHE, &PRICE] {
            let pod = Namespace::new()?;
            store.serve(&pod)?;
            join(store.name, store.at, &pod, [&store.port.to_string(), "none"])?;
        }
        for sidecar in &sidecars {
            sidecar.await_ready()?;
        }
        Ok(Self { lane: lane.clone(), hub, sidecars, collector, seen })
    }

    /// Asks all sidecars to leave and waits for them.
    pub(super) fn leave(self) -> Result<()> {
        self.sidecars.iter().try_for_each(Sidecar::dismiss)?;
        self.sidecars.iter().try_for_each(Sidecar::await_end)
    }
}

/// A namespace with a bridge that has this address.
pub(super) fn hub(address: Ipv4Addr) -> Result<Namespace> {
    let hub = Namespace::new()?;
    hub.ip(&format!(
        "link set lo up\nlink add br0 type bridge\naddr add {address}/24 dev br0\nlink set br0 up\n"
    ))?;
    Ok(hub)
}

/// Joins a pod to the bridge by this name and address.
pub(super) fn wire(
    hub: &Namespace,
    pod: &Namespace,
    name: &str,
    ip: &str,
    index: usize,
) -> Result<()> {
    // Indexes that differ: see the first pod.
    let (here, there) = (10 + index, 30 + index);
    hub.ip(&format!(
        "link add {name} index {here} type veth peer name eth0 index {there} netns {pod}\n\
         link set {name} master br0\nlink set {name} up\n",
        pod = pod.path()
    ))?;
    pod.ip(&format!("link set lo up\naddr add {ip}/24 dev eth0\nlink set eth0 up\n"))
}

fn settings() -> [(&'static str, String); 8] {
    let protocols = [&CACHE, &PRICE].map(|store| format!("{}={}", store.port, store.protocol()));
    [
        ("NETRA_PROTOCOLS", protocols.join(",")),
        ("NETRA_HTTP_PORTS", PORT.to_string()),
        ("NETRA_HTTP_ROUTING_ENABLED", "true".into()),
        ("JAEGER_AGENT_HOST", HUB.to_string()),
        ("JAEGER_AGENT_PORT", collector::PORT.to_string()),
        ("JAEGER_SAMPLER_TYPE", "const".into()),
        ("JAEGER_SAMPLER_PARAM", "1".into()),
        ("JAEGER_REPORTER_FLUSH_INTERVAL", "50ms".into()),
    ]
}
