//! What the settings say about traces, and what they come to together: which sampler decides, where
//! spans go, and which headers carry the context.
//!
//! One rule for words that contradict each other: `NETRA_*` goes before `JAEGER_*`, which goes
//! before `OTEL_*`, which goes before the Go client's defaults.

use crate::{
    config::{Refused, Values},
    export::{ExportPlan, Protocol, Reporter, Semconv},
    http_client::Url,
    sampling::Remote,
    setting::{decimal, is_token, whole},
};
use netra_codecs::trace::{Formats, SampleRule, SamplerPlan};
use netra_shards::TracingConfig;
use percent_encoding::percent_decode_str;
use std::{sync::Arc, task::Waker, time::Duration};

/// The settings as they were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceSettings {
    pub(crate) is_disabled: bool,
    pub(crate) semconv: Semconv,
    pub(crate) ignored_paths: Vec<Box<[u8]>>,
    /// Header or cookie, and the tag it becomes.
    pub(crate) header_tags: Vec<(String, String)>,
    pub(crate) cookie_tags: Vec<(String, String)>,
    pub(crate) tags: Vec<(String, Given)>,
    pub(crate) resource: Vec<(String, String)>,
    pub(crate) has_wide_ids: bool,
    pub(crate) jaeger_formats: Formats,
    pub(crate) otel_formats: Formats,
    /// None is for the other settings to say.
    pub(crate) reporter: Option<ReporterKind>,
    pub(crate) otel_exporter: Option<ReporterKind>,
    pub(crate) collector: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) agent_host: String,
    pub(crate) agent_port: u16,
    pub(crate) logs_spans: bool,
    pub(crate) queue_spans: usize,
    pub(crate) flush_interval: Duration,
    pub(crate) resolves_once: bool,
    pub(crate) resolve_interval: Duration,
    pub(crate) sampler: SamplerKind,
    pub(crate) sampler_param: f64,
    /// Empty is the agent's host.
    pub(crate) sampling_endpoint: String,
    pub(crate) operations_max: usize,
    pub(crate) sampler_refresh: Duration,
    pub(crate) otel_sampler: String,
    pub(crate) otel_sampler_arg: String,
    pub(crate) otlp: OtlpSettings,
    pub(crate) otlp_traces: OtlpSettings,
}

/// The value of a tag in JAEGER_TAGS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Text(String),
    /// `${name:default}`
    Variable {
        name: String,
        default: String,
    },
}

/// `OTEL_EXPORTER_OTLP_*`, or the same for traces.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtlpSettings {
    pub(crate) endpoint: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) is_gzip: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReporterKind {
    Agent,
    Collector,
    Otlp,
    Stdout,
    Nothing,
    /// The agent, by way of `opentelemetry-jaeger`.
    #[cfg(feature = "jaeger-sdk")]
    Sdk,
}

impl ReporterKind {
    /// The words of NETRA_REPORTER, and what they mean; `auto` is for the other settings to say.
    pub(crate) const WORDS: &[&str] = &[
        "auto",
        "agent",
        "collector",
        "otlp",
        "stdout",
        "none",
        #[cfg(feature = "jaeger-sdk")]
        "jaeger-sdk",
    ];
    pub(crate) const ALL: &[Option<Self>] = &[
        None,
        Some(Self::Agent),
        Some(Self::Collector),
        Some(Self::Otlp),
        Some(Self::Stdout),
        Some(Self::Nothing),
        #[cfg(feature = "jaeger-sdk")]
        Some(Self::Sdk),
    ];
}

/// The words of JAEGER_SAMPLER_TYPE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SamplerKind {
    Const,
    Probabilistic,
    RateLimiting,
    #[default]
    Remote,
}

/// What tracing comes to.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    /// For the shards.
    pub(crate) tracing: TracingConfig,
    /// For the exporter.
    pub(crate) export: ExportPlan,
    /// For the task that asks a sampling manager.
    pub(crate) remote: Option<Remote>,
    /// The sampler, for people.
    pub(crate) sampler_words: String,
}

/// Finished spans that a shard keeps for the exporter: half a kilobyte each, so 1 MiB.
const RING_SPANS: usize = 2048;
/// The Go client's queue of 100 spans is full after 2 ms of what a shard can produce.
const QUEUE_SPANS_LEAST: usize = 8192;

