#!/usr/bin/env python3
"""PostgreSQL, MySQL and Kafka through netra and its peers, in turns: CPU of the proxy for each 100,000 statements
or messages. As root, with postgresql, mariadb-server, haproxy and, if they are there, pgbouncer and nftables:

    cargo build --release -p netra -p netra-init && docs/bench/databases.py

The servers are in one network namespace, and clients in four: with a netra that only relays, one that reads, one
that makes a span of each exchange, each with the rules of netra-init; and one with HAProxy and pgbouncer, which
are dialled where they listen. A proxy is beside the client, as a sidecar is, with one worker. Loads: `pgbench -S`
(prepared), a point select by mariadb-slap, and a Kafka producer of its own, of one record of 1 KiB in each request,
16 of them on their way at a time, and of batches of 1 MiB, to a broker that counts and answers.
"""
import os, re, shutil, socket, statistics, struct, subprocess, sys, threading, time

sys.dont_write_bytecode = True
import stage
from stage import BIN, DIR, cpu, sh, spaces, start, within, write

ROUNDS = int(os.environ.get("ROUNDS", "5"))
# Of each round: statements of each database, messages of 1 KiB; and batches of 1 MiB.
STATEMENTS = int(os.environ.get("STATEMENTS", "60000"))
BATCHES = int(os.environ.get("BATCHES", "1000"))
# Only loads that have this in their name.
ONLY = os.environ.get("ONLY", "")
NETRA_UID, NOBODY = 1337, 65534
POSTGRESQL, MYSQL, KAFKA, BOUNCER = 5432, 3306, 9092, 6432
READ = f"{POSTGRESQL}=postgresql,{MYSQL}=mysql,{KAFKA}=kafka"
SERVERS, PLAIN = "ndbserver", "ndb4"


def until(what, succeeds):
    for _ in range(200):
        if succeeds():
            return
        time.sleep(0.1)
    raise SystemExit(f"{what} does not answer; its log is in {DIR}")


def answers(*words):
    return lambda: subprocess.run(words, capture_output=True).returncode == 0


def space_of_clients(number):
    name = stage.space_beside(SERVERS, "ndb", number, "10.98")
    return name, f"10.98.{number}.1"


def tool(name):
    places = [f"/usr/lib/postgresql/{version}/bin/{name}" for version in sorted(
        os.listdir("/usr/lib/postgresql"), reverse=True)] if os.path.isdir("/usr/lib/postgresql") else []
    found = next((place for place in places if os.path.exists(place)), None) or shutil.which(name)
    return found or sys.exit(f"there is no {name}")


def servers():
    data, maria = f"{DIR}/pg", f"{DIR}/maria"
    for place in (data, maria):
        os.mkdir(place)
        os.chown(place, NOBODY, NOBODY)
    sh(*within(SERVERS, [tool("initdb"), "-D", data, "-U", "bench", "--auth=trust", "--no-sync", "--locale=C"], NOBODY),
       cwd=DIR)
    with open(f"{data}/pg_hba.conf", "w") as file:
        file.write("local all all trust\nhost all all 0.0.0.0/0 trust\n")
    start(SERVERS, [tool("postgres"), "-D", data, "-c", "listen_addresses=*", "-c", "fsync=off",
                    "-c", f"unix_socket_directories={data}"], user=NOBODY)
    sh(*within(SERVERS, [tool("mariadb-install-db"), "--no-defaults", f"--datadir={maria}", "--skip-test-db",
                         "--auth-root-authentication-method=normal"], NOBODY), cwd=DIR)
    start(SERVERS, [tool("mariadbd"), "--no-defaults", f"--datadir={maria}", f"--socket={maria}/s", f"--port={MYSQL}",
                    "--bind-address=*", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0",
                    f"--pid-file={maria}/pid"], user=NOBODY)
    start(SERVERS, [sys.executable, os.path.abspath(__file__), "broker"])
    by_socket = ["-h", data, "-U", "bench", "-d", "postgres"]
    until("PostgreSQL", answers(tool("psql"), *by_socket, "-Atc", "select 1"))
    sh(tool("pgbench"), "-i", "-q", "-s", "1", "-h", data, "-U", "bench", "postgres")
    root = [tool("mariadb"), "--no-defaults", f"--socket={maria}/s", "-u", "root", "-e"]
    until("MariaDB", answers(*root, "select 1"))
    sh(*root, "create user bench@'%'; grant all on *.* to bench@'%'; create database bench; use bench;"
       "create table points (id int primary key, v char(40)); insert into points select seq, 'v' from seq_1_to_1000")


SINK = """import socket
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(('127.0.0.1', 6831))
while True: sink.recv(65535)"""


