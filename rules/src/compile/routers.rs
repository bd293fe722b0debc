//! Routers: routes, faults and limits of a host.

use super::Compiler;
use crate::{
    balance::Hashed,
    choice::schedule,
    key::{Protocol, SlotId, Spoken},
    limit::{Bucket, Limit},
    matcher::{Matcher, Subject},
    spec::{DestinationSpec, Fault as FaultSpec, LimitSpec, MutationSpec, RouteSpec, RouterSpec},
    table::{Concern, Fault, Mutation, RouteTo, Router, Where},
    trouble::Place,
    verdict::{MutationsId, RefusalKind, Retry, RuleId, Verdict},
};
use netra_codecs::{codec::Correlation, tap};
use std::time::Duration;

impl Compiler<'_> {
    pub(super) fn router(&mut self, spec: &RouterSpec) {
        let candidates = self.candidates(spec);
        let first_rule = self.table.rules.len();
        let effect = match spec.passes_unrouted {
            true => "passes what none of its routes is for".to_owned(),
            false => "refuses what none of its routes is for".to_owned(),
        };
        let rule = self.rule(&spec.name, &spec.place, effect);
        self.refusal(rule, RefusalKind::NoRoute, format!("netra: no route ({})", spec.name));
        self.complain_of_sessions(spec, &candidates);
        let (mut conditions, mut to) = (Vec::new(), Vec::new());
        for route in &spec.routes {
            conditions.push(self.conditions(&route.conditions, &candidates, false));
            to.push(self.route(route, spec, &candidates));
        }
        let (mut fault_conditions, mut fault_rules) = (Vec::new(), Vec::new());
        for fault in &spec.faults {
            fault_conditions.push(self.conditions(&fault.conditions, &candidates, false));
            let rule = self.rule(&fault.name, &fault.place, fault_words(&fault.fault));
            fault_rules.push((rule, self.fault(&fault.fault, rule, &fault.name)));
        }
        let (mut limit_conditions, mut limit_rules) = (Vec::new(), Vec::new());
        for limit in &spec.limits {
            limit_conditions.push(self.conditions(&limit.conditions, &candidates, false));
            limit_rules.push(self.limit(limit, &candidates));
        }
        let router = Router {
            rule,
            spoken: Spoken::new(if let [only] = *candidates { Some(only) } else { None }),
            ports: spec.ports.as_slice().into(),
            routes: Matcher::new(conditions),
            to: to.into(),
            passes_unrouted: spec.passes_unrouted,
            faults: Matcher::new(fault_conditions),
            fault_rules: fault_rules.into(),
            limits: Matcher::new(limit_conditions),
            limit_rules: limit_rules.into(),
            outbound: Concern::default(),
            inbound: Concern::default(),
            acts: [false; 2],
        };
        let router = self.concerned(router, &candidates);
        self.land(spec, &router, &candidates);
        self.find_what_never_decides(spec, first_rule);
        self.table.routers.push(router);
    }

    /// Protocols that messages to the host may be of.
    fn candidates(&mut self, spec: &RouterSpec) -> Vec<Protocol> {
        let context = self.context;
        let all = || context.protocols().collect();
        if let Some((name, place)) = &spec.protocol {
            return self.protocol(name, place).map_or_else(all, |protocol| vec![protocol]);
        }
        let Some(service) = self.clusters.service(&spec.host) else { return all() };
        let mut found = Vec::new();
        let is_of = |port: &u16| spec.ports.is_empty() || spec.ports.contains(port);
        for port in service.ports.iter().filter(|port| is_of(&port.number)) {
            let Some(name) = &port.protocol else { return all() };
            match self.specs.protocols.get(name).map_or(name.as_str(), |(codec, _)| codec) {
                codec if context.protocol(codec).is_none() => return all(),
                codec => found.extend(context.protocol(codec)),
            }
        }
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { all() } else { found }
    }

    /// A session stays where it is: its commands mean what they mean because of earlier ones.
    fn complain_of_sessions(&mut self, spec: &RouterSpec, candidates: &[Protocol]) {
        use tap::Protocol::{Mongodb, Mysql, Postgresql};
        let [Protocol::Of(protocol @ (Mongodb | Mysql | Postgresql))] = candidates else { return };
        if let Some(route) = spec.routes.first() {
            let what = format!(
                "routes of {protocol}: its connections are sessions, which stay \
                                with one server. Take the routes out"
            );
            self.troubles.error(route.place.clone(), what);
        }
    }

    fn route(&mut self, route: &RouteSpec, spec: &RouterSpec, candidates: &[Protocol]) -> RouteTo {
        let rule = self.rule(&route.name, &route.place, route_words(route));
        self.complain_of_what_nobody_does(route, candidates);
        let slots = route.hash_on.iter();
        let slots = slots.filter_map(|(name, place)| self.slot(name, candidates, place));
        let hash = Hashed { slots: slots.collect(), source: false };
        let mut to = Vec::new();
        for destination in &route.to {
            let found = self.destination(destination, spec, candidates, !hash.is_empty());
            self.complain_of_pinned(found.as_ref(), candidates, &destination.place);
            // Where one is wrong there is no table: the place counts.
            to.push(found.unwrap_or(Where::ByPort(Box::default())));
        }
        let weights: Vec<_> = route.to.iter().map(|it| it.weight).collect();
        let split = (to.len() > 1).then(|| {
            self.table.splits += 1;
            (self.table.splits - 1, schedule(&weights))
        });
        if route.first_byte_ns > 0 || route.idle_ns > 0 {
            let text = format!("netra: the answer took too long ({})", route.name);
            self.table.timeouts.push((rule, text.into()));
        }
        let verdict = Verdict {
            rule: Some(rule),
            request: self.mutations(&route.request, candidates),
            response: self.mutations(&route.response, candidates),
            first_byte_ns: route.first_byte_ns,
            idle_ns: route.idle_ns,
            retry: route.retry,
            ..Verdict::NONE
        };
        let stays = matches!(*to, [Where::One(cluster)] if self.clusters.only_passes(cluster));
        RouteTo {
            rule,
            to: to.into(),
            split,
            verdict,
            is_straight: stays
                && route.fault.is_none()
                && spec.faults.is_empty()
                && route.mirror.is_none()
                && route.repeats.is_empty(),
            repeats: self.repeats(route, candidates),
            mirror: route.mirror.as_ref().and_then(|it| self.mirror(it, spec, candidates)),
            fault: route.fault.as_ref().map(|fault| self.fault(fault, rule, &route.name)),
            hash,
        }
    }

    /// What nobody would do is not promised.
    fn complain_of_what_nobody_does(&mut self, route: &RouteSpec, candidates: &[Protocol]) {
        let has_no_order = |it: &Protocol| matches!(it, Protocol::Of(it) if it.about().correlation == Correlation::Loose);
        if (route.first_byte_ns > 0 || route.idle_ns > 0) && candidates.iter().all(has_no_order) {
            let names: Vec<_> = candidates.iter().map(|protocol| protocol.name()).collect();
            let what = format!(
                "timeout: nobody can tell what {} answers to what, so that no answer is missed. \
                 Take it out",
                names.join(", ")
            );
            self.troubles.error(route.place.clone(), what);
        }
        if route.retry.attempts > 0 {
            self.complain_of_retry(route, candidates);
        }
    }

    /// A route elsewhere that no message could be sent by would have no effect.
    fn complain_of_pinned(
        &mut self,
        found: Option<&Where>,
        candidates: &[Protocol],
        place: &Place,
    ) {
        let is_pinned = candidates.iter().all(|it| self.context.pinned.contains(it));
        let leads_elsewhere = match found {
            None => false,
            Some(to) => self.may_lead(to),
        };
        if is_pinned && leads_elsewhere {
            let names: Vec<_> = candidates.iter().map(|protocol| protocol.name()).collect();
            let what = format!(
                "routes of {} lead to the original destination alone in this version of netra, \
                 which changes upstreams of {} only",
                names.join(", "),
                self.context
                    .protocols()
                    .filter(|it| !self.context.pinned.contains(it))
                    .map(Protocol::name)
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            self.troubles.error(place.clone(), what);
        }
    }

    fn fault(&mut self, fault: &FaultSpec, rule: RuleId, name: &str) -> Fault {
        if fault.abort_parts > 0 {
            let text = match &fault.message {
                Some(message) => format!("{message} (netra: {name})"),
                None => format!("netra: a fault on purpose ({name})"),
            };
            self.refusal(rule, RefusalKind::Fault, text);
        }
        Fault {
            delay_parts: fault.delay_parts,
            delay_ns: fault.delay_ns,
            abort_parts: fault.abort_parts,
            http_status: fault.http_status,
        }
    }

    fn limit(
        &mut self,
        limit: &LimitSpec,
        candidates: &[Protocol],
    ) -> (RuleId, usize, Option<SlotId>) {
        let rule = self.rule(&limit.name, &limit.place, limit_words(limit));
        self.refusal(rule, RefusalKind::Limited, format!("netra: limit reached ({})", limit.name));
        let per_key = limit.per_key.as_ref();
        let slot = per_key.and_then(|it| self.slot(&it.attribute, candidates, &it.place));
        self.table.limits.push(Limit {
            name: limit.name.as_str().into(),
            bucket: Bucket {
                tokens_max: limit.tokens_max,
                tokens_per_fill: limit.tokens_per_fill,
                fill_interval_ns: limit.fill_interval_ns,
            },
            keys_max: per_key.map(|it| it.keys_max),
        });
        (rule, self.table.limits.len() - 1, slot)
    }

    fn mutations(
        &mut self,
        mutations: &[MutationSpec],
        candidates: &[Protocol],
    ) -> Option<MutationsId> {
        let first = mutations.first()?;
        for mutation in mutations {
            self.complain_of_mutation(mutation, candidates, &first.place);
        }
        let made = mutations.iter().map(|mutation| Mutation {
            name: mutation.key.as_str().into(),
            value: mutation.value.as_ref().map(|value| value.as_bytes().into()),
        });
        let id = u32::try_from(self.table.mutations.len()).ok().map(MutationsId);
        self.table.mutations.push(made.collect());
        id
    }

    fn complain_of_mutation(
        &mut self,
        mutation: &MutationSpec,
        candidates: &[Protocol],
        first: &Place,
    ) {
        if mutation.place == *first && !candidates.iter().any(|it| can_edit(*it)) {
            let names: Vec<_> = candidates.iter().map(|protocol| protocol.name()).collect();
            let what = format!(
                "messages of {} have no place for values of netra's: allowed of \
                                http1, dubbo and thrift",
                names.join(", ")
            );
            self.troubles.error(first.clone(), what);
        }
        let is_name = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;\\\"/[]?={}:".contains(&byte);
        let is_text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let http = candidates.contains(&Protocol::Http1);
        if http && !mutation.key.bytes().all(is_name) {
            let what = format!("key={:?} is no name of a field of HTTP", mutation.key);
            self.troubles.error(mutation.place.clone(), what);
        }
        let value = mutation.value.as_deref().unwrap_or_default();
        if http && !value.bytes().all(is_text) {
            let what = format!("value={value:?} is no value of a field of HTTP");
            self.troubles.error(mutation.place.clone(), what);
        }
        if mutation.value.is_none() && *candidates != [Protocol::Http1] {
            let what = format!(
                "{}: fields are taken out of messages of http1 alone: say `protocol: http1`, or \
                 take it out of the document",
                mutation.key
            );
            self.troubles.error(mutation.place.clone(), what);
        }
        let framing = ["host", "content-length", "transfer-encoding", "connection", "upgrade"];
        if http && framing.contains(&&*mutation.key.to_ascii_lowercase()) {
            let what = format!(
                "key={:?} says how a message is read, and is not set by rules",
                mutation.key
            );
            self.troubles.error(mutation.place.clone(), what);
        }
    }

    /// What a router has to do with messages.
    fn concerned(&self, router: Router, candidates: &[Protocol]) -> Router {
        let is_behind = |slot: SlotId| {
            candidates.iter().any(|protocol| self.slots.lies_behind(slot, *protocol))
        };
        let asks_behind = |matcher: &Matcher| {
            matcher.entries().flatten().any(|condition| match &condition.subject {
                Subject::Value(slot, _) => is_behind(*slot),
                Subject::Source(_) => false,
            })
        };
        let has_dubbo = candidates.contains(&Protocol::Of(tap::Protocol::Dubbo));
        let hashes_behind = |hash: &Hashed| hash.slots.iter().any(|slot| is_behind(*slot));
        let clusters = self.clusters.hashes();
        let edits = router.to.iter().any(|to| to.verdict.request.is_some());
        let edits_responses = router.to.iter().any(|to| to.verdict.response.is_some());
        let has_http = candidates.contains(&Protocol::Http1);
        let withholds = |to: &RouteTo| has_http && to.verdict.retry.withholds_answers();
        let is_timed = |to: &RouteTo| to.verdict.first_byte_ns > 0 || to.verdict.idle_ns > 0;
        let outbound = Concern {
            reads_requests: !router.to.is_empty() || !router.fault_rules.is_empty(),
            reads_responses: edits_responses || router.to.iter().any(is_timed),
            edits_responses,
            withholds_responses: router.to.iter().any(withholds),
            reads_pairs: has_dubbo && edits
                || asks_behind(&router.routes)
                || asks_behind(&router.faults)
                || router.to.iter().any(|to| hashes_behind(&to.hash))
                || clusters.into_iter().any(hashes_behind),
        };
        let limits = router.limit_rules.iter();
        let inbound = Concern {
            reads_requests: !router.limit_rules.is_empty(),
            reads_pairs: asks_behind(&router.limits)
                || limits.filter_map(|(.., slot)| *slot).any(is_behind),
            ..Concern::default()
        };
        let acts = [inbound, outbound].map(|concern| concern != Concern::default());
        Router { outbound, inbound, acts, ..router }
    }
}

