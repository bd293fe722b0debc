//! Where messages go.

use super::Compiler;
use crate::{
    balance::{ByHash, Cluster, Endpoint, EndpointAddress, Hashed, LEVELS_MAX, TrafficPolicy},
    choice::{Ring, maglev, schedule},
    hash::Stable,
    key::Protocol,
    locality::{Here, Preference, in_turn},
    near::nearest,
    shape::short,
    spec::{
        DestinationSpec, EndpointSpec, HashSpec, PolicySpec, RouterSpec, ServiceSpec, Specs,
        SubsetsSpec,
    },
    srv::is_service_name,
    table::Where,
    verdict::ClusterId,
};
use std::collections::{HashMap, HashSet};

/// A host, a subset and a port; whether it is the router's own host, and whether the route hashes.
type Wanted = (String, Option<String>, Option<u16>, bool, bool);
/// Labels by name.
type Labels = [(String, String)];

/// Clusters, each once.
#[derive(Debug)]
pub(super) struct Clusters<'a> {
    services: HashMap<&'a str, &'a ServiceSpec>,
    made: Vec<Cluster>,
    known: HashMap<Wanted, Vec<(u16, ClusterId)>>,
}

impl<'a> Clusters<'a> {
    pub(super) fn new(specs: &'a Specs) -> Self {
        let mut services = HashMap::new();
        for service in &specs.services {
            for (host, _) in &service.hosts {
                // The one that says more about where the host is.
                let entry = services.entry(host.as_str()).or_insert(service);
                if entry.endpoints.is_empty() {
                    *entry = service;
                }
            }
        }
        Self { services, made: Vec::new(), known: HashMap::new() }
    }

    pub(super) fn service(&self, host: &str) -> Option<&'a ServiceSpec> {
        self.services.get(host).copied()
    }

    /// Whether messages may be sent elsewhere than where they wanted to go.
    pub(super) fn lead_elsewhere(&self, id: ClusterId) -> bool {
        let cluster = self.made.get(id.0 as usize);
        let mut endpoints = cluster.iter().flat_map(|cluster| &cluster.endpoints);
        endpoints.any(|it| it.address != EndpointAddress::Original)
    }

    /// Whether all messages to it go where they wanted to go.
    pub(super) fn only_passes(&self, id: ClusterId) -> bool {
        let endpoints = self.made.get(id.0 as usize).map(|cluster| &*cluster.endpoints);
        matches!(endpoints, Some([only]) if only.address == EndpointAddress::Original)
    }

    /// What clusters hash by.
    pub(super) fn hashes(&self) -> impl IntoIterator<Item = &Hashed> {
        self.made.iter().map(|cluster| &cluster.hash)
    }

    pub(super) fn finish(self) -> Vec<Cluster> {
        self.made
    }
}

