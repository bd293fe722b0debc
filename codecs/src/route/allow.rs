//! Which places routes may name, and whose routes are followed: allow-lists of names and networks,
//! and the addresses that no list can allow.

use super::{HOST_BYTES_MAX, Target, parse_port, split_port};
use crate::network::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Entries of a list, at most: each routed request looks at all of them.
const ENTRIES_MAX: usize = 64;

/// The networks that are called `private` in a list: those in which clusters live.
const PRIVATE: [&str; 5] =
    ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// Places: names, networks and ports.
///
/// ```text
/// *                      everything
/// private                the private networks of IPv4 and IPv6
/// shop.svc               a name, as a route writes it
/// *.shop.svc             every name that ends so
/// 10.0.0.8, [fd00::8]    an address
/// 10.0.0.0/8, fd00::/8   a network
/// shop.svc:8080          each of them with a port
/// none                   nothing, as the only entry
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Box<[Entry]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    place: Place,
    /// None is every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Everything,
    Name(Box<str>),
    /// With its dot.
    Suffix(Box<str>),
    Network(Network),
}

impl AllowList {
    /// Reads entries with commas between; `none` is the empty list.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::default());
        }
        let mut entries = Vec::new();
        for part in text.split(',').map(str::trim) {
            match part {
                "private" => {
                    for network in PRIVATE {
                        entries.push(Entry::parse(network)?);
                    }
                }
                part => entries.push(Entry::parse(part)?),
            }
        }
        (entries.len() <= ENTRIES_MAX).then(|| Self(entries.into()))
    }

    /// Whether every entry is a network or everything, without a port: a list that people can be
    /// compared with who only have an address.
    pub fn is_of_addresses(&self) -> bool {
        self.0.iter().all(|entry| {
            entry.port.is_none() && matches!(entry.place, Place::Network(_) | Place::Everything)
        })
    }

    /// Whether the list has the target by the name that it is written with.
    pub fn has_name(&self, target: &Target) -> bool {
        let host = target.host().trim_end_matches('.');
        self.0.iter().any(|entry| {
            let is_there = match &entry.place {
                Place::Everything => true,
                Place::Name(name) => name.eq_ignore_ascii_case(host),
                Place::Suffix(suffix) => {
                    let at = host.len().checked_sub(suffix.len()).filter(|at| *at > 0);
                    let end = at.and_then(|at| host.get(at..));
                    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
                }
                Place::Network(_) => false,
            };
            is_there && entry.port.is_none_or(|port| port == target.port)
        })
    }

    /// Whether the list has this address.
    pub fn has_address(&self, ip: IpAddr, port: u16) -> bool {
        self.0.iter().any(|entry| {
            let is_there = match &entry.place {
                Place::Everything => true,
                Place::Network(network) => network.has(ip),
                Place::Name(_) | Place::Suffix(_) => false,
            };
            is_there && entry.port.is_none_or(|allowed| allowed == port)
        })
    }

    /// Whether an address may be in the list though the target's name is not: only then is it of
    /// use to ask for the addresses of a name.
    fn may_have_address(&self, port: u16) -> bool {
        self.0.iter().any(|entry| {
            matches!(entry.place, Place::Network(_)) && entry.port.is_none_or(|it| it == port)
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        // An IPv6 network or address without brackets has no port.
        let is_bare_v6 = !text.starts_with('[') && text.matches(':').count() > 1;
        if is_bare_v6 {
            return Some(Self { place: Place::Network(Network::parse(text)?), port: None });
        }
        let (place, port) = split_port(text.as_bytes());
        let place = str::from_utf8(place).ok()?;
        let port = match port {
            None => None,
            Some(digits) => Some(parse_port(digits)?),
        };
        Some(Self { place: Place::parse(place)?, port })
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everything);
        }
        if text.starts_with('[') || text.contains('/') || text.parse::<IpAddr>().is_ok() {
            return Network::parse(text).map(Self::Network);
        }
        let is_name = |name: &str| {
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let is_edged = name.starts_with('.') || name.ends_with('.');
            !name.is_empty()
                && name.len() <= HOST_BYTES_MAX
                && !is_edged
                && name.bytes().all(is_good)
        };
        match text.strip_prefix('*') {
            Some(suffix) => {
                let name = suffix.strip_prefix('.').filter(|name| is_name(name));
                name.map(|_| Self::Suffix(suffix.into()))
            }
            // The two words stand alone.
            None if matches!(text, "private" | "none") => None,
            None => is_name(text).then(|| Self::Name(text.into())),
        }
    }
}

