//! OTLP receivers and how whoever netra sends to is reached, row by row.

use super::spans::put;
use crate::{
    export::Protocol,
    setting::{
        Parse::{Choice, Custom, Millis, Text},
        Setting,
    },
    texts::whole,
    traces::{OtlpSettings, header_pairs, is_bare_endpoint, is_http_url},
};
use std::time::Duration;

/// What OpenTelemetry says of a receiver, once for all signals and once for each: the same rows
/// with another prefix and another place.
macro_rules! rows {
    ($prefix:literal, $place:ident, $($doc:literal),+) => {{
        const DOCS: [&str; 9] = [$($doc),+];
        [
            Setting::new(
                concat!($prefix, "ENDPOINT"),
                "",
                Custom(ENDPOINT, |c, text| endpoint(&mut c.traces.$place, text)),
                DOCS[0],
            )
            .url(),
            Setting::new(
                concat!($prefix, "HEADERS"),
                "",
                Custom(HEADERS, |c, text| put(&mut c.traces.$place.headers, header_pairs(text))),
                DOCS[1],
            )
            .secret(),
            Setting::new(
                concat!($prefix, "PROTOCOL"),
                "",
                Custom(PROTOCOLS, |c, text| protocol(&mut c.traces.$place, text)),
                DOCS[2],
            ),
            Setting::new(
                concat!($prefix, "TIMEOUT"),
                "",
                Custom(TIMEOUT, |c, text| timeout(&mut c.traces.$place, text)),
                DOCS[3],
            ),
            Setting::new(
                concat!($prefix, "COMPRESSION"),
                "",
                Custom(COMPRESSION, |c, text| compression(&mut c.traces.$place, text)),
                DOCS[4],
            ),
            Setting::new(
                concat!($prefix, "CERTIFICATE"),
                "",
                Text(|c, path| c.traces.$place.tls.ca = path.into()),
                DOCS[5],
            ),
            Setting::new(
                concat!($prefix, "CLIENT_CERTIFICATE"),
                "",
                Text(|c, path| c.traces.$place.tls.certificate = path.into()),
                DOCS[6],
            ),
            Setting::new(
                concat!($prefix, "CLIENT_KEY"),
                "",
                Text(|c, path| c.traces.$place.tls.key = path.into()),
                DOCS[7],
            ),
            Setting::new(
                concat!($prefix, "INSECURE"),
                "",
                Custom(INSECURE, |c, text| insecure(&mut c.traces.$place, text)),
                DOCS[8],
            ),
        ]
    }};
}

pub(super) const OTLP: &[Setting] = &rows!(
    "OTEL_EXPORTER_OTLP_",
    otlp,
    "OTLP receiver; default http://localhost:4318, with grpc :4317",
    "Headers for it",
    "How it is spoken to; default http/protobuf",
    "How long a send may take; default 10000",
    "Whether bodies are compressed; default none",
    "File with the certificates of whoever may have issued the receiver's, in PEM",
    "File with the certificate that netra shows to the receiver, in PEM",
    "File with the key of that certificate, in PEM",
    "Whether host:port, which grpc takes for a URL, is http; default is https"
);

pub(super) const OTLP_TRACES: &[Setting] = &rows!(
    "OTEL_EXPORTER_OTLP_TRACES_",
    otlp_traces,
    "The same, for spans: used as it is, without /v1/traces",
    "The same, for spans",
    "The same, for spans",
    "The same, for spans",
    "The same, for spans",
    "The same, for spans",
    "The same, for spans",
    "The same, for spans",
    "The same, for spans"
);

pub(super) const OTLP_METRICS: &[Setting] = &rows!(
    "OTEL_EXPORTER_OTLP_METRICS_",
    otlp_metrics,
    "The same, for metrics: used as it is, without /v1/metrics",
    "The same, for metrics",
    "The same, for metrics",
    "The same, for metrics",
    "The same, for metrics",
    "The same, for metrics",
    "The same, for metrics",
    "The same, for metrics",
    "The same, for metrics"
);

