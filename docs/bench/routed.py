#!/usr/bin/env python3
"""What it costs to send the requests of one connection to three servers: CPU of the proxy for each request of HTTP/1, netra with
weights and traces beside nginx, HAProxy and Envoy that do the same without traces, in turns. As root, with nginx, HAProxy and
h2load, Envoy if ENVOY names one:

    cargo build --release -p netra -p netra-init && ENVOY=.../envoy docs/bench/routed.py

A pod (a network namespace) for each proxy with its load in it, and one namespace for the servers. One worker each; 32 connections, a request at a
time on each. All keep their upstream connections. The peers are there twice: as sidecars, so that connections of the load are redirected to
them as they are to netra, and dialled by the load itself: what the rules of the kernel cost each packet is the proxy's CPU. ROUNDS=3, CALLS=100000.
"""
import shutil, statistics, sys, time

sys.dont_write_bytecode = True
import stage
from h2 import SINK
from rules import CALLS, ENVOY, OUTSIDE, ROUNDS, UID
from stage import BIN, DIR, cpu, nginx, sh, spaces, start, write

SERVERS = [8081, 8082, 8083]
WEIGHTS = [34, 33, 33]
PORT = 8080


def servers(space):
    """Three servers, and the one that connections are for."""
    listens = "".join(f'server {{ listen {port}; location / {{ return 200 "hello"; }} }} ' for port in [PORT, *SERVERS])
    nginx(space, listens)


def netra(space, outside, more):
    stage.intercept(space, UID)
    endpoints = "".join(f"  - {{address: {outside}, ports: {{http: {port}}}, labels: {{v: v{port}}}}}\n" for port in SERVERS)
    subsets = "".join(f"  - {{name: v{port}, labels: {{v: v{port}}}}}\n" for port in SERVERS)
    to = "".join(f"    - {{destination: {{host: svc, subset: v{port}}}, weight: {weight}}}\n" for port, weight in zip(SERVERS, WEIGHTS))
    documents = f"""apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: svc}}
spec:
  hosts: [svc]
  ports: [{{number: {PORT}, name: http}}]
  resolution: STATIC
  endpoints:
{endpoints}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: svc}}
spec:
  host: svc
  subsets:
{subsets}---
apiVersion: netra.io/v1alpha1
kind: Router
metadata: {{name: svc}}
spec:
  hosts: [svc]
  protocol: http1
  routes:
  - route:
{to}"""
    env = {"NETRA_SHARDS": "1", "NETRA_HTTP_PORTS": str(PORT), "NETRA_RULES": write(f"rules-{space}.yaml", documents), **more}
    return start(space, [f"{BIN}/netra", "--service-name", "bench"], user=UID, env=env)


def haproxy(space, outside, user):
    lines = "".join(f"  server s{port} {outside}:{port} weight {weight}\n" for port, weight in zip(SERVERS, WEIGHTS))
    return start(space, ["haproxy", "-f", write(f"haproxy-{space}.cfg", f"""global
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 1m
  timeout server 1m
  http-reuse always
listen it
  bind 0.0.0.0:{PORT + 10000}
  balance roundrobin
{lines}""")], user=user)


def peer_nginx(space, outside, user):
    lines = "".join(f"server {outside}:{port} weight={weight}; " for port, weight in zip(SERVERS, WEIGHTS))
    return nginx(space, f"""upstream it {{ {lines} keepalive 128; keepalive_requests 100000000; }}
        server {{ listen {PORT + 10000}; location / {{ proxy_pass http://it; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}""", user)


