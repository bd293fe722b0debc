//! Machines that lack something: programs, nf_tables, IPv6, privileges.

mod common;

use std::process::Command;

use common::sys::{Lack, on_a_kernel_without};
use common::{Ran, apply, expect, isolated, line, must, netra_init_command, ruleset};

/// netra-init on a kernel that lacks something.
fn without(lack: Lack, args: &[&str]) -> Ran {
    let mut command = netra_init_command(args);
    on_a_kernel_without(lack, &mut command).output().unwrap().into()
}

#[test]
fn a_machine_with_nftables_and_no_program() {
    isolated("a_machine_with_nftables_and_no_program", || {
        std::fs::copy("/usr/sbin/nft", "/run/nft").unwrap();
        line("mount -t tmpfs none /usr/sbin");
        for _ in 0..2 {
            assert!(expect(0, &["apply"]).stdout.contains("nft-native"));
            expect(0, &["status"]);
        }
        for backend in ["iptables-nft", "iptables-legacy"] {
            let ran = expect(5, &apply(backend, &[]));
            assert!(ran.stderr.contains("no such program"), "{}", ran.stderr);
        }
        expect(0, &["cleanup"]);
        assert_eq!(must("/run/nft", &["list", "ruleset"]), "");
    });
}

#[test]
fn a_kernel_with_the_old_iptables_only() {
    isolated("a_kernel_with_the_old_iptables_only", || {
        line("iptables-legacy -t nat -A OUTPUT -p udp --dport 7 -j ACCEPT");
        line("iptables-legacy -t nat -D OUTPUT 1");
        line("ip6tables-legacy -t nat -S");
        let before = ruleset();
        let ran = without(Lack::Nftables, &["apply"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stdout.contains("applied (iptables-legacy)"), "{}", ran.stdout);
        assert!(ran.stderr.contains("nft-native: nftables"), "{}", ran.stderr);
        assert!(without(Lack::Nftables, &["apply"]).stdout.contains("already applied"));
        assert_eq!(without(Lack::Nftables, &["status"]).code, 0);
        let doctor = without(Lack::Nftables, &["doctor"]);
        assert_eq!(doctor.code, 0, "{}", doctor.stderr);
        assert!(doctor.stdout.contains("iptables-legacy would be used"), "{}", doctor.stdout);
        let refused = without(Lack::Nftables, &apply("iptables-legacy", &["--guardrails"]));
        assert_eq!(refused.code, 5);
        assert!(refused.stderr.contains("--guardrails: "), "{}", refused.stderr);
        let refused = without(Lack::Nftables, &apply("nft-native", &[]));
        assert_eq!(refused.code, 5);
        assert!(refused.stderr.contains("kernel module is missing"), "{}", refused.stderr);
        assert_eq!(without(Lack::Nftables, &["cleanup"]).code, 0);
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn a_kernel_without_ipv6() {
    isolated("a_kernel_without_ipv6", || {
        for backend in common::BACKENDS {
            let ran = without(Lack::Ipv6, &apply(backend, &[]));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            assert_eq!(ran.stderr, "", "nothing bypasses the sidecar");
            assert!(!must("ip6tables-legacy-save", &[]).contains("NETRA"));
            assert!(!must("ip6tables-nft-save", &[]).contains("NETRA"));
            assert!(without(Lack::Ipv6, &apply(backend, &[])).stdout.contains("already applied"));
            let required = without(Lack::Ipv6, &apply(backend, &["--ipv6=require"]));
            assert_eq!(required.code, 5);
            assert!(required.stderr.contains("--ipv6 require: the kernel has no IPv6"));
            assert_eq!(without(Lack::Ipv6, &["cleanup"]).code, 0);
        }
    });
}

#[test]
fn an_ordinary_user_with_file_capabilities() {
    isolated("an_ordinary_user_with_file_capabilities", || {
        let program = "/run/netra-init";
        std::fs::copy(env!("CARGO_BIN_EXE_netra-init"), program).unwrap();
        line("setcap cap_net_admin,cap_net_raw+p /run/netra-init");
        std::fs::write("/run/lock", "").unwrap();
        line("chown 65534 /run/lock");
        let run = |privileges: &[&str], args: &[&str]| -> Ran {
            let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            let mut command = Command::new("setpriv");
            command.args(user).args(privileges).arg(program).args(args);
            command.env("XTABLES_LOCKFILE", "/run/lock").output().unwrap().into()
        };
        for family in ["iptables-legacy", "ip6tables-legacy"] {
            for table in ["nat", "mangle"] {
                must(family, &["-t", table, "-S"]);
            }
        }
        let before = ruleset();
        for backend in common::BACKENDS {
            for says in ["applied", "already applied"] {
                let ran = run(&[], &apply(backend, &[]));
                assert_eq!(ran.code, 0, "{backend}: {}", ran.stderr);
                assert!(ran.stdout.contains(says), "{backend}: {}", ran.stdout);
            }
            assert_eq!(run(&[], &["status"]).code, 0);
            assert_eq!(run(&[], &["cleanup"]).code, 0);
            assert_eq!(ruleset(), before);
        }
        // Not granted to the container: we say which is missing, where the kernel would say
        // "operation not permitted" and not start us.
        let refused = run(&["--bounding-set=-net_admin"], &["apply"]);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("need CAP_NET_ADMIN"), "{}", refused.stderr);
        // As Docker does it: a user without privileges first, who may then get none.
        let refused = run(&["setpriv", "--no-new-privs"], &["apply"]);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        for part in ["no-new-privileges keeps it from an ordinary user", "docker: --user 0"] {
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
        let refused = run(&["--bounding-set=-net_raw"], &apply("iptables-legacy", &[]));
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("need CAP_NET_RAW"), "{}", refused.stderr);
        assert_eq!(run(&["--bounding-set=-net_raw"], &["apply"]).code, 0);
    });
}

/// Whoever starts a program that has more privileges than they must not lend them to another.
#[test]
fn file_capabilities_are_not_for_what_the_environment_names() {
    isolated("file_capabilities_are_not_for_what_the_environment_names", || {
        let program = "/run/netra-init";
        std::fs::copy(env!("CARGO_BIN_EXE_netra-init"), program).unwrap();
        line("setcap cap_net_admin,cap_net_raw+p /run/netra-init");
        // A user's folder: programs that show what they were lent, and a library.
        line("install -d -o 65534 -m 755 /run/mine");
        let script = "#!/bin/sh\n/usr/bin/grep CapEff /proc/self/status >>/run/mine/lent\nexit 1\n";
        for family in ["iptables", "ip6tables"] {
            for what in ["", "-save", "-restore", "-nft-save", "-nft-restore", "-legacy-save"] {
                std::fs::write(format!("/run/mine/{family}{what}"), script).unwrap();
            }
            std::fs::write(format!("/run/mine/{family}-legacy-restore"), script).unwrap();
        }
        line("chmod -R a+rx /run/mine");
        std::fs::write("/run/lock", "").unwrap();
        line("chown 65534 /run/lock");
        let run = |args: &[&str]| -> Ran {
            let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            let mut command = Command::new("/usr/bin/setpriv");
            command.args(user).arg(program).args(args).current_dir("/run/mine");
            command.env("PATH", "/run/mine:.:").env("XTABLES_LOCKFILE", "/run/lock");
            // iptables would load its extensions from there, and fail for want of them.
            command.env("XTABLES_LIBDIR", "/run/mine").output().unwrap().into()
        };
        for backend in common::BACKENDS {
            for args in [&apply(backend, &[])[..], &["status"], &["doctor"], &["cleanup"]] {
                let ran = run(args);
                assert_eq!(ran.code, 0, "{backend} {args:?}: {}", ran.stderr);
                assert!(!std::fs::exists("/run/mine/lent").unwrap(), "{backend} {args:?}");
            }
        }
        // Those who have the privileges themselves may name their programs.
        let mut own = netra_init_command(&apply("iptables-nft", &[]));
        own.env("PATH", "/run/mine").output().unwrap();
        assert!(std::fs::exists("/run/mine/lent").unwrap(), "the programs do show it");
    });
}

/// What we start gets the privileges it needs, and nothing else of us.
#[test]
fn programs_get_only_what_they_need() {
    isolated("programs_get_only_what_they_need", || {
        let program = "/run/netra-init";
        std::fs::copy(env!("CARGO_BIN_EXE_netra-init"), program).unwrap();
        let script = "(echo \"$*\"; grep CapEff /proc/self/status; env) >>/run/seen; \
                      exec $REAL \"$@\"";
        line("install -m 666 /dev/null /run/seen");
        line("install -o 65534 /dev/null /run/lock");
        let caps = |granted: &str, backend: &str| -> String {
            std::fs::write("/run/seen", "").unwrap();
            let path = common::fake_program(&format!("{backend}-restore"), script);
            let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            let mut command = Command::new("/usr/bin/setpriv");
            command.args(user).args([&format!("--inh-caps={granted}")]);
            command.args([&format!("--ambient-caps={granted}"), program]);
            command.args(apply(backend, &["--ipv6=off"])).env("PATH", path).env("TOKEN", "secret");
            command.env("XTABLES_LOCKFILE", "/run/lock");
            let ran = Ran::from(command.output().unwrap());
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            std::fs::remove_dir_all("/run/fake").unwrap();
            std::fs::read_to_string("/run/seen").unwrap()
        };
        let granted = "+net_admin,+net_raw,+net_bind_service";
        let (nft, legacy) = (caps(granted, "iptables-nft"), caps(granted, "iptables-legacy"));
        for (seen, mask) in [(nft, 1 << 12), (legacy, 1 << 12 | 1 << 13)] {
            let lent: Vec<&str> = seen.lines().filter(|line| line.starts_with("CapEff")).collect();
            assert!(!lent.is_empty());
            assert!(lent.iter().all(|line| *line == format!("CapEff:\t{mask:016x}")), "{lent:?}");
            assert!(!seen.contains("secret"), "{seen}");
        }
    });
}

/// Kubernetes gives its containers their capabilities whoever they run as, and with
/// `allowPrivilegeEscalation: false` files can add none to them, but may keep them.
#[test]
fn an_ordinary_user_as_kubernetes_starts_it() {
    isolated("an_ordinary_user_as_kubernetes_starts_it", || {
        let program = "/run/netra-init";
        std::fs::copy(env!("CARGO_BIN_EXE_netra-init"), program).unwrap();
        line("setcap cap_net_admin,cap_net_raw+p /run/netra-init");
        let run = |granted: &str, command: &str| -> Ran {
            let caps = format!("--caps={granted}");
            let user = ["--keep=1", "--gid=65534", "--uid=65534", &caps, "--shell=/run/netra-init"];
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--no-new-privs", "capsh"]).args(user).args(["--", command]);
            setpriv.output().unwrap().into()
        };
        let ran = run("cap_net_admin,cap_net_raw+ep", "apply");
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("applied (nft-native)"), "{}", ran.stdout);
        assert_eq!(run("cap_net_admin+ep", "cleanup").code, 0);
        assert_eq!(run("cap_net_raw+ep", "apply").code, 3);
    });
}

#[test]
fn the_doctor_finds_what_is_in_the_way() {
    isolated("the_doctor_finds_what_is_in_the_way", || {
        let before = ruleset();
        let healthy = expect(0, &["doctor"]);
        assert_eq!(ruleset(), before, "it only looks");
        for says in [
            "ok    capabilities     CAP_NET_ADMIN, CAP_NET_RAW",
            "ok    nft-native       no program needed",
            "ok    backend          nft-native would be used",
            "warn  rules            not applied",
            "warn  sidecar          nobody listens on port 14956",
            "ok    uid              nobody but netra runs as uid 1337",
        ] {
            assert!(healthy.stdout.contains(says), "{says}: {}", healthy.stdout);
        }
        expect(0, &["apply"]);
        let mut clash = Command::new("setpriv")
            .args(["--reuid=1337", "--regid=7", "--clear-groups", "sleep", "20"])
            .spawn()
            .unwrap();
        let _sidecar = std::net::TcpListener::bind(("127.0.0.1", 14956)).unwrap();
        common::wait_until(|| expect(0, &["doctor"]).stdout.contains("warn  uid"));
        let sick = expect(0, &["doctor", "--log-format=json"]).stdout;
        clash.kill().unwrap();
        clash.wait().unwrap();
        assert!(sick.contains(&format!("sleep (process {})", clash.id())), "{sick}");
        assert!(sick.contains(r#""check":"rules","result":"ok""#), "{sick}");
        // Who listens there does not say that it is netra.
        assert!(sick.contains(r#""check":"sidecar","result":"warn""#), "{sick}");
        assert!(sick.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{sick}");
        let mut unprivileged = Command::new("setpriv");
        unprivileged.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
        let ran = Ran::from(
            unprivileged.args([env!("CARGO_BIN_EXE_netra-init"), "doctor"]).output().unwrap(),
        );
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert!(ran.stdout.contains("fail  capabilities     CAP_NET_ADMIN is missing"));
    });
}
