//! The bundles that are handed out: one for each namespace that has sidecars, made when it is asked
//! for, and anew when something of it has changed. Who waits is woken only when its bundle is another.

use crate::{
    scope::{self, Index, Names, Selection},
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
use tokio::sync::watch;

/// Namespaces with sidecars, at most; those of others hear of a change when they ask again.
const NAMESPACES_MAX: usize = 10_000;
/// Namespaces that are looked at before questions are answered again.
const AT_ONCE: usize = 16;

/// What a namespace's sidecars get, ready to be sent.
#[derive(Debug)]
pub(crate) struct Item {
    /// Of its bytes: the same bytes have the same tag, whoever serves them. Empty before the first
    /// look at the source.
    pub(crate) tag: String,
    pub(crate) plain: Bytes,
    pub(crate) packed: Bytes,
    /// What it was made of.
    selection: Selection,
}

impl Item {
    fn new(selection: Selection, names: &Names) -> Self {
        let text = scope::text(&selection.parts(names));
        let mut tag = String::from("\"");
        for byte in digest(text.as_bytes()).iter().take(16) {
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        let packed = packer.write_all(text.as_bytes()).and_then(|()| packer.finish());
        Self { tag, packed: packed.unwrap_or_default().into(), plain: text.into(), selection }
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
    now: Mutex<Now>,
}

/// What they are made of now, and who waits for them.
#[derive(Debug, Default)]
struct Now {
    known: Arc<(Arc<World>, Index)>,
    items: HashMap<String, watch::Sender<Arc<Item>>>,
}

impl Shelf {
    pub(crate) fn new(names: Names) -> Self {
        Self { names, now: Mutex::default() }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self, known: &(Arc<World>, Index), namespace: &str) -> Item {
        let (world, index) = known;
        let selection = index.select(world, namespace, &self.names);
        match world.generation {
            // Before the first look nobody is told that there are no rules.
            0 => Item { tag: String::new(), plain: Bytes::new(), packed: Bytes::new(), selection },
            _ => Item::new(selection, &self.names),
        }
    }

    /// What a namespace's sidecars get now, and later.
    pub(crate) fn ask(&self, namespace: &str) -> watch::Receiver<Arc<Item>> {
        let mut now = self.now();
        if let Some(item) = now.items.get(namespace) {
            return item.subscribe();
        }
        let (tell, told) = watch::channel(Arc::new(self.made(&now.known, namespace)));
        if now.items.len() < NAMESPACES_MAX {
            now.items.insert(namespace.to_owned(), tell);
        }
        told
    }

    /// The tag of what a namespace's sidecars get now.
    pub(crate) fn tag(&self, namespace: &str) -> String {
        self.ask(namespace).borrow().tag.clone()
    }

    /// The world has changed: whoever gets something else than before is told. What nobody waits
    /// for is forgotten, and made when it is asked for.
    pub(crate) async fn change(&self, world: Arc<World>) {
        let index = Index::of(&world, &self.names);
        let known = Arc::new((world, index));
        let namespaces: Vec<String> = {
            let mut now = self.now();
            now.known = known.clone();
            now.items.retain(|_, item| item.receiver_count() > 0);
            now.items.keys().cloned().collect()
        };
        for some in namespaces.chunks(AT_ONCE) {
            for namespace in some {
                self.renew(&known, namespace);
            }
            tokio::task::yield_now().await;
        }
    }

    fn renew(&self, known: &(Arc<World>, Index), namespace: &str) {
        let Some(before) = self.now().items.get(namespace).map(|it| it.borrow().clone()) else {
            return;
        };
        let is_first = before.tag.is_empty();
        let selection = known.1.select(&known.0, namespace, &self.names);
        if !is_first && selection.is(&before.selection) {
            return;
        }
        let made = Item::new(selection, &self.names);
        let is_other = made.tag != before.tag;
        if let Some(item) = self.now().items.get(namespace) {
            item.send_if_modified(|item| {
                *item = Arc::new(made);
                is_other
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Document;
    use serde_json::json;
    use std::io::Read as _;

    fn world(generation: u64, namespace: &str) -> Arc<World> {
        let value = json!({"kind": "MetaRouter", "metadata": {"name": "a", "namespace": namespace},
            "spec": {"exportTo": ["."]}});
        let documents = vec![Arc::new(Document::new("a.yaml", value).unwrap())];
        Arc::new(World { generation, documents, ..World::default() })
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_what_concerns_its_namespace_alone() {
        let names = Names { domain: "cluster.local".into(), root_namespace: "netra".into() };
        let shelf = Shelf::new(names);
        let (mut shop, mut pay) = (shelf.ask("shop"), shelf.ask("pay"));
        assert_eq!(shop.borrow_and_update().tag, "", "nothing is told before the first look");
        shelf.change(world(1, "shop")).await;
        assert!(shop.has_changed().unwrap() && pay.has_changed().unwrap());
        let [first, empty] = [&mut shop, &mut pay].map(|it| it.borrow_and_update().clone());
        assert_ne!(first.tag, empty.tag);
        // The same bytes, of other objects.
        shelf.change(world(2, "shop")).await;
        assert!(!shop.has_changed().unwrap() && !pay.has_changed().unwrap());
        assert_eq!(shop.borrow().tag, first.tag);
        shelf.change(world(3, "pay")).await;
        assert!(shop.has_changed().unwrap() && pay.has_changed().unwrap());
        assert_eq!(shop.borrow().tag, empty.tag);
        assert_eq!(shelf.ask("else").borrow().tag, empty.tag);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&first.packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text.as_bytes(), &first.plain[..]);
        // What nobody waits for is not kept.
        drop((shop, pay));
        shelf.change(world(4, "pay")).await;
        assert!(shelf.now().items.is_empty());
    }
}
