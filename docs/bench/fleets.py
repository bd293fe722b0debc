#!/usr/bin/env python3
"""What clients of a fleet see while its servers die, stall, answer errors, come back and are slow: requests of HTTP/1
at a fixed rate to five servers, by netra (Router, DestinationRule), HAProxy and Envoy with the same settings. As root, with
HAProxy, and Envoy if ENVOY names one:

    cargo build --release -p netra -p netra-init && ENVOY=.../envoy docs/bench/fleets.py [faults|reads|slow|kill] ...

A pod (a network namespace) for each proxy with its load in it, and one namespace for the servers. All choose between two by
what they have to do, leave out for 5 s who failed five times in a row (all but the last, if need be), give an answer 1 s, and try a failed dial elsewhere;
`reads` and `kill` also ask again where a server ends before it answers. `faults` and `reads` are one run of phases, `slow` has
one server of five that takes 50 times as long, `kill` is SIGKILL of a server at KILL_RATE=2000 requests/s.
RATE=500, SECONDS=4 (of a phase), ROUNDS=3 (of slow and kill). Latencies count from when a request was due.
"""
import asyncio, collections, json, os, random, shutil, signal, statistics, subprocess, sys, time

sys.dont_write_bytecode = True
import stage
from stage import BIN, DIR, sh, spaces, start, write

