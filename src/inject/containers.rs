//! The two containers, as the flags want them.

use super::netramesh::Netramesh;
use super::wanted::{Wanted, split};
use super::yaml::{self, Node};
use crate::table::table;

/// Settings of the sidecar that another container or a field has to know of.
const PORT: &str = "NETRA_PORT";
const ADMIN_PORT: &str = "NETRA_PPROF_PORT";
const METRICS_PORT: &str = "NETRA_PROMETHEUS_PORT";
const SERVICE_NAME: &str = "NETRA_SERVICE_NAME";
const RULES: &str = "NETRA_RULES";
/// Where rules are mounted, and as what; the Helm chart and kustomize say the same.
const RULES_FOLDER: &str = "/etc/netra/rules";
pub(super) const RULES_VOLUME: &str = "netra-rules";
/// Interfaces of guests: both containers have to know them, whichever was told.
const GUESTS: &str = "NETRA_REROUTE_INTERFACES";
const GUEST_FLAGS: [&str; 2] = ["reroute-interfaces", "reroute-virtual-interfaces"];
pub(super) const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// What is put in.
#[derive(Debug)]
pub(super) struct Containers {
    pub(super) init: Node,
    pub(super) sidecar: Node,
    /// What the pod needs beside them.
    pub(super) volume: Option<Node>,
}

impl Containers {
    /// The value of a variable of the sidecar, if it is one that can be known here.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.variables().find(|(of, _)| *of == name).map(|(_, value)| value)
    }

    /// Variables whose value can be known here.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let env = self.sidecar.get("env").map(Node::items).unwrap_or_default();
        env.iter().filter_map(|variable| {
            let text = |key| variable.get(key).and_then(Node::as_str);
            text("name").zip(text("value").filter(|value| !value.contains("$(")))
        })
    }
}

/// Makes the containers for a workload of this name.
pub(super) fn make(
    name: &str,
    wanted: &Wanted,
    old: Option<&Netramesh<'_>>,
) -> Result<Containers, String> {
    let template = yaml::read(include_str!("sidecar.yaml"))?;
    let part = |key| {
        let root = template.first().map(|document| &document.root);
        root.and_then(|root| root.get(key)).cloned().ok_or("no template")
    };
    let mut made = Containers { init: part("init")?, sidecar: part("sidecar")?, volume: None };
    made.init.set("image", Node::text(wanted.init_image()));
    made.sidecar.set("image", Node::text(wanted.image()));
    if wanted.is_classic() {
        made.sidecar.remove("restartPolicy");
        made.sidecar.remove("startupProbe");
    }
    made.sidecar.set("env", Node::sequence(environment(name, wanted, old)?));
    if let Some(old) = old {
        keep_variables(&mut made, old);
    }
    resources(&mut made.sidecar, wanted);
    share_guests(&mut made, wanted);
    rules(&mut made, wanted.rules_config_map()?);
    ports(&mut made, wanted);
    if let Some(args) = made.init.get_mut("args").and_then(Node::items_mut) {
        args.extend(wanted.init_arg.iter().map(|arg| Node::text(arg)));
    }
    if needs_net_raw(wanted)
        && let Some(context) = made.init.get_mut("securityContext")
        && let Some(add) = context.get_mut("capabilities").and_then(|all| all.get_mut("add"))
        && let Some(add) = add.items_mut()
    {
        add.push(Node::plain("NET_RAW"));
    }
    if let Some(profile) = &wanted.seccomp_profile
        && let Some(context) = made.sidecar.get_mut("securityContext")
        && let Some(seccomp) = context.get_mut("seccompProfile")
    {
        seccomp.set("type", Node::text("Localhost"));
        seccomp.set("localhostProfile", Node::text(profile));
    }
    Ok(made)
}

/// The user that the rules let through, as netra-init is told it: netra's own, whatever netramesh's
/// was.
const USERS: [&str; 2] = ["NETRA_SIDECAR_USER_ID", "NETRA_SIDECAR_GROUP_ID"];

/// Gives the containers the variables that netramesh's had.
fn keep_variables(made: &mut Containers, old: &Netramesh<'_>) {
    for (container, from) in [(&mut made.init, old.init()), (&mut made.sidecar, old.sidecar())] {
        for key in ["envFrom", "env"] {
            if let Some(value) = from.and_then(|from| from.get(key))
                && container.get(key).is_none()
            {
                container.set(key, value.clone());
            }
        }
    }
    if let Some(env) = made.init.get_mut("env").and_then(Node::items_mut) {
        let name = |variable: &Node| variable.get("name").and_then(Node::as_str).map(str::to_owned);
        env.retain(|variable| name(variable).is_none_or(|name| !USERS.contains(&name.as_str())));
    }
}

/// Mounts rules where netra looks for them.
fn rules(made: &mut Containers, config_map: Option<&str>) {
    let Some(config_map) = config_map else { return };
    let is_told = made.value(RULES).is_some();
    if let Some(env) = made.sidecar.get_mut("env").and_then(Node::items_mut)
        && !is_told
    {
        env.push(variable_plain(RULES, RULES_FOLDER));
    }
    let mount = [
        ("name", Node::plain(RULES_VOLUME)),
        ("mountPath", Node::plain(RULES_FOLDER)),
        ("readOnly", Node::plain("true")),
    ];
    made.sidecar.set("volumeMounts", Node::sequence([Node::mapping(mount)]));
    let config_map = Node::mapping([("name", Node::text(config_map))]);
    made.volume =
        Some(Node::mapping([("name", Node::plain(RULES_VOLUME)), ("configMap", config_map)]));
}

