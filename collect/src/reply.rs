//! What is answered: a body in one piece, and trailers where gRPC wants them.

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply(pub(crate) Response<Whole>);

#[derive(Debug, Default)]
pub(crate) struct Whole {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Reply {
    pub(crate) fn of(status: StatusCode, kind: &'static str, body: Bytes) -> Self {
        let data = Some(body).filter(|body| !body.is_empty());
        let mut response = Response::new(Whole { data, trailers: None });
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Self(response)
    }

    pub(crate) fn text(status: StatusCode, text: &'static str) -> Self {
        Self::of(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
    }

    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        let value = HeaderValue::from_static(value);
        self.0.headers_mut().insert(HeaderName::from_static(name), value);
        self
    }

    pub(crate) fn with_grpc_status(mut self, status: &'static str) -> Self {
        let mut trailers = HeaderMap::new();
        let name = HeaderName::from_static("grpc-status");
        trailers.insert(name, HeaderValue::from_static(status));
        self.0.body_mut().trailers = Some(trailers);
        self
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
