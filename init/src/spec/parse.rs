//! Parsers of single values. Each says what is allowed when it does not like the text.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use super::{Interface, Ipv6, Ports, Probability};
use crate::ranges::{AddrSet, PortSet, Range};

type Parsed<T> = std::result::Result<T, String>;

/// Entries per list. Keeps every list within one netlink attribute (64 KiB) at 36 bytes an end.
const LIST_ENTRIES_MAX: usize = 512;

/// Longest name of an interface: IFNAMSIZ without its NUL.
const INTERFACE_NAME_MAX: usize = 15;

/// The last uid and gid; 4294967295 means "unchanged" to the kernel.
const ID_MAX: u32 = u32::MAX - 1;

pub(super) fn port(text: &str) -> Parsed<u16> {
    let allowed = || "allowed are ports from 1 to 65535".to_owned();
    number(text).filter(|&port| port != 0).ok_or_else(allowed)
}

pub(super) fn ports(text: &str) -> Parsed<Ports> {
    match text {
        "*" => Ok(Ports::All),
        "none" => Ok(Ports::Only(PortSet::default())),
        "" => Err("allowed are *, none or a list of ports such as 80,8000:8999".to_owned()),
        _ => port_set(text).map(Ports::Only),
    }
}

/// A list of ports and ranges; empty text is the empty set.
pub(super) fn port_set(text: &str) -> Parsed<PortSet> {
    let allowed = "allowed are ports from 1 to 65535 and ranges a:b, separated by commas";
    let range = |entry: &str| {
        let (first, last) = entry.split_once(':').unwrap_or((entry, entry));
        let range = Range { first: port(first.trim()).ok()?, last: port(last.trim()).ok()? };
        (range.first <= range.last).then_some(range)
    };
    list(text, allowed, range).map(PortSet::new)
}

/// A list of addresses and CIDRs; empty text is the empty set.
pub(super) fn cidrs(text: &str) -> Parsed<AddrSet> {
    let allowed = "allowed are addresses and CIDRs such as 10.0.0.0/8 or fd00::/8, \
                   separated by commas";
    let cidr = |entry: &str| {
        let (addr, prefix_len) = match entry.split_once('/') {
            Some((addr, prefix_len)) => (addr, Some(number::<u8>(prefix_len)?)),
            None => (entry, None),
        };
        let addr: IpAddr = addr.parse().ok()?;
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        let prefix_len = prefix_len.unwrap_or(bits);
        (prefix_len <= bits).then_some((addr, prefix_len))
    };
    list(text, allowed, cidr).map(|cidrs| AddrSet::from_cidrs(&cidrs))
}

/// `*`, or a list of CIDRs that must not be empty: nothing at all is said by `--outbound-ports`.
pub(super) fn include_cidrs(text: &str) -> Parsed<Option<AddrSet>> {
    match text {
        "*" => Ok(None),
        "" => Err("allowed are * or a list of CIDRs such as 10.0.0.0/8,fd00::/8".to_owned()),
        _ => cidrs(text).map(Some),
    }
}

/// Decimal text from 0 to 1, kept in millionths. Text rather than `f64`, so that NaN, infinities
/// and rounding never come up.
pub(super) fn probability(text: &str) -> Parsed<Probability> {
    millionths(text)
        .map(|millionths| Probability { millionths })
        .ok_or_else(|| "allowed are decimals from 0 to 1, in steps of 0.000001".to_owned())
}

fn millionths(text: &str) -> Option<u32> {
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let kept = fraction.get(..6).unwrap_or(fraction);
    let millionths: u32 = format!("{kept:0<6}").parse().ok()?;
    let millionths = whole.checked_mul(Probability::ONE)?.checked_add(millionths)?;
    // 0.0000001 must not become "never", nor 1.0000001 "always".
    let has_more = fraction.get(6..).is_some_and(|rest| rest.bytes().any(|byte| byte != b'0'));
    let is_lost = has_more && (millionths == 0 || millionths == Probability::ONE);
    (millionths <= Probability::ONE && !is_lost).then_some(millionths)
}

