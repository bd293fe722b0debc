//! What the flags ask of the sidecar. A pod carries those that it was injected with, so that
//! injecting again, with another version, keeps them.

use super::yaml::{self, Node};
use clap::{Args, Command, FromArgMatches};

/// Flags that are kept in the pod.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Wanted {
    /// A plain container, for clusters before 1.29, which have no native sidecars
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    classic: Option<bool>,
    /// Take the place of netramesh: both its containers are replaced, its variables kept
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    from_netramesh: Option<bool>,
    /// Image of the sidecar [default: netra of this version]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Image of netra-init [default: netra-init of this version]
    #[arg(long, value_name = "IMAGE")]
    init_image: Option<String>,
    /// Service name in spans and logs, if not the name of the workload
    #[arg(long, value_name = "NAME")]
    pub(super) service_name: Option<String>,
    /// A setting of the sidecar, such as NETRA_HTTP_PORTS=80,8080; again for more
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// A variable with a field of the pod, such as JAEGER_AGENT_HOST=status.hostIP (the node's
    /// address); --env may use it as $(NAME); again for more
    #[arg(long, value_name = "NAME=FIELD")]
    pub(super) env_field: Vec<String>,
    /// A flag of netra-init, such as --exclude-inbound-ports=22; again for more
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub(super) init_arg: Vec<String>,
    /// A ConfigMap of the pod's namespace with documents of rules (docs/RULES.md): mounted in the sidecar,
    /// and read again whenever it changes
    #[arg(long, value_name = "NAME")]
    rules_config_map: Option<String>,
    /// CPU that the sidecar is promised [default: 10m]
    #[arg(long, value_name = "QUANTITY")]
    cpu_request: Option<String>,
    /// CPU that the sidecar may use; without a limit it is never throttled [default: none]
    #[arg(long, value_name = "QUANTITY")]
    cpu_limit: Option<String>,
    /// Memory that the sidecar is promised [default: 16Mi]
    #[arg(long, value_name = "QUANTITY")]
    memory_request: Option<String>,
    /// Memory that the sidecar may use [default: 64Mi]
    #[arg(long, value_name = "QUANTITY")]
    memory_limit: Option<String>,
    /// File of a seccomp profile on the nodes that allows io_uring, such as netra-seccomp.json
    #[arg(long, value_name = "FILE")]
    pub(super) seccomp_profile: Option<String>,
}

impl Wanted {
    pub(super) fn is_classic(&self) -> bool {
        self.classic == Some(true)
    }

    pub(super) fn is_from_netramesh(&self) -> bool {
        self.from_netramesh == Some(true)
    }

    pub(super) fn image(&self) -> &str {
        self.image.as_deref().unwrap_or(concat!("netra:", env!("CARGO_PKG_VERSION")))
    }

    pub(super) fn init_image(&self) -> &str {
        self.init_image.as_deref().unwrap_or(concat!("netra-init:", env!("CARGO_PKG_VERSION")))
    }

    /// The ConfigMap with rules, if there is to be one.
    pub(super) fn rules_config_map(&self) -> Result<Option<&str>, String> {
        const NAME_BYTES_MAX: usize = 253;
        let Some(name) = self.rules_config_map.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let is_of_it = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let bytes = name.as_bytes();
        let is_name = bytes.iter().all(|byte| is_of_it(*byte))
            && is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.len() <= NAME_BYTES_MAX;
        is_name.then_some(Some(name)).ok_or_else(|| {
            format!("--rules-config-map: bad value {name:?}: allowed is the name of a ConfigMap")
        })
    }

