//! Aeraki's demos from a cluster's documents: an API server, netra-control, a sidecar, and clients and
//! servers that nobody here wrote. What each demo is for holds, and its document says who runs it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may sleep and lock")]

#[path = "../control/tests/support/api.rs"]
mod api;
mod support;

use api::Api;
use serde_json::{Value, json};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Stdio},
};
use support::{
    PATIENCE,
    matrix::{Cell, Driver},
    netra::{ADMIN_PORT, Backend, Netra, Setup, apply_rules},
    programs::{Server, run, tool},
    scrape,
    spans::python_path,
    wait_until,
    world::{CLIENT_V4, Namespace, POD_V4, World, ip},
};

const CONTROL: u16 = 14960;
const NAMESPACE: &str = "demo";
const INTERFACE: &str = "org.apache.dubbo.samples.basic.api.DemoService";
const DUBBO: &str = "org.apache.dubbo.samples.basic.api.demoservice";
const THRIFT: &str = "thrift-sample-server.meta-thrift.svc.cluster.local";

/// Addresses of two versions of a provider, and the one that its ServiceEntry says, which nobody has.
const V1: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 11);
const V2: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 12);
const VIRTUAL: &str = "240.240.0.20";

const ROUTERS: &str = "/apis/metaprotocol.aeraki.io/v1alpha1/metarouters";
const REDIS_SERVICES: &str = "/apis/redis.aeraki.io/v1alpha1/redisservices";
const DESTINATION_RULES: &str = "/apis/networking.istio.io/v1/destinationrules";
const SERVICE_ENTRIES: &str = "/apis/networking.istio.io/v1/serviceentries";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const PODS: &str = "/api/v1/pods";

/// A cluster, its netra-control, and a sidecar in the pod.
struct Cluster<'w> {
    world: &'w World,
    api: Api,
    control: Child,
}

impl<'w> Cluster<'w> {
    fn start(world: &'w World) -> Self {
        let api = Api::default();
        let at = world.client.enter(|| api.start());
        let config = world.dir().join("kubeconfig");
        fs::write(&config, api::kubeconfig(at)).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_netra")).with_file_name("netra-control");
        assert!(program.exists(), "cargo build --workspace first");
        let listen = SocketAddr::from((CLIENT_V4, CONTROL)).to_string();
        let log = fs::File::create(world.dir().join("control.log")).unwrap();
        let mut command = world.client.command(program);
        command.args(["serve", "--kubernetes", "--token-review", "--write-status", "--listen"]);
        command.arg(listen).env("KUBECONFIG", config).stdout(Stdio::null()).stderr(log);
        let control = command.spawn().unwrap();
        // The second version listens on another port of the same host.
        ip(&world.client, &format!("addr add {V1}/24 dev eth0\naddr add {V2}/24 dev eth0\n"));
        let nft = "add table ip demo; add chain ip demo pre { type nat hook prerouting priority dstnat; }";
        run(&world.client, &tool("nft", "nftables"), &[nft]);
        Self { world, api, control }
    }

    /// Calls to a port of the second version come to another one.
    fn second_on(&self, port: u16, other: u16) {
        let rule =
            format!("add rule ip demo pre ip daddr {V2} tcp dport {port} redirect to :{other}");
        run(&self.world.client, &tool("nft", "nftables"), &[&rule]);
    }

    fn put(&self, list: &str, group: &str, kind: &str, name: &str, spec: Value) {
        self.api.put(list, object(group, kind, name, spec));
    }

    /// Pods of a provider, and its service as Aeraki's demos have it: by a selector, with the
    /// protocol in the port's name.
    fn provider(&self, host: &str, protocol: &str, port: u16, pods: &[(&str, IpAddr)]) {
        for (version, address) in pods {
            let mut pod =
                object("v1", "Pod", &format!("provider-{version}"), json!({"containers": []}));
            pod["metadata"]["labels"] = json!({"app": "provider", "version": version});
            pod["status"] = json!({"phase": "Running", "podIP": address.to_string()});
            self.api.put(PODS, pod);
        }
        let spec = json!({"addresses": [VIRTUAL], "hosts": [host], "resolution": "STATIC",
            "ports": [{"number": port, "name": format!("tcp-metaprotocol-{protocol}"), "protocol": "TCP"}],
            "workloadSelector": {"labels": {"app": "provider"}}});
        let mut entry = object("networking.istio.io/v1", "ServiceEntry", "provider", spec);
        if protocol == "dubbo" {
            entry["metadata"]["annotations"] = json!({"interface": INTERFACE});
        }
        self.api.put(SERVICE_ENTRIES, entry);
        self.versions(host, json!({}));
    }

