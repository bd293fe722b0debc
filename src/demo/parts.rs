//! The parts of the demo as programs of their own, each for a container: `docker/compose.yaml` puts
//! them together. They end at SIGTERM, also as the first process of a container.

use super::collector::{self, Span};
use super::service::{self, Does, Service};
use super::waterfall::{self, Paint};
use super::{Result, endings, http1, mask, story, trace};
use crate::json;
use nix::sys::signal::SigmaskHow;
use std::io::{BufReader, Write, stdout};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A part.
#[derive(clap::Subcommand, Clone, Debug)]
pub(super) enum Part {
    /// Serve on port 80: answer, or ask another service and answer with what that says
    Service(ServiceArgs),
    /// Receive spans as a Jaeger agent does, on UDP port 6831, and draw each trace
    Traces(TracesArgs),
    /// Send a request to a service and show its answer
    Ask(AskArgs),
}

/// What a service is.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ServiceArgs {
    /// Its name, which its answers begin with
    name: String,
    /// The service that it asks
    #[arg(long, value_name = "HOST/PATH")]
    asks: Option<Place>,
    /// What it answers when it asks nobody
    #[arg(long, default_value = "here")]
    answer: String,
}

/// How traces are shown.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct TracesArgs {
    /// Each trace as JSON on one line
    #[arg(long)]
    json: bool,
}

/// What is asked.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct AskArgs {
    /// The service
    #[arg(value_name = "HOST/PATH")]
    place: Place,
    /// A line of the request's head
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Ask again after so many milliseconds, and so on until SIGTERM
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    every: Option<u64>,
}

/// Where a service is, and what of it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    path: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self> {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.contains(':') || !is_plain(text) {
            return Err("allowed is HOST/PATH, where HOST has no port".into());
        }
        Ok(Self { host: host.to_owned(), path: format!("/{path}") })
    }
}

/// How long a request may find nobody who answers: containers start in any order.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a trace has not grown when it is drawn. Sidecars send what they have every second.
const QUIET: Duration = Duration::from_secs(2);
/// Spans that wait for others of their trace; with more, all are drawn as they are.
const SPANS_MAX: usize = 10_000;

pub(super) fn run(part: &Part) -> Result<bool> {
    match part {
        Part::Service(args) => serve(args).map(|()| true),
        Part::Traces(args) => receive(args.json).map(|()| true),
        Part::Ask(args) => match args.every.map(Duration::from_millis) {
            None => ask(args),
            Some(pause) => ask_on(args.clone(), pause).map(|()| true),
        },
    }
}

/// Blocks the signals that end a program for the threads that `start` makes, and waits for one.
fn until_the_end(start: impl FnOnce() -> Result<()>) -> Result<()> {
    mask(SigmaskHow::SIG_BLOCK)?;
    start()?;
    endings().wait().map(drop).map_err(|errno| format!("waiting for SIGTERM: {errno}"))
}

fn serve(args: &ServiceArgs) -> Result<()> {
    let does = match &args.asks {
        None => Does::Answer(keep(&args.answer)),
        Some(Place { host, path }) => {
            let (at, path) = (keep(host), keep(path));
            let asked = Service { name: at, at, path, does: Does::Answer("") };
            Does::Ask { host: at, service: Box::leak(Box::new(asked)) }
        }
    };
    let (name, at) = (keep(&args.name), "0.0.0.0");
    let service: &'static Service = Box::leak(Box::new(Service { name, at, path: "/", does }));
    until_the_end(|| {
        let (tell, seen) = channel();
        service::serve_here(service, tell)?;
        thread::spawn(move || {
            for request in seen {
                let line = request.received.lines().next().unwrap_or_default();
                let id = http1::field(&request.received, service::REQUEST_ID).unwrap_or("none");
                say(&format!("{name}: {line}, {} {id}\n", service::REQUEST_ID));
            }
        });
        Ok(())
    })
}

/// A service lives as long as its process.
fn keep(text: &str) -> &'static str {
    text.to_owned().leak()
}

