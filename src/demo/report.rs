//! What the demo found: measured by the clients, counted by netra, and checked against each other.

use super::Result;
use super::check::Check;
use super::mesh::{CANARY, FRONT, Mesh};
use super::metrics::Metrics;
use super::pod::{APP, CLIENT, DIRECT, POD, Pod};
use super::sidecar::NETRA;
use super::stage::Lane;
use super::traffic::{BULK, Leg, Path, Times};
use crate::json::{self, Object};
use std::fmt::Write;

/// All figures of one run.
#[derive(Debug)]
pub(super) struct Report {
    lane: Lane,
    legs: Vec<Leg>,
    metrics: Metrics,
    pub(super) checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(pod: &Pod, legs: Vec<Leg>) -> Result<Self> {
        let metrics = settled(pod, &legs)?;
        let checks = legs.iter().flat_map(|leg| checks(leg, &metrics)).collect();
        Ok(Self { lane: pod.lane.clone(), legs, metrics, checks })
    }

    fn driver(&self) -> &'static str {
        let serves = |name: &&str| self.metrics.sum("netra_io_driver", &[("driver", name)]) > 0.0;
        ["io_uring", "epoll"].into_iter().find(serves).unwrap_or("unknown")
    }

    fn shards(&self) -> usize {
        self.metrics.series("netra_tcp_connections_active")
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.put_text(&mut out).unwrap_or_else(|_| unreachable!("a string takes everything"));
        out
    }

    fn put_text(&self, out: &mut String) -> std::fmt::Result {
        let (driver, shards) = (self.driver(), self.shards());
        let plural = if shards == 1 { "" } else { "s" };
        writeln!(out, "\nnetra demo   driver {driver}, {shards} shard{plural}\n")?;
        writeln!(out, "  client {} ── veth ── pod {}", CLIENT[0], POD[0])?;
        let user = match self.lane {
            Lane::Both => "uid 1337",
            Lane::InboundOnly(_) => "same user as the application",
        };
        writeln!(
            out,
            "    rules (nftables) redirect to netra :{NETRA} ({user}), application :{APP}"
        )?;
        if let Lane::InboundOnly(why) = &self.lane {
            writeln!(out, "\n  Inbound half only: {why}.")?;
        }
        for leg in &self.legs {
            self.put_leg(out, leg)?;
        }
        if let Some((mean, count)) = self.metrics.mean_micros("netra_dial_seconds", &[]) {
            writeln!(out, "\nBy netra's own clock: {count} dials of {mean:.0} µs on average")?;
        }
        writeln!(out, "\nChecked")?;
        for check in &self.checks {
            writeln!(out, "  {check}")?;
        }
        Ok(())
    }

    fn put_leg(&self, out: &mut String, leg: &Leg) -> std::fmt::Result {
        let [request, response] = ["request", "response"].map(|way| size(self.bytes(leg, way)));
        writeln!(out, "\n{}   {request} of requests, {response} of answers", leg.direction)?;
        for dialled in &leg.dialled {
            let (to, count) = (dialled.destination, dialled.connections);
            writeln!(out, "  {count} connections intercepted, original destination {to}")?;
        }
        let heads = ["direct", "netra", "added"];
        writeln!(out, "  {:<38}{:>9}{:>9}{:>9}", "µs, in turn", heads[0], heads[1], heads[2])?;
        for (what, pick) in KINDS {
            for (name, permille) in [("p50", 500), ("p99", 990)] {
                let [direct, netra] = [&leg.direct, &leg.netra].map(|p| pick(p).micros(permille));
                let (label, added) = (format!("{what} {name}"), netra - direct);
                writeln!(out, "  {label:<38}{direct:>9.1}{netra:>9.1}{added:>+9.1}")?;
            }
        }
        let [direct, netra] = [&leg.direct, &leg.netra].map(|path| path.bulk / 1e9);
        let label = format!("{} MiB in one answer, GB/s", BULK >> 20);
        writeln!(out, "  {label:<38}{direct:>9.2}{netra:>9.2}")?;
        let labels = [("direction", leg.direction)];
        let overhead = self.metrics.mean_micros("netra_proxy_overhead_seconds", &labels);
        match overhead {
            Some((mean, _)) => {
                writeln!(out, "  in netra, bytes in to bytes out{mean:>25.1} on average")
            }
            None => Ok(()),
        }
    }

    fn bytes(&self, leg: &Leg, way: &str) -> f64 {
        self.metrics.sum("netra_tcp_bytes_total", &[("direction", leg.direction), ("way", way)])
    }

    /// For programs.
    pub(super) fn put_json(&self, object: &mut Object<'_>) {
        object.text("driver", self.driver());
        object.raw("shards", &self.shards().to_string());
        if let Lane::InboundOnly(why) = &self.lane {
            object.text("inbound_only", why);
        }
        object.raw("legs", &json::list(self.legs.iter().map(|leg| self.leg_json(leg))));
    }

    fn leg_json(&self, leg: &Leg) -> String {
        json::object(|object| {
            object.text("direction", leg.direction);
            for way in ["request", "response"] {
                object.raw(&format!("netra_{way}_bytes"), &self.bytes(leg, way).to_string());
            }
            let dialled = leg.dialled.iter().map(|dialled| {
                json::object(|object| {
                    object.text("original_destination", &dialled.destination.to_string());
                    object.raw("connections", &dialled.connections.to_string());
                })
            });
            object.raw("intercepted", &json::list(dialled));
            for (name, path) in [("direct", &leg.direct), ("netra", &leg.netra)] {
                object.raw(name, &path_json(path));
            }
        })
    }
}

