//! Real containers that speak HTTP: requests traced, spans sent to a receiver that only Docker's
//! own name server knows, single requests routed by such names, under both seccomp profiles.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use support::docker::{DEFAULT_PROFILE, Network, OUR_PROFILE, Pod, Sidecar, docker, is_there};
use support::spans::{SpanSink, tag};

/// The application asks `stock`; a route sends the same request to `canary`.
struct Shop<'n> {
    pod: Pod<'n>,
    stock: String,
    canary: String,
}

impl<'n> Shop<'n> {
    fn new(network: &'n Network) -> Self {
        let stock = network.service("stock", &["stock", "--answer", "7 left"]);
        let canary = network.service("canary", &["canary", "--answer", "5 left"]);
        let pod = Pod::new(network, "pod");
        pod.init(&["apply"]);
        pod.start_service(&["shop", "--asks", &format!("{stock}/tea")]);
        Self { pod, stock, canary }
    }

    /// A request from outside the pod: what it is answered with.
    fn ask(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(SocketAddr::from((self.pod.address, 80))).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let request = format!("GET /offer?x=1 HTTP/1.1\r\nHost: shop\r\n{line}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A request, its answer, and the spans of the sidecar: the one that came in, and below it the
    /// one that went out.
    fn travel(&self, sink: &mut SpanSink, route: Option<&str>, via: &str) {
        let line = route.map(|to| format!("X-Route: {}={to}\r\n", self.stock));
        let answer = self.ask(&line.unwrap_or_default());
        let wanted = if route.is_some() { "shop < canary: 5 left" } else { "shop < stock: 7 left" };
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(wanted), "{answer}");
        let mut spans = sink.take(2);
        spans.sort_by_key(|span| span["parent_id"] != "0000000000000000");
        let [inbound, outbound] = &spans[..] else { unreachable!("two were taken") };
        for span in &spans {
            assert_eq!(
                (&span["via"], &span["process"]["service"]),
                (&via.into(), &"containers".into())
            );
            assert_eq!(span["trace_id"], inbound["trace_id"]);
            assert_eq!(tag(span, "http.status_code"), Some(&json!(200)));
            assert_eq!(tag(span, "http.method"), Some(&json!("GET")));
            assert_eq!(tag(span, "http.request_id"), tag(inbound, "http.request_id"));
        }
        assert_eq!(outbound["parent_id"], inbound["span_id"], "{spans:#?}");
        let told = |span: &Value| {
            let text = |key| tag(span, key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let name = span["name"].as_str().unwrap().to_owned();
            // OpenTelemetry has a field for it.
            let kind = match span["kind"].as_u64() {
                Some(2) => "server".to_owned(),
                Some(3) => "client".to_owned(),
                _ => text("span.kind"),
            };
            [name, kind, text("http.host"), text("http.path")]
        };
        assert_eq!(told(inbound), ["/offer", "server", "shop", "/offer?x=.."]);
        let operation = format!("{}/tea", self.stock);
        assert_eq!(told(outbound), [&operation, "client", &self.stock, "/tea"]);
    }
}

/// What the kernel says of netra's process.
fn status(pod: &Pod<'_>) -> String {
    fs::read_to_string(format!("/proc/{}/status", pod.inspect(".State.Pid"))).unwrap()
}

#[test]
fn requests_are_traced_and_routed_by_name_under_both_profiles() {
    if !is_there() {
        return;
    }
    let network = Network::new("traced");
    let (mut sink, receiver) = network.sink("receiver");
    let shop = Shop::new(&network);
    let agent = format!("JAEGER_AGENT_HOST={receiver}");
    let collector = format!("JAEGER_ENDPOINT=http://{receiver}:14268/api/traces");
    let otlp = format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://{receiver}:4318");
    for (profile, driver, variable, via) in [
        (DEFAULT_PROFILE, "epoll", &agent, "agent"),
        (OUR_PROFILE, "io_uring", &agent, "agent"),
        (DEFAULT_PROFILE, "epoll", &otlp, "otlp_http"),
        (OUR_PROFILE, "io_uring", &collector, "collector"),
    ] {
        let seccomp = format!("seccomp={profile}");
        let sampled = ["JAEGER_SAMPLER_TYPE=const", "JAEGER_SAMPLER_PARAM=1"];
        let http = ["NETRA_HTTP_PORTS=80", "NETRA_HTTP_ROUTING_ENABLED=true"];
        let soon = ["JAEGER_REPORTER_FLUSH_INTERVAL=50ms", "OTEL_BSP_SCHEDULE_DELAY=50"];
        let variables = [&sampled[..], &http, &soon, &[variable]].concat();
        let variables = variables.iter().flat_map(|variable| ["--env", variable]);
        let run: Vec<&str> = ["--security-opt", &seccomp].into_iter().chain(variables).collect();
        shop.pod.start_netra(Sidecar { run: &run, ..Default::default() });
        shop.travel(&mut sink, None, via);
        shop.travel(&mut sink, Some(&shop.canary), via);
        let driven = |driver| shop.pod.scrape().sum("netra_io_driver", &[("driver", driver)]);
        assert_eq!(driven(driver), 1, "{}", shop.pod.log());
        let status = status(&shop.pod);
        for line in ["Uid:\t1337\t1337\t1337\t1337", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "no {line:?} in {status}");
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t{:016x}\n", 0)), "{set}: {status}");
        }
        assert_eq!(shop.pod.inspect(".HostConfig.ReadonlyRootfs"), "true");
        docker(&["rm", "-f", &shop.pod.netra()]);
    }
    // Routes are by the name of a container, too: one that does not exist is told.
    let run = ["--env", "NETRA_HTTP_PORTS=80", "--env", "NETRA_HTTP_ROUTING_ENABLED=true"];
    shop.pod.start_netra(Sidecar { run: &run, ..Default::default() });
    let answer = shop.ask(&format!("X-Route: {}=no-such-container\r\n", shop.stock));
    assert!(answer.ends_with("its name cannot be resolved\n"), "{answer}");
}
