//! The real binary from the outside: settings, exit codes, logs, the metrics port, and its end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longer than anything here takes, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);

fn netra(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netra"));
    command.env_clear().env("NETRA_SERVICE_NAME", "shop").envs(environment.iter().copied());
    command
}

fn run(args: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = netra(environment).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A running netra on ports of its own. Dropping it kills it.
struct Running {
    child: Child,
    port: u16,
    metrics_port: u16,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start(environment: &[(&str, &str)]) -> Self {
        let (port, metrics_port) = (free_port(), free_port());
        let child = netra(environment)
            .env("NETRA_PORT", port.to_string())
            .env("NETRA_PROMETHEUS_PORT", metrics_port.to_string())
            .env("NETRA_SHARDS", "1")
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, port, metrics_port, log }
    }

    /// The log up to the first line that contains `text`, that line included.
    fn log_until(&mut self, text: &str) -> String {
        let (mut log, begun) = (String::new(), Instant::now());
        while !log.lines().last().unwrap_or_default().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "no {text:?} in:\n{log}");
            let read = self.log.read_line(&mut log).unwrap();
            assert!(read > 0, "netra ended before {text:?}:\n{log}");
        }
        log
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Its exit code and the rest of its log.
    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap(), rest)
    }

    fn get(&self, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is no failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn good_settings_are_good() {
    assert_eq!(
        run(&["--check-config"], &[]),
        (0, "netra: the settings are good\n".into(), String::new())
    );
    let (code, version, _) = run(&["--version"], &[]);
    assert_eq!(
        (code, version.lines().next()),
        (0, Some(concat!("netra ", env!("CARGO_PKG_VERSION"))))
    );
    assert!(version.contains("\ncommit ") && version.contains("\ndriver "), "{version}");
    let (code, help, _) = run(&["--help"], &[]);
    assert!(code == 0 && help.contains("NETRA_PORT") && help.contains("Exit codes:"), "{help}");
}

/// What the kubelet sets for Services called `netra`, `netra-pprof`, `netra-prometheus` and
/// `jaeger-agent`; whoever named them did not mean this pod.
#[test]
fn services_of_the_namespace_keep_nobody_from_starting() {
    let links = [
        ("NETRA_PORT", "tcp://10.0.0.1:14956"),
        ("NETRA_SERVICE_HOST", "10.0.0.1"),
        ("NETRA_SERVICE_PORT", "14956"),
        ("NETRA_PORT_14956_TCP", "tcp://10.0.0.1:14956"),
        ("NETRA_PORT_14956_TCP_PORT", "14956"),
        ("NETRA_PPROF_PORT", "tcp://[fd00::1]:14957"),
        ("NETRA_PROMETHEUS_PORT", "tcp://10.0.0.2:14958"),
        ("JAEGER_AGENT_PORT", "udp://10.0.0.3:6831"),
        ("JAEGER_AGENT_SERVICE_HOST", "10.0.0.3"),
    ];
    let plain = run(&["--print-config"], &[]);
    assert_eq!((plain.0, &*plain.2), (0, ""));
    let (code, out, log) = run(&["--print-config"], &links);
    assert_eq!((code, out), (0, plain.1));
    assert_eq!(
        log,
        "netra: warning: of Kubernetes, about Services of these names, and not taken for settings: \
         JAEGER_AGENT_PORT=udp://10.0.0.3:6831, NETRA_PORT=tcp://10.0.0.1:14956, \
         NETRA_PPROF_PORT=tcp://[fd00::1]:14957, NETRA_PROMETHEUS_PORT=tcp://10.0.0.2:14958\n"
    );
    let (code, _, log) = run(&["--check-config", "--port", links[0].1], &links);
    assert_eq!(code, 64);
    assert!(log.contains("--port=tcp://10.0.0.1:14956: allowed is a port"), "{log}");
}

#[test]
fn bad_settings_end_with_64_and_a_line_for_each() {
    for task in [&["--check-config"][..], &["--print-config"], &[]] {
        let bad = [
            ("NETRA_IO", "bogus"),
            ("NETRA_PORT", "70000"),
            ("JAEGER_SAMPLER_TYPE", "probabilistic"),
        ];
        let (code, out, log) = run(task, &bad);
        assert_eq!((code, out.as_str()), (64, ""), "{task:?}");
        assert_eq!(
            log,
            "netra: NETRA_PORT=70000: allowed is a port from 1 to 65535\n\
             netra: NETRA_IO=bogus: allowed is one of auto, io_uring, epoll\n"
        );
    }
    let share = [("JAEGER_SAMPLER_TYPE", "probabilistic"), ("JAEGER_SAMPLER_PARAM", "1.5")];
    let (code, _, log) = run(&[], &share);
    assert_eq!(code, 64);
    assert!(log.contains("JAEGER_SAMPLER_PARAM=1.5") && log.contains("from 0 to 1"), "{log}");
    let (code, _, log) = run(&["--cpus", "8191"], &[]);
    assert!(code == 64 && log.contains("--cpus=8191"), "{log}");
    let (code, _, log) = run(&["--check-config"], &[("NETRA_SERVICE_NAME", "")]);
    assert!(code == 64 && log.contains("--service-name"), "{log}");
    assert_eq!(run(&["--prot", "1"], &[]).0, 64);
}

#[test]
fn the_configuration_in_json_names_value_and_origin() {
    let environment = [("NETRA_IO", "epoll"), ("NETRA_DRAIN_MS", "1")];
    let (code, out, _) = run(&["--print-config=json", "--drain-ms", "2"], &environment);
    assert_eq!(code, 0);
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    let rows = rows.as_array().unwrap();
    for (name, value, origin) in [
        ("NETRA_IO", "epoll", "environment"),
        ("NETRA_DRAIN_MS", "2", "flag"),
        ("NETRA_PORT", "14956", "default"),
    ] {
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        assert_eq!((&row["value"], &row["origin"]), (&value.into(), &origin.into()));
    }
    let (code, out, _) = run(&["--print-config"], &environment);
    assert_eq!(code, 0);
    assert!(out.lines().any(|line| line.starts_with("NETRA_IO=epoll ")), "{out}");
}

/// Of all that says what a setting is: what it shows of secrets.
#[test]
fn no_secret_is_shown_by_what_shows_settings() {
    let environment = [
        ("NETRA_HTTP_PORTS", "8080"),
        ("JAEGER_ENDPOINT", "http://c:14268/api/traces?token=s3cret"),
        ("JAEGER_SAMPLING_ENDPOINT", "http://m:5778/sampling?key=s3cret"),
        ("JAEGER_USER", "me"),
        ("JAEGER_PASSWORD", "s3cret"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/?token=s3cret"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/x?s3cret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cret"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://m/?t=s3cret"),
    ];
    for shape in ["text", "json"] {
        let (code, out, log) = run(&[&format!("--print-config={shape}")], &environment);
        assert_eq!((code, log.as_str()), (0, ""));
        assert!(out.contains("http://c:14268/api/traces?token=.."), "{out}");
        assert!(!out.contains("s3cret"), "{out}");
    }
    // What is refused is named, and shown no more than what is good.
    for (name, value, shown) in [
        ("JAEGER_ENDPOINT", "http://me:s3cret@c/", "JAEGER_ENDPOINT=http://***@c/: "),
        ("JAEGER_ENDPOINT", "me:s3cret@c:14268", "JAEGER_ENDPOINT=***@c:14268: "),
        ("JAEGER_SAMPLING_ENDPOINT", "me:s3cret@m:1", "JAEGER_SAMPLING_ENDPOINT=***@m:1: "),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c/?t=s3cret", "=ftp://c/?t=..: "),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret", "OTEL_EXPORTER_OTLP_HEADERS=***: "),
        ("NETRA_IO", "a\u{9b}2J\u{202e}b", "NETRA_IO=a\\u009b2J\\u202eb: "),
    ] {
        let (code, _, log) = run(&["--check-config"], &[(name, value)]);
        assert_eq!(code, 64);
        assert!(log.contains(shown) && !log.contains("s3cret"), "{log}");
    }
    for reporter in ["collector", "otlp"] {
        let all =
            [&environment[..], &[("NETRA_REPORTER", reporter), ("NETRA_DRAIN_MS", "0")]].concat();
        let mut netra = Running::start(&all);
        let mut log = netra.log_until("netra started");
        // Neither name resolves, which is logged with the URL.
        log += &netra.log_until("no sampling strategy");
        netra.signal(Signal::SIGTERM);
        let (code, rest) = netra.end();
        assert_eq!(code, 0);
        let log = log + &rest;
        assert!(log.contains("token=..") || log.contains("/x?.."), "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

#[test]
fn a_token_file_that_others_can_read_ends_with_64() {
    let path = std::env::temp_dir().join(format!("netra-cli-token-{}", std::process::id()));
    let name = path.to_str().unwrap();
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    for (mode, wanted) in [(0o600, 0), (0o644, 64)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, _, log) = run(&["--check-config"], &[("NETRA_ADMIN_TOKEN_FILE", name)]);
        assert_eq!(code, wanted, "{log}");
        let line = format!("netra: NETRA_ADMIN_TOKEN_FILE={name}: allowed is a file ");
        assert_eq!(log.starts_with(&line), wanted == 64, "{log}");
        assert!(!log.contains("0123456789"), "{log}");
    }
    std::fs::remove_file(&path).unwrap();
    let (code, _, _) = run(&["--check-config"], &[("NETRA_ADMIN_TOKEN_FILE", name)]);
    assert_eq!(code, 64);
}

#[test]
fn what_has_no_effect_is_warned_about_and_does_not_stop_the_start() {
    let environment = [
        ("NETRA_STATSD_PREFIX", "shop"),
        ("NETRA_HTP_PORTS", "8080"),
        ("NETRA_ACCESS_LOG", "all"),
        ("NETRA_SERVICE_HOST", "10.0.0.1"),
    ];
    let (code, _, log) = run(&["--check-config"], &environment);
    assert_eq!(code, 0);
    assert_eq!(
        log,
        "\
         netra: warning: unknown variables, spelled wrong? NETRA_HTP_PORTS\n"
    );
    let mut netra = Running::start(&environment);
    let log = netra.log_until("netra started");
    assert!(log.contains("NETRA_HTP_PORTS"), "{log}");
}

#[test]
fn who_looks_at_nothing_is_told_what_helps() {
    let (code, _, log) = run(&["top"], &[]);
    assert_eq!((code, log.lines().count()), (64, 1), "{log}");
    assert!(log.contains("no terminal") && log.contains("exec -it") && log.contains("--once"));
    let nobody = format!("127.0.0.1:{}", free_port());
    let (code, _, log) = run(&["top", "--once", "--address", &nobody], &[]);
    assert_eq!((code, log.lines().count()), (69, 1), "{log}");
    assert!(log.contains("no netra runs here") && log.contains("--address"), "{log}");
    let (code, _, log) = run(&["ready", "--port", &free_port().to_string()], &[]);
    assert_eq!((code, log.lines().count()), (69, 1), "{log}");
    assert!(log.contains("no netra runs here") && log.contains("--port"), "{log}");
}

#[test]
fn who_types_netra_alone_at_a_terminal_is_told_what_to_do_next() {
    let bare = |through: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", through]).env_clear().env("PATH", env!("PATH"));
        command.env("NETRA", env!("CARGO_BIN_EXE_netra"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = bare("script -qec \"$NETRA\" /dev/null");
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("NETRA_SERVICE_NAME") && said.contains("netra demo"), "{said}");
    let (code, said) = bare("\"$NETRA\" 2>&1");
    assert_eq!((code, said.lines().count()), (Some(64), 1), "{said}");
}

#[test]
fn a_taken_port_ends_with_69_and_one_line() {
    for (taken, other) in
        [("NETRA_PORT", "NETRA_PROMETHEUS_PORT"), ("NETRA_PROMETHEUS_PORT", "NETRA_PORT")]
    {
        let holder = TcpListener::bind("[::]:0").unwrap();
        let port = holder.local_addr().unwrap().port().to_string();
        let (code, _, log) = run(&[], &[(taken, &port), (other, &free_port().to_string())]);
        assert_eq!((code, log.lines().count()), (69, 1), "{log}");
        assert!(log.contains(&format!("cannot listen on port {port} ({taken})")), "{log}");
        assert!(log.contains(" fatal "), "{log}");
    }
}

#[test]
fn too_few_descriptors_end_with_71_and_one_line() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 20; exec \"$0\" --service-name shop --shards 1"]);
    command.arg(env!("CARGO_BIN_EXE_netra")).env_clear();
    for name in ["NETRA_PORT", "NETRA_PROMETHEUS_PORT"] {
        command.env(name, free_port().to_string());
    }
    let output = command.output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), log.lines().count()), (Some(71), 1), "{log}");
    assert!(log.contains("the descriptor limit of 20"), "{log}");
}

