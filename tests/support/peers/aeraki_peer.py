"""tRPC, and QZA as a description of its own has it: PROTOCOL server HOST PORT NAME | PROTOCOL calls HOST PORT COUNT
NAME=VALUE ... A server answers with its name; calls counts the answers to so many calls with these values, over one
connection until it is closed, and then over another."""
import socket
import struct
import sys
from collections import Counter

protocol, role, host, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def exactly(stream, count):
    got = b""
    while len(got) < count:
        more = stream.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def text(field, value):
    value = value if isinstance(value, bytes) else value.encode()
    return bytes([field << 3 | 2, len(value)]) + value


class Trpc:
    """16 bytes, then a message of Protocol Buffers, then the body."""

    def take(self, stream):
        head = exactly(stream, 16)
        total, meta, number = struct.unpack(">IHI", head[4:14])
        rest = exactly(stream, total - 16)
        return number, rest[meta:]

    def give(self, stream, number, meta, body):
        head = struct.pack(">HBBIHIBB", 0x0930, 0, 0, 16 + len(meta) + len(body), len(meta), number, 1, 0)
        stream.sendall(head + meta + body)

    def ask(self, stream, number, values):
        meta = bytes([3 << 3, number]) + text(6, values["callee"]) + text(7, values["func"])
        for name, value in values.items():
            if name not in ("callee", "func"):
                meta += text(9, text(1, name) + text(2, value))
        self.give(stream, number, meta, b"ask")

    def answer(self, stream, number, name):
        self.give(stream, number, bytes([3 << 3, number]), name)


class Qza:
    """Length of all of it, number, cmd and sub_cmd as texts of 8 bytes, and the rest."""

    def take(self, stream):
        length, number = struct.unpack(">II", exactly(stream, 8))
        return number, exactly(stream, length - 8)[16:]

    def give(self, stream, number, cmd, sub_cmd, body):
        stream.sendall(struct.pack(">II8s8s", 24 + len(body), number, cmd, sub_cmd) + body)

    def ask(self, stream, number, values):
        self.give(stream, number, values["cmd"].encode(), values["sub_cmd"].encode(), b"ask")

    def answer(self, stream, number, name):
        self.give(stream, number, b"", b"", name)


wire = Trpc() if protocol == "trpc" else Qza()
if role == "server":
    name = sys.argv[5].encode()
    listener = socket.create_server((host, port))
    while True:
        stream, _ = listener.accept()
        try:
            while True:
                number, _ = wire.take(stream)
                wire.answer(stream, number, name)
        except (EOFError, ConnectionError):
            stream.close()
else:
    values = dict(pair.split("=") for pair in sys.argv[6:])
    answers, stream = Counter(), None
    for number in range(1, int(sys.argv[5]) + 1):
        stream = stream or socket.create_connection((host, port), 10)
        try:
            wire.ask(stream, number, values)
            answered, body = wire.take(stream)
            assert answered == number, (answered, number)
            answers[body.decode() if len(body) < 10 else "refused"] += 1
        except (EOFError, ConnectionError):
            answers["closed"] += 1
            stream = None
    for answer, count in sorted(answers.items()):
        print(count, answer)
