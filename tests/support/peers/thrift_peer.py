"""The service of demo.thrift by thriftpy2, which is a stack of its own: server|client|calls HOST PORT
TRANSPORT PROTOCOL [GREETING|COUNT METHOD]. The client says what each call came to; calls counts the
answers to so many calls of hello or told."""
import os
import sys

import thriftpy2
from thriftpy2.protocol import TCompactProtocolFactory, TCyBinaryProtocolFactory
from thriftpy2.rpc import client_context, make_server
from thriftpy2.thrift import TApplicationException
from thriftpy2.transport import TBufferedTransportFactory, TFramedTransportFactory

role, host, port, transport, protocol = sys.argv[1:6]
greeting = sys.argv[6] if len(sys.argv) > 6 else "hello"
here = os.path.dirname(os.path.abspath(__file__))
demo = thriftpy2.load(os.path.join(here, "demo.thrift"), module_name="demo_thrift")
transports = {"framed": TFramedTransportFactory, "buffered": TBufferedTransportFactory}
protocols = {
    "binary": TCyBinaryProtocolFactory,
    "lax": lambda: TCyBinaryProtocolFactory(strict_read=False, strict_write=False),
    "compact": TCompactProtocolFactory,
}
wire = {"trans_factory": transports[transport](), "proto_factory": protocols[protocol]()}


class Handler:
    def __init__(self):
        self.seen = []

    def hello(self, r):
        if r.name == "bad":
            raise demo.Oops(why="bad name", code=7)
        return f"{greeting} {r.name} {len(r.tags or {})} {len(r.ids or [])}"

    def add(self, a, b):
        return a + b

    def nothing(self):
        pass

    def tell(self, s):
        self.seen.append(s)

    def told(self):
        return str(len(self.seen) > 0)

    def big(self, n):
        return "x" * n


def serve():
    server = make_server(demo.Demo, Handler(), host, int(port), client_timeout=None, **wire)
    server.serve()


def ask():
    with client_context(demo.Demo, host, int(port), socket_timeout=8000, connect_timeout=8000, **wire) as c:

        def tried(name, call):
            try:
                print(f"{name}={call()!r}")
            except demo.Oops as error:
                print(f"{name}!Oops({error.why},{error.code})")
            except TApplicationException as error:
                print(f"{name}!TApplicationException({error.type})")

        tried("hello", lambda: c.hello(demo.Req(name="joe", tags={"a": "b"}, ids=[1, 2**40])))
        tried("add", lambda: c.add(-3, 2**33))
        tried("nothing", c.nothing)
        tried("bad", lambda: c.hello(demo.Req(name="bad")))
        tried("tell", lambda: c.tell("psst"))
        tried("told", c.told)
        tried("big", lambda: len(c.big(3 << 20)))


def ask_many(count, method):
    from collections import Counter

    counted = Counter()
    with client_context(demo.Demo, host, int(port), socket_timeout=8000, connect_timeout=8000, **wire) as c:
        for _ in range(int(count)):
            try:
                counted[c.hello(demo.Req(name="joe")) if method == "hello" else c.told()] += 1
            except TApplicationException:
                counted["refused"] += 1
    for answer, number in sorted(counted.items()):
        print(number, answer)


if role == "calls":
    ask_many(*sys.argv[6:8])
else:
    serve() if role == "server" else ask()
