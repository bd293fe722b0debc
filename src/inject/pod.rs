//! Which objects have pods, and what is added to them.

use super::InjectArgs;
use super::yaml::{self, Node, Value};

/// Names of our containers; whatever has them is ours.
const INIT: &str = "netra-init";
const SIDECAR: &str = "netra";
/// On the pod: `disabled` leaves it alone.
const WANTED: &str = "netra.io/inject";
/// On the pod: the version that was injected.
const INJECTED: &str = "netra.io/injected";
/// The sidecar's user, and its group.
const UID: &str = "1337";

/// What was done to an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// `deployment/shop`
    pub(super) object: String,
    pub(super) did: String,
    pub(super) warnings: Vec<String>,
}

/// Injects into every pod of a document, or takes out what was injected.
pub(super) fn edit(document: &mut Node, args: &InjectArgs) -> Result<Vec<Report>, String> {
    let kind = document.get("kind").and_then(Node::as_str).unwrap_or_default().to_owned();
    if kind.ends_with("List")
        && let Some(items) = document.get_mut("items").and_then(Node::items_mut)
    {
        let mut reports = Vec::new();
        for item in items {
            reports.extend(edit(item, args)?);
        }
        return Ok(reports);
    }
    let path: &[&str] = match kind.as_str() {
        "Pod" => &[],
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => &["spec", "template"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        _ => return Ok(Vec::new()),
    };
    let name = ["name", "generateName"]
        .iter()
        .find_map(|key| document.at(&["metadata", key]).and_then(Node::as_str))
        .unwrap_or("unnamed")
        .trim_end_matches('-')
        .to_owned();
    let object = format!("{}/{name}", kind.to_lowercase());
    let fail = |what: &str| format!("{object}: {what}");
    let mut pod = document;
    for key in path {
        pod = pod.get_mut(key).ok_or_else(|| fail(&format!("has no {}", path.join("."))))?;
    }
    if pod.get("spec").is_none_or(|spec| spec.get("containers").is_none()) {
        return Err(fail("has no containers"));
    }
    let was_there = take_out(pod);
    if args.uninject {
        let did = if was_there { "taken out" } else { "nothing to take out" };
        return Ok(vec![Report { object, did: did.to_owned(), warnings: Vec::new() }]);
    }
    let (did, warnings) = match reason_to_skip(pod) {
        Some(reason) => (format!("skipped: {reason}"), Vec::new()),
        None => {
            put_in(pod, &name, args).map_err(|what| fail(&what))?;
            ("injected".to_owned(), warnings(pod))
        }
    };
    Ok(vec![Report { object, did, warnings }])
}

fn reason_to_skip(pod: &Node) -> Option<String> {
    let is = |path: &[&str], value: &str| pod.at(path).and_then(Node::as_str) == Some(value);
    if is(&["metadata", "annotations", WANTED], "disabled") {
        return Some(format!("annotation {WANTED}: disabled"));
    }
    is(&["spec", "hostNetwork"], "true")
        .then(|| "hostNetwork: the rules would redirect the whole node".to_owned())
}

/// Removes our containers and our annotation, and what is empty without them.
fn take_out(pod: &mut Node) -> bool {
    let mut was_there = false;
    if let Some(spec) = pod.get_mut("spec") {
        for key in ["initContainers", "containers"] {
            let Some(items) = spec.get_mut(key).and_then(Node::items_mut) else { continue };
            let before = items.len();
            items.retain(|item| !is_ours(item));
            was_there |= items.len() < before;
            if items.is_empty() && key == "initContainers" && before > 0 {
                spec.remove(key);
            }
        }
    }
    if let Some(metadata) = pod.get_mut("metadata")
        && let Some(annotations) = metadata.get_mut("annotations")
        && annotations.get(INJECTED).is_some()
    {
        annotations.remove(INJECTED);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
        if metadata.is_empty() {
            pod.remove("metadata");
        }
    }
    was_there
}

fn is_ours(container: &Node) -> bool {
    let name = container.get("name").and_then(Node::as_str);
    name == Some(INIT) || name == Some(SIDECAR)
}

fn put_in(pod: &mut Node, name: &str, args: &InjectArgs) -> Result<(), String> {
    let (init, mut sidecar) = containers(name, args)?;
    let not_a = |what: &str| format!("{what} is not what it should be (an alias?)");
    let spec = pod.get_mut("spec").ok_or("has no spec")?;
    let before = spec.position("containers").unwrap_or(0);
    let inits = spec
        .entry("initContainers", before, || Value::Sequence(Vec::new()))
        .and_then(Node::items_mut)
        .ok_or_else(|| not_a("initContainers"))?;
    if args.classic {
        // Last: what runs after it would have no network until the sidecar is there.
        inits.push(init);
        sidecar.remove("restartPolicy");
        sidecar.remove("startupProbe");
        let containers = spec.get_mut("containers").and_then(Node::items_mut);
        // Last: the first is the one that `kubectl logs` and `kubectl exec` choose.
        containers.ok_or_else(|| not_a("containers"))?.push(sidecar);
    } else {
        inits.splice(0..0, [init, sidecar]);
    }
    pod.entry("metadata", 0, || Value::Mapping(Vec::new()))
        .and_then(|metadata| {
            metadata.entry("annotations", usize::MAX, || Value::Mapping(Vec::new()))
        })
        .and_then(|annotations| {
            let version = Node::text(env!("CARGO_PKG_VERSION")).value;
            annotations.entry(INJECTED, usize::MAX, || version)
        })
        .ok_or_else(|| not_a("metadata.annotations"))?;
    Ok(())
}

/// The two containers, as the arguments want them.
fn containers(name: &str, args: &InjectArgs) -> Result<(Node, Node), String> {
    let template = yaml::read(include_str!("sidecar.yaml"))?;
    let part = |key| template.first().and_then(|node| node.get(key)).cloned().ok_or("no template");
    let (mut init, mut sidecar) = (part("init")?, part("sidecar")?);
    let set = |node: &mut Node, key: &str, value: &str| {
        if let Some(found) = node.get_mut(key) {
            *found = Node::text(value);
        }
    };
    set(&mut init, "image", &args.init_image);
    set(&mut sidecar, "image", &args.image);
    if let Some(list) = init.get_mut("args").and_then(Node::items_mut) {
        list.extend(args.init_arg.iter().map(|arg| Node::text(arg)));
    }
    if let Some(env) = sidecar.get_mut("env").and_then(Node::items_mut) {
        if let Some(service) = env.first_mut() {
            set(service, "value", args.service_name.as_deref().unwrap_or(name));
        }
        for pair in &args.env {
            let (name, value) = pair
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("--env: bad value {pair:?}: allowed is NAME=VALUE"))?;
            let entry = vec![
                (Node::plain("name"), Node::text(name)),
                (Node::plain("value"), Node::text(value)),
            ];
            env.push(Value::Mapping(entry).into());
        }
    }
    if let Some(profile) = &args.seccomp_profile
        && let Some(context) = sidecar.get_mut("securityContext")
        && let Some(seccomp) = context.get_mut("seccompProfile")
    {
        set(seccomp, "type", "Localhost");
        seccomp.entry("localhostProfile", usize::MAX, || Node::text(profile).value);
    }
    Ok((init, sidecar))
}

