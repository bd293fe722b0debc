//! Services behind sidecars, each in a network namespace, joined by a bridge; a client and a
//! collector of spans where the bridge is.

use super::Result;
use super::collector::{self, Collector};
use super::namespace::Namespace;
use super::service::{self, Does, PORT, Seen, Service};
use super::sidecar::{self, Sidecar};
use super::stage::Lane;
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
pub(super) static STOCK: Service =
    Service { name: "stock", at: "10.77.1.4", path: "/tea", does: Does::Answer("7 left") };
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
        let hub = Namespace::new()?;
        hub.ip(&format!(
            "link set lo up\nlink add br0 type bridge\naddr add {HUB}/24 dev br0\nlink set br0 up\n"
        ))?;
        let collector = Collector::start(&hub, HUB)?;
        let (tell, seen) = channel();
        let mut sidecars = Vec::new();
        for (index, service) in [&FRONT, &SHOP, &STOCK, &CANARY].into_iter().enumerate() {
            let pod = Namespace::new()?;
            wire(&hub, &pod, service, index)?;
            service::serve(&pod, service, tell.clone())?;
            sidecar::apply_rules(&pod, lane, PORT, PORT)?;
            sidecars.push(Sidecar::start(&pod, lane, service.name, &settings())?);
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

fn wire(hub: &Namespace, pod: &Namespace, service: &Service, index: usize) -> Result<()> {
    let (name, ip) = (service.name, service.at);
    // Indexes that differ: see the first pod.
    let (here, there) = (10 + index, 30 + index);
    hub.ip(&format!(
        "link add {name} index {here} type veth peer name eth0 index {there} netns {pod}\n\
         link set {name} master br0\nlink set {name} up\n",
        pod = pod.path()
    ))?;
    pod.ip(&format!("link set lo up\naddr add {ip}/24 dev eth0\nlink set eth0 up\n"))
}

fn settings() -> [(&'static str, String); 7] {
    [
        ("NETRA_HTTP_PORTS", PORT.to_string()),
        ("NETRA_HTTP_ROUTING_ENABLED", "true".into()),
        ("JAEGER_AGENT_HOST", HUB.to_string()),
        ("JAEGER_AGENT_PORT", collector::PORT.to_string()),
        ("JAEGER_SAMPLER_TYPE", "const".into()),
        ("JAEGER_SAMPLER_PARAM", "1".into()),
        ("JAEGER_REPORTER_FLUSH_INTERVAL", "50ms".into()),
    ]
}
