//! Compiled rules as netlink messages. The numbers are those of `linux/netfilter/nf_tables.h`.

use super::expr::{Base, Compiled, Expr, Meta, Op, Set, compile, guard};
use super::{Hook, TABLE, bases, table_comment};
use crate::netlink::{Attrs, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_NONREC};
use crate::plan::Plan;

/// Family `inet`: both IPv4 and IPv6.
pub(super) const NFPROTO_INET: u8 = 1;

const MSG_NEWTABLE: u16 = 0;
const MSG_DELTABLE: u16 = 2;
const MSG_NEWCHAIN: u16 = 3;
const MSG_DELCHAIN: u16 = 5;
const MSG_NEWRULE: u16 = 6;
const MSG_NEWSET: u16 = 9;
const MSG_NEWSETELEM: u16 = 12;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
pub(super) const TABLE_USERDATA: u16 = 6;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;
pub(super) const EXPR_NAME: u16 = 1;
pub(super) const EXPR_DATA: u16 = 2;
pub(super) const LOOKUP_SET: u16 = 1;
pub(super) const LOOKUP_SET_ID: u16 = 4;
pub(super) const SET_TABLE: u16 = 1;
pub(super) const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const ELEMS_TABLE: u16 = 1;
const ELEMS_SET: u16 = 2;
pub(super) const ELEMS_ELEMENTS: u16 = 3;
const ELEMS_SET_ID: u16 = 4;
pub(super) const ELEM_KEY: u16 = 1;
pub(super) const ELEM_FLAGS: u16 = 3;
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const LIST_ELEM: u16 = 1;

const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const VERDICT_DROP: i32 = 0;
const VERDICT_ACCEPT: u32 = 1;
const VERDICT_JUMP: i32 = -3;
const VERDICT_RETURN: i32 = -5;
const SET_ANONYMOUS_CONSTANT: u32 = 1 | 2;
const SET_INTERVAL: u32 = 4;
const ELEM_INTERVAL_END: u32 = 1;
const REDIRECT_TO_PORT: u32 = 2;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
/// The table goes when the socket that made it does. Linux 5.12.
const TABLE_OWNED: u32 = 2;
const GUARD_TABLE: &str = "netra-guardrails";
/// The kernel gives each set its own name from this pattern.
const SET_NAME_PATTERN: &str = "__set%d";

/// The transaction that puts the plan in place whatever was there: the table is made if missing,
/// so that it can be deleted, so that it can be made anew.
pub(super) fn transaction(plan: &Plan) -> Vec<Message> {
    let rules = compile(plan);
    let mut messages = deletion();
    messages.push(message("add table", MSG_NEWTABLE, NLM_F_CREATE, table(plan)));
    for base in bases(plan) {
        let attrs = base_chain(TABLE, &base);
        messages.push(message("add base chain", MSG_NEWCHAIN, NLM_F_CREATE, attrs));
    }
    for chain in plan.chains() {
        let attrs = plain_chain(chain.direction.chain_name());
        messages.push(message("add chain", MSG_NEWCHAIN, NLM_F_CREATE, attrs));
    }
    for rule in &rules {
        for set in &rule.sets {
            messages.push(message("add set", MSG_NEWSET, NLM_F_CREATE, new_set(set)));
            messages.push(message("add elements", MSG_NEWSETELEM, NLM_F_CREATE, elements(set)));
        }
        let label = format!("add rule {}", rule.comment);
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        messages.push(message(&label, MSG_NEWRULE, flags, new_rule(TABLE, rule)));
    }
    messages
}

/// The request for a table that is not there yet and goes when the socket that makes it does.
pub(super) fn owned_table(name: &str) -> Message {
    let table = Attrs::new().str(TABLE_NAME, name).u32(TABLE_FLAGS, TABLE_OWNED);
    message(&format!("add {name}"), MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, table)
}

/// The transaction that lets no connection begin until the socket that sends it is closed.
pub(super) fn guardrails() -> Vec<Message> {
    let mut messages = vec![owned_table(GUARD_TABLE)];
    let chains = [("input", Hook::Input, Meta::InName), ("output", Hook::Output, Meta::OutName)];
    for (name, hook, interface) in chains {
        let base = super::Base { name, kind: "filter", hook, priority: 0, priority_text: "filter" };
        let chain = base_chain(GUARD_TABLE, &base);
        messages.push(message("add guardrails", MSG_NEWCHAIN, NLM_F_CREATE, chain));
        let rule = new_rule(GUARD_TABLE, &guard(name, interface));
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        messages.push(message("add guardrails", MSG_NEWRULE, flags, rule));
    }
    messages
}

