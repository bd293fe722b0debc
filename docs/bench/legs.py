#!/usr/bin/env python3
"""What legs bring, and cost: Dubbo calls a second over one connection with 50 in flight, of which rules send all to one subset, or
every other one to a second; the latter also with one upstream at a time (NETRA_LEGS_MAX=1). In turns, as root:

    cargo build --release -p netra -p netra-init && docs/bench/legs.py

A pod (a network namespace) with netra on one shard and the client in it, the servers outside. They answer at once, or each
call after a millisecond. ROUNDS=5, SECONDS=2.
"""
import os, select, socket, statistics, struct, sys, time

sys.dont_write_bytecode = True
import stage
from stage import BIN, DIR, cpu, sh, spaces, start, write

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS", "2"))
IN_FLIGHT = 50
PORT = 20880
UID = 1337
HOST = "org.demo.svc"
BODY = b"\x052.0.2\x0corg.demo.Svc\x050.0.0\x08sayHello\x12Ljava/lang/String;\x03joeH\x02to"
ANSWER = b"\x91\x09hello joe"
ANSWER_LEN = 16 + len(ANSWER)


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


def ask(address, subsets):
    """Calls a second over one connection."""
    frames = [request(number, subsets[number % len(subsets)]) for number in range(4096)]
    with socket.create_connection((address, PORT), 10) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = answered = left = begun_at = 0
        # Its legs are there after the first few.
        warm, begun, end = 2000 if len(subsets) == 1 else 500, None, time.monotonic() + SECONDS + 3
        stream.sendall(b"".join(frames[:IN_FLIGHT]))
        sent = IN_FLIGHT
        while True:
            more = stream.recv(65536)
            if not more:
                raise SystemExit("the connection has ended")
            left += len(more)
            count, left = divmod(left, ANSWER_LEN)
            answered += count
            now = time.monotonic()
            if begun is None and answered >= warm:
                begun, begun_at = now, answered
            if begun is not None and now - begun >= SECONDS or now >= end:
                return (answered - begun_at) / (now - begun)
            if count:
                stream.sendall(b"".join(frames[at % 4096] for at in range(sent, sent + count)))
                sent += count


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
            for which, subsets in [("legs", "a"), ("legs", "ab"), ("one at a time", "ab")]:
                name, address, process, _, _ = pods[which]
                before = cpu(process)
                said = sh("ip", "netns", "exec", name, sys.executable, os.path.abspath(__file__), "ask", address, subsets)
                calls = float(said)
                # The first round warms up.
                if number > 0:
                    rows.setdefault((after, which, subsets), []).append(calls)
    return rows


def show(rows):
    print("| servers answer | messages go to | calls a second (each round) | to one subset alone |\n|---|---|--:|--:|")
    for (after, which, subsets), each in rows.items():
        base = statistics.median(rows[after, "legs", "a"])
        mid = statistics.median(each)
        to = "one subset" if subsets == "a" else f"two subsets, {which}"
        print(f"| {'after 1 ms' if after else 'at once'} | {to} | {mid:.0f} ({', '.join(f'{value:.0f}' for value in each)}) | {mid / base:.2f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), float(sys.argv[3]))
    elif sys.argv[1:2] == ["ask"]:
        print(ask(sys.argv[2], sys.argv[3]))
    else:
        stage.run(lambda: show(measure()))
