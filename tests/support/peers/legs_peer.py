"""Messages of one connection that rules send to three servers: PROTOCOL HOST PORT SCENE, where PROTOCOL is dubbo, thrift
or redis. The servers are dubbo_peer.py, this with SCENE server and a NAME (thriftpy2), and redis-server; they are called one,
two and three. Each message has a number, which its answer must have. mix: 1000 messages to places that chance draws, of which 500 by weights, 50 open
at a time; kill, reload, drain: what takes long is asked of three, "asked" is said, and what came of it after a line was
read; half: the client ends its stream behind the last message."""
import random
import socket
import struct
import sys
import threading
import time

protocol, host, port, scene = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
NAMES = ["one", "two", "three"]
SPLIT = 3


def exactly(stream, count):
    got = b""
    while len(got) < count:
        more = stream.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got


class Dubbo:
    in_order = False

    def __init__(self):
        from dubbo.codec.hessian2 import Decoder, DubboRequest

        self.decoder, self.request = Decoder, DubboRequest

    def call(self, number, to, method, value):
        name = "org.apache.dubbo.samples.basic.api.DemoService"
        attachment = {"to": "split" if to == SPLIT else NAMES[to]}
        return self.request(number, True, "2.5.3", name, method, [value], attachment=attachment).encode()

    def quick(self, number, to):
        return self.call(number, to, "sayHello", str(number))

    def slow(self, number, seconds):
        return self.call(number, 2, "wait", seconds)

    def take(self, stream):
        answer = self.decoder(stream).decode()
        said = answer.data if answer.ok else "refused: " + str(answer.error or answer.data)
        return answer.id, said.decode() if isinstance(said, bytes) else said

    def who(self, number, said):
        name, _, rest = str(said).partition(" ")
        return name if rest == str(number) else None


class Thrift:
    """Frames, strict binary. All of its messages have one id: only their order tells them apart."""

    in_order = True

    def frame(self, method, args):
        text = struct.pack(">Ii", 0x80010001, len(method)) + method + struct.pack(">i", 7) + args + b"\0"
        return struct.pack(">i", len(text)) + text

    def hello(self, service, name):
        name = name.encode()
        return self.frame(service.encode() + b":hello", struct.pack(">bhbhi", 12, 1, 11, 1, len(name)) + name + b"\0")

    def quick(self, number, to):
        return self.hello("split" if to == SPLIT else NAMES[to], str(number))

    def slow(self, number, seconds):
        return self.hello("three", f"wait {seconds}")

    def take(self, stream):
        text = exactly(stream, struct.unpack(">i", exactly(stream, 4))[0])
        at = 8 + struct.unpack(">i", text[4:8])[0] + 4
        length = struct.unpack(">i", text[at + 3 : at + 7])[0]
        said = text[at + 7 : at + 7 + length].decode()
        return None, "refused: " + said if text[3] == 3 else said

    def who(self, number, said):
        name, _, rest = said.partition(" ")
        return name if rest == str(number) else None

    def serve(self, name):
        import os

        import thriftpy2
        from thriftpy2.protocol import TBinaryProtocolFactory
        from thriftpy2.server import TThreadedServer
        from thriftpy2.thrift import TMultiplexedProcessor, TProcessor
        from thriftpy2.transport import TFramedTransportFactory, TServerSocket

        here = os.path.dirname(os.path.abspath(__file__))
        demo = thriftpy2.load(os.path.join(here, "demo.thrift"), module_name="demo_thrift")

        class Handler:
            def hello(self, r):
                if r.name.startswith("wait "):
                    time.sleep(float(r.name[5:]))
                return name + " " + r.name

        services = TMultiplexedProcessor()
        for service in [*NAMES, "split"]:
            services.register_processor(service, TProcessor(demo.Demo, Handler()))
        listener = TServerSocket(host=host, port=port, client_timeout=None)
        wire = {"iprot_factory": TBinaryProtocolFactory(), "itrans_factory": TFramedTransportFactory()}
        TThreadedServer(services, listener, **wire).serve()


