//! Documents are checked before anybody gets them, by the code that sidecars read them with. A bad
//! one is left out, or what it was before stands: the others are not held up by it. Pure.

use crate::{
    scope::{Index, Names, Part},
    world::{Document, Id, World},
};
use netra_rules::{Compiled, Context, Documents, RuleInfo, Source};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Rounds of taking out what is bad, at most: taking one out may make another bad.
const ROUNDS_MAX: usize = 8;

/// What was found good, and what it was found in.
#[derive(Debug, Default)]
pub(crate) struct Vetted {
    /// The documents of the last world, as its source had them.
    asked: HashMap<Id, Arc<Document>>,
    /// The last good version of each.
    good: HashMap<Id, Arc<Document>>,
    /// What is wrong with those of the last world, by place.
    wrong: BTreeMap<String, String>,
}

impl Vetted {
    /// Takes what is bad out of a world, or puts in what it was before; and says so in its
    /// troubles. Endpoints that come and go cost nothing here: only documents that have changed
    /// are looked at.
    pub(crate) fn vet(&mut self, mut world: World, names: &Names) -> World {
        let asked: HashMap<Id, Arc<Document>> =
            world.documents.iter().map(|it| (it.id(), it.clone())).collect();
        let is_new = |it: &Arc<Document>| {
            let before = self.asked.get(&it.id());
            before.is_none_or(|old| !Arc::ptr_eq(old, it) && old.value != it.value)
        };
        world.asked.clone_from(&world.documents);
        if asked.len() == self.asked.len() && !asked.values().any(is_new) {
            world.documents = self.good.values().cloned().collect();
            world.documents.sort_by_cached_key(|it| it.id());
            return self.tell(world);
        }
        self.wrong.clear();
        let new = world.documents.iter().filter(|it| is_new(it));
        let namespaces: BTreeSet<String> = new.map(|it| it.namespace.clone()).collect();
        for _ in 0..ROUNDS_MAX {
            let bad = bad_documents(&world, &namespaces, names);
            if bad.is_empty() {
                break;
            }
            for (place, why) in &bad {
                self.wrong.entry(place.clone()).or_insert_with(|| why.clone());
            }
            let documents = std::mem::take(&mut world.documents);
            world.documents =
                documents.into_iter().filter_map(|it| self.good_of(it, &bad)).collect();
        }
        world.documents.sort_by_cached_key(|it| it.id());
        self.good = world.documents.iter().map(|it| (it.id(), it.clone())).collect();
        self.asked = asked;
        self.tell(world)
    }

    fn tell(&self, mut world: World) -> World {
        world.troubles.extend(self.wrong.iter().map(|(place, why)| format!("{place}: {why}")));
        world.wrong.clone_from(&self.wrong);
        world
    }

    /// A document, unless it is bad: then the version before, unless that is what is bad now.
    fn good_of(
        &self,
        document: Arc<Document>,
        bad: &BTreeMap<String, String>,
    ) -> Option<Arc<Document>> {
        if !bad.contains_key(&document.place) {
            return Some(document);
        }
        self.good.get(&document.id()).filter(|before| before.value != document.value).cloned()
    }
}

/// Documents that are wrong for one of these namespaces, by place, each with the first reason.
fn bad_documents(
    world: &World,
    namespaces: &BTreeSet<String>,
    names: &Names,
) -> BTreeMap<String, String> {
    let mut bad = BTreeMap::new();
    let index = Index::of(world, names);
    for namespace in namespaces {
        let parts = index.select(world, namespace, names).parts(names);
        for (place, why) in errors(&parts, namespace) {
            bad.entry(place).or_insert(why);
        }
    }
    bad
}

/// What is wrong with the parts of a bundle, by the place of its document.
pub(crate) fn errors(parts: &[Part], namespace: &str) -> Vec<(String, String)> {
    let compiled = compiled(parts, namespace);
    let errors = compiled.troubles.errors().iter();
    errors.map(|error| (error.place.file.to_string(), error.what.clone())).collect()
}

