//! What a sidecar gets of the world: what its namespace may see and its rules speak of, in documents
//! that need no cluster to be understood. Pure.
//!
//! Selectors become endpoints, services become ServiceEntries, and who may ask becomes addresses:
//! so a sidecar reads the same kinds from here as from a directory, by the same code.

use crate::world::{Document, Service, Workload, World, ZONE};
use netra_rules::Protocol;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The fleet's own names.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The domain behind `NAME.NAMESPACE.svc`.
    pub(crate) domain: String,
    /// The namespace whose authorizations are for every other, too.
    pub(crate) root_namespace: String,
}

/// What one namespace's sidecars get, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bundle {
    /// Documents of YAML, each on a line of JSON; always the same for the same world.
    pub(crate) parts: Vec<Part>,
    /// Every document of the world: whether it is in, and why.
    pub(crate) reasons: Vec<Reason>,
}

/// A document of a bundle.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Where it was written.
    pub(crate) place: String,
    /// It, in one line.
    pub(crate) text: String,
}

impl Bundle {
    /// All documents in one text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            let _ = writeln!(text, "---\n{}", part.text);
        }
        text
    }
}

/// Why a document is in a bundle or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) place: String,
    pub(crate) is_in: bool,
    pub(crate) why: &'static str,
}

/// An address that nobody has: an asker from nowhere.
const NOBODY: &str = "255.255.255.255/32";

/// What the sidecars of a namespace get.
pub(crate) fn scope(world: &World, namespace: &str, names: &Names) -> Bundle {
    let mut bundle = Bundle::default();
    let mut parts: BTreeMap<(String, String, String), Part> = BTreeMap::new();
    let mut hosts = BTreeSet::new();
    let part =
        |place: &str, value: Value| Part { place: place.to_owned(), text: value.to_string() };
    for document in &world.documents {
        let (is_in, why) = concerns(document, namespace, names);
        bundle.reasons.push(Reason { place: document.place.clone(), is_in, why });
        if !is_in {
            continue;
        }
        hosts_of(document, namespace, names, &mut hosts);
        let Document { kind, namespace, name, place, .. } = document;
        let key = (kind.clone(), namespace.clone(), name.clone());
        parts.insert(key, part(place, plain(document, world)));
    }
    for service in &world.services {
        let called = service.hosts(&names.domain);
        let is_own = service.namespace == namespace;
        let asked = called
            .iter()
            .enumerate()
            .filter(|(place, host)| hosts.contains(*host) && (*place < 3 || is_own));
        let asked: Vec<&String> = asked.map(|(_, host)| host).collect();
        let is_named = service.ports.iter().any(|port| protocol_of(port).is_some());
        let (is_in, why) = match (asked.is_empty(), is_named) {
            (false, _) => (true, "a rule of this namespace speaks of it"),
            (true, true) => (true, "its ports say what is spoken"),
            _ => (false, "no rule of this namespace speaks of it, and its ports say nothing"),
        };
        let place = format!("Service {}/{}", service.namespace, service.name);
        bundle.reasons.push(Reason { place: place.clone(), is_in, why });
        if is_in {
            let key = ("ServiceEntry".to_owned(), service.namespace.clone(), service.name.clone());
            parts
                .entry(key)
                .or_insert_with(|| part(&place, service_entry(service, &called[0], &asked)));
        }
    }
    bundle.parts = parts.into_values().collect();
    bundle
}

/// Whether a document is for the sidecars of a namespace, and why.
fn concerns(document: &Document, namespace: &str, names: &Names) -> (bool, &'static str) {
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

/// Collects the hosts that a document speaks of, in small letters.
fn hosts_of(document: &Document, namespace: &str, names: &Names, hosts: &mut BTreeSet<String>) {
    let mut add = |host: &str| {
        hosts.insert(host.to_ascii_lowercase());
        // A short name is of the document's namespace, as Istio has it.
        if !host.contains('.') && document.namespace == namespace {
            hosts.insert(format!("{host}.{namespace}.svc.{}", names.domain));
        }
    };
    document.texts("hosts").chain(document.texts("host")).for_each(&mut add);
    each_host(&document.value, &mut add);
}

/// Every value of a key `host`, however deep: destinations of routes and mirrors, subsets.
fn each_host(value: &Value, add: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(host) if key == "host" => add(host),
                    _ => each_host(value, add),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_host(item, add)),
        _ => {}
    }
}

/// A document as a sidecar needs it.
fn plain(document: &Document, world: &World) -> Value {
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
        "ServiceEntry" => select_endpoints(spec, &document.namespace, world),
        "Authorization" => resolve_askers(spec, world),
        _ => {}
    }
    value
}

/// In the place of a selector: the workloads that it selects.
fn select_endpoints(spec: &mut Map<String, Value>, namespace: &str, world: &World) {
    let Some(selector) = spec.remove("workloadSelector") else { return };
    let wanted = selector.get("labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let has = |workload: &&Workload| {
        let label = |(key, value): (&String, &Value)| {
            workload.labels.get(key).map(String::as_str) == value.as_str()
        };
        workload.namespace == namespace && wanted.iter().all(label)
    };
    let found = world.workloads.iter().filter(has);
    let endpoints: Vec<Value> = found
        .map(|workload| json!({"address": workload.address.to_string(), "labels": workload.labels}))
        .collect();
    if spec.get("endpoints").is_none() {
        spec.insert("endpoints".to_owned(), endpoints.into());
        spec.insert("resolution".to_owned(), "STATIC".into());
    }
}

/// In the place of namespaces and accounts: the addresses that they have now.
fn resolve_askers(spec: &mut Map<String, Value>, world: &World) {
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
        let addresses = world.workloads.iter().filter(is_meant);
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
fn service_entry(service: &Service, host: &str, asked: &[&String]) -> Value {
    let mut hosts: BTreeSet<&str> = asked.iter().map(|host| host.as_str()).collect();
    hosts.insert(host);
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
    let said = port.app_protocol.rsplit('/').next().unwrap_or_default();
    let mut words = port.name.split('-');
    let named = match (words.next(), words.next()) {
        (Some("tcp"), Some("metaprotocol")) => words.next(),
        (Some("tcp"), Some(word)) => Some(word),
        (Some("http"), _) => Some("http"),
        _ => None,
    };
    let word = if said.is_empty() { named? } else { said };
    match word {
        "http" => Some(Protocol::Http1),
        "mongo" => Protocol::from_name("mongodb"),
        word => Protocol::from_name(word),
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
