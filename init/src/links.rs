//! What the rules assume of the links of this network namespace; and a link to try them on.
//!
//! A redirect in prerouting gives a packet an address of the link it came in by, the first of the
//! family; where the link has none, the kernel drops the packet (nf_nat_redirect.c). So a link
//! without an IPv4 address, but with traffic to addresses that are elsewhere (on `lo`, on another
//! link), would lose all of it. For IPv6 the link-local address of each link is enough.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;

use crate::netlink::{Attrs, NLM_F_CREATE, NLM_F_EXCL, Route, attr, attr_str, read_u16, read_u32};
use crate::plan::Family;
use crate::spec::{Inbound, InterceptSpec, Interface, Ipv6, Ports};

const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
/// `struct ifinfomsg`: family, type, index, flags, change.
const LINK_HEADER_LEN: usize = 16;
/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
const ADDRESS_HEADER_LEN: usize = 8;
const LINK_NAME: u16 = 3;
const LINK_MASTER: u16 = 10;
/// Makes a link.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const LINK_HARDWARE_ADDRESS: u16 = 1;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
/// `IFA_F_NODAD`: nobody is asked whether it has the address.
const NO_DAD: u8 = 2;
/// `ARPHRD_LOOPBACK`
const LOOPBACK: u16 = 772;
const UP: u32 = 1;
/// `RT_SCOPE_LINK`: an address that only the link knows.
const SCOPE_LINK: u8 = 253;
/// `RT_SCOPE_HOST`: an address of nobody else's.
const SCOPE_HOST: u8 = 254;
/// So many names are told; a node with a link for each pod has hundreds.
const NAMES_MAX: usize = 8;

/// What to do about a loss.
pub(crate) const ADVICE: &str = "give the link an address of that family (any will do), or leave \
                                 it alone: --exclude-interfaces";

/// A link that packets come in by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Link {
    index: u32,
    name: String,
    has_v4: bool,
    has_v6: bool,
}

/// The links, and whether there is anything to come in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Links {
    links: Vec<Link>,
    /// Whether somebody else may know an address of the family, wherever it is.
    has_v4: bool,
    has_v6: bool,
}

/// What gets lost by links that lack an address: one line, or nothing.
pub(crate) fn losses(spec: &InterceptSpec) -> io::Result<Option<String>> {
    if !is_in_use(&spec.inbound) {
        return Ok(None);
    }
    let links = Links::read()?;
    let mut lost = Vec::new();
    for family in [Family::V4, Family::V6] {
        let names = links.without_address(family, &spec.exclude_interfaces);
        let is_covered = family == Family::V4 || spec.ipv6 != Ipv6::Off;
        if is_covered && !names.is_empty() {
            lost.push(loss(family, &names));
        }
    }
    Ok((!lost.is_empty()).then(|| lost.join("; ")))
}

fn is_in_use(inbound: &Inbound) -> bool {
    let has_ports = !matches!(&inbound.ports, Ports::Only(ports) if ports.is_empty());
    !inbound.probability.is_never() && (has_ports || !inbound.reroute_interfaces.is_empty())
}

fn loss(family: Family, names: &[&str]) -> String {
    let family = if family == Family::V4 { "IPv4" } else { "IPv6" };
    let more = match names.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = names[..names.len().min(NAMES_MAX)].join(", ");
    format!(
        "{names}{more}: no {family} address there, so the kernel drops the {family} connections \
         that are redirected on their way in"
    )
}

impl Links {
    fn read() -> io::Result<Self> {
        let route = Route::open()?;
        let mut found = Self::default();
        let links = route.dump(GET_LINK, LINK_HEADER_LEN)?;
        found.links = links.iter().filter_map(|bytes| Link::parse(bytes)).collect();
        for address in route.dump(GET_ADDRESS, ADDRESS_HEADER_LEN)? {
            found.add_address(&address);
        }
        Ok(found)
    }

    fn add_address(&mut self, bytes: &[u8]) {
        let (Some([family, _, _, scope]), Some(index)) = (bytes.first_chunk(), read_u32(bytes, 4))
        else {
            return;
        };
        let mut unknown = Link::default();
        let link = self.links.iter_mut().find(|link| link.index == index).unwrap_or(&mut unknown);
        // Addresses of a link alone are never intercepted in IPv6.
        let is_known_elsewhere = *scope < SCOPE_HOST;
        match i32::from(*family) {
            libc::AF_INET => {
                link.has_v4 = true;
                self.has_v4 |= is_known_elsewhere;
            }
            libc::AF_INET6 => {
                link.has_v6 = true;
                self.has_v6 |= is_known_elsewhere && *scope != SCOPE_LINK;
            }
            _ => {}
        }
    }

    fn without_address(&self, family: Family, excluded: &BTreeSet<Interface>) -> Vec<&str> {
        let is_lacking = |link: &&Link| match family {
            Family::V4 => self.has_v4 && !link.has_v4,
            Family::V6 => self.has_v6 && !link.has_v6 && !is_v6_disabled(&link.name),
        };
        let is_excluded = |link: &&Link| excluded.iter().any(|interface| interface.is(&link.name));
        let lacking = self.links.iter().filter(is_lacking).filter(|link| !is_excluded(link));
        lacking.map(|link| link.name.as_str()).collect()
    }
}

