//! `netra demo` as root and as an ordinary user, and that it leaves nothing behind.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;
use support::netra::netra_binary;
use support::sys::{self, Birth};
use support::world::checked;
use support::{PATIENCE, procfs, wait_until};

/// A user that every Debian has and that may do nothing special.
const NOBODY: u32 = 65534;

/// Whether this test can be whole here; it says so, or fails where that is required.
fn root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let required = std::env::var("NETRA_REQUIRE_NETNS").is_ok_and(|value| value == "1");
    assert!(!required, "NETRA_REQUIRE_NETNS=1, but this test needs root to become others");
    eprintln!("SKIPPED: needs root to become other users");
    false
}

fn demo(identity: Option<u32>, args: &[&str]) -> Command {
    let mut command = Command::new(netra_binary());
    command.arg("demo").args(args).stdin(Stdio::null());
    sys::on_birth(&mut command, Birth::default(), identity);
    command
}

fn report(mut command: Command) -> Value {
    let text = checked(command.output().expect("the demo runs"), "netra demo");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// What a report must say of the directions it shows.
fn verify(report: &Value, directions: &[&str]) {
    assert_eq!(report["holds"], true, "{report}");
    let legs = report["legs"].as_array().expect("legs");
    let shown: Vec<_> = legs.iter().map(|leg| leg["direction"].as_str().unwrap_or("")).collect();
    assert_eq!(shown, directions, "{report}");
    for leg in legs {
        let intercepted = leg["intercepted"].as_array().expect("destinations");
        assert!(!intercepted.is_empty(), "{leg}");
        for destination in intercepted {
            assert!(destination["connections"].as_u64() > Some(10), "{leg}");
        }
        for path in ["direct", "netra"] {
            for figure in ["request_p50_us", "request_p99_us", "first_answer_p50_us"] {
                assert!(leg[path][figure].as_f64() > Some(0.0), "{figure} of {path}: {leg}");
            }
        }
        assert!(leg["netra_response_bytes"].as_u64() > Some(100 << 20), "{leg}");
    }
    assert!(["io_uring", "epoll"].contains(&report["driver"].as_str().unwrap_or("")), "{report}");
}

#[test]
fn as_root_both_directions() {
    if root() {
        verify(&report(demo(None, &["--json", "--requests", "300"])), &["inbound", "outbound"]);
    }
}

#[test]
fn the_drivers_can_be_chosen() {
    if !root() {
        return;
    }
    for driver in ["epoll", "io_uring"] {
        let mut command = demo(None, &["--json", "--requests", "100"]);
        let report = report({
            command.env("NETRA_IO", driver);
            command
        });
        assert_eq!(report["driver"], driver);
    }
}

/// Without a second user only the inbound half can be shown, and the report says why.
#[test]
fn as_nobody_the_inbound_half() {
    if !root() {
        return;
    }
    let report = report(demo(Some(NOBODY), &["--json", "--requests", "300"]));
    verify(&report, &["inbound"]);
    assert!(report["inbound_only"].as_str().is_some_and(|why| why.contains("/etc/subuid")));
}

/// With a range of users of his own, an ordinary user sees everything.
#[test]
fn as_a_user_with_subordinate_ids_both_directions() {
    if !root() {
        return;
    }
    let ranges = std::env::temp_dir().join(format!("netra-demo-subids.{}", std::process::id()));
    fs::write(&ranges, "nobody:200000:65536\n").expect("a file");
    let file = ranges.display();
    // In a mount namespace of its own, so that the machine's files stay as they are.
    let script = format!(
        "touch_or_die() {{ [ -e $1 ] || exit 9; }}; touch_or_die /etc/subuid; \
         touch_or_die /etc/subgid; mount --bind {file} /etc/subuid && \
         mount --bind {file} /etc/subgid && exec setpriv --reuid {NOBODY} --regid {NOBODY} \
         --clear-groups {} demo --json --requests 300",
        netra_binary().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null());
    sys::on_birth(&mut command, Birth::default(), None);
    let report = report(command);
    fs::remove_file(&ranges).expect("the file");
    verify(&report, &["inbound", "outbound"]);
}

#[test]
fn the_text_names_destinations_and_costs() {
    if !root() {
        return;
    }
    let output = demo(None, &["--requests", "200"]).output().expect("the demo runs");
    let text = checked(output, "netra demo");
    for words in ["10.77.0.2:8080", "10.77.0.1:9080", "added", "p99", "✓ inbound", "✓ outbound"]
    {
        assert!(text.contains(words), "no {words} in:\n{text}");
    }
    assert!(!text.contains('✗'), "{text}");
}

/// A demo that stays up, and its sidecar.
struct Held {
    demo: Child,
    sidecar: u32,
    namespace: String,
}

fn hold(identity: Option<u32>) -> Held {
    let mut command = demo(identity, &["--hold", "--requests", "100"]);
    let mut demo = command.stdout(Stdio::piped()).spawn().expect("the demo runs");
    let lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let mut said = String::new();
    for line in lines.map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once("netra is process ") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let sidecar = digits.parse().expect("the sidecar's process");
            let namespace = namespace_of(sidecar).expect("the sidecar's namespace");
            return Held { demo, sidecar, namespace };
        }
        said += &(line + "\n");
    }
    let status = demo.wait().expect("wait");
    panic!("the demo does not stay up ({status}):\n{said}");
}