/// Why a route is not followed. The request goes where it would go without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Whoever sent it is not in the list of sources.
    Source,
    /// Another request had the same id and another route before.
    RequestId,
    /// The list of targets does not have where it leads.
    Target,
    /// It leads to an address that no list can allow.
    Address,
    /// It leads to a port of netra's own.
    OwnPort,
    /// The connection is one of HTTP/2, whose requests all go where it goes.
    Http2,
}

impl Refusal {
    /// Every reason, by its index.
    pub const ALL: [Self; 6] =
        [Self::Source, Self::RequestId, Self::Target, Self::Address, Self::OwnPort, Self::Http2];

    /// The value of the metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::RequestId => "request_id",
            Self::Target => "target",
            Self::Address => "address",
            Self::OwnPort => "own_port",
            Self::Http2 => "http2",
        }
    }
}

/// Which routes are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Where routes may lead, as far as no address is forbidden.
    pub targets: AllowList,
    /// From which addresses inbound requests may bring routes.
    pub sources: AllowList,
    /// Ports that netra itself listens on.
    pub own_ports: Box<[u16]>,
}

impl RoutePolicy {
    /// What can be said about a target before its name is looked up.
    pub fn refuses(&self, target: &Target) -> Option<Refusal> {
        match target.ip() {
            Some(ip) => self.refuses_address(target, ip),
            None => {
                let may_be = self.targets.has_name(target);
                let may_be = may_be || self.targets.may_have_address(target.port);
                (!may_be).then_some(Refusal::Target)
            }
        }
    }

    /// What there is against this address of a target.
    pub fn refuses_address(&self, target: &Target, ip: IpAddr) -> Option<Refusal> {
        if is_forbidden(ip) {
            return Some(Refusal::Address);
        }
        let is_there = target.ip().is_none() && self.targets.has_name(target);
        let is_there = is_there || self.targets.has_address(ip, target.port);
        (!is_there).then_some(Refusal::Target)
    }

    /// Whether an inbound request from this address may bring a route.
    pub fn trusts(&self, source: Option<IpAddr>) -> bool {
        source.is_some_and(|ip| self.sources.has_address(ip, 0))
    }
}

/// Addresses that no route may lead to, whatever a list says: this host alone, the link, groups,
/// and where clouds keep their metadata and credentials.
pub fn is_forbidden(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => is_forbidden_v4(v4),
        IpAddr::V6(v6) => is_forbidden_v6(v6),
    }
}

/// Of providers that do not keep to the link: Azure, Oracle, Alibaba.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(100, 100, 100, 200),
];

fn is_forbidden_v4(ip: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is this host to a kernel that is asked to connect to it.
    ip.octets()[0] == 0
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || METADATA_V4.contains(&ip)
}

