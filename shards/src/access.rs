//! What the access log is told: one record for each request, and one for each opaque connection and
//! each failure, offered to rings as spans are. Full rings drop and count; the shard never waits.

use crate::{
    config::AccessLogConfig,
    error::Direction,
    spans::{Sink, Source, ring_of},
    sys::{self, Nanos},
};
use fastrand::Rng;
use netra_codecs::trace::{Fault, SpanRecord, SpanText};
use netra_perf::{Key, Recorder};
use std::{net::SocketAddr, task::Waker, time::Duration};

/// An opaque connection that has ended, or something that failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionRecord {
    /// Inbound or outbound; none where that was not found out.
    pub direction: Option<Direction>,
    /// What its bytes were read as: `opaque`, or the name of a protocol.
    pub protocol: &'static str,
    /// Why they were no longer read from some byte on, if they were before.
    pub tunnel: Option<&'static str>,
    /// Who had connected, where the kernel still knew.
    pub peer: Option<SocketAddr>,
    /// Where it wanted to go; none where nobody knows.
    pub original_dst: Option<SocketAddr>,
    /// Whom netra dialled last.
    pub dialled: Option<SocketAddr>,
    /// How it ended: one of [`netra_perf::labels::REASONS`], or a flag's word.
    pub end: &'static str,
    /// What failed.
    pub fault: Option<Fault>,
    /// The request that waited for an answer, where there was one and it is told of.
    pub known: Option<Box<Known>>,
    /// When it was accepted, in nanoseconds of Unix time.
    pub start_unix_ns: u64,
    /// From then until its end.
    pub duration: Duration,
    /// Bytes of the request and of the response way.
    pub bytes: [u64; 2],
    /// What netra itself took of all that.
    pub overhead_ns: u64,
}

impl ConnectionRecord {
    /// When it ended, in nanoseconds of Unix time.
    pub fn end_unix_ns(&self) -> u64 {
        let lasted = u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX);
        self.start_unix_ns.saturating_add(lasted)
    }
}

/// What a connection was read as, and why it is no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tunnel {
    pub(crate) protocol: &'static str,
    pub(crate) reason: &'static str,
}

/// What is known of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its trace and its span; 0 where it is in none that is reported.
    pub trace_id: u128,
    /// See above.
    pub span_id: u64,
    request_id_len: u8,
    request_id: [u8; REQUEST_ID_MAX],
}

/// Bytes of a request id that are kept.
const REQUEST_ID_MAX: usize = 63;

impl Known {
    /// Of the record of a request.
    pub(crate) fn of(record: &SpanRecord) -> Self {
        let id = record.text(SpanText::RequestId).unwrap_or_default();
        let len = id.len().min(REQUEST_ID_MAX);
        let mut request_id = [0; REQUEST_ID_MAX];
        request_id[..len].copy_from_slice(&id[..len]);
        let (trace_id, span_id) = match record.context.is_sampled() {
            true => (record.context.trace_id, record.context.span_id),
            false => (0, 0),
        };
        Self { trace_id, span_id, request_id_len: u8::try_from(len).unwrap_or(0), request_id }
    }

    /// Its request id, as it came.
    pub fn request_id(&self) -> &[u8] {
        &self.request_id[..usize::from(self.request_id_len)]
    }
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
