//! What a neighbour on the link may reach through the pod: what the kernel would let it reach
//! without our rules, and nothing else.

mod common;

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use common::net::{
    APP_PORTS, Net, PEER, POD, Servers, TIMEOUT, dial_from, dial_listed, serve_listed, target,
};
use common::{BACKENDS, Ran, expect, isolated, line, must, netra_init_command};

/// Not a test: the client.
#[test]
fn helper_dial() {
    dial_listed();
}

/// Not a test: the servers of other namespaces.
#[test]
fn helper_serve() {
    serve_listed();
}

/// Addresses of a host that only the pod reaches.
const INNER: [&str; 2] = ["10.8.0.2", "fd08::2"];
/// Addresses of the pod on the link to that host.
const POD_INNER: [&str; 2] = ["10.8.0.1", "fd08::1"];
/// Where clouds keep the credentials of a machine.
const METADATA: &str = "169.254.169.254";
/// Packets that the kernel drops are waited for this long.
const DROPPED_AFTER: Duration = Duration::from_millis(400);

/// Another host behind the pod.
fn add_inner() -> Servers {
    line("ip netns add inner");
    line("ip link add eth1 type veth peer name eth0 netns inner");
    line("ip link set eth1 up");
    line("ip -n inner link set lo up");
    line("ip -n inner link set eth0 up");
    for (pod, inner, bits) in [(POD_INNER[0], INNER[0], 24), (POD_INNER[1], INNER[1], 64)] {
        let nodad = if bits == 64 { "nodad" } else { "" };
        line(&format!("ip addr add {pod}/{bits} dev eth1 {nodad}"));
        line(&format!("ip -n inner addr add {inner}/{bits} dev eth0 {nodad}"));
        line(&format!("ip -n inner route add default via {pod}"));
    }
    line(&format!("ip -n inner addr add {METADATA}/32 dev lo"));
    line(&format!("ip route add {METADATA} via {}", INNER[0]));
    Servers::new("inner", "80")
}

/// Makes a namespace send loopback addresses and everything unknown to the pod.
fn route_all_to_pod(netns: &str, pod: [&str; 2]) {
    line(&format!("ip -n {netns} addr flush dev lo"));
    line(&format!("ip netns exec {netns} sysctl -qw net.ipv4.conf.all.route_localnet=1"));
    line(&format!("ip -n {netns} route replace default via {}", pod[0]));
    line(&format!("ip -n {netns} -6 route replace default via {}", pod[1]));
    line(&format!("ip -n {netns} -6 route replace ::1 via {} dev eth0", pod[1]));
}

/// Everything that is not the pod's to give.
fn forbidden() -> Vec<String> {
    let port = APP_PORTS[0];
    let inner = INNER.map(|addr| target(addr, 80));
    let loopback = [target("127.0.0.1", port), target("127.8.8.8", port), target("::1", port)];
    inner.into_iter().chain(loopback).chain([target(METADATA, 80)]).collect()
}

#[track_caller]
fn assert_nothing(told: &[String], count: usize) {
    assert_eq!(told.len(), count, "{told:?}");
    assert!(told.iter().all(|told| told.starts_with("error ")), "{told:?}");
}

#[test]
fn a_neighbour_reaches_nothing_through_the_pod() {
    isolated("a_neighbour_reaches_nothing_through_the_pod", || {
        let net = Net::new().with_sidecar();
        let _inner = add_inner();
        route_all_to_pod("peer", POD);
        // A namespace may begin with what the machine has.
        line("sysctl -qw net.ipv4.ip_forward=0");
        line("sysctl -qw net.ipv6.conf.all.forwarding=0");
        let check = |what: &str| {
            println!("{what}");
            assert_nothing(&dial_from("peer", DROPPED_AFTER, &forbidden()), forbidden().len());
        };
        check("without rules");
        for backend in BACKENDS {
            for flags in [&[][..], &["--reroute-interfaces=virbr0"]] {
                expect(0, &[&["--backend", backend], flags].concat());
                check(backend);
                // The attack fails, not the way there.
                for addr in POD {
                    net.assert_dial_from_peer(addr, APP_PORTS[0], "sidecar TARGET");
                }
            }
            // A pod that lets loopback addresses in by its links is the kernel's affair, too.
            line("sysctl -qw net.ipv4.conf.all.route_localnet=1");
            let told = dial_from("peer", TIMEOUT, &[target("127.0.0.1", APP_PORTS[0])]);
            line("sysctl -qw net.ipv4.conf.all.route_localnet=0");
            assert_eq!(told, ["app"], "{backend}");
            expect(0, &["cleanup"]);
        }
    });
}

