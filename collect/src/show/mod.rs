//! What is shown: the page, its API, as much of Jaeger's query API as Grafana's data source needs,
//! `/metrics`. Everything here only reads.

mod metrics;
mod query;
mod traces;

use crate::books::Books;
use crate::keeper::Keeper;
use crate::map;
use crate::names::{Names, Sort, shape};
use crate::reply::Reply;
use crate::slots::open_ended;
use crate::store::Snapshot;
use crate::store::search::Query;
use crate::trace::Trace;
use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode, header::HOST};
use query::{Parameters, trace_id};
use serde_json::{Value as Json, json};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
    sync::Arc,
};
use tokio::sync::Semaphore;

/// The page, whole: nothing of it is made by a build.
const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

/// Searches that run at the same time; others wait.
const SEARCHES_MAX: usize = 2;
/// Spans of an answer to a search, in Jaeger's form.
const ANSWER_SPANS_MAX: usize = 50_000;
const OPERATIONS_MAX: usize = 2000;

/// The page and its API.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    keeper: Keeper,
    searches: Arc<Semaphore>,
    /// Only who calls by an address is answered: it cannot be another page's script.
    is_local: bool,
}

/// Why there is no answer.
#[derive(Debug)]
enum Refused {
    /// What is asked for makes no sense.
    Asked(&'static str),
    NotHere,
    /// The books are closed.
    Ended,
}

type Answer = Result<Reply, Refused>;

impl Site {
    pub(crate) fn new(keeper: Keeper, is_local: bool) -> Self {
        Self { keeper, searches: Arc::new(Semaphore::new(SEARCHES_MAX)), is_local }
    }

    /// Answers a request.
    pub(crate) async fn answer(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Reply {
        if method != Method::GET && method != Method::HEAD {
            return Reply::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n").with("allow", "GET");
        }
        if self.is_foreign(headers) {
            return Reply::text(StatusCode::FORBIDDEN, "this is not for pages of other hosts\n");
        }
        let reply = match self.show(path, &Parameters::of(query)).await {
            Ok(reply) => reply,
            Err(Refused::Asked(why)) => {
                let body = json!({
                    "data": null,
                    "errors": [{"code": 400, "msg": why}],
                });
                json_reply(StatusCode::BAD_REQUEST, &body)
            }
            Err(Refused::NotHere) => {
                let body = json!({
                    "data": null,
                    "errors": [{"code": 404, "msg": "not here, or not any more"}],
                });
                json_reply(StatusCode::NOT_FOUND, &body)
            }
            Err(Refused::Ended) => Reply::text(StatusCode::SERVICE_UNAVAILABLE, "it is ending\n"),
        };
        guarded(reply)
    }

    /// A page of another host that asks behind its reader's back.
    fn is_foreign(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_cross = matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"))
            && text("sec-fetch-dest") != Some("document");
        let host = text(HOST.as_str());
        is_cross || self.is_local && host.is_some_and(|host| !is_address(host))
    }

    async fn show(&self, path: &str, parameters: &Parameters) -> Answer {
        match path {
            "/" | "/index.html" => Ok(fixed("text/html; charset=utf-8", PAGE)),
            "/page.js" => Ok(fixed("text/javascript; charset=utf-8", SCRIPT)),
            "/page.css" => Ok(fixed("text/css; charset=utf-8", STYLE)),
            "/healthz" => Ok(fixed("text/plain; charset=utf-8", "ok\n")),
            "/metrics" => self.metrics().await,
            "/api/services" => self.services().await,
            "/api/operations" => self.operations(parameters, true).await,
            "/api/traces" => self.search_jaeger(parameters).await,
            "/api/dependencies" => self.dependencies(parameters).await,
            "/api/netra/map" => self.map(parameters).await,
            "/api/netra/map.txt" => self.map_text(parameters).await,
            "/api/netra/operations" => self.figures(parameters).await,
            "/api/netra/search" => self.search(parameters).await,
            "/api/netra/sidecars" => self.sidecars().await,
            "/api/netra/state" => self.state().await,
            "/api/netra/course" => self.course(parameters).await,
            _ => self.show_one(path).await,
        }
    }

    async fn show_one(&self, path: &str) -> Answer {
        if let Some(rest) = path.strip_prefix("/api/netra/trace/") {
            return match rest.strip_suffix("/otlp") {
                Some(id) => Ok(ok(&traces::otlp(&self.trace(id).await?))),
                None => Ok(ok(&traces::page(&self.trace(rest).await?))),
            };
        }
        if let Some(id) = path.strip_prefix("/api/traces/") {
            let trace = self.trace(id).await?;
            return Ok(ok(&data(json!([traces::jaeger(&trace)]), 1)));
        }
        let service = path.strip_prefix("/api/services/");
        let service = service.and_then(|rest| rest.strip_suffix("/operations"));
        let service = service.ok_or(Refused::NotHere)?;
        self.operations(&Parameters::of(&format!("service={service}")), false).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Books, u64) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.keeper.ask(question).await.ok_or(Refused::Ended)
    }

