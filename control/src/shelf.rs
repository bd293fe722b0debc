//! The bundles that are handed out: one for each namespace that has sidecars, made when it is asked
//! for, and anew when the world has changed. What did not change keeps its tag.

use crate::{
    scope::{Names, Reason, scope},
    world::World,
};
use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::body::Bytes;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Namespaces with sidecars, at most; beyond them a bundle is made for each question.
const NAMESPACES_MAX: usize = 10_000;

/// What a namespace's sidecars get, ready to be sent.
#[derive(Debug)]
pub(crate) struct Item {
    /// Of its bytes: the same bytes have the same tag, whoever serves them.
    pub(crate) tag: String,
    pub(crate) plain: Bytes,
    pub(crate) packed: Bytes,
    pub(crate) reasons: Vec<Reason>,
    /// The change of the world that it was made after.
    generation: u64,
}

impl Item {
    fn new(world: &World, namespace: &str, names: &Names) -> Self {
        let bundle = scope(world, namespace, names);
        let text = bundle.text();
        let mut tag = String::from("\"");
        for byte in digest(text.as_bytes()).iter().take(16) {
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        let packed = packer.write_all(text.as_bytes()).and_then(|()| packer.finish());
        Self {
            tag,
            packed: packed.unwrap_or_default().into(),
            plain: text.into(),
            reasons: bundle.reasons,
            generation: world.generation,
        }
    }

    /// The bytes as they are sent.
    pub(crate) fn body(&self, is_packed: bool) -> Full<Bytes> {
        Full::new(if is_packed { self.packed.clone() } else { self.plain.clone() })
    }
}

/// A hash that nobody can find another text for.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Shelf {
    names: Names,
    items: Mutex<HashMap<String, Arc<Item>>>,
}

impl Shelf {
    pub(crate) fn new(names: Names) -> Self {
        Self { names, items: Mutex::default() }
    }

    fn items(&self) -> MutexGuard<'_, HashMap<String, Arc<Item>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a namespace's sidecars get of this world.
    pub(crate) fn item(&self, world: &World, namespace: &str) -> Arc<Item> {
        let before = self.items().get(namespace).cloned();
        if let Some(item) = &before
            && item.generation == world.generation
        {
            return item.clone();
        }
        // Outside of the lock: other namespaces are served meanwhile.
        let mut made = Item::new(world, namespace, &self.names);
        if let Some(before) = before
            && before.tag == made.tag
        {
            (made.plain, made.packed) = (before.plain.clone(), before.packed.clone());
        }
        let made = Arc::new(made);
        let mut items = self.items();
        if items.len() < NAMESPACES_MAX || items.contains_key(namespace) {
            items.insert(namespace.to_owned(), made.clone());
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Document;
    use serde_json::json;
    use std::io::Read as _;

    fn world(generation: u64, namespace: &str) -> World {
        let value = json!({"kind": "MetaRouter", "metadata": {"name": "a", "namespace": namespace},
            "spec": {"exportTo": ["."]}});
        let documents = vec![Document::new("a.yaml", value).unwrap()];
        World { generation, documents, ..World::default() }
    }

    #[test]
    fn what_does_not_concern_a_namespace_leaves_its_tag() {
        let names = Names { domain: "cluster.local".into(), root_namespace: "netra".into() };
        let shelf = Shelf::new(names);
        let [first, again] = [1, 1].map(|_| shelf.item(&world(1, "shop"), "shop"));
        assert!(Arc::ptr_eq(&first, &again));
        let elsewhere = shelf.item(&world(1, "shop"), "pay");
        assert_ne!(first.tag, elsewhere.tag);
        assert_eq!(shelf.item(&world(2, "shop"), "shop").tag, first.tag);
        assert_eq!(shelf.item(&world(3, "else"), "shop").tag, elsewhere.tag);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&first.packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text.as_bytes(), &first.plain[..]);
    }
}
