#!/usr/bin/env python3
"""What clients of a fleet see while its servers die, stall, answer errors, come back and are slow: requests of
PROTOCOL=http1, redis, dubbo or thrift (or several, one after the other: redis,dubbo) at a fixed rate to five servers, by netra
(Router, DestinationRule), HAProxy and Envoy with the same settings. As root, with HAProxy, and Envoy if ENVOY names one:

    cargo build --release -p netra -p netra-init && ENVOY=.../envoy docs/bench/fleets.py [faults|reads|again|slow|kill] ...

What it prints is a table of Markdown for each protocol and part, with what it is of above it.

A pod (a network namespace) for each proxy with its load in it, and one namespace for the servers. All choose between two by
what they have to do, leave out for 5 s who failed five times in a row (all but the last, if need be), give an answer 1 s, and try a failed dial elsewhere;
HAProxy has no more than connections of Redis, Dubbo and Thrift, Envoy no limit of time for answers of the last two.
`reads` and `kill` also ask again where a server ends before it answers, `again` also where one has not begun to answer in 100 ms, and
where it says that it cannot serve (502 to 504, LOADING, a status of Dubbo, an exception of the framework's): so often as half of what is
under way. Of other protocols than HTTP/1 netra alone asks again, by the names of operations where the protocol does not say what only reads. `faults`, `reads` and `again` are one run of phases, `slow` has
one server of five that takes 50 times as long, `kill` is SIGKILL of a server at KILL_RATE=2000 requests/s.
RATE=500, SECONDS=4 (of a phase), ROUNDS=3 (of slow and kill). Latencies count from when a request was due.
"""
import asyncio, collections, json, os, random, shutil, signal, statistics, subprocess, sys, time

sys.dont_write_bytecode = True
import stage
from stage import BIN, DIR, sh, spaces, start, write
from wires import WIRES

