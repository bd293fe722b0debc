//! What all documents say together.

use crate::{
    ask::{Ask, Slot},
    balance::{Balance, Cluster, ClusterView, Endpoint, Hashed},
    facts::{Direction, Facts},
    key::{Protocol, SlotId, Spoken},
    landing::Landing,
    limit::{Limit, Process},
    matcher::Matcher,
    pattern::{Network, Test},
    verdict::{
        Action, ClusterId, EndpointId, MutationsId, Refusal, RefusalKind, Retry, Route, RuleId,
        Verdict,
    },
};
use std::net::SocketAddr;

/// All rules, compiled: what [`decide`](crate::decide()) goes by.
#[derive(Debug, Default)]
pub struct Table {
    pub(crate) generation: u64,
    pub(crate) rules: Vec<RuleInfo>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) mutations: Vec<Box<[Mutation]>>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) routers: Vec<Router>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) landing: Landing,
    pub(crate) limits: Vec<Limit>,
    /// How many routes part their messages by weight.
    pub(crate) splits: usize,
    /// What askers are told, by rule and kind.
    pub(crate) refusals: Vec<(RuleId, RefusalKind, Box<str>)>,
    /// What askers are told whose answers take too long, by route.
    pub(crate) timeouts: Vec<(RuleId, Box<str>)>,
    /// What is spoken where, by address; and by network and port, the narrowest first.
    pub(crate) protocols: Vec<(SocketAddr, Protocol)>,
    pub(crate) protocol_networks: Vec<(Network, u16, Protocol)>,
}

/// What is known of a rule beside what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its name, unlike every other's: `MetaRouter/shop/orders/canary`.
    pub name: Box<str>,
    /// Where it is written: `FILE:LINE:COLUMN`.
    pub place: Box<str>,
    /// What it does, in words.
    pub effect: Box<str>,
    /// Why it can never decide, where that is known.
    pub never: Option<Box<str>>,
}

/// A value that a message is given, in the place of the one that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Under which name, as the author wrote it.
    pub name: Box<str>,
    /// The value; None takes out what is there.
    pub value: Option<Box<[u8]>>,
}

/// What the rules have to do with the messages of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Concern {
    /// Its requests are decided about: they have to be held until their heads are whole.
    pub reads_requests: bool,
    /// Its answers may be edited, or timed.
    pub reads_responses: bool,
    /// They may be edited.
    pub edits_responses: bool,
    /// They may be withheld, as their requests go to another endpoint: of HTTP.
    pub withholds_responses: bool,
    /// Values are asked for, or edited, that lie behind the body of a request (attachments of
    /// Dubbo).
    pub reads_pairs: bool,
}

impl Concern {
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            reads_requests: self.reads_requests | other.reads_requests,
            reads_responses: self.reads_responses | other.reads_responses,
            edits_responses: self.edits_responses | other.edits_responses,
            withholds_responses: self.withholds_responses | other.withholds_responses,
            reads_pairs: self.reads_pairs | other.reads_pairs,
        }
    }
}

/// Routes, faults and limits of one host.
#[derive(Debug)]
pub(crate) struct Router {
    /// Refuses what no route is for.
    pub(crate) rule: RuleId,
    pub(crate) spoken: Spoken,
    /// None are all.
    pub(crate) ports: Box<[u16]>,
    pub(crate) routes: Matcher,
    pub(crate) to: Box<[RouteTo]>,
    pub(crate) passes_unrouted: bool,
    pub(crate) faults: Matcher,
    pub(crate) fault_rules: Box<[(RuleId, Fault)]>,
    pub(crate) limits: Matcher,
    /// Rule, limit, and the attribute whose values have a bucket each.
    pub(crate) limit_rules: Box<[(RuleId, usize, Option<SlotId>)]>,
    /// What it has to do with calls of the application, and with calls to it.
    pub(crate) outbound: Concern,
    pub(crate) inbound: Concern,
    /// Whether that is anything, of calls to it and of those of the application.
    pub(crate) acts: [bool; 2],
}

impl Router {
    /// Whether it is for messages of this protocol to this port.
    #[inline(always)]
    pub(crate) fn is_for(&self, protocol: Protocol, port: u16) -> bool {
        self.spoken.has(protocol) && has_port(&self.ports, port)
    }