/// Whether netra can give messages of the protocol a value.
fn can_edit(protocol: Protocol) -> bool {
    use tap::Protocol::{Dubbo, Thrift};
    matches!(protocol, Protocol::Http1 | Protocol::Of(Dubbo | Thrift))
}

fn time(ns: u64) -> String {
    format!("{:?}", Duration::from_nanos(ns))
}

fn route_words(route: &RouteSpec) -> String {
    let to = |it: &DestinationSpec| match route.to.len() {
        1 => place_words(it),
        _ => format!("{} ({} %)", place_words(it), it.weight),
    };
    let mut words = format!("to {}", route.to.iter().map(to).collect::<Vec<_>>().join(", "));
    let mut add = |more: String| words = format!("{words}; {more}");
    for (list, whose) in [(&route.request, "requests"), (&route.response, "answers")] {
        for (does, removes) in [("sets", false), ("removes", true)] {
            let them = list.iter().filter(|it| it.value.is_none() == removes);
            let names: Vec<_> = them.map(|it| it.key.as_str()).collect();
            if !names.is_empty() {
                add(format!("{does} {} of {whose}", names.join(", ")));
            }
        }
    }
    if let Some(fault) = &route.fault {
        add(fault_words(fault));
    }
    if let Some(mirror) = &route.mirror {
        add(format!("mirrors {} % to {}", percent(mirror.parts), place_words(&mirror.to)));
    }
    if route.first_byte_ns > 0 {
        add(format!("first byte within {}", time(route.first_byte_ns)));
    }
    if route.idle_ns > 0 {
        add(format!("no answer stands still for {}", time(route.idle_ns)));
    }
    if let Some(again) = retry_words(&route.retry) {
        add(again);
    }
    if !route.repeats.is_empty() {
        let names: Vec<_> = route.repeats.iter().map(|(name, _)| name.as_str()).collect();
        add(format!("of operations only {} are asked again", names.join(", ")));
    }
    words
}

