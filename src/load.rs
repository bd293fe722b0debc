//! The configuration, from flags, environment and defaults: every bad value reported, nothing
//! started before all is good.

use crate::{
    config::{AdminSettings, Config},
    mask, no_effect, protocol_file,
    reach_plan::{self, TLS_NAMES},
    resolver,
    service_link::is_service_link,
    setting::Setting,
    table::table,
    texts::decimal,
    trace_plan,
    values::{Effective, Origin, Refused, Values},
};
use netra_codecs::{PortSet, tap::Protocol};

/// Where values come from, weakest last; what nobody sets has its default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// Settings given as flags, by the setting's name.
    pub(crate) flags: Vec<(&'static str, String)>,
    /// The whole environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Protocols that the program brings along.
    pub(crate) codecs: Vec<Protocol>,
}

/// A configuration with everything one may want to know about how it came to be.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// Every setting with its value and origin, in the order of the table.
    pub(crate) effective: Vec<Effective>,
    /// One line each, for the person who set something that has no effect, or more than fits.
    pub(crate) warnings: Vec<String>,
    /// What the budget of memory came to, by setting.
    pub(crate) decided: Vec<(&'static str, String)>,
    /// The rules, once their documents have been found good; none where nothing says where they are.
    pub(crate) rules: Option<crate::rules::Good>,
}

impl Loaded {
    /// Refuses a value that only turned out bad on this machine.
    pub(crate) fn refuse(&self, name: &str, allowed: String) -> Refused {
        Values(&self.effective).get(name).refused(allowed)
    }

    /// Whether somebody has set this.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        Values(&self.effective).get(name).is_set()
    }
}

