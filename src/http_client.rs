//! A small HTTP client for the control side: one URL, one connection that is kept for as long as the
//! name still leads there, a limit on time and on what an answer may weigh. It speaks HTTP/1, HTTP/2
//! where it is told to, and TLS where the URL says so (`reach/`).

use crate::{
    failure::Failure,
    reach::{self, Proxy, Reach, Tls},
    receiver::Receiver,
    resolver::Names,
    url::Url,
};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    client::conn::{http1, http2},
    header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION},
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    task::JoinSet,
    time::timeout,
};

/// What the head of an answer may weigh.
const HEAD_BYTES_MAX: u16 = 16 * 1024;
/// How long an address has before the next is dialled as well (RFC 8305, section 5).
const DIAL_STEP: Duration = Duration::from_millis(250);

/// What is spoken with a receiver, and how much it may say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// HTTP/2, for gRPC.
    pub(crate) is_http2: bool,
    /// How long an answer may take, its connection included.
    pub(crate) limit: Duration,
    /// What its body may weigh.
    pub(crate) answer_bytes_max: usize,
}

/// A client of one URL.
#[derive(Debug)]
pub(crate) struct Client {
    url: Url,
    terms: Terms,
    /// Who is asked for a tunnel to the receiver, if anybody is.
    proxy: Option<Proxy>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whom to dial: the proxy where there is one.
    receiver: Receiver,
    tls: Option<Tls>,
    kept: Option<(Connection, SocketAddr)>,
}

/// What is spoken over, encrypted or not; hyper is built for it once.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

impl Client {
    /// `reach` is of interest for https:// alone.
    pub(crate) fn new(
        names: &Names,
        url: Url,
        reach: &Reach,
        terms: Terms,
    ) -> Result<Self, Failure> {
        let proxy = reach.proxy.clone().filter(|_| url.is_tls());
        let receiver = match &proxy {
            Some(proxy) => Receiver::new(names, &proxy.host, proxy.port),
            None => Receiver::new(names, url.host(), url.port()),
        };
        let tls = url.is_tls().then(|| Tls::new(reach, url.host(), terms.is_http2)).transpose()?;
        Ok(Self { url, terms, proxy, state: Mutex::new(State { receiver, tls, kept: None }) })
    }

