//! What netra shows of itself on `NETRA_PROMETHEUS_PORT`: `/metrics`, `/live` and `/ready`. It runs
//! on the control thread, off the data cores, and is bounded in connections, in time and in memory,
//! because its port faces the network.

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use netra_perf::{Exposition, Format};
use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::AbortHandle,
    time::{sleep, timeout},
};

/// Connections at one time. Beyond it the oldest one is cut, so that clients that only sit there
/// can never keep a probe out.
const CONNECTIONS_MAX: usize = 64;
/// How long a request head may take; also how long a connection may idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live at all, for clients that do not read what they asked for.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// hyper's floor; a request head larger than this is refused with 431.
const HEAD_BYTES_MAX: usize = 8192;
/// How long to wait when a connection cannot be accepted, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// What the endpoint tells; shared by its connections and the control thread.
#[derive(Debug)]
pub(crate) struct Pages {
    exposition: Exposition,
    ready: AtomicBool,
}

impl Pages {
    /// Ready from the start: they are made when every shard listens.
    pub(crate) fn new(exposition: Exposition) -> Self {
        Self { exposition, ready: AtomicBool::new(true) }
    }

    /// From now on `/ready` says no, and whoever balances load looks elsewhere.
    pub(crate) fn set_draining(&self) {
        self.ready.store(false, Relaxed);
    }

    fn page(&self, method: &Method, path: &str, accept: Option<&str>) -> Response<String> {
        if !["/metrics", "/live", "/ready"].contains(&path) {
            return plain(StatusCode::NOT_FOUND, "not found; there are /metrics, /live, /ready\n");
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => {
                let format = Format::accepted(accept);
                let mut response = Response::new(self.exposition.render(format));
                let kind = HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/ready" if !self.ready.load(Relaxed) => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            "/ready" => plain(StatusCode::OK, "ready\n"),
            _ => plain(StatusCode::OK, "live\n"),
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Serves one listener for as long as the runtime lives.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<Pages>) -> io::Result<()> {
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
        let connection = tokio::spawn(timeout(LIFE_MAX, answer(stream, Arc::clone(&pages))));
        open.push_back(connection.abort_handle());
    }
}

/// Answers the requests of one connection, in order.
async fn answer(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(|request: Request<Incoming>| {
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
        let response = pages.page(request.method(), request.uri().path(), accept);
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "metrics connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_perf::{About, Recorder};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pages() -> Arc<Pages> {
        let about = About {
            version: "0",
            driver: "epoll",
            drivers: &["epoll"],
            started: std::time::SystemTime::now(),
            counters: &[],
            exemplars: &crate::export::EXEMPLARS,
        };
        Arc::new(Pages::new(Exposition::new(vec![Arc::new(Recorder::default())], about)))
    }

    #[test]
    fn pages_by_path_and_method() {
        let pages = pages();
        let status = |method, path| pages.page(&method, path, None).status().as_u16();
        assert_eq!(status(Method::GET, "/live"), 200);
        assert_eq!(status(Method::HEAD, "/ready"), 200);
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/"), 404);
        assert_eq!(status(Method::POST, "/nothing"), 404);
        assert_eq!(status(Method::POST, "/metrics"), 405);
        pages.set_draining();
        assert_eq!(status(Method::GET, "/ready"), 503);
        assert_eq!(status(Method::GET, "/live"), 200);
        let open = pages.page(&Method::GET, "/metrics", Some("application/openmetrics-text"));
        assert!(open.body().ends_with("# EOF\n"));
        assert!(open.headers()[CONTENT_TYPE].to_str().unwrap().contains("openmetrics"));
        let refused = pages.page(&Method::PUT, "/live", None);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }

    async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[test]
    fn silent_clients_cannot_keep_a_probe_out() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(serve(listener, pages()));
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS_MAX * 2 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /").await.unwrap();
                silent.push(stream);
            }
            let answer = get(address, "/ready").await.unwrap();
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
