//! Texts become documents, each of a kind that is known and in the shape of its kind.

use crate::{
    kinds::{GROUPS, KINDS, Kind},
    shape::{Judge, short},
    trouble::{Place, Troubles},
    yaml::{self, Node, Spot},
};
use std::{collections::HashMap, sync::Arc};

/// A text with documents.
#[derive(Clone, Debug)]
pub struct Source {
    /// What messages call it: its path, usually.
    pub name: String,
    /// The text.
    pub text: String,
}

/// All texts together, at most. A ConfigMap has one MiB.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// A document of a kind that is known.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) kind: &'static Kind,
    pub(crate) file: Arc<str>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) root: Node,
}

impl Document {
    /// The place of a value of it.
    pub(crate) fn place(&self, spot: Spot) -> Place {
        Place::new(&self.file, spot)
    }

    /// The place of its beginning.
    pub(crate) fn start(&self) -> Place {
        self.place(self.root.spot)
    }

    /// Kind, namespace and name.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}/{}", self.kind.name, self.namespace, self.name)
    }
}

/// Reads all documents of all texts.
pub(crate) fn read(sources: &[Source], troubles: &mut Troubles) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut bytes = 0_usize;
    for source in sources {
        let file: Arc<str> = source.name.as_str().into();
        bytes = bytes.saturating_add(source.text.len());
        if bytes > TEXT_BYTES_MAX {
            let what = format!("with it there are more than {TEXT_BYTES_MAX} bytes of documents");
            troubles.error(Place::new(&file, Spot::default()), what);
            break;
        }
        match yaml::read(&source.text) {
            Ok(roots) => {
                for root in roots {
                    take(root, &file, true, &mut documents, troubles);
                }
            }
            Err(wrong) => troubles.error(Place::new(&file, wrong.spot), wrong.what),
        }
    }
    complain_of_twins(&documents, troubles);
    documents
}

/// Takes a document, or those of a list.
fn take(
    mut root: Node,
    file: &Arc<str>,
    may_be_list: bool,
    documents: &mut Vec<Document>,
    troubles: &mut Troubles,
) {
    if root.is_null() {
        return;
    }
    let place = Place::new(file, root.spot);
    let (api, name) = (root.text_of("apiVersion"), root.text_of("kind"));
    let (Some(api), Some(name)) = (api, name) else {
        troubles.error(place, "no document of Kubernetes: apiVersion or kind is missing");
        return;
    };
    if may_be_list && name.ends_with("List") {
        let yaml::Value::Map(entries) = &mut root.value else { return };
        let items = entries.iter_mut().find(|(key, _)| &*key.text == "items");
        if let Some((_, Node { value: yaml::Value::List(items), .. })) = items {
            for item in std::mem::take(items) {
                take(item, file, false, documents, troubles);
            }
        }
        return;
    }
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let kind = KINDS.iter().find(|kind| kind.group == group && kind.name == name);
    let Some(kind) = kind else {
        let what = format!("{} of {}", short(name), short(api));
        match GROUPS.contains(&group) {
            true => troubles.error(place, format!("{what} is not read: allowed is {}", known())),
            false => troubles.warn(place, format!("{what} says no rules: left out")),
        }
        return;
    };
    if !kind.versions.contains(&version) {
        let allowed = kind.versions.join(", ");
        let what = format!("apiVersion={:?}: allowed of {name} is {allowed}", short(version));
        troubles.error(place, what);
        return;
    }
    Judge { file, troubles }.judge(&root, &kind.document, kind.name);
    let named = |name: &str| root.at(&["metadata", name]).and_then(Node::text);
    documents.push(Document {
        kind,
        file: Arc::clone(file),
        namespace: named("namespace").unwrap_or("default").to_owned(),
        name: named("name").unwrap_or_default().to_owned(),
        root,
    });
}

/// Two documents of one name are one in Kubernetes; here nobody knows which is meant.
fn complain_of_twins(documents: &[Document], troubles: &mut Troubles) {
    let mut seen: HashMap<String, &Document> = HashMap::new();
    for document in documents {
        if let Some(first) = seen.insert(document.full_name(), document) {
            let what = format!("{} is at {}, too", document.full_name(), first.start());
            troubles.error(document.start(), what);
        }
    }
}

/// The kinds that are read, in words.
fn known() -> String {
    let names: Vec<_> =
        KINDS.iter().map(|kind| format!("{} of {}", kind.name, kind.group)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn troubles(text: &str) -> Troubles {
        let mut troubles = Troubles::default();
        read(&[Source { name: "a.yaml".into(), text: text.into() }], &mut troubles);
        troubles
    }

    fn only_error(text: &str) -> String {
        let troubles = troubles(text);
        assert_eq!(troubles.errors().len(), 1, "{troubles:?}");
        troubles.errors()[0].to_string()
    }

    #[test]
    fn kinds_are_told_by_group_and_version() {
        let entry = |api: &str, kind: &str| format!("apiVersion: {api}\nkind: {kind}\n");
        let wrong = only_error(&entry("networking.istio.io/v1", "VirtualService"));
        assert!(wrong.starts_with("a.yaml:1:1: VirtualService of networking"), "{wrong}");
        let wrong = only_error(&entry("metaprotocol.aeraki.io/v2", "MetaRouter"));
        assert!(wrong.contains("allowed of MetaRouter is v1alpha1"), "{wrong}");
        let other = troubles(&entry("v1", "Service"));
        assert!(other.is_good());
        assert_eq!(other.warnings()[0].what, "Service of v1 says no rules: left out");
        assert!(only_error("a: b\n").contains("kind is missing"));
        assert!(only_error("- a\n").contains("kind is missing"));
        assert!(troubles("---\n---\n# nothing\n").is_good());
    }

    #[test]
    fn lists_are_what_is_in_them() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: networking.istio.io/v1\n  \
                    kind: DestinationRule\n  metadata: {name: a}\n  spec: {host: A}\n";
        let wrong = only_error(text);
        let expected =
            "a.yaml:7:16: DestinationRule.spec.host=\"A\": allowed is the name of one host";
        assert!(wrong.starts_with(expected), "{wrong}");
    }

    #[test]
    fn twins_and_unknown_fields_are_errors() {
        let one = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                   metadata: {name: a}\nspec: {host: a}\n";
        let wrong = only_error(&format!("{one}---\n{one}"));
        assert_eq!(wrong, "a.yaml:6:1: DestinationRule/default/a is at a.yaml:1:1, too");
        let wrong = only_error(&one.replace("{host: a}", "{host: a, hots: b}"));
        assert_eq!(
            wrong,
            "a.yaml:4:17: DestinationRule.spec.hots is unknown: allowed is host, trafficPolicy, \
             subsets, exportTo, workloadSelector"
        );
    }
}
