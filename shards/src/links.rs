//! The links of this host and their addresses, as far as dialling has to know.

use crate::sys;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Names of links: whole ones, and beginnings of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkNames {
    names: Vec<(Box<str>, bool)>,
}

impl LinkNames {
    /// From names, of which one that ends in `*` or `+` is a beginning.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let split = |name: &'n str| match name.strip_suffix(['*', '+']) {
            Some(beginning) => (beginning.into(), true),
            None => (name.into(), false),
        };
        Self { names: names.into_iter().map(split).collect() }
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn has(&self, link: &[u8]) -> bool {
        self.names.iter().any(|(name, is_beginning)| match is_beginning {
            true => link.starts_with(name.as_bytes()),
            false => link == name.as_bytes(),
        })
    }

    /// Whether one of these links has this address. A kernel that does not tell says no.
    pub(crate) fn have(&self, ip: IpAddr) -> bool {
        let is_there = |link: &[u8], address| address == ip && self.has(link);
        !self.is_empty() && sys::links::any_address(is_there).unwrap_or(false)
    }
}

/// Whether this host has several addresses of a family, so that an application may have chosen one.
/// The control thread looks, the shards read.
#[derive(Debug, Default)]
pub(crate) struct Several {
    v4: AtomicBool,
    v6: AtomicBool,
}

impl Several {
    pub(crate) fn of_this_host() -> Self {
        let several = Self::default();
        several.look();
        several
    }

    /// Looks again. A kernel that does not tell may have several.
    pub(crate) fn look(&self) {
        let mut seen = BTreeSet::new();
        let all = sys::links::any_address(|_, ip| {
            if is_choice(ip) {
                seen.insert(ip);
            }
            false
        });
        let several =
            |is_v4| all.is_err() || seen.iter().filter(|ip| ip.is_ipv4() == is_v4).count() > 1;
        self.v4.store(several(true), Relaxed);
        self.v6.store(several(false), Relaxed);
    }

    /// Whether an application that went to `to` may have chosen its address.
    pub(crate) fn has(&self, to: IpAddr) -> bool {
        if to.is_ipv4() { self.v4.load(Relaxed) } else { self.v6.load(Relaxed) }
    }
}

/// Not one that is there anyway, and from which nobody is reached beyond a link.
fn is_choice(ip: IpAddr) -> bool {
    let is_link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !ip.is_loopback() && !is_link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_whole_or_a_beginning() {
        let names = LinkNames::new(["docker0", "k6t-*", "veth+"]);
        for (link, is_in) in [
            ("docker0", true),
            ("docker01", false),
            ("k6t-net0", true),
            ("veth12", true),
            ("eth0", false),
        ] {
            assert_eq!(names.has(link.as_bytes()), is_in, "{link}");
        }
        assert!(!LinkNames::default().has(b"lo"));
    }

    #[test]
    fn the_loopback_link_has_the_loopback_address() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert!(LinkNames::new(["lo"]).have(loopback));
        assert!(!LinkNames::new(["no-such-link"]).have(loopback));
        assert!(!LinkNames::new(["lo"]).have(IpAddr::from([192, 0, 2, 1])));
    }

    #[test]
    fn addresses_that_everybody_has_are_no_choice() {
        for (ip, choice) in [
            ("127.0.0.1", false),
            ("::1", false),
            ("fe80::1", false),
            ("10.0.0.1", true),
            ("fd61::2", true),
        ] {
            assert_eq!(is_choice(ip.parse().unwrap()), choice, "{ip}");
        }
    }
}
