//! Real containers: the images of this checkout on a Docker engine, the application, the rules and
//! the sidecar each in its own, in one network namespace, as in a pod.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;
use support::docker::{
    BULK, DEFAULT_PROFILE, ECHO, HTTP, Network, OUR_PROFILE, Pod, Sidecar, docker, is_there,
};
use support::spans::tag;

/// TCP and HTTP in both directions, by address and by a name that Docker's resolver knows.
fn everything_passes(network: &Network, pod: &Pod<'_>, server: &str) {
    let (inbound, outbound) = (pod.scrape().opened("inbound"), pod.scrape().opened("outbound"));
    let brief = ["--seconds=1", "--warm-up=0", "--connections=8"];
    let target = |host: &str, port: u16| format!("{host}:{port}");
    let app = pod.address.to_string();
    for (port, kind) in [(HTTP, "http"), (ECHO, "tcp")] {
        network.load(&[&[kind, &target(&app, port)], &brief[..]].concat()).succeeds();
        pod.load(&[&[kind, &target(server, port)], &brief[..]].concat()).succeeds();
    }
    network.load(&["bulk", &target(&app, BULK), "--bytes=50000000", "--count=2"]).succeeds();
    pod.load(&["bulk", &target(server, BULK), "--bytes=50000000", "--upload"]).succeeds();
    assert_eq!(pod.scrape().opened("inbound"), inbound + 8 + 8 + 2);
    assert_eq!(pod.scrape().opened("outbound"), outbound + 8 + 8 + 1);
}

#[test]
fn everything_passes_where_io_uring_is_refused_and_where_it_is_allowed() {
    if !is_there() {
        return;
    }
    let network = Network::new("seccomp");
    let (_, server) = network.server("server");
    let pod = Pod::new(&network, "pod");
    assert!(pod.init(&["apply"]).contains("applied (nft-native)"));
    pod.start_app();
    for (profile, driver) in [(DEFAULT_PROFILE, "epoll"), (OUR_PROFILE, "io_uring")] {
        let profile = format!("seccomp={profile}");
        pod.start_netra(Sidecar { run: &["--security-opt", &profile], ..Default::default() });
        everything_passes(&network, &pod, &server);
        let driven = |driver| pod.scrape().sum("netra_io_driver", &[("driver", driver)]);
        assert_eq!(driven(driver), 1, "{}", pod.log());
        assert_eq!(driven("io_uring") + driven("epoll"), 1);
        let log = pod.log();
        let started =
            log.lines().find(|line| line.contains("netra started")).expect("a start line");
        assert!(started.contains(driver), "{started}");
        if driver == "epoll" {
            assert!(started.contains("EPERM") || started.contains("not permitted"), "{started}");
        }
        docker(&["rm", "-f", &pod.netra()]);
    }
    // Whatever this engine's own profile says, it works.
    pod.start_netra(Sidecar::default());
    everything_passes(&network, &pod, &server);
}