type Pick = fn(&Path) -> &Times;

const KINDS: [(&str, Pick); 3] = [
    ("1 KiB request, open connection,", |path| &path.request),
    ("1 KiB request, new connection,", |path| &path.first_answer),
    ("connect (netra itself accepts),", |path| &path.connect),
];

fn path_json(path: &Path) -> String {
    let kinds = [
        ("request", &path.request),
        ("first_answer", &path.first_answer),
        ("connect", &path.connect),
    ];
    json::object(|object| {
        for (kind, times) in kinds {
            for (name, permille) in [("p50", 500), ("p99", 990)] {
                let micros = format!("{:.1}", times.micros(permille));
                object.raw(&format!("{kind}_{name}_us"), &micros);
            }
        }
        object.raw("bulk_bytes_per_second", &format!("{:.0}", path.bulk));
    })
}

fn size(bytes: f64) -> String {
    if bytes < 1e6 { format!("{:.1} kB", bytes / 1e3) } else { format!("{:.1} MB", bytes / 1e6) }
}

/// The metrics once netra has counted the last byte: the answer reaches the client first.
fn settled(pod: &Pod, legs: &[Leg]) -> Result<Metrics> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
    loop {
        let metrics = pod.sidecar.metrics()?;
        let agrees = legs.iter().all(|leg| checks(leg, &metrics).iter().all(|check| check.holds));
        if agrees || std::time::Instant::now() > deadline {
            return Ok(metrics);
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

fn checks(leg: &Leg, metrics: &Metrics) -> Vec<Check> {
    let direction = leg.direction;
    let connections: u64 = leg.dialled.iter().map(|dialled| dialled.connections).sum();
    let answers: u64 = leg.dialled.iter().map(|dialled| dialled.answers).sum();
    let reached: u64 = leg.dialled.iter().map(|dialled| dialled.reached).sum();
    let labels = [("direction", direction)];
    let opened = metrics.sum("netra_tcp_connections_opened_total", &labels);
    let bytes =
        |way| metrics.sum("netra_tcp_bytes_total", &[("direction", direction), ("way", way)]);
    let same = |counted: f64, wanted: u64| counted.to_string() == wanted.to_string();
    vec![
        Check {
            what: format!("{direction}: netra relayed {opened} of {connections} connections"),
            holds: same(opened, connections),
        },
        Check {
            what: format!(
                "{direction}: {reached} of {answers} answers came from the address dialled"
            ),
            holds: reached == answers && answers > 0,
        },
        Check {
            what: format!(
                "{direction}: clients sent {} and received {} bytes, netra counted {} and {}",
                leg.sent,
                leg.received,
                bytes("request"),
                bytes("response")
            ),
            holds: same(bytes("request"), leg.sent) && same(bytes("response"), leg.received),
        },
    ]
}

/// Commands to look around while the demo stays up.
pub(super) fn how_to_look(pod: &Pod, mesh: &Mesh) -> String {
    let netra = pod.sidecar.pid;
    let (host, direct) = (POD[0], APP + DIRECT);
    let (front, path, canary) = (FRONT.at, FRONT.path, CANARY.at);
    format!(
        "\nUp until Ctrl-C. In another terminal:\n\
         \x20 nsenter --net={client} curl -i http://{host}:{APP}/64        through netra\n\
         \x20 nsenter --net={client} curl -i http://{host}:{direct}/64        directly\n\
         \x20 nsenter --net={pod} curl -s http://127.0.0.1:14958/metrics\n\
         \x20 nsenter --net={pod} nft list ruleset\n\
         \x20 nsenter --net={hub} curl -i http://{front}{path}\n\
         \x20 nsenter --net={hub} curl -i -H 'X-Route: stock.demo={canary}' http://{front}{path}\n\
         \x20 (netra is process {netra}; as an ordinary user add: --user=/proc/{netra}/ns/user)\n",
        client = pod.client.path(),
        pod = pod.pod.path(),
        hub = mesh.hub.path(),
    )
}
