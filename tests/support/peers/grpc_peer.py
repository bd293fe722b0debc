"""gRPC as people use it: grpcio and grpclib, each as server and as client, without generated code."""

import asyncio
import sys
import threading
import time

import grpc

UNARY, SERVER, CLIENT, BOTH = "Unary", "ServerStream", "ClientStream", "BothStream"


def answer(request, context):
    """What every server does: the request says what is wanted."""
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 5 \u20ac")
    if request == b"broken":
        raise RuntimeError("broken")
    if request == b"slow":
        time.sleep(2)
    seen = dict(context.invocation_metadata())
    context.set_trailing_metadata((("seen", seen.get("told", "-")),))
    has_id = "x-request-id" in seen
    return request + (b"+id" if has_id else b"-id")


def stream_out(request, context):
    if request == b"forever":
        n = 0
        while context.is_active() and n < 1000:
            yield b"tick"
            n += 1
            time.sleep(0.02)
        return
    for n in range(int(request)):
        yield b"%d" % n


def stream_in(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request


class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        return {
            UNARY: grpc.unary_unary_rpc_method_handler(answer),
            SERVER: grpc.unary_stream_rpc_method_handler(stream_out),
            CLIENT: grpc.stream_unary_rpc_method_handler(stream_in),
            BOTH: grpc.stream_stream_rpc_method_handler(both),
        }.get(name)


class Front(grpc.GenericRpcHandler):
    """An application: what it is asked, it asks another, and it hands on the request id alone."""

    def __init__(self, other):
        self.other = other

    def service(self, details):
        def ask(request, context):
            seen = dict(context.invocation_metadata())
            told = (("x-request-id", seen["x-request-id"]),)
            with grpc.insecure_channel(self.other) as channel:
                return channel.unary_unary("/shop.Back/Unary")(request, metadata=told, timeout=10)

        return grpc.unary_unary_rpc_method_handler(ask)


def serve(host, port, handlers):
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(40), handlers=(handlers,))
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    server.wait_for_termination()


def code(call):
    try:
        result = call()
        return f"OK {result}"
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()!r}"


def client(host, port):
    channel = grpc.insecure_channel(f"{host}:{port}")
    unary = channel.unary_unary("/shop.Cart/Unary")
    say = lambda name, what: print(f"{name}: {what}")
    told = (("told", "x" * 300), ("some-bin", b"\0\1\2"))
    say("unary", [code(lambda: unary(b"%d" % n, metadata=told)[:-3]) for n in range(20)])
    _, call = unary.with_call(b"x", metadata=told)
    say("trailing", [value for key, value in call.trailing_metadata() if key == "seen"])
    large = b"l" * 1_000_000
    say("large", unary(large)[:-3] == large)
    gzip = grpc.Compression.Gzip
    say("compressed", unary(b"z" * 10_000, compression=gzip)[:-3] == b"z" * 10_000)
    say("missing", code(lambda: unary(b"missing")))
    say("broken", code(lambda: unary(b"broken")))
    say("nowhere", code(lambda: channel.unary_unary("/shop.Cart/Nowhere")(b"x")))
    say("deadline", code(lambda: unary(b"slow", timeout=0.3)))
    out = channel.unary_stream("/shop.Cart/ServerStream")
    say("out", [b"".join(out(b"100")) == b"".join(b"%d" % n for n in range(100))])
    ticks = out(b"forever")
    next(ticks)
    ticks.cancel()
    say("cancelled", code(lambda: list(ticks)))
    into = channel.stream_unary("/shop.Cart/ClientStream")
    say("into", into(iter([b"abc"] * 50)))
    echo = channel.stream_stream("/shop.Cart/BothStream")
    say("both", list(echo(iter([b"%d" % n for n in range(50)]))) == [b"%d" % n for n in range(50)])
    many = [threading.Thread(target=lambda: [unary(b"many") for _ in range(25)]) for _ in range(8)]
    [thread.start() for thread in many]
    [thread.join() for thread in many]
    say("many", "done")


