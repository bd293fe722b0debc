//! The table of settings. A new setting is one row here and, where it is acted on, one field of
//! [`Config`](crate::config::Config); flags, help, checks and `--print-config` follow by
//! themselves.

use crate::{
    config::{Host, MEMORY_LEAST},
    cpus::CpuChoice,
    log::{Format, Level},
    setting::{
        Parse::{Address, Choice, Custom, Micros, Millis, Name, Number, Port, Switch, Text},
        Setting,
    },
    texts::{byte_count, whole},
};
use exchanges::EXCHANGES;
use netra_shards::{DriverChoice, LinkNames};
use otlp::{METRICS, OTLP, OTLP_METRICS, OTLP_TRACES, REACH};
use spans::SPANS;
use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

mod exchanges;
mod otlp;
mod spans;

/// Every setting, in the order in which it is shown.
pub(crate) fn table() -> impl Iterator<Item = &'static Setting> {
    [BASICS, LIMITS, EXCHANGES, SPANS, OTLP, OTLP_TRACES, METRICS, OTLP_METRICS, REACH]
        .into_iter()
        .flatten()
}

const HOUR_MS: u32 = 3_600_000;
const DAY_MS: u32 = 24 * HOUR_MS;
/// The kernel's own bound, MAX_TCP_KEEPIDLE.
const KEEPALIVE_MAX_MS: u32 = 32_767_000;

/// What runs, where it listens, how it ends.
const BASICS: &[Setting] = &[
    Setting::new(
        "NETRA_SERVICE_NAME",
        "",
        Name(|c, name| c.service_name = name.into()),
        "Service name, of the spans and in the logs",
    )
    .also(&["JAEGER_SERVICE_NAME", "OTEL_SERVICE_NAME"])
    .required(),
    Setting::new(
        "NETRA_LOGGER_LEVEL",
        "info",
        Choice(&Level::WORDS, |c, index| c.log_level = Level::ALL[index]),
        "Least severe level that is logged",
    ),
    Setting::new(
        "NETRA_LOG_FORMAT",
        "text",
        Choice(&["text", "json"], |c, index| c.log_format = [Format::Text, Format::Json][index]),
        "How a log line is written",
    ),
    Setting::new(
        "NETRA_PORT",
        "14956",
        Port(|c, port| c.port = port),
        "Port that the rules redirect to (v4 and v6)",
    ),
    Setting::new(
        "NETRA_PROMETHEUS_PORT",
        "14958",
        Port(|c, port| c.metrics_port = port),
        "Port of /metrics, /live, /ready and /startup, on all addresses",
    ),
    Setting::new(
        "NETRA_PPROF_PORT",
        "14957",
        Port(|c, port| c.admin.port = port),
        "Port of profiling and admin",
    ),
    Setting::new(
        "NETRA_ADMIN_ADDRESS",
        "127.0.0.1",
        Address(|c, address| c.admin.address = Some(address)),
        "Address of profiling and admin",
    ),
    Setting::new(
        "NETRA_ADMIN_QUIT",
        "false",
        Switch(|c, on| c.admin.may_quit = on),
        "Whether POST /quitquitquit may end netra",
    ),
    Setting::new(
        "NETRA_ADMIN_ORDERS",
        "false",
        Switch(|c, on| c.admin.may_order = on),
        "Whether POST /drain and /log-level are obeyed without a token",
    ),
    Setting::new(
        "NETRA_ADMIN_TOKEN_FILE",
        "",
        Text(|c, path| c.admin.token_file = path.into()),
        "File with the token that orders must bear; mode 0600",
    ),
    Setting::new(
        "NETRA_ADMIN_SOCKET",
        "",
        Custom("a path of 107 bytes at most, or nothing", |c, text| {
            c.admin.socket = text.into();
            text.len() <= 107 && !text.contains(char::is_control)
        }),
        "Unix socket for views and orders, for netra's own user and root",
    ),
    Setting::new(
        "NETRA_IO",
        "auto",
        Choice(&["auto", "io_uring", "epoll"], |c, index| {
            c.driver = [DriverChoice::Auto, DriverChoice::IoUring, DriverChoice::Epoll][index];
        }),
        "I/O driver; auto is io_uring where the kernel allows it, else epoll",
    ),
    Setting::new(
        "NETRA_SHARDS",
        "auto",
        Custom("auto, or a whole number from 1 to 256", |c, text| {
            let count = whole(text, 1, 256);
            c.shards = count.map(|count| count as usize);
            count.is_some() || text == "auto"
        }),
        "Data threads; auto is the CPUs allowed and paid for, 2 at most",
    ),
    Setting::new(
        "NETRA_CPUS",
        "auto",
        Custom("auto, none, or CPU numbers such as 0,2-5", |c, text| {
            let choice = CpuChoice::parse(text);
            let known = choice.is_some();
            c.cpus = choice.unwrap_or_default();
            known
        }),
        "CPUs that the shards are pinned to; none leaves it to the scheduler",
    ),
    Setting::new(
        "NETRA_HOST",
        "native",
        if cfg!(feature = "glommio") {
            Choice(&["native", "glommio"], |c, index| c.host = [Host::Native, Host::Glommio][index])
        } else {
            Custom("native (glommio needs a build with that feature)", |_, text| text == "native")
        },
        "What a shard's loop waits in",
    ),
    Setting::new(
        "NETRA_SPIN_US",
        "50",
        Micros(0, 100_000, |c, time| c.spin_max = time),
        "Longest that a shard polls before it parks; 0 parks at once",
    ),
    Setting::new(
        "NETRA_REROUTE_INTERFACES",
        "",
        Custom(INTERFACES, guests),
        "Interfaces of guests, as for netra-init: what comes in by another one must be for this host",
    ),
    Setting::new(
        "NETRA_DRAIN_MS",
        "25000",
        Millis(0, HOUR_MS, |c, time| c.drain = time),
        "How long connections may finish after SIGTERM",
    ),
];

