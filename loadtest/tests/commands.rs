//! The commands against our own upstream, and what they say when something is wrong.

mod support;

use std::io::BufRead;
use std::process::Stdio;

use nix::sys::signal::Signal;
use support::{Background, Dir, Upstream, eventually, number, program, read, report, run};

#[test]
fn bodies_headers_and_chunks_go_both_ways() {
    for behaviour in ["--body-size 300000", "--body-size 70000 --chunked", "--body-size 0"] {
        let upstream = Upstream::start(behaviour);
        for request in ["", "--body-size 200000", "--body-size 5000 --chunked -H X-A:b"] {
            let words = "--connections 4 --rate 50 --seconds 1 --warm-up 0.1";
            let run = report(&format!("http {} {words} {request}", upstream.http), 0);
            assert_eq!(number(&run, "/counts/good"), 50.0, "{behaviour} {request}");
        }
    }
}

#[test]
fn messages_are_echoed_and_compared() {
    let upstream = Upstream::start("");
    for size in [1, 64, 1_000_000] {
        let words = format!("--size {size} --connections 2 --rate 20 --seconds 1 --warm-up 0.1");
        let run = report(&format!("tcp {} {words}", upstream.echo), 0);
        assert_eq!(number(&run, "/counts/good"), 20.0);
        // The wrong server is noticed: it does not send back what it got.
        let wrong = report(&format!("tcp {} {words} --timeout 0.3", upstream.http), 6);
        assert_eq!(number(&wrong, "/counts/good"), 0.0);
    }
}

#[test]
fn questions_of_other_protocols_are_answered_and_compared() {
    let upstream = Upstream::start("");
    let words = "--connections 4 --rate 50 --seconds 1 --warm-up 0.1";
    for (index, protocol) in ["redis", "dubbo", "thrift"].iter().enumerate() {
        let run = report(&format!("{protocol} {} {words}", upstream.others[index]), 0);
        assert_eq!(number(&run, "/counts/good"), 50.0, "{protocol}");
        let closed = format!("{protocol} {} --connections 4", upstream.others[index]);
        let run = report(&format!("{closed} --seconds 0.3 --warm-up 0.1"), 0);
        assert!(number(&run, "/counts/good") > 100.0, "{protocol}");
        // Another server is noticed: it hangs up, or sends something else.
        let wrong = upstream.others[(index + 1) % 3];
        let wrong = report(&format!("{protocol} {wrong} {words} --timeout 0.3"), 6);
        assert_eq!(number(&wrong, "/counts/good"), 0.0, "{protocol}");
    }
}

#[test]
fn churn_opens_a_connection_for_each_request() {
    let upstream = Upstream::start("");
    let words = "--connections 8 --rate 100 --seconds 1 --warm-up 0";
    let run = report(&format!("churn {} {words}", upstream.http), 0);
    assert_eq!(number(&run, "/counts/good"), 100.0);
    assert_eq!(number(&run, "/counts/connections_opened"), 100.0);
    assert!(number(&run, "/connect/count") == 100.0);
}

#[test]
fn bulk_and_idle_do_what_they_say() {
    let upstream = Upstream::start("");
    let dir = Dir::new("bulk");
    for direction in ["", "--upload"] {
        let file = dir.file("bulk.json");
        let words = format!("--bytes 30000001 --count 2 {direction} --json {file}");
        let ended = run(&format!("bulk {} {words}", upstream.bulk));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(read(&file)["rates"].as_array().map(Vec::len), Some(2));
    }
    let ended = run(&format!("idle {} --connections 300 --seconds 0.2", upstream.http));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("300 of 300 answer"), "{}", ended.stdout);
}

