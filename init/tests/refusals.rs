//! What must not happen: missing privileges, held locks, and failures half-way, in a network
//! namespace per test.

mod common;

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use common::{
    BACKENDS, SETTINGS, add_foreign_rules, apply, expect, isolated, line, must, netra_init,
    netra_init_command, ruleset, wait_until,
};

#[test]
fn without_net_admin_nothing_happens() {
    isolated("without_net_admin_nothing_happens", || {
        // Traverses directories only root may enter: the copy is where everybody can read it.
        let program = "/run/netra-init";
        std::fs::copy(env!("CARGO_BIN_EXE_netra-init"), program).unwrap();
        add_foreign_rules();
        let before = ruleset();
        let plain = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let dropped = ["--bounding-set=-net_admin", "--inh-caps=-net_admin"];
        for drop in [&plain[..], &dropped[..]] {
            for command in ["apply", "cleanup", "status"] {
                for backend in BACKENDS.iter().chain(&["auto"]) {
                    let args = [program, command, "--backend", backend];
                    let output = Command::new("setpriv").args(drop).args(args).output().unwrap();
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert_eq!(output.status.code(), Some(3), "{stderr}");
                    assert!(stderr.contains("need CAP_NET_ADMIN"), "{stderr}");
                    assert_eq!(stderr.lines().count(), 1, "{stderr}");
                    assert_eq!(ruleset(), before);
                }
            }
            let output = Command::new("setpriv").args(drop).args([program, "print"]).output();
            assert!(output.unwrap().status.success());
        }
    });
}

#[test]
fn held_lock_of_iptables_exits_4_and_changes_nothing() {
    isolated("held_lock_of_iptables_exits_4_and_changes_nothing", || {
        line("iptables-legacy -t nat -S");
        let before = ruleset();
        let mut holder = Command::new("flock")
            .args(["/run/xtables.lock", "sleep", "30"])
            .stdin(Stdio::null())
            .spawn()
            .expect("flock");
        wait_until(|| {
            let probe = Command::new("flock").args(["-n", "/run/xtables.lock", "true"]).status();
            !probe.unwrap().success()
        });
        let ran = netra_init(&apply("iptables-legacy", &["--lock-wait-seconds=1", "--ipv6=off"]));
        let pid = holder.id().to_string();
        must("pkill", &["-P", &pid]);
        holder.wait().unwrap();
        assert_eq!(ran.code, 4, "{}", ran.stderr);
        assert!(ran.stderr.contains("lock"), "{}", ran.stderr);
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn held_lock_of_netra_init_exits_4_and_changes_nothing() {
    isolated("held_lock_of_netra_init_exits_4_and_changes_nothing", || {
        let name = SocketAddr::from_abstract_name("netra-init").unwrap();
        let holder = UnixListener::bind_addr(&name).unwrap();
        let args = apply("iptables-nft", &["--lock-wait-seconds=1"]);
        assert!(expect(4, &args).stderr.contains("netra-init lock"));
        assert_eq!(must("nft", &["list", "ruleset"]), "");
        // One transaction needs no lock.
        expect(0, &apply("nft-native", &[]));
        drop(holder);
        expect(0, &args);
    });
}

#[test]
fn failure_in_the_second_family_undoes_the_first() {
    isolated("failure_in_the_second_family_undoes_the_first", || {
        // Passes the test of the rules, then fails to commit them.
        let fake = "#!/bin/sh\ncase \"$*\" in *--test*) exit 0;; esac\necho broken >&2; exit 1\n";
        for (kind, settings) in [("nft", SETTINGS[5]), ("legacy", SETTINGS[5])] {
            let backend = format!("iptables-{kind}");
            let program = format!("/run/{backend}-restore");
            for is_there_before in [false, true] {
                if is_there_before {
                    expect(0, &apply(&backend, settings));
                }
                let before = must(&format!("ip6tables-{kind}-save"), &["-t", "nat"]);
                std::fs::write(&program, fake).unwrap();
                must("chmod", &["755", &program]);
                let mut command = netra_init_command(&apply(&backend, &[]));
                let output = command.env("PATH", "/run:/usr/sbin:/usr/bin").output().unwrap();
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(5), "{stderr}");
                assert!(stderr.contains("restore: broken"), "{stderr}");
                std::fs::remove_file(&program).unwrap();
                let after = must(&format!("ip6tables-{kind}-save"), &["-t", "nat"]);
                let rules = |saved: &str| -> Vec<String> {
                    let lines = saved.lines().filter(|line| !line.starts_with('#'));
                    lines.map(str::to_owned).collect()
                };
                if is_there_before {
                    assert_eq!(rules(&after), rules(&before));
                } else {
                    assert!(!after.contains("NETRA"), "{after}");
                }
            }
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn an_ordinary_user_can_in_a_user_namespace() {
    isolated("an_ordinary_user_can_in_a_user_namespace", || {
        let program = "/run/netra-init";
        std::fs::copy(env!("CARGO_BIN_EXE_netra-init"), program).unwrap();
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urn"];
        let script =
            format!("{program} apply && {program} apply && {program} status && {program} cleanup");
        let output =
            Command::new("setpriv").args(nobody).args(["sh", "-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("unshare failed") || said.contains("Operation not permitted") {
            eprintln!("*** SKIPPED: no user namespaces for ordinary users here: {said} ***");
            return;
        }
        assert!(output.status.success(), "{said}");
    });
}
