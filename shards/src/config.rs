//! What a set of shards is told before it starts: plain values, all checked by the caller.

use crate::{links::LinkNames, resolve::Resolver};
use netra_codecs::{
    PortSet,
    route::{RouteNames, RoutePolicy},
    tap::{Protocol, ProtocolPorts},
    trace::{Formats, Join, SamplerPlan},
};
use std::{fmt, io, net::IpAddr, path::PathBuf, sync::Arc, task::Waker, time::Duration};

/// Which I/O driver to use (`NETRA_IO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where the kernel allows it, epoll where it refuses (EPERM, ENOSYS, EINVAL).
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// Every cap and time limit of the data path, in one place. Sizes are per shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Relay buffers a shard may use; its memory for bytes in user space is this times
    /// [`Limits::buffer_bytes`].
    pub buffers_max: u32,
    /// Bytes in one relay buffer (touched page by page, so small messages cost 4 KiB).
    pub buffer_bytes: u32,
    /// Buffers one direction may hold for a slow receiver before its reading pauses.
    pub direction_buffers_max: u32,
    /// Pipes a shard may use for splicing.
    pub pipes_max: u32,
    /// Capacity asked for a pipe.
    pub pipe_bytes: u32,
    /// Bytes moved without a pause after which a direction is spliced; 0 never splices.
    pub splice_from_bytes: u32,
    /// Connections of the whole process; 0 derives it from the descriptor limit.
    pub connections_max: u32,
    /// Upstreams that one connection may have at a time, where its messages go to several; 1 leaves one
    /// before it dials the next.
    pub legs_max: u32,
    /// How long a dial may take. Long enough for a lost SYN to be sent again (after 1 s and 3 s).
    pub connect_timeout: Duration,
    /// Where rules route, how long a client may stay silent before the original destination is dialled
    /// all the same, because its server may be the one to speak first; nothing dials at once.
    pub defer_dial: Duration,
    /// How long a half-closed connection may stay silent.
    pub half_close_linger: Duration,
    /// How long a connection may stay silent; none by default.
    pub idle_timeout: Option<Duration>,
    /// TCP_USER_TIMEOUT of both sockets: how long sent bytes may stay unacknowledged, or a window
    /// closed. As long as the kernel itself tries (tcp_retries2), so that a peer which merely
    /// stops reading is cut no sooner than without netra.
    pub user_timeout: Duration,
    /// Idle time before the first keep-alive probe.
    pub keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            buffers_max: 512,
            buffer_bytes: 16 * 1024,
            direction_buffers_max: 16,
            pipes_max: 256,
            pipe_bytes: 64 * 1024,
            splice_from_bytes: 64 * 1024,
            connections_max: 0,
            legs_max: 8,
            connect_timeout: Duration::from_millis(5000),
            defer_dial: Duration::from_millis(200),
            half_close_linger: Duration::from_secs(30),
            idle_timeout: None,
            user_timeout: Duration::from_secs(900),
            keepalive: Duration::from_secs(60),
        }
    }
}

/// What is done with connections to ports that are read as HTTP/1.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Those ports; none reads nothing.
    pub ports: PortSet,
    /// Caps of heads, bodies and exchanges, and of what is remembered by request id.
    pub limits: netra_codecs::Limits,
    /// Bytes of heads that a shard holds at most, of all its connections.
    pub held_bytes_max: usize,
    /// How long a head may come in pieces before its connection turns opaque; none is for ever.
    pub head_timeout: Option<Duration>,
    /// Header that joins inbound and outbound requests.
    pub request_id_name: Box<[u8]>,
    /// Header set on each outbound request.
    pub source_name: Box<[u8]>,
    /// Its value.
    pub source_value: Box<[u8]>,
    /// Whether the method and the tool of the Model Context Protocol are read of bodies that are sent
    /// to it over HTTP/1.
    pub reads_mcp: bool,
    /// What is done about traces; none neither reads nor writes their headers.
    pub tracing: Option<TracingConfig>,
    /// How requests are routed; none routes nothing.
    pub routing: Option<RoutingConfig>,
    /// Who resolves the names that requests are sent to, by their routes or by rules.
    pub resolver: Option<Arc<dyn Resolver>>,
}

/// What the access log is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AccessLogConfig {
    /// The share of requests and connections that are, 0 to 1.
    pub share: f64,
    /// Records that wait for the writer, for each shard and kind; further ones are dropped.
    pub records_max: usize,
}

/// How requests are routed.
#[derive(Clone, Debug)]
pub struct RoutingConfig {
    /// How they say where to.
    pub names: RouteNames,
    /// Which of them are followed.
    pub policy: Arc<RoutePolicy>,
    /// How long a route is remembered by request id.
    pub ttl: Duration,
}

/// How far is gone to find out which inbound request a call belongs to: each step has those before
/// it (`NETRA_JOIN`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum JoinLevel {
    /// By the context that the call carries, and by nothing else.
    Off,
    /// By its request id, too.
    Explicit,
    /// Where one request alone is being served.
    Exclusive,
    /// Where one alone is served from the call's beginning to its end.
    Contained,
    /// By other calls of the same transaction.
    #[default]
    Tx,
    /// By connections that have gone together so far.
    Affine,
}

impl JoinLevel {
    /// Every level, in order.
    pub const ALL: [Self; 6] =
        [Self::Off, Self::Explicit, Self::Exclusive, Self::Contained, Self::Tx, Self::Affine];
    /// Their words, in the same order.
    pub const WORDS: [&str; 6] = ["off", "explicit", "exclusive", "contained", "tx", "affine"];