#[test]
fn a_mix_runs_its_parts_at_once_and_a_ramp_finds_its_limit() {
    let upstream = Upstream::start("");
    let dir = Dir::new("mix");
    let mix = format!(
        "seconds = 1\nwarm_up_seconds = 0.1\n\
         [[part]]\nname = \"web\"\nscenario = \"http\"\ntarget = \"{}\"\nrate = 100\n\
         [[part]]\nname = \"new\"\nscenario = \"churn\"\ntarget = \"{}\"\nrate = 50\n\
         [[part]]\nname = \"chat\"\nscenario = \"tcp\"\ntarget = \"{}\"\nrate = 20\n\
         [[part]]\nname = \"cache\"\nscenario = \"redis\"\ntarget = \"{}\"\nrate = 30\n",
        upstream.http, upstream.http, upstream.echo, upstream.others[0]
    );
    let file = dir.file("mix.json");
    let started = std::time::Instant::now();
    let ended = run(&format!("mix {} --json {file}", dir.write("mix.toml", &mix)));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let parts = read(&file);
    let good: Vec<f64> = (0..4).map(|at| number(&parts[at], "/counts/good")).collect();
    assert_eq!(good, [100.0, 50.0, 20.0, 30.0]);
    assert!(started.elapsed().as_secs_f64() < 60.0);
    let words = "--seconds 0.3 --warm-up 0.1 --rate 50 --rate-max 200 --budget-us 5000000";
    let ended = run(&format!("ramp {} {words}", upstream.http));
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.stdout.contains("highest rate with p99 <= 5000000 us: 200/s"),
        "{}",
        ended.stdout
    );
}

#[test]
fn reports_are_written_shown_again_and_compared() {
    let slow = Upstream::start("--think 0.03");
    let fast = Upstream::start("--think 0.003");
    let dir = Dir::new("report");
    let (a, b) = (dir.file("a.json"), dir.file("b.json"));
    let (html, hgrm) = (dir.file("a.html"), dir.file("a.hgrm"));
    let words = "--connections 4 --rate 50 --seconds 2 --warm-up 0.1";
    let ended = run(&format!("http {} {words} --json {a} --html {html} --hgrm {hgrm}", slow.http));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("p99.9") && ended.stdout.contains("kept its schedule"));
    assert_eq!(run(&format!("http {} {words} --json {b}", fast.http)).code, Some(0));
    let page = std::fs::read_to_string(&html).expect("a page");
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(!page.contains("http://www") && !page.contains("<script"));
    let percentiles = std::fs::read_to_string(&hgrm).expect("percentiles");
    assert!(percentiles.contains("Total count    =          100]"), "{percentiles}");
    assert!(run(&format!("report {a}")).stdout.contains("50 answers/s"));
    let compared = run(&format!("report {a} {b}")).stdout;
    let line = |name: &str| compared.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    assert!(line("p50 us").ends_with("LOWER beyond the noise"), "{compared}");
    let difference = dir.file("difference.html");
    let shown = run(&format!("report {a} {b} --html {difference}"));
    assert_eq!((shown.code, shown.stdout), (Some(0), compared));
    let page = std::fs::read_to_string(&difference).expect("a page of the difference");
    assert!(page.contains("LOWER beyond the noise") && page.contains("<svg"), "{page}");
    let nowhere = dir.file("no/such/folder.html");
    for (flag, part) in [
        (format!("--html {nowhere}"), "cannot write"),
        (format!("--json {nowhere}"), "--json cannot be written: a difference is no report"),
        (format!("--hgrm {nowhere}"), "--hgrm cannot be written: a difference has no latency"),
    ] {
        let refused = run(&format!("report {a} {b} {flag}"));
        assert_eq!(refused.code, Some(2), "{flag}");
        assert!(refused.stderr.contains(part), "{flag}: {}", refused.stderr);
    }
    let same = run(&format!("report {a} {a}")).stdout;
    assert!(same.contains("within the noise") && !same.contains("beyond"), "{same}");
}

