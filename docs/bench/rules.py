#!/usr/bin/env python3
"""What rules cost: CPU of the proxy for each request of HTTP/1, Redis, Dubbo and Thrift, netra with a route and a limit beside
netra that only reads, and beside Envoy that does the same, in turns. As root, with nginx, h2load, redis and gcc, Envoy if
ENVOY names one, and rpc.c (a server and closed-loop client of Dubbo and Thrift) if RPC_C names it:

    cargo build --release -p netra -p netra-init && RPC_C=.../rpc.c ENVOY=.../envoy docs/bench/rules.py

A pod (a network namespace) for each subject, with a server of each protocol in it, and one namespace for the load. The
limit is of calls to the pod, so that is measured from outside; the route is of calls of the pod, so its load is in
the pod and its servers outside. Envoy does both in each place: dialled by the load, and as a sidecar, whose connections are redirected as
netra's are, for what the rules of the kernel cost each packet is the proxy's CPU. One worker each. ROUNDS=3, CALLS=100000.
"""
import os, shutil, statistics, subprocess, sys, time

sys.dont_write_bytecode = True
import stage
from stage import BIN, DIR, cpu, nginx, sh, spaces, start, write

ENVOY = os.environ.get("ENVOY") or shutil.which("envoy")
RPC_C = os.environ.get("RPC_C")
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CALLS = int(os.environ.get("CALLS", "100000"))
UID = 1337
OUTSIDE = "nrload"
PORTS = {"http1": 8080, "redis": 6379, "dubbo": 20880, "thrift": 9090}
RPC = [protocol for protocol in ["dubbo", "thrift"] if RPC_C]
ENVOY_PORTS = {protocol: port + 10000 for protocol, port in PORTS.items()}


def protocols():
    return ["http1", "redis", *RPC]


def servers(space):
    nginx(space, f"""server {{ listen {PORTS['http1']} reuseport; location / {{ return 200 "hello"; }} }}""")
    start(space, ["redis-server", "--port", str(PORTS["redis"]), "--save", "", "--appendonly", "no",
                  "--protected-mode", "no", "--bind", "0.0.0.0", "--dir", DIR])
    for protocol in RPC:
        start(space, [f"{DIR}/rpc", "server", str(PORTS[protocol]), protocol])


def pod(number):
    """A namespace that the load reaches; its name, its address, and that of the load."""
    name = stage.space_beside(OUTSIDE, "nr", number, "10.98")
    servers(name)
    return name, f"10.98.{number}.2", f"10.98.{number}.1"


HOSTS = {"http1": "svc", "redis": "cache", "dubbo": "org.apache.dubbo.demo.demosvc", "thrift": "hello"}
ATTRIBUTES = {"http1": "X-Canary: {exact: \"1\"}", "redis": "key: {prefix: \"key:\"}",
              "dubbo": "method: {exact: sayHello}", "thrift": "method: {exact: hello}"}
NAMES = {"http1": "http-svc", "redis": "tcp-redis", "dubbo": "tcp-metaprotocol-dubbo", "thrift": "tcp-metaprotocol-thrift"}


def rules(address, outside):
    """A route of what goes outside, and a limit that is never met of what comes here."""
    text = ""
    for protocol in protocols():
        for host, to in [(HOSTS[protocol], outside), ("own" + protocol, address)]:
            text += f"""apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {host}}}
spec:
  hosts: [{host}]
  ports: [{{number: {PORTS[protocol]}, name: {NAMES[protocol]}}}]
  resolution: STATIC
  endpoints: [{{address: {to}}}]
---
"""
        text += f"""apiVersion: netra.io/v1alpha1
kind: Router
metadata: {{name: route-{protocol}}}
spec:
  hosts: [{HOSTS[protocol]}]
  protocol: {protocol}
  routes:
  - match: {{attributes: {{{ATTRIBUTES[protocol]}}}}}
    route: [{{destination: {{host: {HOSTS[protocol]}}}}}]
---
apiVersion: netra.io/v1alpha1
kind: Router
metadata: {{name: limit-{protocol}}}
spec:
  hosts: [own{protocol}]
  protocol: {protocol}
  localRateLimit:
    tokenBucket: {{maxTokens: 4000000000, tokensPerFill: 4000000000, fillInterval: 1s}}
---
"""
    return text


def netra(space, documents):
    stage.intercept(space, UID)
    named = ",".join(f"{PORTS[protocol]}={protocol}" for protocol in protocols() if protocol != "http1")
    env = {"NETRA_SHARDS": "1", "NETRA_HTTP_PORTS": str(PORTS["http1"]), "NETRA_PROTOCOLS": named, "NETRA_REPORTER": "none"}
    if documents:
        env["NETRA_RULES"] = write(f"rules-{space}.yaml", documents)
        checked = subprocess.run([f"{BIN}/netra", "rules", "check", env["NETRA_RULES"]], capture_output=True, text=True)
        if checked.returncode:
            raise SystemExit(checked.stdout + checked.stderr)
    return start(space, [f"{BIN}/netra", "--service-name", "bench"], user=UID, env=env)


