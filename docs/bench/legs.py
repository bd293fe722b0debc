#!/usr/bin/env python3
"""What legs bring, and cost: Dubbo calls a second over one connection with 50 in flight, of which rules send all to one subset, or
every other one to a second; the latter also with one upstream at a time (NETRA_LEGS_MAX=1). The control is a client that has a
connection for each, without netra or by it. In turns, as root:

    cargo build --release -p netra -p netra-init && docs/bench/legs.py

A pod (a network namespace) with netra on one shard and the client in it, the servers outside. They answer at once, or each
call after a millisecond. ROUNDS=5, SECONDS=2.
"""
import collections, os, select, socket, statistics, struct, sys, time

sys.dont_write_bytecode = True
import stage
from stage import BIN, DIR, cpu, sh, spaces, start, within, write

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS", "2"))
IN_FLIGHT = 50
PORT = 20880
UID = 1337
HOST = "org.demo.svc"
BODY = b"\x052.0.2\x0corg.demo.Svc\x050.0.0\x08sayHello\x12Ljava/lang/String;\x03joeH\x02to"
ANSWER = b"\x91\x09hello joe"
ANSWER_LEN = 16 + len(ANSWER)
Way = collections.namedtuple("Way", "text pod subsets connections is_direct")
DIRECT = Way("one server, without netra", "legs", "a", 1, True)
ONE = Way("one subset, by netra", "legs", "a", 1, False)
WAYS = [DIRECT, Way("two servers, a connection for each, without netra", "legs", "ab", 2, True),
        ONE, Way("two subsets, a connection for each, by netra", "legs", "ab", 2, False),
        Way("two subsets by one connection with legs", "legs", "ab", 1, False),
        Way("two subsets by one connection, one at a time", "one at a time", "ab", 1, False)]


def request(number, to):
    body = BODY + bytes([len(to)]) + to.encode() + b"Z"
    return struct.pack(">HBBQI", 0xDABB, 0xC2, 0, number, len(body)) + body


def serve(port, after):
    """Answers each request so many seconds after it came."""
    listener = socket.create_server(("0.0.0.0", port))
    while True:
        stream, _ = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            answer(stream, after)
        except OSError:
            # Clients of this script go in the middle of their answers.
            pass


def answer(stream, after):
    """Requests are all as long as each other."""
    size = len(request(0, "a"))
    tail = struct.pack(">I", len(ANSWER)) + ANSWER
    got, due = b"", []
    while True:
        wait = max(0, due[0][0] - time.monotonic()) if due else None
        if select.select([stream], [], [], wait)[0]:
            more = stream.recv(65536)
            if not more:
                return
            got += more
            whole = len(got) - len(got) % size
            answers = b"".join(b"\xda\xbb\x02\x14" + got[at + 4 : at + 12] + tail for at in range(0, whole, size))
            got = got[whole:]
            if after and answers:
                due.append((time.monotonic() + after, answers))
            elif answers:
                stream.sendall(answers)
        while due and due[0][0] <= time.monotonic():
            stream.sendall(due.pop(0)[1])


def ask(ends, subsets):
    """Calls a second with IN_FLIGHT at a time, how many answers each read has, and how many there were in all. The subsets take
    turns, and each has the connection of its own place, or all the only one."""
    frames = [request(number, subsets[number % len(subsets)]) for number in range(4096)]
    streams = []
    for end in ends:
        address, port = end.rsplit(":", 1)
        stream = socket.create_connection((address, int(port)), 10)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        streams.append(stream)
    left = dict.fromkeys(streams, 0)
    sent = answered = reads = total = 0
    # Legs are there after the first few.
    warm, begun, end = 500, None, time.monotonic() + SECONDS + 3
    fresh = IN_FLIGHT
    while True:
        for at, stream in enumerate(streams):
            own = [frames[number % 4096] for number in range(sent, sent + fresh) if number % len(streams) == at]
            if own:
                stream.sendall(b"".join(own))
        sent, fresh = sent + fresh, 0
        for stream in select.select(streams, [], [])[0]:
            more = stream.recv(65536)
            if not more:
                raise SystemExit("the connection has ended")
            count, left[stream] = divmod(left[stream] + len(more), ANSWER_LEN)
            fresh, reads = fresh + count, reads + 1
        answered, total = answered + fresh, total + fresh
        now = time.monotonic()
        if begun is None and answered >= warm:
            begun, answered, reads = now, 0, 0
        if begun is not None and now - begun >= SECONDS or now >= end:
            return answered / (now - begun), answered / reads, total


