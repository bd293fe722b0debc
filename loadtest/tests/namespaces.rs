//! `compare` with a real proxy, in namespaces it makes itself. Needs root; `NETRA_REQUIRE_NETNS=1`
//! turns what cannot be tested into a failure.

mod support;

use std::collections::BTreeSet;
use std::io::BufRead;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use support::{Background, Dir, descendants, eventually, is_running, number, program, read, run};

/// A subject that is installed here.
fn subject() -> Option<&'static str> {
    let is_there = |program: &str| {
        let dirs = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin"];
        dirs.iter().any(|dir| std::path::Path::new(dir).join(program).is_file())
    };
    let makes_namespaces =
        Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success());
    let missing = match (nix::unistd::Uid::effective().is_root() && makes_namespaces, ()) {
        (false, ()) => "root and network namespaces",
        _ if std::env::var_os("NETRA_BIN").is_some() => return Some("netra-epoll"),
        _ if is_there("haproxy") => return Some("haproxy-tcp"),
        _ if is_there("nginx") => return Some("nginx-http"),
        _ => "a proxy: NETRA_BIN, haproxy or nginx",
    };
    let required = std::env::var("NETRA_REQUIRE_NETNS").is_ok_and(|value| value == "1");
    assert!(!required, "NETRA_REQUIRE_NETNS=1, and there is no {missing}");
    eprintln!("skipped: no {missing}");
    None
}

#[test]
fn a_comparison_measures_what_the_subject_adds_and_leaves_nothing() {
    let Some(subject) = subject() else { return };
    let dir = Dir::new("compare");
    let (json, html) = (dir.file("c.json"), dir.file("c.html"));
    let words = format!(
        "compare --subject {subject} --rounds 1 --seconds 0.4 --rate 200 --connections 8 --foreign-max 99 \
         --idle-connections 100 --bulk-bytes 20000000 --json {json} --html {html} \
         --scenarios idle,http,max,raw,tcp,churn,bulk,redis,dubbo,thrift,out-http,out-max,out-tcp,out-bulk"
    );
    let mut compare =
        Background::start(program(&words).stdout(Stdio::null()).stderr(Stdio::piped()));
    let pid = compare.pid();
    let lines: Vec<String> = compare.stderr().lines().map_while(Result::ok).collect();
    assert_eq!(compare.wait().code(), Some(0), "{lines:#?}");
    let report = read(&json);
    let samples = report["samples"].as_array().expect("samples");
    let mut kinds: Vec<String> = samples
        .iter()
        .map(|s| format!("{} {} {}", s["subject"], s["scenario"], s["round"]))
        .collect();
    kinds.dedup();
    assert_eq!(kinds.len(), 2 * 14, "direct and the subject, fourteen scenarios");
    for sample in samples {
        let is_direct = sample["subject"] == "direct";
        assert!(sample["failure"].is_null() && number(sample, "/failed") == 0.0, "{sample}");
        assert_eq!(number(sample, "/redirected") == 0.0, is_direct, "{sample}");
        assert_eq!(number(sample, "/cpu") == 0.0, is_direct, "{sample}");
        assert_eq!(number(sample, "/rss_bytes") == 0.0, is_direct, "{sample}");
        if sample["scenario"] == "out_http" && !is_direct {
            assert!(number(sample, "/redirected") >= 8.0, "a packet per connection: {sample}");
        }
        if sample["scenario"] == "idle" && !is_direct {
            assert!(number(sample, "/fd_count") > 100.0, "a descriptor per connection: {sample}");
        }
    }
    let calls = report["calls"].as_array().expect("counts of system calls");
    assert_eq!(calls.len(), 11, "one for each scenario of requests: {calls:?}");
    for calls in calls {
        // At least one to learn of a request and one to answer it, whoever the subject is.
        let count = number(calls, "/per_request");
        assert!((1.0..200.0).contains(&count), "{calls}");
    }
    let page = std::fs::read_to_string(&html).expect("a page");
    assert_eq!(
        page.matches("<svg").count(),
        12,
        "bars, and a chart for each scenario with latencies"
    );
    assert!(page.contains(subject) && !page.contains("<script"));
    let work = std::env::temp_dir().join(format!("netra-loadtest-{pid}"));
    assert!(!work.exists());
}

