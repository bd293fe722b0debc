//! Real connections through the rules: a pod and a peer, two network namespaces and a veth.

mod common;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use common::net::{
    APP_PORTS, APP_UID, Net, PEER, POD, SIDECAR_PORT, TIMEOUT, dial_from, dial_listed,
    serve_listed, target,
};
use common::{BACKENDS, expect, isolated, line, must, netra_init_command};

/// Not a test: the client.
#[test]
fn helper_dial() {
    dial_listed();
}

/// Not a test: the servers of the peer.
#[test]
fn helper_serve() {
    serve_listed();
}

const APP: (u32, u32) = (APP_UID, APP_UID);
const REDIRECTED: &str = "sidecar TARGET";

#[test]
fn outbound() {
    isolated("outbound", || {
        let net = Net::new().with_sidecar();
        for backend in BACKENDS {
            expect(0, &["--backend", backend, "--exclude-outbound-cidrs=10.9.0.3", "--uid=1337"]);
            for addr in PEER {
                net.assert_dial(APP, addr, 80, REDIRECTED);
                net.assert_dial(APP, addr, 8080, REDIRECTED);
                net.assert_dial((0, 0), addr, 80, REDIRECTED);
                net.assert_dial((1337, APP_UID), addr, 80, "peer");
                net.assert_dial((APP_UID, 1337), addr, 80, "peer");
                net.assert_dial(APP, addr, 53, "peer");
            }
            // Loopback and own addresses stay with the application.
            for addr in ["127.0.0.1", "::1"].into_iter().chain(POD) {
                net.assert_dial(APP, addr, APP_PORTS[0], "app");
            }
            expect(0, &["cleanup"]);
            net.assert_dial(APP, PEER[0], 80, "peer");
            net.assert_dial(APP, PEER[1], 80, "peer");
        }
    });
}

