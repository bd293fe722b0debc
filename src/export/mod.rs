//! Finished spans on their way out: a thread of its own takes them from the shards' rings, turns
//! them into wire form and sends them. It is off the data cores, and a shard wakes it once for each
//! half of its ring. Whatever becomes of the receiver, the rings are emptied: what cannot be sent is
//! dropped and counted.

mod agent;
mod batch;
mod collector;
mod exchange_tags;
#[cfg(any(test, feature = "jaeger-sdk"))]
mod jaeger_sdk;
mod otlp;
mod otlp_client;
mod pace;
mod partial;
mod process;
mod send;
mod stdout;
mod stream_tags;
mod tags;
mod thrift;
mod worker;

pub(crate) use otlp_client::{OtlpClient, reason_of};
pub(crate) use pace::Pace;
pub(crate) use partial::Rejected;
pub(crate) use process::Process;

use crate::{failure::Failure, mask::Query, reach::Reach, url::Url};
use netra_perf::Exemplars;
use netra_shards::SpanSource;
use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Wake, Waker},
    thread,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Spans that a receiver took, as far as its protocol says so; UDP says nothing.
pub(crate) static SENT: AtomicU64 = AtomicU64::new(0);
/// Spans that could not be sent, or that the receiver refused.
pub(crate) static FAILED: AtomicU64 = AtomicU64::new(0);
/// Spans that the receiver did not take though it answered with success.
pub(crate) static REJECTED: AtomicU64 = AtomicU64::new(0);
/// Spans for which there was no room while others waited to be sent.
pub(crate) static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Traces that show in the histograms of `/metrics`, noted by the export thread alone.
pub(crate) static EXEMPLARS: Exemplars = Exemplars::new();

/// What is exported, how and where to.
#[derive(Clone, Debug)]
pub(crate) struct ExportPlan {
    pub(crate) service_name: String,
    pub(crate) reporter: Reporter,
    pub(crate) semconv: Semconv,
    /// What spans tell of queries.
    pub(crate) query: Query,
    /// The tags of mapped headers and cookies, by index.
    pub(crate) mapped_tags: Vec<String>,
    /// What the settings add to the process's tags.
    pub(crate) process_tags: Vec<(String, String)>,
    /// Spans that may wait to be sent.
    pub(crate) queue_spans: usize,
    pub(crate) flush_interval: Duration,
    /// Each span is logged as well.
    pub(crate) logs_spans: bool,
    /// A file with headers for a receiver over HTTP; empty where there is none.
    pub(crate) headers_file: String,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reporter {
    /// A Jaeger agent: thrift compact over UDP.
    Agent {
        host: String,
        port: u16,
        /// How often its name is resolved, when more than once.
        resolve_every: Option<Duration>,
    },
    /// The same by way of `opentelemetry-jaeger`.
    #[cfg(feature = "jaeger-sdk")]
    Sdk { host: String, port: u16 },
    /// A Jaeger collector: thrift binary over HTTP.
    Collector { url: Url, login: Option<(String, String)>, reach: Reach },
    /// An OTLP receiver.
    Otlp(OtlpPlan),
    /// Lines of JSON to stdout.
    Stdout,
    /// Nowhere.
    Nothing,
}

/// How an OTLP receiver is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtlpPlan {
    pub(crate) protocol: Protocol,
    /// A URL.
    pub(crate) endpoint: String,
    pub(crate) reach: Reach,
    pub(crate) headers: Vec<(String, String)>,
    /// How long a send may take.
    pub(crate) timeout: Duration,
    pub(crate) is_gzip: bool,
}

/// The forms of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `http/protobuf`
    Http,
    /// `grpc`
    Grpc,
}

/// The names of span tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Semconv {
    /// netramesh's.
    #[default]
    Legacy,
    /// OpenTelemetry's.
    Otel,
    /// First netramesh's, then OpenTelemetry's.
    Both,
}

impl fmt::Display for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { host, port, .. } => write!(f, "Jaeger agent {host}:{port}, UDP"),
            #[cfg(feature = "jaeger-sdk")]
            Self::Sdk { host, port } => {
                write!(f, "Jaeger agent {host}:{port}, UDP, by opentelemetry-jaeger")
            }
            Self::Collector { url, .. } => write!(f, "Jaeger collector {url}"),
            Self::Otlp(plan) => plan.fmt(f),
            Self::Stdout => f.write_str("stdout"),
            Self::Nothing => f.write_str("none, nothing is sent"),
        }
    }
}

impl fmt::Display for OtlpPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = match self.protocol {
            Protocol::Http => "HTTP",
            Protocol::Grpc => "gRPC",
        };
        write!(f, "OTLP over {over}, {}", self.endpoint)?;
        let Some(proxy) = &self.reach.proxy else { return Ok(()) };
        write!(f, ", by the proxy {proxy}")
    }
}

/// Tries a receiver out with a batch of no spans: what came of it, or none where there is nobody to
/// try.
pub(crate) async fn try_out(plan: &ExportPlan) -> Option<Result<(), Failure>> {
    send::try_out(plan).await
}

/// What the thread is told.
#[derive(Debug)]
enum Order {
    /// From now on take spans from here.
    Take(Vec<SpanSource>),
    /// There may be much to take.
    Look,
    /// The shards have ended: send what is left, then say so.
    Finish(oneshot::Sender<()>),
}

/// The running export thread.
#[derive(Debug)]
pub(crate) struct Exporter {
    orders: mpsc::Sender<Order>,
    /// A look has been ordered and not begun.
    is_look_ordered: Arc<AtomicBool>,
}

/// OTLP's futures are deep, above all in debug builds. What is not touched is not there.
const STACK_BYTES: usize = 1024 * 1024;
/// Of each order there is at most one at a time.
const ORDERS_MAX: usize = 3;

/// Makes the thread look into the rings.
#[derive(Debug)]
struct Look {
    orders: mpsc::Sender<Order>,
    is_ordered: Arc<AtomicBool>,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_ordered.swap(true, Relaxed) {
            // There is room for it.
            let _ = self.orders.try_send(Order::Look);
        }
    }
}

impl Exporter {
    /// Starts the thread. Call it before the shards are pinned: it would inherit the pin.
    pub(crate) fn start(plan: ExportPlan) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Names are resolved there, one at a time, and rarely.
            .max_blocking_threads(1)
            .thread_keep_alive(Duration::from_millis(100))
            .build()?;
        let (orders, from_control) = mpsc::channel(ORDERS_MAX);
        let is_look_ordered = Arc::<AtomicBool>::default();
        let looking = Arc::clone(&is_look_ordered);
        thread::Builder::new().name("export".into()).stack_size(STACK_BYTES).spawn(move || {
            runtime.block_on(worker::run(plan, from_control, &looking));
            // A name that is still being resolved is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { orders, is_look_ordered })
    }

    /// What the shards call when there is much to take.
    pub(crate) fn waker(&self) -> Waker {
        let is_ordered = Arc::clone(&self.is_look_ordered);
        Arc::new(Look { orders: self.orders.clone(), is_ordered }).into()
    }

    /// Hands the shards' spans over.
    pub(crate) fn take(&self, sources: Vec<SpanSource>) {
        // There is room for every order, and the thread lives as long as this does.
        let _ = self.orders.try_send(Order::Take(sources));
    }

    /// Sends what is left once the shards have ended; says whether that was done within `patience`.
    pub(crate) async fn finish(self, patience: Duration) -> bool {
        let (done, finished) = oneshot::channel();
        let _ = self.orders.try_send(Order::Finish(done));
        matches!(timeout(patience, finished).await, Ok(Ok(())))
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
pub(crate) mod tests;