impl Compiler<'_> {
    /// Where messages to a destination of a router's route go; what is wrong with it is noted.
    pub(super) fn destination(
        &mut self,
        to: &DestinationSpec,
        router: &RouterSpec,
        candidates: &[Protocol],
        hashes: bool,
    ) -> Option<Where> {
        let is_own = to.host == router.host;
        let wanted = (to.host.clone(), to.subset.clone(), to.port, is_own, hashes);
        if !self.clusters.known.contains_key(&wanted) {
            let found = self.clusters_of(to, is_own, candidates, hashes);
            self.clusters.known.insert(wanted.clone(), found);
        }
        match self.clusters.known.get(&wanted)?.as_slice() {
            [] => None,
            [(_, cluster)] => Some(Where::One(*cluster)),
            clusters => Some(Where::ByPort(clusters.into())),
        }
    }

    fn clusters_of(
        &mut self,
        to: &DestinationSpec,
        is_own: bool,
        candidates: &[Protocol],
        hashes: bool,
    ) -> Vec<(u16, ClusterId)> {
        let rule = self.specs.subsets.get(&to.host);
        let Some((labels, policy)) = self.labels_of(to, rule) else { return Vec::new() };
        let hash = self.hashed(&policy, candidates);
        let wants_table = hashes || !hash.is_empty();
        let mut made = Vec::new();
        // To the host that was asked for, by who cannot be sent elsewhere: that is where it went.
        let is_pinned = candidates.iter().all(|it| self.context.pinned.contains(it));
        let stays = is_own && is_pinned && to.subset.is_none() && to.port.is_none();
        let policy = PolicySpec { is_original: stays || policy.is_original, ..policy };
        let service = self.clusters.service(&to.host);
        let is_by_name = service.is_some_and(|it| it.names(&to.host).next().is_some());
        let nearer = self.nearer(&policy, wants_table);
        let nearer = nearer.as_ref();
        let words = nearer.map(|(preference, own)| preference.in_words(own).into());
        for (port, endpoints) in self.endpoints(to, is_own, labels, &policy, nearer) {
            let single = matches!(&*endpoints, [Endpoint { address, .. }]
                if !matches!(address, EndpointAddress::Ip(_)));
            // Until the name is known.
            let single = single && !is_by_name;
            if let (true, true, Some((_, place))) = (single, wants_table, &policy.hash) {
                let what = "consistentHash: the host has no endpoints of a ServiceEntry, and which \
                            address of its name is asked does not depend on the hash";
                self.troubles.warn(place.clone(), what);
            }
            let is_original = !is_by_name
                && matches!(&*endpoints, [Endpoint { address: EndpointAddress::Original, .. }]);
            if let (true, Some(place)) = (is_original, &policy.place) {
                let what = "has no effect: the host has no endpoints of a ServiceEntry, so that its \
                            messages go where they went";
                self.troubles.warn(place.clone(), what);
            }
            let id = ClusterId(u32::try_from(self.clusters.made.len()).unwrap_or(u32::MAX));
            let subset = to.subset.iter().map(|subset| format!("/{subset}")).collect::<String>();
            let name = format!("{}{subset}", to.host).into();
            let mut cluster = cluster(name, endpoints, hash.clone(), wants_table, &policy);
            cluster.policy.nearer.clone_from(&words);
            self.clusters.made.push(cluster);
            made.push((port, id));
        }
        made
    }

    /// What endpoints of the destination have, and how one of them is chosen.
    fn labels_of<'s>(
        &mut self,
        to: &DestinationSpec,
        rule: Option<&'s SubsetsSpec>,
    ) -> Option<(&'s Labels, PolicySpec)> {
        let outer = rule.map(|rule| rule.policy.clone()).unwrap_or_default();
        let Some(subset) = &to.subset else { return Some((&[], outer)) };
        let found = rule.and_then(|rule| rule.subsets.iter().find(|it| it.name == *subset));
        if let Some(found) = found {
            return Some((&found.labels, found.policy.clone()));
        }
        let what = match rule {
            None => {
                format!("subset={:?}: the host {:?} has no DestinationRule", short(subset), to.host)
            }
            Some(rule) => {
                let names: Vec<_> = rule.subsets.iter().map(|it| it.name.as_str()).collect();
                format!(
                    "subset={:?}: the DestinationRule at {} has {}",
                    short(subset),
                    rule.place,
                    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                )
            }
        };
        self.troubles.error(to.place.clone(), what);
        None
    }

    fn hashed(&mut self, policy: &PolicySpec, candidates: &[Protocol]) -> Hashed {
        match &policy.hash {
            None => Hashed::default(),
            Some((HashSpec::Source, _)) => Hashed { slots: Box::default(), source: true },
            Some((HashSpec::Attribute(name), place)) => {
                let slot = self.slot(name, candidates, place);
                Hashed { slots: slot.into_iter().collect(), source: false }
            }
        }
    }

    /// Endpoints, for each port of the host that may have been asked for; port 0 is any.
    fn endpoints(
        &mut self,
        to: &DestinationSpec,
        is_own: bool,
        labels: &Labels,
        policy: &PolicySpec,
        nearer: Option<&(Preference, Here)>,
    ) -> Vec<(u16, Box<[Endpoint]>)> {
        if policy.is_original {
            return vec![(0, original())];
        }
        let service = self.clusters.service(&to.host);
        // A subset of a host whose endpoints come and go may have none now.
        let may_be_empty = self.context.endpoints_move && to.subset.is_some();
        let described = service.filter(|service| may_be_empty || !service.endpoints.is_empty());
        let by_name = service.and_then(|service| self.named(to, service));
        let (service, listed) = match (described, service, &by_name) {
            (Some(service), ..) => (service, &*service.endpoints),
            (None, Some(service), Some(named)) => (service, std::slice::from_ref(named)),
            _ => return self.undescribed(to, is_own),
        };
        let mut found = Vec::new();
        for (asked, name, target) in self.ports(to, service) {
            let mut known = HashSet::new();
            let has_labels =
                |it: &&EndpointSpec| labels.iter().all(|it_is| it.labels.contains(it_is));
            let (mut endpoints, mut where_they_are) = (Vec::new(), Vec::new());
            for it in listed.iter().filter(has_labels) {
                let places = self.places_of(it, &name, target, &mut known);
                let here = Here { locality: it.locality.clone(), labels: it.labels.clone() };
                where_they_are
                    .extend(places.iter().filter(|_| nearer.is_some()).map(|_| here.clone()));
                endpoints.extend(places);
            }
            if let Some((preference, own)) = nearer {
                prefer(preference, own, &mut endpoints, where_they_are);
            }
            endpoints.iter_mut().for_each(|it| it.level = it.level.min(LEVELS_MAX - 1));
            if endpoints.is_empty() {
                let what = format!(
                    "no endpoint of {:?} has the labels of the subset: {labels:?}",
                    to.host
                );
                if !may_be_empty {
                    self.troubles.error(to.place.clone(), what);
                    return Vec::new();
                }
                self.troubles.warn(to.place.clone(), what + " now: messages for it are refused");
            }
            found.push((asked, endpoints.into()));
        }
        found
    }

    /// Of a host that no document has endpoints for: it is where its name is, or where messages went.
    fn undescribed(&mut self, to: &DestinationSpec, is_own: bool) -> Vec<(u16, Box<[Endpoint]>)> {
        let service = self.clusters.service(&to.host);
        if to.subset.is_some() {
            let what = format!(
                "subset: no ServiceEntry has endpoints for the host {:?}, and labels of \
                 workloads are not known without a control plane",
                to.host
            );
            self.troubles.error(to.place.clone(), what);
            return Vec::new();
        }
        if service.is_some_and(|service| service.is_original) || (is_own && to.port.is_none()) {
            return vec![(0, original())];
        }
        if is_service_name(&to.host) {
            let what = "host: the name of a service has endpoints where a ServiceEntry with ports and \
                        resolution: DNS says so";
            self.troubles.error(to.place.clone(), what);
            return Vec::new();
        }
        if service.is_none() {
            self.warn_of_unknown_host(to);
        }
        let host = to.host.as_str().into();
        let address = EndpointAddress::Name { host, port: to.port };
        vec![(0, [Endpoint { address, weight: 1, level: 0 }].into())]
    }

    /// A name that no document has may be one that a name server has, or a misspelt one.
    fn warn_of_unknown_host(&mut self, to: &DestinationSpec) {
        let meant = match nearest(&to.host, self.clusters.services.keys().copied()) {
            Some(host) => format!(" (there is one for {host:?})"),
            None => String::new(),
        };
        let what = format!(
            "host={:?}: no ServiceEntry has it{meant}, so that a name server is asked for it when \
             a message is to go there. If it has it, a ServiceEntry with resolution: DNS says so",
            short(&to.host)
        );
        self.troubles.warn(to.place.clone(), what);
    }

    /// The port that is asked for, its name, and the port of endpoints.
    fn ports(&mut self, to: &DestinationSpec, service: &ServiceSpec) -> Vec<(u16, String, u16)> {
        let of = |number: u16| {
            let port = service.ports.iter().find(|port| port.number == number);
            port.map_or((number, String::new(), number), |it| (number, it.name.clone(), it.target))
        };
        match (to.port, service.ports.as_slice()) {
            (Some(number), _) => vec![of(number)],
            (None, []) => {
                let what = format!(
                    "port: the ServiceEntry of {:?} has none, so that it has to be \
                                    said here",
                    to.host
                );
                self.troubles.error(to.place.clone(), what);
                Vec::new()
            }
            (None, ports) => ports.iter().map(|port| of(port.number)).collect(),
        }
    }
}

