//! What became of the requests through all services: drawn, and checked.

use super::Result;
use super::check::Check;
use super::http1;
use super::journey::{self, Counts, Hop, Journey, ROUTE};
use super::mesh::{FRONT, Mesh, SHOP};
use super::service::{Does, REQUEST_ID, Service};
use super::stage::Lane;
use super::store::Store;
use super::trace::Row;
use super::waterfall::{self, Paint};
use crate::json::{self, Object};
use std::fmt::Write;

/// Fields that netra may add to a request; nothing else may differ.
const ADDED: [&str; 4] = ["uber-trace-id", REQUEST_ID, ROUTE, "X-Source"];

/// Both requests.
#[derive(Debug)]
pub(super) struct Story {
    lane: Lane,
    journeys: Vec<Journey>,
    pub(super) checks: Vec<Check>,
}

impl Story {
    pub(super) fn new(mesh: &mut Mesh) -> Result<Self> {
        let (journeys, counts) = journey::all(mesh)?;
        let mut checks: Vec<Check> =
            journeys.iter().flat_map(|journey| checks(&mesh.lane, journey)).collect();
        checks.push(all_spans(counts));
        Ok(Self { lane: mesh.lane.clone(), journeys, checks })
    }

    /// For people.
    pub(super) fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        self.put_text(&mut out, paint)
            .unwrap_or_else(|_| unreachable!("a string takes everything"));
        out
    }

    fn put_text(&self, out: &mut String, paint: Paint) -> std::fmt::Result {
        out.push_str(INTRODUCTION);
        if self.lane != Lane::Both {
            out.push_str(INBOUND_ONLY);
        }
        for journey in &self.journeys {
            put_journey(out, journey, paint)?;
        }
        writeln!(out, "\nChecked")?;
        for check in &self.checks {
            writeln!(out, "  {check}")?;
        }
        Ok(())
    }

    /// For programs.
    pub(super) fn put_json(&self, object: &mut Object<'_>) {
        object.raw("requests", &json::list(self.journeys.iter().map(journey_json)));
    }

    /// What it comes to, and how to go on.
    pub(super) fn ending(&self, holds: bool) -> String {
        let spent = self.journeys.iter().map(|journey| {
            format!("{} µs of {}", overhead_us(&journey.rows), journey.took.as_micros())
        });
        let spent = spent.collect::<Vec<_>>().join(", then ");
        let seen = match self.lane {
            _ if !holds => NOT_ALL.to_owned(),
            Lane::Both => format!("{ALL}\n  netra itself, by its own clocks: {spent}."),
            Lane::InboundOnly(_) => {
                format!("{INBOUND_ALL}\n  netra itself, by its own clocks: {spent}.")
            }
        };
        format!("\nWhat you saw\n  {seen}\n\n{GO_ON}")
    }
}

const INTRODUCTION: &str = "
One request, five services, each in a namespace of its own behind a netra of its own

  client ── front ── shop ┬─ stock ┬─ cache (Redis)   each copies X-Request-Id to what it asks, and
                          │        └─ price (Dubbo)   stock uber-trace-id to Dubbo; beyond that none
                          └─ stock-canary             knows of traces or routes
";
const INBOUND_ONLY: &str = "
  Inbound half only, as above: what services ask is not netra's here, so their spans have the
  request id in common, but no trace, and nothing can be routed.
";
const NOT_ALL: &str = "Not everything came together: see the lines with ✗.";
const ALL: &str =
    "A pod whose traffic was intercepted both ways, byte for byte, and what that costs.
  Services that only copy what they were sent, and each request one trace through all of them, Dubbo
  as well as HTTP. Redis has no place for a trace: stock's call is joined to the one request that
  was being served (exclusive), and what cache's own netra says begins a trace of its own.
  X-Route sent the same request to stock-canary; Host and every line that shop wrote stayed.";
const INBOUND_ALL: &str =
    "A pod whose traffic was intercepted inbound, byte for byte, and what that costs.
  A span for each service asked. One trace across them, and routing, need the outbound half: root.";
const GO_ON: &str = "\
To go on: once as root in your pod's network namespace; then as uid 1337, beside your service
  netra-init apply
  NETRA_REPORTER=stdout JAEGER_SAMPLER_TYPE=const JAEGER_SAMPLER_PARAM=1 NETRA_HTTP_PORTS=80 \\
    NETRA_PROTOCOLS=6379=redis,20880=dubbo,9090=thrift netra --service-name shop

