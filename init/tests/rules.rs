//! The rules in a real kernel, in a network namespace per test.

mod common;

use std::process::Stdio;

use common::{
    BACKENDS, SETTINGS, add_foreign_rules, apply, expect, feed, isolated, line, must,
    netra_init_command, ruleset,
};

#[test]
fn applied_three_times_is_applied_once() {
    isolated("applied_three_times_is_applied_once", || {
        for backend in BACKENDS {
            for settings in SETTINGS {
                expect(0, &apply(backend, settings));
                let once = ruleset();
                for _ in 0..2 {
                    let ran = expect(0, &apply(backend, settings));
                    assert!(ran.stdout.contains("already applied"), "{settings:?} {}", ran.stdout);
                    assert_eq!(ruleset(), once);
                }
                let status = [&["status", "--backend", backend], *settings].concat();
                expect(0, &status);
                expect(7, &[&status[..], &["--own-ports=77", "--uid=88"]].concat());
            }
            expect(0, &["cleanup"]);
            expect(7, &["status"]);
        }
    });
}

#[test]
fn native_rules_are_what_nft_makes_of_our_text() {
    isolated("native_rules_are_what_nft_makes_of_our_text", || {
        for settings in SETTINGS {
            expect(0, &apply("nft-native", settings));
            let native = must("nft", &["list", "ruleset"]);
            line("nft delete table inet netra");
            let text = expect(0, &[&["print"], *settings].concat()).stdout;
            for _ in 0..2 {
                feed("nft", &["-f", "-"], &text);
                assert_eq!(must("nft", &["list", "ruleset"]), native, "{settings:?}");
            }
            let ran = expect(0, &apply("nft-native", settings));
            assert!(ran.stdout.contains("already applied"), "{settings:?}: compiled differently");
        }
    });
}

#[test]
fn iptables_rules_are_what_restore_makes_of_our_text() {
    isolated("iptables_rules_are_what_restore_makes_of_our_text", || {
        for settings in SETTINGS {
            for kind in ["nft", "legacy"] {
                let backend = format!("iptables-{kind}");
                let text =
                    expect(0, &[&["print", "--backend", &backend], *settings].concat()).stdout;
                for part in text.split_inclusive("COMMIT\n") {
                    let program = part.split_ascii_whitespace().nth(1).expect("heading");
                    let program = program.replace("tables-", &format!("tables-{kind}-"));
                    feed(&program, &["--noflush"], part);
                }
                let ran = expect(0, &apply(&backend, settings));
                assert!(ran.stdout.contains("already applied"), "{settings:?}");
                expect(0, &["cleanup"]);
            }
        }
    });
}

#[test]
fn broken_native_rules_are_mended() {
    isolated("broken_native_rules_are_mended", || {
        let breakages: &[&str] = &[
            "nft flush chain inet netra inbound",
            "nft flush chain inet netra output",
            "nft add rule inet netra outbound accept",
            "nft insert rule inet netra outbound accept",
            "nft add chain inet netra other",
            "nft add table inet netra { flags dormant ; }",
            "nft delete table inet netra",
            "nft flush table inet netra",
            "nft flush ruleset",
        ];
        let settings = ["--exclude-uids=5,6", "--exclude-outbound-ports=80:90,99"];
        expect(0, &apply("nft-native", &settings));
        let wanted = ruleset();
        for breakage in breakages {
            line(breakage);
            expect(7, &[&["status"], &settings[..]].concat());
            expect(0, &apply("nft-native", &settings));
            assert_eq!(ruleset(), wanted, "after {breakage}");
        }
        // The same number of rules in another order, with another port, with another element.
        let text = expect(0, &[&["print"], &settings[..]].concat()).stdout;
        let swap = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        };
        for broken in [
            swap("redirect to :14956", "redirect to :14957"),
            swap("53, 80-90, 99", "53, 80-91, 99"),
            swap("{ 5, 6, 1337 }", "{ 5, 7, 1337 }"),
            swap("127.0.0.0/8", "127.0.0.0/9"),
            swap("priority -100", "priority -99"),
            swap("comment \"netra/uid\"", "comment \"netra/gid\""),
            swap("jump outbound", "goto outbound"),
            swap("== syn jump inbound", "== ack jump inbound"),
        ] {
            feed("nft", &["-f", "-"], &broken);
            expect(7, &[&["status"], &settings[..]].concat());
            expect(0, &apply("nft-native", &settings));
            assert_eq!(ruleset(), wanted);
        }
    });
}

