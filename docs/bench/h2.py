#!/usr/bin/env python3
"""HTTP/2 and gRPC-like calls through netra and its peers, in turns: CPU of the proxy for each call, what it
adds to the median, CPU for each GB, memory of idle connections. As root, with nginx, haproxy, h2load, nghttpd
and (if ENVOY names one) Envoy:

    cargo build --release -p netra -p netra-init && docs/bench/h2.py

A pod (a network namespace) for netra traced, for netra untraced and for the peers, each with its own server;
netra's have the rules of netra-init, the peers are dialled where they listen. One worker each.
"""
import os, re, shutil, statistics, subprocess, sys, time

sys.dont_write_bytecode = True
import stage
from stage import BIN, DIR, cpu, running, sh, spaces, start, write

ENVOY = os.environ.get("ENVOY") or shutil.which("envoy")
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CALLS = int(os.environ.get("CALLS", "60000"))
UID = 1337
PORT, NGINX, HAPROXY, ENVOY_PORT = 50051, 8001, 8002, 8003


SINK = """import socket
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(('127.0.0.1', 6831))
while True: sink.recv(65535)"""


def pod(number):
    """A namespace that the client reaches; its address."""
    name = stage.space_beside("nh2client", "nh2", number, "10.97")
    start(name, ["nghttpd", "--no-tls", "-d", DIR, "--echo-upload", "--trailer", "grpc-status: 0", str(PORT)])
    return name, f"10.97.{number}.2"


def netra(space, probability):
    stage.intercept(space, UID)
    return start(space, [f"{BIN}/netra", "--service-name", "bench"], user=UID, env={
        "NETRA_SHARDS": "1", "NETRA_HTTP_PORTS": str(PORT), "JAEGER_AGENT_HOST": "127.0.0.1",
        "JAEGER_AGENT_PORT": "6831", "JAEGER_SAMPLER_TYPE": "const", "JAEGER_SAMPLER_PARAM": probability})


