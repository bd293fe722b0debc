//! The process that spans come from, as Jaeger and OpenTelemetry describe it.

use super::ExportPlan;
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::IpAddr,
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
        Self::with(plan, &own)
    }

    /// With the resource attributes that an OpenTelemetry SDK sets, and those of the settings.
    pub(super) fn otel(plan: &ExportPlan) -> Self {
        let own = [
            ("service.name", Some(plan.service_name.clone())),
            ("service.instance.id", Some(instance())),
            ("host.name", host_name()),
            ("ip", address().map(|address| address.to_string())),
            ("telemetry.sdk.name", Some("netra".into())),
            ("telemetry.sdk.language", Some("rust".into())),
            ("telemetry.sdk.version", Some(env!("CARGO_PKG_VERSION").into())),
        ];
        Self::with(plan, &own)
    }

    /// What the settings say goes before what is found out.
    fn with(plan: &ExportPlan, own: &[(&str, Option<String>)]) -> Self {
        let mut tags = plan.process_tags.clone();
        for (key, value) in own {
            if let Some(value) = value
                && !tags.iter().any(|(known, _)| known == key)
            {
                tags.push(((*key).to_owned(), value.clone()));
            }
        }
        Self { service_name: plan.service_name.clone(), tags }
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

/// A name for this life of the process: std seeds its hashers from the kernel.
fn instance() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
