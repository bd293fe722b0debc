//! What the settings of traces come to: a reporter, a sampler, and the words for both.

use crate::{
    config::Config,
    export::{ExportPlan, OtlpPlan, Process, Protocol, Reporter},
    metrics_push::MetricsPlan,
    reach::{Reach, ReachSettings},
    reach_plan::{self, TLS_NAMES, TlsNames},
    sampling::Remote,
    texts::{decimal, whole},
    traces::*,
    url::Url,
    values::{Refused, Values},
};
use netra_codecs::{
    tap,
    trace::{SampleRule, SamplerPlan},
};
use netra_shards::TracingConfig;
use std::{sync::Arc, task::Waker, time::Duration};

/// Finished spans that a shard keeps for the exporter: half a kilobyte each, so 1 MiB.
const RING_SPANS: usize = 2048;
/// The Go client's queue of 100 spans is full after 2 ms of what a shard can produce.
const QUEUE_SPANS_LEAST: usize = 8192;

/// Decides; the error is a value that is good by itself and not with the others.
pub(crate) fn decide(
    config: &Config,
    values: &Values<'_>,
    environment: &[(String, String)],
) -> Result<Traces, Refused> {
    let Config { traces: settings, service_name, reach, .. } = config;
    let kind = reporter_kind(settings, values);
    let (plan, mut remote) = sampler(settings, service_name, kind, values)?;
    if let Some(remote) = &mut remote {
        remote.reach = decide_reach(reach, &remote.url, values)?;
    }
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
            join: settings.join,
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
            service_name: service_name.clone(),
            reporter: reporter(settings, reach, kind, values)?,
            semconv: settings.semconv,
            query: settings.query,
            mapped_tags,
            process_tags: given_tags(settings, environment),
            queue_spans: settings.queue_spans.max(QUEUE_SPANS_LEAST),
            flush_interval: settings.flush_interval,
            logs_spans: settings.logs_spans,
            headers_file: reach.headers_file.clone(),
        },
        remote,
    })
}

/// What is pushed of metrics; none where nothing is.
pub(crate) fn metrics(
    config: &Config,
    values: &Values<'_>,
    environment: &[(String, String)],
) -> Result<Option<MetricsPlan>, Refused> {
    let Config { traces: settings, service_name, reach, .. } = config;
    let MetricsSettings { is_pushed, every, form } = settings.metrics;
    if !is_pushed {
        return Ok(None);
    }
    let receiver = otlp(settings, reach, &METRICS, values)?;
    let resource = Process::otel(service_name, &given_tags(settings, environment)).tags;
    let headers_file = reach.headers_file.clone();
    let built_in = tap::Protocol::ALL.iter().copied();
    let protocols = built_in.chain(config.protocols.protocols()).chain(config.told()).collect();
    Ok(Some(MetricsPlan { receiver, headers_file, every, form, resource, protocols }))
}

/// How a receiver is reached of which only the settings for all say anything.
fn decide_reach(
    settings: &ReachSettings,
    url: &Url,
    values: &Values<'_>,
) -> Result<Reach, Refused> {
    reach_plan::decide(settings, &[(TLS_NAMES, &settings.tls)], url, values)
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
    reach: &ReachSettings,
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
            let login = Some(login).filter(|(user, _)| !user.is_empty());
            let reach = decide_reach(reach, &url, values)?;
            Reporter::Collector { url, login, reach }
        }
        ReporterKind::Otlp => Reporter::Otlp(otlp(settings, reach, &TRACES, values)?),
        ReporterKind::Stdout => Reporter::Stdout,
        ReporterKind::Nothing => Reporter::Nothing,
    })
}

/// A signal of OpenTelemetry's, as the settings of its receiver have it.
#[derive(Debug)]
struct Signal {
    /// What stands behind the base of a URL.
    path: &'static str,
    endpoint: &'static str,
    tls: TlsNames,
    settings: fn(&TraceSettings) -> &OtlpSettings,
}

const TRACES: Signal = Signal {
    path: "/v1/traces",
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    tls: TlsNames {
        ca: "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        certificate: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
        key: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    },
    settings: |settings| &settings.otlp_traces,
};

const METRICS: Signal = Signal {
    path: "/v1/metrics",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    tls: TlsNames {
        ca: "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
        certificate: "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
        key: "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
    },
    settings: |settings| &settings.otlp_metrics,
};

const OTLP_TLS: TlsNames = TlsNames {
    ca: "OTEL_EXPORTER_OTLP_CERTIFICATE",
    certificate: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    key: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
};

/// The OpenTelemetry protocol exporter's specification: what is said for a signal goes before what is
/// said for all, and only the latter's endpoint gets a path.
fn otlp(
    settings: &TraceSettings,
    reach: &ReachSettings,
    signal: &Signal,
    values: &Values<'_>,
) -> Result<OtlpPlan, Refused> {
    let (all, own) = (&settings.otlp, (signal.settings)(settings));
    let protocol = own.protocol.or(all.protocol).unwrap_or(Protocol::Http);
    let (default, path) = match protocol {
        Protocol::Http => ("http://localhost:4318", signal.path),
        Protocol::Grpc => ("http://localhost:4317", ""),
    };
    let (setting, endpoint) = match (&own.endpoint, &all.endpoint) {
        (Some(own), _) => (signal.endpoint, own.clone()),
        (None, base) => {
            let base = base.as_deref().unwrap_or(default).trim_end_matches('/');
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{base}{path}"))
        }
    };
    let endpoint = match (endpoint.contains("://"), protocol) {
        (true, _) => endpoint,
        (false, Protocol::Grpc) => match own.is_insecure.or(all.is_insecure) {
            Some(true) => format!("http://{endpoint}"),
            _ => format!("https://{endpoint}"),
        },
        (false, Protocol::Http) => {
            let allowed = "an http:// or https:// URL; host:port is for the protocol grpc";
            return Err(values.get(setting).refused(allowed));
        }
    };
    let Some(url) = Url::parse(&endpoint) else {
        return Err(values.get(setting).refused("an http:// or https:// URL"));
    };
    let tls = [(signal.tls, &own.tls), (OTLP_TLS, &all.tls), (TLS_NAMES, &reach.tls)];
    let headers = if own.headers.is_empty() { &all.headers } else { &own.headers };
    Ok(OtlpPlan {
        protocol,
        reach: reach_plan::decide(reach, &tls, &url, values)?,
        endpoint,
        headers: headers.clone(),
        timeout: own.timeout.or(all.timeout).unwrap_or(Duration::from_secs(10)),
        is_gzip: own.is_gzip.or(all.is_gzip).unwrap_or(false),
    })
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
        // Decided once all is known.
        reach: Reach::default(),
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

#[cfg(test)]
#[path = "trace_plan_tests.rs"]
mod tests;
