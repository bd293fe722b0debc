//! What must not happen: missing privileges, held locks, and failures half-way, in a network
//! namespace per test.

mod common;

use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use common::sys::{Lack, on_a_kernel_without};
use common::{
    BACKENDS, Ran, SETTINGS, add_foreign_rules, apply, expect, isolated, line, must, netra_init,
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
        let mut holder = Command::new("nft").arg("-i").stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = holder.stdin.take().unwrap();
        stdin.write_all(b"add table inet netra-lock { flags owner; }\n").unwrap();
        wait_until(|| must("nft", &["list", "tables"]).contains("netra-lock"));
        let args = apply("iptables-nft", &["--lock-wait-seconds=1"]);
        assert!(expect(4, &args).stderr.contains("netra-init lock"));
        assert!(!must("nft", &["list", "ruleset"]).contains("NETRA"));
        // One transaction needs no lock.
        expect(0, &apply("nft-native", &[]));
        let waiting = netra_init_command(&apply("iptables-nft", &[])).spawn().unwrap();
        drop(stdin);
        holder.wait().unwrap();
        assert!(waiting.wait_with_output().unwrap().status.success());
        expect(0, &["cleanup"]);
        assert_eq!(must("nft", &["list", "ruleset"]), "");
    });
}

/// Old kernels have no tables that belong to a socket; a file of the network namespace is locked.
#[test]
fn held_lock_on_a_kernel_without_nftables_exits_4() {
    isolated("held_lock_on_a_kernel_without_nftables_exits_4", || {
        let file = "/proc/sys/net/ipv4/tcp_fastopen_key";
        let holder = std::fs::File::open(file).unwrap();
        holder.lock().unwrap();
        let run = || {
            let args = apply("iptables-legacy", &["--lock-wait-seconds=1", "--ipv6=off"]);
            let mut command = netra_init_command(&args);
            Ran::from(on_a_kernel_without(Lack::Nftables, &mut command).output().unwrap())
        };
        let refused = run();
        assert_eq!(refused.code, 4, "{}", refused.stderr);
        assert!(refused.stderr.contains("netra-init lock"), "{}", refused.stderr);
        drop(holder);
        let ran = run();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        // As in a container: the file is there to be locked, not to be written.
        line("mount --bind /proc/sys /proc/sys");
        line("mount -o remount,bind,ro /proc/sys");
        let ran = run();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    });
}

/// Whoever shares the network namespace, but not its privileges, cannot keep `apply` waiting.
#[test]
fn nobody_without_privileges_holds_the_lock() {
    isolated("nobody_without_privileges_holds_the_lock", || {
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let as_user = |words: &[&str]| {
            let output = Command::new("setpriv").args(user).args(words).output().unwrap();
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let owned = "add table inet netra-lock { flags owner; }";
        assert!(as_user(&["nft", owned]).contains("Operation not permitted"));
        for file in ["ipv4/tcp_fastopen_key", "ipv6/conf/all/stable_secret"] {
            let said = as_user(&["flock", "-n", &format!("/proc/sys/net/{file}"), "true"]);
            assert!(said.contains("Permission denied"), "{file}: {said}");
        }
        // What was the lock once: anybody can take it, and may.
        let name = SocketAddr::from_abstract_name("netra-init").unwrap();
        let _holder = UnixListener::bind_addr(&name).unwrap();
        for backend in &BACKENDS[1..] {
            expect(0, &apply(backend, &["--lock-wait-seconds=1"]));
            expect(0, &["cleanup"]);
        }
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
