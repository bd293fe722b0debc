//! What the rules say of a message.

use crate::{
    ask::Ask,
    balance::{Cluster, EndpointAddress, Hashed, Picked, Seat},
    choice::pick,
    facts::{Direction, Facts},
    hash::{Stable, mix},
    pattern::wide,
    state::State,
    table::{Fault, Mirror, Policy, RouteTo, Router, Table, refusal},
    verdict::{Action, ClusterId, EndpointId, Refusal, RefusalKind, Route, RuleId, Verdict},
};

/// What is to be done with a message. `now_ns` is of a clock that never goes back, `random` is
/// chance: 64 bits for each message.
pub fn decide<F: Facts>(
    table: &Table,
    facts: &F,
    state: &mut State,
    now_ns: u64,
    random: u64,
) -> Verdict {
    match facts.direction() {
        Direction::Outbound => outbound(table, facts, state, now_ns, random),
        Direction::Inbound => inbound(table, facts, state, now_ns),
    }
}

/// The router that a message has to do with, and what it may be asked for.
#[inline]
pub(crate) fn router_of<'t, F: Facts>(table: &'t Table, facts: &F) -> Option<&'t Router> {
    let (direction, protocol) = (facts.direction(), facts.protocol());
    let port = facts.destination().port();
    if let [only] = table.landing.first(facts)
        && let Some(router) = table.routers.get(*only as usize)
        && router.acts_on(direction)
        && router.is_for(protocol, port)
    {
        return Some(router);
    }
    table.landing.router(facts, |router| {
        let router = table.routers.get(router as usize)?;
        (router.acts_on(direction) && router.is_for(protocol, port)).then_some(router)
    })
}

/// A call of the application: routes and faults.
fn outbound<F: Facts>(
    table: &Table,
    facts: &F,
    state: &mut State,
    now_ns: u64,
    random: u64,
) -> Verdict {
    let Some(router) = router_of(table, facts) else { return Verdict::NONE };
    let found = router.routes.first_of_all(facts, &table.slots);
    let route = found.and_then(|it| router.to.get(it as usize));
    match route {
        Some(route) if route.is_straight => {
            state.note(route.rule, false, now_ns);
            route.verdict
        }
        _ => routed(table, (router, route), facts, state, (now_ns, random)),
    }
}

/// The same of a message for which more is to be done than to find its route, or that has none.
#[inline]
fn routed<F: Facts>(
    table: &Table,
    (router, route): (&Router, Option<&RouteTo>),
    facts: &F,
    state: &State,
    (now_ns, random): (u64, u64),
) -> Verdict {
    if route.is_none() && !router.passes_unrouted {
        return refuse(state, router.rule, refusal(RefusalKind::NoRoute), now_ns);
    }
    let mut ask = Ask::new(facts, &table.slots);
    let own_fault = route.and_then(|route| Some((route.rule, route.fault.as_ref()?)));
    let fault = own_fault.or_else(|| {
        if router.fault_rules.is_empty() {
            return None;
        }
        let found = router.faults.first(&mut ask)?;
        router.fault_rules.get(found as usize).map(|(rule, fault)| (*rule, fault))
    });
    let (mut delay_ns, mut delayed_by) = (0, None);
    if let Some((rule, fault)) = fault {
        let (is_delayed, is_aborted) = drawn(fault, random);
        if is_delayed {
            (delay_ns, delayed_by) = (fault.delay_ns, Some(rule));
        }
        if is_aborted {
            let refused = Refusal { http_status: fault.http_status, kind: RefusalKind::Fault };
            return Verdict { delay_ns, ..refuse(state, rule, refused, now_ns) };
        }
    }
    let own = route.map(|route| route.rule);
    if let Some(rule) = delayed_by.filter(|_| delayed_by != own) {
        state.note(rule, false, now_ns);
    }
    let Some(route) = route else {
        return Verdict { rule: delayed_by, delay_ns, ..Verdict::NONE };
    };
    match action(table, route, &mut ask, state, (now_ns, random)) {
        Ok(action) => {
            state.note(route.rule, false, now_ns);
            let port = ask.facts.destination().port();
            let mirror = route.mirror.as_ref().and_then(|mirror| copied(mirror, port, random));
            let retry = match &route.repeats {
                None => route.verdict.retry,
                Some(repeats) => repeats.of(&mut ask, route.verdict.retry),
            };
            Verdict { action, delay_ns, mirror, retry, ..route.verdict }
        }
        Err(kind) => Verdict { delay_ns, ..refuse(state, route.rule, refusal(kind), now_ns) },
    }
}

/// Where a message of the route goes; or why nowhere.
#[inline]
fn action<F: Facts>(
    table: &Table,
    route: &RouteTo,
    ask: &mut Ask<'_, F>,
    state: &State,
    (now_ns, random): (u64, u64),
) -> Result<Action, RefusalKind> {
    let nobody = RefusalKind::NoEndpoint;
    let index = match &route.split {
        None => 0,
        Some((turn, schedule)) => pick(schedule, state.turn(*turn)).ok_or(nobody)? as usize,
    };
    let to = route.to.get(index).ok_or(nobody)?;
    let id = to.cluster(ask.facts.destination().port()).ok_or(nobody)?;
    let cluster = table.cluster(id).ok_or(nobody)?;
    if let [only] = &*cluster.endpoints
        && only.address == EndpointAddress::Original
    {
        return Ok(Action::Pass);
    }
    let hash = hash_of(route, cluster, ask);
    let balance = state.balance(id).ok_or(nobody)?;
    // Numbers of connections may have any pattern.
    let draw = if cluster.policy.by_message { random } else { mix(ask.facts.connection()) };
    let now = ask.facts.seat();
    let is_here = |seat: &Seat| balance.holds(seat);
    let here = now.filter(|seat| is_here(seat)).or_else(|| ask.facts.other_seat(is_here));
    match balance.pick(cluster, hash, here.or(now), (now_ns, draw)) {
        Picked::Endpoint(index) => {
            Ok(Action::Route(Route { cluster: id, endpoint: EndpointId(index) }))
        }
        Picked::Nobody => Err(nobody),
        Picked::Full(_) => Err(RefusalKind::Overflow),
    }
}

