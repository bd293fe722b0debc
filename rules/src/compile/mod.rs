//! What documents say, made into a table.

mod authorize;
mod clusters;
mod conditions;
mod mirrors;
mod names;
mod never;
mod places;
mod protocols;
mod repeats;
mod routers;
mod slots;

use crate::{
    document::{self, Source},
    key::Protocol,
    locality::{Locality, Preference, is_of_place},
    spec::{self, RouteSpec, ServiceSpec, Specs},
    srv::ServiceRecord,
    table::{RuleInfo, Table},
    trouble::{Place, Troubles},
    verdict::{RefusalKind, RuleId},
};
use netra_codecs::tap;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use clusters::Clusters;
pub(crate) use routers::retry_words;
use slots::Slots;

/// Rules of one table, at most.
const RULES_MAX: usize = 200_000;

/// Documents that were read, and what is wrong with them so far.
#[derive(Debug)]
pub struct Documents {
    specs: Specs,
    troubles: Troubles,
}

/// What rules are compiled for.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Which change of the rules it is.
    pub generation: u64,
    /// What this service is called; hosts that are called so, or begin so, are its own.
    pub own_name: String,
    /// Protocols that are not built in, and have a name for rules all the same.
    pub private: Vec<Protocol>,
    /// Protocols whose connections cannot change their upstream: they have no routes elsewhere.
    pub pinned: Vec<Protocol>,
    /// Endpoints come and go with a control plane: a subset that has none now is no fault of the
    /// documents, and messages for it are refused until it has one.
    pub endpoints_move: bool,
    /// Where this service stands; None where that is not known, and nobody is nearer.
    pub locality: Option<Locality>,
    /// Labels of this service's workload, as far as they are known.
    pub labels: Vec<(String, String)>,
    /// Addresses of hosts, as far as they are known.
    pub addresses: HashMap<String, Vec<IpAddr>>,
    /// Records of names of services, as far as they are known.
    pub services: HashMap<String, Vec<ServiceRecord>>,
}

impl Context {
    /// What the sidecars of this version can do, for a service of this name. Whoever checks rules for
    /// sidecars asks the same.
    pub fn of_sidecars(own_name: &str) -> Self {
        Self {
            own_name: own_name.to_owned(),
            pinned: Protocol::all().filter(|protocol| !protocol.moves()).collect(),
            ..Self::default()
        }
    }

    /// These protocols are not built in, and documents may name them.
    #[must_use]
    pub fn with_private(mut self, private: &[tap::Protocol]) -> Self {
        self.private = private.iter().copied().map(Protocol::Of).collect();
        self.pinned.extend(self.private.iter().filter(|protocol| !protocol.moves()));
        self
    }

    /// Every protocol that documents may name.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> {
        Protocol::all().chain(self.private.iter().copied())
    }

    /// The protocol of that name.
    pub fn protocol(&self, name: &str) -> Option<Protocol> {
        let is_it = |it: &&Protocol| it.name() == name;
        Protocol::from_name(name).or_else(|| self.private.iter().find(is_it).copied())
    }
}

/// What became of documents.
#[derive(Debug)]
pub struct Compiled {
    /// The table; None if anything is wrong.
    pub table: Option<Arc<Table>>,
    /// What is wrong, and what is worth a warning.
    pub troubles: Troubles,
    /// Where each router's rules have an effect, in words, in the order of the documents.
    pub landings: Vec<RouterLanding>,
}

/// Where the rules of one router have an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterLanding {
    /// The router.
    pub name: String,
    /// The host.
    pub host: String,
    /// In calls of the application, and in calls to it; nowhere, if empty.
    pub places: Vec<String>,
}

impl Documents {
    /// Reads texts. What is wrong with them is told by [`compile`](Self::compile).
    pub fn read(sources: &[Source]) -> Self {
        let mut troubles = Troubles::default();
        let documents = document::read(sources, &mut troubles);
        let specs = spec::read(&documents, &mut troubles);
        Self { specs, troubles }
    }

    /// Hosts of rules that no document has addresses for: connections are told by what these names
    /// stand for.
    pub fn unknown_hosts(&self) -> Vec<String> {
        let hosts: BTreeSet<&String> =
            self.specs.routers.iter().map(|router| &router.host).collect();
        let is_known = |host: &str| {
            let services = self.specs.services.iter();
            let mut services = services.filter(|it| it.hosts.iter().any(|(own, _)| own == host));
            services.any(|it| !it.addresses.is_empty() || !it.endpoints.is_empty())
        };
        hosts.into_iter().filter(|host| !is_known(host)).cloned().collect()
    }