fn share_guests(made: &mut Containers, wanted: &Wanted) {
    let (container, guests) = match made.value(GUESTS).map(str::to_owned) {
        Some(guests) => (&mut made.init, guests),
        None => {
            let told = GUEST_FLAGS.iter().find_map(|flag| wanted.init_value(flag));
            let Some(guests) = told else { return };
            (&mut made.sidecar, guests.to_owned())
        }
    };
    let mut env = container.get("env").cloned().unwrap_or_else(|| Node::sequence([]));
    let is_told = |variable: &Node| variable.get("name").and_then(Node::as_str) == Some(GUESTS);
    if let Some(variables) = env.items_mut() {
        variables.retain(|variable| !is_told(variable));
        variables.push(variable_plain(GUESTS, &guests));
    }
    container.set("env", env);
}

/// Old iptables ask the kernel by a raw socket; nothing else does. Where it is not told, netra-init
/// takes them only if it finds them, and of the images one has them.
fn needs_net_raw(wanted: &Wanted) -> bool {
    match wanted.init_value("backend") {
        Some("auto") | None => wanted.init_image().contains("iptables"),
        Some(backend) => backend == "iptables-legacy",
    }
}

/// The variables of the sidecar. Fields come before what may refer to them.
fn environment(
    name: &str,
    wanted: &Wanted,
    old: Option<&Netramesh<'_>>,
) -> Result<Vec<Node>, String> {
    let variable =
        |name: &str, key, value| Node::mapping([("name", Node::word(name)), (key, value)]);
    let mut told = Vec::new();
    for pair in &wanted.env_field {
        let (name, field) =
            split("--env-field", pair, "NAME=FIELD, such as HOST_IP=status.hostIP")?;
        let field = Node::mapping([("fieldPath", Node::text(field))]);
        let source = Node::mapping([("fieldRef", field)]);
        told.push((name, variable(name, "valueFrom", source)));
    }
    for pair in &wanted.env {
        let (name, value) = split("--env", pair, "NAME=VALUE")?;
        told.push((name, variable(name, "value", Node::text(value))));
    }
    let service = wanted.service_name.as_deref();
    let Some(old) = old else {
        let service = variable_plain(SERVICE_NAME, service.unwrap_or(name));
        let told = told.into_iter().map(|(_, variable)| variable);
        return Ok(std::iter::once(service).chain(told).collect());
    };
    let is_told = |variable: &&Node| {
        let name = variable.get("name").and_then(Node::as_str);
        name == Some(SERVICE_NAME) || told.iter().any(|(told, _)| name == Some(told))
    };
    let kept = old.sidecar().and_then(|sidecar| sidecar.get("env")).map(Node::items);
    let mut all: Vec<Node> =
        kept.unwrap_or_default().iter().filter(|variable| !is_told(variable)).cloned().collect();
    all.extend(told.iter().map(|(_, variable)| variable.clone()));
    // Last: netramesh's commands make the name of other variables.
    let service = service.map_or_else(|| old.service_name(name), str::to_owned);
    all.push(variable_plain(SERVICE_NAME, &service));
    Ok(all)
}

fn variable_plain(name: &str, value: &str) -> Node {
    Node::mapping([("name", Node::plain(name)), ("value", Node::text(value))])
}

fn resources(sidecar: &mut Node, wanted: &Wanted) {
    for ([part, what], quantity) in wanted.resources() {
        if let Some(quantity) = quantity
            && let Some(part) = sidecar.get_mut("resources").and_then(|all| all.get_mut(part))
        {
            part.set(what, Node::text(quantity));
        }
    }
}

/// Ports that the settings move, moved wherever they are told: the probes, and the rules, which let
/// netra's own ports alone.
fn ports(made: &mut Containers, wanted: &Wanted) {
    let [port, admin, metrics] = [PORT, ADMIN_PORT, METRICS_PORT].map(|name| {
        let default = table().find(|setting| setting.name == name).map_or("", |row| row.default);
        let value = made.value(name).filter(|value| value.parse::<u16>().is_ok());
        (value.unwrap_or(default).to_owned(), value.is_some_and(|value| value != default))
    });
    if metrics.1 {
        let number = Node::plain(&metrics.0);
        if let Some(first) = made.sidecar.get_mut("ports").and_then(Node::items_mut)
            && let Some(first) = first.first_mut()
        {
            first.set("containerPort", number.clone());
        }
        for probe in PROBES {
            let probe = made.sidecar.get_mut(probe);
            if let Some(get) = probe.and_then(|probe| probe.get_mut("httpGet")) {
                get.set("port", number.clone());
            }
        }
    }
    let mut moved = Vec::new();
    if port.1 && !["sidecar-port", "port"].iter().any(|flag| wanted.init_value(flag).is_some()) {
        moved.push(Node::text(&format!("--sidecar-port={}", port.0)));
    }
    if (admin.1 || metrics.1) && wanted.init_value("own-ports").is_none() {
        moved.push(Node::text(&format!("--own-ports={},{},{}", port.0, admin.0, metrics.0)));
    }
    if let Some(args) = made.init.get_mut("args").and_then(Node::items_mut) {
        args.extend(moved);
    }
}
