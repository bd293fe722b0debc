//! The doctor: looks at everything that can be in the way of the rules, and changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::backend::{Backend, Backends, has_ipv6_addresses, has_ipv6_sockets};
use crate::cli::Request;
use crate::error::{Error, Kind, Result};
use crate::spec::{Inbound, InterceptSpec, Ipv6, Outbound};
use crate::{capability, conntrack, links, sys};

/// What was found about one thing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// The thing, a constant word.
    pub name: &'static str,
    /// Whether it is in the way.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, if there is something to do.
    pub advice: &'static str,
}

/// Whether something is in the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is not.
    Ok,
    /// It can be.
    Warn,
    /// It is; the kind decides the exit code.
    Fail(Kind),
}

impl Verdict {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail(_) => "fail",
        }
    }
}

impl Check {
    const fn ok(name: &'static str, found: String) -> Self {
        Self { name, verdict: Verdict::Ok, found, advice: "" }
    }

    const fn warn(name: &'static str, found: String, advice: &'static str) -> Self {
        Self { name, verdict: Verdict::Warn, found, advice }
    }

    const fn fail(name: &'static str, kind: Kind, found: String, advice: &'static str) -> Self {
        Self { name, verdict: Verdict::Fail(kind), found, advice }
    }
}

/// Reports every check; the error says how many failed, with the kind of the first.
pub(crate) fn examine(request: &Request, backends: &Backends<'_>) -> Result<()> {
    let mut checks = vec![kernel(), capabilities()];
    let has_net_admin = checks.iter().all(|check| !matches!(check.verdict, Verdict::Fail(_)));
    if has_net_admin {
        checks.extend(backend_checks(backends));
        checks.push(rules(backends));
    }
    checks.push(links(&request.spec));
    checks.push(loopback());
    checks.push(ipv6(request.spec.ipv6));
    checks.push(connection_tracking());
    let spec = &request.spec;
    checks.push(uid_clash(&spec.outbound, &listeners(spec)));
    checks.push(sidecar(&spec.inbound));
    checks.push(io_uring());
    for check in &checks {
        backends.reporter.check(check);
    }
    let failed: Vec<&Check> =
        checks.iter().filter(|check| matches!(check.verdict, Verdict::Fail(_))).collect();
    match failed.first() {
        Some(Check { verdict: Verdict::Fail(kind), name, .. }) => {
            let more = match failed.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            Err(Error::new(*kind, format!("doctor: {name}{more} in the way")))
        }
        _ => Ok(()),
    }
}

/// The first with nat in inet tables.
const KERNEL_MIN: (u32, u32) = (5, 2);

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    match kernel_version(&release) {
        Some(version) if version < KERNEL_MIN => {
            Check::warn("kernel", release, "nft-native needs Linux 5.2; use an image with iptables")
        }
        Some(_) => Check::ok("kernel", release),
        None => Check::warn("kernel", format!("unknown: \"{release}\""), "is /proc mounted?"),
    }
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn capabilities() -> Check {
    let name = "capabilities";
    let has = match sys::capabilities() {
        Ok(has) => has,
        Err(source) => return Check::warn(name, format!("cannot ask: {source}"), ""),
    };
    let is_missing = |capability: u32| has & (1 << capability) == 0;
    if is_missing(sys::NET_ADMIN) {
        let found = "CAP_NET_ADMIN is missing".to_owned();
        return Check::fail(name, Kind::Capability, found, capability::remedy());
    }
    if is_missing(sys::NET_RAW) {
        let found = "CAP_NET_ADMIN, but not CAP_NET_RAW".to_owned();
        return Check::warn(name, found, "only iptables-legacy needs it");
    }
    Check::ok(name, "CAP_NET_ADMIN, CAP_NET_RAW".to_owned())
}

fn backend_checks(backends: &Backends<'_>) -> Vec<Check> {
    let order = backends.order();
    let tried: Vec<(Backend, Result<String>)> =
        Backend::ALL.into_iter().map(|backend| (backend, backends.try_out(backend))).collect();
    let works = |wanted: &Backend| tried.iter().any(|(b, tried)| b == wanted && tried.is_ok());
    let chosen = order.iter().copied().find(works);
    let mut checks: Vec<Check> = tried
        .iter()
        .map(|(backend, tried)| match tried {
            Ok(how) => Check::ok(backend.name(), how.clone()),
            Err(error) => Check::warn(backend.name(), error.to_string(), ""),
        })
        .collect();
    checks.push(match chosen {
        Some(backend) => Check::ok("backend", format!("{} would be used", backend.name())),
        None => Check::fail(
            "backend",
            Kind::Kernel,
            "none of the wanted backends works".to_owned(),
            "load the modules named above on the node, or install iptables",
        ),
    });
    checks
}

