//! TLS with servers that are not ours: Python's, which is OpenSSL, and grpcio's, which is BoringSSL.

use super::*;
use crate::export::tests::spans::{Ports, SpanSink, python_path};
use crate::{
    export::{OtlpClient, OtlpPlan, Protocol},
    load::{Sources, load},
    resolver::{Names, tests::block_on},
    sampling,
    url::Url,
};
use certs::{Authority, FUTURE, NOW, PAST};
use hyper::{Method, Request, body::Bytes};
use netra_codecs::trace::SampleRule;
use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{self, Command},
    thread,
    time::Duration,
};
use tokio::sync::mpsc;

#[path = "../../tests/support/certs.rs"]
#[allow(dead_code, unreachable_pub)]
mod certs;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("netra-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn named(path: &str) -> Named {
    Named { setting: "NETRA_TLS_CA_FILE", path: path.into() }
}

fn trusting(ca: &str) -> Reach {
    Reach { ca: Some(named(ca)), ..Reach::default() }
}

fn showing(ca: &str, [certificate, key]: &[String; 2]) -> Reach {
    Reach { identity: Some((named(certificate), named(key))), ..trusting(ca) }
}

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A message in which a receiver finds nothing that it knows: field 15 is 1.
const NOTHING: &[u8] = &[0x78, 1];

/// What comes of such a message, sent over both forms to both ports of a sink: words of the error
/// or nothing.
fn sent(sink: &SpanSink, host: &str, reach: &Reach) -> [Result<(), String>; 2] {
    let Ports { otlp_http, otlp_grpc, .. } = sink.ports;
    [(Protocol::Http, otlp_http, "/v1/traces"), (Protocol::Grpc, otlp_grpc, "")].map(
        |(protocol, port, path)| {
            to(protocol, format!("https://{host}:{port}{path}"), reach.clone(), "")
        },
    )
}

fn to(protocol: Protocol, endpoint: String, reach: Reach, more: &str) -> Result<(), String> {
    let timeout = Duration::from_secs(5);
    let plan = OtlpPlan { protocol, endpoint, reach, headers: vec![], timeout, is_gzip: false };
    block_on(async {
        let client = OtlpClient::new(&Names::start_own(), &plan, more, EXPORT).unwrap();
        // Twice: the second goes over what was kept.
        for _ in 0..2 {
            let mut request = Request::new(Bytes::from_static(NOTHING));
            *request.method_mut() = Method::POST;
            let answer = client.send(request).await.map_err(|error| error.to_string())?;
            assert!(answer.status().is_success(), "{}", answer.status());
        }
        Ok(())
    })
}

fn sink(folder: &Folder) -> SpanSink {
    let mut python = Command::new(python_path());
    python.env("SINK_TLS", &folder.0);
    SpanSink::start_as(python, Ports::default(), "127.0.0.1")
}

#[track_caller]
fn assert_refused(what: &str, all: [Result<(), String>; 2], words: &str) {
    for one in all {
        let why = one.expect_err(what);
        assert!(why.contains(words), "{what}: {why}");
    }
}

#[test]
fn a_receiver_is_believed_if_its_certificate_is_good_and_the_error_says_what_is_not() {
    let folder = Folder::new("tls");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let ca = ours.write(&folder.0.join("ca.pem"));
    let other = theirs.write(&folder.0.join("other.pem"));
    let expired = "the receiver's certificate has expired";
    for (names, years, host, trusted, words) in [
        (&["localhost", "127.0.0.1"][..], NOW, "localhost", &ca, None),
        (&["127.0.0.1"], NOW, "127.0.0.1", &ca, None),
        (&["localhost"], NOW, "localhost", &other, Some("nobody whom netra trusts has issued")),
        (&["localhost"], PAST, "localhost", &ca, Some(expired)),
        (&["localhost"], FUTURE, "localhost", &ca, Some("is not valid yet (or this clock is")),
        (&["shop.test"], NOW, "localhost", &ca, Some("certificate is for another name")),
        (&["localhost"], NOW, "127.0.0.1", &ca, Some("certificate is for another name")),
    ] {
        ours.issue(&folder.0, "server", names, years);
        let all = sent(&sink(&folder), host, &trusting(trusted));
        let what = format!("{names:?} {years:?} at {host}");
        match words {
            None => assert_eq!(all, [Ok(()), Ok(())], "{what}"),
            Some(words) => assert_refused(&what, all, words),
        }
    }
}