#[test]
fn outbound_lists() {
    isolated("outbound_lists", || {
        let net = Net::new().with_sidecar();
        for backend in BACKENDS {
            let check = |flags: &[&str], who: (u32, u32), port: u16, says: [&str; 2]| {
                expect(0, &[&["--backend", backend], flags].concat());
                net.assert_dial(who, PEER[0], port, says[0]);
                net.assert_dial(who, PEER[1], port, says[1]);
            };
            let (both, neither) = ([REDIRECTED; 2], ["peer"; 2]);
            let ports = ["--outbound-ports=70:90,443", "--exclude-outbound-ports=8080"];
            check(&ports, APP, 80, both);
            check(&ports, APP, 8080, neither);
            check(&["--exclude-outbound-ports=79:81"], APP, 80, neither);
            check(&["--intercept-dns-tcp"], APP, 53, both);
            check(&["--exclude-uids=7,1000"], APP, 80, neither);
            check(&["--exclude-gids=7,1000"], APP, 80, neither);
            check(&["--include-gids=7,1000"], APP, 80, both);
            check(&["--include-gids=7,1001"], APP, 80, neither);
            check(&["--include-gids=7"], APP, 80, neither);
            check(&["--exclude-interfaces=eth0"], APP, 80, neither);
            check(&["--exclude-interfaces=eth1,et*"], APP, 80, neither);
            check(&["--exclude-interfaces=eth"], APP, 80, both);
            check(&["--include-outbound-cidrs=10.8.0.0/15"], APP, 80, [REDIRECTED, "peer"]);
            check(&["--include-outbound-cidrs=1.1.1.1,fd09::/20"], APP, 80, ["peer", REDIRECTED]);
            check(&["--exclude-outbound-cidrs=10.9.0.0/29"], APP, 80, ["peer", REDIRECTED]);
            check(&["--exclude-outbound-cidrs=::1,fd09::/16"], APP, 80, [REDIRECTED, "peer"]);
            check(&["--ipv6=off"], APP, 80, [REDIRECTED, "peer"]);
            check(&["--outbound-probability=0"], APP, 80, neither);
            check(&["--intercept-self"], (1337, 7), 80, neither);
            for addr in POD {
                net.assert_dial(APP, addr, APP_PORTS[0], REDIRECTED);
                net.assert_dial((1337, 7), addr, APP_PORTS[0], "app");
            }
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn inbound() {
    isolated("inbound", || {
        let net = Net::new().with_sidecar();
        for backend in BACKENDS {
            let check = |flags: &[&str], port: u16, says: [&str; 2]| {
                expect(0, &[&["--backend", backend], flags].concat());
                net.assert_dial_from_peer(POD[0], port, says[0]);
                net.assert_dial_from_peer(POD[1], port, says[1]);
            };
            let (both, neither) = ([REDIRECTED; 2], ["app"; 2]);
            check(&[], APP_PORTS[0], both);
            check(&["--inbound-ports=9090"], APP_PORTS[0], neither);
            check(&["--inbound-ports=9090"], APP_PORTS[1], both);
            check(&["--exclude-inbound-ports=8080"], APP_PORTS[0], neither);
            check(&["--own-ports=9090"], APP_PORTS[1], neither);
            check(&["--exclude-inbound-cidrs=10.9.0.0/24"], APP_PORTS[0], ["app", REDIRECTED]);
            check(&["--exclude-inbound-cidrs=fd09::2,1.1.1.1"], APP_PORTS[0], [REDIRECTED, "app"]);
            check(&["--exclude-interfaces=eth+"], APP_PORTS[0], neither);
            check(&["--inbound-probability=0"], APP_PORTS[0], neither);
            check(&["--ipv6=off"], APP_PORTS[0], [REDIRECTED, "app"]);
            // Whoever dials the sidecar itself gets it, unredirected: no original destination.
            expect(0, &["--backend", backend]);
            let direct = net.dial_from_peer(&[target(POD[0], SIDECAR_PORT)]);
            assert!(direct[0].starts_with("sidecar"), "{direct:?}");
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn probability_is_per_connection() {
    isolated("probability_is_per_connection", || {
        let net = Net::new().with_sidecar();
        // The environment of a process holds no 10,000 addresses: ten clients of 1,000.
        let redirected = |addr: &str| -> usize {
            let dial = |_| {
                let told = net.dial(APP_UID, APP_UID, &vec![target(addr, 80); 1000]);
                assert_eq!(told.len(), 1000);
                told.iter().filter(|told| told.starts_with("sidecar")).count()
            };
            (0..10).map(dial).sum()
        };
        must("sysctl", &["-qw", "net.ipv4.ip_local_port_range=10000 65000"]);
        for (backend, share, expected) in
            [(BACKENDS[0], "0.5", 5000), (BACKENDS[1], "0.2", 2000), (BACKENDS[2], "0.9", 9000)]
        {
            expect(0, &["--backend", backend, "--outbound-probability", share]);
            for addr in PEER {
                let redirected = redirected(addr);
                println!("{backend} {addr}: {redirected} of 10,000 at {share}");
                // Five standard deviations of a binomial distribution of 10,000 at one half.
                let is_near = redirected.abs_diff(expected) < 250;
                assert!(is_near, "{backend} {addr}: {redirected} of 10,000 at {share}");
            }
        }
    });
}

/// Two ends of a connection.
struct Pair(TcpStream, TcpStream);

impl Pair {
    fn new(listen: (&str, u16), dial: (&str, u16)) -> Self {
        let listener = TcpListener::bind(listen).unwrap();
        let port = if dial.1 == 0 { listener.local_addr().unwrap().port() } else { dial.1 };
        let ours = TcpStream::connect((dial.0, port)).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        theirs.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(ours, theirs)
    }

    #[track_caller]
    fn exchange(&mut self) {
        self.0.write_all(b"x").unwrap();
        self.1.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn connections_live_on_through_apply_and_cleanup() {
    isolated("connections_live_on_through_apply_and_cleanup", || {
        let _net = Net::new();
        for backend in BACKENDS {
            let mut direct = Pair::new((POD[0], 0), (POD[0], 0));
            direct.exchange();
            expect(0, &["--backend", backend, "--intercept-self"]);
            direct.exchange();
            let mut redirected = Pair::new(("127.0.0.1", SIDECAR_PORT), (PEER[0], 80));
            redirected.exchange();
            expect(0, &["--backend", backend, "--outbound-ports=443"]);
            direct.exchange();
            redirected.exchange();
            expect(0, &["--backend", backend, "--drop-invalid"]);
            direct.exchange();
            redirected.exchange();
            expect(0, &["cleanup"]);
            direct.exchange();
        }
    });
}

#[test]
fn what_connection_tracking_cannot_place_is_dropped() {
    isolated("what_connection_tracking_cannot_place_is_dropped", || {
        let _net = Net::new();
        for backend in BACKENDS {
            // With strict tracking, a connection that began untracked cannot be placed.
            line("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0");
            let mut pair = Pair::new((POD[0], 0), (POD[0], 0));
            pair.exchange();
            expect(0, &["--backend", backend]);
            pair.exchange();
            expect(0, &["--backend", backend, "--drop-invalid"]);
            pair.1.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            pair.0.write_all(b"x").unwrap();
            let dropped = pair.1.read_exact(&mut [0]).unwrap_err();
            assert_eq!(dropped.kind(), io::ErrorKind::WouldBlock, "{backend}: {dropped}");
            pair.1.set_read_timeout(Some(TIMEOUT)).unwrap();
            expect(0, &["cleanup"]);
            pair.1.read_exact(&mut [0]).unwrap();
        }
    });
}

#[test]
fn what_guests_send_is_outbound() {
    isolated("what_guests_send_is_outbound", || {
        let _net = Net::new().with_sidecar();
        line("ip netns add guest");
        line("ip link add virbr0 type veth peer name eth0 netns guest");
        line("ip link set virbr0 up");
        line("ip addr add 10.7.0.1/24 dev virbr0");
        line("ip -n guest link set eth0 up");
        line("ip -n guest addr add 10.7.0.2/24 dev eth0");
        line("ip -n guest route add default via 10.7.0.1");
        line("ip -n peer route add 10.7.0.0/24 via 10.9.0.1");
        line("sysctl -qw net.ipv4.ip_forward=1");
        let dial = || dial_from("guest", TIMEOUT, &[target(PEER[0], 80)]);
        for backend in BACKENDS {
            let apply = |flags: &[&str]| {
                let guests = ["--inbound-ports=none", "--reroute-interfaces=virbr0"];
                expect(0, &[&["--backend", backend], &guests[..], flags].concat());
            };
            apply(&[]);
            assert_eq!(dial(), ["sidecar 10.9.0.2:80"], "{backend}");
            for untouched in ["--outbound-ports=443", "--exclude-outbound-cidrs=10.9.0.0/16"] {
                apply(&[untouched]);
                assert_eq!(dial(), ["peer"], "{backend} {untouched}");
            }
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn verify_proves_the_rules() {
    isolated("verify_proves_the_rules", || {
        let _net = Net::new();
        for backend in BACKENDS {
            let apply = |flags: &[&str]| expect(0, &[&["--backend", backend], flags].concat());
            let verify = |code, flags: &[&str]| {
                let flags = [&["verify", "--verify-timeout-seconds=1"], flags].concat();
                expect(code, &flags)
            };
            verify(6, &[]);
            apply(&[]);
            let ran = verify(0, &[]);
            assert!(ran.stdout.contains("192.0.2.2:1404"), "{}", ran.stdout);
            assert!(ran.stdout.contains("[100::2]:1404"), "{}", ran.stdout);
            verify(6, &["--port=14999"]);
            apply(&["--ipv6=off"]);
            assert!(verify(6, &["--ipv6=require"]).stderr.contains("[100::2]:1404"));
            assert!(verify(6, &[]).stderr.contains("[100::2]:1404"), "IPv6 passes by");
            verify(0, &["--ipv6=off"]);
            let lists = [
                "--outbound-ports=7,8",
                "--exclude-outbound-ports=7",
                "--include-outbound-cidrs=10.77.0.0/16",
            ];
            apply(&lists);
            assert!(verify(0, &lists).stdout.contains("10.77.0.1:8"));
            verify(6, &[]);
            apply(&["--exclude-uids=1000"]);
            let mut excluded = netra_init_command(&["verify", "--exclude-uids=1000"]);
            assert_eq!(excluded.uid(1000).output().unwrap().status.code(), Some(2));
            let mut unprivileged = netra_init_command(&["verify"]);
            assert_eq!(unprivileged.uid(1001).gid(1001).output().unwrap().status.code(), Some(0));
            let mut wrong = netra_init_command(&["verify", "--verify-timeout-seconds=1"]);
            let wrong = wrong.uid(1000).gid(1001).output().unwrap();
            assert_eq!(wrong.status.code(), Some(6), "the application's own user is left alone");
            for wrong in [["--uid=2000", "--gid=1337"], ["--uid=1337", "--gid=2000"]] {
                apply(&wrong);
                let stderr = verify(6, &[]).stderr;
                assert!(stderr.contains("1337 is redirected, too: it would loop"), "{stderr}");
                verify(0, &wrong);
            }
            expect(0, &["cleanup"]);
        }
        // The sidecar has the port already: said, not guessed.
        expect(0, &[]);
        let _sidecar = TcpListener::bind(("127.0.0.1", SIDECAR_PORT)).unwrap();
        assert!(expect(6, &["verify"]).stderr.contains("before the sidecar"));
    });
}
