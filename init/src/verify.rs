//! Proves the rules with a real connection: listens on the sidecar's port, dials an address that
//! nobody has, and looks who answers.
//!
//! Runs unprivileged, but not as an excluded user, and not while the sidecar has the port. With
//! CAP_SETUID and CAP_SETGID it also proves that the sidecar's own connections are let through.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::cli::Request;
use crate::error::{Error, Kind, Result};
use crate::neighbour::{self, Outcome};
use crate::ranges::{Bound, Range};
use crate::report::Reporter;
use crate::spec::{Inbound, Ipv6, Outbound, Ports};
use crate::sys;

const TOKEN_BYTES: usize = 64;
/// Dialled if the rules intercept every port.
const PORT: u16 = 1404;
/// RFC 5737 TEST-NET-1 and RFC 6666 discard prefix: nobody answers there.
const TEST_ADDRS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 2)),
];
/// Connections of others that may come in before ours.
const STRANGERS_MAX: usize = 64;

/// Probes each family the rules should cover.
pub(crate) fn verify(request: &Request, reporter: Reporter) -> Result<()> {
    let outbound = &request.spec.outbound;
    refuse_excluded(outbound)?;
    if !outbound.probability.is_always() {
        return Err(failed("--outbound-probability below 1: one connection would prove nothing"));
    }
    let timeout = Duration::from_secs(request.verify_timeout_seconds.into());
    let (mut proven, mut untold) = (0, Vec::new());
    for v4 in [true, false] {
        if !v4 && !wants_ipv6(request.spec.ipv6)? {
            continue;
        }
        let name = if v4 { "IPv4" } else { "IPv6" };
        let Some(target) = target(outbound, v4) else {
            reporter.warn("not-verified", &format!("{name}: nothing is to be intercepted"));
            continue;
        };
        if let Err(source) = has_route(target) {
            let why = format!("{name}: there is no route to {target} here ({source})");
            if !v4 && request.spec.ipv6 == Ipv6::Require {
                return Err(failed(format!("--ipv6 require: {why}")));
            }
            reporter.warn("not-verified", &format!("{why}: whether rules redirect cannot be told"));
            untold.push(why);
            continue;
        }
        probe(target, outbound.redirect_port, timeout)?;
        proven += 1;
        let own = match has_all(&[sys::SETUID, sys::SETGID]) {
            true => {
                probe_exemption(target, outbound)?;
                "; the sidecar's own connections do not"
            }
            false => "",
        };
        let message = format!("verified: {target} reaches the sidecar port{own}");
        reporter.result("verified", &message, &[("target", &target.to_string())]);
        play_neighbour(&request.spec.inbound, v4, reporter)?;
    }
    match (proven, untold.is_empty()) {
        (0, false) => Err(failed(format!(
            "it cannot be told whether the rules redirect: {}; netra-init status compares them",
            untold.join("; ")
        ))),
        _ => Ok(()),
    }
}

/// The kernel looks for a route before any rule sees a packet. To connect a datagram socket is to do
/// that and nothing else.
fn has_route(target: SocketAddr) -> io::Result<()> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0))?.connect(target)
}

/// Proves that a neighbour on a link reaches nothing through the sidecar that is not ours.
fn play_neighbour(inbound: &Inbound, v4: bool, reporter: Reporter) -> Result<()> {
    let name = if v4 { "IPv4" } else { "IPv6" };
    let skip = |why: &str| {
        let message = format!("{name}: not tried what a neighbour on a link reaches: {why}");
        reporter.warn("not-verified", &message);
        Ok(())
    };
    let is_left_alone =
        |port: &u16| inbound.exclude_ports.contains(*port) || inbound.own_ports.contains(*port);
    let (true, Some(port)) = (inbound.probability.is_always(), port(&inbound.ports, is_left_alone))
    else {
        return skip("not all inbound connections are to be intercepted");
    };
    if !has_all(&[sys::NET_ADMIN, sys::NET_RAW]) {
        return skip("it takes CAP_NET_ADMIN and CAP_NET_RAW");
    }
    match neighbour::probe(v4, port, inbound.redirect_port) {
        Ok(Outcome::Safe) => {
            let message = format!("verified: {name}: a neighbour on a link reaches nothing else");
            reporter.result("verified-neighbour", &message, &[]);
            Ok(())
        }
        Ok(Outcome::Reached(address)) => Err(failed(format!(
            "a neighbour on a link that routes {address} through this machine reaches the sidecar \
             with it: apply the rules of this netra-init"
        ))),
        Ok(Outcome::NoControl) => skip("the rules, or a firewall, let nothing in by a new link"),
        Err(source) => skip(&source.to_string()),
    }
}

