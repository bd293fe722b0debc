//! A small HTTP server for what netra shows of itself: `/metrics` and probes on one port, profiles
//! and admin on another. It runs on the control thread, off the data cores, and is bounded in
//! connections, in time and in memory, because ports face others.

mod link;
mod room;
mod share;

pub(crate) use hyper::{Method, StatusCode};
pub(crate) use link::CUT;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use link::{Link, Shared, Stay, Wire};
use nix::sys::socket::{
    Backlog, listen, setsockopt,
    sockopt::{RcvBuf, SndBuf},
};
use room::{Pool, Room};
use share::Share;
use std::{
    convert::Infallible,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{
    task::yield_now,
    time::{sleep, sleep_until, timeout},
};

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// hyper's floor; a request head larger than this is refused with 431.
const HEAD_BYTES_MAX: usize = 8192;
/// What the body of a request may weigh.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Connections accepted in one go: a part of the new ones that there is room for, so that each has
/// been looked at several times before it could have to go.
const TOGETHER: u64 = 16;
/// Connections that wait to be accepted.
const WAITING_MAX: i32 = 4096;
/// What the kernel holds of each connection, each way; it doubles that. By itself it takes 2.5 MB of an
/// answer that nobody reads, and the limit of memory may count them.
const SOCKET_BYTES: usize = 32 * 1024;
/// How long to wait when a connection cannot be accepted, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Who sends this is no page of another host: browsers ask before they send it, and are not heard.
pub(crate) const ORDER: &str = "x-netra-order";

/// A request, as far as any page cares.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) accept: Option<String>,
    pub(crate) from: Sender,
    pub(crate) body: Vec<u8>,
}

/// Who sends a request, as far as its head and its connection tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sender {
    /// It calls netra by an address or localhost: no name that a page's owner could point here.
    pub(crate) is_direct: bool,
    /// It comes from a page that another host served.
    pub(crate) is_foreign: bool,
    /// It has [`ORDER`].
    pub(crate) is_order: bool,
    /// The token that it shows.
    pub(crate) token: Option<String>,
    /// It comes by the unix socket, to which netra's own user and root get.
    pub(crate) is_owner: bool,
}

impl Sender {
    fn read(headers: &HeaderMap, is_owner: bool) -> Self {
        let text = |name: &str| {
            let mut values = headers.get_all(name).iter();
            // Twice is nothing that can be relied on.
            values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
        };
        let host = text(HOST.as_str());
        let own = host.map(|host| format!("http://{host}"));
        let is_elsewhere = headers.contains_key(ORIGIN) && text("origin") != own.as_deref();
        // What a browser says of a request that bears no Origin. Whoever follows a link may come in.
        let is_cross = matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"))
            && text("sec-fetch-dest") != Some("document");
        let bearer = text(AUTHORIZATION.as_str()).and_then(|text| text.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        Self {
            is_direct: is_owner || host.is_some_and(is_address),
            is_foreign: is_elsewhere || is_cross,
            is_order: text(ORDER) == Some("1"),
            token: bearer.map(|(_, token)| token.trim().to_owned()),
            is_owner,
        }
    }
}

/// Whether a Host is an address or localhost, with a port or without.
fn is_address(host: &str) -> bool {
    let is_port = |text: &str| text.is_empty() || text[1..].parse::<u16>().is_ok();
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let has_port = port.is_empty() || port.starts_with(':');
        return has_port && is_port(port) && address.parse::<Ipv6Addr>().is_ok();
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    is_port(port) && (name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok())
}

impl Ask {
    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }
}

/// What is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(crate) fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: StatusCode::OK, kind, body: body.into(), headers: Vec::new() }
    }

    /// A line of text for people.
    pub(crate) fn plain(status: StatusCode, text: &str) -> Self {
        Self { status, ..Self::ok("text/plain; charset=utf-8", text) }
    }

    /// Another method is needed.
    pub(crate) fn only(methods: &'static str) -> Self {
        let text = format!("only {methods}\n");
        Self::plain(StatusCode::METHOD_NOT_ALLOWED, &text).with("allow", methods)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Pages that a server shows.
pub(crate) trait Site: Send + Sync + 'static {
    /// How long an answer may be in the making.
    const THINK_MAX: Duration;
    /// Pages for which a share of the connections is kept.
    const PROBES: &[&str];

    /// Bytes that answers may weigh that nobody has read yet.
    fn unread_bytes_max(&self) -> usize;

    fn answer(&self, ask: Ask) -> impl Future<Output = Answer> + Send;
}

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
    listeners.iter().try_for_each(ready)?;
    Ok(listeners)
}

/// Listens on one address.
pub(crate) fn bind_at(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((address, port)))?;
    ready(&listener)?;
    Ok(listener)
}

/// What the kernel holds of connections is bounded, and more may wait at the door than the standard library lets: whom the kernel turns away there comes
/// back after a second, which is more than a probe has.
fn ready(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // The sockets of its connections have what it has.
    setsockopt(listener, SndBuf, &SOCKET_BYTES)?;
    setsockopt(listener, RcvBuf, &SOCKET_BYTES)?;
    Ok(listen(listener, Backlog::new(WAITING_MAX)?)?)
}