The map of who calls whom, with services that have something to be found, in a browser:
  netra demo --open        (make demo DEMO_ARGS=--open)
";

fn put_journey(out: &mut String, journey: &Journey, paint: Paint) -> std::fmt::Result {
    let Journey { route, request_id, answer, took, rows, .. } = journey;
    let with = route.as_ref().map_or_else(String::new, |route| format!("   {ROUTE}: {route}"));
    let (path, status, micros) = (FRONT.path, answer.status, took.as_micros());
    writeln!(out, "\nGET {path}{with}")?;
    writeln!(out, "  {status} in {micros} µs   {}", answer.body)?;
    let trace = rows.first().map_or(0, |row| row.span.trace_id);
    let is_one = rows.iter().all(|row| row.span.trace_id == trace || row.is_apart());
    let trace = if is_one { format!("   trace {trace:016x}") } else { String::new() };
    writeln!(out, "  {REQUEST_ID} {request_id}, by netra{trace}\n")?;
    out.push_str(&waterfall::draw(rows, paint));
    Ok(())
}

fn overhead_us(rows: &[Row]) -> i64 {
    rows.iter().filter_map(|row| row.span.overhead_us()).sum()
}

/// What must hold of one request.
fn checks(lane: &Lane, journey: &Journey) -> Vec<Check> {
    let last = journey.last();
    vec![answered(journey, last), traced(lane, journey, last), untouched(journey, last)]
}

fn answered(journey: &Journey, last: &Service) -> Check {
    let says = last.does.says().unwrap_or_default();
    let wanted = format!("{} < {} < {}: {says}", FRONT.name, SHOP.name, last.name);
    let answer = &journey.answer;
    let holds = answer.status == 200 && answer.body == wanted;
    let what = if holds {
        format!("{} answered", last.name)
    } else {
        format!("{} was to answer, but: {} {}", last.name, answer.status, answer.body)
    };
    Check { what, holds }
}

/// Rows as they must be: one below the other where netra is there when services ask.
fn wanted_rows(lane: &Lane, last: &Service) -> Vec<String> {
    let server = |service: &Service| format!("{} server {}", service.name, service.path);
    let asks = |service: &Service, host, to: &Service| {
        format!("{} client {host}{}", service.name, to.path)
    };
    let (cache, price) = match last.does {
        Does::Gather { left, price } => (Some(left), Some(price)),
        _ => (None, None),
    };
    let of = |who: &str, kind, store: &Store| format!("{who} {kind} {}", store.operation());
    let serves = |store: &Store| of(store.name, "server", store);
    if *lane != Lane::Both {
        let tops = [&FRONT, &SHOP, last].map(server).into_iter();
        let mut rows: Vec<_> = tops.map(|row| format!("0 {row}")).collect();
        rows.extend(price.map(|price| format!("1 {}", serves(price))));
        rows.extend(cache.map(|cache| format!("0 {}", serves(cache))));
        return rows;
    }
    let chain = [
        server(&FRONT),
        asks(&FRONT, "shop.demo", &SHOP),
        server(&SHOP),
        asks(&SHOP, "stock.demo", last),
        server(last),
    ];
    let depth = chain.len();
    let mut rows: Vec<_> =
        chain.iter().enumerate().map(|(depth, row)| format!("{depth} {row}")).collect();
    rows.extend(cache.map(|cache| format!("{depth} {}", of(last.name, "client", cache))));
    // Netra writes its own context into the call: who serves it stands below who asks.
    rows.extend(price.map(|price| format!("{depth} {}", of(last.name, "client", price))));
    rows.extend(price.map(|price| format!("{} {}", depth + 1, serves(price))));
    rows.extend(cache.map(|cache| format!("0 {}", serves(cache))));
    rows
}