    /// What it has to do with messages of a direction; None is nothing.
    #[inline]
    pub(crate) fn concern(&self, direction: Direction) -> Option<Concern> {
        let concern = match direction {
            Direction::Inbound => self.inbound,
            Direction::Outbound => self.outbound,
        };
        (concern != Concern::default()).then_some(concern)
    }

    /// Whether it has anything to do with them.
    #[inline(always)]
    pub(crate) fn acts_on(&self, direction: Direction) -> bool {
        match direction {
            Direction::Inbound => self.acts[0],
            Direction::Outbound => self.acts[1],
        }
    }
}

/// Whether a list of ports, of which none is all, has this one.
#[inline(always)]
fn has_port(ports: &[u16], port: u16) -> bool {
    match ports {
        [] => true,
        [only] => *only == port,
        many => many.contains(&port),
    }
}

/// Where messages of a route go, and how.
#[derive(Debug)]
pub(crate) struct RouteTo {
    pub(crate) rule: RuleId,
    pub(crate) to: Box<[Where]>,
    /// By weight: which of `to`, turn by turn; the number counts turns.
    pub(crate) split: Option<(usize, Box<[u32]>)>,
    /// What is said of each message, but where it goes and how long it waits.
    pub(crate) verdict: Verdict,
    /// That is all: nothing is drawn or counted out, and all of its messages stay on their way.
    pub(crate) is_straight: bool,
    pub(crate) fault: Option<Fault>,
    pub(crate) hash: Hashed,
    pub(crate) mirror: Option<Mirror>,
    /// Which operations may be asked again; None where the route names none.
    pub(crate) repeats: Option<Box<Repeats>>,
}

/// Operations that may be asked again, by a route's word.
#[derive(Debug)]
pub(crate) struct Repeats {
    pub(crate) slot: SlotId,
    pub(crate) test: Test,
}

impl Repeats {
    /// Whether, and when, a message may be asked again, where this is what its route says of those that
    /// may.
    pub(crate) fn of<F: Facts>(&self, ask: &mut Ask<'_, F>, retry: Retry) -> Retry {
        let is_named = ask.value(self.slot).is_some_and(|value| self.test.takes(value));
        if is_named { retry } else { Retry::NEVER }
    }
}

/// Where copies of messages go, and of how many; parts are of 0.0001 percent.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) to: Where,
    pub(crate) parts: u32,
}

/// A cluster, or one for each port that may have been asked for.
#[derive(Debug)]
pub(crate) enum Where {
    One(ClusterId),
    ByPort(Box<[(u16, ClusterId)]>),
}

impl Where {
    #[inline]
    pub(crate) fn cluster(&self, port: u16) -> Option<ClusterId> {
        match self {
            Self::One(cluster) => Some(*cluster),
            Self::ByPort(clusters) => {
                let found = clusters.iter().find(|(on, _)| *on == port);
                found.or(clusters.first()).map(|(_, cluster)| *cluster)
            }
        }
    }
}

/// A fault; parts are of 0.0001 percent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    pub(crate) delay_parts: u32,
    pub(crate) delay_ns: u64,
    pub(crate) abort_parts: u32,
    pub(crate) http_status: u16,
}

/// An authorization.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) rule: RuleId,
    pub(crate) denies: bool,
    pub(crate) is_shadow: bool,
    pub(crate) spoken: Spoken,
    /// None are all.
    pub(crate) ports: Box<[u16]>,
    pub(crate) matcher: Matcher,
    pub(crate) reads_behind: bool,
}

impl Policy {
    /// Whether it is about messages of this protocol to this port.
    #[inline(always)]
    pub(crate) fn is_for(&self, protocol: Protocol, port: u16) -> bool {
        self.spoken.has(protocol) && has_port(&self.ports, port)
    }
}

impl Table {
    /// Which change of the rules made it; 0 is none.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether no rule is in it.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Every rule; the index is its id.
    pub fn rules(&self) -> &[RuleInfo] {
        &self.rules
    }

    /// A rule.
    pub fn rule(&self, id: RuleId) -> Option<&RuleInfo> {
        self.rules.get(id.0 as usize)
    }