#[test]
fn it_starts_answers_and_ends_with_0() {
    let mut netra = Running::start(&[("NETRA_LOG_FORMAT", "json"), ("NETRA_DRAIN_MS", "2000")]);
    let log = netra.log_until("netra started");
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((&line["service"], &line["shards"]), (&"shop".into(), &1.into()));
    assert_eq!((&line["port"], &line["drain_ms"]), (&netra.port.into(), &2000.into()));
    assert_eq!((&line["level"], &line["shards_why"]), (&"info".into(), &"NETRA_SHARDS".into()));
    assert!(line["connections_max"].as_u64().unwrap() > 0, "{line}");
    for (request, status) in [
        ("GET /ready", 200),
        ("GET /live", 200),
        ("GET /", 404),
        ("POST /metrics", 405),
        ("HEAD /metrics", 200),
    ] {
        let answer = netra.get(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    let metrics = netra.get("GET /metrics");
    let driver = line["driver"].as_str().unwrap().split(' ').next().unwrap();
    assert!(metrics.contains(&format!("netra_io_driver{{driver=\"{driver}\"}} 1")), "{metrics}");
    for name in
        ["netra_tcp_connections_opened_total{", "netra_dial_seconds_count", "process_open_fds"]
    {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    netra.signal(Signal::SIGHUP);
    netra.log_until("SIGHUP ignored");
    netra.signal(Signal::SIGTERM);
    let (code, log) = netra.end();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("\"message\":\"netra drained\""), "{log}");
}

/// Nobody finds out by waiting that nothing is sampled, or where spans go.
#[test]
fn the_start_line_says_which_sampler_reporter_and_routing() {
    for (environment, sampler, reporter, routing) in [
        (
            &[("NETRA_HTTP_PORTS", "8080")][..],
            Some("remote, http://localhost:5778/sampling?service=..; no trace until it answers"),
            "Jaeger agent localhost:6831, UDP",
            "off",
        ),
        (
            &[
                ("NETRA_HTTP_PORTS", "8080"),
                ("OTEL_TRACES_EXPORTER", "otlp"),
                ("NETRA_HTTP_ROUTING_ENABLED", "true"),
            ],
            Some("const, all traces"),
            "OTLP over HTTP, http://localhost:4318/v1/traces",
            "by X-Route",
        ),
        (
            &[
                ("NETRA_HTTP_PORTS", "8080"),
                ("JAEGER_DISABLED", "true"),
                ("NETRA_HTTP_ROUTING_ENABLED", "true"),
                ("NETRA_HTTP_ROUTING_COOKIE_ENABLED", "true"),
                ("NETRA_HTTP_ROUTING_COOKIE_NAME", "way"),
            ],
            None,
            "none, because JAEGER_DISABLED or OTEL_SDK_DISABLED says so",
            "by the cookie way, then X-Route",
        ),
        (
            &[("NETRA_HTTP_ROUTING_ENABLED", "true")],
            None,
            "none, because NETRA_HTTP_PORTS and NETRA_PROTOCOLS are empty",
            "none, because NETRA_HTTP_PORTS is empty",
        ),
    ] {
        let all = [environment, &[("NETRA_LOG_FORMAT", "json"), ("NETRA_DRAIN_MS", "0")]].concat();
        let mut netra = Running::start(&all);
        let log = netra.log_until("netra started");
        let warned = log.contains("NETRA_HTTP_PORTS is empty, so no request is seen");
        assert_eq!(warned, environment[0].0 != "NETRA_HTTP_PORTS", "{log}");
        let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(line["sampler"].as_str(), sampler);
        assert_eq!(line["reporter"], reporter);
        assert_eq!(line["routing"], routing);
        let metrics = netra.get("GET /metrics");
        for result in ["sent", "failed", "dropped"] {
            let series = format!("netra_spans_total{{result=\"{result}\"}} 0");
            assert!(metrics.contains(&series), "{series} in {metrics}");
        }
        netra.signal(Signal::SIGTERM);
        assert_eq!(netra.end().0, 0);
    }
}

#[test]
fn its_own_port_is_a_loop_and_counted() {
    let mut netra = Running::start(&[("NETRA_IO", "epoll"), ("NETRA_DRAIN_MS", "0")]);
    netra.log_until("netra started");
    let mut addresses: Vec<SocketAddr> = vec![(Ipv4Addr::LOCALHOST, netra.port).into()];
    if TcpListener::bind("[::1]:0").is_ok() {
        addresses.push((Ipv6Addr::LOCALHOST, netra.port).into());
    }
    for address in &addresses {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Closed at once, by a FIN or a RST.
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)), "{address}");
    }
    let metrics = netra.get("GET /metrics");
    let count = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(count("netra_loop_rejected_total"), addresses.len() as u64, "{metrics}");
    netra.signal(Signal::SIGINT);
    assert_eq!(netra.end().0, 0);
}

#[test]
fn only_what_is_severe_enough_is_logged() {
    let mut netra = Running::start(&[("NETRA_LOGGER_LEVEL", "error")]);
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, netra.metrics_port)).is_err() {
        assert!(begun.elapsed() < PATIENCE && netra.child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    // Listening comes before hearing signals; an answer comes after.
    assert!(netra.get("GET /ready").starts_with("HTTP/1.1 200 "));
    netra.signal(Signal::SIGTERM);
    assert_eq!(netra.end(), (0, String::new()));
}
