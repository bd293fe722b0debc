//! The process that spans come from, as Jaeger and OpenTelemetry describe it.

use super::ExportPlan;
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::IpAddr,
    sync::OnceLock,
};

/// A service and its tags.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) service_name: String,
    pub(crate) tags: Vec<(String, String)>,
}

impl Process {
    /// With the tags that a Jaeger client sets, and those of the settings.
    pub(super) fn jaeger(plan: &ExportPlan) -> Self {
        let own = [
            ("jaeger.version", Some(concat!("netra-", env!("CARGO_PKG_VERSION")).to_owned())),
            ("hostname", host_name()),
            ("ip", address().map(|address| address.to_string())),
            ("client-uuid", Some(instance())),
        ];
        Self::with(&plan.service_name, &plan.process_tags, &own)
    }

    /// With the resource attributes that an OpenTelemetry SDK sets, and those of the settings.
    pub(crate) fn otel(service_name: &str, tags: &[(String, String)]) -> Self {
        let own = [
            ("service.name", Some(service_name.to_owned())),
            ("service.instance.id", Some(instance())),
            ("host.name", host_name()),
            ("ip", address().map(|address| address.to_string())),
            ("telemetry.sdk.name", Some("netra".into())),
            ("telemetry.sdk.language", Some("rust".into())),
            ("telemetry.sdk.version", Some(env!("CARGO_PKG_VERSION").into())),
        ];
        Self::with(service_name, tags, &own)
    }

    /// What the settings say goes before what is found out.
    fn with(
        service_name: &str,
        settings: &[(String, String)],
        own: &[(&str, Option<String>)],
    ) -> Self {
        let mut tags = settings.to_vec();
        for (key, value) in own {
            if let Some(value) = value
                && !tags.iter().any(|(known, _)| known == key)
            {
                tags.push(((*key).to_owned(), value.clone()));
            }
        }
        Self { service_name: service_name.to_owned(), tags }
    }
}

fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// The first address that is not this host's alone, of IPv4 if there is one.
fn address() -> Option<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    let addresses = all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    let mut useful: Vec<IpAddr> = addresses.filter(|address| !address.is_loopback()).collect();
    useful.sort_by_key(IpAddr::is_ipv6);
    useful.first().copied()
}

/// A name for this life of the process, the same in spans and metrics: std seeds its hashers from the
/// kernel.
fn instance() -> String {
    static INSTANCE: OnceLock<u64> = OnceLock::new();
    let instance = INSTANCE.get_or_init(|| RandomState::new().build_hasher().finish());
    format!("{instance:016x}")
}
