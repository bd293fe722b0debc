"""A chain of calls: HTTP -> Dubbo -> Thrift with THeader -> HTTP. `pod HOST` is the application that
hands on nothing but the request id, `far HOST` the services that it calls, whose own hop copies all
that came with a call; `ask HOST` begins. HOST is where the others are. What the last hop was sent,
and what the second, is the answer."""
import json
import logging
import os
import socketserver
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dubbo.codec.hessian2 import Decoder, DubboRequest, DubboResponse
from thrift.protocol.THeaderProtocol import THeaderProtocol
from thrift.Thrift import TMessageType, TType
from thrift.transport.THeaderTransport import THeaderClientType
from thrift.transport.TSocket import TServerSocket, TSocket

logging.disable(logging.CRITICAL)
role, host = sys.argv[1:3]
ID = "x-request-id"


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def texts(pairs):
    return {text(name).lower(): text(value) for name, value in pairs.items()}


def http_server(port, answer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(answer(texts(dict(self.headers)))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    threading.Thread(target=ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever).start()


def get(port, headers):
    request = urllib.request.Request(f"http://{host}:{port}/hop", headers=headers)
    with urllib.request.urlopen(request, timeout=8) as response:
        return json.load(response)


def dubbo_server(port, answer):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            try:
                while True:
                    call = Decoder(self.request).decode()
                    data = json.dumps(answer(texts(call.attachment)))
                    said = DubboResponse(call.id, DubboResponse.OK, data, None)
                    self.request.sendall(said.encode())
            except EOFError:
                pass

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    server = socketserver.ThreadingTCPServer(("0.0.0.0", port), Handler)
    threading.Thread(target=server.serve_forever).start()


def dubbo_call(port, attachments):
    import socket

    call = DubboRequest(7, True, "2.0.2", "org.demo.Hop", "hop", ["joe"], attachment=attachments)
    with socket.create_connection((host, port), 8) as stream:
        stream.sendall(call.encode())
        return json.loads(text(Decoder(Reading(stream)).decode().data))


class Reading:
    """dubbo-py reads from sockets."""

    def __init__(self, stream):
        self.stream = stream

    def recv(self, size):
        return self.stream.recv(size)


def put(protocol, kind, seqid, value):
    protocol.writeMessageBegin("hop", kind, seqid)
    protocol.writeFieldBegin("s", TType.STRING, 0 if kind == TMessageType.REPLY else 1)
    protocol.writeString(value)
    protocol.writeFieldEnd()
    protocol.writeFieldStop()
    protocol.writeMessageEnd()
    protocol.trans.flush()


def take(protocol):
    _, _, seqid = protocol.readMessageBegin()
    protocol.readFieldBegin()
    value = protocol.readString()
    protocol.readFieldEnd()
    protocol.readFieldBegin()
    protocol.readMessageEnd()
    return seqid, value


def thrift_server(port, answer):
    listener = TServerSocket("0.0.0.0", port)
    listener.listen()

    def serve(stream):
        protocol = THeaderProtocol(stream, (THeaderClientType.HEADERS,))
        try:
            while True:
                seqid, _ = take(protocol)
                put(protocol, TMessageType.REPLY, seqid, json.dumps(answer(texts(protocol.get_headers()))))
        except (EOFError, Exception):
            stream.close()

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept(),)).start()

    threading.Thread(target=accept).start()


def thrift_call(port, headers):
    stream = TSocket(host, port)
    stream.open()
    protocol = THeaderProtocol(stream, (THeaderClientType.HEADERS,))
    for name, value in headers.items():
        protocol.set_header(name.encode(), value.encode())
    put(protocol, TMessageType.CALL, 3, "joe")
    answer = json.loads(take(protocol)[1])
    stream.close()
    return answer


def only_id(pairs):
    return {ID: pairs[ID]} if ID in pairs else {}


if role == "pod":
    thrift_server(9090, lambda headers: get(8081, only_id(headers)))
    http_server(8080, lambda headers: dubbo_call(20880, only_id(headers)))
elif role == "far":
    http_server(8081, lambda headers: {"http": headers})
    dubbo_server(20880, lambda pairs: {"dubbo": pairs} | thrift_call(9090, pairs))
else:
    print(json.dumps(get(8080, {ID: "chain-1"} if len(sys.argv) > 3 else {})))
    sys.stdout.flush()
    os._exit(0)
