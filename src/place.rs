//! Whether netra is where its traffic is: what can be seen of that without privileges, from the
//! sockets and links of this network. For the control thread, which says it once, and the doctor.

use netra_perf::{
    Key, Recorder,
    labels::{DIRECTIONS, PROTOCOLS},
};
use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tracing::{info, warn};

/// What of a list of sockets is read: some ten thousand.
const SOCKETS_BYTES_MAX: u64 = 2 << 20;

/// What is wrong with the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Misplaced {
    /// Nothing tracks connections here, so that nothing redirects them.
    NoRules,
    /// From outside, connections reach the application on these ports, and do not come by netra.
    Bypassed(BTreeSet<u16>),
    /// Others listen on these ports as netra's own user, whom the rules leave alone.
    OthersAsNetra(BTreeSet<u16>),
    /// The network has no link any more.
    NetworkGone,
}

impl Misplaced {
    /// The values of its label, in order.
    pub(crate) const CASES: [&'static str; 4] =
        ["no_rules", "bypassed", "others_as_netra", "network_gone"];

    /// Its place among them.
    pub(crate) fn case(&self) -> usize {
        match self {
            Self::NoRules => 0,
            Self::Bypassed(_) => 1,
            Self::OthersAsNetra(_) => 2,
            Self::NetworkGone => 3,
        }
    }

    /// What was found.
    pub(crate) fn found(&self) -> String {
        match self {
            Self::NoRules => {
                "no rules redirect anything: nothing tracks connections in this network".into()
            }
            Self::Bypassed(ports) => {
                format!("connections from outside reach port {} past netra", list(ports))
            }
            Self::OthersAsNetra(ports) => {
                format!("somebody else listens on port {} as netra's own user", list(ports))
            }
            Self::NetworkGone => "this network has no link any more".into(),
        }
    }

    /// What to do.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::NoRules => {
                "netra-init apply in this very network (the init container of the pod, docker \
                 --network container:NAME)"
            }
            Self::Bypassed(_) => {
                "netra-init doctor: rules are missing, leave this port or source out, or these \
                 connections are older than the rules (restart the client)"
            }
            Self::OthersAsNetra(_) => {
                "its traffic passes netra by: run it as another user (runAsUser, docker --user)"
            }
            Self::NetworkGone => {
                "the container whose network netra shares was restarted and is in another one: \
                 restart netra, too, and netra-init before it"
            }
        }
    }
}

fn list(ports: &BTreeSet<u16>) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

/// A socket of this network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) is_listening: bool,
    is_open: bool,
    pub(crate) uid: u32,
}

/// What there is to judge by.
#[derive(Debug)]
pub(crate) struct Facts {
    /// netra's user and its own ports.
    pub(crate) uid: u32,
    pub(crate) own_ports: Vec<u16>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) own_addresses: Vec<IpAddr>,
    /// Connections that are tracked while one is open at least; none where that cannot be seen.
    pub(crate) tracked: Option<u64>,
    /// Links beside loopback.
    pub(crate) links: usize,
    /// There were some.
    pub(crate) had_links: bool,
}

impl Facts {
    /// Looks at this network.
    pub(crate) fn read(uid: u32, own_ports: Vec<u16>, had_links: bool) -> Self {
        Self {
            uid,
            own_ports,
            sockets: sockets(),
            own_addresses: own_addresses(),
            tracked: tracked(),
            links: links(),
            had_links,
        }
    }

    /// What is wrong.
    pub(crate) fn judge(&self) -> Vec<Misplaced> {
        if self.had_links && self.links == 0 {
            return vec![Misplaced::NetworkGone];
        }
        let no_rules = (self.tracked == Some(0)).then_some(Misplaced::NoRules);
        let bypassed = some(self.bypassed()).map(Misplaced::Bypassed);
        let others = some(self.others()).map(Misplaced::OthersAsNetra);
        no_rules.into_iter().chain(bypassed).chain(others).collect()
    }

    /// Ports at which others than netra listen.
    pub(crate) fn applications(&self) -> BTreeSet<u16> {
        let is_other = |it: &&Socket| it.is_listening && !self.is_own(it);
        self.sockets.iter().filter(is_other).map(|it| it.local.port()).collect()
    }

    fn is_own(&self, socket: &Socket) -> bool {
        self.own_ports.contains(&socket.local.port())
    }

