//! `compare` with a real proxy, in namespaces it makes itself. Needs root; `NETRA_REQUIRE_NETNS=1`
//! turns what cannot be tested into a failure.

mod support;

use std::io::BufRead;
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
        "compare --subject {subject} --rounds 2 --seconds 1 --rate 200 --connections 8 \
         --idle-connections 100 --bulk-bytes 20000000 --json {json} --html {html} \
         --scenarios idle,http,max,raw,tcp,churn,bulk,out-http,out-max,out-tcp,out-bulk"
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
    assert_eq!(kinds.len(), 2 * 2 * 11, "two rounds, direct and the subject, eleven scenarios");
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
    let first_of = |round: u64| samples.iter().find(|s| s["round"] == round).map(|s| &s["subject"]);
    assert_eq!(first_of(1).and_then(|name| name.as_str()), Some("direct"));
    assert_eq!(first_of(2).and_then(|name| name.as_str()), Some(subject), "the order rotates");
    let calls = report["calls"].as_array().expect("counts of system calls");
    assert_eq!(calls.len(), 8, "one for each scenario of requests: {calls:?}");
    for calls in calls {
        // At least one to learn of a request and one to answer it, whoever the subject is.
        let count = number(calls, "/per_request");
        assert!((1.0..200.0).contains(&count), "{calls}");
    }
    let page = std::fs::read_to_string(&html).expect("a page");
    assert_eq!(page.matches("<svg").count(), 8, "a chart for each scenario with latencies");
    assert!(page.contains(subject) && !page.contains("<script"));
    let work = std::env::temp_dir().join(format!("netra-loadtest-{pid}"));
    assert!(!work.exists());
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

#[test]
fn an_interrupt_ends_everything_and_keeps_the_samples() {
    let Some(subject) = subject() else { return };
    let dir = Dir::new("compare-interrupt");
    let json = dir.file("c.json");
    let (mut compare, children) = start_long(&json, subject);
    compare.signal(Signal::SIGINT);
    assert_eq!(compare.wait().code(), Some(130));
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
    assert_eq!(samples.len(), 3);
    assert!(number(&samples[0], "/latency/count") > 0.0, "direct was measured");
}
