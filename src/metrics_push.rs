//! Metrics that are pushed: every minute, over OTLP, to whoever cannot scrape a pod. The same figures as
//! on `/metrics`, in OpenTelemetry's names. Done by the control thread; a receiver that is slow or gone
//! costs log lines, one when it begins and one when it ends, and nothing is lost by it: figures are
//! told with the next push.

use crate::{
    export::{OtlpClient, OtlpPlan, Rejected, reason_of},
    failure::Failure,
    resolver::Names,
};
use hyper::{
    Method, Request,
    body::Bytes,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
};
use netra_codecs::{codec::Convention, tap::Protocol};
use netra_perf::{
    Counter, Exposition,
    otlp::{Encoder, Form, System},
};
use std::{
    io::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tracing::{info, warn};

/// Pushes that were taken.
pub(crate) static SENT: AtomicU64 = AtomicU64::new(0);
/// Pushes that were not.
pub(crate) static FAILED: AtomicU64 = AtomicU64::new(0);
/// Pushes of which a part was not taken, though they were answered with success.
pub(crate) static REJECTED: AtomicU64 = AtomicU64::new(0);

/// What is pushed, where to and how often.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsPlan {
    pub(crate) receiver: OtlpPlan,
    pub(crate) headers_file: String,
    pub(crate) every: Duration,
    pub(crate) form: Form,
    /// Attributes of the process.
    pub(crate) resource: Vec<(String, String)>,
    /// Those that exchanges may be of.
    pub(crate) protocols: Vec<Protocol>,
}

/// What the conventions call it.
fn system_of(protocol: &Protocol) -> (&'static str, System) {
    let about = protocol.about();
    let system = match about.convention {
        Convention::Db(name) | Convention::Sql(name) => System::Database(name),
        Convention::Rpc(name) => System::Rpc(name),
        Convention::Messaging { system, .. } => System::Messaging(system),
    };
    (about.name, system)
}

/// The method that takes metrics, as gRPC names it.
const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// The running task. Dropping it leaves the task to the runtime.
#[derive(Debug)]
pub(crate) struct Push {
    finish: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Push {
    /// Starts it where there is a plan, in the runtime of whoever calls. That it cannot be started is
    /// no matter for traffic.
    pub(crate) fn start(
        plan: Option<&MetricsPlan>,
        exposition: impl FnOnce() -> Exposition,
        names: &Names,
        started: SystemTime,
    ) -> Option<Self> {
        let plan = plan?;
        let client = OtlpClient::new(names, &plan.receiver, &plan.headers_file, EXPORT);
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                warn!(error = %error, "metrics cannot be pushed");
                return None;
            }
        };
        let (version, resource) = (env!("CARGO_PKG_VERSION"), plan.resource.clone());
        let encoder = Encoder::new(plan.form, resource, version, unix_ns(started));
        let encoder = encoder.with_systems(plan.protocols.iter().map(system_of).collect());
        let (exposition, is_gzip) = (exposition(), plan.receiver.is_gzip);
        let pusher = Pusher { client, encoder, exposition, is_gzip, is_failing: false };
        let (finish, finished) = oneshot::channel();
        let task = tokio::spawn(pusher.run(plan.every, finished));
        Some(Self { finish, task })
    }
}

/// Pushes once more and ends, within `patience`.
pub(crate) async fn finish(push: Option<Push>, patience: Duration) {
    let Some(Push { finish, task }) = push else { return };
    let _ = finish.send(());
    if timeout(patience, task).await.is_err() {
        warn!(after_ms = patience.as_millis(), "ended with metrics that were not pushed");
    }
}

/// One of the counters above as `/metrics` has it.
pub(crate) const fn counter(result: &'static str, cell: &'static AtomicU64) -> Counter {
    let help = "Pushes of metrics, by what became of them";
    Counter { name: "netra_metric_pushes", help, label: Some(("result", result)), cell }
}

struct Pusher {
    client: OtlpClient,
    encoder: Encoder,
    exposition: Exposition,
    is_gzip: bool,
    is_failing: bool,
}

impl Pusher {
    async fn run(mut self, every: Duration, mut finished: oneshot::Receiver<()>) {
        // Many that started together do not push together.
        let mut next = first_wait(every);
        loop {
            let is_over = timeout(next, &mut finished).await.is_ok();
            next = every;
            self.push().await;
            if is_over {
                return;
            }
        }
    }

    async fn push(&mut self) {
        let message = self.encoder.encode(self.exposition.metrics(), unix_ns(SystemTime::now()));
        match self.send(message).await {
            Ok(rejected) => {
                self.encoder.taken();
                let counted = if rejected.spans > 0 { &REJECTED } else { &SENT };
                counted.fetch_add(1, Relaxed);
                self.say((!rejected.is_nothing()).then(|| {
                    format!("{} points are not taken: {}", rejected.spans, rejected.reason)
                }));
            }
            Err(error) => {
                FAILED.fetch_add(1, Relaxed);
                self.say(Some(error.to_string()));
            }
        }
    }

    /// Once when it begins, once when it is over.
    fn say(&mut self, trouble: Option<String>) {
        match (trouble, self.is_failing) {
            (Some(error), false) => warn!(error, "metrics are not taken; they are told again"),
            (None, true) => info!("metrics are taken again"),
            (Some(_), true) => return,
            (None, false) => return,
        }
        self.is_failing = !self.is_failing;
    }

    async fn send(&self, message: Vec<u8>) -> Result<Rejected, Failure> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if self.is_gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *request.body_mut() = if self.is_gzip { gzip(&message)? } else { message.into() };
        let answer = self.client.send(request).await?;
        match answer.status().is_success() {
            true => Ok(Rejected::read(answer.body())),
            false => Err(format!("the receiver answered {}", reason_of(&answer)).into()),
        }
    }
}

fn gzip(message: &[u8]) -> Result<Bytes, Failure> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(message)?;
    Ok(gzip.finish()?.into())
}

fn unix_ns(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Between nothing and a whole interval, by this process's number.
fn first_wait(every: Duration) -> Duration {
    every.mul_f64(f64::from(std::process::id() % 97 + 1) / 97.0)
}
