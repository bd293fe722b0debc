//! etcd: documents and endpoints under a prefix, by its JSON gateway (`/v3/kv/range`, `/v3/watch`;
//! etcd 3.4 and later).
//!
//! - `PREFIX/documents/ANY`: YAML of one or many documents;
//! - `PREFIX/endpoints/NAMESPACE/SERVICE/ANY`: JSON
//!   `{"address":"10.0.0.1","ports":{"dubbo":20880},"labels":{"version":"v1"}}`.

use super::{AT_MOST, QUIET, Tell, directory::take, documents};
use crate::{
    client::{ANSWER_TIME, Asker, connect},
    world::{Document, Endpoint, Port, Service, World},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// Keys that are read in one answer.
const PAGE_KEYS: u64 = 1000;
/// All values together, at most.
const BYTES_MAX: usize = 64 << 20;
/// A message of a watch, at most.
const WATCH_LINE_BYTES_MAX: usize = 8 << 20;
/// How long a watch may say nothing until its member is asked whether it is there, and part of the
/// cluster: a watch tells neither that its connection leads nowhere nor that its member is cut off.
const SILENCE: Duration = Duration::from_secs(10);
/// Between attempts, doubled up to the second.
const RETRY_FROM: Duration = Duration::from_millis(200);
const RETRY_TO: Duration = Duration::from_secs(10);

/// Where etcd is.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    /// `HOST:PORT` of each member: one after the other is tried.
    pub(crate) members: Vec<String>,
    /// Without a slash at its end.
    pub(crate) prefix: String,
}

/// What is under the prefix, each key read once.
type Keys = BTreeMap<String, Read>;

/// What a key says.
#[derive(Debug)]
enum Read {
    Documents(Vec<Arc<Document>>, Vec<String>),
    Endpoint { namespace: String, name: String, endpoint: Endpoint },
    Wrong(String),
}

/// Tells what is under the prefix, and again whenever that has changed. While no member answers,
/// what it had stands.
pub(crate) async fn watch(etcd: Etcd, tell: Tell) {
    let (mut pause, mut said) = (RETRY_FROM, false);
    for member in etcd.members.iter().cycle() {
        match follow(&etcd, member, &tell, &mut pause).await {
            Ok(()) => return,
            Err(why) => {
                if !std::mem::replace(&mut said, true) || pause == RETRY_TO {
                    eprintln!(
                        "netra-control: etcd at {member}: {why}; what was read before stands"
                    );
                }
            }
        }
        if pause == RETRY_FROM {
            said = false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_TO);
    }
}