fn is_forbidden_v6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    // AWS keeps all its services of a host in fd00:ec2::/32; Google and Scaleway have one address.
    let is_metadata = parts[..2] == [0xfd00, 0x0ec2]
        || parts == [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254]
        || parts == [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042];
    // An IPv4 address within: of old (::/96, which has :: and ::1 too), by a translator
    // (64:ff9b::/96), by 6to4 (2002::/16).
    let inside = |at: usize| {
        let [a, b] = parts[at].to_be_bytes();
        let [c, d] = parts[at + 1].to_be_bytes();
        is_forbidden_v4(Ipv4Addr::new(a, b, c, d))
    };
    ip.is_multicast()
        || ip.is_unicast_link_local()
        || is_metadata
        || parts[..6] == [0; 6]
        || (parts[..6] == [0x0064, 0xff9b, 0, 0, 0, 0] && inside(6))
        || (parts[0] == 0x2002 && inside(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> AllowList {
        AllowList::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    fn target(text: &str) -> Target {
        Target::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn lists_are_read_or_refused() {
        for text in [
            "*",
            "none",
            "private",
            "shop",
            "shop.svc:8080",
            "*.svc",
            "*.svc:80, 10.0.0.0/8",
            "10.0.0.8",
            "10.0.0.8:80",
            "10.0.0.0/8:80",
            "fd00::/8",
            "fd00::8",
            "[fd00::8]",
            "[fd00::8]:80",
            "[fd00::]/8:80",
            "0.0.0.0/0",
            "::/0",
        ] {
            assert!(AllowList::parse(text).is_some(), "{text}");
        }
        let many = ["shop"; ENTRIES_MAX + 1].join(",");
        for text in [
            "",
            ",",
            "shop,",
            "none,shop",
            "*shop",
            "**",
            "*.",
            ".svc",
            "svc.",
            "a b",
            "shop:0",
            "shop:x",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "fd00::/129",
            "[shop]",
            "[10.0.0.1]",
            "[fd00::8",
            "private:80",
            "http://shop",
            &many,
        ] {
            assert!(AllowList::parse(text).is_none(), "{text}");
        }
        assert!(list("private,10.0.0.8,*").is_of_addresses());
        for text in ["shop", "*.svc", "10.0.0.8:80"] {
            assert!(!list(text).is_of_addresses(), "{text}");
        }
    }

    #[test]
    fn names_and_addresses_are_found_with_their_ports() {
        for (text, place, is_there) in [
            ("shop", "SHOP:81", true),
            ("shop", "shop.:81", true),
            ("shop:80", "shop", true),
            ("shop:80", "shop:81", false),
            ("shop", "ashop", false),
            ("*.svc", "a.b.svc", true),
            ("*.svc", "svc", false),
            ("*.svc", ".svc", false),
            ("*.svc", "asvc", false),
            ("*.svc", "a.svc.evil.test", false),
            ("*", "evil.test", true),
            ("none", "shop", false),
        ] {
            assert_eq!(list(text).has_name(&target(place)), is_there, "{text} {place}");
        }
        for (text, ip, port, is_there) in [
            ("10.0.0.0/8", "10.255.0.1", 80, true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", 80, true),
            ("10.0.0.0/8", "11.0.0.1", 80, false),
            ("10.0.0.0/8:80", "10.0.0.1", 81, false),
            ("10.0.0.8", "10.0.0.9", 80, false),
            ("fd00::/8", "fd12::1", 80, true),
            ("fd00::/8", "10.0.0.1", 80, false),
            ("0.0.0.0/0", "9.9.9.9", 80, true),
            ("0.0.0.0/0", "2001:db8::1", 80, false),
            ("::/0", "2001:db8::1", 80, true),
            ("private", "172.31.0.1", 80, true),
            ("private", "172.32.0.1", 80, false),
            ("private", "fd61::1", 80, true),
            ("private", "203.0.113.9", 80, false),
            ("*.svc", "10.0.0.1", 80, false),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(list(text).has_address(ip, port), is_there, "{text} {ip}:{port}");
        }
    }

    #[test]
    fn what_is_this_hosts_or_the_links_or_the_clouds_is_forbidden() {
        for ip in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.170.2",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "192.0.0.192",
            "100.100.100.200",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:42::42",
            "64:ff9b::169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::",
        ] {
            assert!(is_forbidden(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "10.0.0.1",
            "100.64.0.1",
            "192.168.0.1",
            "203.0.113.9",
            "::ffff:10.0.0.1",
            "fd61::1",
            "2001:db8::1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::",
        ] {
            assert!(!is_forbidden(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_policy_says_why_not() {
        let policy = |targets: &str| RoutePolicy {
            targets: list(targets),
            sources: list("private"),
            own_ports: [14956][..].into(),
        };
        for (targets, place, address, before, after) in [
            ("*", "127.0.0.1", "127.0.0.1", Some(Refusal::Address), Some(Refusal::Address)),
            (
                "*",
                "[::ffff:169.254.169.254]",
                "::1",
                Some(Refusal::Address),
                Some(Refusal::Address),
            ),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1", Some(Refusal::Address), Some(Refusal::Address)),
            ("*", "evil.test", "127.0.0.1", None, Some(Refusal::Address)),
            ("evil.test", "evil.test", "::1", None, Some(Refusal::Address)),
            ("private", "evil.test", "203.0.113.9", None, Some(Refusal::Target)),
            ("private", "203.0.113.9", "203.0.113.9", Some(Refusal::Target), Some(Refusal::Target)),
            ("private", "shop", "10.0.0.1", None, None),
            ("*.svc", "shop.svc", "203.0.113.9", None, None),
            ("*.svc", "shop", "10.0.0.1", Some(Refusal::Target), Some(Refusal::Target)),
            ("10.0.0.0/8:81", "shop", "10.0.0.1", Some(Refusal::Target), Some(Refusal::Target)),
            ("none", "shop", "10.0.0.1", Some(Refusal::Target), Some(Refusal::Target)),
        ] {
            let (policy, target) = (policy(targets), target(place));
            let said = policy.refuses(&target);
            let then = policy.refuses_address(&target, address.parse().unwrap());
            assert_eq!((said, then), (before, after), "{targets}: {place} at {address}");
        }
        let trusts = |ip: &str| policy("*").trusts(Some(ip.parse().unwrap()));
        assert!(trusts("10.0.0.1") && trusts("::ffff:10.0.0.1") && trusts("fd00::1"));
        assert!(!trusts("203.0.113.9") && !policy("*").trusts(None));
    }
}
