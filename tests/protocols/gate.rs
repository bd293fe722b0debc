//! Messages that are written into: one trace through HTTP, Dubbo and Thrift.

use super::support::matrix::{Findings, cells};
use super::support::netra::{Backend, Netra, Setup, apply_rules, remove_rules};
use super::support::programs::Server;
use super::support::sink::{Sink, Span};
use super::support::world::{CLIENT_V4, Namespace, POD_V4, World};
use super::{no_tunnel, peer, python, python_path};
use serde_json::Value;
use std::net::IpAddr;

/// The services of the chain, until they are dropped.
fn chain(world: &World) -> [Server; 2] {
    let start = |role: &str, namespace: &Namespace, others: IpAddr, port| {
        let mut command = namespace.command(python_path());
        command.arg(peer("chain_peer.py")).args([role, &others.to_string()]);
        Server::start(world, namespace, command, port)
    };
    [start("far", &world.client, POD_V4, 20880), start("pod", &world.pod, CLIENT_V4, 8080)]
}

fn ask(world: &World, with_id: &[&str]) -> Value {
    let host = POD_V4.to_string();
    let said = python(&world.client, "chain_peer.py", &[&["ask", &host], with_id].concat());
    serde_json::from_str(&said).expect("JSON")
}

/// Each span is below the one before it.
fn in_a_row(mut spans: Vec<Span>) -> Result<(), String> {
    let mut above: Option<Span> = None;
    for system in ["", "dubbo", "thrift", ""] {
        let (trace_id, parent_id) = above.as_ref().map_or((0, 0), |it| (it.trace_id, it.span_id));
        let is_next = |span: &Span| {
            let is_there = above.is_none() || span.trace_id == trace_id;
            is_there && span.tag("rpc.system.name") == system && span.parent_id == parent_id
        };
        let Some(place) = spans.iter().position(is_next) else {
            return Err(format!("nothing of {system:?} below {above:#?}: {spans:#?}"));
        };
        above = Some(spans.swap_remove(place));
    }
    Ok(())
}

/// The application hands on the request id alone: netra writes the context into what it sends, by
/// each of the protocols, and joins what comes in by that id.
#[test]
fn a_trace_goes_on_through_http_dubbo_and_thrift() {
    let Some(world) = World::new() else { return };
    let _services = chain(&world);
    let direct = ask(&world, &["id"]);
    assert_eq!(direct["dubbo"], serde_json::json!({"x-request-id": "chain-1"}));
    let sink = Sink::start(&world);
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    for cell in cells() {
        let setup = sink
            .wire(Setup::new(cell))
            .env("NETRA_HTTP_PORTS", "8080,8081")
            .env("NETRA_PROTOCOLS", "20880=dubbo,9090=thrift")
            .env("OTEL_PROPAGATORS", "tracecontext,b3");
        let netra = Netra::start(&world, &setup);
        for with_id in [&["id"][..], &[]] {
            let answer = ask(&world, with_id);
            for name in ["x-request-id", "traceparent", "uber-trace-id", "b3"] {
                let given = (&answer["dubbo"][name], &answer["http"][name]);
                if !given.0.is_string() || !given.1.is_string() {
                    findings.note(cell, format!("no {name} in {answer}"));
                }
            }
            if answer["dubbo"]["x-request-id"] != answer["http"]["x-request-id"] {
                findings.note(cell, format!("two ids in {answer}"));
            }
            findings.check(cell, sink.take(4).and_then(in_a_row));
        }
        let scrape = netra.scrape();
        findings.check(cell, no_tunnel(&scrape));
        let edits = scrape.sum("netra_message_edits_total", &[("result", "done")]);
        if edits != 4 {
            findings.note(cell, format!("{edits} messages edited, not 4"));
        }
        findings.check(cell, netra.finish());
    }
    remove_rules(&world, Backend::NftNative);
    findings.conclude();
}

/// Where the setting says so no byte is changed, nor where nothing is traced.
#[test]
fn what_is_not_to_be_written_into_is_not() {
    let Some(world) = World::new() else { return };
    let _services = chain(&world);
    let sink = Sink::start(&world);
    apply_rules(&world, Backend::NftNative);
    let mut findings = Findings::default();
    let cell = cells()[0];
    let ports = "20880=dubbo,9090=thrift";
    let off = sink.wire(Setup::new(cell)).env("NETRA_PROTOCOLS_WRITE_CONTEXT", "false");
    let nobody = Setup::new(cell).env("JAEGER_DISABLED", "true");
    for setup in [off, nobody] {
        let netra = Netra::start(&world, &setup.env("NETRA_PROTOCOLS", ports));
        let answer = ask(&world, &["id"]);
        if answer["dubbo"] != serde_json::json!({"x-request-id": "chain-1"}) {
            findings.note(cell, format!("{answer}"));
        }
        findings.check(cell, netra.finish());
    }
    remove_rules(&world, Backend::NftNative);
    findings.conclude();
}
