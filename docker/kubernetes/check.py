#!/usr/bin/env python3
"""Checks every manifest of this folder: Kubernetes' own schemas, Helm's own renderer, and that all
ways of deployment say the same; and ../compose.yaml and ../compose-canary.yaml by the schema of the Compose specification, which
comes newer than the docker-compose that the tests run. `make manifests` runs it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import helm_python
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
# The first with native sidecars, and the newest that the package has.
NATIVE = ["1.29", "1.37"]
ANY = ["1.25", *NATIVE]
# Values that the chart's schema must refuse, and the words that its error must have.
REFUSED = [
    ({"nosuch": 1}, "nosuch"),
    ({"image": {"repository": ""}}, "repository"),
    ({"image": {"digest": "sha256:1"}}, "digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"env": {"http-ports": "80"}}, "http-ports"),
    ({"init": {"args": ["cleanup"]}}, "args"),
    ({"podMonitor": {"interval": "15"}}, "interval"),
    ({"webhook": {"args": ["classic"]}}, "args"),
]


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def validate(name, found, versions):
    for document in found:
        if document["apiVersion"].startswith(("monitoring.coreos.com", "cert-manager.io")):
            continue  # A CRD; Kubernetes has no schema of it.
        for version in versions:
            kubernetes_validate.validate(document, version, strict=True)
    print(f"good: {name}: {len(found)} objects against {', '.join(versions)}")
    return found


def containers(found):
    """Our containers by name, from the only Deployment."""
    spec = next(d for d in found if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    both = (spec.get("initContainers") or []) + spec["containers"]
    return {c["name"]: c for c in both if c["name"] in ("netra-init", "netra")}


def same(name, one, other):
    """The same containers, apart from what a user is meant to choose."""
    def plain(container):
        chosen = ("image", "imagePullPolicy", "env")
        return {key: value for key, value in container.items() if key not in chosen}
    for key in one:
        if plain(one[key]) != plain(other[key]):
            sys.exit(f"{name}: {key} differs from native.yaml:\n{one[key]}\n{other[key]}")
    print(f"good: {name}: the containers are those of netra inject")


def render(values):
    with helm_python.Chart.load(HERE / "helm/example") as chart:
        return documents("\n---\n".join(
            text for path, text in chart.render(values, name="shop", namespace="default").items()
            if path.endswith(".yaml")))


def check_helm(native, classic):
    for chart in ("netra", "example"):
        report = helm_python.lint(HERE / "helm" / chart, strict=True)
        # The library has no icon, and its dependency is a link, not a package.
        problems = [m for m in report["messages"] if m["severity"] >= 2]
        if problems or report["errors"]:
            sys.exit(f"helm lint {chart}: {json.dumps(report, indent=1)}")
    same("helm", containers(validate("helm", render({}), NATIVE)), native)
    plain = render({"netra": {"nativeSidecar": False}})
    same("helm, classic", containers(validate("helm, classic", plain, ANY)), classic)
    if containers(validate("helm, off", render({"netra": {"enabled": False}}), ANY)):
        sys.exit("helm: enabled: false leaves containers")
    everything = {"netra": {
        "env": {"NETRA_HTTP_PORTS": 8080, "NETRA_LOG_FORMAT": "json"},
        "extraEnv": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "image": {"digest": "sha256:" + "0" * 64},
        "init": {"args": ["--exclude-inbound-ports=9090"]},
        "seccomp": {"localhostProfile": "netra-seccomp.json"},
        "rules": {"configMap": "shop-rules"},
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
    }}
    found = validate("helm, everything", render(everything), NATIVE)
    kinds = sorted(document["kind"] for document in found)
    if kinds != ["Deployment", "PodMonitor", "PrometheusRule"]:
        sys.exit(f"helm: {kinds}")
    netra = containers(found)["netra"]
    if netra["env"][0] != {"name": "NETRA_SERVICE_NAME", "value": "shop"} or len(netra["env"]) != 5:
        sys.exit(f"helm: {netra['env']}")
    spec = next(it for it in found if it["kind"] == "Deployment")["spec"]["template"]["spec"]
    if netra["volumeMounts"][0]["name"] != spec["volumes"][0]["name"] or \
            spec["volumes"][0]["configMap"] != {"name": "shop-rules"} or \
            {"name": "NETRA_RULES", "value": netra["volumeMounts"][0]["mountPath"]} not in netra["env"]:
        sys.exit(f"helm: rules are not mounted where netra looks: {netra} {spec['volumes']}")
    if netra["securityContext"]["seccompProfile"]["localhostProfile"] != "netra-seccomp.json":
        sys.exit("helm: no seccomp profile")
    iptables = {"image": {"repository": "a/netra-init-iptables"}}
    for init, raw in [({}, False), ({"args": ["--backend=iptables-legacy"]}, True), (iptables, True),
                      ({**iptables, "args": ["--backend=nft-native"]}, False)]:
        made = containers(render({"netra": {"init": init}}))["netra-init"]
        if ("NET_RAW" in made["securityContext"]["capabilities"]["add"]) != raw:
            sys.exit(f"helm: NET_RAW, which old iptables alone need, is wrong with {init}")
    check_webhook()
    check_collect()
    for values, says in REFUSED:
        try:
            render({"netra": values})
        except helm_python.HelmError as error:
            if says in str(error):
                continue
            sys.exit(f"helm: {values} is refused without naming {says}: {error}")
        sys.exit(f"helm: {values} is not refused")
    print(f"good: helm: {len(REFUSED)} bad values are refused by name")


def check_webhook():
    """Fail-open, for labelled namespaces alone, and a certificate for the name that is called."""
    values = {"webhook": {"enabled": True, "args": ["--classic"]}, "env": {"NETRA_HTTP_PORTS": 8080}}
    for more, kinds in [
        ({}, ["Deployment", "Deployment", "MutatingWebhookConfiguration", "Secret", "Service"]),
        ({"certManager": True}, ["Certificate", "Deployment", "Deployment", "Issuer",
                                 "MutatingWebhookConfiguration", "Service"]),
    ]:
        netra = {**values, "webhook": {**values["webhook"], **more}}
        found = validate("helm, webhook", render({"netra": netra}), NATIVE)
        if sorted(document["kind"] for document in found) != kinds:
            sys.exit(f"helm: webhook: {[document['kind'] for document in found]}")
        hook = next(d for d in found if d["kind"] == "MutatingWebhookConfiguration")["webhooks"][0]
        if (hook["failurePolicy"], hook["namespaceSelector"]) != (
                "Ignore", {"matchLabels": {"netra.io/inject": "enabled"}}):
            sys.exit(f"helm: webhook: {hook}")
        if bool(hook["clientConfig"].get("caBundle")) == bool(more):
            sys.exit("helm: webhook: the bundle is cert-manager's, or the chart's")
        server = [d for d in found if d["metadata"]["name"] == hook["clientConfig"]["service"]["name"]]
        args = next(d for d in server if d["kind"] == "Deployment")["spec"]["template"]["spec"][
            "containers"][0]["args"]
        if args[0] != "webhook" or not {"--classic", "--env=NETRA_HTTP_PORTS=8080"} <= set(args):
            sys.exit(f"helm: webhook: {args}")
    print("good: helm: the webhook fails open, and is for labelled namespaces")


def check_collect():
    """Off unless asked for; the Service leads to ports that the container has."""
    values = {"collect": {"enabled": True, "memory": "64MB", "env": {"NETRA_COLLECT_FORWARD": "http://tempo:4318"}}}
    found = validate("helm, collect", render({"netra": values}), NATIVE)
    ours = [d for d in found if d["metadata"]["name"] == "shop-netra-collect"]
    if sorted(document["kind"] for document in ours) != ["Deployment", "Service"]:
        sys.exit(f"helm: collect: {[document['kind'] for document in found]}")
    pod = next(d for d in ours if d["kind"] == "Deployment")["spec"]["template"]
    container = pod["spec"]["containers"][0]
    if container["args"] != ["collect"]:
        sys.exit(f"helm: collect: {container['args']}")
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    wanted = {"NETRA_COLLECT_MEMORY": "64MB", "NETRA_COLLECT_PAGE_ADDRESS": "::", **values["collect"]["env"]}
    if env != wanted:
        sys.exit(f"helm: collect: {env}")
    service = next(d for d in ours if d["kind"] == "Service")["spec"]
    named = {port["name"]: (port["containerPort"], port.get("protocol")) for port in container["ports"]}
    led = {port["targetPort"]: (port["port"], port.get("protocol")) for port in service["ports"]}
    if named != led or not service["selector"].items() <= pod["metadata"]["labels"].items():
        sys.exit(f"helm: collect: the Service leads to {led}, and the container has {named}")
    print("good: helm: collect has its Service, and is off unless it is asked for")


# Of the control chart: what it may do in the cluster, and nothing else.
MAY = {"list", "watch", "patch", "create"}


def check_control():
    """Two replicas that may little, probes, and kinds whose schemas an API server takes."""
    def rendered(values):
        with helm_python.Chart.load(HERE / "helm/netra-control") as chart:
            made = chart.render(values, name="netra-control", namespace="netra-system")
        return documents("\n---\n".join(t for path, t in made.items() if path.endswith(".yaml")))
    report = helm_python.lint(HERE / "helm/netra-control", strict=True)
    if [m for m in report["messages"] if m["severity"] >= 2] or report["errors"]:
        sys.exit(f"helm lint netra-control: {json.dumps(report, indent=1)}")
    found = validate("helm, netra-control", rendered({}), NATIVE)
    one = lambda kind: next(d for d in found if d["kind"] == kind)
    spec = one("Deployment")["spec"]
    container = spec["template"]["spec"]["containers"][0]
    safe = container["securityContext"]
    if not (spec["replicas"] == 2 and safe["runAsNonRoot"] and safe["readOnlyRootFilesystem"]
            and safe["capabilities"] == {"drop": ["ALL"]} and container["livenessProbe"]
            and container["readinessProbe"] and one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1):
        sys.exit(f"helm, netra-control: {spec}")
    if one("ValidatingWebhookConfiguration")["webhooks"][0]["failurePolicy"] != "Ignore":
        sys.exit("helm, netra-control: the webhook does not fail open")
    rules = one("ClusterRole")["rules"]
    reads = {f"{r}.{g}" for rule in rules for g in rule["apiGroups"] for r in rule["resources"]
             if rule["verbs"] == ["list", "watch"]}
    if any(not set(rule["verbs"]) <= MAY or "*" in rule["resources"] + rule["apiGroups"]
           or "secrets" in rule["resources"] for rule in rules):
        sys.exit(f"helm, netra-control: it may too much: {rules}")
    kinds = [d for name in ("crds.yaml", "crds-istio.yaml") for d in documents((HERE / name).read_text())]
    validate("crds", kinds, NATIVE)
    missing = {d["metadata"]["name"] for d in kinds} - reads
    if missing:
        sys.exit(f"helm, netra-control: it may not read {missing}")
    for kind in kinds:
        for version in kind["spec"]["versions"]:
            structural(kind["metadata"]["name"], version["schema"]["openAPIV3Schema"])
    still = validate("helm, netra-control, no status", rendered({"writeStatus": False}), NATIVE)
    verbs = {v for d in still if d["kind"] in ("ClusterRole", "Role") for r in d["rules"] for v in r["verbs"]}
    if verbs != {"list", "watch", "create"} or any(d["kind"] == "Role" for d in still):
        sys.exit(f"helm, netra-control: without status it may {verbs}")
    for values, says in [({"nosuch": 1}, "nosuch"), ({"replicas": 0}, "replicas"),
                         ({"webhook": {"failurePolicy": "No"}}, "failurePolicy")]:
        try:
            rendered(values)
        except helm_python.HelmError as error:
            if says in str(error):
                continue
        sys.exit(f"helm, netra-control: {values} is not refused by name")
    print(f"good: helm, netra-control: may read {len(reads)} kinds; {len(kinds)} CRDs are structural")


def structural(path, schema):
    """What an API server asks of a schema, https://kubernetes.io/docs (structural schemas)."""
    keep = schema.get("x-kubernetes-preserve-unknown-fields")
    if "type" not in schema and not keep:
        sys.exit(f"{path}: no type")
    if any(word in schema for word in ("not", "allOf", "anyOf", "oneOf", "$ref", "const", "if")):
        sys.exit(f"{path}: not structural: {sorted(schema)}")
    if schema.get("additionalProperties") is False or {"properties", "additionalProperties"} <= set(schema):
        sys.exit(f"{path}: additionalProperties")
    for name, inner in schema.get("properties", {}).items():
        structural(f"{path}.{name}", inner)
    for word in ("items", "additionalProperties"):
        if word in schema:
            structural(f"{path}.{word}", schema[word])


