use super::*;
use crate::world::{Endpoint, Port};

/// What a namespace's sidecars get.
struct Bundle {
    parts: Vec<Part>,
}

fn scope(world: &World, namespace: &str, names: &Names) -> Bundle {
    Bundle { parts: Index::of(world, names).select(world, namespace, names).parts(names) }
}

fn names() -> Names {
    Names { domain: "cluster.local".to_owned(), root_namespace: "netra".to_owned() }
}

fn document(kind: &str, namespace: &str, name: &str, spec: Value) -> Arc<Document> {
    let value = json!({"apiVersion": "v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": "u"}, "spec": spec, "status": {}});
    Arc::new(Document::new(&format!("{kind} {namespace}/{name}"), value).unwrap())
}

fn workload(address: &str, namespace: &str, account: &str, version: &str) -> Workload {
    Workload {
        address: address.parse().unwrap(),
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        labels: BTreeMap::from([("version".to_owned(), version.to_owned())]),
    }
}

fn orders() -> Service {
    Service {
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        addresses: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![Port { number: 20880, name: "rpc".to_owned(), app_protocol: String::new() }],
        endpoints: vec![Endpoint {
            address: "10.0.0.1".to_owned(),
            ports: BTreeMap::from([("rpc".to_owned(), 20881)]),
            labels: BTreeMap::from([("version".to_owned(), "v1".to_owned())]),
        }],
    }
}

/// The documents of a bundle, by kind and name.
fn parts(bundle: &Bundle) -> BTreeMap<String, Value> {
    bundle
        .parts
        .iter()
        .map(|part| {
            let value: Value = serde_json::from_str(&part.text).unwrap();
            let name = value["metadata"]["name"].as_str().unwrap();
            (format!("{} {name}", value["kind"].as_str().unwrap()), value)
        })
        .collect()
}