/// Who is nearer has its turn first, or parts go by where endpoints are.
fn prefer(preference: &Preference, own: &Here, endpoints: &mut [Endpoint], places: Vec<Here>) {
    if !preference.parts() {
        // Among those that are as near, ranks that a name server says.
        let near = preference.levels(own, &places);
        let both: Vec<_> = near.into_iter().zip(endpoints.iter().map(|it| it.level)).collect();
        let levels = in_turn(&both);
        endpoints.iter_mut().zip(levels).for_each(|(it, level)| it.level = level);
        return;
    }
    let places = places.into_iter().map(|it| it.locality);
    let weighed: Vec<_> = places.zip(endpoints.iter().map(|it| it.weight)).collect();
    if let Some(weights) = preference.weights(&own.locality, &weighed) {
        endpoints.iter_mut().zip(weights).for_each(|(it, weight)| it.weight = weight);
    }
}

/// Wherever messages went.
fn original() -> Box<[Endpoint]> {
    [Endpoint { address: EndpointAddress::Original, weight: 1, level: 0 }].into()
}

impl Compiler<'_> {
    /// Who is nearer to where this service stands, where both are known and it has an effect.
    fn nearer(&mut self, policy: &PolicySpec, hashes: bool) -> Option<(Preference, Here)> {
        let (preference, place) = policy.nearer.clone()?;
        let TrafficPolicy { outlier, check, .. } = &policy.policy;
        let why = match (hashes, outlier.is_some() || check.is_some()) {
            (true, _) => "localityLbSetting has no effect: what is hashed goes where its hash says",
            (_, false) if !preference.parts() => {
                "localityLbSetting has no effect: without outlierDetection or a health check nobody \
                 knows who is well"
            }
            _ => {
                let locality = self.context.locality.clone().unwrap_or_default();
                let own = Here { locality, labels: self.context.labels.clone() };
                return preference.is_for(&own).then_some((preference, own));
            }
        };
        self.troubles.warn(place, why);
        None
    }
}

