//! Which objects have pods, and where in them.

use super::yaml::{Document, Node};
use std::collections::BTreeSet;

/// On the pod: the version that was injected. What has it is ours to take out.
pub(super) const INJECTED: &str = "netra.io/injected";

/// A pod, or the template of one.
#[derive(Debug)]
pub(super) struct Pod<'d> {
    /// `deployment/shop`
    pub(super) object: String,
    pub(super) name: String,
    pub(super) kind: String,
    /// Keys from the object to the pod.
    pub(super) path: Vec<String>,
    /// What has `metadata` and `spec`.
    pub(super) node: &'d Node,
    /// Anchors that are repeated elsewhere.
    pub(super) repeated: &'d BTreeSet<usize>,
    /// A part on the way that is one of them.
    shared: Option<String>,
}

impl<'d> Pod<'d> {
    pub(super) fn fail(&self, what: &str) -> String {
        format!("{}: {what}", self.object)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&'d str> {
        self.node.at(&["metadata", "annotations", key]).and_then(Node::as_str)
    }

    /// Whether `netra inject` was here.
    pub(super) fn is_injected(&self) -> bool {
        self.annotation(INJECTED).is_some()
    }

    /// A change here would be a change elsewhere, too.
    pub(super) fn is_not_shared(&self, parts: &[(&str, Option<&Node>)]) -> Result<(), String> {
        let is_shared = |node: &&Node| self.repeated.contains(&node.anchor);
        let among = parts.iter().find(|(_, node)| node.as_ref().is_some_and(is_shared));
        let name = among.map(|(name, _)| (*name).to_owned()).or_else(|| self.shared.clone());
        match name {
            Some(name) => {
                Err(format!("{name} is repeated elsewhere by its anchor: write it twice"))
            }
            None => Ok(()),
        }
    }
}

/// Kinds of others, with the path to the template of their pods.
pub(super) type Paths = BTreeSet<(String, Vec<String>)>;

/// All pods of a stream, and templates that nobody told of.
#[derive(Debug, Default)]
pub(super) struct Found<'d> {
    pub(super) pods: Vec<Pod<'d>>,
    pub(super) unknown: Vec<Pod<'d>>,
}

/// Finds the pods of documents. A template of an unknown kind counts if `paths` tell of it, or if
/// it was injected once.
pub(super) fn find<'d>(documents: &'d [Document], paths: &Paths) -> Result<Found<'d>, String> {
    let mut found = Found::default();
    for document in documents {
        object(&mut found, &document.root, &document.repeated, paths)?;
    }
    Ok(found)
}

fn object<'d>(
    found: &mut Found<'d>,
    node: &'d Node,
    repeated: &'d BTreeSet<usize>,
    paths: &Paths,
) -> Result<(), String> {
    let kind = node.get("kind").and_then(Node::as_str).unwrap_or_default();
    if kind.ends_with("List")
        && let Some(items) = node.get("items")
    {
        return items.items().iter().try_for_each(|item| object(found, item, repeated, paths));
    }
    let known: &[&str] = match kind {
        "Pod" => &[],
        "PodTemplate" => &["template"],
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => &["spec", "template"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        _ => return other(found, node, repeated, paths),
    };
    let path: Vec<String> = known.iter().map(|key| (*key).to_owned()).collect();
    found.pods.push(pod(node, path, repeated)?);
    Ok(())
}

/// An object of a kind that Kubernetes itself does not have.
fn other<'d>(
    found: &mut Found<'d>,
    node: &'d Node,
    repeated: &'d BTreeSet<usize>,
    paths: &Paths,
) -> Result<(), String> {
    let kind = node.get("kind").and_then(Node::as_str).unwrap_or_default();
    let told: Vec<_> = paths.iter().filter(|(of, _)| of == kind).map(|(_, path)| path).collect();
    for path in &told {
        found.pods.push(pod(node, (*path).clone(), repeated)?);
    }
    let mut templates = Vec::new();
    search(node, &mut Vec::new(), &mut templates);
    for path in templates.into_iter().filter(|path| !told.contains(&path)) {
        let pod = pod(node, path, repeated)?;
        if pod.is_injected() { &mut found.pods } else { &mut found.unknown }.push(pod);
    }
    Ok(())
}

/// Paths to what looks like the template of a pod.
fn search(node: &Node, path: &mut Vec<String>, templates: &mut Vec<Vec<String>>) {
    let is_container = |item: &Node| item.get("name").is_some() && item.get("image").is_some();
    let containers = node.at(&["spec", "containers"]).map(Node::items).unwrap_or_default();
    if !path.is_empty() && !containers.is_empty() && containers.iter().all(is_container) {
        templates.push(path.clone());
        return;
    }
    for (key, value) in node.entries() {
        path.push(key.as_str().unwrap_or_default().to_owned());
        search(value, path, templates);
        path.pop();
    }
}

fn pod<'d>(
    object: &'d Node,
    path: Vec<String>,
    repeated: &'d BTreeSet<usize>,
) -> Result<Pod<'d>, String> {
    let kind = object.get("kind").and_then(Node::as_str).unwrap_or_default().to_owned();
    let name = ["name", "generateName"]
        .iter()
        .find_map(|key| object.at(&["metadata", key]).and_then(Node::as_str))
        .unwrap_or("unnamed")
        .trim_end_matches('-')
        .to_owned();
    let mut pod = Pod {
        object: format!("{}/{name}", kind.to_lowercase()),
        name,
        kind,
        path: Vec::new(),
        node: object,
        repeated,
        shared: repeated.contains(&object.anchor).then(|| "the object".to_owned()),
    };
    for key in &path {
        let missing = || pod.fail(&format!("has no {}", path.join(".")));
        pod.node = pod.node.get(key).ok_or_else(missing)?;
        if repeated.contains(&pod.node.anchor) {
            pod.shared = Some(key.clone());
        }
    }
    pod.path = path;
    match pod.node.at(&["spec", "containers"]) {
        Some(_) => Ok(pod),
        None => Err(pod.fail("has no containers")),
    }
}