fn has_all(capabilities: &[u32]) -> bool {
    let has = sys::capabilities().unwrap_or(0);
    capabilities.iter().all(|capability| has & (1 << capability) != 0)
}

/// Redirected connections end on this machine, where a handshake takes no time.
const REDIRECTED_WITHIN: Duration = Duration::from_millis(300);

/// Dials as the sidecar would, by user alone and by group alone, as either is enough.
fn probe_exemption(target: SocketAddr, outbound: &Outbound) -> Result<()> {
    let listener = listen(target, outbound.redirect_port)?;
    listener.set_nonblocking(true).map_err(|source| failed(source.to_string()))?;
    let ids = ids();
    let (uid, gid) = (ids.0.unwrap_or(0), ids.1.unwrap_or(0));
    let (own_uid, own_gid) = (outbound.own_uid, outbound.own_gid);
    for (as_uid, as_gid, who) in
        [(own_uid, gid, format!("uid {own_uid}")), (uid, own_gid, format!("gid {own_gid}"))]
    {
        sys::make_sockets_as(as_uid, as_gid);
        let dialled = TcpStream::connect_timeout(&target, REDIRECTED_WITHIN);
        sys::make_sockets_as(uid, gid);
        let Ok(local) = dialled.and_then(|dialled| dialled.local_addr()) else { continue };
        let is_redirected =
            (0..STRANGERS_MAX).map_while(|_| listener.accept().ok()).any(|(_, peer)| peer == local);
        if is_redirected {
            let message = format!("the sidecar's own {who} is redirected, too: it would loop");
            return Err(failed(message));
        }
    }
    Ok(())
}

fn listen(target: SocketAddr, port: u16) -> Result<TcpListener> {
    // Where the kernel redirects connections of this machine to.
    let loopback: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    TcpListener::bind((loopback, port)).map_err(|source| {
        failed(format!("listen on {loopback} port {port}: {source}; run verify before the sidecar"))
    })
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(Kind::Verify, format!("verify: {}", message.into()))
}

fn wants_ipv6(mode: Ipv6) -> Result<bool> {
    match (mode, TcpListener::bind((Ipv6Addr::LOCALHOST, 0))) {
        (Ipv6::Off, _) | (Ipv6::Auto, Err(_)) => Ok(false),
        (_, Ok(_)) => Ok(true),
        (Ipv6::Require, Err(source)) => Err(failed(format!("--ipv6 require: {source}"))),
    }
}

/// Connections of excluded users are left alone, so the probe would fail for the wrong reason.
fn refuse_excluded(outbound: &Outbound) -> Result<()> {
    let (uid, gid) = ids();
    if uid.is_some_and(|uid| outbound.exclude_uids.contains(&uid))
        || gid.is_some_and(|gid| outbound.exclude_gids.contains(&gid))
        || gid.is_some_and(|gid| {
            outbound.include_gids.as_ref().is_some_and(|gids| !gids.contains(&gid))
        })
    {
        let message = "this process runs as a user or group that is not intercepted; \
                       run verify as the application's user";
        return Err(Error::new(Kind::Usage, format!("verify: {message}")));
    }
    Ok(())
}

