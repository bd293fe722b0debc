//! What Kubernetes tells every pod about the Services of its namespace, in variables that are called
//! after them: a Service `jaeger-agent` makes `JAEGER_AGENT_PORT=tcp://10.0.0.1:6831`. Whoever named
//! it did not mean netra, and a pod has to start again whatever Services have come since.

use std::net::SocketAddr;

/// Whether a variable describes a Service. A name that ends with `_PORT` may be a setting's, so its
/// value decides; no setting is called as the others are.
pub(crate) fn is_service_link(name: &str, value: &str) -> bool {
    has_link_name(name) || name.ends_with("_PORT") && is_link(value)
}

/// `tcp://10.0.0.1:80`, or `udp://[fd00::1]:53`.
fn is_link(value: &str) -> bool {
    let Some((scheme, address)) = value.trim().split_once("://") else { return false };
    matches!(scheme, "tcp" | "udp" | "sctp") && address.parse::<SocketAddr>().is_ok()
}

/// Names like `NETRA_SERVICE_HOST`, `JAEGER_SERVICE_PORT_HTTP` and `NETRA_PORT_80_TCP_ADDR`.
fn has_link_name(name: &str) -> bool {
    let numbered_port = name.split("_PORT_").skip(1).any(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let rest = &rest[digits..];
        digits > 0 && ["_TCP", "_UDP", "_SCTP"].iter().any(|kind| rest.starts_with(kind))
    });
    numbered_port || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_makes_of_services() {
        for (name, value) in [
            ("NETRA_PORT", "tcp://10.0.0.1:14956"),
            ("NETRA_PORT", " udp://[fd00::1]:53 "),
            ("NETRA_PPROF_PORT", "sctp://10.0.0.1:1"),
            ("NETRA_HTTP_PORT", "tcp://10.0.0.1:80"),
            ("NETRA_PORT_14956_TCP", "tcp://10.0.0.1:14956"),
            ("NETRA_PORT_14956_TCP_ADDR", "10.0.0.1"),
            ("NETRA_PORT_14956_TCP_PORT", "14956"),
            ("JAEGER_AGENT_PORT_6831_UDP_PROTO", "udp"),
            ("JAEGER_AGENT_SERVICE_HOST", "10.0.0.1"),
            ("JAEGER_AGENT_SERVICE_PORT", "6831"),
            ("JAEGER_AGENT_SERVICE_PORT_COMPACT", "6831"),
        ] {
            assert!(is_service_link(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("NETRA_PORT", "14956"),
            ("NETRA_PORT", "tcp://shop:80"),
            ("NETRA_PORT", "tcp://10.0.0.1"),
            ("NETRA_PORT", "http://10.0.0.1:80"),
            ("JAEGER_ENDPOINT", "tcp://10.0.0.1:80"),
            ("NETRA_PORT_TCP", "1"),
            ("NETRA_PORTS_80_TCP", "1"),
            ("NETRA_SERVICE_NAME", "shop"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }

    #[test]
    fn no_setting_has_a_name_that_only_links_have() {
        for setting in crate::table::table() {
            for name in std::iter::once(&setting.name).chain(setting.also) {
                assert!(!has_link_name(name), "{name}");
            }
        }
    }
}