    async fn metrics(&self) -> Answer {
        let losses = Arc::clone(&self.keeper.losses);
        let budget = self.keeper.budget;
        let text = self.ask(move |books, _| metrics::text(books, &losses, budget)).await?;
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        Ok(Reply::of(StatusCode::OK, kind, text.into()))
    }

    async fn services(&self) -> Answer {
        let mut names = self.ask(|books, _| service_names(&books.names)).await?;
        names.sort();
        let total = names.len();
        Ok(ok(&data(json!(names), total)))
    }

    /// Names only, or names with kinds.
    async fn operations(&self, parameters: &Parameters, with_kinds: bool) -> Answer {
        let service = parameters.get("service").ok_or(Refused::Asked("which service?"))?.to_owned();
        let kind = parameters.get("spanKind").map(str::to_owned);
        let mut found = self
            .ask(move |books, _| {
                let names = &books.names;
                let Some(node) = names.service(&service) else { return Vec::new() };
                let ops = names.ops.iter().filter(|op| op.node == node);
                let ops =
                    ops.filter(|op| kind.as_deref().is_none_or(|kind| kind == op.kind.name()));
                ops.map(|op| (op.name.to_string(), op.kind.name())).collect()
            })
            .await?;
        found.sort();
        let list: Vec<Json> = if with_kinds {
            let one = |(name, kind)| json!({"name": name, "spanKind": kind});
            found.into_iter().map(one).collect()
        } else {
            found.dedup_by(|a, b| a.0 == b.0);
            found.into_iter().map(|(name, _)| json!(name)).collect()
        };
        let total = list.len();
        Ok(ok(&data(Json::Array(list), total)))
    }

    async fn dependencies(&self, parameters: &Parameters) -> Answer {
        let lookback = parameters.number("lookback").unwrap_or(86_400_000) / 1000;
        let end_ms = parameters.number("endTs");
        let links = self
            .ask(move |books, now_ns| {
                let now_s = now_ns / 1_000_000_000;
                let until = end_ms.map_or(now_s + 1, |end_ms| end_ms / 1000 + 1);
                let from = until.saturating_sub(lookback);
                let until = open_ended(until, now_s);
                let map = map::map(books, &(from..until), now_s);
                dependencies(&map)
            })
            .await?;
        let total = links.len();
        Ok(ok(&data(Json::Array(links), total)))
    }

    async fn map(&self, parameters: &Parameters) -> Answer {
        let now_s = now_s();
        let window = parameters.window(["from", "until"], now_s);
        let base = parameters
            .number("base_until")
            .map(|_| parameters.window(["base_from", "base_until"], now_s));
        let maps = self
            .ask(move |books, now_ns| {
                let now_s = now_ns / 1_000_000_000;
                let base = base.map(|base| map::map(books, &base, now_s));
                (map::map(books, &window, now_s), base)
            })
            .await?;
        Ok(ok(&json!({"map": maps.0, "base": maps.1})))
    }

    async fn map_text(&self, parameters: &Parameters) -> Answer {
        let window = parameters.window(["from", "until"], now_s());
        let question =
            move |books: &mut Books, now_ns: u64| map::map(books, &window, now_ns / 1_000_000_000);
        let text = map::text(&self.ask(question).await?);
        Ok(Reply::of(StatusCode::OK, "text/plain; charset=utf-8", text.into()))
    }