#[test]
fn broken_iptables_rules_are_mended() {
    isolated("broken_iptables_rules_are_mended", || {
        for kind in ["nft", "legacy"] {
            let backend = format!("iptables-{kind}");
            let breakages: &[&[&str]] = &[
                &["iptables -t nat -F NETRA_INBOUND"],
                &["iptables -t nat -D NETRA_OUTBOUND 1"],
                &["iptables -t nat -A NETRA_OUTBOUND -j ACCEPT"],
                &["iptables -t nat -A OUTPUT -p tcp -j NETRA_OUTBOUND"],
                &["iptables -t nat -A PREROUTING -j NETRA_INBOUND"; 3],
                &["iptables -t nat -F OUTPUT"],
                &["ip6tables -t nat -F"],
                &["ip6tables -t nat -F", "ip6tables -t nat -X NETRA_INBOUND"],
                &["iptables -t nat -F", "iptables -t nat -X NETRA_OUTBOUND"],
            ];
            expect(0, &apply(&backend, &[]));
            let saved = || {
                ["iptables", "ip6tables"]
                    .map(|family| must(&format!("{family}-{kind}-save"), &["-t", "nat"]))
                    .join("")
                    .lines()
                    .filter(|line| !line.starts_with('#'))
                    // Which chains were made for us can change when somebody breaks the jumps.
                    .map(|line| line.replace("jump-made", "jump") + "\n")
                    .collect::<String>()
            };
            let wanted = saved();
            for commands in breakages {
                for command in *commands {
                    line(&command.replacen("tables", &format!("tables-{kind}"), 1));
                }
                expect(7, &["status", "--backend", &backend]);
                expect(0, &apply(&backend, &[]));
                assert_eq!(saved(), wanted, "{kind} after {commands:?}");
            }
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn cleanup_leaves_foreign_rules_byte_identical() {
    isolated("cleanup_leaves_foreign_rules_byte_identical", || {
        add_foreign_rules();
        let before = ruleset();
        for backend in BACKENDS {
            for settings in SETTINGS {
                expect(0, &apply(backend, settings));
                assert_ne!(ruleset(), before);
                expect(0, &["cleanup"]);
                assert_eq!(ruleset(), before, "{backend} {settings:?}");
            }
            // Also from one set of rules to another.
            SETTINGS.iter().for_each(|settings| drop(expect(0, &apply(backend, settings))));
            expect(0, &["cleanup"]);
            assert_eq!(ruleset(), before, "{backend}");
        }
        assert!(expect(0, &["cleanup"]).stdout.contains("nothing to clean up"));
    });
}

#[test]
fn cleanup_of_nothing_makes_nothing() {
    isolated("cleanup_of_nothing_makes_nothing", || {
        for _ in 0..2 {
            expect(0, &["cleanup"]);
            assert_eq!(must("nft", &["list", "ruleset"]), "");
            assert_eq!(must("iptables-legacy-save", &[]), "");
        }
        // The old tables stay loaded once used; these two backends leave not even a table.
        for backend in ["nft-native", "iptables-nft"] {
            expect(0, &apply(backend, &[]));
            expect(0, &["cleanup"]);
            assert_eq!(must("nft", &["list", "ruleset"]), "", "{backend}");
        }
    });
}

#[test]
fn another_backend_takes_over() {
    isolated("another_backend_takes_over", || {
        add_foreign_rules();
        let before = ruleset();
        for backend in BACKENDS.iter().chain(BACKENDS.iter().rev()) {
            expect(0, &apply(backend, &[]));
            assert!(expect(0, &["status"]).stdout.contains(backend));
        }
        expect(0, &["cleanup"]);
        assert_eq!(ruleset(), before);
        // With rules in the old tables, those are where people look.
        assert!(expect(0, &["apply"]).stdout.contains("iptables-legacy"));
    });
}

#[test]
fn auto_is_native_on_an_empty_machine() {
    isolated("auto_is_native_on_an_empty_machine", || {
        assert!(expect(0, &[]).stdout.contains("nft-native"));
    });
}

#[test]
fn rules_of_netramesh_are_replaced_and_cleaned_up() {
    isolated("rules_of_netramesh_are_replaced_and_cleaned_up", || {
        for kind in ["nft", "legacy"] {
            let backend = format!("iptables-{kind}");
            let netramesh = || {
                for rule in [
                    "-N NETRA_INBOUND",
                    "-N NETRA_OUTBOUND",
                    "-A PREROUTING -m statistic --mode random --probability 1 -j NETRA_INBOUND",
                    "-A OUTPUT -m statistic --mode random --probability 1 -j NETRA_OUTBOUND",
                    "-A NETRA_OUTBOUND -m owner --uid-owner 1337 -j RETURN",
                    "-A NETRA_OUTBOUND -p tcp -o lo -d 127.0.0.1 -j RETURN",
                    "-A NETRA_OUTBOUND -p tcp -j REDIRECT --to-ports 14956",
                ] {
                    line(&format!("{backend} -t nat {rule}"));
                }
            };
            let saved = || {
                let saved =
                    ["iptables", "ip6tables"].map(|f| must(&format!("{f}-{kind}-save"), &[]));
                let lines = saved.iter().flat_map(|text| text.lines());
                lines
                    .filter(|line| !line.starts_with('#'))
                    .map(|line| line.replace("jump-made", "jump"))
                    .collect::<Vec<_>>()
            };
            expect(0, &apply(&backend, &[]));
            let wanted = saved();
            expect(0, &["cleanup"]);
            netramesh();
            expect(0, &apply(&backend, &[]));
            assert_eq!(saved(), wanted);
            expect(0, &["cleanup"]);
            netramesh();
            expect(0, &["cleanup"]);
            assert!(!ruleset().contains("NETRA"));
        }
    });
}

#[test]
fn many_at_once_are_one() {
    isolated("many_at_once_are_one", || {
        for backend in BACKENDS {
            expect(0, &apply(backend, &[]));
            let wanted = ruleset();
            expect(0, &["cleanup"]);
            let args = apply(backend, &[]);
            let start = |_| netra_init_command(&args).stdout(Stdio::null()).spawn().unwrap();
            let children: Vec<_> = (0..8).map(start).collect();
            for mut child in children {
                assert!(child.wait().unwrap().success(), "{backend}");
            }
            assert_eq!(ruleset(), wanted, "{backend}");
            expect(0, &["cleanup"]);
        }
    });
}

#[test]
fn another_network_namespace() {
    isolated("another_network_namespace", || {
        line("ip netns add other");
        for backend in BACKENDS {
            expect(0, &apply(backend, &["--netns=/run/netns/other"]));
            expect(7, &["status"]);
            expect(0, &["status", "--netns=/run/netns/other"]);
            expect(0, &["cleanup", "--netns", "/run/netns/other"]);
            expect(7, &["status", "--netns", "/run/netns/other"]);
        }
        assert_eq!(must("nft", &["list", "ruleset"]), "");
    });
}

#[test]
fn longest_lists_fit_into_the_kernel() {
    isolated("longest_lists_fit_into_the_kernel", || {
        let join = |text: &dyn Fn(u32) -> String| (1..=512).map(text).collect::<Vec<_>>().join(",");
        let ports = join(&|n| format!("{}:{}", 100 * n, 100 * n + 9));
        let cidrs = join(&|n| format!("10.{}.{}.0/25", n / 256, n % 256));
        let cidrs6 = join(&|n| format!("fd00:{n:x}::/33"));
        let ids = join(&|n| n.to_string());
        let settings = [
            ("--exclude-inbound-ports", &ports),
            ("--exclude-outbound-ports", &ports),
            ("--outbound-ports", &ports),
            ("--exclude-inbound-cidrs", &cidrs),
            ("--exclude-outbound-cidrs", &cidrs6),
            ("--include-outbound-cidrs", &cidrs),
            ("--exclude-uids", &ids),
            ("--include-gids", &ids),
        ];
        let settings: Vec<&str> = settings.iter().flat_map(|(k, v)| [*k, v.as_str()]).collect();
        expect(0, &apply("nft-native", &settings));
        let native = must("nft", &["list", "ruleset"]);
        assert!(expect(0, &apply("nft-native", &settings)).stdout.contains("already"));
        let text = expect(0, &[&["print"], &settings[..]].concat()).stdout;
        feed("nft", &["-f", "-"], &text);
        assert_eq!(must("nft", &["list", "ruleset"]), native);
    });
}