    /// Hosts whose addresses are to be found: those by which connections are told, and those whose
    /// addresses are endpoints; behind them those of whose ports it is said what is spoken there.
    pub fn asked_hosts(&self) -> Vec<String> {
        let routers = self.specs.routers.iter();
        let used: BTreeSet<&str> = routers
            .flat_map(|router| {
                let to = router.routes.iter().flat_map(RouteSpec::destinations);
                to.map(|to| &*to.host).chain(std::iter::once(&*router.host))
            })
            .collect();
        let services = self.specs.services.iter();
        let pairs = services.flat_map(|it| it.hosts.iter().map(move |(host, _)| (it, host)));
        let pairs = pairs.filter(|(_, host)| used.contains(host.as_str()));
        let names = pairs.flat_map(|(service, host)| service.names(host)).map(str::to_owned);
        let all: BTreeSet<String> = self.unknown_hosts().into_iter().chain(names).collect();
        let spoken: BTreeSet<String> =
            self.spoken_hosts().filter(|name| !all.contains(*name)).map(str::to_owned).collect();
        all.into_iter().chain(spoken).collect()
    }

    /// Names of services that are read for what their ports are named, and that have no address but what
    /// their name stands for.
    fn spoken_hosts(&self) -> impl Iterator<Item = &str> {
        let is_read = |service: &&ServiceSpec| {
            let mut protocols = service.ports.iter().filter_map(|port| port.protocol.as_deref());
            service.is_by_name
                && service.addresses.is_empty()
                && service.endpoints.is_empty()
                && protocols.any(|protocol| protocol != Protocol::Http1.name())
        };
        let services = self.specs.services.iter().filter(is_read);
        services.flat_map(|it| it.hosts.iter().map(|(host, _)| host.as_str()))
    }

    /// Whether it matters where this service stands.
    pub fn wants_locality(&self) -> bool {
        let is_place =
            |(name, value): &(String, Option<String>)| value.is_none() && is_of_place(name);
        let goes_by_place = |it: &Preference| {
            it.labels.is_empty() || !it.failover.is_empty() || it.labels.iter().any(is_place)
        };
        self.preferences().any(goes_by_place)
    }

    /// Labels of this service's workload that matter, beside those that say where it stands.
    pub fn wanted_labels(&self) -> BTreeSet<&str> {
        self.preferences().flat_map(Preference::own_labels).collect()
    }

    fn preferences(&self) -> impl Iterator<Item = &Preference> {
        let policies = self.specs.subsets.values().flat_map(|rule| {
            rule.subsets.iter().map(|it| &it.policy).chain(std::iter::once(&rule.policy))
        });
        policies.filter_map(|policy| policy.nearer.as_ref()).map(|(preference, _)| preference)
    }

    /// Makes the table.
    pub fn compile(&self, context: &Context) -> Compiled {
        let Self { specs, troubles } = self;
        let mut troubles = troubles.clone();
        let mut compiler = Compiler {
            specs,
            context,
            troubles: &mut troubles,
            table: Table { generation: context.generation, ..Table::default() },
            slots: Slots::default(),
            clusters: Clusters::new(specs),
            landings: Vec::new(),
            regex_bytes: 0,
        };
        compiler.protocols();
        for router in &specs.routers {
            compiler.router(router);
        }
        compiler.authorizations();
        compiler.complain_of_rivals();
        let Compiler { mut table, slots, clusters, landings, .. } = compiler;
        (table.slots, table.clusters) = (slots.finish(), clusters.finish());
        table.refusals.sort_by_key(|(rule, kind, _)| (*rule, *kind as usize));
        table.protocols.sort_by_key(|(address, _)| *address);
        if table.rules.len() > RULES_MAX {
            let place = Place { file: "all documents".into(), line: 0, column: 0 };
            troubles.error(place, format!("{} rules: allowed are {RULES_MAX}", table.rules.len()));
        }
        troubles.sort();
        Compiled { table: troubles.is_good().then(|| Arc::new(table)), troubles, landings }
    }
}

/// A table in the making.
struct Compiler<'a> {
    specs: &'a Specs,
    context: &'a Context,
    troubles: &'a mut Troubles,
    table: Table,
    slots: Slots,
    clusters: Clusters<'a>,
    landings: Vec<RouterLanding>,
    /// What regular expressions take so far.
    regex_bytes: usize,
}

impl Compiler<'_> {
    /// A new rule.
    fn rule(&mut self, name: &str, place: &Place, effect: String) -> RuleId {
        let id = RuleId(u32::try_from(self.table.rules.len()).unwrap_or(u32::MAX));
        self.table.rules.push(RuleInfo {
            name: name.into(),
            place: place.to_string().into(),
            effect: effect.into(),
            never: None,
        });
        id
    }

    /// What askers are told when the rule refuses.
    fn refusal(&mut self, rule: RuleId, kind: RefusalKind, text: String) {
        self.table.refusals.push((rule, kind, text.into()));
    }

    /// Whether a host is this service.
    fn is_own(&self, host: &str) -> bool {
        let rest = host.strip_prefix(&*self.context.own_name.to_ascii_lowercase());
        !self.context.own_name.is_empty()
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// Two documents for one host: nobody knows which is meant.
    fn complain_of_rivals(&mut self) {
        let mut seen: HashMap<&str, &Place> = HashMap::new();
        for router in &self.specs.routers {
            if let Some(first) = seen.insert(&router.host, &router.place) {
                let what = format!(
                    "the host {:?} has rules at {first}, too: allowed is one \
                                    document for a host",
                    router.host
                );
                self.troubles.error(router.place.clone(), what);
            }
        }
    }
}
