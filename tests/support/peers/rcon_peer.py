"""Source RCON: `server HOST PORT` answers each command with ok; `client HOST PORT` sends two, and says what came."""
import socket
import struct
import sys

role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])


def exactly(stream, count):
    got = b""
    while len(got) < count:
        more = stream.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def take(stream):
    (length,) = struct.unpack("<i", exactly(stream, 4))
    rest = exactly(stream, length)
    number, kind = struct.unpack("<ii", rest[:8])
    return number, kind, rest[8:-2]


def give(stream, number, kind, text):
    stream.sendall(struct.pack("<iii", len(text) + 10, number, kind) + text + b"\0\0")


if role == "server":
    listener = socket.create_server((host, port))
    while True:
        stream, _ = listener.accept()
        try:
            while True:
                number, _, _ = take(stream)
                give(stream, number, 0, b"ok")
        except (EOFError, ConnectionError):
            stream.close()
else:
    stream = socket.create_connection((host, port), 10)
    for number in (7, 8):
        give(stream, number, 2, b"status")
        print(*take(stream))