class Redis:
    in_order = True

    def command(self, *words):
        return b"".join([f"*{len(words)}\r\n".encode()] + [f"${len(word)}\r\n{word}\r\n".encode() for word in words])

    def quick(self, number, to):
        return self.command("GET", f"{'split' if to == SPLIT else NAMES[to]}:{number}")

    def slow(self, number, seconds):
        return self.command("BLPOP", "three:none", str(seconds))

    def line(self, stream):
        got = b""
        while not got.endswith(b"\r\n"):
            got += exactly(stream, 1)
        return got[:-2].decode()

    def take(self, stream):
        line = self.line(stream)
        if line[0] == "-":
            return None, "refused: " + line
        if line[0] == "$" and int(line[1:]) >= 0:
            return None, exactly(stream, int(line[1:]) + 2)[:-2].decode()
        return None, "nothing"

    def who(self, number, said):
        name, _, rest = said.partition(" ")
        return name if rest == str(number) else None


wire = {"dubbo": Dubbo, "thrift": Thrift, "redis": Redis}[protocol]()
if scene == "server":
    wire.serve(sys.argv[5])
stream = socket.create_connection((host, port), 10)
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
# Number and place of what has not been answered, the oldest first.
waiting = {}
last = 0


def ask(to, seconds=None):
    global last
    last += 1
    waiting[last] = to
    stream.sendall(wire.quick(last, to) if seconds is None else wire.slow(last, seconds))
    return last


def answer():
    """The number of the message that is answered next, who says it, and what."""
    number, said = wire.take(stream)
    if wire.in_order:
        number = next(iter(waiting))
    del waiting[number]
    if str(said).startswith("refused"):
        return number, "refused", said
    return number, wire.who(number, said) or "?", said


def rest():
    """Takes all that is waited for; who answered, in the order of the numbers."""
    told = {}
    while waiting:
        number, who, _ = answer()
        told[number] = who
    return [told[number] for number in sorted(told)]


def say(*words):
    print(*words, flush=True)


def mix():
    chance, bad, split = random.Random(7), [], {}
    room = threading.Semaphore(50)
    places = [SPLIT] * 500 + [chance.choice([0, 1, 2]) for _ in range(500)]
    chance.shuffle(places)
    expected = dict(enumerate(places, 1))

    def send():
        for to in places:
            room.acquire()
            ask(to)

    sender = threading.Thread(target=send)
    sender.start()
    for _ in places:
        while not waiting:
            time.sleep(0.0005)
        number, who, said = answer()
        room.release()
        to = expected[number]
        if to == SPLIT:
            split[who] = split.get(who, 0) + 1
        elif who != NAMES[to]:
            bad.append((number, to, str(said)[:80]))
    sender.join()
    say("wrong", bad[:5], "split", sorted(split.items()))


def kill():
    # The first upstream is one's and three has a leg, or it is the other way round.
    for to in [0, 2] if scene == "kill" else [2, 0]:
        ask(to)
        rest()
    for _ in range(3):
        ask(2, 20)
    later = [ask(0) for _ in range(5)]
    if not wire.in_order:
        # Nobody waits for what another owes.
        assert sorted(answer()[0] for _ in later) == later
    say("asked")
    sys.stdin.readline()
    say("lost", *rest())
    for _ in range(5):
        ask(0)
    ask(2)
    ask(0)
    say("gone", *rest())
    sys.stdin.readline()
    for _ in range(3):
        ask(2)
    ask(0)
    say("back", *rest())


def reload():
    # Who is asked by name has a leg, and what takes a while is under way on one.
    for to in [0, 1, 2]:
        ask(to)
    say("before", *rest())
    ask(2, 2)
    say("asked")
    sys.stdin.readline()
    for _ in range(3):
        ask(2)
    told = []
    while waiting:
        number, who, said = answer()
        told.append((number, who if number != 4 else "slow"))
    say("after", *[who for _, who in sorted(told)])
    say("first", "slow" if told[0][1] == "slow" else "quick")


def drain():
    for to in [0, 1, 2]:
        ask(to)
    rest()
    for to in [0, 1, 2]:
        ask(to)
    ask(2, 1)
    say("asked")
    sys.stdin.readline()
    say("told", *rest()[:-1])


def half():
    for to in [0, 1, 2] * 10:
        ask(to)
    stream.shutdown(socket.SHUT_WR)
    told = rest()
    say("told", *[told.count(name) for name in NAMES])
    say("end", len(stream.recv(1)))


{"mix": mix, "kill": kill, "kill-first": kill, "reload": reload, "drain": drain, "half": half}[scene]()
