//! `Plan`: the rules that do what an `InterceptSpec` says, before any backend's syntax.
//!
//! Pure: no kernel, no files. The order of the rules is the meaning: who is excluded returns
//! first, what is left is redirected.

use std::collections::BTreeSet;

use crate::ranges::{AddrSet, PortSet, Range, RangeSet};
use crate::spec::{InterceptSpec, Interface, Outbound, Ports, Probability};

/// Every rule, for both directions and all families.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Whether IPv6 is covered.
    pub has_ipv6: bool,
    /// Connections to the application; `None` if none are to be intercepted.
    pub inbound: Option<Chain>,
    /// Connections of the application; `None` if none are to be intercepted.
    pub outbound: Option<Chain>,
    /// Whether packets that come in are dropped if connection tracking cannot place them: nat
    /// does not see them, so the application would get them, and reset a connection it never had.
    pub drop_invalid: bool,
}

/// The rules of one direction.
///
/// Only the first packet of a connection (SYN) enters. nat asks about new connections anyway, but
/// while no rule had needed connection tracking, every connection that was open before counts as
/// new with its next packet, and would be torn apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    /// Toward or from the application.
    pub direction: Direction,
    /// Share of connections that enter the chain at all.
    pub probability: Probability,
    /// The rules, first match wins.
    pub rules: Vec<Rule>,
}

/// Toward or from the application.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// Toward the application: netfilter's prerouting.
    Inbound,
    /// From the application: netfilter's output.
    Outbound,
}

/// One rule: if everything matches, the verdict.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Constant text that says why the rule is there.
    pub comment: &'static str,
    /// What has to match; all of it.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
}

/// A condition on the first packet of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Match {
    /// Came in by this interface.
    InInterface(Interface),
    /// Goes out by this interface.
    OutInterface(Interface),
    /// Sent by one of these users.
    Users(BTreeSet<u32>),
    /// Sent by one of these groups.
    Groups(BTreeSet<u32>),
    /// Sent by none of these groups.
    NotGroups(BTreeSet<u32>),
    /// To one of these ports.
    Ports(PortSet),
    /// Any address of this family.
    Family(Family),
    /// IPv4 address in the set.
    Ipv4(Side, RangeSet<u32>),
    /// IPv6 address in the set.
    Ipv6(Side, RangeSet<u128>),
    /// To none of this machine's addresses: the kernel would forward it, or drop it.
    NotToUs,
}

/// Which address of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// An address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What happens to a connection that matches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Leave it alone.
    Return,
    /// Send it to this port of the sidecar.
    Redirect(u16),
}

impl Plan {
    /// Plans the rules. `has_ipv6` is the outcome of `--ipv6` on this machine.
    pub fn new(spec: &InterceptSpec, has_ipv6: bool) -> Self {
        let is_wanted = |ports: &Ports, probability: Probability| {
            !probability.is_never() && *ports != Ports::Only(PortSet::default())
        };
        let chain = |direction, probability, rules: Vec<Rule>| {
            let rules = spec.is_released.then(released).into_iter().chain(rules);
            let is_covered = |rule: &Rule| has_ipv6 || rule.family() != Some(Family::V6);
            Chain { direction, probability, rules: rules.filter(is_covered).collect() }
        };
        let (inbound, outbound) = (&spec.inbound, &spec.outbound);
        let has_guests = !inbound.reroute_interfaces.is_empty() && !inbound.probability.is_never();
        Self {
            has_ipv6,
            drop_invalid: spec.drop_invalid,
            inbound: (has_guests || is_wanted(&inbound.ports, inbound.probability)).then(|| {
                let rules = inbound_rules(spec);
                chain(Direction::Inbound, inbound.probability, rules)
            }),
            outbound: is_wanted(&outbound.ports, outbound.probability).then(|| {
                let rules = outbound_rules(outbound, &spec.exclude_interfaces);
                chain(Direction::Outbound, outbound.probability, rules)
            }),
        }
    }

    /// The chains there are, inbound first.
    pub fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.inbound.iter().chain(&self.outbound)
    }
}