    /// What is asked of CPU and memory: where it stands in `resources`, and how much.
    pub(super) fn resources(&self) -> [([&'static str; 2], Option<&str>); 4] {
        [
            (["requests", "cpu"], self.cpu_request.as_deref()),
            (["requests", "memory"], self.memory_request.as_deref()),
            (["limits", "cpu"], self.cpu_limit.as_deref()),
            (["limits", "memory"], self.memory_limit.as_deref()),
        ]
    }

    /// The value of a flag of netra-init.
    pub(super) fn init_value(&self, flag: &str) -> Option<&str> {
        let mut args = self.init_arg.iter();
        while let Some(arg) = args.next() {
            match arg.strip_prefix("--").and_then(|arg| arg.strip_prefix(flag)) {
                Some("") => return args.next().map(String::as_str),
                Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
                _ => {}
            }
        }
        None
    }

    /// With this service name where none is told.
    pub(crate) fn named(self, service: &str) -> Self {
        Self { service_name: self.service_name.or_else(|| Some(service.to_owned())), ..self }
    }

    /// These flags, and where one is missing, what an earlier call had.
    pub(crate) fn or(&self, earlier: Self) -> Self {
        let mut merged = Self {
            classic: self.classic.or(earlier.classic),
            from_netramesh: self.from_netramesh.or(earlier.from_netramesh),
            image: self.image.clone().or(earlier.image),
            init_image: self.init_image.clone().or(earlier.init_image),
            service_name: self.service_name.clone().or(earlier.service_name),
            env: earlier.env,
            env_field: earlier.env_field,
            init_arg: earlier.init_arg,
            rules_config_map: self.rules_config_map.clone().or(earlier.rules_config_map),
            cpu_request: self.cpu_request.clone().or(earlier.cpu_request),
            cpu_limit: self.cpu_limit.clone().or(earlier.cpu_limit),
            memory_request: self.memory_request.clone().or(earlier.memory_request),
            memory_limit: self.memory_limit.clone().or(earlier.memory_limit),
            seccomp_profile: self.seccomp_profile.clone().or(earlier.seccomp_profile),
        };
        update(&mut merged.env_field, &mut merged.env, &self.env_field);
        update(&mut merged.env, &mut merged.env_field, &self.env);
        if !self.init_arg.is_empty() {
            merged.init_arg.clone_from(&self.init_arg);
        }
        merged
    }

    /// As a pod carries them.
    pub(super) fn to_json(&self) -> Option<String> {
        let mut flags = Vec::new();
        for (flag, is_on) in [("classic", self.classic), ("from-netramesh", self.from_netramesh)] {
            flags.extend(is_on.map(|is_on| format!("--{flag}={is_on}")));
        }
        for (flag, value) in [
            ("image", &self.image),
            ("init-image", &self.init_image),
            ("service-name", &self.service_name),
            ("rules-config-map", &self.rules_config_map),
            ("cpu-request", &self.cpu_request),
            ("cpu-limit", &self.cpu_limit),
            ("memory-request", &self.memory_request),
            ("memory-limit", &self.memory_limit),
            ("seccomp-profile", &self.seccomp_profile),
        ] {
            flags.extend(value.as_ref().map(|value| format!("--{flag}={value}")));
        }
        for (flag, values) in
            [("env", &self.env), ("env-field", &self.env_field), ("init-arg", &self.init_arg)]
        {
            flags.extend(values.iter().map(|value| format!("--{flag}={value}")));
        }
        let is_told = !flags.is_empty();
        is_told.then(|| yaml::json(&Node::sequence(flags.iter().map(|flag| Node::text(flag)))))
    }

    /// The way back of [`Wanted::to_json`].
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let documents = yaml::read(text)?;
        let list = documents.first().map(|document| document.root.items()).unwrap_or_default();
        let flags = list.iter().filter_map(Node::as_str);
        let command = Self::augment_args(Command::new("inject"));
        let matches = command
            .try_get_matches_from(std::iter::once("inject").chain(flags))
            .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
        Self::from_arg_matches(&matches).map_err(|error| error.to_string())
    }
}

/// Gives variables the values of others, in their places: what follows may refer to them.
fn update(variables: &mut Vec<String>, other_kind: &mut Vec<String>, given: &[String]) {
    for pair in given {
        let is_same = |earlier: &String| name_of(earlier) == name_of(pair);
        other_kind.retain(|earlier| !is_same(earlier));
        match variables.iter_mut().find(|earlier| is_same(earlier)) {
            Some(earlier) => earlier.clone_from(pair),
            None => variables.push(pair.clone()),
        }
    }
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// The two sides of `NAME=VALUE`.
pub(super) fn split<'p>(
    flag: &str,
    pair: &'p str,
    form: &str,
) -> Result<(&'p str, &'p str), String> {
    pair.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{flag}: bad value {pair:?}: allowed is {form}"))
}
