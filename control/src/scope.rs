//! What a sidecar gets of the world: what its namespace may see and its rules speak of, in documents
//! that need no cluster to be understood. Pure.
//!
//! Selectors become endpoints, services become ServiceEntries, and who may ask becomes addresses:
//! so a sidecar reads the same kinds from here as from a directory, by the same code.

use crate::world::{Document, Id, Service, Workload, World, ZONE};
use netra_rules::Protocol;
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    sync::Arc,
};

/// The fleet's own names.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The domain behind `NAME.NAMESPACE.svc`.
    pub(crate) domain: String,
    /// The namespace whose authorizations are for every other, too.
    pub(crate) root_namespace: String,
}

/// A document of a bundle.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Where it was written.
    pub(crate) place: String,
    /// It, in one line.
    pub(crate) text: String,
}

/// Why a document is in a bundle or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) place: String,
    pub(crate) is_in: bool,
    pub(crate) why: Cow<'static, str>,
}

/// An address that nobody has: an asker from nowhere.
const NOBODY: &str = "255.255.255.255/32";

/// Every document of the world and every service: whether a namespace gets it, and why.
pub(crate) fn reasons(world: &World, namespace: &str, names: &Names) -> Vec<Reason> {
    let selection = Index::of(world, names).select(world, namespace, names);
    let mut reasons = selection.reasons(world, namespace, names);
    // Those of documents come first, in their order.
    for asked in &world.asked {
        let Some(wrong) = world.wrong.get(&asked.place) else { continue };
        let (is_its, scope) = concerns(asked, namespace, names);
        if !is_its {
            continue;
        }
        let standing = world.documents.iter().position(|it| it.id() == asked.id());
        match standing.and_then(|place| reasons.get_mut(place)) {
            Some(old) => {
                old.why = format!(
                    "{}, but AN EARLIER VERSION of it: what it says now is bad: {wrong}",
                    old.why
                )
                .into();
            }
            None => reasons.push(Reason {
                place: asked.place.clone(),
                is_in: false,
                why: format!("{scope}, but bad, and no version before it is known: {wrong}").into(),
            }),
        }
    }
    reasons
}

/// Where in a world is what: made once for each change, so that a namespace costs what it gets.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Documents of each namespace.
    own: HashMap<String, Vec<usize>>,
    /// Documents that others than their namespace may see.
    shown: Vec<usize>,
    /// Services by each of their names; how short the name is stands beside.
    hosts: HashMap<String, Vec<(usize, usize)>>,
    /// Services whose ports say what is spoken.
    named: Vec<usize>,
}

impl Index {
    pub(crate) fn of(world: &World, names: &Names) -> Self {
        let mut index = Self::default();
        for (at, document) in world.documents.iter().enumerate() {
            match index.own.get_mut(&document.namespace) {
                Some(own) => own.push(at),
                None => drop(index.own.insert(document.namespace.clone(), vec![at])),
            }
            // Nobody's namespace: who sees it from there sees it from everywhere that it is shown to.
            if document.texts("exportTo").any(|to| to != ".") || concerns(document, "", names).0 {
                index.shown.push(at);
            }
        }
        for (at, service) in world.services.iter().enumerate() {
            for (length, host) in service.hosts(&names.domain).into_iter().enumerate() {
                index.hosts.entry(host).or_default().push((at, length));
            }
            if service.ports.iter().any(|port| protocol_of(port).is_some()) {
                index.named.push(at);
            }
        }
        index
    }

    /// What concerns a namespace.
    pub(crate) fn select(&self, world: &World, namespace: &str, names: &Names) -> Selection {
        let own = self.own.get(namespace).into_iter().flatten();
        let shown = self.shown.iter().filter(|at| world.documents[**at].namespace != namespace);
        let documents: Vec<Arc<Document>> = own
            .chain(shown)
            .map(|at| &world.documents[*at])
            .filter(|it| concerns(it, namespace, names).0)
            .map(Arc::clone)
            .collect();
        let mut services: BTreeMap<usize, BTreeSet<String>> =
            self.named.iter().map(|at| (*at, BTreeSet::new())).collect();
        let mut ask = |host: &str| {
            for (at, length) in self.hosts.get(host).into_iter().flatten() {
                // The shortest name means a service of one's own namespace.
                if *length < 3 || world.services[*at].namespace == namespace {
                    services.entry(*at).or_default().insert(host.to_owned());
                }
            }
        };
        for document in &documents {
            for host in document.hosts() {
                ask(host);
                // A short name is of the document's namespace, as Istio has it.
                if !host.contains('.') && document.namespace == namespace {
                    ask(&format!("{host}.{namespace}.svc.{}", names.domain));
                }
            }
        }
        let services =
            services.into_iter().map(|(at, asked)| (world.services[at].clone(), asked)).collect();
        let is_asking = documents.iter().any(|it| it.kind == "Authorization")
            || documents.iter().any(|it| it.value.pointer("/spec/workloadSelector").is_some());
        let workloads = is_asking.then(|| world.workloads.clone());
        Selection { documents, services, workloads }
    }
}