/// The transaction that leaves no table of ours, whether there was one or not.
pub(super) fn deletion() -> Vec<Message> {
    let table = Attrs::new().str(TABLE_NAME, TABLE);
    vec![
        message("make table", MSG_NEWTABLE, NLM_F_CREATE, table.clone()),
        message("delete table", MSG_DELTABLE, 0, table),
    ]
}

/// Requests that remove chains and their table. Each fails if it is in use, and stands alone.
pub(super) fn removals(family: u8, table: &str, chains: &[&str]) -> Vec<Message> {
    let removal = |kind, attrs| Message {
        label: "remove if empty".to_owned(),
        kind,
        flags: NLM_F_NONREC,
        family,
        attrs,
    };
    let chain = |name: &&str| {
        let attrs = Attrs::new().str(CHAIN_TABLE, table).str(CHAIN_NAME, name);
        removal(MSG_DELCHAIN, attrs)
    };
    let table = removal(MSG_DELTABLE, Attrs::new().str(TABLE_NAME, table));
    chains.iter().map(chain).chain([table]).collect()
}

fn message(label: &str, kind: u16, flags: u16, attrs: Attrs) -> Message {
    Message { label: label.to_owned(), kind, flags, family: NFPROTO_INET, attrs }
}

pub(super) fn table(plan: &Plan) -> Attrs {
    Attrs::new()
        .str(TABLE_NAME, TABLE)
        .u32(TABLE_FLAGS, 0)
        .bytes(TABLE_USERDATA, &comment_userdata(&table_comment(plan)))
}

pub(super) fn base_chain(table: &str, base: &super::Base) -> Attrs {
    let priority = u32::from_ne_bytes(base.priority.to_ne_bytes());
    let hook = Attrs::new().u32(HOOK_NUMBER, base.hook as u32).u32(HOOK_PRIORITY, priority);
    Attrs::new()
        .str(CHAIN_TABLE, table)
        .str(CHAIN_NAME, base.name)
        .nest(CHAIN_HOOK, &hook)
        .u32(CHAIN_POLICY, VERDICT_ACCEPT)
        .str(CHAIN_TYPE, base.kind)
}

pub(super) fn plain_chain(name: &str) -> Attrs {
    Attrs::new().str(CHAIN_TABLE, TABLE).str(CHAIN_NAME, name)
}

pub(super) fn new_rule(table: &str, rule: &Compiled) -> Attrs {
    let exprs = rule.exprs.iter().map(expr);
    let list = exprs.fold(Attrs::new(), |list, expr| list.nest(LIST_ELEM, &expr));
    Attrs::new()
        .str(RULE_TABLE, table)
        .str(RULE_CHAIN, rule.chain)
        .nest(RULE_EXPRESSIONS, &list)
        .bytes(RULE_USERDATA, &comment_userdata(rule.comment))
}

fn new_set(set: &Set) -> Attrs {
    let interval = if set.has_ranges { SET_INTERVAL } else { 0 };
    let size = u32::try_from(set.elements.len()).unwrap_or(u32::MAX);
    // Byte order for `nft list`: type 0, length 4, 1 for host and 2 for big endian.
    let byte_order: u32 = if set.key.is_host_endian() { 1 } else { 2 };
    let mut userdata = vec![0, 4];
    userdata.extend(byte_order.to_ne_bytes());
    Attrs::new()
        .str(SET_TABLE, TABLE)
        .str(SET_NAME, SET_NAME_PATTERN)
        .u32(SET_FLAGS, SET_ANONYMOUS_CONSTANT | interval)
        .u32(SET_KEY_TYPE, set.key as u32)
        .u32(SET_KEY_LEN, set.key.len())
        .u32(SET_ID, set.number)
        .nest(SET_DESC, &Attrs::new().u32(1, size))
        .bytes(SET_USERDATA, &userdata)
}

fn elements(set: &Set) -> Attrs {
    let list = set.elements.iter().fold(Attrs::new(), |list, element| {
        let key = Attrs::new().bytes(DATA_VALUE, &element.value);
        let mut attrs = Attrs::new();
        if element.is_range_end {
            attrs = attrs.u32(ELEM_FLAGS, ELEM_INTERVAL_END);
        }
        list.nest(LIST_ELEM, &attrs.nest(ELEM_KEY, &key))
    });
    Attrs::new()
        .str(ELEMS_TABLE, TABLE)
        .str(ELEMS_SET, SET_NAME_PATTERN)
        .u32(ELEMS_SET_ID, set.number)
        .nest(ELEMS_ELEMENTS, &list)
}

