//! Compares what the kernel has with what the plan wants, attribute by attribute.
//!
//! The kernel reports more than it was told (handles, defaults), so every attribute of ours has
//! to be found in its answer, not the other way round; but no table, chain or rule too many.

use std::collections::BTreeSet;
use std::io;

use super::expr::{Compiled, Element, Set, compile};
use super::wire::{
    self, CHAIN_NAME, CHAIN_TABLE, DATA_VALUE, ELEM_FLAGS, ELEM_KEY, ELEMS_ELEMENTS, EXPR_DATA,
    EXPR_NAME, LOOKUP_SET, LOOKUP_SET_ID, NFPROTO_INET, RULE_CHAIN, RULE_EXPRESSIONS, RULE_TABLE,
    RULE_USERDATA, SET_NAME, SET_TABLE, TABLE_FLAGS, TABLE_NAME, TABLE_USERDATA,
};
use super::{State, TABLE, bases};
use crate::netlink::{Attrs, Netfilter, attr, attr_str, attrs};
use crate::plan::{Chain, Plan};

pub(super) const MSG_GETTABLE: u16 = 1;
pub(super) const MSG_GETCHAIN: u16 = 4;
const MSG_GETRULE: u16 = 7;
const MSG_GETSETELEM: u16 = 13;

/// Compares the kernel's table of ours with the plan.
pub(super) fn compare(netfilter: &Netfilter, plan: &Plan) -> io::Result<State> {
    let tables = netfilter.dump(MSG_GETTABLE, NFPROTO_INET, &Attrs::new())?;
    let Some(table) = tables.iter().find(|table| attr_str(table, TABLE_NAME) == Some(TABLE)) else {
        return Ok(State::Absent);
    };
    let wanted = wire::table(plan);
    // Kernels before 5.10 keep no userdata of tables; then only the rules can tell.
    if let Some(found) = attr(table, TABLE_USERDATA)
        && attr(wanted.as_bytes(), TABLE_USERDATA) != Some(found)
    {
        let what = "it was made with other settings than these: give the flags or variables that \
                    apply was given";
        return Ok(State::Different(what.to_owned()));
    }
    if attr(wanted.as_bytes(), TABLE_FLAGS) != attr(table, TABLE_FLAGS) {
        return Ok(State::Different("the table is dormant or owned by a process".to_owned()));
    }
    if let Some(difference) = chain_difference(netfilter, plan)? {
        return Ok(State::Different(difference));
    }
    Ok(rule_difference(netfilter, plan)?.map_or(State::Same, State::Different))
}

fn chain_difference(netfilter: &Netfilter, plan: &Plan) -> io::Result<Option<String>> {
    let found = netfilter.dump(MSG_GETCHAIN, NFPROTO_INET, &Attrs::new())?;
    let found: Vec<_> =
        found.iter().filter(|chain| attr_str(chain, CHAIN_TABLE) == Some(TABLE)).collect();
    let plain = |chain: &Chain| wire::plain_chain(chain.direction.chain_name());
    let wanted: Vec<Attrs> = bases(plan)
        .map(|base| wire::base_chain(TABLE, &base))
        .chain(plan.chains().map(plain))
        .collect();
    for chain in &wanted {
        let name = attr_str(chain.as_bytes(), CHAIN_NAME).unwrap_or_default();
        match found.iter().find(|found| attr_str(found, CHAIN_NAME) == Some(name)) {
            None => return Ok(Some(format!("chain {name} is missing"))),
            Some(found) if covers(chain.as_bytes(), found) => {}
            Some(_) => return Ok(Some(format!("chain {name} is hooked differently"))),
        }
    }
    let has_more = found.len() > wanted.len();
    Ok(has_more.then(|| "there are chains that are not netra's".to_owned()))
}

fn rule_difference(netfilter: &Netfilter, plan: &Plan) -> io::Result<Option<String>> {
    let filter = Attrs::new().str(RULE_TABLE, TABLE);
    let found = netfilter.dump(MSG_GETRULE, NFPROTO_INET, &filter)?;
    // Old kernels ignore the filter.
    let mut found: Vec<_> =
        found.into_iter().filter(|rule| attr_str(rule, RULE_TABLE) == Some(TABLE)).collect();
    // Rules of a chain are in order, chains are in none: take each from the front of its chain.
    for wanted in compile(plan) {
        let in_chain = |rule: &Vec<u8>| attr_str(rule, RULE_CHAIN) == Some(wanted.chain);
        let Some(index) = found.iter().position(in_chain) else {
            return Ok(Some(missing(&wanted)));
        };
        let rule = found.remove(index);
        if !is_same_rule(netfilter, &wanted, &rule)? {
            return Ok(Some(missing(&wanted)));
        }
    }
    Ok((!found.is_empty()).then(|| "there are rules that are not netra's".to_owned()))
}