#[test]
fn what_is_wrong_is_said_with_its_own_exit_code() {
    let upstream = Upstream::start("--error-every 10");
    let dir = Dir::new("wrong");
    let free = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    let typo = dir.write("typo.toml", "seconds = 1\nsecconds = 2\n");
    let subject = dir.write("subject.toml", "name = \"x\"\nbinary = 5\n");
    let unknown = dir.write("unknown.toml", "name = \"x\"\nbinry = \"y\"\n");
    let http = upstream.http;
    for (words, code, part) in [
        (format!("http {free} --seconds 1"), 5, "is anything listening"),
        (format!("churn {free} --seconds 1"), 5, "cannot connect"),
        (format!("upstream --http {http}"), 5, "port taken"),
        ("upstream".to_owned(), 2, "nothing to serve"),
        (format!("mix {typo}"), 2, "line 2"),
        (format!("compare --subject {subject}"), 2, "line 2"),
        (format!("compare --subject {unknown}"), 2, "unknown field `binry`"),
        (format!("compare --subject {unknown}"), 2, "line 2"),
        (format!("http {http} --rate 1e9"), 2, "rate must be above 0 and at most"),
        (format!("publish {typo} --document {typo} --svg x.svg"), 2, "not a report of `compare`"),
        ("check --parts speeed".to_owned(), 2, "delay, stall or speed"),
        ("compare --subject no-such".to_owned(), 2, "haproxy-tcp"),
        (format!("http {http} --cpus 4000"), 2, "CPU"),
        (format!("report {typo}"), 2, "not a report"),
        (format!("http {http} --rate 100 --seconds 1"), 6, "10 of 100 requests failed: status 503"),
    ] {
        let ended = run(&words);
        assert_eq!(ended.code, Some(code), "{words}: {}", ended.stderr);
        assert!(ended.stderr.contains(part), "{words}: {}", ended.stderr);
    }
}

#[test]
fn a_rate_that_cannot_be_reached_is_said_and_the_delay_is_not_hidden() {
    let upstream = Upstream::start("--think 0.01");
    // Two connections with 10 ms each carry 200 per second.
    let words = "--connections 2 --rate 2000 --seconds 1 --warm-up 0";
    let run = report(&format!("http {} {words}", upstream.http), 7);
    assert_eq!(run["generator"]["verdict"], "target_overloaded");
    let failed = number(&run, "/counts/failures/unfinished");
    assert!(failed > 1000.0, "{failed}");
    assert_eq!(number(&run, "/latency/count"), 2000.0, "what never was sent is in the percentiles");
    assert!(number(&run, "/latency/p50") > 1_000_000.0);
}

#[test]
fn a_target_that_dies_is_noticed_and_what_was_measured_is_kept() {
    let upstream = Upstream::start("");
    let dir = Dir::new("dies");
    let file = dir.file("run.json");
    let words = format!("http {} --rate 100 --seconds 4 --warm-up 0 --json {file}", upstream.http);
    let mut load = Background::start(program(&words).stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut stderr = load.stderr();
    std::thread::park_timeout(std::time::Duration::from_millis(1500));
    upstream.process.signal(Signal::SIGKILL);
    assert_eq!(load.wait().code(), Some(6));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("text");
    assert!(said.contains("stopped answering"), "{said}");
    let run = read(&file);
    assert!(number(&run, "/counts/good") > 20.0 && number(&run, "/counts/failures/connect") > 20.0);
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let upstream = Upstream::start("");
    let dir = Dir::new("interrupt");
    let file = dir.file("run.json");
    let words =
        format!("http {} --rate 100 --seconds 600 --warm-up 0 --json {file}", upstream.http);
    let load = program(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let pid = load.as_ref().map(std::process::Child::id).expect("it starts");
    let mut load = load.expect("it starts");
    std::thread::park_timeout(std::time::Duration::from_secs(1));
    let id = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(id, Signal::SIGINT).expect("it runs");
    let mut code = None;
    eventually("it ends", || {
        code = load.try_wait().expect("a child").and_then(|status| status.code());
        code.is_some()
    });
    assert_eq!(code, Some(130));
    let run = read(&file);
    let seconds = number(&run, "/seconds");
    assert!(seconds < 120.0 && number(&run, "/counts/good") > 10.0, "{run}");
    assert!(run["is_interrupted"].as_bool() == Some(true));
}