def rules(address, port):
    ends = "".join(f"  - {{address: {address}, ports: {{tcp-metaprotocol-dubbo: {port + at}}}, labels: {{v: v{at}}}}}\n" for at in [0, 1])
    routes = "".join(f"  - match: {{attributes: {{to: {{exact: {name}}}}}}}\n    route: [{{destination: {{host: {HOST}, subset: v{at}}}}}]\n"
                     for at, name in enumerate("ab"))
    return f"""apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: it}}
spec:
  hosts: [{HOST}]
  ports: [{{number: {PORT}, name: tcp-metaprotocol-dubbo}}]
  resolution: STATIC
  endpoints:
{ends}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: it}}
spec:
  host: {HOST}
  subsets: [{{name: v0, labels: {{v: v0}}}}, {{name: v1, labels: {{v: v1}}}}]
---
apiVersion: netra.io/v1alpha1
kind: Router
metadata: {{name: it}}
spec:
  hosts: [{HOST}]
  protocol: dubbo
  routes:
{routes}"""


def pod(number, outside, legs_max):
    name = stage.space_beside(outside, "nl", number, "10.97")
    stage.intercept(name, UID)
    address = f"10.97.{number}.1"
    env = {"NETRA_SHARDS": "1", "NETRA_PROTOCOLS": f"{PORT}=dubbo", "NETRA_REPORTER": "none", "NETRA_LEGS_MAX": str(legs_max),
           # The servers of this script take requests of one length.
           "NETRA_PROTOCOLS_WRITE_CONTEXT": "false"}
    files = {}
    for after in [0, 1]:
        files[after] = rules(address, PORT + 10 * (after + 1))
    env["NETRA_RULES"] = write(f"rules-{number}.yaml", files[0])
    process = start(name, [f"{BIN}/netra", "--service-name", "bench"], user=UID, env=env)
    return name, address, process, env["NETRA_RULES"], files


def measure():
    outside = "nlout"
    sh("ip", "netns", "add", outside)
    spaces.append(outside)
    sh("ip", "-n", outside, "link", "set", "lo", "up")
    os.chmod(DIR, 0o755)
    for after in [0, 1]:
        for at in [0, 1]:
            start(outside, [sys.executable, os.path.abspath(__file__), "serve", str(PORT + 10 * (after + 1) + at), str(after / 1000)])
    # Where connections go before they have said anything.
    start(outside, [sys.executable, os.path.abspath(__file__), "serve", str(PORT), "0"])
    pods = {"legs": pod(1, outside, 8), "one at a time": pod(2, outside, 1)}
    time.sleep(2)
    rows = {}
    for after in [0, 1]:
        for _, _, _, path, files in pods.values():
            write(os.path.basename(path) + ".new", files[after])
            os.rename(path + ".new", path)
        time.sleep(2)
        for number in range(ROUNDS + 1):
            for way in WAYS:
                row = measure_one(pods[way.pod], way, after)
                # The first round warms up.
                if number > 0:
                    rows.setdefault((after, way), []).append(row)
    return rows


def measure_one(pod, way, after):
    """Calls a second, answers for each read, and what netra's CPU has of a call in microseconds."""
    name, address, process, _, _ = pod
    ports = [PORT + 10 * (after + 1) + at for at in range(way.connections)] if way.is_direct else [PORT] * way.connections
    ends = ",".join(f"{address}:{port}" for port in ports)
    before = cpu(process)
    # What the sidecar's own user sends goes by nobody.
    words = within(name, [sys.executable, os.path.abspath(__file__), "ask", ends, way.subsets], UID if way.is_direct else None)
    calls, each, total = map(float, sh(*words).split())
    return calls, each, (cpu(process) - before) * 1e6 / total


def spread(values, digits=0):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def show(rows):
    print("| servers answer | the client asks | calls a second | of one server or subset | answers a read | netra's CPU, us a call |\n|---|---|--:|--:|--:|--:|")
    for (after, way), each in rows.items():
        calls, reads, took = zip(*each)
        one = [row[0] for row in rows[after, DIRECT if way.is_direct else ONE]]
        ratio = [mine / other for mine, other in zip(calls, one)]
        print(f"| {'after 1 ms' if after else 'at once'} | {way.text} | {spread(calls)} | {spread(ratio, 2)} | {spread(reads, 1)} | {'' if way.is_direct else spread(took, 1)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), float(sys.argv[3]))
    elif sys.argv[1:2] == ["ask"]:
        print(*ask(sys.argv[2].split(","), sys.argv[3]))
    else:
        stage.run(lambda: show(measure()))
