//! Every setting in one table, and where its value came from: flag, environment or default.
//!
//! The values stay text here. `spec` parses them, so that a bad one can be reported with the name
//! the user gave it by.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::error::{Error, Result};

/// One setting: a flag, mostly with an environment variable of the same meaning.
#[derive(Debug)]
pub struct Setting {
    /// Long flag without the dashes.
    pub flag: &'static str,
    /// A second spelling of the flag.
    pub alias: Option<&'static str>,
    /// Environment variable.
    pub env: Option<&'static str>,
    /// Name of the value in the help; `None` for a switch.
    pub value: Option<&'static str>,
    /// Value if neither flag nor variable is given.
    pub default: &'static str,
    /// Heading in the help.
    pub group: &'static str,
    /// Help text.
    pub help: &'static str,
}

const fn setting(
    group: &'static str,
    flag: &'static str,
    env: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { flag, alias: None, env: Some(env), value: Some(value), default, group, help }
}

impl Setting {
    const fn alias(self, alias: &'static str) -> Self {
        Self { alias: Some(alias), ..self }
    }

    const fn switch(self) -> Self {
        Self { value: None, ..self }
    }
}

const REDIRECT: &str = "Redirect";
const INBOUND: &str = "Inbound";
const OUTBOUND: &str = "Outbound";
const WORKING: &str = "How to work";

