//! The door: rules by long poll, pages, probes, metrics and the admission webhook, over HTTP/1.1, with
//! TLS or without.

use crate::{
    admission,
    office::Office,
    page,
    scope::reasons,
    shelf::Item,
    tokens::{Right, bearer},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;

/// Connections at once; those beyond wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
/// A request's head, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a head may take to come, and a TLS handshake.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// An object for the webhook, in bytes: the API server's own limit is 3 MB.
const OBJECT_BYTES_MAX: usize = 4 << 20;
/// The longest that a question waits for a change, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

type Answer = Response<Full<Bytes>>;

/// Accepts for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<crate::tls::Tls>,
    office: Arc<Office>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, from)) = listener.accept().await else {
            // Out of descriptors, or a caller that has gone: neither is a reason to end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (office, acceptor) = (office.clone(), tls.as_ref().map(crate::tls::Tls::acceptor));
        let _ = stream.set_nodelay(true);
        // Two kinds of task: one that may be either is as large as the larger, ten thousand times.
        match acceptor {
            None => drop(tokio::spawn(async move {
                let _place = place;
                converse(stream, from, office).await;
            })),
            Some(acceptor) => drop(tokio::spawn(async move {
                let _place = place;
                greet(stream, from, office, acceptor).await;
            })),
        }
    }
}

async fn greet(
    stream: tokio::net::TcpStream,
    from: SocketAddr,
    office: Arc<Office>,
    tls: TlsAcceptor,
) {
    let by = Instant::now() + HEAD_TIME;
    if let Ok(Ok(stream)) = timeout_at(by, tls.accept(stream)).await {
        converse(stream, from, office).await;
    }
}

async fn converse<S>(stream: S, from: SocketAddr, office: Arc<Office>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| answer(office.clone(), request, from));
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// An answer on its way. Each has the size of what it waits for, and most wait for a change.
type Coming = Pin<Box<dyn Future<Output = io::Result<Answer>> + Send>>;

fn answer(office: Arc<Office>, request: Request<Incoming>, from: SocketAddr) -> Coming {
    if request.method() == Method::GET && request.uri().path() == "/v1/rules" {
        // The request goes here, and with it the buffer that it was read into.
        return match Question::of(&request) {
            Some(question) => Box::pin(async move { Ok(rules(&office, question).await) }),
            None => {
                let answer = text(StatusCode::BAD_REQUEST, "?namespace= is missing\n");
                Box::pin(std::future::ready(Ok(answer)))
            }
        };
    }
    Box::pin(async move { Ok(other(&office, request, from).await) })
}

/// What people, probes and the API server ask for.
async fn other(office: &Office, request: Request<Incoming>, from: SocketAddr) -> Answer {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/live") => text(StatusCode::OK, "live\n"),
        (&Method::GET, "/ready") => match office.world.borrow().generation {
            0 => text(StatusCode::SERVICE_UNAVAILABLE, "the source has not told anything yet\n"),
            _ => text(StatusCode::OK, "ready\n"),
        },
        (&Method::GET, "/metrics") => text(StatusCode::OK, page::metrics(office)),
        (&Method::GET, "/v1/explain") => explain(office, &request, from).await,
        (&Method::GET, "/") => match may_look(office, &request, from).await {
            true => html(page::html(office)),
            false => refuse(
                office,
                StatusCode::FORBIDDEN,
                "the page is for a token of `*`, or for this host\n",
            ),
        },
        (&Method::POST, "/validate") => validate(office, request).await,
        (_, "/v1/rules" | "/live" | "/ready" | "/metrics" | "/v1/explain" | "/" | "/validate") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "not by this method\n")
        }
        _ => text(StatusCode::NOT_FOUND, "nothing is here\n"),
    }
}

/// What a sidecar asks.
struct Question {
    namespace: String,
    pod: String,
    token: Option<String>,
    /// Of what it has.
    tag: String,
    trouble: String,
    wait: Duration,
    is_packed: bool,
}

impl Question {
    /// None when it does not say whose rules it asks for.
    fn of(request: &Request<Incoming>) -> Option<Self> {
        let mut asked = query(request);
        let mut take = |name: &str| asked.remove(name).unwrap_or_default();
        let headers = request.headers();
        let has = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or("");
        let question = Self {
            namespace: take("namespace"),
            pod: take("pod"),
            token: bearer(headers.get(header::AUTHORIZATION)).map(str::to_owned),
            tag: has("if-none-match").to_owned(),
            trouble: has("netra-trouble").to_owned(),
            wait: take("wait").parse().map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX),
            is_packed: has("accept-encoding").contains("gzip"),
        };
        (!question.namespace.is_empty()).then_some(question)
    }
}

