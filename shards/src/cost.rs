//! What a request costs the shard, kernel left out: a backend that always has the next message and
//! takes every byte, and the very same loop over it; beside it the parts that it is made of, each
//! alone. `make bench-check` counts their instructions.
//!
//! Nothing here depends on the clock or on chance, so that two runs of one build are one count.

mod check;
mod gates;
mod messages;
mod parts;

use crate::{
    buffers::{BufferId, BufferPool},
    config::{HttpConfig, JoinLevel, Limits, TracingConfig},
    core::HttpCore,
    correlate::{Keep, correlate},
    error::Direction,
    exchange::{Gates, Observer, Reads, Taps, WritesContext},
    io::{Close, Dialled, Event, Hop, Io, Polled, Side, Token, Wait, When},
    joins::Shared,
    links::LinkNames,
    shard::{Parts, Shard},
    simulation,
    spans::{self, SpanSource},
    sys::{Fd, Nanos, TcpInfo, counting},
};
use messages::Conversation;
use netra_codecs::{
    codec::Why,
    tap::{Protocol, ProtocolPorts},
    trace::{
        Formats, KeySeed,
        sampler::{SampleRule, SamplerPlan},
    },
};
use netra_perf::{Key, Recorder};
use std::{
    cell::Cell,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    sync::{Arc, mpsc},
    task::Waker,
    time::{Duration, Instant},
};

/// One connection that asks and is answered, once a turn.
#[derive(Debug)]
struct Treadmill {
    conversation: Conversation,
    direction: Direction,
    accepted: bool,
    /// What comes next in this turn.
    left: u32,
    sent: usize,
    /// Messages so far that are streams of their own.
    streams: u32,
    /// How often the time was asked for: it goes on by as much each time.
    clock_reads: Cell<u64>,
    /// Nobody answers: the requests do not come there.
    is_silent: bool,
    dials: u32,
}

/// What passes between two looks at the clock.
const TICK_NS: Nanos = 2_000;

const DOWNSTREAM: Token = Token { slot: 0, generation: 1, side: Side::Downstream };

impl Treadmill {
    fn new(conversation: Conversation, direction: Direction) -> Self {
        let clock_reads = Cell::new(0);
        Self {
            conversation,
            direction,
            accepted: false,
            left: 0,
            sent: 0,
            streams: 0,
            clock_reads,
            is_silent: false,
            dials: 0,
        }
    }
}

impl Io for Treadmill {
    type Pipe = ();

    fn now(&self) -> Nanos {
        self.clock_reads.set(self.clock_reads.get() + 1);
        1_000_000_000 + TICK_NS * self.clock_reads.get()
    }

    fn turn(&mut self, _: &mut BufferPool, _: Wait) -> io::Result<()> {
        self.left = 2;
        Ok(())
    }

    fn next(&mut self, pool: &mut BufferPool) -> Option<Event> {
        if !std::mem::replace(&mut self.accepted, true) {
            self.left = 0;
            return Some(Event::Accepted(3));
        }
        self.left = self.left.checked_sub(1).filter(|left| *left > 0 || !self.is_silent)?;
        let (token, bytes) = match self.left {
            1 => (DOWNSTREAM, self.conversation.request),
            _ => (DOWNSTREAM.other(), self.conversation.response),
        };
        let buffer: BufferId = pool.lend()?;
        let (room, mut at) = (pool.room(buffer), 0);
        if let Some(opening) = self.conversation.opening {
            let opening = opening[1 - self.left as usize];
            if self.streams < 2 {
                room[..opening.len()].copy_from_slice(opening);
                at = opening.len();
            }
            self.streams += 1;
        }
        room[at..at + bytes.len()].copy_from_slice(bytes);
        if self.conversation.opening.is_some() {
            number(&mut room[at..at + bytes.len()], 2 * self.streams.div_ceil(2) + 1);
        }
        pool.set_filled(buffer, u32::try_from(at + bytes.len()).unwrap());
        Some(Event::Received(token, buffer))
    }

    fn poll(&mut self, _: Nanos) -> Polled {
        Polled::AtOnce
    }

    fn accept(&mut self, _: u32) {}
    fn close_listener(&mut self, _: u32) {}
    fn listener_closed(&self) -> bool {
        true
    }

