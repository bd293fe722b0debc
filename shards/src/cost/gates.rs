//! What decides about the messages of the works that are gated.

use crate::{
    config::HttpConfig,
    exchange::{Gates, ShardRules, WritesContext},
};
use netra_codecs::tap::Protocol;
use netra_rules::{Context, Documents, RuleId, Source};
use std::sync::Arc;

/// Rules of all that a message can be asked for which passes: a limit that it stays below, a condition
/// that is no other's, an answer that may not take for ever, and values for it and its answer where the
/// protocol has a place for them.
pub(super) fn of(protocol: Option<Protocol>, config: &HttpConfig) -> Gates {
    let name = protocol.map_or("http1", Protocol::name);
    let (host, attribute, values) = match protocol {
        None => (
            "orders.shop.svc.cluster.local",
            "path",
            "requestMutation: [{key: x-shop, value: berlin}], ",
        ),
        Some(Protocol::Dubbo) => (
            "org.apache.dubbo.demo.demosvc",
            "method",
            "requestMutation: [{key: shop, value: berlin}], \
             responseMutation: [{key: shop, value: berlin}], ",
        ),
        Some(Protocol::Redis) => ("shop", "command", ""),
        Some(_) => ("shop", "method", ""),
    };
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop}}\nspec:\n  \
         hosts: [{host}]\n  addresses: [10.0.0.2]\n  ports: [{{number: 8080, name: tcp}}]\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [{host}]\n  protocol: {name}\n  timeout: {{firstByte: 1s, idle: 1s}}\n  \
         localRateLimit: {{tokenBucket: {{maxTokens: 1000000, tokensPerFill: 1000000, \
         fillInterval: 1s}}}}\n  \
         routes:\n  - {{name: all, {values}route: [{{destination: {{host: {host}}}}}]}}\n---\n\
         apiVersion: netra.io/v1alpha1\nkind: Authorization\nmetadata: {{name: never}}\n\
         spec: {{action: DENY, protocol: {name}, rules: [{{to: [{{attributes: {{{attribute}: \
         {{exact: FLUSHALL}}}}}}]}}]}}\n"
    );
    Gates { rules: Some(rules(text)), ..Gates::new(WritesContext::of(config)) }
}

/// Rules by which no message of the protocol is passed on.
pub(super) fn refusing(protocol: Protocol) -> Box<ShardRules> {
    rules(routed(protocol, "", "{name: none, match: {attributes: {ATTRIBUTE: {exact: none}}}, "))
}

/// Rules that send each message of the protocol elsewhere than the one before.
pub(super) fn moving(protocol: Protocol) -> Box<ShardRules> {
    let by_turns = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                    metadata: {name: it, annotations: {netra.io/balance-by: message}}\nspec:\n  \
                    host: HOST\n  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}\n---\n";
    rules(routed(protocol, by_turns, "{name: all, "))
}

/// Rules that send a copy of each message to a mirror.
pub(super) fn mirroring(protocol: Protocol) -> Box<ShardRules> {
    rules(routed(protocol, "", "{name: all, mirror: {host: HOST}, "))
}

/// Two endpoints, what else is said of them, and how the only route to them begins.
fn routed(protocol: Protocol, more: &str, route: &str) -> String {
    let (host, attribute) = match protocol {
        Protocol::Dubbo => ("org.apache.dubbo.demo.demosvc", "method"),
        Protocol::Redis => ("shop", "command"),
        _ => ("shop", "method"),
    };
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop}}\nspec:\n  \
         hosts: [HOST]\n  addresses: [10.0.0.2]\n  ports: [{{number: 8080, name: tcp}}]\n  \
         resolution: STATIC\n  endpoints: [{{address: 10.0.0.3}}, {{address: 10.0.0.4}}]\n---\n{more}\
         apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: it}}\nspec:\n  \
         hosts: [HOST]\n  protocol: {protocol}\n  \
         routes: [{route}route: [{{destination: {{host: HOST}}}}]}}]\n"
    );
    text.replace("HOST", host).replace("ATTRIBUTE", attribute)
}

fn rules(text: String) -> Box<ShardRules> {
    let documents = Documents::read(&[Source { name: "it.yaml".into(), text }]);
    let compiled = documents.compile(&Context::of_sidecars("shop"));
    let table = compiled.table.unwrap_or_else(|| panic!("{}", compiled.troubles));
    Box::new(ShardRules::new(&table, &Arc::new(table.process(None, 0)), 1))
}

/// Every message but that of the first turn, which accepts, was decided about.
pub(super) fn have_decided(rules: &ShardRules, messages: u64) {
    let all = rules.table().rules().iter().zip(0..);
    let hits = all.map(|(rule, id)| (&rule.name, rules.hits().of(RuleId(id))));
    let hits: Vec<_> = hits.collect();
    assert!(hits.iter().any(|(_, hits)| hits.all + 1 >= messages), "{messages}: {hits:?}");
    assert!(hits.iter().all(|(_, hits)| hits.refused == 0), "{hits:?}");
}