    async fn figures(&self, parameters: &Parameters) -> Answer {
        let window = parameters.window(["from", "until"], now_s());
        let service = parameters.get("service").map(str::to_owned);
        let operations = self
            .ask(move |books, now_ns| {
                let now_s = now_ns / 1_000_000_000;
                map::operations(books, service.as_deref(), &window, now_s, OPERATIONS_MAX)
            })
            .await?;
        Ok(ok(&json!({"operations": operations})))
    }

    async fn course(&self, parameters: &Parameters) -> Answer {
        let window: Range<u64> = parameters.window(["from", "until"], now_s());
        let service = parameters.get("service").map(str::to_owned);
        let course = self
            .ask(move |books, _| {
                let names = &books.names;
                let node = service.as_deref().and_then(|service| names.service(service));
                books.slots.course(&window, |op| {
                    let op = &names.ops[op as usize];
                    op.kind.answers() && node.is_none_or(|node| op.node == node)
                })
            })
            .await?;
        Ok(ok(&json!({"course": course})))
    }

    async fn sidecars(&self) -> Answer {
        let list = self
            .ask(|books, now_ns| {
                let one = |reporter: &crate::reporters::Reporter| {
                    json!({
                        "service": reporter.service,
                        "version": reporter.tag(&["jaeger.version", "telemetry.sdk.version"]),
                        "client": reporter.tag(&["telemetry.sdk.name"]),
                        "host": reporter.tag(&["host.name", "hostname"]),
                        "ip": reporter.tag(&["ip", "host.ip", "k8s.pod.ip"]),
                        "series": reporter.series,
                        "tags": reporter.tags,
                        "spans": reporter.spans,
                        "errors": reporter.errors,
                        "since_s": now_ns.saturating_sub(reporter.first_ns) / 1_000_000_000,
                        "silent_s": now_ns.saturating_sub(reporter.last_ns) / 1_000_000_000,
                    })
                };
                books.reporters.all.values().map(one).collect::<Vec<_>>()
            })
            .await?;
        Ok(ok(&json!({"sidecars": list})))
    }

    async fn state(&self) -> Answer {
        let budget = self.keeper.budget;
        let state = self
            .ask(move |books, now_ns| {
                let (here, kept) = books.store.counts();
                let evictions = books.store.evictions;
                json!({
                    "version": env!("CARGO_PKG_VERSION"),
                    "now_s": now_ns / 1_000_000_000,
                    "spans": books.counts.spans,
                    "errors": books.counts.errors,
                    "duplicates": books.counts.duplicates,
                    "cut": books.counts.cut,
                    "here": here,
                    "kept": kept,
                    "evicted": evictions.ordinary + evictions.telling,
                    "bytes": books.bytes(),
                    "budget": budget,
                    "overflows": books.names.overflows,
                    "since_s": books.slots.since_s(),
                })
            })
            .await?;
        Ok(ok(&state))
    }

    async fn snapshot(&self) -> Result<Snapshot, Refused> {
        self.ask(|books, _| books.store.snapshot()).await
    }