fn receive(as_json: bool) -> Result<()> {
    let address = (Ipv4Addr::UNSPECIFIED, collector::PORT);
    until_the_end(|| {
        let socket = UdpSocket::bind(address)
            .map_err(|error| format!("UDP port {}: {error}", collector::PORT))?;
        say(&format!("netra demo: spans are received on UDP port {}\n", collector::PORT));
        let arriving = collector::listen(socket);
        thread::spawn(move || {
            let mut gathered = Gathered::default();
            loop {
                match arriving.recv_timeout(QUIET / 10) {
                    Ok(Ok(spans)) => gathered.add(spans, Instant::now()),
                    Ok(Err(what)) => eprintln!("netra demo: {what}"),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                for spans in gathered.take(Instant::now()) {
                    say(&shown(spans, as_json));
                }
            }
        });
        Ok(())
    })
}

/// Traces that may still grow.
#[derive(Debug, Default)]
struct Gathered(Vec<Gathering>);

#[derive(Debug)]
struct Gathering {
    trace_id: u128,
    spans: Vec<Span>,
    grown: Instant,
}

impl Gathered {
    fn add(&mut self, spans: Vec<Span>, now: Instant) {
        for span in spans {
            let Self(traces) = self;
            let known = traces.iter_mut().find(|trace| trace.trace_id == span.trace_id);
            match known {
                Some(trace) => {
                    trace.grown = now;
                    trace.spans.push(span);
                }
                None => {
                    let trace_id = span.trace_id;
                    traces.push(Gathering { trace_id, spans: vec![span], grown: now });
                }
            }
        }
    }

    /// Those that have come to rest, in the order of their first spans.
    fn take(&mut self, now: Instant) -> Vec<Vec<Span>> {
        let is_full = self.0.iter().map(|trace| trace.spans.len()).sum::<usize>() > SPANS_MAX;
        let rests = |trace: &mut Gathering| is_full || now - trace.grown >= QUIET;
        self.0.extract_if(.., rests).map(|trace| trace.spans).collect()
    }
}

/// A trace for people or for programs.
fn shown(spans: Vec<Span>, as_json: bool) -> String {
    let trace_id = spans.first().map_or(0, |span| span.trace_id);
    let rows = trace::join(spans);
    if !as_json {
        return format!("\ntrace {trace_id:016x}\n{}", waterfall::draw(&rows, Paint::for_stdout()));
    }
    let object = json::object(|object| {
        object.text("trace_id", &format!("{trace_id:032x}"));
        object.raw("spans", &json::list(rows.iter().map(story::row_json)));
    });
    object + "\n"
}

/// Asks until somebody answers. Whether the answer is a good one.
fn ask(args: &AskArgs) -> Result<bool> {
    let Place { host, path } = &args.place;
    let mut lines = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: client\r\n");
    for line in &args.header {
        lines += &format!("{line}\r\n");
    }
    let (request, begun) = (lines + "\r\n", Instant::now());
    let exchange = |stream: TcpStream| http1::ask(&mut BufReader::new(&stream), &request);
    let answer = loop {
        match service::connect(host, service::PORT).and_then(exchange) {
            Ok(answer) => break answer,
            Err(error) if begun.elapsed() > PATIENCE => return Err(format!("{host}: {error}")),
            Err(_) => thread::park_timeout(Duration::from_millis(100)),
        }
    };
    say(&format!("GET http://{host}{path}: {} {}\n", answer.status, answer.body));
    Ok(answer.status == 200)
}

/// Asks again and again; a request that nobody answers is told, and is not the end.
fn ask_on(args: AskArgs, pause: Duration) -> Result<()> {
    until_the_end(|| {
        thread::spawn(move || {
            loop {
                if let Err(what) = ask(&args) {
                    eprintln!("netra demo: {what}");
                }
                thread::park_timeout(pause);
            }
        });
        Ok(())
    })
}

/// To stdout at once; a reader who has gone away is no failure.
fn say(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::super::trace::tests::span;
    use super::*;

    #[test]
    fn places() {
        let place = |host: &str, path: &str| Ok(Place { host: host.into(), path: path.into() });
        assert_eq!("shop/offer".parse(), place("shop", "/offer"));
        assert_eq!("shop".parse(), place("shop", "/"));
        for text in ["", "/offer", "shop:80/offer", "http://shop/offer", "shop/a b", "shop/\r\n"] {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_trace_is_drawn_once_when_it_has_come_to_rest() {
        let begin = Instant::now();
        let mut gathered = Gathered::default();
        let mut other = span("stock", "server", (9, 0), 5);
        other.trace_id = 8;
        gathered.add(vec![span("front", "server", (1, 0), 1), other], begin);
        assert!(gathered.take(begin + QUIET / 2).is_empty());
        gathered.add(vec![span("shop", "server", (2, 1), 2)], begin + QUIET / 2);
        let ids = |traces: Vec<Vec<Span>>| -> Vec<Vec<i64>> {
            traces.iter().map(|spans| spans.iter().map(|span| span.span_id).collect()).collect()
        };
        assert_eq!(ids(gathered.take(begin + QUIET)), [[9]]);
        assert_eq!(ids(gathered.take(begin + QUIET * 3 / 2)), [[1, 2]]);
        assert!(gathered.take(begin + QUIET * 9).is_empty());
    }

    #[test]
    fn no_more_spans_wait_than_there_is_room_for() {
        let now = Instant::now();
        let mut gathered = Gathered::default();
        gathered.add(vec![span("a", "server", (1, 0), 1); SPANS_MAX], now);
        assert!(gathered.take(now).is_empty());
        gathered.add(vec![span("a", "server", (2, 0), 1)], now);
        assert_eq!(gathered.take(now).len(), 1);
        assert!(gathered.take(now).is_empty());
    }

    #[test]
    fn a_trace_is_shown_as_a_picture_or_as_json() {
        let spans =
            vec![span("shop", "server", (2, 1), 1_010), span("front", "server", (1, 0), 1_000)];
        let drawn = shown(spans.clone(), false);
        assert!(drawn.starts_with("\ntrace 0000000000000007\n"), "{drawn}");
        assert!(
            drawn.contains("\n  front server") && drawn.contains("\n   shop server"),
            "{drawn}"
        );
        let object: serde_json::Value = serde_json::from_str(&shown(spans, true)).unwrap();
        assert_eq!(object["trace_id"], "00000000000000000000000000000007");
        assert_eq!(object["spans"][1]["service"], "shop");
        assert_eq!(object["spans"][1]["depth"], 1);
    }
}