def check_values():
    """Every value that one can set has its words, and its place in the schema."""
    lines = (HERE / "helm/netra/values.yaml").read_text().splitlines()
    schema = json.loads((HERE / "helm/netra/values.schema.json").read_text())["properties"]
    names = [line.split(":")[0] for line in lines if line and line[0].isalpha()]
    unknown = set(names) ^ (set(schema) - {"global"})
    if unknown:
        sys.exit(f"values.yaml and values.schema.json differ: {unknown}")
    leaves = [i for i, line in enumerate(lines)
              if line.strip() and not line.strip().startswith("#") and not line.endswith(":")]
    bare = [lines[i] for i in leaves if not lines[i - 1].strip().startswith("#")
            and not any(word in lines[i] for word in ("cpu:", "memory:"))]
    if bare:
        sys.exit(f"values.yaml: no comment above {bare}")
    print(f"good: values.yaml: {len(leaves)} values have their comments")


def check_kustomize(native):
    golden = HERE / "kustomize/example/rendered.yaml"
    if shutil.which("kubectl"):
        ran = subprocess.run(["kubectl", "kustomize", HERE / "kustomize/example"],
                             capture_output=True, text=True, check=True)
        if "--write" in sys.argv:
            golden.write_text(ran.stdout)
        if documents(ran.stdout) != documents(golden.read_text()):
            sys.exit("kustomize: rendered.yaml is not what kubectl renders; check.py --write")
        check_kustomize_rules(native)
    else:
        print("*** no kubectl here: kustomize/example/rendered.yaml is taken for what it renders ***")
    found = validate("kustomize", documents(golden.read_text()), NATIVE)
    same("kustomize", containers(found), native)