def envoy(space, outside, user):
    def lb(port, weight):
        return (f"{{ endpoint: {{ address: {{ socket_address: {{ address: {outside}, port_value: {port} }} }} }}, "
                f"load_balancing_weight: {weight} }}")
    endpoints = ", ".join(map(lb, SERVERS, WEIGHTS))
    kind = "type.googleapis.com/envoy.extensions.filters."
    text = f"""static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: {PORT + 10000} }} }}
    filter_chains: [ {{ filters: [ {{ name: envoy.filters.network.http_connection_manager, typed_config: {{
      "@type": {kind}network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h,
      http_filters: [ {{ name: envoy.filters.http.router, typed_config: {{ "@type": {kind}http.router.v3.Router }} }} ],
      route_config: {{ virtual_hosts: [ {{ name: v, domains: ["*"], routes: [ {{ match: {{ prefix: "/" }}, route: {{ cluster: it, timeout: 0s }} }} ] }} ] }} }} }} ] }} ]
  clusters:
  - {{ name: it, type: STATIC, connect_timeout: 1s, lb_policy: ROUND_ROBIN, load_assignment: {{ cluster_name: it, endpoints: [ {{
      lb_endpoints: [ {endpoints} ] }} ] }} }}
"""
    return start(space, [ENVOY, "--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", write(f"envoy-{space}.yaml", text)], user=user)


def load(space, address, port):
    said = sh("ip", "netns", "exec", space, "h2load", "--h1", "-n", str(CALLS), "-c", "32", "-H", ":authority: svc", f"http://{address}:{port}/")
    if f"{CALLS} succeeded" not in said:
        raise SystemExit(f"{address}:{port}: not all requests succeeded:\n{said}")


def measure():
    sh("ip", "netns", "add", OUTSIDE)
    spaces.append(OUTSIDE)
    sh("ip", "-n", OUTSIDE, "link", "set", "lo", "up")
    # Who runs as a user of its own writes there, too.
    shutil.os.chmod(DIR, 0o1777)
    servers(OUTSIDE)
    subjects = {}

    def space_of(name):
        number = len(subjects) + 1
        space, outside = stage.space_beside(OUTSIDE, "nr", number, "10.98"), f"10.98.{number}.1"
        subjects[name] = [None, space, outside, PORT]
        return space, outside

    def own(name, more):
        space, outside = space_of(name)
        subjects[name][0] = netra(space, outside, more)
        return space

    def peer(name, make):
        space, outside = space_of(f"{name}, sidecar")
        stage.intercept_by(space, UID, {PORT: PORT + 10000})
        subjects[f"{name}, sidecar"][0] = make(space, outside, UID)
        space, outside = space_of(f"{name}, dialled")
        subjects[f"{name}, dialled"] = [make(space, outside, None), space, "127.0.0.1", PORT + 10000]
    traced = {"JAEGER_AGENT_HOST": "127.0.0.1", "JAEGER_AGENT_PORT": "6831", "JAEGER_SAMPLER_TYPE": "const", "JAEGER_SAMPLER_PARAM": "1"}
    start(own("netra, traced", traced), ["python3", "-c", SINK])
    own("netra, not traced", {"NETRA_REPORTER": "none"})
    peer("nginx", peer_nginx)
    peer("HAProxy", haproxy)
    if ENVOY:
        peer("Envoy", envoy)
    time.sleep(3)
    rows = {}
    for number in range(ROUNDS + 1):
        for name, (process, space, address, port) in subjects.items():
            before = cpu(process)
            load(space, address, port)
            # The first round warms up.
            if number > 0:
                rows.setdefault(name, []).append((cpu(process) - before) * 1e6 / CALLS)
    return rows


def show(rows):
    def best(how):
        return min(statistics.median(rows[f"{name}, {how}"]) for name in ["nginx", "HAProxy"])
    print("| subject | CPU us a request (each round) | of the better of nginx and HAProxy as sidecars | of the better of them, dialled |\n|---|--:|--:|--:|")
    for name, each in rows.items():
        mid = statistics.median(each)
        print(f"| {name} | {mid:.2f} ({', '.join(f'{value:.2f}' for value in each)}) | {mid / best('sidecar'):.2f} | {mid / best('dialled'):.2f} |")


if __name__ == "__main__":
    stage.run(lambda: show(measure()))
