//! Flags of netra-init that it would not take: its container would end with 2 again and again, and the
//! pod never start. netra-init is a program of its own, so that what its flags are is written here
//! again; tests compare both.

use super::warn::near;
use std::{collections::BTreeSet, net::IpAddr};

/// What the value of a flag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// `true` or `false`; nothing is `true`.
    Switch,
    Port,
    /// Ports and ranges of them; nothing is none.
    Ports,
    /// The same, or `*` or `none`.
    AllPorts,
    Cidrs,
    AllCidrs,
    /// Names of interfaces, or how they begin.
    Interfaces,
    /// A number or a name, which is known where netra-init runs.
    Id,
    Ids,
    AllIds,
    /// From 0 to 1.
    Share,
    /// Whole seconds from 1 to 3600.
    Seconds,
    Word(&'static [&'static str]),
    Any,
}

const FLAGS: &[(&str, Value)] = &[
    ("sidecar-port", Value::Port),
    ("port", Value::Port),
    ("inbound-port", Value::Port),
    ("outbound-port", Value::Port),
    ("own-ports", Value::Ports),
    ("sidecar-user-id", Value::Id),
    ("uid", Value::Id),
    ("sidecar-group-id", Value::Id),
    ("gid", Value::Id),
    ("allow-root-uid", Value::Switch),
    ("exclude-interfaces", Value::Interfaces),
    ("drop-invalid", Value::Switch),
    ("close-wait-timeout-seconds", Value::Seconds),
    ("ipv6", Value::Word(&["auto", "require", "off"])),
    ("mode", Value::Word(&["redirect", "none"])),
    ("inbound-ports", Value::AllPorts),
    ("inbound-intercept-ports", Value::AllPorts),
    ("exclude-inbound-ports", Value::Ports),
    ("exclude-inbound-cidrs", Value::Cidrs),
    ("reroute-interfaces", Value::Interfaces),
    ("reroute-virtual-interfaces", Value::Interfaces),
    ("inbound-probability", Value::Share),
    ("outbound-ports", Value::AllPorts),
    ("outbound-intercept-ports", Value::AllPorts),
    ("exclude-outbound-ports", Value::Ports),
    ("include-outbound-cidrs", Value::AllCidrs),
    ("exclude-outbound-cidrs", Value::Cidrs),
    ("outbound-probability", Value::Share),
    ("exclude-uids", Value::Ids),
    ("exclude-gids", Value::Ids),
    ("include-gids", Value::AllIds),
    ("intercept-dns-tcp", Value::Switch),
    ("intercept-self", Value::Switch),
    ("backend", Value::Word(&["auto", "nft-native", "iptables-nft", "iptables-legacy"])),
    ("reconcile", Value::Switch),
    ("guardrails", Value::Switch),
    ("netns", Value::Any),
    ("lock-wait-seconds", Value::Seconds),
    ("verify-timeout-seconds", Value::Seconds),
    ("log-format", Value::Word(&["text", "json"])),
    ("dry-run", Value::Switch),
];

/// What netra-init would say of these arguments, a line each.
pub(super) fn wrong(args: &[String]) -> Vec<String> {
    let (mut lines, mut seen) = (Vec::new(), BTreeSet::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(named) = arg.strip_prefix("--") else {
            lines.push(format!("{arg:?} is no flag"));
            continue;
        };
        let (name, mut text) = match named.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (named, None),
        };
        let Some((_, value)) = FLAGS.iter().find(|(known, _)| *known == name) else {
            let known = FLAGS.iter().map(|(known, _)| *known);
            lines.push(match near(name, known) {
                Some(known) => {
                    format!("--{name} is no flag: --{known} is; is it spelled wrong?")
                }
                None => format!("--{name} is no flag: docs/SETTINGS-INIT.md lists them"),
            });
            continue;
        };
        if *value == Value::Switch {
            text = text.or(Some("true"));
        }
        match text.or_else(|| args.next().map(String::as_str)) {
            None => lines.push(format!("--{name} has no value")),
            Some(text) => match allowed(*value, text.trim()) {
                Some(allowed) => lines.push(format!("--{name}={text}: allowed are {allowed}")),
                None if !seen.insert(name) => lines.push(format!("--{name} is given twice")),
                None => {}
            },
        }
    }
    lines
}

