//! From flags and environment to a [`Config`] that cannot be wrong: flag over environment over
//! default, every bad value reported, nothing started before all is good.

use crate::{
    cpus::CpuChoice,
    log::{Format, Level},
    setting::{Setting, decimal, whole},
    statsd::StatsdSettings,
    table::table,
    traces::{self, TraceSettings, Traces},
};
use netra_codecs::route::RouteNames;
use netra_shards::{
    AccessLogConfig, DriverChoice, HttpConfig, Limits, Resolver, RoutingConfig, ShardConfig,
};
use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

/// What this process is told to do, typed and checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) service_name: String,
    pub(crate) log_level: Level,
    pub(crate) log_format: Format,
    pub(crate) port: u16,
    pub(crate) metrics_port: u16,
    pub(crate) admin: AdminSettings,
    pub(crate) statsd: StatsdSettings,
    pub(crate) driver: DriverChoice,
    /// `None` is for [`crate::cpus`] to decide.
    pub(crate) shards: Option<usize>,
    pub(crate) cpus: CpuChoice,
    pub(crate) host: Host,
    pub(crate) spin_max: Duration,
    pub(crate) drain: Duration,
    pub(crate) limits: Limits,
    pub(crate) http: HttpConfig,
    pub(crate) routing: RoutingSettings,
    /// What the settings say; [`Config::tracing`] is what they come to.
    pub(crate) traces: TraceSettings,
    /// None when nothing is logged.
    pub(crate) access_log: Option<AccessLogConfig>,
    /// None when no request is traced.
    pub(crate) tracing: Option<Traces>,
}

/// Where profiling and admin are, and what may be ordered there.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdminSettings {
    pub(crate) port: u16,
    /// None only before the settings are read.
    pub(crate) address: Option<IpAddr>,
    pub(crate) may_quit: bool,
}

/// How requests are routed.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoutingSettings {
    pub(crate) is_enabled: bool,
    pub(crate) header: Box<[u8]>,
    pub(crate) has_cookie: bool,
    pub(crate) cookie: Box<[u8]>,
    pub(crate) ttl: Duration,
}

impl Config {
    /// Whether requests are routed at all.
    pub(crate) fn has_routing(&self) -> bool {
        self.routing.is_enabled && !self.http.ports.is_empty()
    }

    /// What the shards are told, on the CPUs that were chosen for them.
    pub(crate) fn shard_config(
        &self,
        shards: usize,
        cpus: Vec<usize>,
        resolver: Option<Arc<dyn Resolver>>,
    ) -> ShardConfig {
        let routing = resolver.map(|resolver| RoutingConfig {
            names: RouteNames {
                header: self.routing.header.clone(),
                cookie: self.routing.has_cookie.then(|| self.routing.cookie.clone()),
            },
            ttl: self.routing.ttl,
            resolver,
        });
        let tracing = self.tracing.as_ref().map(|traces| traces.tracing.clone());
        ShardConfig {
            port: self.port,
            shards,
            cpus,
            driver: self.driver,
            glommio: self.host == Host::Glommio,
            spin_max: self.spin_max,
            limits: self.limits.clone(),
            http: HttpConfig { tracing, routing, ..self.http.clone() },
            access_log: self.access_log,
        }
    }
}

/// What a shard's loop waits in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Host {
    /// The ring, or epoll, itself.
    #[default]
    Native,
    /// A glommio executor.
    Glommio,
}

/// Where values come from, weakest last; what nobody sets has its default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// Settings given as flags, by the setting's name.
    pub(crate) flags: Vec<(&'static str, String)>,
    /// The whole environment.
    pub(crate) environment: Vec<(String, String)>,
}

/// A configuration with everything one may want to know about how it came to be.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// Every setting with its value and origin, in the order of the table.
    pub(crate) effective: Vec<Effective>,
    /// One line each, for the person who set something that has no effect.
    pub(crate) warnings: Vec<String>,
}

impl Loaded {
    /// Refuses a value that only turned out bad on this machine.
    pub(crate) fn refuse(&self, name: &str, allowed: String) -> Refused {
        Values(&self.effective).get(name).refused(allowed)
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// This variable.
    Environment(&'static str),
    /// The flag.
    Flag,
}

/// A setting as it is in effect.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) setting: &'static Setting,
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

impl Effective {
    /// Whether somebody set it.
    pub(crate) fn is_set(&self) -> bool {
        self.origin != Origin::Default
    }

    /// What to blame, as the person wrote it.
    fn source(&self) -> String {
        match self.origin {
            Origin::Default => self.setting.name.into(),
            Origin::Environment(variable) => variable.into(),
            Origin::Flag => format!("--{}", self.setting.flag()),
        }
    }

    pub(crate) fn refused(&self, allowed: impl Into<String>) -> Refused {
        let shown = self.setting.shown(&self.text);
        Refused { what: format!("{}={}", self.source(), one_line(shown)), allowed: allowed.into() }
    }
}

/// A value that is not allowed: one line that names variable or flag, value, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    what: String,
    allowed: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: allowed is {}", self.what, self.allowed)
    }
}