/// What a sidecar runs by: at once when it has something else, else when that changes.
async fn rules(office: &Office, question: Question) -> Answer {
    let Question { namespace, pod, token, tag, trouble, wait, is_packed } = question;
    match office.judge.right(token.as_deref()).await {
        None => return refuse(office, StatusCode::UNAUTHORIZED, "no such token\n"),
        Some(right) if !right.covers(&namespace) => {
            return refuse(office, StatusCode::FORBIDDEN, "the token is of another namespace\n");
        }
        Some(_) => {}
    }
    office.fleet.hear(&namespace, &pod, &tag, &trouble);
    // What is left while it waits is the tag.
    let items = office.shelf.ask(&namespace);
    drop((namespace, pod, token, trouble));
    match changed(items, &tag, wait).await {
        Some(item) => {
            office.counts.fresh.fetch_add(1, Relaxed);
            handed_out(&item, is_packed)
        }
        None => {
            office.counts.unchanged.fetch_add(1, Relaxed);
            let mut answer = text(StatusCode::NOT_MODIFIED, "");
            if let Ok(tag) = HeaderValue::from_str(&tag) {
                answer.headers_mut().insert(header::ETAG, tag);
            }
            answer
        }
    }
}

/// Waits until the namespace gets something that has another tag; None when the time is over.
async fn changed(
    mut items: watch::Receiver<Arc<Item>>,
    tag: &str,
    wait: Duration,
) -> Option<Arc<Item>> {
    let until = Instant::now() + wait;
    loop {
        let item = items.borrow_and_update().clone();
        if !item.tag.is_empty() && item.tag != tag {
            return Some(item);
        }
        match timeout_at(until, items.changed()).await {
            Ok(Ok(())) => {}
            // Of one namespace too many: it asks again.
            Ok(Err(_)) => tokio::time::sleep_until(until).await,
            Err(_) => return None,
        }
    }
}

fn handed_out(item: &Item, is_packed: bool) -> Answer {
    let mut answer = Response::new(item.body(is_packed));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(tag) = HeaderValue::from_str(&item.tag) {
        headers.insert(header::ETAG, tag);
    }
    answer
}

/// What a namespace gets and does not get, with the reasons.
async fn explain(office: &Office, request: &Request<Incoming>, from: SocketAddr) -> Answer {
    let asked = query(request);
    let Some(namespace) = asked.get("namespace") else {
        return text(StatusCode::BAD_REQUEST, "?namespace= is missing\n");
    };
    let token = bearer(request.headers().get(header::AUTHORIZATION));
    let is_own = office.judge.right(token).await.is_some_and(|right| right.covers(namespace));
    if !is_own && !may_look(office, request, from).await {
        return refuse(office, StatusCode::FORBIDDEN, "not for this token\n");
    }
    let world = office.world.borrow().clone();
    let item = office.shelf.ask(namespace).borrow().clone();
    let reasons = reasons(&world, namespace, &office.names);
    text(StatusCode::OK, page::explanation(namespace, &item, &reasons))
}

/// Whether everything may be looked at: by a token for everything, or from this host.
async fn may_look(office: &Office, request: &Request<Incoming>, from: SocketAddr) -> bool {
    if from.ip().to_canonical().is_loopback() {
        return true;
    }
    let token = bearer(request.headers().get(header::AUTHORIZATION));
    office.judge.right(token).await == Some(Right::Everything)
}

async fn validate(office: &Office, request: Request<Incoming>) -> Answer {
    let body = Limited::new(request.into_body(), OBJECT_BYTES_MAX).collect().await;
    let Ok(body) = body else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the object is larger than 4 MiB\n");
    };
    let world = office.world.borrow().clone();
    match admission::review(&body.to_bytes(), &world, &office.names) {
        Ok((answer, is_good)) => {
            let counts = &office.counts;
            let count = if is_good { &counts.admitted } else { &counts.not_admitted };
            count.fetch_add(1, Relaxed);
            json(answer)
        }
        Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn query(request: &Request<Incoming>) -> HashMap<String, String> {
    let text = request.uri().query().unwrap_or_default();
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    let read =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    pairs.map(|(name, value)| (read(name), read(value))).collect()
}

fn refuse(office: &Office, status: StatusCode, why: &'static str) -> Answer {
    office.counts.refused.fetch_add(1, Relaxed);
    text(status, why)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    of_type(status, body, "text/plain; charset=utf-8")
}

fn html(body: String) -> Answer {
    let mut answer = of_type(StatusCode::OK, body, "text/html; charset=utf-8");
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

fn json(body: String) -> Answer {
    of_type(StatusCode::OK, body, "application/json")
}

fn of_type(status: StatusCode, body: impl Into<Bytes>, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