impl Rule {
    /// The only family the rule can match, if there is one.
    pub fn family(&self) -> Option<Family> {
        self.matches.iter().find_map(|condition| match condition {
            Match::Family(family) => Some(*family),
            Match::Ipv4(..) => Some(Family::V4),
            Match::Ipv6(..) => Some(Family::V6),
            _ => None,
        })
    }

    fn exclude(comment: &'static str, condition: Match) -> Self {
        Self { comment, matches: vec![condition], verdict: Verdict::Return }
    }
}

fn inbound_rules(spec: &InterceptSpec) -> Vec<Rule> {
    let inbound = &spec.inbound;
    let mut rules = Vec::new();
    let interface =
        |name: &Interface| Rule::exclude("netra/interface", Match::InInterface(name.clone()));
    rules.extend(spec.exclude_interfaces.iter().map(interface));
    rules.push(Rule::exclude("netra/own-ports", Match::Ports(inbound.own_ports.clone())));
    // A redirect comes before the kernel asks whether it should take the packet at all. Whoever is
    // on a link can route any address through us: what the kernel would drop or forward is not
    // ours to dial. Guests may go elsewhere, but not to our loopback. (Loopback traffic of this
    // machine is decided in output and does not come here.)
    rules.extend(loopback());
    rules.push(link_local());
    for guest in &inbound.reroute_interfaces {
        rules.extend(guest_rules(&spec.outbound, guest));
    }
    rules.push(Rule::exclude("netra/not-to-us", Match::NotToUs));
    rules.extend(exclude_ports(&inbound.exclude_ports));
    rules.extend(exclude_addrs(Side::Source, &inbound.exclude_sources));
    rules.extend(redirects(inbound.redirect_port, &inbound.ports, None));
    rules
}

/// What a guest sends comes in by its interface and is treated as the outbound rules say. Users
/// and groups do not apply: the sockets are the guest's.
fn guest_rules(spec: &Outbound, guest: &Interface) -> Vec<Rule> {
    let mut rules: Vec<Rule> = exclude_addrs(Side::Destination, &spec.exclude_destinations)
        .chain(exclude_ports(&spec.exclude_ports))
        .chain(redirects(spec.redirect_port, &spec.ports, spec.include_destinations.as_ref()))
        .chain([Rule { comment: "netra/guest", matches: Vec::new(), verdict: Verdict::Return }])
        .collect();
    for rule in &mut rules {
        // Behind the addresses and before the ports, as iptables writes them.
        let at = rule.matches.iter().take_while(|m| matches!(m, Match::Ipv4(..) | Match::Ipv6(..)));
        rule.matches.insert(at.count(), Match::InInterface(guest.clone()));
        rule.comment = "netra/guest";
    }
    rules
}

fn outbound_rules(spec: &Outbound, interfaces: &BTreeSet<Interface>) -> Vec<Rule> {
    let mut rules = vec![
        Rule::exclude("netra/uid", Match::Users(spec.exclude_uids.clone())),
        Rule::exclude("netra/gid", Match::Groups(spec.exclude_gids.clone())),
    ];
    let groups =
        |gids: &BTreeSet<u32>| Rule::exclude("netra/other-gid", Match::NotGroups(gids.clone()));
    rules.extend(spec.include_gids.as_ref().map(groups));
    if !spec.intercept_self {
        let lo = Interface { name: "lo".to_owned(), is_prefix: false };
        rules.push(Rule::exclude("netra/loopback", Match::OutInterface(lo)));
    }
    // Also without `lo` in between: a route may send 127.0.0.0/8 elsewhere.
    rules.extend(loopback());
    rules.push(link_local());
    let interface =
        |name: &Interface| Rule::exclude("netra/interface", Match::OutInterface(name.clone()));
    rules.extend(interfaces.iter().map(interface));
    rules.extend(exclude_addrs(Side::Destination, &spec.exclude_destinations));
    rules.extend(exclude_ports(&spec.exclude_ports));
    rules.extend(redirects(spec.redirect_port, &spec.ports, spec.include_destinations.as_ref()));
    rules
}

/// Leaves every new connection alone. The rules behind it stay: without a redirect the kernel tracks
/// no connection any more, and what is open would be translated no longer.
fn released() -> Rule {
    Rule { comment: "netra/released", matches: Vec::new(), verdict: Verdict::Return }
}

