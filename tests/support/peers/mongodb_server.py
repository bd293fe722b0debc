"""What no server to be had does, as MongoDB's wire protocol says it: PORT. Answers by many messages
(exhaust), none (w:0), `hello` that waits for news, errors with codes and names, compressed messages.
Documents are read and written by pymongo's bson."""
import socket
import struct
import sys
import threading
import time
import zlib

import bson

OP_REPLY, OP_QUERY, OP_COMPRESSED, OP_MSG = 1, 2004, 2012, 2013
MORE, EXHAUST = 2, 1 << 16
VERSION = {"processId": bson.ObjectId(), "counter": bson.Int64(0)}
HELLO = {
    "helloOk": True, "isWritablePrimary": True, "ismaster": True, "topologyVersion": VERSION,
    "maxBsonObjectSize": 16777216, "maxMessageSizeBytes": 48000000, "maxWriteBatchSize": 100000,
    "logicalSessionTimeoutMinutes": 30, "minWireVersion": 0, "maxWireVersion": 21, "ok": 1.0,
}
MISSING = {"ok": 0.0, "errmsg": "no such command", "code": 59, "codeName": "CommandNotFound"}
TWICE = {"n": 0, "writeErrors": [{"index": 0, "code": 11000, "errmsg": "E11000 dup"}], "ok": 1.0}
SLOW = {"n": 1, "ok": 1.0, "writeConcernError": {"code": 64, "codeName": "WriteConcernTimeout",
                                                 "errmsg": "waiting for replication timed out"}}
stored = []


class Connection:
    def __init__(self, stream):
        self.stream, self.number, self.compressor = stream, 1000, 0

    def read(self, count):
        data = b""
        while len(data) < count:
            piece = self.stream.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def send(self, answers, opcode, body):
        self.number += 1
        if self.compressor and opcode == OP_MSG:
            body = struct.pack("<iiB", opcode, len(body), 2) + zlib.compress(body)
            opcode = OP_COMPRESSED
        self.stream.sendall(struct.pack("<iiii", 16 + len(body), self.number, answers, opcode) + body)
        return self.number

    def message(self, answers, document, flags=0):
        return self.send(answers, OP_MSG, struct.pack("<IB", flags, 0) + bson.encode(document))

    def serve(self):
        while True:
            length, number, _, opcode = struct.unpack("<iiii", self.read(16))
            body = self.read(length - 16)
            self.compressor = 0
            if opcode == OP_COMPRESSED:
                opcode, _, self.compressor = struct.unpack("<iiB", body[:9])
                body = zlib.decompress(body[9:])
            if opcode == OP_QUERY:
                end = body.index(b"\0", 4) + 1
                hello = bson.encode(self.hello(bson.decode(body[end + 8:])))
                self.send(number, OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + hello)
                continue
            (flags,) = struct.unpack("<I", body[:4])
            (size,) = struct.unpack("<i", body[5:9])
            self.command(number, flags, bson.decode(body[5:5 + size]), body[5 + size:])

    def hello(self, command):
        return HELLO | {"compression": [it for it in command.get("compression", []) if it == "zlib"]}

    def command(self, number, flags, command, rest):
        name = next(iter(command))
        if name in ("hello", "ismaster", "isMaster"):
            number = self.message(number, self.hello(command), MORE if flags & EXHAUST else 0)
            while flags & EXHAUST:
                time.sleep(0.3)
                number = self.message(number, self.hello(command), MORE)
        elif name == "insert":
            stored.append(rest)
            answer = {"dup": TWICE, "slow": SLOW}.get(command["insert"], {"n": 1, "ok": 1.0})
            if not flags & MORE:
                self.message(number, answer)
        elif name == "count":
            self.message(number, {"n": len(stored), "ok": 1.0})
        elif name in ("find", "getMore"):
            self.cursor(number, flags, command)
        elif name in ("ping", "endSessions"):
            self.message(number, {"ok": 1.0})
        else:
            self.message(number, MISSING)

    def cursor(self, number, flags, command):
        """Five batches; one by one, or all that are left in a row."""
        batch = [{"_id": it, "text": "x" * it} for it in range(20)]
        space = "shop." + command.get("collection", command.get("find"))
        if "find" in command:
            first = {"firstBatch": batch, "id": bson.Int64(4), "ns": space}
            return self.message(number, {"cursor": first, "ok": 1.0})
        left = command["getMore"]
        while True:
            left -= 1
            more = {"nextBatch": batch, "id": bson.Int64(left), "ns": space}
            goes_on = flags & EXHAUST and left > 0
            number = self.message(number, {"cursor": more, "ok": 1.0}, MORE if goes_on else 0)
            if not goes_on:
                return number


def serve(stream):
    try:
        Connection(stream).serve()
    except (EOFError, OSError):
        pass


listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
