//! What a span's tags say of the call: by which protocol, with whom, and how it came out. Names of
//! OpenTelemetry's conventions, of those before them, and of netramesh.

use crate::batch::{Batch, Head, Item, Kind, Text, Value};
use crate::join::Peer;
use crate::names::{Names, NodeId, ProtocolId, Sort};
use std::net::{IpAddr, SocketAddr};

/// What was found; texts of the batch.
#[derive(Debug, Default)]
struct Found<'b> {
    database: Option<&'b str>,
    messaging: Option<&'b str>,
    destination: Option<&'b str>,
    rpc: Option<&'b str>,
    is_http: bool,
    service: Option<&'b str>,
    host: Option<&'b str>,
    port: Option<u16>,
    address: Option<IpAddr>,
    client: Option<IpAddr>,
    is_error: bool,
}

/// What is made of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) protocol: ProtocolId,
    pub(crate) peer: Peer,
    pub(crate) is_error: bool,
}

/// What a span says of its call.
pub(crate) fn facts(batch: &Batch, head: &Head, names: &mut Names) -> Facts {
    let found = find(batch, head);
    let protocol = match (found.database, found.messaging, found.rpc) {
        (Some(system), ..) | (_, Some(system), _) | (.., Some(system)) => names.protocol(system),
        _ => names.protocol(if found.is_http { "http" } else { "" }),
    };
    let peer = match head.kind {
        Kind::Client | Kind::Producer | Kind::Consumer => {
            Peer { node: asked(&found, head.kind, names), address: found.address }
        }
        Kind::Server => Peer { node: None, address: found.client.or(found.address) },
        Kind::Internal => Peer::default(),
    };
    Facts { protocol, peer, is_error: head.is_error || found.is_error }
}

/// The node that is asked, if it is no service that tells of itself.
fn asked(found: &Found<'_>, kind: Kind, names: &mut Names) -> Option<NodeId> {
    let place = |port: Option<u16>| match (found.host, found.address, port) {
        (Some(host), _, Some(port)) if !host.contains(':') => Some(format!("{host}:{port}")),
        (Some(host), ..) => Some(host.to_owned()),
        (None, Some(address), Some(port)) => Some(SocketAddr::from((address, port)).to_string()),
        (None, Some(address), None) => Some(address.to_string()),
        (None, None, _) => None,
    };
    if let Some(system) = found.database {
        let name = match (found.service, place(found.port)) {
            (Some(name), _) => name.to_owned(),
            (None, Some(place)) => format!("{system} {place}"),
            (None, None) => system.to_owned(),
        };
        return Some(names.node(Sort::Database, &name));
    }
    if let Some(system) = found.messaging {
        let name = match (found.destination, place(found.port)) {
            (Some(topic), _) => format!("{system} {topic}"),
            (None, Some(place)) => format!("{system} {place}"),
            (None, None) => system.to_owned(),
        };
        return Some(names.node(Sort::Queue, &name));
    }
    if kind == Kind::Consumer {
        return None;
    }
    let name = found.service.or(found.host).or(found.rpc.filter(|_| found.address.is_none()));
    if let Some(name) = name
        && let Some(service) = service_of(name, names)
    {
        return Some(service);
    }
    // A port that says no more than the protocol is left out, as names have none either.
    let port = found.port.filter(|port| found.host.is_none() || ![80, 443].contains(port));
    let name = found.service.map(str::to_owned).or_else(|| place(port))?;
    Some(names.node(Sort::External, &name))
}

/// The service that goes by a name, as it is or as Kubernetes has it.
fn service_of(name: &str, names: &Names) -> Option<NodeId> {
    let host = name.split(':').next().unwrap_or_default();
    let kubernetes = host.split_once('.').filter(|(_, rest)| {
        rest.split('.').nth(1) == Some("svc") || !rest.is_empty() && rest.split('.').count() == 1
    });
    let short = kubernetes.map(|(short, _)| short);
    names.service(host).or_else(|| names.service(short?))
}

fn find<'b>(batch: &'b Batch, head: &Head) -> Found<'b> {
    let mut found = Found::default();
    for item in batch.items(head) {
        match item {
            Item::Tag(key, value) => put(&mut found, batch, batch.text(*key), value),
            // What follows is the event's.
            Item::Event(..) => break,
            Item::Link(..) => {}
        }
    }
    found
}