ENVOY = os.environ.get("ENVOY") or shutil.which("envoy")
RATE = int(os.environ.get("RATE", "500"))
KILL_RATE = int(os.environ.get("KILL_RATE", "2000"))
SECONDS = float(os.environ.get("SECONDS", "4"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
UID = 1337
OUTSIDE = "nffleet"
PROTOCOLS = os.environ.get("PROTOCOL", "http1").split(",")
PROTOCOL = PROTOCOLS[0]
WIRE = WIRES[PROTOCOL]
PORTS = [WIRE.port + at for at in range(5)]
CONNECTIONS_MAX = 400
SERVICE_S = 0.002


class Server(asyncio.Protocol):
    """Answers after a while; with errors after SIGUSR1, well again after SIGUSR2."""
    is_well, service_s = True, SERVICE_S

    def connection_made(self, transport):
        self.transport, self.held = transport, b""

    def data_received(self, data):
        self.held += data
        while end := WIRE.end(self.held):
            request, self.held = self.held[:end], self.held[end:]
            asyncio.get_running_loop().call_later(self.service_s, self.answer, request)

    def answer(self, request):
        self.transport.write(WIRE.answer(request, Server.is_well))


async def serve(port, service_s):
    Server.service_s = float(service_s)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(Server, "is_well", False))
    loop.add_signal_handler(signal.SIGUSR2, lambda: setattr(Server, "is_well", True))
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
        self.transport.write(WIRE.request)

    def data_received(self, data):
        self.held += data
        end = WIRE.end(self.held)
        if end == 0 or self.due is None:
            return
        answer, self.held = self.held[:end], b""
        self.load.over(self.due, WIRE.is_well(answer))
        self.due = None
        if WIRE.is_last(answer):
            self.transport.close()
        else:
            self.load.free.append(self)

    def connection_lost(self, error):
        if self.due is not None:
            self.load.over(self.due, False)
        elif self in self.load.free:
            self.load.free.remove(self)
        self.load.count -= 1


class Load:
    """Requests that are due at a fixed rate, each by a connection that is free; says of each when it was due, how long it
    took and whether it was answered well."""

    def __init__(self):
        self.free, self.rows, self.count = collections.deque(), [], 0

    def over(self, due, is_well):
        self.rows.append((due, time.monotonic() - due, is_well))

    async def one(self, address, due):
        while self.free:
            client = self.free.pop()
            if not client.transport.is_closing():
                return client.ask(due)
        if self.count >= CONNECTIONS_MAX:
            return self.over(due, False)
        self.count += 1
        try:
            _, client = await asyncio.get_running_loop().create_connection(lambda: Client(self), *address)
            client.ask(due)
        except OSError:
            self.count -= 1
            self.over(due, False)

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
        self.rows += [(time.monotonic(), 1.5, False)] * open_requests
        print(json.dumps(self.rows))


def rules(outside, retried, more=""):
    endpoints = "".join(f"  - {{address: {outside}, ports: {{{WIRE.name}: {port}}}}}\n" for port in PORTS)
    named = ", operations: [sayHello, hello]" if PROTOCOL in ["dubbo", "thrift"] else ""
    on = "[reset, timeout, gateway-error], perTryTimeout: 100ms" if retried == "all" else "[reset]"
    retry = f", retry: {{on: {on}, attempts: 2{named}}}" if retried else ""
    return f"""apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: fleet}}
spec:
  hosts: [{WIRE.host}]
  ports: [{{number: {PORTS[0]}, name: {WIRE.name}}}]
  resolution: STATIC
  endpoints:
{endpoints}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: fleet, annotations: {{netra.io/balance-by: message{more}}}}}
spec:
  host: {WIRE.host}
  trafficPolicy:
    connectionPool: {{tcp: {{connectTimeout: 1s}}}}
    retryBudget: {{percent: 50, minRetryConcurrency: 20}}
    outlierDetection: {{consecutive5xxErrors: 5, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 100}}
---
apiVersion: netra.io/v1alpha1
kind: Router
metadata: {{name: fleet}}
spec:
  hosts: [{WIRE.host}]
  protocol: {PROTOCOL}
  timeout: {{firstByte: 1s}}
  routes: [{{route: [{{destination: {{host: {WIRE.host}}}}}]{retry}}}]
"""


def netra(space, outside, retried, more=""):
    stage.intercept(space, UID)
    ports = {"NETRA_HTTP_PORTS": str(PORTS[0])} if PROTOCOL == "http1" else {"NETRA_PROTOCOLS": f"{PORTS[0]}={PROTOCOL}"}
    documents = write(f"rules-{space}.yaml", rules(outside, retried, more))
    sh(f"{BIN}/netra", "rules", "check", documents)
    start(space, [f"{BIN}/netra", "--service-name", "bench"], user=UID, env={
        "NETRA_SHARDS": "1", **ports, "NETRA_REPORTER": "none", "NETRA_RULES": documents})
    return outside, PORTS[0]


def peak_ewma(space, outside, retried):
    return netra(space, outside, retried, ", netra.io/balancer: peak-ewma")


def haproxy(space, outside, retried):
    is_read, mode = PROTOCOL == "http1", "http" if PROTOCOL == "http1" else "tcp"
    on = {"": "", "reset": "empty-response", "all": "empty-response response-timeout 502 503 504"}[retried]
    again = f"retry-on conn-failure {on}" if is_read else ""
    answer = "100ms" if retried == "all" and is_read else "1s"
    servers = "".join(f"  server s{port} {outside}:{port} check inter 5s fall 100 rise 1 observe layer{7 if is_read else 4} error-limit 5 on-error mark-down\n"
                      for port in PORTS)
    text = f"""global
  nbthread 1
  maxconn 4000
defaults
  mode {mode}
  timeout connect 1s
  timeout client 60s
  timeout server {answer}
  retries 2
  option redispatch 1
  {again}
frontend f
  bind 127.0.0.1:9001
  default_backend b
backend b
  balance random(2)
{servers}"""
    start(space, ["haproxy", "-db", "-f", write(f"haproxy-{space}.cfg", text)])
    return "127.0.0.1", 9001


def envoy_filter(retried):
    """The name of the filter that reads the protocol, and its configuration."""
    kind = '"@type": type.googleapis.com/envoy.extensions.filters.'
    on = "connect-failure" + {"": "", "reset": ",reset", "all": ",reset,gateway-error"}[retried]
    each = ", per_try_timeout: 0.1s" if retried == "all" else ""
    hosts = ("{ name: envoy.retry_host_predicates.previous_hosts, typed_config: { "
             '"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate } }')
    return {
        "http1": ("http_connection_manager", kind + "network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, http_filters: [ "
                  "{ name: envoy.filters.http.router, typed_config: { " + kind + "http.router.v3.Router } } ], route_config: { virtual_hosts: [ "
                  '{ name: v, domains: ["*"], routes: [ { match: { prefix: "/" }, route: { cluster: fleet, timeout: 1s, retry_policy: { '
                  f'retry_on: "{on}", num_retries: 2{each}, host_selection_retry_max_attempts: 3, retry_host_predicate: [ {hosts} ] }} }} }} ] }} ] }}'),
        "redis": ("redis_proxy", kind + "network.redis_proxy.v3.RedisProxy, stat_prefix: r, settings: { op_timeout: 1s }, "
                  "prefix_routes: { catch_all_route: { cluster: fleet } }"),
        "dubbo": ("dubbo_proxy", kind + "network.dubbo_proxy.v3.DubboProxy, stat_prefix: d, protocol_type: Dubbo, serialization_type: Hessian2, "
                  'route_config: [ { name: r, interface: "*", routes: [ { match: { method: { name: { safe_regex: { regex: ".*" } } } }, '
                  "route: { cluster: fleet } } ] } ]"),
        "thrift": ("thrift_proxy", kind + "network.thrift_proxy.v3.ThriftProxy, stat_prefix: t, route_config: { name: r, "
                   'routes: [ { match: { method_name: "" }, route: { cluster: fleet } } ] }'),
    }[PROTOCOL]


def envoy(space, outside, retried):
    endpoints = ", ".join(f"{{ endpoint: {{ address: {{ socket_address: {{ address: {outside}, port_value: {port} }} }} }} }}"
                          for port in PORTS)
    name, config = envoy_filter(retried)
    text = f"""static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9001 }} }}
    filter_chains: [ {{ filters: [ {{ name: envoy.filters.network.{name}, typed_config: {{ {config} }} }} ] }} ]
  clusters:
  - name: fleet
    type: STATIC
    connect_timeout: 1s
    lb_policy: LEAST_REQUEST
    common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}
    circuit_breakers: {{ thresholds: [ {{ max_connections: 4000, max_requests: 4000, max_pending_requests: 4000,
      retry_budget: {{ budget_percent: {{ value: 50 }}, min_retry_concurrency: 20 }} }} ] }}
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
    return start(OUTSIDE, [sys.executable, os.path.abspath(__file__), "serve", str(port), str(service_s)], env={"PROTOCOL": PROTOCOL})


def proxies(retried, also=()):
    """Each proxy in a pod of its own: by name, where its load is and whom it asks."""
    made = {"netra": netra, **dict(also), "HAProxy": haproxy}
    if ENVOY:
        made["Envoy"] = envoy
    found = {}
    for name, make in made.items():
        space, outside = pod(len(spaces))
        found[name] = (space, make(space, outside, retried))
    time.sleep(2)
    return found


def load(space, address, rate, seconds):
    words = ["ip", "netns", "exec", space, sys.executable, os.path.abspath(__file__), "load", *map(str, address), str(rate), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def told(rows):
    """Success in percent, how many failed, p50 and p99 in ms."""
    took = sorted(it[1] * 1000 for it in rows)
    failed = sum(not it[2] for it in rows)
    at = lambda part: took[min(int(len(took) * part), len(took) - 1)]
    return 100 * (1 - failed / len(rows)), failed, at(0.5), at(0.99)


def phases(retried):
    """One after the other: all are well, one is dead, another stalls, another answers errors, all are well."""
    fleet = {port: server(port) for port in PORTS}
    subjects = proxies(retried)

    def die():
        fleet[PORTS[2]].kill()
        fleet[PORTS[2]].wait()

    def stall():
        fleet[PORTS[3]].send_signal(signal.SIGSTOP)

    def fail():
        fleet[PORTS[3]].send_signal(signal.SIGCONT)
        fleet[PORTS[2]] = server(PORTS[2])
        fleet[PORTS[4]].send_signal(signal.SIGUSR1)

    def mend():
        fleet[PORTS[4]].send_signal(signal.SIGUSR2)
    steps = [("all are well", None), ("one is killed", die), ("another stalls", stall), ("those are back, one answers errors", fail),
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


def rounds(what, rate, retried, before, also=()):
    """Of each proxy in turns; `before` is done a while into each load."""
    subjects = proxies(retried, also)
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
        server(port, SERVICE_S * (50 if port == PORTS[2] else 1))
    rounds("one of five takes 100 ms, the others 2", RATE, "", lambda: lambda: None, [("netra, peak-ewma", peak_ewma)])


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
    rounds(f"SIGKILL at {KILL_RATE} requests/s, {PROTOCOL}", KILL_RATE, "reset", before)


def measure():
    sh("ip", "netns", "add", OUTSIDE)
    spaces.append(OUTSIDE)
    sh("ip", "-n", OUTSIDE, "link", "set", "lo", "up")
    os.chmod(DIR, 0o755)
    parts = {"faults": lambda: phases(""), "reads": lambda: phases("reset"), "again": lambda: phases("all"), "slow": slow, "kill": kill}
    for name in sys.argv[1:] or list(parts):
        print(f"\n**{PROTOCOL}, {name}**{caption(name)}\n")
        parts[name]()
        for process in stage.running:
            process.send_signal(signal.SIGKILL)
            process.wait()
        stage.running.clear()


def caption(name):
    """What a table is of, where its own head does not say it."""
    if name in ["slow", "kill"]:
        return f" ({ROUNDS} rounds of {SECONDS:g} s in turns):"
    again = {"faults": "", "reads": "; asked again after a reset", "again": "; asked again after a reset"}[name]
    errors = ", an answer of 502 to 504," if PROTOCOL == "http1" else ""
    more = f"{errors} or 100 ms without one" if name == "again" else ""
    return f" ({RATE} requests/s, {SECONDS:g} s a phase{again}{more}): success (requests that failed), p50 / p99 in ms:"


def versions():
    haproxy = sh("haproxy", "-v").split()[2].split("-")[0]
    envoy = f", Envoy {sh(ENVOY, '--version').split('version:')[1].split('/')[1]}" if ENVOY else ""
    print(f"HAProxy {haproxy}{envoy}; {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs.", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port, service_s]:
            asyncio.run(serve(port, service_s))
        case ["load", host, port, rate, seconds]:
            asyncio.run(Load().run((host, int(port)), float(rate), float(seconds)))
        case parts if PROTOCOLS[1:]:
            versions()
            for protocol in PROTOCOLS:
                words = [sys.executable, os.path.abspath(__file__), *parts]
                subprocess.run(words, check=True, env={**os.environ, "PROTOCOL": protocol, "VERSIONS": "told"})
        case _:
            if "VERSIONS" not in os.environ:
                versions()
            stage.run(measure)