#[test]
fn a_receiver_that_wants_to_know_who_netra_is() {
    let folder = Folder::new("mtls");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let ca = ours.write(&folder.0.join("ca.pem"));
    ours.write(&folder.0.join("clients.pem"));
    ours.issue(&folder.0, "server", &["localhost"], NOW);
    let sink = sink(&folder);
    let [certificate, key] = ours.issue(&folder.0, "client", &["netra"], NOW);
    let good = showing(&ca, &[certificate.clone(), key.clone()]);
    assert_eq!(sent(&sink, "localhost", &good), [Ok(()), Ok(())]);
    let bad = showing(&ca, &theirs.issue(&folder.0, "stranger", &["netra"], NOW));
    let [http, grpc] = sent(&sink, "localhost", &bad);
    let words = "the receiver does not accept netra's certificate";
    assert!(http.as_ref().is_err_and(|why| why.contains(words)), "{http:?}");
    // BoringSSL closes without a word.
    assert!(grpc.is_err(), "{grpc:?}");
    let [http, grpc] = sent(&sink, "localhost", &trusting(&ca));
    let words = "the receiver wants a certificate from netra";
    assert!(http.as_ref().is_err_and(|why| why.contains(words)), "{http:?}");
    assert!(grpc.is_err(), "{grpc:?}");
    // Another's key is found out at the start.
    let [_, foreign] = ours.issue(&folder.0, "another", &["netra"], NOW);
    let (setting, allowed) = showing(&ca, &[certificate, foreign]).check().unwrap_err();
    assert_eq!(setting, "NETRA_TLS_CA_FILE");
    assert!(allowed.contains("private key of that certificate"), "{allowed}");
    assert_eq!(good.check(), Ok(()));
}

/// What is renewed under a running netra is read at the next dial.
#[test]
fn files_that_change_are_read_again() {
    let folder = Folder::new("renewed");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let path = folder.0.join("ca.pem");
    let ca = theirs.write(&path);
    ours.issue(&folder.0, "server", &["localhost"], NOW);
    let sink = sink(&folder);
    let mut tls = Tls::new(&trusting(&ca), "localhost", false).unwrap();
    let mut dial = || {
        block_on(async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", sink.ports.otlp_http)).await;
            tls.begin(stream.unwrap()).await.map(drop).map_err(|error| error.to_string())
        })
    };
    assert!(dial().unwrap_err().contains("nobody whom netra trusts"));
    ours.write(&path);
    assert_eq!(dial(), Ok(()));
    fs::write(&path, "no certificate").unwrap();
    assert_eq!(dial().unwrap_err(), format!("{ca}: there is no certificate in it"));
}

#[test]
fn a_port_without_tls_is_said_to_be_one() {
    let sink = SpanSink::start(Ports::default());
    let folder = Folder::new("plain");
    let ca = Authority::new("ours").write(&folder.0.join("ca.pem"));
    let [http, _] = sent(&sink, "127.0.0.1", &trusting(&ca));
    let why = http.unwrap_err();
    assert!(why.contains("the receiver does not speak TLS on this port"), "{why}");
}