/// The hash of the values by which the endpoint is chosen. A message that has none of them is one
/// of its connection.
#[inline]
fn hash_of<F: Facts>(route: &RouteTo, cluster: &Cluster, ask: &mut Ask<'_, F>) -> Option<u64> {
    let Hashed { slots, source } = if route.hash.is_empty() { &cluster.hash } else { &route.hash };
    if slots.is_empty() && !source {
        return None;
    }
    let mut hash = Stable::new();
    let mut has_any = false;
    if *source && let Some(address) = ask.facts.source() {
        hash.add(Some(&wide(address).to_be_bytes()));
        has_any = true;
    }
    for slot in slots {
        let value = ask.value(*slot);
        has_any |= value.is_some();
        hash.add(value);
    }
    has_any.then(|| hash.finish())
}

/// A call to the application: who may, and how often.
fn inbound<F: Facts>(table: &Table, facts: &F, state: &mut State, now_ns: u64) -> Verdict {
    let mut ask = Ask::new(facts, &table.slots);
    let mut verdict = Verdict::NONE;
    if !table.policies.is_empty() {
        let (enforced, shadow) = (judge(table, &mut ask, false), judge(table, &mut ask, true));
        if let Judged::Denied(rule) = shadow {
            state.note(rule, true, now_ns);
            verdict.shadow = Some(rule);
        }
        match enforced {
            Judged::Denied(rule) => {
                let refused = refuse(state, rule, refusal(RefusalKind::Denied), now_ns);
                return Verdict { shadow: verdict.shadow, ..refused };
            }
            Judged::Allowed(rule) => {
                state.note(rule, false, now_ns);
                verdict.rule = Some(rule);
            }
            Judged::Free => {}
        }
    }
    let Some(router) = router_of(table, facts) else { return verdict };
    let found = router.limits.first(&mut ask);
    let limit = found.and_then(|found| router.limit_rules.get(found as usize));
    let Some((rule, limit, per_key)) = limit else { return verdict };
    let has_token = match per_key {
        None => state.take(*limit, now_ns),
        Some(slot) => {
            let value = ask.value(*slot).map(crate::hash::quick);
            state.take_key(*limit, value, now_ns)
        }
    };
    if !has_token {
        let refused = refuse(state, *rule, refusal(RefusalKind::Limited), now_ns);
        return Verdict { shadow: verdict.shadow, ..refused };
    }
    state.note(*rule, false, now_ns);
    Verdict { rule: Some(*rule), ..verdict }
}

/// What authorizations say.
enum Judged {
    /// None is about the message.
    Free,
    Allowed(RuleId),
    Denied(RuleId),
}

/// What denies comes first; then what allows, and where something allows that is about the message,
/// it has to.
fn judge<F: Facts>(table: &Table, ask: &mut Ask<'_, F>, is_shadow: bool) -> Judged {
    let (protocol, port) = (ask.facts.protocol(), ask.facts.destination().port());
    let is_about =
        |policy: &&Policy| policy.is_shadow == is_shadow && policy.is_for(protocol, port);
    for policy in table.policies.iter().filter(is_about).filter(|it| it.denies) {
        if policy.matcher.first(ask).is_some() {
            return Judged::Denied(policy.rule);
        }
    }
    let mut judged = Judged::Free;
    for policy in table.policies.iter().filter(is_about).filter(|it| !it.denies) {
        if policy.matcher.first(ask).is_some() {
            return Judged::Allowed(policy.rule);
        }
        if matches!(judged, Judged::Free) {
            judged = Judged::Denied(policy.rule);
        }
    }
    judged
}

/// Whether a fault's delay and its abort are due, by two halves of one draw.
fn drawn(fault: &Fault, random: u64) -> (bool, bool) {
    (is_due(fault.delay_parts, random), is_due(fault.abort_parts, random >> 32))
}

/// Where a copy of a message goes, if it is drawn. Not by what faults are drawn by; who explains rules
/// draws what is due to no fault, and that is always copied.
#[cold]
fn copied(mirror: &Mirror, port: u16, random: u64) -> Option<ClusterId> {
    is_due(mirror.parts, mix(!random)).then(|| mirror.to.cluster(port))?
}

/// Whether so many parts of 0.0001 percent are drawn by the lower half of a draw.
fn is_due(parts: u32, draw: u64) -> bool {
    ((draw & u64::from(u32::MAX)) * 1_000_000) >> 32 < parts.into()
}

fn refuse(state: &State, rule: RuleId, refusal: Refusal, now_ns: u64) -> Verdict {
    state.note(rule, true, now_ns);
    Verdict { rule: Some(rule), action: Action::Refuse(refusal), ..Verdict::NONE }
}