    /// Where rules redirect what comes from outside, the application sees netra's dials alone, and
    /// these come from this host.
    fn bypassed(&self) -> BTreeSet<u16> {
        let applications = self.applications();
        let is_bypass = |it: &&Socket| {
            let is_foreign =
                !it.remote.ip().is_loopback() && !self.own_addresses.contains(&it.remote.ip());
            it.is_open && it.uid != self.uid && is_foreign
        };
        let ports = self.sockets.iter().filter(is_bypass).map(|it| it.local.port());
        ports.filter(|port| applications.contains(port)).collect()
    }

    /// As root netra has everybody's user, and says that elsewhere.
    fn others(&self) -> BTreeSet<u16> {
        let is_other = |it: &&Socket| {
            self.uid != 0 && it.is_listening && it.uid == self.uid && !self.is_own(it)
        };
        self.sockets.iter().filter(is_other).map(|it| it.local.port()).collect()
    }
}

fn some(ports: BTreeSet<u16>) -> Option<BTreeSet<u16>> {
    (!ports.is_empty()).then_some(ports)
}

/// The TCP sockets of this network, as far as the file is read.
pub(crate) fn sockets() -> Vec<Socket> {
    let of = |name: &str| {
        let mut text = String::new();
        let file = fs::File::open(format!("/proc/thread-self/net/{name}"));
        let _ = file.map(|file| file.take(SOCKETS_BYTES_MAX).read_to_string(&mut text));
        text.lines().filter_map(socket).collect::<Vec<_>>()
    };
    ["tcp", "tcp6"].into_iter().flat_map(of).collect()
}

/// A line of proc_net_tcp(5): `sl local_address rem_address st tx:rx tr:when retrnsmt uid ...`.
fn socket(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    let uid = words.nth(3)?.parse().ok()?;
    let (local, remote) = (address(local)?, address(remote)?);
    Some(Socket { local, remote, is_listening: state == "0A", is_open: state == "01", uid })
}

/// Addresses are words as this machine stores them.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (at, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(8 * at)?);
            }
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn own_addresses() -> Vec<IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    addresses.filter_map(|it| it.address.and_then(ip)).collect()
}

/// Links that are up, beside loopback.
fn links() -> usize {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.filter(|name| *name != "lo").count()
}

/// Whether this network has other links than loopback.
fn has_links() -> bool {
    links() > 0
}

/// The kernel tracks connections of a network only while something there wants it, as every
/// redirect does. So a connection of our own is made, to ourselves, and it is seen whether any is.
fn tracked() -> Option<u64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    let _open = TcpStream::connect(listener.local_addr().ok()?).ok()?;
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok()?;
    count.trim().parse().ok()
}

/// Looks that found each case.
pub(crate) static SEEN: [AtomicU64; Misplaced::CASES.len()] =
    [const { AtomicU64::new(0) }; Misplaced::CASES.len()];

/// Seconds after the start at which the place is looked at, and between further looks.
const LOOKS_AT: [u32; 2] = [5, 20];
const LOOK_EVERY: u32 = 60;
/// Seconds between looks for links, which cost nothing.
const LINKS_EVERY: u32 = 5;

/// Looks now and then, and says each case once when it begins.
#[derive(Debug)]
pub(crate) struct Watch {
    own_ports: Vec<u16>,
    recorders: Vec<Arc<Recorder>>,
    had_links: bool,
    seconds: u32,
    said: [bool; Misplaced::CASES.len()],
    has_said_unused: bool,
}

impl Watch {
    pub(crate) fn new(own_ports: Vec<u16>, recorders: Vec<Arc<Recorder>>) -> Self {
        let said = Default::default();
        let had_links = has_links();
        Self { own_ports, recorders, had_links, seconds: 0, said, has_said_unused: false }
    }

    /// Call it once a second.
    pub(crate) fn look(&mut self) {
        self.seconds = self.seconds.wrapping_add(1);
        let is_due = LOOKS_AT.contains(&self.seconds) || self.seconds.is_multiple_of(LOOK_EVERY);
        let is_gone = || self.had_links && self.seconds.is_multiple_of(LINKS_EVERY) && !has_links();
        if is_due || is_gone() {
            let uid = nix::unistd::geteuid().as_raw();
            let facts = Facts::read(uid, self.own_ports.clone(), self.had_links);
            self.say(&facts);
        }
    }

