//! netra-control against an API server that behaves like Kubernetes' own where it hurts: lists in
//! pages, watches from a version, bookmarks, versions that are gone (410), watches that are cut.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may sleep and lock")]
#![allow(missing_docs, reason = "a test")]

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
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
}

/// The API server.
#[derive(Clone, Default)]
struct Api(Arc<(Mutex<State>, Condvar)>);

impl Api {
    fn start(&self) -> SocketAddr {
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
    fn put(&self, list: &str, mut object: Value) {
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

    fn delete(&self, list: &str, key: &str) {
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
    fn forget(&self) {
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

/// A running netra-control.
struct Control {
    child: Child,
    at: SocketAddr,
}

impl Control {
    fn start(api: SocketAddr) -> Self {
        let name = format!("netra-cluster-{}-{}", std::process::id(), api.port());
        let config = std::env::temp_dir().join(name);
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "clusters": [{"name": "a", "cluster": {"server": format!("http://{api}")}}],
            "users": [{"name": "a", "user": {}}]});
        fs::write(&config, text.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_netra-control"))
            .args(["serve", "--listen=127.0.0.1:0", "--kubernetes", "--token-review"])
            .env("KUBECONFIG", &config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line =
            lines.by_ref().map_while(Result::ok).find(|line| line.contains("listens on ")).unwrap();
        let at = line.rsplit(' ').next().unwrap().parse().unwrap();
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| println!("{line}")));
        fs::remove_file(config).unwrap();
        Self { child, at }
    }

    fn ask(&self, path: &str, token: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.at).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn rules(&self, namespace: &str) -> String {
        let path = format!("/v1/rules?namespace={namespace}&wait=0");
        self.ask(&path, &format!("token-of-{namespace}")).1
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < by, "never came true: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

const ROUTERS: &str = "/apis/metaprotocol.aeraki.io/v1alpha1/metarouters";
const RULES: &str = "/apis/networking.istio.io/v1/destinationrules";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const PODS: &str = "/api/v1/pods";
const AUTHORIZATIONS: &str = "/apis/netra.io/v1alpha1/authorizations";

fn router(weight: u32) -> Value {
    let to = |subset: &str, weight: u32| json!({"destination": {"host": "orders", "subset": subset}, "weight": weight});
    json!({"apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"hosts": ["orders"], "exportTo": ["."],
            "routes": [{"name": "split", "route": [to("v1", weight), to("v2", 100 - weight)]}]}})
}

fn pod(name: &str, namespace: &str, address: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"version": version}},
        "spec": {"containers": [], "serviceAccountName": "web"},
        "status": {"phase": "Running", "podIP": address}})
}

fn slice(addresses: &[&str]) -> Value {
    let endpoint = |address: &&str| json!({"addresses": [address], "conditions": {"ready": true}, "zone": "zone-a"});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "orders-1", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "orders"}},
        "ports": [{"name": "web", "port": 8080}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>()})
}

fn fill(api: &Api) {
    let subset = |name: &str| json!({"name": name, "labels": {"version": name}});
    api.put(
        RULES,
        json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"host": "orders", "subsets": [subset("v1"), subset("v2")]}}),
    );
    api.put(SERVICES, json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"clusterIPs": ["10.96.0.7"], "ports": [{"name": "web", "port": 8080, "appProtocol": "http"}]}}));
    for (name, address, version) in
        [("a", "10.0.0.1", "v1"), ("b", "10.0.0.2", "v2"), ("c", "10.0.0.3", "v2")]
    {
        api.put(PODS, pod(name, "shop", address, version));
    }
    api.put(PODS, pod("pay-1", "pay", "10.0.0.9", "v1"));
    api.put(SLICES, slice(&["10.0.0.1", "10.0.0.2"]));
    api.put(
        AUTHORIZATIONS,
        json!({"apiVersion": "netra.io/v1alpha1", "kind": "Authorization",
        "metadata": {"name": "payers", "namespace": "shop"},
        "spec": {"rules": [{"from": [{"namespaces": ["pay"]}]}]}}),
    );
    api.put(ROUTERS, router(20));
}

#[test]
fn a_cluster_is_followed_through_whatever_it_does_to_watches() {
    let api = Api::default();
    fill(&api);
    let control = Control::start(api.start());
    until("the world is known", || control.ask("/ready", "").0 == 200);
    let has = |texts: &[&str]| {
        let rules = control.rules("shop");
        texts.iter().all(|text| rules.contains(text))
    };
    // Kinds that the cluster does not have do not hold it up; subsets come by the labels of pods.
    until("all of it has come", || {
        has(&["\"weight\":20", "10.0.0.2", "zone-a", "\"version\":\"v2\"", "10.0.0.9/32"])
    });
    api.put(ROUTERS, router(30));
    until("a change has come", || has(&["\"weight\":30"]));
    // All at once, while nobody watches, and what was in between is forgotten.
    api.forget();
    api.put(ROUTERS, router(40));
    api.put(SLICES, slice(&["10.0.0.2", "10.0.0.3"]));
    api.delete(PODS, "pay/pay-1");
    api.forget();
    until("it has caught up", || {
        has(&["\"weight\":40", "10.0.0.3", "255.255.255.255/32"]) && !has(&["10.0.0.1\""])
    });
    // A bad change leaves the version before.
    let mut bad = router(40);
    bad["spec"]["routes"][0]["route"][0]["weight"] = 99.into();
    api.put(ROUTERS, bad);
    until("the trouble is told", || {
        control.ask("/metrics", "").1.contains("netra_control_troubles 1")
    });
    assert!(has(&["\"weight\":40"]));
    api.delete(ROUTERS, "shop/orders");
    until("it is gone", || !has(&["MetaRouter"]));
}

#[test]
fn a_service_account_gets_what_its_namespace_gets() {
    let api = Api::default();
    fill(&api);
    let control = Control::start(api.start());
    until("the world is known", || control.ask("/ready", "").0 == 200);
    let status = |namespace: &str, token: &str| {
        control.ask(&format!("/v1/rules?namespace={namespace}&wait=0"), token).0
    };
    assert_eq!(status("shop", "token-of-shop"), 200);
    assert_eq!(status("pay", "token-of-shop"), 403);
    assert_eq!(status("shop", "token-of-nobody-known"), 403);
    assert_eq!(status("shop", "another"), 401);
}