/// A proxy that answers each CONNECT in this way, and says what it was asked.
fn proxy(answer: &'static str, to: u16) -> (Proxy, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(client.read(&mut byte).unwrap(), 1);
            head.extend(byte);
        }
        client.write_all(answer.as_bytes()).unwrap();
        if answer.contains(" 200 ") {
            let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (mut back, mut out) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut back, &mut out));
            let _ = std::io::copy(&mut client, &mut server);
        }
        String::from_utf8(head).unwrap()
    });
    let authorization = Some("Basic dTpw".parse().unwrap());
    (Proxy { host: "localhost".into(), port, authorization }, asked)
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_and_its_refusal_is_said() {
    let folder = Folder::new("proxy");
    let ours = Authority::new("ours");
    let ca = ours.write(&folder.0.join("ca.pem"));
    // No name server knows this one: the proxy does.
    ours.issue(&folder.0, "server", &["collector.test"], NOW);
    let sink = sink(&folder);
    let by = |proxy: Proxy| Reach { proxy: Some(proxy), ..trusting(&ca) };
    for (protocol, port) in
        [(Protocol::Http, sink.ports.otlp_http), (Protocol::Grpc, sink.ports.otlp_grpc)]
    {
        let (proxy, asked) = proxy("HTTP/1.1 200 Fine\r\n\r\n", port);
        let url = format!("https://collector.test:{port}/v1/traces");
        assert_eq!(to(protocol, url, by(proxy), ""), Ok(()));
        let head = asked.join().unwrap();
        let begin = format!("CONNECT collector.test:{port} HTTP/1.1\r\n");
        assert!(head.starts_with(&begin), "{head}");
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains("proxy-authorization: basic dtpw\r\n"), "{head}");
        assert!(lower.contains(&format!("host: collector.test:{port}\r\n")), "{head}");
    }
    for (answer, words) in [
        ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "answered 403 Forbidden to CONNECT"),
        ("HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", "wants another user and password"),
        ("SOCKS\r\n\r\n", "the proxy localhost:"),
    ] {
        let (proxy, _) = proxy(answer, 0);
        let url = "https://collector.test/v1/traces".to_owned();
        let why = to(Protocol::Http, url, by(proxy), "").unwrap_err();
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn headers_come_from_a_file_and_change_with_it() {
    let folder = Folder::new("headers");
    let path = folder.0.join("headers");
    let name = path.to_str().unwrap();
    let mut headers = Headers::new(name);
    let says = |headers: &mut Headers| {
        let now = headers.now().map_err(|error| error.to_string())?;
        let pairs = now.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
        Ok::<_, String>(pairs.collect::<Vec<_>>().join(" "))
    };
    for (text, expected) in [
        (
            "Authorization: Bearer a:b\n\n# note\nX-Scope: 1 \n",
            Ok("authorization=Bearer a:b x-scope=1"),
        ),
        ("x:\n", Ok("x=")),
        ("", Ok("")),
        ("secret-token", Err("line 1 is no header")),
        ("a: b\nc d: e\n", Err("line 2 is no header")),
    ] {
        fs::write(&path, text).unwrap();
        let expected = match expected {
            Ok(all) => Ok(all.to_owned()),
            Err(why) => Err(format!("the headers in {name}: {why}")),
        };
        assert_eq!(says(&mut headers), expected, "{text:?}");
        assert_eq!(Headers::check(name).is_ok(), expected.is_ok());
    }
    fs::remove_file(&path).unwrap();
    assert!(says(&mut headers).unwrap_err().contains("No such file"));
    assert_eq!(says(&mut Headers::new("")), Ok(String::new()));
    assert!(!format!("{headers:?}").contains("Bearer"));
}

fn reporter(pairs: &[(&str, &str)]) -> Result<String, Vec<String>> {
    let named = [("NETRA_SERVICE_NAME", "shop"), ("NETRA_HTTP_PORTS", "80")];
    let all = named.iter().chain(pairs);
    let environment = all.map(|(name, text)| ((*name).into(), (*text).into())).collect();
    let loaded = load(&Sources { environment, ..Sources::default() });
    let loaded = loaded.map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok(loaded.config.tracing.unwrap().export.reporter.to_string())
}

#[test]
fn which_proxy() {
    const TO: &str = "https://c.shop.test:4317";
    const DIRECT: &str = "OTLP over gRPC, https://c.shop.test:4317";
    const BY: &str = "OTLP over gRPC, https://c.shop.test:4317, by the proxy p:3128";
    for (to, proxy, no, words) in [
        (TO, "http://p:3128", "", BY),
        (TO, "p:3128", "shop.example,10.0.0.0/8", BY),
        (TO, "http://u:hunter2@p:3128", "", BY),
        (TO, "http://p:3128", ".shop.test", DIRECT),
        (TO, "http://p:3128", "a, *", DIRECT),
        (TO, "", "", DIRECT),
        ("https://10.1.2.3", "http://p:3128", "10.0.0.0/8", "OTLP over gRPC, https://10.1.2.3"),
        ("https://localhost", "http://p:3128", "", "OTLP over gRPC, https://localhost"),
        ("https://127.0.0.9", "http://p:3128", "", "OTLP over gRPC, https://127.0.0.9"),
        // In the clear there is none, and what is said of it is not judged.
        ("http://c", "socks5://p", "", "OTLP over gRPC, http://c"),
    ] {
        let pairs = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", to),
            ("https_proxy", proxy),
            ("NO_PROXY", no),
        ];
        assert_eq!(reporter(&pairs), Ok(words.into()), "{to} {proxy} {no}");
    }
    for proxy in ["socks5://u:hunter2@p:1", "https://p:1", "http://", "a b"] {
        let refused =
            reporter(&[("OTEL_EXPORTER_OTLP_ENDPOINT", TO), ("HTTPS_PROXY", proxy)]).unwrap_err();
        assert_eq!(refused.len(), 1);
        assert!(refused[0].starts_with("HTTPS_PROXY="), "{refused:?}");
        assert!(refused[0].ends_with("http://[USER:PASSWORD@]HOST:PORT, or HOST:PORT"));
        assert!(!refused[0].contains("hunter2"), "{refused:?}");
    }
}

