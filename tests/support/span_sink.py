#!/usr/bin/env python3
"""Receives spans, and metrics over OTLP, in every form that netra sends and writes each as a line of JSON.

The decoders are nobody's here: jaeger-client's generated thrift over Apache thrift, opentelemetry-proto
and grpcio. The first line says the ports: {"ready": {"agent": 1, "collector": 2, "otlp_http": 3, "otlp_grpc": 4}}.
Arguments, all optional: agent=PORT collector=PORT otlp_http=PORT otlp_grpc=PORT host=ADDRESS;
agent=6831 and so on take fixed ports, 0 any free one. It ends when its standard input does.
With SINK_TLS=FOLDER in the environment, collector, otlp_http and otlp_grpc speak TLS (OpenSSL's and BoringSSL's),
with server.pem and server.key of that folder; where clients.pem is there, too, clients must show a certificate of its.
"""
import gzip
import importlib.util
import json
import os
import socket
import ssl
import sys
import threading
import types
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The package's own __init__ wants a whole tracer; only its generated code is of use here.
found = importlib.util.find_spec("jaeger_client")
package = types.ModuleType("jaeger_client")
package.__path__ = list(found.submodule_search_locations)
sys.modules["jaeger_client"] = package

import grpc  # noqa: E402
from jaeger_client.thrift_gen.agent import Agent  # noqa: E402
from jaeger_client.thrift_gen.jaeger import ttypes  # noqa: E402
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as otlp_metrics  # noqa: E402
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as otlp_metrics_grpc  # noqa: E402
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp  # noqa: E402
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc  # noqa: E402
from thrift.protocol.TBinaryProtocol import TBinaryProtocol  # noqa: E402
from thrift.protocol.TCompactProtocol import TCompactProtocol  # noqa: E402
from thrift.transport.TTransport import TMemoryBuffer  # noqa: E402

lock = threading.Lock()


def say(line):
    with lock:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def unsigned(number):
    return number & (2**64 - 1)


KINDS = {0: ("string", "vStr"), 1: ("double", "vDouble"), 2: ("bool", "vBool"), 3: ("long", "vLong")}


def tags_of(tags):
    """[[key, type, value], ...] in the order in which they came."""
    return [[t.key, KINDS[t.vType][0], getattr(t, KINDS[t.vType][1])] for t in tags or []]


def say_batch(via, batch, size, headers=None):
    process = {"service": batch.process.serviceName, "tags": tags_of(batch.process.tags)}
    for s in batch.spans:
        say({
            "via": via, "bytes": size, "batch": len(batch.spans), "headers": headers, "process": process,
            "trace_id": "%016x%016x" % (unsigned(s.traceIdHigh), unsigned(s.traceIdLow)),
            "span_id": "%016x" % unsigned(s.spanId), "parent_id": "%016x" % unsigned(s.parentSpanId),
            "name": s.operationName, "flags": s.flags, "start_us": s.startTime, "duration_us": s.duration,
            "tags": tags_of(s.tags),
            "links": [["%016x%016x" % (unsigned(r.traceIdHigh), unsigned(r.traceIdLow)), "%016x" % unsigned(r.spanId),
                       r.refType] for r in s.references or []],
        })


def attribute(pair):
    kind = pair.value.WhichOneof("value")
    name = {"string_value": "string", "int_value": "long", "bool_value": "bool", "double_value": "double"}[kind]
    return [pair.key, name, getattr(pair.value, kind)]


def say_otlp(via, request, size, headers):
    for resource in request.resource_spans:
        tags = [attribute(pair) for pair in resource.resource.attributes]
        service = next((tag[2] for tag in tags if tag[0] == "service.name"), None)
        for scope in resource.scope_spans:
            for s in scope.spans:
                say({
                    "via": via, "bytes": size, "batch": len(scope.spans), "headers": headers,
                    "process": {"service": service, "tags": tags}, "scope": scope.scope.name,
                    "trace_id": s.trace_id.hex(), "span_id": s.span_id.hex(),
                    "parent_id": s.parent_span_id.hex() or "0" * 16, "name": s.name, "kind": s.kind,
                    "flags": s.flags, "status": s.status.code, "start_us": s.start_time_unix_nano // 1000,
                    "duration_us": (s.end_time_unix_nano - s.start_time_unix_nano) // 1000,
                    "tags": [attribute(pair) for pair in s.attributes],
                    "links": [[link.trace_id.hex(), link.span_id.hex()] for link in s.links],
                })