/// Reads everything, then every change, until something fails: a compaction, too, after which
/// everything is read again.
async fn follow(etcd: &Etcd, member: &str, tell: &Tell, pause: &mut Duration) -> io::Result<()> {
    let mut connection = connect(member).await?;
    let (mut keys, revision) = read_all(&mut connection, member, &etcd.prefix).await?;
    *pause = RETRY_FROM;
    if tell.send(world_of(&keys)).await.is_err() {
        return Ok(());
    }
    let (from, to) = range(&etcd.prefix);
    let create = json!({"create_request": {
        "key": from, "range_end": to, "start_revision": (revision + 1).to_string(),
    }});
    let mut stream = post(&mut connection, member, "/v3/watch", &create).await?;
    let (mut line, mut until) = (Vec::new(), None::<Instant>);
    loop {
        let wait = match until {
            None => Instant::now() + SILENCE,
            Some(end) => end.min(Instant::now() + QUIET),
        };
        let frame = match (timeout_at(wait, stream.frame()).await, until.is_some()) {
            (Ok(frame), _) => frame,
            (Err(_), true) => {
                until = None;
                if tell.send(world_of(&keys)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            (Err(_), false) => {
                answers(member).await?;
                continue;
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(io::Error::other)?;
        let Some(data) = frame.data_ref() else { continue };
        line.extend_from_slice(data);
        if line.len() > WATCH_LINE_BYTES_MAX {
            return Err(io::Error::other("a change is larger than 8 MiB"));
        }
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let rest = line.split_off(end + 1);
            let message = std::mem::replace(&mut line, rest);
            if apply(&message, &mut keys, &etcd.prefix)? {
                until = until.or(Some(Instant::now() + AT_MOST));
            }
        }
    }
    Err(io::Error::other("the watch has ended"))
}

/// Whether a member answers a question that a majority has to agree to.
async fn answers(member: &str) -> io::Result<()> {
    let silent = |why| io::Error::other(format!("silent, and does not answer: {why}"));
    let mut connection = connect(member).await.map_err(silent)?;
    let ask = json!({"key": BASE64_STANDARD.encode("/"), "count_only": true});
    let body = post(&mut connection, member, "/v3/kv/range", &ask).await.map_err(silent)?;
    let body = timeout(ANSWER_TIME, body.collect()).await.map_err(io::Error::other)?;
    body.map(drop).map_err(io::Error::other)
}

/// Takes in a message of a watch; whether it has changed anything.
fn apply(message: &[u8], keys: &mut Keys, prefix: &str) -> io::Result<bool> {
    let message: Value = serde_json::from_slice(message).map_err(io::Error::other)?;
    let result = message.get("result").unwrap_or(&message);
    if result.get("canceled").and_then(Value::as_bool) == Some(true)
        || message.get("error").is_some()
    {
        let compacted = result.get("compact_revision").is_some();
        return Err(io::Error::other(if compacted {
            "compacted"
        } else {
            "the watch was canceled"
        }));
    }
    let events = result.get("events").and_then(Value::as_array);
    let mut has_changed = false;
    for event in events.into_iter().flatten() {
        let Some((key, value)) = pair(&event["kv"]) else { continue };
        has_changed = true;
        match event.get("type").and_then(Value::as_str) {
            Some("DELETE") => drop(keys.remove(&key)),
            _ => {
                let read = Read::new(prefix, &key, &value);
                keys.insert(key, read);
            }
        }
    }
    Ok(has_changed)
}

async fn read_all(connection: &mut Asker, member: &str, prefix: &str) -> io::Result<(Keys, u64)> {
    let (mut from, to) = range(prefix);
    let (mut keys, mut bytes, mut revision) = (Keys::new(), 0, 0);
    loop {
        let mut ask = json!({"key": from, "range_end": to, "limit": PAGE_KEYS.to_string()});
        if revision > 0 {
            // All pages are of one moment.
            ask["revision"] = revision.to_string().into();
        }
        let body = timeout(ANSWER_TIME, async {
            post(connection, member, "/v3/kv/range", &ask)
                .await?
                .collect()
                .await
                .map_err(io::Error::other)
        });
        let body = body.await.map_err(io::Error::other)??.to_bytes();
        let answer: Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
        let said = answer["header"]["revision"].as_str().and_then(|it| it.parse().ok());
        revision = if revision > 0 { revision } else { said.unwrap_or(0) };
        let mut last = None;
        for kv in answer["kvs"].as_array().into_iter().flatten() {
            let Some((key, value)) = pair(kv) else { continue };
            bytes += key.len() + value.len();
            if bytes > BYTES_MAX {
                return Err(io::Error::other("more than 64 MiB under the prefix"));
            }
            last = Some(key.clone());
            let read = Read::new(prefix, &key, &value);
            keys.insert(key, read);
        }
        match (answer["more"].as_bool(), last) {
            (Some(true), Some(last)) => {
                from = BASE64_STANDARD.encode([last.as_bytes(), b"\0"].concat())
            }
            _ => return Ok((keys, revision)),
        }
    }
}

/// A key with its value; None when they are no text.
fn pair(kv: &Value) -> Option<(String, String)> {
    let text = |name: &str| match kv.get(name).and_then(Value::as_str) {
        Some(text) => String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok(),
        None => Some(String::new()),
    };
    Some((text("key").filter(|key| !key.is_empty())?, text("value")?))
}

/// The keys of a prefix: from it with a slash to what comes behind all of them.
fn range(prefix: &str) -> (String, String) {
    let [from, to] =
        [b'/', b'0'].map(|end| BASE64_STANDARD.encode([prefix.as_bytes(), &[end]].concat()));
    (from, to)
}

async fn post(
    connection: &mut Asker,
    member: &str,
    path: &str,
    body: &Value,
) -> io::Result<Incoming> {
    let request = Request::post(path)
        .header("host", member)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(io::Error::other)?;
    connection.ready().await.map_err(io::Error::other)?;
    let answer = timeout(ANSWER_TIME, connection.send_request(request)).await;
    let answer = answer.map_err(io::Error::other)?.map_err(io::Error::other)?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(io::Error::other(format!("{path}: {status}"))),
    }
}

impl Read {
    fn new(prefix: &str, key: &str, value: &str) -> Self {
        let rest = key.strip_prefix(prefix).unwrap_or(key);
        let words: Vec<&str> = rest.trim_start_matches('/').splitn(4, '/').collect();
        let wrong = |why: String| Self::Wrong(format!("{key}: {why}"));
        match words[..] {
            ["documents", ..] => match documents(value) {
                Ok(values) => {
                    let mut world = World::default();
                    take(key, values, &mut world);
                    Self::Documents(world.documents, world.troubles)
                }
                Err(why) => wrong(why),
            },
            ["endpoints", namespace, name, _] => match serde_json::from_str::<Written>(value) {
                Ok(Written { address, ports, labels }) => Self::Endpoint {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    endpoint: Endpoint { address, ports, labels },
                },
                Err(why) => wrong(why.to_string()),
            },
            _ => wrong("allowed is documents/ or endpoints/NAMESPACE/SERVICE/".to_owned()),
        }
    }
}

/// What the keys say. Those of a service stand together, as keys are in order.
fn world_of(keys: &Keys) -> World {
    let mut world = World::default();
    let mut services: Vec<Service> = Vec::new();
    for read in keys.values() {
        match read {
            Read::Documents(documents, troubles) => {
                world.documents.extend(documents.iter().cloned());
                world.troubles.extend(troubles.iter().cloned());
            }
            Read::Endpoint { namespace, name, endpoint } => {
                let is_its = |it: &mut Service| it.namespace == *namespace && it.name == *name;
                let is_new = services.last_mut().is_none_or(|it| !is_its(it));
                if is_new {
                    let (namespace, name) = (namespace.clone(), name.clone());
                    services.push(Service { namespace, name, ..Service::default() });
                }
                if let Some(service) = services.last_mut() {
                    join(service, endpoint);
                }
            }
            Read::Wrong(why) => world.troubles.push(why.clone()),
        }
    }
    world.services = services.into_iter().map(Arc::new).collect();
    world
}

/// An endpoint as it is written in etcd.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    address: String,
    #[serde(default)]
    ports: BTreeMap<String, u16>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn join(service: &mut Service, endpoint: &Endpoint) {
    for (name, number) in &endpoint.ports {
        if service.ports.iter().all(|port| port.name != *name) {
            let port = Port { number: *number, name: name.clone(), ..Port::default() };
            service.ports.push(port);
        }
    }
    service.endpoints.push(endpoint.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, key: &str, value: &str) -> Vec<u8> {
        let [key, value] = [key, value].map(|it| BASE64_STANDARD.encode(it));
        json!({"result": {"events": [{"type": kind, "kv": {"key": key, "value": value}}]}})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn keys_become_documents_and_services() {
        let mut keys = Keys::new();
        let router = "kind: MetaRouter\nmetadata: {name: a, namespace: shop}\n";
        assert!(apply(&message("PUT", "/netra/documents/a", router), &mut keys, "/netra").unwrap());
        let endpoint =
            r#"{"address":"10.0.0.1","ports":{"tcp-dubbo":20880},"labels":{"version":"v1"}}"#;
        for at in ["/netra/endpoints/shop/orders/1", "/netra/endpoints/shop/orders/2"] {
            apply(&message("PUT", at, endpoint), &mut keys, "/netra").unwrap();
        }
        apply(&message("PUT", "/netra/endpoints/shop/orders/3", "{}"), &mut keys, "/netra")
            .unwrap();
        apply(&message("PUT", "/netra/else", ""), &mut keys, "/netra").unwrap();
        let world = world_of(&keys);
        assert_eq!((world.documents.len(), world.services.len()), (1, 1));
        assert_eq!((world.services[0].endpoints.len(), world.services[0].ports.len()), (2, 1));
        assert_eq!(world.troubles.len(), 2, "{:?}", world.troubles);
        apply(&message("DELETE", "/netra/documents/a", ""), &mut keys, "/netra").unwrap();
        assert!(world_of(&keys).documents.is_empty());
    }

    #[test]
    fn a_compaction_ends_the_watch() {
        let message = br#"{"result":{"canceled":true,"compact_revision":"7"}}"#;
        let why = apply(message, &mut Keys::new(), "/netra").unwrap_err();
        assert_eq!(why.to_string(), "compacted");
        assert!(!apply(br#"{"result":{"created":true}}"#, &mut Keys::new(), "/netra").unwrap());
    }
}