/// Decides; the error is a value that is good by itself and not with the others.
pub(crate) fn decide(
    settings: &TraceSettings,
    service_name: &str,
    values: &Values<'_>,
    environment: &[(String, String)],
) -> Result<Traces, Refused> {
    let kind = reporter_kind(settings, values);
    let (plan, remote) = sampler(settings, service_name, kind, values)?;
    let names = |tags: &[(String, String)]| {
        tags.iter().map(|(name, _)| name.as_bytes().into()).collect::<Box<[Box<[u8]>]>>()
    };
    let mapped = settings.header_tags.iter().chain(&settings.cookie_tags);
    let mapped_tags: Vec<String> = mapped.map(|(_, tag)| tag.clone()).collect();
    if mapped_tags.len() > netra_codecs::trace::span::MAPPED_MAX {
        let most = netra_codecs::trace::span::MAPPED_MAX;
        let allowed = format!("{most} tags at most, with those of HTTP_COOKIE_TAG_MAP");
        return Err(values.get("HTTP_HEADER_TAG_MAP").refused(allowed));
    }
    let mut ignored_paths = settings.ignored_paths.clone();
    ignored_paths.sort();
    let is_set = |name: &str| values.get(name).is_set();
    let formats = match (is_set("JAEGER_PROPAGATION"), is_set("OTEL_PROPAGATORS")) {
        (false, true) => settings.otel_formats,
        _ => settings.jaeger_formats,
    };
    Ok(Traces {
        sampler_words: words(&plan, remote.as_ref()),
        tracing: TracingConfig {
            formats,
            wide_ids: settings.has_wide_ids,
            sampler: Arc::new(plan),
            ignored_paths: ignored_paths.into(),
            header_tags: names(&settings.header_tags),
            cookie_tags: names(&settings.cookie_tags),
            spans_max: RING_SPANS,
            // The export thread's, once it is there.
            waker: Waker::noop().clone(),
        },
        export: ExportPlan {
            service_name: service_name.into(),
            reporter: reporter(settings, kind, values)?,
            semconv: settings.semconv,
            mapped_tags,
            process_tags: given_tags(settings, environment),
            queue_spans: settings.queue_spans.max(QUEUE_SPANS_LEAST),
            flush_interval: settings.flush_interval,
            logs_spans: settings.logs_spans,
        },
        remote,
    })
}

fn reporter_kind(settings: &TraceSettings, values: &Values<'_>) -> ReporterKind {
    let is_set = |name: &str| values.get(name).is_set();
    if let Some(kind) = settings.reporter {
        return kind;
    }
    if is_set("JAEGER_ENDPOINT") {
        return ReporterKind::Collector;
    }
    if is_set("JAEGER_AGENT_HOST") || is_set("JAEGER_AGENT_PORT") {
        return ReporterKind::Agent;
    }
    let is_otlp = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    ];
    settings.otel_exporter.unwrap_or(match is_otlp.into_iter().any(is_set) {
        true => ReporterKind::Otlp,
        false => ReporterKind::Agent,
    })
}

fn reporter(
    settings: &TraceSettings,
    kind: ReporterKind,
    values: &Values<'_>,
) -> Result<Reporter, Refused> {
    Ok(match kind {
        ReporterKind::Agent => Reporter::Agent {
            host: settings.agent_host.clone(),
            port: settings.agent_port,
            resolve_every: (!settings.resolves_once).then_some(settings.resolve_interval),
        },
        #[cfg(feature = "jaeger-sdk")]
        ReporterKind::Sdk => {
            Reporter::Sdk { host: settings.agent_host.clone(), port: settings.agent_port }
        }
        ReporterKind::Collector => {
            let Some(url) = Url::parse(&settings.collector) else {
                let allowed = "to be set with NETRA_REPORTER=collector";
                return Err(values.get("JAEGER_ENDPOINT").refused(allowed));
            };
            let login = (settings.user.clone(), settings.password.clone());
            Reporter::Collector { url, login: Some(login).filter(|(user, _)| !user.is_empty()) }
        }
        ReporterKind::Otlp => otlp(settings),
        ReporterKind::Stdout => Reporter::Stdout,
        ReporterKind::Nothing => Reporter::Nothing,
    })
}

/// The OpenTelemetry protocol exporter's specification: what is said for traces goes before what is
/// said for all signals, and only the latter's endpoint gets a path.
fn otlp(settings: &TraceSettings) -> Reporter {
    let (all, traces) = (&settings.otlp, &settings.otlp_traces);
    let protocol = traces.protocol.or(all.protocol).unwrap_or(Protocol::Http);
    let (default, path) = match protocol {
        Protocol::Http => ("http://localhost:4318", "/v1/traces"),
        Protocol::Grpc => ("http://localhost:4317", ""),
    };
    let endpoint = traces.endpoint.clone().unwrap_or_else(|| {
        let base = all.endpoint.as_deref().unwrap_or(default);
        format!("{}{path}", base.trim_end_matches('/'))
    });
    let headers = if traces.headers.is_empty() { &all.headers } else { &traces.headers };
    Reporter::Otlp {
        protocol,
        endpoint,
        headers: headers.clone(),
        timeout: traces.timeout.or(all.timeout).unwrap_or(Duration::from_secs(10)),
        is_gzip: traces.is_gzip.or(all.is_gzip).unwrap_or(false),
    }
}

