//! A small HTTP server for what netra shows of itself: `/metrics` and probes on one port, profiles
//! and admin on another. It runs on the control thread, off the data cores, and is bounded in
//! connections, in time and in memory, because ports face others.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{ACCEPT, HOST, HeaderName, HeaderValue, ORIGIN},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::AbortHandle,
    time::{sleep, timeout},
};

pub(crate) use hyper::{Method, StatusCode};

/// Connections at one time. Beyond it the oldest one is cut, so that clients that only sit there
/// can never keep a probe out.
const CONNECTIONS_MAX: usize = 64;
/// How long a request head may take; also how long a connection may idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// hyper's floor; a request head larger than this is refused with 431.
const HEAD_BYTES_MAX: usize = 8192;
/// What the body of a request may weigh.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long to wait when a connection cannot be accepted, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request, as far as any page cares.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) accept: Option<String>,
    /// It comes from a page that another host served.
    pub(crate) is_foreign: bool,
    pub(crate) body: Vec<u8>,
}

impl Ask {
    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }
}

/// What is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(crate) fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: StatusCode::OK, kind, body: body.into(), headers: Vec::new() }
    }

    /// A line of text for people.
    pub(crate) fn plain(status: StatusCode, text: &str) -> Self {
        Self { status, ..Self::ok("text/plain; charset=utf-8", text) }
    }

    /// Another method is needed.
    pub(crate) fn only(methods: &'static str) -> Self {
        let text = format!("only {methods}\n");
        Self::plain(StatusCode::METHOD_NOT_ALLOWED, &text).with("allow", methods)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Pages that a server shows.
pub(crate) trait Site: Send + Sync + 'static {
    /// How long a connection may live at all, for clients that do not read what they asked for.
    const LIFE_MAX: Duration;

    fn answer(&self, ask: Ask) -> impl Future<Output = Answer> + Send;
}

/// Listens on all addresses: one dual-stack socket where the host allows it, else one for each
/// family it has.
pub(crate) fn bind(port: u16) -> io::Result<Vec<TcpListener>> {
    let v6 = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let v4 = || TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let listeners = match v6 {
        // With net.ipv6.bindv6only=1 this second one succeeds, and is needed; else the first one
        // has the port for both families and it fails.
        Ok(v6) => std::iter::once(v6).chain(v4().ok()).collect(),
        // No IPv6 here (ipv6.disable=1 gives EAFNOSUPPORT, disable_ipv6=1 EADDRNOTAVAIL).
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => vec![v4()?],
        Err(error) => return Err(error),
    };
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

/// Listens on one address.
pub(crate) fn bind_at(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((address, port)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves one listener for as long as the runtime lives.
pub(crate) async fn serve<S: Site>(listener: TcpListener, site: Arc<S>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(timeout(S::LIFE_MAX, answer(stream, Arc::clone(&site))));
        open.push_back(connection.abort_handle());
    }
}

/// Answers the requests of one connection, in order.
async fn answer<S: Site>(stream: TcpStream, site: Arc<S>) {
    let service = service_fn(|request: Request<Incoming>| {
        let site = Arc::clone(&site);
        async move {
            let answer = match read(request).await {
                Ok(ask) => site.answer(ask).await,
                Err(refused) => refused,
            };
            Ok::<_, Infallible>(response(answer))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "connection to the endpoint ended");
    }
}

async fn read(request: Request<Incoming>) -> Result<Ask, Answer> {
    let (head, body) = request.into_parts();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let own = text(HOST).map(|host| format!("http://{host}"));
    let ask = Ask {
        is_foreign: text(ORIGIN).is_some_and(|origin| own.as_deref() != Some(origin)),
        accept: text(ACCEPT).map(str::to_owned),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        method: head.method,
        body: Vec::new(),
    };
    if ask.method != Method::POST {
        return Ok(ask);
    }
    match timeout(HEAD_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(Ask { body: body.to_bytes().to_vec(), ..ask }),
        _ => Err(Answer::plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or slow\n")),
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = [("content-type", answer.kind.to_owned())].into_iter().chain(answer.headers);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Ready;

    impl Site for Ready {
        const LIFE_MAX: Duration = Duration::from_secs(120);

        async fn answer(&self, ask: Ask) -> Answer {
            let parts = [ask.path.as_str(), ask.parameter("b").unwrap_or("-")];
            let foreign = if ask.is_foreign { "foreign" } else { "own" };
            let body = String::from_utf8_lossy(&ask.body).into_owned();
            let text = format!("{} {} {foreign} {body}", parts[0], parts[1]);
            Answer::plain(StatusCode::OK, &text).with("x-test", "1")
        }
    }

    async fn exchange(address: SocketAddr, request: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    fn serving(work: impl AsyncFnOnce(SocketAddr)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = bind_at(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(serve(listener, Arc::new(Ready)));
            work(address).await;
        });
    }

    #[test]
    fn a_request_is_told_whole() {
        serving(async |address| {
            let ends = "Host: a\r\nConnection: close\r\n";
            let get = format!("GET /x?a=1&b=2 HTTP/1.1\r\n{ends}\r\n");
            let answer = exchange(address, &get).await.unwrap();
            assert!(answer.contains("x-test: 1\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\n/x 2 own "), "{answer}");
            for (origin, word) in [("http://a", "own"), ("http://evil", "foreign")] {
                let post = format!(
                    "POST / HTTP/1.1\r\nOrigin: {origin}\r\nContent-Length: 3\r\n{ends}\r\nabc"
                );
                let answer = exchange(address, &post).await.unwrap();
                assert!(answer.ends_with(&format!("/ - {word} abc")), "{answer}");
            }
            let long = BODY_BYTES_MAX + 1;
            let post = format!("POST / HTTP/1.1\r\nContent-Length: {long}\r\n{ends}\r\nabc");
            let answer = exchange(address, &post).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        });
    }

    #[test]
    fn silent_clients_cannot_keep_a_probe_out() {
        serving(async |address| {
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS_MAX * 2 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /").await.unwrap();
                silent.push(stream);
            }
            let get = "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let answer = exchange(address, get).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            // The first ones have been cut for the later ones.
            assert!(matches!(silent[0].read(&mut [0; 1]).await, Ok(0) | Err(_)));
        });
    }

    #[test]
    fn both_families_are_served_and_a_taken_port_is_an_error() {
        let port = bind(0).unwrap()[0].local_addr().unwrap().port();
        let listeners = bind(port).unwrap();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(bind(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
    }
}