/// 127.0.0.0/8 and ::1.
fn loopback() -> [Rule; 2] {
    let v4 = RangeSet::new(vec![Range { first: 0x7f00_0000, last: 0x7fff_ffff }]);
    let v6 = RangeSet::new(vec![Range { first: 1, last: 1 }]);
    [
        Rule::exclude("netra/loopback", Match::Ipv4(Side::Destination, v4)),
        Rule::exclude("netra/loopback", Match::Ipv6(Side::Destination, v6)),
    ]
}

/// fe80::/10: SO_ORIGINAL_DST has no scope id to dial such an address by.
fn link_local() -> Rule {
    let first = 0xfe80_u128 << 112;
    let v6 = RangeSet::new(vec![Range { first, last: first | (u128::MAX >> 10) }]);
    Rule::exclude("netra/link-local", Match::Ipv6(Side::Destination, v6))
}

fn exclude_ports(ports: &PortSet) -> Option<Rule> {
    (!ports.is_empty()).then(|| Rule::exclude("netra/exclude-ports", Match::Ports(ports.clone())))
}

fn exclude_addrs(side: Side, addrs: &AddrSet) -> impl Iterator<Item = Rule> {
    addr_matches(side, addrs)
        .into_iter()
        .map(|condition| Rule::exclude("netra/exclude-cidrs", condition))
}

fn redirects(port: u16, ports: &Ports, include: Option<&AddrSet>) -> Vec<Rule> {
    let ports = match ports {
        Ports::Only(ports) if ports.is_empty() => return Vec::new(),
        Ports::All => None,
        Ports::Only(ports) => Some(Match::Ports(ports.clone())),
    };
    let rule = |addr: Option<Match>| Rule {
        comment: "netra/redirect",
        matches: addr.into_iter().chain(ports.clone()).collect(),
        verdict: Verdict::Redirect(port),
    };
    match include {
        None => vec![rule(None)],
        Some(addrs) => addr_matches(Side::Destination, addrs)
            .into_iter()
            .map(|condition| rule(Some(condition)))
            .collect(),
    }
}

