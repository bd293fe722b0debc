//! Kubernetes: documents, Services with their EndpointSlices, and who has which address, by watches
//! of the kube crate (list, watch, bookmarks, 410 Gone, back-off are its own).

use super::{AT_MOST, QUIET, Tell};
use crate::world::{Document, Endpoint, Port, Service, Workload, World};
use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    core::v1::{Pod, Service as KubeService},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt::Debug, net::IpAddr, sync::Arc};
use tokio::sync::mpsc;

/// Changes that wait to be taken in, at most; then the watches wait.
const CHANGES_MAX: usize = 10_000;

/// Every kind of documents, as (group, version, kind).
pub(crate) const KINDS: [(&str, &str, &str); 9] = [
    ("netra.io", "v1alpha1", "Router"),
    ("netra.io", "v1alpha1", "Authorization"),
    ("metaprotocol.aeraki.io", "v1alpha1", "MetaRouter"),
    ("metaprotocol.aeraki.io", "v1alpha1", "ApplicationProtocol"),
    ("dubbo.aeraki.io", "v1alpha1", "DubboAuthorizationPolicy"),
    ("redis.aeraki.io", "v1alpha1", "RedisService"),
    ("redis.aeraki.io", "v1alpha1", "RedisDestination"),
    ("networking.istio.io", "v1", "DestinationRule"),
    ("networking.istio.io", "v1", "ServiceEntry"),
];

/// What is kept of an object.
#[derive(Debug)]
enum Kept {
    Document(Arc<Document>),
    Service(Service),
    Slice(Slice),
    Workload(Workload),
}

/// A part of a service's endpoints.
#[derive(Debug)]
struct Slice {
    namespace: String,
    service: String,
    endpoints: Vec<Endpoint>,
}

/// What has become of an object of a kind.
#[derive(Debug)]
enum Change {
    /// The kind is listed anew.
    Begin,
    Listed(String, Option<Kept>),
    /// All of the kind has been listed; the kind may also be one that the cluster does not have.
    End,
    Put(String, Option<Kept>),
    Gone(String),
}

/// Objects of one kind by namespace and name.
#[derive(Debug, Default)]
struct Shelf {
    now: BTreeMap<String, Kept>,
    listed: Option<BTreeMap<String, Kept>>,
    is_known: bool,
}

/// Tells what the cluster has, and again whenever that has changed.
pub(crate) async fn watch(client: Client, tell: Tell) {
    let (changes, mut changed) = mpsc::channel(CHANGES_MAX);
    for (at, (group, version, kind)) in KINDS.into_iter().enumerate() {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
        let keep = move |object: DynamicObject| document(&object, (group, version, kind));
        tokio::spawn(follow(api, at, changes.clone(), keep));
    }
    let of = |kind: usize| KINDS.len() + kind;
    tokio::spawn(follow(Api::all(client.clone()), of(0), changes.clone(), service));
    tokio::spawn(follow(Api::all(client.clone()), of(1), changes.clone(), slice));
    tokio::spawn(follow(Api::all(client), of(2), changes, workload));
    let mut shelves: Vec<Shelf> = Vec::new();
    shelves.resize_with(of(3), Shelf::default);
    while let Some((kind, change)) = changed.recv().await {
        shelves[kind].take(change);
        settle(&mut changed, &mut shelves).await;
        let is_known = shelves.iter().all(|shelf| shelf.is_known);
        if is_known && tell.send(world_of(&shelves)).await.is_err() {
            return;
        }
    }
}

/// Takes in what else changes until it is quiet for a moment.
async fn settle(changed: &mut mpsc::Receiver<(usize, Change)>, shelves: &mut [Shelf]) {
    let until = tokio::time::Instant::now() + AT_MOST;
    while tokio::time::Instant::now() < until {
        match tokio::time::timeout(QUIET, changed.recv()).await {
            Ok(Some((kind, change))) => shelves[kind].take(change),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Follows one kind for ever.
async fn follow<K>(
    api: Api<K>,
    kind: usize,
    changes: mpsc::Sender<(usize, Change)>,
    keep: impl Fn(K) -> Option<Kept>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let name =
        |object: &K| format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut said = false;
    loop {
        let change = match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => Change::Begin,
            Ok(Some(watcher::Event::InitApply(object))) => {
                Change::Listed(name(&object), keep(object))
            }
            Ok(Some(watcher::Event::InitDone)) => Change::End,
            Ok(Some(watcher::Event::Apply(object))) => Change::Put(name(&object), keep(object)),
            Ok(Some(watcher::Event::Delete(object))) => Change::Gone(name(&object)),
            Ok(None) => return,
            Err(why) => {
                if !std::mem::replace(&mut said, true) {
                    eprintln!("netra-control: kubernetes: {why}; what was read before stands");
                }
                // A kind that the cluster does not have has no objects.
                if !is_absent(&why) {
                    continue;
                }
                Change::End
            }
        };
        if changes.send((kind, change)).await.is_err() {
            return;
        }
    }
}

fn is_absent(why: &watcher::Error) -> bool {
    match why {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.is_not_found(),
        _ => false,
    }
}

impl Shelf {
    fn take(&mut self, change: Change) {
        match change {
            Change::Begin => self.listed = Some(BTreeMap::new()),
            Change::Listed(name, Some(kept)) => {
                self.listed.get_or_insert_default().insert(name, kept);
            }
            Change::Listed(_, None) => {}
            Change::End => {
                self.is_known = true;
                self.now = self.listed.take().unwrap_or_default();
            }
            Change::Put(name, Some(kept)) => drop(self.now.insert(name, kept)),
            Change::Put(name, None) | Change::Gone(name) => drop(self.now.remove(&name)),
        }
    }
}

fn document(object: &DynamicObject, (group, version, kind): (&str, &str, &str)) -> Option<Kept> {
    let mut value = serde_json::to_value(object).ok()?;
    value["apiVersion"] = format!("{group}/{version}").into();
    value["kind"] = kind.into();
    // What is written into it by oneself, among others, makes no other document of it.
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(fields) = value["metadata"].as_object_mut() {
        fields.remove("resourceVersion");
        fields.remove("managedFields");
    }
    let namespace = object.namespace().unwrap_or_default();
    let place = format!("{kind} {namespace}/{}", object.name_any());
    Some(Kept::Document(Arc::new(Document::new(&place, value)?)))
}

fn service(object: KubeService) -> Option<Kept> {
    let (namespace, name) = (object.namespace()?, object.name_any());
    let spec = object.spec?;
    let addresses = spec.cluster_ips.unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        let app_protocol = port.app_protocol.unwrap_or_default();
        Some(Port { number, name: port.name.unwrap_or_default(), app_protocol })
    });
    Some(Kept::Service(Service {
        namespace,
        name,
        addresses: addresses.iter().filter_map(|text| text.parse().ok()).collect(),
        ports: ports.collect(),
        endpoints: Vec::new(),
    }))
}