ENVOY = os.environ.get("ENVOY") or shutil.which("envoy")
RATE = int(os.environ.get("RATE", "500"))
KILL_RATE = int(os.environ.get("KILL_RATE", "2000"))
SECONDS = float(os.environ.get("SECONDS", "4"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
UID = 1337
OUTSIDE = "nffleet"
PORTS = [8081, 8082, 8083, 8084, 8085]
CONNECTIONS_MAX = 400
SERVICE_S = 0.002


class Server(asyncio.Protocol):
    """Answers after a while; with errors after SIGUSR1, well again after SIGUSR2."""
    status, service_s = b"200 OK", SERVICE_S

    def connection_made(self, transport):
        self.transport, self.held = transport, b""

    def data_received(self, data):
        self.held += data
        while b"\r\n\r\n" in self.held:
            _, self.held = self.held.split(b"\r\n\r\n", 1)
            asyncio.get_running_loop().call_later(self.service_s, self.answer)

    def answer(self):
        self.transport.write(b"HTTP/1.1 %s\r\nContent-Length: 5\r\n\r\nhello" % Server.status)


async def serve(port, service_s):
    Server.service_s = float(service_s)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(Server, "status", b"503 No"))
    loop.add_signal_handler(signal.SIGUSR2, lambda: setattr(Server, "status", b"200 OK"))
    server = await loop.create_server(Server, "0.0.0.0", int(port), backlog=1024, reuse_address=True)
    await server.serve_forever()


class Client(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self, load):
        self.load, self.due, self.held = load, None, b""

    def connection_made(self, transport):
        self.transport = transport

    def ask(self, due):
        self.due = due
        self.transport.write(b"GET /thing HTTP/1.1\r\nHost: fleet\r\n\r\n")

    def data_received(self, data):
        self.held += data
        end = self.held.find(b"\r\n\r\n")
        if end < 0 or self.due is None:
            return
        head = self.held[:end].lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
        if len(self.held) < end + 4 + length:
            return
        self.held = b""
        self.load.over(self.due, int(head[9:12]))
        self.due = None
        if b"connection: close" in head:
            self.transport.close()
        else:
            self.load.free.append(self)

    def connection_lost(self, error):
        if self.due is not None:
            self.load.over(self.due, 0)
        elif self in self.load.free:
            self.load.free.remove(self)
        self.load.count -= 1


class Load:
    """Requests that are due at a fixed rate, each by a connection that is free; says of each when it was due, how long it
    took and its status, 0 where there was none."""

    def __init__(self):
        self.free, self.rows, self.count = collections.deque(), [], 0

    def over(self, due, status):
        self.rows.append((due, time.monotonic() - due, status))

    async def one(self, address, due):
        while self.free:
            client = self.free.pop()
            if not client.transport.is_closing():
                return client.ask(due)
        if self.count >= CONNECTIONS_MAX:
            return self.over(due, 0)
        self.count += 1
        try:
            _, client = await asyncio.get_running_loop().create_connection(lambda: Client(self), *address)
            client.ask(due)
        except OSError:
            self.count -= 1
            self.over(due, 0)

    async def run(self, address, rate, seconds):
        begun, loop = time.monotonic(), asyncio.get_running_loop()
        tasks = set()
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            left = due - time.monotonic()
            if left > 0.0005:
                await asyncio.sleep(left)
            task = loop.create_task(self.one(address, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(1.5)
        open_requests = int(rate * seconds) - len(self.rows)
        self.rows += [(time.monotonic(), 1.5, 0)] * open_requests
        print(json.dumps(self.rows))


def rules(outside, reads, more=""):
    endpoints = "".join(f"  - {{address: {outside}, ports: {{http: {port}}}}}\n" for port in PORTS)
    retry = ", retry: {on: [reset]}" if reads else ""
    return f"""apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: fleet}}
spec:
  hosts: [fleet]
  ports: [{{number: {PORTS[0]}, name: http}}]
  resolution: STATIC
  endpoints:
{endpoints}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: fleet, annotations: {{netra.io/balance-by: message{more}}}}}
spec:
  host: fleet
  trafficPolicy:
    connectionPool: {{tcp: {{connectTimeout: 1s}}}}
    outlierDetection: {{consecutive5xxErrors: 5, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 100}}
---
apiVersion: netra.io/v1alpha1
kind: Router
metadata: {{name: fleet}}
spec:
  hosts: [fleet]
  protocol: http1
  timeout: {{firstByte: 1s}}
  routes: [{{route: [{{destination: {{host: fleet}}}}]{retry}}}]
"""


def netra(space, outside, reads, more=""):
    stage.intercept(space, UID)
    start(space, [f"{BIN}/netra", "--service-name", "bench"], user=UID, env={
        "NETRA_SHARDS": "1", "NETRA_HTTP_PORTS": str(PORTS[0]), "NETRA_REPORTER": "none",
        "NETRA_RULES": write(f"rules-{space}.yaml", rules(outside, reads, more))})
    return outside, PORTS[0]


def peak_ewma(space, outside, reads):
    return netra(space, outside, reads, ", netra.io/balancer: peak-ewma")


def haproxy(space, outside, reads):
    servers = "".join(f"  server s{port} {outside}:{port} check inter 5s fall 100 rise 1 observe layer7 error-limit 5 on-error mark-down\n"
                      for port in PORTS)
    text = f"""global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 1s
  retries 2
  option redispatch 1
  retry-on conn-failure{" empty-response" if reads else ""}
frontend f
  bind 127.0.0.1:9001
  default_backend b
backend b
  balance random(2)
{servers}"""
    start(space, ["haproxy", "-db", "-f", write(f"haproxy-{space}.cfg", text)])
    return "127.0.0.1", 9001


def envoy(space, outside, reads):
    endpoints = ", ".join(f"{{ endpoint: {{ address: {{ socket_address: {{ address: {outside}, port_value: {port} }} }} }} }}"
                          for port in PORTS)
    on = "connect-failure,reset" if reads else "connect-failure"
    text = f"""static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9001 }} }}
    filter_chains: [ {{ filters: [ {{ name: envoy.filters.network.http_connection_manager, typed_config: {{
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h,
      http_filters: [ {{ name: envoy.filters.http.router, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }} ],
      route_config: {{ virtual_hosts: [ {{ name: v, domains: ["*"], routes: [ {{ match: {{ prefix: "/" }}, route: {{ cluster: fleet, timeout: 1s,
        retry_policy: {{ retry_on: "{on}", num_retries: 2, host_selection_retry_max_attempts: 3, retry_host_predicate: [
          {{ name: envoy.retry_host_predicates.previous_hosts, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate }} }} ] }} }} }} ] }} ] }} }} }} ] }} ]
  clusters:
  - name: fleet
    type: STATIC
    connect_timeout: 1s
    lb_policy: LEAST_REQUEST
    common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}
    circuit_breakers: {{ thresholds: [ {{ max_connections: 4000, max_requests: 4000, max_pending_requests: 4000,
      retry_budget: {{ budget_percent: {{ value: 20 }}, min_retry_concurrency: 3 }} }} ] }}
    outlier_detection: {{ consecutive_5xx: 5, interval: 1s, base_ejection_time: 5s, max_ejection_percent: 100 }}
    load_assignment: {{ cluster_name: fleet, endpoints: [ {{ lb_endpoints: [ {endpoints} ] }} ] }}
"""
    start(space, [ENVOY, "--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", write(f"envoy-{space}.yaml", text)])
    return "127.0.0.1", 9001


def pod(number):
    """A namespace that reaches the servers; its name, and their address."""
    name = stage.space_beside(OUTSIDE, "nf", number, "10.97")
    return name, f"10.97.{number}.1"


def server(port, service_s=SERVICE_S):
    return start(OUTSIDE, [sys.executable, os.path.abspath(__file__), "serve", str(port), str(service_s)])


def proxies(reads, also=()):
    """Each proxy in a pod of its own: by name, where its load is and whom it asks."""
    made = {"netra": netra, **dict(also), "HAProxy": haproxy}
    if ENVOY:
        made["Envoy"] = envoy
    found = {}
    for name, make in made.items():
        space, outside = pod(len(spaces))
        found[name] = (space, make(space, outside, reads))
    time.sleep(2)
    return found


def load(space, address, rate, seconds):
    words = ["ip", "netns", "exec", space, sys.executable, os.path.abspath(__file__), "load", *map(str, address), str(rate), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def told(rows):
    """Success in percent, how many failed, p50 and p99 in ms."""
    took = sorted(it[1] * 1000 for it in rows)
    failed = sum(it[2] != 200 for it in rows)
    at = lambda part: took[min(int(len(took) * part), len(took) - 1)]
    return 100 * (1 - failed / len(rows)), failed, at(0.5), at(0.99)


def phases(reads):
    """One after the other: all are well, one is dead, another stalls, another answers errors, all are well."""
    fleet = {port: server(port) for port in PORTS}
    subjects = proxies(reads)

    def die():
        fleet[8083].kill()
        fleet[8083].wait()

    def stall():
        fleet[8084].send_signal(signal.SIGSTOP)

    def fail():
        fleet[8084].send_signal(signal.SIGCONT)
        fleet[8083] = server(8083)
        fleet[8085].send_signal(signal.SIGUSR1)

    def mend():
        fleet[8085].send_signal(signal.SIGUSR2)
    steps = [("all are well", None), ("one is killed", die), ("another stalls", stall), ("those are back, one answers 503", fail),
             ("all are well", mend)]
    print("| | " + " | ".join(what for what, _ in steps) + " |\n|---|" + "--:|" * len(steps))
    for name, (space, address) in subjects.items():
        warm = load(space, address, 200, 1)
        warm.communicate()
        running = load(space, address, RATE, SECONDS * len(steps))
        begun = time.monotonic()
        bounds = [begun]
        for _, step in steps:
            if step:
                step()
            time.sleep(max(0, bounds[-1] + SECONDS - time.monotonic()))
            bounds.append(time.monotonic())
        rows = json.loads(running.communicate()[0])
        cells = []
        for first, last in zip(bounds, bounds[1:]):
            percent, failed, half, most = told([it for it in rows if first <= it[0] < last])
            cells.append(f"{percent:.2f} % ({failed}), {half:.1f} / {most:.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        # Who was left out has to be back for the next one.
        time.sleep(6)


def rounds(what, rate, reads, before, also=()):
    """Of each proxy in turns; `before` is done a while into each load."""
    subjects = proxies(reads, also)
    found = {name: [] for name in subjects}
    for number in range(ROUNDS):
        for name, (space, address) in subjects.items():
            load(space, address, 200, 1).communicate()
            running = load(space, address, rate, SECONDS)
            time.sleep(SECONDS / 2)
            after = before()
            found[name].append(told(json.loads(running.communicate()[0])))
            after()
    print(f"| {what} | failed, each round | p50 ms | p99 ms, each round |\n|---|--:|--:|--:|")
    for name, each in found.items():
        most = [row[3] for row in each]
        print(f"| {name} | {', '.join(str(row[1]) for row in each)} | {statistics.median(row[2] for row in each):.1f} | "
              f"{statistics.median(most):.1f} ({', '.join(f'{it:.1f}' for it in most)}) |")


def slow():
    for port in PORTS:
        server(port, SERVICE_S * (50 if port == 8083 else 1))
    rounds("one of five takes 100 ms, the others 2", RATE, False, lambda: lambda: None, [("netra, peak-ewma", peak_ewma)])


def kill():
    fleet = {port: server(port) for port in PORTS}

    def before():
        port = random.choice(PORTS[1:])
        fleet[port].kill()
        fleet[port].wait()

        def after():
            fleet[port] = server(port)
            time.sleep(6)
        return after
    rounds(f"SIGKILL at {KILL_RATE} requests/s", KILL_RATE, True, before)


def measure():
    sh("ip", "netns", "add", OUTSIDE)
    spaces.append(OUTSIDE)
    sh("ip", "-n", OUTSIDE, "link", "set", "lo", "up")
    os.chmod(DIR, 0o755)
    parts = {"faults": lambda: phases(False), "reads": lambda: phases(True), "slow": slow, "kill": kill}
    for name in sys.argv[1:] or list(parts):
        print(f"\n{name}")
        parts[name]()
        for process in stage.running:
            process.send_signal(signal.SIGKILL)
            process.wait()
        stage.running.clear()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port, service_s]:
            asyncio.run(serve(port, service_s))
        case ["load", host, port, rate, seconds]:
            asyncio.run(Load().run((host, int(port)), float(rate), float(seconds)))
        case _:
            stage.run(measure)