/// What concerns a namespace, not yet in words.
#[derive(Debug)]
pub(crate) struct Selection {
    documents: Vec<Arc<Document>>,
    services: Vec<(Arc<Service>, BTreeSet<String>)>,
    /// Everybody with an address, where a document asks for them.
    workloads: Option<Arc<Vec<Workload>>>,
}

impl Selection {
    /// Whether it makes the same bundle: by the objects' addresses, so that nothing is read.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let workloads = |it: &Self| it.workloads.as_ref().map(Arc::as_ptr);
        self.documents.len() == other.documents.len()
            && self.services.len() == other.services.len()
            && workloads(self) == workloads(other)
            && self.documents.iter().zip(&other.documents).all(|(a, b)| Arc::ptr_eq(a, b))
            && self
                .services
                .iter()
                .zip(&other.services)
                .all(|((a, asks_a), (b, asks_b))| Arc::ptr_eq(a, b) && asks_a == asks_b)
    }

    /// Its documents.
    pub(crate) fn parts(&self, names: &Names) -> Vec<Part> {
        let mut parts: BTreeMap<Id, Part> = BTreeMap::new();
        let nobody = Vec::new();
        let workloads = self.workloads.as_deref().unwrap_or(&nobody);
        for document in &self.documents {
            let text = plain(document, workloads).to_string();
            parts.insert(document.id(), Part { place: document.place.clone(), text });
        }
        for (service, asked) in &self.services {
            let id = ("ServiceEntry".to_owned(), service.namespace.clone(), service.name.clone());
            parts.entry(id).or_insert_with(|| {
                let text = service_entry(service, &names.domain, asked).to_string();
                Part { place: place_of(service), text }
            });
        }
        parts.into_values().collect()
    }

    /// Why each document and service of the world is in it or not.
    fn reasons(&self, world: &World, namespace: &str, names: &Names) -> Vec<Reason> {
        let documents = world.documents.iter().map(|document| {
            let (is_in, why) = concerns(document, namespace, names);
            Reason { place: document.place.clone(), is_in, why: why.into() }
        });
        let services = world.services.iter().map(|service| {
            let found = self.services.iter().find(|(it, _)| Arc::ptr_eq(it, service));
            let (is_in, why) = match found {
                Some((_, asked)) if asked.is_empty() => (true, "its ports say what is spoken"),
                Some(_) => (true, "a rule of this namespace speaks of it"),
                None => {
                    (false, "no rule of this namespace speaks of it, and its ports say nothing")
                }
            };
            Reason { place: place_of(service), is_in, why: Cow::Borrowed(why) }
        });
        documents.chain(services).collect()
    }
}

fn place_of(service: &Service) -> String {
    format!("Service {}/{}", service.namespace, service.name)
}

/// Parts in one text.
pub(crate) fn text(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        let _ = writeln!(text, "---\n{}", part.text);
    }
    text
}

/// Whether a document is for the sidecars of a namespace, and why.
pub(crate) fn concerns(
    document: &Document,
    namespace: &str,
    names: &Names,
) -> (bool, &'static str) {
    let is_own = document.namespace == namespace;
    if document.kind == "ApplicationProtocol" {
        return (true, "the fleet's");
    }
    if document.kind.contains("Authorization") {
        return match document.namespace == names.root_namespace {
            _ if is_own => (true, "of this namespace"),
            true => (true, "of the root namespace"),
            false => (false, "an authorization of another namespace"),
        };
    }
    let exports: Vec<&str> = document.texts("exportTo").collect();
    let is_exported = exports.is_empty()
        || exports.iter().any(|to| *to == "*" || *to == namespace || (*to == "." && is_own));
    match (is_own, is_exported) {
        (true, true) => (true, "of this namespace"),
        (false, true) => (true, "exported to this namespace"),
        (_, false) => (false, "not exported to this namespace"),
    }
}

/// A document as a sidecar needs it.
fn plain(document: &Document, workloads: &[Workload]) -> Value {
    let mut value = document.value.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| ["name", "namespace", "annotations"].contains(&key.as_str()));
        // kubectl's copy of the whole object, and others' notes.
        if let Some(notes) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            notes.retain(|key, _| key == "interface");
        }
    }
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else { return value };
    spec.remove("exportTo");
    match document.kind.as_str() {
        "ServiceEntry" => select_endpoints(spec, &document.namespace, workloads),
        "Authorization" => resolve_askers(spec, workloads),
        _ => {}
    }
    value
}

/// In the place of a selector: the workloads that it selects.
fn select_endpoints(spec: &mut Map<String, Value>, namespace: &str, workloads: &[Workload]) {
    let Some(selector) = spec.remove("workloadSelector") else { return };
    let wanted = selector.get("labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let has = |workload: &&Workload| {
        let label = |(key, value): (&String, &Value)| {
            workload.labels.get(key).map(String::as_str) == value.as_str()
        };
        workload.namespace == namespace && wanted.iter().all(label)
    };
    let found = workloads.iter().filter(has);
    let endpoints: Vec<Value> = found
        .map(|workload| json!({"address": workload.address.to_string(), "labels": workload.labels}))
        .collect();
    if spec.get("endpoints").is_none() {
        spec.insert("endpoints".to_owned(), endpoints.into());
        spec.insert("resolution".to_owned(), "STATIC".into());
    }
}

