//! The program from outside: exit codes, messages, environment. Needs no privileges.

mod common;

use common::{expect, netra_init_command};

/// Each is refused by name, before anything is touched, with exit code 2 and one line.
const REFUSED: &[(&[&str], &str)] = &[
    (&["--sidecar-port", "65536"], "--sidecar-port: bad value \"65536\": allowed are ports"),
    (&["--port", "0"], "--sidecar-port: bad value \"0\""),
    (&["--inbound-probability", "1.5"], "--inbound-probability: bad value \"1.5\""),
    (&["--outbound-probability", "NaN"], "--outbound-probability: bad value \"NaN\""),
    (&["--outbound-probability", "-0.1"], "--outbound-probability: bad value \"-0.1\""),
    (&["--sidecar-user-id", "nobody-here"], "bad value \"nobody-here\": there is no such user"),
    (&["--sidecar-user-id", "0"], "uid 0 would let every process of root bypass the sidecar"),
    (&["--exclude-gids", "0"], "gid 0 would let every process of root bypass the sidecar"),
    (&["--inbound-ports", "80-90"], "--inbound-ports: bad value \"80-90\""),
    (&["--exclude-outbound-cidrs", "10.0.0.0/33"], "--exclude-outbound-cidrs: bad value"),
    (&["--exclude-interfaces", "a/b"], "--exclude-interfaces: bad value \"a/b\""),
    (&["--ipv6", "maybe"], "--ipv6: bad value \"maybe\": allowed are auto, require and off"),
    (&["--backend", "pf"], "--backend: bad value \"pf\": allowed are auto, nft-native"),
    (&["--mode", "x"], "--mode: bad value \"x\""),
    (&["--netns", "/no/such/file"], "--netns: bad value \"/no/such/file\""),
    (&["--netns", "/etc/passwd"], "--netns: bad value \"/etc/passwd\": not a network namespace"),
    (&["--lock-wait-seconds", "0"], "--lock-wait-seconds: bad value \"0\""),
    (&["--reroute-interfaces", "a/b"], "--reroute-interfaces: bad value \"a/b\""),
    (&["--drop-invalid=x"], "--drop-invalid: bad value \"x\""),
    (&["--close-wait-timeout-seconds", "0"], "--close-wait-timeout-seconds: bad value \"0\""),
    (&["--reconcile=x"], "--reconcile: bad value \"x\""),
    (&["--guardrails=x"], "--guardrails: bad value \"x\""),
    (&["--own-ports", "0"], "--own-ports: bad value \"0\""),
    (&["--inbound-port", "x"], "--inbound-port: bad value \"x\""),
    (&["--outbound-port", "x"], "--outbound-port: bad value \"x\""),
    (&["--sidecar-group-id", "-1"], "--sidecar-group-id: bad value \"-1\""),
    (&["--allow-root-uid=x"], "--allow-root-uid: bad value \"x\""),
    (&["--exclude-inbound-ports", "x"], "--exclude-inbound-ports: bad value \"x\""),
    (&["--exclude-inbound-cidrs", "x"], "--exclude-inbound-cidrs: bad value \"x\""),
    (&["--outbound-ports", "x"], "--outbound-ports: bad value \"x\""),
    (&["--exclude-outbound-ports", "x"], "--exclude-outbound-ports: bad value \"x\""),
    (&["--include-outbound-cidrs", "x"], "--include-outbound-cidrs: bad value \"x\""),
    (&["--exclude-uids", "x-y"], "--exclude-uids: bad value \"x-y\""),
    (&["--include-gids", ","], "--include-gids: bad value \",\""),
    (&["--intercept-dns-tcp=x"], "--intercept-dns-tcp: bad value \"x\""),
    (&["--intercept-self=x"], "--intercept-self: bad value \"x\""),
    (&["--verify-timeout-seconds", "x"], "--verify-timeout-seconds: bad value \"x\""),
    (&["--log-format", "xml"], "--log-format: bad value \"xml\""),
    (&["--dry-run=x"], "--dry-run: bad value \"x\""),
];

