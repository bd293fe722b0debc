//! `InterceptSpec`: what to intercept, parsed once into types that cannot be wrong.

mod parse;

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::ranges::{AddrSet, PortSet, Range};
use crate::settings::Settings;

pub use parse::parse_seconds;

/// What to intercept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InterceptSpec {
    /// Connections to the application.
    pub inbound: Inbound,
    /// Connections of the application.
    pub outbound: Outbound,
    /// Interfaces left alone in both directions.
    pub exclude_interfaces: BTreeSet<Interface>,
    /// Whether packets are dropped that connection tracking cannot place.
    pub drop_invalid: bool,
    /// What to do about IPv6.
    pub ipv6: Ipv6,
    /// New connections are left alone, and the rules stay only for those that are open.
    pub is_released: bool,
}

/// What to intercept of the connections to the application.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inbound {
    /// Port of the sidecar.
    pub redirect_port: u16,
    /// Ports of the application.
    pub ports: Ports,
    /// Ports netra listens on; the redirect ports are always among them.
    pub own_ports: PortSet,
    /// Further ports left alone.
    pub exclude_ports: PortSet,
    /// Sources left alone.
    pub exclude_sources: AddrSet,
    /// Interfaces of guests, whose connections are outbound.
    pub reroute_interfaces: BTreeSet<Interface>,
    /// Share to intercept.
    pub probability: Probability,
}

/// What to intercept of the connections of the application.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outbound {
    /// Port of the sidecar.
    pub redirect_port: u16,
    /// Destination ports.
    pub ports: Ports,
    /// Destination ports left alone; 53 is among them unless asked otherwise.
    pub exclude_ports: PortSet,
    /// Only these destinations, if given.
    pub include_destinations: Option<AddrSet>,
    /// Destinations left alone.
    pub exclude_destinations: AddrSet,
    /// The sidecar's user.
    pub own_uid: u32,
    /// The sidecar's group.
    pub own_gid: u32,
    /// Users left alone; the sidecar's is among them.
    pub exclude_uids: BTreeSet<u32>,
    /// Groups left alone; the sidecar's is among them.
    pub exclude_gids: BTreeSet<u32>,
    /// Only these groups, if given.
    pub include_gids: Option<BTreeSet<u32>>,
    /// Share to intercept.
    pub probability: Probability,
    /// Whether connections to own addresses other than loopback are intercepted.
    pub intercept_self: bool,
}

/// Which ports to intercept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ports {
    /// Every port.
    All,
    /// These ports; none if empty.
    Only(PortSet),
}

/// A share of connections, in millionths.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Probability {
    millionths: u32,
}

impl Probability {
    /// One whole, in millionths.
    pub const ONE: u32 = 1_000_000;

    /// The share in millionths.
    pub const fn millionths(self) -> u32 {
        self.millionths
    }

    /// Whether every connection is meant.
    pub const fn is_always(self) -> bool {
        self.millionths == Self::ONE
    }

    /// Whether no connection is meant.
    pub const fn is_never(self) -> bool {
        self.millionths == 0
    }
}

/// Name of an interface, or the start of a name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Interface {
    /// The name or its start.
    pub name: String,
    /// Whether every interface that starts so is meant.
    pub is_prefix: bool,
}

impl Interface {
    /// Whether an interface of this name is meant.
    pub fn is(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

/// What to do about IPv6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ipv6 {
    /// Intercept it where the kernel has it.
    Auto,
    /// Leave it alone.
    Off,
    /// Intercept it or fail.
    Require,
}

/// TCP port of DNS.
const DNS_PORT: u16 = 53;

impl InterceptSpec {
    /// Parses the settings.
    pub fn parse(settings: &Settings) -> Result<Self> {
        let sidecar_port = settings.parse("sidecar-port", parse::port)?;
        let redirect_port =
            |flag| {
                settings.parse(flag, |text| {
                    if text.is_empty() { Ok(sidecar_port) } else { parse::port(text) }
                })
            };
        let redirect_ports = (redirect_port("inbound-port")?, redirect_port("outbound-port")?);
        Ok(Self {
            inbound: Inbound::parse(settings, redirect_ports)?,
            outbound: Outbound::parse(settings, redirect_ports.1)?,
            exclude_interfaces: settings.parse("exclude-interfaces", parse::interfaces)?,
            drop_invalid: settings.is_on("drop-invalid")?,
            ipv6: settings.parse("ipv6", parse::ipv6)?,
            is_released: false,
        })
    }
}

impl Inbound {
    fn parse(settings: &Settings, redirect_ports: (u16, u16)) -> Result<Self> {
        let own = |port| Range { first: port, last: port };
        let redirects = PortSet::new(vec![own(redirect_ports.0), own(redirect_ports.1)]);
        Ok(Self {
            redirect_port: redirect_ports.0,
            ports: settings.parse("inbound-ports", parse::ports)?,
            own_ports: settings.parse("own-ports", parse::port_set)?.union(&redirects),
            exclude_ports: settings.parse("exclude-inbound-ports", parse::port_set)?,
            exclude_sources: settings.parse("exclude-inbound-cidrs", parse::cidrs)?,
            reroute_interfaces: settings.parse("reroute-interfaces", parse::interfaces)?,
            probability: settings.parse("inbound-probability", parse::probability)?,
        })
    }
}

impl Outbound {
    fn parse(settings: &Settings, redirect_port: u16) -> Result<Self> {
        let mut exclude_ports = settings.parse("exclude-outbound-ports", parse::port_set)?;
        if !settings.is_on("intercept-dns-tcp")? {
            let dns = Range { first: DNS_PORT, last: DNS_PORT };
            exclude_ports = exclude_ports.union(&PortSet::new(vec![dns]));
        }
        let own_uid = settings.parse("sidecar-user-id", parse::uid)?;
        let own_gid = settings.parse("sidecar-group-id", parse::gid)?;
        let mut exclude_uids = settings.parse("exclude-uids", parse::uids)?;
        let mut exclude_gids = settings.parse("exclude-gids", parse::gids)?;
        exclude_uids.insert(own_uid);
        exclude_gids.insert(own_gid);
        let spec = Self {
            redirect_port,
            ports: settings.parse("outbound-ports", parse::ports)?,
            exclude_ports,
            include_destinations: settings.parse("include-outbound-cidrs", parse::include_cidrs)?,
            exclude_destinations: settings.parse("exclude-outbound-cidrs", parse::cidrs)?,
            own_uid,
            own_gid,
            exclude_uids,
            exclude_gids,
            include_gids: settings.parse("include-gids", parse::include_gids)?,
            probability: settings.parse("outbound-probability", parse::probability)?,
            intercept_self: settings.is_on("intercept-self")?,
        };
        spec.refuse_root(settings)?;
        Ok(spec)
    }

