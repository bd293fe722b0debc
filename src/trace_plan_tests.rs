use super::*;
use crate::{
    export::{OtlpPlan, Protocol, Reporter},
    load::{Loaded, Sources, load},
    values::Refused,
};

const NAMED: [(&str, &str); 2] = [("NETRA_SERVICE_NAME", "my shop"), ("NETRA_HTTP_PORTS", "8080")];

fn load_from(pairs: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let all = NAMED.iter().chain(pairs);
    let environment = all.map(|(name, text)| ((*name).into(), (*text).into())).collect();
    load(&Sources { environment, ..Sources::default() })
        .map_err(|refused| refused.iter().map(Refused::to_string).collect())
}

fn traces(pairs: &[(&str, &str)]) -> Traces {
    load_from(pairs).unwrap().config.tracing.unwrap()
}

#[test]
fn which_reporter() {
    const ENDPOINT: (&str, &str) = ("JAEGER_ENDPOINT", "http://c:14268/api/traces");
    const OTLP: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://o:4318/");
    for (pairs, words) in [
        (&[][..], "Jaeger agent localhost:6831, UDP"),
        (&[("JAEGER_AGENT_HOST", "node"), OTLP], "Jaeger agent node:6831, UDP"),
        (&[("JAEGER_AGENT_PORT", "7"), ENDPOINT], "Jaeger collector http://c:14268/api/traces"),
        (&[OTLP, ENDPOINT], "Jaeger collector http://c:14268/api/traces"),
        (&[OTLP], "OTLP over HTTP, http://o:4318/v1/traces"),
        // A Service called `jaeger-agent` chooses nothing.
        (
            &[OTLP, ("JAEGER_AGENT_PORT", "tcp://10.0.0.1:6831")],
            "OTLP over HTTP, http://o:4318/v1/traces",
        ),
        (&[("OTEL_TRACES_EXPORTER", "otlp")], "OTLP over HTTP, http://localhost:4318/v1/traces"),
        (&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "OTLP over gRPC, http://localhost:4317"),
        (
            &[OTLP, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x")],
            "OTLP over HTTP, http://t:1/x",
        ),
        (&[OTLP, ("OTEL_TRACES_EXPORTER", "none")], "none, nothing is sent"),
        (&[OTLP, ("OTEL_TRACES_EXPORTER", "jaeger")], "Jaeger agent localhost:6831, UDP"),
        (
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "console")],
            "Jaeger collector http://c:14268/api/traces",
        ),
        (&[ENDPOINT, ("NETRA_REPORTER", "stdout")], "stdout"),
        (&[ENDPOINT, ("NETRA_REPORTER", "agent")], "Jaeger agent localhost:6831, UDP"),
    ] {
        assert_eq!(traces(pairs).export.reporter.to_string(), words, "{pairs:?}");
    }
    let refused = load_from(&[("NETRA_REPORTER", "collector")]).unwrap_err();
    assert_eq!(refused, ["JAEGER_ENDPOINT=: allowed is to be set with NETRA_REPORTER=collector"]);
}

#[test]
fn what_is_said_for_traces_goes_before_what_is_said_for_all() {
    let all = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://o:4317"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,b=2%203"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    assert_eq!(
        traces(&all).export.reporter,
        Reporter::Otlp(OtlpPlan {
            reach: Reach::default(),
            protocol: Protocol::Grpc,
            endpoint: "http://o:4317".into(),
            headers: vec![("a".into(), "1".into()), ("b".into(), "2 3".into())],
            timeout: Duration::from_millis(500),
            is_gzip: true,
        })
    );
    let traces_too = [
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "c=4"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
    ];
    assert_eq!(
        traces(&[&all[..], &traces_too].concat()).export.reporter,
        Reporter::Otlp(OtlpPlan {
            reach: Reach::default(),
            protocol: Protocol::Http,
            endpoint: "http://o:4317/v1/traces".into(),
            headers: vec![("c".into(), "4".into())],
            timeout: Duration::from_millis(7),
            is_gzip: false,
        })
    );
}

