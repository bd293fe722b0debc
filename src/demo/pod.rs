//! The pod and its client: two namespaces, a veth pair, rules, the sidecar, an application.

use super::namespace::Namespace;
use super::sidecar::{self, Sidecar};
use super::stage::Lane;
use super::{Result, server};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

pub(super) const CLIENT: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)),
];
pub(super) const POD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2)),
];
/// The application's port; the rules send it to netra.
pub(super) const APP: u16 = 8080;
/// The port of the service elsewhere that the application calls; the rules send it to netra.
pub(super) const ELSEWHERE: u16 = 9080;
/// What is added to a port for the same server, left alone by the rules: the direct path.
pub(super) const DIRECT: u16 = 1;

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) lane: Lane,
    pub(super) client: Namespace,
    pub(super) pod: Namespace,
    pub(super) sidecar: Sidecar,
}

impl Pod {
    pub(super) fn build(lane: &Lane) -> Result<Self> {
        let (client, pod) = (Namespace::new()?, Namespace::new()?);
        wire(&client, &pod)?;
        serve(&pod, APP)?;
        serve(&client, ELSEWHERE)?;
        sidecar::apply_rules(&pod, lane, &APP.to_string(), &ELSEWHERE.to_string())?;
        let sidecar = Sidecar::start(&pod, lane, "demo", &[])?;
        sidecar.await_ready()?;
        Ok(Self { lane: lane.clone(), client, pod, sidecar })
    }

    /// Asks the sidecar to leave and waits for it.
    pub(super) fn leave(self) -> Result<()> {
        self.sidecar.dismiss()?;
        self.sidecar.await_end()
    }
}

fn wire(client: &Namespace, pod: &Namespace) -> Result<()> {
    // Different indexes: with equal ones, as two fresh namespaces would give, the kernel takes the
    // ends for unrelated links and lets IPv6 wait a second for the carrier.
    let target = pod.path();
    client.ip(&format!(
        "link add eth0 index 10 type veth peer name eth0 index 11 netns {target}\n"
    ))?;
    for (namespace, [v4, v6]) in [(client, CLIENT), (pod, POD)] {
        let mut lines = format!("link set lo up\naddr add {v4}/24 dev eth0\n");
        // A kernel without IPv6 still shows everything else.
        if has_ipv6() {
            lines += &format!("addr add {v6}/64 dev eth0 nodad\n");
        }
        namespace.ip(&(lines + "link set eth0 up\n"))?;
    }
    Ok(())
}

/// Whether this kernel speaks IPv6.
pub(super) fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// The same server twice: behind the rules, and beside them.
fn serve(namespace: &Namespace, port: u16) -> Result<()> {
    for port in [port, port + DIRECT] {
        let any: IpAddr =
            if has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let listener = namespace.enter(|| TcpListener::bind((any, port)))?;
        let served = listener.and_then(|l| server::serve(&l, server::converse));
        served.map_err(|error| format!("port {port}: {error}"))?;
    }
    Ok(())
}