/// Caps and time limits of the data path; sizes are per shard.
const LIMITS: &[Setting] = &[
    Setting::new(
        "NETRA_MEMORY_MAX",
        "auto",
        Custom("auto, or bytes from 16M, such as 67108864, 64M or 1Gi", |c, text| {
            let bytes = byte_count(text).filter(|bytes| *bytes >= MEMORY_LEAST);
            c.memory_max = bytes;
            bytes.is_some() || text == "auto"
        }),
        "Memory that all caps together may come to; auto is the cgroup's limit, else half of the machine",
    ),
    Setting::new(
        "NETRA_CONNECT_TIMEOUT_MS",
        "5000",
        Millis(1, 10 * 60_000, |c, time| c.limits.connect_timeout = time),
        "How long a dial may take",
    ),
    Setting::new(
        "NETRA_DEFER_DIAL_MS",
        "200",
        Millis(0, 10 * 60_000, |c, time| c.limits.defer_dial = time),
        "Where rules route, how long a client may be silent before its destination is dialled; 0 dials at once",
    ),
    Setting::new(
        "NETRA_SPARE_SOURCES",
        "127.0.0.8/29,::1",
        Custom(SPARE_SOURCES, spare_sources),
        "Own addresses that the application is dialled from when local ports run short",
    ),
    Setting::new(
        "NETRA_HALF_CLOSE_LINGER_MS",
        "30000",
        Millis(1, DAY_MS, |c, time| c.limits.half_close_linger = time),
        "How long a half-closed connection may stay silent",
    ),
    Setting::new(
        "NETRA_TCP_IDLE_TIMEOUT_MS",
        "0",
        Millis(0, 7 * DAY_MS, |c, time| {
            c.limits.idle_timeout = Some(time).filter(|time| *time > Duration::ZERO);
        }),
        "How long a connection may stay silent; 0 is for ever",
    ),
    Setting::new(
        "NETRA_TCP_USER_TIMEOUT_MS",
        "900000",
        Millis(0, DAY_MS, |c, time| c.limits.user_timeout = time),
        "How long sent bytes may stay unacknowledged; 0 is the kernel's own limit",
    ),
    Setting::new(
        "NETRA_TCP_KEEPALIVE_MS",
        "60000",
        Millis(1000, KEEPALIVE_MAX_MS, |c, time| c.limits.keepalive = time),
        "Silence before the first keep-alive probe, in steps of a second",
    ),
    Setting::new(
        "NETRA_CONNECTIONS_MAX",
        "0",
        Number(0, 10_000_000, |c, n| c.limits.connections_max = n),
        "Connections of the whole process; 0 is what memory and the descriptor limit allow",
    ),
    Setting::new(
        "NETRA_LEGS_MAX",
        "8",
        Number(1, 64, |c, n| c.limits.legs_max = n),
        "Upstreams that one connection may have at a time, where its messages go to several; \
         1 changes its upstream when the one before has answered everything",
    ),
    Setting::new(
        "NETRA_BUFFERS_MAX",
        "512",
        Number(16, 32_768, |c, n| c.limits.buffers_max = n),
        "Relay buffers of a shard",
    ),
    Setting::new(
        "NETRA_BUFFER_BYTES",
        "16384",
        Custom("a power of two from 4096 to 1048576", |c, text| {
            let bytes = whole(text, 4096, 1 << 20).filter(|bytes| bytes.is_power_of_two());
            c.limits.buffer_bytes = bytes.unwrap_or(c.limits.buffer_bytes);
            bytes.is_some()
        }),
        "Size of a relay buffer",
    ),
    Setting::new(
        "NETRA_DIRECTION_BUFFERS_MAX",
        "16",
        Number(1, 32_768, |c, n| c.limits.direction_buffers_max = n),
        "Buffers that one direction may hold for a slow receiver",
    ),
    Setting::new(
        "NETRA_PIPES_MAX",
        "256",
        Number(0, 65_536, |c, n| c.limits.pipes_max = n),
        "Pipes of a shard; without one, bulk is copied",
    ),
    Setting::new(
        "NETRA_PIPE_BYTES",
        "65536",
        Number(4096, 1 << 20, |c, n| c.limits.pipe_bytes = n),
        "Capacity asked for a pipe",
    ),
    Setting::new(
        "NETRA_SPLICE_FROM_BYTES",
        "65536",
        Number(0, 1 << 30, |c, n| c.limits.splice_from_bytes = n),
        "Bytes moved in one go after which a direction is spliced; 0 never splices",
    ),
];

