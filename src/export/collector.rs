//! A Jaeger collector: batches as request bodies.

use super::partial::said_with;
use crate::{
    failure::Failure,
    http_client::{Client, Terms},
    reach::{Headers, Reach},
    resolver::Names,
    url::Url,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use std::time::Duration;

/// The time limit is the Go client's. Nothing of an answer but its status is of interest.
const TERMS: Terms =
    Terms { is_http2: false, limit: Duration::from_secs(5), answer_bytes_max: 64 * 1024 };

#[derive(Debug)]
pub(super) struct Collector {
    client: Client,
    headers: HeaderMap,
    /// Those of a file.
    more: Headers,
}

impl Collector {
    pub(super) fn new(
        names: &Names,
        url: Url,
        login: Option<&(String, String)>,
        reach: &Reach,
        headers_file: &str,
    ) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-thrift"));
        if let Some((user, password)) = login {
            let token = STANDARD.encode(format!("{user}:{password}"));
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Basic {token}"))?);
        }
        let client = Client::new(names, url, reach, TERMS)?;
        Ok(Self { client, headers, more: Headers::new(headers_file) })
    }

    pub(super) async fn send(&mut self, body: Vec<u8>) -> Result<(), Failure> {
        let mut headers = self.more.now()?;
        headers.extend(self.headers.clone());
        let answer = self.client.send(Method::POST, &headers, body.into()).await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => {
                let said = said_with(status, answer.headers(), answer.body());
                Err(format!("the collector answered {said}").into())
            }
        }
    }
}