#[test]
fn endpoints_without_a_scheme() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317");
    for (more, words) in [
        (&[][..], "OTLP over gRPC, https://c:4317"),
        (&[("OTEL_EXPORTER_OTLP_INSECURE", "true")], "OTLP over gRPC, http://c:4317"),
        (&[("OTEL_EXPORTER_OTLP_INSECURE", "false")], "OTLP over gRPC, https://c:4317"),
        (
            &[
                ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
                ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"),
            ],
            "OTLP over gRPC, https://c:4317",
        ),
    ] {
        assert_eq!(reporter(&[&[grpc, bare], more].concat()), Ok(words.into()), "{more:?}");
    }
    let refused = reporter(&[bare]).unwrap_err();
    let allowed = "an http:// or https:// URL; host:port is for the protocol grpc";
    assert_eq!(refused, [format!("OTEL_EXPORTER_OTLP_ENDPOINT=c:4317: allowed is {allowed}")]);
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c");
    for name in ["NETRA_TLS_CERTIFICATE_FILE", "OTEL_EXPORTER_OTLP_CLIENT_KEY"] {
        let refused = reporter(&[to, (name, "/x.pem")]).unwrap_err();
        assert!(refused[0].starts_with(&format!("{name}=/x.pem: allowed is to be set together")));
        assert!(reporter(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, "/x.pem")]).is_ok());
    }
    // One of each is a pair, whoever says it.
    let pair = [("NETRA_TLS_CERTIFICATE_FILE", "/a"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/b")];
    assert!(reporter(&[&[to], &pair[..]].concat()).is_ok());
}

/// The sampling manager by OpenSSL's own server, which answers with files of its folder.
#[test]
fn a_sampling_manager_is_asked_over_tls_and_believed_if_its_certificate_is_good() {
    const RATE: &str = r#"{"rateLimitingSampling":{"maxTracesPerSecond":2}}"#;
    let folder = Folder::new("sampling");
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let [certificate, key] = ours.issue(&folder.0, "server", &["localhost"], NOW);
    let trusted = ours.write(&folder.0.join("ca.pem"));
    let untrusted = others.write(&folder.0.join("others.pem"));
    fs::write(folder.0.join("sampling?service=shop"), RATE).unwrap();
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-WWW", "-cert", &certificate, "-key", &key])
        .current_dir(&folder.0)
        .stdout(process::Stdio::piped())
        .stderr(process::Stdio::null())
        .spawn()
        .expect("Debian package openssl");
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let at = said.find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:").map(str::to_owned));
    let url = Url::parse(&format!("https://localhost:{}/sampling", at.unwrap())).unwrap();
    let told = |ca: &str| {
        let remote = sampling::Remote {
            url: url.clone().with_query("service", "shop"),
            reach: trusting(ca),
            refresh: Duration::from_secs(60),
            operations_max: 10,
            parent_based: false,
        };
        block_on(async {
            let (tell, mut told) = mpsc::channel(1);
            let follow = sampling::follow(remote, Names::start_own(), move |plan| {
                let tell = tell.clone();
                async move { tell.send(plan).await.unwrap() }
            });
            tokio::select! {
                plan = told.recv() => plan,
                () = follow => None,
                () = tokio::time::sleep(Duration::from_secs(2)) => None,
            }
        })
    };
    let rule = told(&trusted).map(|plan| plan.rule.clone());
    assert_eq!(rule, Some(SampleRule::RateLimiting(2.0)));
    assert_eq!(told(&untrusted), None);
    server.kill().unwrap();
    server.wait().unwrap();
}