/// One match per family that has addresses. A full set is said as the family: no backend has to
/// know how to write a prefix of length zero.
fn addr_matches(side: Side, addrs: &AddrSet) -> Vec<Match> {
    let v4 = || match addrs.v4.is_full() {
        true => Match::Family(Family::V4),
        false => Match::Ipv4(side, addrs.v4.clone()),
    };
    let v6 = || match addrs.v6.is_full() {
        true => Match::Family(Family::V6),
        false => Match::Ipv6(side, addrs.v6.clone()),
    };
    let v4 = (!addrs.v4.is_empty()).then(v4);
    v4.into_iter().chain((!addrs.v6.is_empty()).then(v6)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn plan(flags: &[(&str, &str)], has_ipv6: bool) -> Plan {
        let find =
            |flag: &str| flags.iter().find(|entry| entry.0 == flag).map(|entry| entry.1.to_owned());
        let spec = InterceptSpec::parse(&Settings::resolve(find, |_| None)).unwrap();
        Plan::new(&spec, has_ipv6)
    }

    fn comments(chain: Option<&Chain>) -> Vec<&'static str> {
        chain.unwrap().rules.iter().map(|rule| rule.comment).collect()
    }

    #[test]
    fn defaults() {
        let plan = plan(&[], true);
        assert_eq!(
            comments(plan.inbound.as_ref()),
            [
                "netra/own-ports",
                "netra/loopback",
                "netra/loopback",
                "netra/link-local",
                "netra/not-to-us",
                "netra/redirect"
            ]
        );
        assert_eq!(
            comments(plan.outbound.as_ref()),
            [
                "netra/uid",
                "netra/gid",
                "netra/loopback",
                "netra/loopback",
                "netra/loopback",
                "netra/link-local",
                "netra/exclude-ports",
                "netra/redirect"
            ]
        );
    }

    #[test]
    fn own_identity_comes_first_and_the_redirect_last() {
        let plan = plan(
            &[
                ("exclude-interfaces", "eth1"),
                ("exclude-uids", "5"),
                ("include-gids", "7"),
                ("exclude-outbound-cidrs", "10.0.0.0/8"),
            ],
            true,
        );
        let rules = &plan.outbound.unwrap().rules;
        assert_eq!(rules[0].matches, [Match::Users(BTreeSet::from([5, 1337]))]);
        assert_eq!(rules[1].matches, [Match::Groups(BTreeSet::from([1337]))]);
        assert_eq!(rules[2].matches, [Match::NotGroups(BTreeSet::from([7]))]);
        let redirects = rules.iter().filter(|rule| rule.verdict != Verdict::Return).count();
        assert_eq!(redirects, 1);
        assert_eq!(rules.last().unwrap().verdict, Verdict::Redirect(14956));
    }

    #[test]
    fn without_ipv6_no_rule_of_it() {
        let flags = [("include-outbound-cidrs", "10.0.0.0/8,fd00::/8")];
        let families = |plan: &Plan| -> Vec<_> {
            plan.chains().flat_map(|chain| &chain.rules).filter_map(Rule::family).collect()
        };
        assert!(families(&plan(&flags, true)).contains(&Family::V6));
        assert!(!families(&plan(&flags, false)).contains(&Family::V6));
    }

    #[test]
    fn nothing_wanted_no_chain() {
        assert_eq!(plan(&[("inbound-probability", "0")], true).inbound, None);
        assert_eq!(plan(&[("outbound-ports", "none")], true).outbound, None);
        assert!(plan(&[("outbound-ports", "none")], true).inbound.is_some());
    }

    /// The rules stay, so that what is open is tracked; whatever enters leaves at once.
    #[test]
    fn what_is_released_has_chains_that_leave_all_alone() {
        let spec = InterceptSpec::parse(&Settings::resolve(|_| None, |_| None)).unwrap();
        let spec = InterceptSpec { is_released: true, ..spec };
        let plan = Plan::new(&spec, true);
        assert_eq!(plan.chains().count(), 2);
        for chain in plan.chains() {
            assert_eq!(chain.rules[0], released());
            assert!(matches!(chain.rules.last().unwrap().verdict, Verdict::Redirect(_)));
        }
    }

    #[test]
    fn intercept_self_leaves_only_real_loopback_alone() {
        let plan = plan(&[("intercept-self", "true")], true);
        let is_lo = |rule: &&Rule| matches!(rule.matches[..], [Match::OutInterface(_)]);
        let outbound = plan.outbound.unwrap();
        assert_eq!(outbound.rules.iter().filter(is_lo).count(), 0);
        let loopback = outbound.rules.iter().filter(|rule| rule.comment == "netra/loopback");
        assert_eq!(loopback.count(), 2);
    }

    #[test]
    fn what_guests_send_is_outbound() {
        let flags = [
            ("reroute-interfaces", "virbr0"),
            ("inbound-ports", "none"),
            ("outbound-port", "15001"),
            ("outbound-ports", "80"),
            ("exclude-outbound-cidrs", "10.0.0.0/8"),
        ];
        let rules = plan(&flags, true).inbound.unwrap().rules;
        let guest: Vec<&Rule> = rules.iter().filter(|rule| rule.comment == "netra/guest").collect();
        let is_of_guest =
            |rule: &&Rule| rule.matches.iter().any(|m| matches!(m, Match::InInterface(_)));
        assert!(guest.iter().all(is_of_guest));
        let verdicts: Vec<Verdict> = guest.iter().map(|rule| rule.verdict).collect();
        let redirect = Verdict::Redirect(15001);
        assert_eq!(verdicts, [Verdict::Return, Verdict::Return, redirect, Verdict::Return]);
        let strangers = rules.iter().position(|rule| rule.matches == [Match::NotToUs]).unwrap();
        assert!(rules[..strangers].ends_with(&guest.into_iter().cloned().collect::<Vec<_>>()));
        assert_eq!(strangers + 1, rules.len(), "no inbound port is intercepted");
        assert_eq!(plan(&[("inbound-ports", "none")], true).inbound, None);
    }

    #[test]
    fn include_list_of_one_family_redirects_only_it() {
        let plan = plan(&[("include-outbound-cidrs", "0.0.0.0/0")], true);
        let last = plan.outbound.unwrap().rules.pop().unwrap();
        assert_eq!(last.matches, [Match::Family(Family::V4)]);
    }
}
