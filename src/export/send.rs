//! What is sent, and by which transport. Sending is a task of its own, so that a receiver that is
//! slow or gone holds up only what waits for it, and only so much of that.

use super::{
    DROPPED, ExportPlan, FAILED, REJECTED, Reporter, SENT,
    agent::Agent,
    batch::Batch,
    collector::Collector,
    otlp::{self, Otlp},
    partial::Rejected,
    stdout,
};
use crate::{failure::Failure, resolver::Names};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::{info, warn};

/// Spans that are sent in one go.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) payload: Payload,
    pub(super) count: usize,
}

#[derive(Debug)]
pub(super) enum Payload {
    /// On the wire as they are.
    Bytes(Vec<u8>),
    /// For the library to encode.
    Otlp(otlp::Spans),
    #[cfg(feature = "jaeger-sdk")]
    Sdk(super::jaeger_sdk::Spans),
}

/// How a parcel is sent.
#[derive(Debug)]
enum Transport {
    Agent(Agent),
    Collector(Box<Collector>),
    Otlp(Box<Otlp>),
    Stdout,
    #[cfg(feature = "jaeger-sdk")]
    Sdk(super::jaeger_sdk::Sdk),
}

impl Transport {
    /// None for spans that go nowhere.
    fn new(plan: &ExportPlan) -> Result<Option<Self>, Failure> {
        let names = &Names::start_own();
        Ok(Some(match &plan.reporter {
            #[cfg(feature = "jaeger-sdk")]
            Reporter::Sdk { host, port } => {
                Self::Sdk(super::jaeger_sdk::Sdk::new(host, *port, plan))
            }
            Reporter::Agent { host, port, resolve_every } => {
                Self::Agent(Agent::new(names, host, *port, *resolve_every))
            }
            Reporter::Collector { url, login, reach } => {
                let (url, login, more) = (url.clone(), login.as_ref(), &plan.headers_file);
                Self::Collector(Box::new(Collector::new(names, url, login, reach, more)?))
            }
            Reporter::Otlp(receiver) => Self::Otlp(Box::new(Otlp::new(names, plan, receiver)?)),
            Reporter::Stdout => Self::Stdout,
            Reporter::Nothing => return Ok(None),
        }))
    }

    /// What the receiver has not taken, where it says so.
    async fn send(&mut self, payload: Payload) -> Result<Rejected, Failure> {
        let sent = match (self, payload) {
            (Self::Otlp(otlp), Payload::Otlp(spans)) => return otlp.send(spans).await,
            (Self::Agent(agent), Payload::Bytes(packet)) => agent.send(&packet).await,
            (Self::Collector(collector), Payload::Bytes(body)) => collector.send(body).await,
            (Self::Stdout, Payload::Bytes(lines)) => stdout::write(&lines),
            #[cfg(feature = "jaeger-sdk")]
            (Self::Sdk(sdk), Payload::Sdk(spans)) => sdk.send(spans).await,
            (transport, payload) => {
                unreachable!("{payload:?} is not for {transport:?}: one plan makes both")
            }
        };
        sent.map(|()| Rejected::default())
    }
}

/// Sends a parcel without spans. None where there is nobody to send to.
pub(super) async fn try_out(plan: &ExportPlan) -> Option<Result<(), Failure>> {
    let mut sent = None;
    let mut transport = match Transport::new(plan) {
        Ok(transport) => transport?,
        Err(error) => return Some(Err(error)),
    };
    // The kernel says at the second datagram that nobody listened to the first.
    let is_agent = matches!(transport, Transport::Agent(_));
    for _ in 0..if is_agent { 2 } else { 1 } {
        sent = Some(transport.send(Batch::new(plan).nothing()?).await.map(drop));
        tokio::time::sleep(REFUSED_WITHIN).await;
    }
    sent
}

/// How long it takes a host to say that nobody listens.
const REFUSED_WITHIN: Duration = Duration::from_millis(50);

/// The end of the line: what is offered is sent in order, or dropped at once when too much waits.
#[derive(Debug)]
pub(super) struct Queue {
    parcels: mpsc::UnboundedSender<Parcel>,
    waiting: Arc<AtomicUsize>,
    spans_max: usize,
    task: JoinHandle<()>,
}

impl Queue {
    /// Starts the task that sends.
    pub(super) fn start(plan: &ExportPlan) -> Self {
        let (parcels, from_worker) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(send_all(plan.clone(), from_worker, Arc::clone(&waiting)));
        Self { parcels, waiting, spans_max: plan.queue_spans, task }
    }

