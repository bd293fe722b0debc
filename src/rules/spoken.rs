//! What a port is read as, and why: a rule acts only where somebody reads messages of its protocol.

use netra_codecs::{PortSet, tap::ProtocolPorts};
use netra_rules::{Direction, Protocol, RuleInfo, Table, may_act};
use std::net::SocketAddr;

/// What settings say of ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'s> {
    pub(crate) http: &'s PortSet,
    pub(crate) protocols: &'s ProtocolPorts,
    pub(crate) detects: bool,
}

/// Rules of one place that are told of.
const RULES_MAX: usize = 20;

/// What connections to there are read as, and which documents may act on them; `asked` is what the message
/// is said to be of.
pub(super) fn lines(
    settings: Settings<'_>,
    table: &Table,
    (direction, to, asked): (Direction, SocketAddr, Protocol),
) -> Vec<String> {
    let (read, why) = read_as(settings, table, to);
    let mut lines = vec![match read {
        Some(protocol) => format!("{to} is read as {protocol}: {why}"),
        None => format!("{to} is not read, and no document can act there: {why}"),
    }];
    let Some(read) = read else { return lines };
    let able = may_act(table, direction, to, read);
    let named = |rule: &&RuleInfo| format!("{} at {}", rule.name, rule.place);
    let shown: Vec<_> = able.iter().take(RULES_MAX).map(named).collect();
    lines.push(match able.len().saturating_sub(RULES_MAX) {
        _ if able.is_empty() => format!("no document acts on messages of {read} there"),
        0 => format!("what may act there: {}", shown.join(", ")),
        more => format!("what may act there: {} and {more} more", shown.join(", ")),
    });
    if read != asked {
        lines.push(format!(
            "so nobody reads messages of {asked} there, and what follows would be if somebody did"
        ));
    }
    lines
}

/// As shards see it (`Core::tapped`, `Core::is_http`).
fn read_as(
    settings: Settings<'_>,
    table: &Table,
    to: SocketAddr,
) -> (Option<Protocol>, &'static str) {
    if let Some(protocol) = settings.protocols.get(to) {
        return (Some(Protocol::Of(protocol)), "NETRA_PROTOCOLS says so");
    }
    if settings.http.contains(to.port()) {
        return (Some(Protocol::Http1), "NETRA_HTTP_PORTS has the port");
    }
    match table.protocol(to) {
        Some(Protocol::Http1) => (
            None,
            "documents name its port after HTTP, which is read on ports of NETRA_HTTP_PORTS alone",
        ),
        Some(protocol) => (Some(protocol), "documents name its port so"),
        None if settings.detects => (
            None,
            "NETRA_DETECT finds out what is spoken there, and rules do not act on what it finds",
        ),
        None => (
            None,
            "neither NETRA_HTTP_PORTS nor NETRA_PROTOCOLS nor documents say what is spoken there",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netra_rules::{Context, Documents, Source};

    const TEXT: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: it}
spec:
  hosts: [cache]
  addresses: [240.240.0.1]
  ports: [{number: 6379, name: tcp-redis}, {number: 80, name: http-page}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1}]
---
apiVersion: netra.io/v1alpha1
kind: Router
metadata: {name: r}
spec:
  hosts: [cache]
  protocol: redis
  routes: [{route: [{destination: {host: cache}}]}]
";

    fn said(to: &str, http: &str, protocols: &str, detects: bool) -> String {
        let text = TEXT.to_owned();
        let documents = Documents::read(&[Source { name: "rules".into(), text }]);
        let table = documents.compile(&Context::default()).table.unwrap();
        let (http, protocols) = (http.parse().unwrap(), protocols.parse().unwrap());
        let settings = Settings { http: &http, protocols: &protocols, detects };
        let redis = Context::default().protocol("redis").unwrap();
        let place = (Direction::Outbound, to.parse().unwrap(), redis);
        lines(settings, &table, place).join("\n")
    }

    #[test]
    fn a_place_is_read_as_shards_read_it() {
        for (to, http, protocols, detects, wanted) in [
            (
                "240.240.0.1:6379",
                "",
                "",
                false,
                "is read as redis: documents name its port so\nwhat may act there: Router/default/r at ",
            ),
            (
                "240.240.0.1:6379",
                "",
                "6379=dubbo",
                true,
                "is read as dubbo: NETRA_PROTOCOLS says so\nno document acts on messages of dubbo there\nso nobody reads messages of redis there",
            ),
            (
                "240.240.0.1:6379",
                "6379",
                "",
                false,
                "is read as http1: NETRA_HTTP_PORTS has the port",
            ),
            (
                "240.240.0.1:80",
                "",
                "",
                true,
                "is not read, and no document can act there: documents name its port after HTTP",
            ),
            (
                "10.0.0.9:6379",
                "",
                "",
                true,
                "is not read, and no document can act there: NETRA_DETECT",
            ),
            ("10.0.0.9:6379", "", "", false, "is not read, and no document can act there: neither"),
        ] {
            let said = said(to, http, protocols, detects);
            assert!(said.starts_with(&format!("{to} {wanted}")), "{said}");
        }
    }
}