pub(super) fn interfaces(text: &str) -> Parsed<BTreeSet<Interface>> {
    let allowed = "allowed are names of 1 to 15 letters, digits, '.', '_', '-', '@', \
                   with * or + at the end for a prefix, separated by commas";
    let interface = |entry: &str| {
        let name = entry.strip_suffix(['*', '+']);
        let is_prefix = name.is_some();
        let name = name.unwrap_or(entry);
        let is_word =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
        // A prefix needs room for at least one more byte.
        let length_max = INTERFACE_NAME_MAX - usize::from(is_prefix);
        let is_good = (1..=length_max).contains(&name.len()) && name.bytes().all(is_word);
        is_good.then(|| Interface { name: name.to_owned(), is_prefix })
    };
    list(text, allowed, interface).map(|names| names.into_iter().collect())
}

pub(super) fn ipv6(text: &str) -> Parsed<Ipv6> {
    match text {
        "auto" => Ok(Ipv6::Auto),
        "off" => Ok(Ipv6::Off),
        "require" => Ok(Ipv6::Require),
        _ => Err("allowed are auto, require and off".to_owned()),
    }
}

pub(super) fn uid(text: &str) -> Parsed<u32> {
    id(text, "user", "/etc/passwd")
}

pub(super) fn gid(text: &str) -> Parsed<u32> {
    id(text, "group", "/etc/group")
}

pub(super) fn uids(text: &str) -> Parsed<BTreeSet<u32>> {
    ids(text, uid)
}

pub(super) fn gids(text: &str) -> Parsed<BTreeSet<u32>> {
    ids(text, gid)
}

pub(super) fn include_gids(text: &str) -> Parsed<Option<BTreeSet<u32>>> {
    match text {
        "*" => Ok(None),
        "" => Err("allowed are * or a list of gids or group names".to_owned()),
        _ => gids(text).map(Some),
    }
}

/// Whole seconds from 1 to 3600.
pub fn parse_seconds(text: &str) -> Parsed<u32> {
    number(text)
        .filter(|seconds| (1..=3600).contains(seconds))
        .ok_or_else(|| "allowed are whole seconds from 1 to 3600".to_owned())
}

/// A number, or a name looked up in `file`, whose third field is the number.
fn id(text: &str, what: &str, file: &str) -> Parsed<u32> {
    let looks_like_number = |char: char| char.is_ascii_digit() || "+-".contains(char);
    if text.is_empty() || text.starts_with(looks_like_number) {
        return number(text).filter(|&id| id <= ID_MAX).ok_or_else(|| {
            format!("allowed are numbers from 0 to {ID_MAX} and names of a {what}")
        });
    }
    let entries = fs::read_to_string(file).unwrap_or_default();
    let named = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| number(fields.nth(1)?)).flatten()
    };
    entries.lines().find_map(named).ok_or_else(|| format!("there is no such {what} in {file}"))
}

fn ids(text: &str, parse: impl Fn(&str) -> Parsed<u32>) -> Parsed<BTreeSet<u32>> {
    if text.is_empty() {
        return Ok(BTreeSet::new());
    }
    let ids: BTreeSet<u32> =
        text.split(',').map(|entry| parse(entry.trim())).collect::<Parsed<_>>()?;
    if ids.len() > LIST_ENTRIES_MAX { Err(too_long()) } else { Ok(ids) }
}

fn list<T>(text: &str, allowed: &str, parse: impl Fn(&str) -> Option<T>) -> Parsed<Vec<T>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let entry = |entry: &str| parse(entry.trim()).ok_or_else(|| allowed.to_owned());
    let entries = text.split(',').map(entry).collect::<Parsed<Vec<T>>>()?;
    if entries.len() > LIST_ENTRIES_MAX { Err(too_long()) } else { Ok(entries) }
}

fn too_long() -> String {
    format!("allowed are at most {LIST_ENTRIES_MAX} entries")
}