def check_kustomize_rules(native):
    with tempfile.TemporaryDirectory(dir=HERE / "kustomize") as place:
        place = pathlib.Path(place)
        (place / "kustomization.yaml").write_text(yaml.safe_dump(
            {"resources": [f"{os.pardir}/example"], "components": [f"{os.pardir}/rules"]}))
        ran = subprocess.run(["kubectl", "kustomize", place], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"kustomize, rules: {ran.stderr}")
    found = validate("kustomize, rules", documents(ran.stdout), NATIVE)
    ours = containers(found)
    if list(ours) != list(native):
        sys.exit(f"kustomize, rules: the containers are in another order: {list(ours)}")
    mounts = ours["netra"].pop("volumeMounts", [])
    spec = next(d for d in found if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    if [m["name"] for m in mounts] != [v["name"] for v in spec["volumes"]] or \
            {"name": "NETRA_RULES", "value": mounts[0]["mountPath"]} not in ours["netra"]["env"]:
        sys.exit(f"kustomize: rules are not mounted where netra looks: {ours['netra']} {spec['volumes']}")
    same("kustomize, rules", ours, native)


def check_compose():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    for name in ("compose.yaml", "compose-canary.yaml"):
        ran = subprocess.run([*check, HERE.parent / name], capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"{name}: {ran.stdout}{ran.stderr}")
        print(f"good: {name}: against the Compose specification")


def main():
    read = lambda name: documents((HERE / name).read_text())
    native = containers(validate("native.yaml", read("native.yaml"), NATIVE))
    classic = containers(validate("classic.yaml", read("classic.yaml"), ANY))
    check_helm(native, classic)
    check_values()
    check_control()
    check_kustomize(native)
    check_compose()


main()