/// `verify` plays the neighbour itself, on a link of its own.
#[test]
fn verify_plays_a_neighbour() {
    isolated("verify_plays_a_neighbour", || {
        let _net = Net::new();
        line("sysctl -qw net.ipv4.conf.default.rp_filter=1");
        let verify = |code| expect(code, &["verify", "--verify-timeout-seconds=1"]);
        let says = |family: &str| format!("{family}: a neighbour on a link reaches nothing else");
        for backend in BACKENDS {
            expect(0, &["--backend", backend]);
            let ran = verify(0);
            assert!(ran.stdout.contains(&says("IPv4")), "{}{}", ran.stdout, ran.stderr);
            assert!(ran.stdout.contains(&says("IPv6")), "{}{}", ran.stdout, ran.stderr);
            expect(0, &["cleanup"]);
        }
        assert!(!must("ip", &["link"]).contains("netra-try"), "the link is gone");
        // Rules as they were once.
        let without = |program: &str, rule: &str, reaches: &str| {
            expect(0, &["--backend=iptables-nft"]);
            line(&format!("{program} -t nat -D NETRA_INBOUND {rule} -j RETURN"));
            let stderr = verify(6).stderr;
            assert!(stderr.contains(&format!("routes {reaches} through")), "{stderr}");
            expect(0, &["cleanup"]);
        };
        let strangers =
            "-p tcp -m addrtype ! --dst-type LOCAL -m comment --comment netra/not-to-us";
        let loopback = "-d 127.0.0.0/8 -p tcp -m comment --comment netra/loopback";
        without("iptables-nft", strangers, "198.51.100.2");
        without("ip6tables-nft", strangers, "2001:db8::2");
        without("iptables-nft", loopback, "127.0.0.1");
        // Nothing is proved where not even our own address is reached, or without privileges; and
        // whoever was killed leaves a link.
        expect(0, &[]);
        line("ip link add netra-try0 type veth peer name netra-try1");
        assert!(verify(0).stdout.contains(&says("IPv4")));
        line("nft add table inet fire");
        line("nft add chain inet fire in { type filter hook input priority 0 ; }");
        line("nft add rule inet fire in iifname netra-try0 drop");
        let stderr = verify(0).stderr;
        assert!(stderr.contains("IPv4: not tried"), "{stderr}");
        let mut plain = netra_init_command(&["verify"]);
        let plain = Ran::from(plain.uid(1001).gid(1001).output().unwrap());
        assert_eq!(plain.code, 0, "{}", plain.stderr);
        assert!(
            plain.stderr.contains("it takes CAP_NET_ADMIN and CAP_NET_RAW"),
            "{}",
            plain.stderr
        );
    });
}

