//! What is written back into a document: whether it is good, what it does, how many run it. Pure.

use crate::{
    office::Office,
    scope::{self, Index},
    vet,
    world::{Document, World},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Lines that are written of what a document does, and characters of one.
const LINES_MAX: usize = 20;
const LINE_CHARS_MAX: usize = 200;

/// Status of every document by its place.
pub(crate) type Statuses = BTreeMap<String, (Arc<Document>, Value)>;

/// What documents do, by place, as far as it was looked at.
#[derive(Debug, Default)]
pub(crate) struct Doings {
    of: HashMap<String, Vec<String>>,
    /// The change of the world that it was looked at after.
    generation: u64,
}

impl Doings {
    /// Looks at a world, unless it is the same as before.
    pub(crate) async fn look(&mut self, world: &World, names: &scope::Names) {
        if self.generation == world.generation {
            return;
        }
        self.of.clear();
        let index = Index::of(world, names);
        let namespaces: BTreeSet<&str> =
            world.documents.iter().map(|it| it.namespace.as_str()).collect();
        for namespace in namespaces {
            let parts = index.select(world, namespace, names).parts(names);
            for (place, does) in vet::effects(&parts, namespace) {
                let lines = self.of.entry(place).or_default();
                if lines.len() < LINES_MAX && !lines.contains(&does) {
                    lines.push(does.chars().take(LINE_CHARS_MAX).collect());
                }
            }
            // Questions are answered meanwhile.
            tokio::task::yield_now().await;
        }
        self.generation = world.generation;
    }
}

/// What is to be said of every document of the source: of those that are asked for now, also of
/// those that are bad, whose earlier version stands.
pub(crate) fn statuses(office: &Office, doings: &Doings, writer: &str) -> Statuses {
    let world = office.world.borrow().clone();
    let mut runs: BTreeMap<&str, usize> = BTreeMap::new();
    let counted = office.fleet.tags();
    for ((namespace, tag), count) in &counted {
        if office.shelf.tag(namespace) == *tag {
            *runs.entry(namespace).or_default() += count;
        }
    }
    let mut statuses = Statuses::new();
    for document in &world.asked {
        let why = world.wrong.get(&document.place);
        let seen = runs
            .iter()
            .filter(|(namespace, _)| scope::concerns(document, namespace, &office.names).0);
        // Nobody runs what is bad: what was before it is run.
        let sidecars = if why.is_some() { 0 } else { seen.map(|(_, count)| count).sum() };
        let does = doings.of.get(&document.place).filter(|_| why.is_none());
        let status = json!({
            "conditions": [condition(document, why.map(String::as_str))],
            "does": does.cloned().unwrap_or_default(),
            "sidecars": sidecars,
            "writer": writer,
        });
        statuses.insert(document.place.clone(), (document.clone(), status));
    }
    statuses
}

fn condition(document: &Document, why: Option<&str>) -> Value {
    let (status, reason, message) = match why {
        None => ("True", "Good", "handed out to the sidecars that it concerns"),
        Some(why) => ("False", "Bad", why),
    };
    let mut condition =
        json!({"type": "Accepted", "status": status, "reason": reason, "message": message});
    if let Some(generation) = document.value.pointer("/metadata/generation") {
        condition["observedGeneration"] = generation.clone();
    }
    condition
}