fn rules(backends: &Backends<'_>) -> Check {
    match backends.status() {
        Ok(backend) => Check::ok(
            "rules",
            format!(
                "applied ({}); they take only what is addressed to this machine",
                backend.name()
            ),
        ),
        Err(error) => Check::warn("rules", error.to_string(), "netra-init apply"),
    }
}

fn links(spec: &InterceptSpec) -> Check {
    let name = "links";
    match links::losses(spec) {
        Ok(None) => Check::ok(name, "every link can take what is redirected".to_owned()),
        Ok(Some(losses)) => Check::warn(name, losses, links::ADVICE),
        Err(source) => Check::warn(name, format!("cannot look: {source}"), ""),
    }
}

/// Whether others get to 127.0.0.1 by the kernel alone. The rules leave that to it.
fn loopback() -> Check {
    let (name, folder) = ("loopback", "/proc/sys/net/ipv4/conf");
    let is_open = |link: &String| {
        let route_localnet = fs::read_to_string(format!("{folder}/{link}/route_localnet"));
        link != "default" && route_localnet.is_ok_and(|text| text.trim() == "1")
    };
    let links = fs::read_dir(folder).into_iter().flatten().flatten();
    let links = links.map(|link| link.file_name().to_string_lossy().into_owned());
    let open: BTreeSet<String> = links.filter(is_open).collect();
    if open.is_empty() {
        return Check::ok(name, "127.0.0.1 is for this machine alone".to_owned());
    }
    let open = open.into_iter().collect::<Vec<_>>().join(", ");
    let found = format!("route_localnet is on ({open}): neighbours may get to 127.0.0.1");
    Check::warn(name, found, "not by netra; a firewall, or net.ipv4.conf.*.route_localnet=0")
}

fn ipv6(mode: Ipv6) -> Check {
    let found = match (has_ipv6_sockets(), has_ipv6_addresses()) {
        (false, _) => "the kernel has none",
        (true, false) => "no interface has an address of more than its link",
        (true, true) => "interfaces have addresses",
    };
    let (name, found) = ("ipv6", found.to_owned());
    match mode {
        Ipv6::Require if !has_ipv6_sockets() => {
            Check::fail(name, Kind::Kernel, found, "--ipv6 require cannot be met: auto or off")
        }
        Ipv6::Off if has_ipv6_addresses() => {
            Check::warn(name, found, "--ipv6 off: this traffic bypasses the sidecar")
        }
        _ => Check::ok(name, found),
    }
}

/// Percent of the connection tracking table above which it is worth a warning.
const CONNTRACK_WARN: u64 = 80;

fn connection_tracking() -> Check {
    let name = "conntrack";
    let Some((count, max)) = conntrack::usage() else {
        return Check::ok(name, "not in use yet".to_owned());
    };
    let found = format!("{count} of {max} entries");
    if max > 0 && count.saturating_mul(100) / max >= CONNTRACK_WARN {
        let advice = "raise net.netfilter.nf_conntrack_max on the node: a full table drops packets";
        return Check::warn(name, found, advice);
    }
    Check::ok(name, found)
}

/// Names of programs that may run as the sidecar's user.
const SIDECARS: [&str; 2] = ["netra", "netra-init"];

/// Ports, other than the sidecar's, at which somebody listens as its user. Whose process that is may
/// be hidden, in another PID namespace; its socket is not.
fn listeners(spec: &InterceptSpec) -> BTreeSet<u16> {
    let own = spec.outbound.own_uid;
    let listening = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let port = u16::from_str_radix(words.next()?.rsplit_once(':')?.1, 16).ok()?;
        let is_listening = words.nth(1)? == LISTEN;
        let uid = words.nth(3)?.parse::<u32>().ok()?;
        (is_listening && uid == own && !spec.inbound.own_ports.contains(port)).then_some(port)
    };
    let sockets = ["tcp", "tcp6"].map(|family| {
        fs::read_to_string(format!("/proc/thread-self/net/{family}")).unwrap_or_default()
    });
    sockets.iter().flat_map(|text| text.lines().filter_map(listening)).collect()
}

