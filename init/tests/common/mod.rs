//! Runs a test in its own network namespace, and programs in it.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod net;
#[allow(unsafe_code)] // The one door.
pub(crate) mod sys;

use std::env;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "NETRA_TEST_INSIDE_NETNS";

/// The three backends by name.
pub(crate) const BACKENDS: [&str; 3] = ["nft-native", "iptables-nft", "iptables-legacy"];

/// Settings that use every match and every kind of set.
pub(crate) const SETTINGS: &[&[&str]] = &[
    &[],
    &["--ipv6=off"],
    &["--inbound-ports=none"],
    &["--outbound-probability=0"],
    &["--intercept-self", "--intercept-dns-tcp", "--outbound-probability=0.5"],
    &[
        "--inbound-ports=80,443,8000:9000",
        "--exclude-inbound-ports=22,8081,1:5,65000:65535",
        "--exclude-inbound-cidrs=10.0.0.0/8,192.168.1.77,0.0.0.0/7,255.0.0.0/8,\
         ::/64,fd00::/8,ff00::/8",
        "--outbound-ports=1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,1000:2000",
        "--include-outbound-cidrs=10.0.0.0/8,172.16.0.0/16,172.17.0.0/16,172.18.0.0/16,fd00::/9",
        "--exclude-outbound-cidrs=10.1.16.0/20,fd00:1::/33",
        "--outbound-probability=0.333333",
        "--exclude-uids=5,6",
        "--exclude-gids=77",
        "--include-gids=1,2,3",
        "--exclude-interfaces=eth1,cni*",
        "--inbound-port=15006",
        "--drop-invalid",
        "--reroute-interfaces=virbr0,docker*",
    ],
    &["--drop-invalid", "--ipv6=off"],
    &["--reroute-interfaces=virbr0", "--inbound-ports=none", "--outbound-ports=none"],
    &[
        "--exclude-outbound-cidrs=0.0.0.0/0",
        "--include-gids=9",
        "--include-outbound-cidrs=::/0,1.1.1.1",
    ],
    &["--include-outbound-cidrs=10.1.0.0/16,10.2.0.0/15,fd00::1,fd00::2/127,fd00::4"],
];

/// Runs `body` in a fresh network namespace: re-executes this test under `unshare`. `name` is the
/// path of the test as libtest knows it.
pub(crate) fn isolated(name: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        // The lock file of iptables and the names of namespaces are ours alone.
        must("mount", &["-t", "tmpfs", "netra-test", "/run"]);
        must("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    let probe = Command::new("unshare").args(["-nm", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let is_required = env::var("NETRA_REQUIRE_NETNS").is_ok_and(|value| value == "1");
        assert!(!is_required, "{name}: cannot unshare, and NETRA_REQUIRE_NETNS=1");
        eprintln!("*** SKIPPED {name}: needs root and unshare -nm; it proves nothing ***");
        return;
    }
    let test = env::current_exe().expect("path of the test");
    let output = Command::new("unshare")
        .arg("-nm")
        .arg(test)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stderr(Stdio::inherit())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name}: failed inside its network namespace:\n{said}");
    // A wrong name selects no test, which libtest takes for a success.
    assert!(said.contains("test result: ok. 1 passed"), "{name}: is not the name of this test");
}

/// A finished program.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A command for netra-init without any setting in its environment.
pub(crate) fn netra_init_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netra-init"));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("NETRA_") || text.ends_with("_INTERCEPT_PORTS") {
            command.env_remove(&name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs netra-init.
pub(crate) fn netra_init(args: &[&str]) -> Ran {
    netra_init_command(args).output().expect("netra-init").into()
}

/// Runs netra-init; it has to exit with `code`.
#[track_caller]
pub(crate) fn expect(code: i32, args: &[&str]) -> Ran {
    let ran = netra_init(args);
    assert_eq!(ran.code, code, "netra-init {args:?}:\n{}{}", ran.stdout, ran.stderr);
    ran
}

/// Runs a program; it has to succeed. Returns what it printed.
#[track_caller]
pub(crate) fn must(program: &str, args: &[&str]) -> String {
    feed(program, args, "")
}

/// Runs a program with words from one line; it has to succeed.
#[track_caller]
pub(crate) fn line(command: &str) -> String {
    let words: Vec<&str> = command.split_ascii_whitespace().collect();
    must(words[0], &words[1..])
}

/// Runs a program with this input; it has to succeed.
#[track_caller]
pub(crate) fn feed(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("input");
    let ran = Ran::from(child.wait_with_output().expect("output"));
    assert_eq!(ran.code, 0, "{program} {args:?}: {}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// Everything netfilter has here, in every language, without counters and dates.
pub(crate) fn ruleset() -> String {
    let mut all = must("nft", &["-s", "list", "ruleset"]);
    for program in
        ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"]
    {
        all += program;
        all.push('\n');
        let saved = must(program, &[]);
        let lines = saved.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            // ":OUTPUT ACCEPT [12:720]": foreign chains may have counted something.
            all += line.split(" [").next().unwrap_or(line);
            all.push('\n');
        }
    }
    all
}

/// Puts a program of this name before the real one: a script that may `exec "$REAL" "$@"`. Returns
/// the PATH to run netra-init with.
pub(crate) fn fake_program(name: &str, script: &str) -> String {
    let real = format!("/usr/sbin/{name}");
    let fake = format!("/run/fake/{name}");
    std::fs::create_dir_all("/run/fake").expect("folder");
    std::fs::write(&fake, format!("#!/bin/sh\nREAL={real}\n{script}\n")).expect("script");
    must("chmod", &["755", &fake]);
    "/run/fake:/usr/sbin:/usr/bin".to_owned()
}

/// Waits for another process, up to ten seconds.
#[track_caller]
pub(crate) fn wait_until(mut is_done: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is_done() {
            return;
        }
        must("sleep", &["0.05"]);
    }
    panic!("waited too long");
}

/// Arguments that apply settings with a backend.
pub(crate) fn apply<'a>(backend: &'a str, settings: &[&'a str]) -> Vec<&'a str> {
    [&["apply", "--backend", backend], settings].concat()
}

/// Rules of others, in every language and in the very chains we use.
pub(crate) fn add_foreign_rules() {
    line("nft add table inet other");
    line("nft add chain inet other out { type nat hook output priority -100 ; }");
    line("nft add rule inet other out tcp dport 9999 redirect to :1");
    for family in ["iptables", "ip6tables"] {
        line(&format!("{family}-nft -t nat -A POSTROUTING -p tcp --dport 7 -j MASQUERADE"));
        line(&format!(
            "{family}-nft -t nat -A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 5353"
        ));
        line(&format!("{family}-nft -A INPUT -p tcp --dport 7 -j DROP"));
        line(&format!("{family}-nft -t mangle -A POSTROUTING -p udp --dport 7 -j DROP"));
        line(&format!("{family}-legacy -t mangle -A PREROUTING -p udp --dport 7 -j DROP"));
        line(&format!(
            "{family}-legacy -t nat -A PREROUTING -p tcp --dport 8 -j REDIRECT --to-ports 9"
        ));
        line(&format!("{family}-legacy -t nat -N NETRA_INBOUND_NOT_OURS"));
        line(&format!("{family}-legacy -A INPUT -p tcp --dport 8 -j DROP"));
    }
}