    /// Both versions, and what else the DestinationRule says.
    fn versions(&self, host: &str, policy: Value) {
        let subset = |name: &str| json!({"name": name, "labels": {"version": name}});
        let spec =
            json!({"host": host, "trafficPolicy": policy, "subsets": [subset("v1"), subset("v2")]});
        self.put(DESTINATION_RULES, "networking.istio.io/v1", "DestinationRule", "provider", spec);
    }

    /// The MetaRouter, which is another one from now on; with a route of this name.
    fn router(&self, netra: &Netra<'_>, host: &str, name: &str, rest: Value) {
        let mut spec = json!({"hosts": [host]});
        for (key, value) in rest.as_object().unwrap() {
            spec[key] = value.clone();
        }
        if let Some(route) = spec.pointer_mut("/routes/0") {
            route["name"] = name.into();
        }
        let group = "metaprotocol.aeraki.io/v1alpha1";
        self.put(ROUTERS, group, "MetaRouter", "demo", spec);
        self.is_obeyed(netra, name);
    }

    /// Waits until the sidecar's page of rules has a word, and every subset its endpoints: documents
    /// and endpoints come by watches of their own, in any order.
    fn is_obeyed(&self, netra: &Netra<'_>, word: &str) {
        let page = || scrape::get(&self.world.pod, ADMIN_PORT, "/rules").map(|it| it.1);
        let is_whole =
            |page: &str| page.contains(word) && !page.contains("messages for it are refused");
        let has = || page().is_ok_and(|page| is_whole(&page));
        let log = || fs::read_to_string(self.world.dir().join("control.log"));
        assert!(wait_until(PATIENCE, has), "{word}: {:?}\n{:?}\n{}", page(), log(), netra.log());
    }

    /// Waits until a cluster of the sidecar has this endpoint.
    fn is_known(&self, address: IpAddr) {
        let page = || scrape::get(&self.world.pod, ADMIN_PORT, "/clusters").map(|it| it.1);
        let has = || page().is_ok_and(|page| page.contains(&address.to_string()));
        assert!(wait_until(PATIENCE, has), "{address}: {:?}", page());
    }

    /// What `kubectl get` shows of a document: whether it is accepted, and how many run it.
    fn is_told(&self, list: &str, name: &str) {
        let status = || {
            let found = self.api.object(list, &format!("{NAMESPACE}/{name}"));
            found.map(|it| it["status"].clone()).unwrap_or_default()
        };
        let is_good = || {
            let status = status();
            status["conditions"][0]["status"] == "True" && status["sidecars"] == 1
        };
        assert!(wait_until(PATIENCE * 4, is_good), "{}", status());
    }

    /// A sidecar of this namespace, with a token of its service account.
    fn sidecar(&self, protocols: &str) -> Netra<'w> {
        let token = self.world.dir().join("token");
        fs::write(&token, format!("token-of-{NAMESPACE}")).unwrap();
        apply_rules(self.world, Backend::NftNative);
        let setup = Setup::new(Cell { driver: Driver::Epoll, shards: 2 })
            .env("NETRA_PROTOCOLS", protocols)
            .env("NETRA_REPORTER", "none")
            .env("NETRA_RULES_URL", format!("http://{CLIENT_V4}:{CONTROL}"))
            .env("NETRA_RULES_NAMESPACE", NAMESPACE)
            .env("NETRA_RULES_TOKEN_FILE", token.display())
            .env("NETRA_RULES_CACHE", self.world.dir().join("cache.yaml").display());
        Netra::start(self.world, &setup)
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        let _ = self.control.kill();
        let _ = self.control.wait();
    }
}