/// In the place of namespaces and accounts: the addresses that they have now.
fn resolve_askers(spec: &mut Map<String, Value>, workloads: &[Workload]) {
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten();
    let froms = rules.filter_map(|rule| rule.get_mut("from").and_then(Value::as_array_mut));
    for from in froms.flatten().filter_map(Value::as_object_mut) {
        let namespaces = texts_of(from.remove("namespaces"));
        let accounts = texts_of(from.remove("serviceAccounts"));
        if namespaces.is_none() && accounts.is_none() {
            continue;
        }
        let is_meant = |workload: &&Workload| {
            let account = format!("{}/{}", workload.namespace, workload.service_account);
            namespaces.as_ref().is_none_or(|them| them.contains(&workload.namespace))
                && accounts.as_ref().is_none_or(|them| them.contains(&account))
        };
        let addresses = workloads.iter().filter(is_meant);
        let mut networks: Vec<String> = addresses
            .map(|it| format!("{}/{}", it.address, if it.address.is_ipv4() { 32 } else { 128 }))
            .collect();
        networks.sort_unstable();
        networks.dedup();
        // Networks that stand beside narrow it down, and an empty list would be everybody.
        if let Some(beside) = from.get("cidrs").and_then(Value::as_array) {
            let beside: Vec<&str> = beside.iter().filter_map(Value::as_str).collect();
            networks.retain(|network| beside.iter().any(|wide| holds(wide, network)));
        }
        if networks.is_empty() {
            networks.push(NOBODY.to_owned());
        }
        from.insert("cidrs".to_owned(), networks.into());
    }
}

/// Whether an address, written as a network of one, lies in a network.
fn holds(wide: &str, one: &str) -> bool {
    let (base, bits) = wide.split_once('/').unwrap_or((wide, "128"));
    let one = one.split('/').next().unwrap_or(one);
    let (Ok(base), Ok(one)) = (base.parse(), one.parse()) else { return false };
    let Ok(bits) = bits.parse::<u32>() else { return false };
    use std::net::IpAddr::{V4, V6};
    match (base, one) {
        (V4(base), V4(one)) => {
            let shift = 32 - bits.min(32);
            u64::from(base.to_bits()) >> shift == u64::from(one.to_bits()) >> shift
        }
        (V6(base), V6(one)) => {
            let shift = 128 - bits.min(128);
            shift == 128 || base.to_bits() >> shift == one.to_bits() >> shift
        }
        _ => false,
    }
}

fn texts_of(list: Option<Value>) -> Option<BTreeSet<String>> {
    let items = list?;
    let texts = items.as_array().into_iter().flatten().filter_map(Value::as_str);
    Some(texts.map(str::to_owned).collect())
}

/// A service in the words of Istio.
fn service_entry(service: &Service, domain: &str, asked: &BTreeSet<String>) -> Value {
    let mut hosts = asked.clone();
    hosts.extend(service.hosts(domain).into_iter().take(1));
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            let (name, protocol) = match protocol_of(port) {
                Some(Protocol::Http1) => ("http".to_owned(), "HTTP"),
                Some(other) => (format!("tcp-metaprotocol-{other}"), "TCP"),
                None => (port.name.clone(), "TCP"),
            };
            json!({"number": port.number, "name": unique(&name, port), "protocol": protocol})
        })
        .collect();
    let endpoints: Vec<Value> = service
        .endpoints
        .iter()
        .map(|endpoint| {
            let ports: BTreeMap<String, u16> = service
                .ports
                .iter()
                .zip(&ports)
                .filter_map(|(port, entry)| {
                    let name = entry["name"].as_str()?.to_owned();
                    Some((name, *endpoint.ports.get(&port.name)?))
                })
                .collect();
            json!({"address": endpoint.address, "ports": ports, "labels": endpoint.labels})
        })
        .collect();
    let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": service.name, "namespace": service.namespace},
        "spec": {
            "hosts": hosts,
            "addresses": addresses,
            "ports": ports,
            "resolution": "STATIC",
            "endpoints": endpoints,
        },
    })
}

/// Two ports of one protocol have names of their own.
fn unique(name: &str, port: &crate::world::Port) -> String {
    format!("{name}-{}", port.number)
}

/// What a port says is spoken there, in the names that rules have: by `appProtocol`, else by its
/// own name, in Aeraki's form or Istio's.
fn protocol_of(port: &crate::world::Port) -> Option<Protocol> {
    match port.app_protocol.rsplit('/').next() {
        None | Some("") => Protocol::from_name(Protocol::named_by_port(&port.name)?),
        Some(said) => Protocol::from_word(said),
    }
}

/// What an endpoint's labels are: those of its workload, with its zone.
pub(crate) fn with_zone(labels: &BTreeMap<String, String>, zone: &str) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    if !zone.is_empty() {
        labels.insert(ZONE.to_owned(), zone.to_owned());
    }
    labels
}

#[cfg(test)]
#[path = "scope_tests.rs"]
mod tests;
