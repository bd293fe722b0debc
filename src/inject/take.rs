//! Taking out what was put in.

use super::pods::Pod;
use super::record::{ANNOTATIONS, FLAGS, OVER, Over};
use super::text::Edits;
use super::wanted::Wanted;
use super::yaml::Node;
use std::ops::Range;

/// Names of our containers.
pub(super) const INIT: &str = "netra-init";
pub(super) const SIDECAR: &str = "netra";

pub(super) fn is_ours(container: &Node) -> bool {
    let name = container.get("name").and_then(Node::as_str);
    name == Some(INIT) || name == Some(SIDECAR)
}

/// Takes everything of ours out of an injected pod, and says which flags it had.
pub(super) fn take_out(edits: &mut Edits<'_>, pod: &Pod<'_>) -> Result<Wanted, String> {
    let spec = pod.node.get("spec").ok_or("has no spec")?;
    let over = pod.annotation(OVER).map(Over::from_json).transpose();
    let over = over.map_err(|error| format!("{OVER}: {error}"))?.unwrap_or_default();
    for key in ["initContainers", "containers"] {
        if let Some(list) = spec.get(key) {
            containers(edits, spec, key, list, &over)?;
        }
    }
    if let Some(metadata) = pod.node.get("metadata") {
        annotations(edits, pod.node, metadata, &over)?;
    }
    let flags = pod.annotation(FLAGS).map(Wanted::from_json).transpose();
    Ok(flags.map_err(|error| format!("{FLAGS}: {error}"))?.unwrap_or_default())
}

fn containers(
    edits: &mut Edits<'_>,
    spec: &Node,
    key: &str,
    list: &Node,
    over: &Over,
) -> Result<(), String> {
    let runs = runs(list.items().iter().map(is_ours));
    let Some(first) = runs.first() else {
        let aside = over.aside.as_ref().filter(|_| key == "containers");
        return aside.map_or(Ok(()), |aside| edits.put_back(list, aside));
    };
    if let Some(old) = over.exchanged(key) {
        return edits.exchange_back(list, first.clone(), old);
    }
    if first.len() == list.items().len() {
        return take_away(edits, spec, key, list, over);
    }
    runs.into_iter().try_for_each(|run| edits.remove(list, run))
}

fn annotations(
    edits: &mut Edits<'_>,
    pod: &Node,
    metadata: &Node,
    over: &Over,
) -> Result<(), String> {
    let Some(annotations) = metadata.get("annotations") else { return Ok(()) };
    let is_ours = |(key, _): &(Node, Node)| key.as_str().is_some_and(|k| ANNOTATIONS.contains(&k));
    let runs = runs(annotations.entries().iter().map(is_ours));
    let is_all = runs.first().is_some_and(|run| run.len() == annotations.entries().len());
    if !is_all {
        return runs.into_iter().try_for_each(|run| edits.remove(annotations, run));
    }
    if metadata.entries().len() > 1 || over.empty("annotations").is_some() {
        return take_away(edits, metadata, "annotations", annotations, over);
    }
    take_away(edits, pod, "metadata", metadata, over)
}

/// Removes an entry of which everything is ours, or gives it back the emptiness that it had.
fn take_away(
    edits: &mut Edits<'_>,
    of: &Node,
    key: &str,
    value: &Node,
    over: &Over,
) -> Result<(), String> {
    if let Some(empty) = over.empty(key) {
        // A space was put behind the colon if there was nothing.
        let start = value.span.start - usize::from(empty.is_empty());
        edits.replace(start..value.span.end, empty);
        return Ok(());
    }
    let index = of.position(key).ok_or("lost its place")?;
    edits.remove(of, index..index + 1)
}

/// Where neighbours are that all are ours.
fn runs(are_ours: impl Iterator<Item = bool>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, _) in are_ours.enumerate().filter(|(_, is_ours)| *is_ours) {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}