def envoy(space, to, user=None):
    """It does in each place what netra does: a route by header and a limit, a route by prefix, routes by method."""
    def cluster(protocol):
        return (f"  - {{ name: {protocol}, type: STATIC, connect_timeout: 1s, load_assignment: {{ cluster_name: {protocol}, endpoints: [ {{ "
                f"lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: {to}, port_value: {PORTS[protocol]} }} }} }} }} ] }} ] }} }}\n")

    def listener(protocol, name, config):
        return (f"  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: {ENVOY_PORTS[protocol]} }} }}\n"
                f"    filter_chains: [ {{ filters: [ {{ name: {name}, typed_config: {{ {config} }} }} ] }} ]\n")
    kind = "type.googleapis.com/envoy.extensions.filters."
    limit = ('{ name: envoy.filters.http.local_ratelimit, typed_config: { "@type": ' + kind + "http.local_ratelimit.v3.LocalRateLimit, "
             "stat_prefix: l, token_bucket: { max_tokens: 4000000000, tokens_per_fill: 4000000000, fill_interval: 1s }, "
             "filter_enabled: { default_value: { numerator: 100 } }, filter_enforced: { default_value: { numerator: 100 } } } }")
    router = '{ name: envoy.filters.http.router, typed_config: { "@type": ' + kind + "http.router.v3.Router } }"
    header = '[ { name: x-canary, string_match: { exact: "1" } } ]'
    listeners = listener("http1", "envoy.filters.network.http_connection_manager",
                         f'"@type": {kind}network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, '
                         f'http_filters: [ {limit}, {router} ], route_config: {{ virtual_hosts: [ {{ name: v, domains: ["*"], routes: [ '
                         f'{{ match: {{ prefix: "/", headers: {header} }}, route: {{ cluster: http1, timeout: 0s }} }} ] }} ] }}')
    listeners += listener("redis", "envoy.filters.network.redis_proxy",
                          f'"@type": {kind}network.redis_proxy.v3.RedisProxy, stat_prefix: r, settings: {{ op_timeout: 5s }}, '
                          'prefix_routes: { routes: [ { prefix: "key:", cluster: redis } ] }')
    if RPC:
        listeners += listener("thrift", "envoy.filters.network.thrift_proxy",
                              f'"@type": {kind}network.thrift_proxy.v3.ThriftProxy, stat_prefix: t, route_config: {{ name: r, '
                              'routes: [ { match: { method_name: hello }, route: { cluster: thrift } } ] }')
        listeners += listener("dubbo", "envoy.filters.network.dubbo_proxy",
                              f'"@type": {kind}network.dubbo_proxy.v3.DubboProxy, stat_prefix: d, protocol_type: Dubbo, '
                              'serialization_type: Hessian2, route_config: [ { name: r, interface: "*", routes: [ { match: { method: '
                              '{ name: { exact: sayHello } } }, route: { cluster: dubbo } } ] } ]')
    text = f"static_resources:\n  listeners:\n{listeners}  clusters:\n" + "".join(map(cluster, protocols()))
    return start(space, [ENVOY, "--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", write(f"envoy-{space}.yaml", text)], user=user)


def load(space, protocol, address, port):
    count = str(CALLS)
    words = {
        "http1": ["h2load", "--h1", "-n", count, "-c", "32", "-H", "X-Canary: 1", "-H", ":authority: svc", f"http://{address}:{port}/"],
        "redis": ["redis-benchmark", "-h", address, "-p", str(port), "-c", "32", "-n", count, "-q", "GET", "key:1"],
    }.get(protocol, [f"{DIR}/rpc", "client", address, str(port), protocol, "32", count])
    said = sh("ip", "netns", "exec", space, *words)
    is_good = f"{count} succeeded" if protocol == "http1" else "requests per second"
    if is_good not in said:
        raise SystemExit(f"{protocol} to {address}:{port}: not all requests succeeded:\n{said}")


def measure():
    sh("ip", "netns", "add", OUTSIDE)
    spaces.append(OUTSIDE)
    sh("ip", "-n", OUTSIDE, "link", "set", "lo", "up")
    os.chmod(DIR, 0o755)
    if RPC_C:
        sh("gcc", "-O2", "-o", f"{DIR}/rpc", RPC_C)
    servers(OUTSIDE)
    reads, decides = pod(1), pod(2)
    subjects = {}
    for name, (space, address, outside), documents in [("netra, reads", reads, ""),
                                                       ("netra, rules", decides, rules(decides[1], decides[2]))]:
        process = netra(space, documents)
        subjects[f"{name}: calls to the pod"] = (process, OUTSIDE, address, PORTS)
        subjects[f"{name}: calls of the pod"] = (process, space, outside, PORTS)
    if ENVOY:
        space, address, _ = pod(3)
        subjects["Envoy, dialled: calls to the pod"] = (envoy(space, "127.0.0.1"), OUTSIDE, address, ENVOY_PORTS)
        space, _, outside = pod(4)
        stage.intercept_by(space, UID, {PORTS[protocol]: ENVOY_PORTS[protocol] for protocol in protocols()})
        subjects["Envoy, sidecar: calls of the pod"] = (envoy(space, outside, UID), space, outside, PORTS)
    time.sleep(3)
    rows = {}
    for number in range(ROUNDS + 1):
        for protocol in protocols():
            for name, (process, space, address, ports) in subjects.items():
                before = cpu(process)
                load(space, protocol, address, ports[protocol])
                # The first round warms up.
                if number > 0:
                    rows.setdefault((protocol, name), []).append((cpu(process) - before) * 1e6 / CALLS)
    return subjects, rows


def show(subjects, rows):
    print("| protocol | subject | CPU us a request (each round) | to netra that reads |\n|---|---|--:|--:|")
    for protocol in protocols():
        for name in subjects:
            each = rows[protocol, name]
            where = name.split(": ")[1]
            base = statistics.median(rows[protocol, f"netra, reads: {where}"])
            mid = statistics.median(each)
            print(f"| {protocol} | {name} | {mid:.2f} ({', '.join(f'{value:.2f}' for value in each)}) | {mid / base:.2f} |")


if __name__ == "__main__":
    stage.run(lambda: show(*measure()))