/// What is allowed, where this is not.
fn allowed(value: Value, text: &str) -> Option<String> {
    let list =
        |is_good: fn(&str) -> bool| text.is_empty() || text.split(',').map(str::trim).all(is_good);
    let (is_good, allowed) = match value {
        Value::Any => return None,
        Value::Switch => {
            let words = ["true", "1", "yes", "on", "false", "0", "no", "off"];
            (words.contains(&&*text.to_ascii_lowercase()), "true and false")
        }
        Value::Port => (is_port(text), "ports from 1 to 65535"),
        Value::Ports => (list(is_ports), "ports from 1 to 65535 and ranges a:b, by commas"),
        Value::AllPorts => {
            let is_good = matches!(text, "*" | "none") || !text.is_empty() && list(is_ports);
            (is_good, "*, none or a list of ports such as 80,8000:8999")
        }
        Value::Cidrs => (list(is_cidr), "addresses and CIDRs such as 10.0.0.0/8, by commas"),
        Value::AllCidrs => {
            let is_good = text == "*" || !text.is_empty() && list(is_cidr);
            (is_good, "* or a list of CIDRs such as 10.0.0.0/8,fd00::/8")
        }
        Value::Interfaces => {
            (list(is_interface), "names of interfaces, with * at the end for a prefix, by commas")
        }
        Value::Id => (is_id(text), "numbers and names"),
        Value::Ids => (list(is_id), "numbers and names, by commas"),
        Value::AllIds => {
            let is_good = text == "*" || !text.is_empty() && list(is_id);
            (is_good, "* or a list of numbers and names")
        }
        Value::Share => (is_share(text), "decimals from 0 to 1, in steps of 0.000001"),
        Value::Seconds => (
            digits(text).is_some_and(|it| (1..=3600).contains(&it)),
            "whole seconds from 1 to 3600",
        ),
        Value::Word(words) => return (!words.contains(&text)).then(|| words.join(", ")),
    };
    (!is_good).then(|| allowed.to_owned())
}

/// Digits only.
fn digits(text: &str) -> Option<u32> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

fn is_port(text: &str) -> bool {
    digits(text).is_some_and(|port| (1..=65535).contains(&port))
}

fn is_ports(text: &str) -> bool {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let (first, last) = (first.trim(), last.trim());
    is_port(first) && is_port(last) && digits(first) <= digits(last)
}

fn is_cidr(text: &str) -> bool {
    let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| digits(length).is_some_and(|length| length <= most))
}

fn is_interface(text: &str) -> bool {
    let name = text.strip_suffix(['*', '+']);
    let most = if name.is_some() { 14 } else { 15 };
    let name = name.unwrap_or(text);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (1..=most).contains(&name.len()) && name.bytes().all(is_word)
}

fn is_id(text: &str) -> bool {
    let is_name =
        !text.is_empty() && !text.starts_with(|it: char| it.is_ascii_digit() || "+-".contains(it));
    is_name || digits(text).is_some_and(|id| id < u32::MAX)
}

fn is_share(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = is_digits(whole) && is_digits(fraction) && whole.len() + fraction.len() > 0;
    is_number
        && text.parse::<f64>().is_ok_and(|share| share == 0.0 || (1e-6..=1.0).contains(&share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(args: &[&str]) -> Vec<String> {
        wrong(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    /// The document is made of netra-init's own table, by a test of it.
    #[test]
    fn the_flags_are_those_of_netra_init() {
        let document = include_str!("../../docs/SETTINGS-INIT.md");
        let cells =
            document.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let theirs: BTreeSet<&str> =
            cells.flat_map(|cell| cell.split('`').filter_map(|it| it.strip_prefix("--"))).collect();
        let ours: BTreeSet<&str> = FLAGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), FLAGS.len());
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_allowed() {
        for (args, line) in [
            (
                &["--exclude-inbound-port=22"][..],
                "--exclude-inbound-port is no flag: --exclude-inbound-ports is; is it spelled wrong?",
            ),
            (&["--fast"], "--fast is no flag: docs/SETTINGS-INIT.md lists them"),
            (&["exclude-inbound-ports=22"], "\"exclude-inbound-ports=22\" is no flag"),
            (&["cleanup"], "\"cleanup\" is no flag"),
            (
                &["--exclude-inbound-ports=ssh"],
                "--exclude-inbound-ports=ssh: allowed are ports from 1 to 65535 and ranges a:b, by commas",
            ),
            (&["--exclude-inbound-ports"], "--exclude-inbound-ports has no value"),
            (&["--mode", "of"], "--mode=of: allowed are redirect, none"),
            (&["--drop-invalid=maybe"], "--drop-invalid=maybe: allowed are true and false"),
            (&["--uid=1", "--uid=2"], "--uid is given twice"),
        ] {
            assert_eq!(told(args), [line], "{args:?}");
        }
        assert_eq!(told(&["--drop-invalid", "--mode", "none", "--uid=7"]), [""; 0]);
    }
}