def netra(space, protocols, probability):
    stage.intercept(space, NETRA_UID)
    start(space, [sys.executable, "-c", SINK])
    return start(space, [f"{BIN}/netra", "--service-name", "bench"], user=NETRA_UID, env={
        "NETRA_SHARDS": "1", "JAEGER_AGENT_HOST": "127.0.0.1", "JAEGER_AGENT_PORT": "6831",
        "JAEGER_SAMPLER_TYPE": "const", "JAEGER_SAMPLER_PARAM": probability,
        # What else is set, such as NETRA_IO, is for all of them.
        **{name: value for name, value in os.environ.items() if name.startswith("NETRA_") and name != "NETRA_BIN_DIR"},
        **({"NETRA_PROTOCOLS": protocols} if protocols else {})})


def peers(space, host):
    """The peers, and by load what they are dialled as."""
    ways = "".join(f"listen l{port}\n  bind 127.0.0.1:1{port:04}\n  server s {host}:{port}\n"
                   for port in (POSTGRESQL, MYSQL, KAFKA))
    haproxy = write("haproxy.cfg", f"""global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
{ways}""")
    dialled = {port: ("127.0.0.1", 10000 + port) for port in (POSTGRESQL, MYSQL, KAFKA)}
    found = {"HAProxy tcp": (start(space, ["haproxy", "-f", haproxy]), space, dialled)}
    if shutil.which("pgbouncer") or os.path.exists("/usr/sbin/pgbouncer"):
        bouncer = write("pgbouncer.ini", f"""[databases]
postgres = host={host} port={POSTGRESQL} user=bench dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {BOUNCER}
auth_type = any
pool_mode = session
unix_socket_dir =
""")
        words = [shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", bouncer]
        found["pgbouncer, session"] = (start(space, words, user=NOBODY), space, {POSTGRESQL: ("127.0.0.1", BOUNCER)})
    return found


def pgbench(space, host, port):
    clients = 8
    each = max(1, STATEMENTS // clients)
    said = sh(*within(space, [tool("pgbench"), "-S", "-M", "prepared", "-n", "-c", str(clients), "-j", "1", "-t", str(each),
                              "-h", host, "-p", str(port), "-U", "bench", "postgres"]))
    if f"{clients * each}/{clients * each}" not in said:
        raise SystemExit(said)
    return clients * each


def point_select(space, host, port):
    sh(*within(space, [tool("mariadb-slap"), "--no-defaults", f"--host={host}", f"--port={port}", "--protocol=tcp",
                       "--user=bench", "--skip-ssl", "--create-schema=bench", "--no-drop", "--concurrency=8",
                       f"--number-of-queries={STATEMENTS}", "--query=select v from points where id = 42"]))
    return STATEMENTS


def produce(count, size):
    def load(space, host, port):
        said = sh(*within(space, [sys.executable, os.path.abspath(__file__), "produce", host, str(port), str(count), str(size)]))
        if int(said) != count:
            raise SystemExit(f"{said} of {count} messages were answered")
        return count
    return load


LOADS = {
    "pgbench -S, prepared": (POSTGRESQL, pgbench, 100_000),
    "MySQL point select": (MYSQL, point_select, 100_000),
    "Kafka, 1 KiB each": (KAFKA, produce(STATEMENTS, 1 << 10), 100_000),
    "Kafka, batches of 1 MiB": (KAFKA, produce(BATCHES, 1 << 20), 1_000),
}


LOADS = {name: load for name, load in LOADS.items() if ONLY in name}


def spliced(space):
    """Bytes that its netra has spliced so far."""
    said = sh(*within(space, [sys.executable, "-c", "import urllib.request as u; "
                              "print(u.urlopen('http://127.0.0.1:14958/metrics').read().decode())"]))
    return sum(float(value) for value in re.findall(r"^netra_splice_bytes\S* (\S+)$", said, re.M))


def measure():
    spaces.append(SERVERS)
    sh("ip", "netns", "add", SERVERS)
    sh("ip", "-n", SERVERS, "link", "set", "lo", "up")
    os.chmod(DIR, 0o755)
    clients = [space_of_clients(number) for number in range(1, 5)]
    servers()
    kinds = {"netra, opaque": ("", "0"), "netra, read, no spans": (READ, "0"), "netra, each a span": (READ, "1")}
    subjects = {}
    for (name, how), (space, host) in zip(kinds.items(), clients):
        subjects[name] = (netra(space, *how), space, {port: (host, port) for port in (POSTGRESQL, MYSQL, KAFKA)})
    subjects.update(peers(*clients[3]))
    for name, (process, space, dialled) in subjects.items():
        dials = f"import socket; socket.create_connection({next(iter(dialled.values()))!r}, 2)"
        until(name, lambda: process.poll() is None and answers(*within(space, [sys.executable, "-c", dials]))())
    rows = {load: {} for load in LOADS}
    order = list(subjects.items())
    for number in range(ROUNDS):
        for load, (port, run, unit) in LOADS.items():
            for name, (process, space, dialled) in order[number % len(order):] + order[:number % len(order)]:
                if port not in dialled:
                    continue
                bulk = spliced(space) if space != PLAIN and "MiB" in load else None
                before, began = cpu(process), time.monotonic()
                count = run(space, *dialled[port])
                took = time.monotonic() - began
                row = rows[load].setdefault(name, {"cpu": [], "rate": [], "spliced": []})
                row["cpu"].append((cpu(process) - before) * unit / count)
                row["rate"].append(count / took)
                if bulk is not None:
                    row["spliced"].append((spliced(space) - bulk) / (count << 20))
    return rows


def show(rows):
    """Ratios are of the same round, so that what a machine does at a time says nothing about a subject."""
    mid = statistics.median
    for load, subjects in rows.items():
        unit = LOADS[load][2]
        beside = [name for name in ("netra, opaque", "HAProxy tcp", "pgbouncer, session") if name in subjects]
        print(f"\n| {load} | CPU s per {unit:,} (each round) | a second |" + "".join(f" of {name} |" for name in beside), end="")
        print(" spliced |" if "MiB" in load else "")
        print("|---|--:|--:|" + "--:|" * len(beside) + ("--:|" if "MiB" in load else ""))
        for name, row in subjects.items():
            each = ", ".join(f"{value:.2f}" for value in row["cpu"])
            cells = [f"{mid(row['cpu']):.2f} ({each})", f"{mid(row['rate']):,.0f}"]
            for other in beside:
                ratios = [own / its for own, its in zip(row["cpu"], subjects[other]["cpu"])]
                cells.append("" if other == name else f"{mid(ratios):.2f}")
            if "MiB" in load:
                cells.append(f"{mid(row['spliced']):.0%}" if row["spliced"] else "")
            print(f"| {name} | " + " | ".join(cells) + " |")


# Kafka, as its protocol guide has it: Produce in version 7.
def record_batch(size):
    varint = lambda value: varint_of(value << 1)
    value = bytes(size)
    record = b"\0" + varint(0) + varint(0) + b"\1" + varint(len(value)) + value + varint(0)
    record = varint(len(record)) + record
    rest = struct.pack(">HIqqqhiI", 0, 0, 0, 0, -1, -1, -1, 1) + record
    # Nobody looks at the checksum here: neither a proxy nor this broker.
    behind = struct.pack(">IBI", 0, 2, 0) + rest
    return struct.pack(">qI", 0, len(behind)) + behind


def varint_of(value):
    out = b""
    while value > 0x7f:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


def produce_request(size):
    """A request without its number: what comes before that, and behind it."""
    batch = record_batch(size)
    text = lambda name: struct.pack(">h", len(name)) + name
    behind = text(b"bench") + struct.pack(">hhiI", -1, 1, 30000, 1) + text(b"orders") + struct.pack(">IiI", 1, 0, len(batch)) + batch
    return struct.pack(">Ihh", 8 + len(behind), 0, 7), behind


ANSWER = struct.pack(">I", 1) + struct.pack(">h", 6) + b"orders" + struct.pack(">Iihqqq", 1, 0, 0, 0, -1, 0) + struct.pack(">i", 0)
ANSWER_LEN = 8 + len(ANSWER)
WINDOW = 16


def producer(host, port, count, size):
    """Sends so many requests, of which never more than the window are unanswered; prints how many were answered."""
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    before, behind = produce_request(size)
    sent = answered = 0
    rest = b""
    while answered < count:
        room = min(WINDOW - (sent - answered), count - sent)
        if room > 0:
            numbers = range(sent, sent + room)
            connection.sendall(b"".join(before + struct.pack(">I", number) + behind for number in numbers))
            sent += room
        rest += connection.recv(1 << 16) or sys.exit("the broker is gone")
        while len(rest) >= ANSWER_LEN:
            if struct.unpack_from(">II", rest) != (4 + len(ANSWER), answered):
                sys.exit("an answer that nobody waits for")
            rest, answered = rest[ANSWER_LEN:], answered + 1
    print(answered)


def answer_all(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    room = bytearray(1 << 20)
    # Bytes of a request that are still to come and mean nothing; else the beginning of one.
    left, number, head = 0, 0, b""
    while count := connection.recv_into(room):
        at, out = 0, []
        while at < count:
            if left:
                step = min(left, count - at)
                left, at = left - step, at + step
                if not left:
                    out.append(struct.pack(">II", 4 + len(ANSWER), number) + ANSWER)
                continue
            step = min(12 - len(head), count - at)
            head, at = head + bytes(room[at:at + step]), at + step
            if len(head) == 12:
                size, _, _, number = struct.unpack(">IhhI", head)
                left, head = size - 8, b""
        if out:
            connection.sendall(b"".join(out))


def broker():
    listener = socket.create_server(("", KAFKA))
    while True:
        threading.Thread(target=answer_all, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["broker"]:
            broker()
        case ["produce", host, port, count, size]:
            producer(host, int(port), int(count), int(size))
        case _:
            stage.run(lambda: show(measure()))