/// What each rule of a bundle does, by the place of its document.
pub(crate) fn effects(parts: &[Part], namespace: &str) -> Vec<(String, String)> {
    let Some(table) = compiled(parts, namespace).table else { return Vec::new() };
    // A place is FILE:LINE:COLUMN.
    let file = |place: &str| place.rsplitn(3, ':').last().unwrap_or_default().to_owned();
    let does = |it: &RuleInfo| match &it.never {
        None => it.effect.to_string(),
        Some(never) => format!("{}; it can never decide: {never}", it.effect),
    };
    table.rules().iter().map(|it| (file(&it.place), does(it))).collect()
}

fn compiled(parts: &[Part], namespace: &str) -> Compiled {
    let sources: Vec<Source> = parts
        .iter()
        .map(|part| Source { name: part.place.clone(), text: part.text.clone() })
        .collect();
    let context = Context { endpoints_move: true, ..Context::of_sidecars(namespace) };
    Documents::read(&sources).compile(&context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names() -> Names {
        Names { domain: "cluster.local".into(), root_namespace: "netra".into() }
    }

    fn router(place: &str, name: &str, host: &str, weight: u32) -> Document {
        let to = |subset: &str, weight: u32| json!({"destination": {"host": host, "subset": subset}, "weight": weight});
        let value = json!({
            "apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"hosts": [host], "routes": [
                {"name": "r", "route": [to("v1", weight), to("v2", 100 - weight)]},
            ]},
        });
        Document::new(place, value).unwrap()
    }

    fn rest(host: &str) -> Vec<Arc<Document>> {
        let subset = |name: &str| json!({"name": name, "labels": {"version": name}});
        let rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": host, "namespace": "shop"},
            "spec": {"host": host, "subsets": [subset("v1"), subset("v2")]},
        });
        let endpoint =
            |at: &str, version: &str| json!({"address": at, "labels": {"version": version}});
        let entry = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": host, "namespace": "shop"},
            "spec": {"hosts": [host], "resolution": "STATIC", "addresses": ["10.1.0.1"],
                "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}],
                "endpoints": [endpoint("10.0.0.1", "v1"), endpoint("10.0.0.2", "v2")]},
        });
        [("rule", rule), ("entry", entry)]
            .map(|(place, value)| Arc::new(Document::new(place, value).unwrap()))
            .into()
    }

    fn world(routers: Vec<Document>) -> World {
        let routers = routers.into_iter().map(Arc::new);
        let documents = rest("orders.demo").into_iter().chain(routers).collect();
        World { documents, ..World::default() }
    }

    fn weights(world: &World) -> Vec<u64> {
        let routers = world.documents.iter().filter(|it| it.kind == "MetaRouter");
        routers
            .map(|it| it.value["spec"]["routes"][0]["route"][0]["weight"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn a_bad_change_leaves_the_version_before() {
        let mut vetted = Vetted::default();
        let good = vetted.vet(world(vec![router("a", "orders", "orders.demo", 20)]), &names());
        assert_eq!((weights(&good), good.troubles.as_slice()), (vec![20], &[][..]));
        let mut wrong = router("a", "orders", "orders.demo", 20);
        wrong.value["spec"]["routes"][0]["route"][0]["weight"] = 70.into();
        let kept = vetted.vet(world(vec![wrong.clone()]), &names());
        assert_eq!(weights(&kept), [20]);
        assert!(
            kept.troubles.len() == 1 && kept.troubles[0].starts_with("a: "),
            "{:?}",
            kept.troubles
        );
        // Nothing has changed: the same is said, and the same stands.
        let again = vetted.vet(world(vec![wrong]), &names());
        assert_eq!((weights(&again), again.troubles.len()), (vec![20], 1));
        let mended = vetted.vet(world(vec![router("a", "orders", "orders.demo", 70)]), &names());
        assert_eq!((weights(&mended), mended.troubles.len()), (vec![70], 0));
    }

    #[test]
    fn what_was_never_good_is_left_out_and_the_rest_stands() {
        let mut wrong = router("b", "pay", "pay.demo", 20);
        wrong.value["spec"]["hots"] = 1.into();
        let good = router("a", "orders", "orders.demo", 20);
        let vetted = Vetted::default().vet(world(vec![good, wrong]), &names());
        assert_eq!(weights(&vetted), [20]);
        assert!(vetted.troubles[0].contains("hots"), "{:?}", vetted.troubles);
    }
}