/// A firewall of the pod sees the sidecar's port, and can ask for the one that was dialled.
#[test]
fn a_firewall_matches_what_was_dialled() {
    isolated("a_firewall_matches_what_was_dialled", || {
        let net = Net::new().with_sidecar();
        line("nft add table inet fire");
        line("nft add chain inet fire in { type filter hook input priority 0 ; }");
        let closed = APP_PORTS[0];
        line(&format!(
            "nft add rule inet fire in meta l4proto tcp ct original proto-dst {closed} drop"
        ));
        for backend in BACKENDS {
            expect(0, &["--backend", backend]);
            for addr in POD {
                let told = dial_from("peer", DROPPED_AFTER, &[target(addr, closed)]);
                assert_nothing(&told, 1);
                net.assert_dial_from_peer(addr, APP_PORTS[1], "sidecar TARGET");
            }
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn a_guest_does_not_reach_our_loopback() {
    isolated("a_guest_does_not_reach_our_loopback", || {
        let _net = Net::new().with_sidecar();
        add_guest_behind_a_bridge();
        route_all_to_pod("guest", [GUEST_GATEWAY[0], GUEST_GATEWAY[1]]);
        let loopback = ["127.0.0.1", "::1"].map(|addr| target(addr, APP_PORTS[0]));
        for backend in BACKENDS {
            expect(0, &["--backend", backend, "--reroute-interfaces=virbr0"]);
            assert_nothing(&dial_from("guest", DROPPED_AFTER, &loopback), 2);
            for addr in PEER {
                let elsewhere = target(addr, 80);
                let told = dial_from("guest", TIMEOUT, std::slice::from_ref(&elsewhere));
                assert_eq!(told, [format!("sidecar {elsewhere}")], "{backend}");
            }
            expect(0, &["cleanup"]);
        }
    });
}

const GUEST_GATEWAY: [&str; 2] = ["10.7.0.1", "fd07::1"];

/// As KubeVirt and docker in docker do: a guest on a port of a bridge of the pod.
fn add_guest_behind_a_bridge() {
    line("ip link add virbr0 type bridge");
    line("ip netns add guest");
    line("ip link add tap0 type veth peer name eth0 netns guest");
    for link in ["virbr0", "tap0"] {
        line(&format!("ip link set {link} up"));
    }
    line("ip link set tap0 master virbr0");
    line("ip addr add 10.7.0.1/24 dev virbr0");
    line("ip addr add fd07::1/64 dev virbr0 nodad");
    line("ip -n guest link set eth0 up");
    line("ip -n guest addr add 10.7.0.2/24 dev eth0");
    line("ip -n guest addr add fd07::2/64 dev eth0 nodad");
    line("ip -n guest route add default via 10.7.0.1");
    line("ip -n guest -6 route add default via fd07::1");
}

/// Addresses of the pod, wherever it has them, are the application's.
#[test]
fn every_address_of_the_pod_is_inbound() {
    isolated("every_address_of_the_pod_is_inbound", || {
        let net = Net::new().with_sidecar();
        let _inner = add_inner();
        add_guest_behind_a_bridge();
        // Secondary addresses, and those of services that announce themselves.
        let more = [("10.9.0.77/24", "eth0"), ("fd09::77/64", "eth0"), ("10.99.0.1/32", "lo")];
        for (addr, link) in more.into_iter().chain([("fd99::1/128", "lo")]) {
            let nodad = if addr.contains(':') { "nodad" } else { "" };
            line(&format!("ip addr add {addr} dev {link} {nodad}"));
        }
        let own = ["10.9.0.77", "fd09::77", "10.99.0.1", "fd99::1"];
        for addr in ["10.99.0.1", POD_INNER[0], GUEST_GATEWAY[0]] {
            line(&format!("ip -n peer route add {addr} via {}", POD[0]));
        }
        for addr in ["fd99::1", POD_INNER[1], GUEST_GATEWAY[1]] {
            line(&format!("ip -n peer -6 route add {addr} via {}", POD[1]));
        }
        for backend in BACKENDS {
            expect(0, &["--backend", backend]);
            for addr in own.into_iter().chain(POD_INNER).chain(GUEST_GATEWAY) {
                net.assert_dial_from_peer(addr, APP_PORTS[0], "sidecar TARGET");
            }
            // A guest that nobody told us of is a neighbour.
            for addr in GUEST_GATEWAY {
                let own = target(addr, APP_PORTS[0]);
                let told = dial_from("guest", TIMEOUT, std::slice::from_ref(&own));
                assert_eq!(told, [format!("sidecar {own}")], "{backend}");
            }
            expect(0, &["cleanup"]);
        }
    });
}

/// A host that forwards goes on to: what it forwards is not its own.
#[test]
fn what_is_forwarded_passes_by() {
    isolated("what_is_forwarded_passes_by", || {
        let net = Net::new().with_sidecar();
        let _inner = add_inner();
        route_all_to_pod("peer", POD);
        line("sysctl -qw net.ipv4.ip_forward=1");
        line("sysctl -qw net.ipv6.conf.all.forwarding=1");
        for backend in BACKENDS {
            expect(0, &["--backend", backend]);
            for addr in INNER {
                net.assert_dial_from_peer(addr, 80, "inner");
                net.assert_dial((1000, 1000), addr, 80, "sidecar TARGET");
            }
            expect(0, &["cleanup"]);
        }
    });
}

/// The pod calls its own Service, and the node sends it back to the pod.
#[test]
fn what_comes_back_by_a_hairpin_is_inbound() {
    isolated("what_comes_back_by_a_hairpin_is_inbound", || {
        let net = Net::new().with_sidecar();
        let service = ["10.96.0.1", "fd96::1"];
        for (family, service, pod) in
            [("ip", service[0], POD[0].to_owned()), ("ip6", service[1], format!("[{}]", POD[1]))]
        {
            let nft = "ip netns exec peer nft";
            line(&format!("{nft} add table {family} node"));
            line(&format!(
                "{nft} add chain {family} node pre {{ type nat hook prerouting priority -100 ; }}"
            ));
            line(&format!(
                "{nft} add chain {family} node post {{ type nat hook postrouting priority 100 ; }}"
            ));
            let rule = format!("{nft} add rule {family} node pre {family} daddr {service}");
            line(&format!("{rule} tcp dport 80 dnat to {pod}:{}", APP_PORTS[0]));
            line(&format!("{nft} add rule {family} node post ct status dnat masquerade"));
        }
        for backend in BACKENDS {
            expect(0, &["--backend", backend]);
            for (service, pod) in service.into_iter().zip(POD) {
                // The application is intercepted, and what the sidecar dials comes back inbound.
                net.assert_dial((1000, 1000), service, 80, "sidecar TARGET");
                let inbound = format!("sidecar {}", target(pod, APP_PORTS[0]));
                net.assert_dial((1337, 1337), service, 80, &inbound);
            }
            expect(0, &["cleanup"]);
        }
    });
}
