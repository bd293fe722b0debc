//! An API server that behaves like Kubernetes' own where it hurts: lists in pages, watches from a
//! version, bookmarks, versions that are gone (410), watches that are cut, a lease, status, TokenReview.
#![allow(dead_code, unreachable_pub, reason = "each test has what it needs of it")]

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

/// Objects of one list, at most: the rest is another page.
const PAGE: usize = 2;

#[derive(Default)]
struct State {
    version: u64,
    /// By path of the list, then `NAMESPACE/NAME`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// Every change: version, path of the list, event.
    history: Vec<(u64, String, Value)>,
    /// Versions below are gone.
    oldest: u64,
    /// Watches that began before this count are cut.
    epoch: u64,
    lease: Option<Value>,
    patches: u64,
}

/// The API server.
#[derive(Clone, Default)]
pub struct Api(Arc<(Mutex<State>, Condvar)>);

impl Api {
    pub fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let api = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let api = api.clone();
                thread::spawn(move || api.answer(stream));
            }
        });
        address
    }

    /// Creates or changes an object, as `kubectl apply` does.
    pub fn put(&self, list: &str, mut object: Value) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let name = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = format!("{}/{}", name("namespace"), name("name"));
        object["metadata"]["resourceVersion"] = version.to_string().into();
        object["metadata"]["uid"] = format!("uid-{key}").into();
        let shelf = state.objects.entry(list.to_owned()).or_default();
        let kind = if shelf.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        let event = json!({"type": kind, "object": object});
        state.history.push((version, list.to_owned(), event));
        changed.notify_all();
    }

    pub fn delete(&self, list: &str, key: &str) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let mut object = state.objects.get_mut(list).and_then(|shelf| shelf.remove(key)).unwrap();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let event = json!({"type": "DELETED", "object": object});
        state.history.push((version, list.to_owned(), event));
        changed.notify_all();
    }

    /// Cuts all watches and forgets what has been: whoever comes back has to list anew.
    pub fn forget(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        (state.oldest, state.epoch) = (state.version, state.epoch + 1);
        state.history.clear();
        changed.notify_all();
    }

    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        let mut length = 0;
        loop {
            let mut field = String::new();
            if reader.read_line(&mut field).is_err() || field.trim().is_empty() {
                break;
            }
            if let Some(value) = field.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let asked: BTreeMap<&str, &str> =
            query.split('&').filter_map(|it| it.split_once('=')).collect();
        match asked.get("watch") {
            _ if path.ends_with("/tokenreviews") => reply(stream, 201, &review(&body)),
            _ if path.contains("/leases") => {
                let method = line.split(' ').next().unwrap_or_default();
                self.lease(stream, method, &body);
            }
            _ if line.starts_with("PATCH ") => self.patch(stream, path, &body),
            Some(&"true" | &"1") => self.watch(stream, path, &asked),
            _ => self.list(stream, path, &asked),
        }
    }

    fn list(&self, stream: TcpStream, path: &str, asked: &BTreeMap<&str, &str>) {
        let state = self.0.0.lock().unwrap();
        // A kind that this cluster does not have.
        let Some(shelf) = state.objects.get(path) else {
            let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "the server could not find the requested resource", "reason": "NotFound", "code": 404});
            return reply(stream, 404, &body);
        };
        let from: usize = asked.get("continue").and_then(|it| it.parse().ok()).unwrap_or(0);
        let items: Vec<&Value> = shelf.values().skip(from).take(PAGE).collect();
        let mut metadata = json!({"resourceVersion": state.version.to_string()});
        if from + items.len() < shelf.len() {
            metadata["continue"] = (from + items.len()).to_string().into();
        }
        let body =
            json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
        reply(stream, 200, &body);
    }

    /// The only Lease: who changes it has to know its version.
    fn lease(&self, stream: TcpStream, method: &str, body: &[u8]) {
        let no = |reason: &str, code: u16| {
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": reason, "reason": reason, "code": code})
        };
        let mut state = self.0.0.lock().unwrap();
        if method == "GET" {
            return match &state.lease {
                Some(lease) => reply(stream, 200, lease),
                None => reply(stream, 404, &no("NotFound", 404)),
            };
        }
        let mut lease: Value = serde_json::from_slice(body).unwrap();
        let known = state.lease.as_ref().map(|it| it["metadata"]["resourceVersion"].clone());
        let is_current = match &known {
            None => method == "POST",
            Some(version) => method == "PUT" && lease["metadata"]["resourceVersion"] == *version,
        };
        if !is_current {
            return reply(stream, 409, &no("Conflict", 409));
        }
        state.version += 1;
        lease["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.lease = Some(lease.clone());
        reply(stream, 200, &lease);
    }

    /// `PATCH .../namespaces/NAMESPACE/KINDS/NAME/status`: everybody who watches is told.
    fn patch(&self, stream: TcpStream, path: &str, body: &[u8]) {
        let words: Vec<&str> = path.split('/').collect();
        let [group @ .., "namespaces", namespace, kinds, name, "status"] = &words[..] else {
            panic!("a patch of {path}");
        };
        let list = format!("{}/{kinds}", group.join("/"));
        let key = format!("{namespace}/{name}");
        let found = self.object(&list, &key);
        let Some(mut object) = found else { return reply(stream, 404, &json!({"code": 404})) };
        let patch: Value = serde_json::from_slice(body).unwrap();
        object["status"] = patch["status"].clone();
        self.put(&list, object.clone());
        self.0.0.lock().unwrap().patches += 1;
        reply(stream, 200, &object);
    }

    pub fn object(&self, list: &str, key: &str) -> Option<Value> {
        self.0.0.lock().unwrap().objects.get(list)?.get(key).cloned()
    }

    /// Who has the lease.
    pub fn holder(&self) -> Option<String> {
        let state = self.0.0.lock().unwrap();
        Some(state.lease.as_ref()?["spec"]["holderIdentity"].as_str()?.to_owned())
    }

    pub fn patches(&self) -> u64 {
        self.0.0.lock().unwrap().patches
    }

    fn watch(&self, mut stream: TcpStream, path: &str, asked: &BTreeMap<&str, &str>) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        let mut seen: u64 =
            asked.get("resourceVersion").and_then(|it| it.parse().ok()).unwrap_or(0);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        let epoch = state.epoch;
        if seen < state.oldest {
            let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "message": "too old resource version", "reason": "Expired", "code": 410}});
            let _ = writeln!(stream, "{gone}");
            return;
        }
        loop {
            for (version, list, event) in &state.history {
                if *version > seen && list == path && writeln!(stream, "{event}").is_err() {
                    return;
                }
            }
            if seen < state.version {
                seen = state.version;
                let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Bookmark", "apiVersion": "v1",
                    "metadata": {"resourceVersion": seen.to_string()}}});
                let _ = (asked.get("allowWatchBookmarks") == Some(&"true"))
                    .then(|| writeln!(stream, "{bookmark}"));
            }
            state = changed.wait_timeout(state, Duration::from_secs(1)).unwrap().0;
            if state.epoch != epoch {
                return;
            }
        }
    }
}

/// Tokens are called by their namespaces here.
fn review(body: &[u8]) -> Value {
    let mut review: Value = serde_json::from_slice(body).unwrap();
    let token = review["spec"]["token"].as_str().unwrap().to_owned();
    review["status"] = match token.strip_prefix("token-of-") {
        Some(namespace) => json!({"authenticated": true,
            "user": {"username": format!("system:serviceaccount:{namespace}:web")}}),
        None => json!({"authenticated": false}),
    };
    review
}

fn reply(mut stream: TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
}

/// What tells a client where it is.
pub fn kubeconfig(api: SocketAddr) -> String {
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": format!("http://{api}")}}],
        "users": [{"name": "a", "user": {}}]});
    config.to_string()
}