fn traced(lane: &Lane, journey: &Journey, last: &Service) -> Check {
    let wanted = wanted_rows(lane, last);
    let line = |row: &Row| {
        let Row { depth, span } = row;
        format!("{depth} {} {} {}", span.service, span.kind(), span.operation)
    };
    let found: Vec<String> = journey.rows.iter().map(line).collect();
    let tops = journey.rows.iter().filter(|row| row.depth == 0);
    let are_roots = tops.clone().all(|row| row.span.parent_id == 0);
    let are_good = journey.rows.iter().all(|row| row.span.is_good());
    let holds = found == wanted && are_roots && are_good;
    let what = match lane {
        _ if !holds => {
            let less = |these: &[String], those: &[String]| {
                let left = these.iter().filter(|row| !those.contains(row)).cloned();
                let left = left.collect::<Vec<_>>().join(", ");
                if left.is_empty() { "nothing".to_owned() } else { left }
            };
            let (missing, odd) = (less(&wanted, &found), less(&found, &wanted));
            format!(
                "spans (depth, service, kind, operation) missing: {missing}; not wanted: {odd}; \
                 tops are roots: {are_roots}; all are good: {are_good}"
            )
        }
        Lane::Both => {
            let redis = journey.rows.iter().filter(|row| row.is_apart()).count();
            let apart = if redis > 0 { ", what cache itself says beside it" } else { "" };
            let joined = found.len() - redis;
            format!("{joined} spans, one trace, each below who asked{apart}")
        }
        Lane::InboundOnly(_) => format!("{} spans with one request id", found.len()),
    };
    Check { what, holds }
}

/// Every line that was sent was received; what is more is netra's.
fn untouched(journey: &Journey, last: &Service) -> Check {
    let is_known = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        ADDED.iter().any(|added| added.eq_ignore_ascii_case(name))
    };
    let is_whole = |hop: &Hop| hop.added().is_some_and(|added| added.iter().all(is_known));
    let changed = journey.hops.iter().find(|hop| !is_whole(hop));
    let hop = journey.hops.iter().find(|hop| hop.to == last.name);
    let (holds, what) = match (changed, hop) {
        (Some(Hop { from, to, sent, received }), _) => {
            (false, format!("{from} sent {sent:?}, but {to} received {received:?}"))
        }
        (None, None) => (false, format!("{} received nothing", last.name)),
        (None, Some(hop)) => {
            let host = http1::field(&hop.received, "Host").unwrap_or_default();
            let what = format!(
                "{} got all that {} sent, Host: {host} too, + {}",
                hop.to,
                hop.from,
                added_names(hop).join(", ")
            );
            (host == "stock.demo", what)
        }
    };
    Check { what, holds }
}

fn added_names(hop: &Hop) -> Vec<&str> {
    let lines = hop.added().unwrap_or_default();
    lines.iter().filter_map(|line| line.split(':').next()).collect()
}

fn all_spans(counts: Counts) -> Check {
    let Counts { requests, wanted, sent, received } = counts;
    Check {
        what: format!(
            "{requests} requests, the first to warm up: netra sent {sent} spans, {received} arrived"
        ),
        holds: received == wanted && sent.to_string() == wanted.to_string(),
    }
}

fn journey_json(journey: &Journey) -> String {
    json::object(|object| {
        if let Some(route) = &journey.route {
            object.text("route", route);
        }
        object.text("request_id", &journey.request_id);
        object.raw("status", &journey.answer.status.to_string());
        object.text("answer", &journey.answer.body);
        object.raw("took_us", &journey.took.as_micros().to_string());
        object.raw("netra_us", &overhead_us(&journey.rows).to_string());
        let hops = journey.hops.iter().map(|hop| {
            json::object(|object| {
                object.text("from", hop.from);
                object.text("to", hop.to);
                object.text("sent", &hop.sent);
                object.text("received", &hop.received);
            })
        });
        object.raw("hops", &json::list(hops));
        object.raw("spans", &json::list(journey.rows.iter().map(row_json)));
    })
}

pub(super) fn row_json(Row { depth, span }: &Row) -> String {
    let number = |value: Option<i64>| value.map_or_else(|| "null".to_owned(), |n| n.to_string());
    json::object(|object| {
        object.raw("depth", &depth.to_string());
        object.text("service", &span.service);
        object.text("kind", span.kind());
        object.text("operation", &span.operation);
        object.raw("status", &number(span.status()));
        object.text("trace_id", &format!("{:032x}", span.trace_id));
        object.text("span_id", &format!("{:016x}", span.span_id));
        object.text("parent_id", &format!("{:016x}", span.parent_id));
        object.raw("start_us", &span.start_us.to_string());
        object.raw("duration_us", &span.duration_us.to_string());
        object.raw("netra_us", &number(span.overhead_us()));
        object.text("join", span.join());
    })
}
