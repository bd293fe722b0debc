//! What is read of exchanges, and what is done with them, row by row.

use super::{DAY_MS, HOUR_MS};
use crate::{
    access_log,
    setting::{
        Parse::{Custom, HeaderName, Millis, Ports, Switch, Text},
        Setting,
    },
    texts::{decimal, labels, whole},
    url::Url,
};
use netra_codecs::{route::AllowList, tap::ProtocolPorts};
use netra_shards::AccessLogConfig;
use std::time::Duration;

/// HTTP/1, routing, and what counts and logs requests.
pub(super) const EXCHANGES: &[Setting] = &[
    Setting::new(
        "NETRA_ACCESS_LOG",
        "off",
        Custom(ACCESS_LOG, access_log),
        "Which requests and connections are logged on stdout (NETRA_LOG_FORMAT=json for JSON)",
    ),
    Setting::new(
        "NETRA_HTTP_PORTS",
        "",
        Ports(|c, ports| c.http.ports = ports),
        "Original destination ports read as HTTP/1, or HTTP/2 where a connection begins so",
    ),
    Setting::new(
        "NETRA_HTTP_HEAD_TIMEOUT_MS",
        "30000",
        Millis(0, HOUR_MS, |c, time| {
            c.http.head_timeout = Some(time).filter(|time| *time > Duration::ZERO);
        }),
        "How long a head may come in pieces; then the connection turns opaque. 0 is for ever",
    ),
    Setting::new(
        "NETRA_PROTOCOL_FILES",
        "",
        Text(|_, _| {}),
        "Files that describe protocols that are not built in, with commas between (docs/CODECS.md)",
    ),
    Setting::new(
        "NETRA_HTTP_MCP",
        "false",
        Switch(|c, on| c.http.reads_mcp = on),
        "Whether method and tool of the Model Context Protocol are read of bodies of POST requests",
    ),
    Setting::new(
        "NETRA_PROTOCOLS",
        "",
        Custom(PROTOCOLS, |c, text| {
            let ports = ProtocolPorts::parse(text, &c.private);
            let is_good = ports.is_ok();
            c.protocols = ports.unwrap_or_default();
            is_good
        }),
        "Original destinations read along as another protocol, by port, or by address and port",
    ),
    Setting::new(
        "NETRA_PROTOCOLS_WRITE_CONTEXT",
        "true",
        Switch(|c, on| c.writes_context = on),
        "Whether calls of Dubbo, THeader and TTHeader on those ports are given request id and trace context, sampled or not",
    ),
    Setting::new(
        "NETRA_DETECT",
        "false",
        Switch(|c, on| c.detects = on),
        "Whether the protocol is found out on ports that nothing names",
    ),
    Setting::new(
        "NETRA_HTTP_REQUEST_ID_HEADER_NAME",
        "X-Request-Id",
        HeaderName(|c, name| c.http.request_id_name = name.as_bytes().into()),
        "Header that joins inbound and outbound requests",
    ),
    Setting::new(
        "NETRA_HTTP_X_SOURCE_HEADER_NAME",
        "X-Source",
        HeaderName(|c, name| c.http.source_name = name.as_bytes().into()),
        "Header set on each outbound request",
    ),
    Setting::new(
        "NETRA_HTTP_X_SOURCE_VALUE",
        "netra",
        Text(|c, value| c.http.source_value = value.as_bytes().into()),
        "Its value",
    ),
    Setting::new(
        "NETRA_HTTP_ROUTING_ENABLED",
        "false",
        Switch(|c, on| c.routing.is_enabled = on),
        "Routing by header",
    ),
    Setting::new(
        "NETRA_HTTP_ROUTING_HEADER_NAME",
        "X-Route",
        HeaderName(|c, name| c.routing.header = name.as_bytes().into()),
        "Header with the routes, host1=host2,host3=host4",
    ),
    Setting::new(
        "NETRA_HTTP_ROUTING_COOKIE_ENABLED",
        "false",
        Switch(|c, on| c.routing.has_cookie = on),
        "Routing by cookie",
    ),
    Setting::new(
        "NETRA_HTTP_ROUTING_COOKIE_NAME",
        "X-Route",
        HeaderName(|c, name| c.routing.cookie = name.as_bytes().into()),
        "Cookie with the routes; goes before the header",
    ),
    Setting::new(
        "NETRA_HTTP_ROUTING_TARGETS",
        "private",
        Custom(ROUTE_TARGETS, |c, text| {
            let list = AllowList::parse(text);
            let is_good = list.is_some();
            c.routing.targets = list.unwrap_or_default();
            is_good
        }),
        "Where routes may lead; never to this host alone, the link, metadata or netra's own ports",
    ),
    Setting::new(
        "NETRA_HTTP_ROUTING_SOURCES",
        "private",
        Custom(ROUTE_SOURCES, |c, text| {
            let list = AllowList::parse(text).filter(AllowList::is_of_addresses);
            let is_good = list.is_some();
            c.routing.sources = list.unwrap_or_default();
            is_good
        }),
        "Whose inbound requests may bring routes, by their address",
    ),
    Setting::new(
        "NETRA_ROUTING_CONTEXT_EXPIRATION_MILLISECONDS",
        "5000",
        Millis(1, DAY_MS, |c, time| c.routing.ttl = time),
        "How long a request id remembers its routes",
    ),
    Setting::new(
        "NETRA_ROUTING_CONTEXT_CLEANUP_INTERVAL",
        "1000",
        Millis(1, DAY_MS, |_, _| {}),
        "Taken and not needed: forgotten routes are swept as new ones come, and every second",
    ),
    Setting::new(
        "NETRA_RULES",
        "",
        Text(|c, path| c.rules = path.into()),
        "File or directory with rules of traffic, read again whenever it changes",
    ),
    Setting::new(
        "NETRA_LOCALITY",
        "",
        Text(|c, text| c.locality = text.into()),
        "Where this service stands, as region/zone/subzone: rules with localityLbSetting ask who is nearer",
    ),
    Setting::new(
        "NETRA_LABELS",
        "",
        Custom("label=value with commas between, or a file of the downward API", |c, text| {
            c.labels = text.into();
            text.starts_with('/') || labels(text).is_some()
        }),
        "Labels of this service's workload, or the file that has them: rules with failoverPriority go by them",
    ),
    Setting::new(
        "NETRA_RULES_URL",
        "",
        Custom("an http:// or https:// URL, or nothing", |c, text| {
            c.remote_rules.url = Url::parse(text);
            text.is_empty() || c.remote_rules.url.is_some()
        }),
        "netra-control that rules come from, such as https://netra-control:14960",
    )
    .url(),
    Setting::new(
        "NETRA_RULES_NAMESPACE",
        "",
        Text(|c, name| c.remote_rules.namespace = name.into()),
        "Whose rules are asked for; nothing is the namespace that Kubernetes tells, else default",
    ),
    Setting::new(
        "NETRA_RULES_TOKEN_FILE",
        "",
        Text(|c, path| c.remote_rules.token_file = path.into()),
        "File with the token for netra-control, read again for each question",
    ),
    Setting::new(
        "NETRA_RULES_CACHE",
        "/dev/shm/netra-rules.yaml",
        Text(|c, path| c.remote_rules.cache = path.into()),
        "File that keeps what netra-control said last; on a disk of the pod it outlives the container",
    ),
    Setting::new(
        "NETRA_STATSD_ENABLED",
        "false",
        Switch(|c, on| c.statsd.is_enabled = on),
        "Counts inbound responses by status, over UDP",
    ),
    Setting::new(
        "NETRA_STATSD_ADDRESS",
        "",
        Custom("host:port", |c, text| {
            c.statsd.address = text.into();
            text.is_empty() || is_host_port(text)
        }),
        "Where to",
    ),
    Setting::new(
        "NETRA_STATSD_PREFIX",
        "",
        Text(|c, text| c.statsd.prefix = text.trim_matches('.').into()),
        "What the counters' names begin with",
    ),
];

pub(super) const PROTOCOLS: &str = "rows such as 6379=redis,10.0.0.0/8:9090=thrift,[fd00::/8]:9090=dubbo: a \
                         port, or an address or network and a port (256 at most), each once; the narrowest \
                         counts; protocols are redis, dubbo, thrift, postgresql, kafka, memcached, mongodb, \
                          mysql, brpc, trpc, nats, mqtt, zookeeper, amqp and those of \
                          NETRA_PROTOCOL_FILES";
const ROUTE_TARGETS: &str = "names, *.suffix, addresses, networks (each with :port or without), private \
     and * with commas between, or none";
const ROUTE_SOURCES: &str = "addresses, networks, private and * with commas between, or none";

const ACCESS_LOG: &str = "off, all, or a share from 0 to 1";

fn access_log(config: &mut crate::config::Config, text: &str) -> bool {
    let share = match text {
        "off" => Some(0.0),
        "all" => Some(1.0),
        share => decimal(share, 0.0, 1.0),
    };
    let log = |share| AccessLogConfig { share, records_max: access_log::RECORDS_MAX };
    config.access_log = share.filter(|share| *share > 0.0).map(log);
    share.is_some()
}

fn is_host_port(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && whole(port, 1, 65_535).is_some())
}