    fn say(&mut self, facts: &Facts) {
        let found = facts.judge();
        let mut is_found = [false; Misplaced::CASES.len()];
        for misplaced in &found {
            let case = misplaced.case();
            is_found[case] = true;
            SEEN[case].fetch_add(1, Relaxed);
            if !self.said[case] {
                let (case, advice) = (Misplaced::CASES[case], misplaced.advice());
                warn!(case, "misplaced: {}: {advice}", misplaced.found());
            }
        }
        self.said = is_found;
        let applications = facts.applications();
        let is_unused = found.is_empty() && !applications.is_empty() && self.redirected() == 0;
        if is_unused && self.seconds >= LOOKS_AT[1] && !self.has_said_unused {
            self.has_said_unused = true;
            info!(
                ports = list(&applications),
                "no connection was redirected yet, though an application listens: if there was \
                 traffic, netra-init doctor"
            );
        }
    }

    fn redirected(&self) -> u64 {
        let keys = (0..DIRECTIONS.len())
            .flat_map(|direction| (0..PROTOCOLS.len()).map(move |it| Key::opened(direction, it)));
        keys.map(|key| self.recorders.iter().map(|it| it.get(key)).sum::<u64>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.1 writes them, on a little-endian machine.
    const LISTENING: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 \
                             00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0";
    const OPEN_V6: &str = "   1: 0000000000000000FFFF00000200003D:1F90 \
                           0000000000000000FFFF00000100003D:C350 01 00000000:00000000 00:00000000 \
                           00000000     0        0 12346 1 0000000000000000 20 4 30 10 -1";

    #[test]
    fn sockets_are_read_as_the_kernel_writes_them() {
        let listening = socket(LISTENING).unwrap();
        assert_eq!(listening.local, "127.0.0.1:8080".parse().unwrap());
        assert!(listening.is_listening && listening.uid == 1000);
        let open = socket(OPEN_V6).unwrap();
        assert_eq!(open.local, "61.0.0.2:8080".parse().unwrap());
        assert_eq!(open.remote, "61.0.0.1:50000".parse().unwrap());
        assert!(open.is_open && !open.is_listening && open.uid == 0);
        let head =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid";
        assert_eq!(socket(head), None);
        assert_eq!(socket(""), None);
        assert_eq!(address("0100007F00:1F90"), None);
    }

    fn facts(sockets: &[&str]) -> Facts {
        Facts {
            uid: 1337,
            own_ports: vec![14956],
            sockets: sockets.iter().filter_map(|line| socket(line)).collect(),
            own_addresses: vec!["61.0.0.2".parse().unwrap()],
            tracked: Some(3),
            links: 1,
            had_links: true,
        }
    }

    #[test]
    fn each_case_is_told_from_what_is_as_it_should_be() {
        let listening = LISTENING.replace("0100007F", "00000000");
        let own = OPEN_V6.replace("0100003D", "0200003D");
        let good = facts(&[&listening, &own]);
        assert_eq!(good.judge(), []);
        assert_eq!(good.applications(), BTreeSet::from([8080]));
        let bypassed = facts(&[&listening, OPEN_V6]);
        assert_eq!(bypassed.judge(), [Misplaced::Bypassed(BTreeSet::from([8080]))]);
        // What the application dials itself has another port here.
        assert_eq!(facts(&[OPEN_V6]).judge(), []);
        let as_netra = listening.replace(" 1000 ", " 1337 ");
        let others = Misplaced::OthersAsNetra(BTreeSet::from([8080]));
        assert_eq!(facts(&[&as_netra]).judge(), [others]);
        let netra = as_netra.replace("1F90", "3A6C");
        assert_eq!(facts(&[&netra]).judge(), []);
        assert_eq!(Facts { tracked: Some(0), ..facts(&[]) }.judge(), [Misplaced::NoRules]);
        assert_eq!(Facts { tracked: None, ..facts(&[]) }.judge(), []);
        let gone = Facts { links: 0, tracked: Some(0), ..facts(&[]) };
        assert_eq!(gone.judge(), [Misplaced::NetworkGone]);
        assert_eq!(Facts { had_links: false, ..gone }.judge(), [Misplaced::NoRules]);
    }

    #[test]
    fn every_case_has_its_label_and_a_remedy() {
        let ports = BTreeSet::from([1, 2]);
        let all = [
            Misplaced::NoRules,
            Misplaced::Bypassed(ports.clone()),
            Misplaced::OthersAsNetra(ports),
            Misplaced::NetworkGone,
        ];
        for (at, case) in all.iter().enumerate() {
            assert_eq!(case.case(), at);
            assert!(!case.found().is_empty() && !case.advice().is_empty());
        }
        assert!(all[1].found().contains("port 1, 2"));
    }
}