/// A link with both its ends here: what is sent by one comes in by the other. Gone with this.
#[derive(Debug)]
pub(crate) struct Loop {
    route: Route,
    near: &'static str,
    far: &'static str,
}

impl Loop {
    /// Makes the link, up. `hardware` is the address of the near end.
    pub(crate) fn new(
        near: &'static str,
        far: &'static str,
        hardware: [u8; 6],
    ) -> io::Result<Self> {
        let made = Self { route: Route::open()?, near, far };
        // Of a run that was killed.
        made.delete();
        let named = |flags, name| {
            [&link_header(flags)[..], Attrs::new().str(LINK_NAME, name).as_bytes()].concat()
        };
        // The far end is made before it has a near one, and cannot be up without.
        let data = Attrs::new().bytes(VETH_PEER, &named(0, far));
        let attributes = Attrs::new()
            .str(LINK_NAME, near)
            .bytes(LINK_HARDWARE_ADDRESS, &hardware)
            .nest(LINK_INFO, &Attrs::new().str(INFO_KIND, "veth").nest(INFO_DATA, &data));
        let body = [&link_header(UP)[..], attributes.as_bytes()].concat();
        made.route.change(NEW_LINK, NLM_F_CREATE | NLM_F_EXCL, &body)?;
        made.route.change(NEW_LINK, 0, &named(UP, far))?;
        Ok(made)
    }

    /// Gives the near end an address.
    pub(crate) fn add_address(&self, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let (family, octets) = match address {
            IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
        };
        let mut body = vec![u8::try_from(family).unwrap_or(0), prefix_len, NO_DAD, 0];
        body.extend(self.index(self.near)?.to_ne_bytes());
        let attributes = Attrs::new().bytes(ADDRESS_LOCAL, &octets).bytes(ADDRESS, &octets);
        body.extend(attributes.as_bytes());
        self.route.change(NEW_ADDRESS, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    /// The number of the far end.
    pub(crate) fn far_index(&self) -> io::Result<u32> {
        self.index(self.far)
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        let links = self.route.dump(GET_LINK, LINK_HEADER_LEN)?;
        let found = links.iter().filter_map(|bytes| Link::parse(bytes));
        let link = found.into_iter().find(|link| link.name == name);
        link.map(|link| link.index).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn delete(&self) {
        let name = Attrs::new().str(LINK_NAME, self.near);
        let body = [&link_header(0)[..], name.as_bytes()].concat();
        let _ = self.route.change(DELETE_LINK, 0, &body);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.delete();
    }
}

/// `struct ifinfomsg` that sets these flags.
fn link_header(flags: u32) -> [u8; LINK_HEADER_LEN] {
    let mut header = [0; LINK_HEADER_LEN];
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&flags.to_ne_bytes());
    header
}

impl Link {
    /// A link that is up; not one whose packets come in by another, as those of ports of a bridge.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, index, flags) = (read_u16(bytes, 2)?, read_u32(bytes, 4)?, read_u32(bytes, 8)?);
        let attributes = bytes.get(LINK_HEADER_LEN..)?;
        let is_entrance =
            flags & UP != 0 && kind != LOOPBACK && attr(attributes, LINK_MASTER).is_none();
        let name = attr_str(attributes, LINK_NAME)?.to_owned();
        is_entrance.then_some(Self { index, name, has_v4: false, has_v6: false })
    }
}

/// Whether the kernel takes no IPv6 packet by this link.
fn is_v6_disabled(name: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"))
        .is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(links: &[(&str, bool, bool)]) -> Links {
        let link = |(index, (name, has_v4, has_v6)): (u32, &(&str, bool, bool))| Link {
            index,
            name: (*name).to_owned(),
            has_v4: *has_v4,
            has_v6: *has_v6,
        };
        Links { links: (1..).zip(links).map(link).collect(), has_v4: true, has_v6: true }
    }

    #[test]
    fn links_that_lack_an_address_lose_what_comes_in() {
        let found = links(&[("eth0", true, true), ("eth1", false, true), ("none9", false, false)]);
        let none = BTreeSet::new();
        assert_eq!(found.without_address(Family::V4, &none), ["eth1", "none9"]);
        assert_eq!(found.without_address(Family::V6, &none), ["none9"]);
        let excluded = BTreeSet::from([Interface { name: "eth".to_owned(), is_prefix: true }]);
        assert_eq!(found.without_address(Family::V4, &excluded), ["none9"]);
        let nothing_to_lose = Links { has_v4: false, ..found };
        assert!(nothing_to_lose.without_address(Family::V4, &none).is_empty());
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..20).map(|number| format!("cali{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(loss(Family::V4, &names).contains("cali7 and 12 more: no IPv4"));
        assert!(loss(Family::V4, &names[..2]).starts_with("cali0, cali1: no IPv4"));
    }

    #[test]
    fn cut_short_answers_are_nothing() {
        let mut found = Links::default();
        for len in 0..ADDRESS_HEADER_LEN {
            found.add_address(&vec![2; len]);
        }
        assert_eq!(found, Links::default());
        assert!((0..LINK_HEADER_LEN).all(|len| Link::parse(&vec![1; len]).is_none()));
    }
}
