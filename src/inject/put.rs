//! Putting the sidecar in.

use super::containers::{Containers, RULES_VOLUME};
use super::netramesh::Netramesh;
use super::pods::{INJECTED, Pod};
use super::record::{FLAGS, OVER, Over};
use super::take::is_our_volume;
use super::text::{Edits, parts};
use super::wanted::Wanted;
use super::yaml::{self, Node, Value};

/// Puts the containers in, and the annotations that tell of it.
pub(super) fn put_in(
    edits: &mut Edits<'_>,
    pod: &Pod<'_>,
    wanted: &Wanted,
    made: &Containers,
    old: Option<&Netramesh<'_>>,
) -> Result<(), String> {
    let spec = pod.node.get("spec").ok_or("has no spec")?;
    let containers = spec.get("containers").filter(|list| !list.items().is_empty());
    let containers = containers.ok_or_else(|| not_a("containers"))?;
    let (inits, metadata) = (spec.get("initContainers"), pod.node.get("metadata"));
    pod.is_not_shared(&[
        ("spec", Some(spec)),
        ("containers", Some(containers)),
        ("initContainers", inits),
        ("volumes", spec.get("volumes")),
        ("metadata", metadata),
        ("annotations", metadata.and_then(|metadata| metadata.get("annotations"))),
    ])?;
    let step = step(edits.text, spec, containers)?;
    let mut put = Put { edits, spec, step, over: Over::default() };
    let init = made.init.clone();
    let (first, last) = match wanted.is_classic() {
        // Last: what runs after it would have no network until the sidecar is there.
        true => (vec![init], true),
        false => (vec![init, made.sidecar.clone()], false),
    };
    put.inits(old.and_then(|old| old.init), &Node::sequence(first), last, made)?;
    match old.map(|old| old.sidecar) {
        Some(index) if wanted.is_classic() => {
            put.exchange("containers", containers, index, &Node::sequence([made.sidecar.clone()]))?
        }
        Some(index) => put.over.aside = Some(put.edits.put_aside(containers, index..index + 1)?),
        // Last: the first is the one that `kubectl logs` and `kubectl exec` choose.
        None if wanted.is_classic() => {
            let sidecar = Node::sequence([made.sidecar.clone()]);
            put.edits.insert(containers, containers.items().len(), &sidecar, put.step)?;
        }
        None => {}
    }
    put.annotate(pod.node, wanted)
}

fn not_a(what: &str) -> String {
    format!("{what} is not what it should be (an alias?)")
}

/// How far lists stand right of their key in this pod: as `containers` does.
fn step(text: &str, spec: &Node, containers: &Node) -> Result<usize, String> {
    let Some(index) = spec.position("containers").filter(|_| !containers.is_flow) else {
        return Ok(0);
    };
    let column = |at: usize| at - text[..at].rfind('\n').map_or(0, |end| end + 1);
    let dash = parts(text, containers)?.first().map_or(0, |part| column(part.start));
    Ok(dash.saturating_sub(column(spec.entries()[index].0.start)))
}

struct Put<'e, 't, 'n> {
    edits: &'e mut Edits<'t>,
    spec: &'n Node,
    step: usize,
    over: Over,
}

