//! What will not work as one may think, each with its remedy.

use super::containers::{Containers, PROBES};
use super::init_args;
use super::netramesh::Netramesh;
use super::pods::Pod;
use super::wanted::Wanted;
use super::yaml::Node;
use crate::load::{self, Sources};
use crate::table::table;
use netra_rules::distance;

/// The sidecar's user, and its group.
const UID: &str = "1337";
/// What Kubernetes gives a pod to end if nothing else is said, in seconds.
const GRACE_SECONDS: u64 = 30;
const HTTP_PORTS: &str = "NETRA_HTTP_PORTS";
const PROTOCOLS: &str = "NETRA_PROTOCOLS";
const DRAIN: &str = "NETRA_DRAIN_MS";

pub(super) fn warnings(
    pod: &Pod<'_>,
    wanted: &Wanted,
    made: &Containers,
    old: Option<&Netramesh<'_>>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(spec) = pod.node.get("spec") else { return warnings };
    let list = |key| spec.get(key).map(Node::items).unwrap_or_default().iter().enumerate();
    let inits = list("initContainers").filter(|(at, _)| old.is_none_or(|o| o.init != Some(*at)));
    let apps = list("containers").filter(|(at, _)| old.is_none_or(|old| old.sidecar != *at));
    let apps: Vec<&Node> = apps.map(|(_, app)| app).collect();
    let others = inits.map(|(_, init)| init).chain(apps.iter().copied());
    if is_ours(spec) {
        warnings.push(bypass("the pod"));
    }
    for container in others {
        of_container(container, &mut warnings);
    }
    drain(spec, made, &mut warnings);
    let policy = spec.get("restartPolicy").and_then(Node::as_str);
    if wanted.is_classic() && (is_job(pod) || matches!(policy, Some("Never" | "OnFailure"))) {
        warnings.push(
            "the job will not end, because a plain sidecar goes on: leave out --classic \
             (native sidecars end with the job; Kubernetes 1.29)"
                .to_owned(),
        );
    }
    let knows_all = made.sidecar.get("envFrom").is_none();
    let has_ports = [HTTP_PORTS, PROTOCOLS].iter().any(|name| variable(made, name).is_some());
    if knows_all && !has_ports {
        warnings.push(no_http_ports(&apps));
    }
    settings(made, &mut warnings);
    let wrong = init_args::wrong(&wanted.init_arg).into_iter();
    warnings.extend(wrong.map(|what| format!("netra-init would not start: --init-arg: {what}")));
    warnings
}

fn is_job(pod: &Pod<'_>) -> bool {
    matches!(pod.kind.as_str(), "Job" | "CronJob")
}

fn is_ours(node: &Node) -> bool {
    let is = |key: &&str| node.at(&["securityContext", key]).and_then(Node::as_str) == Some(UID);
    ["runAsUser", "runAsGroup"].iter().any(is)
}

fn bypass(what: &str) -> String {
    format!(
        "{what} runs as {UID}: its traffic would bypass netra; set another runAsUser and runAsGroup"
    )
}

fn of_container(container: &Node, warnings: &mut Vec<String>) {
    let name = container.get("name").and_then(Node::as_str).unwrap_or("?");
    if is_ours(container) {
        warnings.push(bypass(name));
    }
    if PROBES.iter().any(|probe| container.at(&[probe, "tcpSocket"]).is_some()) {
        warnings.push(format!(
            "{name} has a tcpSocket probe, which connects to netra first: \
             a dead port shows as a reset; exclude it by --init-arg=--exclude-inbound-ports=PORT"
        ));
    }
}

/// Whether netra is told to drain for longer than Kubernetes waits.
fn drain(spec: &Node, made: &Containers, warnings: &mut Vec<String>) {
    let number = |text: &str| text.parse::<u64>().ok();
    let grace = spec.get("terminationGracePeriodSeconds").and_then(Node::as_str).and_then(number);
    let grace = grace.unwrap_or(GRACE_SECONDS);
    let default = table().find(|setting| setting.name == DRAIN).map_or("", |row| row.default);
    let Some(drain_ms) = number(made.value(DRAIN).unwrap_or(default)) else { return };
    if grace.saturating_mul(1000) <= drain_ms {
        let seconds = drain_ms.div_ceil(1000) + 5;
        let below = (grace * 1000).saturating_sub(5000);
        warnings.push(format!(
            "terminationGracePeriodSeconds is {grace}, and netra drains for {drain_ms} ms: \
             connections would be cut; set it to {seconds}, or --env {DRAIN}={below}"
        ));
    }
}

fn no_http_ports(apps: &[&Node]) -> String {
    let ports = apps.iter().filter_map(|app| app.get("ports")).flat_map(Node::items);
    let ports: Vec<&str> = ports.filter_map(|port| port.get("containerPort")?.as_str()).collect();
    let (ports, from) = match ports.is_empty() {
        true => ("80,8080".to_owned(), "for example"),
        false => (ports.join(","), "the pod's containerPorts"),
    };
    format!(
        "no {HTTP_PORTS}: netra relays and counts connections, and sees no requests; \
         --env {HTTP_PORTS}={ports} ({from})"
    )
}

fn variable<'n>(made: &'n Containers, name: &str) -> Option<&'n Node> {
    let env = made.sidecar.get("env").map(Node::items).unwrap_or_default();
    env.iter().find(|variable| variable.get("name").and_then(Node::as_str) == Some(name))
}

/// Names and values that the sidecar would not understand.
fn settings(made: &Containers, warnings: &mut Vec<String>) {
    let env = made.sidecar.get("env").map(Node::items).unwrap_or_default();
    let names = env.iter().filter_map(|variable| variable.get("name").and_then(Node::as_str));
    for name in names.filter(|name| !load::is_known(name)) {
        let known = table()
            .flat_map(|setting| std::iter::once(setting.name).chain(setting.also.iter().copied()));
        match near(name, known) {
            Some(known) => warnings
                .push(format!("{name} is no setting of netra: {known} is; is it spelled wrong?")),
            None if load::is_ours(name) => {
                warnings.push(format!("{name} is no setting of netra; `netra settings` lists them"))
            }
            None => {}
        }
    }
    let mut environment: Vec<(String, String)> =
        made.variables().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // It may be made of a variable, which is not known here.
    environment.push(("JAEGER_SERVICE_NAME".to_owned(), "unknown".to_owned()));
    if let Err(refused) = load::load(&Sources { environment, ..Sources::default() }) {
        warnings.extend(refused.iter().map(|refused| format!("netra would not start: {refused}")));
    }
}

/// The one that is meant, if a few letters are wrong.
pub(super) fn near<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().min(name.len()) / 5)
        .map(|(_, known)| known)
}
