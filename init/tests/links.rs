//! What the rules assume of links: each has an address of its own to redirect to.

mod common;

use common::net::{APP_PORTS, Net, dial_from, dial_listed, serve_listed, target};
use common::{BACKENDS, expect, isolated, line};
use std::time::Duration;

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

/// Addresses of the pod that are on `lo`, as those of routers and of services that announce
/// themselves are.
const OWN: [&str; 2] = ["10.99.0.1", "fd99::1"];

/// A link to the peer without addresses of its own, with the pod's addresses elsewhere.
fn unnumber() {
    line("ip -6 addr flush dev eth0 scope global");
    line("ip addr flush dev eth0 scope global");
    line(&format!("ip addr add {}/32 dev lo", OWN[0]));
    line(&format!("ip addr add {}/128 dev lo nodad", OWN[1]));
    route_to_peer();
    line("ip -6 route add fd09::/64 dev eth0");
    line(&format!("ip -n peer route add {}/32 dev eth0", OWN[0]));
    // As routers do: the next hop is the address that the link has by itself.
    line("ip addr add fe80::1/64 dev eth0 nodad");
    line(&format!("ip -n peer -6 route add {}/128 via fe80::1 dev eth0", OWN[1]));
}

/// The IPv4 routes of a link go with its last address.
fn route_to_peer() {
    line("ip route replace 10.9.0.2/32 dev eth0");
    line("ip route replace default via 10.9.0.2 dev eth0 onlink");
}

#[test]
fn a_link_without_an_address_is_told() {
    isolated("a_link_without_an_address_is_told", || {
        let net = Net::new();
        let lost = "eth0: no IPv4 address there";
        let tells = |command: &str| {
            let ran = expect(0, &[command]);
            (ran.stdout + &ran.stderr).contains(lost)
        };
        assert!(!["apply", "verify", "doctor"].into_iter().any(tells));
        unnumber();
        assert!(["apply", "verify", "doctor"].into_iter().all(tells));
        expect(0, &["cleanup"]);
        let net = net.with_sidecar();
        for backend in BACKENDS {
            for addr in OWN {
                net.assert_dial_from_peer(addr, APP_PORTS[0], "app");
            }
            let ran = expect(0, &["--backend", backend]);
            assert!(ran.stderr.contains(lost), "{}", ran.stderr);
            assert!(ran.stderr.contains("--exclude-interfaces"), "{}", ran.stderr);
            // It is as said: IPv4 is lost, and IPv6 has the address of the link.
            let own = target(OWN[0], APP_PORTS[0]);
            let told = dial_from("peer", Duration::from_millis(400), &[own]);
            assert!(told[0].starts_with("error "), "{told:?}");
            net.assert_dial_from_peer(OWN[1], APP_PORTS[0], "sidecar TARGET");
            let doctor = expect(0, &["doctor"]).stdout;
            assert!(doctor.contains(&format!("warn  links            {lost}")), "{doctor}");
            // Both ways out.
            let out = ["--backend", backend, "--exclude-interfaces=eth0"];
            assert_eq!(expect(0, &out).stderr, "");
            net.assert_dial_from_peer(OWN[0], APP_PORTS[0], "app");
            line("ip addr add 169.254.7.7/32 dev eth0 scope link");
            assert_eq!(expect(0, &["--backend", backend]).stderr, "");
            net.assert_dial_from_peer(OWN[0], APP_PORTS[0], "sidecar TARGET");
            line("ip addr del 169.254.7.7/32 dev eth0");
            route_to_peer();
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn links_that_lose_nothing_are_not_told() {
    isolated("links_that_lose_nothing_are_not_told", || {
        line("ip link add eth0 type veth peer name far");
        line("ip link set eth0 up");
        let is_silent = |args: &[&str]| {
            let ran = expect(0, &[&["apply"], args].concat());
            assert!(ran.stderr.is_empty(), "{args:?}: {}", ran.stderr);
        };
        // Down, or no address that anybody else knows.
        is_silent(&[]);
        line("ip link set far up");
        is_silent(&[]);
        line("ip addr add 10.9.0.1/24 dev eth0");
        line("ip -6 addr add fd09::1/64 dev eth0 nodad");
        let told = expect(0, &["apply"]).stderr;
        assert!(told.contains("far: no IPv4 address there"), "{told}");
        assert!(!told.contains("IPv6"), "{told}");
        is_silent(&["--inbound-ports=none"]);
        is_silent(&["--inbound-probability=0"]);
        is_silent(&["--exclude-interfaces=fa*"]);
        // No IPv6 address at all, although the kernel takes IPv6 there.
        line("ip -6 addr flush dev far");
        let told = expect(0, &["apply"]).stderr;
        assert!(told.contains("far: no IPv6 address there"), "{told}");
        line("sysctl -qw net.ipv6.conf.far.disable_ipv6=1");
        assert!(!expect(0, &["apply"]).stderr.contains("IPv6"));
        // What comes in by a port of a bridge comes in by the bridge.
        line("ip link add br0 type bridge");
        line("ip link set far master br0");
        is_silent(&[]);
        line("ip link set br0 up");
        let told = expect(0, &["apply"]).stderr;
        assert!(told.contains("br0: no IPv4 address there"), "{told}");
    });
}
