//! Programs that people run, through ports that are read as HTTP, every request traced: as much
//! succeeds as without netra, and netra has read along all the way.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use support::matrix;
use support::netra::{Backend, Netra, Setup, apply_rules};
use support::programs::{
    self, Server, Tally, compare_with, number_after, number_before, run, tally, tool,
};
use support::sink::{Sink, Span};
use support::stream;
use support::sys::Birth;
use support::world::{CLIENT_V4, CLIENT_V6, Namespace, POD_V4, World, checked};

const PORT: u16 = 8080;
const SMALL: usize = 1024;
const LARGE: usize = 2_000_000;

fn support_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name)
}

/// Every request is traced, and the spans go to nobody.
fn traced(setup: Setup) -> Setup {
    setup
        .env("NETRA_HTTP_PORTS", PORT)
        .env("JAEGER_SAMPLER_TYPE", "const")
        .env("JAEGER_SAMPLER_PARAM", "1")
        .reporting()
}

/// Nothing turned opaque, and every request had its span.
fn read_along(netra: &Netra<'_>) -> Result<(), String> {
    netra.scrape_until("no connection is active", |scrape| scrape.active() == 0)?;
    let scrape = netra.scrape();
    let (asked, opaque) =
        (scrape.sum("netra_http_requests_total", &[]), scrape.sum("netra_opaque_total", &[]));
    let why = scrape.labels_of("netra_opaque_total");
    let spans = scrape.sum("netra_spans_total", &[("result", "recorded")]);
    let unanswered = scrape.sum("netra_http_requests_total", &[("status_class", "none")]);
    match asked > 0 && opaque == 0 && spans == asked {
        true => Ok(()),
        false => Err(format!(
            "{asked} asked, {unanswered} unanswered, {spans} spans, {opaque} opaque: {why:?}"
        )),
    }
}

/// Everything became bytes for this reason.
fn opaque(reason: &'static str) -> impl Fn(&Netra<'_>) -> Result<(), String> {
    move |netra| {
        let scrape = netra.scrape();
        let all = scrape.sum("netra_opaque_total", &[]);
        let named = scrape.sum("netra_opaque_total", &[("reason", reason)]);
        if all > 0 && named == all { Ok(()) } else { Err(format!("{named} {reason} of {all}")) }
    }
}

fn files(world: &World) -> String {
    fs::write(world.dir().join("small"), [b'x'; SMALL]).expect("a file");
    fs::write(world.dir().join("large"), vec![b'x'; LARGE]).expect("a file");
    world.dir().display().to_string()
}

fn nginx(world: &World, listen: &str) -> Server {
    files(world);
    programs::nginx(world, listen)
}

