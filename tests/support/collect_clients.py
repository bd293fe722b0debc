"""Sends spans to a collector on this host in every way that there is, by clients that nobody here wrote: the
OpenTelemetry SDK with its exporters for OTLP, and jaeger-client's generated thrift.

collect_clients.py GRPC_PORT HTTP_PORT JAEGER_PORT COMPACT_PORT BINARY_PORT

Each way sends ten traces: WAY-front asks WAY-shop, which asks a database and fails once.
"""
import importlib.util
import json
import random
import socket
import sys
import time
import types
import urllib.request

# The package itself wants tornado, which its generated files do not.
found = importlib.util.find_spec("jaeger_client")
package = types.ModuleType("jaeger_client")
package.__path__ = list(found.submodule_search_locations)
sys.modules["jaeger_client"] = package

import grpc  # noqa: E402
from jaeger_client.thrift_gen.agent import Agent  # noqa: E402
from jaeger_client.thrift_gen.jaeger import ttypes  # noqa: E402
from opentelemetry import trace  # noqa: E402
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc  # noqa: E402
from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: E402
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http  # noqa: E402
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: E402
from thrift.protocol import TBinaryProtocol, TCompactProtocol  # noqa: E402
from thrift.transport import TTransport  # noqa: E402

GRPC, HTTP, JAEGER, COMPACT, BINARY = (int(port) for port in sys.argv[1:6])
TRACES = 10
DATABASE = {"db.system.name": "postgresql", "server.address": "db.test", "server.port": 5432}


def by_sdk(way, exporter):
    providers = []
    for service in ("front", "shop"):
        provider = TracerProvider(resource=Resource.create({"service.name": f"{way}-{service}"}))
        provider.add_span_processor(BatchSpanProcessor(exporter()))
        providers.append(provider)
    front, shop = (provider.get_tracer("clients") for provider in providers)
    kind = trace.SpanKind
    for number in range(TRACES):
        with front.start_as_current_span(f"GET /cart/{number}", kind=kind.SERVER):
            with front.start_as_current_span("ask", kind=kind.CLIENT):
                with shop.start_as_current_span("GET /offer", kind=kind.SERVER) as span:
                    span.add_event("thinking", {"about": "tea"})
                    with shop.start_as_current_span("SELECT", kind=kind.CLIENT, attributes=DATABASE) as query:
                        if number == 0:
                            query.set_status(trace.StatusCode.ERROR, "no such table")
    for provider in providers:
        provider.shutdown()


def signed(number):
    return number - (1 << 64) if number >= 1 << 63 else number


def tag(key, value):
    if isinstance(value, bool):
        return ttypes.Tag(key=key, vType=ttypes.TagType.BOOL, vBool=value)
    if isinstance(value, int):
        return ttypes.Tag(key=key, vType=ttypes.TagType.LONG, vLong=value)
    return ttypes.Tag(key=key, vType=ttypes.TagType.STRING, vStr=value)


def batches(way):
    """A batch of each service for each trace."""
    for number in range(TRACES):
        high, low, now = random.getrandbits(64), random.getrandbits(64), int(time.time() * 1e6) - 9000

        def span(own, parent, name, begin, took, kind, tags):
            return ttypes.Span(
                traceIdLow=signed(low), traceIdHigh=signed(high), spanId=own, parentSpanId=parent, operationName=name,
                references=None, flags=1, startTime=now + begin, duration=took,
                tags=[tag("span.kind", kind)] + [tag(key, value) for key, value in tags.items()],
                logs=[ttypes.Log(timestamp=now, fields=[tag("event", "thinking")])])

        failed = {"error": True} if number == 0 else {}
        yield ttypes.Batch(ttypes.Process(f"{way}-front", [tag("hostname", "h")]), [
            span(1, 0, f"/cart/{number}", 0, 9000, "server", {"http.status_code": 200}),
            span(2, 1, "ask", 1000, 7000, "client", {})])
        yield ttypes.Batch(ttypes.Process(f"{way}-shop", []), [
            span(3, 2, "/offer", 2000, 5000, "server", {}),
            span(4, 3, "SELECT", 3000, 3000, "client", DATABASE | failed)])


def written(form, batch, is_message):
    buffer = TTransport.TMemoryBuffer()
    protocol = form.getProtocol(buffer)
    if is_message:
        protocol.writeMessageBegin("emitBatch", 4, 0)
        Agent.emitBatch_args(batch=batch).write(protocol)
        protocol.writeMessageEnd()
    else:
        batch.write(protocol)
    return buffer.getvalue()


def post(port, path, kind, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"content-type": kind})
    with urllib.request.urlopen(request) as answer:
        return answer.status


def by_json():
    def attribute(key, value):
        kind = "intValue" if isinstance(value, int) else "stringValue"
        return {"key": key, "value": {kind: str(value)}}

    for number in range(TRACES):
        trace_id, now = f"{random.getrandbits(128):032x}", time.time_ns()
        for service, spans in (("front", [(1, 0, f"GET /cart/{number}", 2, {}), (2, 1, "ask", 3, {})]),
                               ("shop", [(3, 2, "GET /offer", 2, {}), (4, 3, "SELECT", 3, DATABASE)])):
            body = [{
                "traceId": trace_id, "spanId": f"{own:016x}", "parentSpanId": f"{parent:016x}" if parent else "",
                "name": name, "kind": kind, "startTimeUnixNano": str(now + own * 1000),
                "endTimeUnixNano": str(now + 9_000_000 - own * 1000),
                "attributes": [attribute(key, value) for key, value in tags.items()],
                "status": {"code": 2} if own == 4 and number == 0 else {},
            } for own, parent, name, kind, tags in spans]
            resource = {"attributes": [attribute("service.name", f"json-{service}")]}
            whole = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": body}]}]}
            assert post(HTTP, "/v1/traces", "application/json", json.dumps(whole).encode()) == 200


by_sdk("grpc", lambda: Grpc(endpoint=f"http://127.0.0.1:{GRPC}", insecure=True))
by_sdk("grpcgz", lambda: Grpc(endpoint=f"http://127.0.0.1:{GRPC}", insecure=True, compression=grpc.Compression.Gzip))
by_sdk("http", lambda: Http(endpoint=f"http://127.0.0.1:{HTTP}/v1/traces"))
by_sdk("httpgz", lambda: Http(endpoint=f"http://127.0.0.1:{HTTP}/v1/traces", compression=Compression.Gzip))
by_json()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for way, port, form in (("compact", COMPACT, TCompactProtocol.TCompactProtocolFactory()),
                        ("binary", BINARY, TBinaryProtocol.TBinaryProtocolFactory())):
    for batch in batches(way):
        udp.sendto(written(form, batch, True), ("127.0.0.1", port))
for batch in batches("thrift"):
    body = written(TBinaryProtocol.TBinaryProtocolFactory(), batch, False)
    assert post(JAEGER, "/api/traces?format=jaeger.thrift", "application/x-thrift", body) == 202
print("sent")