/// Comments are userdata only `nft` reads: type 0, length, text with NUL.
fn comment_userdata(comment: &str) -> Vec<u8> {
    let len = u8::try_from(comment.len() + 1).expect("comments are short constants");
    [&[0, len], comment.as_bytes(), &[0]].concat()
}

fn expr(expr: &Expr) -> Attrs {
    let (name, data) = match expr {
        Expr::Meta(key) => ("meta", meta(*key)),
        Expr::Payload { base, offset, len } => ("payload", payload(*base, *offset, *len)),
        Expr::Mask(mask) => ("bitwise", bitwise(mask)),
        Expr::Compare(op, value) => ("cmp", compare(*op, value)),
        Expr::Lookup { set, is_inverted } => ("lookup", lookup(*set, *is_inverted)),
        Expr::DestinationType => ("fib", destination_type()),
        Expr::ConntrackState => ("ct", Attrs::new().u32(1, REGISTER).u32(2, 0)),
        Expr::Random { modulus } => ("numgen", numgen(*modulus)),
        Expr::HostToNetwork => ("byteorder", host_to_network()),
        Expr::Port(port) => {
            let value = Attrs::new().bytes(DATA_VALUE, &port.to_be_bytes());
            ("immediate", Attrs::new().u32(1, REGISTER).nest(2, &value))
        }
        Expr::Redirect => ("redir", Attrs::new().u32(1, REGISTER).u32(3, REDIRECT_TO_PORT)),
        Expr::Drop => ("immediate", verdict(VERDICT_DROP, None)),
        Expr::Return => ("immediate", verdict(VERDICT_RETURN, None)),
        Expr::Jump(chain) => ("immediate", verdict(VERDICT_JUMP, Some(chain))),
    };
    Attrs::new().str(EXPR_NAME, name).nest(EXPR_DATA, &data)
}

fn meta(key: Meta) -> Attrs {
    Attrs::new().u32(2, key as u32).u32(1, REGISTER)
}

fn payload(base: Base, offset: u32, len: u32) -> Attrs {
    Attrs::new().u32(1, REGISTER).u32(2, base as u32).u32(3, offset).u32(4, len)
}

fn destination_type() -> Attrs {
    Attrs::new().u32(1, REGISTER).u32(2, FIB_RESULT_ADDRESS_TYPE).u32(3, FIB_DESTINATION)
}

fn bitwise(mask: &[u8]) -> Attrs {
    let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    let value = |bytes: &[u8]| Attrs::new().bytes(DATA_VALUE, bytes);
    Attrs::new()
        .u32(1, REGISTER)
        .u32(2, REGISTER)
        .u32(3, len)
        .nest(4, &value(mask))
        .nest(5, &value(&vec![0; mask.len()]))
}

fn compare(op: Op, value: &[u8]) -> Attrs {
    let value = Attrs::new().bytes(DATA_VALUE, value);
    Attrs::new().u32(1, REGISTER).u32(2, op as u32).nest(3, &value)
}

fn lookup(set: u32, is_inverted: bool) -> Attrs {
    let attrs =
        Attrs::new().str(LOOKUP_SET, SET_NAME_PATTERN).u32(2, REGISTER).u32(LOOKUP_SET_ID, set);
    if is_inverted { attrs.u32(5, 1) } else { attrs }
}

fn numgen(modulus: u32) -> Attrs {
    let random = 1;
    Attrs::new().u32(1, REGISTER).u32(2, modulus).u32(3, random).u32(4, 0)
}

fn host_to_network() -> Attrs {
    let (hton, bytes) = (1, 4);
    Attrs::new().u32(1, REGISTER).u32(2, REGISTER).u32(3, hton).u32(4, bytes).u32(5, bytes)
}

fn verdict(code: i32, chain: Option<&str>) -> Attrs {
    let mut verdict = Attrs::new().u32(1, u32::from_ne_bytes(code.to_ne_bytes()));
    if let Some(chain) = chain {
        verdict = verdict.str(2, chain);
    }
    let data = Attrs::new().nest(DATA_VERDICT, &verdict);
    Attrs::new().u32(1, REGISTER_VERDICT).nest(2, &data)
}