fn sampler(
    settings: &TraceSettings,
    service_name: &str,
    kind: ReporterKind,
    values: &Values<'_>,
) -> Result<(SamplerPlan, Option<Remote>), Refused> {
    let is_set = |name: &str| values.get(name).is_set();
    let says_jaeger =
        ["JAEGER_SAMPLER_TYPE", "JAEGER_SAMPLER_PARAM", "JAEGER_SAMPLING_ENDPOINT"].map(is_set);
    if says_jaeger.contains(&true) {
        return Ok(jaeger_sampler(settings, service_name));
    }
    if !settings.otel_sampler.is_empty() {
        return otel_sampler(settings, service_name, values);
    }
    match kind {
        // Who speaks OpenTelemetry's words only gets OpenTelemetry's default.
        ReporterKind::Otlp | ReporterKind::Stdout | ReporterKind::Nothing => {
            Ok((own_plan(SampleRule::Const(true), true), None))
        }
        _ => Ok(jaeger_sampler(settings, service_name)),
    }
}

fn own_plan(rule: SampleRule, parent_based: bool) -> SamplerPlan {
    SamplerPlan { rule, parent_based, is_remote: false }
}

/// A Jaeger client asks its sampler for roots only.
fn jaeger_sampler(settings: &TraceSettings, service: &str) -> (SamplerPlan, Option<Remote>) {
    let param = settings.sampler_param;
    let rule = match settings.sampler {
        SamplerKind::Const => SampleRule::Const(param != 0.0),
        SamplerKind::Probabilistic => SampleRule::Probabilistic(param),
        SamplerKind::RateLimiting => SampleRule::RateLimiting(param),
        SamplerKind::Remote => {
            let url = Some(settings.sampling_endpoint.clone()).filter(|url| !url.is_empty());
            let url = url.unwrap_or_else(|| {
                format!("http://{}:5778/sampling", bracketed(&settings.agent_host))
            });
            return remote(settings, service, &url, settings.sampler_refresh, param, true);
        }
    };
    (own_plan(rule, true), None)
}

fn remote(
    settings: &TraceSettings,
    service: &str,
    url: &str,
    refresh: Duration,
    first_share: f64,
    parent_based: bool,
) -> (SamplerPlan, Option<Remote>) {
    let rule = SampleRule::Probabilistic(first_share);
    let plan = SamplerPlan { rule, parent_based, is_remote: true };
    let operations_max = settings.operations_max;
    let remote = Url::parse(url).map(|url| Remote {
        url: url.with_query("service", service),
        refresh,
        operations_max,
        parent_based,
    });
    (plan, remote)
}

fn otel_sampler(
    settings: &TraceSettings,
    service: &str,
    values: &Values<'_>,
) -> Result<(SamplerPlan, Option<Remote>), Refused> {
    let name = settings.otel_sampler.as_str();
    let (parent_based, base) = match name.strip_prefix("parentbased_") {
        Some(base) => (true, base),
        None => (false, name),
    };
    let arg = settings.otel_sampler_arg.as_str();
    let refused = |allowed: &str| {
        values.get("OTEL_TRACES_SAMPLER_ARG").refused(format!("{allowed} with {name}"))
    };
    let rule = match base {
        "always_on" => SampleRule::Const(true),
        "always_off" => SampleRule::Const(false),
        "traceidratio" => {
            let share = if arg.is_empty() { Some(1.0) } else { decimal(arg, 0.0, 1.0) };
            SampleRule::Probabilistic(share.ok_or_else(|| refused("a number from 0 to 1"))?)
        }
        // The table knows only jaeger_remote besides.
        _ => {
            let allowed = "endpoint=URL,pollingIntervalMs=NUMBER,initialSamplingRate=0..1";
            let (url, refresh, share) =
                remote_arg(arg, settings).ok_or_else(|| refused(allowed))?;
            return Ok(remote(settings, service, &url, refresh, share, parent_based));
        }
    };
    Ok((own_plan(rule, parent_based), None))
}

/// `endpoint=http://localhost:5778/sampling,pollingIntervalMs=5000,initialSamplingRate=0.25`
fn remote_arg(arg: &str, settings: &TraceSettings) -> Option<(String, Duration, f64)> {
    let host = bracketed(&settings.agent_host);
    let mut found =
        (format!("http://{host}:5778/sampling"), settings.sampler_refresh, settings.sampler_param);
    for pair in arg.split(',').filter(|pair| !pair.trim().is_empty()) {
        match pair.split_once('=')? {
            (name, url) if name.trim() == "endpoint" => {
                found.0 = sampling_url(url.trim()).filter(|url| !url.is_empty())?;
            }
            (name, millis) if name.trim() == "pollingIntervalMs" => {
                let millis = whole(millis.trim(), 100, u32::MAX)?;
                found.1 = Duration::from_millis(u64::from(millis));
            }
            (name, share) if name.trim() == "initialSamplingRate" => {
                found.2 = decimal(share.trim(), 0.0, 1.0)?;
            }
            _ => return None,
        }
    }
    Some(found)
}