#[test]
fn the_order_rotates_and_few_rounds_carry_no_verdict() {
    let Some(subject) = subject() else { return };
    let dir = Dir::new("compare-rotates");
    let json = dir.file("c.json");
    let ended = run(&format!(
        "compare --subject {subject} --rounds 2 --seconds 0.3 --rate 100 --connections 4 \
         --scenarios http,tcp --no-syscalls --json {json}"
    ));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report = read(&json);
    let samples = report["samples"].as_array().expect("samples");
    let first_of = |round: u64| samples.iter().find(|s| s["round"] == round).map(|s| &s["subject"]);
    assert_eq!(first_of(1).and_then(|name| name.as_str()), Some("direct"));
    assert_eq!(first_of(2).and_then(|name| name.as_str()), Some(subject), "the order rotates");
    let again = run(&format!("report {json} {json}"));
    assert!(again.stdout.contains("no verdict"), "two rounds are too few: {}", again.stdout);
}

/// Starts a comparison that would take long, and waits until its first sample is taken.
fn start_long(json: &str, subject: &str) -> (Background, Vec<u32>) {
    let words = format!(
        "compare --subject {subject} --rounds 100 --seconds 1 --rate 100 --connections 4 \
         --scenarios http --json {json}"
    );
    let mut compare =
        Background::start(program(&words).stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut lines = compare.stderr().lines();
    // The line of the namespaces, direct, and the subject: its process runs or has just ended.
    for _ in 0..3 {
        let line = lines.next().expect("a line").expect("text");
        assert!(!line.contains("FAILED"), "{line}");
    }
    eventually("it has children", || descendants(compare.pid()).len() >= 2);
    let children = descendants(compare.pid());
    (compare, children)
}

/// The network namespaces of these processes, without ours.
fn namespaces(pids: &[u32]) -> BTreeSet<PathBuf> {
    let of = |pid: &dyn std::fmt::Display| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let ours = of(&"self");
    pids.iter().filter_map(|pid| of(pid)).filter(|space| Some(space) != ours.as_ref()).collect()
}

/// Those of every process, or held open by one. Ours have no name, so nothing else keeps them.
fn every_namespace() -> BTreeSet<PathBuf> {
    let pids = || std::fs::read_dir("/proc").expect("/proc").flatten();
    let held = pids().filter_map(|entry| std::fs::read_dir(entry.path().join("fd")).ok());
    let held = held.flatten().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let used = pids().filter_map(|entry| std::fs::read_link(entry.path().join("ns/net")).ok());
    held.chain(used).collect()
}

#[test]
fn an_interrupt_ends_everything_and_keeps_the_samples() {
    let Some(subject) = subject() else { return };
    let dir = Dir::new("compare-interrupt");
    let json = dir.file("c.json");
    let (mut compare, children) = start_long(&json, subject);
    let spaces = namespaces(&children);
    assert!(spaces.len() >= 2, "a client and a pod: {spaces:?}");
    compare.signal(Signal::SIGINT);
    assert_eq!(compare.wait().code(), Some(130));
    let left = every_namespace();
    assert!(spaces.is_disjoint(&left), "{spaces:?} {left:?}");
    assert!(children.iter().all(|&pid| !is_running(pid)), "{children:?}");
    let work = std::env::temp_dir().join(format!("netra-loadtest-{}", compare.pid()));
    assert!(!work.exists());
    assert!(read(&json)["samples"].as_array().is_some_and(|samples| samples.len() >= 2));
}

#[test]
fn even_a_kill_leaves_no_process() {
    let Some(subject) = subject() else { return };
    let dir = Dir::new("compare-kill");
    let (mut compare, children) = start_long(&dir.file("c.json"), subject);
    compare.signal(Signal::SIGKILL);
    compare.wait();
    eventually("its children are gone", || children.iter().all(|&pid| !is_running(pid)));
    let work = std::env::temp_dir().join(format!("netra-loadtest-{}", compare.pid()));
    let _ = std::fs::remove_dir_all(work);
}

#[test]
fn a_subject_that_dies_is_named_and_the_others_are_measured() {
    if subject().is_none() {
        return;
    }
    let dir = Dir::new("compare-dies");
    let redirect = "[[redirect]]\nto = 14956\n";
    let dead = format!("name = \"dead\"\nbinary = \"/bin/false\"\n{redirect}");
    let deaf = format!("name = \"deaf\"\nbinary = \"sleep\"\nargs = [\"2\"]\n{redirect}");
    let (dead, deaf) = (dir.write("dead.toml", &dead), dir.write("deaf.toml", &deaf));
    let json = dir.file("c.json");
    let words = format!(
        "compare --subject {dead} --subject {deaf} --rounds 1 --seconds 0.5 --rate 100 \
         --connections 4 --scenarios http --json {json}"
    );
    let ended = run(&words);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains("dead http round 1: it did not start: it ended at once"));
    let report = read(&json);
    let samples = report["samples"].as_array().expect("samples");
    let mut names: Vec<&str> = samples.iter().filter_map(|s| s["subject"].as_str()).collect();
    names.dedup();
    assert_eq!(names, ["direct", "dead", "deaf"]);
    assert!(number(&samples[0], "/latency/count") > 0.0, "direct was measured");
}