/// How often a request is asked again, and when; None is never.
pub(crate) fn retry_words(retry: &Retry) -> Option<String> {
    let times = match retry.attempts {
        0 => return None,
        1 => "once".to_owned(),
        many => format!("up to {many} times"),
    };
    let no_byte = retry.per_try_ns().map(|ns| format!("no byte of an answer within {}", time(ns)));
    let whens = [
        retry.on_reset.then(|| "a reset".to_owned()),
        no_byte,
        retry.on_gateway_error.then(|| "a gateway error".to_owned()),
    ];
    let whens: Vec<_> = whens.into_iter().flatten().collect();
    Some(format!("asked again {times} after {}", whens.join(", or ")))
}

fn place_words(it: &DestinationSpec) -> String {
    let subset = it.subset.iter().map(|subset| format!("/{subset}")).collect::<String>();
    let port = it.port.map_or_else(String::new, |port| format!(":{port}"));
    format!("{}{subset}{port}", it.host)
}

fn percent(parts: u32) -> String {
    let text = format!("{}.{:04}", parts / 10_000, parts % 10_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn fault_words(fault: &FaultSpec) -> String {
    let mut words = Vec::new();
    if fault.delay_parts > 0 {
        words.push(format!("delays {} % by {}", percent(fault.delay_parts), time(fault.delay_ns)));
    }
    if fault.abort_parts > 0 {
        words.push(format!("refuses {} %", percent(fault.abort_parts)));
    }
    words.join(", ")
}

fn limit_words(limit: &LimitSpec) -> String {
    let per_key = limit.per_key.as_ref();
    let per_key = per_key.map_or_else(String::new, |it| format!(", for each {}", it.attribute));
    format!(
        "{} messages at once, {} more each {}{per_key}",
        limit.tokens_max,
        limit.tokens_per_fill,
        time(limit.fill_interval_ns)
    )
}