def known_server(host, port):
    """What tools ask every server: whether it is well, and what it offers."""
    from concurrent.futures import ThreadPoolExecutor

    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection

    server = grpc.server(ThreadPoolExecutor(8))
    wellness = health.HealthServicer()
    wellness.set("shop.Cart", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(wellness, server)
    reflection.enable_server_reflection((health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    server.wait_for_termination()


def known_client(host, port):
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    channel = grpc.insecure_channel(f"{host}:{port}")
    stub = health_pb2_grpc.HealthStub(channel)
    asked = lambda name: health_pb2.HealthCheckRequest(service=name)
    print("check", [code(lambda: stub.Check(asked(name)).status) for name in ("", "shop.Cart", "no")])
    watched = stub.Watch(asked("shop.Cart"))
    print("watch", next(watched).status)
    watched.cancel()
    print("watched", code(lambda: list(watched)))
    database = ProtoReflectionDescriptorDatabase(channel)
    print("services", sorted(database.get_services()))
    service = DescriptorPool(database).FindServiceByName("grpc.health.v1.Health")
    print("methods", [method.name for method in service.methods])
    channel.close()


class Pure:
    """The same service as grpclib has it."""

    def __mapping__(self):
        import grpclib.const
        import grpclib.server

        async def unary(stream):
            request = await stream.recv_message()
            if request == b"missing":
                raise grpclib.GRPCError(grpclib.const.Status.NOT_FOUND, "none")
            await stream.send_message(request)

        async def out(stream):
            for n in range(int(await stream.recv_message())):
                await stream.send_message(b"%d" % n)

        async def both_ways(stream):
            async for message in stream:
                await stream.send_message(message)

        kinds = grpclib.const.Cardinality
        handler = lambda call, kind: grpclib.const.Handler(call, kind, None, None)
        return {
            "/shop.Pure/Unary": handler(unary, kinds.UNARY_UNARY),
            "/shop.Pure/ServerStream": handler(out, kinds.UNARY_STREAM),
            "/shop.Pure/BothStream": handler(both_ways, kinds.STREAM_STREAM),
        }


class Bytes:
    __content_subtype__ = "proto"

    def encode(self, message, _):
        return message

    def decode(self, data, _):
        return data


async def pure_server(host, port):
    import grpclib.server

    server = grpclib.server.Server([Pure()], codec=Bytes())
    await server.start(host, int(port))
    await server.wait_closed()


async def pure_client(host, port):
    import grpclib.client as clients

    channel = clients.Channel(host, int(port), codec=Bytes())
    unary = clients.UnaryUnaryMethod(channel, "/shop.Pure/Unary", None, None)
    print("unary", await asyncio.gather(*(unary(b"%d" % n) for n in range(30))))
    try:
        await unary(b"missing")
    except Exception as error:
        print("missing", error)
    out = clients.UnaryStreamMethod(channel, "/shop.Pure/ServerStream", None, None)
    print("out", len(await out(b"40")))
    echo = clients.StreamStreamMethod(channel, "/shop.Pure/BothStream", None, None)
    print("both", len(await echo([b"x" * n for n in range(40)])))
    channel.close()


def main(what, host, port, *more):
    if what == "server":
        serve(host, port, Handlers())
    elif what == "front":
        serve(host, port, Front(more[0]))
    elif what == "client":
        client(host, port)
    elif what == "ask":
        channel = grpc.insecure_channel(f"{host}:{port}")
        ask = channel.unary_unary("/shop.Front/Ask")
        print([ask(b"%d" % n, timeout=10) for n in range(10)])
    elif what == "hold":
        channel = grpc.insecure_channel(f"{host}:{port}")
        ticks = channel.unary_stream("/shop.Cart/ServerStream")(b"forever")
        [next(ticks) for _ in range(100)]
        ticks.cancel()
        channel.close()
    elif what == "known-server":
        known_server(host, port)
    elif what == "known-client":
        known_client(host, port)
    elif what == "pure-server":
        asyncio.run(pure_server(host, port))
    elif what == "pure-client":
        asyncio.run(pure_client(host, port))


main(*sys.argv[1:])
