//! What this process is told to do, typed: `load.rs` makes it of flags, environment and defaults.

use crate::{
    cpus::CpuChoice,
    log::{Format, Level},
    metrics_push::MetricsPlan,
    reach::{Headers, ReachSettings},
    rules::{Own, Remote},
    statsd::StatsdSettings,
    token::Token,
    traces::{TraceSettings, Traces},
};
use netra_codecs::{
    route::{AllowList, RouteNames, RoutePolicy},
    tap::{Protocol, ProtocolPorts},
};
use netra_shards::{
    AccessLogConfig, DriverChoice, HttpConfig, Limits, LinkNames, MemoryWatch, Resolver,
    RoutingConfig, ShardConfig,
};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// What this process is told to do, typed and checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) service_name: String,
    pub(crate) log_level: Level,
    pub(crate) log_format: Format,
    pub(crate) port: u16,
    pub(crate) metrics_port: u16,
    pub(crate) admin: AdminSettings,
    pub(crate) statsd: StatsdSettings,
    pub(crate) driver: DriverChoice,
    /// `None` is for [`crate::cpus`] to decide.
    pub(crate) shards: Option<usize>,
    pub(crate) cpus: CpuChoice,
    pub(crate) host: Host,
    pub(crate) spin_max: Duration,
    pub(crate) drain: Duration,
    pub(crate) limits: Limits,
    pub(crate) spare_sources: Vec<IpAddr>,
    /// Links by which the traffic of guests comes in.
    pub(crate) guests: LinkNames,
    pub(crate) http: HttpConfig,
    /// Ports on which other protocols than HTTP/1 are read.
    pub(crate) protocols: ProtocolPorts,
    /// Protocols that are not built in.
    pub(crate) private: Vec<Protocol>,
    /// Trace contexts are written into messages on those ports.
    pub(crate) writes_context: bool,
    /// Find out the protocol on all other ports.
    pub(crate) detects: bool,
    pub(crate) routing: RoutingSettings,
    /// Where documents of rules are; empty where there are none.
    pub(crate) rules: String,
    /// Where this service stands: region/zone/subzone; empty where nobody says.
    pub(crate) locality: String,
    /// Labels of its workload, or the file that has them.
    pub(crate) labels: String,
    /// The control plane that writes them there, if one does.
    pub(crate) remote_rules: Remote,
    /// How receivers are reached.
    pub(crate) reach: ReachSettings,
    /// What the settings say; [`Config::tracing`] is what they come to.
    pub(crate) traces: TraceSettings,
    /// What the process may take of memory; `None` is for [`crate::budget`] to decide.
    pub(crate) memory_max: Option<u64>,
    /// What the shards are to look at before they take more; none where nothing limits it.
    pub(crate) memory: Option<MemoryWatch>,
    /// Bytes that pages may take on netra's own ports.
    pub(crate) pages: PagesRoom,
    /// Names of routes that are being resolved or wait for it.
    pub(crate) names_max: usize,
    /// None when nothing is logged.
    pub(crate) access_log: Option<AccessLogConfig>,
    /// None when metrics are not pushed.
    pub(crate) metrics: Option<MetricsPlan>,
    /// None when no request is traced.
    pub(crate) tracing: Option<Traces>,
}

/// What stands on netra's own ports may take so many bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PagesRoom(u64);

impl Default for PagesRoom {
    fn default() -> Self {
        Self(Self::MOST)
    }
}

impl PagesRoom {
    pub(crate) const MOST: u64 = 10 << 20;

    pub(crate) fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Of answers that nobody has read yet, on each of the two ports.
    pub(crate) fn unread(self) -> usize {
        usize::try_from(self.0 / 4).unwrap_or(usize::MAX)
    }

    /// Of what costs much and is being made: a profile, a time line. The last quarter is of connections
    /// and of small pages.
    pub(crate) fn making(self) -> u64 {
        self.0 / 4
    }
}

/// Where profiling and admin are, and what may be ordered there.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdminSettings {
    pub(crate) port: u16,
    /// None only before the settings are read.
    pub(crate) address: Option<IpAddr>,
    pub(crate) may_quit: bool,
    /// Orders are obeyed without a token.
    pub(crate) may_order: bool,
    /// Empty where there is none.
    pub(crate) token_file: String,
    /// What is in it, once it has been read.
    pub(crate) token: Option<Token>,
    /// A unix socket for orders and views; empty where there is none.
    pub(crate) socket: String,
}