    /// Work on a snapshot, which is nothing for a thread that others wait for.
    async fn search_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let turn = Arc::clone(&self.searches).acquire_owned().await;
        let turn = turn.map_err(|_| Refused::Ended)?;
        let snapshot = self.snapshot().await?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&snapshot);
            drop(turn);
            done
        });
        done.await.map_err(|_| Refused::Ended)
    }

    async fn trace(&self, id: &str) -> Result<Trace, Refused> {
        let id = trace_id(id).ok_or(Refused::Asked("a trace id is up to 32 hex digits"))?;
        self.search_with(move |snapshot| {
            // One of 64 bits may be the end of a longer one.
            let low = u64::try_from(id).ok();
            let ids = low.map_or(vec![id], |low| snapshot.traces_ending(low));
            let id = if ids.contains(&id) { id } else { *ids.first()? };
            let spans = snapshot.spans(&[id]).remove(&id)?;
            Some(Trace::new(id, spans))
        })
        .await?
        .ok_or(Refused::NotHere)
    }

    /// A query with the numbers of its operations.
    async fn query(&self, parameters: &Parameters) -> Result<Query, Refused> {
        let mut query = parameters.search().map_err(Refused::Asked)?;
        if let Some((name, _)) = query.operation.clone() {
            let service = query.service.clone();
            let ops = self
                .ask(move |books, _| {
                    let names = &books.names;
                    let node = service.and_then(|service| names.service(&service));
                    let shaped = shape(&name);
                    let is_it = |op: &crate::names::Op| {
                        *op.name == *shaped && node.is_none_or(|node| op.node == node)
                    };
                    let all = names.ops.iter().zip(0u32..);
                    all.filter(|(op, _)| is_it(op)).map(|(_, id)| id).take(1000).collect()
                })
                .await?;
            let (name, _) = query.operation.take().unwrap_or_default();
            query.operation = Some((name, ops));
        }
        query.flags = match parameters.get("status") {
            Some("slow") => crate::store::flag::SLOW,
            Some("rare") => crate::store::flag::RARE,
            _ => 0,
        };
        Ok(query)
    }

    async fn search_jaeger(&self, parameters: &Parameters) -> Answer {
        let ids: Vec<u128> = parameters.all("traceID").filter_map(trace_id).take(100).collect();
        let query = self.query(parameters).await?;
        let found = self
            .search_with(move |snapshot| {
                let ids = if ids.is_empty() { snapshot.search(&query) } else { ids };
                let mut left = ANSWER_SPANS_MAX;
                let traces = whole(snapshot, &ids).into_iter().take_while(|trace| {
                    let fits = trace.spans.len() <= left;
                    left = left.saturating_sub(trace.spans.len());
                    fits
                });
                traces.map(|trace| traces::jaeger(&trace)).collect::<Vec<_>>()
            })
            .await?;
        let total = found.len();
        Ok(ok(&data(Json::Array(found), total)))
    }

    async fn search(&self, parameters: &Parameters) -> Answer {
        let query = self.query(parameters).await?;
        let found = self
            .search_with(move |snapshot| {
                let begun = std::time::Instant::now();
                let ids = snapshot.search(&query);
                let traces = whole(snapshot, &ids);
                let list: Vec<_> = traces.iter().map(traces::summary).collect();
                let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                json!({"traces": list, "took_us": took_us})
            })
            .await?;
        Ok(ok(&found))
    }
}

fn whole(snapshot: &Snapshot, ids: &[u128]) -> Vec<Trace> {
    let mut spans = snapshot.spans(ids);
    ids.iter().filter_map(|id| Some(Trace::new(*id, spans.remove(id)?))).collect()
}

fn service_names(names: &Names) -> Vec<String> {
    let services = names.nodes.iter().filter(|node| node.sort == Sort::Service);
    services.map(|node| node.name.to_string()).collect()
}

/// Edges as Jaeger has them: one for each pair, of services and of what they ask.
fn dependencies(map: &map::MapView) -> Vec<Json> {
    let node = |id| map.nodes.iter().find(|node| node.id == id);
    let mut pairs: std::collections::BTreeMap<(&str, &str), u64> = Default::default();
    for edge in &map.edges {
        let (Some(from), Some(to)) = (node(edge.from), node(edge.to)) else { continue };
        if from.sort != Sort::Outside.name() {
            *pairs.entry((&from.name, &to.name)).or_default() += edge.figures.count;
        }
    }
    let links = pairs.into_iter().map(
        |((parent, child), count)| json!({"parent": parent, "child": child, "callCount": count}),
    );
    links.collect()
}

fn now_s() -> u64 {
    crate::keeper::now_ns() / 1_000_000_000
}

fn data(data: Json, total: usize) -> Json {
    json!({"data": data, "total": total, "limit": 0, "offset": 0, "errors": null})
}

fn ok(body: &Json) -> Reply {
    json_reply(StatusCode::OK, body)
}

fn json_reply(status: StatusCode, body: &Json) -> Reply {
    Reply::of(status, "application/json", Bytes::from(body.to_string()))
}

fn fixed(kind: &'static str, text: &'static str) -> Reply {
    Reply::of(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()))
}

/// What a browser may make of it: nothing but what came from here, shown as what it is.
fn guarded(reply: Reply) -> Reply {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
        img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    reply
        .with("content-security-policy", policy)
        .with("x-content-type-options", "nosniff")
        .with("referrer-policy", "no-referrer")
        .with("cache-control", "no-store")
}

/// Whether a Host is an address or localhost, with a port or without.
fn is_address(host: &str) -> bool {
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_port = port.is_empty() || port.starts_with(':');
        return is_port && address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.split(':').next().unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

/// Whether only this machine gets to an address.
pub(crate) fn is_own(address: IpAddr) -> bool {
    address.is_loopback()
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