    fn local_addr(&self, _: Fd) -> io::Result<SocketAddr> {
        // The kernel gives the loopback address to what was sent from here.
        let inbound = self.direction == Direction::Inbound;
        Ok(SocketAddr::from((if inbound { [10, 0, 0, 2] } else { [127, 0, 0, 1] }, 14956)))
    }
    fn original_dst(&self, _: Fd, _: SocketAddr) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 2], 8080)))
    }
    fn caller_of(&self, _: Fd) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 1], 40_000)))
    }
    fn is_local(&self, _: IpAddr) -> bool {
        self.direction == Direction::Inbound
    }
    fn is_link_of(&self, _: IpAddr, _: &LinkNames) -> bool {
        false
    }
    fn peer_addr(&self, _: Token) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 1], 40_000)))
    }
    fn tcp_info(&self, _: Token) -> io::Result<TcpInfo> {
        Err(io::ErrorKind::NotConnected.into())
    }
    fn receive_early(&mut self, _: Fd, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }
    fn receive_first(&mut self, _: Token, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }
    fn dial(&mut self, _: SocketAddr, _: Hop) -> io::Result<Dialled> {
        self.dials += 1;
        Ok(Dialled { fd: 4, connected: true })
    }
    fn local_hop(&mut self, _: Fd) {}
    fn discard(&mut self, _: Fd, _: Close) {}
    fn open(&mut self, _: Token, _: Fd) -> io::Result<()> {
        Ok(())
    }
    fn exchange(&mut self, _: Token, _: Token) -> bool {
        // There is one conversation, whoever it is with.
        true
    }

    fn dial_outcome(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }
    fn watch_silence(&mut self, _: Token) {}
    fn acknowledge_at_once(&mut self, _: Token) {}
    fn receive(&mut self, _: Token) {}
    fn pause(&mut self, _: Token) -> When {
        When::Now
    }
    fn watch_read(&mut self, _: Token) {}
    fn watch_write(&mut self, _: Token) {}

    fn send(&mut self, _: Token, bytes: &[u8]) -> io::Result<usize> {
        self.sent += bytes.len();
        Ok(bytes.len())
    }
    fn end_follows(&mut self, _: Token) -> bool {
        false
    }
    fn send_before_end(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize> {
        self.send(token, bytes)
    }
    fn push(&mut self, _: Token) {}
    fn send_pieces(&mut self, _: Token, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        self.sent += len;
        Ok(len)
    }
    fn peek(&mut self, _: Token, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
    fn take(&mut self, _: Token, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn shutdown_write(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }
    fn close(&mut self, _: Token, _: Close) -> When {
        When::Now
    }

    fn pipe(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
    fn pipe_capacity((): &()) -> u32 {
        0
    }
    fn fill(&mut self, _: Token, (): &(), _: usize) -> io::Result<usize> {
        Ok(0)
    }
    fn drain(&mut self, _: Token, (): &(), _: usize) -> io::Result<usize> {
        Ok(0)
    }
}

/// Writes the number of a stream into the heads of its frames.
fn number(frames: &mut [u8], stream: u32) {
    let mut at = 0;
    while at < frames.len() {
        let len = u32::from_be_bytes([0, frames[at], frames[at + 1], frames[at + 2]]);
        frames[at + 5..at + 9].copy_from_slice(&stream.to_be_bytes());
        at += 9 + len as usize;
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// A request and its response are relayed.
    Tcp,
    /// They are read as HTTP, and no trace is sampled.
    Untraced,
    /// The same, and every request is traced.
    Traced,
    /// They are a call of gRPC, over HTTP/2.
    Grpc,
    /// The same, and every call is traced.
    GrpcTraced,
    /// They are of Redis and tapped: counted, and not traced.
    Redis,
    /// The same, and every exchange is traced.
    RedisTraced,
    /// They are of Dubbo.
    Dubbo,
    /// The same, traced.
    DubboTraced,
    /// The same, not traced, as it comes in where anything may be: a request id and a context are
    /// written into each request, and remembered.
    DubboWritten,
    /// They are of Thrift.
    Thrift,
    /// The same, traced.
    ThriftTraced,
    /// They are of Kafka.
    Kafka,
    /// The same, traced.
    KafkaTraced,
    /// HTTP, traced, of which rules decide: each request is given a field, and its answer has a limit.
    HttpGated,
    /// The same of Redis: nothing is written into it.
    RedisGated,
    /// The same of Dubbo: its trace context is written into each request, too, and its answers are looked
    /// at before they leave.
    DubboGated,
    /// The same of Thrift.
    ThriftGated,
    /// The head of the request is read.
    RequestHead,
    /// The head of the response is read.
    ResponseHead,
    /// A context is remembered and found, and one expires.
    Context,
}

impl Work {
    const ALL: [Self; 21] = [
        Self::Tcp,
        Self::Untraced,
        Self::Traced,
        Self::Grpc,
        Self::GrpcTraced,
        Self::Redis,
        Self::RedisTraced,
        Self::Dubbo,
        Self::DubboTraced,
        Self::DubboWritten,
        Self::Thrift,
        Self::ThriftTraced,
        Self::Kafka,
        Self::KafkaTraced,
        Self::HttpGated,
        Self::RedisGated,
        Self::DubboGated,
        Self::ThriftGated,
        Self::RequestHead,
        Self::ResponseHead,
        Self::Context,
    ];

    /// Does it so often, after as often as it takes until nothing grows any more. Returns the
    /// allocations that it made then.
    fn play(self, times: u32) -> u64 {
        match self {
            Self::RequestHead => parts::request_head(messages::REQUEST, times),
            Self::ResponseHead => parts::response_head(messages::RESPONSE, times),
            Self::Context => parts::context(times),
            _ => play_shard(self, self.direction(), times),
        }
    }

    /// What is tapped, or gated.
    fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Redis | Self::RedisTraced | Self::RedisGated => Some(Protocol::Redis),
            Self::Dubbo | Self::DubboTraced | Self::DubboWritten | Self::DubboGated => {
                Some(Protocol::Dubbo)
            }
            Self::Thrift | Self::ThriftTraced | Self::ThriftGated => Some(Protocol::Thrift),
            Self::Kafka | Self::KafkaTraced => Some(Protocol::Kafka),
            _ => None,
        }
    }

    fn is_traced(self) -> bool {
        matches!(
            self,
            Self::Traced
                | Self::GrpcTraced
                | Self::RedisTraced
                | Self::DubboTraced
                | Self::ThriftTraced
                | Self::KafkaTraced
        ) || self.is_gated()
    }

    /// Rules decide about it.
    fn is_gated(self) -> bool {
        matches!(self, Self::HttpGated | Self::RedisGated | Self::DubboGated | Self::ThriftGated)
    }

    /// Contexts are written into it.
    fn is_written(self) -> bool {
        self == Self::DubboWritten || self.is_gated()
    }

    /// Where it goes. Routes, and all that hangs on them, are for what is asked elsewhere.
    fn direction(self) -> Direction {
        if self.is_gated() { Direction::Outbound } else { Direction::Inbound }
    }

    fn is_http(self) -> bool {
        matches!(
            self,
            Self::Untraced | Self::Traced | Self::Grpc | Self::GrpcTraced | Self::HttpGated
        )
    }
}

/// What `work` allocates. Of memory that grows with use nothing is left to grow after a while.
fn allocations_of(mut work: impl FnMut(u32), times: u32) -> u64 {
    work(WARM_UP);
    let before = counting::allocations();
    work(times);
    counting::allocations() - before
}

fn shard(work: Work, direction: Direction) -> (Shard<Treadmill>, Option<SpanSource>) {
    let ttl = Duration::from_secs(5);
    let keep = Keep { entries_max: 4096, context_ttl: ttl, route_ttl: ttl };
    let rule = SampleRule::Const(work.is_traced());
    let config = HttpConfig {
        ports: work.is_http().then_some(8080).into_iter().collect(),
        tracing: Some(TracingConfig {
            join: JoinLevel::Tx,
            formats: Formats::UBER,
            wide_ids: false,
            sampler: Arc::new(SamplerPlan { rule, parent_based: true, is_remote: false }),
            ignored_paths: Box::default(),
            header_tags: Box::default(),
            cookie_tags: Box::default(),
            spans_max: 256,
            waker: Waker::noop().clone(),
        }),
        ..HttpConfig::default()
    };
    let (sink, source) = spans::ring(256, Waker::noop().clone());
    let correlation = correlate(KeySeed::from_random([1, 2, 3]), keep, &[-1]).remove(0);
    let http = HttpCore::new(&config, correlation);
    let mut observer = Observer::new(config.tracing.as_ref(), 1, (Some(sink), None)).joining(
        &Shared::new(1),
        0,
        JoinLevel::Tx,
    );
    observer.draw_from(4);
    let protocol = work.protocol();
    let taps: ProtocolPorts =
        protocol.map_or_else(String::new, |it| format!("8080={it}")).parse().unwrap();
    let is_grpc = matches!(work, Work::Grpc | Work::GrpcTraced);
    let parts = Parts {
        // What inbound requests leave behind is a gate's as well.
        http: (work.is_http() || work.is_written()).then(|| Box::new(http)),
        gates: gates_of(work, &config),
        observer,
        recorder: Arc::new(Recorder::of(&Reads::on(&taps).tables())),
        taps: Taps::new(Reads::on(&taps), config.limits, config.held_bytes_max),
        pool: BufferPool::new(64, 16 * 1024).unwrap(),
        // The treadmill has no silence: its first turn accepts, and dials.
        ..simulation::parts(
            Limits { defer_dial: Duration::ZERO, ..Limits::default() },
            1,
            mpsc::channel().1,
        )
    };
    let of_http = if is_grpc { messages::GRPC } else { messages::HTTP };
    let conversation = protocol.map_or(of_http, |it| Conversation::of(it).unwrap());
    (Shard::new(Treadmill::new(conversation, direction), parts), Some(source))
}

/// Who stands in the way of its messages.
fn gates_of(work: Work, config: &HttpConfig) -> Gates {
    match work {
        _ if work.is_gated() => gates::of(work.protocol(), config),
        Work::DubboWritten => Gates::new(WritesContext::of(config)),
        _ => Gates::default(),
    }
}

/// Plays requests, and takes the spans away as the exporter would.
fn play(shard: &mut Shard<Treadmill>, spans: &mut Option<SpanSource>, requests: u32) {
    for request in 0..requests {
        shard.turn(Wait::Poll).unwrap();
        if request % 128 == 0
            && let Some(spans) = spans
        {
            spans.drain(256, |_| {});
        }
    }
}

/// Beyond the size of the map of contexts, so that it turns over.
const WARM_UP: u32 = 10_000;

fn play_shard(work: Work, direction: Direction, requests: u32) -> u64 {
    let (mut shard, mut spans) = shard(work, direction);
    let allocated = allocations_of(|times| play(&mut shard, &mut spans, times), requests);
    let recorder = &shard.core.recorder;
    let spans = recorder.get(Key::span(0));
    let played = u64::from(requests + WARM_UP);
    let expected = if work.is_traced() { played } else { 0 };
    assert!(spans + 1 >= expected, "{spans} spans of {expected}");
    if work.protocol().is_some() {
        let ok = recorder.exchanges().counts().filter(|it| it.labels[3] == "ok");
        let counted: u64 = ok.map(|it| it.total).sum();
        // The first turn of all accepts.
        assert_eq!(counted + 1, played, "exchanges that were counted");
    }
    if matches!(work, Work::Grpc | Work::GrpcTraced) {
        // The first turn of all accepts, and the first call comes before those of the turns.
        assert_eq!(recorder.get(Key::request(0, 2, 2)), played, "calls that were counted");
    }
    assert_eq!(recorder.get(Key::span(2)), 0, "the ring was full");
    if let Some(rules) = &shard.core.gates.rules {
        gates::have_decided(rules, played);
    }
    if matches!(work, Work::DubboGated | Work::DubboWritten) {
        assert!(recorder.get(Key::edited(0)) + 1 >= played, "calls that were written into");
    }
    allocated
}

/// `NETRA_COST_TIMES=n NETRA_COST_WORK=Traced` plays that alone, for a profiler.
#[test]
fn a_request_allocates_nothing() {
    let number = |name: &str| std::env::var(name).ok();
    let times = number("NETRA_COST_TIMES").map_or(20_000, |text| text.parse().unwrap());
    let only = number("NETRA_COST_WORK");
    let is_asked_for = |work: &Work| only.as_ref().is_none_or(|it| *it == format!("{work:?}"));
    let works: Vec<_> = Work::ALL.into_iter().filter(is_asked_for).collect();
    assert!(!works.is_empty(), "{only:?} is no work");
    for work in works {
        let begun = Instant::now();
        let allocated = work.play(times);
        let took = begun.elapsed().as_nanos() / u128::from(times + WARM_UP);
        eprintln!("{work:?}: {took} ns each time");
        assert_eq!(allocated, 0, "{work:?}: allocations in {times} times");
    }
}

/// Of what comes in limits and conditions decide, not routes.
#[test]
fn a_gated_request_allocates_nothing_whichever_way_it_goes() {
    for work in Work::ALL.into_iter().filter(|work| work.is_gated()) {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let allocated = play_shard(work, direction, 5_000);
            assert_eq!(allocated, 0, "{work:?} {direction:?}");
        }
    }
}

/// Protocols whose requests are refused and moved one by one.
const GATED: [Work; 3] = [Work::RedisGated, Work::DubboGated, Work::ThriftGated];

/// What its client is told is written into storage that others have used.
#[test]
fn a_refused_request_allocates_nothing() {
    for work in GATED {
        let (mut shard, mut spans) = shard(work, Direction::Outbound);
        shard.core.gates.rules = work.protocol().map(gates::refusing);
        shard.core.io.is_silent = true;
        let allocated = allocations_of(|times| play(&mut shard, &mut spans, times), 5_000);
        let refused = shard.core.recorder.get(Key::refused(Why::NoRoute as usize));
        assert_eq!(refused + 1, u64::from(WARM_UP + 5_000), "{work:?}: the first turn accepts");
        assert!(shard.core.io.sent > WARM_UP as usize * 10, "{work:?}: nobody is told");
        assert_eq!(allocated, 0, "{work:?}");
    }
}

/// Each goes to another upstream than the one before, which is left for it, or by another leg.
#[test]
fn a_request_that_goes_elsewhere_allocates_nothing() {
    for work in GATED {
        // The first turn accepts, and dials where the connection wanted to go.
        for (legs_max, dials) in [(1, WARM_UP + 5_000), (8, 3)] {
            let (mut shard, mut spans) = shard(work, Direction::Outbound);
            shard.core.limits.legs_max = legs_max;
            shard.core.gates.rules = work.protocol().map(gates::moving);
            let allocated = allocations_of(|times| play(&mut shard, &mut spans, times), 5_000);
            assert_eq!(shard.core.io.dials, dials, "{work:?}, {legs_max} upstreams");
            assert_eq!(allocated, 0, "{work:?}, {legs_max} upstreams");
        }
    }
}

/// Copies are gathered in storage that the connection keeps.
#[test]
fn a_request_that_is_copied_allocates_nothing() {
    for work in GATED {
        let (mut shard, mut spans) = shard(work, Direction::Outbound);
        shard.core.gates.rules = work.protocol().map(gates::mirroring);
        let allocated = allocations_of(|times| play(&mut shard, &mut spans, times), 5_000);
        let copied = shard.core.recorder.get(Key::mirrored(0));
        assert_eq!(copied + 1, u64::from(WARM_UP + 5_000), "{work:?}: the first turn accepts");
        assert_eq!((allocated, shard.mirrors), (0, 1), "{work:?}");
    }
}

/// Each look at the clock is a call that the kernel's page answers, but a call.
#[test]
fn a_request_looks_at_the_clock_so_often() {
    for (work, reads) in [
        (Work::Tcp, 4),
        (Work::Untraced, 4),
        (Work::Traced, 4),
        (Work::Redis, 4),
        (Work::DubboTraced, 4),
    ] {
        let (mut shard, mut spans) = shard(work, Direction::Inbound);
        play(&mut shard, &mut spans, 1);
        let before = shard.core.io.clock_reads.get();
        play(&mut shard, &mut spans, 100);
        let read = shard.core.io.clock_reads.get() - before;
        assert_eq!(read, 100 * reads, "{work:?}: {read} looks at the clock in 100 requests");
    }
}
