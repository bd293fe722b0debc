"""HTTP/1 for mirrors: server PORT FILE | client HOST PORT PATH COUNT. The server writes a line for each
request into the file: method, path, length and hash of its body, and what rules have given it. The client asks so often over
one connection, with bodies of all lengths, by length and in chunks, and says how many answers were its own."""
import hashlib
import http.client
import random
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def serve(port, path):
    out = open(path, "a", buffering=1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def body(self):
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def do_POST(self):
            body = self.body()
            digest = hashlib.sha1(body).hexdigest()[:12]
            given = self.headers.get("X-Given", "-")
            out.write(f"{self.command} {self.path} {len(body)} {digest} {given}\n")
            answer = f"{self.path} {digest}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever()


def ask(host, port, path, count):
    chance, good = random.Random(11), 0
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host = {"Host": "svc"}
    for number in range(count):
        length = chance.choice([0, 0, 10, 3000, 20000, 60000])
        body = bytes(chance.getrandbits(8) for _ in range(min(length, 64))) * (length // 64 + 1)
        body = body[:length]
        target = f"{path}/{number}"
        if length == 0:
            connection.request("GET", target, headers=host)
        elif number % 3 == 0:
            chunks = [body[at : at + 7000] for at in range(0, length, 7000)]
            chunked = {"Transfer-Encoding": "chunked"} | host
            connection.request("POST", target, iter(chunks), chunked, encode_chunked=True)
        else:
            connection.request("POST", target, body, host)
        answer = connection.getresponse()
        said = answer.read().decode()
        digest = hashlib.sha1(body).hexdigest()[:12]
        good += answer.status == 200 and said == f"{target} {digest}"
    print(f"good {good} of {count}")


if sys.argv[1] == "server":
    serve(int(sys.argv[2]), sys.argv[3])
else:
    ask(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
