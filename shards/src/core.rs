//! What all connections of a shard share, and what does not depend on any one of them.

use crate::{
    access::{AccessSink, ConnectionRecord},
    buffers::{BufferId, BufferPool},
    config::{HttpConfig, Limits},
    correlate::Correlation,
    editor::Editor,
    error::End,
    exchange::{Gates, Named, Observer, Taps},
    failures::Failures,
    io::{Io, Side, Token, would_block},
    links::LinkNames,
    own_dials::OwnDials,
    pipes::PipePool,
    pressure::{MemoryCount, Pressure},
    remembered::Remembered,
    resolve::Resolver,
    sources::Sources,
    sys::{Fd, Nanos, nanos},
};
use netra_codecs::{
    PortSet,
    h1::{HeadPatch, HeadReader},
};
use netra_perf::Recorder;
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What the flows of all connections share.
pub(crate) struct Core<I: Io> {
    // `io` stands before `pool`: the kernel must give up its buffers before they are unmapped.
    pub(crate) io: I,
    pub(crate) pool: BufferPool,
    pub(crate) pipes: PipePool<I::Pipe>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) limits: Limits,
    /// The port that connections are redirected to.
    pub(crate) port: u16,
    /// Time of this turn.
    pub(crate) now: Nanos,
    /// Flows that have more to move.
    pub(crate) again: VecDeque<Token>,
    /// Where bytes are peeked at.
    pub(crate) scratch: Vec<u8>,
    /// Connections that came to their own end.
    pub(crate) finished: u64,
    /// What HTTP connections share; none where no port is read as HTTP.
    pub(crate) http: Option<Box<HttpCore>>,
    /// What is told of exchanges.
    pub(crate) observer: Observer,
    /// What connections share whose both ways are tapped.
    pub(crate) taps: Taps,
    /// What connections share whose messages are decided about or written into.
    pub(crate) gates: Gates,
    /// Who looks names up; nobody where no request can be sent elsewhere.
    pub(crate) resolver: Option<Arc<dyn Resolver>>,
    /// Where connections are logged.
    pub(crate) access: Option<AccessSink<ConnectionRecord>>,
    /// What has failed.
    pub(crate) failures: Failures,
    /// What the process takes of memory; none where nothing limits it.
    pub(crate) memory: Option<Box<MemoryCount>>,
    pub(crate) http_ports: PortSet,
    /// Where dials come from.
    pub(crate) sources: Sources,
    /// Netra's own dials, to know them when they come back.
    pub(crate) own_dials: OwnDials,
    pub(crate) guests: LinkNames,
    pub(crate) addresses: Remembered,
    pub(crate) guest_links: Remembered,
}

impl<I: Io> Core<I> {
    /// Most of the buffers hold bytes for slow receivers, or there is little memory for more.
    pub(crate) fn pool_is_scarce(&self) -> bool {
        self.pool.lent() * 4 > self.pool.capacity() * 3 || self.pressure() > Pressure::None
    }

    /// How near the process was to the end of its memory when somebody last looked.
    #[inline]
    pub(crate) fn pressure(&self) -> Pressure {
        self.memory.as_deref().map_or(Pressure::None, MemoryCount::pressure)
    }

    /// Memory may have grown: looks how near its end is.
    #[inline]
    pub(crate) fn look_at_memory(&mut self) -> Pressure {
        let now = self.now;
        self.memory.as_deref_mut().map_or(Pressure::None, |memory| memory.look(now))
    }

    /// Buffers that one flow may queue now.
    pub(crate) fn queue_buffers_max(&self) -> u32 {
        if self.pool_is_scarce() { 1 } else { self.limits.direction_buffers_max }
    }

    /// Whether connections to there are read as HTTP/1: the port is, and nothing narrower says
    /// otherwise.
    pub(crate) fn is_http(&self, to: SocketAddr) -> bool {
        let is_port = self.http.is_some() && self.http_ports.contains(to.port());
        is_port && !self.taps.is_named(to)
    }

    /// Which protocol is read along there, if one is: what the settings say, and where they say
    /// nothing, what documents of rules do.
    pub(crate) fn tapped(&self, to: SocketAddr) -> Option<Named> {
        let named = self.taps.named(to);
        if named.is_some() || self.is_http(to) {
            return named;
        }
        self.taps.named_as(self.gates.rules.as_deref()?.spoken_at(to)?)
    }

    /// Whether the protocol of connections to there, which nothing names, is looked for.
    pub(crate) fn watches(&self, to: SocketAddr) -> bool {
        self.taps.watches(to.port(), self.now) && !self.is_http(to)
    }