#[test]
fn bad_values_exit_2_and_name_themselves() {
    for setting in netra_init::settings::SETTINGS {
        let starts = |name: Option<&str>| {
            name.is_some_and(|name| {
                REFUSED.iter().any(|row| row.0[0].split('=').next() == Some(&format!("--{name}")))
            })
        };
        assert!(starts(Some(setting.flag)) || starts(setting.alias), "{} untested", setting.flag);
    }
    for command in ["apply", "cleanup", "print", "status", "verify", "doctor"] {
        for (args, says) in REFUSED {
            if command == "print" && args[0] == "--netns" {
                continue; // Printing enters no namespace.
            }
            let ran = expect(2, &[&[command], *args].concat());
            assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert_eq!(ran.stdout, "");
        }
    }
}

#[test]
fn unknown_flags_and_commands_exit_2() {
    for args in [&["--no-such-flag"][..], &["reboot"], &["apply", "cleanup"], &["--port"]] {
        expect(2, args);
    }
}

#[test]
fn variables_are_named_when_they_are_wrong() {
    for (name, value) in [
        ("NETRA_SIDECAR_PORT", "x"),
        ("NETRA_SIDECAR_USER_ID", "-1"),
        ("NETRA_SIDECAR_GROUP_ID", "4294967295"),
        ("INBOUND_INTERCEPT_PORTS", "80;81"),
        ("OUTBOUND_INTERCEPT_PORTS", "all"),
        ("NETRA_INBOUND_PROBABILITY", "1.01"),
        ("NETRA_OUTBOUND_PROBABILITY", "often"),
    ] {
        let output = netra_init_command(&["print"]).env(name, value).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(&format!("{name}: bad value \"{value}\": ")), "{stderr}");
    }
}

#[test]
fn flag_beats_variable_beats_default() {
    let print = |args: &[&str], port: Option<&str>| {
        let args = [&["print", "--ipv6=off"], args].concat();
        let mut command = netra_init_command(&args);
        if let Some(port) = port {
            command.env("NETRA_SIDECAR_PORT", port);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(print(&[], None).contains("redirect to :14956"));
    assert!(print(&[], Some("")).contains("redirect to :14956"));
    assert!(print(&[], Some("15001")).contains("redirect to :15001"));
    assert!(print(&["--port", "15002"], Some("15001")).contains("redirect to :15002"));
}

/// What the kubelet sets for Services called `netra-sidecar` and `netra-inbound`.
#[test]
fn services_of_the_namespace_keep_nobody_from_starting() {
    let plain = netra_init_command(&["print", "--ipv6=off"]).output().unwrap();
    let links = [
        ("NETRA_SIDECAR_PORT", "tcp://10.0.0.1:80"),
        ("NETRA_INBOUND_PORT", "tcp://[fd00::1]:80"),
        ("NETRA_OUTBOUND_PORT", "udp://10.0.0.2:53"),
    ];
    let ran = netra_init_command(&["print", "--ipv6=off"]).envs(links).output().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{stderr}");
    assert_eq!(ran.stdout, plain.stdout);
    assert!(stderr.starts_with("netra-init: warn: of Kubernetes, about Services"), "{stderr}");
    assert!(links.iter().all(|(name, value)| stderr.contains(&format!("{name}={value}"))));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let ran = expect(2, &["print", "--port", "tcp://10.0.0.1:80"]);
    assert!(ran.stderr.contains("--sidecar-port: bad value \"tcp://10.0.0.1:80\""));
}

/// A pod waits for it before anything else may start.
#[test]
fn it_starts_within_50_ms() {
    let run = |_| {
        let begun = std::time::Instant::now();
        expect(0, &["print"]);
        begun.elapsed()
    };
    let fastest = (0..10).map(run).min().unwrap();
    assert!(fastest < std::time::Duration::from_millis(50), "{fastest:?}");
}

#[test]
fn json_errors_are_one_object() {
    let ran = expect(2, &["--log-format=json", "--port=0"]);
    assert!(
        ran.stderr.starts_with(r#"{"level":"error","event":"usage","message":"--sidecar-port"#)
    );
    assert!(ran.stderr.ends_with("\"exit_code\":\"2\"}\n"), "{}", ran.stderr);
}

#[test]
fn mode_none_does_nothing_without_privileges() {
    let ran = expect(0, &["--mode", "none", "apply"]);
    assert!(ran.stdout.contains("nothing to do"));
}

#[test]
fn help_names_every_setting_with_its_variable() {
    let help = expect(0, &["--help"]).stdout;
    for setting in netra_init::settings::SETTINGS {
        assert!(help.contains(&format!("--{}", setting.flag)), "{}", setting.flag);
        assert!(help.contains(&format!("[env: {}]", setting.env.unwrap())), "{}", setting.flag);
    }
}