/// All settings, in the order of the help.
pub const SETTINGS: &[Setting] = &[
    setting(
        REDIRECT,
        "sidecar-port",
        "NETRA_SIDECAR_PORT",
        "PORT",
        "14956",
        "Port of the sidecar that intercepted connections go to",
    )
    .alias("port"),
    setting(
        REDIRECT,
        "inbound-port",
        "NETRA_INBOUND_PORT",
        "PORT",
        "",
        "Port for inbound connections, if not the sidecar port",
    ),
    setting(
        REDIRECT,
        "outbound-port",
        "NETRA_OUTBOUND_PORT",
        "PORT",
        "",
        "Port for outbound connections, if not the sidecar port",
    ),
    setting(
        REDIRECT,
        "own-ports",
        "NETRA_OWN_PORTS",
        "PORTS",
        "14956,14957,14958",
        "Ports netra itself listens on, never intercepted inbound; the ports above always count",
    ),
    setting(
        REDIRECT,
        "sidecar-user-id",
        "NETRA_SIDECAR_USER_ID",
        "UID",
        "1337",
        "User the sidecar runs as; its connections are never intercepted",
    )
    .alias("uid"),
    setting(
        REDIRECT,
        "sidecar-group-id",
        "NETRA_SIDECAR_GROUP_ID",
        "GID",
        "1337",
        "Group the sidecar runs as; its connections are never intercepted",
    )
    .alias("gid"),
    setting(
        REDIRECT,
        "allow-root-uid",
        "NETRA_ALLOW_ROOT_UID",
        "",
        "false",
        "Allow uid or gid 0 to be excluded, although most applications in containers run as it",
    )
    .switch(),
    setting(
        REDIRECT,
        "exclude-interfaces",
        "NETRA_EXCLUDE_INTERFACES",
        "NAMES",
        "",
        "Interfaces whose traffic is left alone in both directions; \"cni*\" matches a prefix",
    ),
    setting(
        REDIRECT,
        "drop-invalid",
        "NETRA_DROP_INVALID",
        "",
        "false",
        "Drop packets that connection tracking cannot place: they would pass by the redirect and \
         be answered with a reset (large uploads into busy pods)",
    )
    .switch(),
    setting(
        REDIRECT,
        "close-wait-timeout-seconds",
        "NETRA_CLOSE_WAIT_TIMEOUT_SECONDS",
        "SECONDS",
        "",
        "How long connection tracking remembers a half-closed connection (kernel: 60); writes a \
         sysctl, which needs a writable /proc/sys, and cleanup does not put it back",
    ),
    setting(
        REDIRECT,
        "ipv6",
        "NETRA_IPV6",
        "MODE",
        "auto",
        "auto: also IPv6 where the kernel has it; require: fail if it has not; off: IPv4 only",
    ),
    setting(
        REDIRECT,
        "mode",
        "NETRA_INIT_MODE",
        "MODE",
        "redirect",
        "redirect, or none: do nothing and exit 0, for manifests without NET_ADMIN",
    ),
    setting(
        INBOUND,
        "inbound-ports",
        "INBOUND_INTERCEPT_PORTS",
        "PORTS",
        "*",
        "Ports of the application to intercept: * or none or a list such as 80,8000:8999",
    )
    .alias("inbound-intercept-ports"),
    setting(
        INBOUND,
        "exclude-inbound-ports",
        "NETRA_EXCLUDE_INBOUND_PORTS",
        "PORTS",
        "",
        "Ports of the application to leave alone, e.g. 22 on a virtual machine",
    ),
    setting(
        INBOUND,
        "exclude-inbound-cidrs",
        "NETRA_EXCLUDE_INBOUND_CIDRS",
        "CIDRS",
        "",
        "Source addresses whose connections are left alone",
    ),
    setting(
        INBOUND,
        "reroute-interfaces",
        "NETRA_REROUTE_INTERFACES",
        "NAMES",
        "",
        "Interfaces of guests (docker in docker, KubeVirt): what comes in by them is on its way \
         out, so it is treated as outbound; netra reads the same variable",
    )
    .alias("reroute-virtual-interfaces"),
    setting(
        INBOUND,
        "inbound-probability",
        "NETRA_INBOUND_PROBABILITY",
        "P",
        "1",
        "Share of inbound connections to intercept, 0 to 1; decided once per connection",
    ),
    setting(
        OUTBOUND,
        "outbound-ports",
        "OUTBOUND_INTERCEPT_PORTS",
        "PORTS",
        "*",
        "Destination ports to intercept: * or none or a list such as 80,8000:8999",
    )
    .alias("outbound-intercept-ports"),
    setting(
        OUTBOUND,
        "exclude-outbound-ports",
        "NETRA_EXCLUDE_OUTBOUND_PORTS",
        "PORTS",
        "",
        "Destination ports to leave alone",
    ),
    setting(
        OUTBOUND,
        "include-outbound-cidrs",
        "NETRA_INCLUDE_OUTBOUND_CIDRS",
        "CIDRS",
        "*",
        "Intercept only these destination addresses, of both families",
    ),
    setting(
        OUTBOUND,
        "exclude-outbound-cidrs",
        "NETRA_EXCLUDE_OUTBOUND_CIDRS",
        "CIDRS",
        "",
        "Destination addresses to leave alone; comes before the include list",
    ),
    setting(
        OUTBOUND,
        "outbound-probability",
        "NETRA_OUTBOUND_PROBABILITY",
        "P",
        "1",
        "Share of outbound connections to intercept, 0 to 1; decided once per connection",
    ),
    setting(
        OUTBOUND,
        "exclude-uids",
        "NETRA_EXCLUDE_UIDS",
        "UIDS",
        "",
        "Further users whose connections are left alone",
    ),
    setting(
        OUTBOUND,
        "exclude-gids",
        "NETRA_EXCLUDE_GIDS",
        "GIDS",
        "",
        "Further groups whose connections are left alone",
    ),
    setting(
        OUTBOUND,
        "include-gids",
        "NETRA_INCLUDE_GIDS",
        "GIDS",
        "*",
        "Intercept only connections of these groups",
    ),
    setting(
        OUTBOUND,
        "intercept-dns-tcp",
        "NETRA_INTERCEPT_DNS_TCP",
        "",
        "false",
        "Intercept TCP port 53 too, which is left alone otherwise",
    )
    .switch(),
    setting(
        OUTBOUND,
        "intercept-self",
        "NETRA_INTERCEPT_SELF",
        "",
        "false",
        "Intercept what the application sends to its own addresses other than 127.0.0.0/8 and ::1; \
         the sidecar's own connections stay excluded, or they would loop",
    )
    .switch(),
    setting(
        WORKING,
        "backend",
        "NETRA_INIT_BACKEND",
        "NAME",
        "auto",
        "auto, nft-native (netlink, needs no program), iptables-nft or iptables-legacy",
    ),
    setting(
        WORKING,
        "reconcile",
        "NETRA_RECONCILE",
        "",
        "true",
        "Replace rules of netra that are not the wanted ones; false: exit 7 and change nothing",
    )
    .switch(),
    setting(
        WORKING,
        "guardrails",
        "NETRA_GUARDRAILS",
        "",
        "false",
        "Drop new connections, of all interfaces but lo, while apply takes more than one \
         transaction; they are retried by TCP (needs nf_tables and Linux 5.12)",
    )
    .switch(),
    setting(
        WORKING,
        "netns",
        "NETRA_INIT_NETNS",
        "PATH",
        "",
        "Work in this network namespace, e.g. /proc/PID/ns/net (needs CAP_SYS_ADMIN)",
    ),
    setting(
        WORKING,
        "lock-wait-seconds",
        "NETRA_LOCK_WAIT_SECONDS",
        "SECONDS",
        "30",
        "How long to wait for the locks of iptables and of another netra-init",
    ),
    setting(
        WORKING,
        "verify-timeout-seconds",
        "NETRA_VERIFY_TIMEOUT_SECONDS",
        "SECONDS",
        "10",
        "How long verify may take for each address family",
    ),
    setting(
        WORKING,
        "log-format",
        "NETRA_LOG_FORMAT",
        "FORMAT",
        "text",
        "text, or json: one object per line",
    ),
    setting(
        WORKING,
        "dry-run",
        "NETRA_DRY_RUN",
        "",
        "false",
        "Print the exact rules and change nothing; needs no privileges",
    )
    .switch(),
];

/// Where a value came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// Neither.
    Default,
}

/// A value as text, with its origin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Value {
    /// The text, trimmed.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// The values of all settings.
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, Value>,
    service_links: Vec<String>,
}