fn object(group: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

fn to(host: &str, subset: &str, weight: u32) -> Value {
    json!({"destination": {"host": host, "subset": subset}, "weight": weight})
}

fn peer(name: &str) -> String {
    format!("{}/tests/support/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn dubbo_server(world: &World, namespace: &Namespace, port: u16, greeting: &str) -> Server {
    let mut command = namespace.command(python_path());
    command.args([&peer("dubbo_peer.py"), "server", &port.to_string(), greeting]);
    Server::start(world, namespace, command, port)
}

/// Calls of dubbo-py over one connection: each answer with its number.
fn dubbo(from: &Namespace, host: &str, count: u32, method: &str, attachments: &[&str]) -> String {
    let count = count.to_string();
    let script = peer("dubbo_peer.py");
    let args = [&script[..], "calls", host, "20880", &count, method];
    run(from, &python_path(), &[&args[..], attachments].concat())
}

/// What a client gets for so many calls of a method with these attachments.
type Calls<'c> = &'c dyn Fn(u32, &str, &[&str]) -> String;

fn attributes(cluster: &Cluster<'_>, netra: &Netra<'_>, calls: Calls<'_>) {
    let router =
        |name: &str, routes: Value| cluster.router(netra, DUBBO, name, json!({"routes": routes}));
    for (name, test, method, expected) in [
        ("exactly", json!({"exact": "sayHello"}), "sayHello", "5 v2 joe\n"),
        ("begins", json!({"prefix": "say"}), "sayHello", "5 v2 joe\n"),
        ("regular", json!({"regex": "^s.*o$"}), "sayHello", "5 v2 joe\n"),
        ("whole", json!({"regex": "^s.*l$"}), "sayHello", "5 refused\n"),
    ] {
        let fits = json!({"attributes": {"method": test}});
        router(name, json!([{"match": fits, "route": [to(DUBBO, "v2", 100)]}]));
        assert_eq!(calls(5, method, &[]), expected, "{name}");
    }
}

fn hashed(cluster: &Cluster<'_>, netra: &Netra<'_>, calls: Calls<'_>) {
    let router =
        |name: &str, routes: Value| cluster.router(netra, DUBBO, name, json!({"routes": routes}));
    // The same method goes to the same endpoint, whatever its connection.
    cluster
        .versions(DUBBO, json!({"loadBalancer": {"consistentHash": {"httpHeaderName": "method"}}}));
    router("hashed", json!([{"route": [{"destination": {"host": DUBBO}}]}]));
    cluster.is_obeyed(netra, "hash");
    let first = calls(3, "sayHello", &[]);
    assert!(first == "3 v1 joe\n" || first == "3 v2 joe\n", "{first}");
    for _ in 0..4 {
        assert_eq!(calls(3, "sayHello", &[]), first);
    }
}

/// metarouter-v1, traffic-split, metarouter-header-mutation, metarouter-attribute-*, consistent-hash-lb
/// and serviceentry of metaprotocol-dubbo.
#[test]
fn demos_of_dubbo_at_the_consumer() {
    let Some(world) = World::new() else { return };
    let cluster = Cluster::start(&world);
    let _servers = [
        dubbo_server(&world, &world.client, 20880, "v1"),
        dubbo_server(&world, &world.client, 20881, "v2"),
    ];
    cluster.second_on(20880, 20881);
    cluster.provider(DUBBO, "dubbo", 20880, &[("v1", V1.into()), ("v2", V2.into())]);
    let netra = cluster.sidecar("20880=dubbo");
    let calls = |count: u32, method: &str, attachments: &[&str]| {
        dubbo(&world.pod, &V1.to_string(), count, method, attachments)
    };
    let fits = json!({"attributes": {"interface": {"exact": INTERFACE}, "method": {"exact": "sayHello"},
        "foo": {"exact": "bar"}}});
    let router =
        |name: &str, routes: Value| cluster.router(&netra, DUBBO, name, json!({"routes": routes}));

    router("version", json!([{"match": fits, "route": [to(DUBBO, "v1", 100)]}]));
    assert_eq!(calls(10, "sayHello", &["foo=bar"]), "10 v1 joe\n");
    assert_eq!(calls(3, "sayHello", &[]), "3 refused\n");

    router("split", json!([{"match": fits, "route": [to(DUBBO, "v1", 20), to(DUBBO, "v2", 80)]}]));
    assert_eq!(calls(100, "sayHello", &["foo=bar"]), "20 v1 joe\n80 v2 joe\n");

    let given = json!([{"key": "foo", "value": "bar"}, {"key": "foo1", "value": "bar1"}]);
    router("given", json!([{"requestMutation": given, "route": [to(DUBBO, "v1", 100)]}]));
    assert_eq!(calls(2, "attached:foo", &["foo=else"]), "2 foo=bar\n");
    assert_eq!(calls(2, "attached:foo1", &[]), "2 foo1=bar1\n");

    attributes(&cluster, &netra, &calls);
    cluster.is_told(ROUTERS, "demo");
    hashed(&cluster, &netra, &calls);
    netra.end().unwrap();
}

/// metarouter-local-ratelimit of metaprotocol-dubbo.
#[test]
fn demos_of_dubbo_at_the_provider() {
    let Some(world) = World::new() else { return };
    let cluster = Cluster::start(&world);
    let _server = dubbo_server(&world, &world.pod, 20880, "v1");
    cluster.provider(DUBBO, "dubbo", 20880, &[("v1", POD_V4)]);
    let netra = cluster.sidecar("20880=dubbo");
    let bucket = |count: u32, time: &str| json!({"maxTokens": count, "tokensPerFill": count, "fillInterval": time});
    let limit = json!({"tokenBucket": bucket(10, "60s"), "conditions": [
        {"match": {"attributes": {"method": {"exact": "sayHello"}}}, "tokenBucket": bucket(2, "30s")}]});
    let routes = json!([{"route": [to(DUBBO, "v1", 100)]}]);
    cluster.router(&netra, DUBBO, "limit0", json!({"localRateLimit": limit, "routes": routes}));
    let host = POD_V4.to_string();
    let calls = |count: u32, method: &str| dubbo(&world.client, &host, count, method, &[]);
    assert_eq!(calls(5, "sayHello"), "3 refused\n2 v1 joe\n");
    assert_eq!(calls(15, "echo:7"), "10 7\n5 refused\n");
    cluster.is_told(ROUTERS, "demo");
    netra.end().unwrap();
}

/// metarouter-v1, traffic-split and metarouter-local-ratelimit of metaprotocol-thrift.
#[test]
fn demos_of_thrift() {
    let Some(world) = World::new() else { return };
    let cluster = Cluster::start(&world);
    let server = |namespace: &Namespace, port: u16, greeting: &str| {
        let mut command = namespace.command(python_path());
        command.args([&peer("thrift_peer.py"), "server", "0.0.0.0", &port.to_string()]);
        command.args(["framed", "binary", greeting]);
        Server::start(&world, namespace, command, port)
    };
    let _servers = [server(&world.client, 9090, "v1"), server(&world.client, 9091, "v2")];
    let _own = server(&world.pod, 9090, "own");
    cluster.second_on(9090, 9091);
    cluster.provider(THRIFT, "thrift", 9090, &[("v1", V1.into()), ("v2", V2.into())]);
    let netra = cluster.sidecar("9090=thrift");
    let calls = |from: &Namespace, host: &str, count: u32, method: &str| {
        let count = count.to_string();
        let script = peer("thrift_peer.py");
        let args = [&script[..], "calls", host, "9090", "framed", "binary", &count, method];
        run(from, &python_path(), &args)
    };
    let there = V1.to_string();
    let fits = |method: &str| json!({"attributes": {"method": {"exact": method}}});
    let router = |name: &str, rest: Value| cluster.router(&netra, THRIFT, name, rest);

    router(
        "version",
        json!({"routes": [{"match": fits("hello"), "route": [to(THRIFT, "v1", 100)]}]}),
    );
    assert_eq!(calls(&world.pod, &there, 10, "hello"), "10 v1 joe 0 0\n");
    assert_eq!(calls(&world.pod, &there, 1, "told"), "1 refused\n");

    let both = json!([to(THRIFT, "v1", 20), to(THRIFT, "v2", 80)]);
    router("split", json!({"routes": [{"match": fits("hello"), "route": both}]}));
    assert_eq!(calls(&world.pod, &there, 100, "hello"), "20 v1 joe 0 0\n80 v2 joe 0 0\n");

    // Of calls to this pod, which is another of its endpoints now.
    cluster.provider(THRIFT, "thrift", 9090, &[("v1", POD_V4)]);
    let bucket = |count: u32, time: &str| json!({"maxTokens": count, "tokensPerFill": count, "fillInterval": time});
    let limit = json!({"tokenBucket": bucket(5, "60s"),
        "conditions": [{"match": fits("hello"), "tokenBucket": bucket(2, "30s")}]});
    let routes = json!([{"route": [to(THRIFT, "v1", 100)]}]);
    router("limit0", json!({"localRateLimit": limit, "routes": routes}));
    let own = POD_V4.to_string();
    assert_eq!(calls(&world.client, &own, 6, "hello"), "2 own joe 0 0\n4 refused\n");
    assert_eq!(calls(&world.client, &own, 8, "told"), "5 False\n3 refused\n");
    cluster.is_told(ROUTERS, "demo");
    netra.end().unwrap();
}

/// routing and fault-injection of redis, from Services.
#[test]
fn demos_of_redis() {
    let Some(world) = World::new() else { return };
    let cluster = Cluster::start(&world);
    let server = |port: u16| {
        let mut command = world.client.command(tool("redis-server", "redis-server"));
        command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--protected-mode", "no", "--bind", "0.0.0.0", "--dir", "/"]);
        Server::start(&world, &world.client, command, port)
    };
    let _servers = [server(6379), server(6380)];
    cluster.second_on(6379, 6380);
    for (name, address) in [("redis", V1), ("redis-new", V2)] {
        let ports = json!([{"name": "tcp-redis", "port": 6379}]);
        let spec = json!({"clusterIPs": [address.to_string()], "ports": ports});
        cluster.put(SERVICES, "v1", "Service", name, spec);
        let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", name, Value::Null);
        slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": name});
        slice["addressType"] = "IPv4".into();
        slice["ports"] = ports;
        slice["endpoints"] =
            json!([{"addresses": [address.to_string()], "conditions": {"ready": true}}]);
        cluster.api.put(SLICES, slice);
    }
    let netra = cluster.sidecar("6379=redis");
    let host = |name: &str| format!("{name}.{NAMESPACE}.svc.cluster.local");
    let service = |rest: Value| {
        let mut spec = json!({"host": [host("redis")]});
        for (key, value) in rest.as_object().unwrap() {
            spec[key] = value.clone();
        }
        cluster.put(REDIS_SERVICES, "redis.aeraki.io/v1alpha1", "RedisService", "demo", spec);
    };
    let redis = |from: &Namespace, port: u16, args: &[&str]| {
        let (at, port) = (V1.to_string(), port.to_string());
        let all = [&["-h", &at, "-p", &port], args].concat();
        run(from, &tool("redis-cli", "redis-tools"), &all).trim_end().to_owned()
    };
    for (port, who) in [(6379, "one"), (6380, "two")] {
        redis(&world.client, port, &["MSET", "new:who", who, "old:who", who]);
    }
    service(json!({"redis": [
        {"match": {"key": {"prefix": "new:"}}, "route": {"host": host("redis-new")}},
        {"route": {"host": host("redis")}}]}));
    cluster.is_obeyed(&netra, "redis-new");
    cluster.is_known(V2.into());
    assert_eq!(redis(&world.pod, 6379, &["GET", "new:who"]), "two");
    assert_eq!(redis(&world.pod, 6379, &["GET", "old:who"]), "one");
    cluster.is_told(REDIS_SERVICES, "demo");

    service(
        json!({"faults": [{"type": "ERROR", "percentage": {"value": 50}, "commands": ["GET"]}]}),
    );
    cluster.is_obeyed(&netra, "fault0");
    let said = redis(&world.pod, 6379, &["-r", "400", "GET", "old:who"]);
    let good = said.lines().filter(|line| *line == "one").count();
    assert!((140..=260).contains(&good), "{good} of 400\n{said}");
    let said = redis(&world.pod, 6379, &["-r", "50", "SET", "old:who", "one"]);
    assert!(said.lines().all(|line| line == "OK"), "{said}");
    netra.end().unwrap();
}