/// The user and group that sockets of this process carry.
fn ids() -> (Option<u32>, Option<u32>) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    // "Uid:\treal\teffective\tsaved\tfilesystem"; sockets carry the last.
    let id = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(3)?.parse::<u32>().ok()
    };
    (id("Uid:"), id("Gid:"))
}

/// An address and port of the family that the rules should intercept.
fn target(outbound: &Outbound, v4: bool) -> Option<SocketAddr> {
    let port = port(&outbound.ports, |port| outbound.exclude_ports.contains(*port))?;
    let test_addr = if v4 { TEST_ADDRS[0] } else { TEST_ADDRS[1] };
    // The second address of a range: the first may stand for the network itself.
    fn second<T: Bound>(range: &Range<T>) -> T {
        range.first.next().filter(|next| *next <= range.last).unwrap_or(range.first)
    }
    let included: Vec<IpAddr> = match &outbound.include_destinations {
        None => vec![test_addr],
        Some(addrs) if v4 => {
            addrs.v4.ranges().iter().map(|range| Ipv4Addr::from(second(range)).into()).collect()
        }
        Some(addrs) => {
            addrs.v6.ranges().iter().map(|range| Ipv6Addr::from(second(range)).into()).collect()
        }
    };
    let is_left_alone = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => outbound.exclude_destinations.v4.contains((*addr).into()),
        IpAddr::V6(addr) => outbound.exclude_destinations.v6.contains((*addr).into()),
    };
    let addr = included.into_iter().find(|addr| !is_left_alone(addr) && !addr.is_loopback())?;
    Some(SocketAddr::new(addr, port))
}

/// A port that is intercepted.
fn port(ports: &Ports, is_left_alone: impl Fn(&u16) -> bool) -> Option<u16> {
    let is_meant = |port: &u16| !is_left_alone(port);
    match ports {
        Ports::All => std::iter::once(PORT).chain(1..=u16::LAST).find(is_meant),
        Ports::Only(ports) => {
            let ranges = ports.ranges().iter();
            ranges.flat_map(|range| range.first..=range.last).find(is_meant)
        }
    }
}

fn probe(target: SocketAddr, port: u16, timeout: Duration) -> Result<()> {
    let listener = listen(target, port)?;
    let deadline = Instant::now() + timeout;
    let mut token = [0; TOKEN_BYTES];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut token));
    random.map_err(|source| failed(format!("/dev/urandom: {source}")))?;
    let bypass = |source: io::Error| {
        failed(format!(
            "{target} was not redirected to port {port}: the rules are missing or others (dial: \
             {source}); netra-init status"
        ))
    };
    let mut dialled = TcpStream::connect_timeout(&target, timeout).map_err(bypass)?;
    dialled.write_all(&token).map_err(bypass)?;
    let local = dialled.local_addr().map_err(bypass)?;
    listener.set_nonblocking(true).map_err(bypass)?;
    for _ in 0..STRANGERS_MAX {
        // The handshake is done, so our connection is in the queue if it came here at all.
        let Ok((accepted, peer)) = listener.accept() else { break };
        if peer == local {
            return check(accepted, target, &token, deadline);
        }
    }
    Err(failed(format!("{target} was answered, but not by port {port} of this machine")))
}

fn check(
    mut accepted: TcpStream,
    target: SocketAddr,
    token: &[u8; TOKEN_BYTES],
    deadline: Instant,
) -> Result<()> {
    let broken = |source: io::Error| failed(format!("read the probe's bytes: {source}"));
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    accepted.set_nonblocking(false).map_err(broken)?;
    accepted.set_read_timeout(Some(left)).map_err(broken)?;
    let mut read = [0; TOKEN_BYTES];
    accepted.read_exact(&mut read).map_err(broken)?;
    if read != *token {
        return Err(failed("the bytes that arrived are not those that were sent"));
    }
    match sys::original_dst(&accepted) {
        Ok(original) if original == target => Ok(()),
        Ok(original) => Err(failed(format!("dialled {target}, but the kernel says {original}"))),
        Err(source) => Err(failed(format!("SO_ORIGINAL_DST: {source}"))),
    }
}