/// What is pushed, and in which form.
pub(super) const METRICS: &[Setting] = &[
    Setting::new(
        "OTEL_METRICS_EXPORTER",
        "none",
        Choice(&["none", "otlp", "prometheus"], |c, index| {
            c.traces.metrics.is_pushed = index == 1;
        }),
        "Whether metrics are pushed; /metrics is there in any case",
    ),
    Setting::new(
        "OTEL_METRIC_EXPORT_INTERVAL",
        "60000",
        Millis(100, 86_400_000, |c, every| c.traces.metrics.every = every),
        "How often they are pushed",
    ),
    Setting::new(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "cumulative",
        Choice(&["cumulative", "delta", "lowmemory"], |c, index| {
            c.traces.metrics.form.delta_counts = index == 1;
            c.traces.metrics.form.delta_durations = index > 0;
        }),
        "Whether counts are told since the start or since the last push; lowmemory: durations since the last",
    ),
    Setting::new(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "explicit_bucket_histogram",
        Choice(&["explicit_bucket_histogram", "base2_exponential_bucket_histogram"], |c, index| {
            c.traces.metrics.form.is_exponential = index == 1;
        }),
        "Buckets of durations that are pushed",
    ),
];

/// How all receivers over HTTP are reached.
pub(super) const REACH: &[Setting] = &[
    Setting::new(
        "NETRA_TLS_CA_FILE",
        "",
        Text(|c, path| c.reach.tls.ca = path.into()),
        "File with the certificates of whoever may have issued a receiver's; default the machine's roots",
    ),
    Setting::new(
        "NETRA_TLS_CERTIFICATE_FILE",
        "",
        Text(|c, path| c.reach.tls.certificate = path.into()),
        "File with the certificate that netra shows to receivers that ask for one, in PEM",
    ),
    Setting::new(
        "NETRA_TLS_KEY_FILE",
        "",
        Text(|c, path| c.reach.tls.key = path.into()),
        "File with the key of that certificate, in PEM",
    ),
    Setting::new(
        "NETRA_EXPORT_HEADERS_FILE",
        "",
        Text(|c, path| c.reach.headers_file = path.into()),
        "File with headers for OTLP receiver and collector, such as Authorization: Bearer TOKEN, one a line",
    ),
    Setting::new(
        "HTTPS_PROXY",
        "",
        Text(|c, text| c.reach.https_proxy = text.into()),
        "Proxy for receivers over https, http://[USER:PASSWORD@]HOST:PORT",
    )
    .also(&["https_proxy"])
    .url(),
    Setting::new(
        "NO_PROXY",
        "",
        Text(|c, text| c.reach.no_proxy = text.into()),
        "Names, addresses and networks that are reached without it, with commas between",
    )
    .also(&["no_proxy"]),
];

const ENDPOINT: &str = "an http:// or https:// URL, or with grpc host:port";
const HEADERS: &str = "name=value with commas between, values percent-encoded";
const PROTOCOLS: &str = "http/protobuf or grpc";
const TIMEOUT: &str = "whole milliseconds from 1 to 600000";
const COMPRESSION: &str = "none or gzip";
const INSECURE: &str = "true or false";

fn endpoint(otlp: &mut OtlpSettings, text: &str) -> bool {
    otlp.endpoint = Some(text.to_owned()).filter(|text| !text.is_empty());
    text.is_empty() || is_http_url(text) || is_bare_endpoint(text)
}

fn protocol(otlp: &mut OtlpSettings, text: &str) -> bool {
    otlp.protocol = match text {
        "" => None,
        "grpc" => Some(Protocol::Grpc),
        "http/protobuf" => Some(Protocol::Http),
        _ => return false,
    };
    true
}

fn timeout(otlp: &mut OtlpSettings, text: &str) -> bool {
    let millis = whole(text, 1, 600_000);
    otlp.timeout = millis.map(|millis| Duration::from_millis(u64::from(millis)));
    text.is_empty() || millis.is_some()
}

fn compression(otlp: &mut OtlpSettings, text: &str) -> bool {
    otlp.is_gzip = match text {
        "" => None,
        "none" => Some(false),
        "gzip" => Some(true),
        _ => return false,
    };
    true
}

/// OpenTelemetry's specification knows `true` in any case, and all else is false.
fn insecure(otlp: &mut OtlpSettings, text: &str) -> bool {
    otlp.is_insecure = match text.to_ascii_lowercase().as_str() {
        "" => None,
        "true" => Some(true),
        "false" => Some(false),
        _ => return false,
    };
    true
}
