//! A collector from its start to its end.

use crate::books::Books;
use crate::config::Config;
use crate::disk::Disk;
use crate::forward::Forward;
use crate::keeper::{Keeper, Losses, count, now_ns};
use crate::map;
use crate::receive::Receiver;
use crate::serve::{Door, serve};
use crate::show::{Site, is_own};
use crate::sidecars;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// Why a collector does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A port cannot be listened on.
    Port(String),
    /// The file for the copy cannot be used.
    Disk(String),
    /// The kernel refused something else.
    System(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Port(text) | Self::Disk(text) | Self::System(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Failure {}

type Result<T> = std::result::Result<T, Failure>;

/// How often what waits is looked at.
const TICK: Duration = Duration::from_secs(1);
/// With a copy on disk: after so many ticks a block is ended, however little is in it.
const WRITE_EVERY: u32 = 30;
/// What the kernel may hold of datagrams that were not read yet.
const DATAGRAMS_BYTES: usize = 4 << 20;
const TEXT_MAX: usize = 4 << 20;

/// Everything that runs.
struct Running {
    keeper: Keeper,
    disk: Option<Disk>,
}

/// Takes spans and shows them until SIGTERM or SIGINT; `say` gets a line for people when it begins.
///
/// # Errors
/// When a port, the file on disk, or a thread cannot be had.
pub fn run(config: &Config, say: impl FnOnce(&str)) -> Result<()> {
    let runtime = runtime(config)?;
    let done = runtime.block_on(async {
        let running = start(config).await?;
        say(&begun(config));
        until_asked_to_end().await?;
        running.end().await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// The map as text: that of the collector that runs here, else of what comes within `patience`.
///
/// # Errors
/// When none runs here and none can be started.
pub fn map_once(config: &Config, patience: Duration) -> Result<String> {
    let runtime = runtime(config)?;
    let text = runtime.block_on(async {
        if let Some(text) = ask_running(config).await {
            return Ok(text);
        }
        let config = Config { page_port: None, disk: None, ..config.clone() };
        let running = start(&config).await?;
        running.gather(patience).await;
        let text = running.keeper.ask(|books, now_ns| {
            let now_s = now_ns / 1_000_000_000;
            map::text(&map::map(books, &(0..now_s + 60), now_s))
        });
        text.await.ok_or_else(|| Failure::System("the books have ended".into()))
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    text
}

fn runtime(config: &Config) -> Result<Runtime> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = config.threads.unwrap_or_else(|| cpus.min(4));
    let built = Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(4)
        .thread_name("collect")
        .enable_all()
        .build();
    built.map_err(|error| Failure::System(format!("threads: {error}")))
}

async fn start(config: &Config) -> Result<Running> {
    let doors = Doors::open(config)?;
    let losses = Arc::<Losses>::default();
    let mut books = Books::new(config.memory);
    let disk = match &config.disk {
        None => None,
        Some(path) => {
            let restore_max = config.memory as u64 / 2;
            let restore = |block| books.restore(block, now_ns());
            let bytes_max = config.disk_bytes as u64;
            let disk = Disk::open(path, bytes_max, restore_max, Arc::clone(&losses), restore);
            // What came from there need not go there again.
            drop(books.take_sealed(true));
            Some(disk.map_err(Failure::Disk)?)
        }
    };
    let keeper = Keeper::start(books, config.memory, losses);
    let keeper = keeper.map_err(|error| Failure::System(format!("a thread: {error}")))?;
    let forward = config
        .forward
        .as_ref()
        .and_then(|url| url.parse().ok())
        .map(|url| Forward::start(url, config.memory / 100 * 3, Arc::clone(&keeper.losses)));
    let receiver = Receiver { keeper: keeper.clone(), forward };
    for listener in doors.spans {
        tokio::spawn(serve(listener, Door::Spans(receiver.clone())));
    }
    for socket in doors.datagrams {
        tokio::spawn(receiver.clone().take_datagrams(socket));
    }
    if let Some(listener) = doors.page {
        let site = Site::new(keeper.clone(), is_own(config.page_address));
        tokio::spawn(serve(listener, Door::Page(site)));
    }
    if config.asks_sidecars {
        tokio::spawn(sidecars::ask_all(keeper.clone()));
    }
    tokio::spawn(tend(keeper.clone(), disk.clone()));
    Ok(Running { keeper, disk })
}

/// Ports, listened on.
struct Doors {
    spans: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    page: Option<TcpListener>,
}

impl Doors {
    fn open(config: &Config) -> Result<Self> {
        let named = |name: &str, port: u16, error: io::Error| {
            Failure::Port(format!("NETRA_COLLECT_{name} {port}: {error}"))
        };
        let mut spans = Vec::new();
        for (name, port) in [
            ("GRPC_PORT", config.grpc_port),
            ("HTTP_PORT", config.http_port),
            ("JAEGER_PORT", config.jaeger_port),
        ] {
            let Some(port) = port else { continue };
            spans.push(listen(config.address, port).map_err(|error| named(name, port, error))?);
        }
        let mut datagrams = Vec::new();
        for (name, port) in
            [("COMPACT_PORT", config.compact_port), ("BINARY_PORT", config.binary_port)]
        {
            let Some(port) = port else { continue };
            let socket = datagrams_at(config.address, port);
            datagrams.push(socket.map_err(|error| named(name, port, error))?);
        }
        let page = config.page_port.map(|port| {
            listen(config.page_address, port).map_err(|error| named("PAGE_PORT", port, error))
        });
        Ok(Self { spans, datagrams, page: page.transpose()? })
    }
}

/// A socket on an address; where there is no IPv6, all addresses are those of IPv4.
fn bound(address: IpAddr, port: u16, kind: Type) -> io::Result<Socket> {
    let at = |address: IpAddr| {
        let place = SocketAddr::from((address, port));
        let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
        let socket = Socket::new(Domain::for_address(place), kind, Some(protocol))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&place.into())?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>(socket)
    };
    match at(address) {
        Err(error) if address.is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            at(Ipv4Addr::UNSPECIFIED.into())
        }
        result => result,
    }
}

fn listen(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = bound(address, port, Type::STREAM)?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

fn datagrams_at(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = bound(address, port, Type::DGRAM)?;
    // As much of it as the kernel allows.
    let _ = socket.set_recv_buffer_size(DATAGRAMS_BYTES);
    UdpSocket::from_std(socket.into())
}

/// Once a second: whoever waited long enough is settled, ended blocks go to the disk.
async fn tend(keeper: Keeper, disk: Option<Disk>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 1u32.. {
        ticks.tick().await;
        let ends = disk.is_some() && tick % WRITE_EVERY == 0;
        let sealed = keeper.ask(move |books, now_ns| {
            books.tend(now_ns);
            books.take_sealed(ends)
        });
        let Some(sealed) = sealed.await else { return };
        let Some(disk) = &disk else { continue };
        for block in sealed {
            if !disk.write(block) {
                count(&keeper.losses.not_written);
            }
        }
    }
}

async fn until_asked_to_end() -> Result<()> {
    let told = |error: io::Error| Failure::System(format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(told)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(told)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

impl Running {
    /// Waits for spans, and until no more come for a while.
    async fn gather(&self, patience: Duration) {
        let gathered = async {
            let (mut before, mut quiet) = (0, 0);
            while quiet < 4 {
                sleep(TICK / 2).await;
                let spans = self.keeper.ask(|books, _| books.counts.spans).await.unwrap_or(0);
                quiet = if spans > 0 && spans == before { quiet + 1 } else { 0 };
                before = spans;
            }
        };
        // What has come by then is what there is.
        let _ = timeout(patience, gathered).await;
    }

    /// What is in memory goes to the disk, if there is one.
    async fn end(self) {
        let Some(disk) = self.disk else { return };
        let sealed = self.keeper.ask(|books, _| books.take_sealed(true)).await.unwrap_or_default();
        let written = tokio::task::spawn_blocking(move || {
            for block in sealed {
                disk.write(block);
            }
            disk.flush();
        });
        let _ = written.await;
    }
}

/// The map of a collector that answers where this one would.
async fn ask_running(config: &Config) -> Option<String> {
    let port = config.page_port?;
    let address = match config.page_address {
        address if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        address => address,
    };
    let place = SocketAddr::from((address, port));
    let asking = async {
        let stream = TcpStream::connect(place).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = Request::get("/api/netra/map.txt").header("host", place.to_string());
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await.ok()?;
        let is_good = answer.status().is_success();
        let body = Limited::new(answer.into_body(), TEXT_MAX).collect().await.ok()?;
        let text = String::from_utf8(body.to_bytes().to_vec()).ok()?;
        (is_good && text.starts_with("from ")).then_some(text)
    };
    timeout(Duration::from_secs(5), asking).await.ok()?
}

/// What a newcomer needs to know.
fn begun(config: &Config) -> String {
    let mut lines = vec!["netra collect: ready".to_owned()];
    if let Some(page) = config.page() {
        lines.push(format!("  page      {page}"));
    }
    for (port, what) in [
        (config.grpc_port, "OTLP/gRPC"),
        (config.http_port, "OTLP/HTTP"),
        (config.jaeger_port, "Jaeger collector"),
        (config.compact_port, "Jaeger agent, UDP, compact"),
        (config.binary_port, "Jaeger agent, UDP, binary"),
    ] {
        if let Some(port) = port {
            lines.push(format!("  {port:<8}  {what}"));
        }
    }
    lines.join("\n") + "\n"
}