#[test]
fn exports_say_who_sees_a_router() {
    let router = |name: &str, to: Value| {
        document("MetaRouter", "shop", name, json!({"hosts": [name], "exportTo": to}))
    };
    let world = World {
        documents: vec![
            router("all", json!([])),
            router("star", json!(["*"])),
            router("own", json!(["."])),
            router("pay", json!(["pay"])),
        ],
        ..World::default()
    };
    let seen = |namespace: &str| {
        parts(&scope(&world, namespace, &names())).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(seen("shop"), ["MetaRouter all", "MetaRouter own", "MetaRouter star"]);
    assert_eq!(seen("pay"), ["MetaRouter all", "MetaRouter pay", "MetaRouter star"]);
    assert_eq!(seen("else"), ["MetaRouter all", "MetaRouter star"]);
    let text = text(&scope(&world, "shop", &names()).parts);
    assert!(!text.contains("exportTo") && !text.contains("uid") && !text.contains("status"));
}

#[test]
fn a_service_comes_with_the_rules_that_speak_of_it() {
    let route = json!({"hosts": ["orders"],
        "routes": [{"name": "r", "route": [{"destination": {"host": "orders", "subset": "v1"}}]}]});
    let mut world = World {
        documents: vec![document("MetaRouter", "shop", "orders", route)],
        services: vec![Arc::new(orders())],
        ..World::default()
    };
    let entry = parts(&scope(&world, "shop", &names()))["ServiceEntry orders"].clone();
    assert_eq!(entry["spec"]["hosts"], json!(["orders", "orders.shop.svc.cluster.local"]));
    assert_eq!(entry["spec"]["addresses"], json!(["10.96.0.7"]));
    assert_eq!(entry["spec"]["endpoints"][0]["ports"], json!({"rpc-20880": 20881}));
    assert_eq!(entry["spec"]["endpoints"][0]["labels"], json!({"version": "v1"}));
    // The short name is of the namespace: elsewhere it means another service.
    let elsewhere = parts(&scope(&world, "pay", &names()));
    assert!(!elsewhere.contains_key("ServiceEntry orders"), "{elsewhere:?}");
    // A port that says what is spoken concerns everybody.
    for (name, app_protocol) in [("rpc", "kubernetes.io/dubbo"), ("dubbo-orders", "")] {
        let port = &mut Arc::make_mut(&mut world.services[0]).ports[0];
        (port.name, port.app_protocol) = (name.to_owned(), app_protocol.to_owned());
        let entry = parts(&scope(&world, "pay", &names()))["ServiceEntry orders"].clone();
        assert_eq!(entry["spec"]["ports"][0]["name"], "tcp-metaprotocol-dubbo-20880");
    }
}

#[test]
fn selectors_become_endpoints() {
    let entry = json!({"hosts": ["a.demo"], "ports": [{"number": 1, "name": "tcp-x"}],
        "workloadSelector": {"labels": {"version": "v2"}}});
    let world = World {
        documents: vec![document("ServiceEntry", "shop", "a", entry)],
        workloads: Arc::new(vec![
            workload("10.0.0.1", "shop", "web", "v1"),
            workload("10.0.0.2", "shop", "web", "v2"),
            workload("10.0.0.3", "pay", "web", "v2"),
        ]),
        ..World::default()
    };
    let spec = parts(&scope(&world, "shop", &names()))["ServiceEntry a"]["spec"].clone();
    assert_eq!(spec["endpoints"], json!([{"address": "10.0.0.2", "labels": {"version": "v2"}}]));
    assert!(spec.get("workloadSelector").is_none());
}

#[test]
fn askers_become_addresses_and_nobody_is_not_everybody() {
    let from =
        |from: Value| document("Authorization", "shop", "a", json!({"rules": [{"from": [from]}]}));
    let workloads = Arc::new(vec![
        workload("10.0.0.1", "shop", "web", "v1"),
        workload("10.0.0.2", "pay", "batch", "v1"),
        workload("fd00::1", "pay", "web", "v1"),
    ]);
    let cidrs = |asker: Value| {
        let documents = vec![from(asker)];
        let world = World { documents, workloads: workloads.clone(), ..World::default() };
        let spec = parts(&scope(&world, "shop", &names()))["Authorization a"]["spec"].clone();
        spec["rules"][0]["from"][0].clone()
    };
    let rows = [
        (json!({"namespaces": ["pay"]}), json!({"cidrs": ["10.0.0.2/32", "fd00::1/128"]})),
        (json!({"serviceAccounts": ["shop/web"]}), json!({"cidrs": ["10.0.0.1/32"]})),
        (
            json!({"namespaces": ["pay"], "serviceAccounts": ["pay/web"]}),
            json!({"cidrs": ["fd00::1/128"]}),
        ),
        (json!({"namespaces": ["gone"]}), json!({"cidrs": [NOBODY]})),
        (
            json!({"namespaces": ["pay"], "cidrs": ["10.0.0.0/8"]}),
            json!({"cidrs": ["10.0.0.2/32"]}),
        ),
        (json!({"namespaces": ["pay"], "cidrs": ["11.0.0.0/8"]}), json!({"cidrs": [NOBODY]})),
        (json!({"cidrs": ["11.0.0.0/8"]}), json!({"cidrs": ["11.0.0.0/8"]})),
    ];
    for (asker, wanted) in rows {
        assert_eq!(cidrs(asker.clone()), wanted, "{asker}");
    }
}

#[test]
fn authorizations_are_of_a_namespace_or_of_the_root() {
    let world = World {
        documents: vec![
            document("Authorization", "shop", "own", json!({"rules": []})),
            document("DubboAuthorizationPolicy", "pay", "other", json!({"rules": []})),
            document("Authorization", "netra", "root", json!({"rules": []})),
        ],
        ..World::default()
    };
    let bundle = scope(&world, "shop", &names());
    let got: Vec<_> = parts(&bundle).into_keys().collect();
    assert_eq!(got, ["Authorization own", "Authorization root"]);
    let why = |place: &str| {
        let reasons = reasons(&world, "shop", &names());
        reasons.iter().find(|it| it.place.contains(place)).unwrap().why.clone()
    };
    assert_eq!(why("pay/other"), "an authorization of another namespace");
}

#[test]
fn the_order_of_the_source_does_not_matter() {
    let documents: Vec<Arc<Document>> = ["b", "a", "c"]
        .map(|name| document("MetaRouter", "shop", name, json!({"hosts": [name]})))
        .into();
    let mut other = documents.clone();
    other.reverse();
    let text = |documents: Vec<Arc<Document>>| {
        super::text(&scope(&World { documents, ..World::default() }, "shop", &names()).parts)
    };
    assert_eq!(text(documents), text(other));
}