#[test]
fn the_image_with_iptables_redirects_by_every_backend() {
    if !is_there() {
        return;
    }
    let network = Network::new("iptables");
    let (_, server) = network.server("server");
    let pod = Pod::new(&network, "pod");
    pod.start_app();
    pod.start_netra(Sidecar::default());
    let both = ["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];
    let init = |args: &[&str]| pod.init_by("netra-init-iptables", &both, args);
    let opened = || (pod.scrape().opened("inbound"), pod.scrape().opened("outbound"));
    // How many connections netra sees of one that comes and one that goes.
    let brief_load = || {
        let before = opened();
        let brief = ["--seconds=0.2", "--warm-up=0", "--connections=1"];
        network
            .load(&[&["http", &format!("{}:{HTTP}", pod.address)], &brief[..]].concat())
            .succeeds();
        pod.load(&[&["http", &format!("{server}:{HTTP}")], &brief[..]].concat()).succeeds();
        let after = opened();
        (after.0 - before.0, after.1 - before.1)
    };
    for backend in ["nft-native", "iptables-nft", "iptables-legacy"] {
        let said = init(&["apply", "--backend", backend]);
        assert!(said.contains(&format!("applied ({backend})")), "{said}");
        init(&["status", "--backend", backend]);
        assert_eq!(brief_load(), (1, 1), "{backend}");
        assert!(init(&["cleanup"]).contains("rules removed"));
        assert_eq!(brief_load(), (0, 0), "{backend} has left something");
    }
}

#[test]
fn heavy_thirty_two_megabytes_are_enough_under_load() {
    if !is_there() {
        return;
    }
    let network = Network::new("memory");
    let pod = Pod::new(&network, "pod");
    pod.init(&["apply"]);
    pod.start_app();
    let run = ["--memory=32m", "--memory-swap=32m"];
    pod.start_netra(Sidecar { run: &run, ..Default::default() });
    let target = |port: u16| format!("{}:{port}", pod.address);
    let seconds = ["--seconds=4", "--warm-up=0"];
    let many = ["--connections=400"];
    let loads = [
        network.load(&[&["http", &target(HTTP)], &seconds[..], &many].concat()),
        network.load(&[&["tcp", &target(ECHO)], &seconds[..], &many].concat()),
        network.load(&["bulk", &target(BULK), "--bytes=300000000", "--count=4"]),
        network.load(&["bulk", &target(BULK), "--bytes=300000000", "--count=4", "--upload"]),
    ];
    loads.into_iter().for_each(|load| drop(load.succeeds()));
    assert_eq!(pod.inspect(".State.OOMKilled"), "false");
    assert_eq!(pod.inspect(".State.Running"), "true", "{}", pod.log());
    assert_eq!(pod.inspect(".RestartCount"), "0");
    assert_eq!(pod.inspect(".HostConfig.Memory"), (32 << 20).to_string());
}

#[test]
fn docker_stop_drains_and_no_request_fails() {
    if !is_there() {
        return;
    }
    let network = Network::new("stop");
    let pod = Pod::new(&network, "pod");
    pod.init(&["apply"]);
    pod.start_app();
    pod.start_netra(Sidecar::default());
    stops_under_load(&network, &pod);
}

/// The same where netra reads the requests. Spans of both ways come until the end, and it tells of
/// none that was lost.
#[test]
fn docker_stop_drains_traced_requests_and_sends_their_spans() {
    if !is_there() {
        return;
    }
    let network = Network::new("stop-http");
    let (mut sink, receiver) = network.sink("receiver");
    let pod = Pod::new(&network, "pod");
    pod.init(&["apply"]);
    pod.start_app();
    let variables = [
        format!("NETRA_HTTP_PORTS={HTTP}"),
        format!("JAEGER_AGENT_HOST={receiver}"),
        "JAEGER_SAMPLER_TYPE=ratelimiting".into(),
        "JAEGER_SAMPLER_PARAM=100".into(),
        // Full packets are sent at once, all else at the end.
        "JAEGER_REPORTER_FLUSH_INTERVAL=1h".into(),
    ];
    let run: Vec<&str> = variables.iter().flat_map(|variable| ["--env", variable]).collect();
    pod.start_netra(Sidecar { run: &run, ..Default::default() });
    stops_under_load(&network, &pod);
    let mut kinds = BTreeSet::new();
    let mut count = 0;
    while let Some(span) = sink.next_within(Duration::from_secs(1)) {
        assert_eq!(tag(&span, "http.status_code"), Some(&200.into()), "{span}");
        kinds.insert(tag(&span, "span.kind").unwrap().to_string());
        count += 1;
    }
    assert_eq!(kinds, BTreeSet::from(["\"client\"".into(), "\"server\"".into()]));
    assert!(count > 100, "{count} spans in ten seconds, 100 a second allowed");
}

/// `docker stop` in the middle of requests both ways, each of which has to succeed.
fn stops_under_load(network: &Network, pod: &Pod<'_>) {
    let (_, server) = network.server("server");
    // Long enough that both are under way at once however slowly the engine starts containers.
    let seconds = ["--seconds=10", "--warm-up=0", "--connections=16"];
    let inbound = format!("{}:{HTTP}", pod.address);
    let outbound = format!("{server}:{HTTP}");
    let loads = [
        network.load(&[&["http", &inbound], &seconds[..]].concat()),
        pod.load(&[&["http", &outbound], &seconds[..]].concat()),
    ];
    let under_way = || pod.scrape().active() >= 32;
    assert!(support::wait_until(support::PATIENCE, under_way), "the loads begin");
    let begun = std::time::Instant::now();
    docker(&["stop", "--time", "20", &pod.netra()]);
    let took = begun.elapsed();
    loads.into_iter().for_each(|load| drop(load.succeeds()));
    assert_eq!(pod.inspect(".State.ExitCode"), "0", "{}", pod.log());
    let waited = Duration::from_secs(1)..Duration::from_secs(15);
    assert!(
        waited.contains(&took),
        "it leaves when the last connection does, not at once: {took:?}"
    );
}

#[test]
fn a_pod_that_restarts_has_its_rules_once() {
    if !is_there() {
        return;
    }
    let network = Network::new("restart");
    let (_, server) = network.server("server");
    let pod = Pod::new(&network, "pod");
    for says in
        ["netra-init: applied", "netra-init: already applied", "netra-init: already applied"]
    {
        // The namespace outlives the containers, and with it the rules.
        let said = pod.init(&["apply"]);
        assert!(said.starts_with(says), "{said}");
        pod.init(&["status"]);
        pod.start_app();
        pod.start_netra(Sidecar::default());
        everything_passes(&network, &pod, &server);
        pod.stop();
    }
    pod.init(&["verify"]);
    assert!(pod.init(&["cleanup"]).contains("rules removed"));
    // Without rules and sidecar the application answers itself.
    pod.start_app();
    let app = format!("{}:{HTTP}", pod.address);
    network.load(&["http", &app, "--seconds=0.5", "--warm-up=0"]).succeeds();
}

/// The lines of docker/README.md, as they stand there but for names, tags and the application.
#[test]
fn one_application_by_the_lines_of_the_documents() {
    if !is_there() {
        return;
    }
    let network = Network::new("recipe");
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/README.md");
    let document = std::fs::read_to_string(document).expect("the document");
    let (_, recipe) = document.split_once("## One application by docker run\n").expect("a title");
    let recipe = recipe.split("\n## ").next().expect("a part");
    let lines: Vec<String> = recipe
        .lines()
        .filter_map(|line| line.strip_prefix("    docker "))
        .map(|line| network.adapted(line))
        .collect();
    assert_eq!(lines.len(), 7, "{lines:#?}");
    let run = |line: &String| docker(&line.split(' ').collect::<Vec<_>>());
    lines[..4].iter().for_each(|line| drop(run(line)));
    let pod = Pod::of(&network, "net", "netra");
    pod.is_ready();
    let target = format!("{}:{HTTP}", pod.address);
    let brief = ["--seconds=1", "--warm-up=0", "--connections=8"];
    network.load(&[&["http", &target], &brief[..]].concat()).succeeds();
    assert_eq!(pod.scrape().opened("inbound"), 8, "{}", pod.log());
    let inside = |tool: &[&str]| docker(&[&["exec", &pod.netra(), "/netra"], tool].concat());
    assert!(inside(&["top", "--once"]).contains("inbound"));
    assert!(inside(&["doctor", "--no-network"]).contains("connections were redirected"));
    assert!(inside(&["support", "--no-network"]).contains("==== versions"));
    // The way out, under load.
    let load = ["--seconds=4", "--warm-up=0", "--connections=8"];
    let load = network.load(&[&["http", &target], &load[..]].concat());
    let under_way = || pod.scrape().active() >= 8;
    assert!(support::wait_until(support::PATIENCE, under_way), "the load begins");
    lines[4..].iter().for_each(|line| drop(run(line)));
    load.succeeds();
    let brief = ["--seconds=0.5", "--warm-up=0"];
    network.load(&[&["http", &target], &brief[..]].concat()).succeeds();
}