fn apache(world: &World) -> Server {
    let dir = files(world);
    let modules: String = ["mpm_event", "authz_core"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    let config = format!(
        "{modules}ServerName a\nListen 0.0.0.0:{PORT}\nPidFile {dir}/httpd.pid\nErrorLog {dir}/httpd.log
        DefaultRuntimeDir {dir}\nMutex posixsem\nUser www-data\nGroup www-data
        DocumentRoot {dir}\nKeepAlive On\nMaxKeepAliveRequests 0\n"
    );
    let path = world.dir().join("httpd.conf");
    fs::write(&path, config).expect("a file");
    let mut command = world.pod.command(tool("apache2", "apache2-bin"));
    command.args(["-D", "FOREGROUND", "-f"]).arg(path);
    Server::start(world, &world.pod, command, PORT)
}

fn gunicorn(world: &World) -> Server {
    let mut command = world.pod.command(tool("gunicorn", "gunicorn"));
    let folder = support_file("").display().to_string();
    let bind = format!("0.0.0.0:{PORT}");
    command.args(["--bind", &bind, "--threads", "8", "--keep-alive", "30"]);
    command.args(["--chdir", &folder, "http_app:app"]).env("PYTHONDONTWRITEBYTECODE", "1");
    Server::start(world, &world.pod, command, PORT)
}

fn node(world: &World) -> Server {
    let mut command = world.pod.command(tool("node", "nodejs"));
    command.arg(support_file("http_node.js")).args(["server", &PORT.to_string()]);
    Server::start(world, &world.pod, command, PORT)
}

/// curl, three Python libraries and Node against one server.
fn clients(world: &World, echoes: bool) -> Tally {
    let url = format!("http://{POD_V4}:{PORT}");
    let echo = if echoes { "1" } else { "0" };
    let mut rows = Tally::new();
    let python = tool("python3", "python3");
    let script = support_file("http_client.py").display().to_string();
    let said = run(&world.client, &python, &[&script, &url, echo]);
    for name in ["requests", "httpx", "aiohttp"] {
        rows.insert(name.into(), number_after(&said, &format!("{name}:")));
    }
    let script = support_file("http_node.js").display().to_string();
    let said = run(&world.client, &tool("node", "nodejs"), &[&script, "client", &url, echo]);
    rows.insert("node".into(), number_after(&said, "node:"));
    let curl = tool("curl", "curl");
    let many = format!("{url}/small?[1-50]");
    let form = ["-sS", "-o", "/dev/null", "-w", "%{http_code}\n"];
    let said = run(&world.client, &curl, &[&form[..], &[&many]].concat());
    rows.insert("curl".into(), said.matches("200").count() as u64);
    let said = run(&world.client, &curl, &[&form[..], &["-I", &format!("{url}/large")]].concat());
    rows.insert("curl HEAD".into(), said.matches("200").count() as u64);
    let old = run(&world.client, &curl, &[&form[..], &["-0", &format!("{url}/small")]].concat());
    rows.insert("curl HTTP/1.0".into(), old.matches("200").count() as u64);
    if echoes {
        let large = world.dir().join("upload");
        fs::write(&large, stream::random(3, 3_000_000)).expect("a file");
        let from = format!("@{}", large.display());
        let back = world.dir().join("back").display().to_string();
        for (name, more) in [("length", &[][..]), ("chunks", &["-H", "Transfer-Encoding: chunked"])]
        {
            let echo = format!("{url}/echo");
            let args = [&["-sS", "-o", &back, "--data-binary", &from][..], more, &[&echo]].concat();
            run(&world.client, &curl, &args);
            let same = fs::read(&back).expect("a file") == fs::read(&large).expect("a file");
            rows.insert(format!("curl upload by {name}"), u64::from(same));
        }
    }
    rows
}

#[test]
fn clients_and_nginx() {
    let Some(world) = World::new() else { return };
    let _server = nginx(&world, "8080 backlog=4096");
    compare_with(&world, traced, || clients(&world, false), read_along);
}

#[test]
fn clients_and_apache() {
    let Some(world) = World::new() else { return };
    let _server = apache(&world);
    compare_with(&world, traced, || clients(&world, false), read_along);
}

#[test]
fn clients_and_gunicorn() {
    let Some(world) = World::new() else { return };
    let _server = gunicorn(&world);
    compare_with(&world, traced, || clients(&world, true), read_along);
}

#[test]
fn clients_and_node() {
    let Some(world) = World::new() else { return };
    let _server = node(&world);
    compare_with(&world, traced, || clients(&world, true), read_along);
}

/// A server on the second address of the name `dual` only.
fn answer_on_the_second(listener: &TcpListener, is_over: &AtomicBool) {
    listener.set_nonblocking(true).expect("a listener");
    while !is_over.load(Relaxed) {
        let Ok((mut peer, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        peer.set_nonblocking(false).expect("a socket");
        // A client that goes away has its own line in the table.
        let _ = peer.read(&mut [0; 1024]);
        let _ =
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
}

/// Whether each client is answered.
fn answered(world: &World) -> Vec<(&'static str, bool)> {
    let url = format!("http://dual:{PORT}/");
    let hosts = world.dir().join("hosts");
    let text = format!("127.0.0.1 localhost\n{CLIENT_V6} dual\n{CLIENT_V4} dual\n");
    fs::write(&hosts, text).expect("a file");
    let c_string = |path: &str| CString::new(path).expect("no NUL");
    let ask = |program: &str, package: &str, args: &[&str]| {
        let hosts = c_string(hosts.to_str().expect("UTF-8"));
        let birth = Birth { files: vec![(hosts, c_string("/etc/hosts"))], ..Birth::default() };
        let mut command = world.pod.command_born(tool(program, package), None, birth);
        let output = command.args(args).output().expect(program);
        String::from_utf8_lossy(&output.stdout).contains("200")
    };
    let python = |library: &str, code: &str| {
        ask("python3", library, &["-c", &format!("{code}\nprint(r)").replace("URL", &url)])
    };
    vec![
        ("curl", ask("curl", "curl", &["-sS", "-o", "-", "-w", "%{http_code}", &url])),
        ("requests", python("python3-requests", "import requests; r = requests.get('URL')")),
        ("httpx", python("python3-httpx", "import httpx; r = httpx.get('URL')")),
    ]
}

/// Netra accepts before it knows whether anybody is there. docs/WHAT-BREAKS.md says who is at a loss
/// with that: whether a client is depends on whether the reset comes before it looks, so what is
/// certain is asserted, that each was accepted at the address that is dead.
#[test]
fn names_with_a_dead_address() {
    let Some(world) = World::new() else { return };
    let listener = world.client.enter(|| TcpListener::bind((CLIENT_V4, PORT))).expect("bind");
    let is_over = AtomicBool::new(false);
    let (direct, through) = thread::scope(|scope| {
        scope.spawn(|| answer_on_the_second(&listener, &is_over));
        let direct = answered(&world);
        apply_rules(&world, Backend::NftNative);
        let netra = Netra::start(&world, &Setup::new(matrix::cells_with(1)[0]));
        let through = answered(&world);
        is_over.store(true, Relaxed);
        netra
            .scrape_until("each client's dial of the dead address is counted", |metrics| {
                metrics.closed("dial_failed") >= through.len() as u64
            })
            .expect("dials that failed");
        netra.finish().expect("a clean end");
        (direct, through)
    });
    println!("through netra: {through:?}");
    assert!(direct.iter().all(|(_, is_answered)| *is_answered), "{direct:?}");
}

#[test]
fn heavy_http_load() {
    let Some(world) = World::new() else { return };
    let (wrk, hey, ab) = (tool("wrk", "wrk"), tool("hey", "hey"), tool("ab", "apache2-utils"));
    let _server = nginx(&world, "8080 backlog=4096");
    let url = format!("http://{POD_V4}:{PORT}/small");
    compare_with(
        &world,
        traced,
        || {
            let hey = |more: &[&str]| {
                let args = [&["-n", "2000", "-c", "20"], more, &[&url]].concat();
                number_before(&run(&world.client, &hey, &args), " responses")
                    .max(number_after(&run(&world.client, &hey, &args), "[200]"))
            };
            let ab = |more: &[&str]| {
                let args = [&["-q", "-n", "2000", "-c", "20"], more, &[&url]].concat();
                let said = run(&world.client, &ab, &args);
                let failed = number_after(&said, "Failed requests:");
                number_after(&said, "Complete requests:") - failed
            };
            let said = run(&world.client, &wrk, &["-t1", "-c32", "-d1s", &url]);
            let clean = !said.contains("Socket errors") && !said.contains("Non-2xx");
            assert!(number_before(&said, " requests in") > 100, "{said}");
            tally([
                ("hey", hey(&[])),
                ("hey, new connections", hey(&["-disable-keepalive"])),
                ("ab, HTTP/1.0", ab(&[])),
                ("ab, kept alive", ab(&["-k"])),
                ("wrk without an error", u64::from(clean)),
            ])
        },
        |netra| {
            let opaque = netra.scrape().sum("netra_opaque_total", &[]);
            if opaque == 0 { Ok(()) } else { Err(format!("{opaque} opaque")) }
        },
    );
}

#[test]
fn websockets() {
    let Some(world) = World::new() else { return };
    let python = tool("python3", "python3");
    let script = support_file("websocket.py").display().to_string();
    let mut command = world.pod.command(&python);
    command.args([&script, "server", &PORT.to_string()]);
    let _server = Server::start(&world, &world.pod, command, PORT);
    let url = format!("ws://{POD_V4}:{PORT}/chat");
    let load = || {
        let said = run(&world.client, &python, &[&script, "client", &url]);
        tally([("messages", number_after(&said, "websocket:"))])
    };
    compare_with(&world, traced, load, opaque("upgraded"));
}

#[test]
fn http2_with_prior_knowledge() {
    let Some(world) = World::new() else { return };
    let _server = nginx(&world, "8080 http2");
    let curl = tool("curl", "curl");
    let fetch = |path: &str| {
        let form = ["-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w"];
        let url = format!("http://{POD_V4}:{PORT}/{path}");
        let said = run(
            &world.client,
            &curl,
            &[&form[..], &["%{http_version} %{size_download}", &url]].concat(),
        );
        u64::from(said == format!("2 {}", if path == "small" { SMALL } else { LARGE }))
    };
    let load = || {
        let small = (0..10).map(|_| fetch("small")).sum();
        tally([("small", small), ("large", fetch("large"))])
    };
    compare_with(&world, traced, load, read_along);
}

#[test]
fn tls_on_an_http_port() {
    let Some(world) = World::new() else { return };
    let openssl = tool("openssl", "openssl");
    let (key, certificate) = (world.dir().join("key.pem"), world.dir().join("cert.pem"));
    let [key, certificate] = [key, certificate].map(|path| path.display().to_string());
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let more = ["-keyout", &key, "-out", &certificate, "-subj", "/CN=app", "-days", "1"];
    run(&world.pod, &openssl, &[&make[..], &more].concat());
    let mut command = world.pod.command(&openssl);
    let port = PORT.to_string();
    command.args(["s_server", "-quiet", "-rev", "-accept", &port, "-key", &key]);
    command.args(["-cert", &certificate]).stdin(Stdio::null());
    let _server = Server::start(&world, &world.pod, command, PORT);
    let address = format!("{POD_V4}:{PORT}");
    let load = || {
        let mut command = world.client.command(&openssl);
        command.args(["s_client", "-quiet", "-connect", &address, "-CAfile", &certificate]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("s_client runs");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(b"netra\n").expect("it reads");
        let mut answer = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("piped"));
        std::io::BufRead::read_line(&mut output, &mut answer).expect("an answer");
        drop(input);
        drop(child.kill());
        drop(child.wait());
        tally([("answers", u64::from(answer.trim() == "arten"))])
    };
    compare_with(&world, traced, load, opaque("tls"));
}

/// The Model Context Protocol, client and server of its own SDK: a stream of events is heard event by
/// event, and spans tell method, tool, when the stream began and how much came of it.
#[test]
fn mcp_by_its_own_sdk_is_never_held_and_told_by_method_and_tool() {
    let Some(world) = World::new() else { return };
    apply_rules(&world, Backend::NftNative);
    let peer = |namespace: &Namespace, what: &str| {
        let mut command = namespace.command(support::spans::python_path());
        command.arg(support_file("peers/mcp_peer.py")).arg(what);
        command.arg(POD_V4.to_string()).arg(PORT.to_string());
        command
    };
    let sink = Sink::start(&world);
    let _server = Server::start(&world, &world.pod, peer(&world.pod, "serve"), PORT);
    for (index, cell) in matrix::cells_with(1).into_iter().enumerate() {
        let reads = index == 0;
        let setup = sink.wire(Setup::new(cell)).env("NETRA_HTTP_PORTS", PORT);
        let netra = Netra::start(&world, &setup.env("NETRA_HTTP_MCP", reads));
        let said = checked(peer(&world.client, "ask").output().expect("it runs"), "mcp_peer.py");
        let said: serde_json::Value = serde_json::from_str(said.trim()).expect("JSON");
        assert_eq!(said["text"], serde_json::json!(["3", "done"]), "{said}");
        assert_eq!((&said["progress"], &said["early"]), (&4.into(), &4.into()), "held: {said}");
        assert_eq!(said["is_slow"], true, "{said}");
        read_along(&netra).expect("all of it was HTTP");
        let count = netra.scrape().sum("netra_spans_total", &[("result", "recorded")]);
        let spans = sink.take(usize::try_from(count).expect("few")).expect("all spans");
        let of_tool = |name: &str| {
            let is_its = |span: &&Span| {
                span.tag("mcp.method.name") == "tools/call" && span.tag("gen_ai.tool.name") == name
            };
            spans.iter().find(is_its)
        };
        if !reads {
            assert!(spans.iter().all(|span| span.tag("mcp.method.name").is_empty()), "{spans:#?}");
        } else {
            assert!(of_tool("add").is_some(), "{spans:#?}");
            let slow = of_tool("slow").unwrap_or_else(|| panic!("{spans:#?}"));
            let number = |tag: &str| slow.tag(tag).parse::<u64>().unwrap_or_default();
            assert!(number("netra.first_byte_us") < 600_000, "{slow:#?}");
            assert!(number("netra.stream_bytes") > 400, "{slow:#?}");
            let listed = |span: &Span| span.tag("mcp.method.name") == "tools/list";
            assert!(spans.iter().any(listed), "{spans:#?}");
        }
        netra.end().expect("the end");
    }
}