/// Reads every setting; all that is wrong is reported together.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, Vec<Refused>> {
    let effective: Vec<Effective> = table().map(|setting| look_up(setting, sources)).collect();
    let mut config = Config { names_max: resolver::NAMES_MAX, ..Config::default() };
    // Those that are described have names that other settings know.
    let files = Values(&effective).get("NETRA_PROTOCOL_FILES");
    let described = protocol_file::load(&files.text, &sources.codecs);
    let mut refused: Vec<Refused> = Vec::new();
    match described {
        Ok(protocols) => config.private = protocols,
        Err(why) => refused.push(files.refused(format!("descriptions of protocols, and {why}"))),
    }
    refused.extend(effective.iter().filter_map(|value| apply(value, &mut config)));
    if refused.is_empty() {
        refused = CHECKS.iter().filter_map(|check| check(&Values(&effective))).collect();
    }
    if refused.is_empty() {
        // Judged even where nothing is traced: what is wrong is wrong from the beginning.
        let (values, environment) = (Values(&effective), &sources.environment);
        let has_traces = !config.traces.is_disabled && config.reads_exchanges();
        match trace_plan::decide(&config, &values, environment) {
            Ok(tracing) => config.tracing = has_traces.then_some(tracing),
            Err(refusal) => refused.push(refusal),
        }
        match remote_rules(&mut config, &values) {
            Ok(()) => {}
            Err(refusal) => refused.push(refusal),
        }
        match trace_plan::metrics(&config, &values, environment) {
            Ok(metrics) => config.metrics = metrics.filter(|_| !config.traces.is_disabled),
            Err(refusal) => refused.push(refusal),
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let warnings = [
        unknown(&sources.environment),
        service_links(sources),
        open_to_orders(&config.admin),
        no_effect::without_ports(&config, &effective),
        no_effect::more_than_netramesh(&effective),
    ];
    let warnings = warnings.into_iter().flatten().collect();
    Ok(Loaded { config, effective, warnings, decided: Vec::new(), rules: None })
}

/// Flag, then environment, then default. An empty variable is an unset one, as it is to Go, and so
/// is one that Kubernetes has made of a Service.
fn look_up(setting: &'static Setting, sources: &Sources) -> Effective {
    if let Some((_, text)) = sources.flags.iter().find(|(name, _)| *name == setting.name) {
        return Effective { setting, text: text.trim().into(), origin: Origin::Flag };
    }
    for variable in std::iter::once(&setting.name).chain(setting.also) {
        let found = sources.environment.iter().find(|(name, _)| name == variable);
        let says = |text: &str| !text.trim().is_empty() && !is_service_link(variable, text);
        if let Some((_, text)) = found.filter(|(_, text)| says(text)) {
            let origin = Origin::Environment(variable);
            return Effective { setting, text: text.trim().into(), origin };
        }
    }
    Effective { setting, text: setting.default.into(), origin: Origin::Default }
}

fn apply(value: &Effective, config: &mut Config) -> Option<Refused> {
    let setting = value.setting;
    if setting.required && value.origin == Origin::Default {
        let others = setting.also.join(", ");
        let what = format!("--{} ({}, {others}) is not set", setting.flag(), setting.name);
        return Some(Refused::new(what, setting.parse.allowed()));
    }
    if setting.parse.apply(config, &value.text) {
        return None;
    }
    Some(value.refused(setting.parse.allowed()))
}

/// What no single value can break. Run when each value is good by itself.
/// Where rules come from a control plane, they are read of the file that keeps what it says.
fn remote_rules(config: &mut Config, values: &Values<'_>) -> Result<(), Refused> {
    let Some(url) = &config.remote_rules.url else { return Ok(()) };
    if !config.rules.is_empty() {
        let allowed = "one of this and NETRA_RULES: rules have one source";
        return Err(values.get("NETRA_RULES_URL").refused(allowed));
    }
    let levels = [(TLS_NAMES, &config.reach.tls)];
    config.remote_rules.reach = reach_plan::decide(&config.reach, &levels, url, values)?;
    config.rules.clone_from(&config.remote_rules.cache);
    Ok(())
}

const CHECKS: &[fn(&Values<'_>) -> Option<Refused>] = &[
    |values| ports_differ(values, "NETRA_PROMETHEUS_PORT", "NETRA_PORT"),
    |values| ports_differ(values, "NETRA_PPROF_PORT", "NETRA_PORT"),
    |values| ports_differ(values, "NETRA_PPROF_PORT", "NETRA_PROMETHEUS_PORT"),
    direction_fits_shard,
    one_protocol_a_port,
    statsd_has_address,
    sampler_share,
    collector_login,
];

fn ports_differ(values: &Values<'_>, name: &str, other: &str) -> Option<Refused> {
    let (value, other) = (values.get(name), values.get(other));
    let same = value.text == other.text;
    // The blame goes to the one that somebody set.
    let (value, other) = match value.origin {
        Origin::Default => (other, value),
        Origin::Environment(_) | Origin::Flag => (value, other),
    };
    same.then(|| value.refused(format!("a port that {} does not use", other.setting.name)))
}

fn direction_fits_shard(values: &Values<'_>) -> Option<Refused> {
    let total = values.number("NETRA_BUFFERS_MAX");
    let value = values.get("NETRA_DIRECTION_BUFFERS_MAX");
    (values.number("NETRA_DIRECTION_BUFFERS_MAX") > total)
        .then(|| value.refused(format!("no more than NETRA_BUFFERS_MAX, {total}")))
}

fn one_protocol_a_port(values: &Values<'_>) -> Option<Refused> {
    let (value, http) = (values.get("NETRA_PROTOCOLS"), values.get("NETRA_HTTP_PORTS"));
    let http: PortSet = http.text.parse().ok()?;
    let mut named =
        value.text.split(',').filter_map(|pair| pair.split_once('=')?.0.trim().parse().ok());
    let twice: u16 = named.find(|port| http.contains(*port))?;
    Some(value.refused(format!("ports that NETRA_HTTP_PORTS does not name, as it does {twice}")))
}

fn statsd_has_address(values: &Values<'_>) -> Option<Refused> {
    let enabled = values.get("NETRA_STATSD_ENABLED");
    let is_on = crate::texts::switch(&enabled.text) == Some(true);
    (is_on && values.get("NETRA_STATSD_ADDRESS").text.is_empty())
        .then(|| enabled.refused("false, or to be set together with NETRA_STATSD_ADDRESS"))
}

/// The remote sampler begins as a probabilistic one, so its parameter is a share as well.
fn sampler_share(values: &Values<'_>) -> Option<Refused> {
    let kind = values.get("JAEGER_SAMPLER_TYPE").text.to_ascii_lowercase();
    let value = values.get("JAEGER_SAMPLER_PARAM");
    let is_share = matches!(kind.as_str(), "probabilistic" | "remote");
    (is_share && decimal(&value.text, 0.0, 1.0).is_none())
        .then(|| value.refused(format!("a number from 0 to 1 with JAEGER_SAMPLER_TYPE={kind}")))
}

fn collector_login(values: &Values<'_>) -> Option<Refused> {
    let (user, password) = (values.get("JAEGER_USER"), values.get("JAEGER_PASSWORD"));
    let unequal = user.text.is_empty() != password.text.is_empty();
    (unequal && !values.get("JAEGER_ENDPOINT").text.is_empty())
        .then(|| user.refused("to be set together with JAEGER_PASSWORD, or neither"))
}

fn unknown(environment: &[(String, String)]) -> Option<String> {
    let mut unknown: Vec<&str> = environment
        .iter()
        .filter(|(name, text)| is_ours(name) && !is_known(name) && !is_service_link(name, text))
        .map(|(name, _)| name.as_str())
        .collect();
    unknown.sort_unstable();
    (!unknown.is_empty()).then(|| {
        let names = unknown.join(", ");
        format!("unknown variables, spelled wrong? {}", mask::line(&names))
    })
}

/// Settings that a Service of the namespace would have set, in one line.
fn service_links(sources: &Sources) -> Option<String> {
    let is_flag = |name: &str| sources.flags.iter().any(|(flag, _)| *flag == name);
    let is_setting = |variable: &str| {
        table().any(|setting| {
            let is_its = setting.name == variable || setting.also.contains(&variable);
            is_its && !is_flag(setting.name)
        })
    };
    let mut links: Vec<String> = sources
        .environment
        .iter()
        .filter(|(name, text)| is_service_link(name, text) && is_setting(name))
        .map(|(name, text)| format!("{name}={}", mask::line(text)))
        .collect();
    links.sort_unstable();
    (!links.is_empty()).then(|| {
        let links = links.join(", ");
        format!("of Kubernetes, about Services of these names, and not taken for settings: {links}")
    })
}

/// Orders that need nothing are for a pod of one's own, not for the network.
fn open_to_orders(admin: &AdminSettings) -> Option<String> {
    let address = admin.address.filter(|address| !address.is_loopback())?;
    let is_open = (admin.may_order || admin.may_quit) && admin.token_file.is_empty();
    let who = format!("whoever reaches {address} may give orders without a token");
    is_open.then(|| format!("{who} (NETRA_ADMIN_ADDRESS, NETRA_ADMIN_TOKEN_FILE)"))
}

/// Whether a variable is meant for netra.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with("NETRA_") || name.starts_with("JAEGER_")
}

/// Whether a variable is one that netra, or netra-init beside it, reads.
pub(crate) fn is_known(name: &str) -> bool {
    table().any(|setting| setting.name == name || setting.also.contains(&name))
        || INIT_NAMES.contains(&name)
        || INIT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// netra-init's own settings, which often share an environment with the sidecar's.
const INIT_PREFIXES: [&str; 7] = [
    "NETRA_EXCLUDE_",
    "NETRA_INBOUND_",
    "NETRA_INCLUDE_",
    "NETRA_INIT_",
    "NETRA_INTERCEPT_",
    "NETRA_OUTBOUND_",
    "NETRA_SIDECAR_",
];
const INIT_NAMES: [&str; 9] = [
    "NETRA_ALLOW_ROOT_UID",
    "NETRA_CLOSE_WAIT_TIMEOUT_SECONDS",
    "NETRA_DROP_INVALID",
    "NETRA_DRY_RUN",
    "NETRA_GUARDRAILS",
    "NETRA_LOCK_WAIT_SECONDS",
    "NETRA_OWN_PORTS",
    "NETRA_RECONCILE",
    "NETRA_VERIFY_TIMEOUT_SECONDS",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpus::CpuChoice,
        log::{Format, Level},
    };
    use netra_shards::DriverChoice;
    use std::time::Duration;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn load_from(
        flags: &[(&'static str, &str)],
        pairs: &[(&str, &str)],
    ) -> Result<Loaded, Vec<String>> {
        let flags = flags.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        load(&Sources { flags, environment: environment(pairs), codecs: Vec::new() })
            .map_err(|refused| refused.iter().map(Refused::to_string).collect())
    }

    const NAMED: (&str, &str) = ("NETRA_SERVICE_NAME", "shop");

    #[test]
    fn flag_goes_before_environment_before_default() {
        let loaded = load_from(&[], &[NAMED]).unwrap();
        assert_eq!(loaded.config.port, 14956);
        let loaded = load_from(&[], &[NAMED, ("NETRA_PORT", "1000")]).unwrap();
        assert_eq!(loaded.config.port, 1000);
        let loaded = load_from(&[("NETRA_PORT", "2000")], &[NAMED, ("NETRA_PORT", "1")]).unwrap();
        assert_eq!(loaded.config.port, 2000);
        let port = loaded.effective.iter().find(|v| v.setting.name == "NETRA_PORT").unwrap();
        assert_eq!((port.text.as_str(), port.origin), ("2000", Origin::Flag));
    }

    #[test]
    fn an_empty_variable_is_unset_and_an_empty_flag_is_bad() {
        let loaded = load_from(&[], &[NAMED, ("NETRA_PORT", "")]).unwrap();
        assert_eq!(loaded.config.port, 14956);
        let refused = load_from(&[("NETRA_PORT", "")], &[NAMED]).unwrap_err();
        assert_eq!(refused, ["--port=: allowed is a port from 1 to 65535"]);
    }

    #[test]
    fn the_service_name_has_three_variables_and_must_be_there() {
        for name in ["NETRA_SERVICE_NAME", "JAEGER_SERVICE_NAME", "OTEL_SERVICE_NAME"] {
            assert_eq!(load_from(&[], &[(name, "shop")]).unwrap().config.service_name, "shop");
        }
        let pairs = [("OTEL_SERVICE_NAME", "o"), ("JAEGER_SERVICE_NAME", "j")];
        assert_eq!(load_from(&[], &pairs).unwrap().config.service_name, "j");
        let refused = load_from(&[], &[]).unwrap_err();
        assert!(refused[0].contains("--service-name") && refused.len() == 1, "{refused:?}");
    }

    #[test]
    fn all_bad_values_are_reported_with_name_value_and_what_is_allowed() {
        let refused = load_from(
            &[("NETRA_IO", "bogus")],
            &[NAMED, ("NETRA_PORT", "70000"), ("NETRA_HTTP_PORTS", "80;81")],
        )
        .unwrap_err();
        assert_eq!(
            refused,
            [
                "NETRA_PORT=70000: allowed is a port from 1 to 65535",
                "--io=bogus: allowed is one of auto, io_uring, epoll",
                "NETRA_HTTP_PORTS=80;81: allowed is ports from 1 to 65535 with commas between, or \
             nothing",
            ]
        );
    }

    #[test]
    fn a_value_with_a_line_break_stays_on_one_line() {
        let refused = load_from(&[], &[NAMED, ("NETRA_IO", "a\nb")]).unwrap_err();
        assert!(refused[0].starts_with("NETRA_IO=a\\nb: "), "{refused:?}");
    }

    #[test]
    fn a_service_of_the_namespace_sets_nothing() {
        let link = "tcp://10.0.0.1:80";
        let names =
            ["NETRA_PORT", "NETRA_PPROF_PORT", "NETRA_PROMETHEUS_PORT", "JAEGER_AGENT_PORT"];
        let http = ("NETRA_HTTP_PORTS", "80");
        let mut pairs = vec![NAMED, http, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
        pairs.extend(names.map(|name| (name, link)));
        let loaded = load_from(&[], &pairs).unwrap();
        let plain = load_from(&[], &pairs[..3]).unwrap();
        for (value, plain) in loaded.effective.iter().zip(&plain.effective) {
            assert_eq!((&value.text, value.origin), (&plain.text, plain.origin));
        }
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        for name in names {
            assert!(
                loaded.warnings[0].contains(&format!("{name}={link}")),
                "{:?}",
                loaded.warnings
            );
        }
        // Who gives the flag has answered, and who puts a link there has meant it.
        let loaded = load_from(&[("NETRA_PORT", "1")], &[NAMED, ("NETRA_PORT", link)]).unwrap();
        assert_eq!((loaded.config.port, loaded.warnings), (1, vec![]));
        let refused = load_from(&[("NETRA_PORT", link)], &[NAMED]).unwrap_err();
        assert!(refused[0].starts_with("--port=tcp://"), "{refused:?}");
        // Nearly one is a mistake.
        assert!(load_from(&[], &[NAMED, ("NETRA_PORT", "tcp://shop:80")]).is_err());
    }

    #[test]
    fn a_share_of_1_5_is_refused_for_shares_only() {
        let with = |kind| {
            let kind = ("JAEGER_SAMPLER_TYPE", kind);
            load_from(&[], &[NAMED, kind, ("JAEGER_SAMPLER_PARAM", "1.5")])
        };
        assert_eq!(
            with("probabilistic").unwrap_err(),
            ["JAEGER_SAMPLER_PARAM=1.5: allowed is a number from 0 to 1 with \
             JAEGER_SAMPLER_TYPE=probabilistic"]
        );
        assert!(with("remote").is_err());
        assert!(with("ratelimiting").is_ok());
        assert!(with("const").is_ok());
    }

    #[test]
    fn ports_must_differ_and_the_one_that_was_set_is_blamed() {
        let refused = load_from(&[], &[NAMED, ("NETRA_PORT", "14958")]).unwrap_err();
        assert_eq!(
            refused,
            ["NETRA_PORT=14958: allowed is a port that NETRA_PROMETHEUS_PORT does not use"]
        );
    }

    #[test]
    fn values_that_only_fail_together() {
        let refused = load_from(
            &[("NETRA_BUFFERS_MAX", "16"), ("NETRA_DIRECTION_BUFFERS_MAX", "17")],
            &[NAMED],
        );
        assert!(refused.unwrap_err()[0].contains("NETRA_BUFFERS_MAX, 16"));
        let pairs = [NAMED, ("JAEGER_ENDPOINT", "http://c/"), ("JAEGER_PASSWORD", "hunter2")];
        let refused = load_from(&[], &pairs).unwrap_err();
        assert!(refused[0].contains("JAEGER_USER") && !refused[0].contains("hunter2"));
        assert!(load_from(&[], &[NAMED, ("JAEGER_PASSWORD", "x")]).is_ok());
    }

    #[test]
    fn warns_of_unknown_names_and_of_nothing_else() {
        assert!(load_from(&[], &[NAMED, ("PATH", "/bin")]).unwrap().warnings.is_empty());
        let warnings = load_from(
            &[("NETRA_STATSD_ENABLED", "true")],
            &[
                NAMED,
                ("NETRA_HTTP_PORTS", "8080"),
                ("NETRA_ACCESS_LOG", "all"),
                ("NETRA_STATSD_ADDRESS", "statsd:8125"),
                ("JAEGER_SAMPLER_MANAGER_HOST_PORT", "a:1"),
                ("NETRA_HTTP_PORT", "8080"),
                ("JAEGER_SAMPLE_RATE", "1"),
                ("NETRA_SIDECAR_PORT", "14956"),
                ("NETRA_PORT_14956_TCP_ADDR", "10.0.0.1"),
                ("NETRA_ADMIN_PORT", "tcp://10.0.0.1:80"),
                ("JAEGER_COLLECTOR_SERVICE_HOST", "10.0.0.1"),
                ("JAEGER_COLLECTOR_SERVICE_PORT_HTTP", "80"),
            ],
        )
        .unwrap()
        .warnings;
        assert_eq!(
            warnings,
            ["unknown variables, spelled wrong? JAEGER_SAMPLE_RATE, NETRA_HTTP_PORT",]
        );
    }

    #[test]
    fn warns_of_orders_that_anybody_on_the_network_may_give() {
        for (pairs, warned) in [
            (&[("NETRA_ADMIN_ORDERS", "true")][..], false),
            (&[("NETRA_ADMIN_ADDRESS", "0.0.0.0")], false),
            (&[("NETRA_ADMIN_ADDRESS", "0.0.0.0"), ("NETRA_ADMIN_ORDERS", "true")], true),
            (&[("NETRA_ADMIN_ADDRESS", "::"), ("NETRA_ADMIN_QUIT", "true")], true),
            (&[("NETRA_ADMIN_ADDRESS", "::1"), ("NETRA_ADMIN_QUIT", "true")], false),
        ] {
            let warnings = load_from(&[], &[&[NAMED], pairs].concat()).unwrap().warnings;
            assert_eq!(!warnings.is_empty(), warned, "{warnings:?}");
        }
    }

    #[test]
    fn warns_of_spans_and_routes_where_no_port_is_read() {
        let jaeger = ("JAEGER_SAMPLER_TYPE", "const");
        let otlp = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let routing = ("NETRA_HTTP_ROUTING_ENABLED", "true");
        let (http, redis) = (("NETRA_HTTP_PORTS", "80"), ("NETRA_PROTOCOLS", "6379=redis"));
        let seen = "NETRA_HTTP_PORTS is empty, so no request is seen, and without effect is ";
        let routed = "NETRA_HTTP_PORTS is empty, so no request is routed, and without effect is ";
        let ports = ": name the services' ports, such as 80,8080";
        for (pairs, warned) in [
            (&[jaeger, otlp][..], vec![(seen, "JAEGER_SAMPLER_TYPE, OTEL_EXPORTER_OTLP_ENDPOINT")]),
            (&[routing], vec![(seen, "NETRA_HTTP_ROUTING_ENABLED")]),
            (&[routing, redis], vec![(routed, "NETRA_HTTP_ROUTING_ENABLED")]),
            (&[jaeger, routing, http], vec![]),
            (&[jaeger, redis], vec![]),
            (&[jaeger, ("JAEGER_DISABLED", "true")], vec![]),
            (&[("JAEGER_SERVICE_NAME", "shop"), ("NETRA_HTTP_ROUTING_ENABLED", "false")], vec![]),
        ] {
            let warnings = load_from(&[], &[&[NAMED], pairs].concat()).unwrap().warnings;
            let warned: Vec<_> =
                warned.iter().map(|(why, what)| format!("{why}{what}{ports}")).collect();
            assert_eq!(warnings, warned);
        }
    }

    #[test]
    fn warns_of_words_that_netramesh_took_for_nothing() {
        for (name, text, warned) in [
            ("NETRA_HTTP_ROUTING_ENABLED", "1", true),
            ("NETRA_HTTP_ROUTING_COOKIE_ENABLED", "True", true),
            ("NETRA_HTTP_ROUTING_ENABLED", "true", false),
            ("NETRA_HTTP_ROUTING_ENABLED", "0", false),
            ("JAEGER_DISABLED", "1", false),
        ] {
            let pairs = [NAMED, ("NETRA_HTTP_PORTS", "80"), (name, text)];
            let warnings = load_from(&[], &pairs).unwrap().warnings;
            let says = format!("on by {name}={text}, where netramesh took the word true alone");
            assert_eq!(warnings.iter().any(|line| line.starts_with(&says)), warned, "{warnings:?}");
            assert_eq!(warnings.len(), usize::from(warned));
        }
    }

    #[test]
    fn every_field_is_filled_from_its_setting() {
        let loaded = load_from(
            &[],
            &[
                NAMED,
                ("NETRA_LOGGER_LEVEL", "warning"),
                ("NETRA_LOG_FORMAT", "json"),
                ("NETRA_PROMETHEUS_PORT", "2"),
                ("NETRA_IO", "epoll"),
                ("NETRA_SHARDS", "3"),
                ("NETRA_CPUS", "none"),
                ("NETRA_SPIN_US", "7"),
                ("NETRA_DRAIN_MS", "8"),
                ("NETRA_TCP_IDLE_TIMEOUT_MS", "9000"),
                ("NETRA_BUFFER_BYTES", "8192"),
                ("NETRA_CONNECTIONS_MAX", "77"),
            ],
        )
        .unwrap();
        let config = &loaded.config;
        assert_eq!((config.log_level, config.log_format), (Level::Warning, Format::Json));
        assert_eq!((config.metrics_port, config.shards), (2, Some(3)));
        assert_eq!((config.driver, &config.cpus), (DriverChoice::Epoll, &CpuChoice::None));
        assert_eq!(config.drain, Duration::from_millis(8));
        let shard = config.shard_config(3, vec![1], None);
        assert_eq!((shard.port, shard.shards, shard.glommio), (14956, 3, false));
        assert_eq!(shard.spin_max, Duration::from_micros(7));
        assert_eq!(shard.limits.idle_timeout, Some(Duration::from_secs(9)));
        assert_eq!((shard.limits.buffer_bytes, shard.limits.connections_max), (8192, 77));
    }
}