    /// Takes a parcel, if not too many spans wait already. The channel has no bound of its own,
    /// because parcels differ in weight.
    pub(super) fn offer(&self, parcel: Parcel) {
        let (count, waiting) = (parcel.count, self.waiting.load(Relaxed));
        if waiting > 0 && waiting + count > self.spans_max {
            DROPPED.fetch_add(count as u64, Relaxed);
            return;
        }
        self.waiting.fetch_add(count, Relaxed);
        if self.parcels.send(parcel).is_err() {
            DROPPED.fetch_add(count as u64, Relaxed);
        }
    }

    /// Waits until all is sent.
    pub(super) async fn finish(self) {
        drop(self.parcels);
        // A panic in the task has ended the process already.
        let _ = self.task.await;
    }
}

async fn send_all(
    plan: ExportPlan,
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
    waiting: Arc<AtomicUsize>,
) {
    let to = plan.reporter.to_string();
    let mut transport = match Transport::new(&plan) {
        Ok(transport) => transport,
        Err(error) => {
            warn!(to, error = %error, "spans cannot be sent, and never will be");
            None
        }
    };
    let mut health = Health { to, loss: Loss::default(), rejected: None };
    while let Some(Parcel { payload, count }) = parcels.recv().await {
        let sent = match &mut transport {
            Some(transport) => Some(transport.send(payload).await),
            None => None,
        };
        waiting.fetch_sub(count, Relaxed);
        match sent {
            Some(Ok(rejected)) => {
                SENT.fetch_add((count - rejected.spans) as u64, Relaxed);
                REJECTED.fetch_add(rejected.spans as u64, Relaxed);
                health.is_good(&rejected);
            }
            Some(Err(error)) => {
                FAILED.fetch_add(count as u64, Relaxed);
                health.is_bad(count, &error);
            }
            None if plan.reporter == Reporter::Nothing => {}
            None => drop(FAILED.fetch_add(count as u64, Relaxed)),
        }
    }
}

/// Says when sending begins to fail and when it works again, and nothing in between; the same of
/// spans that the receiver does not take.
#[derive(Debug)]
struct Health {
    to: String,
    loss: Loss,
    /// Spans that were not taken since the receiver began to complain.
    rejected: Option<usize>,
}

impl Health {
    fn is_good(&mut self, not_taken: &Rejected) {
        if let Some(lost) = self.loss.is_good(Instant::now()) {
            info!(to = self.to, lost, "spans are sent again");
        }
        match (&mut self.rejected, not_taken.is_nothing()) {
            (None, true) => {}
            (Some(rejected), false) => *rejected += not_taken.spans,
            (Some(rejected), true) => {
                info!(to = self.to, rejected, "the receiver takes all spans again");
                self.rejected = None;
            }
            (None, false) => {
                let Rejected { spans, reason } = not_taken;
                warn!(
                    to = self.to,
                    rejected = spans,
                    reason = %reason,
                    "the receiver does not take all spans"
                );
                self.rejected = Some(*spans);
            }
        }
    }

    fn is_bad(&mut self, count: usize, error: &Failure) {
        if self.loss.is_bad(count, Instant::now()) {
            warn!(to = self.to, error = %error, "spans cannot be sent");
        }
    }
}

/// So long must sending work before it is said to work again. A datagram to a port where nobody
/// listens is refused when the next one is sent: of two, one seems to have been sent.
const CALM: Duration = Duration::from_secs(10);

/// Spans that were lost since sending began to fail.
#[derive(Debug, Default)]
struct Loss {
    lost: usize,
    failed_at: Option<Instant>,
}

impl Loss {
    /// Some have been sent. Returns how many were lost, when that is over.
    fn is_good(&mut self, now: Instant) -> Option<usize> {
        self.failed_at.take_if(|at| now.duration_since(*at) >= CALM)?;
        Some(std::mem::take(&mut self.lost))
    }

    /// So many are lost; true when that begins.
    fn is_bad(&mut self, count: usize, now: Instant) -> bool {
        self.lost += count;
        self.failed_at.replace(now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_fails_every_other_time_is_told_of_once() {
        let (mut loss, begin) = (Loss::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(loss.is_good(at(0)), None);
        assert!(loss.is_bad(3, at(100)));
        for turn in 1..100 {
            assert_eq!(loss.is_good(at(100 + turn * 200)), None);
            assert!(!loss.is_bad(1, at(200 + turn * 200)));
        }
        assert_eq!(loss.is_good(at(29_999)), None);
        assert_eq!(loss.is_good(at(30_000)), Some(102));
        assert_eq!(loss.is_good(at(40_000)), None);
        assert!(loss.is_bad(1, at(40_001)));
    }
}