/// Endpoints of each level in turn, where there are several.
fn levels_of(endpoints: &[Endpoint]) -> Box<[Box<[u32]>]> {
    let last = endpoints.iter().map(|it| it.level).max().unwrap_or(0);
    let of = |level: u8| {
        let weight = |it: &Endpoint| if it.level == level { it.weight } else { 0 };
        schedule(&endpoints.iter().map(weight).collect::<Vec<_>>())
    };
    if last == 0 { Box::default() } else { (0..=last).map(of).collect() }
}

fn cluster(
    name: Box<str>,
    endpoints: Box<[Endpoint]>,
    hash: Hashed,
    wants_table: bool,
    spec: &PolicySpec,
) -> Cluster {
    let weights: Vec<_> = endpoints.iter().map(|endpoint| endpoint.weight).collect();
    // A hash says one of the first level: the others are for when nobody of it is well.
    let named = |endpoint: &Endpoint| {
        let mut hash = Stable::new();
        hash.add(Some(endpoint.address.to_string().as_bytes()));
        (hash.finish(), if endpoint.level == 0 { endpoint.weight } else { 0 })
    };
    let names: Vec<_> = endpoints.iter().filter(|_| wants_table).map(named).collect();
    let by_hash = match spec.ring {
        Some(points) if wants_table => ByHash::Ring(Ring::new(&names, points)),
        _ => ByHash::Maglev(maglev(&names)),
    };
    let policy = spec.policy.clone();
    let levels = levels_of(&endpoints);
    Cluster { name, schedule: schedule(&weights), levels, by_hash, hash, endpoints, policy }
}
