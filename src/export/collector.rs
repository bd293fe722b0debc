//! A Jaeger collector: batches as request bodies.

use crate::http_client::{Client, Failure, Url};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use std::time::Duration;

/// The Go client's.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Collector {
    client: Client,
    headers: HeaderMap,
}

impl Collector {
    pub(super) fn new(url: Url, login: Option<&(String, String)>) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-thrift"));
        if let Some((user, password)) = login {
            let token = STANDARD.encode(format!("{user}:{password}"));
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Basic {token}"))?);
        }
        Ok(Self { client: Client::new(url, TIMEOUT), headers })
    }

    pub(super) async fn send(&self, body: Vec<u8>) -> Result<(), Failure> {
        let answer = self.client.send(Method::POST, &self.headers, body.into()).await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the collector answered {status}").into()),
        }
    }
}