impl Put<'_, '_, '_> {
    /// Puts init containers in, and the volume that ours need. What the pod has none of yet comes before
    /// its containers, in one piece.
    fn inits(
        &mut self,
        old: Option<usize>,
        new: &Node,
        is_last: bool,
        made: &Containers,
    ) -> Result<(), String> {
        let mut entries = Node::mapping([]);
        match self.spec.get("initContainers") {
            None => entries.set("initContainers", new.clone()),
            Some(list) if list.is_empty() => self.fill("initContainers", list, new),
            Some(list) if matches!(list.value, Value::Sequence(_)) => match old {
                Some(index) => self.exchange("initContainers", list, index, new)?,
                None => {
                    let index = if is_last { list.items().len() } else { 0 };
                    self.edits.insert(list, index, new, self.step)?;
                }
            },
            Some(_) => return Err(not_a("initContainers")),
        }
        if let Some(volume) = &made.volume {
            self.volume(volume, &mut entries)?;
        }
        if entries.is_empty() {
            return Ok(());
        }
        // Behind what was put at the end of a list that ends here.
        let before = self.spec.position("containers").unwrap_or(0);
        self.edits.insert(self.spec, before, &entries, self.step)
    }

    /// Puts a volume in; where the pod has none yet, into the entries that it gets.
    fn volume(&mut self, volume: &Node, entries: &mut Node) -> Result<(), String> {
        let volume = Node::sequence([volume.clone()]);
        match self.spec.get("volumes") {
            None => entries.set("volumes", volume),
            Some(list) if list.is_empty() => self.fill("volumes", list, &volume),
            Some(list) if list.items().iter().any(is_our_volume) => {
                return Err(format!("has another volume called {RULES_VOLUME}"));
            }
            Some(list) if matches!(list.value, Value::Sequence(_)) => {
                self.edits.insert(list, 0, &volume, self.step)?;
            }
            Some(_) => return Err(not_a("volumes")),
        }
        Ok(())
    }

    /// Puts ours in the place of another container.
    fn exchange(&mut self, key: &str, list: &Node, index: usize, new: &Node) -> Result<(), String> {
        let old = self.edits.exchange(list, index, new, self.step)?;
        self.over.exchanged.push((key.to_owned(), old));
        Ok(())
    }

    /// Gives an empty value something to hold.
    fn fill(&mut self, key: &str, value: &Node, new: &Node) {
        let old = self.edits.text[value.span.clone()].to_owned();
        self.replace(&old, value, new);
        self.over.empty.push((key.to_owned(), old));
    }

    fn replace(&mut self, old: &str, value: &Node, new: &Node) {
        let space = if old.is_empty() { " " } else { "" };
        self.edits.replace(value.span.clone(), format!("{space}{}", yaml::json(new)));
    }

    fn annotate(mut self, pod: &Node, wanted: &Wanted) -> Result<(), String> {
        let text = self.edits.text;
        let old = |value: &Node| text[value.span.clone()].to_owned();
        let metadata = pod.get("metadata");
        let annotations = metadata.and_then(|metadata| metadata.get("annotations"));
        for (key, value) in [("metadata", metadata), ("annotations", annotations)] {
            if let Some(empty) = value.filter(|value| value.is_empty()) {
                self.over.empty.push((key.to_owned(), old(empty)));
            }
        }
        let mut new = Node::mapping([(INJECTED, Node::text(env!("CARGO_PKG_VERSION")))]);
        for (key, json) in [(FLAGS, wanted.to_json()), (OVER, self.over.to_json())] {
            if let Some(json) = json {
                new.set(key, Node::quoted(&json));
            }
        }
        let entry = |new| Node::mapping([("annotations", new)]);
        let is_mapping = |node: &Node| matches!(node.value, Value::Mapping(_));
        match (metadata, annotations) {
            (Some(metadata), None) if metadata.is_empty() => {
                self.replace(&old(metadata), metadata, &entry(new));
                Ok(())
            }
            (Some(_), Some(annotations)) if annotations.is_empty() => {
                self.replace(&old(annotations), annotations, &new);
                Ok(())
            }
            (Some(_), Some(annotations)) if is_mapping(annotations) => {
                self.edits.insert(annotations, 0, &new, self.step)
            }
            (Some(metadata), None) if is_mapping(metadata) => {
                self.edits.insert(metadata, 0, &entry(new), self.step)
            }
            (None, _) => {
                let entry = Node::mapping([("metadata", entry(new))]);
                self.edits.insert(pod, pod.position("spec").unwrap_or(0), &entry, self.step)
            }
            _ => Err(not_a("metadata.annotations")),
        }
    }
}
