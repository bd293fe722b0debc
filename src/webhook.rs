//! `netra webhook`: `netra inject` as the API server asks for it, for every pod of the namespaces with a
//! label. A program of its own with a runtime of its own: nothing of it is there in a sidecar. What
//! it cannot do it lets pass: a pod without a sidecar is better than no pod.

mod review;
mod tls;

use crate::{exit::Exit, inject::Wanted, mask};
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tls::Certificate;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// Answer the API server's admission reviews: put the sidecar into new pods
#[derive(Clone, Debug, Args)]
pub(crate) struct WebhookArgs {
    /// The port to listen on, for HTTPS
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    port: u16,
    /// The certificate chain, PEM; it and the key are read again when they change
    #[arg(long, value_name = "FILE", default_value = "/tls/tls.crt")]
    cert: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", default_value = "/tls/tls.key")]
    key: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
}

/// An object of etcd is 1.5 MiB at most, and a review may have two of them.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Connections at a time; the API server keeps a few.
const CONNECTIONS_MAX: usize = 64;
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request's head, and its body, may take to come.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection lives: the API server makes another.
const CONNECTION_TIME: Duration = Duration::from_secs(600);

pub(crate) fn run(args: &WebhookArgs) -> Exit {
    let certificate = match Certificate::read(&args.cert, &args.key) {
        Ok(certificate) => certificate,
        Err(error) => {
            eprintln!("netra webhook: {}", mask::line(&error));
            return Exit::CONFIG;
        }
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("netra webhook: {error}");
            return Exit::OS;
        }
    };
    runtime.block_on(async {
        let listener = match listen(args.port).await {
            Ok(listener) => listener,
            Err(error) => {
                eprintln!("netra webhook: port {}: {error}", args.port);
                return Exit::UNAVAILABLE;
            }
        };
        eprintln!("netra webhook: listens on port {}", args.port);
        let Ok(mut ended) = signal(SignalKind::terminate()) else { return Exit::OS };
        tokio::select! {
            () = serve(listener, certificate, Arc::new(args.wanted.clone())) => Exit::OS,
            _ = ended.recv() => Exit::DONE,
        }
    })
}

/// On all addresses, IPv4 only where there is no IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
    }
}

async fn serve(listener: TcpListener, mut certificate: Certificate, wanted: Arc<Wanted>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let acceptor = TlsAcceptor::from(certificate.now());
        let wanted = Arc::clone(&wanted);
        tokio::spawn(async move {
            let _ = timeout(CONNECTION_TIME, connection(stream, acceptor, wanted)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, wanted: Arc<Wanted>) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await else { return };
    let service = service_fn(move |request| {
        let wanted = Arc::clone(&wanted);
        async move { Ok::<_, Infallible>(answer(request, &wanted).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_PATIENCE);
    // Whoever went away needs no answer.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, wanted: &Wanted) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/ready") => text(StatusCode::OK, "ready\n"),
        (&Method::POST, "/inject") => {
            let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
            let Ok(Ok(body)) = timeout(REQUEST_PATIENCE, body).await else {
                return text(StatusCode::BAD_REQUEST, "the review did not come whole\n");
            };
            match review::answer(&body.to_bytes(), wanted) {
                Ok((review, said)) => {
                    eprintln!("netra webhook: {}", mask::line(&said));
                    let mut response = text(StatusCode::OK, &review);
                    let json = HeaderValue::from_static("application/json");
                    response.headers_mut().insert(CONTENT_TYPE, json);
                    response
                }
                Err(why) => text(StatusCode::BAD_REQUEST, &format!("{}\n", mask::line(&why))),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "there are POST /inject and GET /ready\n"),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
    *response.status_mut() = status;
    response
}
