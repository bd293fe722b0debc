//! A small HTTP/1 client for the control side: one URL, one connection that is kept, a limit on time
//! and on what an answer may weigh. It speaks no TLS.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, Uri,
    body::{Body, Bytes},
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderMap, HeaderValue},
};
use hyper_util::rt::TokioIo;
use std::{fmt, time::Duration};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};

/// What an answer may weigh.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Where requests go: `http://host[:port][/path][?query]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    host: String,
    port: u16,
    /// Path and query.
    target: String,
}

impl Url {
    /// Takes http:// only, and neither users nor fragments.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let is_good = uri.scheme_str() == Some("http")
            && !authority.host().is_empty()
            && !authority.as_str().contains('@')
            && (authority.port_u16().is_some() || authority.as_str() == authority.host())
            && !text.contains('#');
        let host = authority.host();
        let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = Some(uri.path()).filter(|path| !path.is_empty()).unwrap_or("/");
        let target = format!("{path}{query}");
        is_good.then(|| Self {
            host: inside.unwrap_or(host).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            target,
        })
    }

    /// With one more parameter in its query.
    pub(crate) fn with_query(mut self, name: &str, value: &str) -> Self {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let between = if self.target.contains('?') { '&' } else { '?' };
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        self.target = format!("{}{between}{name}={value}", self.target);
        self
    }

    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.target)
    }
}

/// Why there was no answer.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A client of one URL.
#[derive(Debug)]
pub(crate) struct Client {
    url: Url,
    limit: Duration,
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// A client that waits `limit` for an answer, its connection included.
    pub(crate) fn new(url: Url, limit: Duration) -> Self {
        Self { url, limit, kept: Mutex::new(None) }
    }

    /// Sends a body, or asks without one, and reads the whole answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, Failure> {
        let sent = timeout(self.limit, self.exchange(method, headers, body)).await;
        sent.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.limit).into()))
    }

    async fn exchange(
        &self,
        method: Method,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, Failure> {
        let mut kept = self.kept.lock().await;
        if let Some(mut connection) = kept.take()
            && connection.ready().await.is_ok()
        {
            match connection.send_request(self.request(&method, headers, &body)?).await {
                Ok(answer) => return whole(answer, connection, &mut kept).await,
                // The other side closed it meanwhile, as idle connections are.
                Err(error) if error.is_canceled() || error.is_incomplete_message() => {}
                Err(error) => return Err(described(&error)),
            }
        }
        let mut connection = self.connect().await?;
        let request = self.request(&method, headers, &body)?;
        let answer = connection.send_request(request).await.map_err(|error| described(&error))?;
        whole(answer, connection, &mut kept).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect((self.url.host.as_str(), self.url.port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its sender, or with the other side; either is seen at the next request.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(&self.url.target)
            .body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(HOST, HeaderValue::from_str(&self.url.authority())?);
        Ok(request)
    }
}

/// Reads an answer to its end and keeps the connection for the next request.
async fn whole(
    answer: Response<hyper::body::Incoming>,
    connection: SendRequest<Full<Bytes>>,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<Response<Bytes>, Failure> {
    let (parts, body) = answer.into_parts();
    let announced = body.size_hint().lower();
    if announced > ANSWER_BYTES_MAX as u64 {
        return Err(format!("an answer of {announced} bytes").into());
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
    *kept = Some(connection);
    Ok(Response::from_parts(parts, body))
}

/// hyper's errors keep their cause to themselves.
fn described(error: &hyper::Error) -> Failure {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}").into(),
        None => error.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    #[test]
    fn urls() {
        for (text, shown) in [
            ("http://c", Some("http://c:80/")),
            ("http://c:14268/api/traces?x=1", Some("http://c:14268/api/traces?x=1")),
            ("http://[::1]:5778/sampling", Some("http://[::1]:5778/sampling")),
            ("http://c?service", Some("http://c:80/?service")),
            ("https://c/", None),
            ("c:14268", None),
            ("/api", None),
            ("http://", None),
            ("http://u:p@c/", None),
            ("http://c/#a", None),
            ("http://c:/", None),
            ("http://c:x/", None),
            ("http://a b/", None),
            ("", None),
        ] {
            let url = Url::parse(text).map(|url| url.to_string());
            assert_eq!(url.as_deref(), shown, "{text:?}");
        }
        let url = Url::parse("http://c/s").unwrap().with_query("service", "a b&c");
        assert_eq!(url.to_string(), "http://c:80/s?service=a%20b%26c");
        assert_eq!(url.with_query("x", "1").to_string(), "http://c:80/s?service=a%20b%26c&x=1");
    }

    /// Answers each connection with these answers in turn, then closes it.
    fn server(connections: Vec<Vec<&'static str>>) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        thread::spawn(move || {
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        Url::parse(&url).unwrap()
    }

    async fn get(client: &Client) -> Result<String, String> {
        let answer = client.send(Method::GET, &HeaderMap::new(), Bytes::new()).await;
        let text = |answer: Response<Bytes>| {
            format!("{} {}", answer.status().as_u16(), String::from_utf8_lossy(answer.body()))
        };
        answer.map(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_connection_is_kept_and_made_anew_when_it_was_closed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            const NO: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
            let client = Client::new(server(vec![vec![OK, NO], vec![OK]]), Duration::from_secs(5));
            assert_eq!(get(&client).await.unwrap(), "200 ok");
            assert_eq!(get(&client).await.unwrap(), "503 ");
            assert_eq!(get(&client).await.unwrap(), "200 ok");
        });
    }

    #[test]
    fn silence_and_endless_answers_are_failures() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let client = Client::new(Url::parse(&url).unwrap(), Duration::from_millis(50));
            assert_eq!(get(&client).await.unwrap_err(), "no answer within 50ms");
            drop(listener);
            let refused = get(&client).await.unwrap_err();
            assert!(refused.contains("refused"), "{refused}");
            const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\nok";
            let client = Client::new(server(vec![vec![LONG]]), Duration::from_secs(5));
            let error = get(&client).await.unwrap_err();
            assert_eq!(error, "an answer of 2000000 bytes");
        });
    }
}