    /// Every cluster; the index is its id.
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// A cluster.
    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        self.clusters.get(id.0 as usize)
    }

    /// The endpoint that a route has chosen.
    pub fn endpoint(&self, route: Route) -> Option<&Endpoint> {
        let EndpointId(index) = route.endpoint;
        self.cluster(route.cluster)?.endpoints.get(index as usize)
    }

    /// Whether answers are given anything.
    pub fn edits_answers(&self) -> bool {
        self.routers.iter().flat_map(|router| &router.to).any(|to| to.verdict.response.is_some())
    }

    /// Whether answers are withheld that say that nobody can serve their request now.
    pub fn withholds_answers(&self) -> bool {
        let mut all = self.routers.iter().flat_map(|router| &router.to);
        all.any(|to| to.verdict.retry.withholds_answers())
    }

    /// What a message is to be given.
    pub fn mutations(&self, id: MutationsId) -> &[Mutation] {
        self.mutations.get(id.0 as usize).map_or(&[], |them| them)
    }

    /// What the asker is told when a message is refused: which rule, and why. Empty of any other
    /// verdict.
    pub fn refusal_text(&self, verdict: &Verdict) -> &str {
        let (Some(rule), Action::Refuse(Refusal { kind, .. })) = (verdict.rule, verdict.action)
        else {
            return "";
        };
        let wanted = (rule, kind as usize);
        let found =
            self.refusals.binary_search_by_key(&wanted, |(rule, kind, _)| (*rule, *kind as usize));
        let text = found.ok().and_then(|index| self.refusals.get(index)).map(|(.., text)| &**text);
        text.unwrap_or(match kind {
            RefusalKind::Overflow => "netra: the cluster has as much to do as it may",
            _ => "netra: there is no endpoint",
        })
    }

    /// What the asker is told when the answer to a message takes longer than the verdict allows.
    pub fn timeout_text(&self, verdict: &Verdict) -> &str {
        let found = verdict.rule.and_then(|rule| {
            let index = self.timeouts.binary_search_by_key(&rule, |(rule, _)| *rule).ok()?;
            self.timeouts.get(index)
        });
        found.map_or("", |(_, text)| text)
    }

    /// The protocol that documents say is spoken there: the name of a service's port says it, at the
    /// addresses of the service and of its endpoints. Asked once for each connection.
    pub fn protocol(&self, destination: SocketAddr) -> Option<Protocol> {
        let (ip, port) = (destination.ip().to_canonical(), destination.port());
        let wanted = SocketAddr::new(ip, port);
        let found = self.protocols.binary_search_by_key(&wanted, |(address, _)| *address);
        if let Some((_, protocol)) = found.ok().and_then(|index| self.protocols.get(index)) {
            return Some(*protocol);
        }
        let has = |(network, on, _): &&(Network, u16, Protocol)| *on == port && network.has(ip);
        self.protocol_networks.iter().find(has).map(|(.., protocol)| *protocol)
    }

    /// Addresses of which documents say what is spoken there.
    pub fn spoken_at(&self) -> impl Iterator<Item = (SocketAddr, Protocol)> {
        self.protocols.iter().copied()
    }

    /// The same in words (`10.0.0.1:6379`), and networks behind them (`10.0.0.0/8:6379`).
    pub fn spoken(&self) -> impl Iterator<Item = (String, Protocol)> {
        let single = self.spoken_at().map(|(at, protocol)| (at.to_string(), protocol));
        let networks = self.protocol_networks.iter();
        single.chain(networks.map(|(network, port, it)| (format!("{network}:{port}"), *it)))
    }

    /// Protocols that rules are about, each with one of these rules; rules for any protocol are left
    /// out.
    pub fn protocols(&self) -> Vec<(Protocol, &RuleInfo)> {
        let routers = self.routers.iter().map(|router| (router.spoken.only(), router.rule));
        let policies = self.policies.iter().map(|policy| (policy.spoken.only(), policy.rule));
        let mut found: Vec<(Protocol, &RuleInfo)> = Vec::new();
        for (protocol, rule) in routers.chain(policies) {
            let (Some(protocol), Some(rule)) = (protocol, self.rule(rule)) else { continue };
            if found.iter().all(|(known, _)| *known != protocol) {
                found.push((protocol, rule));
            }
        }
        found
    }

    /// What the rules have to do with a connection; None is nothing, and it may stay what it would
    /// be without rules.
    pub fn concern(
        &self,
        direction: Direction,
        destination: SocketAddr,
        protocol: Protocol,
    ) -> Option<Concern> {
        if self.is_empty() {
            return None;
        }
        let concern_of = |router: u32| {
            let router = self.routers.get(router as usize)?;
            let is_for = router.is_for(protocol, destination.port());
            router.concern(direction).filter(|_| is_for)
        };
        let is_it = |router: u32| concern_of(router).is_some();
        let mut found = None;
        let mut add = |more: Concern| found = Some(found.map_or(more, |it: Concern| it.or(more)));
        if direction == Direction::Outbound && self.landing.goes_by_name(protocol, is_it) {
            // Which of them it is, only the messages tell.
            let routers = 0..u32::try_from(self.routers.len()).unwrap_or(u32::MAX);
            routers.filter_map(concern_of).for_each(&mut add);
        }
        self.landing.at(direction, destination, concern_of).into_iter().for_each(&mut add);
        if direction == Direction::Inbound {
            let policies = self.policies.iter();
            policies.filter(|it| it.is_for(protocol, destination.port())).for_each(|policy| {
                add(Concern {
                    reads_requests: true,
                    reads_pairs: policy.reads_behind,
                    ..Concern::default()
                });
            });
        }
        found
    }

    /// Whether messages of the application that are for this place may go elsewhere, by a route: then
    /// nobody need be dialled before the first has come. Where a host's addresses are not known, none
    /// of its routes counts.
    pub fn leads(&self, destination: SocketAddr, protocol: Protocol) -> bool {
        let is_it = |router: u32| {
            let router = self.routers.get(router as usize);
            router.is_some_and(|it| {
                it.is_for(protocol, destination.port()) && it.acts_on(Direction::Outbound)
            })
        };
        self.landing.leads(destination, is_it)
    }

    /// What shards share of the state that goes with it, from `now_ns` on. Limits that were in force
    /// `before`, and are what they were, go on with what is left of them.
    pub fn process(&self, before: Option<&Process>, now_ns: u64) -> Process {
        let balances = before.map_or(&[][..], |before| &before.balances);
        let balances = Balance::of_all(&self.clusters, balances, now_ns);
        Process::of(&self.limits, self.splits, before, now_ns).with(balances)
    }

    /// Clusters as they are now, on all shards of the process; those whose messages stay on their
    /// way are left out.
    pub fn clusters_now(&self, process: &Process, now_ns: u64) -> Vec<ClusterView> {
        let all = self.clusters.iter().zip(&process.balances);
        let balanced = all.filter(|(cluster, _)| cluster.is_balanced());
        balanced.map(|(cluster, balance)| balance.view(cluster, now_ns)).collect()
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let rules =
            self.rules.iter().map(|it| it.name.len() + it.place.len() + it.effect.len() + 64);
        let clusters = self.clusters.iter().map(Cluster::bytes);
        let routers = self.routers.iter().map(|it| {
            it.routes.bytes() + it.limits.bytes() + it.faults.bytes() + 128 * (it.to.len() + 1)
        });
        let policies = self.policies.iter().map(|it| it.matcher.bytes());
        let refusals = self.refusals.iter().map(|(.., text)| text.len() + 32);
        let timeouts = self.timeouts.iter().map(|(_, text)| text.len() + 24);
        let texts = refusals.chain(timeouts);
        let spoken = size_of_val(&*self.protocols) + size_of_val(&*self.protocol_networks);
        let texts = texts.chain(std::iter::once(spoken));
        rules.chain(clusters).chain(routers).chain(policies).chain(texts).sum()
    }
}

/// A refusal with the status of HTTP that is its kind's.
pub(crate) const fn refusal(kind: RefusalKind) -> Refusal {
    let http_status = match kind {
        RefusalKind::NoRoute => 404,
        RefusalKind::Denied => 403,
        RefusalKind::Limited => 429,
        RefusalKind::NoEndpoint | RefusalKind::Overflow | RefusalKind::Fault => 503,
    };
    Refusal { kind, http_status }
}