/// How requests are routed.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoutingSettings {
    pub(crate) is_enabled: bool,
    pub(crate) header: Box<[u8]>,
    pub(crate) has_cookie: bool,
    pub(crate) cookie: Box<[u8]>,
    /// Where routes may lead, and whose are followed.
    pub(crate) targets: AllowList,
    pub(crate) sources: AllowList,
    pub(crate) ttl: Duration,
}

impl Config {
    /// Whom rules are read for.
    pub(crate) fn own(&self) -> Own {
        let name = self.service_name.clone();
        let (locality, labels) = (self.locality.clone(), self.labels.clone());
        Own { name, private: self.private.clone(), locality, labels }
    }

    /// Whether requests are routed at all.
    pub(crate) fn has_routing(&self) -> bool {
        self.routing.is_enabled && !self.http.ports.is_empty()
    }

    /// Whether exchanges are read at all, of whatever protocol: documents of rules may say so later.
    pub(crate) fn reads_exchanges(&self) -> bool {
        !self.http.ports.is_empty() || self.reads_others()
    }

    /// Whether connections of another protocol than HTTP/1 may be read.
    pub(crate) fn reads_others(&self) -> bool {
        !self.protocols.is_empty() || self.detects || !self.rules.is_empty()
    }

    /// Protocols of which documents of rules may say that they are spoken somewhere.
    pub(crate) fn told(&self) -> Vec<Protocol> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        Protocol::ALL.iter().chain(&self.private).copied().collect()
    }

    /// Whether the contexts of inbound requests are remembered.
    pub(crate) fn remembers_contexts(&self) -> bool {
        let mut read = self.protocols.protocols().chain(self.told());
        let writes = self.writes_context && read.any(Protocol::edits);
        !self.http.ports.is_empty() || self.detects || writes
    }

    /// A setting that names a file which is not what it is said to be, and what is allowed there.
    pub(crate) fn unreadable(&self) -> Option<(&'static str, String)> {
        let pushed = self.metrics.iter().map(|plan| &plan.receiver.reach);
        let reaches = self.tracing.iter().flat_map(Traces::reaches).chain(pushed);
        let of_tls = reaches.filter_map(|reach| reach.check().err()).next();
        of_tls.or_else(|| {
            let headers = Headers::check(&self.reach.headers_file).err();
            headers.map(|allowed| ("NETRA_EXPORT_HEADERS_FILE", allowed))
        })
    }

    /// What the shards are told, on the CPUs that were chosen for them.
    pub(crate) fn shard_config(
        &self,
        shards: usize,
        cpus: Vec<usize>,
        resolver: Option<Arc<dyn Resolver>>,
    ) -> ShardConfig {
        let routing = self.has_routing().then(|| RoutingConfig {
            names: RouteNames {
                header: self.routing.header.clone(),
                cookie: self.routing.has_cookie.then(|| self.routing.cookie.clone()),
            },
            policy: Arc::new(RoutePolicy {
                targets: self.routing.targets.clone(),
                sources: self.routing.sources.clone(),
                own_ports: [self.port, self.metrics_port, self.admin.port].into(),
            }),
            ttl: self.routing.ttl,
        });
        let tracing = self.tracing.as_ref().map(|traces| traces.tracing.clone());
        ShardConfig {
            port: self.port,
            shards,
            cpus,
            driver: self.driver,
            glommio: self.host == Host::Glommio,
            spin_max: self.spin_max,
            limits: self.limits.clone(),
            memory: self.memory.clone(),
            spare_sources: self.spare_sources.clone(),
            guests: self.guests.clone(),
            http: HttpConfig { tracing, routing, resolver, ..self.http.clone() },
            protocols: self.protocols.clone(),
            told: self.told(),
            writes_context: self.writes_context,
            detects: self.detects,
            access_log: self.access_log,
        }
    }
}

/// What a shard's loop waits in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Host {
    /// The ring, or epoll, itself.
    #[default]
    Native,
    /// A glommio executor.
    Glommio,
}

/// The least memory that can be parted.
pub(crate) const MEMORY_LEAST: u64 = 16 << 20;