/// The endpoints that are ready; terminating ones get no new messages.
fn slice(object: EndpointSlice) -> Option<Kept> {
    let namespace = object.namespace()?;
    let service = object.labels().get("kubernetes.io/service-name")?.clone();
    let ports: BTreeMap<String, u16> = object
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter_map(|port| Some((port.name.unwrap_or_default(), u16::try_from(port.port?).ok()?)))
        .collect();
    let mut endpoints = Vec::new();
    for endpoint in object.endpoints {
        let conditions = endpoint.conditions.unwrap_or_default();
        if conditions.ready == Some(false) || conditions.terminating == Some(true) {
            continue;
        }
        let zone = endpoint.zone.unwrap_or_default();
        let labels = crate::scope::with_zone(&BTreeMap::new(), &zone);
        for address in endpoint.addresses {
            let ports = ports.clone();
            endpoints.push(Endpoint { address, ports, labels: labels.clone() });
        }
    }
    Some(Kept::Slice(Slice { namespace, service, endpoints }))
}

fn workload(object: Pod) -> Option<Kept> {
    let labels = object.labels().clone();
    let namespace = object.namespace()?;
    let spec = object.spec?;
    let status = object.status?;
    // The node's address is everybody's there.
    if spec.host_network == Some(true) || status.phase.as_deref() != Some("Running") {
        return None;
    }
    let address: IpAddr = status.pod_ip?.parse().ok()?;
    let service_account = spec.service_account_name.unwrap_or_else(|| "default".to_owned());
    Some(Kept::Workload(Workload { address, namespace, service_account, labels }))
}

/// All shelves together: endpoints get the labels of their pods.
fn world_of(shelves: &[Shelf]) -> World {
    let (mut world, mut workloads) = (World::default(), Vec::new());
    let mut services: BTreeMap<(String, String), Service> = BTreeMap::new();
    let mut slices = Vec::new();
    for kept in shelves.iter().flat_map(|shelf| shelf.now.values()) {
        match kept {
            Kept::Document(document) => world.documents.push(document.clone()),
            Kept::Service(service) => {
                let id = (service.namespace.clone(), service.name.clone());
                services.insert(id, service.clone());
            }
            Kept::Slice(slice) => slices.push(slice),
            Kept::Workload(workload) => workloads.push(workload.clone()),
        }
    }
    let labels: BTreeMap<String, &BTreeMap<String, String>> =
        workloads.iter().map(|it: &Workload| (it.address.to_string(), &it.labels)).collect();
    for slice in slices {
        let id = (slice.namespace.clone(), slice.service.clone());
        let Some(service) = services.get_mut(&id) else { continue };
        for endpoint in &slice.endpoints {
            let mut endpoint = endpoint.clone();
            if let Some(own) = labels.get(&endpoint.address) {
                let own = own.iter().map(|(key, value)| (key.clone(), value.clone()));
                endpoint.labels.extend(own);
            }
            service.endpoints.push(endpoint);
        }
    }
    drop(labels);
    world.services = services.into_values().map(Arc::new).collect();
    world.workloads = Arc::new(workloads);
    world
}

/// Asks the cluster whose a token is.
pub(crate) struct Reviewer {
    client: Client,
}

impl Reviewer {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The namespace of the service account whose token it is; None when it is none's.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub(crate) async fn namespace_of(&self, token: &str) -> Result<Option<String>, kube::Error> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        let Some(status) = answer.status.filter(|it| it.authenticated == Some(true)) else {
            return Ok(None);
        };
        let user = status.user.and_then(|user| user.username).unwrap_or_default();
        let account = user.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':'));
        Ok(account.map(|(namespace, _)| namespace.to_owned()))
    }
}
