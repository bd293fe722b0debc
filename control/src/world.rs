//! What a source knows: documents, services with their endpoints, and who has which address.

use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

/// Everything that a source knows at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Counts the changes; 0 is before the first look.
    pub(crate) generation: u64,
    /// Those that are handed out.
    pub(crate) documents: Vec<Arc<Document>>,
    /// All, as the source has them, and what is wrong with those that are bad, by place.
    pub(crate) asked: Vec<Arc<Document>>,
    pub(crate) wrong: BTreeMap<String, String>,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) workloads: Arc<Vec<Workload>>,
    /// What is wrong with what the source has, a line each. What is right stands all the same.
    pub(crate) troubles: Vec<String>,
}

/// Kind, namespace and name of a document.
pub(crate) type Id = (String, String, String);

/// An object of a kind that `netra rules` reads.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// Where it is written, for messages: `FILE`, a key of etcd, or `KIND NAMESPACE/NAME`.
    pub(crate) place: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// All of it, as JSON.
    pub(crate) value: Value,
    /// The hosts that it speaks of, in small letters, once somebody has asked.
    hosts: OnceLock<Vec<String>>,
}

/// A host of the fleet and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Its own addresses (`clusterIPs`); none of a headless one.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) name: String,
    /// What is spoken there, in Kubernetes' field `appProtocol`; empty where that is not said.
    pub(crate) app_protocol: String,
}

/// One place where a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    /// Its ports by the names of the service's.
    pub(crate) ports: BTreeMap<String, u16>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) address: IpAddr,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The label that tells a workload's or an endpoint's zone.
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";

impl Document {
    /// Reads what every object has; None when it is none.
    pub(crate) fn new(place: &str, value: Value) -> Option<Self> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let kind = text("/kind")?;
        let name = text("/metadata/name")?;
        let namespace = text("/metadata/namespace").unwrap_or_else(|| "default".to_owned());
        let (place, hosts) = (place.to_owned(), OnceLock::new());
        Some(Self { place, kind, namespace, name, value, hosts })
    }

    /// Kind, namespace and name.
    pub(crate) fn id(&self) -> Id {
        (self.kind.clone(), self.namespace.clone(), self.name.clone())
    }

    /// Every host that it speaks of: its own, and each value of a key `host`, however deep
    /// (destinations of routes and mirrors, subsets); in small letters.
    pub(crate) fn hosts(&self) -> &[String] {
        self.hosts.get_or_init(|| {
            let mut hosts: Vec<String> = self
                .texts("hosts")
                .chain(self.texts("host"))
                .map(str::to_ascii_lowercase)
                .collect();
            each_host(&self.value, &mut hosts);
            hosts.sort_unstable();
            hosts.dedup();
            hosts
        })
    }

    /// The texts of a list of its `spec`.
    pub(crate) fn texts<'d>(&'d self, field: &str) -> impl Iterator<Item = &'d str> {
        let list = self.value.get("spec").and_then(|spec| spec.get(field));
        list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }
}

fn each_host(value: &Value, hosts: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(host) if key == "host" => hosts.push(host.to_ascii_lowercase()),
                    _ => each_host(value, hosts),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_host(item, hosts)),
        _ => {}
    }
}

impl World {
    /// What has not changed becomes the same object as before: whoever made something of it sees
    /// by its address that there is nothing to do.
    pub(crate) fn keep_of(&mut self, before: &Self) {
        keep(&mut self.documents, &before.asked, Document::id, |a, b| {
            a.value == b.value && a.place == b.place
        });
        let name = |it: &Service| (it.namespace.clone(), it.name.clone());
        keep(&mut self.services, &before.services, name, Service::eq);
        if self.workloads == before.workloads {
            self.workloads = before.workloads.clone();
        }
    }

    /// Whether a source tells what it told before, after `keep_of`.
    pub(crate) fn is_as(&self, before: &Self) -> bool {
        are(&self.documents, &before.asked)
            && are(&self.services, &before.services)
            && Arc::ptr_eq(&self.workloads, &before.workloads)
    }
}

/// The same objects in the same order.
fn are<T>(now: &[Arc<T>], before: &[Arc<T>]) -> bool {
    now.len() == before.len() && now.iter().zip(before).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn keep<T, K: std::hash::Hash + Eq>(
    now: &mut [Arc<T>],
    before: &[Arc<T>],
    key: impl Fn(&T) -> K,
    is_same: impl Fn(&T, &T) -> bool,
) {
    let before: HashMap<K, &Arc<T>> = before.iter().map(|it| (key(it), it)).collect();
    for item in now {
        if let Some(same) = before.get(&key(item))
            && (Arc::ptr_eq(same, item) || is_same(same, item))
        {
            *item = Arc::clone(same);
        }
    }
}

impl Service {
    /// The names by which those of a namespace call it, the longest first.
    pub(crate) fn hosts(&self, domain: &str) -> [String; 4] {
        let Self { name, namespace, .. } = self;
        [
            format!("{name}.{namespace}.svc.{domain}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}"),
            name.clone(),
        ]
    }
}
