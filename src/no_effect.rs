//! Settings that are good by themselves, and do not do what whoever set them may think.

use crate::{
    config::Config,
    texts::switch,
    values::{Effective, Origin},
};

const ROUTING: &str = "NETRA_HTTP_ROUTING_ENABLED";
/// Beginnings of the settings that are for spans alone.
const OF_SPANS: [&str; 3] = ["JAEGER_", "OTEL_EXPORTER_", "OTEL_TRACES_"];
/// Switches that netramesh turned on by the word `true` and by no other.
const WORD_ONLY: [&str; 3] = [ROUTING, "NETRA_HTTP_ROUTING_COOKIE_ENABLED", "NETRA_STATSD_ENABLED"];

/// Where spans go and requests are routed, although no port is read.
pub(crate) fn without_ports(config: &Config, all: &[Effective]) -> Option<String> {
    let is_of_spans = |name: &str| OF_SPANS.iter().any(|beginning| name.starts_with(beginning));
    let is_idle = |value: &&Effective| {
        let name = value.setting.name;
        // Metrics are pushed by the same settings, whatever is read.
        let of_metrics = name.starts_with("OTEL_EXPORTER_") && config.metrics.is_some();
        let of_spans = is_of_spans(name) && !of_metrics && !config.traces.is_disabled;
        let of_routing = name == ROUTING && config.routing.is_enabled;
        value.is_set()
            && match config.reads_exchanges() {
                true => of_routing && config.http.ports.is_empty(),
                false => of_spans || of_routing,
            }
    };
    let idle: Vec<String> = all.iter().filter(is_idle).map(Effective::source).collect();
    let none = match config.reads_exchanges() {
        true => "NETRA_HTTP_PORTS is empty, so no request is routed",
        false => "NETRA_HTTP_PORTS is empty, so no request is seen",
    };
    (!idle.is_empty()).then(|| {
        let idle = idle.join(", ");
        format!("{none}, and without effect is {idle}: name the services' ports, such as 80,8080")
    })
}

/// Values with which netramesh left something off that is on here.
pub(crate) fn more_than_netramesh(all: &[Effective]) -> Option<String> {
    let is_more = |value: &&Effective| {
        let is_variable = matches!(value.origin, Origin::Environment(_));
        let is_on = switch(&value.text) == Some(true) && value.text != "true";
        is_variable && is_on && WORD_ONLY.contains(&value.setting.name)
    };
    let pair = |value: &Effective| format!("{}={}", value.source(), value.text);
    let more: Vec<String> = all.iter().filter(is_more).map(pair).collect();
    (!more.is_empty()).then(|| {
        let more = more.join(", ");
        format!("on by {more}, where netramesh took the word true alone: say true, or false")
    })
}