    /// Excluding root by accident would let the application past the sidecar unseen.
    fn refuse_root(&self, settings: &Settings) -> Result<()> {
        if settings.is_on("allow-root-uid")? {
            return Ok(());
        }
        let uid_flag = if self.own_uid == 0 { "sidecar-user-id" } else { "exclude-uids" };
        let gid_flag = if self.own_gid == 0 { "sidecar-group-id" } else { "exclude-gids" };
        for (is_root, flag, what) in [
            (self.exclude_uids.contains(&0), uid_flag, "uid"),
            (self.exclude_gids.contains(&0), gid_flag, "gid"),
        ] {
            if is_root {
                let allowed = format!(
                    "{what} 0 would let every process of root bypass the sidecar; \
                     use another {what} or --allow-root-uid"
                );
                let text = &settings.value(flag).text;
                return Err(Error::bad_value(&settings.name(flag), text, &allowed));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn spec(flags: &[(&str, &str)]) -> Result<InterceptSpec> {
        let find =
            |flag: &str| flags.iter().find(|entry| entry.0 == flag).map(|entry| entry.1.to_owned());
        InterceptSpec::parse(&Settings::resolve(find, |_| None))
    }

    fn set(ports: &[(u16, u16)]) -> PortSet {
        PortSet::new(ports.iter().map(|&(first, last)| Range { first, last }).collect())
    }

    #[test]
    fn defaults_are_those_of_netramesh_and_safe() {
        let spec = spec(&[]).unwrap();
        assert_eq!(spec.inbound.redirect_port, 14956);
        assert_eq!(spec.outbound.redirect_port, 14956);
        assert_eq!(spec.inbound.own_ports, set(&[(14956, 14958)]));
        assert_eq!(spec.inbound.ports, Ports::All);
        assert_eq!(spec.outbound.exclude_ports, set(&[(53, 53)]));
        assert_eq!(spec.outbound.exclude_uids, BTreeSet::from([1337]));
        assert_eq!(spec.outbound.include_destinations, None);
        assert!(spec.inbound.probability.is_always());
        assert_eq!(spec.ipv6, Ipv6::Auto);
    }

    #[test]
    fn redirect_ports_are_own_ports_whatever_the_list_says() {
        let spec =
            spec(&[("sidecar-port", "1"), ("outbound-port", "9"), ("own-ports", "5")]).unwrap();
        assert_eq!(spec.inbound.own_ports, set(&[(1, 1), (5, 5), (9, 9)]));
        assert_eq!((spec.inbound.redirect_port, spec.outbound.redirect_port), (1, 9));
    }

    #[test]
    fn dns_can_be_asked_for() {
        let spec = spec(&[("intercept-dns-tcp", "true")]).unwrap();
        assert!(spec.outbound.exclude_ports.is_empty());
    }

    #[test]
    fn root_is_refused_unless_allowed() {
        for flag in ["sidecar-user-id", "sidecar-group-id", "exclude-uids", "exclude-gids"] {
            let error = spec(&[(flag, "0")]).unwrap_err();
            assert!(error.message.starts_with(&format!("--{flag}: bad value \"0\"")), "{error}");
            assert!(spec(&[(flag, "0"), ("allow-root-uid", "true")]).is_ok());
        }
    }
}
