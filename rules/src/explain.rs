//! Which rule decides about a message, and why not another.

use crate::{
    ask::Ask,
    compile::retry_words,
    decide::{decide, router_of},
    facts::{Direction, Facts},
    key::Protocol,
    matcher::Matcher,
    state::State,
    table::{RuleInfo, Table},
    verdict::{Action, RuleId, Verdict},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Rules that were not for the message, at most, that are told of.
const PASSED_OVER_MAX: usize = 50;

/// Why the rules say what they say of a message, line by line; the verdict is that of a sidecar
/// that has seen no other message.
pub fn explain<F: Facts>(table: &Table, facts: &F) -> (Verdict, Vec<String>) {
    let process = Arc::new(table.process(None, 0));
    let mut state = State::new(table, &process, 1);
    let verdict = decide(table, facts, &mut state, 0, u64::MAX);
    let mut lines = Vec::new();
    let router = router_of(table, facts);
    if facts.direction() == Direction::Inbound {
        explain_policies(table, facts, &mut lines);
    }
    match router {
        None => lines.push(match facts.direction() {
            Direction::Outbound => "no document has routes or faults for its host".to_owned(),
            Direction::Inbound => "no document has limits for this service".to_owned(),
        }),
        Some(router) => {
            let own = table.rule(router.rule);
            lines.extend(own.map(|rule| format!("it concerns {} at {}", rule.name, rule.place)));
            let rules: Vec<_> = match facts.direction() {
                Direction::Outbound => router.to.iter().map(|to| to.rule).collect(),
                Direction::Inbound => router.limit_rules.iter().map(|(rule, ..)| *rule).collect(),
            };
            let matcher = match facts.direction() {
                Direction::Outbound => &router.routes,
                Direction::Inbound => &router.limits,
            };
            explain_list(table, facts, (matcher, &rules), &mut lines);
        }
    }
    lines.push(in_words(table, &verdict));
    (verdict, lines)
}

/// Rules that may act on messages of a protocol that go there: the first that the place finds, those that
/// messages may name, and who may.
pub fn may_act(
    table: &Table,
    direction: Direction,
    to: SocketAddr,
    protocol: Protocol,
) -> Vec<&RuleInfo> {
    let acts = |number: u32| {
        let router = table.routers.get(number as usize)?;
        let is_it = router.is_for(protocol, to.port()) && router.acts_on(direction);
        is_it.then_some(router.rule)
    };
    let all = 0..u32::try_from(table.routers.len()).unwrap_or(u32::MAX);
    let by_place = table.landing.at(direction, to, acts);
    let is_named = |number: &u32| {
        direction == Direction::Outbound
            && table.landing.goes_by_name(protocol, |other| other == *number)
    };
    let by_name = all.filter(is_named).filter_map(acts);
    let policies = table.policies.iter().filter(|it| it.is_for(protocol, to.port()));
    let policies = policies.filter(|_| direction == Direction::Inbound).map(|it| it.rule);
    let mut found: Vec<RuleId> = Vec::new();
    for rule in by_place.into_iter().chain(by_name).chain(policies) {
        if !found.contains(&rule) {
            found.push(rule);
        }
    }
    found.into_iter().filter_map(|rule| table.rule(rule)).collect()
}

/// What a verdict says, in words.
pub fn in_words(table: &Table, verdict: &Verdict) -> String {
    let rule = verdict.rule.and_then(|rule| table.rule(rule));
    let by = rule.map_or_else(String::new, |rule| format!(" by {} at {}", rule.name, rule.place));
    let mut words = match verdict.action {
        Action::Pass => format!("passed to the original destination{by}"),
        Action::Refuse(refusal) => {
            let (kind, text) = (refusal.kind.name(), table.refusal_text(verdict));
            format!("refused ({kind}){by}: {text:?}")
        }
        Action::Route(route) => {
            let cluster = table.cluster(route.cluster).map_or("?", |cluster| &cluster.name);
            let endpoint = table.endpoint(route).map(|endpoint| endpoint.address.to_string());
            format!("routed to {cluster} at {}{by}", endpoint.unwrap_or_default())
        }
    };
    let mut add = |more: String| words = format!("{words}; {more}");
    for (whose, mutations) in [("request", verdict.request), ("answers", verdict.response)] {
        for mutation in mutations.map_or(&[][..], |id| table.mutations(id)) {
            let name = &mutation.name;
            add(match mutation.value.as_deref().map(String::from_utf8_lossy) {
                Some(value) => format!("{whose}: {name} = {value:?}"),
                None => format!("{whose}: no {name}"),
            });
        }
    }
    let time = Duration::from_nanos;
    if verdict.delay_ns > 0 {
        add(format!("after {:?}", time(verdict.delay_ns)));
    }
    if verdict.first_byte_ns > 0 {
        add(format!("first byte within {:?}", time(verdict.first_byte_ns)));
    }
    if verdict.idle_ns > 0 {
        add(format!("no answer stands still for {:?}", time(verdict.idle_ns)));
    }
    if let Some(again) = retry_words(&verdict.retry) {
        add(format!("{again}, if it is safe to repeat"));
    }
    if let Some(cluster) = verdict.mirror.and_then(|it| table.cluster(it)) {
        add(format!("a copy goes to {}", cluster.name));
    }
    if let Some(rule) = verdict.shadow.and_then(|rule| table.rule(rule)) {
        add(format!("{} would have refused it", rule.name));
    }
    words
}

fn explain_policies<F: Facts>(table: &Table, facts: &F, lines: &mut Vec<String>) {
    let (protocol, port) = (facts.protocol(), facts.destination().port());
    let mut ask = Ask::new(facts, &table.slots);
    for policy in table.policies.iter().filter(|it| it.is_for(protocol, port)) {
        let Some(rule) = table.rule(policy.rule) else { continue };
        let shadow = if policy.is_shadow { " (in the shadow)" } else { "" };
        let found = policy.matcher.first(&mut ask);
        lines.push(match (policy.denies, found) {
            (true, Some(index)) => format!("{} denies it by its rule {index}{shadow}", rule.name),
            (true, None) => format!("{} does not deny it{shadow}", rule.name),
            (false, Some(index)) => format!("{} allows it by its rule {index}{shadow}", rule.name),
            (false, None) => format!("{} does not allow it{shadow}", rule.name),
        });
    }
}

fn explain_list<F: Facts>(
    table: &Table,
    facts: &F,
    (matcher, rules): (&Matcher, &[RuleId]),
    lines: &mut Vec<String>,
) {
    let mut ask = Ask::new(facts, &table.slots);
    let found = matcher.first(&mut ask).map_or(rules.len(), |index| index as usize);
    let over = rules.get(..found).unwrap_or_default();
    for (index, rule) in over.iter().enumerate().take(PASSED_OVER_MAX) {
        let why = matcher.why_not(index, &mut ask, &table.slots).unwrap_or_default();
        lines.extend(table.rule(*rule).map(|rule| format!("not {}: for it {why}", rule.name)));
    }
    if over.len() > PASSED_OVER_MAX {
        lines.push(format!("and not {} more", over.len() - PASSED_OVER_MAX));
    }
    let fits = rules.get(found).and_then(|rule| table.rule(*rule));
    lines.push(match fits {
        Some(rule) => format!("{} fits: {}", rule.name, rule.effect),
        None => "none of its rules fits".to_owned(),
    });
}