def say_metrics(via, request, size, headers):
    """One line a push: {"metrics": {name: {"kind", "unit", "temporality", "points", "total"}}}."""
    found = {}
    for resource in request.resource_metrics:
        tags = [attribute(pair) for pair in resource.resource.attributes]
        for scope in resource.scope_metrics:
            for m in scope.metrics:
                kind = m.WhichOneof("data")
                data = getattr(m, kind)
                points = data.data_points
                total = sum(p.count if hasattr(p, "count") else p.as_int + p.as_double for p in points)
                found[m.name] = {
                    "kind": kind, "unit": m.unit, "temporality": getattr(data, "aggregation_temporality", 0),
                    "points": len(points), "total": total,
                    "monotonic": getattr(data, "is_monotonic", None),
                    "buckets": [sum(p.bucket_counts) if kind == "histogram" else
                                sum(p.positive.bucket_counts) + p.zero_count for p in points]
                    if "istogram" in kind else None,
                    "start": min(p.start_time_unix_nano for p in points),
                    "time": max(p.time_unix_nano for p in points),
                }
        say({"via": via, "bytes": size, "headers": headers, "process": {"tags": tags}, "metrics": found})


def response(request):
    """Spans with "reject" in their name are not taken, and the answer says so behind a success."""
    spans = [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    rejected = sum("reject" in s.name for s in spans)
    if not rejected:
        return otlp.ExportTraceServiceResponse()
    partial = otlp.ExportTracePartialSuccess(rejected_spans=rejected, error_message="over\n\u202equota")
    return otlp.ExportTraceServiceResponse(partial_success=partial)


class Posted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        size, headers = len(body), {k.lower(): v for k, v in self.headers.items()}
        headers[":path"] = self.path
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        answer = b""
        try:
            answer = self.take(body, size, headers) or b""
        except Exception as error:  # said, and seen by the test
            say({"via": "error", "what": repr(error), "hex": body[:64].hex()})
        self.send_response(self.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Collector(Posted):
    status = 202

    def take(self, body, size, headers):
        batch = ttypes.Batch()
        batch.read(TBinaryProtocol(TMemoryBuffer(body)))
        say_batch("collector", batch, size, headers)


class OtlpHttp(Posted):
    status = 200

    def take(self, body, size, headers):
        if self.path.endswith("/metrics"):
            request = otlp_metrics.ExportMetricsServiceRequest()
            request.ParseFromString(body)
            say_metrics("metrics_http", request, size, headers)
            return otlp_metrics.ExportMetricsServiceResponse().SerializeToString()
        request = otlp.ExportTraceServiceRequest()
        request.ParseFromString(body)
        say_otlp("otlp_http", request, size, headers)
        return response(request).SerializeToString()


class OtlpGrpc(otlp_grpc.TraceServiceServicer):
    def Export(self, request, context):
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        say_otlp("otlp_grpc", request, request.ByteSize(), headers)
        return response(request)


class OtlpMetricsGrpc(otlp_metrics_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        say_metrics("metrics_grpc", request, request.ByteSize(), headers)
        return otlp_metrics.ExportMetricsServiceResponse()


def agent(sock):
    while True:
        packet, _ = sock.recvfrom(65536)
        try:
            protocol = TCompactProtocol(TMemoryBuffer(packet))
            name, _, _ = protocol.readMessageBegin()
            args = Agent.emitBatch_args()
            args.read(protocol)
            assert name == "emitBatch", name
            say_batch("agent", args.batch, len(packet))
        except Exception as error:
            say({"via": "error", "what": repr(error), "hex": packet[:64].hex()})


def encrypted(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder + "/server.pem", folder + "/server.key")
    context.set_alpn_protocols(["http/1.1"])
    if os.path.exists(folder + "/clients.pem"):
        context.load_verify_locations(folder + "/clients.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def grpc_credentials(folder):
    def text(name):
        with open(folder + "/" + name, "rb") as file:
            return file.read()

    clients = text("clients.pem") if os.path.exists(folder + "/clients.pem") else None
    return grpc.ssl_server_credentials(
        [(text("server.key"), text("server.pem"))], root_certificates=clients,
        require_client_auth=clients is not None)


def main():
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    host = given.get("host", "127.0.0.1")
    ports = {name: int(given.get(name, 0)) for name in ("agent", "collector", "otlp_http", "otlp_grpc")}
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind((host, ports["agent"]))
    ports["agent"] = sock.getsockname()[1]
    threading.Thread(target=agent, args=(sock,), daemon=True).start()
    tls = os.environ.get("SINK_TLS")
    for name, handler in (("collector", Collector), ("otlp_http", OtlpHttp)):
        server = ThreadingHTTPServer((host, ports[name]), handler)
        if tls:
            server.socket = encrypted(tls).wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False)
        ports[name] = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    otlp_grpc.add_TraceServiceServicer_to_server(OtlpGrpc(), server)
    otlp_metrics_grpc.add_MetricsServiceServicer_to_server(OtlpMetricsGrpc(), server)
    address = "%s:%d" % (host, ports["otlp_grpc"])
    ports["otlp_grpc"] = (
        server.add_secure_port(address, grpc_credentials(tls)) if tls else server.add_insecure_port(address))
    server.start()
    say({"ready": ports})
    sys.stdin.read()
    os._exit(0)


main()