    /// The index of how connections to there are treated in [`netra_perf::labels::PROTOCOLS`].
    pub(crate) fn protocol_index(&self, to: SocketAddr) -> usize {
        match self.tapped(to) {
            Some(named) => 2 + named.protocol.index(),
            None => usize::from(self.is_http(to)),
        }
    }

    /// Whether the next connection is logged.
    pub(crate) fn logs_next(&mut self) -> bool {
        self.access.as_mut().is_some_and(AccessSink::takes_next)
    }

    /// Offers a connection to the access log.
    pub(crate) fn log(&mut self, record: &ConnectionRecord) {
        if let Some(log) = &mut self.access {
            log.offer(record, &self.recorder);
        }
    }

    /// Takes a failure in, and tells the access log of it, whatever the share of connections that
    /// it is told of otherwise.
    #[cold]
    pub(crate) fn fail(&mut self, record: &ConnectionRecord) {
        self.log(record);
        self.failures.note(record);
    }

    /// What an accepted connection has sent already, where the hop to its upstream is on this host
    /// and answers at once: it is sent behind the dial, without a turn between. A dial that may
    /// take long holds no buffer.
    pub(crate) fn early(&mut self, fd: Fd, is_local: bool) -> Result<Option<BufferId>, End> {
        if !is_local || self.pool_is_scarce() {
            return Ok(None);
        }
        let Some(buffer) = self.pool.lend() else { return Ok(None) };
        match self.io.receive_early(fd, self.pool.room(buffer)) {
            Ok(n) if n > 0 => {
                self.pool.set_filled(buffer, u32::try_from(n).unwrap_or(0));
                Ok(Some(buffer))
            }
            result => {
                self.pool.give_back(buffer);
                match result {
                    // An end is seen once more when its turn has come.
                    Ok(_) => Ok(None),
                    Err(e) if would_block(&e) => Ok(None),
                    Err(e) => Err(End::of_error(Side::Downstream, &e)),
                }
            }
        }
    }

    /// Whether `ip` is an address of this host.
    pub(crate) fn is_local(&mut self, ip: IpAddr) -> bool {
        self.addresses.of(ip, || self.io.is_local(ip))
    }

    /// Whether `ip` is the address of a link by which the traffic of guests comes in.
    pub(crate) fn is_guest_link(&mut self, ip: IpAddr) -> bool {
        self.guest_links.of(ip, || self.io.is_link_of(ip, &self.guests))
    }
}

/// What a shard has for all its HTTP connections.
#[derive(Debug)]
pub(crate) struct HttpCore {
    pub(crate) reader: HeadReader,
    pub(crate) patch: Box<HeadPatch>,
    pub(crate) editor: Editor,
    /// Where fields of HTTP/2 are read.
    pub(crate) scratch: netra_codecs::h2::Scratch,
    /// What goes out of a gate of HTTP/2 when fields were put in.
    pub(crate) out: Vec<u8>,
    /// Bytes of heads that have not come whole, or not gone whole, of all connections.
    pub(crate) held_bytes: usize,
    pub(crate) held_bytes_max: usize,
    /// Memory is near its end: nothing more is held.
    pub(crate) is_tight: bool,
    /// netra drains, and has for a while: whoever is asked is told that no further request follows.
    pub(crate) asks_for_last: bool,
    /// How long a head may come in pieces.
    pub(crate) head_timeout_ns: Option<Nanos>,
}

impl HttpCore {
    pub(crate) fn new(config: &HttpConfig, correlation: Correlation) -> Self {
        Self {
            reader: HeadReader::new(config.limits),
            patch: Box::new(HeadPatch::new()),
            editor: Editor::new(config, correlation),
            scratch: netra_codecs::h2::Scratch::default(),
            out: Vec::new(),
            held_bytes: 0,
            held_bytes_max: config.held_bytes_max,
            is_tight: false,
            asks_for_last: false,
            head_timeout_ns: config.head_timeout.map(nanos),
        }
    }

    /// The ports whose connections are read as HTTP/1.
    pub(crate) fn ports(&self) -> PortSet {
        self.editor.config().ports.clone()
    }

    /// Bytes of heads that are held now.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Memory is near its end, or no longer: whether any head is held.
    pub(crate) fn set_tight(&mut self, is_tight: bool) {
        self.is_tight = is_tight;
    }

    /// Shows what is counted elsewhere.
    pub(crate) fn record(&self, recorder: &Recorder) {
        self.editor.record(recorder);
    }
}