/// Looks for processes of this network namespace that bypass the sidecar because they run as its
/// user or group.
fn uid_clash(spec: &Outbound, listeners: &BTreeSet<u16>) -> Check {
    let name = "uid";
    let (uid, gid) = (spec.own_uid, spec.own_gid);
    let netns = |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).map(|m| m.ino());
    let ours = netns("thread-self").ok();
    let mut clashing = BTreeSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = process.file_name().to_string_lossy().into_owned();
        let is_process = id.bytes().all(|byte| byte.is_ascii_digit());
        // Who cannot be looked at counts as here: a false alarm is better than a silent bypass.
        if !is_process || netns(&id).is_ok_and(|theirs| Some(theirs) != ours) {
            continue;
        }
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let program = field(&status, "Name:").and_then(|mut words| words.next());
        let program = program.unwrap_or_default();
        let is = |key, id: u32| {
            field(&status, key).is_some_and(|mut ids| ids.any(|i| i == id.to_string()))
        };
        if (is("Uid:", uid) || is("Gid:", gid)) && !SIDECARS.contains(&program) {
            clashing.insert(format!("{program} (process {id})"));
        }
    }
    let unseen = listeners.iter().filter(|_| clashing.is_empty());
    clashing
        .extend(unseen.map(|port| format!("whoever listens on port {port}")).collect::<Vec<_>>());
    if clashing.is_empty() {
        return Check::ok(name, format!("nobody but netra runs as uid {uid} or gid {gid}"));
    }
    let found = format!(
        "run as uid {uid} or gid {gid}, so they bypass the sidecar: {}",
        clashing.into_iter().collect::<Vec<_>>().join(", ")
    );
    Check::warn(
        name,
        found,
        "run the application as another user and group (kubernetes: another runAsUser; docker: --user)",
    )
}

/// The words behind a key of `/proc/PID/status`.
fn field<'a>(status: &'a str, key: &str) -> Option<std::str::SplitAsciiWhitespace<'a>> {
    status.lines().find_map(|line| line.strip_prefix(key)).map(str::split_ascii_whitespace)
}

fn sidecar(spec: &Inbound) -> Check {
    let port = spec.redirect_port;
    let listens = ["tcp", "tcp6"].iter().any(|family| {
        let sockets = fs::read_to_string(format!("/proc/thread-self/net/{family}"));
        is_listening(&sockets.unwrap_or_default(), port)
    });
    match listens {
        true => match netra(spec) {
            Some(said) => Check::ok("sidecar", format!("listens on port {port}: {said}")),
            None => Check::warn(
                "sidecar",
                format!("somebody listens on port {port} who does not say that it is netra"),
                "end that program, or give netra another port (NETRA_PORT; both programs); a netra whose \
                 NETRA_PPROF_PORT is none of --own-ports cannot be asked",
            ),
        },
        false => Check::warn(
            "sidecar",
            format!("nobody listens on port {port}"),
            "as long as rules are in place, connections are refused",
        ),
    }
}

/// What netra says of itself on its own ports, one of which is for that.
fn netra(spec: &Inbound) -> Option<String> {
    let ports = spec.own_ports.ranges().iter().flat_map(|range| range.first..=range.last);
    let others = ports.filter(|port| *port != spec.redirect_port);
    others.take(ASKED_MAX).find_map(|port| ask(port).ok().flatten())
}

/// Ports that are asked at most, and how long one may take.
const ASKED_MAX: usize = 8;
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);
/// Far more than what it says of itself.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

fn ask(port: u16) -> io::Result<Option<String>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWERED_WITHIN)?;
    stream.set_read_timeout(Some(ANSWERED_WITHIN))?;
    write!(stream, "GET /shards HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // What has come by then may be enough.
    let _ = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let word = |name: &str| {
        let (_, rest) = answer.split_once(&format!("\n  \"{name}\": \""))?;
        let word = rest.split_once('"')?.0;
        word.chars().all(|c| c.is_ascii_graphic()).then_some(word)
    };
    let is_good = answer.starts_with("HTTP/1.1 200 ") && word("driver").is_some();
    Ok(word("version").filter(|_| is_good).map(|version| format!("netra {version}")))
}

/// The state of a socket that listens.
const LISTEN: &str = "0A";

fn is_listening(sockets: &str, port: u16) -> bool {
    let (suffix, listen) = (format!(":{port:04X}"), LISTEN);
    sockets.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&suffix)) && words.nth(1) == Some(listen)
    })
}

fn io_uring() -> Check {
    let name = "io_uring";
    match sys::probe_io_uring() {
        Ok(()) => Check::ok(name, "allowed for this process".to_owned()),
        Err(source) => {
            let why = match source.raw_os_error() {
                Some(libc::EPERM) => "the container's seccomp profile or kernel.io_uring_disabled",
                Some(libc::ENOSYS) => "the kernel has none, or a seccomp profile hides it",
                _ => "unexpected",
            };
            let found = format!("refused: {}: {why}; the sidecar would use epoll", cause(&source));
            Check::ok(name, found)
        }
    }
}

/// An error without its number.
fn cause(source: &io::Error) -> String {
    let text = source.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kernels() {
        assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(kernel_version("5.2"), Some((5, 2)));
        assert!(kernel_version("5.1.99-generic").is_some_and(|version| version < KERNEL_MIN));
        assert_eq!(kernel_version("linux"), None);
    }

    #[test]
    fn listeners_are_told_from_connections() {
        let line = |state| format!("   0: 00000000:3A6C 00000000:0000 {state} 00000000:00000000");
        assert!(is_listening(&line("0A"), 14956));
        assert!(!is_listening(&line("01"), 14956));
        assert!(!is_listening(&line("0A"), 14957));
    }
}
