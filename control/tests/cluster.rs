//! netra-control against an API server that behaves like Kubernetes' own where it hurts: lists in
//! pages, watches from a version, bookmarks, versions that are gone (410), watches that are cut.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may sleep and lock")]
#![allow(missing_docs, reason = "a test")]

#[path = "support/api.rs"]
mod api;

use api::Api;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Counts those that were started, for a name of each.
static ORDER: AtomicU64 = AtomicU64::new(0);

/// A running netra-control.
struct Control {
    child: Child,
    at: SocketAddr,
}

impl Control {
    fn start(api: SocketAddr) -> Self {
        Self::with(api, &[])
    }

    fn with(api: SocketAddr, more: &[&str]) -> Self {
        let name = format!("netra-cluster-{}-{}", std::process::id(), ORDER.fetch_add(1, Relaxed));
        let config = std::env::temp_dir().join(name);
        fs::write(&config, api::kubeconfig(api)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_netra-control"))
            .args(["serve", "--listen=127.0.0.1:0", "--kubernetes", "--token-review"])
            .args(more)
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
        let (status, _, body) = self.whole(path, token, "");
        (status, body)
    }

    /// Status and head of an answer to who has a tag already.
    fn ask_with(&self, path: &str, token: &str, tag: &str) -> (u16, String) {
        let (status, head, _) = self.whole(path, token, tag);
        (status, head)
    }

    fn whole(&self, path: &str, token: &str, tag: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.at).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\nif-none-match: {tag}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
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

#[test]
fn one_replica_writes_what_documents_do_and_another_goes_on() {
    let api = Api::default();
    fill(&api);
    let at = api.start();
    let first = Control::with(at, &["--write-status"]);
    until("the lease is taken", || api.holder().is_some());
    let mine = api.holder();
    let second = Control::with(at, &["--write-status"]);
    until("the second is ready", || second.ask("/ready", "").0 == 200);
    // A sidecar of the namespace has what there is.
    let tag = tag_of(&first, "shop");
    let hear =
        || first.ask_with("/v1/rules?namespace=shop&pod=web-1&wait=1", "token-of-shop", &tag);
    let status = || api.object(ROUTERS, "shop/orders").map(|it| it["status"].clone());
    until("it is counted", || {
        hear();
        status().is_some_and(|it| it["sidecars"] == 1)
    });
    let told = status().unwrap();
    let condition = &told["conditions"][0];
    assert_eq!(
        (condition["type"].as_str(), condition["status"].as_str()),
        (Some("Accepted"), Some("True"))
    );
    assert!(condition["lastTransitionTime"].as_str().is_some_and(|it| it.ends_with('Z')), "{told}");
    assert!(told["does"].to_string().contains("to orders/v1 (20 %)"), "{told}");
    assert_eq!(told["writer"].as_str(), mine.as_deref());
    // Istio's kinds are Istio's, and what is written once is not written again.
    assert!(api.object(RULES, "shop/orders").unwrap().get("status").is_none());
    assert_eq!(tag_of(&first, "shop"), tag, "status makes no other rules");
    let leads =
        |control: &Control| control.ask("/metrics", "").1.contains("\nnetra_control_leader 1\n");
    assert!(leads(&first) && !leads(&second));
    let before = api.patches();
    thread::sleep(Duration::from_secs(6));
    assert!(api.patches() <= before + 1, "{before} then {}", api.patches());
    // A bad document says why, and that nobody runs it.
    let mut bad = router(40);
    bad["spec"]["routes"][0]["route"][0]["weight"] = 99.into();
    api.put(ROUTERS, bad);
    until("it is not accepted", || {
        status().is_some_and(|it| {
            let condition = &it["conditions"][0];
            condition["status"] == "False"
                && condition["message"].as_str().is_some_and(|it| it.contains("weight"))
                && it["sidecars"] == 0
        })
    });
    // Killed, not asked to go: its lease runs out, and the other writes.
    drop(first);
    until("another has the lease", || api.holder() != mine);
    api.put(ROUTERS, router(50));
    until("the other writes", || {
        status().is_some_and(|it| {
            it["writer"].as_str() != mine.as_deref() && it["conditions"][0]["status"] == "True"
        })
    });
    assert!(leads(&second));
}

fn tag_of(control: &Control, namespace: &str) -> String {
    let path = format!("/v1/rules?namespace={namespace}&wait=0");
    let head = control.ask_with(&path, &format!("token-of-{namespace}"), "").1;
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: "));
    tag.unwrap_or_default().to_owned()
}

/// `NETRA_GOLDEN=write` writes them anew; look at the difference before you commit it.
#[test]
fn the_definitions_that_are_shipped_are_those_that_the_program_prints() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/kubernetes");
    for (file, args) in [("crds.yaml", &["crds"][..]), ("crds-istio.yaml", &["crds", "--istio"])] {
        let output = Command::new(env!("CARGO_BIN_EXE_netra-control")).args(args).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let made = format!("# Made by: netra-control {}\n{printed}", args.join(" "));
        let path = folder.join(file);
        if std::env::var_os("NETRA_GOLDEN").is_some() {
            fs::write(&path, &made).unwrap();
        }
        assert!(fs::read_to_string(&path).unwrap() == made, "{file} is not what is printed");
        // Names of kinds are as the sources ask for them.
        assert!(printed.contains("kind: \"CustomResourceDefinition\""));
    }
    let own = fs::read_to_string(folder.join("crds.yaml")).unwrap();
    let list = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    for (plural, group) in
        [(list(ROUTERS), "metaprotocol.aeraki.io"), (list(AUTHORIZATIONS), "netra.io")]
    {
        assert!(own.contains(&format!("name: \"{plural}.{group}\"")), "{plural}");
    }
}