/// One that takes a single port is asked there whether it serves, and measured there alone.
#[test]
fn what_does_not_go_through_a_subject_is_not_measured_with_it() {
    if subject().is_none() {
        return;
    }
    let dir = Dir::new("compare-part");
    let text = "name = \"part\"\nbinary = \"{self}\"\n\
        args = [\"relay\", \"--listen\", \"0.0.0.0:14956\"]\n\
        [[redirect]]\nports = [\"dubbo\"]\nto = 14956\n";
    let (json, file) = (dir.file("c.json"), dir.write("part.toml", text));
    let ended = run(&format!(
        "compare --subject {file} --rounds 1 --seconds 0.4 --no-syscalls --foreign-max 99 \
         --scenarios http,redis,dubbo,thrift --protocol-rate 500 --json {json}"
    ));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("Calls of Dubbo, open loop, 500/s"), "{}", ended.stdout);
    let report = read(&json);
    let samples = report["samples"].as_array().expect("samples");
    let mut taken: Vec<_> = samples
        .iter()
        .map(|s| format!("{} {}", s["subject"], s["scenario"]).replace('"', ""))
        .collect();
    taken.dedup();
    let direct = ["direct http", "direct redis", "direct dubbo", "direct thrift"];
    assert_eq!(taken, [&direct[..], &["part dubbo"]].concat());
    assert!(samples.iter().all(|sample| number(sample, "/latency/count") > 0.0), "{samples:?}");
}

/// A subject that starts well and ends two seconds later, in the middle of a sample.
#[test]
fn a_subject_that_dies_in_the_middle_is_shown_and_what_was_measured_is_kept() {
    let Some(subject) = subject() else { return };
    let dir = Dir::new("compare-dies-late");
    let built_in = format!("{}/subjects/{subject}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(built_in).expect("a subject");
    let start = text.find("\nargs = [").expect("arguments") + "\nargs = [".len();
    let binary = text.split("binary = \"").nth(1).and_then(|rest| rest.split('"').next());
    let program = std::env::var("NETRA_BIN").ok();
    let program = program.as_deref().or(binary).expect("a program");
    let mortal =
        format!("{}\"-s\", \"KILL\", \"2\", \"{program}\", {}", &text[..start], &text[start..]);
    let is_kept = |line: &&str| {
        !["binary", "version", "name"].iter().any(|key| line.starts_with(&format!("{key} =")))
            && !line.starts_with("binary_env")
    };
    let mortal: Vec<&str> = mortal.lines().filter(is_kept).collect();
    let mortal = format!("name = \"mortal\"\nbinary = \"timeout\"\n{}\n", mortal.join("\n"));
    let (json, file) = (dir.file("c.json"), dir.write("mortal.toml", &mortal));
    let ended = run(&format!(
        "compare --subject {file} --rounds 1 --seconds 0.4 --rate 100 --connections 4 \
         --scenarios http,tcp,max,out-http --no-syscalls --foreign-max 99 --json {json}"
    ));
    let told = "round 1: the subject died";
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains(told) && ended.stdout.contains(told), "{}", ended.stdout);
    let report = read(&json);
    let samples = report["samples"].as_array().expect("samples");
    let of = |name: &str| samples.iter().filter(|s| s["subject"] == name).collect::<Vec<_>>();
    assert!(of("direct").iter().all(|sample| number(sample, "/latency/count") > 0.0));
    let mortal = of("mortal");
    let (last, before) = mortal.split_last().expect("samples of it");
    assert!(last["failure"].as_str().is_some_and(|why| why.contains("the subject died")), "{last}");
    assert!(!before.is_empty() && before.iter().all(|s| s["failure"].is_null()), "{before:?}");
}

