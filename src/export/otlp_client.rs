//! What carries OTLP: requests over HTTP, and the same bytes in gRPC's frame over HTTP/2.

use super::{
    OtlpPlan, Protocol,
    partial::{one_line, said_with},
};
use crate::{
    failure::Failure,
    http_client::{Client, Terms},
    reach::Headers,
    resolver::Names,
    url::Url,
};
use hyper::{
    Request, Response, StatusCode,
    body::Bytes,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE},
};
use tokio::sync::Mutex;

/// What an answer may weigh: it is a number and a reason.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A client of one receiver.
#[derive(Debug)]
pub(crate) struct OtlpClient {
    client: Client,
    headers: HeaderMap,
    /// Those of a file.
    more: Mutex<Headers>,
    is_grpc: bool,
}

impl OtlpClient {
    /// `method` is what gRPC calls; over HTTP the URL says it.
    pub(crate) fn new(
        names: &Names,
        plan: &OtlpPlan,
        headers_file: &str,
        method: &str,
    ) -> Result<Self, Failure> {
        let is_grpc = plan.protocol == Protocol::Grpc;
        let (is_http2, limit) = (is_grpc, plan.timeout);
        let terms = Terms { is_http2, limit, answer_bytes_max: ANSWER_BYTES_MAX };
        let url = Url::parse(&plan.endpoint).ok_or("not an http:// or https:// URL")?;
        let url = if is_grpc { url.with_path(method) } else { url };
        Ok(Self {
            client: Client::new(names, url, &plan.reach, terms)?,
            headers: header_map(&plan.headers)?,
            more: Mutex::new(Headers::new(headers_file)),
            is_grpc,
        })
    }

    /// Sends a request whose body is a message, and gives back the answer with the receiver's. An
    /// answer of gRPC's comes as HTTP would have it.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let (mut parts, body) = request.into_parts();
        parts.headers.extend(self.headers.clone());
        parts.headers.extend(self.more.lock().await.now()?);
        if !self.is_grpc {
            return self.client.send(parts.method, &parts.headers, body).await;
        }
        let is_gzip = parts.headers.remove(CONTENT_ENCODING).is_some();
        if is_gzip {
            parts.headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
        let framed = framed(&body, is_gzip)?;
        let answer = self.client.send(parts.method, &parts.headers, framed).await?;
        Ok(unframed(answer))
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, Failure> {
    let pair = |(name, value): &(String, String)| {
        Ok((name.parse::<HeaderName>()?, HeaderValue::from_str(value)?))
    };
    headers.iter().map(pair).collect()
}

/// A message as gRPC sends it: whether it is compressed, its length, its bytes.
fn framed(message: &[u8], is_compressed: bool) -> Result<Bytes, Failure> {
    let len = u32::try_from(message.len())?;
    Ok([&[u8::from(is_compressed)], &len.to_be_bytes()[..], message].concat().into())
}

/// gRPC's answer as one of HTTP: its status, and its message without the frame. One that may be
/// tried again has the status that says so over HTTP.
fn unframed(answer: Response<Bytes>) -> Response<Bytes> {
    let (mut parts, body) = answer.into_parts();
    let grpc_status = parts.headers.get("grpc-status").and_then(|it| it.to_str().ok());
    let grpc_status = grpc_status.and_then(|it| it.parse::<u8>().ok());
    parts.status = match (parts.status, grpc_status) {
        (StatusCode::OK, Some(0)) => StatusCode::OK,
        // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss.
        (StatusCode::OK, Some(1 | 4 | 10 | 11 | 14 | 15)) => StatusCode::SERVICE_UNAVAILABLE,
        (StatusCode::OK, _) => StatusCode::BAD_REQUEST,
        (status, _) => status,
    };
    // No compression was offered, so what is compressed is not for us.
    let message = match body.first_chunk() {
        Some([0, a, b, c, d]) => {
            let len = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
            let rest = body.len() - 5;
            body.slice(5..5 + len.min(rest))
        }
        _ => Bytes::new(),
    };
    Response::from_parts(parts, message)
}

/// What a receiver says that did not take what it was sent.
pub(crate) fn reason_of(answer: &Response<Bytes>) -> String {
    let said = |name| answer.headers().get(name).map(|value: &HeaderValue| value.as_bytes());
    match (said("grpc-status"), said("grpc-message")) {
        (Some(status), why) => {
            let (status, why) = (one_line(status), one_line(why.unwrap_or_default()));
            format!("gRPC status {status} {why}").trim_end().to_owned()
        }
        (None, _) => said_with(answer.status(), answer.headers(), answer.body()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_out_and_in() {
        assert_eq!(framed(b"abc", false).unwrap(), &b"\0\0\0\0\x03abc"[..]);
        assert_eq!(framed(b"", true).unwrap(), &b"\x01\0\0\0\0"[..]);
        let answer = |http: u16, grpc: Option<&str>, body: &'static [u8]| {
            let mut answer = Response::builder().status(http);
            if let Some(grpc) = grpc {
                answer = answer.header("grpc-status", grpc).header("grpc-message", "why\tnot");
            }
            unframed(answer.body(Bytes::from_static(body)).unwrap())
        };
        for (http, grpc, body, status, message) in [
            (200, Some("0"), &b"\0\0\0\0\x02ab"[..], 200, &b"ab"[..]),
            (200, Some("0"), b"", 200, b""),
            // Shorter than it says, longer, compressed.
            (200, Some("0"), b"\0\xff\xff\xff\xffab", 200, b"ab"),
            (200, Some("0"), b"\0\0\0\0\x01ab", 200, b"a"),
            (200, Some("0"), b"\x01\0\0\0\x01a", 200, b""),
            (200, Some("14"), b"", 503, b""),
            (200, Some("16"), b"", 400, b""),
            (200, Some("x"), b"", 400, b""),
            // Not gRPC at all.
            (200, None, b"<html>", 400, b""),
            (502, None, b"", 502, b""),
        ] {
            let answer = answer(http, grpc, body);
            assert_eq!(answer.status().as_u16(), status, "{http} {grpc:?}");
            assert_eq!(answer.body(), message, "{http} {grpc:?} {body:?}");
        }
        assert_eq!(reason_of(&answer(200, Some("14"), b"")), "gRPC status 14 why\\tnot");
        assert_eq!(reason_of(&answer(502, None, b"")), "502 Bad Gateway");
    }
}