/// Listens on a unix socket that its owner and root may use. One that a netra before this one left
/// behind is replaced.
pub(crate) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Whoever comes in before this is turned away by who it is.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Wire, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Wire::Tcp(stream), Some(peer.ip().to_canonical())))
            }
            Self::Unix(listener) => {
                let own = nix::unistd::geteuid().as_raw();
                loop {
                    let (stream, _) = listener.accept().await?;
                    if stream.peer_cred().is_ok_and(|peer| [0, own].contains(&peer.uid())) {
                        return Ok((Wire::Unix(stream), None));
                    }
                }
            }
        }
    }
}

/// Serves one listener for as long as the runtime lives.
pub(crate) async fn serve<S: Site>(listener: TcpListener, site: Arc<S>) -> io::Result<()> {
    receive(Listener::Tcp(tokio::net::TcpListener::from_std(listener)?), site).await;
    Ok(())
}

/// The same for a unix socket.
pub(crate) async fn serve_socket<S: Site>(listener: UnixListener, site: Arc<S>) -> io::Result<()> {
    receive(Listener::Unix(tokio::net::UnixListener::from_std(listener)?), site).await;
    Ok(())
}

/// A site, and what its pages may take.
struct Paced<S> {
    site: Arc<S>,
    share: Share,
}

impl<S: Site> Paced<S> {
    /// Probes wait for nothing.
    async fn answer(&self, ask: Ask) -> Answer {
        if S::PROBES.contains(&&*ask.path) {
            return self.site.answer(ask).await;
        }
        self.share.make(self.site.answer(ask)).await
    }
}

async fn receive<S: Site>(listener: Listener, site: Arc<S>) {
    let room = Shared::new(Room::new(S::THINK_MAX, site.unread_bytes_max()));
    let site = Arc::new(Paced { site, share: Share::new() });
    for id in 1.. {
        let (wire, peer) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        };
        let stay = Stay::new(&room, id);
        let connection = tokio::spawn(converse(wire, stay, Arc::clone(&site)));
        room.enter(id, peer, connection.abort_handle());
        // Those that are here are heard before many more come in, however many wait at the door.
        if id % TOGETHER == 0 {
            yield_now().await;
        }
    }
}

/// Answers the requests of one connection, in order, for as long as it has time.
async fn converse<S: Site>(wire: Wire, stay: Arc<Stay>, site: Arc<Paced<S>>) {
    let is_owner = matches!(wire, Wire::Unix(_));
    let first = tokio::time::timeout_at(stay.due(), wire.readable()).await;
    if !matches!(first, Ok(Ok(()))) {
        return;
    }
    // On the heap, so that those who say nothing weigh nothing.
    let served = Box::pin(serve_wire(wire, Arc::clone(&stay), site, is_owner));
    let mut served = pin!(served);
    let mut until = pin!(sleep_until(stay.due()));
    std::future::poll_fn(|context| {
        if served.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let due = stay.due();
        if until.deadline() != due {
            until.as_mut().reset(due);
        }
        until.as_mut().poll(context)
    })
    .await;
}

async fn serve_wire<S: Site>(wire: Wire, stay: Arc<Stay>, site: Arc<Paced<S>>, is_owner: bool) {
    let link = Link::new(wire, Arc::clone(&stay));
    let service = service_fn(|request: Request<Incoming>| {
        let is_probe = S::PROBES.contains(&request.uri().path());
        stay.asks(if is_probe { Pool::Probes } else { Pool::Asked });
        let (site, stay) = (Arc::clone(&site), Arc::clone(&stay));
        async move {
            let answer = match read(request, is_owner).await {
                Ok(ask) => site.answer(ask).await,
                Err(refused) => refused,
            };
            Ok::<_, Infallible>(response(answer, &stay))
        }
    });
    let served = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(link), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "connection to the endpoint ended");
    }
}

async fn read(request: Request<Incoming>, is_owner: bool) -> Result<Ask, Answer> {
    let (head, body) = request.into_parts();
    let ask = Ask {
        from: Sender::read(&head.headers, is_owner),
        accept: head.headers.get(ACCEPT).and_then(|it| it.to_str().ok()).map(str::to_owned),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        method: head.method,
        body: Vec::new(),
    };
    if ask.method != Method::POST {
        return Ok(ask);
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(Ask { body: body.to_bytes().to_vec(), ..ask }),
        _ => Err(Answer::plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or slow\n")),
    }
}

fn response(answer: Answer, stay: &Arc<Stay>) -> Response<Full<Bytes>> {
    let body = Bytes::from_owner(stay.answers(answer.body));
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status;
    let headers = [("content-type", answer.kind.to_owned())].into_iter().chain(answer.headers);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

#[cfg(test)]
#[path = "endpoint/endpoint_tests.rs"]
mod tests;