#[test]
fn which_sampler() {
    const OTLP: (&str, &str) = ("OTEL_TRACES_EXPORTER", "otlp");
    const RATIO: (&str, &str) = ("OTEL_TRACES_SAMPLER", "traceidratio");
    let asked = "remote, http://localhost:5778/sampling?service=my%20shop";
    let none_yet = format!("{asked}; no trace until it answers");
    for (pairs, words) in [
        (&[][..], none_yet.as_str()),
        (&[("JAEGER_SAMPLER_TYPE", "const")], "const, no trace"),
        (&[("JAEGER_SAMPLER_TYPE", "const"), ("JAEGER_SAMPLER_PARAM", "0.5")], "const, all traces"),
        (
            &[("JAEGER_SAMPLER_TYPE", "probabilistic"), ("JAEGER_SAMPLER_PARAM", "0.5")],
            "probabilistic, share 0.5",
        ),
        (
            &[("JAEGER_SAMPLER_TYPE", "RateLimiting"), ("JAEGER_SAMPLER_PARAM", "2.5")],
            "ratelimiting, 2.5 traces a second",
        ),
        (
            &[("JAEGER_SAMPLER_PARAM", "0.1"), ("JAEGER_AGENT_HOST", "::1"), RATIO],
            "remote, http://[::1]:5778/sampling?service=my%20shop; share 0.1 until it answers",
        ),
        (
            &[("JAEGER_SAMPLER_MANAGER_HOST_PORT", "m:1")],
            "remote, http://m:1/sampling?service=my%20shop; no trace until it answers",
        ),
        (
            &[RATIO, ("OTEL_TRACES_SAMPLER_ARG", "0.5")],
            "probabilistic, share 0.5; parents are not heeded",
        ),
        (&[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")], "probabilistic, share 1"),
        (&[("OTEL_TRACES_SAMPLER", "always_off")], "const, no trace; parents are not heeded"),
        (
            &[
                ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"),
                ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://m/s, initialSamplingRate=0.25"),
            ],
            "remote, http://m:80/s?service=my%20shop; share 0.25 until it answers",
        ),
        (&[OTLP], "const, all traces"),
        (&[OTLP, ("JAEGER_SAMPLER_TYPE", "const")], "const, no trace"),
    ] {
        let traces = traces(pairs);
        assert_eq!(traces.sampler_words, words, "{pairs:?}");
        assert_eq!(traces.remote.is_some(), words.starts_with("remote"));
        assert_eq!(traces.tracing.sampler.parent_based, !words.ends_with("heeded"));
    }
    let polling = ("OTEL_TRACES_SAMPLER_ARG", "endpoint=m:5778,pollingIntervalMs=5000");
    let remote = traces(&[("OTEL_TRACES_SAMPLER", "jaeger_remote"), polling]).remote.unwrap();
    assert_eq!((remote.refresh, remote.operations_max), (Duration::from_secs(5), 2000));
    for (sampler, arg) in [
        ("traceidratio", "2"),
        ("jaeger_remote", "endpoint=ftp://x"),
        ("jaeger_remote", "pollingIntervalMs=1"),
        ("jaeger_remote", "nonsense"),
    ] {
        let pairs = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", arg)];
        let refused = load_from(&pairs).unwrap_err();
        let begin = format!("OTEL_TRACES_SAMPLER_ARG={arg}: allowed is ");
        assert!(refused[0].starts_with(&begin) && refused[0].ends_with(sampler), "{refused:?}");
    }
}

#[test]
fn which_headers_tags_and_paths() {
    use netra_codecs::trace::Format;
    let traces = traces(&[
        ("OTEL_PROPAGATORS", "tracecontext,b3"),
        ("HTTP_HEADER_TAG_MAP", "X-Tenant:tenant, x-a : a"),
        ("HTTP_COOKIE_TAG_MAP", "session:sid"),
        ("NETRA_HTTP_TRACING_IGNORED_PATHS", "/ready, /health"),
        ("JAEGER_TRACEID_128BIT", "true"),
        ("JAEGER_TAGS", "a=${HOME_TOWN:Bonn},b=${UNSET:x:y}, c = d"),
        ("OTEL_RESOURCE_ATTRIBUTES", "e=f%20g"),
        ("HOME_TOWN", "Ulm"),
        ("JAEGER_REPORTER_MAX_QUEUE_SIZE", "20000"),
    ]);
    let tracing = &traces.tracing;
    assert!(tracing.formats.contains(Format::W3c) && tracing.formats.contains(Format::B3));
    assert!(tracing.formats.contains(Format::Uber) && tracing.wide_ids);
    let names = |names: &[Box<[u8]>]| {
        names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&tracing.header_tags), ["X-Tenant", "x-a"]);
    assert_eq!(names(&tracing.cookie_tags), ["session"]);
    assert_eq!(names(&tracing.ignored_paths), ["/health", "/ready"]);
    assert_eq!(traces.export.mapped_tags, ["tenant", "a", "sid"]);
    assert_eq!(traces.export.queue_spans, 20_000);
    let tags: Vec<String> =
        traces.export.process_tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(tags, ["e=f g", "a=Ulm", "b=x:y", "c=d"]);
    let both = [("OTEL_PROPAGATORS", "b3multi"), ("JAEGER_PROPAGATION", "w3c")];
    let formats = self::traces(&both).tracing.formats;
    assert!(formats.contains(Format::W3c) && !formats.contains(Format::B3Multi));
    let many: Vec<String> = (0..300).map(|number| format!("h{number}:t{number}")).collect();
    let refused = load_from(&[("HTTP_HEADER_TAG_MAP", &many.join(","))]).unwrap_err();
    assert!(refused[0].contains("237 tags at most"), "{refused:?}");
}

#[test]
fn when_nothing_is_traced() {
    for pair in [("JAEGER_DISABLED", "1"), ("OTEL_SDK_DISABLED", "True"), ("NETRA_HTTP_PORTS", "")]
    {
        let all: Vec<(&str, &str)> =
            NAMED.iter().filter(|(name, _)| *name != pair.0).copied().collect();
        let environment = all
            .iter()
            .chain([&pair])
            .map(|(name, text)| ((*name).into(), (*text).into()))
            .collect();
        let loaded = load(&Sources { environment, ..Sources::default() }).unwrap();
        assert!(loaded.config.tracing.is_none(), "{pair:?}");
        assert!(loaded.config.shard_config(1, vec![], None).http.tracing.is_none());
    }
    let loaded = load_from(&[("NETRA_TRACING_CONTEXT_EXPIRATION_MILLISECONDS", "77")]).unwrap();
    let http = loaded.config.shard_config(1, vec![], None).http;
    assert!(http.tracing.is_some() && http.routing.is_none());
    assert_eq!(http.limits.context_ttl_ms, 77);
}