/// The sampler as the start line has it.
fn words(plan: &SamplerPlan, remote: Option<&Remote>) -> String {
    let rule = match &plan.rule {
        SampleRule::Const(true) => "const, all traces".into(),
        SampleRule::Const(false) => "const, no trace".into(),
        SampleRule::Probabilistic(share) if plan.is_remote => {
            let whom = remote.map(|remote| remote.url.to_string()).unwrap_or_default();
            let first = if *share > 0.0 { format!("share {share}") } else { "no trace".into() };
            format!("remote, {whom}; {first} until it answers")
        }
        SampleRule::Probabilistic(share) => format!("probabilistic, share {share}"),
        SampleRule::RateLimiting(rate) => format!("ratelimiting, {rate} traces a second"),
        SampleRule::PerOperation(_) => "by operation".into(),
    };
    let of_parent = if plan.parent_based { "" } else { "; parents are not heeded" };
    format!("{rule}{of_parent}")
}

fn given_tags(settings: &TraceSettings, environment: &[(String, String)]) -> Vec<(String, String)> {
    let resource = settings.resource.iter().map(|(key, value)| (key, value.clone()));
    let tags = settings.tags.iter().map(|(key, given)| {
        let value = match given {
            Given::Text(text) => text.clone(),
            Given::Variable { name, default } => {
                let found = environment.iter().find(|(known, _)| known == name);
                let text = found.map(|(_, text)| text).filter(|text| !text.is_empty());
                text.unwrap_or(default).clone()
            }
        };
        (key, value)
    });
    resource.chain(tags).map(|(key, value)| (key.clone(), value)).collect()
}

/// A host as it stands in a URL.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() }
}

/// Items of a list with commas between.
pub(crate) fn list(text: &str) -> Vec<Box<[u8]>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.as_bytes().into()).collect()
}

/// Pairs around `between`, of which neither half may be empty; netramesh skipped bad ones in
/// silence, and the tag was missed weeks later.
fn pairs(text: &str, between: char) -> Option<Vec<(&str, &str)>> {
    if text.trim().is_empty() {
        return Some(vec![]);
    }
    let pair = |pair: &'_ str| -> Option<(usize, usize)> {
        let at = pair.find(between)?;
        (!pair[..at].trim().is_empty()).then_some((at, at + between.len_utf8()))
    };
    text.split(',')
        .map(|item| pair(item).map(|(end, start)| (item[..end].trim(), item[start..].trim())))
        .collect()
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.into(), value.into())
}

/// `header:tag,...`
pub(crate) fn tag_map(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = pairs(text, ':')?;
    let is_good = pairs.iter().all(|(_, tag)| !tag.is_empty());
    is_good.then(|| pairs.into_iter().map(owned).collect())
}

/// `k=v,k2=${VARIABLE:default}`; the Go client panics where this says None.
pub(crate) fn process_tags(text: &str) -> Option<Vec<(String, Given)>> {
    let given = |(key, value): (&str, &str)| {
        let given = match value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            None => Given::Text(value.into()),
            Some(inside) => {
                let (name, default) = inside.split_once(':')?;
                Given::Variable { name: name.into(), default: default.into() }
            }
        };
        Some((key.to_owned(), given))
    };
    pairs(text, '=')?.into_iter().map(given).collect()
}

/// `k=v,...` with percent-encoded values, as W3C Baggage has them.
pub(crate) fn resource_attributes(text: &str) -> Option<Vec<(String, String)>> {
    let decode = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
    pairs(text, '=')?.into_iter().map(|(key, value)| Some((decode(key)?, decode(value)?))).collect()
}

/// The same, and each is good as an HTTP header.
pub(crate) fn header_pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = resource_attributes(text)?;
    let is_value = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    pairs.iter().all(|(name, value)| is_token(name) && is_value(value)).then_some(pairs)
}

pub(crate) fn is_http_url(text: &str) -> bool {
    Url::parse(text).is_some()
}

/// A URL, or the host:port that JAEGER_SAMPLER_MANAGER_HOST_PORT used to be; nothing is nothing.
pub(crate) fn sampling_url(text: &str) -> Option<String> {
    if text.is_empty() || is_http_url(text) {
        return Some(text.into());
    }
    let url = format!("http://{text}/sampling");
    let is_host = !text.contains('/') && Url::parse(&url).is_some();
    is_host.then_some(url)
}

#[cfg(test)]
#[path = "traces_tests.rs"]
mod tests;