/// Digits only: `str::parse` would also take a leading plus.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::*;

    const PORT: &[&str] = &["0", "65536", "-1", "+80", "http", "80 81", "1e3", "0x50"];
    const PORTS: &[&str] =
        &["80,,81", "90:80", "80:", ":80", "0", "65536", "80-90", "a", ",", "80;81"];
    const CIDRS: &[&str] =
        &["10.0.0.0/33", "::/129", "10.0.0", "host", "10.0.0.0/", "/8", "1.2.3.4/-1", ","];
    const SHARE: &[&str] =
        &["1.5", "-0.1", "NaN", "inf", "", "1e-3", "0.0000001", "1.0000001", ".", "+1", "50%", "2"];
    const ID: &[&str] = &["", "-1", "4294967295", "99999999999", "1.5", "no-such-name-here"];
    const IDS: &[&str] = &["1,", "-1", "no-such-name-here", "4294967295"];
    const NAMES: &[&str] =
        &["a b", "eth0,", "sixteen-letters-", "fifteen-letter-*", "eth0/1", "\"", "*", "eth0;"];

    const WRONG: &[(&str, &[&str], &[&str])] = &[
        ("sidecar-port", PORT, &[""]),
        ("inbound-port", PORT, &[]),
        ("outbound-port", PORT, &[]),
        ("own-ports", PORTS, &["*"]),
        ("inbound-ports", PORTS, &["", "*,80", "all"]),
        ("outbound-ports", PORTS, &["", "*,80", "all"]),
        ("exclude-inbound-ports", PORTS, &["*"]),
        ("exclude-outbound-ports", PORTS, &["*"]),
        ("include-outbound-cidrs", CIDRS, &[""]),
        ("exclude-outbound-cidrs", CIDRS, &["*"]),
        ("exclude-inbound-cidrs", CIDRS, &["*"]),
        ("inbound-probability", SHARE, &[]),
        ("outbound-probability", SHARE, &[]),
        ("sidecar-user-id", ID, &[]),
        ("sidecar-group-id", ID, &[]),
        ("exclude-uids", IDS, &[]),
        ("exclude-gids", IDS, &[]),
        ("include-gids", IDS, &[""]),
        ("exclude-interfaces", NAMES, &["é"]),
        ("reroute-interfaces", NAMES, &[]),
        ("drop-invalid", &["maybe"], &[]),
        ("ipv6", &["on", "", "AUTO", "yes"], &[]),
        ("intercept-self", &["maybe", "2", ""], &[]),
        ("intercept-dns-tcp", &["maybe"], &[]),
        ("allow-root-uid", &["maybe"], &[]),
    ];

    /// Each flag with values it must refuse; the error names flag, value and what is allowed.
    #[test]
    fn wrong_values_name_themselves() {
        for (flag, values, more) in WRONG {
            for value in values.iter().chain(*more) {
                let error = spec(&[(flag, value)]).expect_err(&format!("--{flag} {value}"));
                let start = format!("--{flag}: bad value \"{value}\": ");
                assert!(error.message.starts_with(&start), "{error}");
                assert!(error.message.len() > start.len(), "{error} does not say what is allowed");
                assert_eq!(error.kind.exit_code(), 2);
            }
        }
    }

    #[test]
    fn good_values() {
        assert_eq!(port("65535"), Ok(65535));
        assert_eq!(ports("none"), Ok(Ports::Only(PortSet::default())));
        assert_eq!(ports("80, 443,8000:9000"), port_set("8000:9000,80,443").map(Ports::Only));
        assert_eq!(uid("root"), Ok(0));
        assert_eq!(uid("4294967294"), Ok(4_294_967_294));
        assert_eq!(gid("root"), Ok(0));
        let names = interfaces("cni*,veth+,eth0").unwrap();
        assert_eq!(names.iter().filter(|name| name.is_prefix).count(), 2);
        assert!(include_cidrs("*").unwrap().is_none());
    }

    #[test]
    fn probabilities_are_exact() {
        for (text, millionths) in [
            ("0", 0),
            ("0.0", 0),
            ("1", 1_000_000),
            ("1.0000000", 1_000_000),
            ("0.5", 500_000),
            (".25", 250_000),
            ("0.000001", 1),
            ("0.33333333", 333_333),
            ("00.1", 100_000),
        ] {
            assert_eq!(probability(text), Ok(Probability { millionths }), "{text}");
        }
    }

    #[test]
    fn lists_have_a_limit() {
        let list = |count: usize| (1..=count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert!(port_set(&list(LIST_ENTRIES_MAX)).is_ok());
        assert!(port_set(&list(LIST_ENTRIES_MAX + 1)).is_err());
        assert!(uids(&list(LIST_ENTRIES_MAX + 1)).is_err());
    }
}
