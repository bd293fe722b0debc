//! What the settings say about traces.
//!
//! One rule for words that contradict each other: `NETRA_*` goes before `JAEGER_*`, which goes
//! before `OTEL_*`, which goes before the Go client's defaults.

use crate::{
    export::{ExportPlan, Protocol, Reporter, Semconv},
    mask::Query,
    reach::{Reach, TlsSettings},
    sampling::Remote,
    texts::is_token,
    url::Url,
};
use netra_codecs::trace::Formats;
use netra_perf::otlp::Form;
use netra_shards::{JoinLevel, TracingConfig};
use percent_encoding::percent_decode_str;
use std::time::Duration;

/// The settings as they were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceSettings {
    pub(crate) is_disabled: bool,
    /// How calls are joined that carry no context.
    pub(crate) join: JoinLevel,
    pub(crate) semconv: Semconv,
    /// What is told of queries, in spans and access log.
    pub(crate) query: Query,
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
    pub(crate) otlp_metrics: OtlpSettings,
    pub(crate) metrics: MetricsSettings,
}

/// What is said of metrics alone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MetricsSettings {
    pub(crate) is_pushed: bool,
    pub(crate) every: Duration,
    pub(crate) form: Form,
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

/// `OTEL_EXPORTER_OTLP_*`, or the same for one signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtlpSettings {
    pub(crate) endpoint: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) is_gzip: Option<bool>,
    pub(crate) tls: TlsSettings,
    /// Whether an endpoint without a scheme is spoken to in the clear.
    pub(crate) is_insecure: Option<bool>,
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

impl Traces {
    /// How each receiver of it is reached.
    pub(crate) fn reaches(&self) -> impl Iterator<Item = &Reach> {
        let reporter = match &self.export.reporter {
            Reporter::Collector { reach, .. } => Some(reach),
            Reporter::Otlp(plan) => Some(&plan.reach),
            _ => None,
        };
        reporter.into_iter().chain(self.remote.as_ref().map(|remote| &remote.reach))
    }
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

/// `host:port`, as OpenTelemetry has endpoints of gRPC.
pub(crate) fn is_bare_endpoint(text: &str) -> bool {
    let is_bare = !text.contains("://") && text.contains(':') && !text.contains('/');
    is_bare && is_http_url(&format!("http://{text}"))
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