    /// Whether calls are joined this way.
    pub(crate) fn allows(self, join: Join) -> bool {
        match join {
            Join::Explicit => self >= Self::Explicit,
            Join::Exclusive => self >= Self::Exclusive,
            Join::Contained => self >= Self::Contained,
            Join::Tx => self >= Self::Tx,
            Join::Affine => self >= Self::Affine,
            Join::Ambiguous | Join::None => true,
        }
    }
}

/// What is done about traces.
#[derive(Clone, Debug)]
pub struct TracingConfig {
    /// How calls are joined that carry no context.
    pub join: JoinLevel,
    /// Header formats that are written.
    pub formats: Formats,
    /// New traces get ids of 128 bits.
    pub wide_ids: bool,
    /// Which new traces are reported.
    pub sampler: Arc<SamplerPlan>,
    /// Exact paths without spans, sorted.
    pub ignored_paths: Box<[Box<[u8]>]>,
    /// Headers whose value becomes a tag: the span's `Mapped` text with this index.
    pub header_tags: Box<[Box<[u8]>]>,
    /// Cookies whose value becomes a tag, indexes after those of the headers.
    pub cookie_tags: Box<[Box<[u8]>]>,
    /// Finished spans that wait for the exporter, for each shard; further ones are dropped.
    pub spans_max: usize,
    /// Wakes the exporter, once for each half of the room for them.
    pub waker: Waker,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            ports: PortSet::default(),
            limits: netra_codecs::Limits::DEFAULT,
            held_bytes_max: 16 << 20,
            head_timeout: Some(Duration::from_secs(30)),
            request_id_name: (*b"X-Request-Id").into(),
            source_name: (*b"X-Source").into(),
            source_value: (*b"netra").into(),
            reads_mcp: false,
            tracing: None,
            routing: None,
            resolver: None,
        }
    }
}

/// Where the kernel counts what the process takes, its sockets and pipes included, and how much of
/// it there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryWatch {
    /// `memory.current` of the cgroup, or `memory.usage_in_bytes`.
    pub usage_file: PathBuf,
    /// Its `memory.stat`, which tells what of that the kernel can drop at any time.
    pub stat_file: PathBuf,
    /// Bytes at which the kernel ends somebody.
    pub limit: u64,
}

/// How a set of shards is to run.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The port that the rules redirect to; every shard listens on it (v4 and v6).
    pub port: u16,
    /// How many shards.
    pub shards: usize,
    /// CPUs to pin shard 0, 1, ... to, repeated when there are fewer; empty pins nothing.
    pub cpus: Vec<usize>,
    /// Which driver to use.
    pub driver: DriverChoice,
    /// Host the loops in glommio executors (needs the feature `glommio`).
    pub glommio: bool,
    /// The longest that a shard polls before it parks; zero parks at once.
    pub spin_max: Duration,
    /// Caps and time limits.
    pub limits: Limits,
    /// Where it is seen how much memory the process takes; none where nothing limits it.
    pub memory: Option<MemoryWatch>,
    /// Addresses of this host that dials to it come from when the ports of its usual one run short.
    pub spare_sources: Vec<IpAddr>,
    /// Links by which the traffic of guests comes in, to be relayed wherever it was going.
    pub guests: LinkNames,
    /// What is done on HTTP ports.
    pub http: HttpConfig,
    /// Ports on which other protocols are read along.
    pub protocols: ProtocolPorts,
    /// Protocols that are read besides where rules say that they are spoken, and the settings say
    /// nothing of the port; rules may come later.
    pub told: Vec<Protocol>,
    /// Write trace contexts into messages on these ports that can carry them, where traces are told.
    pub writes_context: bool,
    /// Find out which of them connections speak on ports that nothing names.
    pub detects: bool,
    /// What the access log is told; none logs nothing.
    pub access_log: Option<AccessLogConfig>,
}

/// Why a set of shards did not start; each names its likely cause.
#[derive(Debug)]
pub enum StartError {
    /// The listen port is taken (or may not be bound).
    Listen {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// `NETRA_IO=io_uring`, and the kernel refused it.
    IoUring {
        /// Which step was refused.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The descriptor limit leaves no room for a connection.
    Descriptors {
        /// The limit.
        limit: u64,
    },
    /// Another call failed.
    Os {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { port, source } => write!(f, "cannot listen on port {port}: {source}"),
            Self::IoUring { step, source } => {
                write!(f, "io_uring refused: {step}: {source}: {}", io_uring_hint(source))
            }
            Self::Descriptors { limit } => {
                write!(f, "the descriptor limit of {limit} leaves no room for connections")
            }
            Self::Os { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. }
            | Self::IoUring { source, .. }
            | Self::Os { source, .. } => Some(source),
            Self::Descriptors { .. } => None,
        }
    }
}

/// The likely cause of a refused io_uring, for the person who reads the log.
pub fn io_uring_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "likely the container runtime's seccomp profile or kernel.io_uring_disabled"
        }
        Some(libc::ENOSYS) => "the kernel has no io_uring, or the seccomp profile hides it",
        Some(libc::EINVAL) => "the kernel is older than 5.19",
        Some(libc::ENOMEM) => "the locked-memory limit is too small (ulimit -l, LimitMEMLOCK)",
        _ => "none of the usual causes; NETRA_IO=epoll does without io_uring",
    }
}
