//! Ports: HTTP/1 and HTTP/2 without TLS on each, bounded in connections and in time.

use crate::receive::Receiver;
use crate::reply::{Reply, Whole};
use crate::show::Site;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};

/// Connections of one port; more wait at the door.
const CONNECTIONS_MAX: usize = 1024;
/// How long a head may take, and how long a connection may be silent between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const PING_EVERY: Duration = Duration::from_secs(30);
const STREAMS_MAX: u32 = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers on a port.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Spans(Receiver),
    Page(Site),
}

impl Door {
    async fn answer(self, request: Request<Incoming>) -> Reply {
        match self {
            Self::Spans(receiver) => receiver.answer(request).await,
            Self::Page(site) => {
                let uri = request.uri();
                let query = uri.query().unwrap_or_default();
                site.answer(request.method(), uri.path(), query, request.headers()).await
            }
        }
    }
}

/// Serves one listener for as long as the runtime lives.
pub(crate) async fn serve(listener: TcpListener, door: Door) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                // For want of descriptors, most likely.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        };
        let door = door.clone();
        tokio::spawn(async move {
            converse(stream, door).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, door: Door) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<Response<Whole>, Infallible>(door.answer(request).await.0) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(32 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(16 << 10)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    // Whoever went away went away.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}