#[test]
fn what_is_missing_is_named() {
    let Some(subject) = subject() else { return };
    let dir = Dir::new("compare-missing");
    let words = format!("compare --subject {subject} --rounds 1");
    let mut command = program(&words);
    let output = command.uid(65_534).gid(65_534).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("compare needs root"), "{said}");
    // With `ip` and the subject in reach, and neither nft nor iptables.
    let found = |name: &str| {
        let dirs = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
        dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.is_file()).expect("a tool")
    };
    std::os::unix::fs::symlink(found("ip"), dir.0.join("ip")).expect("a link");
    let output = program(&words).env("PATH", &dir.0).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("neither nft nor iptables-restore is installed"), "{said}");
}

#[test]
fn the_budget_of_the_smallest_relay_is_what_its_code_says() {
    if subject().is_none() {
        return;
    }
    let dir = Dir::new("budget");
    let (json, markdown, svg) = (dir.file("b.json"), dir.file("b.md"), dir.file("b.svg"));
    let marks = "<!-- budget: begin (written by `make budget`) -->\n<!-- budget: end -->\n";
    std::fs::write(&markdown, format!("before\n{marks}after\n")).expect("a file to write into");
    let ended = run(&format!(
        "budget --subject smallest --seconds 0.5 --rounds 1 --json {json} --markdown {markdown} \
         --svg {svg}"
    ));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report = read(&json);
    let row = |load: &str| {
        let rows = report["rows"].as_array().expect("rows");
        rows.iter().find(|row| row["load"] == load).unwrap_or_else(|| panic!("no row {load}"))
    };
    let calls = |load: &str, name: &str| -> f64 {
        let calls = row(load).pointer("/seen/Ok/calls").and_then(|calls| calls.as_array());
        let calls = calls.unwrap_or_else(|| panic!("no calls: {}", row(load)));
        let of_name = calls.iter().filter(|call| call["name"] == name);
        of_name.map(|call| number(call, "/count")).sum()
    };
    // Those at both ends of the count may be cut, and under strace on a busy machine there are few:
    // one call more or less is still told from it.
    let is_about = |is: f64, wanted: f64| (is - wanted).abs() < 0.4;
    for (name, wanted) in [("recvfrom", 2.0), ("sendto", 2.0), ("connect", 0.0)] {
        let is = calls("kept", name);
        assert!(is_about(is, wanted), "a request: {name} {is}");
    }
    for (name, wanted) in [
        ("accept4", 1.0),
        ("getsockopt", 1.0),
        ("socket", 1.0),
        ("connect", 1.0),
        ("sendto", 2.0),
        ("shutdown", 1.0),
        ("close", 2.0),
    ] {
        let is = calls("fresh", name);
        assert!(is_about(is, wanted), "a connection: {name} {is}");
    }
    for load in ["kept", "fresh", "fresh_slow"] {
        assert!(number(row(load), "/timed/kernel_ns") > 0.0, "{}", row(load));
    }
    let page = std::fs::read_to_string(&markdown).expect("what was written");
    assert!(page.starts_with("before\n<!--") && page.ends_with("-->\nafter\n"), "{page}");
    assert!(page.contains("| smallest | accept4"), "the order of calls: {page}");
    assert!(std::fs::read_to_string(&svg).expect("a picture").starts_with("<svg "));
    // Published again from what was kept, it is the same.
    let again = run(&format!("budget --from {json}"));
    assert!(page.contains(again.stdout.trim_end()), "{}", again.stdout);
}