fn put<'b>(found: &mut Found<'b>, batch: &'b Batch, key: &str, value: &Value<Text>) {
    let text = match value {
        Value::Text(text) => Some(batch.text(*text)).filter(|text| !text.is_empty()),
        _ => None,
    };
    let number = match value {
        Value::Int(number) => Some(*number),
        _ => text.and_then(|text| text.parse().ok()),
    };
    match key {
        "db.system.name" | "db.system" => found.database = text,
        "messaging.system" => found.messaging = text,
        "messaging.destination.name" | "messaging.destination" => found.destination = text,
        "rpc.system.name" | "rpc.system" => found.rpc = text,
        "http.request.method" | "http.method" | "url.full" | "http.url" => found.is_http = true,
        "http.status_code" | "http.response.status_code" => {
            found.is_http = true;
            found.is_error |= number.is_some_and(|status| status >= 500);
        }
        "peer.service" => found.service = text,
        "server.address" | "net.peer.name" => host(found, text),
        "http.host" if found.host.is_none() => {
            found.is_http = true;
            host(found, text);
        }
        "server.port" | "net.peer.port" => {
            found.port = number.and_then(|port| u16::try_from(port).ok());
        }
        "network.peer.address" | "net.sock.peer.addr" | "net.peer.ip" | "peer.ipv4" => {
            found.address = text.and_then(|text| text.parse().ok()).or(found.address);
        }
        "remote_addr" => {
            let remote = text.and_then(|text| text.parse::<SocketAddr>().ok());
            found.address = remote.map(|remote| remote.ip()).or(found.address);
            found.port = found.port.or(remote.map(|remote| remote.port()));
        }
        "client.address" => found.client = text.and_then(|text| text.parse().ok()),
        "error" => {
            found.is_error |= matches!(value, Value::Bool(true)) || text == Some("true");
        }
        _ => {}
    }
}

/// A name, or an address in place of one.
fn host<'b>(found: &mut Found<'b>, text: Option<&'b str>) {
    match text.and_then(|text| text.parse().ok()) {
        Some(address) => found.address = found.address.or(Some(address)),
        None => found.host = text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::{batch, made};

    fn of(kind: Kind, tags: &[(&'static str, &str)], names: &mut Names) -> Facts {
        let mut span = made("shop", kind, (1, 1, 0));
        span.tags = tags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let batch = batch(&[span]);
        facts(&batch, &batch.spans[0], names)
    }

    #[test]
    fn peers_have_names() {
        let mut names = Names::new(1 << 20);
        let stock = names.node(Sort::Service, "stock");
        type Case<'t> = (Kind, &'t [(&'static str, &'t str)], &'t str, &'t str);
        let cases: &[Case<'_>] = &[
            (
                Kind::Client,
                &[
                    ("db.system.name", "redis"),
                    ("server.address", "10.1.1.1"),
                    ("server.port", "6379"),
                ],
                "redis 10.1.1.1:6379",
                "redis",
            ),
            (Kind::Client, &[("db.system", "mysql"), ("net.peer.name", "db")], "mysql db", "mysql"),
            (
                Kind::Client,
                &[("http.host", "stock"), ("remote_addr", "10.2.2.2:80")],
                "stock",
                "http",
            ),
            (Kind::Client, &[("server.address", "stock.default.svc.cluster.local")], "stock", ""),
            (
                Kind::Client,
                &[
                    ("http.request.method", "GET"),
                    ("server.address", "api.example.com"),
                    ("server.port", "443"),
                ],
                "api.example.com",
                "http",
            ),
            (
                Kind::Producer,
                &[("messaging.system", "kafka"), ("messaging.destination.name", "orders")],
                "kafka orders",
                "kafka",
            ),
            (Kind::Client, &[("peer.service", "billing")], "billing", ""),
        ];
        for (kind, tags, node, protocol) in cases {
            let facts = of(*kind, tags, &mut names);
            let id = facts.peer.node.expect(node);
            assert_eq!(&*names.nodes[id as usize].name, *node, "{tags:?}");
            assert_eq!(names.protocol_name(facts.protocol), *protocol, "{tags:?}");
            assert_eq!(id == stock, *node == "stock");
        }
        assert_eq!(of(Kind::Client, &[], &mut names).peer, Peer::default());
    }

    #[test]
    fn errors_are_what_says_so() {
        let mut names = Names::new(1 << 20);
        for (key, value, is_error) in [
            ("http.status_code", "503", true),
            ("http.response.status_code", "404", false),
            ("error", "true", true),
            ("error", "false", false),
        ] {
            assert_eq!(of(Kind::Server, &[(key, value)], &mut names).is_error, is_error, "{value}");
        }
        let facts = of(Kind::Server, &[("client.address", "10.0.0.9")], &mut names);
        assert_eq!(facts.peer.address, Some("10.0.0.9".parse().unwrap()));
    }
}