const INTERFACES: &str =
    "names of up to 15 bytes with commas between, docker* for all that begin so";

fn guests(config: &mut crate::config::Config, text: &str) -> bool {
    let names = || text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let is_name = |name: &str| {
        let fits = name.len() <= 15 && !name.contains('/');
        let body = name.strip_suffix(['*', '+']).unwrap_or(name);
        fits && !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*')
    };
    config.guests = LinkNames::new(names());
    names().all(is_name)
}

const SPARE_SOURCES: &str =
    "none, or addresses and prefixes with commas between, 64 addresses at most";
const SPARE_SOURCES_MAX: u128 = 64;

fn spare_sources(config: &mut crate::config::Config, text: &str) -> bool {
    let lists = match text {
        "none" => Some(Vec::new()),
        list => list.split(',').map(|range| addresses_in(range.trim())).collect(),
    };
    config.spare_sources = lists.iter().flatten().flatten().copied().collect();
    lists.is_some() && config.spare_sources.len() as u128 <= SPARE_SOURCES_MAX
}

/// The addresses of a prefix, or the one address; none where they are too many, or make no sense.
fn addresses_in(range: &str) -> Option<Vec<IpAddr>> {
    let (ip, length) = match range.split_once('/') {
        Some((ip, length)) => (ip.parse().ok()?, Some(length)),
        None => (range.parse().ok()?, None),
    };
    let (bits, number) = match ip {
        IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    };
    let length = length.map_or(Some(bits), |length| whole(length, 0, bits))?;
    let count = 1u128.checked_shl(bits - length).filter(|count| *count <= SPARE_SOURCES_MAX)?;
    let first = number & !(count - 1);
    let address = |number| match ip {
        IpAddr::V4(_) => IpAddr::from(u32::try_from(number).unwrap_or(0).to_be_bytes()),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    };
    Some((0..count).map(|n| address(first + n)).collect())
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_default_is_allowed_and_every_name_and_flag_is_one_of_a_kind() {
        let mut names = Vec::new();
        for setting in table() {
            let mut config = Config::default();
            assert!(
                setting.required || setting.parse.apply(&mut config, setting.default),
                "{}",
                setting.name
            );
            assert!(!setting.doc.is_empty() && !setting.doc.ends_with('.'), "{}", setting.name);
            names.push(setting.flag());
            names.push(setting.name.into());
            names.extend(setting.also.iter().map(|name| (*name).to_owned()));
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_protocol_is_named_where_it_is_allowed() {
        for protocol in netra_codecs::tap::Protocol::ALL {
            assert!(exchanges::PROTOCOLS.contains(protocol.about().name), "{protocol:?}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_data_path() {
        let mut config = Config::default();
        config.limits.buffers_max = 0;
        config.limits.connect_timeout = Duration::ZERO;
        for setting in table().filter(|setting| !setting.required) {
            setting.parse.apply(&mut config, setting.default);
        }
        assert_eq!(config.limits, netra_shards::Limits::default());
        assert_eq!(
            format!("{:?}", config.http),
            format!("{:?}", netra_shards::HttpConfig::default())
        );
    }

    #[test]
    fn spare_sources_are_addresses_one_by_one() {
        let mut config = Config::default();
        assert!(spare_sources(&mut config, "127.0.0.9/30,::1"));
        let all = ["127.0.0.8", "127.0.0.9", "127.0.0.10", "127.0.0.11", "::1"];
        assert_eq!(config.spare_sources, all.map(|ip| ip.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn each_setting_takes_good_values_and_refuses_bad_ones() {
        for (name, good, bad) in VALUES {
            let setting = table().find(|setting| setting.name == *name).unwrap();
            let mut config = Config::default();
            for text in *good {
                assert!(setting.parse.apply(&mut config, text), "{name}={text}");
            }
            for text in *bad {
                assert!(!setting.parse.apply(&mut config, text), "{name}={text}");
            }
        }
        for setting in table() {
            assert!(VALUES.iter().any(|row| row.0 == setting.name), "{} untested", setting.name);
        }
    }

    /// No address of a unix socket has room for it.
    const LONG: &str = "/a/path/of/more/bytes/than/there/is/room/for/in/the/address/of/a/unix/socket/\
        which/has/a/hundred/and/seven/of/them";

    const VALUES: &[(&str, &[&str], &[&str])] = &[
        ("NETRA_SERVICE_NAME", &["shop"], &["", "a\nb"]),
        ("NETRA_LOGGER_LEVEL", &["debug", "fatal", "Warning"], &["trace", "warn", ""]),
        ("NETRA_LOG_FORMAT", &["json"], &["xml"]),
        ("NETRA_PORT", &["1", "65535"], &["0", "65536", "tcp://10.0.0.1:14956"]),
        ("NETRA_PROMETHEUS_PORT", &["9090"], &["metrics"]),
        ("NETRA_PPROF_PORT", &["6060"], &["off"]),
        ("NETRA_ADMIN_QUIT", &["true", "0"], &["yes"]),
        ("NETRA_ADMIN_ORDERS", &["true", "0"], &["yes"]),
        ("NETRA_ADMIN_TOKEN_FILE", &["", "/run/secrets/token"], &["a\nb"]),
        ("NETRA_ADMIN_SOCKET", &["", "/run/netra/admin.sock"], &["a\nb", LONG]),
        ("NETRA_IO", &["io_uring", "EPOLL"], &["bogus", "uring"]),
        ("NETRA_SHARDS", &["auto", "1", "256"], &["0", "257", "-1", "two"]),
        ("NETRA_CPUS", &["auto", "none", "0", "0,2-5"], &["", "0,", "all", "3-0", "70000"]),
        ("NETRA_HOST", &["native"], &["tokio"]),
        ("NETRA_SPIN_US", &["0", "50"], &["1ms", "100001"]),
        ("NETRA_DRAIN_MS", &["0", "60000"], &["25s", "3600001"]),
        ("NETRA_MEMORY_MAX", &["auto", "16M", "67108864", "64Mi", "1g"], &["", "15M", "64", "1T"]),
        ("NETRA_HTTP_MCP", &["true", "0"], &["on"]),
        ("NETRA_HTTP_HEAD_TIMEOUT_MS", &["0", "30000"], &["30s", "3600001"]),
        (
            "NETRA_REROUTE_INTERFACES",
            &["", "docker0", "virbr0, k6t-*,veth+"],
            &["*", "a b", "eth/0", "sixteen-bytes-xx", "a*b"],
        ),
        (
            "NETRA_SPARE_SOURCES",
            &["none", "127.0.0.6", "127.0.0.8/29, ::1", "127.0.0.0/26", "fd61::/122"],
            &["", "lo", "10.0.0.1:80", "127.0.0.0/25", "::/0", "::1/129", "127.0.0.0/26,::1"],
        ),
        ("NETRA_CONNECT_TIMEOUT_MS", &["1"], &["0", "600001"]),
        ("NETRA_HALF_CLOSE_LINGER_MS", &["59000"], &["0", "x"]),
        ("NETRA_TCP_IDLE_TIMEOUT_MS", &["0", "3600000"], &["-1"]),
        ("NETRA_TCP_USER_TIMEOUT_MS", &["0", "1"], &["1.5"]),
        ("NETRA_TCP_KEEPALIVE_MS", &["1000"], &["999"]),
        ("NETRA_CONNECTIONS_MAX", &["0", "50000"], &["10000001"]),
        ("NETRA_LEGS_MAX", &["1", "64"], &["0", "65"]),
        ("NETRA_DEFER_DIAL_MS", &["0", "600000"], &["-1", "600001"]),
        ("NETRA_BUFFERS_MAX", &["16", "1024"], &["15", "32769"]),
        ("NETRA_BUFFER_BYTES", &["4096", "65536"], &["5000", "2048", "2097152"]),
        ("NETRA_DIRECTION_BUFFERS_MAX", &["1"], &["0"]),
        ("NETRA_PIPES_MAX", &["0"], &["65537"]),
        ("NETRA_PIPE_BYTES", &["262144"], &["4095", "1048577"]),
        ("NETRA_SPLICE_FROM_BYTES", &["0", "1"], &["1G"]),
        ("NETRA_HTTP_PORTS", &["", "8080,8090"], &["8080;8090", "0", "99999"]),
        ("NETRA_PROTOCOL_FILES", &["", "a.yaml, b.yaml"], &["a\nb"]),
        (
            "NETRA_PROTOCOLS",
            &[
                "",
                "6379=redis",
                "6379=redis,10.0.0.0/8:6379=dubbo,10.0.0.7:6379=thrift",
                "[fd00::7]:6379=redis,[fd00::/8]:6379=dubbo,[fd00::]/16:6379=thrift",
                "6379=redis, 20880=dubbo,9090=thrift,5432=postgresql,3306=mysql",
                "11211=memcached,27017=mongodb,8000=brpc,8001=trpc",
                "4222=nats,1883=mqtt,5672=amqp,2181=zookeeper",
            ],
            &[
                "6379",
                "6379=gopher",
                "0=redis",
                "6379=redis,6379=dubbo",
                "6379=redis;1=dubbo",
                "10.0.0.1/8:6379=redis",
                "10.0.0.1:6379=redis,10.0.0.1:6379=dubbo",
                "fd00::7:6379=redis",
                "shop:6379=redis",
            ],
        ),
        ("NETRA_PROTOCOLS_WRITE_CONTEXT", &["false", "1"], &["off"]),
        ("NETRA_RULES", &["/etc/netra/rules", "rules.yaml"], &["a\nb"]),
        ("NETRA_LOCALITY", &["eu-west-1/eu-west-1a/rack-7", "eu"], &["a\nb"]),
        (
            "NETRA_LABELS",
            &["", "version=v2,x.y/z=1", "/etc/podinfo/labels"],
            &["version", "=a", "a b=c"],
        ),
        ("NETRA_RULES_URL", &["", "https://c:14960"], &["c:14960", "ftp://c"]),
        ("NETRA_RULES_NAMESPACE", &["", "shop"], &["a\nb"]),
        ("NETRA_RULES_TOKEN_FILE", &["", "/run/token"], &["a\nb"]),
        ("NETRA_RULES_CACHE", &["/cache/rules.yaml"], &["a\nb"]),
        ("NETRA_DETECT", &["true", "0"], &["on"]),
        ("NETRA_ACCESS_LOG", &["off", "all", "0.01"], &["some", "1.5"]),
        ("NETRA_HTTP_REQUEST_ID_HEADER_NAME", &["X-Id"], &["", "X Id"]),
        ("NETRA_HTTP_X_SOURCE_HEADER_NAME", &["X-Source"], &["X:"]),
        ("NETRA_HTTP_X_SOURCE_VALUE", &["", "netra 2"], &["a\r\nb: c"]),
        ("NETRA_HTTP_ROUTING_ENABLED", &["true", "0"], &["yes"]),
        ("NETRA_HTTP_ROUTING_HEADER_NAME", &["X-Route"], &["X Route"]),
        ("NETRA_HTTP_ROUTING_COOKIE_ENABLED", &["T"], &["on"]),
        ("NETRA_HTTP_ROUTING_COOKIE_NAME", &["route"], &["a=b"]),
        ("NETRA_HTTP_ROUTING_TARGETS", &["*.svc:80,fd00::/8", "none"], &["", "http://a"]),
        ("NETRA_HTTP_ROUTING_SOURCES", &["private,10.0.0.1", "*"], &["a.svc", "10.0.0.1:80"]),
        ("NETRA_ROUTING_CONTEXT_EXPIRATION_MILLISECONDS", &["1"], &["0", "5s"]),
        ("NETRA_ROUTING_CONTEXT_CLEANUP_INTERVAL", &["1000"], &["x"]),
        ("NETRA_REPORTER", &["auto", "AGENT", "otlp", "none"], &["", "jaeger"]),
        ("NETRA_JOIN", &["off", "tx", "AFFINE"], &["", "guess"]),
        ("NETRA_SEMCONV", &["legacy", "otel", "both"], &["new"]),
        ("NETRA_TRACING_QUERY", &["keep", "Names", "drop"], &["", "values"]),
        ("NETRA_HTTP_TRACING_IGNORED_PATHS", &["", "/health,/ready"], &["a\nb"]),
        ("NETRA_TRACING_CONTEXT_EXPIRATION_MILLISECONDS", &["1", "86400000"], &["0", "86400001"]),
        ("NETRA_TRACING_CONTEXT_CLEANUP_INTERVAL", &["1000"], &["0"]),
        ("NETRA_STATSD_ENABLED", &["true"], &["maybe"]),
        ("NETRA_STATSD_ADDRESS", &["", "statsd:8125", "[::1]:8125"], &["statsd", ":8125", "a:x"]),
        ("NETRA_STATSD_PREFIX", &["", "shop.mesh"], &["a\nb"]),
        ("HTTP_HEADER_TAG_MAP", &["", "x-a:a,x-b:b"], &["x-a", "x-a:", "x-a:a,,"]),
        ("HTTP_COOKIE_TAG_MAP", &["", "a:b"], &[":b"]),
        ("JAEGER_DISABLED", &["true", "f"], &["maybe"]),
        ("JAEGER_RPC_METRICS", &["true"], &["2"]),
        ("JAEGER_TAGS", &["", "a=b, c = ${D:e}", "a="], &["a", "=b", "a=${B}"]),
        ("JAEGER_TRACEID_128BIT", &["1"], &["128"]),
        ("JAEGER_PROPAGATION", &["jaeger", "b3,w3c"], &["zipkin"]),
        (
            "JAEGER_ENDPOINT",
            &["", "http://c:14268/api/traces", "https://c/"],
            &["c:14268", "ftp://c/"],
        ),
        ("JAEGER_USER", &["", "me"], &["a\tb"]),
        ("JAEGER_PASSWORD", &["", "x y"], &["a\nb"]),
        ("JAEGER_AGENT_HOST", &["agent", "::1"], &[""]),
        ("JAEGER_AGENT_PORT", &["6831"], &["0", "x"]),
        ("JAEGER_REPORTER_LOG_SPANS", &["true"], &["yes"]),
        ("JAEGER_REPORTER_MAX_QUEUE_SIZE", &["1", "100000"], &["0", "-1"]),
        ("JAEGER_REPORTER_FLUSH_INTERVAL", &["1s", "500ms", "0"], &["1000", "soon"]),
        ("JAEGER_REPORTER_ATTEMPT_RECONNECTING_DISABLED", &["true"], &[""]),
        ("JAEGER_REPORTER_ATTEMPT_RECONNECT_INTERVAL", &["30s"], &["30"]),
        ("JAEGER_SAMPLER_TYPE", &["const", "Remote"], &["lowerbound", ""]),
        ("JAEGER_SAMPLER_PARAM", &["0", "1", "100"], &["-1", "many", "NaN"]),
        ("JAEGER_SAMPLING_ENDPOINT", &["", "https://m/s", "m:5778"], &["ftp://m/", "m/x", "a b"]),
        ("JAEGER_SAMPLER_MAX_OPERATIONS", &["1"], &["0"]),
        ("JAEGER_SAMPLER_REFRESH_INTERVAL", &["1m", "0", "100ms"], &["99ms", "1"]),
        ("OTEL_SDK_DISABLED", &["true", "FALSE"], &["1"]),
        ("OTEL_RESOURCE_ATTRIBUTES", &["", "a=b%20c,d=e"], &["a", "a=%ff"]),
        ("OTEL_TRACES_EXPORTER", &["", "otlp", "jaeger", "console", "none"], &["zipkin"]),
        ("OTEL_TRACES_SAMPLER", &["", "always_on", "parentbased_jaeger_remote"], &["xray", "on"]),
        ("OTEL_TRACES_SAMPLER_ARG", &["", "0.5"], &["a\nb"]),
        ("OTEL_PROPAGATORS", &["", "tracecontext,baggage,b3multi"], &["xray"]),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &["", "http://c:4318", "https://c", "c:4317"],
            &["c", "ftp://c"],
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", &["", "a=b,c=d%20e"], &["a b=c", "a=b%0ac"]),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", &["", "grpc", "http/protobuf"], &["http/json"]),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", &["", "10000"], &["0", "10s"]),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", &["", "none", "gzip"], &["zstd"]),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &["", "/etc/ca.pem"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &["", "/etc/tls.crt"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &["", "/etc/tls.key"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_INSECURE", &["", "true", "False"], &["yes", "1"]),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", &["/etc/ca.pem"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", &["/etc/tls.crt"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", &["/etc/tls.key"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", &["true"], &["no"]),
        ("OTEL_METRICS_EXPORTER", &["none", "otlp", "prometheus"], &["", "console"]),
        ("OTEL_METRIC_EXPORT_INTERVAL", &["60000", "100"], &["99", "1m"]),
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            &["Cumulative", "delta", "lowmemory"],
            &["", "both"],
        ),
        (
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            &["explicit_bucket_histogram", "base2_exponential_bucket_histogram"],
            &["", "native"],
        ),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &["", "https://c:4318/x", "c:4317"], &["/x"]),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", &["a=b"], &["=b"]),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", &["grpc"], &["thrift"]),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", &["1"], &["x"]),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", &["gzip"], &["deflate"]),
        ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", &["/etc/ca.pem"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", &["/etc/tls.crt"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", &["/etc/tls.key"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_METRICS_INSECURE", &["true"], &["no"]),
        ("NETRA_TLS_CA_FILE", &["", "/etc/ca.pem"], &["a\nb"]),
        ("NETRA_TLS_CERTIFICATE_FILE", &["", "/etc/tls.crt"], &["a\nb"]),
        ("NETRA_TLS_KEY_FILE", &["", "/etc/tls.key"], &["a\nb"]),
        ("NETRA_EXPORT_HEADERS_FILE", &["", "/run/secrets/headers"], &["a\nb"]),
        ("HTTPS_PROXY", &["", "http://u:p@proxy:3128", "socks5://p"], &["a\nb"]),
        ("NO_PROXY", &["", "localhost,10.0.0.0/8,.svc"], &["a\nb"]),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &["", "http://c:4318/x"], &["/x"]),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", &["a=b"], &["=b"]),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &["grpc"], &["thrift"]),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", &["1"], &["x"]),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", &["gzip"], &["deflate"]),
        ("NETRA_ADMIN_ADDRESS", &["::1"], &["localhost:1"]),
    ];
}
