//! Spans and their export, row by row. What they come to together is for `trace_plan.rs`.

use super::DAY_MS;
use crate::{
    export::Semconv,
    mask::Query,
    setting::{
        Parse::{Choice, Custom, Millis, Name, Number, Port, Switch, Text},
        Setting,
    },
    texts::{decimal, go_duration, whole},
    traces::{
        ReporterKind, SamplerKind, is_http_url, list, process_tags, resource_attributes,
        sampling_url, tag_map,
    },
};
use netra_shards::JoinLevel;
use std::time::Duration;

pub(super) const SPANS: &[Setting] = &[
    Setting::new(
        "NETRA_REPORTER",
        "auto",
        Choice(ReporterKind::WORDS, |c, index| c.traces.reporter = ReporterKind::ALL[index]),
        "Where spans go; auto goes by JAEGER_ENDPOINT, JAEGER_AGENT_*, then OTEL_*, then the agent",
    ),
    Setting::new(
        "NETRA_SEMCONV",
        "legacy",
        Choice(&["legacy", "otel", "both"], |c, index| {
            c.traces.semconv = [Semconv::Legacy, Semconv::Otel, Semconv::Both][index];
        }),
        "Names of span tags: netramesh's, OpenTelemetry's, or both",
    ),
    Setting::new(
        "NETRA_JOIN",
        "tx",
        Choice(&JoinLevel::WORDS, |c, index| c.traces.join = JoinLevel::ALL[index]),
        "How far to go to find the request that a call belongs to; each word has those before it",
    ),
    Setting::new(
        "NETRA_TRACING_QUERY",
        "names",
        Choice(Query::WORDS, |c, index| c.traces.query = Query::ALL[index]),
        "What spans and access log tell of queries: all, names without values, or nothing",
    ),
    Setting::new(
        "NETRA_HTTP_TRACING_IGNORED_PATHS",
        "",
        Text(|c, text| c.traces.ignored_paths = list(text)),
        "Exact paths without spans, with commas between",
    ),
    Setting::new(
        "NETRA_TRACING_CONTEXT_EXPIRATION_MILLISECONDS",
        "5000",
        Custom("whole milliseconds from 1 to 86400000", |c, text| {
            let ttl_ms = whole(text, 1, DAY_MS);
            c.http.limits.context_ttl_ms = ttl_ms.unwrap_or_default();
            ttl_ms.is_some()
        }),
        "How long a request id remembers its trace",
    ),
    Setting::new(
        "NETRA_TRACING_CONTEXT_CLEANUP_INTERVAL",
        "1000",
        Millis(1, DAY_MS, |_, _| {}),
        "Taken and not needed: forgotten traces are swept as new ones come, and every second",
    ),
    Setting::new(
        "HTTP_HEADER_TAG_MAP",
        "",
        Custom(TAG_MAP, |c, text| put(&mut c.traces.header_tags, tag_map(text))),
        "Headers that become span tags",
    ),
    Setting::new(
        "HTTP_COOKIE_TAG_MAP",
        "",
        Custom(TAG_MAP, |c, text| put(&mut c.traces.cookie_tags, tag_map(text))),
        "Cookies that become span tags",
    ),
    Setting::new(
        "JAEGER_DISABLED",
        "false",
        Switch(|c, on| c.traces.is_disabled |= on),
        "No spans, and no trace headers",
    ),
    Setting::new(
        "JAEGER_RPC_METRICS",
        "false",
        Switch(|_, _| {}),
        "Taken and not needed: /metrics always has them",
    ),
    Setting::new(
        "JAEGER_TAGS",
        "",
        Custom("k=v,k2=v2, where a value may be ${VARIABLE:default}", |c, text| {
            put(&mut c.traces.tags, process_tags(text))
        }),
        "Tags of the process",
    ),
    Setting::new(
        "JAEGER_TRACEID_128BIT",
        "false",
        Switch(|c, on| c.traces.has_wide_ids = on),
        "New trace ids have 128 bits",
    ),
    Setting::new(
        "JAEGER_PROPAGATION",
        "jaeger",
        Custom("jaeger, b3, w3c with commas between", |c, text| {
            put(&mut c.traces.jaeger_formats, text.parse().ok())
        }),
        "Trace headers written; uber-trace-id always is",
    ),
    Setting::new(
        "JAEGER_ENDPOINT",
        "",
        Custom(HTTP_URL, |c, text| {
            c.traces.collector = text.into();
            text.is_empty() || is_http_url(text)
        }),
        "Collector's URL; goes before the agent",
    )
    .url(),
    Setting::new("JAEGER_USER", "", Text(|c, text| c.traces.user = text.into()), "User there"),
    Setting::new(
        "JAEGER_PASSWORD",
        "",
        Text(|c, text| c.traces.password = text.into()),
        "Password there",
    )
    .secret(),
    Setting::new(
        "JAEGER_AGENT_HOST",
        "localhost",
        Name(|c, name| c.traces.agent_host = name.into()),
        "Agent's host",
    ),
    Setting::new(
        "JAEGER_AGENT_PORT",
        "6831",
        Port(|c, port| c.traces.agent_port = port),
        "Agent's UDP port",
    ),
    Setting::new(
        "JAEGER_REPORTER_LOG_SPANS",
        "false",
        Switch(|c, on| c.traces.logs_spans = on),
        "Log each span as well",
    ),
    Setting::new(
        "JAEGER_REPORTER_MAX_QUEUE_SIZE",
        "100",
        Number(1, 1 << 20, |c, count| c.traces.queue_spans = count as usize),
        "Spans that may wait for the reporter; below 8192 there is room for 8192",
    ),
    Setting::new(
        "JAEGER_REPORTER_FLUSH_INTERVAL",
        "1s",
        Custom(GO_DURATION, |c, text| {
            put(&mut c.traces.flush_interval, or_default(text, Duration::from_secs(1)))
        }),
        "How often spans are sent; 0 is 1s",
    ),
    Setting::new(
        "JAEGER_REPORTER_ATTEMPT_RECONNECTING_DISABLED",
        "false",
        Switch(|c, on| c.traces.resolves_once = on),
        "Resolve the agent's name once only",
    ),
    Setting::new(
        "JAEGER_REPORTER_ATTEMPT_RECONNECT_INTERVAL",
        "30s",
        Custom(GO_DURATION, |c, text| {
            put(&mut c.traces.resolve_interval, or_default(text, Duration::from_secs(30)))
        }),
        "How often the agent's name is resolved, while spans are sent; 0 is 30s",
    ),
    Setting::new(
        "JAEGER_SAMPLER_TYPE",
        "remote",
        Choice(&["const", "probabilistic", "ratelimiting", "remote"], |c, index| {
            c.traces.sampler = [
                SamplerKind::Const,
                SamplerKind::Probabilistic,
                SamplerKind::RateLimiting,
                SamplerKind::Remote,
            ][index];
        }),
        "Which traces are sampled",
    ),
    Setting::new(
        "JAEGER_SAMPLER_PARAM",
        "0",
        Custom("a number from 0 up", |c, text| {
            put(&mut c.traces.sampler_param, decimal(text, 0.0, f64::MAX))
        }),
        "Sampler's parameter; a share from 0 to 1 for probabilistic and, until it answers, remote",
    ),
    Setting::new(
        "JAEGER_SAMPLING_ENDPOINT",
        "",
        Custom("an http:// or https:// URL, or host:port", |c, text| {
            put(&mut c.traces.sampling_endpoint, sampling_url(text))
        }),
        "Where the remote sampler asks; default http://JAEGER_AGENT_HOST:5778/sampling",
    )
    .also(&["JAEGER_SAMPLER_MANAGER_HOST_PORT"])
    .url(),
    Setting::new(
        "JAEGER_SAMPLER_MAX_OPERATIONS",
        "2000",
        Number(1, 1 << 20, |c, count| c.traces.operations_max = count as usize),
        "Operations with a sampler of their own",
    ),
    Setting::new(
        "JAEGER_SAMPLER_REFRESH_INTERVAL",
        "1m",
        Custom("a duration as Go writes it, at least 100ms, for example 1m; 0 is 1m", |c, text| {
            let every = or_default(text, Duration::from_secs(60));
            put(&mut c.traces.sampler_refresh, every.filter(|every| *every >= REFRESH_LEAST))
        }),
        "How often it asks",
    ),
    Setting::new(
        "OTEL_SDK_DISABLED",
        "false",
        Choice(&["false", "true"], |c, index| c.traces.is_disabled |= index == 1),
        "As JAEGER_DISABLED",
    ),
    Setting::new(
        "OTEL_RESOURCE_ATTRIBUTES",
        "",
        Custom("k=v,k2=v2, percent-encoded", |c, text| {
            put(&mut c.traces.resource, resource_attributes(text))
        }),
        "Attributes of the process",
    ),
    Setting::new(
        "OTEL_TRACES_EXPORTER",
        "",
        Custom("otlp, jaeger, console or none", |c, text| {
            let kind = match text {
                "" => None,
                "otlp" => Some(ReporterKind::Otlp),
                "jaeger" => Some(ReporterKind::Agent),
                "console" => Some(ReporterKind::Stdout),
                "none" => Some(ReporterKind::Nothing),
                _ => return false,
            };
            c.traces.otel_exporter = kind;
            true
        }),
        "Where spans go, in OpenTelemetry's words; JAEGER_* and NETRA_REPORTER go before it",
    ),
    Setting::new(
        "OTEL_TRACES_SAMPLER",
        "",
        Custom(OTEL_SAMPLERS, |c, text| {
            c.traces.otel_sampler = text.into();
            text.is_empty() || OTEL_SAMPLERS.split(", ").any(|known| known == text)
        }),
        "Sampler, in OpenTelemetry's words; JAEGER_SAMPLER_* goes before it",
    ),
    Setting::new(
        "OTEL_TRACES_SAMPLER_ARG",
        "",
        Text(|c, text| c.traces.otel_sampler_arg = text.into()),
        "Its argument",
    ),
    Setting::new(
        "OTEL_PROPAGATORS",
        "",
        Custom(
            "tracecontext, baggage, b3, b3multi, jaeger, none with commas between",
            |c, text| put(&mut c.traces.otel_formats, text.parse().ok()),
        ),
        "Trace headers written, in OpenTelemetry's words; JAEGER_PROPAGATION goes before it",
    ),
];

/// A sampling manager is not to be asked more often.
const REFRESH_LEAST: Duration = Duration::from_millis(100);

const TAG_MAP: &str = "name:tag with commas between, or nothing";
const GO_DURATION: &str = "a duration as Go writes it, for example 1s or 1m30s";
const HTTP_URL: &str = "an http:// or https:// URL";
const OTEL_SAMPLERS: &str = "always_on, always_off, traceidratio, parentbased_always_on, \
    parentbased_always_off, parentbased_traceidratio, jaeger_remote, parentbased_jaeger_remote";

/// Stores a value if there is one; says whether there is.
pub(super) fn put<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

/// A Go duration, of which zero means the default, as it does to the Go client.
fn or_default(text: &str, default: Duration) -> Option<Duration> {
    go_duration(text).map(|time| if time.is_zero() { default } else { time })
}