/// What will not work as one may think.
fn warnings(pod: &Node) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(spec) = pod.get("spec") else { return warnings };
    let ids = |node: &Node| {
        ["runAsUser", "runAsGroup"]
            .iter()
            .any(|key| node.at(&["securityContext", key]).and_then(Node::as_str) == Some(UID))
    };
    let others = ["initContainers", "containers"]
        .iter()
        .filter_map(|key| spec.get(key))
        .flat_map(Node::items)
        .filter(|container| !is_ours(container));
    if ids(spec) {
        warnings.push(format!("the pod runs as {UID}: its traffic would bypass netra"));
    }
    for container in others {
        let name = container.get("name").and_then(Node::as_str).unwrap_or("?");
        if ids(container) {
            warnings.push(format!("{name} runs as {UID}: its traffic would bypass netra"));
        }
        let has_tcp_probe = ["livenessProbe", "readinessProbe", "startupProbe"]
            .iter()
            .any(|probe| container.at(&[probe, "tcpSocket"]).is_some());
        if has_tcp_probe {
            warnings.push(format!(
                "{name} has a tcpSocket probe, which connects to netra first: \
                 a dead port shows as a reset; exclude it by --init-arg=--exclude-inbound-ports=PORT"
            ));
        }
    }
    warnings
}
