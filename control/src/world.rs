//! What a source knows: documents, services with their endpoints, and who has which address.

use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// Everything that a source knows at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Counts the changes; 0 is before the first look.
    pub(crate) generation: u64,
    pub(crate) documents: Vec<Document>,
    pub(crate) services: Vec<Service>,
    pub(crate) workloads: Vec<Workload>,
    /// What is wrong with what the source has, a line each. What is right stands all the same.
    pub(crate) troubles: Vec<String>,
}

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
        Some(Self { place: place.to_owned(), kind, namespace, name, value })
    }

    /// The texts of a list of its `spec`.
    pub(crate) fn texts<'d>(&'d self, field: &str) -> impl Iterator<Item = &'d str> {
        let list = self.value.get("spec").and_then(|spec| spec.get(field));
        list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
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
