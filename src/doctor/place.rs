//! Whether netra is where its traffic is, and who else is there.

use super::Check;
use crate::{
    config::Config,
    exit::Exit,
    inside,
    place::{Facts, Misplaced},
};
use serde_json::Value;
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// Nobody has it (RFC 5737), so that only a redirect answers.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 1404);
/// A redirect ends on this machine, where a handshake takes no time.
const REDIRECTED_WITHIN: Duration = Duration::from_millis(300);

/// Where a running netra tells of itself.
pub(crate) fn admin_of(config: &Config) -> String {
    let address = config.admin.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let address = if address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address };
    SocketAddr::new(address, config.admin.port).to_string()
}

/// What a netra that runs here tells of itself.
pub(super) fn running(config: &Config) -> Option<Value> {
    inside::get(&admin_of(config), "/shards").ok().filter(|it| it["driver"].is_string())
}

pub(super) fn checks(config: &Config, has_network: bool, running: Option<&Value>) -> Vec<Check> {
    let is_running = running.is_some();
    let own_ports = vec![config.port, config.metrics_port, config.admin.port];
    let facts = Facts::read(uid_of_netra(config), own_ports, is_running);
    let found = facts.judge();
    let mut checks = vec![rules(&found, &facts, running)];
    let others = found.iter().filter(|it| !matches!(it, Misplaced::NoRules));
    checks.extend(others.map(|it| Check::odd("place", it.found(), it.advice())));
    if checks.len() == 1 {
        checks.push(Check::good("place", "nobody is seen to pass netra by"));
    }
    if is_running {
        checks.extend(control(config));
    }
    if has_network && is_running && facts.uid == nix::unistd::geteuid().as_raw() {
        checks.extend(own_dials());
    }
    checks
}

/// Silence of netra-control that is none any more: two of its answers without a change.
const STALE_S: u64 = 120;

/// Whether netra-control answers a running netra that has its rules from there.
fn control(config: &Config) -> Option<Check> {
    let name = "netra-control";
    let page = inside::get(&admin_of(config), "/rules").ok()?;
    let told = page.get("control")?;
    let (stale, is_heard) = (told["stale_s"].as_u64()?, told["is_heard"].as_bool()?);
    let found = match (is_heard, stale <= STALE_S) {
        (true, true) => return Some(Check::good(name, format!("answered {stale} s ago"))),
        (false, true) => format!("has not answered yet, {stale} s after the start"),
        (true, false) => format!("answered {stale} s ago; what it said last is in force"),
        (false, false) => format!("has not answered in the {stale} s since the start"),
    };
    Some(Check::odd(name, found, "the log says why: NETRA_RULES_URL, the token, the certificate"))
}

/// The user of whoever listens on netra's port, as the kernel says; else this one.
fn uid_of_netra(config: &Config) -> u32 {
    let sockets = crate::place::sockets();
    let netra = sockets.iter().find(|it| it.is_listening && it.local.port() == config.port);
    netra.map_or_else(|| nix::unistd::geteuid().as_raw(), |it| it.uid)
}

fn rules(found: &[Misplaced], facts: &Facts, running: Option<&Value>) -> Check {
    let name = "rules";
    if let Some(missing) = found.iter().find(|it| matches!(it, Misplaced::NoRules)) {
        return Check::odd(name, missing.found(), missing.advice());
    }
    let redirected = running.and_then(|it| it["connections"]["opened"].as_u64());
    match (redirected, facts.tracked) {
        (Some(count @ 1..), _) => {
            Check::good(name, format!("{count} connections were redirected since the start"))
        }
        (Some(0), Some(_)) if !facts.applications().is_empty() => Check::good(
            name,
            "none was redirected yet, though somebody listens; which rules there are takes \
             CAP_NET_ADMIN to see: netra-init doctor",
        ),
        (_, Some(_)) => Check::good(
            name,
            "something tracks connections; which rules there are takes CAP_NET_ADMIN to see: \
             netra-init doctor",
        ),
        (_, None) => Check::good(name, "not to be seen from here: netra-init doctor"),
    }
}

/// Whether the rules send netra's own dials back to it.
fn own_dials() -> Option<Check> {
    let name = "own dials";
    let is_redirected = match TcpStream::connect_timeout(&NOBODY, REDIRECTED_WITHIN) {
        Ok(_) => true,
        // Nobody listens, or netra has accepted and reset it before this thread ran again.
        Err(error) => {
            matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
        }
    };
    Some(match is_redirected {
        true => Check::odd(
            name,
            "the rules send connections of netra's own user back to it",
            "tell netra-init its user: NETRA_SIDECAR_USER_ID, NETRA_SIDECAR_GROUP_ID",
        ),
        false => Check::good(name, "are left alone"),
    })
}

/// Whether a port is free, or whose it is.
pub(super) fn port(config: &Config, setting: &'static str, port: u16) -> Check {
    let Err(error) = TcpListener::bind(("0.0.0.0", port)) else {
        return Check::good(setting, format!("{port} is free"));
    };
    let admin = admin_of(config);
    let who = inside::who(&admin);
    // A netra that runs may have other ports than this configuration, and somebody else have this one.
    let its_own = who.as_ref().and_then(|_| inside::value(&admin, setting));
    if let (Some(who), Some(true)) = (&who, its_own.as_ref().map(|own| *own == port.to_string())) {
        return Check::good(setting, format!("{port} is {who}, which is running"));
    }
    let sockets = crate::place::sockets();
    let whose = sockets.iter().find(|it| it.is_listening && it.local.port() == port);
    let whose = whose.map_or_else(String::new, |it| format!(", by a program of uid {}", it.uid));
    let netra = match (who, its_own) {
        (Some(who), Some(own)) => format!("{who} answers at {admin}, and its {setting} is {own}"),
        _ => format!("no netra answers at {admin}"),
    };
    let found = format!("{port}: {error}{whose}, and {netra}");
    Check {
        is: super::Is::Bad(Exit::UNAVAILABLE),
        ..Check::odd(setting, found, "end that program, or give netra another port")
    }
}
