//! Service records (SRV, RFC 2782): where a service is, as a name server says, with ports, weights
//! and priorities.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

/// One place of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRecord {
    /// The lowest is asked while anybody of it is well.
    pub priority: u16,
    /// Its part among those of its priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// The name of its host.
    pub target: Box<str>,
    /// What that name stands for; empty where nobody knows.
    pub addresses: Vec<IpAddr>,
}

/// Whether a name is one of a service, `_redis._tcp.cache.example.com`: it has service records, and no
/// addresses.
pub fn is_service_name(name: &str) -> bool {
    name.starts_with('_')
}

/// An address of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    /// 0 where nobody has a lower priority, without gaps.
    pub(crate) rank: u8,
}

impl ServiceRecord {
    /// As in a zone's file, with addresses in the target's place: `0 10 6379 10.0.0.1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let mut number = || words.next()?.parse().ok();
        let (priority, weight, port) = (number()?, number()?, number()?);
        let target = words.clone().next()?.into();
        let addresses: Result<_, _> = words.map(str::parse).collect();
        Some(Self { priority, weight, port, target, addresses: addresses.ok()? })
    }

    /// Those of IPv4, or of IPv6 where there are none: a host with both is not two hosts.
    fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        let has_v4 = self.addresses.iter().any(IpAddr::is_ipv4);
        let of_family = self.addresses.iter().filter(move |ip| ip.is_ipv4() == has_v4);
        of_family.map(|ip| SocketAddr::new(*ip, self.port))
    }
}

/// All addresses of records, those of the lowest priority first. Of two records with one address the
/// first in that order counts.
pub(crate) fn served(records: &[ServiceRecord]) -> Vec<Served> {
    let mut there: Vec<_> = records.iter().filter(|it| !it.addresses.is_empty()).collect();
    there.sort();
    let mut priorities: Vec<_> = there.iter().map(|it| it.priority).collect();
    priorities.dedup();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for record in there {
        let rank = priorities.iter().position(|it| *it == record.priority).unwrap_or(0);
        let rank = u8::try_from(rank).unwrap_or(u8::MAX);
        // One message of all weights together and one more goes to who has none: what the algorithm of
        // the RFC comes to.
        let weight = u32::from(record.weight).max(1);
        let new = record.sockets().filter(|it| seen.insert(*it));
        found.extend(new.map(|address| Served { address, weight, rank }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> ServiceRecord {
        let words: Vec<_> = text.split(' ').collect();
        ServiceRecord {
            priority: words[0].parse().unwrap(),
            weight: words[1].parse().unwrap(),
            port: words[2].parse().unwrap(),
            target: words[3].into(),
            addresses: words[4..].iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn records_have_ranks_and_weights() {
        for (records, expected) in [
            (&[][..], &[][..]),
            (&["7 5 80 a 10.0.0.1"], &[("10.0.0.1:80", 5, 0)]),
            // Priorities are in order and without gaps, weights are those of the records.
            (
                &[
                    "20 1 80 b 10.0.0.2",
                    "10 30 81 a 10.0.0.1",
                    "10 10 82 c 10.0.0.1",
                    "65535 9 80 d ::1",
                ],
                &[
                    ("10.0.0.1:82", 10, 0),
                    ("10.0.0.1:81", 30, 0),
                    ("10.0.0.2:80", 1, 1),
                    ("[::1]:80", 9, 2),
                ],
            ),
            // Who has no weight gets a little, or as much as others that have none.
            (
                &["0 0 80 a 10.0.0.1", "0 99 80 b 10.0.0.2"],
                &[("10.0.0.1:80", 1, 0), ("10.0.0.2:80", 99, 0)],
            ),
            (
                &["0 0 80 a 10.0.0.1", "0 0 80 b 10.0.0.2"],
                &[("10.0.0.1:80", 1, 0), ("10.0.0.2:80", 1, 0)],
            ),
            // A target of several addresses, of both families, and without any: its priority is nobody's.
            (
                &["0 1 80 a", "1 2 80 b 10.0.0.1 fd00::1 10.0.0.2", "2 3 80 c fd00::2"],
                &[("10.0.0.1:80", 2, 0), ("10.0.0.2:80", 2, 0), ("[fd00::2]:80", 3, 1)],
            ),
            // The same place twice: that of the lower priority.
            (&["5 1 80 a 10.0.0.1", "1 7 80 b 10.0.0.1"], &[("10.0.0.1:80", 7, 0)]),
        ] {
            let records: Vec<_> = records.iter().map(|it| record(it)).collect();
            let found = served(&records);
            let found: Vec<_> =
                found.iter().map(|it| (it.address.to_string(), it.weight, it.rank)).collect();
            let found: Vec<_> = found.iter().map(|(a, w, r)| (&**a, *w, *r)).collect();
            assert_eq!(found, expected, "{records:?}");
        }
    }

    #[test]
    fn names_of_services_are_told_from_hosts() {
        assert!(is_service_name("_redis._tcp.cache.test"));
        assert!(!is_service_name("cache.test") && !is_service_name("10.0.0.1"));
    }
}