/// Reads every setting; all that is wrong is reported together.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, Vec<Refused>> {
    let effective: Vec<Effective> = table().map(|setting| look_up(setting, sources)).collect();
    let mut config = Config::default();
    let mut refused: Vec<Refused> =
        effective.iter().filter_map(|value| apply(value, &mut config)).collect();
    if refused.is_empty() {
        refused = CHECKS.iter().filter_map(|check| check(&Values(&effective))).collect();
    }
    if refused.is_empty() {
        // Judged even where nothing is traced: what is wrong is wrong from the beginning.
        let (values, environment) = (Values(&effective), &sources.environment);
        let has_traces = !config.traces.is_disabled && !config.http.ports.is_empty();
        match traces::decide(&config.traces, &config.service_name, &values, environment) {
            Ok(tracing) => config.tracing = has_traces.then_some(tracing),
            Err(refusal) => refused.push(refusal),
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let warnings = warnings(&sources.environment);
    Ok(Loaded { config, effective, warnings })
}

/// Flag, then environment, then default. An empty variable is an unset one, as it is to Go.
fn look_up(setting: &'static Setting, sources: &Sources) -> Effective {
    if let Some((_, text)) = sources.flags.iter().find(|(name, _)| *name == setting.name) {
        return Effective { setting, text: text.trim().into(), origin: Origin::Flag };
    }
    for variable in std::iter::once(&setting.name).chain(setting.also) {
        let found = sources.environment.iter().find(|(name, _)| name == variable);
        if let Some((_, text)) = found.filter(|(_, text)| !text.trim().is_empty()) {
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
        return Some(Refused { what, allowed: setting.parse.allowed() });
    }
    if setting.parse.apply(config, &value.text) {
        return None;
    }
    let mut allowed = setting.parse.allowed();
    if is_service_link(&value.text) {
        allowed.push_str(
            " (this is a Kubernetes service link: set enableServiceLinks: false, or use the flag)",
        );
    }
    Some(value.refused(allowed))
}

/// Kubernetes describes a Service called `netra` to every pod in variables like NETRA_PORT.
fn is_service_link(text: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme))
}

/// All values, for checks that look at more than one.
pub(crate) struct Values<'v>(&'v [Effective]);

impl<'v> Values<'v> {
    /// The setting called `name`; it is in the table, which a test makes sure of.
    pub(crate) fn get(&self, name: &str) -> &'v Effective {
        let found = self.0.iter().find(|value| value.setting.name == name);
        found.unwrap_or_else(|| unreachable!("{name} is not in the table"))
    }

    fn number(&self, name: &str) -> u32 {
        whole(&self.get(name).text, 0, u32::MAX).unwrap_or_default()
    }
}

/// What no single value can break. Run when each value is good by itself.
const CHECKS: &[fn(&Values<'_>) -> Option<Refused>] = &[
    |values| ports_differ(values, "NETRA_PROMETHEUS_PORT", "NETRA_PORT"),
    |values| ports_differ(values, "NETRA_PPROF_PORT", "NETRA_PORT"),
    |values| ports_differ(values, "NETRA_PPROF_PORT", "NETRA_PROMETHEUS_PORT"),
    direction_fits_shard,
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

fn statsd_has_address(values: &Values<'_>) -> Option<Refused> {
    let enabled = values.get("NETRA_STATSD_ENABLED");
    let is_on = crate::setting::switch(&enabled.text) == Some(true);
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

fn warnings(environment: &[(String, String)]) -> Vec<String> {
    let mut unknown: Vec<&str> = environment
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| is_ours(name) && !is_known(name))
        .collect();
    unknown.sort_unstable();
    let mut warnings = Vec::new();
    if !unknown.is_empty() {
        warnings.push(format!("unknown variables, spelled wrong? {}", unknown.join(", ")));
    }
    warnings
}

fn is_ours(name: &str) -> bool {
    name.starts_with("NETRA_") || name.starts_with("JAEGER_")
}

fn is_known(name: &str) -> bool {
    table().any(|setting| setting.name == name || setting.also.contains(&name))
        || INIT_NAMES.contains(&name)
        || INIT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || is_service_link_name(name)
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
const INIT_NAMES: [&str; 10] = [
    "NETRA_ALLOW_ROOT_UID",
    "NETRA_CLOSE_WAIT_TIMEOUT_SECONDS",
    "NETRA_DROP_INVALID",
    "NETRA_DRY_RUN",
    "NETRA_GUARDRAILS",
    "NETRA_LOCK_WAIT_SECONDS",
    "NETRA_OWN_PORTS",
    "NETRA_RECONCILE",
    "NETRA_REROUTE_INTERFACES",
    "NETRA_VERIFY_TIMEOUT_SECONDS",
];

/// Names like `JAEGER_COLLECTOR_SERVICE_HOST` and `NETRA_PORT_80_TCP_ADDR`, which Kubernetes makes
/// of the Services in a namespace: nobody spelled them wrong.
fn is_service_link_name(name: &str) -> bool {
    let numbered_port = name.split("_PORT_").skip(1).any(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let rest = &rest[digits..];
        digits > 0 && ["_TCP", "_UDP", "_SCTP"].iter().any(|kind| rest.starts_with(kind))
    });
    numbered_port || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

/// A value as it may stand in one line.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    fn load_from(
        flags: &[(&'static str, &str)],
        pairs: &[(&str, &str)],
    ) -> Result<Loaded, Vec<String>> {
        let flags = flags.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        load(&Sources { flags, environment: environment(pairs) })
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
    fn a_service_link_is_named_as_such() {
        let refused = load_from(&[], &[NAMED, ("NETRA_PORT", "tcp://10.0.0.1:80")]).unwrap_err();
        assert!(refused[0].contains("enableServiceLinks"), "{refused:?}");
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