fn namespace_of(pid: u32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/ns/net")).ok()?.display().to_string())
}

impl Held {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.demo.id()).expect("a pid"));
        kill(pid, signal).expect("the demo is ours");
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = wait_until(PATIENCE, || {
            status = self.demo.try_wait().expect("wait");
            status.is_some()
        });
        assert!(ended, "the demo does not end");
        status.expect("an end")
    }

    /// Neither the sidecar nor anything else lives in the namespace any more.
    fn leaves_nothing(&self) {
        let gone = || !procfs::alive(self.sidecar) && inhabitants(&self.namespace) == 0;
        assert!(wait_until(PATIENCE, gone), "{} processes stay", inhabitants(&self.namespace));
    }
}

fn inhabitants(namespace: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| namespace_of(*pid).as_deref() == Some(namespace)).count()
}

#[test]
fn ctrl_c_ends_a_held_demo_in_order() {
    if !root() {
        return;
    }
    for identity in [None, Some(NOBODY)] {
        let mut held = hold(identity);
        assert!(procfs::alive(held.sidecar) && inhabitants(&held.namespace) > 0);
        held.signal(Signal::SIGINT);
        assert_eq!(held.wait().code(), Some(0), "as {identity:?}");
        held.leaves_nothing();
    }
}

#[test]
fn even_sigkill_leaves_nothing() {
    if !root() {
        return;
    }
    for identity in [None, Some(NOBODY)] {
        let mut held = hold(identity);
        held.signal(Signal::SIGKILL);
        held.wait();
        held.leaves_nothing();
    }
}

#[test]
fn ctrl_c_amid_the_traffic_leaves_nothing() {
    if !root() {
        return;
    }
    let child = demo(None, &["--requests", "1000000"]).stdout(Stdio::null()).spawn().expect("runs");
    let mut sidecar = None;
    let found = wait_until(PATIENCE, || {
        sidecar = sidecar_of(child.id());
        sidecar.is_some()
    });
    assert!(found, "no sidecar");
    thread::sleep(Duration::from_millis(500));
    let sidecar = sidecar.expect("found");
    let namespace = namespace_of(sidecar).expect("the sidecar lives");
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("ours");
    let mut held = Held { sidecar, namespace, demo: child };
    assert!(!held.wait().success(), "an interrupted demo is no success");
    held.leaves_nothing();
}

/// The child of any thread of this process that is netra, and not a tool that the demo uses.
fn sidecar_of(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let lists = threads.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    let children: Vec<u32> = lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .collect();
    let is_netra = |pid: &u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("--service-name")
    };
    children.into_iter().find(is_netra)
}

/// Flags out of range are refused before anything is built.
#[test]
fn nonsense_is_refused() {
    for args in [["--requests", "0"], ["--requests", "many"], ["--what", "ever"]] {
        let output = demo(None, &args).output().expect("the demo runs");
        assert!(!output.status.success(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?} must be explained");
    }
}
