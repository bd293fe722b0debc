//! Taking out what was put in.

use super::containers::RULES_VOLUME;
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
    let flags = pod.annotation(FLAGS).map(Wanted::from_json).transpose();
    let flags = flags.map_err(|error| format!("{FLAGS}: {error}"))?.unwrap_or_default();
    let has_volume = flags.rules_config_map()?.is_some();
    let mut all_ours = Vec::new();
    for (key, is_ours) in LISTS.into_iter().filter(|(key, _)| has_volume || *key != VOLUMES) {
        if let Some(list) = spec.get(key)
            && is_taken_whole(edits, list, key, is_ours, &over)?
        {
            all_ours.push(key);
        }
    }
    entries(edits, spec, &all_ours, &over)?;
    if let Some(metadata) = pod.node.get("metadata") {
        annotations(edits, pod.node, metadata, &over)?;
    }
    Ok(flags)
}

/// Lists of a pod that have something of ours, and what of them it is.
type IsOurs = fn(&Node) -> bool;
const LISTS: [(&str, IsOurs); 3] =
    [("initContainers", is_ours), ("containers", is_ours), (VOLUMES, is_our_volume)];
const VOLUMES: &str = "volumes";

pub(super) fn is_our_volume(volume: &Node) -> bool {
    volume.get("name").and_then(Node::as_str) == Some(RULES_VOLUME)
}

/// Takes what is ours out of a list. True where that is all of it, and the list is to go as a whole.
fn is_taken_whole(
    edits: &mut Edits<'_>,
    list: &Node,
    key: &str,
    is_ours: IsOurs,
    over: &Over,
) -> Result<bool, String> {
    let runs = runs(list.items().iter().map(is_ours));
    let Some(first) = runs.first() else {
        let aside = over.aside.as_ref().filter(|_| key == "containers");
        return aside.map_or(Ok(()), |aside| edits.put_back(list, aside)).map(|()| false);
    };
    if let Some(old) = over.exchanged(key) {
        return edits.exchange_back(list, first.clone(), old).map(|()| false);
    }
    if first.len() == list.items().len() {
        return Ok(true);
    }
    runs.into_iter().try_for_each(|run| edits.remove(list, run)).map(|()| false)
}

/// Takes entries out that are ours as a whole, neighbours in one piece.
fn entries(
    edits: &mut Edits<'_>,
    spec: &Node,
    all_ours: &[&str],
    over: &Over,
) -> Result<(), String> {
    let is_emptied = |key: &&&str| over.empty(key).is_some();
    for key in all_ours.iter().filter(is_emptied) {
        let list = spec.get(key).ok_or("lost its place")?;
        take_away(edits, spec, key, list, over)?;
    }
    let is_removed = |key: &str| all_ours.contains(&key) && over.empty(key).is_none();
    let are_ours = spec.entries().iter().map(|(key, _)| key.as_str().is_some_and(is_removed));
    runs(are_ours).into_iter().try_for_each(|run| edits.remove(spec, run))
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