impl Settings {
    /// Picks each value: flag before environment before default. An empty variable counts as not
    /// set, as manifests often carry one, and so does one that Kubernetes has made of a Service.
    pub fn resolve(
        mut flag: impl FnMut(&str) -> Option<String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let mut service_links = Vec::new();
        let pick = |setting: &'static Setting| {
            let mut from_env = || {
                let (name, text) = setting.env.and_then(|name| Some((name, env(name)?)))?;
                let is_link = name.ends_with("_PORT") && is_service_link(&text);
                if is_link {
                    service_links.push(format!("{name}={}", text.trim()));
                }
                Some(text).filter(|text| !is_link && !text.trim().is_empty())
            };
            let (text, origin) = match flag(setting.flag) {
                Some(text) => (text, Origin::Flag),
                None => match from_env() {
                    Some(text) => (text, Origin::Environment),
                    None => (setting.default.to_owned(), Origin::Default),
                },
            };
            (setting.flag, Value { text: text.trim().to_owned(), origin })
        };
        let values = SETTINGS.iter().map(pick).collect();
        Self { values, service_links }
    }

    /// A warning where variables of Kubernetes have the names of settings.
    pub fn service_links(&self) -> Option<String> {
        let links = self.service_links.join(", ");
        (!links.is_empty()).then(|| {
            format!(
                "of Kubernetes, about Services of these names, and not taken for settings: {links}"
            )
        })
    }

    /// The value of the setting with this flag.
    ///
    /// # Panics
    /// If there is no such setting: a bug of this crate that every test would hit.
    pub fn value(&self, flag: &str) -> &Value {
        self.values.get(flag).unwrap_or_else(|| panic!("no setting --{flag}"))
    }

    /// What the user called the setting: the variable if it came from there, else the flag.
    pub fn name(&self, flag: &str) -> String {
        let variable = SETTINGS.iter().find(|setting| setting.flag == flag).and_then(|s| s.env);
        match (self.value(flag).origin, variable) {
            (Origin::Environment, Some(variable)) => variable.to_owned(),
            _ => format!("--{flag}"),
        }
    }

    /// Parses a value. `parse` says what is allowed if it does not like the text.
    pub fn parse<T>(
        &self,
        flag: &str,
        parse: impl FnOnce(&str) -> std::result::Result<T, String>,
    ) -> Result<T> {
        let text = &self.value(flag).text;
        parse(text).map_err(|allowed| Error::bad_value(&self.name(flag), text, &allowed))
    }

    /// A switch.
    pub fn is_on(&self, flag: &str) -> Result<bool> {
        self.parse(flag, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("allowed are true and false".to_owned()),
        })
    }
}

/// A Service `netra-sidecar` makes `NETRA_SIDECAR_PORT=tcp://10.0.0.1:80` in every pod of its
/// namespace. Whoever named it did not mean netra.
fn is_service_link(text: &str) -> bool {
    let Some((scheme, address)) = text.trim().split_once("://") else { return false };
    matches!(scheme, "tcp" | "udp" | "sctp") && address.parse::<SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_before_environment_before_default() {
        let flag = |flag: &str| (flag == "inbound-port").then(|| "1".to_owned());
        let env = |name: &str| match name {
            "NETRA_INBOUND_PORT" | "NETRA_SIDECAR_PORT" => Some("2".to_owned()),
            "NETRA_SIDECAR_USER_ID" => Some(" ".to_owned()),
            _ => None,
        };
        let settings = Settings::resolve(flag, env);
        let value = |text: &str, origin| Value { text: text.to_owned(), origin };
        assert_eq!(*settings.value("inbound-port"), value("1", Origin::Flag));
        assert_eq!(*settings.value("sidecar-port"), value("2", Origin::Environment));
        assert_eq!(*settings.value("sidecar-user-id"), value("1337", Origin::Default));
        assert_eq!(settings.name("inbound-port"), "--inbound-port");
        assert_eq!(settings.name("sidecar-port"), "NETRA_SIDECAR_PORT");
    }

    #[test]
    fn a_service_of_the_namespace_sets_nothing() {
        let env = |name: &str| match name {
            "NETRA_SIDECAR_PORT" => Some("tcp://10.0.0.1:80".to_owned()),
            "NETRA_INBOUND_PORT" => Some("udp://[fd00::1]:53".to_owned()),
            "NETRA_OUTBOUND_PORT" => Some("tcp://shop:80".to_owned()),
            _ => None,
        };
        let settings = Settings::resolve(|_| None, env);
        assert_eq!(settings.value("sidecar-port").text, "14956");
        assert_eq!(settings.value("inbound-port").origin, Origin::Default);
        // Nearly one is a mistake, which the spec refuses.
        assert_eq!(settings.value("outbound-port").text, "tcp://shop:80");
        let warning = settings.service_links().unwrap();
        assert!(warning.ends_with(
            "NETRA_SIDECAR_PORT=tcp://10.0.0.1:80, NETRA_INBOUND_PORT=udp://[fd00::1]:53"
        ));
        // A flag is an answer, whatever it says.
        let flag = |flag: &str| (flag == "sidecar-port").then(|| "tcp://10.0.0.1:80".to_owned());
        let settings = Settings::resolve(flag, |_| None);
        assert_eq!(settings.value("sidecar-port").text, "tcp://10.0.0.1:80");
        assert_eq!(settings.service_links(), None);
    }
}
