//! Asks somebody over HTTP/1.1.

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use std::{io, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// How long an answer may take.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connection on which can be asked.
pub(crate) type Asker = SendRequest<Full<Bytes>>;

/// A plain question, with status and text of the answer.
pub(crate) async fn get(
    server: &str,
    path: &str,
    token: Option<&str>,
) -> io::Result<(u16, String)> {
    let mut request = Request::get(path).header("host", server);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::default()).map_err(io::Error::other)?;
    let answer = timeout(ANSWER_TIME, connect(server).await?.send_request(request)).await;
    let answer = answer.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Connects to `HOST:PORT`.
pub(crate) async fn connect(to: &str) -> io::Result<Asker> {
    let stream = timeout(ANSWER_TIME, TcpStream::connect(to)).await.map_err(io::Error::other)??;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}
