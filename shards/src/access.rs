//! What the access log is told: one record for each request, and one for each opaque connection,
//! offered to rings as spans are. Full rings drop and count; the shard never waits.

use crate::{
    error::Direction,
    spans::{Sink, Source, ring_of},
    sys::{self, Nanos},
};
use fastrand::Rng;
use netra_codecs::trace::SpanRecord;
use netra_perf::{Key, Recorder};
use std::{net::SocketAddr, task::Waker, time::Duration};

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AccessLogConfig {
    /// The share of requests and connections that are, 0 to 1.
    pub share: f64,
    /// Records that wait for the writer, for each shard and kind; further ones are dropped.
    pub records_max: usize,
}

/// An opaque connection that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionRecord {
    /// Inbound or outbound.
    pub direction: Direction,
    /// Who had connected, where the kernel still knew.
    pub peer: Option<SocketAddr>,
    /// Where it wanted to go.
    pub original_dst: SocketAddr,
    /// How it ended: one of [`netra_perf::labels::REASONS`].
    pub end: &'static str,
    /// When it was accepted, in nanoseconds of Unix time.
    pub start_unix_ns: u64,
    /// From then until its end.
    pub duration: Duration,
    /// Bytes of the request and of the response way.
    pub bytes: [u64; 2],
    /// What netra itself took of all that.
    pub overhead_ns: u64,
}

/// The log's end of what one shard records.
#[derive(Debug)]
pub struct AccessSource {
    /// Requests, whether or not they are traced.
    pub requests: Source<SpanRecord>,
    /// Opaque connections.
    pub connections: Source<ConnectionRecord>,
}

/// The shard's end of one kind of record.
#[derive(Debug)]
pub(crate) struct AccessSink<T> {
    share: f64,
    random: Rng,
    sink: Sink<T>,
}

/// The two ends of one shard's part of the log.
pub(crate) fn access_log(
    config: &AccessLogConfig,
) -> (AccessSink<SpanRecord>, AccessSink<ConnectionRecord>, AccessSource) {
    let (requests, requests_out) = ring_of(config.records_max, Waker::noop().clone());
    let (connections, connections_out) = ring_of(config.records_max, Waker::noop().clone());
    let source = AccessSource { requests: requests_out, connections: connections_out };
    let share = config.share;
    (AccessSink::new(share, requests), AccessSink::new(share, connections), source)
}

impl<T: Clone> AccessSink<T> {
    fn new(share: f64, sink: Sink<T>) -> Self {
        Self { share, random: Rng::new(), sink }
    }

    /// Whether the next one is logged.
    #[inline]
    pub(crate) fn takes_next(&mut self) -> bool {
        self.share >= 1.0 || self.random.f64() < self.share
    }

    /// Hands a record over.
    pub(crate) fn offer(&mut self, record: &T, recorder: &Recorder) {
        if !self.sink.offer(record) {
            recorder.bump(Key::ACCESS_LOG_DROPPED);
        }
    }
}

/// Unix time of something that was `ago`.
pub(crate) fn unix_ns_before(ago: Nanos) -> u64 {
    sys::unix_ns().saturating_sub(ago)
}