def peers(space):
    temp = "".join(f"{kind}_temp_path {DIR}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    nginx = write("nginx.conf", f"""daemon off; master_process off; pid {DIR}/n.pid; error_log stderr crit;
        events {{ worker_connections 4096; }}
        http {{ access_log off; keepalive_requests 100000000; {temp} client_max_body_size 0;
        upstream up {{ server 127.0.0.1:{PORT}; keepalive 512; keepalive_requests 100000000; }}
        server {{ listen {NGINX} http2; http2_max_concurrent_streams 256; location / {{ grpc_pass grpc://up; }} }} }}""")
    haproxy = write("haproxy.cfg", f"""global
  nbthread 1
  maxconn 4000
  tune.h2.initial-window-size 1048576
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind :{HAPROXY} proto h2
  default_backend b
backend b
  http-reuse always
  server s 127.0.0.1:{PORT} proto h2
""")
    found = {"nginx grpc_pass": (start(space, ["nginx", "-e", "stderr", "-p", DIR, "-c", nginx]), NGINX),
             "HAProxy h2": (start(space, ["haproxy", "-f", haproxy]), HAPROXY)}
    if ENVOY:
        found["Envoy h2"] = (start(space, [ENVOY, "--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", write("envoy.yaml", envoy())]), ENVOY_PORT)
    return found


def envoy():
    http2 = "http2_protocol_options: {}"
    return f"""static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: {ENVOY_PORT} }} }}
    filter_chains: [ {{ filters: [ {{ name: envoy.filters.network.http_connection_manager, typed_config: {{
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: h, codec_type: HTTP2, {http2},
      http_filters: [ {{ name: envoy.filters.http.router, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }} ],
      route_config: {{ virtual_hosts: [ {{ name: v, domains: ["*"], routes: [ {{ match: {{ prefix: "/" }}, route: {{ cluster: up, timeout: 0s }} }} ] }} ] }} }} }} ] }} ]
  clusters:
  - name: up
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{ {http2} }} }} }}
    load_assignment: {{ cluster_name: up, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {PORT} }} }} }} }} ] }} ] }}
"""


def rss(process):
    with open(f"/proc/{process.pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def h2load(words, cpu_list=None):
    pin = ["taskset", "-c", cpu_list] if cpu_list else []
    return sh("ip", "netns", "exec", "nh2client", *pin, "h2load", *words)


GRPC = ["-d", f"{DIR}/message", "-H", "content-type: application/grpc", "-H", "te: trailers",
        "-H", "user-agent: grpc-python/1.85.3", "-H", "grpc-accept-encoding: identity, deflate, gzip"]


def saturate(process, url):
    before = cpu(process) if process else 0
    said = h2load(["-n", str(CALLS), "-c", "8", "-m", "32", *GRPC, url])
    if f"{CALLS} succeeded" not in said:
        raise SystemExit(f"not all calls succeeded:\n{said}")
    rate = float(re.search(r"([\d.]+) req/s", said)[1])
    return ((cpu(process) - before) * 1e6 / CALLS if process else 0), rate


def median(url, rate):
    """The median of a call, in microseconds, at so many calls a second over 4 connections, all on one CPU."""
    log = f"{DIR}/log"
    open(log, "w").close()
    h2load(["-D", "1", "-c", "4", "-m", "64", "--rps", str(rate // 4), "--log-file", log, *GRPC, url], "0")
    with open(log) as lines:
        times = sorted(int(line.split("\t")[2]) for line in lines)
    return times[len(times) // 2]


def bulk(process, url):
    before = cpu(process)
    said = h2load(["-n", "1", "-c", "1", "-m", "1", "-w", "24", "-W", "24", url])
    if "1 succeeded" not in said:
        raise SystemExit(said)
    return cpu(process) - before


def idle(process, url):
    """KB of each of a thousand connections that have made a call, and are quiet."""
    before = rss(process)
    load = subprocess.Popen(["ip", "netns", "exec", "nh2client", "h2load", "-D", "6", "-c", "1000", "-m", "1", "--rps", "0.5",
                             *GRPC, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(4.5)
    after = rss(process)
    load.wait()
    return (after - before) / 1000


def pin(processes, cpus):
    for process in processes:
        for task in os.listdir(f"/proc/{process.pid}/task"):
            os.sched_setaffinity(int(task), cpus)


def measure():
    sh("ip", "netns", "add", "nh2client")
    spaces.append("nh2client")
    with open(f"{DIR}/message", "wb") as file:
        file.write(b"\0\0\0\0\x40" + b"m" * 64)
    with open(f"{DIR}/large", "wb") as file:
        file.truncate(1 << 30)
    os.chmod(DIR, 0o755)
    traced, untraced, plain = pod(1), pod(2), pod(3)
    start(traced[0], ["python3", "-c", SINK])
    time.sleep(0.3)
    subjects = {"direct": (None, f"http://{plain[1]}:{PORT}"),
                "netra, every call traced": (netra(traced[0], "1"), f"http://{traced[1]}:{PORT}"),
                "netra, none traced": (netra(untraced[0], "0"), f"http://{untraced[1]}:{PORT}")}
    for name, (process, port) in peers(plain[0]).items():
        subjects[name] = (process, f"http://{plain[1]}:{port}")
    time.sleep(2)
    rows = {name: {} for name in subjects}
    note = lambda name, what, value: rows[name].setdefault(what, []).append(value)
    call = "/shop.Cart/Add"
    for _ in range(ROUNDS):
        for name, (process, url) in subjects.items():
            taken, rate = saturate(process, url + call)
            note(name, "us", taken)
            note(name, "rate", rate)
    for name, (process, url) in subjects.items():
        if process:
            note(name, "gb", bulk(process, url + "/large"))
            note(name, "idle", idle(process, url + call))
    pin(running, {0})
    for _ in range(ROUNDS):
        for rate in (1000, 10000):
            direct = median(subjects["direct"][1] + call, rate)
            note("direct", rate, direct)
            for name, (process, url) in subjects.items():
                if process:
                    note(name, rate, median(url + call, rate) - direct)
    return rows


def show(rows):
    print("| | CPU us a call (each round) | calls/s | added p50 us at 1,000/s | at 10,000/s | CPU s/GB | idle KB a connection |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    mid = lambda values: statistics.median(values) if values else float("nan")
    for name, row in rows.items():
        each = ", ".join(f"{value:.1f}" for value in row["us"])
        cells = [f"{mid(row['us']):.1f} ({each})", f"{mid(row['rate']):.0f}",
                 *(f"{mid(row[rate]):.0f} ({min(row[rate])} to {max(row[rate])})" for rate in (1000, 10000)),
                 f"{mid(row.get('gb')):.2f}", f"{mid(row.get('idle')):.1f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    stage.run(lambda: show(measure()))