fn missing(rule: &Compiled) -> String {
    format!("rule {} of chain {} is missing, changed or not in its place", rule.comment, rule.chain)
}

fn is_same_rule(netfilter: &Netfilter, wanted: &Compiled, found: &[u8]) -> io::Result<bool> {
    let attributes = wire::new_rule(TABLE, wanted);
    let bytes = attributes.as_bytes();
    if attr(bytes, RULE_USERDATA) != attr(found, RULE_USERDATA) {
        return Ok(false);
    }
    let exprs = |rule| attr(rule, RULE_EXPRESSIONS).map(|list| attrs(list).collect::<Vec<_>>());
    let (Some(wanted_exprs), Some(found_exprs)) = (exprs(bytes), exprs(found)) else {
        return Ok(false);
    };
    if wanted_exprs.len() != found_exprs.len() {
        return Ok(false);
    }
    let mut sets = wanted.sets.iter();
    for (wanted, found) in wanted_exprs.iter().zip(&found_exprs) {
        if attr(wanted.payload, EXPR_NAME) != attr(found.payload, EXPR_NAME) {
            return Ok(false);
        }
        let data = |expr| attr(expr, EXPR_DATA).unwrap_or_default();
        let (wanted_data, found_data) = (data(wanted.payload), data(found.payload));
        if attr_str(wanted.payload, EXPR_NAME) == Some("lookup") {
            let Some(set) = sets.next() else { return Ok(false) };
            if !is_same_lookup(netfilter, set, wanted_data, found_data)? {
                return Ok(false);
            }
        } else if !covers(wanted_data, found_data) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The kernel chose the name of the set; everything else must be as wanted.
fn is_same_lookup(
    netfilter: &Netfilter,
    set: &Set,
    wanted: &[u8],
    found: &[u8],
) -> io::Result<bool> {
    let rest = |kind: u16| kind != LOOKUP_SET && kind != LOOKUP_SET_ID;
    let is_covered = attrs(wanted)
        .filter(|wanted| rest(wanted.kind))
        .all(|wanted| attr(found, wanted.kind) == Some(wanted.payload));
    let invert = |attrs| attr(attrs, 5).is_some_and(|flags| flags.last() == Some(&1));
    let Some(name) = attr_str(found, LOOKUP_SET) else { return Ok(false) };
    if !is_covered || invert(wanted) != invert(found) {
        return Ok(false);
    }
    let wanted: BTreeSet<Element> = set.elements.iter().cloned().collect();
    Ok(read_elements(netfilter, name)? == wanted)
}

fn read_elements(netfilter: &Netfilter, set: &str) -> io::Result<BTreeSet<Element>> {
    let request = Attrs::new().str(SET_TABLE, TABLE).str(SET_NAME, set);
    let parts = netfilter.dump(MSG_GETSETELEM, NFPROTO_INET, &request)?;
    let element = |bytes: &[u8]| {
        let value = attr(attr(bytes, ELEM_KEY)?, DATA_VALUE)?.to_vec();
        let is_range_end =
            attr(bytes, ELEM_FLAGS).is_some_and(|flags| flags.last().is_some_and(|b| b & 1 == 1));
        Some(Element { value, is_range_end })
    };
    let lists = parts.iter().filter_map(|part| attr(part, ELEMS_ELEMENTS));
    Ok(lists.flat_map(|list| attrs(list).filter_map(|item| element(item.payload))).collect())
}

/// Whether every attribute of `wanted` is in `found`, with the same content.
fn covers(wanted: &[u8], found: &[u8]) -> bool {
    attrs(wanted).all(|wanted| match attr(found, wanted.kind) {
        Some(payload) if wanted.is_nested => covers(wanted.payload, payload),
        Some(payload) => payload == wanted.payload,
        None => false,
    })
}
