//! While the rules are in motion: killed half-way, guarded, and refused to move.

mod common;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{
    BACKENDS, apply, expect, fake_program, isolated, line, must, netra_init, netra_init_command,
    ruleset, wait_until,
};

#[test]
fn killed_at_any_time_and_applied_again() {
    isolated("killed_at_any_time_and_applied_again", || {
        for backend in BACKENDS {
            let args = apply(backend, &["--drop-invalid"]);
            expect(0, &args);
            let wanted = ruleset();
            for step in 0..12_u64 {
                expect(0, &["cleanup"]);
                let mut child = start(&args, None);
                must("sleep", &[&format!("0.{:03}", 4 * step)]);
                child.kill().unwrap();
                child.wait().unwrap();
                expect(0, &args);
                assert_eq!(made_or_not(&ruleset()), made_or_not(&wanted), "{backend} {step}");
            }
            expect(0, &["cleanup"]);
            assert!(!ruleset().contains("NETRA"));
        }
    });
}

#[test]
fn a_child_that_outlives_us_keeps_others_away() {
    isolated("a_child_that_outlives_us_keeps_others_away", || {
        for backend in &BACKENDS[1..] {
            let args = apply(backend, &["--ipv6=off"]);
            expect(0, &args);
            let wanted = ruleset();
            expect(0, &["cleanup"]);
            // The first restore is a test of the rules; the second is for good, and slow.
            let script = "case \"$*\" in *--test*) ;; *) touch /run/begun; sleep 1;; esac\n\
                          exec $REAL \"$@\"";
            let path = fake_program(&format!("{backend}-restore"), script);
            let mut first = start(&args, Some(&path));
            wait_until(|| std::fs::exists("/run/begun").unwrap());
            first.kill().unwrap();
            first.wait().unwrap();
            expect(0, &args);
            assert_eq!(made_or_not(&ruleset()), made_or_not(&wanted), "{backend}: doubled");
            std::fs::remove_file("/run/begun").unwrap();
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn guardrails_let_nothing_begin_and_go_with_us() {
    isolated("guardrails_let_nothing_begin_and_go_with_us", || {
        line("ip netns add peer");
        line("ip link add eth0 type veth peer name eth0 netns peer");
        for (netns, addr) in [(&[][..], "10.9.0.1/24"), (&["-n", "peer"][..], "10.9.0.2/24")] {
            must("ip", &[netns, &["link", "set", "eth0", "up"]].concat());
            must("ip", &[netns, &["addr", "add", addr, "dev", "eth0"]].concat());
        }
        line("ip -n peer link set lo up");
        // A closed port answers at once, unless the question is dropped.
        let dial = |addr: &str| {
            let addr: SocketAddr = addr.parse().unwrap();
            let wait = Duration::from_millis(300);
            TcpStream::connect_timeout(&addr, wait).unwrap_err().kind()
        };
        let has_guardrails =
            || must("nft", &["list", "ruleset"]).contains("table inet netra-guardrails");
        let args = apply("iptables-nft", &["--guardrails", "--ipv6=off", "--outbound-ports=none"]);
        let path = fake_program("iptables-nft-restore", "sleep 1; exec $REAL \"$@\"");
        assert_eq!(dial("10.9.0.2:81"), io::ErrorKind::ConnectionRefused);
        for is_killed in [false, true] {
            let mut child = start(&args, Some(&path));
            wait_until(has_guardrails);
            assert_eq!(dial("10.9.0.2:81"), io::ErrorKind::TimedOut);
            assert_eq!(dial("127.0.0.1:81"), io::ErrorKind::ConnectionRefused);
            let second = expect(4, &args);
            assert!(second.stderr.contains("another netra-init has put them up"));
            if is_killed {
                child.kill().unwrap();
            }
            assert_eq!(child.wait().unwrap().success(), !is_killed);
            assert!(!has_guardrails());
            assert_eq!(dial("10.9.0.2:81"), io::ErrorKind::ConnectionRefused);
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn without_reconcile_other_rules_stay() {
    isolated("without_reconcile_other_rules_stay", || {
        for backend in BACKENDS {
            let keep = apply(backend, &["--reconcile=false"]);
            expect(0, &keep);
            let before = ruleset();
            assert!(expect(0, &keep).stdout.contains("already applied"));
            let other = apply(backend, &["--reconcile=false", "--port=15001"]);
            assert!(expect(7, &other).stderr.contains("--reconcile=false"));
            assert_eq!(ruleset(), before);
            expect(
                0,
                &other.iter().filter(|arg| !arg.contains("false")).copied().collect::<Vec<_>>(),
            );
            assert_ne!(ruleset(), before);
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn close_wait_timeout_is_set_compared_and_refused_by_name() {
    isolated("close_wait_timeout_is_set_compared_and_refused_by_name", || {
        let sysctl = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
        let read = || std::fs::read_to_string(sysctl).unwrap();
        assert_eq!(read(), "60\n");
        expect(0, &["--close-wait-timeout-seconds=3600"]);
        assert_eq!(read(), "3600\n");
        expect(0, &["status", "--close-wait-timeout-seconds=3600"]);
        let drift = expect(7, &["status", "--close-wait-timeout-seconds=60"]);
        assert!(drift.stderr.contains("is 3600, not 60"), "{}", drift.stderr);
        // As in every container that is not privileged.
        line("mount --bind /proc/sys /proc/sys");
        line("mount -o remount,bind,ro /proc/sys");
        expect(0, &["--close-wait-timeout-seconds=3600"]);
        let refused = netra_init(&["--close-wait-timeout-seconds=120"]);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        let says = "--close-wait-timeout-seconds 120: /proc/sys/net/netfilter/";
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
        assert!(refused.stderr.contains("privileged"), "{}", refused.stderr);
    });
}

fn start(args: &[&str], path: Option<&str>) -> Child {
    let mut command = netra_init_command(args);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Which built-in chains were made for us is lost with the one who was killed in between.
fn made_or_not(ruleset: &str) -> String {
    ruleset.replace("jump-made", "jump")
}