    /// Sends a body, or asks without one, and reads the whole answer; trailers come as headers.
    pub(crate) async fn send(
        &self,
        method: Method,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, Failure> {
        let limit = self.terms.limit;
        let sent = timeout(limit, self.exchange(method, headers, body)).await;
        sent.unwrap_or_else(|_| Err(format!("no answer within {limit:?}").into()))
    }

    async fn exchange(
        &self,
        method: Method,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, Failure> {
        let mut state = self.state.lock().await;
        let addresses = state.receiver.addresses().await?;
        // A name that leads elsewhere now is followed, though the old place may still answer.
        if let Some((mut connection, address)) = state.kept.take()
            && addresses.contains(&address)
            && connection.is_ready().await
        {
            match connection.send(self.request(&method, headers, &body)?).await {
                Ok(answer) => {
                    let answer = self.whole(answer).await?;
                    state.kept = Some((connection, address));
                    return Ok(answer);
                }
                // The other side closed it meanwhile, as idle connections are.
                Err(error) if error.is_canceled() || error.is_incomplete_message() => {}
                Err(error) => return Err(described(&error)),
            }
        }
        let (stream, address) = dial(&addresses).await.map_err(|error| self.of_proxy(error))?;
        let mut connection = self.begin(stream, state.tls.as_mut()).await?;
        let request = self.request(&method, headers, &body)?;
        let answer = connection.send(request).await.map_err(|error| described(&error))?;
        let answer = self.whole(answer).await?;
        state.kept = Some((connection, address));
        Ok(answer)
    }

    /// Which of two did not answer.
    fn of_proxy(&self, error: io::Error) -> Failure {
        match &self.proxy {
            Some(proxy) => format!("the proxy {proxy}: {error}").into(),
            None => error.into(),
        }
    }

    async fn begin(&self, stream: TcpStream, tls: Option<&mut Tls>) -> Result<Connection, Failure> {
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return self.speak(Box::new(stream)).await };
        match &self.proxy {
            None => self.speak(Box::new(tls.begin(stream).await?)).await,
            Some(proxy) => {
                let tunnel = TokioIo::new(self.tunnel(stream, proxy).await?);
                self.speak(Box::new(tls.begin(tunnel).await?)).await
            }
        }
    }

    /// Asks a proxy for a way to the receiver (RFC 9110, section 9.3.6).
    async fn tunnel(&self, stream: TcpStream, proxy: &Proxy) -> Result<Upgraded, Failure> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX.into());
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        let to = self.url.authority();
        let mut request = Request::connect(&to).header(HOST, &to);
        if let Some(authorization) = &proxy.authorization {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| format!("the proxy {proxy}: {}", described(&error)))?;
        match answer.status() {
            status if status.is_success() => Ok(hyper::upgrade::on(answer).await?),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let whom = if proxy.authorization.is_some() { "another" } else { "a" };
                Err(format!("the proxy {proxy} wants {whom} user and password").into())
            }
            status => Err(format!("the proxy {proxy} answered {status} to CONNECT {to}").into()),
        }
    }

    /// What is spawned ends with its sender, or with the other side; either is seen at the next
    /// request.
    async fn speak(&self, stream: Box<dyn Stream>) -> Result<Connection, Failure> {
        let io = TokioIo::new(stream);
        if self.terms.is_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(HEAD_BYTES_MAX.into());
            let (sender, connection) = builder.handshake(io).await?;
            tokio::spawn(connection);
            return Ok(Connection::Http2(sender));
        }
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX.into());
        let (sender, connection) = builder.handshake(io).await?;
        tokio::spawn(connection);
        Ok(Connection::Http1(sender))
    }

    fn request(
        &self,
        method: &Method,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let target = match self.terms.is_http2 {
            true => self.url.to_string(),
            false => self.url.target().to_owned(),
        };
        let mut request =
            Request::builder().method(method).uri(target).body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        if !self.terms.is_http2 {
            request.headers_mut().insert(HOST, HeaderValue::from_str(&self.url.authority())?);
        }
        Ok(request)
    }

    /// Reads an answer to its end, as far as it may go.
    async fn whole(&self, answer: Response<Incoming>) -> Result<Response<Bytes>, Failure> {
        let (mut parts, body) = answer.into_parts();
        let (announced, most) = (body.size_hint().lower(), self.terms.answer_bytes_max);
        if announced > most as u64 {
            return Err(format!("an answer of {announced} bytes").into());
        }
        let body = Limited::new(body, most).collect().await?;
        if let Some(trailers) = body.trailers() {
            parts.headers.extend(trailers.clone());
        }
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// Dials addresses until one answers: the next as soon as one has failed or been silent for a step,
/// while earlier ones may still answer (RFC 8305).
async fn dial(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let mut dials = JoinSet::new();
    let mut rest = addresses.iter().copied();
    let mut error = io::Error::other("the name has no address");
    loop {
        if let Some(address) = rest.next() {
            dials.spawn(async move {
                let named = |e: io::Error| io::Error::new(e.kind(), format!("{address}: {e}"));
                Ok((TcpStream::connect(address).await.map_err(named)?, address))
            });
        }
        let step = if rest.len() > 0 { DIAL_STEP } else { Duration::MAX };
        match timeout(step, dials.join_next()).await {
            Ok(Some(Ok(Ok(found)))) => return Ok(found),
            Ok(Some(Ok(Err(failed)))) => error = failed,
            // A panic has ended the process already.
            Ok(Some(Err(failed))) => error = io::Error::other(failed),
            Ok(None) => return Err(error),
            Err(_) => {}
        }
    }
}

/// hyper's errors keep their cause to themselves.
fn described(error: &hyper::Error) -> Failure {
    if let Some(why) = reach::why(error) {
        return why.into();
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}").into(),
        None => error.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::{NameServer, block_on};
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
        time::Instant,
    };

    const TERMS: Terms =
        Terms { is_http2: false, limit: Duration::from_secs(5), answer_bytes_max: 1 << 20 };

    fn client(url: Url, limit: Duration) -> Client {
        Client::new(&Names::start_own(), url, &Reach::default(), Terms { limit, ..TERMS }).unwrap()
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
        block_on(async {
            const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            const NO: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
            let client = client(server(vec![vec![OK, NO], vec![OK]]), TERMS.limit);
            assert_eq!(get(&client).await.unwrap(), "200 ok");
            assert_eq!(get(&client).await.unwrap(), "503 ");
            assert_eq!(get(&client).await.unwrap(), "200 ok");
        });
    }

    #[test]
    fn silence_and_endless_answers_are_failures() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let slow = client(Url::parse(&url).unwrap(), Duration::from_millis(50));
            assert_eq!(get(&slow).await.unwrap_err(), "no answer within 50ms");
            drop(listener);
            let refused = get(&slow).await.unwrap_err();
            assert!(refused.contains("refused"), "{refused}");
            const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\nok";
            let long = client(server(vec![vec![LONG]]), TERMS.limit);
            let error = get(&long).await.unwrap_err();
            assert_eq!(error, "an answer of 2000000 bytes");
        });
    }

    /// A server at this address that names itself, on every connection.
    fn named(address: &str, port: u16, name: &'static str) -> u16 {
        let listener = TcpListener::bind((address, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    while stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {
                        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
                        stream.write_all(format!("{head}{name}").as_bytes()).unwrap();
                    }
                });
            }
        });
        port
    }

    #[test]
    fn a_kept_connection_is_left_when_its_name_leads_elsewhere() {
        let port = named("127.0.0.1", 0, "one");
        named("127.0.0.2", port, "two");
        block_on(async {
            let server = NameServer::start(&["127.0.0.1"]);
            let url = Url::parse(&format!("http://collector.test:{port}/")).unwrap();
            let client = Client::new(&server.names(), url, &Reach::default(), TERMS).unwrap();
            assert_eq!(get(&client).await.unwrap(), "200 one");
            server.say(&["127.0.0.2"]);
            let begun = Instant::now();
            while get(&client).await.unwrap() != "200 two" {
                assert!(begun.elapsed() < Duration::from_secs(10), "nobody follows the name");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    #[test]
    fn any_address_of_a_name_is_good() {
        let port = named("127.0.0.9", 0, "yes");
        named("::1", port, "six");
        // A listener whose queue is full lets nobody in and refuses nobody.
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 7], port)).into()).unwrap();
        full.listen(0).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 7], port));
        let queue: Vec<_> = (0..4)
            .map(|_| std::net::TcpStream::connect_timeout(&at, Duration::from_millis(50)))
            .collect();
        for (says, answer, within_ms) in [
            (&["127.0.0.8", "127.0.0.9"][..], "200 yes", 200),
            (&["127.0.0.8", "::1"], "200 six", 200),
            (&["127.0.0.7", "::1"], "200 six", 600),
        ] {
            block_on(async {
                let server = NameServer::start(says);
                let url = Url::parse(&format!("http://collector.test:{port}/")).unwrap();
                let client = Client::new(&server.names(), url, &Reach::default(), TERMS).unwrap();
                let begun = Instant::now();
                assert_eq!(get(&client).await.unwrap(), answer, "{says:?}");
                let took = begun.elapsed();
                assert!(took < Duration::from_millis(within_ms), "{says:?}: {took:?}");
            });
        }
        drop(queue);
    }
}
