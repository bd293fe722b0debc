//! Requests through all services: what came back, what each service saw, which spans there are.

use super::Result;
use super::collector::Span;
use super::http1::{self, Answer};
use super::mesh::{CANARY, FRONT, Mesh, STOCK};
use super::service::{self, Does, PORT, REQUEST_ID, Seen, Service};
use super::stage::Lane;
use super::trace::{self, Row};
use std::io::BufReader;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) const ROUTE: &str = "X-Route";

/// Requests of each kind that are not shown: the first ones meet unknown neighbours and cold code.
const WARM: usize = 10;
/// How long spans may take to arrive.
const PATIENCE: Duration = Duration::from_secs(3);

/// One request of the client and all that came of it.
#[derive(Debug)]
pub(super) struct Journey {
    /// The value of X-Route that it had.
    pub(super) route: Option<String>,
    pub(super) request_id: String,
    pub(super) answer: Answer,
    /// As the client sees it.
    pub(super) took: Duration,
    /// From when until when, in microseconds since 1970, as spans have it.
    during: RangeInclusive<i64>,
    pub(super) hops: Vec<Hop>,
    pub(super) rows: Vec<Row>,
}

/// A request head where it was sent and where it was received.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) sent: String,
    pub(super) received: String,
}

impl Journey {
    /// Who it leads to in the end.
    pub(super) fn last(&self) -> &'static Service {
        last(self.route.as_deref())
    }

    /// Requests go one after the other. That tells which spans of Redis belong to which one: its
    /// protocol has no place for a request id or a trace.
    fn has(&self, span: &Span) -> bool {
        if span.is_of_store() {
            self.during.contains(&span.start_us)
        } else {
            span.request_id() == self.request_id
        }
    }
}

fn last(route: Option<&str>) -> &'static Service {
    if route.is_some() { &CANARY } else { &STOCK }
}

impl Hop {
    /// Lines that were received and not sent; none when a line that was sent is not there, or
    /// stands elsewhere.
    pub(super) fn added(&self) -> Option<Vec<&str>> {
        let mut sent = self.sent.lines().peekable();
        let is_new = |line: &&str| sent.next_if_eq(line).is_none();
        let added = self.received.lines().filter(is_new).collect();
        sent.next().is_none().then_some(added)
    }
}

/// Spans, sent and received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) requests: usize,
    pub(super) wanted: usize,
    /// By the sidecars' own count.
    pub(super) sent: f64,
    pub(super) received: usize,
}

/// An ordinary request and, where outbound requests are netra's, one that is sent elsewhere; both
/// with their spans.
pub(super) fn all(mesh: &mut Mesh) -> Result<(Vec<Journey>, Counts)> {
    let connected = mesh.hub.enter(|| service::connect(FRONT.at, PORT))?;
    let stream = connected.map_err(|error| format!("{}: {error}", FRONT.name))?;
    let mut routes = vec![None];
    if mesh.lane == Lane::Both {
        routes.push(Some(format!("stock.demo={}", CANARY.at)));
    }
    for _ in 0..WARM {
        for route in &routes {
            travel(mesh, &stream, route.clone())?;
        }
    }
    let requests = (WARM + 1) * routes.len();
    let of_each = routes.iter().map(|route| spans_of_one(&mesh.lane, last(route.as_deref())));
    let wanted = (WARM + 1) * of_each.sum::<usize>();
    let journeys: Result<Vec<_>> =
        routes.into_iter().map(|route| travel(mesh, &stream, route)).collect();
    let mut journeys = journeys?;
    let deadline = Instant::now() + PATIENCE;
    let all = mesh.collector.gather(deadline, |spans| spans.len() >= wanted)?;
    for journey in &mut journeys {
        let its = all.iter().filter(|span| journey.has(span)).cloned().collect();
        journey.rows = trace::join(its);
    }
    let received = all.len();
    let sent = sent(mesh, received, deadline)?;
    Ok((journeys, Counts { requests, wanted, sent, received }))
}

/// How many spans a request leaves that leads to `last`: one of each who is asked and, where netra
/// sees it, one of each call between two of them.
fn spans_of_one(lane: &Lane, last: &Service) -> usize {
    let stores = if let Does::Gather { .. } = last.does { 2 } else { 0 };
    if *lane == Lane::Both { 5 + 2 * stores } else { 3 + stores }
}

fn travel(mesh: &Mesh, stream: &TcpStream, route: Option<String>) -> Result<Journey> {
    let field = route.as_deref().map(|route| (ROUTE, route));
    let request = FRONT.request("front.demo", "client", field.as_slice());
    let (began_us, started) = (now_us(), Instant::now());
    let asked = http1::ask(&mut BufReader::new(stream), &request);
    let (took, during) = (started.elapsed(), began_us..=now_us());
    let answer = asked.map_err(|error| format!("asking {}: {error}", FRONT.name))?;
    // Who is asked last has answered first.
    let mut seen: Vec<Seen> = mesh.seen.try_iter().collect();
    seen.reverse();
    let hops = hops(request, seen);
    let head = hops.first().map_or("", |hop| &hop.received);
    let request_id = http1::field(head, REQUEST_ID).unwrap_or_default().to_owned();
    Ok(Journey { route, request_id, answer, took, during, hops, rows: vec![] })
}

/// Now, as spans have it.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn hops(request: String, seen: Vec<Seen>) -> Vec<Hop> {
    let (mut from, mut asked) = ("client", Some(request));
    let hop = |seen: Seen| {
        let sent = std::mem::replace(&mut asked, seen.sent)?;
        let from = std::mem::replace(&mut from, seen.service);
        Some(Hop { from, to: seen.service, sent, received: seen.received })
    };
    seen.into_iter().map_while(hop).collect()
}

/// What the sidecars have sent, once that is what was received: they count after they send.
fn sent(mesh: &Mesh, received: usize, deadline: Instant) -> Result<f64> {
    loop {
        let mut sum = 0.0;
        for sidecar in &mesh.sidecars {
            sum += sidecar.metrics()?.sum("netra_spans_total", &[("result", "sent")]);
        }
        if sum >= received as f64 || Instant::now() > deadline {
            return Ok(sum);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(sent: &str, received: &str) -> Hop {
        Hop { from: "a", to: "b", sent: sent.into(), received: received.into() }
    }

    #[test]
    fn what_was_added_is_told_from_what_was_changed() {
        let sent = "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\n\r\n";
        assert_eq!(hop(sent, sent).added(), Some(vec![]));
        let more = "GET / HTTP/1.1\r\nHost: h\r\nNew: x\r\nA: 1\r\nLast: y\r\n\r\n";
        assert_eq!(hop(sent, more).added(), Some(vec!["New: x", "Last: y"]));
        for changed in [
            "GET / HTTP/1.1\r\nhost: h\r\nA: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nA: 1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "",
        ] {
            assert_eq!(hop(sent, changed).added(), None, "{changed}");
        }
    }

    #[test]
    fn hops_go_from_sender_to_receiver() {
        let seen = |service, sent: Option<&str>| Seen {
            service,
            received: format!("{service} got"),
            sent: sent.map(str::to_owned),
        };
        let told = vec![seen("front", Some("for shop")), seen("shop", None), seen("lost", None)];
        let hops = hops("for front".into(), told);
        let ways: Vec<_> = hops.iter().map(|hop| (hop.from, hop.to, hop.sent.as_str())).collect();
        assert_eq!(ways, [("client", "front", "for front"), ("front", "shop", "for shop")]);
    }
}
